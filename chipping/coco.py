"""Boxes stated in a COCO JSON file: images, categories, annotations."""

import numpy as np

from chipping.coco_runs import rings_of_runs
from chipping.stated_boxes import StatedImage, few, is_finite, require_class, stated_size
from runtime.errors import UserError

EXPECTED = "a COCO file with images, annotations and categories"


def is_coco(content):
    """Whether an object that JSON held is, or was meant to be, a COCO file."""
    return any(key in content for key in ("images", "annotations", "categories")) and "type" not in content


def read_coco(content, path):
    """([StatedImage], [class name in the order of the ids]) of the object that a JSON file held. path: for messages."""
    images, annotations, categories = (rows_of(content, key, path) for key in ("images", "annotations", "categories"))
    if not images:
        raise UserError(f"{path} lists no images; expected {EXPECTED}")
    names = category_names(categories, path)
    found = {}
    for row in images:
        if not isinstance(row.get("file_name"), str) or not is_id(row.get("id")):
            raise UserError(f"{path}: an image lacks file_name or id ({few([row])}); expected both")
        if row["id"] in found:
            raise UserError(f"{path} has the image id {row['id']!r} twice; ids have to be unique")
        found[row["id"]] = StatedImage(row["file_name"], row["id"], stated_size(row.get("width"), row.get("height")))
    known, categories, unknown = by_any_type(found), by_any_type(names), {}
    for row in annotations:
        image = known.get(row.get("image_id")) if is_id(row.get("image_id")) else None
        if image is None:
            unknown.setdefault(str(row.get("image_id")), None)
            continue
        add_annotation(image, row, categories, path)
    if unknown:
        raise UserError(f"{path}: annotations name {len(unknown)} image ids that no image has ({few(list(unknown))}); "
                        f"images have {few(list(found))}")
    return list(found.values()), list(names.values())


def rows_of(content, key, path):
    rows = content.get(key, [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{path} has {key} that are no list of objects; expected {EXPECTED}")
    if key not in content and key != "annotations":
        raise UserError(f"{path} lacks {key!r}; expected {EXPECTED}")
    return rows


def is_id(value):
    return isinstance(value, str) or type(value) is int or type(value) is float and value == int(value)


def category_names(categories, path):
    """{id: name} in the order of the ids, which may begin anywhere and have gaps."""
    names = {}
    for row in categories:
        if not is_id(row.get("id")):
            raise UserError(f"{path}: a category has no id ({few([row])})")
        name = require_class(row.get("name"), f"{path}: category {row['id']!r}")
        if row["id"] in names or name in names.values():
            raise UserError(f"{path} has the category {name!r} or its id {row['id']!r} twice; expected each once")
        names[row["id"]] = name
    ids = sorted(names, key=lambda key: (isinstance(key, str), key))
    return {key: names[key] for key in ids}


def by_any_type(found):
    """{id: value} that also finds 7 for "7" and the other way round, where that is but one."""
    texts = {}
    for key in found:
        texts.setdefault(str(key), []).append(key)
    more = {}
    for text, keys in texts.items():
        if len(keys) == 1:
            more[text] = found[keys[0]]
            if text.isascii() and text.isdecimal():
                more[int(text)] = found[keys[0]]
    return {**more, **found}


def add_annotation(image, row, categories, path):
    """Add what an annotation states to its StatedImage. categories: {id: name}."""
    where = f"{path}: annotation {row.get('id')!r}"
    category = categories.get(row.get("category_id")) if is_id(row.get("category_id")) else None
    if category is None:
        known = dict.fromkeys(map(str, categories))
        raise UserError(f"{where} has the category {few([row.get('category_id')])}, which no category has; expected {few(list(known), 8)}")
    box = row.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_finite, box)):
        raise UserError(f"{where} has the bbox {few([box])}; expected [x, y, width, height] in pixels")
    x, y, width, height = box
    crowd = bool(row.get("iscrowd"))
    image.add((x, y, x + width, y + height), category, crowd, None if crowd else rings_of(row.get("segmentation"), box, where))


def rings_of(segmentation, box, where):
    """[(P, 2) float64] of polygons or a run-length mask; None where there is no outline."""
    if isinstance(segmentation, dict):
        return rings_of_runs(segmentation, box, where)
    if not isinstance(segmentation, list) or not segmentation:
        return None
    rings = []
    for flat in segmentation:
        if not isinstance(flat, list) or len(flat) % 2 or not all(map(is_finite, flat)):
            raise UserError(f"{where} has a segmentation that is no list of polygons [x, y, x, y …]")
        if len(flat) >= 6:
            rings.append(np.array(flat, np.float64).reshape(-1, 2))
    return rings or None
