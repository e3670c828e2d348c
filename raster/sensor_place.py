"""Where a raster lies by ground control points or rational polynomial coefficients (RPCs) in place of a geotransform."""

import math
import os
import shlex
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

from rasterio.control import GroundControlPoint
from rasterio.rpc import RPC

from raster.crs import LONLAT, NoTransform, text_of, transform_points


@dataclass(frozen=True)
class SensorPlace:
    """
    gcps: rasterio GroundControlPoints, in pixels from the corner of the raster. crs: theirs, or None. rpcs: rasterio RPC or None, in pixels
    from the middle of the first one.
    """

    gcps: tuple = ()
    crs: object = None
    rpcs: object = None

    @property
    def words(self):
        return "ground control points" if self.gcps else "RPCs"

    def moved(self, column, row, scale=1):
        """The place for another grid, whose corner lies at (column, row) in pixels of this one and which has `scale` pixels to one."""
        gcps = tuple(
            GroundControlPoint((p.row - row) * scale, (p.col - column) * scale, p.x, p.y, p.z, p.id, p.info) for p in self.gcps
        )
        if self.rpcs is None:
            return SensorPlace(gcps, self.crs)
        known = self.rpcs.to_dict()
        for name, first in (("line", row), ("samp", column)):
            known[f"{name}_off"] = (known[f"{name}_off"] + 0.5 - first) * scale - 0.5
            known[f"{name}_scale"] = known[f"{name}_scale"] * scale
        return SensorPlace(gcps, self.crs, RPC(**known))

    def write(self, dataset, with_grid):
        """Into a rasterio dataset open for writing. with_grid: it has a geotransform, beside which GeoTIFF keeps no points."""
        if self.gcps and not with_grid:
            dataset.gcps = list(self.gcps), self.crs
        if self.rpcs is not None:
            dataset.rpcs = self.rpcs

    def warp_line(self, path, nodata=None):
        """
        The gdalwarp line that puts a raster on a UTM grid, or on one in the points' CRS where that does not lead to the globe.

        nodata: the raster's own value.
        """
        name = os.path.basename(str(path))
        files = f"{shlex.quote(str(path))} {shlex.quote(os.path.splitext(name)[0] + '_warped.tif')}"
        files = files if nodata is not None else f"-dstnodata 0 {files}"  # what the turned raster does not cover is no black ground
        if not self.gcps:
            return f"gdalwarp -rpc -t_srs {utm_of(self.rpcs.long_off, self.rpcs.lat_off)} {files}"
        way = "-tps" if len(self.gcps) > 3 else "-order 1"
        source = "" if self.crs else f"-s_srs {LONLAT} "
        x, y = (sum(getattr(p, axis) for p in self.gcps) / len(self.gcps) for axis in "xy")
        try:
            (lon,), (lat,) = transform_points(self.crs or LONLAT, LONLAT, [x], [y])
            target = utm_of(lon, lat)
        except NoTransform:
            target = text_of(self.crs)
        return f"gdalwarp {way} {source}-t_srs {target} {files}"

    def vrt(self):
        """Lines of a VRT."""
        lines = []
        if self.gcps:
            crs = f" Projection={quoteattr(self.crs.to_wkt())}" if self.crs else ""
            lines.append(f"  <GCPList{crs}>")
            for p in self.gcps:
                place = f'Pixel="{p.col!r}" Line="{p.row!r}" X="{p.x!r}" Y="{p.y!r}" Z="{p.z or 0.0!r}"'
                lines.append(f"    <GCP Id={quoteattr(str(p.id or ''))} {place}/>")
            lines.append("  </GCPList>")
        if self.rpcs is not None:
            items = "".join(f"<MDI key={quoteattr(k)}>{escape(str(v))}</MDI>" for k, v in self.rpcs.to_gdal().items())
            lines.append(f'  <Metadata domain="RPC">{items}</Metadata>')
        return lines


def sensor_place_of(dataset):
    """SensorPlace of an open rasterio dataset, None where it has neither points nor RPCs."""
    (gcps, crs), rpcs = dataset.gcps, dataset.rpcs
    return SensorPlace(tuple(gcps), crs or None, rpcs) if gcps or rpcs else None


def utm_of(lon, lat):
    """`EPSG:32633`: the UTM zone of a place; lon/lat where there is none."""
    if not (math.isfinite(lon) and abs(lat) <= 84):
        return LONLAT
    return f"EPSG:{(32600 if lat >= 0 else 32700) + int((lon + 180) // 6 % 60) + 1}"


def why_without_grid(info):
    """What to tell of a raster that polygons cannot be placed on: found, and the remedy. info: RasterInfo."""
    if info.sensor_place:
        return f"has {info.sensor_place.words} and no grid; warp it first ({info.sensor_place.warp_line(info.path, info.nodata)})"
    return "has no CRS; set one (gdal_edit.py -a_srs)"
