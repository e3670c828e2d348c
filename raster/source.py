"""Opens rasters wherever they are (local files, s3://, https://) with GDAL set up for windowed reads."""

import contextlib
import functools
import glob
import os
import re
import threading
import warnings
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import rasterio
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError, RasterioIOError

from raster.cut_short import refuse_cut_short
from raster.reopened import Reopened
from raster.rules import DRIVERS, drivers_for, refuse_overviews_elsewhere
from raster.scene_path import ScenePath
from raster.sensor_place import sensor_place_of
from runtime.errors import UserError
from runtime.names import require_text
from runtime.network import allow_server_of, is_address

warnings.simplefilter("ignore", NotGeoreferencedWarning)  # the programs tell it themselves where it matters, once

RASTER_SUFFIXES = (".tif", ".tiff", ".vrt", ".jp2", ".img")
CACHE_BYTES = 256 << 20  # as an option of rasterio.Env this is in bytes; as an environment variable GDAL would read megabytes

REQUEST_SECONDS = 120  # that a request for a list or a text may take as a whole

# The shortcut for reading a PNG in one go gives what was in memory before, and no error, where the file is cut off.
SAFE_OPTIONS = {"GDAL_VRT_ENABLE_PYTHON": "NO", "GDAL_VRT_ENABLE_RAWRASTERBAND": "NO", "GDAL_PNG_WHOLE_IMAGE_OPTIM": "NO"}
LOCAL_OPTIONS = {**SAFE_OPTIONS, "GDAL_CACHEMAX": CACHE_BYTES, "GDAL_PAM_ENABLED": "YES"}
REMOTE_OPTIONS = {
    **SAFE_OPTIONS,
    "GDAL_CACHEMAX": CACHE_BYTES,
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # no listing of the folder for each file; side files are not looked for
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_HTTP_MULTIPLEX": "YES",
    "GDAL_INGESTED_BYTES_AT_OPEN": 32768,
    "VSI_CACHE": True,
    "GDAL_HTTP_CONNECTTIMEOUT": 10,
    "GDAL_HTTP_LOW_SPEED_LIMIT": 1000,  # bytes a second over …
    "GDAL_HTTP_LOW_SPEED_TIME": 30,  # … so many seconds: a server that stalls is an error, not an endless wait
    "GDAL_HTTP_MAX_RETRY": 3,
    "GDAL_HTTP_RETRY_DELAY": 1,
}


@dataclass(frozen=True)
class RasterInfo:
    """
    What the header of a raster says. No pixel is read for it.

    transform: affine, pixel to CRS. scales, offsets: GDAL's per-band values (value = stored · scale + offset), 1 and 0 where unset.
    block_shapes: (rows, columns) a band. size: bytes of the file, None where unknown; mtime: seconds, None for remote files.
    nodata: of the first band; nodatavals: of each.
    alpha_band: zero-based, None without one. has_mask: an alpha band or a mask of its own says which pixels are there.
    sensor_place: SensorPlace where it has ground control points or RPCs, else None.
    scale_unknown: why a product's metadata state no scale, else None. Of several files, size and mtime are lists.
    """

    path: str
    width: int
    height: int
    count: int
    dtypes: tuple
    crs: object
    transform: object
    nodata: float | None
    nodatavals: tuple
    descriptions: tuple
    scales: tuple
    offsets: tuple
    block_shapes: tuple
    tags: dict
    size: int | None
    mtime: float | None
    alpha_band: int | None = None
    has_mask: bool = False
    sensor_place: object = None
    scale_unknown: str | None = None


def is_remote(path):
    """Whether the pixels of a path come from a server."""
    return path.leads_to_servers if isinstance(path, ScenePath) else is_address(path)


@contextlib.contextmanager
def open_raster(path):
    """
    A rasterio dataset for a path, s3:// or https:// address, with GDAL's options for it in force as long as it is open.

    Raises UserError where the file is missing, is no raster that may be opened (raster/rules.py), or the server does not answer. What
    leads to the address of a path from a file asks runtime.network.may_ask. One handle for one thread and one process.
    """
    with gdal_environment(path), contextlib.closing(opened(path)) as dataset:
        yield dataset


def opened(path):
    """
    The dataset of open_raster, for what keeps several open: to be made and read within gdal_environment(path), and closed in the end.

    (Environments that overlap without being nested cannot be left.)
    """
    if isinstance(path, ScenePath):
        return path.opened()
    try:
        return Reopened(functools.partial(open_allowed, path))
    except (RasterioIOError, RasterioError) as error:
        raise UserError(why_not_opened(path, error)) from error


