"""What is in a chip set: words for the terminal, and a contact sheet for the eye."""

import collections
import math
import random
from pathlib import Path

import numpy as np

from chipping.chipset import DESCRIPTION, read_chipset, read_lines, read_manifest
from chipping.splits import SPLITS
from constants import IGNORE, band_role, get_class_colours
from runtime.errors import RunError, UserError, did_you_mean
from runtime.files import atomic_path, refuse_existing, require_writable

SUFFIXES = ("B", "kB", "MB", "GB", "TB")
SHEET = "contact_sheet.png"
CELL, GAP, COLUMNS, MOST = 192, 6, 3, 24  # pixels, pixels, patches a row, patches on a sheet
IGNORE_COLOUR = (120, 120, 120)
NATURAL = ("red", "green", "blue")
BURN = ("swir2", "nir", "red")  # burnt ground glows red, living plants are green


def in_bytes(size):
    """1234567 → 1.2 MB (powers of 1000, as disks are sold)."""
    number = 0
    while size >= 999.5 and number < len(SUFFIXES) - 1:
        size, number = size / 1000, number + 1
    return f"{size:.0f} {SUFFIXES[number]}" if number == 0 or size >= 100 else f"{size:.1f} {SUFFIXES[number]}"


def plural(count, word):
    return f"{count} {word}" if count == 1 else f"{count} {word}es" if word.endswith("ch") else f"{count} {word}s"


def inspect_folder(folder, output=None, overwrite=False, pictures=True, seed=0, say=print):
    """
    Say what is in a chip set, by its kind, and draw its contact sheet.

    output: where the sheet goes; by default into the folder, where it replaces the one before. say(text) hears the words.
    """
    if output:
        refuse_existing([output], overwrite)
    if is_ard(folder):
        return inspect_ard(folder, say)
    folder = Path(folder)
    if folder.is_dir() and not (folder / DESCRIPTION).exists() and any(folder.glob("*/*_image.npy")):
        return inspect_predecessor(folder, say)
    if folder.is_dir() and not (folder / DESCRIPTION).exists() and any(folder.glob("[0-9]*.pt")):
        return inspect_pan_chips(folder, None, Path(output) if output else folder / SHEET, pictures, seed, say)
    description = read_chipset(folder)
    kind = description.get("kind")
    if kind not in INSPECTORS:
        raise UserError(f"{folder} is a chip set of kind {kind!r}; inspect knows {', '.join(INSPECTORS)}.{did_you_mean(kind, INSPECTORS)}")
    INSPECTORS[kind](folder, description, Path(output) if output else folder / SHEET, pictures, seed, say)


# --- patches -------------------------------------------------------------------------------------------------------------------


def inspect_patches(folder, description, output, pictures, seed, say):
    lines = read_manifest(folder)
    if not lines:
        raise UserError(f"{folder} lists no patch yet; run chip.py make-patches again, it goes on where it was stopped")
    for text in patch_words(folder, description, lines):
        say(text)
    if pictures:
        require_writable(output.parent)
        unreadable = draw_contact_sheet(folder, description, choose_patches(lines, description, seed), output)
        if unreadable:
            say(f"{plural(len(unreadable), 'patch')} of those chosen for the sheet can't be read, first {unreadable[0]}")
        say(f"contact sheet: {output}")


