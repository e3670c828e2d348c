"""Batches of each epoch as lists of indices, dealt out to processes, read by a DataLoader."""

import signal

from torch.utils.data import DataLoader

from runtime.distributed import Processes
from runtime.errors import UserError
from runtime.interrupts import worker_init
from runtime.stop_signals import kept_back


class EpochBatches:
    """
    The global batches of every epoch, the same in all processes, and this process's part of each.

    order: function epoch → list of indices; it decides what is shuffled, repeated or left out. The last batch may be shorter. A process
    takes every size-th index of a batch, so all of them have the same number of batches, of which some may be empty.
    """

    def __init__(self, order, batch_size, processes=None):
        self.order, self.batch_size, self.processes = order, batch_size, processes or Processes()
        self.steps = -(-len(order(0)) // batch_size)

    def of_epoch(self, epoch):
        """[[index, …], …]: the global batches."""
        order = self.order(epoch)
        return [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]

    def of_process(self, epoch, first=0, last=None):
        """This process's part of the batches first … last - 1."""
        return [batch[self.processes.rank :: self.processes.size] for batch in self.of_epoch(epoch)[first:last]]


def batches_in_order(count, batch_size, processes=None):
    """Every size-th batch of 0 … count - 1 in order: whole batches are dealt out, none twice."""
    processes = processes or Processes()
    batches = [list(range(start, min(start + batch_size, count))) for start in range(0, count, batch_size)]
    return batches[processes.rank :: processes.size]


class ChangingBatches:
    """A batch sampler whose list is set before each pass, so that a loader with persistent workers serves all epochs."""

    def __init__(self):
        self.batches = []

    def __iter__(self):
        return iter(self.batches)

    def __len__(self):
        return len(self.batches)


def require_equal_parts(batch_size, processes, flag):
    """UserError where a step's items cannot be dealt out in equal parts. flag: the one that sets batch_size."""
    if batch_size % processes.size:
        raise UserError(f"{flag} {batch_size} (over all processes) cannot be dealt out to {processes.size} processes; "
                        f"pass a multiple of {processes.size}")


def as_it_is(batch):
    """The dataset makes whole batches; nothing is left to collate."""
    return batch


class Loader(DataLoader):
    """A DataLoader whose workers start with SIGTERM kept back: it would end those that do not yet leave it to their parent."""

    def __iter__(self):
        with kept_back(signal.SIGTERM):
            return super().__iter__()


def make_loader(dataset, batches, collate, *, workers=0, pin_memory=False, persistent=False):
    """
    A DataLoader over lists of indices. Its workers leave signals to this process (runtime/interrupts.py). persistent: workers outlive a
    pass; what changes in `dataset` afterwards does not reach them.
    """
    return Loader(
        dataset, batch_sampler=batches, collate_fn=collate, num_workers=workers, pin_memory=pin_memory,
        worker_init_fn=worker_init() if workers else None, persistent_workers=persistent and workers > 0,
    )
