"""The eight flips and quarter turns of images: what --tta takes the mean over."""

import torch

VIEWS = tuple((turns, mirrored) for turns in range(4) for mirrored in (False, True))


def turned(x, view):
    """(..., H, W) as it is seen in a view: mirrored from left to right or not, then turned counter-clockwise by quarters."""
    turns, mirrored = view
    return torch.rot90(x.flip(-1) if mirrored else x, turns, (-2, -1))


def turned_back(x, view):
    """What `turned` has made of it, as it was: (..., H, W)."""
    turns, mirrored = view
    x = torch.rot90(x, -turns, (-2, -1))
    return x.flip(-1) if mirrored else x


def boxes_turned_back(boxes, view, size):
    """
    xyxy in pixels of a turned image → in pixels of the image as it was.

    boxes: (x0, y0, x1, y1), tensors of one shape. size: (height, width) of the image as it was.
    """
    turns, mirrored = view
    height, width = size
    x0, y0, x1, y1 = boxes
    tall = height if turns % 2 == 0 else width  # of the turned image
    for _ in range(turns):  # clockwise: y becomes x from the right
        x0, y0, x1, y1 = tall - y1, x0, tall - y0, x1
        tall = height + width - tall
    return (width - x1, y0, width - x0, y1) if mirrored else (x0, y0, x1, y1)
