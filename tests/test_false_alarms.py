"""The measure of false alarms: bands by formula, burned shares, and how far a map depends on its windows."""

import numpy as np
import pytest
import torch

from benchmarks.false_alarms import Way, alarms, as_fires, halved
from mapping.index_check import IndexCheck

BANDS = ("TCI_R", "TCI_G", "TCI_B", "B8", "B12")


class Network(torch.nn.Module):
    """Burned where the last band is above 0.5, or above the window's mean."""

    def __init__(self, contrast):
        super().__init__()
        self.contrast = contrast
        self.config = type("Config", (), {"bands": BANDS, "num_classes": 2, "mean": None})

    def forward(self, x):
        level = x[:, -1:].mean(dim=(2, 3), keepdim=True) if self.contrast else 0.5
        return torch.cat([level - x[:, -1:], x[:, -1:] - level], dim=1) * 20


def test_bands_are_made_as_stated():
    found = as_fires(*(np.full((2, 2), value) for value in (0.1, 0.2, 0.9, 0.31, 0.22)))
    assert found[:, 0, 0] == pytest.approx([128 / 255, 1.0, 1.0, 0.31, 0.22]) and found.dtype == np.float32  # 127.5 is rounded to even
    assert halved(np.arange(12.0).reshape(1, 3, 4)).tolist() == [[[2.5, 4.5]]]


def test_shares_are_counted_and_only_a_network_that_looks_at_its_window_moves():
    image = np.random.default_rng(0).random((5, 60, 50)).astype(np.float32)
    image[4, :, :25] *= 0.3  # so that windows differ in their mean
    expected = float((image[4] > 0.5).mean())
    share, difference, changed = alarms([Network(False)], [image], Way(16, 0.25))
    assert share == pytest.approx(expected) and difference < 1e-5 and changed == 0
    assert all(value > 0.01 for value in alarms([Network(True)], [image], Way(16, 0.25))[1:])
    network, kept = Network(True), {}
    assert alarms([network], [image], Way([16, 24], 0.25), kept) == alarms([network], [image], Way([16, 24], 0.25)) and len(kept) == 4


def test_an_index_that_bears_nothing_out_leaves_nothing():
    image = np.full((5, 40, 40), 0.9, np.float32)
    image[3] = 1.0  # NBR (1 - 0.9) / 1.9 = 0.053
    assert alarms([Network(False)], [image], Way(16, 0.25, IndexCheck("nbr", 0.06, False, 0.5)))[0] == 1
    assert alarms([Network(False)], [image], Way(16, 0.25, IndexCheck("nbr", 0.05, False, 0.5)))[0] == 0
