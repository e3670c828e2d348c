"""A session of train_pansharpen.py whose gradients are kept, for test_train_pansharpen_torchrun.py: alone, or as one of several."""

import os
import sys

import torch

import train_pansharpen
from runtime.errors import leave


def gradients_of(argv):
    """Run a session; → [{position in the optimiser: gradient} of each step], as the optimiser gets them."""
    kept, step = [], torch.optim.AdamW.step

    def keep_and_step(optimizer, *args, **kwargs):
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        kept.append({str(i): p.grad.clone() for i, p in enumerate(parameters)})
        return step(optimizer, *args, **kwargs)

    torch.optim.AdamW.step = keep_and_step
    try:
        train_pansharpen.main(argv)
    finally:
        torch.optim.AdamW.step = step
    return kept


if __name__ == "__main__":
    output, *words = sys.argv[1:]
    kept = gradients_of(words)
    torch.save(kept, f"{output}.{os.environ['RANK']}")
    leave(0)
