"""What every sharpened image is held to: reduced to the grid of ms it is ms again, and light is not negative.

    image: (B, C, ratio * h, ratio * w) sharpened bands; ms: (B, C, h, w), the image that they come from, in the same unit
"""

import torch.nn.functional as F

from raster.resampling import MS_GAIN, expand, reduce_mtf

BACK_PROJECTION_REACH = 5  # ms pixels: two of `expand`, and from there up to three of the filter of `reduce_mtf`
CUBIC_TAPS = 5  # ms pixels along a side that an enlarged pixel is made of


def finished(image, ms, target, ratio, back_projection):
    """What is kept of a sharpener's image. Pictures (target "oklab") are not in the unit of ms, and stay as they are."""
    if target != "bands":
        return image
    return not_below_zero(back_projected(image, ms, ratio) if back_projection else image, ms, ratio)


def back_projected(image, ms, ratio, gain=MS_GAIN):
    """The image plus what ms has and the image, seen by a sensor as coarse as that of ms, lacks. gain: of that sensor at Nyquist."""
    return image + expand(ms - reduce_mtf(image, ratio, gain), ratio)


def not_below_zero(image, ms, ratio):
    """The image with 0 for less, but where ms itself is negative nearby, as surface reflectance over water may be."""
    if not (image < 0).any():
        return image
    lowest = -F.max_pool2d(-ms, CUBIC_TAPS, stride=1, padding=CUBIC_TAPS // 2)
    allowed = (lowest < 0).repeat_interleave(ratio, 2).repeat_interleave(ratio, 3)
    return image.where(allowed, image.clamp(min=0))
