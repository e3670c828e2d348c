"""What sharpening a large pair takes, said before the work: blocks, seconds, memory and disk."""

import time

import numpy as np
import torch

from mapping.cost import cost_words, require_disk
from pansharpening.classical import fuse_whole
from raster.writer import TILE, cache_bytes

LARGE = 2000  # blocks from which on a run says beforehand what a pair takes; of 512 pixels they are half a billion pixels
BEST_ZSTD = 25_000  # to one: no tile is compressed better
COPIES = 2  # of the raster on the disk, while it becomes a COG; a third more for the overviews of each


def tell_cost(run, planned, sharpener, console):
    """
    Say what a PlannedPair of a SharpenRun takes where it is large, or always before a dry run.

    UserError where the disk cannot hold the unfinished raster however well it is compressed.
    """
    pair, form = planned.pair, planned.form
    width, height = (side * pair.ratio for side in pair.area[2:])
    raw = width * height * len(form.descriptions) * np.dtype(form.dtype).itemsize
    disk = COPIES * raw // BEST_ZSTD, COPIES * raw * 4 // 3
    require_disk(f"{planned.path} ({width} × {height} pixels)", disk[0], run.output_dir, "made")
    count = -(-width // run.block) * -(-height // run.block)
    if count >= LARGE or run.dry_run:
        seconds = count * seconds_a_block(run, pair, sharpener)
        console.say(f"{planned.path}: {cost_words(count, 'block', seconds, memory_of(width, height, run.block, form), disk)}")


def memory_of(width, height, block, form):
    """Bytes for the strip of blocks and the row of tiles that are being filled, and for GDAL's tiles."""
    size = len(form.descriptions) * np.dtype(form.dtype).itemsize
    return width * (min(block, height) + TILE) * size + cache_bytes(size)


def seconds_a_block(run, pair, sharpener):
    """Measured on a block of noise with its apron, after one that warms up; of a classical method both passes."""
    side = max(1, -(-(run.block + 2 * sharpener.reach) // pair.ratio))
    ms, pan = torch.rand(1, len(pair.bands), side, side), torch.rand(1, 1, side * pair.ratio, side * pair.ratio)
    work = sharpener.run if run.checkpoint else lambda ms, pan: fuse_whole(run.method, ms, pan, pair.ratio, run.back_projection)
    work(ms, pan)
    start = time.perf_counter()
    work(ms, pan)
    return time.perf_counter() - start
