"""Spectral indices have the values of their published formulas. Run: pytest tests/test_spectral_indices.py"""

from pathlib import Path

import numpy as np
import pytest
import torch

import train
from constants import SENTINEL2_L2A_BANDS, band_role
from nets.input_step import InputStep, index_values
from runtime.errors import UserError
from spectral_indices import SPECTRAL_INDICES, index_positions

DOCS = Path(__file__).resolve().parent.parent / "docs" / "training.md"
# As published, by what the bands see: G green, R red, N near infrared, S short-wave infrared at 1.6 and 2.2 µm.
PUBLISHED = {
    "ndvi": lambda G, R, N, S1, S2: (N - R) / (N + R),
    "savi": lambda G, R, N, S1, S2: (1 + 0.5) * (N - R) / (N + R + 0.5),
    "evi2": lambda G, R, N, S1, S2: 2.5 * (N - R) / (N + 2.4 * R + 1),
    "nbr": lambda G, R, N, S1, S2: (N - S2) / (N + S2),
    "nbr2": lambda G, R, N, S1, S2: (S1 - S2) / (S1 + S2),
    "ndwi": lambda G, R, N, S1, S2: (G - N) / (G + N),
    "mndwi": lambda G, R, N, S1, S2: (G - S1) / (G + S1),
    "ndmi": lambda G, R, N, S1, S2: (N - S1) / (N + S1),
    "ndbi": lambda G, R, N, S1, S2: (S1 - N) / (S1 + N),
    "ndsi": lambda G, R, N, S1, S2: (G - S1) / (G + S1),
}


def test_every_index_of_the_table_has_its_published_formula():
    assert PUBLISHED.keys() == SPECTRAL_INDICES.keys()


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_network_sees_the_published_values(name):
    image = np.random.default_rng(0).uniform(0.01, 0.6, (12, 9, 7)).astype(np.float32)
    green, red, nir, swir1, swir2 = (image[SENTINEL2_L2A_BANDS.index(b)].astype(float) for b in ("B03", "B04", "B08", "B11", "B12"))
    expected = np.clip(PUBLISHED[name](green, red, nir, swir1, swir2), -1, 1)
    step = InputStep(SENTINEL2_L2A_BANDS, [name])
    assert np.abs(step(torch.from_numpy(image)[None])[0, 12].numpy() - expected).max() < 1e-6


@pytest.mark.parametrize("name", ["ndvi", "nbr", "ndwi", "ndmi"])
def test_quotients_are_the_same_bits_as_when_they_were_written_out(name):
    """Checkpoints that were trained before there were other forms: negative and zero reflectance too."""
    a, b = (torch.from_numpy(np.random.default_rng(seed).normal(0.1, 0.15, (40, 50)).astype(np.float32)) for seed in (1, 2))
    a[:3], b[:5] = 0.0, 0.0
    total = a + b
    before = torch.where(total > 1e-4, (a - b) / total.clamp(min=1e-4), 0.0).clamp(-1.0, 1.0)
    assert torch.equal(index_values(name, a, b), before)


def test_an_index_without_its_bands_and_a_misspelt_one_are_told():
    with pytest.raises(UserError, match="index mndwi needs a band that sees swir1, but the bands are B03, B08"):
        index_positions("mndwi", ["B03", "B08"])
    with pytest.raises(UserError, match="Did you mean 'mndwi'"):
        InputStep(["B03", "B11"], ["mndwy"])
    assert index_positions("ndbi", ["B8A", "B11"]) == (1, 0)  # the narrow near infrared stands in


def test_the_formula_that_people_read_is_the_one_that_is_computed():
    for name, index in SPECTRAL_INDICES.items():
        values = {index.a: 0.31, index.b: 0.12}
        expression = index.formula
        for role in sorted(values, key=len, reverse=True):
            expression = expression.replace(role, repr(values[role]))
        expression = expression.replace(" (", " * (") if not expression.startswith("(") else expression
        expression = expression.replace("/ * (", "/ (").replace("2.4 ", "2.4 * ")
        got = float(index_values(name, torch.tensor(0.31), torch.tensor(0.12)))
        assert eval(expression) == pytest.approx(got, abs=1e-6), (name, expression)


def test_help_and_docs_name_every_index():
    (flag,) = (a for a in train.build_parser()._actions if a.dest == "indices")
    rows = [line for line in DOCS.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    for name, index in SPECTRAL_INDICES.items():
        assert name in flag.help.split() or f"{name};" in flag.help.split()
        assert f"| `{name}` | {index.formula} | {index.shows} | {index.source} |" in rows
        assert all(any(band_role(band) == role for band in SENTINEL2_L2A_BANDS) for role in (index.a, index.b))
