"""inference.py with a detector: any image of any size, each object once, on the map and in pixels; resumed runs give the same bytes."""

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rasterio.transform import Affine, from_origin
from rasterio.warp import transform as move
from spot_detector import CLASSES, UTM, SpotConfig, SpotDetector, data, field_of, stand_in, write_image

import inference
from chipping.image_files import ImageReader, read_header
from detection import swaths
from detection.boxes_out import lonlat_geometry
from detection.detections import UNCHOSEN
from mapping import map_files
from runtime.checkpoint import save_checkpoint
from runtime.errors import UserError


@pytest.fixture
def find(tmp_path, monkeypatch):
    """find(*words, detector=…, **data): inference.main with a checkpoint of the stand-in. Returns the exit code."""

    def run(*words, detector=None, **changes):
        stand_in(monkeypatch, detector or SpotDetector())
        path = tmp_path / "checkpoint.pt"
        save_checkpoint(path, {"kind": "detection", "model": {}, "settings": {}, "state": {"model": {}}, "data": data(**changes)})
        return inference.main(["--checkpoint", str(path), "--device", "cpu", *map(str, words)])

    return run


class Stopped(Exception):
    pass


class Stopping(SpotDetector):
    """Raises Stopped in place of the batch after `most`."""

    most = None

    def predict(self, images, *rest):
        if len(self.seen) == self.most:
            raise Stopped
        return super().predict(images, *rest)


def results_of(folder):
    return json.loads((folder / "results.json").read_text())


