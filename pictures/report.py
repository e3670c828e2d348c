"""The demo's report: one HTML page that needs nothing but itself, on a phone, on a projector, in the dark and on paper.

No script, no external address: style is inline, pictures are `data:` addresses, curves are drawn as SVG here. Numbers are passed in;
this file knows words and layout, and computes no score.
"""

import html
import math
from dataclasses import dataclass, field

from pictures.pictures import FALSE_ALARM, FOUND, MISSED, NO_DATA_COLOUR, PROBABILITY_STOPS, data_uri, jpeg_bytes

THIN = "\u202f"  # narrow no-break space: 1 302, 94 %


@dataclass
class View:
    """A picture with what has to be said about it."""

    title: str
    picture: object  # (H, W, 3) uint8
    alt: str  # for those who cannot see it
    note: str = ""
    legend: list = field(default_factory=list)  # [((r, g, b), "words")]


@dataclass
class Scores:
    """How a map compares with the truth, over the pixels that can be judged. Shares are 0..1 or None, areas hectares."""

    name: str
    found: float | None  # of what burned (recall)
    right: float | None  # of what is marked (precision)
    overlap: float | None  # intersection over union
    hectares: float
    missed: float
    false: float


@dataclass
class Story:
    """Everything the report says."""

    scene: str
    date: str  # in words
    kilometres: tuple  # (width, height) of the scene
    hectares: float  # truly burned
    network: Scores
    baseline: Scores
    views: dict  # natural, burn, truth, map, probability, errors, baseline_errors -> View
    curves: list  # [{"epoch", "train_loss", "val_loss", "val_fire_iou"}]
    training: str  # "2 minutes", for the sentence
    facts: list  # [(name, value)]
    stages: list  # [(name, seconds)]
    commands: list  # [(comment, command)]
    version: str


# ------------------------------------------------------------------------------------------------------------- words and numbers


def whole(value):
    """1302.4 -> 1 302 with a narrow space."""
    return f"{round(value):,}".replace(",", THIN)


def percent(share):
    """0.937 -> 94 %; never 100 % or 0 % unless it is exactly that; a dash for what is undefined."""
    if share is None or math.isnan(share):
        return "–"
    rounded = round(100 * share)
    if rounded == 100 and share < 1:
        return f"99.{min(9, math.floor(1000 * share) % 10)}{THIN}%"
    if rounded == 0 and share > 0:
        return f"under 1{THIN}%"
    return f"{rounded}{THIN}%"


def in_words(seconds):
    """95 -> about a minute and a half … as people say it."""
    if seconds < 50:
        return f"{max(1, round(seconds))} seconds"
    minutes = seconds / 60
    if minutes < 1.25:
        return "a minute"
    half = round(minutes * 2) / 2
    return f"{half:g} minutes" if half != 1.5 else "a minute and a half"


def headline(story):
    """The sentence that a reader takes home."""
    if story.hectares < 0.5:
        return "Nothing burned here.", f"The map marks {whole(story.network.hectares)} hectares in error."
    return f"{whole(story.hectares)} hectares burned.", f"The map finds {percent(story.network.found)} of them."


# ------------------------------------------------------------------------------------------------------------------------ curves


def ticks(low, high, count=4):
    """Round numbers that cover low..high."""
    span = max(high - low, 1e-9)
    step = 10 ** math.floor(math.log10(span / count))
    step *= next(m for m in (1, 2, 2.5, 5, 10) if span / (step * m) <= count)
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(first, last + 1)]


def line_chart(title, rows, series, y_range=None, unit=""):
    """An SVG line chart that takes its colours from the page. Lines differ in dash as well as in colour.

    rows: dicts with "epoch"; series: [(key, label)]; points that are None or NaN are left out. y_range: (low, high) or None
    """
    width, height, left, right, top, bottom = 460, 270, 42, 12, 12, 40
    points = {
        key: [(row["epoch"], row[key]) for row in rows if row.get(key) is not None and not math.isnan(row[key])]
        for key, _ in series
    }
    values = [y for line in points.values() for _, y in line]
    if not values:
        return ""
    low, high = y_range or (min(0.0, min(values)), max(values))
    marks = ticks(low, high)
    low, high = marks[0], marks[-1]
    epochs = [row["epoch"] for row in rows]
    first, last = min(epochs), max(epochs)

    def x_of(epoch):
        return left + (width - left - right) * ((epoch - first) / max(last - first, 1))

    def y_of(value):
        return top + (height - top - bottom) * (1 - (value - low) / max(high - low, 1e-9))

    ends = "; ".join(f"{label} ends at {points[key][-1][1]:.2f}{unit}" for key, label in series if points[key])
    parts = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{html.escape(f"{title}: {ends}.")}">']
    for mark in marks:
        y = y_of(mark)
        parts.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{left - 8}" y="{y + 5:.1f}" text-anchor="end">{mark:g}</text>')
    step = max(1, math.ceil((last - first) / 8))
    for epoch in range(first, last + 1, step):
        parts.append(f'<text class="tick" x="{x_of(epoch):.1f}" y="{height - 18}" text-anchor="middle">{epoch}</text>')
    parts.append(f'<text class="tick" x="{(left + width - right) / 2}" y="{height - 1}" text-anchor="middle">epoch</text>')
    for number, (key, _) in enumerate(series):
        line = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in points[key])
        parts.append(f'<polyline class="line line{number}" points="{line}"/>')
        if points[key]:
            x, y = points[key][-1]
            parts.append(f'<circle class="dot dot{number}" cx="{x_of(x):.1f}" cy="{y_of(y):.1f}" r="4"/>')
    parts.append("</svg>")
    key = "".join(
        f'<li><svg class="dash" viewBox="0 0 28 8" aria-hidden="true"><line class="line line{n}" x1="1" x2="27" y1="4" y2="4"/></svg>'
        f"{html.escape(label)}</li>"
        for n, (_, label) in enumerate(series)
    )
    return f'<figure class="chart"><h3>{html.escape(title)}</h3>{"".join(parts)}<ul class="key">{key}</ul></figure>'


