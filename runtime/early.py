"""Starting what takes seconds before it is needed. Standard library only: it runs before anything heavy is imported."""

import multiprocessing.forkserver
import os


def prepare_workers(module, count):
    """
    Start the process that `count` workers will be copied from: it imports `module` (and torch with it) while this process does the same.

    Without it the two imports come one after the other, two seconds that no second worker makes up for in a short run.
    """
    if count > 1 and os.name == "posix":
        multiprocessing.forkserver.set_forkserver_preload([module])
        multiprocessing.forkserver.ensure_running()
