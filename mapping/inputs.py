"""What a checkpoint wants from a raster (which bands, in which scale, what is nodata), read from headers and checked, never guessed."""

from dataclasses import dataclass, field, replace

import numpy as np

from constants import plain_band
from raster.bands import is_cems_image, match_bands
from raster.dated import Dated, DatedClouds, match_stack, undated
from raster.hidden import data_bands
from raster.nodata import decide_nodata, one_or_each, zero_is_fill
from raster.plausible import band_figures, judge
from raster.product_scene import CloudScene, ProductScene
from raster.products import product_scene
from raster.sample import sample_values
from raster.scale import Scale, decide_scale, parse_numbers, scale_from_tags, to_reflectance
from raster.sensor_bands import scene_for_model
from raster.source import RasterInfo, describe
from runtime.errors import UserError


@dataclass(frozen=True)
class InputFlags:
    """
    What the command line says about the input in place of checkpoint and tags; None where it says nothing.

    bands: names or numbers from 1, in the order of the model's bands. divide_by, offset: one number a band. nodata: a number as text, or
    "none". accept_scale: reflectance that the training had nothing like is not refused. clouds: what a product's own layer calls cloud is
    not mapped.
    """

    bands: tuple | None = None
    divide_by: tuple | None = None
    offset: tuple | None = None
    nodata: str | None = None
    accept_scale: bool = False
    clouds: bool = True

    @classmethod
    def of_text(cls, count, bands, divide_by, offset, nodata, accept_scale=False, clouds=True):
        """The flags of a model with `count` bands. divide_by, offset: as text, one number or one a band."""
        numbers = (parse_numbers(text, flag, count) for text, flag in ((divide_by, "--divide-by"), (offset, "--offset")))
        return cls(bands, *numbers, nodata, accept_scale, clouds)


NO_FLAGS = InputFlags()


@dataclass(frozen=True)
class SceneInput:
    """
    How a scene is read.

    indexes: 1-based, in the order of the model's bands. scale: reflectance = (stored + offset) / divide_by.
    nodata: stored value, or None; one a band where they differ. zero_is_nodata: a pixel that is 0 in all of the bands is nodata too.
    masked: what else hides pixels, see raster.hidden.DataBands. alpha: a sentence where a band counts as alpha, or None.
    matched, scaled: where bands and scale come from, in words for the log. sample: see sample_range, where it has been read. doubt: a
    sentence about reflectance that is unlike that of the training, or None. colours: (256, 3) of raster.palette where the pixels are
    indices of colours, whose red, green and blue then are bands 1 to 3. clouds: the product's layer, whose clouds are not mapped, or None.
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
    doubt: str | None = field(default=None, compare=False)
    colours: np.ndarray | None = field(default=None, compare=False)
    clouds: CloudScene | DatedClouds | None = None

    @property
    def days(self):
        """ISO days of a scene of several dates, () of others."""
        return self.info.path.days if isinstance(self.info.path, Dated) else ()

    @property
    def sources(self):
        """Paths of what it was made of."""
        return self.info.path.members if isinstance(self.info.path, Dated) else (self.info.path,)

    @property
    def product(self):
        """raster.product.Product of a scene as it was delivered, None of a raster."""
        return self.info.path.product if isinstance(self.info.path, ProductScene) else None


def describe_for(path, data, flags):
    """
    RasterInfo of a scene for a checkpoint's `data`: of a product or a scene of several dates, that of the bands that the checkpoint wants.
    UserError.

    path: of a raster or product, or a ProductScene. flags: InputFlags.
    """
    scene = product_scene(path)
    if isinstance(scene, Dated):
        scene = dated_for_model(scene, data, flags)
    elif isinstance(scene, ProductScene):
        scene = scene_for_model(scene, data["bands"], data.get("sensor"), data.get("wavelengths"), data.get("level") or "", flags.bands)
    return describe(scene)


def dated_for_model(scene, data, flags):
    """A scene of several dates with the bands that the checkpoint wants of each; --bands are those of one date. UserError."""
    wanted = undated(data["bands"], len(scene.members))
    if not isinstance(scene, ProductScene):
        found = [match_bands(info, wanted, flags.bands) for info in scene.infos()]
        return scene.with_choices([indexes for indexes, _ in found], found[-1][1])
    wavelengths = data.get("wavelengths")
    facts = data.get("sensor"), wavelengths and wavelengths[: len(wanted)], data.get("level") or "", flags.bands
    return scene.made_of([scene_for_model(one, wanted, *facts) for one in scene.members])


def plan_input(info, data, mean=None, flags=NO_FLAGS):
    """
    SceneInput for a raster and a checkpoint's `data`, with a sample of its pixels. UserError where bands or scale are not certain, or where
    the reflectance is not that of such images, with what to pass.

    info: RasterInfo. mean: reflectance of the training images per band, or None. flags: InputFlags.
    """
    return judged(plan_of_header(info, data, flags), data, mean, flags)


def judged(plan, data, mean=None, flags=NO_FLAGS):
    """A SceneInput of plan_of_header with a sample of its pixels, and the doubt that this leaves. Arguments and errors: of plan_input."""
    sample = sample_range(plan)
    if sample is None:
        return plan
    scales = list(zip(data["divide_by"], data["offset"], strict=True)), list(zip(plan.scale.divide_by, plan.scale.offset, strict=True))
    doubt = None if flags.accept_scale else require_plausible(plan, data["bands"], sample[1], mean, scales)
    return replace(plan, sample=sample, doubt=doubt)


def plan_of_header(info, data, flags=NO_FLAGS):
    """plan_input as far as the header decides it: no pixel is read, and the reflectance is not judged."""
    if any(np.dtype(dtype).kind == "c" for dtype in info.dtypes):
        raise UserError(f"{info.path} holds complex numbers; expected integers or floats")
    product, dated = isinstance(info.path, ProductScene), isinstance(info.path, Dated)
    indexes, matched = (range(1, info.count + 1), info.path.matched) if product or dated else match_raster(info, data, flags)
    zero_based = [i - 1 for i in indexes]
    scale, scaled = choose_scale(info, zero_based, data, flags)
    zero_is_nodata = is_cems_image(info) and not dated
    if flags.nodata is None and all(info.nodatavals[b] is None for b in zero_based) and data.get("nodata") is not None:
        nodata = data["nodata"]  # of the images of the training; one that this file's type can't hold occurs in it nowhere
    else:
        each = decide_nodata(info, zero_based, flags.nodata)
        nodata = one_or_each(each)
        zero_is_nodata = zero_is_nodata or zero_is_fill(info, zero_based, each, scale.offset, flags.nodata)
    hides = data_bands(info, indexes)
    clouds = info.path.clouds() if product and flags.clouds else None
    return SceneInput(info, tuple(indexes), scale, nodata, zero_is_nodata, matched, scaled, hides.masked, hides.remark, clouds=clouds)


def match_raster(info, data, flags):
    """(1-based bands, how they were found) of a raster, see raster.bands.match_bands; of several dates that are named by their days too."""
    wanted = list(data["bands"])
    try:
        found, how = match_bands(info, wanted, flags.bands)
        if how == "by order" and flags.bands is None and has_one_date(info, wanted, data.get("dates", 1)):
            raise UserError(f"{info.path} has the bands of one date, and the checkpoint wants {data['dates']}; name the scenes of all "
                            "dates, or pass --bands")
        return found, how
    except UserError:
        found = match_stack(info, wanted, data["dates"]) if data.get("dates", 1) > 1 and flags.bands is None else None
        if found is None:
            raise
        return found, "by name, date after date"


def has_one_date(info, wanted, dates):
    """Whether a raster has bands that are called as those of one of several dates."""
    names = {plain_band(name or "") for name in info.descriptions}
    return dates > 1 and all(plain_band(name) in names for name in undated(wanted, dates))


def holds_all_dates(path, data, flags):
    """How the bands of all dates that a checkpoint's `data` wants are found in a raster, None where they are not."""
    try:
        return match_raster(describe(path), data, flags)[1]
    except UserError:
        return None


