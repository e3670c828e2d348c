"""What the README, the pages and the programs' own opening lines tell a reader to type is what the programs understand."""

import csv
import importlib
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from box_factory import example
from rasterio.transform import from_origin

from benchmarks.fake_ard import make_fake_ard

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FOLDERS = ("raster|vectors|pictures|nets|synthetic|chipping|mapping|detection|pansharpening|exporting|runtime|"
           "docs|benchmarks|tests|recipes|examples|weights")
PROGRAMS = [p for p in sorted(ROOT.glob("*.py")) if '__name__ == "__main__"' in p.read_text(encoding="utf-8")]


def commands_in(text):
    """Every line that starts one of our programs, continued lines joined, remarks and prompts cut off."""
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    for line in (re.sub(r"\s{2,}#.*$| # .*$", "", line).strip().removeprefix("$ ") for line in lines):
        line = re.sub(r"^(?:[A-Z_]+=\S+ )*(?:uv run |\.venv/bin/)?", "", line)
        match = re.match(r"(?:python|torchrun(?: --?[\w-]+(?: \d+)?)*) ((?:benchmarks/)?\w+\.py\b.*)$", line)
        if match and "…" not in match[1]:
            yield match[1]


def all_commands():
    for page in PAGES:
        blocks = re.findall(r"```(?:sh|bash)?\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
        yield from ((page.name, c) for block in blocks for c in commands_in(block))
    for program in PROGRAMS:
        docstring = program.read_text(encoding="utf-8").split('"""')[1]
        yield from ((program.name, c) for c in commands_in(docstring))


@pytest.mark.parametrize("place, command", sorted(set(all_commands())), ids=lambda v: v[:70])
def test_every_command_that_is_told_is_understood(place, command):
    words = shlex.split(command.split(" | ")[0])  # what a pipe leads to is another's program
    path = ROOT / words[0]
    assert path.exists(), f"{place} tells to run {words[0]}, which is not there"
    if path.parent != ROOT:  # benchmarks take seconds to minutes: that they exist is what is held here
        return
    program = importlib.import_module(path.stem)
    arguments = program.join_signed(words[1:]) if hasattr(program, "join_signed") else words[1:]
    if path.stem == "train_detection" and program.is_small(arguments):  # it hands over
        program = importlib.import_module("train_small_detection")
    program.build_parser().parse_args(arguments)


def test_every_page_and_file_that_is_named_exists():
    missing = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        links = [target.split("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
        missing += [f"{page.name}: {target}" for target in links if target and not (page.parent / target).exists()]
        named = re.findall(rf"`((?:{FOLDERS})/[\w./]+\.\w+)`", text)
        missing += [f"{page.name}: {name}" for name in named if not (ROOT / name).exists()]
    assert missing == []


def table_rows():
    """(what a reader wants, [names in backticks of what to open]) of the README's table, headings aside."""
    table = (ROOT / "README.md").read_text(encoding="utf-8").split("| I want to … | open … |\n|---|---|\n")[1].split("\n\n")[0]
    cells = [re.fullmatch(r"\| (.+?) \| (.*?) ?\|", line).groups() for line in table.splitlines()]
    return [(wish, re.findall(r"`([^`]+)`", where)) for wish, where in cells if not wish.startswith("**")]


@pytest.mark.parametrize(("wish", "names"), table_rows(), ids=lambda v: v if isinstance(v, str) else "")
def test_every_row_of_the_table_names_files_that_exist_and_what_is_in_them(wish, names):
    paths = [ROOT / name for name in names if "/" in name or name.endswith((".py", ".md"))]
    assert paths and [path for path in paths if not path.exists()] == []
    code = "\n".join(path.read_text(encoding="utf-8") for path in paths if path.suffix == ".py")
    inside = [name for name in names if ROOT / name not in paths]
    assert [name for name in inside if not re.search(rf"^(?:(?:def|class) {name}\b|{name} =)", code, re.MULTILINE)] == []


def test_every_module_that_is_told_to_be_run_exists():
    told = {module for page in PAGES for module in re.findall(r"python -m ((?!pip\b|venv\b)[\w.]+)", page.read_text(encoding="utf-8"))}
    assert len(told) > 5 and [module for module in told if not (ROOT / f"{module.replace('.', '/')}.py").exists()] == []
    scripts = {name for page in PAGES for name in re.findall(r"python (benchmarks/\w+\.py)", page.read_text(encoding="utf-8"))}
    assert len(scripts) > 5 and [name for name in scripts if not (ROOT / name).exists()] == []


def run_blocks(holding, folder, shorten):
    """
    Run the commands of the README's blocks that hold a text, as written, in `folder`. shorten: {what a command holds: (words to be
    replaced, their replacement, words to be added)}. → the programs that were run.
    """
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = [block for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) if holding in block]
    found = [command for block in blocks for command in commands_in(block)]
    for command in found:
        for part, (old, new, more) in shorten.items():
            if part in command:
                assert old in command
                command = f"{command.replace(old, new)} {more}"
        words = shlex.split(command)
        done = subprocess.run([sys.executable, ROOT / words[0], *words[1:]], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return [command.split(".py")[0] for command in found]


def numbers_after(pattern):
    """The numbers that a sentence of the README names; pattern: with a group for each."""
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    return [float(number) for number in re.search(pattern, text).groups()]


@pytest.mark.slow
def test_the_commands_of_the_readme_reach_the_score_that_it_names_on_real_fires(real_data, tmp_path, monkeypatch):
    """The README's block as written, in a folder with the fires, without a network."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    for name in ("post_fire", "masks"):
        (tmp_path / name).symlink_to(real_data / "wildfire" / name)
    shutil.copy(next((real_data / "wildfire" / "post_fire").glob("DOVE*")), tmp_path / "scene.tif")
    assert run_blocks("--exclude", tmp_path, {}) == ["chip", "chip", "train", "train", "inference"]
    assert (tmp_path / "maps" / "scene_classes.tif").exists() and (tmp_path / "output" / "scores_val.csv").exists()
    scores = json.loads((tmp_path / "output" / "scores_val.json").read_text())["scores"]
    ours, baseline = numbers_after(r"has a pooled fire IoU of (0\.\d\d); a threshold on the NBR has (0\.\d\d)")
    # other numbers of threads and versions round differently, and one step's rounding becomes a hundredth after all of them
    assert abs(scores["network"]["pooled"]["fire_iou"] - ours) < 0.02 and abs(scores["nbr"]["pooled"]["fire_iou"] - baseline) < 0.01


@pytest.mark.slow
def test_the_commands_of_the_readme_reach_the_score_that_it_names_on_a_real_pair(real_data, tmp_path):
    for kind in ("pan", "ms"):
        shutil.copy(real_data / "pansharpen" / f"worldview2-{kind}.tif", tmp_path / f"{kind.upper()}.tif")
    assert run_blocks("--area 0,160", tmp_path, {}) == ["chip", "chip", "train_pansharpen", "inference"]
    folder = tmp_path / "sessions" / "demo"
    ours, best = numbers_after(r"have an ERGAS of (\d\.\d\d), with the best classical method (\d\.\d\d)")
    with open(folder / "metrics.csv", newline="") as file:
        *_, last = csv.DictReader(file)
    baselines = json.loads((folder / "baselines.json").read_text())
    assert abs(float(last["test_ergas"]) - ours) < 0.05
    assert abs(min(scores["ergas"] for scores in baselines.values() if isinstance(scores, dict)) - best) < 0.01
    assert (tmp_path / "maps-own" / "MS_sharpened.tif").exists()


@pytest.mark.slow
def test_the_lines_of_the_readme_about_cems_run(make_raster, tmp_path):
    """On made-up tiles, with pretrained weights that come with the environment."""
    for i, split in enumerate(("train", "train", "val")):
        name, random = f"EMSR00{i}_AOI01_01", np.random.default_rng(i)
        place = {"crs": "EPSG:4326", "transform": from_origin(14.0 + i, 41.0, 1e-4, 1e-4)}
        arrays = {"S2L2A": random.uniform(0.01, 0.4, (12, 256, 256)).astype(np.float32), "CM": np.zeros((256, 256), np.uint8),
                  "DEL": random.integers(0, 2, (256, 256)).astype(np.uint8)}
        for kind, array in arrays.items():
            make_raster(f"wildfires-cems/{split}/EMSR00{i}/AOI01/{name}/{name}_{kind}.tif", array, **place)
    ran = run_blocks("--dataset-dir", tmp_path, {"train.py": ("", "", "--max-steps 3 --batch-size 4 --num-workers 0")})
    assert ran == ["chip", "train"]


@pytest.mark.slow
def test_the_lines_of_the_readme_about_sharpening_run(tmp_path):
    """As written, on made-up deliveries, with fewer chips."""
    make_fake_ard(tmp_path / "ards" / "italy23", tiles=1, ms_side=1100, null_share=0)
    make_fake_ard(tmp_path / "ards" / "kenya24", tiles=1, ms_side=1100, null_share=0, seed=1)
    make_fake_ard(tmp_path / "small", tiles=1, ms_side=200, null_share=0, seed=2, blocksize=64)
    for kind in ("pan", "ms"):
        shutil.copy(next((tmp_path / "small").rglob(f"*-{kind}.tif")), tmp_path / f"{kind.upper()}.tif")
    (tmp_path / "weights").symlink_to(ROOT / "weights")
    assert run_blocks("--checkpoint weights/", tmp_path, {}) == ["inference"]
    with rasterio.open(tmp_path / "maps" / "MS_sharpened.tif") as file:
        assert file.shape == (800, 800) and file.count == 8
    shutil.rmtree(tmp_path / "maps")
    ran = run_blocks("--ard-dir", tmp_path, {
        "-n 1024": ("-n 1024", "-n 6", ""), "-n 64": ("-n 64", "-n 2", ""),
        "train_pansharpen.py": ("", "", "--epochs 1"),
    })
    assert ran == ["chip", "chip", "train_pansharpen"]
    assert (tmp_path / "sessions" / "italy" / "checkpoints" / "final_model.pt").exists()


@pytest.mark.slow
def test_the_lines_of_the_readme_about_objects_run(make_raster, tmp_path):
    """As written, on made-up pictures, with fewer steps."""
    _, annotations = example(tmp_path, count=5)
    annotations.rename(tmp_path / "train.json")
    place = {"crs": "EPSG:32633", "transform": from_origin(500_000, 4_600_000, 0.1, 0.1)}
    make_raster("survey/a.tif", np.random.default_rng(0).integers(1, 255, (3, 200, 300)).astype(np.uint8), **place)
    ran = run_blocks("train_detection.py --config detection", tmp_path, {"train_detection.py": ("", "", "--max-steps 3 --num-workers 0")})
    assert ran == ["chip", "train_detection", "inference", "demo"]
    assert (tmp_path / "found" / "counts.csv").exists() and (tmp_path / "found" / "a_boxes.geojson").exists()


@pytest.mark.slow
def test_the_lines_of_the_readme_about_frames_run(tmp_path):
    """As written, with smaller and fewer frames and fewer steps."""
    ran = run_blocks("fake-captures", tmp_path, {
        "fake-captures": ("", "", "--runs 3 --frames 4 --size 96x64"), "make-warehouse": ("", "", "--target-size 96x64"),
        "train_detection.py": ("", "", "--max-steps 3"),
    })
    assert ran == ["chip", "chip", "train_detection", "inference"]
    assert (tmp_path / "checkpoints" / "bigdet.bin").exists() and (tmp_path / "seen" / "view.html").exists()


@pytest.mark.slow
def test_the_example_of_elephants_trains_a_step_on_images_of_their_size_and_layout(tmp_path):
    """
    On a smaller encoder without weights, since neither a network nor a GPU may be there, and with a small image to validate: 140 tiles of a
    whole one take minutes without.
    """
    for split, folder, size in (("train", "training_images", (5472, 3648)), ("val", "val_images", (1100, 700))):
        images, annotations = example(tmp_path / split, count=1, size=size, per_image=12, seed=len(split))
        (tmp_path / "AED").mkdir(exist_ok=True)
        images.rename(tmp_path / "AED" / folder)
        annotations.rename(tmp_path / "AED" / f"{split}_annotations.json")
    words = ["--config", ROOT / "examples" / "aed_elephants.yaml", "--encoder", "resnet18", "--encoder-weights", "none",
             "--proposals", "50", "--negatives", "1", "--max-steps", "1", "--batch-size", "4", "--num-workers", "0", "--device", "cpu",
             "--precision", "fp32"]
    done = subprocess.run([sys.executable, ROOT / "train_detection.py", *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "output" / "aed_elephants"
    assert len(list((run / "tile_cache_train").glob("tile_0_*.png"))) == 140
    assert json.loads((run / "config.json").read_text())["model"]["framework"] == "faster-rcnn"
    assert (run / "checkpoints" / "final_model.pt").exists()
