"""
Outlines of a map, written while the map streams by: GeoJSON in lon/lat (RFC 7946), or a GeoPackage in the scene's CRS.

    with WRITERS["gpkg"](path, globe, class_names) as outlines:
        outlines.add(areas)      # as often as needed
    outlines.count
"""

import contextlib
import json

import numpy as np
import pyogrio
import shapely
from rasterio.crs import CRS

from raster.crs import LONLAT, NoTransform, text_of, transform_points
from runtime.errors import UserError
from runtime.files import atomic_path

STRAIGHT = 64  # pixels: longer straight sides get corners in between, because they are curves in lon/lat
NODES = 65  # a side of the grid that looks for the antimeridian
BATCH = 5000  # outlines that a GeoPackage takes at once
FIXED_DATE = "1970-01-01T00:00:00.000Z"  # of a GeoPackage's last change: the same map is the same bytes, whenever it was made

COLUMNS = {  # of a GeoPackage: (type, what stands where there is no value)
    "class": (np.int32, 0), "name": (object, ""), "area_ha": (np.float64, 0.0), "mean_probability": (np.float64, 0.0),
    "continues": (bool, False),
}


class Globe:
    """
    Where a raster's pixels lie in lon/lat.

    is_lonlat: WGS84 degrees already. crosses: whether the raster reaches across the antimeridian. holds_pole: whether a pole is inside,
    where no polygon in lon/lat is right.
    """

    def __init__(self, crs, transform, height, width):
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
            try:
                x, y = transform_points(self.crs, LONLAT, x, y)
            except NoTransform as error:
                raise UserError(f"its CRS does not lead to lon/lat ({error})") from error
            if not np.isfinite(x).all():
                raise UserError("its CRS does not lead to lon/lat everywhere in the raster")
        return (x + 180) % 360 - 180, np.clip(y, -90, 90)

    def holds(self, lon, lat):
        """Whether a point of the globe is inside the raster."""
        x, y = transform_points(LONLAT, self.crs, [lon], [lat])
        if not np.isfinite(x[0]):  # a projection that cannot show the pole does not hold it
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
        closed = []
        for area in areas:
            own, lonlat = lonlat[: len(area.rings)], lonlat[len(area.rings) :]
            closed.append([close_ring(ring, outer=i == 0) for i, ring in enumerate(own)])
        return closed

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


def properties_of(area, class_names):
    """The properties of an Area's outline: class, name, area_ha (None where it is not known), mean_probability, continues where it does."""
    properties = {
        "class": area.value,
        "name": class_names[area.value],
        "area_ha": None if area.square_metres is None else round(area.square_metres / 1e4, 4),
        "mean_probability": round(min(1.0, area.mean), 4),
    }
    if area.cut:
        properties["continues"] = True  # too long an outline for one feature: the rest is in others
    return properties


class GeoJSONOutlines:
    """
    Outlines as GeoJSON in lon/lat, cut at the antimeridian; under its name once the block has ended well.

    straight: pixels, the longest side without a corner, or None. parts(row, height): what an AreaFinder may not join, see Globe.parts.
    """

    ending = ".geojson"

    def __init__(self, path, globe, class_names):
        self.path, self.globe, self.class_names = path, globe, class_names
        self.straight, self.parts, self.count = None if globe.is_lonlat else STRAIGHT, globe.parts, 0

    @staticmethod
    def obstacle(globe):
        """Why there can be no outlines of a raster, or None."""
        return "a pole is inside: no polygons" if globe.holds_pole else None

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            temporary = stack.enter_context(atomic_path(self.path))
            self.file = stack.enter_context(open(temporary, "w", encoding="utf-8", newline="\n"))
            self.file.write('{"type": "FeatureCollection", "features": [')
            self.stack = stack.pop_all()
        return self

    def add(self, areas):
        for area, rings in zip(areas, self.globe.rings(areas) if areas else (), strict=True):
            geometry = {"type": "Polygon", "coordinates": [np.round(ring, 7).tolist() for ring in rings]}
            feature = {"type": "Feature", "properties": properties_of(area, self.class_names), "geometry": geometry}
            self.file.write((",\n" if self.count else "\n") + json.dumps(feature, ensure_ascii=False))
            self.count += 1

    def __exit__(self, *error):
        with self.stack:
            if error[0] is None:
                self.file.write("\n]}\n")
            return self.stack.pop_all().__exit__(*error)


class GeoPackageOutlines:
    """Outlines as the layer `outlines` of a GeoPackage, in the scene's CRS and along its pixels. As GeoJSONOutlines otherwise."""

    ending = ".gpkg"
    layer = "outlines"
    straight = None

    def __init__(self, path, globe, class_names):
        self.path, self.globe, self.class_names = path, globe, class_names
        self.waiting, self.written = [], 0

    @staticmethod
    def obstacle(globe):
        return None

    @property
    def count(self):
        return self.written + len(self.waiting)

    def parts(self, row, height):
        """Nothing has to be kept apart: the scene's CRS goes on beyond the antimeridian."""
        return None

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            self.temporary = stack.enter_context(atomic_path(self.path))
            self.temporary.unlink(missing_ok=True)  # of a run that was killed; GDAL would go on in it
            self.journal = self.temporary.with_name(f"{self.temporary.name}-journal")
            self.journal.unlink(missing_ok=True)
            stack.callback(self.journal.unlink, missing_ok=True)
            self.stack = stack.pop_all()
        return self

    def add(self, areas):
        for area in areas:
            self.waiting.append((self.polygon(area), properties_of(area, self.class_names)))
            if len(self.waiting) == BATCH:
                self.flush()

    def polygon(self, area):
        """A shapely Polygon in the scene's CRS. Outer rings counterclockwise, holes clockwise."""
        a, b, c, d, e, f = tuple(self.globe.transform)[:6]
        rings = [np.stack([a * x + b * y + c, d * x + e * y + f], axis=1) for x, y in (ring.astype(np.float64).T for ring in area.rings)]
        shell, *holes = [close_ring(ring, outer=i == 0) for i, ring in enumerate(rings)]
        return shapely.Polygon(shell, holes)

    def flush(self):
        """Append what waits; the first time, make the file."""
        shapes = np.array([shape for shape, _ in self.waiting], object)
        columns = {name: [properties.get(name) for _, properties in self.waiting] for name in COLUMNS}
        data = [np.array([none if v is None else v for v in columns[name]], kind) for name, (kind, none) in COLUMNS.items()]
        missing = [np.array([v is None for v in column], bool) for column in columns.values()]
        before = pyogrio.get_gdal_config_option("OGR_CURRENT_DATE")
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": FIXED_DATE})
        try:
            pyogrio.raw.write(
                self.temporary, geometry=shapely.to_wkb(shapes), field_data=data, fields=list(COLUMNS), field_mask=missing,
                layer=self.layer, driver="GPKG", geometry_type="Polygon", crs=text_of(self.globe.crs), encoding="UTF-8",
                append=self.written > 0,
            )
        finally:
            pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": before})
        self.written, self.waiting = self.written + len(self.waiting), []

    def __exit__(self, *error):
        with self.stack:
            if error[0] is None and (self.waiting or not self.written):
                self.flush()
            return self.stack.pop_all().__exit__(*error)


WRITERS = {"geojson": GeoJSONOutlines, "gpkg": GeoPackageOutlines}
