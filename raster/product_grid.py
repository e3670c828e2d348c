"""Bands of several files as one raster: the grid of one of them, the others resampled as they are read."""

import contextlib
from dataclasses import dataclass

import numpy as np
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.windows import Window

from raster.nodata import as_stored
from runtime.errors import UserError

SAME = 1e-3  # pixels that two grids may be apart and still be one
BEYOND = 1.0  # pixels of its own that a coarser file may end before the grid's edge: its outermost ones are repeated


@dataclass(frozen=True)
class Grid:
    """Where pixels lie. transform: affine, pixel to CRS."""

    width: int
    height: int
    crs: object
    transform: object


def grid_of(dataset):
    return Grid(dataset.width, dataset.height, dataset.crs, dataset.transform)


class Placed:
    """
    One band of an open file, read on a grid.

    dataset: of rasterio. index: from 1. nodata: stored value, or None. smooth: values are interpolated (bilinear); without it each pixel
    takes the one of the file that its centre lies in. UserError where the file is not in the grid's CRS, is turned, or covers less ground.
    """

    def __init__(self, dataset, index, grid, nodata=None, smooth=True, path=""):
        self.dataset, self.index, self.nodata, self.smooth, self.path = dataset, index, nodata, smooth, path
        if dataset.crs != grid.crs:
            raise UserError(f"{path} is in {words_of(dataset.crs)}, the finest band in {words_of(grid.crs)}; warp them to one (gdalwarp)")
        to_file = ~dataset.transform * grid.transform
        if abs(to_file.b) * grid.height > SAME or abs(to_file.d) * grid.width > SAME or to_file.a <= 0 or to_file.e <= 0:
            raise UserError(f"{path} is turned against the grid of the finest band; warp it (gdalwarp)")
        self.across, self.down = (to_file.a, to_file.c), (to_file.e, to_file.f)  # position in the file = factor · position + offset
        edges = ((*self.across, grid.width, dataset.width), (*self.down, grid.height, dataset.height))
        for factor, offset, length, own in edges:
            if offset < -BEYOND - factor or factor * length + offset > own + BEYOND + factor:
                raise UserError(f"{path} does not cover the ground of the finest band; expected bands of one scene")
        self.is_grid = all(
            abs(factor - 1) * length <= SAME and abs(offset) <= SAME and length == own for factor, offset, length, own in edges
        )

    @property
    def dtype(self):
        return self.dataset.dtypes[self.index - 1]

    @property
    def block_shape(self):
        """(rows, columns) of the file's blocks in pixels of the grid."""
        rows, columns = self.dataset.block_shapes[self.index - 1]
        return max(1, round(rows / self.down[0])), max(1, round(columns / self.across[0]))

    def read(self, window):
        """(h, w) of a window of the grid, in the file's type."""
        if self.is_grid:
            return self.dataset.read(self.index, window=window)
        columns = self.across[0] * (window.col_off + 0.5 + np.arange(window.width)) + self.across[1]
        rows = self.down[0] * (window.row_off + 0.5 + np.arange(window.height)) + self.down[1]
        if not self.smooth:
            return self.nearest(self.read_file, rows, columns)
        return self.bilinear(rows, columns)

    def nearest(self, read, rows, columns):
        """The pixels that positions lie in. read(window): of the file."""
        ys = np.clip(np.floor(rows).astype(int), 0, self.dataset.height - 1)
        xs = np.clip(np.floor(columns).astype(int), 0, self.dataset.width - 1)
        part = read(Window(xs[0], ys[0], xs[-1] - xs[0] + 1, ys[-1] - ys[0] + 1))
        return part[(ys - ys[0])[:, None], xs - xs[0]]

    def read_file(self, window):
        return self.dataset.read(self.index, window=window)

    def mask(self, window):
        """(h, w) bool: what the file's own mask hides on the grid."""
        columns = self.across[0] * (window.col_off + 0.5 + np.arange(window.width)) + self.across[1]
        rows = self.down[0] * (window.row_off + 0.5 + np.arange(window.height)) + self.down[1]
        return self.nearest(lambda part: self.dataset.dataset_mask(window=part), rows, columns) == 0

    def bilinear(self, rows, columns):
        """
        Values between those of the four nearest pixels, rounded in types of integers.

        Nodata takes no part: a pixel whose centre lies in a nodata pixel of the file is nodata, any other is the weighted mean of data.
        """
        y0, y1, v = neighbours(rows, self.dataset.height)
        x0, x1, u = neighbours(columns, self.dataset.width)
        left, top = int(x0[0]), int(y0[0])
        part = self.read_file(Window(left, top, int(x1[-1]) - left + 1, int(y1[-1]) - top + 1))
        kind = np.float32 if part.dtype.itemsize <= 2 or part.dtype == np.float32 else np.float64
        u, v = u.astype(kind), v.astype(kind)[:, None]
        y0, y1, x0, x1 = y0 - top, y1 - top, x0 - left, x1 - left

        def between(values):
            across = values[:, x0]
            across += u * (values[:, x1] - across)
            upper = across[y0]
            upper += v * (across[y1] - upper)
            return upper

        lost = lost_pixels(part, self.nodata)
        if lost is None:
            return as_type(between(part.astype(kind)), part.dtype)
        weight = between((~lost).astype(kind))
        values = between(np.where(lost, 0, part).astype(kind))
        ys = np.clip(np.floor(rows).astype(int) - top, 0, part.shape[0] - 1)
        xs = np.clip(np.floor(columns).astype(int) - left, 0, part.shape[1] - 1)
        outside = lost[ys[:, None], xs]
        with np.errstate(divide="ignore", invalid="ignore"):
            values /= weight
        values[outside] = 0
        values = as_type(values, part.dtype)
        values[outside] = np.nan if self.nodata is None else as_stored(self.nodata, part.dtype)
        return values

    def thinned(self, window, shape):
        """(h, w) of a window of the grid with every so many-th pixel alone."""
        return self.dataset.read(self.index, window=self.window_of_file(window), out_shape=shape)

    def thinned_mask(self, window, shape):
        """`mask` with every so many-th pixel alone."""
        return self.dataset.dataset_mask(window=self.window_of_file(window), out_shape=shape) == 0

    def window_of_file(self, window):
        """The part of the file that a window of the grid lies in, to fractions of a pixel."""
        left, top = self.across[0] * window.col_off + self.across[1], self.down[0] * window.row_off + self.down[1]
        right, bottom = left + self.across[0] * window.width, top + self.down[0] * window.height
        left, top = max(0.0, left), max(0.0, top)
        return Window(left, top, min(right, self.dataset.width) - left, min(bottom, self.dataset.height) - top)


