"""What training says before it starts and at its end: whether it can get anywhere, whether it did, which checkpoint to map with."""

import json
import re

import numpy as np
import pytest
import torch
from patch_factory import write_patch_set

import inference
import train
from constants import CEMS_BANDS
from pansharpening.scoring import worse_than_classical
from runtime.checkpoint import load_checkpoint
from runtime.errors import UserError
from runtime.outlook import LEAST_PATH, path_length
from runtime.run_folder import find_result


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    return write_patch_set(tmp_path_factory.mktemp("set") / "patches", {"train": 3, "val": 2, "test": 1}, size=32)


def run(patches, output, *flags):
    """Train a small network. → its folder."""
    base = ["--patches-dir", patches, "--output-dir", output, "--architecture", "smallunet", "--num-workers", 0, "--batch-size", 3,
            "--device", "cpu", *flags]
    assert train.main([str(word) for word in base]) == 0
    return output


@pytest.fixture(scope="module")
def learned(patches, tmp_path_factory):
    """A run that beats the index, whose learning rate fell as planned; one epoch in the middle is the best by chance, or the last."""
    return run(patches, tmp_path_factory.mktemp("run") / "o", "--epochs", 4, "--steps-per-epoch", 10, "--lr", "0.01", "--quiet",
               "--scheduler", "cosine", "--no-class-weights")


def test_the_path_is_the_sum_of_the_rates():
    assert path_length("constant", 1e-4, 100) == pytest.approx(0.01) == path_length("plateau", 1e-4, 100)
    cosine = 0.002 * (0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * np.arange(130) / 129)))
    assert path_length("cosine", 0.002, 130) == pytest.approx(cosine.sum())
    assert path_length("linear", 0.002, 100, 10) == pytest.approx(0.002 * (5.5 + np.linspace(1, 0.01, 90).sum()), rel=0.02)


@pytest.mark.parametrize(("flags", "short"), [
    (["--lr", "1e-4"], True), (["--lr", LEAST_PATH / 2 * 1.01], False), (["--lr", LEAST_PATH / 2 * 0.99], True),
    (["--lr", "1e-4", "--steps-per-epoch", 3], True),
])
def test_training_that_cannot_get_anywhere_is_told_before_it_starts(patches, tmp_path, capsys, flags, short):
    run(patches, tmp_path / "o", "--max-steps", 2, *flags)
    said = capsys.readouterr().err
    assert "2 steps in all, on 3 scenes, 2 others for validation" in said
    lines = [line for line in said.splitlines() if line.startswith("too little training: 2 steps")]
    assert len(lines) == short and all("take --config few-scenes, for chip.py make-patches too" in line for line in lines)
    if lines:
        assert said.index(lines[0]) < said.index("epoch 0")


def test_a_run_that_is_resumed_is_not_told_that_it_is_short(patches, tmp_path, capsys):
    folder = run(patches, tmp_path / "o", "--max-steps", 2, "--lr", "1e-4")
    capsys.readouterr()
    assert train.main(["--resume", str(folder / "checkpoints" / "last.pt"), "--max-steps", "4", "--device", "cpu"]) == 0
    assert "too little" not in capsys.readouterr().err


def nbr_score(patches):
    """Fire IoU over the patches of val of the NBR threshold with the highest IoU over those of train, by trying many."""
    near, short = CEMS_BANDS.index("B08"), CEMS_BANDS.index("B12")

    def read(split):
        pairs = []
        for image in sorted((patches / split).glob("*image.npy")):
            values, mask = np.load(image).astype(float), np.load(str(image).replace("image", "mask"))
            mask = mask[0] if mask.ndim == 3 else mask
            index = (values[near] - values[short]) / (values[near] + values[short])
            pairs.append((index[mask != 255], mask[mask != 255] == 1))
        return tuple(map(np.concatenate, zip(*pairs, strict=True)))

    def iou(index, burned, limit):
        found = index < limit
        return (found & burned).sum() / (found | burned).sum()

    limit = max(np.linspace(-1, 1, 401)[1:-1], key=lambda limit: (round(iou(*read("train"), limit), 9), -abs(limit)))
    return iou(*read("val"), limit)


def test_a_network_below_the_index_is_told_at_the_end_and_when_it_is_scored(patches, tmp_path, capsys):
    folder = run(patches, tmp_path / "o", "--epochs", 1, "--lr", "1e-6", "--quiet")
    *_, below, last = capsys.readouterr().out.splitlines()
    words = r"below the NBR threshold \(([\d.]{5}) against ([\d.]{5}), validation patches\); docs/training.md says what helps"
    ours, index = map(float, re.fullmatch(words, below).groups())
    assert ours < index == pytest.approx(nbr_score(patches), abs=0.02)
    assert last.startswith("map with ")
    assert train.main(["--test-only", "--resume", str(folder), "--test-split", "val", "--quiet", "--device", "cpu"]) == 0
    *_, below = capsys.readouterr().out.splitlines()
    scores = json.loads((folder / "scores_val.json").read_text())["scores"]
    words = (scores[way]["pooled"]["fire_iou"] for way in ("network_at_threshold", "nbr"))
    assert below.startswith("below the NBR threshold ({:.3f} against {:.3f}, pooled)".format(*words))


