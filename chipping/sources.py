"""What a chip set records of its source files, so that it is not continued with files that have changed."""

import os

from raster.dated import Dated, DatedClouds
from raster.product_scene import CloudScene, ProductScene
from raster.source import describe, is_remote, mask_stamps
from runtime.errors import UserError

STAMPS = ("size", "mtime")
MASK_STAMPS = ("mask_size", "mask_mtime")  # of the .msk file, where there is one
FILES = {"ms": ("path", ""), "pan": ("pan", "pan_")}  # of a pair's source: the key of each file's path, and the prefix of its stamps


def stamps_in(source, prefix=""):
    """[size, mtime, and those of a .msk file] of one file in a source."""
    return [source[prefix + key] for key in (*STAMPS, *MASK_STAMPS) if prefix + key in source]


def find_change(old, new):
    """
    The first file of a scene or tile that is not the one it was: (its key, "has changed", "is new" or "is gone"); None where all are.

    old, new: {key: [size, mtime, and those of a .msk file beside it]}; size and mtime are None for remote files.
    """
    for key in (*new, *old):
        if old.get(key) != new.get(key):
            return key, "has changed" if key in old and key in new else "is new" if key in new else "is gone"
    return None


def refuse_changed_sources(earlier, now, path_of, folder):
    """
    UserError where a file is not, or no longer, the one from which chips in `folder` were cut: old and new ones must not be mixed.

    earlier, now: {scene or tile: {key: stamps}}, see find_change; what is in one of them alone is not compared. path_of(scene, key): path
    of a file that is there now.
    """
    for name, old in earlier.items():
        if name in now and (change := find_change(old, now[name])):
            (key, what), new = change, now[name]
            file = f"the {key} file of {name}" if what == "is gone" else path_of(name, key)
            beside = ".msk" if what == "has changed" and old[key][:2] == new[key][:2] else ""
            raise UserError(f"{file}{beside} {what} since chips were cut into {folder}; pass --overwrite to cut all again")


# --- scenes --------------------------------------------------------------------------------------------------------------------


def source_of(info):
    """
    Path, size and modification time, of a .msk file beside it too: enough to notice that a source is not the one that chips were cut from.
    """
    if isinstance(info.path, (Dated, DatedClouds)):
        return source_of_dates(info.path)
    if isinstance(info.path, (ProductScene, CloudScene)):
        return source_of_product(info)
    path = info.path if is_remote(info.path) else os.path.abspath(info.path)
    return {"path": path, "size": info.size, "mtime": info.mtime, **mask_stamps(path)}


def source_of_dates(path, known=None):
    """
    The source of a scene, or of cloud masks, of several dates: that of the last, with the paths of all and sizes and times as a list each.

    known: {absolute path: source} of members whose sources are not those of their files.
    """
    members = [(known or {}).get(where_is(member)) or source_of_member(member) for member in path.members]
    stamps = {key: [source.get(key) for source in members] for key in (*STAMPS, *MASK_STAMPS) if any(key in source for source in members)}
    return {**members[-1], **stamps, "paths": [source["path"] for source in members]}


def source_of_member(path):
    """source_of a path; a product is not opened for it."""
    return source_of_scene(path, *path.stamps()) if isinstance(path, ProductScene) else source_of(describe(path))


def source_of_product(info):
    """The source of a product, or of its cloud layer: sizes and times are lists, of each file that is read."""
    if isinstance(info.path, CloudScene):
        return {"path": where_is(info.path), "size": info.size, "mtime": info.mtime}
    return source_of_scene(info.path, info.size, info.mtime)


def source_of_scene(path, size, mtime):
    """The source of a ProductScene."""
    product = path.product
    return {
        "path": where_is(path), "size": size, "mtime": mtime, "product": product.kind, "sensor": product.sensor,
        "datetime": product.time, "tile": product.tile, "bands": [band.name for band in path.bands],
    }


def where_is(path):
    """A product's path as text: absolute, unless it is an address."""
    return str(path) if "://" in path else os.path.abspath(path)


def stamps_of(image, masks, clouds):
    """
    {"image" | layer | "clouds": [size, mtime, and those of a .msk file]}: what is compared to know a scene's files again.

    image, clouds: sources (see source_of), clouds None without one. masks: {layer: source}.
    """
    sources = {"image": image, **masks, **({"clouds": clouds} if clouds else {})}
    return {what: stamps_in(source) for what, source in sources.items()}


# --- tiles of pan and ms -------------------------------------------------------------------------------------------------------


def tile_settings(tile):
    """The part of the settings that a tile decides."""
    facts = {"name": tile.name, "area": list(tile.pair.area), "shift": list(tile.pair.shift), "step": tile.pair.step}
    if tile.pair.masked != (None, None):
        facts["masked"] = list(tile.pair.masked)
    return facts


def source_of_pair(pair):
    """The files of a pair with size and modification time, of .msk files too where there are some; None for what is remote."""
    source = {"pan": pair.pan, "path": pair.ms}
    for path, prefix in ((pair.ms, ""), (pair.pan, "pan_")):
        status = None if is_remote(path) else os.stat(path)
        source |= {f"{prefix}size": status and status.st_size, f"{prefix}mtime": status and status.st_mtime}
        source |= {f"{prefix}{key}": value for key, value in mask_stamps(path).items()}
    return source


def stamps_of_pair(source, now=None):
    """
    {"ms" | "pan": stamps} of a source. now: today's source of the same tile, which stands in for sizes and times that sets of earlier
    versions do not state.
    """
    if now is not None:
        source = {**{prefix + key: now[prefix + key] for _, prefix in FILES.values() for key in STAMPS}, **source}
    return {kind: stamps_in(source, prefix) for kind, (_, prefix) in FILES.items()}


def has_changed(old, now):
    """Whether a tile's files are no longer those of an earlier run. old, now: sources."""
    return find_change(stamps_of_pair(old, now), stamps_of_pair(now)) is not None


def refuse_changed_tiles(lines, sources, folder):
    """UserError where tiles' files are not those of which the chips or windows of `lines` were made. sources: {tile: source}."""
    old = {line["tile"]: line["source"] for line in lines}
    earlier = {tile: stamps_of_pair(source, sources[tile]) for tile, source in old.items()}
    now = {tile: stamps_of_pair(source) for tile, source in sources.items()}
    refuse_changed_sources(earlier, now, lambda tile, kind: sources[tile][FILES[kind][0]], folder)
