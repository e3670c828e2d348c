"""A chip set grows line by line, goes on after a kill, and refuses what would mix it up."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from chipping import chipset as chipset_module
from chipping.chipset import FORMAT, ChipSetWriter, SkipLog, read_chipset, read_lines, read_manifest
from chipping.sources import refuse_changed_sources
from runtime.errors import UserError
from runtime.files import write_json

DESCRIPTION = {"kind": "pansharpen", "settings": {"patch_size": 8, "bands": ["red"]}}


def other(**settings):
    return {"kind": "pansharpen", "settings": {**DESCRIPTION["settings"], **settings}}


def test_lines_come_back_in_order(tmp_path):
    with ChipSetWriter(tmp_path / "set", DESCRIPTION) as chipset:
        for number in range(3):
            chipset.add({"file": f"{number}.npy", "number": number})
    assert [line["number"] for line in read_manifest(tmp_path / "set")] == [0, 1, 2]
    assert read_chipset(tmp_path / "set")["kind"] == "pansharpen"


def test_a_second_run_sees_what_the_first_has_made(tmp_path):
    with ChipSetWriter(tmp_path, DESCRIPTION) as chipset:
        chipset.add({"file": "a.npy"})
    with ChipSetWriter(tmp_path, DESCRIPTION) as chipset:
        assert [line["file"] for line in chipset.lines] == ["a.npy"]
        chipset.add({"file": "b.npy"})
    assert [line["file"] for line in read_manifest(tmp_path)] == ["a.npy", "b.npy"]


def test_a_line_that_a_kill_cut_in_half_is_dropped(tmp_path):
    with ChipSetWriter(tmp_path, DESCRIPTION) as chipset:
        chipset.add({"file": "a.npy"})
    with open(tmp_path / "manifest.jsonl", "a") as file:
        file.write('{"file": "b.n')
    assert len(read_manifest(tmp_path)) == 1
    with ChipSetWriter(tmp_path, DESCRIPTION) as chipset:
        chipset.add({"file": "b.npy"})
    assert [line["file"] for line in read_manifest(tmp_path)] == ["a.npy", "b.npy"]


def test_keep_forgets_the_lines_after_it(tmp_path):
    with ChipSetWriter(tmp_path, DESCRIPTION) as chipset:
        for name in "abc":
            chipset.add({"file": name})
        chipset.keep(1)
        chipset.add({"file": "d"})
    assert [line["file"] for line in read_manifest(tmp_path)] == ["a", "d"]


def test_other_settings_are_refused_in_words(tmp_path):
    with ChipSetWriter(tmp_path, DESCRIPTION) as chipset:
        chipset.add({"file": "a.npy"})
    with pytest.raises(UserError, match="patch_size: 8 → 16") as refusal, ChipSetWriter(tmp_path, other(patch_size=16)):
        pass
    assert "--overwrite" in str(refusal.value) and "bands" not in str(refusal.value)


def test_overwrite_removes_what_the_manifest_lists_and_nothing_else(tmp_path):
    for name in ("mine.npy", "a.npy", "a_mask.npy"):
        (tmp_path / name).write_bytes(b"x")
    with ChipSetWriter(tmp_path, DESCRIPTION, overwrite=True) as chipset:
        chipset.add({"file": "a.npy", "mask": "a_mask.npy"})
    with ChipSetWriter(tmp_path, other(patch_size=16), overwrite=True) as chipset:
        assert chipset.lines == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["chipset.json", "manifest.jsonl", "mine.npy"]


@pytest.mark.parametrize("stop_at", ["a.npy", "b_mask.npy", "skipped.jsonl", "manifest.jsonl"])
def test_a_killed_overwrite_leaves_no_set_and_all_that_the_next_one_needs_to_finish_it(tmp_path, monkeypatch, stop_at):
    with ChipSetWriter(tmp_path, DESCRIPTION) as chipset:
        for name in "ab":
            (tmp_path / f"{name}.npy").touch(), (tmp_path / f"{name}_mask.npy").touch()
            chipset.add({"file": f"{name}.npy", "mask": f"{name}_mask.npy"})
    (tmp_path / "skipped.jsonl").touch()
    (tmp_path / ".work").mkdir()
    unlink = Path.unlink

    def killed(self, missing_ok=False):
        if self.name == stop_at:
            raise KeyboardInterrupt
        unlink(self, missing_ok=missing_ok)

    def killed_before_the_description(path, content):
        if content["format"] == FORMAT and stop_at == "manifest.jsonl":
            raise KeyboardInterrupt
        write_json(path, content)

    new, companions = other(patch_size=16), ("skipped.jsonl", ".work")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "unlink", killed)
        patch.setattr(chipset_module, "write_json", killed_before_the_description)
        ChipSetWriter(tmp_path, new, overwrite=True, companions=companions).__enter__()
    with pytest.raises(UserError, match="was stopped while it removed the chips of .*; run that command again"):
        read_chipset(tmp_path)
    with pytest.raises(UserError, match="was stopped while it removed the chips of"), ChipSetWriter(tmp_path, new):
        pass
    with ChipSetWriter(tmp_path, new, overwrite=True, companions=companions) as chipset:
        assert chipset.lines == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["chipset.json", "manifest.jsonl"]


def test_overwrite_removes_nothing_that_a_strange_manifest_lists(tmp_path):
    (tmp_path / "mine.npy").touch()
    (tmp_path / "manifest.jsonl").write_text('{"file": "mine.npy"}\n')
    with ChipSetWriter(tmp_path, DESCRIPTION, overwrite=True):
        pass
    assert (tmp_path / "mine.npy").exists()


@pytest.mark.parametrize("key", ["file", "mask"])
@pytest.mark.parametrize("name", ["../other/a.npy", "train/../../a.npy", "/etc/a.npy"])
def test_a_manifest_that_leads_out_of_its_folder_is_refused_and_nothing_removed(tmp_path, key, name):
    with ChipSetWriter(tmp_path / "set", DESCRIPTION) as chipset:
        chipset.add({"file": "a.npy", key: name})
    (tmp_path / "other").mkdir()
    for place in (tmp_path / "other" / "a.npy", tmp_path / "a.npy"):
        place.touch()
    with pytest.raises(UserError, match=f"names {name}, which is outside of"):
        ChipSetWriter(tmp_path / "set", other(patch_size=16), overwrite=True).__enter__()
    assert (tmp_path / "other" / "a.npy").exists() and (tmp_path / "a.npy").exists()
    assert read_chipset(tmp_path / "set")["settings"] == DESCRIPTION["settings"]


def test_a_folder_with_other_things_in_it_is_refused(tmp_path):
    (tmp_path / "thesis.docx").write_bytes(b"x")
    with pytest.raises(UserError, match="thesis.docx"), ChipSetWriter(tmp_path, DESCRIPTION):
        pass
    assert (tmp_path / "thesis.docx").exists()


def test_two_writers_in_one_folder_are_refused(tmp_path):
    code = ("import sys; from chipping.chipset import ChipSetWriter\n"
            "try:\n    ChipSetWriter(sys.argv[1], {'kind': 'patches', 'settings': {}}).__enter__()\n"
            "except Exception as error:\n    print(error)")
    with ChipSetWriter(tmp_path, DESCRIPTION):
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert "another program is writing" in done.stdout


@pytest.mark.parametrize("content, words", [("{", "not valid JSON"), ("[]", "expected an object"), ('{"format": "v9"}', "'v9'")])
def test_a_description_that_is_not_ours_is_named(tmp_path, content, words):
    (tmp_path / "chipset.json").write_text(content)
    with pytest.raises(UserError, match=words):
        read_chipset(tmp_path)


def test_a_missing_folder_and_a_folder_without_a_set_are_told_apart(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_chipset(tmp_path / "nowhere")
    with pytest.raises(UserError, match="has no chipset.json"):
        read_chipset(tmp_path)


def test_the_manifest_is_plain_json(tmp_path):
    with ChipSetWriter(tmp_path, DESCRIPTION) as chipset:
        chipset.add({"file": "a.npy", "cloud_cover": float("nan"), "scene": "Ñuñoa"})
    line = json.loads((tmp_path / "manifest.jsonl").read_text(encoding="utf-8"))
    assert line == {"file": "a.npy", "cloud_cover": None, "scene": "Ñuñoa"}


@pytest.mark.parametrize("keep_empty", [True, False])
def test_a_skip_log_continues_where_a_killed_run_was_torn(tmp_path, keep_empty):
    path = tmp_path / "skipped.jsonl"
    path.write_text('{"i": 1}\n{"i": 2}\n{"i": 3')
    with SkipLog(path, keep_empty) as skips:
        assert skips.lines == [{"i": 1}, {"i": 2}]
        skips.rewrite(skips.lines[:1])
        skips.add({"i": 4, "tile": "Ü"})
    assert path.read_text() == '{"i": 1}\n{"i": 4, "tile": "Ü"}\n'
    with SkipLog(path, keep_empty) as skips:
        skips.rewrite([])
    assert path.exists() == keep_empty and read_lines(path) == []


STAMPS = {"image": [5, 1.5], "mask": [6, 2.5, 7, 3.5]}  # the mask has a .msk file beside it


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"image": [5, 1.25]}, "image.tif has changed since chips were cut into here; pass --overwrite"),
        ({"image": [4, 1.5]}, "image.tif has changed since"),
        ({"mask": [6, 2.5, 7, 3.75]}, "mask.tif.msk has changed since"),
        ({"mask": [6, 2.5]}, "mask.tif.msk has changed since"),
        ({"mask": [6, 9.5, 7, 3.5]}, "mask.tif has changed since"),
        ({"clouds": [1, 1.0]}, "clouds.tif is new since"),
        ({"image": None}, "the image file of a is gone since"),
    ],
)
def test_a_source_that_is_not_what_it_was_is_named(changes, says):
    now = {key: stamps for key, stamps in {**STAMPS, **changes}.items() if stamps}
    path_of = "{1}.tif".format
    refuse_changed_sources({"a": STAMPS, "b": {"image": [0, 0.0]}}, {"a": dict(STAMPS), "c": now}, path_of, "here")  # b is gone, c is new
    with pytest.raises(UserError, match=re.escape(says)):
        refuse_changed_sources({"a": STAMPS}, {"a": now}, path_of, "here")
