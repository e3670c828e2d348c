"""Where a run is, with everything that it needs to continue."""

import dataclasses

from runtime.errors import UserError, one_line


@dataclasses.dataclass
class Position:
    """Epochs and steps count from 0 and name what comes next; `step` counts over all epochs."""

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    best_score: float | None = None
    best_epoch: int | None = None
    epochs_without_gain: int = 0
    wandb_id: str | None = None  # of the W&B run that a resumed one continues

    def after_step(self):
        self.step += 1
        self.step_in_epoch += 1

    def after_epoch(self):
        self.epoch += 1
        self.step_in_epoch = 0

    def judge(self, score, is_best):
        """Keep the score of the current epoch if it is the best so far; count the epoch unless it is better than all before."""
        gained = is_best and score != self.best_score
        self.epochs_without_gain = 0 if gained else self.epochs_without_gain + 1
        if is_best:
            self.best_score, self.best_epoch = score, self.epoch

    def restart_epoch(self, steps_per_epoch):
        """Back to the beginning of the current epoch, counted in steps of other data."""
        self.step, self.step_in_epoch = self.epoch * steps_per_epoch, 0

    def forget_best(self):
        self.best_score, self.best_epoch, self.epochs_without_gain = None, None, 0


class RunState:
    """
    The "state" of a checkpoint: the position's fields beside {name: state_dict} of each part.

    model, optimizer, schedule, scaler, running … : anything with state_dict() and load_state_dict(). Parts that differ between processes
    add themselves up in state_dict(), so all processes call to_dict(), in the same order.
    """

    def __init__(self, position, **parts):
        self.position, self.parts = position, parts

    def names(self):
        """The keys that a checkpoint's state must have for restore()."""
        return (*(field.name for field in dataclasses.fields(self.position)), *self.parts)

    def to_dict(self):
        return {**dataclasses.asdict(self.position), **{name: part.state_dict() for name, part in self.parts.items()}}

    def restore(self, saved, path):
        """
        Continue from `saved`, a to_dict() of an earlier run; its model is expected to be loaded already. UserError names `path` where the
        parts do not fit.

        The optimiser's moments come from the checkpoint, its settings (weight decay, betas) from this run's flags. A scaler without state
        (fp32 and bf16 have none) leaves the new one as it is.
        """
        try:
            for field in dataclasses.fields(self.position):
                setattr(self.position, field.name, saved[field.name])
            for name, part in self.parts.items():
                if name == "model" or name == "scaler" and not saved[name]:
                    continue
                fresh = [dict(group) for group in part.param_groups] if name == "optimizer" else []
                part.load_state_dict(saved[name])
                for group, settings in zip(part.param_groups if fresh else (), fresh, strict=True):
                    group.update({key: value for key, value in settings.items() if key != "params"})
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            reason = one_line(error)[:80]
            raise UserError(f"{path} cannot be resumed: its state is not that of such a run ({reason}); take another checkpoint") from error
