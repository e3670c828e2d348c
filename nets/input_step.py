"""What happens to reflectance before a network sees it: spectral indices are appended, then bands are normalised."""

import torch
from torch import nn

from constants import band_role
from runtime.errors import UserError, did_you_mean

# index = (a - b) / (a + b), both given by what the band sees. Computed here, inside the model and after any augmentation of the bands.
SPECTRAL_INDICES = {
    "ndvi": ("nir", "red"),
    "nbr": ("nir", "swir2"),
    "ndwi": ("green", "nir"),
    "ndmi": ("nir", "swir1"),
}
STAND_INS = {"nir": "narrow_nir"}  # where a sensor's file has only the other one


def index_positions(name, bands):
    """(position of a, position of b) of a spectral index among band names; UserError where the bands do not allow it."""
    if name not in SPECTRAL_INDICES:
        near = did_you_mean(name, SPECTRAL_INDICES)
        raise UserError(f"unknown spectral index {name!r}; expected one of {', '.join(SPECTRAL_INDICES)}.{near}")
    roles = [band_role(band) for band in bands]
    positions = []
    for role in SPECTRAL_INDICES[name]:
        found = [wanted for wanted in (role, STAND_INS.get(role)) if wanted in roles]
        if not found:
            raise UserError(f"index {name} needs a band that sees {role}, but the bands are {', '.join(bands)}; leave the index out")
        positions.append(roles.index(found[0]))
    return tuple(positions)


class InputStep(nn.Module):
    """
    reflectance (B, bands, H, W), float, usually 0..1 → (B, bands + indices, H, W) float32, bands with mean 0 and standard deviation 1 over
    the training split, indices in -1..1 as they are.
    """

    def __init__(self, bands, indices=(), mean=None, std=None):
        super().__init__()
        self.pairs = [index_positions(name, bands) for name in indices]
        mean = torch.zeros(len(bands)) if mean is None else torch.as_tensor(mean, dtype=torch.float32)
        std = torch.ones(len(bands)) if std is None else torch.as_tensor(std, dtype=torch.float32)
        self.register_buffer("mean", mean.reshape(1, -1, 1, 1))
        self.register_buffer("std", std.reshape(1, -1, 1, 1))

    def forward(self, reflectance):
        reflectance = reflectance.float()
        parts = [(reflectance - self.mean) / self.std]
        for a, b in self.pairs:
            high, low = reflectance[:, a : a + 1], reflectance[:, b : b + 1]
            # Reflectance can be a little below zero after an atmospheric correction; near a zero sum the quotient means nothing.
            total = high + low
            parts.append(torch.where(total > 1e-4, (high - low) / total.clamp(min=1e-4), 0.0).clamp(-1.0, 1.0))
        return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
