"""Values, polygons and masks on other grids become classes that can be counted by hand."""

import json

import numpy as np
import pyogrio
import pytest
import shapely
from rasterio.crs import CRS
from rasterio.transform import Affine, from_origin
from rasterio.warp import transform, transform_geom

from chipping.labels import class_of, parse_label_map, read_aligned, read_polygons, same_grid, to_classes
from raster.source import describe, open_raster
from runtime.errors import UserError
from vectors.placing import burn, place_polygons
from vectors.reading import Feature

GRID = from_origin(500_000, 4_600_000, 10, 10)


def box(west, south, east, north):
    return {"type": "Polygon", "coordinates": [[[west, south], [east, south], [east, north], [west, north], [west, south]]]}


def write_geojson(path, *features, **more):
    """features: (geometry, properties)."""
    content = {"type": "FeatureCollection", "features": [{"type": "Feature", "geometry": g, "properties": p} for g, p in features], **more}
    path.write_text(json.dumps(content))
    return str(path)


def in_lonlat(geometry, crs="EPSG:32633"):
    return transform_geom(crs, "EPSG:4326", geometry)


# --- values ---


def test_label_maps_are_parsed():
    assert parse_label_map("-1=ignore,2=1") == {-1: 255, 2: 1} and parse_label_map(None) == {}
    for wrong in ("2", "2=", "a=1", "2=-1", "2=300", "1=1,1=0"):
        with pytest.raises(UserError, match="--label-map"):
            parse_label_map(wrong)


@pytest.mark.parametrize("kind", ["uint8", "int16", "uint16", "int32", "uint32", "int64", "float32", "float64"])
def test_classes_of_every_type(kind):
    assert to_classes(np.array([[0, 1, 255, 1]], kind), 2).tolist() == [[0, 1, 255, 1]]


def test_nodata_nan_infinity_and_mapped_values_are_ignored_or_renamed():
    values = np.array([-1, 0, 1, 2, 7, 255], "int16")
    assert to_classes(values, 2, nodata=7, mapping=((-1, 255), (2, 1))).tolist() == [255, 0, 1, 1, 255, 255]
    assert to_classes(np.array([np.nan, np.inf, -np.inf, 1, -9999.5], "float32"), 2, nodata=-9999.5).tolist() == [255, 255, 255, 1, 255]
    assert to_classes(np.array([100_000, 1, -70_000], "int32"), 2, nodata=100_000, mapping=((-70_000, 0),)).tolist() == [255, 1, 0]


def test_a_map_wins_over_nodata():
    """Masks often carry 0 as nodata tag although 0 is their background."""
    values = np.array([0, 1], "uint8")
    assert to_classes(values, 2, nodata=0).tolist() == [255, 1]
    assert to_classes(values, 2, nodata=0, mapping=((0, 0),)).tolist() == [0, 1]


@pytest.mark.parametrize("values", [np.array([0, 2], "uint8"), np.array([0, -1], "int16"), np.array([0, 1e6]), np.array([0, 2**40])])
def test_a_value_outside_the_classes_is_named(values):
    with pytest.raises(UserError, match=r"m\.tif holds the value .*expected classes 0\.\.1"):
        to_classes(values, 2, path="m.tif")


def test_broken_numbers_are_no_labels():
    with pytest.raises(UserError, match="whole numbers"):
        to_classes(np.array([0.5]), 2)
    with pytest.raises(UserError, match="complex"):
        to_classes(np.array([1j]), 2)


# --- polygons ---


def test_a_polygon_covers_the_pixels_whose_centres_it_holds(tmp_path):
    # rows 2-3 and columns 1-4 of a 10 m grid; its edges pass a little outside of the pixel's borders
    path = write_geojson(tmp_path / "a.geojson", (in_lonlat(box(500_009, 4_599_959, 500_051, 4_599_981)), {}))
    shapes = place_polygons(read_polygons([path]), "EPSG:32633", GRID, 8, 6)
    expected = np.zeros((6, 8), np.uint8)
    expected[2:4, 1:5] = 1
    assert (burn(shapes, GRID, (0, 0, 8, 6)) == expected).all()
    assert (burn(shapes, GRID, (3, 2, 5, 4)) == expected[2:, 3:]).all()


