"""
Folders of pan/ms chips → batches of tensors.

A chip that cannot be used (missing, broken, hostile, of another size) is left out of its batch and named there.
"""

import hashlib
import itertools
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from chipping.chipset import DESCRIPTION, find_chips, read_chipset, unfinished_words
from chipping.pan_chips import SCALE, BadChip, band_names, decode_chip, read_chip
from pansharpening.augment import turn
from runtime.device import derived_seed
from runtime.epoch_batches import batches_in_order, make_loader
from runtime.errors import UserError
from runtime.unreadable import Problem

MOST_UNREADABLE = 0.01  # share of chips that may be unreadable before it is taken for a fault of the whole set


@dataclass
class Batch:
    """pan (B, 1, S, S), mul (B, C, s, s), truth (B, C or 3, S, S) float32; valid (B, 1, S, S) bool or None; numbers: chips' integers.

    problems: a Problem for each chip that was left out. All tensors are None where nothing is left.
    """

    pan: torch.Tensor
    mul: torch.Tensor
    truth: torch.Tensor
    valid: torch.Tensor
    numbers: list
    problems: list

    def __len__(self):
        return len(self.numbers)


class PanChips(Dataset):
    """
    The first `length` chips of a folder (None: all). target: "bands" or "oklab". turned: D4 by seed, epoch and number, or none.

    like: another PanChips whose chip size, ratio and bands these must share.
    """

    def __init__(self, folder, length=None, target="bands", turned=False, seed=0, like=None):
        self.folder, self.target, self.turned, self.seed, self.epoch = Path(folder), target, turned, seed, 0
        if not self.folder.is_dir():
            raise UserError(f"{folder} is no folder; expected one made by chip.py make-chips, fake-chips or link-chips")
        numbers, self.broken, _ = find_chips(self.folder)
        if not numbers:
            raise UserError(f"{folder} has no chips (0.pt, 1.pt …); make some with chip.py make-chips or fake-chips")
        description = read_chipset(self.folder) if (self.folder / DESCRIPTION).exists() else {}
        self.unfinished = unfinished_words(folder, description, len(numbers) + self.broken)  # a sentence, or None
        if target == "bands" and description.get("store") == "oklab":
            raise UserError(f"{folder} keeps only the picture (oklab), no bands; pass --target oklab, or make chips with --store bands")
        if length is not None and length > len(numbers):
            raise UserError(f"{folder} has {len(numbers)} chips, but {length} were asked for; pass a shorter length or make more chips")
        self.numbers = numbers[:length]
        self.chip_size, self.small, self.bands = self.first_shape()
        if self.chip_size // self.small not in (2, 4, 8):
            raise UserError(f"{folder}: pan is {self.chip_size // self.small} times as fine as mul; the network takes 2, 4 or 8")
        if like is not None and (self.chip_size // self.small, self.bands) != (like.ratio, like.bands):
            raise UserError(
                f"{folder} has ratio {self.ratio} and bands {', '.join(self.bands)}, {like.folder} ratio {like.ratio} and "
                f"{', '.join(like.bands)}; they don't go together"
            )

    @property
    def ratio(self):
        return self.chip_size // self.small

    def fingerprint(self):
        """A hash that tells one set of chips from another, wherever it lies: their numbers, and the bytes of the first, middle and last."""
        digest = hashlib.sha256(str((self.target, self.numbers)).encode())
        for number in (self.numbers[0], self.numbers[len(self.numbers) // 2], self.numbers[-1]):
            if self.path(number).is_file():
                digest.update(self.path(number).read_bytes())
        return digest.hexdigest()[:16]

    def path(self, number):
        return self.folder / f"{number}.pt"

    def first_shape(self):
        """(chip size, side of mul, band names) of the first chip that can be read."""
        reasons = []
        for number in self.numbers[:20]:
            try:
                chip = read_chip(self.path(number))
                decode_chip(chip, self.target)
                return chip["pan"].shape[-1], chip["mul"].shape[-1], band_names(chip)
            except BadChip as error:
                reasons.append(f"{number}.pt: {error}")
        raise UserError(f"none of the first chips of {self.folder} can be used ({reasons[0]})")

    def __len__(self):
        return len(self.numbers)

    def __getitem__(self, index):
        """(number, (pan, mul, truth, valid or None)) or (number, Problem)."""
        number = self.numbers[index]

        def problem(reason):
            return number, Problem(f"{number}.pt", reason, index=index)

        try:
            chip = read_chip(self.path(number))
            shape = (chip["pan"].shape[-1], chip["mul"].shape[-1], chip["mul"].shape[0])
            expected = (self.chip_size, self.small, len(self.bands))
            if shape != expected:
                return problem("pan {}, mul {} pixels, {} bands".format(*shape) + "; the first chip has {}, {}, {}".format(*expected))
            tensors = decode_chip(chip, self.target)
        except BadChip as error:
            return problem(str(error))
        if not all(bool(torch.isfinite(t).all()) for t in tensors[:3]):
            return problem("values that are not finite")
        if self.turned:
            draw = derived_seed(self.seed, self.epoch, number)
            tensors = turn(tensors, draw % 4, draw // 4 % 2)
        return number, tensors


def collate(samples):
    """Samples of PanChips → Batch, without those that are a Problem."""
    good = [(number, parts) for number, parts in samples if not isinstance(parts, Problem)]
    problems = [parts for _, parts in samples if isinstance(parts, Problem)]
    if not good:
        return Batch(None, None, None, None, [], problems)
    pan, mul, truth = (torch.stack([parts[i] for _, parts in good]) for i in range(3))
    valid = None
    if any(parts[3] is not None for _, parts in good):
        valid = torch.stack([torch.ones(1, *pan.shape[2:], dtype=torch.bool) if parts[3] is None else parts[3] for _, parts in good])
    return Batch(pan, mul, truth, valid, [number for number, _ in good], problems)


def epoch_order(count, seed):
    """The order for EpochBatches: each chip once an epoch, in an order that depends on (seed, epoch) alone."""
    return lambda epoch: np.random.default_rng([seed, epoch, 0]).permutation(count).tolist()


def logical_batches(chips, batches, epoch, first, physical, *, workers=0, pin_memory=False):
    """
    For each step from `first` on an iterator of the physical batches (Batch of up to `physical` chips) of this process's share.

    batches: EpochBatches. An iterator has to be used up before the next one is asked for; that of an empty share is empty.
    """
    chips.epoch = epoch
    groups = [[own[i : i + physical] for i in range(0, len(own), physical)] for own in batches.of_process(epoch, first)]
    pieces = [piece for group in groups for piece in group]
    loader = iter(make_loader(chips, pieces, collate, workers=min(workers, len(pieces)), pin_memory=pin_memory))
    for group in groups:
        yield itertools.islice(loader, len(group))


def batches_of_process(chips, physical, processes, *, workers=0):
    """The chips in order, each once: whole batches are dealt out to the processes."""
    batches = batches_in_order(len(chips), physical, processes)
    return make_loader(chips, batches, collate, workers=min(workers, len(batches)))


def statistics(dataset, most=32):
    """{"ms", "pan", "out": (means, standard deviations) a channel} of up to `most` chips spread over the set."""
    chosen = sorted({i * (len(dataset) - 1) // max(1, most - 1) for i in range(most)})
    sums = {}
    for index in chosen:
        _, parts = dataset[index]
        if isinstance(parts, Problem):
            continue
        for name, values in zip(("pan", "ms", "out"), parts[:3], strict=True):
            flat = values.double().flatten(1)
            total = sums.setdefault(name, [0, 0, 0])
            sums[name] = [total[0] + flat.shape[1], total[1] + flat.sum(1), total[2] + (flat**2).sum(1)]
    if not sums:
        raise UserError(f"none of the chips of {dataset.folder} that were looked at can be used")
    found = {}
    for name, (count, total, squares) in sums.items():
        mean = total / count
        found[name] = (mean.tolist(), (squares / count - mean**2).clamp(min=0).sqrt().tolist())
    return found


def scale_of(folder):
    """(divide_by, offset, nodata) that chipset.json states, else those of ARD."""
    if (Path(folder) / DESCRIPTION).exists():
        description = read_chipset(folder)
        if description.get("kind") != "pansharpen":
            raise UserError(f"{folder} is a chip set of kind {description.get('kind')!r}; expected pan/ms chips")
        return description.get("divide_by", SCALE), description.get("offset", 0.0), description.get("nodata", 0)
    return SCALE, 0.0, 0


def shared_chips(one, other):
    """How many files two sets have in common, links followed."""
    return len({os.path.realpath(one.path(n)) for n in one.numbers} & {os.path.realpath(other.path(n)) for n in other.numbers})
