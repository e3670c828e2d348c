"""Ctrl-C and SIGTERM as a wish: the loop finishes its step, saves, and then leaves."""

import signal
import threading

from runtime.errors import Terminated

NOTHING, SAVE, STOP = 0, 1, 2  # what a process wants at the end of a step; the highest of all processes counts


class StopRequest:
    """
    Context manager. `requested` turns true with the first SIGINT or SIGTERM; a second one interrupts at once.

    leave(text) raises what the signal stands for: KeyboardInterrupt (exit code 130) or Terminated (143).
    """

    signals = (signal.SIGINT, signal.SIGTERM)

    def __enter__(self):
        self.received = None
        # Python allows handlers in the main thread only; elsewhere (a notebook's worker) signals keep their usual meaning.
        self.handlers = {}
        if threading.current_thread() is threading.main_thread():
            self.handlers = {number: signal.signal(number, self.receive) for number in self.signals}
        return self

    def receive(self, number, frame):
        if self.received is not None:
            self.leave("Stopped at once; what the last checkpoint holds is safe")
        self.received = number

    @property
    def requested(self):
        return self.received is not None

    def leave(self, text):
        raise Terminated(text) if self.received == signal.SIGTERM else KeyboardInterrupt(text)

    def __exit__(self, *exception):
        for number, handler in self.handlers.items():
            signal.signal(number, handler)


def leave_signals_to_parent(worker_id):
    """For data loader workers: Ctrl-C reaches the whole process group, but the parent alone decides when to stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a fork inherits the parent's handler, and could not be ended then
