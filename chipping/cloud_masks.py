"""Which values of a cloud mask mean cloud: those of the flags, of a product's own form, or 1 to 3."""

from dataclasses import dataclass

import numpy as np

from constants import CLOUD_CLASSES, IGNORE
from runtime.errors import UserError, did_you_mean


@dataclass(frozen=True)
class CloudRule:
    """
    What counts as cloud or its shadow: `values`, or numbers with one of `bits` (from 0, the lowest) set. nodata: the value that is neither;
    bands: how many a mask has, of which the first is read.
    """

    values: tuple = ()
    bits: tuple = ()
    nodata: int | None = None
    bands: int = 1

    def cloudy(self, values):
        """(h, w) bool of stored values."""
        if not self.bits:
            return np.isin(values, self.values)
        mask = sum(1 << bit for bit in self.bits)
        return (values.astype(np.int64) & mask != 0) & (values != self.nodata)


PRESETS = {
    "fmask": CloudRule(bits=(1, 2, 3), nodata=255),  # HLS: cloud, next to cloud or shadow, shadow
    "qa_pixel": CloudRule(bits=(1, 2, 3, 4)),  # Landsat Collection 2: dilated cloud, cirrus, cloud, shadow
    "scl": CloudRule(values=(3, 8, 9, 10)),  # Sentinel-2 L2A: shadow, medium and high probability, cirrus
    "cm": CloudRule(values=(1, 2, 3)),  # CloudSEN12 and CEMS
    "udm2": CloudRule(values=(0,), bands=8),  # Planet: band 1 is 1 where it is clear
}


def parse_cloud_rule(values, bits):
    """CloudRule of --cloud-values (numbers, or the name of a product) or --cloud-bits, texts; None without either."""
    if values and bits:
        raise UserError("--cloud-values and --cloud-bits exclude each other; pass one of them")
    if bits:
        return CloudRule(bits=whole_numbers(bits, "--cloud-bits", "bits from 0 to 31 such as 1,3", 31), nodata=IGNORE)
    if not values:
        return None
    name = values.strip().lower()
    if name in PRESETS:
        return PRESETS[name]
    expected = f"numbers such as 8,9,10, or one of {', '.join(PRESETS)}"
    return CloudRule(values=whole_numbers(values, "--cloud-values", expected, 2**31, did_you_mean(name, PRESETS)))


def whole_numbers(text, flag, expected, most, more=""):
    try:
        numbers = tuple(sorted({int(word) for word in text.split(",")}))
    except ValueError:
        numbers = ()
    if not numbers or not all(0 <= number <= most for number in numbers):
        raise UserError(f"{flag} expects {expected}; got {text!r}.{more}")
    return numbers


def cloudy_pixels(values, rule, path, nodata=None):
    """
    (h, w) bool of a cloud mask's values: by the rule, else 1 to 3, where any other but 255, NaN and the nodata value is a UserError.

    A bit-packed mask would otherwise be cloudy everywhere, and a probability of 1 % a cloud.
    """
    if rule is not None:
        if rule.bits and values.dtype.kind not in "iu":
            raise UserError(f"{path} has the type {values.dtype.name}; --cloud-bits and bit-packed products need integers")
        return rule.cloudy(values)
    other = (values > len(CLOUD_CLASSES) - 1) & (values != IGNORE)
    if nodata is not None:
        other &= values != nodata
    if other.any():
        raise UserError(
            f"{path} holds the value {values[other][0]:.9g}; expected 0 (clear), 1 to 3 (not), 255. "
            f"Pass --cloud-values {'|'.join(PRESETS)}, its cloudy values, or --cloud-bits"
        )
    return (values > 0) & (values != IGNORE)
