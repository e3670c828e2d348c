"""Finds the bands of a raster: by number, by description in any usual spelling, or by their order."""

from constants import BAND_ALIASES, SENTINEL2_L2A_BANDS, band_role, is_picture_band
from raster.hidden import data_bands
from runtime.errors import UserError, did_you_mean


def alike(names, word):
    """Zero-based positions of the names that are the word itself, else of those that name the same band (see is_same_band)."""
    exact = [i for i, n in enumerate(names) if n and n.strip().lower() == word.strip().lower()]
    return exact or [i for i, n in enumerate(names) if is_same_band(n, word)]


def is_same_band(one, other):
    """Whether two names stand for the same part of the spectrum, and both for reflectance or both for a picture's brightness."""
    role = band_role(one)
    return role is not None and role == band_role(other) and is_picture_band(one) == is_picture_band(other)


def find_band(names, word):
    """1-based position of a band among names, None where none or several are alike."""
    found = alike(names, word)
    return found[0] + 1 if len(found) == 1 else None


def number_of(info, names, word):
    """1-based index of one entry of --bands, a name or a number from 1."""
    if str(word).strip().isdigit():
        number = int(word)
        if not 1 <= number <= info.count:
            raise UserError(f"--bands {number}: {info.path} has bands 1 to {info.count}")
        return number
    found = alike(names, str(word)) or alike(names, picture_of(word))
    if len(found) != 1:
        known = [n for n in names if n]
        has = ", ".join(known) or "no names"
        raise UserError(f"--bands: {info.path} has no band {word!r}; it has {has}.{did_you_mean(word, known)}")
    return found[0] + 1


def picture_of(word):
    """The picture's band for `red`, `green` and `blue`, which a person says of both; any other word as it is."""
    word = str(word).strip()
    return next((name for name in BAND_ALIASES.get(word.lower(), ()) if is_picture_band(name)), word)


# ------------------------------------------------------------------------------------------------- one raster for a model


def match_bands(info, wanted, given=None):
    """
    (1-based indexes, "by name" | "as given" | "by order" …): the bands of one raster that stand for the wanted ones, in their order.

    wanted: names. given: of --bands, names or numbers from 1, or None. Without it, descriptions decide; a raster without any is read in its
    order where it has as many bands (an alpha band aside). UserError where that is not certain.
    """
    names = list(info.descriptions)
    if given is not None:
        if len(given) != len(wanted):
            raise UserError(f"--bands names {len(given)} bands, but the checkpoint wants {len(wanted)}: {', '.join(wanted)}")
        return [number_of(info, names, word) for word in given], "as given"
    found = [find_band(names, band) for band in wanted]
    if all(found) and len(set(found)) == len(found):
        return found, "by name"
    described = [n for n in names if n]
    if not described and is_cems_image(info) and set(wanted) <= set(SENTINEL2_L2A_BANDS):
        return [SENTINEL2_L2A_BANDS.index(b) + 1 for b in wanted], "by the order of a Sentinel-2 L2A file of 12 bands"
    if not any(found) and not (described and any(band_role(n) for n in described)):
        order = data_bands(info).bands
        if len(order) == len(wanted):
            return list(order), "by order"
    missing = [b for b, f in zip(wanted, found, strict=True) if not f]
    has = f"bands {', '.join(n or '(unnamed)' for n in names)}" if described else f"{info.count} bands without names"
    if not described and data_bands(info).remark:
        has += f" (band {info.alpha_band + 1} counts as alpha)"
    lacks = f" (no {', '.join(missing)})" if described and missing else ""
    mixed = [(n, b) for b in missing for n in described if band_role(n) and band_role(n) == band_role(b)]
    if mixed and is_picture_band(mixed[0][0]) != is_picture_band(mixed[0][1]):
        lacks += "; {} is not {}: one is of a picture, 0 to 255, the other reflectance".format(*mixed[0])
    raise UserError(
        f"{info.path} has {has}; the checkpoint wants {len(wanted)}: {', '.join(wanted)}{lacks}. "
        f"Pass --bands with {len(wanted)} names or numbers"
    )


