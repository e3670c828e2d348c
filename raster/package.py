"""The files of a delivered product: those of a folder, or the members of a .zip or .tar, which are read where they are."""

import functools
import os
import posixpath
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
from runtime.network import is_address, may_ask, server_of, without_signature

ARCHIVES = (".zip", ".tar")
COMPRESSED_TARS = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
MOST_MEMBERS = 20_000
MOST_BYTES = 16 << 20  # of a product's metadata


@dataclass(frozen=True)
class Place:
    """Where a raster of a product is. path: a local file, an archive or an address. member: of an archive, else "". As text, unsigned."""

    path: str
    member: str = ""

    def __str__(self):
        return f"{self.path}/{self.member}" if self.member else without_signature(self.path)

    def is_there(self):
        """Whether the file or member exists; True of an address, which is asked when it is opened."""
        if "://" in self.path:
            return True
        return self.member in members_of(self.path) if self.member else os.path.exists(self.path)

    def content(self):
        """All bytes of a small local file, or member of an archive. UserError."""
        if self.member:
            members = members_of(self.path)
            if self.member not in members:
                raise UserError(f"{self.path} has no {self.member}; download it again") from RasterioIOError("no such member")
            content = read_member(self.path, self.member, members[self.member], MOST_BYTES + 1)
        else:
            content = read_file(self.path, MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise UserError(f"{self} is longer than the {MOST_BYTES >> 20} MB that metadata may have")
        return content

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
    members = members_of(place.path)
    if place.member not in members:
        raise UserError(f"{place.path} has no {place.member}; download it again") from RasterioIOError("no such member")
    start = read_member(place.path, place.member, members[place.member], 1024)
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


# ------------------------------------------------------------------------------------------------------- members of archives


@dataclass(frozen=True)
class Member:
    """
    A file in an archive. offset: of its bytes in a .tar, of its header in a .zip. size: bytes. deflated, crc: None in a .tar.
    """

    offset: int
    size: int
    deflated: bool | None = None
    crc: int | None = None


def members_of(path):
    """{name: Member} of an archive, by the names under which GDAL opens them: without ./ in front. UserError where it is none."""
    try:
        require_regular(path)
        status = os.stat(path)
        return index_of(path, status.st_size, status.st_mtime_ns)
    except (OSError, zipfile.BadZipFile, tarfile.TarError, EOFError, ValueError, NotImplementedError) as error:
        why = " ".join(str(error).split())[:100]
        raise UserError(f"{path} cannot be read as an archive ({why}); download it again") from RasterioIOError(why)


@functools.lru_cache(maxsize=32)
def index_of(path, size, mtime):
    """As members_of, read once for all bands of a product. size, mtime: of the archive, in bytes and nanoseconds."""
    if path.lower().endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            files = [file for file in archive.infolist()[:MOST_MEMBERS] if not file.is_dir()]
        kinds = {zipfile.ZIP_STORED: False, zipfile.ZIP_DEFLATED: True}  # which GDAL reads
        found = {
            file.filename: Member(file.header_offset, file.file_size, kinds[file.compress_type], file.CRC)
            for file in files if file.compress_type in kinds and not file.flag_bits & 1  # encrypted
        }
    else:
        with tarfile.open(path, "r:") as archive:
            files = [file for file in archive.getmembers()[:MOST_MEMBERS] if file.isreg() and not file.issparse()]
        found = {file.name: Member(file.offset_data, file.size) for file in files}
    named = {posixpath.normpath(name): member for name, member in found.items()}
    return {name: named[name] for name in sorted(named) if not name.startswith("/") and ".." not in name.split("/")}


def read_member(path, name, member, size):
    """The first `size` bytes of an archive's member. UserError."""
    try:
        with open(path, "rb") as file:
            file.seek(member.offset)
            if member.deflated is not None:  # behind a header with a name and more, both of their own lengths
                head = file.read(30)
                if head[:4] != b"PK\3\4":
                    raise EOFError("its header is missing")
                file.seek(int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little"), os.SEEK_CUR)
            wanted = min(size, member.size)
            content = inflated(file, wanted) if member.deflated else file.read(wanted)
        if len(content) < wanted:
            raise EOFError("its end is missing")
        if member.crc is not None and wanted == member.size and zlib.crc32(content) != member.crc:
            raise EOFError("its checksum is another one")
    except (OSError, EOFError, zlib.error) as error:
        why = " ".join(str(error).split())[:100]
        raise UserError(f"{path}: {name} cannot be read ({why}); download it again") from RasterioIOError(why)
    return content


def inflated(file, size):
    """At most `size` bytes of a deflated stream that begins where an open file is."""
    stream, parts, missing = zlib.decompressobj(-zlib.MAX_WBITS), [], size
    while missing and not stream.eof and (block := stream.unconsumed_tail or file.read(65_536)):
        parts.append(stream.decompress(block, missing))
        missing -= len(parts[-1])
    return b"".join(parts)


class Package:
    """
    What a folder or an archive holds.

        package = Package(path)
        package.names          # of all files, with / between folders
        package.read(name)     # bytes of a small one
        package.place(name)    # Place of a raster

    UserError where it cannot be read.
    """

    def __init__(self, path):
        self.path = str(path)
        self.members = None if os.path.isdir(self.path) else members_of(self.path)
        self.names = names_below(self.path) if self.members is None else list(self.members)

    def read(self, name):
        return self.place(name).content()

    def place(self, name):
        """Place of a file, which need not be there."""
        if self.members is None:
            return Place(os.path.join(self.path, *name.split("/")))
        return Place(self.path, posixpath.normpath(name))


def read_file(path, size):
    """The first `size` bytes of a local file. UserError."""
    try:
        require_regular(path)
        with open(path, "rb") as file:
            return file.read(size)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); download it again") from error


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
