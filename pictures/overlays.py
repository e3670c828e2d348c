"""Classes, errors and probabilities drawn as pictures (H, W, 3) uint8."""

import numpy as np

from constants import IGNORE

NODATA_COLOUR = (128, 128, 128)

# A map compared with the truth: told apart with any kind of colour vision (Okabe and Ito, 2008), on a grey picture.
FOUND = (250, 250, 245)
MISSED = (226, 98, 0)
FALSE_ALARM = (0, 132, 208)

# A dark-to-bright scale whose lightness rises evenly, so that it also reads in grey print.
PROBABILITY_STOPS = ((0, 0, 4), (60, 15, 110), (140, 41, 129), (222, 73, 104), (254, 159, 109), (252, 253, 191))


def class_picture(classes, colours):
    """(H, W) integers -> picture. colours: one (r, g, b) for each class; 255 and unknown values are NODATA_COLOUR."""
    table = np.full((256, 3), NODATA_COLOUR, np.uint8)
    table[: len(colours)] = colours
    return table[np.where((classes >= 0) & (classes < len(colours)), classes, IGNORE).astype(np.uint8)]


def class_overlay(picture, classes, colours, opacity=0.6, first=1):
    """`picture` with every class from `first` on laid over it in its colour. classes: (H, W); 255 and unknown values stay as they are."""
    shown = (classes >= first) & (classes < len(colours))
    painted = picture.astype(np.float32)
    painted[shown] += opacity * (class_picture(classes, colours)[shown] - painted[shown])
    return np.rint(painted).astype(np.uint8)


def grey_background(picture):
    """`picture` in dark grey, as a background for coloured findings; its brightest pixel is still darker than NODATA_COLOUR."""
    grey = picture.astype(np.float32) @ np.array([0.30, 0.59, 0.11], np.float32)
    return np.repeat(np.rint(26 + 0.3 * grey).astype(np.uint8)[..., None], 3, axis=2)


def judge(truth, prediction):
    """(judged, true, mapped): (H, W) bool where both classes are known, where of those truth, where prediction is above 0."""
    judged = (truth != IGNORE) & (prediction != IGNORE)
    return judged, judged & (truth > 0), judged & (prediction > 0)


def error_picture(truth, prediction, background=None, class_set=None):
    """Where a map is right and wrong about class > 0: FOUND, MISSED, FALSE_ALARM; the rest is the background in grey, or dark.

    truth, prediction: (H, W) classes; where either is 255 nothing is judged. background: (H, W, 3) or None. class_set: ClassSet; of
    several classes, those that are wrong are MISSED, and those that are right FOUND where there is a background to tell them from.
    """
    dark = np.full((*truth.shape, 3), 40, np.uint8)
    picture = dark if background is None else grey_background(background)
    judged, true, mapped = judge(truth, prediction)
    if class_set is not None and class_set.is_several:
        if class_set.has_background:
            picture[judged & (truth == prediction) & (truth > 0)] = FOUND
        picture[judged & (truth != prediction)] = MISSED
    else:
        picture[true & mapped] = FOUND
        picture[true & ~mapped] = MISSED
        picture[mapped & ~true] = FALSE_ALARM
    picture[~judged] = NODATA_COLOUR
    return picture


def probability_picture(probability, valid=None):
    """(H, W) 0..1 -> dark (0) to bright (1). NaN, and pixels that are not `valid`, are nodata."""
    stops = np.array(PROBABILITY_STOPS, np.float32)
    known = np.isfinite(probability) if valid is None else valid & np.isfinite(probability)
    place = np.clip(np.nan_to_num(probability), 0, 1) * (len(stops) - 1)
    picture = np.stack([np.interp(place, np.arange(len(stops)), stops[:, c]) for c in range(3)], axis=-1)
    picture = np.rint(picture).astype(np.uint8)
    picture[~known] = NODATA_COLOUR
    return picture


def error_legend(class_set):
    """[(colour, words)] for a sheet with classes and errors: the classes that are mapped where there are more than two, then the errors."""
    names, first = class_set.names, class_set.first
    classes = tuple(zip(class_set.colours, names, strict=True))[first:] if len(names) > 2 else ()
    if class_set.is_several:
        right = ((FOUND, "right"),) if class_set.has_background else ()
        return (*classes, *right, (MISSED, "wrong class"), (NODATA_COLOUR, "not judged"))
    return (*classes, (FOUND, "found"), (MISSED, "missed"), (FALSE_ALARM, "marked in error"), (NODATA_COLOUR, "not judged"))
