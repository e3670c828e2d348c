"""
Images with boxes, whatever form the annotations have: read, checked against the images, with classes 1 … K.

    classes, images, counts = read_labels("images", "train.json", label_map="unknown=drop", note=print)
"""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from chipping.box_table import read_table
from chipping.box_vectors import FORMATS, parse_point_size, read_box_vectors
from chipping.coco import is_coco, read_coco
from chipping.image_files import SIDEWAYS, UPRIGHT, ImageHeader, Scenes, find_images, read_header, stamp_of
from chipping.label_names import decide_labels, parse_label_map
from chipping.stated_boxes import few
from chipping.voc import read_voc
from runtime.errors import RunError, UserError, one_line
from runtime.files import read_json
from runtime.names import path_inside
from runtime.words import plural
from vectors.reading import file_and_layer

EXPECTED = "a COCO JSON, a folder of Pascal VOC files, a CSV, a GeoJSON or a GeoPackage"


@dataclass(frozen=True, eq=False)
class LabelledImage:
    """
    An image and its boxes.

    path: of the file. name: relative to the folder of images, with slashes. image_id: of the annotations. width, height: in pixels as
    read, turned by `orientation` (1: as stored). boxes: (N, 4) float64 x0, y0, x1, y1 in pixels, within the image. labels: (N,) int64,
    1 … K. ignore: (M, 4) float64, regions that are neither object nor background. masks: None, or for each box None or a list of rings
    (P, 2) in pixels. header: ImageHeader.
    """

    path: Path
    name: str
    image_id: int | str
    width: int
    height: int
    boxes: np.ndarray
    labels: np.ndarray
    ignore: np.ndarray
    masks: list | None
    header: ImageHeader
    orientation: int = UPRIGHT

    def fingerprint(self):
        """A hash of what is labelled, and how the pixels are turned."""
        digest = hashlib.sha256(repr((str(self.image_id), self.width, self.height, self.orientation)).encode())
        for array in (self.boxes, self.labels, self.ignore):
            digest.update(repr(array.shape).encode() + np.ascontiguousarray(array).tobytes())
        for rings in self.masks or ():
            digest.update(b"|" + b"".join(ring.tobytes() for ring in rings or ()))
        return digest.hexdigest()[:16]


@dataclass
class Counts:
    """
    What reading has found, clipped and left out. by_class: {class: boxes}. notes: sentences for the user. unreadable: {image's name: why}
    of files that cannot be opened.
    """

    images: int = 0
    empty_images: int = 0
    boxes: int = 0
    ignored: int = 0
    clipped: int = 0
    outside: int = 0
    without_area: int = 0
    duplicates: int = 0
    dropped: int = 0
    by_class: dict = field(default_factory=dict)
    notes: list = field(default_factory=list)
    unreadable: dict = field(default_factory=dict)

    def in_words(self):
        """`12 images (3 without boxes), 480 boxes (Tree 400, Dead 80); 5 clipped at the border, 1 without area left out`."""
        classes = ", ".join(f"{name} {count}" for name, count in self.by_class.items())
        parts = [f"{self.clipped} clipped at the border" if self.clipped else ""]
        left = {"outside of their image": self.outside, "without area": self.without_area, "there twice": self.duplicates,
                "dropped by --label-map": self.dropped}
        parts += [f"{count} {what} left out" for what, count in left.items() if count]
        parts += [f"{plural(self.ignored, 'ignore region')}" if self.ignored else ""]
        more = "".join(f"; {part}" for part in parts if part)
        empty = f" ({self.empty_images} without boxes)" if self.empty_images else ""
        return f"{plural(self.images, 'image')}{empty}, {plural(self.boxes, 'box')}{f' ({classes})' if classes else ''}{more}"


