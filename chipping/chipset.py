"""
Reads and writes the files that every chip set has: chipset.json, manifest.jsonl, skipped.jsonl.

chipset.json says what all chips share: kind, size, bands, scale, nodata, classes, settings and their hash. manifest.jsonl has one line a
chip, written after the chip's files, in the order in which a single process without interruption makes them; skipped.jsonl has one line a
window that became no chip, with the reason. A run that was killed leaves chips that are listed and whole, and at most some files that are
not listed, which the next run writes again with the same bytes.
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from constants import MANIFEST, VERSION
from runtime.errors import UserError
from runtime.files import (
    describe_difference,
    plain,
    read_json,
    read_lines,
    remove_leftovers,
    require_writable,
    settings_hash,
    try_lock,
    write_json,
    write_text,
)

FORMAT = "chipmill-chipset-1"
REMOVING = "chipmill-removing-1"  # the format that chipset.json states while --overwrite removes the chips of an earlier run
DESCRIPTION = "chipset.json"
SKIPPED = "skipped.jsonl"
PATCH_KEYS = ("chip_size", "bands", "divide_by", "offset", "layers", "classes")  # what readers of a patch set need


@dataclass(frozen=True)
class RunOptions:
    """
    What does not change the chips of a finished run. workers: processes. overwrite: replace chips of other settings. strict: the first
    window that cannot be read is an error.
    """

    workers: int = 1
    overwrite: bool = False
    strict: bool = False


DEFAULT_OPTIONS = RunOptions()


def read_chipset(folder):
    """chipset.json of a folder as a dict. UserError where the folder or the file is missing or is not ours."""
    path = Path(folder) / DESCRIPTION
    if not Path(folder).is_dir():
        raise UserError(f"{folder} does not exist; expected a folder made by chip.py")
    if not path.exists():
        raise UserError(f"{folder} has no {DESCRIPTION}; expected a folder made by chip.py")
    description = read_json(path)
    if isinstance(description, dict) and description.get("format") == REMOVING:
        raise UserError(f"a run with --overwrite was stopped while it removed the chips of {folder}; run that command again")
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        found = description.get("format") if isinstance(description, dict) else type(description).__name__
        raise UserError(f"{path}: expected format {FORMAT!r}, found {found!r}; it is not a chip set of this version")
    expected = ("kind", *(PATCH_KEYS if description.get("kind") == "patches" else ()))
    if missing := [key for key in expected if key not in description]:
        raise UserError(f"{path} lacks {', '.join(missing)}; make the chips again")
    return description


def read_manifest(folder):
    """The lines of manifest.jsonl as dicts, in order. UserError where one names a file outside of the folder."""
    path = Path(folder) / MANIFEST
    lines = read_lines(path)
    for line in lines:
        for name in (str(line.get("file")), str(line.get("mask"))) if isinstance(line, dict) else ():
            if os.path.isabs(name) or (".." in name and ".." in Path(name).parts):
                raise UserError(f"{path} lists {name}, which is outside of {folder}; expected names below the folder")
    return lines


def complete(description):
    """A description with format, version and the hash of its settings: all of chipset.json."""
    return {"format": FORMAT, "version": VERSION, **plain(description), "settings_hash": settings_hash(description["settings"])}


def find_chips(folder):
    """([integer, …] sorted, number of broken links, number of .pt files with other names) of a folder."""
    numbers, broken, foreign = [], 0, 0
    with os.scandir(folder) as entries:
        for entry in entries:
            stem, suffix = os.path.splitext(entry.name)
            if suffix != ".pt" or entry.name.startswith("."):
                continue
            if not (stem.isdecimal() and stem.isascii() and stem == str(int(stem))):
                foreign += 1
            elif entry.is_symlink() and not os.path.exists(entry.path):
                broken += 1
            else:
                numbers.append(int(stem))
    return sorted(numbers), broken, foreign


def cut_unfinished_line(path):
    """Remove what a killed run or a full disk left of a last line: the next line would be appended to it."""
    if not Path(path).exists():
        return
    with open(path, "rb+") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)


class ChipSetWriter:
    """
    Adds chips to a folder in a fixed order, and continues a set that was interrupted.

    folder: where. description: the content of chipset.json without format, version and hash; its "settings" decide whether an earlier run's
    chips may be continued: other settings are a UserError that says what differs. companions: names of files and folders beside the
    manifest that --overwrite removes with the chips. unlisted: a function of (folder, lines) to the names of chips that a killed run may
    have left without a line; --overwrite removes them too. Temporary files of a killed run are removed in any case.

        with ChipSetWriter(folder, description, overwrite=False) as chipset:
            chipset.lines                    # what earlier runs have made, in order
            chipset.add({"file": …, …})      # after the chip's files are in place

    Two programs at once in one folder are refused: the manifest is locked while it is open.
    """

    def __init__(self, folder, description, overwrite=False, companions=(), unlisted=lambda folder, lines: ()):
        self.folder = Path(folder)
        self.description = complete(description)
        self.overwrite = overwrite
        self.companions = companions
        self.unlisted = unlisted
        self.lines = []

    def __enter__(self):
        require_writable(self.folder)
        self.file = open(self.folder / MANIFEST, "a+", encoding="utf-8")
        lock(self.file, self.folder)
        try:
            self.begin()
            remove_leftovers(self.folder)
        except BaseException:
            self.file.close()
            raise
        return self

    def begin(self):
        """Continue, start, or refuse: decided by the description that is already there."""
        path = self.folder / DESCRIPTION
        if path.exists() and not self.overwrite:
            old = read_chipset(self.folder)
            if old["settings_hash"] != self.description["settings_hash"]:
                difference = difference_of_settings(old.get("settings", {}), self.description["settings"])
                raise UserError(f"{self.folder} holds chips made with other settings ({difference}); "
                                "choose another folder, or pass --overwrite to replace them")
            self.lines = read_manifest(self.folder)
            cut_unfinished_line(self.folder / MANIFEST)
            return
        if not self.overwrite:
            strangers = [n for n in sorted(os.listdir(self.folder)) if n != MANIFEST and not n.startswith(".")]
            if strangers or os.path.getsize(self.folder / MANIFEST):
                raise UserError(f"{self.folder} is not empty and not a chip set ({', '.join(strangers[:3])} …); "
                                "choose another folder, or pass --overwrite")
        else:
            self.remove_listed()
        self.file.truncate(0)
        write_json(path, self.description)

    def remove_listed(self):
        """
        Delete the chips of an earlier run: those that its manifest lists, and those that a killed run may have left unlisted.

        First chipset.json gets the format REMOVING, so that at no moment a set claims chips which are no longer there. The manifest is
        emptied after the chips are gone: a run that was killed in between leaves the next one what it needs to finish.
        """
        path = self.folder / DESCRIPTION
        lines = read_manifest(self.folder) if path.exists() else []  # a manifest without chipset.json is not ours
        if path.exists():
            write_json(path, {"format": REMOVING})
        for line in lines:
            for key in ("file", "mask"):
                if line.get(key):
                    (self.folder / line[key]).unlink(missing_ok=True)
        for name in (*self.companions, *(self.unlisted(self.folder, lines) if path.exists() else ())):
            companion = self.folder / name
            if companion.is_dir():
                shutil.rmtree(companion)
            else:
                companion.unlink(missing_ok=True)
        self.file.truncate(0)

    def keep(self, count):
        """Drop all lines but the first `count`: the chips after them will be made again."""
        self.lines = self.lines[:count]
        with open(self.folder / MANIFEST, "rb+") as file:
            for _ in range(count):
                file.readline()
            file.truncate(file.tell())

    def add(self, line):
        """Append one line. The chip's files must be under their final names by now."""
        try:
            text = to_line(line)
        except (TypeError, ValueError):  # numpy's numbers or NaN are rare; looking for them in every line costs more than writing it
            text = to_line(plain(line))
        self.file.write(text)
        self.file.flush()
        self.lines.append(line)

    def __exit__(self, *exception):
        self.file.close()


