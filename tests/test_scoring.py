"""Stitched scores of whole scenes, on cases that can be counted on paper. Run: pytest tests/test_scoring.py"""

import gc
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from chipping.patch_set import Patch
from classes import class_set
from mapping.scoring import Baseline, ScoreRules, Stitcher, printed_table, score_scene, summarise, table_rows
from runtime.errors import RunError
from runtime.unreadable import Problem

PAIR = (0, 1)  # the two bands that the stand-ins hold
BURNED = class_set(("background", "fire"))


def patch_at(column, row, width, height, scene_size):
    return Patch(Path("p.npy"), Path("m.npy"), "val", "SCENE", "EVENT", (column, row, width, height), scene_size)


def score(patches, fire, index, labels, *, broken=(), num_classes=2, threshold=0.5, index_threshold=(0.0, True), batch_size=2, order=None):
    """
    score_scene with stand-ins for files and network. fire: (N, h, w) probability of class 1, or (N, C, h, w) of all classes.
    index: (N, h, w) in -1..1. labels: (N, h, w).
    """
    fire = torch.as_tensor(fire, dtype=torch.float32)
    probabilities = fire if fire.ndim == 4 else torch.stack([1 - fire, fire], dim=1)
    index = torch.as_tensor(index, dtype=torch.float32)
    reflectance = torch.stack([1 + index, 1 - index], dim=1) / 2  # whose normalised difference is the index
    labels = torch.as_tensor(labels, dtype=torch.uint8)

    def read(indices):
        problems = [Problem(f"patch {i}", "cut short", index=i) for i in indices if i in broken]
        return types.SimpleNamespace(indices=indices, problems=problems)

    def predict(batch):
        return probabilities[batch.indices], reflectance[batch.indices], labels[batch.indices]

    order = list(range(len(patches))) if order is None else order
    baseline = Baseline("nbr", PAIR, *index_threshold)
    rules = ScoreRules(num_classes=num_classes, threshold=threshold, baseline=baseline, batch_size=batch_size)
    return score_scene(predict, read, patches, order, rules)


# Two patches of 1 x 3 pixels, side by side, that share the middle two of four columns.
ROW = [patch_at(0, 0, 3, 1, (4, 1)), patch_at(1, 0, 3, 1, (4, 1))]
#                means:  0.9  0.6  0.4  0.3
FIRE = [[[0.9, 0.9, 0.7]], [[0.3, 0.1, 0.3]]]
#                means:  0.5  0.1 -0.3 -0.5
INDEX = [[[0.5, 0.5, 0.3]], [[-0.3, -0.9, -0.5]]]
LABELS = [[[1, 0, 1]], [[0, 1, 0]]]  # of the scene: 1 0 1 0


def test_where_patches_overlap_the_mean_is_judged_and_each_pixel_counts_once():
    result = score(ROW, FIRE, INDEX, LABELS, threshold=0.35)
    assert result["matrix"] == [[1, 1], [1, 1]]  # said: 1 1 0 0
    assert result["matrix_at_threshold"] == [[1, 1], [0, 2]]  # said: 1 1 1 0
    assert result["matrix_of_index"] == [[1, 1], [1, 1]]  # said: 1 1 0 0
    assert result["covered"] == 1.0 and result["problems"] == []


def test_patches_are_judged_each_by_itself_by_class_and_at_the_threshold():
    """Four patches of 1 x 2: burned and found at once; burned and found at the threshold; false there; not judged, for want of labels."""
    patches = [patch_at(2 * i, 0, 2, 1, (8, 1)) for i in range(4)]
    fire = [[[0.9, 0.1]], [[0.4, 0.1]], [[0.4, 0.4]], [[0.9, 0.9]]]
    labels = [[[1, 0]], [[0, 1]], [[0, 0]], [[255, 255]]]
    result = score(patches, fire, np.zeros((4, 1, 2)), labels, threshold=0.35)
    assert result["detection"] == [1, 0, 1, 1, 1]  # tn, fp, fn, tp, not judged
    assert result["detection_at_threshold"] == [0, 1, 0, 2, 1]
    summary = summarise([{"scene": s, "event": s, **result} for s in "ab"], ("background", "fire"))
    assert summary["network"]["detection"]["detection_f1"] == pytest.approx(2 / 3)
    assert summary["network_at_threshold"]["detection"] == {
        "detection_accuracy": pytest.approx(2 / 3), "detection_precision": pytest.approx(2 / 3), "detection_recall": 1.0,
        "detection_f1": pytest.approx(0.8), "detection_tp": 4, "detection_fp": 2, "detection_tn": 0, "detection_fn": 0,
    }
    assert "detection" not in summary["nbr"]
    assert printed_table(summary, BURNED).splitlines()[-1].split() == ["F1", "of", "patches", "0.6667", "0.8000"]
    rows = {row["way"]: row for row in table_rows(summary, BURNED) if row["level"] == "pooled"}
    assert rows["network_at_threshold"]["detection_tp"] == 4 and "detection_tp" not in rows["nbr"]


