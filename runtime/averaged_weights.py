"""Exponential moving average of a model's weights over the steps of a training."""

import copy

import torch

RISE = 10  # steps over which the average forgets the first weights faster


class AveragedWeights:
    """
    `model` is a copy in eval mode whose weights follow those of the trained one: a = d a + (1 − d) w after each step, running statistics
    included, with d = min(decay, (1 + step) / (RISE + step)). decay: 0.99 averages over about the last hundred steps; 0: the weights
    themselves.
    """

    def __init__(self, trained, decay):
        self.decay, self.trained = decay, trained
        self.model = copy.deepcopy(trained).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, step):
        """After the optimiser's step number `step`, counted from 0."""
        keep = min(self.decay, (1 + step) / (RISE + step))
        pairs = list(zip(self.model.state_dict().values(), self.trained.state_dict().values(), strict=True))
        averaged = [pair for pair in pairs if pair[0].is_floating_point()]
        torch._foreach_lerp_([own for own, _ in averaged], [new for _, new in averaged], 1.0 - keep)
        for own, new in pairs:
            if not own.is_floating_point():
                own.copy_(new)

    def state_dict(self):
        return self.model.state_dict()

    def load_state_dict(self, state):
        self.model.load_state_dict(state)
