"""
Mapped areas that a spectral index does not bear out are left out of a map: those of which hardly a pixel lies beyond the threshold that
separated what is mapped from the rest on the training patches.

An area (pixels that share a side) is complete only rows later, so the rows are passed three times. Downwards, pieces of rows are taken
apart into components; what of them is known so far forms groups, and a scratch file keeps which group of a piece goes on in which of the
next. Upwards, each group learns whether the area that it is a part of is dropped. Then the pixels are changed. Memory is that of a piece.
"""

import dataclasses
import tempfile
from dataclasses import dataclass

import numpy as np

from constants import IGNORE
from mapping.polygons import Runs, connected, sums_of_runs
from mapping.scoring import Baseline
from runtime.errors import UserError
from spectral_indices import index_positions

USUAL_SHARE = 0.1  # "hardly a pixel"
PIECE = 2 << 20  # pixels that are taken apart at once


@dataclass(frozen=True)
class IndexCheck:
    """
    index: name of a spectral index. limit: its threshold. above: whether what is mapped lies above it. share: of an area's pixels that
    have to lie there, 0..1; else the area is dropped.
    """

    index: str
    limit: float
    above: bool
    share: float = USUAL_SHARE

    def beyond(self, bands):
        """A function from reflectance (B, C, H, W) of bands with names to where the index is beyond the threshold, (B, H, W) bool."""
        rule = Baseline(self.index, index_positions(self.index, bands), self.limit, self.above)
        return lambda reflectance: rule.maps(rule.values(reflectance))

    @property
    def words(self):
        return f"{self.index.upper()} {'above' if self.above else 'below'} {self.limit:.3f}"


def facts_of(baseline):
    """What a checkpoint keeps of a Baseline with its threshold; None where there is none, or nothing to choose it by."""
    if baseline is None or baseline.train_iou != baseline.train_iou:
        return None
    return {"index": baseline.index, "threshold": baseline.limit, "above": baseline.above}


def check_of(members, share):
    """
    The IndexCheck of checkpoints (dicts), with the mean of their thresholds; None where the share is 0 or None. UserError where one names
    no threshold, or another index. "auto": the usual share, None where one names no threshold.
    """
    found = [member["data"].get("index_check") for member in members]
    if not share or share == "auto" and not all(found):
        return None
    share = USUAL_SHARE if share == "auto" else share
    for member, facts in zip(members, found, strict=True):
        if not facts:
            raise UserError(f"{member['path']} names no threshold on an index; train it again, or pass --index-check 0")
    if len({(facts["index"], facts["above"]) for facts in found}) > 1:
        raise UserError("the networks of the ensemble were trained with different indices; pass --index-check 0")
    limit = sum(facts["threshold"] for facts in found) / len(found)
    return IndexCheck(found[0]["index"], limit, found[0]["above"], share)


class Dropped:
    """Areas and square metres that were left out. areas: PixelAreas, or None where they are not known."""

    def __init__(self, check, areas):
        self.check, self.areas, self.count, self.metres = check, areas, 0, 0.0

    def add(self, row, dropped):
        """dropped: (rows, W) bool from `row` on."""
        if self.areas is not None and dropped.any():
            self.metres += float((dropped * self.areas.of_rows(row, row + len(dropped))).sum())

    def record(self):
        hectares = None if self.areas is None else round(self.metres / 1e4, 4)
        return {"index_check": {**dataclasses.asdict(self.check), "areas": self.count, "hectares": hectares}}

    def remarks(self):
        if not self.count:
            return []
        area = "" if self.areas is None else f" ({self.metres / 1e4:,.1f} ha)"
        return [f"{self.count} area{'s' * (self.count > 1)}{area} left out: less than {self.check.share:.0%} of the pixels have "
                f"{self.check.words} (--index-check)"]


