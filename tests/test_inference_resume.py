"""A map that is killed at any moment and started again has the bytes of one made at a stretch: pytest tests/test_inference_resume.py"""

import functools
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from map_factory import BANDS, numbers, run

import mapping.map_files
import mapping.map_writer
import mapping.scene
from mapping.journal import Journal, StoredBand
from runtime.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
FLAGS = ["--device", "cpu", "--probabilities", "--min-area", "0.05"]


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
    return one.row == other.row and all(np.array_equal(getattr(one, n), getattr(other, n)) for n in ("classes", "probability", "thumbnail"))


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


@pytest.mark.parametrize(
    ("owner", "function", "vectors"),
    [(mapping.scene, "begin_record", "geojson"), (mapping.map_writer.Preview, "save", "geojson"),
     (mapping.map_writer.Preview, "save", "gpkg"), (mapping.map_files.MapFiles, "remove", "geojson"),
     (mapping.map_files, "write_json", "gpkg"), (mapping.map_writer.Outlines, "add_piece", "geojson"),
     (mapping.map_writer.Outlines, "finish", "gpkg")],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_run_that_stops_while_files_are_written_ends_with_the_same_files(
    checkpoint, tmp_path, make_raster, monkeypatch, owner, function, vectors
):
    scene = make_raster("scene.tif", numbers(100, 90), descriptions=BANDS)
    flags = (*FLAGS, "--vectors", vectors)
    run(scene, "--checkpoint", checkpoint, "--output-dir", tmp_path / "whole", *flags)

    real = getattr(owner, function)

    def failing(*args):
        if function in ("write_json", "remove") and not (tmp_path / "torn" / "scene_classes.tif").exists():
            return real(*args)  # that of the beginning
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(owner, function, failing)
        with pytest.raises(Killed):
            run(scene, "--checkpoint", checkpoint, "--output-dir", tmp_path / "torn", *flags)
    assert run(scene, "--checkpoint", checkpoint, "--output-dir", tmp_path / "torn", *flags) == 0
    assert differences(tmp_path / "torn", tmp_path / "whole") == []


def test_what_a_kill_left_of_a_file_goes_when_the_next_map_has_no_such_file(checkpoint, tmp_path, make_raster, monkeypatch):
    scene, folder = make_raster("[1] scene.tif", numbers(64, 64), descriptions=BANDS), tmp_path / "maps"
    flags = (scene, "--checkpoint", checkpoint, "--device", "cpu", "--output-dir", folder)
    with monkeypatch.context() as patch:
        patch.setattr(mapping.scene, "finish_map", lambda *args: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            run(*flags, "--probabilities", "--vectors", "gpkg")
    for name in (".[1] scene_burned.part.gpkg", ".[1] scene_burned.part.gpkg-journal", ".[1] scene_probability.part/rows.tif"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"of a killed run")
    (folder / ".1 scene_burned.part.gpkg").write_bytes(b"of another scene")
    run(*flags)
    assert [p.name for p in folder.iterdir() if ".part" in p.name] == [".1 scene_burned.part.gpkg"]


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


def start(checkpoint, scenes, folder, *more):
    words = [sys.executable, "inference.py", *scenes, "--checkpoint", checkpoint, "--output-dir", folder, *FLAGS, *more]
    return subprocess.Popen([str(w) for w in words], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def kill_when(process, has_come):
    """kill -9 at the first moment that has_come() is true. The run must not have ended by itself before."""
    while process.poll() is None and not has_come():
        time.sleep(0.002)
    process.kill()
    _, said = process.communicate()
    assert process.returncode == -signal.SIGKILL, f"the kill did not land: {process.returncode}, {said}"


def bands_of(folder, name):
    """How many bands of a scene are in its journal, 0 where it is not there."""
    journal = folder / ".chipmill" / name / "journal.jsonl"
    return max(0, journal.read_bytes().count(b"\n") - 1) if journal.exists() else 0


def moments(folder, name, bands, vectors="geojson"):
    """Functions that tell whether a run is somewhere: after some bands of a scene, or while one of its files is being written."""
    return [
        *(functools.partial(lambda least: bands_of(folder, name) >= least, least) for least in bands),
        *(functools.partial(lambda pattern: any(folder.glob(pattern)), pattern)
          for pattern in (f".{name}_classes.part/*", f".{name}_burned.part.{vectors}", f".{name}_probability.part/*")),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("vectors", ["geojson", "gpkg"])
def test_killed_between_bands_and_while_files_are_written_the_bytes_are_those_of_an_undisturbed_run(
    checkpoint, tmp_path, make_raster, vectors
):
    scene = make_raster("a.tif", numbers(1300, 260), descriptions=BANDS)
    assert run(scene, "--checkpoint", checkpoint, "--output-dir", tmp_path / "whole", *FLAGS, "--vectors", vectors) == 0
    folder = tmp_path / "torn"
    for has_come in moments(folder, "a", (1, 40), vectors):
        kill_when(start(checkpoint, [scene], folder, "--vectors", vectors), has_come)
        assert not (folder / "a_classes.tif").exists() and bands_of(folder, "a") > 0
    assert run(scene, "--checkpoint", checkpoint, "--output-dir", folder, *FLAGS, "--vectors", vectors) == 0
    assert differences(folder, tmp_path / "whole") == []
    assert not [p for p in folder.iterdir() if ".part" in p.name]


@pytest.mark.nightly
def test_many_kills_at_drawn_moments_of_several_scenes(checkpoint, tmp_path, make_raster):
    names, rng, folder = "abc", np.random.default_rng(10), tmp_path / "torn"
    scenes = [make_raster(f"{name}.tif", numbers(1500, 260, i), descriptions=BANDS) for i, name in enumerate(names)]
    assert run(*scenes, "--checkpoint", checkpoint, "--output-dir", tmp_path / "whole", *FLAGS) == 0
    for name in names:
        for has_come in moments(folder, name, sorted(rng.integers(1, 60, 4).tolist())):
            kill_when(start(checkpoint, scenes, folder), has_come)
    assert run(*scenes, "--checkpoint", checkpoint, "--output-dir", folder, *FLAGS) == 0
    assert differences(folder, tmp_path / "whole") == []
    assert not [p for p in folder.iterdir() if ".part" in p.name]


def test_a_map_that_is_interrupted_keeps_its_journal(checkpoint, tmp_path, make_raster, monkeypatch):
    scene, append, calls = make_raster("scene.tif", numbers(230, 90), descriptions=BANDS), Journal.append, []

    def interrupted(self, item):
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(item.row)
        append(self, item)

    monkeypatch.setattr(Journal, "append", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(scene, "--checkpoint", checkpoint, "--output-dir", tmp_path / "maps", *FLAGS)
    assert bands_of(tmp_path / "maps", "scene") == 3


@pytest.mark.slow
def test_a_real_ctrl_c_ends_the_program_with_one_line_and_a_journal(checkpoint, tmp_path, make_raster):
    folder = tmp_path / "maps"
    process = start(checkpoint, [make_raster("scene.tif", numbers(6000, 300), descriptions=BANDS)], folder)
    while process.poll() is None and not bands_of(folder, "scene"):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130 and "run the same command again" in said and "Traceback" not in said
    assert json.loads((folder / ".chipmill" / "scene" / "journal.jsonl").read_text().splitlines()[0])["window"] == 32
