"""The numbers of a map (pixels and hectares a class, valid share), and the table of all scenes of a folder."""

import contextlib
import csv
import io
import re
from pathlib import Path

import numpy as np

from classes import ClassSet, class_set
from mapping.record_fields import problem_of_record
from runtime.errors import UserError
from runtime.files import open_own, read_json, write_json, write_text
from vectors.writing import WRITERS

try:
    import fcntl
except ImportError:  # Windows: two processes that finish at the same moment are not kept apart
    fcntl = None

HIDDEN = ".chipmill"  # in the output folder: unfinished maps, and the records of the finished ones
# Names of a map's files after that of the scene. The outlines are called after what is mapped (see ClassSet.ending), with no further "_".
FORMS = "|".join(re.escape(writer.ending) for writer in WRITERS.values())
ENDINGS = re.compile(r"\.stac\.json|_(?:classes\.(?:tif|qml)|probability\.tif|uncertainty\.tif|values\.(?:tif|qml)|preview\.png|"
                     rf"[^\W_]+(?:-[^\W_]+)*(?:{FORMS}))")
# Those that are a map's whatever its classes: of a damaged record, no others are taken for the scene's.
CERTAIN = ("_classes.tif", "_classes.qml", "_probability.tif", "_uncertainty.tif", "_values.tif", "_values.qml", "_preview.png",
           ".stac.json",
           *(f"_{word}{writer.ending}" for word in ("burned", "outlines", "tiles") for writer in WRITERS.values()))
FIRST, LAST = ("scene", "valid_fraction"), ("valid_hectares", "polygons", "unreadable_blocks")
OF_SCENES = ("mean", "least", "most", "label", "probability")  # of maps of values, and of whole scenes that have labels
# What records of maps whose classes are no fire called their numbers in version 0.1.0 before they followed the classes.
FIRE_KEYS = ("has_fire", "fire_confidence", "fire_fraction", "burned_hectares")


def keys_of(classes):
    """Names of the numbers of what is mapped: whether there is any, how certain, share, area. () for several classes."""
    key = classes.key
    return (f"has_{key}", f"{key}_confidence", f"{key}_fraction", classes.area_key) if key else ()


class Counter:
    """Counts pixels and square metres of each class while the rows of a map stream by. areas: PixelAreas or None."""

    def __init__(self, num_classes, areas):
        self.num_classes, self.areas = num_classes, areas
        self.pixels = np.zeros(num_classes, dtype=np.int64)
        self.metres = np.zeros(num_classes)
        self.total, self.highest = 0, 0.0

    def add(self, row, classes, highest):
        """classes: (rows, W) uint8 from `row` on. highest: probability of the most certain pixel."""
        self.total += classes.size
        self.highest = max(self.highest, highest)
        across = self.areas is not None and not self.areas.is_constant_along_rows()
        metres = self.areas.of_rows(row, row + len(classes)) if self.areas else None
        for value in range(self.num_classes):
            here = classes == value
            by_row = np.count_nonzero(here, axis=1)
            self.pixels[value] += by_row.sum()
            if across:
                self.metres[value] += metres[here].sum()
            elif metres is not None:
                self.metres[value] += float(by_row @ metres[:, 0])

    def summary(self, classes):
        """The numbers of a ClassSet as a dict; hectares are None where pixels have no known area, shares None where nothing is valid."""
        valid, mapped = int(self.pixels.sum()), int(self.pixels[1:].sum())
        known = self.areas is not None
        numbers = {"valid_fraction": valid / self.total}
        if classes.key:
            has, confidence, fraction, area = keys_of(classes)
            numbers |= {has: mapped > 0, confidence: self.highest if valid else None, fraction: mapped / valid if valid else None}
        numbers["valid_hectares"] = hectares(self.metres.sum()) if known else None
        if classes.key:
            numbers[area] = hectares(self.metres[1:].sum()) if known else None
        numbers["classes"] = {}
        for name, n, m in zip(classes.names, self.pixels.tolist(), self.metres, strict=True):
            numbers["classes"][name] = {"pixels": n, "hectares": hectares(m) if known else None}
            if not classes.key:
                numbers["classes"][name]["fraction"] = n / valid if valid else None
        return numbers


def hectares(square_metres):
    return round(float(square_metres) / 1e4, 6)


def write_summaries(output_dir, records):
    """summary.json and summary.csv: one entry a scene, in the order of their names, and the sums."""
    output_dir, records = Path(output_dir), sorted(records, key=lambda r: r["scene"])
    write_json(output_dir / "summary.json", {"total": totals_of(records), "scenes": records})
    class_names = list(dict.fromkeys(name for r in records for name in r["classes"]))
    told = [key for key in OF_SCENES if any(key in r for r in records)]
    told += [key for key in range_keys(records) if key not in told]
    columns = [*FIRST, *told, *dict.fromkeys(key for r in records for key in keys_of(classes_of(r))), *LAST]
    each = ["hectares", "pixels", *["fraction"] * any("fraction" in numbers for r in records for numbers in r["classes"].values())]
    absent = {"hectares": None, "pixels": 0, "fraction": None}
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([*columns, *(f"{what}_{name}" for what in each for name in class_names)])
    for r in records:
        row = [r.get(c) for c in columns]
        row += [{**absent, **r["classes"].get(name, {})}[what] for what in each for name in class_names]
        table.writerow(["" if v is None else v for v in row])
    write_text(output_dir / "summary.csv", text.getvalue())


