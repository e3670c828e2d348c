"""Flags that several commands of chip.py have."""

import os

from runtime.values import listed, names, number, numbers, size, whole

TILE_SIZE, OVERLAP, MIN_VISIBILITY = 512, 128, 0.2


def add_pair_flags(group):
    """--pan, --ms, --shift, --divide-by, --offset: a pair of rasters or several."""
    group.add_argument("--pan", nargs="+", metavar="PATTERN", help="panchromatic rasters: files, folders, globs in quotes, s3://")
    group.add_argument("--ms", nargs="+", metavar="PATTERN", help="multispectral rasters whose names differ only in pan and ms")
    group.add_argument("--shift", type=numbers(2, "0.5,0.5"), metavar="X,Y", default=(0.0, 0.0),
                       help="pan pixels from where the files say ms begins to where it does, right and down")
    group.add_argument("--divide-by", type=listed, metavar="N",
                       help="reflectance = (value + offset) / N (default: 10000 for an ARD, for pairs as the tags state it)")
    group.add_argument("--offset", type=listed, metavar="N", help="see --divide-by; 0 by default")


def add_storage_flags(group):
    """--store, --dtype: what a pan/ms chip keeps of the truth."""
    group.add_argument("--store", choices=("bands", "oklab", "both"), default="bands", help="what the truth is kept as")
    group.add_argument("--dtype", choices=("uint16", "float32"), default="uint16", help="uint16: reflectance x 10000, rounded")


def add_label_flags(group):
    """--label-map, --point-size, --class-field: how annotations of boxes are read."""
    group.add_argument("--label-map", metavar="NAME=CLASS,…", help="rename classes, or NAME=drop, NAME=ignore: unknown=drop,Dead=Tree")
    group.add_argument("--point-size", metavar="SIZE", help="side of the box around a point of a vector file: 40 (pixels) or 6m (metres)")
    group.add_argument("--class-field", metavar="NAME", help="property of a vector file that holds the class; label, class … by default")


def add_tile_flags(group):
    """--tile-size, --overlap, --min-visibility, --negatives, --tile-format: how images become tiles."""
    group.add_argument("--tile-size", type=size, default=str(TILE_SIZE), metavar="PX", help="side of a tile in pixels, or WIDTHxHEIGHT")
    group.add_argument("--overlap", type=whole(0), default=OVERLAP, metavar="PX", help="of neighbours; best as large as the objects")
    group.add_argument("--min-visibility", type=number(0, 1), default=MIN_VISIBILITY, metavar="SHARE",
                       help="of a box's area that a tile must show; what shows less is ignored there, not background")
    group.add_argument("--negatives", type=number(0, 1), default=1.0, metavar="SHARE",
                       help="of the tiles without objects, drawn with --seed; 0 leaves all of them out")
    group.add_argument("--tile-format", choices=("png", "npy", "none"), default="png",
                       help="png where it holds the pixels, else npy; none: windows are read from GeoTIFFs themselves")


def add_picture_flags(group):
    """--bands, --divide-by, --offset: of pictures and rasters alike."""
    group.add_argument("--bands", type=names, metavar="LIST", help="numbers from 1 or descriptions; all by default")
    group.add_argument("--divide-by", type=listed, metavar="N[,N…]",
                       help="reflectance = (value + offset) / N (default: as the tags state it, 255 for 8 bits)")
    group.add_argument("--offset", type=listed, metavar="N[,N…]", help="see --divide-by; 0 by default")


def add_workers_flag(group):
    group.add_argument("--workers", type=whole(1), default=1, metavar="N", help="processes; the result is the same for any number")


def count_workers(asked):
    """Processes that cut: `asked` for by --workers, or as many as torchrun has started."""
    return max(asked, int(os.environ.get("WORLD_SIZE", 1)))
