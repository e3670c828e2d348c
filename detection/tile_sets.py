"""The images of a training run and their tiles: labels are read, images split, tiles made or found in their cache."""

from dataclasses import dataclass

from chipping.box_labels import read_labels
from chipping.box_splits import refuse_leaks, split_images
from runtime.errors import UserError

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Images of one split: their folder and annotations, as on the command line. None: not given."""

    images: str | None
    annotations: str | None


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How labels are read. val: share or names of training images that validate, where --val-images is not given."""

    val: str | None = None
    label_map: str | None = None
    point_size: str | None = None
    class_field: str | None = None
    allow_overlap: bool = False
    strict: bool = False
    seed: int = 0


def read_sets(given, reading, classes=None, known=None, note=lambda text: None, splits=SPLITS):
    """
    ({"train": [LabelledImage] …} of the splits that are there, classes, {image's name: why it cannot be opened}).

    given: {"train": Labelled, …}. classes: names of a checkpoint, or None for those of the training annotations; known: see read_labels.
    UserError where a split has a class that training lacks, or where two splits share an image or ground.
    """
    sets, unreadable = {}, {}
    for split in splits:
        if not given[split].images:
            continue
        if not given[split].annotations:
            raise UserError(f"--{split}-images needs its annotations; pass --{split}-annotations too")
        found, images, counts = read_labels(
            given[split].images, given[split].annotations, classes=classes, label_map=reading.label_map, point_size=reading.point_size,
            class_field=reading.class_field, known=known, strict=reading.strict, note=note)
        unreadable |= counts.unreadable
        classes = classes or found
        note(f"{split}: {counts.in_words()}")
        sets[split] = images
    if "train" in sets and "val" not in sets and "val" in splits and reading.val:
        parts = split_images(sets["train"], val=reading.val, seed=reading.seed)
        sets["train"], sets["val"] = parts["train"], parts["val"]
    if len(sets) > 1:
        refuse_leaks(sets, allow=reading.allow_overlap, note=note)
    return sets, classes, unreadable


def open_tiles(sets, given, classes, caches, processes, console):
    """
    ({split: TileSet}, {image's name: why it cannot be read}). caches: tile_caches.Caches.

    The first process makes what is missing, the others wait. Validation images may be drawn from the folder of those for training.
    """
    found, unreadable = {}, {}
    for split, images in sets.items():
        arguments = (split, given[split].images or given["train"].images, classes, images)
        if processes.is_first:
            cut(caches, arguments, console)
        processes.wait_for_all()
        found[split], broken = caches.tiles(*arguments)
        unreadable |= broken
    return found, unreadable


def cut(caches, arguments, console):
    """Caches.tiles with a progress bar, which appears with the first tile that is missing."""
    bars = []

    def starting(count):
        if count:
            bars.append(console.progress(count, f"tiles for {arguments[0]}"))
            bars[0].__enter__()

    try:
        caches.tiles(*arguments, note=console.say, starting=starting, progress=lambda count: bars and bars[0].update(count))
    finally:
        for bar in bars:
            bar.__exit__(None, None, None)
