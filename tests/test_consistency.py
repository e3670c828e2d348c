"""Sharpened bands, reduced to the grid of ms, are ms; light is not negative; detail fades in shadow."""

import re

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rasterio.transform import from_origin
from rasterio.windows import Window
from test_fuse import network_checkpoint

import inference
from pansharpening import preview, sharpen
from pansharpening.classical import METHODS, fuse_whole, ratio_of
from pansharpening.consistency import BACK_PROJECTION_REACH, back_projected, not_below_zero
from pansharpening.fuse import FuseSettings, fuse
from pansharpening.sharpeners import classical_sharpener, network_sharpener
from raster.pair import match_pair
from raster.resampling import reduce_mtf
from runtime.checkpoint import save_checkpoint
from runtime.errors import UserError


def noise(seed, *shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=15, deadline=None)
@given(height=st.integers(6, 20), width=st.integers(6, 20), ratio=st.sampled_from([2, 4]), seed=st.integers(0, 99),
       method=st.sampled_from(sorted(METHODS)))
def test_a_step_brings_the_image_nearer_to_ms_and_leaves_one_that_is_ms_alone(height, width, ratio, seed, method):
    ms, pan = noise(seed, 1, 3, height, width) + 0.1, noise(seed + 1, 1, 1, ratio * height, ratio * width) + 0.1

    def lack(image):
        return float(((ms - reduce_mtf(image, ratio, 0.3)) ** 2).mean())

    image = fuse_whole(method, ms, pan, ratio)
    assert lack(back_projected(image, ms, ratio)) < 0.7 * lack(image)
    assert torch.allclose(back_projected(image, reduce_mtf(image, ratio, 0.3), ratio), image, atol=1e-6)


def test_light_is_not_negative_but_where_ms_is_so_nearby():
    ms = torch.full((1, 2, 12, 12), 0.1)
    ms[0, 1, 6, 6] = -0.01  # as atmospheric correction leaves water
    image = torch.full((1, 2, 48, 48), -0.2)
    found = not_below_zero(image, ms, 4)
    kept = torch.zeros(2, 48, 48, dtype=torch.bool)
    kept[1, 16:36, 16:36] = True  # the five ms pixels to a side that an enlarged pixel is made of
    assert torch.equal(found[0] < 0, kept) and (found[0, kept] == image[0, kept]).all() and (found[0, ~kept] == 0).all()
    dark = noise(0, 1, 2, 48, 48)
    assert torch.equal(not_below_zero(dark, ms, 4), dark)


def test_a_method_that_adds_detail_gives_nothing_below_zero():
    ms, pan = noise(1, 1, 3, 12, 12) ** 6, noise(2, 1, 1, 48, 48) ** 6
    for back_projection in (False, True):
        assert fuse_whole("gsa", ms, pan, 4, back_projection).min() == 0  # without the limit -0.4


def test_detail_fades_in_shadow_without_a_step():
    usual, low = torch.tensor(0.5), torch.linspace(-0.02, 0.3, 3201, dtype=torch.float64)
    ratio = ratio_of(low + 0.02, low, usual)
    lit = low >= 0.05
    assert torch.equal(ratio[lit], (low + 0.02)[lit] / low[lit]) and (ratio[low <= 0] == 1).all()
    assert ratio.max() <= 1.4 + 1e-9 and ratio.diff().abs().max() < 2e-3  # 0.02 / 0.05 more, where the old quotient rose to 10
    assert torch.equal(ratio_of(low + 0.02, low, torch.tensor(0.0)), torch.where(low > 0, (low + 0.02) / low, 1).clamp(0, 10))


@pytest.fixture
def pair(make_raster):
    """Random ms and pan of 40 x 36 ms pixels, float32, 0 nodata: a rim of ms and a stripe of pan have none."""
    ms, pan = (noise(i, *shape).numpy() * 800 + 50 for i, shape in enumerate(((4, 40, 36), (1, 160, 144))))
    ms[:, :, :3], pan[:, 90:94] = 0, 0
    place = {"crs": "EPSG:32633"}
    make_raster("a-pan.tif", pan, transform=from_origin(0, 0, 2.5, 2.5), **place)
    path = make_raster("a-ms.tif", ms, transform=from_origin(0, 0, 10, 10), **place)
    return match_pair(path.with_name("a-pan.tif"), path)


