"""From scenes to patches: what is on disk can be counted by hand, is the same for any number of workers, and survives a kill."""

import hashlib
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rasterio.transform import Affine, from_origin

import chip
from chipping import parallel
from chipping.chipset import read_chipset, read_manifest
from chipping.cutting import compact, spans, sums
from chipping.patches import REMEDIES
from constants import band_role
from raster.bands import choose_bands
from raster.source import describe
from raster.windows import starts
from runtime.errors import RunError, UserError

ROOT = Path(__file__).resolve().parent.parent
FIELDS = set(
    "file mask split scene event source window scene_size crs transform footprint valid_fraction layers class_pixels cloud_cover dtype "
    "band_sum band_sum_squares valid_pixels".split()
)


@pytest.fixture
def cut(tmp_path, monkeypatch):
    """
    cut("--flag", …) runs make-patches in tmp_path on images/*.tif and masks/*.tif into tmp_path/patches → lines of the manifest. The
    values of ramp() are no reflectance in every band.
    """
    monkeypatch.chdir(tmp_path)

    def run(*words, labels=("--masks", "masks"), divide_by=("--divide-by", "10000"), folder="patches"):
        fixed = ["make-patches", "--images", "images", *labels, *divide_by, "--accept-scale", "--patches-dir", folder, "--quiet"]
        chip.main([*fixed, *map(str, words)])
        return read_manifest(tmp_path / folder)

    return run


