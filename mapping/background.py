"""Threads that read ahead of a computation and write behind it, with errors raised where the computation notices."""

import queue
import threading

END = object()


class ReadAhead:
    """
    Runs an iterator in a thread, `depth` items ahead. Errors of the thread are raised where its items are taken.

        with ReadAhead(read_slabs(plan)) as slabs:
            for slab in slabs: …
    """

    def __init__(self, items, depth=1):
        self.items = items
        self.ready = queue.Queue(maxsize=depth)
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *exception):
        self.stopped.set()
        self.thread.join()

    def run(self):
        try:
            for item in self.items:
                if not self.put(item):
                    break
            self.put(END)
        except BaseException as error:
            self.put(error)
        finally:
            self.items.close()

    def put(self, item):
        """True once the item is in the queue, False when the reader has stopped."""
        while not self.stopped.is_set():
            try:
                self.ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def __iter__(self):
        while True:
            item = self.ready.get()
            if item is END:
                return
            if isinstance(item, BaseException):
                raise item
            yield item


class WriteBehind:
    """Calls a function with each item in a thread of its own, in order; its error is raised at the next item, or at the end."""

    def __init__(self, write, depth=2):
        self.write, self.waiting, self.error = write, queue.Queue(maxsize=depth), None
        self.thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def run(self):
        while (item := self.waiting.get()) is not None:
            if self.error is None:
                try:
                    self.write(item)
                except BaseException as error:
                    self.error = error

    def put(self, item):
        if self.error is not None:
            raise self.error
        self.waiting.put(item)

    def __exit__(self, kind, *rest):
        self.waiting.put(None)
        self.thread.join()
        if kind is None and self.error is not None:
            raise self.error
