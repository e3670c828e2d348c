"""
Cutting by one process or several: work dealt out in runs of window rows, results in the order of one process whatever their number.
"""

import collections
import math
import os
import signal
import threading

from rasterio.errors import RasterioError, RasterioIOError

from chipping.cutting import SceneReader, cut_rows, rows_of, skip, unreadable_file
from raster.windows import starts
from runtime.errors import RunError, UserError

BLOCKS_A_TASK = 6  # rows of blocks that a task reaches over


def deal(scenes, recipe, workers, done):
    """
    [(scene's number, (first rows of windows))] in the order of the manifest.

    done: {scene's name: windows that need no cutting any more}; they are the first ones. Every task begins with blocks that the task before
    it has decoded in another process, so tasks reach over several rows of blocks. Few scenes are dealt out in a multiple of `workers`, so
    that all are busy to the end.
    """
    tasks = []
    for number, scene in enumerate(scenes):
        rows = rows_of(scene, recipe)
        rows = rows[done.get(scene.name, 0) // len(starts(scene.width, recipe.size, recipe.stride)) :]
        length = max(4, math.ceil(BLOCKS_A_TASK * scene.block_height / recipe.stride))
        if rows and len(scenes) < 4 * workers:
            length = math.ceil(len(rows) / (workers * max(1, round(len(rows) / (length * workers)))))
        tasks += [(number, tuple(rows[i : i + length])) for i in range(0, len(rows), length)]
    return tasks


class Cutter:
    """Cuts tasks one after the other, and keeps a scene's files open between them. folder: None cuts without writing."""

    def __init__(self, scenes, recipe, folder):
        self.scenes, self.recipe, self.folder = scenes, recipe, folder
        self.number, self.reader = None, None

    def lines(self, task):
        """The lines of a task, as they come."""
        number, rows = task
        if number != self.number:
            self.close()
            try:
                self.reader = SceneReader(self.scenes[number], self.recipe)
            except UserError as error:
                if not readable_settings(error):
                    raise
                yield from self.unopened(number, rows, error)
                return
            self.number = number
        yield from cut_rows(self.reader, rows, self.folder)

    def unopened(self, number, rows, error):
        """Every window of a scene whose files were there when the headers were read, and can't be opened now."""
        scene, size = self.scenes[number], self.recipe.size
        for row in rows:
            for col in starts(scene.width, size, self.recipe.stride):
                box = (col, row, min(size, scene.width - col), min(size, scene.height - row))
                yield skip(scene, *box, "unreadable", source=unreadable_file(error, scene), detail=str(error)[:200])

    def close(self):
        if self.reader is not None:
            self.reader.close()
        self.number, self.reader = None, None


def readable_settings(error):
    """Is an error of SceneReader about a raster that can't be opened (and not about the labels' content)?"""
    return error.__cause__ is not None and isinstance(error.__cause__, (RasterioIOError, RasterioError))


worker_cutter = None  # in a worker process: its Cutter


def start_worker(scenes, recipe, folder):
    """In a worker: ready to cut. Ctrl-C is the parent's business; a parent that was killed takes its workers along."""
    import multiprocessing

    global worker_cutter
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def follow():
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    worker_cutter = Cutter(scenes, recipe, folder)


def work(task):
    return list(worker_cutter.lines(task))


def cut_in_order(scenes, recipe, folder, tasks, workers):
    """The lines of all tasks, in order. No pool for one worker."""
    if workers == 1 or len(tasks) < 2:
        cutter = Cutter(scenes, recipe, folder)
        try:
            for task in tasks:
                yield from cutter.lines(task)
        finally:
            cutter.close()
        return
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(tasks)), context, start_worker, (scenes, recipe, folder))
    waiting, coming = collections.deque(), iter(tasks)
    try:
        while True:
            # Two tasks a worker on their way: nobody waits, and results don't pile up behind a slow one.
            while len(waiting) < 2 * workers and (task := next(coming, None)) is not None:
                waiting.append(pool.submit(work, task))
            if not waiting:
                break
            yield from waiting.popleft().result()
    except BrokenProcessPool as error:
        raise RunError("a worker was killed, perhaps for memory; run the same command again with fewer --workers, it goes on") from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
