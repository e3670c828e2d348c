"""Cuts tiles out of images and writes their pixels, in one process or several."""

import collections
from typing import NamedTuple

from rasterio.errors import RasterioError

from chipping.image_files import ImageReader
from chipping.tile_files import encode, sums_of, write_bytes
from chipping.tile_set import read_window
from runtime.errors import UserError, one_line
from runtime.workers import stopping, worker_pool

TILES_A_TASK = 256  # of an image that gives windows without being decoded from its beginning


class Job(NamedTuple):
    """A tile to cut. image: number of its image. stem: of its files, None without files. key: what its pixels show."""

    image: int
    x0: int
    y0: int
    stem: str | None
    key: str


class Source(NamedTuple):
    """
    An image to cut from. path, header, orientation: as of a LabelledImage. size: its (width, height). bands: positions. dtype, form: of the
    files. tile_size: (width, height).
    """

    path: object
    header: object
    orientation: int
    size: tuple
    bands: tuple
    dtype: str
    tile_size: tuple
    form: str


def cut_tiles(folder, sources, jobs, numbers, workers):
    """
    Yields (number of a job, {"bytes", "valid_pixels", "band_sum", "band_sum_squares"}) for the jobs of some numbers, after their pixels
    are in place; text in place of the dict says why an image cannot be read.
    """
    tasks = partition(sources, jobs, numbers, workers)
    if workers == 1 or len(tasks) < 2:
        for task in tasks:
            yield from cut_task(folder, sources[jobs[task[0]].image], [(number, jobs[number]) for number in task])
        return
    pending, coming = collections.deque(), iter(tasks)
    with worker_pool(min(workers, len(tasks)), (__name__,)) as pool:
        while True:
            while len(pending) < 2 * workers and (task := next(coming, None)) is not None:
                pending.append(pool.submit(work, folder, sources[jobs[task[0]].image], [(number, jobs[number]) for number in task]))
            if not pending:
                break
            yield from pending.popleft().result()


def partition(sources, jobs, numbers, workers):
    """
    Lists of numbers of one image each. An image that is decoded row by row is one task, and several where there are more workers than
    images: each then decodes what lies above its part.
    """
    of_image = {}
    for number in numbers:
        of_image.setdefault(jobs[number].image, []).append(number)
    tasks, remaining = [], len(of_image) % workers
    for place, (image, mine) in enumerate(of_image.items()):
        pieces = 1 if sources[image].header.by_rows else -(-len(mine) // TILES_A_TASK)
        if place >= len(of_image) - remaining:
            pieces = max(pieces, -(-workers // remaining))
        tasks += whole_rows(mine, jobs, pieces)
    return tasks


def whole_rows(numbers, jobs, pieces):
    """Numbers of an image's jobs in at most so many lists of about one length; the tiles of a row stay together."""
    rows = {}
    for number in numbers:
        rows.setdefault(jobs[number].y0, []).append(number)
    length, found = len(numbers) / pieces, [[]]
    for row in rows.values():
        if len(found[-1]) >= length:
            found.append([])
        found[-1] += row
    return found


def cut_task(folder, source, numbered):
    """As cut_tiles, of [(number, Job)] of one image."""
    wide, tall = source.tile_size
    done = 0
    try:
        with ImageReader(source.path, source.header, source.bands, source.orientation) as reader:
            for number, job in numbered:
                pixels, valid = read_window(reader, source.size, (job.x0, job.y0, wide, tall), source.dtype)
                yield number, write_tile(folder, job, pixels, None if valid.all() else valid, source.form)
                done += 1
    except (RasterioError, UserError) as error:
        why = one_line(error)[:200]
        for number, _ in numbered[done:]:
            yield number, why


def write_tile(folder, job, pixels, valid, form):
    content = encode(pixels, form)
    write_bytes(folder / f"{job.stem}.{form}", content)
    count, total, squares = sums_of(pixels, valid)
    return {"bytes": len(content), "valid_pixels": count, "band_sum": total, "band_sum_squares": squares}


def work(folder, source, numbered):
    """In a worker: the results of a task, up to the moment when the pool is stopping."""
    found = []
    for result in cut_task(folder, source, numbered):
        found.append(result)
        if stopping():
            break
    return found
