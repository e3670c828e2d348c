"""The frame of an HTML page that needs no other file: style, pictures as `data:` addresses, no script, no external address."""

import html
import json
import re
from dataclasses import dataclass

import numpy as np

from pictures.box_map import length_words, round_length
from pictures.encoding import data_uri, jpeg_bytes

STYLE = """
:root{color-scheme:light dark;--paper:#fbfaf7;--ink:#1d2327;--soft:#566067;--rule:#dcd9d1;--panel:#f1efe9;--ours:#b3401a;
--theirs:#7b8790;--line0:#1f6f8b;--line1:#b3401a}
@media (prefers-color-scheme:dark){:root{--paper:#14181b;--ink:#eceae4;--soft:#a9b2b8;--rule:#333a3f;--panel:#1d2327;--ours:#f0835a;
--theirs:#8d99a2;--line0:#6cc4e0;--line1:#f0835a}}
*{box-sizing:border-box}
html{font-size:clamp(16px,0.6vw + 13px,24px);-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);font:1rem/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif}
main{max-width:76rem;margin:0 auto;padding:clamp(1.25rem,4vw,3.5rem) clamp(1rem,4vw,2.5rem)}
h1,h2{font-family:Georgia,"Iowan Old Style","Noto Serif","DejaVu Serif",serif;font-weight:600;line-height:1.15;text-wrap:balance;
overflow-wrap:anywhere}
h1{font-size:clamp(2rem,5.2vw,3.5rem);margin:.2em 0 .45em;letter-spacing:-.01em}
h1 span{display:block}
h1 .answer{color:var(--ours)}
h2{font-size:clamp(1.4rem,2.6vw,1.9rem);margin:0 0 .4em}
h3{font-size:1rem;margin:0 0 .35em}
p{margin:0 0 1em;max-width:44rem}
.eyebrow{color:var(--soft);font-size:.9rem;margin:0}
.lead{font-size:1.15rem}
section{margin-top:clamp(2.2rem,5vw,4rem);padding-top:clamp(1.4rem,3vw,2.2rem);border-top:1px solid var(--rule)}
.hero,.pair{display:grid;gap:clamp(1rem,2.5vw,2rem);grid-template-columns:repeat(auto-fit,minmax(min(100%,24rem),1fr))}
.hero{margin-top:1.8rem}
figure{margin:0;min-width:0}
.frame{position:relative;line-height:0}
img{width:100%;height:auto;border-radius:4px;background:var(--panel)}
.scale{position:absolute;left:3%;bottom:3%;border:2px solid #fff;border-top:0;color:#fff;font:600 .75rem/1 system-ui,sans-serif;
text-align:center;padding:0 0 .25em;text-shadow:0 0 3px #000,0 0 3px #000;filter:drop-shadow(0 0 1px #000);white-space:nowrap}
.north{position:absolute;right:3%;top:3%;width:1.5em;height:2.1em;fill:#fff;filter:drop-shadow(0 0 1px #000) drop-shadow(0 0 2px #000)}
.north text{font:700 9px system-ui,sans-serif;text-anchor:middle}
figcaption{margin-top:.7rem}
figcaption p{color:var(--soft);font-size:.93rem;margin:.3em 0 0}
.legend,.key{list-style:none;margin:.2em 0;padding:0;display:flex;flex-wrap:wrap;gap:.2em 1.1em;font-size:.9rem}
.legend i,.swatch{display:inline-block;width:.95em;height:.95em;border-radius:2px;margin-right:.4em;vertical-align:-.1em;
border:1px solid var(--soft)}
.questions{display:grid;gap:1.3rem;margin-bottom:1.6rem}
.bar{display:grid;grid-template-columns:4.6rem 1fr 4.2rem;gap:.6rem;align-items:center;margin:.3em 0;font-size:.95rem}
.rail{height:.95rem;background:var(--panel);border:1px solid var(--rule);border-radius:3px;overflow:hidden;display:block}
.rail span{display:block;height:100%}
.ours{background:var(--ours)}.theirs{background:var(--theirs)}
.value{text-align:right;font-weight:600;font-variant-numeric:tabular-nums;white-space:nowrap}
.scroll{overflow-x:auto;margin-top:1.6rem}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;font-size:.95rem}
th,td{padding:.5em .7em;text-align:right;border-bottom:1px solid var(--rule)}
th:first-child{text-align:left}
thead th{color:var(--soft);font-weight:500;vertical-align:bottom}
@media (max-width:34rem){table{font-size:.82rem}th,td{padding:.5em .3em}}
.chart svg{width:100%;height:auto;overflow:visible}
.grid{stroke:var(--rule);stroke-width:1}
.tick{fill:var(--soft);font:13px system-ui,sans-serif}
.line{fill:none;stroke-width:2.6;stroke-linejoin:round}
.line0{stroke:var(--line0);stroke-dasharray:7 4}.line1{stroke:var(--line1)}
.dot0{fill:var(--line0)}.dot1{fill:var(--line1)}
.chart .dash{width:1.75em;height:.5em;margin-right:.4em;vertical-align:.1em}
.key{color:var(--soft)}
pre{background:var(--panel);border:1px solid var(--rule);border-radius:6px;padding:1em 1.1em;overflow-x:auto;margin:0;
font:.88rem/1.6 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
pre span{color:var(--soft)}
ol.steps{list-style:none;padding:0;margin:0;counter-reset:step;display:grid;gap:1rem}
ol.steps li{counter-increment:step;min-width:0}
ol.steps p{margin:0 0 .35em}
ol.steps p::before{content:counter(step) ". ";font-weight:600}
.caution{background:var(--panel);border-left:4px solid var(--ours);padding:.9em 1.2em;border-radius:0 6px 6px 0;margin-top:1.4rem}
.caution p{margin:0;max-width:none}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,15rem),1fr));gap:.7rem 1.6rem;margin:0}
.facts dt{color:var(--soft);font-size:.87rem}.facts dd{margin:0;overflow-wrap:anywhere}
footer{margin-top:3rem;color:var(--soft);font-size:.87rem}
@media print{:root{--paper:#fff;--ink:#000;--soft:#444;--rule:#bbb;--panel:#f4f4f4;--ours:#b3401a;--theirs:#7b8790;--line0:#1f6f8b;
--line1:#b3401a}html{font-size:10.5pt}main{max-width:none;padding:0}section{margin-top:1.4rem;padding-top:1rem}
figure,.question,tr,li,.caution,.chart{break-inside:avoid}h2,h3{break-after:avoid}pre{white-space:pre-wrap}
.hero,.pair{grid-template-columns:1fr 1fr}*{-webkit-print-color-adjust:exact;print-color-adjust:exact}}
"""

