"""What is in a tensor warehouse: counts as text, a choice of its frames with their boxes, as a network sees them."""

from pathlib import Path

import numpy as np

from chipping.box_inspection import choose, colours_of, size_lines
from chipping.warehouse import open_warehouse
from chipping.warehouse_counts import in_words
from pictures.box_overlays import box_sheet
from pictures.encoding import save_png
from runtime.files import require_writable
from runtime.words import in_bytes, plural

MOST = 24


class Shown:
    """An index of a warehouse as chipping.box_inspection.choose takes it."""

    def __init__(self, index, boxes):
        self.index, self.boxes = index, boxes


def inspect_warehouse(path, output=None, pictures=True, seed=0, say=print, colours=None):
    """
    Describe the warehouse that a path leads to, and draw a sheet of some frames: `output`, by default in the version's folder. colours:
    {class: "#rrggbb"} in place of the usual ones, or None.
    """
    warehouse = open_warehouse(path)
    colours = colours_of(warehouse.classes, colours)
    for text in warehouse_lines(warehouse):
        say(text)
    if pictures:
        sheet = Path(output or warehouse.folder / "contact_sheet.png")
        require_writable(sheet.parent)
        save_sheet(warehouse, seed, sheet, colours)
        say(f"contact sheet: {sheet}")


def warehouse_lines(warehouse):
    """Lines of text about a warehouse."""
    manifest, (wide, tall) = warehouse.manifest, warehouse.target_size
    split, counts = manifest["split"], manifest["summary"]["totals"]
    size = sum(entry["bytes"] for shard in manifest["shards"] for entry in shard["files"].values())
    yield (f"{warehouse.folder.name[:13]}…: {plural(len(warehouse), 'sample')} of {wide}×{tall} ({warehouse.resize_mode}) in "
           f"{plural(len(manifest['shards']), 'shard')}, {in_bytes(size)}, checksums right")
    yield in_words(counts)
    sources = sorted({sample.src_size for sample in warehouse.samples})
    named = ", ".join(f"{w}×{h}" for w, h in sources[:4]) + (f" … {sources[-1][0]}×{sources[-1][1]}" if len(sources) > 4 else "")
    runs = {sample.run for sample in warehouse.samples}
    yield f"frames: {named} pixels, {plural(len(runs), 'run')}; {split_words(split)}"
    per_sample = sorted(sample.n_boxes for sample in warehouse.samples)
    yield f"boxes a sample: {per_sample[0]} to {per_sample[-1]}, median {np.median(per_sample):g}, {warehouse.max_boxes} slots"
    found = [boxes_of(warehouse, shard) for shard in range(len(manifest["shards"]))]
    yield from size_lines(warehouse.classes, [boxes for boxes, _ in found], [labels for _, labels in found])


def split_words(split):
    """How validation was chosen."""
    count = split["samples"]
    how = "the last part of the only run" if split["unit"] == "last part" else f"whole runs, seed {split['seed']}"
    return f"{count['train']} for training, {count['val']} for validation ({how})"


def boxes_of(warehouse, shard):
    """((N, 4) float64 in pixels of the input, (N,) labels) of a shard's samples."""
    arrays = warehouse.mapped(shard)
    mask = np.asarray(arrays["mask"])
    return arrays["boxes"][mask] * np.tile(np.array(warehouse.target_size, np.float64), 2), arrays["labels"][mask]


def save_sheet(warehouse, seed, path, colours):
    """Draw some samples with their boxes."""
    chosen = [shown.index for shown in choose([Shown(k, range(sample.n_boxes)) for k, sample in enumerate(warehouse.samples)], MOST, seed)]
    batch, cases, captions = warehouse.read(chosen), [], []
    scale = np.tile(np.array(warehouse.target_size, np.float64), 2)
    for place, index in enumerate(chosen):
        mask, sample = batch["mask"][place], warehouse.samples[index]
        cases.append([{"picture": batch["images"][place].transpose(1, 2, 0), "boxes": batch["boxes"][place][mask] * scale,
                       "labels": batch["labels"][place][mask], "ignore": ()}])
        width, height = sample.src_size
        captions.append(f"{sample.id}  {width} x {height}  {sample.split}")
    title = f"warehouse {warehouse.version[:12]}"
    save_png(path, box_sheet(cases, ["sample"], captions, warehouse.classes, title, across=4, colours=colours))
