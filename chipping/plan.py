"""Validates the input of make-patches and builds its plan."""

from dataclasses import asdict, dataclass, replace

import numpy as np

from chipping import cems
from chipping.cloud_masks import parse_cloud_rule
from chipping.cutting import Recipe
from chipping.input_files import NUM_CLASSES_OF_LAYER, find_inputs, find_label_files, some
from chipping.label_checks import check_clouds, check_masks, check_polygons
from chipping.labels import parse_label_map
from chipping.scale_check import check_reflectance
from chipping.scenes import choose_product_bands, describe_all, is_broken, make_scene, outlines_of
from chipping.splits import assign, describe_leaks, event_of, leaks, matches, parse_share_or_names, select
from constants import CEMS_BANDS, CLASS_NAMES, IGNORE, SENTINEL2_L2A_BANDS, get_class_names
from nets.model_config import answers_classes, answers_pixels, answers_values
from raster.bands import choose_bands, is_same_band
from raster.dated import Dated, members_of
from raster.hidden import data_bands, own_mask
from raster.nodata import decide_nodata, one_or_each, zero_is_fill
from raster.places import place_words
from raster.product_scene import ProductScene
from raster.scale import Scale, decide_scale, parse_numbers, scale_from_tags, scale_words
from runtime.errors import RunError, UserError
from vectors.reading import fingerprint


@dataclass(frozen=True, kw_only=True)
class Plan:
    """
    scenes: list of Scene, sorted by name. recipe: Recipe. description: content of chipset.json. broken: {scene: why} of images that cannot
    be opened. leaks: (scene, split, scene, split) that share ground. unplaced: scenes without CRS, for which that cannot be known.
    black_white: {layer: --label-map} of masks that hold 0 and 255 only, see check_masks.
    """

    scenes: list
    recipe: Recipe
    description: dict
    broken: dict
    leaks: list
    unplaced: list
    black_white: dict


@dataclass(frozen=True)
class Channels:
    """
    The bands of a patch set. positions: {scene: zero-based bands}. names: one a band. scale: the Scale of all scenes. shifts: {scene: what
    to add to its values, one a band}.
    """

    positions: dict
    names: list
    scale: Scale
    shifts: dict


