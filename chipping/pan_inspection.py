"""What is in a folder of pan/ms chips, or in an ARD delivery: words, and a contact sheet of pan, ms in colour, and truth."""

import collections
from pathlib import Path

import numpy as np

from chipping.ard import read_items, summarise
from chipping.chipset import read_lines, read_manifest
from chipping.link_chips import find_chips
from chipping.pan_chips import BadChip, band_names, decode_chip, read_chip
from raster.colour import bands_to_oklab, has_colour, oklab_to_srgb
from runtime.files import atomic_path

CELL, GAP, MOST = 192, 6, 12  # pixels, pixels, chips on a sheet
SKIPPED = "skipped.jsonl"


def inspect_pan_chips(folder, description, output, pictures, seed, say):
    """description: of chipset.json, or None for a folder of bare chips or links."""
    folder = Path(folder)
    numbers, broken, foreign = find_chips(folder)
    if not numbers:
        say(f"{folder} has no chips yet")
        return
    size = sum((folder / f"{n}.pt").stat().st_size for n in numbers)
    say(f"{folder}: {len(numbers)} chips, {size / 1e6:.0f} MB; {broken} broken links, {foreign} other .pt files")
    if description:
        store = f"{description['store']} as {description['dtype']}" if "store" in description else "see the chips"
        say(f"chip size {description['chip_size']}, ratio {description['ratio']}, keeps {store}; bands: {', '.join(description['bands'])}")
    say_manifest(folder, say)
    rng = np.random.default_rng(seed)
    chosen = sorted(rng.choice(numbers, min(MOST, len(numbers)), replace=False).tolist())
    chips = []
    for number in chosen:
        try:
            chips.append((number, read_chip(folder / f"{number}.pt")))
        except BadChip as error:
            say(f"{number}.pt can't be used: {error}")
    if len(chips) < len(chosen):
        say(f"{len(chosen) - len(chips)} of the {len(chosen)} chips looked at can't be used")
    shapes = collections.Counter((chip["pan"].shape[-1], chip["mul"].shape[-1], chip["mul"].shape[0]) for _, chip in chips)
    if len(shapes) > 1:
        found = "; ".join(f"{n} of pan {side}, ms {small} pixels, {bands} bands" for (side, small, bands), n in shapes.most_common())
        say(f"these chips don't go together: {found}; training leaves out all that are unlike the first")
    if pictures and chips:
        draw_sheet(folder, chips, output)
        say(f"contact sheet: {output}")


def say_manifest(folder, say):
    lines = read_manifest(folder)
    if lines:
        tiles = collections.Counter(line["tile"] for line in lines)
        valid = [line["valid_fraction"] for line in lines]
        many = "s" * (len(tiles) > 1)
        say(f"from {len(tiles)} tile{many}, {min(tiles.values())} to {max(tiles.values())} chips each; valid {min(valid):.1%} at least")
        cids = collections.Counter(line["cid"] for line in lines)
        say("by strip: " + ", ".join(f"{cid} {n}" for cid, n in cids.most_common(8)) + (" …" if len(cids) > 8 else ""))
    reasons = collections.Counter(line["reason"] for line in read_lines(folder / SKIPPED))
    reasons.pop("before-start", None)
    if reasons:
        say("windows left out: " + ", ".join(f"{n} {reason}" for reason, n in reasons.most_common()))


