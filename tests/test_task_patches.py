"""Patches of values and of labels: what make-patches writes can be counted by hand, and what does not fit is one line."""

import json

import numpy as np
import pytest
from rasterio.transform import from_origin

import chip
from chipping.chipset import read_chipset, read_manifest
from chipping.patch_set import read_patch_set
from chipping.patch_statistics import label_weights_of, target_statistics
from chipping.scene_labels import keyed_images, labels_of_scenes
from dataset import Labels, PatchDataModule, WildfireDataModule
from runtime.errors import UserError

NAN = float("nan")


def place(number):
    return from_origin(500_000 + 5_000 * number, 4_600_000, 10, 10)


@pytest.fixture
def cut(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*words, folder="patches"):
        chip.main(["make-patches", "--divide-by", "10000", "--patch-size", "8", "--stride", "8", "--workers", "1", "--patches-dir", folder,
                   "--quiet", *map(str, words)])
        return read_manifest(tmp_path / folder)

    return run


@pytest.fixture
def values(make_raster):
    """Two scenes of 8 × 16 with float values: nodata -9999, one NaN, one pixel that is nodata in the image."""
    random = np.random.default_rng(0)
    for number in range(2):
        image = random.integers(500, 3000, (2, 8, 16)).astype(np.uint16)
        image[:, 7, 7] = 0
        target = np.arange(128, dtype=np.float32).reshape(8, 16) + 100 * number
        target[0, 0], target[0, 1] = -9999, NAN
        make_raster(f"images/s{number}.tif", image, transform=place(number), nodata=0, descriptions=("B03", "B08"))
        make_raster(f"masks/s{number}.tif", target, transform=place(number), nodata=-9999)


REGRESSION = ("--task", "regression", "--target", "biomass", "--images", "images", "--masks", "masks")


def test_values_are_kept_as_floats_with_nan_for_what_is_not_known_and_summed(cut, values, tmp_path):
    lines = cut(*REGRESSION, "--val", "s1")
    description = read_chipset(tmp_path / "patches")
    assert description["task"] == "regression" and description["classes"] == {"mask": ["biomass"]}
    first = np.load(tmp_path / "patches" / lines[0]["mask"])
    expected = np.arange(128, dtype=np.float32).reshape(8, 16)[:, :8].copy()
    expected[0, :2] = expected[7, 7] = NAN
    assert first.dtype == np.float32 and np.array_equal(first, expected[None], equal_nan=True)
    known = expected[np.isfinite(expected)].astype(float)
    assert lines[0]["class_pixels"] == {"mask": [61]}
    assert lines[0]["target_sums"] == {"mask": [known.sum(), (known**2).sum(), 2.0, known.max()]}

    data = PatchDataModule(tmp_path / "patches", batch_size=2, num_workers=0, labels=Labels(num_classes=None, task="regression"))
    data.setup()
    batch = next(iter(data.val_dataloader()))
    assert batch.masks.shape == (2, 8, 8) and batch.masks.isnan().sum() == 3
    whole = np.concatenate([np.load(tmp_path / "patches" / line["mask"]).ravel() for line in lines[:2]])
    assert target_statistics(data.train.patches) == pytest.approx((np.nanmean(whole), np.nanstd(whole)))
    assert WildfireDataModule is PatchDataModule


def test_further_values_become_nodata_by_the_label_map_and_a_mask_on_another_grid_is_warped(cut, values, make_raster, tmp_path):
    lines = cut(*REGRESSION, "--label-map=5=ignore")
    assert lines[0]["class_pixels"] == {"mask": [60]}
    coarse = np.arange(32, dtype=np.float32).reshape(4, 8)
    for number in range(2):
        make_raster(f"masks/s{number}.tif", coarse, transform=from_origin(500_000 + 5_000 * number, 4_600_000, 20, 20))
    cut(*REGRESSION, "--align", folder="aligned")
    assert np.load(tmp_path / "aligned" / lines[0]["mask"])[0, :7, :7].tolist() == np.kron(coarse, np.ones((2, 2)))[:7, :7].tolist()


@pytest.mark.parametrize(("words", "told"), [
    (("--label-map=5=1",), "only says which values are none"),
    (("--classes", "a,b"), "leave out --labels, --dataset-dir and --classes"),
    (("--scene-labels", "folders"), "labels of whole images"),
])
def test_what_values_do_not_have_is_refused(cut, values, words, told):
    with pytest.raises(UserError, match=told):
        cut(*REGRESSION, *words)


@pytest.fixture
def labelled(make_raster):
    random = np.random.default_rng(0)
    for number, folder in enumerate(("water", "forest", "water", "forest")):
        make_raster(f"scenes/{folder}/{number // 2}.tif", random.integers(500, 3000, (2, 8, 12)).astype(np.uint16), transform=place(number),
                    descriptions=("B03", "B08"))


