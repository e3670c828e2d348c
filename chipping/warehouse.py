"""
Reads a tensor warehouse: frames cut to one size once, in memory-mapped .npy files, with their boxes.

    warehouse = open_warehouse("artifacts/tensor_warehouse/latest")
    batch = warehouse.read(warehouse.split("train")[:32])     # images, boxes, mask, labels: numpy arrays, for torch.from_numpy

A folder of a warehouse:

    v<64 hex digits>/                 the SHA-256 of its settings, and of the content of all frames and labels in it
      manifest.json                   settings, classes, split, the files with their checksums, what was left out
      samples.jsonl                   a line for each sample, in the order of the rows
      shard_00000.images.npy          (N, 3, H, W) uint8 RGB
      shard_00000.boxes.npy           (N, max_boxes, 4) float32 x0, y0, x1, y1 from 0 to 1 of the input; largest first, then zeros
      shard_00000.mask.npy            (N, max_boxes) bool, where there is a box
      shard_00000.labels.npy          (N, max_boxes) int64, 1 … K, 0 where there is none
    latest                            text of one line: the name of the version that was made last
"""

import errno
import hashlib
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from raster.letterbox import LARGEST, MODES, Letterbox
from runtime.errors import UserError
from runtime.fields import NAMES, OBJECT, SIZE, TEXT, WHOLE, Field, find_problem, is_number, is_text, list_of
from runtime.files import plain, read_json, read_lines, require_regular, shorten, write_json
from runtime.names import path_inside
from runtime.npy import BadArray, read_array
from runtime.words import plural

FORMAT = "chipmill-warehouse-1"
MANIFEST, SAMPLES, LATEST, VERIFIED = "manifest.json", "samples.jsonl", "latest", ".verified.json"
VERSION_FOLDER = re.compile(r"v[0-9a-f]{64}")
PARTS = ("images", "boxes", "mask", "labels")
HEADER = 128  # bytes before the pixels of each .npy, which numpy writes for these shapes
EXPECTED = "manifest.json of a warehouse that `chip.py make-warehouse` has made of frames with labels"
AGAIN = "make it again with `chip.py make-warehouse`"


def has_counts(value, *names):
    """Whether a value is an object of whole numbers from 0 on, these names among them."""
    return isinstance(value, dict) and all(name in value for name in names) and all(map(WHOLE.fits, value.values()))


SIDES = Field("[width, height]", list_of(lambda value: SIZE.fits(value) and value < LARGEST, 2))
HEX = Field("64 hex digits", lambda value: is_text(value) and re.fullmatch(r"[0-9a-f]{64}", value) is not None)
SPLIT = Field("train or val", lambda value: value in ("train", "val"))
OBJECTS = Field("a list of objects", list_of(OBJECT.fits))
FRAME_ID = Field("a whole number or text", lambda value: is_text(value) or type(value) is int)
MODE = Field(" or ".join(MODES), lambda value: value in MODES)
SAMPLE_FIELDS = {
    "id": TEXT, "run": TEXT, "frame_id": FRAME_ID, "shard": WHOLE, "row": WHOLE, "src_size": SIDES,
    "affine": Field("four numbers", list_of(is_number, 4)), "n_boxes": WHOLE, "split": SPLIT,
    "classes": Field("a list of classes from 1 on", list_of(SIZE.fits)), "image_sha256": HEX, "label_sha256": HEX,
}
MANIFEST_FIELDS = {
    "version": HEX, "transform": OBJECT, "classes": NAMES, "settings": OBJECT, "samples": SIZE, "samples_sha256": HEX,
    "shards": OBJECTS, "split": OBJECT, "summary": OBJECT, "skipped": OBJECTS,
}
SPLIT_FIELDS = {"unit": TEXT, "seed": WHOLE, "samples": Field("counts with train and val", lambda value: has_counts(value, "train", "val"))}
SUMMARY_FIELDS = {"totals": Field("counts with frames", lambda value: has_counts(value, "frames"))}
SKIPPED_FIELDS = {"id": TEXT, "reason": TEXT, "detail": TEXT}
TRANSFORM_FIELDS = {"target_size": SIDES, "resize_mode": MODE, "max_boxes": SIZE}
SHARD_FIELDS = {"samples": SIZE, "files": OBJECT}
FILE_FIELDS = {"file": TEXT, "bytes": SIZE, "sha256": HEX}