def test_polygons_land_right_on_turned_and_south_up_rasters(tmp_path):
    for grid in (
        Affine(10, 0, 500_000, 0, 10, 4_599_000),
        Affine.translation(500_000, 4_600_000) * Affine.rotation(40) * Affine.scale(10, -10),
    ):
        corners = [grid * p for p in ((1.8, 0.8), (5.2, 0.8), (5.2, 4.2), (1.8, 4.2), (1.8, 0.8))]
        path = write_geojson(tmp_path / "a.geojson", (in_lonlat({"type": "Polygon", "coordinates": [corners]}), {}))
        expected = np.zeros((6, 8), np.uint8)
        expected[1:4, 2:5] = 1
        shapes = place_polygons(read_polygons([path]), "EPSG:32633", grid, 8, 6)
        assert (burn(shapes, grid, (0, 0, 8, 6)) == expected).all()


def centres(crs, grid, width, height):
    """(lon, lat) of every pixel's centre, (height, width) each."""
    xs, ys = zip(*[grid * (col + 0.5, row + 0.5) for row in range(height) for col in range(width)], strict=True)
    return np.array(transform(crs, "EPSG:4326", xs, ys)).reshape(2, height, width)


def burnt(tmp_path, geometry, crs, grid, width, height):
    path = write_geojson(tmp_path / "a.geojson", (geometry, {}))
    return burn(place_polygons(read_polygons([path]), crs, grid, width, height), grid, (0, 0, width, height))


@pytest.mark.parametrize("corners", [(-30, 0, 150, 80), (-180, -84, 180, 84), (-180, -90, 180, 90), (-170, -80, 170, 80)])
def test_a_box_far_beyond_the_zone_covers_what_lies_in_it(tmp_path, corners):
    """In UTM the corners of such a box fold over or fall together."""
    assert (burnt(tmp_path, box(*corners), "EPSG:32633", GRID, 100, 100) == 1).all()
    west, south, east, _ = corners
    lat = centres("EPSG:32633", GRID, 100, 100)[1]
    found = burnt(tmp_path, box(west, south, east, lat.mean()), "EPSG:32633", GRID, 100, 100)
    assert (found == (lat < lat.mean())).all() and 0 < found.mean() < 1
    holed = box(*corners)
    holed["coordinates"] += box(west + 1, lat.mean(), east - 1, 79)["coordinates"]
    assert (burnt(tmp_path, holed, "EPSG:32633", GRID, 100, 100) == found).all(), "and a hole is a hole"


@pytest.mark.parametrize("degrees", [0.5, 1, 5])
def test_long_edges_follow_their_parallel(tmp_path, degrees):
    """A straight line in UTM between the ends of one degree would pass 12 pixels beside the middle."""
    grid = from_origin(499_000, 4_600_000, 10, 10)
    lat = centres("EPSG:32633", grid, 200, 100)[1]
    edge = lat[50, 100]
    found = burnt(tmp_path, box(15 - degrees / 2, 40, 15 + degrees / 2, edge), "EPSG:32633", grid, 200, 100)
    pixel = 10 / 111_000  # degrees
    assert (found == (lat < edge))[np.abs(lat - edge) > 0.1 * pixel].all() and 0.4 < found.mean() < 0.6


def test_a_map_of_a_continent_gets_curved_parallels(tmp_path):
    grid = from_origin(2_500_000, 5_500_000, 10_000, 10_000)
    lon, lat = centres("EPSG:3035", grid, 400, 400)
    found = burnt(tmp_path, box(-30, 35, 60, 50), "EPSG:3035", grid, 400, 400)
    assert (found == ((lat > 35) & (lat < 50) & (lon > -30) & (lon < 60))).mean() > 0.9995 and 0.2 < found.mean() < 0.8


