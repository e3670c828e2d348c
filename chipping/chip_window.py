"""
Reduces a window of a pan/ms pair to the inputs and the truth of a chip.

The truth is the ms window itself or, with extra > 1, its box means of extra x extra pixels; `mul` is the truth reduced by the ratio of
pan to ms, `pan` the pan window reduced to the grid of the truth. ARD tiles are reduced by box means, which are exact and cheap; the extra
factor 2 hides that they alias. Small pairs have no pixels to spare for an extra factor, so there the filters imitate the sensors' blur
(Wald's protocol); with box means a network would learn from inputs sharper than any sensor delivers.

pan_chips.py, resampling.py and fill_nodata.py import torch, so they are imported where they are used: the parent of workers does without.
"""

from dataclasses import dataclass

import numpy as np

from raster.nodata import is_nodata
from raster.scale import to_reflectance

PIECE = 1 << 17  # samples that box_sum works on at a time: they and their sums stay in the processor's cache


@dataclass(frozen=True)
class ChipRecipe:
    """What decides a chip's bytes. chip_size: pixels of the truth. divide_by, offset: reflectance = (value + offset) / divide_by."""

    chip_size: int
    ratio: int
    bands: tuple
    extra: int = 2
    minimum_valid: float = 0.75
    sampler: str = "r2"
    reduction: str = "box"  # or "mtf"
    store: str = "bands"  # or "oklab", "both"
    dtype: str = "uint16"  # or "float32"
    divide_by: float = 10_000.0
    offset: float = 0.0

    @property
    def window(self):
        """ms pixels a side of a chip's window."""
        return self.chip_size * self.extra


# ---------------------------------------------------------------------------------------------- sums, means, nodata


def sum_type(dtype):
    """The type in which sums of box_sum stay exact (floats: nearly), for cells of up to 65 536 samples."""
    kind, size = np.dtype(dtype).kind, np.dtype(dtype).itemsize
    if kind == "f":
        return np.float64
    return np.int64 if kind == "i" else np.uint64 if size > 2 else np.uint32


