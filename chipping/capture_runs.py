"""
Reads capture runs: folders of a camera's frames with a JSON file of labels for each, in both generations of their keys.

    captures/run_1767225600000/
      run_manifest.json           may be missing
      images/frame_00012.png      or in the run's own folder
      labels/frame_00012.json     {"frame_id": 12, "image": "images/frame_00012.png", "labels": [{"bbox_px": …, "bbox_norm": …}]}

Older runs say polyp_labels and polyp_seed for labels and label_seed. Keys that are not known here are let be.
"""

import hashlib
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from raster.capture_folder import IMAGES, LABELS, RUN_MANIFEST, is_run
from raster.frames import SUFFIXES
from runtime.errors import UserError
from runtime.fields import is_number
from runtime.files import parse_object, read_json, require_regular, shorten
from runtime.names import path_inside
from runtime.words import plural

GENERATIONS = {"labels": "new", "polyp_labels": "old"}  # the key of the boxes
SCHEMAS = (1, "1", "V1", "v1")  # writers disagree on how version 1 is spelt
MOST_BYTES = 16 << 20  # of a label file
EXPECTED = "folders run_…/ with labels/*.json and images/"


class BadLabel(Exception):
    """A label file that cannot be used. The message says why."""


@dataclass(frozen=True, eq=False)
class Frame:
    """
    A frame that is to be cut, and what is stated of it. id: run/name. path: of its image. px, norm: (N, 4) float64, see
    chipping.frame_boxes. labels: (N,) int64, in a reader's own numbers at first, then 1 … K. label_sha256: of the file of labels, or of
    what it says. turn: whether the image is turned by its EXIF tag. size: (width, height) that it has to have, or None.
    """

    id: str
    run: str
    frame_id: int | str
    path: Path
    px: np.ndarray
    norm: np.ndarray
    labels: np.ndarray
    label_sha256: str
    turn: bool = True
    size: tuple | None = None


