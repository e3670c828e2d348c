"""A tensor warehouse: what becomes of frames and boxes, the same bytes whatever happens on the way, and nothing damaged is read."""

import builtins
import errno
import hashlib
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from box_factory import example, save_picture, write_voc
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import chip
from chipping import make_warehouse as making
from chipping import warehouse as reading
from chipping import warehouse_worker as working
from chipping.frame_boxes import fill_slots, resolve_boxes
from chipping.frame_sources import from_runs
from chipping.make_warehouse import WarehouseOptions, make_warehouse
from chipping.mask_boxes import boxes_of
from chipping.warehouse import open_warehouse
from chipping.warehouse_split import split_runs
from raster.letterbox import Letterbox
from runtime.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
SIZE = (64, 48)
SMALL = ["--target-size", "32x32"]
TARGET = {"target_size": (32, 32)}


def run(*words):
    return chip.main([str(word) for word in words]) or 0


def noise(size=SIZE, seed=0):
    return np.random.default_rng(seed).integers(0, 120, (size[1], size[0], 3), dtype=np.uint8)


def box(px=None, size=SIZE, **more):
    """An entry of a label file; px and norm agree unless `more` says otherwise."""
    norm = None if px is None else [px[0] / size[0], px[1] / size[1], px[2] / size[0], px[3] / size[1]]
    return {"bbox_px": px, "bbox_norm": norm, "source": "sim_auto", **more}


def write_run(folder, frames, schema=1, size=SIZE, key="labels"):
    """frames: {number: [entries] or fields of the label file}. Pixels depend on the run's name and the number."""
    (folder / "labels").mkdir(parents=True, exist_ok=True)
    if schema is not None:
        (folder / "run_manifest.json").write_text(json.dumps({"schema_version": schema, "seed": 3, "run_dir": folder.name}))
    for number, fields in frames.items():
        name = f"frame_{number:05d}"
        fields = fields if isinstance(fields, dict) else {key: fields}
        label = {"frame_id": number, "image": f"images/{name}.png", "image_present": True, "label_seed": 1, "unknown": {"a": 1}, **fields}
        (folder / "labels" / f"{name}.json").write_text(json.dumps(label))
        seed = int(hashlib.sha256(f"{folder.name}{number}".encode()).hexdigest()[:6], 16)
        save_picture(folder / "images" / f"{name}.png", noise(size, seed))
    return folder


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Two runs of five frames and one of four, with 0 to 2 boxes, in captures/, and the warehouse of them in art/."""
    folder = tmp_path_factory.mktemp("original")
    for number, count in enumerate((5, 5, 4)):
        entries = {k: [box([4 * k, 3, 4 * k + 9, 20]), box([40, 30, 60, 44])][: k % 3] for k in range(count)}
        write_run(folder / "captures" / f"run_{number}", entries)
    make(folder / "captures", folder / "art")
    return folder


@pytest.fixture
def captures(original, tmp_path):
    """A copy of the runs."""
    return shutil.copytree(original / "captures", tmp_path / "captures")


@pytest.fixture
def version(original, tmp_path):
    """A copy of the warehouse's version, in art/."""
    return next(shutil.copytree(original / "art", tmp_path / "art").glob("v*"))


def make(captures, root, said=None, **options):
    source = from_runs([captures])
    more = {key: options.pop(key) for key in ("workers", "progress") if key in options}
    note = (said if said is not None else []).append
    return make_warehouse(root, source, WarehouseOptions(**{**TARGET, **options}), note=note, warn=note, **more)[0]


def tree(folder):
    """{path: content} of what make-warehouse has made."""
    paths = [p for p in Path(folder).rglob("*") if p.is_file() and p.name != ".verified.json"]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


def ids(warehouse):
    return [sample.id for sample in warehouse.samples]


# ------------------------------------------------------------------------------------------------ boxes


@pytest.mark.parametrize("px, norm, expected, counted", [
    ([10, 5, 20, 30], None, [10, 5, 20, 30], None),
    (None, [0.25, 0.5, 0.5, 1], [16, 24, 32, 48], None),
    ([10, 5, 20, 30], [10 / 64, 5 / 48, 20 / 64, 30 / 48], [10, 5, 20, 30], None),
    ([10, 5, 20, 30], [0.25, 0.5, 0.5, 1], [16, 24, 32, 48], "box_conflict"),
    ([-6, -2, 20, 30], None, [0, 0, 20, 30], "boxes_clipped"),
    ([-500, 10, 1, 20], None, [0, 10, 1, 20], "boxes_clipped"),  # one column of 501 is left, and kept
    ([-500, 10, 0.5, 20], None, None, "boxes_thin"),
    ([64, 10, 80, 20], None, None, "boxes_outside"),
    ([20, 30, 10, 5], None, [10, 5, 20, 30], "boxes_reordered"),
    ([10, 5, 10, 30], None, None, "boxes_thin"),
    ([10, 5, float("nan"), 30], None, None, "boxes_without_numbers"),
    ([10, 5, float("inf"), 30], [0.25, 0.5, 0.5, 1], [16, 24, 32, 48], None),
    (None, None, None, "boxes_without_numbers"),
])
def test_a_box_is_clipped_and_not_dropped_as_long_as_a_pixel_of_it_is_left(px, norm, expected, counted):
    rows = [[[np.nan] * 4 if row is None else row] for row in (px, norm)]
    boxes, labels, counts = resolve_boxes(*rows, [3], SIZE)
    kept = [] if expected is None else [expected]
    assert np.allclose(boxes, np.reshape(kept, (-1, 4))) and labels.tolist() == [3] * len(kept)
    assert {key: count for key, count in counts.items() if count} == ({counted: 1} if counted else {})


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 900), st.integers(2, 900), st.lists(st.tuples(*[st.floats(-1000, 2000)] * 4), max_size=12), st.integers(1, 6))
def test_slots_hold_the_largest_boxes_and_map_back_to_the_frame(w, h, rows, slots):
    boxes, labels, counts = resolve_boxes(rows, np.full((len(rows), 4), np.nan), range(len(rows)), (w, h))
    gone = counts["boxes_thin"] + counts["boxes_outside"]
    assert len(boxes) == len(rows) - gone
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    assert (np.diff(areas) <= 0).all() and (boxes >= 0).all() and (boxes <= [w, h, w, h]).all()
    for row, label in zip(boxes, labels.tolist(), strict=True):
        x0, y0, x1, y1 = rows[label]
        assert np.allclose(row, [max(0, min(x0, x1)), max(0, min(y0, y1)), min(w, max(x0, x1)), min(h, max(y0, y1))])
    letterbox = Letterbox((w, h), (96, 64))
    stored, mask, numbers = fill_slots(boxes, labels + 1, letterbox, slots)
    count = min(slots, len(boxes))
    assert mask.tolist() == [True] * count + [False] * (slots - count) and (numbers[count:] == 0).all() and (stored[count:] == 0).all()
    assert np.abs(letterbox.inverse(stored[:count] * np.float64([96, 64, 96, 64])) - boxes[:count]).max(initial=0) < 2e-4 * max(w, h) / 96


