"""A wrong scale is refused wherever reflectance is made, and no real scene is: pytest tests/test_wrong_scale.py"""

import warnings

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from map_factory import BANDS, MEAN, data, numbers, run, tiny_model, write_checkpoint
from patch_factory import write_patch_set

import chip
import train
from mapping.inputs import InputFlags, plan_input
from mapping.predict_file import predict_file
from mapping.segmentation import predict_array
from model import create_segmentation_model
from raster.bands import match_bands
from raster.plausible import judge
from raster.sample import sample_values
from raster.scale import bits_hint
from raster.source import describe
from runtime.errors import UserError

SENTINEL = ("B02", "B03", "B04", "B08", "B11", "B12")
SCALES = [[1e4] * 6]
# Typical reflectance of those bands over whole scenes.
GROUND = {
    "forest": (0.02, 0.04, 0.02, 0.30, 0.14, 0.06), "dry grass": (0.07, 0.10, 0.14, 0.25, 0.35, 0.25),
    "desert": (0.15, 0.25, 0.35, 0.45, 0.55, 0.50), "salt": (0.40, 0.45, 0.50, 0.55, 0.50, 0.40),
    "sea": (0.03, 0.02, 0.01, 0.005, 0.002, 0.002), "sea with haze": (0.10, 0.06, 0.04, 0.02, 0.008, 0.005),
    "muddy water": (0.07, 0.10, 0.09, 0.04, 0.01, 0.005), "snow": (0.85, 0.85, 0.85, 0.75, 0.10, 0.08),
    "cloud": (0.6, 0.6, 0.6, 0.65, 0.45, 0.35), "shadow": (0.01, 0.015, 0.008, 0.10, 0.04, 0.02),
    "burn": (0.05, 0.06, 0.07, 0.12, 0.22, 0.20), "lava": (0.04, 0.04, 0.04, 0.05, 0.06, 0.05),
    "city": (0.12, 0.13, 0.14, 0.20, 0.20, 0.17), "fields": (0.04, 0.08, 0.05, 0.40, 0.20, 0.10),
}
LAND = ("forest", "dry grass", "burn", "city", "fields")


def mixture(*names):
    return np.mean([GROUND[name] for name in names], axis=0)


TRAINED_ON = {"land": mixture(*LAND), "desert": mixture("desert"), "forest": mixture("forest"), "coast": mixture("sea", "fields"),
              "floods": mixture("muddy water", "fields")}


# ---------------------------------------------------------------------------------------------------------- the judgement


@pytest.mark.parametrize("trained_on", TRAINED_ON)
@pytest.mark.parametrize("ground", GROUND)
def test_no_ground_is_taken_for_a_wrong_scale(ground, trained_on):
    wrong, _ = judge(SENTINEL, GROUND[ground], TRAINED_ON[trained_on], SCALES)
    assert wrong == []


@given(st.sampled_from(LAND), st.sampled_from(LAND), st.floats(0, 1), st.sampled_from([1e-4, 1 / 255, 1 / 39, 39, 255, 1e4]))
def test_land_of_a_wrong_scale_is_refused(ground, other, share, times):
    """The divisors of a picture, of digital numbers and of reflectance, one for the other."""
    scene = share * np.array(GROUND[ground]) + (1 - share) * np.array(GROUND[other])
    wrong, _ = judge(SENTINEL, scene * times, TRAINED_ON["land"], SCALES)
    assert wrong


@given(times=st.floats(8, 1e4), dark=st.booleans())
def test_bands_that_share_a_scale_are_refused_together(times, dark):
    """A picture's three bands beside two of reflectance: each group may be wrong while the other is right."""
    names, usual = ("TCI_R", "TCI_G", "TCI_B", "B8", "B12"), np.array([0.5, 0.38, 0.28, 0.22, 0.21])
    scales = [["255"] * 3 + ["10000"] * 2]
    change = 1 / times if dark else times
    picture, infrared = np.array([change] * 3 + [1] * 2), np.array([1] * 3 + [change] * 2)
    assert judge(names, usual * picture, usual, scales)[0] == [0, 1, 2]
    assert judge(names, usual * infrared, usual, scales)[0] == ([] if dark else [3, 4])  # the infrared of water is as dark
    assert judge(names, usual * infrared, usual, scales)[1] == ([3, 4] if dark else [])


