"""Scenes that are ready to be cut: images with their masks, checked from the headers alone, before any work."""

import os
from dataclasses import dataclass

import numpy as np

from chipping.labels import same_grid
from chipping.sources import source_of
from chipping.splits import event_of
from raster.dated import Dated, members_of
from raster.places import place_words
from raster.product_scene import ProductScene
from raster.rules import NotAllowed
from raster.sensor_bands import require_alike
from raster.source import describe, is_remote
from raster.stacked import Mismatch
from runtime.errors import RunError, UserError
from vectors.footprint import outline


@dataclass(frozen=True)
class LabelFile:
    """
    A mask of a scene. source: its path, size and mtime as the manifest states them. aligned: it needs warping to the image's grid. hides:
    a mask of its own (an internal or .msk one) says where its values count.
    """

    path: str
    nodata: float | None
    aligned: bool
    source: dict
    hides: bool = False


@dataclass(frozen=True)
class Scene:
    """
    An image and what belongs to it.

    block_height: rows that are decoded together. bands: zero-based positions of the bands to read. crs: text or None. transform: (a, b,
    c, d, e, f). nodata: the value that means no data in each of the bands, or None. zero_is_nodata: pixels that are 0 in all of them are no
    data. masks: {layer: LabelFile}. clouds: LabelFile or None. masked: what else hides pixels, see raster.hidden.DataBands. shift:
    what is added to the values of each band so that all scenes have one offset. source: path, size, mtime. labels: classes of the whole
    scene, for tasks that learn these. dates: ISO days of a scene of several, whose bands come one date after the other.
    """

    name: str
    split: str
    image: str
    bands: tuple
    dtype: str
    width: int
    height: int
    block_height: int
    crs: str | None
    transform: tuple
    nodata: tuple
    zero_is_nodata: bool
    masked: int | tuple | None
    shift: tuple
    masks: dict
    clouds: LabelFile | None
    source: dict
    labels: tuple = ()
    dates: tuple = ()

    @property
    def event(self):
        return self.source.get("tile") or event_of((place_words(self.name) if self.dates else None) or self.name)

    @property
    def label_sources(self):
        return {layer: mask.source for layer, mask in self.masks.items()}

    @property
    def cloud_source(self):
        return self.clouds.source if self.clouds else None


def choose_product_bands(images, wanted):
    """
    {name: path} in which products, and scenes of several dates, are the bands that `wanted` names (text of --bands, None for all of them).
    UserError for a name that a product lacks, and where bands of one name are not alike.

    A product that cannot be used stays as it is: describe_all leaves it out.
    """
    words = [word.strip() for word in wanted.split(",")] if wanted else None
    usable = {name: path for name, path in images.items() if isinstance(path, (ProductScene, Dated)) and not is_broken(path)}
    chosen = {name: path.with_bands(words) if words else path for name, path in usable.items()}
    products = [one for name, path in chosen.items() for _, one in members_of(name, path) if isinstance(one, ProductScene)]
    if products and len({len(scene.bands) for scene in products}) == 1:
        require_alike(products)
    return {**images, **chosen}


def is_broken(path):
    return any(isinstance(one, ProductScene) and one.product.problem for _, one in members_of("", path))


def describe_all(images, strict, note):
    """
    {name: RasterInfo} of {name: path}. Files that can't be opened are left out and returned as {name: why}; all of them, or one with
    `strict`, is a RunError.
    """
    infos, broken = {}, {}
    for name, path in images.items():
        try:
            infos[name] = describe(path)
        except UserError as error:
            is_there = is_remote(path) or isinstance(path, (ProductScene, Dated)) or os.path.exists(path)
            if isinstance(error, (NotAllowed, Mismatch)) or not is_there:
                raise
            if strict:
                raise RunError(f"{error} (--strict)") from error
            broken[name] = str(error)
            note(f"{error}; skipped")
    if not infos:
        raise RunError(f"none of {len(images)} images can be opened; the first: {next(iter(broken.values()))}")
    return infos, broken


# --- masks ---------------------------------------------------------------------------------------------------------------------


def check_mask(image, mask, align, what="mask", bands=1):
    """LabelFile for a mask of an image (two RasterInfo); UserError where they don't fit."""
    if mask.count != bands:
        expected = "one band of class numbers" if bands == 1 else f"{bands}, as --cloud-values says"
        raise UserError(f"{mask.path} has {mask.count} bands; expected {expected}")
    if same_grid(image, mask):
        return LabelFile(mask.path, mask.nodata, False, source_of(mask), mask.has_mask)
    known = image.crs is not None and mask.crs is not None
    if align and known:
        return LabelFile(mask.path, mask.nodata, True, source_of(mask), mask.has_mask)
    if (image.width, image.height) != (mask.width, mask.height):
        difference = f"{mask.path} is {mask.width}×{mask.height}, its image {image.width}×{image.height} pixels"
    elif image.crs != mask.crs:
        difference = f"{mask.path} is in {short(mask.crs)}, its image in {short(image.crs)}"
    else:
        difference = (
            f"{mask.path} lies elsewhere than its image (origins {mask.transform.c:.12g}, {mask.transform.f:.12g} and "
            f"{image.transform.c:.12g}, {image.transform.f:.12g})"
        )
    remedy = f"pass --align to warp the {what} to the image's grid" if known else "bring them onto one grid (without a CRS --align can't)"
    raise UserError(f"{difference}; {remedy}")


def short(crs):
    return crs.to_string()[:40] if crs is not None else "no CRS"


def make_scene(name, split, info, bands, nodata, zero_is_nodata, masked, shift, masks, clouds, source=None,
               labels=()):
    """Scene from what the checks found."""
    kinds = [np.dtype(info.dtypes[b]) for b in bands]
    if any(k.kind not in "iuf" for k in kinds):
        raise UserError(f"{info.path} has the type {info.dtypes[bands[0]]}; expected integers or real numbers")
    return Scene(
        name=name, split=split, image=info.path, bands=tuple(bands), dtype=np.result_type(*kinds).name,
        width=info.width, height=info.height,
        block_height=max(info.block_shapes[b][0] for b in bands),
        crs=info.crs.to_string() if info.crs is not None else None, transform=tuple(info.transform)[:6],
        nodata=nodata, zero_is_nodata=zero_is_nodata, masked=masked, shift=shift, masks=masks, clouds=clouds,
        source=source or source_of(info), labels=labels, dates=info.path.days if isinstance(info.path, Dated) else (),
    )


def outlines_of(infos):
    """{scene: Outline or None} of {scene: RasterInfo}."""
    return {name: outline(i.crs, i.transform, i.width, i.height) for name, i in infos.items()}
