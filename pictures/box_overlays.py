"""Boxes drawn on pictures (H, W, 3) uint8, and sheets of such pictures."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from constants import OTHER_COLOURS
from pictures.overlays import NODATA_COLOUR
from pictures.sheets import contact_sheet, fit_cell

CELL = 384  # pixels of a picture on a sheet
DASH = 4  # pixels of a dash around an ignore region


def class_colour(label):
    """(r, g, b) of a class 1 … K; they repeat after eight."""
    return OTHER_COLOURS[1:][(label - 1) % len(OTHER_COLOURS[1:])]


def box_colours(classes, given=()):
    """((r, g, b), …) of the classes 1 … K. given: ((name, "#rrggbb"), …) in place of the usual ones."""
    told = {name: tuple(bytes.fromhex(colour.removeprefix("#"))) for name, colour in given}
    return tuple(told.get(name, class_colour(label)) for label, name in enumerate(classes, start=1))


def draw_boxes(picture, boxes, labels, ignore=(), side=None, colours=None, words=()):
    """
    `picture` with the outlines of boxes in the colours of their classes, ignore regions dashed in grey.

    boxes, ignore: (N, 4) x0, y0, x1, y1 in pixels of `picture`; labels: (N,) 1 … K. side: pixels of the longer side of the result, or None
    for the size of `picture`; lines are drawn after scaling and stay thin. colours: of the labels 1 … K, or None for the usual ones.
    words: a text above each box that is wide enough for it, such as its score.
    """
    height, width = picture.shape[:2]
    scale = 1.0 if side is None else side / max(height, width)
    canvas = Image.fromarray(np.ascontiguousarray(picture)) if side is None else fit_cell(picture, side)
    pen = ImageDraw.Draw(canvas)
    for box in np.asarray(ignore, float).reshape(-1, 4):
        dashed(pen, corners(box, scale))
    for box, label in zip(np.asarray(boxes, float).reshape(-1, 4), labels, strict=True):
        colour = colours[int(label) - 1] if colours else class_colour(int(label))
        pen.rectangle(corners(box, scale), outline=colour, width=2 if side and side >= CELL and scale > 0.5 else 1)
    font = ImageFont.load_default(size=11)
    for box, text in zip(np.asarray(boxes, float).reshape(-1, 4), words, strict=False):
        left, top, right, _ = corners(box, scale)
        if font.getlength(text) <= right - left + 2:
            place = (left, top - 1) if top > 12 else (left + 2, 14)
            pen.text(place, text, fill=(255, 255, 255), font=font, anchor="lb", stroke_width=1, stroke_fill=(20, 20, 20))
    return np.asarray(canvas)


def corners(box, scale):
    """(left, top, right, bottom), whole pixels that the outline of a box is drawn on."""
    left, top, right, bottom = np.rint(np.asarray(box) * scale).astype(int).tolist()
    return left, top, max(left, right - 1), max(top, bottom - 1)


def dashed(pen, rectangle):
    left, top, right, bottom = rectangle
    for x in range(left, right + 1, 2 * DASH):
        for y in (top, bottom):
            pen.line((x, y, min(x + DASH, right), y), fill=NODATA_COLOUR)
    for y in range(top, bottom + 1, 2 * DASH):
        for x in (left, right):
            pen.line((x, y, x, min(y + DASH, bottom)), fill=NODATA_COLOUR)


def box_legend(classes, with_ignore=True, colours=None):
    """[(colour, name)] for a sheet."""
    found = list(zip(colours or box_colours(classes), classes, strict=True))
    return [*found, (NODATA_COLOUR, "ignored")] if with_ignore else found


def box_sheet(cases, titles, captions, classes, title, across=3, colours=None):
    """
    A sheet of pictures with boxes.

    cases: a list of views for each case, a view a dict with picture, boxes, labels, ignore (see draw_boxes). titles: a word for each view.
    captions: one for each case. classes: names. colours: of the classes, or None for the usual ones.
    """
    rows = [[draw_boxes(side=CELL, colours=colours, **view) for view in views] for views in cases]
    any_ignored = any(len(view["ignore"]) for views in cases for view in views)
    return contact_sheet(rows, titles, captions, side=CELL, across=across, title=title,
                         legend=box_legend(classes, any_ignored, colours))
