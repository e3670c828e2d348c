"""Which images a detector is shown on, and what their annotations say."""

from pathlib import Path

from chipping.box_labels import read_labels
from detection.maps import IMAGE_SUFFIXES
from detection.tile_sets import Labelled, Reading, read_sets
from raster.products import list_scenes
from runtime.errors import UserError

READ_AS = ("label_map", "point_size", "class_field")  # settings of a run that say how annotations are read


def choose_images(checkpoint, patterns, annotations=None, label_map=None, note=lambda text: None):
    """
    [(path, LabelledImage or None)] of the images that patterns name, or, where they are None, of those that validated the checkpoint.

    annotations: of these images, which then lie in one folder; see box_labels.read_labels. label_map: None for that of the training.
    """
    if not patterns:
        return images_of_run(checkpoint, note)
    paths = list_scenes(patterns, IMAGE_SUFFIXES)
    if not annotations:
        return [(path, None) for path in paths]
    folder = folder_of(patterns, paths)
    known = {name: checkpoint["settings"].get(name) for name in READ_AS} | ({"label_map": label_map} if label_map else {})
    _, labelled, _ = read_labels(folder, annotations, classes=tuple(checkpoint["data"]["classes"]), note=note, **known)
    truths = {image.path.resolve(): image for image in labelled}
    shown = [(path, truths.pop(Path(path).resolve(), None)) for path in paths]
    if is_one_folder(patterns):  # of which annotations may also name images that lie deeper
        shown += [(str(path), image) for path, image in truths.items()]
    if not any(truth for _, truth in shown):
        raise UserError(f"{annotations} is about none of the images that were given; leave it out, or pass the images that it names")
    return shown


def is_one_folder(patterns):
    return len(patterns) == 1 and Path(patterns[0]).is_dir()


def folder_of(patterns, paths):
    """The folder that all images lie in, for annotations name them from there."""
    if is_one_folder(patterns):
        return Path(patterns[0])
    folders = sorted({str(Path(path).parent) for path in paths})
    if len(folders) > 1:
        raise UserError(f"--annotations are about the images of one folder, these lie in {folders[0]} and {folders[1]}; pass one of them")
    return Path(folders[0])


def images_of_run(checkpoint, note):
    """The images that validated a run, or that it was trained on where none did."""
    settings, of_run = checkpoint.get("settings", {}), "the images of the checkpoint's run"
    given = {split: Labelled(images=settings.get(f"{split}_images"), annotations=settings.get(f"{split}_annotations"))
             for split in ("train", "val")}
    split = "val" if given["val"].images else "train"
    folder = given[split].images
    if not folder or not Path(folder).is_dir():
        raise UserError(f"{of_run} are not here ({folder or 'none are named'}); pass --images, and --annotations where there are some")
    reading = Reading(val=settings.get("val"), **{name: settings.get(name) for name in READ_AS}, seed=settings.get("seed") or 0)
    classes = tuple(checkpoint["data"]["classes"])
    splits = (split,) if split == "val" else ("train", "val")
    sets, _, _ = read_sets(given, reading, classes, note=note, splits=splits)
    return [(str(image.path), image) for image in sets.get("val", sets.get("train"))]
