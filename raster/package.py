"""The files of a delivered product: those of a folder, or the members of a .zip or .tar, which are read where they are."""

import functools
import os
import tarfile
import zipfile
import zlib
from dataclasses import dataclass

import rasterio
from rasterio.errors import RasterioIOError

from raster.cut_short import refuse_cut_short
from raster.reopened import Reopened
from raster.rules import DRIVERS, SIGNATURES, NotAllowed, refuse_overviews_elsewhere
from raster.source import opened
from runtime.errors import UserError
from runtime.files import require_regular
from runtime.network import is_address, may_ask, server_of

ARCHIVES = (".zip", ".tar")
COMPRESSED_TARS = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
MOST_MEMBERS = 20_000
MOST_BYTES = 16 << 20  # of a product's metadata


@dataclass(frozen=True)
class Place:
    """Where a raster of a product is. path: a local file, an archive or an address. member: of an archive, else ""."""

    path: str
    member: str = ""

    def __str__(self):
        return f"{self.path}/{self.member}" if self.member else self.path

    def stamp(self):
        """(bytes, modification time in seconds) of the file, (None, None) of an address."""
        if "://" in self.path:
            return None, None
        status = os.stat(self.path)
        return status.st_size, status.st_mtime

    def opened(self):
        """A rasterio dataset of it, within GDAL's options for its product. UserError."""
        if not self.member:
            if is_address(self.path):
                if not may_ask(self.path):
                    raise NotAllowed(f"an item leads to {server_of(self.path)}; pass --allow-network if you trust it")
            elif os.path.isfile(self.path):
                refuse_cut_jp2(self.path)
            return opened(self.path)
        try:
            return Reopened(functools.partial(open_member, self))
        except RasterioIOError as error:
            raise UserError(f"{self} can't be opened as a raster ({' '.join(str(error).split())[:160]})") from error


def open_member(place):
    """A rasterio dataset of an archive's member, in one of the binary formats alone: nothing that leads elsewhere."""
    with Package(place.path) as package:
        start = package.start_of(place.member)
    if not start.startswith(SIGNATURES) or b"<VRT" in start or b"<GDAL_" in start:
        raise RasterioIOError(f"{place.member} is no GeoTIFF or JPEG 2000")
    kind = "zip" if place.path.lower().endswith(".zip") else "tar"
    path = os.path.abspath(place.path)
    name = f"/vsi{kind}/{{{path}}}/{place.member}" if "{" not in path and "}" not in path else f"/vsi{kind}/{path}/{place.member}"
    dataset = rasterio.DatasetReader(name, driver=list(DRIVERS))
    try:
        refuse_overviews_elsewhere(dataset, str(place))
    except UserError:
        dataset.close()
        raise
    return dataset


def refuse_cut_jp2(path):
    """UserError, as of a file that does not open, where a local JPEG 2000 file ends before its last box does."""
    try:
        refuse_cut_short(path)
        size = os.path.getsize(path)
        with open(path, "rb") as file:
            if file.read(12) != b"\0\0\0\x0cjP  \r\n\x87\n":
                return
            place = 0
            while place < size:
                file.seek(place)
                head = file.read(16)
                length = int.from_bytes(head[:4], "big")
                if length == 1:
                    length = int.from_bytes(head[8:16], "big")
                if length == 0:  # until the end
                    file.seek(max(0, size - 2))
                    if file.read(2) != b"\xff\xd9":
                        raise RasterioIOError("its end is missing")
                    return
                if length < 8:
                    raise RasterioIOError("its boxes are damaged")
                place += length
            if place > size:
                raise RasterioIOError(f"it is {size} bytes long and should be {place}")
    except RasterioIOError as error:
        raise UserError(f"{path} is cut short: {error}; download it again") from error


class Package:
    """
    What a folder or an archive holds.

        with Package(path) as package:
            package.names          # of all files, with / between folders
            package.read(name)     # bytes of a small one
            package.place(name)    # Place of a raster

    UserError where it cannot be read.
    """

    def __init__(self, path):
        self.path, self.archive = str(path), None
        if os.path.isdir(self.path):
            self.names = names_below(self.path)
            return
        try:
            require_regular(self.path)
            if self.path.lower().endswith(".zip"):
                self.archive = zipfile.ZipFile(self.path)
                members = [member.filename for member in self.archive.infolist() if not member.is_dir()]
            else:
                self.archive = tarfile.open(self.path, "r:")
                members = [member.name for member in self.archive.getmembers() if member.isreg()]
        except (OSError, zipfile.BadZipFile, tarfile.TarError, EOFError, ValueError) as error:
            why = " ".join(str(error).split())[:100]
            raise UserError(f"{self.path} cannot be read as an archive ({why}); download it again") from error
        self.stored = {name.removeprefix("./"): name for name in members[:MOST_MEMBERS]}
        self.names = sorted(name for name in self.stored if not name.startswith("/") and ".." not in name.split("/"))

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        if self.archive is not None:
            self.archive.close()

    def file_of(self, name):
        if self.archive is None:
            path = os.path.join(self.path, *name.split("/"))
            require_regular(path)
            return open(path, "rb")
        if isinstance(self.archive, zipfile.ZipFile):
            return self.archive.open(self.stored[name])
        return self.archive.extractfile(self.stored[name])

    def bytes_of(self, name, size):
        try:
            with self.file_of(name) as file:
                return file.read(size)
        except (OSError, zipfile.BadZipFile, tarfile.TarError, EOFError, RuntimeError, NotImplementedError, zlib.error) as error:
            raise UserError(f"{self.path}: {name} cannot be read ({' '.join(str(error).split())[:100]}); download it again") from error

    def read(self, name):
        content = self.bytes_of(name, MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise UserError(f"{self.path}: {name} is longer than the {MOST_BYTES >> 20} MB that metadata may have")
        return content

    def start_of(self, name):
        return self.bytes_of(name, 1024)

    def place(self, name):
        """Place of a file, which need not be there."""
        if self.archive is None:
            return Place(os.path.join(self.path, *name.split("/")))
        return Place(self.path, self.stored.get(name, name))


def names_below(folder, depth=6):
    """Names of the files in a folder and below it, sorted, with / between folders."""
    found, waiting = [], [("", folder, 0)]
    while waiting and len(found) < MOST_MEMBERS:
        prefix, place, level = waiting.pop()
        try:
            with os.scandir(place) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    if entry.is_dir():
                        if level < depth:
                            waiting.append((f"{prefix}{entry.name}/", entry.path, level + 1))
                    else:
                        found.append(prefix + entry.name)
        except OSError as error:
            raise UserError(f"{place} cannot be read ({error.strerror})") from error
    return sorted(found)
