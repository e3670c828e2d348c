"""
What a segmentation checkpoint does, in pictures: its best, median and worst cases among given patches or mapped scenes.

A case is one patch or scene with its truth. Cases are ordered by the IoU of what is mapped (fire, water …), or by the mean IoU of several
classes; those with none of it in truth and map have no score, and are counted but not shown. Pictures are rows of scene, short-wave
infrared, truth, map and errors.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rasterio.enums import Resampling

from constants import IGNORE
from dataset import PatchDataset, read_patch_set, require_coordinates
from mapping.blending import decide_classes
from metrics import SegmentationMetrics, confusion_scores
from model import model_from_checkpoint
from pictures.gallery_page import Sheet, best_median_worst
from pictures.overlays import class_overlay, error_legend, error_picture, grey_background, judge
from pictures.sheets import contact_sheet
from pictures.stretch import any_picture, burn_colour, infrared_title
from raster.product import names_scene
from raster.product_scene import ProductScene
from raster.scale import to_reflectance
from raster.source import describe, open_raster, read_bands, scene_name
from raster.windows import thin_shape
from runtime.errors import UserError

LONGEST = 1024  # pixels of a scene's longer side in pictures and in its score


@dataclass(frozen=True)
class Case:
    """name: of the patch or scene. score, wrong: see overlap. views: pictures, one per title."""

    name: str
    score: float | None
    wrong: int
    views: list


def overlap(truth, prediction, class_set):
    """
    (IoU, wrong pixels) over judged pixels. IoU: of all classes above 0 merged, or the mean of several classes; None where neither has any.
    """
    judged, true, mapped = judge(truth, prediction)
    if class_set.is_several:
        metrics = SegmentationMetrics(len(class_set.names), class_set.names)
        target = np.where(judged, truth, IGNORE)[None]
        metrics.update(torch.from_numpy(np.where(judged, prediction, 0)[None].astype(np.int64)), torch.from_numpy(target.astype(np.int64)))
        score = confusion_scores(metrics.matrix, class_set.names)["mean_iou"]
        return (score if score == score else None), int((judged & (truth != prediction)).sum())
    either = int((true | mapped).sum())
    hit = int((true & mapped).sum())
    return (hit / either if either else None), either - hit


def titles_of(class_set):
    return ("scene", infrared_title(class_set.is_fire), "truth", "map", "errors")


def make_case(name, reflectance, bands, truth, prediction, class_set):
    """A Case from arrays: reflectance (C, H, W), truth (H, W) or None, prediction (H, W); 255 = not judged."""
    scene = any_picture(reflectance, bands)
    burn = burn_colour(reflectance, bands)
    ground = grey_background(scene)
    views = [scene, scene if burn is None else burn]
    if truth is None:
        truth = np.full(prediction.shape, IGNORE, np.uint8)
    views += [class_overlay(ground, classes, class_set.colours, 0.9, class_set.first) for classes in (truth, prediction)]
    views.append(error_picture(truth, prediction, scene, class_set))
    return Case(name, *overlap(truth, prediction, class_set), views)


def choose_cases(scores, count):
    """
    {"best": [index, …], "median": …, "worst": …} of at most `count` each from [(IoU or None, wrong pixels), …], none of them twice.

    Of equal overlap, more wrong pixels are worse: a patch with one false pixel is no worse than one full of them.
    """
    ranked = sorted((i for i, (s, _) in enumerate(scores) if s is not None), key=lambda i: (-scores[i][0], scores[i][1]))
    return best_median_worst(ranked, count)


def draw_sheets(cases, class_set):
    """Sheets of {kind: [Case]}."""
    legend, titles, sheets = error_legend(class_set), titles_of(class_set), []
    words = "White: found. Orange: missed. Blue: marked in error. Grey: not judged."
    if class_set.is_several:
        words = f"{'White: right. ' if class_set.has_background else ''}Orange: wrong class. Grey: not judged."
    for kind, chosen in cases.items():
        captions = [c.name if c.score is None else f"{c.name}: {class_set.score_words} {c.score:.2f}" for c in chosen]
        picture = contact_sheet([c.views for c in chosen], titles, captions, legend=legend)
        alt = f"{len(chosen)} {kind} cases, each as {', '.join(titles)}: {'; '.join(captions)}"
        sheets.append(Sheet(kind, words, picture, alt))
    return sheets


def with_score(class_set):
    """Words for the cases that have a score."""
    return f"with {class_set.word} in truth or map" if class_set.word else "with a score"


# --- patches -------------------------------------------------------------------------------------------------------------------


def patch_predictions(checkpoint, class_set, patch_set, patches, device, batch_size=8, progress=lambda n: None):
    """Yields (patch, reflectance (C, H, W), truth (H, W), prediction (H, W)) for each patch that can be read."""
    threshold = class_set.threshold(checkpoint["data"].get("threshold"))
    model = model_from_checkpoint(checkpoint).to(device)
    dataset = PatchDataset(patch_set, patches)
    require_coordinates(checkpoint, patch_set)
    for first in range(0, len(patches), batch_size):
        batch = dataset.__getitems__(list(range(first, min(first + batch_size, len(patches)))))
        unreadable = {problem.index for problem in batch.problems}
        stored, truth = batch.images.numpy().astype(np.float32), batch.masks.numpy()
        reflectance = finite_reflectance(stored, patch_set)
        known = dataset.coordinates_for(model, batch.indices, device)
        probability = model.predict_probabilities(torch.from_numpy(reflectance).to(device), **known).cpu()
        for place, index in enumerate(batch.indices):
            progress(1)
            if index not in unreadable:
                prediction = decide_classes(probability[place], threshold)[0].numpy()
                prediction = np.where(truth[place] == IGNORE, IGNORE, prediction).astype(np.uint8)
                yield patches[index], reflectance[place], truth[place], prediction


def finite_reflectance(stored, scale):
    """Reflectance of float32 values, 0 where it is NaN or infinite. scale: has divide_by and offset, a number a band."""
    return np.nan_to_num(to_reflectance(stored, scale.divide_by, scale.offset), posinf=0.0, neginf=0.0)


def patch_cases(checkpoint, class_set, patches_dir, split, count, device, progress=lambda n: None):
    """
    ({"best": [Case], "median": …, "worst": …}, text) for the patches of a split; None: the test split, else validation, else training.

    Two passes, the second over the chosen patches only: pictures of thousands of patches need no memory.
    """
    data = checkpoint["data"]
    patch_set = read_patch_set(patches_dir, len(data["classes"]), data.get("layer"))
    if list(patch_set.bands) != list(data["bands"]):
        expected = f"the checkpoint expects {', '.join(data['bands'])}"
        raise UserError(f"{patches_dir} has bands {', '.join(patch_set.bands)}; {expected}: pass --patches-dir with such patches")
    split = split or next(s for s in ("test", "val", "train") if patch_set.of_split(s))
    patches = patch_set.of_split(split)
    if not patches:
        raise UserError(f"{patches_dir} has no patches in split {split!r}; pass another --split")
    scored = []
    for patch, _, truth, prediction in patch_predictions(checkpoint, class_set, patch_set, patches, device, progress=progress):
        scored.append((patch, overlap(truth, prediction, class_set)))
    cases = {}
    for kind, indices in choose_cases([score for _, score in scored], count).items():
        own = patch_predictions(checkpoint, class_set, patch_set, [scored[i][0] for i in indices], device)
        cases[kind] = [
            make_case(patch.image.name.removesuffix("_image.npy"), reflectance, patch_set.bands, truth, prediction, class_set)
            for patch, reflectance, truth, prediction in own
        ]
    values = [score for _, (score, _) in scored if score is not None]
    typical = f"; their median {class_set.score_words} is {np.median(values):.2f}" if values else ""
    return cases, f"{len(scored)} patches of split {split}, {len(values)} {with_score(class_set)}{typical}."


# --- scenes --------------------------------------------------------------------------------------------------------------------


def read_small(path, indexes=None):
    """A raster, thinned so that its longer side is at most LONGEST: (bands, H, W)."""
    with open_raster(path) as dataset:
        shape = thin_shape(dataset.height, dataset.width, LONGEST)
        indexes = list(indexes or range(1, dataset.count + 1))
        # Thinned, not averaged: nodata stays nodata, and truth, map and scene keep to the same pixels.
        return np.concatenate([read_bands(dataset, [i], out_shape=(1, *shape), resampling=Resampling.nearest) for i in indexes])


def scene_case(name, plan, bands, classes_path, mask_path, class_set):
    """A Case of a scene that has been mapped. plan: mapping.inputs.SceneInput; mask_path: labels on the scene's grid, or None."""
    reflectance = finite_reflectance(read_small(plan.info.path, plan.indexes).astype(np.float32), plan.scale)
    prediction = read_small(classes_path)[0]
    reflectance[:, prediction == IGNORE] = 0.0
    truth = None
    if mask_path is not None:
        mask, scene = describe(mask_path), plan.info
        if (mask.height, mask.width) != (scene.height, scene.width):
            found = f"{mask_path} is {mask.width}x{mask.height}"
            raise UserError(f"{found}, its scene {scene.width}x{scene.height}; they must share a grid: pass other --masks")
        truth = read_small(mask_path)[0]
        truth = np.where((truth >= 0) & (truth < len(class_set.names)), truth, IGNORE).astype(np.uint8)
    return make_case(name, reflectance, bands, truth, prediction, class_set)


