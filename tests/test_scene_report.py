"""The page of inference.py --report, and what it says of where and when: pytest tests/test_scene_report.py"""

import html
import json
import re
from types import SimpleNamespace

import numpy as np
import pyproj
import pytest
from hypothesis import given
from hypothesis import strategies as st
from map_factory import BANDS, numbers, run, tiny_model, write_checkpoint
from rasterio.crs import CRS
from rasterio.transform import Affine, from_origin

from mapping import report
from pictures.page import View, figure, scale_bar
from raster.ground import degrees_words, ground_of
from raster.sensor_name import sensor_name
from runtime.errors import UserError

TAGS = {"SATELLITEID": "Sentinel-2B", "ACQUISITION_DATE": "2022-02-05T10:12:11Z"}


def words_of(folder):
    """The page's text, without style and pictures; and how many pictures it has."""
    text = (folder / "report.html").read_text(encoding="utf-8")
    body = re.sub(r'"data:[^"]*"', '""', text[text.index("<body>") :])
    assert "http" not in body and "<script" not in body and "None" not in body and "nan" not in body
    assert all(re.search(r'alt="[^"]', image) for image in re.findall("<img[^>]*>", body))
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", body))), body.count("<img")


# --------------------------------------------------------------------------------------------------------------------- the page


def test_the_page_tells_of_each_scene_what_the_summary_does(checkpoint, tmp_path, make_raster):
    scenes = [make_raster(f"{name}.tif", numbers(60, 50, seed), descriptions=BANDS, tags=TAGS) for seed, name in enumerate("ab")]
    scenes.append(make_raster("c <i>.tif", numbers(30, 30, 3), descriptions=BANDS, crs=None))
    words = (*scenes, "--checkpoint", checkpoint, "--output-dir", tmp_path / "maps", "--device", "cpu", "--report")
    run(*words)
    page = (tmp_path / "maps" / "report.html").read_bytes()
    text, pictures = words_of(tmp_path / "maps")
    assert pictures == 9 and (tmp_path / "maps" / "a_probability.tif").exists()  # infrared, map and probability of each
    found = json.loads((tmp_path / "maps" / "summary.json").read_text())
    assert f"{found['total']['burned_hectares']:.1f} hectares burned." in text and "Map of 3 scenes" in text
    for record in found["scenes"]:
        fire = record["classes"]["fire"]
        assert record["scene"] in text and f"{100 * record['fire_fraction']:.1f} % burned" in text
        assert fire["hectares"] is None or f"fire {fire['hectares']:.1f} " in text
    assert text.count("Sentinel-2B, 2022-02-05") == 2 and "41.5490° N, 15.0030° E" in text  # the middle of a and b, by pyproj
    assert text.count("No CRS: no polygons, no hectares.") == 1 and "<i>.tif" not in page.decode()
    run(*words)
    assert (tmp_path / "maps" / "report.html").read_bytes() == page  # all of them were mapped already


def test_maps_without_probabilities_are_not_made_again_for_the_page(checkpoint, tmp_path, make_raster, capsys):
    scene = make_raster("s.tif", numbers(40, 40), descriptions=BANDS)
    words = (scene, "--checkpoint", checkpoint, "--output-dir", tmp_path / "maps", "--device", "cpu")
    run(*words)
    capsys.readouterr()
    run(*words, "--report")
    assert "s is mapped already" in capsys.readouterr().err and not (tmp_path / "maps" / "s_probability.tif").exists()
    assert words_of(tmp_path / "maps")[1] == 2
    with pytest.raises(UserError, match="made with other settings"):
        run(*words, "--report", "--probabilities")


def test_a_map_that_has_more_than_is_asked_for_is_not_made_again(checkpoint, tmp_path, make_raster, capsys):
    scene = make_raster("s.tif", numbers(40, 40), descriptions=BANDS)
    words = (scene, "--checkpoint", checkpoint, "--output-dir", tmp_path, "--device", "cpu")
    run(*words, "--report")
    before = (tmp_path / "s_probability.tif").read_bytes()
    capsys.readouterr()
    run(*words)
    assert "s is mapped already" in capsys.readouterr().err and (tmp_path / "s_probability.tif").read_bytes() == before


def test_a_scene_without_a_valid_pixel_is_told_as_such(checkpoint, tmp_path, make_raster):
    scenes = [make_raster(f"{seen}.tif", numbers(40, 40) * seen, descriptions=BANDS, nodata=0) for seen in (0, 1)]
    run(*scenes, "--checkpoint", checkpoint, "--output-dir", tmp_path / "maps", "--device", "cpu", "--report")
    assert "No valid pixel." in words_of(tmp_path / "maps")[0]