def test_means_say_over_how_many_scenes_they_are():
    """A scene without fire, where none is found, has no fire IoU."""
    burned = score(ROW, FIRE, INDEX, LABELS, threshold=0.35)
    empty = score(ROW, [[[0.1] * 3]] * 2, [[[0.5] * 3]] * 2, [[[0] * 3]] * 2, threshold=0.35, index_threshold=(0.0, False))
    results = [{"scene": s, "event": "e" if s < "c" else s, **r} for s, r in zip("abc", (burned, burned, empty), strict=True)]
    (network, *_) = summarise(results, ("background", "fire")).values()
    assert network["mean_over_scenes"]["fire_iou"] == pytest.approx(1 / 3)
    assert network["defined"]["scenes"]["fire_iou"] == 2 and network["defined"]["events"]["fire_iou"] == 1
    assert network["defined"]["scenes"]["mean_iou"] == 3


def test_sums_are_divided_before_a_threshold_is_asked():
    # undivided, the middle would reach 1.2 and 0.8
    assert score(ROW, FIRE, INDEX, LABELS, threshold=0.65)["matrix_at_threshold"] == [[2, 0], [1, 1]]  # said: 1 0 0 0
    # and the index 0.2 and -0.6
    assert score(ROW, FIRE, INDEX, LABELS, index_threshold=(0.15, True))["matrix_of_index"] == [[2, 0], [1, 1]]  # said: 1 0 0 0
    assert score(ROW, FIRE, INDEX, LABELS, index_threshold=(-0.4, False))["matrix_of_index"] == [[1, 1], [2, 0]]  # said: 0 0 0 1


@pytest.mark.parametrize("without", [0, 1])
def test_a_patch_without_labels_leaves_those_of_its_neighbour_in_the_overlap(without):
    labels = np.array(LABELS)
    labels[without] = 255
    result = score(ROW, FIRE, INDEX, labels, threshold=0.35)
    # labels 255 0 1 0 and 1 0 1 255, under the predictions above
    assert result["matrix"] == [[[1, 1], [1, 0]], [[0, 1], [1, 1]]][without]
    assert result["matrix_at_threshold"] == [[[1, 1], [0, 1]], [[0, 1], [0, 2]]][without]
    assert result["covered"] == 1.0


@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_broken_patch_takes_no_part_in_the_overlap_and_is_told(batch_size):
    fire, index, labels = np.array(FIRE), np.array(INDEX), np.array(LABELS)
    fire[1], index[1], labels[1] = 0.0, 0.0, 255
    result = score(ROW, fire, index, labels, broken={1}, threshold=0.8, batch_size=batch_size)
    # of the first patch alone: labels 1 0 1, fire 0.9 0.9 0.7, index 0.5 0.5 0.3; the fourth pixel is not judged
    assert result["matrix"] == [[0, 1], [0, 2]]
    assert result["matrix_at_threshold"] == [[0, 1], [1, 1]]
    assert result["matrix_of_index"] == [[0, 1], [0, 2]]
    assert result["covered"] == 0.75 and result["problems"] == ["patch 1: cut short"]


@pytest.mark.parametrize("where", [(0, 0, 1), (1, 0, 2)])
def test_a_probability_that_is_not_a_number_is_an_error_and_no_score(where):
    fire = np.array(FIRE)
    fire[where] = np.nan
    with pytest.raises(RunError, match="probabilities in scene SCENE are not numbers"):
        score(ROW, fire, INDEX, LABELS)


def test_an_index_is_judged_on_the_extent_of_severity_classes():
    probabilities = torch.zeros(1, 3, 1, 3)
    for column, c in enumerate((0, 1, 2)):
        probabilities[0, c, 0, column] = 1.0
    result = score([patch_at(0, 0, 3, 1, (3, 1))], probabilities, [[[-1.0, 1.0, 1.0]]], [[[0, 2, 2]]], num_classes=3)
    assert result["matrix"] == result["matrix_at_threshold"] == [[1, 0, 0], [0, 0, 0], [0, 1, 1]]
    assert result["matrix_of_index"] == [[1, 0], [0, 2]]