def patch_words(folder, description, lines):
    """What a person wants to know of a patch set, line by line, from the manifest alone."""
    bands, size = description["bands"], description["chip_size"]
    types = ", ".join(f"{plural(n, 'patch')} {t}" for t, n in sorted(collections.Counter(line["dtype"] for line in lines).items()))
    disk = sum((folder / line[key]).stat().st_size for line in lines for key in ("file", "mask") if (folder / line[key]).exists())
    yield f"{folder}: {plural(len(lines), 'patch')} of {size}×{size} pixels, {plural(len(bands), 'band')} ({types}), {in_bytes(disk)}"
    yield f"bands: {', '.join(bands)}"
    yield f"reflectance = (value + offset) / divisor: {scale_words(description)}"
    scenes = {split: {line["scene"] for line in lines if line["split"] == split} for split in SPLITS}
    for split in SPLITS:
        mine = [line for line in lines if line["split"] == split]
        if not mine:
            continue
        events = sorted({line["event"] for line in mine})
        valid = sum(line["valid_pixels"] for line in mine) / sum(line["window"][2] * line["window"][3] for line in mine)
        named = ", ".join(events[:6]) + (" …" if len(events) > 6 else "")
        where = f"{plural(len(scenes[split]), 'scene')} of {plural(len(events), 'event')} ({named})"
        yield f"{split}: {plural(len(mine), 'patch')} from {where}, {valid:.1%} of the pixels valid"
        for layer in description["layers"]:
            here = [line for line in mine if layer in line["layers"]]
            lacking = len(mine) - len(here)
            yield f"  {layer}: {class_words(here, layer, description['classes'][layer])}" + (
                f"; {plural(lacking, 'patch')} without this layer" if lacking else "")
    clouds = [line["cloud_cover"] for line in lines if line["cloud_cover"] is not None]
    if clouds:
        cover = f"{sum(clouds) / len(clouds):.1%} on average, {max(clouds):.1%} at most"
        yield f"clouds: {cover} ({plural(len(clouds), 'patch')} with a cloud mask)"
    train = [line for line in lines if line["split"] == "train"] or lines
    yield "mean ± standard deviation of the reflectance" + (" (train): " if any(line["split"] == "train" for line in lines) else ": ") + \
        ", ".join(f"{b} {m:.4g} ± {s:.4g}" for b, (m, s) in zip(bands, band_statistics(train, description), strict=True))
    skipped = read_lines(folder / "skipped.jsonl")
    if skipped:
        reasons = collections.Counter(line["reason"] for line in skipped)
        yield f"left out: {', '.join(f'{n} {reason}' for reason, n in reasons.most_common())}"
        for source in sorted({line["source"] for line in skipped if line["reason"] == "unreadable"}):
            yield f"  could not be read: {source}"


def scale_words(description):
    pairs = list(zip(description["offset"], description["divide_by"], strict=True))
    if len(set(pairs)) == 1:
        return f"offset {pairs[0][0]:g}, divisor {pairs[0][1]:g}"
    return ", ".join(f"{b} {o:g}, {d:g}" for b, (o, d) in zip(description["bands"], pairs, strict=True))


def class_words(lines, layer, names):
    """`background 81.2 %, fire 18.8 %; fire in 30 of 44 patches`: shares of labelled pixels."""
    counts = np.sum([line["class_pixels"][layer] for line in lines], axis=0) if lines else np.zeros(len(names), int)
    total = int(counts.sum())
    if not total:
        return "nothing labelled"
    shares = ", ".join(f"{name} {n / total:.2%}" for name, n in zip(names, counts, strict=True))
    busy = sum(1 for line in lines if any(line["class_pixels"][layer][1:]))
    return f"{shares}; {plural(busy, 'patch')} with more than {names[0]}"


def band_statistics(lines, description):
    """[(mean, standard deviation)] a band in reflectance, from the manifest's sums."""
    pixels = sum(line["valid_pixels"] for line in lines)
    result = []
    for band, (divisor, offset) in enumerate(zip(description["divide_by"], description["offset"], strict=True)):
        mean = math.fsum(line["band_sum"][band] for line in lines) / pixels
        variance = math.fsum(line["band_sum_squares"][band] for line in lines) / pixels - mean**2
        result.append(((mean + offset) / divisor, math.sqrt(max(0.0, variance)) / abs(divisor)))
    return result


def choose_patches(lines, description, seed, most=MOST):
    """
    Up to `most` patches that show what there is: every split has its turn, those with the rarer classes come first, drawn with the seed.
    """
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


def band_triples(names):
    """[(title, three positions)] of the pictures that bands allow: natural colours and burn-sensitive ones, else the first bands."""
    roles = {role: i for i, role in reversed(list(enumerate(map(band_role, names)))) if role}
    triples = []
    if all(role in roles for role in NATURAL):
        triples.append(("natural", [roles[r] for r in NATURAL]))
    if all(role in roles for role in BURN):
        triples.append(("burn", [roles[r] for r in BURN]))
    return triples or [("bands", [min(i, len(names) - 1) for i in (2, 1, 0)] if len(names) > 2 else [0, 0, 0])]


def to_picture(reflectance, low, high):
    """(3, H, W) reflectance → (H, W, 3) uint8, linear between low and high (3 each) with a gentle gamma."""
    scaled = (reflectance - low[:, None, None]) / np.maximum(high - low, 1e-6)[:, None, None]
    return (np.clip(scaled, 0, 1) ** 0.8 * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0)


