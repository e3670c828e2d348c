"""
Scores of a split on whole scenes: patches are put together again, and every pixel counts once.

Where patches overlap, their probabilities are averaged. Rows are judged as soon as no later patch touches them: memory does not grow with a
scene's height. Pixels that no patch covers (cloudy patches that were left out when chipping) are not judged; the share of the others is
scores. The baseline is the best single threshold on the spectral index that suits the classes (see classes.py), chosen on the training
split.
"""

import dataclasses
from dataclasses import dataclass

import torch

from classes import class_set
from constants import IGNORE, get_class_names
from mapping.blending import decide_classes, most_likely
from metrics import (
    BoundaryMetrics,
    DetectionMetrics,
    SegmentationMetrics,
    ThresholdHistogram,
    bootstrap_interval,
    confusion_scores,
    further_scores,
    mean_of_defined,
)
from nets.input_step import index_values
from runtime.errors import RunError
from spectral_indices import first_possible

NETWORK = ("network", "network_at_threshold")  # ways to map that are not the baseline, which is called after its index


@dataclass(frozen=True)
class Baseline:
    """
    A threshold on a spectral index. index: its name. positions: of its two bands. limit: the threshold. above: whether what is mapped lies
    above it. train_iou: on the training split. limit, above, train_iou: None before the threshold is chosen.
    """

    index: str
    positions: tuple
    limit: float | None = None
    above: bool | None = None
    train_iou: float | None = None

    def values(self, reflectance):
        """(B, C, H, W) → (B, H, W) in -1..1."""
        return index_values(self.index, reflectance[:, self.positions[0]], reflectance[:, self.positions[1]])

    def maps(self, values):
        """Where a map by this threshold shows what is mapped: bool of the values' shape."""
        return (values >= self.limit) if self.above else (values < self.limit)


def baseline_of(classes, bands):
    """The Baseline of a ClassSet, without its threshold; None where no index is usual for the classes, or the bands allow none."""
    found = first_possible(classes.baselines, bands)
    return found and Baseline(*found)


def scores_of_baseline(baseline, classes):
    """What the scores tell of the baseline's threshold. baseline: with its threshold, or None: where there is none to compare with."""
    if not classes.baselines:
        return {}
    name, limit, above, iou = (classes.baselines[0], None, None, None) if baseline is None else (
        baseline.index, baseline.limit, baseline.above, baseline.train_iou)
    return {f"{name}_threshold": limit, f"{name}_{classes.key}_is_above": above, f"{name}_train_{classes.key}_iou": iou}


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

    def __init__(self, scene, num_classes, threshold, baseline):
        """scene: its name. threshold: of the probability 1 − p_0, or None. baseline: Baseline, or None."""
        self.scene = scene
        self.num_classes, self.threshold, self.baseline = num_classes, threshold, baseline
        self.metrics = {"matrix": SegmentationMetrics(num_classes)}
        if threshold is not None:
            self.metrics["matrix_at_threshold"] = SegmentationMetrics(num_classes)
        if baseline:
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
        self.metrics["matrix"].update(most_likely(probabilities)[0][None], target)
        if self.threshold is not None:
            self.metrics["matrix_at_threshold"].update(decide_classes(probabilities, self.threshold)[0][None], target)
        if self.baseline:
            # An index knows mapped and not mapped only: it is judged on the extent.
            mapped, extent = self.baseline.maps(values[-1])[None], torch.where(target == IGNORE, IGNORE, target.clamp(max=1))
            self.metrics["matrix_of_index"].update(mapped, extent)

    def matrices(self):
        return {name: metrics.matrix.tolist() for name, metrics in self.metrics.items()}


@dataclass(frozen=True, kw_only=True)
class ScoreRules:
    """
    How scenes are scored. class_names: None for the usual ones. threshold: of the probability 1 − p_0, or None. baseline: Baseline with its
    threshold, or None. min_pixels: see DetectionMetrics.
    """

    num_classes: int
    class_names: tuple | None = None
    threshold: float | None = None
    baseline: Baseline | None = None
    batch_size: int = 8
    min_pixels: int = 1


