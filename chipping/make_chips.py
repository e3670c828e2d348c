"""make-chips: pan/ms training pairs out of tiles, one scale coarser than the truth that they hold.

Windows are considered one after another, tile by tile in turn, at the places of a low-discrepancy sequence; those with too many
null pixels are passed over, the others become 0.pt, 1.pt, … in that order. The *work* is done in another order: all windows of a
tile together, by rows, so that a compressed block is decoded once; results wait in a hidden folder until their turn comes. That
is why chips are the same bytes for any number of workers, any folder order and any interruption. How a window becomes smaller
stands in chipping/chip_window.py.
"""

import contextlib
import json
import os
import shutil
from collections import Counter, defaultdict
from concurrent.futures import as_completed
from dataclasses import asdict
from pathlib import Path

import rasterio
from rasterio.errors import RasterioError

from chipping.chip_window import finish_with_blur, finish_with_means, read_ms_window
from chipping.chipset import ChipSetWriter, cut_unfinished_line, next_chip, read_lines
from chipping.null_blocks import expected_share, filled_blocks
from chipping.pan_sums import PanSums
from chipping.positions import count_places, place
from raster.colour import has_colour
from raster.pair import PairReader
from raster.source import is_remote, mask_stamps
from runtime.errors import RunError, UserError
from runtime.files import remove_leftovers, settings_hash, write_json, write_text
from runtime.workers import stopping, worker_pool
from vectors.footprint import footprint, pixel_corners

REJECTS_TO_RETIRE = 32  # windows in a row without one chip, after which a tile is given up
READ_ERRORS_TO_RETIRE = 3
CACHE_BYTES = 192 << 20  # of GDAL for decoded blocks, in each worker; less decodes shared blocks twice, more only takes memory
SKIPPED = "skipped.jsonl"
WORKER_MODULES = ("chipping.make_chips", "chipping.pan_chips")  # what workers have imported when they begin; the second one takes seconds
WAITING = ".considered"  # finished chips whose number isn't known yet
STAMPS = ("size", "mtime", "pan_size", "pan_mtime")  # of a source: what is compared to know its files again
MASK_STAMPS = ("mask_size", "mask_mtime", "pan_mask_size", "pan_mask_mtime")  # and its .msk files, where there are some


def tile_facts(tile):
    facts = {"name": tile.name, "area": list(tile.pair.area), "shift": list(tile.pair.shift), "step": tile.pair.step}
    if tile.pair.masked != (None, None):
        facts["masked"] = list(tile.pair.masked)
    return facts


def check_recipe(recipe, tiles):
    """UserError where no chip could be made at all."""
    if recipe.chip_size % recipe.ratio or recipe.chip_size < recipe.ratio:
        raise UserError(f"--chip-size {recipe.chip_size} is no multiple of the ratio of pan to ms, {recipe.ratio}")
    if not 0 <= recipe.minimum_valid <= 1:
        raise UserError(f"--minimum-valid is a share, 0 to 1, got {recipe.minimum_valid}")
    if not tiles:
        raise UserError("no usable tile is left; see the reasons above")
    if recipe.store != "bands" and not has_colour(recipe.bands):
        raise UserError(f"--store {recipe.store} needs bands named blue, green and red, these are {', '.join(recipe.bands)}; name them "
                        "with --bands, or pass --store bands")


# ------------------------------------------------------------------------------------------------ one worker

OPEN = {}  # the last tile of this process, still open: GDAL's block cache belongs to the open file


def reader_for(pair):
    """(PairReader, PanSums) of a pair."""
    if pair not in OPEN:
        close_readers()
        stack = contextlib.ExitStack()
        reader = stack.enter_context(PairReader(pair))
        OPEN[pair] = reader, PanSums(reader), stack
        stack.enter_context(rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES))
    return OPEN[pair][:2]


def close_readers():
    while OPEN:
        OPEN.popitem()[1][-1].close()


def consider(task):
    """[verdict] of a task, see verdicts_of: for a pool, whose results can't come one by one."""
    return list(verdicts_of(task))


