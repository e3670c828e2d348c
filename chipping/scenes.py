"""Scenes that are ready to be cut: images with their masks, checked from the headers alone, before any work."""

import os
from dataclasses import dataclass

import numpy as np

from chipping.labels import same_grid
from chipping.splits import event_of
from constants import band_role
from raster.source import describe, is_remote, mask_stamps
from runtime.errors import RunError, UserError, did_you_mean
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
    data. masks: {layer: LabelFile}. clouds: LabelFile or None. alpha: whether the file's own mask or alpha band has to be looked at. shift:
    what is added to the values of each band so that all scenes have one offset. source: path, size, mtime.
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
    alpha: bool
    shift: tuple
    masks: dict
    clouds: LabelFile | None
    source: dict

    @property
    def event(self):
        return event_of(self.name)

    @property
    def label_sources(self):
        return {layer: mask.source for layer, mask in self.masks.items()}

    @property
    def cloud_source(self):
        return self.clouds.source if self.clouds else None


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
            if not is_remote(path) and not os.path.exists(path):
                raise
            if strict:
                raise RunError(f"{error} (--strict)") from error
            broken[name] = str(error)
            note(f"{error}; skipped")
    if not infos:
        raise RunError(f"none of {len(images)} images can be opened; the first: {next(iter(broken.values()))}")
    return infos, broken


def source_of(info):
    """
    Path, size and modification time, of a .msk file beside it too: enough to notice that a source is not the one that chips were cut from.
    """
    path = info.path if is_remote(info.path) else os.path.abspath(info.path)
    return {"path": path, "size": info.size, "mtime": info.mtime, **mask_stamps(path)}


def stamps_of(image, masks, clouds):
    """
    {"image" | layer | "clouds": [size, mtime, and those of a .msk file]}: what is compared to know a scene's files again.

    image, clouds: sources (see source_of), clouds None without one. masks: {layer: source}.
    """
    sources = {"image": image, **masks, **({"clouds": clouds} if clouds else {})}
    keys = ("size", "mtime", "mask_size", "mask_mtime")
    return {what: [source[key] for key in keys if key in source] for what, source in sources.items()}


# --- bands ---------------------------------------------------------------------------------------------------------------------


def choose_bands(infos, wanted=None, known_names=None):
    """
    ({scene: zero-based positions}, [names]) for all scenes.

    wanted: "1,2,5" (as GDAL counts, from 1) or descriptions ("B04,B8A" or a role such as red, nir, swir2), None for every band.
    known_names: names where the format fixes them and the files carry none. Scenes whose bands differ are a UserError.
    """
    chosen, names, named_by = {}, None, None
    by_number = bool(wanted) and all(word.strip().isdigit() for word in wanted.split(","))
    for scene, info in infos.items():
        described = [d or "" for d in info.descriptions]
        if known_names is not None:
            if info.count != len(known_names):
                raise UserError(f"{info.path} has {info.count} bands; expected {len(known_names)} ({' '.join(known_names)})")
            described = [d or n for d, n in zip(described, known_names, strict=True)] if any(described) else list(known_names)
        positions = band_positions(wanted, described, info)
        here = [described[p] for p in positions]
        if names is None:
            names, named_by = list(here), [info] * len(here)
        if len(here) != len(names):
            first = named_by[0].path
            raise UserError(f"{info.path} has {len(here)} bands, {first} has {len(names)}; all scenes need the same, pass --bands")
        for i, (a, b) in enumerate(zip(here, names, strict=True)):
            if by_number and not (a and b):  # a number says which band it is; the name is whoever's has one
                if a:
                    names[i], named_by[i] = a, info
            elif a.lower() != b.lower() and (band_role(a) or a) != (band_role(b) or b):
                raise UserError(
                    f"{info.path} has band {a!r} where {named_by[i].path} has {b!r}; all scenes need the same bands in the same order; "
                    f"pass --bands with their descriptions{'' if a and b else ', or by number where a file has none'}"
                )
        chosen[scene] = positions
    labels = [name or f"band_{p + 1}" for name, p in zip(names, chosen[next(iter(chosen))], strict=True)]
    return chosen, labels


