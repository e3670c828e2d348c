"""The learning rate of each step: a warm-up, then constant, halved when a score stops rising, along half a cosine or a straight line."""

import math

SCHEDULES = ("constant", "plateau", "cosine", "linear")
FLOOR = 0.01  # of the base rate, at the last step of a cosine or a line


def warmup_factor(step, warmup_steps):
    """Rises linearly from 1 / warmup_steps at step 0 to 1 at step warmup_steps - 1 and stays there."""
    return min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0


def progress(step, total_steps, warmup_steps=0):
    """0 until the warm-up ends, 1 at the last step."""
    return min(1.0, max(0.0, (step - warmup_steps) / max(1, total_steps - 1 - warmup_steps)))


def cosine_factor(step, total_steps, warmup_steps=0, floor=FLOOR):
    """1 until the warm-up ends, then half a cosine down to `floor` at the last step."""
    return floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * progress(step, total_steps, warmup_steps)))


def linear_factor(step, total_steps, warmup_steps=0, floor=FLOOR):
    """1 until the warm-up ends, then a straight line down to `floor` at the last step."""
    return 1.0 - (1.0 - floor) * progress(step, total_steps, warmup_steps)


FACTORS = {"cosine": cosine_factor, "linear": linear_factor}


def ended_as_planned(kind, steps, total_steps):
    """Whether the learning rate of a run fell to its end: it was planned to fall (cosine, linear), and all of the steps were done."""
    return kind in FACTORS and steps >= total_steps


class Schedule:
    """
    rate(step) → learning rate of a step (zero-based); step_epoch(score) after each validation, higher scores being better.

    plateau: after more than `patience` epochs in a row without a score at least 0.01 % better than the best, the rate is multiplied by
    `factor` (PyTorch's ReduceLROnPlateau with mode max). For the others the score does not matter. A score of NaN is never better.
    floor: what a cosine or a line falls to, as a share of the base rate.
    """

    def __init__(self, kind, base_rate, total_steps, warmup_steps=0, factor=0.5, patience=5, threshold=1e-4, floor=FLOOR):
        if kind not in SCHEDULES:
            raise ValueError(f"expected a schedule of {', '.join(SCHEDULES)}, got {kind!r}")
        self.kind, self.base_rate, self.total_steps, self.warmup_steps = kind, base_rate, total_steps, warmup_steps
        self.factor, self.patience, self.threshold, self.floor = factor, patience, threshold, floor
        self.scale, self.best, self.bad_epochs = 1.0, -math.inf, 0

    def rate(self, step):
        rate = self.base_rate * self.scale * warmup_factor(step, self.warmup_steps)
        return rate * FACTORS[self.kind](step, self.total_steps, self.warmup_steps, self.floor) if self.kind in FACTORS else rate

    def set_rate(self, optimizer, step):
        """Groups may have an `lr_factor` of their own."""
        for group in optimizer.param_groups:
            group["lr"] = self.rate(step) * group.get("lr_factor", 1.0)

    def step_epoch(self, score):
        if self.kind != "plateau":
            return
        # A margin relative to the best, as PyTorch has it; for scores below zero its sign is turned.
        margin = abs(self.best) * self.threshold if math.isfinite(self.best) else 0.0
        if score > self.best + margin:
            self.best, self.bad_epochs = score, 0
        else:
            self.bad_epochs += 1
        if self.bad_epochs > self.patience:
            self.scale, self.bad_epochs = self.scale * self.factor, 0

    def forget_scores(self):
        """The best score so far no longer counts, since other data is scored from here on; the rate stays."""
        self.best, self.bad_epochs = -math.inf, 0

    def state_dict(self):
        return {"scale": self.scale, "best": self.best, "bad_epochs": self.bad_epochs}

    def load_state_dict(self, state):
        self.scale, self.best, self.bad_epochs = state["scale"], state["best"], state["bad_epochs"]
