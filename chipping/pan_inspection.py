"""What is in a folder of pan/ms chips: counts as text, a choice of chips as a contact sheet of pan, ms and truth."""

import collections

import numpy as np

from chipping.chipset import find_chips, read_manifest, read_skipped
from chipping.pan_chips import BadChip, band_names, decode_chip, read_chip
from pictures.brightness import OKLAB
from pictures.chip_sheets import CELL, pair_sheet
from pictures.encoding import save_png
from raster.colour import has_colour
from runtime.files import require_writable
from runtime.words import in_bytes, plural

MOST = 12  # chips on a sheet


def inspect_pan_chips(folder, description, sheet, seed, say):
    """Describe pan/ms chips, and draw a sheet of some. description: of chipset.json, or None for bare chips; sheet: a path or None."""
    numbers, broken, foreign = find_chips(folder)
    if not numbers:
        say(f"{folder} has no chips yet")
        return
    size = sum((folder / f"{n}.pt").stat().st_size for n in numbers)
    say(f"{folder}: {plural(len(numbers), 'chip')}, {in_bytes(size)}; {broken} broken links, {foreign} other .pt files")
    if description:
        store = f"{description['store']} as {description['dtype']}" if "store" in description else "see the chips"
        say(f"chip size {description['chip_size']}, ratio {description['ratio']}, keeps {store}; bands: {', '.join(description['bands'])}")
    say_manifest(folder, say)
    chips = read_some(folder, numbers, seed, say)
    say_shapes([chip for _, chip in chips], say)
    if sheet and chips:
        require_writable(sheet.parent)
        captions = [f"{number}.pt  {chip.get('meta', {}).get('tile', '')}" for number, chip in chips]
        title = f"{folder.name}: the middle of each chip"
        save_png(sheet, pair_sheet([cut_middle(chip) for _, chip in chips], captions, title))
        say(f"contact sheet: {sheet}")


def read_some(folder, numbers, seed, say):
    """[(number, chip)] of at most MOST chips, drawn with the seed; those that can't be used are said and left out."""
    chosen = sorted(np.random.default_rng(seed).choice(numbers, min(MOST, len(numbers)), replace=False).tolist())
    chips = []
    for number in chosen:
        try:
            chips.append((number, read_chip(folder / f"{number}.pt")))
        except BadChip as error:
            say(f"{number}.pt can't be used: {error}")
    if len(chips) < len(chosen):
        say(f"{len(chosen) - len(chips)} of the {len(chosen)} chips looked at can't be used")
    return chips


def say_shapes(chips, say):
    """Say where chips of several shapes are in one folder."""
    shapes = collections.Counter((chip["pan"].shape[-1], chip["mul"].shape[-1], chip["mul"].shape[0]) for chip in chips)
    if len(shapes) > 1:
        found = "; ".join(f"{n} of pan {side}, ms {small} pixels, {bands} bands" for (side, small, bands), n in shapes.most_common())
        say(f"these chips don't go together: {found}; training leaves out all that are unlike the first")


def say_manifest(folder, say):
    lines = read_manifest(folder, ("tile", "cid", "valid_fraction"))
    if lines:
        tiles = collections.Counter(line["tile"] for line in lines)
        valid = [line["valid_fraction"] for line in lines]
        each = f"{min(tiles.values())} to {max(tiles.values())} chips each"
        say(f"from {plural(len(tiles), 'tile')}, {each}; valid {min(valid):.1%} at least")
        cids = collections.Counter(line["cid"] for line in lines)
        say("by strip: " + ", ".join(f"{cid} {n}" for cid, n in cids.most_common(8)) + (" …" if len(cids) > 8 else ""))
    reasons = collections.Counter(line["reason"] for line in read_skipped(folder, ("reason",)))
    reasons.pop("before-start", None)
    if reasons:
        say("windows left out: " + ", ".join(f"{n} {reason}" for reason, n in reasons.most_common()))


def cut_middle(chip):
    """
    (pan, ms, ms_bands, truth, truth_bands) of the chip's middle as pictures.chip_sheets.pair_sheet takes it.

    Only as much as a cell shows at full size: of a whole chip, shrunk, ms and truth look the same.
    """
    names = band_names(chip)
    as_oklab = has_colour(names) or "bands" not in chip  # a chip that doesn't name its bands may still keep Oklab
    pan, mul, truth, _ = decode_chip(chip, "oklab" if as_oklab else "bands")
    ratio = pan.shape[-1] // mul.shape[-1]
    side = max(1, min(CELL // ratio, mul.shape[-1]))  # ms pixels
    start = (mul.shape[-1] - side) // 2
    coarse = slice(start, start + side)
    fine = slice(start * ratio, (start + side) * ratio)
    pan, mul, truth = pan[:, fine, fine].numpy(), mul[:, coarse, coarse].numpy(), truth[:, fine, fine].numpy()
    return pan, mul, names, truth, OKLAB if as_oklab else names
