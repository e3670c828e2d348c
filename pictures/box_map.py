"""A picture of a whole image with boxes, a title, a legend and a scale bar."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pictures.box_overlays import corners
from pictures.sheets import GAP, LINE, PAPER, cut_text, draw_header, place_header

HALO = (20, 20, 20)  # around the scale bar, which lies on ground of any brightness
BAR = (1, 2, 5)  # lengths of a scale bar, times a power of ten


class BoxLayer:
    """
    Outlines of boxes on a picture that is not there yet. However many are added, it takes a byte a pixel.

    height, width: of the picture. scale: its pixels to one of the image that boxes are given in. colours: (r, g, b) of each class.
    """

    def __init__(self, height, width, scale, colours):
        self.scale, self.colours, self.image = scale, colours, Image.new("L", (width, height))
        self.pen = ImageDraw.Draw(self.image)

    def add(self, boxes, labels):
        """boxes: (N, 4) x0, y0, x1, y1 in pixels of the image. labels: (N,) 1 … K."""
        for box, label in zip(boxes, labels, strict=True):
            self.pen.rectangle(corners(box, self.scale), outline=int(label - 1) % 254 + 1)

    def over(self, picture):
        """`picture` (H, W, 3) with the outlines in the colours of their classes."""
        labels, painted = np.asarray(self.image), picture.copy()
        for label in np.unique(labels[labels > 0]):
            painted[labels == label] = self.colours[int(label) - 1]
        return painted


def framed(picture, title, legend, pixel, unit="m", across=None):
    """
    `picture` below a line or more with its title and legend [((r, g, b), words)], a scale bar in its lower left corner.

    pixel: what a pixel of the picture measures in `unit` ("m", or "px" where it has no place on the ground). across: pixels of its left
    part that the bar belongs to, where it consists of several.
    """
    height, width = picture.shape[:2]
    font = ImageFont.load_default(size=14)
    title = cut_text(title, font, max(width, 320) - 2 * GAP)
    words = place_header(title, legend, font, max(width, 320))
    head = LINE * (1 + max(line for line, *_ in words))
    sheet = Image.new("RGB", (max(width, 320), head + height), PAPER)
    sheet.paste(Image.fromarray(np.ascontiguousarray(picture)), (0, head))
    pen = ImageDraw.Draw(sheet)
    draw_header(pen, words, font)
    draw_scale_bar(pen, across or width, head + height, pixel, unit)
    return np.asarray(sheet)


def with_scale_bar(picture, pixel, unit="m"):
    """`picture` with a scale bar in its lower left corner. pixel, unit: see framed."""
    image = Image.fromarray(np.ascontiguousarray(picture))
    draw_scale_bar(ImageDraw.Draw(image), picture.shape[1], picture.shape[0], pixel, unit)
    return np.asarray(image)


def draw_scale_bar(pen, width, bottom, pixel, unit):
    """Of at most a third of a picture of `width` pixels that ends above row `bottom`, at its left."""
    length = round_length(width * pixel / 3)
    across, bottom = max(2, round(length / pixel)), bottom - GAP
    for colour, wider in ((HALO, 1), (PAPER, 0)):
        pen.rectangle((GAP - wider, bottom - 4 - wider, GAP + across - 1 + wider, bottom - 1 + wider), fill=colour)
    pen.text((GAP, bottom - 6), length_words(length, unit), fill=PAPER, font=ImageFont.load_default(size=14), anchor="lb", stroke_width=2,
             stroke_fill=HALO)


def round_length(most):
    """The largest of 1, 2, 5, 10, 20 … that is not above `most`."""
    power = 10.0 ** np.floor(np.log10(most))
    return max(times * power for times in BAR if times * power <= most * (1 + 1e-9))


def length_words(length, unit):
    """`200 m`, `2 km`, `50 cm`, `500 px`."""
    if unit == "m" and length >= 1000:
        return f"{length / 1000:g} km"
    if unit == "m" and length < 1:
        return f"{length * 100:g} cm"
    return f"{length:g} {unit}"
