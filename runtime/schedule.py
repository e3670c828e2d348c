"""Learning rates: a warm-up, then either halved when a score stops rising, or along half a cosine."""

import math

SCHEDULES = ("plateau", "cosine")


def warmup_factor(step, warmup_steps):
    """Rises linearly from 1 / warmup_steps at step 0 to 1 at step warmup_steps - 1 and stays there."""
    return min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0


def cosine_factor(step, total_steps, warmup_steps=0, floor=0.01):
    """1 until the warm-up ends, then half a cosine down to `floor` at the last step."""
    progress = (step - warmup_steps) / max(1, total_steps - 1 - warmup_steps)
    return floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, max(0.0, progress))))


class Schedule:
    """
    rate(step) → learning rate of a step (zero-based); step_epoch(score) after each validation, higher scores being better.

    plateau: after more than `patience` epochs in a row without a score at least 0.01 % better than the best, the rate is
    multiplied by `factor` (PyTorch's ReduceLROnPlateau with mode max). cosine: the score does not matter. A score of NaN is never better.
    """

    def __init__(self, kind, base_rate, total_steps, warmup_steps=0, factor=0.5, patience=5, threshold=1e-4):
        if kind not in SCHEDULES:
            raise ValueError(f"expected a schedule of {', '.join(SCHEDULES)}, got {kind!r}")
        self.kind, self.base_rate, self.total_steps, self.warmup_steps = kind, base_rate, total_steps, warmup_steps
        self.factor, self.patience, self.threshold = factor, patience, threshold
        self.scale, self.best, self.bad_epochs = 1.0, -math.inf, 0

    def rate(self, step):
        rate = self.base_rate * self.scale * warmup_factor(step, self.warmup_steps)
        return rate * cosine_factor(step, self.total_steps, self.warmup_steps) if self.kind == "cosine" else rate

    def set_rate(self, optimizer, step):
        for group in optimizer.param_groups:
            group["lr"] = self.rate(step)

    def step_epoch(self, score):
        if self.kind != "plateau":
            return
        # A margin relative to the best, as PyTorch has it; scores below zero need it turned round to be a margin at all.
        margin = abs(self.best) * self.threshold if math.isfinite(self.best) else 0.0
        if score > self.best + margin:
            self.best, self.bad_epochs = score, 0
        else:
            self.bad_epochs += 1
        if self.bad_epochs > self.patience:
            self.scale, self.bad_epochs = self.scale * self.factor, 0

    def forget_scores(self):
        """What was best counts no more, since other data is scored from here on; the rate stays."""
        self.best, self.bad_epochs = -math.inf, 0

    def state_dict(self):
        return {"scale": self.scale, "best": self.best, "bad_epochs": self.bad_epochs}

    def load_state_dict(self, state):
        self.scale, self.best, self.bad_epochs = state["scale"], state["best"], state["bad_epochs"]
