"""--config: one form of file for all programs, read by one reader; recipes/ and examples/ are such files."""

import argparse
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import pytest
import yaml

import chip
from constants import PROGRAMS
from runtime.config import HEADINGS
from runtime.errors import UserError
from runtime.flags import parse_with_config

ROOT = Path(__file__).resolve().parent.parent
MODULES = {"train": "train", "train-pansharpen": "train_pansharpen", "train-detection": "train_detection",
           "train-small-detection": "train_small_detection", "inference": "inference", "export": "export", "demo": "demo"}
FILES = sorted([*(ROOT / "recipes").glob("*.yaml"), *(ROOT / "examples").glob("*.yaml")])
POSITIONAL = {"inspect": ["patches"], "link-chips": ["a", "b"], "export": ["last.pt"]}


def parse(program, *words):
    """The parsed flags of a program, or of a command of chip.py."""
    if program in chip.COMMANDS:
        return chip.build_parser().parse_args([program, *POSITIONAL.get(program, ()), *words])
    return parse_with_config(importlib.import_module(MODULES[program]).build_parser(), [*POSITIONAL.get(program, ()), *words])[0]


def parser_of(program):
    if program not in chip.COMMANDS:
        return importlib.import_module(MODULES[program]).build_parser()
    commands = next(a for a in chip.build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    return commands.choices[program]


@pytest.fixture
def config(tmp_path):
    """config(text or dict) → the words that pass it."""

    def write(content):
        path = tmp_path / ("c.yaml" if isinstance(content, str) else "c.json")
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return ["--config", str(path)]

    return write


def test_the_sections_are_the_programs_and_commands():
    assert {*MODULES, *chip.COMMANDS} == set(PROGRAMS)
    programs = {p.stem for p in ROOT.glob("*.py") if '__name__ == "__main__"' in p.read_text()} - {"chip"}
    assert {MODULES[name] for name in MODULES} == programs


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_program_takes_its_own_section_and_passes_the_others_over(program, config):
    text = "\n".join(f"{name}:\n  quiet: {str(name == program).lower()}" for name in PROGRAMS)
    assert parse(program, *config(text)).quiet is True
    others = "\n".join(f"{name}: {{no-such-flag: 1}}" for name in PROGRAMS if name != program)
    assert parse(program, *config(others)).quiet is False


@pytest.mark.parametrize("heading", HEADINGS)
def test_data_model_and_trainer_are_headings_only(heading, config):
    for text in (f"{heading}:\n  epochs: 7\nlr: 1e-3", f"train:\n  {heading}:\n    epochs: 7\n  lr: 1e-3"):
        args = parse("train", *config(text))
        assert (args.epochs, args.lr) == (7, 1e-3)


def test_flags_win_and_both_count_as_given(config):
    words = config("train: {epochs: 7, wandb: false, indices: [ndvi, nbr], run-name: NO}")
    args, given = parse_with_config(parser_of("train"), [*words, "--epochs", "9"])
    assert (args.epochs, args.wandb, args.indices, args.run_name) == (9, False, ["ndvi", "nbr"], "NO")
    assert given == {"config", "epochs", "wandb", "indices", "run_name"}


def test_values_are_those_of_the_command_line(config):
    text = """
make-patches:
  images: [a.tif, b.tif]
  divide-by: [255, 255, 1e4]
  offset: [-1000, 0, 0]
  val: 0.20
  label-map: -1=ignore,2=1
  exclude: 20241019
  ignore-clouds: true
"""
    typed = parse("make-patches", "--images", "a.tif", "b.tif", "--divide-by", "255,255,1e4", "--offset=-1000,0,0", "--val", "0.20",
                  "--label-map=-1=ignore,2=1", "--exclude", "20241019", "--ignore-clouds")
    read = parse("make-patches", *config(text))
    assert {**vars(read), "config": None} == vars(typed)
    assert parse("make-chips", *config({"shift": [0.5, -0.5], "area": "0,0,8,8"})).shift == (0.5, -0.5)


@hypothesis.given(st.sampled_from(PROGRAMS), st.data())
def test_any_number_or_choice_is_what_the_flag_makes_of_it(tmp_path_factory, program, data):
    parser = parser_of(program)
    numbers = ("seed", "lr", "epochs", "patch_size", "count", "overlap", "stride")
    flags = [a for a in parser._actions if a.option_strings and a.nargs is None and (a.choices or a.dest in numbers)]
    hypothesis.assume(flags)
    action = data.draw(st.sampled_from(flags))
    value = data.draw(st.sampled_from(sorted(action.choices)) if action.choices else st.sampled_from(["1", "0.5", "1e-3", "-4", "x", "07"]))
    folder = tmp_path_factory.mktemp("c")
    (folder / "c.yaml").write_text(yaml.safe_dump({program: {action.dest: value}}))
    flag = next(s for s in action.option_strings if s.startswith("--"))

    def outcome(*words):
        try:
            return getattr(parse(program, *words), action.dest)
        except UserError as error:
            return "an error" if str(error) else None

    assert outcome("--config", str(folder / "c.yaml")) == outcome(f"{flag}={value}")


@pytest.mark.parametrize(("text", "words"), [
    ("epoch: 3", "line 1: unknown key 'epoch'. Did you mean 'epochs'?"),
    ("seed: 1\ntrian:\n  lr: 1", "line 2: unknown section 'trian'. Did you mean 'train'?"),
    ("modle: {lr: 1}", "unknown section 'modle'. Did you mean 'model'?"),
    ("train:\n  optimiser:\n    lr: 1", "line 2: unknown section 'optimiser' in 'train'."),
    ("train: {modle: {lr: 1}}", "unknown section 'modle' in 'train'. Did you mean 'model'?"),
    ("train: {model: {data: {lr: 1}}}", "unknown section 'data' in 'model'."),
    ("train: {train: {lr: 1}}", "unknown section 'train' in 'train'."),
    ("train: {epoch: 3}", "unknown key 'epoch' in 'train'. Did you mean 'epochs'?"),
    ("lr: 1\nlr: 2", "line 2: 'lr' is set twice; leave one of them out"),
    ("batch-size: 1\nbatch_size: 2", "line 2: 'batch_size' is set twice"),
    ("lr: 1\ntrain: {trainer: {lr: 2}}", "line 2: 'lr' is set twice"),
    ("train: {lr: 1}\ntrain: {epochs: 2}", "line 2: section 'train' is there twice; join them"),
    ("inference: {}\ninference: {}", "section 'inference' is there twice"),
    ("lr:", "line 1: 'lr' needs one value, found no value"),
    ("lr: null", "'lr' needs one value, found no value"),
    ("lr: [1, 2]", "'lr' needs one value, found a list"),
    ("lr: {a: 1}", "'lr' needs one value, found a section"),
    ("lr: true", "'lr' needs one value, found true"),
    ("lr: fast", "line 1: lr: expected a number above 0, at most 10, got 'fast'"),
    ("patches-dir: [a, b]", "'patches-dir' needs one value, found a list"),
    ("indices: [[a]]", "'indices' needs a list of values, found a list in it"),
    ("indices:", "'indices' needs values, found no value"),
    ("wandb: maybe", "'wandb' is a switch: expected true or false, found 'maybe'"),
    ("wandb: 'true'", "'wandb' is a switch"),
    ("precision: fp8", "precision: expected one of fp32, bf16, fp16, got 'fp8'"),
    ("precision: fp3", "Did you mean 'fp32'?"),
    ("train:", "section 'train' must hold keys and values, found no value"),
    ("inference: 3", "section 'inference' must hold keys and values, found '3'"),
    ("data: [lr]", "section 'data' must hold keys and values, found a list"),
    ("config: other.yaml", "unknown key 'config'"),
    ("", "must hold keys and values like 'epochs: 20', found no value"),
    ("- lr", "must hold keys and values like 'epochs: 20', found a list"),
    ("train: &a {model: *a}", "is not valid YAML: line 1 is nested too deep"),
    ("? [a]\n: b", "is not valid YAML: line 1 has a key that is no text"),
    ("lr: 1\n---\nlr: 2", "is not valid YAML"),
    ("lr: !!python/name:os.system x", "lr: expected a number above 0"),
    ({"lr": None}, "'lr' needs one value, found no value"),
    ({"lr": True}, "'lr' needs one value, found true"),
    ({"wandb": 1}, "'wandb' is a switch"),
    ({"train": {"lr": {"a": 1}}}, "'lr' needs one value, found a section"),
])
def test_what_is_wrong_is_one_line_with_its_place(text, words, config):
    with pytest.raises(UserError) as caught:
        parse("train", *config(text))
    assert words in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_a_key_that_json_has_twice_is_an_error(tmp_path):
    (tmp_path / "c.json").write_text('{"lr": 1, "lr": 2}')
    with pytest.raises(UserError, match="'lr' is set twice"):
        parse("train", "--config", str(tmp_path / "c.json"))


# ------------------------------------------------------------------------------------------------ recipes/ and examples/


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_every_recipe_and_example_is_understood_and_says_when_to_take_it(path):
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# Take this ") and max(map(len, text.splitlines())) <= 140
    content = yaml.safe_load(text)
    sections = [name for name in content if name in PROGRAMS]
    for program in sections or [re.search(r"python (\w+)\.py", text)[1].replace("_", "-")]:
        args = vars(parse(program, "--config", str(path)))
        defaults = vars(parse(program))
        assert {name for name, value in args.items() if value != defaults[name]} - {"config"}


def test_a_recipe_is_found_by_its_name_from_any_folder(tmp_path, monkeypatch):
    wanted = parse("train", "--config", str(ROOT / "recipes" / "few-scenes.yaml"))
    monkeypatch.chdir(tmp_path)
    for name in ("few-scenes", "few-scenes.yaml", "recipes/few-scenes.yaml"):
        found = parse("train", "--config", name)
        assert {**vars(found), "config": None} == {**vars(wanted), "config": None} and found.lr == 2e-3
    (tmp_path / "few-scenes").write_text("lr: 0.5")  # a file of the user's own comes first
    assert parse("train", "--config", "few-scenes").lr == 0.5
    with pytest.raises(UserError, match=r"--config few-scene cannot be read: no such file, .* Did you mean 'few-scenes'\?"):
        parse("train", "--config", "few-scene")


def test_every_recipe_is_named_in_the_documentation():
    pages = "\n".join(p.read_text(encoding="utf-8") for p in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
    assert [p.stem for p in (ROOT / "recipes").glob("*.yaml") if f"--config {p.stem}" not in pages and f"`{p.stem}`" not in pages] == []


# ------------------------------------------------------------------------------------------------ --help


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_shows_what_one_needs_first_and_help_all_the_rest_each_with_its_default(program, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "500")  # no flag and no text is broken
    parser = parser_of(program)
    shown = {}
    for word in ("--help", "--help-all"):
        with pytest.raises(SystemExit) as left:
            parser_of(program).parse_args([word])
        assert left.value.code == 0
        shown[word] = capsys.readouterr().out
    flags = [a for a in parser._actions if a.option_strings and a.dest not in ("help", "help_all", "version")]

    few = shown["--help"].split("the flags that one needs first:")[1]
    assert "--help-all" in few and "--config" in few
    first = [a for a in flags if any(re.search(rf"^  (?:.*, )?{s}\b", few, re.MULTILINE) for s in a.option_strings)]
    assert min(3, len(flags)) <= len(first) <= 13
    formatter = parser._get_formatter()
    for action in flags:
        text = formatter._expand_help(action)
        assert "default" in text, action.option_strings
        assert " ".join(text.split()) in " ".join(shown["--help-all"].split()), action.option_strings
        if action.nargs != 0 and isinstance(action.default, int | float | str) and action.default is not argparse.SUPPRESS:
            assert str(action.default) in text, action.option_strings


def test_help_is_there_without_reading_the_config_file():
    done = subprocess.run([sys.executable, ROOT / "train.py", "--config", "nowhere.yaml", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "usage: train.py" in done.stdout
