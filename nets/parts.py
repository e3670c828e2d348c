"""Makes a part of a model from a table: its name and arguments are checked, and whether it fits what is in front of it."""

import inspect

from nets.layout import Misfit
from runtime.errors import UserError, did_you_mean, one_line

MISTAKES = (TypeError, ValueError, KeyError, IndexError, AttributeError, RuntimeError, AssertionError, ArithmeticError)


def make_part(kind, table, name, arguments, *given):
    """
    table[name](*given, **arguments). kind: "decoder", "neck" … for errors.

    UserError for a name that the table lacks (with the near one), for arguments that the part does not read, and where it does not fit.
    """
    part = look_up(kind, table, name)
    refuse_unread(f"{kind} {name}", part, arguments, len(given))
    try:
        return part(*given, **arguments)
    except Misfit as error:
        raise UserError(f"{kind} {name} {error}") from error
    except MISTAKES as error:
        raise UserError(f"{kind} {name} cannot be built{described(arguments)}: {one_line(error)[:120]}") from error


def look_up(kind, table, name):
    if name not in table:
        raise UserError(f"unknown {kind} {name!r}; expected one of {', '.join(table)}.{did_you_mean(name, table)}")
    return table[name]


def arguments_of(part, given):
    """Names that a part takes by keyword after its first `given` arguments; None where it takes any."""
    parameters = list(inspect.signature(part).parameters.values())
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return [p.name for p in parameters[given:] if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]


def refuse_unread(what, part, arguments, given):
    """UserError for an argument that the part does not read. what: `decoder unet`."""
    known = arguments_of(part, given)
    for name in arguments if known is not None else ():
        if name not in known:
            takes = f"it takes {', '.join(known)}" if known else "it takes none"
            raise UserError(f"{what} does not read the argument {name!r}; {takes}.{did_you_mean(name, known)}")


def described(arguments):
    """` with channels=0`, or nothing."""
    return f" with {', '.join(f'{key}={value}' for key, value in arguments.items())}" if arguments else ""
