"""make-chips: windows, values, order, interruption. Chips are compared as bytes wherever they ought to be the same."""

import contextlib
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
import torch
from rasterio.enums import ColorInterp
from rasterio.transform import from_origin

from benchmarks.fake_ard import make_fake_ard, write_tile
from chipping import chip_pool, chip_window, chip_worker, make_chips, pan_chips, positions, window_walk
from chipping.chipset import ChipSetWriter, RunOptions, read_lines
from chipping.plain_pairs import pair_tiles, scale_of_pairs
from constants import WORLDVIEW_BANDS
from raster import ard
from raster.pair_files import match_paths, scale_of_pair
from raster.resampling import MS_GAIN, PAN_GAIN, reduce_mtf
from runtime.errors import RunError, UserError

ROOT = Path(__file__).resolve().parent.parent
RECIPE = chip_window.ChipRecipe(chip_size=16, ratio=4, bands=WORLDVIEW_BANDS)  # windows of 32 ms pixels


@pytest.fixture(scope="module", autouse=True)
def fresh_worker_server():
    """Workers are copied from a process that imported what the first test with workers needed: for chips torch, seconds for each worker."""
    from multiprocessing import forkserver

    forkserver._forkserver._stop()


@pytest.fixture(scope="module")
def delivery(tmp_path_factory):
    folder = tmp_path_factory.mktemp("delivery") / "ard"
    make_fake_ard(folder, tiles=3, ms_side=60, null_share=0.5, blocksize=64)
    return folder


def tiles_of(folder, smallest=32):
    return ard.open_tiles(ard.read_items(folder)[0], None, smallest)[0]


def run(folder, delivery, count, recipe=RECIPE, starting_from=None, chip=lambda _: None, **options):
    listeners = make_chips.Listeners(chip=chip)
    return make_chips.make_chips(tiles_of(delivery), recipe, folder, count, starting_from, RunOptions(**options), listeners)


def bytes_of(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.glob("*.pt"))}


def manifest(folder):
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def pixels(path, window=None):
    with rasterio.open(path) as file:
        return file.read().astype(np.float64)


def one_tile(tmp_path, pan, ms, name="ard"):
    folder = tmp_path / name
    make_fake_ard(folder, tiles=1, ms_side=ms.shape[-1], null_share=0, blocksize=64)
    path = next(folder.glob("37/*/*/*.json"))
    write_tile(path.parent, path.stem, pan, ms, (400_000, 6_000_000), 64)
    return folder


def valid_pair(side=32):
    rng = np.random.default_rng(0)
    return rng.integers(1, 9999, (1, 4 * side, 4 * side)).astype(np.uint16), rng.integers(1, 9999, (8, side, side)).astype(np.uint16)


# ------------------------------------------------------------------------------------------------ places


def test_the_older_placement_is_reproduced():
    free = 2418 - 1024
    places = [positions.place("r2-plain", "any", k, free, free, 1024) for k in range(6)]
    assert places == [(0, 0), (1052, 794), (710, 194), (368, 989), (27, 389), (1079, 1183)]


def test_tiles_have_a_phase_of_their_own_and_every_place_can_be_reached():
    assert positions.place("r2", "a", 0, 1000, 1000, 1) != positions.place("r2", "b", 0, 1000, 1000, 1)
    xs = {positions.place("r2", "a", k, 3, 3, 1)[0] for k in range(40)}
    assert xs == {0, 1, 2, 3}


def test_a_window_as_large_as_the_tile_has_one_place():
    for sampler in ("r2", "r2-plain", "grid"):
        assert positions.place(sampler, "a", 0, 0, 0, 1024) == (0, 0)


def test_a_grid_ends():
    assert [positions.place("grid", "a", k, 25, 10, 10) for k in range(8)] == [
        (0, 0), (10, 0), (20, 0), (0, 10), (10, 10), (20, 10), None, None]


# ------------------------------------------------------------------------------------------------ values


def test_a_chip_holds_exact_box_means_of_its_window(delivery, tmp_path):
    run(tmp_path / "chips", delivery, 3, replace(RECIPE, dtype="float32", store="both"))
    for line in manifest(tmp_path / "chips"):
        chip = torch.load(tmp_path / "chips" / line["file"], weights_only=True)
        x, y = line["left"], line["top"]
        pan = pixels(line["source"]["pan"])[:, 4 * y : 4 * y + 128, 4 * x : 4 * x + 128] / 10_000
        ms = pixels(line["source"]["path"])[:, y : y + 32, x : x + 32] / 10_000
        means = {
            "pan": pan.reshape(1, 16, 8, 16, 8).mean((2, 4)),
            "bands": ms.reshape(8, 16, 2, 16, 2).mean((2, 4)),
            "mul": ms.reshape(8, 4, 8, 4, 8).mean((2, 4)),
        }
        for key, expected in means.items():
            assert chip[key].dtype == torch.float32 and np.abs(chip[key].numpy() - expected).max() < 1e-6, key
        assert chip["oklab"].shape == (3, 16, 16)


def test_integer_chips_are_half_a_step_from_float_ones_and_half_as_large(delivery, tmp_path):
    for dtype in ("float32", "uint16"):
        run(tmp_path / dtype, delivery, 2, replace(RECIPE, dtype=dtype, store="both", chip_size=24))
    small, large = (pan_chips.read_chip(tmp_path / d / "0.pt") for d in ("uint16", "float32"))
    assert small["pan"].dtype == torch.uint16 and small["oklab"].dtype == torch.int16
    for target, step in (("bands", 5e-5), ("oklab", 3.1e-5)):
        for a, b in zip(pan_chips.decode_chip(small, target)[:3], pan_chips.decode_chip(large, target)[:3], strict=True):
            assert (a - b).abs().max() <= max(step, 5e-5) + 1e-7
    tensors = [v for v in small.values() if isinstance(v, torch.Tensor)]
    assert all(t.is_contiguous() and t.untyped_storage().nbytes() == t.nbytes for t in tensors)  # no view drags its storage along


def test_oklab_from_bands_is_the_one_that_would_have_been_stored(delivery, tmp_path):
    for store in ("bands", "both"):
        run(tmp_path / store, delivery, 1, replace(RECIPE, store=store, dtype="float32"))
    derived, stored = (pan_chips.decode_chip(pan_chips.read_chip(tmp_path / s / "0.pt"), "oklab")[2] for s in ("bands", "both"))
    assert (derived - stored).abs().max() < 1e-6


def test_pixels_near_nulls_are_marked_and_others_are_not(tmp_path):
    pan, ms = valid_pair()
    pan[0, 0, 0] = 0
    ms[3, 31, 31] = 0
    run(tmp_path / "chips", one_tile(tmp_path, pan, ms), 1)
    valid = pan_chips.read_chip(tmp_path / "chips" / "0.pt")["valid"][0]
    # a null of pan spoils one pixel of pan; one of ms a pixel of mul, and with it the 4 x 4 pixels of the truth that lie under it
    assert not valid[0, 0] and not valid[12:, 12:].any() and int((~valid).sum()) == 1 + 16


def plain_tiles(make_raster, tmp_path, pan, ms, name="a", **options):
    make_raster(f"{name}-pan.tif", pan, crs=None, **options), make_raster(f"{name}-ms.tif", ms, crs=None, **options)
    return pair_tiles([tmp_path / f"{name}-pan.tif"], [tmp_path / f"{name}-ms.tif"])[0]


