"""
One large case for each program: its answer against the whole image, its memory against a scene of a fraction of the height.

    pytest -m nightly tests/test_large_scenes.py
"""

import concurrent.futures
import contextlib
import importlib
import json
import multiprocessing
from pathlib import Path
from unittest import mock

import numpy as np
import pyogrio
import pyproj
import pytest
import rasterio
import shapely
import torch
from rasterio.features import rasterize
from test_any_size import expected_patches, pointwise, write_pointwise, write_raster

from pansharpening.classical import fuse_whole

pytestmark = pytest.mark.nightly

SLACK = 30  # MB by which the heap may grow in more rounds; what keeps all rows needs twice as much, but for the smallest arrays


def run_program(name, words, with_pointwise):
    with contextlib.ExitStack() as stack:
        # GDAL's own cache of decoded blocks has a limit that it would only reach in scenes of ten times the size.
        stack.enter_context(mock.patch.dict("raster.source.LOCAL_OPTIONS", GDAL_CACHEMAX=16 << 20))
        if with_pointwise:
            stack.enter_context(mock.patch("model.model_from_checkpoint", lambda *_: pointwise()))
        assert importlib.import_module(name).main([str(word) for word in words]) in (0, None)
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def peak_of(name, *words, with_pointwise=False):
    """MB that a program holds at most, in a process of its own."""
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(run_program, name, words, with_pointwise).result()


def noise(height, width, share, hidden=0.0, dtype="uint8"):
    """(2, height, width): the first band is above a half in a share of the pixels; 0 is nodata."""
    rng = np.random.default_rng(0)
    image = rng.integers(1, 120, (2, height, width)).astype(dtype)
    image[0][rng.random((height, width)) < share] = 200
    image[:, rng.random((height, width)) < hidden] = 0
    return image


def cut(folder, image, mask, size, stride):
    """Peak memory of make-patches, which cuts a scene, and a small one for training, into folder / "patches"."""
    for name, array in (("images", image), ("masks", mask[None])):
        (folder / name).mkdir(parents=True)
        write_raster(folder / name / "large.tif", array, block=256)
        write_raster(folder / name / "small.tif", array[:, :size, :size], west=700_000)
    return peak_of("chip", "make-patches", "--images", folder / "images", "--masks", folder / "masks", "--nodata", 0, "--divide-by", 255,
                   "--val", "large", "--patch-size", size, "--stride", stride, "--patches-dir", folder / "patches", "--quiet")


def test_a_large_scene_is_cut_into_patches(tmp_path):
    peaks = []
    for name, height in (("small", 3_001), ("large", 20_011)):
        image = noise(height, 1_003, 0.5, hidden=0.4, dtype="uint16")
        mask = np.random.default_rng(1).integers(0, 2, (height, 1_003)).astype(np.uint8)
        peaks.append(cut(tmp_path / name, image, mask, 96, 77))
    lines = [json.loads(line) for line in (tmp_path / "large" / "patches" / "manifest.jsonl").read_text().splitlines()]
    lines = [line for line in lines if line["scene"] == "large"]
    expected = expected_patches(image, mask, 96, 77)
    assert [tuple(line["window"][:2]) for line in lines] == list(expected)
    for line, (pixels, classes, _) in zip(lines, expected.values(), strict=True):
        assert np.array_equal(np.load(tmp_path / "large" / "patches" / line["file"]), pixels)
        assert np.array_equal(np.load(tmp_path / "large" / "patches" / line["mask"]), classes)
    assert peaks[1] < peaks[0] + SLACK, peaks


def test_a_large_pair_is_sharpened(tmp_path):
    peaks, rng = [], np.random.default_rng(1)
    for name, height in (("small", 5_003), ("large", 20_011)):
        ms, pan = (rng.integers(20, 4000, shape).astype(np.uint16) for shape in ((3, height, 151), (1, 4 * height, 4 * 151)))
        paths = (write_raster(tmp_path / f"{name}-ms.tif", ms, 10, 256, 0), write_raster(tmp_path / f"{name}-pan.tif", pan, 2.5, 256, 0))
        words = ["--ms", paths[0], "--pan", paths[1], "--output-dir", tmp_path / name, "--quiet"]
        peaks.append(peak_of("inference", "--method", "brovey", *words))
    (path,) = (tmp_path / "large").glob("*_sharpened.tif")
    with rasterio.open(path) as dataset:
        found = dataset.read()
    images = (torch.from_numpy(x.astype(np.float32))[None] for x in (ms, pan))
    expected = fuse_whole("brovey", *images, 4, back_projection=True)[0].numpy()
    assert np.abs(found - np.clip(expected, 1, 65535)).max() < 0.75  # rounding to units; 0 is nodata
    assert peaks[1] < peaks[0] + 2 * SLACK, peaks


