"""Scenes that come as one file a band become one VRT each, which refers to the files and copies no pixels."""

import math
import os
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from raster.hidden import data_bands
from raster.source import describe, is_remote, scene_name
from runtime.errors import UserError, did_you_mean
from runtime.files import refuse_link, require_writable, write_text

TOUCH = 0.01  # pixels of the grid that a file may end beside its edge and still reach it
RESOLUTION_WORDS = ("10m", "20m", "60m")  # the last part of the names in a Sentinel-2 L2A product
GDAL_NAMES = {"uint8": "Byte", "int8": "Int8", "uint16": "UInt16", "int16": "Int16", "uint32": "UInt32", "int32": "Int32",
              "float32": "Float32", "float64": "Float64"}


def stack_bands(paths, bands, folder, is_excluded=lambda scene: False):
    """
    One VRT a scene below `folder` from single-band files.

    paths: all files. bands: words such as B02, B8A in the order of the result; a file belongs to the band that is an underscore-delimited
    part of its stem, and to the scene that remains without this part (and without 10m, 20m or 60m). Where a band is there in several
    resolutions, the finest is taken; the grid is that of the finest band of the scene, coarser pixels are repeated. is_excluded(scene):
    leave it out before its files are looked at.

    Returns ({scene: path of the VRT}, {scene: source}): path, and size and mtime of what the VRT stands for, a list each, in the order of
    the bands; None where all files are remote.
    """
    bands = [band.strip() for band in bands]
    if len(set(bands)) != len(bands) or not all(bands):
        raise UserError(f"--stack names a band twice or not at all: {','.join(bands)}")
    scenes = {}
    for path in paths:
        parts = scene_name(path).split("_")
        found = [band for band in bands if band in parts]
        if len(found) > 1:
            raise UserError(f"{path} has {' and '.join(found)} in its name; --stack can't tell which band it is")
        if found:
            name = "_".join(p for p in parts if p != found[0] and p not in RESOLUTION_WORDS) or "scene"
            scenes.setdefault(name, {}).setdefault(found[0], []).append(path)
    if not scenes:
        parts = {part for path in paths for part in scene_name(path).split("_")}
        raise UserError(f"no file name has one of --stack {','.join(bands)} as a part between underscores.{did_you_mean(bands[0], parts)}")
    stacks, sources = {}, {}
    for name in sorted(name for name in scenes if not is_excluded(name)):
        missing = [band for band in bands if band not in scenes[name]]
        if missing:
            raise UserError(f"scene {name} has no file for {', '.join(missing)} of --stack; add it, or leave it out (--exclude {name})")
        try:
            chosen = [finest([describe(path) for path in scenes[name][band]], band) for band in bands]
        except UserError as error:
            if error.__cause__ is None:  # it opened, and does not fit
                raise
            raise UserError(f"{error}; mend it, or leave scene {name} out (--exclude {name})") from error
        text = stack_xml(chosen, bands)
        stacks[name] = str(Path(folder) / f"{name}.vrt")
        if not os.path.exists(stacks[name]) or Path(stacks[name]).read_text(encoding="utf-8") != text:
            refuse_link(folder)
            require_writable(folder)
            write_text(stacks[name], text)
        known = any(info.size is not None for info in chosen)
        sources[name] = {  # of each file: a sum or the latest would hide that one of them has changed. Lists, as JSON gives them back
            "path": os.path.abspath(stacks[name]),
            "size": [info.size for info in chosen] if known else None,
            "mtime": [info.mtime for info in chosen] if known else None,
        }
    return stacks, sources


def finest(infos, band):
    """The file of a band with the smallest pixels; two equal ones are an error."""
    infos = sorted(infos, key=lambda info: (abs(info.transform.a), info.path))
    if data_bands(infos[0]).bands != (1,):
        raise UserError(f"{infos[0].path} has {infos[0].count} bands; --stack expects one band a file")
    if len(infos) > 1 and abs(infos[0].transform.a) == abs(infos[1].transform.a):
        raise UserError(f"two files for band {band} of one scene: {infos[0].path} and {infos[1].path}; narrow --images")
    return infos[0]


