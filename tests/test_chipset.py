"""A chip set grows line by line, goes on after a kill, and refuses what would mix it up."""

import json
import subprocess
import sys

import pytest

from chipping.chipset import ChipSetWriter, read_chipset, read_manifest
from runtime.errors import UserError

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


def test_a_folder_with_other_things_in_it_is_refused(tmp_path):
    (tmp_path / "thesis.docx").write_bytes(b"x")
    with pytest.raises(UserError, match="thesis.docx"), ChipSetWriter(tmp_path, DESCRIPTION):
        pass
    assert (tmp_path / "thesis.docx").exists()


def test_two_writers_in_one_folder_are_refused(tmp_path):
    code = ("import sys; from chipping.chipset import ChipSetWriter\n"
            "try:\n    ChipSetWriter(sys.argv[1], {'kind': 'patches', 'settings': {}}).__enter__()\n"
            "except Exception as error:\n    print(error)")  # fmt: skip
    with ChipSetWriter(tmp_path, DESCRIPTION):
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert "another program is writing" in done.stdout


@pytest.mark.parametrize("content, words", [("{", "not valid JSON"), ("[]", "expected format"), ('{"format": "v9"}', "'v9'")])
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
