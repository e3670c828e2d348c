"""Windows cover every pixel, lie inside, and are as many as the formula says."""

import math

import pytest

from raster.windows import starts, window_grid


@pytest.mark.parametrize("length", [*range(1, 40), 1129, 1380])
@pytest.mark.parametrize("size, stride", [(8, 8), (8, 7), (8, 1), (5, 3), (256, 224)])
def test_every_pixel_is_covered_and_no_window_sticks_out(length, size, stride):
    found = starts(length, size, stride)
    covered = {pixel for start in found for pixel in range(start, min(start + size, length))}
    assert covered == set(range(length))
    assert all(start + size <= length for start in found) or found == [0]
    assert found == sorted(set(found))


def test_the_number_of_windows_is_the_formulas():
    for length in range(256, 2100, 37):
        assert len(starts(length, 256, 224)) == math.ceil((length - 256) / 224) + 1


def test_windows_of_a_small_example_by_hand():
    assert starts(10, 4, 3) == [0, 3, 6]
    assert starts(11, 4, 3) == [0, 3, 6, 7]
    assert window_grid(4, 10, 4, 3) == [(0, 0), (0, 3), (0, 6)]
    assert window_grid(5, 5, 4, 4) == [(0, 0), (0, 1), (1, 0), (1, 1)]


@pytest.mark.parametrize("stride", [0, -1, 9])
def test_a_stride_that_leaves_pixels_out_is_refused(stride):
    with pytest.raises(ValueError, match="stride"):
        starts(100, 8, stride)
