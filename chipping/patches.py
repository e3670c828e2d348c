"""
A patch set made, or continued: patches in the order of one process, every window that was left out with its reason.

The parent process alone writes the manifest. So the bytes of a patch set depend on its settings and sources only, and a run that was
killed goes on where its manifest ends. How a scene is cut stands in chipping/cutting.py, how the work is shared in chipping/parallel.py.
"""

import collections
import json
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from chipping.chipset import DESCRIPTION, ChipSetWriter
from chipping.cutting import count_windows, rows_of, windows_of
from chipping.parallel import Cutter, cut_in_order, deal
from chipping.scenes import stamps_of
from raster.windows import starts
from runtime.errors import RunError, UserError
from runtime.files import atomic_path, remove_leftovers

SKIPPED = "skipped.jsonl"


@dataclass
class Tally:
    """What has been made and left out: patches and scenes a split, windows a reason, windows a file that could not
    be read (0: not even opened), {layer: pixels a class} of the training patches."""

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
                self.unreadable[line["source"]] += 1


def added(total, more):
    """Two lists of numbers, place by place. total: empty or None for nothing yet."""
    return [a + b for a, b in zip(total or [0] * len(more), more, strict=True)]


def make_patches(scenes, recipe, description, folder, *, workers=1, overwrite=False, strict=False, broken=None, progress=lambda n: None):
    """
    Cut `scenes` (sorted by name) into `folder` as a chip set, or go on with what an interrupted run has left there.

    description: chipset.json's content. broken: {scene: why} of images that could not be opened. progress(n) hears of n windows done.
    Returns a Tally. RunError where nothing could be cut, or with `strict` at the first window that can't be read.
    """
    folder, tally = Path(folder), Tally()
    ours_before = (folder / DESCRIPTION).exists()
    with ChipSetWriter(folder, description, overwrite=overwrite, companions=(SKIPPED,)) as chipset:
        fresh = not chipset.lines
        for split in sorted({s.split for s in scenes}):
            (folder / split).mkdir(exist_ok=True)
            remove_leftovers(folder / split)
        remove_leftovers(folder)
        if fresh and ours_before and overwrite:
            remove_strays(folder)
        with SkipLog(folder / SKIPPED, fresh and overwrite) as skips:
            refuse_changed_sources((*chipset.lines, *skips.lines), scenes, folder)
            done = keep_finished(chipset, skips, scenes, recipe)
            for line in (*chipset.lines, *skips.lines):
                tally.count(line)
            for _, why in sorted((broken or {}).items()):
                tally.unreadable[why] = 0
            progress(sum(done.values()))
            again = {s.name: done.get(s.name, 0) % len(starts(s.width, recipe.size, recipe.stride)) for s in scenes}
            try:
                for line in cut_in_order(scenes, recipe, folder, deal(scenes, recipe, workers, done), workers):
                    if again[line["scene"]]:  # finished earlier, in a row that had to be cut again for the windows after it
                        again[line["scene"]] -= 1
                        continue
                    (chipset if "file" in line else skips).add(line)
                    tally.count(line)
                    chipset.lines.clear()  # a large scene has more lines than memory should hold
                    progress(1)
                    if strict and line.get("reason") == "unreadable":
                        raise RunError(f"{line['source']} can't be read at window {line['window']} ({line['detail']}); --strict stops here")
            except KeyboardInterrupt as error:
                raise KeyboardInterrupt(f"{sum(tally.patches.values())} patches are safe; run the same command again to go on") from error
    if not tally.patches:
        why = f"no patch could be cut from {len(scenes)} scenes; left out: {describe_skipped(tally) or 'nothing'}"
        if tally.unreadable:
            raise RunError(why)
        raise UserError(f"{why}; check --nodata, --aoi, --max-cloud-cover and --min-valid against the images")
    return tally


def describe_skipped(tally):
    return ", ".join(f"{count} {reason}" for reason, count in tally.skipped.most_common())


class SkipLog:
    """skipped.jsonl: one line a window that became no patch, and why. Not there where there is none."""

    def __init__(self, path, afresh):
        self.path = path
        if afresh:
            path.unlink(missing_ok=True)
        self.lines = []
        if path.exists():
            for text in path.read_text(encoding="utf-8").splitlines(keepends=True):
                if not text.endswith("\n"):
                    break
                self.lines.append(json.loads(text))
        self.file = None

    def __enter__(self):
        return self

    def add(self, line):
        if self.file is None:
            self.file = open(self.path, "a", encoding="utf-8")
        self.file.write(json.dumps(line, ensure_ascii=False, separators=(", ", ": ")) + "\n")
        self.file.flush()

    def keep(self, count):
        """Forget all but the first `count` lines, and what a killed run wrote of another."""
        self.lines = self.lines[:count]
        if not self.lines:
            self.path.unlink(missing_ok=True)
            return
        with atomic_path(self.path) as temporary:
            text = "".join(json.dumps(line, ensure_ascii=False, separators=(", ", ": ")) + "\n" for line in self.lines)
            temporary.write_text(text, encoding="utf-8")

    def __exit__(self, *exception):
        if self.file is not None:
            self.file.close()


