"""What is special about resuming a run of train.py; the rest is in test_training_promises.py."""

import csv

import pytest
import torch
from patch_factory import write_patch_set
from training_programs import Killed, at_step, kill

import train
from runtime.checkpoint import load_checkpoint

EPOCHS = 3


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    return write_patch_set(tmp_path_factory.mktemp("set") / "patches", {"train": 3, "val": 1}, size=32)


def flags(patches, output, *more):
    return ["--patches-dir", str(patches), "--output-dir", str(output), "--architecture", "smallunet", "--batch-size", "2",
            "--num-workers", "0", "--epochs", str(EPOCHS), "--lr", "0.01", "--quiet", "--device", "cpu", *more]


def without_time(output):
    with open(output / "metrics.csv", newline="") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def test_resuming_from_an_earlier_epoch_drops_the_later_rows_and_ends_the_same(patches, tmp_path):
    train.main(flags(patches, tmp_path, "--save-every", "1"))
    reference = without_time(tmp_path)
    train.main(["--resume", str(tmp_path / "checkpoints" / "checkpoint_epoch_0.pt"), "--quiet"])
    assert without_time(tmp_path) == reference


def test_a_worse_model_does_not_replace_the_best_one(patches, tmp_path):
    train.main(flags(patches, tmp_path, "--save-every", "1"))
    best = tmp_path / "checkpoints" / "best_model.pt"
    checkpoint = load_checkpoint(best)
    checkpoint["state"]["best_score"] = 2.0  # as if a later epoch had been that good
    torch.save(checkpoint, best)
    train.main(["--resume", str(tmp_path / "checkpoints" / "checkpoint_epoch_0.pt"), "--quiet", "--lr", "1e-7"])
    assert load_checkpoint(best)["state"]["best_score"] == 2.0


def test_a_best_model_that_is_gone_is_replaced_by_the_next_epoch(patches, tmp_path, capsys):
    train.main(flags(patches, tmp_path))
    best, last = (tmp_path / "checkpoints" / name for name in ("best_model.pt", "last.pt"))
    checkpoint = load_checkpoint(last)
    checkpoint["state"]["best_score"] = 2.0
    torch.save(checkpoint, last)
    best.unlink()
    train.main(["--resume", str(last), "--epochs", "4"])
    assert "takes its place" in capsys.readouterr().err
    assert load_checkpoint(best)["state"]["epoch"] == 4


def test_a_shorter_run_is_finished_from_the_start_and_keeps_all_its_rows(patches, tmp_path, capsys):
    train.main(flags(patches, tmp_path, "--save-every", "1"))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    train.main(["--resume", str(tmp_path / "checkpoints" / "checkpoint_epoch_0.pt"), "--epochs", "1"])
    assert "is finished after 1 epochs" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_resumed_inside_an_epoch_with_fewer_max_steps_than_it_has_taken_a_run_takes_no_more(patches, tmp_path):
    """Killed in the ninth step, the third of its epoch; the fourth is the limit."""
    with at_step(8, kill), pytest.raises(Killed):
        train.main(flags(patches, tmp_path, "--steps-per-epoch", "6", "--save-minutes", "0"))
    with at_step(-1, kill) as steps:
        train.main(["--resume", str(tmp_path / "checkpoints" / "last.pt"), "--max-steps", "4", "--quiet"])
    assert next(steps) == 0 and without_time(tmp_path)[-1]["step"] == "8"
    assert load_checkpoint(tmp_path / "checkpoints" / "final_model.pt")["state"]["step"] == 8


def test_the_plateau_goes_on_where_it_was(patches, tmp_path):
    """One more epoch without gain than the patience of five: the rate is halved."""
    train.main(flags(patches, tmp_path))
    last = tmp_path / "checkpoints" / "last.pt"
    checkpoint = load_checkpoint(last)
    checkpoint["state"]["schedule"].update(best=2.0, bad_epochs=5)
    torch.save(checkpoint, last)
    train.main(["--resume", str(last), "--epochs", str(EPOCHS + 2), "--quiet"])
    assert [row["lr"] for row in without_time(tmp_path)[-2:]] == ["0.01", "0.005"]
