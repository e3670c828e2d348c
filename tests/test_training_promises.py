"""What every training program promises. A new one joins with an entry in training_programs.py."""

import csv
import importlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook
from training_process import gradients_of
from training_programs import (
    EPOCHS,
    OTHER_TASKS,
    PROGRAMS,
    ROOT,
    STEPS,
    Killed,
    assert_same_run,
    at_step,
    change,
    kill,
    load,
    names,
    rows,
    ruin,
    same,
    torchrun,
)

from runtime import saver
from runtime.run_log import RunLog

LAST, BEST, FINAL = "last.pt", "best_model.pt", "final_model.pt"


def name_of(program):
    return f"{program.name}{program.tiny[-1] if '--task' in program.tiny else ''}"


@pytest.fixture(scope="module", params=PROGRAMS, ids=name_of)
def program(request):
    return request.param


# For tests in which labels, scores or losses matter. What else is promised is the same code for every task of train.py.
EVERY_TASK = [*PROGRAMS, *(pytest.param(task, marks=pytest.mark.slow) for task in OTHER_TASKS)]
for_every_task = pytest.mark.parametrize("program", EVERY_TASK, ids=name_of, indirect=True, scope="module")


@pytest.fixture(scope="module")
def data(program, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "data"
    program.make_data(folder)
    return folder


@pytest.fixture(scope="module")
def undisturbed(program, data, tmp_path_factory):
    """The folder of a run of EPOCHS epochs that nothing happened to."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    assert program.run(program.begin(data, folder)) == 0
    return folder


@pytest.fixture
def run(tmp_path):
    """The folder of a run that is still to come."""
    return tmp_path / "run"


@pytest.fixture
def finished(undisturbed, run):
    """A copy of the undisturbed run, to do something to."""
    shutil.copytree(undisturbed, run)
    return run


def the_line(capsys, program):
    """The only line on stderr, which is the program's own."""
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{program.name}.py: ")
    return line


def bytes_of(folder):
    return {name: (folder / name).read_bytes() for name in names(folder)}


# ------------------------------------------------------------------------------------------------ files


@for_every_task
def test_a_run_leaves_its_table_its_settings_its_samples_and_whole_checkpoints(program, undisturbed):
    assert all(program.file(undisturbed, name).is_file() for name in ("config.json", "metrics.csv", LAST, BEST, FINAL))
    assert not [name for name in names(undisturbed) if name.endswith((".part", ".tmp"))]
    table = rows(undisturbed)
    assert [row["epoch"] for row in table] == ["0", "1"] and [row["step"] for row in table] == ["3", "6"]
    best = [row["epoch"] for row in table if row["best"] == "1"]
    assert {p.name for p in program.file(undisturbed, "samples").iterdir()} == {f"epoch_{epoch}.png" for epoch in best}
    config = json.loads(program.file(undisturbed, "config.json").read_text())
    assert config["settings"]["lr"] == float(table[0]["lr"]) and "torch" in config["versions"]
    assert load(undisturbed, BEST)["state"]["best_epoch"] == int(best[-1])
    last, final = load(undisturbed, LAST), load(undisturbed, FINAL)
    if not program.beside:
        assert final.pop("result") == BEST  # its learning rate was not planned to fall
    for checkpoint in (last, final):
        checkpoint["data"].pop("threshold", None)
    assert same(last, final)


def test_files_of_another_run_without_its_checkpoints_are_refused_and_left_alone(program, data, run, capsys):
    table = program.file(run, "metrics.csv")
    table.parent.mkdir(parents=True)
    table.write_text("epoch\n0\n")
    assert program.run(program.begin(data, run)) == 2
    assert "holds an earlier" in the_line(capsys, program)
    assert bytes_of(run) == {str(table.relative_to(run)): b"epoch\n0\n"}


def test_a_run_has_its_folder_to_itself(program, data, run, capsys):
    codes = []
    with at_step(STEPS - 1, lambda _: codes.append(program.run(program.go_on(data, run)))):
        assert program.run(program.begin(data, run, "--epochs", 1)) == 0
    assert codes == [2] and "another run is writing into" in the_line(capsys, program)


# ------------------------------------------------------------------------------------------------ going on


@for_every_task
@pytest.mark.parametrize(
    ("step", "save_minutes"), [(4, 0), (4, 10), *(pytest.param(step, 0, marks=pytest.mark.slow) for step in (0, 1, 3, 5))]
)
def test_killed_at_a_step_and_resumed_is_the_undisturbed_run(program, data, undisturbed, run, step, save_minutes):
    with at_step(step, kill), pytest.raises(Killed):
        program.run(program.begin(data, run, "--save-minutes", save_minutes))
    assert load(run)["state"]["step"] == (step if save_minutes == 0 else step // STEPS * STEPS)
    with at_step(-1, kill) as steps:
        assert program.run(program.go_on(data, run)) == 0
    assert next(steps) == EPOCHS * STEPS - (step if save_minutes == 0 else step // STEPS * STEPS)
    assert_same_run(run, undisturbed)


def test_a_checkpoint_of_version_0_1_0_inside_an_epoch_goes_on_to_the_undisturbed_run(program, data, undisturbed, run):
    if not program.make_old:
        pytest.skip("version 0.1.0 had no such program")
    with at_step(STEPS + 1, kill), pytest.raises(Killed):
        program.run(program.begin(data, run, "--save-minutes", 0))
    change(run, LAST, program.make_old)
    assert "running" not in load(run)["state"]
    assert program.run(program.go_on(data, run)) == 0
    for row, whole in zip(rows(run), rows(undisturbed), strict=True):
        numbers, expected = ({key: float(value or 0) for key, value in found.items()} for found in (row, whole))
        assert numbers == pytest.approx(expected)  # its sums were float32
    assert all(same(load(run, name)["state"][part], load(undisturbed, name)["state"][part])
               for name in (LAST, FINAL) for part in ("model", "optimizer", "step", "best_score"))


def test_a_signal_while_an_epoch_is_scored_ends_the_run_after_it_and_one_in_the_last_epoch_does_not(
    program, data, undisturbed, run, capsys, monkeypatch
):
    with monkeypatch.context() as patch:
        tell = RunLog.epoch
        patch.setattr(RunLog, "epoch", lambda *given, **more: tell(*given, **more) or os.kill(os.getpid(), signal.SIGTERM))
        assert program.run(program.begin(data, run)) == 143
        assert "Saved after epoch 0" in the_line(capsys, program) and load(run)["state"]["epoch"] == 1
        assert program.run(program.go_on(data, run)) == 0
    assert_same_run(run, undisturbed)


def test_a_resumed_run_that_is_stopped_at_once_has_saved_what_it_knew_of_the_data(program, data, finished):
    before = load(finished)["data"]
    with at_step(0, lambda _: os.kill(os.getpid(), signal.SIGINT)):
        assert program.run(program.go_on(data, finished, "--epochs", EPOCHS + 1)) == 130
    assert same(load(finished)["data"], before) and load(finished)["state"]["step_in_epoch"] == 1


def test_every_step_has_the_rate_of_its_place_in_the_warm_up_and_a_gradient_within_its_limit(program, data, run):
    seen = []

    def look(optimizer, *_):
        (group,) = optimizer.param_groups
        norm = torch.cat([p.grad.flatten() for p in group["params"] if p.grad is not None]).norm()
        seen.append((group["lr"], float(norm)))

    handle = register_optimizer_step_pre_hook(look)
    try:
        assert program.run(program.begin(data, run, "--epochs", 1, "--warmup", 4, "--lr", 0.004, "--grad-clip", 0.001)) == 0
    finally:
        handle.remove()
    assert seen == [(pytest.approx(lr), pytest.approx(0.001, rel=1e-3)) for lr in (0.001, 0.002, 0.003)]
    assert float(rows(run)[0]["lr"]) == pytest.approx(0.003)


def test_a_signal_finishes_the_step_saves_and_says_how_to_go_on(program, data, undisturbed, run, capsys):
    """SIGINT in the first epoch, and in the second SIGTERM."""
    command = program.begin
    for number, code, step, expected in ((signal.SIGINT, 130, 0, (0, 1, 1)), (signal.SIGTERM, 143, STEPS, (1, 2, 5))):
        before = signal.getsignal(number)
        with at_step(step, lambda _, number=number: os.kill(os.getpid(), number)):
            assert program.run(command(data, run)) == code
        assert signal.getsignal(number) == before
        line = the_line(capsys, program)
        assert f"epoch {expected[0]}" in line and "continue" in line
        state = load(run)["state"]
        assert (state["epoch"], state["step_in_epoch"], state["step"]) == expected
        command = program.go_on
    assert program.run(command(data, run)) == 0
    assert_same_run(run, undisturbed)


@for_every_task
def test_one_epoch_and_then_the_others_are_the_undisturbed_run(program, data, undisturbed, run):
    assert program.run(program.begin(data, run, "--epochs", 1)) == 0
    assert program.run(program.go_on(data, run)) == 0
    assert_same_run(run, undisturbed)


def test_a_disk_that_fills_while_a_checkpoint_is_written_leaves_the_one_before(program, data, undisturbed, run, capsys):
    """Files that may not grow beyond 1000 bytes from the fourth step on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    whole = []

    def fill(_):
        whole.append(program.file(run, LAST).read_bytes())
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))

    try:
        with at_step(STEPS, fill):
            code = program.run(program.begin(data, run, "--save-minutes", 0))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code == 1 and "failed" in the_line(capsys, program)
    assert program.file(run, LAST).read_bytes() == whole[0] and load(run)["state"]["step"] == STEPS
    assert program.run(program.go_on(data, run)) == 0
    assert_same_run(run, undisturbed)


@for_every_task
def test_a_finished_run_says_so_and_is_not_touched(program, data, finished, capsys, monkeypatch):
    """Nor is a tracker started for it."""
    monkeypatch.setitem(sys.modules, "wandb", None)
    before = bytes_of(finished)
    words = [word for word in program.go_on(data, finished, "--wandb", "--tensorboard") if word != "--quiet"]
    assert program.run(words) == 0
    said = capsys.readouterr().err
    assert "raise --epochs" in said and "wandb" not in said and bytes_of(finished) == before


def test_killed_before_its_final_model_a_longer_run_still_gets_it(program, data, finished):
    """One of fewer epochs lies there."""
    if program.beside:
        pytest.skip("its last.pt is final")
    shorter = program.file(finished, FINAL).read_bytes()
    assert program.run(program.go_on(data, finished, "--epochs", EPOCHS + 1)) == 0
    program.file(finished, FINAL).write_bytes(shorter)
    assert program.run(program.go_on(data, finished, "--epochs", EPOCHS + 1)) == 0
    assert same(*(load(finished, name)["state"] for name in (FINAL, LAST)))


def test_what_comes_before_the_first_step_is_no_time_of_the_first_epoch(program, data, run, monkeypatch):
    """A thousand seconds pass before it."""
    passed, looked = [0.0], saver.Saver.keep_best
    monkeypatch.setattr(saver, "time", types.SimpleNamespace(monotonic=lambda: time.monotonic() + passed[0]))
    monkeypatch.setattr(saver.Saver, "keep_best", lambda *given: passed.insert(0, 1000.0) or looked(*given))
    assert program.run(program.begin(data, run, "--epochs", 1)) == 0
    with open(program.file(run, "metrics.csv"), newline="") as file:
        (row,) = csv.DictReader(file)
    assert passed[0] and 0 < float(row["seconds"]) < 1000


def test_more_epochs_train_on_and_leave_the_rows_before(program, data, finished, undisturbed):
    assert program.run(program.go_on(data, finished, "--epochs", EPOCHS + 1)) == 0
    assert rows(finished)[:EPOCHS] == rows(undisturbed) and [row["epoch"] for row in rows(finished)] == ["0", "1", "2"]
    assert load(finished, FINAL)["state"]["step"] == (EPOCHS + 1) * STEPS


@pytest.mark.slow
def test_flags_of_the_optimiser_win_when_a_run_goes_on_and_stay_otherwise(program, data, run):
    assert program.run(program.begin(data, run, "--epochs", 1, "--weight-decay", 0.25, "--lr", 0.004)) == 0
    for epochs, words, expected in ((2, [], (0.25, 0.004)), (3, ["--weight-decay", 0.5, "--lr", 0.002], (0.5, 0.002))):
        assert program.run(program.go_on(data, run, "--epochs", epochs, *words)) == 0
        (group,) = load(run)["state"]["optimizer"]["param_groups"]
        assert (group["weight_decay"], group["lr"]) == expected and float(rows(run)[-1]["lr"]) == expected[1]


@pytest.mark.slow
def test_a_run_goes_on_in_another_precision(program, data, finished):
    for epochs, precision in ((3, "fp16"), (4, "fp32")):
        assert program.run(program.go_on(data, finished, "--epochs", epochs, "--precision", precision)) == 0
        assert bool(load(finished)["state"]["scaler"]) == (precision == "fp16")
    assert [row["epoch"] for row in rows(finished)] == [str(epoch) for epoch in range(4)]


@pytest.mark.slow
def test_a_run_in_float16_goes_on_with_its_loss_scale(program, data, finished):
    assert program.run(program.go_on(data, finished, "--epochs", EPOCHS + 1, "--precision", "fp16")) == 0
    change(finished, LAST, lambda checkpoint: checkpoint["state"]["scaler"].update(scale=64.0, _growth_tracker=7))
    assert program.run(program.go_on(data, finished, "--epochs", EPOCHS + 2)) == 0
    scaler = load(finished)["state"]["scaler"]
    assert (scaler["scale"], scaler["_growth_tracker"]) == (64.0, 7 + STEPS)


def test_a_checkpoint_of_a_gpu_goes_on_without_one(program, data, finished, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
        change(finished, LAST, lambda checkpoint: None)
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="CUDA"):
            load(finished)  # it does ask for a GPU
    assert program.run(program.go_on(data, finished, "--epochs", EPOCHS + 1)) == 0
    assert len(rows(finished)) == EPOCHS + 1


@for_every_task
def test_another_shape_of_the_network_is_refused(program, data, finished, capsys):
    before = bytes_of(finished)
    assert program.run(program.go_on(data, finished, "--epochs", 9, *program.other_shape)) == 2
    assert f"{' '.join(program.other_shape)} disagrees with the checkpoint, which has " in the_line(capsys, program)
    assert bytes_of(finished) == before


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda c: c["state"].pop("optimizer"), "its state lacks optimizer"),
        (lambda c: c["state"].pop("model"), "its state lacks model"),
        (lambda c: c.update(state=5), "its state to be a dict, found int"),
        (lambda c: c.update(settings=[]), "its settings to be a dict, found list"),
        (lambda c: c.update(data=[]), "its data to be a dict, found list"),
        (lambda c: c.update(model=7), "its model to be a dict, found int"),
        (lambda c: c["state"]["model"].popitem(), "1 missing"),
        (lambda c: c["state"].update(optimizer={"param_groups": []}), "its state is not that of such a"),
    ],
    ids=["no optimizer", "no weights", "state", "settings", "data", "model", "a weight", "empty optimizer"],
)
def test_a_checkpoint_that_is_not_whole_is_one_line_that_names_it(program, data, finished, capsys, damage, words):
    change(finished, LAST, damage)
    before = bytes_of(finished)
    assert program.run(program.go_on(data, finished, "--epochs", 9)) == 2
    line = the_line(capsys, program)
    assert str(program.file(finished, LAST)) in line and words in line
    assert bytes_of(finished) == before


# ------------------------------------------------------------------------------------------------ other data


@for_every_task
def test_scores_on_other_data_are_never_compared(program, data, finished, tmp_path):
    """What was best so far stays while the same data is scored, wherever it lies; on other data the next epoch is the best."""
    def be_unbeatable(checkpoint):
        checkpoint["state"]["best_score"] = program.unbeatable
        if "best" in checkpoint["state"].get("schedule", {}):
            checkpoint["state"]["schedule"]["best"] = program.unbeatable

    for name in (LAST, BEST):
        change(finished, name, be_unbeatable)
    moved = shutil.copytree(data, tmp_path / "moved")
    assert program.run(program.go_on(moved, finished, "--epochs", 3)) == 0
    assert rows(finished)[-1]["best"] == "0" and load(finished, BEST)["state"]["best_score"] == program.unbeatable
    program.make_data(tmp_path / "other", seed=1)
    assert program.run(program.go_on(tmp_path / "other", finished, "--epochs", 4)) == 0
    assert rows(finished)[-1]["best"] == "1"
    best, last = load(finished, BEST)["state"], load(finished)["state"]
    assert best["epoch"] == 4 and best["best_score"] == last["best_score"] != program.unbeatable
    assert last.get("schedule", {}).get("best") != program.unbeatable


@pytest.mark.parametrize(("stop", "steps"), [(1, 1), (STEPS - 1, 2 * STEPS)], ids=["inside an epoch", "at the end of one"])
def test_an_epoch_begun_on_other_data_begins_anew(program, data, run, tmp_path, steps, stop):
    """Whether an epoch of it has fewer steps or more: all epochs that were left are trained."""
    with at_step(stop, lambda _: os.kill(os.getpid(), signal.SIGINT)):
        assert program.run(program.begin(data, run)) == 130
    assert load(run)["state"]["step_in_epoch"] == stop + 1
    program.make_data(tmp_path / "other", train=program.items * steps, seed=2)
    with at_step(-1, kill) as taken:
        assert program.run(program.go_on(tmp_path / "other", run)) == 0
    assert next(taken) == load(run)["state"]["step"] == EPOCHS * steps and [row["epoch"] for row in rows(run)] == ["0", "1"]


# ------------------------------------------------------------------------------------------------ numbers


@for_every_task
@pytest.mark.parametrize(("step", "save_minutes"), [(0, 0), (0, 10), (STEPS - 1, 10)], ids=["at once", "in an epoch", "at its end"])
def test_weights_that_are_no_numbers_end_the_run_and_are_never_saved(program, data, finished, capsys, step, save_minutes):
    """A checkpoint of them could not be resumed, and the one before would be lost. The loss of the step that ruins them is still finite."""
    before = bytes_of(finished)
    with at_step(step, ruin, after=True):
        assert program.run(program.go_on(data, finished, "--epochs", 3, "--save-minutes", save_minutes)) == 1
    line = the_line(capsys, program)
    where = f"epoch {EPOCHS}" if (step, save_minutes) == (0, 10) else f"step {EPOCHS * STEPS + step + 1}"
    assert f"after {where}" in line and "lower --lr" in line
    after = bytes_of(finished)
    config = str(program.file(finished, "config.json").relative_to(finished))
    assert after.pop(config) and before.pop(config) and after == before


@for_every_task
@pytest.mark.slow
def test_the_seed_decides_and_the_number_of_workers_does_not(program, data, undisturbed, tmp_path):
    assert program.run(program.begin(data, tmp_path / "two" / "run", program.workers, 2)) == 0
    assert_same_run(tmp_path / "two" / "run", undisturbed)
    assert program.run(program.begin(data, tmp_path / "other" / "run", "--seed", 1)) == 0
    assert not same(*(load(folder, FINAL)["state"]["model"] for folder in (tmp_path / "other" / "run", undisturbed)))


# ------------------------------------------------------------------------------------------------ files that can't be read


@for_every_task
def test_a_file_that_cannot_be_read_is_left_out_named_and_counted_or_fatal_when_strict(program, data, tmp_path, capsys):
    if not program.spoil:
        pytest.skip("its data is whole, or refused by its checksums")
    spoilt, name = program.spoil(data, tmp_path / "spoilt")
    quick = ["--epochs", 1, *program.batch(52)]
    words = [word for word in program.begin(spoilt, tmp_path / "a" / "run", *quick) if word != "--quiet"]
    assert program.run(words) == 0
    said = capsys.readouterr()
    (line,) = [line for line in said.err.splitlines() if "left out" in line]
    assert name in line and "1 of " in line
    assert said.out.splitlines()[-1].endswith("left out") and "; 1 " in said.out.splitlines()[-1]
    assert program.run(program.begin(spoilt, tmp_path / "b" / "run", *quick, "--strict")) == 1
    line = the_line(capsys, program)
    assert name in line and "--strict" in line
    assert "strict" not in load(tmp_path / "a" / "run")["settings"]  # nothing that a run keeps


# ------------------------------------------------------------------------------------------------ trackers


@for_every_task
def test_wandb_and_tensorboard_are_told_the_row_of_every_epoch_and_wandb_goes_on_with_the_same_run(program, data, run, monkeypatch):
    logged, begun, scalars, flushed = [], [], {}, []

    class Run:
        def log(self, values, step):
            logged.append((step, values))

        def finish(self):
            logged.append("finished")

    class Writer:
        def __init__(self, folder):
            assert folder == str(program.file(run, "tensorboard"))

        def flush(self):
            flushed.append(set(scalars))

        def add_scalar(self, name, value, step):
            scalars.setdefault(step, {})[name] = value

        def close(self):
            pass

    wandb, tensorboard = types.ModuleType("wandb"), types.ModuleType("torch.utils.tensorboard")
    wandb.init = lambda **given: begun.append(given) or Run()
    tensorboard.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", tensorboard)
    flags = ["--wandb", "--tensorboard", "--project", "p"]
    assert program.run(program.begin(data, run, *flags, "--epochs", 1)) == 0
    assert program.run(program.go_on(data, run, *flags, "--epochs", 2)) == 0
    assert [entry if entry == "finished" else entry[0] for entry in logged] == [0, "finished", 1, "finished"]
    assert scalars == dict(entry for entry in logged if entry != "finished")
    assert flushed == [{0}, {0, 1}]  # else a run that is stopped loses them
    for step, row in enumerate(rows(run)):
        told = {name.replace("/", "_"): value for name, value in scalars[step].items()}
        assert {"epoch", "lr", "train_loss"} < set(told) and len([name for name in told if not name.startswith("train_")]) > 3
        assert {name: float(row[name]) for name in told} == pytest.approx(told)
    assert [given["id"] for given in begun] == [load(run)["state"]["wandb_id"]] * 2
    assert {(given["dir"], given["project"]) for given in begun} == {(str(program.file(run, "config.json").parent), "p")}


def test_without_wandb_nobody_imports_it_and_a_missing_one_is_a_remark(program, data, run, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb", None)  # importing it is an error
    assert program.run(program.begin(data, run, "--epochs", 1)) == 0 and capsys.readouterr().err == ""
    assert program.run(program.go_on(data, run, "--epochs", 2, "--wandb")) == 0
    assert "wandb is not installed" in capsys.readouterr().err and len(rows(run)) == 2


@pytest.mark.slow
def test_wandb_itself_works_offline(program, data, run):
    words = [sys.executable, f"{program.name}.py", *program.begin(data, run, "--wandb", "--epochs", 1)]
    subprocess.run(words, cwd=ROOT, env={**os.environ, "WANDB_MODE": "offline"}, check=True, capture_output=True)
    (record,) = program.file(run, "wandb").glob("offline-run-*/*.wandb")
    assert b"train/loss" in record.read_bytes() and len(rows(run)) == 1


# ------------------------------------------------------------------------------------------------ flags


@pytest.mark.parametrize(
    "words",
    ["--epochs 0", "--lr 0", "--lr nan", "--lr 99", "--weight-decay inf", "--weight-decay -1", "--grad-clip nan", "--save-minutes -1",
     "--seed 99999999999999999999", "--seed -1", "--warmup -1", "--precision fp15", "--device cuda:77", "--config nowhere.yaml"],
)
def test_a_value_that_cannot_be_right_is_one_line_before_any_work(program, data, run, capsys, words):
    assert program.run(program.begin(data, run, *words.split())) == 2
    assert words.split()[0] in the_line(capsys, program) and not run.exists()


def test_data_that_is_not_there_is_one_line_before_any_work(program, tmp_path, run, capsys):
    assert program.run(program.begin(tmp_path / "nowhere", run)) == 2
    assert str(tmp_path / "nowhere") in the_line(capsys, program) and not run.exists()


@pytest.mark.parametrize("words", [("--epoch", "3"), ("--epochs", "0"), ("--precision", "fp15")], ids=" ".join)
def test_only_the_first_process_complains_about_flags_and_all_leave_with_2(program, words):
    """Each process on its own: torchrun ends the second one before it can say much."""
    for rank, lines in (("0", 1), ("1", 0)):
        environment = {**os.environ, "RANK": rank, "WORLD_SIZE": "2", "LOCAL_RANK": rank}
        done = subprocess.run([sys.executable, f"{program.name}.py", *words], cwd=ROOT, env=environment, capture_output=True, text=True)
        assert (done.returncode, len(done.stderr.splitlines()), done.stdout) == (2, lines, "")


# ------------------------------------------------------------------------------------------------ processes


@pytest.mark.slow
def test_killed_before_any_file_gets_its_name_and_run_again_a_run_has_the_same_bytes(program, data, tmp_path, monkeypatch):
    """Once for every file that is written."""
    more = ["--epochs", 2]
    assert program.run(program.begin(data, tmp_path / "whole" / "run", *more)) == 0
    replace, calls, killed_at = os.replace, [], set()

    def kill_at_the_last(source, target):
        calls.append(Path(target).name)
        if len(calls) == number:
            raise Killed
        replace(source, target)

    for number in range(1, 100):
        calls.clear()
        run = tmp_path / str(number) / "run"
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", kill_at_the_last)
            try:
                assert program.run(program.begin(data, run, *more)) == 0
                break
            except Killed:
                killed_at.add(calls[-1])
        for path in run.glob("checkpoints/*.pt"):
            torch.load(path, weights_only=True)  # whole
        goes_on = program.file(run, LAST).exists()
        assert program.run(program.go_on(data, run, *more) if goes_on else program.begin(data, run, *more)) == 0
        assert_same_run(run, tmp_path / "whole" / "run")
    assert {"config.json", "epoch_0.png", *(program.file(run, name).name for name in (LAST, BEST, FINAL))} <= killed_at


def start(program, words):
    return subprocess.Popen([sys.executable, f"{program.name}.py", *words], cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
                            text=True, start_new_session=True)


def wait_for(process, done, seconds=120):
    """Wait until done() is true while the process runs; whether it came true."""
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end:
        if done():
            return True
        time.sleep(0.02)
    return done()


@pytest.mark.slow
def test_a_signal_to_all_processes_ends_a_run_after_its_step_with_everything_saved(program, data, run):
    """`timeout` and Slurm send SIGTERM to the workers of the data loaders too."""
    process = start(program, program.begin(data, run, "--epochs", 1000, "--save-minutes", 0, program.workers, 2))
    assert wait_for(process, lambda: program.file(run, "metrics.csv").exists() and len(rows(run)) >= 2)
    os.killpg(process.pid, signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 143 and "continue" in said and "Traceback" not in said and len(said.splitlines()) == 1
    assert load(run)["state"]["epoch"] >= 1
    with pytest.raises(ProcessLookupError):  # no worker is left
        os.killpg(process.pid, 0)


def campaign(program, data, undisturbed, run, delays):
    """Begin or go on, kill after a delay, until it is done. → exit codes."""
    codes = []
    for number, delay in enumerate(delays):
        goes_on = program.file(run, LAST).exists()
        words = (program.go_on if goes_on else program.begin)(data, run, "--save-minutes", 0, program.workers, 2 * goes_on)
        process = start(program, words)
        wait_for(process, program.file(run, LAST).exists)
        time.sleep(delay)
        process.send_signal((signal.SIGKILL, signal.SIGTERM, signal.SIGINT)[number % 3])
        _, said = process.communicate(timeout=120)
        codes.append(process.returncode)
        assert codes[-1] in (0, -9, 143, 130, -15, -2), said  # the last two before Python listens to signals
        if codes[-1] == 0:
            break
    assert program.run(program.go_on(data, run)) == 0
    assert_same_run(run, undisturbed)
    return codes


@pytest.mark.slow
def test_the_program_itself_killed_and_resumed_is_the_undisturbed_run(program, data, undisturbed, run):
    codes = campaign(program, data, undisturbed, run, [0.0, 2.5, 3.0])
    assert codes[0] == -9  # right after the first checkpoint


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(30))
def test_the_program_itself_killed_at_many_moments_is_the_undisturbed_run(program, data, undisturbed, run, seed):
    first = seed / 60  # a quick machine is done after two seconds
    codes = campaign(program, data, undisturbed, run, [first] + [(7 * seed + 13 * k) % 40 / 10 for k in range(1, 12)])
    assert len([code for code in codes if code]) >= 1


@for_every_task
@pytest.mark.slow
def test_two_processes_give_the_gradients_the_weights_and_the_scores_of_one(program, tmp_path):
    """17 items to learn from and 7 to judge by: neither can be dealt out evenly. Steps that hardly change the weights."""
    program.make_data(tmp_path / "data", train=17, held_out=7)
    words = [*program.smooth, *program.batch(8), "--lr", "1e-30", "--weight-decay", 0, "--epochs", 1]
    one = gradients_of(program.name, program.begin(tmp_path / "data", tmp_path / "one" / "run", *words))
    torchrun(ROOT / "tests" / "training_process.py", program.name, tmp_path / "kept",
             *program.begin(tmp_path / "data", tmp_path / "two" / "run", *words))
    two = [torch.load(f"{tmp_path / 'kept'}.{rank}", weights_only=True) for rank in (0, 1)]
    assert len(one) >= 2
    for alone, first, second in zip(one, *two, strict=True):
        largest = max(float(gradient.abs().max()) for gradient in alone.values())
        difference = max(float((first[name] - gradient).abs().max()) for name, gradient in alone.items())
        assert difference < 1e-4 * max(0.1, largest)  # torch's BatchNorm in float32 is 1.4e-5 from one in float64
        assert all(torch.equal(first[name], second[name]) for name in first) and list(first) == list(alone)
        assert max(float(g.abs().max()) for g in alone.values()) > 1e-3  # there is something to compare

    assert [len(steps) for steps in two] == [len(one)] * 2
    (alone,), (shared,) = rows(tmp_path / "one" / "run"), rows(tmp_path / "two" / "run")
    scored = [key for key in alone if key.startswith(("val_", "test_"))]
    assert [shared[key] for key in scored] == [alone[key] for key in scored] and len(scored) > 3  # to the last digit
    assert float(shared["train_loss"]) == pytest.approx(float(alone["train_loss"]), rel=1e-6) and shared["step"] == alone["step"]
    states = [load(tmp_path / name / "run")["state"]["model"] for name in ("one", "two")]
    for name, value in states[0].items():
        assert torch.allclose(states[1][name].double(), value.double(), rtol=0, atol=1e-6), name


@for_every_task
@pytest.mark.slow
def test_two_processes_go_on_where_they_were(program, data, tmp_path):
    words = [*program.smooth, *program.batch(4)]
    for name, epochs in (("whole", (2,)), ("parts", (1, 2))):
        run = tmp_path / name / "run"
        for end in epochs:
            command = program.begin if end == epochs[0] else program.go_on
            torchrun(f"{program.name}.py", *command(data, run, *(words if end == epochs[0] else []), "--epochs", end))
    assert_same_run(tmp_path / "parts" / "run", tmp_path / "whole" / "run")


@pytest.mark.slow
def test_a_signal_to_one_of_two_processes_ends_both_with_everything_saved(program, data, undisturbed, run):
    """Whoever hears of it: all finish the step that they are in, and the run can be resumed by one process alone."""
    done = torchrun(ROOT / "tests" / "training_process.py", program.name, "terminate", *program.begin(data, run), code=1)
    assert "exitcode  : 143" in done.stderr and len(own_lines(program, done.stderr)) == 1
    assert load(run)["state"]["step"] == 2
    assert program.run(program.go_on(data, run)) == 0 and rows(run)[-1]["step"] == rows(undisturbed)[-1]["step"]


def own_lines(program, stderr):
    """The program's lines among those of torchrun."""
    return [line for line in stderr.splitlines() if line.startswith(f"{program.name}.py: ")]


@pytest.mark.slow
def test_what_only_the_first_process_sees_ends_both_with_one_line(program, data, run):
    program.file(run, "metrics.csv").parent.mkdir(parents=True)
    program.file(run, "metrics.csv").write_text("an earlier run")
    done = torchrun(f"{program.name}.py", *program.begin(data, run, *program.smooth, *program.batch(4)), code=1)  # torchrun's own code
    (line,) = own_lines(program, done.stderr)
    assert "holds an earlier" in line and "exitcode  : 2" in done.stderr and "RuntimeError" not in done.stderr


@pytest.mark.slow
def test_what_only_another_process_sees_ends_both_with_its_line_and_its_exit_code(program, tmp_path):
    """A file that the second process reads while the first waits for its sums."""
    if not program.spoil_held_out:
        pytest.skip("its data is whole, or refused by its checksums")
    program.make_data(tmp_path / "data", train=4, held_out=8)
    name = program.spoil_held_out(tmp_path / "data", 5)
    words = program.begin(tmp_path / "data", tmp_path / "run", *program.smooth, *program.batch(4), "--strict")
    done = torchrun(f"{program.name}.py", *words, code=1)
    (line,) = own_lines(program, done.stderr)
    assert name in line and "--strict" in line and "exitcode  : 1" in done.stderr


def test_the_table_names_every_training_program():
    files = [path.stem for path in ROOT.glob("train*.py")]
    assert sorted(files) == sorted(program.name for program in PROGRAMS)
    assert all(callable(importlib.import_module(name).main) for name in files)