def plan_patches(inputs, pixels, labels, windows, splits, *, strict=False, note=print):
    """
    Plan of a patch set. inputs, pixels, labels, windows, splits: see chipping/patch_options.py. strict: an image or mask that cannot be
    opened is a RunError. note(text): remarks that a user needs.
    """
    stride = stride_of(windows)
    label_map = tuple(sorted(parse_label_map(labels.label_map).items()))
    is_cems = inputs.dataset_dir is not None
    cloud_rule = parse_cloud_rule(windows.cloud_values, windows.cloud_bits)
    files = find_inputs(inputs, strict, note, labels)
    folder_splits = files.splits
    if folder_splits and (splits.val or splits.test):
        note("--val and --test decide the splits; the folders train, val and test are ignored")
        folder_splits = None
    files = with_product_clouds(replace(files, images=choose_product_bands(files.images, pixels.bands)), inputs, cloud_rule, note)
    infos, broken = describe_all(files.images, strict, note)
    files = replace(files, clouds={name: path for name, path in files.clouds.items() if name in infos})
    channels = choose_channels(infos, pixels, is_cems, note)
    class_names = classes_of_layers(files, labels, is_cems)
    refuse_unknown_classes(label_map, class_names, labels.task)
    split_of, outlines, shared = assign_splits(infos, folder_splits, broken, splits)
    label_files, unreadable = find_label_files(infos, files, labels.align, strict, note, cloud_rule.bands if cloud_rule else 1)
    broken |= unreadable
    scenes, zero_fill, alphas = build_scenes(
        infos, channels, split_of=split_of, label_files=label_files, sources=files.sources, nodata=pixels.nodata, is_cems=is_cems,
        labels=files.labels[0] if files.labels else {},
    )
    if not scenes:
        raise RunError(f"none of {len(infos)} scenes can be read; the first: {next(iter(broken.values()))}")
    wanted = {*split_of.values(), *(folder_splits or {}).values(), *(["val"] if splits.val else []), *(["test"] if splits.test else [])}
    for split in sorted(wanted - {scene.split for scene in scenes}):
        note(f"no scene is left for {split}, since {some(sorted(broken))} cannot be read")
    recipe = Recipe(
        size=windows.size, stride=stride, layers=tuple(class_names), classes=tuple(map(len, class_names.values())),
        divide_by=channels.scale.divide_by, offset=channels.scale.offset, label_map=label_map, max_cloud=windows.max_cloud,
        ignore_clouds=parse_cloud_classes(windows.ignore_clouds), cloud_rule=cloud_rule, min_valid=windows.min_valid,
        polygons=tuple(inputs.labels or ()),
        class_field=labels.class_field, class_names=tuple(next(iter(class_names.values()))), aoi=windows.aoi,
        task=labels.task,
    )
    if recipe.max_cloud < 1 and not files.clouds and is_cems:
        note("no cloud mask (_CM) was found: no patch is left out for clouds")
    if recipe.ignore_clouds and not files.clouds:
        raise UserError("--ignore-clouds needs cloud masks; pass --clouds, or leave it out")
    if cloud_rule and not files.clouds:
        raise UserError("--cloud-values and --cloud-bits need cloud masks; pass --clouds, or leave them out")
    if cloud_rule and recipe.ignore_clouds not in ((), (1,)):
        raise UserError("with --cloud-values or --cloud-bits all clouds are of one class; pass --ignore-clouds without a value")
    check_polygons(scenes, recipe, note)
    check_clouds(scenes, recipe)
    black_white = check_masks(scenes, recipe, note) if answers_classes(labels.task) else {}
    if not pixels.accept_scale:
        check_reflectance(scenes, channels.names, channels.scale)
    if alphas:
        note(next(iter(alphas.values())) + (f"; so in {len(alphas)} of {len(infos)} scenes" if len(alphas) > 1 else ""))
    if zero_fill:
        note(f"{len(zero_fill)} of {len(infos)} scenes have no nodata tag ({some(zero_fill)}): pixels that are 0 in all bands are nodata "
             "there, since an offset would make them values; pass --nodata if that is wrong")
    description = description_of(
        scenes, recipe, bands=channels.names, class_names=class_names, align=labels.align, has_clouds=bool(files.clouds), seed=splits.seed,
        masked={scene.name: scene.masked for scene in scenes if scene.masked != own_mask(infos[scene.name])},
    ) | facts_of_products([infos[scene.name].path for scene in scenes])
    return Plan(
        scenes=scenes, recipe=recipe, description=description, broken=broken, leaks=shared,
        unplaced=[name for name in sorted(infos) if outlines[name] is None], black_white=black_white,
    )


