"""make-chips: pan/ms training pairs out of tiles, one scale coarser than the truth that they hold.

Windows are considered one after another, tile by tile in turn, at the places of a low-discrepancy sequence; those with too many
null pixels are passed over, the others become 0.pt, 1.pt, … in that order. The *work* is done in another order: all windows of a
tile together, by rows, so that a compressed block is decoded once; results wait in a hidden folder until their turn comes. That
is why chips are the same bytes for any number of workers, any folder order and any interruption.

Reducing: the truth is the ms window itself or, with extra > 1, its box means of extra x extra pixels; `mul` is the truth reduced
by the ratio of pan to ms, `pan` the pan window reduced to the grid of the truth. Box means are what the ARD road was designed
with, exact and cheap, and the extra factor 2 hides that they alias. Small pairs have no pixels to spare for an extra factor, so
there the filters imitate the sensors' blur (Wald's protocol); with box means a network would learn from inputs crisper
than any sensor delivers.
"""

import contextlib
import json
import multiprocessing
import os
import shutil
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import rasterio
from rasterio.errors import RasterioError

from chipping.chipset import ChipSetWriter
from chipping.pan_chips import encode_chip, write_chip
from chipping.positions import place
from raster.footprint import footprint, pixel_corners
from raster.pair import PairReader, is_null
from raster.source import is_remote
from runtime.errors import RunError, UserError
from runtime.files import remove_leftovers, write_json

REJECTS_TO_RETIRE = 32  # windows in a row without one chip, after which a tile is given up
READ_ERRORS_TO_RETIRE = 3
STRIP_ROWS = 128  # ms rows of pan that are read at a time
CACHE_BYTES = 192 << 20  # of GDAL for decoded blocks, in each worker; less decodes shared blocks twice, more only takes memory
SKIPPED = "skipped.jsonl"
WAITING = ".considered"  # finished chips whose number isn't known yet


@dataclass(frozen=True)
class ChipRecipe:
    """What decides a chip's bytes. sides in pixels of the truth; divide_by and offset as in reflectance = (value + offset) / divide_by."""

    chip_size: int
    ratio: int
    bands: tuple
    extra: int = 2
    minimum_valid: float = 0.75
    sampler: str = "r2"
    reduction: str = "box"  # or "mtf"
    store: str = "bands"  # or "oklab", "both"
    dtype: str = "uint16"  # or "float32"
    divide_by: float = 10_000.0
    offset: float = 0.0

    @property
    def window(self):
        """ms pixels a side of a chip's window."""
        return self.chip_size * self.extra


def tile_facts(tile):
    return {"name": tile.name, "area": list(tile.pair.area), "shift": list(tile.pair.shift), "step": tile.pair.step}


def check_recipe(recipe, tiles):
    """UserError where no chip could be made at all."""
    if recipe.chip_size % recipe.ratio or recipe.chip_size < recipe.ratio:
        raise UserError(f"--chip-size {recipe.chip_size} is no multiple of the ratio of pan to ms, {recipe.ratio}")
    if not 0 <= recipe.minimum_valid <= 1:
        raise UserError(f"--minimum-valid is a share, 0 to 1, got {recipe.minimum_valid}")
    if not tiles:
        raise UserError("no usable tile is left; see the reasons above")


# ------------------------------------------------------------------------------------------------ one window


def box_sum(values, side):
    """(C, H, W) -> (C, H / side, W / side) sums, exact for integers (uint32) and in float64 for floats."""
    wide = np.float64 if values.dtype.kind == "f" else np.uint32
    rows = values[:, ::side].astype(wide)
    for i in range(1, side):
        rows += values[:, i::side]
    total = rows[:, :, ::side].copy()
    for i in range(1, side):
        total += rows[:, :, i::side]
    return total


