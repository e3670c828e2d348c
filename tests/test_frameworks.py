"""Frameworks of train_detection.py train a step, and inference.py maps with its checkpoint: boxes, or outlines from masks."""

import json
import shutil

import numpy as np
import pytest
import rasterio
import shapely
from box_factory import example, picture, write_coco
from rasterio.transform import from_origin
from rasterio.warp import transform as move

import inference
import train_detection

PLACE = from_origin(500_000, 4_600_000, 0.1, 0.1)


@pytest.mark.slow
@pytest.mark.parametrize("framework", train_detection.FRAMEWORKS)
def test_a_framework_trains_a_step_and_its_checkpoint_maps(framework, tmp_path):
    boxes = np.array([(20, 30, 44, 50), (70, 60, 96, 90), (100, 10, 124, 40)])
    (tmp_path / "images").mkdir()
    with rasterio.open(tmp_path / "images" / "a.tif", "w", driver="GTiff", width=140, height=110, count=3, dtype="uint8", crs="EPSG:32633",
                       transform=PLACE) as file:
        file.write(picture(140, 110, boxes).transpose(2, 0, 1))
    annotations = write_coco(tmp_path / "boxes.json", {"a.tif": (140, 110, [
        {"category_id": 1, "bbox": [x0, y0, x1 - x0, y1 - y0], "segmentation": [[x0, y0, x1, y0, x1, y1]]}
        for x0, y0, x1, y1 in boxes.tolist()])})
    words = ["--train-images", tmp_path / "images", "--train-annotations", annotations, "--framework", framework, "--encoder", "small",
             "--tile-size", "96x64", "--overlap", 32, "--crop", 64, "--batch-size", 2, "--max-steps", 1, "--proposals", 20,
             "--save-every", 0, "--num-workers", 0, "--output-dir", tmp_path / "output", "--device", "cpu", "--quiet"]
    assert train_detection.main([str(word) for word in words]) == 0
    words = ["--checkpoint", tmp_path / "output", tmp_path / "images", "--output-dir", tmp_path / "found", "--score-threshold", 0,
             "--max-detections", 4, "--device", "cpu", "--quiet"]
    assert inference.main([str(word) for word in words]) == 0
    results = json.loads((tmp_path / "found" / "results.json").read_text())
    features = json.loads((tmp_path / "found" / "a_boxes.geojson").read_text())["features"]
    assert len(results) == len(features)
    assert results or framework == "fcos"  # whose sides are cut off at 0, and may all be 0 after one step
    assert any("segmentation" in result for result in results) == (framework == "mask-rcnn")
    for result, feature in zip(results, features, strict=True):
        x, y, w, h = result["bbox"]
        assert 0 <= x and 0 <= y and x + w <= 140 and y + h <= 110
        ring = np.reshape(result["segmentation"][0] if "segmentation" in result else (x, y, x + w, y, x + w, y + h, x, y + h), (-1, 2))
        place = shapely.Polygon(np.transpose(move("EPSG:32633", "EPSG:4326", *(PLACE * tuple(ring.T)))))
        assert shapely.hausdorff_distance(place, shapely.geometry.shape(feature["geometry"])) < 3e-7


@pytest.mark.slow
def test_a_detector_is_scored_where_its_training_images_are_gone_without_a_baseline(tmp_path):
    images, annotations = example(tmp_path / "train", count=2, size=(140, 100))
    words = ["--train-images", images, "--train-annotations", annotations, "--tile-size", 96, "--overlap", 32, "--max-steps", 1,
             "--save-every", 0, "--num-workers", 0, "--output-dir", tmp_path / "output", "--device", "cpu", "--quiet"]
    assert train_detection.main([str(word) for word in words]) == 0
    shutil.rmtree(tmp_path / "train")
    images, annotations = example(tmp_path / "test", count=1, size=(140, 100), seed=5)
    words = ["--test-only", "--resume", tmp_path / "output", "--test-images", images, "--test-annotations", annotations, "--num-workers", 0,
             "--device", "cpu", "--quiet"]
    assert train_detection.main([str(word) for word in words]) == 0
    assert json.loads((tmp_path / "output" / "scores_test.json").read_text())["baseline"] is None
