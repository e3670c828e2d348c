"""What the fields of JSON files may hold: types that a file from a stranger, or from a power cut, is checked against before it is used."""

import math
from dataclasses import dataclass

from runtime.errors import UserError
from runtime.files import read_json, shorten


@dataclass(frozen=True)
class Field:
    """expected: in words. fits(value): whether it is that."""

    expected: str
    fits: callable


def is_text(value):
    return isinstance(value, str)


def is_number(value):
    return type(value) is int and abs(value) < 2**63 or type(value) is float and math.isfinite(value)


def list_of(fits, *lengths):
    return lambda value: isinstance(value, list) and (not lengths or len(value) in lengths) and all(map(fits, value))


def dict_of(fits):
    return lambda value: isinstance(value, dict) and all(map(fits, value.values()))


def or_none(field):
    return Field(f"{field.expected} or null", lambda value: value is None or field.fits(value))


TEXT, NUMBER = Field("text", is_text), Field("a number", is_number)
WHOLE = Field("a whole number from 0 on", lambda value: type(value) is int and 0 <= value < 2**63)
SIZE = Field("a whole number above 0", lambda value: type(value) is int and 0 < value < 2**31)
TRUTH = Field("true or false", lambda value: isinstance(value, bool))
OBJECT = Field("an object", lambda value: isinstance(value, dict))
NUMBERS = Field("a list of numbers", list_of(is_number))
TEXTS = Field("a list of texts", list_of(is_text))
NAMES = Field("a list of names", lambda value: list_of(is_text)(value) and len(value) > 0)


def find_problem(value, fields, needs=()):
    """What is wrong with an object of a JSON file, in words that follow its place, or None. needs: fields that have to be there."""
    for name in needs:
        if name not in value:
            return f"lacks '{name}'"
    for name, field in fields.items():
        if name in value and not field.fits(value[name]):
            return f"has {name} {shorten(value[name])}, expected {field.expected}"
    return None


def read_checked(path, fields, remedy):
    """The object of a JSON file that has all of `fields`. UserError where it has not, which ends with the remedy."""
    value = read_json(path)
    if problem := find_problem(value, fields, fields):
        raise UserError(f"{path} {problem}; {remedy}")
    return value
