"""Finds the objects of many images with one detector, shared among the processes of a run."""

import functools
import os
import time
from dataclasses import asdict, dataclass

import torch

from detection.image_files import ImageFiles, finished_record, update_tables
from detection.image_map import DetectorFacts, FindSettings, all_settings, find_in_image, tile_grid
from detection.image_plan import plan_of_image
from detection.tile_rows import Finder
from mapping.area_of_interest import OutsideArea
from mapping.inputs import InputFlags, judged
from mapping.messages import last_line, plan_words, reflectance_table, tell_faults
from mapping.weights_hash import weights_hash
from raster.acquired import of_dates
from raster.products import list_scenes
from raster.source import RASTER_SUFFIXES, scene_name
from runtime.device import Compute
from runtime.errors import RunError, UserError
from runtime.files import require_writable, settings_hash
from runtime.logs import Console, print_result
from runtime.names import require_short_names
from runtime.words import plural
from vectors.reading import read_polygons

IMAGE_SUFFIXES = (*RASTER_SUFFIXES, ".jpg", ".jpeg", ".png")


@dataclass(frozen=True, kw_only=True)
class FindRun:
    """
    What all images of a run share.

    detector: see tile_rows.Finder; its `config`, a dataclass, has the `mean` of the training images in reflectance, or None. data: what the
    checkpoint says about the images of its training. batch_size: tiles at once. output_dir: a folder. colours: see DetectorFacts. dates: of
    runtime.values.dates, of the images that are looked at, or None. overwrite: replace what exists. dry_run: write nothing. quiet: of the
    console.
    """

    detector: torch.nn.Module
    data: dict
    flags: InputFlags
    settings: FindSettings
    compute: Compute
    batch_size: int
    output_dir: str
    colours: tuple = ()
    dates: tuple | None = None
    overwrite: bool = False
    dry_run: bool = False
    quiet: bool = False

    @functools.cached_property
    def facts(self):
        """DetectorFacts."""
        config = self.detector.config
        return DetectorFacts(
            bands=tuple(self.data["bands"]), classes=tuple(self.data["classes"]), mean=config.mean, colours=self.colours,
            weights=f"{weights_hash(self.detector.state_dict())}-{settings_hash(asdict(config))}",
        )

    @functools.cached_property
    def placed(self):
        """The detector on its device."""
        return self.compute.place(self.detector).eval()

    def plan(self, path, look=False):
        """SceneInput of an image. look: also compare its brightness with that of the training, which reads a few small windows."""
        plan = plan_of_image(path, self.data, self.flags)
        if not look or set(plan.info.dtypes) == {"uint8"}:  # bytes have one scale; and a JPEG would be decoded just for that
            return plan
        return judged(plan, self.data, self.facts.mean, self.flags)

    def finder(self, plan):
        return Finder(self.placed, plan.scale, self.compute, score_threshold=self.settings.score_threshold, limit=self.settings.limit,
                      tta=self.settings.tta, batch_size=self.batch_size)

    def files(self, name):
        return ImageFiles(self.output_dir, name)

    def finished_record(self, name, plan):
        """The record of an image that need not be looked at, or None. UserError for files that may not be replaced."""
        if self.overwrite:
            return None
        return finished_record(self.files(name), all_settings(plan, self.facts, self.settings), self.settings)


# ------------------------------------------------------------------------------------------------------- which images


def choose_images(run, patterns, console):
    """{name: path} of the images that patterns name. UserError for those that cannot be looked at together."""
    if not patterns:
        raise UserError("no image was given; pass files, folders or globs")
    images = {}
    for path in list_scenes(patterns, IMAGE_SUFFIXES):
        name = scene_name(path)
        if name in images:
            raise UserError(f"{images[name]} and {path} would both become {name}_boxes.png; pass them with different --output-dir")
        images[name] = path
    images = of_dates(images, run.dates) if run.dates else images
    outputs = {os.path.realpath(path): name for name in images for path in run.files(name).outputs(run.settings).values()}
    for path in images.values():
        if "://" not in path and os.path.realpath(path) in outputs:
            raise UserError(f"{path} is one of the images, and would be a picture of the boxes of another; choose another --output-dir")
    require_short_names(outputs)
    if run.settings.aoi:
        for remark in read_polygons([run.settings.aoi]).remarks:
            console.warn(remark)
    return images


def refuse_finished(run, images):
    """UserError for files that exist and may not be replaced, before any image is looked at. What can't be opened is skipped here."""
    for name, path in images.items():
        if any(p.exists() for p in run.files(name).outputs(run.settings).values()):
            run.finished_record(name, run.plan(path))


# --------------------------------------------------------------------------------------------------------- the work


