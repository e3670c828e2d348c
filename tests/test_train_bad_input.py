"""What train.py says to runs, checkpoints and machines that are not as it left them. Run: pytest tests/test_train_bad_input.py"""


import os

import pytest
from patch_factory import write_patch_set

import train
from runtime.device import choose_device, usable_cores
from runtime.distributed import Processes
from runtime.run_folder import RunFolder


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
def test_there_are_no_more_workers_than_cores_that_the_process_may_use(patches):
    before = os.sched_getaffinity(0)
    args = train.build_parser().parse_args(["--patches-dir", str(patches), "--num-workers", "4"])
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_cores() == 1
        assert train.open_data(args, Processes(), choose_device("cpu"), None).num_workers == 1
    finally:
        os.sched_setaffinity(0, before)
    assert usable_cores() == len(before)