def stride_of(windows):
    """Pixels from window to window: as asked for, or 7/8 of the size."""
    stride = windows.stride or (224 if windows.size == 256 else max(1, windows.size * 7 // 8))
    if stride > windows.size:
        raise UserError(f"--stride {stride} is larger than --patch-size {windows.size}; pixels between the patches would be left out")
    return stride


# --- bands and scale -----------------------------------------------------------------------------------------------------------


def with_product_clouds(files, inputs, cloud_rule, note):
    """InputFiles with the cloud layers of products as cloud masks, unless there are others, or none are wanted. UserError."""
    products = {name: path for name, path in files.images.items() if isinstance(path, ProductScene) and not is_broken(path)}
    members = [one for name, path in products.items() for _, one in members_of(name, path)]
    for remark in dict.fromkeys(remark for one in members for remark in one.product.remarks):
        note(remark)
    if inputs.clouds or inputs.no_clouds or not products:
        return files
    layers = {name: clouds for name, path in products.items() if (clouds := path.clouds())}
    if layers and cloud_rule:
        raise UserError("--cloud-values and --cloud-bits are for --clouds; the layer of a product is read as it is defined. Leave them out")
    if without := [one for one in members if not one.product.clouds]:
        why, names = without[0].product.no_clouds, [one.name for one in without]
        note(f"{len(without)} of {len(members)} products have no cloud layer ({some(names)}: {why}): patches are kept, cloudy or not")
    return replace(files, clouds=layers)


def choose_channels(infos, pixels, is_cems, note):
    """Channels of all scenes. infos: {scene: RasterInfo}; pixels: Pixels. note(text): remarks."""
    wanted = pixels.bands or (",".join(CEMS_BANDS) if is_cems else None)
    products = {name: info for name, info in infos.items() if isinstance(info.path, (ProductScene, Dated))}
    rasters = {name: info for name, info in infos.items() if name not in products}
    positions, names = choose_bands(rasters, wanted, SENTINEL2_L2A_BANDS if is_cems else None, note) if rasters else ({}, None)
    for name, info in products.items():
        names = names or list(info.descriptions)
        require_these_bands(info, names, next(iter(rasters.values()), None))
        positions[name] = tuple(range(info.count))
    divide_by = pixels.divide_by
    if is_cems and divide_by is None and is_published_form(infos, positions):
        divide_by = "1"
    return Channels(positions, names, *common_scale(infos, positions, names, divide_by, pixels.offset))


def require_these_bands(info, names, raster):
    """
    UserError where a product (RasterInfo of the bands that were chosen) has others than these. raster: RasterInfo of one whose names these
    are, None where they are those of a product, which were compared by wavelength. Bands of rasters of several dates are compared by name.
    """
    if isinstance(info.path, Dated) and not isinstance(info.path, ProductScene) and info.path.is_named:
        raster = info
    if info.count != len(names):
        raise UserError(f"{info.path} has {info.count} bands, others {len(names)}; pass --bands")
    for name, other in zip(info.descriptions, names, strict=True):
        if raster is not None and name.lower() != other.lower() and not is_same_band(name, other):
            there = f" where {raster.path} has" if raster is not info else "; expected"
            raise UserError(f"{info.path} has band {name!r}{there} {other!r}; make their patches in separate folders")


def is_published_form(infos, positions):
    """Whether these are the CEMS images as published: floats, which are reflectance already, without tags that say otherwise."""
    return all(
        all(info.dtypes[band].startswith("float") for band in positions[name]) and scale_from_tags(info, positions[name]) is None
        for name, info in infos.items()
    )


def common_scale(infos, positions, names, divide_by, offset):
    """
    (the one Scale of all scenes, {scene: what to add to its values, one a band}).

    A patch set has one divisor and one offset a band. Scenes whose tags state other offsets (Sentinel-2 before and after baseline 04.00)
    are shifted to the lowest; other divisors, and offsets that differ by fractions, are a UserError that names two scenes.
    """
    divisors, offsets = parse_numbers(divide_by, "--divide-by", len(names)), parse_numbers(offset, "--offset", len(names))
    scales = {name: decide_scale(info, positions[name], names, divisors, offsets) for name, info in infos.items()}
    lowest = tuple(min(values) for values in zip(*(scale.offset for scale in scales.values()), strict=True))
    first_name, first = next(iter(scales.items()))
    shifts = {}
    for name, scale in scales.items():
        shift = np.subtract(scale.offset, lowest)
        divisors_differ = ~np.isclose(scale.divide_by, first.divide_by, rtol=1e-6)
        differ = divisors_differ | ~np.isclose(shift, np.rint(shift), atol=1e-6)
        if differ.any():
            band = int(np.argmax(differ))
            other = first_name if divisors_differ[band] else next(n for n, s in scales.items() if s.offset[band] == lowest[band])
            raise UserError(
                f"{names[band]} has {scale_words(scale, band)} in {infos[name].path}, {scale_words(scales[other], band)} in "
                f"{infos[other].path}; pass --divide-by and --offset, or make one patch set for each"
            )
        shifts[name] = tuple(int(s) for s in np.rint(shift))
    return Scale(first.divide_by, lowest), shifts


# --- classes -------------------------------------------------------------------------------------------------------------------


def classes_of_layers(files, labels, is_cems):
    """{layer: class names}, of a regression the name of its values. labels: options of labels."""
    if is_cems:
        return {layer: CLASS_NAMES[NUM_CLASSES_OF_LAYER[layer]] for layer in cems.LAYERS if files.masks[layer]}
    if answers_values(labels.task):
        return {"mask": (labels.target,)}
    return {"label": files.labels[1]} if files.labels else {"mask": parse_classes(labels.classes)}


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


def refuse_unknown_classes(label_map, class_names, task):
    """UserError where --label-map leads to a class that no layer has. label_map: ((value, class), …)."""
    if answers_values(task) and any(label != IGNORE for _, label in label_map):
        raise UserError("--label-map of --task regression only says which values are none, such as -9999=ignore")
    most = max(map(len, class_names.values()))
    for value, label in label_map:
        if label != IGNORE and label >= most:
            raise UserError(f"--label-map {value}={label}: there are classes 0..{most - 1}; pass --classes for more")


# --- splits --------------------------------------------------------------------------------------------------------------------


def assign_splits(infos, folder_splits, broken, splits):
    """
    ({scene: split}, {scene: Outline or None}, leaks) of scenes that can be read. folder_splits: {scene: split} where the folders decide, or
    None. UserError for leaks that are not allowed.
    """
    names, outlines = sorted(infos), outlines_of(infos)
    split_of = assign(
        names, outlines, held_out(splits.val, "--val", names, broken), held_out(splits.test, "--test", names, broken), splits.split_by,
        splits.seed, {name: folder_splits[name] for name in names} if folder_splits else None,
        {name: info.path.product.tile if isinstance(info.path, ProductScene) else event_of(place_words(name) or name)
         for name, info in infos.items() if isinstance(info.path, (ProductScene, Dated))},
    )
    shared = leaks(split_of, outlines)
    if shared and not splits.allow_overlap and not folder_splits:
        raise UserError(
            f"scenes of different splits share ground: {describe_leaks(shared)}; put them into one split, or pass --allow-overlap"
        )
    return split_of, outlines, shared


def held_out(text, flag, names, broken):
    """--val or --test: a share, or the names that stand for scenes that can be read. A name of none, broken ones included, is an error."""
    wish = parse_share_or_names(text, flag, [*names, *broken])
    if not isinstance(wish, list):
        return wish
    select([*names, *broken], wish, flag)
    return [name for name in wish if any(matches(scene, name) for scene in names)]


# --- scenes --------------------------------------------------------------------------------------------------------------------


def build_scenes(infos, channels, *, split_of, label_files, sources, nodata, is_cems, labels):
    """
    ([Scene] of those with label files, sorted by name; names of those whose zeros are nodata for want of a tag; {scene: sentence} of
    those in which a band counts as alpha).

    infos: {scene: RasterInfo}. split_of: {scene: split}. label_files: {scene: (masks, clouds)} of find_label_files. sources: of InputFiles.
    nodata: text of --nodata. labels: {scene: classes} of whole scenes.
    """
    scenes, zero_fill, alphas = [], [], {}
    for name in sorted(label_files):
        info, bands, shift = infos[name], channels.positions[name], channels.shifts[name]
        values = decide_nodata(info, bands, nodata)
        if zero_is_fill(info, bands, values, (*channels.scale.offset, *shift), nodata):
            zero_fill.append(name)
        zero_is_nodata = is_cems or name in zero_fill
        hides = data_bands(info, [b + 1 for b in bands])
        if hides.remark:
            alphas[name] = hides.remark
        scenes.append(
            make_scene(
                name, split_of[name], info, bands, values, zero_is_nodata, hides.masked, shift, *label_files[name], sources.get(name),
                labels.get(name, ()),
            )
        )
    return scenes, zero_fill, alphas


# --- chipset.json --------------------------------------------------------------------------------------------------------------


def description_of(scenes, recipe, *, bands, class_names, align, has_clouds, seed, masked):
    """
    The content of chipset.json. Its "settings" decide whether an earlier set may be continued, so their keys are part of the format.

    masked: {scene: what hides its pixels} where that is not what GDAL alone says, as sets of before took it.
    """
    nodata = shared_value({scene.name: one_or_each(scene.nodata) for scene in scenes})
    return {
        "kind": "patches",
        "settings": {
            "patch_size": recipe.size, "stride": recipe.stride, "bands": bands, "divide_by": recipe.divide_by, "offset": recipe.offset,
            "nodata": nodata, "zero_is_nodata": shared_value({scene.name: scene.zero_is_nodata for scene in scenes}),
            "layers": recipe.layers, "classes": class_names, "label_map": [f"{value}={label}" for value, label in recipe.label_map],
            "class_field": recipe.class_field, "align": align, "clouds": has_clouds, "max_cloud": recipe.max_cloud,
            "ignore_clouds": recipe.ignore_clouds, "min_valid": recipe.min_valid, "aoi": fingerprint([recipe.aoi] if recipe.aoi else []),
            "labels": fingerprint(recipe.polygons), "scenes": names_by_split(scenes),
            **({"masked": masked} if masked else {}), **dates_of(scenes, in_full=True), **task_of(scenes, recipe, in_full=True),
            **({"cloud_rule": asdict(recipe.cloud_rule)} if recipe.cloud_rule else {}),
        },
        "chip_size": recipe.size,
        "bands": bands,
        "divide_by": recipe.divide_by,
        "offset": recipe.offset,
        "nodata": None if isinstance(nodata, (dict, tuple)) else nodata,  # one value, for images without a tag of their own
        "layers": recipe.layers,
        "classes": class_names,
        "ignore": IGNORE,
        "sampler": {"name": "grid", "stride": recipe.stride},
        "seed": seed,
        **dates_of(scenes),
        **task_of(scenes, recipe),
    }


def dates_of(scenes, in_full=False):
    """What a set says of its dates: how many a sample has, {} of scenes of one that were not asked for. in_full: which they are."""
    if not scenes[0].dates:
        return {}
    return {"dates": {scene.name: scene.dates for scene in scenes} if in_full else len(scenes[0].dates)}


def task_of(scenes, recipe, in_full=False):
    """What a set says of its task, where that is not to learn a class of each pixel. in_full: with the labels of whole scenes."""
    if answers_classes(recipe.task):
        return {}
    labels = {scene.name: scene.labels for scene in scenes if in_full and not answers_pixels(recipe.task)}
    return {"task": recipe.task, **({"scene_labels": labels} if labels else {})}


def facts_of_products(paths):
    """{"sensor", "level", "wavelengths" (nm, a band)} of a set whose scenes are all products: maps of another sensor need them."""
    members = [one for path in paths for _, one in members_of("", path)]
    if not all(isinstance(one, ProductScene) for one in members):
        return {}
    sensors, levels = ({getattr(one.product, key) for one in members} for key in ("sensor", "level"))
    wavelengths = [band.wavelength for _, one in members_of("", paths[0]) for band in one.bands]
    return {
        "sensor": sensors.pop() if len(sensors) == 1 else " and ".join(sorted(sensors)), "level": levels.pop() if len(levels) == 1 else "",
        **({"wavelengths": wavelengths} if all(wavelengths) else {}),
    }


def shared_value(values):
    """The value that all scenes have, or {scene: its own} where they differ."""
    return next(iter(values.values())) if len(set(values.values())) == 1 else values


def names_by_split(scenes):
    """{split: [scenes]}: part of the settings, since a scene more or in another split makes another set."""
    names = {}
    for scene in scenes:
        names.setdefault(scene.split, []).append(scene.name)
    return names
