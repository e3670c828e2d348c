"""What only train_small_detection.py does: test_training_promises.py has what all trainings do."""

import csv
import json
import shutil
import sys

import pytest
import torch
from training_programs import make_frames

import train_detection
import train_small_detection
from benchmarks import small_detection_quality
from chipping.warehouse import open_warehouse
from detection.small_data import Sampling, WarehouseData
from detection.small_losses import NAMES
from runtime.checkpoint import load_checkpoint, save_checkpoint
from runtime.distributed import Processes
from runtime.errors import UserError
from runtime.run_beside import RunBeside


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("frames") / "data"
    make_frames(folder)
    return folder


@pytest.fixture
def words(data, tmp_path):
    """Words of a run of three steps."""
    return ["--manifest", str(data / "warehouse" / "latest"), "--checkpoint-out", str(tmp_path / "checkpoints" / "demo.pt"),
            "--device", "cpu"]


def table(folder):
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_minimal_run_leaves_its_best_weights_and_beside_them_the_state_and_the_log(words, tmp_path, capsys):
    assert train_detection.main(words) == 0  # which hands over
    folder = tmp_path / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["demo.last.pt", "demo.pt", "demo.run"]
    assert {"config.json", "metrics.csv", "samples"} <= {path.name for path in (folder / "demo.run").iterdir()}
    said = capsys.readouterr()
    (line,) = [line for line in said.err.splitlines() if line.startswith("epoch 0: ")]
    assert all(word in line for word in ("train loss", "AP50", "precision", "recall", "frames/s")) and "step" not in line
    assert said.out.splitlines()[-1] == f"find objects with {folder / 'demo.pt'}" and "mean box" in said.out
    best = load_checkpoint(folder / "demo.pt")
    assert (best["kind"], best["model"]["model"], best["model"]["max_boxes"]) == ("small-detection", "tiny", 4)
    assert best["data"]["classes"] == ["object"] and best["model"]["target_size"] == [64, 64]
    config = json.loads((folder / "demo.run" / "config.json").read_text())
    assert (config["settings"]["batch_size"], config["settings"]["epochs"], config["settings"]["lr"]) == (2, 1, 1e-3)


@pytest.mark.parametrize(("content", "words", "small"), [
    ("manifest: w", [], True), ("tensor_warehouse: w", [], True), ("data: {manifest: w}", ["--epochs", "2"], True),
    ("train-small-detection: {data: {manifest: w}}", [], True),
    ("train-small-detection: {epochs: 2}", [], False), ("train-detection: {manifest: w}", [], False), ("epochs: 2", [], False),
    ("train-small-detection: {manifest: w}\ntrain-detection: {epochs: 2}", [], False),  # one file for both programs
    ("train-small-detection: {manifest: w}", ["--train-images=a"], False),
    ("manifest: w", ["--resume", "output/checkpoints/last.pt"], False),
    ("manifest: w", ["--resume", "checkpoints/tinydet.last.pt"], True),
])
def test_a_file_that_names_a_warehouse_is_for_the_small_detectors(tmp_path, content, words, small):
    (tmp_path / "run.yaml").write_text(content)
    for config in (["--config", str(tmp_path / "run.yaml")], [f"--config={tmp_path / 'run.yaml'}"]):
        assert train_detection.is_small([*words, *config]) is small


def test_a_run_whose_warehouse_is_in_its_settings_file_alone(words, tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"manifest": words[1], "trainer": {"max-steps": 1}, "checkpoint-out": words[3]}))
    assert train_detection.main(["--config", str(tmp_path / "run.json"), "--device", "cpu", "--quiet"]) == 0
    assert load_checkpoint(tmp_path / "checkpoints" / "demo.pt")["kind"] == "small-detection"


def test_frames_of_an_earlier_benchmark_take_no_part_in_the_next(tmp_path, monkeypatch):
    found = []
    for name in ("shapes", "masks"):
        monkeypatch.setattr(small_detection_quality, name, lambda folder, *_: found.append(list(folder.rglob("*"))))
        old = tmp_path / f"{name}_quality" / "fold0" / "train_images" / "old.png"
        old.parent.mkdir(parents=True)
        old.write_bytes(b"a frame")
        monkeypatch.setattr(sys, "argv", ["small_detection_quality.py", name, "--output-dir", str(tmp_path)])
        small_detection_quality.main()
    assert found == [[], []]


