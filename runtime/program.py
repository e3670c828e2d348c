"""The frame of a program: the processes of torchrun joined, one of them talking, warnings of libraries as lines of ours."""

import contextlib
import datetime
import logging
import warnings

from runtime import distributed
from runtime.logs import Console, SilentConsole
from runtime.memory import keep_freed_memory


@contextlib.contextmanager
def program(device="auto", quiet=False, patience=datetime.timedelta(minutes=30)):
    """
    with program(args.device, args.quiet) as (processes, console): …

    Joins the processes that torchrun started (one process is world size 1); all but the first have a silent console. Freed memory is kept
    (runtime/memory.py). Python warnings become the console's, the hub client's chatter goes. device: of the flag, which decides how the
    processes talk. patience: how long a process waits for the others before it takes them for dead.
    """
    keep_freed_memory()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    with distributed.start(device, patience) as processes, warnings.catch_warnings():
        console = Console(quiet) if processes.is_first else SilentConsole()
        warnings.showwarning = lambda message, *_, **__: console.warn(str(message))
        yield processes, console
