"""A run that is killed and resumed ends as one that was not. Run: pytest tests/test_train_resume.py"""

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from patch_factory import write_patch_set

import train
from runtime.checkpoint import load_checkpoint
from runtime.errors import Terminated

ROOT = Path(__file__).resolve().parent.parent
EPOCHS, STEPS = 3, 3


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    return write_patch_set(tmp_path_factory.mktemp("set") / "patches", {"train": 3, "val": 1}, size=32)


def flags(patches, output, *more):
    return ["--patches-dir", str(patches), "--output-dir", str(output), "--architecture", "smallunet", "--batch-size", "2",
            "--num-workers", "0", "--epochs", str(EPOCHS), "--lr", "0.01", "--quiet", "--device", "cpu", *more]


@pytest.fixture(scope="module")
def undisturbed(patches, tmp_path_factory):
    output = tmp_path_factory.mktemp("undisturbed")
    train.main(flags(patches, output))
    return output


def without_time(output):
    with open(output / "metrics.csv", newline="") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def assert_same_end(output, undisturbed):
    assert without_time(output) == without_time(undisturbed)
    for name in ("final_model.pt", "best_model.pt", "last.pt"):
        paths = [folder / "checkpoints" / name for folder in (output, undisturbed)]
        whole = [load_checkpoint(path) for path in paths]
        if whole[0]["settings"] == whole[1]["settings"]:
            assert paths[0].read_bytes() == paths[1].read_bytes(), name
        one, other = (checkpoint["state"] for checkpoint in whole)
        assert all(torch.equal(one["model"][key], other["model"][key]) for key in other["model"]), name
        moments = [s["optimizer"]["state"][0]["exp_avg"] for s in (one, other)]
        assert torch.equal(*moments) and one["schedule"] == other["schedule"] and one["best_score"] == other["best_score"]


def at_step(monkeypatch, number, action):
    """Do something in the middle of the step with this number (counted from 0, in this process)."""
    count = 0
    original = train.to_device

    def counting(batch, *rest):
        nonlocal count
        if len(rest) == 3:  # a training step: the draws are given
            if count == number:
                action()
            count += 1
        return original(batch, *rest)

    monkeypatch.setattr(train, "to_device", counting)


class Killed(BaseException):
    """Stands for kill -9: nothing of ours may catch it."""


def kill():
    raise Killed


@pytest.mark.parametrize("step", [0, 1, 3, 5, 8])
@pytest.mark.parametrize("save_minutes", ["10", "0"])
def test_killed_at_any_step_and_resumed_is_the_undisturbed_run(patches, undisturbed, tmp_path, monkeypatch, step, save_minutes):
    at_step(monkeypatch, step, kill)
    with pytest.raises(Killed):
        train.main(flags(patches, tmp_path, "--save-minutes", save_minutes))
    monkeypatch.undo()
    position = load_checkpoint(tmp_path / "checkpoints" / "last.pt")["state"]
    assert position["step"] == (step if save_minutes == "0" else step // STEPS * STEPS)
    assert train.main(["--resume", str(tmp_path / "checkpoints" / "last.pt"), "--quiet", "--num-workers", "0"]) == 0
    assert_same_end(tmp_path, undisturbed)


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
def test_a_signal_finishes_the_step_saves_and_says_how_to_go_on(patches, undisturbed, tmp_path, monkeypatch, number, error):
    at_step(monkeypatch, 4, lambda: os.kill(os.getpid(), number))
    with pytest.raises(error, match="go on with --resume"):
        train.main(flags(patches, tmp_path))
    monkeypatch.undo()
    state = load_checkpoint(tmp_path / "checkpoints" / "last.pt")["state"]
    assert (state["epoch"], state["step_in_epoch"], state["step"]) == (1, 2, 5)
    assert signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL)
    train.main(["--resume", str(tmp_path / "checkpoints" / "last.pt"), "--quiet"])
    assert_same_end(tmp_path, undisturbed)


