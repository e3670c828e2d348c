"""Files are whole or not there."""

import errno
import os
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from runtime.errors import UserError
from runtime.files import (
    atomic_path,
    describe_difference,
    plain,
    read_json,
    refuse_existing,
    remove_leftovers,
    require_writable,
    scratch_folder,
    settings_hash,
    write_json,
)
from runtime.run_folder import RunFolder


def test_a_file_appears_under_its_name_only_when_it_is_whole(tmp_path):
    with atomic_path(tmp_path / "a.json") as temporary:
        temporary.write_text("half")
        assert not (tmp_path / "a.json").exists() and temporary.suffix == ".json"
    assert (tmp_path / "a.json").read_text() == "half" and os.listdir(tmp_path) == ["a.json"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
        raise RuntimeError
    assert (tmp_path / "a.txt").read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


def test_a_kill_while_writing_leaves_the_old_file(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    code = ("import os, signal\nfrom runtime.files import atomic_path\n"
            f"with atomic_path({str(tmp_path / 'a.txt')!r}) as t:\n    t.write_text('new'); os.kill(os.getpid(), signal.SIGKILL)")
    done = subprocess.run([sys.executable, "-c", code], cwd=os.path.dirname(os.path.dirname(__file__)))
    assert done.returncode == -9 and (tmp_path / "a.txt").read_text() == "old"
    with atomic_path(tmp_path / "a.txt") as temporary:  # the next run overwrites what the killed one left
        temporary.write_text("new")
    assert os.listdir(tmp_path) == ["a.txt"]


def test_json_has_no_nan_and_no_numpy(tmp_path):
    write_json(tmp_path / "a.json", {"iou": float("nan"), "n": np.int64(3), "all": np.array([1.5, np.inf]), "yes": np.bool_(True)})
    assert read_json(tmp_path / "a.json") == {"iou": None, "n": 3, "all": [1.5, None], "yes": True}


def test_broken_and_missing_json_are_user_errors(tmp_path):
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        read_json(tmp_path / "a.json")
    with pytest.raises(UserError, match="does not exist"):
        read_json(tmp_path / "b.json")


def test_the_hash_of_settings_does_not_depend_on_their_order():
    assert settings_hash({"a": 1, "b": [1, 2]}) == settings_hash({"b": (1, 2), "a": 1})
    assert settings_hash({"a": 1}) != settings_hash({"a": 2})


def test_other_settings_are_told_in_words():
    assert describe_difference({"size": 256, "seed": 0}, {"size": 128, "seed": 0}) == "size: 256 → 128"
    assert describe_difference({}, {"size": 128}) == "size: null → 128"


def test_existing_files_are_refused_unless_told_otherwise(tmp_path):
    path = tmp_path / "map.tif"
    refuse_existing([path], overwrite=False)
    path.touch()
    refuse_existing([path], overwrite=True)
    with pytest.raises(UserError, match="--overwrite"):
        refuse_existing([path], overwrite=False)


def test_a_folder_that_cannot_be_written_is_found_out_at_once(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"):
        require_writable(tmp_path / "file" / "below")
    require_writable(tmp_path / "new" / "deep")
    assert os.listdir(tmp_path / "new" / "deep") == []


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="other systems need a name for a moment")
def test_asking_whether_a_folder_can_be_written_makes_no_name_that_a_killed_run_would_leave(tmp_path):
    try:
        os.close(os.open(tmp_path, os.O_WRONLY | os.O_TMPFILE))
    except OSError:
        pytest.skip("this file system has no files without a name")
    os.utime(tmp_path, (0, 0))
    require_writable(tmp_path)
    assert tmp_path.stat().st_mtime == 0  # nothing was entered into the folder


def test_several_may_ask_at_once_whether_a_folder_can_be_written_while_another_clears_it(tmp_path):
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(task, tmp_path) for task in (require_writable, require_writable, remove_leftovers) * 300]
        assert [future.result() for future in asked] == [None] * len(asked)
    assert os.listdir(tmp_path) == []


def test_plain_leaves_json_types_alone():
    assert plain({"a": [True, None, 1, "x"], 2: {3, 1}}) == {"a": [True, None, 1, "x"], "2": [1, 3]}


def test_folders_named_like_temporary_files_are_left_alone(tmp_path):
    (tmp_path / ".x.part").mkdir()
    (tmp_path / ".a.part.pt").touch()
    remove_leftovers(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [".x.part"]


def test_a_scratch_folder_belongs_to_one_process_and_is_free_again_when_that_was_killed(tmp_path):
    code = f"import time\nfrom runtime.files import scratch_folder\nwith scratch_folder({str(tmp_path / 's')!r}) as f:\n" \
           "    (f / 'old').touch(); print('in', flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=Path(__file__).resolve().parent.parent)
    assert process.stdout.readline() == b"in\n"
    with pytest.raises(UserError, match="another run is working in"), scratch_folder(tmp_path / "s"):
        pass
    assert (tmp_path / "s" / "old").exists()
    process.kill()
    process.communicate()
    with scratch_folder(tmp_path / "s") as folder:
        assert list(folder.iterdir()) == []
    assert list(tmp_path.iterdir()) == []


def test_a_scratch_folder_takes_what_lies_in_its_place_or_says_what(tmp_path):
    (tmp_path / "s" / "below").mkdir(parents=True)
    with scratch_folder(tmp_path / "s") as folder:
        assert list(folder.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file where a folder for temporary files has to be; remove it"):
        with scratch_folder(tmp_path / "file"):
            pass


def test_where_a_disk_knows_no_locks_everything_goes_on_without(tmp_path, monkeypatch):
    def unknown(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("runtime.files.fcntl.flock", unknown)
    with scratch_folder(tmp_path / "s") as folder, RunFolder(tmp_path / "run"):
        assert folder.exists()


def enter_and_leave(folder, seconds):
    """{what happened: how often} to one of several that want the same scratch folder."""
    counts, end = Counter(), time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            with scratch_folder(folder) as mine:
                (mine / "a").touch(exist_ok=False)
            counts["had it"] += 1
        except Exception as error:
            counts[type(error).__name__] += 1
    return counts


def test_threads_and_processes_that_come_and_go_at_once_are_refused_in_words_or_have_the_folder_alone(tmp_path):
    with ThreadPoolExecutor(3) as pool:  # a lock belongs to an open file: threads are as good as processes
        counts = sum(pool.map(enter_and_leave, [tmp_path / "s"] * 3, [1.5] * 3), Counter())
    assert set(counts) == {"had it", "UserError"}


def test_a_failing_write_names_its_file_and_other_errors_keep_their_words(tmp_path):
    with pytest.raises(OSError) as full, atomic_path(tmp_path / "a.txt"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert full.value.filename == str(tmp_path / "a.txt")
    with pytest.raises(OSError, match="^GDAL says so$"), atomic_path(tmp_path / "a.txt"):
        raise OSError("GDAL says so")


def test_a_scratch_folder_below_a_link_that_leads_nowhere_is_refused(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with pytest.raises(UserError, match="it is not a folder; choose another"), scratch_folder(tmp_path / "link" / "s"):
        pass
