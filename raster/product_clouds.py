"""Cloud layers of products as one form: 0 clear, 1 cloud, 2 thin cloud, 3 shadow, 255 not known (constants.CLOUD_CLASSES)."""

import numpy as np

from constants import IGNORE

CLOUD, THIN, SHADOW = 1, 2, 3


def of_scl(bands):
    """Sentinel-2 L2A scene classification: 3 shadow, 8 and 9 cloud, 10 cirrus, 0 no data."""
    table = np.zeros(256, np.uint8)
    table[[3, 8, 9, 10, 0]] = SHADOW, CLOUD, CLOUD, THIN, IGNORE
    return table[bands[0].astype(np.uint8)]


def of_msk_classi(bands):
    """Sentinel-2 L1C: bands of opaque cloud and of cirrus, 1 where there is some."""
    return np.where(bands[0] == 1, CLOUD, np.where(bands[1] == 1, THIN, 0)).astype(np.uint8)


def of_bits(cloud, thin, shadow, unknown):
    """A function for bit-packed layers: bits from 0; unknown(values) → bool."""

    def decode(bands):
        values = bands[0].astype(np.int64)
        classes = np.zeros(values.shape, np.uint8)
        for bits, value in ((shadow, SHADOW), (thin, THIN), (cloud, CLOUD)):  # the last one wins
            classes[values & sum(1 << bit for bit in bits) != 0] = value
        classes[unknown(values)] = IGNORE
        return classes

    return decode


def of_udm2(bands):
    """Planet's usable data mask: clear, snow, shadow, light haze, heavy haze, cloud, …; the last band is what cannot be used."""
    clear, _, shadow, light, heavy, cloud = (band == 1 for band in bands[:6])
    classes = np.where(cloud | heavy, CLOUD, np.where(light, THIN, np.where(shadow, SHADOW, 0)))
    known = clear | cloud | heavy | light | shadow | (bands[1] == 1)
    return np.where(known, classes, IGNORE).astype(np.uint8)


def of_classes(bands):
    """What is read in these classes already."""
    return bands[0].astype(np.uint8)


# form: (how many bands of it are read, from the first; what they mean; in words)
FORMS = {
    "scl": (1, of_scl, "SCL: 3 shadow, 8 and 9 cloud, 10 cirrus"),
    "msk_classi": (2, of_msk_classi, "MSK_CLASSI: opaque cloud and cirrus"),
    "msk_clouds": (1, of_classes, "MSK_CLOUDS: polygons of opaque cloud and cirrus"),
    "qa_pixel": (1, of_bits((1, 3), (2,), (4,), lambda v: v & 1 != 0), "QA_PIXEL: dilated cloud and cloud, cirrus, shadow (bits 1 to 4)"),
    "fmask": (1, of_bits((1, 2), (), (3,), lambda v: v == 255), "Fmask: cloud, next to it, shadow (bits 1 to 3)"),
    "udm2": (6, of_udm2, "udm2: cloud and heavy haze, light haze, shadow"),
}
