"""Scores of a split as files: everything as JSON, the table as CSV."""

import csv

from mapping.scoring import table_rows
from runtime.files import atomic_path, write_json


def write_scores(json_path, csv_path, summary, classes, everything):
    """
    summary: of mapping.scoring.summarise, whose rows become the table; classes: ClassSet; everything: what the JSON holds. NaN is an empty
    cell.

    The JSON is written last: a table without it is what a killed run left.
    """
    rows = table_rows(summary, classes)
    with atomic_path(csv_path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)), restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: "" if value != value else value for key, value in row.items()} for row in rows)
    write_json(json_path, everything)
