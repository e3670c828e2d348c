"""Reflectance = (stored value + offset) / divisor, and where the two numbers come from: flags, then the file's tags, never the pixels."""

from dataclasses import dataclass

import numpy as np

from raster.hidden import data_bands, hidden_pixels
from raster.nodata import valid_pixels
from raster.source import open_raster
from runtime.errors import UserError

# Landsat Collection 2 Level 2: reflectance = 0.0000275 · stored − 0.2
USUAL_SCALES = "10000: Sentinel-2; 36363.64, with --offset -7272.73: Landsat Collection 2; 255: 8 bit; 1: reflectance"


PICTURE = 255.0  # divisor of bands that are brightness, not reflectance


def are_pictures(divide_by):
    """Whether all bands are brightness, not reflectance. divide_by: a number a band."""
    return set(divide_by) == {PICTURE}


@dataclass(frozen=True)
class Scale:
    """divide_by, offset: one number a band, both in the units of the stored values."""

    divide_by: tuple
    offset: tuple


def to_reflectance(values, divide_by, offset=0.0):
    """
    Reflectance of stored values: (values + offset) / divide_by, in the type of `values` (NumPy array or torch tensor).

    divide_by, offset: a number, one number a band, or an array or tensor that broadcasts. Bands are the third axis from the end.
    """
    return (values + per_band(offset, values)) / per_band(divide_by, values)


def become_reflectance(values, divide_by, offset=0.0):
    """to_reflectance in the place of `values`, an array or tensor of floats, without another one of its size."""
    if not (isinstance(offset, (int, float)) and offset == 0):
        values += per_band(offset, values)
    values /= per_band(divide_by, values)
    return values


def per_band(numbers, values):
    """One number a band as (C, 1, 1) of the type and on the device of `values`; a number, or what has more axes, as it is."""
    if isinstance(numbers, (int, float)) or getattr(numbers, "ndim", 1) != 1:
        return numbers
    if hasattr(values, "new_tensor"):
        return (numbers.to(values) if hasattr(numbers, "to") else values.new_tensor(numbers))[:, None, None]
    return np.asarray(numbers, values.dtype)[:, None, None]


def parse_numbers(text, flag, count):
    """`10000` or `255,255,10000` as `count` floats; one number stands for all bands. None stays None."""
    if text is None:
        return None
    try:
        numbers = [float(word) for word in str(text).split(",")]
    except ValueError as error:
        raise UserError(f"{flag} expects numbers separated by commas, got {text!r}") from error
    if any(n - n != 0 for n in numbers):
        raise UserError(f"{flag} expects finite numbers, got {text!r}")
    if len(numbers) == 1:
        numbers *= count
    if len(numbers) != count:
        raise UserError(f"{flag} has {len(numbers)} numbers for {count} bands; pass one for all" + (", or one a band" * (count > 1)))
    return tuple(numbers)


def scale_from_tags(info, bands):
    """
    Scale that a raster's header states for `bands` (zero-based), or None.

    Looks at GDAL's scale and offset of the bands (value = stored · scale + offset), then at the tags `scale_factor` and `add_offset`
    that NASA's products carry for the whole file. UserError where integer bands have none beside others that do: 1 would be a guess.
    """
    if info.scale_unknown:
        raise UserError(info.scale_unknown)
    scales, offsets = [info.scales[b] for b in bands], [info.offsets[b] for b in bands]
    silent = [s == 1 and o == 0 for s, o in zip(scales, offsets, strict=True)]
    if all(silent):
        stated = scale_in_tags(info.tags)
        if stated is None:
            return None
        scales, offsets = ([number] * len(bands) for number in stated)
    elif bare := [b for b, s in zip(bands, silent, strict=True) if s and not info.dtypes[b].startswith("float")]:
        without = ", ".join(band_words(info, b) for b in bare)
        raise UserError(f"{info.path} states a scale for some bands and none for {without}; pass --divide-by and --offset for all bands")
    if any(s == 0 for s in scales):
        raise UserError(f"{info.path} states a scale of 0 for a band; pass --divide-by and --offset")
    # 1 / 0.0001 is 10000.000000000002 in some spellings: what is within rounding of a whole number is that number.
    return Scale(tuple(tidy(1 / s) for s in scales), tuple(tidy(o / s) for o, s in zip(offsets, scales, strict=True)))