def find_all(run, patterns, processes, first):
    """
    Find the objects of the images that patterns name. Returns the exit code.

    first: the console, silent in all processes but the first.
    """
    images = choose_images(run, patterns, first)
    if run.dry_run:
        return dry_run(run, images) if processes.is_first else 0
    require_writable(run.output_dir)
    refuse_finished(run, images)
    mine = dict(list(images.items())[processes.rank :: processes.size])
    records, failures = {}, {}
    # Each process tells of its own images, so none of them is silent.
    for part in processes.gather(find_share(run, mine, len(images), Console(run.quiet))):
        records |= part[0]
        failures |= part[1]
    if records and processes.is_first:
        update_tables(run.output_dir)
    line, code = conclude(records, failures, run.output_dir)
    if processes.is_first:
        print_result(line)
    return code


def find_share(run, mine, count, console):
    """
    Look at this process's share of the `count` images; one that fails does not stop the rest.

    Returns ({name: record}, {name: (kind of error, text)}). With --strict, or where there is only one image, its error ends the run.
    """
    records, failures, said = {}, {}, set()
    for number, (name, path) in enumerate(mine.items(), start=1):
        try:
            records[name] = find_or_skip(run, name, path, f"[{number}/{len(mine)}] {name}", console)
            tell_record(console, records[name], run.settings.limit, said)
        except (UserError, RunError) as error:
            outside = isinstance(error, OutsideArea)
            if count == 1 or run.settings.strict and not outside:
                raise
            failures[name] = type(error).__name__, str(error)
            (console.say if outside else console.warn)(f"{path} was left out: {error}")
    return records, failures


def find_or_skip(run, name, path, place, console):
    """The record of one image, which is looked at unless it has been already. place: what a line about it begins with."""
    files = run.files(name)
    record = run.finished_record(name, run.plan(path))
    if record is not None:
        console.say(f"{place} is finished already")
        return record
    plan = run.plan(path, look=True)
    if plan.doubt:
        console.warn(plan.doubt)
    again = ", continuing where an earlier run stopped" if files.is_unfinished() else ""
    looked = plan.sample is not None
    for line in (f"{place}: {plan_words(plan, run.facts) if looked else in_words(plan)}{again}",
                 *(reflectance_table(plan, run.facts) if looked else ())):
        console.say(line)

    def progress(total, done):
        return console.progress(total, name, initial=done).update

    return find_in_image(run.finder(plan), plan, files, run.facts, run.settings, overwrite=run.overwrite, progress=progress)


def in_words(plan):
    """A line about how an image is read whose pixels need no comparison."""
    info, divisors = plan.info, ", ".join(f"{v:g}" for v in dict.fromkeys(plan.scale.divide_by))
    found = f"{info.width} × {info.height}, bands {plan.matched} ({', '.join(map(str, plan.indexes))}), value / {divisors} {plan.scaled}"
    return f"{found}; {plan.alpha}" if plan.alpha else found


def tell_record(console, record, limit, said):
    """Lines about a finished image; remarks that hold for many (no CRS) only once. said: set of those told already."""
    counts = ", ".join(f"{count} {name}" for name, count in record["counts"].items() if count)
    console.say(f"  {record['image']}: {counts or 'nothing found'}")
    if record["full_tiles"]:
        console.warn(f"{record['image']}: {record['full_tiles']} of {plural(record['tiles'], 'tile')} reached the limit of {limit} "
                     "detections and may lack some; raise --max-detections or pass a smaller --window")
    tell_faults(console, record["image"], record, said)


def conclude(records, failures, output_dir):
    """(the last line, the exit code): 0; 1 where some images failed; 2 where all of them did, for what the user can change."""
    full = [name for name, record in records.items() if record["full_tiles"]]
    objects = sum(sum(record["counts"].values()) for record in records.values())
    line = f"{plural(objects, 'detection')} in {len(records)} of {plural(len(records) + len(failures), 'image')}, in {output_dir}"
    return last_line(line, records, failures, [("with tiles at the limit of detections", full)])


def dry_run(run, images):
    """Print a line an image, {name: path}. Returns the exit code: 2 where some can't be looked at."""
    seconds, bad = None, 0
    for name, path in images.items():
        try:
            plan = run.plan(path, look=True)
        except UserError as error:
            print_result(f"{name}: can't be looked at: {error}")
            bad += 1
            continue
        seconds = seconds_a_tile(run, plan) if seconds is None else seconds
        count = tile_grid(plan.info, run.settings).count
        size = "×".join(map(str, dict.fromkeys(run.settings.window)))
        print_result(f"{name}: {in_words(plan)}; {plural(count, 'tile')} of {size}, about {count * seconds:.0f} s")
    print_result(f"{len(images) - bad} of {plural(len(images), 'image')} would be looked at, into {run.output_dir}")
    return 2 if bad else 0


def seconds_a_tile(run, plan):
    """Measured on a batch of zeros, after one that warms up."""
    finder, (wide, tall) = run.finder(plan), run.settings.window
    batch = torch.zeros(run.batch_size, len(plan.indexes), tall, wide, device=run.compute.device)
    finder.find(batch)
    start = time.perf_counter()
    finder.find(batch)
    return (time.perf_counter() - start) / run.batch_size
