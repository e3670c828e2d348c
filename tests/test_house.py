"""The layout keeps its promises: imports point down, front doors answer at once, every flag is read, nothing is named `utils`."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = [p.stem for p in ROOT.glob("*.py") if '__name__ == "__main__"' in p.read_text(encoding="utf-8")]
ROOMS = ["raster", "vectors", "pictures", "nets", "synthetic", "chipping", "mapping", "pansharpening", "runtime"]

# Floors of the house. A file may import from its own floor's room, and from every floor below; a new word has to say where it lives.
FLOORS = [
    {"constants"},
    {"raster", "runtime"},
    {"vectors", "synthetic"},
    {"pictures", "nets", "losses", "metrics", "augment", "chipping"},
    {"mapping", "model", "dataset"},
    {"pansharpening"},
    set(PROGRAMS),
]
# Who may call what another program offers as a function: demo.py, and train.py, which hands pansharpening flags over.
MAY_IMPORT_PROGRAMS = {"demo": {"inference"}, "train": {"train_pansharpen"}}


def floor_of(word):
    return next((i for i, words in enumerate(FLOORS) if word in words), None)


def source_files():
    return [p for room in ROOMS for p in sorted((ROOT / room).rglob("*.py"))] + sorted(ROOT.glob("*.py"))


def own_words_imported_by(path):
    """First words of every import of our own modules, those inside functions included."""
    words = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            words |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            words.add(node.module.split(".")[0])
    return {w for w in words if (ROOT / w).is_dir() or (ROOT / f"{w}.py").exists()}


@pytest.mark.parametrize("path", source_files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path):
    word = path.relative_to(ROOT).parts[0].removesuffix(".py")
    floor = floor_of(word)
    assert floor is not None, f"{word} has no floor: add it to FLOORS where it belongs"
    for other in own_words_imported_by(path) - {word}:
        if other in MAY_IMPORT_PROGRAMS.get(word, ()):
            continue
        same_room_floor = floor_of(other) == floor and word not in PROGRAMS
        below = floor_of(other) is not None and (floor_of(other) < floor or same_room_floor)
        assert below, f"{path.name} imports {other}, which is not below"


def test_rooms_on_one_floor_do_not_import_each_other_in_a_circle():
    edges = {}
    for path in source_files():
        word = path.relative_to(ROOT).parts[0].removesuffix(".py")
        edges.setdefault(word, set()).update(own_words_imported_by(path) - {word})

    def reaches(start, goal, seen):
        return any(w == goal or (w not in seen and reaches(w, goal, seen | {w})) for w in edges.get(start, ()))

    assert [w for w in edges if reaches(w, w, {w})] == []


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_and_a_wrong_flag_answer_at_once(program):
    """0.3 s is promised on an idle machine. Tests share two cores with others, hence CPU time, the best of three."""

    def cpu_seconds(*words):
        import resource

        best = 9.0
        for _ in range(3):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            done = subprocess.run([sys.executable, f"{program}.py", *words], cwd=ROOT, capture_output=True, text=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            best = min(best, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        return best, done

    seconds, done = cpu_seconds("--help")
    assert done.returncode == 0 and "usage" in done.stdout and seconds < 0.3
    seconds, done = cpu_seconds("--no-such-flag")
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1 and seconds < 0.3


@pytest.mark.parametrize("program", PROGRAMS)
def test_importing_a_program_runs_nothing(program):
    code = f"import sys; import {program}; assert callable({program}.main); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == "", done.stderr


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_flag_is_read(program):
    text = (ROOT / f"{program}.py").read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "add_argument":
            names = [a.value for a in node.args if isinstance(a, ast.Constant)]
            dest = next((k.value.value for k in node.keywords if k.arg == "dest"), None)
            name = dest or next((n for n in names if n.startswith("--")), names[0]).lstrip("-").replace("-", "_")
            read = re.search(rf"\b(args|options|choice)\.{name}\b|\bsettings\.{name}\b|[\"']{name}[\"']\]|[\"']{name}[\"'][,)]", text)
            assert read, f"{program}.py parses {name} and never reads it"


def test_no_file_is_a_drawer():
    drawers = {"utils", "util", "misc", "common", "helpers", "helper", "stuff"}
    assert [p for p in source_files() if p.stem in drawers or p.parent.name in drawers] == []


def test_nothing_loads_a_checkpoint_with_unrestricted_pickle():
    offenders = [p.name for p in source_files() if re.search(r"weights_only\s*=\s*False", p.read_text(encoding="utf-8"))]
    assert offenders == []

