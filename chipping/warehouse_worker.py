"""Cuts frames into rows of a warehouse's arrays, in one process or several."""

import collections
import contextlib
import hashlib
import math
from collections import Counter
from dataclasses import dataclass

import numpy as np

from chipping.capture_runs import Frame
from chipping.frame_boxes import fill_slots, resolve_boxes
from chipping.warehouse import HEADER, PARTS, row_digest, shapes_of, shard_file
from raster.frames import BadFrame, decode_frame, read_content
from raster.letterbox import Letterbox
from runtime.files import open_own
from runtime.workers import stopping, worker_pool


@dataclass(frozen=True)
class Cut:
    """What decides the rows. folder: of the shards. target: (W, H). mode: of the Letterbox. skip_empty: frames without boxes get no row."""

    folder: object
    target: tuple
    mode: str
    max_boxes: int
    skip_empty: bool


@dataclass(frozen=True)
class Task:
    """Frames that lie in successive rows of one shard, the first of them in `row`."""

    number: int
    shard: int
    row: int
    frames: tuple[Frame, ...]


def cut_frame(frame, cut, pixels):
    """({part: array of a row} or None, result as a dict for the journal) of a frame. pixels: (3, H, W) uint8 to write into."""
    name = frame.path.name
    try:
        content = read_content(frame.path)
        image, converted = decode_frame(content, name, frame.turn)
    except BadFrame as error:
        return None, {"problem": "unreadable", "detail": str(error).replace(str(frame.path), name)[:200]}
    size = image.size
    if frame.size is not None and tuple(frame.size) != size:
        detail = f"the image has {size[0]}×{size[1]} pixels, its labels are for {frame.size[0]}×{frame.size[1]}"
        return None, {"problem": "invalid", "detail": detail}
    boxes, labels, counts = resolve_boxes(frame.px, frame.norm, frame.labels, size)
    if cut.skip_empty and not len(boxes):
        return None, {"problem": "empty", "counts": filled(counts)}
    letterbox = Letterbox(size, cut.target, cut.mode)
    slots, mask, numbers = fill_slots(boxes, labels, letterbox, cut.max_boxes)
    kept = int(mask.sum())
    counts += Counter(boxes=kept, boxes_over=len(boxes) - kept, converted=int(converted))
    arrays = {"images": letterbox.resize(image, pixels), "boxes": slots, "mask": mask, "labels": numbers}
    result = {
        "size": list(size), "affine": list(letterbox.affine), "classes": numbers[:kept].tolist(), "counts": filled(counts),
        "image_sha256": hashlib.sha256(content).hexdigest(), "rows": {part: row_digest(arrays[part]).hex() for part in PARTS},
    }
    return arrays, result


def filled(counts):
    return {key: count for key, count in sorted(counts.items()) if count}


def cut_task(task, cut):
    """The results of a task's frames, whose rows are in the shard's files; a frame without row leaves its place as it is."""
    shapes, results = shapes_of(cut.target, cut.max_boxes), []
    with contextlib.ExitStack() as stack:
        files = {}
        for part in PARTS:
            files[part] = stack.enter_context(open_own(cut.folder / shard_file(task.shard, part), "r+b", buffering=0))
        pixels = np.empty(*shapes["images"])  # one for all: fresh memory costs as much as the resizing
        for place, frame in enumerate(task.frames, start=task.row):
            arrays, result = cut_frame(frame, cut, pixels)
            results.append(result)
            for part, array in (arrays or {}).items():
                write_all(files[part], array, HEADER + place * row_bytes(shapes[part]))
    return results


def row_bytes(shape_and_type):
    shape, dtype = shape_and_type
    return math.prod(shape) * dtype.itemsize


def write_all(file, array, place):
    """Write the bytes of an array at a place of a file."""
    content = memoryview(np.ascontiguousarray(array)).cast("B")
    file.seek(place)
    while len(content):
        content = content[file.write(content) :]


worker_cut = None  # in a worker process


def start_worker(cut):
    global worker_cut
    worker_cut = cut


def work(task):
    """(the task's number, its results), None in place of results where the pool is stopping."""
    return task.number, None if stopping() else cut_task(task, worker_cut)


def cut_tasks(tasks, cut, workers):
    """Yields (number of a task, results of its frames) in order, whatever the number of workers. No pool for one."""
    if workers == 1 or len(tasks) < 2:
        for task in tasks:
            yield task.number, cut_task(task, cut)
        return
    pending, coming = collections.deque(), iter(tasks)
    with worker_pool(min(workers, len(tasks)), (__name__,), start_worker, (cut,)) as pool:
        while True:
            while len(pending) < 3 * workers and (task := next(coming, None)) is not None:
                pending.append(pool.submit(work, task))
            if not pending:
                break
            number, results = pending.popleft().result()
            if results is not None:
                yield number, results
