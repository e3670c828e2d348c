"""Words, names and colours follow the classes: fire, one class beside a background, several. Run: pytest tests/test_classes.py"""

import argparse
import csv
import json
import types

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from map_factory import BANDS, numbers, run, tiny_model, write_checkpoint
from patch_factory import read_lines, write_patch_set
from PIL import Image
from rasterio.features import rasterize

import train
from classes import ClassSet, class_set, parse_colours
from constants import CLASS_COLOURS, CLASS_NAMES
from mapping import gallery
from mapping.blending import decide_classes
from mapping.map_writer import Outlines
from mapping.preview import Heading, legend_of, preview
from mapping.segmentation import predict_array
from mapping.summary import read_record, write_summaries
from model import model_from_checkpoint
from pictures.chip_sheets import sample_sheet
from pictures.overlays import FOUND, MISSED, error_legend, error_picture
from runtime.checkpoint import load_checkpoint
from runtime.errors import UserError

COVER = ("water", "forest", "crops", "urban", "snow")


# ------------------------------------------------------------------------------------------------------------- what a set is


@pytest.mark.parametrize(("names", "key", "mapped", "ending", "score"), [
    (CLASS_NAMES[2], "fire", "burned", "burned", "fire_iou"),
    (CLASS_NAMES[5], "fire", "burned", "burned", "fire_iou"),
    (("unburned", "low", "moderate", "high"), "fire", "burned", "burned", "fire_iou"),
    (("background", "burn_scar"), "fire", "burned", "burned", "fire_iou"),
    (("land", "water"), "water", "water", "water", "water_iou"),
    (("other", "Open water"), "open_water", "Open water", "open-water", "open_water_iou"),
    (("rest", "mean"), "class_mean", "mean", "mean", "class_mean_iou"),  # mean_iou is another score
    (("no_damage", "minor", "major", "destroyed"), None, None, "outlines", "mean_iou"),  # of buildings
    (("background", "fire", "water"), None, None, "outlines", "mean_iou"),
    (COVER, None, None, "outlines", "mean_iou"),
])
def test_the_names_of_the_classes_decide_the_words(names, key, mapped, ending, score):
    classes = class_set(names)
    assert (classes.key, classes.mapped, classes.ending, classes.score) == (key, mapped, ending, score)


@pytest.mark.parametrize(("names", "first"), [
    (COVER, 0), (("background", "road", "building"), 1), (("class_0", "class_1", "class_2"), 1), (("clear", "cloud", "shadow"), 1),
    (("no_damage", "minor", "major"), 1), (("unflooded", "road", "house"), 1), (("urban", "forest", "water"), 0), (("water", "ice"), 1),
])
def test_of_several_classes_the_first_is_background_only_where_its_name_says_so(names, first):
    assert class_set(names).first == first


@pytest.mark.parametrize(("names", "indices"), [
    (CLASS_NAMES[5], ("nbr",)), (("land", "flooded"), ("mndwi", "ndwi")), (("other", "snow_and_ice"), ("ndsi",)),
    (("rest", "trees"), ("ndvi",)), (("water", "no_water"), ()), (("background", "building"), ()), (COVER, ()),
])
def test_the_baseline_is_the_usual_index_of_what_is_mapped(names, indices):
    assert class_set(names).baselines == indices


# --------------------------------------------------------------------------------------------------------------------- colours


def test_fires_keep_their_colours_and_known_names_have_theirs():
    assert all(class_set(CLASS_NAMES[n]).colours == CLASS_COLOURS[n] for n in (2, 5))
    red, green, blue = class_set(("land", "water")).colours[1]
    assert blue > 150 and blue > 1.5 * max(red, green)
    water, forest, crops, urban, snow = class_set(COVER).colours
    assert water == (red, green, blue) and forest[1] > max(forest[0], forest[2]) and urban[0] > 200 and min(snow) > 220
    assert class_set(("background", "burned", "water")).colours == ((0, 0, 0), CLASS_COLOURS[2][1], water)


