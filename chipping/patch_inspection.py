"""What is in a set of patches: counts from its manifest as text, a choice of patches as a contact sheet."""

import collections
import math
import random

import numpy as np

from chipping.chipset import DESCRIPTION, MANIFEST, read_manifest, read_skipped
from chipping.fields import problem_of_patch
from chipping.patch_set import SPLITS
from classes import ClassSet, class_set
from constants import IGNORE
from nets.model_config import answers_pixels, answers_values
from pictures.chip_sheets import CELL, label_answers_sheet, label_sheet, value_sheet
from pictures.encoding import save_png
from raster.scale import to_reflectance
from runtime.errors import RunError, UserError
from runtime.files import require_writable
from runtime.npy import BadArray, read_array
from runtime.words import in_bytes, plural

MOST = 24  # patches on a sheet
NEEDS = (  # fields of a manifest line
    "file", "mask", "split", "scene", "event", "window", "layers", "class_pixels", "cloud_cover", "dtype", "band_sum", "band_sum_squares",
    "valid_pixels",
)


def inspect_patches(folder, description, sheet, seed, say, colours=None):
    """
    Describe a patch set line by line, and draw its contact sheet. description: of chipset.json; sheet: a path or None; colours: of
    --class-colours.
    """
    layer = description["layers"][0]
    classes = ClassSet(tuple(description["classes"][layer])).with_colours(colours)
    has_masks = answers_pixels(description.get("task"))
    needs = (*NEEDS, "dates", "place") if "dates" in description else NEEDS
    lines = read_manifest(folder, [name for name in needs if name != "mask" or has_masks])
    if not lines:
        raise UserError(f"{folder} lists no patch yet; run chip.py make-patches again, it resumes")
    for number, line in enumerate(lines, start=1):
        if problem := problem_of_patch(line, description):
            raise UserError(f"{folder / MANIFEST}, line {number} {problem}; make the patches again")
    for text in patch_lines(folder, description, lines):
        say(text)
    if sheet:
        require_writable(sheet.parent)
        unreadable = save_sheet(folder, description, choose_patches(lines, description, seed), sheet, classes)
        if unreadable:
            say(f"{plural(len(unreadable), 'patch')} of those chosen for the sheet can't be read, first {unreadable[0]}")
        say(f"contact sheet: {sheet}")


def patch_lines(folder, description, lines):
    """Lines of text about a patch set, from its manifest alone."""
    bands, size = description["bands"], description["chip_size"]
    types = ", ".join(f"{plural(n, 'patch')} {t}" for t, n in sorted(collections.Counter(line["dtype"] for line in lines).items()))
    files = [folder / line[key] for line in lines for key in ("file", "mask") if key in line]
    disk = sum(path.stat().st_size for path in files if path.exists())
    yield f"{folder}: {plural(len(lines), 'patch')} of {size}×{size} pixels, {plural(len(bands), 'band')} ({types}), {in_bytes(disk)}"
    yield f"bands: {', '.join(bands)}"
    if "dates" in description:
        yield dates_text(description["dates"], lines)
    yield f"reflectance = (value + offset) / divisor: {scale_text(description)}"
    for split in SPLITS:
        yield from split_lines(split, [line for line in lines if line["split"] == split], description)
    clouds = [line["cloud_cover"] for line in lines if line["cloud_cover"] is not None]
    if clouds:
        cover = f"{sum(clouds) / len(clouds):.1%} on average, {max(clouds):.1%} at most"
        yield f"clouds: {cover} ({plural(len(clouds), 'patch')} with a cloud mask)"
    train = [line for line in lines if line["split"] == "train"]
    statistics = zip(bands, band_statistics(train or lines, description), strict=True)
    figures = ", ".join(f"{band} {mean:.4g} ± {deviation:.4g}" for band, (mean, deviation) in statistics)
    yield f"mean ± standard deviation of the reflectance{' (train)' if train else ''}: {figures}"
    yield from skipped_lines(read_skipped(folder, ("reason",)))


def dates_text(count, lines):
    """`3 dates of one place a sample, from 2024-01-01 to 2024-06-11; the first is lake_20240611: 2024-01-01, 2024-03-11, 2024-06-11`."""
    days = [day for line in lines for day in line["dates"]]
    first = lines[0]
    return (f"{plural(count, 'date')} of one place a sample, from {min(days)} to {max(days)}; the first is {first['scene']}: "
            f"{', '.join(first['dates'])}")


