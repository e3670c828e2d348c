"""
Makes or continues a patch set: patches in the order of a single process, and every window that was left out with its reason.

The parent process alone writes the manifest. So the bytes of a patch set depend on its settings and sources only, and a run that was
killed continues where its manifest ends. chipping/cutting.py cuts a scene, chipping/parallel.py shares the work between processes.
"""

import collections
import itertools
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from chipping.chipset import DEFAULT_OPTIONS, SKIPPED, ChipSetWriter, SkipLog
from chipping.cutting import grid_of
from chipping.label_checks import black_white_words
from chipping.parallel import Cutter, cut_in_order, partition
from chipping.patch_set import SPLITS
from chipping.sources import refuse_changed_sources, stamps_of
from raster.scale import to_reflectance
from runtime.errors import RunError, UserError
from runtime.files import make_own_folder, remove_leftovers
from runtime.names import require_real_folder, require_short_names
from runtime.stop_signals import told_on_stop

# {reason of a window that is left out (chipping/cutting.py): what to do where most are}
REMEDIES = {
    "outside the area": "check that --aoi lies on the images",
    "no valid pixel": "all pixels count as nodata: where they are values, pass --nodata none --overwrite",
    "too few valid pixels": "pass a smaller --min-valid, with --overwrite",
    "clouds": "pass a larger --max-cloud-cover, with --overwrite",
    "nothing labelled": "check that the labels lie on the images and are not nodata there",
}

NEEDS = ("file", "mask", "scene", "split", "window", "valid_pixels", "band_sum", "class_pixels", "source", "label_sources")  # of a line

def needs_of(recipe):
    """Fields that a line has to have. Labels of whole patches have no mask."""
    return tuple(name for name in NEEDS if name != "mask" or recipe.has_masks)


SKIP_NEEDS = ("scene", "window", "reason")  # of a line of skipped.jsonl


@dataclass
class Tally:
    """
    What has been made and left out.

    patches: {split: how many}. scenes: {split: names}. skipped: {reason: windows}. unreadable: {file: windows that could not be read, 0
    where it could not be opened}. valid_pixels: of all patches; band_sum: their sums in stored units, one a band. train_pixels: {layer:
    pixels of each class in the training patches}.
    """
    patches: collections.Counter = field(default_factory=collections.Counter)
    scenes: dict = field(default_factory=lambda: collections.defaultdict(set))
    skipped: collections.Counter = field(default_factory=collections.Counter)
    unreadable: collections.Counter = field(default_factory=collections.Counter)
    valid_pixels: int = 0
    band_sum: list = field(default_factory=list)
    train_pixels: dict = field(default_factory=dict)

    def count(self, line):
        if "file" in line:
            self.patches[line["split"]] += 1
            self.scenes[line["split"]].add(line["scene"])
            self.valid_pixels += line["valid_pixels"]
            self.band_sum = added(self.band_sum, line["band_sum"])
            if line["split"] == "train":
                for layer, pixels in line["class_pixels"].items():
                    self.train_pixels[layer] = added(self.train_pixels.get(layer), pixels)
        else:
            self.skipped[line["reason"]] += 1
            if line["reason"] == "unreadable":
                self.unreadable[str(line.get("source"))] += 1


def added(total, more):
    """Two lists of numbers, added element by element. total: empty or None for zeros."""
    return [a + b for a, b in zip(total or [0] * len(more), more, strict=True)]


def make_patches(plan, folder, options=DEFAULT_OPTIONS, progress=lambda count: None):
    """
    Cut a Plan's scenes into `folder` as a chip set, or continue what an interrupted run has left there.

    progress(n): called when n more windows are done. Returns a Tally. RunError where nothing could be cut, or with options.strict at the
    first window that cannot be read.
    """
    folder, tally = Path(folder), Tally()
    require_short_names(f"{scene.name}_r{scene.height}_c{scene.width}_image.npy" for scene in plan.scenes)
    with (
        ChipSetWriter(folder, plan.description, options.overwrite, companions=(SKIPPED,), needs=needs_of(plan.recipe)) as chipset,
        SkipLog(folder / SKIPPED, needs=SKIP_NEEDS) as skips,
    ):
        for split in {scene.split for scene in plan.scenes}:
            make_own_folder(folder / split)
            remove_leftovers(folder / split)
        if chipset.replaces:
            remove_strays(folder)
        refuse_other_files((*chipset.lines, *skips.lines), plan.scenes, folder)
        done = keep_finished(chipset, skips, plan.scenes, plan.recipe)
        for line in (*chipset.lines, *skips.lines):
            tally.count(line)
        for _, why in sorted(plan.broken.items()):
            tally.unreadable[why] = 0
        progress(sum(done.values()))
        if sum(done.values()) < sum(grid_of(scene, plan.recipe).count for scene in plan.scenes):
            chipset.expect(True)
        with told_on_stop(lambda: f"{sum(tally.patches.values())} patches are safe; run the same command again to continue"):
            for line in new_lines(plan, folder, options.workers, done):
                (chipset if "file" in line else skips).add(line)
                tally.count(line)
                chipset.lines.clear()  # a large scene has more lines than memory should hold
                progress(1)
                if options.strict and line.get("reason") == "unreadable":
                    raise RunError(f"{line['source']} cannot be read at window {line['window']} ({line['detail']}); --strict stops here")
        chipset.expect(None)
    if not tally.patches:
        why = f"no patch could be cut from {len(plan.scenes)} scenes; left out: {describe_skipped(tally) or 'nothing'}"
        if tally.unreadable:
            raise RunError(why)
        if plan.black_white and tally.skipped["nothing labelled"]:
            raise UserError(f"{why}; {black_white_words(next(iter(plan.black_white.values())))}")
        reason = next(iter(dict(tally.skipped.most_common(1))), None)
        raise UserError(f"{why}; {REMEDIES.get(reason, 'check --aoi and --patch-size against the images')}")
    return tally