@dataclass(frozen=True)
class Sample:
    """
    One frame. id: of its run and its name. shard, row: where it is. src_size: (width, height) of the frame. affine: (sx, sy, px, py), see
    raster.letterbox. n_boxes: in its slots. split: "train" or "val". classes: those of its boxes, slot by slot.
    """

    id: str
    run: str
    frame_id: int | str
    shard: int
    row: int
    src_size: tuple
    affine: tuple
    n_boxes: int
    split: str
    classes: tuple


class Warehouse:
    """
    A warehouse that is open for reading. It may be handed to other processes: files are mapped where they are read.

    folder: of the version. version: 64 hex digits. target_size: (W, H). resize_mode: "letterbox" or "force". max_boxes: slots of a
    sample. classes: names of the labels 1 … K. samples: [Sample] in the order of the indices. manifest: content of manifest.json.
    """

    def __init__(self, folder, manifest, samples):
        self.folder, self.manifest, self.samples = Path(folder), manifest, samples
        self.version = manifest["version"]
        self.target_size = tuple(manifest["transform"]["target_size"])
        self.resize_mode, self.max_boxes = manifest["transform"]["resize_mode"], manifest["transform"]["max_boxes"]
        self.classes = tuple(manifest["classes"])
        self.shard_size = manifest["shards"][0]["samples"]
        self.shapes = shapes_of(self.target_size, self.max_boxes)
        self.maps = {}

    def __getstate__(self):
        return {key: value for key, value in self.__dict__.items() if key not in ("maps", "indices")} | {"maps": {}}

    def __len__(self):
        return len(self.samples)

    @cached_property
    def indices(self):
        names = np.array([sample.split for sample in self.samples])
        return {name: np.flatnonzero(names == name) for name in ("train", "val")}

    def split(self, name):
        """(N,) int64 indices of the samples of "train" or "val"."""
        return self.indices[name]

    def letterbox(self, index):
        """The Letterbox of a sample, which maps boxes of the input back to its frame."""
        return Letterbox(self.samples[index].src_size, self.target_size, self.resize_mode)

    def read(self, indices):
        """
        {"images": (B, 3, H, W) uint8, "boxes": (B, max_boxes, 4) float32, "mask": (B, max_boxes) bool, "labels": (B, max_boxes) int64},
        arrays of the caller's own. boxes: see the head of this file.
        """
        indices = np.asarray(indices, np.int64).reshape(-1)
        found = {part: np.empty((len(indices), *shape), dtype) for part, (shape, dtype) in self.shapes.items()}
        for place, index in enumerate(indices.tolist()):
            if not 0 <= index < len(self.samples):
                raise IndexError(f"sample {index} of {len(self.samples)}")
            arrays, row = self.mapped(index // self.shard_size), index % self.shard_size
            for part, array in arrays.items():
                found[part][place] = array[row]
        return found

    def mapped(self, shard):
        """{part: memory-mapped array} of a shard."""
        if shard not in self.maps:
            self.maps[shard] = {part: open_array(self.folder, self.manifest["shards"][shard], part, self.shapes) for part in PARTS}
        return self.maps[shard]


def shapes_of(target_size, max_boxes):
    """{part: (shape of a sample, dtype)}."""
    wide, tall = target_size
    return {
        "images": ((3, tall, wide), np.dtype(np.uint8)), "boxes": ((max_boxes, 4), np.dtype("<f4")), "mask": ((max_boxes,), np.dtype(bool)),
        "labels": ((max_boxes,), np.dtype("<i8")),
    }


def shard_file(shard, part):
    return f"shard_{shard:05d}.{part}.npy"


def open_array(folder, shard, part, shapes):
    """The mapped array of a part of a shard. UserError where it is not what the manifest says."""
    path = folder / shard["files"][part]["file"]
    shape, dtype = shapes[part]
    try:
        array = read_array(path, mapped=True)
    except BadArray as error:
        raise UserError(f"{path}: {error}; {AGAIN}") from error
    if array.shape != (shard["samples"], *shape) or array.dtype != dtype or not array.flags.c_contiguous:
        raise UserError(f"{path} holds {array.dtype} {array.shape}, the manifest says {dtype} {(shard['samples'], *shape)}; {AGAIN}")
    return array


def open_warehouse(path, verify=True):
    """
    The Warehouse at `path`: a manifest.json, the folder of a version, the folder of all versions, or `latest` in it.

    verify: compare all files with their checksums, once; .verified.json in the folder remembers it by size and time of the files. UserError
    where it is none, of another format, damaged or altered, before anything is read of it.
    """
    folder = find_version(path)
    manifest = read_manifest(folder)
    samples = read_samples(folder, manifest)
    warehouse = Warehouse(folder, manifest, samples)
    refuse_wrong_files(warehouse)
    if verify:
        verify_checksums(warehouse)
    return warehouse


def is_warehouse(path):
    """Whether a path looks like one that open_warehouse takes."""
    path = Path(path)
    if not path.is_dir():
        return path.name in (LATEST, MANIFEST)
    inside = (path / LATEST).is_file() or (path / MANIFEST).is_file() and (path / SAMPLES).is_file()
    return path_of_version(path) or inside


def path_of_version(path):
    return VERSION_FOLDER.fullmatch(path.name) is not None


def find_version(path):
    """The folder of the version that a path leads to. UserError where there is none."""
    path = Path(path)
    if path.name == MANIFEST and not path.is_dir():
        if path.is_file() and path.parent.name != LATEST:
            return path.parent
        path = path.parent  # where latest is text, there is no file of that path
    if path.name == LATEST and not path.is_symlink() and path.is_file():
        return follow_latest(path)
    if path.name == LATEST and path.is_symlink():
        real = Path(os.path.realpath(path))
        if real.parent != Path(os.path.realpath(path.parent)) or not (path_of_version(real) or real.is_file()):
            raise UserError(f"{path} is a link to {real}, which is no version beside it; pass the version's manifest.json itself")
        return follow_latest(path) if real.is_file() else real
    if (path / MANIFEST).is_file():
        return path
    if (path / LATEST).exists():
        return find_version(path / LATEST)
    what = "is not there" if not os.path.lexists(path) else "is no warehouse" if path.is_dir() else "is no manifest of a warehouse"
    raise UserError(f"{path} {what}; expected {EXPECTED}")


def follow_latest(path):
    """The folder that a text file `latest` names, which lies beside it."""
    try:
        with open(path, "rb") as file:
            text = file.read(200).decode("utf-8", "replace").strip()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); expected the name of a version") from error
    if not VERSION_FOLDER.fullmatch(text):
        raise UserError(f"{path} says {shorten(text)}; expected v and 64 hex digits, the name of a version beside it")
    folder = path.parent / text
    if folder.is_symlink() or not (folder / MANIFEST).is_file():
        raise UserError(f"{path} names {text[:13]}…, which is not beside it; pass another version's manifest.json, or {AGAIN}")
    return folder


