"""What the README, the pages and the programs' own opening lines tell a reader to type is what the programs understand."""

import importlib
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
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
    words = shlex.split(command)
    path = ROOT / words[0]
    assert path.exists(), f"{place} tells to run {words[0]}, which is not there"
    if path.parent != ROOT:  # benchmarks take seconds to minutes: that they exist is what is held here
        return
    program = importlib.import_module(path.stem)
    arguments = program.join_signed(words[1:]) if hasattr(program, "join_signed") else words[1:]
    program.build_parser().parse_args(arguments)


def test_every_page_and_file_that_is_named_exists():
    missing = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        links = [target.split("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
        missing += [f"{page.name}: {target}" for target in links if target and not (page.parent / target).exists()]
        named = re.findall(r"`((?:raster|chipping|nets|mapping|runtime|docs|benchmarks|tests)/[\w./]+\.\w+)`", text)
        missing += [f"{page.name}: {name}" for name in named if not (ROOT / name).exists()]
    assert missing == []


@pytest.mark.slow
def test_the_road_of_the_readme_runs_on_real_fires(real_data, tmp_path):
    """The README's block as written, in a folder with the fires; only the training is cut short."""
    for name in ("post_fire", "masks"):
        (tmp_path / name).symlink_to(real_data / "wildfire" / name)
    shutil.copy(next((real_data / "wildfire" / "post_fire").glob("DOVE*")), tmp_path / "scene.tif")
    block = next(b for b in re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL) if "--exclude" in b)
    found = list(commands_in(block))
    assert [c.split(".py")[0] for c in found] == ["chip", "chip", "train", "train", "inference"]
    for command in found:
        words = shlex.split(command)
        if words[0] == "train.py" and "--resume" not in words:
            words += ["--max-steps", "3", "--encoder", "resnet18", "--batch-size", "4", "--num-workers", "0"]
        done = subprocess.run([sys.executable, ROOT / words[0], *words[1:]], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    assert (tmp_path / "maps" / "scene_classes.tif").exists() and (tmp_path / "output" / "scores_val.csv").exists()
