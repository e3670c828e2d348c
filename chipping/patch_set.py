"""
What a patch set holds: its description and manifest as patches with one label layer chosen.

A patch set is a folder made by `chip.py make-patches` (chipset.json, manifest.jsonl, {split}/…_image.npy (C, H, W) and
…_mask.npy (L, H, W)), or one in the older form without a description ({split}/…_image.npy (H, W, C) float32 reflectance,
…_mask.npy (H, W)).
"""

import dataclasses
import functools
import re
from pathlib import Path

from chipping.chipset import DESCRIPTION, MANIFEST, read_chipset, read_manifest, unfinished_words
from chipping.fields import problem_of_patch
from classes import class_set
from constants import CEMS_BANDS, LAYER_OF_NUM_CLASSES, get_class_names
from nets.model_config import TASKS, answers_classes, answers_pixels, answers_values
from raster.acquired import time_in_name, time_of
from raster.dated import days_of_bands
from runtime.errors import UserError
from runtime.npy import BadArray, shape_of

SPLITS = ("train", "val", "test")


@dataclasses.dataclass(slots=True)
class Patch:
    """
    One line of a manifest, as far as training needs it. class_pixels, band sums: None in sets without a manifest. mask: None in sets of
    labels of whole patches, whose class_pixels are 1 for each class that a patch has. target_sums: see chipping.cutting.value_sums. days:
    ISO days on which it was taken, () where nothing tells. place: (lon, lat) of its middle, None where it is not known.
    """

    image: Path
    mask: Path | None
    split: str
    scene: str
    event: str
    window: tuple  # column, row, width, height in the scene
    scene_size: tuple | None  # width, height
    class_pixels: list | None = None  # valid pixels of each class, of the chosen layer
    band_sum: list | None = None  # stored units, valid pixels
    band_sum_squares: list | None = None
    valid_pixels: int = 0
    dtype: str | None = None
    target_sums: list | None = None
    days: tuple = ()
    place: tuple | None = None


@dataclasses.dataclass(frozen=True)
class PatchDays:
    """
    When patches were taken. bands: names of the set's, () where they are not those of each of its scenes; stated: its patches state all
    dates of their samples.
    """

    bands: tuple
    stated: bool

    def of(self, patch, dates):
        """ISO days of a patch of so many dates, by the names of the bands where these have them."""
        return patch.days if dates == 1 or self.stated else days_of_bands(self.bands, dates)


@dataclasses.dataclass
class PatchSet:
    """A patch set with one label layer chosen. task: what is learned; of a regression `classes` is the name of its values."""

    folder: Path
    bands: tuple
    divide_by: tuple
    offset: tuple
    nodata: float | None
    layer: str
    plane: int  # of the mask file
    classes: tuple
    chip_size: int
    patches: list
    without_layer: int  # patches that have no labels of this layer and are left out
    described: bool  # False for the older form
    ground_resolution: float | None = None
    unfinished: str | None = None  # a sentence where it was not made to its end
    task: str = "segmentation"
    sensing: dict = dataclasses.field(default_factory=dict)  # "sensor", "level", "wavelengths" (nm) of products; "dates" of a sample

    @property
    def patch_shape(self):
        """(height, width) of its patches."""
        if self.described or not self.patches:
            return self.chip_size, self.chip_size
        width, height = self.patches[0].window[2:]
        return height, width

    @property
    def class_set(self):
        return class_set(self.classes)

    def known_coordinates(self, dates):
        """("times", "place"), those of the two that are known of each patch. dates: that a model reads."""
        days = self.days
        found = (all(len(days.of(patch, dates)) == dates for patch in self.patches), all(patch.place for patch in self.patches))
        return tuple(name for name, is_known in zip(("times", "place"), found, strict=True) if is_known)

    @property
    def days(self):
        return PatchDays(self.bands if len({patch.scene for patch in self.patches}) == 1 else (), "dates" in self.sensing)

    def of_split(self, split):
        return [patch for patch in self.patches if patch.split == split]


