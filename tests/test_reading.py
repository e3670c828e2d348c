"""Vector files of every format and of every kind of damage: the same polygons, or one line that says what is wrong."""

import json
import os
import re
import sqlite3
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import shapely
from pyproj import CRS

from runtime.errors import UserError
from vectors.reading import fingerprint, read_polygons, read_vectors

A, B = [1, 1], [2, 2]
SQUARE, TRIANGLE = shapely.box(10, 40, 11, 41), shapely.Polygon([(12, 40), (13, 40), (12, 42)])
FORMATS = {"a.gpkg": "GPKG", "a.fgb": "FlatGeobuf", "a.shp": "ESRI Shapefile", "a.geojson": "GeoJSON"}


def write(path, geometries=(SQUARE, TRIANGLE), crs="EPSG:4326", kind="Unknown", layer=None, append=False, driver=None, **fields):
    """A vector file by pyogrio. fields: {name: list}."""
    pyogrio.raw.write(
        path, geometry=shapely.to_wkb(np.array(geometries, object)), field_data=[np.array(v) for v in fields.values()], fields=list(fields),
        driver=driver or FORMATS[path.name], geometry_type=kind, crs=crs, layer=layer, append=append, encoding="UTF-8",
        **({"SPATIAL_INDEX": "NO"} if path.suffix == ".fgb" else {}),
    )
    return path


def collection(*geometries, **more):
    features = [{"type": "Feature", "properties": {}, "geometry": g} for g in geometries]
    return json.dumps({"type": "FeatureCollection", "features": features, **more})


def polygon(*points):
    return {"type": "Polygon", "coordinates": [list(points)]}


SQUARE_JSON = polygon([10, 40], [11, 40], [11, 41], [10, 41], [10, 40])


def read_text(tmp_path, text):
    path = tmp_path / "a.geojson"
    path.write_text(text) if isinstance(text, str) else path.write_bytes(text)
    return read_polygons([path])


# --- formats ---


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_polygons_and_properties(tmp_path, name):
    path = write(tmp_path / name, kind="Polygon" if name == "a.shp" else "Unknown", level=np.array([2, 1], "int32"), kind_=["high", "low"])
    found = read_vectors(path)
    assert found.crs == "EPSG:4326" and found.remarks == ()
    assert all(f.geometry.equals(g) for f, g in zip(found.features, (SQUARE, TRIANGLE), strict=True))
    assert [(f.properties["level"], f.properties["kind_"]) for f in found.features] == [(2, "high"), (1, "low")]


@pytest.mark.parametrize("crs", ["EPSG:32633", "ESRI:102003", CRS("+proj=laea +lat_0=40 +lon_0=15").to_wkt()])
def test_any_crs_is_kept(tmp_path, crs):
    found = read_polygons([write(tmp_path / "a.gpkg", [shapely.box(5e5, 45e5, 5.1e5, 45.1e5)], crs)])
    assert CRS(found.crs).equals(CRS(crs)) and found.geometries[0].area == 1e8


def test_a_layer_is_named_or_the_only_one(tmp_path):
    path = write(tmp_path / "a.gpkg", [SQUARE], layer="burns")
    assert len(read_polygons([path]).labels) == len(read_polygons([f"{path}:burns"]).labels) == 1
    write(path, [TRIANGLE, SQUARE], layer="lakes", append=True)
    with sqlite3.connect(path) as database:  # a table without geometries is no layer to choose from
        database.execute("CREATE TABLE words (id INTEGER PRIMARY KEY, word TEXT)")
        database.execute("INSERT INTO gpkg_contents (table_name, data_type, identifier) VALUES ('words', 'attributes', 'words')")
    with pytest.raises(UserError, match=r"has the layers burns, lakes; name one, as in .*a\.gpkg:burns"):
        read_polygons([path])
    assert len(read_polygons([f"{path}:lakes"]).labels) == 2
    with pytest.raises(UserError, match="no layer 'lake'. Did you mean 'lakes'"):
        read_polygons([f"{path}:lake"])
    with pytest.raises(UserError, match="has no layers; leave out :x"):
        read_polygons([f"{write(tmp_path / 'a.geojson')}:x"])