@pytest.fixture
def scene(make_raster):
    """scene("DOVE_1", image, mask, **how) writes images/DOVE_1.tif and masks/DOVE_1.tif on one grid."""

    def make(name, image, mask=None, mask_how=None, **how):
        image = np.asarray(image)
        if mask is None:
            mask = np.zeros(image.shape[-2:], np.uint8)
            mask[:, : mask.shape[1] // 2] = 1
        make_raster(f"images/{name}.tif", image, **how)
        place = {key: how[key] for key in ("crs", "transform") if key in how}
        make_raster(f"masks/{name}.tif", mask, **{**place, **(mask_how or {})})

    return make


def ramp(height, width, bands=2, kind="uint16"):
    """Every pixel its own value: band · 10000 + row · 100 + column (small enough for int16 with bands ≤ 3)."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([b * 10_000 + rows * 100 + columns for b in range(bands)]).astype(kind)


def tree_hash(folder):
    digest = hashlib.sha256()
    for path in sorted(Path(folder).rglob("*")):
        if path.is_file():
            digest.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return digest.hexdigest()


# --- what a patch holds ---


def test_patches_hold_the_pixels_of_their_window(scene, cut, tmp_path):
    image = ramp(20, 30)
    mask = (ramp(20, 30)[0] % 2).astype(np.uint8)
    scene("DOVE_1", image, mask)
    lines = cut("--patch-size", 16, "--stride", 12)
    assert [tuple(line["window"]) for line in lines] == [(c, r, 16, 16) for r in (0, 4) for c in (0, 12, 14)]
    for line in lines:
        assert FIELDS <= line.keys()
        col, row, _, _ = line["window"]
        stored, labels = np.load(tmp_path / "patches" / line["file"]), np.load(tmp_path / "patches" / line["mask"])
        assert stored.dtype == np.uint16 and stored.shape == (2, 16, 16) and stored.flags.c_contiguous
        assert (stored == image[:, row : row + 16, col : col + 16]).all()
        assert labels.dtype == np.uint8 and labels.shape == (1, 16, 16)
        assert (labels[0] == mask[row : row + 16, col : col + 16]).all()
        assert line["class_pixels"] == {"mask": [128, 128]} and line["valid_pixels"] == 256
        assert line["band_sum"] == [int(band.sum()) for band in stored.astype(object)]
        assert line["band_sum_squares"] == [int((band.astype(object) ** 2).sum()) for band in stored]
        assert line["file"] == f"train/DOVE_1_r{row}_c{col}_image.npy" and line["event"] == "DOVE"
        assert Affine(*line["transform"]) * (0, 0) == (500_000 + 10 * col, 4_600_000 - 10 * row)
    description = read_chipset(tmp_path / "patches")
    assert (
        description["kind"] == "patches"
        and description["layers"] == ["mask"]
        and description["classes"] == {"mask": ["background", "fire"]}
    )
    assert description["divide_by"] == [10_000, 10_000] and description["offset"] == [0, 0] and description["chip_size"] == 16


@pytest.mark.parametrize("kind, stored", [
    ("uint8", "uint8"), ("uint16", "uint16"), ("int16", "int16"), ("int32", "uint16"), ("float32", "uint16"), ("float64", "uint16"),
])
def test_whole_numbers_are_stored_as_integers_whatever_their_type(scene, cut, tmp_path, kind, stored):
    image = (np.arange(2 * 64).reshape(2, 8, 8) % 100).astype(kind)
    scene("a", image)
    (line,) = cut("--patch-size", 8)
    patch = np.load(tmp_path / "patches" / line["file"])
    assert line["dtype"] == patch.dtype.name == stored and (patch == image).all()


def test_fractions_are_stored_as_float32(scene, cut, tmp_path):
    image = np.linspace(0, 1, 64).reshape(1, 8, 8)
    scene("a", image.astype("float64"))
    (line,) = cut("--patch-size", 8, divide_by=("--divide-by", "1"))
    patch = np.load(tmp_path / "patches" / line["file"])
    assert patch.dtype == np.float32 and (patch == image.astype(np.float32)).all()


def test_the_smallest_type_that_loses_nothing():
    def kind(*values):
        return compact(np.array(values, float).reshape(1, 1, -1), None, (0,)).dtype.name

    assert kind(0, 65535) == "uint16" and kind(-1, 32767) == "int16" and kind(-1, 32768) == "float32"
    assert kind(65536) == "float32" and kind(0.5, 1) == "float32"


def test_the_sums_of_large_patches_stay_exact():
    pixels = np.full((1, 2048, 2048), 65_535, np.uint16)
    assert sums(pixels, None) == ([65_535 * 2048**2], [65_535**2 * 2048**2])


def test_wide_scenes_are_read_in_spans_of_columns():
    assert spans([0, 3, 6, 7], 4, 100) == [[0, 3, 6, 7]]
    assert spans([0, 3, 6, 7], 4, 7) == [[0, 3], [6, 7]]
    assert spans([0, 3, 6, 7], 4, 4) == [[0], [3], [6], [7]]


def test_spans_do_not_change_a_byte(scene, cut, tmp_path, monkeypatch):
    image = ramp(20, 60).astype(float)
    image[0, 3, 50] = np.nan
    scene("a", image)
    cut("--patch-size", 8)
    monkeypatch.setattr("chipping.cutting.STRIP_BYTES", 1)
    cut("--patch-size", 8, folder="narrow")
    assert tree_hash(tmp_path / "patches") == tree_hash(tmp_path / "narrow")


# --- invalid pixels ---


@pytest.mark.parametrize("hole", ["nodata", "nan", "inf", "alpha"])
def test_invalid_pixels_mean_reflectance_zero_and_are_ignored(scene, cut, tmp_path, hole):
    """Offset −1000: the stored value of reflectance 0 is 1000."""
    image = ramp(8, 8).astype("uint16" if hole in ("nodata", "alpha") else "float32") + 2000
    how = {}
    if hole == "alpha":
        image = np.stack([image[0], image[1], image[1], np.full((8, 8), 65535, "uint16")])
        image[3, 3, 5] = 0
        how = {"alpha": "yes", "photometric": "rgb"}
    else:
        image[1, 3, 5] = {"nodata": 7, "nan": np.nan, "inf": -np.inf}[hole]
        how = {"nodata": 7} if hole == "nodata" else {}
    scene("a", image, np.ones((8, 8), np.uint8), **how)
    (line,) = cut("--patch-size", 8, "--bands", "1,2", "--offset", "-1000")
    patch, mask = np.load(tmp_path / "patches" / line["file"]), np.load(tmp_path / "patches" / line["mask"])[0]
    assert patch.shape == (2, 8, 8) and (patch[:, 3, 5] == 1000).all() and mask[3, 5] == 255 and (mask != 255).sum() == 63
    assert line["valid_pixels"] == 63 and line["class_pixels"] == {"mask": [0, 63]} and line["valid_fraction"] == round(63 / 64, 6)
    assert line["band_sum"][0] == int(image[0].astype(int).sum() - image[0, 3, 5]) and line["dtype"] == "uint16"


def test_a_fill_that_the_type_cannot_hold_becomes_the_nearest():
    pixels = np.full((1, 2, 2), 9, np.uint8)
    hole = np.array([[True, False], [False, False]])
    assert compact(pixels, hole, (-300.0,))[0].tolist() == [[255, 9], [9, 9]]
    assert compact(pixels, hole, (5.0,))[0].tolist() == [[0, 9], [9, 9]]


def test_what_lies_under_nodata_changes_nothing(scene, cut, tmp_path):
    image, mask = ramp(8, 8).astype("float32"), np.ones((8, 8), np.uint8)
    image[0, :4] = np.nan
    scene("a", image, mask)
    cut("--patch-size", 8)
    image[1, :4], mask[:4] = 12_345.5, 0
    scene("a", image, mask)
    cut("--patch-size", 8, folder="other")
    for name in ("train/a_r0_c0_image.npy", "train/a_r0_c0_mask.npy"):
        assert (tmp_path / "patches" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


@pytest.mark.parametrize("height, width", [(1, 1), (1, 20), (5, 3), (7, 20)])
def test_small_scenes_are_padded_and_every_pixel_is_kept(scene, cut, tmp_path, height, width):
    image = ramp(height, width) + 1
    scene("a", image, np.ones((height, width), np.uint8))
    lines = cut("--patch-size", 8)
    seen = np.zeros((height, width), int)
    for line in lines:
        col, row, w, h = line["window"]
        patch, mask = np.load(tmp_path / "patches" / line["file"]), np.load(tmp_path / "patches" / line["mask"])[0]
        assert patch.shape == (2, 8, 8) and (patch[:, :h, :w] == image[:, row : row + h, col : col + w]).all()
        assert (mask[:h, :w] == 1).all() and (mask[h:] == 255).all() and (mask[:, w:] == 255).all()
        assert (patch[:, h:] == 0).all() and (patch[:, :, w:] == 0).all()
        assert line["valid_pixels"] == h * w and line["valid_fraction"] == 1
        seen[row : row + h, col : col + w] += 1
    assert seen.min() == 1 or (width > 8 and seen.min() >= 1)


# --- what is left out ---


def test_windows_are_left_out_by_reason_and_listed(scene, cut, tmp_path, make_raster):
    image, mask = ramp(8, 40) + 1, np.ones((8, 40), np.uint8)
    image[:, :, :8] = 0  # no data at all
    image[:, :6, 8:16] = 0  # a quarter of it valid
    mask[:, 16:24] = 255  # nothing labelled
    clouds = np.zeros((8, 40), np.uint8)
    clouds[:5, 24:32] = 2  # 40 of 64 pixels
    clouds[:4, 32:] = 1  # exactly half: stays
    scene("a", image, mask, nodata=0)
    make_raster("clouds/a.tif", clouds)
    lines = cut("--patch-size", 8, "--stride", 8, "--min-valid", 0.5, "--clouds", "clouds")
    assert [line["window"][0] for line in lines] == [32] and lines[0]["cloud_cover"] == 0.5
    skipped = [json.loads(text) for text in (tmp_path / "patches" / "skipped.jsonl").read_text().splitlines()]
    assert [line["reason"] for line in skipped] == ["no valid pixel", "too few valid pixels", "nothing labelled", "clouds"]
    assert skipped[1]["valid_fraction"] == 0.25 and skipped[3]["cloud_cover"] == 0.625


def test_ignored_clouds_become_255_in_the_patches_that_stay(scene, cut, tmp_path, make_raster):
    clouds = np.zeros((8, 8), np.uint8)
    clouds[0], clouds[1], clouds[2] = 1, 2, 3
    scene("a", ramp(8, 8), np.ones((8, 8), np.uint8))
    make_raster("clouds/a.tif", clouds)
    for words, ignored in ((("--ignore-clouds",), [0]), (("--ignore-clouds", "1,3"), [0, 2])):
        (line,) = cut("--patch-size", 8, "--clouds", "clouds", *words, folder=f"p{len(ignored)}")
        mask = np.load(tmp_path / f"p{len(ignored)}" / line["mask"])[0]
        assert [row for row in range(8) if (mask[row] == 255).all()] == ignored and (mask != 255).sum() == 64 - 8 * len(ignored)


def test_an_area_limits_the_windows_and_ignores_what_is_outside(scene, cut, tmp_path):
    from rasterio.warp import transform_geom

    corners = [(500_000, 4_600_000), (500_120, 4_600_000), (500_120, 4_599_920), (500_000, 4_599_920), (500_000, 4_600_000)]
    area = transform_geom("EPSG:32633", "EPSG:4326", {"type": "Polygon", "coordinates": [corners]})
    (tmp_path / "aoi.geojson").write_text(json.dumps({"type": "Feature", "properties": {}, "geometry": area}))
    scene("a", ramp(8, 24), np.ones((8, 24), np.uint8))
    lines = cut("--patch-size", 8, "--stride", 8, "--aoi", "aoi.geojson")
    assert [(line["window"][0], line["class_pixels"]["mask"]) for line in lines] == [(0, [0, 64]), (8, [0, 32])]
    assert "outside the area" in (tmp_path / "patches" / "skipped.jsonl").read_text()


# --- where things lie ---


@pytest.mark.parametrize("transform", [
    Affine(10, 0, 500_000, 0, 10, 4_600_000), Affine.translation(500_000, 4_600_000) * Affine.rotation(30) * Affine.scale(10, -10),
], ids=["south-up", "rotated"])
def test_turned_rasters_keep_their_place(scene, cut, transform):
    from rasterio.warp import transform as project

    scene("a", ramp(8, 16), transform=transform)
    lines = cut("--patch-size", 8, "--stride", 8)
    moved = Affine(*lines[1]["transform"])
    assert np.allclose(moved * (3, 2), transform * (11, 2))
    (lon,), (lat,) = project("EPSG:32633", "EPSG:4326", *[[v] for v in transform * (16, 8)])
    assert np.allclose(lines[1]["footprint"][2], (lon, lat), atol=1e-6)


def test_a_scene_without_crs_is_cut_and_has_no_footprint(scene, cut):
    scene("a", ramp(8, 8), crs=None)
    (line,) = cut("--patch-size", 8)
    assert line["crs"] is None and line["footprint"] is None and line["scene_size"] == [8, 8]


def test_a_scene_in_a_local_system_is_cut_and_has_no_footprint(scene, make_raster, tmp_path, monkeypatch, capsys):
    """A site's own metres lead nowhere on the globe, which is no reason not to learn from it."""
    monkeypatch.chdir(tmp_path)
    for name in ("a_1", "b_1"):
        scene(name, ramp(8, 8), crs='LOCAL_CS["arb",UNIT["metre",1]]')
    chip.main("make-patches --images images --masks masks --divide-by 30000 --patch-size 8 --val b".split())
    assert "2 scenes have no CRS (a_1, b_1 …): whether they overlap others cannot be checked" in capsys.readouterr().err
    for line in read_manifest("patches"):
        assert line["footprint"] is None and "arb" in line["crs"]


def test_scenes_of_different_grids_and_types_go_into_one_set(scene, cut):
    scene("a_1", ramp(8, 8))
    scene("b_1", ramp(8, 8).astype("float32") / 2, crs="EPSG:4326", transform=from_origin(10, 50, 1e-4, 1e-4))
    lines = cut("--patch-size", 8, "--val", "b")
    assert [(line["split"], line["dtype"]) for line in lines] == [("train", "uint16"), ("val", "float32")]


def test_bands_by_description_are_found_wherever_they_are(scene, cut, tmp_path):
    image = ramp(8, 8, 3, "int16")
    scene("a_1", image, descriptions=("B02", "B04", "B12"))
    scene("b_1", image[::-1], descriptions=("B12", "B04", "B02"), transform=from_origin(600_000, 4_600_000, 10, 10))
    lines = cut("--patch-size", 8, "--bands", "b12,red")
    assert all((np.load(tmp_path / "patches" / line["file"]) == image[[2, 1]]).all() for line in lines)
    assert read_chipset(tmp_path / "patches")["bands"] == ["B12", "B04"]


def test_polygons_as_labels_on_the_command_line(scene, cut, tmp_path):
    from rasterio.warp import transform_geom

    corners = [(499_990, 4_600_010), (500_040, 4_600_010), (500_040, 4_599_900), (499_990, 4_599_900), (499_990, 4_600_010)]
    burnt = transform_geom("EPSG:32633", "EPSG:4326", {"type": "Polygon", "coordinates": [corners]})
    (tmp_path / "p.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [
        {"type": "Feature", "properties": {"kind": "burnt"}, "geometry": burnt}]}))
    scene("a", ramp(8, 8))
    (line,) = cut("--patch-size", 8, "--classes", "calm,burnt", "--class-field", "kind", labels=("--labels", "p.geojson"))
    assert line["class_pixels"] == {"mask": [32, 32]} and line["layers"] == ["mask"]


def test_masks_on_another_grid_are_refused_or_aligned(scene, cut, make_raster, tmp_path):
    scene("a", ramp(8, 8))
    make_raster("masks/a.tif", np.array([[0, 1, 0, 1]] * 4, np.uint8), transform=from_origin(500_000, 4_600_000, 20, 20))
    with pytest.raises(UserError, match=r"masks/a\.tif is 4×4, its image 8×8 pixels; pass --align"):
        cut("--patch-size", 8)
    (line,) = cut("--patch-size", 8, "--align")
    assert np.load(tmp_path / "patches" / line["mask"])[0].tolist() == [[0, 0, 1, 1, 0, 0, 1, 1]] * 8


