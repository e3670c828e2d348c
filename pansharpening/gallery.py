"""Chips sharpened by a checkpoint, beside the low-resolution input, the best classical method and the truth."""

from dataclasses import dataclass

import numpy as np
import torch

from chipping.link_chips import find_chips
from chipping.pan_chips import BadChip, decode_chip, read_chip
from pansharpening.classical import METHODS, fuse_whole
from pansharpening.metrics import error_of_chip
from pansharpening.sharpeners import network_sharpener
from pictures.brightness import OKLAB, gain_for, middle, show_light
from pictures.gallery_page import Sheet, best_median_worst
from pictures.sheets import contact_sheet
from raster.colour import bands_to_oklab
from runtime.device import Compute
from runtime.errors import UserError

MOST = 64  # chips that are looked at
SIDE = 256  # pixels of a picture: a piece of the chip's middle, so that single pixels can be seen


@dataclass(frozen=True)
class PanCase:
    """One chip. views: pictures (H, W, 3) uint8 in the order of titles(); ours, baseline: errors of the network and the baseline."""

    name: str
    views: list
    ours: float
    baseline: float


@dataclass(frozen=True)
class Gallery:
    """cases: a PanCase for each chip; method: name of the baseline; measure: name of the errors."""

    cases: list
    method: str
    measure: str


@dataclass(frozen=True)
class Trial:
    """A chip and what each method makes of it. images: {method: (C or 3, S, S) tensor}; errors: {method: number}."""

    number: int
    mul: torch.Tensor
    truth: torch.Tensor
    images: dict
    errors: dict


def titles(method):
    return ["ms as it came", method, "network", "truth"]


def show_chips(checkpoint, folder, device, progress=lambda n: None):
    """The Gallery of the first chips of a folder. The baseline is the classical method that is best over all of them."""
    numbers = find_chips(folder)[0][:MOST]
    if not numbers:
        raise UserError(f"{folder} has no chips; pass --chips with a folder made by chip.py make-chips or fake-chips")
    target, bands, ratio = (checkpoint["data"][key] for key in ("target", "bands", "ratio"))
    sharpener = network_sharpener(checkpoint, Compute(device=device))
    trials, problem = [], None
    for number in numbers:
        try:
            trials.append(try_methods(folder, number, sharpener, target, bands, ratio))
        except BadChip as error:
            problem = f"{number}.pt: {error}"
            continue
        progress(1)
    if not trials:
        raise UserError(f"none of the chips in {folder} can be used ({problem}); pass another folder with --chips")
    method = min((m for m in METHODS if m != "bicubic"), key=lambda m: np.mean([trial.errors[m] for trial in trials]))
    cases = [make_case(trial, method, target, bands, ratio) for trial in trials]
    return Gallery(cases, method, "delta E" if target == "oklab" else "ERGAS")


def try_methods(folder, number, sharpener, target, bands, ratio):
    """The Trial of a chip: every classical method and the network. BadChip where it can't be used."""
    pan, mul, truth, valid = decode_chip(read_chip(f"{folder}/{number}.pt"), target)
    found = pan.shape[-1] // mul.shape[-1]
    if len(mul) != len(bands) or found != ratio:
        raise UserError(f"{folder}/{number}.pt has {len(mul)} bands at ratio {found}; the checkpoint is for {len(bands)} at {ratio}")
    images = {name: fuse_whole(name, mul[None], pan[None], ratio) for name in METHODS}
    if target == "oklab":
        images = {name: bands_to_oklab(image, bands) for name, image in images.items()}
    images["network"] = sharpener.run(mul[None], pan[None])
    images = {name: image[0] for name, image in images.items()}
    counted = None if valid is None else valid[0].numpy()
    errors = {name: error_of_chip(truth.numpy(), image.numpy(), target, ratio, counted) for name, image in images.items()}
    return Trial(number, mul, truth, images, errors)


def make_case(trial, method, target, bands, ratio):
    """The PanCase of a Trial; its pictures share one gain, that of the truth."""
    wide = trial.mul.repeat_interleave(ratio, 1).repeat_interleave(ratio, 2)
    if target == "oklab":
        wide = bands_to_oklab(wide, bands)
    shown = OKLAB if target == "oklab" else bands
    images = [middle(x, SIDE).numpy() for x in (wide, trial.images[method], trial.images["network"], trial.truth)]
    gain = gain_for(images[-1], shown)
    views = [show_light(image, shown, gain) for image in images]
    return PanCase(f"{trial.number}.pt", views, trial.errors["network"], trial.errors[method])


def draw_sheets(gallery, count):
    """Sheets of the best, median and worst `count` cases by the network's own error."""
    sheets = []
    for kind, cases in best_median_worst(sorted(gallery.cases, key=lambda case: case.ours), count).items():
        captions = [f"{c.name}: {gallery.measure} {c.ours:.2f}, {gallery.method} {c.baseline:.2f}" for c in cases]
        picture = contact_sheet([c.views for c in cases], titles(gallery.method), captions, SIDE)
        sheets.append(Sheet(kind, "All pictures of a row share one brightness.", picture, "; ".join(captions)))
    return sheets


def summary(gallery):
    """`mean ERGAS over 8 chips: network 4.866, mtf-glp-hpm 4.901 (less is better)`"""
    ours, baseline = (sum(getattr(case, name) for case in gallery.cases) / len(gallery.cases) for name in ("ours", "baseline"))
    mean = f"mean {gallery.measure} over {len(gallery.cases)} chips"
    return f"{mean}: network {ours:.3f}, {gallery.method} {baseline:.3f} (less is better)"
