"""Windows cover every pixel, lie inside, and are as many as the formula says."""

import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from raster.windows import WindowGrid, starts

SIZES = st.integers(1, 64).flatmap(lambda size: st.tuples(st.just(size), st.integers(1, size)))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(length=st.integers(1, 300), size_and_stride=SIZES)
@example(length=1129, size_and_stride=(256, 224))
@example(length=1380, size_and_stride=(256, 224))
def test_every_pixel_is_covered_and_no_window_sticks_out(length, size_and_stride):
    size, stride = size_and_stride
    found = starts(length, size, stride)
    covered = {pixel for start in found for pixel in range(start, min(start + size, length))}
    assert covered == set(range(length))
    assert all(start + size <= length for start in found) or found == [0]
    assert found == sorted(set(found))
    assert all(b - a == stride for a, b in zip(found[:-1], found[1:-1], strict=False))  # only the last one may be nearer


def test_the_number_of_windows_is_the_formulas():
    for length in range(256, 2100, 37):
        assert len(starts(length, 256, 224)) == math.ceil((length - 256) / 224) + 1


def test_windows_of_a_small_example_by_hand():
    assert starts(10, 4, 3) == [0, 3, 6]
    assert starts(11, 4, 3) == [0, 3, 6, 7]
    grid = WindowGrid(5, 11, 4, 3)
    assert (grid.rows, grid.columns, grid.count) == ([0, 1], [0, 3, 6, 7], 8)


def test_a_run_that_continues_at_a_row_begins_with_the_first_window_that_reaches_it():
    grid = WindowGrid(20, 4, 8, 6)  # windows begin at rows 0, 6 and 12
    assert [(row, grid.first_row_for(row), grid.count_above(row)) for row in (0, 7, 8, 13, 14, 19)] == [
        (0, 0, 0), (7, 0, 0), (8, 6, 1), (13, 6, 1), (14, 12, 2), (19, 12, 2)]


@pytest.mark.parametrize("stride", [0, -1, 9])
def test_a_stride_that_leaves_pixels_out_is_refused(stride):
    with pytest.raises(ValueError, match="stride"):
        starts(100, 8, stride)
