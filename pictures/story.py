"""
The demo's report as one HTML page, for a phone, a projector, a dark screen and paper.

Numbers are passed in: this file has words and layout, and computes no score.
"""

import html
from dataclasses import dataclass

from pictures.charts import bar_row, line_chart
from pictures.page import figure, page
from runtime.words import THIN, percent, thousands


@dataclass(frozen=True)
class Scores:
    """How a map compares with the truth, over the pixels that can be judged. Shares are 0..1 or None, areas hectares."""

    name: str
    found: float | None  # of what burned (recall)
    right: float | None  # of what is marked (precision)
    overlap: float | None  # intersection over union
    hectares: float
    missed: float
    false: float


@dataclass(frozen=True)
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


def headline(story):
    """(what burned, what the map finds of it): the two sentences of the page's title."""
    if story.hectares < 0.5:
        return "Nothing burned here.", f"The map marks {thousands(story.network.hectares)} hectares in error."
    return f"{thousands(story.hectares)} hectares burned.", f"The map finds {percent(story.network.found)} of them."


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
        f"<tr><th scope='row'>{html.escape(s.name)}</th><td>{thousands(s.hectares)}</td><td>{thousands(s.missed)}</td>"
        f"<td>{thousands(s.false)}</td></tr>"
        for s in (story.network, story.baseline)
    )
    table = (
        "<div class='scroll'><table><thead><tr><th scope='col'>Hectares</th><th scope='col'>marked as burned</th>"
        "<th scope='col'>burned but missed</th><th scope='col'>marked in error</th></tr></thead>"
        f"<tbody><tr><th scope='row'>Truth</th><td>{thousands(story.hectares)}</td><td>–</td><td>–</td></tr>{table_rows}</tbody>"
        "</table></div>"
    )
    return f'<div class="questions">{"".join(blocks)}</div>', table


def opening(story, views):
    """HTML of the headline, the scene, its map, and what the figures are worth."""
    first, second = headline(story)
    baseline, better = story.baseline, ""
    if story.network.overlap is not None and baseline.overlap is not None:
        better = (
            f" The customary one-line method, a threshold on the burn index NBR, finds {percent(baseline.found)}, "
            f"and {percent(baseline.right)} of what it marks is right."
        )
    size = f"{story.kilometres[0]:.1f} × {story.kilometres[1]:.1f} km"
    return f"""
<header>
<p class="eyebrow">Burned area from space · generated scene {html.escape(story.scene)} · {html.escape(story.date)} · {size}</p>
<h1><span>{first}</span> <span class="answer">{second}</span></h1>
<p class="lead">A small neural network, trained for {story.training} on an ordinary computer, drew this map of a scene it had never
seen. Of what it marks as burned, {percent(story.network.right)} is right.{better}</p>
</header>
<div class="hero">{views["natural"]}{views["map"]}</div>
<div class="caution"><p><strong>Landscape, fire and satellite picture are generated</strong>, so that the truth is known to the pixel
and nothing has to be downloaded. The figures show that every step works, from raw scenes to hectares. They say nothing yet about
real fires: for those, the last section has the five commands.</p></div>
"""


def satellite_section(views):
    return f"""
<section><h2>What the satellite sees</h2>
<p>To the eye a burn is a brown shade among brown shades. In the short-wave infrared, living leaves and charred ground part ways:
green is vegetation, reddish brown is burned. Ploughed soil, clear-cuts and the scars of earlier years look deceptively alike.</p>
<div class="pair">{views["burn"]}{views["truth"]}</div></section>
"""


def certainty_section(story, views):
    marked, missed, false = (thousands(n) for n in (story.network.hectares, story.network.missed, story.network.false))
    difference = story.network.hectares - story.hectares
    off = f"{thousands(abs(difference))} hectares {'more' if difference > 0 else 'less'} than burned"
    return f"""
<section><h2>What the network is sure of, and where it is wrong</h2>
<p>The network gives each 10-metre pixel a probability; the map marks those that more likely burned than not.
It marks {marked} hectares, {off}: {missed} are missed and {false} are marked in error.</p>
<div class="pair">{views["probability"]}{views["errors"]}</div></section>
"""


def baseline_section(story, views):
    questions, table = comparison(story)
    return f"""
<section><h2>Against the customary method</h2>
<p>The normalised burn ratio, NBR, compares the near infrared with the short-wave infrared. Its threshold was tuned on the training
scenes, and is judged on the same pixels as the network.</p>
<div class="pair">{views["baseline_errors"]}<div>{questions}
<p>A threshold looks at one pixel and one ratio. A dry field has the ratio of a light burn; a shadow or a lake has almost any.
The network sees seven bands and the surroundings: a straight edge means a field, a ragged one a fire.</p></div></div>
{table}</section>
"""


def learning_section(story):
    curves = line_chart("Loss", story.curves, [("train_loss", "training scenes"), ("val_loss", "scenes held back")])
    curves += line_chart(
        "Overlap with the truth (IoU)", story.curves, [("train_fire_iou", "training scenes"), ("val_fire_iou", "scenes held back")],
        y_range=(0.0, 1.0),
    )
    return f"""
<section><h2>How it learned</h2>
<p>In every epoch the network sees pieces of the training scenes, turned and mirrored at random. Progress is measured on scenes that are
held back; the last epoch is kept, as its learning rate has fallen to nothing. The training curve can lie below the other: its pieces are
altered to make learning harder, and it is an average over an epoch in which the network still changes.</p>
<div class="pair">{curves}</div></section>
"""


def own_data_section(story):
    commands = "".join(
        f"<li><p>{html.escape(comment)}</p><pre tabindex='0'><code>{html.escape(command)}</code></pre></li>"
        for comment, command in story.commands
    )
    return f"""
<section><h2>Do it with your own data</h2>
<p>Five commands, from a folder of scenes with burn masks to a map with hectares.</p>
<ol class="steps">{commands}</ol></section>
"""


def colophon(story):
    facts = "".join(f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>" for name, value in story.facts)
    total = sum(seconds for _, seconds in story.stages)
    stages = ", ".join(f"{name} {seconds:.0f}{THIN}s" for name, seconds in story.stages)
    return f"""
<section><h2>How this page was made</h2>
<dl class="facts">{facts}</dl>
<footer><p>Chipmill {html.escape(story.version)}. {total:.0f} seconds in all: {stages}. This page is a single file without scripts;
nothing in it is loaded from elsewhere.</p></footer></section>
"""


def build_report(story):
    """The story as one HTML page (str)."""
    views = {name: figure(view, story.kilometres) for name, view in story.views.items()}
    sections = [
        opening(story, views), satellite_section(views), certainty_section(story, views), baseline_section(story, views),
        learning_section(story), own_data_section(story), colophon(story),
    ]
    return page(" ".join(headline(story)), "".join(sections).strip())
