"""
Estimates where a raster is nodata from the sizes of its compressed blocks, without decoding them.

make-chips only uses the estimate to ask for more windows at once where some will be passed over. Which windows become chips is decided by
their pixels.
"""

import numpy as np

from raster.source import open_raster

CONSTANT = 0.01  # share of a block's bytes that remains of a single value, with any of TIFF's codecs
MOST_BLOCKS = 100_000  # of a raster; to ask for the sizes of more takes longer than the estimate saves


def filled_blocks(path):
    """(array (rows, columns) of each block's filled share, (height, width) of a block), or None where nothing can be told."""
    with open_raster(path) as dataset:
        tall, wide = dataset.block_shapes[0]
        rows, columns = -(-dataset.height // tall), -(-dataset.width // wide)
        if dataset.driver != "GTiff" or dataset.compression is None or rows * columns > MOST_BLOCKS:
            return None
        together = dataset.count if dataset.interleaving.name == "pixel" else 1
        least = CONSTANT * tall * wide * together * np.dtype(dataset.dtypes[0]).itemsize
        sizes = [[dataset.get_tag_item(f"BLOCK_SIZE_{c}_{r}", "TIFF", bidx=1) for c in range(columns)] for r in range(rows)]
    filled = np.array([[int(size or 0) > least for size in row] for row in sizes])
    around = np.pad(filled, 1, mode="edge")
    inner = around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    return np.where(filled & inner, 1.0, filled / 2), (tall, wide)  # a block at the edge of nodata is half filled on average


def expected_share(blocks, left, top, side):
    """Share of a square window that seems to be filled. blocks: of filled_blocks; left, top, side: stored pixels."""
    if blocks is None:
        return 1.0
    filled, (tall, wide) = blocks
    rows = overlaps(top, side, tall, filled.shape[0])
    columns = overlaps(left, side, wide, filled.shape[1])
    return float(rows @ filled @ columns) / max(1, rows.sum() * columns.sum())


def overlaps(start, length, block, count):
    """(count,) pixels that start … start + length shares with each block."""
    edges = np.arange(count) * block
    return np.clip(np.minimum(edges + block, start + length) - np.maximum(edges, start), 0, None)