# ------------------------------------------------------------------------------------------------------------------------- parts


def swatch(colour, words):
    return f'<li><i style="background:rgb({colour[0]},{colour[1]},{colour[2]})"></i>{html.escape(words)}</li>'


def figure(view, kilometres):
    """A view as HTML: heading, picture with a scale bar, legend, note."""
    height, width = view.picture.shape[:2]
    length = max((k for k in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20) if k <= kilometres[0] / 3), default=kilometres[0] / 3)
    words = f"{length:g} km" if length >= 1 else f"{1000 * length:.0f} m"
    bar = f'<span class="scale" style="width:{100 * length / kilometres[0]:.2f}%" aria-hidden="true">{words}</span>'
    legend = "".join(swatch(colour, words) for colour, words in view.legend)
    legend = f'<ul class="legend">{legend}</ul>' if legend else ""
    note = f"<p>{html.escape(view.note)}</p>" if view.note else ""
    source = data_uri(jpeg_bytes(view.picture), "image/jpeg")
    image = f'<img src="{source}" alt="{html.escape(view.alt)}" width="{width}" height="{height}">'
    caption = f"<figcaption><h3>{html.escape(view.title)}</h3>{legend}{note}</figcaption>"
    return f'<figure><div class="frame">{image}{bar}</div>{caption}</figure>'


def bar_row(words, share, css):
    value = 0 if share is None or math.isnan(share) else share
    return (
        f'<div class="bar"><span class="who">{html.escape(words)}</span>'
        f'<span class="rail"><span class="{css}" style="width:{100 * value:.1f}%"></span></span>'
        f'<span class="value">{percent(share)}</span></div>'
    )


def comparison(story):
    """Three questions, each answered for the network and the baseline; and a table of hectares: (HTML, HTML)."""
    questions = (
        ("Of what burned, how much is found?", "found"),
        ("Of what is marked, how much really burned?", "right"),
        ("How well do map and truth cover each other?", "overlap"),
    )
    blocks = []
    for question, key in questions:
        rows = bar_row("Network", getattr(story.network, key), "ours") + bar_row("NBR", getattr(story.baseline, key), "theirs")
        blocks.append(f'<div class="question"><h3>{question}</h3>{rows}</div>')
    table_rows = "".join(
        f"<tr><th scope='row'>{html.escape(s.name)}</th><td>{whole(s.hectares)}</td><td>{whole(s.missed)}</td>"
        f"<td>{whole(s.false)}</td></tr>"
        for s in (story.network, story.baseline)
    )
    table = (
        "<div class='scroll'><table><thead><tr><th scope='col'>Hectares</th><th scope='col'>marked as burned</th>"
        "<th scope='col'>burned but missed</th><th scope='col'>marked in error</th></tr></thead>"
        f"<tbody><tr><th scope='row'>Truth</th><td>{whole(story.hectares)}</td><td>–</td><td>–</td></tr>{table_rows}</tbody>"
        "</table></div>"
    )
    return f'<div class="questions">{"".join(blocks)}</div>', table


