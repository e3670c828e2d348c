"""A scene as slabs of rows from top to bottom, each block of the file decoded once."""

import contextlib
from dataclasses import dataclass

import numpy as np
import rasterio
from rasterio.errors import RasterioError
from rasterio.windows import Window

from constants import IGNORE
from raster.hidden import hidden_pixels
from raster.nodata import valid_on_dates
from raster.product_scene import cache_bytes
from raster.scene_path import ScenePath
from raster.source import is_remote, open_raster, read_bands
from raster.stacked import parts_of
from runtime.errors import RunError

PIECE_BYTES = 16 << 20  # read at once
CACHE_BYTES = 32 << 20  # for GDAL's decoded blocks: each is needed once, so that more would only fill up with the height of a scene
STRIP_ROWS = 128  # at least so many rows a slab, where blocks are lower


@dataclass
class Slab:
    """
    Rows of a scene.

    row: of the first. pixels: (C, rows, W), stored values as uint8, int16, uint16 or float32. valid: (rows, W) bool.
    unreadable: [[row, column, height, width, reason]] of blocks that could not be decoded; they are not valid.
    wanted: (rows, W) bool, what is to be mapped, or None for all; the network also sees valid pixels around it.
    column: of the scene that the slab begins with, where it is narrower.
    """

    row: int
    pixels: np.ndarray
    valid: np.ndarray
    unreadable: list
    wanted: np.ndarray | None = None
    column: int = 0


