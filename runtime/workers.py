"""
Worker processes: forked from a server that has imported their modules, stopped between two tasks, ended with their parent.

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

from runtime import network
from runtime.errors import RunError

METHOD = "forkserver" if os.name == "posix" else "spawn"


def prepare_workers(modules, count):
    """
    Start the process that `count` workers will be forked from: it imports `modules` (names) while this process imports its own.

    Otherwise the two imports come one after the other, which costs more than a second worker saves in a short run.
    """
    if count > 1 and METHOD == "forkserver":
        start_server(modules)


def start_server(modules):
    """Python 3.11 imports them without our folder in its path, and ignores what it does not find: PYTHONPATH adds it."""
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

    Tasks that have not begun when the block ends are dropped; those under way may ask `stopping` and end early. A worker that was killed
    is a RunError.
    """
    context = multiprocessing.get_context(METHOD)
    if METHOD == "forkserver":
        start_server(modules)
    stop = context.Event()
    pool = ProcessPoolExecutor(count, context, begin, (stop, dict(network.allowed), prepare, arguments))
    try:
        yield pool
    except BrokenProcessPool as error:
        raise RunError("a worker was killed, perhaps for memory; run the same command again with fewer --workers") from error
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


stop_event = None  # in a worker: its pool's


def stopping():
    """In a worker: has the pool's block ended? In other processes False."""
    return stop_event is not None and stop_event.is_set()


def begin(stop, permission, prepare, arguments):
    """
    The first thing a worker does. SIGINT reaches the whole process group and is handled by the parent; workers of a parent that was killed
    exit, since the next run works in the same folder.
    """
    global stop_event
    stop_event = stop
    network.take_over(permission)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def follow():
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    if prepare:
        prepare(*arguments)
