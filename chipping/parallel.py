"""
Cutting by one process or several: work dealt out in runs of window rows, results in the order of one process whatever their number.
"""

import collections
import math

from rasterio.errors import RasterioError, RasterioIOError

from chipping.cutting import SceneReader, cut_rows, rows_of, skip, unreadable_file
from raster.windows import starts
from runtime.errors import UserError
from runtime.workers import stopping, worker_pool

BLOCKS_A_TASK = 8  # rows of blocks that a task reaches over at least
WINDOWS_A_TASK = 1024  # about: some seconds of work, which is what a kill can cost


def deal(scenes, recipe, workers, done):
    """
    [(scene's number, (first rows of windows))] in the order of the manifest.

    done: {scene's name: windows that need no cutting any more}; they are the first ones. A task that doesn't begin with its scene decodes
    blocks that another process has decoded already, so scenes are dealt out whole where they are small and reach over several rows of
    blocks where not. The scenes that are left over when all workers have had as many as the others are split between them.
    """
    tasks = []
    left_over = len(scenes) % workers
    for number, scene in enumerate(scenes):
        columns = len(starts(scene.width, recipe.size, recipe.stride))
        rows = rows_of(scene, recipe)[done.get(scene.name, 0) // columns :]
        length = max(4, math.ceil(BLOCKS_A_TASK * scene.block_height / recipe.stride), WINDOWS_A_TASK // columns)
        if rows and number >= len(scenes) - left_over:
            pieces = math.ceil(workers / left_over)
            length = math.ceil(len(rows) / (pieces * max(1, round(len(rows) / (length * pieces)))))
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


def start_cutter(scenes, recipe, folder):
    global worker_cutter
    worker_cutter = Cutter(scenes, recipe, folder)


def work(task):
    """The lines of a task; no more of them once the pool is stopping."""
    lines = []
    for line in worker_cutter.lines(task):
        if stopping():
            break
        lines.append(line)
    return lines


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
    waiting, coming = collections.deque(), iter(tasks)
    with worker_pool(min(workers, len(tasks)), (__name__,), start_cutter, (scenes, recipe, folder)) as pool:
        while True:
            # Two tasks a worker on their way: nobody waits, and results don't pile up behind a slow one.
            while len(waiting) < 2 * workers and (task := next(coming, None)) is not None:
                waiting.append(pool.submit(work, task))
            if not waiting:
                break
            yield from waiting.popleft().result()