def test_a_file_whose_name_has_a_colon_is_that_file(tmp_path):
    path = write(tmp_path / "a.gpkg", [SQUARE]).rename(tmp_path / "12:30.gpkg")
    assert len(read_polygons([path]).labels) == 1


def test_files_of_two_crs_are_not_mixed(tmp_path):
    other = write(tmp_path / "a.fgb", [shapely.box(5e5, 45e5, 5.1e5, 45.1e5)], "EPSG:32633")
    with pytest.raises(UserError, match="is in EPSG:32633, the file before it in EPSG:4326"):
        read_polygons([write(tmp_path / "a.gpkg"), other])


def test_a_fingerprint_changes_with_whatever_changes_the_polygons(tmp_path):
    path = write(tmp_path / "a.shp", kind="Polygon")
    first = fingerprint([path])
    (tmp_path / "a.prj").write_text((tmp_path / "a.prj").read_text().replace("WGS", "XGS"))
    assert fingerprint([path]) != first
    package = write(tmp_path / "a.gpkg", layer="a")
    assert fingerprint([package]) != fingerprint([f"{package}:a"]) and fingerprint([]) is None


# --- features ---


def test_null_and_empty_geometries_are_passed_over(tmp_path):
    nothing = {"type": "Polygon", "coordinates": []}
    empty = {"type": "MultiPolygon", "coordinates": []}, {"type": "GeometryCollection", "geometries": []}
    found = read_text(tmp_path, collection(None, nothing, *empty, SQUARE_JSON))
    assert len(found.labels) == 1 and found.remarks == ()
    path = write(tmp_path / "a.gpkg", [None, shapely.Polygon(), SQUARE])
    assert len(read_polygons([path]).labels) == 1
    with pytest.raises(UserError, match="holds no polygon; expected"):
        read_text(tmp_path, collection(None, nothing))


@pytest.mark.parametrize("ring", [[A, B], [A, B, A], [A, A, A, A], [A, B, A, B]])
def test_polygons_of_fewer_than_three_places_are_counted_and_left_out(tmp_path, ring):
    found = read_text(tmp_path, collection(SQUARE_JSON, polygon(*ring), polygon(*ring)))
    assert len(found.labels) == 1 and "2 polygons with fewer than 3 distinct points are left out (the first: feature 1)" in found.remarks[0]
    with pytest.raises(UserError, match="holds no polygon .*fewer than 3 distinct points"):
        read_text(tmp_path, collection(polygon(*ring)))


def test_flat_polygons_of_a_geopackage_are_left_out_too(tmp_path):
    flat = shapely.Polygon([(1, 1), (2, 2), (1, 1), (1, 1)])
    found = read_polygons([write(tmp_path / "a.gpkg", [SQUARE, flat])])
    assert len(found.labels) == 1 and "1 polygons with fewer than 3" in found.remarks[0]


def test_a_ring_that_is_not_closed_is_closed_and_flat_holes_and_heights_go(tmp_path):
    text = collection({"type": "Polygon", "coordinates": [[[10, 40, 5], [11, 40, 5], [11, 41]], [[10.5, 40.2], [10.6, 40.2]]]})
    (found,) = read_text(tmp_path, text).geometries
    assert found.area == 0.5 and not found.interiors and not found.has_z


def test_collections_in_collections_are_their_polygons(tmp_path):
    nested = {"type": "GeometryCollection", "geometries": [SQUARE_JSON]}
    for _ in range(200):
        nested = {"type": "GeometryCollection", "geometries": [nested]}
    assert len(read_text(tmp_path, collection(nested)).labels) == 1
    inner = shapely.GeometryCollection([SQUARE, shapely.GeometryCollection([shapely.MultiPolygon([SQUARE, TRIANGLE])])])
    assert len(read_polygons([write(tmp_path / "a.gpkg", [inner])]).labels) == 3


@pytest.mark.parametrize("other", [shapely.Point(A), shapely.LineString([A, B]), shapely.GeometryCollection([SQUARE, shapely.Point(A)])])
def test_points_and_lines_are_refused_in_every_format(tmp_path, other):
    text = collection(SQUARE_JSON, json.loads(shapely.to_geojson(other)))
    for path in (write(tmp_path / "a.gpkg", [SQUARE, other]), tmp_path / "a.geojson"):
        (tmp_path / "a.geojson").write_text(text)
        with pytest.raises(UserError, match="feature [12] is a (Point|LineString); expected polygons"):
            read_polygons([path])


