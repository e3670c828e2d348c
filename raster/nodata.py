"""Which stored values are nodata: those that a flag or a file names, NaN and infinity, and 0 where products fill with it."""

import numpy as np

from runtime.errors import UserError


def decide_nodata(info, bands, flag):
    """
    The nodata value of each of `bands` (zero-based), None where a band has none, from --nodata (a number, or "none") or the file.

    UserError for a value that the band's type can't hold.
    """
    if flag is not None and flag.lower() == "none":
        return (None,) * len(bands)
    try:
        values = tuple(info.nodatavals[b] if flag is None else float(flag) for b in bands)
    except ValueError as error:
        raise UserError(f"--nodata expects a number or none, got {flag!r}") from error
    values = tuple(None if v is None or v != v else v for v in values)  # NaN is never data anyway
    for band, nodata in zip(bands, values, strict=True):
        kind = np.dtype(info.dtypes[band])
        if nodata is None or kind.kind not in "iu":
            continue
        if not (np.iinfo(kind).min <= nodata <= np.iinfo(kind).max and nodata == int(nodata)):
            where = "--nodata" if flag is not None else f"the nodata tag of {info.path}"
            raise UserError(f"{where} is {nodata:g}, which {kind.name} can't hold; pass --nodata with the right value, or --nodata none")
    return values


def zero_is_fill(info, bands, nodata, offset, flag):
    """
    Whether a pixel that is 0 in all of `bands` is nodata although no tag says so.

    It is in digital numbers with an offset (Sentinel-2): 0 is fill there and never a measurement, and the offset would make a reflectance
    of it. nodata: of decide_nodata. offset: what is added to values, all of it. flag: --nodata, which says otherwise.
    """
    whole = all(np.dtype(info.dtypes[b]).kind in "iu" for b in bands)
    return flag is None and whole and any(offset) and all(value is None for value in nodata)


def one_or_each(values):
    """The one value that all have, or the values as a tuple where they differ."""
    values = tuple(values)
    return values[0] if len(set(values)) == 1 else values


def valid_pixels(pixels, nodata, zero_is_nodata=False):
    """
    (H, W) bool: where every band of (C, H, W) stored values is data, neither nodata nor NaN nor infinite.

    nodata: one value for all bands, or one a band; None for none. zero_is_nodata: a pixel that is 0 in all bands is not valid either.
    """
    valid = np.ones(pixels.shape[1:], dtype=bool)
    each = nodata if isinstance(nodata, tuple) else (nodata,) * len(pixels)
    for band, value in zip(pixels, each, strict=True):  # band by band: no temporary array of the whole stack
        if pixels.dtype.kind == "f":
            valid &= np.isfinite(band)
        if value is not None and value == value:
            valid &= band != as_stored(value, band.dtype)
    return valid & (pixels != 0).any(axis=0) if zero_is_nodata else valid


def valid_on_dates(pixels, nodata, zero_is_nodata, dates):
    """valid_pixels, (H, W) bool, on all of `dates` dates, whose bands come one date after the other: 0 in all bands of one is nodata."""
    if dates == 1 or not zero_is_nodata:
        return valid_pixels(pixels, nodata, zero_is_nodata)
    each, count = nodata if isinstance(nodata, tuple) else (nodata,) * len(pixels), len(pixels) // dates
    parts = [slice(start, start + count) for start in range(0, len(pixels), count)]
    return np.logical_and.reduce([valid_pixels(pixels[part], each[part], True) for part in parts])


def as_stored(value, kind):
    """A number in an integer type that holds it, since a comparison of integers with a float makes floats of all of them."""
    fits = kind.kind in "iu" and np.iinfo(kind).min <= value <= np.iinfo(kind).max and value == int(value)
    return kind.type(value) if fits else value


def is_nodata(values, nodata):
    """
    Boolean array of the shape of `values`: nodata, NaN or infinite, each band by itself.

    For pan and ms rasters: where no nodata value is set (None), 0 is nodata, which is what these products fill with.
    """
    value = 0 if nodata is None else nodata
    found = values == value
    if values.dtype.kind == "f":
        found |= ~np.isfinite(values)
    return found
