"""Text for people: what goes to the terminal, made harmless; sizes and counts for it; areas, shares and durations for pages."""

import math
import re

UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
THIN = "\u202f"  # narrow no-break space: 1 302, 94 %


# What a terminal may act on or show as something else: control characters but tab and newline, characters that turn the direction of
# writing, line separators, and surrogates, by which Python keeps bytes that are not UTF-8.
UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
LONGEST_LINE = 1000  # characters; two long paths and a sentence


def for_terminal(text, longest=LONGEST_LINE):
    """
    Text that may hold names and values from other people's files, fit for a terminal: control characters escaped as in repr(), bytes that
    are not UTF-8 as \\xff, and each line shortened in its middle to `longest` characters.
    """
    return "\n".join(shortened(UNSAFE.sub(escaped, line), longest) for line in str(text).split("\n"))


def escaped(match):
    code = ord(match[0])
    code = code - 0xDC00 if 0xDC80 <= code <= 0xDCFF else code  # how os.fsdecode keeps a byte
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def shortened(text, longest):
    """Text of at most `longest` characters: its beginning, … and its end, where an error says what to do."""
    if len(text) <= longest:
        return text
    tail = longest // 3
    return f"{text[: longest - tail - 1]}…{text[len(text) - tail :]}"


def in_bytes(size):
    """1234567 → 1.2 MB (powers of 1000, as disks are sold)."""
    number = 0
    while size >= 999.5 and number < len(UNITS) - 1:
        size, number = size / 1000, number + 1
    return f"{size:.0f} {UNITS[number]}" if number == 0 or size >= 100 else f"{size:.1f} {UNITS[number]}"


def plural(count, word):
    """`1 patch`, `2 patches`, `3 scenes`."""
    return f"{count} {word}" if count == 1 else f"{count} {word}es" if word.endswith(("ch", "x")) else f"{count} {word}s"


def thousands(value):
    """1302.4 -> 1 302 with a narrow space."""
    return f"{round(value):,}".replace(",", THIN)


def percent(share):
    """0.937 -> 94 %; never 100 % or 0 % unless it is exactly that; a dash for what is undefined (None or NaN)."""
    if share is None or math.isnan(share):
        return "–"
    rounded = round(100 * share)
    if rounded == 100 and share < 1:
        return f"99.{min(9, math.floor(1000 * share) % 10)}{THIN}%"
    if rounded == 0 and share > 0:
        return f"under 1{THIN}%"
    return f"{rounded}{THIN}%"


def duration(seconds):
    """95 -> a minute and a half, 150 -> 2.5 minutes."""
    if seconds < 50:
        return f"{max(1, round(seconds))} seconds"
    minutes = seconds / 60
    if minutes < 1.25:
        return "a minute"
    half = round(minutes * 2) / 2
    return f"{half:g} minutes" if half != 1.5 else "a minute and a half"