NAMES = st.sampled_from(["water", "forest", "pine_forest", "old forest", "crops", "snow", "cloud", "burned", "road", "background", "rest"])


@given(names=st.lists(NAMES | st.text("abc", min_size=1), min_size=2, max_size=24, unique=True), number=st.integers(0, 23))
def test_no_two_classes_have_one_colour_and_a_given_one_stands(names, number):
    name = names[number % len(names)]
    classes = ClassSet(tuple(names)).with_colours({name: "#1f77b4"})
    assert classes.colours[number % len(names)] == (31, 119, 180) and len(set(classes.colours)) == len(names)
    assert all(isinstance(part, int) and 0 <= part <= 255 for colour in classes.colours for part in colour)


def test_as_many_classes_as_there_may_be_have_each_a_colour_of_its_own():
    assert len(set(class_set(tuple(f"class_{i}" for i in range(254))).colours)) == 254


def test_colours_are_written_as_hexadecimal_and_named_after_classes():
    assert parse_colours("water=#1F77b4, a=b=d2b48c") == {"water": "#1f77b4", "a=b": "#d2b48c"}
    for wrong in ("water", "water=blue", "=#1f77b4", "water=#12", "water=#1f77b4,"):
        with pytest.raises(argparse.ArgumentTypeError, match="water=#1f77b4"):
            parse_colours(wrong)
    with pytest.raises(UserError, match="no class 'watre'; the classes are land, water. Did you mean 'water'"):
        class_set(("land", "water")).with_colours({"watre": "#1f77b4"})
    for damaged in ("blue", 3):
        with pytest.raises(UserError, match="expected one like #1f77b4"):
            class_set(("land", "water")).with_colours({"water": damaged})


# ------------------------------------------------------------------------------------------------------------------------ maps


def map_of(tmp_path, make_raster, classes, *flags, size=64, **data):
    """(folder, record, checkpoint) of a noisy scene mapped by a network of random weights."""
    checkpoint = write_checkpoint(tmp_path / "best_model.pt", tiny_model(len(classes)), classes=list(classes), **data)
    scene = make_raster("scene.tif", numbers(size, size), descriptions=BANDS)
    folder = tmp_path / "maps"
    assert run(scene, "--checkpoint", checkpoint, "--output-dir", folder, "--device", "cpu", "--min-area", 0, *flags) == 0
    return folder, json.loads((folder / "summary.json").read_text()), checkpoint


def outlines_of(path):
    return json.loads(path.read_text())["features"]


def test_a_map_of_water_says_water(tmp_path, make_raster, capsys):
    folder, found, _ = map_of(tmp_path, make_raster, ("land", "water"), "--probabilities")
    assert sorted(p.name for p in folder.iterdir() if p.is_file()) == [
        "scene_classes.qml", "scene_classes.tif", "scene_preview.png", "scene_probability.tif", "scene_water.geojson", "summary.csv",
        "summary.json"]
    with rasterio.open(folder / "scene_classes.tif") as dataset:
        wet = dataset.read(1) == 1
        assert dataset.colormap(1)[1][:3] == class_set(("land", "water")).colours[1]
    with rasterio.open(folder / "scene_probability.tif") as dataset:
        assert dataset.descriptions == ("probability of water",)
    record, said = found["scenes"][0], capsys.readouterr().err
    assert record["has_water"] and record["water_fraction"] == wet.mean() and record["water_hectares"] == wet.sum() / 100
    assert 0.5 < record["water_confidence"] <= 1
    assert found["total"]["scenes_with_water"] == 1 and found["total"]["water_hectares"] == wet.sum() / 100
    count = len(outlines_of(folder / "scene_water.geojson"))
    assert f"scene: {100 * wet.mean():.1f} % water, {wet.sum() / 100:.1f} ha, {count} polygon" in said
    (row,) = csv.DictReader((folder / "summary.csv").read_text().splitlines())
    assert float(row["water_hectares"]) == wet.sum() / 100 and row["has_water"] == "True"
    words = said + (folder / "summary.json").read_text() + (folder / "summary.csv").read_text()
    assert "fire" not in words and "burn" not in words
    shown = np.asarray(Image.open(folder / "scene_preview.png").convert("RGB")).astype(int)[:, -512:]  # the map
    assert (shown[..., 2] > 150).any() and not (shown[..., 0] - shown[..., 2] > 60).any()  # blue, and no orange


