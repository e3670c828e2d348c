"""What is in a folder of chips, a warehouse or a delivered product: which kind it is, and who describes it."""

from pathlib import Path

from chipping.box_inspection import inspect_tiles
from chipping.chipset import DESCRIPTION, UNFINISHED, read_chipset, read_manifest, unfinished_words
from chipping.image_files import IMAGE_SUFFIXES
from chipping.patch_inspection import inspect_patches, inspect_predecessor
from chipping.product_inspection import inspect_products
from chipping.warehouse import is_warehouse
from chipping.warehouse_inspection import inspect_warehouse
from raster.ard import is_ard, read_items, summarise
from raster.products import is_product_path, scenes_of_pattern
from runtime.errors import UserError, did_you_mean
from runtime.files import refuse_existing

SHEET = "contact_sheet.png"
MOST_NAMED = 10  # tiles of an ARD that are left out


def inspect_pan_chips(*what, colours=None):
    from chipping.pan_inspection import inspect_pan_chips  # imports torch: seconds that other kinds do without

    inspect_pan_chips(*what)


# kind in chipset.json → (folder, description, path of the contact sheet or None, seed of the choice, say, colours of classes)
INSPECTORS = {"patches": inspect_patches, "pansharpen": inspect_pan_chips, "tiles": inspect_tiles}


def inspect_folder(folder, output=None, overwrite=False, pictures=True, seed=0, say=print, colours=None):
    """
    Describe a chip set by its kind, and draw its contact sheet.

    output: path of the sheet; by default in the folder, where it replaces the one before. pictures: False draws none. seed: of the choice
    of chips that are shown. say: called with each line of text. colours: {class: "#rrggbb"} in place of the usual ones, or None.
    """
    if output:
        refuse_existing([output], overwrite)
    if is_ard(folder):
        return inspect_ard(folder, say)
    if is_warehouse(folder):
        return inspect_warehouse(folder, output, pictures, seed, say, colours)
    is_set = Path(folder).is_dir() and (Path(folder) / DESCRIPTION).exists()
    if not is_set and is_product_path(folder) and (scenes := scenes_of_pattern(str(folder), ())):
        return inspect_products(scenes, output, pictures, overwrite, say)
    folder = Path(folder)
    sheet = Path(output or folder / SHEET) if pictures else None
    if folder.is_dir() and not (folder / DESCRIPTION).exists():
        if any(folder.glob("*/*_image.npy")):
            return inspect_predecessor(folder, say)
        if any(folder.glob("[0-9]*.pt")):
            return inspect_pan_chips(folder, None, sheet, seed, say)
        if any(path.suffix.lower() in IMAGE_SUFFIXES for path in folder.iterdir()):
            raise UserError(f"{folder} has no {DESCRIPTION}, but images; pass --annotations with their boxes, or a folder made by chip.py")
    description = read_chipset(folder)
    kind = description.get("kind")
    if kind not in INSPECTORS:
        raise UserError(f"{folder} is a chip set of kind {kind!r}; inspect knows {', '.join(INSPECTORS)}.{did_you_mean(kind, INSPECTORS)}")
    INSPECTORS[kind](folder, description, sheet, seed, say, colours=colours)
    if UNFINISHED in description and (words := unfinished_words(folder, description, len(read_manifest(folder)))):
        say(words)


def inspect_ard(folder, say):
    """Say a row for each strip of the delivery in `folder`, and the tiles that are left out."""
    items, skipped = read_items(folder)
    say(f"{'CID':16s}  {'date':10s}  {'satellite':13s}  {'tiles':>5s}  {'clouds':>6s}  {'km2':>7s}  {'off nadir':>9s}")
    for row in summarise(items):
        numbers = [
            "-" if row[key] is None else f"{row[key]:.{digits}f}{unit}" for key, digits, unit in
            (("clouds", 0, " %"), ("area_km2", 0, ""), ("off_nadir", 1, ""))
        ]
        clouds, area, angle = numbers
        say(f"{row['cid']:16s}  {row['date']:10s}  {row['satellite']:13s}  {row['tiles']:5d}  {clouds:>6s}  {area:>7s}  {angle:>9s}")
    for name, reason in skipped[:MOST_NAMED]:
        say(f"left out: {name}: {reason}")
    if len(skipped) > MOST_NAMED:
        say(f"left out: {len(skipped) - MOST_NAMED} more")
