"""Areas that a spectral index does not bear out, left out of maps."""

import json

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from map_factory import numbers, run, write_checkpoint
from patch_factory import write_patch_set

import train
from mapping import index_check
from mapping.index_check import Dropped, IndexCheck, check_of, without_unlike
from mapping.journal import Journal, StoredBand
from runtime.checkpoint import load_checkpoint
from runtime.errors import UserError

CHECK = {"index": "nbr", "threshold": 0.1, "above": False}


def flooded(mapped):
    """[list of (row, column) of each area], pixel by pixel."""
    left, found = set(zip(*np.nonzero(mapped), strict=True)), []
    while left:
        area, edge = [], [left.pop()]
        while edge:
            row, column = edge.pop()
            area.append((row, column))
            for near in ((row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)):
                if near in left:
                    left.remove(near)
                    edge.append(near)
        found.append(area)
    return found


class Squares:
    """Pixels of 2 square metres in even rows, 3 in odd ones."""

    def of_rows(self, row, stop):
        return np.array([[2.0 + r % 2] for r in range(row, stop)])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 24), st.integers(1, 16), st.floats(0.2, 0.8), st.floats(0, 1), st.lists(st.integers(1, 7), min_size=1, max_size=9),
       st.integers(1, 60), st.integers(0, 99))
def test_areas_are_dropped_as_a_whole_however_the_rows_come(height, width, density, share, cuts, piece, seed):
    random = np.random.default_rng(seed)
    classes = np.where(random.random((height, width)) < density, random.integers(1, 4, (height, width)), 0).astype(np.uint8)
    classes[random.random((height, width)) < 0.05] = 255
    beyond = (random.random((height, width)) < 0.5).astype(np.uint8)
    votes = (classes > 0).astype(np.uint8)
    edges = np.unique(np.clip(np.cumsum([0, *cuts, height]), 0, height))

    def bands():
        for first, stop in zip(edges, edges[1:], strict=False):
            part = slice(first, stop)
            yield StoredBand(int(first), classes[part], classes[part], None, 0, 0.0, [], None, votes[part], beyond[part])

    expected, count, metres = classes.copy(), 0, 0.0
    for area in flooded((classes > 0) & (classes < 255)):
        if sum(int(beyond[place]) for place in area) < share * len(area):
            count += 1
            metres += sum(2.0 + place[0] % 2 for place in area)
            for place in area:
                expected[place] = 0
    dropped = Dropped(IndexCheck("nbr", 0.1, False, share), Squares())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index_check, "PIECE", piece)
        found = list(without_unlike(bands, dropped.check, dropped, None))
    assert np.array_equal(np.concatenate([band.classes for band in found]), expected)
    assert np.array_equal(np.concatenate([band.votes for band in found]), np.where(expected == classes, votes, 0))
    assert dropped.count == count and dropped.metres == pytest.approx(metres)


@pytest.mark.parametrize("votes", [False, True])
def test_the_journal_keeps_what_is_beyond(tmp_path, votes):
    square = np.arange(16, dtype=np.uint8).reshape(2, 8)
    more = (square, square + 1) if votes else (None, None)
    journal = Journal(tmp_path / "j", {})
    journal.append(StoredBand(0, square, square, np.ones((3, 1, 4), np.float16), 1, 0.5, [], *more, square % 2))
    journal.close()
    (found,) = Journal(tmp_path / "j", {}).bands()
    assert np.array_equal(found.beyond, square % 2) and (np.array_equal(found.votes, square + 1) if votes else found.votes is None)


def classes_of(folder):
    with rasterio.open(folder / "scene_classes.tif") as dataset:
        return dataset.read(1)


def test_a_map_leaves_out_what_has_high_nbr_and_says_so(make_raster, tmp_path, capsys):
    stored = numbers(120, 90)
    scene = make_raster("scene.tif", stored, descriptions=["B04", "B08", "B12"])
    checkpoint = write_checkpoint(tmp_path / "a.pt", index_check=CHECK)
    run("--checkpoint", checkpoint, scene, "--output-dir", tmp_path / "all", "--accept-scale")
    run("--checkpoint", checkpoint, scene, "--output-dir", tmp_path / "checked", "--accept-scale", "--index-check", "0.5")
    before, after = classes_of(tmp_path / "all"), classes_of(tmp_path / "checked")
    near, short = stored[1].astype(float), stored[2].astype(float)
    low = (near - short) / (near + short) < 0.1
    expected, count = before.copy(), 0
    for area in flooded(before == 1):
        if sum(bool(low[place]) for place in area) < 0.5 * len(area):
            count += 1
            for place in area:
                expected[place] = 0
    assert count > 1 and (expected == 1).any() and np.array_equal(after, expected)
    record = json.loads((tmp_path / "checked" / "summary.json").read_text())["scenes"][0]
    assert record["index_check"]["areas"] == count and record["burned_hectares"] > 0
    assert f"{count} areas" in capsys.readouterr().err + str(record["remarks"]) and "NBR below 0.100" in record["remarks"][-1]
    with pytest.raises(UserError, match="index_check"):
        run("--checkpoint", checkpoint, scene, "--output-dir", tmp_path / "checked", "--accept-scale", "--index-check")


def test_checkpoints_that_name_no_threshold_or_another_index_are_refused():
    one, two = {"path": "a.pt", "data": {"index_check": CHECK}}, {"path": "b.pt", "data": {"index_check": {**CHECK, "threshold": 0.3}}}
    assert check_of([one, two], 0.2) == IndexCheck("nbr", pytest.approx(0.2), False, 0.2)
    assert check_of([one], "auto").share == 0.1 and check_of([one, {"path": "b.pt", "data": {}}], "auto") is None
    assert check_of([one], 0) is None and check_of([{"path": "b.pt", "data": {}}], None) is None
    with pytest.raises(UserError, match="b.pt names no threshold.*--index-check 0"):
        check_of([one, {"path": "b.pt", "data": {}}], 0.1)
    with pytest.raises(UserError, match="different indices"):
        check_of([one, {"path": "b.pt", "data": {"index_check": {**CHECK, "index": "nbr2"}}}], 0.1)


@pytest.mark.slow
def test_training_keeps_the_threshold_of_its_training_patches(tmp_path):
    patches = write_patch_set(tmp_path / "patches", {"train": 4, "val": 2}, size=32)
    train.main(["--patches-dir", str(patches), "--output-dir", str(tmp_path / "run"), "--architecture", "smallunet", "--batch-size", "2",
                "--num-workers", "0", "--epochs", "1", "--quiet", "--device", "cpu"])
    for name in ("best_model", "final_model", "last"):
        facts = load_checkpoint(tmp_path / "run" / "checkpoints" / f"{name}.pt")["data"]["index_check"]
        assert facts["index"] == "nbr" and -1 < facts["threshold"] < 1 and facts["above"] in (True, False)


def test_auto_maps_without_a_check_where_no_threshold_is_known_and_says_so(tmp_path, make_raster, capsys):
    scene = make_raster("scene.tif", numbers(40, 50), descriptions=["B04", "B08", "B12"])
    run("--checkpoint", write_checkpoint(tmp_path / "a.pt"), scene, "--output-dir", tmp_path / "maps", "--accept-scale", "--config",
        "few-scenes")
    assert "areas are not checked" in "".join(capsys.readouterr())
    record = json.loads((tmp_path / "maps" / "summary.json").read_text())["scenes"][0]
    assert "index_check" not in record
