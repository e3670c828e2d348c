"""What a scene takes is said before it is mapped, and refused where no compression makes it fit: pytest tests/test_cost.py"""

import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from map_factory import BANDS, numbers, run, write_checkpoint
from rasterio.transform import from_origin

import mapping.cost as cost
import pansharpening.cost
from mapping.journal import Journal, StoredBand
from mapping.settings import MapSettings
from raster.windows import WindowGrid, starts
from runtime.errors import UserError
from runtime.logs import Console


def scene_of(width, height, tmp_path, probabilities=None, written=0):
    """(run, plan) with as much in them as tell_large looks at."""
    files = SimpleNamespace(journal_size=lambda: written)
    settings = MapSettings(window=256, probabilities=probabilities)
    facts = SimpleNamespace(classes=("a", "b"))
    started = SimpleNamespace(settings=settings, files=lambda name: files, output_dir=tmp_path / "maps", facts=facts)
    return started, SimpleNamespace(info=SimpleNamespace(width=width, height=height, block_shapes=[(512, 512)]), indexes=[1, 2, 3])


@pytest.mark.parametrize("length, size, stride", [(1, 8, 8), (8, 8, 3), (9, 8, 8), (100, 32, 24), (4162, 128, 96), (17, 4, 1)])
def test_windows_are_counted_without_a_list_of_them(length, size, stride):
    grid = WindowGrid(length, 3 * length + 1, size, stride)
    assert grid.count == len(starts(length, size, stride)) * len(starts(3 * length + 1, size, stride))


def test_a_raster_of_ten_to_the_eighteen_pixels_is_refused_at_once(tmp_path):
    with pytest.raises(UserError, match="takes at least 1.9 PB of disk while it is mapped, and .* are free; choose another --output-dir"):
        cost.tell_large(*scene_of(10**9, 10**9, tmp_path), "huge", Console())


@pytest.mark.parametrize("probabilities, written, fits", [
    (None, 0, True), ("float32", 0, False), ("float32", 3_100_000, True),
])
def test_what_an_earlier_run_has_written_is_not_needed_again(tmp_path, monkeypatch, capsys, probabilities, written, fits):
    monkeypatch.setattr(cost, "free_bytes", lambda folder: 2_002_000)
    monkeypatch.setattr(cost, "seconds_a_window", lambda run, plan: 0.25)
    told = cost.tell_large, (*scene_of(100_000, 10_000, tmp_path, probabilities, written), "wide", Console())
    if not fits:
        with pytest.raises(UserError, match="at least 4.8 MB"):
            told[0](*told[1])
        return
    told[0](*told[1])
    windows = 521 * 52  # ceil((100 000 − 256) / 192) + 1 and ceil((10 000 − 256) / 192) + 1
    assert f"wide: {windows:,} windows, about 113 minutes; " in (said := capsys.readouterr().err)
    disk = "1.9 MB (nodata alone) to 2.0 GB" if probabilities is None else "1.7 MB (nodata alone) to 5.0 GB"
    assert said.endswith(f"{disk} of disk on the way\n")


