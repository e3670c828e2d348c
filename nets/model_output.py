"""What the forward pass of a network for training returns."""

import typing

from torch import Tensor


class ModelOutput(typing.NamedTuple):
    """
    output: the main head's values, (B, outputs, H, W) where a network answers for each pixel, (B, outputs) where for a whole patch.

    auxiliary_heads: {name: values of the same shape}, empty without auxiliary heads and in eval mode. Each name is also that of its loss.
    """

    output: Tensor
    auxiliary_heads: dict[str, Tensor]


def as_model_output(found):
    """A ModelOutput as it is, a tensor as the output of a network without auxiliary heads."""
    return found if isinstance(found, ModelOutput) else ModelOutput(found, {})
