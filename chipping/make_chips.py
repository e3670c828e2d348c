"""
Makes pan/ms training pairs out of tiles, one scale coarser than the truth that they hold.

Windows are judged one after another, tile by tile in turn, at the places of a low-discrepancy sequence (chipping/window_walk.py); those
with too much nodata are passed over, the others become 0.pt, 1.pt, … in that order. The work is done in another order: all windows of a
tile together, row by row, so that each compressed block is decoded once (chipping/chip_worker.py, chip_pool.py); finished chips are stored
in a hidden folder until their number is known. So chips are the same bytes for any number of workers, any order of files and any
interruption. chipping/chip_window.py reduces a window.
"""

import math
import os
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from chipping.chip_pool import split_work, workers_of
from chipping.chip_worker import window_centre
from chipping.chipset import DEFAULT_OPTIONS, MANIFEST, SKIPPED, ChipSetWriter, SkipLog, next_chip, pansharpen_description
from chipping.sources import has_changed, refuse_changed_tiles, source_of_pair, tile_settings
from chipping.window_walk import BEFORE_START, READ_ERROR, Walk
from raster.colour import has_colour
from runtime.errors import RunError, UserError
from runtime.files import make_own_folder, remove_leftovers, remove_tree
from runtime.names import path_inside, require_real_folder
from vectors.footprint import footprint, pixel_corners

WAITING = ".considered"  # folder of finished chips whose number isn't known yet
SKIP_NEEDS = ("i", "tile", "left", "top", "reason")  # fields of a line of skipped.jsonl that a run reads
NEEDS = ("file", "i", "tile", "left", "top", "source")  # of manifest.jsonl


@dataclass(frozen=True)
class Listeners:
    """
    Who hears of a run. chip(manifest line): for each new chip. skipped(text): for each window that is left out. verdict(verdict): for each
    window as soon as it is judged, before it is known which chip it becomes.
    """

    chip: Callable = lambda _: None
    skipped: Callable = lambda _: None
    verdict: Callable = lambda _: None


NO_LISTENERS = Listeners()


def make_chips(tiles, recipe, folder, count, starting_from=None, options=DEFAULT_OPTIONS, listeners=NO_LISTENERS):
    """
    Write chips starting_from … starting_from + count - 1 of the endless run over `tiles` into `folder`.

    starting_from: None continues the folder and fills it up to `count` chips. options.strict: a window that cannot be read is a RunError.
    Returns {"made", "present", "considered", "skipped": {reason: windows}, "unreadable": {tile: windows}, "first", "retired"}; the last
    three count earlier runs too. RunError when no tile is left before there are that many. Chips of earlier runs whose files are gone are
    made again.
    """
    check_recipe(recipe, tiles)
    folder, tiles = Path(folder), sorted(tiles, key=lambda tile: tile.name)
    with (
        ChipSetWriter(folder, description_of(recipe, tiles), options.overwrite, (SKIPPED, WAITING), next_chip, NEEDS) as chipset,
        SkipLog(folder / SKIPPED, keep_empty=True, ensure_ascii=True, needs=SKIP_NEEDS) as skips,
        workers_of(options.workers) as judge,
    ):
        run = ChipRun(tiles, recipe, chipset, skips, listeners, options.strict)
        first, start = where_to_start(chipset.lines, starting_from, folder)
        run.resume(first)
        waiting = folder / WAITING
        make_own_folder(waiting)
        remove_leftovers(waiting)
        if len(chipset.lines) < (asked := start - first + count):
            chipset.expect(asked)
        run.remake_missing(lambda batch: judge(split_work(batch, recipe, waiting, options.workers)))
        while run.walk.accepted < start + count:
            before_start = run.walk.accepted < first
            goal = first if before_start else start + count
            batch = run.walk.next_batch(goal - run.walk.accepted)
            if not batch:
                break
            verdicts = judge(split_work(batch, recipe, None if before_start else waiting, options.workers), listeners.verdict)
            run.take_batch(batch, verdicts, goal, before_start)
        if run.walk.accepted >= start + count:
            chipset.expect(None)
        remove_tree(waiting)
    run.summary["retired"] = sorted(run.walk.retired)
    if run.walk.accepted < start + count:
        reasons = run.earlier_reasons + Counter(run.summary["skipped"])
        why = ", ".join(f"{n} x {reason}" for reason, n in sorted(reasons.items())) or "every place for a window is used"
        there = len(run.chipset.lines)
        remains = f"; {folder} has {there}, and training takes them as they are" if there else ""
        raise RunError(f"made {max(0, run.walk.accepted - start)} of {count} chips: no tile is left to try ({why}){remains}")
    return run.summary


