"""What a scene takes is said before it is mapped, and refused where no compression makes it fit: pytest tests/test_cost.py"""

from types import SimpleNamespace

import pytest
from map_factory import BANDS, numbers, run, write_checkpoint

import mapping.cost as cost
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
    with pytest.raises(UserError, match="takes at least 1.0 EB of disk while it is mapped, and .* are free; choose another --output-dir"):
        cost.tell_large(*scene_of(10**9, 10**9, tmp_path), "huge", Console())


@pytest.mark.parametrize("probabilities, written, fits", [
    (None, 0, True), ("float32", 0, False), ("float32", 3_100_000_000, True),
])
def test_what_an_earlier_run_has_written_is_not_needed_again(tmp_path, monkeypatch, capsys, probabilities, written, fits):
    monkeypatch.setattr(cost, "free_bytes", lambda folder: 1_002_000_000)
    monkeypatch.setattr(cost, "seconds_a_window", lambda run, plan: 0.25)
    told = cost.tell_large, (*scene_of(100_000, 10_000, tmp_path, probabilities, written), "wide", Console())
    if not fits:
        with pytest.raises(UserError, match="at least 4.0 GB"):
            told[0](*told[1])
        return
    told[0](*told[1])
    windows = 521 * 52  # ceil((100 000 − 256) / 192) + 1 and ceil((10 000 − 256) / 192) + 1
    assert f"wide: {windows:,} windows, about 113 minutes; " in capsys.readouterr().err


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
    monkeypatch.setattr(cost, "free_bytes", lambda folder: 3000)  # of 3603 bytes
    with pytest.raises(UserError, match="3.6 kB of disk"):
        run(scene, "--checkpoint", checkpoint, "--output-dir", tmp_path / "full", "--device", "cpu")
    assert not list((tmp_path / "full").iterdir())