def test_one_file_a_band_is_stacked_on_the_finest_grid(make_raster, cut, tmp_path):
    fine, coarse = ramp(8, 8)[0], np.arange(16, dtype=np.uint16).reshape(4, 4)
    make_raster("images/T33_2024_B02_10m.tif", fine)
    make_raster("images/T33_2024_B11_20m.tif", coarse, transform=from_origin(500_000, 4_600_000, 20, 20))
    make_raster("images/T33_2024_B02_20m.tif", coarse, transform=from_origin(500_000, 4_600_000, 20, 20))
    make_raster("images/T33_2024_SCL_20m.tif", coarse, transform=from_origin(500_000, 4_600_000, 20, 20))
    make_raster("masks/T33_2024.tif", np.ones((8, 8), np.uint8))
    (line,) = cut("--patch-size", 8, "--stack", "B11,B02")
    patch = np.load(tmp_path / "patches" / line["file"])
    assert (patch[1] == fine).all() and (patch[0] == np.kron(coarse, np.ones((2, 2)))).all()
    assert line["scene"] == "T33_2024" and read_chipset(tmp_path / "patches")["bands"] == ["B11", "B02"]
    with pytest.raises(UserError, match="no file for B12"):
        cut("--stack", "B02,B12", folder="other")


def test_bands_of_different_types_keep_their_values(make_raster, cut, tmp_path):
    import rasterio

    whole, real, small = ramp(20, 30)[0], (ramp(20, 30)[0] / 8).astype("float32"), (ramp(20, 30)[0] % 250).astype("uint8")
    real[3, 4] = np.nan
    for band, values in (("B02", whole), ("B11", real), ("B12", small)):
        make_raster(f"images/T33_1_{band}.tif", values)
    make_raster("masks/T33_1.tif", np.ones((20, 30), np.uint8))
    for number, words in enumerate(("B02,B11,B12", "B12,B11,B02", "B02,B12")):
        bands = words.split(",")
        lines = cut("--patch-size", 16, "--stack", words, folder=f"p{number}")
        assert [line["dtype"] for line in lines] == ["float32" if "B11" in bands else "uint16"] * 4
        for line in lines:
            col, row, _, _ = line["window"]
            patch = np.load(tmp_path / f"p{number}" / line["file"])
            for stored, band in zip(patch, bands, strict=True):
                values = {"B02": whole, "B11": real, "B12": small}[band][row : row + 16, col : col + 16]
                valid = np.isfinite(real[row : row + 16, col : col + 16]) | ("B11" not in bands)
                assert (stored[valid] == values[valid]).all() and (stored[~valid] == 0).all()
    with rasterio.open("p0_stacks/T33_1.vrt") as dataset:
        assert dataset.dtypes == ("uint16", "float32", "uint8")


@pytest.mark.parametrize("side", ["right", "left", "both", "fraction"])
def test_the_last_coarse_pixels_are_repeated_to_the_edge_of_the_grid(make_raster, cut, tmp_path, side):
    """Nine pixels of 10 m are four and a half of 20 m; what the coarser file does not reach would be a value of 0."""
    fine, coarse = ramp(9, 9)[0] + 1, np.arange(1, 17, dtype=np.uint16).reshape(4, 4)
    if side == "both":
        coarse = coarse[:3, :3]
    begin = {"right": 0, "left": 1, "both": 1.5, "fraction": 0.5}[side]  # fine pixels from the grid's corner to the file's
    make_raster("images/T33_1_B02.tif", fine)
    make_raster("images/T33_1_B11.tif", coarse, transform=from_origin(500_000 + 10 * begin, 4_600_000 - 10 * begin, 20, 20))
    make_raster("masks/T33_1.tif", np.ones((9, 9), np.uint8))
    (line,) = cut("--patch-size", 9, "--stack", "B02,B11")
    patch = np.load(tmp_path / "patches" / line["file"])
    # The coarse pixel under each fine one's centre, or the nearest there is; centres on a border may fall to either side.
    places = [np.clip(np.floor((np.arange(9) + 0.5 + aside - begin) / 2).astype(int), 0, len(coarse) - 1) for aside in (-0.01, 0.01)]
    found = [(patch[1] == coarse[np.ix_(rows, columns)]) for rows in places for columns in places]
    assert np.any(found, axis=0).all() and (patch[0] == fine).all() and line["valid_pixels"] == 81


def test_a_stack_of_files_that_cover_the_grid_names_each_once(make_raster, cut, tmp_path):
    make_raster("images/T33_1_B02.tif", ramp(8, 8)[0])
    make_raster("images/T33_1_B11.tif", ramp(4, 4)[0], transform=from_origin(500_000, 4_600_000, 20, 20))
    make_raster("masks/T33_1.tif", np.ones((8, 8), np.uint8))
    cut("--patch-size", 8, "--stack", "B02,B11")
    assert (tmp_path / "patches_stacks" / "T33_1.vrt").read_text().count("<SimpleSource>") == 2


def test_every_file_of_a_stack_is_known_again(make_raster, cut, tmp_path):
    for band, when in (("B02", 1000), ("B11", 2000), ("SCL", 3000)):
        path = make_raster(f"images/T33_1_{band}.tif", ramp(8, 8)[0])
        os.utime(path, (when, when))
    make_raster("masks/T33_1.tif", np.ones((8, 8), np.uint8))
    words = ("--patch-size", 8, "--stack", "B11,B02")
    before = cut(*words)
    os.utime(tmp_path / "images" / "T33_1_SCL.tif", (9000, 9000))
    assert cut(*words) == before, "neither a second run nor a file that is not in the stack changes anything"
    for wanted in ((1500, 2000), (2000, 1000)):  # not the latest; and the two exchanged
        for band, when in zip(("B02", "B11"), wanted, strict=True):
            os.utime(tmp_path / "images" / f"T33_1_{band}.tif", (when, when))
        with pytest.raises(UserError, match=r"T33_1\.vrt has changed.*--overwrite"):
            cut(*words)


@pytest.mark.parametrize("fault", ["broken", "missing"])
def test_a_scene_of_a_stack_with_a_bad_file_can_be_excluded(make_raster, cut, tmp_path, fault):
    for number in range(2):
        place = from_origin(500_000 + 1000 * number, 4_600_000, 10, 10)
        for band in ("B02", "B11"):
            make_raster(f"images/T33_{number}_{band}.tif", ramp(8, 8)[0], transform=place)
        make_raster(f"masks/T33_{number}.tif", np.ones((8, 8), np.uint8), transform=place)
    path = tmp_path / "images" / "T33_1_B11.tif"
    path.unlink() if fault == "missing" else path.write_bytes(b"II*\0nothing")
    with pytest.raises(UserError, match=r"B11.*--exclude T33_1\)"):
        cut("--patch-size", 8, "--stack", "B02,B11")
    assert [line["scene"] for line in cut("--patch-size", 8, "--stack", "B02,B11", "--exclude", "T33_1")] == ["T33_0"]
    with pytest.raises(UserError, match="--exclude leaves no scene"):
        cut("--patch-size", 8, "--stack", "B02,B11", "--exclude", "T33", folder="other")


@pytest.mark.parametrize("internal", [True, False])
def test_a_mask_of_a_stacked_file_is_not_lost_in_silence(make_raster, cut, internal):
    import rasterio

    for band in ("B02", "B11"):
        path = make_raster(f"images/T33_1_{band}.tif", ramp(8, 8)[0])
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal), rasterio.open(path, "r+") as file:
        file.write_mask(np.eye(8, dtype=np.uint8) * 255)
    make_raster("masks/T33_1.tif", np.ones((8, 8), np.uint8))
    with pytest.raises(UserError, match=r"T33_1_B11.tif has a mask of its own, which --stack would lose; .*gdalwarp -dstnodata"):
        cut("--patch-size", 8, "--stack", "B02,B11")
    assert len(cut("--patch-size", 8, "--stack", "B02")) == 1


def test_stacks_that_can_not_be_written_are_one_line(make_raster, cut, tmp_path):
    make_raster("images/T33_1_B02.tif", np.ones((8, 8), np.uint16))
    make_raster("masks/T33_1.tif", np.ones((8, 8), np.uint8))
    (tmp_path / "wall").touch()
    with pytest.raises(UserError, match="cannot write to wall/patches_stacks"):
        cut("--stack", "B02", folder="wall/patches")


def test_scenes_whose_tags_state_other_offsets_get_one(scene, cut, tmp_path):
    """Sentinel-2 before and after baseline 04.00: the same ground, 1000 apart in its digital numbers."""
    ground = ramp(8, 8)
    ground[0, 0, 0], ground[1, 0, 0] = 0, 0
    before, after = ground.copy(), np.where(ground == 0, 0, ground + 1000).astype("uint16")
    scene("a_1", before, scales=(1e-4, 1e-4), offsets=(0, 0), nodata=0)
    scene("b_1", after, scales=(1e-4, 1e-4), offsets=(-0.1, -0.1), nodata=0, transform=from_origin(600_000, 4_600_000, 10, 10))
    one, other = cut("--patch-size", 8, divide_by=())
    assert (np.load(tmp_path / "patches" / one["file"]) == np.load(tmp_path / "patches" / other["file"])).all()
    assert one["band_sum"] == other["band_sum"] and one["dtype"] == "uint16" and one["valid_pixels"] == 63
    description = read_chipset(tmp_path / "patches")
    assert description["offset"] == [-1000, -1000] and description["divide_by"] == [10_000, 10_000]


