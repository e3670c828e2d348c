"""Finds the images, masks and cloud masks of a patch set."""

import dataclasses
from dataclasses import dataclass, field

from chipping import cems
from chipping.pairing import by_key, by_place, by_tile_and_date, refuse_masks_alone, refuse_unpaired
from chipping.scene_labels import FOLDERS, keyed_images, labels_of_scenes
from chipping.scenes import check_mask
from chipping.sources import source_of_dates
from chipping.splits import matches, parse_names, select
from constants import LAYER_OF_NUM_CLASSES
from nets.model_config import answers_labels, answers_pixels
from raster.acquired import of_dates
from raster.dated import DatedClouds, members_of
from raster.places import dated_scenes
from raster.products import list_scenes
from raster.source import RASTER_SUFFIXES, describe, list_rasters
from raster.stack import stack_bands
from runtime.errors import RunError, UserError
from vectors.reading import file_and_layer

PICTURES = (*RASTER_SUFFIXES, ".png", ".jpg", ".jpeg")  # of which scenes with labels of their own often are
NUM_CLASSES_OF_LAYER = {layer: count for count, layer in LAYER_OF_NUM_CLASSES.items()}


@dataclass(frozen=True, kw_only=True)
class InputFiles:
    """
    Paths by scene. images, clouds: {scene: path}. masks: {layer: {scene: path}}. splits: {scene: split} where folders state them, or None.
    sources: {scene: source} where an image stands for several files. labels: ({scene: its classes}, names) of whole images, or None.
    """

    images: dict
    masks: dict
    clouds: dict
    splits: dict | None = None
    sources: dict = field(default_factory=dict)
    labels: tuple | None = None


def find_inputs(inputs, strict, note, labels):
    """
    InputFiles of Inputs, without those that --exclude names or --dates leaves out; a name that excludes nothing is a UserError. labels:
    options of labels.
    """
    excluded, seen = parse_names(inputs.exclude, "--exclude"), set()

    def is_excluded(scene):
        seen.add(scene)
        return any(matches(scene, name) for name in excluded)

    if inputs.dataset_dir is not None:
        files = find_cems(inputs.dataset_dir, is_excluded, strict, note)
    else:
        files = find_files(inputs, labels, is_excluded, note)
    select(seen, excluded, "--exclude")
    return files


def find_cems(folder, is_excluded, strict, note):
    """InputFiles of the CEMS layout. note(text): how many gradings and cloud masks are missing."""
    tiles = cems.find_tiles(folder, is_excluded)
    splits = {tile: files["split"] for tile, files in tiles.items()}
    if not any(splits.values()):
        splits = None
    elif lost := [tile for tile, split in splits.items() if split is None]:
        raise UserError(
            f"{tiles[lost[0]]['image']} lies in none of the folders train, val, test, others do; move it, or --exclude {lost[0]}"
        )
    masks = {layer: {t: f[layer] for t, f in tiles.items() if layer in f} for layer in cems.LAYERS}
    clouds = {t: f[cems.CLOUDS] for t, f in tiles.items() if cems.CLOUDS in f}
    for layer, classes in NUM_CLASSES_OF_LAYER.items():
        if missing := [t for t in tiles if t not in masks[layer]]:
            note(f"{count_of(missing, tiles)} have no {layer} mask ({some(missing)}): they don't count for --num-classes {classes}")
    missing = [t for t in tiles if t not in clouds]
    if missing and strict:
        raise RunError(f"{count_of(missing, tiles)} have no cloud mask ({some(missing)}); --strict stops here")
    if missing and clouds:
        note(f"{count_of(missing, tiles)} have no cloud mask ({some(missing)}): their patches are kept whatever the clouds")
    return InputFiles(images={t: f["image"] for t, f in tiles.items()}, masks=masks, clouds=clouds, splits=splits)


def count_of(missing, tiles):
    return f"{len(missing)} of {len(tiles)} tiles"


def find_labelled(inputs, labels, is_excluded, note):
    """InputFiles of images with labels of their own, without masks."""
    if not inputs.images:
        raise UserError(f"--task {labels.task} needs --images, with the folders that they lie in or --scene-labels FILE")
    if inputs.stack or inputs.image_suffix:
        raise UserError(f"--task {labels.task} takes one file an image; leave out --stack and --image-suffix")
    images = {key: path for key, path in keyed_images(list_scenes(inputs.images, PICTURES)).items() if not is_excluded(key)}
    if not images:
        raise UserError("--exclude leaves no scene")
    images = of_dates(images, inputs.dates) if inputs.dates else images
    images = dated_scenes(images, inputs.count_of_dates, note=note) if inputs.count_of_dates else images
    names = None if labels.classes is None else [name.strip() for name in labels.classes.split(",")]
    found = labels_of_scenes(images, inputs.scene_labels or FOLDERS, names, answers_labels(labels.task))
    return InputFiles(images=images, masks={}, clouds={}, labels=found)


