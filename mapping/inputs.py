"""What a checkpoint wants from a raster: which bands, in which scale, what counts as nodata. Read from headers, checked, never guessed."""

from dataclasses import dataclass, field, replace

import numpy as np

from chipping.scenes import decide_nodata, one_or_each, zero_means_nothing
from constants import SENTINEL2_L2A_BANDS, band_role
from raster.scale import Scale, decide_scale, scale_from_tags
from raster.source import RasterInfo, open_raster, read_bands
from runtime.errors import UserError, did_you_mean

SUSPICIOUS = 30  # times brighter or darker than the training images: no scene is, a wrong divisor (255, 10000) always is
TYPICAL_REFLECTANCE = 0.1  # stands for the training images where a model does not know their mean


@dataclass(frozen=True)
class SceneInput:
    """
    How a scene is read.

    indexes: 1-based, in the order of the model's bands. scale: reflectance = (stored + offset) / divide_by.
    nodata: stored value that means nothing, or None; one a band where they differ. zero_is_nodata: so does 0 in all of the bands.
    matched, scaled: in words, for the log. sample: reflectance as sample_range gives it, where it has been looked at.
    """

    info: RasterInfo
    indexes: tuple
    scale: Scale
    nodata: float | None | tuple
    zero_is_nodata: bool
    matched: str
    scaled: str
    sample: np.ndarray | None = field(default=None, compare=False)


def plan_input(info, data, mean=None, bands=None, divide_by=None, offset=None, nodata=None):
    """
    SceneInput for a raster and a checkpoint's `data`. UserError where bands or scale are not certain, with what to pass.

    mean: reflectance of the training images per band, or None. bands: of `--bands`, names or 1-based numbers, or None.
    divide_by, offset: tuples of the command line, or None. nodata: of the command line, a number or "none", or None.
    """
    if any(np.dtype(dtype).kind == "c" for dtype in info.dtypes):
        raise UserError(f"{info.path} holds complex numbers; expected integers or floats")
    wanted = list(data["bands"])
    indexes, matched = match_bands(info, wanted, bands)
    zero_based = [i - 1 for i in indexes]
    if divide_by is not None:
        scale, scaled = decide_scale(info, zero_based, wanted, divide_by, offset), "from the command line"
    else:
        scale, scaled = scale_from_tags(info, zero_based), "from the file's tags"
        if scale is None:
            scale, scaled = Scale(tuple(data["divide_by"]), tuple(data["offset"])), "from the checkpoint"
        if offset is not None:
            scale = Scale(scale.divide_by, offset)
    zero_is_nodata = is_cems_image(info)
    if nodata is None and all(info.nodatavals[b] is None for b in zero_based) and data.get("nodata") is not None:
        value = data["nodata"]  # of the images of the training; one that this file's type can't hold occurs in it nowhere
    else:
        each = decide_nodata(info, zero_based, nodata)
        value = one_or_each(each)
        zero_is_nodata = zero_is_nodata or zero_means_nothing(info, zero_based, each, scale.offset, nodata)
    plan = SceneInput(info, tuple(indexes), scale, value, zero_is_nodata, matched, scaled)
    if divide_by is not None:  # the user's word: no pixel is read for it
        return plan
    sample = sample_range(plan)
    if sample is not None:
        require_plausible(plan, wanted, mean, sample[1])
    return replace(plan, sample=sample)


def looks(plan, bands, mean):
    """A sample's reflectance of each band in words, beside the mean of the training images where that is known; "" without a sample."""
    sample = sample_range(plan) if plan.sample is None else plan.sample
    if sample is None:
        return ""
    means = [None] * len(bands) if mean is None else mean
    words = (f"{band} {low:.3g}/{middle:.3g}/{high:.3g}" + (f" ({usual:.3g})" if usual is not None else "")
             for band, low, middle, high, usual in zip(bands, *sample, means, strict=True))
    return "reflectance, least/median/most" + (" (training)" if mean is not None else "") + f": {', '.join(words)}"


def match_bands(info, wanted, given=None):
    """(1-based indexes, how in words): by --bands, by the bands' descriptions (in any usual spelling), or by order where there are none."""
    names = list(info.descriptions)
    if given is not None:
        if len(given) != len(wanted):
            raise UserError(f"--bands names {len(given)} bands, but the checkpoint wants {len(wanted)}: {', '.join(wanted)}")
        return [number_of(info, names, band) for band in given], "as given"
    found = [find_band(names, band) for band in wanted]
    if all(found) and len(set(found)) == len(found):
        return found, "by name"
    described = [n for n in names if n]
    if not described and is_cems_image(info) and set(wanted) <= set(SENTINEL2_L2A_BANDS):
        return [SENTINEL2_L2A_BANDS.index(b) + 1 for b in wanted], "by the order of a Sentinel-2 L2A file of 12 bands"
    if not any(found) and not (described and any(band_role(n) for n in described)):
        everything = list(range(1, info.count + 1))
        for order in (everything, [i for i in everything if i - 1 != info.alpha_band]):
            if len(order) == len(wanted):
                return order, "by order"
    missing = [b for b, f in zip(wanted, found, strict=True) if not f]
    has = f"bands {', '.join(n or '(unnamed)' for n in names)}" if described else f"{info.count} bands without names"
    lacks = f" It has no {', '.join(missing)}." if described and missing else ""
    raise UserError(
        f"{info.path} has {has}; the checkpoint wants {len(wanted)}: {', '.join(wanted)}.{lacks} "
        f"Pass --bands with {len(wanted)} names or numbers (from 1) in this order"
    )


