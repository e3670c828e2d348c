"""What `make env` does with an environment that is there already."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def write_program(path: Path, log: Path, script: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\necho "{path.name} $*" >> {log}\n{script}\n')
    path.chmod(0o755)


@pytest.mark.parametrize("works", [True, False])
def test_an_environment_that_works_is_not_mixed_with_another_interpreter(tmp_path, works):
    """`venv` writes its paths over an older environment but leaves its interpreter: standard library and binary of two Pythons."""
    log, folder = tmp_path / "log", tmp_path / "env"
    write_program(folder / "bin" / "python", log, "exit 0" if works else "exit 1")
    other = tmp_path / "other-python"
    write_program(other, log, f"cp {other} {folder}/bin/python")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    subprocess.run(["make", "env", f"VENV={folder}", f"PYTHON={other}"], cwd=ROOT, env=environment, check=True, capture_output=True)
    lines = log.read_text().splitlines()
    assert any(line.startswith("other-python -m venv") for line in lines) is not works
    assert lines[-1].endswith("-m pip install --quiet --requirement requirements.txt")
