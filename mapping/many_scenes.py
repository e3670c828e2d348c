"""Maps many scenes with one checkpoint, shared among the processes of a run."""

import functools
import os
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from constants import MANIFEST
from mapping.area_of_interest import OutsideArea
from mapping.coordinates import scene_coordinates
from mapping.cost import tell_large
from mapping.dry_run import dry_run
from mapping.ensemble import EnsemblePredictor
from mapping.inputs import InputFlags, describe_for, holds_all_dates, judged, plan_of_header
from mapping.map_files import MapFiles, finished_record
from mapping.messages import conclude, plan_words, reflectance_table, tell_record
from mapping.report import remove_stale_report, write_report
from mapping.scene import map_scene
from mapping.segmentation import Predictor
from mapping.settings import MapSettings, ModelFacts
from mapping.summary import read_record, update_summaries
from mapping.weights_hash import hash_of_all, weights_hash
from raster.acquired import of_dates
from raster.dated import members_of
from raster.places import samples_among
from raster.products import list_scenes
from raster.source import is_remote, scene_name
from runtime.device import Compute
from runtime.errors import RunError, UserError
from runtime.files import read_lines, require_writable
from runtime.logs import Console, print_result
from runtime.names import require_short_names
from runtime.network import may_ask
from vectors.reading import read_polygons


@dataclass(frozen=True, kw_only=True)
class MapRun:
    """
    What all scenes of a run share.

    network: of the checkpoint. data: what the checkpoint says about the images of its training. batch_size: windows at once. output_dir: a
    folder. colours: see ModelFacts. dates: of runtime.values.dates, of the scenes that are mapped, or None. overwrite: replace maps that
    exist. dry_run: write nothing. quiet: of the console. report: write a page of all scenes.
    threshold_given: the user chose it. further: the other networks of an ensemble.
    shown_only: probabilities are wanted for that page alone, not of scenes that are mapped already.
    """

    network: torch.nn.Module
    data: dict
    flags: InputFlags
    settings: MapSettings
    compute: Compute
    batch_size: int
    output_dir: str
    colours: tuple = ()
    dates: tuple | None = None
    overwrite: bool = False
    dry_run: bool = False
    quiet: bool = False
    report: bool = False
    threshold_given: bool = False
    further: tuple = ()
    shown_only: bool = False

    @property
    def dates_together(self):
        """Dates of one place that the network takes as one image: as the patches had them, or an encoder's argument says."""
        parts = getattr(getattr(self.network, "config", None), "parts", None)
        count = self.data.get("dates") or (parts.encoder_args.get("dates", 1) if parts else 1)
        if type(count) is not int or count < 1 or len(self.data["bands"]) % count:
            raise UserError(f"the checkpoint is damaged: its {len(self.data['bands'])} bands are not those of {str(count)[:20]} dates")
        return count

    @functools.cached_property
    def facts(self):
        """ModelFacts of the network."""
        mean, (bands, classes) = getattr(getattr(self.network, "config", None), "mean", None), (self.data["bands"], self.data["classes"])
        weights = hash_of_all([weights_hash(network.state_dict()) for network in (self.network, *self.further)])
        return ModelFacts(bands=tuple(bands), classes=tuple(classes), weights=weights, mean=mean, colours=self.colours,
                          task=self.settings.task)

    def plan(self, path):
        """SceneInput of a scene: reads its header and a few small windows."""
        return self.judged(self.plan_of_header(path))

    def plan_of_header(self, path):
        """SceneInput of a scene as far as its header tells."""
        return plan_of_header(describe_for(path, self.data, self.flags), self.data, self.flags)

    def judged(self, plan):
        """The SceneInput, once its reflectance is seen to be that of such images."""
        return judged(plan, self.data, self.facts.mean, self.flags)

    def predictor(self, plan):
        if self.compute.device.type == "cuda":
            torch.set_float32_matmul_precision("high" if self.compute.precision != "fp32" else "highest")
        predictors = [
            Predictor(network, len(self.facts.classes), plan.scale, self.compute, tta=self.settings.tta, batch_size=self.batch_size,
                      task=self.settings.task, coordinates=scene_coordinates(plan, network)[0])
            for network in (self.network, *self.further)
        ]
        return EnsemblePredictor(predictors) if self.further else predictors[0]

    def files(self, name):
        return MapFiles(self.output_dir, name)

    def finished_record(self, name, plan):
        """The record of a map that need not be made, or None. UserError for a map that may not be replaced."""
        if self.overwrite:
            return None
        files, settings = self.files(name), self.settings
        if self.shown_only and not files.outputs(settings, self.facts.class_set)["probability"].exists():
            settings = replace(settings, probabilities=None)
        elif settings.probabilities is None and has_probabilities(files):
            settings = replace(settings, probabilities="uint8")  # there is more than was asked for
        return finished_record(files, plan, self.facts, settings)