# ------------------------------------------------------------------------------------------------ capture runs


def test_a_sample_is_its_letterboxed_frame_with_boxes_that_map_back(tmp_path, captures):
    warehouse = make(captures, tmp_path / "art")
    assert ids(warehouse) == [f"run_{r}/frame_{k:05d}" for r, count in enumerate((5, 5, 4)) for k in range(count)]
    batch = warehouse.read([7, 2])
    assert {key: (array.shape, array.dtype.name) for key, array in batch.items()} == {
        "images": ((2, 3, 32, 32), "uint8"), "boxes": ((2, 16, 4), "float32"), "mask": ((2, 16), "bool"), "labels": ((2, 16), "int64")}
    for place, index in enumerate((7, 2)):
        sample = warehouse.samples[index]
        frame = np.asarray(Image.open(captures / sample.run / "images" / f"frame_{sample.frame_id:05d}.png"))
        assert (batch["images"][place] == Letterbox(SIZE, (32, 32)).resize(frame)).all()
        assert sample.n_boxes == 2 == batch["mask"][place].sum() and batch["labels"][place].tolist() == [1, 1] + [0] * 14
        found = warehouse.letterbox(index).inverse(batch["boxes"][place][:2].astype(np.float64) * 32)
        expected = [[40, 30, 60, 44], [8, 3, 17, 20]]  # the larger one first
        assert np.abs(found - expected).max() < 1e-4
        assert sample.src_size == SIZE and np.allclose(sample.affine, (0.5, 0.5, 0, 4)) and sample.classes == (1, 1)
    assert warehouse.target_size == (32, 32) and warehouse.resize_mode == "letterbox" and warehouse.max_boxes == 16
    assert warehouse.classes == ("object",) and len(warehouse) == 14
    copy = pickle.loads(pickle.dumps(warehouse))
    assert (copy.read([7])["images"][0] == batch["images"][0]).all() and (copy.split("val") == warehouse.split("val")).all()
    with pytest.raises(IndexError):
        warehouse.read([14])


def test_both_generations_of_labels_are_read_side_by_side(tmp_path):
    new, old = tmp_path / "captures" / "run_1", tmp_path / "captures" / "run_2"
    write_run(new, {1: [box([4, 4, 20, 20])]}, schema="V1")
    write_run(old, {1: {"polyp_labels": [box([4, 4, 20, 20])], "polyp_seed": 7}}, schema=None)
    (old / "images" / "frame_00001.png").rename(old / "frame_00001.png")  # as in the oldest runs
    said = []
    warehouse = make(tmp_path / "captures", tmp_path / "art", said)
    source_said = []
    from_runs([tmp_path / "captures"], warn=source_said.append, note=source_said.append)
    assert not said
    assert [sample.n_boxes for sample in warehouse.samples] == [1, 1]
    assert any("1 run without a run_manifest.json, first run_2" in text for text in source_said)
    assert any("both generations: 1 files say polyp_labels, 1 say labels" in text for text in source_said)
    batch = warehouse.read([0, 1])
    assert (batch["boxes"][0] == batch["boxes"][1]).all()


def test_class_ids_become_classes_in_their_order(tmp_path):
    write_run(tmp_path / "run_1", {1: [box([4, 4, 20, 20], class_id=5), box([30, 10, 60, 40])], 2: []})
    warehouse = make(tmp_path / "run_1", tmp_path / "art")
    assert warehouse.classes == ("class_0", "class_5") and warehouse.read([0])["labels"][0, :3].tolist() == [1, 2, 0]
    source = from_runs([tmp_path / "run_1"], ("a", "b", "c", "d", "e", "f", "g"))
    assert len(source.classes) == 7 and source.frames[0].labels.tolist() == [6, 1]
    with pytest.raises(UserError, match="--classes has 2 names, labels have class_id 5"):
        from_runs([tmp_path / "run_1"], ("a", "b"))


