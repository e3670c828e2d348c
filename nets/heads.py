"""
Heads: what a decoder gives → values for each pixel, or for the whole patch.

To add one: a class like PixelHead, and a line in HEADS. USUAL_HEAD says which one a task takes where none is named.
"""

from torch import nn

from nets.layout import MAPS, VECTORS
from nets.necks import positions_of


class PixelHead(nn.Module):
    """
    (B, C, h, w) → (B, outputs, h · 2^upscale, w · 2^upscale).

    channels: of 3 x 3 convolutions before the last one. upscale: how often the size is doubled by a learned convolution and pixel shuffle.
    dropout: share of channels dropped before the last convolution.
    """

    def __init__(self, layout, outputs, *, channels=(), dropout=0.0, upscale=0):
        super().__init__()
        layout.require(MAPS)
        inner, steps = layout.channels[0], []
        for _ in range(upscale):
            steps += [nn.Conv2d(inner, inner * 4, 1), nn.PixelShuffle(2)]
        for outer in (channels,) if isinstance(channels, int) else channels:
            steps += [nn.Conv2d(inner, outer, 3, padding=1), nn.ReLU(inplace=True)]
            inner = outer
        self.steps = nn.Sequential(*steps, nn.Dropout2d(dropout), nn.Conv2d(inner, outputs, 1))

    def forward(self, x):
        return self.steps(x)


ACTIVATIONS = {"none": nn.Identity, "relu": nn.ReLU, "softplus": nn.Softplus, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh}


class RegressionHead(PixelHead):
    """A PixelHead whose values pass an activation: none, relu and softplus (from 0 on), sigmoid (0..1), tanh (-1..1)."""

    def __init__(self, layout, outputs, *, channels=(), dropout=0.0, upscale=0, activation="none"):
        super().__init__(layout, outputs, channels=channels, dropout=dropout, upscale=upscale)
        activation = "none" if activation is None else activation
        if activation not in ACTIVATIONS:
            raise ValueError(f"expected activation of {', '.join(ACTIVATIONS)}, got {activation!r}")
        self.activation = ACTIVATIONS[activation]()

    def forward(self, x):
        return self.activation(super().forward(x))


class ClassificationHead(nn.Module):
    """Maps, tokens or vectors → (B, outputs): the mean over all positions, linear layers with ReLU of `channels` in between, dropout."""

    def __init__(self, layout, outputs, *, channels=(), dropout=0.0):
        super().__init__()
        self.is_vector, self.class_tokens = layout.form == VECTORS, layout.class_tokens
        inner, steps = layout.channels[0], []
        for outer in (channels,) if isinstance(channels, int) else channels:
            steps += [nn.Linear(inner, outer), nn.ReLU(inplace=True)]
            inner = outer
        self.steps = nn.Sequential(*steps, nn.Dropout(dropout), nn.Linear(inner, outputs))

    def forward(self, x):
        return self.steps(x if self.is_vector else positions_of(x, self.class_tokens).mean(dim=1))


HEADS = {
    "pixel": PixelHead,
    "regression": RegressionHead,
    "classification": ClassificationHead,
}
USUAL_HEAD = {"segmentation": "pixel", "regression": "regression", "classification": "classification", "multilabel": "classification"}
