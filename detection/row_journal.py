"""
Detections of an image that is being looked at: finished rows of tiles in a scratch file, and a journal that says which are whole.

See mapping/journal.py. Nothing here depends on the time or on the batches, so that an image continued from a journal gives the bytes of one
that was looked at in one go.
"""

import json

import numpy as np

from detection.tile_rows import TileRow
from mapping.journal import RowJournal, deflate, inflate

ARRAYS = {"boxes": (np.float64, 4), "scores": (np.float32, 1), "labels": (np.int32, 1), "columns": (np.int32, 1)}  # type, numbers a box


class TileRowJournal(RowJournal):
    """Of TileRows."""

    def pack(self, row):
        outlines = [one if one is None else one.tolist() for one in row.outlines]
        text = np.frombuffer(json.dumps(outlines if any(outlines) else []).encode(), np.uint8)
        arrays = [np.asarray(getattr(row, name), kind) for name, (kind, _) in ARRAYS.items()]
        return {
            "rows": row.rows, "count": len(row.boxes), "tiles": row.tiles, "full": row.full, "valid": row.valid, "outlines": len(text),
            "unreadable": row.unreadable, "thumbnail": list(row.thumbnail.shape),
        }, [deflate(part) for part in (*arrays, text, row.thumbnail)]

    def unpack(self, line, parts):
        count = line["count"]
        shapes = [((count, each) if each > 1 else (count,), kind) for kind, each in ARRAYS.values()]
        shapes += [((line["outlines"],), np.uint8), (line["thumbnail"], np.float16)]
        *arrays, text, thumbnail = [inflate(data, *shape) for data, shape in zip(parts, shapes, strict=True)]
        rings = [ring and np.array(ring, np.int64) for ring in json.loads(text.tobytes()) or [None] * count]
        return TileRow(
            line["row"], line["rows"], **dict(zip(ARRAYS, arrays, strict=True)), outlines=rings,
            tiles=line["tiles"], full=line["full"], valid=line["valid"], unreadable=line["unreadable"], thumbnail=thumbnail,
        )

    def rows_of(self, line):
        return line["rows"]

    def fits(self, line):
        bands, high, wide = line["thumbnail"]
        numbers = *(line[key] for key in ("row", "rows", "count", "tiles", "full", "valid", "outlines")), bands, high, wide
        return (all(type(n) is int and n >= 0 for n in numbers) and len(line["bytes"]) == len(ARRAYS) + 2
                and isinstance(line["unreadable"], list))
