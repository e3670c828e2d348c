"""Lines that a power cut has torn, and files of strangers: made again where that is asked for, else one line with file and number."""

import json
import re

import numpy as np
import pytest
from patch_factory import read_lines, write_manifest, write_patch_set
from rasterio.transform import from_origin
from test_inference_resume import band, same

import chip
from chipping.fake_chips import OUR_REFLECTANCES, FakeRecipe, make_fake_chips
from chipping.inspection import inspect_folder
from chipping.link_chips import link_chips
from chipping.patch_set import read_patch_set
from mapping.journal import Journal
from mapping.many_scenes import scenes_of_checkpoint
from runtime.errors import UserError, explain
from runtime.files import read_json
from runtime.logs import Console

TORN = {
    "zeros": b"\0\0\0\0\n", "zeros without an end": b"\0" * 50, "half a line": b'{"file": "tr', "half a line, ended": b'{"file": "tr\n',
    "a number": b"5\n", "not UTF-8": b'{"file": "\xff"}\n', "deep": b"[" * 100_000 + b"\n",
    "zeros, then a line": b'\0\0\n{"file": "x.npy"}\n',
}


def content(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def make(tmp_path, monkeypatch, make_raster):
    """make("--flag", …) runs make-patches on two scenes of 24 x 24 pixels into patches/ → (exit code, its line, content of the set)."""
    monkeypatch.chdir(tmp_path)
    for k, name in enumerate("ab"):
        values = np.random.default_rng(k).integers(1, 100, (2, 24, 24)).astype(np.uint16)
        values[:, :8, 8:16] = 0  # one window in nine is left out
        where = from_origin(500_000 + 1000 * k, 4_600_000, 10, 10)
        make_raster(f"images/{name}.tif", values, transform=where, nodata=0)
        make_raster(f"masks/{name}.tif", (values[0] > 50).astype(np.uint8), transform=where)

    def run(*words, size=8):
        fixed = "--images", "images", "--masks", "masks", "--divide-by", "10000", "--patches-dir", "patches", "--quiet", f"--stride={size}"
        try:
            code, line = chip.main(["make-patches", *fixed, "--patch-size", str(size), *words]) or 0, ""
        except Exception as error:
            code, line = explain(error)
            assert "unexpectedly" not in line, line
        return code, line, content(tmp_path / "patches")

    return run


@pytest.mark.parametrize("torn", TORN)
@pytest.mark.parametrize("name", ["manifest.jsonl", "skipped.jsonl"])
@pytest.mark.parametrize("lines", [0, 7])
def test_torn_lines_of_patches_are_made_again_with_the_same_bytes(make, tmp_path, torn, name, lines):
    _, _, whole = make()
    path = tmp_path / "patches" / name
    kept = whole[f"{name}"].splitlines(keepends=True)[:lines]
    path.write_bytes(b"".join(kept) + TORN[torn])
    assert make() == (0, "", whole)


@pytest.mark.parametrize("torn", TORN)
def test_overwriting_parses_nothing_of_what_it_removes(make, tmp_path, torn):
    make(size=12)
    _, _, whole = make("--overwrite")
    make("--overwrite", size=12)
    for name in ("manifest.jsonl", "skipped.jsonl"):
        with open(tmp_path / "patches" / name, "ab") as file:
            file.write(TORN[torn])
    assert make("--overwrite") == (0, "", whole)


@pytest.mark.parametrize("torn", TORN)
def test_torn_lines_of_fake_chips_are_made_again_and_overwriting_leaves_none_of_them(tmp_path, torn):
    def make(folder, count, side=8, overwrite=False):
        make_fake_chips(OUR_REFLECTANCES, tmp_path / folder, count, FakeRecipe(side=side), overwrite)
        return content(tmp_path / folder)

    whole, fewer = make("whole", 5), make("fewer", 2, side=16)
    make("torn", 5)
    path = tmp_path / "torn" / "manifest.jsonl"
    damaged = b"".join(path.read_bytes().splitlines(keepends=True)[:2]) + TORN[torn]
    path.write_bytes(damaged)
    assert make("torn", 5) == whole
    path.write_bytes(damaged if damaged.endswith(b"\n") else damaged + b"\n")
    assert make("torn", 2, side=16, overwrite=True) == fewer


@pytest.mark.parametrize("torn", TORN)
@pytest.mark.parametrize("kept", [0, 1, 3])
def test_a_torn_journal_of_a_map_continues_from_its_last_whole_band(tmp_path, torn, kept):
    journal = Journal(tmp_path / "j", {"a": 1})
    for row in (0, 10, 20):
        journal.append(band(row))
    journal.close()
    path = tmp_path / "j" / "journal.jsonl"
    whole = path.read_bytes()
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[:kept]) + TORN[torn])
    for overwrite in (True, False):
        again = Journal(tmp_path / "j", {"a": 1}, overwrite)
        assert again.next_row == 10 * max(0, kept - 1)
        again.close()
    again = Journal(tmp_path / "j", {"a": 1})
    for row in range(again.next_row, 30, 10):
        again.append(band(row))
    assert path.read_bytes() == whole and all(same(one, band(one.row)) for one in again.bands())


