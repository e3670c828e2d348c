"""
From rasters to chips that a network can be trained on.

    python chip.py make-patches --dataset-dir wildfires-cems --patches-dir patches
    python chip.py make-patches --images 'post_fire/*.tif' --masks 'masks/*.tif' --patches-dir patches --divide-by 10000 --val DOVE,CANAL
    python chip.py make-patches --images 's2/*.tif' --labels perimeters.geojson --patches-dir patches --divide-by 10000 --val 0.2
    python chip.py make-chips --ard-dir ards/italy23 --chip-dir chips/italy23 --log italy23.log -n 1024
    python chip.py make-chips --pan scene-pan.tif --ms scene-ms.tif --chip-dir chips/scene --chip-size 64 -n 128 --divide-by 10000
    python chip.py fake-chips -i reflectances.csv -o chips/fake -c 256
    python chip.py get-reflectance --pan scene-pan.tif --ms scene-ms.tif --divide-by 10000 -n 40 -o reflectances.csv
    python chip.py link-chips chips/italy23 chips/fake chips/mixed
    python chip.py inspect patches

Each command has its own help: python chip.py make-patches --help
"""

import argparse
import datetime
import math
import os
import signal
import sys
from dataclasses import dataclass

from runtime.errors import Terminated, UserError, run_program
from runtime.flags import Parser, add_common_flags

# --- talking -------------------------------------------------------------------------------------------------------------------


class Report:
    """What a command says: results on stdout, remarks on stderr (not with --quiet), both also in the file of --log."""

    def __init__(self, quiet=False, log=None):
        self.quiet = quiet
        try:
            self.file = open(log, "a", encoding="utf-8") if log else None
        except OSError as error:
            raise UserError(f"--log {log} can't be written ({error.strerror}); choose another file") from error

    def result(self, text):
        print(text, flush=True)
        self.write(text)

    def note(self, text):
        if not self.quiet:
            print(f"note: {text}", file=sys.stderr, flush=True)
        self.write(f"note: {text}")

    def write(self, text):
        if self.file:
            self.file.write(f"{datetime.datetime.now():%Y-%m-%d %H:%M:%S}  {text}\n")
            self.file.flush()

    def bar(self, total, unit):
        """A progress bar on stderr, silent where nobody is watching."""
        from tqdm import tqdm

        return tqdm(total=total, unit=unit, disable=self.quiet or not sys.stderr.isatty(), leave=False)


# --- kinds of values -----------------------------------------------------------------------------------------------------------


def positive_int(text):
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def fraction(text):
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a share from 0 to 1, got {text!r}")
    return value


def workers_of_run(args):
    """Processes that cut: --workers, or as many as torchrun has started."""
    return max(args.workers, int(os.environ.get("WORLD_SIZE", 1)))


# --- make-patches --------------------------------------------------------------------------------------------------------------


