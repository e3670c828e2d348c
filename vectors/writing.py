"""Areas of a map as GeoJSON in lon/lat (RFC 7946), written one by one while the map streams by."""

import json

import numpy as np

from runtime.errors import UserError

STRAIGHT = 64  # pixels: longer straight sides get corners in between, because they are curves in lon/lat
NODES = 65  # a side of the grid that looks for the antimeridian


class Globe:
    """
    Where a raster's pixels lie in lon/lat.

    is_lonlat: WGS84 degrees already. crosses: whether the raster reaches across the antimeridian. holds_pole: whether a pole is inside,
    where no polygon in lon/lat is right.
    """

    def __init__(self, crs, transform, height, width):
        from rasterio.crs import CRS

        self.crs, self.transform, self.height, self.width = crs, transform, height, width
        self.is_lonlat = crs == CRS.from_epsg(4326) or crs == CRS.from_string("OGC:CRS84")
        columns, rows = np.meshgrid(np.linspace(0, width, NODES), np.linspace(0, height, NODES))
        lon = self.lonlat(columns.ravel(), rows.ravel())[0].reshape(NODES, NODES)
        self.crosses = bool((np.abs(np.diff(lon, axis=0)) > 180).any() or (np.abs(np.diff(lon, axis=1)) > 180).any())
        self.holds_pole = crs.is_projected and any(self.holds(0.0, latitude) for latitude in (90.0, -90.0))

    def lonlat(self, columns, rows):
        """(lon, lat) in degrees, −180 ≤ lon < 180, of pixel coordinates; (0, 0) is the outer corner of the first pixel."""
        a, b, c, d, e, f = tuple(self.transform)[:6]
        x, y = a * columns + b * rows + c, d * columns + e * rows + f
        if not self.is_lonlat:
            from rasterio._err import CPLE_BaseError  # what GDAL reports of points that have no place; it has no public name
            from rasterio.warp import transform

            try:
                x, y = (np.asarray(v) for v in transform(self.crs, "EPSG:4326", x.tolist(), y.tolist()))
            except CPLE_BaseError as error:
                raise UserError(f"its CRS does not lead to lon/lat everywhere in the raster ({error})") from error
            if not np.isfinite(x).all():
                raise UserError("its CRS does not lead to lon/lat everywhere in the raster")
        return (x + 180) % 360 - 180, np.clip(y, -90, 90)

    def holds(self, lon, lat):
        """Whether a point of the globe is inside the raster."""
        from rasterio.warp import transform

        try:
            x, y = transform("EPSG:4326", self.crs, [lon], [lat])
        except Exception:  # a projection that can't show the pole does not hold it
            return False
        column, row = ~self.transform * (x[0], y[0])
        if not (0 <= column <= self.width and 0 <= row <= self.height):
            return False
        # Only if the way back leads there too: cylindrical projections put a pole somewhere that is not one.
        back = self.lonlat(np.array([column]), np.array([row]))[1][0]
        return bool(abs(back - lat) < 1)

    def parts(self, row, height):
        """(height, W) uint8 for some rows: 1 at negative longitudes, 0 else; None where the raster does not cross the antimeridian."""
        if not self.crosses:
            return None
        columns, rows = np.meshgrid(np.arange(self.width) + 0.5, np.arange(row, row + height) + 0.5)
        return (self.lonlat(columns.ravel(), rows.ravel())[0] < 0).reshape(height, self.width).astype(np.uint8)

    def rings(self, areas):
        """For each Area a list of rings, (N, 2) lon, lat; outer rings counterclockwise, holes clockwise, the first point repeated."""
        rings = [ring for area in areas for ring in area.rings]
        lengths = [len(ring) for ring in rings]
        points = np.concatenate(rings).astype(np.float64)
        lon, lat = self.lonlat(points[:, 0], points[:, 1])
        if self.crosses:
            # An area lies on one side (see parts); its corners reach over the antimeridian by less than a pixel.
            west = np.repeat(self.sides(areas), [sum(len(r) for r in a.rings) for a in areas])
            lon = np.where(west & (lon > 90), -180.0, np.where(~west & (lon < -90), 180.0, lon))
        lonlat = np.split(np.stack([lon, lat], axis=1), np.cumsum(lengths)[:-1])
        answer = []
        for area in areas:
            own, lonlat = lonlat[: len(area.rings)], lonlat[len(area.rings) :]
            answer.append([close_ring(ring, outer=i == 0) for i, ring in enumerate(own)])
        return answer

    def sides(self, areas):
        """(len(areas),) bool: does each lie at negative longitudes?"""
        columns, rows = np.array([a.column for a in areas]) + 0.5, np.array([a.row for a in areas]) + 0.5
        return self.lonlat(columns, rows)[0] < 0


def close_ring(ring, outer):
    """The right-hand rule of RFC 7946, and the first point again at the end."""
    x, y = (ring - ring[0]).T
    counterclockwise = np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)) > 0
    ring = ring if counterclockwise == outer else ring[::-1]
    return np.concatenate([ring, ring[:1]])


class PolygonFile:
    """
    A GeoJSON FeatureCollection that grows. file: opened for writing text. class_names: name of each class.

        polygons = PolygonFile(file, globe, class_names)
        polygons.add(areas)      # as often as needed
        polygons.finish()
    """

    def __init__(self, file, globe, class_names):
        self.file, self.globe, self.class_names = file, globe, class_names
        self.count = 0
        file.write('{"type": "FeatureCollection", "features": [')

    def add(self, areas):
        if not areas:
            return
        for area, rings in zip(areas, self.globe.rings(areas), strict=True):
            properties = {
                "class": area.value,
                "name": self.class_names[area.value],
                "area_ha": None if area.square_metres is None else round(area.square_metres / 1e4, 4),
                "mean_probability": round(min(1.0, area.mean), 4),
            }
            if area.cut:
                properties["continues"] = True  # too long an outline for one feature: the rest is in others
            geometry = {"type": "Polygon", "coordinates": [np.round(ring, 7).tolist() for ring in rings]}
            self.file.write(",\n" if self.count else "\n")
            self.file.write(json.dumps({"type": "Feature", "properties": properties, "geometry": geometry}, ensure_ascii=False))
            self.count += 1

    def finish(self):
        self.file.write("\n]}\n")
