"""Scores of test chips: what a network or a classical method makes of them, whatever the number of processes."""

import math

import torch

from pansharpening import metrics
from pansharpening.classical import METHODS, fuse_whole
from pansharpening.dataset import MOST_UNREADABLE, batches_of_process
from raster.colour import bands_to_oklab
from runtime.errors import UserError
from runtime.files import read_json, write_json
from runtime.logs import SilentConsole
from runtime.unreadable import Unreadable


def score_chips(tests, predict, batch_size, processes, console, *, strict=False, workers=0):
    """
    (mean scores over the test chips, number of chips left out). predict(batch) → (images (B, …) on the CPU, losses (B,) or None).

    Whole batches are dealt out, since a chip's values may depend on its company in the last digit, and each chip's scores keep their place
    in one list: the mean is the same whatever the number of processes.
    """
    unreadable = Unreadable("chips", tests.folder, len(tests), processes, strict=strict, most=MOST_UNREADABLE)
    results = {}
    for batch in batches_of_process(tests, batch_size, processes, workers=workers):
        unreadable.note(batch.problems)
        if not len(batch):
            continue
        images, losses = predict(batch)
        for i, chip in enumerate(batch.numbers):
            truth, image = batch.truth[i].numpy(), images[i].numpy()
            valid = None if batch.valid is None else batch.valid[i, 0].numpy()
            scores = {} if losses is None else {"loss": float(losses[i])}
            results[chip] = scores | metrics.scores_of_chip(truth, image, tests.target, tests.ratio, valid)
    results = {n: s for part in processes.gather(results) for n, s in part.items()}
    unreadable.report(console)
    ordered = [results[n] for n in sorted(results)]
    means = {}
    for name in ordered[0]:
        # A score may have no value for a chip, such as the PSNR of an image without error. A loss always has one.
        values = [s[name] for s in ordered if name == "loss" or math.isfinite(s[name])]
        means[name] = sum(values) / len(values) if values else float("nan")
    return means, len(unreadable)


def score_baselines(path, scored_on, tests, target, batch_size, processes, console, *, strict=False):
    """
    baselines.json: scores of the classical methods on the test chips, back-projected as inference.py has them, unless it is there.

    The first process looks for all: a file that others see too late, or not at all, must not leave one alone with the sums.
    """
    scored_on = f"{scored_on}, back-projected"  # a file of version 0.1.0 is not
    if not processes.highest(int(processes.is_first and not has_baselines(path, scored_on))):
        return
    found = {}
    for method in METHODS:

        def predict(batch, method=method):
            chips = zip(batch.mul, batch.pan, strict=True)
            images = torch.cat([fuse_whole(method, mul[None], pan[None], tests.ratio, back_projection=True) for mul, pan in chips])
            return (bands_to_oklab(images, tests.bands) if target == "oklab" else images), None

        # chips that cannot be read are told of once, when the network is scored
        found[method], _ = score_chips(tests, predict, batch_size, processes, SilentConsole(), strict=strict)
    if processes.is_first:
        write_json(path, {"scored_on": scored_on, **found})
        for name, scores in found.items():
            console.say(f"  {name:12s} {in_words(scores)}")


def worse_than_classical(path, scores):
    """A line where the scores of test chips are worse than the best classical method's, else None. path: of baselines.json."""
    name = next((n for n in ("ergas", "delta_e") if math.isfinite(scores.get(n, math.nan))), None)
    if name is None:
        return None
    found = {method: scores_of_method[name] for method, scores_of_method in read_json(path).items() if method in METHODS}
    best = min((method for method in found if found[method] is not None and math.isfinite(found[method])), key=found.get, default=None)
    if best is None or scores[name] <= found[best]:
        return None
    return (f"worse than {best.upper()} ({name} {scores[name]:.3f} against {found[best]:.3f}, test chips); docs/pansharpening.md says what "
            "helps")


def has_baselines(path, scored_on):
    """Whether baselines.json has the scores of the classical methods on these chips. One that is damaged has not, and is made anew."""
    try:
        found = read_json(path)
    except UserError:
        return False
    return isinstance(found, dict) and found.get("scored_on") == scored_on and all(isinstance(found.get(m), dict) for m in METHODS)


def in_words(scores):
    return ", ".join(f"{name} {value:.4g}" for name, value in scores.items())
