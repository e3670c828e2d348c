"""An HTML page of frames with the boxes that were found in them, and a slider for the score from which they are shown."""

import html
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pictures.box_overlays import class_colour
from pictures.encoding import data_uri, jpeg_bytes
from pictures.page import ICON

WIDE = 0.65  # of its height, a letter of a label
SIDE = 960  # pixels of a frame's longer side on the page
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
STYLE = """
:root{color-scheme:light dark;--paper:#fbfaf7;--ink:#1d2327;--soft:#566067;--rule:#dcd9d1}
@media (prefers-color-scheme:dark){:root{--paper:#14181b;--ink:#eceae4;--soft:#a9b2b8;--rule:#333a3f}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:1rem/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif}
header{position:sticky;top:0;z-index:1;background:var(--paper);border-bottom:1px solid var(--rule);padding:.7rem 1rem;display:flex;
flex-wrap:wrap;gap:.4rem 1.5rem;align-items:center}
h1{font-size:1.1rem;margin:0}
label{display:flex;gap:.6rem;align-items:center}
input[type=range]{width:min(50vw,20rem)}
output{font-variant-numeric:tabular-nums}
main{display:grid;gap:1.2rem;padding:1rem;grid-template-columns:repeat(auto-fit,minmax(min(100%,30rem),1fr))}
figure{margin:0;min-width:0}
.frame{position:relative;line-height:0}
.frame img{width:100%;height:auto}
.frame svg{position:absolute;inset:0;width:100%;height:100%;overflow:hidden}
rect{fill:none;stroke-width:2;vector-effect:non-scaling-stroke}
text{paint-order:stroke;stroke:#000;stroke-width:.2em;fill:#fff;font:600 1em system-ui,sans-serif}
.hidden{display:none}
figcaption{color:var(--soft);font-size:.9rem;overflow-wrap:anywhere}
"""
SCRIPT = """
const slider = document.getElementById("score"), shown = document.getElementById("shown"), total = document.getElementById("total");
function show() {
  let all = 0;
  shown.textContent = Number(slider.value).toFixed(2);
  for (const figure of document.querySelectorAll("figure")) {
    let count = 0;
    for (const box of figure.querySelectorAll("g[data-score]")) {
      const kept = Number(box.dataset.score) >= Number(slider.value);
      box.classList.toggle("hidden", !kept);
      count += kept;
    }
    figure.querySelector(".count").textContent = count;
    all += count;
  }
  total.textContent = all;
}
slider.addEventListener("input", show);
show();
"""


@dataclass(frozen=True)
class Frame:
    """name: of the file. size: (width, height). boxes: [(x0, y0, x1, y1)] in pixels. labels: 1 … K. words: class names. scores: 0..1."""

    name: str
    size: tuple
    boxes: list
    labels: list
    words: list
    scores: list


def begin_page(title, threshold, remark=""):
    """The HTML before the frames. threshold: where the slider stands at first. Nothing of the page comes from elsewhere."""
    note = f"<span>{html.escape(remark)}</span>" if remark else ""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{html.escape(title)}</title>\n<link rel="icon" href="{ICON}">\n<style>{STYLE}</style>\n</head>\n<body>\n<header>'
        f'<h1>{html.escape(title)}</h1><label>score from <input type="range" id="score" min="0" max="1" step="0.01" value="{threshold:g}">'
        f'<output id="shown">{threshold:.2f}</output></label><span><output id="total"></output> boxes</span>{note}</header>\n<main>\n'
    )


def frame_html(frame, picture):
    """A frame as HTML. picture: (h, w, 3) uint8, of the frame's shape."""
    width, height = frame.size
    image = Image.fromarray(np.ascontiguousarray(picture))
    image.thumbnail((SIDE, SIDE), Image.Resampling.BILINEAR)
    source, size = data_uri(jpeg_bytes(np.asarray(image)), "image/jpeg"), max(12.0, height / 28)
    parts = []
    for (x0, y0, x1, y1), label, word, score in zip(frame.boxes, frame.labels, frame.words, frame.scores, strict=True):
        colour = "rgb({},{},{})".format(*class_colour(label))
        words = f"{word} {score:.2f}"
        fits = x0 + WIDE * size * len(words) <= width  # else it ends where the box does
        place = f'x="{x0:.1f}"' if fits else f'x="{min(x1, width):.1f}" text-anchor="end"'
        at = y0 - size / 4 if y0 >= 1.25 * size else min(y0 + size, height)
        parts.append(f'<g data-score="{score:.4f}"><rect x="{x0:.1f}" y="{y0:.1f}" width="{x1 - x0:.1f}" height="{y1 - y0:.1f}" '
                     f'stroke="{colour}"/><text {place} y="{at:.1f}" font-size="{size:.1f}">{html.escape(words)}</text>'
                     "</g>")
    name = html.escape(frame.name)
    return (f'<figure><div class="frame"><img src="{source}" alt="{name}" width="{width}" height="{height}">'
            f'<svg viewBox="0 0 {width} {height}" style="font-size:{size:.1f}px">{"".join(parts)}</svg></div>'
            f'<figcaption>{name}: <span class="count">{len(parts)}</span> objects</figcaption></figure>\n')


def end_page():
    return f"</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
