"""
Makes pan/ms chips out of noise and a list of reflectances.

Inputs are box means of the truth, as in chips of an ARD; or, with reduction "mtf", everything is blurred as sensors blur it, pan and ms
each by their own gain, as in chips of small pairs.

A reflectance file has a number for pan and one a band (nine for WorldView-2 and -3) on each line, x 10 000, separated by commas; the
rest of a line is a note.
Chip number n depends on the file, the recipe and n alone, so any chip can be made again by itself.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from chipping.chipset import ChipSetWriter, next_chip, pansharpen_description
from chipping.pan_chips import SCALE, encode_chip, write_chip
from constants import BGRN_BANDS, WORLDVIEW_BANDS
from raster.resampling import MS_GAIN, PAN_GAIN, reduce_mtf
from runtime.errors import UserError

RATIO = 4
LEAST_LINES = 7  # six materials are drawn for a chip, at least one more makes it a choice
OUR_REFLECTANCES = Path(__file__).parent / "reflectances.csv"
OURS = {WORLDVIEW_BANDS: OUR_REFLECTANCES, BGRN_BANDS: Path(__file__).parent / "reflectances-bgrn.csv"}
COUNTED = {4: "four", 5: "five", 8: "eight", 9: "nine"}
SHADOW_WIDTH = 0.025  # of the noise that shadows follow


@dataclass(frozen=True)
class FakeRecipe:
    """
    What decides a chip's bytes beside reflectances and number. side: pixels of the truth; store, dtype, reduction: see ChipRecipe; bands:
    names, in the order of the reflectance file.
    """

    side: int = 512
    seed: int = 0
    store: str = "bands"
    dtype: str = "uint16"
    reduction: str = "box"
    bands: tuple = WORLDVIEW_BANDS


def our_reflectances(bands):
    """The path of our own reflectance file of these bands. UserError where there is none."""
    if bands not in OURS:
        raise UserError(f"there is no reflectance file of our own for {', '.join(bands)}; pass --reflectances, or --bands "
                        f"{','.join(BGRN_BANDS)}")
    return OURS[bands]


def read_reflectances(path, bands=8):
    """(lines, 1 + bands) reflectance, float32: pan and the bands."""
    count = bands + 1
    expected, of_bands = COUNTED.get(count, count), COUNTED.get(bands, bands)
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the reflectance file {path} cannot be read ({error})") from error
    rows = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        words = line.replace(";", ",").split(",")
        try:
            rows.append([float(word) for word in words[:count]])
        except ValueError as error:
            raise UserError(f"{path}, line {number}: expected {expected} numbers separated by commas, got {line[:60]!r}") from error
        if len(words) > count and reads_as_number(words[count]):
            raise UserError(f"{path}, line {number} has more than {expected} numbers (pan and {of_bands} bands); pass the --bands that the "
                            "file has, or a file of these")
        if len(rows[-1]) != count or not np.isfinite(rows[-1]).all():
            raise UserError(f"{path}, line {number}: expected {expected} numbers (pan and {of_bands} bands), got {len(rows[-1])}")
    if len(rows) < LEAST_LINES:
        raise UserError(f"{path} has {len(rows)} reflectances; at least {LEAST_LINES} are needed")
    return np.array(rows, np.float32) / np.float32(SCALE)


def reads_as_number(word):
    try:
        float(word)
    except ValueError:
        return False
    return True


def noise(rng, side, power):
    """(side, side) noise with spectrum amplitude f^-power (f in cycles per pixel, 1 / side at 0), mean 0, standard deviation 1."""
    f = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    f[0, 0] = 1 / side
    white = rng.standard_normal((side, side), dtype=np.float32)
    field = np.fft.irfft2(np.fft.rfft2(white) * f**-power, s=(side, side)).astype(np.float32)
    field -= field.mean()
    return field / field.std()


def simple_field(rng, reflectances, side):
    """(1 + bands, side, side): two materials mixed by noise, beyond 0 and 1 too."""
    a, b = reflectances[rng.choice(len(reflectances), 2, replace=False)]
    alpha = noise(rng, side, 2)
    return b[:, None, None] + alpha * (a - b)[:, None, None]


def complex_field(rng, reflectances, side):
    """(1 + bands, side, side): two simple fields that alternate between contour lines, with a third as shadow along the lines."""
    one, two, shade = (simple_field(rng, reflectances, side) for _ in range(3))
    swap = noise(rng, side, 2) > 0
    first, second = np.where(swap, two, one), np.where(swap, one, two)
    ground = noise(rng, side, 3)
    levels = np.sort(rng.standard_normal(16))
    levels[0], levels[-1] = -np.inf, np.inf
    layer = np.digitize(ground, levels[1:-1])
    field = np.where(layer % 2 == 0, second, first)
    above = np.append(levels[1:-1], np.inf)[layer]  # the next level above each pixel
    shadow = ground > above - SHADOW_WIDTH
    darkness = np.float32(rng.uniform(0, 0.1))
    return np.where(shadow, shade * darkness, field)


def box_mean(x, side):
    channels, height, width = x.shape
    return x.reshape(channels, height // side, side, width // side, side).mean((2, 4), dtype=np.float32)


def make_fake_chip(reflectances, recipe, number):
    """The chip dict of one number."""
    rng = np.random.default_rng([recipe.seed, number])
    field = complex_field(rng, reflectances, 2 * recipe.side)
    if recipe.reduction == "box":
        field = np.clip(box_mean(field, 2), 1e-4, 1).astype(np.float32)
        pan, bands, mul = field[:1], field[1:], box_mean(field[1:], RATIO)
    else:
        field = torch.from_numpy(np.clip(field, 1e-4, 1).astype(np.float32))[None]
        # at the Nyquist frequency pan's response is half of that of ms, as with real sensors
        pan, bands = reduce_mtf(field[:, :1], 2, PAN_GAIN), reduce_mtf(field[:, 1:], 2, MS_GAIN)
        pan, bands, mul = pan[0].numpy(), bands[0].numpy(), reduce_mtf(bands, RATIO, MS_GAIN)[0].numpy()
    meta = {"tile": "fake", "cid": "fake", "i": number, "seed": recipe.seed}
    return encode_chip(pan, mul, bands, None, meta, recipe.bands, recipe.store, recipe.dtype)


def make_fake_chips(reflectance_file, folder, count, recipe, overwrite=False, on_chip=None):
    """
    Make chips 0 … count - 1 in `folder`; those that are there stay, listed ones whose files are gone are made again.

    on_chip(manifest line): called for each chip that is made. Returns how many.
    """
    if recipe.side < 8 or recipe.side % RATIO:
        raise UserError(f"--side must be a multiple of {RATIO} and at least 8, got {recipe.side}")
    if len(set(recipe.bands)) < len(recipe.bands):
        raise UserError(f"--bands names a band twice: {','.join(recipe.bands)}; each needs a name of its own")
    reflectances = read_reflectances(reflectance_file, len(recipe.bands))
    digest = hashlib.sha256(reflectances.tobytes()).hexdigest()[:16]
    settings = {"side": recipe.side, "seed": recipe.seed, "store": recipe.store, "dtype": recipe.dtype, "reduction": recipe.reduction,
                "reflectances": digest, **({"bands": list(recipe.bands)} if recipe.bands != WORLDVIEW_BANDS else {})}
    description = pansharpen_description(
        settings, chip_size=recipe.side, bands=recipe.bands, ratio=RATIO, store=recipe.store, dtype=recipe.dtype, divide_by=SCALE,
        offset=0.0, sampler="fake", seed=recipe.seed,
    )
    made = 0
    with ChipSetWriter(folder, description, overwrite, unlisted=next_chip) as chipset:
        there, listed = set(os.listdir(folder)), len(chipset.lines)
        if listed < count:
            chipset.expect(count)
        for number in range(count):
            if number < listed and f"{number}.pt" in there:
                continue
            write_chip(Path(folder) / f"{number}.pt", make_fake_chip(reflectances, recipe, number))
            line = {"file": f"{number}.pt", "i": number, "tile": "fake", "cid": "fake", "valid_fraction": 1.0, "crs": None,
                    "footprint": None}
            if number >= listed:
                chipset.add(line)
            made += 1
            if on_chip:
                on_chip(line)
        chipset.expect(None)
    return made