def test_a_large_scene_is_scored(tmp_path):
    """In overlapping patches every pixel counts once."""
    peaks, checkpoint = [], write_pointwise(tmp_path / "best_model.pt")
    for name, height in (("small", 3_001), ("large", 20_011)):
        image = noise(height, 1_003, 0.3, hidden=0.2)
        mask = np.random.default_rng(1).integers(0, 2, (height, 1_003)).astype(np.uint8)
        cut(tmp_path / name, image, mask, 128, 101)
        peaks.append(peak_of("train", "--test-only", "--resume", checkpoint, "--patches-dir", tmp_path / name / "patches", "--test-split",
                             "val", "--output-dir", tmp_path / name, "--quiet", "--device", "cpu", with_pointwise=True))
    (result,) = json.loads((tmp_path / "large" / "scores_val.json").read_text())["results"]
    valid, fire = (image != 0).all(axis=0), image[0] == 200
    expected = [[int((valid & (mask == a) & (fire == b)).sum()) for b in (False, True)] for a in (0, 1)]
    assert result["matrix"] == result["matrix_at_threshold"] == expected and result["covered"] == 1
    assert peaks[1] < peaks[0] + SLACK, peaks


def painted(path, shape, transform):
    """The outlines of a file burned on the scene's grid; how many; and their hectares."""
    meta, _, geometry, columns = pyogrio.raw.read(path)
    polygons = shapely.from_wkb(geometry)
    assert shapely.is_valid(polygons).all()
    back = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:32633", always_xy=True)
    polygons = shapely.transform(polygons, back.transform, interleaved=False)
    hectares = columns[list(meta["fields"]).index("area_ha")]
    return rasterize(((p, 1) for p in polygons), shape, transform=transform), len(polygons), hectares.sum()


def test_a_large_scene_is_mapped(tmp_path):
    peaks, checkpoint = [], write_pointwise(tmp_path / "best_model.pt")
    for name, height in (("small", 2_003), ("large", 6_011)):
        image = noise(height, 1_503, 0.3, hidden=0.3)
        scene = write_raster(tmp_path / f"{name}.tif", image, block=256)
        words = ["--output-dir", tmp_path / "maps", "--probabilities", "--min-area", 0.02, "--quiet"]
        peaks.append(peak_of("inference", scene, "--checkpoint", checkpoint, *words, with_pointwise=True))
    with rasterio.open(tmp_path / "maps" / "large_classes.tif") as dataset:
        classes, transform = dataset.read(1), dataset.transform
    valid = (image != 0).all(axis=0)
    assert np.array_equal(classes, np.where(valid, image[0] == 200, 255))
    with rasterio.open(tmp_path / "maps" / "large_probability.tif") as dataset:
        assert np.array_equal(dataset.read(1) > 127, valid & (classes == 1) | ~valid)
    outlines, count, hectares = painted(tmp_path / "maps" / "large_burned.geojson", classes.shape, transform)
    record = json.loads((tmp_path / "maps" / "summary.json").read_text())["scenes"][0]
    assert record["scene"] == "large" and record["polygons"] == count
    assert record["burned_hectares"] == pytest.approx((classes == 1).sum() / 100)
    # 0.02 hectares are two pixels: what is left out are single ones.
    neighbours = np.pad(classes == 1, 1)
    alone = (classes == 1) & ~(neighbours[:-2, 1:-1] | neighbours[2:, 1:-1] | neighbours[1:-1, :-2] | neighbours[1:-1, 2:])
    assert np.array_equal(outlines == 1, (classes == 1) & ~alone)
    assert hectares == pytest.approx(outlines.sum() / 100, rel=1e-6)
    assert peaks[1] < peaks[0] + SLACK, peaks