def test_a_finished_run_says_so_and_more_epochs_train_on(patches, undisturbed, tmp_path, capsys):
    shutil.copytree(undisturbed, tmp_path / "copy")
    last = tmp_path / "copy" / "checkpoints" / "last.pt"
    before = last.stat().st_mtime_ns
    assert train.main(["--resume", str(last)]) == 0
    assert "is finished after 3 epochs; raise --epochs" in capsys.readouterr().err
    assert last.stat().st_mtime_ns == before
    train.main(["--resume", str(last), "--epochs", "4", "--quiet"])
    assert [row["epoch"] for row in without_time(tmp_path / "copy")] == ["0", "1", "2", "3"]
    assert without_time(tmp_path / "copy")[:3] == without_time(undisturbed)


def test_resuming_from_an_earlier_epoch_drops_the_later_rows_and_ends_the_same(patches, tmp_path):
    train.main(flags(patches, tmp_path, "--save-every", "1"))
    reference = without_time(tmp_path)
    train.main(["--resume", str(tmp_path / "checkpoints" / "checkpoint_epoch_0.pt"), "--quiet"])
    assert without_time(tmp_path) == reference


def test_flags_of_the_optimiser_win_on_resume_and_stay_otherwise(patches, tmp_path):
    train.main(flags(patches, tmp_path, "--epochs", "1", "--weight-decay", "0.25"))
    last = tmp_path / "checkpoints" / "last.pt"
    for words, expected in (([], (0.25, 0.01)), (["--weight-decay", "0.5", "--lr", "0.002"], (0.5, 0.002))):
        train.main(["--resume", str(last), "--epochs", str(2 + bool(words)), "--quiet", *words])
        group = load_checkpoint(last)["state"]["optimizer"]["param_groups"][0]
        assert (group["weight_decay"], group["lr"]) == expected


def test_a_worse_model_does_not_replace_the_best_one(patches, tmp_path):
    train.main(flags(patches, tmp_path, "--save-every", "1"))
    best = tmp_path / "checkpoints" / "best_model.pt"
    checkpoint = load_checkpoint(best)
    checkpoint["state"]["best_score"] = 2.0  # as if a later epoch had been that good
    torch.save(checkpoint, best)
    train.main(["--resume", str(tmp_path / "checkpoints" / "checkpoint_epoch_0.pt"), "--quiet", "--lr", "1e-7"])
    assert load_checkpoint(best)["state"]["best_score"] == 2.0


def test_scores_of_other_validation_patches_are_not_compared(patches, tmp_path, capsys):
    """Where what was best so far was reached on other patches, the next epoch is the best, and takes best_model.pt."""
    train.main(flags(patches, tmp_path))
    best, last = (tmp_path / "checkpoints" / name for name in ("best_model.pt", "last.pt"))
    for place in (best, last):
        checkpoint = load_checkpoint(place)
        checkpoint["state"]["best_score"] = checkpoint["state"]["schedule"]["best"] = 2.0  # better than any epoch can be
        torch.save(checkpoint, place)
    same = shutil.copytree(patches, tmp_path / "same")
    train.main(["--resume", str(last), "--quiet", "--epochs", "4", "--patches-dir", str(same)])
    assert load_checkpoint(best)["state"]["best_score"] == 2.0  # moved elsewhere, they are the same
    other = write_patch_set(tmp_path / "other", {"train": 3, "val": 1}, size=32, seed=1)
    train.main(["--resume", str(last), "--quiet", "--epochs", "5", "--patches-dir", str(other)])
    assert "in epoch 4: " in capsys.readouterr().out
    kept, position = load_checkpoint(best)["state"], load_checkpoint(last)["state"]
    assert kept["epoch"] == 5 and kept["best_score"] == position["best_score"] == position["schedule"]["best"] <= 1


