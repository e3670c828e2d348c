"""Sharpens many pan/ms pairs with one checkpoint or method, shared among the processes of a run."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mapping.stac_item import WITHOUT_DATE
from pansharpening.cost import tell_cost
from pansharpening.fuse import FuseSettings, fuse, is_done, refuse_inputs
from pansharpening.matching import matching_of, require_matching
from pansharpening.output_form import OutputForm, choose_form
from pansharpening.pair_bands import check_ratio, select_bands
from pansharpening.preview import preview_of, write_preview
from pansharpening.sharpened_item import item_path, write_item
from pansharpening.sharpeners import classical_sharpener, network_of, network_sharpener
from raster.pair import Pair, match_pair
from raster.pair_files import bands_of, compare_tags, match_paths, place_of, scale_of_pair
from raster.plausible import band_figures, judge
from raster.sample import sample_values
from raster.scale import scale_from_tags, to_reflectance
from raster.source import describe
from raster.writer import scratch_of
from runtime.device import Compute
from runtime.errors import RunError, UserError
from runtime.files import clear_scratch, refuse_existing, require_writable
from runtime.logs import Console, print_result
from runtime.names import require_short_names


@dataclass(frozen=True, kw_only=True)
class SharpenRun:
    """
    What all pairs of a run share.

    checkpoint: a dict as loaded, or None with `method`, the name of a classical one. compute: runtime.device.Compute. output_dir: a folder.
    bands: names or numbers of --bands, or None. divide_by, offset: text of the flags, or None. accept_scale: values that cannot be
    reflectance are not refused. shift: (x, y) pan pixels. back_projection: see pansharpening/consistency.py. match_inputs: "auto", "yes" or
    "no", see pansharpening/matching.py. rgb, block, apron: see FuseSettings. stac: a STAC item beside each raster. overwrite: replace
    rasters that exist. strict: the first failure ends the run. dry_run: write nothing. quiet: of the console.
    """

    checkpoint: dict | None
    method: str | None
    compute: Compute
    output_dir: str
    bands: tuple | None = None
    divide_by: str | None = None
    offset: str | None = None
    accept_scale: bool = False
    shift: tuple = (0.0, 0.0)
    back_projection: bool = True
    match_inputs: str = "auto"
    rgb: bool = False
    block: int = 512
    apron: int | None = None
    stac: bool = False
    overwrite: bool = False
    strict: bool = False
    dry_run: bool = False
    quiet: bool = False


@dataclass(frozen=True)
class PlannedPair:
    """path: of the sharpened raster. pair: raster.pair.Pair. settings: FuseSettings. form: OutputForm."""

    path: str
    pair: Pair
    settings: FuseSettings
    form: OutputForm


def sharpen_all(run, pans, mss, processes, first):
    """
    Sharpen the pairs of two lists of patterns. Returns the exit code.

    first: the console, silent in all processes but the first.
    """
    planned = plan_sharpening(run, pans, mss, first)
    if run.dry_run:
        model = network_of(run.checkpoint, run.compute) if run.checkpoint and planned else None
        for one in planned:
            tell_cost(run, one, sharpener_of(run, one, model, first), first)
        return 0
    require_writable(run.output_dir)
    # Each process tells of its own pairs, so none of them is silent.
    failed = sharpen_pairs(run, planned, processes, Console(run.quiet))
    if processes.is_first:
        missing = f"; failed: {', '.join(failed)}" if failed else ""
        print_result(f"sharpened {len(planned) - len(failed)} of {len(planned)} into {run.output_dir}{missing}")
    return 1 if failed else 0


def plan_sharpening(run, pans, mss, console):
    """[PlannedPair] of two lists of patterns, with all checks that headers allow; tells how each will be sharpened."""
    if run.checkpoint and run.match_inputs == "yes":
        require_matching(run.checkpoint)
    planned = {}
    for pan, ms in match_paths(pans, mss):
        one = plan_pair(run, pan, ms, console)
        if one.path in planned:
            raise UserError(f"{planned[one.path].pair.ms} and {ms} would both become {one.path}; sharpen them into different --output-dir")
        planned[one.path] = one
    return list(planned.values())


def plan_pair(run, pan, ms, console):
    """The PlannedPair of two paths."""
    pair = match_pair(pan, ms, run.shift)
    if run.checkpoint:
        check_ratio(run.checkpoint, pair)
    pair, how = select_bands(pair, run.checkpoint and run.checkpoint["data"]["bands"], run.bands)
    scale, why = choose_scale(run, pair)
    path = os.path.join(run.output_dir, f"{place_of(ms)}_sharpened.tif")
    refuse_inputs(pair, path)
    require_short_names([path])
    form = choose_form(pair, run.checkpoint["data"]["target"] if run.checkpoint else "bands", run.rgb, scale)
    for remark in pair.remarks:
        console.say(remark)
    pan_info = describe(pair.pan)
    size, of_pan = f"{pair.area[2] * pair.ratio} × {pair.area[3] * pair.ratio}", f"{pan_info.width} × {pan_info.height}"
    formula = f"reflectance = (value + {scale[1]:g}) / {scale[0]:g} {why}"
    console.say(f"{path}: {size}, {len(form.descriptions)} {form.dtype} bands; {formula}")
    numbered = (f"{i} {name}" for i, name in zip(pair.indexes or range(1, len(pair.bands) + 1), pair.bands, strict=True))
    console.say(f"{path}: bands of ms {how}: {', '.join(numbered)}")
    if size != of_pan:
        console.say(f"{path}: {size} of pan's {of_pan} pixels; there is no whole ms pixel under the others")
    return PlannedPair(path, pair, FuseSettings(scale=scale, rgb=run.rgb, block=run.block, apron=run.apron), form)


def choose_scale(run, pair):
    """((divide_by, offset), where it comes from): flags, then the file's tags; without them classical methods take values as they are."""
    if not run.divide_by:
        compare_tags(pair, run.offset is not None)
    if run.divide_by or scale_from_tags(*bands_of(pair)):
        scale = scale_of_pair(pair, run.divide_by, run.offset)
        if not run.accept_scale:
            require_reflectance(pair, *scale)
        return scale, "as the flags say" if run.divide_by else "as the file's tags say"
    if run.checkpoint or run.rgb or run.offset is not None:  # none of them can do without a divisor: an error that says so
        return scale_of_pair(pair, None, run.offset), ""
    return (1.0, 0.0), "since classical methods don't mind"


