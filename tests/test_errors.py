"""Exceptions become one line and the promised exit code."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.errors import RunError, Terminated, UserError, did_you_mean, run_program

ROOT = Path(__file__).resolve().parent.parent


def leave_with(monkeypatch, capsys, exception, *argv):
    def main(_):
        raise exception

    monkeypatch.setattr(sys, "argv", ["/somewhere/chip.py", *argv])
    with pytest.raises(SystemExit) as stop:
        run_program(main)
    return stop.value.code, capsys.readouterr().err


@pytest.mark.parametrize("exception, code", [
    (UserError("expected a, found b"), 2), (RunError("2 of 5 done"), 1), (KeyboardInterrupt(), 130), (Terminated("saved"), 143),
    (OSError(28, "No space left on device"), 1), (PermissionError(13, "Permission denied", "out"), 1),
    (OSError(30, "Read-only file system", "out"), 1), (ZeroDivisionError("x"), 1),
    (UserError("two\nlines"), 2),
])
def test_every_exception_is_one_line_and_its_code(monkeypatch, capsys, exception, code):
    found, text = leave_with(monkeypatch, capsys, exception)
    assert found == code
    assert text.startswith("chip.py: ") and len(text.strip().splitlines()) == 1 and "Traceback" not in text


def test_an_unexpected_error_as_long_as_a_compilers_is_cut_and_a_short_one_is_not(monkeypatch, capsys):
    _, text = leave_with(monkeypatch, capsys, AssertionError("cannot lower " + "buf0 " * 2000))
    assert "AssertionError: cannot lower buf0" in text and "… (run again with --debug" in text and len(text) < 400
    _, text = leave_with(monkeypatch, capsys, AssertionError("cannot lower"))
    assert "AssertionError: cannot lower (run again" in text


def test_debug_lets_the_traceback_through(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["chip.py", "--debug"])
    with pytest.raises(ZeroDivisionError):
        run_program(lambda argv: 1 / 0)


@pytest.mark.parametrize("returned, code", [(None, 0), (0, 0), (1, 1)])
def test_main_returns_its_exit_code(monkeypatch, returned, code):
    monkeypatch.setattr(sys, "argv", ["chip.py"])
    with pytest.raises(SystemExit) as stop:
        run_program(lambda argv: returned)
    assert stop.value.code == code


def test_only_near_names_are_proposed():
    assert did_you_mean("resnet43", ["resnet34", "mobilenet_v2"]) == " Did you mean 'resnet34'?"
    assert did_you_mean("transformer", ["resnet34", "mobilenet_v2"]) == ""


def test_one_of_several_processes_leaves_with_its_code_and_what_it_said(tmp_path):
    """It ends without the interpreter's farewell, so nothing may be left in a buffer."""
    code = "from runtime.errors import run_program\ndef main(argv):\n    print('done', end='')\n    return 3\nrun_program(main)"
    environment = {**os.environ, "WORLD_SIZE": "2", "RANK": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (3, "done", "")
