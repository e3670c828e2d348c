"""Pictures (H, W, 3) uint8 as PNG, JPEG and `data:` addresses."""

import base64
import io

from PIL import Image

from runtime.files import atomic_path


def png_bytes(picture):
    """A picture as PNG, lossless. Fast compression: a tenth larger than could be, in a twentieth of the time."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def jpeg_bytes(picture, quality=86):
    """A picture as JPEG: a tenth of the size of a PNG. Colour is kept at full resolution, so that edges in coloured maps stay sharp."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality, subsampling=0, optimize=True, progressive=True)
    return buffer.getvalue()


def data_uri(content, kind):
    """Bytes as a `data:` address, to put a picture into a page. kind: "image/png", "image/jpeg" …"""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def save_png(path, picture):
    """Write a picture as PNG, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(png_bytes(picture))
