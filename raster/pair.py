"""A panchromatic and a multispectral raster of the same place: how their grids lie on each other, and matched windows of both.

All positions are in true ms pixels (column, row). The outer corner of ms pixel (0, 0) lies at pan pixel `shift`; along one ms
pixel lie `ratio` pan pixels. Where the shift is no whole number, pan is resampled (Keys' cubic) so that its pixel blocks nest
in the ms pixels; the finer image loses less by it.
"""

import contextlib
import math
import warnings
from dataclasses import dataclass, replace

import numpy as np
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.transform import Affine
from rasterio.windows import Window

from constants import BGRN_BANDS, WORLDVIEW_BANDS
from raster.hidden import alpha_remark, data_bands, hidden_pixels
from raster.nodata import is_nodata
from raster.source import describe, open_raster, read_bands
from runtime.errors import UserError

warnings.simplefilter("ignore", NotGeoreferencedWarning)  # match_pair has a remark about it

DRIFT = 0.25  # pan pixels that two grids may run apart over the whole image before they count as different grids


@dataclass(frozen=True)
class Pair:
    """
    pan, ms: paths. area: (column, row, width, height) in ms pixels that pan covers too. ratio: pan pixels along an ms pixel.
    shift: (x, y) pan pixels. step: 2 where ms is stored with every pixel doubled, else 1. bands: ms band names.
    crs, transform: of the ms grid in true pixels, None without georeference. nodata, dtypes: (pan, ms), the type that holds all bands.
    remarks: sentences for the log. pan_place: (crs, transform) of pan, None without georeference.
    indexes: 1-based bands of ms that are read, in this order; None for all. pan_band: the 1-based band of pan that is none of alpha.
    masked: (pan, ms), what hides pixels, see raster.hidden.DataBands.
    """

    pan: str
    ms: str
    area: tuple
    ratio: int
    shift: tuple
    step: int
    bands: tuple
    crs: object
    transform: object
    nodata: tuple
    dtypes: tuple
    remarks: tuple
    pan_place: tuple | None = None
    indexes: tuple | None = None
    pan_band: int = 1
    masked: tuple = (None, None)

    def fine_sensor_place(self):
        """SensorPlace of the grid of fine_transform(), of the file that gives its georeference; None where that has none."""
        pan, ms = describe(self.pan).sensor_place, describe(self.ms).sensor_place
        if pan and not (self.transform and not self.pan_place):
            return pan.moved(*(s + self.ratio * position for s, position in zip(self.shift, self.area[:2], strict=True)))
        if ms and not self.pan_place:
            return ms.moved(*(self.step * position for position in self.area[:2]), self.ratio / self.step)
        return None

    def inside(self, area):
        """This pair limited to area (column, row, width, height)."""
        left, top = max(area[0], self.area[0]), max(area[1], self.area[1])
        right = min(area[0] + area[2], self.area[0] + self.area[2])
        bottom = min(area[1] + area[3], self.area[1] + self.area[3])
        if right <= left or bottom <= top:
            raise UserError(f"the area {area} lies outside {self.ms}, whose usable area is {self.area} (column, row, width, height)")
        return replace(self, area=(left, top, right - left, bottom - top))

    def fine_transform(self):
        """
        Affine of the grid of pan resolution whose pixel (0, 0) is the first one of `area`.

        Pan's georeference counts, since its pixels make the picture: where a shift corrects the files, ms lies elsewhere than it says.
        With ms georeferenced alone it is that of ms; without any, pixels of pan.
        """
        if self.transform and not self.pan_place:
            return self.transform * Affine.translation(*self.area[:2]) * Affine.scale(1 / self.ratio)
        corner = (s + self.ratio * position for s, position in zip(self.shift, self.area[:2], strict=True))
        return (self.pan_place[1] if self.pan_place else Affine.identity()) * Affine.translation(*corner)

    def fine_crs(self):
        """The CRS that fine_transform() is in, or None."""
        return self.pan_place[0] if self.pan_place else self.crs


