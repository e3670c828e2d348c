"""
Scores of a split on whole scenes: patches are put together again, and every pixel counts once.

Where patches overlap, their probabilities are averaged. Rows are judged as soon as no later patch touches them: memory does not grow with a
scene's height. Pixels that no patch covers (cloudy patches that were left out when chipping) are not judged; the share of the others is
among the scores. The baseline is the best single threshold on a spectral index, chosen on the training split.
"""

from dataclasses import dataclass

import torch

from constants import IGNORE
from mapping.blending import decide_classes
from metrics import DetectionMetrics, SegmentationMetrics, ThresholdHistogram, bootstrap_interval, confusion_scores, mean_of_defined
from nets.input_step import index_positions
from runtime.errors import RunError, UserError

SUMMARY = ("fire_iou", "mean_iou", "fire_precision", "fire_recall")


def burn_index(bands):
    """Positions of (near infrared, second short-wave infrared) for NBR = (a - b) / (a + b), or None where the bands lack one."""
    try:
        return index_positions("nbr", bands)
    except UserError:
        return None


def normalised_difference(reflectance, pair):
    """(B, C, H, W) → (B, H, W) in -1..1; 0 where both bands are 0."""
    a, b = reflectance[:, pair[0]], reflectance[:, pair[1]]
    return torch.where(a + b > 1e-4, (a - b) / (a + b).clamp(min=1e-4), 0.0).clamp(-1.0, 1.0)


def scenes_of(patches):
    """{scene: [index, …]} in the patches' order."""
    scenes = {}
    for index, patch in enumerate(patches):
        scenes.setdefault(patch.scene, []).append(index)
    return scenes


def scene_size(patches):
    """(height, width) of a scene: as noted, or as far as its patches reach."""
    if patches[0].scene_size:
        return patches[0].scene_size[1], patches[0].scene_size[0]
    return max(p.window[1] + p.window[3] for p in patches), max(p.window[0] + p.window[2] for p in patches)


class Stitcher:
    """
    Puts the patches of one scene together, from top to bottom, and hands out the rows that no later patch touches.

    Layers are float (C, rows, width) sums on the CPU, divided by how many patches saw the pixel. Memory: width × height of a patch,
    whatever the scene's height.

        for patch in patches:                            # ordered by row
            mean, target, seen = scene.finish(patch.window[1])
            scene.add(patch, values, labels)
        mean, target, seen = scene.finish()
    """

    def __init__(self, patches, channels):
        """patches: all that will be added, in any order."""
        self.height, width = scene_size(patches)
        rows = max(patch.window[3] for patch in patches)
        self.sums = torch.zeros(channels, rows, width)
        self.seen = torch.zeros(rows, width)
        self.target = torch.full((rows, width), IGNORE, dtype=torch.uint8)
        self.top = 0  # row of the scene that the layers begin with

    def add(self, patch, values, target):
        """values: (C, h, w) float; target: (h, w) uint8. What reaches beyond the window or the scene is padding and is cut."""
        column, row, width, height = patch.window
        if row != self.top:
            raise ValueError(f"rows above a patch are finished before it is added: expected one at row {self.top}, got {row}")
        height = min(height, values.shape[1], self.height - row)
        width = min(width, values.shape[2], self.seen.shape[1] - column)
        place = (slice(0, height), slice(column, column + width))
        self.sums[(slice(None), *place)] += values[:, :height, :width]
        self.seen[place] += 1
        # Overlapping patches hold the same labels; where one could not be read, it holds none.
        self.target[place] = torch.minimum(self.target[place], target[:height, :width])

    def finish(self, row=None):
        """
        (mean (C, rows, width), target (rows, width), seen (rows, width): by how many patches) of the rows above `row`, where the next patch
        begins (None: of all that are left), and drop them. Rows of a gap between patches, which no patch covers, may be left out.
        """
        stop = self.height if row is None else row
        count = min(stop - self.top, len(self.seen))
        mean = self.sums[:, :count] / self.seen[:count].clamp(min=1)
        done = mean, self.target[:count].clone(), self.seen[:count].clone()
        for layer, unseen in ((self.sums, 0), (self.seen, 0), (self.target, IGNORE)):
            kept = layer[..., count:, :].clone()
            layer[..., : kept.shape[-2], :] = kept
            layer[..., kept.shape[-2] :, :] = unseen
        self.top = stop
        return done