def open_allowed(path):
    """A rasterio dataset of a path or address in one of the formats that are read here."""
    if is_remote(path):
        allow_server_of(path)
        name, drivers = path, list(DRIVERS)
    else:
        name, drivers = Path(path).absolute(), drivers_for(path)  # a Path: no part of it reads as a scheme
    with without_georeference_warning():
        dataset = rasterio.DatasetReader(name, driver=drivers)  # rasterio.open takes but one driver
    try:
        refuse_overviews_elsewhere(dataset, path)
        if not is_remote(path):
            refuse_cut_short(path, dataset)
    except (UserError, RasterioError):
        dataset.close()
        raise
    return dataset


def read_bands(dataset, indexes, window=None, dtype=None, **how):
    """
    (C, h, w) of some bands (1-based) of an open raster as `dtype`, by default the smallest that holds all of them.

    Those of one type are read together, as rasterio refuses a mixture of types. how: further words for rasterio's read.
    """
    places = {}  # {type: positions in `indexes`}
    for place, index in enumerate(indexes):
        places.setdefault(dataset.dtypes[index - 1], []).append(place)
    dtype = dtype or np.result_type(*places)
    if len(places) == 1:
        return dataset.read(list(indexes), window=window, out_dtype=dtype, **how)
    parts = {kind: dataset.read([indexes[place] for place in alike], window=window, **how) for kind, alike in places.items()}
    pixels = np.empty((len(indexes), *next(iter(parts.values())).shape[1:]), dtype)
    for kind, alike in places.items():
        with np.errstate(over="ignore"):  # a float64 beyond float32 becomes inf, which is never valid
            pixels[alike] = parts[kind]
    return pixels


@contextlib.contextmanager
def without_georeference_warning():
    """Silences rasterio's warning about missing georeference, also where a library has reset the filters since our import."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


@contextlib.contextmanager
def gdal_environment(path):
    """GDAL's options for reading `path`; s3 requests are signed only where credentials can be found."""
    if isinstance(path, ScenePath):
        with rasterio.Env(**path.gdal_options()):
            yield
    elif not is_remote(path):
        with rasterio.Env(**LOCAL_OPTIONS):
            yield
    elif urlparse(str(path)).scheme == "s3" and not has_credentials():
        with rasterio.Env(AWS_NO_SIGN_REQUEST="YES", **REMOTE_OPTIONS):
            yield
    else:
        with rasterio.Env(**REMOTE_OPTIONS):
            yield


@functools.cache
def has_credentials():
    import boto3

    return boto3.Session().get_credentials() is not None


def why_not_opened(path, error):
    if not is_remote(path) and not os.path.exists(path):
        return f"{path} does not exist"
    if not is_remote(path) and os.path.isdir(path):
        return f"{path} is a folder; expected a raster file"
    advice = "; download it first, the server can't send parts of a file" if "Range downloading" in str(error) else ""
    if is_remote(path) and urlparse(str(path)).path.endswith(".vrt"):
        advice = "; a VRT is not read from a server, download it first (and pass --allow-network)"
    return f"{path} can't be opened as a raster ({' '.join(str(error).split())[:160]}){advice}"


def describe(path):
    """RasterInfo of a raster: its header only."""
    if isinstance(path, ScenePath):
        return path.described()
    with open_raster(path) as dataset:
        stat = os.stat(path) if not is_remote(path) else None
        return RasterInfo(
            path=str(path),
            width=dataset.width,
            height=dataset.height,
            count=dataset.count,
            dtypes=tuple(dataset.dtypes),
            crs=dataset.crs,
            transform=dataset.transform,
            nodata=dataset.nodata,
            nodatavals=tuple(dataset.nodatavals),
            descriptions=tuple(d or "" for d in dataset.descriptions),
            scales=tuple(dataset.scales),
            offsets=tuple(dataset.offsets),
            block_shapes=tuple(dataset.block_shapes),
            tags=dataset.tags(),
            size=stat.st_size if stat else None,
            mtime=stat.st_mtime if stat else None,
            alpha_band=next((i for i, c in enumerate(dataset.colorinterp) if c == ColorInterp.alpha), None),
            has_mask=any(flag in flags for flags in dataset.mask_flag_enums for flag in (MaskFlags.alpha, MaskFlags.per_dataset)
                         if MaskFlags.nodata not in flags),
            sensor_place=sensor_place_of(dataset),
        )


