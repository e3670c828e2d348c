"""The page of `inference.py --report`: gathers pictures and numbers of the scenes of a run from their files."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from rasterio.enums import Resampling
from rasterio.errors import RasterioError

from classes import spoken
from constants import IGNORE, VERSION
from mapping.messages import decision_words, mapped_words
from mapping.preview import legend_of, taken_words
from mapping.reading import read_stored
from mapping.value_picture import shown_range, value_legend, value_picture
from nets.model_config import answers_values
from pictures.overlays import NODATA_COLOUR, PROBABILITY_STOPS, class_overlay, grey_background, probability_picture
from pictures.page import View, shown_by
from pictures.scene_report import ClassRow, RunReport, SceneReport, build_scene_report, hectare_words
from pictures.stretch import any_picture, burn_colour, infrared_title, natural_colour
from raster.crs import name_of
from raster.ground import degrees_words, ground_of
from raster.nodata import valid_pixels
from raster.scale import to_reflectance
from raster.source import open_raster
from raster.windows import thin_shape
from runtime.errors import UserError
from runtime.files import write_text
from runtime.words import THIN, plural

NAME = "report.html"
HEAD = 1 << 20  # characters of a page in which the names of its scenes are
SHOWN = 40  # scenes with pictures
LONGEST, MANY, SMALLER = 900, 12, 520  # pixels of a picture's longer side; of more scenes fewer, or the page would get large
LEAST = 700  # pixels of the longer side up to which pictures of small scenes are enlarged
NODATA = (NODATA_COLOUR, "not mapped")


def write_report(run, scenes, records, failures):
    """
    Write the page of a MapRun into its folder; → its path.

    scenes: {name: path} of the run. records: {name: record} of those that are mapped. failures: {name: (kind of error, text)}.
    """
    names = [name for name in scenes if name in records]
    longest = LONGEST if len(names) <= MANY else SMALLER
    shown = tuple(scene_report(run, name, scenes[name], records[name], longest) for name in names[:SHOWN])
    path = Path(run.output_dir) / NAME
    write_text(path, build_scene_report(RunReport(
        title=title_of(run, [records[name] for name in names]), lead=lead_of(run), scenes=shown,
        findings=tuple((name, mapped_words(records[name])) for name in names), facts=facts_of_run(run),
        missing=tuple((name, text) for name, (_, text) in failures.items()), version=VERSION,
    )))
    return path


def remove_stale_report(run, name):
    """
    Delete the folder's page where it shows a scene that is about to be mapped anew. → a remark, None where nothing was deleted.

    A page that shows other scenes alone stays, as does a file of that name that is none of ours.
    """
    path = Path(run.output_dir) / NAME
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            stale = name in shown_by(file.read(HEAD))
    except OSError:
        return None
    if stale:
        path.unlink(missing_ok=True)
    return f"{path} showed an earlier map of {name} and is deleted; pass --report for a new one" if stale and not run.report else None


def title_of(run, records):
    """(what was found, in what): `1 302 hectares burned.`, `3 scenes`."""
    where = f"Map of {records[0]['scene'] if len(records) == 1 else plural(len(records), 'scene')}"
    classes = run.facts.class_set
    if answers_values(run.settings.task):
        return f"{spoken(classes.names[0]).capitalize()}.", where
    if not classes.key:
        return f"{len(classes.names) - classes.first} classes of ground.", where
    known = [record[classes.area_key] for record in records if record.get(classes.area_key) is not None]
    if not known:
        return f"What is {classes.mapped}." if classes.is_fire else f"{classes.mapped.capitalize()}.", where
    return f"{hectare_words(sum(known))} hectares {'burned' if classes.is_fire else f'of {classes.mapped}'}.", where


def lead_of(run):
    """What the map is worth, in a sentence."""
    if answers_values(run.settings.task):
        return ("A neural network's estimate for each pixel. No truth was at hand: the page shows what the network says, "
                "not whether it is right.")
    return ("A neural network's map, pixel by pixel. No truth was at hand: the page shows what the network says, not whether it is right. "
            "Compare it with the pictures beside it.")


def facts_of_run(run):
    settings, data, facts = run.settings, run.data, run.facts
    words = decision_words(settings.threshold, run.threshold_given, data["classes"], settings.task)
    return (
        ("Network" if settings.networks == 1 else f"Mean of {settings.networks} networks", f"weights {facts.weights[:12]}"),
        ("Sees", ", ".join(facts.bands)), ("Decides", words),
        ("Windows", f"{', '.join(map(str, settings.windows))} pixels, {settings.overlap:.0%} of each shared with the next"
         + (", mean over eight flips and turns" if settings.tta else "")),
    )


# ----------------------------------------------------------------------------------------------------------------- one scene


def scene_report(run, name, path, record, longest):
    """The SceneReport of a mapped scene."""
    plan, paths = run.plan_of_header(path), run.files(name).content(run.settings, run.facts.class_set)
    shape, ground, remarks = thin_shape(plan.info.height, plan.info.width, longest), ground_of(plan.info), list(record["remarks"])
    try:
        reflectance = read_reflectance(plan, shape)
    except (UserError, RasterioError) as error:
        reflectance = None
        remarks.append(f"the scene can't be read again for its picture ({' '.join(str(error).split())[:160]})")
    look = value_views if answers_values(run.settings.task) else class_views
    return SceneReport(
        name=name, taken=taken_words(plan), finding=sentence(mapped_words(record)),
        views=tuple(map(enlarged, look(run, record, paths, reflectance, shape))),
        kilometres=ground and (plan.info.width * ground.sides[0] / 1000, plan.info.height * ground.sides[1] / 1000),
        north=ground and ground.north,
        rows=class_rows(run, record), facts=facts_of_scene(plan.info, ground, record),
        remarks=tuple(map(sentence, remarks)),
    )


def sentence(words):
    return f"{words[:1].upper()}{words[1:]}."


def enlarged(view):
    """A View of a small scene in larger square pixels, which a browser would blur."""
    times = max(1, LEAST // max(view.picture.shape[:2]))
    return replace(view, picture=view.picture.repeat(times, axis=0).repeat(times, axis=1))


def read_small(path, shape):
    """The first band of a raster, thinned to a shape: classes stay classes. As (pixels, scale)."""
    with open_raster(path) as dataset:
        return dataset.read(1, out_shape=shape, resampling=Resampling.nearest), dataset.scales[0]


def read_reflectance(plan, shape):
    """(C, h, w) float32 reflectance of a scene, thinned; 0 where it is nodata. plan: SceneInput."""
    with open_raster(plan.info.path) as dataset:
        stored = read_stored(dataset, plan, None, out_shape=(len(plan.indexes), *shape), resampling=Resampling.nearest)
    reflectance = to_reflectance(stored.astype(np.float32), plan.scale.divide_by, plan.scale.offset)
    reflectance = np.nan_to_num(reflectance, posinf=0.0, neginf=0.0)
    reflectance[:, ~valid_pixels(stored, plan.nodata, plan.zero_is_nodata)] = 0.0
    return reflectance


def scene_views(run, reflectance):
    """Views of the scene itself: as the eye sees it and in short-wave infrared, as far as the bands go."""
    bands, views = run.facts.bands, []
    if (picture := natural_colour(reflectance, bands)) is not None:
        views.append(View("The scene, as the eye would see it", picture, "The scene in natural colours.", "Red, green and blue light."))
    if (picture := burn_colour(reflectance, bands)) is not None:
        title = "The scene in burn-sensitive colours" if run.facts.class_set.is_fire else f"The scene in {infrared_title(False)}"
        note = "Short-wave infrared shown as red, near infrared as green, red light as blue."
        views.append(View(title, picture, "The scene in infrared light: plants are green.", note))
    return views or [View("The scene", any_picture(reflectance, bands), f"The scene in its band {bands[0]}.", f"Band {bands[0]} in grey.")]


def class_views(run, record, paths, reflectance, shape):
    """Views of a scene and its map of classes, and how sure the network is where that was written."""
    classes, _ = read_small(paths["classes"], shape)
    class_set, hidden = run.facts.class_set, (NODATA,) if (classes == IGNORE).any() else ()
    views = [] if reflectance is None else scene_views(run, reflectance)
    ground = grey_background(views[0].picture) if views else np.full((*shape, 3), 40, np.uint8)
    picture = class_overlay(ground, classes, class_set.colours, 0.85, class_set.first)
    picture[classes == IGNORE] = NODATA_COLOUR
    legend = (*((colour, spoken(name)) for colour, name in legend_of(classes, class_set)), *hidden)
    views.append(View("The map", picture, f"The map over the scene in grey: {mapped_words(record)}.", "", legend))
    if "probability" in paths and paths["probability"].name in record["files"]:
        stored, scale = read_small(paths["probability"], shape)
        probability = np.where(classes == IGNORE, np.nan, stored.astype(np.float32) * np.float32(scale))
        words, stops = class_set.probability_words, PROBABILITY_STOPS
        legend = ((stops[0], f"0{THIN}%"), (stops[2], f"40{THIN}%"), (stops[3], f"60{THIN}%"), (stops[-1], f"100{THIN}%"), *hidden)
        views.append(View("How sure the network is", probability_picture(probability), f"Map of the {words}, dark to bright.",
                          f"{sentence(words)[:-1]} of each pixel.", legend))
    if "uncertainty" in paths and paths["uncertainty"].name in record["files"]:
        stored, scale = read_small(paths["uncertainty"], shape)
        spread = np.where(classes == IGNORE, np.nan, stored.astype(np.float32) * np.float32(scale))
        legend = ((PROBABILITY_STOPS[0], "they agree"), (PROBABILITY_STOPS[-1], f"apart by 50{THIN}% or more"), *hidden)
        views.append(View("Where the networks disagree", probability_picture(2 * spread), "Map of the spread among the networks.",
                          "Standard deviation of their probabilities.", legend))
    return views


def value_views(run, record, paths, reflectance, shape):
    """Views of a scene and its map of values."""
    values, _ = read_small(paths["values"], shape)
    shown = record.get("shown") or shown_range(values)  # records of before do not say what their preview shows
    name, hidden = spoken(run.facts.class_set.names[0]), (NODATA,) if not np.isfinite(values).all() else ()
    legend = (*value_legend(name, *shown)[1:], *hidden)
    picture = value_picture(values, *shown)
    views = [] if reflectance is None else scene_views(run, reflectance)
    return [*views, View(f"The map: {name}", picture, f"The map, dark to bright: {mapped_words(record)}.", "", legend)]


def class_rows(run, record):
    """ClassRows of a scene's map: all classes, the background without a colour."""
    if answers_values(run.settings.task):
        return ()
    valid = sum(numbers["pixels"] for numbers in record["classes"].values())
    area = run.facts.class_set.area_key if len(record["classes"]) == 2 and run.facts.class_set.key else None
    span = (record.get(f"least_{area}"), record.get(f"most_{area}"))
    first, colours = run.facts.class_set.first, run.facts.class_set.colours
    return tuple(
        ClassRow(colours[i] if i >= first else None, spoken(name), numbers["hectares"], numbers["pixels"] / valid if valid else None,
                 *(span if i == 1 else ()))
        for i, (name, numbers) in enumerate(record["classes"].items())
    )


def facts_of_scene(info, ground, record):
    """[(name, value)] of where a scene lies and how large it is."""
    facts = [("Pixels", f"{info.width} × {info.height}")]
    if ground is not None:
        across, down = ground.sides
        facts.append(("Size of a pixel", f"{across:.4g} m" if abs(across / down - 1) < 0.01 else f"{across:.4g} × {down:.4g} m"))
        facts.append(("Extent", f"{info.width * across / 1000:.3g} × {info.height * down / 1000:.3g} km"))
        facts.append(("Middle", degrees_words(*ground.middle)))
        if ground.corners:
            facts.append(("Upper left corner", degrees_words(*ground.corners[0])))
            facts.append(("Lower right corner", degrees_words(*ground.corners[2])))
    facts.append(("Reference system", name_of(info.crs) if ground is not None else "none that leads to the globe"))
    if layer := record.get("clouds_left_out"):
        facts.append(("Clouds", f"by the product's {layer} layer, not mapped"))
    facts.append(("Valid", f"{100 * record['valid_fraction']:.1f}{THIN}% of the pixels"))
    return tuple(facts)
