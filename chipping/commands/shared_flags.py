"""Flags that several commands of chip.py have."""

import os

from runtime.values import listed, numbers, whole


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


def add_workers_flag(group):
    group.add_argument("--workers", type=whole(1), default=1, metavar="N", help="processes; the result is the same for any number")


def count_workers(asked):
    """Processes that cut: `asked` for by --workers, or as many as torchrun has started."""
    return max(asked, int(os.environ.get("WORLD_SIZE", 1)))
