"""The best, median and worst cases of a checkpoint, and the HTML page that shows them."""

import html
from dataclasses import dataclass

import numpy as np

from pictures.encoding import data_uri, jpeg_bytes, save_png
from pictures.page import page
from runtime.files import write_text


@dataclass(frozen=True)
class Sheet:
    """A contact sheet of a gallery: best, median or worst cases."""

    kind: str  # names its file and its section
    words: str
    picture: np.ndarray  # (H, W, 3) uint8
    alt: str  # for readers who cannot see it


def best_median_worst(ranked, count):
    """
    {"best": […], "median": …, "worst": …} of at most `count` each from cases ranked best first, none of them twice.

    Fewer than three cases are {"all": ranked}; none at all, {}.
    """
    count = min(count, len(ranked) // 3)
    if not count:
        return {"all": ranked} if ranked else {}
    middle = (len(ranked) - count) // 2
    return {"best": ranked[:count], "median": ranked[middle : middle + count], "worst": ranked[-count:]}


def save_gallery(folder, title, words, sheets):
    """Write `<kind>.png` of each Sheet and index.html with all of them. Returns their paths, the page last."""
    paths = [folder / f"{sheet.kind}.png" for sheet in sheets]
    for path, sheet in zip(paths, sheets, strict=True):
        save_png(path, sheet.picture)
    write_text(folder / "index.html", build_gallery(title, words, sheets))
    return [*paths, folder / "index.html"]


def build_gallery(title, lead, sheets):
    """A plain HTML page (str) of Sheets."""
    parts = [f"<header><h1>{html.escape(title)}</h1><p class='lead'>{html.escape(lead)}</p></header>"]
    for sheet in sheets:
        source = data_uri(jpeg_bytes(sheet.picture, 90), "image/jpeg")
        height, width = sheet.picture.shape[:2]
        parts.append(
            f"<section><h2>{html.escape(sheet.kind.capitalize())}</h2><p>{html.escape(sheet.words)}</p>"
            f'<div class="scroll"><img src="{source}" alt="{html.escape(sheet.alt)}" width="{width}" height="{height}"></div></section>'
        )
    return page(title, "\n".join(parts))