# --- splits ---


def test_overlapping_splits_are_refused_before_anything_is_written(scene, cut, tmp_path):
    scene("DOVE_1", ramp(8, 8))
    scene("OAK_1", ramp(8, 8), transform=from_origin(500_050, 4_600_000, 10, 10))
    with pytest.raises(UserError, match=r"share ground: DOVE_1 \(val\) and OAK_1 \(train\)"):
        cut("--patch-size", 8, "--val", "DOVE")
    assert not (tmp_path / "patches").exists()
    assert len(cut("--patch-size", 8, "--val", "DOVE", "--allow-overlap")) == 2


def test_excluded_scenes_are_not_there(scene, cut):
    for i, name in enumerate(("DOVE_1", "OAK_1", "OAK_2")):
        scene(name, ramp(8, 8), transform=from_origin(500_000 + 1000 * i, 4_600_000, 10, 10))
    assert {line["scene"] for line in cut("--patch-size", 8, "--exclude", "OAK")} == {"DOVE_1"}
    with pytest.raises(UserError, match="--exclude 'OAX'"):
        cut("--exclude", "OAX", folder="other")


# --- same bytes, always ---


def test_the_number_of_workers_does_not_change_a_byte(scene, cut, tmp_path):
    rng = np.random.default_rng(0)
    for i, (height, width) in enumerate([(90, 70), (16, 16), (5, 200)]):
        image = rng.random((2, height, width)).astype("float32")
        image[0, : height // 2, 3] = np.nan
        scene(f"s{i}_1", image, transform=from_origin(500_000 + 10_000 * i, 4_600_000, 10, 10))
    cut("--patch-size", 16, "--workers", 1, "--val", "s1")
    cut("--patch-size", 16, "--workers", 3, "--val", "s1", folder="three")
    assert tree_hash(tmp_path / "patches") == tree_hash(tmp_path / "three")


@pytest.mark.slow
def test_under_torchrun_the_first_process_cuts_with_as_many_workers(scene, cut, tmp_path):
    scene("s0_1", np.random.default_rng(0).integers(0, 4000, (2, 90, 70)).astype(np.uint16))
    cut("--patch-size", 16)
    words = "make-patches --images images --masks masks --divide-by 10000 --patch-size 16 --patches-dir two".split()
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run([*launcher, str(ROOT / "chip.py"), *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("35 patches of 16×16 pixels") == 1
    assert tree_hash(tmp_path / "patches") == tree_hash(tmp_path / "two")


def make_two_scenes(folder, side):
    """Two scenes of side × side pixels below a folder, of which some windows are left out, and their patches in `undisturbed`."""
    import rasterio

    image = np.random.default_rng(0).integers(0, 4000, (2, side, side)).astype(np.uint16)
    image[:, 100:300, 100:300] = 0
    for number in range(2):
        place = {"transform": from_origin(500_000 + 100_000 * number, 4_600_000, 10, 10), "crs": "EPSG:32633", "width": side,
                 "height": side}
        for kind, array in (("images", image), ("masks", (image[:1] > 2000).astype(np.uint8))):
            (folder / kind).mkdir(exist_ok=True)
            with rasterio.open(folder / kind / f"s{number}.tif", "w", count=len(array), dtype=array.dtype, nodata=None, **place) as dataset:
                dataset.write(array)
    chip.main(words_for(folder, "undisturbed"))
    assert (folder / "undisturbed" / "skipped.jsonl").exists()
    return folder


def words_for(folder, out, workers=1):
    words = f"make-patches --images {folder}/images --masks {folder}/masks --nodata 0 --divide-by 10000 --patch-size 32 --val s1 --quiet"
    return [*words.split(), "--patches-dir", str(folder / out), "--workers", str(workers)]


@pytest.fixture(scope="module")
def two_scenes(tmp_path_factory):
    return make_two_scenes(tmp_path_factory.mktemp("two"), 330)


PAUSING = """
import sys, time
import chip
from chipping.chipset import ChipSetWriter
from runtime.errors import run_program
from runtime.stop_signals import catch_stop_signals

left, add = int(sys.argv.pop(1)), ChipSetWriter.add

def add_or_pause(self, line):
    global left
    left -= 1
    if not left:
        print("paused", flush=True)
        time.sleep(600)
    add(self, line)

ChipSetWriter.add = add_or_pause
sys.argv[0] = "chip.py"
catch_stop_signals("Run the same command again")
run_program(chip.main)
"""


def run_until_line(number, words):
    """A process of chip.py that stands still when the files of patch `number` are there and its line is not."""
    command = [sys.executable, "-c", PAUSING, str(number), *words]
    run = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert run.stdout.readline() == "paused\n", run.communicate()[1]
    return run


@pytest.mark.parametrize("number, workers", [(1, 1), (130, 1), (130, 2)])
def test_a_killed_run_ends_with_the_same_bytes(two_scenes, number, workers):
    out = f"killed{number}_{workers}"
    run = run_until_line(number, words_for(two_scenes, out, workers))
    run.kill()
    assert run.wait() == -signal.SIGKILL
    run.communicate()  # ends when the last worker has
    masks = len(list((two_scenes / out).glob("*/*_mask.npy")))
    assert len(read_manifest(two_scenes / out)) == number - 1 < masks and (masks == number or workers > 1)
    chip.main(words_for(two_scenes, out, workers))
    assert tree_hash(two_scenes / out) == tree_hash(two_scenes / "undisturbed")


@pytest.mark.parametrize("how, code, workers", [(signal.SIGINT, 130, 2), (signal.SIGTERM, 143, 1)])
def test_ctrl_c_and_sigterm_end_in_one_line_and_the_run_goes_on(two_scenes, how, code, workers):
    out = f"stopped{code}"
    run = run_until_line(100, words_for(two_scenes, out, workers))
    run.send_signal(how)
    said, errors = run.communicate(timeout=60)
    assert run.returncode == code and not said and len(read_manifest(two_scenes / out)) == 99
    (line,) = errors.splitlines()
    assert line.endswith("99 patches are safe; run the same command again to continue.")
    chip.main(words_for(two_scenes, out))
    assert tree_hash(two_scenes / out) == tree_hash(two_scenes / "undisturbed")


@pytest.mark.slow
@pytest.mark.parametrize("workers, shares", [(1, (0.02, 0.3, 0.7)), (2, (0.1, 0.6))])
def test_a_run_killed_at_any_moment_ends_with_the_same_bytes(tmp_path, workers, shares):
    big, out = make_two_scenes(tmp_path, 640), "killed"
    total = len(read_manifest(big / "undisturbed"))
    assert total > 800
    rng, kills = np.random.default_rng(workers), 0
    command = [sys.executable, str(ROOT / "chip.py"), *words_for(big, out, workers)]
    for share in shares:
        run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while run.poll() is None:
            if len(list((big / out).glob("*/*_mask.npy"))) >= share * total:  # several workers are ahead of the manifest
                time.sleep(rng.random() * 0.02)
                run.kill()
                break
            time.sleep(0.002)
        kills += run.wait() == -signal.SIGKILL
    assert kills >= 1
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    time.sleep(0.2)  # a worker of a killed parent may need a moment to notice
    assert tree_hash(big / out) == tree_hash(big / "undisturbed")


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
def test_scenes_are_tasks_of_their_own_and_those_that_remain_are_split(workers):
    recipe = SimpleNamespace(size=256, stride=224)
    scenes = [SimpleNamespace(name=f"s{n}", width=6144, height=6144, block_height=512) for n in range(3)]
    tasks = parallel.partition(scenes, recipe, workers, {})
    rows = starts(6144, 256, 224)
    assert [row for _, task in tasks for row in task] == rows * 3 and [number for number, _ in tasks] == sorted(n for n, _ in tasks)
    assert [sum(number == n for number, _ in tasks) for n in range(3)] == {1: [1, 1, 1], 2: [1, 1, 2], 3: [1, 1, 1], 4: [2, 2, 2]}[workers]
    gone_on = parallel.partition(scenes, recipe, workers, {"s0": len(rows) ** 2, "s1": 5 * len(rows) + 3})
    assert [row for _, task in gone_on for row in task] == rows[5:] + rows


def test_a_scene_of_any_size_is_cut_in_tasks_of_some_rows_of_blocks():
    recipe = SimpleNamespace(size=256, stride=224)
    scene = SimpleNamespace(name="s", width=100_000, height=100_000, block_height=512)
    tasks = parallel.partition([scene], recipe, 2, {})
    assert len(tasks) % 2 == 0 and max(len(rows) for _, rows in tasks) * 224 < 10 * 512


def test_a_patch_that_was_lost_is_cut_again(scene, cut, tmp_path):
    scene("a", ramp(40, 40))
    cut("--patch-size", 8)
    before = tree_hash(tmp_path / "patches")
    (tmp_path / "patches" / "train" / "a_r14_c21_mask.npy").unlink()
    cut("--patch-size", 8)
    assert tree_hash(tmp_path / "patches") == before


def test_a_second_run_changes_nothing_and_touches_nothing(scene, cut, tmp_path):
    scene("a", ramp(40, 40))
    cut("--patch-size", 8)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "patches").rglob("*.npy")}
    cut("--patch-size", 8, "--workers", 2)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "patches").rglob("*.npy")} == before