def new_lines(plan, folder, workers, done):
    """Lines of all windows that are not finished, after their files. done: {scene's name: windows that are, the first ones}."""
    scenes, recipe = plan.scenes, plan.recipe
    # a row is cut as a whole: of its windows, those finished earlier come again and are not listed twice
    again = {s.name: done.get(s.name, 0) % len(grid_of(s, recipe).columns) for s in scenes}
    for line in cut_in_order(scenes, recipe, folder, partition(scenes, recipe, workers, done), workers):
        if again[line["scene"]]:
            again[line["scene"]] -= 1
        else:
            yield line


def describe_skipped(tally):
    return ", ".join(f"{count} {reason}" for reason, count in tally.skipped.most_common())


def keep_finished(chipset, skips, scenes, recipe):
    """
    Cut manifest.jsonl and skipped.jsonl back to the leading windows that are finished without a gap: patches whose files are there, and
    windows that were left out (unreadable ones too). Returns {scene's name: number of its finished windows}.
    """
    made = {(line["scene"], line["window"][0], line["window"][1]): line for line in chipset.lines}
    left = {(line["scene"], line["window"][0], line["window"][1]) for line in skips.lines}
    done, n_made, n_left = {}, 0, 0
    for scene in scenes:
        finished, grid = 0, grid_of(scene, recipe)
        for row, col in itertools.product(grid.rows, grid.columns):
            line = made.get((scene.name, col, row))
            if line is not None:
                if not all((chipset.folder / line[key]).exists() for key in ("file", "mask") if key in line):
                    break
                n_made += 1
            elif (scene.name, col, row) in left:
                n_left += 1
            else:
                break
            finished += 1
        done[scene.name] = finished
        if finished < grid.count:
            break
    if n_made < len(chipset.lines):
        chipset.keep(n_made)
    if n_left < len(skips.lines):
        skips.rewrite(skips.lines[:n_left])
    return done


def refuse_other_files(lines, scenes, folder):
    """UserError where files are not those from which earlier windows were cut or left out, or where one has come or gone since."""
    files = {s.name: {"image": s.source, "clouds": s.cloud_source, **s.label_sources} for s in scenes}
    earlier = {}
    for line in {line["scene"]: line for line in reversed(lines)}.values():  # the first line of each scene
        if "file" in line:
            earlier[line["scene"]] = stamps_of(line["source"], line["label_sources"], line.get("cloud_source"))
        elif "stamps" in line:
            earlier[line["scene"]] = line["stamps"]
    now = {s.name: stamps_of(s.source, s.label_sources, s.cloud_source) for s in scenes}
    refuse_changed_sources(earlier, now, lambda scene, key: files[scene][key]["path"], folder)


def remove_strays(folder):
    """Delete patches that a killed run of other settings wrote and its manifest does not list."""
    for split in SPLITS:
        require_real_folder(folder / split, folder)
        for path in (*folder.glob(f"{split}/*_r*_c*_image.npy"), *folder.glob(f"{split}/*_r*_c*_mask.npy")):
            path.unlink()


def estimate(scenes, recipe, most_windows=48):
    """
    What cutting would cost, measured by cutting a row of a few scenes without writing.

    Returns (patches, bytes, seconds of one worker); the share of windows that become patches is that of the sample.
    """
    total = sum(grid_of(s, recipe).count for s in scenes)
    step = max(1, len(scenes) // 4)
    tried, kept, size, begin = 0, 0, 0, time.perf_counter()
    cutter = Cutter(scenes, recipe, None)
    for number in range(0, len(scenes), step):
        rows = grid_of(scenes[number], recipe).rows
        for line in cutter.lines((number, (rows[len(rows) // 2],))):
            tried += 1
            if "file" in line:
                kept += 1
                size += recipe.size**2 * (len(scenes[number].bands) * np.dtype(line["dtype"]).itemsize + mask_bytes(recipe)) + 2 * 128
        if tried >= most_windows:
            break
    cutter.close()
    seconds = time.perf_counter() - begin
    share = kept / max(1, tried)
    return round(total * share), round(total * size / max(1, tried)), total * seconds / max(1, tried)


def mask_bytes(recipe):
    """Bytes that the labels of a pixel take."""
    return len(recipe.layers) * (4 if recipe.has_values else 1) if recipe.has_masks else 0


def mean_reflectance(tally, description):
    """[mean reflectance a band] over all valid pixels of a set."""
    scale = zip(tally.band_sum, description["divide_by"], description["offset"], strict=True)
    return [to_reflectance(total / tally.valid_pixels, divisor, offset) for total, divisor, offset in scale]
