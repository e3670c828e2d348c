"""Pictures of chips beside what a network makes of them: what train_pansharpen.py leaves after each best epoch."""

import copy

from pansharpening.metrics import error_of_chip
from pansharpening.sample_sheet import pan_sheet
from pictures.encoding import save_png
from runtime.files import make_own_folder
from runtime.unreadable import Problem


def write_chip_samples(path, sharpen, chips, target, spread, count=4):
    """
    A sheet of up to `count` chips, as they are: pan, ms, sharpened, truth, error. Chips that cannot be read are left out.

    sharpen: (ms (1, C, h, w), pan (1, 1, H, W)) → (1, C or 3, H, W). spread: (C or 3, 1, 1), each band's standard deviation.
    """
    plain = copy.copy(chips)
    plain.turned = False
    rows, names = [], []
    for index in sorted({k * (len(plain) - 1) // max(1, count - 1) for k in range(count)}):
        chip, parts = plain[index]
        if isinstance(parts, Problem):
            continue
        pan, mul, truth, valid = parts
        image = sharpen(mul[None], pan[None])[0]
        rows.append((pan, mul, image, truth, valid))
        counted = None if valid is None else valid[0].numpy()
        error = error_of_chip(truth.numpy(), image.numpy(), target, plain.ratio, counted)
        names.append(f"{chip}.pt, {'delta E' if target == 'oklab' else 'ERGAS'} {error:.3g}")
    if rows:
        make_own_folder(path.parent)
        save_png(path, pan_sheet(rows, target, plain.bands, spread, names))
