"""How far ms lies from where the files of a pair say: phase correlation with low-pass pan, in several windows.

Both images are compared on the grid of ms, where they are alike: pan blurred as the sensor of ms blurs, and the blend of bands that is
nearest to it. A shift is read off the phases of those frequencies that the blur leaves, to a fraction of an ms pixel; then pan is read
anew with that shift, until nothing is left of it.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from raster.nodata import is_nodata
from raster.pair import PairReader
from raster.resampling import MS_GAIN, reduce_mtf
from raster.source import describe

SIDE = 64  # ms pixels of a window
MOST_WINDOWS = 5  # along each side of the image
LEAST = 24  # ms pixels: a smaller image says nothing
HIGHEST = 0.35  # cycles per ms pixel: above it aliasing has phases of its own
FINE = 64  # parts of an ms pixel to which the peak is looked for
FURTHEST = 8  # ms pixels: repeated houses or fields further away are not looked for
ROUNDS = 4
ENOUGH = 0.02  # ms pixels that a round may still find
LEAST_VALID = 0.9  # share of a window's ms pixels
LEAST_ALIKE = 0.3  # height of the peak: 1 is that of an image and itself; of real pairs it is 0.9


@dataclass(frozen=True)
class Shift:
    """
    x, y: pan pixels right and down, to be added to what the files say. spread: pan pixels, the typical disagreement of the windows
    (their median distance from the result). windows: how many had something to say.
    """

    x: float
    y: float
    spread: float
    windows: int


def estimate_shift(pair):
    """Shift of a Pair, None where the images have nothing in common that tells."""
    total, found = np.zeros(2), None
    for _ in range(ROUNDS):
        moved = replace(pair, shift=tuple(s + t for s, t in zip(pair.shift, total.tolist(), strict=True)))
        with PairReader(moved) as reader:
            steps = [step for window in windows_of(moved) if (step := shift_of_window(reader, window)) is not None]
        if not steps:
            return found
        steps = pair.ratio * np.array(steps)
        step = np.median(steps, axis=0)
        total += step
        found = Shift(*total.tolist(), float(np.median(np.hypot(*(steps - step).T))), len(steps))
        if np.abs(step).max() < ENOUGH * pair.ratio:
            break
    return found


def windows_of(pair):
    """[(column, row, width, height)] in ms pixels, spread over the part of ms that pan covers at the pair's shift."""
    pan, spans = describe(pair.pan), []
    for start, side, size, shift in zip(pair.area[:2], pair.area[2:], (pan.width, pan.height), pair.shift, strict=True):
        first, last = max(start, math.ceil(-shift / pair.ratio)), min(start + side, math.floor((size - shift) / pair.ratio))
        if last - first < LEAST:
            return []
        wide = min(SIDE, last - first)
        spans.append([(int(place), wide) for place in np.linspace(first, last - wide, min(MOST_WINDOWS, -(-(last - first) // wide)))])
    return [(column, row, width, height) for row, height in spans[1] for column, width in spans[0]]


def shift_of_window(reader, window):
    """(x, y) ms pixels by which pan shows later what ms shows, None where too little is valid or alike. reader: PairReader."""
    pair = reader.pair
    ms, pan = reader.read_ms(*window).astype(np.float32), reader.read_pan(*window).astype(np.float32)
    missing = is_nodata(pan, pair.nodata[0])[0].reshape(ms.shape[1], pair.ratio, ms.shape[2], pair.ratio).any((1, 3))
    valid = ~missing & ~is_nodata(ms, pair.nodata[1]).all(0)
    if valid.mean() < LEAST_VALID:
        return None
    pan[is_nodata(pan, pair.nodata[0])] = pan[~is_nodata(pan, pair.nodata[0])].mean()
    low = reduce_mtf(torch.from_numpy(pan)[None], pair.ratio, MS_GAIN)[0, 0].numpy().astype(np.float64)
    bands = np.concatenate([ms, np.ones_like(ms[:1])])[:, valid].astype(np.float64)
    weights = np.linalg.lstsq(bands.T, low[valid], rcond=None)[0]
    images = []
    for image in (np.tensordot(weights[:-1], ms, 1), low):
        images.append(np.where(valid, image - image[valid].mean(), 0))
    x, y, height = displacement(*images)
    return (x, y) if height >= LEAST_ALIKE else None


def displacement(one, other):
    """
    (x, y, height): how far right and down `other` (H, W) shows what `one` shows, in pixels, and the peak of their phase correlation.

    height: 1 for an image and itself; of images that have nothing to do with each other a few hundredths.
    """
    taper = np.outer(*(np.hanning(side + 2)[1:-1] for side in one.shape))
    cross = np.fft.fft2(other * taper) * np.conj(np.fft.fft2(one * taper))
    vertical, horizontal = np.fft.fftfreq(one.shape[0]), np.fft.fftfreq(one.shape[1])
    used = (np.hypot(vertical[:, None], horizontal) <= HIGHEST) & (np.abs(cross) > 0)
    if not used.any():
        return 0.0, 0.0, 0.0
    phases = np.where(used, cross / np.where(used, np.abs(cross), 1), 0) / used.sum()

    def surface(rows, columns):
        return (np.exp(2j * np.pi * np.outer(rows, vertical)) @ phases @ np.exp(2j * np.pi * np.outer(horizontal, columns))).real

    y = x = 0.0
    offsets = np.arange(-FURTHEST, FURTHEST + 1.0)
    for step in (1, 8, FINE):
        heights = surface(y + offsets / step, x + offsets / step)
        row, column = np.unravel_index(heights.argmax(), heights.shape)
        y, x = y + offsets[row] / step, x + offsets[column] / step
    return float(x), float(y), float(heights.max())
