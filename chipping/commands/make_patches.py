"""chip.py make-patches: cuts scenes with labels into patches with masks, values or labels."""

from chipping.commands.shared_flags import add_workers_flag, count_workers
from nets.model_config import TASKS, answers_labels, answers_pixels, answers_values
from runtime.errors import UserError
from runtime.values import listed, number, number_and_dates, number_or_dates, whole

GENERAL_FORM = "images masks labels clouds stack image_suffix mask_suffix cloud_suffix classes class_field dates".split()

# What --help shows.
FIRST_FLAGS = ("--dataset-dir", "--images", "--masks", "--labels", "--patches-dir", "--config", "--bands", "--divide-by", "--patch-size",
               "--val", "--test", "--dry-run")


def add_arguments(parser):
    what = parser.add_argument_group("what to cut")
    what.add_argument("--dataset-dir", metavar="DIR", help="folder in the CEMS layout (EMSRxxx/AOIyy/EMSRxxx_AOIyy_zz/…_S2L2A.tif)")
    what.add_argument("--images", nargs="+", metavar="PATTERN", help="rasters or delivered products (.SAFE, STAC items …): files, folders, "
                      "globs in quotes, s3:// or https://")
    what.add_argument("--masks", nargs="+", metavar="PATTERN", help="label rasters with the images' names")
    what.add_argument("--labels", nargs="+", metavar="FILE", help="polygons (GeoJSON, GeoPackage, …), drawn on each image's grid")
    what.add_argument("--clouds", nargs="+", metavar="PATTERN", help="cloud masks with the images' names: 0 clear, 1 and more not")
    what.add_argument("--no-clouds", action="store_true", help="leave the products' own cloud layers alone")
    what.add_argument("--image-suffix", metavar="TEXT", help="ending of the images' names that their masks don't share, such as _S2Hand")
    what.add_argument("--mask-suffix", metavar="TEXT", help="the same of the masks, such as _LabelHand")
    what.add_argument("--cloud-suffix", metavar="TEXT", help="the same of the cloud masks")
    what.add_argument("--stack", type=listed, metavar="B02,B03,…",
                      help="images come as one file a band: these parts of the file names, in this order")
    what.add_argument("--exclude", type=listed, metavar="NAMES",
                      help="scenes to leave out: stems or their leading parts (DOVE is DOVE_20241019 too)")
    what.add_argument("--dates", nargs="+", type=number_or_dates, metavar="N|FIRST/LAST", help="samples of N dates of one place; only "
                      "scenes taken on these days (2022-06-01/2022-08-31, 2022-06-01/..), by their metadata, tags or names")

    pixels = parser.add_argument_group("pixels: reflectance = (value + offset) / divisor")
    pixels.add_argument("--bands", type=listed, metavar="LIST",
                        help="numbers from 1 or descriptions (B04,B8A), all by default; the usual seven of CEMS")
    pixels.add_argument("--divide-by", type=listed, metavar="N[,N…]",
                        help="divisor, one or one a band (default: as the tags state it, 1 for CEMS)")
    pixels.add_argument("--offset", type=listed, metavar="N[,N…]",
                        help="such as -1000 for Sentinel-2 since baseline 04.00 (default: as the tags state it, 0 with --divide-by)")
    pixels.add_argument("--accept-scale", action="store_true", help="cut scenes although their values cannot be reflectance")
    pixels.add_argument("--nodata", metavar="N", help="value that means nodata, or none; the file's own tag by default")

    labels = parser.add_argument_group("labels")
    labels.add_argument("--task", choices=TASKS, default="segmentation",
                        help="what is learned: a class or a value of each pixel, a class or several labels of each patch")
    labels.add_argument("--target", metavar="NAME", help="name of what --masks measure, for --task regression; value by default")
    labels.add_argument("--scene-labels", metavar="folders|FILE",
                        help="of --task classification and multilabel: a CSV with image and label; folders (default): the images' folders")
    labels.add_argument("--classes", type=listed, metavar="NAMES",
                        help="names separated by commas, or how many; background,fire by default")
    labels.add_argument("--class-field", metavar="NAME", help="property of --labels that holds the class; without it polygons are class 1")
    labels.add_argument("--label-map", type=listed, metavar="V=C,…", help="label values to classes: -1=ignore,2=1")
    labels.add_argument("--align", action="store_true", help="warp masks on another grid to their image's, by nearest neighbour")

    windows = parser.add_argument_group("windows")
    windows.add_argument("--patch-size", type=whole(1), default=256, metavar="PX", help="side of a patch in pixels")
    windows.add_argument("--stride", type=whole(1), metavar="PX", help="from patch to patch in pixels, 7/8 of the size by default")
    windows.add_argument("--max-cloud-cover", type=number(0, 1), default=0.5, metavar="SHARE",
                         help="leave out windows above this cloudy share")
    windows.add_argument("--cloud-values", type=listed, metavar="LIST",
                         help="values of the cloud masks that are cloudy (8,9,10), or their product: fmask, qa_pixel, scl, cm, udm2")
    windows.add_argument("--cloud-bits", type=listed, metavar="LIST", help="bits, from 0, that mean cloudy in bit-packed cloud masks (1,3)")
    windows.add_argument("--ignore-clouds", nargs="?", const="1", type=listed, metavar="CLASSES",
                         help="cloud classes whose pixels become ignore in the patches that are kept; 1 without a value")
    windows.add_argument("--min-valid", type=number(0, 1), default=0.0, metavar="SHARE",
                         help="leave out windows with a smaller share of valid pixels (those without any always are)")
    windows.add_argument("--aoi", metavar="FILE", help="polygons: only windows that meet them, ignore outside of them")

    splits = parser.add_argument_group("splits: the rest is for training; whatever overlaps on the ground belongs into one split")
    splits.add_argument("--val", type=listed, metavar="NAMES|SHARE", help="scenes (stems or leading parts) or a share such as 0.2")
    splits.add_argument("--test", type=listed, metavar="NAMES|SHARE", help="the same for testing")
    splits.add_argument("--split-by", choices=("event", "scene"),
                        help="a share takes whole events (first part of the name) or scenes (default: event; scene for labels of patches)")
    splits.add_argument("--seed", type=int, default=0, help="of the draw for a share")
    splits.add_argument("--allow-overlap", action="store_true", help="only warn when scenes of different splits share ground")

    run = parser.add_argument_group("the run")
    run.add_argument("--patches-dir", default="patches", metavar="DIR", help="where the patches go")
    add_workers_flag(run)
    run.add_argument("--dry-run", action="store_true", help="say how many patches, how much disk and how long; write nothing")
    run.add_argument("--overwrite", action="store_true", help="replace a patch set made with other settings")
    run.add_argument("--strict", action="store_true", help="stop at the first thing that cannot be read instead of counting it")