def band_positions(wanted, described, info):
    """Zero-based positions of the wanted bands of one raster."""
    if not wanted:
        bands = range(info.count)
        if info.alpha_band is not None:
            bands = [b for b in bands if b != info.alpha_band]
        return tuple(bands)
    positions = []
    for word in (w.strip() for w in wanted.split(",")):
        if word.isdigit() and word not in described:
            if not 1 <= int(word) <= info.count:
                raise UserError(f"--bands {word}: {info.path} has bands 1..{info.count}")
            positions.append(int(word) - 1)
            continue
        found = [i for i, d in enumerate(described) if d.lower() == word.lower()]
        found = found or [i for i, d in enumerate(described) if band_role(word) and band_role(d) == band_role(word)]
        if len(found) != 1:
            known = [d for d in described if d]
            what = "is there more than once" if found else "is not there"
            has = f"its bands are {', '.join(known)}" if known else f"its {info.count} bands have no descriptions, count them from 1"
            raise UserError(f"--bands {word!r} {what} in {info.path}; {has}.{did_you_mean(word, known)}")
        positions.append(found[0])
    if len(set(positions)) != len(positions):
        raise UserError(f"--bands {wanted} names a band twice in {info.path}")
    return tuple(positions)


# --- nodata --------------------------------------------------------------------------------------------------------------------


def decide_nodata(info, bands, flag):
    """
    The value that means "no data" in each of `bands` (zero-based), None where none does, from --nodata (a number, or "none") or the file.

    One that the band's type can't hold is refused.
    """
    if flag is not None and flag.lower() == "none":
        return (None,) * len(bands)
    try:
        values = tuple(info.nodatavals[b] if flag is None else float(flag) for b in bands)
    except ValueError as error:
        raise UserError(f"--nodata expects a number or none, got {flag!r}") from error
    values = tuple(None if v is None or v != v else v for v in values)  # NaN is never data anyway
    for band, nodata in zip(bands, values, strict=True):
        kind = np.dtype(info.dtypes[band])
        if nodata is None or kind.kind not in "iu":
            continue
        if not (np.iinfo(kind).min <= nodata <= np.iinfo(kind).max and nodata == int(nodata)):
            where = "--nodata" if flag is not None else f"the nodata tag of {info.path}"
            raise UserError(
                f"{where} is {nodata:g}, which {kind.name} can't hold; pass --nodata with the value that is meant, or --nodata none"
            )
    return values


def zero_means_nothing(info, bands, nodata, offset, flag):
    """
    Is a pixel that is 0 in all of `bands` no data, though no tag says so?

    It is in digital numbers with an offset (Sentinel-2): 0 is fill there and never a measurement, and the offset would make a reflectance
    of it. nodata: of decide_nodata. offset: what is added to values, all of it. flag: --nodata, which says otherwise.
    """
    whole = all(np.dtype(info.dtypes[b]).kind in "iu" for b in bands)
    return flag is None and whole and any(offset) and all(value is None for value in nodata)


def one_or_each(values):
    """What all values are, or the values where they differ."""
    values = tuple(values)
    return values[0] if len(set(values)) == 1 else values


# --- masks ---------------------------------------------------------------------------------------------------------------------


def check_mask(image, mask, align, what="mask"):
    """LabelFile for a mask of an image (two RasterInfo); UserError where they don't fit."""
    if mask.count != 1:
        raise UserError(f"{mask.path} has {mask.count} bands; expected one band of class numbers")
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
            f"{mask.path} lies elsewhere than its image (origins {mask.transform.c:g}, {mask.transform.f:g} and "
            f"{image.transform.c:g}, {image.transform.f:g})"
        )
    remedy = f"pass --align to warp the {what} to the image's grid" if known else "bring them onto one grid (without a CRS --align can't)"
    raise UserError(f"{difference}; {remedy}")


def short(crs):
    return crs.to_string()[:40] if crs is not None else "no CRS"


def make_scene(name, split, info, bands, nodata, zero_is_nodata, shift, masks, clouds, source=None):
    """Scene from what the checks found."""
    kinds = [np.dtype(info.dtypes[b]) for b in bands]
    if any(k.kind not in "iuf" for k in kinds):
        raise UserError(f"{info.path} has the type {info.dtypes[bands[0]]}; expected integers or real numbers")
    return Scene(
        name=name, split=split, image=info.path, bands=tuple(bands), dtype=np.result_type(*kinds).name,
        width=info.width, height=info.height,
        block_height=max(info.block_shapes[b][0] for b in bands),
        crs=info.crs.to_string() if info.crs is not None else None, transform=tuple(info.transform)[:6],
        nodata=nodata, zero_is_nodata=zero_is_nodata, alpha=info.has_mask, shift=shift, masks=masks, clouds=clouds,
        source=source or source_of(info),
    )


def outlines_of(infos):
    """{scene: Outline or None} of {scene: RasterInfo}."""
    return {name: outline(i.crs, i.transform, i.width, i.height) for name, i in infos.items()}