def blurred_recipe(tiles, size=32, extra=1, **changes):
    changes = {"minimum_valid": 0.5, "sampler": "grid", **changes}
    return chip_window.ChipRecipe(size, 4, tiles[0].pair.bands, extra=extra, reduction="mtf", **changes)


@pytest.mark.parametrize("extra", [1, 2])
@pytest.mark.parametrize(("dtype", "nodata"), [("uint16", None), ("uint16", 0), ("int16", -9999), ("float32", np.nan), ("float64", -1e30)])
def test_even_ground_stays_even_beside_nulls_however_inputs_are_blurred(make_raster, tmp_path, extra, dtype, nodata):
    null = 0 if nodata is None else nodata
    pan, ms = np.full((1, 256 * extra, 256 * extra), 1000, dtype), np.full((4, 64 * extra, 64 * extra), 1000, dtype)
    pan[:, 100:150, 30:75] = null
    ms[:, 20 * extra : 31 * extra, 34 * extra : 47 * extra] = null
    ms[:, 50:, :9] = null
    tiles = plain_tiles(make_raster, tmp_path, pan, ms, nodata=nodata)
    make_chips.make_chips(tiles, blurred_recipe(tiles, extra=extra), tmp_path / "chips", 4)
    seen = 0
    for number in range(4):
        chip = pan_chips.read_chip(tmp_path / "chips" / f"{number}.pt")
        valid = chip["valid"][0].numpy() if "valid" in chip else np.ones((32, 32), bool)
        small = valid.reshape(8, 4, 8, 4).any((1, 3))
        assert set(chip["pan"].numpy()[:, valid].ravel()) == set(chip["mul"].numpy()[:, small].ravel()) == {1000}
        assert set(chip["bands"].numpy()[:, valid].ravel()) == {1000}
        seen += not valid.all()
    assert seen >= 3


@pytest.mark.parametrize("reduction", ["box", "mtf"])
def test_all_truth_under_a_pixel_of_mul_with_a_null_is_marked_and_no_other(make_raster, tmp_path, reduction):
    pan, ms = np.full((1, 256, 256), 500, np.uint16), np.full((4, 64, 64), 500, np.uint16)
    ms[:, 21, 10] = 0
    tiles = plain_tiles(make_raster, tmp_path, pan, ms)
    make_chips.make_chips(tiles, replace(blurred_recipe(tiles, 64), reduction=reduction), tmp_path / "chips", 1)
    valid = pan_chips.read_chip(tmp_path / "chips" / "0.pt")["valid"][0]
    assert not valid[20:24, 8:12].any() and int((~valid).sum()) == 16


def test_nulls_change_no_bit_of_what_lies_beyond_the_filters_reach(make_raster, tmp_path):
    rng = np.random.default_rng(0)
    pan, ms = rng.integers(1, 9999, (1, 512, 512)).astype(np.uint16), rng.integers(1, 9999, (4, 128, 128)).astype(np.uint16)
    chips = []
    for name in ("whole", "holed"):
        tiles = plain_tiles(make_raster, tmp_path, pan, ms, name)
        make_chips.make_chips(tiles, blurred_recipe(tiles, 128, dtype="float32"), tmp_path / name, 1)
        chips.append(pan_chips.read_chip(tmp_path / name / "0.pt"))
        pan[:, :40, :40], ms[:, :10, :10] = 0, 0
    whole, holed = chips
    assert "valid" not in whole and not torch.equal(whole["mul"], holed["mul"])
    # filters reach 3 coarse pixels: 10 null ms pixels and 12 more, 40 null pan pixels and 12 more
    assert torch.equal(whole["mul"][:, 6:], holed["mul"][:, 6:]) and torch.equal(whole["pan"][:, 13:], holed["pan"][:, 13:])
    assert torch.equal(whole["bands"][:, holed["valid"][0]], holed["bands"][:, holed["valid"][0]])


@pytest.mark.slow
def test_blurred_chips_with_nulls_are_the_same_bytes_for_two_workers(make_raster, tmp_path):
    rng = np.random.default_rng(0)
    pan, ms = rng.integers(1, 9999, (1, 512, 512)).astype(np.uint16), rng.integers(1, 9999, (4, 128, 128)).astype(np.uint16)
    pan[:, 200:260, 100:400], ms[:, 40:80, 90:110] = 0, 0
    tiles = plain_tiles(make_raster, tmp_path, pan, ms)
    for workers in (1, 2):
        make_chips.make_chips(tiles, blurred_recipe(tiles, 16, sampler="r2"), tmp_path / str(workers), 20, options=RunOptions(workers))
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


def test_a_parent_of_workers_does_without_torch():
    code = "import sys, chipping.make_chips, chipping.plain_pairs; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.parametrize("reduction", ["box", "mtf"])
@pytest.mark.parametrize("kind", ["mask", "msk", "alpha"])
def test_what_a_mask_or_an_alpha_band_hides_is_null_and_no_band(make_raster, tmp_path, reduction, kind):
    rng = np.random.default_rng(0)
    pan, ms = rng.integers(1, 9999, (1, 256, 256)).astype(np.uint16), rng.integers(1, 9999, (4, 64, 64)).astype(np.uint16)
    shown = [np.full((256, 256), 255, np.uint16), np.full((64, 64), 255, np.uint16)]
    shown[0][128:136, 200:208] = 0
    shown[1][8:11, 20:22] = 0
    for name, values, here in (("a-pan.tif", pan, shown[0]), ("a-ms.tif", ms, shown[1])):
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=kind == "mask"):
            path = make_raster(name, np.concatenate([values, here[None]]) if kind == "alpha" else values, crs=None)
            with rasterio.open(path, "r+") as file:
                if kind == "alpha":
                    file.colorinterp = [*[ColorInterp.gray] * len(values), ColorInterp.alpha]
                else:
                    file.write_mask(here.astype(np.uint8))
    assert (tmp_path / "a-ms.tif.msk").exists() == (kind == "msk")
    tiles, _ = pair_tiles([tmp_path / "a-pan.tif"], [tmp_path / "a-ms.tif"])
    assert tiles[0].pair.bands == ("blue", "green", "red", "nir") and scale_of_pair(tiles[0].pair, "10000") == (10_000, 0)
    make_chips.make_chips(tiles, replace(blurred_recipe(tiles, 64), reduction=reduction), tmp_path / "chips", 1)
    line, chip = manifest(tmp_path / "chips")[0], pan_chips.read_chip(tmp_path / "chips" / "0.pt")
    assert (line["valid_pan"], line["valid_ms"]) == (round(1 - 64 / 256**2, 6), round(1 - 6 / 64**2, 6))
    expected = np.ones((64, 64), bool)
    expected[32:34, 50:52] = False
    expected[8:12, 20:24] = False
    assert (chip["valid"][0].numpy() == expected).all() and (chip["bands"].numpy()[:, expected] == ms[:, expected]).all()


@pytest.mark.parametrize("piece", [1, 200, 1 << 20])
def test_how_much_is_added_up_at_a_time_changes_no_byte(delivery, tmp_path, twelve, monkeypatch, piece):
    monkeypatch.setattr(chip_window, "PIECE", piece)
    run(tmp_path / "chips", delivery, 12)
    assert contents(tmp_path / "chips") == contents(twelve)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"])
