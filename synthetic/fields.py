"""Fields on a grid: noise, blur, enlargement, travel time, lines drawn by area. Row axis south, column axis east, lengths in cells."""

import numpy as np
from rasterio.features import rasterize

# The eight neighbours of a cell as (rows, columns) from the neighbour to the cell, with the distance in cells.
STEPS = [(dr, dc, float(np.hypot(dr, dc))) for dr in (-1, 0, 1) for dc in (-1, 0, 1) if dr or dc]


def logistic(x):
    """0..1, rising through 0.5 at x = 0."""
    return 1 / (1 + np.exp(-np.clip(x, -30, 30)))


def even_size(length):
    """The smallest even size >= length with only the prime factors 2, 3 and 5, which a Fourier transform handles quickly."""
    size = length + length % 2
    while True:
        rest = size
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return size
        size += 2


def fractal_noise(rng, shape, exponent=1.5, longest=None, shortest=1.0):
    """(H, W) float32 noise with mean about 0 and standard deviation 1.

    exponent: how fast amplitude falls with frequency; 0 is white noise, 1.5 clouds, 2 rolling hills
    longest, shortest: wavelengths in cells beyond which nothing is added; `longest` defaults to the longer side
    """
    # A tenth more than needed is made, because the transform joins opposite borders.
    height, width = (even_size(n + n // 10 + 4) for n in shape)
    longest = longest or max(shape)
    rows = np.fft.fftfreq(height).astype(np.float32)[:, None]
    columns = np.fft.rfftfreq(width).astype(np.float32)[None, :]
    frequency = np.hypot(rows, columns)
    amplitude = np.maximum(frequency, 1.0 / longest) ** np.float32(-exponent) * np.exp(-((frequency * shortest) ** 2))
    amplitude[0, 0] = 0.0
    white = rng.standard_normal((height, width), dtype=np.float32)
    noise = np.fft.irfft2(np.fft.rfft2(white) * amplitude.astype(np.float32), s=(height, width)).astype(np.float32)
    return noise[: shape[0], : shape[1]] / max(float(noise.std()), 1e-12)


def smooth(field, sigma):
    """`field` (H, W) blurred by a Gaussian of `sigma` cells; borders are mirrored. float32."""
    if sigma <= 0:
        return np.asarray(field, dtype=np.float32)
    margin = int(np.ceil(3 * sigma))
    height, width = field.shape
    below = even_size(height + 2 * margin) - height - margin
    right = even_size(width + 2 * margin) - width - margin
    padded = np.pad(np.asarray(field, dtype=np.float32), ((margin, below), (margin, right)), mode="symmetric")
    rows = np.fft.fftfreq(padded.shape[0]).astype(np.float32)[:, None]
    columns = np.fft.rfftfreq(padded.shape[1]).astype(np.float32)[None, :]
    gauss = np.exp(np.float32(-2 * np.pi**2 * sigma**2) * (rows**2 + columns**2))
    blurred = np.fft.irfft2(np.fft.rfft2(padded) * gauss, s=padded.shape).astype(np.float32)
    return blurred[margin : margin + height, margin : margin + width]


def enlarge(coarse, shape, factor, margin=0):
    """`coarse` magnified `factor` times as a smooth surface, cropped to `shape` after dropping `margin` coarse cells at the top left.

    A cubic B-spline: smooth in slope and curvature, without overshoot; peaks come out slightly lower than in `coarse`.
    """

    def weights(length, count):
        position = (np.arange(length, dtype=np.float64) + 0.5) / factor - 0.5 + margin
        base = np.floor(position).astype(int)
        t = position - base
        table = np.zeros((length, count), np.float32)
        spline = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
        for shift, weight in zip((-1, 0, 1, 2), spline, strict=True):
            np.add.at(table, (np.arange(length), np.clip(base + shift, 0, count - 1)), weight / 6)
        return table

    return weights(shape[0], coarse.shape[0]) @ coarse.astype(np.float32) @ weights(shape[1], coarse.shape[1]).T


def shifted(field, rows, columns, fill):
    """`field` moved down by `rows` and right by `columns` whole cells; vacated cells are `fill`."""
    moved = np.full_like(field, fill)
    height, width = field.shape
    if abs(rows) >= height or abs(columns) >= width:
        return moved
    moved[max(rows, 0) : height + min(rows, 0), max(columns, 0) : width + min(columns, 0)] = field[
        max(-rows, 0) : height - max(rows, 0), max(-columns, 0) : width - max(columns, 0)
    ]
    return moved


def spreading_time(cost, start, rounds=None):
    """Least time from `start` to each cell. (H, W) float32; inf where it is never reached.

    cost: (8, H, W) time to enter a cell from its neighbour per cell of distance, in the order of STEPS; inf = impassable
    start: (H, W) bool
    """
    time = np.where(start, 0.0, np.inf).astype(np.float32)
    steps = [(dr, dc, cost[i] * np.float32(distance)) for i, (dr, dc, distance) in enumerate(STEPS)]
    for _ in range(rounds or 3 * max(time.shape)):
        before = time
        for dr, dc, step in steps:
            time = np.minimum(time, shifted(time, dr, dc, np.inf) + step)
        if np.array_equal(before, time):
            break
    return time


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
