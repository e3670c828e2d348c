"""What happens to reflectance before a network sees it: spectral indices are appended, then bands are normalised."""

import itertools

import torch
from torch import nn

from runtime.errors import UserError
from spectral_indices import SPECTRAL_INDICES, index_positions

# The index set "pairs": (a - b) / (a + b) of every two bands, IN PLACE of the bands. Factors common to all bands (sun,
# slope) cancel, so a network trained on a dozen scenes generalises better to the next one.
PAIRS = "pairs"
PAIRS_FLOOR = 0.02  # reflectance added to the sum: in deep shadow and water the quotient would be noise


def count_inputs(bands, indices):
    """How many channels a network sees. UserError where "pairs" is combined with others or has too few bands."""
    if PAIRS not in indices:
        return len(bands) + len(indices)
    if len(indices) > 1 or len(bands) < 2:
        got = f"indices {', '.join(indices)} and bands {', '.join(bands)}"
        raise UserError(f"the index set {PAIRS!r} stands alone and needs two bands; got {got}")
    return len(bands) * (len(bands) - 1) // 2


def input_names(bands, indices):
    """A name for each channel that a network sees: bands and indices, or `B08/B12` of pairs."""
    count_inputs(bands, indices)
    if PAIRS in indices:
        return tuple(f"{a}/{b}" for a, b in itertools.combinations(bands, 2))
    return (*bands, *indices)


def index_values(name, a, b):
    """A spectral index (see spectral_indices.py) of two tensors of reflectance, in -1..1; 0 where both bands are about 0."""
    index = SPECTRAL_INDICES[name]
    # Reflectance can be a little below zero after an atmospheric correction; near a zero sum the quotient means nothing.
    total = a + index.weight * b + index.constant
    return torch.where(total > 1e-4, index.gain * (a - b) / total.clamp(min=1e-4), 0.0).clamp(-1.0, 1.0)


class InputStep(nn.Module):
    """
    reflectance (B, bands, H, W), float, usually 0..1 → (B, bands + indices, H, W) float32, bands with mean 0 and standard deviation 1 over
    the training split, indices in -1..1 as they are. With the indices ("pairs",): → (B, bands · (bands - 1) / 2, H, W), no bands.
    """

    def __init__(self, bands, indices=(), mean=None, std=None):
        super().__init__()
        self.only_pairs = PAIRS in indices
        if self.only_pairs:
            count_inputs(bands, indices)  # refuses impossible combinations
            both = list(itertools.combinations(range(len(bands)), 2))
            self.first, self.second = [a for a, _ in both], [b for _, b in both]
        self.indices = [] if self.only_pairs else [(name, *index_positions(name, bands, [PAIRS])) for name in indices]
        mean = torch.zeros(len(bands)) if mean is None else torch.as_tensor(mean, dtype=torch.float32)
        std = torch.ones(len(bands)) if std is None else torch.as_tensor(std, dtype=torch.float32)
        self.register_buffer("mean", mean.reshape(1, -1, 1, 1))
        self.register_buffer("std", std.reshape(1, -1, 1, 1))

    def forward(self, reflectance):
        reflectance = reflectance.float()
        if self.only_pairs:
            reflectance = reflectance.clamp(min=0.0)
            a, b = reflectance[:, self.first], reflectance[:, self.second]
            return (a - b) / (a + b + PAIRS_FLOOR)
        parts = [(reflectance - self.mean) / self.std]
        for name, a, b in self.indices:  # here, inside the model, and after any augmentation of the bands
            parts.append(index_values(name, reflectance[:, a : a + 1], reflectance[:, b : b + 1]))
        return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
