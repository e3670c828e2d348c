"""Boxes of overlapping tiles become those of the image: each object once, none lost, the same whether tiles come at once or row by row."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import batched_nms, box_iou

from detection.merge import Merger, iou_of, merge_tiles
from raster.windows import starts


def drawn_boxes(rng, count, spread, low=4, high=40):
    centres, sides = rng.random((count, 2)) * spread, rng.uniform(low, high, (count, 2))
    return np.concatenate([centres - sides / 2, centres + sides / 2], axis=1)


def tiles_of(width, height, tile, overlap):
    """(T, 4) tiles row by row, as maps have them."""
    corners = [(x, y) for y in starts(height, tile, tile - overlap) for x in starts(width, tile, tile - overlap)]
    return np.array([(x, y, min(x + tile, width), min(y + tile, height)) for x, y in corners], float)


def seen_by_tiles(objects, labels, tiles, smallest=0.2):
    """What a perfect detector finds in each tile: every object of which enough is inside, cut at the tile's edges."""
    boxes, found, index, which = [], [], [], []
    for number, tile in enumerate(tiles):
        inside = np.concatenate([np.maximum(objects[:, :2], tile[:2]), np.minimum(objects[:, 2:], tile[2:])], axis=1)
        sides, whole = np.maximum(inside[:, 2:] - inside[:, :2], 0), objects[:, 2:] - objects[:, :2]
        seen = np.flatnonzero(sides.prod(axis=1) > smallest * whole.prod(axis=1))
        boxes.append(inside[seen])
        found.append(labels[seen])
        index.append(np.full(len(seen), number))
        which.append(seen)
    return np.concatenate(boxes), np.concatenate(found), np.concatenate(index), np.concatenate(which)


def apart(rng, width, height, cell, low, high):
    """Objects that do not overlap: one in each cell of a grid."""
    corners = np.array([(x, y) for y in range(0, height - cell + 1, cell) for x in range(0, width - cell + 1, cell)], float)
    corners = corners.reshape(-1, 2)
    sides = rng.uniform(low, high, corners.shape)
    corners += rng.random(corners.shape) * (cell - sides)
    return np.concatenate([corners, corners + sides], axis=1)


# --------------------------------------------------------------------------------------------------------- suppression


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(0, 300), classes=st.integers(1, 4), spread=st.sampled_from([1, 30, 300]),
       iou=st.floats(0, 0.95), ties=st.booleans())
def test_without_tile_edges_the_boxes_are_those_of_batched_nms_in_its_order(seed, count, classes, spread, iou, ties):
    rng = np.random.default_rng(seed)
    boxes, labels = drawn_boxes(rng, count, spread), rng.integers(1, classes + 1, count)
    scores = rng.integers(0, 5, count) / 5 if ties else rng.random(count)
    kept = merge_tiles(boxes, scores, labels, np.zeros(count, int), [(0, 0, spread, spread)], (spread, spread), iou=iou)
    boxes, scores = torch.from_numpy(boxes), torch.from_numpy(scores).double()
    parts = [np.flatnonzero(labels == label) for label in range(1, classes + 1)]  # batched_nms moves small sets apart, and so rounds
    theirs = np.concatenate([part[batched_nms(boxes[part], scores[part], torch.zeros(len(part)), iou).numpy()] for part in parts])
    assert kept.tolist() == sorted(theirs, key=lambda i: (-scores[i].item(), i))


def test_boxes_all_at_one_place_leave_one_of_each_class():
    count = 5000
    boxes = np.tile([10.0, 10, 50, 50], (count, 1))
    scores, labels = np.random.default_rng(0).random(count), np.arange(count) % 2 + 1
    kept = merge_tiles(boxes, scores, labels, np.zeros(count, int), [(0, 0, 90, 90)], (90, 90))
    assert kept.tolist() == sorted((np.flatnonzero(labels == k)[scores[labels == k].argmax()] for k in (1, 2)), key=lambda i: -scores[i])


