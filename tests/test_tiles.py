"""Tiles: where they lie, what becomes of boxes, files that are made once and again only as far as something has changed."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import rasterio
import torch
from box_factory import example, picture, save_picture, write_coco, write_voc
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rasterio.transform import from_origin

from chip import main
from chipping import image_files, tiles
from chipping.box_labels import read_labels
from chipping.tile_plan import boxes_of_tile, candidates, tile_positions, tiles_of
from chipping.tile_set import known_headers, read_tile_set
from chipping.tile_set_plan import TileOptions
from chipping.tiles import make_tiles
from detection.dataset import DetectionImages, DetectionTiles, band_statistics, truths
from detection.tile_caches import Caches
from runtime import stop_signals
from runtime.epoch_batches import as_it_is, make_loader
from runtime.errors import RunError, UserError

SMALL = TileOptions(size=(128, 128), overlap=32)


@pytest.fixture
def data(tmp_path):
    """(images folder, COCO file): three JPEGs of 300 × 220 with four boxes each."""
    return example(tmp_path)


def build(data, folder, options=SMALL, said=None, label_map=None, **more):
    """→ (TileSet, unreadable images)."""
    classes, images, _ = read_labels(*data, label_map=label_map)
    return make_tiles(folder, data[0], classes, images, options, note=(said if said is not None else []).append, **more)


def content(folder):
    """{name: bytes} of a folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


# ------------------------------------------------------------------------------------------------ where tiles lie


sides = st.integers(1, 400)


