"""
From rasters to chips that a network can be trained on.

    python chip.py make-patches --dataset-dir wildfires-cems --patches-dir patches
    python chip.py make-patches --images 'post_fire/*.tif' --masks 'masks/*.tif' --patches-dir patches --divide-by 10000 --val DOVE,CANAL
    python chip.py make-patches --images 's2/*.tif' --labels perimeters.geojson --patches-dir patches --divide-by 10000 --val 0.2
    python chip.py inspect patches

Each command has its own help: python chip.py make-patches --help
"""

import argparse
import datetime
import signal
import sys
from dataclasses import dataclass

from runtime.errors import Terminated, run_program
from runtime.flags import Parser, add_common_flags

# --- talking -------------------------------------------------------------------------------------------------------------------


class Report:
    """What a command says: results on stdout, remarks on stderr (not with --quiet), both also in the file of --log."""

    def __init__(self, quiet=False, log=None):
        self.quiet = quiet
        self.file = open(log, "a", encoding="utf-8") if log else None

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
                         help="cloud classes whose pixels become ignore in the patches that are kept; 1 without a value")  # fmt: skip
    windows.add_argument("--min-valid", type=fraction, default=0.0, metavar="SHARE",
                         help="leave out windows with a smaller share of valid pixels (those without any always are)")  # fmt: skip
    windows.add_argument("--aoi", metavar="FILE", help="GeoJSON: only windows that meet it, ignore outside of it")

    splits = parser.add_argument_group("splits: the rest is for training; whatever overlaps on the ground belongs into one split")
    splits.add_argument("--val", metavar="NAMES|SHARE", help="scenes (stems or leading parts) or a share such as 0.2")
    splits.add_argument("--test", metavar="NAMES|SHARE", help="the same for testing")
    splits.add_argument("--split-by", choices=("event", "scene"), default="event",
                        help="a share takes whole events (first part of the name) or scenes")  # fmt: skip
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

    from chipping.patches import count_windows, make_patches
    from chipping.plan import plan_patches
    from runtime.errors import UserError

    if args.dataset_dir:
        for flag in "images masks labels clouds stack image-suffix mask-suffix cloud-suffix classes class-field".split():
            if getattr(args, flag.replace("-", "_")):
                raise UserError(f"--dataset-dir finds images and masks itself; leave out --{flag}")
    if args.class_field and not args.labels:
        raise UserError("--class-field is a property of --labels; masks carry their classes as values (see --label-map)")
    with tempfile.TemporaryDirectory() as scratch:
        plan = plan_patches(
            dataset_dir=args.dataset_dir, images=args.images, masks=args.masks, labels=args.labels, clouds=args.clouds,
            image_suffix=args.image_suffix, mask_suffix=args.mask_suffix, cloud_suffix=args.cloud_suffix,
            stack=args.stack, stack_folder=scratch if args.dry_run else f"{args.patches_dir}_stacks",
            bands=args.bands, divide_by=args.divide_by, offset=args.offset, nodata=args.nodata,
            classes=args.classes, class_field=args.class_field, label_map=args.label_map, align=args.align,
            size=args.patch_size, stride=args.stride, max_cloud=args.max_cloud_cover, ignore_clouds=args.ignore_clouds,
            min_valid=args.min_valid, aoi=args.aoi, exclude=args.exclude, val=args.val, test=args.test, split_by=args.split_by,
            seed=args.seed, allow_overlap=args.allow_overlap, strict=args.strict, note=report.note,
        )  # fmt: skip
        say_splits(plan, report)
        if args.dry_run:
            say_estimate(plan, Path(args.patches_dir), report)
            return
        total = sum(count_windows(scene, plan.recipe) for scene in plan.scenes)
        with report.bar(total, "window") as bar:
            tally, lines = make_patches(
                plan.scenes, plan.recipe, plan.description, args.patches_dir, workers=args.workers, overwrite=args.overwrite,
                strict=args.strict, broken=plan.broken, progress=bar.update,
            )  # fmt: skip
    say_summary(plan, tally, lines, Path(args.patches_dir), report)


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
    from chipping.inspection import in_bytes
    from chipping.patches import count_windows, estimate, free_bytes

    windows = sum(count_windows(scene, plan.recipe) for scene in plan.scenes)
    patches, size, seconds = estimate(plan.scenes, plan.recipe)
    per_split = {}
    for scene in plan.scenes:
        per_split[scene.split] = per_split.get(scene.split, 0) + count_windows(scene, plan.recipe)
    report.result(f"{len(plan.scenes)} scenes give {windows} windows ({', '.join(f'{s} {n}' for s, n in sorted(per_split.items()))})")
    report.result(
        f"about {patches} patches, {in_bytes(size)} on disk ({in_bytes(free_bytes(folder))} are free), {in_time(seconds)} with one worker"
    )
    report.result("nothing was written (--dry-run)")


def in_time(seconds):
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def say_summary(plan, tally, lines, folder, report):
    from chipping.inspection import plural
    from chipping.patches import describe_skipped, mean_reflectance

    recipe = plan.recipe
    splits = [split for split in ("train", "val", "test") if tally.patches[split]]
    counts = ", ".join(f"{split} {tally.patches[split]} from {plural(len(tally.scenes[split]), 'scene')}" for split in splits)
    means = mean_reflectance(lines, plan.description)
    report.result("mean reflectance: " + ", ".join(f"{b} {m:.4g}" for b, m in zip(plan.description["bands"], means, strict=True)))
    odd = [b for b, m in zip(plan.description["bands"], means, strict=True) if not 0.0005 < m < 1.5]
    if odd:
        report.note(f"the mean reflectance of {', '.join(odd)} is not that of land or water; are --divide-by and --offset right?")
    skipped = f"; left out {plural(sum(tally.skipped.values()), 'window')} ({describe_skipped(tally)})" if tally.skipped else ""
    report.result(f"{plural(sum(tally.patches.values()), 'patch')} of {recipe.size}×{recipe.size} pixels, "
                  f"{plural(len(recipe.divide_by), 'band')} in {folder}: {counts}{skipped}")  # fmt: skip
    if tally.unreadable:
        named = ", ".join(f"{name} ({plural(count, 'window')})" if count else name for name, count in list(tally.unreadable.items())[:3])
        more = " …" if len(tally.unreadable) > 3 else ""
        report.result(f"{plural(len(tally.unreadable), 'file')} could not be read: {named}{more}; repair and run again with --overwrite")
    classes = max(recipe.classes) if len(recipe.layers) == 1 else 2
    report.result(f"next: python train.py --patches-dir {folder} --num-classes {classes}")


# --- inspect -------------------------------------------------------------------------------------------------------------------


def add_inspect(parser):
    parser.add_argument("folder", help="folder made by chip.py")
    parser.add_argument("--output", metavar="FILE", help="where the contact sheet goes; contact_sheet.png in the folder by default")
    parser.add_argument("--overwrite", action="store_true", help="replace the file of --output")
    parser.add_argument("--no-pictures", action="store_true", help="words only")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of pictures")


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
    "inspect": Command("what is in a chip set: words, and a contact sheet", add_inspect, run_inspect),
}

# Flags whose value may begin with a minus: `--offset -1000,-1000` is a value and no flag.
SIGNED_FLAGS = ("--offset", "--nodata", "--label-map")


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
    signal.signal(signal.SIGTERM, stop_at_sigterm)
    return COMMANDS[args.command].run(args, Report(args.quiet, args.log))


if __name__ == "__main__":
    run_program(main)