@pytest.mark.parametrize("ground", LAND)
def test_a_picture_read_as_digital_numbers_is_refused_by_its_visible_bands(ground):
    """0 … 255 divided by 10 000, in a file that has one scale for all bands."""
    wrong, _ = judge(SENTINEL, np.array(GROUND[ground]) / [39, 39, 39, 1, 1, 1], GROUND[ground], SCALES)
    assert wrong == [0, 1, 2]


def test_one_dark_band_is_only_odd():
    assert judge(BANDS, [0.1, 0.25, 0.15 / 5], MEAN) == ([], [2])
    assert judge(BANDS, [0.1, 0.25, 0.15 / 3.9], MEAN) == ([], [])
    assert judge(BANDS, [0.1, 0.25, 1.21], MEAN) == ([2], [])


def test_a_network_that_does_not_know_its_mean_refuses_what_is_far_off():
    assert judge(BANDS, [0.03, 0.02, 0.9]) == ([], [])
    assert judge(BANDS, [1e-5, 2e-5, 2e-5])[0] == [0, 1, 2] and judge(BANDS, [300, 900, 800])[0] == [0, 1, 2]


def test_values_that_were_never_reflectance_are_compared_with_their_own_training():
    assert judge(BANDS, [1400, 1500, 2000], [1500, 1500, 1500]) == ([], [])
    assert judge(BANDS, [14, 15, 20], [1500, 1500, 1500])[0] == [0, 1, 2]


# ------------------------------------------------------------------------------------------------------------- the sample


@settings(max_examples=12)
@given(st.integers(1, 400), st.integers(1, 400), st.integers(0, 2**32 - 1))
def test_the_sample_has_only_pixels_of_the_raster_and_always_the_same(tmp_path_factory, height, width, seed):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 1000, (2, height, width)).astype(np.uint16)
    path = tmp_path_factory.mktemp("sample") / "a.tif"
    with rasterio.open(path, "w", driver="GTiff", count=2, height=height, width=width, dtype="uint16", nodata=7) as file:
        file.write(values)
    found = sample_values(path, [2, 1], nodata=7)
    assert np.array_equal(found, sample_values(path, [2, 1], nodata=7))
    first, second = values.reshape(2, -1).astype(int)
    there = np.unique((1000 * second + first)[(first != 7) & (second != 7) & (first + second > 0)])  # both bands as one number
    sampled = np.unique(1000 * found[0].astype(int) + found[1].astype(int))
    assert np.isin(sampled, there).all() and (found < 1000).all()
    assert found.shape[1] > 0 or height * width < 3
    if height <= 64 and width <= 64:
        assert np.array_equal(sampled, there)


def test_a_scene_with_data_in_a_corner_only_is_judged(make_raster):
    """Sixteen windows miss it."""
    values = np.zeros((3, 2000, 2000), np.uint16)
    values[:, 300:500, 700:1000] = 4000
    path = make_raster("scene.tif", values, descriptions=BANDS)
    assert plan_input(describe(path), data(), MEAN).sample is not None
    with pytest.raises(UserError, match="doesn't fit the scale"):
        plan_input(describe(path), data(divide_by=[100.0] * 3), MEAN)


# ---------------------------------------------------------------------------------------------------------- inference.py


def test_a_wrong_divisor_is_refused_wherever_it_comes_from_until_it_is_insisted_on(make_raster, tmp_path, capsys):
    """Thirty times too bright in one band, as the others are right: a picture's divisor."""
    checkpoint = write_checkpoint(tmp_path / "c.pt", divide_by=[255.0, 1e4, 1e4])
    scene = make_raster("scene.tif", numbers(60, 60), descriptions=BANDS)
    words = [scene, "--checkpoint", checkpoint, "--output-dir", tmp_path / "maps", "--device", "cpu"]
    with pytest.raises(UserError, match=r"scene.tif .*from the checkpoint .*reflectance B04 \d.*\(training 0.1\).*or --accept-scale$"):
        run(*words)
    assert not list((tmp_path / "maps").glob("*.*"))
    with pytest.raises(UserError, match="from the command line .*B04 .*B08 .*B12 .*--accept-scale"):
        run(*words, "--divide-by", 100)
    assert run(*words, "--divide-by", 10_000) == 0
    assert run(*words, "--accept-scale", "--overwrite") == 0 and "warning" not in capsys.readouterr().err


