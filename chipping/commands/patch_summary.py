"""What make-patches says before and after the work."""

from pathlib import Path

from chipping.cutting import grid_of
from chipping.label_checks import black_white_words
from chipping.patch_set import SPLITS
from chipping.patches import describe_skipped, estimate, mean_reflectance
from chipping.splits import describe_leaks
from nets.model_config import answers_classes, answers_pixels, answers_values
from runtime.files import free_bytes
from runtime.words import in_bytes, plural

MANY_WINDOWS = 1_000_000  # from which on a run says how many there are before it begins
PLAUSIBLE = (0.0005, 1.0)  # mean reflectance of land or water; beyond it the scale is in doubt


def say_splits(plan, console):
    """Remarks about splits that a user needs before the work."""
    if plan.leaks:
        console.note(f"scenes of different splits share ground, so scores will flatter: {describe_leaks(plan.leaks)}")
    splits = {scene.split for scene in plan.scenes}
    if plan.unplaced and len(splits) > 1:
        named = ", ".join(plan.unplaced[:3])
        console.note(f"{len(plan.unplaced)} scenes have no CRS ({named} …): whether they overlap others cannot be checked")
    if "val" not in splits:
        console.note("everything is for training; train.py needs a validation split (--val NAMES or --val 0.2)")


def say_estimate(plan, folder, console):
    """Windows, patches, bytes and time that a run would cost. folder: where the patches would go."""
    per_split = {}
    for scene in plan.scenes:
        per_split[scene.split] = per_split.get(scene.split, 0) + grid_of(scene, plan.recipe).count
    patches, size, seconds = estimate(plan.scenes, plan.recipe)
    shares = ", ".join(f"{split} {count}" for split, count in sorted(per_split.items()))
    console.result(f"{plural(len(plan.scenes), 'scene')}: {plural(sum(per_split.values()), 'window')} ({shares})")
    console.result(
        f"about {patches} patches, {in_bytes(size)} on disk ({in_bytes(free_bytes(folder))} are free), {in_time(seconds)} with one worker"
    )
    console.result("nothing was written (--dry-run)")


def say_size(windows, folder, console):
    """A note before very many windows are cut: it can take days."""
    if windows >= MANY_WINDOWS:
        console.note(f"{windows:,} windows will be judged, and {in_bytes(free_bytes(folder))} are free on the disk; --dry-run tells the "
                     "patches, bytes and time to expect")


def in_time(seconds):
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def say_summary(plan, tally, folder, console):
    """What was made and left out, what looks wrong in it, and the command that comes next."""
    recipe, names, folder = plan.recipe, plan.description["bands"], Path(folder)
    splits = [split for split in SPLITS if tally.patches[split]]
    counts = ", ".join(f"{split} {tally.patches[split]} from {plural(len(tally.scenes[split]), 'scene')}" for split in splits)
    means = dict(zip(names, mean_reflectance(tally, plan.description), strict=True))
    console.result("mean reflectance: " + ", ".join(f"{band} {mean:.4g}" for band, mean in means.items()))
    if odd := [band for band, mean in means.items() if not PLAUSIBLE[0] < mean < PLAUSIBLE[1]]:
        console.warn(f"the mean reflectance of {', '.join(odd)} is not that of land or water; are --divide-by and --offset right?")
    for layer, pixels in tally.train_pixels.items():
        say_absent(plan, layer, [name for name, n in zip(plan.description["classes"][layer], pixels, strict=True) if not n], console)
    skipped = f"; left out {plural(sum(tally.skipped.values()), 'window')} ({describe_skipped(tally)})" if tally.skipped else ""
    console.result(f"{plural(sum(tally.patches.values()), 'patch')} of {recipe.size}×{recipe.size} pixels, "
                   f"{plural(len(names), 'band')} in {folder}: {counts}{skipped}")
    if tally.unreadable:
        named = ", ".join(f"{name} ({plural(count, 'window')})" if count else name for name, count in list(tally.unreadable.items())[:3])
        more = " …" if len(tally.unreadable) > 3 else ""
        console.result(f"{plural(len(tally.unreadable), 'file')} could not be read: {named}{more}; repair and run again with --overwrite")
    if {"train", "val"} <= set(splits):
        classes = max(recipe.classes) if len(recipe.layers) == 1 else 2
        what = f"--num-classes {classes}" if answers_classes(recipe.task) else f"--task {recipe.task}"
        console.result(f"next: python train.py --patches-dir {folder} {what}")


def say_absent(plan, layer, names, console):
    """A remark about classes (`names`) that no training pixel has."""
    if not names:
        return
    which = f" ({layer})" if len(plan.recipe.layers) > 1 else ""
    hint = f"; {black_white_words(plan.black_white[layer])}" if layer in plan.black_white else ""
    task = plan.recipe.task
    what = f"no {'pixel of the training patches' if answers_pixels(task) else 'training patch'} {'has a' if answers_values(task) else 'is'}"
    console.note(f"{what} {' or '.join(names)}{which}{hint}")