def require_reflectance(pair, divide_by, offset):
    """UserError where a sample of ms, read with its scale, is too bright to be reflectance."""
    indexes = pair.indexes or tuple(range(1, len(pair.bands) + 1))
    values = sample_values(pair.ms, indexes, pair.nodata[1], pair.masked[1])
    if not values.size:
        return
    medians = to_reflectance(np.median(values, axis=1), divide_by, offset)
    wrong, _ = judge(pair.bands, medians)
    if wrong:
        raise UserError(f"{pair.ms} doesn't fit its scale (divide by {divide_by:g}): median reflectance "
                        f"{band_figures(pair.bands, medians, None, wrong)}. Pass --divide-by and --offset, or --accept-scale")


def sharpen_pairs(run, planned, processes, console):
    """
    Sharpen this process's share of the PlannedPairs; one that fails does not stop the rest. → paths of the failed ones of all processes.

    With run.strict, or where there is only one pair, its error ends the run. console: this process's.
    """
    failed, own = [], planned[processes.rank :: processes.size]
    model = network_of(run.checkpoint, run.compute) if run.checkpoint and own else None
    for one in own:
        try:
            sharpen_pair(run, one, sharpener_of(run, one, model, console), console)
        except (UserError, RunError) as error:
            if len(planned) == 1 or run.strict:
                raise
            failed.append(one.path)
            console.warn(f"{one.pair.ms} was not sharpened: {error}")
    return [path for part in processes.gather(failed) for path in part]


def sharpener_of(run, planned, model, console):
    """What sharpens a PlannedPair. model: the network, None for a classical method."""
    if model is None:
        return classical_sharpener(run.method, planned.pair, planned.settings.scale, run.block, run.back_projection)
    matching = matching_of(planned.pair, run.checkpoint, planned.settings.scale, run.match_inputs, console, planned.path)
    return network_sharpener(run.checkpoint, run.compute, run.back_projection, matching, model)


def sharpen_pair(run, planned, sharpener, console):
    """Write the sharpened raster of a PlannedPair of a SharpenRun and its preview, unless they are there already."""
    path, pair, settings = planned.path, planned.pair, planned.settings
    if not run.overwrite and is_done(path, pair, sharpener, settings):
        clear_scratch(scratch_of(path))  # of a run that was killed when the raster had just got its name
        console.say(f"{path} is sharpened already")
        if not os.path.exists(preview_of(path)):
            write_preview(path, pair, planned.form, settings.scale)
        if run.stac and not os.path.exists(item_path(path)):
            tell_item(write_item(path, pair, planned.form, sharpener), path, console)
        return
    refuse_inputs(pair, preview_of(path))
    beside = [preview_of(path), item_path(path)]
    refuse_existing(beside, run.overwrite)
    tell_cost(run, planned, sharpener, console)
    for old in beside:
        Path(old).unlink(missing_ok=True)  # a killed run must not leave an old one beside the new raster
    apron = settings.narrow_apron(pair.ratio, sharpener.reach)
    if apron is not None:
        console.say(f"{path}: an apron of {apron} pixels is less than the {sharpener.reach} that {sharpener.name} needs; blocks may show")
    across, down = (-(-side * pair.ratio // settings.block) for side in pair.area[2:])
    bar = console.progress(across * down, os.path.basename(path))
    found = fuse(pair, path, sharpener, settings, overwrite=run.overwrite, progress=bar.update)
    bar.close()
    write_preview(path, pair, planned.form, settings.scale)
    if run.stac:
        tell_item(write_item(path, pair, planned.form, sharpener), path, console)
    console.say(f"  {path}: {100 * found['valid_fraction']:.1f} % valid")


def tell_item(is_written, path, console):
    if not is_written:
        console.warn(f"{path}: {WITHOUT_DATE}")
