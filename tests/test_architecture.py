"""The layout keeps its promises: imports point down, programs answer at once, every flag is read, errors are short."""

import ast
import functools
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = [p.stem for p in sorted(ROOT.glob("*.py")) if '__name__ == "__main__"' in p.read_text(encoding="utf-8")]
COMMANDS = "chipping.commands"

# Where everything lives, the lowest first. A file may import its own package and what is on lower floors; of two packages on one floor one
# may import the other. A new name has to say where it belongs.
FLOORS = [
    {"constants"},
    {"runtime", "raster"},
    {"classes", "spectral_indices"},
    {"vectors"},
    {"pictures", "nets"},
    {"chipping", "synthetic"},  # chipping without its commands
    {"dataset", "augment", "model", "losses", "metrics", "value_metrics", "label_metrics"},
    {"mapping"},
    {"tasks"},
    {"pansharpening", "detection"},
    {"exporting"},
    {COMMANDS, *PROGRAMS},
]
PACKAGES = sorted({name.split(".")[0] for floor in FLOORS for name in floor if (ROOT / name.split(".")[0]).is_dir()})
# Which program may call what another one offers as a function: demo.py, and train.py, which hands pansharpening flags over.
MAY_IMPORT_PROGRAMS = {"demo": {"inference"}, "train": {"train_pansharpen"},
                        "train_detection": {"train_small_detection"}}


@functools.cache
def source_files():
    return [p for package in PACKAGES for p in sorted((ROOT / package).rglob("*.py"))] + sorted(ROOT.glob("*.py"))


def relative(path):
    return str(path.relative_to(ROOT))


