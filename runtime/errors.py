"""Errors that a user can act on: one line on stderr and an exit code, never a traceback unless asked for."""

import contextlib
import difflib
import errno
import os
import signal
import sys
import threading
from dataclasses import dataclass

from runtime import stop_signals
from runtime.stop_signals import STOPS, Terminated
from runtime.words import for_terminal

LONGEST_SURPRISE = 300  # characters of an unexpected error's text: compilers put whole programs into theirs


class UserError(Exception):
    """Bad usage or bad input. The message says what was expected, what was found and what to do. Exit code 2."""


class RunError(Exception):
    """The input was right but the work could not be completed (unreadable pixels, a full disk). Exit code 1."""


class Follower(Exception):
    """Another process of this run under torchrun has failed and reports it; this one exits silently with the same code."""

    def __init__(self, code):
        super().__init__(code)
        self.code = code


def is_first_process():
    """Whether this is the process of torchrun that talks, or the only one."""
    return int(os.environ.get("RANK", 0)) == 0


# Set by runtime.distributed when the processes of torchrun have joined. Before that, bad flags and bad input look alike in all of them,
# and the first one's line is enough; afterwards whoever fails first says why.
processes_have_met = threading.Event()


def did_you_mean(word, choices):
    """` Did you mean 'resnet34'?` when a choice is near the word, else an empty string."""
    near = difflib.get_close_matches(str(word), [str(c) for c in choices], n=1, cutoff=0.6)
    return f" Did you mean {near[0]!r}?" if near else ""


def one_line(error):
    """The message of any exception on one line, fit for a terminal."""
    text = " ".join(str(error).split())
    return for_terminal(text) or type(error).__name__


@dataclass(frozen=True, kw_only=True)
class Advice:
    """What a program recommends where the system fails it. memory: how to need less; again: how to continue."""

    memory: str = "close other programs, or use smaller data"
    again: str = "run the same command again"


def run_program(main, advice=None):
    """
    Call main(argv) and exit with its code: the one place where exceptions become exit codes. advice: an Advice.

    0 success, 1 failure at run time, 2 bad usage or input, 130 after Ctrl-C, 143 after SIGTERM. `--debug` among the arguments
    lets the traceback through.
    """
    argv = sys.argv[1:]
    name = os.path.basename(sys.argv[0])
    prepare_output()
    try:
        code = main(argv) or 0
        sys.stdout.flush()
    except SystemExit as error:
        stop_signals.conclude(error.code)
        raise
    except BrokenPipeError:  # `chip.py inspect patches | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Follower as error:
        code = error.code
    except (Exception, *STOPS) as error:
        if "--debug" in argv:
            raise
        code, text = explain(error, advice or Advice())
        with stop_signals.held():
            if tells(error):
                print(f"{name}: {text}", file=sys.stderr)
            stop_signals.conclude(code)
    stop_signals.conclude(code)
    leave(code)


def tells(error):
    """Whether this process says why it ends."""
    if isinstance(error, STOPS) and stop_signals.SILENT in os.environ:
        return False
    return is_first_process() or processes_have_met.is_set() or not isinstance(error, UserError)


def prepare_output():
    """
    Make print() safe: closed standard files (`>&-`) are replaced by nothing, and a character that the terminal's encoding lacks is escaped.

    Without the first the next file that is opened would be written to by mistake; without the second a name of other bytes ends the run.
    """
    for number, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            mode = "r" if number == 0 else "w"
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))
            with contextlib.suppress(OSError):
                os.dup2(getattr(sys, name).fileno(), number)
        elif number == 1 and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def leave(code):
    """
    End the program. One of several processes skips the interpreter's shutdown: threads of torch's process group that ask for its lock
    meanwhile abort the process, now and then, after all the work is done.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def explain(error, advice=Advice()):
    """(exit code, one line) for an exception that ended a program."""
    if isinstance(error, UserError):
        return 2, f"error: {one_line(error)}"
    if isinstance(error, RunError):
        return 1, f"failed: {one_line(error)}"
    if isinstance(error, Terminated):
        return 143, stop_signals.stop_line(signal.SIGTERM, for_terminal(error))
    if isinstance(error, KeyboardInterrupt):
        return 130, stop_signals.stop_line(signal.SIGINT, for_terminal(error))
    if isinstance(error, ModuleNotFoundError):
        return 1, (f"failed: the module {error.name} is not installed for {for_terminal(sys.executable)}; run `make env`, then "
                   "`source .venv/bin/activate` and the same command")
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return 1, f"failed: no space left on the disk ({one_line(error)}); free some, then {advice.again}"
    if isinstance(error, OSError) and error.errno in (errno.EFBIG, errno.EDQUOT):
        why = "the disk quota is used up" if error.errno == errno.EDQUOT else "the disk or ulimit allows no file of that size"
        return 1, f"failed: {why} ({one_line(error)}); take another folder or raise the limit, then {advice.again}"
    if isinstance(error, PermissionError) or isinstance(error, OSError) and error.errno == errno.EROFS:
        return 1, f"failed: no permission to write or read {for_terminal(error.filename)}; choose another folder or change its rights"
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return 1, f"failed: out of memory ({one_line(error)[:200]}); {advice.memory}"
    text = one_line(error)
    text = text if len(text) <= LONGEST_SURPRISE else f"{text[:LONGEST_SURPRISE]} …"
    return 1, f"failed unexpectedly: {type(error).__name__}: {text} (run again with --debug for the traceback)"