def box_sum(values, side, dtype=None):
    """(C, H, W) -> (C, H // side, W // side) sums over cells of side x side; dtype: of the sums, by default the one of sum_type."""
    bands, height, width = (n // side for n in (values.shape[0] * side, *values.shape[1:]))
    out = np.empty((bands, height, width), dtype or sum_type(values.dtype))
    if side == 1:
        out[:] = values
        return out
    rows = max(1, PIECE // max(1, values.shape[2] * side))
    for band, sums in zip(values, out, strict=True):
        for top in range(0, height, rows):
            piece = band[top * side : min(height, top + rows) * side, : width * side]
            down = piece[::side].astype(out.dtype)
            for i in range(1, side):
                down += piece[i::side]
            target = sums[top : top + rows]
            np.add(down[:, ::side], down[:, 1::side], out=target)
            for i in range(2, side):
                target += down[:, i::side]
    return out


def mean_of_sums(total, count, recipe):
    """Sums of `count` stored values -> mean reflectance, float32, rounded once where there is no offset."""
    if recipe.offset == 0:
        means = total.astype(np.float32)
        means /= np.float32(count * recipe.divide_by)
        return means
    return to_reflectance(total / count, recipe.divide_by, recipe.offset).astype(np.float32)


def count_valid(values, nodata):
    """Number of the samples that are not nodata, over all bands."""
    if nodata in (None, 0) and values.dtype.kind != "f":
        return int(np.count_nonzero(values))
    return values.size - int(np.count_nonzero(is_nodata(values, nodata)))


def clean(values, nodata):
    """(values with 0 for nodata, (1, H, W) bool of pixels that are nodata in any band, or None where there is none)."""
    if count_valid(values, nodata) == values.size:
        return values, None
    mask = is_nodata(values, nodata)
    return np.where(mask, 0, values), mask.any(axis=0, keepdims=True)


def touched(mask, side):
    """(1, H, W) bool of nodata pixels -> (1, H / side, W / side): cells with a nodata pixel in them. None stays None."""
    return None if mask is None else box_sum(mask.view(np.uint8), side) > 0


def untrue(mask, extra, ratio):
    """(1, H, W) bool of nodata ms pixels -> the pixels of the truth that lie under a pixel of mul with one of them. None stays None."""
    return None if mask is None else touched(mask, extra * ratio).repeat(ratio, 1).repeat(ratio, 2)


def any_of(*masks):
    """The union of masks; None where no pixel is set."""
    masks = [mask for mask in masks if mask is not None and mask.any()]
    return np.logical_or.reduce(masks) if masks else None


# ---------------------------------------------------------------------------------------------- nodata beside valid pixels


def fill_nodata(values, nodata, fill):
    """clean(values, nodata), but with nodata filled: fill(image, mask) of torch tensors (1, C, H, W)."""
    cleaned, any_nodata = clean(values, nodata)
    if any_nodata is None:
        return values, None
    import torch

    mask = is_nodata(values, nodata)
    image = torch.from_numpy(cleaned.astype(np.float32))[None]
    filled = fill(image, torch.from_numpy(mask)[None])[0].numpy()
    filled = filled if values.dtype.kind == "f" else np.rint(filled)
    cleaned[mask] = filled[mask].astype(values.dtype)  # valid pixels, and all that is computed of them alone, keep every bit
    return cleaned, any_nodata


# ---------------------------------------------------------------------------------------------- ms and pan of a window


def margins(pair, recipe, left, top):
    """How far a window may reach beyond itself for the blur filters: (left, top, right, bottom) ms pixels, whole coarse pixels."""
    if recipe.reduction == "box":
        return 0, 0, 0, 0
    from raster.resampling import FILTER_BLOCKS

    unit = recipe.extra * recipe.ratio
    column, row, width, height = pair.area
    room = (left, top, width - left - recipe.window, height - top - recipe.window)
    return tuple(min(FILTER_BLOCKS * unit, r // unit * unit) for r in room)


def read_ms_window(reader, recipe, left, top):
    """(share of valid samples, ms values with margin or None where too few are valid). left, top: ms pixels within the pair's area."""
    pair = reader.pair
    m = margins(pair, recipe, left, top)
    column, row = pair.area[0] + left - m[0], pair.area[1] + top - m[1]
    ms = reader.read_ms(column, row, recipe.window + m[0] + m[2], recipe.window + m[1] + m[3])
    core = ms[:, m[1] : m[1] + recipe.window, m[0] : m[0] + recipe.window]
    share = count_valid(core, pair.nodata[1]) / core.size
    return share, ms if share >= recipe.minimum_valid else None


def finish_with_means(pan_sums, recipe, left, top, valid_ms, ms):
    """
    By box means: (share of valid pan samples, (pan, mul, bands, valid)), or (share, None) where too few are valid. valid_ms, ms: of
    read_ms_window.

    pan, mul, bands: (C, H, W) float32 reflectance; valid: (1, H, W) bool, None where all is.
    """
    pair, side, extra, ratio = pan_sums.pair, recipe.window, recipe.extra, recipe.ratio
    share, sums, pan_nodata = pan_sums.window(pair.area[0] + left, pair.area[1] + top, side)
    if share < recipe.minimum_valid:
        return share, None
    ms, ms_nodata = clean(ms, pair.nodata[1]) if valid_ms < 1 else (ms, None)
    ms = box_sum(ms, extra)
    bad = any_of(untrue(ms_nodata, extra, ratio), touched(pan_nodata, extra))
    pan = mean_of_sums(box_sum(sums, extra, sums.dtype), (ratio * extra) ** 2, recipe)
    mul = mean_of_sums(box_sum(ms, ratio, ms.dtype), (ratio * extra) ** 2, recipe)
    return share, (pan, mul, mean_of_sums(ms, extra**2, recipe), None if bad is None else ~bad)


def finish_with_blur(reader, recipe, left, top, ms):
    """
    The same by filters like the sensors' blur. Pan is read here, with its margin, so only for windows whose ms is valid enough.

    Nodata is filled from valid neighbours before filtering, as when sharpening: otherwise a network would learn from dark edges that no
    image to be sharpened has.
    """
    pair, side, extra, ratio = reader.pair, recipe.window, recipe.extra, recipe.ratio
    m = margins(pair, recipe, left, top)
    pan = reader.read_pan(pair.area[0] + left - m[0], pair.area[1] + top - m[1], side + m[0] + m[2], side + m[1] + m[3])
    core = pan[:, m[1] * ratio : (m[1] + side) * ratio, m[0] * ratio : (m[0] + side) * ratio]
    share = count_valid(core, pair.nodata[0]) / core.size
    if share < recipe.minimum_valid:
        return share, None
    from raster.fill_nodata import continue_ms, continue_pan
    from raster.resampling import FILTER_BLOCKS

    reach = FILTER_BLOCKS * extra  # ms pixels that the filter of pan sees; that of ms sees `ratio` times as many
    nodata_pan, nodata_ms = pair.nodata
    ms, ms_mask = fill_nodata(ms, nodata_ms, lambda image, mask: continue_ms(image, mask, nodata_ms, reach * ratio))
    pan, pan_mask = fill_nodata(pan, nodata_pan, lambda image, mask: continue_pan(image, mask, ratio, reach))
    truth = mean_of_sums(box_sum(ms, extra), extra**2, recipe)
    pan, mul = blur_and_reduce(mean_of_sums(box_sum(pan, extra), extra**2, recipe), truth, ratio)
    # the window without its margins, in pixels of the truth and of mul
    inside = tuple(slice(a // extra, a // extra + recipe.chip_size) for a in (m[1], m[0]))
    small = tuple(slice(a.start // ratio, a.stop // ratio) for a in inside)
    bad = any_of(*(None if b is None else b[:, *inside] for b in (untrue(ms_mask, extra, ratio), touched(pan_mask, ratio * extra))))
    return share, (pan[:, *inside], mul[:, *small], truth[:, *inside], None if bad is None else ~bad)


def blur_and_reduce(pan, truth, ratio):
    """(pan, mul) of Wald's protocol, reduced with the sensors' typical blur: numpy in, float32 numpy out."""
    import torch

    from raster.resampling import MS_GAIN, PAN_GAIN, reduce_mtf

    pan, truth = torch.from_numpy(pan)[None], torch.from_numpy(truth)[None]
    return reduce_mtf(pan, ratio, PAN_GAIN)[0].numpy(), reduce_mtf(truth, ratio, MS_GAIN)[0].numpy().astype(np.float32)
