"""Pictures of what a sharpening checkpoint does to chips: low-resolution input, best classical method, ours, truth, side by side."""

from dataclasses import dataclass

import numpy as np

from chipping.link_chips import find_chips
from chipping.pan_chips import BadChip, decode_chip, read_chip
from pansharpening import metrics
from pansharpening.classical import METHODS, fuse_whole
from pansharpening.fuse import network_sharpener
from raster.colour import bands_to_oklab, has_colour, oklab_to_srgb
from runtime.errors import UserError

MOST = 64  # chips that are looked at
SIDE = 256  # pixels of a picture: a piece of the chip's middle, so that single pixels can be seen


@dataclass
class PanCase:
    """One chip. views: pictures (H, W, 3) uint8 in the order of titles(); ours, baseline: its error; method: the baseline's name."""

    name: str
    views: list
    ours: float
    baseline: float
    method: str


def titles(method):
    return ["ms as it came", method, "network", "truth"]


def pan_cases(checkpoint, folder, device, progress=None):
    """([PanCase] of the first chips of a folder, name of the error). The baseline is the one that is best over all of them."""
    numbers = find_chips(folder)[0][:MOST]
    if not numbers:
        raise UserError(f"{folder} has no chips; pass --chips with a folder made by chip.py make-chips or fake-chips")
    target, bands, ratio = (checkpoint["data"][key] for key in ("target", "bands", "ratio"))
    sharpener = network_sharpener(checkpoint, device)
    found, problem = [], None
    for number in numbers:
        try:
            pan, mul, truth, valid = decode_chip(read_chip(f"{folder}/{number}.pt"), target)
        except BadChip as error:
            problem = f"{number}.pt: {error}"
            continue
        if len(mul) != len(bands) or pan.shape[-1] != ratio * mul.shape[-1]:
            raise UserError(f"{folder}/{number}.pt has {len(mul)} bands at ratio {pan.shape[-1] // mul.shape[-1]}; the checkpoint "
                            f"is for {len(bands)} at {ratio}")
        images = {name: fuse_whole(name, mul[None], pan[None], ratio) for name in METHODS}
        if target == "oklab":
            images = {name: bands_to_oklab(image, bands) for name, image in images.items()}
        images["network"] = sharpener.run(mul[None], pan[None])
        errors = {name: error_of(truth.numpy(), image[0].numpy(), target, ratio, valid) for name, image in images.items()}
        found.append((number, mul, truth, images, errors))
        if progress:
            progress(1)
    if not found:
        raise UserError(f"none of the chips in {folder} can be used ({problem})")
    method = min((m for m in METHODS if m != "bicubic"), key=lambda m: np.mean([errors[m] for *_, errors in found]))
    cases = []
    for number, mul, truth, images, errors in found:
        wide = mul.repeat_interleave(ratio, 1).repeat_interleave(ratio, 2)[None]
        if target == "oklab":
            wide = bands_to_oklab(wide, bands)
        views = pictures([middle(x) for x in (wide[0], images[method][0], images["network"][0], truth)], target, bands)
        cases.append(PanCase(f"{number}.pt", views, errors["network"], errors[method], method))
    return cases, "delta E" if target == "oklab" else "ERGAS"


def error_of(truth, image, target, ratio, valid):
    valid = None if valid is None else valid[0].numpy()
    return metrics.delta_e(truth, image, valid) if target == "oklab" else metrics.ergas(truth, image, ratio, valid)


def middle(image):
    """The middle of a (C, H, W) tensor, at most SIDE pixels a side, as numpy."""
    height, width = image.shape[1:]
    top, left = max(0, (height - SIDE) // 2), max(0, (width - SIDE) // 2)
    return image[:, top : top + SIDE, left : left + SIDE].numpy()


def pictures(images, target, bands):
    """uint8 pictures of images that share one brightness, that of the last one (the truth)."""
    if target == "oklab" or has_colour(bands):
        labs = images if target == "oklab" else [bands_to_oklab(x, bands) for x in images]
        # light times g is Oklab times the cube root of g; the 98th percentile of lightness becomes 0.85
        gain = 0.85 / max(float(np.percentile(labs[-1][0], 98)), 1e-3)
        shown = [oklab_to_srgb(lab.astype(np.float64) * gain) for lab in labs]
    else:
        three = [i % len(bands) for i in range(3)]
        top = max(float(np.percentile(images[-1][three], 98)), 1e-4)
        shown = [np.clip(x[three] / top, 0, 1) ** (1 / 2.2) for x in images]
    return [(x.transpose(1, 2, 0) * 255 + 0.5).astype(np.uint8) for x in shown]


def choose(cases, count):
    """{"best", "median", "worst": [PanCase]} by the network's own error, none twice; fewer than three chips are all shown."""
    ranked = sorted(cases, key=lambda case: case.ours)
    count = min(count, len(ranked) // 3)
    if not count:
        return {"all": ranked}
    start = (len(ranked) - count) // 2
    return {"best": ranked[:count], "median": ranked[start : start + count], "worst": ranked[-count:]}
