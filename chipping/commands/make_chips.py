"""chip.py make-chips: cuts an ARD, or pan and ms rasters, into training pairs for pansharpening."""

from chipping.commands.shared_flags import add_pair_flags, add_storage_flags, add_workers_flag, count_workers
from runtime.errors import UserError
from runtime.values import listed, number, whole, wholes

# What --help shows.
FIRST_FLAGS = ("--ard-dir", "--pan", "--ms", "--chip-dir", "--count", "--config", "--allow-list", "--divide-by", "--chip-size", "--shift",
               "--workers")


def add_arguments(parser):
    source = parser.add_argument_group("where pixels come from: an ARD, or pairs of rasters")
    source.add_argument("-a", "--ard-dir", metavar="DIR", help="ARD delivery, the folder with acquisition_collections/; s3:// works")
    source.add_argument("-y", "--allow-list", "--allow-cids", "--accept-cids", metavar="FILE", help="text file of CIDs to use, one a line")
    add_pair_flags(source)
    source.add_argument("--bands", type=listed, metavar="NAMES",
                        help="names of the ms bands of pairs, separated by commas (default: as the files have them)")
    source.add_argument("--area", type=wholes(4, "COLUMN,ROW,WIDTH,HEIGHT in ms pixels"), metavar="COL,ROW,WIDTH,HEIGHT",
                        help="only this part of each pair, in ms pixels")

    chips = parser.add_argument_group("chips")
    chips.add_argument("-c", "--chip-dir", default="chips", metavar="DIR", help="where they go")
    chips.add_argument("-n", "--count", type=whole(1), default=1024, help="how many")
    chips.add_argument("-s", "--starting-from", type=whole(0), metavar="N",
                       help="make chips N, N + 1 … of the endless run; by default the folder is filled up to --count")
    chips.add_argument("-m", "--minimum-valid", type=number(0, 1), default=0.75, metavar="SHARE", help="of a window's pan and of its ms")
    chips.add_argument("--chip-size", type=whole(1), default=512, metavar="PX", help="side of the truth")
    chips.add_argument("--extra-downsample", type=whole(1), metavar="N",
                       help="shrink everything by N first (default: 2 for an ARD, 1 for pairs)")
    chips.add_argument("--reduction", choices=("box", "mtf"),
                       help="how inputs are shrunk: exact means, or the sensors' blur (default: box for an ARD, mtf for pairs)")
    add_storage_flags(chips)
    chips.add_argument("--sampler", choices=("r2", "r2-plain", "grid"), default="r2",
                       help="places of windows: evenly spread; the same without phase or offset; side by side")

    run = parser.add_argument_group("the run")
    add_workers_flag(run)
    run.add_argument("--overwrite", action="store_true", help="replace chips made with other settings")
    run.add_argument("--strict", action="store_true", help="stop at a tile or window that cannot be used or read")


def run(args, console):
    if bool(args.ard_dir) == bool(args.pan or args.ms):
        raise UserError("pass either --ard-dir, or --pan and --ms")
    if args.ard_dir and (args.area or args.bands or args.shift != (0.0, 0.0)):
        raise UserError("--area, --bands and --shift are for --pan and --ms; the tiles of an ARD are used as they are")
    if bool(args.pan) != bool(args.ms):
        raise UserError("--pan and --ms belong together; pass both")
    if args.allow_list and not args.ard_dir:
        raise UserError("--allow-list names strips of an ARD; pass it with --ard-dir")
    from runtime.workers import prepare_workers

    workers = count_workers(args.workers)
    prepare_workers(["chipping.make_chips", "chipping.pan_chips"], workers)  # they import while this process does
    from chipping.chip_plan import ChipOptions, plan_ard_chips, plan_pair_chips
    from chipping.chipset import RunOptions
    from chipping.make_chips import Listeners, make_chips

    options = ChipOptions(
        size=args.chip_size, extra=args.extra_downsample, minimum_valid=args.minimum_valid, sampler=args.sampler,
        reduction=args.reduction, store=args.store, dtype=args.dtype, divide_by=args.divide_by, offset=args.offset,
    )
    if args.ard_dir:
        tiles, recipe = plan_ard_chips(args.ard_dir, args.allow_list, options, strict=args.strict, note=console.note, log=console.log)
    else:
        bands = tuple(args.bands.split(",")) if args.bands else None
        tiles, recipe = plan_pair_chips(
            args.pan, args.ms, options, shift=args.shift, area=args.area, bands=bands, strict=args.strict, note=console.note
        )
    with console.progress(args.count, "chips") as bar:
        listeners = Listeners(
            chip=lambda line: console.log(f"{line['file']} from {line['tile']} at {line['left']},{line['top']}"),
            skipped=console.log,
            verdict=lambda verdict: bar.update(verdict["reason"] is None),
        )
        options = RunOptions(workers, args.overwrite, args.strict)
        summary = make_chips(tiles, recipe, args.chip_dir, args.count, args.starting_from, options, listeners)
    say_summary(summary, len(tiles), args.chip_dir, console)


def say_summary(summary, tiles, folder, console):
    """What was made and left out. summary: of make_chips; tiles: how many there were."""
    reasons = "".join(f", {n} windows left out ({reason})" for reason, n in sorted(summary["skipped"].items()))
    there = f", {summary['present']} were there" if summary["present"] else ""
    console.result(f"{summary['made']} chips made in {folder}{there}{reasons}; {tiles} tile{'s' * (tiles > 1)}")
    if summary["unreadable"]:
        named = ", ".join(f"{tile} ({n})" for tile, n in sorted(summary["unreadable"].items())[:3])
        more = " …" if len(summary["unreadable"]) > 3 else ""
        console.result(f"windows that could not be read lie in {named}{more}; {folder}/skipped.jsonl says why")
