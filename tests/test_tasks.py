"""train.py and inference.py with each task, from patches to a map. Run: pytest tests/test_tasks.py"""

import csv
import json
import shutil

import numpy as np
import pytest
import rasterio
import torch
from patch_factory import of_labels, of_values, write_patch_set
from PIL import Image
from product_factory import make_safe

import inference
import train
from chipping.patch_set import read_patch_set
from constants import CEMS_BANDS
from mapping import label_scene, scene
from model import model_from_checkpoint
from nets import model_config
from runtime.checkpoint import load_checkpoint
from runtime.errors import UserError
from runtime.values import weighted_names

TASKS = ("regression", "classification", "multilabel")
SCORE = {"regression": "val_rmse", "classification": "val_mean_f1", "multilabel": "val_mean_f1"}


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    for task in TASKS:
        made = write_patch_set(folder / task, {"train": 4, "val": 2}, size=32, grid=(1, 1))
        of_values(made) if task == "regression" else of_labels(made, task)
    return folder


@pytest.fixture(scope="module")
def runs(sets, tmp_path_factory):
    """{task: folder of a run}."""
    folder = tmp_path_factory.mktemp("runs")
    for task in TASKS:
        train.main(["--patches-dir", str(sets / task), "--task", task, "--output-dir", str(folder / task), "--architecture", "smallunet",
                    "--epochs", "6", "--batch-size", "2", "--lr", "0.01", "--num-workers", "0", "--device", "cpu", "--quiet",
                    "--scheduler", "constant", "--no-augment"])
    return folder


