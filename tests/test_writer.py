"""Rasters written row by row become valid Cloud Optimized GeoTIFFs, or nothing: pytest tests/test_writer.py"""

import resource
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.crs import CRS
from rasterio.transform import Affine, from_origin

from raster.writer import write_cog
from runtime.errors import RunError

ROOT = Path(__file__).resolve().parent.parent
PLACE = {"crs": CRS.from_epsg(32633), "transform": from_origin(5e5, 5e6, 10, 10)}


def write(path, array, chunk=100, **options):
    array = array if array.ndim == 3 else array[None]
    with write_cog(path, height=array.shape[1], width=array.shape[2], count=array.shape[0], dtype=array.dtype.name, **options) as writer:
        for row in range(0, array.shape[1], chunk):
            writer.write(array[:, row : row + chunk])
    return path


def directories(path):
    """[(offset of the directory, width, first tile offset, last tile offset)] of a classic little-endian TIFF, as they are linked."""
    data = path.read_bytes()
    assert data[:4] == b"II*\0"
    found, offset = [], struct.unpack_from("<I", data, 4)[0]
    while offset:
        count = struct.unpack_from("<H", data, offset)[0]
        entries = {}
        for i in range(count):
            tag, kind, number, value = struct.unpack_from("<HHII", data, offset + 2 + 12 * i)
            entries[tag] = (kind, number, value & 0xFFFF if kind == 3 and number == 1 else value)
        _, number, value = entries[324]  # TileOffsets
        tiles = [value] if number == 1 else list(struct.unpack_from(f"<{number}I", data, value))
        present = [t for t in tiles if t]  # an offset of 0 stands for a tile of nothing but nodata
        found.append((offset, entries[256][2], min(present), max(present)))
        offset = struct.unpack_from("<I", data, offset + 2 + 12 * count)[0]
    return found


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 3, (height, width)).astype(np.uint8)


@pytest.mark.parametrize("chunk", [1, 77, 512, 5000])
def test_pixels_come_back_whatever_the_height_of_the_pieces(tmp_path, chunk):
    array = noise(700, 600)
    with rasterio.open(write(tmp_path / "a.tif", array, chunk, nodata=255, **PLACE)) as dataset:
        assert np.array_equal(dataset.read(1), array)
        assert dataset.crs == PLACE["crs"] and dataset.transform == PLACE["transform"] and dataset.nodata == 255


def test_the_file_is_a_cloud_optimized_geotiff(tmp_path):
    path = write(tmp_path / "a.tif", noise(1500, 1300), nodata=255, **PLACE)
    with rasterio.open(path) as dataset:
        assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert dataset.profile["tiled"] and dataset.block_shapes == [(512, 512)]
        assert dataset.overviews(1) == [2, 4]
    found = directories(path)
    assert [width for _, width, _, _ in found] == [1300, 650, 325]
    # Headers come first, from the full resolution to the smallest overview; then the pixels, smallest overview first.
    assert [offset for offset, *_ in found] == sorted(offset for offset, *_ in found)
    assert max(offset for offset, *_ in found) < min(first for _, _, first, _ in found)
    firsts = [(first, last) for _, _, first, last in found]
    assert firsts[2][1] < firsts[1][0] and firsts[1][1] < firsts[0][0]


@pytest.mark.parametrize("chunk", [1, 333])
def test_overviews_of_classes_are_every_second_pixel_and_every_fourth(tmp_path, chunk):
    array = np.stack([noise(1501, 1025), noise(1501, 1025, seed=1)])
    path = write(tmp_path / "a.tif", array, chunk, nodata=255, **PLACE)
    for level, step in enumerate((2, 4)):
        with rasterio.open(path, overview_level=level) as dataset:
            assert np.array_equal(dataset.read(), array[:, ::step, ::step])


