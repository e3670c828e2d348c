"""What a large image takes, before the work begins: windows, seconds, memory and disk."""

import time

import torch

from mapping.scene import window_grids
from runtime.errors import UserError
from runtime.files import free_bytes
from runtime.words import duration, in_bytes

LARGE = 20_000  # windows from which on a run says beforehand what a scene takes
BEST_DEFLATE = 1032  # to one: the format can't do better


def tell_large(run, plan, name, console):
    """
    Say what a large scene of a MapRun takes, before it is mapped. plan: SceneInput.

    UserError where the disk cannot hold the unfinished map however well it is compressed: less than that may be enough, more is not there.
    """
    info, settings, files = plan.info, run.settings, run.files(name)
    least, most = (max(0, size - files.journal_size()) for size in disk_of(info, settings))
    require_disk(f"{name} ({info.width} × {info.height} pixels)", least, run.output_dir, "mapped")
    count, sides = windows_of(info, settings)
    if count >= LARGE:
        memory = sum(memory_of(info, side, len(plan.indexes), len(run.facts.classes) * settings.networks) for side in settings.windows)
        console.say(f"{name}: {cost_words(count, 'window', sides * seconds_a_window(run, plan), memory, (least, most))}")


def windows_of(info, settings):
    """(how many windows a scene (RasterInfo) has, how many of the first size take as long)."""
    counts = [grid.count for grid in window_grids(info, settings)]
    return sum(counts), sum(count * (side / settings.window) ** 2 for count, side in zip(counts, settings.windows, strict=True))


def require_disk(what, least, folder, done):
    """UserError where `least` bytes are more than the disk of `folder` has. done: what is being done to it, such as "mapped"."""
    if least > (free := free_bytes(folder)):
        raise UserError(f"{what} takes at least {in_bytes(least)} of disk while it is {done}, and {in_bytes(free)} are free; "
                        "choose another --output-dir, or take a part of it")


def cost_words(count, piece, seconds, memory, disk):
    """What a large image takes, in words. piece: `window` or `block`. disk: (least, most) bytes."""
    least, most = (in_bytes(size) for size in disk)
    return (f"{count:,} {piece}s, about {long_duration(seconds)}; {in_bytes(memory)} of memory beside the network, and "
            f"{least} (nodata alone) to {most} of disk on the way")


def long_duration(seconds):
    """duration(), in hours, days and years where they are many."""
    for unit, size in (("years", 365 * 86400), ("days", 86400), ("hours", 3600)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {unit}"
    return duration(seconds)


def seconds_a_window(run, plan):
    """Measured on a batch of zeros, after one that warms up."""
    predictor = run.predictor(plan)
    batch = torch.zeros(run.batch_size, len(plan.indexes), run.settings.window, run.settings.window, device=run.compute.device)
    predictor.probabilities(batch)
    start = time.perf_counter()
    predictor.probabilities(batch).cpu()
    return (time.perf_counter() - start) / run.batch_size


def memory_of(info, window, bands, classes):
    """Bytes for the strip of windows, its sums and the slabs that are read ahead."""
    across, deep = max(info.width, window), max(info.block_shapes[0][0], 128)
    return across * (window * (classes * 8 + bands * 4) + 3 * deep * bands * 4)


def disk_of(info, settings):
    """(least, most) bytes that the journal takes: of pixels that are all the same, and of noise."""
    pixel = (5 if settings.kept_as == "float32" else 2) * (1 if settings.networks == 1 else 2)
    most = info.width * info.height * pixel
    return most // BEST_DEFLATE, most
