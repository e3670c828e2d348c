"""What a run tells: lines and progress bars for people, metrics.csv for programs, W&B and TensorBoard where asked for."""

import csv
import io
import os
import sys
from pathlib import Path

from runtime.errors import RunError
from runtime.files import write_text


class Console:
    """say() writes a line to stderr, progress() shows a bar on a terminal; silent when quiet. Results go to stdout with print()."""

    def __init__(self, quiet=False):
        self.quiet = quiet

    def say(self, text):
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def warn(self, text):
        """For what the user should know even when quiet."""
        print(f"warning: {text}", file=sys.stderr, flush=True)

    def progress(self, total, description, initial=0):
        from tqdm import tqdm

        hidden = self.quiet or not sys.stderr.isatty()
        return tqdm(total=total, desc=description, initial=initial, disable=hidden, leave=False, dynamic_ncols=True, file=sys.stderr)


class SilentConsole(Console):
    """For all ranks but the first."""

    def __init__(self):
        super().__init__(quiet=True)

    def warn(self, text):
        pass


class MetricsFile:
    """
    metrics.csv: one row an epoch. The file is written anew and renamed for each row: an epoch is long, and no kill leaves half a row.

    from_epoch: rows of this epoch and later are dropped, since a resumed run makes them again. active: False writes nothing.
    """

    def __init__(self, path, from_epoch=0, active=True):
        self.path = Path(path)
        self.active = active
        self.rows = []
        if active and self.path.exists():
            with open(self.path, newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            try:
                self.rows = [row for row in rows if int(row["epoch"]) < from_epoch]
            except (KeyError, TypeError, ValueError) as error:
                raise RunError(f"{self.path} has no readable epoch column; move it away and resume again") from error
            if len(self.rows) < len(rows):
                self.write()

    def add(self, row):
        """row: {column: number or text}; None and NaN are empty cells."""
        if self.active:
            self.rows.append({key: cell(value) for key, value in row.items()})
            self.write()

    def write(self):
        columns = list(dict.fromkeys(key for row in self.rows for key in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self.path, text.getvalue())


def cell(value):
    """Text of a number that reads back as the same number; empty for nothing."""
    if value is None or value != value:
        return ""
    return repr(float(value)) if isinstance(value, float) else str(value)


class NoTracker:
    """In place of a tracker that was not asked for or is not installed."""

    def log(self, values, step):
        pass

    def finish(self):
        pass


class WandbTracker(NoTracker):
    def __init__(self, run):
        self.run = run

    def log(self, values, step):
        self.run.log({key: value for key, value in values.items() if value == value}, step=step)

    def finish(self):
        self.run.finish()


class TensorboardTracker(NoTracker):
    def __init__(self, writer):
        self.writer = writer

    def log(self, values, step):
        for key, value in values.items():
            if value == value:
                self.writer.add_scalar(key, value, step)

    def finish(self):
        self.writer.close()


def start_wandb(wanted, project, name, config, folder, console, run_id=None):
    """
    A tracker with log(values, step) and finish(). Without network set WANDB_MODE=offline. A missing package or login is a warning: the run
    goes on, and metrics.csv has everything.
    """
    if not wanted:
        return NoTracker()
    try:
        import wandb

        os.environ.setdefault("WANDB_SILENT", "true")
        run = wandb.init(project=project, name=name, config=config, dir=str(folder), id=run_id, resume="allow" if run_id else None)
    except ImportError:
        console.warn("--wandb was asked for, but wandb is not installed (pip install wandb); going on without it")
        return NoTracker()
    except Exception as error:  # no login, no network: nothing that a training run should die of
        console.warn(f"--wandb was asked for, but wandb can't start ({' '.join(str(error).split())[:150]}); going on without it")
        return NoTracker()
    return WandbTracker(run)


def start_tensorboard(wanted, folder, console):
    """A tracker that writes events into `folder`/tensorboard, or none with a warning where the package is missing."""
    if not wanted:
        return NoTracker()
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        console.warn("--tensorboard was asked for, but tensorboard is not installed (pip install tensorboard); going on without it")
        return NoTracker()
    return TensorboardTracker(SummaryWriter(str(Path(folder) / "tensorboard")))
