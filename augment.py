"""
Augmentation as batched tensor operations on the training device: patches in their stored form become reflectance, turned and disturbed.

Its own file, since neither the dataset (which only reads) nor the model (which must not know) is the place. What happens to a
batch is drawn on the CPU from (seed, epoch, step) for the whole global batch; each process applies its own rows. So the batches
are the same for any number of workers and processes, and a run that is resumed inside an epoch draws what it would have drawn.
"""

import dataclasses
import functools

import numpy as np
import torch

from constants import IGNORE
from raster.scale import to_reflectance
from runtime.device import derived_seed


@dataclasses.dataclass(frozen=True)
class Policy:
    """
    How strongly patches are changed. `*_chance`: probability for each patch, 0..1.

    gain: each band times 1 ± gain (uniform). offset: each band plus ± offset, in reflectance. noise: Gaussian with a standard
    deviation drawn uniformly from 0..noise, in reflectance, for every pixel and band.
    """

    flip_chance: float = 0.5
    turn_chance: float = 0.5
    spectral_chance: float = 0.3
    gain: float = 0.10
    offset: float = 0.01
    noise_chance: float = 0.3
    noise: float = 0.01


NOTHING = Policy(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
STANDARD = Policy()
STRONG = Policy(flip_chance=0.7, turn_chance=0.7, spectral_chance=0.5, gain=0.15, offset=0.02, noise_chance=0.5, noise=0.02)


@dataclasses.dataclass(frozen=True)
class Draws:
    """What happens to each patch of a batch: arrays whose first axis is the patch."""

    flip: np.ndarray  # (B, 2) bool: left-right, up-down
    turns: np.ndarray  # (B,) quarter turns, 0..3
    corner: np.ndarray  # (B, 2) row and column of the crop
    gain: np.ndarray  # (B, C) factors
    offset: np.ndarray  # (B, C) reflectance
    noise: np.ndarray  # (B,) standard deviation, reflectance
    noise_seed: np.ndarray  # (B,)
    size: int  # side of the crop, 0 for the whole patch
    pasted: np.ndarray  # (B, 4) top, left, height, width of the rectangle that is another patch's; 0 high and wide: none

    def rows(self, part):
        """The draws of some patches of the batch. part: a slice."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return Draws(**{name: value[part] if isinstance(value, np.ndarray) else value for name, value in fields.items()})


def draw(policies, bands, height, width, seed, epoch, step, crop=0, cutmix=0.0):
    """
    Draws for a batch. policies: one Policy for each patch; the stream of random numbers does not depend on which. cutmix: probability that
    a rectangle of a patch is another's.
    """
    count = len(policies)
    random = np.random.default_rng(derived_seed(seed, epoch, step))
    limit = {name: np.array([getattr(p, name) for p in policies]) for name in ("gain", "offset", "noise")}
    happens = {name: np.array([getattr(p, f"{name}_chance") for p in policies]) for name in ("flip", "turn", "spectral", "noise")}
    flip = random.random((count, 2)) < happens["flip"][:, None]
    turns = np.where(random.random(count) < happens["turn"], random.integers(1, 4, count), 0)
    if height != width and not crop:
        turns = turns // 2 * 2  # a batch has one shape
    spectral = (random.random(count) < happens["spectral"])[:, None]
    gain = 1.0 + spectral * limit["gain"][:, None] * random.uniform(-1.0, 1.0, (count, bands))
    offset = spectral * limit["offset"][:, None] * random.uniform(-1.0, 1.0, (count, bands))
    noise = (random.random(count) < happens["noise"]) * limit["noise"] * random.random(count)
    noise_seed = random.integers(0, 2**62, count)
    corner = np.stack([random.integers(0, side - min(crop or side, side) + 1, count) for side in (height, width)], axis=1)
    pasted = draw_rectangles(random, count, [min(crop or side, side) for side in (height, width)], cutmix)
    return Draws(flip, turns, corner, gain, offset, noise, noise_seed, crop, pasted)


def draw_rectangles(random, count, sides, chance):
    """(count, 4) top, left, height, width inside (height, width) = sides; their share of the area is even over 0..1, 0 where none is."""
    happens, share, place = random.random(count) < chance, random.random(count), random.random((count, 2))
    extent = np.rint(np.sqrt(share * happens)[:, None] * sides).astype(int)
    return np.concatenate([np.floor(place * (np.array(sides) - extent + 1)).astype(int), extent], axis=1)


@functools.lru_cache
def scale_on(device, divide_by, offset):
    """Two tuples of one number a band as (C,) float32 tensors on the device, sent there once."""
    return tuple(torch.tensor(numbers, dtype=torch.float32, device=device) for numbers in (divide_by, offset))


@functools.lru_cache
def nodata_values(offset, dtype):
    """
    What make-patches stores for nodata, one number a band: the one nearest to reflectance 0. None where it becomes exactly 0 by itself
    (Landsat's would be 7272.73). offset: tuple; dtype: of the stored images.
    """
    if dtype.is_floating_point:
        return None
    limits = torch.iinfo(dtype)
    values = tuple(min(max(round(-number), limits.min), limits.max) for number in offset)
    return None if all(value == -number for value, number in zip(values, offset, strict=True)) else values


def known(labels):
    """Where labels say something: bool of their shape. 255 and NaN mean ignore."""
    return labels.isfinite() if labels.is_floating_point() else labels != IGNORE


def prepare(images, masks, divide_by, offset, draws=None, nodata=None):
    """
    Stored patches → what the network is trained on.

    images: (B, C, H, W) uint8, uint16, int16 or float32, as stored. masks: (B, H, W) uint8, or float32 in which NaN means ignore.
    divide_by, offset: (C,) float32. All on one device. → (reflectance float32 (B, C, h, w), masks of their type (B, h, w)), where h = w =
    the crop's side if there is one.
    Pixels that are not finite (only float patches can have them) become 0 and are ignored. Nodata is 0, as in a map: ignored pixels that
    have the values `nodata` (nodata_values) become 0 too.
    """
    stored = images.dtype
    if draws is not None:
        images, masks = move(images, masks, draws)
    reflectance = to_reflectance(images.to(torch.float32), divide_by, offset)
    if stored.is_floating_point:
        reflectance, masks = drop_not_finite(reflectance, masks)
    if nodata is not None:
        is_nodata = ~known(masks)
        for band, value in enumerate(nodata):
            is_nodata &= images[:, band] == value
        reflectance.masked_fill_(is_nodata[:, None], 0.0)
    if draws is None:
        return reflectance, masks
    return paste(disturb(reflectance, draws), masks, draws.pasted)


def paste(images, masks, rectangles):
    """
    CutMix (Yun et al. 2019): rectangles of each patch become those of the patch half a batch further, labels and ignored pixels included.

    images: (B, C, H, W). masks: (B, H, W). rectangles: see Draws. Half a batch further is the same patch for any number of processes that
    a batch can be dealt out to in pairs.
    """
    if not rectangles.any():
        return images, masks
    others, half = (images.clone(), masks.clone()), len(images) // 2
    for i, (top, left, high, wide) in enumerate(rectangles.tolist()):
        there = (..., slice(top, top + high), slice(left, left + wide))
        for target, source in zip((images, masks), others, strict=True):
            target[i][there] = source[(i + half) % len(images)][there]
    return images, masks


def move(images, masks, draws):
    """Crop, turn and flip each patch. One copy per patch, which also turns the stored type into float32."""
    count, bands, height, width = images.shape
    high, wide = (min(draws.size, height), min(draws.size, width)) if draws.size else (height, width)
    moved = torch.empty((count, bands, high, wide), dtype=torch.float32, device=images.device)
    moved_masks = torch.empty((count, high, wide), dtype=masks.dtype, device=masks.device)
    for i in range(count):
        row, column = (int(v) for v in draws.corner[i])
        axes = [axis for axis, wanted in zip((-1, -2), draws.flip[i], strict=True) if wanted]
        for source, target in ((images, moved), (masks, moved_masks)):
            part = source[i, ..., row : row + high, column : column + wide]
            if source.dtype == torch.uint16:  # flipping and turning is not there for uint16 on every device; its bits as int16 are fine
                part = part.view(torch.int16)
            part = torch.rot90(part, int(draws.turns[i]), (-2, -1))
            part = part.flip(axes) if axes else part
            target[i].copy_(part.view(torch.uint16) if source.dtype == torch.uint16 else part)
    return moved, moved_masks


def drop_not_finite(reflectance, masks):
    """Pixels with NaN or infinity in any band: reflectance 0, label ignore."""
    finite = torch.isfinite(reflectance).all(dim=1)
    return torch.where(finite[:, None], reflectance, 0.0), torch.where(finite, masks, float("nan") if masks.is_floating_point() else IGNORE)


def disturb(reflectance, draws):
    """Gain, offset and noise, in place. Pixels that are 0 in all bands are nodata, and stay 0 as in a map."""
    device = reflectance.device
    is_nodata = (reflectance == 0).all(dim=1, keepdim=True)
    changed = (draws.gain != 1.0).any() or (draws.offset != 0.0).any()
    if changed:
        gain, offset = (torch.from_numpy(v).to(device, torch.float32)[:, :, None, None] for v in (draws.gain, draws.offset))
        reflectance.mul_(gain).add_(offset)
    for i in np.flatnonzero(draws.noise):
        generator = torch.Generator(device).manual_seed(int(draws.noise_seed[i]))
        noise = torch.randn(reflectance.shape[1:], generator=generator, device=device)
        reflectance[i].add_(noise, alpha=float(draws.noise[i]))
    return reflectance.masked_fill_(is_nodata, 0.0)
