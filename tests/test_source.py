"""Opening and listing rasters: what is found, in which order, and what a wrong path is told."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.errors import RasterioError
from rasterio.windows import Window

from mapping.inputs import InputFlags, plan_input, plan_of_header
from raster.nodata import valid_pixels
from raster.source import describe, glob_expression, is_remote, list_rasters, open_raster, scene_name
from runtime.errors import UserError


def test_the_header_is_described_without_reading_pixels(make_raster):
    scale = {"scales": (1e-4, 1e-4), "offsets": (-0.1, -0.1)}
    path = make_raster("a.tif", np.zeros((2, 3, 5), "uint16"), nodata=0, descriptions=("red", "nir"), **scale)
    info = describe(path)
    assert (info.count, info.height, info.width) == (2, 3, 5)
    assert info.dtypes == ("uint16", "uint16") and info.nodata == 0 and info.descriptions == ("red", "nir")
    assert info.scales == (1e-4, 1e-4) and info.offsets == (-0.1, -0.1)
    assert info.size == path.stat().st_size and info.crs.to_epsg() == 32633


def test_rasters_are_listed_sorted_and_once(make_raster, tmp_path):
    for name in ("b.tif", "a.TIF", "deep/c.tif", ".b.part.tif"):
        make_raster(name, np.zeros((2, 2), "uint8"))
    (tmp_path / "notes.txt").touch()
    names = [scene_name(p) for p in list_rasters([tmp_path, tmp_path / "*.tif", tmp_path / "b.tif"])]
    assert names == ["a", "b"]
    assert [scene_name(p) for p in list_rasters(tmp_path / "**" / "*.tif")][-1] == "c"


@pytest.mark.parametrize("pattern", ["scenes [2024]/i/*.tif", "scenes [2024]/*/s*.tif", "scenes [2024]/**/*.tif", "scenes [[]2024]/i/s.tif",
                                     "scenes [2024]/i/s.tif", "scene[s] [[]2024]/i/*.tif"])
def test_brackets_in_the_name_of_a_folder_that_exists_are_no_pattern(make_raster, tmp_path, monkeypatch, pattern):
    path = make_raster("scenes [2024]/i/s.tif", np.zeros((2, 2), "uint8"))
    assert list_rasters(tmp_path / pattern) == [str(path)]
    monkeypatch.chdir(tmp_path)
    assert list_rasters(pattern) == ["scenes [2024]/i/s.tif"] and list_rasters(f"./{pattern}") == ["./scenes [2024]/i/s.tif"]


def test_a_bracket_pattern_of_folders_goes_on_to_match_several(make_raster, tmp_path):
    for name in ("a/x.tif", "b/x.tif", "c/x.tif", "[ab]/notes/x.tif"):
        make_raster(name, np.zeros((2, 2), "uint8"))
    assert [Path(p).parent.name for p in list_rasters(tmp_path / "[ab]" / "*.tif")] == ["a", "b"]


def test_the_advice_for_brackets_in_a_file_name_finds_the_file(make_raster, tmp_path):
    path = make_raster("s [1] x.tif", np.zeros((2, 2), "uint8"))
    with pytest.raises(UserError, match=r"matches no raster; .* write \[\[\] for \["):
        list_rasters(tmp_path / "s [1]*.tif")
    assert list_rasters(tmp_path / "s [[]1]*.tif") == [str(path)]


@pytest.mark.parametrize("pattern", ["none", "*.tif", "notes.txt/*.tif"])
def test_a_pattern_without_a_match_is_named(tmp_path, pattern):
    with pytest.raises(UserError, match="matches no raster"):
        list_rasters(tmp_path / pattern)


def test_what_cannot_be_opened_says_why(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"II*\0 not a raster")
    for path, words in [(tmp_path / "b.tif", "does not exist"), (tmp_path, "is a folder"), (tmp_path / "a.tif", "can't be opened")]:
        with pytest.raises(UserError, match=words), open_raster(path):
            pass


def test_a_repeated_window_comes_from_the_cache(make_raster):
    """GDAL_CACHEMAX=256 would be 256 bytes here: the second reading would decode again, and fail on a file that is gone."""
    path = make_raster("a.tif", np.full((256, 256), 7, "uint8"), tiled=True, blockxsize=256, blockysize=256, compress="deflate")
    with open_raster(path) as dataset:
        first = dataset.read(1)
        size = path.stat().st_size
        path.write_bytes(b"\0" * size)
        assert (dataset.read(1) == first).all()


@pytest.mark.parametrize("pattern, key, matches", [
    ("a/*.tif", "a/x.tif", True), ("a/*.tif", "a/b/x.tif", False), ("a/**/x.tif", "a/b/c/x.tif", True), ("a/**/x.tif", "a/x.tif", True),
    ("a/?.tif", "a/xy.tif", False), ("a/[xy].tif", "a/y.tif", True), ("a.tif", "aXtif", False),
])
def test_globs_over_buckets_read_like_those_of_a_shell(pattern, key, matches):
    import re

    assert bool(re.fullmatch(glob_expression(pattern), key)) == matches


def test_addresses_are_told_from_paths():
    assert is_remote("s3://b/k.tif") and is_remote("https://h/k.tif?sig=1") and not is_remote("/data/k.tif")
    assert scene_name("https://host/a/scene_1.tif?token=x") == "scene_1" and scene_name("/a/b.c.tif") == "b.c"


def test_a_raster_without_a_place_is_opened_without_a_remark(tmp_path, make_raster):
    """The programs say in words what it means; rasterio's warning would come twice a file."""
    path = make_raster("plain.tif", np.ones((4, 4), np.uint8), crs=None)
    code = f"from raster.source import describe; describe({str(path)!r})"
    answer = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent.parent, capture_output=True, text=True)
    assert answer.returncode == 0 and answer.stderr == ""


