"""When and under which names a run's checkpoints are written: by the clock, on a signal, after each epoch."""

import time

from runtime.checkpoint import load_checkpoint, save_checkpoint
from runtime.errors import UserError
from runtime.finite import require_finite_weights
from runtime.interrupts import NOTHING, SAVE, StopRequest
from runtime.run_folder import BEST, FINAL, LAST


class Clock:
    """due(): is it time for last.pt? epoch_seconds(): how long did the epoch take?"""

    def __init__(self, save_minutes):
        self.save_seconds = 60.0 * save_minutes
        self.restart()

    def restart(self):
        """Both count from now on: called before the first step, since what comes before may take minutes."""
        self.saved = self.epoch = time.monotonic()

    def due(self):
        """True once each `save_minutes`."""
        if time.monotonic() - self.saved < self.save_seconds:
            return False
        self.saved = time.monotonic()
        return True

    def epoch_seconds(self):
        """Since the last call."""
        now = time.monotonic()
        seconds, self.epoch = now - self.epoch, now
        return round(seconds, 3)


class Saver:
    """
    with Saver(folder, state, header, processes, minutes=10, resume_with="--resume …") as saver: …

    header: the checkpoint's "kind", "model", "settings" and "data"; the program may change values in it as the run goes. All processes call
    every method, the first one writes. minutes: last.pt at least this often within an epoch; 0: after every step. resume_with: how to
    continue, told when a signal ends the run.
    """

    def __init__(self, folder, state, header, processes, *, minutes, resume_with):
        self.folder, self.state, self.header, self.processes = folder, state, header, processes
        self.resume_with = resume_with
        self.clock = Clock(minutes)
        self.stop = StopRequest()
        self.kept = None  # the score of an earlier best_model.pt, see keep_best

    def __enter__(self):
        self.stop.__enter__()
        return self

    def __exit__(self, *exception):
        self.stop.__exit__(*exception)

    def save(self, *names, **header):
        """The whole state under some names in checkpoints/, each whole or not at all. header: parts of it that differ in these files."""
        state = self.state.to_dict()
        if self.processes.is_first:
            for name in names:
                save_checkpoint(self.folder.file(name), {**self.header, **header, "state": state})

    def after_step(self):
        """Save when the clock or a signal in any process wants it; on a signal leave (KeyboardInterrupt or Terminated)."""
        wanted = self.processes.highest(self.stop.wanted or (SAVE if self.clock.due() else NOTHING))
        if not wanted:
            return
        position = self.state.position
        require_finite_weights(self.state.parts["model"], position.step)
        self.save(LAST)
        if wanted > SAVE:
            self.stop.leave(f"Saved in epoch {position.epoch} after step {position.step}; {self.resume_with}", wanted)

    def after_epoch(self, finished):
        """last.pt, written after everything else of the epoch: a run killed before it does the epoch again, with the same result."""
        self.save(LAST)
        wanted = self.processes.highest(self.stop.wanted)
        if wanted > NOTHING and not finished:
            self.stop.leave(f"Saved after epoch {self.state.position.epoch - 1}; {self.resume_with}", wanted)

    def keep_best(self, console, resumed, scored_on):
        """
        Find the score that an earlier best_model.pt was kept for, the same in all processes; None where there is none or it was reached on
        other data (scored_on: the fingerprint of today's).

        A file that is damaged or gone is a warning, and the next epoch is the best.
        """
        position, path, score, fault = self.state.position, self.folder.file(BEST), None, None
        if resumed and self.processes.is_first and (path.exists() or position.best_score is not None):
            try:
                kept = load_checkpoint(path, self.header["kind"])
                score = kept["state"].get("best_score") if kept["data"].get("scored_on", scored_on) == scored_on else None
            except UserError as error:
                fault = str(error)
        score, fault = self.processes.gather((score, fault))[0]
        if fault:
            console.warn(f"{fault}; the next epoch takes its place")
            position.best_score = position.best_epoch = None
        self.kept = score

    def best(self, is_best, falls=False):
        """
        [best_model.pt] where an epoch that was judged belongs there, else []: none of the run was better, nor the one that is kept from
        before it was resumed. falls: lower scores are better.
        """
        score = self.state.position.best_score
        beaten = is_best and self.kept is not None and (score > self.kept if falls else score < self.kept)
        return [BEST] if is_best and not beaten else []

    def kept_words(self, sign=1):
        """`, but 0.9100 was reached before and is kept`, or nothing. sign: -1 where scores are kept negated."""
        best = self.state.position.best_score
        return f", but {sign * self.kept:.4f} was reached before and is kept" if self.kept is not None and self.kept > best else ""


def final_reaches(position, folder, kind, processes):
    """
    Whether final_model.pt is of this position or a later one: nothing is left to do. One that is missing or damaged is of none.

    The first process looks for all.
    """
    reached = False
    if processes.is_first:
        try:
            state = load_checkpoint(folder.checkpoints / FINAL, kind)["state"]
            reached = (state["epoch"], state["step_in_epoch"]) >= (position.epoch, position.step_in_epoch)
        except (UserError, KeyError, TypeError):
            pass
    return bool(processes.highest(int(reached)))
