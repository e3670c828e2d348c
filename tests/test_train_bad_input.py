"""What train.py says to runs, checkpoints and machines that are not as it left them. Run: pytest tests/test_train_bad_input.py"""


import csv
import dataclasses
import os
import shutil

import pytest
import torch
from patch_factory import write_patch_set

import dataset
import train
from runtime.checkpoint import load_checkpoint
from runtime.device import usable_cores
from runtime.epoch_batches import make_loader
from runtime.errors import UserError
from runtime.run_folder import RunFolder
from runtime.run_state import Position


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    return write_patch_set(tmp_path_factory.mktemp("set") / "patches", {"train": 2, "val": 1, "test": 1}, size=32)


def run(patches, output, *flags):
    base = ["--patches-dir", str(patches), "--output-dir", str(output), "--architecture", "smallunet", "--num-workers", "0"]
    return train.main([*base, "--batch-size", "2", "--epochs", "1", "--quiet", "--device", "cpu", "--lr", "0.003", *map(str, flags)])


@pytest.fixture(scope="module")
def finished(patches, tmp_path_factory):
    """The folder of a run of one epoch."""
    output = tmp_path_factory.mktemp("run") / "output"
    assert run(patches, output) == 0
    return output


def test_overwriting_a_run_takes_its_scores_along_and_leaves_what_is_not_the_runs(patches, tmp_path):
    run(patches, tmp_path)
    best = str(tmp_path / "checkpoints" / "best_model.pt")
    score = ["--test-only", "--resume", best, "--quiet", "--device", "cpu"]
    train.main(score)
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "wandb" / "run-1").mkdir(parents=True)
    others = [tmp_path / "notes.txt", tmp_path / "tensorboard" / "notes.txt", tmp_path / "wandb" / "run-1" / "run-1.wandb"]
    events = tmp_path / "tensorboard" / "events.out.tfevents.1.host.2.0"
    for path in (*others, events):
        path.write_text("")
    run(patches, tmp_path, "--overwrite")
    assert not list(tmp_path.glob("scores_*")) and not events.exists() and all(path.exists() for path in others)
    assert train.main(score) == 0  # nothing is in the way of the new model's scores


def test_a_resumed_run_keeps_its_scores(tmp_path):
    (tmp_path / "scores_val.json").write_text("{}")
    with RunFolder(tmp_path, resume=True):
        assert (tmp_path / "scores_val.json").exists()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system can't bind a process to cores")
def test_there_are_no_more_workers_than_cores_that_the_process_may_use(patches, tmp_path, monkeypatch):
    before = os.sched_getaffinity(0)
    asked = []
    monkeypatch.setattr(dataset, "make_loader", lambda *rest, workers, **more: asked.append(workers) or make_loader(*rest, workers=0))
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_cores() == 1
        run(patches, tmp_path, "--num-workers", "4")
        assert set(asked) == {1}
    finally:
        os.sched_setaffinity(0, before)
    assert usable_cores() == len(before)


def changed(finished, tmp_path, change):
    """A copy of the finished run whose last.pt `change` has been at. → path of that last.pt"""
    shutil.copytree(finished, tmp_path / "copy")
    path = tmp_path / "copy" / "checkpoints" / "last.pt"
    checkpoint = torch.load(path, weights_only=True)
    change(checkpoint)
    torch.save(checkpoint, path)
    return str(path)


def test_the_state_of_a_checkpoint_is_what_a_run_asks_for_when_it_goes_on(finished):
    parts = {"model", "optimizer", "schedule", "scaler", "running", "unreadable"}
    state = load_checkpoint(finished / "checkpoints" / "last.pt")["state"]
    assert set(state) == parts | {field.name for field in dataclasses.fields(Position)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["state"].pop("optimizer"), "can be scored .--test-only., but not resumed: its state lacks optimizer;"),
        (lambda c: c["data"].pop("classes"), "cannot be used: its data lacks classes;"),
        (lambda c: c["model"].update(architecture="contrastunet"), r"do not fit its contrastunet: \d+ missing"),
        (lambda c: c["state"].update(schedule={}), "its state is not that of such a run .'scale'.;"),
    ],
)
def test_a_checkpoint_that_is_not_whole_is_one_line_that_names_it(finished, tmp_path, change, words):
    path = changed(finished, tmp_path, change)
    before = sorted(p.name for p in (tmp_path / "copy").rglob("*"))
    with pytest.raises(UserError, match=f"{path}.*{words}"):
        train.main(["--resume", path, "--epochs", "2", "--quiet", "--device", "cpu"])
    assert sorted(p.name for p in (tmp_path / "copy").rglob("*")) == before


