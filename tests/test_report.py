"""The report page: words that fit the numbers, curves that lie where they should, a page that needs nothing but itself."""

import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from constants import SENTINEL2_L2A_BANDS
from pictures.charts import line_chart, ticks
from pictures.page import STYLE
from pictures.scene_report import ClassRow, RunReport, SceneReport, build_scene_report
from pictures.scene_views import scene_views
from pictures.story import Scores, Story, build_report, headline
from runtime.words import THIN, duration, percent
from synthetic.scenes import generate_scene

BURNED = (230, 74, 25)


@pytest.fixture(scope="module")
def story():
    """A scene of 96 pixels with a map that misses the burn's upper half and marks a corner in error."""
    scene = generate_scene(7, 96, 96, swath_edge=True)
    truth = scene.delineation
    prediction = truth.copy()
    prediction[:40][truth[:40] == 1] = 0
    prediction[-20:, -20:][truth[-20:, -20:] == 0] = 1
    probability = np.where(prediction == 255, 0, prediction).astype(np.float32)
    views = scene_views(scene.image, SENTINEL2_L2A_BANDS, truth, prediction, probability, prediction, BURNED)
    curves = [
        {"epoch": e, "train_loss": 1 / e, "val_loss": 1.2 / e, "train_fire_iou": 0.2 * e, "val_fire_iou": 0.19 * e} for e in (1, 2, 3, 4)
    ]
    network = Scores("Network", 0.937, 0.905, 0.853, 1310.0, 82.0, 124.0)
    baseline = Scores("NBR threshold", 0.73, 0.58, 0.48, 1506.0, 318.0, 636.0)
    return Story(
        scene="PLACE <7>", date="12 August 2023", kilometres=(0.96, 0.96), hectares=1302.4, network=network, baseline=baseline, views=views,
        curves=curves, training="2 minutes", facts=[("Seed", "7")], stages=[("scenes", 12.0), ("training", 120.0)],
        commands=[("Cut", "python chip.py make-patches --dataset-dir data --output-dir patches && echo '<done>'")], version="0.1.0",
    )


# -------------------------------------------------------------------------------------------------------------------- words


@pytest.mark.parametrize(
    "share, words",
    [
        (0.937, "94 %"),
        (1.0, "100 %"),
        (0.0, "0 %"),
        (0.9999, "99.9 %"),
        (0.996, "99.6 %"),
        (0.001, "under 1 %"),
        (None, "–"),
        (float("nan"), "–"),
    ],
)
def test_percentages_never_claim_more_than_is_true(share, words):
    assert percent(share).replace(THIN, " ") == words


def test_the_headline_carries_the_number(story):
    first, second = headline(story)
    assert (first + " " + second).replace(THIN, " ") == "1 302 hectares burned. The map finds 94 % of them."
    empty = replace(story, hectares=0.0)
    assert headline(empty)[0] == "Nothing burned here."


@pytest.mark.parametrize(
    "seconds, words", [(8, "8 seconds"), (60, "a minute"), (95, "a minute and a half"), (119, "2 minutes"), (150, "2.5 minutes")]
)
def test_durations_are_said_as_people_say_them(seconds, words):
    assert duration(seconds) == words


@pytest.mark.parametrize("low, high", [(0, 1), (0, 0.37), (0, 12), (0.0, 0.0), (-1, 1)])
def test_ticks_are_few_round_and_cover_the_range(low, high):
    marks = ticks(low, high)
    assert marks[0] <= low and marks[-1] >= high and len(marks) <= 6


def test_curves_lie_where_the_numbers_say():
    svg = line_chart("IoU", [{"epoch": 1, "a": 0.0}, {"epoch": 2, "a": 0.5}, {"epoch": 3, "a": 1.0}], [("a", "one")], (0.0, 1.0))
    points = [tuple(map(float, p.split(","))) for p in re.search(r'points="([^"]+)"', svg).group(1).split()]
    assert points[0][0] < points[1][0] < points[2][0]
    assert points[1][1] == pytest.approx((points[0][1] + points[2][1]) / 2, abs=0.1) and points[2][1] < points[0][1]
    assert "one ends at 1.00" in svg


def test_a_curve_without_numbers_is_left_out_and_nan_is_skipped():
    assert line_chart("x", [{"epoch": 1, "a": float("nan")}], [("a", "one")]) == ""
    svg = line_chart("x", [{"epoch": 1, "a": 0.3}, {"epoch": 2, "a": None}], [("a", "one")])
    assert "nan" not in svg.lower()


# --------------------------------------------------------------------------------------------------------------------- page


def external_references(page):
    """Addresses that a browser would fetch: everything in src, href, url() and @import that is not a data: address or an anchor."""
    found = re.findall(r"""(?:src|href|action|poster|srcset)\s*=\s*["']?([^"'\s>]+)""", page) + re.findall(r"url\(([^)]*)\)", page)
    return [a for a in found if not a.startswith(("data:", "#"))] + re.findall(r"@import|<script|<link(?! rel=\"icon\")|<iframe", page)


def test_the_page_needs_nothing_but_itself(story):
    page = build_report(story)
    assert external_references(page) == []
    assert "http" not in re.sub(r"data:[^\"']*", "", page)


