"""Detections of whole images from those of their tiles: what validation and scoring look at."""

import dataclasses

import numpy as np
import torch

from detection.merge import merge_tiles
from runtime.epoch_batches import as_it_is, make_loader


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rules:
    """score_threshold: lowest score that counts. iou: boxes of one class above it are one object. limit: detections in a tile."""

    score_threshold: float = 0.05
    iou: float = 0.5
    limit: int = 300


def detect_images(predict, tiles, rules, processes, *, batch_size=8, workers=0, advance=lambda images: None):
    """
    [{"boxes" (N, 4) float64 in pixels of the image, "scores", "labels", "image_id", "full": tiles that reached the limit}] of all images
    of a DetectionTiles, and the Problems of tiles that cannot be read.

    predict: batch → [Detections] on the CPU. Whole images are dealt out to the processes; every process gets all of them back.
    """
    of_image = [[] for _ in tiles.tile_set.images]
    for index, tile in enumerate(tiles.tile_set.tiles):
        of_image[tile.image].append(index)
    own = range(processes.rank, len(of_image), processes.size)
    batches = [of_image[k][start : start + batch_size] for k in own for start in range(0, len(of_image[k]), batch_size)]
    found, problems = {k: [] for k in own}, []
    for indices, batch in zip(batches, make_loader(tiles, batches, as_it_is, workers=min(workers, len(batches))), strict=True):
        problems += batch["problems"]
        image = int(batch["image_index"][0])
        found[image] += zip(indices, predict(batch), strict=True)
        advance(1 if indices[-1] == of_image[image][-1] else 0)
    merged = {k: merge_image(tiles.tile_set, k, parts, rules) for k, parts in found.items()}
    everywhere = processes.gather((merged, problems))
    merged = {k: result for part, _ in everywhere for k, result in part.items()}
    return [merged[k] for k in range(len(of_image))], [problem for _, part in everywhere for problem in part]


def merge_image(tile_set, image, parts, rules):
    """parts: [(index of the tile, its Detections)] of one image."""
    labelled = tile_set.images[image]
    wide, tall = tile_set.tile_size
    corners = np.array([(tile_set.tiles[k].x0, tile_set.tiles[k].y0) for k, _ in parts], np.float64).reshape(-1, 2)
    boxes, scores, labels, of_tile = [np.zeros((0, 4))], [np.zeros(0)], [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for place, (_, part) in enumerate(parts):
        boxes.append(part.boxes.double().numpy() + np.tile(corners[place], 2))
        scores.append(part.scores.double().numpy())
        labels.append(part.labels.numpy())
        of_tile.append(np.full(len(part.boxes), place))
    boxes, scores, labels, of_tile = map(np.concatenate, (boxes, scores, labels, of_tile))
    boxes = np.clip(boxes, 0, (labelled.width, labelled.height) * 2)
    area = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])  # padding beyond a small image holds no objects
    boxes, scores, labels, of_tile = boxes[area], scores[area], labels[area], of_tile[area]
    tiles = np.concatenate([corners, corners + (wide, tall)], axis=1)
    kept = merge_tiles(boxes, scores, labels, of_tile, tiles, (labelled.width, labelled.height), iou=rules.iou)
    return {"boxes": boxes[kept], "scores": scores[kept], "labels": labels[kept], "image_id": labelled.image_id,
            "full": sum(part.full for _, part in parts)}


def on_cpu(detections):
    """The same Detections on the CPU."""
    return detections._replace(**{
        name: value.cpu() for name, value in detections._asdict().items() if isinstance(value, torch.Tensor)
    })