def match_pair(pan, ms, shift=(0.0, 0.0), bands=None, look_for_doubling=True):
    """
    Pair of two paths, or a UserError that says why they are none.

    shift: (x, y) pan pixels to add to what the geotransforms say, for files whose georeference is known to be off.
    bands: names; by default the file's own descriptions, else those of an 8-band or BGRN sensor.
    """
    p, m = describe(pan), describe(ms)
    pan_data, ms_data = data_bands(p), data_bands(m, range(1, m.count + 1) if len(bands or ()) == m.count else ())
    pan_bands, ms_bands = pan_data.bands, ms_data.bands
    if len(pan_bands) != 1:
        raise UserError(f"{pan} has {p.count} bands; expected 1, a panchromatic image")
    if len(ms_bands) < 2:
        besides = " besides its alpha band" if len(ms_bands) < m.count else ""
        raise UserError(f"{ms} has {len(ms_bands)} band{besides}; expected a multispectral image with several")
    if len({str(m.nodatavals[b - 1] or 0.0) for b in ms_bands}) > 1:
        found = ", ".join(str(m.nodatavals[b - 1]) for b in ms_bands)
        raise UserError(f"the bands of {ms} have different nodata values ({found}); give all of them one (gdal_translate -a_nodata 0)")
    step = 2 if look_for_doubling and is_doubled(ms, m, ms_bands) else 1
    remarks = []
    if ms_data.remark:
        remarks.append(ms_data.remark)
    if step == 2:
        remarks.append(f"{ms} is stored with every pixel doubled: reading every second one, {m.width // 2} x {m.height // 2} pixels")
    width, height = m.width // step, m.height // step
    georeferenced = [i.crs is not None or not i.transform.is_identity for i in (p, m)]
    if all(georeferenced):
        crs, transform = m.crs, m.transform * Affine.scale(step)
        ratio, corner = relate_transforms(p, transform, width, height, m)
    else:
        crs, transform = (m.crs, m.transform * Affine.scale(step)) if georeferenced[1] else (None, None)
        ratio, corner = relate_shapes(p, width, height, m), (0.0, 0.0)
        remarks.append(f"{pan} and {ms} are not both georeferenced: their corners count as one place, {ratio} pan pixels to an ms pixel")
    corner = tuple(nearest_exact(c + s) for c, s in zip(corner, shift, strict=True))
    if any(c != round(c) for c in corner):
        remarks.append(f"pan lies ({corner[0]:.3f}, {corner[1]:.3f}) of its pixels off the ms grid: resampling pan by the fraction")
    # A fraction of a pan pixel that lies beyond pan's edge is worth no row of ms: there the edge is repeated.
    left, top = (math.ceil(max(0, math.floor(-c)) / ratio) for c in corner)
    right, bottom = (math.ceil(size - c) // ratio for size, c in zip((p.width, p.height), corner, strict=True))
    area = (left, top, min(width, right) - left, min(height, bottom) - top)
    if area[2] < 1 or area[3] < 1:
        raise UserError(f"{pan} and {ms} share no ground; pass rasters of the same place")
    return Pair(
        str(pan), str(ms), area, ratio, corner, step, tuple(bands or default_band_names(m, ms_bands)), crs, transform,
        tuple(i.nodatavals[b[0] - 1] for i, b in ((p, pan_bands), (m, ms_bands))),
        tuple(np.result_type(*(i.dtypes[n - 1] for n in b)).name for i, b in ((p, pan_bands), (m, ms_bands))),
        tuple(remarks), (p.crs, p.transform) if georeferenced[0] else None, None if len(ms_bands) == m.count else ms_bands,
        pan_bands[0], (pan_data.masked, ms_data.masked),
    )


def with_alpha_as_data(pair, info):
    """A pair in which the band that GDAL calls alpha is read as data, since the user or the file names it, and marks no nodata."""
    masked = pair.masked[0], data_bands(info, (info.alpha_band + 1,)).masked
    return replace(pair, masked=masked, remarks=tuple(remark for remark in pair.remarks if remark != alpha_remark(info)))


def relate_transforms(p, ms_transform, width, height, m):
    """(ratio, (x, y) pan pixel of the ms corner) from two geotransforms, or a UserError with the figures."""
    if p.crs != m.crs:
        raise UserError(f"{p.path} is in {p.crs}, {m.path} in {m.crs}; reproject one of them")
    a, b, c, d, e, f = tuple(~p.transform * ms_transform)[:6]
    ratio = round((abs(a) + abs(e)) / 2)
    drift = max(abs(a - ratio) * width, abs(e - ratio) * height, abs(b) * height, abs(d) * width)
    if ratio < 2 or drift > DRIFT:
        raise UserError(
            f"the grids of {p.path} and {m.path} don't nest: an ms pixel is {a:.6g} x {e:.6g} pan pixels, rotated {b:.3g}, {d:.3g}, "
            f"{drift:.2f} apart at the end; warp one to a whole ratio"
        )
    return ratio, (c, f)


def relate_shapes(p, width, height, m):
    """The whole-number ratio of two shapes."""
    ratio = p.width // width
    if ratio < 2 or (p.width, p.height) != (ratio * width, ratio * height):
        raise UserError(
            f"{p.path} is {p.width} x {p.height}, {m.path} {width} x {height} pixels, without georeference; expected a whole number ratio"
        )
    return ratio


def nearest_exact(position):
    """Offsets within a hundredth of a pixel of a whole one are whole: that is rounding in a header, not geometry."""
    return float(round(position)) if abs(position - round(position)) < 0.01 else position


def default_band_names(m, bands):
    """Names of the bands (1-based) of ms that are data."""
    names = [m.descriptions[b - 1] for b in bands]
    if all(names) and len(set(names)) == len(bands):
        return tuple(name.lower() for name in names)
    return {8: WORLDVIEW_BANDS, 4: BGRN_BANDS}.get(len(bands)) or tuple(f"band_{i + 1}" for i in range(len(bands)))


def is_doubled(path, info, bands, side=128):
    """
    Whether an image is its own half, enlarged by repeating pixels.

    Two pixels of a cell are the same nearly everywhere (products lose the pattern along their edges), neighbours across cells are not.
    """
    if info.width % 2 or info.height % 2 or min(info.width, info.height) < 8:
        return False
    with open_raster(path) as dataset:
        for share in (0.5, 0.25, 0.75):
            column, row = (int(size * share) // 2 * 2 - side // 2 for size in (info.width, info.height))
            window = Window(max(0, column), max(0, row), side, side).intersection(Window(0, 0, info.width, info.height))
            try:
                values = read_bands(dataset, bands, window)
            except RasterioError:
                continue  # a broken file is an error where its pixels are needed
            values = values[:, : values.shape[1] // 2 * 2, : values.shape[2] // 2 * 2]
            if not values.size or (values == values[:, :1, :1]).all():
                continue
            inside = min(np.mean(values[:, ::2] == values[:, 1::2]), np.mean(values[:, :, ::2] == values[:, :, 1::2]))
            across = max(np.mean(values[:, 1:-1:2] == values[:, 2::2]), np.mean(values[:, :, 1:-1:2] == values[:, :, 2::2]))
            return bool(inside > 0.98 and across < 0.9)
    return False


class PairReader:
    """Windows of both images. Use as a context manager; one for each process."""

    def __init__(self, pair):
        self.pair = pair

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            self.ms_file = stack.enter_context(open_raster(self.pair.ms))
            self.pan_file = stack.enter_context(open_raster(self.pair.pan))
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *exception):
        self.stack.close()

    def read_ms(self, column, row, width, height):
        """(C, height, width) stored values."""
        step = self.pair.step
        indexes = self.pair.indexes or self.ms_file.indexes
        window = Window(column * step, row * step, width * step, height * step)
        values = read_bands(self.ms_file, indexes, window)
        if self.pair.masked[1] is not None:
            write_nodata(values, self.ms_file, window, self.pair.masked[1], self.pair.nodata[1])
        return values[:, ::step, ::step] if step > 1 else values

    def read_pan(self, column, row, width, height):
        """(1, ratio * height, ratio * width) values on the same ground; float32 where pan had to be resampled, else as stored."""
        ratio = self.pair.ratio
        x, y = (s + ratio * position for s, position in zip(self.pair.shift, (column, row), strict=True))
        left, top = math.floor(x), math.floor(y)
        if (left, top) == (x, y):
            return self.read_stored_pan(Window(left, top, ratio * width, ratio * height))
        return self.read_between(left, top, x - left, y - top, ratio * width, ratio * height)

    def read_stored_pan(self, window):
        """(1, H, W) of a window in pan's own pixels."""
        values = self.pan_file.read([self.pair.pan_band], window=window)
        if self.pair.masked[0] is not None:
            write_nodata(values, self.pan_file, window, self.pair.masked[0], self.pair.nodata[0])
        return values

    def read_between(self, left, top, right_by, down_by, width, height):
        """Pan at positions between its pixels. What touches nodata is nodata; the image's edge is repeated outwards."""
        full_width, full_height = self.pan_file.width, self.pan_file.height
        columns, rows = np.arange(left - 1, left + width + 2), np.arange(top - 1, top + height + 2)
        c0, c1 = max(0, left - 1), min(full_width, left + width + 2)
        r0, r1 = max(0, top - 1), min(full_height, top + height + 2)
        stored = self.read_stored_pan(Window(c0, r0, c1 - c0, r1 - r0))
        stored = stored[:, np.clip(rows, r0, r1 - 1) - r0][:, :, np.clip(columns, c0, c1 - 1) - c0]
        missing = is_nodata(stored, self.pair.nodata[0])
        values = np.where(missing, 0, stored).astype(np.float32)
        values = sum(w * values[:, i : i + height] for i, w in enumerate(keys_weights(down_by)))
        values = sum(w * values[:, :, i : i + width] for i, w in enumerate(keys_weights(right_by)))
        touched = np.zeros(values.shape, bool)
        for i in range(4):
            for j in range(4):
                touched |= missing[:, i : i + height, j : j + width]
        nodata = self.pair.nodata[0]
        return np.where(touched, np.float32(0 if nodata is None else nodata), values)


def write_nodata(values, dataset, window, masked, nodata):
    """Set `values` (C, H, W), a window of `dataset`, to nodata where `masked` (of DataBands) hides a pixel."""
    values[:, hidden_pixels(dataset, masked, window)] = 0 if nodata is None else nodata


def keys_weights(t):
    """Weights of the pixels at -1, 0, 1, 2 for a position t (0..1) between 0 and 1; cubic convolution with a = -0.5."""
    near = [1.5 * d**3 - 2.5 * d**2 + 1 for d in (t, 1 - t)]
    far = [-0.5 * d**3 + 2.5 * d**2 - 4 * d + 2 for d in (1 + t, 2 - t)]
    return np.array([far[0], near[0], near[1], far[1]], np.float32)
