"""Command lines: the parser that every program uses, and the flags that all of them share."""

import argparse
import sys

from constants import VERSION
from runtime.config import ConfigFile, find_config
from runtime.errors import UserError, did_you_mean
from runtime.names import require_text


class Parser(argparse.ArgumentParser):
    """
    argparse with these habits: a program's module docstring is its help, --help shows the flags that one needs first and --help-all all of
    them, each with its default, a wrong name suggests the near one, and --config FILE sets what the command line does not.

    description: the docstring, printed as it stands. first: long flags of --help in their order; without any it shows all.
    """

    def __init__(self, *args, first=(), **kwargs):
        kwargs.setdefault("formatter_class", HelpFormatter)
        kwargs.setdefault("allow_abbrev", False)  # an abbreviation that works today is a wrong flag after the next release
        super().__init__(*args, **kwargs)
        self.first, self.section, self.configured = first, None, None
        self.add_argument("--help-all", action=HelpAll, nargs=0, default=argparse.SUPPRESS, help="show every flag and exit")

    def parse_known_args(self, args=None, namespace=None):
        self.words = sys.argv[1:] if args is None else list(args)
        for word in self.words:
            require_text(word, "the argument")
        if self.configured is None:
            self.configured = self.take_config(self.words)
        return super().parse_known_args(self.words, namespace)

    def take_config(self, argv):
        """Make the values of `--config FILE` the defaults. → the names that they set."""
        finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
        finder.add_argument("--config")
        try:
            name = finder.parse_known_args(argv)[0].config
        except argparse.ArgumentError:  # without a value; the parser itself says so
            name = None
        if self.section is None or name is None or {"-h", "--help", "--help-all"} & set(argv):
            return set()
        settings = ConfigFile(find_config(name), self, self.section).settings()
        self.set_defaults(**settings)
        for action in self._actions:
            action.required = action.required and action.dest not in settings
        return set(settings)

    def format_help(self):
        """Of --help: the flags of `first`, or everything."""
        if not self.first:
            return super().format_help()
        shown = [next(a for a in self._actions if flag in a.option_strings) for flag in self.first]
        others = [a for a in self._actions if not a.option_strings]
        formatter = self._get_formatter()
        formatter.add_usage(self.usage, [*shown, *others], [])
        formatter.add_text(self.description)
        for title, actions in (("what it works on", others), ("the flags that one needs first", shown)):
            formatter.start_section(title)
            formatter.add_arguments(actions)
            formatter.end_section()
        formatter.add_text(f"all {len(self._actions) - len(others)} flags: {self.prog} --help-all")
        return formatter.format_help()

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


class HelpAll(argparse.Action):
    """Prints every flag and ends the program."""

    def __call__(self, parser, namespace, values, option_string=None):
        parser.first = ()
        parser.print_help()
        parser.exit()


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """The description as written, each flag with its default."""

    def _get_help_string(self, action):
        text, default = action.help or "", action.default
        if not action.option_strings or "default" in text or action.dest in ("help", "help_all", "version"):
            return text
        if action.nargs == 0:
            shown = "on" if default else "off"
        elif default in (None, "", (), []) or default is argparse.SUPPRESS:
            shown = "none"
        else:
            shown = ",".join(f"{value:g}" for value in default) if isinstance(default, tuple) else str(default).replace("%", "%%")
        return f"{text} (default: {shown})".lstrip()


def add_common_flags(parser):
    """--quiet, --debug, --version: the same in every program."""
    group = parser.add_argument_group("talking")
    group.add_argument("--quiet", action="store_true", help="no progress bars and no remarks; results and errors only")
    group.add_argument("--debug", action="store_true", help="let the traceback of an error through")
    group.add_argument("--version", action="version", version=f"chipmill {VERSION}")


def add_config_flag(parser, section):
    """--config FILE: settings from a file of runtime.config; flags on the command line win. section: the program's name in PROGRAMS."""
    parser.section = section
    parser.add_argument("--config", metavar="FILE", help="YAML or JSON file of settings (keys are flags; flags win), or a recipe's name")


def parse_with_config(parser, argv):
    """
    Parse argv over the values of `--config FILE`, if there is one.

    Returns (args, given): the namespace, and the set of its names that the user set, by flag or in the file. Everything else
    is a default, which a resumed run may take from its checkpoint instead.
    """
    args = parser.parse_args(argv)
    nothing = argparse.Namespace(**{a.dest: argparse.SUPPRESS for a in parser._actions})
    parsed, _ = parser.parse_known_args(argv, namespace=nothing)
    return args, parser.configured | {name for name, value in vars(parsed).items() if value is not argparse.SUPPRESS}