def read_manifest(folder):
    """The content of a manifest, every field of it checked. UserError names file and field."""
    path = folder / MANIFEST
    content = read_json(path)
    if content.get("format") != FORMAT:
        found = shorten(content["format"]) if "format" in content else "none"
        raise UserError(f"{path} has the format {found}, expected {FORMAT}; pass the {EXPECTED}")
    fields_of = {"transform": TRANSFORM_FIELDS, "split": SPLIT_FIELDS, "summary": SUMMARY_FIELDS}
    for value, fields in ((content, MANIFEST_FIELDS), *((content.get(name), fields) for name, fields in fields_of.items())):
        if problem := find_problem(value, fields, fields):
            raise UserError(f"{path} {problem}; {AGAIN}")
    for entries, fields in ((content["shards"], SHARD_FIELDS), (content["skipped"], SKIPPED_FIELDS)):
        for entry in entries:
            if problem := find_problem(entry, fields, fields):
                raise UserError(f"{path} {problem}; {AGAIN}")
    for number, shard in enumerate(content["shards"]):
        for part in PARTS:
            entry = shard["files"].get(part)
            if problem := find_problem(entry if isinstance(entry, dict) else {}, FILE_FIELDS, FILE_FIELDS):
                raise UserError(f"{path}, shard {number}, {part} {problem}; {AGAIN}")
            path_inside(folder, entry["file"], path)
            if entry["file"] != shard_file(number, part):
                raise UserError(f"{path} names {entry['file']!r}, expected {shard_file(number, part)}; {AGAIN}")
    sizes = [shard["samples"] for shard in content["shards"]]
    if not sizes or sum(sizes) != content["samples"] or any(size != sizes[0] for size in sizes[:-1]) or sizes[-1] > sizes[0]:
        raise UserError(f"{path} states {content['samples']} samples, its shards have {' + '.join(map(str, sizes[:9])) or 'none'}; {AGAIN}")
    return content