def scene_views(reflectance, bands, truth, prediction, probability, baseline, colour, longest=900):
    """
    The seven pictures of a mapped scene, with their words.

    reflectance: (C, H, W) 0..1; bands: C names. truth, prediction, baseline: (H, W) classes, 255 = no data. probability: (H, W) 0..1.
    colour: (r, g, b) of burned ground. longest: pixels of the longer side on the page
    """
    from pictures import pictures

    natural = pictures.natural_colour(reflectance, bands)
    burn = pictures.burn_colour(reflectance, bands)
    colours = ((0, 0, 0), colour)
    ground = pictures.grey_background(natural)
    judged = [(FOUND, "found"), (MISSED, "burned, but missed"), (FALSE_ALARM, "marked in error")]
    stops = PROBABILITY_STOPS
    without = [(NO_DATA_COLOUR, "no data")] if (truth == 255).any() else []

    def small(picture):
        return pictures.fit_within(picture, longest)

    def share(mask):
        return percent(float(mask.sum()) / max(float((truth != 255).sum()), 1.0))

    return {
        "natural": View(
            "The scene, as the eye would see it", small(natural),
            "Satellite picture in natural colours: hills, a valley with fields, and a burn that is hard to tell from bare ground.",
            "Red, green and blue light.", without,
        ),
        "map": View(
            "The map", small(pictures.class_overlay(ground, prediction, colours, 0.85)),
            f"The same scene in grey with the mapped burned area in colour: {share(prediction == 1)} of the scene.",
            "Burned area as the network draws it, on the scene in grey.", [(colour, "burned, says the network"), *without],
        ),
        "burn": View(
            "The scene in burn-sensitive colours", small(burn),
            "The same scene in short-wave infrared, near infrared and red: vegetation is green, the burn stands out reddish brown.",
            "Short-wave infrared shown as red, near infrared as green, red light as blue (bands B12, B8A, B04).", without,
        ),
        "truth": View(
            "The truth", small(pictures.class_overlay(ground, truth, colours, 0.85)),
            f"The same scene in grey with the truly burned area in colour: {share(truth == 1)} of the scene.",
            "What really burned. The network never saw this.", [(colour, "burned"), *without],
        ),
        "probability": View(
            "How sure the network is", small(pictures.probability_picture(probability, truth != 255)),
            "Map of the burn probability: bright inside the burn, dark outside, in between along its rim.",
            "Probability that a pixel burned.",
            [(stops[0], "0 %"), (stops[2], "40 %"), (stops[3], "60 %"), (stops[-1], "100 %"), *without],
        ),
        "errors": View(
            "Where the map is right and wrong", small(pictures.error_picture(truth, prediction, natural)),
            f"Map of errors: {share((truth == 1) & (prediction == 0))} of the scene is burned but missed, "
            f"{share((truth == 0) & (prediction == 1))} is marked in error, mostly along the rim.",
            "Truth and map compared, pixel by pixel.", [*judged, *without],
        ),
        "baseline_errors": View(
            "The same comparison for the NBR threshold", small(pictures.error_picture(truth, baseline, natural)),
            f"Map of errors of the burn index: {share((truth == 1) & (baseline == 0))} of the scene is burned but missed, "
            f"{share((truth == 0) & (baseline == 1))} is marked in error, scattered over fields, shadows and old scars.",
            "", [*judged, *without],
        ),
    }


