"""Flags of train_detection.py that the shared promises do not cover."""

import csv
from types import SimpleNamespace

import pytest
from training_programs import make_images

import train_detection
from detection.detections import UNCHOSEN, score_of
from detection.detectors import Detector
from runtime.checkpoint import load_checkpoint, save_checkpoint
from runtime.errors import UserError
from runtime.settings import group_of


@pytest.fixture
def earlier_run(tmp_path):
    """Makes a run's folder whose best_model.pt has a threshold, chosen on the images of --val or not."""

    def make(threshold, val=None):
        (tmp_path / "run" / "checkpoints").mkdir(parents=True)
        content = {"kind": "detection", "model": {"framework": "centre"}, "settings": {"val": val, "encoder": None},
                   "state": {"model": {}}, "data": {"threshold": threshold, "bands": [], "classes": []}}
        save_checkpoint(tmp_path / "run" / "checkpoints" / "best_model.pt", content)
        return tmp_path / "run"

    train_detection.import_libraries()
    return make


def test_the_threshold_is_the_number_given_or_that_of_an_earlier_run_or_none(earlier_run):
    run = earlier_run(0.37)
    assert train_detection.read_threshold("0.25") == 0.25
    assert train_detection.read_threshold(str(run)) == 0.37
    assert train_detection.read_threshold(str(run / "checkpoints" / "best_model.pt")) == 0.37
    assert train_detection.read_threshold(None) is None and train_detection.read_threshold(0.4) == 0.4  # as a resumed run has it


@pytest.mark.parametrize(("wanted", "says"), [("1.5", "between 0 and 1"), ("nan", "between 0 and 1"), ("nowhere.pt", "does not exist")])
def test_a_threshold_that_is_none_is_refused(earlier_run, wanted, says):
    with pytest.raises(UserError, match=says):
        train_detection.read_threshold(wanted)


def test_a_run_without_validation_has_no_threshold_to_give(earlier_run):
    with pytest.raises(UserError, match="has no threshold: no images validated"):
        train_detection.read_threshold(str(earlier_run(None)))


@pytest.mark.parametrize("validation", [["--val", "0.2"], ["--val-images", "v", "--val-annotations", "v.json"]])
def test_a_threshold_beside_validation_is_refused(validation):
    with pytest.raises(UserError, match="--threshold is for trainings without validation"):
        train_detection.main(["--train-images", "a", "--train-annotations", "b.json", "--threshold", "0.3", *validation, "--device", "cpu"])


def test_a_threshold_that_would_have_no_effect_is_refused(earlier_run):
    best = earlier_run(0.37, val="0.2") / "checkpoints" / "best_model.pt"
    for words, says in (([], "is for trainings without validation"), (["--test-only"], "is for trainings, --test-only")):
        with pytest.raises(UserError, match=says):
            train_detection.main(["--resume", str(best), "--train-images", "a", "--threshold", "0.5", "--device", "cpu", *words])


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    make_images(folder := tmp_path_factory.mktemp("squares") / "data")
    return folder


@pytest.fixture
def words(squares, tmp_path):
    """Words of a run of small crops."""
    return ["--train-images", squares / "train", "--train-annotations", squares / "train.json", "--output-dir", tmp_path / "run",
            "--cache-dir", tmp_path / "cache", "--tile-size", 64, "--overlap", 16, "--tile-format", "none", "--crop", 32,
            "--batch-size", 2, "--num-workers", 0, "--device", "cpu", "--quiet"]


