"""Fuses a pan and an ms raster of any size into one sharpened raster, block by block in bounded memory.

Every block is read with an apron as wide as the sharpener's reach, so blocks of any size give the same raster. The output is on pan's grid
(moved by a fraction of a pixel where pan does not nest in ms) by pan's georeference, in the type and scale of ms, or as 16-bit sRGB.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from pansharpening.blocks import blocks_of, read_block, reading_errors, with_apron
from pansharpening.output_form import choose_form, store
from raster.pair import PairReader
from raster.source import describe, is_remote, mask_stamps
from raster.writer import write_cog
from runtime.errors import UserError
from runtime.files import refuse_existing, settings_hash


@dataclass(frozen=True, kw_only=True)
class FuseSettings:
    """
    scale: (divide_by, offset) of both inputs. rgb: 16-bit sRGB in place of the bands. block: pan pixels of a block's side without apron.
    apron: pan pixels around a block that are read with it, None for the sharpener's reach. Both are rounded up to whole ms pixels.
    """

    scale: tuple
    rgb: bool = False
    block: int = 512
    apron: int | None = None

    def narrow_apron(self, ratio, reach):
        """The apron in pan pixels where it is less than a sharpener's reach, else None."""
        apron = reach if self.apron is None else -(-self.apron // ratio) * ratio
        return apron if apron < reach else None


def settings_of(pair, sharpener, settings):
    """A hash of all that decides the pixels; the block's size does not, nor does an apron that is wide enough."""
    apron = settings.narrow_apron(pair.ratio, sharpener.reach)
    narrow = {} if apron is None else {"apron": apron}
    sources = []
    for path in (pair.pan, pair.ms):
        info = describe(path)
        sources.append([path, info.size, info.mtime, info.width, info.height, *mask_stamps(path).values()])
    return settings_hash({
        "sources": sources, "shift": pair.shift, "area": pair.area, "with": sharpener.name, "scale": settings.scale, "rgb": settings.rgb,
        "bands": pair.bands, "indexes": pair.indexes, **narrow,
        **({"masked": pair.masked} if any(m is not None for m in pair.masked) else {}),
    })


def is_done(path, pair, sharpener, settings):
    """Whether `path` is there and holds what these inputs and settings make."""
    return os.path.exists(path) and describe(path).tags.get("SETTINGS") == settings_of(pair, sharpener, settings)


def refuse_inputs(pair, path):
    """UserError where the output is an input, by whatever name."""
    for source in (pair.pan, pair.ms):
        if not is_remote(source) and os.path.exists(path) and os.path.samefile(source, path):
            raise UserError(f"{path} is one of the inputs; choose another output")


def fuse(pair, path, sharpener, settings, *, overwrite=False, progress=None):
    """
    Write the sharpened raster of a pair to `path`, a COG. Nothing is left behind when it fails.

    settings: FuseSettings. progress(n): called after n blocks. Returns {"width", "height", "valid_fraction"}.
    """
    refuse_inputs(pair, path)
    refuse_existing([path], overwrite)
    form = choose_form(pair, sharpener.target, settings.rgb, settings.scale)
    sharpener.prepare()
    ratio = pair.ratio
    side = max(1, -(-settings.block // ratio))  # ms pixels, as are reach and apron
    reach = -(-sharpener.reach // ratio)
    apron = reach if settings.apron is None else -(-settings.apron // ratio)
    width, height = pair.area[2] * ratio, pair.area[3] * ratio
    output = write_cog(
        path, height=height, width=width, count=len(form.descriptions), dtype=form.dtype, crs=pair.fine_crs(),
        transform=pair.fine_transform(), sensor_place=pair.fine_sensor_place(), nodata=form.nodata, descriptions=form.descriptions,
        scales=form.scales, offsets=form.offsets, interpretations=form.interpretations,
        overviews="values", compress="ZSTD",
        tags={"SHARPENED_WITH": sharpener.name, "SETTINGS": settings_of(pair, sharpener, settings)},
    )
    with PairReader(pair) as reader, output as writer, reading_errors(pair):

        def read(core):
            window, cut = with_apron(core, pair, apron)
            return core, cut, read_block(reader, window, settings.scale, reach)

        strip = StripOfBlocks(writer, pair, form, sharpener.target, min(side, pair.area[3]))
        valid = sharpen_blocks(blocks_of(pair.area, side), read, sharpener.run, strip.put, progress)
    return {"width": width, "height": height, "valid_fraction": valid / (width * height)}


def sharpen_blocks(cores, read, run, put, progress=None):
    """
    Pass all blocks through the sharpener; one is read, and one stored, while the one between them is computed. → valid pixels.

    cores: blocks_of. read(core) → (core, (rows, columns) of it, read_block's). run: the sharpener's. put(core, image or None, nodata).
    """
    valid, going = 0, None
    with ThreadPoolExecutor(1) as ahead, ThreadPoolExecutor(1) as behind:
        coming = ahead.submit(read, cores[0])
        for number in range(len(cores)):
            core, (rows, columns), (ms, pan, nodata) = coming.result()
            if number + 1 < len(cores):
                coming = ahead.submit(read, cores[number + 1])
            inner = nodata[:, :, rows, columns]
            image = None if inner.all() else run(ms, pan)[:, :, rows, columns]
            valid += int((~inner).sum())
            if going:
                going.result()
            going = behind.submit(put, core, image, inner)
            if progress:
                progress(1)
        going.result()
    return valid


class StripOfBlocks:
    """Puts blocks side by side into a strip of rows, which is written when it is full. rows: ms pixels of a strip's height."""

    def __init__(self, writer, pair, form, target, rows):
        self.writer, self.pair, self.form, self.target = writer, pair, form, target
        self.pixels = np.empty((len(form.descriptions), rows * pair.ratio, pair.area[2] * pair.ratio), form.dtype)

    def put(self, core, image, nodata):
        """core: of blocks_of. image: (1, K, H, W) of the sharpener, None where all is nodata. nodata: (1, 1, H, W) bool."""
        area, ratio = self.pair.area, self.pair.ratio
        left = (core[0] - area[0]) * ratio
        place = self.pixels[:, : core[3] * ratio, left : left + core[2] * ratio]
        place[:] = self.form.nodata if image is None else store(image, nodata, self.form, self.target, self.pair.bands)
        if core[0] + core[2] == area[0] + area[2]:
            self.writer.write(self.pixels[:, : core[3] * ratio])
