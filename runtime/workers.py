"""
Worker processes: copied from one that has imported what they need, stopped between two pieces of work, gone when their parent is.

Standard library only, since prepare_workers runs before anything heavy is imported.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from runtime.errors import RunError

METHOD = "forkserver" if os.name == "posix" else "spawn"


def prepare_workers(modules, count):
    """
    Start the process that `count` workers will be copied from: it imports `modules` (names) while this process gets ready itself.

    Without it the two imports come one after the other, seconds that no second worker makes up for in a short run.
    """
    if count > 1 and METHOD == "forkserver":
        start_server(modules)


def start_server(modules):
    """Python 3.11 imports them with the path of an empty program, and says nothing where it finds none: it gets ours by PYTHONPATH."""
    from multiprocessing import forkserver

    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).resolve().parent.parent), *([before] if before else [])])
    try:
        forkserver.set_forkserver_preload(list(modules))
        forkserver.ensure_running()
    finally:
        del os.environ["PYTHONPATH"]
        if before is not None:
            os.environ["PYTHONPATH"] = before


@contextlib.contextmanager
def worker_pool(count, modules, prepare=None, arguments=()):
    """
    A ProcessPoolExecutor of `count` processes that have imported `modules`; prepare(*arguments) runs first in each.

    Work that was not begun when the block ends is dropped, and what is under way may look at `stopping` to end early. A worker that was
    killed is a RunError.
    """
    context = multiprocessing.get_context(METHOD)
    if METHOD == "forkserver":
        start_server(modules)
    stop = context.Event()
    pool = ProcessPoolExecutor(count, context, begin, (stop, prepare, arguments))
    try:
        yield pool
    except BrokenProcessPool as error:
        raise RunError("a worker was killed, perhaps for memory; run the same command again with fewer --workers, it goes on") from error
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


stop_event = None  # in a worker: its pool's


def stopping():
    """In a worker: has the pool's block ended? Elsewhere never."""
    return stop_event is not None and stop_event.is_set()


def begin(stop, prepare, arguments):
    """
    The first thing a worker does. Ctrl-C reaches the whole group and is the parent's business; a parent that was killed takes its workers
    along, since the next run would meet them in its folder.
    """
    global stop_event
    stop_event = stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def follow():
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    if prepare:
        prepare(*arguments)
