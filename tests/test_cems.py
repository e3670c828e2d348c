"""The CEMS layout: tiles are found however deep they lie, partners are checked, both label layers go into one set."""

import shutil

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

import chip
from chipping.cems import find_tiles
from chipping.chipset import read_chipset, read_manifest
from constants import CEMS_BAND_INDICES, CEMS_BANDS
from runtime.errors import RunError, UserError


@pytest.fixture
def tile(make_raster):
    """tile("train", "EMSR001_AOI01_01", …) writes the four files of a tile; band 1 is 0.05 throughout, band 2 is 0.1 …"""

    def make(folder, name, kinds=("S2L2A", "DEL", "GRA", "CM"), side=16, x=14.0, suffix=".tif", bands=12, clouds=0):
        event, area, _ = name.split("_")
        place = {"crs": "EPSG:4326", "transform": from_origin(x, 41.0, 1e-4, 1e-4)}
        severity = np.zeros((side, side), np.uint8)
        severity[:, side // 2 :] = 3
        severity[0] = 255
        arrays = {
            "S2L2A": np.broadcast_to(np.arange(1, bands + 1, dtype="float32")[:, None, None] / 20, (bands, side, side)),
            "DEL": np.where(severity == 255, 255, severity > 0).astype(np.uint8),
            "GRA": severity,
            "CM": np.full((side, side), clouds, np.uint8),
        }
        for kind in kinds:
            make_raster(f"data/{folder}/{event}/{area}/{name}/{name}_{kind}{suffix}", arrays[kind], **place)

    return make


@pytest.fixture
def cut(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*words, folder="patches"):
        chip.main(["make-patches", "--dataset-dir", "data", "--patches-dir", folder, "--patch-size", "16", *map(str, words)])
        return read_manifest(tmp_path / folder)

    return run


def test_tiles_are_found_in_split_folders_nested_as_the_archives_unpack(tile, cut, tmp_path):
    tile("train/train", "EMSR001_AOI01_01")
    tile("val/val", "EMSR002_AOI01_01", x=15.0, suffix=".tiff")
    tile("test", "EMSR003_AOI02_01", x=16.0)
    lines = cut()
    assert [(line["scene"], line["split"], line["event"]) for line in lines] == [
        ("EMSR001_AOI01_01", "train", "EMSR001"),
        ("EMSR002_AOI01_01", "val", "EMSR002"),
        ("EMSR003_AOI02_01", "test", "EMSR003"),
    ]
    description = read_chipset(tmp_path / "patches")
    assert description["bands"] == list(CEMS_BANDS) and description["layers"] == ["DEL", "GRA"]
    assert description["divide_by"] == [1] * 7 and description["offset"] == [0] * 7


def test_a_patch_holds_the_seven_bands_and_both_layers(tile, cut, tmp_path):
    tile("", "EMSR001_AOI01_01")
    (line,) = cut()
    image, masks = np.load(tmp_path / "patches" / line["file"]), np.load(tmp_path / "patches" / line["mask"])
    assert np.allclose(image[:, 5, 5], [(i + 1) / 20 for i in CEMS_BAND_INDICES]) and image.dtype == np.float32
    assert masks.shape == (2, 16, 16) and (masks[:, 0] == 255).all()
    assert (masks[0, 1:, 8:] == 1).all() and (masks[1, 1:, 8:] == 3).all() and (masks[:, 1:, :8] == 0).all()
    assert line["class_pixels"] == {"DEL": [120, 120], "GRA": [120, 0, 0, 120, 0]} and line["layers"] == ["DEL", "GRA"]


def test_tiles_without_grading_are_kept_counted_and_told(tile, cut, tmp_path, capsys):
    tile("", "EMSR001_AOI01_01")
    tile("", "EMSR002_AOI01_01", kinds=("S2L2A", "DEL", "CM"), x=15.0)
    lines = cut()
    assert [line["layers"] for line in lines] == [["DEL", "GRA"], ["DEL"]]
    assert (np.load(tmp_path / "patches" / lines[1]["mask"])[1] == 255).all()
    assert "1 of 2 tiles have no GRA mask (EMSR002_AOI01_01)" in capsys.readouterr().err


def test_cloudy_windows_are_left_out_above_one_half_and_tiles_without_cloud_mask_are_told(tile, cut, capsys):
    tile("", "EMSR001_AOI01_01", clouds=2)
    tile("", "EMSR002_AOI01_01", kinds=("S2L2A", "DEL", "GRA"), x=15.0)
    lines = cut()
    assert [line["scene"] for line in lines] == ["EMSR002_AOI01_01"] and lines[0]["cloud_cover"] is None
    told = capsys.readouterr()
    assert "1 clouds" in told.out and "1 of 2 tiles have no cloud mask" in told.err
    with pytest.raises(RunError, match="cloud mask"):
        cut("--strict", folder="strict")


def test_pixels_that_are_zero_in_every_band_are_no_data(tile, cut, tmp_path):
    tile("", "EMSR001_AOI01_01")
    path = next((tmp_path / "data").rglob("*_S2L2A.tif"))
    with rasterio.open(path, "r+") as dataset:
        image = dataset.read()
        image[:, 4:8] = 0
        dataset.write(image)
    (line,) = cut()
    assert line["valid_pixels"] == 256 - 64 and (np.load(tmp_path / "patches" / line["mask"])[:, 4:8] == 255).all()


def test_shipped_splits_that_share_ground_are_a_warning(tile, cut, capsys):
    tile("train", "EMSR001_AOI01_01")
    tile("test", "EMSR002_AOI01_01")
    assert len(cut()) == 2
    assert "EMSR001_AOI01_01 (train) and EMSR002_AOI01_01 (test)" in capsys.readouterr().err


def test_flags_about_splits_win_over_the_shipped_folders(tile, cut, capsys):
    for number, folder in enumerate(("train", "train", "test")):
        tile(folder, f"EMSR00{number}_AOI01_01", x=14 + number)
    lines = cut("--val", "EMSR001")
    assert [line["split"] for line in lines] == ["train", "val", "train"]
    assert "--val and --test decide the splits" in capsys.readouterr().err


def test_own_splits_that_share_ground_are_an_error(tile, cut):
    tile("", "EMSR001_AOI01_01")
    tile("", "EMSR002_AOI01_01")
    with pytest.raises(UserError, match="share ground"):
        cut("--val", "EMSR002")


def test_events_can_be_named_in_the_flags(tile, cut):
    for i in range(4):
        tile("", f"EMSR00{i}_AOI01_01", x=14.0 + i)
    lines = cut("--val", "EMSR001", "--test", "EMSR002_AOI01", "--exclude", "EMSR003")
    assert [line["split"] for line in lines] == ["train", "val", "test"]


def test_what_does_not_fit_is_named(tile, cut, tmp_path):
    with pytest.raises(UserError, match="data does not exist"):
        cut()
    (tmp_path / "data").mkdir()
    with pytest.raises(UserError, match="holds no"):
        cut()
    tile("", "EMSR001_AOI01_01", kinds=("DEL",))
    with pytest.raises(UserError, match="EMSR001_AOI01_01_DEL.tif has no image"):
        cut()
    tile("", "EMSR001_AOI01_01", bands=4)
    with pytest.raises(UserError, match="has 4 bands; expected 12"):
        cut()
    tile("", "EMSR001_AOI01_01", kinds=("S2L2A", "GRA", "DEL"))
    tile("", "EMSR002_AOI01_01", kinds=("S2L2A",))
    with pytest.raises(UserError, match="EMSR002_AOI01_01_S2L2A.tif has no mask"):
        cut()
    tile("", "EMSR002_AOI01_01", x=15.0)
    with pytest.raises(UserError, match="--images"):
        chip.main(["make-patches", "--dataset-dir", "data", "--images", "x"])
    tile("train", "EMSR002_AOI01_01", x=15.0)
    with pytest.raises(UserError, match="is there twice"):
        find_tiles(tmp_path / "data")
    shutil.rmtree(tmp_path / "data" / "EMSR002")
    with pytest.raises(UserError, match="lies in none of the folders train, val, test"):
        cut()
    tile("train", "EMSR003_AOI01_01", side=16, x=17.0, kinds=("S2L2A", "GRA", "CM"))
    tile("train", "EMSR003_AOI01_01", side=15, x=17.0, kinds=("DEL",))
    with pytest.raises(UserError, match="EMSR003_AOI01_01_DEL.tif is 15×15, its image 16×16"):
        cut("--exclude", "EMSR001")


def test_the_real_masks_under_a_painted_image(real_data, cut, tmp_path):
    """Two abutting tiles of Gran Canaria. With each pixel counted once, the shares of burned ground are those of the masks."""
    for path in sorted((real_data / "cems").rglob("*_DEL.tif")):
        target = tmp_path / "data" / path.parent.relative_to(real_data / "cems")
        target.mkdir(parents=True)
        for kind in ("DEL", "GRA", "CM"):
            shutil.copy(path.with_name(path.name.replace("DEL", kind)), target)
        with rasterio.open(path) as mask:
            burned, profile = mask.read(1), mask.profile
        profile.update(count=12, dtype="float32")
        noise = np.random.default_rng(0).random(burned.shape, dtype=np.float32) * 0.05
        with rasterio.open(target / path.name.replace("DEL", "S2L2A"), "w", **profile) as image:
            for band in range(12):
                image.write(0.1 + noise + (0.2 if band == 11 else -0.05) * (burned == 1), band + 1)
    lines = cut("--patch-size", 256, "--stride", 256, "--val", "EMSR382_AOI01_02", "--max-cloud-cover", 1)
    assert {line["split"] for line in lines} == {"train", "val"}
    for scene in ("EMSR382_AOI01_01", "EMSR382_AOI01_02"):
        mine = [line for line in lines if line["scene"] == scene]
        height, width = mine[0]["scene_size"][::-1]
        for plane, layer in enumerate(("DEL", "GRA")):
            whole = np.full((height, width), 77, np.uint8)
            for line in mine:
                col, row, w, h = line["window"]
                whole[row : row + h, col : col + w] = np.load(tmp_path / "patches" / line["mask"])[plane, :h, :w]
            with rasterio.open(next((real_data / "cems").rglob(f"{scene}_{layer}.tif"))) as mask:
                assert (whole == mask.read(1)).all()


def test_integer_images_in_the_cems_layout_are_scaled_by_their_tags_or_refused(tile, cut, make_raster, tmp_path):
    """The published images are float reflectance; digital numbers in the same layout must not pass for reflectance."""
    tile("", "EMSR001_AOI01_01")
    path = tmp_path / "data" / "EMSR001" / "AOI01" / "EMSR001_AOI01_01" / "EMSR001_AOI01_01_S2L2A.tif"
    with rasterio.open(path) as dataset:
        place = {"crs": dataset.crs, "transform": dataset.transform}
    numbers = np.full((12, 16, 16), 3000, np.uint16)
    make_raster(path, numbers, **place)
    with pytest.raises(UserError, match="the scale of .* is not known"):
        cut()
    make_raster(path, numbers, scales=(1e-4,) * 12, offsets=(-0.1,) * 12, **place)
    cut()
    description = read_chipset(tmp_path / "patches")
    assert description["divide_by"] == [10000] * 7 and description["offset"] == [-1000] * 7


def test_without_any_cloud_mask_it_is_told_and_strict_stops(tile, cut, capsys):
    tile("", "EMSR001_AOI01_01", kinds=("S2L2A", "DEL", "GRA"))
    assert len(cut()) == 1
    assert "no cloud mask (_CM) was found" in capsys.readouterr().err
    with pytest.raises(RunError, match=r"1 of 1 tiles have no cloud mask \(EMSR001_AOI01_01\); --strict"):
        cut("--strict", folder="strict")
