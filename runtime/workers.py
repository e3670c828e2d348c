"""
Worker processes: forked from a server that has imported their modules, stopped between two tasks, ended with their parent.

Standard library only, since prepare_workers runs before anything heavy is imported.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from runtime import network
from runtime.errors import RunError
from runtime.stop_signals import STOP_SIGNALS, held, kept_back

SIGNALLED_TOGETHER = 0.5  # seconds within which a signal to a group of processes reaches all of them
METHOD = "forkserver" if os.name == "posix" else "spawn"


def prepare_workers(modules, count):
    """
    Start the process that `count` workers will be forked from: it imports `modules` (names) while this process imports its own.

    Otherwise the two imports come one after the other, which costs more than a second worker saves in a short run.
    """
    if count > 1 and METHOD == "forkserver":
        start_server(modules)


def start_server(modules):
    """
    Python 3.11 imports them without our folder in its path, and ignores what it does not find: PYTHONPATH adds it.

    Ctrl-C and `timeout` signal the whole group of processes: this one ends the workers, and the server, which gets no signal, ends with it.
    """
    from multiprocessing import forkserver, resource_tracker

    forkserver.set_forkserver_preload(list(modules))
    with environment(PYTHONWARNINGS=("ignore:resource_tracker", ",")):  # it would tell of a stop's locks, which it removes
        resource_tracker.ensure_running()  # first, since it unblocks signals
    with environment(PYTHONPATH=(str(Path(__file__).resolve().parent.parent), os.pathsep)), kept_back(*STOP_SIGNALS):
        forkserver.ensure_running()


@contextlib.contextmanager
def environment(**additions):
    """Put values before those of environment variables, for processes that are started within. additions: name=(value, separator)."""
    before = {name: os.environ.get(name) for name in additions}
    for name, (value, separator) in additions.items():
        os.environ[name] = separator.join([value, *([before[name]] if before[name] else [])])
    try:
        yield
    finally:
        for name, value in before.items():
            del os.environ[name]
            if value is not None:
                os.environ[name] = value


class WorkerPool(ProcessPoolExecutor):
    """A ProcessPoolExecutor that is not stopped while it starts a worker: one that was half started would be left behind, and say so."""

    def submit(self, *task, **more):
        with held():
            return super().submit(*task, **more)


@contextlib.contextmanager
def worker_pool(count, modules, prepare=None, arguments=()):
    """
    A WorkerPool of `count` processes that have imported `modules`; prepare(*arguments) runs first in each.

    Tasks that have not begun when the block ends are dropped; those under way may ask `stopping` and end early. A worker that was killed
    is a RunError.
    """
    context = multiprocessing.get_context(METHOD)
    if METHOD == "forkserver":
        start_server(modules)
    stop = context.Event()
    pool = WorkerPool(count, context, begin, (stop, dict(network.allowed), prepare, arguments))
    try:
        yield pool
    except BrokenProcessPool as error:
        time.sleep(SIGNALLED_TOGETHER)  # where the worker was the first to get a signal
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
    The first thing a worker does. SIGINT is for the parent alone; workers of a parent that was killed exit, since the next run works in the
    same folder.
    """
    global stop_event
    stop_event = stop
    network.take_over(permission)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if METHOD == "forkserver":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM,))  # which the server keeps back; the pool ends workers by it
    parent = multiprocessing.parent_process()

    def follow():
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    if prepare:
        prepare(*arguments)