def choose_scale(info, zero_based, data, flags):
    """(Scale, where it comes from): --divide-by, else the file's tags, else the checkpoint's; --offset in place of the latter two's."""
    if flags.divide_by is not None:
        return decide_scale(info, zero_based, data["bands"], flags.divide_by, flags.offset), "from the command line"
    stated = "from the product's metadata" if isinstance(info.path, ProductScene) else "from the file's tags"
    scale, scaled = scale_from_tags(info, zero_based), stated
    if scale is None and isinstance(info.path, ProductScene):
        raise UserError(f"{info.path} states no scale of its bands; pass --divide-by and --offset (1 and 0 where values are reflectance)")
    if scale is None and data.get("scales_differ"):
        raise UserError(f"{info.path} states no scale, and the networks were trained on images of different ones; pass --divide-by")
    if scale is None:
        scale, scaled = Scale(tuple(data["divide_by"]), tuple(data["offset"])), "from the checkpoint"
    return Scale(scale.divide_by, scale.offset if flags.offset is None else flags.offset), scaled


def require_plausible(plan, names, medians, mean, scales):
    """
    UserError where a wrong scale must have made the reflectance of a scene; a sentence where it is only unlike the training's, or None.

    This chooses no scale. names, medians, mean, scales: see raster.plausible.judge. medians: of a sample.
    """
    wrong, odd = judge(names, medians, mean, scales)
    if wrong:
        divisors = ", ".join(f"{d:g}" for d in dict.fromkeys(plan.scale.divide_by))
        raise UserError(
            f"{plan.info.path} doesn't fit the scale {plan.scaled} (divide by {divisors}): median reflectance "
            f"{band_figures(names, medians, mean, wrong)}. Pass --divide-by and --offset (see docs/data.md), or --accept-scale"
        )
    if odd:
        figures = band_figures(names, medians, mean, odd)
        return f"{plan.info.path}: median reflectance {figures}, unlike the training; are --divide-by and --offset right?"
    return None


def sample_range(plan):
    """(3, C): least, median and highest reflectance of each band in a sample of valid pixels, None without one."""
    values = sample_values(plan.info.path, plan.indexes, plan.nodata, plan.masked)
    if values.shape[1] == 0:
        return None
    stored = np.stack([values.min(axis=1), np.median(values, axis=1), values.max(axis=1)])
    return to_reflectance(stored, np.array([plan.scale.divide_by]), np.array([plan.scale.offset]))