@pytest.mark.parametrize("words", [(), ("--threshold", "0.4")])
def test_the_page_says_who_chose_the_threshold(checkpoint, tmp_path, make_raster, words):
    scene = make_raster("s.tif", numbers(40, 40), descriptions=BANDS)
    run(scene, "--checkpoint", checkpoint, "--output-dir", tmp_path / "maps", "--device", "cpu", "--report", *words)
    assert ("(--threshold)" in words_of(tmp_path / "maps")[0]) == bool(words)


def test_the_pictures_are_the_scene_and_its_map_pixel_by_pixel(checkpoint, tmp_path, make_raster, monkeypatch):
    shown = []
    monkeypatch.setattr(report, "build_scene_report", lambda told: shown.append(told) or "")
    stored = numbers(40, 40)
    stored[:, :10] = 0
    scene = make_raster("s.tif", stored, descriptions=BANDS, nodata=0)
    run(scene, "--checkpoint", checkpoint, "--output-dir", tmp_path / "maps", "--device", "cpu", "--report")
    assert {view.picture.shape for view in shown[0].scenes[0].views} == {(680, 680, 3)}  # in squares of 17 pixels
    infrared, map_, sure = (view.picture[::17, ::17] for view in shown[0].scenes[0].views)
    assert all((picture[:10] == 128).all() and not (picture[10:] == 128).all(axis=2).any() for picture in (infrared, map_, sure))
    classes = report.read_small(tmp_path / "maps" / "s_classes.tif", (40, 40))[0]
    red = map_[..., 0].astype(int) - map_[..., 2]
    assert (red[classes == 1] > 100).all() and (red[classes == 0] < 20).all() and (classes == 1).any()
    brightness = sure.astype(int).sum(axis=2)
    assert brightness[classes == 1].min() >= brightness[classes == 0].max()  # from a half on
    assert shown[0].scenes[0].rows[0].colour is None and shown[0].scenes[0].rows[1].hectares == (classes == 1).sum() / 100


def test_a_scene_that_is_gone_still_has_its_map_on_the_page(checkpoint, tmp_path, make_raster, monkeypatch):
    monkeypatch.setattr(report, "read_reflectance", lambda *_: (_ for _ in ()).throw(UserError("it is gone")))
    scene = make_raster("s.tif", numbers(30, 30), descriptions=BANDS)
    run(scene, "--checkpoint", checkpoint, "--output-dir", tmp_path / "maps", "--device", "cpu", "--report")
    text, pictures = words_of(tmp_path / "maps")
    assert "The scene can't be read again for its picture (it is gone)." in text and pictures == 2


def test_many_scenes_have_a_line_each_and_few_have_pictures(checkpoint, tmp_path, make_raster, monkeypatch):
    monkeypatch.setattr(report, "SHOWN", 1)
    scenes = [make_raster(f"s{k}.tif", numbers(20, 20, k), descriptions=BANDS) for k in range(2)]
    (tmp_path / "bad.tif").write_text("no raster")
    run(*scenes, tmp_path / "bad.tif", "--checkpoint", checkpoint, "--output-dir", tmp_path / "maps", "--device", "cpu", "--report")
    text, pictures = words_of(tmp_path / "maps")
    assert pictures == 3 and "s1" in text and "the first 1 of them" in text and "1 scene could not be mapped" in text and "bad" in text


def test_a_page_of_maps_that_are_replaced_is_deleted_and_no_other(checkpoint, tmp_path, make_raster, capsys):
    scenes = [make_raster(f"{name}.tif", numbers(30, 30), descriptions=BANDS) for name in 'a"<b']
    maps = tmp_path / "maps"
    words = ("--checkpoint", checkpoint, "--device", "cpu", "--output-dir", maps)
    run(*scenes[:2], *words, "--report")
    for more in (scenes[:2], [scenes[2], scenes[3], "--overwrite"]):  # mapped already; other scenes
        run(*more, *words)
        assert (maps / "report.html").exists()
    capsys.readouterr()
    run(scenes[1], *words, "--overwrite")
    assert not (maps / "report.html").exists()
    assert 'report.html showed an earlier map of " and is deleted; pass --report for a new one' in capsys.readouterr().err
    (maps / "report.html").write_text("a page of somebody's")
    run(scenes[0], *words, "--overwrite")
    assert (maps / "report.html").read_text() == "a page of somebody's"


@pytest.mark.parametrize(("kilometres", "style"), [((3.48, 4.49), "aspect-ratio:3.48/4.49"), ((3.0, 3.02), None), (None, None)])
def test_pictures_of_pixels_in_degrees_are_stretched_to_the_ground(kilometres, style):
    image = figure(View("A", np.zeros((50, 50, 3), np.uint8), "a"), kilometres)
    assert (style in image) if style else "aspect-ratio" not in image


