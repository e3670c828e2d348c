"""Quantities as words for the terminal: sizes of files, counts of things."""

UNITS = ("B", "kB", "MB", "GB", "TB")


def in_bytes(size):
    """1234567 → 1.2 MB (powers of 1000, as disks are sold)."""
    number = 0
    while size >= 999.5 and number < len(UNITS) - 1:
        size, number = size / 1000, number + 1
    return f"{size:.0f} {UNITS[number]}" if number == 0 or size >= 100 else f"{size:.1f} {UNITS[number]}"


def plural(count, word):
    """`1 patch`, `2 patches`, `3 scenes`."""
    return f"{count} {word}" if count == 1 else f"{count} {word}es" if word.endswith("ch") else f"{count} {word}s"
