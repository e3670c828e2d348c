"""Matches masks to images by key: the file's stem, without a suffix that the user names."""

from raster.places import last_of_places
from raster.product import names_scene
from raster.product_scene import ProductScene
from raster.source import scene_name
from runtime.errors import UserError, did_you_mean


def by_key(paths, suffix=None, what="image"):
    """
    {key: path}. The key is the file's stem; with `suffix` (such as `_S2Hand`) without that ending, which every file must then have.

    Two files with one key are a UserError: the names of their patches would be the same.
    """
    keyed = {}
    for path in paths:
        key = scene_name(path)
        if suffix and not isinstance(path, ProductScene):
            if not key.endswith(suffix) or key == suffix:
                raise UserError(f"{path} does not end in {suffix!r} as --{what}-suffix says; narrow the pattern or change the suffix")
            key = key.removesuffix(suffix)
        if key in keyed:
            raise UserError(f"two {what}s share the name {key!r}: {keyed[key]} and {path}; rename one, or leave one out of --{what}s")
        keyed[key] = path
    return keyed


def by_tile_and_date(masks, images):
    """
    Masks {key: path} under the keys of their images, {key: path}. A product's mask need not have its name: one that names tile and date
    will do (`32TQM_20220205.tif`). Two such masks for one product are a UserError.
    """
    keyed = dict(masks)
    for key, image in images.items():
        if key in masks or not isinstance(image, ProductScene) or not image.product.tile or not image.product.date:
            continue
        found = [name for name in keyed if name not in images and names_scene(name, image.product)]
        if len(found) > 1:
            raise UserError(f"{image} has two masks by tile and date, {masks[found[0]]} and {masks[found[1]]}; leave one out of --masks")
        if found:
            keyed[key] = keyed.pop(found[0])
    return keyed


def by_place(masks, images):
    """
    Masks {key: path} of images {key: path} of several dates: one that is named as a place without date is of its last one. UserError for
    two masks of one scene.
    """
    keyed, places = {key: path for key, path in masks.items() if key in images}, last_of_places(images)
    for key, path in masks.items():
        scene = key if key in images else places.get(key, key)
        if scene in keyed and keyed[scene] != path:
            raise UserError(f"{images[scene]} has two masks, {keyed[scene]} by name and {path} of its place; leave one out of --masks")
        keyed[scene] = path
    return keyed


def refuse_masks_alone(images, masks):
    """UserError that names a mask whose image is not there. {key: path} each."""
    if alone := sorted(masks.keys() - images.keys()):
        key = alone[0]
        raise UserError(f"{masks[key]} has no image{and_more(alone)}; expected one named {key!r}, or of a place of that name, or "
                        f"--exclude it.{did_you_mean(key, images)}")


def refuse_unpaired(images, masks):
    """UserError that names a file of two {key: path} without a partner."""
    lonely_images, lonely_masks = sorted(images.keys() - masks.keys()), sorted(masks.keys() - images.keys())
    if lonely_images:
        key = lonely_images[0]
        raise UserError(
            f"{images[key]} has no mask{and_more(lonely_images)}; expected one named {key!r}.{did_you_mean(key, masks)} "
            "For other endings pass --image-suffix and --mask-suffix"
        )
    if lonely_masks:
        key = lonely_masks[0]
        raise UserError(f"{masks[key]} has no image{and_more(lonely_masks)}; expected an image named {key!r}, or --exclude it.")


def and_more(names):
    return f" ({len(names) - 1} more are like it)" if len(names) > 1 else ""
