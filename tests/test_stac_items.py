"""STAC items of maps, and scenes chosen by their dates: pytest tests/test_stac_items.py"""

import datetime
import json
import os
import re
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import numpy as np
import pyproj
import pytest
import rasterio
import shapely
from map_factory import numbers, run, write_checkpoint
from product_factory import make_item, make_safe, write_raster
from rasterio.crs import CRS
from rasterio.transform import from_origin
from spot_detector import SpotDetector, stand_in, write_image
from spot_detector import data as spot_data

import chip
from mapping.stac_item import place_of
from raster.acquired import time_in_name, time_of, time_of_scene
from raster.products import list_scenes
from raster.source import describe
from runtime import values
from runtime.checkpoint import save_checkpoint
from runtime.errors import UserError
from runtime.files import read_json, read_lines

MODEL = ("B04", "B8A", "B12")
OLD = "S2A_MSIL2A_20210205T101211_N0214_R022_T32TQM_20210205T120000"

CLASSIFICATION = json.loads((Path(__file__).parent / "stac_schemas" / "classification-v2.0.0.json").read_text())


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("model") / "best_model.pt", bands=list(MODEL))


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def require_valid(item):
    """The rules of STAC 1.1 and of the four extensions, as far as they are about the fields that maps have."""
    assert item["type"] == "Feature" and item["stac_version"] == "1.1.0" and isinstance(item["id"], str)
    assert all(re.fullmatch(r"https://stac-extensions\.github\.io/\w+/v\d\.\d\.\d/schema\.json", word) for word in item["stac_extensions"])
    known, properties = item["properties"], item["properties"]
    moments = [known["datetime"]] if known["datetime"] else [known["start_datetime"], known["end_datetime"]]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", moment) for moment in moments)
    if item["geometry"] is None:
        assert "bbox" not in item
    else:
        shape = shapely.geometry.shape(item["geometry"])
        assert shape.is_valid and len(item["bbox"]) == 4 and all(p.exterior.is_ccw for p in getattr(shape, "geoms", [shape]))
    assert properties["proj:code"] is None or re.fullmatch(r"\w+:\w+", properties["proj:code"])
    assert all(isinstance(link["rel"], str) and "?" not in link["href"] for link in item["links"])
    for asset in item["assets"].values():
        assert asset["href"].startswith("./") and "/" in asset["type"] and asset["roles"]
        if "classification:classes" in asset:
            jsonschema.validate(item, CLASSIFICATION)  # which looks at the assets of items that name it
        for entry in asset.get("classification:classes", ()):
            assert isinstance(entry["value"], int) and re.fullmatch(r"[0-9A-Za-z_-]+", entry["name"])
            assert re.fullmatch("[0-9A-F]{6}", entry.get("color_hint", "000000"))


def test_a_map_of_a_product_has_an_item_that_names_place_date_classes_files_and_source(model, tmp_path):
    safe, _ = make_safe(tmp_path / "in put", side=96)
    words = (safe, "--checkpoint", model, "--output-dir", "maps", "--device", "cpu", "--stac", "--probabilities")
    assert run(*words) == 0
    path = f"maps/{safe.stem}.stac.json"
    item = read_json(path)
    require_valid(item)
    # 96 pixels of 10 m from the product's corner
    known, corners = item["properties"], [600_000, 4_900_020 - 960, 600_960, 4_900_020]
    assert known["proj:bbox"] == corners and known["proj:shape"] == [96, 96] and known["proj:code"] == "EPSG:32632"
    assert known["proj:transform"] == [10, 0, 600_000, 0, -10, 4_900_020]
    to_lonlat = pyproj.Transformer.from_crs("EPSG:32632", "OGC:CRS84", always_xy=True).transform
    lon, lat = to_lonlat([600_000, 600_960, 600_000, 600_960], [4_900_020, 4_900_020, 4_899_060, 4_899_060])
    assert np.allclose(item["bbox"], (min(lon), min(lat), max(lon), max(lat)), atol=2e-6)
    ground = shapely.geometry.shape(item["geometry"])
    assert len(ground.exterior.coords) == 5 and ground.buffer(2e-6).covers(shapely.MultiPoint(np.stack([lon, lat], axis=1)))
    assert known["datetime"] == "2022-02-05T10:12:11.024000Z" and known["platform"] == "sentinel-2b"
    (link,) = item["links"]
    assert link["rel"] == "derived_from" and link["href"] == f"../in%20put/{safe.name}" and safe.stem[:3] not in link["title"]
    with rasterio.open(f"maps/{safe.stem}_classes.tif") as file:
        classes = file.read(1)
    legend = {entry["value"]: entry for entry in item["assets"]["classes"]["classification:classes"]}
    assert [legend[n]["name"] for n in (0, 1, 255)] == ["background", "fire", "nodata"] and legend[255]["nodata"]
    assert [legend[n]["count"] for n in (0, 1)] == [(classes == 0).sum(), (classes == 1).sum()]
    files = {asset["href"].removeprefix("./") for asset in item["assets"].values()}
    assert files | {os.path.basename(path)} == {name for name in os.listdir("maps") if name.startswith(safe.stem)} and len(files) == 5
    record = read_json(f"maps/.chipmill/{safe.stem}.json")
    assert os.path.basename(path) in record["files"]
    # It belongs to the promises of maps: the same bytes again, other settings are refused, and it goes where the next map has none.
    before = open(path, "rb").read()
    assert run(*words) == 0 and run(*words, "--overwrite") == 0 and open(path, "rb").read() == before
    with pytest.raises(UserError, match="made with other settings"):
        run(*words[:-2], "--probabilities")
    assert run(*words[:-2], "--overwrite") == 0 and not os.path.exists(path)
    assert len(list_scenes(["maps"])) == 1


