"""The cards of the weights, and training that begins with them. Run: pytest tests/test_weights.py"""

import csv
import hashlib
import re
from pathlib import Path

import numpy as np
import pytest

import chip
import train_pansharpen
from chipping.fake_chips import FakeRecipe, make_fake_chip, our_reflectances, read_reflectances
from chipping.pan_chips import decode_chip
from pansharpening.classical import fuse_whole
from pansharpening.metrics import ergas
from pansharpening.network import pansharpener_from_checkpoint
from pansharpening.sharpeners import network_sharpener
from runtime.checkpoint import load_checkpoint

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS = ROOT / "weights"


def test_every_file_of_weights_has_a_card_with_its_licence_training_data_and_checksum():
    cards = dict(re.findall(r"^## (\S+)\n(.*?)(?=^# |^## |\Z)", (WEIGHTS / "README.md").read_text(), re.M | re.S))
    files = [path for path in WEIGHTS.iterdir() if path.name != "README.md"]
    assert files
    for path in files:
        card = cards[path.name]
        assert hashlib.sha256(path.read_bytes()).hexdigest() in card
        for row in ("task", "training data", "licence", "made by", "scores", "limits"):
            assert f"| {row} |" in card


@pytest.mark.parametrize("name", ["pansharpen-fake.pt", "pansharpen-fake-bgrn.pt"])
def test_the_card_counts_the_weights_and_names_the_bands(name):
    checkpoint = load_checkpoint(WEIGHTS / name, "pansharpen")
    card = (WEIGHTS / "README.md").read_text().split(f"## {name}")[1].split("## ")[0]
    count = sum(parameter.numel() for parameter in pansharpener_from_checkpoint(checkpoint).parameters())
    assert f"{count:,} weights".replace(",", " ") in card
    assert ", ".join(checkpoint["model"]["bands"]) in card


@pytest.mark.parametrize(("name", "bands"), [("pansharpen-fake.pt", 8), ("pansharpen-fake-bgrn.pt", 4)])
def test_the_shipped_networks_are_better_than_no_sharpening_on_chips_they_have_not_seen(name, bands):
    checkpoint = load_checkpoint(WEIGHTS / name, "pansharpen")
    recipe = FakeRecipe(side=64, seed=7, reduction="mtf", bands=tuple(checkpoint["model"]["bands"]))
    assert len(recipe.bands) == bands
    reflectances, sharpener, errors = read_reflectances(our_reflectances(recipe.bands), bands), network_sharpener(checkpoint), []
    for number in range(4):
        pan, mul, truth, _ = decode_chip(make_fake_chip(reflectances, recipe, number), "bands")
        images = sharpener.run(mul[None], pan[None]), fuse_whole("bicubic", mul[None], pan[None], 4)
        errors.append([ergas(truth.numpy(), image[0].numpy()) for image in images])
    network, bicubic = np.mean(errors, axis=0)
    assert network < 0.7 * bicubic


@pytest.mark.slow
def test_a_session_begun_with_the_shipped_weights_is_ahead_of_one_from_scratch(tmp_path):
    """The documented command; chips of another seed than those that the weights were trained on."""
    chips = tmp_path / "chips"
    assert not chip.main(["fake-chips", "-o", str(chips), "-c", "8", "-s", "96", "-r", "7", "--reduction", "mtf", "--quiet"])
    losses = {}
    for session, begin in (("own", ["--load-from", str(WEIGHTS / "pansharpen-fake.pt")]), ("scratch", [])):
        assert not train_pansharpen.main(["--session", session, "--sessions-dir", str(tmp_path / "s"), *begin, "--chips", str(chips),
                                          "--epochs", "1", "--lbs", "8", "--workers", "0", "--device", "cpu", "--quiet"])
        with open(tmp_path / "s" / session / "metrics.csv", newline="") as file:
            losses[session] = float(next(csv.DictReader(file))["train_loss"])
    assert losses["own"] < 0.95 * losses["scratch"]
