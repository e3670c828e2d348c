"""Checkpoints, run folders, schedules, metrics.csv: what a run leaves behind. Run: pytest tests/test_checkpoint.py"""

import copy
import csv
import math
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from chipping.pan_chips import BadChip, read_chip
from metrics import SegmentationMetrics
from nets.smp_network import weights_from_file
from runtime.changed_data import follow_changed_data
from runtime.checkpoint import load_checkpoint, load_tensors, save_checkpoint
from runtime.distributed import Processes
from runtime.errors import UserError, explain
from runtime.logs import Console
from runtime.optimiser_step import optimiser_step
from runtime.run_folder import RunFolder, run_folder_of
from runtime.run_log import MetricsFile
from runtime.run_state import Position, RunState
from runtime.running_sums import RunningSums
from runtime.saver import Saver
from runtime.schedule import Schedule
from runtime.trackers import NoTracker, start_wandb
from runtime.unreadable import Problem, Unreadable

ROOT = Path(__file__).resolve().parent.parent
WHOLE = {"kind": "segmentation", "model": {}, "settings": {"lr": 0.1}, "state": {"model": {"w": torch.arange(3.0)}, "epoch": 2}, "data": {}}


def test_a_checkpoint_comes_back_and_loads_without_running_code(tmp_path):
    save_checkpoint(tmp_path / "a.pt", WHOLE)
    back = load_checkpoint(tmp_path / "a.pt", "segmentation")
    assert back["state"]["model"]["w"].tolist() == [0.0, 1.0, 2.0] and back["settings"] == {"lr": 0.1}
    assert torch.load(tmp_path / "a.pt", weights_only=True)["format"] == "chipmill-checkpoint-1"


def test_equal_content_gives_equal_bytes_whichever_strings_and_containers_are_one_object(tmp_path):
    def content(word, pair):
        return {**WHOLE, "settings": {"rate": word, "other": word}, "data": {"bands": [word, "red"], "rate": pair, "again": pair}}

    shared = (0.1, ["x"])
    one = content("rate", shared)
    other = content("".join(["ra", "te"]), shared)  # a string of the same letters, but an object of its own
    other["data"]["again"] = (0.1, ["".join(["x"])])
    save_checkpoint(tmp_path / "one.pt", one)
    save_checkpoint(tmp_path / "other.pt", other)
    assert (tmp_path / "one.pt").read_bytes() == (tmp_path / "other.pt").read_bytes()
    assert load_checkpoint(tmp_path / "one.pt")["data"] == other["data"]  # tuples are tuples still


