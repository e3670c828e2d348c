"""Cutting, sharpening, scores and outlines of drawn sizes against answers that look at the whole image at once."""

import contextlib
import functools
import io
import json
import os
import tempfile
import types
from pathlib import Path
from unittest import mock

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from map_factory import killed_at_call
from rasterio.features import rasterize, shapes
from rasterio.transform import Affine, from_origin

import chip
import mapping.map_writer
import train
from chipping.chipset import ChipSetWriter
from chipping.patch_set import Patch
from mapping.inputs import plan_input
from mapping.journal import Journal
from mapping.map_files import MapFiles
from mapping.map_writer import Outlines
from mapping.polygons import AreaFinder
from mapping.scene import map_scene, window_grids
from mapping.scoring import ScoreRules, Stitcher, score_scene
from mapping.segmentation import Predictor
from mapping.settings import MapSettings, ModelFacts
from pansharpening.classical import METHODS, fuse_whole
from pansharpening.fuse import FuseSettings, StripOfBlocks, fuse
from pansharpening.sharpeners import classical_sharpener
from raster.pair import match_pair
from raster.source import describe
from runtime.checkpoint import save_checkpoint
from runtime.device import Compute

# No explanations of failures: they run an example hundreds of times.
MANY = settings(deadline=None, max_examples=12, derandomize=True, phases=[Phase.explicit, Phase.generate, Phase.shrink])


def pointwise():
    """Says fire where the first of two bands is above a half."""
    model = torch.nn.Conv2d(2, 2, 1)
    with torch.no_grad():
        model.weight[:] = torch.tensor([[-20.0, 0.0], [20.0, 0.0]]).view(2, 2, 1, 1)
        model.bias[:] = torch.tensor([10.0, -10.0])
    return model.eval()


def write_pointwise(path):
    """A checkpoint whose network stands for pointwise()."""
    data = {"bands": ["band_1", "band_2"], "divide_by": [255.0] * 2, "offset": [0.0] * 2, "nodata": 0, "classes": ["background", "fire"],
            "chip_size": 128, "ground_resolution": 10.0, "layer": "mask", "threshold": 0.5, "patches_dir": "nowhere"}
    save_checkpoint(path, {"kind": "segmentation", "model": {}, "settings": {}, "state": {"model": {}}, "data": data})
    return path


def write_raster(path, array, step=10.0, block=None, nodata=None, west=500_000):
    """(C, H, W) with square pixels of `step` metres, in strips, or in tiles of block pixels."""
    tiles = {"tiled": True, "blockxsize": block, "blockysize": block} if block else {}
    with rasterio.open(path, "w", driver="GTiff", count=len(array), height=array.shape[1], width=array.shape[2], dtype=array.dtype,
                       crs="EPSG:32633", transform=from_origin(west, 4_600_000, step, step), nodata=nodata, **tiles) as dataset:
        dataset.write(array)
    return path


