"""
Detections of overlapping tiles merged into those of the whole image, each object once.

Two rules decide, in this order and only among boxes of one class:
- a box that an inner edge of its tile cuts gives way to the box of a neighbouring tile that sees the same object whole, or more of it;
- greedy suppression: the box with the highest score stays, and those whose IoU with it is above a limit go.

Tiles may come row by row: a box is settled as soon as nothing that is still to come can reach it, so memory does not grow with the height
of an image. The result is that of all boxes at once.
"""

from dataclasses import dataclass, fields, replace

import numpy as np

from detection.boxes import BoxSearch, areas_of, clip, iou_of

NEAR_SHARE, NEAR_PIXELS = 0.1, 2.0  # a side that is so near to a tile's edge is cut by it: a share of the box's side, at least pixels
GIVE_WAY = 0.5  # share of a cut box's score that the one it gives way to needs: a whole box that is hardly believed replaces nothing
PAIRS = 400_000  # overlapping pairs that are looked at together, about
LEAST, MOST = 4, 8192  # boxes whose neighbours are looked for together
KEPT, OPEN, DROPPED = 0, 1, 2


@dataclass(frozen=True)
class TileBoxes:
    """
    Detections in pixels of the image.

    boxes: (N, 4) float64 x1, y1, x2, y2. scores: (N,) float64. labels: (N,) int64. tiles: (N, 4) float64, the tile that each was found in,
    its edges at the border of the image at ±infinity (see open_borders). number: (N,) int64, their order of arrival.
    gone: (N,) bool, boxes that gave way or were suppressed.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    tiles: np.ndarray
    number: np.ndarray
    gone: np.ndarray

    def __len__(self):
        return len(self.boxes)

    def take(self, which):
        return TileBoxes(*(getattr(self, field.name)[which] for field in fields(self)))

    def followed_by(self, other):
        return TileBoxes(*(np.concatenate([getattr(self, f.name), getattr(other, f.name)]) for f in fields(self)))


def merge_tiles(boxes, scores, labels, tile_index, tiles, image_size, *, iou=0.5):
    """
    Indices of the boxes that stay, those with the highest score first; of equal scores in the order given.

    boxes: (N, 4) x1, y1, x2, y2 in pixels of the image. scores, labels: (N,). tile_index: (N,) the tile that each was found in.
    tiles: (T, 4) x1, y1, x2, y2 of the tiles. image_size: (width, height). iou: boxes of one class above it are the same object.
    """
    merger = Merger(image_size, iou=iou)
    tiles = np.asarray(tiles, np.float64).reshape(-1, 4)
    merger.add(boxes, scores, labels, tiles[np.asarray(tile_index, np.int64)])
    return merger.settle().number


class Merger:
    """
    Takes the boxes of an image tile by tile, rows of tiles from the top; hands out those that are settled.

        merger.add(boxes, scores, labels, tiles)      # as often as needed
        merger.settle(1024).boxes                     # no tile that is still to come begins above row 1024
        merger.settle().boxes                         # the rest

    image_size: (width, height). iou: boxes of one class above it are the same object.
    """

    def __init__(self, image_size, *, iou=0.5):
        self.image_size, self.iou, self.count = image_size, iou, 0
        none = np.zeros((0, 4))
        self.waiting = TileBoxes(none, np.zeros(0), np.zeros(0, np.int64), none, np.zeros(0, np.int64), np.zeros(0, bool))

    def add(self, boxes, scores, labels, tiles):
        """boxes: (N, 4) in pixels of the image. scores, labels: (N,). tiles: (N, 4) or (4,) of the tile that each was found in."""
        boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
        number = np.arange(self.count, self.count + len(boxes))
        self.count += len(boxes)
        tiles = open_borders(np.broadcast_to(np.asarray(tiles, np.float64), boxes.shape), self.image_size)
        self.waiting = self.waiting.followed_by(TileBoxes(
            boxes, np.asarray(scores, np.float64).reshape(-1), np.asarray(labels, np.int64).reshape(-1), tiles, number,
            np.zeros(len(boxes), bool),
        ))

    def settle(self, row=np.inf):
        """The TileBoxes that stay whatever is still to come below `row`, highest score first. Without a row all the rest."""
        found = self.waiting
        found = replace(found, gone=found.gone | giving_way(found, self.iou))
        reached = found.boxes[:, 3] > row
        state = suppress(found.boxes, found.scores, found.labels, self.iou, ignored=found.gone, reached=reached)
        # What is gone may still be what another cut box gives way to, as long as that one can come.
        self.waiting = replace(found, gone=state == DROPPED).take((state == OPEN) | reached)
        settled = np.flatnonzero(state == KEPT)
        return found.take(settled[np.argsort(-found.scores[settled], kind="stable")])


def open_borders(tiles, image_size):
    """(N, 4) tiles, with edges at the border of the image, which cut nothing that is in it, moved to ±infinity."""
    size = np.asarray([*image_size, *image_size], np.float64)
    outside = np.array([-np.inf, -np.inf, np.inf, np.inf])
    at_border = np.concatenate([tiles[:, :2] <= 0, tiles[:, 2:] >= size[2:]], axis=1)
    return np.where(at_border, outside, tiles)


# --------------------------------------------------------------------------------------------------------- cut by a tile


def giving_way(found, iou):
    """
    (N,) bool of TileBoxes: cut by an inner edge of their tile, where another tile shows the same object whole or more of it.

    What two tiles show is the same object if it has this IoU in the part that both see.
    """
    cut, gone = cut_by_tile(found.boxes, found.tiles), np.zeros(len(found), bool)
    for of_class in groups_of(found.labels, np.ones(len(found), bool)):
        asking, first, size = of_class[cut[of_class]], 0, LEAST
        search = BoxSearch(found.boxes[of_class], of_class) if len(asking) else None
        while first < len(asking):
            some = asking[first : first + size]
            one, other = search.overlapping(some)
            first, size = first + size, next_size(size, len(some), len(one))
            gone[one[yields(found, cut, one, other, iou)]] = True
    return gone


def cut_by_tile(boxes, tiles):
    """(N,) bool: does a box reach an edge of its tile, or come near enough?"""
    sides = boxes[:, 2:] - boxes[:, :2]
    near = np.maximum(NEAR_SHARE * sides, NEAR_PIXELS)
    return (boxes[:, :2] <= tiles[:, :2] + near).any(axis=1) | (boxes[:, 2:] >= tiles[:, 2:] - near).any(axis=1)


def yields(found, cut, one, other, iou):
    """(P,) bool for pairs of indices into TileBoxes: does `one`, which is cut, give way to `other`?"""
    tiles, boxes, area = found.tiles, found.boxes, areas_of(found.boxes)
    elsewhere = (tiles[one] != tiles[other]).any(axis=1)
    larger = (area[other] > area[one]) | ((area[other] == area[one]) & (found.number[other] < found.number[one]))
    believed = found.scores[other] >= GIVE_WAY * found.scores[one]
    possible = elsewhere & believed & (~cut[other] | larger)
    one, other = one[possible], other[possible]
    # The tile of `one` would show all of a whole box that is inside it; of a cut one, what the other tile sees too.
    both = np.concatenate([np.maximum(tiles[one, :2], tiles[other, :2]), np.minimum(tiles[one, 2:], tiles[other, 2:])], axis=1)
    seen = np.where(cut[other][:, None], both, tiles[one])
    possible[possible] = iou_of(clip(boxes[one], seen), clip(boxes[other], seen)) >= iou
    return possible


# ---------------------------------------------------------------------------------------------------------- suppression


def suppress(boxes, scores, labels, iou, *, ignored=None, reached=None):
    """
    (N,) uint8 KEPT, DROPPED or OPEN of greedy suppression, class by class: from the highest score down a box stays unless its IoU with one
    that stays is above `iou`.

    ignored: (N,) bool, boxes that are not there (DROPPED). reached: (N,) bool, boxes that may still be dropped by one that is not here yet:
    they are OPEN, as is what depends on them.
    """
    state = np.full(len(boxes), KEPT, np.uint8)
    if reached is not None:
        state[reached] = OPEN
    if ignored is not None:
        state[ignored] = DROPPED
    for of_class in groups_of(labels, state != DROPPED):
        of_class = of_class[np.argsort(-scores[of_class], kind="stable")]
        state[of_class] = suppress_class(boxes[of_class], state[of_class], iou)
    return state


def groups_of(labels, which):
    """[indices] of the boxes of each class, in their order. which: (N,) bool, the boxes that take part."""
    places = np.flatnonzero(which)
    places = places[np.argsort(labels[places], kind="stable")]
    return np.split(places, np.flatnonzero(np.diff(labels[places])) + 1) if len(places) else []


def suppress_class(boxes, state, iou):
    """(N,) states of boxes of one class, ordered by score. state: KEPT, or OPEN where the fate of a box is open anyway."""
    state, first, size = state.copy(), 0, LEAST
    search = BoxSearch(boxes, np.arange(len(boxes)))
    while first < len(boxes):
        stop = min(first + size, len(boxes))
        asking = first + np.flatnonzero(state[first:stop] != DROPPED)
        one, other = search.overlapping(asking)
        size = next_size(size, len(asking), len(one))
        later = (other > one) & (state[other] != DROPPED)
        one, other = one[later], other[later]
        above = iou_of(boxes[one], boxes[other]) > iou
        decide(state, one[above], other[above])
        first = stop
        left = first + np.flatnonzero(state[first:] != DROPPED)
        if len(left) < len(search) // 2:  # those that are dropped or done would be found again and again
            search = BoxSearch(boxes[left], left)
    return state


def next_size(size, asked, pairs):
    """How many boxes to look around next, so that it is about PAIRS pairs."""
    return int(np.clip(PAIRS * asked // max(pairs, 1), LEAST, min(MOST, 4 * size)))


def decide(state, one, other):
    """Go through overlapping pairs in the order of scores: what `one` is decides what becomes of `other`, which comes later."""
    order = np.argsort(one, kind="stable")
    one, other = one[order], other[order]
    starts = np.flatnonzero(np.diff(one, prepend=-1))
    stops = np.append(starts, len(one))[1:]
    for index, start, stop in zip(one[starts].tolist(), starts.tolist(), stops.tolist(), strict=True):
        if state[index] == KEPT:
            state[other[start:stop]] = DROPPED
        elif state[index] == OPEN:
            others = other[start:stop]
            state[others] = np.maximum(state[others], OPEN)
