"""
The page of `inference.py --report`: what a run found in one's own scenes, for a phone, a desk, a dark screen and paper.

Numbers and pictures are passed in: this file has words and layout, and computes nothing.
"""

import html
from dataclasses import dataclass

from pictures.page import figure, page
from runtime.words import percent, plural, thousands


@dataclass(frozen=True)
class ClassRow:
    """
    A class of a scene's map: its (r, g, b), None of what is not mapped, its name, hectares (None where pixels have no known area) and share
    of the valid pixels.
    """

    colour: tuple | None
    name: str
    hectares: float | None
    share: float | None
    least: float | None = None  # hectares: of an ensemble, what its networks agree on …
    most: float | None = None  # … and what any of them sees


@dataclass(frozen=True)
class SceneReport:
    """
    What the page says of a scene.

    taken: sensor and date, "" where they are not known. finding: the map in a line. views: (View, …). kilometres: (across, down), None
    where the scene has no place. north: degrees clockwise from upwards, None likewise. rows: ClassRows. facts: [(name, value)]. remarks:
    sentences.
    """

    name: str
    taken: str
    finding: str
    views: tuple
    kilometres: tuple | None
    north: float | None
    rows: tuple
    facts: tuple
    remarks: tuple = ()


@dataclass(frozen=True)
class RunReport:
    """
    Everything the page says. title: (what was found, in what). lead: a sentence. scenes: SceneReports with pictures. findings: [(name, the
    map in a line)] of all scenes. facts: [(name, value)] of how the maps were made. missing: [(name, why)] of scenes that were not mapped.
    """

    title: tuple
    lead: str
    scenes: tuple
    findings: tuple
    facts: tuple
    missing: tuple
    version: str


def class_table(rows):
    """HTML of a scene's classes with colour, hectares and share; with least and most of an ensemble where there are some."""
    ranged = any(row.least is not None for row in rows)
    heads = ["hectares", *["all networks agree", "any network"] * ranged, "of the valid pixels"]
    lines = []
    for row in rows:
        numbers = [row.hectares, *[row.least, row.most] * ranged]
        cells = "".join(f"<td>{hectare_words(value)}</td>" for value in numbers)
        name = html.escape(row.name)
        if row.colour is not None:
            name = f'<i class="swatch" style="background:rgb({row.colour[0]},{row.colour[1]},{row.colour[2]})"></i>{name}'
        lines.append(f"<tr><th scope='row'>{name}</th>{cells}"
                     f"<td>{percent(row.share)}</td></tr>")
    head = "".join(f"<th scope='col'>{words}</th>" for words in heads)
    body = f"<thead><tr><th scope='col'>class</th>{head}</tr></thead><tbody>{''.join(lines)}</tbody>"
    return f"<div class='scroll'><table>{body}</table></div>"


def hectare_words(value):
    """12.4, 1 302; a dash where it is not known."""
    return "–" if value is None else f"{value:.1f}" if abs(value) < 100 else thousands(value)


def scene_section(scene):
    eyebrow = f'<p class="eyebrow">{html.escape(scene.taken)}</p>' if scene.taken else ""
    views = "".join(figure(view, scene.kilometres, scene.north) for view in scene.views)
    remarks = "".join(f"<p>{html.escape(words)}</p>" for words in scene.remarks)
    remarks = f'<div class="caution">{remarks}</div>' if remarks else ""
    facts = facts_list(scene.facts) if scene.facts else ""
    return f"""
<section>{eyebrow}<h2>{html.escape(scene.name)}</h2>
<p class="lead">{html.escape(scene.finding)}</p>{remarks}
<div class="pair">{views}</div>
{class_table(scene.rows) if scene.rows else ""}
<div class="scroll">{facts}</div></section>
"""


def facts_list(facts):
    entries = "".join(f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>" for name, value in facts)
    return f'<dl class="facts">{entries}</dl>'


def list_section(title, words, pairs):
    """HTML of scenes that have a line each; "" where there are none."""
    if not pairs:
        return ""
    rows = "".join(f"<tr><th scope='row'>{html.escape(name)}</th><td>{html.escape(text)}</td></tr>" for name, text in pairs)
    return f"\n<section><h2>{title}</h2><p>{words}</p><div class='scroll'><table><tbody>{rows}</tbody></table></div></section>\n"


def build_scene_report(report):
    """The RunReport as one HTML page (str)."""
    found, where = report.title
    shown = "all" if len(report.scenes) == len(report.findings) else f"the first {len(report.scenes)}"
    parts = [
        f'<header><p class="eyebrow">{html.escape(where)}</p><h1><span>{html.escape(found)}</span></h1>'
        f'<p class="lead">{html.escape(report.lead)}</p></header>',
        list_section("All scenes", f"Pictures are shown of {shown} of them.", report.findings) if len(report.findings) > 1 else "",
        *(scene_section(scene) for scene in report.scenes),
        list_section("Not mapped", f"{plural(len(report.missing), 'scene')} could not be mapped.", report.missing),
        f'\n<section><h2>How these maps were made</h2>{facts_list(report.facts)}<footer><p>Chipmill {html.escape(report.version)}. '
        "This page is a single file without scripts; nothing in it is loaded from elsewhere.</p></footer></section>",
    ]
    return page(f"{found} {where}", "".join(parts).strip(), [name for name, _ in report.findings])
