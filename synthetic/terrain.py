"""Made-up relief: fractal noise, valleys cut by running water, and how long something takes to spread over the land.

Everything here works on plain arrays whose row axis points south and whose column axis points east. Lengths are in
cells unless a name says metres. The same random generator gives the same relief.
"""

import numpy as np

# The eight neighbours of a cell as (rows, columns) from the neighbour to the cell, with the distance in cells.
STEPS = [(dr, dc, float(np.hypot(dr, dc))) for dr in (-1, 0, 1) for dc in (-1, 0, 1) if dr or dc]


def even_size(length):
    """The next length that a Fourier transform handles quickly (2^a · 3^b · 5^c, even)."""
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
    """`field` (H, W) blurred by a Gaussian of `sigma` cells; borders are mirrored."""
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
    """`coarse` drawn `factor` times larger as a smooth surface, cut to `shape` after leaving out `margin` coarse
    cells at the top left.

    A cubic B-spline: smooth in slope and curvature, and it never overshoots; peaks come out a little lower than they
    went in.
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
    """`field` moved down by `rows` and right by `columns` whole cells; `fill` enters at the open side."""
    moved = np.full_like(field, fill)
    height, width = field.shape
    if abs(rows) >= height or abs(columns) >= width:
        return moved
    moved[max(rows, 0) : height + min(rows, 0), max(columns, 0) : width + min(columns, 0)] = field[
        max(-rows, 0) : height - max(rows, 0), max(-columns, 0) : width - max(columns, 0)
    ]
    return moved


def downstream(elevation):
    """For each cell (flat index) the neighbour that water runs to: the steepest way down, or the cell itself in a
    pit."""
    best = np.zeros_like(elevation)
    index = np.arange(elevation.size).reshape(elevation.shape)
    receiver = index.copy()
    for rows, columns, distance in STEPS:
        fall = (elevation - shifted(elevation, rows, columns, np.inf)) / distance
        steeper = fall > best
        best = np.where(steeper, fall, best)
        receiver = np.where(steeper, shifted(index, rows, columns, 0), receiver)
    return receiver.ravel()


def levels_upstream(receiver):
    """Lists of flat indices: first the outlets, then the cells that drain straight into them, and so on up to the
    ridges."""
    steps = (receiver != np.arange(receiver.size)).astype(np.int32)
    jump = receiver.copy()
    while True:  # pointer doubling: after k rounds every cell knows its next 2^k steps
        further = steps + steps[jump]
        if np.array_equal(further, steps):
            break
        steps, jump = further, jump[jump]
    order = np.argsort(steps, kind="stable")
    return np.split(order, np.cumsum(np.bincount(steps))[:-1])


def drainage_area(receiver, levels):
    """Number of cells whose water passes through each cell, itself included. (cells,) float64."""
    area = np.ones(receiver.size)
    for cells in reversed(levels[1:]):
        area += np.bincount(receiver[cells], weights=area[cells], minlength=receiver.size)
    return area


def carve(floor, rng, rounds=24, strength=0.25, rounding=0.7):
    """Land that rises around `floor` (H, W bool: cells that stay at height 0 and take the water) and is cut by its
    rivers.

    Returns (height, receiver, levels, area): heights ≥ 0 (H, W) in arbitrary units, and the river network as in the
    functions above. The stream-power law with an implicit step (Braun and Willett, 2013), which is stable whatever
    the step; `rounding` is the blur in cells that each round gives the slopes, as creeping soil does: more of it,
    fewer and broader valleys.
    """
    # Starting from a noisy distance to the floor means that every cell already has a way down: there are no pits to
    # fill.
    roughness = np.exp(0.9 * fractal_noise(rng, floor.shape, 1.3, longest=60, shortest=3))
    height = spreading_time(np.broadcast_to(roughness, (8, *floor.shape)), floor).astype(np.float64)
    fixed = floor.ravel()
    for round_number in range(rounds):
        if round_number:
            height = np.where(floor, 0.0, smooth(height, rounding))
        receiver = np.where(fixed, np.arange(fixed.size), downstream(height))
        levels = levels_upstream(receiver)
        area = drainage_area(receiver, levels)
        flat = height.ravel() + np.where(fixed, 0.0, 1.0)
        for cells in levels[1:]:
            factor = strength * np.sqrt(area[cells])
            flat[cells] = (flat[cells] + factor * flat[receiver[cells]]) / (1 + factor)
        height = flat.reshape(height.shape)
    return height.astype(np.float32), receiver, levels, area


def spreading_time(cost, start, rounds=None):
    """How long something that starts at `start` takes to reach each cell. (H, W) float32; inf where it never comes.

    cost: (8, H, W) time to enter a cell from its neighbour, in the order of STEPS (distance not yet included); inf =
    impassable start: (H, W) bool
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