def test_a_chain_of_boxes_that_each_suppress_the_next_keeps_every_other_one():
    left = np.arange(10_000) * 10.0
    boxes = np.stack([left, 0 * left, left + 40, 0 * left + 40], axis=1)  # IoU 0.6 with the next, 0.33 with the one after
    kept = merge_tiles(boxes, -left, np.ones(len(left)), np.zeros(len(left), int), [(0, 0, 1e6, 40)], (1e6, 40))
    assert kept.tolist() == list(range(0, 10_000, 2))


def test_far_from_the_origin_half_pixels_still_count():
    boxes = np.array([[0, 0, 20, 20], [10.5, 0, 30.5, 20], [0, 0, 20, 10.0]]) + 8e6  # IoU 0.31 and exactly 0.5
    assert merge_tiles(boxes, [0.9, 0.8, 0.7], [1, 1, 1], [0, 0, 0], [(0, 0, 9e6, 9e6)], (9e6, 9e6)).tolist() == [0, 1, 2]
    boxes[2, 3] += 0.0625
    assert merge_tiles(boxes, [0.9, 0.8, 0.7], [1, 1, 1], [0, 0, 0], [(0, 0, 9e6, 9e6)], (9e6, 9e6)).tolist() == [0, 1]


def test_no_boxes_are_no_boxes():
    kept = merge_tiles(np.zeros((0, 4)), [], [], [], [(0, 0, 8, 8)], (8, 8))
    assert kept.shape == (0,) and kept.dtype == np.int64


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_iou_is_that_of_torchvision(seed):
    rng = np.random.default_rng(seed)
    some, others = drawn_boxes(rng, 20, 40), drawn_boxes(rng, 20, 40)
    expected = box_iou(torch.from_numpy(some), torch.from_numpy(others)).diagonal().numpy()
    np.testing.assert_allclose(iou_of(some, others), expected, atol=1e-12)


# -------------------------------------------------------------------------------------------------------------- tiles

TWO = [(0, 0, 100, 100), (60, 0, 160, 100)]  # beside each other; 60 … 100 is seen by both


def kept_of(boxes, scores, tile_index, tiles=TWO, size=(160, 100), labels=None):
    return merge_tiles(np.array(boxes, float), scores, labels or [1] * len(boxes), tile_index, tiles, size).tolist()


def test_a_cut_box_gives_way_to_the_whole_one_of_the_neighbour_also_with_a_higher_score():
    piece, whole = (80, 10, 100, 40), (80, 10, 130, 40)  # IoU 0.4: suppression alone would keep both
    assert kept_of([piece, whole], [0.9, 0.6], [0, 1]) == [1]
    assert kept_of([whole, piece], [0.6, 0.9], [1, 0]) == [0]


def test_a_whole_box_that_is_hardly_believed_replaces_no_cut_one():
    assert kept_of([(80, 10, 100, 40), (80, 10, 130, 40)], [0.9, 0.1], [0, 1]) == [0, 1]


def test_a_cut_box_of_another_class_or_of_the_same_tile_or_of_another_object_stays():
    piece, whole = (80, 10, 100, 40), (80, 10, 130, 40)
    assert kept_of([piece, whole], [0.9, 0.6], [0, 1], labels=[1, 2]) == [0, 1]
    assert kept_of([piece, whole], [0.9, 0.6], [1, 1]) == [0, 1]
    assert kept_of([piece, (80, 50, 130, 80)], [0.9, 0.6], [0, 1]) == [0, 1]
    assert kept_of([(97, 10, 100, 14), whole], [0.9, 0.6], [0, 1]) == [0, 1]  # a calf in front of its mother


def test_boxes_at_the_border_of_the_image_are_not_cut():
    """The right one touches only the image's own border: it is whole, and the score decides."""
    boxes = [(110, 10, 160, 40), (112, 10, 160, 40)]
    assert kept_of(boxes, [0.9, 0.8], [1, 0], tiles=[(0, 0, 160, 100), (60, 0, 160, 100)]) == [0]