def draw_overlap(data, size):
    """Any overlap with steps of at least a fifth of a tile: tiny steps are very many tiles."""
    return data.draw(st.integers(0, size - max(1, size // 5)))


@given(sides, sides, st.integers(5, 150), st.integers(5, 150), st.data())
def test_tiles_cover_every_pixel_of_every_size_and_stay_within(width, height, wide, tall, data):
    overlap = draw_overlap(data, min(wide, tall))
    seen = np.zeros((height, width), int)
    found = tiles_of(width, height, (wide, tall), overlap)
    for x0, y0, x1, y1 in found:
        assert (x1 - x0, y1 - y0) == (wide, tall) and x0 >= 0 and y0 >= 0
        assert (x1 <= width or x0 == 0) and (y1 <= height or y0 == 0)
        seen[y0:y1, x0:x1] += 1
    assert seen.min() >= 1 and len({tuple(tile) for tile in found}) == len(found)


@pytest.mark.parametrize(("length", "tile", "overlap", "expected"), [
    (1100, 512, 128, [0, 384, 588]), (512, 512, 128, [0]), (100, 512, 128, [0]), (513, 512, 0, [0, 1]), (1024, 512, 0, [0, 512]),
])
def test_the_last_tile_is_snapped_to_the_edge(length, tile, overlap, expected):
    assert tile_positions(length, tile, overlap) == expected


def test_an_image_of_the_elephant_set_has_140_tiles():
    assert len(tiles_of(5472, 3648, (512, 512), 128)) == 140


@pytest.mark.parametrize("overlap", [64, 65, -1])
def test_an_overlap_as_large_as_a_tile_is_an_error_that_names_both(overlap):
    with pytest.raises(UserError, match=f"overlap of {overlap} pixels does not fit tiles of 64"):
        tile_positions(100, 64, overlap)


# ------------------------------------------------------------------------------------------------ boxes in tiles


def test_a_box_counts_from_the_least_visible_share_on_and_is_ignored_below_it():
    """A box of 10 × 10 of which the tile shows two columns, then a little less."""
    found = boxes_of_tile([[98, 0, 108, 10], [98.001, 20, 108.001, 30], [200, 0, 210, 10]], (0, 0, 100, 100), 0.2)
    assert found.kept.tolist() == [0] and found.clipped.tolist() == [[98, 0, 100, 10]] and found.visible.tolist() == [0.2]
    assert np.allclose(found.ignore, [[98.001, 20, 100, 30]])


def test_a_box_that_shows_less_than_a_pixel_is_ignored_and_a_tiny_whole_one_counts():
    found = boxes_of_tile([[99.5, 0, 100.4, 10], [50, 50, 50.5, 50.5]], (0, 0, 100, 100), 0.2)
    assert found.kept.tolist() == [1] and len(found.ignore) == 1


boxes = st.lists(st.tuples(st.floats(0, 290), st.floats(0, 290), st.floats(0.5, 60), st.floats(0.5, 60)), max_size=15)


@given(boxes, st.integers(30, 150), st.integers(30, 150), st.data())
def test_every_box_not_larger_than_the_overlap_is_whole_in_a_tile_and_nothing_is_background_by_mistake(found, wide, tall, data):
    overlap = draw_overlap(data, min(wide, tall))
    boxes = np.array([(x, y, min(x + w, 300), min(y + h, 300)) for x, y, w, h in found]).reshape(-1, 4)
    grid, whole = tiles_of(300, 300, (wide, tall), overlap), np.zeros(len(boxes), bool)
    for tile, near in zip(grid, candidates(boxes, grid), strict=True):
        here = boxes_of_tile(boxes, tile, 0.2)
        among = boxes_of_tile(boxes[near], tile, 0.2)  # of those that are looked at none is missed
        assert near[among.kept].tolist() == here.kept.tolist() and (among.ignore == here.ignore).all()
        assert ((here.clipped >= 0) & (here.clipped <= (wide, tall, wide, tall))).all()
        shown = np.flatnonzero(here.visible >= 1 - 1e-12)
        whole[here.kept[shown]] = True
        back = here.clipped[shown] + (*tile[:2], *tile[:2])
        assert np.allclose(back, boxes[here.kept[shown]], atol=1e-9)
        meets = (np.minimum(boxes[:, 2:], tile[2:]) > np.maximum(boxes[:, :2], tile[:2])).all(axis=1)
        assert meets.sum() == len(here.kept) + len(here.ignore)
    assert whole[(boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0) <= overlap].all()


# ------------------------------------------------------------------------------------------------ files


def test_names_and_keys_are_the_promised_ones(data, tmp_path):
    found, _ = build(data, tmp_path / "tiles")
    name = "tile_1_96_92"
    assert {f"{name}.png", f"{name}.json", "chipset.json", "manifest.jsonl", "images.jsonl"} <= set(content(tmp_path / "tiles"))
    assert len(list((tmp_path / "tiles").glob("tile_*.png"))) == len(found.tiles) == 3 * 3 * 2
    one = json.loads((tmp_path / "tiles" / f"{name}.json").read_text())
    assert {"boxes", "labels", "image_id", "x0", "y0", "visible", "truncated", "file_name", "image_index"} <= set(one)
    assert (one["image_id"], one["file_name"], one["image_index"], one["x0"], one["y0"]) == (2, "image_1.jpg", 1, 96, 92)


FORMS = [
    ("uint8", 3, "png"), ("uint8", 1, "png"), ("uint8", 4, "png"), ("uint16", 1, "png"), ("uint8", 2, "npy"), ("uint8", 5, "npy"),
    ("uint16", 3, "npy"), ("int16", 1, "npy"), ("float32", 2, "npy"),
]


@pytest.mark.parametrize(("dtype", "bands", "form"), FORMS)
@pytest.mark.parametrize("asked", ["png", "none"])
def test_the_pixels_of_a_tile_are_those_of_the_image(make_raster, tmp_path, dtype, bands, form, asked):
    """Non-square tiles over an image that is smaller in one direction: what lies beyond is 0."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(1, 100, (bands, 90, 150)).astype(dtype) * np.array(200 if dtype == "uint16" else 1, dtype)
    path = make_raster("images/a.tif", pixels, photometric="MINISBLACK", tiled=True, blockxsize=64, blockysize=32)
    coco = write_coco(tmp_path / "boxes.json", {"a.tif": (150, 90, [(1, 10, 10, 20, 20)])})
    found, _ = build((path.parent, coco), tmp_path / "tiles", TileOptions(size=(70, 120), overlap=10, form=asked, divide_by="100"))
    assert found.form == (form if asked == "png" else "none") and found.dtype == dtype
    batch = DetectionTiles(found).__getitems__(list(range(len(found.tiles))))
    assert [tuple(o) for o in batch["offset"].tolist()] == [(0, 0), (60, 0), (80, 0)]
    for image, (x0, _) in zip(batch["image"].numpy(), batch["offset"].tolist(), strict=True):
        expected = np.zeros((bands, 120, 70), dtype)
        expected[:, :90] = pixels[:, :, x0 : x0 + 70]
        assert (image == expected).all()
    values = np.concatenate([pixels[:, :, x : x + 70].reshape(bands, -1) for x in (0, 60, 80)], axis=1).astype(float) / 100
    assert np.allclose(band_statistics(found), (values.mean(axis=1), values.std(axis=1)))


@settings(max_examples=25)
@given(st.data())
def test_tiles_of_any_size_show_the_image_in_any_form(tmp_path_factory, data):
    width, height, bands = data.draw(st.integers(1, 90)), data.draw(st.integers(1, 90)), data.draw(st.integers(1, 4))
    size = data.draw(st.tuples(st.integers(1, 60), st.integers(1, 60)))
    options = TileOptions(size=size, overlap=draw_overlap(data, min(size)), form=data.draw(st.sampled_from(["png", "npy", "none"])),
                          divide_by="1")
    if len(tiles_of(width, height, size, options.overlap)) > 30:
        options = TileOptions(size=(60, 60), overlap=10, form=options.form, divide_by="1")
    folder = tmp_path_factory.mktemp("any")
    pixels = np.random.default_rng(width).integers(1, 255, (bands, height, width), dtype=np.uint8)
    (folder / "images").mkdir()
    with rasterio.open(folder / "images/a.tif", "w", driver="GTiff", count=bands, height=height, width=width, dtype="uint8",
                       photometric="MINISBLACK", alpha="NO") as file:
        file.write(pixels)
    found, _ = build((folder / "images", write_coco(folder / "boxes.json", {"a.tif": (width, height, [(1, 0, 0, 1, 1)])})),
                     folder / "tiles", options)
    wide, tall = found.tile_size
    padded = np.zeros((bands, height + tall, width + wide), np.uint8)
    padded[:, :height, :width] = pixels
    batch = DetectionTiles(found).__getitems__(list(range(len(found.tiles))))
    for image, (x0, y0) in zip(batch["image"].numpy(), batch["offset"].tolist(), strict=True):
        assert (image == padded[:, y0 : y0 + tall, x0 : x0 + wide]).all()


def test_sixteen_bits_and_four_bands_of_png_are_read(tmp_path):
    rng = np.random.default_rng(0)
    grey, four = rng.integers(0, 60_000, (40, 50), dtype=np.uint16), rng.integers(0, 255, (40, 50, 4), dtype=np.uint8)
    for name, pixels in (("grey", grey), ("four", four)):
        (tmp_path / name).mkdir()
        Image.fromarray(pixels).save(tmp_path / name / "a.png")
        coco = write_coco(tmp_path / f"{name}.json", {"a.png": (50, 40, [(1, 10, 10, 20, 20)])})
        options = TileOptions(size=(64, 64), overlap=0, divide_by="65535")
        found, _ = build((tmp_path / name, coco), tmp_path / f"tiles_{name}", options)
        tile = DetectionTiles(found)[0]["image"].numpy()
        assert (tile[:, :40, :50].transpose(1, 2, 0).squeeze() == pixels).all()


def test_a_palette_is_its_colours(tmp_path):
    pixels = picture(60, 40, [(5, 5, 20, 20)])
    paletted = Image.fromarray(pixels).quantize(16)
    (tmp_path / "images").mkdir()
    paletted.save(tmp_path / "images/a.png")
    coco = write_coco(tmp_path / "boxes.json", {"a.png": (60, 40, [(1, 10, 10, 20, 20)])})
    found, _ = build((tmp_path / "images", coco), tmp_path / "tiles", TileOptions(size=(60, 40), overlap=0))
    assert (DetectionTiles(found)[0]["image"].numpy().transpose(1, 2, 0) == np.asarray(paletted.convert("RGB"))).all()


def test_nodata_is_zero_in_tiles_and_out_of_the_statistics(make_raster, tmp_path):
    pixels = np.full((2, 40, 40), 50.0, np.float32)
    pixels[0, :10], pixels[1, 20, 20] = -9999, np.nan
    path = make_raster("images/a.tif", pixels, nodata=-9999)
    coco = write_coco(tmp_path / "boxes.json", {"a.tif": (40, 40, [(1, 10, 10, 20, 20)])})
    found, _ = build((path.parent, coco), tmp_path / "tiles", TileOptions(size=(40, 40), overlap=0, divide_by="100"))
    tile = DetectionTiles(found)[0]["image"].numpy()
    assert set(np.unique(tile)) == {0, 50} and (tile[:, :10] == 0).all() and (tile[:, 20, 20] == 0).all()
    assert found.tiles[0].valid_pixels == 40 * 30 - 1 and band_statistics(found) == ((0.5, 0.5), (1e-3, 1e-3))


@pytest.mark.parametrize("change", [
    dict(divide_by=None), dict(bands=("4",)), dict(bands=("nir",)), dict(divide_by="1,2"), dict(divide_by="0"),
    dict(size=(30, 30), overlap=30),
])
def test_options_that_cannot_be_right_are_errors_before_the_work(make_raster, tmp_path, change):
    path = make_raster("images/a.tif", np.ones((3, 40, 40), np.uint16))
    coco = write_coco(tmp_path / "boxes.json", {"a.tif": (40, 40, [(1, 10, 10, 20, 20)])})
    with pytest.raises(UserError):
        build((path.parent, coco), tmp_path / "tiles", TileOptions(**{"size": (64, 64), "overlap": 0, "divide_by": "100", **change}))
    assert not (tmp_path / "tiles").exists()


def test_images_of_other_bands_or_types_are_errors_that_name_them(make_raster, tmp_path):
    make_raster("images/a.tif", np.ones((3, 40, 40), np.uint8))
    for bands, words in ((4, "b.tif has 4 bands, a.tif has 3"), (3, "b.tif holds int16, a.tif uint8")):
        path = make_raster("images/b.tif", np.ones((bands, 40, 40), np.int16))
        coco = write_coco(tmp_path / "boxes.json", {n: (40, 40, [(1, 10, 10, 20, 20)]) for n in ("a.tif", "b.tif")})
        with pytest.raises(UserError, match=words):
            build((path.parent, coco), tmp_path / "tiles")


def test_windows_of_a_large_jpeg_are_refused(tmp_path):
    save_picture(tmp_path / "images/a.jpg", np.zeros((2100, 2100, 3), np.uint8))
    coco = write_coco(tmp_path / "boxes.json", {"a.jpg": (2100, 2100, [(1, 10, 10, 20, 20)])})
    with pytest.raises(UserError, match="--tile-format none is for GeoTIFF, pass png or npy"):
        build((tmp_path / "images", coco), tmp_path / "tiles", TileOptions(form="none"))


# ------------------------------------------------------------------------------------------------ a cache


def test_the_second_run_opens_no_image(data, tmp_path, monkeypatch):
    first, _ = build(data, tmp_path / "tiles")
    before = content(tmp_path / "tiles")

    def refuse(path):
        raise AssertionError(f"{path} was opened")

    monkeypatch.setattr(image_files, "open_raster", refuse)
    monkeypatch.setattr(image_files, "describe", refuse)
    said = []
    classes, images, _ = read_labels(*data, known=known_headers(tmp_path / "tiles"))
    again, unreadable = make_tiles(tmp_path / "tiles", data[0], classes, images, SMALL, note=said.append)
    assert said == [] and unreadable == {} and len(again.tiles) == len(first.tiles) and content(tmp_path / "tiles") == before
    assert DetectionTiles(again).fingerprint() == DetectionTiles(first).fingerprint()


def touch(path):
    save_picture(path, picture(300, 220, seed=99))


def relabel(data):
    rows = json.loads(data[1].read_text())
    rows["annotations"][0]["bbox"][0] = 3
    data[1].write_text(json.dumps(rows))


def drop_image(data, name):
    rows = json.loads(data[1].read_text())
    gone = next(row for row in rows["images"] if row["file_name"] == name)
    rows["images"].remove(gone)
    rows["annotations"] = [row for row in rows["annotations"] if row["image_id"] != gone["id"]]
    data[1].write_text(json.dumps(rows))


def add_image(data, name):
    rows = json.loads(data[1].read_text())
    save_picture(data[0] / name, picture(200, 130, seed=7))
    rows["images"].append({"id": 77, "file_name": name, "width": 200, "height": 130})
    data[1].write_text(json.dumps(rows))


# what changes: (change of the data, options, label map, in the line that says why, tiles of 18 that stay)
CHANGES = {
    "tile size": (None, TileOptions(size=(100, 128), overlap=32), None, "tile_size", 0),
    "overlap": (None, TileOptions(size=(128, 128), overlap=80), None, "overlap: 32 → 80", None),
    "negatives": (None, TileOptions(size=(128, 128), overlap=32, negatives=0.3), None, "negatives: 1.0 → 0.3", None),
    "visibility": (None, TileOptions(size=(128, 128), overlap=32, min_visibility=0.7), None, "min_visibility", 18),
    "bands": (None, TileOptions(size=(128, 128), overlap=32, bands=("3", "2", "1")), None, "bands", 0),
    "format": (None, TileOptions(size=(128, 128), overlap=32, form="npy"), None, "store", 0),
    "no files": (None, TileOptions(size=(128, 128), overlap=32, form="none"), None, "store", None),
    "a label": (relabel, SMALL, None, "1 image labelled otherwise", 18),
    "a class": (None, SMALL, "goat=sheep", "classes", 18),
    "the pixels": (lambda data: touch(data[0] / "image_1.jpg"), SMALL, None, "1 image changed", 12),
    "an image less": (lambda data: drop_image(data, "image_0.jpg"), SMALL, None, "1 image gone", 12),
    "an image more": (lambda data: add_image(data, "another.jpg"), SMALL, None, "1 image new", 18),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_stale_cache_is_made_again_as_far_as_needed_with_one_line_why(data, tmp_path, name):
    change, options, label_map, words, stay = CHANGES[name]
    build(data, tmp_path / "tiles")
    if change:
        change(data)
    said, asked = [], []
    build(data, tmp_path / "tiles", options, said, label_map, starting=asked.append)
    fresh, _ = build(data, tmp_path / "fresh", options, label_map=label_map)
    assert len(said) == 1 and words in said[0]
    assert content(tmp_path / "tiles") == content(tmp_path / "fresh")
    if stay is not None:
        assert asked == [len(fresh.tiles) - stay]
        assert (f"{stay} of" in said[0]) == (stay > 0)
    said.clear()
    build(data, tmp_path / "tiles", options, said, label_map)
    assert said == []


def test_another_scale_costs_nothing(data, tmp_path):
    build(data, tmp_path / "tiles")
    asked = []
    found, _ = build(data, tmp_path / "tiles", TileOptions(size=(128, 128), overlap=32, divide_by="100"), starting=asked.append)
    assert asked == [] and found.divide_by == (100,) * 3


@pytest.mark.parametrize("damage", ["half of the files", "the manifest", "the description", "a cut tile", "torn lines", "the images"])
def test_a_damaged_cache_is_completed_to_the_same_bytes(data, tmp_path, damage):
    folder = tmp_path / "tiles"
    build(data, folder)
    before = content(folder)
    if damage == "half of the files":
        for path in sorted(folder.glob("tile_*"))[::3]:
            path.unlink()
    elif damage == "a cut tile":
        os.truncate(folder / "tile_1_0_0.png", 500)
    elif damage == "torn lines":
        os.truncate(folder / "manifest.jsonl", 1000)
    else:
        (folder / {"the manifest": "manifest.jsonl", "the description": "chipset.json", "the images": "images.jsonl"}[damage]).unlink()
    build(data, folder)
    assert content(folder) == before


def test_the_number_of_workers_changes_no_byte(data, tmp_path):
    """With four, the last image is cut by two of them."""
    for workers in (1, 4):
        build(data, tmp_path / f"tiles_{workers}", workers=workers)
    assert content(tmp_path / "tiles_1") == content(tmp_path / "tiles_4")


OLD = TileOptions(size=(128, 128), overlap=80)


@pytest.mark.parametrize(("after", "old"), [(0, None), (7, None), (17, None), (0, OLD), (9, OLD)])
def test_an_interrupted_build_ends_with_the_same_bytes(data, tmp_path, after, old):
    build(data, tmp_path / "whole")
    if old:
        build(data, tmp_path / "tiles", old)
    done, told = iter(range(after + 1)), []

    def stop(count):
        if next(done, None) is None:
            told.append(stop_signals.Program.text())  # what the line of a real stop says here
            raise KeyboardInterrupt

    try:
        build(data, tmp_path / "tiles", progress=stop)
    except KeyboardInterrupt:
        assert re.match(r"\d+ tiles are safe", told[0])
        with pytest.raises(UserError, match="not finished"):
            read_tile_set(tmp_path / "tiles")
    build(data, tmp_path / "tiles")
    assert content(tmp_path / "tiles") == content(tmp_path / "whole")


def test_a_kill_while_tiles_are_renamed_mixes_none_up(data, tmp_path, monkeypatch):
    """An image that comes first moves all others by one: the names of the new tiles are those of old ones of other images."""
    build(data, tmp_path / "tiles")
    add_image(data, "another.jpg")
    real, left = os.replace, iter(range(25))

    def replace(*names):
        if next(left, None) is None:
            raise KeyboardInterrupt
        real(*names)

    monkeypatch.setattr(tiles.os, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        build(data, tmp_path / "tiles")
    monkeypatch.undo()
    build(data, tmp_path / "tiles")
    build(data, tmp_path / "fresh")
    assert content(tmp_path / "tiles") == content(tmp_path / "fresh")


def test_two_at_once_make_the_same_cache_and_one_waits(data, tmp_path):
    said, found = [], []
    threads = [threading.Thread(target=lambda: found.append(build(data, tmp_path / "tiles", said=said))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    build(data, tmp_path / "alone")
    assert len(found) == 2 and content(tmp_path / "tiles") == content(tmp_path / "alone")
    assert all("waiting for it" in text for text in said)


def test_a_folder_with_other_things_in_it_is_refused(data, tmp_path):
    (tmp_path / "tiles").mkdir()
    (tmp_path / "tiles/thesis.txt").write_text("x")
    with pytest.raises(UserError, match="not empty and holds no tiles of ours"):
        build(data, tmp_path / "tiles")
    shutil.rmtree(tmp_path / "tiles")
    (tmp_path / "tiles").mkdir()
    (tmp_path / "tiles/tile_0_0_0.json").write_text('{"boxes": []}')  # of another program that has the same names
    with pytest.raises(UserError, match="holds no tiles of ours"):
        build(data, tmp_path / "tiles")
    assert [path.name for path in (tmp_path / "tiles").iterdir()] == ["tile_0_0_0.json"]


# ------------------------------------------------------------------------------------------------ images that fail


@pytest.fixture
def cut_short(data):
    """The data with one image whose second half is missing."""
    path = data[0] / "image_1.jpg"
    os.truncate(path, path.stat().st_size // 2)
    return data


@pytest.mark.parametrize("workers", [1, 2])
def test_a_truncated_image_among_good_ones_is_left_out_and_named(cut_short, tmp_path, workers):
    found, unreadable = build(cut_short, tmp_path / "tiles", workers=workers)
    assert list(unreadable) == ["image_1.jpg"] and [image.name for image in found.images] == ["image_0.jpg", "image_2.jpg"]
    assert len(found.tiles) == 12 and not list((tmp_path / "tiles").glob("tile_1_*"))
    again, unreadable = build(cut_short, tmp_path / "tiles")
    assert list(unreadable) == ["image_1.jpg"] and len(again.tiles) == 12
    with pytest.raises(RunError, match="image_1.jpg cannot be read .*--strict"):
        build(cut_short, tmp_path / "strict", strict=True)
    for name in ("image_0.jpg", "image_2.jpg"):
        os.truncate(cut_short[0] / name, 900)
    with pytest.raises(RunError, match="none of the images can be read"):
        build(cut_short, tmp_path / "none")


def test_a_repaired_image_joins_the_cache(cut_short, tmp_path):
    build(cut_short, tmp_path / "tiles")
    touch(cut_short[0] / "image_1.jpg")
    found, unreadable = build(cut_short, tmp_path / "tiles")
    assert not unreadable and len(found.tiles) == 18 and "skipped.jsonl" not in content(tmp_path / "tiles")


def test_a_tile_that_cannot_be_read_is_ignored_as_a_whole_and_named(data, tmp_path):
    found, _ = build(data, tmp_path / "tiles")
    path = tmp_path / "tiles/tile_1_0_0.png"
    path.write_bytes(bytes(path.stat().st_size))
    batch = DetectionTiles(found, masks=True).__getitems__([5, 6])
    assert [problem.name for problem in batch["problems"]] == ["tile_1_0_0.png"]
    assert batch["ignore"][1].tolist() == [[0, 0, 128, 128]] and len(batch["boxes"][1]) == 0 and not batch["image"][1].any()
    assert batch["masks"][1].shape == (0, 128, 128)
    with pytest.raises(OSError, match="tile 6"):
        DetectionTiles(found)[6]


@pytest.mark.parametrize(("file", "change"), [
    ("manifest.jsonl", lambda line: line.update(file="../../x.png")), ("manifest.jsonl", lambda line: line.update(image=9)),
    ("manifest.jsonl", lambda line: line.update(labels=[7] * len(line["boxes"]))),
    ("manifest.jsonl", lambda line: line.update(boxes=[[1]])), ("chipset.json", lambda line: line.update(count=5)),
    ("manifest.jsonl", lambda line: line.pop("x0")), ("manifest.jsonl", lambda line: line.update(band_sum=[1.0])),
    ("images.jsonl", lambda line: line.update(name="../secret.jpg")), ("images.jsonl", lambda line: line.update(header={})),
    ("images.jsonl", lambda line: line.update(bands=[0, 1, 9])), ("images.jsonl", lambda line: line.update(masks=[None])),
    ("images.jsonl", lambda line: line.update(orientation=9)), ("chipset.json", lambda line: line.update(classes={"boxes": []})),
    ("chipset.json", lambda line: line.update(tile_size=[128])), ("chipset.json", lambda line: line.update(divide_by=[1.0])),
    ("chipset.json", lambda line: line.update(dtype="complex64")), ("chipset.json", lambda line: line.pop("store")),
])
def test_an_index_from_a_stranger_is_checked(data, tmp_path, file, change):
    build(data, tmp_path / "tiles")
    path = tmp_path / "tiles" / file
    lines = [json.loads(path.read_text())] if file.endswith(".json") else [json.loads(line) for line in path.read_text().splitlines()]
    change(lines[0])
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(UserError) as error:
        read_tile_set(tmp_path / "tiles")
    assert "\n" not in str(error.value)


# ------------------------------------------------------------------------------------------------ batches


def test_batches_have_the_promised_keys_types_and_shapes(data, tmp_path):
    found, _ = build(data, tmp_path / "tiles")
    loader = make_loader(DetectionTiles(found), [[0, 3, 17], [4]], as_it_is, workers=1)
    first, second = list(loader)
    assert first["image"].shape == (3, 3, 128, 128) and first["image"].dtype == torch.uint8 and second["image"].shape[0] == 1
    for place in range(3):
        boxes, labels, ignore = (first[key][place] for key in ("boxes", "labels", "ignore"))
        assert boxes.dtype == ignore.dtype == torch.float32 and labels.dtype == torch.int64
        assert boxes.shape == (len(labels), 4) and ignore.shape[1:] == (4,)
    assert first["image_id"] == [1, 1, 3] and first["offset"].tolist()[2] == [172, 92] and first["tile_index"].tolist() == [0, 3, 17]
    assert first["image_index"].tolist() == [0, 0, 2] and first["problems"] == []


@pytest.mark.parametrize("form", ["png", "none"])
def test_what_a_tile_shows_of_a_box_is_what_is_bright_in_it(data, tmp_path, form):
    found, _ = build(data, tmp_path / "tiles", TileOptions(size=(128, 128), overlap=32, form=form))
    checked = 0
    for index in range(len(found.tiles)):
        item = DetectionTiles(found)[index]
        for box in (*item["boxes"], *item["ignore"]):
            x0, y0, x1, y1 = box.round().int().tolist()
            part = item["image"][:, y0 + 2 : y1 - 2, x0 + 2 : x1 - 2].float()
            if part.numel():
                checked += 1
                assert part.mean() > 140
    assert checked > 12


def test_tiles_without_objects_have_boxes_of_shape_0_4(data, tmp_path):
    found, _ = build(data, tmp_path / "tiles")
    empty = [k for k, tile in enumerate(found.tiles) if not len(tile.boxes)]
    batch = DetectionTiles(found).__getitems__(empty)
    assert len(empty) > 2 and all(boxes.shape == (0, 4) for boxes in batch["boxes"]) and all(x.shape == (0,) for x in batch["labels"])


def test_kept_tiles_are_the_same_and_come_from_memory(data, tmp_path):
    found, _ = build(data, tmp_path / "tiles")
    kept, plain = DetectionTiles(found, memory=1 << 30), DetectionTiles(found)
    first = kept.__getitems__([1, 2])["image"]
    (tmp_path / "tiles/tile_0_96_0.png").unlink()
    assert torch.equal(kept.__getitems__([1, 2])["image"], first) and len(plain.__getitems__([1])["problems"]) == 1


def test_masks_are_outlines_or_boxes(data, tmp_path):
    rows = json.loads(data[1].read_text())
    x, y, w, h = rows["annotations"][0]["bbox"]
    rows["annotations"][0]["segmentation"] = [[x, y, x + w, y, x, y + h]]
    data[1].write_text(json.dumps(rows))
    found, _ = build(data, tmp_path / "tiles", TileOptions(size=(300, 220), overlap=0))
    item = DetectionTiles(found, masks=True)[0]
    areas = item["masks"].sum(dim=(1, 2)).tolist()
    sides = (item["boxes"][:, 2:] - item["boxes"][:, :2]).prod(dim=1).tolist()
    assert item["masks"].dtype == torch.bool and abs(areas[0] - sides[0] / 2) <= (w + h) / 2 and areas[1:] == sides[1:]


def test_whole_images_are_items_with_the_same_keys(data, tmp_path):
    found, _ = build(data, tmp_path / "tiles")
    item, truth = DetectionImages(found)[1], truths(found)[1]
    with rasterio.open(data[0] / "image_1.jpg") as dataset:
        assert (item["image"].numpy() == dataset.read()).all()
    assert np.allclose(item["boxes"], truth["boxes"]) and item["labels"].tolist() == truth["labels"].tolist() and truth["width"] == 300
    os.truncate(data[0] / "image_1.jpg", 900)
    with pytest.raises(OSError, match="image_1.jpg cannot be read"):
        DetectionImages(found)[1]


def test_negatives_are_a_share_of_the_empty_tiles_and_nested(tmp_path):
    data = example(tmp_path, count=2, size=(400, 300), per_image=2)
    sets = {s: build(data, tmp_path / f"tiles_{s}", TileOptions(size=(48, 48), overlap=16, negatives=s))[0] for s in (0.0, 0.3, 0.6, 1.0)}
    places = {s: {(t.image, t.x0, t.y0) for t in found.tiles if not len(t.boxes)} for s, found in sets.items()}
    busy = {s: {(t.image, t.x0, t.y0) for t in found.tiles if len(t.boxes)} for s, found in sets.items()}
    assert places[0.0] == set() and places[0.3] < places[0.6] < places[1.0] and len({frozenset(b) for b in busy.values()}) == 1
    assert abs(len(places[0.3]) / len(places[1.0]) - 0.3) < 0.1
    thinned = sets[1.0].with_negatives(0.3)
    assert {(t.image, t.x0, t.y0) for t in thinned.tiles if not len(t.boxes)} == places[0.3]


def test_only_empty_images_and_no_negatives_is_an_error(tmp_path):
    data = example(tmp_path, count=2)
    rows = json.loads(data[1].read_text())
    rows["annotations"] = []
    data[1].write_text(json.dumps(rows))
    images = read_labels(*data, classes=("sheep",))[1]
    with pytest.raises(UserError, match="--negatives 1"):
        make_tiles(tmp_path / "tiles", data[0], ("sheep",), images, TileOptions(negatives=0))
    assert len(make_tiles(tmp_path / "all", data[0], ("sheep",), images)[0].tiles) == 2


# ------------------------------------------------------------------------------------------------ caches of a run


def test_a_run_has_a_cache_for_each_split_and_only_training_leaves_tiles_out(data, tmp_path):
    caches = Caches(output_dir=tmp_path / "output", options=TileOptions(size=(64, 64), overlap=0, negatives=0))
    classes, images, _ = read_labels(*data, known=caches.headers())
    train, _ = caches.tiles("train", data[0], classes, images[:2])
    val, _ = caches.tiles("val", data[0], classes, images[2:])
    assert all(len(tile.boxes) for tile in train.tiles) and len(val.tiles) == 5 * 4 and len(caches.headers()) == 3
    assert sorted(p.name for p in (tmp_path / "output").iterdir()) == ["tile_cache_train", "tile_cache_val"]


def test_a_folder_of_make_tiles_serves_all_splits_and_one_that_does_not_fit_stays(data, tmp_path):
    build(data, tmp_path / "tiles")
    before = content(tmp_path / "tiles")
    said = []
    classes, images, _ = read_labels(*data)
    options = TileOptions(size=(128, 128), overlap=32, negatives=0.5)
    caches = Caches(output_dir=tmp_path / "output", cache_dir=tmp_path / "tiles", options=options)
    train, _ = caches.tiles("train", data[0], classes, images[:2], note=said.append)
    val, _ = caches.tiles("val", data[0], classes, images[2:], note=said.append)
    assert said == [] and [i.name for i in train.images] == ["image_0.jpg", "image_1.jpg"] and len(val.tiles) == 6
    assert {tile.image for tile in train.tiles} == {0, 1} and len(train.tiles) < 12
    other = Caches(output_dir=tmp_path / "output", cache_dir=tmp_path / "tiles", options=TileOptions(size=(64, 64), overlap=32))
    found, _ = other.tiles("val", data[0], classes, images[2:], note=said.append)
    assert found.folder == tmp_path / "tiles/tile_cache_val" and "does not hold these tiles" in said[0]
    assert {n: b for n, b in before.items()} == {p.name: p.read_bytes() for p in (tmp_path / "tiles").iterdir() if p.is_file()}


# ------------------------------------------------------------------------------------------------ programs


def test_make_tiles_and_inspect_say_what_there_is(data, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["make-tiles", "--images", str(data[0]), "--annotations", str(data[1]), "--output-dir", "tiles", "--tile-size", "128x100",
             "--overlap", "20"]
    assert not main(words)
    out = capsys.readouterr().out
    assert "--cache-dir tiles --val 0.2 --tile-size 128x100 --overlap 20\n" in out
    assert "3 images, 12 boxes (sheep 6, goat 6)" in out and "tiles of 128×100 pixels, 3 bands (PNG files) in tiles" in out
    main(["inspect", "tiles"])
    out = capsys.readouterr().out
    assert "12 boxes in the images" in out and "sheep: 6 boxes, side" in out and Image.open("tiles/contact_sheet.png").width > 500
    main(["inspect", "tiles", "--class-colours", "goat=#0a141e"])
    capsys.readouterr()
    assert (np.asarray(Image.open("tiles/contact_sheet.png")) == (10, 20, 30)).all(axis=2).sum() > 200
    main(words)  # the sheet is no stranger
    main(["inspect", str(data[0]), "--annotations", str(data[1]), "--label-map", "goat=sheep"])
    assert "300×220 pixels, 3 bands uint8, 0 of 3 georeferenced" in capsys.readouterr().out and Image.open("boxes.png").width > 500
    with pytest.raises(UserError, match="boxes.png exists already; pass --overwrite"):
        main(["inspect", str(data[0]), "--annotations", str(data[1])])
    with pytest.raises(UserError, match="no class 'cow'"):
        main(["inspect", str(data[0]), "--annotations", str(data[1]), "--class-colours", "cow=#0a141e", "--no-pictures"])
    for path, *more in (("tiles", "--label-map", "a=b"), (str(data[0]),)):
        with pytest.raises(UserError, match="pass --annotations"):
            main(["inspect", path, *more])
    with pytest.raises(UserError, match="needs --images"):
        main(["make-tiles"])


def test_drawn_boxes_have_the_colours_of_their_classes(data, tmp_path):
    from constants import OTHER_COLOURS
    from pictures.box_overlays import draw_boxes

    black = np.zeros((100, 200, 3), np.uint8)
    drawn = draw_boxes(black, [[10, 20, 60, 50]], [2], [[100, 10, 150, 90]])
    assert tuple(drawn[20, 30]) == OTHER_COLOURS[2] == tuple(drawn[49, 59]) and not drawn[35, 30].any() and drawn[10, 100].any()
    small = draw_boxes(black, [[10, 20, 60, 50]], [1], side=50)
    assert small.shape == (25, 50, 3) and tuple(small[5, 2]) == OTHER_COLOURS[1] and not black.any()


@pytest.mark.slow
def test_a_killed_make_tiles_continues_to_the_same_bytes(tmp_path):
    data = example(tmp_path, count=6, size=(1200, 900))
    words = [sys.executable, "chip.py", "make-tiles", "--images", str(data[0]), "--annotations", str(data[1]), "--tile-size", "128",
             "--overlap", "32", "--workers", "2", "--output-dir"]
    subprocess.run([*words, str(tmp_path / "whole")], cwd=ROOT, check=True, capture_output=True)
    for number, seconds in ((signal.SIGKILL, 0.1), (signal.SIGTERM, 0.2), (signal.SIGINT, 0.3)):
        process = subprocess.Popen([*words, str(tmp_path / "tiles")], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        deadline, before = time.monotonic() + 60, len(list((tmp_path / "tiles").glob("tile_*.png")))
        while process.poll() is None and time.monotonic() < deadline and len(list((tmp_path / "tiles").glob("tile_*.png"))) == before:
            time.sleep(0.02)
        time.sleep(seconds)
        process.send_signal(number)
        assert process.wait(60) in (0, -signal.SIGKILL, 143, 130)
        assert b"Traceback" not in process.stderr.read()
    subprocess.run([*words, str(tmp_path / "tiles")], cwd=ROOT, check=True, capture_output=True)
    assert content(tmp_path / "tiles") == content(tmp_path / "whole")


def test_memory_does_not_grow_with_the_image(tmp_path):
    """A reader keeps at most a row of tiles of a file whose blocks are rows, and nothing of a tiled one."""
    profile = dict(driver="GTiff", count=1, dtype="uint8", width=4000, height=3000, crs="EPSG:32633", transform=from_origin(0, 0, 1, 1))
    (tmp_path / "images").mkdir()
    for name, more in (("rows", {}), ("tiled", dict(tiled=True, blockxsize=256, blockysize=256))):
        with rasterio.open(tmp_path / f"images/{name}.tif", "w", **profile, **more) as dataset:
            dataset.write(np.zeros((1, 3000, 4000), np.uint8))
    coco = write_coco(tmp_path / "boxes.json", {f"{n}.tif": (4000, 3000, [(1, 10, 10, 20, 20)]) for n in ("rows", "tiled")})
    found, _ = build((tmp_path / "images", coco), tmp_path / "tiles", TileOptions(form="none"))
    for place in (0, 1):
        with found.reader(place) as reader:
            pixels, _ = found.window(reader, place, 512, 1024, 512, 512)
            kept = 0 if reader.slab is None else reader.slab.size
        assert pixels.shape == (1, 512, 512) and kept == (512 * 4000 if place == 0 else 0)


def test_every_command_of_the_page_runs_as_written(tmp_path, monkeypatch, make_raster, capsys):
    import re
    import shlex

    page = (ROOT / "docs/detection.md").read_text(encoding="utf-8")
    commands = [line for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL) for line in block.replace("\\\n", " ").splitlines()]
    commands = [line for line in commands if line.startswith("python chip.py")]
    monkeypatch.chdir(tmp_path)
    images, coco = example(tmp_path)
    coco.rename("train.json")
    for name in ("unknown", "Dead"):
        save_picture(f"frames/{name}.jpg", picture(90, 70))
        write_voc("labels", name, (90, 70), [("Alive", 1, 1, 20, 20), (name, 30, 30, 50, 50)])
    make_raster("ortho/a.tif", np.full((3, 60, 90), 9, np.uint8), crs="EPSG:4326", transform=from_origin(10, 50, 1e-5, 1e-5))
    cow = {"type": "Feature", "properties": {}, "geometry": {"type": "Point", "coordinates": [10.0004, 49.9997]}}
    (tmp_path / "cows.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [cow]}))
    for command in commands:
        assert not main(shlex.split(command)[2:]), command
    assert len(commands) == 6 and "2 boxes" not in capsys.readouterr().err
    found = read_tile_set("tiles-points")
    sides = found.images[0].boxes[0, 2:] - found.images[0].boxes[0, :2]  # a hundred-thousandth of a degree there: 0.717 m by 1.112 m
    assert found.classes == ("object",) and np.allclose(sides, (6 / 0.717, 6 / 1.112), rtol=0.005)