def group_cases(cases, count, class_set):
    """({kind: [Case]}, text) of mapped scenes: best, median and worst; scenes without a score come under "unlabelled"."""
    shown = {
        kind: [cases[i] for i in indices]
        for kind, indices in choose_cases([(case.score, case.wrong) for case in cases], count).items()
    }
    rest = [case for case in cases if case.score is None]
    if rest:
        shown["unlabelled"] = rest[:count]
    return shown, f"{len(cases)} scenes, {len(cases) - len(rest)} of them {with_score(class_set)}."


def find_mask(scene, masks):
    """
    The labels of a scene: a file of its name among `masks`, of a product also one that names tile and date; without masks ../masks/<name>
    or <tile>_DEL.tif beside it; or None.
    """
    if isinstance(scene, ProductScene):
        names = {scene_name(mask): mask for mask in reversed(masks)}
        return names.get(scene.name) or next((mask for name, mask in names.items() if names_scene(name, scene.product)), None)
    path = Path(scene)
    tile = path.stem.removesuffix("_S2L2A")
    for mask in masks:
        if Path(mask).stem in (path.stem, f"{tile}_DEL"):
            return str(mask)
    if masks or "://" in scene:
        return None
    beside = (path.parent.parent / "masks" / path.name, path.with_name(f"{tile}_DEL.tif"))
    return next((str(p) for p in beside if p.is_file() and p != path), None)