def has_probabilities(files):
    """Whether the finished map of a MapFiles has probabilities as bytes, which --report keeps."""
    settings = read_record(files.record)["settings"] if files.record.exists() else None
    return bool(settings) and settings.get("outputs") == "uint8"


# ------------------------------------------------------------------------------------------------------- which scenes


def choose_scenes(patterns, data, settings, output_dir, classes, console, dates=None, together=1, holds_all=None):
    """
    {name: path} of the scenes that patterns name, or that a checkpoint's data name. UserError for scenes that can't be mapped together.

    settings: MapSettings. output_dir: where the maps go. classes: ClassSet. dates: see MapRun. together: dates of one place that the
    network takes as one image; holds_all(path): how a raster holds all of them, or None.
    """
    samples = [] if patterns else samples_of_checkpoint(data, console)
    scenes = name_scenes(patterns or flat(samples))
    if dates:
        count, scenes = len(scenes), of_dates(scenes, dates)
        console.say(f"{len(scenes)} of {count} scenes were taken on the days of --dates")
    if together > 1:
        ends = {name for name, path in scenes.items() if str(path) in {paths[-1] for paths in samples}}
        scenes = samples_among(scenes, together, holds_all, ends or None, console.say)
    outputs = {name: list(MapFiles(output_dir, name).outputs(settings, classes).values()) for name in scenes}
    refuse_inputs_as_outputs(scenes, outputs)
    require_short_names(path for paths in outputs.values() for path in paths)
    if settings.aoi:
        for remark in read_polygons([settings.aoi]).remarks:
            console.warn(remark)
    return scenes


def name_scenes(patterns):
    """{name: path} of all scenes, in the order of their paths. UserError where two would get the same output files."""
    scenes = {}
    for path in list_scenes(patterns):
        name = scene_name(path)
        if name in scenes:
            raise UserError(f"{scenes[name]} and {path} would both become {name}_classes.tif; map them into different --output-dir")
        scenes[name] = path
    return scenes


def scenes_of_checkpoint(data, console):
    """Paths of samples_of_checkpoint, each once."""
    return flat(samples_of_checkpoint(data, console))


def flat(samples):
    return list(dict.fromkeys(path for paths in samples for path in paths))


def samples_of_checkpoint(data, console):
    """
    [[path, of several dates those of all]] of the scenes of the test split of the patches that a checkpoint was trained on; of the
    validation split where there are none.
    """
    folder = data.get("patches_dir")
    lines = read_lines(Path(folder) / MANIFEST) if folder else []
    try:
        sources = [(line["split"], tuple(map(str, line["source"].get("paths") or [line["source"]["path"]]))) for line in lines]
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{Path(folder) / MANIFEST} does not say of which scene each patch is; pass the scenes to map") from error
    by_split = {split: list(dict.fromkeys(paths for its_split, paths in sources if its_split == split)) for split in ("test", "val")}
    split = "test" if by_split["test"] else "val"
    if not by_split[split]:
        raise UserError(f"no scene was given, and the checkpoint's patch set ({folder or 'not named'}) names none; pass the scenes to map")
    why = "" if split == "test" else ", since there is no test split"
    for path in flat(by_split[split]):
        if is_remote(path) and not may_ask(path):
            raise UserError(f"{folder} leads to {path}; pass --allow-network if you trust it, or the scenes to map")
    console.say(f"no scene was given: mapping the {len(by_split[split])} of the {split} split of {folder}{why}")
    return by_split[split]