def read(path):
    with rasterio.open(path) as file:
        return file.read(), file.tags()


@pytest.mark.parametrize("ratio", [2, 4, 8])
def test_a_step_looks_as_far_as_it_says(ratio):
    image, ms = noise(0, 1, 1, 24 * ratio, 24 * ratio).double(), noise(1, 1, 1, 24, 24).double()
    before, changed = back_projected(image, ms, ratio), torch.zeros(24 * ratio, 24 * ratio, dtype=torch.bool)
    for row, column in ((0, 0), (ratio - 1, ratio - 1)):  # the first and the last pixel of an ms pixel
        other = image.clone()
        other[0, 0, 12 * ratio + row, 12 * ratio + column] += 1
        changed |= (back_projected(other, ms, ratio) != before)[0, 0]
    where = changed.nonzero()
    reach = max(12 * ratio - int(where.min()), int(where.max()) - (13 * ratio - 1))
    assert (BACK_PROJECTION_REACH - 1) * ratio < reach <= BACK_PROJECTION_REACH * ratio


@pytest.mark.parametrize("which", ["network", "gsa"])
def test_blocks_do_not_show_after_back_projection(pair, tmp_path, which):
    maps = []
    for block in (1000, 48, 20):
        sharpener = (network_sharpener(network_checkpoint(), back_projection=True) if which == "network"
                     else classical_sharpener(which, pair, (1000.0, 0.0), block, back_projection=True))
        fuse(pair, tmp_path / f"{block}.tif", sharpener, FuseSettings(scale=(1000.0, 0.0), block=block))
        maps.append(read(tmp_path / f"{block}.tif")[0])
    usual = network_sharpener(network_checkpoint()) if which == "network" else classical_sharpener(which, pair, (1000.0, 0.0), 48)
    assert sharpener.reach == usual.reach + 4 * BACK_PROJECTION_REACH
    assert (maps[0] == 0).any() and all(np.abs(other - maps[0]).max() < 2e-2 for other in maps[1:])  # of values up to 850


def test_back_projection_is_the_default_and_another_raster_than_without(pair, tmp_path, capsys):
    save_checkpoint(tmp_path / "model.pt", network_checkpoint())
    for words in (["--method", "bicubic"], ["--checkpoint", tmp_path / "model.pt"]):
        folder = tmp_path / words[0].strip("-")
        command = [*words, "--pan", pair.pan, "--ms", pair.ms, "--divide-by", 1000, "--device", "cpu", "--output-dir", folder]
        command = [str(word) for word in command]
        assert inference.main(command) == 0
        image, tags = read(folder / "a_sharpened.tif")
        assert tags["SHARPENED_WITH"].endswith(", back-projected")
        with pytest.raises(inference.UserError, match="exists already"):
            inference.main([*command, "--no-back-projection"])
        assert inference.main([*command, "--no-back-projection", "--overwrite"]) == 0
        plain, tags = read(folder / "a_sharpened.tif")
        assert "back-projected" not in tags["SHARPENED_WITH"] and 0.5 < np.abs(plain - image).max()
        assert inference.main([*command, "--no-back-projection"]) == 0 and "sharpened already" in capsys.readouterr().err


def test_red_green_and_blue_are_tagged_where_all_are_there(pair, tmp_path):
    for names, rgb, expected in (
        ("blue,green,red,nir", [], ["blue", "green", "red", "undefined"]), ("nir,red,green,coastal", [], ["gray", *["undefined"] * 3]),
        ("nir,red,green,blue", ["--rgb", "--divide-by", "1000"], ["red", "green", "blue"]),
    ):
        words = ["--method", "bicubic", "--pan", pair.pan, "--ms", pair.ms, "--bands", names, "--output-dir", str(tmp_path), "--overwrite"]
        assert inference.main([*words, *rgb]) == 0
        with rasterio.open(tmp_path / "a_sharpened.tif") as file:
            assert [interpretation.name for interpretation in file.colorinterp] == expected