def add_make_patches(parser):
    what = parser.add_argument_group("what to cut")
    what.add_argument("--dataset-dir", metavar="DIR", help="folder in the CEMS layout (EMSRxxx/AOIyy/EMSRxxx_AOIyy_zz/…_S2L2A.tif)")
    what.add_argument("--images", nargs="+", metavar="PATTERN", help="rasters: files, folders, globs in quotes, s3:// or https://")
    what.add_argument("--masks", nargs="+", metavar="PATTERN", help="label rasters with the images' names")
    what.add_argument("--labels", nargs="+", metavar="FILE", help="GeoJSON polygons, drawn on each image's grid")
    what.add_argument("--clouds", nargs="+", metavar="PATTERN", help="cloud masks with the images' names: 0 clear, 1 and more not")
    what.add_argument("--image-suffix", metavar="TEXT", help="ending of the images' names that their masks don't share, such as _S2Hand")
    what.add_argument("--mask-suffix", metavar="TEXT", help="the same of the masks, such as _LabelHand")
    what.add_argument("--cloud-suffix", metavar="TEXT", help="the same of the cloud masks")
    what.add_argument("--stack", metavar="B02,B03,…", help="images come as one file a band: these parts of the file names, in this order")
    what.add_argument("--exclude", metavar="NAMES", help="scenes to leave out: stems or their leading parts (DOVE is DOVE_20241019 too)")

    pixels = parser.add_argument_group("pixels: reflectance = (value + offset) / divisor")
    pixels.add_argument("--bands", metavar="LIST", help="numbers from 1 or descriptions (B04,B8A), all by default; the usual seven of CEMS")
    pixels.add_argument("--divide-by", metavar="N[,N…]", help="divisor, one or one a band; from the tags where they state it; 1 for CEMS")
    pixels.add_argument("--offset", metavar="N[,N…]", help="such as -1000 for Sentinel-2 since baseline 04.00; 0 with --divide-by alone")
    pixels.add_argument("--nodata", metavar="N", help="value that means no data, or none; the file's own tag by default")

    labels = parser.add_argument_group("labels")
    labels.add_argument("--classes", metavar="NAMES", help="names separated by commas, or how many; background,fire by default")
    labels.add_argument("--class-field", metavar="NAME", help="property of --labels that holds the class; without it polygons are class 1")
    labels.add_argument("--label-map", metavar="V=C,…", help="label values to classes: -1=ignore,2=1")
    labels.add_argument("--align", action="store_true", help="warp masks on another grid to their image's, by nearest neighbour")

    windows = parser.add_argument_group("windows")
    windows.add_argument("--patch-size", type=positive_int, default=256, metavar="PX", help="side of a patch in pixels")
    windows.add_argument("--stride", type=positive_int, metavar="PX", help="from patch to patch in pixels, 7/8 of the size by default")
    windows.add_argument("--max-cloud-cover", type=fraction, default=0.5, metavar="SHARE", help="leave out windows above this cloudy share")
    windows.add_argument("--ignore-clouds", nargs="?", const="1", metavar="CLASSES",
                         help="cloud classes whose pixels become ignore in the patches that are kept; 1 without a value")
    windows.add_argument("--min-valid", type=fraction, default=0.0, metavar="SHARE",
                         help="leave out windows with a smaller share of valid pixels (those without any always are)")
    windows.add_argument("--aoi", metavar="FILE", help="GeoJSON: only windows that meet it, ignore outside of it")

    splits = parser.add_argument_group("splits: the rest is for training; whatever overlaps on the ground belongs into one split")
    splits.add_argument("--val", metavar="NAMES|SHARE", help="scenes (stems or leading parts) or a share such as 0.2")
    splits.add_argument("--test", metavar="NAMES|SHARE", help="the same for testing")
    splits.add_argument("--split-by", choices=("event", "scene"), default="event",
                        help="a share takes whole events (first part of the name) or scenes")
    splits.add_argument("--seed", type=int, default=0, help="of the draw for a share")
    splits.add_argument("--allow-overlap", action="store_true", help="only warn when scenes of different splits share ground")

    run = parser.add_argument_group("the run")
    run.add_argument("--patches-dir", default="patches", metavar="DIR", help="where the patches go")
    run.add_argument("--workers", type=positive_int, default=1, metavar="N", help="processes; the result is the same for any number")
    run.add_argument("--dry-run", action="store_true", help="say how many patches, how much disk and how long; write nothing")
    run.add_argument("--overwrite", action="store_true", help="replace a patch set made with other settings")
    run.add_argument("--strict", action="store_true", help="stop at the first thing that can't be read instead of counting it")


