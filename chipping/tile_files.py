"""The files of a tile: pixels as .png or .npy, and a .json that says what they show and what is in them."""

import io
import os

import numpy as np
from PIL import Image

from runtime.files import atomic_path
from runtime.npy import BadArray, read_array

STORED = ("uint8", "uint16", "int16", "float32")  # what pixels stay in; every other type becomes float32
COMPRESSION = 1  # of PNG: a tenth larger than could be, in a fraction of the time
FILL = 0  # stored value of pixels that are not data: padding, nodata, masked


def stored_type(dtype):
    """The name of the type in which tiles keep pixels of a type."""
    return dtype if dtype in STORED else "float32"


def fits_png(dtype, bands):
    """Whether a PNG holds such pixels without loss."""
    return (dtype == "uint8" and bands in (1, 3, 4)) or (dtype == "uint16" and bands == 1)


def tile_name(image, x0, y0):
    """`tile_<imageIndex>_<x0>_<y0>`, the files' names without suffix."""
    return f"tile_{image}_{x0}_{y0}"


def encode(pixels, form):
    """Bytes of a file of pixels (C, H, W)."""
    buffer = io.BytesIO()
    if form == "npy":
        np.save(buffer, np.ascontiguousarray(pixels), allow_pickle=False)
    else:
        bands = [Image.fromarray(np.ascontiguousarray(band)) for band in pixels]
        picture = bands[0] if len(bands) == 1 else Image.merge("RGB" if len(bands) == 3 else "RGBA", bands)
        picture.save(buffer, "PNG", compress_level=COMPRESSION)
    return buffer.getvalue()


def write_bytes(path, content):
    with atomic_path(path, sync=False) as temporary:
        temporary.write_bytes(content)


def read_pixels(path, shape, dtype):
    """(C, H, W) of a tile's file. BadArray where it is not what it has to be: no more memory is taken than `shape` needs."""
    if os.fspath(path).endswith(".npy"):
        pixels = read_array(path)
    else:
        pixels = read_png(path, shape)
    if pixels.shape != shape or pixels.dtype != dtype:
        raise BadArray(f"expected {dtype} {shape}, found {pixels.dtype} {pixels.shape}")
    return pixels


MODES = {("L", 1), ("RGB", 3), ("RGBA", 4), ("I;16", 1)}


def read_png(path, shape):
    try:
        with Image.open(path, formats=("PNG",)) as picture:
            if picture.size != shape[:0:-1] or (picture.mode, shape[0]) not in MODES:
                raise BadArray(f"expected {shape[0]} bands of {shape[2]}×{shape[1]} pixels, found {picture.mode} of {picture.size}")
            values = np.asarray(picture)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadArray(" ".join(str(error).split())[:160] or type(error).__name__) from error
    return values[None] if values.ndim == 2 else values.transpose(2, 0, 1)


def sums_of(pixels, valid):
    """(pixels that count, [sum a band], [sum of squares a band]) in stored units. valid: (H, W) bool, or None for all."""
    if pixels.dtype == np.uint8 and valid is None:  # by how often each value is there: a third of the time
        counts = np.array([Image.fromarray(np.ascontiguousarray(band)).histogram() for band in pixels])
        levels = np.arange(256)
        return pixels[0].size, (counts @ levels).astype(float).tolist(), (counts @ levels**2).astype(float).tolist()
    values = pixels.reshape(len(pixels), -1) if valid is None else pixels[:, valid]
    values = values.astype(np.float64)
    return values.shape[1], values.sum(axis=1).tolist(), np.einsum("ij,ij->i", values, values).tolist()