def read_labels(images_folder, annotations, *, classes=None, label_map=None, point_size=None, class_field=None, known=None,
                strict=False, note=lambda text: None):
    """
    (classes, [LabelledImage], Counts) of a folder of images and its annotations, in the order of the names.

    annotations: a COCO JSON, a folder of Pascal VOC XML, a CSV, or a vector file (FILE or FILE:LAYER) over georeferenced images. classes:
    names that are wanted, or None for those that the annotations have. label_map: text or {name: class, "drop" or "ignore"}. point_size:
    pixels (`40`) or metres (`6m`) of the box around a point. class_field: property of a vector file. known: {name: ImageHeader} of files
    that need no second look as long as size and time are the same. note(text): what a user should know.

    UserError where files and annotations do not fit each other, before any pixel is read. Images that cannot be opened are left out and
    counted; all of them, or one with `strict`, is a RunError.
    """
    folder = Path(images_folder)
    headers = Headers(folder, known or {}, strict)
    files = find_images_below(folder, headers.scenes)
    stated, names = read_stated(annotations, folder, files, headers, parse_point_size(point_size), class_field, note)
    counts = Counts()
    found = [check_place(image, folder, annotations, headers.scenes) for image in stated]
    refuse_missing(found, folder, annotations, headers.scenes)
    refuse_twice(found, annotations)
    refuse_shares(stated, annotations)
    extra = sorted(files.keys() - {path.name for _, path in found}) if files else []
    if extra:
        counts.notes.append(f"{plural(len(extra), 'image')} of {folder} are not in {annotations} and take no part ({few(extra)})")
    used = {name for image in stated for name in image.names}
    labels = decide_labels([name for name in names if name in used], parse_label_map(label_map), classes, str(annotations), note)
    by_name = sorted(((path.relative_to(folder).as_posix(), image, path) for image, path in found), key=lambda entry: entry[0])
    by_name = [entry for entry in by_name if headers.has(entry[0])]
    counts.unreadable = dict(sorted(headers.unreadable.items()))
    if counts.unreadable:
        first, why = next(iter(counts.unreadable.items()))
        if not by_name:
            raise RunError(f"none of the images of {folder} can be opened, the first is {first} ({why}); copy them again")
        counts.notes.append(f"{plural(len(counts.unreadable), 'image')} cannot be opened and take no part ({first}: {why})")
    turns = Turns()
    images = [label_image(name, image, path, headers[name], labels.targets, counts, turns) for name, image, path in by_name]
    turns.report(counts.notes, annotations)
    counts.by_class = {name: int(sum((image.labels == k).sum() for image in images)) for k, name in enumerate(labels.classes, start=1)}
    for text in counts.notes:
        note(text)
    return labels.classes, images, counts


class Headers:
    """
    {name: ImageHeader} of the images in a folder, read when they are asked for. known: those of earlier runs. strict: one that cannot be
    opened is a RunError. unreadable: {name: why}. scenes: of image_files, of these images.
    """

    def __init__(self, folder, known, strict):
        self.folder, self.known, self.strict, self.found, self.unreadable = folder, known, strict, {}, {}
        self.scenes = Scenes()

    def __getitem__(self, name):
        if name not in self.found:
            path, known = self.folder / name, self.known.get(name)
            scene = self.scenes.at(path)
            same = known is not None and (known.size, known.mtime_ns) == stamp_of(path, scene)
            self.found[name] = known if same else read_header(path, scene)
        return self.found[name]

    def has(self, name):
        """Whether an image can be opened."""
        try:
            return name not in self.unreadable and self[name] is not None
        except UserError as error:
            if error.__cause__ is None:  # what may not be opened, or cannot be right
                raise
            if self.strict:
                raise RunError(f"{error} (--strict)") from error
            self.unreadable[name] = one_line(error)[:160]
            return False


def find_images_below(folder, scenes):
    """{name: Path} of the images in a folder itself; none where they all lie deeper. scenes: see find_images."""
    try:
        return find_images(folder, scenes)
    except UserError:
        if folder.is_dir() and any(entry.is_dir() for entry in folder.iterdir()):
            return {}
        raise


def read_stated(annotations, folder, files, headers, point_size, class_field, note):
    """([StatedImage], names of classes in order) by the form of the annotations."""
    path = Path(annotations)
    if path.is_dir():
        return read_voc(path, files)
    file, layer = file_and_layer(annotations) if not path.is_file() and ":" in path.name else (path, None)
    suffix = file.suffix.lower()
    if suffix in (".csv", ".tsv", ".txt"):
        return read_table(file)
    if suffix == ".json":
        content = read_json(file)
        if is_coco(content):
            return read_coco(content, file)
        if not isinstance(content.get("type"), str):
            raise UserError(f"{file} has {few(list(content), 6) or 'nothing'} in it; expected {EXPECTED}")
    elif suffix == ".xml":
        raise UserError(f"{file} is one file of many; pass the folder of the Pascal VOC files")
    elif not file.is_file() and not layer:
        raise UserError(f"the annotations {annotations} do not exist; expected {EXPECTED}")
    elif suffix not in FORMATS:
        raise UserError(f"{file} is in no form that is read here; expected {EXPECTED}")
    if not files:
        raise UserError(f"{folder} holds no image; expected georeferenced ones in the folder itself")
    there = {name: headers[name] for name in files if headers.has(name)}
    if not there:
        raise RunError(f"none of the images of {folder} can be opened ({few(list(headers.unreadable.values()), 1)}); copy them again")
    return read_box_vectors(annotations, there, point_size, class_field, note)


def check_place(image, folder, annotations, scenes):
    """(StatedImage, path of its file), which lies below the folder; the name may also be one of a file without its folders."""
    path = path_inside(folder, image.name, annotations)
    path = folder / Path(*path.relative_to(folder).parts)  # without "." and doubled slashes
    if not scenes.is_image(path) and scenes.is_image(bare := folder / path.name):
        path = bare
    return image, path