@pytest.mark.parametrize("how", ["cut in two", "beyond 180", "jumping", "all the world"])
def test_polygons_meet_scenes_on_the_antimeridian_however_they_are_written(tmp_path, how):
    grid = from_origin(810_000, 8_118_000, 100, 100)  # UTM 60 south, 179.9 to −179.9
    lon, lat = centres("EPSG:32760", grid, 200, 200)
    lon = lon % 360
    assert lon.min() < 179.95 and lon.max() > 180.05 and lat.min() < -17.1 < lat.max()
    south, west, east = -17.1, 179.97, 180.03
    geometry = {
        "cut in two": {"type": "MultiPolygon", "coordinates": [box(west, south, 180, -16)["coordinates"],
                                                               box(-180, south, east - 360, -16)["coordinates"]]},
        "beyond 180": box(west, south, east, -16),
        "jumping": box(west, south, east - 360, -16),
        "all the world": box(-180, south, 180, 84),
    }[how]
    expected = (lat > south) & ((lon > west) & (lon < east) | (how == "all the world"))
    found = burnt(tmp_path, geometry, "EPSG:32760", grid, 200, 200)
    assert (found != expected).sum() < 30 and found.any(), "no more than what a twentieth of a pixel may do along the edges"


@pytest.mark.parametrize("geometry", [box(-180, 85, 180, 90), box(0, 85, 360, 90), box(-180, 85, 180, 89.5), box(170, 80, -160, 88)],
                         ids=["cap", "cap to 360", "ring", "jumping"])
def test_polygons_meet_scenes_on_a_pole(tmp_path, geometry):
    grid = from_origin(-1e6, 1e6, 10_000, 10_000)
    lon, lat = centres("EPSG:3413", grid, 200, 200)
    (west, south), _, (east, north) = geometry["coordinates"][0][:3]
    inside = (lat > south) & (lat < north) & (((lon > west) | (lon < east)) if west > east else True)
    assert (burnt(tmp_path, geometry, "EPSG:3413", grid, 200, 200) == inside).all() and inside.any()


def test_a_polygon_around_a_pole_is_filled(tmp_path):
    grid = from_origin(-1e6, 1e6, 10_000, 10_000)
    ring = [[(lon + 180) % 360 - 180, 85] for lon in range(3, 364, 20)]
    found = burnt(tmp_path, {"type": "Polygon", "coordinates": [ring + ring[:1]]}, "EPSG:3413", grid, 200, 200)
    assert (found == (centres("EPSG:3413", grid, 200, 200)[1] > 85)).all()


def test_a_polygon_across_the_antimeridian_does_not_reach_around_the_world(tmp_path):
    assert not burnt(tmp_path, box(179, 41, -179, 42), "EPSG:32633", GRID, 20, 20).any()
    assert burnt(tmp_path, box(-30, 41, 60, 42), "EPSG:32633", GRID, 20, 20).all()


@pytest.mark.parametrize("turned", [False, True], ids=["counterclockwise", "clockwise"])
def test_web_mercator_ends_at_the_antimeridian(tmp_path, turned):
    grid = from_origin(-2e7, 2e7, 1e5, 1e5)
    lon, lat = centres("EPSG:3857", grid, 400, 400)
    geometry = box(-170, -60, 170, 60)
    geometry["coordinates"][0] = geometry["coordinates"][0][:: -1 if turned else 1]
    assert (burnt(tmp_path, geometry, "EPSG:3857", grid, 400, 400) == ((np.abs(lon) < 170) & (np.abs(lat) < 60))).all()


SINUSOIDAL = CRS.from_string("+proj=sinu +lon_0=0 +R=6371007.181 +units=m").to_wkt()


@pytest.mark.parametrize("around", [0, -360], ids=["beyond 180", "beyond -180"])
@pytest.mark.parametrize(("crs", "corner"), [("EPSG:3857", (19_837_508.34, -1_900_000)), ("EPSG:3857", (-20_037_508.34, -1_900_000)),
                                             ("EPSG:6933", (17_167_530, -2_150_000)), (SINUSOIDAL, (18_900_000, -1_900_000))])