def counts_of(folder):
    with open(folder / "counts.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def boxes_of(results):
    """(N, 4) x0, y0, x1, y1 and (N,) labels of COCO results, in the order of their places."""
    boxes = np.array([r["bbox"] for r in results], float).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    order = np.lexsort(boxes.T)
    return boxes[order], np.array([r["category_id"] for r in results], int)[order]


def in_order(boxes, labels):
    order = np.lexsort(boxes.T)
    return boxes[order], labels[order]


def assert_found(results, boxes, labels):
    found, kinds = boxes_of(results)
    expected, classes = in_order(boxes, labels)
    np.testing.assert_allclose(found, expected)
    assert kinds.tolist() == classes.tolist()


# -------------------------------------------------------------------------------------------------------------- content


@given(seed=st.integers(0, 2**32 - 1), width=st.integers(30, 330), height=st.integers(30, 330), batch=st.integers(1, 7),
       tile=st.tuples(st.integers(48, 120), st.integers(48, 120)), form=st.sampled_from(["square", "oblong", "as trained"]))
@settings(max_examples=16)
def test_each_object_is_found_once_and_whole_whatever_the_sizes(tmp_path_factory, seed, width, height, batch, tile, form):
    folder = tmp_path_factory.mktemp("any")
    picture, boxes, labels, scores = field_of(np.random.default_rng(seed), width, height)
    image = write_image(folder / "field.png", picture)
    with pytest.MonkeyPatch.context() as patch:
        stand_in(patch, detector := SpotDetector())
        about = data(chip_size=list(tile), overlap=24) if form == "as trained" else data()
        save_checkpoint(folder / "c.pt", {"kind": "detection", "model": {}, "settings": {}, "state": {"model": {}}, "data": about})
        window = f"{tile[0]}x{tile[1]}" if form == "oblong" else tile[0]
        words = ["--checkpoint", folder / "c.pt", image, "--output-dir", folder / "out", "--batch-size", batch, "--quiet"]
        assert inference.main([str(w) for w in words + ["--window", window, "--overlap", 0.5] * (form != "as trained")]) == 0
    assert {shape[-1:-3:-1] for shape in detector.seen} <= {(tile[0],) * 2 if form == "square" else tile}
    results = results_of(folder / "out")
    assert_found(results, boxes, labels)
    found = {tuple(r["bbox"][:2]): r["score"] for r in results}
    assert all(found[tuple(box[:2])] == pytest.approx(score, abs=1e-5) for box, score in zip(boxes, scores, strict=True))


def test_a_folder_of_tiff_jpeg_and_png_gives_results_counts_features_and_pictures(tmp_path, find, capsys):
    rng, fields = np.random.default_rng(1), {}
    folder = tmp_path / "survey"
    folder.mkdir()
    for name, place in (("a.tif", UTM), ("b.png", {}), ("c.jpg", {})):
        fields[name] = field_of(rng, 200, 150)
        write_image(folder / name, fields[name][0], **place)
    assert find(folder, "--output-dir", tmp_path / "out") == 0
    out, results = tmp_path / "out", results_of(tmp_path / "out")
    assert sorted(p.name for p in out.iterdir() if p.name[0] != ".") == [
        "a_boxes.geojson", "a_boxes.png", "b_boxes.png", "c_boxes.png", "counts.csv", "results.json"]
    for number, (name, (_, boxes, labels, _)) in enumerate(fields.items(), start=1):
        own = [r for r in results if r["image_id"] == number]
        assert {r["file_name"] for r in own} == {name}
        if name != "c.jpg":  # JPEG blurs edges
            assert_found(own, boxes, labels)
        else:
            assert len(own) == len(boxes)
    for row, (name, (_, _, labels, _)) in zip(counts_of(out), fields.items(), strict=True):
        assert (row["image"], int(row["objects"]), int(row["cow"]), int(row["sheep"])) == (
            name, len(labels), (labels == 1).sum(), (labels == 2).sum())
        assert (row["tiles"], row["full_tiles"], row["valid_fraction"]) == ("20", "0", "1.0")
    told = capsys.readouterr()
    assert f"{len(results)} detections in 3 of 3 images" in told.out
    assert "no CRS: boxes in pixels only" in told.err


def test_features_lie_where_the_objects_are_in_lonlat_and_in_the_crs_of_the_image(tmp_path, find):
    picture, boxes, labels, scores = field_of(np.random.default_rng(2), 150, 130)
    turned = Affine.translation(500_000, 5_000_000) * Affine.rotation(30) * Affine.scale(0.5, -0.5)
    image = write_image(tmp_path / "field.tif", picture, crs="EPSG:32633", transform=turned)
    assert find(image, "--output-dir", tmp_path / "json") == 0
    assert find(image, "--output-dir", tmp_path / "gpkg", "--vectors", "gpkg") == 0
    features = json.loads((tmp_path / "json" / "field_boxes.geojson").read_text())["features"]
    meta, _, shapes, fields = pyogrio.raw.read(tmp_path / "gpkg" / "field_boxes.gpkg", layer="boxes")
    assert len(features) == len(shapes) == len(boxes) and "32633" in meta["crs"]
    expected = []
    for box in boxes:
        corners = [turned * (box[i], box[j]) for i, j in ((0, 1), (2, 1), (2, 3), (0, 3))]
        expected.append(shapely.Polygon(corners))
    native = shapely.from_wkb(shapes)
    nearest = shapely.STRtree(expected).nearest(shapely.centroid(native))
    assert sorted(nearest) == list(range(len(boxes)))
    np.testing.assert_allclose(shapely.area(shapely.symmetric_difference(native, np.array(expected)[nearest])), 0, atol=1e-6)
    names = dict(zip(meta["fields"], fields, strict=True))
    assert [CLASSES[labels[k] - 1] for k in nearest] == names["name"].tolist() and (names["class"] == labels[nearest]).all()
    np.testing.assert_allclose(names["score"], scores[nearest], atol=1e-4)
    for feature, polygon in zip(features, native, strict=True):  # the same order
        lon, lat = move("EPSG:32633", "EPSG:4326", *shapely.get_coordinates(polygon).T)
        ring = shapely.Polygon(feature["geometry"]["coordinates"][0])
        assert ring.exterior.is_ccw
        assert shapely.hausdorff_distance(ring, shapely.Polygon(zip(lon, lat, strict=True))) < 2e-7


def test_masks_become_outlines_on_the_map_and_in_the_results(tmp_path, find):
    picture, boxes, labels, _ = field_of(np.random.default_rng(3), 120, 100)
    image = write_image(tmp_path / "field.tif", picture, **UTM)
    assert find(image, "--output-dir", tmp_path / "out", detector=SpotDetector(masks=True)) == 0
    results = results_of(tmp_path / "out")
    assert_found(results, boxes, labels)
    for result in results:
        x, y, w, h = result["bbox"]
        ring = np.array(result["segmentation"][0]).reshape(-1, 2)
        assert shapely.equals(shapely.Polygon(ring), shapely.box(x, y, x + w, y + h))


@pytest.mark.parametrize("west", [179.9999, -180.0001])
def test_a_box_across_the_antimeridian_is_a_polygon_on_either_side(west):
    east = west + 0.0002
    ring = np.array([(west, 10.0), (east, 10.0), (east, 10.0001), (west, 10.0001)])
    geometry = lonlat_geometry(np.stack([(ring[:, 0] + 180) % 360 - 180, ring[:, 1]], axis=1))
    assert geometry["type"] == "MultiPolygon"
    parts = [shapely.Polygon(rings[0]) for rings in geometry["coordinates"]]
    assert sorted(part.bounds for part in parts) == [
        pytest.approx((-180.0, 10.0, -179.9999, 10.0001)), pytest.approx((179.9999, 10.0, 180.0, 10.0001))]
    assert sum(part.area for part in parts) == pytest.approx(0.0002 * 0.0001, rel=1e-3)


def test_an_image_across_the_antimeridian_is_written(tmp_path, find):
    picture, boxes, _, _ = field_of(np.random.default_rng(4), 120, 60)
    image = write_image(tmp_path / "field.tif", picture, crs="EPSG:32601", transform=from_origin(165_940, 10, 1, 1))
    assert find(image, "--output-dir", tmp_path / "out") == 0
    features = json.loads((tmp_path / "out" / "field_boxes.geojson").read_text())["features"]
    area = sum(shapely.area(shapely.geometry.shape(f["geometry"])) for f in features)
    assert len(features) == len(boxes)
    assert area == pytest.approx(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1).sum() / 111_000**2, rel=0.02)


