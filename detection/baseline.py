"""
Objects found without learning: maxima of the scale-normalised Laplacian of Gaussian, bright or dark blobs of a usual size.

    chosen = fit(train)                       # size, bright or dark, and threshold, by the F1 on the training images
    found = detect(test, chosen)              # a list of {"boxes", "scores", "labels"}, what metrics.score_images takes

What a detector has to be better than. Images come from a chipping.tile_set.TileSet.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn.functional import avg_pool2d, conv2d, max_pool2d, pad

from detection.boxes import areas_of
from detection.merge import KEPT, suppress
from detection.metrics import choose_threshold
from raster.scale import to_reflectance
from runtime.errors import UserError

SIZES = (0.5, 0.7, 1.0, 1.4, 2.0)  # that are tried, times the usual object's
BLOCK = 2048  # pixels of an image's side that are looked at together
FINEST = 3.0  # pixels of a Gaussian's sigma
REACH = 4  # sigmas of a Gaussian that count
SAME_OBJECT = 0.3  # IoU
MOST_PIXELS = 64_000_000  # of the training images that decide
MOST_FOUND = 5000  # an image, the strongest


@dataclass(frozen=True)
class Chosen:
    """
    What the training images decide. box: (width, height) in pixels. sigma: of the Gaussian, pixels. sign: 1 for bright objects, −1 for
    dark ones. label: the most frequent class. threshold: least response.
    """

    box: tuple
    sigma: float
    sign: int
    label: int
    threshold: float = 0.0


def fit(tile_set):
    """Chosen for a TileSet with objects; of images that are larger in all than MOST_PIXELS the first ones decide. UserError without any."""
    sides = [image.boxes[:, 2:] - image.boxes[:, :2] for image in tile_set.images]
    labels = np.concatenate([image.labels for image in tile_set.images] or [np.zeros(0, np.int64)])
    if not len(labels):
        raise UserError(f"the training images of {tile_set.folder} have no objects, so there is nothing to choose a baseline by")
    box, label = np.median(np.concatenate(sides), axis=0), int(np.bincount(labels).argmax())
    pixels = np.cumsum([image.width * image.height for image in tile_set.images])
    images = range(max(1, int(np.searchsorted(pixels, MOST_PIXELS, side="right"))))
    truths = [{"boxes": i.boxes, "labels": np.full(len(i.boxes), label), "ignore": i.ignore} for i in (tile_set.images[k] for k in images)]
    tried = []
    for size in SIZES:
        sigma = size * float(np.sqrt(box.prod())) / (2 * np.sqrt(2))  # a disc answers most to the sigma that is its radius / √2
        for sign in (1, -1):
            chosen = Chosen(tuple((size * box).tolist()), sigma, sign, label)
            found = [find(tile_set, image, chosen) for image in images]
            by_iou, by_centre = choose_threshold(truths, found), choose_threshold(truths, found, iou=None)
            threshold = by_iou[0] if by_iou[1] > 0 else by_centre[0]
            tried.append((np.nan_to_num((by_iou[1], by_centre[1])).tolist(), replace(chosen, threshold=threshold)))
    return max(tried, key=lambda one: one[0])[1]


def detect(tile_set, chosen):
    """[{"boxes" (N, 4) float64, "scores" (N,) responses, "labels", "image_id"}] of the images of a TileSet."""
    return [{**find(tile_set, k, chosen), "image_id": image.image_id} for k, image in enumerate(tile_set.images)]


def find(tile_set, index, chosen):
    """{"boxes", "scores", "labels"} of an image (its place in the set), the strongest response first."""
    image, centres, scores = tile_set.images[index], [], []
    apron, step = int(np.ceil((REACH + 2) * chosen.sigma)) + 1, step_of(chosen.sigma)
    with tile_set.reader(index) as reader:
        for top in range(0, image.height, BLOCK):
            for left in range(0, image.width, BLOCK):
                x0, y0 = (max(0, first - apron) // step * step for first in (left, top))
                x1, y1 = min(image.width, left + BLOCK + apron), min(image.height, top + BLOCK + apron)
                stored, valid = tile_set.window(reader, index, x0, y0, x1 - x0, y1 - y0)
                place, strength = maxima(brightness(stored, valid, tile_set), chosen.sigma, chosen.sign)
                place = place + (x0, y0)
                own = ((place >= (left, top)) & (place < (left + BLOCK, top + BLOCK))).all(axis=1)
                centres.append(place[own])
                scores.append(strength[own])
    centres, scores = np.concatenate(centres), np.concatenate(scores)
    order = np.argsort(-scores, kind="stable")[:MOST_FOUND]
    half = np.array(chosen.box) / 2
    boxes = np.concatenate([centres[order] - half, centres[order] + half], axis=1).clip(0, (image.width, image.height) * 2)
    labels, scores = np.full(len(order), chosen.label), scores[order]
    kept = (suppress(boxes, scores, labels, SAME_OBJECT) == KEPT) & (areas_of(boxes) > 0)
    return {"boxes": boxes[kept], "scores": scores[kept], "labels": labels[kept]}


def brightness(stored, valid, tile_set):
    """(H, W) float32 mean of the bands' reflectance; what is no data has the mean of the rest."""
    grey = to_reflectance(stored.astype(np.float32), tile_set.divide_by, tile_set.offset).mean(axis=0)
    return np.where(valid, grey, grey[valid].mean() if valid.any() else 0.0)


def maxima(grey, sigma, sign):
    """((N, 2) x, y in pixels, (N,) response) of the local maxima of the scale-normalised Laplacian, where it is above 0."""
    step = step_of(sigma)
    values = torch.from_numpy(np.ascontiguousarray(grey, np.float32))[None, None]
    if step > 1:
        values = avg_pool2d(values, step, ceil_mode=True)
    response = -sign * laplacian(values, sigma / step)
    radius = max(1, round(sigma / step))
    highest = max_pool2d(response, 2 * radius + 1, stride=1, padding=radius)
    rows, columns = torch.nonzero((response == highest)[0, 0] & (response[0, 0] > 0), as_tuple=True)
    place = torch.stack([columns, rows], dim=1).double().numpy()
    return (place + 0.5) * step, response[0, 0, rows, columns].double().numpy()


def step_of(sigma):
    """Pixels of a side that are averaged before a Gaussian: details that are much smaller than it do not count."""
    return max(1, int(sigma / FINEST))


def laplacian(values, sigma):
    """sigma² times the Laplacian of (1, 1, H, W) smoothed by a Gaussian; beyond the border goes on what is at it."""
    radius = int(np.ceil(REACH * sigma))
    x = torch.arange(-radius, radius + 1, dtype=torch.float32)
    gaussian = torch.exp(-(x**2) / (2 * sigma**2))
    gaussian /= gaussian.sum()
    curvature = (x**2 / sigma**2 - 1) * gaussian  # sigma² times its second derivative
    curvature -= curvature.sum() * gaussian  # even ground answers with 0
    wide = pad(values, (radius,) * 4, mode="replicate")

    def along(image, across, down):
        return conv2d(conv2d(image, across.reshape(1, 1, 1, -1)), down.reshape(1, 1, -1, 1))

    return along(wide, curvature, gaussian) + along(wide, gaussian, curvature)