STYLE = """
:root{color-scheme:light dark;--paper:#fbfaf7;--ink:#1d2327;--soft:#566067;--rule:#dcd9d1;--panel:#f1efe9;--ours:#b3401a;
--theirs:#7b8790;--line0:#1f6f8b;--line1:#b3401a}
@media (prefers-color-scheme:dark){:root{--paper:#14181b;--ink:#eceae4;--soft:#a9b2b8;--rule:#333a3f;--panel:#1d2327;--ours:#f0835a;
--theirs:#8d99a2;--line0:#6cc4e0;--line1:#f0835a}}
*{box-sizing:border-box}
html{font-size:clamp(16px,0.6vw + 13px,24px);-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);font:1rem/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif}
main{max-width:76rem;margin:0 auto;padding:clamp(1.25rem,4vw,3.5rem) clamp(1rem,4vw,2.5rem)}
h1,h2{font-family:Georgia,"Iowan Old Style","Noto Serif","DejaVu Serif",serif;font-weight:600;line-height:1.15;text-wrap:balance}
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
figcaption{margin-top:.7rem}
figcaption p{color:var(--soft);font-size:.93rem;margin:.3em 0 0}
.legend,.key{list-style:none;margin:.2em 0;padding:0;display:flex;flex-wrap:wrap;gap:.2em 1.1em;font-size:.9rem}
.legend i{display:inline-block;width:.95em;height:.95em;border-radius:2px;margin-right:.4em;vertical-align:-.1em;
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


def page(title, body):
    """A whole page around `body` (HTML)."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{html.escape(title)}</title>\n<link rel="icon" href="{ICON}">\n<style>{STYLE}</style>\n</head>\n'
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def build_report(story):
    """The story as one HTML page (str)."""
    views = {name: figure(view, story.kilometres) for name, view in story.views.items()}
    first, second = headline(story)
    network, baseline = story.network, story.baseline
    better = ""
    if network.overlap is not None and baseline.overlap is not None:
        better = (
            f" The customary one-line method, a threshold on the burn index NBR, finds {percent(baseline.found)}, "
            f"and {percent(baseline.right)} of what it marks is right."
        )
    difference = network.hectares - story.hectares
    size = f"{story.kilometres[0]:.1f} × {story.kilometres[1]:.1f} km"
    off = f"{whole(abs(difference))} hectares {'more' if difference > 0 else 'less'} than burned"
    curves = line_chart("Loss", story.curves, [("train_loss", "training scenes"), ("val_loss", "scenes held back")])
    curves += line_chart(
        "Overlap with the truth (IoU)", story.curves, [("train_fire_iou", "training scenes"), ("val_fire_iou", "scenes held back")],
        y_range=(0.0, 1.0),
    )
    commands = "".join(
        f"<li><p>{html.escape(comment)}</p><pre tabindex='0'><code>{html.escape(command)}</code></pre></li>"
        for comment, command in story.commands
    )
    facts = "".join(f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>" for name, value in story.facts)
    questions, table = comparison(story)
    total = sum(seconds for _, seconds in story.stages)
    stages = ", ".join(f"{name} {seconds:.0f}{THIN}s" for name, seconds in story.stages)
    body = f"""
<header>
<p class="eyebrow">Burned area from space · generated scene {html.escape(story.scene)} · {html.escape(story.date)} · {size}</p>
<h1><span>{first}</span> <span class="answer">{second}</span></h1>
<p class="lead">A small neural network, trained for {story.training} on an ordinary computer, drew this map of a scene it had never
seen. Of what it marks as burned, {percent(network.right)} is right.{better}</p>
</header>
<div class="hero">{views["natural"]}{views["map"]}</div>
<div class="caution"><p><strong>Landscape, fire and satellite picture are generated</strong>, so that the truth is known to the pixel
and nothing has to be downloaded. The figures show that the whole road works, from raw scenes to hectares. They say nothing yet about
real fires: for those, the last section has the five commands.</p></div>

<section><h2>What the satellite sees</h2>
<p>To the eye a burn is a brown shade among brown shades. In the short-wave infrared, living leaves and charred ground part ways:
green is vegetation, reddish brown is burned. Ploughed soil, clear-cuts and the scars of earlier years look deceptively alike.</p>
<div class="pair">{views["burn"]}{views["truth"]}</div></section>

<section><h2>What the network is sure of, and where it is wrong</h2>
<p>The network gives each 10-metre pixel a probability; the map marks those above the threshold that worked best on scenes held back
from training. It marks {whole(network.hectares)} hectares, {off}: {whole(network.missed)} are missed and {whole(network.false)} are
marked in error.</p>
<div class="pair">{views["probability"]}{views["errors"]}</div></section>

<section><h2>Against the customary method</h2>
<p>The normalised burn ratio, NBR, compares the near infrared with the short-wave infrared. Its threshold was tuned on the training
scenes, and is judged on the same pixels as the network.</p>
<div class="pair">{views["baseline_errors"]}<div>{questions}
<p>A threshold looks at one pixel and one ratio. A dry field has the ratio of a light burn; a shadow or a lake has almost any.
The network sees seven bands and the surroundings: a straight edge means a field, a ragged one a fire.</p></div></div>
{table}</section>

<section><h2>How it learned</h2>
<p>In every epoch the network sees pieces of the training scenes, turned and mirrored at random. Progress is measured on scenes that are
held back; the epoch that does best there is kept. The training curve can lie below the other: its pieces are altered to make learning
harder, and it is an average over an epoch in which the network still changes.</p>
<div class="pair">{curves}</div></section>

<section><h2>Do it with your own data</h2>
<p>Five commands, from a folder of scenes with burn masks to a map with hectares.</p>
<ol class="steps">{commands}</ol></section>

<section><h2>How this page was made</h2>
<dl class="facts">{facts}</dl>
<footer><p>Chipmill {html.escape(story.version)}. {total:.0f} seconds in all: {stages}. This page is a single file without scripts;
nothing in it is loaded from elsewhere.</p></footer></section>
"""
    return page(f"{first} {second}", body.strip())


def build_gallery(title, lead, sections):
    """A plain page of picture sheets. sections: [(heading, words, picture (H, W, 3), alt)]"""
    parts = [f"<header><h1>{html.escape(title)}</h1><p class='lead'>{html.escape(lead)}</p></header>"]
    for heading, words, picture, alt in sections:
        source = data_uri(jpeg_bytes(picture, 90), "image/jpeg")
        height, width = picture.shape[:2]
        parts.append(
            f"<section><h2>{html.escape(heading)}</h2><p>{html.escape(words)}</p>"
            f'<div class="scroll"><img src="{source}" alt="{html.escape(alt)}" width="{width}" height="{height}"></div></section>'
        )
    return page(title, "\n".join(parts))