@given(st.sampled_from(["uint8", "float32"]), st.integers(1, 40), st.integers(1, 3000), st.sampled_from([0, 0.03, 1]))
def test_the_journal_is_as_large_as_was_said(kind, rows, width, share):
    """share: of the rows that are noise, beside nodata."""
    rng, noisy = np.random.default_rng(rows), round(share * rows)
    classes, burned = np.full((rows, width), 255, np.uint8), np.zeros((rows, width), kind)
    classes[:noisy] = rng.integers(0, 256, (noisy, width))
    burned[:noisy] = rng.integers(0, 255, (noisy, width)) if kind == "uint8" else rng.random((noisy, width), np.float32)
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "j", {})
        journal.append(StoredBand(0, classes, burned, np.zeros((1, 0, 0), np.float16), 1, 0.5, []))
        size = (Path(folder) / "j" / "bands.bin").stat().st_size
        journal.close()
    least, most = cost.disk_of(SimpleNamespace(width=width, height=rows), MapSettings(window=8, probabilities=kind))
    overhead = 3 * (20 + 5 * (most // 16_000 + 1))  # of three streams of zlib, and of their blocks where nothing can be saved
    assert least <= size <= (most + overhead if noisy else most // 1000 + overhead)


def test_a_sparse_scene_that_is_larger_than_the_free_disk_is_mapped(tmp_path, make_raster, monkeypatch):
    pixels = np.zeros((3, 96, 400), np.uint16)
    pixels[:, :32, :32] = 2000
    scene = make_raster("scene.tif", pixels, descriptions=BANDS, nodata=0)
    monkeypatch.setattr(cost, "free_bytes", lambda folder: 96 * 400 // 2)  # a byte for each pixel is twice as much
    words = ["--checkpoint", write_checkpoint(tmp_path / "a.pt"), "--output-dir", tmp_path / "maps", "--device", "cpu"]
    assert run(scene, *words) == 0 and (tmp_path / "maps" / "scene_classes.tif").exists()


def test_long_times_are_in_hours_days_and_years():
    seconds = (30, 600, 3 * 3600, 3 * 86400, 12_345 * 365 * 86400)
    assert [cost.long_duration(s) for s in seconds] == ["30 seconds", "10 minutes", "3 hours", "3 days", "12,345 years"]


def test_a_small_scene_says_nothing_of_it_and_a_large_one_does_and_both_are_mapped(tmp_path, make_raster, monkeypatch, capsys):
    scene, checkpoint = make_raster("scene.tif", numbers(60, 60), descriptions=BANDS), write_checkpoint(tmp_path / "a.pt")
    for large in (20_000, 4):
        monkeypatch.setattr(cost, "LARGE", large)
        assert run(scene, "--checkpoint", checkpoint, "--output-dir", tmp_path / str(large), "--device", "cpu") == 0
        assert ("9 windows, about " in capsys.readouterr().err) == (large == 4)
    assert (tmp_path / "4" / "scene_classes.tif").read_bytes() == (tmp_path / "20000" / "scene_classes.tif").read_bytes()
    monkeypatch.setattr(cost, "free_bytes", lambda folder: 5)  # of 6 bytes
    with pytest.raises(UserError, match="6 B of disk"):
        run(scene, "--checkpoint", checkpoint, "--output-dir", tmp_path / "full", "--device", "cpu")
    assert not list((tmp_path / "full").iterdir())


# ---------------------------------------------------------------------------------------------------------------- sharpening


@pytest.fixture
def pair(make_raster):
    rng = np.random.default_rng(0)
    north_west, names = (500_000, 4_600_000), ["blue", "green", "red"]
    pan = make_raster("a-pan.tif", rng.integers(1, 900, (256, 256), np.uint16), transform=from_origin(*north_west, 2, 2))
    ms = make_raster("a-ms.tif", rng.integers(1, 900, (3, 64, 64), np.uint16), transform=from_origin(*north_west, 8, 8), descriptions=names)
    return ["--pan", pan, "--ms", ms]


def test_a_large_pair_says_what_sharpening_takes_a_small_one_does_not_and_a_dry_run_always(pair, tmp_path, monkeypatch, capsys):
    words = ["--method", "gsa", *pair, "--block-side", 64, "--device", "cpu"]
    monkeypatch.setattr(pansharpening.cost, "seconds_a_block", lambda *_: 7200.0)
    told = "16 blocks, about 32 hours; "  # (256 / 64)², two hours each
    for large, dry in ((17, False), (17, True), (16, False)):
        monkeypatch.setattr(pansharpening.cost, "LARGE", large)
        assert run(*words, "--output-dir", tmp_path / f"{large}{dry}", *["--dry-run"] * dry) == 0
        said = capsys.readouterr().err
        assert (told in said) == (dry or large == 16)
        # 256² pixels of three uint16, twice, and a third more for overviews
        assert ("31 B (nodata alone) to 1.0 MB of disk on the way" in said) == (told in said), said
    assert (tmp_path / "16False" / "a_sharpened.tif").read_bytes() == (tmp_path / "17False" / "a_sharpened.tif").read_bytes()


def test_a_pair_that_no_compression_makes_fit_is_refused_before_anything_is_read(pair, tmp_path, monkeypatch):
    monkeypatch.setattr(cost, "free_bytes", lambda folder: 30)
    monkeypatch.setattr("pansharpening.sharpeners.image_moments", lambda *_: pytest.fail("the whole image was read first"))
    with pytest.raises(UserError, match="takes at least 31 B of disk while it is made, and 30 B are free; choose another --output-dir"):
        run("--method", "gsa", *pair, "--output-dir", tmp_path / "maps", "--device", "cpu")
    assert not list((tmp_path / "maps").iterdir())
