"""Types of flag values: numbers within a range, names separated by commas. An argparse `type=` each, with one form of error for all."""

import argparse
import datetime
import math


def whole(low=0, high=2**63 - 1):
    """A type for whole numbers from `low` to `high`."""

    def parse(text):
        try:
            value = int(text)
        except ValueError:
            raise refused(text, f"a whole number {span(low, high)}") from None
        if not low <= value <= high:
            raise refused(text, f"a whole number {span(low, high)}")
        return value

    return parse


def number(low=-math.inf, high=math.inf, above=None):
    """A type for finite numbers from `low` to `high`, or greater than `above`."""
    most = "" if high == math.inf else f", at most {high:g}"
    expected = f"a number {span(low, high)}" if above is None else f"a number above {above:g}{most}"

    def parse(text):
        try:
            value = float(text)
        except ValueError:
            raise refused(text, expected) from None
        if not math.isfinite(value) or not low <= value <= high or (above is not None and not value > above):
            raise refused(text, expected)
        return value

    return parse


def auto_or(kind):
    """`auto` as it is, anything else as `kind` takes it."""

    def convert(text):
        return text if text == "auto" else kind(text)

    return convert


def numbers(count, example):
    """A type for `count` finite numbers separated by commas, as a tuple of floats."""

    def parse(text):
        try:
            values = tuple(float(word) for word in text.split(","))
        except ValueError:
            values = ()
        if len(values) != count or not all(math.isfinite(v) for v in values):
            raise refused(text, f"{count} numbers such as {example}")
        return values

    parse.separated = True
    return parse


def wholes(count, names):
    """A type for `count` whole numbers of at least 0 separated by commas, as a tuple; names: what they stand for."""

    def parse(text):
        words = text.split(",")
        if len(words) != count or not all(word.isdecimal() for word in words):
            raise refused(text, f"{names}, whole numbers")
        return tuple(map(int, words))

    parse.separated = True
    return parse


def names(text):
    """A type for names separated by commas, as a tuple."""
    found = tuple(word.strip() for word in text.split(","))
    if not all(found):
        raise refused(text, "names separated by commas")
    return found


names.separated = True


def listed(text):
    """A type for text that separates several values by commas, kept as it is."""
    return text


listed.separated = True  # in a file of --config these may be written as a list


def weighted_names(text):
    """`ce:0.5,dice` as {"ce": 0.5, "dice": 1.0}: names with weights above 0, 1 where none is given."""
    found = {}
    for word in text.split(","):
        name, colon, weight = word.strip().partition(":")
        try:
            value = float(weight) if colon else 1.0
        except ValueError:
            value = math.nan
        if not name or name in found or not (0 < value < math.inf):
            raise refused(text, "different names with weights above 0, such as ce:0.5,dice:0.5")
        found[name] = value
    return found


weighted_names.separated = True


def keyed(text):
    """A type for NAME=VALUE, kept as text; settings_in() reads a list of them. In a file of --config they are a section, nested or not."""
    name, equals, _ = text.partition("=")
    if not equals or not all(word.replace("-", "_").isidentifier() for word in name.split(".")):
        raise refused(text, "NAME=VALUE, such as channels=128")
    return text


keyed.keyed = True


def settings_in(words):
    """["channels=64,32", "aux.dropout=0.1"] → {"channels": (64, 32), "aux": {"dropout": 0.1}}. ArgumentTypeError for a name twice."""
    found = {}
    for word in words:
        name, _, text = word.partition("=")
        *path, last = name.split(".")
        inner = found
        for key in path:
            inner = inner.setdefault(key, {})
            if not isinstance(inner, dict):
                raise argparse.ArgumentTypeError(f"{key} has both a value and settings of its own")
        if last in inner:
            raise argparse.ArgumentTypeError(f"{name} is set twice; leave one of them out")
        inner[last] = values_in(text)
    return found


def values_in(text):
    """`64,32` or `64,` as a tuple, `64` as a number."""
    words = [word for word in text.strip("[]()").split(",") if word.strip()]
    return tuple(map(plain_value, words)) if "," in text else plain_value(text)


def plain_value(text):
    """Text as the number, True, False or None that it spells, else as it is."""
    text = text.strip()
    word = text.lower()
    if word in ("true", "false", "none"):
        return {"true": True, "false": False, "none": None}[word]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def dates(text):
    """`2022-06-01/2022-08-31`, `2022-06-01/..` or one day as (first, last) datetime.date, None for an open end."""
    words = text.split("/") if "/" in text else [text, text]
    try:
        first, last = (None if word.strip() in ("", "..") else datetime.date.fromisoformat(word.strip()) for word in words)
    except ValueError:
        first = last = None
    if first is last is None or first and last and first > last:
        raise refused(text, "days such as 2022-06-01/2022-08-31, 2022-06-01/.. or 2022-06-15")
    return first, last


def number_or_dates(text):
    """`3` as a number of dates; as dates() else."""
    if text.strip().isdecimal() and len(text.strip()) < 4:
        return whole(1, 99)(text)
    try:
        return dates(text)
    except argparse.ArgumentTypeError:
        raise refused(text, "a number of dates such as 3, or days such as 2022-06-01/2022-08-31 or 2022-06-01/..") from None


def number_and_dates(values):
    """(number of dates or None, (first, last) or None) of what number_or_dates makes of each word, in any order. ValueError for two."""
    counts, days = [v for v in values or () if isinstance(v, int)], [v for v in values or () if not isinstance(v, int)]
    if len(counts) > 1 or len(days) > 1:
        raise ValueError("--dates takes a number of dates, days, or one of each: --dates 3 2022-06-01/2022-08-31")
    return next(iter(counts), None), next(iter(days), None)


def size(text):
    """`512` or `640x480` as (width, height)."""
    words = text.lower().split("x")
    if len(words) not in (1, 2) or not all(word.isascii() and word.isdecimal() and 0 < int(word) < 1 << 20 for word in words):
        raise refused(text, "pixels such as 512, or WIDTHxHEIGHT such as 640x480")
    return int(words[0]), int(words[-1])


def side_or_size(text):
    """Of windows: `512` as a number, `640x480` as (width, height)."""
    words = text.lower().split("x")
    return whole(8, 8192)(text) if len(words) == 1 else tuple(whole(8, 8192)(side) for side in size(text))


def sides_or_size(text):
    """side_or_size, or several sides, `128,192` as a list of different ones."""
    if "," not in text:
        return side_or_size(text)
    sides = [whole(8, 8192)(side) for side in text.split(",")]
    if len(set(sides)) < len(sides):
        raise refused(text, "sides that differ, such as 128,192")
    return sides


sides_or_size.separated = True


def refused(text, expected):
    return argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")


def span(low, high):
    """`from 0 to 1`, `of at least 1`, `of at most 5`."""
    bounded = high < 2**62
    if low == -math.inf:
        return f"of at most {high:g}" if bounded else "that is finite"
    return f"from {low:g} to {high:g}" if bounded else f"of at least {low:g}"
