"""Detections of an image of any size, tile by tile from the top: what is found in a row of tiles, in pixels of the image."""

from dataclasses import dataclass, field

import numpy as np
import torch
from rasterio.features import shapes

from mapping.segmentation import ToReflectance


@dataclass
class TileRow:
    """
    What a row of tiles holds.

    row: first row of the tiles; rows: how many until those of the next ones begin. boxes: (N, 4) float64 x0, y0, x1, y1. scores: (N,)
    float32. labels: (N,) int32, 1 … K. columns: (N,) int32, first column of the tile of each. outlines: for each an (M, 2) int array of
    corners x, y, or None. tiles: that were looked at; full: that reached the limit of detections. valid: pixels of the rows that are data.
    unreadable: see mapping.reading.Slab. thumbnail: (C, n, m) float16, see mapping.segmentation.Band.
    """

    row: int
    rows: int
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    columns: np.ndarray
    outlines: list
    tiles: int
    full: int
    valid: int
    unreadable: list = field(default_factory=list)
    thumbnail: np.ndarray | None = None


class Finder:
    """
    A detector and how it is run: stored pixels in, detections out.

    detector: predict(images (B, C, H, W) float32, score_threshold, limit) → [Detections], in eval mode. scale: raster.scale.Scale.
    compute: runtime.device.Compute. score_threshold, limit: of predict(). tta: ask predict() for the mean over flips and turns. batch_size:
    tiles at once.
    """

    def __init__(self, detector, scale, compute, *, score_threshold, limit, tta=False, batch_size=8):
        self.detector, self.compute, self.device = detector, compute, compute.device
        self.score_threshold, self.limit, self.batch_size = score_threshold, limit, batch_size
        self.views = {"tta": True} if tta else {}  # not all detectors have it
        self.reflectance = ToReflectance(scale, self.device, torch.channels_last if compute.channels_last else torch.contiguous_format)

    @torch.inference_mode()
    def find(self, images):
        """[Detections] of (B, C, H, W) reflectance, on the CPU."""
        with self.compute.autocast():
            found = self.detector.predict(images, self.score_threshold, self.limit, **self.views)
        return [type(one)(*(part.cpu() if isinstance(part, torch.Tensor) else part for part in one)) for one in found]


def find_rows(finder, strips, grid, *, thumbnail_step, progress=None):
    """
    TileRows of an image from the top, or from where an earlier run stopped.

    strips: of swaths.strips_of_rows. grid: raster.windows.WindowGrid. thumbnail_step: keep every so many-th row and column of the
    reflectance. progress: called with the number of tiles that are done.
    """
    for top, below, swaths in strips:
        pieces, thumbnails, columns, full, valid, unreadable = [], [], [], 0, 0, []
        for swath, strip in swaths:
            before = np.concatenate([[0], np.cumsum(strip.mapped.any(axis=0))])  # tiles without a pixel that is wanted are left out
            places = [c - swath.left for c in swath.columns]
            wanted = [c for c in places if before[min(c + grid.across, len(before) - 1)] > before[c]]
            for n in range(0, len(wanted), finder.batch_size):
                part = wanted[n : n + finder.batch_size]
                found = finder.find(finder.reflectance(*strip.crops(part), strip.unsigned))
                pieces += [in_image(one, column, swath.left, strip, grid) for one, column in zip(found, part, strict=True)]
                full += sum(one.full for one in found)
            if progress:
                progress(len(places))
            columns += [swath.left + column for column in wanted]
            valid += int(np.count_nonzero(strip.mapped[: below - top, : swath.own - swath.left]))
            unreadable += [block for block in strip.unreadable_above(below) if block[0] >= top]  # the others are told already
            thumbnails.append(strip.thumbnail(finder, (top, below), (swath.left, swath.own), thumbnail_step, swath.left))
        yield TileRow(top, below - top, **joined(pieces, columns), tiles=len(columns), full=full, valid=valid,
                      unreadable=sorted(unreadable), thumbnail=np.concatenate(thumbnails, axis=2))


def in_image(found, column, left, strip, grid):
    """
    (boxes, scores, labels, outlines) of a tile's Detections in pixels of the image, cut at the edges of tile and image.

    column: of the strip that the tile begins with. left: of the image that the strip begins with. A box whose centre is not on a pixel that
    is wanted is none: padding, nodata, or outside of the area of interest.
    """
    corner = left + column, strip.row
    limits = min(grid.across, grid.width - corner[0]), min(grid.size, grid.height - corner[1])
    boxes = np.clip(found.boxes.double().numpy().reshape(-1, 4), 0, limits * 2)
    centre = ((boxes[:, :2] + boxes[:, 2:]) / 2).astype(np.int64)
    x, y = (np.minimum(centre[:, axis], limits[axis] - 1) for axis in (0, 1))
    kept = (boxes[:, 2:] > boxes[:, :2]).all(axis=1) & strip.mapped[y, column + x]
    outlines = [None] * len(boxes) if found.masks is None else [
        outline(mask, *corner) if keep else None for mask, keep in zip(found.masks.numpy(), kept, strict=True)]
    return (boxes[kept] + corner * 2, found.scores.float().numpy()[kept], found.labels.numpy().astype(np.int32)[kept],
            [one for one, keep in zip(outlines, kept, strict=True) if keep])


def outline(mask, column, row):
    """(M, 2) corners x, y in pixels of the image of the largest piece of a tile's mask (H, W) bool; None of an empty one."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    part = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.uint8)
    rings = [np.array(shape["coordinates"][0][:-1]) for shape, _ in shapes(part, mask=part > 0)]
    largest = max(rings, key=lambda ring: abs(np.dot(ring[:, 0], np.roll(ring[:, 1], 1)) - np.dot(ring[:, 1], np.roll(ring[:, 0], 1))))
    return largest.astype(np.int64) + (column + columns[0], row + rows[0])


def joined(pieces, columns):
    """The arrays of a TileRow. pieces: of in_image, one a tile. columns: first column of each tile."""
    counts = [len(boxes) for boxes, *_ in pieces]
    boxes, scores, labels = (np.concatenate([none, *(piece[n] for piece in pieces)]) for n, none in enumerate(
        (np.zeros((0, 4)), np.zeros(0, np.float32), np.zeros(0, np.int32))))
    return {"boxes": boxes, "scores": scores, "labels": labels, "columns": np.repeat(np.array(columns, np.int32), counts),
            "outlines": [one for *_, outlines in pieces for one in outlines]}