def test_a_dry_scene_has_no_water(tmp_path, make_raster, capsys):
    folder, found, _ = map_of(tmp_path, make_raster, ("land", "water"), "--threshold", 1)
    assert not found["scenes"][0]["has_water"]
    assert "scene: no water; highest probability" in capsys.readouterr().err


def test_a_map_of_land_cover_has_every_class_the_first_included(tmp_path, make_raster, capsys):
    """Classes, outlines and mean probabilities against the network's own probabilities; the threshold of older runs is not used."""
    folder, found, checkpoint = map_of(tmp_path, make_raster, COVER, "--probabilities", "float32", threshold=0.97)
    said = capsys.readouterr().err
    checkpoint = load_checkpoint(checkpoint, "segmentation")
    with rasterio.open(tmp_path / "scene.tif") as dataset:
        _, probabilities = predict_array(model_from_checkpoint(checkpoint), dataset.read(), divide_by=10_000, window=32, device="cpu")
    likeliest, highest = probabilities.argmax(axis=0), probabilities.max(axis=0)
    with rasterio.open(folder / "scene_classes.tif") as dataset:
        classes = dataset.read(1)
        assert [dataset.colormap(1)[i][:3] for i in range(5)] == list(class_set(COVER).colours)
    assert np.array_equal(classes, likeliest) and len(np.unique(classes)) > 2 and (classes == 0).any()
    with rasterio.open(folder / "scene_probability.tif") as dataset:
        assert np.abs(dataset.read(1) - highest).max() < 1e-5 and dataset.descriptions == ("probability of the mapped class",)

    record = found["scenes"][0]
    assert {name: numbers["pixels"] for name, numbers in record["classes"].items()} == {
        name: int((classes == i).sum()) for i, name in enumerate(COVER)}
    assert all(numbers["fraction"] == numbers["pixels"] / classes.size for numbers in record["classes"].values())
    assert found["total"]["hectares"] == {name: (classes == i).sum() / 100 for i, name in enumerate(COVER)}
    assert not {"has_fire", "burned_hectares", "fire_fraction"} & record.keys() and "fire" not in said and "burned" not in said
    largest = np.bincount(classes.ravel()).argmax()
    assert f"scene: {COVER[largest]} {100 * (classes == largest).mean():.1f} % ({(classes == largest).sum() / 100:.1f} ha), " in said

    features = outlines_of(folder / "scene_outlines.geojson")
    assert {f["properties"]["name"] for f in features} == {COVER[i] for i in np.unique(classes)}
    assert sum(f["properties"]["area_ha"] for f in features) == pytest.approx(classes.size / 100, abs=1e-3 * len(features))
    for value in np.unique(classes):
        own = [f["properties"] for f in features if f["properties"]["class"] == value]
        assert {p["name"] for p in own} == {COVER[value]}
        mean = sum(p["area_ha"] * p["mean_probability"] for p in own) / sum(p["area_ha"] for p in own)
        assert mean == pytest.approx(highest[classes == value].mean(), abs=0.005)