def draw_contact_sheet(folder, description, lines, output):
    """A PNG: one cell a patch with its pictures and its label, splits and scenes written under them. → patches that can't be read."""
    from PIL import Image, ImageDraw, ImageFont

    divisors, offsets = (np.array(description[k], float)[:, None, None] for k in ("divide_by", "offset"))
    triples = band_triples(description["bands"])
    layer = description["layers"][0]
    colours = class_table(len(description["classes"][layer]))
    step = max(1, description["chip_size"] // CELL)
    patches, readable, unreadable = [], [], []
    for line in lines:
        try:
            stored = np.load(folder / line["file"], mmap_mode="r")
            image = (np.asarray(stored[:, ::step, ::step], np.float64) + offsets) / divisors
            patches.append((image, np.load(folder / line["mask"])[0, ::step, ::step]))
            readable.append(line)
        except (OSError, ValueError, EOFError):
            unreadable.append(line["file"])
    if not patches:
        raise RunError(f"no patch of {folder} can be read, first {unreadable[0]}; run chip.py make-patches again, it cuts what is missing")
    lines = readable
    # One stretch for the whole sheet: a dark patch beside a bright one is to look dark.
    sample = np.concatenate([image[:, mask != IGNORE] for image, mask in patches], axis=1)
    sample = sample[:, :: max(1, sample.shape[1] // 200_000)]
    low, high = np.percentile(sample, (1, 99), axis=1) if sample.size else (np.zeros(len(divisors)), np.ones(len(divisors)))
    wide, tall = CELL * (len(triples) + 1) + 3 * GAP, CELL + 18 + GAP
    columns = max(1, min(COLUMNS, len(patches)))
    rows, head = -(-len(patches) // columns), 34
    sheet = Image.new("RGB", (columns * wide + GAP, rows * tall + head + GAP), (250, 250, 248))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    title = f"{folder.name}: {' | '.join(t for t, _ in triples)} | {layer}"
    pen.text((GAP, 8), title, fill=(20, 20, 20), font=ImageFont.load_default(14))
    left = GAP + 24 + int(pen.textlength(title, font=ImageFont.load_default(14)))
    for name, colour in [*zip(description["classes"][layer], map(tuple, colours.tolist()), strict=False), ("ignore", IGNORE_COLOUR)]:
        pen.rectangle((left, 10, left + 12, 22), fill=colour, outline=(90, 90, 90))
        pen.text((left + 17, 9), name, fill=(20, 20, 20), font=font)
        left += 32 + int(pen.textlength(name, font=font))
    for number, (line, (image, mask)) in enumerate(zip(lines, patches, strict=True)):
        x, y = GAP + number % columns * wide, head + number // columns * tall
        pictures = [to_picture(image[which], low[which], high[which]) for _, which in triples] + [colours[mask]]
        for place, picture in enumerate(pictures):
            cell = Image.fromarray(np.ascontiguousarray(picture)).resize((CELL, CELL), Image.Resampling.NEAREST)
            sheet.paste(cell, (x + place * CELL, y))
        text = f"{line['split']}  {line['scene']}  row {line['window'][1]}  col {line['window'][0]}"
        pen.text((x, y + CELL + 2), text, fill=(60, 60, 60), font=font)
    output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(output) as temporary:
        sheet.save(temporary, format="PNG")
    return unreadable


def class_table(num_classes):
    """(256, 3) uint8: the colour of every class, grey for ignore."""
    table = np.full((256, 3), IGNORE_COLOUR, np.uint8)
    table[:num_classes] = get_class_colours(num_classes)
    return table


# --- sets of the predecessor ---------------------------------------------------------------------------------------------------


def inspect_predecessor(folder, say):
    """Words about {split}/*_image.npy (H, W, C) float32 with *_mask.npy (H, W): no manifest, so the masks are read."""
    for split in SPLITS:
        images = sorted((folder / split).glob("*_image.npy"))
        if not images:
            continue
        shapes, counts, lonely, unreadable = collections.Counter(), np.zeros(256, np.int64), 0, 0
        for path in images:
            mask = path.with_name(path.name.replace("_image.npy", "_mask.npy"))
            try:
                image = np.load(path, mmap_mode="r")
                labels = np.load(mask) if mask.exists() else None
            except (OSError, ValueError, EOFError):
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
    say(f"{folder} has no {DESCRIPTION}: patches as an earlier program left them, reflectance as it is; train.py reads them")


# --- pan/ms chips, ARD ---------------------------------------------------------------------------------------------------------


def is_ard(folder):
    from chipping.ard import is_ard

    return is_ard(folder)


def inspect_ard(folder, say):
    from chipping.pan_inspection import inspect_ard

    inspect_ard(folder, say)


def inspect_pan_chips(*what):
    from chipping.pan_inspection import inspect_pan_chips  # torch, which patch sets do without

    inspect_pan_chips(*what)


# kind in chipset.json → (folder, description, where the sheet goes, whether to draw it, seed, say)
INSPECTORS = {"patches": inspect_patches, "pansharpen": inspect_pan_chips}