def test_frames_that_cannot_be_used_are_left_out_counted_and_listed(tmp_path):
    run_1 = write_run(tmp_path / "captures" / "run_1", {k: [box([4, 4, 20, 20])] for k in range(12)})
    images, labels = run_1 / "images", run_1 / "labels"
    (images / "frame_00001.png").write_bytes((images / "frame_00001.png").read_bytes()[:900])
    (images / "frame_00002.png").unlink()
    write_run(run_1, {3: {"labels": [], "image_present": False}})
    (labels / "frame_00004.json").write_text('{"frame_id": 4, ')
    write_run(run_1, {5: {"frame_id": 5}})
    write_run(run_1, {6: [{"bbox_px": "4,4,20,20"}]})
    write_run(run_1, {7: {"labels": [box([1, 1, 9, 9])], "frame_id": 0}})
    write_run(run_1, {8: {"labels": [], "polyp_labels": [box([1, 1, 9, 9])]}})
    write_run(run_1, {9: []})
    (labels / "frame_00010.json").unlink()
    save_picture(images / "frame_00011.png", noise((30, 70)))  # another size: mapped by its own numbers
    write_run(tmp_path / "captures" / "run_2", {1: []})
    said = []
    source = from_runs([tmp_path / "captures"], warn=said.append, note=said.append)
    warehouse, _ = make_warehouse(tmp_path / "art", source, WarehouseOptions(**TARGET))
    assert ids(warehouse) == [f"run_1/frame_{k:05d}" for k in (0, 9, 11)] + ["run_2/frame_00001"]
    assert warehouse.samples[2].src_size == (30, 70)
    left = {entry["id"]: entry["reason"] for entry in warehouse.manifest["skipped"]}
    reasons = ["unreadable", "missing_image", "missing_image", "invalid", "invalid", "invalid", "duplicate", "invalid"]
    assert left == {f"run_1/frame_{k:05d}": reason for k, reason in enumerate(reasons, start=1)}
    totals = warehouse.manifest["summary"]["totals"]
    assert {key: totals[key] for key in ("frames", "stored", "stored_empty", "unreadable", "missing_image", "invalid", "duplicate",
                                         "unlabelled", "boxes")} == {
        "frames": 12, "stored": 4, "stored_empty": 2, "unreadable": 1, "missing_image": 2, "invalid": 4, "duplicate": 1, "unlabelled": 1,
        "boxes": 2}
    assert any("1 image of run_1 have no label file" in text for text in said)
    assert str(tmp_path) not in (warehouse.folder / "manifest.json").read_text()


def test_a_frame_without_its_image_does_not_stand_in_the_way_of_a_later_label_of_the_same_frame(tmp_path):
    run_1 = write_run(tmp_path / "captures" / "run_1", {k: [box([4, 4, 20, 20])] for k in range(3)})
    (run_1 / "images" / "frame_00001.png").unlink()
    write_run(run_1, {5: {"labels": [box([6, 6, 30, 30])], "frame_id": 1}})
    warehouse = make(tmp_path / "captures", tmp_path / "art")
    assert ids(warehouse) == [f"run_1/frame_{k:05d}" for k in (0, 5, 2)]  # in the order of their frame_id
    assert [entry["reason"] for entry in warehouse.manifest["skipped"]] == ["missing_image"]


def test_rows_move_up_over_frames_that_are_left_out_also_across_shards(tmp_path):
    """The arrays are those of a warehouse of which the unreadable frames were never a part."""
    for name in ("whole", "holed"):
        for number in range(2):
            write_run(tmp_path / name / f"run_{number}", {k: [box([4 * k, 3, 4 * k + 9, 20])] for k in range(8)})
    for number, k in ((0, 0), (0, 3), (0, 4), (1, 7)):
        (tmp_path / "holed" / f"run_{number}" / "images" / f"frame_0000{k}.png").write_bytes(b"no picture")
        for part, end in (("images", "png"), ("labels", "json")):
            (tmp_path / "whole" / f"run_{number}" / part / f"frame_0000{k}.{end}").unlink()
    one, two = (make(tmp_path / name, tmp_path / f"art-{name}", shard_samples=5) for name in ("whole", "holed"))
    assert one.version == two.version and len(one) == 12 and len(one.manifest["shards"]) == 3
    assert one.manifest["shards"] == two.manifest["shards"]
    names = [name for name in tree(one.folder) if name != "manifest.json"]  # which lists what is left out
    assert {name: tree(one.folder)[name] for name in names} == {name: tree(two.folder)[name] for name in names}
    open_warehouse(two.folder)


