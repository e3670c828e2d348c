"""Chips sharpened by a checkpoint, beside the low-resolution input, the best classical method and the truth."""

from dataclasses import dataclass

import numpy as np
import torch

from chipping.chipset import find_chips
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
class Trial:
    """A chip, what each method and the network make of it, (C or 3, S, S) tensors by their names, and their errors."""

    number: int
    mul: torch.Tensor
    truth: torch.Tensor
    images: dict
    errors: dict


@dataclass(frozen=True)
class Gallery:
    """trials: a Trial a chip. method: the best classical one over all of them. target, bands, ratio: of the checkpoint."""

    trials: list
    method: str
    target: str
    bands: tuple
    ratio: int

    @property
    def measure(self):
        return "delta E" if self.target == "oklab" else "ERGAS"


def show_chips(checkpoint, folder, device, progress=lambda n: None):
    """The Gallery of the first chips of a folder. The baseline is the classical method that is best over all of them."""
    numbers = find_chips(folder)[0][:MOST]
    if not numbers:
        raise UserError(f"{folder} has no chips; pass --chips with a folder made by chip.py make-chips or fake-chips")
    target, bands, ratio = (checkpoint["data"][key] for key in ("target", "bands", "ratio"))
    sharpener = network_sharpener(checkpoint, Compute(device=device), back_projection=True)
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
    return Gallery(trials, method, target, bands, ratio)


def try_methods(folder, number, sharpener, target, bands, ratio):
    """The Trial of a chip: every classical method and the network. BadChip where it can't be used."""
    pan, mul, truth, valid = decode_chip(read_chip(f"{folder}/{number}.pt"), target)
    found = pan.shape[-1] // mul.shape[-1]
    if len(mul) != len(bands) or found != ratio:
        raise UserError(f"{folder}/{number}.pt has {len(mul)} bands at ratio {found}; the checkpoint is for {len(bands)} at {ratio}")
    images = {name: fuse_whole(name, mul[None], pan[None], ratio, back_projection=True) for name in METHODS}
    if target == "oklab":
        images = {name: bands_to_oklab(image, bands) for name, image in images.items()}
    images["network"] = sharpener.run(mul[None], pan[None])
    images = {name: image[0] for name, image in images.items()}
    counted = None if valid is None else valid[0].numpy()
    errors = {name: error_of_chip(truth.numpy(), image.numpy(), target, ratio, counted) for name, image in images.items()}
    return Trial(number, mul, truth, images, errors)


def views_of(trial, gallery):
    """Pictures of a Trial's ms, baseline, network and truth; they share one gain, that of the truth."""
    wide = trial.mul.repeat_interleave(gallery.ratio, 1).repeat_interleave(gallery.ratio, 2)
    shown = OKLAB if gallery.target == "oklab" else gallery.bands
    if shown == OKLAB:
        wide = bands_to_oklab(wide, gallery.bands)
    images = [middle(x, SIDE).numpy() for x in (wide, trial.images[gallery.method], trial.images["network"], trial.truth)]
    gain = gain_for(images[-1], shown)
    return [show_light(image, shown, gain) for image in images]


def draw_sheets(gallery, count):
    """Sheets of the best, median and worst `count` chips by the network's own error."""
    sheets, method = [], gallery.method
    for kind, trials in best_median_worst(sorted(gallery.trials, key=lambda trial: trial.errors["network"]), count).items():
        captions = [f"{t.number}.pt: {gallery.measure} {t.errors['network']:.2f}, {method} {t.errors[method]:.2f}" for t in trials]
        titles = ["ms as it came", method, "network", "truth"]
        picture = contact_sheet([views_of(trial, gallery) for trial in trials], titles, captions, side=SIDE)
        sheets.append(Sheet(kind, "All pictures of a row share one brightness.", picture, "; ".join(captions)))
    return sheets


def summary(gallery):
    """`mean ERGAS over 8 chips: network 4.866, mtf-glp-hpm 4.901 (less is better)`"""
    ours, baseline = (sum(t.errors[name] for t in gallery.trials) / len(gallery.trials) for name in ("network", gallery.method))
    mean = f"mean {gallery.measure} over {len(gallery.trials)} chips"
    return f"{mean}: network {ours:.3f}, {gallery.method} {baseline:.3f} (less is better)"
