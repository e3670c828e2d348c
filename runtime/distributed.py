"""
Several processes as one: sums over ranks, gradients of the global batch, batch normalisation over the global batch.

One process is world size 1, and every function here is then a plain pass-through, so programs never ask. Gradients are added by hand after
backward instead of by DistributedDataParallel: a loss made of global sums gives each process its part of the global
gradient, the parts just have to be added (not averaged), and networks may have unused weights.
"""

import contextlib
import datetime
import functools
import os

import torch
import torch.distributed as dist
from torch import nn

from runtime.errors import Follower, explain, processes_have_met
from runtime.stop_signals import STOPS, Program, conclude

BUCKET_ELEMENTS = 16_000_000  # gradients are sent in pieces of 64 MB: few messages, little extra memory


class Processes:
    """rank, size and local_rank of this process. `with start() as processes:` joins and leaves the group."""

    def __init__(self, rank=0, size=1, local_rank=0):
        self.rank, self.size, self.local_rank = rank, size, local_rank
        self.control = None  # a gloo group for small things that must not wait for a GPU

    @property
    def is_first(self):
        return self.rank == 0

    def sum(self, tensor):
        """The sum over all processes as a new tensor, the same everywhere."""
        tensor = tensor.clone()
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def sum_with_gradient(self, tensor):
        """The sum over all processes; the gradient of the result reaches this process's own addend."""
        return SumOverProcesses.apply(tensor) if self.size > 1 else tensor

    def add_gradients(self, parameters):
        """Replace each gradient by its sum over the processes. All processes must have the same gradients set."""
        if self.size == 1:
            return
        bucket, count = [], 0
        gradients = [p.grad for p in parameters if p.grad is not None]
        for i, gradient in enumerate(gradients):
            bucket.append(gradient)
            count += gradient.numel()
            if count >= BUCKET_ELEMENTS or i + 1 == len(gradients):
                flat = torch.cat([g.flatten() for g in bucket])
                dist.all_reduce(flat)
                for g, part in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
                    g.copy_(part.view_as(g))
                bucket, count = [], 0

    def highest(self, number):
        """The highest of an integer over all processes: how they agree to save or to stop, on the CPU."""
        if self.size == 1:
            return number
        tensor = torch.tensor([number])
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX, group=self.control)
        return int(tensor)

    def total(self, number):
        """The sum of an integer over all processes, on the CPU."""
        if self.size == 1:
            return number
        tensor = torch.tensor([number])
        dist.all_reduce(tensor, group=self.control)
        return int(tensor)

    def gather(self, value):
        """[value of rank 0, value of rank 1, …] of any picklable value, everywhere."""
        if self.size == 1:
            return [value]
        values = [None] * self.size
        dist.all_gather_object(values, value, group=self.control)
        return values

    def wait_for_all(self):
        if self.size > 1:
            dist.barrier(group=self.control)


@contextlib.contextmanager
def start(device="auto", patience=datetime.timedelta(minutes=30)):
    """
    Join the processes that torchrun started, or be alone. device: of the flag; CPUs talk gloo, GPUs nccl.

    patience: how long a process waits for the others before it takes them for dead.
    """
    size = int(os.environ.get("WORLD_SIZE", 1))
    if size == 1:
        yield Processes()
        return
    rank, local_rank = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", 0))
    on_gpu = torch.cuda.is_available() and str(device).split(":")[0] in ("auto", "cuda")
    if on_gpu:
        torch.cuda.set_device(local_rank % torch.cuda.device_count())
    store, *_ = next(dist.rendezvous("env://", timeout=patience))
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=patience, store=store, rank=rank, world_size=size)
    processes_have_met.set()
    Program.agree = functools.partial(code_of_first_failure, store)
    processes = Processes(rank, size, local_rank)
    processes.control = dist.new_group(backend="gloo") if on_gpu else None
    try:
        yield processes
    except (Exception, *STOPS) as error:
        if code := code_of_first_failure(store, explain(error)[0]):
            conclude(code)
            raise Follower(code) from error
        raise
    finally:
        Program.agree = None
        dist.destroy_process_group()


def code_of_first_failure(store, code):
    """
    None in the first process that fails or is stopped, with the exit code `code`; it then says why. In the others the exit code of that
    one: most of them fail only because it has left a sum, and their remarks about closed connections would hide its line.
    """
    try:
        if store.add("chipmill_failures", 1) == 1:
            store.set("chipmill_exit_code", str(code))
            return None
        return int(store.get("chipmill_exit_code"))
    except RuntimeError:  # the store went with the process that kept it
        return 1


class SumOverProcesses(torch.autograd.Function):
    """
    y = Σ over processes of x. Every process then computes the same loss of y, and is asked for the gradient that its own x causes:
    dL/dx = dL/dy. (Adding dL/dy over the processes as well would count the one loss once for each of them.)
    """

    @staticmethod
    def forward(ctx, x):
        y = x.clone()
        dist.all_reduce(y)
        return y

    @staticmethod
    def backward(ctx, gradient):
        return gradient


class SumOfStatistics(torch.autograd.Function):
    """
    y = Σ over processes of x, where each process uses y for its own samples only: the gradients that arrive differ, and all of them are
    caused by this x. dL/dx = Σ over processes of dL/dy.
    """

    @staticmethod
    def forward(ctx, x):
        y = x.clone()
        dist.all_reduce(y)
        return y

    @staticmethod
    def backward(ctx, gradient):
        gradient = gradient.clone()
        dist.all_reduce(gradient)
        return gradient


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d whose training statistics are those of the global batch. Same names in the state dict; works with gloo and nccl."""

    def forward(self, x):
        if not self.training:
            return super().forward(x)
        y = x.float()
        count = torch.full((1,), y.numel() / y.shape[1], device=y.device)
        # Two passes: the variance as a mean of squared distances, as one process computes it. E[x²] - E[x]² would lose the digits.
        total = SumOfStatistics.apply(torch.cat([y.sum(dim=(0, 2, 3)), count]))
        mean = (total[:-1] / total[-1]).view(1, -1, 1, 1)
        centred = y - mean
        variance = SumOfStatistics.apply(centred.square().sum(dim=(0, 2, 3))) / total[-1]
        if self.track_running_stats:
            with torch.no_grad():
                self.num_batches_tracked += 1
                momentum = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
                self.running_mean.lerp_(mean.flatten().to(self.running_mean.dtype), momentum)
                unbiased = variance * (total[-1] / (total[-1] - 1).clamp(min=1))
                self.running_var.lerp_(unbiased.to(self.running_var.dtype), momentum)
        y = centred * torch.rsqrt(variance + self.eps).view(1, -1, 1, 1)
        if self.affine:
            y = y * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)
        return y.to(x.dtype)


def share_batch_statistics(model, processes):
    """Turn every BatchNorm2d of `model` into one over the global batch, in place. Nothing to do for one process."""
    if processes.size == 1:
        return model
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = GlobalBatchNorm2d  # same fields, same state dict; only forward differs
    return model
