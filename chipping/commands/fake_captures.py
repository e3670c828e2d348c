"""chip.py fake-captures: capture runs of moving coloured shapes on textured ground, with exact boxes."""

import re

from runtime.values import refused, size, whole

# What --help shows.
FIRST_FLAGS = ("--output-dir", "--runs", "--frames", "--size", "--objects", "--seed", "--config", "--overwrite")


def counts(text):
    """`0-5` or `1` as (fewest, most)."""
    found = re.fullmatch(r"(\d{1,2})(?:-(\d{1,2}))?", text)
    low, high = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
    if not low <= high <= 20:
        raise refused(text, "a number of objects up to 20 such as 3, or a range such as 0-5")
    return low, high


def add_arguments(parser):
    parser.add_argument("-o", "--output-dir", default="captures", metavar="DIR", help="where the runs go")
    parser.add_argument("--runs", type=whole(1, 10_000), default=6, metavar="N", help="how many; each has its own ground and objects")
    parser.add_argument("--frames", type=whole(1, 100_000), default=50, metavar="N", help="of each run")
    parser.add_argument("--size", type=size, default="640x360", metavar="WxH", help="of a frame in pixels")
    parser.add_argument("--objects", type=counts, default="0-5", metavar="N[-M]", help="in a frame")
    parser.add_argument("--seed", type=whole(0), default=0, help="of everything")
    parser.add_argument("--overwrite", action="store_true", help="replace runs made with other settings")


def run(args, console):
    from synthetic.captures import CaptureRecipe, make_captures

    recipe = CaptureRecipe(size=args.size, objects=args.objects, frames=args.frames, seed=args.seed)
    with console.progress(args.runs * args.frames, "frames") as bar:
        made, boxes = make_captures(args.output_dir, args.runs, recipe, args.overwrite, bar.update)
    there = args.runs * args.frames - made
    console.result(f"{made} frames with {boxes} boxes made in {args.output_dir}{f', {there} were there' if there else ''}")
    console.result(f"next: python chip.py make-warehouse --runs {args.output_dir}")