def trained(state=None, steps=2):
    """State of a network, two of whose layers share weights, and its AdamW after `steps` steps, from the beginning or on from `state`."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 3))
    model[2].weight = model[0].weight
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    if state:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.arange(12.0).view(4, 3)).square().sum().backward()
        optimizer.step()
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict()}


def test_saved_loaded_and_saved_again_is_the_same_file(tmp_path):
    whole = {**WHOLE, "state": {**trained(), "rows": torch.arange(12.0).view(3, 4).t(), "part": torch.arange(9.0)[2:5]}}
    save_checkpoint(tmp_path / "first.pt", whole)
    save_checkpoint(tmp_path / "second.pt", load_checkpoint(tmp_path / "first.pt"))
    assert (tmp_path / "first.pt").read_bytes() == (tmp_path / "second.pt").read_bytes()


def test_a_network_and_adamw_that_were_loaded_go_on_to_the_same_file(tmp_path):
    save_checkpoint(tmp_path / "half.pt", {**WHOLE, "state": trained(steps=2)})
    save_checkpoint(tmp_path / "resumed.pt", {**WHOLE, "state": trained(load_checkpoint(tmp_path / "half.pt")["state"], steps=3)})
    save_checkpoint(tmp_path / "whole.pt", {**WHOLE, "state": trained(steps=5)})
    assert (tmp_path / "resumed.pt").read_bytes() == (tmp_path / "whole.pt").read_bytes()
    assert (tmp_path / "half.pt").read_bytes() != (tmp_path / "whole.pt").read_bytes()


class Hostile:
    def __reduce__(self):
        return os.system, ("touch /tmp/chipmill_was_here",)


def damaged(tmp_path, how):
    path = tmp_path / "bad.pt"
    if how == "missing":
        (tmp_path / "last.pt").touch()
    elif how == "cut short":
        save_checkpoint(path, WHOLE)
        path.write_bytes(path.read_bytes()[:-300])
    elif how == "empty":
        path.touch()
    elif how == "text":
        path.write_text("not a checkpoint")
    elif how == "hostile":
        torch.save({"x": Hostile()}, path)
    elif how == "hostile old style":
        path.write_bytes(pickle.dumps(Hostile()))
    elif how == "not ours":
        torch.save({"model_state_dict": {}}, path)
    elif how == "other kind":
        save_checkpoint(path, {**WHOLE, "kind": "pansharpen"})
    elif how == "newer":
        torch.save({**WHOLE, "format": "chipmill-checkpoint-9"}, path)
    elif how == "lacks parts":
        torch.save({"format": "chipmill-checkpoint-1", "kind": "segmentation"}, path)
    elif how == "folder":
        path.mkdir()
    return path


@pytest.mark.parametrize(
    ("how", "words"),
    [("missing", "does not exist; in its folder are: last.pt"), ("cut short", "cut short"), ("empty", "cut short|damaged"),
     ("text", "not a checkpoint|damaged"), ("hostile", "refused"), ("hostile old style", "not a checkpoint"),
     ("not ours", "not a checkpoint of"), ("other kind", "is a pansharpen checkpoint, expected segmentation"), ("newer", "update"),
     ("lacks parts", "lacks model"), ("folder", "is a folder")],
)
def test_what_is_no_whole_checkpoint_of_ours_is_one_line(tmp_path, how, words):
    with pytest.raises(UserError, match=words) as caught:
        load_checkpoint(damaged(tmp_path, how), "segmentation")
    assert "\n" not in str(caught.value) or len(str(caught.value).splitlines()) == 1
    assert not os.path.exists("/tmp/chipmill_was_here")


def rezip(path, source, change):
    """A copy of a .pt file whose records change(name, content) gives as (content, compression)."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w", compresslevel=1) as new:
        for name in old.namelist():
            content, compression = change(name, old.read(name))
            new.writestr(zipfile.ZipInfo(name), content, compression, compresslevel=1)
    return path


