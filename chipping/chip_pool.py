"""Shares the windows of make-chips between processes."""

import contextlib
from collections import defaultdict
from concurrent.futures import as_completed

from chipping.chip_worker import close_readers, judge, verdicts_of
from runtime.workers import worker_pool

WORKER_MODULES = ("chipping.make_chips", "chipping.pan_chips")  # what workers have imported when they begin; the second one takes seconds


def split_work(batch, recipe, folder, workers):
    """
    Tasks for chip_worker.judge: the windows of a tile from top to bottom, in one task or, to keep all workers busy to the end, in several.

    Two tasks of one tile decode the blocks between them twice. So only the tiles that remain when all workers have had equally many are
    split, into pieces at least two windows high unless workers would idle.
    """
    by_tile = defaultdict(list)
    tiles = {}
    for i, tile, left, top in batch:
        by_tile[tile.name].append((i, left, top))
        tiles[tile.name] = tile
    names = sorted(by_tile, key=lambda name: (-len(by_tile[name]), name))  # large tasks first: small ones even out the end
    whole = len(names) // workers * workers
    tasks = [(recipe, tiles[name], by_tile[name], folder) for name in names[:whole]]
    remaining = names[whole:]
    for name in remaining:
        windows = sorted(by_tile[name], key=lambda w: (w[2], w[1]))
        least = -(-workers // len(remaining))
        height = windows[-1][2] - windows[0][2] + recipe.window
        pieces = min(len(windows), max(least, min(4 * least, height // (2 * recipe.window))))
        size = -(-len(windows) // pieces)
        tasks += [(recipe, tiles[name], windows[k : k + size], folder) for k in range(0, len(windows), size)]
    return tasks


@contextlib.contextmanager
def workers_of(count):
    """A function (tasks, on_verdict) -> {i: verdict}, in this process or on a pool of `count`. on_verdict(verdict): as they come."""
    if count <= 1:
        try:
            yield lambda tasks, on_verdict=None: gather((v for task in tasks for v in verdicts_of(task)), on_verdict)
        finally:
            close_readers()
        return
    with worker_pool(count, WORKER_MODULES, one_thread) as pool:

        def run(tasks, on_verdict=None):
            futures = as_completed([pool.submit(judge, task) for task in tasks])
            return gather((v for future in futures for v in future.result()), on_verdict)

        yield run


def gather(verdicts, on_verdict):
    """{i: verdict} of verdicts as they come."""
    found = {}
    for verdict in verdicts:
        found[verdict["i"]] = verdict
        if on_verdict:
            on_verdict(verdict)
    return found


def one_thread():
    import torch

    torch.set_num_threads(1)