def test_only_some_epochs_and_the_last_validate(words, tmp_path):
    more = ["--val", "0.5", "--val-every", 2, "--epochs", 3, "--steps-per-epoch", 1]
    assert train_detection.main([str(word) for word in (*words, *more)]) == 0
    with open(tmp_path / "run" / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [bool(row["val_map_50"]) for row in rows] == [False, True, True] and rows[0]["best"] == "0" and rows[1]["best"] == "1"


def test_of_epochs_that_are_equally_good_the_last_is_kept_and_patience_counts_them(words, tmp_path, monkeypatch):
    scores, validate = iter([0.25, 0.5, 0.5, 0.5, 0.5]), train_detection.validate
    monkeypatch.setattr(train_detection, "validate", lambda *given: {**validate(*given), "map_50": next(scores)})
    more = ["--val", "0.5", "--epochs", 5, "--patience", 2, "--steps-per-epoch", 1]
    assert train_detection.main([str(word) for word in (*words, *more)]) == 0
    with open(tmp_path / "run" / "metrics.csv", newline="") as file:
        assert [row["best"] for row in csv.DictReader(file)] == ["1"] * 4
    assert load_checkpoint(tmp_path / "run" / "checkpoints" / "best_model.pt")["state"]["best_epoch"] == 3


def options_of(words):
    args = train_detection.build_parser().parse_args([str(word) for word in words])
    train_detection.import_libraries()
    args.lr, args.threshold = 1e-3, None
    return group_of(train_detection.Options, args)


@pytest.mark.parametrize(("given", "stride", "copies", "crop"), [
    ([], 2, 8, 128), (["--stride", 4, "--copies", 0], 4, 0, 256), (["--no-augment", "--crop", 32], 2, 0, 32),
    (["--framework", "fcos", "--encoder", "small"], 4, 0, 400),
])
def test_stride_and_copies_are_fitted_to_the_boxes_unless_given(given, stride, copies, crop):
    """Boxes of 12 x 30 pixels, which cover 4 % of their image."""
    given = options_of(["--tile-size", 400, *given])
    tiles = SimpleNamespace(images=[SimpleNamespace(boxes=[(0, 0, 12, 30)] * 4, width=200, height=200)])
    said = []
    console = SimpleNamespace(say=said.append)
    options = train_detection.fitted(given, tiles, None, console)
    assert (options.stride, options.copies) == (str(stride), copies)
    assert train_detection.sampling_of(options).crop.size == crop
    assert [any(f"--stride {stride}" in line for line in said), any(f"--copies {copies}" in line for line in said)] == [
        stride == 2, copies == 8]
    resumed = train_detection.fitted(given, tiles, {"model": {}}, console)
    assert resumed.stride == "4"  # of a network from before there were others


def test_crowded_objects_are_not_copied():
    tiles = SimpleNamespace(images=[SimpleNamespace(boxes=[(0, 0, 60, 30)] * 4, width=200, height=200)])
    options = train_detection.fitted(options_of([]), tiles, None, SimpleNamespace(say=pytest.fail))
    assert (options.stride, options.copies) == ("4", 0)


@pytest.mark.parametrize(("more", "stated", "counts"), [([], None, UNCHOSEN), (["--threshold", "0.4"], 0.4, 0.4)])
def test_a_run_without_validation_keeps_what_it_was_given_apart_from_what_is_chosen(words, tmp_path, more, stated, counts):
    assert train_detection.main([str(word) for word in (*words, "--max-steps", 1, *more)]) == 0
    for name in ("best_model.pt", "last.pt", "final_model.pt"):
        data = load_checkpoint(tmp_path / "run" / "checkpoints" / name)["data"]
        assert data["threshold"] is None and data["stated_threshold"] == stated and score_of(data) == counts
    with pytest.raises(UserError, match="has no threshold: no images validated"):
        train_detection.read_threshold(str(tmp_path / "run"))


def test_detections_count_from_the_chosen_score_on_then_from_the_stated_one():
    assert score_of({"threshold": 0.6, "stated_threshold": 0.2}) == 0.6
    assert score_of({"threshold": 0.0, "stated_threshold": 0.2}) == 0.0
    assert score_of({"threshold": None, "stated_threshold": 0.2}) == 0.2
    assert score_of({}) == UNCHOSEN


@pytest.mark.parametrize(("words", "says"), [
    (["--framework", "mask-rcnn", "--copies", "8"], "--copies is for --framework centre"),
    (["--framework", "fcos", "--stride", "2"], "--stride is for --framework centre"),
    (["--framework", "fcos", "--tta"], "--tta is for --framework centre"),
    (["--no-augment", "--copies", "4"], "pass one of the two"),
])
def test_flags_that_a_training_would_not_read_are_refused(words, says):
    with pytest.raises(UserError, match=says):
        train_detection.main(["--train-images", "a", "--train-annotations", "b.json", "--device", "cpu", *words])


def test_validation_and_scores_take_flips_and_turns_where_the_run_has_them(words, squares, tmp_path, monkeypatch, capsys):
    train_detection.import_libraries()
    views, predict = [], Detector.predict
    monkeypatch.setattr(Detector, "predict", lambda *given: views.append(given[4]) or predict(*given))
    assert train_detection.main([str(word) for word in (*words, "--val", "0.5", "--max-steps", 1, "--tta")]) == 0
    last = str(tmp_path / "run" / "checkpoints" / "last.pt")
    assert load_checkpoint(last)["data"]["tta"] and views and all(views)
    for more, expected in (([], True), (["--no-tta"], False)):
        views.clear()
        test = ["--test-only", "--resume", last, "--test-images", squares / "val", "--test-annotations", squares / "val.json"]
        scores = ["--output-dir", tmp_path / f"{expected}", "--device", "cpu"]
        assert train_detection.main([str(word) for word in (*test, *scores, *more)]) == 0
        assert set(views) == {expected}
        assert ("was chosen with --tta" in capsys.readouterr().err) == bool(more)


def test_a_run_goes_on_with_the_stride_that_it_has_also_where_that_is_said(words, tmp_path):
    """Objects of the squares are small, so auto means cells of two pixels."""
    assert train_detection.main([str(word) for word in (*words, "--max-steps", 1, "--stride", 2)]) == 0
    last = str(tmp_path / "run" / "checkpoints" / "last.pt")
    saved = load_checkpoint(last)
    saved["settings"]["stride"] = "auto"
    save_checkpoint(last, {key: value for key, value in saved.items() if key != "path"})
    for stride in ("2", "auto"):
        assert train_detection.main(["--resume", last, "--stride", stride, "--device", "cpu", "--quiet"]) == 0
    with pytest.raises(UserError, match="--stride 4 disagrees with the checkpoint, which has 2"):
        train_detection.main(["--resume", last, "--stride", "4", "--device", "cpu", "--quiet"])