def read_samples(folder, manifest):
    """[Sample] of samples.jsonl. UserError where it is not the one that the manifest was written with."""
    path = folder / SAMPLES
    if digest_of(path) != manifest["samples_sha256"]:
        raise UserError(f"{path} was altered: its SHA-256 is not that of the manifest; {AGAIN}")
    lines = read_lines(path)
    transform, shard_size, count = manifest["transform"], manifest["shards"][0]["samples"], len(manifest["classes"])
    target, mode = transform["target_size"], transform["resize_mode"]
    affines, found = {}, []
    for number, line in enumerate(lines):
        problem = find_problem(line, SAMPLE_FIELDS, SAMPLE_FIELDS)
        if problem is None:
            size = tuple(line["src_size"])
            if size not in affines:
                affines[size] = Letterbox(size, tuple(target), mode).affine
            if (line["shard"], line["row"]) != divmod(number, shard_size):
                problem = f"is shard {line['shard']}, row {line['row']}, expected {number // shard_size}, {number % shard_size}"
            elif max(map(abs, np.subtract(line["affine"], affines[size]))) > 1e-9:
                problem = f"has affine {line['affine']}, expected {list(affines[size])} for its src_size"
            elif not len(line["classes"]) == line["n_boxes"] <= transform["max_boxes"] or max(line["classes"], default=0) > count:
                problem = f"has {line['n_boxes']} boxes of classes {shorten(line['classes'])}"
        if problem:
            raise UserError(f"{path}, line {number + 1} {problem}; {AGAIN}")
        found.append(Sample(*(tuple(v) if isinstance(v := line[key], list) else v for key in Sample.__dataclass_fields__)))
    if len(found) != manifest["samples"]:
        raise UserError(f"{path} has {plural(len(found), 'line')}, the manifest says {manifest['samples']}; {AGAIN}")
    version = version_of(manifest["settings"], [(line["id"], line["image_sha256"], line["label_sha256"]) for line in lines])
    if version != manifest["version"] or any(manifest["settings"].get(key) != manifest[key] for key in ("transform", "classes")):
        raise UserError(f"{folder / MANIFEST} was altered: it is of version {manifest['version'][:12]}…, what it says of {version[:12]}…; "
                        f"{AGAIN}")
    return found


