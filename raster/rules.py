"""
What GDAL may open of a file that may come from a stranger: pixels in known formats, and VRTs that only arrange such files.

GDAL has a hundred formats; among them are texts that lead to servers, VRT bands that show the bytes of any file, and bands that run Python.
"""

import os
import re
from pathlib import Path
from xml.etree import ElementTree

import rasterio
from rasterio.errors import RasterioError

from raster.crs import CRS_NAME
from raster.cut_short import refuse_cut_short
from runtime.errors import UserError, one_line
from runtime.files import require_regular
from runtime.network import may_ask

DRIVERS = ("GTiff", "JP2OpenJPEG", "JP2KAK", "JP2ECW", "JP2MrSID", "PNG", "JPEG", "HFA", "ENVI")  # those that this GDAL has
FORMATS = "GeoTIFF, JPEG 2000, PNG, JPEG, Imagine, ENVI or a VRT of them"
SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51",
              b"EHFA_HEADER_TAG")
SIDE_FILES = (".ovr", ".msk", ".msk.ovr")  # which GDAL opens by itself, in whatever format they are

VRT_BYTES = 64 << 20
VRT_DEPTH = 8  # VRTs of VRTs
SUBCLASSES = ("vrtwarpeddataset", "vrtwarpedrasterband", "vrtsourcedrasterband")
# GDAL takes an attribute for an element and the other way round, whatever the case of the letters.
SOURCES = ("sourcefilename", "sourcedataset")
REFUSED = {
    "openoptions": "options for its sources", "group": "arrays", "dempath": "an elevation model", "rpc_dem": "an elevation model",
    "input": "processing", "x_dataset": "geolocation arrays", "overview_file": "overviews elsewhere",
    "pixelfunctiontype": "a pixel function", "pixelfunctioncode": "a pixel function", "imageoffset": "a raw band",
}


class NotAllowed(UserError):
    """A raster that leads to what it must not: the whole run ends, where one that is only damaged would be left out."""


def drivers_for(path):
    """
    The GDAL drivers that a local file may be opened with. NotAllowed for a VRT that leaves the rules.

    A VRT is only one for the VRT driver, after all that it names was checked, so that nothing else is ever taken for one.
    """
    refuse_waiting(path)
    refuse_side_files(path)
    if is_vrt(path):
        check_vrt(path)
        return ["VRT"]
    return list(DRIVERS)


def refuse_waiting(path):
    """UserError for a pipe or device, whose opening may never return, as a raster or as a file beside it."""
    for file in (path, *(f"{path}{suffix}" for suffix in (*SIDE_FILES, ".aux.xml"))):
        try:
            require_regular(file)
        except OSError as error:
            raise UserError(f"{file} cannot be read ({error.strerror}); expected {FORMATS}") from error


def start_of(path, size=1024):
    try:
        with open(path, "rb") as file:
            return file.read(size)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); expected {FORMATS}") from error


def is_vrt(path):
    return os.path.isfile(path) and start_of(path).lstrip().startswith((b"<VRTDataset", b"<?xml", b"\xef\xbb\xbf<"))


def has_signature(path):
    """Whether a file begins as one of the binary formats, and has no text in it that GDAL could take for another."""
    start = start_of(path)
    return start.startswith(SIGNATURES) and not any(text in start for text in (b"<VRT", b"<GDAL_"))


def refuse_side_files(path):
    for side in (f"{path}{suffix}" for suffix in SIDE_FILES):
        if os.path.isfile(side) and not has_signature(side):
            raise NotAllowed(f"{side} is no GeoTIFF, which the file beside {path} has to be; remove it")


def refuse_overviews_elsewhere(dataset, path):
    """Metadata of a raster can name any file, or address, as the one with its overviews; GDAL itself names one beside it, an .aux file."""
    base, beside, name = dataset.tags(ns="OVERVIEWS").get("OVERVIEW_FILE", ":::BASE:::").partition(":::BASE:::")
    place = os.path.join(os.path.dirname(path), name)
    if base or not beside or os.path.basename(name) != name or (name and os.path.exists(place) and not has_signature(place)):
        raise NotAllowed(f"{path} names another file for its overviews, which is not read; expected them inside (gdaladdo), so copy it "
                        "with gdal_translate")


