"""Command lines: the parser that every program uses, the flags that all of them share, `--config FILE`."""

import argparse
import json
from pathlib import Path

from constants import VERSION
from runtime.errors import UserError, did_you_mean
from runtime.names import require_text


class Parser(argparse.ArgumentParser):
    """
    argparse with three habits: a program's module docstring is its help, defaults are shown, and a wrong name suggests the near one.

    `description`: the docstring, printed as it stands.
    """

    def __init__(self, *args, **kwargs):
        kwargs.setdefault("formatter_class", HelpFormatter)
        kwargs.setdefault("allow_abbrev", False)  # an abbreviation that works today is a wrong flag after the next release
        super().__init__(*args, **kwargs)

    def parse_known_args(self, args=None, namespace=None):
        self.words = list(args or ())
        for word in self.words:
            require_text(word, "the argument")
        return super().parse_known_args(args, namespace)

    def error(self, message):
        """UserError, one line: the same for a wrong flag as for a wrong value that is found later."""
        words = message.split("unrecognized arguments: ")
        if len(words) == 2:
            wrong = [w for w in words[1].split() if w.startswith("-")] or words[1].split()
            message = self.explain_unknown(wrong[0])
        elif "invalid choice: " in message:
            message = self.explain_choice(message)
        raise UserError(f"{message} (see {self.prog} --help)")

    def explain_unknown(self, word):
        """`unknown argument --epoch. Did you mean '--epochs'?`, or which other commands have the flag."""
        flag, commands = word.split("=")[0], self.commands()
        chosen = next((name for name in self.words if name in commands), None)
        owners = [name for name, parser in commands.items() if flag in long_flags(parser)]
        if chosen and owners:
            return f"{chosen} has no {flag}, which is a flag of {', '.join(owners)}"
        known = [*long_flags(self), *(long_flags(commands[chosen]) if chosen else commands)]
        return f"unknown argument {word}.{did_you_mean(flag, known)}"

    def commands(self):
        """{name: parser} of the subcommands."""
        return {name: parser for action in self._actions if isinstance(action, argparse._SubParsersAction)
                for name, parser in action.choices.items()}

    def explain_choice(self, message):
        """`argument --precision: expected one of fp32, bf16, fp16, got 'fp64'. Did you mean 'fp16'?`"""
        head, rest = message.split(": invalid choice: ", 1)
        got = rest.split(" (choose from", 1)[0].strip("'\"")
        for action in self._actions:
            names = [*action.option_strings, action.dest, str(action.metavar)]
            if action.choices and any(name in head for name in names if name):
                choices = [str(c) for c in action.choices]
                return f"{head}: expected one of {', '.join(choices)}, got {got!r}.{did_you_mean(got, choices)}"
        return message


def long_flags(parser):
    return [s for a in parser._actions for s in a.option_strings if s.startswith("--")]


class HelpFormatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """The description as written, each flag with its default where it has a telling one."""

    def _get_help_string(self, action):
        if action.default in (None, False, argparse.SUPPRESS) or "%(default)" in (action.help or ""):
            return action.help
        return super()._get_help_string(action)


def add_common_flags(parser):
    """--quiet, --debug, --version: the same in every program."""
    group = parser.add_argument_group("talking")
    group.add_argument("--quiet", action="store_true", help="no progress bars and no remarks; results and errors only")
    group.add_argument("--debug", action="store_true", help="let the traceback of an error through")
    group.add_argument("--version", action="version", version=f"chipmill {VERSION}")


def add_config_flag(parser):
    """--config FILE: the same keys as the long flags, as YAML or JSON; flags on the command line win."""
    parser.add_argument("--config", metavar="FILE", help="YAML or JSON file with the same keys as the flags; flags win")


def parse_with_config(parser, argv):
    """
    Parse argv over the values of `--config FILE`, if there is one.

    Returns (args, given): the namespace, and the set of its names that the user set, by flag or in the file. Everything else
    is a default, which a resumed run may take from its checkpoint instead.
    """
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--config")
    path = finder.parse_known_args(argv)[0].config
    values = read_config(path, parser) if path and "--help" not in argv and "-h" not in argv else {}
    # Through argparse, so that types and choices are checked as for a flag; the command line comes last and wins.
    words = [word for name, value in values.items() for word in as_words(parser, name, value)]
    args = parser.parse_args([*words, *argv])
    return args, names_set_by(parser, [*words, *argv])


def names_set_by(parser, argv):
    """The destinations that the words of a command line set, whatever the values."""
    nothing = argparse.Namespace(**{a.dest: argparse.SUPPRESS for a in parser._actions})
    parsed, _ = parser.parse_known_args(argv, namespace=nothing)
    return {name for name, value in vars(parsed).items() if value is not argparse.SUPPRESS}


def read_config(path, parser):
    """The settings of a YAML or JSON file as {dest: value}. Unknown keys are errors that name the nearest flag."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"--config {path} cannot be read ({error.strerror}); pass an existing YAML or JSON file") from error
    except ValueError as error:  # UnicodeDecodeError
        raise UserError(f"--config {path} is not text in UTF-8 ({error}); save it as UTF-8") from error
    if Path(path).suffix.lower() == ".json":
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(f"--config {path} is not valid JSON: {error}") from error
    else:
        import yaml

        try:
            values = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UserError(f"--config {path} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise UserError(f"--config {path} must hold keys and values like 'epochs: 20', found {type(values).__name__}")
    known = {a.dest for a in parser._actions if a.option_strings}
    settings = {str(key).lstrip("-").replace("-", "_"): value for key, value in values.items()}
    for name in settings:
        if name not in known:
            raise UserError(f"--config {path}: unknown key {name!r}.{did_you_mean(name, known)}")
    return settings


def as_words(parser, name, value):
    """A key and value of a config file as the command line would have them."""
    action = next(a for a in parser._actions if a.dest == name and a.option_strings)
    flag = next((s for s in action.option_strings if s.startswith("--")), action.option_strings[0])
    if value is None:
        return []
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise UserError(f"key {name!r} in --config is a switch: expected true or false, got {value!r}")
        return [flag] if value else []
    if isinstance(value, (list, tuple)):
        if action.nargs in ("+", "*") or isinstance(action.nargs, int):
            return [flag, *map(str, value)]
        value = ",".join(map(str, value))
    return [f"{flag}={value}"]
