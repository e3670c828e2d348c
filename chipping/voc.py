"""Boxes stated in a folder of Pascal VOC files: one XML an image."""

import os
from pathlib import Path
from xml.etree import ElementTree

from chipping.stated_boxes import StatedImage, require_class, stated_size
from runtime.errors import UserError

MOST_BYTES = 64 << 20
FIELDS = ("xmin", "ymin", "xmax", "ymax")


def read_voc(folder, images):
    """
    ([StatedImage], [class names, sorted]) of the .xml files in a folder.

    images: {name: path} of the images. A file belongs to the image with its own stem: what it states as `filename` is often an older name,
    which counts only where no image has the stem.
    """
    with os.scandir(folder) as entries:
        paths = sorted(Path(e.path) for e in entries if e.name.lower().endswith(".xml") and e.name[0] != "." and e.is_file())
    if not paths:
        raise UserError(f"{folder} holds no .xml; expected Pascal VOC files, or pass a COCO JSON, CSV, GeoJSON or GeoPackage")
    by_stem = {}
    for name in images:
        by_stem.setdefault(Path(name).stem, []).append(name)
    found, classes = [], set()
    for path in paths:
        image = read_file(path, by_stem)
        classes.update(image.names)
        found.append(image)
    return found, sorted(classes)


def parse(path):
    """The root of an XML file without entities."""
    if path.stat().st_size > MOST_BYTES:
        raise UserError(f"{path} has {path.stat().st_size >> 20} MB; expected a Pascal VOC file")
    try:
        content = path.read_bytes()
        if b"<!DOCTYPE" in content or b"<!ENTITY" in content or b"\0" in content:  # zero bytes: UTF-16, where they would not be found
            raise ElementTree.ParseError("it declares entities, or is not UTF-8")
        root = ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError, LookupError, RecursionError) as error:
        raise UserError(f"{path} is not XML that can be read ({error}); repair or remove it") from error
    if root.tag != "annotation":
        raise UserError(f"{path} is XML, but no Pascal VOC annotation; expected <annotation>, so move it elsewhere")
    return root


def read_file(path, by_stem):
    root = parse(path)
    names = by_stem.get(path.stem, [])
    if len(names) > 1:
        raise UserError(f"{path} could belong to {names[0]} or {names[1]}; leave one of them in the folder")
    name = names[0] if names else (root.findtext("filename") or "").strip() or f"{path.stem}.jpg"
    image = StatedImage(name, path.stem, stated_size(number(root.findtext("size/width")), number(root.findtext("size/height"))))
    for place, entry in enumerate(root.iter("object"), start=1):
        where = f"{path}: object {place}"
        box = [number(entry.findtext(f"bndbox/{field}")) for field in FIELDS]
        if None in box:
            raise UserError(f"{where} lacks a number among {', '.join(FIELDS)}; expected all four")
        image.add(box, require_class(entry.findtext("name") or "", where), (entry.findtext("difficult") or "").strip() == "1")
    return image


def number(text):
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if abs(value) < 1e15 else None
