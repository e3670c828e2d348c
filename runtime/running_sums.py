"""Sums of an epoch's losses, kept on the device until their means are read."""

import torch


class RunningSums:
    """
    {name: sum} of losses with the number of samples that they stand for, beside counts of metrics.

    processes: sums are added over them when they are read. shared: every process gives the same losses (those of the global batch), so
    only the first one's count. counts: a metric whose tensors() are integers of this process alone, or None.
    """

    def __init__(self, names, device, processes, *, shared=False, counts=None):
        # float64 holds millions of float32 addends without loss; MPS has none
        kind = torch.float32 if device.type == "mps" else torch.float64
        self.names, self.processes, self.counts = tuple(names), processes, counts
        self.sums = torch.zeros(1 + len(self.names), dtype=kind, device=device)
        self.share = float(processes.is_first or not shared)

    def add(self, losses, samples):
        """losses: {name: scalar tensor}, each a sum over `samples`. Does not wait for the device."""
        values = [losses[name].detach() for name in self.names]
        self.sums[0] += samples * self.share
        self.sums[1:] += torch.stack(values).to(self.sums.dtype) * self.share

    def means(self):
        """({name: mean}, samples) over all processes. Waits for the device."""
        samples, *sums = self.processes.sum(self.sums).tolist()
        return {name: value / max(1.0, samples) for name, value in zip(self.names, sums, strict=True)}, int(samples)

    def summed_counts(self):
        """{name: tensor} of the metric's counts over all processes."""
        return {name: self.processes.sum(tensor) for name, tensor in self.counts.tensors().items()} if self.counts else {}

    def reset(self):
        self.sums.zero_()
        if self.counts:
            self.counts.reset()

    def state_dict(self):
        """Over all processes: all of them call it."""
        counts = {name: tensor.cpu() for name, tensor in self.summed_counts().items()}
        return {"sums": self.processes.sum(self.sums).cpu(), "counts": counts}

    def load_state_dict(self, state):
        """The first process takes what all of them had; the others begin with nothing."""
        self.reset()
        if self.processes.is_first:
            self.sums.copy_(state["sums"])
            if self.counts:
                self.counts.add(state["counts"])
