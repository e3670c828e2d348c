"""A picture with boxes around objects, each with its class and score."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pictures.box_overlays import class_colour, corners

LINE = 2  # pixels of an outline
INK, PAPER = (255, 255, 255), (0, 0, 0)


def draw_labelled(picture, boxes, labels, words):
    """
    `picture` (H, W, 3) uint8 with the outlines of boxes (N, 4) x0, y0, x1, y1 in the colours of their classes 1 … K, words on plates above.

    The last box is drawn first, so that the first, with the highest score, lies on top.
    """
    canvas = Image.fromarray(np.ascontiguousarray(picture))
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=max(12, min(24, min(canvas.size) // 30)))
    for box, label, text in reversed(list(zip(np.asarray(boxes, float).reshape(-1, 4), labels, words, strict=True))):
        left, top, right, bottom = corners(box, 1.0)
        colour = class_colour(int(label))
        pen.rectangle((left, top, right, bottom), outline=colour, width=LINE)
        _, _, wide, tall = font.getbbox(text)
        x, y = max(0, min(left, canvas.width - wide - 4)), top - tall - 3
        y = y if y >= 0 else min(top + LINE, max(0, canvas.height - tall - 3))
        pen.rectangle((x, y, x + wide + 3, y + tall + 2), fill=colour)
        pen.text((x + 2, y + 1), text, font=font, fill=INK if sum(colour) < 420 else PAPER)
    return np.asarray(canvas)