def run(args, console):
    if args.dataset_dir:
        for name in GENERAL_FORM:
            if getattr(args, name):
                raise UserError(f"--dataset-dir finds images and masks itself; leave out --{name.replace('_', '-')}")
    if args.no_clouds and args.clouds:
        raise UserError("--clouds and --no-clouds exclude each other; pass one of them")
    if args.class_field and not args.labels:
        raise UserError("--class-field is a property of --labels; masks carry their classes as values (see --label-map)")
    check_task(args)
    try:
        count, days = number_and_dates(args.dates)
    except ValueError as error:
        raise UserError(str(error)) from error
    from runtime.workers import prepare_workers

    workers = count_workers(args.workers)
    if not args.dry_run:
        prepare_workers(["chipping.parallel"], workers)  # they import while this process does
    import os
    import tempfile

    from chipping.chipset import RunOptions
    from chipping.commands.patch_summary import say_estimate, say_size, say_splits, say_summary
    from chipping.cutting import grid_of
    from chipping.patch_options import Inputs, Labels, Pixels, Splits, Windows
    from chipping.patches import make_patches
    from chipping.plan import plan_patches

    with tempfile.TemporaryDirectory() as scratch:
        inputs = Inputs(
            dataset_dir=args.dataset_dir, images=args.images, masks=args.masks, labels=args.labels, clouds=args.clouds,
            no_clouds=args.no_clouds, image_suffix=args.image_suffix, mask_suffix=args.mask_suffix, cloud_suffix=args.cloud_suffix,
            stack=args.stack, scene_labels=args.scene_labels,
            stack_folder=scratch if args.dry_run else f"{os.path.normpath(args.patches_dir)}_stacks", exclude=args.exclude,
            dates=days, count_of_dates=count,
        )
        plan = plan_patches(
            inputs,
            Pixels(bands=args.bands, divide_by=args.divide_by, offset=args.offset, nodata=args.nodata, accept_scale=args.accept_scale),
            Labels(classes=args.classes, class_field=args.class_field, label_map=args.label_map, align=args.align, task=args.task,
                   target=args.target or "value"),
            Windows(size=args.patch_size, stride=args.stride, max_cloud=args.max_cloud_cover, ignore_clouds=args.ignore_clouds,
                    cloud_values=args.cloud_values, cloud_bits=args.cloud_bits,
                    min_valid=args.min_valid, aoi=args.aoi),
            Splits(val=args.val, test=args.test, split_by=args.split_by or ("event" if answers_pixels(args.task) else "scene"),
                   seed=args.seed, allow_overlap=args.allow_overlap),
            strict=args.strict, note=console.note,
        )
        say_splits(plan, console)
        if args.dry_run:
            say_estimate(plan, args.patches_dir, console)
            return
        windows = sum(grid_of(scene, plan.recipe).count for scene in plan.scenes)
        say_size(windows, args.patches_dir, console)
        with console.progress(windows, "windows") as bar:
            tally = make_patches(plan, args.patches_dir, RunOptions(workers, args.overwrite, args.strict), progress=bar.update)
    say_summary(plan, tally, args.patches_dir, console)


def check_task(args):
    """UserError for flags that do not go with --task."""
    of_masks = [name for name in ("masks", "labels", "dataset_dir", "class_field", "label_map", "align") if getattr(args, name)]
    if args.scene_labels and answers_pixels(args.task):
        raise UserError(f"--scene-labels are labels of whole images, --task {args.task} is about pixels; pass --task classification")
    if not answers_pixels(args.task) and of_masks:
        raise UserError(f"--task {args.task} takes --scene-labels, one line an image; leave out --{of_masks[0].replace('_', '-')}")
    if answers_labels(args.task) and (args.scene_labels or "folders") == "folders":
        raise UserError(f"--task {args.task} needs --scene-labels FILE, a CSV: an image lies in one folder only")
    if args.target and not answers_values(args.task):
        raise UserError(f"--target names the values of --task regression, not of --task {args.task}; leave it out")
    if answers_values(args.task) and (args.labels or args.dataset_dir or args.classes):
        raise UserError(f"--task {args.task} takes values from --masks, rasters of numbers; leave out --labels, --dataset-dir and "
                        "--classes")