def test_water_is_mapped_with_a_warning(make_raster, checkpoint, tmp_path, capsys):
    values = np.full((3, 60, 60), 900, np.uint16)
    values[1:] = np.array([150, 60])[:, None, None]
    scene = make_raster("sea.tif", values, descriptions=BANDS)
    words = [scene, "--checkpoint", checkpoint, "--output-dir", tmp_path / "maps", "--device", "cpu", "--quiet"]
    assert run(*words) == 0
    assert "warning: " in (said := capsys.readouterr().err) and "B08 0.015 (training 0.25), B12 0.006 (training 0.15), unlike" in said
    assert run(*words) == 0 and "warning" not in capsys.readouterr().err  # it is mapped already


def test_one_scene_of_a_wrong_scale_among_many_is_named_and_the_others_are_mapped(make_raster, checkpoint, tmp_path, capsys):
    for name, divide in (("a", 1), ("b", 1000), ("c", 1)):
        make_raster(f"scenes/{name}.tif", (numbers(60, 60) / divide).astype(np.float32), descriptions=BANDS)
    words = [tmp_path / "scenes", "--checkpoint", checkpoint, "--output-dir", tmp_path / "maps", "--device", "cpu"]
    for _ in range(2):  # the same command again finds the maps that it has made
        assert run(*words) == 1
        said = capsys.readouterr()
        assert "mapped 2 of 3" in said.out and "failed: b" in said.out
        assert "b.tif was not mapped" in said.err and "--accept-scale" in said.err
    assert {path.name for path in (tmp_path / "maps").glob("*_classes.tif")} == {"a_classes.tif", "c_classes.tif"}
    assert run(*words, "--dry-run") == 2 and "b: can't be mapped" in capsys.readouterr().out
    with pytest.raises(UserError, match="b.tif doesn't fit"):
        run(*words, "--strict")
    assert run(*words, "--accept-scale") == 0 and "mapped 3 of 3" in capsys.readouterr().out


def test_a_map_that_is_there_is_not_judged_again(make_raster, checkpoint, tmp_path):
    """As one of an earlier version, or one that was insisted on, in a folder to which scenes are added."""
    for name in "ab":
        make_raster(f"scenes/{name}.tif", (numbers(40, 40) / 1000).astype(np.float32), descriptions=BANDS)
    words = ["--checkpoint", checkpoint, "--output-dir", tmp_path / "maps", "--device", "cpu"]
    assert run(tmp_path / "scenes/a.tif", *words, "--accept-scale") == 0
    assert run(tmp_path / "scenes", *words) == 1
    assert {path.name for path in (tmp_path / "maps").glob("*_classes.tif")} == {"a_classes.tif"}


@pytest.mark.parametrize(("has", "wants"), [(["TCI_R", "B8"], ["B4", "B8"]), (["B04", "B08"], ["TCI_R", "B8"]), (["TCI_G"], ["green"])])
def test_a_band_of_a_picture_is_not_the_band_of_reflectance(make_raster, has, wants):
    info = describe(make_raster("a.tif", np.ones((len(has), 4, 4), np.uint16), descriptions=has))
    with pytest.raises(UserError, match=f"{has[0]} is not {wants[0]}: one is of a picture.*Pass --bands"):
        match_bands(info, wants)
    assert match_bands(info, wants, [str(i + 1) for i in range(len(has))])[0] == list(range(1, len(has) + 1))


def test_the_picture_beside_the_reflectance_is_passed_over(make_raster):
    info = describe(make_raster("a.tif", np.ones((4, 4, 4), np.uint16), descriptions=["TCI_R", "B4", "20240711_TCI_G", "B8"]))
    assert match_bands(info, ["B04", "B08"]) == ([2, 4], "by name")
    assert match_bands(info, ["TCI_R", "TCI_G"]) == ([1, 3], "by name")
    assert match_bands(info, ["x", "y"], ["red", "green"]) == ([2, 3], "as given")  # a person's word for either


# ------------------------------------------------------------------------------------------------------------- notebooks


