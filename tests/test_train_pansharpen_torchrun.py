"""Two processes of train_pansharpen.py under torchrun do what one does."""

import csv
import json

import pytest
import torch
from test_train_torchrun import ROOT, torchrun
from two_pansharpeners import gradients_of

import train_pansharpen
from chipping.fake_chips import OUR_REFLECTANCES, FakeRecipe, make_fake_chips

SMALL = ["--width", "16", "--depth", "1", "--workers", "0", "--device", "cpu", "--quiet"]


@pytest.fixture(scope="module")
def chips(tmp_path_factory):
    """13 chips to learn from and 7 to judge by: neither can be dealt out evenly. A network that has learnt a little."""
    folder = tmp_path_factory.mktemp("chips")
    for name, count in (("train", 13), ("test", 7)):
        make_fake_chips(OUR_REFLECTANCES, folder / name, count, FakeRecipe(side=32, seed=count))
    words = ["--session", "first", "--sessions-dir", folder, "--chips", folder / "train", "--lbs", "4", "--pbs", "4", "--lr", "1e-3"]
    train_pansharpen.main([*map(str, words), *SMALL])
    return folder


def words_of(chips, sessions, *more):
    """Two steps, of eight chips and of five, that leave the weights as they are to the last digit that matters."""
    return [str(w) for w in ("--session", "s", "--sessions-dir", sessions, "--chips", chips / "train", "--test-chips", chips / "test",
                             "--load-from", chips / "latest.pt", "--pbs", "2", "--lbs", "8", "--lr", "1e-30", *SMALL, *more)]


def row_of(sessions):
    (row,) = csv.DictReader((sessions / "s" / "metrics.csv").read_text().splitlines())
    return row


def test_two_processes_give_one_processs_scores_to_the_last_digit_and_its_gradients(chips, tmp_path):
    one = gradients_of(words_of(chips, tmp_path / "one"))
    torchrun(ROOT / "tests" / "two_pansharpeners.py", tmp_path / "kept", *words_of(chips, tmp_path / "two"))
    rows = [row_of(tmp_path / name) for name in ("one", "two")]
    scores = [{key: text for key, text in row.items() if key.startswith("test_")} for row in rows]
    assert scores[0] == scores[1] and set(scores[0]) == {f"test_{name}" for name in ("loss", "ergas", "sam", "q2n", "psnr")}
    baselines = [json.loads((tmp_path / name / "s" / "baselines.json").read_text()) for name in ("one", "two")]
    assert baselines[0] == baselines[1]
    assert rows[0]["chips"] == rows[1]["chips"] == "13"
    assert float(rows[0]["train_loss"]) == pytest.approx(float(rows[1]["train_loss"]), rel=1e-6)

    two = [torch.load(f"{tmp_path / 'kept'}.{rank}", weights_only=True) for rank in (0, 1)]
    assert [len(steps) for steps in (one, *two)] == [2, 2, 2]
    for alone, first, second in zip(one, *two, strict=True):
        assert max(float((first[name] - gradient).abs().max()) for name, gradient in alone.items()) < 1e-6
        assert all(torch.equal(first[name], second[name]) for name in first)
        assert max(float(g.abs().max()) for g in alone.values()) > 1e-2  # there is something to compare