def read_slabs(plan, aoi=None, start_row=0, strict=False, margin=0):
    """
    Slabs of a scene that cover rows start_row … to the end. plan: SceneInput. aoi: function (row, height) → (height, W) bool, or None.
    margin: pixels around the area that are read too, a window's side, so that a map of an area is a part of the map of the scene. What the
    plan's clouds cover is not wanted.

    Blocks of a local file that can't be decoded are reported in the slab (RunError if strict); a remote file that stops answering is a
    RunError.
    """
    info = plan.info
    block_height, block_width = info.block_shapes[plan.indexes[0] - 1]
    height = slab_height(block_height)
    store = stored_type(info.dtypes[i - 1] for i in plan.indexes)
    # Of an image in one piece GDAL has to keep the whole, or would decode it for each slab anew.
    kept = block_height * block_width * len(plan.indexes) * np.dtype(info.dtypes[0]).itemsize if block_height > height else 0
    if isinstance(info.path, ScenePath):  # blocks of its files begin in different rows
        kept = max(kept, cache_bytes(info) // 2)
    with contextlib.ExitStack() as files:
        dataset = files.enter_context(open_raster(info.path))
        clouds = files.enter_context(open_raster(plan.clouds)) if plan.clouds is not None else None
        files.enter_context(rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES + 2 * kept))
        areas = {}  # the area in whole slabs, by their first rows: burned alike wherever a run begins, or an edge could fall otherwise
        for row in range(start_row // height * height, info.height, height):
            rows = min(height, info.height - row)
            wanted = near = None
            if aoi:
                top, bottom = max(0, row - margin), min(row + rows + margin, info.height)
                seen = range(top // height * height, bottom, height)
                areas = {r: areas[r] if r in areas else aoi(r, min(height, info.height - r)) for r in seen}
                around = np.concatenate(list(areas.values()))[top - seen.start : bottom - seen.start]
                wanted, near = areas[row] if clouds is None else areas[row].copy(), np.flatnonzero(around.any(axis=0))
            valid = np.zeros((rows, info.width), dtype=bool)
            slab = Slab(row, np.zeros((len(plan.indexes), rows, info.width), dtype=store), valid, [], wanted)
            columns = piece_width(info.width, block_width, rows * len(plan.indexes) * np.dtype(info.dtypes[0]).itemsize)
            for column in range(0, info.width, columns):
                part = slice(column, min(column + columns, info.width))
                if near is not None and not ((near >= part.start - margin) & (near < part.stop + margin)).any():
                    continue
                window = Window(column, row, part.stop - part.start, rows)
                read_piece(dataset, plan, window, slab, (block_height, block_width), strict)
                if clouds is not None:
                    slab.wanted = np.ones((rows, info.width), bool) if slab.wanted is None else slab.wanted
                    slab.wanted[:, part] &= ~cloudy(clouds, plan, window)
            yield slab


def cloudy(clouds, plan, window):
    """
    (h, w) bool of a window of an open CloudScene; of DatedClouds on any date. RunError where it cannot be read: a map without it would be
    another one.
    """
    try:
        found = [part.read(1, window=window) for part in parts_of(clouds)]
    except RasterioError as error:
        where = f"row {window.row_off} of {plan.clouds}"
        raise RunError(f"the clouds at {where} can't be read ({why(error)}); pass --no-clouds to map without them") from error
    return np.logical_or.reduce([(classes > 0) & (classes != IGNORE) for classes in found])


def slab_height(block_height):
    """Whole rows of blocks; of an image that is one huge block, a part (GDAL then keeps the decoded block)."""
    if block_height > 1024:
        return 256
    return block_height * max(1, -(-STRIP_ROWS // block_height))


def piece_width(width, block_width, bytes_a_column):
    """Columns that are read at once: whole blocks."""
    return min(width, max(1, PIECE_BYTES // (bytes_a_column * block_width)) * block_width)


def stored_type(dtypes):
    """The smallest of the types that a slab may have. Float64 and wide integers become float32: no imagery needs more digits."""
    common = np.result_type(*[np.dtype(d) for d in dtypes])
    return common if common in (np.uint8, np.int16, np.uint16) else np.dtype(np.float32)


def read_piece(dataset, plan, window, slab, block_shape, strict):
    """Fill a window of a slab; where it can't be read, block by block, so that only damaged blocks are lost."""
    try:
        fill(dataset, plan, window, slab)
        return
    except RasterioError as error:
        if is_remote(plan.info.path):
            where = f"{plan.info.path} stopped answering at row {window.row_off}"
            raise RunError(f"{where} ({why(error)}); run the same command again to continue") from error
    block_height, block_width = block_shape
    for row in range(window.row_off, window.row_off + window.height, block_height):
        for column in range(window.col_off, window.col_off + window.width, block_width):
            block = Window(
                column, row,
                min(block_width, window.col_off + window.width - column), min(block_height, window.row_off + window.height - row),
            )
            try:
                fill(dataset, plan, block, slab)
            except RasterioError as error:
                if strict:
                    raise RunError(f"{plan.info.path} can't be read at {block_words(block)} ({why(error)})") from error
                slab.unreadable.append([row, column, block.height, block.width, why(error)])


def why(error):
    """GDAL's own message on one line; rasterio's only says that there is one."""
    return " ".join(str(error.__cause__ or error).split())[:160]


def fill(dataset, plan, window, slab):
    """Read a window of the raster into the slab's pixels and valid."""
    pixels = read_stored(dataset, plan, window)
    valid = valid_on_dates(pixels, plan.nodata, plan.zero_is_nodata, max(1, len(plan.days)))
    hidden = hidden_pixels(dataset, plan.masked, window)
    if hidden is not None:
        valid &= ~hidden
    rows = slice(window.row_off - slab.row, window.row_off - slab.row + window.height)
    columns = slice(window.col_off - slab.column, window.col_off - slab.column + window.width)
    with np.errstate(over="ignore"):  # a float64 nodata beyond float32 becomes inf, and is not valid anyway
        slab.pixels[:, rows, columns] = pixels
    slab.valid[rows, columns] = valid


def read_stored(dataset, plan, window, **how):
    """(C, h, w) of a window of an open raster: bands of a SceneInput, or the colours that its pixels stand for. how: as of read_bands."""
    if plan.colours is None:
        return read_bands(dataset, plan.indexes, window, **how)
    indices = dataset.read(1, window=window, **{name: shape[1:] if name == "out_shape" else shape for name, shape in how.items()})
    return np.stack([plan.colours[indices, i - 1] for i in plan.indexes])


def block_words(window):
    return f"row {window.row_off}, column {window.col_off} ({window.height} × {window.width} pixels)"