def keep_finished(chipset, skips, scenes, recipe):
    """
    Cut manifest and skipped.jsonl back to the windows, from the first on, that are finished without a gap: patches that are still there,
    and windows that were left out. Returns {scene's name: number of finished windows}; whole rows only, and unreadable windows stay
    finished.
    """
    made = {(line["scene"], line["window"][0], line["window"][1]): line for line in chipset.lines}
    left = {(line["scene"], line["window"][0], line["window"][1]) for line in skips.lines}
    done, n_made, n_left = {}, 0, 0
    for scene in scenes:
        finished = 0
        for col, row in windows_of(scene, recipe):
            line = made.get((scene.name, col, row))
            if line is not None:
                if not all((chipset.folder / line[key]).exists() for key in ("file", "mask")):
                    break
                n_made += 1
            elif (scene.name, col, row) in left:
                n_left += 1
            else:
                break
            finished += 1
        done[scene.name] = finished
        if finished < count_windows(scene, recipe):
            break
    if n_made < len(chipset.lines):
        chipset.keep(n_made)
    skips.keep(n_left)
    return done


def refuse_changed_sources(lines, scenes, folder):
    """Files that are not those from which earlier windows were cut, or left out, must not be mixed with them; nor may one come or go."""
    now = {s.name: s for s in scenes}
    seen = set()
    for line in lines:
        scene = now.get(line["scene"])
        if scene is None or line["scene"] in seen:
            continue
        seen.add(line["scene"])
        if "file" in line:
            old = stamps_of(line["source"], line["label_sources"], line.get("cloud_source"))
        else:
            old = line.get("stamps")
        new = stamps_of(scene.source, scene.label_sources, scene.cloud_source)
        if old is None or old == new:
            continue
        what = next(w for w in (*new, *old) if old.get(w) != new.get(w))
        path = {"image": scene.source, "clouds": scene.cloud_source, **scene.label_sources}.get(what)
        file = path and path["path"] + (".msk" if what in old and old[what][:2] == new[what][:2] else "")
        found = f"{file} {'has changed' if what in old else 'is new'}" if path else f"the {what} file of {scene.name} is gone"
        raise UserError(f"{found} since this scene was cut into {folder}; pass --overwrite to cut all again")


def remove_strays(folder):
    """Patches that a killed run of other settings wrote and its manifest doesn't list."""
    for split in ("train", "val", "test"):
        for path in (*folder.glob(f"{split}/*_r*_c*_image.npy"), *folder.glob(f"{split}/*_r*_c*_mask.npy")):
            path.unlink()


def estimate(scenes, recipe, most_windows=48):
    """
    What cutting would cost, from cutting the first rows of a few scenes without writing.

    Returns (windows, bytes, seconds of one worker); windows that would be rejected are counted as far as the sample shows their share.
    """
    total = sum(count_windows(s, recipe) for s in scenes)
    step = max(1, len(scenes) // 4)
    tried, kept, size, begin = 0, 0, 0, time.perf_counter()
    cutter = Cutter(scenes, recipe, None)
    for number in range(0, len(scenes), step):
        rows = rows_of(scenes[number], recipe)
        for line in cutter.lines((number, (rows[len(rows) // 2],))):
            tried += 1
            if "file" in line:
                kept += 1
                size += recipe.size**2 * (len(scenes[number].bands) * np.dtype(line["dtype"]).itemsize + len(recipe.layers)) + 2 * 128
        if tried >= most_windows:
            break
    cutter.close()
    seconds = time.perf_counter() - begin
    share = kept / max(1, tried)
    return round(total * share), round(total * size / max(1, tried)), total * seconds / max(1, tried)


def free_bytes(folder):
    """Room on the disk where `folder` is or will be."""
    folder = Path(folder).absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def mean_reflectance(tally, description):
    """[mean reflectance a band] over all valid pixels of a set."""
    scale = zip(tally.band_sum, description["divide_by"], description["offset"], strict=True)
    return [(total / tally.valid_pixels + offset) / divisor for total, divisor, offset in scale]
