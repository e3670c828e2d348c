"""Validates the input of make-chips and decides its tiles and recipe."""

from dataclasses import dataclass

from chipping.chip_window import ChipRecipe
from chipping.plain_pairs import pair_tiles, scale_of_pairs
from raster.ard import open_tiles, read_allow_list, read_items
from raster.scale import check_divisors, parse_numbers
from runtime.errors import RunError, UserError
from runtime.words import plural

MOST_NAMED = 5  # tiles, or CIDs, that a remark names


@dataclass(frozen=True, kw_only=True)
class ChipOptions:
    """
    What a user asks of chips. size: pixels a side of the truth. extra: factor by which everything is shrunk first, None for the usual one
    of the source. minimum_valid: share, 0 to 1. reduction: "box", "mtf" or None for the usual one. divide_by, offset: text or None.
    """

    size: int = 512
    extra: int | None = None
    minimum_valid: float = 0.75
    sampler: str = "r2"
    reduction: str | None = None
    store: str = "bands"
    dtype: str = "uint16"
    divide_by: str | None = None
    offset: str | None = None


def plan_ard_chips(folder, allow_list, options, *, strict=False, note=print, log=lambda text: None):
    """
    (tiles, ChipRecipe) of an ARD. allow_list: path of a text file with CIDs, or None. strict: a tile that cannot be used is a RunError.
    note(text): remarks on what is left out; log(text): every single one.
    """
    extra = options.extra or 2
    allowed = read_allow_list(allow_list) if allow_list else None
    items, unread = read_items(folder)
    tiles, unfit, unmatched = open_tiles(items, allowed, options.size * extra)
    skipped = unread + unfit
    for name, reason in skipped:
        log(f"left out: {name}: {reason}")
    for name, reason in skipped[:MOST_NAMED]:
        note(f"left out: {name}: {reason}")
    if len(skipped) > MOST_NAMED:
        note(f"left out: {len(skipped) - MOST_NAMED} tiles more (--log FILE names them)")
    if unmatched:
        more = f" and {len(unmatched) - MOST_NAMED} more" if len(unmatched) > MOST_NAMED else ""
        note(f"of the allow-list, not in this ARD: {', '.join(unmatched[:MOST_NAMED])}{more}")
    if not tiles:
        why = "none of the allow-list's CIDs is in it" if allowed and len(unmatched) == len(allowed) else "see the reasons above"
        raise UserError(f"{folder} has no tile that can be used ({why})")
    if strict and skipped:
        raise RunError(f"{plural(len(skipped), 'tile')} cannot be used, first {skipped[0][0]}: {skipped[0][1]} (--strict)")
    return tiles, recipe_of(tiles, options, extra, "box", scale_of_ard(options.divide_by, options.offset))


def scale_of_ard(divide_by, offset):
    """(divide_by, offset) of an ARD, one number each: reflectance x 10 000 unless flags (text) say otherwise."""
    (divisor,), (shift,) = parse_numbers(divide_by or "10000", "--divide-by", 1), parse_numbers(offset or "0", "--offset", 1)
    check_divisors([divisor])
    return divisor, shift


def plan_pair_chips(pans, mss, options, *, shift=(0.0, 0.0), area=None, bands=None, strict=False, note=print):
    """
    (tiles, ChipRecipe) of pan and ms patterns. shift: pan pixels right and down; area: (column, row, width, height) in ms pixels; bands:
    names or None. strict: a pair that cannot be opened is an error. note(text): remarks on how files were understood.
    """
    extra = options.extra or 1
    tiles, remarks = pair_tiles(pans, mss, shift, area, bands, strict)
    for remark in dict.fromkeys(remarks):
        note(remark)
    scale = scale_of_pairs(tiles, options.divide_by, options.offset)
    smallest = min(min(tile.pair.area[2:]) for tile in tiles)
    if smallest < options.size * extra:
        raise UserError(f"a window needs {options.size * extra} ms pixels a side, the smallest image has {smallest}: "
                        "pass a smaller --chip-size")
    return tiles, recipe_of(tiles, options, extra, "mtf", scale)


def recipe_of(tiles, options, extra, reduction, scale):
    """ChipRecipe of options. reduction: the one that is used where none is asked for. scale: (divide_by, offset)."""
    pair, (divide_by, offset) = tiles[0].pair, scale
    return ChipRecipe(
        chip_size=options.size, ratio=pair.ratio, bands=pair.bands, extra=extra, minimum_valid=options.minimum_valid,
        sampler=options.sampler, reduction=options.reduction or reduction, store=options.store, dtype=options.dtype, divide_by=divide_by,
        offset=offset,
    )