def neighbours(positions, count):
    """(lower, upper index, share of the upper one) of the pixel centres around positions; the outermost pixels are repeated."""
    places = np.clip(positions - 0.5, 0, count - 1)
    lower = np.floor(places).astype(int)
    return lower, np.minimum(lower + 1, count - 1), places - lower


def lost_pixels(part, nodata):
    """(h, w) bool of nodata, NaN and infinity, or None where there is none."""
    lost = None
    if nodata is not None and nodata == nodata:
        lost = part == as_stored(nodata, part.dtype)
    if part.dtype.kind == "f":
        lost = ~np.isfinite(part) if lost is None else lost | ~np.isfinite(part)
    return lost if lost is not None and lost.any() else None


def as_type(values, dtype):
    return np.rint(values, out=values).astype(dtype) if dtype.kind in "iu" else values.astype(dtype, copy=False)


def words_of(crs):
    return crs.to_string()[:40] if crs else "no CRS"


class GridDataset:
    """
    Reads as a rasterio dataset does: bands of Placed files on one grid.

    band_facts: {"descriptions": …, "scales": …, "offsets": …, "nodatavals": …}, a tuple each with one value a band. files: an ExitStack
    that closes them.
    """

    driver = "product"

    def __init__(self, grid, placed, files, *, descriptions, scales, offsets, nodatavals):
        self.grid, self.placed, self.files = grid, placed, files
        self.descriptions, self.scales, self.offsets, self.nodatavals = descriptions, scales, offsets, nodatavals
        self.width, self.height, self.crs, self.transform = grid.width, grid.height, grid.crs, grid.transform
        self.count, self.nodata = len(placed), nodatavals[0]
        self.dtypes = tuple(band.dtype for band in placed)
        self.block_shapes = [band.block_shape for band in placed]
        self.colorinterp = (ColorInterp.undefined,) * self.count
        self.gcps, self.rpcs = ([], None), None
        self.masked = [band for band in placed if has_own_mask(band)]
        self.mask_flag_enums = ([MaskFlags.per_dataset] if self.masked else [MaskFlags.all_valid],) * self.count

    @property
    def has_overviews(self):
        """Whether a thinned-out reading of any band does without its full resolution."""
        return all(band.dataset.overviews(band.index) for band in self.placed)

    def tags(self, *words, **more):
        return {}

    def read(self, indexes=None, window=None, out_shape=None, out_dtype=None, resampling=None):
        """As rasterio's; a thinned-out reading takes every so many-th pixel."""
        one = isinstance(indexes, (int, np.integer))
        wanted = [indexes] if one else list(indexes or range(1, self.count + 1))
        window = window or Window(0, 0, self.width, self.height)
        shape = tuple(out_shape[-2:]) if out_shape is not None else (int(window.height), int(window.width))
        kind = out_dtype or np.result_type(*(self.dtypes[i - 1] for i in wanted))
        pixels = np.empty((len(wanted), *shape), kind)
        thinned = out_shape is not None and shape != (window.height, window.width)
        together = {}  # {dataset: positions of bands that need no resampling}: read in one go, as files with all bands in a block need
        for place, index in enumerate(wanted):
            band = self.placed[index - 1]
            if band.is_grid and not thinned:
                together.setdefault(id(band.dataset), []).append(place)
                continue
            pixels[place] = band.thinned(window, shape) if thinned else band.read(window)
        for places in together.values():
            bands = [self.placed[wanted[place] - 1] for place in places]
            pixels[places] = bands[0].dataset.read([band.index for band in bands], window=window)
        return pixels[0] if one else pixels

    def dataset_mask(self, window=None, out_shape=None):
        """(h, w) uint8: 0 where the mask of any of the files hides a pixel."""
        window = window or Window(0, 0, self.width, self.height)
        whole = int(window.height), int(window.width)
        shape = tuple(out_shape[-2:]) if out_shape is not None else whole
        shown = np.full(shape, 255, np.uint8)
        for band in self.masked:
            shown[band.mask(window) if shape == whole else band.thinned_mask(window, shape)] = 0
        return shown

    def close(self):
        self.files.close()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()


def has_own_mask(band):
    """Whether a file has a mask of its own, and not only a nodata value."""
    return any(
        flag in flags and MaskFlags.nodata not in flags
        for flags in band.dataset.mask_flag_enums for flag in (MaskFlags.per_dataset, MaskFlags.alpha)
    )


@contextlib.contextmanager
def closing_on_error(files):
    """Closes an ExitStack where the block fails."""
    try:
        yield
    except BaseException:
        files.close()
        raise
