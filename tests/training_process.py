"""A training program as one process of several, watched or disturbed, for test_training_promises.py."""

import importlib
import itertools
import os
import signal
import sys

import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from runtime.errors import leave, run_program


class Still(torch.nn.BatchNorm2d):
    """Batch normalisation whose running statistics stay as they are."""

    def __init__(self, features, *more, **settings):
        super().__init__(features, *more, **{**settings, "momentum": 0.0})


def gradients_of(program, argv):
    """
    Run program.main(argv); → [{position in the optimiser: gradient} of each step], as the optimiser gets them.

    Rounding can tip a pixel over the kink of a ReLU or to another maximum, and its gradient jumps; smooth parts in their places show the
    arithmetic alone. Running statistics differ by rounding too; where they stay, what is scored is the same network to the last bit.
    """
    kept = []

    def keep(optimizer, *_):
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        kept.append({str(i): p.grad.clone() for i, p in enumerate(parameters) if p.grad is not None})

    plain = torch.nn.ReLU, torch.nn.MaxPool2d, torch.nn.BatchNorm2d
    torch.nn.ReLU, torch.nn.MaxPool2d, torch.nn.BatchNorm2d = torch.nn.SiLU, torch.nn.AvgPool2d, Still
    handle = register_optimizer_step_pre_hook(keep)
    try:
        importlib.import_module(program).main(argv)
    finally:
        handle.remove()
        torch.nn.ReLU, torch.nn.MaxPool2d, torch.nn.BatchNorm2d = plain
    return kept


def terminate_second_process(program, words):
    """Run a program as a user does; the second process alone gets SIGTERM in its second step."""
    count = itertools.count()

    def terminate(*_):
        if os.environ["RANK"] == "1" and next(count) == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    register_optimizer_step_pre_hook(terminate)
    sys.argv = [f"{program}.py", *words]
    run_program(importlib.import_module(program).main)


if __name__ == "__main__":
    program, task, *words = sys.argv[1:]
    if task == "terminate":
        terminate_second_process(program, words)
    kept = gradients_of(program, words)
    torch.save(kept, f"{task}.{os.environ['RANK']}")
    leave(0)
