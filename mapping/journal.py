"""
A map that is being made: finished bands in a scratch file, and a journal that says which of them are whole.

    maps/.chipmill/<scene>/journal.jsonl   the settings, then one line a band, written after the band's bytes
    maps/.chipmill/<scene>/bands.bin       the bands: classes, probability, thumbnail rows, each deflated

Nothing here depends on the time or on the batches, so that a map continued from a journal has the bytes of one made at a stretch.
"""

import json
import math
import os
import shutil
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from runtime.errors import UserError
from runtime.files import describe_difference, make_own_folder, open_own, plain, scan_lines, try_lock

NAME = "journal.jsonl"
FORM = 2  # of the bands; those that a run of an earlier version left in another are made again
SAVE_BYTES = 256 << 20  # after so many bytes the disk is asked to have them: a power cut costs no more than that


@dataclass
class StoredBand:
    """
    Finished rows as they lie in the scratch file.

    classes: (rows, W) uint8. probability: (rows, W) uint8 in 1/254 (0 where not valid), or float32. thumbnail: (C, n, m) float16.
    windows, highest, unreadable: see mapping.segmentation.Band. spread, votes: of an ensemble, the former in the probability's type.
    beyond: of mapping.index_check, (rows, W) uint8 of 0 and 1.
    """

    row: int
    classes: np.ndarray
    probability: np.ndarray
    thumbnail: np.ndarray
    windows: int
    highest: float
    unreadable: list
    spread: np.ndarray | None = None
    votes: np.ndarray | None = None
    beyond: np.ndarray | None = None

    @classmethod
    def of(cls, band, probability_type):
        probability, spread = (values if values is None or probability_type == "float32" else np.rint(values * 254).astype(np.uint8)
                               for values in (band.probability, band.spread))
        beyond = None if band.beyond is None else band.beyond.astype(np.uint8)
        return cls(band.row, band.classes, probability, band.thumbnail, band.windows, band.highest, band.unreadable, spread, band.votes,
                   beyond)


