"""
Outlines of a map, written while the map streams by: GeoJSON in lon/lat (RFC 7946), or a GeoPackage in the scene's CRS.

    with WRITERS["gpkg"](path, globe, class_names) as outlines:
        outlines.add(areas)      # as often as needed
    outlines.count
"""

import contextlib
import itertools
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
AT_ONCE = 10_000  # points that become coordinates, or text, at once: as Python's numbers they take ten times their memory
BATCH, BATCH_BYTES = 5000, 32 << 20  # outlines that a GeoPackage takes at once; fewer where they are long
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

    def place_of(self, areas):
        """For closed_rings: (columns, rows, which of the Areas each point belongs to) → (lon, lat)."""
        if not self.crosses:
            return lambda columns, rows, owner: self.lonlat(columns, rows)
        columns, rows = np.array([a.column for a in areas]) + 0.5, np.array([a.row for a in areas]) + 0.5
        western = self.lonlat(columns, rows)[0] < 0

        def place(columns, rows, owner):
            lon, lat = self.lonlat(columns, rows)
            # An area lies on one side (see parts); its corners reach over the antimeridian by less than a pixel.
            west = western[owner]
            return np.where(west & (lon > 90), -180.0, np.where(~west & (lon < -90), 180.0, lon)), lat

        return place


def closed_rings(areas, place):
    """
    The rings of some Areas one by one, (N, 2) x, y: outer ones counterclockwise, holes clockwise (RFC 7946), the first point repeated.

    place: (columns, rows, index of each point's Area) → (x, y). About AT_ONCE points are placed at once.
    """
    points, lengths = (np.concatenate([getattr(area, name) for area in areas]) for name in ("points", "lengths"))
    owner = np.repeat(np.arange(len(areas)), [len(area.lengths) for area in areas])
    outer = np.diff(owner, prepend=-1) > 0
    stops = np.cumsum(lengths)
    for part in np.split(np.arange(len(lengths)), np.flatnonzero(np.diff(stops // AT_ONCE)) + 1):
        first = stops[part[0]] - lengths[part[0]]
        columns, rows = points[first : stops[part[-1]]].T.astype(np.float64)
        xy = np.stack(place(columns, rows, np.repeat(owner[part], lengths[part])), axis=1)
        yield from np.split(*close_rings(xy, lengths[part], outer[part]))


def close_rings(xy, lengths, outer):
    """
    Some rings turned by the right-hand rule where they need it, with the first point again at the end of each.

    xy: (N, 2) of one ring after another. lengths: (R,) points of each. outer: (R,) bool. → xy (N + R, 2), and (R − 1,) where to split it.
    """
    stops = np.cumsum(lengths)
    starts = stops - lengths
    following = np.arange(1, len(xy) + 1)
    following[stops - 1] = starts
    x, y = (xy - np.repeat(xy[starts], lengths, axis=0)).T
    counterclockwise = np.add.reduceat(x * y[following] - x[following] * y, starts) > 0
    order = np.arange(len(xy))
    order = np.where(np.repeat(counterclockwise == outer, lengths), order, np.repeat(starts + stops - 1, lengths) - order)
    return np.insert(xy[order], stops, xy[order[starts]], axis=0), np.cumsum(lengths + 1)[:-1]


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
        rings = closed_rings(areas, self.globe.place_of(areas)) if areas else iter(())
        for area in areas:
            feature = {"type": "Feature", "properties": properties_of(area, self.class_names)}
            self.file.write((",\n" if self.count else "\n") + json.dumps(feature, ensure_ascii=False)[:-1])
            self.file.write(', "geometry": {"type": "Polygon", "coordinates": [')
            for number, ring in enumerate(itertools.islice(rings, len(area.lengths))):
                self.file.write(", [" if number else "[")
                for first in range(0, len(ring), AT_ONCE):
                    part = json.dumps(np.round(ring[first : first + AT_ONCE], 7).tolist())[1:-1]
                    self.file.write(f", {part}" if first else part)
                self.file.write("]")
            self.file.write("]}}")
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
    columns = COLUMNS
    straight = None

    def __init__(self, path, globe, class_names):
        self.path, self.globe, self.class_names = path, globe, class_names
        self.waiting, self.waiting_bytes, self.written = [], 0, 0

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
        for first in range(0, len(areas), BATCH):
            part = areas[first : first + BATCH]
            for area, shape in zip(part, self.shapes(part), strict=True):
                self.put(shape, properties_of(area, self.class_names))

    def put(self, shape, properties):
        """Add a feature. shape: WKB of a polygon in the scene's CRS."""
        self.waiting.append((shape, properties))
        self.waiting_bytes += len(shape)
        if len(self.waiting) == BATCH or self.waiting_bytes >= BATCH_BYTES:
            self.flush()

    def shapes(self, areas):
        """(len(areas),) WKB of polygons in the scene's CRS."""
        a, b, c, d, e, f = tuple(self.globe.transform)[:6]
        points = np.concatenate(list(closed_rings(areas, lambda x, y, _: (a * x + b * y + c, d * x + e * y + f))))
        rings = [np.concatenate([[0], np.cumsum(n)]) for n in (
            np.concatenate([area.lengths + 1 for area in areas]), [len(area.lengths) for area in areas],
        )]
        return shapely.to_wkb(shapely.from_ragged_array(shapely.GeometryType.POLYGON, points, tuple(rings)))

    def flush(self):
        """Append what waits; the first time, make the file."""
        shapes = np.array([shape for shape, _ in self.waiting], object)
        columns = {name: [properties.get(name) for _, properties in self.waiting] for name in self.columns}
        data = [np.array([none if v is None else v for v in columns[name]], kind) for name, (kind, none) in self.columns.items()]
        missing = [np.array([v is None for v in column], bool) for column in columns.values()]
        before = pyogrio.get_gdal_config_option("OGR_CURRENT_DATE")
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": FIXED_DATE})
        try:
            pyogrio.raw.write(
                self.temporary, geometry=shapes, field_data=data, fields=list(self.columns), field_mask=missing,
                layer=self.layer, driver="GPKG", geometry_type="Polygon", crs=text_of(self.globe.crs), encoding="UTF-8",
                append=self.written > 0,
            )
        finally:
            pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": before})
        self.written, self.waiting, self.waiting_bytes = self.written + len(self.waiting), [], 0

    def __exit__(self, *error):
        with self.stack:
            if error[0] is None and (self.waiting or not self.written):
                self.flush()
            return self.stack.pop_all().__exit__(*error)


WRITERS = {"geojson": GeoJSONOutlines, "gpkg": GeoPackageOutlines}
