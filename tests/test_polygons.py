"""Outlines found strip by strip are those of the whole map: pytest tests/test_polygons.py"""

import json
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import shapely
from rasterio.crs import CRS
from rasterio.features import rasterize, shapes
from rasterio.transform import Affine, from_origin
from rasterio.warp import transform

from mapping.polygons import AreaFinder, connected
from raster.area import pixel_areas
from vectors.writing import WRITERS, GeoJSONOutlines, Globe


def find(classes, strip, values=None, **options):
    """All areas of a class map that is handed over in strips of some rows."""
    values = classes.astype(np.float32) if values is None else values
    finder, found = AreaFinder(classes.shape[1], **options), []
    for row in range(0, len(classes), strip):
        found += finder.add(classes[row : row + strip], values[row : row + strip])
    return found + finder.finish()


def signed_area(ring):
    """Twice the area of (N, 2) x, y by the shoelace formula; positive where y downwards makes the ring run clockwise."""
    x, y = (ring - ring[0]).T
    return np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))


def plain(rings):
    """Rings in a form that does not depend on where they begin or which way they run: the outer one, then the holes sorted."""
    answer = []
    for ring in rings:
        points = [tuple(int(v) for v in p) for p in ring]
        at = points.index(min(points))
        points = points[at:] + points[:at]
        answer.append(tuple(points if points[1] < points[-1] else [points[0], *points[:0:-1]]))
    return (answer[0], *sorted(answer[1:]))


def by_gdal(classes):
    """The same by GDAL, which looks at the whole map."""
    found = shapes(classes, mask=(classes > 0) & (classes < 255))
    return sorted((int(value), plain([ring[:-1] for ring in geometry["coordinates"]])) for geometry, value in found)


def test_one_pixel_has_four_corners():
    (area,) = find(np.array([[0, 0], [0, 1]], dtype=np.uint8), 1)
    assert plain(area.rings) == (((1, 1), (1, 2), (2, 2), (2, 1)),)
    assert (area.value, area.pixels, area.column, area.row) == (1, 1, 1, 1)


def test_a_ring_has_a_hole():
    classes = np.ones((3, 3), dtype=np.uint8)
    classes[1, 1] = 0
    (area,) = find(classes, 1)
    assert plain(area.rings) == (((0, 0), (0, 3), (3, 3), (3, 0)), ((1, 1), (1, 2), (2, 2), (2, 1)))
    assert area.pixels == 8


def test_pixels_that_touch_at_a_corner_are_two_areas():
    assert len(find(np.array([[1, 0], [0, 1]], dtype=np.uint8), 1)) == 2


def test_a_u_becomes_one_area_when_its_arms_meet_at_the_bottom():
    classes = np.array([[1, 0, 1], [1, 0, 1], [1, 1, 1]], dtype=np.uint8)
    (area,) = find(classes, 1)
    assert area.pixels == 7 and len(area.rings) == 1


def test_classes_are_areas_of_their_own_and_nodata_is_none():
    found = find(np.array([[1, 1, 2], [255, 0, 2]], dtype=np.uint8), 1)
    assert sorted((a.value, a.pixels) for a in found) == [(1, 2), (2, 2)]


@pytest.mark.parametrize("strip", [1, 2, 7, 1000])
def test_outlines_are_those_that_gdal_finds_in_the_whole_map(strip):
    rng = np.random.default_rng(strip)
    for _ in range(60):
        height, width = rng.integers(1, 24, 2)
        classes = (rng.random((height, width)) < rng.random()) * rng.integers(1, 4, (height, width))
        classes = classes.astype(np.uint8)
        classes[rng.random((height, width)) < 0.05] = 255
        found = find(classes, strip)
        assert sorted((a.value, plain(a.rings)) for a in found) == by_gdal(classes)
        for area in found:
            # Outer rings count positive, holes negative: together they are the pixels.
            assert area.pixels == sum(signed_area(ring) for ring in area.rings) / 2
            assert area.mean == pytest.approx(area.value)


def test_painting_the_outlines_gives_the_map_again():
    classes = (np.random.default_rng(5).random((60, 70)) < 0.55).astype(np.uint8)
    found = [{"type": "Polygon", "coordinates": [[*r.tolist(), r[0].tolist()] for r in a.rings]} for a in find(classes, 9)]
    assert np.array_equal(rasterize([(g, 1) for g in found], out_shape=classes.shape, transform=Affine.identity()), classes)


def test_the_order_and_content_do_not_depend_on_the_strips():
    classes = (np.random.default_rng(6).random((80, 50)) < 0.5).astype(np.uint8)
    wanted = sorted((a.row, a.column, a.pixels) for a in find(classes, 80))
    for strip in (1, 13):
        assert sorted((a.row, a.column, a.pixels) for a in find(classes, strip)) == wanted