def test_every_picture_has_words_for_those_who_cannot_see_it(story):
    page = build_report(story)
    images = re.findall(r"<img [^>]*>", page)
    assert len(images) == 7 and all(len(re.search(r'alt="([^"]*)"', image).group(1)) > 30 for image in images)
    assert len({re.search(r'alt="([^"]*)"', image).group(1) for image in images}) == 7
    assert page.count('role="img"') == 2 and '<html lang="en">' in page and page.count("<h1>") == 1


def test_text_from_outside_is_escaped(story):
    page = build_report(story)
    assert "PLACE &lt;7&gt;" in page and "&lt;done&gt;" in page and "<done>" not in page


def test_undefined_scores_are_dashes_and_no_nan_reaches_the_page(story):
    nothing = Scores("Network", None, float("nan"), None, 0.0, 0.0, 0.0)
    page = build_report(replace(story, network=nothing, hectares=0.0))
    assert "nan" not in re.sub(r"data:[^\"']*", "", page).lower() and "None" not in re.sub(r"data:[^\"']*", "", page)


def luminance(colour):
    rgb = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_has_the_contrast_that_accessibility_asks_for(scheme):
    """WCAG AA: 4.5 to 1 for text."""
    block = STYLE.split("@media (prefers-color-scheme:dark)")[scheme]
    colours = dict(re.findall(r"--(\w+):(#[0-9a-f]{6})", block.split("}")[0]))
    for text in ("ink", "soft", "ours"):
        for ground in ("paper", "panel"):
            bright, dim = sorted((luminance(colours[text]), luminance(colours[ground])), reverse=True)
            assert (bright + 0.05) / (dim + 0.05) >= 4.5, (text, ground)


# ----------------------------------------------------------------------------------------------------------- in a real browser


def chromium(folder, *words):
    name = next((n for n in ("chromium", "chromium-browser", "google-chrome") if shutil.which(n)), None)
    if name is None:
        pytest.skip("no chromium found; install it (Debian: apt-get install chromium) to check the page in a browser")
    quiet = ("--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars")
    command = [name, "--headless", "--no-sandbox", "--disable-gpu", *quiet, f"--user-data-dir={folder / 'profile'}", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def scene_page(story):
    """The page of inference.py --report with some of the story's pictures, and names that are long."""
    rows = tuple(ClassRow(colour, "burned ground", 1302.4, 0.22, 1100.0, 1500.0) for colour in (None, BURNED))
    scene = SceneReport("S2B_MSIL2A_20220205T101211_N0400_R022_T32TQM_20220205T120000", "Sentinel-2 L2A, 2022-02-05", "22 % burned.",
                        tuple(story.views[name] for name in ("natural", "burn", "map", "probability")), (0.96, 0.96), 3.2, rows,
                        (("Middle", "42.8098° N, 26.0196° E"),), ("A remark.",))
    return build_scene_report(RunReport(
        ("1 302 hectares burned.", "Map of 2 scenes"), "A map.", (scene, scene), (("a", "22 %"), ("b", "0 %")), (("Sees", "B02, B03"),),
        (("c", "it can't be read"),), "0.1.0",
    ))


@pytest.mark.slow
@pytest.mark.parametrize("width, height", [(390, 844), (1920, 1080)], ids=["phone", "projector"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("build", "pictures"), [(build_report, 7), (scene_page, 8)], ids=["demo", "scenes"])
def test_the_page_fits_a_phone_and_a_projector_by_day_and_by_night(story, tmp_path, width, height, scheme, build, pictures):
    """The page in an iframe of the wanted width, since a browser's own window may refuse to be that narrow."""
    (tmp_path / "report.html").write_text(build(story), encoding="utf-8")
    (tmp_path / "frame.html").write_text(
        f"<body style='margin:0'><iframe id=f src=report.html style='border:0;width:{width}px;height:{height}px'></iframe><pre id=o></pre>"
        "<script>f.onload=()=>{const d=f.contentDocument,e=d.documentElement;const wide=[...d.querySelectorAll('main *')].filter(x=>"
        "x.getBoundingClientRect().right>e.clientWidth+1&&!x.closest('pre,.scroll,svg')).length;"
        "const broken=[...d.images].filter(i=>!i.naturalWidth).length;"
        "o.textContent=[e.scrollWidth,e.clientWidth,wide,broken,d.images.length].join(' ')}</script>",
        encoding="utf-8",
    )
    asked = [f"--blink-settings=preferredColorScheme={int(scheme == 'light')}"]  # what --force-dark-mode leaves alone
    words = [f"--window-size={max(width, 600)},{height}", "--allow-file-access-from-files", "--virtual-time-budget=5000", *asked]
    page = chromium(tmp_path, *words, "--dump-dom", (tmp_path / "frame.html").as_uri())
    total, visible, wide, broken, images = map(int, re.search(r'<pre id="o">([\d ]+)</pre>', page).group(1).split())
    assert visible == width and total <= width and wide == 0, "something sticks out to the right"
    assert broken == 0 and images == pictures

    shot = tmp_path / "shot.png"
    chromium(tmp_path, f"--window-size={width},{height}", f"--screenshot={shot}", *asked, (tmp_path / "report.html").as_uri())
    picture = np.asarray(Image.open(shot).convert("RGB"))
    assert picture.shape == (height, width, 3)
    corner = picture[2, 2].mean()
    assert corner > 240 if scheme == "light" else corner < 40
    assert picture.std() > 10  # something is drawn on it