def test_an_epoch_begun_on_other_training_patches_begins_anew(patches, tmp_path, monkeypatch, capsys):
    at_step(monkeypatch, STEPS + 1, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        train.main(flags(patches, tmp_path / "run"))
    monkeypatch.undo()
    other = write_patch_set(tmp_path / "other", {"train": 5, "val": 1}, size=32, seed=2)
    last = tmp_path / "run" / "checkpoints" / "last.pt"
    train.main(["--resume", str(last), "--patches-dir", str(other)])
    assert "the epoch begins anew" in capsys.readouterr().err
    assert load_checkpoint(last)["state"]["step"] == EPOCHS * 5  # as if all epochs had been of these patches: they decide when it ends


@pytest.mark.parametrize("scenes", [1, 3])
def test_a_run_that_goes_on_with_other_patches_trains_all_the_epochs_that_were_left(patches, tmp_path, monkeypatch, scenes):
    """Whether an epoch of them has fewer steps, or as many, than what the run has behind it."""
    at_step(monkeypatch, 2 * STEPS - 1, lambda: os.kill(os.getpid(), signal.SIGINT))  # after the last step of an epoch
    with pytest.raises(KeyboardInterrupt):
        train.main(flags(patches, tmp_path / "run", "--epochs", "2"))
    monkeypatch.undo()
    other = write_patch_set(tmp_path / "other", {"train": scenes, "val": 1}, size=32, seed=2)
    last = tmp_path / "run" / "checkpoints" / "last.pt"
    assert load_checkpoint(last)["state"]["step_in_epoch"] == STEPS
    taken = []
    at_step(monkeypatch, -1, None)
    counting = train.to_device
    monkeypatch.setattr(train, "to_device", lambda batch, *rest: (taken.append(len(rest)), counting(batch, *rest))[1])
    train.main(["--resume", str(last), "--patches-dir", str(other), "--quiet"])
    assert taken.count(3) == scenes and load_checkpoint(last)["state"]["epoch"] == 2  # the second epoch, all of it
    assert [row["epoch"] for row in without_time(tmp_path / "run")] == ["0", "1"]


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


def test_dropout_and_workers_do_not_disturb_a_resumed_run(patches, tmp_path, monkeypatch):
    wide = ["--architecture", "deeplabv3plus", "--encoder", "mobilenet_v2", "--encoder-weights", "none", "--epochs", "1"]
    train.main(flags(patches, tmp_path / "whole", *wide))
    at_step(monkeypatch, 2, kill)
    with pytest.raises(Killed):
        train.main(flags(patches, tmp_path / "killed", *wide, "--save-minutes", "0"))
    monkeypatch.undo()
    train.main(["--resume", str(tmp_path / "killed" / "checkpoints" / "last.pt"), "--num-workers", "2", "--quiet"])
    assert_same_end(tmp_path / "killed", tmp_path / "whole")


@pytest.mark.slow
def test_the_program_itself_killed_at_random_moments(patches, undisturbed, tmp_path):
    """kill -9 and SIGTERM of the real process, then --resume until it is done. Exit codes 143 and 0."""
    command = [sys.executable, "train.py", *flags(patches, tmp_path / "run", "--save-minutes", "0")]
    last = tmp_path / "run" / "checkpoints" / "last.pt"
    for attempt in range(8):
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 60
        while process.poll() is None and not last.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.15 * attempt)
        process.send_signal(signal.SIGKILL if attempt % 2 else signal.SIGTERM)
        code = process.wait()
        assert code in (-9, 143, 0, -15), process.stderr.read()
        command = [sys.executable, "train.py", "--resume", str(last), "--quiet"]
        if code == 0:
            break
    assert subprocess.run(command, cwd=ROOT).returncode == 0
    assert_same_end(tmp_path / "run", undisturbed)


def test_a_signal_to_all_processes_ends_a_run_after_its_step_with_everything_saved(patches, tmp_path):
    """`timeout` and Slurm send SIGTERM to the workers of the data loaders too."""
    last, table = tmp_path / "run" / "checkpoints" / "last.pt", tmp_path / "run" / "metrics.csv"
    wide = ("--num-workers", "2", "--epochs", "1000", "--save-minutes", "0")
    command = [sys.executable, "train.py", *flags(patches, tmp_path / "run", *wide)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while process.poll() is None and not (table.exists() and table.stat().st_size > 1000):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 143 and "go on with --resume" in said and "Traceback" not in said
    assert load_checkpoint(last)["state"]["epoch"] >= 1
    with pytest.raises(ProcessLookupError):  # no worker is left
        os.killpg(process.pid, 0)
