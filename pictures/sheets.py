"""Contact sheets: many pictures in one, with titles, captions and a legend."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

GAP, BETWEEN = 8, 24  # pixels between pictures, and between cases that stand side by side
LINE = 24  # pixels of a line of text
PAPER, INK, OUTLINE = (250, 250, 248), (40, 40, 40), (90, 90, 90)
SWATCH = 14  # pixels


def contact_sheet(rows, titles, captions=(), *, side=224, across=1, title="", legend=()):
    """
    A table of pictures as one picture: a case a row, a kind of view a column.

    rows: list of lists of (H, W, 3), a list for each case; titles: one for each view; captions: one for each case, written under it, cut
    to its width. side: pixels of a picture; across: cases side by side; title, legend [((r, g, b), words)]: what stands above the table.
    """
    across = max(1, min(across, len(rows)))
    case_width = len(titles) * (side + GAP) - GAP
    width = 2 * GAP + across * case_width + (across - 1) * BETWEEN
    font = ImageFont.load_default(size=14)
    words = place_header(title, legend, font, width)
    head = LINE * (1 + max((line for line, *_ in words), default=-1))
    foot = LINE if captions else 0
    lines = -(-len(rows) // across)
    sheet = Image.new("RGB", (width, head + LINE + lines * (side + GAP + foot)), PAPER)
    pen = ImageDraw.Draw(sheet)
    draw_header(pen, words, font)
    for case, row in enumerate(rows):
        left, top = GAP + case % across * (case_width + BETWEEN), head + LINE + case // across * (side + GAP + foot)
        for column, (view, picture) in enumerate(zip(titles, row, strict=True)):
            sheet.paste(fit_cell(picture, side), (left + column * (side + GAP), top))
            if case < across:
                pen.text((left + column * (side + GAP), head + 4), view, fill=INK, font=font)
        if captions:
            pen.text((left, top + side + 3), cut_text(captions[case], font, case_width), fill=INK, font=font)
    return np.asarray(sheet)


def place_header(title, legend, font, width):
    """[(line, left, words, colour or None)] of a sheet's title and legend entries, wrapped to `width` pixels."""
    placed, line, left = [], 0, GAP
    for words, colour in [(title, None)] * bool(title) + [(words, colour) for colour, words in legend]:
        length = int(font.getlength(words)) + (SWATCH + 5 if colour else 0)
        if left > GAP and left + length > width - GAP:
            line, left = line + 1, GAP
        placed.append((line, left, words, colour))
        left += length + 16
    return placed


def legend_strip(legend, width):
    """A strip (H, width, 3) uint8 with a legend, [((r, g, b), words)], wrapped to its width."""
    font = ImageFont.load_default(size=14)
    placed = place_header("", legend, font, width)
    strip = Image.new("RGB", (width, LINE * (1 + max((line for line, *_ in placed), default=-1))), PAPER)
    draw_header(ImageDraw.Draw(strip), placed, font)
    return np.asarray(strip)


def draw_header(pen, placed, font):
    for line, left, words, colour in placed:
        top = LINE * line + 4
        if colour:
            pen.rectangle((left, top + 2, left + SWATCH, top + 2 + SWATCH), fill=tuple(colour), outline=OUTLINE)
            left += SWATCH + 5
        pen.text((left, top), words, fill=INK, font=font)


def cut_text(text, font, width):
    """`text`, shortened with … to `width` pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def fit_cell(picture, side):
    """A picture scaled so that its longer side is `side` pixels: averaged down, or up in square pixels."""
    height, width = picture.shape[:2]
    share = side / max(height, width)
    size = max(1, round(width * share)), max(1, round(height * share))
    return Image.fromarray(np.ascontiguousarray(picture)).resize(size, Image.Resampling.BOX if share < 1 else Image.Resampling.NEAREST)


def fit_within(picture, longest):
    """`picture` reduced by averaging so that neither side exceeds `longest` pixels; never enlarged."""
    if max(picture.shape[:2]) <= longest:
        return picture
    return np.asarray(fit_cell(picture, longest))
