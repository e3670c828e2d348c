"""Inputs of a sensor that a network was not trained on, brought to the mean and contrast of its training, and its output brought back.

A network learns how much of pan's detail a band takes at the values that it saw. Pan and each band get their own x -> gain * x + offset,
the same for a whole raster, so that blocks and resumed runs agree.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

from pansharpening.blocks import read_block, reading_errors
from pansharpening.classical import SHADOW
from raster.pair import PairReader
from raster.resampling import reduce_box
from runtime.errors import UserError

UNLIKE = 2.0  # times: from there on, in mean or contrast, inputs are those of another sensor; scenes of one sensor differ by less
FLAT = 2.5  # times less contrast for its brightness than the training: such haze is not matched, which did not help where it was tried
DARK = 0.01  # the share of pixels that may become darker than the shadow of the training
GRID, SIDE = 8, 32  # windows along a side of the raster that are looked at, and ms pixels of theirs


@dataclass(frozen=True)
class Statistics:
    """Of pan and each band of ms, in this order: mean, standard deviation; dark: what a share DARK of the pixels is below, or None."""

    mean: np.ndarray
    std: np.ndarray
    dark: np.ndarray | None = None


def training_statistics(checkpoint):
    """The Statistics of the chips that a checkpoint was trained on, None where it does not say."""
    kept = checkpoint["data"].get("statistics")
    weights = checkpoint["state"].get("model") or {}
    if kept is None and "ms_mean" in weights and "pan_std" in weights:  # every checkpoint has them, an .onnx of before has not
        kept = {name: [weights[f"{name}_{what}"].flatten().tolist() for what in ("mean", "std")] for name in ("pan", "ms")}
    try:
        mean, std = (np.array([*kept["pan"][i], *kept["ms"][i]], np.float64) for i in range(2))
    except (KeyError, TypeError, ValueError, IndexError):
        return None
    fits = mean.shape == std.shape == (len(checkpoint["data"]["bands"]) + 1,) and np.isfinite([mean, std]).all()
    return Statistics(mean, std) if fits and (mean > 0).all() and (std > 0).all() else None


def statistics_of(pan, bands):
    """The Statistics of reflectance: pan (N,), bands (C, M)."""
    rows = [pan, *bands]
    return Statistics(*(np.array([of(row) for row in rows]) for of in (np.mean, np.std, lambda row: np.quantile(row, DARK))))


def pair_statistics(pair, scale):
    """
    The Statistics of a Pair in windows spread over it, None where none of them is valid. scale: (divide_by, offset).

    Pan and ms are reduced by their ratio first, as they are for training: pixels as fine as they come have more contrast.
    """
    left, top, width, height = pair.area
    across, down = (min(SIDE, side // pair.ratio * pair.ratio) for side in (width, height))
    pans, bands = [], []
    if not across or not down:
        return None
    with PairReader(pair) as reader, reading_errors(pair):
        for row in places(height - down, pair.ratio):
            for column in places(width - across, pair.ratio):
                ms, pan, nodata = read_block(reader, (left + column, top + row, across, down), scale)
                here = reduce_box(nodata.float(), pair.ratio) == 0
                pans.append(reduce_box(pan, pair.ratio)[here].numpy())
                coarse = reduce_box(here.float(), pair.ratio)[0, 0] == 1
                bands.append(reduce_box(ms, pair.ratio)[0][:, coarse].numpy())
    pan, bands = np.concatenate(pans), np.concatenate(bands, axis=1)
    return statistics_of(pan, bands) if pan.size and bands.size else None


def places(room, ratio):
    """Where windows begin that may be moved by so many ms pixels: at pixels of the reduced image."""
    return sorted({int(place) // ratio * ratio for place in np.linspace(0, room, GRID)})


@dataclass(frozen=True)
class Matching:
    """
    gain, offset: of pan and each band of ms, in this order. brightness, contrast, flatness: of the inputs, in times of the training's;
    flatness is mean / standard deviation.
    """

    gain: np.ndarray
    offset: np.ndarray
    brightness: float
    contrast: float
    flatness: float

    @property
    def is_foreign(self):
        return max(abs(math.log(times)) for times in (self.brightness, self.contrast)) > math.log(UNLIKE)

    @property
    def is_needed(self):
        return self.is_foreign and self.flatness <= FLAT

    @property
    def words(self):
        return f"{self.brightness:.2g} times as bright as the training, {self.contrast:.2g} times the contrast"

    def inputs(self, ms, pan):
        """(ms, pan) as the network gets them: (B, C, h, w), (B, 1, H, W)."""
        gain, offset = self.of(ms)
        return ms * gain + offset, pan * float(self.gain[0]) + float(self.offset[0])

    def output(self, image):
        """The network's image (B, C, H, W) in the unit of the inputs."""
        gain, offset = self.of(image)
        return (image - offset) / gain

    def of(self, image):
        values = (torch.as_tensor(v[1:], dtype=image.dtype, device=image.device) for v in (self.gain, self.offset))
        return (v.view(1, -1, 1, 1) for v in values)


def match(scene, training):
    """
    The Matching of the Statistics of a scene with those of a training.

    Contrast becomes that of the training, but where dark pixels would come below its shadow it becomes less: what divides by pan needs
    light.
    """
    times = np.where(scene.std > 0, training.std / np.maximum(scene.std, 1e-9), 1.0)
    depth = scene.mean - scene.dark
    gain = np.minimum(times, (1 - SHADOW) * training.mean / np.maximum(depth, 1e-9))
    return Matching(gain, training.mean - gain * scene.mean, typical(scene.mean / training.mean), typical(1 / times),
                    typical(scene.mean / training.mean * times))


def typical(times):
    """One factor for several: as far from 1 as they are on average, on the side on which most of them are."""
    logs = np.log(np.clip(times, 1e-3, 1e3))
    return float(np.exp(math.copysign(np.abs(logs).mean(), np.median(logs))))


def require_matching(checkpoint):
    """UserError where a checkpoint (dict) is none whose inputs can be matched."""
    if checkpoint["data"]["target"] != "bands":
        raise UserError("--match-inputs yes is for networks that sharpen bands; this one makes pictures, in no unit of ms")
    if training_statistics(checkpoint) is None:
        raise UserError("--match-inputs yes: the checkpoint does not say which values it was trained on; train or export it again")


def matching_of(pair, checkpoint, scale, wanted, console, path):
    """
    The Matching of a Pair that a checkpoint (dict) sharpens, or None where its inputs stay as they are; what is done is said.

    scale: (divide_by, offset). wanted: "auto", "yes" or "no". path: what lines begin with. Reads pixels: RunError where it can't.
    """
    if wanted == "no" or checkpoint["data"]["target"] != "bands":
        return None
    training = training_statistics(checkpoint)
    if training is None:
        console.say(f"{path}: the checkpoint does not say which values it was trained on; these are taken as they are")
        return None
    scene = pair_statistics(pair, scale)
    if scene is None:
        console.say(f"{path}: too few valid pixels to match it to the training; left as it is")
        return None
    found = match(scene, training)
    if wanted == "auto" and not found.is_foreign:
        return None
    if wanted == "auto" and not found.is_needed:
        console.say(f"{path}: {found.words}: too flat to be matched to it, left as it is (--match-inputs yes: matched)")
        return None
    console.say(f"{path}: {found.words}; matched to it and back (--match-inputs no: as it is)")
    return found
