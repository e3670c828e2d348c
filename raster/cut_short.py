"""Finds local rasters that end too early, of formats in which GDAL says nothing, and takes missing pixels for 0 or anything."""

import functools
import os

from rasterio.errors import RasterioIOError

PNG = b"\x89PNG\r\n\x1a\n"
PNG_END = b"\0\0\0\0IEND\xaeB`\x82"


def refuse_cut_short(path, dataset=None):
    """RasterioIOError for a PNG without its last chunk, and for an open ENVI dataset whose file is shorter than its header says."""
    status, name = os.stat(path), os.path.basename(path)
    if is_png_without_end(str(path), status.st_size, status.st_mtime_ns):
        raise RasterioIOError(f"{name} is cut short: a PNG without its end")
    if dataset is not None and dataset.driver == "ENVI" and (expected := envi_bytes(dataset)) > status.st_size:
        raise RasterioIOError(f"{name} is cut short: expected {expected} bytes, as its .hdr says, found {status.st_size}")


@functools.lru_cache(maxsize=1024)
def is_png_without_end(path, size, mtime):
    """Whether a file begins as a PNG and its chunks do not lead to the last one. size, mtime: of the file, in bytes and nanoseconds."""
    with open(path, "rb") as file:
        if file.read(len(PNG)) != PNG:
            return False
        file.seek(max(0, size - len(PNG_END)))
        if file.read() == PNG_END:
            return False
        place = len(PNG)  # other bytes may follow the last chunk
        while place + len(PNG_END) <= size:
            file.seek(place)
            head = file.read(8)
            place += 12 + int.from_bytes(head[:4], "big")
            if head[4:] == b"IEND":
                return place > size
    return True


def envi_bytes(dataset):
    """Bytes that an ENVI file has at least, 0 where its size says nothing since it is compressed."""
    header = dataset.tags(ns="ENVI")
    if header.get("file_compression", "0") != "0":
        return 0
    offset = int(text) if (text := header.get("header_offset", "0")).isdecimal() else 0
    return offset + sum(dataset.width * dataset.height * bytes_of(kind) for kind in dataset.dtypes)


def bytes_of(kind):
    """Bytes of a value of a type by its name, such as uint16 or complex_int16."""
    bits = int("".join(c for c in kind if c.isdigit()) or 8)
    return bits // 8 * (2 if kind == "complex_int16" else 1)