def check_vrt(path, depth=0):
    """NotAllowed unless a VRT's bands are plain ones and its sources local rasters, or on servers that may be asked."""
    text = read_vrt(path)
    try:
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise ElementTree.ParseError("it declares entities")
        builder = ElementTree.TreeBuilder(insert_comments=True, insert_pis=True)
        root = ElementTree.fromstring(text, ElementTree.XMLParser(target=builder))
    except (ElementTree.ParseError, ValueError) as error:
        raise UserError(f"{path} is not a VRT that can be read ({error}); expected {FORMATS}") from error
    if root.tag != "VRTDataset":
        raise UserError(f"{path} is XML, but no VRT; expected {FORMATS}")
    for element in root.iter():
        if not isinstance(element.tag, str):  # a comment
            continue
        name = element.tag.lower()
        if name == "srs" and (element.text or "").strip() and not CRS_NAME.fullmatch(element.text.strip()):
            raise NotAllowed(f"{path} names the CRS {element.text.strip()[:60]!r}; expected AUTHORITY:CODE, a URN or WKT")
        if name in SOURCES:
            check_source(path, element, depth)
        for word, value in [(name, (element.text or "").strip()), *((k.lower(), v.strip()) for k, v in element.attrib.items())]:
            refused = REFUSED.get(word) or REFUSED.get(value.lower())
            if word == "subclass" and value.lower() not in SUBCLASSES:
                refused = {"vrtrawrasterband": "a raw band", "vrtderivedrasterband": "a derived band"}.get(value.lower(), value[:40])
            if refused or (word in SOURCES and word != name):
                raise NotAllowed(f"{path} has {refused or 'a hidden source'}, which could read or run anything; convert it first")


def read_vrt(path):
    if os.path.getsize(path) > VRT_BYTES:
        raise NotAllowed(f"{path} is a VRT of {os.path.getsize(path) >> 20} MB; expected at most {VRT_BYTES >> 20}")
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as text ({error}); expected {FORMATS}") from error


def check_source(path, element, depth):
    """NotAllowed unless what a VRT's element names may be opened. path: of the VRT."""
    name = (element.text or "").strip()
    relative = [v.strip() for k, v in element.attrib.items() if k.lower() == "relativetovrt"] or ["0"]
    if len(element) or not name:
        raise NotAllowed(f"{path} has a source that is no file; convert it first")
    if address := address_of(name):
        if not may_ask(address):
            raise NotAllowed(f"{path} leads to {address}; pass --allow-network if you trust it")
        try:
            with rasterio.DatasetReader(name, driver=list(DRIVERS)) as dataset:
                refuse_overviews_elsewhere(dataset, address)
        except RasterioError as error:
            raise UserError(f"{path} leads to {address}, which can't be opened as a raster ({one_line(error)[:160]})") from error
        return
    if name.startswith("/vsi") or re.match(r"\w+:|[<{]", name):
        raise NotAllowed(f"{path} has the source {name[:80]!r}; expected the path of a raster")
    if relative not in (["0"], ["1"]):
        raise NotAllowed(f"{path} has relativeToVRT {', '.join(relative)}; expected 0 or 1")
    source = os.path.join(os.path.dirname(os.path.abspath(path)), name) if relative == ["1"] else name
    if not os.path.exists(source):
        return  # an error where its pixels are needed
    refuse_side_files(source)
    if is_vrt(source):
        if depth >= VRT_DEPTH:
            raise NotAllowed(f"{path} is a VRT of VRTs of VRTs, {VRT_DEPTH} deep; convert it (gdal_translate)")
        check_vrt(source, depth + 1)
    elif not os.path.isfile(source) or not has_signature(source):
        raise NotAllowed(f"{path} has the source {source}, which is no raster; expected {FORMATS}")
    else:
        refuse_cut_short(source)


def address_of(name):
    """The https:// or s3:// address of a GDAL name, None for other names."""
    for prefix, scheme in (("/vsicurl/http://", "http://"), ("/vsicurl/https://", "https://"), ("/vsis3/", "s3://")):
        if name.startswith(prefix):
            return scheme + name.removeprefix(prefix)
    return None