def test_of_an_object_that_no_tile_sees_whole_the_largest_piece_stays():
    tiles = [(0, 0, 100, 100), (60, 0, 160, 100), (120, 0, 220, 100)]
    pieces = [(50, 20, 100, 40), (60, 20, 160, 40), (120, 20, 170, 40)]
    assert kept_of(pieces, [0.9, 0.5, 0.95], [0, 1, 2], tiles=tiles, size=(220, 100)) == [1]


@given(seed=st.integers(0, 2**32 - 1), width=st.integers(50, 700), height=st.integers(50, 700), tile=st.integers(100, 300),
       classes=st.integers(1, 3))
def test_a_perfect_detector_finds_each_object_once_and_whole(seed, width, height, tile, classes):
    """Scores are drawn: a piece may be believed up to twice as much as the whole."""
    rng = np.random.default_rng(seed)
    objects = apart(rng, width, height, 50, 8, 48)
    labels = rng.integers(1, classes + 1, len(objects))
    tiles = tiles_of(width, height, tile, overlap=56)  # more than the largest object, and what counts as near to an edge
    boxes, found, index, which = seen_by_tiles(objects, labels, tiles)
    kept = merge_tiles(boxes, rng.uniform(0.5, 1, len(boxes)), found, index, tiles, (width, height))
    assert sorted(which[kept]) == list(range(len(objects)))
    np.testing.assert_array_equal(boxes[kept], objects[which[kept]])


@given(seed=st.integers(0, 2**32 - 1), width=st.integers(60, 400), height=st.integers(60, 600), tile=st.integers(60, 200),
       share=st.floats(0, 0.6), density=st.integers(1, 60))
def test_row_by_row_the_result_is_that_of_all_tiles_at_once(seed, width, height, tile, share, density):
    rng, overlap = np.random.default_rng(seed), int(tile * share)
    tiles = tiles_of(width, height, tile, overlap)
    parts = []
    for x0, y0, x1, y1 in tiles:
        boxes = drawn_boxes(rng, rng.integers(0, density + 1), min(x1 - x0, y1 - y0), 4, 80) + [x0, y0, x0, y0]
        parts.append(np.concatenate([np.maximum(boxes[:, :2], (x0, y0)), np.minimum(boxes[:, 2:], (x1, y1))], axis=1))
    counts = [len(part) for part in parts]
    boxes, index = np.concatenate(parts), np.repeat(np.arange(len(tiles)), counts)
    scores, labels = np.round(rng.random(len(boxes)), 1), rng.integers(1, 3, len(boxes))
    at_once = merge_tiles(boxes, scores, labels, index, tiles, (width, height), iou=0.3)

    merger, settled = Merger((width, height), iou=0.3), []
    rows = [list(group) for _, group in itertools.groupby(range(len(tiles)), key=lambda i: tiles[i, 1])]
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        for number in row:
            own = index == number
            merger.add(boxes[own], scores[own], labels[own], tiles[number])
        settled.append(merger.settle() if following is None else merger.settle(tiles[following[0], 1]))
    numbers = np.concatenate([part.number for part in settled])
    assert sorted(numbers.tolist()) == sorted(at_once.tolist())
    assert len(merger.waiting) == 0


def test_what_is_settled_is_not_kept_so_memory_does_not_grow_with_the_height():
    rng, size = np.random.default_rng(1), (300, 100_000)
    merger, most, count = Merger(size), 0, 0
    for top in range(0, 20_000, 100):
        for tile in ((0, top, 200, top + 150), (150, top, 300, top + 150)):
            boxes = apart(rng, 150, 150, 50, 10, 40) + [tile[0], top, tile[0], top]
            merger.add(boxes, rng.random(len(boxes)), np.ones(len(boxes)), tile)
        count += len(merger.settle(top + 100))
        most = max(most, len(merger.waiting))
    assert count > 2000 and most < 40


def test_coordinates_are_refused_that_are_not_boxes():
    with pytest.raises(ValueError):
        merge_tiles(np.zeros((2, 3)), [1, 1], [1, 1], [0, 0], [(0, 0, 8, 8)], (8, 8))
