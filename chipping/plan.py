"""From what a user asks for to scenes and a recipe: what can be wrong with files, bands, scale, labels or splits is found here."""

from dataclasses import dataclass

import numpy as np

from chipping import cems
from chipping.cutting import Recipe
from chipping.labels import parse_label_map, read_labels, read_polygons, to_classes
from chipping.pairing import by_key, pair
from chipping.scenes import (
    check_mask,
    choose_bands,
    decide_nodata,
    describe_all,
    make_scene,
    one_or_each,
    outlines_of,
    zero_means_nothing,
)
from chipping.splits import assign, describe_leaks, leaks, matches, parse_names, parse_share_or_names, select
from constants import CEMS_BANDS, CLASS_NAMES, IGNORE, LAYER_OF_NUM_CLASSES, SENTINEL2_L2A_BANDS, get_class_names
from raster.scale import Scale, decide_scale, parse_numbers, scale_from_tags
from raster.source import describe, list_rasters, open_raster
from raster.stack import stack_bands
from runtime.errors import RunError, UserError
from vectors import reading
from vectors.placing import place_polygons

LOOK = 1024  # masks are looked at in a reading of at most this many pixels a side before any work: exact for small scenes
NUM_CLASSES_OF_LAYER = {layer: count for count, layer in LAYER_OF_NUM_CLASSES.items()}


@dataclass
class Plan:
    """
    scenes: list of Scene, sorted by name. recipe: Recipe. description: chipset.json's content. broken: {scene: why} of images that can't be
    opened. leaks: (scene, split, scene, split) that share ground. unplaced: scenes without CRS, for which that can't be known. black_white:
    layers whose masks were seen to hold 0 and 255 only.
    """

    scenes: list
    recipe: Recipe
    description: dict
    broken: dict
    leaks: list
    unplaced: list
    black_white: list


@dataclass
class Material:
    """What was found on disk. images: {scene: path}. masks: {layer: {scene: path}}. clouds: {scene: path}. splits: {scene: split} or None.
    sources: {scene: source} where an image stands for several files."""

    images: dict
    masks: dict
    clouds: dict
    splits: dict | None
    sources: dict


