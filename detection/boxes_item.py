"""The STAC item of an image's detections: where and when the image is, its files, how many objects of which class."""

from classes import ClassSet, class_objects
from mapping.stac_item import file_of, item_of
from pictures.box_overlays import box_colours
from raster.acquired import time_of_scene


def boxes_item(record, plan, files, facts, settings):
    """
    The item as a dict, None where nothing tells when the image was taken.

    record: of the image. plan: SceneInput. files: ImageFiles. facts: DetectorFacts. settings: FindSettings.
    """
    written = {kind: path for kind, path in files.content(settings.vectors).items() if path.name in record["files"]}
    assets = {kind: file_of(path) for kind, path in written.items()}
    if "boxes" in assets:
        assets["boxes"] |= {"title": "boxes or outlines of objects", "classification:classes": legend(record, facts)}
    assets["preview"] |= {"title": "the image with its objects", "roles": ["thumbnail"]}
    return item_of(f"{files.name}_boxes", plan.info, time_of_scene(plan.info), made_from=[plan.info.path], folder=files.folder,
                   more={"chipmill:weights": facts.weights}, assets=assets)


def legend(record, facts):
    """The classes, from 1 on, as the classification extension has them, with their objects."""
    classes = zip(class_objects(ClassSet(tuple(facts.classes), each=True)), box_colours(facts.classes, facts.colours), strict=True)
    return [{**one, "value": one["value"] + 1, "color_hint": "".join(f"{part:02X}" for part in colour), "count": record["counts"][name]}
            for name, (one, colour) in zip(facts.classes, classes, strict=True)]
