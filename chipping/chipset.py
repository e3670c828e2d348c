"""
Reads and writes the files that every chip set has: chipset.json, manifest.jsonl, skipped.jsonl.

chipset.json says what all chips share: kind, size, bands, scale, nodata, classes, settings and their hash. manifest.jsonl has one line a
chip, written after the chip's files, in the order in which a single process without interruption makes them; skipped.jsonl has one line a
window that became no chip, with the reason. A run that was killed leaves chips that are listed and whole, and at most some files that are
not listed, which the next run writes again with the same bytes.
"""

import itertools
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from chipping import fields
from chipping.fields import problem_of_patches
from constants import MANIFEST, VERSION
from runtime.errors import UserError
from runtime.fields import find_problem
from runtime.files import (
    describe_difference,
    open_own,
    plain,
    read_json,
    read_lines,
    remove_leftovers,
    require_writable,
    scan_lines,
    settings_hash,
    try_lock,
    write_json,
    write_text,
)
from runtime.names import path_inside, require_real_folder

FORMAT = "chipmill-chipset-1"
REMOVING = "chipmill-removing-1"  # the format that chipset.json states while --overwrite removes the chips of an earlier run
UNFINISHED = "unfinished"  # key of chipset.json while chips are made: how many are asked for, or true where the number is not known
DESCRIPTION = "chipset.json"
SKIPPED = "skipped.jsonl"
CHIP_NAME = re.compile(r"(0|[1-9][0-9]*)\.pt")
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
    if description.get("format") == REMOVING:
        raise UserError(f"a run with --overwrite was stopped while it removed the chips of {folder}; run that command again")
    if description.get("format") != FORMAT:
        found = str(description.get("format"))[:40]
        raise UserError(f"{path}: expected format {FORMAT!r}, found {found!r}; it is not a chip set of this version")
    is_patches = description.get("kind") == "patches"
    if missing := [key for key in ("kind", *(PATCH_KEYS if is_patches else ())) if key not in description]:
        raise UserError(f"{path} lacks {', '.join(missing)}; make the chips again")
    problem = find_problem(description, fields.PATCHES if is_patches else fields.DESCRIPTION)
    if problem := problem or (problem_of_patches(description) if is_patches else None):
        raise UserError(f"{path} {problem}; make the chips again")
    return description


def read_manifest(folder, needs=()):
    """
    The lines of manifest.jsonl as dicts, in order, their fields checked. needs: names of fields that every line has to have.

    UserError for a line that is none, and for one that names a file outside of the folder.
    """
    path = Path(folder) / MANIFEST
    return check_lines(path, read_lines(path), needs)


def read_skipped(folder, needs=()):
    """The lines of skipped.jsonl, as read_manifest."""
    path = Path(folder) / SKIPPED
    return check_lines(path, read_lines(path), needs)


def check_lines(path, lines, needs=(), remedy="make the chips again"):
    """`lines` of a file, if their fields are right; else a UserError that names the first line that is not."""
    for number, line in enumerate(lines, start=1):
        if problem := find_problem(line, fields.LINE, needs):
            raise UserError(f"{path}, line {number} {problem}; {remedy}")
        refuse_outside(path, line)
    return lines


def refuse_outside(path, line):
    """UserError where a line of `path` names a file that is not below its folder. What is no text is no name."""
    for name in (line.get("file"), line.get("mask")):
        if isinstance(name, str) and name:
            path_inside(path.parent, name, path)


def unfinished_words(folder, description, count):
    """A sentence about a set that was not made to its end; None where all chips that were asked for are there. count: of chips."""
    asked = description.get(UNFINISHED)
    again = "run the command that makes it again to complete it"
    if asked is True:
        return f"{folder} was not made to its end and holds {count} so far; {again}"
    return f"{folder} holds {count} of the {asked} chips that were asked for; {again}" if asked and count < asked else None


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


def cut_torn_lines(path, needs):
    """
    (lines, whether some are lost) of a file that is continued: the lines up to the first that a kill, a full disk or a power cut has torn.

    What follows is cut off. UserError for a line that is whole and not ours.
    """
    lines, size, _ = scan_lines(path)
    check_lines(Path(path), lines, needs, "pass --overwrite to make all again")
    torn = Path(path).exists() and size < os.path.getsize(path)
    if torn:
        with open_own(path, "rb+") as file:
            file.truncate(size)
    return lines, torn


