"""Counts what became of frames and boxes on their way into a warehouse, and says so."""

from collections import Counter

from runtime.errors import UserError
from runtime.words import plural

REASONS = ("empty", "missing_image", "unreadable", "invalid", "duplicate")  # why a frame gets no row


def left_out(source, results):
    """[{"id", "reason", "detail"}] of all frames that have no row and are not just empty, sorted."""
    found = list(source.skipped)
    for frame, result in zip(source.frames, results, strict=True):
        if result.get("problem") not in (None, "empty"):
            found.append({"id": frame.id, "reason": result["problem"], "detail": result["detail"]})
    found = [{key: str(value).encode(errors="backslashreplace").decode() for key, value in entry.items()} for entry in found]
    return sorted(found, key=lambda entry: (entry["id"], entry["reason"]))


def per_run(source, results):
    """{run: Counter} of reading and cutting together."""
    found = {run: Counter(count) for run, count in source.counts.items()}
    for frame, result in zip(source.frames, results, strict=bool(results)):
        count = found.setdefault(frame.run, Counter())
        count[result.get("problem", "stored")] += 1
        count["stored_empty"] += "problem" not in result and not result["classes"]
        count.update(result.get("counts", {}))
    return found


def totals(source, results):
    """{"frames", "stored", "boxes", reasons of frames that are left out, what became of boxes} over all runs. Missing ones are 0."""
    total = sum(per_run(source, results).values(), Counter())
    names = ("frames", "stored", "stored_empty", "boxes", *REASONS, "unlabelled", "converted", "boxes_clipped", "boxes_outside",
             "boxes_thin", "boxes_without_numbers", "boxes_reordered", "box_conflict", "boxes_over")
    return {name: total[name] for name in names}


def run_rows(source, results):
    """A dict for each run, with what is not 0."""
    found = sorted(per_run(source, results).items())
    return [{"run": run, **{key: count[key] for key in sorted(count) if count[key]}} for run, count in found]


WORDS = {
    "empty": "without a box left out", "missing_image": "without their image", "unreadable": "unreadable", "invalid": "with invalid labels",
    "duplicate": "there twice", "unlabelled": "images without labels", "converted": "converted to RGB of 8 bits or turned",
    "boxes_clipped": "boxes clipped to the frame", "boxes_outside": "boxes outside of the frame left out",
    "boxes_thin": "boxes of less than a pixel left out", "boxes_without_numbers": "boxes without numbers left out",
    "boxes_reordered": "boxes with corners put in order", "box_conflict": "boxes stated in two ways that differ",
    "boxes_over": "boxes beyond --max-boxes left out, the smallest",
}


def in_words(counts):
    """`120 frames, 3 unreadable, 5 boxes clipped to the frame`."""
    parts = [f"{counts[key]} {words}" for key, words in WORDS.items() if counts.get(key)]
    return ", ".join([plural(counts["frames"], "frame"), *parts])


def check_limits(counts, limits):
    """UserError where more frames are left out than limits allow. counts: of totals(). limits: see WarehouseOptions."""
    found = {"invalid": counts["invalid"] + counts["duplicate"] + counts["unreadable"], "missing": counts["missing_image"],
             "empty": counts["empty"] + counts["stored_empty"]}
    for name, limit in limits.items():
        if limit is None:
            continue
        most = limit if isinstance(limit, int) else int(limit * counts["frames"] + 1e-9)
        if found[name] > most:
            raise UserError(f"{found[name]} of {plural(counts['frames'], 'frame')} are {name}, --max-{name} allows {most}; "
                            "mend the data or raise the limit")