def check_recipe(recipe, tiles):
    """UserError where no chip could be made at all."""
    if recipe.chip_size % recipe.ratio or recipe.chip_size < recipe.ratio:
        raise UserError(f"--chip-size {recipe.chip_size} is no multiple of the ratio of pan to ms, {recipe.ratio}")
    if not 0 <= recipe.minimum_valid <= 1:
        raise UserError(f"--minimum-valid is a share from 0 to 1, got {recipe.minimum_valid}")
    if not tiles:
        raise UserError("no tile can be used; see the reasons above")
    if recipe.store != "bands" and not has_colour(recipe.bands):
        raise UserError(f"--store {recipe.store} needs bands named blue, green and red, these are {', '.join(recipe.bands)}; name them "
                        "with --bands, or pass --store bands")


def description_of(recipe, tiles):
    """chipset.json's content. tiles: sorted by name."""
    return pansharpen_description(
        {**asdict(recipe), "tiles": [tile_settings(tile) for tile in tiles]},
        chip_size=recipe.chip_size, bands=recipe.bands, ratio=recipe.ratio, store=recipe.store, dtype=recipe.dtype,
        divide_by=recipe.divide_by, offset=recipe.offset, sampler=recipe.sampler, seed=None,
    )


def where_to_start(lines, starting_from, folder):
    """(number of the folder's first chip, number of the first chip that is asked for). UserError where a gap would be left between."""
    first = int(Path(lines[0]["file"]).stem) if lines else (starting_from or 0)
    start = first if starting_from is None else starting_from
    if lines and not first <= start <= first + len(lines):
        end = first + len(lines)
        raise UserError(f"{folder} holds chips {first} to {end - 1}; --starting-from {start} leaves a gap: pass {end}, or another folder")
    return first, start