@pytest.mark.parametrize("task", TASKS)
def test_it_learns_keeps_the_best_epoch_and_says_what_it_had_to_beat(task, runs, sets, capsys):
    with open(runs / task / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    scores = [float(row[SCORE[task]]) for row in rows]
    best = min(scores) if task == "regression" else max(scores)
    kept = load_checkpoint(runs / task / "checkpoints" / "best_model.pt")
    assert kept["kind"] == task and abs(kept["state"]["best_score"]) == pytest.approx(best)
    assert [row["best"] for row in rows].count("1") >= 1 and (runs / task / "samples").is_dir()
    capsys.readouterr()
    train.main(["--test-only", "--resume", str(runs / task), "--patches-dir", str(sets / task), "--test-split", "val", "--overwrite"])
    told = json.loads((runs / task / "scores_val.json").read_text())["scores"]
    key = SCORE[task].removeprefix("val_")
    assert told["network"][key] == pytest.approx(best, rel=1e-5)
    usual = [name for name in told if name != "network"]
    assert usual and all(name in capsys.readouterr().out for name in usual[:1])
    if task == "regression":
        assert told["network"]["rmse"] < told["mean of the training"]["rmse"]
        assert told["line on B08"]["r2"] == pytest.approx(1.0, abs=1e-3)  # it was made of that band
    else:
        assert told["network"]["mean_f1"] >= (1.0 if task == "classification" else told[usual[0]]["mean_f1"])


def test_weights_are_trained_in_units_of_the_target_and_answer_in_its_own(runs, sets):
    model = model_from_checkpoint(load_checkpoint(runs / "regression" / "checkpoints" / "best_model.pt"))
    stored = np.concatenate([np.load(p).ravel() for p in sorted((sets / "regression" / "train").glob("*_mask.npy"))])
    assert model.config.target_mean == pytest.approx(np.nanmean(stored), rel=1e-5)
    assert float(model.output_step.std) == pytest.approx(np.nanstd(stored), rel=1e-4)
    assert model.predict_values(torch.rand(1, 7, 20, 33)).shape == (1, 20, 33)


@pytest.mark.parametrize(("words", "told"), [
    (("--task", "classification"), "--task classification, but the patches of .* are made for regression"),
    (("--task", "regression", "--loss", "dice"), "the losses of regression are"),
    (("--task", "regression", "--weighted-sampling"), "--weighted-sampling is for classes of pixels"),
    (("--loss", "ce", "--focal-loss"), "pass one of the two"),
    (("--task", "regression", "--num-classes", "4"), "--num-classes 4: layer mask"),
    (("--num-classes", "1"), "two classes to tell apart"),
])
def test_what_does_not_go_together_is_one_line(words, told, sets, tmp_path):
    with pytest.raises(UserError, match=told):
        train.main(["--patches-dir", str(sets / "regression"), "--output-dir", str(tmp_path / "run"), "--quiet", *words])


def test_a_run_goes_on_with_its_task_and_refuses_another(runs, sets):
    last = str(runs / "classification" / "checkpoints" / "last.pt")
    with pytest.raises(UserError, match="--task regression disagrees with the checkpoint, which has classification"):
        train.main(["--resume", last, "--task", "regression", "--patches-dir", str(sets / "classification")])
    assert train.main(["--resume", last, "--patches-dir", str(sets / "classification"), "--quiet"]) == 0


def test_weights_of_losses_are_read_from_their_names():
    assert weighted_names("ce:0.5, dice") == {"ce": 0.5, "dice": 1.0}
    for text in ("ce:0", "ce:x", "ce,ce", "", "ce:inf"):
        with pytest.raises(Exception, match="expected different names"):
            weighted_names(text)


# ------------------------------------------------------------------------------------------------------------- maps


@pytest.fixture
def picture(make_raster):
    """A scene of 75 × 90 pixels, the left half like the training's forest, the right half like its water; a corner is nodata."""
    random = np.random.default_rng(3)
    image = random.integers(900, 1100, (7, 75, 90)).astype(np.uint16)
    image[3] = 3500
    image[3, :, 45:] = 875
    image[:, :6, :9] = 0
    return make_raster("scene.tif", image, descriptions=CEMS_BANDS, nodata=0)


def infer(run, folder, *words):
    return inference.main(["--checkpoint", str(run), "--output-dir", str(folder), "--device", "cpu", "--accept-scale", "--quiet",
                           *map(str, words)])


def test_values_are_mapped_as_the_network_says_with_nan_for_nodata(runs, picture, tmp_path):
    assert infer(runs / "regression", tmp_path / "maps", picture, "--overlap", "0", "--window", "96") == 0
    with rasterio.open(tmp_path / "maps" / "scene_values.tif") as found, rasterio.open(picture) as image:
        values, stored = found.read(1), image.read().astype(np.float32)
        assert found.dtypes == ("float32",) and np.isnan(found.nodata) and found.transform == image.transform
    assert np.array_equal(np.isnan(values), (stored == 0).all(axis=0))
    model = model_from_checkpoint(load_checkpoint(runs / "regression" / "checkpoints" / "best_model.pt"))
    padded = np.zeros((7, 96, 96), np.float32)
    padded[:, :75, :90] = stored / 10_000
    expected = model.predict_values(torch.tensor(padded)[None])[0, :75, :90].numpy()
    assert np.nanmax(np.abs(values - expected)) < 1e-3
    record = json.loads((tmp_path / "maps" / "summary.json").read_text())["scenes"][0]
    assert record["mean"] == pytest.approx(np.nanmean(values), rel=1e-5) and record["most"] == pytest.approx(np.nanmax(values))
    with pytest.raises(UserError, match="--threshold is for other maps"):
        infer(runs / "regression", tmp_path / "others", picture, "--threshold", "0.5")


def test_tiles_and_the_whole_scene_get_labels(runs, picture, tmp_path):
    assert infer(runs / "classification", tmp_path / "maps", picture) == 0
    tiles = json.loads((tmp_path / "maps" / "scene_tiles.geojson").read_text())["features"]
    assert len(tiles) == 9 and {tile["properties"]["name"] for tile in tiles} <= {"forest", "water"}
    record = json.loads((tmp_path / "maps" / "summary.json").read_text())["scenes"][0]
    areas = {name: numbers["hectares"] for name, numbers in record["classes"].items()}
    assert sum(areas.values()) == pytest.approx((75 * 90 - 54) / 100) == pytest.approx(sum(t["properties"]["area_ha"] for t in tiles))
    assert record["label"] == max(record["labels"], key=record["labels"].get)
    assert sum(record["labels"].values()) == pytest.approx(1.0, abs=1e-5)
    assert infer(runs / "multilabel", tmp_path / "several", picture, "--threshold", "0") == 0
    assert len(json.loads((tmp_path / "several" / "scene_tiles.geojson").read_text())["features"]) == 18  # each label of each tile
    assert "summary.csv" in {p.name for p in (tmp_path / "several").iterdir()}


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_the_maps_of_a_product_name_it(task, runs, tmp_path):
    safe, _ = make_safe(tmp_path, side=60)
    assert infer(runs / task, tmp_path / "maps", safe) == 0
    record = json.loads((tmp_path / "maps" / "summary.json").read_text())["scenes"][0]
    assert record["product"] == "Sentinel-2 L2A" and record["datetime"].startswith("2022-02-05") and record["clouds_left_out"] == "scl"
    preview = np.asarray(Image.open(tmp_path / "maps" / f"{safe.stem}_preview.png"))
    assert (preview[0] > 240).all() and (preview[:20] < 128).any()  # a line of text above the pictures


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_a_map_killed_after_any_band_ends_with_the_bytes_of_one_made_at_a_stretch(task, runs, picture, tmp_path, monkeypatch):
    words = (shutil.copy(picture, tmp_path / "scene_20220205.tif"), "--stac")
    assert infer(runs / task, tmp_path / "whole", *words) == 0
    module, name = (scene, "predict_bands") if task == "regression" else (label_scene, "predict_rows")
    real = getattr(module, name)

    def killed(*args, **how):
        bands = real(*args, **how)
        yield next(bands)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, name, killed)
        with pytest.raises(KeyboardInterrupt):
            infer(runs / task, tmp_path / "maps", *words)
    assert (tmp_path / "maps" / ".chipmill" / "scene_20220205" / "journal.jsonl").exists()
    assert infer(runs / task, tmp_path / "maps", *words) == 0
    content = [{p.name: p.read_bytes() for p in (tmp_path / folder).iterdir() if p.is_file()} for folder in ("whole", "maps")]
    assert content[0] == content[1]
    kinds = {"preview", "values", "style"} if task == "regression" else {"preview", "tiles"}
    assert set(json.loads(content[0]["scene_20220205.stac.json"])["assets"]) == kinds
    assert infer(runs / task, tmp_path / "maps", *words) == 0  # mapped already


