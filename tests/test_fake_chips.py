"""fake-chips and get-reflectance: statistics of the noise, independence of chips, the reflectance file that ships."""

import numpy as np
import pytest
import torch

import chip
from chipping import fake_chips as fake
from chipping import pan_chips
from chipping.get_reflectance import sample_reflectances
from chipping.pan_chips import read_chip
from constants import BGRN_BANDS
from raster.pair import match_pair
from raster.resampling import MS_GAIN, reduce_mtf
from runtime.errors import RunError, UserError
from synthetic.spectra import reflectance_lines

RECIPE = fake.FakeRecipe(side=32)


def make(folder, count, recipe=RECIPE, **options):
    return fake.make_fake_chips(fake.OUR_REFLECTANCES, folder, count, recipe, **options)


def test_the_file_that_ships_is_what_the_script_writes():
    assert fake.OUR_REFLECTANCES.read_text().splitlines() == reflectance_lines()
    values = fake.read_reflectances(fake.OUR_REFLECTANCES)
    assert values.shape[1] == 9 and len(values) > 50 and values.min() > 0 and values.max() <= 1


def test_noise_has_mean_0_deviation_1_and_the_slope_it_is_named_for():
    field = fake.noise(np.random.default_rng(0), 256, 2)
    assert field.mean() == pytest.approx(0, abs=1e-5) and field.std() == pytest.approx(1, abs=1e-5)
    power = np.abs(np.fft.rfft2(field)) ** 2
    f = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.rfftfreq(256)[None])
    rings = [power[(f > low) & (f <= 1.2 * low)].mean() for low in (0.05, 0.1, 0.2)]
    assert np.log2(rings[0] / rings[1]) == pytest.approx(4, abs=0.5)  # power falls with the square of the amplitude's slope


def test_chips_are_ordinary_chips_within_their_range(tmp_path):
    assert make(tmp_path, 3) == 3
    for number in range(3):
        chip = pan_chips.read_chip(tmp_path / f"{number}.pt")
        pan, mul, truth, valid = pan_chips.decode_chip(chip, "bands")
        assert pan.shape == (1, 32, 32) and mul.shape == (8, 8, 8) and truth.shape == (8, 32, 32) and valid is None
        assert 0 <= min(pan.min(), truth.min()) and max(pan.max(), truth.max()) <= 1
        assert (truth.unflatten(2, (8, 4)).unflatten(1, (8, 4)).mean((2, 4)) - mul).abs().max() < 1.01e-4


def test_a_chip_depends_on_seed_and_number_alone(tmp_path):
    make(tmp_path / "a", 4)
    make(tmp_path / "b", 2)
    make(tmp_path / "b", 4)  # goes on
    assert [(tmp_path / "a" / f"{n}.pt").read_bytes() for n in range(4)] == [(tmp_path / "b" / f"{n}.pt").read_bytes() for n in range(4)]
    alone = fake.make_fake_chip(fake.read_reflectances(fake.OUR_REFLECTANCES), RECIPE, 3)
    assert torch.equal(alone["pan"], pan_chips.read_chip(tmp_path / "a" / "3.pt")["pan"])
    make(tmp_path / "c", 1, fake.FakeRecipe(side=32, seed=1))
    assert (tmp_path / "c" / "0.pt").read_bytes() != (tmp_path / "a" / "0.pt").read_bytes()


def test_a_chip_that_was_taken_away_comes_back_as_it_was(tmp_path):
    make(tmp_path, 3)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    (tmp_path / "1.pt").unlink()
    assert make(tmp_path, 3) == 1
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_chips_have_the_size_of_their_pixels_and_no_more(tmp_path):
    make(tmp_path, 1, fake.FakeRecipe(side=128))
    pixels = 2 * (128**2 + 8 * 32**2 + 8 * 128**2)
    assert pixels < (tmp_path / "0.pt").stat().st_size < pixels + 4000