def range_keys(records):
    """Names of the hectares that all networks of an ensemble map, and that any of them does, as far as there are some."""
    return list(dict.fromkeys(key for r in records for key in r if re.fullmatch("(least|most)_.+_hectares", key)))


def classes_of(record):
    """The ClassSet of a map's record. Records of other tasks than classes of pixels name theirs."""
    return ClassSet(tuple(record["classes"]), each=True) if "task" in record else class_set(tuple(record["classes"]))


def totals_of(records):
    """Sums over all scenes. Maps of different classes in one folder are added up under their own names."""
    kinds = list(dict.fromkeys((classes.key, classes.area_key) for r in records if (classes := classes_of(r)).key))
    known = [r for r in records if r["valid_hectares"] is not None]
    totals = {"scenes": len(records)}
    totals |= {f"scenes_with_{key}": sum(r.get(f"has_{key}", False) for r in records) for key, _ in kinds}
    totals["scenes_without_known_area"] = len(records) - len(known)
    totals |= {area: round(sum(r.get(area, 0) for r in known), 6) for _, area in kinds}
    totals |= {key: round(sum(r[key] for r in known if key in r), 6) for key in range_keys(records)}
    totals["valid_hectares"] = round(sum(r["valid_hectares"] for r in known), 6)
    each = [r["classes"] for r in known if classes_of(r).is_several]
    if each:
        names = dict.fromkeys(name for classes in each for name in classes)
        totals["hectares"] = {name: round(sum(classes[name]["hectares"] for classes in each if name in classes), 6) for name in names}
    return totals


def read_record(path):
    """
    The record of a scene's map, <folder>/.chipmill/<scene>.json. UserError where it is none, or names files that are not that scene's.

    What it names may be deleted, so a record from elsewhere must not lead to other files.
    """
    record = read_json(path)
    if not isinstance(record, dict) or not isinstance(record.get("files"), list) or "settings" not in record:
        raise UserError(f"{path} is not the record of a map; pass --overwrite to make the map again")
    if record["settings"] is not None:
        require_numbers(path, record)
    if foreign := [name for name in record["files"] if not is_output(name, path.stem)]:
        raise UserError(f"{path} names {foreign[0]!r}, which is no file of the map of {path.stem}; pass --overwrite to make the map again")
    return record


def is_output(name, scene):
    """Whether a file name is one of the map of a scene."""
    return isinstance(name, str) and name.startswith(scene) and bool(ENDINGS.fullmatch(name.removeprefix(scene)))


def require_numbers(path, record):
    """UserError where a record lacks or garbles what the summaries tell. Numbers that are named as in records of before are renamed."""
    if problem := problem_of_record(record):
        raise UserError(f"{path} {problem}; pass --overwrite to make the map again")
    enough = len(record["classes"]) > (0 if "task" in record else 1)
    keys = keys_of(classes_of(record)) if enough else ()
    if "has_fire" in record and "has_fire" not in keys:
        earlier = [record.pop(name, None) for name in FIRE_KEYS]
        record |= dict(zip(keys, earlier, strict=False))
    missing = {*FIRST, *keys, *LAST} - record.keys() if enough else {"classes"}
    if missing:
        raise UserError(f"{path} lacks {min(missing)}; pass --overwrite to make the map again")


def earlier_files(path, overwrite):
    """
    Names of the files that the map of a scene had or may have, by its record. With overwrite one that is damaged is not needed: of the
    names that a map's files can have, those that are there.
    """
    if not path.exists():
        return set()
    try:
        return set(read_record(path)["files"])
    except UserError:
        if not overwrite:
            raise
        return {name for ending in CERTAIN if (path.parent.parent / (name := f"{path.stem}{ending}")).exists()}


def update_summaries(output_dir):
    """
    summary.json and summary.csv over all scenes that are mapped in a folder, by whatever run and process.

    Under a lock: the process that finishes last reads the records of all others, and writes the table that stays. → remarks about records
    that are damaged, whose scenes are left out.
    """
    remarks = []
    folder = Path(output_dir) / HIDDEN
    with open_own(folder / "summary.lock", "a") as lock:
        if fcntl:
            with contextlib.suppress(OSError):  # a disk without locks
                fcntl.flock(lock, fcntl.LOCK_EX)
        records = []
        for path in sorted(folder.glob("*.json")):
            try:
                records.append(read_record(path))
            except UserError as error:
                remarks.append(f"{error}; summary.json is without this scene")
        finished = [record for record in records if record["settings"] is not None and record["files"]]
        write_summaries(output_dir, [r for r in finished if (Path(output_dir) / r["files"][0]).exists()])
    return remarks
