"""What a set of pan/ms chips records of its tiles, so that a later run knows their files again."""

import os

from chipping.sources import find_change, refuse_changed_sources
from raster.source import is_remote, mask_stamps

FILES = {"ms": ("path", ""), "pan": ("pan", "pan_")}  # of a source: the key of each file's path, and the prefix of its other keys
STAMPS = ("size", "mtime")
MASK_STAMPS = ("mask_size", "mask_mtime")  # of the .msk file, where there is one


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


def stamp_keys(names):
    return [prefix + name for _, prefix in FILES.values() for name in names]


def stamps_of_pair(source, now=None):
    """
    {"ms" | "pan": [size, mtime, and those of a .msk file]} of a source. now: today's source of the same tile, which stands in for sizes
    and times that sets of earlier versions do not state.
    """
    if now is not None:
        source = {**{key: now[key] for key in stamp_keys(STAMPS)}, **source}
    return {
        kind: [source[prefix + key] for key in (*STAMPS, *MASK_STAMPS) if prefix + key in source] for kind, (_, prefix) in FILES.items()
    }


def has_changed(old, now):
    """Whether a tile's files are no longer those of an earlier run. old, now: sources."""
    return find_change(stamps_of_pair(old, now), stamps_of_pair(now)) is not None


def refuse_changed_tiles(lines, sources, folder):
    """UserError where tiles' files are not those of which the chips or windows of `lines` were made. sources: {tile: source}."""
    old = {line["tile"]: line["source"] for line in lines}
    earlier = {tile: stamps_of_pair(source, sources[tile]) for tile, source in old.items()}
    now = {tile: stamps_of_pair(source) for tile, source in sources.items()}
    refuse_changed_sources(earlier, now, lambda tile, kind: sources[tile][FILES[kind][0]], folder)
