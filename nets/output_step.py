"""What happens to a network's output: values get their units, answers for pixels become one of a whole patch where that is asked for."""

import torch
from torch import nn

from nets.model_config import SCALAR_TASKS


class OutputStep(nn.Module):
    """
    segmentation: logits as they are. regression: output · std + mean, float32, in the target's units. classification, multilabel: logits
    (B, C); those of pixels (B, C, H, W) are averaged over the patch.

    mean, std: of the target over the training split.
    """

    def __init__(self, task="segmentation", mean=0.0, std=1.0):
        super().__init__()
        self.task = task
        if task == "regression":
            self.register_buffer("mean", torch.tensor(float(mean)))
            self.register_buffer("std", torch.tensor(float(std)))

    def forward(self, output):
        if self.task == "regression":
            return output.float() * self.std + self.mean
        return output.float().mean(dim=(2, 3)) if self.task in SCALAR_TASKS and output.ndim == 4 else output


def answers_of(task, output):
    """A model's output as what maps and scores take, float32: probabilities, of a regression the values themselves."""
    if task == "regression":
        return output.float()
    return output.float().sigmoid() if task == "multilabel" else output.float().softmax(dim=1)
