"""Reads a frame of a camera as RGB of 8 bits, whatever its file holds: grey, palette, alpha, 16 bits, turned by its EXIF tag."""

import io
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from raster.cut_short import PNG, PNG_END
from runtime.errors import UserError, one_line
from runtime.files import require_regular

FORMATS = ("PNG", "JPEG", "MPO", "TIFF", "BMP", "WEBP", "JPEG2000")
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".jp2")
MOST_PIXELS = 1 << 28
ORIENTATION = 0x0112  # the EXIF tag
SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N")


class BadFrame(UserError):
    """A file that cannot be read as a frame. The message says why."""


def read_frame(path, turn=True):
    """(h, w, 3) uint8 of a file. turn: upright as its EXIF tag asks, else as stored. BadFrame where it cannot be read."""
    return np.asarray(decode_frame(read_content(path), str(path), turn)[0])


def read_content(path):
    """The bytes of a file. BadFrame where there is none."""
    try:
        require_regular(path)
        return Path(path).read_bytes()
    except OSError as error:
        raise BadFrame(f"{path} cannot be read ({error.strerror or one_line(error)}); expected a picture") from error


@contextmanager
def picture_of(content, name):
    """The Pillow image of the bytes of a file, not yet decoded. What goes wrong within is a BadFrame."""
    try:
        if content[:8] == PNG and PNG_END not in content[-(1 << 16) :]:
            raise OSError("a PNG without its end")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what is odd in a file that can be read
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise OSError(f"{image.width}×{image.height} pixels are too many")
                yield image
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises nearly anything for a damaged file
        raise BadFrame(f"{name} cannot be read as a picture ({one_line(error)[:100]}); expected PNG, JPEG or TIFF") from error


def decode_frame(content, name, turn=True):
    """
    (Pillow image in RGB, whether it was converted or turned) of the bytes of a file. name: for messages.

    Colours come from palettes, grey is repeated, alpha is left out, and of 16 bits the upper eight count.
    """
    with picture_of(content, name) as image:
        turned = turn and image.getexif().get(ORIENTATION, 1) in range(2, 9)
        plain = image.mode == "RGB"
        found = as_rgb(ImageOps.exif_transpose(image) if turned else image)
        found.load()  # a file may be damaged at its end
        return found, turned or not plain


def decode_values(content, name):
    """(h, w) uint8 of a picture that holds one value a pixel: grey, indices of a palette, or colours, of which the brightest counts."""
    with picture_of(content, name) as image:
        if image.mode in ("L", "P", "1"):
            return np.asarray(image.convert("L") if image.mode == "1" else image).astype(np.uint8)
        if image.mode in SIXTEEN_BITS:
            values = np.asarray(image)
            return (values if values.max(initial=0) < 256 else values >> 8).astype(np.uint8)
        return np.asarray(as_rgb(image)).max(axis=2)


def as_rgb(image):
    """A Pillow image of any mode that holds colours or grey in RGB."""
    if image.mode in SIXTEEN_BITS:
        image = Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    if image.mode in ("F", "I"):
        raise OSError("numbers of 32 bits")
    return image if image.mode == "RGB" else image.convert("RGB")
