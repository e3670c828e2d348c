"""A map that is killed at any moment and started again has the bytes of one made at a stretch: pytest tests/test_inference_resume.py"""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from map_factory import BANDS, numbers, run, write_checkpoint

import mapping.scene
from mapping.journal import Journal, StoredBand
from runtime.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
FLAGS = ["--device", "cpu", "--probabilities", "--min-area", "0.05"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "best_model.pt")


def content(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.is_file()}


def differences(folder, other):
    """Names of the files that are not the same in both folders: a failure then says which, not their bytes."""
    one, two = content(folder), content(other)
    return sorted(name for name in {*one, *two} if one.get(name) != two.get(name))


def band(row, rows=10, width=30, seed=0):
    rng = np.random.default_rng(seed + row)
    return StoredBand(
        row, rng.integers(0, 2, (rows, width)).astype(np.uint8), rng.integers(0, 255, (rows, width)).astype(np.uint8),
        rng.random((3, 2, 4)).astype(np.float16), 5, 0.25, [[row, 0, 1, 1, "torn"]],
    )


def same(one, other):
    return one.row == other.row and all(np.array_equal(getattr(one, n), getattr(other, n)) for n in ("classes", "burned", "thumbnail"))


# ------------------------------------------------------------------------------------------------------ the journal


def test_bands_come_back_as_they_were(tmp_path):
    journal = Journal(tmp_path / "j", {"a": 1})
    for row in (0, 10, 20):
        journal.append(band(row))
    journal.close()
    again = Journal(tmp_path / "j", {"a": 1})
    assert again.next_row == 30
    for stored, row in zip(again.bands(), (0, 10, 20), strict=True):
        assert same(stored, band(row)) and stored.unreadable == [[row, 0, 1, 1, "torn"]] and stored.highest == 0.25
    again.append(band(30))
    assert [b.row for b in again.bands()] == [0, 10, 20, 30]


@pytest.mark.parametrize("cut", ["line", "bytes", "flipped"])
def test_what_is_not_whole_is_made_again(tmp_path, cut):
    journal = Journal(tmp_path, {"a": 1})
    journal.append(band(0))
    journal.append(band(10))
    journal.close()
    lines, bands = tmp_path / "journal.jsonl", tmp_path / "bands.bin"
    if cut == "line":
        lines.write_bytes(lines.read_bytes()[:-3])
    elif cut == "bytes":
        bands.write_bytes(bands.read_bytes()[:-3])
    else:
        data = bytearray(bands.read_bytes())
        data[-5] ^= 255
        bands.write_bytes(data)
    again = Journal(tmp_path, {"a": 1})
    assert again.next_row == 10
    again.append(band(10))
    assert all(same(b, band(r)) for b, r in zip(again.bands(), (0, 10), strict=True))


def test_other_settings_are_refused_in_words_or_overwritten(tmp_path):
    journal = Journal(tmp_path, {"a": 1, "b": "x"})
    journal.append(band(0))
    journal.close()
    with pytest.raises(UserError, match="a: 1 → 2"):
        Journal(tmp_path, {"a": 2, "b": "x"})
    assert Journal(tmp_path, {"a": 2, "b": "x"}, overwrite=True).next_row == 0


def test_two_runs_do_not_write_one_map(tmp_path):
    journal = Journal(tmp_path, {})
    with pytest.raises(UserError, match="another run"):
        Journal(tmp_path, {}, overwrite=True)
    journal.close()


# -------------------------------------------------------------------------------------------------- in one process


class Killed(BaseException):
    """Stands for a kill: nothing in the program catches it."""


@pytest.mark.parametrize("after", [0, 1, 3, 7])
def test_a_run_that_stops_between_bands_goes_on_there(checkpoint, tmp_path, make_raster, monkeypatch, after):
    scene = make_raster("scene.tif", numbers(230, 90), descriptions=BANDS, nodata=3000)
    run(scene, "--checkpoint", checkpoint, "--output-dir", tmp_path / "whole", *FLAGS)
    append, calls = Journal.append, []

    def failing(self, item):
        if len(calls) == after:
            raise Killed
        calls.append(item.row)
        append(self, item)

    monkeypatch.setattr(Journal, "append", failing)
    with pytest.raises(Killed):
        run(scene, "--checkpoint", checkpoint, "--output-dir", tmp_path / "torn", *FLAGS)
    assert content(tmp_path / "torn") == {}
    monkeypatch.setattr(Journal, "append", append)
    rows = []
    monkeypatch.setattr(Journal, "append", lambda self, item: (rows.append(item.row), append(self, item))[1])
    run(scene, "--checkpoint", checkpoint, "--output-dir", tmp_path / "torn", *FLAGS)
    assert not set(rows) & set(calls)
    assert differences(tmp_path / "torn", tmp_path / "whole") == []
    assert [p.name for p in (tmp_path / "torn" / ".chipmill").iterdir() if p.is_dir()] == []