def score_scene(predict, read, patches, indices, rules):
    """
    One scene, from top to bottom. read(indices) → batch; predict(batch) → (probabilities (B, C, h, w), reflectance (B, bands, h, w),
    target (B, h, w)), on the CPU. patches, indices: all Patches, and which of them make up the scene. rules: ScoreRules.

    → {"matrix", "matrix_at_threshold", "matrix_of_index": nested lists, "detection", "detection_at_threshold": counts of patches (see
    DetectionMetrics), "boundary": of patches (see BoundaryMetrics), "covered": share of the scene's pixels, "problems"}.
    """
    threshold, baseline, batch_size = rules.threshold, rules.baseline, rules.batch_size
    indices = sorted(indices, key=lambda i: (patches[i].window[1], patches[i].window[0]))
    scene = Stitcher([patches[i] for i in indices], rules.num_classes + (baseline is not None))
    score = SceneScore(patches[indices[0]].scene, rules.num_classes, threshold, baseline)
    edges = BoundaryMetrics(get_class_names(rules.num_classes, rules.class_names))
    problems, detections = [], {"detection": None, **({"detection_at_threshold": threshold} if threshold is not None else {})}
    patch_scores = {name: DetectionMetrics(rules.min_pixels) for name in detections}
    for start in range(0, len(indices), batch_size):
        part = indices[start : start + batch_size]
        batch = read(part)
        problems += [str(problem) for problem in batch.problems]
        broken = {problem.index for problem in batch.problems}
        probabilities, reflectance, target = predict(batch)
        readable = [place for place, index in enumerate(part) if index not in broken]
        edges.update(probabilities[readable], target[readable])
        for name, limit in detections.items():
            patch_scores[name].update(decide_classes(probabilities[readable].movedim(1, 0), limit)[0], target[readable])
        layers = [probabilities, baseline.values(reflectance)[:, None]] if baseline else [probabilities]
        for index, values, labels in zip(part, torch.cat(layers, dim=1), target, strict=True):
            if index in broken:
                continue
            if patches[index].window[1] > scene.top:
                score.add(*scene.finish(patches[index].window[1]))
            scene.add(patches[index], values, labels)
    score.add(*scene.finish())
    height, width = scene_size([patches[i] for i in indices])
    counts = {name: metrics.counts.tolist() for name, metrics in patch_scores.items()}
    return {"covered": score.seen / (height * width), "problems": problems, "boundary": edges.counts.tolist(), **score.matrices(), **counts}


def choose_threshold(batches_of_reflectance, baseline, processes):
    """
    The Baseline with the threshold that separates class 0 from those above best over training patches.

    batches_of_reflectance: iterable of (reflectance, target). The counts of all processes are added.
    """
    histogram = ThresholdHistogram(bins=400, low=-1.0, high=1.0)
    for reflectance, target in batches_of_reflectance:
        histogram.update(baseline.values(reflectance), target)
    histogram.counts.copy_(processes.sum(histogram.counts))
    below, above = histogram.best(start=0.0, above=False), histogram.best(start=0.0, above=True)
    limit, iou = above if above[1] > below[1] else below
    return dataclasses.replace(baseline, limit=limit, above=above[1] > below[1], train_iou=iou)