def test_sums_of_cells_are_exact_in_every_type_a_raster_can_have(dtype):
    rng = np.random.default_rng(0)
    limits = np.iinfo(dtype) if dtype[0] in "iu" else np.iinfo("int16")
    values = rng.integers(limits.min, limits.max, (3, 12, 20), endpoint=True).astype(dtype)
    for side in (1, 2, 4):
        expected = values.astype(object).reshape(3, 12 // side, side, 20 // side, side).sum((2, 4))
        assert (chip_window.box_sum(values, side).astype(object) == expected).all()
    assert chip_window.box_sum(values[:, :11, :19], 4).shape == (3, 2, 4)  # what fills no cell is left out


def test_nulls_in_pan_are_counted_where_they_are(tmp_path):
    pan, ms = valid_pair()
    pan[0, :40, :9] = 0
    run(tmp_path / "chips", one_tile(tmp_path, pan, ms), 1)
    assert 0.9 < manifest(tmp_path / "chips")[0]["valid_pan"] == pytest.approx(1 - 360 / 128**2, abs=1e-6)
    valid = pan_chips.read_chip(tmp_path / "chips" / "0.pt")["valid"][0]
    assert not valid[:5, :2].any() and valid.sum() == 16 * 16 - 10


def test_decoded_blocks_take_a_bounded_share_of_memory_while_a_tile_is_open_and_no_longer(delivery):
    with rasterio.Env(GDAL_CACHEMAX=64 << 20):
        chip_worker.reader_for(tiles_of(delivery)[0].pair)
        assert rasterio.env.get_gdal_config("GDAL_CACHEMAX") == chip_worker.CACHE_BYTES < 200 << 20
        chip_worker.close_readers()
        assert rasterio.env.get_gdal_config("GDAL_CACHEMAX") == 64 << 20


def test_blurred_inputs_of_a_window_inside_are_those_of_the_whole_image(make_raster, tmp_path):
    rng = np.random.default_rng(0)
    pan, ms = rng.random((1, 256, 256)).astype(np.float32), rng.random((4, 64, 64)).astype(np.float32)
    make_raster("p-pan.tif", pan + 0.1, crs=None), make_raster("p-ms.tif", ms + 0.1, crs=None)
    tiles, _ = pair_tiles([tmp_path / "p-pan.tif"], [tmp_path / "p-ms.tif"])
    recipe = chip_window.ChipRecipe(16, 4, tiles[0].pair.bands, extra=1, reduction="mtf", dtype="float32", divide_by=1.0, sampler="grid")
    make_chips.make_chips(tiles, recipe, tmp_path / "chips", 16)
    whole_pan = reduce_mtf(torch.from_numpy(pan + 0.1)[None], 4, PAN_GAIN)[0]
    whole_mul = reduce_mtf(torch.from_numpy(ms + 0.1)[None], 4, MS_GAIN)[0]
    for number in (0, 5, 15):
        x, y = number % 4 * 16, number // 4 * 16
        chip = pan_chips.read_chip(tmp_path / "chips" / f"{number}.pt")
        assert (chip["pan"] - whole_pan[:, y : y + 16, x : x + 16]).abs().max() < 1e-5
        assert (chip["mul"] - whole_mul[:, y // 4 : y // 4 + 4, x // 4 : x // 4 + 4]).abs().max() < 1e-5
        assert torch.equal(chip["bands"], torch.from_numpy(ms + 0.1)[:, y : y + 16, x : x + 16])


def test_filters_do_not_look_beyond_the_area_that_was_asked_for(make_raster, tmp_path):
    rng = np.random.default_rng(0)
    pan, ms = rng.random((1, 256, 256)).astype(np.float32) + 0.1, rng.random((4, 64, 64)).astype(np.float32) + 0.1
    chips = []
    for name, below in (("a", 0.0), ("b", 5.0)):
        ms[:, 32:] += below
        pan[:, 128:] += below
        make_raster(f"{name}-pan.tif", pan, crs=None), make_raster(f"{name}-ms.tif", ms, crs=None)
        tiles, _ = pair_tiles([tmp_path / f"{name}-pan.tif"], [tmp_path / f"{name}-ms.tif"], area=(0, 0, 64, 32))
        recipe = chip_window.ChipRecipe(32, 4, tiles[0].pair.bands, extra=1, reduction="mtf", divide_by=1.0, sampler="grid")
        make_chips.make_chips(tiles, recipe, tmp_path / name, 2)
        chips.append([pan_chips.read_chip(tmp_path / name / f"{i}.pt") for i in range(2)])
    for one, other in zip(*chips, strict=True):
        assert torch.equal(one["pan"], other["pan"]) and torch.equal(one["mul"], other["mul"])


# ------------------------------------------------------------------------------------------------ nulls


def test_windows_with_too_many_nulls_are_passed_over_and_listed(delivery, tmp_path):
    summary = run(tmp_path / "chips", delivery, 8)
    lines, skipped = manifest(tmp_path / "chips"), read_lines(tmp_path / "chips" / "skipped.jsonl")
    assert summary["made"] == 8 and len(skipped) == summary["skipped"]["nulls"] > 0
    assert all(line["tile"].startswith("37/211111023302") and line["valid_ms"] < 0.75 and line["valid_pan"] is None for line in skipped)
    assert [line["file"] for line in lines] == [f"{n}.pt" for n in range(8)]
    assert sorted(line["i"] for line in [*lines, *skipped]) == list(range(len(lines) + len(skipped)))
    assert all(set(line) >= {"cid", "tile", "left", "top", "valid_pan", "valid_ms", "lat", "lon", "window", "footprint"} for line in lines)


@pytest.mark.parametrize(("minimum", "made"), [(0.0, 12), (1.0, 12)])
def test_minimum_valid_is_used_and_its_ends_are_values_too(delivery, tmp_path, minimum, made):
    summary = run(tmp_path / "chips", delivery, made, replace(RECIPE, minimum_valid=minimum))
    assert summary["made"] == made and (sum(summary["skipped"].values()) == 0) == (minimum == 0)
    if minimum == 1:
        assert all(line["valid_fraction"] == 1 for line in manifest(tmp_path / "chips"))


def test_nulls_in_pan_count_as_well(tmp_path):
    pan, ms = valid_pair()
    pan[:, :50] = 0  # of 128 rows
    with pytest.raises(RunError, match="made 0 of 1"):
        run(tmp_path / "chips", one_tile(tmp_path, pan, ms), 1)
    skipped = read_lines(tmp_path / "chips" / "skipped.jsonl")
    assert skipped[0]["valid_ms"] == 1 and skipped[0]["valid_pan"] == pytest.approx(78 / 128, abs=1e-5)


def test_an_all_null_delivery_stops_after_32_tries_a_tile(tmp_path):
    make_fake_ard(tmp_path / "ard", tiles=2, ms_side=40, null_share=0, blocksize=64)
    for path in (tmp_path / "ard").glob("37/*/*/*.tif"):
        with rasterio.open(path, "r+") as file:
            file.write(np.zeros_like(file.read()))
    with pytest.raises(RunError, match="made 0 of 100 chips.*64 x nulls"):
        run(tmp_path / "chips", tmp_path / "ard", 100)
    assert len(read_lines(tmp_path / "chips" / "skipped.jsonl")) == 64


def test_ms_as_large_as_one_window_makes_one_chip(tmp_path):
    folder = one_tile(tmp_path, *valid_pair(32))
    with pytest.raises(RunError, match="made 1 of 2 chips.*every place"):
        run(tmp_path / "chips", folder, 2)
    assert [(x["left"], x["top"]) for x in manifest(tmp_path / "chips")] == [(0, 0)]
    assert run(tmp_path / "chips", folder, 1)["made"] == 0


@pytest.mark.parametrize("sampler, workers", [("r2", 1), ("r2-plain", 1), ("grid", 1), ("r2", 2)])
def test_no_place_is_used_twice_and_all_are_before_a_tile_ends(tmp_path, sampler, workers):
    folder, places = one_tile(tmp_path, *valid_pair(35)), {"r2": 4 * 4, "r2-plain": 3 * 3, "grid": 1}[sampler]
    recipe = replace(RECIPE, sampler=sampler)
    run(tmp_path / "chips", folder, min(5, places), recipe, workers=workers)
    with pytest.raises(RunError, match=f"made {places} of 40 chips"):
        run(tmp_path / "chips", folder, 40, recipe, starting_from=0)
    found = [(x["left"], x["top"]) for x in manifest(tmp_path / "chips")]
    assert len(found) == len(set(found)) == places


def test_a_truncated_file_is_a_read_error_and_its_tile_retires_after_three(delivery, tmp_path):
    broken = shutil.copytree(delivery, tmp_path / "ard")
    path = sorted(broken.glob("37/*/*/*-pan.tif"))[0]
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    try:
        tiles = tiles_of(broken)
        assert len(tiles) == 3
    except AssertionError:
        pytest.skip("this GDAL does not open the truncated file at all")
    run(tmp_path / "chips", broken, 12, replace(RECIPE, chip_size=28))
    errors = [line for line in read_lines(tmp_path / "chips" / "skipped.jsonl") if line["reason"] == "read-error"]
    assert len(errors) == 3 and {e["tile"] for e in errors} == {tiles[0].name} and all(str(path) in e["detail"] for e in errors)
    with pytest.raises(RunError, match=f"{tiles[0].name} cannot be read: {path}.*--strict"):
        run(tmp_path / "strict", broken, 12, replace(RECIPE, chip_size=28), strict=True)


# ------------------------------------------------------------------------------------------------ order, interruption


@pytest.fixture(scope="module")
def twelve(delivery, tmp_path_factory):
    folder = tmp_path_factory.mktemp("twelve") / "chips"
    run(folder, delivery, 12)
    return folder


def contents(folder):
    """Everything that a set says and holds: chips, manifest, list of what was left out."""
    return {name: (folder / name).read_bytes() for name in ("manifest.jsonl", "skipped.jsonl")} | bytes_of(folder)


def test_six_and_then_six_more_are_twelve(delivery, tmp_path, twelve):
    run(tmp_path / "chips", delivery, 6)
    run(tmp_path / "chips", delivery, 6, starting_from=6)
    assert contents(tmp_path / "chips") == contents(twelve)


def test_the_last_six_alone_are_those_of_the_long_run(delivery, tmp_path, twelve):
    run(tmp_path / "chips", delivery, 6, starting_from=6)
    expected = bytes_of(twelve)
    assert bytes_of(tmp_path / "chips") == {f"{n}.pt": expected[f"{n}.pt"] for n in range(6, 12)}
    run(tmp_path / "chips", delivery, 2, starting_from=12)  # and they can be continued
    run(tmp_path / "whole", delivery, 14)
    assert bytes_of(tmp_path / "chips")["13.pt"] == bytes_of(tmp_path / "whole")["13.pt"]


def test_more_of_the_same_command_continues_and_less_changes_nothing(delivery, tmp_path, twelve):
    run(tmp_path / "chips", delivery, 5)
    run(tmp_path / "chips", delivery, 12)
    assert contents(tmp_path / "chips") == contents(twelve)
    assert run(tmp_path / "chips", delivery, 7)["made"] == 0


def test_a_later_start_that_came_to_nothing_leaves_no_hole(delivery, tmp_path, twelve):
    def killed(*_):
        raise KeyboardInterrupt

    for start in (8, None):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "chips", delivery, 4, starting_from=8, chip=killed)
        (tmp_path / "chips" / "manifest.jsonl").write_text("")  # before the first line
        run(tmp_path / "chips", delivery, 12 if start is None else 4, starting_from=start)
        if start is None:
            assert contents(tmp_path / "chips") == contents(twelve)
        else:
            assert bytes_of(tmp_path / "chips") == {f"{n}.pt": bytes_of(twelve)[f"{n}.pt"] for n in range(8, 12)}
        shutil.rmtree(tmp_path / "chips")


def test_a_torn_line_of_what_was_skipped_is_cut(delivery, tmp_path, twelve):
    run(tmp_path / "chips", delivery, 9)
    path = tmp_path / "chips" / "skipped.jsonl"
    assert len(read_lines(path)) >= 1
    path.write_bytes(path.read_bytes() + b'{"i": 99, "til')
    run(tmp_path / "chips", delivery, 12)
    assert contents(tmp_path / "chips") == contents(twelve)


@pytest.mark.parametrize("tail", [b"", b"\0\0\0\n", b"\0\0\0"])
@pytest.mark.parametrize(("name", "kept"), [("manifest.jsonl", 0), ("manifest.jsonl", 5), ("skipped.jsonl", 0), ("skipped.jsonl", 1)])
def test_a_power_cut_that_took_lines_of_one_file_alone_changes_no_chip(delivery, tmp_path, twelve, name, kept, tail):
    shutil.copytree(twelve, tmp_path / "chips")
    path = tmp_path / "chips" / name
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(lines) > kept
    if not tail and (kept or name == "skipped.jsonl"):
        tail = lines[kept][:-9]  # half a line
    path.write_bytes(b"".join(lines[:kept]) + tail)
    run(tmp_path / "chips", delivery, 12)
    assert contents(tmp_path / "chips") == contents(twelve)


def test_too_few_chips_are_a_failure_that_says_what_training_would_do_with_them(delivery, tmp_path):
    with pytest.raises(RunError, match=r"made (\d+) of 5000 chips: no tile is left .*chips has \1, and training takes them as they are"):
        run(tmp_path / "chips", delivery, 5000, replace(RECIPE, sampler="grid"))


def test_rasters_of_the_same_name_from_elsewhere_do_not_continue_a_set(delivery, tmp_path):
    other = shutil.copytree(delivery, tmp_path / "ard")
    run(tmp_path / "chips", delivery, 3)
    for path in other.glob("37/*/*/*-ms.tif"):
        os.utime(path, (0, 0))
    with pytest.raises(UserError, match="-ms.tif has changed since chips were cut into .*--overwrite"):
        run(tmp_path / "chips", other, 6)


@pytest.mark.parametrize("start", [None, 3])
def test_a_pan_that_has_changed_does_not_continue_a_set_unless_its_chips_are_older_than_its_stamp(delivery, tmp_path, twelve, start):
    other = shutil.copytree(delivery, tmp_path / "ard")
    run(tmp_path / "chips", other, 3, starting_from=start)
    for path in other.glob("37/*/*/*-pan.tif"):
        os.utime(path, (0, 0))
    with pytest.raises(UserError, match="-pan.tif has changed since chips were cut into .*--overwrite"):
        run(tmp_path / "chips", other, 6)
    lines = [*manifest(tmp_path / "chips"), *read_lines(tmp_path / "chips" / "skipped.jsonl")]
    for name, part in (("manifest.jsonl", [x for x in lines if "file" in x]), ("skipped.jsonl", [x for x in lines if "file" not in x])):
        for line in part:
            line["source"] = {k: v for k, v in line["source"].items() if not k.startswith("pan_")}
        (tmp_path / "chips" / name).write_text("".join(json.dumps(line) + "\n" for line in part))
    run(tmp_path / "chips", other, 6)
    first = start or 0
    assert bytes_of(tmp_path / "chips") == {f"{n}.pt": bytes_of(twelve)[f"{n}.pt"] for n in range(first, first + 6)}


@pytest.mark.parametrize("kind", ["ms", "pan"])
def test_a_mask_beside_a_file_is_part_of_it(delivery, tmp_path, kind):
    other = shutil.copytree(delivery, tmp_path / "ard")
    run(tmp_path / "bare", other, 1)
    assert not any("mask" in key for line in manifest(tmp_path / "bare") for key in line["source"]), "as in sets made before"
    for path in other.glob(f"37/*/*/*-{kind}.tif"):
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as file:
            file.write_mask(np.full(file.shape, 255, np.uint8))
    run(tmp_path / "chips", other, 3)
    run(tmp_path / "chips", other, 6)
    for path in other.glob("37/*/*/*.msk"):
        os.utime(path, (0, 0))
    with pytest.raises(UserError, match=rf"-{kind}.tif.msk has changed since chips were cut into .*--overwrite"):
        run(tmp_path / "chips", other, 9)


def test_places_before_the_start_were_looked_at_in_the_same_files(delivery, tmp_path):
    other = shutil.copytree(delivery, tmp_path / "ard")
    run(tmp_path / "chips", other, 1, starting_from=8)
    used = manifest(tmp_path / "chips")[0]["source"]["path"]
    for path in other.glob("37/*/*/*-ms.tif"):
        if str(path) != used:
            os.utime(path, (0, 0))
    with pytest.raises(UserError, match="-ms.tif has changed since chips were cut into .*--overwrite"):
        run(tmp_path / "chips", other, 6)


@pytest.mark.parametrize("kind", ["pan", "ms"])
def test_finished_work_of_files_that_have_changed_since_is_done_anew(delivery, tmp_path, kind):
    other = shutil.copytree(delivery, tmp_path / "ard")

    def killed(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "chips", other, 6, chip=killed)
    for name in ("manifest.jsonl", "skipped.jsonl"):
        (tmp_path / "chips" / name).write_text("")  # as if it had been killed before the first line
    assert len(list((tmp_path / "chips" / ".considered").glob("*.json"))) >= 3
    for path in other.glob(f"37/*/*/*-{kind}.tif"):
        with rasterio.open(path, "r+") as file:
            file.write(np.where(file.read() > 0, 77, 0).astype(np.uint16))
        os.utime(path, (9, 9))
    run(tmp_path / "chips", other, 6)
    run(tmp_path / "undisturbed", other, 6)
    assert contents(tmp_path / "chips") == contents(tmp_path / "undisturbed")


def test_finished_work_of_another_recipe_is_not_taken(delivery, tmp_path):
    def killed(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "old", delivery, 6, replace(RECIPE, dtype="float32"), chip=killed)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "chips", delivery, 6, chip=killed)
    for name in ("manifest.jsonl", "skipped.jsonl"):
        (tmp_path / "chips" / name).write_text("")
    shutil.rmtree(tmp_path / "chips" / ".considered")
    shutil.copytree(tmp_path / "old" / ".considered", tmp_path / "chips" / ".considered")
    run(tmp_path / "chips", delivery, 6)
    run(tmp_path / "undisturbed", delivery, 6)
    assert contents(tmp_path / "chips") == contents(tmp_path / "undisturbed")


def test_a_tile_that_was_retired_unread_comes_back_when_its_file_is_repaired_and_is_told_of_until_then(delivery, tmp_path):
    broken = shutil.copytree(delivery, tmp_path / "ard")
    path, name = Path(tiles_of(broken)[0].pair.ms), tiles_of(broken)[0].name
    whole = path.read_bytes()
    with rasterio.open(path) as file:
        start = int(file.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=1))
    path.write_bytes(whole[:start] + b"x" * (len(whole) - start))  # the header is whole, no pixel is
    run(tmp_path / "chips", broken, 8)
    again = run(tmp_path / "chips", broken, 8)
    assert again["unreadable"] == {name: 3} and again["retired"] == [name] and again["made"] == 0
    path.write_bytes(whole)
    os.utime(path, (9, 9))
    repaired = run(tmp_path / "chips", broken, 14)
    assert not repaired["unreadable"] and not repaired["retired"]
    assert name in {line["tile"] for line in manifest(tmp_path / "chips")}
    assert all(line["reason"] != "read-error" for line in read_lines(tmp_path / "chips" / "skipped.jsonl"))


