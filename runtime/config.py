"""
Reads the file of `--config`: YAML or JSON with the names of flags as keys, at the top or in sections.

    make-patches: {patch-size: 128}      a section for each program or command of chip.py; each takes its own and ignores the others
    train:
      model: {architecture: unet}        data, model and trainer are headings only, at the top or in a section
      epochs: 10                         keys at the top level hold for every program that reads the file

Values are what one types after the flag. Paths are relative to the current folder, as on the command line.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

from constants import PROGRAMS
from runtime.errors import UserError, did_you_mean
from runtime.names import require_text

HEADINGS = ("data", "model", "trainer")
PROJECT = Path(__file__).resolve().parent.parent
RECIPES = PROJECT / "recipes"
NOT_IN_A_FILE = ("config", "help", "help_all", "version")
NOTHING, LIST, SECTION = "no value", "a list", "a section"


@dataclass(frozen=True)
class Node:
    """
    A value of the file. value: text, a list of Nodes, [(key, Node), …] of a section, or None. plain: written without quotes, so that true
    and false mean yes and no. line: its number from 1, or None in JSON.
    """

    value: str | list | None
    kind: str
    plain: bool = False
    line: int | None = None

    @property
    def switch(self):
        """True or False where the value means that, else None."""
        return {"true": True, "false": False}.get(self.value.lower()) if self.kind == "text" and self.plain else None

    @property
    def shown(self):
        return repr(self.value) if self.kind == "text" else self.kind


def find_config(name):
    """The path of `--config NAME`: a file, or the name of a file in the project's recipes/ or (with its folder) examples/."""
    path = Path(name)
    if path.exists() and not path.is_dir():
        return path
    if len(path.parts) == 1 and (recipe := RECIPES / f"{path.name.removesuffix('.yaml')}.yaml").is_file():
        return recipe
    if path.parts[:1] in (("recipes",), ("examples",)) and (PROJECT / path).is_file():
        return PROJECT / path
    if path.is_dir():
        raise UserError(f"--config {name} is a folder; pass a YAML or JSON file, or the name of a recipe")
    known = sorted(file.stem for file in RECIPES.glob("*.yaml"))
    near = did_you_mean(path.stem, known)
    raise UserError(f"--config {name} cannot be read: no such file, and the recipes are {', '.join(known)}.{near}")