def test_an_array_of_another_shape_or_scale_is_refused():
    model, stored = tiny_model(), numbers(40, 50)
    reflectance = (stored / 10_000).astype(np.float32)
    for wrong, said in (
        (np.moveaxis(reflectance, 0, -1), r"3 bands: B04, B08, B12.*got \(40, 50, 3\); pass np.moveaxis\(image, -1, 0\)"),
        (reflectance[:2], r"3 bands: .*got \(2, 40, 50\)$"), (reflectance.astype(complex), "integers or floats, got complex"),
        (stored, r"no reflectance as in the training: median B04 \d+ \(training 0.1\).*accept_scale=True"),
    ):
        with pytest.raises(UserError, match=said):
            predict_array(model, wrong, window=32, device="cpu")
    with pytest.raises(UserError, match="valid has the shape"):
        predict_array(model, reflectance, np.ones((50, 40), bool), device="cpu")
    with pytest.raises(UserError, match="one number or 3"):
        predict_array(model, reflectance, divide_by=(1, 1), device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        classes, _ = predict_array(model, reflectance, window=32, device="cpu")
    assert classes.shape == (40, 50)
    assert predict_array(model, stored, window=32, device="cpu", accept_scale=True)[0].shape == (40, 50)
    with pytest.warns(UserWarning, match="B12 .*unlike the training"):
        predict_array(model, reflectance * np.array([1, 1, 0.05], np.float32)[:, None, None], window=32, device="cpu")


def test_a_network_of_pairs_refuses_too_few_bands():
    model = create_segmentation_model(2, architecture="contrastunet", bands=("B04", "B08", "B11", "B12"), indices=("pairs",),
                                      encoder_weights=None, mean=[0.1] * 4, std=[0.1] * 4)
    with pytest.raises(UserError, match="4 bands: B04, B08, B11, B12"):
        predict_array(model, np.full((3, 32, 32), 0.1, np.float32), device="cpu")


@pytest.mark.parametrize("flags", [{}, {"bands": (3, 1, 2), "divide_by": 5000}, {"offset": (-10, 0, 10), "threshold": 0.6, "tta": True}])
def test_a_file_is_mapped_in_memory_as_inference_maps_it(make_raster, tmp_path, flags):
    values = numbers(75, 90)
    values[:, 10:20, 30:50] = 3
    scene = make_raster("scene.tif", values, descriptions=None if "bands" in flags else BANDS, nodata=3)
    checkpoint = write_checkpoint(tmp_path / "best_model.pt", threshold=0.4)
    found = predict_file(scene, checkpoint, device="cpu", **flags)
    words = []
    for name, value in flags.items():
        text = ",".join(map(str, value)) if isinstance(value, tuple) else value
        words += [f"--{name.replace('_', '-')}"] if value is True else [f"--{name.replace('_', '-')}={text}"]
    run(scene, "--checkpoint", checkpoint, "--output-dir", tmp_path / "maps", "--device", "cpu", "--probabilities", "float32", *words)
    with rasterio.open(tmp_path / "maps" / "scene_classes.tif") as file:
        assert np.array_equal(found.classes, file.read(1)) and (found.crs, found.transform) == (file.crs, file.transform)
    with rasterio.open(tmp_path / "maps" / "scene_probability.tif") as file:
        valid = found.classes != 255
        assert np.allclose(1 - found.probabilities[0][valid], file.read(1)[valid], atol=1e-6) and not valid.all()
    assert found.names == ("background", "fire") and found.unreadable == ()


def test_a_file_of_a_wrong_scale_is_refused_in_a_notebook_too(make_raster, checkpoint):
    scene = make_raster("scene.tif", numbers(40, 40).astype(np.float32) / 10_000, descriptions=BANDS)
    with pytest.raises(UserError, match="or --accept-scale"):
        predict_file(scene, checkpoint, device="cpu")
    assert predict_file(scene, checkpoint, device="cpu", accept_scale=True).classes.shape == (40, 40)


# -------------------------------------------------------------------------------------------------- patches and training


def test_values_that_cannot_be_reflectance_are_not_cut_until_it_is_insisted_on(make_raster, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for i, divide in enumerate((1, 1, 1e-4)):  # the third scene is reflectance beside digital numbers
        make_raster(f"images/s{i}.tif", (numbers(32, 32) * divide).astype(np.float32), crs=None)
        make_raster(f"masks/s{i}.tif", np.ones((32, 32), np.uint8), crs=None)
    words = ["make-patches", "--images", "images", "--masks", "masks", "--patch-size", "32", "--quiet", "--divide-by"]
    for divisor, named in (("255", "s0"), ("10000", "s2")):
        with pytest.raises(UserError, match=f"{named}.tif: median band_1 .*is not reflectance .*; pass --divide-by .*--accept-scale"):
            chip.main([*words, divisor])
        assert not (tmp_path / "patches").exists()
    chip.main([*words, "10000", "--accept-scale"])
    assert (tmp_path / "patches" / "chipset.json").exists()


def test_patches_of_another_scale_than_the_checkpoints_are_neither_trained_on_nor_scored(tmp_path, capsys):
    counts = {"train": 2, "val": 1, "test": 1}
    good, wrong = (write_patch_set(tmp_path / name, counts, size=32) for name in ("good", "wrong"))
    text = (wrong / "chipset.json").read_text()
    (wrong / "chipset.json").write_text(text.replace("10000.0", "100.0"))
    words = ["--num-workers", "0", "--batch-size", "2", "--quiet", "--device", "cpu", "--output-dir", str(tmp_path / "run")]
    train.main([*words, "--patches-dir", str(good), "--architecture", "smallunet", "--epochs", "1"])
    last = str(tmp_path / "run" / "checkpoints" / "last.pt")
    for more in (["--epochs", "2"], ["--test-only", "--test-split", "test"], ["--test-only", "--test-split", "val"]):
        again = ["--resume", last, "--patches-dir", str(wrong), "--quiet", "--device", "cpu", "--num-workers", "0", *more]
        with pytest.raises(UserError, match=r"reflectance in .*wrong: B02 [\d.]+ \(training 0.\d+\).*--patches-dir .*--accept-scale"):
            train.main(again)
        assert train.main([*again, "--accept-scale"]) == 0
    assert torch.load(last, weights_only=True)["settings"].get("accept_scale") is None
    capsys.readouterr()
    new = [*words, "--overwrite", "--architecture", "smallunet", "--epochs", "1", "--patches-dir"]
    for folder, warned in ((good, False), (wrong, True)):
        train.main([*new, str(folder)])
        assert ("mean reflectance in" in capsys.readouterr().err) == warned


# ------------------------------------------------------------------------------------------------------------- sharpening


@pytest.mark.parametrize(("highest", "said"), [(2047, "2047: 11 bit"), (2040, "2040: 11 bit"), (255, "255: 8 bit"), (5833, ""), (0, "")])
def test_the_bits_of_the_values_are_hinted_at(highest, said):
    assert (said in bits_hint(highest)) and bool(bits_hint(highest)) == bool(said)


# --------------------------------------------------------------------------------------------------------- real imagery


def test_no_fire_is_refused_by_what_another_was_like(real_data):
    """Each of fifteen real fires by the mean of each other one, and by that of all."""
    paths = sorted((real_data / "wildfire" / "post_fire").glob("*.tif"))
    bands = ["TCI_R", "TCI_G", "TCI_B", "B8", "B12"]
    trained = data(bands=bands, divide_by=[255.0] * 3 + [10_000.0] * 2, offset=[0.0] * 5)
    medians = [plan_input(describe(path), trained).sample[1] for path in paths]
    scales = [list(zip(trained["divide_by"], trained["offset"], strict=True))]
    for usual in (*medians, np.mean(medians, axis=0)):
        assert all(judge(bands, found, usual, scales) == ([], []) for found in medians)


def test_the_flood_is_refused_as_a_picture_and_passes_as_reflectance(real_data):
    info = describe(real_data / "floods" / "Spain_7370579_S2Hand.tif")
    picture = data(bands=["TCI_R", "TCI_G", "TCI_B", "B8", "B12"], divide_by=[255.0] * 3 + [10_000.0] * 2, offset=[0.0] * 5)
    usual = [0.507, 0.384, 0.284, 0.221, 0.209]  # of fourteen fires
    with pytest.raises(UserError, match="B4 is not TCI_R"):
        plan_input(info, picture, usual)
    with pytest.raises(UserError, match="TCI_R 4.5 .training 0.507., TCI_G 4.7.*--accept-scale"):
        plan_input(info, picture, usual, InputFlags(bands=("B4", "B3", "B2", "B8", "B12")))
    plan = plan_input(info, data(bands=list(SENTINEL), divide_by=[1e4] * 6, offset=[0.0] * 6), TRAINED_ON["land"])
    assert plan.doubt is None
