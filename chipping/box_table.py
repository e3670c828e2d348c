"""Boxes stated in a CSV file: one box a row, with the image, the corners in pixels and the class."""

import csv
import sys

from chipping.stated_boxes import StatedImage, few, require_class, stated_size
from chipping.voc import FIELDS, number
from runtime.errors import UserError

COLUMNS = {
    "image": ("image_path", "filename", "file_name", "image", "file"), "label": ("label", "class", "category", "name"),
    "width": ("width", "image_width"), "height": ("height", "image_height"), **{field: (field,) for field in FIELDS},
}
EXPECTED = "image_path, xmin, ymin, xmax, ymax, label"


def read_table(path):
    """
    ([StatedImage], [class names, sorted]) of a CSV file with a line of names.

    A row whose corners are all 0 or all missing states an image without objects. The images' order is that of the file.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            csv.field_size_limit(min(sys.maxsize, 1 << 20))
            start = file.read(4096)
            file.seek(0)
            rows = csv.reader(file, delimiter=max(",;\t", key=start.split("\n", 1)[0].count))
            places = columns_of(next(rows, []), path)
            return read_rows(rows, places, path)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); expected a CSV file") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a CSV file in UTF-8 ({error}); save it as one") from error


def columns_of(header, path):
    """{column: place} of the names in a file's first line."""
    known = {word.strip().lower(): place for place, word in reversed(list(enumerate(header)))}
    places = {column: next((known[name] for name in names if name in known), None) for column, names in COLUMNS.items()}
    if missing := [column for column in ("image", *FIELDS, "label") if places[column] is None]:
        raise UserError(f"{path} has the columns {few(header, 8) or 'of no first line'}, without {', '.join(missing)}; expected {EXPECTED}")
    return places


def read_rows(rows, places, path):
    found = {}
    for row in rows:
        if not any(word.strip() for word in row):
            continue
        where = f"{path}, line {rows.line_num}"
        if len(row) <= max(place for place in places.values() if place is not None):
            raise UserError(f"{where} has {len(row)} columns, fewer than the first line; expected {EXPECTED}")
        words = {column: row[place].strip() for column, place in places.items() if place is not None}
        size = stated_size(number(words.get("width")), number(words.get("height")))
        image = found.setdefault(words["image"], StatedImage(words["image"], words["image"], size))
        if all(words[field] == "" for field in FIELDS):
            continue
        box = [number(words[field]) for field in FIELDS]
        if None in box:
            raise UserError(f"{where} has the corners {few([words[f] for f in FIELDS], 4)}; expected four numbers of pixels")
        if any(box):
            image.add(box, require_class(words["label"], where))
    if not found:
        raise UserError(f"{path} has no row after its first line; expected {EXPECTED}")
    return list(found.values()), sorted(set().union(*(image.names for image in found.values())))