def test_more_boxes_than_slots_and_empty_frames_are_told(tmp_path, captures):
    write_run(captures / "run_0", {20: [box([x, 5, x + 2 + x // 4, 15]) for x in range(0, 50, 8)]})
    warehouse = make(captures, tmp_path / "art", max_boxes=3, skip_empty=True)
    totals = warehouse.manifest["summary"]["totals"]
    assert totals["boxes_over"] == 4 and totals["empty"] == 6 and totals["stored"] == 9 and totals["frames"] == 15
    index = ids(warehouse).index("run_0/frame_00020")
    widths = np.diff(warehouse.read([index])["boxes"][0][:, [0, 2]], axis=1).ravel() * 64
    assert np.allclose(widths, [14, 12, 10])
    assert all(sample.n_boxes for sample in warehouse.samples)


@pytest.mark.parametrize("fields, message", [
    ({"image": "../run_1/images/frame_00001.png"}, "outside of"), ({"image": "/etc/hostname"}, "outside of"),
])
def test_an_image_outside_of_its_run_is_refused(tmp_path, captures, fields, message):
    write_run(captures / "run_0", {1: {"labels": [], **fields}})
    with pytest.raises(UserError, match=message):
        make(captures, tmp_path / "art")
    assert not (tmp_path / "art").exists()


@pytest.mark.parametrize("prepare, message", [
    (lambda folder: None, "holds no capture run; expected folders run_…/ with labels"),
    (lambda folder: (folder / "run_1" / "labels").mkdir(parents=True), "no frame is left to store: 0 frames"),
    (lambda folder: write_run(folder / "run_1", {1: [], 2: []}), "no frame has a box that can be kept: 2 frames"),
    (lambda folder: write_run(folder / "run_1", {1: [box([70, 1, 90, 9])]}), "1 boxes outside of the frame left out; expected frames"),
    (lambda folder: (write_run(folder / "run_1", {1: [box([1, 1, 9, 9])]})
                     / "images/frame_00001.png").write_bytes(b""), "no frame is left to store: 1 frame, 1 unreadable"),
    (lambda folder: write_run(folder / "run_1", {1: [box([1, 1, 9, 9])]}, schema=2), 'has schema_version 2; expected 1 or "V1"'),
])
def test_runs_without_anything_to_learn_from_are_an_error_and_leave_nothing(tmp_path, prepare, message):
    (tmp_path / "captures").mkdir()
    prepare(tmp_path / "captures")
    with pytest.raises(UserError, match=message):
        make(tmp_path / "captures", tmp_path / "art")
    assert not (tmp_path / "art").exists() or not list((tmp_path / "art").iterdir())


@pytest.mark.parametrize("words, message", [
    (["--max-invalid", "0"], "1 of 14 frames are invalid, --max-invalid allows 0"), (["--max-invalid", "5%"], "--max-invalid allows 0"),
    (["--max-empty", "4"], "6 of 14 frames are empty, --max-empty allows 4"), (["--strict"], "1 of 14 frames are invalid"),
    (["--max-missing", "1", "--max-invalid", "10%", "--max-empty", "50%"], None),
])
def test_limits_end_a_run_before_anything_is_in_place(tmp_path, captures, words, message):
    (captures / "run_0" / "images" / "frame_00001.png").write_bytes(b"no picture")
    command = ["make-warehouse", "--runs", captures, "--output-root", tmp_path / "art", *SMALL, *words]
    if message is None:
        assert run(*command) == 0
        return
    with pytest.raises(UserError, match=message):
        run(*command)
    assert not list((tmp_path / "art").glob("v*")) and not (tmp_path / "art" / "latest").exists()


# ------------------------------------------------------------------------------------------------ splits


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=9), st.floats(0, 0.9), st.integers(0, 99))
def test_whole_runs_are_for_validation_as_many_as_are_needed(counts, ratio, seed):
    runs = [f"run_{number}" for number, count in enumerate(counts) for _ in range(count)]
    splits, unit = split_runs(runs, ratio, seed)
    per_run = {run: {s for r, s in zip(runs, splits, strict=True) if r == run} for run in runs}
    held = splits.count("val")
    assert "train" in splits
    if len(counts) == 1:
        assert splits == sorted(splits) and (unit == "last part" or not held)
        assert held == (0 if ratio == 0 or len(runs) < 2 else min(len(runs) - 1, max(1, -int(-(ratio * len(runs) - 1e-9) // 1))))
        return
    assert all(len(found) == 1 for found in per_run.values())
    if ratio > 0 and list(per_run.values()).count({"train"}) > 1:
        assert held >= ratio * len(runs) - 1e-6
    order = sorted(per_run, key=lambda run: hashlib.sha256(f"{seed}:{run}".encode()).hexdigest())
    chosen = [run for run in order if per_run[run] == {"val"}]
    assert chosen == order[: len(chosen)]
    if chosen:
        assert held - counts[int(chosen[-1][4:])] < ratio * len(runs)  # not one more than needed


def test_a_single_run_gives_its_last_part_with_a_warning(tmp_path, capsys):
    write_run(tmp_path / "run_1", {k: [box([1, 1, 20, 20])] for k in range(11)})
    run("make-warehouse", "--input-root", tmp_path / "run_1", "--output-root", tmp_path / "art", *SMALL, "--quiet")
    assert "warning: there is one run only: its last part is for validation" in capsys.readouterr().err
    assert open_warehouse(tmp_path / "art").split("val").tolist() == [8, 9, 10]


# ------------------------------------------------------------------------------------------------ the same bytes


def test_two_workers_make_the_bytes_of_one(tmp_path, captures):
    one, two = (make(captures, tmp_path / f"art{n}", workers=n, shard_samples=4) for n in (1, 2))
    assert tree(tmp_path / "art1") == tree(tmp_path / "art2") and len(one.manifest["shards"]) == 4
    assert (tmp_path / "art1" / "latest").read_text() == f"v{two.version}\n"


def test_the_version_is_that_of_content_and_settings(tmp_path, captures):
    first = make(captures, tmp_path / "art")
    stamps = {p: p.stat().st_mtime_ns for p in first.folder.iterdir()}
    shutil.copytree(captures, tmp_path / "elsewhere")
    said = []
    assert make_warehouse(tmp_path / "art", from_runs([captures]), WarehouseOptions(**TARGET))[1]
    assert make(tmp_path / "elsewhere", tmp_path / "art").version == first.version  # read again, and found to be the same
    os.utime(captures / "run_0" / "images" / "frame_00000.png")
    assert make(captures, tmp_path / "art", said).version == first.version and not said
    assert {p: p.stat().st_mtime_ns for p in first.folder.iterdir() if p in stamps} == stamps
    versions = {first.version}
    save_picture(captures / "run_0" / "images" / "frame_00000.png", noise(seed=99))
    for options in ({}, {"resize_mode": "force"}, {"max_boxes": 3}, {"shard_samples": 5}, {"split_seed": 1}, {"skip_empty": True}):
        versions.add(make(captures, tmp_path / "art", **options).version)
    write_run(captures / "run_1", {2: [box([4, 4, 21, 20])]})
    last = make(captures, tmp_path / "art")
    assert len(versions | {last.version}) == 8
    assert open_warehouse(tmp_path / "art").version == open_warehouse(tmp_path / "art" / "latest" / "manifest.json").version == last.version
    assert sorted(p.name for p in (tmp_path / "art").iterdir() if p.name[0] == "v") == sorted(f"v{v}" for v in versions | {last.version})
    assert not list((tmp_path / "art").glob(".*.building"))


class Killed(Exception):
    pass


@pytest.mark.parametrize("after", [0, 4, 6])
def test_a_run_that_was_stopped_between_tasks_continues_to_the_same_bytes(tmp_path, captures, monkeypatch, after):
    monkeypatch.setattr(making, "FRAMES_A_TASK", 2)
    (captures / "run_1" / "images" / "frame_00003.png").write_bytes(b"no picture")
    make(captures, tmp_path / "whole", shard_samples=4)
    done = []

    def progress(count):
        done.append(count)
        if len(done) == after + 1:
            raise Killed

    with pytest.raises(Killed):
        make(captures, tmp_path / "art", shard_samples=4, progress=progress)
    assert [p.name for p in (tmp_path / "art").iterdir()] == [p.name for p in (tmp_path / "art").glob(".*.building")]
    again = []
    make(captures, tmp_path / "art", shard_samples=4, progress=again.append)
    assert sum(again) == 14 - sum(done)
    assert tree(tmp_path / "art") == tree(tmp_path / "whole")


@pytest.mark.parametrize("where", ["set_rows", "write_index", "point_to"])
def test_a_run_that_was_stopped_while_it_finished_continues_to_the_same_bytes(tmp_path, captures, monkeypatch, where):
    """Rows have moved by then, or the files have their last lengths, or all is in place but the pointer."""
    (captures / "run_0" / "images" / "frame_00001.png").write_bytes(b"no picture")
    make(captures, tmp_path / "whole", shard_samples=4)
    with monkeypatch.context() as patch:
        whole, calls = making.close_gaps, []

        def then_stop(*args):
            whole(*args)
            calls.append(1)
            patch.setattr(making, where, lambda *args, **more: (_ for _ in ()).throw(Killed))
        patch.setattr(making, "close_gaps", then_stop)
        with pytest.raises(Killed):
            if where == "set_rows":
                stop_in(making, "set_rows", 25, captures, tmp_path, patch)
            make(captures, tmp_path / "art", shard_samples=4)
    make(captures, tmp_path / "art", shard_samples=4)
    assert tree(tmp_path / "art") == tree(tmp_path / "whole")


def stop_in(module, name, count, captures, tmp_path, patch):
    """Make a warehouse, stopped at the `count`-th call of a function."""
    whole, calls = getattr(module, name), []

    def counted(*args):
        calls.append(1)
        if len(calls) == count:
            raise Killed
        return whole(*args)

    patch.setattr(module, name, counted)
    make(captures, tmp_path / "art", shard_samples=4)


def test_rows_that_a_power_cut_has_lost_are_made_again(tmp_path, captures, monkeypatch):
    monkeypatch.setattr(making, "FRAMES_A_TASK", 2)
    make(captures, tmp_path / "whole")
    with pytest.raises(Killed), monkeypatch.context() as patch:
        patch.setattr(making, "finish", lambda *args: (_ for _ in ()).throw(Killed))
        make(captures, tmp_path / "art")
    (images,) = (tmp_path / "art").glob(".*.building/data/shard_00000.images.npy")
    with open(images, "r+b") as file:
        file.seek(128 + 5 * 3 * 32 * 32)
        file.write(bytes(3 * 32 * 32))
    (journal,) = (tmp_path / "art").glob(".*.building/journal.jsonl")
    journal.write_bytes(journal.read_bytes()[:-40])  # its last line is torn
    again = []
    make(captures, tmp_path / "art", progress=again.append)
    assert sum(again) == 4 and tree(tmp_path / "art") == tree(tmp_path / "whole")


def test_what_a_run_on_other_data_has_left_is_removed(tmp_path, captures):
    other = tmp_path / "art" / ".0123.building"
    other.mkdir(parents=True)
    (other / "x").write_text("x")
    said = []
    make(captures, tmp_path / "art", said)
    assert not other.exists() and any("left by a run on other data or settings" in text for text in said)


@pytest.mark.slow
def test_a_killed_make_warehouse_continues_to_the_same_bytes(tmp_path):
    run("fake-captures", "-o", tmp_path / "captures", "--runs", 3, "--frames", 120, "--size", "320x200", "--quiet")
    words = [sys.executable, "chip.py", "make-warehouse", "--runs", str(tmp_path / "captures"), "--workers", "2", "--shard-samples", "100",
             "--quiet", "--target-size", "192x192"]
    subprocess.run([*words, "--output-root", str(tmp_path / "whole")], cwd=ROOT, check=True, capture_output=True)
    kills = 0
    for moment in np.random.default_rng(0).uniform(0.3, 1.6, 8):
        process = subprocess.Popen([*words, "--output-root", str(tmp_path / "art")], cwd=ROOT, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        time.sleep(moment)
        kills += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
    subprocess.run([*words, "--output-root", str(tmp_path / "art")], cwd=ROOT, check=True, capture_output=True)
    assert kills >= 2 and tree(tmp_path / "art") == tree(tmp_path / "whole")


# ------------------------------------------------------------------------------------------------ damage


def alter(path, place=-1, value=None):
    """Change a byte, and leave size and modification time as they were."""
    stamp = path.stat()
    content = bytearray(path.read_bytes())
    content[place] = content[place] ^ 0xFF if value is None else value
    path.write_bytes(content)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))


def swap(path, old, new):
    path.write_bytes(path.read_bytes().replace(old, new))


def edit(path, **fields):
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **fields}))


SHARD = "shard_00000.images.npy"


@pytest.mark.parametrize("damage, message", [
    (lambda v: (v / SHARD).unlink(), "images.npy is missing, expected a shard of"),
    (lambda v: os.truncate(v / SHARD, 5000), "has 5000 bytes, the manifest says .* cut short or altered"),
    (lambda v: (v / SHARD).write_bytes((v / SHARD).read_bytes() + b"x"), "cut short or altered"),
    (lambda v: alter(v / SHARD), "images.npy was altered: its checksum is not that of the manifest"),
    (lambda v: alter(v / SHARD, 128), "images.npy was altered"),
    (lambda v: alter(v / "shard_00000.boxes.npy", 130), "boxes.npy was altered"),
    (lambda v: alter(v / "shard_00000.labels.npy", 128, 2), "labels.npy was altered"),
    (lambda v: alter(v / "shard_00000.mask.npy", 3), "not a .npy file"),
    (lambda v: swap(v / SHARD, b"(14, 3, 32", b"(14, 1, 96"), r"holds uint8 \(14, 1, 96, 32\), the manifest says uint8 \(14, 3, 32, 32\)"),
    (lambda v: swap(v / SHARD, b"': False", b"': True "), "images.npy holds"),
    (lambda v: shutil.copy(v / SHARD, v / "x") and ((v / SHARD).unlink(), (v / SHARD).symlink_to(v / "x")), "is a link"),
    (lambda v: alter(v / "samples.jsonl", 8), "samples.jsonl was altered"),
    (lambda v: (v / "samples.jsonl").unlink(), "samples.jsonl is missing"),
    (lambda v: (v / "manifest.json").unlink(), "expected manifest.json of a warehouse that `chip.py make-warehouse` has made"),
    (lambda v: (v / "manifest.json").write_text("{"), "is not valid JSON"),
    (lambda v: edit(v / "manifest.json", format="chipmill-warehouse-9"), 'has the format "chipmill-warehouse-9", expected'),
    (lambda v: edit(v / "manifest.json", classes=["sheep"]), "manifest.json was altered"),
    (lambda v: edit(v / "manifest.json", version="0" * 64), "manifest.json was altered"),
    (lambda v: edit(v / "manifest.json", samples=13), "states 13 samples, its shards have 14"),
    (lambda v: edit(v / "manifest.json", shards=[]), "its shards have none"),
    (lambda v: edit(v / "manifest.json", transform={"target_size": [32, 32], "resize_mode": "crop", "max_boxes": 16}), "resize_mode"),
    (lambda v: edit(v / "manifest.json", transform={"target_size": [32, 32], "resize_mode": "force", "max_boxes": 16}), "expected"),
    (lambda v: rename_shard(v, "../../shard_00000.images.npy"), "outside of"),
    (lambda v: rename_shard(v, "shard_00001.images.npy"), "expected shard_00000.images.npy"),
    (lambda v: edit(v / "manifest.json", version=3), "has version 3, expected 64 hex digits"),
    (lambda v: edit(v / "manifest.json", split=[]), r"has split \[\], expected an object"),
    (lambda v: edit(v / "manifest.json", summary={"totals": {"frames": -1}}), "has totals .* expected counts"),
    (lambda v: edit(v / "manifest.json", transform={"target_size": [1 << 30, 32], "resize_mode": "force", "max_boxes": 1}), "target_size"),
])
def test_what_is_damaged_is_told_by_file_before_anything_is_read(version, damage, message):
    open_warehouse(version)  # remembers the checksums
    damage(version)
    with pytest.raises(UserError, match=message):
        open_warehouse(version)


def rename_shard(version, name):
    content = json.loads((version / "manifest.json").read_text())
    content["shards"][0]["files"]["images"]["file"] = name
    (version / "manifest.json").write_text(json.dumps(content))


def test_checksums_are_compared_once_and_not_where_they_are_not_wanted(version, monkeypatch):
    calls = []
    whole = reading.array_digest
    monkeypatch.setattr(reading, "array_digest", lambda *args: calls.append(1) or whole(*args))
    open_warehouse(version, verify=False)
    assert not calls
    open_warehouse(version)
    assert len(calls) == 4
    open_warehouse(version)
    assert len(calls) == 4
    os.utime(version / SHARD)
    open_warehouse(version)
    assert len(calls) == 5
    (version / ".verified.json").write_text("[1")
    open_warehouse(version)
    assert len(calls) == 9


def test_a_damaged_version_is_made_again(tmp_path, captures):
    first = make(captures, tmp_path / "art")
    before = tree(first.folder)
    alter(first.folder / SHARD, 500)
    said = []
    assert make(captures, tmp_path / "art", said).version == first.version
    assert tree(first.folder) == before and any("was altered" in text and "made again" in text for text in said)


@pytest.mark.parametrize("name", ["manifest.json", "samples.jsonl", SHARD])
@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_a_version_that_cannot_be_read_is_told_and_stays(tmp_path, captures, monkeypatch, name, number):
    version = make(captures, tmp_path / "art").folder
    (version / "contact_sheet.png").write_bytes(b"goes where a version is made again")
    before, whole = tree(version), builtins.open

    def refusing(path, *args, **kwargs):
        if str(path) == str(version / name):
            raise OSError(number, os.strerror(number), str(path))
        return whole(path, *args, **kwargs)

    monkeypatch.setattr(builtins, "open", refusing)
    monkeypatch.setattr(Path, "read_bytes", lambda path: refusing(path, "rb").read())
    with pytest.raises(UserError, match=os.strerror(number)):
        make(captures, tmp_path / "art")
    monkeypatch.undo()
    assert tree(version) == before


def test_a_folder_in_place_of_a_file_is_damage(tmp_path, captures):
    version = make(captures, tmp_path / "art").folder
    before = tree(version)
    (version / "samples.jsonl").unlink()
    (version / "samples.jsonl").mkdir()
    make(captures, tmp_path / "art")
    assert tree(version) == before


def test_a_shard_is_compared_by_its_place_and_not_by_the_digits_of_its_name(tmp_path, captures, monkeypatch):
    """Names of six digits, as from the shard 100000 on."""
    for module in (reading, making, working):
        monkeypatch.setattr(module, "shard_file", lambda shard, part: f"shard_{shard + 99_999}.{part}.npy")
    version = make(captures, tmp_path / "art", shard_samples=5).folder
    assert {path.name[:12] for path in version.glob("*.npy")} == {"shard_99999.", "shard_100000", "shard_100001"}
    open_warehouse(version)
    alter(version / "shard_100001.boxes.npy", 130)
    with pytest.raises(UserError, match="shard_100001.boxes.npy was altered"):
        open_warehouse(version)


@pytest.mark.parametrize(("part", "value", "message"), [
    ("labels", 7, "others than samples.jsonl says"), ("mask", False, "others than samples.jsonl says"),
    ("boxes", np.nan, "coordinates that are not from 0 to 1"), ("boxes", 1.5, "coordinates that are not from 0 to 1"),
    ("boxes", -0.1, "coordinates that are not from 0 to 1"),
])
def test_slots_that_another_program_has_written_otherwise_than_its_index_says_are_one_line(version, part, value, message):
    """Their checksum is right."""
    path, manifest = version / f"shard_00000.{part}.npy", json.loads((version / "manifest.json").read_text())
    row = next(k for k, sample in enumerate(open_warehouse(version, verify=False).samples) if sample.n_boxes)
    array = np.load(path)
    array[row, 0] = value
    path.write_bytes(path.read_bytes()[:128] + array.tobytes())
    manifest["shards"][0]["files"][part]["sha256"] = reading.array_digest(array)
    (version / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=f"{part}.npy, sample run_./frame_0000.: {message}") as error:
        open_warehouse(version)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["../../elsewhere", "/etc", "v123", "", "v" + "0" * 64])
def test_latest_leads_only_to_a_version_beside_it(tmp_path, version, text):
    (tmp_path / "art" / "latest").write_text(text)
    for path in (tmp_path / "art", tmp_path / "art" / "latest", tmp_path / "art" / "latest" / "manifest.json"):
        with pytest.raises(UserError, match="expected v and 64 hex digits|is not beside it"):
            open_warehouse(path)


def test_latest_may_be_a_link_to_a_version_beside_it_alone(tmp_path, version):
    latest = tmp_path / "art" / "latest"
    latest.unlink()
    latest.symlink_to(version.name)
    assert open_warehouse(latest).version == open_warehouse(latest / "manifest.json").version == version.name[1:]
    shutil.copytree(version, tmp_path / "elsewhere" / version.name)
    latest.unlink()
    latest.symlink_to(tmp_path / "elsewhere" / version.name)
    for path in (tmp_path / "art", latest, latest / "manifest.json"):
        with pytest.raises(UserError, match="is no version beside it"):
            open_warehouse(path)


@pytest.mark.parametrize("name", ["nothing/manifest.json", "captures", "captures/run_0/run_manifest.json", "latest"])
def test_a_path_that_is_no_warehouse_says_what_was_expected(tmp_path, captures, name):
    with pytest.raises(UserError, match="expected manifest.json of a warehouse that .* has made of frames with labels"):
        open_warehouse(tmp_path / name)


# ------------------------------------------------------------------------------------------------ images with annotations


def test_coco_and_pascal_voc_are_taken_as_they_are(tmp_path, capsys):
    images, coco = example(tmp_path, count=4)
    run("make-warehouse", "--images", images, "--annotations", coco, "--output-root", tmp_path / "art", *SMALL)
    warehouse = open_warehouse(tmp_path / "art" / "latest")
    content = json.loads(coco.read_text())
    assert warehouse.classes == ("sheep", "goat") and ids(warehouse) == [f"images/image_{k}.jpg" for k in range(4)]
    batch = warehouse.read(range(4))
    for index in range(4):
        stated = {tuple(np.round((x, y, x + w, y + h), 2)): row["category_id"]
                  for row in content["annotations"] if row["image_id"] == index + 1 for x, y, w, h in [row["bbox"]]}
        boxes = warehouse.letterbox(index).inverse(batch["boxes"][index][:4].astype(np.float64) * 32)
        assert {tuple(np.round(b, 2)): label for b, label in zip(boxes, batch["labels"][index].tolist(), strict=False)} == stated
    for number in range(4):
        rows = [("sheep", *box) for box in [(10 + number, 20, 60, 70)]]
        write_voc(tmp_path / "voc", f"image_{number}", (300, 220), rows)
    run("make-warehouse", "--images", images, "--annotations", tmp_path / "voc", "--output-root", tmp_path / "voc-art", *SMALL)
    assert [sample.n_boxes for sample in open_warehouse(tmp_path / "voc-art").samples] == [1] * 4
    assert "4 images, 4 boxes (sheep 4)" in capsys.readouterr().err


def draw(size, *rectangles):
    """(H, W) uint8 mask of (x0, y0, x1, y1, value)."""
    mask = np.zeros(size[::-1], np.uint8)
    for x0, y0, x1, y1, value in rectangles:
        mask[y0:y1, x0:x1] = value
    return mask


def test_boxes_of_masks_are_those_of_their_components():
    boxes, values = boxes_of(draw(SIZE, (2, 3, 10, 9, 255), (10, 9, 14, 12, 255), (40, 1, 50, 30, 255)))  # the first two touch by a corner
    assert boxes.tolist() == [[40, 1, 50, 30], [2, 3, 14, 12]] and values.tolist() == [255, 255]
    assert boxes_of(draw(SIZE))[0].shape == (0, 4)
    boxes, values = boxes_of(draw(SIZE, (2, 3, 10, 9, 1), (20, 9, 24, 12, 3), (40, 1, 50, 30, 255)))
    assert boxes.tolist() == [[2, 3, 10, 9], [20, 9, 24, 12]] and values.tolist() == [1, 3]
    boxes, values = boxes_of(draw(SIZE, (2, 3, 10, 9, 90), (20, 9, 24, 12, 200)))  # shades of grey
    assert boxes.tolist() == [[20, 9, 24, 12]] and values.tolist() == [255]


def test_images_with_masks_become_samples(tmp_path, capsys):
    for number in range(1, 13):
        save_picture(tmp_path / "images" / f"{number}.png", noise(seed=number))
        Image.fromarray(draw(SIZE, (number, 4, number + 20, 30, 255))).save(mkdir(tmp_path / "masks") / f"{number}.png")
    save_picture(tmp_path / "images" / "alone.png", noise())
    Image.fromarray(draw((20, 20), (1, 1, 9, 9, 255))).save(tmp_path / "masks" / "5.png")  # not the image's size
    run("make-warehouse", "--images", tmp_path / "images", "--annotations", tmp_path / "masks", "--output-root", tmp_path / "art", *SMALL)
    err = capsys.readouterr().err
    assert "1 file without a mask in" in err and "take no part (first alone.png)" in err
    assert "images/5.png is left out, invalid: the image has 64×48 pixels, its labels are for 20×20" in err
    warehouse = open_warehouse(tmp_path / "art")
    assert ids(warehouse) == [f"images/{k}.png" for k in range(1, 13) if k != 5]
    assert np.allclose(warehouse.letterbox(10).inverse(warehouse.read([10])["boxes"][0, :1] * 32), [[12, 4, 32, 30]])
    with pytest.raises(UserError, match="no image of .* has a mask of its name"):
        run("make-warehouse", "--images", tmp_path / "images", "--annotations", mkdir(tmp_path / "other", "z.png"))


def mkdir(folder, mask=None):
    folder.mkdir(exist_ok=True)
    if mask:
        Image.fromarray(draw(SIZE)).save(folder / mask)
    return folder


@pytest.mark.parametrize("words, message", [
    ([], "make-warehouse needs --runs"), (["--runs", "a", "--images", "b", "--annotations", "c"], "make-warehouse needs --runs"),
    (["--images", "b"], "make-warehouse needs --runs"), (["--runs", "nowhere"], "the folder of capture runs nowhere does not exist"),
    (["--runs", "a", "--label-map", "x=y"], "--label-map is about annotations with names"),
    (["--runs", "a", "--max-empty", "many"], "expected a number of frames such as 12"),
    (["--images", "nowhere", "--annotations", "nothing.json"], "does not exist"),
])
def test_wrong_flags_are_told(words, message):
    with pytest.raises(UserError, match=message):
        run("make-warehouse", *words)


def test_inspect_says_and_draws_what_a_network_sees(tmp_path, captures, capsys):
    run("make-warehouse", "--runs", captures, "--output-root", tmp_path / "art", *SMALL)
    said = capsys.readouterr().out
    version = open_warehouse(tmp_path / "art").folder
    assert "14 samples of 32×32, 11 boxes (object), 6 without; " in said
    assert f"next: python train_detection.py --manifest {version}/manifest.json" in said
    for path in (tmp_path / "art" / "latest", tmp_path / "art", version, version / "manifest.json"):
        run("inspect", path, "--output", tmp_path / "sheet.png", "--overwrite")
    usual = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB"))
    run("inspect", tmp_path / "art", "--output", tmp_path / "sheet.png", "--overwrite", "--class-colours", "object=#12fe34")
    drawn = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB"))
    assert [(pixels == (0x12, 0xFE, 0x34)).all(axis=2).any() for pixels in (usual, drawn)] == [False, True]
    with pytest.raises(UserError, match="no class 'cow'"):
        run("inspect", tmp_path / "art", "--no-pictures", "--class-colours", "cow=#12fe34")
    said = capsys.readouterr().out
    assert "14 samples of 32×32 (letterbox) in 1 shard" in said and "frames: 64×48 pixels, 3 runs" in said
    assert Image.open(tmp_path / "sheet.png").size[0] > 800
    alter(version / SHARD)
    with pytest.raises(UserError, match="was altered"):
        run("inspect", tmp_path / "art" / "latest")


def test_the_lines_of_the_docs_in_python_give_the_boxes_of_the_frame_that_they_read(tmp_path, monkeypatch):
    """Two runs whose frames have other sizes and boxes, the first of which validates."""
    stated = {"run_0": ((64, 48), [4, 3, 30, 20]), "run_1": ((40, 90), [10, 15, 33, 80])}
    for name, (size, px) in stated.items():
        write_run(tmp_path / "captures" / name, {k: [box(px, size)] for k in range(2)}, size=size)
    for seed in range(9):
        warehouse = make(tmp_path / "captures", tmp_path / "artifacts" / "tensor_warehouse", target_size=(384, 384), split_seed=seed)
        if 0 in warehouse.split("val"):
            break
    page = (Path(__file__).parent.parent / "docs" / "small-detectors.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(block, found := {})
    assert np.abs(found["boxes"] - [stated["run_1"][1]]).max() < 0.01