def test_small_areas_are_left_out():
    classes = np.array([[1, 0, 1, 1, 1], [0, 0, 1, 1, 1]], dtype=np.uint8)
    assert [a.pixels for a in find(classes, 1, smallest=2)] == [6]


def test_the_mean_is_over_the_pixels_of_the_area():
    classes = np.array([[1, 1, 0], [0, 1, 1]], dtype=np.uint8)
    values = np.array([[0.5, 0.6, 9], [9, 0.7, 1.0]], dtype=np.float32)
    assert find(classes, 1, values)[0].mean == pytest.approx((0.5 + 0.6 + 0.7 + 1.0) / 4)


@pytest.mark.parametrize("strip", [1, 4])
def test_an_outline_that_is_too_long_is_cut_and_nothing_is_lost(strip):
    classes = (np.random.default_rng(7).random((60, 60)) < 0.7).astype(np.uint8)
    found = find(classes, strip, max_open_sides=300)
    assert any(a.cut for a in found)
    assert sum(a.pixels for a in found) == classes.sum()
    for area in found:
        assert area.pixels == sum(signed_area(ring) for ring in area.rings) / 2
    geometries = [{"type": "Polygon", "coordinates": [[*r.tolist(), r[0].tolist()] for r in a.rings]} for a in found]
    assert np.array_equal(rasterize([(g, 1) for g in geometries], out_shape=classes.shape, transform=Affine.identity()), classes)


def test_groups_of_nodes_are_found_along_long_chains():
    count = 5000
    order = np.random.default_rng(0).permutation(count)
    root = connected(count, order[:-1], order[1:])
    assert np.all(root == 0)
    assert connected(4, np.array([3]), np.array([1])).tolist() == [0, 1, 2, 1]


@pytest.mark.parametrize("strip", [1, 4, 60])
def test_parts_of_a_cut_area_are_kept_however_small_and_say_that_they_continue(strip):
    classes = (np.random.default_rng(8).random((60, 60)) < 0.65).astype(np.uint8)
    whole = [(shapely.geometry.shape(geometry), geometry) for geometry, _ in shapes(classes, mask=classes > 0)]
    expected = rasterize([geometry for shape, geometry in whole if shape.area >= 40], classes.shape, transform=Affine.identity())
    found = find(classes, strip, smallest=40, max_open_sides=150)
    geometries = [{"type": "Polygon", "coordinates": [[*r.tolist(), r[0].tolist()] for r in a.rings]} for a in found]
    assert np.array_equal(rasterize(geometries, classes.shape, transform=Affine.identity()), expected)
    assert all(shapely.geometry.shape(geometry).is_valid for geometry in geometries)
    assert all(a.cut or a.pixels >= 40 for a in found)
    uncut = by_gdal(classes)
    assert all((1, plain(a.rings)) in uncut for a in found if not a.cut)  # whatever is a part says so
    if strip < 60:
        assert sum(a.cut for a in found) > 3 and min(a.pixels for a in found) < 40


def test_the_longest_of_many_open_outlines_are_cut_where_all_together_are_too_long():
    """Two combs, one with teeth of 35 pixels, one of 20: neither is too long, but both are."""
    classes = np.zeros((60, 70), np.uint8)
    classes[:, 0] = classes[:, 40] = 1
    classes[::2, :35] = classes[::2, 40:60] = 1
    finder, found = AreaFinder(70, max_open_sides=10_000, max_all_sides=2500), []
    for row in range(60):
        found += finder.add(classes[row : row + 1], classes[row : row + 1])
        assert len(finder.sides) <= 2500
    found += finder.finish()
    assert {a.cut for a in found if a.column < 40} == {True} and {a.cut for a in found if a.column >= 40} == {False}
    assert sum(a.pixels for a in found) == classes.sum()


