"""A training run's folder: config.json, metrics.csv, checkpoints/ … and the rule that only one run writes into it."""

import os
import platform
import subprocess
import sys
from pathlib import Path

from constants import VERSION
from runtime.checkpoint import load_checkpoint
from runtime.errors import UserError
from runtime.files import open_own, refuse_existing, refuse_link, remove_leftovers, require_writable, try_lock, write_json

LAST, BEST, FINAL = "last.pt", "best_model.pt", "final_model.pt"
# What a run writes into its folder, and what scoring it adds.
WRITTEN = ("checkpoints/*.pt", "metrics.csv", "config.json", "samples/epoch_*.png", "tensorboard/events.out.tfevents.*",
           "scores_*.json", "scores_*.csv")


OWN_FOLDERS = ("checkpoints", "samples", "tensorboard")


def result_of(ended_as_planned):
    """
    The name of the checkpoint that a finished run is used with.

    The rule for all programs: a run whose learning rate fell to its end as planned (see runtime.schedule) is used with its last epoch,
    final_model.pt, which nothing was chosen for; any other with the epoch that was best on the data held out, best_model.pt.
    """
    return FINAL if ended_as_planned else BEST


def find_result(path):
    """The checkpoint of `path`, a file or the folder of a run: then the one that its final_model.pt names, or best_model.pt."""
    path = Path(path)
    if not path.is_dir():
        return path
    folder = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    final = folder / FINAL
    is_final = final.is_file() and load_checkpoint(final).get("result") == FINAL
    return final if is_final else folder / BEST


def claim_scores(output_dir, split, overwrite, is_first):
    """
    (JSON, CSV) of a --test-only, where they may be written: UserError where they exist, unless `overwrite`. The JSON is written last:
    without it there are no scores yet.
    """
    outputs = [os.path.join(output_dir, f"scores_{split}.{suffix}") for suffix in ("json", "csv")]
    if is_first:
        if os.path.exists(outputs[0]):
            refuse_existing(outputs, overwrite)
        require_writable(output_dir)
    return outputs


class RunFolder:
    """
    with RunFolder(path, resume=…, overwrite=…) as folder: … folder.checkpoints / "last.pt" …

    A folder that holds a run is refused, unless the run is resumed or overwritten. While it is open no other run can open it.
    active: False on all ranks but the first, which then write nothing and lock nothing. flag: the one that chooses the folder, named
    where another has to be chosen. occupied: what is said of a folder that holds a run; None: how to resume or replace it.
    """

    def __init__(self, path, resume=False, overwrite=False, active=True, flag="--output-dir", occupied=None):
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"
        self.resume, self.overwrite, self.active = resume, overwrite, active
        self.flag, self.occupied = flag, occupied
        self.lock_file = None

    def file(self, name):
        """The path of a checkpoint: LAST, BEST, FINAL or a name of the program's own."""
        return self.checkpoints / name

    def __enter__(self):
        if not self.active:
            return self
        self.refuse_earlier_run()
        self.make()
        require_writable(self.checkpoints)
        self.take_lock()
        self.remove_leftovers()
        if self.overwrite and not self.resume:
            self.clear()
        return self

    def remove_leftovers(self):
        """What a killed run left half written."""
        remove_leftovers(self.path)
        remove_leftovers(self.checkpoints)

    def refuse_earlier_run(self):
        """UserError where the folder holds a run that is neither resumed nor overwritten. Changes nothing, so it can be asked early."""
        self.refuse_links()
        if self.active and not self.resume and not self.overwrite and self.holds_a_run():
            last = self.checkpoints / LAST
            how = f"continue it with --resume {last}" if last.exists() else "its files are in the way"
            usual = f"holds an earlier run; {how}, pass --overwrite, or choose another {self.flag}"
            raise UserError(f"{self.path} {self.occupied or usual}")

    def refuse_links(self):
        """UserError where a folder that a run writes into, and clears, leads elsewhere."""
        for name in OWN_FOLDERS if self.active else ():
            refuse_link(self.path / name)

    def make(self):
        """Make the folder; UserError where it cannot be written to."""
        if self.active:
            require_writable(self.path)

    def holds_a_run(self):
        return any(self.checkpoints.glob("*.pt")) or (self.path / "metrics.csv").exists()

    def take_lock(self):
        """An advisory lock that the system lets go when the process ends, however it ends."""
        self.lock_file = open_own(self.path / ".lock", "a", encoding="utf-8")
        if not try_lock(self.lock_file):
            self.lock_file.close()
            raise UserError(f"another run is writing into {self.path}; wait for it, or choose another {self.flag}")

    def clear(self):
        """
        Remove an earlier run's own files, its scores included, and nothing else that lies there.

        wandb/ stays: each run has a folder of its own in it, which may be another program's or may still have to be uploaded.
        """
        for pattern in WRITTEN:
            for path in list(self.path.glob(pattern)):
                path.unlink(missing_ok=True)

    def write_config(self, **sections):
        """config.json: everything that was set, and what it ran on."""
        if self.active:
            write_json(self.path / "config.json", {**sections, "versions": versions(), "command": sys.argv})

    def __exit__(self, *exception):
        if self.lock_file:
            self.lock_file.close()


def output_dir_of_run(checkpoint_path, asked, elsewhere=False):
    """
    Where a resumed run writes: into its own folder. asked: --output-dir as given, or None. elsewhere: whether it may be another folder,
    which else is a UserError.
    """
    folder = run_folder_of(checkpoint_path)
    if asked is None:
        return str(folder)
    if not elsewhere and os.path.realpath(asked) != os.path.realpath(folder):
        raise UserError(f"--resume continues in the run's own folder {folder}; leave --output-dir out")
    return asked


def run_folder_of(checkpoint_path):
    """The folder of the run that a checkpoint belongs to."""
    parent = Path(checkpoint_path).resolve().parent
    return parent.parent if parent.name == "checkpoints" else parent


def versions():
    """What a result depends on besides the settings."""
    import numpy
    import torch

    found = {"chipmill": VERSION, "python": platform.python_version(), "torch": torch.__version__, "numpy": numpy.__version__}
    root = Path(__file__).resolve().parent.parent
    try:
        done = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5)
        if done.returncode == 0:
            found["git"] = done.stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        pass
    return found
