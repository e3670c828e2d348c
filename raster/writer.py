"""
Rasters written row by row and finished as Cloud Optimized GeoTIFFs.

Opening GDAL's COG driver for writing buffers the whole raster; so rows go to a tiled GeoTIFF first, which the driver then copies.
Both are temporary files beside the final one; the final name appears when everything is whole.
"""

import contextlib
import glob
import os
from pathlib import Path

import numpy as np
import rasterio
import rasterio.shutil
from rasterio._err import CPLE_BaseError  # what GDAL reports while files are copied; it has no public name
from rasterio.errors import RasterioError
from rasterio.windows import Window

from runtime.errors import RunError
from runtime.files import atomic_path

TILE = 512  # pixels; also the height of the rows that are kept back until they fill a row of tiles
CACHE_BYTES = 16 << 20  # every tile is written and copied once: more would only fill up
OVERVIEWS = {"classes": "NEAREST", "values": "AVERAGE"}


class RowWriter:
    """Takes the rows of a raster from top to bottom, in pieces of any height; memory is one row of tiles."""

    def __init__(self, dataset):
        self.dataset = dataset
        self.row = 0  # first row that has not been written to the file
        self.kept = np.empty((dataset.count, TILE, dataset.width), dtype=dataset.dtypes[0])
        self.filled = 0

    def write(self, rows):
        """rows: (H, W), or (bands, H, W); they follow those of the last call."""
        rows = rows[None] if rows.ndim == 2 else rows
        if self.row + self.filled + rows.shape[1] > self.dataset.height:
            raise ValueError(f"{self.row + self.filled + rows.shape[1]} rows for a raster of {self.dataset.height}")
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


@contextlib.contextmanager
def write_cog(
    path, *, height, width, count=1, dtype="uint8", crs=None, transform=None, nodata=None,
    descriptions=(), colours=None, scales=(), offsets=(), tags=None, band_tags=(), overviews="classes",
):  # fmt: skip
    """
    A RowWriter whose rows become the Cloud Optimized GeoTIFF `path` when the block ends well; nothing is left when it does not.

    colours: {value: (red, green, blue)} for the first band. scales, offsets: per band, value = stored · scale + offset.
    overviews: "classes" takes the nearest pixel, "values" the average. BigTIFF where the size may need it.
    RunError where the file can't be written (a full disk).
    """
    path = Path(path)
    integer = np.issubdtype(np.dtype(dtype), np.integer)
    profile = {
        "driver": "GTiff", "height": height, "width": width, "count": count, "dtype": dtype, "crs": crs, "nodata": nodata,
        "tiled": True, "blockxsize": TILE, "blockysize": TILE, "interleave": "pixel",
        "compress": "ZSTD", "zstd_level": 1, "predictor": 1 if integer else 3, "bigtiff": "IF_SAFER", "num_threads": thread_count(),
    }  # fmt: skip
    if transform is not None and not transform.is_identity:
        profile["transform"] = transform
    # Deflate is what every reader knows. Level 2 takes two thirds of the time of level 6; a map of 1.7 billion pixels is then 60 MB.
    finish = {
        "driver": "COG", "compress": "DEFLATE", "level": 2 if integer else 1, "predictor": "NO" if overviews == "classes" else "YES",
        "blocksize": TILE, "bigtiff": "IF_SAFER", "overview_resampling": OVERVIEWS[overviews], "num_threads": thread_count(),
    }  # fmt: skip
    stage = path.with_name(f".{path.stem}.{os.getpid()}.part.rows.tif")
    try:
        with atomic_path(path) as temporary, rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES, GDAL_PAM_ENABLED="NO", CPL_TMPDIR=str(path.parent)):
            with rasterio.open(stage, "w", **profile) as dataset:
                describe_bands(dataset, descriptions, colours, scales, offsets, tags, band_tags)
                writer = RowWriter(dataset)
                yield writer
                writer.flush()
                if writer.row != height:
                    raise ValueError(f"{writer.row} rows were written to a raster of {height}")
            rasterio.shutil.copy(stage, temporary, **finish)
            require_whole(temporary)
    except (RasterioError, CPLE_BaseError) as error:
        raise RunError(f"{path} can't be written ({' '.join(str(error).split())[:200]}); is the disk full?") from error
    finally:
        for leftover in path.parent.glob(f".{glob.escape(path.stem)}.{os.getpid()}.part*"):  # the COG driver's too
            leftover.unlink(missing_ok=True)


def thread_count():
    """Threads for compression: as many as this process may use."""
    return str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def describe_bands(dataset, descriptions, colours, scales, offsets, tags, band_tags):
    """What the header says beside the shape. Before the first pixel, so that GDAL need not write the header twice."""
    if colours:
        # Values without a class are transparent: QGIS and GDAL show nodata and gaps as nothing.
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

    A write that fails while a file is being closed raises nothing in GDAL; but a COG ends with the tiles of the full resolution,
    so whoever can read the last one has them all.
    """
    try:
        with rasterio.open(path) as dataset:
            rows, columns = dataset.height, dataset.width
            for band in dataset.indexes:
                dataset.read(band, window=Window(columns - 1, rows - 1, 1, 1))
    except (RasterioError, CPLE_BaseError) as error:
        raise RunError(f"the raster was not written whole ({' '.join(str(error).split())[:160]}); is the disk full?") from error