def run_make_patches(args, report):
    import tempfile
    from pathlib import Path

    from runtime.workers import prepare_workers

    if args.dataset_dir:
        for flag in "images masks labels clouds stack image-suffix mask-suffix cloud-suffix classes class-field".split():
            if getattr(args, flag.replace("-", "_")):
                raise UserError(f"--dataset-dir finds images and masks itself; leave out --{flag}")
    if args.class_field and not args.labels:
        raise UserError("--class-field is a property of --labels; masks carry their classes as values (see --label-map)")
    workers = workers_of_run(args)
    if not args.dry_run:
        prepare_workers(["chipping.parallel"], workers)
    from chipping.cutting import count_windows
    from chipping.patches import make_patches
    from chipping.plan import plan_patches

    with tempfile.TemporaryDirectory() as scratch:
        plan = plan_patches(
            dataset_dir=args.dataset_dir, images=args.images, masks=args.masks, labels=args.labels, clouds=args.clouds,
            image_suffix=args.image_suffix, mask_suffix=args.mask_suffix, cloud_suffix=args.cloud_suffix,
            stack=args.stack, stack_folder=scratch if args.dry_run else f"{os.path.normpath(args.patches_dir)}_stacks",
            bands=args.bands, divide_by=args.divide_by, offset=args.offset, nodata=args.nodata,
            classes=args.classes, class_field=args.class_field, label_map=args.label_map, align=args.align,
            size=args.patch_size, stride=args.stride, max_cloud=args.max_cloud_cover, ignore_clouds=args.ignore_clouds,
            min_valid=args.min_valid, aoi=args.aoi, exclude=args.exclude, val=args.val, test=args.test, split_by=args.split_by,
            seed=args.seed, allow_overlap=args.allow_overlap, strict=args.strict, note=report.note,
        )
        say_splits(plan, report)
        if args.dry_run:
            say_estimate(plan, Path(args.patches_dir), report)
            return
        total = sum(count_windows(scene, plan.recipe) for scene in plan.scenes)
        with report.bar(total, "window") as bar:
            tally = make_patches(
                plan.scenes, plan.recipe, plan.description, args.patches_dir, overwrite=args.overwrite,
                workers=workers, strict=args.strict, broken=plan.broken, progress=bar.update,
            )
    say_summary(plan, tally, Path(args.patches_dir), report)


def say_splits(plan, report):
    """Remarks about splits that a user would rather hear before the work."""
    from chipping.splits import describe_leaks

    if plan.leaks:
        report.note(f"scenes of different splits share ground, so scores will flatter: {describe_leaks(plan.leaks)}")
    splits = {scene.split for scene in plan.scenes}
    if plan.unplaced and len(splits) > 1:
        report.note(
            f"{len(plan.unplaced)} scenes have no CRS ({', '.join(plan.unplaced[:3])} …): whether they overlap others can't be checked"
        )
    if "val" not in splits:
        report.note("everything is for training; train.py needs a validation split (--val NAMES or --val 0.2)")


def say_estimate(plan, folder, report):
    from chipping.cutting import count_windows
    from chipping.inspection import in_bytes, plural
    from chipping.patches import estimate, free_bytes

    windows = sum(count_windows(scene, plan.recipe) for scene in plan.scenes)
    patches, size, seconds = estimate(plan.scenes, plan.recipe)
    per_split = {}
    for scene in plan.scenes:
        per_split[scene.split] = per_split.get(scene.split, 0) + count_windows(scene, plan.recipe)
    shares = ", ".join(f"{split} {count}" for split, count in sorted(per_split.items()))
    report.result(f"{plural(len(plan.scenes), 'scene')}: {plural(windows, 'window')} ({shares})")
    report.result(
        f"about {patches} patches, {in_bytes(size)} on disk ({in_bytes(free_bytes(folder))} are free), {in_time(seconds)} with one worker"
    )
    report.result("nothing was written (--dry-run)")


def in_time(seconds):
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def say_summary(plan, tally, folder, report):
    from chipping.inspection import plural
    from chipping.patches import describe_skipped, mean_reflectance

    recipe = plan.recipe
    splits = [split for split in ("train", "val", "test") if tally.patches[split]]
    counts = ", ".join(f"{split} {tally.patches[split]} from {plural(len(tally.scenes[split]), 'scene')}" for split in splits)
    means = mean_reflectance(tally, plan.description)
    report.result("mean reflectance: " + ", ".join(f"{b} {m:.4g}" for b, m in zip(plan.description["bands"], means, strict=True)))
    odd = [b for b, m in zip(plan.description["bands"], means, strict=True) if not 0.0005 < m < 1.5]
    if odd:
        report.note(f"the mean reflectance of {', '.join(odd)} is not that of land or water; are --divide-by and --offset right?")
    for layer, pixels in tally.train_pixels.items():
        say_absent(plan, layer, [name for name, n in zip(plan.description["classes"][layer], pixels, strict=True) if not n], report)
    skipped = f"; left out {plural(sum(tally.skipped.values()), 'window')} ({describe_skipped(tally)})" if tally.skipped else ""
    report.result(f"{plural(sum(tally.patches.values()), 'patch')} of {recipe.size}×{recipe.size} pixels, "
                  f"{plural(len(recipe.divide_by), 'band')} in {folder}: {counts}{skipped}")
    if tally.unreadable:
        named = ", ".join(f"{name} ({plural(count, 'window')})" if count else name for name, count in list(tally.unreadable.items())[:3])
        more = " …" if len(tally.unreadable) > 3 else ""
        report.result(f"{plural(len(tally.unreadable), 'file')} could not be read: {named}{more}; repair and run again with --overwrite")
    if {"train", "val"} <= set(splits):
        classes = max(recipe.classes) if len(recipe.layers) == 1 else 2
        report.result(f"next: python train.py --patches-dir {folder} --num-classes {classes}")


