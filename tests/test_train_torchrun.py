"""What is special about train.py under torchrun; the rest is in test_training_promises.py."""

import json

import pytest
from patch_factory import write_patch_set
from training_programs import torchrun

import train
from dataset import WildfireDataModule
from runtime.distributed import Processes
from runtime.errors import UserError


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    # seven patches to score: they can't be dealt out evenly
    return write_patch_set(tmp_path_factory.mktemp("set") / "patches", {"train": 4, "val": 7}, size=32, grid=(1, 1))


@pytest.mark.slow
def test_two_processes_score_like_one(patches, tmp_path):
    train.main(["--patches-dir", str(patches), "--output-dir", str(tmp_path / "run"), "--architecture", "smallunet", "--batch-size", "4",
                "--num-workers", "0", "--epochs", "1", "--quiet", "--device", "cpu"])
    words = ["--test-only", "--resume", str(tmp_path / "run" / "checkpoints" / "best_model.pt"), "--test-split", "val", "--quiet",
             "--device", "cpu", "--output-dir"]
    done = torchrun("train.py", *words, tmp_path / "two")
    assert done.stdout.count("fire IoU") == 1  # the first process speaks for all
    train.main([*words, str(tmp_path / "one")])
    one, two = (json.loads((tmp_path / name / "scores_val.json").read_text()) for name in ("one", "two"))
    assert one == two and len(one["results"]) == 7


def test_a_batch_that_can_not_be_dealt_out_is_one_line(patches):
    with pytest.raises(UserError, match="pass a multiple of 2"):
        WildfireDataModule(patches, batch_size=5, processes=Processes(rank=0, size=2)).setup()
