"""
Several dates of one place as one scene: all bands of the first date, then of the second …, called 1_B02, 1_B03, 2_B02 …

    scene = DatedRasters(["a.tif", "b.tif"], ["2024-01-01", "2024-06-11"], ["20240101_lake", "20240611_lake"])
    describe(scene.with_bands(("B02", "B03")))                       # RasterInfo of 4 bands

Which scenes make one is decided in raster/places.py.
"""

import contextlib
import re

from constants import plain_band
from raster.acquired import time_in_name
from raster.bands import alike, band_positions
from raster.hidden import data_bands
from raster.product_scene import CACHE_BYTES, ProductScene
from raster.scale import scale_in_tags
from raster.scene_path import ScenePath
from raster.source import (
    LOCAL_OPTIONS,
    REMOTE_OPTIONS,
    RasterInfo,
    describe,
    gdal_environment,
    has_credentials,
    is_remote,
    scene_name,
)
from raster.stacked import Mismatch, Stacked, require_one_grid

OWN_NAME = re.compile(r"(\d+)_(.+)")  # of a band of a sample: the number of its date, from 1


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
                descriptions=numbered(self.band_names(dataset), len(self.members)), block_shapes=dataset.block_shapes,
                has_mask=dataset.has_mask, **{"scales": dataset.scales, "offsets": dataset.offsets, **facts},
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
        scales = [stated_scale(info, part) for info, part in zip(infos, dataset.parts, strict=True)]
        tags = {key: value for key, value in infos[-1].tags.items() if key.lower() not in ("scale_factor", "add_offset")}
        return {"tags": tags, "size": [info.size for info in infos], "mtime": [info.mtime for info in infos],
                **{fact: tuple(value for part in scales for value in part[fact]) for fact in ("scales", "offsets")}}

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
        short = [without_date(name) for name in own]
        return short if len(set(short)) == len(short) else own


def stated_scale(info, part):
    """{"scales", "offsets"} of the bands of one date: GDAL's, or those that the tags of its file state for all of them."""
    found = {fact: part.of_bands(fact) for fact in ("scales", "offsets")}
    silent = set(zip(*found.values(), strict=True)) == {(1, 0)}
    stated = scale_in_tags(info.tags) if silent else None
    return dict(zip(found, ((number,) * len(part.bands) for number in stated), strict=True)) if stated else found


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
