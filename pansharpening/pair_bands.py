"""Which bands of ms a sharpener gets, and under which names."""

from dataclasses import replace

from constants import WORLDVIEW_BANDS
from raster.bands import find_band, match_bands, number_of
from raster.pair import with_alpha_as_data
from raster.source import describe
from runtime.errors import UserError

WAY_OUT = ", or --method gsa in place of --checkpoint, which takes any bands"


def select_bands(pair, wanted=None, given=None):
    """
    (the pair, reading the wanted bands of ms in their order; how they were found, in words). UserError where that is not certain.

    wanted: the checkpoint's bands; None for classical methods, which take all. given: of --bands, names or numbers from 1. Names that
    the file does not know are new names for its bands, one each: files without descriptions get theirs so.
    """
    info = describe(pair.ms)
    pair, how = match_or_name(pair, info, wanted, given)
    if (given or how == "by name") and info.alpha_band is not None and info.alpha_band + 1 in (pair.indexes or range(1, info.count + 1)):
        pair = with_alpha_as_data(pair, info)
    return pair, how


def match_or_name(pair, info, wanted, given):
    """As select_bands, but with the masks that the file alone states."""
    own = pair.indexes or tuple(range(1, info.count + 1))  # all but an alpha band
    is_described = any((name or "").strip().lower() in WORLDVIEW_BANDS for name in info.descriptions)
    if given and not any(word.isdigit() or find_band(info.descriptions, word) for word in given):
        if len(given) == info.count:  # who names every band says that none of them is alpha
            own = tuple(range(1, info.count + 1))
        elif len(given) != len(own):
            raise UserError(f"--bands has {len(given)} names, {pair.ms} has {len(own)} bands")
        names = dict(zip(own, given, strict=True))
        info, is_described = replace(info, descriptions=tuple(names.get(i + 1) for i in range(info.count))), True
        pair, given = replace(pair, bands=tuple(given), indexes=None if len(own) == info.count else own), None
    if wanted is not None:
        try:
            indexes, how = match_bands(info, wanted, given)
        except UserError as error:
            raise UserError(f"{error}{'' if given else WAY_OUT}") from None
        if how == "by order" and is_described:  # names of other bands are no order
            raise UserError(f"{pair.ms} has bands {', '.join(info.descriptions)}; the checkpoint wants {', '.join(wanted)}. Pass --bands "
                            f"with their numbers (from 1){WAY_OUT}")
        return replace(pair, bands=tuple(wanted), indexes=tuple(indexes)), how
    if given:
        indexes = tuple(number_of(info, info.descriptions, word) for word in given)
        names = dict(zip(own, pair.bands, strict=True))
        return replace(pair, bands=tuple(names.get(i, f"band_{i}") for i in indexes), indexes=indexes), "as given"
    return pair, "as stored"


def check_ratio(checkpoint, pair):
    """UserError where a checkpoint is for another ratio than that of these images."""
    ratio = checkpoint["data"]["ratio"]
    if ratio != pair.ratio:
        raise UserError(f"the checkpoint is for pan {ratio} times as fine as ms, here it is {pair.ratio} times; pass another checkpoint")
