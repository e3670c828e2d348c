"""
What a segmentation checkpoint does, in pictures: its best, median and worst cases among given patches or mapped scenes.

A case is one patch or scene with its truth. Cases are ordered by fire IoU; those with no fire in truth and map have no score, and are
counted but not shown. Pictures are rows of scene, burn-sensitive colours, truth, map and errors.
"""

from dataclasses import dataclass

import numpy as np

from constants import IGNORE, get_class_colours
from pictures import pictures
from runtime.errors import UserError

TITLES = ("scene", "burn-sensitive", "truth", "map", "errors")
LONGEST = 1024  # pixels of a scene's longer side in pictures and in its score


@dataclass
class Case:
    """name: of the patch or scene. score, wrong: see fire_overlap. views: pictures, one per title."""

    name: str
    score: float | None
    wrong: int
    views: list


def fire_overlap(truth, prediction):
    """(IoU of the burned extent, wrong pixels) over judged pixels, all classes above 0 merged; IoU None where neither has any."""
    judged = (truth != IGNORE) & (prediction != IGNORE)
    burned, mapped = judged & (truth > 0), judged & (prediction > 0)
    either = int((burned | mapped).sum())
    hit = int((burned & mapped).sum())
    return (hit / either if either else None), either - hit


def make_case(name, reflectance, bands, truth, prediction, num_classes):
    """A Case from arrays: reflectance (C, H, W), truth (H, W) or None, prediction (H, W); 255 = not judged."""
    scene = pictures.any_picture(reflectance, bands)
    burn = pictures.burn_colour(reflectance, bands)
    colours = get_class_colours(num_classes)
    ground = pictures.grey_background(scene)
    views = [scene, scene if burn is None else burn]
    if truth is None:
        truth = np.full(prediction.shape, IGNORE, np.uint8)
    views += [pictures.class_overlay(ground, classes, colours, 0.9) for classes in (truth, prediction)]
    views.append(pictures.error_picture(truth, prediction, scene))
    return Case(name, *fire_overlap(truth, prediction), views)


