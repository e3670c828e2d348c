"""The training programs as their users see them: command line, folder, checkpoints. For tests/test_training_promises.py."""

import contextlib
import csv
import dataclasses
import hashlib
import importlib
import itertools
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from patch_factory import of_labels, of_values, read_lines, write_patch_set
from PIL import Image
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

import chip
from pansharpening.network import with_old_names
from runtime.errors import run_program

ROOT = Path(__file__).resolve().parent.parent
EPOCHS, STEPS = 2, 3  # of a tiny run on the data that make_data writes by default


@dataclasses.dataclass(frozen=True)
class Program:
    """What tests have to know about a training program."""

    name: str
    make_data: Callable  # (folder, train=, held_out=, seed=): writes items, by default as many to train on as STEPS steps take
    items: int  # that one step of the tiny flags takes
    data_flags: Callable  # folder of the data → flags
    folder_flags: Callable  # folder of the run → flags that begin one there
    resume_flags: Callable  # folder of the run → flags that continue it
    tiny: tuple  # flags of the smallest run worth the name, with dropout where there is any
    smooth: tuple  # flags that leave out what two processes draw differently
    batch: Callable  # items an optimiser step → flags
    other_shape: tuple  # flags that ask for another network
    workers: str  # the flag that says how many processes read
    unbeatable: float  # a best_score that no epoch reaches
    # (data, folder) → (folder of the same data with one more training item that can't be read, its name); None: it is refused as a whole
    spoil: Callable | None
    spoil_held_out: Callable | None  # (data, number): makes this held-out item unreadable; → its name
    make_old: Callable | None  # (checkpoint): gives it the layout of version 0.1.0; None where that version had none
    beside: bool = False  # whether its checkpoints lie beside the rest of a run (runtime/run_beside.py)

    def file(self, folder, name):
        """The path that a file of a run has, or will have."""
        return file_of(folder, name, self.beside)

    def begin(self, data, folder, *more):
        """Words of a command line that begins a tiny run."""
        words = [*self.data_flags(data), *self.folder_flags(folder), *self.tiny, "--epochs", EPOCHS, self.workers, 0,
                 "--device", "cpu", "--quiet", *more]
        return [str(word) for word in words]

    def go_on(self, data, folder, *more):
        """Words of a command line that goes on with a run, with the settings that it had."""
        words = [*self.resume_flags(folder), *self.data_flags(data), "--epochs", EPOCHS, "--device", "cpu", "--quiet", *more]
        return [str(word) for word in words]

    def run(self, words):
        """Run the program in this process, → its exit code. What is no Exception comes through, as Killed does."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [f"{self.name}.py", *words])
            with pytest.raises(SystemExit) as leaving:
                run_program(importlib.import_module(self.name).main)
        return leaving.value.code


# ------------------------------------------------------------------------------------------------ those there are


def make_patches(folder, train=6, held_out=2, seed=0):
    write_patch_set(folder, {"train": train, "val": held_out}, size=32, grid=(1, 1), seed=seed)


def spoil_patch(data, folder):
    shutil.copytree(data, folder)
    path = folder / read_lines(folder)[2]["file"]
    path.write_bytes(b"\x93NUMPY")
    return folder, path.name


def spoil_held_out_patch(data, number):
    path = data / "val" / f"VAL{number}_r0_c0_image.npy"
    path.write_bytes(b"\x93NUMPY")
    return path.name


def make_old_patches(checkpoint):
    state = checkpoint["state"]
    running = state.pop("running")
    state["running_loss"], state["running_counts"] = running["sums"][1:].float(), running["counts"]
    state["unreadable"], state["threshold"] = list(state["unreadable"]), checkpoint["data"]["threshold"]


def make_values(folder, **how):
    make_patches(folder, **how)
    of_values(folder)


def make_labels(folder, **how):
    make_patches(folder, **how)
    of_labels(folder)


def make_pairs(folder, train=12, held_out=2, seed=0):
    for name, count, number in (("train", train, 2 * seed), ("test", held_out, 2 * seed + 1)):
        chip.main(["fake-chips", "-o", str(folder / name), "-c", str(count), "-s", "32", "-r", str(number), "--quiet"])


def spoil_pair(data, folder):
    """One in 101: more would not be taken for an accident."""
    shutil.copytree(data, folder)
    there = len(list((data / "train").glob("*.pt")))
    for number in range(there, 100):
        shutil.copy(data / "train" / f"{number % there}.pt", folder / "train" / f"{number}.pt")
    (folder / "train" / "100.pt").write_bytes(b"broken")
    return folder, "100.pt"


def spoil_held_out_pair(data, number):
    (data / "test" / f"{number}.pt").write_bytes(b"broken")
    return f"{number}.pt"


def make_old_pairs(checkpoint):
    state = checkpoint["state"]
    chips, *sums = state.pop("running")["sums"].tolist()
    state["loss_sum"], state["chips_seen"] = dict(zip(("l1", "angle"), sums, strict=True)), int(chips)
    state["bad"] = {name.removesuffix(".pt"): reason for name, reason in state.pop("unreadable").items()}
    state["model"] = with_old_names(state["model"])
    del state["schedule"], state["epochs_without_gain"]


def make_images(folder, train=6, held_out=2, seed=0):
    """Images of one tile each with bright squares; every one has objects."""
    random = np.random.default_rng(seed)
    for split, count in (("train", train), ("val", held_out)):
        (folder / split).mkdir(parents=True)
        images, annotations = [], []
        for number in range(count):
            name, pixels = f"{split}{number}.png", random.integers(0, 90, (64, 64, 3), dtype=np.uint8)
            for _ in range(3):
                side, (x, y) = int(random.integers(8, 16)), random.integers(0, 48, 2).tolist()
                pixels[y : y + side, x : x + side] = random.integers(160, 255, 3)
                annotations.append({"id": len(annotations) + 1, "image_id": number + 1, "category_id": 1, "bbox": [x, y, side, side]})
            Image.fromarray(pixels).save(folder / split / name)
            images.append({"id": number + 1, "file_name": name, "width": 64, "height": 64})
        content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "square"}]}
        (folder / f"{split}.json").write_text(json.dumps(content))


def spoil_image(data, folder):
    """One more image, whose header says the truth and whose pixels end early."""
    shutil.copytree(data, folder, ignore=shutil.ignore_patterns("cache"))
    content = json.loads((folder / "train.json").read_text())
    name = f"train{len(content['images'])}.png"
    content["images"].append({**content["images"][0], "id": 99, "file_name": name})
    (folder / "train.json").write_text(json.dumps(content))
    cut_short(data / "train" / "train0.png", folder / "train" / name)
    return folder, name


def spoil_held_out_image(data, number):
    path = data / "val" / f"val{number}.png"
    cut_short(path, path)
    return path.name


def cut_short(source, target):
    target.write_bytes(source.read_bytes()[:2000])


def make_frames(folder, train=6, held_out=2, seed=0):
    """Frames with bright squares, one run to train on and one that is held out, in a warehouse."""
    random = np.random.default_rng(seed)
    names = sorted((f"run_{k}" for k in range(2)), key=lambda name: hashlib.sha256(f"42:{name}".encode()).hexdigest())
    for run, count in zip(names, (held_out, train), strict=True):  # the first of this order is held out
        for kind in ("images", "labels"):
            (folder / "runs" / run / kind).mkdir(parents=True)
        for number in range(count):
            pixels, labels = random.integers(0, 90, (48, 64, 3), dtype=np.uint8), []
            for _ in range(2):
                side, (x, y) = int(random.integers(12, 24)), random.integers(0, 24, 2).tolist()
                pixels[y : y + side, x : x + side] = random.integers(160, 255, 3)
                labels.append({"bbox_px": [x, y, x + side, y + side], "bbox_norm": None})
            Image.fromarray(pixels).save(folder / "runs" / run / "images" / f"frame_{number:05d}.png")
            content = {"frame_id": number, "image": f"images/frame_{number:05d}.png", "image_present": True, "labels": labels}
            (folder / "runs" / run / "labels" / f"frame_{number:05d}.json").write_text(json.dumps(content))
        (folder / "runs" / run / "run_manifest.json").write_text(json.dumps({"schema_version": 1}))
    chip.main(["make-warehouse", "--runs", str(folder / "runs"), "--output-root", str(folder / "warehouse"), "--target-size", "64x64",
               "--max-boxes", "4", "--val-ratio", "0.01", "--quiet"])


PROGRAMS = [
    Program(
        "train", make_patches, 2, lambda data: ["--patches-dir", data], lambda folder: ["--output-dir", folder],
        lambda folder: ["--resume", folder / "checkpoints" / "last.pt"],
        tiny=("--architecture", "contrastunet", "--batch-size", "2", "--lr", "0.01"), smooth=("--architecture", "smallunet"),
        batch=lambda count: ["--batch-size", count], other_shape=("--num-classes", "5"), workers="--num-workers", unbeatable=2.0,
        spoil=spoil_patch, spoil_held_out=spoil_held_out_patch, make_old=make_old_patches,
    ),
    Program(
        "train_pansharpen", make_pairs, 4, lambda data: ["--chips", data / "train", "--test-chips", data / "test"],
        lambda folder: ["--sessions-dir", folder.parent, "--session", folder.name],
        lambda folder: ["--sessions-dir", folder.parent, "--session", folder.name],
        tiny=("--width", "16", "--depth", "1", "--pbs", "2", "--lbs", "4", "--lr", "0.001"), smooth=(),
        batch=lambda count: ["--lbs", count, "--pbs", max(1, count // 4)], other_shape=("--width", "32"), workers="--workers",
        unbeatable=-1.0, spoil=spoil_pair, spoil_held_out=spoil_held_out_pair, make_old=make_old_pairs,
    ),
    Program(
        "train_detection", make_images, 2,
        lambda data: [*(f"--{split}-{what}={data / split}{end}" for split in ("train", "val")
                        for what, end in (("images", ""), ("annotations", ".json"))), "--cache-dir", data / "cache"],
        lambda folder: ["--output-dir", folder], lambda folder: ["--resume", folder / "checkpoints" / "last.pt"],
        tiny=("--tile-size", "64", "--overlap", "16", "--tile-format", "none", "--crop", "32", "--batch-size", "2",
              "--steps-per-epoch", "0", "--scheduler", "constant", "--warmup", "0", "--lr", "0.003"),
        smooth=(), batch=lambda count: ["--batch-size", count], other_shape=("--framework", "fcos"), workers="--num-workers",
        unbeatable=2.0, spoil=spoil_image, spoil_held_out=spoil_held_out_image, make_old=None,
    ),
    Program(
        "train_small_detection", make_frames, 2, lambda data: ["--manifest", data / "warehouse" / "latest"],
        lambda folder: ["--checkpoint-out", file_of(folder, "best_model.pt", beside=True)],
        lambda folder: ["--resume", file_of(folder, "last.pt", beside=True)],
        tiny=("--batch-size", "2", "--scheduler", "constant", "--lr", "0.003", "--log-interval", "2"),
        # gradients as small as those of the others, whose rounding is then compared
        smooth=("--lambda-box", "0.05", "--lambda-obj", "0.01", "--lambda-iou", "0.02"),
        batch=lambda count: ["--batch-size", count], other_shape=("--model", "big"), workers="--num-workers", unbeatable=2.0,
        spoil=None, spoil_held_out=None, make_old=None, beside=True,
    ),
]


def of_task(task, make_data, unbeatable):
    """train.py with another task, whose promises are those of the first."""
    first = PROGRAMS[0]
    return dataclasses.replace(
        first, make_data=make_data, tiny=(*first.tiny, "--task", task), other_shape=("--architecture", "smallunet"), unbeatable=unbeatable,
        make_old=None,
    )


OTHER_TASKS = [of_task("regression", make_values, 1.0), of_task("classification", make_labels, 2.0)]


# ------------------------------------------------------------------------------------------------ interruptions


class Killed(BaseException):
    """Stands for kill -9: nothing of ours may catch it."""


def kill(*_):
    raise Killed


@contextlib.contextmanager
def at_step(number, action, after=False):
    """Call action(optimizer) before (or after) the weights change in the optimiser step of this number, counted from 0 in this block."""
    count = itertools.count()

    def hook(optimizer, *_):
        if next(count) == number:
            action(optimizer)

    handle = (register_optimizer_step_post_hook if after else register_optimizer_step_pre_hook)(hook)
    try:
        yield count
    finally:
        handle.remove()


def ruin(optimizer):
    """After it nothing is a number."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.data.fill_(float("nan"))


