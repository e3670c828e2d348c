"""A contact sheet of pan/ms chips beside what a network makes of them."""

import numpy as np

from pictures.brightness import OKLAB, PAN, gain_for, middle, show_light
from pictures.overlays import probability_picture
from pictures.sheets import contact_sheet
from raster.colour import bands_to_oklab

SIDE = 256  # pixels of a picture
TITLES = ["pan", "ms", "sharpened", "truth"]
ERROR_TITLE = {"bands": "error, 0 to 1 deviation", "oklab": "error, 0 to 10 JND"}
JND_AT_FULL = 10.0  # just noticeable differences that are shown at full brightness


def pan_sheet(chips, target, bands, spread, names):
    """
    One picture (H, W, 3) uint8: a chip a row; pan, ms enlarged, sharpened, truth, error. Of large chips the middle is shown.

    chips: [(pan (1, S, S), mul (C, s, s) reflectance, sharpened, truth (C or 3, S, S), valid (1, S, S) bool or None)], float32 tensors;
    spread: (C or 3, 1, 1), a standard deviation a channel of the target. names: a caption each.
    """
    shown = OKLAB if target == "oklab" else bands
    rows = []
    for pan, mul, sharpened, truth, valid in chips:
        ratio = pan.shape[-1] // mul.shape[-1]
        wide = mul.repeat_interleave(ratio, 1).repeat_interleave(ratio, 2)
        if target == "oklab":
            wide = bands_to_oklab(wide, bands)
        pan, wide, sharpened, truth = (middle(x, SIDE).numpy() for x in (pan, wide, sharpened, truth))
        valid = None if valid is None else middle(valid, SIDE)[0].numpy()
        gain = gain_for(truth, shown)
        colours = [show_light(image, shown, gain) for image in (wide, sharpened, truth)]
        error = error_of_pixels(sharpened, truth, target, spread)
        rows.append([show_light(pan, PAN, gain_for(pan, PAN)), *colours, probability_picture(error, valid)])
    return contact_sheet(rows, [*TITLES, ERROR_TITLE[target]], names, side=SIDE)


def error_of_pixels(sharpened, truth, target, spread):
    """(H, W), 0 to 1 or more. Bands: mean error in standard deviations of each band; Oklab: colour difference, 1 is JND_AT_FULL."""
    difference = sharpened - truth
    if target == "oklab":
        return np.sqrt((difference**2 * np.array([1, 4, 4], np.float32)[:, None, None]).sum(0)) * (50 / JND_AT_FULL)
    return (np.abs(difference) / spread).mean(0)
