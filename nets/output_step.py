"""What happens to a network's output: values get their units, answers for pixels become one of a whole patch where that is asked for."""

import torch
from torch import nn

from nets.model_config import answers_labels, answers_pixels, answers_values


class OutputStep(nn.Module):
    """
    segmentation: logits as they are. regression: output · std + mean, float32, in the target's units. classification, multilabel: logits
    (B, C); those of pixels (B, C, H, W) are averaged over the patch.

    mean, std: of the target over the training split.
    """

    def __init__(self, task="segmentation", mean=0.0, std=1.0):
        super().__init__()
        self.task = task
        if answers_values(task):
            self.register_buffer("mean", torch.tensor(float(mean)))
            self.register_buffer("std", torch.tensor(float(std)))

    def forward(self, output):
        if answers_values(self.task):
            return output.float() * self.std + self.mean
        return output.float().mean(dim=(2, 3)) if output.ndim == 4 and not answers_pixels(self.task) else output


def answers_of(task, output):
    """A model's output as what maps and scores take, float32: probabilities, of a regression the values themselves."""
    if answers_values(task):
        return output.float()
    return output.float().sigmoid() if answers_labels(task) else output.float().softmax(dim=1)
