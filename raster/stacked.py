"""Open rasters on one grid, read as one: the bands of the first, then of the second …"""

import contextlib

import numpy as np
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import RasterioError

from raster.hidden import hidden_pixels
from raster.product_grid import SAME, closing_on_error, grid_of, words_of
from raster.source import opened, read_bands
from runtime.errors import UserError

FACTS = ("dtypes", "descriptions", "scales", "offsets", "nodatavals", "block_shapes")  # of a dataset, a value a band


class Mismatch(UserError):
    """Dates of one place that do not make a scene: the whole run ends, where a file that is only damaged would be left out."""


def parts_of(dataset):
    """Datasets of the single dates of an open raster: itself, where it is of one."""
    return [part.dataset for part in dataset.parts] if isinstance(dataset, Stacked) else [dataset]


class Part:
    """One date of a Stacked: an open dataset, which of its bands are read (from 1), what hides pixels of it (DataBands.masked)."""

    def __init__(self, path, dataset, bands, masked):
        self.path, self.dataset, self.bands, self.masked = path, dataset, bands, masked
        if masked is None and any(MaskFlags.nodata not in flags and MaskFlags.per_dataset in flags for flags in dataset.mask_flag_enums):
            self.masked = 0

    def of_bands(self, fact):
        values = getattr(self.dataset, fact)
        return tuple(values[band - 1] for band in self.bands)

    @property
    def descriptions(self):
        return tuple(name or "" for name in self.of_bands("descriptions"))

    def reading(self, read):
        """read(), whose errors get the attribute `unreadable`: the file of this date."""
        try:
            return read()
        except RasterioError as error:
            error.unreadable = self.path
            raise


class Stacked:
    """
    Reads as a rasterio dataset: bands of several open ones on one grid, date after date.

    choices: of Dated.choices. Mismatch where their grids differ.
    """

    driver = "dates"

    def __init__(self, paths, choices):
        self.files = contextlib.ExitStack()
        with closing_on_error(self.files):
            self.parts = []
            for path, (bands, masked) in zip(paths, choices, strict=True):
                dataset = self.files.enter_context(contextlib.closing(opened(path)))
                self.parts.append(Part(path, dataset, bands or tuple(range(1, dataset.count + 1)), masked))
            last = self.parts[-1].dataset
            for part in self.parts[:-1]:
                require_one_grid(part, self.parts[-1])
        self.width, self.height, self.crs, self.transform = last.width, last.height, last.crs, last.transform
        for fact in FACTS:
            setattr(self, fact, tuple(value for part in self.parts for value in part.of_bands(fact)))
        self.places = [(part, band) for part in self.parts for band in part.bands]
        self.count, self.nodata = len(self.places), self.nodatavals[0]
        self.colorinterp = (ColorInterp.undefined,) * self.count
        self.gcps, self.rpcs = ([], None), None
        self.has_mask = any(part.masked is not None for part in self.parts)
        self.mask_flag_enums = ([MaskFlags.per_dataset] if self.has_mask else [MaskFlags.all_valid],) * self.count

    @property
    def has_overviews(self):
        return all(getattr(part.dataset, "has_overviews", None) or hasattr(part.dataset, "overviews")
                   and all(part.dataset.overviews(band) for band in part.bands) for part in self.parts)

    def tags(self, *words, **more):
        return {}

    def read(self, indexes=None, window=None, out_shape=None, out_dtype=None, **how):
        one = isinstance(indexes, (int, np.integer))
        wanted = [indexes] if one else list(indexes or range(1, self.count + 1))
        together = {}  # {part: positions of its bands}: files with all bands in a block are decoded once
        for place, index in enumerate(wanted):
            together.setdefault(id(self.places[index - 1][0]), []).append(place)
        kind = out_dtype or np.result_type(*(self.dtypes[index - 1] for index in wanted))
        pixels = None
        for places in together.values():
            part = self.places[wanted[places[0]] - 1][0]
            bands = [self.places[wanted[place] - 1][1] for place in places]
            size = {} if out_shape is None else {"out_shape": (len(bands), *tuple(out_shape)[-2:])}
            values = part.reading(lambda part=part, bands=bands, size=size: read_bands(part.dataset, bands, window, **size, **how))
            pixels = np.empty((len(wanted), *values.shape[1:]), kind) if pixels is None else pixels
            with np.errstate(over="ignore"):  # as in raster.source.read_bands
                pixels[places] = values
        return pixels[0] if one else pixels

    def dataset_mask(self, window=None, out_shape=None):
        """(h, w) uint8: 0 where the mask of any date hides a pixel."""
        hidden = None
        for part in self.parts:
            shape = None if out_shape is None else tuple(out_shape)[-2:]
            found = part.reading(lambda part=part, shape=shape: hidden_pixels(part.dataset, part.masked, window, shape))
            if found is not None:
                hidden = found if hidden is None else hidden | found
        if hidden is None:
            shape = (self.height, self.width) if window is None else (int(window.height), int(window.width))
            return np.full(shape if out_shape is None else tuple(out_shape)[-2:], 255, np.uint8)
        return np.where(hidden, 0, 255).astype(np.uint8)

    def close(self):
        self.files.close()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()


def require_one_grid(part, last):
    """Mismatch where two dates of a place, Parts or RasterInfo, are not on one grid."""
    one, other = (grid_of(getattr(side, "dataset", side)) for side in (part, last))
    if (one.width, one.height) != (other.width, other.height):
        found = f"is {one.width}×{one.height}, {last.path} {other.width}×{other.height} pixels"
    elif one.crs != other.crs:
        found = f"is in {words_of(one.crs)}, {last.path} in {words_of(other.crs)}"
    elif not lies_on(one, other):
        found = f"and {last.path} lie apart"
    else:
        return
    raise Mismatch(f"{part.path} {found}; dates of one place need one grid: warp them (gdalwarp), or leave one out")


def lies_on(one, other):
    """Whether the corners of two grids of one size are at the same place, to a part of a pixel."""
    to_other = ~other.transform * one.transform
    corners = ((0, 0), (one.width, 0), (0, one.height), (one.width, one.height))
    return all(abs(x - column) <= SAME and abs(y - row) <= SAME for (column, row), (x, y) in ((c, to_other * c) for c in corners))