def is_cems_image(info):
    """A wildfire image as Copernicus EMS data sets have it: 12 bands without names, 0 in all of them where there is no data."""
    return info.count == len(SENTINEL2_L2A_BANDS) and "S2L2A" in info.path.rsplit("/", 1)[-1]


def find_band(names, band):
    """1-based position of a band among names: the same word, else the same part of the spectrum if only one band sees it; None."""
    exact = [i for i, n in enumerate(names, start=1) if n and n.strip().lower() == band.strip().lower()]
    role = band_role(band)
    alike = exact or [i for i, n in enumerate(names, start=1) if role and band_role(n) == role]
    return alike[0] if len(alike) == 1 else None


def number_of(info, names, band):
    """1-based index for an entry of --bands."""
    if str(band).strip().isdigit():
        number = int(band)
        if not 1 <= number <= info.count:
            raise UserError(f"--bands {number}: {info.path} has bands 1 to {info.count}")
        return number
    found = find_band(names, str(band))
    if found is None:
        known = [n for n in names if n]
        raise UserError(f"--bands: {info.path} has no band {band!r}; it has {', '.join(known) or 'no names'}.{did_you_mean(band, known)}")
    return found


def require_plausible(plan, wanted, mean, medians):
    """
    UserError where the scene, read with the plan's scale, is not even roughly as bright as the images of the training.

    This decides nothing about the scale; it only catches one that is wrong by a factor, as when a file of reflectances meets a checkpoint
    trained on digital numbers. The middle of all bands is compared, so that water or snow pass. medians: of a sample, one a band.
    """
    reference = np.full(len(wanted), TYPICAL_REFLECTANCE) if mean is None else np.asarray(mean, dtype=float)
    usable = reference > 1e-4
    if not usable.any():
        return
    times = float(np.median(np.maximum(medians[usable], 0) / reference[usable]))
    if not 1 / SUSPICIOUS <= times <= SUSPICIOUS:
        divisors = ", ".join(f"{d:g}" for d in dict.fromkeys(plan.scale.divide_by))
        shown = ", ".join(f"{b} {m:.3g}" for b, m in zip(wanted, medians, strict=True))
        expected = ", ".join(f"{m:.3g}" for m in reference)
        raise UserError(
            f"{plan.info.path} ({plan.info.dtypes[0]}) doesn't fit the scale {plan.scaled} (divide by {divisors}): the median reflectances "
            f"would be {shown}, where {expected} is usual. Pass --divide-by (10000 for most Sentinel-2 products, 255 for 8-bit pictures, "
            "1 where values are reflectance already) and --offset where there is one (-1000 for Sentinel-2 from baseline 04.00 on)"
        )


def sample_range(plan, grid=4, side=64):
    """
    (3, C): least, median and highest reflectance of each band over valid pixels of a few small windows; None where none of them can be read
    or is valid.
    """
    from rasterio.errors import RasterioError
    from rasterio.windows import Window

    info, pieces = plan.info, []
    with open_raster(info.path) as dataset:
        for row in np.unique(np.linspace(0, max(0, info.height - side), grid).astype(int)):
            for column in np.unique(np.linspace(0, max(0, info.width - side), grid).astype(int)):
                window = Window(column, row, min(side, info.width), min(side, info.height))
                try:
                    pixels = read_bands(dataset, plan.indexes, window)
                except RasterioError:
                    continue  # it is named when the map is made
                valid = valid_pixels(pixels, plan.nodata, zero_is_nodata=True)
                pieces.append(pixels[:, valid].astype(np.float64))
    values = np.concatenate(pieces, axis=1) if pieces else np.empty((len(plan.indexes), 0))
    if values.shape[1] == 0:
        return None
    return (np.stack([values.min(axis=1), np.median(values, axis=1), values.max(axis=1)]) + plan.scale.offset) / plan.scale.divide_by


def valid_pixels(pixels, nodata, zero_is_nodata=False):
    """
    (H, W) bool: no band of (C, H, W) stored values is nodata (one for all, or one a band), NaN or infinite, and (if asked) not all are 0.
    """
    valid = np.ones(pixels.shape[1:], dtype=bool)
    each = nodata if isinstance(nodata, tuple) else (nodata,) * len(pixels)
    for band, empty in zip(pixels, each, strict=True):  # band by band: no temporary array of the whole stack
        if pixels.dtype.kind == "f":
            valid &= np.isfinite(band)
        if empty is not None and empty == empty:
            valid &= band != empty
    return valid & (pixels != 0).any(axis=0) if zero_is_nodata else valid