@pytest.mark.parametrize("workers", [1, 2])
def test_chips_that_are_gone_are_made_again(delivery, tmp_path, twelve, workers):
    shutil.copytree(twelve, tmp_path / "chips")
    for number in (3, 7):
        (tmp_path / "chips" / f"{number}.pt").unlink()
    made = []
    summary = run(tmp_path / "chips", delivery, 12, workers=workers, chip=made.append)
    assert (summary["made"], summary["present"], [line["file"] for line in made]) == (2, 10, ["3.pt", "7.pt"])
    assert contents(tmp_path / "chips") == contents(twelve)


def test_a_chip_that_is_gone_and_can_not_be_made_again_is_named(delivery, tmp_path):
    other = shutil.copytree(delivery, tmp_path / "ard")
    run(tmp_path / "chips", other, 6)
    line = manifest(tmp_path / "chips")[2]
    (tmp_path / "chips" / "2.pt").unlink()
    path = Path(line["source"]["path"])
    path.write_bytes(b"x" * line["source"]["size"])
    os.utime(path, (line["source"]["mtime"],) * 2)
    tiles = []
    for tile in tiles_of(delivery):  # the header of the broken file can't be read any more
        moved = {kind: getattr(tile.pair, kind).replace(str(delivery), str(other)) for kind in ("pan", "ms")}
        tiles.append(replace(tile, pair=replace(tile.pair, **moved)))
    with pytest.raises(RunError, match="2.pt is gone and cannot be made again .*--overwrite"):
        make_chips.make_chips(tiles, RECIPE, tmp_path / "chips", 6)