def say_absent(plan, layer, names, report):
    """A remark about classes that no training pixel has."""
    if not names:
        return
    which = f" ({layer})" if len(plan.recipe.layers) > 1 else ""
    mapped = {value for value, _ in plan.recipe.label_map}
    hint = "; the masks hold 0 and 255 only, and 255 means ignore: pass --label-map=255=1 if it is a class"
    white = layer in plan.black_white and 255 not in mapped
    report.note(f"no pixel of the training patches is {' or '.join(names)}{which}{hint if white else ''}")


# --- pan/ms chips: make-chips, fake-chips, get-reflectance, link-chips ----------------------------------------------------------


def two_numbers(text):
    try:
        x, y = (float(word) for word in text.split(","))
        if not (math.isfinite(x) and math.isfinite(y)):
            raise ValueError
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected two numbers such as 0.5,0.5, got {text!r}") from None
    return x, y


def four_wholes(text):
    words = text.split(",")
    if len(words) != 4 or not all(word.isdigit() for word in words):
        raise argparse.ArgumentTypeError(f"expected COLUMN,ROW,WIDTH,HEIGHT in ms pixels, got {text!r}")
    return tuple(map(int, words))


def not_negative(text):
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 0, got {text!r}")
    return int(text)


def add_pair_flags(group):
    group.add_argument("--pan", nargs="+", metavar="PATTERN", help="panchromatic rasters: files, folders, globs in quotes, s3://")
    group.add_argument("--ms", nargs="+", metavar="PATTERN", help="multispectral rasters whose names differ only in pan and ms")
    group.add_argument("--shift", type=two_numbers, metavar="X,Y", default=(0.0, 0.0),
                       help="pan pixels from where the files say ms begins to where it does, right and down")
    group.add_argument("--divide-by", metavar="N", help="reflectance = (value + offset) / N; 10000 for an ARD, for pairs from the tags")
    group.add_argument("--offset", metavar="N", help="see --divide-by; 0 by default")


def add_make_chips(parser):
    source = parser.add_argument_group("where pixels come from: an ARD, or pairs of rasters")
    source.add_argument("-a", "--ard-dir", metavar="DIR", help="ARD delivery, the folder with acquisition_collections/; s3:// works")
    source.add_argument("-y", "--allow-list", "--allow-cids", "--accept-cids", metavar="FILE", help="text file of CIDs to use, one a line")
    add_pair_flags(source)
    source.add_argument("--bands", metavar="NAMES", help="names of the ms bands of pairs, separated by commas")
    source.add_argument("--area", type=four_wholes, metavar="COL,ROW,WIDTH,HEIGHT", help="only this part of each pair, in ms pixels")

    chips = parser.add_argument_group("chips")
    chips.add_argument("-c", "--chip-dir", default="chips", metavar="DIR", help="where they go")
    chips.add_argument("-n", "--count", type=positive_int, default=1024, help="how many")
    chips.add_argument("-s", "--starting-from", type=not_negative, metavar="N",
                       help="make chips N, N + 1 … of the endless run; by default the folder is filled up to --count")
    chips.add_argument("-m", "--minimum-valid", type=fraction, default=0.75, metavar="SHARE", help="of a window's pan and of its ms")
    chips.add_argument("--chip-size", type=positive_int, default=512, metavar="PX", help="side of the truth")
    chips.add_argument("--extra-downsample", type=positive_int, metavar="N",
                       help="shrink everything by N first: 2 for an ARD, 1 for pairs")
    chips.add_argument("--reduction", choices=("box", "mtf"), help="how inputs are shrunk: exact means (ARD) or the sensors' blur (pairs)")
    chips.add_argument("--store", choices=("bands", "oklab", "both"), default="bands", help="what the truth is kept as")
    chips.add_argument("--dtype", choices=("uint16", "float32"), default="uint16", help="uint16: reflectance x 10000, rounded")
    chips.add_argument("--sampler", choices=("r2", "r2-plain", "grid"), default="r2",
                       help="places of windows: evenly spread; the same without phase or offset; side by side")

    run = parser.add_argument_group("the run")
    run.add_argument("--workers", type=positive_int, default=1, metavar="N", help="processes; the result is the same for any number")
    run.add_argument("--overwrite", action="store_true", help="replace chips made with other settings")
    run.add_argument("--strict", action="store_true", help="stop where a tile or a window can't be used or read, instead of leaving it out")


