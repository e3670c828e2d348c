"""Tells before a run starts whether its steps can get anywhere."""

from runtime.schedule import Schedule

# AdamW moves a weight by about the learning rate in a step, whatever the gradient's size, so the sum of the rates is about how far a weight
# gets; new weights are 0.02 to 0.1 large. At a constant rate of 1e-4, contrastunet passed the NBR threshold on Californian fires at a sum
# of 0.004, the sharpening network the best classical method on WorldView-2 at 0.010. Twice that is expected here.
LEAST_PATH = 0.02
LONGEST_SUM = 100_000  # steps; no run of more is short


def path_length(kind, base_rate, total_steps, warmup_steps=0):
    """The sum of the learning rates of all steps, as planned; with a plateau an upper bound."""
    schedule = Schedule(kind, base_rate, total_steps, warmup_steps)
    return sum(schedule.rate(step) for step in range(min(total_steps, LONGEST_SUM)))


def warn_of_short_path(console, path, total_steps, remedy):
    """A line where a new run of `total_steps` steps whose rates add up to `path` is too short. remedy: what to do instead."""
    if path < LEAST_PATH and total_steps < LONGEST_SUM:
        console.say(f"too little training: {total_steps} steps whose learning rates add up to {path:.2g}, expected {LEAST_PATH:g} or "
                    f"more; {remedy}")