def test_header_says_colours_names_scales_and_tags(tmp_path):
    path = write(
        tmp_path / "a.tif", noise(30, 30), nodata=255, descriptions=["class"], colours={0: (0, 0, 0), 1: (230, 74, 25)}, scales=[0.5],
        tags={"MODEL": "abc"}, band_tags=[{"CLASS_NAMES": "x"}], **PLACE,
    )
    with rasterio.open(path) as dataset:
        assert dataset.colormap(1)[1] == (230, 74, 25, 255)
        assert dataset.descriptions == ("class",) and dataset.scales == (0.5,)
        assert dataset.tags()["MODEL"] == "abc" and dataset.tags(1)["CLASS_NAMES"] == "x"


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_several_bands_of_any_type_come_back(tmp_path, dtype):
    array = np.random.default_rng(0).integers(0, 200, (3, 600, 520)).astype(dtype)
    with rasterio.open(write(tmp_path / "a.tif", array, overviews="values", **PLACE)) as dataset:
        assert np.array_equal(dataset.read(), array)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 2000), (2000, 1), (512, 512), (513, 511)])
def test_any_size_can_be_written(tmp_path, height, width):
    array = noise(height, width)
    with rasterio.open(write(tmp_path / "a.tif", array, nodata=255, **PLACE)) as dataset:
        assert np.array_equal(dataset.read(1), array)


def test_without_a_place_on_earth_the_pixels_are_written_all_the_same(tmp_path):
    for transform in (None, Affine.identity()):
        with rasterio.open(write(tmp_path / "a.tif", noise(20, 20), transform=transform)) as dataset:
            assert dataset.crs is None and dataset.transform.is_identity


def test_the_same_pixels_give_the_same_bytes(tmp_path):
    first, second = (write(tmp_path / f"{n}.tif", noise(900, 900), n, nodata=255, **PLACE).read_bytes() for n in (100, 333))
    assert first == second


def test_a_failure_leaves_nothing_behind(tmp_path):
    with pytest.raises(RuntimeError, match="half-way"):
        with write_cog(tmp_path / "a.tif", height=2000, width=100, **PLACE) as writer:
            writer.write(noise(600, 100))
            raise RuntimeError("half-way")
    assert list(tmp_path.iterdir()) == []


def test_too_few_or_too_many_rows_are_a_mistake(tmp_path):
    with pytest.raises(ValueError, match="50 rows"):
        write_to = write_cog(tmp_path / "a.tif", height=100, width=10, **PLACE)
        with write_to as writer:
            writer.write(noise(50, 10))
    with pytest.raises(ValueError, match="150 rows"):
        with write_cog(tmp_path / "a.tif", height=100, width=10, **PLACE) as writer:
            writer.write(noise(150, 10))
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_stays_until_the_new_one_is_whole(tmp_path):
    path = write(tmp_path / "a.tif", noise(20, 20), **PLACE)
    before = path.read_bytes()
    with pytest.raises(RuntimeError):
        with write_cog(path, height=20, width=20, **PLACE) as writer:
            writer.write(noise(10, 20, seed=1))
            raise RuntimeError
    assert path.read_bytes() == before


@pytest.mark.parametrize("limit", [20_000, 400_000, 700_000])
def test_a_full_disk_is_a_failure_and_no_file(tmp_path, limit):
    """A limit on the size of files stands for the disk: writing beyond it fails as it does where the disk is full."""
    array = np.random.default_rng(0).integers(0, 255, (1100, 900)).astype(np.uint8)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises((RunError, OSError)):
            write(tmp_path / "a.tif", array, **PLACE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_names_with_brackets_are_names(tmp_path):
    path = write(tmp_path / "a[1]* <b> & c.tif", noise(600, 20), **PLACE)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


KILLED = """
import sys
import numpy as np
from raster.writer import write_cog

with write_cog(sys.argv[1], height=4096, width=4096, overviews="values") as writer:
    writer.write(np.random.default_rng(0).integers(0, 255, (4096, 4096)).astype(np.uint8))
"""


@pytest.mark.parametrize("moment", ["rows.tif", "*.ovr.tmp"])
def test_what_a_killed_run_left_goes_when_the_next_one_writes_the_same_file(tmp_path, moment):
    """The second moment is inside the COG driver, which makes a file of its own for overviews."""
    process = subprocess.Popen([sys.executable, "-c", KILLED, tmp_path / "a.tif"], cwd=ROOT)
    while not list(tmp_path.rglob(moment)):
        assert process.poll() is None, f"{moment} was never there"
        time.sleep(0.001)
    process.kill()
    process.wait()
    assert not (tmp_path / "a.tif").exists() and list(tmp_path.rglob(moment))
    written = write(tmp_path / "a.tif", noise(20, 20), **PLACE)
    assert list(tmp_path.iterdir()) == [written]