def split_lines(split, lines, description):
    """Lines of text about the patches of one split: where they come from, the classes in each layer."""
    if not lines:
        return
    events = sorted({line["event"] for line in lines})
    valid = sum(line["valid_pixels"] for line in lines) / sum(line["window"][2] * line["window"][3] for line in lines)
    named = ", ".join(events[:6]) + (" …" if len(events) > 6 else "")
    where = f"{plural(len({line['scene'] for line in lines}), 'scene')} of {plural(len(events), 'event')} ({named})"
    yield f"{split}: {plural(len(lines), 'patch')} from {where}, {valid:.1%} of the pixels valid"
    for layer in description["layers"]:
        here = [line for line in lines if layer in line["layers"]]
        lacking = len(lines) - len(here)
        without = f"; {plural(lacking, 'patch')} without this layer" if lacking else ""
        told = value_text if answers_values(description.get("task")) else class_text
        yield f"  {layer}: {told(here, layer, description['classes'][layer])}{without}"


def skipped_lines(lines):
    """Lines of text about the windows that became no patch, from the lines of skipped.jsonl."""
    if not lines:
        return
    reasons = collections.Counter(line["reason"] for line in lines)
    yield f"left out: {', '.join(f'{n} {reason}' for reason, n in reasons.most_common())}"
    for source in sorted({str(line.get("source")) for line in lines if line["reason"] == "unreadable"}):
        yield f"  could not be read: {source}"


def scale_text(description):
    """`offset -1000, divisor 10000`, band by band where they differ."""
    pairs = list(zip(description["offset"], description["divide_by"], strict=True))
    if len(set(pairs)) == 1:
        return f"offset {pairs[0][0]:g}, divisor {pairs[0][1]:g}"
    return ", ".join(f"{b} {o:g}, {d:g}" for b, (o, d) in zip(description["bands"], pairs, strict=True))


def value_text(lines, layer, names):
    """`biomass 81.2 on average, standard deviation 20.1, from 0 to 210.5, 98304 values`."""
    count = sum(line["class_pixels"][layer][0] for line in lines)
    sums = [line["target_sums"][layer] for line in lines if line["class_pixels"][layer][0]]
    if not count:
        return "no values"
    mean = math.fsum(s[0] for s in sums) / count
    deviation = math.sqrt(max(0.0, math.fsum(s[1] for s in sums) / count - mean**2))
    return (f"{names[0]} {mean:.4g} on average, standard deviation {deviation:.4g}, from {min(s[2] for s in sums):.4g} to "
            f"{max(s[3] for s in sums):.4g}, {plural(count, 'value')}")


def class_text(lines, layer, names):
    """`background 81.2 %, fire 18.8 %; fire in 30 of 44 patches`: shares of labelled pixels."""
    counts = np.sum([line["class_pixels"][layer] for line in lines], axis=0) if lines else np.zeros(len(names), int)
    total = int(counts.sum())
    if not total:
        return "nothing labelled"
    shares = ", ".join(f"{name} {n / total:.2%}" for name, n in zip(names, counts, strict=True))
    if not class_set(tuple(names)).has_background:
        busy = sum(1 for line in lines if sum(1 for n in line["class_pixels"][layer] if n) > 1)
        return f"{shares}; {plural(busy, 'patch')} with more than one class"
    busy = sum(1 for line in lines if any(line["class_pixels"][layer][1:]))
    return f"{shares}; {plural(busy, 'patch')} with more than {names[0]}"


def band_statistics(lines, description):
    """[(mean, standard deviation)] a band in reflectance, from the manifest's sums."""
    pixels = sum(line["valid_pixels"] for line in lines) or 1
    result = []
    for band, (divisor, offset) in enumerate(zip(description["divide_by"], description["offset"], strict=True)):
        mean = math.fsum(line["band_sum"][band] for line in lines) / pixels
        variance = math.fsum(line["band_sum_squares"][band] for line in lines) / pixels - mean**2
        result.append((to_reflectance(mean, divisor, offset), math.sqrt(max(0.0, variance)) / abs(divisor)))
    return result


