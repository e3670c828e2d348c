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
    python chip.py make-tiles --images images --annotations train.json --output-dir tiles --tile-size 512 --overlap 128
    python chip.py fake-captures --output-dir captures --runs 6 --frames 50
    python chip.py make-warehouse --runs captures --output-root artifacts/tensor_warehouse
    python chip.py make-patches --images 'safe/*.SAFE' --masks 'masks/*.tif' --bands B02,B03,B04,B8A,B11,B12 --patches-dir patches
    python chip.py inspect patches
    python chip.py inspect S2B_MSIL2A_20220205T101211_N0400_R022_T32TQM_20220205T120000.SAFE
    python chip.py inspect images --annotations train.json
    python chip.py inspect --pan scene-pan.tif --ms scene-ms.tif

Each command has its own help: python chip.py make-patches --help
"""

if __name__ == "__main__":
    from runtime.stop_signals import catch_stop_signals

    catch_stop_signals("What was finished is safe; run the same command again to continue")  # before the imports, which take a moment

import argparse
import os
import sys

from chipping.commands import (
    fake_captures,
    fake_chips,
    get_reflectance,
    inspect,
    link_chips,
    make_chips,
    make_patches,
    make_tiles,
    make_warehouse,
)
from chipping.commands.console import LoggedConsole
from constants import VERSION
from runtime.errors import Advice, run_program
from runtime.flags import Parser, add_common_flags, add_config_flag
from runtime.network import add_network_flag, permit

# Each module has add_arguments(parser), which imports nothing heavy so that --help answers at once, and run(args, console).
COMMANDS = {
    "make-patches": (make_patches, "scenes with labels → patches with masks"),
    "make-chips": (make_chips, "an ARD, or pan and ms rasters → training pairs for pansharpening"),
    "make-tiles": (make_tiles, "images with boxes → tiles for a detector"),
    "make-warehouse": (make_warehouse, "frames with boxes → memory-mapped arrays for the small detectors"),
    "fake-captures": (fake_captures, "capture runs of moving shapes with exact boxes"),
    "fake-chips": (fake_chips, "training pairs for pansharpening out of noise and reflectances"),
    "get-reflectance": (get_reflectance, "lines for the reflectance file of fake-chips, from rasters"),
    "link-chips": (link_chips, "several folders of chips → one folder of links, mixed proportionally"),
    "inspect": (inspect, "what is in a chip set, a warehouse, a delivered product, images with boxes, or a pan/ms pair: words, a picture"),
}

OPENING_RASTERS = ("make-patches", "make-chips", "make-tiles", "make-warehouse", "get-reflectance", "inspect")

# Flags whose value may begin with a minus: `--offset -1000,-1000` is a value and no flag.
SIGNED_FLAGS = ("--offset", "--nodata", "--label-map", "--shift")


def build_parser():
    parser = Parser(description=__doc__)
    parser.add_argument("--log", metavar="FILE", help="append everything that is said to FILE")
    parser.add_argument("--version", action="version", version=f"chipmill {VERSION}")
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    for name, (module, summary) in COMMANDS.items():
        child = commands.add_parser(name, help=summary, description=summary, first=module.FIRST_FLAGS)
        module.add_arguments(child)
        add_config_flag(child, name)
        if name in OPENING_RASTERS:
            add_network_flag(child)
        add_common_flags(child)
        child.add_argument("--log", metavar="FILE", default=argparse.SUPPRESS, help="append everything that is said to FILE")
    return parser


def join_signed(argv):
    """`--offset -1000,0` as `--offset=-1000,0`, which argparse understands."""
    words = []
    for word in argv:
        if words and words[-1] in SIGNED_FLAGS and word[:1] == "-" and word[1:2].isdigit():
            words[-1] += "=" + word
        else:
            words.append(word)
    return words


def main(argv=None):
    args = build_parser().parse_args(join_signed(sys.argv[1:] if argv is None else argv))
    if int(os.environ.get("RANK", 0)):
        return 0  # under torchrun the first process does the work, with as many workers: the same files as without
    # One thread a process, --workers for more: BLAS threads that wait for each other double the CPU time of small matrices.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if args.command in OPENING_RASTERS:
        permit(vars(args).values(), args.allow_network)
    with LoggedConsole(args.quiet, args.log) as console:
        module, _ = COMMANDS[args.command]
        return module.run(args, console)


if __name__ == "__main__":
    run_program(main, Advice(memory="pass fewer --workers"))