def test_a_wide_image_in_pieces_of_its_width_gives_the_bytes_of_the_whole_also_stopped_and_with_damaged_blocks(tmp_path, find, monkeypatch):
    picture = field_of(np.random.default_rng(20), 330, 170)[0]
    picture[:, 60:100, 120:260] = 0
    image = write_image(tmp_path / "field.tif", picture, **UTM, compress="deflate")
    with rasterio.open(image) as dataset:  # where the block at row 64, column 96 lies in the file
        offset = int(dataset.get_tag_item("BLOCK_OFFSET_3_2", "TIFF", bidx=1))
    with open(image, "r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * 12)
    words = (image, "--batch-size", 2, "--quiet")
    assert find(*words, "--output-dir", tmp_path / "whole") == 0
    monkeypatch.setattr(swaths, "WIDE", 100)
    monkeypatch.setattr(swaths, "PIECE", 110)
    detector = SpotDetector()
    assert find(*words, "--output-dir", tmp_path / "pieces", detector=detector) == 0
    assert contents(tmp_path / "pieces") == contents(tmp_path / "whole")
    assert json.loads((tmp_path / "whole" / ".chipmill" / "detections" / "field.json").read_text())["unreadable_blocks"] == 1

    stopped = Stopping()
    stopped.most = 8
    with pytest.raises(Stopped):
        find(*words, "--output-dir", tmp_path / "parts", detector=stopped)
    assert find(*words, "--output-dir", tmp_path / "parts") == 0
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


# --------------------------------------------------------------------------------------------------- what is not ground


def test_nodata_is_black_to_the_detector_tiles_without_data_are_left_out_and_boxes_centred_in_it_are_none(tmp_path, find):
    picture, boxes, labels, _ = field_of(np.random.default_rng(5), 300, 64)
    picture[:, :, 100:] = 0
    image, detector = write_image(tmp_path / "field.tif", picture), SpotDetector()
    assert find(image, "--output-dir", tmp_path / "out", detector=detector) == 0
    inside = boxes[:, 2] <= 100
    found = [r for r in results_of(tmp_path / "out") if r["bbox"][0] + r["bbox"][2] < 100]
    assert_found(found, boxes[inside & (boxes[:, 2] < 100)], labels[inside & (boxes[:, 2] < 100)])
    assert sum(shape[0] for shape in detector.seen) == 3  # those at 0, 40 and 80 of eight
    assert counts_of(tmp_path / "out")[0]["valid_fraction"] == str(round(100 / 300, 6))


def test_an_area_of_interest_keeps_the_boxes_whose_centre_is_inside(tmp_path, find):
    picture, boxes, labels, _ = field_of(np.random.default_rng(6), 150, 120)
    image = write_image(tmp_path / "field.tif", picture, **UTM)
    corners = [UTM["transform"] * corner for corner in ((30, 20), (110, 20), (110, 90), (30, 90), (30, 20))]
    lon, lat = move("EPSG:32633", "EPSG:4326", *zip(*corners, strict=True))
    area = {"type": "Polygon", "coordinates": [[list(point) for point in zip(lon, lat, strict=True)]]}
    (tmp_path / "area.geojson").write_text(json.dumps({"type": "Feature", "properties": {}, "geometry": area}))
    assert find(image, "--aoi", tmp_path / "area.geojson", "--output-dir", tmp_path / "out") == 0
    centre = np.floor((boxes[:, :2] + boxes[:, 2:]) / 2) + 0.5
    inside = ((centre > (30, 20)) & (centre < (110, 90))).all(axis=1)
    assert_found(results_of(tmp_path / "out"), boxes[inside], labels[inside])


def test_an_image_smaller_than_a_tile_is_padded(tmp_path, find):
    picture, boxes, labels, _ = field_of(np.random.default_rng(7), 40, 30)
    detector = SpotDetector()
    assert find(write_image(tmp_path / "field.png", picture), "--output-dir", tmp_path / "out", detector=detector) == 0
    assert detector.seen == [(1, 3, 64, 64)]
    assert_found(results_of(tmp_path / "out"), boxes, labels)


def test_sixteen_bits_and_a_scale_of_the_command_line(tmp_path, find):
    picture, boxes, labels, _ = field_of(np.random.default_rng(8), 100, 90)
    image = write_image(tmp_path / "field.tif", picture.astype(np.uint16) * 200)
    assert find(image, "--divide-by", 255 * 200, "--output-dir", tmp_path / "out") == 0
    assert_found(results_of(tmp_path / "out"), boxes, labels)


def test_a_palette_is_its_colours_as_in_training_tiles(tmp_path, find):
    rng = np.random.default_rng(23)
    indices, colours = np.zeros((90, 110), np.uint8), rng.integers(1, 120, (256, 3)).astype(np.uint8)
    for number, place in enumerate(((10, 12), (40, 50), (70, 90)), start=1):
        indices[place[0] : place[0] + 9, place[1] : place[1] + 14] = number
        colours[number] = 180 + 10 * number, 200, 50
    picture = Image.fromarray(indices)
    picture.putpalette(colours.tobytes())
    (tmp_path / "p").mkdir()
    picture.save(tmp_path / "p" / "field.png")
    assert find(tmp_path / "p" / "field.png", "--output-dir", tmp_path / "palette") == 0
    assert_found(results_of(tmp_path / "palette"), np.array([[12, 10, 26, 19], [50, 40, 64, 49], [90, 70, 104, 79]]), np.ones(3, int))
    picture.convert("RGB").save(tmp_path / "field.png")
    assert find(tmp_path / "field.png", "--output-dir", tmp_path / "rgb") == 0
    for name in ("results.json", "counts.csv", "field_boxes.png"):
        assert (tmp_path / "palette" / name).read_bytes() == (tmp_path / "rgb" / name).read_bytes()
    header = read_header(tmp_path / "p" / "field.png")
    with ImageReader(tmp_path / "p" / "field.png", header) as reader:
        np.testing.assert_array_equal(reader.read(0, 0, 110, 90), colours[indices].transpose(2, 0, 1))


def test_an_image_without_objects_has_empty_files(tmp_path, find):
    image = write_image(tmp_path / "field.tif", np.full((3, 70, 90), 40, np.uint8), **UTM)
    assert find(image, "--output-dir", tmp_path / "out") == 0
    assert results_of(tmp_path / "out") == []
    assert json.loads((tmp_path / "out" / "field_boxes.geojson").read_text())["features"] == []
    assert find(image, "--output-dir", tmp_path / "gpkg", "--vectors", "gpkg") == 0
    assert len(pyogrio.raw.read(tmp_path / "gpkg" / "field_boxes.gpkg", layer="boxes")[2]) == 0


# ------------------------------------------------------------------------------------------------------------- settings


def test_tiles_that_reach_the_limit_of_detections_are_counted_and_told(tmp_path, find, capsys):
    picture, boxes, _, _ = field_of(np.random.default_rng(9), 64, 64)
    image = write_image(tmp_path / "field.png", picture)
    assert find(image, "--output-dir", tmp_path / "out", "--max-detections", 2) == 0
    told = capsys.readouterr()
    assert "1 of 1 tile reached the limit of 2 detections" in told.err and "with tiles at the limit of detections: field" in told.out
    assert len(results_of(tmp_path / "out")) == 2 and counts_of(tmp_path / "out")[0]["full_tiles"] == "1"


def test_the_score_threshold_is_that_of_the_checkpoint_unless_given(tmp_path, find):
    picture, _, _, scores = field_of(np.random.default_rng(10), 150, 120)
    image = write_image(tmp_path / "field.png", picture)
    cases = [(0.8, [], {"threshold": 0.8}), (0.9, ["--score-threshold", 0.9], {"threshold": 0.8}),
             (0.7, [], {"threshold": None, "stated_threshold": 0.7}), (UNCHOSEN, [], {"threshold": None})]
    for least, words, said in cases:
        assert find(image, "--output-dir", tmp_path / str(least), *words, **said) == 0
        assert len(results_of(tmp_path / str(least))) == (scores >= least).sum() > 0


def test_flips_and_turns_are_those_of_the_validation_unless_asked_for_otherwise(tmp_path, find, capsys):
    image = write_image(tmp_path / "field.png", field_of(np.random.default_rng(10), 150, 120)[0])
    without, with_tta = "was chosen without --tta, and may not", "was chosen with --tta, and may not"
    cases = [([], {}, 1, None), (["--tta"], {}, 8, without), ([], {"tta": True}, 8, None), (["--tta"], {"tta": True}, 8, None),
             (["--no-tta"], {"tta": True}, 1, with_tta), (["--no-tta", "--score-threshold", 0.5], {"tta": True}, 1, None),
             (["--tta"], {"threshold": None, "stated_threshold": 0.6}, 8, None)]
    for number, (words, said, views, warned) in enumerate(cases):
        detector = SpotDetector()
        assert find(image, "--output-dir", tmp_path / str(number), *words, detector=detector, **{"threshold": 0.4, **said}) == 0
        told = capsys.readouterr().err
        assert detector.views == views and (warned in told if warned else "--tta" not in told)
        assert ("eight flips and turns of each tile" in told) == (views == 8 and not words)  # what it was not asked for is said


def test_a_finished_image_is_looked_at_again_with_flips_and_turns(tmp_path, find):
    image = write_image(tmp_path / "field.png", field_of(np.random.default_rng(10), 150, 120)[0])
    assert find(image, "--output-dir", tmp_path / "out") == 0
    with pytest.raises(UserError, match="tta.*--overwrite"):
        find(image, "--output-dir", tmp_path / "out", "--tta")


def test_flips_and_turns_of_other_detectors_are_refused_and_not_taken_from_their_checkpoints(tmp_path, find):
    image = write_image(tmp_path / "field.png", field_of(np.random.default_rng(10), 150, 120)[0])
    other = SpotDetector(config=SpotConfig(framework="fcos"))
    with pytest.raises(UserError, match="--tta is for checkpoints of --framework centre"):
        find(image, "--output-dir", tmp_path / "out", "--tta", detector=other)
    assert find(image, "--output-dir", tmp_path / "out", detector=other, tta=True) == 0 and other.views == 1


def test_flags_of_other_kinds_are_refused(tmp_path, find):
    for words in (["--probabilities"], ["--min-area", "1"], ["--threshold", "0.5"], ["--rgb"]):
        with pytest.raises(UserError, match="not for detectors|for sharpening"):
            find(tmp_path / "x.tif", *words)
    with pytest.raises(UserError, match="only the windows of detectors may be oblong"):
        inference.main(["--method", "gsa", "--window", "64x48", "--pan", "a.tif", "--ms", "b.tif"])


def test_images_that_would_become_one_file_are_refused(tmp_path, find):
    picture = field_of(np.random.default_rng(0), 64, 64)[0]
    for name in ("a.png", "a.tif"):
        write_image(tmp_path / name, picture)
    with pytest.raises(UserError, match="would both become a_boxes.png"):
        find(tmp_path, "--output-dir", tmp_path / "out")


def test_a_damaged_image_among_good_ones_is_left_out_and_named(tmp_path, find, capsys):
    picture, boxes, labels, _ = field_of(np.random.default_rng(11), 90, 80)
    write_image(tmp_path / "good.png", picture)
    (tmp_path / "bad.png").write_bytes((tmp_path / "good.png").read_bytes()[:60])
    assert find(tmp_path, "--output-dir", tmp_path / "out") == 1
    assert "failed: bad" in capsys.readouterr().out
    assert_found(results_of(tmp_path / "out"), boxes, labels)


def test_a_turn_that_the_exif_tag_asks_for_is_told_and_not_made(tmp_path, find, capsys):
    picture, boxes, labels, _ = field_of(np.random.default_rng(12), 90, 80)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture.transpose(1, 2, 0)).save(tmp_path / "turned.jpg", quality=100, subsampling=0, exif=exif)
    assert find(tmp_path / "turned.jpg", "--output-dir", tmp_path / "out") == 0
    assert "boxes are in pixels as stored" in capsys.readouterr().err
    assert counts_of(tmp_path / "out")[0]["width"] == "90" and len(results_of(tmp_path / "out")) == len(boxes)


