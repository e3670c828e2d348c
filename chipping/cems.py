"""Finds the tiles of the CEMS wildfire data set: EMSRxxx/AOIyy/EMSRxxx_AOIyy_zz/…_S2L2A.tif with its _DEL, _GRA and _CM."""

import os
from pathlib import Path

from chipping.patch_set import SPLITS
from runtime.errors import UserError

IMAGE = "_S2L2A"
LAYERS = ("DEL", "GRA")
CLOUDS = "CM"
SUFFIXES = (".tif", ".tiff")


def find_tiles(folder, excluded=lambda scene: False):
    """
    {tile: {"image": path, "DEL": path, "GRA": path, "CM": path, "split": "train" | "val" | "test" | None}} below `folder`, sorted by tile.

    Keys other than image and split are missing where the file is. The split is the folder train, val or test that the tile lies in, however
    deeply nested (the archives unpack to train/train/EMSR…). A tile without any mask, a mask without image, a tile found twice: errors.
    """
    if not Path(folder).is_dir():
        raise UserError(f"{folder} does not exist; expected the folder of the CEMS data with EMSRxxx/AOIyy/EMSRxxx_AOIyy_zz/ in it")
    tiles, partners = {}, {}
    for root, folders, files in os.walk(folder, followlinks=True):
        folders.sort()
        for name in sorted(files):
            stem, suffix = os.path.splitext(name)
            tile, _, kind = stem.rpartition("_")
            if suffix.lower() not in SUFFIXES or not tile or name[0] == "." or excluded(tile):
                continue
            path = os.path.join(root, name)
            if "_" + kind == IMAGE:
                if tile in tiles:
                    raise UserError(f"tile {tile} is there twice: {tiles[tile]['image']} and {path}; remove one")
                tiles[tile] = {"image": path, "split": split_of(Path(root).relative_to(folder).parts)}
            elif kind in (*LAYERS, CLOUDS):
                key = (root, tile, kind)
                if key in partners:
                    raise UserError(f"{kind} of tile {tile} is there twice: {partners[key]} and {path}; remove one")
                partners[key] = path
    for tile, files in tiles.items():
        root = os.path.dirname(files["image"])
        files.update({kind: partners.pop((root, tile, kind)) for kind in (*LAYERS, CLOUDS) if (root, tile, kind) in partners})
        if not any(layer in files for layer in LAYERS):
            raise UserError(f"{files['image']} has no mask; expected {tile}_DEL.tif or {tile}_GRA.tif beside it, or --exclude {tile}")
    if partners:
        path = min(partners.values())
        tile = min(partners, key=lambda key: partners[key])[1]
        raise UserError(f"{path} has no image; expected {tile}{IMAGE}.tif beside it, or --exclude {tile}")
    if not tiles:
        raise UserError(f"{folder} holds no *{IMAGE}.tif or .tiff; expected EMSRxxx/AOIyy/EMSRxxx_AOIyy_zz/EMSRxxx_AOIyy_zz{IMAGE}.tif")
    return dict(sorted(tiles.items()))


def split_of(parts):
    """The split that the folders above a tile name, the innermost one of several; or None."""
    return next((part for part in reversed(parts) if part in SPLITS), None)