def to_reflectance(total, count, recipe):
    """Sums of `count` stored values -> mean reflectance, float32, one rounding."""
    if recipe.offset == 0:
        return total.astype(np.float32) / np.float32(count * recipe.divide_by)
    return ((total / count + recipe.offset) / recipe.divide_by).astype(np.float32)


def count_valid(values, nodata):
    """Number of the samples that are not null, over all bands."""
    if nodata in (None, 0) and values.dtype.kind != "f":
        return np.count_nonzero(values)
    return values.size - np.count_nonzero(is_null(values, nodata))


def valid_share(values, nodata):
    """Share of the samples that are not null, over all bands."""
    return count_valid(values, nodata) / values.size


def clean(values, nodata):
    """(values with 0 for null, (1, H, W) bool of pixels that are null in any band, or None where there is none)."""
    null = is_null(values, nodata)
    if not null.any():
        return values, None
    return np.where(null, 0, values), null.any(axis=0, keepdims=True)


def margins(pair, recipe, left, top):
    """How far a window may reach beyond itself for the blur filters: (left, top, right, bottom) ms pixels, whole coarse pixels."""
    if recipe.reduction == "box":
        return 0, 0, 0, 0
    from nets.classical_fusion import FILTER_BLOCKS

    unit = recipe.extra * recipe.ratio
    column, row, width, height = pair.area
    room = (left, top, width - left - recipe.window, height - top - recipe.window)
    return tuple(min(FILTER_BLOCKS * unit, r // unit * unit) for r in room)


def read_ms_window(reader, recipe, left, top):
    """({"valid_ms"}, ms values with margin or None where there are too many nulls). left, top: within the pair's area."""
    pair = reader.pair
    m = margins(pair, recipe, left, top)
    column, row = pair.area[0] + left - m[0], pair.area[1] + top - m[1]
    ms = reader.read_ms(column, row, recipe.window + m[0] + m[2], recipe.window + m[1] + m[3])
    core = ms[:, m[1] : m[1] + recipe.window, m[0] : m[0] + recipe.window]
    share = valid_share(core, pair.nodata[1])
    return share, ms if share >= recipe.minimum_valid else None


def reduce_ms(ms, pair, recipe):
    """Stored ms -> (truth (C, H / extra, W / extra) float32 reflectance, null (1, …) bool or None), margins still on."""
    ms, null = clean(ms, pair.nodata[1])
    truth = to_reflectance(box_sum(ms, recipe.extra), recipe.extra**2, recipe)
    return truth, None if null is None else box_sum(null.astype(np.uint8), recipe.extra) > 0


def finish_chip(reader, recipe, left, top, truth, null):
    """(share of valid pan samples, pan, mul, bands, valid) or (share, None): pan is read now, and only for windows that are worth it."""
    pair = reader.pair
    m = margins(pair, recipe, left, top)
    side, ratio = recipe.window, recipe.ratio
    if recipe.reduction == "box":
        share, small_pan, pan_bad = reduce_pan_by_strips(reader, recipe, left, top)
        if share < recipe.minimum_valid:
            return share, None
        bad = [b for b in (null, pan_bad) if b is not None]
        mul = (box_sum(truth, ratio) / ratio**2).astype(np.float32)
        return share, (small_pan, mul, truth, ~np.logical_or.reduce(bad) if bad else None)
    pan = reader.read_pan(pair.area[0] + left - m[0], pair.area[1] + top - m[1], side + m[0] + m[2], side + m[1] + m[3])
    core = pan[:, m[1] * ratio : (m[1] + side) * ratio, m[0] * ratio : (m[0] + side) * ratio]
    share = valid_share(core, pair.nodata[0])
    if share < recipe.minimum_valid:
        return share, None
    pan, pan_null = clean(pan, pair.nodata[0])
    # cut of the margins, in pixels of the truth
    cut = tuple(slice(a // recipe.extra, a // recipe.extra + recipe.chip_size) for a in (m[1], m[0]))
    small_pan, mul = blur_and_reduce(to_reflectance(box_sum(pan, recipe.extra), recipe.extra**2, recipe), truth, ratio)
    small_pan = small_pan[:, cut[0], cut[1]]
    mul = mul[:, cut[0].start // ratio : cut[0].stop // ratio, cut[1].start // ratio : cut[1].stop // ratio]
    valid = None
    if null is not None or pan_null is not None:
        bad = np.zeros((1, *truth.shape[1:]), bool) if null is None else null
        if pan_null is not None:
            bad = bad | (box_sum(pan_null.astype(np.uint8), ratio * recipe.extra) > 0)
        valid = ~bad[:, cut[0], cut[1]]
    return share, (small_pan, mul.astype(np.float32), truth[:, cut[0], cut[1]], valid)


def reduce_pan_by_strips(reader, recipe, left, top):
    """
    (share of valid samples, box means (1, S, S) float32 reflectance, null cells (1, S, S) bool or None) of a window's pan.

    By strips: a whole window of pan is 32 MB, its null mask 16 more, and the means need no more than the rows of one cell at a time.
    """
    pair, side, cell = reader.pair, recipe.window, recipe.ratio * recipe.extra
    height = max(1, STRIP_ROWS // recipe.extra) * recipe.extra  # ms rows, whole cells
    valid, means, nulls = 0, [], []
    for row in range(0, side, height):
        pan = reader.read_pan(pair.area[0] + left, pair.area[1] + top + row, side, min(height, side - row))
        valid += count_valid(pan, pair.nodata[0])
        pan, null = clean(pan, pair.nodata[0])
        means.append(to_reflectance(box_sum(pan, cell), cell**2, recipe))
        nulls.append(np.zeros(means[-1].shape, bool) if null is None else box_sum(null.astype(np.uint8), cell) > 0)
    nulls = np.concatenate(nulls, axis=1)
    return valid / (side * recipe.ratio) ** 2, np.concatenate(means, axis=1), nulls if nulls.any() else None


def blur_and_reduce(pan, truth, ratio):
    """The two inputs of Wald's protocol by the sensors' typical blur: numpy in, numpy out."""
    import torch

    from nets.classical_fusion import MS_GAIN, PAN_GAIN, reduce_mtf

    pan, truth = torch.from_numpy(pan)[None], torch.from_numpy(truth)[None]
    return reduce_mtf(pan, ratio, PAN_GAIN)[0].numpy(), reduce_mtf(truth, ratio, MS_GAIN)[0].numpy()


# ------------------------------------------------------------------------------------------------ one worker

OPEN = {}  # the last tile of this process, still open: GDAL's block cache belongs to the open file


def reader_for(pair):
    if pair not in OPEN:
        close_readers()
        stack = contextlib.ExitStack()
        OPEN[pair] = stack.enter_context(PairReader(pair)), stack
        stack.enter_context(rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES))
    return OPEN[pair][0]


def close_readers():
    while OPEN:
        OPEN.popitem()[1][1].close()


def consider(task):
    """
    Work on windows of one tile. task: (recipe, tile, [(i, left, top)], folder or None to check only). Returns [verdict] of dicts with
    i, left, top, valid_ms, valid_pan and, for windows without a chip, reason. Each finished chip and verdict waits in the folder.
    """
    recipe, tile, windows, folder = task
    verdicts = []
    try:
        reader = reader_for(tile.pair)
    except UserError as error:
        return [verdict_of(i, x, y, reason="read-error", detail=str(error)) for i, x, y in windows]
    for i, left, top in sorted(windows, key=lambda w: (w[2], w[1])):
        known = recall(folder, i)
        if known is not None:
            verdicts.append(known)
            continue
        try:
            share, ms = read_ms_window(reader, recipe, left, top)
        except RasterioError as error:
            verdicts.append(verdict_of(i, left, top, reason="read-error", detail=str(error)[:200]))
            continue
        if ms is None:
            verdicts.append(verdict_of(i, left, top, valid_ms=share, reason="nulls"))
            continue
        reduced = reduce_ms(ms, tile.pair, recipe) if folder else (None, None)
        verdicts.append(finish(reader, recipe, tile, i, left, top, share, *reduced, folder))
    return verdicts


def finish(reader, recipe, tile, i, left, top, valid_ms, truth, null, folder):
    """The pan half of `consider` for a window that passed the ms half: its verdict."""
    try:
        if folder is None:
            side = recipe.window
            pan = reader.read_pan(tile.pair.area[0] + left, tile.pair.area[1] + top, side, side)
            valid_pan, parts = valid_share(pan, tile.pair.nodata[0]), None
            passed = valid_pan >= recipe.minimum_valid
        else:
            valid_pan, parts = finish_chip(reader, recipe, left, top, truth, null)
            passed = parts is not None
    except RasterioError as error:
        return verdict_of(i, left, top, valid_ms, reason="read-error", detail=str(error)[:200])
    verdict = verdict_of(i, left, top, valid_ms, valid_pan, reason=None if passed else "nulls")
    if parts is not None:
        lat, lon = window_centre(tile, recipe, left, top)
        meta = {"tile": tile.name, "cid": tile.cid, "i": i, "left": left, "top": top}
        if lat is not None:
            meta |= {"lat": lat, "lon": lon}
        pan, mul, bands, valid = parts
        chip = encode_chip(pan, mul, bands, valid, meta, recipe.bands, recipe.store, recipe.dtype)
        write_chip(folder / f"{i}.pt", chip)
        write_json(folder / f"{i}.json", verdict)
    return verdict


def verdict_of(i, left, top, valid_ms=None, valid_pan=None, reason=None, detail=None):
    fields = {"i": i, "left": left, "top": top, "valid_ms": rounded(valid_ms), "valid_pan": rounded(valid_pan), "reason": reason}
    return fields | ({"detail": detail} if detail else {})


def rounded(share):
    return None if share is None else round(share, 6)


def recall(folder, i):
    """The verdict on window i that an interrupted run left, with its chip, or None."""
    if folder is None or not (folder / f"{i}.json").exists() or not (folder / f"{i}.pt").exists():
        return None
    return json.loads((folder / f"{i}.json").read_text(encoding="utf-8"))


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

    def position(self, i):
        """(tile, left, top) of window i; left is None past the end of a grid."""
        tile = self.tiles[i % len(self.tiles)]
        _, _, width, height = tile.pair.area
        side = self.recipe.window
        xy = place(self.recipe.sampler, tile.name, i // len(self.tiles), width - side, height - side, side)
        return (tile, *xy) if xy else (tile, None, None)

    def next_batch(self, wanted):
        """Up to `wanted` windows (i, tile, left, top) in order; fewer where a tile may have to be retired first."""
        batch, pending = [], defaultdict(int)
        i = self.cursor
        while len(batch) < wanted and len(self.retired) < len(self.tiles):
            tile, left, top = self.position(i)
            if tile.name not in self.retired:
                if left is None:
                    if pending[tile.name]:
                        break
                    self.retired.add(tile.name)
                else:
                    room = REJECTS_TO_RETIRE - self.rejects[tile.name]
                    if tile.name not in self.successes and pending[tile.name] >= room:
                        break
                    pending[tile.name] += 1
                    batch.append((i, tile, left, top))
            i += 1
        return batch

    def record(self, i, tile_name, reason):
        """Take window i as done; reason None or "before-start" for one that made a chip."""
        self.cursor = i + 1
        if reason in (None, "before-start"):
            self.successes.add(tile_name)
            self.accepted += 1
            return
        self.rejects[tile_name] += 1
        self.errors[tile_name] += reason == "read-error"
        no_success = tile_name not in self.successes and self.rejects[tile_name] >= REJECTS_TO_RETIRE
        if no_success or self.errors[tile_name] >= READ_ERRORS_TO_RETIRE:
            self.retired.add(tile_name)


def read_skipped(folder):
    path = Path(folder) / SKIPPED
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1] if line]


def make_chips(tiles, recipe, folder, count, starting_from=None, workers=1, overwrite=False, on_chip=None, note=None):
    """
    Write chips starting_from … starting_from + count - 1 of the endless run over `tiles` into `folder`.

    starting_from: None continues where the folder stands and makes it hold `count` chips. on_chip(line): called for each new chip.
    note(text): called for each skipped window. Returns {"made", "present", "considered", "skipped": {reason: n}, "first", "retired"}.
    RunError when the tiles are used up before that.
    """
    check_recipe(recipe, tiles)
    folder = Path(folder)
    tiles = sorted(tiles, key=lambda t: t.name)
    settings = {**{k: v for k, v in asdict(recipe).items()}, "tiles": [tile_facts(t) for t in tiles]}
    description = {
        "kind": "pansharpen", "settings": settings, "chip_size": recipe.chip_size, "bands": list(recipe.bands), "ratio": recipe.ratio,
        "store": recipe.store, "dtype": recipe.dtype, "divide_by": recipe.divide_by, "offset": recipe.offset, "nodata": 0,
        "sampler": recipe.sampler, "seed": None,
    }  # fmt: skip
    with ChipSetWriter(folder, description, overwrite) as chipset:
        if overwrite and not chipset.lines:
            (folder / SKIPPED).unlink(missing_ok=True)
            shutil.rmtree(folder / WAITING, ignore_errors=True)
        remove_leftovers(folder)
        first = int(Path(chipset.lines[0]["file"]).stem) if chipset.lines else (starting_from or 0)
        end = first + len(chipset.lines)
        start = first if starting_from is None else starting_from
        if chipset.lines and not first <= start <= end:
            raise UserError(f"{folder} holds chips {first} to {end - 1}; --starting-from {start} leaves a gap: pass {end}, or another "
                            "folder")  # fmt: skip
        walk = Walk(tiles, recipe)
        skipped_lines = read_skipped(folder)
        done = sorted([*({**line, "reason": None} for line in chipset.lines), *skipped_lines], key=lambda line: line["i"])
        for line in done:
            walk.record(line["i"], line["tile"], line["reason"])
        goal = start + count
        summary = {"made": 0, "present": len(chipset.lines), "considered": 0, "skipped": defaultdict(int), "first": first}
        waiting = folder / WAITING
        waiting.mkdir(exist_ok=True)
        remove_leftovers(waiting)
        with open(folder / SKIPPED, "a", encoding="utf-8") as skipped, workers_of(workers) as run:
            while walk.accepted < goal:
                checking = walk.accepted < first
                batch = walk.next_batch((first if checking else goal) - walk.accepted)
                if not batch:
                    break
                verdicts = run(split_work(batch, recipe, None if checking else waiting, workers))
                for i, tile, _, _ in batch:
                    if tile.name in walk.retired:
                        continue
                    verdict = verdicts[i]
                    summary["considered"] += 1
                    number = walk.accepted
                    reason = "before-start" if checking and verdict["reason"] is None else verdict["reason"]
                    if reason is None:
                        line = manifest_line(number, tile, recipe, verdict)
                        os.replace(waiting / f"{i}.pt", folder / line["file"])
                        chipset.add(line)
                        summary["made"] += 1
                        if on_chip:
                            on_chip(line)
                    else:
                        line = {"i": i, "tile": tile.name, **{k: v for k, v in verdict.items() if k != "i"}, "reason": reason}
                        skipped.write(json.dumps(line) + "\n")
                        skipped.flush()
                        summary["skipped"][reason] += reason != "before-start"
                        if note and reason != "before-start":
                            note(f"window {i} of {tile.name} skipped: {reason} {verdict.get('detail', '')}".rstrip())
                    walk.record(i, tile.name, reason)
        shutil.rmtree(waiting, ignore_errors=True)
    summary["retired"] = sorted(walk.retired)
    if walk.accepted < goal:
        reasons = ", ".join(f"{n} x {r}" for r, n in sorted(summary["skipped"].items())) or "every place of the grid is used"
        raise RunError(f"made {max(0, walk.accepted - start)} of {count} chips: no tile is left to try ({reasons})")
    return summary


def manifest_line(number, tile, recipe, verdict):
    pair, left, top = tile.pair, verdict["left"], verdict["top"]
    window = (pair.area[0] + left, pair.area[1] + top, recipe.window, recipe.window)
    corners = pixel_corners(pair.transform, window) if pair.crs else None
    lat, lon = window_centre(tile, recipe, left, top)
    line = {
        "file": f"{number}.pt", "i": verdict["i"], "tile": tile.name, "cid": tile.cid, "left": left, "top": top,
        "valid_pan": verdict["valid_pan"], "valid_ms": verdict["valid_ms"],
        "valid_fraction": min(verdict["valid_pan"], verdict["valid_ms"]),
        "lat": lat, "lon": lon, "source": source_of(pair), "window": list(window),
        "crs": pair.crs.to_string() if pair.crs else None, "transform": list(tuple(pair.transform)[:6]) if pair.transform else None,
        "footprint": footprint(pair.crs, corners) if pair.crs else None,
        "cloud_cover": tile.properties.get("tile:clouds_percent"),
    }  # fmt: skip
    return line


def source_of(pair):
    source = {"pan": pair.pan, "path": pair.ms, "size": None, "mtime": None}
    if not is_remote(pair.ms):
        status = os.stat(pair.ms)
        source |= {"size": status.st_size, "mtime": status.st_mtime}
    return source


def split_work(batch, recipe, folder, workers):
    """
    Tasks for `consider`: each tile's windows by rows, in pieces small enough to keep all workers busy.

    As many tiles as there are workers take turns: whoever finishes a piece then most likely gets the next one of the same tile, whose
    blocks it has decoded already.
    """
    by_tile = defaultdict(list)
    tiles = {}
    for i, tile, left, top in batch:
        by_tile[tile.name].append((i, left, top))
        tiles[tile.name] = tile
    queues = []
    for name in sorted(by_tile):
        windows = sorted(by_tile[name], key=lambda w: (w[2], w[1]))
        pieces = 1 if workers <= 1 else min(len(windows), -(-4 * workers // len(by_tile)))
        size = -(-len(windows) // pieces)
        queues.append([(recipe, tiles[name], windows[k : k + size], folder) for k in range(0, len(windows), size)])
    tasks = []
    for start in range(0, len(queues), max(1, workers)):
        group = queues[start : start + max(1, workers)]
        for turn in range(max(map(len, group))):
            tasks += [queue[turn] for queue in group if turn < len(queue)]
    return tasks


@contextlib.contextmanager
def workers_of(count):
    """A function tasks -> {i: verdict}: in this process, or on a pool of `count` processes."""
    if count <= 1:
        try:
            yield lambda tasks: {v["i"]: v for task in tasks for v in consider(task)}
        finally:
            close_readers()
        return
    context = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")
    if os.name == "posix":
        context.set_forkserver_preload([__name__])  # torch is imported once, not once a worker
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=one_thread)

    def run(tasks):
        verdicts = {}
        try:
            for future in as_completed([pool.submit(consider, task) for task in tasks]):
                verdicts |= {v["i"]: v for v in future.result()}
        except BrokenProcessPool as error:
            raise RunError("a worker was ended from outside (out of memory?); pass fewer --workers, or run again to continue") from error
        return verdicts

    try:
        yield run
    finally:
        pool.shutdown(cancel_futures=True)


def one_thread():
    import signal

    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    torch.set_num_threads(1)

