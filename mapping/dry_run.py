"""Tells for each scene what mapping it would take: windows, seconds, memory, disk."""

from mapping.cost import disk_of, memory_of, seconds_a_window, windows_of
from mapping.messages import plan_words, reflectance_table
from runtime.errors import UserError
from runtime.logs import print_result


def dry_run(run, scenes):
    """Print a line a scene, {name: path}, of a MapRun. Returns the exit code: 2 where some can't be mapped."""
    seconds, bad = None, 0
    for name, path in scenes.items():
        try:
            plan = run.plan(path)
        except UserError as error:
            print_result(f"{name}: can't be mapped: {error}")
            bad += 1
            continue
        info, settings = plan.info, run.settings
        seconds = seconds_a_window(run, plan) if seconds is None else seconds
        count, sides = windows_of(info, settings)
        memory = sum(memory_of(info, side, len(plan.indexes), len(run.facts.classes) * settings.networks) for side in settings.windows)
        _, disk = disk_of(info, settings)
        sizes = " and ".join(map(str, settings.windows))
        print_result(
            f"{name}: {plan_words(plan, run.facts)}; {count} windows of {sizes}, about {sides * seconds:.0f} s, "
            f"{memory / 2**20:.0f} MB of memory beside the network, at most {disk / 2**20:.0f} MB of disk on the way"
            + (f"; {plan.doubt}" if plan.doubt else ""),
            *reflectance_table(plan, run.facts),
        )
    print_result(f"{len(scenes) - bad} of {len(scenes)} scenes would be mapped into {run.output_dir}")
    return 2 if bad else 0