def test_values_are_shown_with_their_range_and_tiles_have_no_page(tmp_path, make_raster):
    scene = make_raster("s.tif", numbers(30, 30), descriptions=BANDS)
    path = write_checkpoint(tmp_path / "values.pt", tiny_model(num_classes=1), kind="regression", classes=["canopy_height"])
    run(scene, "--checkpoint", path, "--output-dir", tmp_path / "maps", "--device", "cpu", "--report")
    text, pictures = words_of(tmp_path / "maps")
    assert pictures == 2 and "Canopy height." in text and "The map: canopy height" in text
    tiles = write_checkpoint(tmp_path / "tiles.pt", kind="classification")
    with pytest.raises(UserError, match="--report is for other maps"):
        run(scene, "--checkpoint", tiles, "--output-dir", tmp_path / "tiles", "--report")


# --------------------------------------------------------------------------------------------------------------- where and when


def place(crs, transform, height=100, width=200):
    return ground_of(SimpleNamespace(crs=crs and CRS.from_string(crs), transform=transform, height=height, width=width))


def test_north_is_up_on_a_central_meridian_and_turns_with_the_raster():
    straight = place("EPSG:32633", from_origin(499_000, 4_600_000, 10, 10))
    assert straight.north == pytest.approx(0, abs=1e-3) and straight.sides == pytest.approx((10.004, 10.004), abs=2e-3)  # 1 / 0.9996
    assert straight.middle == pytest.approx((15.0, 41.547), abs=1e-3)
    turned = place("EPSG:32633", Affine(0, -10, 500_000, 10, 0, 4_600_000))  # columns lead north, rows west
    assert turned.north == pytest.approx(90, abs=0.1)
    upside_down = place("EPSG:32633", from_origin(499_000, 4_600_000, 10, -10))  # the first row is the southern one
    assert abs(upside_down.north) == pytest.approx(180, abs=1e-3)
    assert place(None, from_origin(0, 0, 1, 1)) is None


def test_pixels_in_degrees_are_narrower_towards_the_poles():
    ground = place("EPSG:4326", from_origin(10, 60.05, 0.001, 0.001))
    assert ground.sides == pytest.approx((55.8, 111.4), abs=0.2) and ground.north == pytest.approx(0, abs=1e-6)
    assert ground.corners[0] == pytest.approx((10, 60.05)) and ground.corners[2] == pytest.approx((10.2, 59.95))


@given(st.floats(-170, 170), st.floats(-75, 75))
def test_north_is_where_the_geodesic_leads(lon, lat):
    """Against PROJ's own meridian convergence, in UTM at any distance from its central meridian."""
    zone = int((lon + 180) // 6) + 1
    crs = f"EPSG:{(32600 if lat >= 0 else 32700) + zone}"
    x, y = pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(lon, lat)
    ground = place(crs, from_origin(x - 1000, y + 500, 10, 10))
    factors = pyproj.Proj(crs).get_factors(lon, lat)
    assert ground.north == pytest.approx(-factors.meridian_convergence, abs=1e-3)
    assert ground.middle == pytest.approx((lon, lat), abs=1e-6)


@pytest.mark.parametrize(("tags", "found"), [
    (TAGS, "Sentinel-2B"), ({"SPACECRAFT_ID": "LANDSAT_9", "sensor": "OLI"}, "LANDSAT_9"), ({"sensor": "x" * 200}, ""),
    ({"Platform": "a\x1b[31m\nb"}, "a\\x1b[31m b"), ({"DATE": "2022-02-05"}, ""), ({}, ""),
])
def test_the_sensor_is_that_of_the_tags(tags, found):
    assert sensor_name(tags) == found


@given(st.floats(1e-3, 5000))
def test_a_scale_bar_is_round_and_between_a_seventh_and_a_third_of_its_picture(kilometres):
    share, number, unit = re.search(r"width:([\d.]+)%.*>([\d.e+]+) ([kc]?m)<", scale_bar(kilometres)).groups()
    assert 100 / 7.6 <= float(share) <= 100 / 2.999
    length = float(number) * {"km": 1, "m": 1e-3, "cm": 1e-5}[unit]
    assert length == pytest.approx(kilometres * float(share) / 100, rel=2e-3)
    assert f"{length:e}"[0] in "125" and float(f"{length:.0e}") == pytest.approx(length)


def test_coordinates_are_told_with_their_hemisphere():
    assert degrees_words(-70.5, -33.25) == "33.2500° S, 70.5000° W" and degrees_words(185, 1) == "1.0000° N, 175.0000° W"
