"""Flags of train_detection.py that the shared promises do not cover."""

import pytest

import train_detection
from runtime.checkpoint import save_checkpoint
from runtime.errors import UserError


@pytest.fixture
def earlier_run(tmp_path):
    """Makes a run's folder whose best_model.pt has a threshold."""

    def make(threshold):
        (tmp_path / "run" / "checkpoints").mkdir(parents=True)
        save_checkpoint(tmp_path / "run" / "checkpoints" / "best_model.pt",
                        {"kind": "detection", "model": {}, "settings": {}, "state": {}, "data": {"threshold": threshold}})
        return tmp_path / "run"

    train_detection.import_libraries()
    return make


def test_the_threshold_is_the_number_given_or_that_of_an_earlier_run_or_a_usual_one(earlier_run):
    run = earlier_run(0.37)
    assert train_detection.read_threshold("0.25") == 0.25
    assert train_detection.read_threshold(str(run)) == 0.37
    assert train_detection.read_threshold(str(run / "checkpoints" / "best_model.pt")) == 0.37
    assert train_detection.read_threshold(None) == train_detection.UNCHOSEN == train_detection.read_threshold(train_detection.UNCHOSEN)


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