def test_of_epochs_that_are_equally_good_the_last_is_kept_and_patience_counts_them(words, tmp_path, monkeypatch):
    scores, validate = iter([0.25, 0.5, 0.5, 0.5, 0.5]), train_small_detection.validate

    def scored(*given):
        val, samples = validate(*given)
        return {**val, "ap50": next(scores)}, samples

    monkeypatch.setattr(train_small_detection, "validate", scored)
    assert train_small_detection.main([*words, "--quiet", "--epochs", "5", "--patience", "2"]) == 0
    assert [row["best"] for row in table(tmp_path / "checkpoints" / "demo.run")] == ["1"] * 4
    assert load_checkpoint(tmp_path / "checkpoints" / "demo.pt")["state"]["best_epoch"] == 3


def test_the_names_of_the_files_are_those_of_the_model(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["--manifest", str(data / "warehouse"), "--max-steps", "1", "--device", "cpu", "--quiet"]
    assert train_small_detection.main(words) == 0 and train_small_detection.main([*words, "--model", "big"]) == 0
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {
        f"{model}det.{ending}" for model in ("tiny", "big") for ending in ("bin", "last.pt", "run")}


def test_an_existing_checkpoint_needs_overwrite_or_resume(words, tmp_path):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / "demo.pt").write_bytes(b"somebody's")
    with pytest.raises(UserError, match="demo.pt holds an earlier run.*--overwrite"):
        train_small_detection.main([*words, "--quiet"])
    assert (folder / "demo.pt").read_bytes() == b"somebody's"
    assert train_small_detection.main([*words, "--quiet", "--overwrite"]) == 0
    with pytest.raises(UserError, match="--resume .*demo.last.pt"):
        train_small_detection.main([*words, "--quiet"])
    assert train_detection.main(["--resume", str(folder / "demo.last.pt"), "--epochs", "2", "--quiet"]) == 0
    assert [row["epoch"] for row in table(folder / "demo.run")] == ["0", "1"]
    with pytest.raises(UserError, match="leave --checkpoint-out out"):
        train_small_detection.main(["--resume", str(folder / "demo.last.pt"), "--checkpoint-out", str(tmp_path / "other.pt")])


def test_a_run_that_was_moved_or_renamed_goes_on_where_it_is(words, tmp_path):
    assert train_small_detection.main([*words, "--quiet"]) == 0
    shutil.move(tmp_path / "checkpoints", tmp_path / "elsewhere")
    assert train_small_detection.main(["--resume", str(tmp_path / "elsewhere" / "demo.last.pt"), "--epochs", "2", "--quiet"]) == 0
    assert not (tmp_path / "checkpoints").exists() and len(table(tmp_path / "elsewhere" / "demo.run")) == 2


def test_two_runs_of_one_folder_do_not_disturb_each_other(tmp_path):
    with RunBeside(tmp_path / "one.bin") as one, RunBeside(tmp_path / "two.bin") as two:
        half = two.file("last.pt").with_name(".two.last.part.pt")
        half.write_bytes(b"being written")
        with pytest.raises(UserError, match="another run"):
            RunBeside(tmp_path / "one.bin").__enter__()
        one.remove_leftovers()
        assert half.exists()
        two.remove_leftovers()
        assert not half.exists()
    (tmp_path / "three.bin").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        RunBeside(tmp_path / "three.bin").refuse_earlier_run()


