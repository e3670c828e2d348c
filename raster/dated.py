"""
Several dates of one place as one scene: all bands of the first date, then of the second …, called 1_B02, 1_B03, 2_B02 …

    scene = DatedRasters(["a.tif", "b.tif"], ["2024-01-01", "2024-06-11"], ["20240101_lake", "20240611_lake"])
    describe(scene.with_bands(("B02", "B03")))                       # RasterInfo of 4 bands

Which scenes make one is decided in raster/places.py.
"""

import contextlib
import re

import numpy as np
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import RasterioError

from constants import plain_band
from raster.acquired import time_in_name
from raster.bands import alike, band_positions
from raster.hidden import data_bands, hidden_pixels
from raster.product_grid import SAME, closing_on_error, grid_of, words_of
from raster.product_scene import CACHE_BYTES, ProductScene
from raster.scene_path import ScenePath
from raster.source import (
    LOCAL_OPTIONS,
    REMOTE_OPTIONS,
    RasterInfo,
    describe,
    gdal_environment,
    has_credentials,
    is_remote,
    opened,
    read_bands,
    scene_name,
)
from runtime.errors import UserError

OWN_NAME = re.compile(r"(\d+)_(.+)")  # of a band of a sample: the number of its date, from 1
FACTS = ("dtypes", "descriptions", "scales", "offsets", "nodatavals", "block_shapes")  # of a dataset, a value a band


class Mismatch(UserError):
    """Dates of one place that do not make a scene: the whole run ends, where a file that is only damaged would be left out."""


def members_of(name, path):
    """[(name, path)] of the single scenes that a scene is made of."""
    return list(zip(path.keys, path.members, strict=True)) if isinstance(path, Dated) else [(name, path)]