def choose(scores, count):
    """
    {"best": [index, …], "median": …, "worst": …} of at most `count` each from [(IoU or None, wrong pixels), …], none of them twice.

    Of equal overlap, more wrong pixels are worse: a patch with one false pixel is no worse than one full of them.
    """
    ranked = sorted((i for i, (s, _) in enumerate(scores) if s is not None), key=lambda i: (-scores[i][0], scores[i][1]))
    count = min(count, len(ranked) // 3) if len(ranked) >= 3 else 0
    if not count:
        return {"all": ranked} if ranked else {}
    middle = (len(ranked) - count) // 2
    return {"best": ranked[:count], "median": ranked[middle : middle + count], "worst": ranked[-count:]}


def patch_predictions(checkpoint, patch_set, patches, device, batch_size=8, progress=lambda n: None):
    """Yields (patch, reflectance (C, H, W), truth (H, W), prediction (H, W)) for each patch that can be read."""
    import torch

    from dataset import PatchDataset
    from mapping.blending import decide_classes
    from model import model_from_checkpoint

    model = model_from_checkpoint(checkpoint).to(device)
    dataset = PatchDataset(patch_set, patches)
    shape = (-1, 1, 1)
    offset, divide_by = (np.array(v, np.float32).reshape(shape) for v in (patch_set.offset, patch_set.divide_by))
    for first in range(0, len(patches), batch_size):
        batch = dataset.__getitems__(list(range(first, min(first + batch_size, len(patches)))))
        unreadable = {problem.index for problem in batch.problems}
        stored, truth = batch.images.numpy().astype(np.float32), batch.masks.numpy()
        reflectance = np.nan_to_num((stored + offset) / divide_by, posinf=0.0, neginf=0.0)
        probability = model.predict_probabilities(torch.from_numpy(reflectance).to(device)).cpu()
        for place, index in enumerate(batch.indices):
            progress(1)
            if index not in unreadable:
                prediction = decide_classes(probability[place], checkpoint["data"].get("threshold"))[0].numpy()
                prediction = np.where(truth[place] == IGNORE, IGNORE, prediction).astype(np.uint8)
                yield patches[index], reflectance[place], truth[place], prediction


def patch_cases(checkpoint, patches_dir, split=None, count=6, device="auto", progress=lambda n: None):
    """
    ({"best": [Case], "median": …, "worst": …}, words) for the patches of a split: the test split, else validation, else training.

    Two passes, the second over the chosen patches only: pictures of thousands of patches need no memory.
    """
    from dataset import read_patch_set
    from runtime.device import choose_device

    data = checkpoint["data"]
    patch_set = read_patch_set(patches_dir, len(data["classes"]), data.get("layer"))
    if list(patch_set.bands) != list(data["bands"]):
        raise UserError(f"{patches_dir} has bands {', '.join(patch_set.bands)}; the checkpoint wants {', '.join(data['bands'])}")
    split = split or next(s for s in ("test", "val", "train") if patch_set.of_split(s))
    patches = patch_set.of_split(split)
    if not patches:
        raise UserError(f"{patches_dir} has no patches in split {split!r}; pass another --split")
    device = choose_device(device)
    scored = []
    for patch, _, truth, prediction in patch_predictions(checkpoint, patch_set, patches, device, progress=progress):
        scored.append((patch, fire_overlap(truth, prediction)))
    chosen = choose([score for _, score in scored], count)
    cases = {}
    for kind, indices in chosen.items():
        own = patch_predictions(checkpoint, patch_set, [scored[i][0] for i in indices], device)
        cases[kind] = [
            make_case(patch.image.name.removesuffix("_image.npy"), reflectance, patch_set.bands, truth, prediction, len(data["classes"]))
            for patch, reflectance, truth, prediction in own
        ]
    values = [score for _, (score, _) in scored if score is not None]
    typical = f"; their median fire IoU is {np.median(values):.2f}" if values else ""
    words = f"{len(scored)} patches of split {split}, {len(values)} with fire in truth or map{typical}."
    return cases, words


def read_small(path, indexes=None):
    """A raster, thinned so that its longer side is at most LONGEST: (bands, H, W)."""
    from rasterio.enums import Resampling

    from raster.source import open_raster, read_bands

    with open_raster(path) as dataset:
        share = min(1.0, LONGEST / max(dataset.height, dataset.width))
        shape = max(1, round(dataset.height * share)), max(1, round(dataset.width * share))
        indexes = list(indexes or range(1, dataset.count + 1))
        # Thinned, not averaged: nodata stays nodata, and truth, map and scene keep to the same pixels.
        return np.concatenate([read_bands(dataset, [i], out_shape=(1, *shape), resampling=Resampling.nearest) for i in indexes])


def scene_case(name, plan, bands, classes_path, mask_path, num_classes):
    """A Case of a scene that has been mapped. plan: mapping.inputs.SceneInput; mask_path: labels on the scene's grid, or None."""
    from raster.source import describe

    stored = read_small(plan.info.path, plan.indexes).astype(np.float32)
    offset, divide_by = (np.array(v, np.float32).reshape(-1, 1, 1) for v in (plan.scale.offset, plan.scale.divide_by))
    reflectance = np.nan_to_num((stored + offset) / divide_by, posinf=0.0, neginf=0.0)
    prediction = read_small(classes_path)[0]
    reflectance[:, prediction == IGNORE] = 0.0
    truth = None
    if mask_path is not None:
        mask = describe(mask_path)
        if (mask.height, mask.width) != (plan.info.height, plan.info.width):
            raise UserError(
                f"{mask_path} is {mask.width}x{mask.height}, its scene {plan.info.width}x{plan.info.height}; they must share a grid"
            )
        truth = read_small(mask_path)[0]
        truth = np.where((truth >= 0) & (truth < num_classes), truth, IGNORE).astype(np.uint8)
    return make_case(name, reflectance, bands, truth, prediction, num_classes)


def find_mask(scene, masks):
    """The labels of a scene: a file of its name among `masks`; without masks ../masks/<name> or <tile>_DEL.tif beside it, or None."""
    from pathlib import Path

    path = Path(scene)
    tile = path.stem.removesuffix("_S2L2A")
    for mask in masks:
        if Path(mask).stem in (path.stem, f"{tile}_DEL"):
            return str(mask)
    if masks or "://" in scene:
        return None
    beside = (path.parent.parent / "masks" / path.name, path.with_name(f"{tile}_DEL.tif"))
    return next((str(p) for p in beside if p.is_file() and p != path), None)