def without_unlike(bands, check, dropped, folder):
    """
    Bands (StoredBand) of a map without the areas that an IndexCheck drops: these become class 0, and no network's vote.

    bands: a function that gives all bands from the top, each time anew. dropped: a Dropped, filled as they are taken. folder: for a scratch
    file, which has no name.
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        verdicts = settle(pieces_of(bands()), check.share, Arrays(file), dropped)
        for band in bands():
            unlike = np.concatenate([erase(piece.mapped, next(verdicts)) for piece in pieces_of([band])])
            band.classes = np.where(unlike, 0, band.classes).astype(np.uint8)
            if band.votes is not None:
                band.votes = np.where(unlike, 0, band.votes).astype(np.uint8)
            dropped.add(band.row, unlike)
            yield band


@dataclass
class Piece:
    """Rows of a map. mapped, beyond: (rows, W) bool."""

    row: int
    mapped: np.ndarray
    beyond: np.ndarray


def pieces_of(bands):
    """Pieces of about PIECE pixels; none reaches over two bands."""
    for band in bands:
        rows = max(1, PIECE // band.classes.shape[1])
        for first in range(0, len(band.classes), rows):
            classes = band.classes[first : first + rows]
            yield Piece(band.row + first, (classes > 0) & (classes != IGNORE), band.beyond[first : first + rows] > 0)


class Arrays:
    """Arrays of int64 in an open file."""

    def __init__(self, file):
        self.file, self.places = file, []

    def append(self, array):
        self.file.seek(0, 2)
        self.places.append((self.file.tell(), len(array)))
        self.file.write(np.ascontiguousarray(array, np.int64).tobytes())

    def __getitem__(self, number):
        start, count = self.places[number]
        self.file.seek(start)
        return np.frombuffer(self.file.read(8 * count), np.int64)

    def __setitem__(self, number, array):
        self.file.seek(self.places[number][0])
        self.file.write(np.ascontiguousarray(array, np.int64).tobytes())


def components(mapped):
    """(Runs of (rows, W) bool, the component of each, how many there are)."""
    runs = Runs(mapped.astype(np.uint16))
    root, own = np.unique(connected(len(runs.start), *runs.touching()), return_inverse=True)
    return runs, own, len(root)


def in_row(runs, own, row):
    """(W,) the component of each pixel of a row, -1 where it is in none."""
    here = (runs.start // runs.width) == row
    found = np.full(runs.width, -1)
    for start, stop, component in zip(runs.start[here] % runs.width, (runs.stop[here] - 1) % runs.width + 1, own[here], strict=True):
        found[start:stop] = component
    return found


OPEN, KEPT, DROPPED = -1, 0, 1


def settle(pieces, share, arrays, dropped):
    """
    An iterator over pieces, in order: for each component of it whether its area is dropped, 0 or 1. dropped: its count is set.

    arrays: of a piece the group of each component, the group that each open group of the piece above goes on in, the fate of each group.
    """
    last, counts, count = None, np.zeros((2, 0)), 0  # components' groups of the lowest row; (pixels, beyond) of the open groups
    for piece in pieces:
        runs, own, n = components(piece.mapped)
        first = in_row(runs, own, 0)
        touching = np.zeros((2, 0), dtype=np.int64)
        if last is not None:
            both = (last >= 0) & (first >= 0)
            touching = np.unique(np.stack([first[both], last[both] + n]), axis=1)
        root, group = np.unique(connected(n + counts.shape[1], *touching), return_inverse=True)
        sizes = np.stack([runs.stop - runs.start, sums_of_runs(piece.beyond.astype(np.int64), runs.start, runs.stop)])
        totals = np.stack([np.bincount(group, np.concatenate([np.bincount(own, size, n), before]), len(root))
                           for size, before in zip(sizes, counts, strict=True)])
        lowest = in_row(runs, own, len(piece.mapped) - 1)
        still = np.unique(group[lowest[lowest >= 0]])
        fate = np.where(totals[1] < share * totals[0], DROPPED, KEPT)
        count += int(np.delete(fate, still).sum())
        fate[still] = OPEN
        place = np.full(len(root), -1)
        place[still] = np.arange(len(still))  # among the open groups
        fate = np.where(fate == OPEN, -1 - place, fate)  # an open group says which it is
        for array in (group[:n], group[n:], fate):
            arrays.append(array)
        last, counts = np.where(lowest >= 0, place[group[lowest]] if n else -1, -1), totals[:, still]
        closing = np.where(counts[1] < share * counts[0], DROPPED, KEPT)
    number = len(arrays.places) // 3
    dropped.count = count + (int(closing.sum()) if number else 0)
    below = closing if number else None  # the fate of the open groups of a piece
    for k in reversed(range(number)):
        own, above, fate = (arrays[3 * k + i] for i in range(3))
        fate = np.where(fate < 0, below[np.where(fate < 0, -1 - fate, 0)] if len(below) else 0, fate)
        arrays[3 * k] = fate[own]
        below = fate[above]
    return (arrays[3 * k] for k in range(number))


def erase(mapped, fates):
    """(rows, W) bool: pixels of dropped components. fates: of settle."""
    if not fates.any():
        return np.zeros_like(mapped)
    runs, own, _ = components(mapped)
    gone = fates[own] == DROPPED
    change = np.zeros(mapped.size + 1, dtype=np.int8)
    change[runs.start[gone]] += 1
    np.subtract.at(change, runs.stop[gone], 1)
    return change[:-1].cumsum(dtype=np.int8).reshape(mapped.shape) > 0
