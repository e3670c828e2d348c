"""What QGIS shows of a map: its style, and outlines with fewer corners: pytest tests/test_map_style.py"""

import json
import xml.etree.ElementTree as ElementTree

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from map_factory import BANDS, numbers, run, tiny_model, write_checkpoint

from classes import ClassSet
from mapping.polygons import AreaFinder
from mapping.qgis_style import write_class_style, write_value_style
from mapping.simplified import EVERY, Simplifier
from mapping.value_picture import shown_range, value_picture
from pictures.overlays import PROBABILITY_STOPS


def entries_of(path, kind="paletteEntry"):
    text = path.read_text(encoding="utf-8")
    return [dict(entry.attrib) for entry in ElementTree.fromstring(text).iter(kind)]


# ----------------------------------------------------------------------------------------------------------------------- style


@pytest.mark.parametrize(("names", "seen"), [
    (("background", "fire"), [0, 255]), (("land", "water"), [0, 255]), (("water", "forest", "crops"), [255] * 3),
    (("background", 'a "road" & <b>\x07', "house"), [0, 255, 255]),
])
def test_a_style_names_the_classes_in_their_colours_and_hides_what_is_not_mapped(tmp_path, names, seen):
    write_class_style(tmp_path / "a.qml", ClassSet(names, ((names[1], "#123456"),)))
    entries = entries_of(tmp_path / "a.qml")
    assert [entry["label"] for entry in entries] == [name.replace("\x07", "\\x07") for name in names]
    assert [int(entry["value"]) for entry in entries] == list(range(len(names))) and [int(entry["alpha"]) for entry in entries] == seen
    assert entries[1]["color"] == "#123456"
    colours = ClassSet(names, ((names[1], "#123456"),)).colours
    assert [tuple(bytes.fromhex(entry["color"][1:])) for entry in entries] == list(colours)


def test_a_style_of_values_runs_from_the_least_to_the_most(tmp_path):
    write_value_style(tmp_path / "a.qml", -3.0, 12.0)
    values = [float(item["value"]) for item in entries_of(tmp_path / "a.qml", "item")]
    assert (values[0], values[-1]) == (-3.0, 12.0) and values == pytest.approx(np.linspace(-3, 12, len(values)))


def test_a_map_has_its_style_beside_it_in_the_colours_that_were_asked_for(checkpoint, tmp_path, make_raster):
    scene = make_raster("scene.tif", numbers(40, 50), descriptions=BANDS)
    run(scene, "--checkpoint", checkpoint, "--output-dir", tmp_path / "maps", "--device", "cpu", "--class-colours", "fire=#00ff00")
    (background, fire) = entries_of(tmp_path / "maps" / "scene_classes.qml")
    with rasterio.open(tmp_path / "maps" / "scene_classes.tif") as dataset:
        assert dataset.colormap(1)[1][:3] == tuple(bytes.fromhex(fire["color"][1:])) == (0, 255, 0)
    assert (background["label"], background["alpha"], fire["label"], fire["alpha"]) == ("background", "0", "fire", "255")
    assert "scene_classes.qml" in json.loads((tmp_path / "maps" / "summary.json").read_text())["scenes"][0]["files"]


QGIS = """<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>
<qgis hasScaleBasedVisibilityFlag="0" version="3.34.4-Prizren">
</qgis>
"""


@pytest.mark.parametrize("when", ["before the first map", "over ours", "beside a map of before"])
def test_a_style_that_qgis_saved_stays_and_the_map_counts_as_finished(checkpoint, tmp_path, make_raster, capsys, when):
    scene, maps = make_raster("scene.tif", numbers(40, 50), descriptions=BANDS), tmp_path / "maps"
    words = (scene, "--checkpoint", checkpoint, "--output-dir", maps, "--device", "cpu")
    style, record = maps / "scene_classes.qml", maps / ".chipmill" / "scene.json"
    if when == "before the first map":
        maps.mkdir()
        style.write_text(QGIS)
        run(*words)
        assert "scene_classes.qml was saved in QGIS" in capsys.readouterr().err
        assert style.name not in json.loads(record.read_text())["files"]
    else:
        run(*words)
        style.write_text(QGIS)
        if when == "beside a map of before":  # whose record knows no styles
            kept = json.loads(record.read_text())
            kept["files"].remove(style.name)
            record.write_text(json.dumps(kept))
    capsys.readouterr()
    run(*words)
    assert "is mapped already" in capsys.readouterr().err
    run(*words, "--overwrite", "--stac")
    assert style.read_text() == QGIS
    assert style.name not in json.loads(record.read_text())["files"]
    style.unlink()
    run(*words, "--overwrite", "--class-colours", "fire=#00ff00")  # ours, which the next map replaces
    run(*words, "--overwrite", "--class-colours", "fire=#0000ff")
    assert entries_of(style)[1]["color"] == "#0000ff"


