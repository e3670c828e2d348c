"""Cuts scenes by one process or several, with results in the order of a single process whatever their number."""

import collections
import math

from rasterio.errors import RasterioError, RasterioIOError

from chipping.cutting import SceneReader, cut_rows, grid_of, skip, unreadable_file
from runtime.errors import UserError
from runtime.workers import stopping, worker_pool

BLOCKS_A_TASK = 8  # least rows of blocks of a task
WINDOWS_A_TASK = 1024  # about: some seconds of work, which a kill can lose


def partition(scenes, recipe, workers, done):
    """
    Tasks [(scene's number, (first rows of windows))] in the order of the manifest.

    done: {scene's name: number of its leading windows that are finished}. A task that begins within a scene decodes blocks that another
    process has decoded already, so small scenes are one task each and larger ones are cut into tasks of several rows of blocks. Of the
    scenes that remain when all workers have had equally many, each is split between workers.
    """
    tasks = []
    remaining = len(scenes) % workers
    for number, scene in enumerate(scenes):
        grid = grid_of(scene, recipe)
        columns = len(grid.columns)
        rows = grid.rows[done.get(scene.name, 0) // columns :]
        length = max(4, math.ceil(BLOCKS_A_TASK * scene.block_height / recipe.stride), WINDOWS_A_TASK // columns)
        if rows and number >= len(scenes) - remaining:
            pieces = math.ceil(workers / remaining)
            length = math.ceil(len(rows) / (pieces * max(1, round(len(rows) / (length * pieces)))))
        tasks += [(number, tuple(rows[i : i + length])) for i in range(0, len(rows), length)]
    return tasks


class Cutter:
    """Cuts tasks one after the other and keeps a scene's files open between them. folder: None cuts without writing."""

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
                if not is_unopened(error):
                    raise
                yield from self.unopened(number, rows, error)
                return
            self.number = number
        yield from cut_rows(self.reader, rows, self.folder)

    def unopened(self, number, rows, error):
        """A skipped line for every window of a scene that could be opened for planning and cannot be now."""
        scene, size = self.scenes[number], self.recipe.size
        for row in rows:
            for col in grid_of(scene, self.recipe).columns:
                window = (col, row, min(size, scene.width - col), min(size, scene.height - row))
                yield skip(scene, window, "unreadable", source=unreadable_file(error, scene), detail=str(error)[:200])

    def close(self):
        if self.reader is not None:
            self.reader.close()
        self.number, self.reader = None, None


def is_unopened(error):
    """Whether an error of SceneReader is about a raster that cannot be opened, and not about the content of labels."""
    return error.__cause__ is not None and isinstance(error.__cause__, (RasterioIOError, RasterioError))


worker_cutter = None  # in a worker process: its Cutter


def start_cutter(scenes, recipe, folder):
    global worker_cutter
    worker_cutter = Cutter(scenes, recipe, folder)


def work(task):
    """The lines of a task, up to the moment when the pool is stopping."""
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
    pending, coming = collections.deque(), iter(tasks)
    with worker_pool(min(workers, len(tasks)), (__name__,), start_cutter, (scenes, recipe, folder)) as pool:
        while True:
            # Two submitted tasks a worker: no worker idles, and results do not pile up behind a slow task.
            while len(pending) < 2 * workers and (task := next(coming, None)) is not None:
                pending.append(pool.submit(work, task))
            if not pending:
                break
            yield from pending.popleft().result()