# ------------------------------------------------------------------------------------------------ what a classification is without flags


def test_the_usual_network_of_labels_trains_goes_on_and_maps(sets, picture, tmp_path):
    words = ["--patches-dir", str(sets / "classification"), "--device", "cpu", "--quiet", "--num-workers", "0", "--batch-size", "2"]
    assert train.main([*words, "--task", "classification", "--encoder", "small", "--encoder-weights", "none", "--head-args", "dropout=0.1",
                       "--output-dir", str(tmp_path / "run"), "--epochs", "1"]) == 0
    last = tmp_path / "run" / "checkpoints" / "last.pt"
    parts = load_checkpoint(last)["model"]["parts"]
    assert (parts["decoder"], parts["head_args"]) == ("identity", {"dropout": 0.1})
    assert train.main([*words, "--resume", str(last), "--epochs", "2"]) == 0
    assert load_checkpoint(last)["state"]["epoch"] == 2
    assert infer(tmp_path / "run", tmp_path / "maps", picture) == 0
    tiles = json.loads((tmp_path / "maps" / "scene_tiles.geojson").read_text())["features"]
    assert len(tiles) == 9 and {tile["properties"]["name"] for tile in tiles} <= {"forest", "water"}


def test_patches_are_taken_by_a_task_that_answers_the_same_and_by_no_other(sets, monkeypatch):
    monkeypatch.setitem(model_config.TASKS, "height", model_config.PIXEL_VALUES)
    assert read_patch_set(sets / "regression", task="height").task == "height"
    with pytest.raises(UserError, match="--task height, but the patches of .* are made for classification"):
        read_patch_set(sets / "classification", task="height")
