"""chip.py make-tiles: cuts images with boxes into tiles for a detector."""

import shlex

from chipping.commands.shared_flags import (
    MIN_VISIBILITY,
    OVERLAP,
    TILE_SIZE,
    add_label_flags,
    add_picture_flags,
    add_tile_flags,
    add_workers_flag,
    count_workers,
)
from runtime.errors import UserError
from runtime.values import names

# What --help shows.
FIRST_FLAGS = ("--images", "--annotations", "--label-map", "--tile-size", "--overlap", "--negatives", "--divide-by", "--bands",
               "--output-dir", "--config")


def add_arguments(parser):
    source = parser.add_argument_group("images and their boxes")
    source.add_argument("--images", metavar="DIR", help="folder of images: JPEG, PNG, GeoTIFF …, delivered products")
    source.add_argument("--annotations", metavar="FILE",
                        help="COCO JSON, folder of Pascal VOC, CSV, or GeoJSON / GeoPackage over georeferenced images")
    source.add_argument("--classes", type=names, metavar="NAMES", help="the classes in their order; by default those that have boxes")
    add_label_flags(source)
    add_picture_flags(parser.add_argument_group("pixels"))
    tiles = parser.add_argument_group("tiles")
    add_tile_flags(tiles)
    tiles.add_argument("--seed", type=int, default=0, help="of the draw for --negatives")
    run = parser.add_argument_group("the run")
    run.add_argument("--output-dir", default="tiles", metavar="DIR", help="where the tiles go; train_detection.py takes it as --cache-dir")
    add_workers_flag(run)
    run.add_argument("--strict", action="store_true", help="stop at the first image that cannot be read instead of counting it")


def run(args, console):
    if not args.images or not args.annotations:
        raise UserError("make-tiles needs --images (a folder) and --annotations (their boxes)")
    from runtime.workers import prepare_workers

    workers = count_workers(args.workers)
    prepare_workers(["chipping.tile_worker"], workers)  # they import while this process does
    from chipping.box_labels import read_labels
    from chipping.tile_set import known_headers
    from chipping.tile_set_plan import TileOptions
    from chipping.tiles import make_tiles

    options = TileOptions(
        size=args.tile_size, overlap=args.overlap, min_visibility=args.min_visibility, negatives=args.negatives, seed=args.seed,
        form=args.tile_format, bands=args.bands, divide_by=args.divide_by, offset=args.offset,
    )
    classes, images, counts = read_labels(
        args.images, args.annotations, classes=args.classes, label_map=args.label_map, point_size=args.point_size,
        class_field=args.class_field, known=known_headers(args.output_dir), strict=args.strict, note=console.note,
    )
    console.result(counts.in_words())
    with console.progress(0, "tiles") as bar:
        tile_set, unreadable = make_tiles(
            args.output_dir, args.images, classes, images, options, workers=workers, strict=args.strict, note=console.note,
            progress=bar.update, starting=bar.reset,
        )
    say_summary(tile_set, {**counts.unreadable, **unreadable}, args, console)


def say_summary(tile_set, unreadable, args, console):
    """What was made and left out, and the command that comes next."""
    width, height = tile_set.tile_size
    busy = sum(len(tile.boxes) > 0 for tile in tile_set.tiles)
    form = {"png": "PNG files", "npy": ".npy files", "none": "windows of the images"}[tile_set.form]
    console.result(f"{len(tile_set.tiles)} tiles of {width}×{height} pixels, {len(tile_set.bands)} bands ({form}) in {args.output_dir}: "
                   f"{busy} with objects, {len(tile_set.tiles) - busy} without")
    if unreadable:
        named = "; ".join(f"{name}: {why}" for name, why in list(unreadable.items())[:3])
        more = " …" if len(unreadable) > 3 else ""
        console.result(f"{len(unreadable)} of {len(unreadable) + len(tile_set.images)} images could not be read ({named}{more}); "
                       "copy them again and run the same command")
    console.result(f"next: python train_detection.py {' '.join(next_words(args))}")


def next_words(args):
    """The flags with which a training takes these tiles: those that decide what they are, where they are not the defaults."""
    words = ["--train-images", args.images, "--train-annotations", args.annotations, "--cache-dir", args.output_dir, "--val", "0.2"]
    wide, tall = args.tile_size
    values = {
        "--label-map": args.label_map, "--point-size": args.point_size, "--class-field": args.class_field,
        "--bands": args.bands and ",".join(args.bands), "--divide-by": args.divide_by, "--offset": args.offset,
        "--tile-size": None if wide == tall == TILE_SIZE else f"{wide}" if wide == tall else f"{wide}x{tall}",
        "--overlap": None if args.overlap == OVERLAP else args.overlap,
        "--min-visibility": None if args.min_visibility == MIN_VISIBILITY else args.min_visibility,
        "--negatives": None if args.negatives == 1 else args.negatives,
        "--tile-format": None if args.tile_format == "png" else args.tile_format,
    }
    for flag, value in values.items():
        words += [] if value is None else [f"{flag}={value}"] if str(value).startswith("-") else [flag, str(value)]
    return map(shlex.quote, words)
