"""Stored pixels of any type as pictures: bytes as they are, other values stretched over all pictures of a sheet."""

import numpy as np

from pictures.stretch import choose_composites, measure_stretch, stretch


def stretch_of(dtype, arrays):
    """(lows, tops) a band: all that a byte holds for 8-bit pictures, else what is measured on the arrays (C, h, w)."""
    if np.dtype(dtype) == np.uint8:
        return np.zeros(len(arrays[0])), np.full(len(arrays[0]), 255.0)
    values = np.concatenate([array.reshape(len(array), -1) for array in arrays], axis=1).astype(np.float64)
    return measure_stretch(values[:, np.isfinite(values).all(axis=0) & (values != 0).any(axis=0)])


def picture(values, names, lows, tops):
    """(C, h, w) as stored → (h, w, 3) uint8: natural colour, or the composite that the bands allow."""
    _, which = choose_composites(names)[0]
    return stretch(values[which].astype(np.float64), lows[which], tops[which], (1.0,) * 3)
