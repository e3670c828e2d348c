"""
SIGINT and SIGTERM end a program with exit code 130 or 143 and one line, whatever it is doing.

Handlers that raise an exception do not: it is lost in callbacks of GDAL and in destructors, taken for a bad file by libraries that catch
everything, and shown as a traceback while modules are imported or the interpreter ends. So nothing is raised. What the programs write is
whole after `kill -9`, and the same command continues; a stop is such a kill that says a line, ends the workers and removes temporary files.

Two kinds of work cannot end like this. Training finishes its step and saves (StopRequest of runtime/interrupts.py); a program that waits
for another one passes the signal on (demo.py). Both take the handlers over for that long. A library's call is waited for: handlers run when
it returns to Python, which those that are used here do within seconds.

Imports little, since programs call catch_stop_signals() before they import anything else.
"""

import atexit
import os
import signal
import sys

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
SILENT = "CHIPMILL_STOPS_SILENTLY"  # in the environment of a program whose parent tells of the stop


class Terminated(BaseException):
    """SIGTERM arrived and what was done so far is safe. Exit code 143 (128 + 15), as a shell reports it."""


STOPS = (KeyboardInterrupt, Terminated)  # raised at places where it is safe, never by a handler of a program


class Program:
    """What the handler knows of the program."""

    process = None  # its id once its signals are caught; a forked worker has another one
    text = ""  # what the line says beside the signal, or a function that returns it
    code = None  # its exit code, when all is done and said
    agree = None  # under torchrun a function (exit code) → None in the first process that leaves, in others the exit code of that one
    held, pending = 0, None  # how many `held` blocks it is in, and the arguments of the first leave_at_once() within
    temporaries = []  # paths that are removed


def catch_stop_signals(text=""):
    """From now on SIGINT and SIGTERM end the program with one line. To be called once, by a program's first lines."""
    Program.process, Program.text = os.getpid(), text
    for number in STOP_SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup and background jobs of scripts ignore SIGINT
            signal.signal(number, stop)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)  # a parent may have kept them back until now
    atexit.register(ignore_stop_signals)  # the first that is registered runs last


def ignore_stop_signals():
    """What the interpreter does after its exit functions, without handlers, frees memory alone."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def stop(number, frame):
    if "--debug" in sys.argv and os.getpid() == Program.process and not Program.held:
        import traceback

        traceback.print_stack(frame)
    leave_at_once(number)


def are_caught():
    """Whether this process is a program that has called catch_stop_signals(), and no notebook, test or worker."""
    return Program.process == os.getpid()


def leave_at_once(number, text=None):
    """End the program because of signal `number`: what a handler does. text: for the line, in place of the program's."""
    if os.getpid() != Program.process:  # a forked worker that has no handlers of its own yet
        os._exit(128 + number)
    if Program.held:
        Program.pending = Program.pending or (number, text)
        return
    code = 128 + number
    try:
        attempt(lambda: sys.stdout.flush())  # may be waiting for a reader: interrupted by the next signal, which then does the rest
        code, tells = agree_on(code)
        ignore_stop_signals()
        if tells:
            attempt(lambda: os.write(2, said(number, text)))
        attempt(remove_temporaries)
        attempt(kill_workers)
    finally:
        os._exit(code)


def leave(number, text=None):
    """End what signal `number` stops: a program at once, elsewhere, in a notebook or a test, by the exception."""
    if are_caught():
        leave_at_once(number, text)
    raise Terminated(text or "") if number == signal.SIGTERM else KeyboardInterrupt(text or "")


def attempt(step):
    """step(), whatever comes of it: in the middle of anything, anything may be half done. Other signals' handlers may raise, too."""
    try:
        step()
    except BaseException:
        pass


def agree_on(code):
    """→ (exit code, whether this process tells of the stop)."""
    if Program.code is not None:
        return Program.code, False
    agree, Program.agree = Program.agree, None
    if agree is not None:
        earlier = agree(code)
        return earlier or code, earlier is None
    return code, tells_of_stops()


def tells_of_stops():
    """Whether this process prints the line: the first one of torchrun, and none that another of our programs has started."""
    return os.environ.get("RANK", "0") == "0" and SILENT not in os.environ


def said(number, text):
    """The line as bytes. A progress bar that stands on the terminal keeps its line."""
    text = Program.text if text is None else text
    line = f"{os.path.basename(sys.argv[0])}: {stop_line(number, text() if callable(text) else text)}\n"
    return ("\n" * os.isatty(2) + line).encode(errors="backslashreplace")


def stop_line(number, text=""):
    """`stopped by Ctrl-C. 12 patches are safe.`"""
    return f"stopped by {NAMES[number]}. {text}".rstrip(". ") + "."


def remove_temporaries():
    import shutil

    for path in reversed(Program.temporaries):
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path, ignore_errors=True)
        elif os.path.lexists(path):
            os.unlink(path)


def kill_workers():
    """Those that are starting would otherwise say that their parent has left."""
    if "multiprocessing.process" in sys.modules:
        for worker in sys.modules["multiprocessing.process"].active_children():
            worker.kill()


def conclude(code):
    """All is done and said: a signal from now on ends the program silently with this exit code, one of sys.exit."""
    Program.code = code if isinstance(code, int) else int(code is not None)


class held:
    """Context manager for the main thread: a stop waits until its end. For what must not be left half done, and takes no time."""

    def __enter__(self):
        Program.held += 1

    def __exit__(self, *exception):
        Program.held -= 1
        if Program.pending and not Program.held:
            leave_at_once(*Program.pending)


class removed_on_stop:
    """Context manager: a stop removes the file or folder `path`, as its owner does when an exception ends the block."""

    def __init__(self, path):
        self.path = os.path.abspath(path)

    def __enter__(self):
        Program.temporaries.append(self.path)

    def __exit__(self, *exception):
        Program.temporaries.remove(self.path)


class told_on_stop:
    """Context manager: text() is what the line of a stop says beside the signal."""

    def __init__(self, text):
        self.text = text

    def __enter__(self):
        self.before, Program.text = Program.text, self.text

    def __exit__(self, *exception):
        Program.text = self.before


class taken_over:
    """Context manager: handler(number, frame) gets the stop signals, unless they are ignored or this is not the main thread."""

    def __init__(self, handler):
        self.handler = handler

    def __enter__(self):
        self.before = {}
        for number in STOP_SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:
                try:
                    self.before[number] = signal.signal(number, self.handler)
                except ValueError:  # Python allows handlers in the main thread only; a notebook's worker leaves signals to it
                    return

    def __exit__(self, *exception):
        for number, handler in self.before.items():
            signal.signal(number, handler)


class kept_back:
    """Context manager. Processes that are started within never receive `numbers`, unless they unblock them; this one does at its end."""

    def __init__(self, *numbers):
        self.numbers = numbers

    def __enter__(self):
        if hasattr(signal, "pthread_sigmask"):
            self.before = signal.pthread_sigmask(signal.SIG_BLOCK, self.numbers)

    def __exit__(self, *exception):
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_SETMASK, self.before)