@settings(max_examples=40, deadline=None)
@given(height=st.integers(1, 60), width=st.integers(1, 40), strip=st.integers(1, 60), first=st.integers(0, 1), seed=st.integers(0, 99))
def test_outlines_of_a_map_of_any_size_hold_each_class_from_the_first_on(height, width, strip, first, seed):
    """Counted class by class; the highest class that there may be is among them."""
    rng = np.random.default_rng(seed)
    classes = rng.choice(np.array([0, 1, 2, 253, 255], np.uint8), (height, width))
    found = []
    file = types.SimpleNamespace(straight=None, parts=lambda row, count: None, add=found.extend)
    areas = types.SimpleNamespace(of_rows=lambda start, stop: np.ones((stop - start, 1)))
    outlines = Outlines(file, width, 0.0, areas, first)
    for row in range(0, height, strip):
        outlines.add_piece(row, classes[row : row + strip], np.full(classes[row : row + strip].shape, 127, np.uint8))
    outlines.finish()
    counted = {value: sum(area.pixels for area in found if area.value == value) for value in {area.value for area in found}}
    assert counted == {value: n for value, n in zip(*np.unique(classes, return_counts=True), strict=True) if first <= value < 255}
    assert all(area.mean == pytest.approx(0.5) for area in found)


def test_outlines_of_land_cover_in_a_geopackage_are_those_of_the_map(tmp_path, make_raster):
    folder, _, _ = map_of(tmp_path, make_raster, COVER, "--vectors", "gpkg")
    with rasterio.open(folder / "scene_classes.tif") as dataset:
        classes, place = dataset.read(1), dataset.transform
    meta, _, shapes, columns = pyogrio.raw.read(folder / "scene_outlines.gpkg")
    values = dict(zip(meta["fields"], columns, strict=True))
    painted = rasterize(zip(shapely.from_wkb(shapes), values["class"] + 1, strict=True), out_shape=classes.shape, transform=place)
    assert np.array_equal(painted, classes + 1)  # every pixel is in the outline of its class


def test_several_classes_without_background_take_no_threshold(tmp_path, make_raster):
    with pytest.raises(UserError, match="--threshold tells one class from the rest, but the checkpoint maps water, forest"):
        map_of(tmp_path, make_raster, COVER, "--threshold", 0.5)
    folder, found, _ = map_of(tmp_path, make_raster, ("background", "road", "house"), "--threshold", 0.5)
    features = outlines_of(folder / "scene_outlines.geojson")
    assert {f["properties"]["class"] for f in features} <= {1, 2}


def test_colours_that_are_given_are_in_the_map_and_other_ones_are_another_map(tmp_path, make_raster):
    flags = ("--class-colours", "water=#1f77b4")
    folder, _, checkpoint = map_of(tmp_path, make_raster, ("land", "water"), *flags)
    with rasterio.open(folder / "scene_classes.tif") as dataset:
        assert dataset.colormap(1)[1][:3] == (31, 119, 180)
    words = (tmp_path / "scene.tif", "--checkpoint", checkpoint, "--output-dir", folder, "--device", "cpu", "--min-area", 0)
    assert run(*words, *flags) == 0  # mapped already
    with pytest.raises(UserError, match=r"made with other settings \(.*class_colours"):
        run(*words)
    with pytest.raises(UserError, match="there is no class 'sea'"):
        run(*words, "--class-colours", "sea=#1f77b4", "--overwrite")


def test_colours_of_the_training_are_those_of_the_map(tmp_path, make_raster):
    trained = {"water": "#000080", "snow": "#111111"}
    folder, _, _ = map_of(tmp_path, make_raster, COVER, "--class-colours", "snow=#aabbcc", class_colours=trained)
    with rasterio.open(folder / "scene_classes.tif") as dataset:
        assert dataset.colormap(1)[0][:3] == (0, 0, 128) and dataset.colormap(1)[4][:3] == (0xAA, 0xBB, 0xCC)


