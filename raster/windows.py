"""Where windows start so that they cover every pixel of a raster and none begins outside."""

from dataclasses import dataclass


def thin_shape(height, width, longest):
    """(height, width) of an image, reduced so that neither is above `longest`."""
    share = min(1.0, longest / max(height, width))
    return max(1, round(height * share)), max(1, round(width * share))


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
    return [min(i * stride, length - size) for i in range(count_of(length, size, stride))]


def count_of(length, size, stride):
    """How many windows cover `length` pixels: len(starts(…))."""
    return 1 if length <= size else -(-(length - size) // stride) + 1


@dataclass(frozen=True)
class WindowGrid:
    """
    Windows of `size` pixels, one every `stride` pixels, that cover a raster of height × width pixels.

    size, stride: of the rows. across, step: those of the columns, None for the same, which makes the windows square.
    """

    height: int
    width: int
    size: int
    stride: int
    across: int | None = None
    step: int | None = None

    def __post_init__(self):
        object.__setattr__(self, "across", self.across or self.size)
        object.__setattr__(self, "step", self.step or self.stride)

    @property
    def rows(self):
        """First rows of the windows."""
        return starts(self.height, self.size, self.stride)

    @property
    def columns(self):
        """First columns of the windows."""
        return starts(self.width, self.across, self.step)

    @property
    def count(self):
        """How many windows there are; also for rasters whose windows no list could hold."""
        return count_of(self.height, self.size, self.stride) * count_of(self.width, self.across, self.step)

    def first_row_for(self, row):
        """First row of the first windows that reach `row` or below: where reading begins for a map that is finished above `row`."""
        return next(first for first in self.rows if first + self.size > row)

    def count_above(self, row):
        """How many windows end above `row`."""
        return len(self.columns) * sum(first + self.size <= row for first in self.rows)
