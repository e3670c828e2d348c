"""
Writes rasters row by row and finishes them as Cloud Optimized GeoTIFFs.

GDAL's COG driver would buffer the whole raster: rows go to a tiled GeoTIFF first, which the driver then copies. Overviews of classes (every
second, fourth … pixel) are written along with the rows, in half the time that the driver takes to read everything again for them. All of
these, and the driver's own temporary files, are in a hidden folder beside the final file, which is renamed into place when it is complete.
"""

import contextlib
import os
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.windows import Window

from raster.source import without_georeference_warning
from runtime.errors import RunError
from runtime.files import scratch_folder, sync_file

TILE = 512  # pixels; also the height of the rows that are kept back until they fill a row of tiles
CACHE_BYTES = 16 << 20  # every tile is written and copied once: more would only fill up
OVERVIEWS = {"classes": "NEAREST", "values": "AVERAGE"}


class RowWriter:
    """
    Takes the rows of a raster from top to bottom, in pieces of any height; memory is one row of tiles.

    thinned: [(step, RowWriter)] that get every step-th pixel of every step-th row.
    """

    def __init__(self, dataset, thinned=()):
        self.dataset, self.thinned = dataset, thinned
        self.row = 0  # first row that has not been written to the file
        self.kept = np.empty((dataset.count, TILE, dataset.width), dtype=dataset.dtypes[0])
        self.filled = 0

    def write(self, rows):
        """rows: (H, W), or (bands, H, W); they follow those of the last call."""
        rows = rows[None] if rows.ndim == 2 else rows
        first = self.row + self.filled
        if first + rows.shape[1] > self.dataset.height:
            raise ValueError(f"{first + rows.shape[1]} rows for a raster of {self.dataset.height}")
        for step, writer in self.thinned:
            writer.write(rows[:, -first % step :: step, ::step])
        done = 0
        while done < rows.shape[1]:
            count = min(TILE - self.filled, rows.shape[1] - done)
            self.kept[:, self.filled : self.filled + count] = rows[:, done : done + count]
            self.filled += count
            done += count
            if self.filled == TILE:
                self.flush()

    def flush(self):
        if self.filled:
            window = Window(0, self.row, self.dataset.width, self.filled)
            self.dataset.write(self.kept[:, : self.filled], window=window)
            self.row += self.filled
            self.filled = 0

    def finish(self):
        """Write what is left and close the files. ValueError where rows are missing."""
        self.flush()
        if self.row != self.dataset.height:
            raise ValueError(f"{self.row} rows were written to a raster of {self.dataset.height}")
        self.dataset.close()
        for _, writer in self.thinned:
            writer.finish()