def scale_in_tags(tags):
    """(scale, offset) of the tags scale_factor and add_offset of a whole file, None without."""
    tags = {key.lower(): value for key, value in tags.items()}
    try:
        return float(tags["scale_factor"]), float(tags.get("add_offset", 0))
    except (KeyError, ValueError):
        return None


def band_words(info, band):
    """`band 2 (B04)` of a zero-based band."""
    return f"band {band + 1}" + (f" ({info.descriptions[band]})" if info.descriptions[band] else "")


def scale_words(scale, band=0):
    """`divisor 10000 and offset -1000` of a band (zero-based), with the digits that tell two scales apart."""
    return f"divisor {scale.divide_by[band]:.12g} and offset {scale.offset[band]:.12g}"


def tidy(number):
    whole = round(number)
    return float(whole) if abs(number - whole) <= 1e-9 * max(1.0, abs(number)) else number


def check_divisors(divide_by):
    """UserError where a divisor of the command line would make no reflectance."""
    if not all(d > 0 for d in divide_by):
        raise UserError(f"--divide-by expects numbers above 0, got {min(divide_by):g}; pass 1 where values are reflectance already")


def decide_scale(info, bands, names, divide_by=None, offset=None):
    """
    Scale of one raster's `bands` (zero-based; `names` for messages): flags win over tags; neither is an error that shows what is in there.

    divide_by, offset: tuples from the command line, or None where not given. With a divisor from the command line the tags' offset is not
    used.
    """
    if divide_by is not None:
        check_divisors(divide_by)
        return Scale(divide_by, offset or (0.0,) * len(bands))
    tags = scale_from_tags(info, bands)
    if tags is not None:
        return Scale(tags.divide_by, offset if offset is not None else tags.offset)
    raise UserError(
        f"the scale of {info.path} is not known; pass --divide-by ({USUAL_SCALES}) and --offset. "
        f"Found {value_ranges(info, bands, names)}"
    )


def value_ranges(info, bands, names, side=256):
    """`B8 12/2310/5833, …`: minimum, median and maximum of each band, read at a reduced resolution; and what they look like."""
    words, highest = [], 0
    try:
        with open_raster(info.path) as dataset:
            step = max(1, max(info.width, info.height) // side)
            shape = (max(1, info.height // step), max(1, info.width // step))
            hidden = hidden_pixels(dataset, data_bands(info, [b + 1 for b in bands]).masked, shape=shape)
            for band, name in zip(bands, names, strict=True):
                values = dataset.read(band + 1, out_shape=shape)
                values = values[valid_pixels(values[None], info.nodatavals[band]) & (True if hidden is None else ~hidden)].astype(float)
                words.append(f"{name} {describe_values(values)}")
                highest = max(highest, values.max(initial=0))
    except Exception as error:  # the message is about the scale; that a pixel can't be read will be said when it matters
        return f"values that can't be read ({' '.join(str(error).split())[:80]})"
    return "minimum/median/maximum of " + ", ".join(words) + bits_hint(highest)


def bits_hint(highest):
    """`; values end at 2047: 11 bit?` where the highest value is that of so many bits, or nearly, else nothing."""
    for bits in (8, 10, 11, 12, 14):
        most = 2**bits - 1
        if 0.99 * most <= highest <= most:
            return f"; values end at {highest:g}: {bits} bit, --divide-by {most}?"
    return ""


def describe_values(values):
    return f"{values.min():.6g}/{np.median(values):.6g}/{values.max():.6g}" if values.size else "no valid value"