def refuse_inputs_as_outputs(scenes, outputs):
    """UserError where a map would replace a scene. outputs: {name: paths}."""
    inputs = {os.path.realpath(one) for name, path in scenes.items() for _, one in members_of(name, path) if "://" not in one}
    for name in scenes:
        for path in outputs[name]:
            if os.path.realpath(path) in inputs:
                raise UserError(f"{path} is one of the scenes, and would be the map of {scenes[name]}; choose another --output-dir")


def refuse_finished(run, scenes):
    """UserError for maps that exist and may not be replaced, before any scene is mapped. What can't be opened is skipped here."""
    for name, path in scenes.items():
        if any(p.exists() for p in run.files(name).outputs(run.settings, run.facts.class_set).values()):
            try:
                plan = run.plan_of_header(path)
            except UserError:
                continue
            run.finished_record(name, plan)


# --------------------------------------------------------------------------------------------------------- the mapping


def map_all(run, patterns, processes, first):
    """
    Map the scenes that patterns name, or where there are none those of the checkpoint. Returns the exit code.

    first: the console, silent in all processes but the first.
    """
    scenes = choose_scenes(patterns, run.data, run.settings, run.output_dir, run.facts.class_set, first, run.dates, run.dates_together,
                           lambda path: holds_all_dates(path, run.data, run.flags))
    if run.dry_run:
        return dry_run(run, scenes) if processes.is_first else 0
    require_writable(run.output_dir)
    # Each process tells of its own scenes, so none of them is silent.
    records, failures = map_scenes(run, scenes, processes, Console(run.quiet))
    line, code = conclude(records, failures, run.output_dir)
    if processes.is_first:
        page = [write_report(run, scenes, records, failures)] if run.report and records else []
        print_result(*page, line)
    return code


def map_scenes(run, scenes, processes, console):
    """
    Map the scenes, {name: path}, each by one of the processes, and bring the folder's summary up to date.

    Returns ({name: record}, {name: (kind of error, text)}) of all processes. console: this process's.
    """
    refuse_finished(run, scenes)
    mine = dict(list(scenes.items())[processes.rank :: processes.size])
    records, failures = {}, {}
    for part in processes.gather(map_share(run, mine, len(scenes), console)):
        records |= part[0]
        failures |= part[1]
    if records and processes.is_first:
        for remark in update_summaries(run.output_dir):
            console.warn(remark)
    return records, failures


def map_share(run, mine, count, console):
    """
    Map this process's share of the `count` scenes; one that fails does not stop the rest.

    Returns ({name: record}, {name: (kind of error, text)}). With --strict, or where there is only one scene, its error ends the run.
    """
    records, failures, said = {}, {}, set()
    for number, (name, path) in enumerate(mine.items(), start=1):
        try:
            records[name] = map_or_skip(run, name, path, f"[{number}/{len(mine)}] {name}", console)
            tell_record(console, records[name], said)
        except (UserError, RunError) as error:
            outside = isinstance(error, OutsideArea)
            if count == 1 or run.settings.strict and not outside:
                raise
            failures[name] = type(error).__name__, str(error)
            (console.say if outside else console.warn)(f"{path} was not mapped: {error}")
    return records, failures


def map_or_skip(run, name, path, place, console):
    """The record of one scene, which is mapped unless it is already. place: what a line about it begins with."""
    plan, files = run.plan_of_header(path), run.files(name)
    record = run.finished_record(name, plan)
    if record is not None:
        console.say(f"{place} is mapped already")
        return record
    plan = run.judged(plan)
    again = ", continuing where an earlier run stopped" if files.is_unfinished() else ""
    for line in (f"{place}: {plan_words(plan, run.facts)}{again}", *reflectance_table(plan, run.facts)):
        console.say(line)
    lacking = [line for network in (run.network, *run.further) for line in scene_coordinates(plan, network)[1]]
    for doubt in dict.fromkeys([*([plan.doubt] if plan.doubt else []), *lacking]):
        console.warn(doubt)
    tell_large(run, plan, name, console)

    if remark := remove_stale_report(run, name):
        console.say(remark)

    def progress(total, done):
        return console.progress(total, name, initial=done).update

    return map_scene(run.predictor(plan), plan, files, run.facts, run.settings, overwrite=run.overwrite, progress=progress)
