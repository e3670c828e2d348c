"""
Sums pan over each ms pixel, and keeps the sums as long as windows further down may need them.

Windows of a tile overlap: four of five pixels are part of more than one. Pan has sixteen times as many samples as an ms band, so what
windows share is decoded, counted and added up once, in pieces as large as the file's blocks.
"""

import numpy as np

from chipping.chip_window import box_sum, count_valid
from raster.nodata import is_nodata

SMALLEST_PIECE, LARGEST_PIECE = 64, 256  # ms pixels


class PanSums:
    """
    Of an open pair (raster/pair.py: PairReader), for windows from top to bottom. Rows above the last window are dropped, and read again if
    they are asked for.
    """

    def __init__(self, reader):
        self.reader, self.pair = reader, reader.pair
        rows = reader.pan_file.block_shapes[0][0] // self.pair.ratio
        self.side = min(max(rows, SMALLEST_PIECE), LARGEST_PIECE)
        self.pieces = {}  # (row, column) in pieces: (sums, nodata samples of each ms pixel or None, left, top)

    def window(self, column, row, side):
        """
        (share of valid samples, sums (1, side, side) over ratio x ratio samples, (1, side, side) bool of ms pixels with a nodata sample in
        them, or None). column, row, side: ms pixels. Nodata samples count as 0.
        """
        first_row, last_row = row // self.side, (row + side - 1) // self.side
        first, last = column // self.side, (column + side - 1) // self.side
        for key in [key for key in self.pieces if key[0] < first_row]:
            del self.pieces[key]
        sums, gaps = None, None
        for r in range(first_row, last_row + 1):
            self.load(r, first, last)
            for c in range(first, last + 1):
                piece_sums, piece_gaps, left, top = self.pieces[r, c]
                x0, y0 = max(left, column), max(top, row)
                x1 = min(left + piece_sums.shape[2], column + side)
                y1 = min(top + piece_sums.shape[1], row + side)
                to = np.s_[:, y0 - row : y1 - row, x0 - column : x1 - column]
                of = np.s_[:, y0 - top : y1 - top, x0 - left : x1 - left]
                if sums is None:
                    sums = np.empty((1, side, side), piece_sums.dtype)
                sums[to] = piece_sums[of]
                if piece_gaps is not None:
                    if gaps is None:
                        gaps = np.zeros((1, side, side), np.uint16)
                    gaps[to] = piece_gaps[of]
        if gaps is None:
            return 1.0, sums, None
        samples = (side * self.pair.ratio) ** 2
        return (samples - int(gaps.sum(dtype=np.int64))) / samples, sums, gaps > 0

    def load(self, row, first, last):
        """Read those of the pieces first … last of a row that are missing, neighbours together."""
        missing = [c for c in range(first, last + 1) if (row, c) not in self.pieces]
        while missing:
            run = [c for n, c in enumerate(missing) if c == missing[0] + n]
            missing = missing[len(run) :]
            self.read(row, run[0], run[-1])

    def read(self, row, first, last):
        x, y, width, height = self.pair.area
        left, top = max(x, first * self.side), max(y, row * self.side)
        right, bottom = min(x + width, (last + 1) * self.side), min(y + height, (row + 1) * self.side)
        pan = self.reader.read_pan(left, top, right - left, bottom - top)
        nodata, ratio = self.pair.nodata[0], self.pair.ratio
        gaps = None
        if count_valid(pan, nodata) < pan.size:
            mask = is_nodata(pan, nodata)
            pan = np.where(mask, 0, pan)
            gaps = box_sum(mask.view(np.uint8), ratio, np.uint16)
        sums = box_sum(pan, ratio)
        for c in range(first, last + 1):
            start, end = max(left, c * self.side) - left, min(right, (c + 1) * self.side) - left
            # copies: a view would keep the whole run in memory
            piece = sums[:, :, start:end].copy(), None if gaps is None else gaps[:, :, start:end].copy()
            self.pieces[row, c] = (*piece, left + start, top)
