"""Where ms really lies: found in images moved by drawn shifts, and told by inspect; a fraction of a pixel loses no row of ms."""

import re

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import from_origin

import chip
from chipping.pair_inspection import shift_words
from raster.pair import PairReader, match_pair
from raster.pair_shift import Shift, displacement, estimate_shift
from raster.resampling import reduce_mtf
from runtime.errors import UserError


def landscape(height, width, seed, x=0.0, y=0.0):
    """(height, width) values about 1 with the spectrum of ground, periodic, moved right and down by its phases: exact for any fraction."""
    vertical, horizontal = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)
    frequency = np.maximum(np.hypot(vertical, horizontal), 1 / max(height, width))
    spectrum = np.fft.fft2(np.random.default_rng(seed).normal(size=(height, width))) / frequency**1.2
    spectrum *= np.exp(-2j * np.pi * (vertical * y + horizontal * x)) * (frequency < 0.45)
    image = np.fft.ifft2(spectrum).real
    return 1 + 0.15 * (image - image.mean()) / image.std()


@pytest.fixture(scope="session")
def write_pair(tmp_path_factory):
    """write_pair(height, width, ratio, x, y, seed, share of nodata rows) → (pan path, ms path); ms lies (x, y) pan pixels off."""

    def write(height, width, ratio, x, y, seed, hidden=0.0):
        folder = tmp_path_factory.mktemp("pair")
        size = (height * ratio, width * ratio)
        rng = np.random.default_rng(seed + 1)
        fine = landscape(*size, seed)
        moved, other = landscape(*size, seed, -x, -y), landscape(*size, seed + 1, -x, -y)
        bands = torch.from_numpy(np.stack([moved, 0.6 * moved + 0.4 * other, 1.6 - 0.6 * moved]))[None]
        ms = reduce_mtf(bands, ratio, 0.3)[0].numpy()
        ms, pan = (1000 * image + rng.normal(scale=3, size=image.shape) for image in (ms, fine[None]))
        rows = int(hidden * height)
        ms[:, :rows], pan[:, : rows * ratio] = 0, 0
        for name, values, pixel in (("pan", pan, 10 / ratio), ("ms", ms, 10)):
            with rasterio.open(folder / f"a-{name}.tif", "w", driver="GTiff", width=values.shape[2], height=values.shape[1],
                               count=len(values), dtype="float32", crs="EPSG:32633", transform=from_origin(0, 0, pixel, pixel)) as file:
                file.write(values.astype(np.float32))
        return folder / "a-pan.tif", folder / "a-ms.tif"

    return write


@settings(max_examples=8, deadline=None)
@given(height=st.integers(40, 110), width=st.integers(40, 110), ratio=st.sampled_from([2, 4]), x=st.floats(-2.5, 2.5),
       y=st.floats(-2.5, 2.5), seed=st.integers(0, 999))
def test_a_drawn_shift_is_found_to_a_fraction_of_a_pan_pixel(write_pair, height, width, ratio, x, y, seed):
    found = estimate_shift(match_pair(*write_pair(height, width, ratio, x, y, seed)))
    assert (found.x, found.y) == (pytest.approx(x, abs=0.3), pytest.approx(y, abs=0.3))


def test_nodata_does_not_pull_the_shift_towards_its_own_edge(write_pair):
    found = estimate_shift(match_pair(*write_pair(120, 100, 4, 1.5, -1, 3, hidden=0.3)))
    assert (found.x, found.y) == (pytest.approx(1.5, abs=0.3), pytest.approx(-1, abs=0.3))


def test_images_of_different_places_and_of_nothing_have_no_shift(write_pair):
    (pan, _), (_, ms) = write_pair(60, 60, 4, 0, 0, 1), write_pair(60, 60, 4, 0, 0, 20)
    assert estimate_shift(match_pair(pan, ms)) is None
    assert estimate_shift(match_pair(*write_pair(60, 60, 4, 0, 0, 1, hidden=1))) is None
    assert displacement(np.zeros((30, 30)), np.zeros((30, 30))) == (0, 0, 0)


def test_inspect_names_the_shift_to_pass_and_with_it_finds_none(write_pair, capsys):
    pan, ms = write_pair(100, 100, 4, 0.0, 1.5, 5)
    assert not chip.main(["inspect", "--pan", str(pan), "--ms", str(ms)])
    said = capsys.readouterr().out
    assert "4 pan pixels to an ms pixel; whole ms pixels lie under 400 x 400 pixels of pan" in said
    assert "ms lies 0 columns, 1.5 rows of pan from where its file says (4 windows); pass --shift=0,1.5" in said
    again = estimate_shift(match_pair(pan, ms, (0, 1.5)))
    assert shift_words(again) == "ms lies where its file says, to about a quarter of a pan pixel (4 windows)"


@pytest.mark.parametrize(("shift", "words"), [
    (None, "can't be told: there are too few"), (Shift(3, 3, 2.5, 9), "9 windows disagree by 2.5"),
    (Shift(-0.4, 0.13, 0.1, 1), "ms lies -0.5 columns, 0.25 rows .*1 window.; pass --shift=-0.5,0.25$"),
    (Shift(-0.6, -0.1, 0.1, 1), "ms lies -0.5 columns, 0 rows"),
])
def test_a_shift_in_words(shift, words):
    assert re.search(words, shift_words(shift))


@pytest.mark.parametrize("words", [[], ["--pan", "a.tif"], ["folder", "--pan", "a.tif", "--ms", "b.tif"]])
def test_inspect_wants_a_folder_or_a_whole_pair(words):
    with pytest.raises(UserError, match="--pan FILE and --ms FILE"):
        chip.main(["inspect", *words])


@settings(max_examples=15, deadline=None)
@given(x=st.floats(-0.98, 0.98), y=st.floats(-0.98, 0.98), ratio=st.sampled_from([2, 4]))
def test_a_fraction_of_a_pan_pixel_loses_no_row_of_ms(write_pair, x, y, ratio):
    paths = write_pair(9, 7, ratio, 0, 0, 0)
    pair = match_pair(*paths, (x, y))
    assert pair.area == (0, 0, 7, 9)
    with PairReader(pair) as reader:
        pan = reader.read_pan(*pair.area)
    assert pan.shape == (1, 9 * ratio, 7 * ratio) and (pan > 0).all()
    assert match_pair(*paths, (1.0 + max(x, 0), 0)).area[2] == 6  # a whole pixel is one
