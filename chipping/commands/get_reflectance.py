"""chip.py get-reflectance: samples lines for the reflectance file of fake-chips from rasters."""

from chipping.commands.shared_flags import add_pair_flags
from runtime.errors import UserError
from runtime.values import whole

# What --help shows.
FIRST_FLAGS = ("--pan", "--ms", "--divide-by", "--offset", "--count", "--output", "--note", "--config")


def add_arguments(parser):
    add_pair_flags(parser)
    parser.add_argument("-n", "--count", type=whole(1), default=40, help="lines from each pair")
    parser.add_argument("-o", "--output", metavar="FILE", help="append to this file; to the screen by default")
    parser.add_argument("--seed", type=whole(0), default=0, help="of the places")
    parser.add_argument("--note", default="", help="text at the end of each line; file and place by default")


def run(args, console):
    if not args.pan or not args.ms:
        raise UserError("pass --pan and --ms")
    import os

    from chipping.get_reflectance import sample_reflectances
    from chipping.plain_pairs import pair_tiles
    from raster.pair_files import scale_of_pair
    from runtime.files import require_writable

    if args.output:
        require_writable(os.path.dirname(args.output) or ".")
    tiles, remarks = pair_tiles(args.pan, args.ms, args.shift)
    for remark in dict.fromkeys(remarks):
        console.note(remark)
    lines = []
    for tile in tiles:
        divide_by, offset = scale_of_pair(tile.pair, args.divide_by, args.offset)
        lines += sample_reflectances(tile.pair, args.count, divide_by, offset, args.seed, args.note)
    if args.output:
        with open(args.output, "a", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
        console.result(f"{len(lines)} lines added to {args.output}")
    else:
        for line in lines:
            console.result(line)