@pytest.mark.parametrize("rgb", [[], ["--rgb"]])
def test_the_preview_shows_pan_ms_and_the_sharpened_bands_where_most_is_valid(pair, tmp_path, rgb):
    words = ["--method", "gsa", "--pan", pair.pan, "--ms", pair.ms, "--output-dir", str(tmp_path), "--divide-by", "1000", *rgb]
    assert inference.main(words) == 0
    path = tmp_path / "a_sharpened_pair.png"
    picture = np.asarray(Image.open(path).convert("RGB"))
    assert picture.shape[1] > 3 * 320 and picture.std() > 20
    path.unlink()  # as after a kill between the two files
    assert inference.main(words) == 0 and np.array_equal(np.asarray(Image.open(path).convert("RGB")), picture)


def test_the_preview_shows_one_place_thrice_and_not_the_middle_where_others_have_more(pair, tmp_path, monkeypatch):
    with rasterio.open(pair.ms, "r+") as file:
        file.nodata = 0
        ms = file.read()
        ms[:, 17:23, 16:21] = 0  # in the middle of 40 x 36
        file.write(ms)
    shown = []
    monkeypatch.setattr(preview, "SIDE", 32)
    monkeypatch.setattr(preview, "show_light", lambda image, *_: np.asarray(image))
    monkeypatch.setattr(preview, "contact_sheet", lambda *given, **_: shown.append(given) or np.zeros((4, 4, 3), np.uint8))
    words = ["--method", "gsa", "--pan", pair.pan, "--ms", pair.ms, "--output-dir", str(tmp_path), "--divide-by", "1000"]
    assert inference.main(words) == 0
    ((pan, coarse, sharpened),), _, (where,) = shown[0]
    left, right, top, bottom = map(int, re.findall(r"\d+", where))
    window = Window(left, top, right + 1 - left, bottom + 1 - top)
    with rasterio.open(pair.pan) as file:
        assert np.allclose(pan, file.read(window=window) / 1000)
    assert np.allclose(coarse, ms[:, top // 4 : (bottom + 1) // 4, left // 4 : (right + 1) // 4].repeat(4, 1).repeat(4, 2) / 1000)
    assert (coarse > 0).all()  # nothing of the hole
    with rasterio.open(tmp_path / "a_sharpened.tif") as file:
        assert np.allclose(sharpened, file.read(window=window) / 1000, atol=1e-6)


def test_a_picture_of_somebody_else_is_not_replaced_by_the_preview_and_an_old_one_goes_with_its_raster(pair, tmp_path, monkeypatch):
    words = ["--method", "gsa", "--pan", pair.pan, "--ms", pair.ms, "--output-dir", str(tmp_path), "--divide-by", "1000"]
    picture = tmp_path / "a_sharpened_pair.png"
    picture.write_bytes(b"mine")
    with pytest.raises(UserError, match="exists already"):
        inference.main(words)
    assert picture.read_bytes() == b"mine" and not (tmp_path / "a_sharpened.tif").exists()
    monkeypatch.setattr(sharpen, "write_preview", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        inference.main([*words, "--overwrite"])
    assert (tmp_path / "a_sharpened.tif").exists() and not picture.exists()
    with pytest.raises(UserError, match="--encoder-weights is for other maps"):
        inference.main([*words, "--encoder-weights", "nowhere.pt"])


def test_a_picture_in_oklab_is_left_as_it_is(pair):
    ms, pan = noise(0, 1, 4, 8, 8), noise(1, 1, 1, 32, 32)
    plain, asked = (network_sharpener(network_checkpoint("oklab"), back_projection=b) for b in (False, True))
    assert torch.equal(plain.run(ms, pan), asked.run(ms, pan)) and (plain.name, plain.reach) == (asked.name, asked.reach)
