"""Worker processes have what they need before they begin, wherever the program is started."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runtime import epoch_batches
from runtime.errors import Terminated
from runtime.interrupts import INTERRUPT, NOTHING, TERMINATE, StopRequest, leaving_flag, worker_init

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
if __name__ == "__main__":
    import os
    from runtime.workers import prepare_workers, worker_pool
    prepare_workers(["chipping.parallel"], 2)
    with worker_pool(2, ["chipping.parallel"]) as pool:
        print(pool.submit(eval, "'chipping.parallel' in __import__('sys').modules").result(), os.environ.get("PYTHONPATH"))
"""


def test_workers_have_imported_their_modules_also_when_started_from_another_folder(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    environment = {"PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "program.py"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["True", "None"], done.stderr


def wait_with(begin, ready):
    begin(0)
    ready.set()
    time.sleep(60)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_signal_ends_a_worker_only_when_its_parent_leaves(method):
    context = multiprocessing.get_context(method)
    ready = context.Event()
    process = context.Process(target=wait_with, args=(worker_init(), ready), daemon=True)
    process.start()
    assert ready.wait(60)
    try:
        for _ in range(3):
            os.kill(process.pid, signal.SIGTERM)
            os.kill(process.pid, signal.SIGINT)
            time.sleep(0.1)
        assert process.is_alive()
        leaving_flag().value = 1
        os.kill(process.pid, signal.SIGTERM)
        process.join(10)
        assert process.exitcode == 128 + signal.SIGTERM
    finally:
        leaving_flag().value = 0
        process.kill()


class Numbers:
    def __getitems__(self, indices):
        return list(indices)


def test_a_signal_does_not_end_a_worker_of_a_loader_that_is_only_starting(monkeypatch):
    begin, before = worker_init(), set(multiprocessing.active_children())

    def slow_init():
        return lambda worker: (time.sleep(1), begin(worker))

    monkeypatch.setattr(epoch_batches, "worker_init", slow_init)
    batches = iter(epoch_batches.make_loader(Numbers(), [[0, 1], [2, 3]], epoch_batches.as_it_is, workers=1))
    (worker,) = set(multiprocessing.active_children()) - before
    time.sleep(0.3)  # in which torch has set its own handler
    os.kill(worker.pid, signal.SIGTERM)
    assert list(batches) == [[0, 1], [2, 3]]
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_a_process_that_got_no_signal_leaves_as_the_one_that_did():
    """Under torchrun one process is signalled and all leave: with its exit code, whoever tells first."""
    with StopRequest() as stop:
        assert stop.wanted == NOTHING
        with pytest.raises(Terminated, match="saved"):
            stop.leave("saved", TERMINATE)
        with pytest.raises(KeyboardInterrupt, match="saved"):
            stop.leave("saved", INTERRUPT)
