"""A delivered product as a scene: some of its bands on the grid of the finest, read as one raster."""

import contextlib
import os
import re
from dataclasses import replace

import numpy as np
import rasterio
from rasterio.errors import RasterioError, RasterioIOError

from constants import IGNORE
from raster.gml_clouds import PolygonClouds
from raster.product_clouds import FORMS
from raster.product_grid import GridDataset, Placed, closing_on_error, grid_of
from raster.rules import NotAllowed
from raster.scene_path import ScenePath
from raster.source import LOCAL_OPTIONS, REMOTE_OPTIONS, RasterInfo, has_credentials
from runtime.errors import UserError
from runtime.network import without_signature

CACHE_BYTES = 384 << 20  # two rows of JPEG 2000 blocks of all bands of a Sentinel-2 tile
WHOLE_BLOCKS = 1.3  # times the bytes of two rows of blocks, of all bands, that GDAL keeps decoded: windows that lie across need both
FORBIDDEN = re.compile(r"response code: 403|HTTP error code *: 403|AccessDenied|Forbidden")


class ProductScene(ScenePath):
    """
    Bands of a Product, in this order.

        scene = product_scene(path)
        describe(scene.with_bands(("B04", "B8A")))      # RasterInfo: one grid, scale and offset of each band
        with open_raster(scene) as dataset: …

    product: Product. bands: its Bands that are read, all of them by default. matched: how they were chosen, in words, or "".
    """

    def __new__(cls, product, bands=None, matched=""):
        scene = super().__new__(cls, product.path)
        scene.product, scene.bands, scene.matched = product, tuple(product.bands if bands is None else bands), matched
        scene.known_grid = None
        return scene

    def __reduce__(self):
        return type(self), (self.product, self.bands, self.matched), {"known_grid": self.known_grid}

    @property
    def name(self):
        return self.product.name

    @property
    def places(self):
        """Places of its rasters, each once."""
        return tuple(dict.fromkeys(band.place for band in self.bands))

    @property
    def leads_to_servers(self):
        return any("://" in place.path for place in self.places)

    def with_bands(self, words, matched=""):
        """The scene of the bands that words name (names, common names, numbers from 1), in their order. UserError."""
        self.product.require_usable()
        bands = tuple(self.product.band(word) for word in words)
        if len(set(bands)) != len(bands):
            raise UserError(f"--bands {','.join(map(str, words))} names a band of {self} twice")
        return ProductScene(self.product, bands, matched)

    def clouds(self):
        """The CloudScene on the same grid, or None."""
        return CloudScene(self) if self.product.clouds else None

    def gdal_options(self):
        options = {**(REMOTE_OPTIONS if self.leads_to_servers else LOCAL_OPTIONS), "GDAL_CACHEMAX": CACHE_BYTES}
        if any(place.member for place in self.places):
            options = {**options, "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR"}  # nothing beside a member is opened
        if any(place.path.startswith("s3://") for place in self.places) and not has_credentials():
            options = {**options, "AWS_NO_SIGN_REQUEST": "YES"}
        return options

    def stamps(self):
        """([bytes], [modification times]) of its files, (None, None) where all are on servers."""
        stamps = [place.stamp() for place in self.places]
        if not any(size is not None for size, _ in stamps):
            return None, None
        return [size for size, _ in stamps], [mtime for _, mtime in stamps]

    def opened(self):
        self.product.require_usable()
        files = contextlib.ExitStack()
        with closing_on_error(files):
            datasets = {place: open_place(place, files) for place in self.places}
            for band in self.bands:
                if band.index > datasets[band.place].count:
                    raise UserError(f"{band.place} has {datasets[band.place].count} bands; expected {band.name} as band {band.index}")
            finest = min(self.bands, key=lambda band: abs(datasets[band.place].transform.a))
            grid = self.known_grid = grid_of(datasets[finest.place])
            nodata = tuple(nodata_of(band, datasets[band.place]) for band in self.bands)
            placed = [
                Placed(datasets[band.place], band.index, grid, value, path=str(band.place))
                for band, value in zip(self.bands, nodata, strict=True)
            ]
            facts = [scale_of(band, datasets[band.place]) for band in self.bands]
            return GridDataset(
                grid, placed, files, descriptions=tuple(band.name for band in self.bands), nodatavals=nodata,
                scales=tuple(scale for scale, _ in facts), offsets=tuple(offset for _, offset in facts),
            )

    def grid(self):
        """Grid of its finest band; its files are opened for it where they have not been yet."""
        if self.known_grid is None:
            with gdal(self):
                self.opened().close()
        return self.known_grid

    def described(self):
        with gdal(self), contextlib.closing(self.opened()) as dataset:
            silent = all(scale == 1 and offset == 0 for scale, offset in zip(dataset.scales, dataset.offsets, strict=True))
            size, mtime = self.stamps()
            return RasterInfo(
                path=self, width=dataset.width, height=dataset.height, count=dataset.count, dtypes=dataset.dtypes, crs=dataset.crs,
                transform=dataset.transform, nodata=dataset.nodata, nodatavals=dataset.nodatavals, descriptions=dataset.descriptions,
                scales=dataset.scales, offsets=dataset.offsets, block_shapes=tuple(dataset.block_shapes), tags={}, size=size, mtime=mtime,
                has_mask=bool(dataset.masked), scale_unknown=self.product.scale_unknown if silent else None,
            )