def refuse_missing(found, folder, annotations, scenes):
    missing = [image.name for image, path in found if not scenes.is_image(path)]
    if not missing:
        return
    if len(missing) == len(found):
        raise UserError(f"none of the {plural(len(found), 'image')} that {annotations} names is in {folder} ({few(missing)}); pass "
                        "their folder")
    raise UserError(f"{len(missing)} of the {len(found)} images that {annotations} names are not in {folder} ({few(missing)}); "
                    "add them, or remove their entries")


def refuse_twice(found, annotations):
    seen = {}
    for image, path in found:
        if path in seen:
            raise UserError(f"{annotations} names {path} twice (ids {few([seen[path], image.image_id])}); expected each image once")
        seen[path] = image.image_id


def refuse_shares(stated, annotations):
    """UserError where all boxes of several lie within the first pixel: they are shares of the image's sides."""
    boxes = np.concatenate([image.corners for image in stated])
    if len(boxes) > 1 and boxes.min() >= 0 and boxes.max() <= 1:
        raise UserError(f"the boxes of {annotations} go from 0 to 1, as shares of the image's sides; expected pixels, so multiply them")


class Turns:
    """Which images are turned, and which state a size that is not theirs."""

    def __init__(self):
        self.applied, self.stored, self.swapped, self.wrong = [], [], [], []

    def decide(self, name, stated, header):
        """The orientation that applies: that of EXIF where the stated size is that of the turned image."""
        size = (header.width, header.height)
        if header.orientation != UPRIGHT:
            if stated == header.shown_size(header.orientation):
                self.applied.append(name)
                return header.orientation
            self.stored.append(name)
        if stated is not None and stated != size:
            swapped = stated == size[::-1] and header.orientation not in SIDEWAYS
            (self.swapped if swapped else self.wrong).append((name, stated, size))
        return UPRIGHT

    def report(self, notes, annotations):
        """UserError where stated sizes are wrong; notes about the rest."""
        if self.wrong:
            name, stated, size = self.wrong[0]
            raise UserError(f"{annotations} states {stated[0]}×{stated[1]} pixels for {name}, which has {size[0]}×{size[1]} "
                            f"({plural(len(self.wrong), 'such image')}); its boxes would lie elsewhere, so correct the one or the other")
        if self.swapped:
            notes.append(f"{plural(len(self.swapped), 'image')} have width and height swapped in {annotations} ({self.swapped[0][0]} …); "
                         "boxes count as they are")
        if self.applied:
            notes.append(f"{plural(len(self.applied), 'image')} are turned by their EXIF tag, as {annotations} states their size")
        if self.stored:
            notes.append(f"{plural(len(self.stored), 'image')} have an EXIF rotation that {annotations} does not follow "
                         f"({few(self.stored)}); they are read as stored")


def label_image(name, stated, path, header, targets, counts, turns):
    """The LabelledImage of what is stated of a file; what is left out is counted."""
    orientation = turns.decide(name, stated.size, header)
    width, height = header.shown_size(orientation)
    corners = stated.corners
    labels = [targets[word] for word in stated.names]
    ignored = np.array([bool(crowd) or label == 0 for crowd, label in zip(stated.ignored, labels, strict=True)], bool)
    dropped = np.array([label is None for label in labels], bool)
    labels = np.array([label or 0 for label in labels], np.int64)
    clipped = np.clip(corners, 0, (width, height, width, height))
    flat = (corners[:, 2:] <= corners[:, :2]).any(axis=1) & ~dropped
    outside = (clipped[:, 2:] <= clipped[:, :2]).any(axis=1) & ~flat & ~dropped
    kept = ~(dropped | flat | outside)
    twice = kept & is_repeated(clipped, labels, ignored, kept)
    kept &= ~twice
    counts.images += 1
    counts.dropped += int(dropped.sum())
    counts.without_area += int(flat.sum())
    counts.outside += int(outside.sum())
    counts.duplicates += int(twice.sum())
    counts.clipped += int((kept & (clipped != corners).any(axis=1)).sum())
    objects, regions = np.flatnonzero(kept & ~ignored), np.flatnonzero(kept & ignored)
    counts.boxes += len(objects)
    counts.ignored += len(regions)
    counts.empty_images += not len(objects)
    masks = [stated.rings[k] for k in objects]
    return LabelledImage(path, name, stated.image_id, width, height, clipped[objects], labels[objects], clipped[regions],
                         masks if any(rings is not None for rings in masks) else None, header, orientation)


def is_repeated(boxes, labels, ignored, kept):
    """(N,) bool: whether a box that is kept is equal to an earlier one of its class."""
    rows = np.column_stack([boxes, labels, ignored])
    first = np.zeros(len(rows), bool)
    order = np.flatnonzero(kept)
    if len(order):
        _, places = np.unique(rows[order], axis=0, return_index=True)
        first[order[places]] = True
    return kept & ~first

