"""Exceptions become one line and the promised exit code."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.errors import RunError, Terminated, UserError, did_you_mean, run_program
from runtime.logs import Console, print_result
from runtime.words import for_terminal

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


@pytest.mark.parametrize("argv0, said", [("chip.py", UserError), ("train.py", RuntimeError), ("train.py", KeyboardInterrupt)])
def test_control_characters_and_bytes_in_a_message_are_escaped(monkeypatch, capsys, argv0, said):
    _, text = leave_with(monkeypatch, capsys, said("a\x1b]0;owned\x07.tif \x9b31m \udcff \u202egnp.exe"))
    assert "a\\x1b]0;owned\\x07.tif \\x9b31m \\xff \\u202egnp.exe" in text and text.rstrip("\n").isprintable()


def test_a_message_as_long_as_a_file_keeps_its_beginning_and_its_remedy(monkeypatch, capsys):
    _, text = leave_with(monkeypatch, capsys, UserError("the file names " + "x" * 150_000 + "; pass another"))
    assert text.startswith("chip.py: error: the file names xxx") and text.count("…") == 1 and len(text) < 1100
    assert text.endswith("; pass another\n")


def test_the_console_escapes_what_it_says_and_warns(capsys):
    console = Console()
    console.say("scene \x1b[2J\nsecond line\ttab × ä\u202f%")
    console.warn("\x9d0;title\udce4")
    assert capsys.readouterr().err == "scene \\x1b[2J\nsecond line\ttab × ä\u202f%\nwarning: \\x9d0;title\\xe4\n"


def test_results_are_one_harmless_line_each(capsys, tmp_path):
    print_result("table of \x1b[31mfire", tmp_path / "a\nb.png", "×\tä")
    assert capsys.readouterr().out == f"table of \\x1b[31mfire\n{tmp_path}/a\\nb.png\n×\tä\n"


def test_a_reader_that_has_seen_enough_ends_no_listing_with_a_traceback():
    done = subprocess.run(["sh", "-c", f"{sys.executable} -m synthetic.spectra --matrix | true"], cwd=ROOT, capture_output=True, timeout=60)
    assert done.stderr == b""


@pytest.mark.parametrize("text", ["plain", "ä × … → 火", "two\nlines", "", "a" * 1000])
def test_ordinary_text_goes_to_the_terminal_as_it_is(text):
    assert for_terminal(text) == text


def run_code(body, **streams):
    code = f"import sys\nsys.argv = ['chip.py']\nfrom runtime.errors import run_program\ndef main(argv):\n    {body}\nrun_program(main)"
    closing = " ".join(f"{number}>&-" for number in streams.pop("closed", ()))
    return subprocess.run(["sh", "-c", f'exec "$0" -c "$1" {closing}', sys.executable, code], cwd=ROOT, capture_output=True, text=True,
                          env={**os.environ, **streams})


@pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)])
def test_a_closed_standard_file_is_no_failure_and_no_file_is_written_in_its_place(tmp_path, closed):
    path = tmp_path / "data"
    done = run_code(f"f = open({str(path)!r}, 'w'); print('out'); print('err', file=sys.stderr); f.write('mine'); f.close()", closed=closed)
    assert done.returncode == 0 and path.read_text() == "mine"
    assert done.stdout == ("" if 1 in closed else "out\n") and done.stderr == ("" if 2 in closed else "err\n")


def test_a_terminal_that_lacks_a_character_gets_it_escaped():
    done = run_code("print('3 \u00d7 4')", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert (done.returncode, done.stdout, done.stderr) == (0, "3 \\xd7 4\n", "")


@pytest.mark.parametrize("program", ["chip.py inspect x", "train.py", "train_pansharpen.py", "inference.py --checkpoint a.pt b.tif",
                                     "demo.py"])
def test_outside_the_environment_one_line_says_how_to_make_and_enter_it(program):
    """-S: the interpreter without its installed packages."""
    name, *words = program.split()
    done = subprocess.run([sys.executable, "-S", ROOT / name, *words], capture_output=True, text=True, cwd="/")
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "is not installed" in done.stderr and "make env" in done.stderr and "source .venv/bin/activate" in done.stderr
