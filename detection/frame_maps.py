"""
Finds the objects of many frames with a small detector, and writes what was found.

For each frame, in the output folder: <frame>_boxes.json, with what it was made with, then <frame>_boxes.png; in the end view.html of all of
them. A frame that has both is finished, and a run that was killed continues with the others.
"""

import functools
import os
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from detection.small_finder import SmallFinder
from mapping.messages import last_line
from mapping.weights_hash import weights_hash
from pictures.encoding import save_png
from pictures.frame_view import Frame, begin_page, end_page, frame_html
from pictures.labelled_boxes import draw_labelled
from raster.capture_folder import IMAGES, frames_folder
from raster.frames import SUFFIXES, read_frame
from raster.source import is_remote, list_rasters, scene_name
from runtime.device import Compute
from runtime.errors import UserError
from runtime.files import atomic_path, describe_difference, plain, read_json, require_writable, settings_hash, write_json
from runtime.logs import print_result
from runtime.names import require_short_names
from runtime.words import plural

VIEW, RECORD, DRAWN = "view.html", "_boxes.json", "_boxes.png"
LEAST_SCORE = 0.05  # of boxes that the page can show with its slider
MOST_SHOWN = 300  # frames of the page
NEEDED = {"image": str, "width": int, "height": int, "boxes": list, "below": list}


@dataclass(frozen=True, kw_only=True)
class FrameRun:
    """
    What all frames of a run share. detector: a SmallDetector; data: the checkpoint's. iou: see SmallFinder. overwrite: replace what exists.
    """

    detector: torch.nn.Module
    data: dict
    score_threshold: float
    iou: float
    compute: Compute
    batch_size: int
    output_dir: str
    overwrite: bool = False
    strict: bool = False
    dry_run: bool = False

    @functools.cached_property
    def weights(self):
        """By what a detector is known again."""
        return f"{weights_hash(self.detector.state_dict())}-{settings_hash(self.detector.config.to_dict())}"

    def settings(self, path):
        """What the files of a frame are made with."""
        status = os.stat(path)
        return plain({"detector": self.weights, "score_threshold": self.score_threshold, "iou_threshold": self.iou,
                      "precision": self.compute.precision, "image": {"bytes": status.st_size, "mtime": status.st_mtime}})

    def outputs(self, name):
        """(JSON, picture) of a frame."""
        return Path(self.output_dir) / f"{name}{RECORD}", Path(self.output_dir) / f"{name}{DRAWN}"


# ------------------------------------------------------------------------------------------------------- which frames


def choose_frames(run, patterns):
    """{name: path} of the frames that patterns name. UserError for those that cannot be looked at together."""
    if not patterns:
        raise UserError("no frame was given; pass files, folders or globs")
    paths = list_rasters([folder for pattern in patterns for folder in within_runs(run, pattern)], SUFFIXES)
    paths = [path for path in paths if not is_own_picture(run, path)]
    if not paths:
        raise UserError(f"{patterns[0]} has no frames, only pictures with boxes of an earlier run; pass the folder of the frames")
    if remote := [path for path in paths if is_remote(path)]:
        raise UserError(f"{remote[0]}: frames are read from local folders; copy them first")
    names = [scene_name(path) for path in paths]
    if len(set(names)) < len(names):  # frames of several runs have the same numbers
        names = [f"{run_of(path)}_{name}" for path, name in zip(paths, names, strict=True)]
    frames = {}
    for name, path in zip(names, paths, strict=True):
        if name in frames:
            raise UserError(f"{frames[name]} and {path} would both become {name}_boxes.png; pass them with different --output-dir")
        frames[name] = path
    outputs = {os.path.realpath(path) for name in frames for path in run.outputs(name)}
    if own := [path for path in paths if os.path.realpath(path) in outputs]:
        raise UserError(f"{own[0]} is one of the frames, and would be a picture of the boxes of another; choose another --output-dir")
    require_short_names(outputs)
    return frames