def read_patch_set(folder, num_classes=None, layer=None, task=None):
    """
    The PatchSet of a folder. The layer is the one named, or the only one, or the one that has num_classes classes (2: DEL, 5: GRA).

    task: what it has to be for, or None for any. UserError: not a folder, nothing in it, no such layer, a number of classes or a task that
    disagrees.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"patches folder {folder} does not exist; make it with chip.py make-patches, or pass --patches-dir")
    if (folder / DESCRIPTION).exists():
        return read_described_set(folder, num_classes, layer, task)
    if not answers_classes(task):
        raise UserError(f"{folder} is a set of the older form, for segmentation; make patches with chip.py make-patches --task {task}")
    return read_older_set(folder, num_classes, layer)


def read_described_set(folder, num_classes, layer, wanted):
    description = read_chipset(folder)
    if description["kind"] != "patches":
        raise UserError(f"{folder} holds {description['kind']}, expected patches; make them with chip.py make-patches")
    task = description.get("task", "segmentation")
    if wanted is not None and TASKS[wanted] != TASKS[task]:
        raise UserError(f"--task {wanted}, but the patches of {folder} are made for {task}; pass --task {task}, or make others with "
                        f"make-patches --task {wanted}")
    task, layers = wanted or task, description["layers"]
    layer = choose_layer(folder, layers, num_classes, layer)
    classes = tuple(description["classes"][layer])
    if num_classes is not None and num_classes != len(classes):
        raise UserError(f"--num-classes {num_classes}: layer {layer} of {folder} has {len(classes)} ({', '.join(classes)}); pass "
                        f"--num-classes {len(classes)} or another --layer")
    lines = read_manifest(folder)
    patches = []
    for number, line in enumerate(lines, start=1):
        try:
            if problem := problem_of_patch(line, description):
                raise UserError(f"{folder / MANIFEST}, line {number} {problem}; make the patches again")
            if layer in line.get("layers", layers):
                patches.append(patch_of_line(folder, line, layer, task))
        except KeyError as error:
            raise UserError(f"{folder / MANIFEST}, line {number} lacks {error}; make the patches again") from error
    if not patches:
        found = f"none of its {len(lines)} patches has labels of layer {layer}" if lines else "its manifest lists no patches"
        raise UserError(f"{folder} has nothing to train on: {found}; make patches with chip.py make-patches")
    bands, divide_by, offset = (tuple(description[key]) for key in ("bands", "divide_by", "offset"))
    return PatchSet(folder, bands, divide_by, offset, description.get("nodata"), layer, layers.index(layer), classes,
                    description["chip_size"], patches, len(lines) - len(patches), True, ground_resolution(lines),
                    unfinished_words(folder, description, len(lines)), task,
                    {key: description[key] for key in ("sensor", "level", "wavelengths", "dates") if key in description})


def patch_of_line(folder, line, layer, task):
    """The Patch of a manifest's line, whose fields are checked. KeyError where the line lacks one."""
    column, row, width, height = line["window"]
    return Patch(
        folder / line["file"], folder / line["mask"] if answers_pixels(task) else None,
        line["split"], line["scene"], line.get("event") or line["scene"],
        (column, row, width, height), tuple(line["scene_size"]) if line.get("scene_size") else None, line["class_pixels"][layer],
        line.get("band_sum"), line.get("band_sum_squares"), line.get("valid_pixels") or 0, line.get("dtype"),
        line["target_sums"][layer] if answers_values(task) else None, days_of_line(line), place_of_line(line),
    )


def days_of_line(line):
    """ISO days of a manifest's line: those of a sample of several, else as product or name of its scene tell; () where nothing does."""
    if "dates" in line:
        return tuple(line["dates"])
    source = line.get("source")
    return day_of(str(source.get("datetime", "")) if isinstance(source, dict) else "", line["scene"])


@functools.lru_cache(maxsize=1024)
def day_of(stated, scene):
    time = time_of(stated) or time_in_name(scene)
    return (time[0].date().isoformat(),) if time else ()


def place_of_line(line):
    """(lon, lat) of the middle of a patch, None where it has no place."""
    if line.get("place"):
        return tuple(line["place"])
    try:
        corners = [(float(lon), float(lat)) for lon, lat in line.get("footprint") or ()]
    except (TypeError, ValueError):
        return None
    if len(corners) != 4:
        return None
    first = corners[0][0]
    lons = [lon - 360 * round((lon - first) / 360) for lon, _ in corners]  # on one side of the antimeridian
    return (sum(lons) / 4 + 180) % 360 - 180, sum(lat for _, lat in corners) / 4


def choose_layer(folder, layers, num_classes, layer):
    if layer is not None:
        if layer not in layers:
            raise UserError(f"--layer {layer} is not in {folder}; its layers are {', '.join(layers)}")
        return layer
    if len(layers) == 1:
        return layers[0]
    usual = LAYER_OF_NUM_CLASSES.get(num_classes)
    if usual in layers:
        return usual
    raise UserError(f"{folder} has the label layers {', '.join(layers)}, and none is usual for {num_classes} classes; pass --layer")


def ground_resolution(lines):
    """Metres a pixel of the first line that says so, or None. Degrees are turned into metres along the meridian."""
    for line in lines:
        transform, crs = line.get("transform"), line.get("crs")
        if transform and crs:
            size = abs(transform[4]) or abs(transform[3])
            return size * 111_320.0 if size < 0.1 else size
    return None


def read_older_set(folder, num_classes, layer):
    """A set of the older form: found by its names, without statistics."""
    patches = []
    for split in SPLITS:
        for image in sorted((folder / split).glob("*_image.npy")):
            stem = image.name.removesuffix("_image.npy")
            place = re.fullmatch(r"(.+)_r(\d+)_c(\d+)", stem)
            scene, row, column = (place[1], int(place[2]), int(place[3])) if place else (stem, 0, 0)
            event = re.match(r"EMSR\d+", scene)
            mask = image.with_name(f"{stem}_mask.npy")
            if not mask.exists():
                raise UserError(f"{image} has no mask {mask.name} beside it; make the patches again")
            patches.append(Patch(image, mask, split, scene, event[0] if event else scene, (column, row, 0, 0), None))
    if not patches:
        raise UserError(f"{folder} holds no patches: expected {DESCRIPTION}, or train/…_image.npy; make them with chip.py make-patches")
    for patch in patches:
        try:
            height, width, bands = shape_of(patch.image)
            break
        except (BadArray, ValueError):
            continue
    else:
        raise UserError(f"no patch of {folder} can be read as (height, width, bands); make them again")
    for patch in patches:
        patch.window = (*patch.window[:2], width, height)
    known = {len(CEMS_BANDS): CEMS_BANDS, len(CEMS_BANDS) + 1: (*CEMS_BANDS, "NDVI")}
    names = known.get(bands, tuple(f"band_{i + 1}" for i in range(bands)))
    count = num_classes or 2
    layer = layer or LAYER_OF_NUM_CLASSES.get(count, "mask")
    return PatchSet(folder, names, (1.0,) * bands, (0.0,) * bands, None, layer, 0, get_class_names(count), height, patches, 0, False)