def to_line(value, ensure_ascii=False):
    """A line of a .jsonl file."""
    return json.dumps(value, ensure_ascii=ensure_ascii, allow_nan=False, separators=(", ", ": ")) + "\n"


class SkipLog:
    """
    skipped.jsonl: one line a window that became no chip, and why.

        with SkipLog(folder / SKIPPED) as skips:
            skips.lines           # what earlier runs have written
            skips.rewrite(lines)  # keep only these of them
            skips.add({…})

    path: of the file. keep_empty: the file is there even when it has no line. ensure_ascii: other characters are escaped.
    """

    def __init__(self, path, keep_empty=False, ensure_ascii=False):
        self.path, self.keep_empty, self.ensure_ascii = Path(path), keep_empty, ensure_ascii
        cut_unfinished_line(self.path)
        self.lines = read_lines(self.path)
        self.file = None

    def __enter__(self):
        if self.keep_empty:
            self.path.touch()
        return self

    def rewrite(self, lines):
        """Replace what earlier runs have written. Before the first add."""
        self.lines = lines
        if lines or self.keep_empty:
            write_text(self.path, "".join(to_line(line, self.ensure_ascii) for line in lines))
        else:
            self.path.unlink(missing_ok=True)

    def add(self, line):
        if self.file is None:
            self.file = open(self.path, "a", encoding="utf-8")
        self.file.write(to_line(line, self.ensure_ascii))
        self.file.flush()

    def __exit__(self, *exception):
        if self.file is not None:
            self.file.close()


def pansharpen_description(settings, *, chip_size, bands, ratio, store, dtype, divide_by, offset, sampler, seed):
    """chipset.json's content of a set of pan/ms chips, without format, version and hash."""
    return {
        "kind": "pansharpen", "settings": settings, "chip_size": chip_size, "bands": list(bands), "ratio": ratio, "store": store,
        "dtype": dtype, "divide_by": divide_by, "offset": offset, "nodata": 0, "sampler": sampler, "seed": seed,
    }


def difference_of_settings(old, new):
    """describe_difference of two settings, with tiles by their names."""
    old_tiles, new_tiles = ({tile["name"]: tile for tile in plain(settings).get("tiles", ())} for settings in (old, new))
    words = [describe_difference(*({key: value for key, value in s.items() if key != "tiles"} for s in (old, new)))]
    for name in sorted({*old_tiles, *new_tiles}):
        if name not in old_tiles or name not in new_tiles:
            words.append(f"tile {name} is {'gone' if name in old_tiles else 'new'}")
        elif old_tiles[name] != new_tiles[name]:
            words.append(f"tile {name} has {describe_difference(old_tiles[name], new_tiles[name])}")
    words = [word for word in words if word]
    return ", ".join(words[:3]) + (f" and {len(words) - 3} more" if len(words) > 3 else "")


def next_chip(folder, lines):
    """
    [name] of the one chip 0.pt, 1.pt, … that a killed run can have left unlisted: that after the last line, and without a line one of any
    number.
    """
    if lines:
        return [f"{int(Path(lines[-1]['file']).stem) + 1}.pt"]
    chips = [path.name for path in folder.glob("*.pt") if path.stem.isdecimal()]
    return chips if len(chips) == 1 else []


def lock(file, folder):
    """Lock the folder for this process; UserError where another one has it."""
    if not try_lock(file):
        file.close()
        raise UserError(f"another program is writing chips into {folder} right now; wait for it, or choose another folder")