def run_make_chips(args, report):
    from runtime.errors import RunError, UserError

    if bool(args.ard_dir) == bool(args.pan or args.ms):
        raise UserError("pass either --ard-dir, or --pan and --ms")
    if args.ard_dir and (args.area or args.bands or args.shift != (0.0, 0.0)):
        raise UserError("--area, --bands and --shift are for --pan and --ms; the tiles of an ARD are what they are")
    if args.pan and not args.ms or args.ms and not args.pan:
        raise UserError("--pan and --ms belong together; pass both")
    if args.allow_list and not args.ard_dir:
        raise UserError("--allow-list names strips of an ARD; pass it with --ard-dir")
    from runtime.workers import prepare_workers

    workers = workers_of_run(args)
    prepare_workers(["chipping.make_chips", "chipping.pan_chips"], workers)
    from chipping.chip_window import ChipRecipe
    from chipping.make_chips import make_chips

    extra = args.extra_downsample or (2 if args.ard_dir else 1)
    if args.ard_dir:
        tiles, skipped = find_ard_tiles(args.ard_dir, args.allow_list, args.chip_size * extra, report)
        if args.strict and skipped:
            raise RunError(f"{len(skipped)} tiles can't be used, first {skipped[0][0]}: {skipped[0][1]} (--strict)")
        scale = scale_of_ard(args.divide_by, args.offset)
    else:
        from chipping.plain_pairs import pair_tiles, scale_of_pairs

        bands = tuple(args.bands.split(",")) if args.bands else None
        tiles, remarks = pair_tiles(args.pan, args.ms, args.shift, args.area, bands, args.strict)
        for remark in dict.fromkeys(remarks):
            report.note(remark)
        scale = scale_of_pairs(tiles, args.divide_by, args.offset)
        smallest = min(min(tile.pair.area[2:]) for tile in tiles)
        if smallest < args.chip_size * extra:
            raise UserError(f"a window needs {args.chip_size * extra} ms pixels a side, the smallest image has {smallest}: "
                            "pass a smaller --chip-size")
    recipe = ChipRecipe(
        args.chip_size, tiles[0].pair.ratio, tiles[0].pair.bands, extra, args.minimum_valid, args.sampler,
        args.reduction or ("box" if args.ard_dir else "mtf"), args.store, args.dtype, *scale,
    )
    with report.bar(args.count, "chip") as bar:

        def on_verdict(verdict):
            bar.update(verdict["reason"] is None)

        def on_chip(line):
            report.write(f"{line['file']} from {line['tile']} at {line['left']},{line['top']}")

        summary = make_chips(
            tiles, recipe, args.chip_dir, args.count, args.starting_from, workers, args.overwrite, args.strict, on_chip, report.write,
            on_verdict,
        )
    reasons = "".join(f", {n} windows left out ({reason})" for reason, n in sorted(summary["skipped"].items()))
    there = f", {summary['present']} were there" if summary["present"] else ""
    report.result(f"{summary['made']} chips made in {args.chip_dir}{there}{reasons}; {len(tiles)} tile{'s' * (len(tiles) > 1)}")
    if summary["unreadable"]:
        named = ", ".join(f"{tile} ({n})" for tile, n in sorted(summary["unreadable"].items())[:3])
        more = " …" if len(summary["unreadable"]) > 3 else ""
        report.result(f"windows that could not be read lie in {named}{more}; {args.chip_dir}/skipped.jsonl says why")


def scale_of_ard(divide_by, offset):
    """(divide_by, offset) of an ARD, one number each: reflectance x 10 000 unless told otherwise."""
    from raster.scale import check_divisors, parse_numbers

    (divisor,), (shift,) = parse_numbers(divide_by or "10000", "--divide-by", 1), parse_numbers(offset or "0", "--offset", 1)
    check_divisors([divisor])
    return divisor, shift