def verdicts_of(task):
    """
    Work on windows of one tile. task: (recipe, tile, [(i, left, top)], folder or None to check only). Yields verdicts: dicts with
    i, left, top, valid_ms, valid_pan and, for windows without a chip, reason. Each finished chip and verdict waits in the folder.
    """
    recipe, tile, windows, folder = task
    try:
        origin = origin_of(recipe, tile)
        reader, pan_sums = reader_for(tile.pair)
    except (UserError, FileNotFoundError) as error:
        yield from (verdict_of(i, x, y, reason="read-error", detail=str(error)) for i, x, y in windows)
        return
    for i, left, top in sorted(windows, key=lambda w: (w[2], w[1])):
        if stopping():
            return
        yield recall(folder, i, origin) or consider_window(reader, pan_sums, recipe, tile, i, left, top, folder, origin)


def consider_window(reader, pan_sums, recipe, tile, i, left, top, folder, origin):
    """One window's verdict, after its chip is in the folder if it makes one. Pan is not looked at where ms has too many nulls."""
    valid_ms = None
    try:
        valid_ms, ms = read_ms_window(reader, recipe, left, top)
        if ms is None:
            return verdict_of(i, left, top, valid_ms, reason="nulls")
        if recipe.reduction == "box":
            valid_pan, parts = finish_with_means(pan_sums, recipe, left, top, valid_ms, ms)
        else:
            valid_pan, parts = finish_with_blur(reader, recipe, left, top, ms)
    except RasterioError as error:
        path = tile.pair.ms if valid_ms is None else tile.pair.pan
        detail = f"{path}: {' '.join(str(error.__cause__ or error).split())[:200]}"
        return verdict_of(i, left, top, valid_ms, reason="read-error", detail=detail)
    verdict = verdict_of(i, left, top, valid_ms, valid_pan, reason=None if parts else "nulls")
    if parts and folder:
        from chipping.pan_chips import encode_chip, write_chip  # and torch with it, which a parent of workers can do without

        lat, lon = window_centre(tile, recipe, left, top)
        meta = {"tile": tile.name, "cid": tile.cid, "i": i, "left": left, "top": top}
        if lat is not None:
            meta |= {"lat": lat, "lon": lon}
        pan, mul, bands, valid = parts
        write_chip(folder / f"{i}.pt", encode_chip(pan, mul, bands, valid, meta, recipe.bands, recipe.store, recipe.dtype))
        write_json(folder / f"{i}.json", {**verdict, "origin": origin}, sync=False)
    return verdict


def verdict_of(i, left, top, valid_ms=None, valid_pan=None, reason=None, detail=None):
    fields = {"i": i, "left": left, "top": top, "valid_ms": rounded(valid_ms), "valid_pan": rounded(valid_pan), "reason": reason}
    return fields | ({"detail": detail} if detail else {})


def rounded(share):
    return None if share is None else round(share, 6)


def origin_of(recipe, tile):
    """A hash of all that decides a tile's chips: the recipe, where its windows lie, and its files by their stamps."""
    source = source_of(tile.pair)
    return settings_hash([asdict(recipe), tile_facts(tile), [source[key] for key in (*STAMPS, *MASK_STAMPS) if key in source]])


def recall(folder, i, origin):
    """The verdict on window i that an interrupted run left, with its chip, or None, also where it is of another origin."""
    if folder is None or not (folder / f"{i}.json").exists() or not (folder / f"{i}.pt").exists():
        return None
    try:
        verdict = json.loads((folder / f"{i}.json").read_text(encoding="utf-8"))
    except ValueError:  # a power cut came before the disk had it
        return None
    return verdict if verdict.pop("origin", None) == origin else None


def window_centre(tile, recipe, left, top):
    """(lat, lon) of the middle of a window, 5 decimals (about a metre); (None, None) without georeference."""
    pair, half = tile.pair, recipe.window / 2
    corners = pixel_corners(pair.transform, (pair.area[0] + left + half, pair.area[1] + top + half, 0, 0)) if pair.crs else None
    place_ = footprint(pair.crs, corners) if pair.crs else None
    return (None, None) if place_ is None else (round(place_[0][1], 5), round(place_[0][0], 5))