def mask_stamps(path):
    """{"mask_size": bytes, "mask_mtime": seconds} of the .msk file beside a local raster, which GDAL takes for its mask; {} without one."""
    if isinstance(path, ScenePath) or is_remote(path) or not os.path.exists(f"{path}.msk"):
        return {}
    status = os.stat(f"{path}.msk")
    return {"mask_size": status.st_size, "mask_mtime": status.st_mtime}


def list_rasters(patterns, suffixes=RASTER_SUFFIXES):
    """
    Every raster that the patterns name, sorted, each once. UserError for a pattern that matches nothing.

    A pattern is a file, a folder (not searched deeper), a glob (`**` too), an s3:// prefix or glob, or an https:// address.
    """
    found = set()
    for pattern in [patterns] if isinstance(patterns, (str, Path)) else patterns:
        pattern = str(pattern)
        if pattern.startswith("s3://"):
            matches = list_s3(pattern, suffixes)
        elif is_remote(pattern):
            matches = [pattern]
        elif os.path.isdir(pattern):
            matches = [os.path.join(pattern, n) for n in os.listdir(pattern) if n.lower().endswith(suffixes) and n[0] != "."]
        elif glob.has_magic(pattern) and not os.path.exists(pattern):
            matches = [m for m in expand(pattern) if m.lower().endswith(suffixes)]
        else:
            matches = [pattern] if os.path.exists(pattern) else []
        if not matches:
            signs = " ([ ] are signs of a pattern: write [[] for [)" if "[" in pattern else ""
            raise UserError(f"{pattern} matches no raster; expected {', '.join(suffixes)} files{signs}")
        found.update(matches)
    for path in found:
        require_text(path, "the name of the raster")
    return sorted(found)


def expand(pattern):
    """Paths that match a local glob. Folders that exist as they are written are no part of the pattern: `scenes [2024]/*.tif`."""
    folder, rest = os.path.split(pattern)
    while folder and not os.path.isdir(folder):
        folder, last = os.path.split(folder)
        rest = os.path.join(last, rest)
    return glob.glob(os.path.join(glob.escape(folder), rest), recursive=True) or glob.glob(pattern, recursive=True)


def list_s3(pattern, suffixes=RASTER_SUFFIXES):
    """The objects below an s3:// prefix, or that match an s3:// glob, as s3:// addresses. `*` stays within one folder, `**` does not."""
    if not glob.has_magic(pattern) and pattern.lower().endswith(suffixes):
        return [pattern]
    bucket, _, key = pattern.removeprefix("s3://").partition("/")
    prefix = re.split(r"[*?\[]", key, maxsplit=1)[0]
    if not glob.has_magic(key) and prefix and not prefix.endswith("/"):
        prefix += "/"
    keys = [k for k in s3_keys(bucket, prefix) if k.lower().endswith(suffixes)]
    if glob.has_magic(key):
        keys = [k for k in keys if re.fullmatch(glob_expression(key), k)]
    return [f"s3://{bucket}/{k}" for k in keys]


def within(seconds, work):
    """
    work() in a thread, for a request as a whole: the timeouts of libraries begin again with every byte that arrives. TimeoutError after
    `seconds`; the thread is left behind and ends with the program.
    """
    result = Future()

    def run():
        try:
            result.set_result(work())
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        return result.result(seconds)
    except TimeoutError as error:
        if result.done():
            raise
        raise TimeoutError(f"no whole answer in {seconds:g} s") from error


def s3_client():
    """A boto3 client whose requests are signed only where credentials can be found."""
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    return boto3.client("s3", config=None if has_credentials() else Config(signature_version=UNSIGNED))


def s3_keys(bucket, prefix):
    """Every key of a bucket below a prefix. UserError with the service's own words where it refuses."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        pages = s3_client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        keys, pages = [], iter(pages)
        while (page := within(REQUEST_SECONDS, lambda: next(pages, None))) is not None:
            keys += [item["Key"] for item in page.get("Contents", [])]
        return keys
    except (BotoCoreError, ClientError, TimeoutError) as error:
        raise UserError(f"s3://{bucket}/{prefix} can't be listed ({error}); check the name and your credentials") from error


def glob_expression(pattern):
    """A shell glob as a regular expression in which `*` and `?` do not cross a slash, and `**/` crosses any number of them."""
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]]+\])", pattern)
    words = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(words.get(p, p if p.startswith("[") and p.endswith("]") else re.escape(p)) for p in parts)


def scene_name(path):
    """The stem that names a scene in chips, maps and tables: the file's name without folders and suffix, or as its product says."""
    if isinstance(path, ScenePath):
        return path.name
    return Path(urlparse(str(path)).path if is_remote(path) else str(path)).stem