def on_the_whole_scene(patches, fire, index, labels, broken, threshold, limit):
    """The three matrices and the covered share by pixels in plain loops, the whole scene at once."""
    width, height = patches[0].scene_size
    pixels = {}
    for patch, f, i, t in zip(patches, fire, index, labels, strict=True):
        column, row = patch.window[:2]
        for y, x in np.ndindex(t.shape):
            if patch not in broken and row + y < height and column + x < width:
                pixels.setdefault((row + y, column + x), []).append((f[y, x], i[y, x], t[y, x]))
    matrices = np.zeros((3, 2, 2), dtype=int)
    for seen in pixels.values():
        f, i, label = np.mean([s[0] for s in seen]), np.mean([s[1] for s in seen]), min(s[2] for s in seen)
        if label != 255:
            for matrix, said in zip(matrices, (f > 0.5, f >= threshold, i < limit), strict=True):
                matrix[label, int(said)] += 1
    return (*matrices.tolist(), len(pixels) / (height * width))


@pytest.mark.parametrize("seed", range(12))
def test_rows_handed_out_one_after_the_other_add_up_to_the_whole_scene(seed):
    """Patches anywhere, in any order, with gaps, padding and some unreadable: the same as all of the scene held at once."""
    random = np.random.default_rng(seed)
    width, height, size = (int(v) for v in (random.integers(3, 25), random.integers(3, 40), 8))
    corners = {(int(random.integers(max(1, width - 3))), int(random.integers(max(1, height - 3)))) for _ in range(random.integers(1, 14))}
    patches = [patch_at(c, r, min(size, width - c), min(size, height - r), (width, height)) for c, r in corners]
    # Multiples of 1/64, whose sums are exact in any order, and thresholds that no mean of up to 14 of them meets.
    fire, index = random.integers(0, 65, (len(patches), size, size)) / 64, random.integers(-64, 65, (len(patches), size, size)) / 64
    labels = np.full((len(patches), size, size), 255)
    scene = np.where(random.random((height, width)) < 0.1, 255, random.integers(0, 2, (height, width)))
    for patch, plane in zip(patches, labels, strict=True):
        c, r, wide, high = patch.window
        plane[:high, :wide] = np.where(random.random((high, wide)) < 0.1, 255, scene[r : r + high, c : c + wide])
    broken = {i for i in range(len(patches)) if random.random() < 0.2}
    result = score(patches, fire, index, labels, broken=broken, threshold=0.3333, index_threshold=(0.1234, False), batch_size=3,
                   order=random.permutation(len(patches)).tolist())
    expected = on_the_whole_scene(patches, fire, index, labels, [patches[i] for i in broken], 0.3333, 0.1234)
    assert (result["matrix"], result["matrix_at_threshold"], result["matrix_of_index"], result["covered"]) == expected


def most_bytes_held(height):
    """Bytes of all tensors alive when a batch is predicted, the most of all batches of a scene 64 wide, above what there was before."""
    patches = [patch_at(c, r, 16, 16, (64, height)) for r in range(0, height - 8, 8) for c in range(0, 56, 8)]

    def alive():
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in gc.get_objects() if type(t) is torch.Tensor}
        return sum(storages.values())

    def read(indices):
        return types.SimpleNamespace(images=torch.rand(len(indices), 2, 16, 16), problems=[])

    def predict(batch):
        held.append(alive())
        return batch.images.softmax(dim=1), batch.images, torch.zeros(len(batch.images), 16, 16, dtype=torch.uint8)

    gc.collect()
    gc.freeze()  # only what is made from here on is looked at
    held, before = [], alive()
    rules = ScoreRules(num_classes=2, threshold=0.5, baseline=Baseline("nbr", PAIR, 0.0, True), batch_size=7)
    result = score_scene(predict, read, patches, list(range(len(patches))), rules)
    gc.unfreeze()
    assert np.sum(result["matrix"]) == 64 * height
    return max(held) - before


@pytest.mark.slow
def test_memory_does_not_grow_with_the_scenes_height():
    low, high = most_bytes_held(64), most_bytes_held(512)
    assert high == low < 120_000  # 17 KB of rows and two batches; the whole of the higher scene would be 557 KB


def test_a_patch_above_the_finished_rows_is_refused():
    patches = [patch_at(0, 0, 2, 2, (2, 4)), patch_at(0, 2, 2, 2, (2, 4))]
    scene = Stitcher(patches, 1)
    scene.add(patches[0], torch.ones(1, 2, 2), torch.zeros(2, 2, dtype=torch.uint8))
    scene.finish(2)
    with pytest.raises(ValueError, match="expected one at row 2, got 0"):
        scene.add(patches[0], torch.ones(1, 2, 2), torch.zeros(2, 2, dtype=torch.uint8))