@pytest.mark.parametrize("function", ["begin_record", "save_preview", "remove_files", "write_json", "add_polygons"])
def test_a_run_that_stops_while_files_are_written_ends_with_the_same_files(checkpoint, tmp_path, make_raster, monkeypatch, function):
    scene = make_raster("scene.tif", numbers(100, 90), descriptions=BANDS)
    run(scene, "--checkpoint", checkpoint, "--output-dir", tmp_path / "whole", *FLAGS)

    real = getattr(mapping.scene, function)

    def failing(*args):
        if function in ("write_json", "remove_files") and not (tmp_path / "torn" / "scene_classes.tif").exists():
            return real(*args)  # that of the beginning
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(mapping.scene, function, failing)
        with pytest.raises(Killed):
            run(scene, "--checkpoint", checkpoint, "--output-dir", tmp_path / "torn", *FLAGS)
    assert run(scene, "--checkpoint", checkpoint, "--output-dir", tmp_path / "torn", *FLAGS) == 0
    assert differences(tmp_path / "torn", tmp_path / "whole") == []


def test_other_settings_do_not_continue_a_map(checkpoint, tmp_path, make_raster, monkeypatch):
    scene = make_raster("scene.tif", numbers(100, 90), descriptions=BANDS)
    with monkeypatch.context() as patch:
        patch.setattr(mapping.scene, "finish_map", lambda *args: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            run(scene, "--checkpoint", checkpoint, "--output-dir", tmp_path / "maps", *FLAGS)
    with pytest.raises(UserError, match="other settings .*threshold: null → 0.7"):
        run(scene, "--checkpoint", checkpoint, "--output-dir", tmp_path / "maps", *FLAGS, "--threshold", 0.7)
    run(scene, "--checkpoint", checkpoint, "--output-dir", tmp_path / "maps", *FLAGS, "--threshold", 0.7, "--overwrite")
    run(scene, "--checkpoint", checkpoint, "--output-dir", tmp_path / "fresh", *FLAGS, "--threshold", 0.7)
    assert differences(tmp_path / "maps", tmp_path / "fresh") == []


def test_a_scene_that_changed_does_not_continue(checkpoint, tmp_path, make_raster, monkeypatch):
    scene = make_raster("scene.tif", numbers(100, 90), descriptions=BANDS)
    with monkeypatch.context() as patch:
        patch.setattr(mapping.scene, "finish_map", lambda *args: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            run(scene, "--checkpoint", checkpoint, "--output-dir", tmp_path / "maps", *FLAGS)
    make_raster("scene.tif", numbers(100, 90, seed=5), descriptions=BANDS)
    with pytest.raises(UserError, match="other settings"):
        run(scene, "--checkpoint", checkpoint, "--output-dir", tmp_path / "maps", *FLAGS)


# ------------------------------------------------------------------------------------------------- killed for real


def start(checkpoint, scenes, folder):
    words = [sys.executable, "inference.py", *scenes, "--checkpoint", checkpoint, "--output-dir", folder, *FLAGS]
    return subprocess.Popen([str(w) for w in words], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def kill_and_go_on(checkpoint, scenes, folder, moments):
    """Kill -9 so many seconds after the first line that tells of work, again and again; then let it finish."""
    for moment in moments:
        process = start(checkpoint, scenes, folder)
        process.stderr.readline()
        time.sleep(moment)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    process = start(checkpoint, scenes, folder)
    _, said = process.communicate()
    assert process.returncode == 0, said


@pytest.mark.parametrize(("count", "names"), [(2, "a"), pytest.param(10, "abc", marks=pytest.mark.slow)])
def test_killed_at_random_moments_the_bytes_are_those_of_an_undisturbed_run(checkpoint, tmp_path, make_raster, count, names):
    scenes = [make_raster(f"{name}.tif", numbers(700, 260, i), descriptions=BANDS) for i, name in enumerate(names)]
    assert run(*scenes, "--checkpoint", checkpoint, "--output-dir", tmp_path / "whole", *FLAGS) == 0
    moments = np.random.default_rng(count).uniform(0, 1.5, count)
    kill_and_go_on(checkpoint, scenes, tmp_path / "torn", moments)
    assert differences(tmp_path / "torn", tmp_path / "whole") == []
    assert not [p for p in (tmp_path / "torn").iterdir() if ".part" in p.name]


def test_ctrl_c_says_how_to_go_on(checkpoint, tmp_path, make_raster):
    folder = tmp_path / "maps"
    process = start(checkpoint, [make_raster("scene.tif", numbers(3000, 300), descriptions=BANDS)], folder)
    while process.poll() is None and not list(folder.glob(".chipmill/*/bands.bin")):
        time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130 and "run the same command again" in said and "Traceback" not in said
    assert json.loads((folder / ".chipmill" / "scene" / "journal.jsonl").read_text().splitlines()[0])["window"] == 32