@contextlib.contextmanager
def write_cog(
    path, *, height, width, count=1, dtype="uint8", crs=None, transform=None, nodata=None,
    descriptions=(), colours=None, scales=(), offsets=(), tags=None, band_tags=(), overviews="classes",
    compress="DEFLATE", sensor_place=None, interpretations=(),
):
    """
    A RowWriter whose rows become the Cloud Optimized GeoTIFF `path` when the block ends well; nothing is left when it does not.

    colours: {value: (red, green, blue)} for the first band. scales, offsets: per band, value = stored · scale + offset.
    overviews: "classes" takes the nearest pixel, "values" the average. compress: "ZSTD" suits large images of many bands,
    at half the time of "DEFLATE"; GDAL before 2.3 can't read it. BigTIFF is used where the size may need it.
    interpretations: of rasterio.enums.ColorInterp, one a band, by which programs show red, green and blue as such.
    sensor_place: SensorPlace or None; its ground control points are left out where there is a CRS, the transform where there is none.
    RunError where the file can't be written (a full disk).
    """
    path = Path(path)
    integer = np.issubdtype(np.dtype(dtype), np.integer)
    profile = {
        "driver": "GTiff", "height": height, "width": width, "count": count, "dtype": dtype, "crs": crs, "nodata": nodata,
        "tiled": True, "blockxsize": TILE, "blockysize": TILE, "interleave": "pixel",
        "compress": "ZSTD", "zstd_level": 1, "predictor": 1 if integer else 3, "bigtiff": "IF_SAFER", "num_threads": thread_count(),
    }
    if transform is not None and not transform.is_identity and (sensor_place is None or crs is not None):
        profile["transform"] = transform
    # Deflate is what every reader knows. Level 2 takes two thirds of the time of level 6; a map of 1.7 billion pixels is then 60 MB.
    finish = {
        "driver": "COG", "compress": compress, "level": 2 if integer and compress == "DEFLATE" else 1,
        "predictor": "NO" if overviews == "classes" else "YES",
        "blocksize": TILE, "bigtiff": "IF_SAFER", "overview_resampling": OVERVIEWS[overviews], "num_threads": thread_count(),
    }
    try:
        with contextlib.ExitStack() as stack:
            scratch = stack.enter_context(scratch_folder(scratch_of(path)))
            stage, temporary = scratch / "rows.tif", scratch / path.name
            cache = cache_bytes(count * np.dtype(dtype).itemsize)
            stack.enter_context(rasterio.Env(GDAL_CACHEMAX=cache, GDAL_PAM_ENABLED="NO", CPL_TMPDIR=str(scratch)))
            thinned = []
            for step in overview_steps(height, width) if overviews == "classes" else ():
                small = {**profile, "height": -(-height // step), "width": -(-width // step)}
                dataset = stack.enter_context(create(stage.with_suffix(f".{step}.tif"), small))
                thinned.append((step, RowWriter(dataset)))
            dataset = stack.enter_context(create(stage, profile))
            describe_bands(dataset, descriptions, colours, scales, offsets, tags, band_tags)
            if interpretations:
                dataset.colorinterp = tuple(interpretations)
            if sensor_place is not None:
                sensor_place.write(dataset, with_grid="transform" in profile)
            writer = RowWriter(dataset, thinned)
            yield writer
            writer.finish()
            rasterio.shutil.copy(with_overviews(stage, [step for step, _ in thinned]), temporary, **finish)
            require_whole(temporary)
            sync_file(temporary)
            os.replace(temporary, path)
    except Exception as error:
        if not is_of_gdal(error):
            raise
        raise RunError(f"{path} can't be written ({' '.join(str(error).split())[:200]}); is the disk full?") from error


def cache_bytes(pixel):
    """GDAL's memory for tiles, of the bytes of a pixel: averages look at four tiles for one, and a tile of many bands is large."""
    return max(CACHE_BYTES, 32 * TILE * TILE * pixel)


def is_of_gdal(error):
    """Whether GDAL reported an error. What it reports while files are copied has no public class: the module of the class tells."""
    return type(error).__module__.split(".")[0] == "rasterio"


def scratch_of(path):
    """The hidden folder for temporary files of the raster `path`."""
    path = Path(path)
    return path.with_name(f".{path.stem}.part")


def create(path, profile):
    with without_georeference_warning():
        return rasterio.open(path, "w", **profile)


def overview_steps(height, width):
    """[2, 4, …]: each overview has half the pixels a side, until one tile holds all."""
    steps = []
    while max(height, width) > TILE * (steps[-1] if steps else 1):
        steps.append(2 * (steps[-1] if steps else 1))
    return steps


def with_overviews(stage, steps):
    """A VRT of the rows in `stage` with their overviews, which are separate files; `stage` itself if there are none."""
    if not steps:
        return stage
    bound = stage.with_suffix(".vrt")
    rasterio.shutil.copy(stage, bound, driver="VRT")
    first, *bands = bound.read_text(encoding="utf-8").split("</VRTRasterBand>")
    text = first
    for band, rest in enumerate(bands, start=1):
        for step in steps:
            name = escape(stage.with_suffix(f".{step}.tif").name)
            text += f'<Overview><SourceFilename relativeToVRT="1">{name}</SourceFilename><SourceBand>{band}</SourceBand></Overview>'
        text += "</VRTRasterBand>" + rest
    bound.write_text(text, encoding="utf-8")
    return bound


def thread_count():
    """Threads for compression: as many as this process may use."""
    return str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def describe_bands(dataset, descriptions, colours, scales, offsets, tags, band_tags):
    """Write what the header holds beside the shape. Before the first pixel, so that GDAL need not write the header twice."""
    if colours:
        # Values without a class are transparent, as QGIS and GDAL show nodata.
        table = {value: (*colours[value], 255) if value in colours else (0, 0, 0, 0) for value in range(256)}
        dataset.write_colormap(1, table)
    for band, text in enumerate(descriptions, start=1):
        dataset.set_band_description(band, text)
    if scales:
        dataset.scales = tuple(scales)
    if offsets:
        dataset.offsets = tuple(offsets)
    if tags:
        dataset.update_tags(**tags)
    for band, values in enumerate(band_tags, start=1):
        dataset.update_tags(band, **values)


def require_whole(path):
    """
    RunError unless the file's last tile can be read.

    GDAL reports no error where a write fails while a file is being closed; but a COG ends with the tiles of the full resolution, so if the
    last one can be read all are there.
    """
    try:
        with without_georeference_warning(), rasterio.open(path) as dataset:
            rows, columns = dataset.height, dataset.width
            for band in dataset.indexes:
                dataset.read(band, window=Window(columns - 1, rows - 1, 1, 1))
    except Exception as error:
        if not is_of_gdal(error):
            raise
        raise RunError(f"the raster was not written whole ({' '.join(str(error).split())[:160]}); is the disk full?") from error
