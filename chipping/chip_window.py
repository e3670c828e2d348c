"""
One window of a pan/ms pair made smaller: the inputs and the truth of a chip, and which of its pixels can be trusted.

The truth is the ms window itself or, with extra > 1, its box means of extra x extra pixels; `mul` is the truth reduced by the ratio of
pan to ms, `pan` the pan window reduced to the grid of the truth. Box means are what the ARD road was designed with, exact and cheap, and
the extra factor 2 hides that they alias. Small pairs have no pixels to spare for an extra factor, so there the filters imitate the
sensors' blur (Wald's protocol); with box means a network would learn from inputs crisper than any sensor delivers.
"""

from dataclasses import dataclass

import numpy as np

from raster.pair import is_null

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


# ---------------------------------------------------------------------------------------------- sums, means, nulls


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


def to_reflectance(total, count, recipe):
    """Sums of `count` stored values -> mean reflectance, float32, one rounding where there is no offset."""
    if recipe.offset == 0:
        means = total.astype(np.float32)
        means /= np.float32(count * recipe.divide_by)
        return means
    return ((total / count + recipe.offset) / recipe.divide_by).astype(np.float32)


def count_valid(values, nodata):
    """Number of the samples that are not null, over all bands."""
    if nodata in (None, 0) and values.dtype.kind != "f":
        return int(np.count_nonzero(values))
    return values.size - int(np.count_nonzero(is_null(values, nodata)))


def clean(values, nodata):
    """(values with 0 for null, (1, H, W) bool of pixels that are null in any band, or None where there is none)."""
    if count_valid(values, nodata) == values.size:
        return values, None
    null = is_null(values, nodata)
    return np.where(null, 0, values), null.any(axis=0, keepdims=True)


def touched(null, side):
    """(1, H, W) bool of null pixels -> (1, H / side, W / side): cells with a null pixel in them. None stays None."""
    return None if null is None else box_sum(null.view(np.uint8), side) > 0


def untrue(null, extra, ratio):
    """(1, H, W) bool of null ms pixels -> the pixels of the truth that lie under a pixel of mul with one of them. None stays None."""
    return None if null is None else touched(null, extra * ratio).repeat(ratio, 1).repeat(ratio, 2)


def any_of(*nulls):
    """The union of null masks; None where there is none."""
    nulls = [null for null in nulls if null is not None and null.any()]
    return np.logical_or.reduce(nulls) if nulls else None


# ---------------------------------------------------------------------------------------------- what lies around nulls


def continued(values, nodata, continue_image):
    """clean(values, nodata), but with what continue_image(image, null) makes of null pixels: torch tensors (1, C, H, W)."""
    cleaned, any_null = clean(values, nodata)
    if any_null is None:
        return values, None
    import torch

    null = is_null(values, nodata)
    image = torch.from_numpy(cleaned.astype(np.float32))[None]
    filled = continue_image(image, torch.from_numpy(null)[None])[0].numpy()
    filled = filled if values.dtype.kind == "f" else np.rint(filled)
    cleaned[null] = filled[null].astype(values.dtype)  # valid pixels, and all that is computed of them alone, keep every bit
    return cleaned, any_null


# ---------------------------------------------------------------------------------------------- the two halves of a window


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
    """(share of valid samples, ms values with margin or None where there are too many nulls). left, top: within the pair's area."""
    pair = reader.pair
    m = margins(pair, recipe, left, top)
    column, row = pair.area[0] + left - m[0], pair.area[1] + top - m[1]
    ms = reader.read_ms(column, row, recipe.window + m[0] + m[2], recipe.window + m[1] + m[3])
    core = ms[:, m[1] : m[1] + recipe.window, m[0] : m[0] + recipe.window]
    share = count_valid(core, pair.nodata[1]) / core.size
    return share, ms if share >= recipe.minimum_valid else None


def finish_with_means(pan_sums, recipe, left, top, valid_ms, ms):
    """
    Box means: (share of valid pan samples, (pan, mul, bands, valid)), or (share, None) where too many are null. valid_ms, ms: what
    read_ms_window returned.

    pan, mul, bands: (C, H, W) float32 reflectance; valid: (1, H, W) bool, None where all is.
    """
    pair, side, extra, ratio = pan_sums.pair, recipe.window, recipe.extra, recipe.ratio
    share, sums, nulls = pan_sums.window(pair.area[0] + left, pair.area[1] + top, side)
    if share < recipe.minimum_valid:
        return share, None
    ms, null = clean(ms, pair.nodata[1]) if valid_ms < 1 else (ms, None)
    ms = box_sum(ms, extra)
    bad = any_of(untrue(null, extra, ratio), touched(nulls, extra))
    pan = to_reflectance(box_sum(sums, extra, sums.dtype), (ratio * extra) ** 2, recipe)
    mul = to_reflectance(box_sum(ms, ratio, ms.dtype), (ratio * extra) ** 2, recipe)
    return share, (pan, mul, to_reflectance(ms, extra**2, recipe), None if bad is None else ~bad)


def finish_with_blur(reader, recipe, left, top, ms):
    """
    The same by filters like the sensors' blur. Pan is read here, with its margin, and only for windows that are worth it.

    Nulls are continued as far as a filter at a valid pixel sees them, as when sharpening (pansharpening/fuse.py): a network must not
    learn from dark rims that it will never be shown.
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
    ms, ms_null = continued(ms, nodata_ms, lambda image, null: continue_ms(image, null, nodata_ms, reach * ratio))
    pan, pan_null = continued(pan, nodata_pan, lambda image, null: continue_pan(image, null, ratio, reach))
    truth = to_reflectance(box_sum(ms, extra), extra**2, recipe)
    pan, mul = blur_and_reduce(to_reflectance(box_sum(pan, extra), extra**2, recipe), truth, ratio)
    # what lies between the margins, in pixels of the truth and of mul
    inside = tuple(slice(a // extra, a // extra + recipe.chip_size) for a in (m[1], m[0]))
    small = tuple(slice(a.start // ratio, a.stop // ratio) for a in inside)
    bad = any_of(*(None if b is None else b[:, *inside] for b in (untrue(ms_null, extra, ratio), touched(pan_null, ratio * extra))))
    return share, (pan[:, *inside], mul[:, *small], truth[:, *inside], None if bad is None else ~bad)


def blur_and_reduce(pan, truth, ratio):
    """The two inputs of Wald's protocol by the sensors' typical blur: numpy in, float32 numpy out."""
    import torch

    from raster.resampling import MS_GAIN, PAN_GAIN, reduce_mtf

    pan, truth = torch.from_numpy(pan)[None], torch.from_numpy(truth)[None]
    return reduce_mtf(pan, ratio, PAN_GAIN)[0].numpy(), reduce_mtf(truth, ratio, MS_GAIN)[0].numpy().astype(np.float32)
