"""A training run that is named by the file of its best weights, such as checkpoints/bigdet.bin."""

from pathlib import Path

from runtime.errors import UserError
from runtime.files import refuse_link, remove_leftovers
from runtime.run_folder import BEST, LAST, RunFolder

RUN, STATE = ".run", ".last.pt"  # endings of a run's folder, and of the file that it continues from


class RunBeside(RunFolder):
    """
    A RunFolder whose checkpoints lie beside it, under names of their own. Of NAME.ending they are:

        NAME.ending     the best weights
        NAME.last.pt    the state that the run continues from
        NAME.run/       config.json, metrics.csv, samples/ and the lock
    """

    def __init__(self, best, resume=False, overwrite=False, active=True, flag="--checkpoint-out"):
        self.best = Path(best)
        if self.best.name.endswith((RUN, STATE)):
            stem = self.best.name.split(".")[0] or "model"
            raise UserError(f"{flag} {best} is a name for the state of a run; pass one like {stem}.bin")
        stem = self.best.stem
        super().__init__(self.best.parent / f"{stem}{RUN}", resume, overwrite, active, flag)
        self.checkpoints, self.last = self.best.parent, self.best.parent / f"{stem}{STATE}"

    def file(self, name):
        return {BEST: self.best, LAST: self.last}.get(name) or self.best.with_name(f"{self.best.stem}.{name}")

    def holds_a_run(self):
        return self.best.exists() or self.last.exists() or (self.path / "metrics.csv").exists()

    def refuse_earlier_run(self):
        self.refuse_links()
        if self.active and self.best.is_dir():
            raise UserError(f"{self.flag} {self.best} is a folder; pass the name of a file")
        if self.active and not self.resume and not self.overwrite and self.holds_a_run():
            held = next((path for path in (self.best, self.last) if path.exists()), self.path)
            how = f"continue it with --resume {self.last}" if self.last.exists() else "its files are in the way"
            raise UserError(f"{held} holds an earlier run; {how}, pass --overwrite, or choose another {self.flag}")

    def refuse_links(self):
        if self.active:
            refuse_link(self.path)
        super().refuse_links()

    def remove_leftovers(self):
        """Other runs may be writing into the folder of the checkpoints at this moment."""
        remove_leftovers(self.path)
        for path in (self.best, self.last):
            leftover = path.with_name(f".{path.stem}.part{path.suffix}")  # see atomic_path
            if not leftover.is_dir():
                leftover.unlink(missing_ok=True)

    def clear(self):
        super().clear()
        for path in (self.best, self.last):
            path.unlink(missing_ok=True)


def best_of_run(path, name):
    """The file of the best weights of the run that a checkpoint `path` belongs to. name: the one that it had."""
    path = Path(path)
    if path.name.endswith(STATE):
        return path.with_name(path.name.removesuffix(STATE) + Path(name).suffix)
    return path