def test_only_windows_that_were_left_out_are_counted(delivery, tmp_path):
    assert "before-start" not in run(tmp_path / "chips", delivery, 3, starting_from=6)["skipped"]


@pytest.mark.parametrize("listed", [0, 2])
def test_overwriting_takes_the_chip_away_that_a_kill_left_unlisted(delivery, tmp_path, monkeypatch, listed):
    def killed(self, line):
        if len(self.lines) == listed:
            raise KeyboardInterrupt
        add(self, line)

    add, folder = ChipSetWriter.add, tmp_path / "chips"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ChipSetWriter, "add", killed)
        run(folder, delivery, 4, starting_from=4)
    assert sorted(bytes_of(folder)) == [f"{n}.pt" for n in range(4, 5 + listed)]
    (folder / "note.txt").touch()
    run(folder, delivery, 1, overwrite=True)
    assert sorted(bytes_of(folder)) == ["0.pt"] and (folder / "note.txt").exists()


def test_overwriting_that_was_killed_is_finished_by_the_next_run(delivery, tmp_path, monkeypatch):
    run(tmp_path / "chips", delivery, 9)
    other, unlink, gone = replace(RECIPE, dtype="float32"), Path.unlink, []

    def killed_after_four(self, missing_ok=False):
        gone.append(self)
        if len(gone) == 5:
            raise KeyboardInterrupt
        unlink(self, missing_ok=missing_ok)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "unlink", killed_after_four)
        run(tmp_path / "chips", delivery, 3, other, overwrite=True)
    assert 0 < len(bytes_of(tmp_path / "chips")) < 9
    with pytest.raises(UserError, match="--overwrite"):
        run(tmp_path / "chips", delivery, 3, other)
    run(tmp_path / "chips", delivery, 3, other, overwrite=True)
    run(tmp_path / "undisturbed", delivery, 3, other)
    assert contents(tmp_path / "chips") == contents(tmp_path / "undisturbed")