def test_a_map_of_water_from_before_is_replaced_with_what_it_called_burned(tmp_path, make_raster):
    folder, found, checkpoint = map_of(tmp_path, make_raster, ("land", "water"))
    record = json.loads((folder / ".chipmill" / "scene.json").read_text())
    for now, then in (("has_water", "has_fire"), ("water_confidence", "fire_confidence"), ("water_fraction", "fire_fraction"),
                      ("water_hectares", "burned_hectares")):
        record[then] = record.pop(now)
    record["files"] = [name.replace("_water.", "_burned.") for name in record["files"]]
    (folder / "scene_water.geojson").rename(folder / "scene_burned.geojson")
    (folder / ".chipmill" / "scene.json").write_text(json.dumps(record))
    assert read_record(folder / ".chipmill" / "scene.json")["water_hectares"] == found["scenes"][0]["water_hectares"]
    words = (tmp_path / "scene.tif", "--checkpoint", checkpoint, "--output-dir", folder, "--device", "cpu", "--min-area", 0)
    with pytest.raises(UserError, match="pass --overwrite"):
        run(*words)
    assert run(*words, "--overwrite") == 0
    assert (folder / "scene_water.geojson").exists() and not (folder / "scene_burned.geojson").exists()


def test_maps_of_different_classes_in_one_folder_are_added_up_under_their_own_names(tmp_path):
    common = {"valid_fraction": 1.0, "valid_hectares": 10.0, "polygons": 1, "unreadable_blocks": 0}
    fire = {"scene": "a", **common, "has_fire": True, "fire_confidence": 0.9, "fire_fraction": 0.4, "burned_hectares": 4.0,
            "classes": {"background": {"pixels": 6, "hectares": 6.0}, "fire": {"pixels": 4, "hectares": 4.0}}}
    water = {"scene": "b", **common, "has_water": True, "water_confidence": 0.8, "water_fraction": 0.3, "water_hectares": 3.0,
             "classes": {"land": {"pixels": 7, "hectares": 7.0}, "water": {"pixels": 3, "hectares": 3.0}}}
    write_summaries(tmp_path, [fire, water])
    assert json.loads((tmp_path / "summary.json").read_text())["total"] == {
        "scenes": 2, "scenes_with_fire": 1, "scenes_with_water": 1, "scenes_without_known_area": 0, "burned_hectares": 4.0,
        "water_hectares": 3.0, "valid_hectares": 20.0}
    rows = list(csv.DictReader((tmp_path / "summary.csv").read_text().splitlines()))
    assert [(row["burned_hectares"], row["water_hectares"], row["hectares_land"]) for row in rows] == [("4.0", "", ""), ("", "3.0", "7.0")]


# -------------------------------------------------------------------------------------------------------------------- pictures


def test_a_preview_of_several_classes_has_a_legend_in_the_colours_of_the_map():
    classes = np.repeat(np.arange(5, dtype=np.uint8), 8)[:, None] * np.ones((1, 40), np.uint8)
    picture = preview(np.full((3, 40, 40), 0.1, np.float32), classes, ["B02", "B03", "B04"], class_set(COVER), 200)
    assert picture.shape == (200, 2 * 200 + 6, 3)
    sheet = Heading("a", "2022-02-05", 10.0).over(picture, legend_of(classes, class_set(COVER)), 200, 0.2)
    assert (sheet[-200:-30] == picture[:-30]).all()  # below it nothing but the scale bar
    for colour in class_set(COVER).colours:
        assert (sheet[:-200] == colour).all(axis=2).sum() >= 100  # the swatch
        assert (np.abs(picture.astype(int) - colour).max(axis=2) < 40).any()  # and the map, nearly
    assert [words for _, words in legend_of(classes, class_set(("land", "water")))] == ["water"]


def test_of_many_classes_the_legend_names_those_that_occur():
    names = tuple(f"class_{i}" for i in range(60))
    classes = np.zeros((40, 40), np.uint8)
    classes[:20], classes[30:] = 7, 59
    assert [words for _, words in legend_of(classes, class_set(names))] == ["class_7", "class_59"]


