"""Pictures of tiles with their boxes and those that were found: what train_detection.py leaves after each best epoch."""

import numpy as np

from pictures.box_overlays import box_sheet
from pictures.encoding import save_png
from pictures.tile_pictures import picture, stretch_of


def write_samples(path, predict, tiles, threshold, count=3):
    """
    A sheet of `count` tiles of a DetectionTiles, those with most objects first: the truth beside what is found from `threshold` on.

    predict: batch → [Detections] on the CPU.
    """
    tile_set = tiles.tile_set
    chosen = sorted(range(len(tiles)), key=lambda k: -len(tile_set.tiles[k].boxes))[:count]
    batch = tiles.__getitems__(chosen)
    images = batch["image"].numpy()
    lows, tops = stretch_of(tile_set.dtype, images)
    cases, captions = [], []
    for place, found in enumerate(predict(batch)):
        shown = picture(images[place], tile_set.bands, lows, tops)
        kept = found.scores >= threshold
        truth = {key: batch[key][place].numpy() for key in ("boxes", "labels", "ignore")}
        cases.append([{"picture": shown, **truth}, {"picture": shown, "boxes": found.boxes[kept].numpy(),
                                                      "labels": found.labels[kept].numpy(), "ignore": np.zeros((0, 4))}])
        tile = tile_set.tiles[chosen[place]]
        captions.append(f"{tile_set.images[tile.image].name}, {tile.x0} {tile.y0}: {len(truth['boxes'])} objects, {int(kept.sum())} found")
    path.parent.mkdir(exist_ok=True)
    title = f"truth and detections with a score of at least {threshold:.2f}"
    save_png(path, box_sheet(cases, ["truth", "found"], captions, tile_set.classes, title, across=1))