class SceneScore:
    """The confusion matrices of one scene, added up over its rows: most likely class, network at its threshold, index at its threshold."""

    def __init__(self, scene, num_classes, threshold, index_threshold):
        """scene: its name. threshold: of the burned probability, or None. index_threshold: (limit, is fire above it?), or None."""
        self.scene = scene
        self.num_classes, self.threshold, self.index_threshold = num_classes, threshold, index_threshold
        self.metrics = {"matrix": SegmentationMetrics(num_classes)}
        if threshold is not None:
            self.metrics["matrix_at_threshold"] = SegmentationMetrics(num_classes)
        if index_threshold:
            self.metrics["matrix_of_index"] = SegmentationMetrics(2)
        self.seen = 0  # pixels

    def add(self, values, target, seen):
        """
        values: (C, rows, width) probabilities, then the index if there is one; target, seen: (rows, width).

        RunError where a probability is NaN, which as a class would be scored like any other.
        """
        probabilities, target = values[: self.num_classes], target[None]
        if probabilities.isnan().any():
            raise RunError(
                f"the network's probabilities in scene {self.scene} are not numbers; score another checkpoint or use --precision fp32"
            )
        self.seen += int((seen > 0).sum())
        self.metrics["matrix"].update(probabilities.argmax(dim=0)[None], target)
        if self.threshold is not None:
            self.metrics["matrix_at_threshold"].update(decide_classes(probabilities, self.threshold)[0][None], target)
        if self.index_threshold:
            limit, above = self.index_threshold
            burned = (values[-1] >= limit) if above else (values[-1] < limit)
            # An index knows burned and unburned only: it is judged on the extent.
            self.metrics["matrix_of_index"].update(burned[None], torch.where(target == IGNORE, IGNORE, target.clamp(max=1)))

    def matrices(self):
        return {name: metrics.matrix.tolist() for name, metrics in self.metrics.items()}


@dataclass(frozen=True, kw_only=True)
class ScoreRules:
    """
    How scenes are scored. threshold: of the burned probability, or None. pair: bands of the index (see burn_index), or None.
    index_threshold: (limit, is fire above it?), or None. min_pixels: see DetectionMetrics.
    """

    num_classes: int
    threshold: float | None = None
    pair: tuple | None = None
    index_threshold: tuple | None = None
    batch_size: int = 8
    min_pixels: int = 1


def score_scene(predict, read, patches, indices, rules):
    """
    One scene, from top to bottom. read(indices) → batch; predict(batch) → (probabilities (B, C, h, w), reflectance (B, bands, h, w),
    target (B, h, w)), on the CPU. patches, indices: all Patches, and which of them make up the scene. rules: ScoreRules.

    → {"matrix", "matrix_at_threshold", "matrix_of_index": nested lists, "detection", "detection_at_threshold": counts of patches (see
    DetectionMetrics), "covered": share of the scene's pixels, "problems"}.
    """
    threshold, pair, batch_size = rules.threshold, rules.pair, rules.batch_size
    indices = sorted(indices, key=lambda i: (patches[i].window[1], patches[i].window[0]))
    scene = Stitcher([patches[i] for i in indices], rules.num_classes + (pair is not None))
    score = SceneScore(patches[indices[0]].scene, rules.num_classes, threshold, rules.index_threshold if pair else None)
    problems, detections = [], {"detection": None, **({"detection_at_threshold": threshold} if threshold is not None else {})}
    patch_scores = {name: DetectionMetrics(rules.min_pixels) for name in detections}
    for start in range(0, len(indices), batch_size):
        part = indices[start : start + batch_size]
        batch = read(part)
        problems += [str(problem) for problem in batch.problems]
        broken = {problem.index for problem in batch.problems}
        probabilities, reflectance, target = predict(batch)
        readable = [place for place, index in enumerate(part) if index not in broken]
        for name, limit in detections.items():
            patch_scores[name].update(decide_classes(probabilities[readable].movedim(1, 0), limit)[0], target[readable])
        layers = [probabilities, normalised_difference(reflectance, pair)[:, None]] if pair else [probabilities]
        for index, values, labels in zip(part, torch.cat(layers, dim=1), target, strict=True):
            if index in broken:
                continue
            if patches[index].window[1] > scene.top:
                score.add(*scene.finish(patches[index].window[1]))
            scene.add(patches[index], values, labels)
    score.add(*scene.finish())
    height, width = scene_size([patches[i] for i in indices])
    counts = {name: metrics.counts.tolist() for name, metrics in patch_scores.items()}
    return {"covered": score.seen / (height * width), "problems": problems, **score.matrices(), **counts}


