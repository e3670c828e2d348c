"""Graceful stop on SIGINT and SIGTERM: finish the step, save, exit."""

import atexit
import functools
import os
import signal
import time
from multiprocessing import sharedctypes

from runtime import stop_signals
from runtime.stop_signals import Terminated

TOGETHER = 1.0  # seconds within which further signals count as the first: `timeout` sends two, and Ctrl-C one beside that of a parent
NOTHING, SAVE, INTERRUPT, TERMINATE = range(4)  # what a process asks for at the end of a step; the highest of all processes counts


class StopRequest:
    """
    Context manager. `wanted` names the first SIGINT or SIGTERM that came; a later one ends the program at once.

    leave(text) raises KeyboardInterrupt (exit code 130) for SIGINT, Terminated (143) for SIGTERM.
    """

    def __enter__(self):
        self.received, self.process = None, os.getpid()
        self.handlers = stop_signals.taken_over(self.receive)
        self.handlers.__enter__()
        return self

    def receive(self, number, frame):
        if os.getpid() != self.process:  # a worker of the loader that has just been forked
            return
        if self.received is None:
            self.received, self.time = number, time.monotonic()
        elif time.monotonic() - self.time > TOGETHER:
            stop_signals.leave(self.received, "Stopped at once; what the last checkpoint holds is safe")

    @property
    def wanted(self):
        """NOTHING, INTERRUPT or TERMINATE."""
        return NOTHING if self.received is None else TERMINATE if self.received == signal.SIGTERM else INTERRUPT

    def leave(self, text, wanted=None):
        """wanted: what the processes have agreed on, for one that did not get the signal itself."""
        raise Terminated(text) if (wanted or self.wanted) == TERMINATE else KeyboardInterrupt(text)

    def __exit__(self, *exception):
        self.handlers.__exit__(*exception)


def worker_init():
    """
    A worker_init_fn for a DataLoader. Ctrl-C, `timeout` and Slurm signal workers too, but the parent alone decides when to stop, since it
    needs them to finish its step. Only the signal that it sends when it exits ends them.
    """
    return functools.partial(leave_signals_to_parent, leaving_flag())


@functools.cache
def leaving_flag():
    """A shared byte, 1 when this process exits. It has no lock, which a signal handler could deadlock on."""
    leaving = sharedctypes.RawValue("b", 0)
    # runs before multiprocessing ends the remaining workers
    atexit.register(setattr, leaving, "value", 1)
    return leaving


def leave_signals_to_parent(leaving, worker_id):
    """In a worker: ignore signals until the parent exits or is gone."""
    parent = os.getppid()  # with the start method forkserver the server, which goes when the parent does

    def receive(number, frame):
        if leaving.value or os.getppid() != parent:
            os._exit(128 + number)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, receive)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM,))  # which the server of runtime/workers.py keeps back