# ------------------------------------------------------------------------------------------------ two processes


def torchrun(*words, code=0):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == code, done.stderr[-3000:]
    return done


# ------------------------------------------------------------------------------------------------ what a run leaves


BESIDE = "best_model.run"  # in checkpoints/, of a program that keeps its checkpoints beside the rest of a run


def file_of(folder, name, beside=None):
    """
    The path of a file of a run by the name that most programs give it. beside: see Program; None: as it is on the disk.

    A program that keeps its checkpoints beside the rest has no final_model.pt: its last.pt stands for it.
    """
    folder, is_checkpoint = Path(folder), name.endswith(".pt")
    if not ((folder / "checkpoints" / BESIDE).is_dir() if beside is None else beside):
        return folder / "checkpoints" / name if is_checkpoint else folder / name
    if is_checkpoint:
        return folder / "checkpoints" / {"last.pt": "best_model.last.pt", "final_model.pt": "best_model.last.pt"}.get(name, name)
    return folder / "checkpoints" / BESIDE / name


def load(folder, name="last.pt"):
    """A checkpoint of a run, as anybody may load it."""
    return torch.load(file_of(folder, name), weights_only=True)


def change(folder, name, action):
    """Let action(checkpoint) change a checkpoint on the disk."""
    checkpoint = load(folder, name)
    action(checkpoint)
    torch.save(checkpoint, file_of(folder, name))


def rows(folder):
    """metrics.csv without the time that epochs took."""
    with open(file_of(folder, "metrics.csv"), newline="") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def names(folder):
    """Relative names of all files of a run but its lock."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def same(one, other):
    """Whether two values out of checkpoints are equal to the last bit, tensors and NaN included."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other or (isinstance(one, float) and isinstance(other, float) and math.isnan(one) and math.isnan(other))


def assert_same_run(folder, other):
    """The same files, rows and pictures, and the same checkpoints to the last bit, whatever flags say about saving and reading."""
    assert names(folder) == names(other)
    assert rows(folder) == rows(other)
    for path in file_of(folder, "samples").glob("*.png"):
        assert path.read_bytes() == (file_of(other, "samples") / path.name).read_bytes(), path.name
    for path in (folder / "checkpoints").glob("*.pt"):
        one, two = load(folder, path.name), load(other, path.name)
        for part in ("kind", "model", "state"):
            assert same(one[part], two[part]), f"{part} of {path.name}"