def test_a_gap_is_refused(delivery, tmp_path):
    run(tmp_path / "chips", delivery, 2)
    with pytest.raises(UserError, match="leaves a gap: pass 2"):
        run(tmp_path / "chips", delivery, 2, starting_from=4)


@pytest.mark.parametrize("stop_after", [0, 1, 7])
def test_killed_and_run_again_gives_the_same_bytes(delivery, tmp_path, twelve, stop_after):
    made = []

    def stop(line):
        made.append(line)
        if len(made) > stop_after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "chips", delivery, 12, chip=stop)
    run(tmp_path / "chips", delivery, 12)
    assert contents(tmp_path / "chips") == contents(twelve)
    assert not [p for p in (tmp_path / "chips").iterdir() if p.name.startswith(".")]


def test_killed_while_writing_a_chip_leaves_none_under_its_name_and_finished_work_is_kept(delivery, tmp_path, twelve, monkeypatch):
    original, written = pan_chips.write_chip, []

    def full_after_four(path, chip):
        if len(written) == 4:
            path.with_name("leftover").write_bytes(b"")
            raise OSError(28, "No space left on device")
        written.append(path)
        original(path, chip)

    monkeypatch.setattr(pan_chips, "write_chip", full_after_four)
    with pytest.raises(OSError, match="No space"):
        run(tmp_path / "chips", delivery, 12)
    assert bytes_of(tmp_path / "chips") == {}
    monkeypatch.setattr(pan_chips, "write_chip", lambda path, chip: (written.append(path), original(path, chip)))
    run(tmp_path / "chips", delivery, 12)
    assert contents(tmp_path / "chips") == contents(twelve)
    assert len(written) == len(set(written))  # the four finished ones were not made again


def test_any_order_of_tiles_gives_the_same_bytes(delivery, tmp_path, twelve):
    make_chips.make_chips(tiles_of(delivery)[::-1], RECIPE, tmp_path / "chips", 12)
    assert contents(tmp_path / "chips") == contents(twelve)


def test_two_workers_give_the_same_bytes(delivery, tmp_path, twelve):
    run(tmp_path / "chips", delivery, 12, workers=2)
    assert contents(tmp_path / "chips") == contents(twelve)


@pytest.mark.parametrize("guess", [None, "everything is empty", "nothing is empty"])
def test_a_wrong_guess_of_what_is_empty_changes_no_byte(delivery, tmp_path, twelve, monkeypatch, guess):
    def filled_blocks(path):
        return guess and (np.full((1, 1), float(guess == "nothing is empty")), (60, 60))

    monkeypatch.setattr(window_walk, "filled_blocks", filled_blocks)
    run(tmp_path / "chips", delivery, 12)
    assert contents(tmp_path / "chips") == contents(twelve)
    (tmp_path / "later").mkdir()
    run(tmp_path / "later" / "chips", delivery, 6, starting_from=6)
    assert bytes_of(tmp_path / "later" / "chips") == {f"{n}.pt": bytes_of(twelve)[f"{n}.pt"] for n in range(6, 12)}


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
def test_tasks_are_whole_tiles_where_there_are_enough_of_them(workers):
    tiles = [SimpleNamespace(name=f"tile {n}") for n in range(5)]
    recipe = replace(RECIPE, chip_size=512)
    batch = [(i, tiles[i % 5], i * 37 % 1000, i * 91 % 1400) for i in range(65)]
    tasks = chip_pool.split_work(batch, recipe, None, workers)
    assert sorted(w for task in tasks for w in task[2]) == [(i, left, top) for i, _, left, top in batch]
    split = [name for name, n in Counter(task[1].name for task in tasks).items() if n > 1]
    assert len(split) == {1: 0, 2: 1, 3: 2, 5: 0}[workers] and len(tasks) >= workers
    for name in split:  # pieces lie below each other
        tops = [[w[2] for w in task[2]] for task in tasks if task[1].name == name]
        assert all(max(above) <= min(below) for above, below in pairwise(tops))


def test_one_tile_keeps_all_workers_busy():
    tile = SimpleNamespace(name="tile")
    batch = [(i, tile, 0, i * 10) for i in range(400)]
    assert len(chip_pool.split_work(batch, replace(RECIPE, chip_size=64), None, 4)) == 16
    assert len(chip_pool.split_work(batch[:2], RECIPE, None, 4)) == 2


def program(delivery, folder, workers):
    words = f"make-chips -a {delivery} -c {folder} -n 90 --chip-size 24 --dtype float32 --store both --workers {workers} --quiet"
    environment = {**os.environ, "CHIPMILL_TEST_RUN": str(folder)}
    return subprocess.Popen([sys.executable, "chip.py", *words.split()], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)


