"""Which mask belongs to which image: by key, the file's stem without a suffix that the user names. Exact, or an error that says which."""

from raster.source import scene_name
from runtime.errors import UserError, did_you_mean


def by_key(paths, suffix=None, what="image"):
    """
    {key: path}. The key is the file's stem; with `suffix` (such as `_S2Hand`) without that ending, which every file must then have.

    Two files with one key are an error: nobody could tell whose patches are whose.
    """
    keyed = {}
    for path in paths:
        key = scene_name(path)
        if suffix:
            if not key.endswith(suffix) or key == suffix:
                raise UserError(f"{path} does not end in {suffix!r} as --{what}-suffix says; narrow the pattern or change the suffix")
            key = key.removesuffix(suffix)
        if key in keyed:
            raise UserError(f"two {what}s share the name {key!r}: {keyed[key]} and {path}; rename one, or leave one out of --{what}s")
        keyed[key] = path
    return keyed


def pair(images, masks):
    """{key: (image, mask)} of two {key: path}. Whoever has no partner is named."""
    lonely_images, lonely_masks = sorted(images.keys() - masks.keys()), sorted(masks.keys() - images.keys())
    if lonely_images:
        key = lonely_images[0]
        raise UserError(
            f"{images[key]} has no mask{and_more(lonely_images)}; expected a mask named {key!r}."
            f"{did_you_mean(key, masks)} Where the names end differently, pass --image-suffix and --mask-suffix"
        )
    if lonely_masks:
        key = lonely_masks[0]
        raise UserError(f"{masks[key]} has no image{and_more(lonely_masks)}; expected an image named {key!r}, or --exclude it.")
    return {key: (images[key], masks[key]) for key in sorted(images)}


def and_more(names):
    return f" ({len(names) - 1} more are like it)" if len(names) > 1 else ""