def peak_of_outlines(path, rows, width, share, **options):
    """Bytes that Python and numpy hold at most while noise becomes a file of outlines."""
    rng, globe = np.random.default_rng(0), Globe(CRS.from_epsg(32633), from_origin(5e5, 5e6, 10, 10), rows, width)
    tracemalloc.start()
    with WRITERS[path.suffix[1:]](path, globe, ["background", "fire"]) as outlines:
        finder = AreaFinder(width, step=outlines.straight, **options)
        for _ in range(rows // 50):
            strip = (rng.random((50, width)) < share).astype(np.uint8)
            outlines.add(finder.add(strip, strip.astype(np.float32)))
        outlines.add(finder.finish())
    highest = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return highest


@pytest.mark.parametrize(("kind", "share"), [("geojson", 0.5), ("geojson", 0.7), ("gpkg", 0.7)])  # 0.7: one area that goes on to the end
def test_memory_does_not_grow_with_the_height_of_noise(tmp_path, monkeypatch, kind, share):
    monkeypatch.setattr("vectors.writing.AT_ONCE", 500)
    monkeypatch.setattr("vectors.writing.BATCH", 100)

    def peak(rows):
        return peak_of_outlines(tmp_path / f"a.{kind}", rows, 60, share, max_open_sides=3000)

    peak(100)  # what is allocated once
    assert peak(400) < 1.25 * peak(150)


@pytest.mark.slow
@pytest.mark.parametrize("kind", WRITERS)
def test_a_giant_outline_takes_no_more_than_its_sides_a_few_times(tmp_path, kind):
    """As lists of Python's numbers it would take twice as much."""
    sides = 4 * 0.7 * 0.3 * 450 * 400
    assert peak_of_outlines(tmp_path / f"a.{kind}", 450, 400, 0.7) < 160 * sides + 2e6


# ----------------------------------------------------------------------------------------------------- on the globe


def as_geojson(classes, crs, transform, strip=7, smallest=0.0):
    """The FeatureCollection of a map, as inference.py writes it."""
    return json.loads(geojson_text(classes, crs, transform, strip, smallest))


def geojson_text(classes, crs, transform, strip=7, smallest=0.0):
    crs = CRS.from_user_input(crs)
    globe, areas = Globe(crs, transform, *classes.shape), pixel_areas(crs, transform, *classes.shape)
    assert not globe.holds_pole
    finder = AreaFinder(classes.shape[1], smallest, None if globe.is_lonlat else 64)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "map.geojson"
        with GeoJSONOutlines(path, globe, ["background", "fire", "other"]) as outlines:
            for row in range(0, len(classes), strip):
                part = classes[row : row + strip]
                outlines.add(finder.add(part, part / 2, areas.of_rows(row, row + len(part)), globe.parts(row, len(part))))
            outlines.add(finder.finish())
        return path.read_text(encoding="utf-8")


def winding(ring):
    x, y = np.array(ring).T
    return np.sum((x[1:] - x[:-1]) * (y[1:] + y[:-1])) < 0  # counterclockwise


def equal_area(ring):
    """Square metres of a lon/lat ring in an equal-area projection around it, by the shoelace formula."""
    lon, lat = np.array(ring).T
    local = CRS.from_proj4(f"+proj=laea +lat_0={lat.mean()} +lon_0={lon.mean()} +datum=WGS84")
    x, y = (np.array(v) for v in transform("EPSG:4326", local, lon.tolist(), lat.tolist()))
    return abs(np.dot(x[:-1], y[1:]) - np.dot(y[:-1], x[1:])) / 2


def blob(height=60, width=80):
    rows, columns = np.mgrid[:height, :width]
    burnt = ((rows - height / 2) / (height / 3)) ** 2 + ((columns - width / 2) / (width / 3)) ** 2 < 1
    burnt[height // 2 - 3 : height // 2 + 3, width // 2 - 3 : width // 2 + 3] = False
    return burnt.astype(np.uint8)


@pytest.mark.parametrize(
    ("crs", "place"),
    [
        ("EPSG:4326", from_origin(-118.5, 34.1, 2e-4, 2e-4)),
        ("EPSG:4326", Affine(2e-4, 0, -118.5, 0, 2e-4, 34.0)),  # south up
        ("EPSG:4326", Affine.translation(15, 40) * Affine.rotation(25) * Affine.scale(2e-4, -2e-4)),
        ("EPSG:32611", from_origin(360_000, 3_770_000, 20, 20)),
        ("EPSG:32611", Affine.translation(360_000, 3_770_000) * Affine.rotation(-40) * Affine.scale(20, -20)),
        ("EPSG:2225", from_origin(6e6, 2e6, 60, 60)),  # feet
        ("EPSG:3857", from_origin(1e6, 8e6, 30, 30)),
        ("EPSG:4267", from_origin(-100, 40, 2e-4, 2e-4)),
    ],
)
def test_outlines_are_lonlat_with_the_right_hand_rule_and_true_hectares(crs, place):
    classes = blob()
    (feature,) = as_geojson(classes, crs, place)["features"]
    outer, hole = feature["geometry"]["coordinates"]
    assert outer[0] == outer[-1] and winding(outer) and not winding(hole)
    corners = [place * p for p in ((0, 0), (80, 0), (80, 60), (0, 60))]
    lon, lat = transform(crs, "EPSG:4326", *zip(*corners, strict=True))
    x, y = np.array(outer).T
    assert min(lon) < x.min() and x.max() < max(lon) and min(lat) < y.min() and y.max() < max(lat)
    assert max(len(f"{v:.10f}".rstrip("0").split(".")[1]) for p in outer for v in p) <= 7
    independent = (equal_area(outer) - equal_area(hole)) / 1e4
    assert feature["properties"]["area_ha"] == pytest.approx(independent, rel=1e-3)
    assert feature["properties"]["class"] == 1 and feature["properties"]["name"] == "fire"
    assert feature["properties"]["mean_probability"] == 0.5


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:32701"])
def test_an_outline_across_the_antimeridian_is_cut_there(crs):
    (x,), (y,) = transform("EPSG:4326", crs, [180], [-17])
    pixel = 2e-4 if crs == "EPSG:4326" else 20
    place = from_origin(x - 40.3 * pixel, y, pixel, pixel)
    found = as_geojson(np.ones((60, 80), dtype=np.uint8), crs, place)["features"]
    assert len(found) == 2
    spans = sorted((min(x for x, _ in f["geometry"]["coordinates"][0]), max(x for x, _ in f["geometry"]["coordinates"][0])) for f in found)
    # Each pixel goes whole to the side that its centre is on: the cut is right to half a pixel, and no corner lies beyond it.
    assert -180 <= spans[0][0] < -179.9998 and spans[0][1] < -179.9 and spans[1][0] > 179.9 and 179.9998 < spans[1][1] <= 180
    whole = pixel_areas(CRS.from_user_input(crs), place, 60, 80).of_rows(0, 60) * np.ones((60, 80))
    assert sum(f["properties"]["area_ha"] for f in found) == pytest.approx(whole.sum() / 1e4, rel=1e-4)


def test_a_raster_that_ends_at_the_antimeridian_stays_in_one_piece():
    (feature,) = as_geojson(np.ones((50, 50), dtype=np.uint8), "EPSG:4326", from_origin(179, 1, 0.02, 0.02))["features"]
    assert {x for x, _ in feature["geometry"]["coordinates"][0]} == {179.0, 180.0}


def test_longitudes_beyond_180_are_turned_back():
    (feature,) = as_geojson(np.ones((5, 5), dtype=np.uint8), "EPSG:4326", from_origin(200, 1, 0.02, 0.02))["features"]
    assert {x for x, _ in feature["geometry"]["coordinates"][0]} == {-160.0, -159.9}


def test_a_polar_map_knows_that_it_holds_a_pole():
    around = from_origin(-5000, 5000, 100, 100)
    assert Globe(CRS.from_epsg(3031), around, 100, 100).holds_pole
    assert Globe(CRS.from_epsg(3413), around, 100, 100).holds_pole
    assert not Globe(CRS.from_epsg(3031), from_origin(1_000_000, 1_000_000, 100, 100), 100, 100).holds_pole
    assert not Globe(CRS.from_epsg(3857), from_origin(0, 8e6, 100, 100), 100, 100).holds_pole


PLACES = [
    ("EPSG:32611", from_origin(360_000, 3_770_000, 20, 20)),
    ("EPSG:4326", Affine.translation(15, 40) * Affine.rotation(25) * Affine.scale(2e-4, -2e-4)),
    ("EPSG:3413", from_origin(-900, 900, 30, 30)),  # around the pole
]


def written(path, kind, crs, place, classes=None, strip=7):
    """Write the outlines of a class map as inference.py does; returns how many."""
    classes = blob() if classes is None else classes
    crs = CRS.from_user_input(crs)
    globe, areas = Globe(crs, place, *classes.shape), pixel_areas(crs, place, *classes.shape)
    with WRITERS[kind](path, globe, ["background", "fire", "other"]) as outlines:
        finder = AreaFinder(classes.shape[1], 0.0, outlines.straight)
        for row in range(0, len(classes), strip):
            part = classes[row : row + strip]
            outlines.add(finder.add(part, part / 2, areas.of_rows(row, row + len(part)), outlines.parts(row, len(part))))
        outlines.add(finder.finish())
    return outlines.count


@pytest.mark.parametrize(("crs", "place"), PLACES)
def test_a_geopackage_has_the_outlines_in_the_scenes_crs(tmp_path, crs, place):
    path = tmp_path / "a.gpkg"
    assert written(path, "gpkg", crs, place) == 1
    meta, _, (wkb,), columns = pyogrio.raw.read(path)
    assert pyogrio.list_layers(path).tolist() == [["outlines", "Polygon"]] and meta["crs"] == crs
    found = shapely.from_wkb(wkb)
    assert found.is_valid and found.exterior.is_ccw and not found.interiors[0].is_ccw
    assert np.array_equal(rasterize([(found, 1)], out_shape=(60, 80), transform=place), blob()), "burned again it is the map"
    properties = dict(zip(meta["fields"], (c.tolist()[0] for c in columns), strict=True))
    whole = pixel_areas(CRS.from_user_input(crs), place, 60, 80).of_rows(0, 60) * blob()
    assert properties["area_ha"] == pytest.approx(whole.sum() / 1e4, rel=1e-5) and np.isnan(properties["continues"])
    assert (properties["class"], properties["name"], properties["mean_probability"]) == (1, "fire", 0.5)


def test_both_formats_have_the_same_properties(tmp_path):
    classes = (np.random.default_rng(1).random((40, 40)) < 0.5).astype(np.uint8) * 2
    count = written(tmp_path / "a.gpkg", "gpkg", *PLACES[0], classes)
    assert written(tmp_path / "a.geojson", "geojson", *PLACES[0], classes) == count > 100
    meta, _, _, columns = pyogrio.raw.read(tmp_path / "a.gpkg")
    rows = [dict(zip(meta["fields"], row, strict=True)) for row in zip(*(c.tolist() for c in columns), strict=True)]
    features = [f["properties"] for f in json.loads((tmp_path / "a.geojson").read_text())["features"]]
    assert [{k: v for k, v in row.items() if k != "continues"} for row in rows] == features
    assert (tmp_path / "a.geojson").read_text() == geojson_text(classes, *PLACES[0])


def test_a_geopackage_is_the_same_bytes_whenever_and_in_whatever_strips_it_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr("vectors.writing.BATCH", 20)
    classes = (np.random.default_rng(2).random((30, 30)) < 0.5).astype(np.uint8)
    for name, strip in (("a", 30), ("b", 30), ("c", 4)):
        count = written(tmp_path / f"{name}.gpkg", "gpkg", *PLACES[0], classes, strip=strip)
    assert count > 50
    assert (tmp_path / "a.gpkg").read_bytes() == (tmp_path / "b.gpkg").read_bytes()
    assert b"1970-01-01T00:00:00.000Z" in (tmp_path / "a.gpkg").read_bytes(), "no date of its making"
    one, other = (pyogrio.raw.read(tmp_path / f"{name}.gpkg")[2] for name in "ac")
    assert sorted(one) == sorted(other)


@pytest.mark.parametrize("kind", WRITERS)
def test_no_outlines_are_an_empty_layer(tmp_path, kind):
    path = tmp_path / f"a{WRITERS[kind].ending}"
    assert written(path, kind, *PLACES[0], np.zeros((9, 9), np.uint8)) == 0
    info = pyogrio.read_info(path)
    assert info["features"] == 0
    if kind == "gpkg":
        assert info["fields"].tolist() == ["class", "name", "area_ha", "mean_probability", "continues"] and info["crs"] == PLACES[0][0]


@pytest.mark.parametrize("kind", WRITERS)
def test_a_file_of_outlines_has_its_name_only_when_it_is_whole(tmp_path, kind):
    path = tmp_path / f"a{WRITERS[kind].ending}"
    hidden = tmp_path / f".a.part{WRITERS[kind].ending}"
    globe = Globe(CRS.from_user_input(PLACES[0][0]), PLACES[0][1], 60, 80)
    with pytest.raises(KeyboardInterrupt), WRITERS[kind](path, globe, ["background", "fire"]) as outlines:
        outlines.add(find(blob(), 60))
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    hidden.write_bytes(b"of a killed run")
    hidden.with_name(f"{hidden.name}-journal").write_bytes(b"of a killed run")
    assert written(path, kind, *PLACES[0]) == 1 and pyogrio.read_info(path)["features"] == 1
    assert {p.name for p in tmp_path.iterdir()} <= {path.name, f"{hidden.name}-journal"}
    if kind == "gpkg":
        assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_only_geojson_has_no_words_for_a_pole():
    globe = Globe(CRS.from_user_input(PLACES[2][0]), PLACES[2][1], 60, 80)
    assert globe.holds_pole and WRITERS["geojson"].obstacle(globe) == "a pole is inside: no polygons"
    assert WRITERS["gpkg"].obstacle(globe) is None


def test_nothing_found_is_a_valid_collection():
    assert as_geojson(np.zeros((9, 9), dtype=np.uint8), "EPSG:4326", from_origin(15, 40, 1e-4, 1e-4)) == {
        "type": "FeatureCollection", "features": [],
    }