def test_a_network_above_the_index_is_not(patches, learned, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("mapping.scoring.Baseline.maps", lambda self, values: values < -0.99)
    run(patches, tmp_path / "o", "--epochs", 1, "--steps-per-epoch", 20, "--lr", "0.01", "--quiet")
    assert "below" not in capsys.readouterr().out


# ------------------------------------------------------------------------------------------------ which checkpoint, which threshold


@pytest.mark.parametrize(("flags", "name"), [
    (["--scheduler", "cosine", "--epochs", 2], "final_model.pt"),
    (["--scheduler", "linear", "--max-steps", 3, "--epochs", 9], "final_model.pt"),
    (["--scheduler", "plateau", "--epochs", 1], "best_model.pt"),
    (["--scheduler", "constant", "--epochs", 1], "best_model.pt"),
    (["--scheduler", "cosine", "--epochs", 9, "--patience", 1, "--lr", "1e-9"], "best_model.pt"),  # stopped before its schedule ended
])
def test_the_last_line_names_the_checkpoint_to_map_with(patches, tmp_path, capsys, flags, name):
    folder = run(patches, tmp_path / "o", "--quiet", *flags)
    words = {"final_model.pt": "last epoch, most likely class", "best_model.pt": "best epoch, threshold chosen on validation"}
    assert capsys.readouterr().out.splitlines()[-1] == f"map with {folder / 'checkpoints' / name} ({words[name]})"
    assert find_result(folder) == find_result(folder / "checkpoints") == folder / "checkpoints" / name
    assert load_checkpoint(folder / "checkpoints" / "final_model.pt")["data"]["threshold"] is None
    assert 0 < load_checkpoint(folder / "checkpoints" / "best_model.pt")["data"]["threshold"] < 1


def test_a_run_without_its_end_is_used_with_its_best_epoch_so_far(learned, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match="best_model.pt does not exist"):
        load_checkpoint(find_result(tmp_path))
    hostile = {**torch.load(learned / "checkpoints" / "final_model.pt", weights_only=True), "result": "../../elsewhere.pt"}
    torch.save(hostile, tmp_path / "checkpoints" / "final_model.pt")
    assert find_result(tmp_path) == tmp_path / "checkpoints" / "best_model.pt"


@pytest.mark.parametrize(("name", "words"), [
    ("", "each pixel gets its most likely class"),
    ("checkpoints/best_model.pt", r"a pixel is fire from probability 0\.\d\d on \(chosen on validation\)"),
])
def test_maps_follow_the_rule_and_say_so(learned, make_raster, tmp_path, capsys, name, words):
    image = np.random.default_rng(0).integers(500, 3000, (7, 40, 40)).astype(np.uint16)
    scene = make_raster("scene.tif", image, descriptions=CEMS_BANDS)
    words = f"{find_result(learned / name)}: {words}"
    assert inference.main([str(scene), "--checkpoint", str(learned / name), "--output-dir", str(tmp_path / "m"), "--device", "cpu"]) == 0
    assert re.search(words, capsys.readouterr().err)


def test_test_only_on_a_folder_scores_what_a_map_would_be(learned, capsys):
    assert train.main(["--test-only", "--resume", str(learned), "--quiet", "--device", "cpu", "--overwrite"]) == 0
    scores = json.loads((learned / "scores_test.json").read_text())
    assert scores["checkpoint"].endswith("final_model.pt") and set(scores["scores"]) == {"network", "nbr"}


# ------------------------------------------------------------------------------------------------ sharpening


def test_sharpening_that_is_worse_than_a_classical_method_is_told(tmp_path):
    methods = {"bicubic": {"ergas": 7.5}, "brovey": {"ergas": float("nan")}, "gsa": {"ergas": 4.7}, "mtf-glp-hpm": {"ergas": 5.2}}
    (tmp_path / "b.json").write_text(json.dumps({"scored_on": "x", **methods}))
    for scores in ({"ergas": 4.69}, {}, {"ergas": float("nan")}):
        assert worse_than_classical(tmp_path / "b.json", scores) is None
    line = worse_than_classical(tmp_path / "b.json", {"ergas": 5.0, "sam": 1.0})
    assert line.startswith("worse than GSA (ergas 5.000 against 4.700, test chips);")
