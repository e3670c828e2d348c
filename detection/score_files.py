"""Scores of a set of images on the disk: everything as JSON, a line an image as CSV."""

import csv
import io

from runtime.files import write_json, write_text


def write_scores(json_path, csv_path, scores, truths, found, names):
    """
    scores: what scores_<split>.json holds; NaN becomes null. truths, found: see metrics.score_images. names: of the images.

    The CSV has image, objects, detections from the threshold on, and their difference. The JSON comes last: where it is, all is there.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "objects", "detections", "difference"])
    for name, truth, detections in zip(names, truths, found, strict=True):
        count = int((detections["scores"] >= scores["threshold"]).sum())
        writer.writerow([name, len(truth["boxes"]), count, count - len(truth["boxes"])])
    write_text(csv_path, text.getvalue())
    write_json(json_path, without_nan(scores))


def without_nan(value):
    """JSON has no NaN: null."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and value != value else value


def printed_table(scores, classes):
    """The scores that people ask for first, as lines."""
    def number(value):
        return "n/a" if value is None or value != value else f"{value:.3f}"

    lines = [f"{scores['images']} images, {scores['objects']} objects; detections from score {scores['threshold']:.2f} on",
             f"{'':12}{'AP50':>8}{'AP':>8}{'precision':>11}{'recall':>8}{'F1':>8}{'F1 centre':>11}{'count error':>13}"]
    rows = [("all", scores["map_50"], scores["map"], "", scores["f1_centre"], scores["count_mae"])]
    rows += [(name, scores[f"ap_50_{name}"], scores[f"ap_{name}"], f"_{name}", None, scores[f"count_mae_{name}"]) for name in classes]
    for name, ap50, ap, suffix, centre, error in rows if len(classes) > 1 else rows[:1]:
        precision, recall, f1 = (scores[f"{key}{suffix}"] for key in ("precision", "recall", "f1"))
        lines.append(f"{name[:12]:12}{number(ap50):>8}{number(ap):>8}{number(precision):>11}{number(recall):>8}{number(f1):>8}"
                     f"{number(centre):>11}{number(error):>13}")
    return "\n".join(lines)
