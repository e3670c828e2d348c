"""Where and how precisely a network runs: device, autocast, seeds."""

import contextlib
import os
import random
from dataclasses import dataclass

import numpy as np
import torch

from constants import get_device
from runtime.errors import UserError

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(name="auto", local_rank=0):
    """torch.device for a flag's value; under torchrun each process takes its own GPU. UserError for a device that is not there."""
    try:
        device = get_device(name)
        if device.type == "cuda":
            device = get_device(f"cuda:{local_rank}" if device.index is None else f"cuda:{device.index}")
            torch.cuda.set_device(device)
    except ValueError as error:
        raise UserError(str(error)) from error
    return device


@dataclass(frozen=True, kw_only=True)
class Compute:
    """How a network runs: device, precision of its layers ("fp32", "bf16", "fp16"), memory layout, compiled or not."""

    device: torch.device
    precision: str = "fp32"
    channels_last: bool = False
    compile: bool = False

    def autocast(self):
        """Context manager: network parts run in `precision` where that is safe. Losses belong outside of it."""
        return autocast(self.device, self.precision)

    def place(self, model):
        """The model on the device, in the memory layout."""
        model = model.to(self.device)
        return model.to(memory_format=torch.channels_last) if self.channels_last else model

    def compiled(self, model):
        """torch.compile's wrapper where asked for; weights are shared, and `model` keeps their names without _orig_mod."""
        return torch.compile(model) if self.compile else model


def autocast(device, precision):
    """Context manager: network parts run in `precision` ("fp32", "bf16" or "fp16") where that is safe. Losses belong outside of it."""
    dtype = PRECISIONS[precision]
    return torch.autocast(device.type, dtype=dtype) if dtype else contextlib.nullcontext()


def gradient_scaler(device, precision):
    """The loss scaler that float16 needs; for every other precision one that passes everything through."""
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")


def usable_cores():
    """Processor cores that this process may use: fewer than the machine has under taskset or in a container."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def seed_everything(seed):
    """Python, NumPy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def seed_step(seed, step, rank=0):
    """
    Seed torch (all devices) for one step of one process: what is random inside the network (dropout) depends on these three only.

    A run that continues in the middle of an epoch needs no stored generator state then, whatever the number of processes.
    """
    torch.manual_seed(derived_seed(seed, step, rank))


def derived_seed(*numbers):
    """One 63-bit seed from several numbers; near numbers give unrelated seeds."""
    words = np.random.SeedSequence([int(n) % 2**32 for n in numbers]).generate_state(2, np.uint32)
    return (int(words[0]) << 31) ^ int(words[1])