@pytest.mark.parametrize(
    "words", [("--stride", 5), ("--bands", "1"), ("--max-cloud-cover", 0.3), ("--label-map", "1=0"), ("--patch-size", 7)]
)
def test_other_settings_never_mix_with_old_patches(scene, cut, tmp_path, words):
    scene("a", ramp(20, 20))
    cut("--patch-size", 8)
    before = tree_hash(tmp_path / "patches")
    with pytest.raises(UserError, match="other settings.*--overwrite"):
        cut("--patch-size", 8, *words)
    assert tree_hash(tmp_path / "patches") == before
    cut("--patch-size", 8, *words, "--overwrite")
    cut("--patch-size", 8, *words, folder="fresh")
    assert tree_hash(tmp_path / "patches") == tree_hash(tmp_path / "fresh")


def test_a_source_that_changed_is_not_mixed_with_old_patches(scene, cut, tmp_path):
    scene("a", ramp(8, 8))
    cut("--patch-size", 8)
    for name in ("images/a.tif", "masks/a.tif"):
        os.utime(tmp_path / name, (1, 1))
        with pytest.raises(UserError, match=rf"{name} has changed"):
            cut("--patch-size", 8)
        cut("--patch-size", 8, "--overwrite")


def test_the_order_of_files_in_a_folder_does_not_matter(scene, cut, tmp_path):
    for name in ("b_1", "a_1", "c_1"):
        scene(name, ramp(8, 8))
    names = [line["scene"] for line in cut("--patch-size", 8)]
    assert names == ["a_1", "b_1", "c_1"]


# --- talking ---


def test_a_dry_run_tells_and_writes_nothing(scene, cut, tmp_path, capsys):
    scene("a", ramp(40, 40))
    chip.main("make-patches --images images --masks masks --divide-by 30000 --patch-size 8 --dry-run --quiet".split())
    said = capsys.readouterr().out
    assert "36 windows" in said and "about 36 patches" in said and "on disk" in said
    assert not (tmp_path / "patches").exists()


def test_the_summary_says_what_was_made_and_what_comes_next(scene, cut, tmp_path, capsys):
    scene("a_1", ramp(8, 8))
    scene("b_1", ramp(8, 8), transform=from_origin(600_000, 4_600_000, 10, 10))
    log = tmp_path / "run.log"
    cut("--patch-size", 8, "--val", "b", "--log", log)
    said = capsys.readouterr().out
    assert "2 patches of 8×8 pixels, 2 bands in patches: train 1 from 1 scene, val 1 from 1 scene" in said
    assert "next: python train.py --patches-dir patches --num-classes 2" in said
    assert "2 patches" in log.read_text()


def test_remarks_are_in_the_log_also_when_they_are_not_shown(scene, cut, tmp_path, capsys):
    scene("a_1", ramp(8, 8))
    for _ in range(2):  # the second run appends
        cut("--patch-size", 8, "--log", tmp_path / "run.log", divide_by=("--divide-by", "30000"))
    remark = "note: everything is for training; train.py needs a validation split (--val NAMES or --val 0.2)"
    lines = (tmp_path / "run.log").read_text().splitlines()
    assert capsys.readouterr().err == "" and [line[21:] for line in lines].count(remark) == 2
    assert all(line[:19].replace("-", "").replace(":", "").replace(" ", "").isdigit() for line in lines)


def test_one_unreadable_file_among_good_ones_is_counted_and_named(scene, cut, tmp_path, capsys):
    scene("a_1", ramp(64, 64), compress="deflate")
    scene("b_1", ramp(64, 64), compress="deflate", blockysize=8)
    path = tmp_path / "images" / "b_1.tif"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    try:
        lines = cut("--patch-size", 16)
    finally:
        said = capsys.readouterr().out
    assert {line["scene"] for line in lines} >= {"a_1"} and len(lines) < 50
    assert "could not be read" in said and "b_1.tif" in said
    with pytest.raises(RunError, match="b_1.tif"):
        cut("--patch-size", 16, "--strict", folder="strict")
    shutil.copy(path, tmp_path / "images" / "a_1.tif")
    path.write_bytes(data[:100])