@pytest.mark.parametrize("name", ["demo.run", "demo.last.pt", ".last.pt"])
def test_a_name_that_another_run_gives_its_files_is_refused(words, tmp_path, name):
    other = tmp_path / "checkpoints" / "demo.last.pt"
    other.parent.mkdir()
    other.write_bytes(b"the state of the run demo.bin")
    words[3] = str(other.with_name(name))
    with pytest.raises(UserError, match="is a name for the state of a run; pass one like"):
        train_small_detection.main([*words, "--quiet", "--overwrite"])
    assert [path.name for path in other.parent.iterdir()] == ["demo.last.pt"] and other.read_bytes()[:3] == b"the"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--framework", "fcos"], "--framework.*--manifest.*--model"),
        (["--max-boxes", "9"], "--max-boxes is 9.*--max-boxes 4"),
        (["--backend", "ndarray", "--device", "cuda"], "contradict"),
        (["--backend", "wgpu", "--device", "cpu"], "contradict"),
        (["--encoder", "resnet18"], "TinyDet"),
        (["--lr-end", "0.1"], "above --lr-start"),
        (["--batch-size", "0"], "--batch-size"),
        (["--model", "small"], "tiny, big"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_flags_that_cannot_be_right_are_one_line_before_any_work(words, tmp_path, more, said):
    with pytest.raises(UserError, match=said) as error:
        train_detection.main([*words[:4], *more])
    assert "\n" not in str(error.value) and not (tmp_path / "checkpoints").exists()


def test_a_gpu_that_is_not_there_is_no_silent_fallback(words, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    without = [word for word in words if word not in ("--device", "cpu")]
    for backend in ("wgpu", "gpu"):
        with pytest.raises(UserError, match="PyTorch sees none"):
            train_small_detection.main([*without, "--backend", backend])
    assert train_small_detection.device_of("auto", "nd-array") == "cpu" and train_small_detection.device_of("cuda:1", "wgpu") == "cuda:1"


@pytest.mark.parametrize(("name", "value", "said"), [
    ("max_boxes", 9, "the checkpoint has 9, .* made with --max-boxes 4"),
    ("target_size", [96, 64], "trained with target size 96 64, the warehouse has 64 64"),
    ("classes", ["polyp", "lesion"], "trained with classes polyp lesion, the warehouse has object"),
])
def test_a_run_does_not_go_on_with_a_warehouse_that_its_detector_does_not_fit(words, tmp_path, name, value, said):
    """The checkpoint stands for one of another warehouse."""
    assert train_small_detection.main([*words, "--max-steps", "1", "--quiet"]) == 0
    last = tmp_path / "checkpoints" / "demo.last.pt"
    checkpoint = load_checkpoint(last)
    del checkpoint["path"]
    save_checkpoint(last, {**checkpoint, "model": {**checkpoint["model"], name: value}})
    before = last.read_bytes()
    with pytest.raises(UserError, match=said):
        train_small_detection.main(["--resume", str(last), "--epochs", "2", "--quiet"])
    assert last.read_bytes() == before


def test_frames_of_a_step_are_dealt_out_in_equal_parts(data):
    warehouse = open_warehouse(data / "warehouse")
    with pytest.raises(UserError, match="--batch-size 3 .* cannot be dealt out to 2 processes; pass a multiple of 2"):
        WarehouseData(warehouse, Sampling(batch_size=3), Processes(size=2))


@pytest.mark.parametrize("name", ["nothing.json", "labels", "text.json"])
def test_a_wrong_manifest_says_what_was_expected(words, tmp_path, name):
    (tmp_path / "labels").mkdir()
    (tmp_path / "text.json").write_text("{}")
    words[1] = str(tmp_path / name)
    with pytest.raises(UserError, match="expected .*(make-warehouse|warehouse|version)"):
        train_small_detection.main([*words, "--quiet"])


def test_an_altered_shard_is_refused_before_a_step_unless_it_is_not_looked_for(words, data, tmp_path):
    altered = shutil.copytree(data, tmp_path / "altered")
    (shard,) = altered.glob("warehouse/v*/*.images.npy")
    content = bytearray(shard.read_bytes())
    content[-1] ^= 255
    shard.write_bytes(content)
    words[1] = str(altered / "warehouse" / "latest")
    with pytest.raises(UserError, match="was altered"):
        train_small_detection.main([*words, "--quiet"])
    assert not (tmp_path / "checkpoints").exists()
    assert train_small_detection.main([*words, "--quiet", "--no-verify"]) == 0


def test_the_rate_falls_along_a_line_to_its_end(words, tmp_path):
    assert train_small_detection.main([*words, "--quiet", "--epochs", "3", "--lr-start", "0.009", "--lr-end", "0.001"]) == 0
    assert [float(row["lr"]) for row in table(tmp_path / "checkpoints" / "demo.run")] == pytest.approx([0.007, 0.004, 0.001])


def test_lines_come_at_the_interval_and_an_epoch_line_always(words, capsys):
    assert train_small_detection.main([*words, "--log-interval", "2"]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("epoch 0")]
    assert [line.split(":")[0] for line in lines] == ["epoch 0, step 2 of 3", "epoch 0"]
    assert train_small_detection.main([*words, "--log-interval", "0", "--overwrite"]) == 0
    assert [line.split(":")[0] for line in capsys.readouterr().err.splitlines() if line.startswith("epoch 0")] == ["epoch 0"]


def test_weights_of_the_loss_are_those_of_the_flags(words, tmp_path):
    flags = ["--lambda-box", "0", "--lambda-obj", "0", "--lambda-iou", "3"]
    assert train_small_detection.main([*words, "--quiet", "--model", "big", *flags]) == 0
    (row,) = table(tmp_path / "checkpoints" / "demo.run")
    assert {name: float(row[f"train_{name}"]) > 0 for name in NAMES} == {"box": False, "obj": False, "iou": True, "class": False}
    assert float(row["train_loss"]) == pytest.approx(float(row["train_iou"]))


def test_a_checkpoint_of_another_program_is_refused_by_name(words, tmp_path):
    assert train_small_detection.main([*words, "--quiet"]) == 0
    with pytest.raises(UserError, match="is a small-detection checkpoint, expected detection"):
        train_detection.main(["--resume", str(tmp_path / "checkpoints" / "demo.pt")])
