"""The tables of flags in docs/ name every flag of the training programs, with the default that it has."""

import importlib
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parent.parent / "docs"


@pytest.mark.parametrize(("program", "page"), [
    ("train", "training.md"), ("train_pansharpen", "pansharpening.md"), ("train_detection", "detection.md"),
    ("train_small_detection", "small-detectors.md"), ("export", "export.md"),
])
def test_the_table_of_flags_is_that_of_the_program(program, page):
    text = (DOCS / page).read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`-[^|]*) \| ([^|]*) \|", text, flags=re.MULTILINE)
    told = {flag: default.strip("` ") for flags, default in rows for flag in re.findall(r"--[\w-]+", flags)}
    parser = importlib.import_module(program).build_parser()
    for action in parser._actions:
        if action.option_strings and action.dest not in ("help", "help_all", "version", "quiet", "debug"):
            default = "off" if action.nargs == 0 else "" if action.default is None or action.default == [] else str(action.default)
            for flag in (f for f in action.option_strings if f.startswith("--")):
                assert told.get(flag) == default, flag