def natural(text):
    """A key that sorts frame_2 before frame_10."""
    return [(not part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in re.split(r"([0-9]+)", text)]


def find_runs(folders):
    """{name: folder} of the capture runs in some folders, or that they are. UserError where there is none, or two of one name."""
    runs = {}
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise UserError(f"the folder of capture runs {folder} does not exist; expected {EXPECTED}")
        found = [folder] if is_run(folder) else [path for path in folder.iterdir() if path.is_dir() and is_run(path)]
        if not found:
            raise UserError(f"{folder} holds no capture run; expected {EXPECTED}, or pass --images and --annotations")
        for run in found:
            name = run.resolve().name
            if name in runs:
                raise UserError(f"{run} and {runs[name]} are both runs called {name}; rename one of them")
            runs[name] = run
    return {name: runs[name] for name in sorted(runs, key=natural)}


def read_runs(folders, warn=lambda text: None, note=lambda text: None):
    """
    ([Frame], {run: Counter}, [{"id", "reason", "detail"}] of frames that are left out) of capture runs, run by run, frame by frame.

    Labels of a Frame are class ids as stated, 0 without. The Counters have: frames, invalid, duplicate, missing_image, unlabelled.
    """
    runs = find_runs(folders)
    frames, counts, skipped, generations, without = [], {}, [], Counter(), []
    for name, folder in runs.items():
        if not check_manifest(folder):
            without.append(name)
        found, counts[name], left_out, kinds = read_run(name, folder)
        frames += found
        skipped += left_out
        generations += kinds
    if without:
        warn(f"{plural(len(without), 'run')} without a {RUN_MANIFEST}, first {without[0]}; labels and frames are read all the same")
    if len(generations) > 1:
        note(f"labels of both generations: {generations['old']} files say polyp_labels, {generations['new']} say labels; both are read")
    for name, count in counts.items():
        if not count["frames"]:
            warn(f"{runs[name]} is an empty run: no label file in {LABELS}/")
        if count["unlabelled"]:
            note(f"{plural(count['unlabelled'], 'image')} of {name} have no label file and take no part; a frame without objects needs "
                 "one with an empty list")
    return frames, counts, skipped


def check_manifest(folder):
    """Whether a run has its manifest. UserError where it is of another schema."""
    path = folder / RUN_MANIFEST
    if not path.is_file():
        return False
    version = read_json(path).get("schema_version", 1)
    if isinstance(version, bool) or version not in SCHEMAS:
        raise UserError(f"{path} has schema_version {shorten(version)}; expected 1 or \"V1\", so leave this run out")
    return True


def read_run(name, folder):
    """([Frame] in order, Counter, [what is left out], Counter of generations) of a run."""
    counts, skipped, kinds, found, named, ids = Counter(), [], Counter(), [], set(), set()
    labels = list_files(folder / LABELS, (".json",))
    for path in labels:
        counts["frames"] += 1
        frame = reason = None
        try:
            frame, kind, image = read_label(name, folder, path)
            named.add(image)
            if frame.frame_id in ids:
                reason, detail = "duplicate", f"frame_id {frame.frame_id} is there already"
            elif frame.path is None:
                reason, detail = "missing_image", f"{image} is not there"
            else:
                ids.add(frame.frame_id)
            kinds[kind] += 1
        except BadLabel as error:
            reason, detail = "invalid", str(error)
        if reason:
            counts[reason] += 1
            skipped.append({"id": f"{name}/{path.stem}", "reason": reason, "detail": detail[:200]})
        else:
            found.append(frame)
    stems = {path.stem for path in labels} | {Path(image).stem for image in named}
    counts["unlabelled"] = sum(path.stem not in stems for path in list_files(folder / IMAGES, SUFFIXES))
    found.sort(key=lambda frame: (frame.frame_id, frame.id))
    return found, counts, skipped, kinds


def list_files(folder, suffixes):
    """Paths of the files of some suffixes in a folder, in natural order; none where it is missing."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        names = [e.name for e in entries if e.name.lower().endswith(suffixes) and e.name[0] != "." and e.is_file()]
    return [folder / name for name in sorted(names, key=natural)]


def read_label(run, folder, path):
    """(Frame, generation, image as stated) of a label file; the Frame's path is None without image. BadLabel where it is wrong."""
    try:
        require_regular(path)
        if path.stat().st_size > MOST_BYTES:
            raise BadLabel(f"has {path.stat().st_size >> 20} MB")
        content = path.read_bytes()
        fields = parse_object(content)
    except OSError as error:
        raise BadLabel(f"cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise BadLabel(str(error)) from error
    keys = [key for key in GENERATIONS if key in fields]
    if not keys:
        raise BadLabel("lacks 'labels'")
    if len(keys) > 1 and fields[keys[0]] != fields[keys[1]]:
        raise BadLabel("has labels and polyp_labels that differ")
    entries, image = fields[keys[0]], fields.get("image")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise BadLabel(f"has {keys[0]} {shorten(entries)}, expected a list of objects")
    if not isinstance(image, str) or not image:
        raise BadLabel(f"has image {shorten(image)}, expected a path below the run")
    there = fields.get("image_present", True)
    place = find_image(folder, image, path) if there is not False else None
    px, norm = (np.array([corners_of(entry, key) for entry in entries], np.float64).reshape(-1, 4) for key in ("bbox_px", "bbox_norm"))
    labels = np.array([class_of(entry) for entry in entries], np.int64)
    frame = Frame(f"{run}/{path.stem}", run, frame_number(fields, path), place, px, norm, labels, hashlib.sha256(content).hexdigest())
    return frame, GENERATIONS[keys[0]], image


def find_image(folder, image, stated_by):
    """The file of an image, as stated or in the two usual places; None where there is none."""
    path = path_inside(folder, image, stated_by)
    return next((p for p in (path, folder / IMAGES / path.name, folder / path.name) if p.is_file()), None)


def frame_number(fields, path):
    """The frame_id of a label file, or the number that its name ends with."""
    value = fields.get("frame_id")
    if value is None and (digits := re.search(r"(\d{1,15})$", path.stem)):
        return int(digits[1])
    if type(value) is not int or not 0 <= value < 2**53:
        raise BadLabel(f"has frame_id {shorten(value)}, expected a whole number")
    return value


def corners_of(entry, key):
    """Four numbers, NaN where they are not there or not finite. BadLabel for another type."""
    value = entry.get(key)
    if value is None:
        return [np.nan] * 4
    if not isinstance(value, list) or len(value) != 4 or not all(type(v) in (int, float) or v is None for v in value):
        raise BadLabel(f"has {key} {shorten(value)}, expected [x0, y0, x1, y1]")
    return [float(v) if v is not None and is_number(v) else np.nan for v in value]


def class_of(entry):
    value = entry.get("class_id", 0)
    value = 0 if value is None else value
    if type(value) is not int or not 0 <= value < 2**15:
        raise BadLabel(f"has class_id {shorten(value)}, expected a whole number")
    return value