@functools.cache
def parsed(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def unit_of(module):
    """The package or top-level module that a dotted name belongs to, as FLOORS names it; None for what is not ours."""
    first = module.split(".")[0]
    if not (ROOT / f"{first}.py").exists() and first not in PACKAGES:
        return None
    return COMMANDS if f"{module}.".startswith(f"{COMMANDS}.") else first


def unit_of_file(path):
    return unit_of(".".join(path.relative_to(ROOT).with_suffix("").parts))


def imported_by(nodes):
    """Dotted names of modules, or of names in them, that import statements among the nodes ask for."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute, so that they say where they lead"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@functools.cache
def all_imports(path):
    """Dotted names that a file imports, those inside functions included."""
    return imported_by(ast.walk(parsed(path)))


def floor_of(unit):
    return next((number for number, units in enumerate(FLOORS) if unit in units), None)


def own_files_among(modules):
    """Paths of our own modules among dotted names, which may end with a name inside a module."""
    found = set()
    for module in modules:
        for name in (module, module.rpartition(".")[0]):
            path = ROOT / f"{name.replace('.', '/')}.py"
            if name and path.exists():
                found.add(path)
                break
    return found


# ------------------------------------------------------------------------------------------------ imports


@pytest.mark.parametrize("path", source_files(), ids=relative)
def test_imports_point_down(path):
    unit = unit_of_file(path)
    assert floor_of(unit) is not None, f"{unit} has no floor: add it to FLOORS where it belongs"
    for other in {unit_of(module) for module in all_imports(path)} - {unit, None}:
        assert floor_of(other) is not None, f"{other} has no floor: add it to FLOORS where it belongs"
        if other in PROGRAMS:
            assert other in MAY_IMPORT_PROGRAMS.get(unit, ()), f"{relative(path)} imports the program {other}"
        else:
            assert floor_of(other) <= floor_of(unit), f"{relative(path)} imports {other}, which is above it"


def test_no_two_packages_import_each_other_not_even_in_a_circle():
    edges = {}
    for path in source_files():
        unit = unit_of_file(path)
        edges.setdefault(unit, set()).update({unit_of(module) for module in all_imports(path)} - {unit, None})

    def reaches(start, goal, seen):
        return any(unit == goal or (unit not in seen and reaches(unit, goal, seen | {unit})) for unit in edges.get(start, ()))

    assert [unit for unit in edges if reaches(unit, unit, {unit})] == []


def test_floors_name_what_there_is():
    there = {unit_of_file(path) for path in source_files()}
    named = [unit for floor in FLOORS for unit in floor]
    assert sorted(named) == sorted(set(named)) and there <= set(named) and set(named) - there <= {COMMANDS}


def module_level(path):
    """Statements that run when a file is imported, those under `if` and `try` included, functions left out."""
    waiting = list(parsed(path).body)
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting += ast.iter_child_nodes(node)


def reached_from(path, imports):
    """All our files that come with a file, itself included; imports(path) → dotted names that one file imports."""
    waiting, seen = {path}, set()
    while waiting:
        path = waiting.pop()
        seen.add(path)
        waiting |= own_files_among(imports(path)) - seen
    return seen


@pytest.mark.parametrize("program", PROGRAMS)
def test_nothing_but_the_standard_library_is_imported_before_the_flags_are_known(program):
    """--help answers at once since torch, rasterio and friends are imported after the flags are parsed."""
    found = {relative(path): imported_by(module_level(path))
             for path in reached_from(ROOT / f"{program}.py", lambda path: imported_by(module_level(path)))}
    assert len(found) > 3
    for path, modules in found.items():
        assert [m for m in modules if unit_of(m) is None and m.split(".")[0] not in sys.stdlib_module_names] == [], path


def test_maps_need_nothing_that_makes_chips():
    makers = {"chipping", "synthetic", COMMANDS}
    files = {path for path in reached_from(ROOT / "inference.py", all_imports) if unit_of_file(path) not in makers}
    assert len(files) > 20
    assert {f"{relative(path)} imports {m}" for path in files for m in all_imports(path) if unit_of(m) in makers} == set()


def test_what_all_programs_share_names_no_flag_of_a_task():
    tasks = {"--session", "--batch-size", "--patches-dir", "--chips", "--window", "--pan", "--ms", "--architecture"}
    found = {f"{relative(path)}: {flag}" for path in source_files() if unit_of_file(path) == "runtime"
             for node in ast.walk(parsed(path)) if isinstance(node, ast.Constant) and isinstance(node.value, str)
             for flag in tasks & set(re.findall(r"--[a-z-]+", node.value))}
    assert found == set()


def test_no_private_part_of_a_library_is_imported():
    private = re.compile(r"\b(rasterio|shapely|pyproj|pyogrio|numpy|antimeridian)\.(\w+\.)*_[a-z]")
    assert [relative(p) for p in source_files() if any(private.match(m) for m in all_imports(p))] == []


# ------------------------------------------------------------------------------------------------ programs


def run(program, *words, **environment):
    """→ (finished process, CPU seconds that it took)."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, f"{program}.py", *words], cwd=ROOT, capture_output=True, text=True, env=os.environ | environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize(("words", "code"), [("--help", 0), ("--no-such-flag", 2)])
def test_help_and_a_wrong_flag_answer_at_once(program, words, code):
    """0.3 s is promised on an idle machine. Tests share their cores, hence CPU time, the best of three."""
    for _ in range(3):
        done, seconds = run(program, words)
        if seconds < 0.3:
            break
    assert seconds < 0.3 and done.returncode == code
    assert "usage" in done.stdout if code == 0 else len(done.stderr.splitlines()) == 1 and done.stdout == ""


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_wrong_flag_is_told_by_the_first_process_alone(program):
    done, _ = run(program, "--no-such-flag", RANK="1", WORLD_SIZE="2", LOCAL_RANK="1")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")


@pytest.mark.parametrize("program", PROGRAMS)
def test_importing_a_program_runs_nothing(program):
    code = f"import sys; import {program}; assert callable({program}.main); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == "", done.stderr


# ------------------------------------------------------------------------------------------------ flags


def flags_in(tree):
    """Destinations of all add_argument calls."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "add_argument":
            given = {k.arg: k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)}
            names = [a.value for a in node.args if isinstance(a, ast.Constant)]
            if given.get("action") not in ("version", "help"):
                found.add(given.get("dest") or next((n for n in names if n.startswith("--")), names[0]).lstrip("-").replace("-", "_"))
    return found


# What parsed flags are called, and a group of them, taken by their names.
NAMESPACES = {"args", "options", "choice"}


def is_namespace(node):
    """`args`, or `something.args`."""
    return (node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else None) in NAMESPACES


def reads_in(tree):
    """
    Names that are read from the parsed flags: args.name, getattr(args, "name"), vars(args)["name"].

    A name in a tuple or a dict of names is no reading, and neither is a check of its value, in a function called check_….
    """
    found = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("check_"):
            continue
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load) and is_namespace(node.value):
            found.add(node.attr)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr" and is_namespace(node.args[0]):
            found |= {a.value for a in node.args[1:2] if isinstance(a, ast.Constant)}
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant) and isinstance(node.value, ast.Call):
            called = node.value
            if isinstance(called.func, ast.Name) and called.func.id == "vars" and called.args and is_namespace(called.args[0]):
                found.add(node.slice.value)
        found |= reads_in(node)
    return found


@functools.cache
def knows_flags(path):
    """Whether a file adds flags or reads them."""
    return unit_of_file(path) != "runtime" and bool(flags_in(parsed(path)) or reads_in(parsed(path)))


@pytest.mark.parametrize("path", [p for p in source_files() if knows_flags(p)], ids=relative)
def test_every_flag_is_read(path):
    """Where it is added, or in a file that is handed the flags, or, where a file adds them for others, in one of those."""
    near = {p for p in own_files_among(all_imports(path)) if knows_flags(p) and p.stem not in PROGRAMS}
    if not {"run", "main"} & {node.name for node in parsed(path).body if isinstance(node, ast.FunctionDef)}:
        near |= {p for p in source_files() if path in own_files_among(all_imports(p))}
    read = set().union(*(reads_in(parsed(p)) for p in {path, *near}))
    assert flags_in(parsed(path)) - read == set()


def test_a_listing_of_flags_is_no_reading_of_them():
    tree = ast.parse('''
RUN_FLAGS = ("listed", "read")
def build(parser):
    parser.add_argument("--listed")
    parser.add_argument("--only-checked", type=int)
    parser.add_argument("-r", "--read", "--other-name")
    parser.add_argument("--passed-on", action="store_true")
    parser.add_argument("place")
    parser.add_argument("--version", action="version")
def check_flags(args):
    at_least = {"only_checked": 1}
    if args.only_checked < 1:
        raise ValueError
def main(args):
    args.listed = 3
    return work(args.read, passed=getattr(args, "passed_on"), place=vars(args)["place"])
''')
    assert flags_in(tree) == {"listed", "only_checked", "read", "passed_on", "place"}
    assert flags_in(tree) - reads_in(tree) == {"listed", "only_checked"}


def test_below_the_programs_nobody_takes_the_parsed_flags():
    """A function of the library says what it needs. Only what parses flags and adopts those of an earlier run takes all of them."""
    found = []
    for path in source_files():
        if path.stem in PROGRAMS or unit_of_file(path) == COMMANDS or relative(path) in ("runtime/flags.py", "runtime/settings.py"):
            continue
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.FunctionDef | ast.Lambda):
                names = {a.arg for a in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]}
                if names & {"args", "namespace"}:
                    found.append(f"{relative(path)}:{node.lineno}")
    assert found == []


# ------------------------------------------------------------------------------------------------ words


def literal_text(node):
    """Characters of an expression's string literals, those of f-strings included."""
    return sum(len(part.value) for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str))


