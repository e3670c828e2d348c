"""Scores of a split's patches, of values and labels, as files and as a table."""

import csv

from runtime.files import atomic_path, write_json

SHOWN = ("rmse", "mae", "bias", "r2", "accuracy", "mean_accuracy", "mean_f1", "mean_precision", "mean_recall", "mean_auroc", "exact_match")


def write(json_path, csv_path, scores, about):
    """scores: {way: {name: number}}; about: what else the JSON holds. The JSON is written last. NaN is an empty cell."""
    with atomic_path(csv_path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        names = list(dict.fromkeys(name for each in scores.values() for name in each))
        writer = csv.DictWriter(file, ["way", *names], restval="", lineterminator="\n")
        writer.writeheader()
        for way, each in scores.items():
            writer.writerow({"way": way, **{name: "" if value != value else value for name, value in each.items()}})
    write_json(json_path, {**about, "scores": scores})


def table(scores):
    """The scores for people: a line a score, the ways side by side."""
    names = [name for name in SHOWN if any(name in each for each in scores.values())]
    wide = max(map(len, names))
    widths = [max(10, len(way)) for way in scores]
    lines = [f"{'':{wide}}  " + "  ".join(f"{way:>{width}}" for way, width in zip(scores, widths, strict=True))]
    for name in names:
        cells = (f"{each.get(name, float('nan')):>{width}.4f}" for each, width in zip(scores.values(), widths, strict=True))
        lines.append(f"{name:{wide}}  " + "  ".join(cells))
    return "\n".join(lines)
