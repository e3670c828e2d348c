"""Maps that are the mean over windows of several sizes."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from map_factory import data, killed_at_call, numbers, run, tiny_model, write_checkpoint

from mapping.journal import Journal
from mapping.reading import Slab
from mapping.segmentation import Predictor, grids_of, predict_array, predict_bands, shared, whole_map
from raster.scale import Scale
from runtime.device import Compute
from runtime.errors import UserError

CPU = Compute(device=torch.device("cpu"))
PLAIN = Scale((1.0, 1.0), (0.0, 0.0))


class MinusMean(torch.nn.Module):
    """Answers depend on the window: the first band against its mean over it."""

    def forward(self, x):
        contrast = x[:, :1] - x[:, :1].mean(dim=(2, 3), keepdim=True)
        return torch.cat([-contrast, contrast], dim=1) * 5


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(1, 90), st.integers(1, 40), st.lists(st.integers(2, 40), min_size=2, max_size=3, unique=True),
       st.sampled_from([0.0, 0.25, 0.6]), st.integers(1, 30), st.integers(0, 50))
def test_the_mean_of_maps_of_each_size_whatever_is_continued(height, width, sides, overlap, slab_rows, start):
    image = np.random.default_rng(height * width).random((2, height, width)).astype(np.float32)
    valid = image[1] < 0.95
    slabs = [Slab(r, image[:, r : r + slab_rows], valid[r : r + slab_rows], [[r, 0, 1, 1, "x"]]) for r in range(0, height, slab_rows)]
    predictor, grids = Predictor(MinusMean(), 2, PLAIN, CPU), grids_of(height, width, sides, overlap)
    alone = [whole_map(predictor, slabs, grid, None)[1] for grid in grids]
    bands = list(predict_bands(predictor, slabs, grids, keep_probabilities=True, thumbnail_step=3))
    assert [b.row for b in bands] == [0, *np.cumsum([len(b.classes) for b in bands])[:-1]]
    found = np.concatenate([b.probabilities for b in bands], axis=1)
    assert np.abs(found - np.mean(alone, axis=0)).max() < 1e-6
    assert np.array_equal(np.concatenate([b.valid for b in bands]), valid)
    assert [u[0] for b in bands for u in b.unreadable] == [s.row for s in slabs]
    later = bands[start % len(bands) :]
    for one, two in zip(later, predict_bands(predictor, slabs, grids, start_row=later[0].row, keep_probabilities=True), strict=True):
        assert (one.row, one.windows, one.unreadable) == (two.row, two.windows, two.unreadable)
        assert np.array_equal(one.probabilities, two.probabilities) and np.array_equal(one.classes, two.classes)


def test_slabs_wait_no_longer_than_the_slowest_reader_needs():
    alive, most = [], 0
    first, second = shared((alive.append(i) or i for i in range(100)), 2)
    for i in range(90):
        assert next(first) == i
        if i >= 3:
            assert next(second) == i - 3
        most = max(most, len(alive) - max(0, i - 2))
    assert most <= 4 and list(first) == list(range(90, 100)) and list(second) == list(range(87, 100))


def test_a_map_of_two_sizes_is_the_mean_and_says_its_windows(make_raster, tmp_path, capsys):
    scene, checkpoint = make_raster("scene.tif", numbers(150, 70), descriptions=["B04", "B08", "B12"]), write_checkpoint(tmp_path / "a.pt")
    run("--checkpoint", checkpoint, scene, "--output-dir", tmp_path / "maps", "--window", "32,48", "--probabilities", "float32")
    import rasterio

    with rasterio.open(tmp_path / "maps" / "scene_probability.tif") as dataset:
        found = dataset.read(1)
    stored = numbers(150, 70).astype(np.float32)
    expected = predict_array(tiny_model(), stored, divide_by=10_000, window=[32, 48], device="cpu", accept_scale=True)[1][1]
    assert np.abs(found - expected).max() < 1e-5
    record = json.loads((tmp_path / "maps" / "summary.json").read_text())
    assert "48" in json.dumps(record)
    with pytest.raises(UserError, match="further_windows"):
        run("--checkpoint", checkpoint, scene, "--output-dir", tmp_path / "maps", "--window", "32")
    run("--checkpoint", checkpoint, scene, "--output-dir", tmp_path / "maps", "--window", "32,48", "--dry-run", "--overwrite")
    assert "windows of 32 and 48" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["32,32", "32,x", "4,32", "32,"])
def test_sizes_that_are_none_are_refused(text, tmp_path):
    with pytest.raises(UserError, match="--window"):
        run("--checkpoint", tmp_path / "a.pt", "x.tif", "--window", text)


def test_only_maps_of_pixels_are_a_mean(tmp_path):
    checkpoint = write_checkpoint(tmp_path / "a.pt", kind="classification", **{k: v for k, v in data().items() if k == "layer"})
    with pytest.raises(UserError, match="only a map of pixels"):
        run("--checkpoint", checkpoint, "x.tif", "--window", "32,48")


@pytest.mark.parametrize("kill", [1, 3])
def test_a_map_of_two_sizes_that_is_killed_goes_on_to_the_same_bytes(make_raster, tmp_path, kill):
    scene, checkpoint = make_raster("scene.tif", numbers(150, 70), descriptions=["B04", "B08", "B12"]), write_checkpoint(tmp_path / "a.pt")

    def make(folder):
        run("--checkpoint", checkpoint, scene, "--output-dir", tmp_path / folder, "--window", "32,48", "--probabilities", "float32")

    make("whole")
    with killed_at_call(kill, Journal, "append"):
        make("again")
    assert not (tmp_path / "again" / "scene_classes.tif").exists()
    make("again")
    for name in ("scene_classes.tif", "scene_probability.tif"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