class ChipRun:
    """
    The state of a run: the walk over the windows, and the lists to which each of them is added in the walk's order.

    tiles: sorted by name. chipset, skips: open. UserError where tiles' files are not those of which the set's chips were made.
    """

    def __init__(self, tiles, recipe, chipset, skips, listeners, strict):
        self.tiles, self.recipe, self.chipset, self.skips, self.listeners, self.strict = tiles, recipe, chipset, skips, listeners, strict
        self.folder = chipset.folder
        self.walk = Walk(tiles, recipe)
        self.sources = {tile.name: source_of_pair(tile.pair) for tile in tiles}
        refuse_changed_tiles(chipset.lines, self.sources, self.folder)

    def resume(self, first):
        """Take over what earlier runs have done. first: number of the folder's first chip."""
        before = self.finished_windows(first)
        for place, line in enumerate(before):
            if line["i"] > self.last_known and not self.walk.is_next(line["i"]):
                before = before[:place]
                self.forget_after(before)
                break
            self.walk.record(line["i"], line["tile"], (line["left"], line["top"]), line["reason"])
        self.earlier_reasons = Counter(line["reason"] for line in before if line["reason"] not in (None, BEFORE_START))
        unreadable = Counter(line["tile"] for line in before if line["reason"] == READ_ERROR)
        self.summary = {
            "made": 0, "present": len(self.chipset.lines), "considered": 0, "first": first, "skipped": defaultdict(int),
            "unreadable": defaultdict(int, unreadable),
        }

    @property
    def last_known(self):
        """The window up to which neither of the two files has lost a line; infinity where none is torn."""
        ends = [lines[-1]["i"] if lines else -1 for lines, torn in (
            (self.chipset.lines, self.chipset.torn or not self.chipset.lines), (self.skips.lines, self.skips.torn)) if torn]
        return min(ends, default=math.inf)

    def forget_after(self, before):
        """Drop the lines of windows after those of `before`: a power cut has lost one of their number, and they are judged again."""
        self.chipset.keep(sum(line["reason"] is None for line in before))
        self.skips.rewrite([line for line in before if line["reason"] is not None])

    def finished_windows(self, first):
        """
        Lines of all windows that earlier runs have finished, in order, each with a reason (None for a chip).

        A run with a later start has left windows before it unmade. Where no chip came of that run and an earlier start is asked for now,
        none of its lines count. Neither do windows that were left out of files which have changed since.
        """
        skipped, lines = self.skips.lines, self.chipset.lines
        if not lines and sum(line["reason"] == BEFORE_START for line in skipped) > first:
            skipped = []
        refuse_changed_tiles([x for x in skipped if x["reason"] == BEFORE_START and "source" in x], self.sources, self.folder)
        kept = [line for line in skipped if not has_changed(line.get("source", {}), self.sources[line["tile"]])]
        if len(kept) < len(self.skips.lines):
            self.skips.rewrite(kept)
        return sorted([*({**line, "reason": None} for line in lines), *kept], key=lambda line: line["i"])

    def remake_missing(self, judge):
        """
        Make the chips of manifest lines again whose files are gone. judge(batch) -> {i: verdict} of windows (i, tile, left, top). RunError
        where one cannot be made.
        """
        there = set(os.listdir(self.folder))
        missing = [line for line in self.chipset.lines if line["file"] not in there]
        if not missing:
            return
        for line in missing:
            for place, name in ((self.folder, line["file"]), (self.folder / WAITING, f"{line['i']}.pt")):
                require_real_folder(path_inside(place, name, self.folder / MANIFEST).parent, place)
        by_name = {tile.name: tile for tile in self.tiles}
        verdicts = judge([(line["i"], by_name[line["tile"]], line["left"], line["top"]) for line in missing])
        for line in missing:
            verdict = verdicts[line["i"]]
            if verdict["reason"] is not None:
                why = verdict.get("detail", verdict["reason"])
                file = self.folder / line["file"]
                raise RunError(f"{file} is gone and cannot be made again ({line['tile']}: {why}); repair the source, or pass --overwrite")
            self.put_in_place(line)
            self.summary["present"] -= 1

    def take_batch(self, batch, verdicts, goal, before_start):
        """
        List the windows of a batch until `goal` chips are accepted. batch: [(i, tile, left, top)]; verdicts: {i: verdict}; before_start:
        they would be chips before the first that is asked for.
        """
        for i, tile, left, top in batch:
            if self.walk.accepted == goal:
                break  # more windows make a chip than was expected; those that remain belong to a later run
            if tile.name in self.walk.retired:
                continue
            verdict = verdicts[i]
            self.summary["considered"] += 1
            reason = BEFORE_START if before_start and verdict["reason"] is None else verdict["reason"]
            if reason is None:
                line = manifest_line(self.walk.accepted, tile, self.recipe, verdict, self.sources[tile.name])
                self.put_in_place(line)
                self.chipset.add(line)
            else:
                self.leave_out(tile, verdict, reason)
            self.walk.record(i, tile.name, (left, top), reason)

    def put_in_place(self, line):
        """Give a finished chip its name."""
        os.replace(self.folder / WAITING / f"{line['i']}.pt", self.folder / line["file"])
        self.summary["made"] += 1
        self.listeners.chip(line)

    def leave_out(self, tile, verdict, reason):
        if reason == READ_ERROR:
            if self.strict:
                raise RunError(f"window {verdict['i']} of {tile.name} cannot be read: {verdict['detail']} (--strict)")
            self.summary["unreadable"][tile.name] += 1
        place = {"i": verdict["i"], "tile": tile.name}
        self.skips.add({**place, **verdict, "reason": reason, "source": self.sources[tile.name]})
        if reason != BEFORE_START:
            self.summary["skipped"][reason] += 1
            self.listeners.skipped(f"window {verdict['i']} of {tile.name} skipped: {reason} {verdict.get('detail', '')}".rstrip())


def manifest_line(number, tile, recipe, verdict, source):
    pair, left, top = tile.pair, verdict["left"], verdict["top"]
    window = (pair.area[0] + left, pair.area[1] + top, recipe.window, recipe.window)
    corners = pixel_corners(pair.transform, window) if pair.crs else None
    lat, lon = window_centre(tile, recipe, left, top)
    return {
        "file": f"{number}.pt", "i": verdict["i"], "tile": tile.name, "cid": tile.cid, "left": left, "top": top,
        "valid_pan": verdict["valid_pan"], "valid_ms": verdict["valid_ms"],
        "valid_fraction": min(verdict["valid_pan"], verdict["valid_ms"]),
        "lat": lat, "lon": lon, "source": source, "window": list(window),
        "crs": pair.crs.to_string() if pair.crs else None, "transform": list(tuple(pair.transform)[:6]) if pair.transform else None,
        "footprint": footprint(pair.crs, corners) if pair.crs else None,
        "cloud_cover": tile.properties.get("tile:clouds_percent"),
    }