def test_errors_are_short():
    """Found, expected, one remedy; recipes are for docs/. What is filled in comes on top."""
    found = {}
    for path in source_files():
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
                length = literal_text(node.exc.args[0])
                if length > 200:
                    found[f"{relative(path)}:{node.lineno}"] = length
    assert found == {}


@pytest.mark.parametrize("path", source_files(), ids=relative)
def test_every_module_says_what_it_is_about(path):
    docstring = ast.get_docstring(parsed(path))
    if path.name != "__init__.py" or path.stat().st_size:
        assert docstring and len(docstring.splitlines()[0]) > 20


def test_no_file_is_a_drawer():
    drawers = {"utils", "util", "misc", "common", "helpers", "helper", "stuff", "tools", "shared"}
    assert [relative(p) for p in source_files() if {p.stem, *p.relative_to(ROOT).parts} & drawers] == []


def test_nothing_loads_a_checkpoint_with_unrestricted_pickle():
    assert [p.name for p in source_files() if re.search(r"weights_only\s*=\s*False", p.read_text(encoding="utf-8"))] == []


def writes_to_the_terminal(node):
    """Whether a call prints, or takes a standard stream to write into."""
    called = node.func
    if isinstance(called, ast.Name):
        return called.id == "print"
    return isinstance(called, ast.Attribute) and called.attr in ("write", "writelines") and "sys.std" in ast.unparse(called)


def test_text_reaches_the_terminal_in_one_place_where_it_is_made_harmless():
    printing = {relative(path) for path in source_files() for node in ast.walk(parsed(path))
                if isinstance(node, ast.Call) and writes_to_the_terminal(node)}
    # the line of an error is escaped in explain(), which has no console
    assert printing == {"runtime/logs.py", "runtime/errors.py"}


def test_nothing_is_marked_for_a_formatter():
    assert [relative(p) for p in source_files() if re.search(r"# (fmt|yapf|isort):", p.read_text(encoding="utf-8"))] == []
