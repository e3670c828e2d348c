"""
Places the windows of pan/ms chips: endless sequences that cover a tile evenly after any number of windows.

A sampler is a function (tile name, k, free_x, free_y) -> (x, y) with 0 <= x <= free_x, or None when it has no k-th window.
free is tile side - window side, in ms pixels. The k-th window of a tile does not depend on other tiles.
"""

import hashlib

# The R2 sequence: multiples of 1/rho and 1/rho^2, where rho^3 = rho + 1
RHO = 1.324717957244746
STEP_X, STEP_Y = 1 / RHO, 1 / RHO**2


def r2(name, k, free_x, free_y):
    """R2 with a phase of its own for each tile, so that tiles don't share positions and corners are not favoured."""
    digest = hashlib.sha256(name.encode()).digest()
    phase_x, phase_y = (int.from_bytes(digest[i : i + 8], "big") / 2**64 for i in (0, 8))
    x, y = (0.5 + phase_x + k * STEP_X) % 1, (0.5 + phase_y + k * STEP_Y) % 1
    return min(free_x, int(x * (free_x + 1))), min(free_y, int(y * (free_y + 1)))


def r2_plain(name, k, free_x, free_y):
    """R2 from the corner without a phase, as an earlier tool placed its windows: for comparisons."""
    x, y = k * STEP_X % 1, k * STEP_Y % 1
    return int(x * free_x) % max(1, free_x), int(y * free_y) % max(1, free_y)


SAMPLERS = {"r2": r2, "r2-plain": r2_plain}


def grid(k, free_x, free_y, side):
    """Side by side, row by row; remainders at the right and bottom edges are left out. None past the end."""
    row, column = divmod(k, free_x // side + 1)
    return (column * side, row * side) if row * side <= free_y else None


def place(sampler, name, k, free_x, free_y, side):
    """(x, y) of window k, or None past the end of a grid."""
    return grid(k, free_x, free_y, side) if sampler == "grid" else SAMPLERS[sampler](name, k, free_x, free_y)


def count_places(sampler, free_x, free_y, side):
    """How many places a sampler has on a tile, each counted once."""
    if sampler == "grid":
        return (free_x // side + 1) * (free_y // side + 1)
    return max(1, free_x) * max(1, free_y) if sampler == "r2-plain" else (free_x + 1) * (free_y + 1)
