"""The arithmetic of tiling: where windows start so that every pixel is covered and none lies outside."""


def starts(length, size, stride):
    """
    First pixels of the windows of `size` that cover `length` pixels: 0, stride, 2·stride …, the last one aligned to the edge.

    There are ceil((length − size) / stride) + 1 of them; [0] where one window covers everything (it then reaches beyond the edge
    if length < size). Needs 0 < stride ≤ size, otherwise pixels would be left out.
    """
    if not 0 < stride <= size:
        raise ValueError(f"stride must be 1..{size} so that every pixel is covered, got {stride}")
    if length <= size:
        return [0]
    count = -(-(length - size) // stride) + 1
    return [min(i * stride, length - size) for i in range(count)]


def window_grid(height, width, size, stride):
    """(row, column) of every window's top left pixel, row by row: the order in which blocks are decoded once."""
    columns = starts(width, size, stride)
    return [(row, column) for row in starts(height, size, stride) for column in columns]
