"""docs/models.md does what it says: its blocks are run as they stand. Run: pytest tests/test_models_doc.py"""

import importlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from rasterio.transform import from_origin

import chip
import inference
import train
from nets.assembled import ALL_DECODERS, build_model
from nets.encoders import ENCODERS
from nets.heads import HEADS
from nets.model_config import ModelConfig
from nets.necks import NECKS

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "models.md").read_text(encoding="utf-8")
LIMIT = 20  # lines that a newcomer writes for one part
TABLES = {"nets.encoders": ("ENCODERS",), "nets.decoders": ("DECODERS",), "nets.heads": ("HEADS", "USUAL_HEAD"),
          "losses": ("TERMS",), "tasks": ("TASKS",), "nets.model_config": ("TASKS",)}


def block_of(part):
    """The code below `**A part**`."""
    return re.search(rf"\*\*An? {part}\*\*\n\n```python\n(.*?)```", PAGE, re.DOTALL)[1]


def take_in(code):
    """Run each piece of a block in the file that the line above it names."""
    for path, text in re.findall(r"# ([\w/]+)\.py\n(.*?)(?=# [\w/]+\.py\n|\Z)", code, re.DOTALL):
        exec(text, vars(importlib.import_module(path.replace("/", "."))))


@pytest.fixture
def restored(monkeypatch):
    """Tables as they were, after the test."""
    for module, names in TABLES.items():
        for name in names:
            value = getattr(importlib.import_module(module), name)
            if isinstance(value, dict):
                inner = {key: dict(v) if isinstance(v, dict) else v for key, v in value.items()}
                yield_back.append((value, inner))
            else:
                monkeypatch.setattr(importlib.import_module(module), name, value)
    yield
    while yield_back:
        value, inner = yield_back.pop()
        for key, old in inner.items():
            if isinstance(old, dict):
                value[key].clear()
                value[key].update(old)
        for key in set(value) - set(inner):
            del value[key]


yield_back = []  # (a table, its rows before)


def step(model, loss_of):
    """One training step; → whether the loss of the same batch fell."""
    torch.manual_seed(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    x = torch.rand(2, 3, 40, 24)
    before = loss_of(model.train()(x).output)
    before.backward()
    optimizer.step()
    return loss_of(model(x).output) < before


@pytest.mark.parametrize("part", ["encoder", "decoder", "head", "loss", "task"])
def test_a_part_is_added_in_under_twenty_lines(part):
    assert len(block_of(part).strip().splitlines()) < LIMIT


def test_an_encoder_a_decoder_and_a_head_of_a_newcomer_train_together(restored):
    for part in ("encoder", "decoder", "head"):
        take_in(block_of(part))
    torch.manual_seed(0)
    model = build_model(ModelConfig(encoder="patches", encoder_args={"width": 16}, decoder="doubled", head="wide", head_args={"kernel": 3}))
    target = torch.randint(0, 2, (2, 40, 24))
    assert model(torch.rand(1, 3, 33, 17)).output.shape == (1, 2, 33, 17)
    assert step(model, lambda output: torch.nn.functional.cross_entropy(output, target))


def test_a_loss_and_a_task_of_a_newcomer_train_a_model(restored):
    for part in ("loss", "task"):
        take_in(block_of(part))
    from losses import LossFacts, make_loss
    from tasks import TASKS

    task, target = TASKS["height"], torch.rand(2, 40, 24)
    model = build_model(ModelConfig(task="height", outputs=1, encoder="small", decoder="fcn", decoder_args={"channels": 4}))
    for names in (task.usual_loss, {"charbonnier": 1.0}):
        loss = make_loss("height", names, LossFacts(class_weights=None, gamma=2.0, scale=1.0))
        assert step(model, lambda output, loss=loss: loss(output, target)[0])


@pytest.mark.slow
def test_a_task_of_a_newcomer_goes_from_rasters_through_the_programs_to_a_map(restored, make_raster, tmp_path, monkeypatch):
    for part in ("loss", "task"):
        take_in(block_of(part))
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for name in ("a", "b"):
        image = random.integers(500, 3000, (2, 32, 64)).astype(np.uint16)
        place = from_origin(500_000 + 5000 * (name == "b"), 4_600_000, 10, 10)
        make_raster(f"images/{name}.tif", image, transform=place, descriptions=("B03", "B08"))
        make_raster(f"masks/{name}.tif", image[1] / 100 + 200.0, transform=place, dtype=np.float32)
    assert not chip.main(["make-patches", "--task", "height", "--target", "height", "--images", "images", "--masks", "masks", "--val", "b",
                          "--divide-by", "10000", "--patch-size", "32", "--workers", "1", "--quiet"])
    line, *_ = (json.loads(line) for line in Path("patches/manifest.jsonl").read_text().splitlines())
    assert line["target_sums"]["mask"][2] > 200
    quiet = ["--device", "cpu", "--quiet"]
    assert train.main(["--task", "height", "--encoder", "small", "--encoder-weights", "none", "--decoder", "fcn", "--decoder-args",
                       "channels=4", "--max-steps", "1", "--batch-size", "2", "--num-workers", "0", "--loss", "huber,charbonnier",
                       *quiet]) == 0
    assert train.main(["--test-only", "--resume", "output", "--test-split", "val", "--num-workers", "0", *quiet]) == 0
    assert json.loads(Path("output/scores_val.json").read_text())["scores"]["network"]["rmse"] < 100
    assert inference.main(["--checkpoint", "output", "images/a.tif", "--accept-scale", *quiet]) == 0
    with rasterio.open("maps/a_values.tif") as found:
        assert 200 < found.read(1).mean() < 250  # in the target's units, whose mean a network of random weights is near to


def test_the_notebooks_block_runs():
    names = {}
    exec(re.search(r"## In a notebook\n\n```python\n(.*?)```", PAGE, re.DOTALL)[1], names)
    assert names["output"].shape == (2, 2, 100, 80) and names["auxiliary_heads"]["aux1"].shape == (2, 2, 100, 80)


def test_the_users_network_of_the_page_is_one():
    names = {}
    exec(re.search(r"## Your own network.*?```python\n(.*?)```", PAGE, re.DOTALL)[1], names)
    output = names["build_model"](ModelConfig())(torch.rand(1, 3, 8, 8)).output
    assert output.shape == (1, 2, 8, 8)


def test_the_page_names_every_part():
    for table in (ENCODERS, NECKS, ALL_DECODERS, HEADS):
        assert [name for name in table if f"`{name}`" not in PAGE] == []
