"""Roads, rivers and other lines on a grid: how much of each pixel they cover."""

import numpy as np
from rasterio.features import rasterize


def stripes(lines, shape, detail=3):
    """(H, W) 0..1: share of each pixel that the lines cover. lines: [(points (N, 2) as row, column; width in pixels)]"""
    shapes = []
    for points, width in lines:
        points = np.asarray(points, np.float64)
        along = np.gradient(points, axis=0)
        side = np.stack([-along[:, 1], along[:, 0]], axis=1) / np.maximum(np.hypot(*along.T), 1e-9)[:, None]
        a, b = points + side * width / 2, points - side * width / 2
        for i in range(len(points) - 1):
            ring = np.array([a[i], a[i + 1], b[i + 1], b[i], a[i]]) * detail
            shapes.append({"type": "Polygon", "coordinates": [[(float(x), float(y)) for y, x in ring]]})
    if not shapes:
        return np.zeros(shape, np.float32)
    fine = rasterize(shapes, out_shape=(shape[0] * detail, shape[1] * detail), dtype="uint8")
    return fine.reshape(shape[0], detail, shape[1], detail).mean(axis=(1, 3), dtype=np.float32)


def rounded(points, times=3):
    """(N, 2) points without a staircase: each moved to the weighted mean of itself and its neighbours; the ends stay."""
    points = np.asarray(points, np.float64).copy()
    for _ in range(times):
        points[1:-1] = (points[:-2] + 2 * points[1:-1] + points[2:]) / 4
    return points