# An empty icon of the page's own, so that no browser asks a server for one.
ICON = "data:,"
SHOWN = "chipmill-scenes"


@dataclass(frozen=True)
class View:
    """A picture with what has to be said about it."""

    title: str
    picture: np.ndarray  # (H, W, 3) uint8
    alt: str  # for readers who cannot see it
    note: str = ""
    legend: tuple = ()  # (((r, g, b), "words"), …)


def page(title, body, of=()):
    """A whole page around `body` (HTML). of: names of what it shows, which its head has for `shown_by`."""
    shown = f'<meta name="{SHOWN}" content="{html.escape(json.dumps(list(of)))}">\n' if of else ""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'{shown}<title>{html.escape(title)}</title>\n<link rel="icon" href="{ICON}">\n<style>{STYLE}</style>\n</head>\n'
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def shown_by(head):
    """The names that a page was given as `of`, by its first characters; () of any other file."""
    found = re.search(f'<meta name="{SHOWN}" content="([^"]*)">', head)
    try:
        return tuple(json.loads(html.unescape(found.group(1)))) if found else ()
    except (TypeError, ValueError):
        return ()


def scale_bar(kilometres):
    """HTML of the scale bar of a picture that is so many kilometres wide: the longest round length below a third of it."""
    length = round_length(1000 * kilometres / 3)
    return f'<span class="scale" style="width:{length / 10 / kilometres:.2f}%" aria-hidden="true">{length_words(length, "m")}</span>'


def north_words(north):
    """Where an arrow points: `up`, or `12° right of up`."""
    degrees = round(abs(north))
    return "up" if degrees == 0 else f"{degrees}° {'right' if north > 0 else 'left'} of up"


def swatch(colour, words):
    return f'<li><i style="background:rgb({colour[0]},{colour[1]},{colour[2]})"></i>{html.escape(words)}</li>'


def is_stretched(kilometres, width, height):
    """Whether pixels are so far from square, as those in degrees are, that a picture has to be stretched to look like the ground."""
    return bool(kilometres) and abs(kilometres[0] * height / (kilometres[1] * width) - 1) > 0.01


def figure(view, kilometres, north=None):
    """
    A view as HTML: heading, picture with a scale bar, legend, note.

    kilometres: (across, down) of the picture, which is stretched to them; None where it has no place on the ground. north: degrees
    clockwise from upwards to where an arrow points, or None for none.
    """
    height, width = view.picture.shape[:2]
    bar = scale_bar(kilometres[0]) if kilometres else ""
    if north is not None:
        bar += f'<svg class="north" viewBox="0 0 24 34" role="img" aria-label="North is {north_words(north)}">' \
            f'<g transform="rotate({north:.1f} 12 17)"><path d="M12 12 L19 32 L12 28 L5 32 Z"/><text x="12" y="9">N</text></g></svg>'
    legend = "".join(swatch(colour, words) for colour, words in view.legend)
    legend = f'<ul class="legend">{legend}</ul>' if legend else ""
    note = f"<p>{html.escape(view.note)}</p>" if view.note else ""
    source = data_uri(jpeg_bytes(view.picture), "image/jpeg")
    shape = f' style="aspect-ratio:{kilometres[0]:.6g}/{kilometres[1]:.6g}"' if is_stretched(kilometres, width, height) else ""
    image = f'<img src="{source}" alt="{html.escape(view.alt)}" width="{width}" height="{height}"{shape}>'
    caption = f"<figcaption><h3>{html.escape(view.title)}</h3>{legend}{note}</figcaption>"
    return f'<figure><div class="frame">{image}{bar}</div>{caption}</figure>'
