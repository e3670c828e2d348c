"""
What the fields of chipset.json, manifest.jsonl and skipped.jsonl may hold.

A set may come from a stranger or from a power cut. Whoever reads one gets these types: else find_problem says what is wrong, and the reader
names the file and the line.
"""

import datetime

from nets.model_config import TASKS
from runtime.fields import NAMES, NUMBER, NUMBERS, OBJECT, SIZE, TEXT, WHOLE, Field, dict_of, is_number, is_text, list_of, or_none

TYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float16", "float32", "float64")
COUNTS = Field("lists of whole numbers by layer", dict_of(list_of(WHOLE.fits)))
SCALE = Field("a number or a list of numbers", lambda value: is_number(value) or NUMBERS.fits(value))


def is_days(value):
    return bool(list_of(is_text)(value)) and all(is_day(day) for day in value)


def is_place(lon, lat):
    return abs(lon) <= 180 and abs(lat) <= 90


def is_day(text):
    try:
        return datetime.date.fromisoformat(text).year >= 1900
    except ValueError:
        return False


LINE = {  # of manifest.jsonl and skipped.jsonl
    **dict.fromkeys(("file", "mask", "split", "scene", "tile", "cid", "reason", "detail"), TEXT),
    **dict.fromkeys(("i", "left", "top", "valid_pixels"), WHOLE),
    **dict.fromkeys(("cloud_cover", "valid_fraction", "valid_ms", "valid_pan", "lat", "lon"), or_none(NUMBER)),
    **dict.fromkeys(("event", "crs"), or_none(TEXT)),
    **dict.fromkeys(("band_sum", "band_sum_squares"), or_none(NUMBERS)),
    **dict.fromkeys(("label_sources", "stamps"), OBJECT),
    "cloud_source": or_none(OBJECT),
    "dates": Field("days such as 2022-06-15", is_days),
    "place": or_none(Field("longitude and latitude", lambda value: list_of(is_number, 2)(value) and is_place(*value))),
    "source": Field("an object or text", lambda value: isinstance(value, dict | str | None)),
    "dtype": Field("a type of numbers", lambda value: value in TYPES if is_text(value) else False),
    "layers": NAMES,
    "class_pixels": COUNTS,
    "target_sums": Field("lists of 4 numbers by layer", dict_of(list_of(is_number, 4))),
    "window": Field("4 numbers", list_of(is_number, 4)),
    "scene_size": or_none(Field("2 numbers", list_of(is_number, 2))),
    "transform": or_none(Field("6 numbers", list_of(is_number, 6, 9))),
}

DESCRIPTION = {  # chipset.json
    **dict.fromkeys(("kind", "store", "dtype", "settings_hash", "sensor", "level"), TEXT),
    "wavelengths": NUMBERS,
    **dict.fromkeys(("chip_size", "ratio", "dates"), SIZE),
    **dict.fromkeys(("bands", "layers"), NAMES),
    **dict.fromkeys(("divide_by", "offset"), SCALE),
    "task": Field(f"one of {', '.join(TASKS)}", lambda value: value in TASKS if is_text(value) else False),
    "nodata": or_none(NUMBER),
    "unfinished": Field("true or a whole number above 0", lambda value: value is True or SIZE.fits(value)),
    "classes": Field("lists of names by layer", dict_of(NAMES.fits)),
    "settings": Field(
        "an object", lambda value: isinstance(value, dict)
        and list_of(lambda tile: isinstance(tile, dict) and is_text(tile.get("name")))(value.get("tiles", []))
    ),
}
PATCHES = {  # chipset.json of a patch set
    **DESCRIPTION,
    "divide_by": Field("a list of numbers other than 0", lambda value: NUMBERS.fits(value) and 0 not in value),
    "offset": NUMBERS,
}


def is_row(value):
    return list_of(is_number, 4)(value)


BOXES = Field("a list of boxes of 4 numbers", list_of(is_row))
LABELS = Field("a list of classes from 1 on", list_of(SIZE.fits))
TILES = {  # chipset.json of a tile set
    **DESCRIPTION,
    "store": Field("png, npy or none", lambda value: value in ("png", "npy", "none") if is_text(value) else False),
    "dtype": Field("a type of numbers", lambda value: value in TYPES if is_text(value) else False),
    "tile_size": Field("2 whole numbers above 0", list_of(SIZE.fits, 2)),
    **dict.fromkeys(("overlap", "count", "image_count"), WHOLE),
    "divide_by": PATCHES["divide_by"],
    "offset": NUMBERS,
    "images_folder": TEXT,
}
TILE = {  # a line of its manifest
    **dict.fromkeys(("image", "x0", "y0", "bytes", "valid_pixels"), WHOLE),
    "file": or_none(TEXT),
    **dict.fromkeys(("boxes", "ignore"), BOXES),
    "labels": LABELS,
    "visible": NUMBERS,
    "objects": Field("a list of whole numbers", list_of(WHOLE.fits)),
    **dict.fromkeys(("band_sum", "band_sum_squares"), or_none(NUMBERS)),
}
TILED_IMAGE = {  # a line of its images
    "name": TEXT,
    "image_id": Field("a number or text", lambda value: is_text(value) or is_number(value)),
    **dict.fromkeys(("index",), WHOLE),
    **dict.fromkeys(("width", "height"), SIZE),
    "orientation": Field("1 to 8", lambda value: type(value) is int and 1 <= value <= 8),
    **dict.fromkeys(("boxes", "ignore"), BOXES),
    "labels": LABELS,
    "masks": or_none(Field("lists of rings", list_of(lambda rings: rings is None or list_of(list_of(list_of(is_number, 2)))(rings)))),
    "header": OBJECT,
}


def problem_of_patches(description):
    """What is wrong with chipset.json of a patch set whose fields fit by themselves, or None."""
    bands, layers = description["bands"], description["layers"]
    for name in ("divide_by", "offset"):
        if len(description[name]) != len(bands):
            return f"has {len(description[name])} numbers in {name}, expected one for each of the {len(bands)} bands"
    if len(bands) % description.get("dates", 1):
        return f"has {len(bands)} bands, which are not those of {description['dates']} dates"
    if lacking := [layer for layer in layers if layer not in description["classes"]]:
        return f"names no classes of layer {lacking[0]}"
    return None


def problem_of_patch(line, description):
    """What is wrong with the counts of a patch's manifest line, measured by the description of its set; None where they fit."""
    classes, bands = description["classes"], description["bands"]
    for layer, pixels in line.get("class_pixels", {}).items():
        if layer in classes and len(pixels) != len(classes[layer]):
            return f"counts {len(pixels)} classes of layer {layer}, expected {len(classes[layer])}"
    if "dates" in description and len(line["dates"]) != description["dates"]:
        return f"has {len(line['dates'])} dates, expected {description['dates']}"
    for name in ("band_sum", "band_sum_squares"):
        if line.get(name) is not None and len(line[name]) != len(bands):
            return f"has {len(line[name])} numbers in {name}, expected {len(bands)}"
    return None
