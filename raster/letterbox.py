"""
Fits a frame of any size into the fixed input of a network, and maps boxes there and back: the one preprocessing of the small detectors.

    box = Letterbox((640, 360), (384, 384))
    pixels = box.resize(frame)           # (3, 384, 384) uint8
    inside = box.forward(boxes)          # pixels of the source → pixels of the input
    boxes = box.inverse(inside)          # and back, clipped to the source

Coordinates are continuous pixel edges: pixel i covers [i, i + 1), and the corners of a box are edges.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image

MODES = ("letterbox", "force")
LARGEST = 1 << 20  # pixels of a side


@dataclass(frozen=True)
class Letterbox:
    """
    source: (width, height) of a frame. target: (width, height) of the input. mode: "letterbox" keeps the shape and pads with 0 on both
    sides, "force" stretches to the target.
    """

    source: tuple
    target: tuple
    mode: str = "letterbox"

    def __post_init__(self):
        for name in ("source", "target"):
            sides = tuple(getattr(self, name))
            if len(sides) != 2 or not all(int(side) == side and 0 < side < LARGEST for side in sides):
                raise ValueError(f"expected (width, height) as {name}, got {sides}")
            object.__setattr__(self, name, tuple(map(int, sides)))
        if self.mode not in MODES:
            raise ValueError(f"expected {' or '.join(MODES)} as mode, got {self.mode!r}")

    @cached_property
    def content(self):
        """(left, top, width, height) of the frame within the input, whole pixels."""
        (w, h), (W, H) = self.source, self.target
        if self.mode == "force":
            return 0, 0, W, H
        if W * h <= H * w:  # the width decides
            width, height = W, min(H, max(1, (2 * h * W + w) // (2 * w)))
        else:
            width, height = min(W, max(1, (2 * w * H + h) // (2 * h))), H
        return (W - width) // 2, (H - height) // 2, width, height

    @property
    def affine(self):
        """(sx, sy, px, py): x of the input = x of the frame · sx + px, y likewise; the scales that were really applied."""
        left, top, width, height = self.content
        return width / self.source[0], height / self.source[1], float(left), float(top)

    def forward(self, boxes):
        """(N, 4) x0, y0, x1, y1 in pixels of the frame → pixels of the input, float64."""
        sx, sy, px, py = self.affine
        return np.asarray(boxes, np.float64).reshape(-1, 4) * (sx, sy, sx, sy) + (px, py, px, py)

    def inverse(self, boxes):
        """(N, 4) x0, y0, x1, y1 in pixels of the input → pixels of the frame, float64, clipped to it."""
        sx, sy, px, py = self.affine
        w, h = self.source
        found = (np.asarray(boxes, np.float64).reshape(-1, 4) - (px, py, px, py)) / (sx, sy, sx, sy)
        return np.clip(found, 0, (w, h, w, h))

    def resize(self, image, out=None):
        """
        (h, w, 3) uint8, or a Pillow image in RGB, of the source's size → (3, H, W) uint8: bilinear, with antialiasing where it shrinks; 0
        around it. out: the array that it is written into, None for a new one.
        """
        if not isinstance(image, Image.Image):
            if image.shape != (*self.source[::-1], 3) or image.dtype != np.uint8:
                raise ValueError(f"expected a frame {(*self.source[::-1], 3)} of uint8, got {image.shape} {image.dtype}")
            image = Image.fromarray(np.ascontiguousarray(image))
        if image.size != self.source or image.mode != "RGB":
            raise ValueError(f"expected a frame of {self.source} pixels in RGB, got {image.size} in {image.mode}")
        left, top, width, height = self.content
        if (width, height) != self.source:
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        found = np.empty((3, self.target[1], self.target[0]), np.uint8) if out is None else out
        found[:, :top] = found[:, top + height :] = 0
        found[:, :, :left] = found[:, :, left + width :] = 0
        found[:, top : top + height, left : left + width] = np.asarray(image).transpose(2, 0, 1)
        return found