@pytest.mark.parametrize("vectors", ["geojson", "gpkg"])
def test_detections_have_an_item_with_their_classes_counts_and_source(tmp_path, monkeypatch, vectors):
    scene, pixels = make_item(tmp_path / "a", side=60)
    pixels["B04"][10:20, 12:24] = pixels["B04"][40:50, 30:42] = 8000
    write_raster(tmp_path / "a/red.tif", pixels["B04"], 10, nodata=0)
    stand_in(monkeypatch, SpotDetector())
    known = spot_data(divide_by=[10_000.0] * 3, offset=[-1000.0] * 3, classes=["grey seal", "boat"])
    save_checkpoint(tmp_path / "c.pt", {"kind": "detection", "model": {}, "settings": {}, "state": {"model": {}}, "data": known})
    words = (scene, "--checkpoint", tmp_path / "c.pt", "--output-dir", "maps", "--device", "cpu", "--vectors", vectors,
             "--class-colours", "boat=#102030")
    assert run(*words, "--stac") == 0
    name = json.loads(scene.read_text())["id"]
    path = f"maps/{name}_boxes.stac.json"
    item = read_json(path)
    require_valid(item)
    assert item["id"] == f"{name}_boxes" and item["properties"]["datetime"].startswith("2022-02-05T10:12:11")
    assert item["properties"]["proj:shape"] == [60, 60] and item["properties"]["platform"] == "sentinel-2b"
    assert [(link["rel"], link["href"]) for link in item["links"]] == [("derived_from", "../a/item.json")]
    assert {kind: asset["href"] for kind, asset in item["assets"].items()} == {
        "boxes": f"./{name}_boxes.{vectors}", "preview": f"./{name}_boxes.png"}
    first, second = item["assets"]["boxes"]["classification:classes"]
    assert [(one["title"], one["name"], one["value"], one["count"]) for one in (first, second)] == [
        ("grey seal", "grey_seal", 1, 2), ("boat", "boat", 2, 0)]
    assert second["color_hint"] == "102030" != first["color_hint"]
    before = open(path, "rb").read()
    assert run(*words, "--stac") == 0 and open(path, "rb").read() == before
    with pytest.raises(UserError, match="made with other settings"):
        run(*words)
    assert run(*words, "--overwrite") == 0 and not os.path.exists(path) and os.path.exists(f"maps/{name}_boxes.png")


def test_detections_of_an_image_without_a_date_have_none_and_the_log_says_why(tmp_path, monkeypatch, capsys):
    write_image(tmp_path / "field.png", np.zeros((3, 64, 64), np.uint8))
    stand_in(monkeypatch, SpotDetector())
    save_checkpoint(tmp_path / "c.pt", {"kind": "detection", "model": {}, "settings": {}, "state": {"model": {}}, "data": spot_data()})
    assert run("field.png", "--checkpoint", tmp_path / "c.pt", "--output-dir", "maps", "--device", "cpu", "--stac") == 0
    assert "no STAC item" in capsys.readouterr().err and not os.path.exists("maps/field_boxes.stac.json")


