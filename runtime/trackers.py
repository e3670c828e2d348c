"""Weights & Biases and TensorBoard, or nothing in their place: log(values, step) and finish()."""

import os
from pathlib import Path


class NoTracker:
    """The tracker where none was asked for or installed."""

    def log(self, values, step):
        pass

    def finish(self):
        pass


class WandbTracker(NoTracker):
    def __init__(self, run):
        self.run = run

    def log(self, values, step):
        self.run.log(values, step=step)

    def finish(self):
        self.run.finish()


class TensorboardTracker(NoTracker):
    def __init__(self, writer):
        self.writer = writer

    def log(self, values, step):
        for key, value in values.items():
            self.writer.add_scalar(key, value, step)
        self.writer.flush()  # else events wait for up to two minutes, and are lost with a run that is stopped or killed

    def finish(self):
        self.writer.close()


def start_wandb(wanted, project, name, config, folder, console, run_id=None):
    """
    A tracker with log(values, step) and finish(). Without network set WANDB_MODE=offline. A missing package or login is a warning: the run
    continues, and metrics.csv has everything.
    """
    if not wanted:
        return NoTracker()
    try:
        import wandb

        os.environ.setdefault("WANDB_SILENT", "true")
        run = wandb.init(project=project, name=name, config=config, dir=str(folder), id=run_id, resume="allow" if run_id else None)
    except ImportError:
        console.warn("--wandb was asked for, but wandb is not installed (pip install wandb); continuing without it")
        return NoTracker()
    except Exception as error:  # no login, no network: nothing that a training run should die of
        console.warn(f"--wandb was asked for, but wandb cannot start ({' '.join(str(error).split())[:150]}); continuing without it")
        return NoTracker()
    return WandbTracker(run)


def start_tensorboard(wanted, folder, console):
    """A tracker that writes events into `folder`/tensorboard, or none with a warning where the package is missing."""
    if not wanted:
        return NoTracker()
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        console.warn("--tensorboard was asked for, but tensorboard is not installed (pip install tensorboard); continuing without it")
        return NoTracker()
    return TensorboardTracker(SummaryWriter(str(Path(folder) / "tensorboard")))
