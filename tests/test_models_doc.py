"""docs/models.md does what it says: its blocks are run as they stand. Run: pytest tests/test_models_doc.py"""

import importlib
import re
from pathlib import Path

import pytest
import torch

from nets.assembled import ALL_DECODERS, build_model
from nets.encoders import ENCODERS
from nets.heads import HEADS
from nets.model_config import ModelConfig
from nets.necks import NECKS

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "models.md").read_text(encoding="utf-8")
LIMIT = 20  # lines that a newcomer writes for one part
TABLES = {"nets.encoders": ("ENCODERS",), "nets.decoders": ("DECODERS",), "nets.heads": ("HEADS", "USUAL_HEAD"),
          "losses": ("TERMS",), "tasks": ("TASKS",), "nets.model_config": ("PIXEL_TASKS", "TASKS")}


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