def test_a_dry_run_tells_the_tiles_and_writes_nothing(tmp_path, find, capsys):
    image = write_image(tmp_path / "field.png", field_of(np.random.default_rng(0), 200, 150)[0])
    assert find(image, "--dry-run", "--output-dir", tmp_path / "out") == 0
    assert "20 tiles of 64" in capsys.readouterr().out and not (tmp_path / "out").exists()


def test_the_picture_has_boxes_in_class_colours_a_title_and_a_bar_of_the_right_length(tmp_path, find):
    picture, boxes, labels, _ = field_of(np.random.default_rng(13), 900, 700)
    assert find(write_image(tmp_path / "field.tif", picture, **UTM), "--output-dir", tmp_path / "out") == 0
    shown = np.asarray(Image.open(tmp_path / "out" / "field_boxes.png"))
    head = shown.shape[0] - 700
    assert shown.shape[1] == 900 and head > 0
    x0, y0, x1, _ = boxes[0].astype(int)
    edge = shown[head + y0, x0 + 1 : x1 - 1]
    assert (edge == edge[0]).all() and (edge[0] != picture[:, y0, x0 + 1]).any()
    np.testing.assert_array_equal(shown[head + y0 + 2, x0 + 2], picture[:, y0 + 2, x0 + 2])  # 8 bit is shown as it is
    bar = (shown[-10] == (250, 250, 248)).all(axis=1)
    assert bar.sum() == 200  # 100 m of pixels of half a metre; a third of 450 m at most