def read_tree(path):
    """The file as a Node of kind SECTION."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"--config {path} cannot be read ({error.strerror}); pass an existing YAML or JSON file") from error
    except ValueError as error:  # UnicodeDecodeError
        raise UserError(f"--config {path} is not text in UTF-8 ({error}); save it as UTF-8") from error
    form, read = ("JSON", read_json) if Path(path).suffix.lower() == ".json" else ("YAML", read_yaml)
    try:
        tree = read(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"--config {path} is not valid {form}: {error}") from error
    if tree.kind != SECTION:
        raise UserError(f"--config {path} must hold keys and values like 'epochs: 20', found {tree.shown}")
    return tree


def read_json(text):
    """ValueError where it is none."""

    def node(value):
        if isinstance(value, Pairs):
            return Node([(key, node(inner)) for key, inner in value], SECTION)
        if isinstance(value, list):
            return Node([node(inner) for inner in value], LIST)
        if isinstance(value, bool):
            return Node(str(value).lower(), "text", plain=True)
        return Node(value, NOTHING if value is None else "text")

    return node(json.loads(text, object_pairs_hook=Pairs, parse_int=str, parse_float=str, parse_constant=str))


class Pairs(list):
    """[(key, value), …] of a JSON object, duplicates included."""


def read_yaml(text):
    """ValueError where it is none. Values keep the text that they are written as: 1e-4, 0.20, NO."""
    import yaml

    def node(found, line=None, depth=0):
        place = line or found.start_mark.line + 1
        if isinstance(found, yaml.MappingNode):
            if depth > 5:  # an alias may contain itself
                raise ValueError(f"line {place} is nested too deep")
            if not all(isinstance(key, yaml.ScalarNode) for key, _ in found.value):
                raise ValueError(f"line {place} has a key that is no text")
            pairs = [(key.value, node(value, key.start_mark.line + 1, depth + 1)) for key, value in found.value]
            return Node(pairs, SECTION, line=place)
        if isinstance(found, yaml.SequenceNode):
            inner = [Node(i.value, "text") if isinstance(i, yaml.ScalarNode) else Node(None, LIST) for i in found.value]
            return Node(inner, LIST, line=place)
        if found.tag == "tag:yaml.org,2002:null":
            return Node(None, NOTHING, line=place)
        return Node(found.value, "text", plain=found.style is None, line=place)

    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        return Node(None, NOTHING) if root is None else node(root)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error


def sections(tree):
    """Names of the programs that a file has sections for."""
    return {name for key, node in tree.value if (name := key.replace("_", "-")) in PROGRAMS and node.kind == SECTION}


def sets_flag(tree, section, flags):
    """Whether a file sets one of some flags for a program: at the top or in its section, under headings or not."""
    names = {flag.lstrip("-") for flag in flags}

    def within(pairs, inner):
        return any(name in names or name in inner and node.kind == SECTION and within(node.value, HEADINGS)
                   for name, node in ((key.lstrip("-").replace("_", "-"), node) for key, node in pairs))

    return within(tree.value, (*HEADINGS, section))


class ConfigFile:
    """The settings that one program or command takes from a file. parser: its argparse parser; section: its name in PROGRAMS."""

    def __init__(self, path, parser, section):
        self.path, self.parser, self.section = path, parser, section
        self.actions = {name: a for a in parser._actions if a.option_strings and a.dest not in NOT_IN_A_FILE
                        for name in (a.dest, *(s.lstrip("-").replace("-", "_") for s in a.option_strings if s.startswith("--")))}

    def error(self, line, text):
        return UserError(f"--config {self.path}{f', line {line}' if line else ''}: {text}")

    def settings(self):
        """{dest: value}, checked and converted as on the command line. UserError where a key or value is wrong."""
        found = {}
        for where, key, node in self.leaves(read_tree(self.path).value):
            name = key.lstrip("-").replace("-", "_")
            if name not in self.actions:
                names = [f.replace("_", "-") for f in self.actions] + ([] if where else [*PROGRAMS, *HEADINGS])
                raise self.error(node.line, f"unknown key {key!r}{where}.{did_you_mean(key.replace('_', '-'), names)}")
            action = self.actions[name]
            if action.dest in found:
                raise self.error(node.line, f"{key!r} is set twice; leave one of them out")
            found[action.dest] = self.value_of(key, action, node)
        return found

    def leaves(self, pairs, where="", headings=HEADINGS):
        """(` in section`, key, Node) of the keys that are for this program."""
        seen = set()
        for key, node in pairs:
            name = key.replace("_", "-")
            is_program, is_heading = not where and name in PROGRAMS, name in headings
            if (is_program or is_heading) and name in seen:
                raise self.error(node.line, f"section {key!r} is there twice; join them")
            seen.add(name)
            if is_program or is_heading:
                if node.kind != SECTION:
                    raise self.error(node.line, f"section {key!r} must hold keys and values, found {node.shown}")
                if is_heading:
                    yield from self.leaves(node.value, f" in {key!r}", ())
                elif name == self.section:
                    yield from self.leaves(node.value, f" in {key!r}")
            elif node.kind == SECTION and name.replace("-", "_") not in self.actions:
                near = did_you_mean(name, headings if where else [*PROGRAMS, *headings])
                raise self.error(node.line, f"unknown section {key!r}{where}.{near}")
            else:
                yield where, key, node

    def keyed_words(self, key, name, node):
        """`name=value` for each value of a section: `a.b=1` of nested ones, `a=1,2` of lists."""
        if node.kind == SECTION:
            return [word for inner, value in node.value for word in self.keyed_words(key, f"{name}.{inner}", value)]
        if node.kind == LIST and all(isinstance(inner.value, str) for inner in node.value):
            return [f"{name}={','.join(inner.value for inner in node.value)},"]
        if node.kind != "text":
            raise self.error(node.line, f"{key!r} needs a value for {name!r}, found {node.shown}")
        return [f"{name}={node.value}"]

    def value_of(self, key, action, node):
        """What the flag's destination becomes."""
        if action.nargs == 0 or (action.nargs == "?" and node.switch is not None):
            if node.switch is None:
                raise self.error(node.line, f"{key!r} is a switch: expected true or false, found {node.shown}")
            return (action.const if node.switch else action.default) if action.nargs == "?" else node.switch
        several = action.nargs in ("+", "*") or isinstance(action.nargs, int)
        if node.kind == SECTION and getattr(action.type, "keyed", False):
            words = [word for name, inner in node.value for word in self.keyed_words(key, name, inner)]
        elif node.kind == LIST and (several or getattr(action.type, "separated", False)):
            words = [inner.value for inner in node.value]
            if not all(isinstance(word, str) for word in words) or (not words and action.nargs != "*"):
                raise self.error(node.line, f"{key!r} needs a list of values, found {'a list in it' if words else 'an empty one'}")
            words = words if several else [",".join(words)]
        elif node.kind == "text" and node.switch is None:
            words = [node.value]
        else:
            found = node.value if node.kind == "text" else node.kind
            raise self.error(node.line, f"{key!r} needs {'values' if several else 'one value'}, found {found}")
        for word in words:
            require_text(word, f"--config {self.path}: {key}")
        if isinstance(action.nargs, int) and len(words) != action.nargs:
            raise self.error(node.line, f"{key!r} needs {action.nargs} values, found {len(words)}")
        try:
            return self.parser._get_values(action, words)
        except argparse.ArgumentError as error:
            text = self.parser.explain_choice(str(error)) if "invalid choice: " in str(error) else str(error)
            raise self.error(node.line, f"{key}: {text.split(': ', 1)[-1]}") from error