def stack_xml(infos, names):
    """The VRT's text: bands on the grid of the finest of `infos` (RasterInfo of one band each)."""
    grid = min(infos, key=lambda info: abs(info.transform.a))
    wkt = grid.crs.to_wkt() if grid.crs is not None else ""
    lines = [
        f'<VRTDataset rasterXSize="{grid.width}" rasterYSize="{grid.height}">',
        f"  <SRS>{escape(wkt)}</SRS>" if wkt else "",
        "" if has_points_alone(grid) else f"  <GeoTransform>{', '.join(repr(float(v)) for v in grid.transform.to_gdal())}</GeoTransform>",
        *(grid.sensor_place.vrt() if grid.sensor_place else ()),
    ]
    for number, (info, name) in enumerate(zip(infos, names, strict=True), start=1):
        if info.crs != grid.crs:
            raise UserError(f"{info.path} and {grid.path} have different coordinate systems; --stack needs one a scene")
        if data_bands(info).masked is not None:  # a VRT has one mask for all bands, and these may hide different pixels
            what = "a mask of its own" if info.alpha_band is None else "an alpha band"
            raise UserError(f"{info.path} has {what}, which --stack would lose; write it as nodata (gdalwarp -dstnodata 0 A B)")
        placed = ~grid.transform * info.transform
        left, top = placed * (0, 0)
        right, bottom = placed * (info.width, info.height)
        if placed.b or placed.d or right <= left or bottom <= top:
            raise UserError(f"{info.path} is turned against {grid.path}; warp it first (gdalwarp)")
        if (
            abs(left) > 1 + placed.a
            or abs(top) > 1 + placed.e
            or abs(right - grid.width) > 1 + placed.a
            or abs(bottom - grid.height) > 1 + placed.e
        ):
            raise UserError(f"{info.path} does not cover the ground of {grid.path}; --stack needs bands of one scene")
        kind = GDAL_NAMES.get(info.dtypes[0])
        if kind is None:
            raise UserError(f"{info.path} has the type {info.dtypes[0]}; expected integers or real numbers")
        shape = f'RasterXSize="{info.width}" RasterYSize="{info.height}" DataType={quoteattr(kind)}'
        rows, columns = info.block_shapes[0]
        nodata = f"<NoDataValue>{info.nodata!r}</NoDataValue>" if info.nodata is not None else ""
        lines += [
            f'  <VRTRasterBand dataType="{kind}" band="{number}">',
            f"    <Description>{escape(name)}</Description>{nodata}<Scale>{info.scales[0]!r}</Scale><Offset>{info.offsets[0]!r}</Offset>",
        ]
        place = (left, top, right - left, bottom - top)
        for source, target in [*border(info, place, grid), ((0, 0, info.width, info.height), place)]:
            lines += [
                "    <SimpleSource>",
                f'      <SourceFilename relativeToVRT="0">{escape(gdal_path(info.path))}</SourceFilename><SourceBand>1</SourceBand>',
                f'      <SourceProperties {shape} BlockXSize="{columns}" BlockYSize="{rows}"/>',
                f"      <SrcRect {rectangle(source)}/>",
                f"      <DstRect {rectangle(target)}/>",
                "    </SimpleSource>",
            ]
        lines.append("  </VRTRasterBand>")
    return "\n".join(line for line in [*lines, "</VRTDataset>"] if line) + "\n"


def has_points_alone(info):
    return info.sensor_place is not None and bool(info.sensor_place.gcps) and info.transform.is_identity


def border(info, place, grid):
    """
    [(source, target)], rectangles of a band's file and of the grid: its outermost pixels over the ground at the grid's edges that it does
    not reach, empty where it covers all. place: the file's own rectangle in the grid.

    25 rows of 10 m are twelve and a half of 20 m, so the coarser file ends early, and GDAL would read 0 there, a value like any other.
    Repeated pixels differ from their neighbours no more than coarse pixels do; cutting the scene to the area that all bands share would
    take it off the grid of its masks.
    """

    def strips(first, size, pixels, whole):
        """(source's offset and size, target's) along one axis: before the file, the file, and after it."""
        last = first + size
        before = [((0, 1), (0, math.ceil(first)))] if first > TOUCH else []
        after = [((pixels - 1, 1), (math.floor(last), whole - math.floor(last)))] if whole - last > TOUCH else []
        return [*before, ((0, pixels), (first, size)), *after]

    left, top, width, height = place
    found = []
    for (y, source_height), (row, target_height) in strips(top, height, info.height, grid.height):
        for (x, source_width), (column, target_width) in strips(left, width, info.width, grid.width):
            target = (column, row, target_width, target_height)
            if target != place:
                found.append(((x, y, source_width, source_height), target))
    return found


def rectangle(numbers):
    return " ".join(f'{name}="{number!r}"' for name, number in zip(("xOff", "yOff", "xSize", "ySize"), numbers, strict=True))


def gdal_path(path):
    """What GDAL calls a local file, an s3:// object or an https:// address."""
    if not is_remote(path):
        return os.path.abspath(path)
    if path.startswith("s3://"):
        return "/vsis3/" + path.removeprefix("s3://")
    return "/vsicurl/" + path
