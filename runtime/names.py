"""Resolves names that a file states inside one folder: a file from somebody else leads nowhere else."""

import os
from pathlib import Path

from runtime.errors import UserError

LONGEST_NAME = 255 - len(".") - len(".part") - len("-journal")  # bytes; file systems take 255, and temporary names are longer


def path_inside(folder, name, stated_by):
    """
    folder / name, of a name that the file `stated_by` states. UserError where it is no name, or one that leaves the folder.

    For a file that will be written, moved or deleted, see require_real_folder too.
    """
    if not isinstance(name, str) or not name or "\0" in name:
        raise UserError(f"{stated_by} names {name!r} as a file; expected the name of one below {folder}")
    if os.path.isabs(name) or os.path.splitdrive(name)[0] or ".." in name and ".." in Path(name).parts:
        raise UserError(f"{stated_by} names {name}, which is outside of {folder}; expected names below the folder")
    return Path(folder) / name


def require_real_folder(place, folder):
    """
    UserError where `place`, a path below `folder`, is outside of it by a symbolic link.

    It is asked for the folder of a file that is to be deleted or moved; the file itself may be a link, whose target stays as it is.
    """
    if place == Path(folder):
        return
    inside, whole = os.path.realpath(place), os.path.realpath(folder)
    if os.path.commonpath([inside, whole]) != whole:
        raise UserError(f"{place} is a link to {inside}, outside of {folder}, where nothing is written or deleted; remove the link")


def require_text(path, what):
    """UserError where a path from the system holds bytes that are not UTF-8: no JSON and no raster library takes such a name."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{what} {str(path)!r} is not UTF-8; rename it") from error


def require_short_names(paths):
    """
    UserError where the name of a file to be written, or of the temporary ones beside it, is longer than file systems allow.

    Before any work: else the first file that is written would tell, hours later.
    """
    longest = max((Path(path).name for path in paths), key=lambda name: len(os.fsencode(name)), default="")
    if (length := len(os.fsencode(longest))) > LONGEST_NAME:
        raise UserError(f"{longest} would be a file name of {length} bytes, and {LONGEST_NAME} are possible; "
                        f"rename the input to be {length - LONGEST_NAME} shorter")