def within_runs(run, pattern):
    """[folder of the images of each], where `pattern` is the folder of a capture run or of several; else [pattern]."""
    if not os.path.isdir(pattern) or holds_frames(run, pattern):
        return [pattern]
    inner = [frames_folder(path) for path in (Path(pattern), *sorted(Path(pattern).iterdir()))]
    return [str(path) for path in inner if path is not None and holds_frames(run, path)] or [pattern]


def holds_frames(run, folder):
    return any(name.lower().endswith(SUFFIXES) and name[0] != "." and not is_own_picture(run, os.path.join(folder, name))
               for name in os.listdir(folder))


def is_own_picture(run, path):
    """Whether a path is a picture of boxes that an earlier run has put into this output folder, where frames may lie too."""
    folder, name = os.path.split(path)
    return (name.endswith(DRAWN) and os.path.realpath(folder) == os.path.realpath(run.output_dir)
            and os.path.exists(f"{path.removesuffix(DRAWN)}{RECORD}"))


def run_of(path):
    """The name of the capture run, or of the folder, that a frame lies in."""
    parent = Path(path).absolute().parent
    return (parent.parent if parent.name == IMAGES else parent).name


def finished(run, name, path):
    """Whether a frame need not be looked at again. UserError for files that may not be replaced."""
    record, picture = run.outputs(name)
    if run.overwrite or not record.exists():
        if picture.exists() and not run.overwrite:
            raise UserError(f"{picture} exists already; pass --overwrite to replace it, or another --output-dir")
        return False
    earlier, now = read_json(record).get("made_with"), run.settings(path)
    if earlier != now:
        difference = describe_difference(earlier, now) if isinstance(earlier, dict) else "another program"
        raise UserError(f"{record} exists, made with other settings ({difference}); pass --overwrite or another --output-dir")
    return picture.exists()


# --------------------------------------------------------------------------------------------------------- the work


def find_in_frames(run, patterns, processes, console):
    """Find the objects of the frames that patterns name. Returns the exit code."""
    frames = choose_frames(run, patterns)
    left = {name: path for name, path in frames.items() if not finished(run, name, path)}
    if run.dry_run:
        if processes.is_first:
            print_result(f"{len(left)} of {plural(len(frames), 'frame')} would be looked at, into {run.output_dir}")
        return 0
    require_writable(run.output_dir)
    processes.wait_for_all()  # all look at what is finished before the first one writes
    if len(left) < len(frames):
        console.say(f"{len(frames) - len(left)} of {plural(len(frames), 'frame')} are finished already")
    begun, failures = time.monotonic(), {}
    for part in processes.gather(find_share(run, dict(list(left.items())[processes.rank :: processes.size]), len(frames), console)):
        failures |= part
    if not processes.is_first:
        return 0
    seconds = time.monotonic() - begun
    seen = {name: path for name, path in frames.items() if name not in failures}
    records = {name: read_record(run.outputs(name)[0]) for name in seen}
    if records:
        write_view(run, seen, records, console)
    counts = Counter(box["class"] for record in records.values() for box in record["boxes"])
    told = ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "nothing"
    if left and seconds > 0:
        console.say(f"{len(left) / seconds:.1f} frames a second, pictures included")
    line = f"{told} in {len(records)} of {plural(len(frames), 'frame')}, in {Path(run.output_dir) / VIEW if records else run.output_dir}"
    line, code = last_line(line, {name: {"unreadable_blocks": 0} for name in records}, failures)
    print_result(line)
    return code