def test_a_polygon_across_the_antimeridian_stays_small_where_the_map_ends_there(tmp_path, crs, corner, around):
    grid = from_origin(*corner, 2000, 2000)
    lon, lat = centres(crs, grid, 100, 100)
    found = burnt(tmp_path, box(179.5 + around, -18.5, 180.5 + around, -17.5), crs, grid, 100, 100)
    there = np.array(transform("EPSG:4326", crs, lon.ravel(), lat.ravel())).reshape(2, 100, 100)
    on_the_map = np.abs(there[0] - [(grid * (col + 0.5, 0))[0] for col in range(100)]) < 1
    expected = (np.abs(lon) > 179.5) & (lat > -18.5) & (lat < -17.5)
    assert (found != expected)[on_the_map].sum() < 5 and expected[on_the_map].sum() > 500


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:4167"])
@pytest.mark.parametrize("west", [179, -181])
def test_rasters_in_degrees_count_longitudes_as_they_like(tmp_path, crs, west):
    halves = {"type": "MultiPolygon", "coordinates": [box(179.5, -18.5, 180, -17.5)["coordinates"],
                                                      box(-180, -18.5, -179.5, -17.5)["coordinates"]]}
    grid = from_origin(west, -17, 0.02, 0.02)
    expected = np.zeros((100, 100), np.uint8)
    expected[25:75, 25:75] = 1
    assert (burnt(tmp_path, halves, crs, grid, 100, 100) == expected).all()
    assert (burnt(tmp_path, box(-180.5, -18.5, -179.5, -17.5), crs, grid, 100, 100) == expected).all()


def test_a_raster_that_goes_on_beyond_the_poles_is_labelled_up_to_them(tmp_path):
    grid = from_origin(-17_367_530, 8_683_765, 96_486, 96_486)
    x, y = grid * (180.5, np.arange(180) + 0.5)
    found = burnt(tmp_path, box(-180, -90, 180, 90), "EPSG:6933", grid, 360, 180)
    assert (found[:, 180] == (np.abs(y) < 7_342_230)).all()


def test_a_picture_of_the_globe_from_afar_takes_the_polygons_that_it_shows(tmp_path):
    crs, grid = CRS.from_string("+proj=geos +h=35785831 +lon_0=0 +sweep=y").to_wkt(), from_origin(-6e6, 6e6, 60_000, 60_000)
    for _ in range(2):  # GDAL answers in another way after twenty errors
        assert burnt(tmp_path, box(-10, -10, 10, 10), crs, grid, 200, 200).any()
        assert not burnt(tmp_path, box(150, 20, 170, 50), crs, grid, 200, 200).any(), "on the other side"
        with pytest.raises(UserError, match="-20, 0 to 120, 40 goes on where a raster .* shows nothing; cut it"):
            burnt(tmp_path, box(-20, 0, 120, 40), crs, grid, 200, 200)


@pytest.mark.parametrize("size", [0.02, 3], ids=["moved as it is", "clipped"])
def test_a_polygon_that_crosses_itself_covers_what_an_odd_number_of_turns_goes_around(tmp_path, size):
    """A five-pointed star drawn in one line has an empty middle, whether it is clipped or not."""
    (x,), (y,) = transform("EPSG:32633", "EPSG:4326", [500_000], [4_600_000])
    angles = 2 * np.pi * np.arange(0, 12, 2) / 5
    star = np.stack([x + size * np.sin(angles), y + 0.75 * size * np.cos(angles)], axis=1)
    grid = from_origin(500_000 - 1e5 * size, 4_600_000 + 1e5 * size, 2e3 * size, 2e3 * size)
    lon, lat = (v.ravel() for v in centres("EPSG:32633", grid, 100, 100))
    crossings = np.zeros(lon.shape, int)  # of a ray to the east with the sides
    for (x0, y0), (x1, y1) in zip(star[:-1], star[1:], strict=True):
        if y0 != y1:
            crossings += ((y0 > lat) != (y1 > lat)) & (lon < x0 + (lat - y0) / (y1 - y0) * (x1 - x0))
    found = burnt(tmp_path, {"type": "Polygon", "coordinates": [star.tolist()]}, "EPSG:32633", grid, 100, 100)
    assert (found.ravel() != crossings % 2).sum() < 10 and found[50, 50] == 0 and 0.1 < found.mean() < 0.5


def test_a_ring_around_a_pole_keeps_its_hole(tmp_path):
    grid = from_origin(-1e6, 1e6, 10_000, 10_000)
    rings = [[[(lon + 180) % 360 - 180, lat] for lon in [*range(3, 364, 20), 3]] for lat in (83, 86)]
    lat = centres("EPSG:3413", grid, 200, 200)[1]
    for outer, inner in ((1, 1), (-1, 1), (1, -1)):
        geometry = {"type": "Polygon", "coordinates": [rings[0][::outer], rings[1][::inner]]}
        found = burnt(tmp_path, geometry, "EPSG:3413", grid, 200, 200)
        assert (found == ((lat > 83) & (lat < 86))).mean() > 0.998, "but for a fiftieth of a pixel"