def test_bands_with_nodata_of_their_own_are_read_and_mapped_with_it(make_raster, tmp_path):
    from raster.stack import stack_bands

    stored = {"B02": np.array([[0, 5, 7]], np.uint16), "B11": np.array([[9, 0, 7]], np.uint16)}
    paths = [str(make_raster(f"T33_{band}.tif", values, nodata=0 if band == "B11" else None)) for band, values in stored.items()]
    for order in (["B02", "B11"], ["B11", "B02"]):
        stacks, _ = stack_bands(paths, order, tmp_path / "stacks")
        info = describe(stacks["T33"])
        assert dict(zip(order, info.nodatavals, strict=True)) == {"B02": None, "B11": 0}
        plan = plan_of_header(info, {"bands": order, "divide_by": [1, 1], "offset": [0, 0], "nodata": 7}, InputFlags(divide_by=(1, 1)))
        valid = valid_pixels(np.stack([stored[band] for band in order]), plan.nodata, plan.zero_is_nodata)
        assert valid.tolist() == [[True, False, True]]


@pytest.mark.parametrize(
    ("offset", "nodata", "stored", "expected"),
    [((-1000,), None, None, True), ((0,), None, None, False), ((-1000,), "none", None, False), ((-1000,), None, 7, False)],
)
def test_zero_fill_under_an_offset_is_nodata_for_a_map_as_it_is_for_patches(make_raster, offset, nodata, stored, expected):
    """The fill of Sentinel-2 would otherwise be mapped as a reflectance of -0.1."""
    values = np.full((2, 8, 8), 3000, np.uint16)
    values[:, :4] = 0
    info = describe(make_raster("a.tif", values, descriptions=("B4", "B8"), nodata=stored))
    plan = plan_input(info, {"bands": ["B4", "B8"], "divide_by": [1e4] * 2, "offset": [0, 0], "nodata": None},
                      flags=InputFlags(divide_by=(1e4, 1e4), offset=offset * 2, nodata=nodata))
    assert plan.zero_is_nodata is expected
    assert valid_pixels(values, plan.nodata, plan.zero_is_nodata)[:4].any() != expected


@pytest.mark.parametrize("driver", ["PNG", "JPEG", "GTiff"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.98])
def test_an_image_that_is_cut_off_is_an_error_also_where_it_is_read_as_a_whole(tmp_path, driver, share):
    """GDAL's shortcut for whole PNGs gave what was in memory before, and no error."""
    pixels = np.random.default_rng(0).integers(0, 255, (3, 80, 90), np.uint8)
    path = tmp_path / "image"
    with rasterio.open(path, "w", driver=driver, width=90, height=80, count=3, dtype="uint8") as file:
        file.write(pixels)
    with open(path, "r+b") as file:
        file.truncate(int(path.stat().st_size * share))
    for window in (None, Window(0, 0, 90, 80)):
        with pytest.raises((RasterioError, UserError)), open_raster(path) as dataset:
            dataset.read([1, 2, 3], window=window)