@given(hnp.arrays(np.float32, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.floats(-50, 50, width=32) | st.just(np.nan)))
def test_preview_page_and_style_of_values_show_the_same_range(values):
    """Percentiles counted by sorting: linear between the two nearest."""
    low, high = shown_range(values)
    known = sorted(float(v) for v in values.ravel() if v == v)
    for share, found in ((0.01, low), (0.99, high)):
        place = share * (len(known) - 1)
        i = int(place)
        want = known[i] + (place - i) * (known[min(i + 1, len(known) - 1)] - known[i]) if known else float(share > 0.5)
        assert found == pytest.approx(want, abs=1e-4)
    picture = value_picture(values, low, high)
    assert picture.shape == (*values.shape, 3)
    outside = np.isfinite(values) & (values >= high)
    assert not known or high - low < 1e-6 or (picture[outside] == PROBABILITY_STOPS[-1]).all()


# -------------------------------------------------------------------------------------------------------------------- outlines


def polygons_of(areas):
    return np.array([shapely.Polygon(outer, holes) for outer, *holes in (area.rings for area in areas)])


def areas_of(classes, step=EVERY, rows=5):
    finder, ones = AreaFinder(classes.shape[1], 0.0, step), np.ones(classes.shape, np.float32)
    areas = []
    for first in range(0, len(classes), rows):
        part = slice(first, first + rows)
        areas += finder.add(classes[part], ones[part], np.full((len(classes[part]), 1), 100.0))
    return areas + finder.finish()


@given(height=st.integers(1, 24), width=st.integers(1, 24), seed=st.integers(0, 99), metres=st.floats(1, 80), straight=st.sampled_from(
    [None, 3, 64]), across=st.sampled_from([10.0, 7.0]))
def test_simplified_neighbours_keep_their_common_border(height, width, seed, metres, straight, across):
    """As GEOS judges a coverage: no overlap and no gap between neighbours; and no area is lost."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 4, (height // 3 + 1, width // 3 + 1))
    classes = np.kron(coarse, np.ones((3, 3), int))[:height, :width].astype(np.uint8)
    classes[rng.random(classes.shape) < 0.08] = 2
    areas = areas_of(classes)
    simplifier = Simplifier(metres, (across, 10.0), straight)
    simplifier.add(areas[:1])
    simplifier.add(areas[1:])
    found = simplifier.finish()
    shapes, before = polygons_of(found), polygons_of(areas)
    assert len(found) == len(areas) and shapely.is_valid(shapes).all() and not shapely.is_empty(shapes).any()
    assert not len(shapes) or shapely.coverage_is_valid(shapes)
    assert [(a.value, a.pixels, a.square_metres) for a in found] == [(a.value, a.pixels, a.square_metres) for a in areas]
    # Corners that remain are corners of the pixels, unless they were put into long sides.
    if straight is None:
        assert set(map(tuple, shapely.get_coordinates(shapes))) <= set(map(tuple, shapely.get_coordinates(before)))
    else:
        rings = [np.append(ring, ring[:1], axis=0) for area in found for ring in area.rings]
        assert all(np.abs(np.diff(ring, axis=0)).max() <= straight for ring in rings)


def test_a_staircase_becomes_a_slope_and_the_border_moves_by_less_than_asked():
    classes = np.tril(np.ones((40, 40), np.uint8)) + 1
    simplifier = Simplifier(30.0, (10.0, 10.0), None)
    simplifier.add(areas_of(classes))
    upper, lower = polygons_of(simplifier.finish())
    assert sum(len(shapely.get_coordinates(shape)) for shape in (upper, lower)) < 20 < len(areas_of(classes, None)[0].points)
    assert shapely.union_all([upper, lower]).equals(shapely.box(0, 0, 40, 40))
    assert shapely.hausdorff_distance(upper, polygons_of(areas_of(classes))[0]) < 3


@pytest.mark.parametrize("kind", ["geojson", "gpkg"])
def test_simplified_outlines_of_a_map_have_its_classes_and_hectares(tmp_path, make_raster, kind):
    path = write_checkpoint(tmp_path / "cover.pt", tiny_model(num_classes=3), classes=["water", "forest", "crops"])
    scene = make_raster("scene.tif", numbers(90, 80), descriptions=BANDS)
    words = (scene, "--checkpoint", path, "--device", "cpu", "--min-area", 0, "--vectors", kind, "--output-dir")
    run(*words, tmp_path / "pixels")
    run(*words, tmp_path / "simple", "--simplify", 40)
    read = [layer_of(tmp_path / folder / f"scene_outlines.{kind}") for folder in ("pixels", "simple")]
    (before, rows_before), (after, rows_after) = read
    assert sorted(map(str, rows_before)) == sorted(map(str, rows_after)) and len(after) > 5
    assert len(shapely.get_coordinates(after)) < 0.7 * len(shapely.get_coordinates(before))
    assert shapely.coverage_is_valid(after)
    assert (tmp_path / "pixels" / "scene_classes.tif").read_bytes() == (tmp_path / "simple" / "scene_classes.tif").read_bytes()


def layer_of(path):
    meta, _, shapes, columns = pyogrio.raw.read(path)
    rows = [dict(zip(meta["fields"], row, strict=True)) for row in zip(*(c.tolist() for c in columns), strict=True)]
    return shapely.from_wkb(shapes), rows


def test_too_many_sides_are_refused_before_they_fill_the_memory(monkeypatch):
    monkeypatch.setattr("mapping.simplified.MOST", 10)
    with pytest.raises(Exception, match="leave out --simplify or raise --min-area"):
        Simplifier(5.0, (10.0, 10.0), None).add(areas_of(np.ones((4, 4), np.uint8)))