def test_a_checkpoint_without_its_optimiser_can_still_be_scored(finished, tmp_path):
    path = changed(finished, tmp_path, lambda c: c["state"].pop("optimizer"))
    assert train.main(["--test-only", "--resume", path, "--quiet", "--device", "cpu"]) == 0


def test_a_patch_counts_as_detected_from_the_asked_number_of_pixels_on(patches, finished, tmp_path):
    def detections(output):
        with open(output / "metrics.csv", newline="") as file:
            (row,) = csv.DictReader(file)
        return {key: int(row[f"val_detection_{key}"]) for key in ("tp", "fp", "fn", "tn")}, row["val_fire_iou"]

    run(patches, tmp_path, "--detection-min-pixels", 32 * 32 + 1)  # more than a patch has: nothing is ever detected
    every, iou = detections(finished)
    none, same_iou = detections(tmp_path)
    assert none == {"tp": 0, "fp": 0, "fn": every["tp"] + every["fn"], "tn": every["fp"] + every["tn"]} and same_iou == iou
    assert every["tp"] > 0
    with pytest.raises(UserError, match="--detection-min-pixels: expected a whole number of at least 1"):
        run(patches, tmp_path, "--detection-min-pixels", 0)


class Compiled(torch.nn.Module):
    """What torch.compile makes, without a compiler: another module around the same weights, whose names begin with _orig_mod."""

    calls = 0

    def __init__(self, module):
        super().__init__()
        self._orig_mod = module

    def forward(self, x):
        Compiled.calls += 1
        return self._orig_mod(x)


def test_compiled_training_is_the_same_training_and_its_checkpoints_have_the_plain_names(patches, finished, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "compile", Compiled)
    run(patches, tmp_path, "--compile")
    assert Compiled.calls == 3  # two batches of training, one of validation
    one, other = (load_checkpoint(folder / "checkpoints" / "final_model.pt")["state"]["model"] for folder in (tmp_path, finished))
    assert list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


def test_an_architecture_that_cannot_take_such_small_patches_says_so_before_the_first_step(patches, tmp_path):
    with pytest.raises(UserError, match="pan on resnet18 cannot take patches of .*; use larger ones or another --architecture"):
        run(patches, tmp_path / "new", "--architecture", "pan", "--encoder", "resnet18", "--encoder-weights", "none")
    assert not list((tmp_path / "new").rglob("*.pt"))


def test_a_damaged_best_model_keeps_nobody_from_going_on(finished, tmp_path, capsys):
    path = changed(finished, tmp_path, lambda c: None)
    best = tmp_path / "copy" / "checkpoints" / "best_model.pt"
    best.write_bytes(best.read_bytes()[:1000])
    assert train.main(["--resume", path, "--epochs", "3", "--device", "cpu"]) == 0
    assert "takes its place" in "".join(capsys.readouterr())


def test_the_last_line_names_the_score_that_the_file_holds(finished, tmp_path, capsys):
    path = changed(finished, tmp_path, lambda c: c["state"].update(best_score=None, best_epoch=None))
    best = tmp_path / "copy" / "checkpoints" / "best_model.pt"
    checkpoint = torch.load(best, weights_only=True)
    checkpoint["state"]["best_score"] = 0.98765
    torch.save(checkpoint, best)
    train.main(["--resume", path, "--epochs", "2", "--quiet", "--device", "cpu"])
    assert "but 0.9877 was reached before and is kept" in capsys.readouterr().out
    assert load_checkpoint(best)["state"]["best_score"] == 0.98765
