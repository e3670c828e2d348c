"""Fusing: a pan and an ms raster of any size become one sharpened raster, block by block in bounded memory.

Every block is read with an apron as wide as the method can see, so blocks of any size give the same map. Nulls are not seen: before
anything is filtered they are continued from the valid pixels around them. The output lies on pan's grid (moved by a fraction of a pixel
where pan does not nest in ms) by pan's georeference, in the type and scale of ms, or as 16-bit sRGB.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from rasterio.errors import RasterioError

from constants import WORLDVIEW_BANDS
from mapping.inputs import find_band, match_bands, number_of
from mapping.scene import fingerprint
from pansharpening.classical import METHODS, gather_moments
from pansharpening.network import pansharpener_from_checkpoint
from raster.colour import bands_to_oklab, has_colour, oklab_to_srgb
from raster.fill_nodata import continue_ms, continue_pan
from raster.pair import PairReader, is_null, with_alpha_as_data
from raster.source import describe, is_remote, mask_stamps
from raster.writer import write_cog
from runtime.device import autocast
from runtime.errors import RunError, UserError
from runtime.files import refuse_existing, settings_hash

CLASSICAL_REACH = 6  # ms pixels that the classical methods look beyond a pixel, one to spare
DESCRIPTIONS = ("red", "green", "blue")


@dataclass
class Sharpener:
    """
    run(ms (1, C, h, w), pan (1, 1, H, W)) -> (1, C, H, W) reflectance, or (1, 3, H, W) Oklab where target is "oklab".

    reach: pan pixels that it looks beyond a pixel. name: for tags.
    """

    run: object
    reach: int
    target: str
    name: str


def network_sharpener(checkpoint, device, precision="fp32", channels_last=False):
    """Sharpener of a pansharpening checkpoint (a dict as loaded)."""
    model = pansharpener_from_checkpoint(checkpoint)
    model.to(device).eval()
    if channels_last:
        model.to(memory_format=torch.channels_last)

    def run(ms, pan):
        with torch.no_grad(), autocast(device, precision):
            return model(ms.to(device), pan.to(device)).float().cpu()

    return Sharpener(run, checkpoint["data"]["reach"], model.config.target, f"network {fingerprint(model)}")


def classical_sharpener(method, pair, scale, block):
    """Sharpener of a named method; those that need statistics of the whole image make a first pass over it here."""
    moments = None if method == "bicubic" else image_moments(pair, scale, block)
    return Sharpener(lambda ms, pan: METHODS[method](ms, pan, pair.ratio, moments), CLASSICAL_REACH * pair.ratio, "bands", method)


def image_moments(pair, scale, block):
    """Moments of the whole image, streamed. Null pixels take no part."""
    total, apron = None, CLASSICAL_REACH
    with PairReader(pair) as reader, reading_errors(pair):
        for core in blocks_of(pair.area, max(1, block // pair.ratio)):
            window, cut = with_apron(core, pair, apron)
            ms, pan, null = read_block(reader, window, scale, apron)
            inside = torch.zeros_like(null)
            inside[:, :, cut[0], cut[1]] = True
            part = gather_moments(ms, pan, pair.ratio, valid=inside & ~null)
            total = part if total is None else total + part
    if not total.count:
        raise UserError(f"{pair.ms} and {pair.pan} have no valid pixel in common")
    return total


def blocks_of(area, side):
    """[(column, row, width, height)] that cover an area, row by row, none larger than side x side."""
    left, top, width, height = area
    return [
        (left + x, top + y, min(side, width - x), min(side, height - y))
        for y in range(0, height, side)
        for x in range(0, width, side)
    ]


def with_apron(core, pair, apron):
    """(window with an apron of ms pixels, clipped to the pair's area; (rows, columns) slices of the core in it, in pan pixels)."""
    left, top = max(pair.area[0], core[0] - apron), max(pair.area[1], core[1] - apron)
    right = min(pair.area[0] + pair.area[2], core[0] + core[2] + apron)
    bottom = min(pair.area[1] + pair.area[3], core[1] + core[3] + apron)
    rows = slice((core[1] - top) * pair.ratio, (core[1] - top + core[3]) * pair.ratio)
    columns = slice((core[0] - left) * pair.ratio, (core[0] - left + core[2]) * pair.ratio)
    return (left, top, right - left, bottom - top), (rows, columns)


def read_block(reader, window, scale, beyond=0):
    """
    (ms (1, C, h, w), pan (1, 1, H, W) reflectance, null (1, 1, H, W) bool) of a window.

    Null is where pan is, or all bands of ms are. Values of null pixels continue valid ones that lie at most `beyond` ms pixels away (where
    there are none they are 0), so that a filter that looks across the rim finds ground and no black. That is what lies around a pixel,
    whatever the window: more is read around one with nulls.
    """
    pair = reader.pair
    ms, pan, ms_null, pan_null = read_reflectance(reader, window, scale)
    if beyond and (ms_null.any() or pan_null.any()) and not (ms_null.all() or pan_null.all()):
        wide, (rows, columns) = with_apron(window, pair, beyond)
        ms, pan, ms_null, pan_null = read_reflectance(reader, wide, scale)
        ms, pan = continue_ms(ms, ms_null, pair.nodata[1], beyond), continue_pan(pan, pan_null, pair.ratio, beyond)
        pan, pan_null = (x[:, :, rows, columns] for x in (pan, pan_null))
        rows, columns = (slice(s.start // pair.ratio, s.stop // pair.ratio) for s in (rows, columns))
        ms, ms_null = (x[:, :, rows, columns] for x in (ms, ms_null))
    empty = ms_null.all(1, keepdim=True)
    return ms, pan, pan_null | empty.repeat_interleave(pair.ratio, 2).repeat_interleave(pair.ratio, 3)


def read_reflectance(reader, window, scale):
    """(ms (1, C, h, w), pan (1, 1, H, W) reflectance, where ms, where pan is null, bool, of the same shapes); null values are 0."""
    divide_by, offset = scale
    images, nulls = [], []
    for values, nodata in zip((reader.read_ms(*window), reader.read_pan(*window)), reversed(reader.pair.nodata), strict=True):
        null = is_null(values, nodata)
        reflectance = (values.astype(np.float32) + np.float32(offset)) / np.float32(divide_by)
        reflectance[null] = 0
        images.append(torch.from_numpy(reflectance)[None])
        nulls.append(torch.from_numpy(null)[None])
    return *images, *nulls


@contextmanager
def reading_errors(pair):
    """Unreadable pixels as one line: a sharpened image with holes where the files have none would be a lie."""
    try:
        yield
    except RasterioError as error:
        raise RunError(f"{pair.pan} or {pair.ms} can't be read ({' '.join(str(error).split())[:160]}); nothing was written") from error


def refuse_inputs(pair, path):
    """UserError where the output is an input, by whatever name."""
    for source in (pair.pan, pair.ms):
        if not is_remote(source) and os.path.exists(path) and os.path.samefile(source, path):
            raise UserError(f"{path} is one of the inputs; choose another output")


@dataclass(frozen=True)
class OutputForm:
    """
    How results are stored: dtype, nodata, number of bands, their names; (divide_by, offset) of reflectance, None for sRGB.

    scales, offsets: GDAL's tags of the bands, as ms has them.
    """

    dtype: str
    nodata: float
    descriptions: tuple
    scale: tuple
    scales: tuple = ()
    offsets: tuple = ()


def choose_form(pair, target, rgb, scale):
    """OutputForm for a sharpener's target. UserError for a picture of bands that have no colour."""
    if rgb or target == "oklab":
        if target != "oklab" and not has_colour(pair.bands):
            raise UserError(f"--rgb needs bands named blue, green and red; {pair.ms} has {', '.join(pair.bands)} (name them with --bands)")
        return OutputForm("uint16", 0, DESCRIPTIONS, None)
    nodata = 0 if pair.nodata[1] is None else pair.nodata[1]
    info = describe(pair.ms)
    scales, offsets = ([values[i - 1] for i in pair.indexes or range(1, info.count + 1)] for values in (info.scales, info.offsets))
    tagged = any(v != 1 for v in scales) or any(offsets)
    return OutputForm(pair.dtypes[1], nodata, pair.bands, scale, *((tuple(scales), tuple(offsets)) if tagged else ()))


def store(image, null, form, target, bands):
    """(1, K, H, W) reflectance or Oklab and (1, 1, H, W) null -> numpy (K', H, W) in the output's type; a valid pixel is never nodata."""
    if form.scale is None:
        oklab = image if target == "oklab" else bands_to_oklab(image, bands)
        values = (oklab_to_srgb(oklab)[0] * 65535).numpy()
    else:
        values = (image[0] * form.scale[0] - form.scale[1]).numpy()
    kind = np.dtype(form.dtype)
    if kind.kind in "iu":
        limits = np.iinfo(kind)
        # in float64, because the largest int32 has no float32
        values = np.rint(values.astype(np.float64)).clip(limits.min, limits.max).astype(kind)
        if form.nodata == form.nodata:
            neighbour = form.nodata + 1 if form.nodata < limits.max else form.nodata - 1
            values[values == form.nodata] = neighbour
    else:
        values = values.astype(kind)
        # GDAL takes floats that differ in the last digits only for the same: a step that it can see
        aside = 1e-6 * abs(form.nodata) or np.nextafter(kind.type(0), kind.type(1))
        values[np.abs(values - form.nodata) < aside] = form.nodata + aside
    values[:, null[0, 0].numpy()] = form.nodata
    return values


def settings_of(pair, sharpener, scale, rgb, apron=None):
    """A hash of all that decides the pixels; the block's size does not, nor does an apron (in pan pixels) that is wide enough."""
    narrow = {} if apron is None or apron >= sharpener.reach else {"apron": apron}
    sources = []
    for path in (pair.pan, pair.ms):
        info = describe(path)
        sources.append([path, info.size, info.mtime, info.width, info.height, *mask_stamps(path).values()])
    return settings_hash({
        "sources": sources, "shift": pair.shift, "area": pair.area, "with": sharpener.name, "scale": scale, "rgb": rgb, "bands": pair.bands,
        "indexes": pair.indexes, **narrow, **({"masked": pair.masked} if any(m is not None for m in pair.masked) else {}),
    })


def is_done(path, pair, sharpener, scale, rgb, apron=None):
    """Whether `path` is there and holds what these inputs and settings make."""
    return os.path.exists(path) and describe(path).tags.get("SETTINGS") == settings_of(pair, sharpener, scale, rgb, apron)


def fuse(pair, path, sharpener, scale, *, rgb=False, block=512, apron=None, overwrite=False, progress=None):
    """
    Write the sharpened raster of a pair to `path`, a COG. scale: (divide_by, offset) of both inputs.

    block: pan pixels of a block's side without its apron. apron: pan pixels, by default the sharpener's reach; both are rounded up to
    whole ms pixels. progress(n): called after n blocks. Nothing is left behind when it fails.
    Returns {"width", "height", "valid_fraction"}.
    """
    refuse_inputs(pair, path)
    refuse_existing([path], overwrite)
    form = choose_form(pair, sharpener.target, rgb, scale)
    ratio = pair.ratio
    side = max(1, -(-block // ratio))
    reach = -(-sharpener.reach // ratio)
    apron = reach if apron is None else -(-apron // ratio)
    width, height = pair.area[2] * ratio, pair.area[3] * ratio
    cores = blocks_of(pair.area, side)
    valid = 0
    output = write_cog(
        path, height=height, width=width, count=len(form.descriptions), dtype=form.dtype, crs=pair.fine_crs(),
        transform=pair.fine_transform(), nodata=form.nodata, descriptions=form.descriptions, scales=form.scales, offsets=form.offsets,
        overviews="values", compress="ZSTD",
        tags={"SHARPENED_WITH": sharpener.name, "SETTINGS": settings_of(pair, sharpener, scale, rgb, apron * ratio)},
    )
    ahead, behind = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
    with PairReader(pair) as reader, output as writer, ahead, behind, reading_errors(pair):

        def read(core):
            window, cut = with_apron(core, pair, apron)
            return core, cut, read_block(reader, window, scale, reach)

        def keep(core, image, null):
            """Put a block into the strip of rows it belongs to; a full strip is written."""
            left = (core[0] - pair.area[0]) * ratio
            place = strip[:, : core[3] * ratio, left : left + core[2] * ratio]
            place[:] = form.nodata if image is None else store(image, null, form, sharpener.target, pair.bands)
            if core[0] + core[2] == pair.area[0] + pair.area[2]:
                writer.write(strip[:, : core[3] * ratio])

        # one block is read, and one stored, while the one between them is computed
        strip = np.empty((len(form.descriptions), min(side, pair.area[3]) * ratio, width), form.dtype)
        coming, going = ahead.submit(read, cores[0]), None
        for number in range(len(cores)):
            core, (rows, columns), (ms, pan, null) = coming.result()
            if number + 1 < len(cores):
                coming = ahead.submit(read, cores[number + 1])
            inner = null[:, :, rows, columns]
            image = None if inner.all() else sharpener.run(ms, pan)[:, :, rows, columns]
            valid += int((~inner).sum())
            if going:
                going.result()
            going = behind.submit(keep, core, image, inner)
            if progress:
                progress(1)
        going.result()
    return {"width": width, "height": height, "valid_fraction": valid / (width * height)}


def select_bands(pair, wanted=None, given=None):
    """
    (the pair, reading the wanted bands of ms in their order; how they were found, in words). UserError where that is not certain.

    wanted: the checkpoint's bands; None for classical methods, which take all. given: of --bands, names or numbers from 1. Names that
    the file does not know are new names for its bands, one each: files without descriptions get theirs so.
    """
    info = describe(pair.ms)
    pair, how = find_bands(pair, info, wanted, given)
    if (given or how == "by name") and info.alpha_band is not None and info.alpha_band + 1 in (pair.indexes or range(1, info.count + 1)):
        pair = with_alpha_as_data(pair, info)
    return pair, how


def find_bands(pair, info, wanted, given):
    """As select_bands, but what hides pixels is still what the file alone says."""
    own = pair.indexes or tuple(range(1, info.count + 1))  # all but an alpha band
    says_what = any((name or "").strip().lower() in WORLDVIEW_BANDS for name in info.descriptions)
    if given and not any(word.isdigit() or find_band(info.descriptions, word) for word in given):
        if len(given) == info.count:  # who names every band says that none of them is alpha
            own = tuple(range(1, info.count + 1))
        elif len(given) != len(own):
            raise UserError(f"--bands has {len(given)} names, {pair.ms} has {len(own)} bands")
        names = dict(zip(own, given, strict=True))
        info, says_what = replace(info, descriptions=tuple(names.get(i + 1) for i in range(info.count))), True
        pair, given = replace(pair, bands=tuple(given), indexes=None if len(own) == info.count else own), None
    if wanted is not None:
        indexes, how = match_bands(info, wanted, given)
        if how == "by order" and says_what:  # names of other bands are no order
            raise UserError(f"{pair.ms} has bands {', '.join(info.descriptions)}; the checkpoint wants {', '.join(wanted)}. Pass --bands "
                            "with the numbers (from 1) of these in the file")
        return replace(pair, bands=tuple(wanted), indexes=tuple(indexes)), how
    if given:
        indexes = tuple(number_of(info, info.descriptions, word) for word in given)
        names = dict(zip(own, pair.bands, strict=True))
        return replace(pair, bands=tuple(names.get(i, f"band_{i}") for i in indexes), indexes=indexes), "as given"
    return pair, "as stored"


def check_ratio(checkpoint, pair):
    """UserError where a checkpoint is for another ratio than that of these images."""
    ratio = checkpoint["data"]["ratio"]
    if ratio != pair.ratio:
        raise UserError(f"the checkpoint is for pan {ratio} times as fine as ms, here it is {pair.ratio} times; pass another")