def three_pictures(chip):
    """
    [pan, ms, truth] of the chip's middle, each (3, n, n) reflectance, or ("oklab", (3, n, n)) where the bands have a colour.

    Only as much as a cell shows at full size: of a whole chip, shrunk, ms and truth look the same.
    """
    names = band_names(chip)
    colour = has_colour(names)
    picture = colour or "bands" not in chip  # a chip that doesn't name its bands may still keep Oklab
    pan, mul, truth, _ = decode_chip(chip, "oklab" if picture else "bands")
    ratio = pan.shape[-1] // mul.shape[-1]
    side = max(1, min(CELL // ratio, mul.shape[-1]))  # ms pixels
    start = (mul.shape[-1] - side) // 2
    fine, coarse = slice(start * ratio, (start + side) * ratio), slice(start, start + side)
    pan, mul, truth = pan[:, fine, fine], mul[:, coarse, coarse], truth[:, fine, fine]
    three = [i % len(names) for i in range(3)]
    return [
        np.repeat(pan.numpy(), 3, axis=0),
        ("oklab", bands_to_oklab(mul.numpy(), names)) if colour else mul.numpy()[three],
        ("oklab", truth.numpy()) if picture else truth.numpy()[three],
    ]


def to_cell(picture, gain):
    """One picture -> (CELL, CELL, 3) uint8; gain: brightness of the sheet."""
    from PIL import Image

    if isinstance(picture, tuple):
        # scaling linear light by g scales Oklab by its cube root
        srgb = oklab_to_srgb(picture[1].astype(np.float64) * gain ** (1 / 3))
    else:
        srgb = np.clip(picture * gain, 0, 1) ** (1 / 2.2)
    image = Image.fromarray((srgb.transpose(1, 2, 0) * 255 + 0.5).astype(np.uint8))
    small = image.width < CELL
    return image.resize((CELL, CELL), Image.Resampling.NEAREST if small else Image.Resampling.BOX)


def draw_sheet(folder, chips, output):
    """A PNG: two chips a row, each as pan, ms, truth. One brightness for the whole sheet."""
    from PIL import Image, ImageDraw, ImageFont

    bright = np.concatenate([decode_chip(chip, "bands" if "bands" in chip else "oklab")[0].numpy().ravel()[::37] for _, chip in chips])
    gain = 0.8 / max(float(np.percentile(bright, 98)), 1e-4)
    wide, tall, head = 3 * CELL + 4 + 3 * GAP, CELL + 18 + GAP, 30
    columns = min(2, len(chips))
    rows = -(-len(chips) // columns)
    sheet = Image.new("RGB", (columns * wide + GAP, rows * tall + head + GAP), (250, 250, 248))
    pen = ImageDraw.Draw(sheet)
    pen.text((GAP, 8), f"{folder.name}: pan | ms | truth, the middle of each chip", fill=(20, 20, 20), font=ImageFont.load_default(14))
    for place, (number, chip) in enumerate(chips):
        x, y = GAP + place % columns * wide, head + place // columns * tall
        for column, picture in enumerate(three_pictures(chip)):
            sheet.paste(to_cell(picture, gain), (x + column * (CELL + 2), y))
        words = f"{number}.pt  {chip.get('meta', {}).get('tile', '')}"[:90]
        pen.text((x, y + CELL + 2), words, fill=(60, 60, 60), font=ImageFont.load_default(12))
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(output) as temporary:
        sheet.save(temporary, format="PNG")


def inspect_ard(folder, say):
    """The strips of an ARD delivery as a table: candidates for an allow-list."""
    items, skipped = read_items(folder)
    say(f"{'CID':16s}  {'date':10s}  {'satellite':13s}  {'tiles':>5s}  {'clouds':>6s}  {'km2':>7s}  {'off nadir':>9s}")
    for row in summarise(items):
        numbers = [
            "-" if row[key] is None else f"{row[key]:.{digits}f}{unit}" for key, digits, unit in
            (("clouds", 0, " %"), ("area_km2", 0, ""), ("off_nadir", 1, ""))
        ]
        clouds, area, angle = numbers
        say(f"{row['cid']:16s}  {row['date']:10s}  {row['satellite']:13s}  {row['tiles']:5d}  {clouds:>6s}  {area:>7s}  {angle:>9s}")
    for name, reason in skipped[:10]:
        say(f"left out: {name}: {reason}")
    if len(skipped) > 10:
        say(f"left out: {len(skipped) - 10} more")