def files_of(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# ---------------------------------------------------------------------------------------------------------------- cutting


def corners(length, size, stride):
    """Where windows begin: every stride, and the last one at the edge."""
    found = [0]
    while found[-1] + size < length:
        found.append(min(found[-1] + stride, length - size))
    return found


def expected_patches(image, mask, size, stride):
    """{(column, row): (image, mask, valid share)} of all windows that hold a valid pixel, from the whole image."""
    valid = (image != 0).all(0)
    labels = np.where(valid, mask, 255).astype(np.uint8)
    patches = {}
    for row in corners(image.shape[1], size, stride):
        for column in corners(image.shape[2], size, stride):
            part = np.s_[row : row + size, column : column + size]
            if valid[part].any():
                high, wide = valid[part].shape
                pixels, classes = np.zeros((len(image), size, size), image.dtype), np.full((1, size, size), 255, np.uint8)
                pixels[:, :high, :wide] = np.where(valid[part], image[(slice(None), *part)], 0)
                classes[0, :high, :wide] = labels[part]
                patches[column, row] = pixels, classes, valid[part].mean()
    return patches


def check_cutting(height, width, size, stride, block, hidden, dtype, seed, kill):
    rng = np.random.default_rng(seed)
    image = rng.integers(1, 250, (2, height, width)).astype(dtype)
    image[:, rng.random((height, width)) < hidden] = 0
    image[:, 0, 0] = 7  # a set without any patch is an error
    mask = rng.integers(0, 2, (1, height, width)).astype(np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for name, array in (("images", image), ("masks", mask)):
            (folder / name).mkdir()
            write_raster(folder / name / "s.tif", array, block=block)
        words = ["make-patches", "--images", folder / "images", "--masks", folder / "masks", "--nodata", 0, "--divide-by", 255,
                 "--patch-size", size, "--stride", stride, "--quiet"]
        chip.main([*map(str, words), "--patches-dir", str(folder / "whole")])
        lines = [json.loads(line) for line in (folder / "whole" / "manifest.jsonl").read_text().splitlines()]
        expected = expected_patches(image, mask[0], size, stride)
        assert [tuple(line["window"][:2]) for line in lines] == list(expected)
        for line, (pixels, classes, share) in zip(lines, expected.values(), strict=True):
            stored = np.load(folder / "whole" / line["file"])
            assert np.array_equal(stored, pixels) and np.array_equal(np.load(folder / "whole" / line["mask"]), classes)
            assert line["valid_fraction"] == round(share, 6) and line["valid_pixels"] == (classes != 255).sum()
            inside = classes[0] != 255
            assert line["band_sum"] == pixels[:, inside].astype(np.int64).sum(1).tolist()
        again = [*map(str, words), "--patches-dir", str(folder / "again")]
        with killed_at_call(1 + kill % len(lines), ChipSetWriter, "add"):
            chip.main(again)
        chip.main(again)
        assert files_of(folder / "again") == files_of(folder / "whole")


@MANY
@given(
    height=st.integers(1, 90), width=st.integers(1, 90), size=st.integers(8, 40), share=st.floats(0.2, 1),
    block=st.sampled_from([None, 16, 32]), hidden=st.sampled_from([0.0, 0.3, 0.99, 1.0]),
    dtype=st.sampled_from(["uint8", "uint16", "int16"]), seed=st.integers(0, 99), kill=st.integers(0, 999),
)
def test_patches_of_any_size_are_cut_out_of_the_whole_image(height, width, size, share, block, hidden, dtype, seed, kill):
    check_cutting(height, width, size, max(1, int(share * size)), block, hidden, dtype, seed, kill)


# ------------------------------------------------------------------------------------------------------------- sharpening


def check_sharpening(height, width, ratio, side, tile, hidden, method, dtype, seed, kill):
    """height, width: ms pixels. side: pan pixels of a block."""
    rng = np.random.default_rng(seed)
    top = 250 if dtype == "uint8" else 4000
    ms = rng.integers(20, top, (3, height, width)).astype(dtype)
    pan = rng.integers(20, top, (1, height * ratio, width * ratio)).astype(dtype)
    ms[:, rng.random((height, width)) < hidden] = 0
    pan[:, rng.random(pan.shape[1:]) < hidden] = 0
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        pair = match_pair(write_raster(folder / "a-pan.tif", pan, 10 / ratio, tile, 0), write_raster(folder / "a-ms.tif", ms, 10, tile, 0))
        sharpener = classical_sharpener(method, pair, (1.0, 0.0), side)
        kept = folder / "kept"
        kept.mkdir()

        def sharpen(name, block=side):
            fuse(pair, kept / name, sharpener, FuseSettings(scale=(1.0, 0.0), block=block), overwrite=False)
            with rasterio.open(kept / name) as dataset:
                return dataset.read()

        found = sharpen("whole.tif")
        nodata = (pan[0] == 0) | (ms == 0).all(0).repeat(ratio, 0).repeat(ratio, 1)
        assert found.shape == (3, *pan.shape[1:]) and np.array_equal(found == 0, np.broadcast_to(nodata, found.shape))
        if not hidden:
            expected = fuse_whole(method, *(torch.from_numpy(x.astype(np.float32))[None] for x in (ms, pan)), ratio)[0].numpy()
            whole = dtype != "float32"
            expected = np.clip(expected, 1, np.iinfo(dtype).max) if whole else expected  # 0 is nodata
            assert np.abs(found - expected).max() < (0.75 if whole else 0.05)  # rounding to units, and that of float32
        else:
            at_once = sharpen("at_once.tif", block=100_000)
            assert np.abs(found.astype(np.float64) - at_once).max() <= 1
            (kept / "at_once.tif").unlink()
        before = files_of(kept)
        (kept / "whole.tif").unlink()
        blocks = -(-height // -(-side // ratio)) * -(-width // -(-side // ratio))
        with killed_at_call(1 + kill % blocks, StripOfBlocks, "put"):
            sharpen("whole.tif")
        assert not (kept / "whole.tif").exists()
        sharpen("whole.tif")
        assert files_of(kept) == before


@MANY
@given(
    height=st.integers(1, 20), width=st.integers(1, 20), ratio=st.sampled_from([2, 4]), side=st.integers(12, 80),
    tile=st.sampled_from([None, 16]), hidden=st.sampled_from([0.0, 0.0, 0.2, 0.6]), method=st.sampled_from(sorted(METHODS)),
    dtype=st.sampled_from(["uint8", "uint16", "float32"]), seed=st.integers(0, 99), kill=st.integers(0, 999),
)
def test_a_pair_of_any_size_is_sharpened_as_the_whole_image_is(height, width, ratio, side, tile, hidden, method, dtype, seed, kill):
    check_sharpening(height, width, ratio, side, tile, hidden, method, dtype, seed, kill)


# ----------------------------------------------------------------------------------------------------------------- scores


def check_scores(height, width, size, stride, hidden, batch_size, seed):
    """Patches that overlap, with probabilities in steps of 1/64 whose sums are exact, against sums over the whole scene."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (height, width))
    labels[rng.random((height, width)) < hidden] = 255
    sums, seen = np.zeros((height, width)), np.zeros((height, width))
    patches, fires, targets = [], [], []
    for row in corners(height, size, stride):
        for column in corners(width, size, stride):
            part = np.s_[row : row + size, column : column + size]
            high, wide = labels[part].shape
            window = (column, row, wide, high)
            patches.append(Patch(Path("p.npy"), Path("m.npy"), "val", "SCENE", "EVENT", window, (width, height)))
            fires.append(rng.integers(0, 65, (size, size)) / 64)
            targets.append(np.full((size, size), 255))
            targets[-1][:high, :wide] = labels[part]
            sums[part] += fires[-1][:high, :wide]
            seen[part] += 1
    said, known = sums / seen >= 0.3333, labels != 255
    expected = [[int((known & (labels == a) & (said == b)).sum()) for b in (False, True)] for a in (0, 1)]
    fire, target = (torch.from_numpy(np.array(x)) for x in (fires, targets))

    def predict(batch):
        part = fire[batch.indices].float()
        return torch.stack([1 - part, part], 1), torch.zeros(len(part), 2, size, size), target[batch.indices].to(torch.uint8)

    def read(indices):
        return types.SimpleNamespace(indices=indices, problems=[])

    rules = ScoreRules(num_classes=2, threshold=0.3333, batch_size=batch_size)
    result = score_scene(predict, read, patches, rng.permutation(len(patches)).tolist(), rules)
    assert result["matrix_at_threshold"] == expected and result["covered"] == 1


@MANY
@given(height=st.integers(1, 80), width=st.integers(1, 40), size=st.integers(1, 24), share=st.floats(0.3, 1),
       hidden=st.sampled_from([0.0, 0.5, 1.0]), batch_size=st.integers(1, 9), seed=st.integers(0, 99))
def test_scores_of_a_scene_of_any_size_are_those_of_all_its_pixels(height, width, size, share, hidden, batch_size, seed):
    check_scores(height, width, size, max(1, int(share * size)), hidden, batch_size, seed)


@settings(MANY, max_examples=5)
@given(height=st.integers(1, 90), width=st.integers(1, 40), size=st.integers(8, 24), share=st.floats(0.3, 1),
       hidden=st.sampled_from([0.0, 0.5]), batch_size=st.integers(1, 9), seed=st.integers(0, 99), kill=st.integers(0, 999))
def test_scores_that_were_killed_at_any_row_are_those_of_an_undisturbed_run(height, width, size, share, hidden, batch_size, seed, kill):
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for name, west, shape in (("held", 500_000, (height, width)), ("train", 700_000, (size, size))):
            image = rng.integers(1, 255, (2, *shape)).astype(np.uint8)
            image[:, rng.random(shape) < hidden] = 0
            image[:, 0, 0] = 7
            for kind, array in (("images", image), ("masks", rng.integers(0, 2, (1, *shape)).astype(np.uint8))):
                (folder / kind).mkdir(exist_ok=True)
                write_raster(folder / kind / f"{name}.tif", array, west=west)
        chip.main([*map(str, ["make-patches", "--images", folder / "images", "--masks", folder / "masks", "--nodata", 0, "--divide-by", 255,
                              "--val", "held", "--patch-size", size, "--stride", max(1, int(share * size)),
                              "--patches-dir", folder / "patches", "--quiet"])])
        checkpoint = write_pointwise(folder / "best_model.pt")
        words = ["--test-only", "--resume", str(checkpoint), "--patches-dir", str(folder / "patches"), "--test-split", "val",
                 "--batch-size", str(batch_size), "--quiet", "--device", "cpu", "--output-dir"]
        with mock.patch("model.model_from_checkpoint", lambda *_: pointwise()), contextlib.redirect_stdout(io.StringIO()):
            train.main([*words, str(folder / "whole")])
            lines = (folder / "patches" / "manifest.jsonl").read_text().splitlines()
            patches = sum(json.loads(line)["split"] == "val" for line in lines)
            for owner, name, number in ((Stitcher, "add", 1 + kill % patches), (os, "replace", 1 + kill % 2)):
                with killed_at_call(number, owner, name):
                    train.main([*words, str(folder / "again")])
                assert set(files_of(folder / "again")) <= {"scores_val.csv"}  # whole, and the JSON comes last
            train.main([*words, str(folder / "again")])
        assert files_of(folder / "again") == files_of(folder / "whole")


# --------------------------------------------------------------------------------------------------------------- outlines


def check_outlines(height, width, strip, fire, hidden, longest, seed):
    """Painted again, outlines are the map; uncut ones are as many as GDAL finds in the whole map, with the same pixels."""
    rng = np.random.default_rng(seed)
    classes = np.where(rng.random((height, width)) < fire, rng.integers(1, 3, (height, width)), 0).astype(np.uint8)
    classes[rng.random((height, width)) < hidden] = 255
    values, square_metres = rng.integers(0, 255, (height, width)).astype(np.float32), np.linspace(90, 110, height)[:, None]
    finder, areas = AreaFinder(width, max_open_sides=longest), []
    for row in range(0, height, strip):
        part = slice(row, row + strip)
        areas += finder.add(classes[part], values[part], square_metres[part])
    areas += finder.finish()
    burned = (classes > 0) & (classes < 255)
    polygons = [({"type": "Polygon", "coordinates": [[*map(tuple, ring.tolist()), tuple(ring[0].tolist())] for ring in a.rings]}, a.value)
                for a in areas]
    painted = rasterize(polygons, (height, width), transform=Affine.identity(), dtype="uint8") if polygons else np.zeros_like(classes)
    assert np.array_equal(painted, np.where(burned, classes, 0))
    assert sum(a.pixels for a in areas) == burned.sum()
    assert np.isclose(sum(a.square_metres for a in areas), (burned * square_metres).sum())
    assert np.isclose(sum(a.mean * a.pixels for a in areas), values[burned].sum())
    if not any(a.cut for a in areas):
        assert len(areas) == sum(1 for _ in shapes(classes, mask=burned))
    return areas


@MANY
@given(height=st.integers(1, 70), width=st.integers(1, 50), strip=st.integers(1, 80), fire=st.sampled_from([0.05, 0.5, 0.7, 0.95]),
       hidden=st.sampled_from([0.0, 0.2, 0.95]), longest=st.sampled_from([20, 200, 10**6]), seed=st.integers(0, 99))
def test_outlines_of_a_map_of_any_size_make_up_the_whole_map(height, width, strip, fire, hidden, longest, seed):
    check_outlines(height, width, strip, fire, hidden, longest, seed)


@settings(MANY, max_examples=8)
@given(height=st.integers(1, 150), width=st.integers(1, 60), window=st.integers(8, 40), overlap=st.sampled_from([0.0, 0.25, 0.5]),
       block=st.sampled_from([None, 16]), fire=st.sampled_from([0.05, 0.5, 0.7, 0.95]), hidden=st.sampled_from([0.0, 0.2, 1.0]),
       longest=st.sampled_from([20, 200, 10**6]), vectors=st.sampled_from(["geojson", "gpkg"]), seed=st.integers(0, 99),
       kill=st.integers(0, 999))
def test_a_map_and_outlines_that_were_killed_at_any_row_are_those_of_an_undisturbed_run(
    height, width, window, overlap, block, fire, hidden, longest, vectors, seed, kill
):
    rng = np.random.default_rng(seed)
    image = np.where(rng.random((2, height, width)) < fire, 200, 50).astype(np.uint8)
    image[:, rng.random((height, width)) < hidden] = 0
    data = {"bands": ["band_1", "band_2"], "divide_by": [255.0] * 2, "offset": [0.0] * 2, "nodata": 0, "classes": ["background", "fire"]}
    facts = ModelFacts(bands=tuple(data["bands"]), classes=tuple(data["classes"]), weights="pointwise")
    chosen = MapSettings(window=window, overlap=overlap, min_area=0.0, probabilities="uint8", vectors=vectors)
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(
        mapping.map_writer, "AreaFinder", functools.partial(AreaFinder, max_open_sides=longest)
    ):
        folder = Path(folder)
        plan = plan_input(describe(write_raster(folder / "scene.tif", image, block=block)), data, mean=[0.5, 0.5])
        predictor = Predictor(pointwise(), 2, plan.scale, Compute(device=torch.device("cpu")))

        def make_map(name):
            return map_scene(predictor, plan, MapFiles(folder / name, "scene"), facts, chosen)

        (folder / "whole").mkdir()
        (folder / "again").mkdir()
        record = make_map("whole")
        with rasterio.open(folder / "whole" / "scene_classes.tif") as dataset:
            classes = dataset.read(1)
        valid = (image != 0).all(axis=0)
        assert np.array_equal(classes, np.where(valid, image[0] == 200, 255))
        polygons = shapely.from_wkb(pyogrio.raw.read(folder / "whole" / f"scene_burned.{vectors}")[2])
        assert record["polygons"] == len(polygons) and shapely.is_valid(polygons).all()
        if vectors == "gpkg" and len(polygons):
            burned = rasterize(((p, 1) for p in polygons), classes.shape, transform=plan.info.transform)
            assert np.array_equal(burned == 1, classes == 1)
        bands = len(window_grids(plan.info, chosen)[0].rows)
        for owner, name in ((Journal, "append"), (Outlines, "add"), (Outlines, "add_piece")):
            with killed_at_call(1 + kill % bands, owner, name):
                make_map("again")
            assert not (folder / "again" / "scene_classes.tif").exists() and not list((folder / "again").glob("scene_burned.*"))
        make_map("again")
        assert files_of(folder / "again") == files_of(folder / "whole")


@pytest.mark.nightly
def test_a_large_map_that_percolates_has_the_outlines_of_a_small_one():
    areas = check_outlines(height=12_007, width=1_500, strip=349, fire=0.95, hidden=0.0, longest=400_000, seed=1)
    assert any(a.cut for a in areas)
