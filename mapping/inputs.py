"""What a checkpoint wants from a raster (which bands, in which scale, what is nodata), read from headers and checked, never guessed."""

from dataclasses import dataclass, field, replace

import numpy as np
from rasterio.errors import RasterioError
from rasterio.windows import Window

from raster.bands import is_cems_image, match_bands
from raster.hidden import data_bands, hidden_pixels
from raster.nodata import decide_nodata, one_or_each, valid_pixels, zero_is_fill
from raster.scale import USUAL_SCALES, Scale, decide_scale, parse_numbers, scale_from_tags, to_reflectance
from raster.source import RasterInfo, open_raster, read_bands
from runtime.errors import UserError

SUSPICIOUS = 30  # times brighter or darker than the training images: no scene is, a wrong divisor (255, 10000) always is
TYPICAL_REFLECTANCE = 0.1  # stands for the training images where a model does not know their mean


@dataclass(frozen=True)
class InputFlags:
    """
    What the command line says about the input in place of checkpoint and tags; None where it says nothing.

    bands: names or numbers from 1, in the order of the model's bands. divide_by, offset: one number a band. nodata: a number as text, or
    "none".
    """

    bands: tuple | None = None
    divide_by: tuple | None = None
    offset: tuple | None = None
    nodata: str | None = None

    @classmethod
    def of_text(cls, count, bands, divide_by, offset, nodata):
        """The flags of a model with `count` bands. divide_by, offset: as text, one number or one a band."""
        numbers = (parse_numbers(text, flag, count) for text, flag in ((divide_by, "--divide-by"), (offset, "--offset")))
        return cls(bands, *numbers, nodata)


NO_FLAGS = InputFlags()


@dataclass(frozen=True)
class SceneInput:
    """
    How a scene is read.

    indexes: 1-based, in the order of the model's bands. scale: reflectance = (stored + offset) / divide_by.
    nodata: stored value, or None; one a band where they differ. zero_is_nodata: a pixel that is 0 in all of the bands is nodata too.
    masked: what else hides pixels, see raster.hidden.DataBands. alpha: a sentence where a band counts as alpha, or None.
    matched, scaled: where bands and scale come from, in words for the log. sample: see sample_range, where it has been read.
    """

    info: RasterInfo
    indexes: tuple
    scale: Scale
    nodata: float | None | tuple
    zero_is_nodata: bool
    matched: str
    scaled: str
    masked: int | tuple | None = None
    alpha: str | None = None
    sample: np.ndarray | None = field(default=None, compare=False)


def plan_input(info, data, mean=None, flags=NO_FLAGS):
    """
    SceneInput for a raster and a checkpoint's `data`. UserError where bands or scale are not certain, with what to pass.

    info: RasterInfo. mean: reflectance of the training images per band, or None. flags: InputFlags.
    """
    if any(np.dtype(dtype).kind == "c" for dtype in info.dtypes):
        raise UserError(f"{info.path} holds complex numbers; expected integers or floats")
    wanted = list(data["bands"])
    indexes, matched = match_bands(info, wanted, flags.bands)
    zero_based = [i - 1 for i in indexes]
    scale, scaled = choose_scale(info, zero_based, data, flags)
    zero_is_nodata = is_cems_image(info)
    if flags.nodata is None and all(info.nodatavals[b] is None for b in zero_based) and data.get("nodata") is not None:
        nodata = data["nodata"]  # of the images of the training; one that this file's type can't hold occurs in it nowhere
    else:
        each = decide_nodata(info, zero_based, flags.nodata)
        nodata = one_or_each(each)
        zero_is_nodata = zero_is_nodata or zero_is_fill(info, zero_based, each, scale.offset, flags.nodata)
    hides = data_bands(info, indexes)
    plan = SceneInput(info, tuple(indexes), scale, nodata, zero_is_nodata, matched, scaled, hides.masked, hides.remark)
    if flags.divide_by is not None:  # a scale that is given is not checked against pixels
        return plan
    sample = sample_range(plan)
    if sample is not None:
        require_plausible(plan, wanted, mean, sample[1])
    return replace(plan, sample=sample)


def choose_scale(info, zero_based, data, flags):
    """(Scale, where it comes from): --divide-by, else the file's tags, else the checkpoint's; --offset in place of the latter two's."""
    if flags.divide_by is not None:
        return decide_scale(info, zero_based, data["bands"], flags.divide_by, flags.offset), "from the command line"
    scale, scaled = scale_from_tags(info, zero_based), "from the file's tags"
    if scale is None:
        scale, scaled = Scale(tuple(data["divide_by"]), tuple(data["offset"])), "from the checkpoint"
    return Scale(scale.divide_by, scale.offset if flags.offset is None else flags.offset), scaled


def require_plausible(plan, wanted, mean, medians):
    """
    UserError where the scene, read with the plan's scale, is not even roughly as bright as the images of the training.

    This does not choose a scale; it only catches one that is wrong by a factor, as when a file of reflectances meets a checkpoint trained
    on digital numbers. The median over all bands is compared, so that water or snow pass. medians: of a sample, one a band.
    """
    reference = np.full(len(wanted), TYPICAL_REFLECTANCE) if mean is None else np.asarray(mean, dtype=float)
    usable = reference > 1e-4
    if not usable.any():
        return
    times = float(np.median(np.maximum(medians[usable], 0) / reference[usable]))
    if not 1 / SUSPICIOUS <= times <= SUSPICIOUS:
        divisors = ", ".join(f"{d:g}" for d in dict.fromkeys(plan.scale.divide_by))
        shown, expected = ", ".join(f"{m:.3g}" for m in medians), ", ".join(f"{m:.3g}" for m in reference)
        raise UserError(
            f"{plan.info.path} doesn't fit the scale {plan.scaled} (divide by {divisors}): medians {shown}, usual {expected}. "
            f"Pass --divide-by ({USUAL_SCALES}) and --offset"
        )


def sample_range(plan, grid=4, side=64):
    """
    (3, C): least, median and highest reflectance of each band over valid pixels of a few small windows; None where none of them can be read
    or is valid.
    """
    info, pieces = plan.info, []
    with open_raster(info.path) as dataset:
        for row in np.unique(np.linspace(0, max(0, info.height - side), grid).astype(int)):
            for column in np.unique(np.linspace(0, max(0, info.width - side), grid).astype(int)):
                window = Window(column, row, min(side, info.width), min(side, info.height))
                try:
                    pixels = read_bands(dataset, plan.indexes, window)
                    hidden = hidden_pixels(dataset, plan.masked, window)
                except RasterioError:
                    continue  # it is named when the map is made
                valid = valid_pixels(pixels, plan.nodata, zero_is_nodata=True)
                if hidden is not None:
                    valid &= ~hidden
                pieces.append(pixels[:, valid].astype(np.float64))
    values = np.concatenate(pieces, axis=1) if pieces else np.empty((len(plan.indexes), 0))
    if values.shape[1] == 0:
        return None
    stored = np.stack([values.min(axis=1), np.median(values, axis=1), values.max(axis=1)])
    return to_reflectance(stored, np.array([plan.scale.divide_by]), np.array([plan.scale.offset]))
