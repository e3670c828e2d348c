"""Two processes under torchrun do what one does. Run: pytest tests/test_train_torchrun.py"""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from patch_factory import write_patch_set
from two_processes import step_and_validate

import train
from runtime.checkpoint import load_checkpoint
from runtime.distributed import Processes
from runtime.errors import run_program

ROOT = Path(__file__).resolve().parent.parent


def torchrun(*words, code=0):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == code, done.stderr[-3000:]
    return done


def said_by(program, stderr):
    """The program's own lines among those of torchrun."""
    return [line for line in stderr.splitlines() if line.startswith(f"{program}: ")]


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    # nine patches for training and seven for validation: neither divides evenly
    return write_patch_set(tmp_path_factory.mktemp("set") / "patches", {"train": 9, "val": 7, "test": 3}, size=32, grid=(1, 1))


def test_two_processes_give_one_processs_gradients_statistics_and_scores(patches, tmp_path):
    torchrun(ROOT / "tests" / "two_processes.py", patches, tmp_path / "two.pt")
    two = torch.load(tmp_path / "two.pt", weights_only=True)
    one = step_and_validate(patches, Processes())
    assert one["patches"] == 6 and two["patches"] == 3 and two["gathered"] == [0, 1] and two["highest"] == 2

    for name, gradient in one["gradients"].items():
        assert torch.allclose(two["gradients"][name], gradient, rtol=0, atol=1e-6), name
    assert max(float(g.abs().max()) for g in one["gradients"].values()) > 1e-3  # there is something to compare
    for name, value in one["state"].items():
        assert torch.allclose(two["state"][name].double(), value.double(), rtol=0, atol=1e-6), name
    assert torch.allclose(two["losses"], one["losses"], atol=1e-6)
    assert repr(two["val"]) == repr(one["val"])  # to the last digit, the loss as well
    detection = "detection"
    assert torch.equal(two["train"][detection], one["train"][detection])
    assert (two["train"]["confusion"] - one["train"]["confusion"]).abs().sum() <= 4  # a pixel on the border may tip over by rounding


@pytest.mark.slow
def test_train_py_runs_resumes_and_scores_under_torchrun(patches, tmp_path):
    flags = ["--patches-dir", patches, "--architecture", "smallunet", "--batch-size", "4", "--num-workers", "0", "--quiet"]
    torchrun("train.py", *flags, "--epochs", "1", "--output-dir", tmp_path / "two")
    torchrun("train.py", "--resume", tmp_path / "two" / "checkpoints" / "last.pt", "--epochs", "2", "--quiet")
    train.main([*map(str, flags), "--epochs", "2", "--output-dir", str(tmp_path / "one")])
    one, two = (list(csv.DictReader(open(tmp_path / name / "metrics.csv"))) for name in ("one", "two"))
    assert [r["epoch"] for r in two] == ["0", "1"]
    for a, b in zip(one, two, strict=True):
        for key in ("train_loss", "val_loss", "val_fire_iou", "val_mean_iou", "train_fire_iou"):
            assert float(a[key]) == pytest.approx(float(b[key]), abs=0.02), key
        assert a["lr"] == b["lr"] and a["step"] == b["step"]
    states = [load_checkpoint(tmp_path / name / "checkpoints" / "final_model.pt")["state"]["model"] for name in ("one", "two")]
    assert states[0].keys() == states[1].keys()

    best = tmp_path / "two" / "checkpoints" / "best_model.pt"
    done = torchrun("train.py", "--test-only", "--resume", best, "--test-split", "val", "--output-dir", tmp_path / "scores_two", "--quiet")
    assert done.stdout.count("fire IoU") == 1  # the first process speaks for all
    train.main(["--test-only", "--resume", str(best), "--test-split", "val", "--output-dir", str(tmp_path / "scores_one"), "--quiet"])
    one, two = (json.loads((tmp_path / name / "scores_val.json").read_text()) for name in ("scores_one", "scores_two"))
    assert one == two


def test_a_batch_that_can_not_be_dealt_out_is_one_line(patches):
    from dataset import WildfireDataModule
    from runtime.errors import UserError

    with pytest.raises(UserError, match="pass a multiple of 2"):
        WildfireDataModule(patches, batch_size=5, rank=0, world_size=2).setup()


def test_what_only_the_first_process_sees_ends_both_with_one_line(patches, tmp_path):
    (tmp_path / "metrics.csv").write_text("an earlier run")
    flags = ["--patches-dir", patches, "--architecture", "smallunet", "--batch-size", "4", "--num-workers", "0", "--quiet"]
    done = torchrun("train.py", *flags, "--output-dir", tmp_path, code=1)  # torchrun's own exit code
    (line,) = said_by("train.py", done.stderr)
    assert "holds an earlier run" in line and "exitcode  : 2" in done.stderr and "RuntimeError" not in done.stderr


def test_what_only_another_process_sees_ends_both_with_its_line_and_its_exit_code(tmp_path):
    """One label that is no class, in a validation patch that the second process reads while the first waits for its sums."""
    folder = write_patch_set(tmp_path / "patches", {"train": 4, "val": 8}, size=32, grid=(1, 1))
    broken = folder / "val" / "VAL5_r0_c0_mask.npy"  # batches of four: the second of two
    np.save(broken, np.full_like(np.load(broken), 9))
    flags = ["--patches-dir", folder, "--architecture", "smallunet", "--batch-size", "4", "--num-workers", "0", "--quiet"]
    done = torchrun("train.py", *flags, "--output-dir", tmp_path / "out", code=1)
    (line,) = said_by("train.py", done.stderr)
    assert "VAL5_r0_c0_mask.npy holds label 9" in line and "exitcode  : 2" in done.stderr


def test_only_the_first_process_complains_about_flags_and_all_leave_with_2(monkeypatch, capsys):
    """Each process on its own: torchrun ends the second one before it can say much."""
    for rank, lines in (("0", 1), ("1", 0)):
        monkeypatch.setenv("RANK", rank)
        for flags in (["--epoch", "3"], ["--epochs", "0"]):
            monkeypatch.setattr(sys, "argv", ["train.py", *flags])
            with pytest.raises(SystemExit) as leaving:
                run_program(train.main)
            assert leaving.value.code == 2 and len(capsys.readouterr().err.splitlines()) == lines