MEET_IT = """
import resource, sys
from chipping.pan_chips import read_chip
from nets.smp_network import weights_from_file
from runtime.checkpoint import load_checkpoint
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for load in (load_checkpoint, read_chip, weights_from_file):
    try:
        load(sys.argv[1])
    except Exception as error:
        print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def make_bomb(path, megabytes):
    save_checkpoint(path.with_name("small.pt"), WHOLE)
    return rezip(path, path.with_name("small.pt"), lambda name, content: (
        (bytes(megabytes << 20) if name.endswith("data/0") else content), zipfile.ZIP_DEFLATED))


def test_a_compressed_record_is_refused_before_it_is_loaded_whoever_reads_it(tmp_path, monkeypatch):
    bomb = make_bomb(tmp_path / "bomb.pt", 4)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was loaded"))
    for load, kind in ((load_checkpoint, UserError), (read_chip, BadChip), (weights_from_file, UserError)):
        with pytest.raises(kind, match="refused: its record .*data/0 is compressed, 4.2 MB when unpacked"):
            load(bomb)


@pytest.mark.slow
def test_a_compressed_record_takes_no_memory(tmp_path):
    bomb = make_bomb(tmp_path / "bomb.pt", 200)
    assert bomb.stat().st_size < 2 << 20
    done = subprocess.run([sys.executable, "-c", MEET_IT, bomb], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *said, grown = done.stdout.splitlines()
    assert len(said) == 3 and int(grown) < 50, done.stdout


def test_records_that_claim_more_than_the_file_has_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was loaded"))
    path = tmp_path / "overlapping.pt"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data/0", bytes(10_000))
        for number in range(1, 9):  # nine records at one place of the file
            record = copy.copy(file.infolist()[0])
            record.filename = f"archive/data/{number}"
            file.filelist.append(record)
    with pytest.raises(UserError, match="its records claim 90.0 kB in a file of 1"):
        load_checkpoint(path)


@pytest.mark.parametrize("new", [True, False])
def test_what_torch_saves_is_loaded_in_both_of_its_formats(tmp_path, new):
    torch.save({"w": torch.arange(1000.0), "none": torch.zeros(0)}, tmp_path / "a.pt", _use_new_zipfile_serialization=new)
    assert load_tensors(tmp_path / "a.pt")["w"].sum() == 499_500 and weights_from_file(tmp_path / "a.pt")["w"].shape == (1000,)


def test_a_failure_while_saving_leaves_the_old_checkpoint_whole(tmp_path, monkeypatch):
    save_checkpoint(tmp_path / "last.pt", WHOLE)

    def full_disk(thing, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError):
        save_checkpoint(tmp_path / "last.pt", {**WHOLE, "settings": {"lr": 9.0}})
    assert load_checkpoint(tmp_path / "last.pt")["settings"] == {"lr": 0.1}
    assert os.listdir(tmp_path) == ["last.pt"]


def test_a_full_disk_is_called_so_and_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"kind": "segmentation", "model": {}, "settings": {}, "state": {"step": 1}, "data": {}})
    monkeypatch.setattr("runtime.files.create_new", lambda path: path.symlink_to("/dev/full"))  # every write meets a full disk
    with pytest.raises(OSError, match="last.pt") as full:
        save_checkpoint(path, {"kind": "segmentation", "model": {}, "settings": {}, "state": {"step": torch.zeros(10**6)}, "data": {}})
    assert explain(full.value)[0] == 1 and "no space left on the disk" in explain(full.value)[1]
    assert load_checkpoint(path)["state"] == {"step": 1} and list(tmp_path.iterdir()) == [path]


def test_a_folder_with_a_run_is_refused_and_two_runs_cannot_share_one(tmp_path):
    with RunFolder(tmp_path / "run") as folder:
        save_checkpoint(folder.checkpoints / "last.pt", WHOLE)
        with pytest.raises(UserError, match="another run is writing"), RunFolder(tmp_path / "run", resume=True):
            pass
    with pytest.raises(UserError, match="--resume .*last.pt, pass --overwrite"), RunFolder(tmp_path / "run"):
        pass
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with RunFolder(tmp_path / "run", overwrite=True) as folder:
        assert not list(folder.checkpoints.glob("*.pt")) and (folder.path / "notes.txt").exists()
    assert run_folder_of(tmp_path / "run" / "checkpoints" / "last.pt") == tmp_path / "run"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_output_folder_is_told_before_any_work(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="cannot write"), RunFolder(tmp_path / "run"):
        pass


def test_an_output_folder_that_is_a_file_is_told(tmp_path):
    (tmp_path / "run").touch()
    with pytest.raises(UserError, match="cannot write"), RunFolder(tmp_path / "run"):
        pass


def test_metrics_rows_of_epochs_that_are_done_again_are_dropped(tmp_path):
    table = MetricsFile(tmp_path / "metrics.csv")
    for epoch in range(3):
        table.add({"epoch": epoch, "loss": 0.1 * epoch, "iou": math.nan})
    MetricsFile(tmp_path / "metrics.csv", from_epoch=2).add({"epoch": 2, "loss": 9.0, "iou": 0.5, "new": 1})
    rows = list(csv.DictReader(open(tmp_path / "metrics.csv")))
    assert [r["epoch"] for r in rows] == ["0", "1", "2"]
    assert rows[0]["iou"] == "" and rows[0]["new"] == "" and rows[2]["loss"] == "9.0" and float(rows[1]["loss"]) == 0.1


def test_plateau_is_pytorchs_reduce_on_plateau():
    scores = [0.1, 0.2, 0.2, 0.2, 0.19, 0.2, 0.2, 0.2, 0.2, 0.25, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode="max", factor=0.5, patience=5)
    ours = Schedule("plateau", 0.1, total_steps=100)
    for score in scores:
        theirs.step(score)
        ours.step_epoch(score)
        assert ours.rate(50) == pytest.approx(optimizer.param_groups[0]["lr"])
    assert ours.scale < 1.0
    again = Schedule("plateau", 0.1, total_steps=100)
    again.load_state_dict(ours.state_dict())
    assert again.rate(0) == ours.rate(0)


def test_a_score_of_nan_is_never_an_improvement():
    schedule = Schedule("plateau", 1.0, 10, patience=0)
    schedule.step_epoch(float("-inf"))
    schedule.step_epoch(math.nan)
    assert schedule.scale == 0.25


def test_warmup_rises_in_equal_steps_and_cosine_falls_to_a_hundredth():
    schedule = Schedule("cosine", 1.0, total_steps=11, warmup_steps=4)
    assert [schedule.rate(s) for s in range(4)] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert schedule.rate(7) == pytest.approx(0.505)
    assert schedule.rate(10) == pytest.approx(0.01)
    assert Schedule("plateau", 1.0, 5).rate(0) == 1.0


def test_a_missing_wandb_is_a_warning_and_nothing_more(tmp_path, monkeypatch, capsys):
    import sys

    monkeypatch.setitem(sys.modules, "wandb", None)
    tracker = start_wandb(True, "p", None, {}, tmp_path, Console(quiet=True))
    tracker.log({"loss": 1.0}, step=0)
    assert type(tracker) is NoTracker and "not installed" in capsys.readouterr().err


def test_files_that_other_processes_could_not_read_are_kept_in_a_checkpoint_too(capsys):
    noted = Unreadable("patches", "set", 8, Two())
    noted.note([Problem("a.npy", "missing")])
    kept = noted.state_dict()
    assert kept == {"a.npy": "missing", "b.npy": "cut short"}
    noted.report(Console())
    assert "2 of 8 patches" in capsys.readouterr().err  # a save in between does not silence them
    resumed = Unreadable("patches", "set", 8, Processes())
    resumed.load_state_dict(kept)
    resumed.report(Console())
    assert resumed.left_out() == "; 2 unreadable patches left out" and not capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ what the loops share


class Two(Processes):
    """The first of two processes, the other of which always has the same share."""

    def __init__(self):
        super().__init__(size=2)

    def sum(self, tensor):
        return 2 * tensor

    def add_gradients(self, parameters):
        for parameter in parameters:
            parameter.grad *= 2

    def gather(self, value):
        return [value, {"b.npy": "cut short"}]


def count(pixels):
    metrics = SegmentationMetrics(2)
    metrics.update(torch.ones(1, 1, pixels), torch.ones(1, 1, pixels, dtype=torch.uint8))
    return metrics


def test_running_sums_are_those_of_all_processes():
    sums = RunningSums(("l1",), torch.device("cpu"), Two(), counts=count(3))
    sums.add({"l1": torch.tensor(5.0)}, 3)
    assert sums.means() == ({"l1": 10.0 / 6}, 6) and int(sums.summed_counts()["confusion"].sum()) == 6
    kept = sums.state_dict()
    first, second = (RunningSums(("l1",), torch.device("cpu"), Processes(rank, 1), counts=count(1)) for rank in (0, 1))
    for part in (first, second):
        part.load_state_dict(kept)
    assert first.means() == ({"l1": 10.0 / 6}, 6) and int(first.summed_counts()["confusion"].sum()) == 6
    assert second.means() == ({"l1": 0.0}, 0) and int(second.summed_counts()["confusion"].sum()) == 0
    other = RunningSums(("l1",), torch.device("cpu"), Processes(1, 1), shared=True)
    other.add({"l1": torch.tensor(5.0)}, 3)
    assert other.means() == ({"l1": 0.0}, 0)  # what is shared counts in the first process alone


def one_optimiser_step(gradient, processes, **how):
    """The weight 0 of one number after a step of size 1 with a loss scale of 8."""
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    scaler.scale(model(torch.tensor([[gradient]])).sum()).backward()
    optimiser_step(model, torch.optim.SGD(model.parameters(), lr=1.0), scaler, processes, **how)
    return model.weight.item()


def test_an_optimiser_step_adds_unscales_divides_and_clips():
    assert one_optimiser_step(6.0, Processes()) == -6.0
    assert one_optimiser_step(6.0, Two(), samples=4) == -3.0
    assert one_optimiser_step(6.0, Two(), samples=4, grad_clip=0.5) == pytest.approx(-0.5)
    assert one_optimiser_step(6.0, Two(), samples=4, grad_clip=5.0) == -3.0
    assert one_optimiser_step(6.0, Processes(), took_part=False) == 0.0


@pytest.mark.parametrize("part", ["trained_on", "scored_on"])
def test_on_other_data_only_what_no_longer_holds_is_forgotten(part, capsys):
    position = Position(epoch=2, step_in_epoch=3, step=23, best_score=0.5, best_epoch=1, epochs_without_gain=4)
    sums, schedule = RunningSums(("l1",), torch.device("cpu"), Processes()), Schedule("plateau", 1.0, 100)
    unreadable = Unreadable("patches", "set", 8, Processes())
    sums.add({"l1": torch.tensor(5.0)}, 1)
    schedule.step_epoch(0.5)
    unreadable.note([Problem("a.npy", "missing")])
    before = {"trained_on": "a", "scored_on": "b"}
    follow_changed_data(Console(), "patches", before, {**before, part: "c"}, position=position, running=sums, schedule=schedule,
                        unreadable=unreadable, steps_per_epoch=7)
    assert "other patches" in capsys.readouterr().err
    if part == "trained_on":
        assert (position.epoch, position.step_in_epoch, position.step, position.best_score) == (2, 0, 14, 0.5)
        assert sums.means()[1] == 0 and not len(unreadable) and schedule.best == 0.5
    else:
        assert (position.step_in_epoch, position.step, position.best_score, position.best_epoch) == (3, 23, None, None)
        assert position.epochs_without_gain == 0 and sums.means()[1] == 1 and len(unreadable) and schedule.best == -math.inf


@pytest.mark.parametrize(("now", "falls", "replaces"), [
    (0.4, False, False), (0.5, False, True), (0.6, False, True), (0.6, True, False), (0.4, True, True),
])
def test_a_best_model_of_before_a_resume_gives_way_to_none_that_is_worse(tmp_path, now, falls, replaces):
    """An older last.pt is resumed, which knows of no best score yet."""
    position, header = Position(), {**WHOLE, "data": {"scored_on": "here"}}
    (tmp_path / "checkpoints").mkdir()
    save_checkpoint(RunFolder(tmp_path).file("best_model.pt"), {**header, "state": {"best_score": 0.5}})
    for scored_on, resumed, kept in (("here", True, 0.5), ("elsewhere", True, None), ("here", False, None)):
        saver = Saver(RunFolder(tmp_path), RunState(position), header, Processes(), minutes=10, resume_with="")
        saver.keep_best(Console(), resumed, scored_on)
        assert saver.kept == kept
        assert saver.best(False, falls) == []  # as an epoch without validation, before any score
        position.judge(now, True)
        assert saver.best(True, falls) == (["best_model.pt"] if replaces or kept is None else [])
        assert saver.best(False, falls) == []
        position.forget_best()
    saver.keep_best(Console(), True, "here")
    position.judge(now, True)
    assert saver.kept_words(-1) == (", but -0.5000 was reached before and is kept" if now < 0.5 else "")
