"""A contact sheet of pan/ms chips beside what a network makes of them: what train_pansharpen.py leaves after each best epoch."""

import numpy as np

from pansharpening.gallery import middle, pictures
from pictures.pictures import contact_sheet, probability_picture
from raster.colour import bands_to_oklab

TITLES = ["pan", "ms", "sharpened", "truth"]
ERROR_TITLE = {"bands": "error, 0 to 1 deviation", "oklab": "error, 0 to 10 JND"}
JND_AT_FULL = 10.0  # just noticeable differences that are shown at full brightness


def pan_sheet(chips, target, bands, spread, names):
    """
    One picture (H, W, 3) uint8: a line a chip; pan, ms enlarged, sharpened, truth, error. Of large chips the middle is shown.

    chips: [(pan (1, S, S), mul (C, s, s) reflectance, sharpened, truth (C or 3, S, S), valid (1, S, S) bool or None)], float32 tensors;
    spread: (C or 3, 1, 1), a standard deviation a channel of the target. names: a caption each.
    """
    rows = []
    for pan, mul, sharpened, truth, valid in chips:
        ratio = pan.shape[-1] // mul.shape[-1]
        wide = mul.repeat_interleave(ratio, 1).repeat_interleave(ratio, 2)
        if target == "oklab":
            wide = bands_to_oklab(wide, bands)
        grey, wide, sharpened, truth = (middle(x) for x in (pan, wide, sharpened, truth))
        valid = None if valid is None else middle(valid)[0]
        error = error_of_pixels(sharpened, truth, target, spread)
        rows.append([grey_picture(grey[0]), *pictures([wide, sharpened, truth], target, bands), probability_picture(error, valid)])
    return contact_sheet(rows, [*TITLES, ERROR_TITLE[target]], names, side=256)


def error_of_pixels(sharpened, truth, target, spread):
    """(H, W), 0 to 1 or more. Bands: mean error in standard deviations of each band; Oklab: colour difference, 1 is JND_AT_FULL."""
    difference = sharpened - truth
    if target == "oklab":
        return np.sqrt((difference**2 * np.array([1, 4, 4], np.float32)[:, None, None]).sum(0)) * (50 / JND_AT_FULL)
    return (np.abs(difference) / spread).mean(0)


def grey_picture(pan):
    """(H, W) reflectance -> picture; its 98th percentile is nearly white."""
    shade = np.clip(pan / max(float(np.percentile(pan, 98)), 1e-4), 0, 1) ** (1 / 2.2)
    return np.repeat((shade * 255 + 0.5).astype(np.uint8)[..., None], 3, axis=2)
