"""What is in a chip set: words for the terminal, and a contact sheet for the eye."""

SUFFIXES = ("B", "kB", "MB", "GB", "TB")


def in_bytes(size):
    """1234567 → 1.2 MB (powers of 1000, as disks are sold)."""
    number = 0
    while size >= 999.5 and number < len(SUFFIXES) - 1:
        size, number = size / 1000, number + 1
    return f"{size:.0f} {SUFFIXES[number]}" if number == 0 or size >= 100 else f"{size:.1f} {SUFFIXES[number]}"
