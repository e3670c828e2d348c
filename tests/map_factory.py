"""Tiny checkpoints and scenes for the tests of inference.py."""

import contextlib
import dataclasses
from unittest import mock

import numpy as np
import torch

import inference
from model import create_segmentation_model
from runtime.checkpoint import save_checkpoint

BANDS = ["B04", "B08", "B12"]
MEAN, STD = [0.1, 0.25, 0.15], [0.05, 0.1, 0.08]


def data(**changes):
    """What a checkpoint says about the images of its training: Sentinel-2 digital numbers."""
    return {
        "bands": BANDS, "divide_by": [10_000.0] * 3, "offset": [0.0] * 3, "nodata": None, "classes": ["background", "fire"],
        "chip_size": 32, "ground_resolution": 10.0, "layer": "mask", "threshold": None, "patches_dir": "nowhere", **changes,
    }


def tiny_model(num_classes=2, seed=0, bands=BANDS, weight=40.0):
    """A network with random weights that finds both classes in noise."""
    torch.manual_seed(seed)
    model = create_segmentation_model(num_classes, architecture="smallunet", bands=bands, encoder_weights=None, mean=MEAN, std=STD).eval()
    with torch.no_grad():
        last = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d)][-1]
        last.weight.mul_(weight)
        last.bias.zero_()
        x = torch.rand(1, len(bands), 64, 64) * 0.4
        last.bias.sub_(model(x).mean(dim=(0, 2, 3)))
    return model


def write_checkpoint(path, model=None, kind="segmentation", **changes):
    model = model or tiny_model()
    config = dataclasses.asdict(model.config)
    config = {key: list(value) if isinstance(value, tuple) else value for key, value in config.items()}
    classes = ["background", "fire"] if model.config.num_classes == 2 else [f"class_{i}" for i in range(model.config.num_classes)]
    described = data(**{"classes": classes, **changes})
    save_checkpoint(path, {"kind": kind, "model": config, "settings": {}, "state": {"model": model.state_dict()}, "data": described})
    return path


def numbers(height, width, seed=0, bands=3):
    """(bands, H, W) uint16 digital numbers 1 … 5000, smooth enough to have areas."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(500, 4500, (bands, height // 6 + 2, width // 6 + 2))
    fine = np.kron(coarse, np.ones((6, 6)))[:, :height, :width] + rng.integers(-400, 400, (bands, height, width))
    return np.clip(fine, 1, 5000).astype(np.uint16)


def run(*words):
    """inference.main in this process; words may be paths and numbers. Returns the exit code; UserError and RunError are raised."""
    return inference.main([str(w) for w in words])


class Killed(BaseException):
    """Stands for kill -9: nothing of ours may catch it."""


@contextlib.contextmanager
def killed_at_call(number, owner, name):
    """The call of owner.name with this number, from 1, ends everything before it does anything."""
    original, calls = getattr(owner, name), []

    def counted(*arguments, **more):
        calls.append(1)
        if len(calls) == number:
            raise Killed
        return original(*arguments, **more)

    with mock.patch.object(owner, name, counted), contextlib.suppress(Killed):
        yield