def find_files(inputs, labels, is_excluded, note):
    """InputFiles of the general form."""
    if not answers_pixels(labels.task):
        files = find_labelled(inputs, labels, is_excluded, note)
        return dataclasses.replace(files, clouds=find_clouds(inputs, files.images))
    if not inputs.images:
        raise UserError("pass --dataset-dir for the CEMS layout, or --images with --masks (rasters) or --labels (polygons)")
    if bool(inputs.masks) == bool(inputs.labels):
        raise UserError("pass either --masks (rasters) or --labels (polygons): training needs one of the two")
    sources = {}
    if inputs.stack:
        images, sources = stack_bands(list_rasters(inputs.images), inputs.stack.split(","), inputs.stack_folder, is_excluded)
    else:
        images = by_key(list_scenes(inputs.images), inputs.image_suffix, "image")
    images = {key: path for key, path in images.items() if not is_excluded(key)}
    if not images:
        raise UserError("--exclude leaves no scene")
    every, masks = images, {}
    images = of_dates(images, inputs.dates) if inputs.dates else images
    if inputs.masks:
        found, others = by_key(list_rasters(inputs.masks), inputs.mask_suffix, "mask"), every.keys() - images.keys()
        masks = {key: path for key, path in by_tile_and_date(found, every).items() if not is_excluded(key) and key not in others}
        if inputs.count_of_dates:
            masks = by_place(masks, images)
            refuse_masks_alone(images, masks)
        else:
            refuse_unpaired(images, masks)
    else:
        for path in inputs.labels:
            file_and_layer(path)
    if inputs.count_of_dates:
        images = dated_scenes(images, inputs.count_of_dates, masks if inputs.masks else None, note)
        masks = {key: path for key, path in masks.items() if key in images}
        by_path = {stack["path"]: stack for stack in sources.values()}
        sources = {key: source_of_dates(path, by_path) for key, path in images.items()} if sources else {}
    return InputFiles(images=images, masks={"mask": masks}, clouds=find_clouds(inputs, images), sources=sources)


def find_clouds(inputs, images):
    """{scene: path} of the images' cloud masks; {} without --clouds."""
    if not inputs.clouds:
        return {}
    singles = {key: path for name, image in images.items() for key, path in members_of(name, image)}
    clouds = {k: p for k, p in by_key(list_rasters(inputs.clouds), inputs.cloud_suffix, "cloud").items() if k in singles}
    if missing := sorted(singles.keys() - clouds.keys()):
        raise UserError(f"{singles[missing[0]]} has no cloud mask; expected one named {missing[0]!r} (see --cloud-suffix)")
    if not inputs.count_of_dates:
        return clouds
    return {name: DatedClouds([clouds[key] for key, _ in members_of(name, image)]) for name, image in images.items()}


def find_label_files(infos, files, align, strict, note, cloud_bands=1):
    """
    ({scene: ({layer: LabelFile}, cloud LabelFile or None)}, {scene: why} of those whose masks cannot be opened).

    infos: {scene: RasterInfo} of images, against which masks are checked. files: InputFiles. align: masks may be on another grid.
    cloud_bands: how many a cloud mask has.
    """
    found, unreadable = {}, {}
    for name in sorted(infos):
        try:
            masks = {
                layer: check_mask(infos[name], describe(paths[name]), align) for layer, paths in files.masks.items() if name in paths
            }
            clouds = None
            if name in files.clouds:
                clouds = check_mask(infos[name], describe(files.clouds[name]), align, "cloud mask", cloud_bands)
        except UserError as error:
            if error.__cause__ is None:  # it opened, and does not fit
                raise
            if strict:
                raise RunError(f"{error} (--strict)") from error
            note(f"{error}; its image is skipped")
            unreadable[name] = str(error)
        else:
            found[name] = masks, clouds
    return found, unreadable


def some(names, most=3):
    """The first few names, and … where there are more."""
    return ", ".join(names[:most]) + (" …" if len(names) > most else "")