def test_samples_of_land_cover_tell_right_from_wrong_class_and_name_the_classes():
    truth, prediction = np.array([[0, 1, 2, 255]], np.uint8), np.array([[0, 2, 2, 1]], np.uint8)
    picture = error_picture(truth, prediction, class_set=class_set(COVER))
    assert [tuple(c) == MISSED for c in picture[0].tolist()] == [False, True, False, False]
    assert [words for _, words in error_legend(class_set(COVER))] == [*COVER, "wrong class", "not judged"]
    roads = class_set(("background", "road", "house"))
    assert [tuple(c) for c in error_picture(truth, prediction, class_set=roads)[0, 1:3].tolist()] == [MISSED, FOUND]
    assert [words for _, words in error_legend(roads)] == ["road", "house", "right", "wrong class", "not judged"]
    assert [words for _, words in error_legend(class_set(CLASS_NAMES[5]))][:4] == list(CLASS_NAMES[5][1:])
    sheet = sample_sheet(np.full((1, 3, 8, 8), 0.1, np.float32), np.zeros((1, 8, 8), np.uint8), np.zeros((1, 8, 8), np.uint8),
                         ("B02", "B03", "B04"), class_set(COVER), ["one"])
    water = class_set(COVER).colours[0]
    assert (np.abs(sheet[80:270, 240:460].astype(int) - water).max(axis=2) < 60).any()  # class 0 is drawn too


def test_the_gallery_judges_several_classes_by_their_mean_iou():
    truth, prediction = np.array([[0, 0, 1, 1, 255]], np.uint8), np.array([[0, 1, 1, 1, 0]], np.uint8)
    score, wrong = gallery.overlap(truth, prediction, class_set(COVER))
    assert score == pytest.approx((1 / 2 + 2 / 3) / 2) and wrong == 1
    case = gallery.Case("a", 0.5, 1, [np.zeros((8, 8, 3), np.uint8)] * 5)
    (sheet,) = gallery.draw_sheets({"best": [case]}, class_set(("land", "water")))
    assert "water IoU 0.50" in sheet.alt and "burn" not in sheet.alt and "short-wave infrared" in sheet.alt
    (sheet,) = gallery.draw_sheets({"best": [case]}, class_set(CLASS_NAMES[2]))
    assert "fire IoU 0.50" in sheet.alt and "burn-sensitive" in sheet.alt


# -------------------------------------------------------------------------------------------------------------------- training


WET = ("B03", "B04", "B08", "B11")


def rename(folder, names):
    """A patch set with other classes, whose green is high and whose infrared is low where they are not class 0."""
    path = folder / "chipset.json"
    description = json.loads(path.read_text())
    description["classes"] = {layer: list(names) for layer in description["layers"]}
    path.write_text(json.dumps(description))
    for line in read_lines(folder):
        image, mask = np.load(folder / line["file"]), np.load(folder / line["mask"])[0]
        wet = (mask > 0) & (mask != 255)
        image[0][wet], image[3][wet] = 3000, 500
        np.save(folder / line["file"], image)
    return folder