@pytest.mark.parametrize(
    "change",
    [{"start": -1}, {"start": 5}, {"row": 7}, {"bytes": [1]}, {"bytes": [10**15, 300, 48]}, {"shape": [10**9, 10**9]}, {"type": "O"},
     {"crc": None}, {"thumbnail": "x"}, {"highest": "high"}, {"unreadable": 3}, {"windows": -4}],
)
def test_a_band_that_a_journal_describes_wrongly_is_predicted_again(tmp_path, change):
    journal = Journal(tmp_path / "j", {"a": 1})
    for row in (0, 10):
        journal.append(band(row))
    journal.close()
    path = tmp_path / "j" / "journal.jsonl"
    head, first, second = path.read_text().splitlines()
    path.write_text("\n".join([head, first, json.dumps({**json.loads(second), **change}), ""]))
    assert Journal(tmp_path / "j", {"a": 1}).next_row == 10


# ------------------------------------------------------------------------------------------------ sets that are not continued

WRONG = [
    {"window": None}, {"window": [0, 0]}, {"window": "0 0 8 8"}, {"window": {"a": 1}}, {"class_pixels": [3]}, {"class_pixels": {"mask": 4}},
    {"class_pixels": {"mask": [1, 2, 3]}}, {"class_pixels": {"mask": ["1", "2"]}}, {"band_sum": [1.0]}, {"band_sum": 7},
    {"band_sum_squares": [None] * 6}, {"split": ["train"]}, {"scene": 9}, {"event": []}, {"file": 5}, {"mask": {}},
    {"valid_pixels": "many"}, {"dtype": "banana"}, {"layers": None}, {"layers": "mask"}, {"scene_size": [1]}, {"transform": [1, 2]},
    {"crs": 4326}, {"valid_pixels": -3}, {"cloud_cover": "dense"}, {"valid_pixels": 10**400},
]


@pytest.mark.parametrize("line", [*WRONG, *TORN.values()], ids=str)
def test_every_reader_names_file_and_line_of_a_manifest_that_it_cannot_take(tmp_path, line):
    folder = write_patch_set(tmp_path / "set", {"train": 2, "val": 1}, size=16)
    lines = read_lines(folder)
    write_manifest(folder, [lines[0], lines[1] | line if isinstance(line, dict) else lines[1], *lines[2:]])
    if isinstance(line, bytes):
        path, line = folder / "manifest.jsonl", line if line.endswith(b"\n") else line + b"\n"
        before = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(before[0] + line + b"".join(before[1:]))
    for read in (lambda: read_patch_set(folder, 2), lambda: inspect_folder(folder, pictures=False, say=lambda text: None)):
        with pytest.raises(UserError, match=rf"{re.escape(str(folder))}/manifest\.jsonl, line 2 ") as refusal:
            read()
        assert len(str(refusal.value)) < 300 + len(str(folder))


