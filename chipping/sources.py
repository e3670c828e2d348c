"""Refuses to continue a chip set whose source files have changed."""

from runtime.errors import UserError


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
