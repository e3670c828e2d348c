"""Whether reflectance can be that of a scene: tells what a wrong scale makes of it from what water, snow and deserts do."""

import numpy as np

from constants import band_role

TIMES = 4.0  # brighter or darker than usual: bands of fifteen fires over the mean of all are within 0.5 … 1.8, over each other within 3.6
VISIBLE_TIMES = 8.0  # darker than usual in visible light alone: dense forest is up to 7 times darker than a desert
DARKEST = 0.06  # median reflectance that the brightest band of a scene has at least, unless it is water: shadow, lava
FAR = 30.0  # times darker, where there is one band only, or where what is usual is not known
TYPICAL = 0.1  # reflectance, where what is usual is not known
BRIGHTEST = 1.2  # median reflectance of fresh snow or cloud is below 1
VISIBLE, INFRARED = ("blue", "green", "red"), ("nir", "narrow_nir", "swir1", "swir2")
WATER = 0.01  # reflectance of blue or green that deep water has at least
SHOWN = 4  # bands that a message names


def judge(names, medians, usual=None, scales=()):
    """
    ([bands that a wrong scale has made], [other bands that are unlike the usual]), zero-based positions.

    names, medians: of the bands; reflectance. usual: mean reflectance of the bands in the images of the training, or None. scales: lists
    with an entry a band; bands whose entries are alike share a scale, and would be wrong together.

    A wrong scale makes every band that has it brighter, or every one darker, and nature does not: snow is bright in visible light and
    dark in the infrared beyond 1.5 µm, water is dark in the infrared, forest in red and blue. A median above BRIGHTEST is wrong by itself.
    """
    medians, count = np.maximum(np.asarray(medians, dtype=float), 0), len(names)
    times = TIMES if usual is not None and count > 1 else FAR
    usual = np.full(count, TYPICAL) if usual is None else np.asarray(usual, dtype=float)
    known = usual > 1e-4
    ratios = medians / np.where(known, usual, 1)
    roles = np.array([band_role(name) or "" for name in names])
    visible, infrared = np.isin(roles, VISIBLE), np.isin(roles, INFRARED)
    wrong = medians > np.maximum(BRIGHTEST, 2 * usual)
    for together in [known, *groups_of(scales, known)]:
        if (ratios[together] > times).all() and not is_white(medians[together], visible[together]):
            wrong |= together
        floor = DARKEST if together.sum() == known.sum() and usual.max() <= BRIGHTEST else np.inf
        is_dark = (ratios[together] < 1 / times).all() and medians[together].max(initial=0) < floor
        if is_dark and not is_water(medians, roles, together):
            wrong |= together
    visible, infrared = visible & known, infrared & known
    if visible.sum() > 1 and infrared.any() and ratios[visible].max() < 1 / VISIBLE_TIMES and ratios[infrared].min() > 0.5:
        wrong |= visible
    if infrared.sum() > 1 and ratios[infrared].min() > times:
        wrong |= infrared
    odd = known & ~wrong & ((ratios > times) | (ratios < 1 / times))
    return np.flatnonzero(wrong).tolist(), np.flatnonzero(odd).tolist()


def groups_of(scales, known):
    """Bool arrays (C,) of the known bands that share a scale: groups of two or more that are not all of them."""
    for one_a_band in scales:
        for key in dict.fromkeys(one_a_band):
            together = np.array([each == key for each in one_a_band]) & known
            if 1 < together.sum() < known.sum():
                yield together


def is_white(medians, visible):
    """Whether bands are those of snow or cloud in visible light: about equal, and not brighter than white."""
    return visible.all() and medians.max() <= 1 and medians.max() < 1.5 * medians.min()


def is_water(medians, roles, together):
    """Whether the bands `together`, which are all dark, are dark as water is: in the infrared alone, or more so than in blue or green."""
    infrared = np.isin(roles, INFRARED) & together
    if not infrared.any():
        return False
    bluish = np.isin(roles, ("blue", "green")) & together
    if not bluish.any():
        return bool((infrared == together).all()) and not infrared.sum() == len(roles)
    return bool(medians[bluish].max() >= max(WATER, medians[infrared].max()))


def band_figures(names, medians, usual, bands):
    """`B4 4.51 (training 0.507), B3 …` of some bands (zero-based), the first few of them."""
    means = [None] * len(names) if usual is None else usual
    words = [f"{names[b]} {figure(medians[b])}" + ("" if means[b] is None else f" (training {figure(means[b])})") for b in bands[:SHOWN]]
    return ", ".join(words) + (f" and {len(bands) - SHOWN} more" if len(bands) > SHOWN else "")


def figure(number):
    """Three digits, or all before the point."""
    return f"{number:.0f}" if abs(number) >= 1000 else f"{number:.3g}"
