"""The image strips of an ARD delivery as a table: candidates for an allow-list."""

from chipping.ard import read_items, summarise

MOST = 10  # tiles left out that are named


def inspect_ard(folder, say):
    """Say a row for each strip of the delivery in `folder`, and the tiles that are left out."""
    items, skipped = read_items(folder)
    say(f"{'CID':16s}  {'date':10s}  {'satellite':13s}  {'tiles':>5s}  {'clouds':>6s}  {'km2':>7s}  {'off nadir':>9s}")
    for row in summarise(items):
        numbers = [
            "-" if row[key] is None else f"{row[key]:.{digits}f}{unit}" for key, digits, unit in
            (("clouds", 0, " %"), ("area_km2", 0, ""), ("off_nadir", 1, ""))
        ]
        clouds, area, angle = numbers
        say(f"{row['cid']:16s}  {row['date']:10s}  {row['satellite']:13s}  {row['tiles']:5d}  {clouds:>6s}  {area:>7s}  {angle:>9s}")
    for name, reason in skipped[:MOST]:
        say(f"left out: {name}: {reason}")
    if len(skipped) > MOST:
        say(f"left out: {len(skipped) - MOST} more")