# ------------------------------------------------------------------------------------------------ the walk


class Walk:
    """Which windows come next, and what became of those before: the state that a continued run rebuilds from its two files."""

    def __init__(self, tiles, recipe):
        self.tiles, self.recipe = tiles, recipe
        self.cursor = 0
        self.rejects, self.errors = defaultdict(int), defaultdict(int)
        self.successes = set()
        self.retired = set()
        self.accepted = 0  # chips so far, those before --starting-from included
        self.used = defaultdict(set)  # tile: (left, top) of its windows so far; none is taken twice
        self.blocks = {}  # path of ms: what filled_blocks tells of it

    def room(self, tile):
        """(free_x, free_y, side) of a tile's windows, see chipping/positions.py."""
        side = self.recipe.window
        return tile.pair.area[2] - side, tile.pair.area[3] - side, side

    def position(self, i):
        """(tile, left, top) of window i; left is None past the end of a grid."""
        tile = self.tiles[i % len(self.tiles)]
        xy = place(self.recipe.sampler, tile.name, i // len(self.tiles), *self.room(tile))
        return (tile, *xy) if xy else (tile, None, None)

    def next_batch(self, wanted):
        """
        Windows (i, tile, left, top) in order, of which about `wanted` will make a chip; fewer where a tile may have to be retired first.

        Those that seem to be null come on top: a window that takes their place later would have its blocks decoded a second time.
        """
        batch, hopeful, pending = [], 0, defaultdict(set)
        i = self.cursor
        while hopeful < wanted and len(batch) < 2 * wanted + len(self.tiles) and len(self.retired) < len(self.tiles):
            tile, left, top = self.position(i)
            i += 1
            if tile.name in self.retired:
                continue
            coming = pending[tile.name]
            if left is None or len(self.used[tile.name]) + len(coming) == count_places(self.recipe.sampler, *self.room(tile)):
                if coming:
                    break
                self.retired.add(tile.name)
                continue
            if (left, top) in self.used[tile.name] or (left, top) in coming:
                continue
            if tile.name not in self.successes and len(coming) >= REJECTS_TO_RETIRE - self.rejects[tile.name]:
                break
            coming.add((left, top))
            batch.append((i - 1, tile, left, top))
            hopeful += self.seems_filled(tile.pair, left, top)
        return batch

    def seems_filled(self, pair, left, top):
        """Does a window of ms look as if enough of it were not null?"""
        if pair.ms not in self.blocks:
            try:
                self.blocks[pair.ms] = filled_blocks(pair.ms)
            except (UserError, RasterioError):
                self.blocks[pair.ms] = None  # the worker that opens it will say so
        place_ = ((offset + at) * pair.step for offset, at in zip(pair.area[:2], (left, top), strict=True))
        return expected_share(self.blocks[pair.ms], *place_, self.recipe.window * pair.step) >= self.recipe.minimum_valid

    def record(self, i, tile_name, place_, reason):
        """Take window i at (left, top) as done; reason None or "before-start" for one that made a chip."""
        self.cursor = i + 1
        self.used[tile_name].add(place_)
        if reason in (None, "before-start"):
            self.successes.add(tile_name)
            self.accepted += 1
            return
        self.rejects[tile_name] += 1
        self.errors[tile_name] += reason == "read-error"
        no_success = tile_name not in self.successes and self.rejects[tile_name] >= REJECTS_TO_RETIRE
        if no_success or self.errors[tile_name] >= READ_ERRORS_TO_RETIRE:
            self.retired.add(tile_name)


def make_chips(tiles, recipe, folder, count, starting_from=None, workers=1, overwrite=False, strict=False, on_chip=None, note=None,
               on_verdict=None):
    """
    Write chips starting_from … starting_from + count - 1 of the endless run over `tiles` into `folder`.

    starting_from: None continues where the folder stands and makes it hold `count` chips. strict: a window that can't be read is a
    RunError. on_chip(line): called for each new chip. on_verdict(verdict): called for each window when it has been looked at, long before
    it is known which chip it becomes. note(text): called for each skipped window. Returns {"made", "present", "considered",
    "skipped": {reason: n}, "unreadable": {tile: n}, "first", "retired"}; the last three tell of earlier runs too. RunError when the tiles
    are used up before that. Chips that earlier runs have made and that are no longer there are made again.
    """
    check_recipe(recipe, tiles)
    folder = Path(folder)
    tiles = sorted(tiles, key=lambda t: t.name)
    settings = {**{k: v for k, v in asdict(recipe).items()}, "tiles": [tile_facts(t) for t in tiles]}
    description = {
        "kind": "pansharpen", "settings": settings, "chip_size": recipe.chip_size, "bands": list(recipe.bands), "ratio": recipe.ratio,
        "store": recipe.store, "dtype": recipe.dtype, "divide_by": recipe.divide_by, "offset": recipe.offset, "nodata": 0,
        "sampler": recipe.sampler, "seed": None,
    }
    with ChipSetWriter(folder, description, overwrite, (SKIPPED, WAITING), next_chip) as chipset:
        remove_leftovers(folder)
        sources = {tile.name: source_of(tile.pair) for tile in tiles}
        refuse_changed_sources(chipset.lines, sources, folder)
        first, start = where_to_start(chipset.lines, starting_from, folder)
        goal = start + count
        walk = Walk(tiles, recipe)
        before = finished_windows(chipset.lines, first, folder, sources)
        for line in before:
            walk.record(line["i"], line["tile"], (line["left"], line["top"]), line["reason"])
        summary = {"made": 0, "present": len(chipset.lines), "considered": 0, "first": first, "skipped": defaultdict(int),
                   "unreadable": defaultdict(int, Counter(line["tile"] for line in before if line["reason"] == "read-error"))}
        waiting = folder / WAITING
        waiting.mkdir(exist_ok=True)
        remove_leftovers(waiting)
        with open(folder / SKIPPED, "a", encoding="utf-8") as skipped, workers_of(workers) as run:
            for line in remake_missing(chipset.lines, tiles, recipe, folder, run, workers):
                summary["made"] += 1
                summary["present"] -= 1
                if on_chip:
                    on_chip(line)
            while walk.accepted < goal:
                checking = walk.accepted < first
                enough = first if checking else goal
                batch = walk.next_batch(enough - walk.accepted)
                if not batch:
                    break
                verdicts = run(split_work(batch, recipe, None if checking else waiting, workers), on_verdict)
                for i, tile, left, top in batch:
                    if walk.accepted == enough:
                        break  # more windows were fine than it seemed; those after this one are none of ours
                    if tile.name in walk.retired:
                        continue
                    verdict = verdicts[i]
                    summary["considered"] += 1
                    number = walk.accepted
                    reason = "before-start" if checking and verdict["reason"] is None else verdict["reason"]
                    if reason == "read-error":
                        if strict:
                            raise RunError(f"window {i} of {tile.name} can't be read: {verdict['detail']} (--strict)")
                        summary["unreadable"][tile.name] += 1
                    if reason is None:
                        line = manifest_line(number, tile, recipe, verdict, sources[tile.name])
                        os.replace(waiting / f"{i}.pt", folder / line["file"])
                        chipset.add(line)
                        summary["made"] += 1
                        if on_chip:
                            on_chip(line)
                    else:
                        line = {"i": i, "tile": tile.name, **{k: v for k, v in verdict.items() if k != "i"}, "reason": reason,
                                "source": sources[tile.name]}
                        skipped.write(json.dumps(line) + "\n")
                        skipped.flush()
                        if reason != "before-start":
                            summary["skipped"][reason] += 1
                        if note and reason != "before-start":
                            note(f"window {i} of {tile.name} skipped: {reason} {verdict.get('detail', '')}".rstrip())
                    walk.record(i, tile.name, (left, top), reason)
        shutil.rmtree(waiting, ignore_errors=True)
    summary["retired"] = sorted(walk.retired)
    if walk.accepted < goal:
        reasons = Counter(line["reason"] for line in before if line["reason"] not in (None, "before-start")) + Counter(summary["skipped"])
        reasons = ", ".join(f"{n} x {r}" for r, n in sorted(reasons.items())) or "every place for a window is used"
        raise RunError(f"made {max(0, walk.accepted - start)} of {count} chips: no tile is left to try ({reasons})")
    return summary


def where_to_start(lines, starting_from, folder):
    """(number of the folder's first chip, number of the first chip that is asked for). UserError where a gap would be left between."""
    first = int(Path(lines[0]["file"]).stem) if lines else (starting_from or 0)
    start = first if starting_from is None else starting_from
    if lines and not first <= start <= first + len(lines):
        raise UserError(f"{folder} holds chips {first} to {first + len(lines) - 1}; --starting-from {start} leaves a gap: pass "
                        f"{first + len(lines)}, or another folder")
    return first, start


def finished_windows(lines, first, folder, sources):
    """
    Lines of all windows that earlier runs were done with, in order, each with a reason. lines: of the manifest. sources: {tile: source}.

    A run that began further on has left windows before its start unmade. Where no chip came of it, and an earlier start is asked for now,
    nothing of it counts. What was left out of files that have changed since, because it could not be read or was null, doesn't either.
    """
    cut_unfinished_line(folder / SKIPPED)
    skipped = read_lines(folder / SKIPPED)
    if not lines and sum(line["reason"] == "before-start" for line in skipped) > first:
        (folder / SKIPPED).unlink()
        skipped = []
    refuse_changed_sources([line for line in skipped if line["reason"] == "before-start" and "source" in line], sources, folder)
    kept = [line for line in skipped if not changed_file(line.get("source", {}), sources[line["tile"]])]
    if len(kept) < len(skipped):
        write_text(folder / SKIPPED, "".join(json.dumps(line) + "\n" for line in kept))
        skipped = kept
    return sorted([*({**line, "reason": None} for line in lines), *skipped], key=lambda line: line["i"])


def refuse_changed_sources(lines, sources, folder):
    """Rasters of a tile's name that are not those of which its earlier chips were made must not be mixed with them."""
    for tile, old in {line["tile"]: line["source"] for line in lines}.items():
        if path := changed_file(old, sources[tile]):
            raise UserError(f"{path} is not, or no longer, the file of which chips in {folder} were made; choose another folder, or "
                            "pass --overwrite to make all again")


def changed_file(old, new):
    """
    The path of what has changed between two sources of a tile, or None. What the older one does not state is not compared, but for mask
    files: one that it does not state was not there.
    """
    changed = [key for key in STAMPS if key in old and old[key] != new[key]] + [k for k in MASK_STAMPS if old.get(k) != new.get(k)]
    if not changed:
        return None
    return new["pan" if changed[0].startswith("pan") else "path"] + (".msk" if changed[0] in MASK_STAMPS else "")


def remake_missing(lines, tiles, recipe, folder, run, workers):
    """Make the chips of manifest lines again whose files are no longer there; yields these lines. RunError where one can't be."""
    there = set(os.listdir(folder))
    missing = [line for line in lines if line["file"] not in there]
    if not missing:
        return
    by_name = {tile.name: tile for tile in tiles}
    batch = [(line["i"], by_name[line["tile"]], line["left"], line["top"]) for line in missing]
    verdicts = run(split_work(batch, recipe, folder / WAITING, workers), None)
    for line in missing:
        verdict = verdicts[line["i"]]
        if verdict["reason"] is not None:
            why = verdict.get("detail", verdict["reason"])
            raise RunError(f"{folder / line['file']} is gone and can't be made again: window {line['i']} of {line['tile']}, {why}; "
                           "repair the source, or pass --overwrite to make all again")
        os.replace(folder / WAITING / f"{line['i']}.pt", folder / line["file"])
        yield line


def manifest_line(number, tile, recipe, verdict, source):
    pair, left, top = tile.pair, verdict["left"], verdict["top"]
    window = (pair.area[0] + left, pair.area[1] + top, recipe.window, recipe.window)
    corners = pixel_corners(pair.transform, window) if pair.crs else None
    lat, lon = window_centre(tile, recipe, left, top)
    line = {
        "file": f"{number}.pt", "i": verdict["i"], "tile": tile.name, "cid": tile.cid, "left": left, "top": top,
        "valid_pan": verdict["valid_pan"], "valid_ms": verdict["valid_ms"],
        "valid_fraction": min(verdict["valid_pan"], verdict["valid_ms"]),
        "lat": lat, "lon": lon, "source": source, "window": list(window),
        "crs": pair.crs.to_string() if pair.crs else None, "transform": list(tuple(pair.transform)[:6]) if pair.transform else None,
        "footprint": footprint(pair.crs, corners) if pair.crs else None,
        "cloud_cover": tile.properties.get("tile:clouds_percent"),
    }
    return line


def source_of(pair):
    """The files of a pair, with size and modification time: None for what lies elsewhere. Of .msk files too, where there are some."""
    source = {"pan": pair.pan, "path": pair.ms}
    for path, prefix in ((pair.ms, ""), (pair.pan, "pan_")):
        status = None if is_remote(path) else os.stat(path)
        source |= {f"{prefix}size": status and status.st_size, f"{prefix}mtime": status and status.st_mtime}
        source |= {f"{prefix}{key}": value for key, value in mask_stamps(path).items()}
    return source


def split_work(batch, recipe, folder, workers):
    """
    Tasks for `consider`: the windows of a tile from top to bottom, all in one task or, so that all workers are busy to the end, in several.

    Tasks of one tile decode and add up what they share twice, so only the tiles that are left over when each worker has had as many whole
    ones as the others are split, and into no lower pieces than two windows are high, unless workers would have nothing to do.
    """
    by_tile = defaultdict(list)
    tiles = {}
    for i, tile, left, top in batch:
        by_tile[tile.name].append((i, left, top))
        tiles[tile.name] = tile
    names = sorted(by_tile, key=lambda name: (-len(by_tile[name]), name))  # large tasks first: small ones even out the end
    whole = len(names) // workers * workers
    tasks = [(recipe, tiles[name], by_tile[name], folder) for name in names[:whole]]
    left_over = names[whole:]
    for name in left_over:
        windows = sorted(by_tile[name], key=lambda w: (w[2], w[1]))
        least = -(-workers // len(left_over))
        height = windows[-1][2] - windows[0][2] + recipe.window
        pieces = min(len(windows), max(least, min(4 * least, height // (2 * recipe.window))))
        size = -(-len(windows) // pieces)
        tasks += [(recipe, tiles[name], windows[k : k + size], folder) for k in range(0, len(windows), size)]
    return tasks


@contextlib.contextmanager
def workers_of(count):
    """A function (tasks, on_verdict) -> {i: verdict}: in this process, or on a pool of `count` processes."""
    if count <= 1:
        try:
            yield lambda tasks, on_verdict: gather((v for task in tasks for v in verdicts_of(task)), on_verdict)
        finally:
            close_readers()
        return
    with worker_pool(count, WORKER_MODULES, one_thread) as pool:

        def run(tasks, on_verdict):
            futures = as_completed([pool.submit(consider, task) for task in tasks])
            return gather((v for future in futures for v in future.result()), on_verdict)

        yield run


def gather(verdicts, on_verdict):
    """{i: verdict} of verdicts as they come."""
    found = {}
    for verdict in verdicts:
        found[verdict["i"]] = verdict
        if on_verdict:
            on_verdict(verdict)
    return found


def one_thread():
    import torch

    torch.set_num_threads(1)
