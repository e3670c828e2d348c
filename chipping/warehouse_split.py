"""Which frames of a warehouse are for validation: whole runs, or the last part of the only one."""

import hashlib
import math
from collections import Counter


def split_runs(runs, ratio, seed):
    """
    (["train" or "val" of each sample], unit "run" or "last part") of the runs that samples belong to, in their order.

    Runs are taken for validation in the order of the SHA-256 of "seed:run" until it has `ratio` of the samples, or one run is left for
    training. One run alone is parted: its last samples are for validation, at least one of two.
    """
    sizes = Counter(runs)
    if ratio <= 0 or len(runs) < 2:
        return ["train"] * len(runs), "run"
    if len(sizes) == 1:
        count = min(len(runs) - 1, max(1, math.ceil(ratio * len(runs) - 1e-9)))
        return ["train"] * (len(runs) - count) + ["val"] * count, "last part"
    order = sorted(sizes, key=lambda run: hashlib.sha256(f"{seed}:{run}".encode()).hexdigest())
    chosen, held = set(), 0
    for run in order[:-1]:
        if held >= ratio * len(runs) - 1e-9:
            break
        chosen.add(run)
        held += sizes[run]
    return ["val" if run in chosen else "train" for run in runs], "run"