def summarise(results, names, seed=0, index="nbr"):
    """
    Tables of all scenes' results.

    results: [{"scene", "event", "matrix", …}, …]. names: of the classes. index: of the baseline. → {way: {"pooled", "fire_iou_interval"
    (or water_iou_interval …), "mean_over_scenes", "mean_over_events", "defined", "scenes", "events"}} for the network ("network"), with its
    threshold ("network_at_threshold") and for the index ("nbr"). "defined": how many scenes and events the means are over; one without
    fire, where none was found, has no fire IoU. "detection" of the network's two ways: scores over patches, where class 0 is a background.
    """
    classes, ways = class_set(tuple(names)), {"network": "matrix", "network_at_threshold": "matrix_at_threshold", index: "matrix_of_index"}
    detections = {"network": "detection", "network_at_threshold": "detection_at_threshold"}
    summary = {}
    for way, key in ways.items():
        if not all(key in result for result in results):
            continue
        names = classes.names if way in NETWORK else classes.extent
        events = {}
        for result in results:
            matrix = torch.tensor(result[key])
            events[result["event"]] = events.get(result["event"], 0) + matrix
        per_scene = {result["scene"]: confusion_scores(result[key], names) for result in results}
        per_event = {event: confusion_scores(matrix, names) for event, matrix in events.items()}
        low, high = bootstrap_interval(list(events.values()), names, seed=seed)
        of_scenes, of_events = ({name: mean_of_defined([s[name] for s in table.values()]) for name in summary_keys(classes)}
                                for table in (per_scene, per_event))
        summary[way] = {
            "pooled": {**confusion_scores(sum(events.values()), names), **further_scores(sum(events.values()))},
            f"{classes.score}_interval": [low, high],
            "mean_over_scenes": {name: mean for name, (mean, _) in of_scenes.items()},
            "mean_over_events": {name: mean for name, (mean, _) in of_events.items()},
            "defined": {"scenes": {name: count for name, (_, count) in of_scenes.items()},
                        "events": {name: count for name, (_, count) in of_events.items()}},
            "scenes": per_scene,
            "events": per_event,
        }
        if way in detections and classes.has_background:
            metrics = DetectionMetrics()
            metrics.counts += torch.tensor([result[detections[way]] for result in results]).sum(dim=0)
            summary[way]["detection"] = metrics.compute()
        if way == "network" and all("boundary" in result for result in results):
            edges = BoundaryMetrics(classes.names)
            edges.counts += torch.tensor([result["boundary"] for result in results]).sum(dim=0)
            summary[way]["boundary"] = edges.compute()
    return summary


def summary_keys(classes):
    """Scores of which there are means."""
    return ("mean_iou", "mean_dice", "pixel_accuracy") if classes.is_several else (
        classes.score, "mean_iou", f"{classes.key}_precision", f"{classes.key}_recall")


def table_rows(summary, classes):
    """[{"way", "level", "name", score: number …}, …]: the summary as rows of a CSV. classes: ClassSet."""
    rows, score = [], classes.score
    for way, tables in summary.items():
        low, high = tables[f"{score}_interval"]
        rows.append({"way": way, "level": "pooled", "name": "all", f"{score}_low": low, f"{score}_high": high, **tables["pooled"],
                     **tables.get("detection", {}), **tables.get("boundary", {})})
        for level in ("scenes", "events"):
            rows += [{"way": way, "level": level.removesuffix("s"), "name": name, **scores} for name, scores in tables[level].items()]
    return rows


def printed_table(summary, classes):
    """The summary for people: one line a scene, the ClassSet's score of each way side by side, pooled figures below."""
    ways, score = list(summary), classes.score
    scenes = list(summary["network"]["scenes"])
    width = max(len(name) for name in [*scenes, "mean over events"])
    lines = [f"{classes.score_words:<{width}}  " + "  ".join(f"{way:>20}" for way in ways)]
    for name in scenes:
        lines.append(f"{name:<{width}}  " + "  ".join(f"{summary[way]['scenes'][name][score]:>20.4f}" for way in ways))
    for label, table in (("mean over scenes", "mean_over_scenes"), ("mean over events", "mean_over_events"), ("pooled", "pooled")):
        lines.append(f"{label:<{width}}  " + "  ".join(f"{summary[way][table][score]:>20.4f}" for way in ways))
    intervals = [summary[way][f"{score}_interval"] for way in ways]
    if all(low == low for low, _ in intervals):  # a single event has no spread to show
        lines.append(f"{'95 % of pooled':<{width}}  " + "  ".join(f"{f'{low:.4f} .. {high:.4f}':>20}" for low, high in intervals))
    f1 = {way: summary[way]["detection"]["detection_f1"] for way in ways if "detection" in summary[way]}
    if any(value == value for value in f1.values()):
        values = "  ".join(f"{f1[way]:>20.4f}" if way in f1 else f"{'':>20}" for way in ways)
        lines.append(f"{'F1 of patches':<{width}}  {values}".rstrip())
    return "\n".join(lines)