class ChipSetWriter:
    """
    Adds chips to a folder in a fixed order, and continues a set that was interrupted.

    folder: where. description: the content of chipset.json without format, version and hash; its "settings" decide whether an earlier run's
    chips may be continued: other settings are a UserError that says what differs. companions: names of files and folders beside the
    manifest that --overwrite removes with the chips. unlisted: a function of (folder, lines, whether lines are lost) to the names of chips
    that have no line; --overwrite removes them too. needs: fields that a line of the manifest has to have. Temporary files of a killed run
    are removed in any case. A set without a line has nothing to lose: other settings begin it anew.

        with ChipSetWriter(folder, description, overwrite=False) as chipset:
            chipset.lines                    # what earlier runs have made, in order
            chipset.expect(count)            # where chips are missing
            chipset.add({"file": …, …})      # after the chip's files are in place
            chipset.expect(None)             # all of them are there

    Two programs at once in one folder are refused: the manifest is locked while it is open.
    """

    def __init__(self, folder, description, overwrite=False, companions=(), unlisted=lambda folder, lines, torn: (), needs=("file",)):
        self.folder = Path(folder)
        self.description = complete(description)
        self.overwrite = overwrite
        self.companions = companions
        self.unlisted, self.needs = unlisted, needs
        # torn: lines of an earlier run are lost. replaces: an earlier set was here, and its chips are gone.
        self.lines, self.torn, self.replaces = [], False, False

    def __enter__(self):
        if not self.overwrite:
            self.refuse_foreign()
        require_writable(self.folder)
        self.file = open_own(self.folder / MANIFEST, "a+", encoding="utf-8")
        lock(self.file, self.folder)
        try:
            self.begin()
            remove_leftovers(self.folder)
        except BaseException:
            self.file.close()
            raise
        return self

    def refuse_foreign(self):
        """UserError for a folder with other things in it. Before anything is written there."""
        if not self.folder.is_dir() or (self.folder / DESCRIPTION).exists():
            return
        strangers = [n for n in sorted(os.listdir(self.folder)) if not n.startswith(".")]
        if strangers == [MANIFEST] and not os.path.getsize(self.folder / MANIFEST):
            return  # of a run that was killed before it wrote its description
        if strangers:
            raise UserError(f"{self.folder} is not empty and not a chip set ({', '.join(strangers[:3])} …); "
                            "choose another folder, or pass --overwrite")

    def begin(self):
        """Continue, start, or refuse: decided by the description that is already there."""
        path = self.folder / DESCRIPTION
        if path.exists() and not self.overwrite:
            old = read_chipset(self.folder)
            if old.get("settings_hash") == self.description["settings_hash"]:
                self.lines, self.torn = cut_torn_lines(self.folder / MANIFEST, self.needs)
                self.description = old
                return
            if scan_lines(self.folder / MANIFEST)[0]:
                difference = difference_of_settings(old.get("settings", {}), self.description["settings"])
                raise UserError(f"{self.folder} holds chips made with other settings ({difference}); "
                                "choose another folder, or pass --overwrite to replace them")
        if path.exists() or self.overwrite:
            self.remove_listed()
        self.file.truncate(0)
        write_json(path, self.description)

    def remove_listed(self):
        """
        Delete the chips of an earlier run: those that its manifest lists, and those that a killed run may have left unlisted.

        First chipset.json gets the format REMOVING, so that at no moment a set claims chips which are no longer there. The manifest is
        emptied after the chips are gone: a run that was killed in between leaves the next one what it needs to finish. Lines that are torn
        or no lines of ours are passed over.
        """
        path = self.folder / DESCRIPTION
        lines, _, problem = scan_lines(self.folder / MANIFEST) if path.exists() else ([], 0, None)  # else the manifest is not ours
        listed = [self.folder / line[key] for line in lines for key in ("file", "mask") if line.get(key) and isinstance(line[key], str)]
        for line in lines:
            refuse_outside(self.folder / MANIFEST, line)
        for place in sorted({file.parent for file in listed}):
            require_real_folder(place, self.folder)
        if path.exists():
            self.replaces = True
            write_json(path, {"format": REMOVING})
        for file in listed:
            file.unlink(missing_ok=True)
        for name in (*self.companions, *(self.unlisted(self.folder, lines, problem is not None) if path.exists() else ())):
            companion = self.folder / name
            if companion.is_dir() and not companion.is_symlink():
                shutil.rmtree(companion)
            else:
                companion.unlink(missing_ok=True)
        self.file.truncate(0)

    def expect(self, count):
        """
        State in chipset.json that chips are missing until there are `count` (True: the number is not known), or with None that none is.

        A run that ends early leaves the statement, and training tells it.
        """
        stated = {key: value for key, value in self.description.items() if key != UNFINISHED}
        if count is not None:
            stated[UNFINISHED] = count
        if stated != self.description:
            write_json(self.folder / DESCRIPTION, stated)
            self.description = stated

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

    path: of the file. keep_empty: the file is there even when it has no line. ensure_ascii: other characters are escaped. needs: fields
    that a line has to have.
    """

    def __init__(self, path, keep_empty=False, ensure_ascii=False, needs=()):
        self.path, self.keep_empty, self.ensure_ascii = Path(path), keep_empty, ensure_ascii
        self.lines, self.torn = cut_torn_lines(self.path, needs)
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
            self.file = open_own(self.path, "a", encoding="utf-8")
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


def next_chip(folder, lines, torn=False):
    """
    [name] of the one chip 0.pt, 1.pt, … that a killed run can have left unlisted: that after the last line, and without a line one of any
    number. torn: lines after these are lost; then all chips after the last, without a gap.
    """
    chips = find_chips(folder)[0]
    numbers = [int(match[1]) for line in lines if (match := CHIP_NAME.fullmatch(str(line.get("file"))))]
    if not numbers:
        return [f"{n}.pt" for n in chips] if torn or len(chips) == 1 else []
    after = itertools.takewhile(set(chips).__contains__, itertools.count(numbers[-1] + 1))
    return [f"{n}.pt" for n in (after if torn else itertools.islice(after, 1))]


def lock(file, folder):
    """Lock the folder for this process; UserError where another one has it."""
    if not try_lock(file):
        file.close()
        raise UserError(f"another program is writing chips into {folder} right now; wait for it, or choose another folder")
