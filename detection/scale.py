"""Stored tiles → what a detector sees."""

from raster.scale import to_reflectance


def to_input(images, divide_by, offset):
    """
    (B, C, H, W) as stored → float32 (stored + offset) / divide_by. divide_by, offset: (C,) float32 on the device of the images.

    Pixels that are 0 in all bands are nodata or padding, and stay 0.
    """
    values = to_reflectance(images.float(), divide_by, offset)
    return values.masked_fill((images == 0).all(dim=1, keepdim=True), 0.0)