def train_on(tmp_path, names, *flags):
    folder = write_patch_set(tmp_path / "patches", {"train": 2, "val": 1}, 32, WET, len(names), grid=(1, 1))
    rename(folder, names)
    words = ["--patches-dir", folder, "--output-dir", tmp_path / "run", "--num-classes", len(names), "--architecture", "smallunet",
             "--epochs", 1, "--batch-size", 2, "--num-workers", 0, "--device", "cpu", *flags]
    assert train.main([str(w) for w in words]) == 0
    with open(tmp_path / "run" / "metrics.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    return folder, row, load_checkpoint(tmp_path / "run" / "checkpoints" / "best_model.pt", "segmentation")


def score(tmp_path):
    best = tmp_path / "run" / "checkpoints" / "best_model.pt"
    assert train.main(["--test-only", "--resume", str(best), "--test-split", "val", "--device", "cpu"]) == 0
    return json.loads((tmp_path / "run" / "scores_val.json").read_text())


def test_training_on_water_chooses_scores_and_compares_by_water(tmp_path, capsys):
    folder, row, checkpoint = train_on(tmp_path, ("land", "water"), "--class-colours", "water=#1f77b4", "--indices", "mndwi")
    said = capsys.readouterr()
    assert "val water IoU" in said.err and "best validation water IoU" in said.out and "fire" not in said.out + said.err
    assert {"val_water_iou", "val_water_recall", "val_water_iou_at_threshold", "train_water_iou"} <= row.keys()
    assert not [column for column in row if "fire" in column]
    assert checkpoint["data"]["class_colours"] == {"water": "#1f77b4"} and checkpoint["data"]["threshold"] is not None

    found, printed = score(tmp_path), capsys.readouterr().out
    assert printed.startswith("water IoU") and "mndwi" in printed and "fire" not in json.dumps(found) and "nbr" not in printed
    assert found["mndwi_water_is_above"] is True and list(found["scores"]) == ["network", "network_at_threshold", "mndwi"]
    # The baseline against NumPy: the threshold applied to the stored values.
    hits = wrong = 0
    for line in (line for line in read_lines(folder) if line["split"] == "val"):
        image, mask = np.load(folder / line["file"]).astype(float), np.load(folder / line["mask"])[0]
        wet = (image[0] - image[3]) / (image[0] + image[3]) >= found["mndwi_threshold"]
        hits += (wet & (mask == 1)).sum()
        wrong += (wet != (mask == 1))[mask != 255].sum()
    assert found["scores"]["mndwi"]["pooled"]["water_iou"] == pytest.approx(hits / (hits + wrong))
    with open(tmp_path / "run" / "scores_val.csv", newline="") as file:
        assert {"water_iou_low", "water_iou", "way"} <= set(next(csv.reader(file)))


def test_training_on_land_cover_goes_by_the_mean_iou_and_has_no_threshold(tmp_path, capsys):
    _, row, checkpoint = train_on(tmp_path, COVER)
    said = capsys.readouterr()
    assert "val mean IoU" in said.err and "best validation mean IoU" in said.out
    assert not [column for column in row if "fire" in column or "threshold" in column or "detection" in column]
    assert {"val_mean_iou", "val_iou_crops", "train_mean_iou"} <= row.keys() and checkpoint["data"]["threshold"] is None
    assert checkpoint["state"]["best_score"] == float(row["val_mean_iou"])
    found, printed = score(tmp_path), capsys.readouterr().out
    assert printed.startswith("mean IoU") and list(found["scores"]) == ["network"] and "mean_iou_interval" in found["scores"]["network"]
    assert "fire" not in json.dumps(found) and not [key for key in found if key.endswith("is_above")]


def test_a_run_of_before_that_was_judged_by_the_extent_is_judged_anew_by_the_mean_iou(tmp_path):
    train_on(tmp_path, COVER)
    last = tmp_path / "run" / "checkpoints" / "last.pt"
    for name in ("last.pt", "best_model.pt"):
        old = torch.load(last.with_name(name), weights_only=True)
        old["state"]["best_score"] = 0.999
        old["data"]["scored_on"] = old["data"]["scored_on"].split()[0]
        torch.save(old, last.with_name(name))
    assert train.main(["--resume", str(last), "--epochs", "2", "--device", "cpu", "--quiet"]) == 0
    with open(tmp_path / "run" / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[1]["best"] == "1"
    assert torch.load(last.with_name("best_model.pt"), weights_only=True)["state"]["best_score"] == float(rows[1]["val_mean_iou"])


def test_tensors_of_many_classes_keep_to_the_likeliest():
    probability = torch.tensor([[[0.5, 0.2]], [[0.3, 0.7]], [[0.2, 0.1]]])
    classes, certain = decide_classes(probability, None, each=True)
    assert classes.tolist() == [[0, 1]] and certain.tolist() == [pytest.approx([0.5, 0.7])]
