"""chip.py inspect: says what is in a chip set, a warehouse, a delivered product, images with boxes, or a pan/ms pair; draws a picture."""

from chipping.commands.shared_flags import add_label_flags
from classes import parse_colours
from runtime.errors import UserError
from runtime.values import whole

# What --help shows.
FIRST_FLAGS = ("--annotations", "--pan", "--ms", "--output", "--no-pictures", "--overwrite", "--config")


def add_arguments(parser):
    parser.add_argument("folder", nargs="?", help="folder made by chip.py, a warehouse or its `latest`, a delivered product (.SAFE, .tar, "
                        "STAC item …), or images (with --annotations)")
    parser.add_argument("--annotations", metavar="FILE", help="boxes of the images: COCO JSON, folder of VOC, CSV, GeoJSON …")
    parser.add_argument("--pan", metavar="FILE", help="panchromatic raster: says how it and --ms lie on each other, in place of a folder")
    parser.add_argument("--ms", metavar="FILE", help="multispectral raster of --pan")
    add_label_flags(parser)
    parser.add_argument("--output", metavar="FILE",
                        help="where the contact sheet goes; contact_sheet.png in the folder by default, boxes.png here for images, "
                        "<scene>.png here for products")
    parser.add_argument("--overwrite", action="store_true", help="replace the file of --output")
    parser.add_argument("--no-pictures", action="store_true", help="words only")
    parser.add_argument("--seed", type=whole(0), default=0, help="of the choice of pictures")
    parser.add_argument("--class-colours", type=parse_colours, metavar="LIST", help="colours of classes: water=#1f77b4,forest=#006400")


def run(args, console):
    if args.pan or args.ms:
        if not (args.pan and args.ms) or args.folder or args.annotations:
            raise UserError("a pair is inspected by --pan FILE and --ms FILE, both and nothing else")
        from chipping.pair_inspection import inspect_pair  # imports torch: seconds that other kinds do without

        return inspect_pair(args.pan, args.ms, console.result)
    if not args.folder:
        raise UserError("inspect needs a folder, a product, or --pan FILE and --ms FILE")
    if args.annotations:
        from chipping.box_inspection import inspect_boxes

        inspect_boxes(
            args.folder, args.annotations, label_map=args.label_map, point_size=args.point_size, class_field=args.class_field,
            output=args.output, overwrite=args.overwrite, pictures=not args.no_pictures, seed=args.seed, say=console.result,
            note=console.note, colours=args.class_colours,
        )
        return
    if args.label_map or args.point_size or args.class_field:
        raise UserError("--label-map, --point-size and --class-field are about boxes; pass --annotations")
    from chipping.inspection import inspect_folder

    inspect_folder(
        args.folder, output=args.output, overwrite=args.overwrite, pictures=not args.no_pictures, seed=args.seed, say=console.result,
        colours=args.class_colours,
    )
