"""Training says in one line when a set holds fewer chips than were asked for; a set that is complete has the bytes that it always had."""

import json
import time

import numpy as np
import pytest
import torch

import chip
import train
import train_pansharpen
from benchmarks.fake_ard import make_fake_ard
from chipping import patches
from chipping.chipset import read_chipset
from runtime.errors import RunError, UserError

TRAIN_PAN = ["--epochs", "1", "--width", "16", "--depth", "1", "--workers", "0", "--lbs", "2", "--pbs", "2", "--quiet", "--device", "cpu"]


def run(*words):
    return chip.main([str(w) for w in words]) or 0


def train_on(chips, tmp_path, capsys, *words):
    """What train_pansharpen.py says of missing chips."""
    capsys.readouterr()
    session = ["--session", f"s{time.monotonic_ns()}", "--sessions-dir", str(tmp_path / "sessions")]
    train_pansharpen.main([*session, "--chips", str(chips), *TRAIN_PAN, *words])
    return [line for line in capsys.readouterr().err.splitlines() if "asked for" in line or "to its end" in line]


def test_chips_of_which_not_all_could_be_made_are_trained_on_with_a_word(tmp_path, capsys):
    make_fake_ard(tmp_path / "ard", tiles=1, ms_side=32, null_share=0.0, blocksize=32)
    words, chips = ["make-chips", "-a", tmp_path / "ard", "--chip-size", 16], tmp_path / "chips"
    with pytest.raises(RunError, match="made .* of 5000 chips"):
        run(*words, "-c", chips, "-n", 5000)
    there = len((chips / "manifest.jsonl").read_text().splitlines())
    assert 0 < there < 5000
    expected = f"warning: {chips} holds {there} of the 5000 chips that were asked for; run the command that makes it again to complete it"
    assert train_on(chips, tmp_path, capsys) == [expected]
    assert train_on(chips, tmp_path, capsys, "--epoch-length", "1") == [expected]  # chips that are there, and not wanted, do not hide it
    run(*words, "-c", chips, "-n", there)  # so many are enough
    run(*words, "-c", tmp_path / "whole", "-n", there)
    assert train_on(chips, tmp_path, capsys) == []
    assert (chips / "chipset.json").read_bytes() == (tmp_path / "whole" / "chipset.json").read_bytes()


def test_chips_that_a_stopped_run_has_left_are_trained_on_with_a_word(tmp_path, capsys, monkeypatch):
    words = ["fake-chips", "-s", 16, "-c", 4, "-o", tmp_path / "chips"]
    with monkeypatch.context() as patch:
        made = iter(range(1, 9))
        save = torch.save
        patch.setattr(torch, "save", lambda *args: save(*args) if next(made) <= 3 else (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(*words)
    (said,) = train_on(tmp_path / "chips", tmp_path, capsys)
    assert "holds 3 of the 4 chips that were asked for" in said
    assert chip.main(["inspect", str(tmp_path / "chips")]) in (0, None)
    assert "holds 3 of the 4 chips that were asked for" in capsys.readouterr().out
    run("link-chips", tmp_path / "chips", tmp_path / "mix")
    assert "holds 3 of the 4 chips that were asked for" in capsys.readouterr().err
    assert "unfinished" not in read_chipset(tmp_path / "mix")  # which has all that it was made of
    run(*words)
    assert train_on(tmp_path / "chips", tmp_path, capsys) == [] and "unfinished" not in read_chipset(tmp_path / "chips")


@pytest.mark.slow
def test_patches_that_a_stopped_run_has_left_are_trained_on_with_a_word(tmp_path, make_raster, capsys, monkeypatch):
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        make_raster(f"images/{name}.tif", rng.integers(1, 9000, (2, 64, 96), np.uint16))
        make_raster(f"masks/{name}.tif", rng.integers(0, 2, (64, 96), np.uint8))
    monkeypatch.chdir(tmp_path)

    def cut(folder):
        words = ["--images", "images", "--masks", "masks", "--patch-size", 32, "--divide-by", 10_000, "--val", "b", "--allow-overlap"]
        return run("make-patches", *words, "--patches-dir", folder, "--quiet")

    def told(folder):
        capsys.readouterr()
        train.main(["--patches-dir", folder, "--output-dir", "out", "--architecture", "smallunet", "--epochs", "1", "--batch-size", "2",
                    "--num-workers", "0", "--device", "cpu", "--overwrite", "--quiet", "--encoder-weights", "none"])
        return [line for line in capsys.readouterr().err.splitlines() if "to its end" in line]

    cut("whole")
    count = len((tmp_path / "whole" / "manifest.jsonl").read_text().splitlines())
    with monkeypatch.context() as patch:
        whole = patches.new_lines
        patch.setattr(patches, "new_lines", lambda *args: stopped(whole(*args), count - 1))
        with pytest.raises(KeyboardInterrupt):
            cut("stopped")
    expected = f"warning: {tmp_path}/stopped was not made to its end and holds {count - 1} so far; run "
    expected += "the command that makes it again to complete it"
    assert told("stopped") == [expected]
    for folder in ("stopped", "whole"):
        cut(folder)
        assert told(folder) == []
    assert (tmp_path / "stopped" / "chipset.json").read_bytes() == (tmp_path / "whole" / "chipset.json").read_bytes()


def stopped(lines, count):
    """The first lines, and then Ctrl-C."""
    for number, line in enumerate(lines):
        if number == count:
            raise KeyboardInterrupt
        yield line


@pytest.mark.parametrize("wrong", [0, -3, "many", False, 2.5])
def test_a_statement_that_is_none_is_refused(tmp_path, wrong):
    run("fake-chips", "-s", 16, "-c", 1, "-o", tmp_path)
    path = tmp_path / "chipset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "unfinished": wrong}))
    with pytest.raises(UserError, match="chipset.json has unfinished .*, expected true or a whole number above 0"):
        read_chipset(tmp_path)