def test_polygons_of_a_projected_crs_lie_right_on_a_raster_in_degrees_across_the_antimeridian(tmp_path):
    """A square in UTM 60 south from 179.97 to −179.97, on rasters that count longitudes in three ways."""
    crs = {"type": "name", "properties": {"name": "EPSG:32760"}}
    path = write_geojson(tmp_path / "a.geojson", (box(812_000, 8_100_000, 822_000, 8_110_000), {}), crs=crs)
    for west in (179.9, -180.1, 539.9):
        grid = from_origin(west, -17.0, 1e-3, 1e-3)
        x, y = transform("EPSG:4326", "EPSG:32760", *centres("EPSG:4326", grid, 200, 200).reshape(2, -1))
        expected = (np.abs(np.array(x) - 817_000) < 5000) & (np.abs(np.array(y) - 8_105_000) < 5000)
        found = burn(place_polygons(read_polygons([path]), "EPSG:4326", grid, 200, 200), grid, (0, 0, 200, 200))
        assert (found.ravel() != expected).sum() < 5 and expected.sum() > 5000


@pytest.mark.parametrize("size", [1000, 300_000])
def test_polygons_of_one_zone_lie_right_on_a_raster_of_the_next(tmp_path, size):
    crs = {"type": "name", "properties": {"name": "EPSG:32634"}}
    path = write_geojson(tmp_path / "a.geojson", (box(0, 4_617_000 - size, size, 4_617_000), {}), crs=crs)
    grid = from_origin(500_000 - size, 4_600_000 + size, size / 50, size / 50)
    x, y = transform("EPSG:32633", "EPSG:32634", *zip(*[grid * (c + 0.5, r + 0.5) for r in range(100) for c in range(100)], strict=True))
    expected = (np.array(x) > 0) & (np.array(x) < size) & (np.array(y) > 4_617_000 - size) & (np.array(y) < 4_617_000)
    found = burn(place_polygons(read_polygons([path]), "EPSG:32633", grid, 100, 100), grid, (0, 0, 100, 100))
    assert (found.ravel() != expected).sum() < 10 and 0.05 < expected.mean() < 0.9


def test_small_polygons_are_moved_as_they_are(tmp_path):
    geometry = in_lonlat(box(500_010, 4_599_960, 500_050, 4_599_980))
    path = write_geojson(tmp_path / "a.geojson", (geometry, {}))
    (moved,) = place_polygons(read_polygons([path]), "EPSG:32633", GRID, 8, 6).geometries
    assert moved.geom_type == "Polygon" and len(moved.exterior.coords) == 5


def test_a_raster_that_is_nowhere_on_the_globe_takes_no_polygons(tmp_path):
    path = write_geojson(tmp_path / "a.geojson", (box(14, 41, 16, 42), {}))
    with pytest.raises(UserError, match="cannot be placed on a raster in arb"):
        place_polygons(read_polygons([path]), 'LOCAL_CS["arb",UNIT["metre",1]]', GRID, 8, 6)


def test_classes_come_from_a_property_as_number_or_name_and_the_higher_wins(tmp_path):
    everything, left = in_lonlat(box(500_000, 4_599_940, 500_080, 4_600_000)), in_lonlat(box(500_000, 4_599_940, 500_040, 4_600_000))
    path = write_geojson(tmp_path / "a.geojson", (left, {"level": "high"}), (everything, {"level": 1}), (None, {"level": 1}))
    polygons = read_polygons([path], "level", ("none", "low", "high"))
    found = burn(place_polygons(polygons, "EPSG:32633", GRID, 8, 6), GRID, (0, 0, 8, 6))
    assert (found[:, :4] == 2).all() and (found[:, 4:] == 1).all()
    with pytest.raises(UserError, match="level = 'high'"):
        read_polygons([path], "level", ("none", "low"))
    with pytest.raises(UserError, match="no property 'lvel'.*Did you mean 'level'"):
        read_polygons([path], "lvel", ("none", "low"))


def test_a_class_without_end_is_no_class(tmp_path):
    path = write_geojson(tmp_path / "a.geojson", (box(10, 40, 11, 41), {"code": float("inf")}))
    with pytest.raises(UserError, match="code = inf"):
        read_polygons([path], "code", ("a", "b"))