def undated(names, count):
    """Names of the bands of one date, of those of `count` dates one after another: 1_B02, 1_B03, 2_B02, 2_B03 → B02, B03."""
    return tuple(found[2] if (found := OWN_NAME.fullmatch(name)) else name for name in names[: len(names) // count])


def numbered(names, dates):
    """Names of the bands of `dates` dates, of those of one: with the number of their date, unless there is but one."""
    if dates == 1:
        return tuple(names)
    return tuple(f"{number}_{name}" for number in range(1, dates + 1) for name in names)


def days_of_bands(names, dates):
    """ISO days of bands that are called by them, date after date: 20240101_B02, 20240611_B02 → 2024-01-01, 2024-06-11; () of others."""
    each = len(names) // dates
    times = [time_in_name(name or "") for name in names[: each * dates : max(1, each)]]
    return tuple(time[0].date().isoformat() for time in times) if times and all(times) else ()


def match_stack(info, wanted, count):
    """
    1-based bands of a raster (RasterInfo) that holds `count` dates itself, all of the first date, then of the second …, that stand for
    `wanted`, numbered; None unless each band of one date is there so many times, in one order.
    """
    names = list(info.descriptions)
    found = [alike([plain_band(name) for name in names], plain_band(name)) for name in undated(wanted, count)]
    if any(len(places) != count for places in found):
        return None
    dates = [sorted(places) for places in zip(*found, strict=True)]
    if any(max(one) > min(other) for one, other in zip(dates, dates[1:], strict=False)):
        return None
    indexes = [places[date] + 1 for date in range(count) for places in found]
    days = days_of_bands([names[index - 1] for index in indexes], count)
    return indexes if list(days) == sorted(days) else None


class Dated:
    """What scenes of several dates have in common. members: paths, the oldest first. days: ISO dates; keys: names of these scenes."""

    @property
    def name(self):
        return scene_name(self.members[-1])

    @property
    def leads_to_servers(self):
        return any(is_remote(path) for path in self.members)

    def gdal_options(self):
        options = {}
        for path in self.members:
            options |= path.gdal_options() if isinstance(path, ScenePath) else options_of(path)
        return {**options, "GDAL_CACHEMAX": CACHE_BYTES * len(self.members)}

    def opened(self):
        return Stacked(self.members, self.choices())

    def choices(self):
        """[(1-based bands or None for all, DataBands.masked)] of each member."""
        return [(None, None)] * len(self.members)

    def described(self):
        with gdal_environment(self), contextlib.closing(self.opened()) as dataset:
            facts = self.facts(dataset)
            if len({len(part.bands) for part in dataset.parts}) > 1:
                counts = ", ".join(str(len(part.bands)) for part in dataset.parts)
                raise Mismatch(f"{self} has dates of {counts} bands; pass --bands")
            return RasterInfo(
                path=self, width=dataset.width, height=dataset.height, count=dataset.count, dtypes=dataset.dtypes, crs=dataset.crs,
                transform=dataset.transform, nodata=dataset.nodata, nodatavals=dataset.nodatavals,
                descriptions=numbered(self.band_names(dataset), len(self.members)), scales=dataset.scales, offsets=dataset.offsets,
                block_shapes=dataset.block_shapes, has_mask=dataset.has_mask, **facts,
            )


def options_of(path):
    """GDAL's options for a raster's path, as raster.source.gdal_environment has them."""
    if not is_remote(path):
        return LOCAL_OPTIONS
    unsigned = {"AWS_NO_SIGN_REQUEST": "YES"} if path.startswith("s3://") and not has_credentials() else {}
    return {**REMOTE_OPTIONS, **unsigned}


class DatedProducts(Dated, ProductScene):
    """ProductScenes of one place. product, bands, matched: those of the last; `bands` are those of one date."""

    def __new__(cls, members, days, keys):
        last = members[-1]
        scene = super().__new__(cls, last.product, last.bands, last.matched)
        scene.members, scene.days, scene.keys = tuple(members), tuple(days), tuple(keys)
        return scene

    def __reduce__(self):
        return type(self), (self.members, self.days, self.keys)

    def with_bands(self, words, matched=""):
        return self.made_of([scene.with_bands(words, matched) for scene in self.members])

    def made_of(self, members):
        return type(self)(members, self.days, self.keys)

    def facts(self, dataset):
        """What a RasterInfo has of files and metadata. dataset: Stacked."""
        silent = [set(zip(part.of_bands("scales"), part.of_bands("offsets"), strict=True)) == {(1, 0)} for part in dataset.parts]
        unknown = [scene.product.scale_unknown for scene, is_silent in zip(self.members, silent, strict=True) if is_silent]
        sizes, times = zip(*(scene.stamps() for scene in self.members), strict=True)
        return {"tags": {}, "size": list(sizes), "mtime": list(times), "scale_unknown": next(filter(None, unknown), None)}

    def clouds(self):
        """DatedClouds of the dates that have a layer, None without any."""
        layers = [layer for scene in self.members if (layer := scene.clouds())]
        return DatedClouds(layers) if layers else None

    def grid(self):
        return self.members[-1].grid()

    def band_names(self, dataset):
        return [band.name for band in self.bands]


class DatedRasters(Dated, ScenePath):
    """Rasters of one place. words: names or numbers of the bands of one date, None for all that are data; names: of those bands."""

    def __new__(cls, members, days, keys, words=None):
        scene = super().__new__(cls, members[-1])
        scene.members, scene.days, scene.keys, scene.words, scene.chosen = tuple(members), tuple(days), tuple(keys), words, None
        scene.known = None
        return scene

    def __reduce__(self):
        return type(self), (self.members, self.days, self.keys, self.words), {"chosen": self.chosen, "matched": self.matched}

    matched = ""  # how bands were chosen, in words

    def with_bands(self, words):
        return type(self)(self.members, self.days, self.keys, None if words is None else tuple(words))

    def with_choices(self, chosen, matched):
        """The scene of the 1-based bands of each date, in the order of a model's."""
        scene = self.with_bands(())
        scene.known = self.infos()
        scene.chosen = [(tuple(bands), data_bands(info, bands).masked) for info, bands in zip(scene.known, chosen, strict=True)]
        scene.matched = matched
        return scene

    @property
    def is_named(self):
        """Whether names say which bands are alike, and not numbers."""
        return self.words is None or not all(str(word).strip().isdigit() for word in self.words)

    def infos(self):
        """RasterInfo of each date."""
        if self.known is None:
            self.known = [describe(path) for path in self.members]
        return self.known

    def facts(self, dataset):
        infos = self.infos()
        return {"tags": infos[-1].tags, "size": [info.size for info in infos], "mtime": [info.mtime for info in infos]}

    def choices(self):
        if self.chosen is None:
            chosen = []
            for info in self.infos():
                described = [name or "" for name in info.descriptions]
                positions = band_positions(",".join(self.words) if self.words else None, described, info)
                chosen.append((tuple(p + 1 for p in positions), data_bands(info, [p + 1 for p in positions]).masked))
            self.chosen = chosen
        return self.chosen

    def band_names(self, dataset):
        """Names of the bands of one date. Mismatch where dates have others."""
        bands = [dataset.parts[-1].descriptions, dataset.parts[-1].bands]
        own = [name or f"band_{number}" for name, number in zip(*bands, strict=True)]
        if not self.is_named:
            return own
        for path, part in zip(self.members, dataset.parts, strict=True):
            named = [name or f"band_{number}" for name, number in zip(part.descriptions, part.bands, strict=True)]
            if [plain_band(name) for name in named] != [plain_band(name) for name in own]:
                raise Mismatch(f"{path} has the bands {', '.join(named)}, {self} has {', '.join(own)}; pass --bands")
        return [without_date(name) for name in own]


def without_date(name):
    """A band's name as it is written, without a date before it."""
    found = re.search(rf"{re.escape(plain_band(name))}$", name, re.IGNORECASE)
    return found[0] if found else name


class DatedClouds(ScenePath):
    """Cloud masks of several dates, in parts: `for part in parts_of(dataset)` reads as the mask of one date. members: their paths."""

    def __new__(cls, members):
        path = super().__new__(cls, members[-1])
        path.members = tuple(members)
        return path

    def __reduce__(self):
        return type(self), (self.members,)

    @property
    def name(self):
        return scene_name(self.members[-1])

    @property
    def layer(self):
        return self.members[-1].layer

    leads_to_servers = Dated.leads_to_servers
    gdal_options = Dated.gdal_options

    def opened(self):
        return Stacked(self.members, [(None, None)] * len(self.members))

    def described(self):
        infos = [describe(path) for path in self.members]
        for info in infos:
            require_one_grid(info, infos[-1])
            if (info.count, info.nodata) != (infos[-1].count, infos[-1].nodata):
                raise Mismatch(f"{info.path} has {info.count} bands and nodata {info.nodata}, {self} has {infos[-1].count} and "
                               f"{infos[-1].nodata}; expected cloud masks of one kind")
        fields = {name: getattr(infos[-1], name) for name in infos[-1].__dataclass_fields__}
        return RasterInfo(**{**fields, "path": self, "has_mask": any(info.has_mask for info in infos),
                             "size": [info.size for info in infos], "mtime": [info.mtime for info in infos]})


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
