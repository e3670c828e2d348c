"""The log of a run: metrics.csv always, W&B or TensorBoard where asked for, all from one row an epoch."""

import csv
import io
from pathlib import Path

from runtime.errors import RunError
from runtime.files import write_text
from runtime.trackers import start_tensorboard, start_wandb


class RunLog:
    """
    with RunLog(folder, position, console, active=…, wandb=…, tensorboard=…, project=…, name=…, config=…) as log: log.epoch(row)

    active: False on all ranks but the first, which then write nothing. config: settings that W&B shows. Columns train_loss, val_…, test_…
    become train/loss … in W&B and TensorBoard.
    """

    def __init__(self, folder, position, console, *, active, wandb=False, tensorboard=False, project=None, name=None, config=None):
        self.table = MetricsFile(folder.path / "metrics.csv", from_epoch=position.epoch, active=active)
        self.trackers = (
            start_wandb(wandb and active, project, name, config, folder.path, console, position.wandb_id),
            start_tensorboard(tensorboard and active, folder.path, console),
        )

    def __enter__(self):
        return self

    def epoch(self, row, **only_in_the_table):
        """row: {column: number}. NaN and None are empty cells, and not tracked."""
        self.table.add({**row, **only_in_the_table})
        named = {grouped(key): value for key, value in row.items() if cell(value)}
        for tracker in self.trackers:
            tracker.log(named, step=row["epoch"])

    def __exit__(self, kind, *rest):
        """W&B and TensorBoard get to know of a run that ended well; one that was interrupted may be continued under the same id."""
        if kind is None:
            for tracker in self.trackers:
                tracker.finish()


def grouped(column):
    """train_fire_iou → train/fire_iou."""
    return column.replace("_", "/", 1) if column.startswith(("train_", "val_", "test_")) else column


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
