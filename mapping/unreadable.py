"""What a record says of the blocks of a scene that could not be read. They come as (row, column, height, width, reason)."""

from runtime.errors import RunError

NAMED = 20  # blocks that a record names; it counts all


def require_some(info, unreadable, any_valid):
    """RunError where no pixel of a scene (RasterInfo) is valid because its blocks cannot be read."""
    if unreadable and not any_valid:
        raise RunError(f"{info.path}: none of its blocks can be read ({unreadable[0][4]})")


def remarks_on(unreadable, any_valid):
    """What a user should know of them: none or two lines."""
    return ["no valid pixel"] * (not any_valid) + [f"{len(unreadable)} blocks could not be read"] * bool(unreadable)


def in_record(unreadable):
    """Their number and the first of them, for a record."""
    named = [dict(zip(("row", "column", "height", "width", "reason"), block, strict=True)) for block in unreadable[:NAMED]]
    return {"unreadable_blocks": len(unreadable), "unreadable": named}
