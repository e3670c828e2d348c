"""
What a user can ask of make-patches: one dataclass for each group of its flags.

Texts are as on the command line and are parsed by chipping/plan.py; None means that the flag was not given.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """
    What to cut. dataset_dir: folder in the CEMS layout; the others are for the general form. images, masks, clouds: lists of files, folders
    or patterns; images also delivered products. no_clouds: their own cloud layers are not used. labels: paths of polygon files. *_suffix:
    endings that names do not share. stack: bands that come as a file each; stack_folder: where VRTs of stacks go. exclude: scenes to leave
    out. dates: (first, last) of runtime.values.dates in which scenes were taken, or None. count_of_dates: of one place in a sample, None
    for scenes as they are. scene_labels: of whole images, "folders" or the path of a CSV.
    """

    dataset_dir: str | None = None
    images: list | None = None
    masks: list | None = None
    labels: list | None = None
    clouds: list | None = None
    no_clouds: bool = False
    image_suffix: str | None = None
    mask_suffix: str | None = None
    cloud_suffix: str | None = None
    stack: str | None = None
    stack_folder: str | None = None
    exclude: str | None = None
    dates: tuple | None = None
    count_of_dates: int | None = None
    scene_labels: str | None = None


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """
    Which bands, and reflectance = (value + offset) / divide_by. nodata: a number, or "none". accept_scale: what cannot be reflectance
    is not refused.
    """

    bands: str | None = None
    divide_by: str | None = None
    offset: str | None = None
    nodata: str | None = None
    accept_scale: bool = False


@dataclass(frozen=True, kw_only=True)
class Labels:
    """
    What label values mean. class_field: property of polygons that holds the class. align: warp masks to their image's grid. task: what
    is learned (nets.model_config.TASKS). target: name of the values of a regression.
    """

    classes: str | None = None
    class_field: str | None = None
    label_map: str | None = None
    align: bool = False
    task: str = "segmentation"
    target: str = "value"


@dataclass(frozen=True, kw_only=True)
class Windows:
    """
    Which windows become patches. size, stride: pixels; stride None is 7/8 of the size. max_cloud, min_valid: shares, 0 to 1. ignore_clouds:
    cloud classes that become ignore. cloud_values, cloud_bits: what is cloudy in a cloud mask. aoi: path of polygons.
    """

    size: int = 256
    stride: int | None = None
    max_cloud: float = 0.5
    ignore_clouds: str | None = None
    cloud_values: str | None = None
    cloud_bits: str | None = None
    min_valid: float = 0.0
    aoi: str | None = None


@dataclass(frozen=True, kw_only=True)
class Splits:
    """
    Which scenes are for validation and testing. val, test: names or a share. split_by: "event" or "scene", of what a share is drawn; seed:
    of the draw. allow_overlap: scenes of different splits may share ground.
    """

    val: str | None = None
    test: str | None = None
    split_by: str = "event"
    seed: int = 0
    allow_overlap: bool = False