def test_mapped_classes_of_polygons(tmp_path):
    path = write_geojson(tmp_path / "a.geojson", (box(10, 40, 11, 41), {"code": 7}), (box(10, 40, 11, 41), {"code": -1}))
    assert read_polygons([path], "code", ("a", "b"), ((7, 1), (-1, 255))).labels.tolist() == [1, 255]


def test_a_layer_of_a_geopackage_in_another_crs_burns_like_the_same_polygons_as_geojson(tmp_path):
    triangle = shapely.Polygon([(500_040, 4_599_990), (500_079, 4_599_990), (500_060, 4_599_950)])
    own = [shapely.box(500_009, 4_599_959, 500_051, 4_599_981), triangle]
    lonlat = [(in_lonlat(shapely.geometry.mapping(g)), {"level": level}) for g, level in zip(own, (1, "high"), strict=True)]
    other = [shapely.geometry.shape(transform_geom("EPSG:32633", "EPSG:32634", shapely.geometry.mapping(g))) for g in own]
    package = str(tmp_path / "a.gpkg")
    pyogrio.raw.write(package, shapely.to_wkb(np.array(other)), [np.array(["1", "high"], object)], ["level"], driver="GPKG", layer="burns",
                      geometry_type="Polygon", crs="EPSG:32634", encoding="UTF-8")
    paths = write_geojson(tmp_path / "a.geojson", *lonlat), f"{package}:burns"
    both = [read_polygons([path], "level", ("none", "low", "high")) for path in paths]
    one, two = (burn(place_polygons(polygons, "EPSG:32633", GRID, 8, 6), GRID, (0, 0, 8, 6)) for polygons in both)
    assert (one == two).all() and sorted(np.unique(one)) == [0, 1, 2]


def test_geojson_with_a_projected_crs_member_is_understood(tmp_path):
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
    path = write_geojson(tmp_path / "a.geojson", (box(500_010, 4_599_960, 500_050, 4_599_980), {}), crs=crs)
    found = burn(place_polygons(read_polygons([path]), "EPSG:32633", GRID, 8, 6), GRID, (0, 0, 8, 6))
    assert found.sum() == 8 and (found[2:4, 1:5] == 1).all()