def find_ard_tiles(folder, allow_list, smallest, report):
    """(tiles, [(name, reason)] left out) of an ARD; every reason goes to the log, a summary to the terminal."""
    from chipping.ard import open_tiles, read_allow_list, read_items

    allowed = read_allow_list(allow_list) if allow_list else None
    items, unread = read_items(folder)
    tiles, unfit, unmatched = open_tiles(items, allowed, smallest)
    skipped = unread + unfit
    for name, reason in skipped:
        report.write(f"left out: {name}: {reason}")
    for name, reason in skipped[:5]:
        report.note(f"left out: {name}: {reason}")
    if len(skipped) > 5:
        report.note(f"left out: {len(skipped) - 5} tiles more (--log FILE names them)")
    if unmatched:
        more = f" and {len(unmatched) - 5} more" if len(unmatched) > 5 else ""
        report.note(f"of the allow-list, not in this ARD: {', '.join(unmatched[:5])}{more}")
    if not tiles:
        why = "none of the allow-list's CIDs is in it" if allowed and len(unmatched) == len(allowed) else "see the reasons above"
        raise UserError(f"{folder} has no tile that can be used ({why})")
    return tiles, skipped


def add_fake_chips(parser):
    parser.add_argument("-i", "--reflectances", metavar="FILE", help="reflectance file (see get-reflectance); our own by default")
    parser.add_argument("-o", "--chip-dir", default="chips/fake", metavar="DIR", help="where chips go")
    parser.add_argument("-c", "--count", type=positive_int, default=256, help="how many; the folder is filled up to that")
    parser.add_argument("-r", "--seed", type=not_negative, default=0, help="of the noise")
    parser.add_argument("-s", "--side", type=positive_int, default=512, metavar="PX", help="side of a chip, a multiple of 4")
    parser.add_argument("--reduction", choices=("box", "mtf"), default="box", help="inputs by exact means, or blurred as sensors do")
    parser.add_argument("--store", choices=("bands", "oklab", "both"), default="bands", help="what the truth is kept as")
    parser.add_argument("--dtype", choices=("uint16", "float32"), default="uint16", help="uint16: reflectance x 10000, rounded")
    parser.add_argument("--overwrite", action="store_true", help="replace chips made with other settings")


def run_fake_chips(args, report):
    from chipping.fake_chips import OUR_REFLECTANCES, FakeRecipe, make_fake_chips

    recipe = FakeRecipe(args.side, args.seed, args.store, args.dtype, args.reduction)
    with report.bar(args.count, "chip") as bar:
        source = args.reflectances or OUR_REFLECTANCES
        made = make_fake_chips(source, args.chip_dir, args.count, recipe, args.overwrite, lambda _: bar.update())
    report.result(f"{made} chips made in {args.chip_dir}{f', {args.count - made} were there' if made < args.count else ''}")


def add_get_reflectance(parser):
    add_pair_flags(parser)
    parser.add_argument("-n", "--count", type=positive_int, default=40, help="lines from each pair")
    parser.add_argument("-o", "--output", metavar="FILE", help="append to this file; to the screen by default")
    parser.add_argument("--seed", type=not_negative, default=0, help="of the places")
    parser.add_argument("--note", default="", help="text at the end of each line; file and place by default")


def run_get_reflectance(args, report):
    from chipping.get_reflectance import sample_reflectances
    from chipping.plain_pairs import pair_tiles, scale_of_pair
    from runtime.files import require_writable

    if not args.pan or not args.ms:
        raise UserError("pass --pan and --ms")
    if args.output:
        require_writable(os.path.dirname(args.output) or ".")
    tiles, remarks = pair_tiles(args.pan, args.ms, args.shift)
    for remark in dict.fromkeys(remarks):
        report.note(remark)
    lines = []
    for tile in tiles:
        divide_by, offset = scale_of_pair(tile.pair, args.divide_by, args.offset)
        lines += sample_reflectances(tile.pair, args.count, divide_by, offset, args.seed, args.note)
    if args.output:
        with open(args.output, "a", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
        report.result(f"{len(lines)} lines added to {args.output}")
    else:
        for line in lines:
            report.result(line)


def add_link_chips(parser):
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="sources, and the destination last")
    parser.add_argument("--overwrite", action="store_true", help="replace the links of an earlier mix (never chips that are files)")
    parser.add_argument("--allow-overlap", action="store_true", help="only warn when patches of one ground are in different splits")