@pytest.mark.parametrize(("pan_date", "more"), [("20220206", []), ("20220206", ["--rgb"]), ("", [])])
def test_a_sharpened_raster_has_an_item_that_names_both_of_its_pair(tmp_path, pan_date, more, capsys):
    rng = np.random.default_rng(0)
    tags = {"ACQUISITION_DATE": "2022-02-06"} if pan_date else {}
    write_raster("in put/a-ms.tif", rng.integers(500, 900, (4, 20, 20)).astype(np.uint16), 8, nodata=0)
    write_raster("in put/a-pan.tif", rng.integers(500, 900, (80, 80)).astype(np.uint16), 2, tags=tags)
    words = ("--method", "gsa", "--pan", "in put/a-pan.tif", "--ms", "in put/a-ms.tif", "--output-dir", "maps", "--divide-by", 10_000,
             "--offset", -100, "--bands", "blue,green,red,nir", *more)
    assert run(*words) == 0 and not os.path.exists("maps/a_sharpened.stac.json")
    raster = open("maps/a_sharpened.tif", "rb").read()
    assert run(*words, "--stac") == 0 and open("maps/a_sharpened.tif", "rb").read() == raster  # done already, but for the item
    if not pan_date:
        assert "no STAC item" in capsys.readouterr().err and not os.path.exists("maps/a_sharpened.stac.json")
        return
    item = read_json("maps/a_sharpened.stac.json")
    require_valid(item)
    assert item["id"] == "a_sharpened" and item["properties"]["start_datetime"] == "2022-02-06T00:00:00Z"
    assert item["properties"]["proj:shape"] == [80, 80] and item["properties"]["proj:transform"][0] == 2
    assert [link["href"] for link in item["links"]] == ["../in%20put/a-ms.tif", "../in%20put/a-pan.tif"]
    assert {link["rel"] for link in item["links"]} == {"derived_from"}
    asset = item["assets"]["sharpened"]
    with rasterio.open("maps/a_sharpened.tif") as file:
        assert [band["name"] for band in asset["bands"]] == list(file.descriptions) and asset["data_type"] == file.dtypes[0]
        assert asset["nodata"] == file.nodata
    if more:
        assert "raster:scale" not in asset
    else:  # reflectance = (value - 100) / 10 000
        assert 700 * asset["raster:scale"] + asset["raster:offset"] == pytest.approx(0.06)
    assert item["assets"]["preview"]["href"] == "./a_sharpened_pair.png" and os.path.exists("maps/a_sharpened_pair.png")
    again = open("maps/a_sharpened.stac.json", "rb").read()
    assert run(*words, "--stac", "--overwrite") == 0 and open("maps/a_sharpened.stac.json", "rb").read() == again
    assert run(*words, "--overwrite") == 0 and not os.path.exists("maps/a_sharpened.stac.json")


def test_the_item_of_a_map_names_the_item_of_its_scene_without_a_signature(model, tmp_path):
    path, _ = make_item(tmp_path / "a")
    item = json.loads(path.read_text())
    words = ("--checkpoint", model, "--device", "cpu", "--stac")
    assert run(path, *words, "--output-dir", "one") == 0
    assert read_json(f"one/{item['id']}.stac.json")["links"][0]["href"] == "../a/item.json"
    (tmp_path / "a/items.json").write_text(json.dumps({"type": "FeatureCollection", "features": [item]}))
    assert run(tmp_path / "a/items.json", *words, "--output-dir", "one", "--overwrite") == 0
    assert read_json(f"one/{item['id']}.stac.json")["links"][0]["href"] == f"../a/items.json#{item['id']}"
    item["links"] = [{"rel": "self", "href": f"https://example.org/items/{item['id']}?sig=secret"}]
    (tmp_path / "a/items.json").write_text(json.dumps({"type": "FeatureCollection", "features": [item]}))
    assert run(tmp_path / "a/items.json", *words, "--output-dir", "two") == 0
    (link,) = read_json(f"two/{item['id']}.stac.json")["links"]
    assert link["href"] == f"https://example.org/items/{item['id']}" and link["type"] == "application/geo+json"


@pytest.mark.parametrize(("name", "tags", "crs", "moment"), [
    ("a_20220205", {}, "EPSG:32632", None), ("b", {"ACQUISITION_DATE": "2021-07-01"}, None, None), ("c", {}, "EPSG:32632", "none"),
])
def test_a_raster_has_an_item_where_tags_or_name_tell_its_day(model, tmp_path, name, tags, crs, moment):
    write_raster(f"{name}.tif", numbers(40, 40), 10, crs=crs, tags=tags)
    assert run(f"{name}.tif", "--checkpoint", model, "--output-dir", "maps", "--device", "cpu", "--stac", "--bands", "1,2,3") == 0
    record = read_json("maps/summary.json")["scenes"][0]
    assert os.path.exists(f"maps/{name}.stac.json") == (moment is None) == (f"{name}.stac.json" in record["files"])
    if moment:
        assert any("no STAC item" in remark for remark in record["remarks"])
        return
    item = read_json(f"maps/{name}.stac.json")
    require_valid(item)
    day = tags.get("ACQUISITION_DATE", "2022-02-05")
    assert item["properties"]["start_datetime"] == f"{day}T00:00:00Z" and item["properties"]["end_datetime"] == f"{day}T23:59:59Z"
    assert (item["geometry"] is None) == (crs is None) and item["links"][0]["href"] == f"../{name}.tif"


