"""Which labelled image is for training, which for validation, which for testing; no two of these share a file or ground."""

import collections
import hashlib
import os
from pathlib import PurePosixPath

from chipping.splits import assign, describe_leaks, leaks, parse_share_or_names
from runtime.errors import UserError

SPLITS = ("train", "val", "test")
SAMPLE = 1 << 16  # bytes at the beginning, in the middle and at the end that tell files of one size apart


def split_images(images, val=None, test=None, seed=0):
    """
    {"train": [LabelledImage], "val": […], "test": […]} of labelled images, whole images each.

    val, test: as on the command line, a share such as 0.2 that is drawn with the seed, or names of images; None or "" for none. Images that
    share ground, or are one file under two names, stay together.
    """
    names = scene_names(images)
    chosen = {flag: parse_share_or_names(text, f"--{flag}", names.values()) for flag, text in (("val", val), ("test", test))}
    by_name = {names[image.name]: image for image in images}
    sizes, twins = collections.Counter(image.header.size for image in images), {}
    for name, image in by_name.items():
        twins.setdefault(file_key(image.path) if sizes[image.header.size] > 1 else name, []).append(name)
    first = {name: group[0] for group in twins.values() for name in group}
    leaders = sorted(set(first.values()))
    outlines = {name: by_name[name].header.outline() for name in leaders}
    wanted = {flag: [first[name] if name in first else name for name in words] if isinstance(words, list) else words
              for flag, words in chosen.items()}
    split = assign(leaders, outlines, wanted["val"], wanted["test"], split_by="scene", seed=seed)
    found = {part: [] for part in SPLITS}
    for name, image in by_name.items():
        found[split[first[name]]].append(image)
    return found


def scene_names(images):
    """{image's name: what it is called in --val}: without suffix where that is unique."""
    stems = {image.name: str(PurePosixPath(image.name).with_suffix("")) for image in images}
    counts = collections.Counter(stems.values())
    return {name: stem if counts[stem] == 1 else name for name, stem in stems.items()}


def file_key(path):
    """Equal for one file under several names, and for copies."""
    size = os.path.getsize(path)
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for start in sorted({0, max(0, size // 2 - SAMPLE // 2), max(0, size - SAMPLE)}):
            file.seek(start)
            digest.update(file.read(SAMPLE))
    return size, digest.digest()


def refuse_leaks(sets, allow=False, note=lambda text: None):
    """
    UserError where an image of one set is also in another, as a file or as ground. sets: {"train": [LabelledImage], …}.

    allow: note(text) instead. Images without a place on the ground are compared as files alone.
    """
    words = shared_files(sets) or shared_ground(sets)
    if not words:
        return
    if not allow:
        raise UserError(f"{words}, so scores would flatter; move them into one set, or pass --allow-overlap")
    note(f"{words}, so scores will flatter")


def shared_files(sets):
    """`a.jpg (train) and b.jpg (val) are one file`, or None."""
    sizes = collections.defaultdict(list)
    for split, images in sets.items():
        for image in images:
            sizes[image.header.size].append((split, image))
    for group in sizes.values():
        if len({split for split, _ in group}) > 1:
            seen = {}
            for split, image in group:
                other, before = seen.setdefault(file_key(image.path), (split, image))
                if other != split:
                    return f"{before.name} ({other}) and {image.name} ({split}) are one file"
    return None


def shared_ground(sets):
    """`a (train) and b (val) share ground`, or None."""
    split, outlines = {}, {}
    for part, images in sets.items():
        for image in images:
            name = image.name if image.name not in split else f"{image.name} of {part}"
            split[name], outlines[name] = part, image.header.outline()
    found = leaks(split, outlines)
    return f"images of different sets share ground: {describe_leaks(found, 3)}" if len(found) else None