def plan_patches(
    *, dataset_dir=None, images=None, masks=None, labels=None, clouds=None, image_suffix=None, mask_suffix=None, cloud_suffix=None,
    stack=None, stack_folder=None, bands=None, divide_by=None, offset=None, nodata=None, classes=None, class_field=None, label_map=None,
    align=False, size=256, stride=None, max_cloud=0.5, ignore_clouds=None, min_valid=0.0, aoi=None, exclude=None, val=None, test=None,
    split_by="event", seed=0, allow_overlap=False, strict=False, note=print,
):
    """Plan of a patch set. Text arguments are as on the command line of chip.py make-patches; note(text) hears what a user should know."""
    stride = stride or (224 if size == 256 else max(1, size * 7 // 8))
    if stride > size:
        raise UserError(f"--stride {stride} is larger than --patch-size {size}; pixels between the patches would be left out")
    excluded = parse_names(exclude, "--exclude")
    shipped = dataset_dir is not None
    mapping = tuple(sorted(parse_label_map(label_map).items()))
    seen = set()

    def is_excluded(scene):
        seen.add(scene)
        return any(matches(scene, name) for name in excluded)

    if shipped:
        material = find_cems(dataset_dir, is_excluded, strict, note)
    else:
        material = find_files(images, masks, labels, clouds, image_suffix, mask_suffix, cloud_suffix, stack, stack_folder, is_excluded)
    select(seen, excluded, "--exclude")  # every name has excluded something
    if material.splits and (val or test):
        note("--val and --test decide about the splits; the folders train, val and test are not looked at")
        material.splits = None

    infos, broken = describe_all(material.images, strict, note)
    names = sorted(infos)
    positions, band_names = choose_bands(
        infos, bands or (",".join(CEMS_BANDS) if shipped else None), SENTINEL2_L2A_BANDS if shipped else None
    )
    if shipped and divide_by is None and is_published_form(infos, positions):
        divide_by = "1"
    scale, shifts = common_scale(infos, positions, band_names, divide_by, offset)

    if shipped:
        layers = tuple(layer for layer in cems.LAYERS if material.masks[layer])
        class_names = {layer: CLASS_NAMES[NUM_CLASSES_OF_LAYER[layer]] for layer in layers}
    else:
        layers, class_names = ("mask",), {"mask": parse_classes(classes)}
    for value, label in mapping:
        if label != IGNORE and not any(label < len(n) for n in class_names.values()):
            raise UserError(
                f"--label-map {value}={label}: there are classes 0..{max(map(len, class_names.values())) - 1}; pass --classes for more"
            )

    outlines = outlines_of(infos)
    splits = assign(
        names,
        outlines,
        held_out(val, "--val", names, broken),
        held_out(test, "--test", names, broken),
        split_by,
        seed,
        {n: material.splits[n] for n in names} if material.splits else None,
    )
    unplaced = [n for n in names if outlines[n] is None]
    shared = leaks(splits, outlines)
    if shared and not allow_overlap and not material.splits:
        raise UserError(
            f"scenes of different splits share ground: {describe_leaks(shared)}. Put them into one split, "
            "draw a share by event (--val 0.2), or pass --allow-overlap"
        )

    scenes, zero_fill = [], []
    for name in names:
        info = infos[name]
        found, cloud, fault = partners(info, material, name, align, strict, note)
        if fault:
            broken[name] = fault
            continue
        empty = decide_nodata(info, positions[name], nodata)
        if zero_means_nothing(info, positions[name], empty, (*scale.offset, *shifts[name]), nodata):
            zero_fill.append(name)
        scenes.append(
            make_scene(
                name,
                splits[name],
                info,
                positions[name],
                empty,
                shipped or name in zero_fill,
                shifts[name],
                found,
                cloud,
                material.sources.get(name),
            )
        )
    if not scenes:
        raise RunError(f"none of {len(names)} scenes can be read; the first: {next(iter(broken.values()))}")
    wanted = {*splits.values(), *(split for split, text in (("val", val), ("test", test)) if text), *(material.splits or {}).values()}
    for split in sorted(wanted - {scene.split for scene in scenes}):
        note(f"no scene is left for {split}, since {some(sorted(broken))} can't be read")

    recipe = Recipe(
        size=size, stride=stride, layers=layers, classes=tuple(len(class_names[layer]) for layer in layers),
        divide_by=scale.divide_by, offset=scale.offset, label_map=mapping, max_cloud=max_cloud,
        ignore_clouds=parse_cloud_classes(ignore_clouds), min_valid=min_valid,
        polygons=tuple(labels or ()), class_field=class_field, class_names=tuple(class_names[layers[0]]), aoi=aoi,
    )
    if max_cloud < 1 and not material.clouds and shipped:
        note("no cloud mask (_CM) was found: no patch is left out for clouds")
    if recipe.ignore_clouds and not material.clouds:
        raise UserError("--ignore-clouds needs cloud masks; pass --clouds, or leave it out")
    look_at_vectors(scenes, recipe, note)
    black_white = look_at_masks(scenes, recipe, note)
    if zero_fill:
        what = "pixels that are 0 in all bands are no data there, since an offset would make them values; pass --nodata if that is wrong"
        note(f"{len(zero_fill)} of {len(scenes)} scenes have no nodata tag ({some(zero_fill)}): {what}")
    empty = of_all({s.name: one_or_each(s.nodata) for s in scenes})
    description = {
        "kind": "patches",
        "settings": {
            "patch_size": size, "stride": stride, "bands": band_names, "divide_by": scale.divide_by, "offset": scale.offset,
            "nodata": empty, "zero_is_nodata": of_all({s.name: s.zero_is_nodata for s in scenes}), "layers": layers, "classes": class_names,
            "label_map": [f"{v}={c}" for v, c in mapping], "class_field": class_field, "align": align, "clouds": bool(material.clouds),
            "max_cloud": max_cloud, "ignore_clouds": recipe.ignore_clouds, "min_valid": min_valid,
            "aoi": reading.fingerprint([aoi] if aoi else []),
            "labels": reading.fingerprint(recipe.polygons), "scenes": scene_words(scenes),
        },
        "chip_size": size,
        "bands": band_names,
        "divide_by": scale.divide_by,
        "offset": scale.offset,
        "nodata": None if isinstance(empty, (dict, tuple)) else empty,  # one value, for images without a tag of their own
        "layers": layers,
        "classes": class_names,
        "ignore": IGNORE,
        "sampler": {"name": "grid", "stride": stride},
        "seed": seed,
    }
    return Plan(scenes, recipe, description, broken, shared, unplaced, black_white)


# --- what is on disk -----------------------------------------------------------------------------------------------------------


def find_cems(folder, is_excluded, strict, note):
    """Material of the CEMS layout. Missing gradings and cloud masks are counted and said."""
    tiles = cems.find_tiles(folder, is_excluded)
    splits = {tile: files["split"] for tile, files in tiles.items()}
    if any(splits.values()):
        lost = [tile for tile, split in splits.items() if split is None]
        if lost:
            raise UserError(
                f"{tiles[lost[0]]['image']} lies in none of the folders train, val, test, others do; move it, or --exclude {lost[0]}"
            )
    else:
        splits = None
    masks = {layer: {t: f[layer] for t, f in tiles.items() if layer in f} for layer in cems.LAYERS}
    clouds = {t: f[cems.CLOUDS] for t, f in tiles.items() if cems.CLOUDS in f}
    for layer, classes in NUM_CLASSES_OF_LAYER.items():
        missing = [t for t in tiles if t not in masks[layer]]
        if missing:
            note(
                f"{len(missing)} of {len(tiles)} tiles have no {layer} mask ({some(missing)}): they don't count for --num-classes {classes}"
            )
    missing = [t for t in tiles if t not in clouds]
    if missing and strict:
        raise RunError(f"{len(missing)} of {len(tiles)} tiles have no cloud mask ({some(missing)}); --strict stops here")
    if missing and clouds:
        note(f"{len(missing)} of {len(tiles)} tiles have no cloud mask ({some(missing)}): their patches are kept whatever the clouds")
    return Material({t: f["image"] for t, f in tiles.items()}, masks, clouds, splits, {})


def find_files(images, masks, labels, clouds, image_suffix, mask_suffix, cloud_suffix, stack, stack_folder, is_excluded):
    """Material of the general form."""
    if not images:
        raise UserError("pass --dataset-dir for the CEMS layout, or --images with --masks (rasters) or --labels (polygons)")
    if bool(masks) == bool(labels):
        raise UserError("pass --masks (rasters) or --labels (GeoJSON polygons), one of the two: patches without labels teach nothing")
    sources = {}
    if stack:
        image_paths, sources = stack_bands(list_rasters(images), stack.split(","), stack_folder, is_excluded)
    else:
        image_paths = by_key(list_rasters(images), image_suffix, "image")
    image_paths = {k: p for k, p in image_paths.items() if not is_excluded(k)}
    if not image_paths:
        raise UserError("--exclude leaves no scene")
    mask_paths = {}
    if masks:
        mask_paths = {k: p for k, p in by_key(list_rasters(masks), mask_suffix, "mask").items() if not is_excluded(k)}
        mask_paths = {k: m for k, (_, m) in pair(image_paths, mask_paths).items()}
    else:
        for path in labels:
            reading.file_and_layer(path)
    cloud_paths = {}
    if clouds:
        cloud_paths = {k: p for k, p in by_key(list_rasters(clouds), cloud_suffix, "cloud").items() if k in image_paths}
        if missing := sorted(image_paths.keys() - cloud_paths.keys()):
            raise UserError(f"{image_paths[missing[0]]} has no cloud mask; expected one named {missing[0]!r} (see --cloud-suffix)")
    return Material(image_paths, {"mask": mask_paths}, cloud_paths, None, sources)


def partners(info, material, name, align, strict, note):
    """({layer: LabelFile}, cloud LabelFile or None, why not) of one image: its masks, checked against it."""
    found, cloud = {}, None
    try:
        for layer, paths in material.masks.items():
            if name in paths:
                found[layer] = check_mask(info, describe(paths[name]), align)
        if name in material.clouds:
            cloud = check_mask(info, describe(material.clouds[name]), align, "cloud mask")
    except UserError as error:
        if error.__cause__ is None:  # it opened, and does not fit
            raise
        if strict:
            raise RunError(f"{error} (--strict)") from error
        note(f"{error}; its image is skipped")
        return {}, None, str(error)
    return found, cloud, None


def held_out(text, flag, names, broken):
    """--val or --test: a share, or the names that stand for scenes that can be read. A name of none, broken ones included, is an error."""
    wish = parse_share_or_names(text, flag, [*names, *broken])
    if not isinstance(wish, list):
        return wish
    select([*names, *broken], wish, flag)
    return [name for name in wish if any(matches(scene, name) for scene in names)]


def some(names, most=3):
    return ", ".join(names[:most]) + (" …" if len(names) > most else "")


# --- what is asked for ---------------------------------------------------------------------------------------------------------


def parse_classes(text):
    """`background,water` → names; `5` → the five wildfire names; None → background, fire."""
    if not text:
        return CLASS_NAMES[2]
    if text.isdigit():
        if not 2 <= int(text) <= 254:
            raise UserError(f"--classes expects 2 to 254 classes, got {text}")
        return get_class_names(int(text))
    names = tuple(name.strip() for name in text.split(","))
    if len(names) < 2 or not all(names) or len(set(names)) != len(names):
        raise UserError(f"--classes expects a number or at least two different names separated by commas, got {text!r}")
    return names


def parse_cloud_classes(text):
    try:
        return tuple(sorted({int(word) for word in text.split(",")})) if text else ()
    except ValueError as error:
        raise UserError(f"--ignore-clouds expects cloud classes such as 1 or 1,2,3, got {text!r}") from error


def is_published_form(infos, positions):
    """Are these the CEMS images as published: floats, which are reflectance already, without tags that say otherwise?"""
    return all(
        all(info.dtypes[band].startswith("float") for band in positions[name]) and scale_from_tags(info, positions[name]) is None
        for name, info in infos.items()
    )


def common_scale(infos, positions, names, divide_by, offset):
    """
    (the one Scale of all scenes, {scene: what to add to its values a band}).

    A patch set has one divisor and one offset a band. Scenes whose tags state other offsets (Sentinel-2 before and after baseline 04.00)
    are shifted to the lowest; other divisors, and offsets that differ by fractions, are an error that names two scenes.
    """
    divisors, offsets = parse_numbers(divide_by, "--divide-by", len(names)), parse_numbers(offset, "--offset", len(names))
    scales = {name: decide_scale(info, positions[name], names, divisors, offsets) for name, info in infos.items()}
    lowest = tuple(min(values) for values in zip(*(scale.offset for scale in scales.values()), strict=True))
    first_name, first = next(iter(scales.items()))
    shifts = {}
    for name, scale in scales.items():
        shift = np.subtract(scale.offset, lowest)
        if not np.allclose(scale.divide_by, first.divide_by, rtol=1e-6) or not np.allclose(shift, np.rint(shift), atol=1e-6):
            raise UserError(
                f"{infos[name].path} says offset {scale.offset[0]:g} and divisor {scale.divide_by[0]:g}, {infos[first_name].path} says "
                f"{first.offset[0]:g} and {first.divide_by[0]:g}; make one patch set for each, or pass --divide-by and "
                "--offset where tags are wrong"
            )
        shifts[name] = tuple(int(s) for s in np.rint(shift))
    return Scale(first.divide_by, lowest), shifts


def of_all(values):
    """What all scenes have, or {scene: its own} where they differ."""
    return next(iter(values.values())) if len(set(values.values())) == 1 else values


def scene_words(scenes):
    """{split: [scenes]}: part of the settings, since a scene more or in another split makes another set."""
    words = {}
    for scene in scenes:
        words.setdefault(scene.split, []).append(scene.name)
    return words


# --- a look before the work ----------------------------------------------------------------------------------------------------


def look_at_vectors(scenes, recipe, note):
    """Polygons and area are read, and meet a scene, before anything is cut."""
    for paths, flag, arguments in (
        (recipe.polygons, "--labels", (recipe.class_field, recipe.class_names, recipe.label_map)),
        ((recipe.aoi,) if recipe.aoi else (), "--aoi", (None, (), ())),
    ):
        if not paths:
            continue
        for scene in scenes:
            if scene.crs is None:
                raise UserError(
                    f"{scene.image} has no CRS, so {flag} can't be placed on it; give it one (gdal_edit.py -a_srs), or pass --masks"
                )
        polygons = read_polygons(paths, *(arguments if flag == "--labels" else ()))
        for remark in polygons.remarks:
            note(remark)
        empty = [s.name for s in scenes if not place_polygons(polygons, s.crs, s.transform, s.width, s.height)]
        if len(empty) == len(scenes):
            raise UserError(f"no polygon of {', '.join(paths)} meets any of {len(scenes)} scenes; check the coordinates ({polygons.crs})")
        if empty:
            what = "are background throughout" if flag == "--labels" else "give no patch"
            note(f"{len(empty)} of {len(scenes)} scenes meet no polygon of {flag} ({some(empty)}): they {what}")


def look_at_masks(scenes, recipe, note):
    """
    Every mask, thinned out where it is large: values that are no class are an error now instead of after an hour.

    Returns the layers whose masks hold 0 and 255 only.
    """
    suspicious, seen = {}, {}  # seen: {layer: values}, no more of them once there is a third
    num_classes = dict(zip(recipe.layers, recipe.classes, strict=True))
    for scene in scenes:
        for layer, mask in scene.masks.items():
            try:
                with open_raster(mask.path) as dataset:
                    step = max(1, -(-max(dataset.width, dataset.height) // LOOK))
                    shape = (max(1, dataset.height // step), max(1, dataset.width // step))
                    values, _ = read_labels(dataset, hides=mask.hides, shape=shape)
            except Exception as error:
                if isinstance(error, UserError) and error.__cause__ is None:
                    raise
                continue  # unreadable pixels are counted window by window
            if seen.get(layer, set()) <= {0, IGNORE}:
                seen[layer] = seen.get(layer, set()) | set(np.unique(values).tolist())
            to_classes(values, num_classes[layer], mask.nodata, recipe.label_map, mask.path)
            if mask.nodata is not None and 0 <= mask.nodata < num_classes[layer] and mask.nodata not in dict(recipe.label_map):
                suspicious.setdefault(mask.nodata, []).append(mask.path)
    for value, paths in suspicious.items():
        note(
            f"{len(paths)} masks have {value:g} as nodata tag ({some(paths)}), so class {value:g} is ignored there; "
            f"pass --label-map={value:g}={value:g} if it is a class"
        )
    return [layer for layer, values in seen.items() if values == {0, IGNORE}]