def choose_index_threshold(batches_of_reflectance, pair, processes):
    """
    ((threshold, is fire above it?), IoU) that separates burned from unburned best over training patches.

    batches_of_reflectance: iterable of (reflectance, target). The counts of all processes are added.
    """
    histogram = ThresholdHistogram(bins=400, low=-1.0, high=1.0)
    for reflectance, target in batches_of_reflectance:
        histogram.update(normalised_difference(reflectance, pair), target)
    histogram.counts.copy_(processes.sum(histogram.counts))
    below, above = histogram.best(start=0.0, above=False), histogram.best(start=0.0, above=True)
    return ((above[0], True), above[1]) if above[1] > below[1] else ((below[0], False), below[1])


def summarise(results, classes, seed=0):
    """
    Tables of all scenes' results.

    results: [{"scene", "event", "matrix", …}, …]. → {way: {"pooled", "fire_iou_interval", "mean_over_scenes", "mean_over_events",
    "defined", "scenes", "events"}} for the network ("network"), with its threshold ("network_at_threshold") and for the index ("nbr").
    "defined": how many scenes and events the means are over; one without fire, where none was found, has no fire IoU. "detection" of the
    network's two ways: scores over patches.
    """
    ways = {"network": "matrix", "network_at_threshold": "matrix_at_threshold", "nbr": "matrix_of_index"}
    detections = {"network": "detection", "network_at_threshold": "detection_at_threshold"}
    summary = {}
    for way, key in ways.items():
        if not all(key in result for result in results):
            continue
        names = ("background", "fire") if way == "nbr" else classes
        events = {}
        for result in results:
            matrix = torch.tensor(result[key])
            events[result["event"]] = events.get(result["event"], 0) + matrix
        per_scene = {result["scene"]: confusion_scores(result[key], names) for result in results}
        per_event = {event: confusion_scores(matrix, names) for event, matrix in events.items()}
        low, high = bootstrap_interval(list(events.values()), seed=seed)
        of_scenes, of_events = ({name: mean_of_defined([s[name] for s in table.values()]) for name in SUMMARY}
                                for table in (per_scene, per_event))
        summary[way] = {
            "pooled": confusion_scores(sum(events.values()), names),
            "fire_iou_interval": [low, high],
            "mean_over_scenes": {name: mean for name, (mean, _) in of_scenes.items()},
            "mean_over_events": {name: mean for name, (mean, _) in of_events.items()},
            "defined": {"scenes": {name: count for name, (_, count) in of_scenes.items()},
                        "events": {name: count for name, (_, count) in of_events.items()}},
            "scenes": per_scene,
            "events": per_event,
        }
        if way in detections:
            metrics = DetectionMetrics()
            metrics.counts += torch.tensor([result[detections[way]] for result in results]).sum(dim=0)
            summary[way]["detection"] = metrics.compute()
    return summary


def table_rows(summary):
    """[{"way", "level", "name", score: number …}, …]: the summary as rows of a CSV."""
    rows = []
    for way, tables in summary.items():
        low, high = tables["fire_iou_interval"]
        rows.append({"way": way, "level": "pooled", "name": "all", "fire_iou_low": low, "fire_iou_high": high, **tables["pooled"],
                     **tables.get("detection", {})})
        for level in ("scenes", "events"):
            rows += [{"way": way, "level": level.removesuffix("s"), "name": name, **scores} for name, scores in tables[level].items()]
    return rows


def printed_table(summary):
    """The summary for people: one line a scene, fire IoU of each way side by side, pooled figures below."""
    ways = list(summary)
    scenes = list(summary["network"]["scenes"])
    width = max(len(name) for name in [*scenes, "mean over events"])
    lines = [f"{'fire IoU':<{width}}  " + "  ".join(f"{way:>20}" for way in ways)]
    for name in scenes:
        lines.append(f"{name:<{width}}  " + "  ".join(f"{summary[way]['scenes'][name]['fire_iou']:>20.4f}" for way in ways))
    for label, table in (("mean over scenes", "mean_over_scenes"), ("mean over events", "mean_over_events"), ("pooled", "pooled")):
        lines.append(f"{label:<{width}}  " + "  ".join(f"{summary[way][table]['fire_iou']:>20.4f}" for way in ways))
    intervals = [summary[way]["fire_iou_interval"] for way in ways]
    if all(low == low for low, _ in intervals):  # a single event has no spread to show
        lines.append(f"{'95 % of pooled':<{width}}  " + "  ".join(f"{f'{low:.4f} .. {high:.4f}':>20}" for low, high in intervals))
    f1 = {way: summary[way]["detection"]["detection_f1"] for way in ways if "detection" in summary[way]}
    if any(value == value for value in f1.values()):
        values = "  ".join(f"{f1[way]:>20.4f}" if way in f1 else f"{'':>20}" for way in ways)
        lines.append(f"{'F1 of patches':<{width}}  {values}".rstrip())
    return "\n".join(lines)