def test_footprints_cross_the_antimeridian_and_hold_poles():
    def placed(crs, left, top, metres, side=100, width=None):
        transform = from_origin(left, top, metres, metres)
        return place_of(SimpleNamespace(crs=CRS.from_string(crs), transform=transform, height=side, width=width or side))

    geometry, bbox = placed("EPSG:4326", 179, 10, 0.02)
    assert bbox == [179, 8, -179, 10] and geometry["type"] == "MultiPolygon"
    assert shapely.geometry.shape(geometry).area == pytest.approx(4)
    geometry, bbox = placed("EPSG:4326", 178, 10, 0.02)
    assert bbox == [178, 8, 180, 10] and geometry["type"] == "Polygon"
    for left in (-180, 0, -190.5):
        geometry, bbox = placed("EPSG:4326", left, 90, 3.6, 50, 100)
        assert bbox == [-180, -90, 180, 90] and shapely.geometry.shape(geometry).area == 360 * 180
    geometry, bbox = placed("EPSG:3413", -1e6, 1e6, 20_000)
    assert bbox[0] == -180 and bbox[2:] == [180, 90] and 75 < bbox[1] < 85
    geometry, bbox = placed("EPSG:32660", 700_000, 6e6, 1000, 300)  # from 177 E over the antimeridian
    west, south, east, north = bbox
    assert west > 179 > -170 > east and south < north and shapely.geometry.shape(geometry).is_valid


# ------------------------------------------------------------------------------------------------ --dates


def test_days_are_read_from_flags_times_and_names():
    day, minute = datetime.date(2022, 2, 5), datetime.datetime(2022, 2, 5, 10, 12, 11, tzinfo=datetime.UTC)
    assert values.dates("2022-02-05") == (day, day) and values.dates("2022-02-05/..") == (day, None)
    assert values.dates("/2022-02-05") == (None, day)
    for wrong in ("..", "2022-02-06/2022-02-05", "2022", "a/b", "2022-02-05/2022-02-06/2022-02-07"):
        with pytest.raises(Exception, match="expected days such as"):
            values.dates(wrong)
    for text in ("2022-02-05T10:12:11Z", "2022-02-05T11:12:11+01:00", "2022-02-05T10:12:11", "2022-02-05T10:12:11.0000000Z"):
        assert time_of(text) == (minute, minute)
    for name in ("T32TQM_20220205T101211_B02", "HLS.S30.T32TQM.2022036T101211.v2.0"):
        assert time_in_name(name) == (minute, minute)
    for name in ("a_2022-02-05", "LC09_L2SP_193028_20220205_20220208_02_T1", "hls_HLS.S30.T10SEH.2022036.v1.4_merged", "x20220205"):
        assert time_in_name(name)[0].date() == time_in_name(name)[1].date() == day
    for name in ("scene", "12022020512", "20221305", "2022-0205", "HLS.S30.T32TQM.2022400"):
        assert time_in_name(name) is None
    assert time_of("9999-12-31T23:59:59-10:00") is None and time_of("yesterday") is None


def test_only_scenes_of_the_days_that_are_asked_for_are_mapped_and_cut(model, tmp_path, capsys):
    new, _ = make_safe(tmp_path, side=48)
    old, _ = make_safe(tmp_path, side=48, name=OLD, baseline="02.14")
    assert [time_of_scene(describe(scene.with_bands(["B04"])))[0].year for scene in list_scenes([str(tmp_path)])] == [2021, 2022]
    words = (tmp_path / "*.SAFE", "--checkpoint", model, "--device", "cpu", "--dry-run")
    for dates, found in (("2022-01-01/..", [new]), ("../2021-12-31", [old]), ("2021-02-05/2022-02-05", [old, new]), ("2022-02-05", [new])):
        assert run(*words, "--dates", dates) == 0
        said = "".join(capsys.readouterr())
        assert [f"{safe.stem}:" in said for safe in (old, new)] == [safe in found for safe in (old, new)]
    with pytest.raises(UserError, match="--dates leaves no scene: the 2 found are of 2021-02-05 to 2022-02-05"):
        run(*words, "--dates", "2022-02-06/..")
    for name in ("32TQM_20220205", "32TQM_20210205"):
        write_raster(f"masks/{name}.tif", np.zeros((48, 48), np.uint8), 10)
    cut = ["make-patches", "--images", "*.SAFE", "--masks", "masks", "--bands", "B04", "--patch-size", "32", "--patches-dir", "patches"]
    chip.main([*cut, "--dates", "2022-01-01/.."])
    assert {line["scene"] for line in read_lines("patches/manifest.jsonl")} == {new.stem}
    write_raster("plain.tif", numbers(8, 8), 10)
    with pytest.raises(UserError, match="neither metadata, tags nor name of plain.tif tell when it was taken"):
        run("plain.tif", *words[1:], "--dates", "2022-02-05")