class CloudScene(ScenePath):
    """The cloud layer of a ProductScene on its grid: one band of raster.product_clouds' classes."""

    def __new__(cls, scene):
        path = super().__new__(cls, str(scene.product.clouds.place))
        path.scene = scene
        return path

    def __reduce__(self):
        return type(self), (self.scene,)

    @property
    def name(self):
        return self.scene.name

    @property
    def layer(self):
        return self.scene.product.clouds

    @property
    def leads_to_servers(self):
        return "://" in self.layer.place.path

    def gdal_options(self):
        return replaced(self.scene, self.layer.place).gdal_options()

    def opened(self):
        files = contextlib.ExitStack()
        with closing_on_error(files):
            grid = self.scene.grid()
            count, decode, _ = FORMS[self.layer.form]
            if self.layer.form == "msk_clouds":
                dataset = PolygonClouds(self.layer.place.content(), grid, str(self))
            else:
                dataset = open_place(self.layer.place, files)
            if dataset.count < count:
                raise UserError(f"{self} has {dataset.count} bands; expected {count} of {self.layer.form}")
            return CloudDataset(grid, [Placed(dataset, i + 1, grid, smooth=False, path=str(self)) for i in range(count)], files, decode)

    def described(self):
        with gdal(self), contextlib.closing(self.opened()) as dataset:
            size, mtime = self.layer.place.stamp()
            return RasterInfo(
                path=self, width=dataset.width, height=dataset.height, count=1, dtypes=("uint8",), crs=dataset.crs,
                transform=dataset.transform, nodata=IGNORE, nodatavals=(IGNORE,), descriptions=("clouds",), scales=(1.0,), offsets=(0.0,),
                block_shapes=(dataset.block_shapes[0],), tags={}, size=size, mtime=mtime,
            )


class CloudDataset(GridDataset):
    """Reads as a rasterio dataset of one band. decode: of raster.product_clouds.FORMS."""

    def __init__(self, grid, placed, files, decode):
        count = len(placed)
        super().__init__(grid, placed, files, descriptions=("clouds",) * count, scales=(1.0,) * count, offsets=(0.0,) * count,
                         nodatavals=(IGNORE,) * count)
        self.decode = decode

    def read(self, indexes=None, window=None, out_shape=None, out_dtype=None, resampling=None):
        bands = super().read(None, window, out_shape)
        classes = self.decode(bands)
        return classes if isinstance(indexes, (int, np.integer)) else classes[None]


def replaced(scene, place):
    """A ProductScene that reads from one place alone."""
    band = replace(scene.bands[0], place=place)
    return ProductScene(scene.product, (band,))


@contextlib.contextmanager
def gdal(scene):
    with rasterio.Env(**scene.gdal_options()):
        yield


def open_place(place, files):
    """An open rasterio dataset of a Place, closed by the ExitStack. UserError that names the file, as of one that cannot be opened."""
    if not place.member and "://" not in place.path and not os.path.exists(place.path):
        raise UserError(f"{place} is missing; download the product again") from RasterioIOError("no such file")
    try:
        return files.enter_context(contextlib.closing(place.opened()))
    except (UserError, RasterioError) as error:
        address = without_signature(place.path)
        if "://" in address and FORBIDDEN.search(str(error)):
            signed = "its signature has expired or is wrong: sign the items again" if "?" in place.path else "it asks for a signature"
            raise UserError(f"{address} is refused (403); {signed}") from error
        if address != place.path:
            raise (type(error) if isinstance(error, NotAllowed) else UserError)(without_signature(str(error))) from error
        raise


def nodata_of(band, dataset):
    """A band's stored value that means nodata: as the product states it, else as the file's tag."""
    return dataset.nodatavals[band.index - 1] if band.nodata is None else band.nodata


def scale_of(band, dataset):
    """(scale, offset) of a band in GDAL's sense: as the product states it, else as the file's tags; (1, 0) where nobody does."""
    if band.scale is not None:
        return band.scale, band.offset or 0.0
    scale, offset = dataset.scales[band.index - 1], dataset.offsets[band.index - 1]
    if (scale, offset) != (1, 0):
        return scale, offset
    tags = {key.lower(): value for key, value in dataset.tags().items()}
    try:
        return float(tags["scale_factor"]), float(tags.get("add_offset", 0))
    except (KeyError, ValueError):
        return 1.0, 0.0


def cache_bytes(info):
    """Bytes that hold two rows of blocks of every band."""
    rows = sum(2 * height * np.dtype(kind).itemsize for (height, _), kind in zip(info.block_shapes, info.dtypes, strict=True))
    return int(WHOLE_BLOCKS * rows * info.width)
