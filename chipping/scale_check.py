"""Checks before anything is cut that what scale and offset make of each scene can be reflectance."""

import numpy as np

from raster.plausible import band_figures, judge
from raster.sample import sample_values
from raster.scale import to_reflectance
from runtime.errors import UserError


def check_reflectance(scenes, names, scale):
    """
    UserError where a sample of a scene's reflectance is too bright or too dark to be any. names: of the bands. scale: raster.scale.Scale.

    A scene of which the sample has no pixel passes.
    """
    for scene in scenes:
        try:
            values = sample_values(scene.image, [b + 1 for b in scene.bands], scene.nodata, scene.masked)
        except UserError:
            continue  # it can no longer be opened: counted window by window
        if values.shape[1] == 0:
            continue
        stored = np.median(values, axis=1)[:, None, None] + np.array(scene.shift)[:, None, None]
        medians = to_reflectance(stored, scale.divide_by, scale.offset).ravel()
        wrong, _ = judge(names, medians)
        if wrong:
            raise UserError(f"{scene.image}: median {band_figures(names, medians, None, wrong)} is not reflectance with this scale; pass "
                            "--divide-by and --offset (see docs/data.md), or --accept-scale")