@pytest.mark.parametrize("place", [[500_000, 4_500_000], [10, 95], [-190, 40]])
def test_degrees_that_are_none_are_refused_in_every_format(tmp_path, place):
    x, y = place
    with pytest.raises(UserError, match=re.escape(f"has the coordinate {x:.9g}, {y:.9g}; expected degrees")):
        read_text(tmp_path, collection(polygon([x, y], [x + 1, y], [x, y + 1])))
    with pytest.raises(UserError, match="expected degrees"):
        read_polygons([write(tmp_path / "a.gpkg", [shapely.Polygon([(x, y), (x + 1, y), (x, y + 1)])])])


@pytest.mark.parametrize("name", FORMATS)
def test_the_advice_for_metres_taken_for_degrees_makes_a_file_that_is_read(tmp_path, name):
    """As ogr2ogr -a_srs does, which writes the coordinates as they are under the CRS that is given."""
    metres = shapely.box(500100, 4499500, 500500.5, 4499900)
    path = write(tmp_path / name, [metres], crs="EPSG:4326", kind="Polygon")
    with pytest.raises(UserError, match=r"500100, 4499500; expected degrees") as failed:
        read_vectors(path)
    target, source = re.search(r"ogr2ogr -a_srs EPSG:… (\S+) (\S+)$", str(failed.value)).groups()
    assert source == str(path)
    _, _, wkb, _ = pyogrio.raw.read(source)
    mended = tmp_path / target
    pyogrio.raw.write(mended, geometry=wkb, field_data=[], fields=[], driver="GPKG", geometry_type="Polygon", crs="EPSG:32633")
    found = read_vectors(mended)
    assert found.crs == "EPSG:32633" and found.features[0].geometry.equals(metres)



@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999"])
def test_coordinates_that_are_not_finite_are_refused(tmp_path, value):
    with pytest.raises(UserError, match="feature 1 has a coordinate that is not finite"):
        read_text(tmp_path, collection(SQUARE_JSON, SQUARE_JSON).replace("10, 40], [11", f"{value}, 40], [11").replace(value, "10", 1))


@pytest.mark.parametrize("value", ['"10"', "null", "[10]", "{}"])
def test_coordinates_that_are_no_numbers_are_refused(tmp_path, value):
    text = collection(SQUARE_JSON).replace("[10, 40]", f"[{value}, {value}]")
    with pytest.raises(UserError, match="feature 0 has coordinates that are not a polygon's"):
        read_text(tmp_path, text)


# --- files from strangers ---


def test_a_byte_order_mark_is_fine_and_other_encodings_are_not(tmp_path):
    assert len(read_text(tmp_path, b"\xef\xbb\xbf" + collection(SQUARE_JSON).encode()).labels) == 1
    for encoding in ("utf-16", "utf-32"):
        with pytest.raises(UserError, match="in no format that is read here"):
            read_text(tmp_path, collection(SQUARE_JSON).encode(encoding))
    with pytest.raises(UserError, match="is not GeoJSON"):
        read_text(tmp_path, collection(SQUARE_JSON, name="é").encode("latin-1").replace(b"\\u00e9", b"\xe9"))


@pytest.mark.parametrize("name", [
    "http://127.0.0.1:9/crs.wkt", "https://example.com/EPSG/0/4326", "http://www.opengis.net/def/crs/OGC/1.3/CRS84", "/etc/passwd",
    "../crs.wkt", "file:///etc/passwd", "+proj=utm +zone=33", "EPSG:0", "nonsense", "a:b",
])
def test_a_crs_that_is_a_link_or_unknown_is_refused_and_not_opened(tmp_path, name, monkeypatch):
    for opening in ("socket.socket.connect", "socket.getaddrinfo"):
        monkeypatch.setattr(opening, lambda *_: pytest.fail("it asked the network"))
    with pytest.raises(UserError, match="names the CRS .*, which is not known"):
        read_text(tmp_path, collection(SQUARE_JSON, crs={"type": "name", "properties": {"name": name}}))
    with pytest.raises(UserError, match="names the CRS .*, which is not known"):
        read_text(tmp_path, collection(SQUARE_JSON, crs={"type": "link", "properties": {"href": name, "type": "ogcwkt"}}))