def find_share(run, mine, count, console):
    """
    Look at these frames {name: path}. → {name: (kind of error, text)} of those that cannot be read; with --strict, or where `count` is 1,
    its error ends the run.
    """
    detector = run.compute.place(run.detector)
    finder = SmallFinder(detector=detector, compute=run.compute, iou=run.iou, lowest=min(LEAST_SCORE, run.score_threshold))
    names, failures = list(mine), {}
    batches = [names[start : start + run.batch_size] for start in range(0, len(names), run.batch_size)]
    with console.progress(len(names), "frames") as bar, ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        coming = reader.submit(read_batch, finder, mine, batches[0]) if batches else None
        written = []
        for number, batch in enumerate(batches):
            found = coming.result()
            if number + 1 < len(batches):
                coming = reader.submit(read_batch, finder, mine, batches[number + 1])
            ready = [name for name in batch if not isinstance(found[name], UserError)]
            for name in (name for name in batch if name not in ready):
                if run.strict or count == 1:
                    raise found[name]
                failures[name] = "UserError", str(found[name])
                console.warn(f"{mine[name]} was left out: {found[name]}")
            objects = finder.find(*zip(*(found[name][1:] for name in ready), strict=True)) if ready else []
            for task in written:
                task.result()
            written = [writer.submit(write_frame, run, name, mine[name], found[name][0], boxes)
                       for name, boxes in zip(ready, objects, strict=True)]
            bar.update(len(batch))
        for task in written:
            task.result()
    return failures


def read_batch(finder, paths, names):
    """{name: (frame, Letterbox, input), or the UserError that says why it cannot be read}."""
    found = {}
    for name in names:
        try:
            frame = read_frame(paths[name])
            found[name] = (frame, *finder.prepare(frame))
        except UserError as error:
            found[name] = error
    return found


# -------------------------------------------------------------------------------------------------------- the files


def write_frame(run, name, path, frame, found):
    """The files of a frame: its JSON, which says what they are made with, then the picture."""
    record, picture = run.outputs(name)
    picture.unlink(missing_ok=True)  # of an earlier run that is replaced: else it would seem to be that of the new JSON
    height, width = frame.shape[:2]
    classes, boxes = run.detector.config.classes, []
    for box, score, label in zip(found["boxes"].tolist(), found["scores"].tolist(), found["labels"].tolist(), strict=True):
        shares = [value / side for value, side in zip(box, (width, height) * 2, strict=True)]
        boxes.append({"bbox_px": [round(v, 2) for v in box], "bbox_norm": [round(v, 6) for v in shares], "score": round(score, 4),
                      "class_id": label - 1, "class": classes[label - 1]})
    kept = [box for box in boxes if box["score"] >= run.score_threshold]
    write_json(record, {
        "image": os.path.basename(path), "width": width, "height": height, "score_threshold": run.score_threshold, "boxes": kept,
        "below": boxes[len(kept) :], "made_with": run.settings(path),
    }, sync=False)
    places = np.array([box["bbox_px"] for box in kept]).reshape(-1, 4)
    words = [f"{box['class']} {box['score']:.2f}" for box in kept]
    save_png(picture, draw_labelled(frame, places, [box["class_id"] + 1 for box in kept], words))


def read_record(path):
    """The JSON of a frame. UserError where it lacks what the page needs."""
    record = read_json(path)
    for name, kind in NEEDED.items():
        if not isinstance(record.get(name), kind):
            raise UserError(f"{path} lacks {name}; remove it, and run the same command again")
    return record


def write_view(run, frames, records, console):
    """view.html of the frames {name: path}, evenly chosen where they are many."""
    names = list(frames)
    chosen = [names[k * len(names) // MOST_SHOWN] for k in range(MOST_SHOWN)] if len(names) > MOST_SHOWN else names
    remark = f"{len(chosen)} of {len(names)} frames" if len(chosen) < len(names) else ""
    if remark:
        console.say(f"{VIEW} shows {remark}, evenly chosen")
    with atomic_path(Path(run.output_dir) / VIEW) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write(begin_page(f"{plural(len(names), 'frame')} with their objects", run.score_threshold, remark))
        for name in chosen:
            record = records[name]
            boxes = [*record["boxes"], *record["below"]]
            frame = Frame(record["image"], (record["width"], record["height"]), [box["bbox_px"] for box in boxes],
                          [box["class_id"] + 1 for box in boxes], [box["class"] for box in boxes], [box["score"] for box in boxes])
            file.write(frame_html(frame, read_frame(frames[name])))
        file.write(end_page())