def run_link_chips(args, report):
    from chipping.link_chips import link_chips

    if len(args.folders) < 2:
        raise UserError("link-chips needs at least one source and a destination: link-chips SOURCE… DESTINATION")
    *sources, destination = args.folders
    found = link_chips(sources, destination, args.overwrite, report.note, args.allow_overlap)
    for source, counts in found.items():
        left_out = (("broken", "broken links"), ("foreign", "other names"), ("unlisted", "not in its manifest"))
        extra = "".join(f", {counts[what]} {word}" for what, word in left_out if counts[what])
        report.result(f"{counts['linked']} from {source}{extra}")
    report.result(f"{sum(c['linked'] for c in found.values())} links in {destination}")


# --- inspect -------------------------------------------------------------------------------------------------------------------


def add_inspect(parser):
    parser.add_argument("folder", help="folder made by chip.py")
    parser.add_argument("--output", metavar="FILE", help="where the contact sheet goes; contact_sheet.png in the folder by default")
    parser.add_argument("--overwrite", action="store_true", help="replace the file of --output")
    parser.add_argument("--no-pictures", action="store_true", help="words only")
    parser.add_argument("--seed", type=not_negative, default=0, help="of the choice of pictures")


def run_inspect(args, report):
    from chipping.inspection import inspect_folder

    inspect_folder(
        args.folder, output=args.output, overwrite=args.overwrite, pictures=not args.no_pictures, seed=args.seed, say=report.result
    )


# --- the table -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Command:
    help: str
    add_arguments: object  # (parser) → None; standard library only, so that --help answers at once
    run: object  # (args, Report) → exit code or None; imports what it needs


COMMANDS = {
    "make-patches": Command("scenes with labels → patches with masks", add_make_patches, run_make_patches),
    "make-chips": Command("an ARD, or pan and ms rasters → training pairs for pansharpening", add_make_chips, run_make_chips),
    "fake-chips": Command("training pairs for pansharpening out of noise and reflectances", add_fake_chips, run_fake_chips),
    "get-reflectance": Command("lines for the reflectance file of fake-chips, from rasters", add_get_reflectance, run_get_reflectance),
    "link-chips": Command("several folders of chips → one folder of links, fairly mixed", add_link_chips, run_link_chips),
    "inspect": Command("what is in a chip set: words, and a contact sheet", add_inspect, run_inspect),
}

# Flags whose value may begin with a minus: `--offset -1000,-1000` is a value and no flag.
SIGNED_FLAGS = ("--offset", "--nodata", "--label-map", "--shift")


def build_parser():
    parser = Parser(description=__doc__)
    parser.add_argument("--log", metavar="FILE", help="append everything that is said to FILE")
    parser.add_argument("--version", action="version", version=version())
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    for name, command in COMMANDS.items():
        child = commands.add_parser(name, help=command.help, description=command.help)
        command.add_arguments(child)
        add_common_flags(child)
        child.add_argument("--log", metavar="FILE", default=argparse.SUPPRESS, help="append everything that is said to FILE")
    return parser


def version():
    from constants import VERSION

    return f"chipmill {VERSION}"


def join_signed(argv):
    """`--offset -1000,0` as `--offset=-1000,0`, which argparse understands."""
    words = []
    for word in argv:
        if words and words[-1] in SIGNED_FLAGS and word[:1] == "-" and word[1:2].isdigit():
            words[-1] += "=" + word
        else:
            words.append(word)
    return words


def stop_at_sigterm(number, frame):
    raise Terminated("What was finished is safe; run the same command again to go on")


def main(argv=None):
    args = build_parser().parse_args(join_signed(sys.argv[1:] if argv is None else argv))
    if int(os.environ.get("RANK", 0)):
        return 0  # under torchrun the first process does the work, with as many workers: the same files as without
    # One thread a process, --workers for more: BLAS threads that wait for each other double the CPU time of small matrices.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    before = signal.signal(signal.SIGTERM, stop_at_sigterm)
    try:
        return COMMANDS[args.command].run(args, Report(args.quiet, args.log))
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    run_program(main)