@pytest.mark.parametrize("name", ["EPSG:4326", "urn:ogc:def:crs:OGC:1.3:CRS84", "urn:ogc:def:crs:EPSG::4326", "OGC:CRS84", "CRS84"])
def test_lonlat_has_many_names(tmp_path, name):
    assert read_text(tmp_path, collection(SQUARE_JSON, crs={"type": "name", "properties": {"name": name}})).crs == "EPSG:4326"


VRT = b"<OGRVRTDataSource><OGRVRTLayer name='a'><SrcDataSource>/vsicurl/http://127.0.0.1:9/a.geojson</SrcDataSource></OGRVRTLayer>"


@pytest.mark.parametrize("content", [
    VRT, b"<OGRWFSDataSource><URL>http://127.0.0.1:9/</URL></OGRWFSDataSource>", b"PK\x03\x04", b"SQLite format 3\0" + bytes(100), b"",
    b"fgb", b"\x89PNG\r\n",
])
@pytest.mark.parametrize("name", ["a.geojson", "a.gpkg", "a.shp"])
def test_other_files_are_refused_by_their_bytes_whatever_their_name(tmp_path, content, name):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match="expected GeoJSON, GeoPackage, FlatGeobuf or Shapefile"):
        read_polygons([tmp_path / name])


@pytest.mark.parametrize("content", [b"fgb\x03fgb" + VRT, b"fgb\x03fgb\x01" + VRT, b"fgb\x03fgb<OGRWFSDataSource><URL>http://127.0.0.1:9/</URL>"])
@pytest.mark.parametrize("name", ["a.fgb", "a.vrt"])
def test_a_signature_before_another_format_leads_no_other_driver_to_it(tmp_path, monkeypatch, content, name):
    monkeypatch.setattr("pyogrio.list_layers", lambda *_: pytest.fail("GDAL was asked"))
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match="expected GeoJSON, GeoPackage, FlatGeobuf or Shapefile"):
        read_polygons([tmp_path / name])


@pytest.mark.parametrize(("name", "other"), [("a.gpkg", "a.zip"), ("a.gpkg", "a.csv"), ("a.fgb", "a.gpkg"), ("a.fgb", "a")])
def test_a_suffix_leads_no_other_driver_to_a_file(tmp_path, name, other):
    path = write(tmp_path / name).rename(tmp_path / other)
    with pytest.raises(UserError, match=f"rename it to end in {Path(name).suffix}"):
        read_polygons([path])


@pytest.mark.parametrize("path", ["/vsicurl/http://127.0.0.1:9/a", "http://127.0.0.1:9/a.gpkg", "WFS:http://127.0.0.1:9/", "/proc", ""])
def test_names_that_are_no_files_are_refused(path):
    with pytest.raises(UserError, match="does not exist|is not a file"):
        read_polygons([path])


def test_a_file_named_like_an_address_is_that_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "http:").mkdir()
    write(tmp_path / "a.gpkg", [SQUARE]).rename(tmp_path / "http:" / "a.gpkg")
    assert len(read_polygons(["http://a.gpkg"]).labels) == 1


@pytest.mark.parametrize("name", ["a.gpkg", "a.fgb", "a.shp"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_file_that_is_cut_off_is_one_line(tmp_path, name, share):
    shapes = [shapely.box(k % 60, k // 60, k % 60 + 1, k // 60 + 1) for k in range(600)]
    path = write(tmp_path / name, shapes, kind="Polygon")
    os.truncate(path, int(path.stat().st_size * share))
    with pytest.raises(UserError, match="cannot be read|no layer|shorter than it says"):
        read_polygons([path])


def test_a_shapefile_needs_its_index_and_its_crs(tmp_path):
    path = write(tmp_path / "a.shp", kind="Polygon")
    (tmp_path / "a.prj").unlink()
    with pytest.raises(UserError, match="names no CRS; expected one, in a .prj file beside a Shapefile"):
        read_polygons([path])
    (tmp_path / "a.shx").rename(tmp_path / "elsewhere.shx")
    with pytest.raises(UserError, match=r"a.shp lacks its index a.shx, .*; copy it along, with .dbf and .prj"):
        read_polygons([path])
