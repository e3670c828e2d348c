"""The numbers of a map (pixels and hectares a class, valid share, fire or not), and the table of all scenes of a folder."""

import contextlib
import csv
import io
from pathlib import Path

import numpy as np

from mapping.record_fields import problem_of_record
from runtime.errors import UserError
from runtime.files import open_own, read_json, write_json, write_text
from vectors.writing import WRITERS

try:
    import fcntl
except ImportError:  # Windows: two processes that finish at the same moment are not kept apart
    fcntl = None

HIDDEN = ".chipmill"  # in the output folder: unfinished maps, and the records of the finished ones
ENDINGS = ("_classes.tif", "_probability.tif", "_preview.png", *(f"_burned{writer.ending}" for writer in WRITERS.values()))
COLUMNS = (
    "scene", "valid_fraction", "has_fire", "fire_confidence", "fire_fraction", "burned_hectares", "valid_hectares", "polygons",
    "unreadable_blocks",
)


class Counter:
    """Counts pixels and square metres of each class while the rows of a map stream by. areas: PixelAreas or None."""

    def __init__(self, num_classes, areas):
        self.num_classes, self.areas = num_classes, areas
        self.pixels = np.zeros(num_classes, dtype=np.int64)
        self.metres = np.zeros(num_classes)
        self.total, self.highest = 0, 0.0

    def add(self, row, classes, highest):
        """classes: (rows, W) uint8 from `row` on. highest: burned probability of the most certain pixel."""
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

    def summary(self, class_names):
        """The numbers as a dict; hectares are None where pixels have no known area, shares None where nothing is valid."""
        valid, burned = int(self.pixels.sum()), int(self.pixels[1:].sum())
        known = self.areas is not None
        return {
            "valid_fraction": valid / self.total,
            "has_fire": burned > 0,
            "fire_confidence": self.highest if valid else None,
            "fire_fraction": burned / valid if valid else None,
            "valid_hectares": hectares(self.metres.sum()) if known else None,
            "burned_hectares": hectares(self.metres[1:].sum()) if known else None,
            "classes": {
                name: {"pixels": int(n), "hectares": hectares(m) if known else None}
                for name, n, m in zip(class_names, self.pixels, self.metres, strict=True)
            },
        }


def hectares(square_metres):
    return round(float(square_metres) / 1e4, 6)


def write_summaries(output_dir, records):
    """summary.json and summary.csv: one entry a scene, in the order of their names, and the sums."""
    output_dir, records = Path(output_dir), sorted(records, key=lambda r: r["scene"])
    known = [r for r in records if r["burned_hectares"] is not None]
    totals = {
        "scenes": len(records),
        "scenes_with_fire": sum(r["has_fire"] for r in records),
        "scenes_without_known_area": len(records) - len(known),
        "burned_hectares": round(sum(r["burned_hectares"] for r in known), 6),
        "valid_hectares": round(sum(r["valid_hectares"] for r in known), 6),
    }
    write_json(output_dir / "summary.json", {"total": totals, "scenes": records})
    class_names = list(dict.fromkeys(name for r in records for name in r["classes"]))
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([*COLUMNS, *(f"hectares_{name}" for name in class_names), *(f"pixels_{name}" for name in class_names)])
    for r in records:
        absent = {"hectares": None, "pixels": 0}
        row = [r[c] for c in COLUMNS]
        row += [r["classes"].get(name, absent)[what] for what in ("hectares", "pixels") for name in class_names]
        table.writerow(["" if v is None else v for v in row])
    write_text(output_dir / "summary.csv", text.getvalue())


def read_record(path):
    """
    The record of a scene's map, <folder>/.chipmill/<scene>.json. UserError where it is none, or names files that are not that scene's.

    What it names may be deleted, so a record from elsewhere must not lead to other files.
    """
    record, names = read_json(path), {f"{path.stem}{ending}" for ending in ENDINGS}
    if not isinstance(record, dict) or not isinstance(record.get("files"), list) or "settings" not in record:
        raise UserError(f"{path} is not the record of a map; pass --overwrite to make the map again")
    if missing := {*COLUMNS, "classes"} - record.keys() if record["settings"] is not None else ():
        raise UserError(f"{path} lacks {min(missing)}; pass --overwrite to make the map again")
    if problem := problem_of_record(record) if record["settings"] is not None else None:
        raise UserError(f"{path} {problem}; pass --overwrite to make the map again")
    if foreign := [name for name in record["files"] if not isinstance(name, str) or name not in names]:
        raise UserError(f"{path} names {foreign[0]!r}, which is no file of the map of {path.stem}; pass --overwrite to make the map again")
    return record


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
        return {name for ending in ENDINGS if (path.parent.parent / (name := f"{path.stem}{ending}")).exists()}


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