def test_folders_are_the_classes_and_patches_have_no_masks(cut, labelled, tmp_path):
    lines = cut("--task", "classification", "--images", "scenes/*/*.tif", "--val", "0.5")
    description = read_chipset(tmp_path / "patches")
    assert description["task"] == "classification" and description["classes"] == {"label": ["forest", "water"]}
    assert {line["scene"]: line["class_pixels"]["label"] for line in lines} == {
        "forest_0": [1, 0], "forest_1": [1, 0], "water_0": [0, 1], "water_1": [0, 1]}
    assert not list((tmp_path / "patches").rglob("*_mask.npy")) and not any("mask" in line for line in lines)
    assert len({line["scene"] for line in lines if line["split"] == "val"}) == 2  # a share takes scenes, whatever their names begin with

    data = PatchDataModule(tmp_path / "patches", batch_size=4, num_workers=0, labels=Labels(num_classes=2, task="classification"))
    data.setup()
    batch = next(iter(data.val_dataloader()))
    assert batch.masks.tolist() == [int(p.scene.startswith("water")) for p in data.val.patches] and not batch.problems
    assert json.dumps(read_manifest(tmp_path / "patches")) == json.dumps(lines)
    first = sorted(p.read_bytes() for p in (tmp_path / "patches").rglob("*.npy"))
    (tmp_path / "patches" / lines[-1]["file"]).unlink()
    assert cut("--task", "classification", "--images", "scenes/*/*.tif", "--val", "0.5") == lines
    assert sorted(p.read_bytes() for p in (tmp_path / "patches").rglob("*.npy")) == first


@pytest.mark.parametrize("text", ["image,label\nwater/0.tif,wet;green\nforest/0,\nwater/1.tif,wet\nforest/1.tif,green\n",
                                  "wet\timage\tgreen\n1\twater_0\t1\n0\tforest_0\t0\n1\twater_1\t0\n0\tforest_1\t1\n"])
def test_a_table_says_the_labels_of_each_image_as_words_or_as_columns(cut, labelled, tmp_path, text):
    (tmp_path / "labels.csv").write_text(text.replace("forest/0,", "forest/0.tif,"))
    lines = cut("--task", "multilabel", "--scene-labels", "labels.csv", "--images", "scenes/*/*.tif", "--classes", "green,wet,dry")
    assert {line["scene"]: line["class_pixels"]["label"] for line in lines} == {
        "water_0": [1, 1, 0], "forest_0": [0, 0, 0], "water_1": [0, 1, 0], "forest_1": [1, 0, 0]}
    patches = read_patch_set(tmp_path / "patches", task="multilabel").patches
    assert label_weights_of(patches, 3).tolist() == pytest.approx([1.0, 1.0, 1.0])


@pytest.mark.parametrize(("text", "told"), [
    ("image,label\nwater_0,wet\n", "has no line"),
    ("image,label\nwater_0,\n", "has no label"),
    ("image,label\nwater_0,wet\nwater_0,dry\n", "another label than an earlier line"),
    ("scene_id,label\nwater_0,wet\n", "expected image and label"),
    ("image,wet,dry\nwater_0,1,0\n", "no column label"),
    ("", "expected image and label"),
])
def test_a_table_that_is_not_right_is_told_with_its_line(tmp_path, text, told):
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(UserError, match=told):
        labels_of_scenes({"water_0": "water/0.tif", "water_1": "water/1.tif"}, str(tmp_path / "labels.csv"), None, several=False)


def test_labels_that_are_no_class_or_of_one_kind_only_are_refused(tmp_path):
    images = keyed_images(["a/1.tif", "b/2.tif"])
    assert images == {"1": "a/1.tif", "2": "b/2.tif"}
    with pytest.raises(UserError, match="has the label 'b', --classes are a, c"):
        labels_of_scenes(images, "folders", ["a", "c"], several=False)
    with pytest.raises(UserError, match="lie in one folder"):
        labels_of_scenes({"1": "a/1.tif", "2": "a/2.tif"}, "folders", None, several=False)
    with pytest.raises(UserError, match="needs --scene-labels FILE"):
        chip.main(["make-patches", "--task", "multilabel", "--images", "x.tif"])


def test_sets_say_what_they_are_for(cut, values, tmp_path):
    cut(*REGRESSION)
    with pytest.raises(UserError, match=r"--task segmentation, but the patches of .* are made for regression; pass --task regression"):
        PatchDataModule(tmp_path / "patches", num_workers=0).setup()
    with pytest.raises(UserError, match=r"--num-classes 3: layer mask of .* has 1 \(biomass\)"):
        read_patch_set(tmp_path / "patches", 3, task="regression")


def test_sets_are_described_and_shown(cut, values, labelled, tmp_path, capsys):
    cut(*REGRESSION)
    cut("--task", "classification", "--images", "scenes/*/*.tif", folder="labels")
    capsys.readouterr()
    for folder, told in (("patches", "biomass 11"), ("labels", "forest 50.00%, water 50.00%")):
        chip.main(["inspect", str(tmp_path / folder)])
        assert told in capsys.readouterr().out and (tmp_path / folder / "contact_sheet.png").is_file()


def test_a_line_that_two_images_share_by_name_is_for_neither(tmp_path):
    images = keyed_images(["p/x.tif", "q/x.tif", "q/y.tif"])
    (tmp_path / "labels.csv").write_text("image,label\nx.tif,wet\ny,dry\n")
    with pytest.raises(UserError, match="one line 'x.tif' for p/x.tif and q/x.tif; name images there with their folders"):
        labels_of_scenes(images, tmp_path / "labels.csv", None, several=False)
    (tmp_path / "labels.csv").write_text("image,label\np/x.tif,wet\nq_x,dry\ny,dry\n")
    assert labels_of_scenes(images, tmp_path / "labels.csv", None, several=False)[0] == {"p_x": (1,), "q_x": (0,), "q_y": (0,)}
