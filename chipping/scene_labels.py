"""
Labels of whole images: from the folders that they lie in, or from a CSV file.

A CSV has a line of names. Its columns are `image` (a path, a file's name or its stem) and `label`, of several labels separated by `;`; or
`image` and a column a class that holds 0 or 1.
"""

import csv
import sys
from collections import Counter, defaultdict
from pathlib import PurePosixPath
from urllib.parse import urlparse

from chipping.pairing import by_key
from raster.source import is_remote, scene_name
from runtime.errors import UserError, did_you_mean

FOLDERS = "folders"  # in place of a CSV file
IMAGE, LABEL = ("image", "image_path", "filename", "file_name", "file", "scene"), ("label", "labels", "class", "classes", "category")


def keyed_images(paths):
    """{key: path}: keys are stems, or folder_stem of all where two images in different folders share a stem."""
    counts = Counter(map(scene_name, paths))
    if max(counts.values(), default=1) == 1:
        return by_key(paths)
    keyed = {}
    for path in paths:
        key = f"{folder_of(path)}_{scene_name(path)}"
        if key in keyed:
            raise UserError(f"two images share the name {key!r}: {keyed[key]} and {path}; rename one, or leave one out of --images")
        keyed[key] = path
    return keyed


def folder_of(path):
    return PurePosixPath(urlparse(str(path)).path if is_remote(path) else str(path).replace("\\", "/")).parent.name


def labels_of_scenes(images, source, classes, several):
    """
    ({scene: (number of its class, …)}, class names) of {scene: path}. source: "folders" or the path of a CSV. classes: names in their
    order, or None for all that there are, sorted. several: any number of labels an image, else exactly one.
    """
    found = {key: (folder_of(path),) for key, path in images.items()} if source == FOLDERS else labels_of_table(images, source, several)
    there = sorted({label for labels in found.values() for label in labels})
    names = tuple(classes or there)
    if unknown := [label for label in there if label not in names]:
        scene = next(key for key, labels in found.items() if unknown[0] in labels)
        raise UserError(f"{images[scene]} has the label {unknown[0]!r}, --classes are {', '.join(names)}.{did_you_mean(unknown[0], names)}")
    if len(names) < (1 if several else 2):
        where = "lie in one folder" if source == FOLDERS else "have one label"
        raise UserError(f"all {len(images)} images {where}, {there[0] if there else 'none'}; expected two classes or more")
    return {key: tuple(sorted(names.index(label) for label in set(labels))) for key, labels in found.items()}, names


def labels_of_table(images, path, several):
    """{scene: labels} of a CSV file; UserError where an image has no line."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            csv.field_size_limit(min(sys.maxsize, 1 << 20))
            start = file.readline(1 << 16)
            file.seek(0)
            rows = csv.reader(file, delimiter="\t" if "\t" in start else "," if "," in start else ";")
            table = dict(read_rows(rows, path, several))
    except OSError as error:
        raise UserError(f"--scene-labels {path} cannot be read ({error.strerror}); expected {FOLDERS}, or a CSV file") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a CSV file in UTF-8 ({error}); save it as one") from error
    found, sharing = {}, defaultdict(list)
    for image in images.values():
        for name in {PurePosixPath(image).name, scene_name(image)}:
            sharing[name].append(image)
    for key, image in images.items():
        names = [key, str(image), f"{folder_of(image)}/{PurePosixPath(image).name}", PurePosixPath(image).name, scene_name(image)]
        name = next((name for name in names if name in table), None)
        if name in names[3:] and len(sharing[name]) > 1:
            raise UserError(f"{path} has one line {name!r} for {' and '.join(map(str, sharing[name][:2]))}; name images there with their "
                            "folders")
        if name is None:
            raise UserError(f"{image} has no line in {path}; expected one with image {scene_name(image)!r}."
                            f"{did_you_mean(scene_name(image), table)}")
        found[key] = table[name]
    return found


def read_rows(rows, path, several):
    """(image, its labels) of each row."""
    header = [word.strip() for word in next(rows, [])]
    known = {word.lower(): place for place, word in reversed(list(enumerate(header)))}
    image, label = (next((known[name] for name in names if name in known), None) for names in (IMAGE, LABEL))
    others = [place for place in range(len(header)) if place != image]
    if image is None or not others:
        raise UserError(f"{path} has the columns {', '.join(header) or 'of no first line'}; expected image and label")
    if label is None and not several:
        raise UserError(f"{path} has no column label, but {', '.join(header)}; expected image and label")
    seen = {}
    for row in rows:
        if not any(word.strip() for word in row):
            continue
        where, words = f"{path}, line {rows.line_num}", [word.strip() for word in row]
        if len(words) < len(header):
            raise UserError(f"{where} has {len(words)} columns, fewer than the first line; expected {', '.join(header)}")
        if label is not None:
            labels = tuple(word.strip() for word in words[label].split(";") if word.strip()) if several else (words[label],)
        else:
            if wrong := [words[place] for place in others if words[place] not in ("0", "1")]:
                raise UserError(f"{where} holds {wrong[0]!r}; expected 0 or 1 in the column of each class")
            labels = tuple(header[place] for place in others if words[place] == "1")
        if not several and not labels[0]:
            raise UserError(f"{where} has no label; expected one for each image")
        if seen.setdefault(words[image], labels) != labels:
            raise UserError(f"{where} gives {words[image]} another label than an earlier line; leave one of them out")
        yield words[image], labels