def choose_patches(lines, description, seed, most=MOST):
    """Up to `most` manifest lines, drawn with the seed: splits take turns, and patches with several classes come first."""
    layer = description["layers"][0]

    def variety(line):  # 0: only one class in it
        counts = line["class_pixels"][layer]
        return sum(1 for n in counts if n)

    queues = []
    for split in SPLITS:
        mine = [line for line in lines if line["split"] == split]
        random.Random(seed).shuffle(mine)
        mine.sort(key=lambda line: -min(2, variety(line)))  # stable: the draw decides among equals
        queues.append(collections.deque(mine))
    chosen = []
    while len(chosen) < most and any(queues):
        chosen += [queue.popleft() for queue in queues if queue]
    return sorted(chosen[:most], key=lambda line: (SPLITS.index(line["split"]), line["file"]))


def save_sheet(folder, description, lines, sheet, classes):
    """Draw the patches of manifest `lines` into the PNG `sheet`; returns the files that can't be read. classes: of the first layer."""
    step = max(1, description["chip_size"] // CELL)
    shape = len(description["bands"]), description["chip_size"], description["chip_size"]
    patches, captions, unreadable, layer = [], [], [], description["layers"][0]
    for line in lines:
        try:
            stored = read_array(folder / line["file"], mapped=True)
            labels = read_array(folder / line["mask"], mapped=True) if "mask" in line else np.zeros((1, *shape[1:]), np.uint8)
            if stored.shape != shape or labels.shape[1:] != shape[1:] or not len(labels):
                raise BadArray(f"expected (bands, height, width) {shape}, found {stored.shape} and labels of {labels.shape}")
            image = to_reflectance(np.asarray(stored[:, ::step, ::step], np.float64), description["divide_by"], description["offset"])
            patches.append((image, np.asarray(labels[0, ::step, ::step])))
            named = [name for name, n in zip(classes.names, line["class_pixels"][layer], strict=True) if n] if "mask" not in line else []
            caption = f"{line['split']}  {line['scene']}  row {line['window'][1]}  col {line['window'][0]}"
            captions.append("  ".join([", ".join(named), caption] if named else [caption]))
        except BadArray:
            unreadable.append(line["file"])
    if not patches:
        raise RunError(f"no patch of {folder} can be read, first {unreadable[0]}; run chip.py make-patches again with --overwrite")
    if answers_values(description.get("task")):
        picture = value_sheet(*zip(*patches, strict=True), None, description["bands"], classes.names[0], captions)
    elif not answers_pixels(description.get("task")):
        picture = label_answers_sheet([image for image, _ in patches], description["bands"], captions)
    else:
        picture = label_sheet(patches, description["bands"], layer, classes, captions, folder.name)
    save_png(sheet, picture)
    return unreadable


# --- patches without a manifest ------------------------------------------------------------------------------------------------


def inspect_predecessor(folder, say):
    """Describe {split}/*_image.npy (H, W, C) float32 with *_mask.npy (H, W): there is no manifest, so the masks are read."""
    for split in SPLITS:
        images = sorted((folder / split).glob("*_image.npy"))
        if not images:
            continue
        shapes, counts, lonely, unreadable = collections.Counter(), np.zeros(256, np.int64), 0, 0
        for path in images:
            mask = path.with_name(path.name.replace("_image.npy", "_mask.npy"))
            try:
                image = read_array(path, mapped=True)
                labels = read_array(mask) if mask.exists() else None
            except BadArray:
                unreadable += 1
                continue
            shapes[f"{'×'.join(map(str, image.shape))} {image.dtype}"] += 1
            if labels is None:
                lonely += 1
            else:
                counts += np.bincount(labels.astype(np.uint8).ravel(), minlength=256)
        labelled = max(1, int(counts[:IGNORE].sum()))
        shares = ", ".join(f"class {c} {counts[c] / labelled:.2%}" for c in np.flatnonzero(counts[:IGNORE]))
        more = (f"; {lonely} without mask" if lonely else "") + (f"; {unreadable} can't be read" if unreadable else "")
        kinds = ", ".join(f"{n} of {s}" for s, n in shapes.most_common())
        say(f"{split}: {plural(len(images), 'patch')} ({kinds}); {shares or 'no label'}{more}")
    say(f"{folder} has no {DESCRIPTION}: patches in the layout before manifests, reflectance as it is; train.py reads them")