def test_a_scene_that_is_held_out_and_can_not_be_read_is_not_called_unknown(scene, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for i, name in enumerate(("s1", "s2", "s3_a", "s3_b")):
        scene(name, ramp(8, 8), transform=from_origin(500_000 + 1000 * i, 4_600_000, 10, 10))
    for name in ("s1", "s3_a"):
        (tmp_path / "images" / f"{name}.tif").write_bytes(b"II*\0nothing")
    words = "make-patches --images images --masks masks --divide-by 30000 --patch-size 8".split()
    chip.main([*words, "--val", "s1", "--test", "s3"])
    said = capsys.readouterr().err
    assert "s1.tif can't be opened" in said and "no scene is left for val, since s1, s3_a cannot be read" in said
    assert {line["scene"]: line["split"] for line in read_manifest("patches")} == {"s2": "train", "s3_b": "test"}
    chip.main([*words, "--val", "s1,s3", "--patches-dir", "some"])
    assert "no scene is left" not in capsys.readouterr().err and {line["split"] for line in read_manifest("some")} == {"train", "val"}
    with pytest.raises(UserError, match="--val 's4' matches no scene"):
        chip.main([*words, "--val", "s4", "--patches-dir", "other"])
    (tmp_path / "masks" / "s3_b.tif").write_bytes(b"II*\0nothing")
    chip.main([*words, "--test", "s3", "--patches-dir", "third"])
    assert "no scene is left for test, since s1, s3_a, s3_b cannot be read" in capsys.readouterr().err


def test_the_wildfires_of_the_documentation(real_data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(real_data / "wildfire")
    words = "make-patches --images post_fire/*.tif --masks masks/*.tif --bands 1,2,3,4,5 --divide-by 255,255,255,10000,10000"
    chip.main([*words.split(), *"--patch-size 128 --val DOVE,CANAL,LIDIA --exclude KENNETH".split(), "--patches-dir", str(tmp_path / "p")])
    lines = read_manifest(tmp_path / "p")
    assert len({line["scene"] for line in lines}) == 14
    assert {line["event"] for line in lines if line["split"] == "val"} == {"DOVE", "CANAL", "LIDIA"}
    for name in {line["scene"] for line in lines}:  # every pixel of every scene
        mine = [line for line in lines if line["scene"] == name]
        width, height = mine[0]["scene_size"]
        seen = np.zeros((height, width), bool)
        for col, row, w, h in (line["window"] for line in mine):
            seen[row : row + h, col : col + w] = True
        assert seen.all()
    ranch = [line for line in lines if line["event"] == "RANCH"]
    assert any(line["valid_fraction"] < 1 for line in ranch) and all(math.isfinite(s) for line in ranch for s in line["band_sum"])


def test_the_flood_chip_keeps_its_classes_and_ignores_minus_one(real_data, tmp_path, monkeypatch):
    import rasterio

    monkeypatch.chdir(real_data / "floods")
    words = "make-patches --images *S2Hand.tif --masks *LabelHand.tif --image-suffix _S2Hand --mask-suffix _LabelHand --label-map -1=ignore"
    more = f"--classes land,water --divide-by 10000 --stride 256 --quiet --patches-dir {tmp_path / 'p'}"
    chip.main([*words.split(), *more.split()])
    lines = read_manifest(tmp_path / "p")
    with rasterio.open(real_data / "floods/Spain_7370579_LabelHand.tif") as dataset:
        truth = dataset.read(1)
    assert np.sum([line["class_pixels"]["mask"] for line in lines], axis=0).tolist() == [(truth == 0).sum(), (truth == 1).sum()]
    assert {line["dtype"] for line in lines} == {"int16"} and {line["scene"] for line in lines} == {"Spain_7370579"}


@pytest.mark.slow
def test_the_flood_chip_trains(real_data, tmp_path, monkeypatch, capsys):
    """One chip in two halves, one to learn from and one to validate on; its -1 reaches neither the loss nor the scores."""
    import rasterio
    from rasterio.windows import Window

    import train

    monkeypatch.chdir(tmp_path)
    Path("floods").mkdir()
    for kind in ("S2Hand", "LabelHand"):
        with rasterio.open(real_data / f"floods/Spain_7370579_{kind}.tif") as dataset:
            for number, half in enumerate((Window(0, 0, 256, 512), Window(256, 0, 256, 512))):
                profile = {**dataset.profile, "width": 256, "transform": dataset.window_transform(half), "tiled": False}
                profile.pop("blockxsize", None)
                with rasterio.open(f"floods/half{number}_{kind}.tif", "w", **profile) as part:
                    part.write(dataset.read(window=half))
    words = "make-patches --images floods/*_S2Hand.tif --masks floods/*_LabelHand.tif --image-suffix _S2Hand --mask-suffix _LabelHand"
    chip.main([*words.split(), *"--label-map=-1=ignore --classes land,water --divide-by 10000 --patch-size 64 --val half1 --quiet".split()])
    flags = "--architecture contrastunet --indices pairs --max-steps 6 --batch-size 8 --num-workers 0 --lr 0.003 --quiet --device cpu"
    assert train.main(["--patches-dir", "patches", *flags.split()]) == 0
    assert train.main("--test-only --resume output/checkpoints/best_model.pt --test-split val --quiet --device cpu".split()) == 0
    scores = json.loads(Path("output/scores_val.json").read_text())
    with rasterio.open("floods/half1_LabelHand.tif") as dataset:
        truth = dataset.read(1)
    assert np.sum(scores["results"][0]["matrix"]) == (truth >= 0).sum()


def test_scenes_in_a_bucket_give_the_patches_of_local_ones(scene, cut, tmp_path, monkeypatch):
    server_module = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    import boto3

    from raster import source

    scene("a_1", ramp(20, 30), tiled=True, blockxsize=16, blockysize=16)
    cut("--patch-size", 8)
    service = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    service.start()
    host, port = service.get_host_and_port()
    try:
        for name, value in {
            "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1", "AWS_HTTPS": "NO",
            "AWS_S3_ENDPOINT": f"{host}:{port}", "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_VIRTUAL_HOSTING": "FALSE",
        }.items():
            monkeypatch.setenv(name, value)
        source.has_credentials.cache_clear()
        bucket = f"patches-{os.getpid()}-{port}"
        boto3.client("s3").create_bucket(Bucket=bucket)
        boto3.client("s3").upload_file("images/a_1.tif", bucket, "run/a_1.tif")
        words = f"make-patches --images s3://{bucket}/run/*.tif --masks masks --divide-by 10000 --patch-size 8 --patches-dir remote --quiet"
        chip.main(words.split())
    finally:
        service.stop()
        source.has_credentials.cache_clear()
    local, remote = ({p.name: p.read_bytes() for p in (tmp_path / f).rglob("*.npy")} for f in ("patches", "remote"))
    assert len(local) > 20 and local == remote
    assert read_manifest("remote")[0]["source"]["path"] == f"s3://{bucket}/run/a_1.tif"


# --- what has changed since ---


def test_cloud_masks_that_come_go_or_change_are_not_mixed_with_old_patches(scene, cut, make_raster, tmp_path):
    scene("a", ramp(8, 24))
    clouds = np.zeros((8, 24), np.uint8)
    clouds[:, :8] = 1
    make_raster("clouds/a.tif", clouds)
    words = ("--patch-size", 8, "--stride", 8)
    assert len(cut(*words)) == 3
    with pytest.raises(UserError, match="other settings.*clouds: false → true"):
        cut(*words, "--clouds", "clouds")
    lines = cut(*words, "--clouds", "clouds", "--overwrite")
    assert [line["window"][0] for line in lines] == [8, 16]
    assert lines[0]["cloud_source"]["size"] == os.path.getsize(tmp_path / "clouds" / "a.tif")
    make_raster("clouds/a.tif", clouds[:, ::-1])
    os.utime(tmp_path / "clouds" / "a.tif", (1, 1))
    with pytest.raises(UserError, match=r"clouds/a\.tif has changed.*--overwrite"):
        cut(*words, "--clouds", "clouds")
    assert [line["window"][0] for line in cut(*words, "--clouds", "clouds", "--overwrite")] == [0, 8]


@pytest.mark.parametrize("part", ["images", "masks"])
def test_a_scene_without_any_patch_is_looked_at_again(scene, cut, tmp_path, part):
    """Nothing of `b` is labelled or valid; its file is then repaired."""
    scene("a", ramp(8, 8))
    scene("b", ramp(8, 8) + 1, np.full((8, 8), 255, np.uint8) if part == "masks" else None)
    if part == "images":
        scene("b", np.zeros((2, 8, 8), np.uint16))
    assert {line["scene"] for line in cut("--patch-size", 8, "--nodata", 0)} == {"a"}
    cut("--patch-size", 8, "--nodata", 0)
    scene("b", ramp(8, 8) + 1)
    os.utime(tmp_path / part / "b.tif", (1, 1))
    with pytest.raises(UserError, match=r"/b\.tif has changed.*--overwrite to cut all again"):
        cut("--patch-size", 8, "--nodata", 0)
    assert {line["scene"] for line in cut("--patch-size", 8, "--nodata", 0, "--overwrite")} == {"a", "b"}


@pytest.mark.parametrize("part", ["images", "masks"])
def test_a_mask_beside_a_file_is_part_of_it(scene, cut, tmp_path, part):
    import rasterio

    scene("a", ramp(8, 8))
    (line,) = cut("--patch-size", 8)
    assert set(line["source"]) == set(line["label_sources"]["mask"]) == {"path", "size", "mtime"}, "as in sets made before"
    path = tmp_path / part / "a.tif"
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as dataset:
        when = os.stat(path)
        dataset.write_mask(np.eye(8, dtype=np.uint8) * 255)
    os.utime(path, ns=(when.st_atime_ns, when.st_mtime_ns))
    for _ in range(2):
        with pytest.raises(UserError, match=rf"{part}/a\.tif\.msk has changed.*--overwrite to cut all again"):
            cut("--patch-size", 8)
        cut("--patch-size", 8, "--overwrite")
        cut("--patch-size", 8)
        os.utime(f"{path}.msk", (1, 1))


@pytest.mark.parametrize("broken", ["images", "masks", "clouds"])
def test_the_file_that_can_not_be_read_is_the_one_that_is_named(scene, cut, make_raster, tmp_path, broken):
    """Image, mask and clouds share their name; only the folder tells them apart."""
    rng = np.random.default_rng(0)
    scene("a_1", ramp(8, 8))
    make_raster("clouds/a_1.tif", np.zeros((8, 8), np.uint8))
    image, mask = rng.integers(1, 9999, (2, 64, 8)).astype(np.uint16), rng.integers(0, 2, (64, 8)).astype(np.uint8)
    scene("b_1", image, mask, blockysize=8, mask_how={"blockysize": 8})
    make_raster("clouds/b_1.tif", mask, blockysize=8)
    path = tmp_path / broken / "b_1.tif"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    cut("--patch-size", 8, "--clouds", "clouds")
    skipped = [json.loads(text) for text in (tmp_path / "patches" / "skipped.jsonl").read_text().splitlines()]
    assert {line["source"] for line in skipped if line["reason"] == "unreadable"} == {f"{broken}/b_1.tif"}


@pytest.mark.parametrize("gone", ["images", "masks"])
def test_a_file_that_vanishes_after_the_headers_were_read_is_the_one_that_is_named(scene, cut, tmp_path, gone, monkeypatch):
    from chipping import plan

    scene("a_1", ramp(8, 8))
    scene("b_1", ramp(8, 8))
    check = plan.check_masks

    def spoil(*arguments):
        check(*arguments)
        (tmp_path / gone / "b_1.tif").write_bytes(b"II*\0nothing")

    monkeypatch.setattr(plan, "check_masks", spoil)
    cut("--patch-size", 8)
    (line,) = (json.loads(text) for text in (tmp_path / "patches" / "skipped.jsonl").read_text().splitlines())
    assert line["reason"] == "unreadable" and line["source"] == f"{gone}/b_1.tif"


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("beneath", [0, 1, 7], ids=["background", "fire", "no-class"])
def test_what_the_label_files_own_mask_hides_is_ignored(scene, cut, tmp_path, aligned, beneath):
    import rasterio

    mask = np.ones((4 if aligned else 8,) * 2, np.uint8)
    half = mask.shape[0] // 2
    mask[:half] = beneath
    pixel = 20 if aligned else 10
    scene("a", ramp(8, 8), mask, mask_how={"transform": from_origin(500_000, 4_600_000, pixel, pixel)})
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(tmp_path / "masks" / "a.tif", "r+") as dataset:
        dataset.write_mask(np.arange(len(mask))[:, None].repeat(len(mask), 1) >= half)
    (line,) = cut("--patch-size", 8, *(["--align"] if aligned else []), "--label-map", "255=1")
    labels = np.load(tmp_path / "patches" / line["mask"])[0]
    assert (labels[:4] == 255).all() and (labels[4:] == 1).all()


def test_aligned_cloud_masks_hide_nothing_where_they_do_not_reach(scene, cut, make_raster, tmp_path):
    scene("a", ramp(8, 8), np.ones((8, 8), np.uint8))
    make_raster("clouds/a.tif", np.array([[1, 0], [0, 0]], np.uint8), transform=from_origin(500_000, 4_600_000, 20, 20))
    (line,) = cut("--patch-size", 8, "--clouds", "clouds", "--align", "--ignore-clouds")
    labels = np.load(tmp_path / "patches" / line["mask"])[0]
    assert (labels[:2, :2] == 255).all() and (labels == 255).sum() == 4 and line["cloud_cover"] == 4 / 64


# --- nodata of each band, and of none ---


@pytest.mark.parametrize("order", ["B02,B11", "B11,B02"])
def test_every_band_of_a_stack_has_its_own_nodata(make_raster, cut, tmp_path, order):
    fine, coarse = np.full((8, 8), 50, np.uint16), np.full((8, 8), 60, np.uint16)
    fine[0], coarse[7] = 0, 0
    make_raster("images/T33_1_B02.tif", fine)
    make_raster("images/T33_1_B11.tif", coarse, nodata=0)
    make_raster("masks/T33_1.tif", np.ones((8, 8), np.uint8))
    (line,) = cut("--patch-size", 8, "--stack", order)
    labels = np.load(tmp_path / "patches" / line["mask"])[0]
    assert line["valid_pixels"] == 56 and (labels[7] == 255).all() and (labels[:7] == 1).all()
    description = read_chipset(tmp_path / "patches")
    assert description["nodata"] is None and sorted(map(str, description["settings"]["nodata"])) == ["0.0", "None"]


SENTINEL = dict(scales=(1e-4, 1e-4), offsets=(-0.1, -0.1))


@pytest.mark.parametrize("words, how, empty", [
    (("--divide-by", 10_000, "--offset", -1000), {}, True),
    ((), SENTINEL, True),
    (("--divide-by", 10_000, "--offset", -1000, "--nodata", "none"), {}, False),
    (("--divide-by", 10_000, "--offset", -1000, "--nodata", 65_535), {}, False),
    (("--divide-by", 10_000, "--offset", -1000), {"nodata": 65_535}, False),
    (("--divide-by", 10_000), {}, False),
], ids=["flag", "tags", "none", "another", "tag", "no offset"])
def test_zero_is_no_data_where_an_offset_would_make_a_value_of_it(scene, make_raster, tmp_path, monkeypatch, capsys, words, how, empty):
    monkeypatch.chdir(tmp_path)
    image = ramp(8, 8) + 1500
    image[:, :3] = 0
    image[1, 4, 4] = 0  # in one band only: dark, not empty
    scene("a", image, np.ones((8, 8), np.uint8), **how)
    chip.main(["make-patches", "--images", "images", "--masks", "masks", "--patch-size", "8", "--accept-scale", *map(str, words)])
    (line,) = read_manifest("patches")
    patch, labels = np.load(Path("patches") / line["file"]), np.load(Path("patches") / line["mask"])[0]
    assert line["valid_pixels"] == (40 if empty else 64) and labels[4, 4] == 1
    assert (labels[:3] == (255 if empty else 1)).all() and (patch[:, :3] == (1000 if empty else 0)).all()
    assert ("no nodata tag (a)" in capsys.readouterr().err) == empty
    assert read_chipset("patches")["settings"]["zero_is_nodata"] is empty


def test_zero_is_no_data_in_scenes_that_are_shifted_to_another_offset(scene, cut, tmp_path):
    image = ramp(8, 8) + 1500
    image[:, 0] = 0
    scene("a_1", image, np.ones((8, 8), np.uint8), scales=(1e-4, 1e-4), offsets=(0, 0))
    scene("b_1", image, np.ones((8, 8), np.uint8), transform=from_origin(600_000, 4_600_000, 10, 10), **SENTINEL)
    lines = cut("--patch-size", 8, divide_by=())
    assert [line["valid_pixels"] for line in lines] == [56, 56]
    for line in lines:  # reflectance 0
        assert (np.load(tmp_path / "patches" / line["file"])[:, 0] == 1000).all()


def test_scenes_whose_names_are_numbers_can_be_named(scene, cut):
    for i, name in enumerate(("1", "2", "3", "10")):
        scene(name, ramp(8, 8), transform=from_origin(500_000 + 1000 * i, 4_600_000, 10, 10))
    lines = cut("--patch-size", 8, "--val", "3", "--test", "2", "--exclude", "10")
    assert [(line["scene"], line["split"]) for line in lines] == [("1", "train"), ("2", "test"), ("3", "val")]
    with pytest.raises(UserError, match="--exclude '0.2' matches no scene"):
        cut("--patch-size", 8, "--exclude", "0.2", folder="other")


def test_bands_by_number_need_no_descriptions_in_every_file(scene, cut, tmp_path):
    image = ramp(8, 8, 3)
    for i, (name, words) in enumerate({"a_1": None, "b_1": ("B02", "B04", "B12"), "c_1": ("B2", "", "")}.items()):
        scene(name, image, descriptions=words, transform=from_origin(500_000 + 1000 * i, 4_600_000, 10, 10))
    assert len(cut("--patch-size", 8, "--bands", "1,2")) == 3
    assert read_chipset(tmp_path / "patches")["bands"] == ["B02", "B04"]
    with pytest.raises(UserError, match="has band 'B02' where images/a_1.tif has ''.*by number"):
        cut("--patch-size", 8, folder="other")
    scene("d_1", image, descriptions=("B02", "B05", ""), transform=from_origin(600_000, 4_600_000, 10, 10))
    assert len(cut("--patch-size", 8, "--bands", "1,2", folder="other")) == 4
    notes = []
    choose_bands({n: describe(f"images/{n}.tif") for n in ("b_1", "c_1", "d_1")}, "1,2", note=notes.append)
    assert notes == ["images/d_1.tif has band 'B05' where images/b_1.tif has 'B04'; they count as the same band, as --bands 1,2 says"]


def test_the_advice_for_bands_of_other_names_makes_the_set(scene, cut, tmp_path):
    image = ramp(8, 8, 3)
    scene("a_1", image, descriptions=("x", "y", "z"))
    scene("b_1", image[::-1], descriptions=("x", "y", "w"), transform=from_origin(600_000, 4_600_000, 10, 10))
    with pytest.raises(UserError, match="b_1.tif has band 'w' where images/a_1.tif has 'z'") as failed:
        cut("--patch-size", 8)
    flags = re.search(r"such as (--bands \S+)$", str(failed.value)).group(1).split()
    assert flags == ["--bands", "1,2,3"]
    one, other = cut("--patch-size", 8, *flags)
    assert (np.load(tmp_path / "patches" / other["file"]) == image[::-1]).all()


@pytest.mark.parametrize("flags", [(), ("--bands", "1,2"), ("--bands", "B3,B8"), ("--bands", "green,nir")])
def test_band_names_with_a_date_in_them_are_those_bands(scene, cut, tmp_path, flags):
    """As Earth Engine's toBands and stacks of dates name them."""
    image = ramp(8, 8, 2)
    names = {"a_1": ("20240711_B3", "20240711_B8"), "b_1": ("20240805T100031_20240805T100501_T33TWN_B3", "0_B8"),
             "c_1": ("B03", "B8_2024-08-05")}
    for i, (name, words) in enumerate(names.items()):
        scene(name, image, descriptions=words, transform=from_origin(500_000 + 1000 * i, 4_600_000, 10, 10))
    lines = cut("--patch-size", 8, *flags)
    assert all((np.load(tmp_path / "patches" / line["file"]) == image).all() for line in lines) and len(lines) == 3



def test_the_advice_for_a_landsat_scene_gives_its_reflectance(scene, tmp_path, monkeypatch, capsys):
    """Collection 2 Level 2 by its guide: reflectance = 0.0000275 · DN − 0.2, fill 0."""
    monkeypatch.chdir(tmp_path)
    reflectance = np.random.default_rng(0).uniform(0.02, 0.4, (2, 32, 32))
    stored = np.rint((reflectance + 0.2) / 2.75e-5).astype("uint16")
    stored[:, :4] = 0
    scene("LC08", stored, descriptions=("SR_B2", "SR_B3"), nodata=0)
    words = "make-patches --images images --masks masks --patch-size 32 --overwrite --patches-dir patches".split()
    with pytest.raises(UserError, match="the scale of .* is not known") as failed:
        chip.main(words)
    divisor, offset = re.search(r"([\d.]+), with --offset (-[\d.]+): Landsat Collection 2", str(failed.value)).groups()
    chip.main([*words, "--divide-by", divisor, "--offset", offset])
    (line,) = read_manifest("patches")
    means = [(total / line["valid_pixels"] + float(offset)) / float(divisor) for total in line["band_sum"]]
    assert means == pytest.approx(reflectance[:, 4:].mean((1, 2)), abs=1e-5) and line["valid_pixels"] == 28 * 32
    assert "is not that of land" not in capsys.readouterr().err
    with pytest.raises(UserError, match="LC08.tif: median SR_B2 1.5.*, SR_B3 1.*--accept-scale"):
        chip.main([*words, "--divide-by", "10000", "--quiet"])
    chip.main([*words, "--divide-by", "10000", "--quiet", "--accept-scale"])
    assert "the mean reflectance of SR_B2, SR_B3 is not that of land or water" in capsys.readouterr().err


@pytest.mark.parametrize("offsets", [((0, -999.5), (0, -999.0)), ((0, -999.0), (0, -999.5)), ((0, -1000.0004), (0, -1000.0))])
def test_offsets_that_differ_by_little_are_told_apart_and_the_advice_makes_the_set(scene, cut, offsets):
    """Only the second band differs: the first is not what the message is about."""
    for i, (name, added) in enumerate(zip(("a_1", "b_1"), offsets, strict=True)):
        scene(name, ramp(8, 8), scales=(1e-4, 1e-4), offsets=[o * 1e-4 for o in added], descriptions=("B03", "B04"),
              transform=from_origin(500_000 + 1000 * i, 4_600_000, 10, 10))
    with pytest.raises(UserError, match=r"^B04 has .*pass --divide-by and --offset") as failed:
        cut("--patch-size", 8, divide_by=())
    told = dict(re.findall(r"divisor 10000 and offset (\S+) in images/(\w+)\.tif", str(failed.value)))
    assert sorted(map(float, told)) == pytest.approx(sorted(added[1] for added in offsets), abs=1e-7)
    assert set(told.values()) == {"a_1", "b_1"}
    assert len(cut("--patch-size", 8, divide_by=("--divide-by", "10000"))) == 2


@pytest.mark.parametrize("nodata", [None, 0])
@pytest.mark.parametrize("burnt", [slice(2, 6), slice(0, 8)])
def test_the_advice_for_masks_of_0_and_255_gives_both_classes(scene, tmp_path, monkeypatch, capsys, nodata, burnt):
    """As gdal_rasterize -burn 255 -a_nodata 0 writes them: under the tag nothing at all is labelled."""
    monkeypatch.chdir(tmp_path)
    mask = np.zeros((8, 16), np.uint8)
    mask[:, burnt] = 255
    scene("a", ramp(8, 16), mask, mask_how={"nodata": nodata})
    words = "make-patches --images images --masks masks --divide-by 30000 --patch-size 8 --stride 8 --overwrite --patches-dir patches"
    words = words.split()
    if nodata == 0:
        with pytest.raises(UserError, match="no patch could be cut .*the masks hold 0 and 255 only") as failed:
            chip.main(words)
        told = str(failed.value)
        assert "so class 0 is ignored there; pass --label-map=0=0,255=1" in capsys.readouterr().err
    else:
        chip.main(words)
        told = capsys.readouterr().err
    (flag,) = set(re.findall(r"--label-map=[\d=,]+", told))
    chip.main([*words, flag])
    counts = np.sum([line["class_pixels"]["mask"] for line in read_manifest("patches")], axis=0)
    assert counts.tolist() == [(mask == 0).sum(), (mask == 255).sum()]


CLOUDS = {  # product: (values that are clear, values that are cloud or shadow), by the products' guides
    "fmask": ([64, 192, 32, 16, 255], [2, 4, 8, 64 + 2]),
    "qa_pixel": ([21824, 21952, 1], [22280, 23888, 54596, 21826]),
    "scl": ([0, 1, 2, 4, 5, 6, 7, 11], [3, 8, 9, 10]),
    "cm": ([0, 255], [1, 2, 3]),
}


@pytest.mark.parametrize("product", CLOUDS)
@pytest.mark.parametrize("how", ["product", "numbers"])
def test_cloud_masks_of_the_usual_products_are_read_as_the_advice_says(scene, cut, make_raster, tmp_path, product, how):
    clear, cloudy = CLOUDS[product]
    values = np.resize([*clear, *cloudy], (8, 8)).astype("uint16" if product == "qa_pixel" else "uint8")
    scene("a", ramp(8, 8))
    make_raster("clouds/a.tif", values)
    words = ("--patch-size", 8, "--clouds", "clouds", "--max-cloud-cover", 1)
    if product != "cm":
        with pytest.raises(UserError, match=r"clouds/a.tif holds the value \d+; expected 0 \(clear\), 1 to 3") as failed:
            cut(*words)
        assert product in re.search(r"Pass --cloud-values (\S+),", str(failed.value)).group(1).split("|")
    flags = ("--cloud-values", product)
    if how == "numbers":
        bits = {"fmask": "1,2,3", "qa_pixel": "4,3,2,1"}
        flags = ("--cloud-bits", bits[product]) if product in bits else ("--cloud-values", ",".join(map(str, cloudy)))
    (line,) = cut(*words, *flags, "--ignore-clouds")
    expected = np.isin(values, cloudy)
    assert line["cloud_cover"] == round(expected.mean(), 6)
    assert ((np.load(tmp_path / "patches" / line["mask"])[0] == 255) == expected).all()


def test_planets_udm2_is_cloudy_where_its_first_band_is_not_clear(scene, cut, make_raster, tmp_path):
    udm2 = np.zeros((8, 8, 8), np.uint8)
    udm2[0, :, 3:] = 1
    image = ramp(8, 8) + 1
    image[:, 0] = 0
    scene("a", image, nodata=0)
    make_raster("clouds/a.tif", udm2)
    with pytest.raises(UserError, match="clouds/a.tif has 8 bands; expected one band"):
        cut("--patch-size", 8, "--clouds", "clouds")
    (line,) = cut("--patch-size", 8, "--clouds", "clouds", "--cloud-values", "udm2")
    assert line["cloud_cover"] == round(3 * 7 / 64, 6)  # what is nodata in the image is not cloud


@pytest.mark.parametrize(("words", "message"), [
    (("--cloud-values", "sclx"), "Did you mean 'scl'"), (("--cloud-bits", "64"), "bits from 0 to 31"),
    (("--cloud-bits", "a"), "--cloud-bits"),
    (("--cloud-values", "1", "--cloud-bits", "1"), "exclude each other"), (("--cloud-values", "cm"), "need cloud masks"),
    (("--clouds", "masks", "--cloud-values", "cm", "--ignore-clouds", "2"), "without a value"),
])
def test_flags_of_cloud_masks_that_make_no_sense_are_refused(scene, cut, words, message):
    scene("a", ramp(8, 8))
    with pytest.raises(UserError, match=message):
        cut("--patch-size", 8, *words)


@pytest.mark.parametrize(("name", "role"), [
    ("20240711_B3", "green"), ("B8A_20240711", "narrow_nir"), ("2024-07-11 red", "red"), ("S2A_20240711_B12", "swir2"), ("0_B8", "nir"),
    ("nir_2", None), ("SR_B2", None), ("20240711", None), ("20240711_", None), ("B3_1", None), ("10_20", None),
])
def test_what_a_band_sees_is_told_by_its_part_of_the_name(name, role):
    assert band_role(name) == role


def test_classes_without_a_training_pixel_are_told(scene, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def remarks(*words, folder):
        flags = "make-patches --images images --masks masks --divide-by 30000 --patch-size 8 --val b --patches-dir"
        chip.main([*flags.split(), folder, *words])
        return capsys.readouterr().err

    mask = np.zeros((8, 8), np.uint8)
    mask[:2] = 255
    for i, name in enumerate(("a_1", "b_1")):
        scene(name, ramp(8, 8), mask, transform=from_origin(500_000 + 1000 * i, 4_600_000, 10, 10))
    said = remarks(folder="p0")
    assert "no pixel of the training patches is fire; the masks hold 0 and 255 only" in said and "--label-map=255=1" in said
    assert "no pixel of the training patches is fire; " in remarks(folder="p0"), "a run that has nothing left to do says the same"
    assert "no pixel" not in remarks("--label-map=255=1", folder="p1")
    assert [line["class_pixels"]["mask"] for line in read_manifest("p1")] == [[48, 16]] * 2
    mask[:2] = 1  # of the validation scene alone
    scene("b_1", ramp(8, 8), mask, transform=from_origin(501_000, 4_600_000, 10, 10))
    said = remarks("--classes", "land,water,snow", folder="p2")
    assert "no pixel of the training patches is water or snow\n" in said and "255 only" not in said


# --- what is said where nothing could be cut, and what cannot be written ---


@pytest.mark.parametrize("image, mask, words, remedy, said", [
    (np.full((2, 16, 16), 7), None, ("--nodata", "7"), ("--nodata", "none"), "4 no valid pixel; .* pass --nodata none --overwrite$"),
    (np.arange(512).reshape(2, 16, 16) % 100, None, ("--nodata", "5", "--min-valid", "1"), ("--nodata", "5", "--min-valid", "0.1"),
     "4 too few valid pixels; pass a smaller --min-valid, with --overwrite$"),
])
def test_where_no_patch_could_be_cut_the_commonest_reason_has_a_remedy_that_works(scene, cut, image, mask, words, remedy, said):
    scene("DOVE_1", image.astype(np.uint16), mask)
    size = ("--patch-size", 8, "--stride", 8)
    with pytest.raises(UserError, match=said):
        cut(*size, *words)
    assert len(cut(*size, *remedy, "--overwrite")) == 4


def test_every_reason_to_leave_a_window_out_has_a_remedy():
    source = (ROOT / "chipping" / "cutting.py").read_text()
    reasons = set(re.findall(r'return skipped\("([^"]+)"', source))
    assert len(reasons) == 5 and reasons == set(REMEDIES)


def test_a_scene_whose_name_is_too_long_is_refused_before_any_work(scene, cut, tmp_path):
    scene("a" * 240, ramp(16, 16))
    with pytest.raises(UserError, match="would be a file name of .* bytes"):
        cut("--patch-size", 8)
    assert not (tmp_path / "patches").exists()


def test_very_many_windows_are_told_before_they_are_cut(scene, cut, monkeypatch, capsys):
    monkeypatch.setattr("chipping.commands.patch_summary.MANY_WINDOWS", 4)
    scene("DOVE_1", ramp(16, 16))
    chip.main(["make-patches", "--images", "images", "--masks", "masks", "--divide-by", "30000", "--patch-size", "8", "--stride", "8",
               "--patches-dir", "patches"])
    assert "note: 4 windows will be judged" in capsys.readouterr().err