def test_classes_have_the_colours_that_are_given_in_outlines_and_legend_and_a_finished_image_is_not_recoloured(tmp_path, find):
    picture, boxes, labels, _ = field_of(np.random.default_rng(24), 900, 700)
    image = write_image(tmp_path / "field.tif", picture, **UTM)
    assert find(image, "--output-dir", tmp_path / "out", "--class-colours", "sheep=#0a141e") == 0
    shown = np.asarray(Image.open(tmp_path / "out" / "field_boxes.png"))
    head = shown.shape[0] - 700
    above = boxes[:, 3] < 640  # of the scale bar
    for box, label in zip(boxes[above].astype(int), labels[above], strict=True):
        assert (tuple(shown[head + box[1], box[0]]) == (10, 20, 30)) == (label == 2)
    assert (shown[:head] == (10, 20, 30)).all(axis=2).sum() > 50, "the legend has it too"
    with pytest.raises(UserError, match="no class 'shep'.*Did you mean 'sheep'"):
        find(image, "--output-dir", tmp_path / "out", "--class-colours", "shep=#0a141e")
    with pytest.raises(UserError, match="other settings"):
        find(image, "--output-dir", tmp_path / "out")


# --------------------------------------------------------------------------------------------------------------- resume


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file() and p.suffix != ".lock"}


