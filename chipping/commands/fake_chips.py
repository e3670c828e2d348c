"""chip.py fake-chips: makes training pairs for pansharpening out of noise and reflectances."""

from chipping.commands.shared_flags import add_storage_flags
from constants import WORLDVIEW_BANDS
from runtime.values import names, whole

# What --help shows.
FIRST_FLAGS = ("--chip-dir", "--count", "--side", "--seed", "--reflectances", "--reduction", "--config", "--overwrite")


def add_arguments(parser):
    parser.add_argument("-i", "--reflectances", metavar="FILE", help="reflectance file (see get-reflectance); our own by default")
    parser.add_argument("--bands", type=names, metavar="LIST", help="names of ms bands, in the order of the reflectance file (default: the "
                        "eight of WorldView-2 and -3; blue,green,red,nir needs no file either)")
    parser.add_argument("-o", "--chip-dir", default="chips/fake", metavar="DIR", help="where chips go")
    parser.add_argument("-c", "--count", type=whole(1), default=256, help="how many; the folder is filled up to that")
    parser.add_argument("-r", "--seed", type=whole(0), default=0, help="of the noise")
    parser.add_argument("-s", "--side", type=whole(1), default=512, metavar="PX", help="side of a chip, a multiple of 4")
    parser.add_argument("--reduction", choices=("box", "mtf"), default="box", help="inputs by exact means, or blurred as sensors do")
    add_storage_flags(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace chips made with other settings")


def run(args, console):
    from chipping.fake_chips import FakeRecipe, make_fake_chips, our_reflectances

    bands = args.bands or WORLDVIEW_BANDS
    recipe = FakeRecipe(side=args.side, seed=args.seed, store=args.store, dtype=args.dtype, reduction=args.reduction, bands=bands)
    source = args.reflectances or our_reflectances(bands)
    with console.progress(args.count, "chips") as bar:
        made = make_fake_chips(source, args.chip_dir, args.count, recipe, args.overwrite, lambda line: bar.update())
    console.result(f"{made} chips made in {args.chip_dir}{f', {args.count - made} were there' if made < args.count else ''}")
