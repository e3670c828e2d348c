"""Quantities as words: sizes of files and counts for the terminal; areas, shares and durations for pages."""

import math

UNITS = ("B", "kB", "MB", "GB", "TB")
THIN = "\u202f"  # narrow no-break space: 1 302, 94 %


def in_bytes(size):
    """1234567 → 1.2 MB (powers of 1000, as disks are sold)."""
    number = 0
    while size >= 999.5 and number < len(UNITS) - 1:
        size, number = size / 1000, number + 1
    return f"{size:.0f} {UNITS[number]}" if number == 0 or size >= 100 else f"{size:.1f} {UNITS[number]}"


def plural(count, word):
    """`1 patch`, `2 patches`, `3 scenes`."""
    return f"{count} {word}" if count == 1 else f"{count} {word}es" if word.endswith("ch") else f"{count} {word}s"


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