def processes_of(folder):
    """Ids of what `program` started for a folder and what that started in turn."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if f"CHIPMILL_TEST_RUN={folder}\0".encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_the_program_killed_at_any_moment_ends_with_the_same_bytes_and_leaves_no_process(delivery, tmp_path, workers):
    assert program(delivery, tmp_path / "whole", 1).wait() == 0
    kills, most, folder = 0, 0, tmp_path / "chips"
    for finished in (1, 20, 60, 85):  # chips that wait for their number included
        process = program(delivery, folder, workers)
        while process.poll() is None:
            if len([*folder.glob("*.pt"), *folder.glob(".considered/*.pt")]) >= finished:
                most = max(most, len(processes_of(folder)))
                process.kill()
                break
            time.sleep(0.002)
        kills += process.wait() == -signal.SIGKILL
        end = time.monotonic() + 20
        while processes_of(folder) and time.monotonic() < end:
            time.sleep(0.05)
        assert not processes_of(folder)  # a worker that lived on would write into the folder of the next run
    assert kills >= 2 and most >= workers
    done = program(delivery, folder, workers)
    assert done.wait() == 0, done.stderr.read()
    assert contents(folder) == contents(tmp_path / "whole")
    assert not [p for p in folder.iterdir() if p.name.startswith(".")]


def test_other_settings_in_the_same_folder_are_refused_in_words_and_replaced_on_demand(delivery, tmp_path):
    run(tmp_path / "chips", delivery, 3)
    other = replace(RECIPE, minimum_valid=0.5)
    with pytest.raises(UserError, match="minimum_valid: 0.75 → 0.5"):
        run(tmp_path / "chips", delivery, 3, other)
    run(tmp_path / "chips", delivery, 2, other, overwrite=True)
    assert sorted(bytes_of(tmp_path / "chips")) == ["0.pt", "1.pt"]


def test_a_folder_with_strange_files_is_refused(delivery, tmp_path):
    (tmp_path / "chips").mkdir()
    (tmp_path / "chips" / "0.pt").write_bytes(b"mine")
    with pytest.raises(UserError, match="not empty"):
        run(tmp_path / "chips", delivery, 3)
    assert (tmp_path / "chips" / "0.pt").read_bytes() == b"mine"


@pytest.mark.parametrize("change", [{"chip_size": 18}, {"chip_size": 2}, {"minimum_valid": 1.5}])
def test_recipes_that_cannot_work_are_refused(delivery, tmp_path, change):
    with pytest.raises(UserError):
        run(tmp_path / "chips", delivery, 1, replace(RECIPE, **change))


# ------------------------------------------------------------------------------------------------ reading chips


class Hostile:
    def __reduce__(self):
        return exec, ("raise SystemExit('executed')",)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "missing"),
        (b"", "unreadable"),
        (b"not a chip at all", "unreadable"),
        ({"format": "other"}, "not a chipmill-pan-1"),
        ({"format": "chipmill-pan-1", "pan": torch.zeros(1, 8, 8), "mul": torch.zeros(4, 3, 3)}, "don't fit"),
        ({"format": "chipmill-pan-1", "pan": torch.zeros(1, 8, 8), "mul": torch.zeros(4, 2, 2)}, "no truth to learn from"),
        ({"format": "chipmill-pan-1", "pan": torch.zeros(1, 8, 8), "mul": torch.zeros(4, 2, 2), "bands": torch.zeros(4, 4, 4)}, "expected"),
        ({"format": "chipmill-pan-1", "pan": torch.zeros(1, 8, 8).long(), "mul": torch.zeros(4, 2, 2), "oklab": torch.zeros(3, 8, 8)},
         "int64"),
        (Hostile(), "nothing in it was run"),
        (pickle.dumps(Hostile(), protocol=4), "nothing in it was run"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_bad_chip_is_named_and_never_executed(tmp_path, content, reason):
    path = tmp_path / "0.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(pan_chips.BadChip, match=reason):
        pan_chips.read_chip(path)


def test_a_truncated_chip_is_named(twelve, tmp_path):
    whole = (twelve / "0.pt").read_bytes()
    (tmp_path / "0.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(pan_chips.BadChip, match="unreadable"):
        pan_chips.read_chip(tmp_path / "0.pt")


# ------------------------------------------------------------------------------------------------ plain pairs


def test_several_pairs_are_matched_by_name_and_odd_ones_refused(make_raster, tmp_path):
    for name in ("x-pan.tif", "y_PAN.tif", "x-ms.tif", "y_MS.tif"):
        make_raster(name, np.ones((4, 4), np.uint8))
    pans, mss = [f"{tmp_path}/*pan.tif", f"{tmp_path}/*PAN.tif"], [f"{tmp_path}/*ms.tif", f"{tmp_path}/*MS.tif"]
    pairs = match_paths(pans, mss)
    assert [tuple(p.rsplit("/", 1)[1] for p in pair) for pair in pairs] == [("x-pan.tif", "x-ms.tif"), ("y_PAN.tif", "y_MS.tif")]
    with pytest.raises(UserError, match="'y' has 1 pan and 0 ms"):
        match_paths(pans, [f"{tmp_path}/x-ms.tif"])


def test_the_real_pairs_become_chips(real_data, tmp_path):
    offsets = (("worldview2", {}, 2047), ("geoeye1", {"shift": (0.5, -0.5)}, 255), ("spacenet6", {"shift": (1.5, -1.0)}, 2047))
    for name, options, divisor in offsets:
        folder = real_data / "pansharpen"
        tiles, _ = pair_tiles([folder / f"{name}-pan.tif"], [folder / f"{name}-ms.tif"], **options)
        scale = scale_of_pair(tiles[0].pair, str(divisor))
        recipe = chip_window.ChipRecipe(32, 4, tiles[0].pair.bands, extra=1, reduction="mtf", divide_by=scale[0], offset=scale[1])
        assert make_chips.make_chips(tiles, recipe, tmp_path / name, 4)["made"] == 4
        pan, mul, truth, _ = pan_chips.decode_chip(pan_chips.read_chip(tmp_path / name / "0.pt"), "oklab")
        assert 0 < pan.mean() < 1 and truth.shape == (3, 32, 32) and torch.isfinite(truth).all()


def test_a_pair_without_a_known_scale_asks_for_it(real_data):
    folder = real_data / "pansharpen"
    tiles, _ = pair_tiles([folder / "worldview2-pan.tif"], [folder / "worldview2-ms.tif"])
    with pytest.raises(UserError, match="--divide-by"):
        scale_of_pair(tiles[0].pair)


def test_pairs_whose_tags_state_other_scales_are_refused(make_raster, tmp_path):
    rng = np.random.default_rng(0)
    for name, scale in (("a", 0.0001), ("b", 0.001)):
        make_raster(f"{name}-pan.tif", rng.integers(1, 999, (1, 128, 128)).astype(np.uint16), crs=None, scales=[scale])
        make_raster(f"{name}-ms.tif", rng.integers(1, 999, (4, 32, 32)).astype(np.uint16), crs=None, scales=[scale] * 4)
    tiles, _ = pair_tiles([f"{tmp_path}/*-pan.tif"], [f"{tmp_path}/*-ms.tif"])
    with pytest.raises(UserError, match="b-ms.tif says divisor 1000 .*a-ms.tif says 10000"):
        scale_of_pairs(tiles)
    assert scale_of_pairs(tiles, "2047") == (2047.0, 0.0)


def test_negative_reflectance_stays_what_it_is_as_far_as_a_chip_can_hold_it(make_raster, tmp_path):
    rng = np.random.default_rng(0)
    pan, ms = rng.integers(-60, 41, (1, 128, 128)).astype(np.int16), rng.integers(-40, 60, (4, 32, 32)).astype(np.int16)
    make_raster("a-pan.tif", pan, crs=None, nodata=-9999), make_raster("a-ms.tif", ms, crs=None, nodata=-9999)
    tiles, _ = pair_tiles([tmp_path / "a-pan.tif"], [tmp_path / "a-ms.tif"])
    for reduction in ("box", "mtf"):
        recipe = chip_window.ChipRecipe(16, 4, tiles[0].pair.bands, extra=2, reduction=reduction, dtype="float32")
        make_chips.make_chips(tiles, recipe, tmp_path / reduction, 1)
        chip = pan_chips.read_chip(tmp_path / reduction / "0.pt")
        assert np.allclose(chip["bands"].numpy(), ms.reshape(4, 16, 2, 16, 2).mean((2, 4)) / 10_000, atol=1e-7)
        assert (chip["pan"].mean() + 10e-4).abs() < 1e-4 and chip["pan"].abs().max() < 60e-4


def tagged_pair(make_raster, tmp_path, pan, ms):
    """A pair whose files state scales and offsets: pan, ms are dicts for make_raster."""
    rng = np.random.default_rng(0)
    make_raster("a-pan.tif", rng.integers(1, 999, (1, 128, 128)).astype(np.uint16), crs=None, **pan)
    make_raster("a-ms.tif", rng.integers(1, 999, (4, 32, 32)).astype(np.uint16), crs=None, **ms)
    return pair_tiles([tmp_path / "a-pan.tif"], [tmp_path / "a-ms.tif"])[0][0].pair


@pytest.mark.parametrize(
    ("pan", "ms", "says"),
    [
        ({"scales": [1e-3]}, {"scales": [1e-4] * 4}, "divisor 1000 and offset 0, .*divisor 10000 and offset 0"),
        ({"scales": [1e-4]}, {"scales": [1e-4] * 4, "offsets": [-0.1] * 4}, "divisor 10000 and offset 0, .*divisor 10000 and offset -1000"),
        ({}, {"scales": [1e-4] * 4}, "nothing of a scale, .*divisor 10000 and offset 0"),
        ({"scales": [1e-4]}, {}, "divisor 10000 and offset 0, .*nothing of a scale"),
        ({"tags": {"scale_factor": "0.001"}}, {"tags": {"scale_factor": "0.0001"}}, "divisor 1000 .*divisor 10000"),
    ],
)
def test_a_pan_whose_tags_contradict_those_of_ms_is_refused_with_both_unless_a_flag_decides(make_raster, tmp_path, pan, ms, says):
    pair = tagged_pair(make_raster, tmp_path, pan, ms)
    with pytest.raises(UserError, match=f"a-pan.tif say {says}.*--divide-by and --offset"):
        scale_of_pair(pair)
    assert scale_of_pair(pair, "2047") == (2047, 0) and scale_of_pair(pair, "10000", "-1000") == (10_000, -1000)


def test_an_offset_alone_settles_offsets_and_vouches_for_a_pan_without_tags_but_not_for_another_divisor(make_raster, tmp_path):
    ms = {"scales": [1e-4] * 4, "offsets": [-0.1] * 4}
    assert scale_of_pair(tagged_pair(make_raster, tmp_path, {"scales": [1e-4]}, ms), None, "-500") == (10_000, -500)
    assert scale_of_pair(tagged_pair(make_raster, tmp_path, {}, ms), None, "-500") == (10_000, -500)
    with pytest.raises(UserError, match="divisor 1000 .*divisor 10000"):
        scale_of_pair(tagged_pair(make_raster, tmp_path, {"scales": [1e-3]}, ms), None, "-500")


def test_a_pan_whose_tags_say_the_same_as_those_of_ms_is_fine(make_raster, tmp_path):
    pair = tagged_pair(make_raster, tmp_path, {"scales": [1e-4], "offsets": [-0.1]}, {"scales": [1e-4] * 4, "offsets": [-0.1] * 4})
    assert scale_of_pair(pair) == (10_000, -1000)


def test_scales_that_were_kept_as_float32_are_the_same(make_raster, tmp_path):
    rng = np.random.default_rng(0)
    for name, scale in (("a", float(np.float32(1e-4))), ("b", 1e-4)):
        make_raster(f"{name}-pan.tif", rng.integers(1, 999, (1, 128, 128)).astype(np.uint16), crs=None, scales=[1e-4])
        make_raster(f"{name}-ms.tif", rng.integers(1, 999, (4, 32, 32)).astype(np.uint16), crs=None, scales=[scale] * 4)
    tiles, _ = pair_tiles([f"{tmp_path}/*-pan.tif"], [f"{tmp_path}/*-ms.tif"])
    assert scale_of_pairs(tiles) == pytest.approx((10_000, 0)) and scale_of_pair(tiles[0].pair) != scale_of_pair(tiles[1].pair)


@pytest.mark.parametrize("kind", ["pan", "ms"])
def test_one_pair_that_can_not_be_opened_among_others_is_left_out_with_a_remark_or_fatal(make_raster, tmp_path, kind):
    for name in "ab":
        make_raster(f"{name}-pan.tif", np.ones((1, 128, 128), np.uint16), crs=None)
        make_raster(f"{name}-ms.tif", np.ones((4, 32, 32), np.uint16), crs=None)
    patterns = [f"{tmp_path}/*-pan.tif"], [f"{tmp_path}/*-ms.tif"]
    (tmp_path / f"a-{kind}.tif").write_bytes(b"no raster at all")
    tiles, remarks = pair_tiles(*patterns, strict=False)
    assert [tile.name for tile in tiles] == ["b"] and any(f"a-{kind}.tif" in r and "left out" in r for r in remarks)
    with pytest.raises(UserError, match=f"a-{kind}.tif can't be opened"):
        pair_tiles(*patterns, strict=True)
    (tmp_path / "b-ms.tif").write_bytes(b"neither")
    with pytest.raises(UserError, match=f"a-{kind}.tif can't be opened"):
        pair_tiles(*patterns, strict=False)


def test_a_pair_that_comes_or_changes_is_named_where_a_set_would_go_on(make_raster, tmp_path):
    for name in "abc":
        make_raster(f"{name}-pan.tif", np.ones((1, 64, 64), np.uint16), crs=None)
        make_raster(f"{name}-ms.tif", np.ones((4, 16, 16), np.uint16), crs=None)
    (tmp_path / "b-ms.tif").write_bytes(b"no raster at all")

    def make():
        tiles, _ = pair_tiles([f"{tmp_path}/*-pan.tif"], [f"{tmp_path}/*-ms.tif"], strict=False)
        recipe = chip_window.ChipRecipe(8, 4, tiles[0].pair.bands, extra=1)
        make_chips.make_chips(tiles, recipe, tmp_path / "chips", 1)

    make()
    make_raster("b-ms.tif", np.ones((4, 16, 16), np.uint16), crs=None)
    with pytest.raises(UserError, match=r"made with other settings \(tile b is new\)"):
        make()
    (tmp_path / "b-ms.tif").unlink(), (tmp_path / "b-pan.tif").unlink()
    make_raster("c-pan.tif", np.ones((1, 60, 60), np.uint16), crs="EPSG:32633", transform=from_origin(0, 0, 1, 1))
    make_raster("c-ms.tif", np.ones((4, 16, 16), np.uint16), crs="EPSG:32633", transform=from_origin(0, 0, 4, 4))
    with pytest.raises(UserError, match=r"\(tile c has area: \[0, 0, 16, 16\] → \[0, 0, 15, 15\]\)"):
        make()


def test_pairs_that_do_not_go_together_are_an_error_also_among_others(make_raster, tmp_path):
    for name, side in (("a", 32), ("b", 31)):
        make_raster(f"{name}-pan.tif", np.ones((1, 128, 128), np.uint16), crs=None)
        make_raster(f"{name}-ms.tif", np.ones((4, side, side), np.uint16), crs=None)
    with pytest.raises(UserError, match="whole number"):
        pair_tiles([f"{tmp_path}/*-pan.tif"], [f"{tmp_path}/*-ms.tif"], strict=False)


@pytest.mark.parametrize("store", ["oklab", "both"])
def test_a_picture_of_bands_without_colour_is_refused_before_anything_is_written(make_raster, tmp_path, store):
    tiles = plain_tiles(make_raster, tmp_path, np.ones((1, 128, 128), np.uint16), np.ones((3, 32, 32), np.uint16))
    recipe = replace(blurred_recipe(tiles, 16), store=store)
    with pytest.raises(UserError, match=f"--store {store} needs bands named blue, green and red, these are band_1.*--bands"):
        make_chips.make_chips(tiles, recipe, tmp_path / "chips", 1)
    assert not (tmp_path / "chips").exists()
    make_chips.make_chips(tiles, replace(recipe, store="bands"), tmp_path / "chips", 1)


def test_a_broken_file_of_a_pair_is_a_window_that_can_not_be_read(real_data, tmp_path):
    for kind, size in (("pan", None), ("ms", 600_000)):
        content = (real_data / "pansharpen" / f"worldview2-{kind}.tif").read_bytes()
        (tmp_path / f"w-{kind}.tif").write_bytes(content[:size])
    tiles, _ = pair_tiles([tmp_path / "w-pan.tif"], [tmp_path / "w-ms.tif"])
    recipe = chip_window.ChipRecipe(32, 4, tiles[0].pair.bands, extra=1, reduction="mtf", divide_by=2047.0)
    with contextlib.suppress(RunError):
        make_chips.make_chips(tiles, recipe, tmp_path / "chips", 40)
    lines = read_lines(tmp_path / "chips" / "skipped.jsonl")
    assert [line["reason"] for line in lines] == ["read-error"] * 3 and all(str(tmp_path / "w-ms.tif") in line["detail"] for line in lines)