class RowJournal:
    """
    Bands of rows, kept as parts with a line about each band. Opened for one scene by one process at a time.

    folder: the scratch folder. settings: whatever decides the bands' content; bands of other settings are refused, or with `overwrite`
    thrown away. What a band is, subclasses say: pack(band) → (its line, deflated parts); unpack(line, parts) → band, ValueError or
    zlib.error where they are not what the line says; rows_of(line); fits(line) → bool.
    """

    def __init__(self, folder, settings, overwrite=False):
        self.folder, self.settings = Path(folder), plain(settings)
        make_own_folder(self.folder.parent)
        make_own_folder(self.folder)
        self.lines_file = open_own(self.folder / NAME, "a+b")
        self.bands_file = open_own(self.folder / "bands.bin", "a+b")
        try:
            self.lock()
            self.lines = self.read_lines(overwrite)
            self.keep_only(self.lines)
        except BaseException:
            self.close()
            raise
        self.unsaved = 0

    def lock(self):
        if not try_lock(self.lines_file):
            raise UserError(f"another run is making the map in {self.folder}; wait for it, or choose another --output-dir")

    def read_lines(self, overwrite):
        """The lines of the bands that are whole; of bands with other settings none, or a UserError. A torn line ends what is whole."""
        head, *lines = scan_lines(self.folder / NAME)[0] or [self.settings]
        if head != self.settings and overwrite:
            return []
        if head != self.settings:
            raise UserError(
                f"{self.folder} holds an unfinished map made with other settings ({describe_difference(head, self.settings)}); "
                "run with those to finish it, or pass --overwrite to begin anew"
            )
        whole, row, start, size = [], 0, 0, os.fstat(self.bands_file.fileno()).st_size
        for line in lines:
            if not self.is_next(line, row, start) or start + sum(line["bytes"]) > size:
                break
            try:
                self.band(line)
            except (ValueError, zlib.error):
                break  # a power cut can lose bytes that were written before the line
            whole.append(line)
            row, start = row + self.rows_of(line), start + sum(line["bytes"])
        return whole

    def keep_only(self, lines):
        """Cut both files back to what is whole."""
        text = b"".join(as_line(v) for v in [self.settings, *lines])
        self.lines_file.seek(0)
        if self.lines_file.read() != text:
            self.lines_file.truncate(0)
            self.lines_file.write(text)
            self.lines_file.flush()
        self.bands_file.truncate(lines[-1]["start"] + sum(lines[-1]["bytes"]) if lines else 0)
        self.bands_file.seek(0, os.SEEK_END)

    @property
    def next_row(self):
        """The first row that is not finished."""
        return self.lines[-1]["row"] + self.rows_of(self.lines[-1]) if self.lines else 0

    def is_next(self, line, row, start):
        """Whether a line describes the band that begins at a row of the scene and a byte of the file."""
        try:
            sizes = all(type(n) is int and n >= 0 for n in line["bytes"])
            return sizes and (line["row"], line["start"]) == (row, start) and "crc" in line and self.fits(line) and self.rows_of(line) > 0
        except (KeyError, TypeError, ValueError):
            return False

    def append(self, band):
        """Keep a band; it must follow the last one."""
        if band.row != self.next_row:
            raise ValueError(f"expected the band at row {self.next_row}, got the one at {band.row}")
        line, parts = self.pack(band)
        start, crc, sizes = self.bands_file.tell(), 0, []
        for data in parts:
            self.bands_file.write(data)
            crc = zlib.crc32(data, crc)
            sizes.append(len(data))
        self.bands_file.flush()
        self.unsaved += sum(sizes)
        if self.unsaved > SAVE_BYTES:
            os.fsync(self.bands_file.fileno())
            self.unsaved = 0
        line = {"row": band.row, **line, "start": start, "bytes": sizes, "crc": crc}
        self.lines.append(line)
        self.lines_file.write(as_line(line))
        self.lines_file.flush()

    def band(self, line):
        """The band of a line. ValueError or zlib.error where the file does not hold it as the line says."""
        self.bands_file.seek(line["start"])
        parts = [self.bands_file.read(size) for size in line["bytes"]]
        if zlib.crc32(b"".join(parts)) != line["crc"]:
            raise ValueError("the bytes are not those that were written")
        return self.unpack(line, parts)

    def bands(self):
        """The bands from the top, one in memory at a time."""
        for line in self.lines:
            yield self.band(line)

    def close(self):
        try:
            self.bands_file.close()  # fails where the disk is full
        finally:
            self.lines_file.close()  # and lets the lock go

    def remove(self):
        """The map is finished: what led to it is not needed any more."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        """Removed where all went well, kept for the next run where not."""
        self.remove() if kind is None else self.close()


def deflate(array):
    """Its bytes, compressed by runs of equal ones: twice as fast as level 1 where there are none, and best where a scene holds nothing."""
    compressor = zlib.compressobj(1, strategy=zlib.Z_RLE)
    return compressor.compress(np.ascontiguousarray(array)) + compressor.flush()


def inflate(data, shape, kind):
    """The array of a shape and type that `data` is, deflated. ValueError where it holds less or more; more is not unpacked."""
    size = math.prod(shape) * np.dtype(kind).itemsize
    return np.frombuffer(zlib.decompressobj().decompress(data, size + 1), kind).reshape(shape)


class Journal(RowJournal):
    """Of a map: its bands are StoredBands."""

    def pack(self, band):
        return {
            "shape": list(band.classes.shape), "thumbnail": list(band.thumbnail.shape), "type": band.probability.dtype.name, "form": FORM,
            "windows": band.windows, "highest": band.highest, "unreadable": band.unreadable,
        }, [deflate(part) for part in (band.classes, band.probability, band.thumbnail, band.spread, band.votes, band.beyond)
            if part is not None]

    def unpack(self, line, parts):
        shapes = (line["shape"], np.uint8), (line["shape"], line["type"]), (line["thumbnail"], np.float16)
        shapes += ((line["shape"], line["type"]), (line["shape"], np.uint8)) if len(parts) >= 5 else ()
        shapes += ((line["shape"], np.uint8),) if len(parts) in (4, 6) else ()
        arrays = [inflate(data, *shape) for data, shape in zip(parts, shapes, strict=True)]
        further = [None, None, *arrays[3:]] if len(arrays) == 4 else arrays[3:]
        return StoredBand(line["row"], *arrays[:3], line["windows"], line["highest"], line["unreadable"], *further)

    def rows_of(self, line):
        return line["shape"][0]

    def fits(self, line):
        (rows, width), (bands, high, wide) = line["shape"], line["thumbnail"]
        numbers = rows, width, bands, high, wide, line["windows"]
        return (
            all(type(n) is int and n >= 0 for n in numbers)
            and line["form"] == FORM and line["type"] in ("uint8", "float32") and len(line["bytes"]) in (3, 4, 5, 6)
            and isinstance(line["highest"], int | float) and isinstance(line["unreadable"], list)
        )


def as_line(value):
    return (json.dumps(plain(value), ensure_ascii=False) + "\n").encode()