@pytest.mark.parametrize("vectors", ["geojson", "gpkg"])
def test_stopped_after_any_batch_a_run_continues_to_the_same_bytes(tmp_path, find, vectors):
    picture = field_of(np.random.default_rng(14), 100, 200)[0]
    picture[:, 100:140] = 0
    image = write_image(tmp_path / "field.tif", picture, **UTM)
    words = (image, "--vectors", vectors, "--batch-size", 2, "--quiet")
    whole = SpotDetector(masks=True)
    assert find(*words, "--output-dir", tmp_path / "whole", detector=whole) == 0

    for most in range(len(whole.seen)):
        detector = Stopping(masks=True)
        detector.most = most
        with pytest.raises(Stopped):
            find(*words, "--output-dir", tmp_path / "parts", detector=detector)
        detector.most, detector.seen = None, []
        assert find(*words, "--output-dir", tmp_path / "parts", detector=detector) == 0
        assert most < 4 or len(detector.seen) < len(whole.seen), "finished rows of tiles are not looked at again"
        assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
        for path in sorted((tmp_path / "parts").rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()


def test_stopped_while_files_are_written_a_run_continues_without_the_detector(tmp_path, find, monkeypatch):
    image = write_image(tmp_path / "field.tif", field_of(np.random.default_rng(15), 130, 200)[0], **UTM)
    assert find(image, "--output-dir", tmp_path / "whole", "--quiet") == 0
    with monkeypatch.context() as patch:
        patch.setattr(map_files, "write_json", lambda *rest: (_ for _ in ()).throw(Stopped))
        with pytest.raises(Stopped):
            find(image, "--output-dir", tmp_path / "parts", "--quiet")
    assert (tmp_path / "parts" / "field_boxes.geojson").exists()
    detector = SpotDetector()
    assert find(image, "--output-dir", tmp_path / "parts", "--quiet", detector=detector) == 0
    assert not detector.seen and contents(tmp_path / "parts") == contents(tmp_path / "whole")


@pytest.mark.slow
def test_killed_at_any_moment_a_run_over_several_images_continues_to_the_same_bytes(tmp_path):
    rng = np.random.default_rng(21)
    save_checkpoint(tmp_path / "c.pt", {"kind": "detection", "model": {}, "settings": {}, "state": {"model": {}}, "data": data()})
    folder = tmp_path / "images"
    folder.mkdir()
    write_image(folder / "a.tif", field_of(rng, 140, 330)[0], **UTM)
    write_image(folder / "b.jpg", field_of(rng, 90, 250)[0])
    here = Path(__file__).resolve().parent
    environment = {**os.environ, "PYTHONPATH": f"{here.parent}{os.pathsep}{here}"}

    def start(seconds, out):
        words = [sys.executable, here / "spot_detector.py", seconds, "--checkpoint", tmp_path / "c.pt", folder, "--output-dir", out,
                 "--quiet", "--batch-size", 2]
        return subprocess.Popen([str(w) for w in words], cwd=here.parent, env=environment, stdout=subprocess.DEVNULL)

    assert start(0, tmp_path / "whole").wait() == 0
    journal = tmp_path / "parts" / ".chipmill" / "detections" / "a" / "journal.jsonl"
    for rows in (1, 3, 5):
        process = start(0.25, tmp_path / "parts")
        while process.poll() is None and (not journal.exists() or journal.read_bytes().count(b"\n") <= rows):
            time.sleep(0.02)
        process.kill()
        assert process.wait() == -9
    assert start(0, tmp_path / "parts").wait() == 0
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_a_finished_image_is_skipped_and_new_ones_join_the_tables(tmp_path, find, capsys):
    rng = np.random.default_rng(16)
    for name in ("b.png", "a.png"):
        write_image(tmp_path / name, field_of(rng, 80, 70)[0])
    assert find(tmp_path / "b.png", "--output-dir", tmp_path / "out") == 0
    detector = SpotDetector()
    assert find(tmp_path, "--output-dir", tmp_path / "out", detector=detector) == 0
    assert sum(shape[0] for shape in detector.seen) == 4 and "b is finished already" in capsys.readouterr().err
    assert [row["image"] for row in counts_of(tmp_path / "out")] == ["a.png", "b.png"]
    assert {r["image_id"]: r["file_name"] for r in results_of(tmp_path / "out")} == {1: "a.png", 2: "b.png"}


def test_other_settings_are_refused_without_overwrite(tmp_path, find):
    image = write_image(tmp_path / "field.tif", field_of(np.random.default_rng(17), 80, 70)[0], **UTM)
    out = tmp_path / "out"
    assert find(image, "--output-dir", out) == 0
    for words in (["--iou-threshold", 0.3], ["--window", 48], ["--score-threshold", 0.7]):
        with pytest.raises(UserError, match="made with other settings"):
            find(image, "--output-dir", out, *words)
    assert find(image, "--output-dir", out, "--vectors", "gpkg", "--overwrite") == 0
    assert not (out / "field_boxes.geojson").exists() and (out / "field_boxes.gpkg").exists()


def test_a_file_that_something_else_made_is_not_replaced(tmp_path, find):
    image = write_image(tmp_path / "field.png", field_of(np.random.default_rng(18), 80, 70)[0])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "field_boxes.png").write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        find(image, "--output-dir", tmp_path / "out")


def test_the_detector_runs_without_gradients_and_in_eval_mode(tmp_path, find):
    class Checked(SpotDetector):
        def predict(self, images, *rest):
            assert not self.training and not torch.is_grad_enabled() and images.dtype == torch.float32
            return super().predict(images, *rest)

    image = write_image(tmp_path / "field.png", field_of(np.random.default_rng(19), 80, 70)[0])
    assert find(image, "--output-dir", tmp_path / "out", detector=Checked()) == 0
