"""What is in a delivered product, what is used of it for what, and a picture of it with its clouds."""

from pathlib import Path

import numpy as np
from rasterio.errors import RasterioError

from constants import IGNORE
from pictures.encoding import save_png
from pictures.overlays import class_overlay
from pictures.sheets import legend_strip
from pictures.stretch import any_picture
from raster.nodata import valid_pixels
from raster.product import wavelength_words
from raster.product_clouds import FORMS
from raster.rules import NotAllowed
from raster.scale import scale_from_tags, to_reflectance
from raster.source import describe, open_raster
from raster.windows import thin_shape
from runtime.errors import UserError
from runtime.files import refuse_existing, require_writable
from runtime.words import plural

LONGEST = 768  # pixels of a picture's longer side
MOST = 20  # scenes of an item collection that are described
SHOWN = ("red", "green", "blue")
CLOUDS = (((0, 0, 0), "clear"), ((213, 94, 0), "cloud"), ((240, 228, 66), "thin cloud"), ((0, 114, 178), "shadow"))


def inspect_products(scenes, output, pictures, overwrite, say):
    """
    Describe ProductScenes line by line, and draw each. output: path of the picture of one scene; by default <scene>.png in this folder.

    UserError where none of them can be used; those of several that cannot are said.
    """
    if output and len(scenes) > 1:
        raise UserError(f"--output is for one scene, and there are {len(scenes)}; leave it out, or pass --no-pictures")
    files = {scene.name: Path(output or f"{scene.name}.png") for scene in scenes[:MOST]} if pictures else {}
    refuse_existing(files.values(), overwrite or not output)
    problems = []
    for scene in scenes[:MOST]:
        try:
            headers = headers_of(scene)
            for line in product_lines(scene, headers):
                say(line)
            if scene.name in files:
                require_writable(files[scene.name].resolve().parent)
                save_png(files[scene.name], picture_of(usable(scene, headers)))
                say(f"picture: {files[scene.name]}")
        except (UserError, RasterioError) as error:
            if len(scenes) == 1 or isinstance(error, NotAllowed):
                raise error if isinstance(error, UserError) else UserError(f"{scene} can't be read ({error.__cause__ or error})") from error
            problems.append(scene.name)
            say(f"{scene}: {error}")
    if len(scenes) > MOST:
        say(f"and {plural(len(scenes) - MOST, 'more scene')}")
    if len(problems) == len(scenes):
        raise UserError(f"none of {len(scenes)} scenes can be used")


def product_lines(scene, headers):
    """Lines of text about a ProductScene. headers: of headers_of."""
    product = scene.product
    yield f"{scene}: {product.words}{f', {product.level} reflectance' if product.level else ''}"
    yield "  " + ", ".join(f"{what} {text}" for what, text in (("acquired", product.time or "not stated"), *product.facts))
    yield from band_lines(scene, headers)
    if product.scale_unknown:
        yield f"  scale: {product.scale_unknown}"
    if product.clouds:
        yield f"  clouds: {FORMS[product.clouds.form][2]}{shares_words(usable(scene, headers))}"
    else:
        yield f"  clouds: {product.no_clouds}"
    for remark in product.remarks:
        yield f"  {remark}"


def headers_of(scene):
    """{name of a band: RasterInfo, or the text of the error} of all bands. UserError where the product as a whole cannot be used."""
    scene.product.require_usable()
    headers = {}
    for band in scene.bands:
        try:
            headers[band.name] = describe(scene.with_bands([band.name]))
        except (UserError, RasterioError) as error:
            if isinstance(error, NotAllowed):
                raise
            headers[band.name] = str(error)
    return headers


def usable(scene, headers):
    """The scene of red, green and blue where they can be opened, else of the first band that can. UserError where none can."""
    fine = [name for name, info in headers.items() if not isinstance(info, str)]
    if not fine:
        raise UserError(f"no band of {scene} can be opened; the first: {next(iter(headers.values()))}")
    shown = [found[0].name for word in SHOWN if len(found := scene.product.find(word)) == 1 and found[0].name in fine]
    return scene.with_bands(shown if len(shown) == len(SHOWN) else fine[:1])


def band_lines(scene, headers):
    """A table of the bands; those whose file is missing or damaged are said."""
    wide = max(len(band.name) for band in scene.bands) + 1
    yield f"  {'band':{wide}} file's  common      middle   metres  reflectance                nodata"
    for band in scene.bands:
        info = headers[band.name]
        if isinstance(info, str):
            yield f"  {band.name:{wide}} {info}"
            continue
        scale = None if info.scale_unknown else scale_from_tags(info, [0])
        words = f"(value {scale.offset[0]:+g}) / {scale.divide_by[0]:g}" if scale else "scale not known"
        metres = abs(info.transform.a) if info.crs is not None and info.crs.is_projected else band.resolution or float("nan")
        nodata = "none" if info.nodata is None else f"{info.nodata:g}"
        yield (f"  {band.name:{wide}} {band.own_name:7s} {band.common:11s} {wavelength_words(band.wavelength):8s} {metres:6g}  "
               f"{words:26s} {nodata}").rstrip()


def shares_words(scene):
    """`; here clear 83.3 %, cloud …` of a thinned-out reading, or why it cannot be read."""
    try:
        classes = thinned_clouds(scene)
    except (UserError, RasterioError) as error:
        return f"; it can't be read ({error})"
    known = max(1, np.count_nonzero(classes != IGNORE))
    return "; here " + ", ".join(f"{words} {100 * np.count_nonzero(classes == n) / known:.1f} %" for n, (_, words) in enumerate(CLOUDS))


def thinned_clouds(scene):
    with open_raster(scene.clouds()) as dataset:
        return dataset.read(1, out_shape=thin_shape(dataset.height, dataset.width, LONGEST))


def picture_of(chosen):
    """
    (H, W, 3) uint8 of the scene of `usable`: red, green and blue, or one band in grey, beside the same with the clouds drawn over it;
    sensor and date above.
    """
    info = describe(chosen)
    with open_raster(chosen) as dataset:
        pixels = dataset.read(out_shape=(info.count, *thin_shape(info.height, info.width, LONGEST)))
    scale = None if info.scale_unknown else scale_from_tags(info, range(info.count))
    values = pixels.astype(np.float32)
    reflectance = to_reflectance(values, scale.divide_by, scale.offset) if scale else values / max(1.0, np.percentile(values, 98))
    reflectance[:, ~valid_pixels(pixels, tuple(info.nodatavals))] = 0
    picture = any_picture(reflectance, SHOWN if info.count == len(SHOWN) else info.descriptions)
    views, legend = [picture], [(None, chosen.product.words)]
    if chosen.product.clouds:
        classes = thinned_clouds(chosen)
        views.append(class_overlay(picture, classes, [colour for colour, _ in CLOUDS], 0.7))
        legend += CLOUDS[1:]
    times = max(1, -(-256 // max(picture.shape[:2])))  # small scenes are enlarged, so that pixels stay square
    views = [view.repeat(times, axis=0).repeat(times, axis=1) for view in views]
    gap = np.full((views[0].shape[0], 6, 3), 255, np.uint8)
    sheet = np.concatenate([part for view in views for part in (view, gap)][:-1], axis=1)
    return np.concatenate([legend_strip(legend, sheet.shape[1]), sheet])
