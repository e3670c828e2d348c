"""chip.py link-chips: mixes several folders of chips into one folder of links."""

from runtime.errors import UserError

LEFT_OUT = {"broken": "broken links", "foreign": "other names", "unlisted": "not in its manifest"}

# What --help shows.
FIRST_FLAGS = ("--overwrite", "--allow-overlap", "--config")


def add_arguments(parser):
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="sources, and the destination last")
    parser.add_argument("--overwrite", action="store_true", help="replace the links of an earlier mix (never chips that are files)")
    parser.add_argument("--allow-overlap", action="store_true", help="only warn when patches of one ground are in different splits")


def run(args, console):
    if len(args.folders) < 2:
        raise UserError("link-chips needs at least one source and a destination: link-chips SOURCE… DESTINATION")
    from chipping.link_chips import link_chips

    *sources, destination = args.folders
    found = link_chips(sources, destination, args.overwrite, console.note, args.allow_overlap)
    for source, counts in found.items():
        extra = "".join(f", {counts[what]} {word}" for what, word in LEFT_OUT.items() if counts[what])
        console.result(f"{counts['linked']} from {source}{extra}")
    console.result(f"{sum(counts['linked'] for counts in found.values())} links in {destination}")
