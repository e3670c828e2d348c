"""chip.py inspect: says what is in a chip set and draws its contact sheet."""

from classes import parse_colours
from runtime.values import whole

# What --help shows.
FIRST_FLAGS = ("--output", "--no-pictures", "--overwrite", "--config")


def add_arguments(parser):
    parser.add_argument("folder", help="folder made by chip.py")
    parser.add_argument("--output", metavar="FILE", help="where the contact sheet goes; contact_sheet.png in the folder by default")
    parser.add_argument("--overwrite", action="store_true", help="replace the file of --output")
    parser.add_argument("--no-pictures", action="store_true", help="words only")
    parser.add_argument("--seed", type=whole(0), default=0, help="of the choice of pictures")
    parser.add_argument("--class-colours", type=parse_colours, metavar="LIST", help="colours of classes: water=#1f77b4,forest=#006400")


def run(args, console):
    from chipping.inspection import inspect_folder

    inspect_folder(
        args.folder, output=args.output, overwrite=args.overwrite, pictures=not args.no_pictures, seed=args.seed, say=console.result,
        colours=args.class_colours,
    )