def is_cems_image(info):
    """A wildfire image as Copernicus EMS data sets have it: 12 bands without names, 0 in all of them where there is no data."""
    return info.count == len(SENTINEL2_L2A_BANDS) and "S2L2A" in info.path.rsplit("/", 1)[-1]


# ---------------------------------------------------------------------------------------------- the same bands of many rasters


def choose_bands(infos, wanted=None, known_names=None, note=lambda text: None):
    """
    ({scene: zero-based positions}, [names]) of the same bands in all scenes.

    infos: {scene: RasterInfo}. wanted: "1,2,5" (numbers from 1) or descriptions ("B04,B8A" or a role such as red, nir, swir2), None for
    every band. known_names: names where the format fixes them and the files carry none. Scenes whose bands differ are a UserError; where
    numbers say which they are, a remark to note(text).
    """
    chosen, names, named_by, others = {}, None, None, []
    by_number = bool(wanted) and all(word.strip().isdigit() for word in wanted.split(","))
    for scene, info in infos.items():
        described = [d or "" for d in info.descriptions]
        if known_names is not None:
            if info.count != len(known_names):
                raise UserError(f"{info.path} has {info.count} bands; expected {len(known_names)} ({' '.join(known_names)})")
            described = [d or n for d, n in zip(described, known_names, strict=True)] if any(described) else list(known_names)
        positions = band_positions(wanted, described, info)
        here = [described[p] for p in positions]
        if names is None:
            names, named_by = list(here), [info] * len(here)
        if len(here) != len(names):
            first = named_by[0].path
            raise UserError(f"{info.path} has {len(here)} bands, {first} has {len(names)}; pass --bands")
        for i, (a, b) in enumerate(zip(here, names, strict=True)):
            if by_number and not (a and b):  # a number says which band it is; the name is that of the first file that has one
                if a:
                    names[i], named_by[i] = a, info
            elif a.lower() != b.lower() and not is_same_band(a, b):
                differs = f"{info.path} has band {a!r} where {named_by[i].path} has {b!r}"
                if not by_number:
                    numbers = ",".join(str(p + 1) for p in positions)
                    raise UserError(f"{differs}; if they are alike, pass --bands by number, such as --bands {numbers}")
                others.append(differs)
        chosen[scene] = positions
    if others:
        more = f" (and {len(others) - 1} more)" if len(others) > 1 else ""
        note(f"{others[0]}{more}; they count as the same band, as --bands {wanted} says")
    labels = [name or f"band_{p + 1}" for name, p in zip(names, chosen[next(iter(chosen))], strict=True)]
    return chosen, labels


def band_positions(wanted, described, info):
    """Zero-based positions of the bands of one raster that `wanted` names (see choose_bands); without it all but an alpha band."""
    if not wanted:
        return tuple(b - 1 for b in data_bands(info).bands)
    positions = []
    for word in (w.strip() for w in wanted.split(",")):
        if word.isdigit() and word not in described:
            if not 1 <= int(word) <= info.count:
                raise UserError(f"--bands {word}: {info.path} has bands 1..{info.count}")
            positions.append(int(word) - 1)
            continue
        found = alike(described, word) or alike(described, picture_of(word))
        if len(found) != 1:
            known = [d for d in described if d]
            what = "is there more than once" if found else "is not there"
            has = f"its bands are {', '.join(known)}" if known else f"its {info.count} bands have no descriptions, count them from 1"
            raise UserError(f"--bands {word!r} {what} in {info.path}; {has}.{did_you_mean(word, known)}")
        positions.append(found[0])
    if len(set(positions)) != len(positions):
        raise UserError(f"--bands {wanted} names a band twice in {info.path}")
    return tuple(positions)