def test_other_settings_are_refused_and_replaced_on_demand(tmp_path):
    make(tmp_path, 2)
    with pytest.raises(UserError, match="seed: 0 → 5"):
        make(tmp_path, 2, fake.FakeRecipe(side=32, seed=5))
    make(tmp_path, 1, fake.FakeRecipe(side=32, seed=5), overwrite=True)
    assert len(list(tmp_path.glob("*.pt"))) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2,3,4,5,6,7,8,9\n" * 6, "has 6 reflectances; at least 7"),
        ("1,2,3\n" * 9, "line 1: expected nine numbers"),
        ("a,b,c,d,e,f,g,h,i\n" * 9, "line 1: expected nine numbers"),
        ("nan,2,3,4,5,6,7,8,9\n" * 9, "line 1"),
        ("", "has 0"),
    ],
)
def test_reflectance_files_that_cannot_be_used_are_named_with_their_line(tmp_path, text, message):
    (tmp_path / "r.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        fake.read_reflectances(tmp_path / "r.csv")
    with pytest.raises(UserError, match="cannot be read"):
        fake.read_reflectances(tmp_path / "missing.csv")


def test_a_side_that_ms_does_not_divide_is_refused(tmp_path):
    with pytest.raises(UserError, match="multiple of 4"):
        make(tmp_path, 1, fake.FakeRecipe(side=30))


def test_sampled_lines_hold_the_pixels_values_and_pans_mean(make_raster, tmp_path):
    ms = np.zeros((8, 4, 4), np.uint16)
    ms[:] = np.arange(1, 9)[:, None, None] * 1000
    ms[:, 0] = 0  # null
    pan = np.full((16, 16), 4000, np.uint16)
    pan[::2] = 5000
    pair = match_pair(make_raster("p.tif", pan, crs=None), make_raster("m.tif", ms, crs=None))
    lines = sample_reflectances(pair, 5, 10_000, note="made up")
    assert lines == ["4500,1000,2000,3000,4000,5000,6000,7000,8000,made up"] * 5
    assert sample_reflectances(pair, 1, 20_000)[0].startswith("2250,500,")


def test_a_pair_of_nulls_gives_no_lines(make_raster):
    empty = np.zeros((8, 4, 4), np.uint16)
    pair = match_pair(make_raster("p.tif", np.zeros((16, 16), np.uint16), crs=None), make_raster("m.tif", empty, crs=None))
    with pytest.raises(RunError, match="only 0 of 3"):
        sample_reflectances(pair, 3, 10_000)


def test_lines_from_the_real_pair_can_be_used_at_once(real_data, tmp_path):
    folder = real_data / "pansharpen"
    pair = match_pair(folder / "worldview2-pan.tif", folder / "worldview2-ms.tif")
    lines = sample_reflectances(pair, 12, 2047)
    (tmp_path / "r.csv").write_text("\n".join(lines))
    assert fake.read_reflectances(tmp_path / "r.csv").shape == (12, 9)
    assert lines == sample_reflectances(pair, 12, 2047)


def test_blurred_chips_hold_inputs_as_the_protocol_makes_them(tmp_path):
    make(tmp_path, 1, fake.FakeRecipe(side=32, reduction="mtf", dtype="float32"))
    pan, mul, truth, _ = pan_chips.decode_chip(pan_chips.read_chip(tmp_path / "0.pt"), "bands")
    assert torch.allclose(reduce_mtf(truth[None], 4, MS_GAIN)[0], mul, atol=1e-6)
    assert pan.shape == (1, 32, 32) and 0 < pan.min() and pan.max() <= 1


def test_chips_of_four_bands_have_their_names_and_spectra_seen_through_the_edges_of_these_bands(tmp_path):
    """Both of our files come from the same spectra: what has the same edges has the same numbers."""
    chip.main(["fake-chips", "-o", str(tmp_path / "c"), "-c", "1", "-s", "32", "--bands", "blue,green,red,nir", "--quiet"])
    made = read_chip(tmp_path / "c" / "0.pt")
    assert made["meta"]["bands"] == "blue,green,red,nir" and made["bands"].shape == (4, 32, 32) and made["mul"].shape == (4, 8, 8)
    four, eight = fake.read_reflectances(fake.our_reflectances(BGRN_BANDS), 4), fake.read_reflectances(fake.OUR_REFLECTANCES)
    assert np.array_equal(four[:, :4], eight[:, [0, 2, 3, 5]]) and (four[:, 4] != eight[:, 7]).any()
    with pytest.raises(UserError, match="no reflectance file of our own for red, nir"):
        chip.main(["fake-chips", "-o", str(tmp_path / "d"), "-c", "1", "-s", "32", "--bands", "red,nir"])
    (tmp_path / "r.csv").write_text("1,2,3,a note\n" * 7)
    words = ["-c", "1", "-s", "32", "--bands", "red,nir", "-i", str(tmp_path / "r.csv"), "--quiet"]
    chip.main(["fake-chips", "-o", str(tmp_path / "d"), *words])
    with pytest.raises(UserError, match="expected five numbers"):
        fake.read_reflectances(tmp_path / "r.csv", 4)


def test_bands_that_are_not_those_of_the_file_or_of_the_folder_are_refused(tmp_path):
    with pytest.raises(UserError, match="more than five numbers"):
        fake.read_reflectances(fake.OUR_REFLECTANCES, 4)
    with pytest.raises(UserError, match="names a band twice"):
        fake.make_fake_chips(fake.OUR_REFLECTANCES, tmp_path, 1, fake.FakeRecipe(side=32, bands=("blue", "blue", "red", "nir")))
    make(tmp_path, 1)
    with pytest.raises(UserError, match="bands"):
        fake.make_fake_chips(fake.OUR_REFLECTANCES, tmp_path, 2, fake.FakeRecipe(side=32, bands=tuple("abcdefgh")))