def is_unread(error):
    """Whether a UserError of open_warehouse comes from a file that the system did not let be read: its content may be whole."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__
    return error is not None and error.errno not in (errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.EINVAL)  # gone, or no regular file


def version_of(settings, contents):
    """64 hex digits. settings: a dict; contents: (sample's id, SHA-256 of its image file, SHA-256 of its labels) of each."""
    text = json.dumps(plain({"settings": settings, "samples": sorted(contents)}), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def digest_of(path):
    """SHA-256 of a file's bytes in hex. UserError where it cannot be read."""
    try:
        require_regular(path)
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; {AGAIN}") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); check its rights, or {AGAIN}") from error


def files_of(manifest):
    """(number of the shard, part, {"file", "bytes", "sha256"}) of each file of the shards."""
    for number, shard in enumerate(manifest["shards"]):
        for part in PARTS:
            yield number, part, shard["files"][part]


def refuse_wrong_files(warehouse):
    """UserError where a file is missing, a link, of another size, or has another header than the manifest says."""
    for _, _, entry in files_of(warehouse.manifest):
        path, size = warehouse.folder / entry["file"], entry["bytes"]
        if path.is_symlink() or not path.is_file():
            raise UserError(f"{path} is {'a link' if path.is_symlink() else 'missing'}, expected a shard of {size} bytes; {AGAIN}")
        if (found := path.stat().st_size) != size:
            raise UserError(f"{path} has {found} bytes, the manifest says {size}: cut short or altered; {AGAIN}")
    for shard, entry in enumerate(warehouse.manifest["shards"]):
        for part, array in warehouse.mapped(shard).items():
            if entry["files"][part]["bytes"] != HEADER + array.nbytes:
                raise UserError(f"{warehouse.folder / shard_file(shard, part)} has a header that is not {HEADER} bytes long; {AGAIN}")


def refuse_other_boxes(warehouse):
    """UserError where slots do not hold what samples.jsonl says of them, as in a warehouse that another program has written."""
    for shard in range(len(warehouse.manifest["shards"])):
        samples = warehouse.samples[shard * warehouse.shard_size :][: warehouse.shard_size]
        arrays = {part: np.asarray(warehouse.mapped(shard)[part]) for part in ("boxes", "mask", "labels")}
        labels = np.zeros_like(arrays["labels"])
        for row, sample in enumerate(samples):
            labels[row, : sample.n_boxes] = sample.classes
        faults = {
            "mask": (arrays["mask"] != (labels > 0)).any(axis=1), "labels": (arrays["labels"] != labels).any(axis=1),
            "boxes": ~((arrays["boxes"] >= 0) & (arrays["boxes"] <= 1)).all(axis=(1, 2)),
        }
        for part, wrong in faults.items():
            if wrong.any():
                row = int(wrong.argmax())
                what = "coordinates that are not from 0 to 1" if part == "boxes" else f"others than {SAMPLES} says"
                raise UserError(f"{warehouse.folder / shard_file(shard, part)}, sample {samples[row].id}: {what}; {AGAIN}")


def row_digest(row):
    """SHA-256 of a row's bytes, 32 bytes."""
    return hashlib.sha256(np.ascontiguousarray(row).data).digest()


def array_digest(array, threads=1):
    """SHA-256 in hex of the SHA-256s of an array's rows: what a manifest has of each file. Rows may be hashed side by side."""
    with ThreadPoolExecutor(threads) as pool:
        return hashlib.sha256(b"".join(pool.map(row_digest, array))).hexdigest()


def stamp(path):
    """Size and times of a file; the last one changes with whatever is done to it."""
    status = os.stat(path)
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def verify_checksums(warehouse):
    """
    UserError where a file's SHA-256 is not that of the manifest, or its content not what samples.jsonl says. Files that were compared
    before, and are as they were, are not read.
    """
    cache = warehouse.folder / VERIFIED
    try:
        known = read_json(cache) if cache.is_file() and not cache.is_symlink() else {}
    except UserError:
        known = {}
    verified = {}
    for number, part, entry in files_of(warehouse.manifest):
        name, digest = entry["file"], entry["sha256"]
        verified[name] = [*stamp(warehouse.folder / name), digest]
        if known.get(name) != verified[name]:
            if array_digest(warehouse.mapped(number)[part], min(4, os.cpu_count() or 1)) != digest:
                raise UserError(f"{warehouse.folder / name} was altered: its checksum is not that of the manifest; {AGAIN}")
    if verified != known:
        refuse_other_boxes(warehouse)
        try:
            write_json(cache, verified, sync=False)
        except OSError:
            pass  # a folder that may only be read is compared each time