@pytest.mark.parametrize("content, words", [
    ("nonsense", "is not GeoJSON; expected GeoJSON, GeoPackage"),
    ('{"type": "Topology"}', "FeatureCollection"),
    ('{"type": "FeatureCollection", "features": []}', "no polygon"),
    (json.dumps({"type": "Point", "coordinates": [1, 2]}), "FeatureCollection"),
    (json.dumps({"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, 2]}}), "is a Point"),
    (json.dumps({"type": "Feature", "geometry": box(500_000, 4_600_000, 500_010, 4_600_010)}), "expected degrees"),
    (json.dumps({"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [[]]}}), "coordinates"),
    (json.dumps({"type": "Feature", "geometry": {"type": "Polygon", "coordinates": "x"}}), "coordinates"),
    ('{"type": "FeatureCollection", "features": [5]}', "is not GeoJSON"),
    ('{"type": "FeatureCollection", "features": [{"geometry": 5}]}', "is not GeoJSON"),
    ('{"type": "FeatureCollection", "features": [{"geometry": []}]}', "is not GeoJSON"),
    ('{"type": "FeatureCollection", "features": [{"properties": "x"}]}', "is not GeoJSON"),
    ('{"type": "Feature", "geometry": {"type": "GeometryCollection", "geometries": [5]}}', "is not GeoJSON"),
    ('{"type": "GeometryCollection", "geometries": 5}', "is not GeoJSON"),
    ('{"type": "FeatureCollection", "features": [], "crs": 5}', "is not GeoJSON"),
    ('{"type": "FeatureCollection", "features": [], "crs": {"properties": [1]}}', "is not GeoJSON"),
    ('{"type": "FeatureCollection", "features": [], "crs": {"type": "name", "properties": {"name": 7}}}', "is not GeoJSON"),
    ('{"type": "FeatureCollection", "features": [], "crs": {"type": "name", "properties": {"name": ["x"]}}}', "is not GeoJSON"),
    ("[" * 100_000, "is not GeoJSON"),
    (json.dumps({"type": "Polygon", "coordinates": [[[15, 41.55], [15.01, 41.55]]]}), "no polygon .*fewer than 3 distinct points"),
    (json.dumps({"type": "Polygon", "coordinates": []}), "no polygon"),
    (json.dumps({"type": "Polygon", "coordinates": [[["15", "41"], ["15", "42"], ["16", "42"]]]}), "feature 0 has coordinates"),
])
def test_what_is_no_polygon_file_is_said(tmp_path, content, words):
    path = tmp_path / "a.geojson"
    path.write_text(content)
    with pytest.raises(UserError, match=words):
        read_polygons([str(path)])


# --- grids ---


def test_grids_are_the_same_to_a_hundredth_of_a_pixel(make_raster):
    def info(name, **how):
        return describe(make_raster(name, np.zeros((6, 8), np.uint8), **how))

    one = info("a.tif")
    assert same_grid(one, info("b.tif", transform=from_origin(500_000.05, 4_600_000, 10, 10)))
    assert not same_grid(one, info("c.tif", transform=from_origin(500_005, 4_600_000, 10, 10)))
    assert not same_grid(one, info("d.tif", transform=from_origin(500_000, 4_600_000, 10.1, 10)))
    assert not same_grid(one, info("e.tif", crs="EPSG:32634"))
    assert same_grid(one, info("f.tif", crs=None)), "a mask without georeference goes by its size"
    assert not same_grid(one, describe(make_raster("g.tif", np.zeros((6, 7), np.uint8))))


def test_aligning_takes_the_nearest_pixel_and_ignores_what_is_outside(make_raster):
    """A 20 m mask over the left of a 10 m image: each mask pixel fills 2 × 2, the right column is outside."""
    path = make_raster("m.tif", np.array([[0, 1], [7, 0]], np.uint8), transform=from_origin(500_000, 4_600_000, 20, 20), nodata=0)
    with open_raster(path) as mask:
        values, outside = read_aligned(mask, "EPSG:32633", GRID, (0, 0, 5, 4))
        assert values[:, :4].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [7, 7, 0, 0], [7, 7, 0, 0]]
        assert outside[:, 4].all() and not outside[:, :4].any()
        part, beyond = read_aligned(mask, "EPSG:32633", GRID, (1, 1, 3, 2))
        assert (part == values[1:3, 1:4]).all() and not beyond.any()
        assert read_aligned(mask, "EPSG:32633", GRID, (100, 100, 5, 4))[1].all()


def test_aligning_across_coordinate_systems_agrees_with_a_point_by_point_look_up(make_raster):
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 250, (60, 80)).astype(np.uint8)
    path = make_raster("m.tif", truth, crs="EPSG:4326", transform=from_origin(14.99, 41.56, 2e-4, 2e-4))
    with open_raster(path) as mask:
        values, outside = read_aligned(mask, "EPSG:32633", GRID, (0, 0, 70, 50))
        xs, ys = zip(*[GRID * (c + 0.5, r + 0.5) for r in range(50) for c in range(70)], strict=True)
        lon, lat = transform("EPSG:32633", "EPSG:4326", xs, ys)
        places = [~mask.transform * p for p in zip(lon, lat, strict=True)]
    columns, rows = (np.floor(np.array(v)).astype(int).reshape(50, 70) for v in zip(*places, strict=True))
    inside = (columns >= 0) & (columns < 80) & (rows >= 0) & (rows < 60)
    assert inside.any() and (outside == ~inside).mean() > 0.99
    agreement = values[inside & ~outside] == truth[rows[inside & ~outside], columns[inside & ~outside]]
    assert agreement.mean() > 0.97  # GDAL's warp may err by an eighth of a pixel, so a centre near a border may fall on the other side


@pytest.mark.parametrize("properties", [
    {"class": "\x1b]0;owned\x07" + "x" * 150_000}, {f"property {number}": 1 for number in range(10_000)}, {"x" * 150_000: 1},
])
def test_a_wrong_class_field_is_one_short_line_whatever_the_properties_are(properties):
    feature = Feature(3, shapely.box(0, 0, 1, 1), properties)
    with pytest.raises(UserError, match="^fires.geojson: feature 3 has ") as caught:
        class_of(feature, "fires.geojson", "class", ["background", "fire"], {})
    assert len(str(caught.value)) < 350 and "\x1b" not in str(caught.value)