@pytest.mark.parametrize(
    "change",
    [{"bands": 3}, {"bands": []}, {"bands": [1, 2]}, {"divide_by": 10}, {"divide_by": [1.0]}, {"divide_by": [0] * 6}, {"offset": ["1"] * 6},
     {"layers": []}, {"layers": [["mask"]]}, {"classes": ["mask"]}, {"classes": {}}, {"classes": {"mask": "ab"}}, {"chip_size": "16"},
     {"chip_size": -1}, {"chip_size": True}, {"nodata": "none"}, {"kind": ["patches"]}, {"settings": 3}, {"settings": {"tiles": [1]}}],
    ids=str,
)
def test_every_reader_names_a_description_that_it_cannot_take(tmp_path, change):
    folder = write_patch_set(tmp_path / "set", {"train": 1, "val": 1}, size=16)
    path = folder / "chipset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    for read in (lambda: read_patch_set(folder, 2), lambda: inspect_folder(folder), lambda: link_chips([folder], tmp_path / "out")):
        with pytest.raises(UserError, match=re.escape(str(path))):
            read()


@pytest.mark.parametrize("text", [b"\0\0", b"", b"[" * 100_000, b"\xff{}", b"[]", b"7", b'{"a": '])
def test_a_json_file_that_is_none_is_one_line(tmp_path, text):
    (tmp_path / "a.json").write_bytes(text)
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "a.json"))):
        read_json(tmp_path / "a.json")
    with pytest.raises(UserError, match="cannot be read"):
        read_json(tmp_path)


@pytest.mark.parametrize("line", [b"\0\0\n", b'{"file": "0\n', b'{"tile": "a"}\n', b'{"file": 7}\n', b'{"file": "\xff.pt"}\n', b"[]\n"])
def test_linking_names_the_line_of_a_torn_manifest(tmp_path, line):
    make_fake_chips(OUR_REFLECTANCES, tmp_path / "a", 2, FakeRecipe(side=8))
    path = tmp_path / "a" / "manifest.jsonl"
    path.write_bytes(path.read_bytes() + line)
    with pytest.raises(UserError, match=rf"{re.escape(str(path))}, line 3 "):
        link_chips([tmp_path / "a"], tmp_path / "out")


@pytest.mark.parametrize("line", [{"source": None}, {"source": "a.tif"}, {"split": 1, "source": {}}, {}])
def test_a_manifest_that_names_no_scenes_is_said_where_they_are_looked_for(tmp_path, line):
    write_manifest(tmp_path, [line])
    with pytest.raises(UserError, match="does not say of which scene each patch is"):
        scenes_of_checkpoint({"patches_dir": str(tmp_path)}, Console(quiet=True))


# --------------------------------------------------------------------------------------------- what a failed run leaves behind


def test_the_advice_of_a_run_that_cut_nothing_is_accepted_in_the_same_folder(make, make_raster, tmp_path):
    for name in "ab":
        where = from_origin(500_000 + 1000 * "ab".index(name), 4_600_000, 10, 10)
        make_raster(f"images/{name}.tif", np.zeros((2, 24, 24), np.uint16), transform=where, nodata=0)
    code, line, _ = make()
    assert code == 2 and "pass --nodata none" in line
    code, _, found = make("--nodata", "none")
    assert code == 0 and found["manifest.jsonl"].count(b"\n") == 18 and "skipped.jsonl" not in found
    code, line, _ = make("--nodata", "1")
    assert code == 2 and "made with other settings" in line and content(tmp_path / "patches") == found


@pytest.mark.parametrize("names", [["notes.txt"], ["manifest.jsonl"], ["notes.txt", "manifest.jsonl"]])
def test_a_foreign_folder_stays_as_it_was(make, tmp_path, names):
    (tmp_path / "patches").mkdir()
    for name in names:
        (tmp_path / "patches" / name).write_text("mine\n")
    before = content(tmp_path / "patches")
    code, line, after = make()
    assert code == 2 and "is not empty and not a chip set" in line and after == before
