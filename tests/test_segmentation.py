"""Maps made window by window against the same network on the whole image at once: pytest tests/test_segmentation.py"""

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mapping.inputs import plan_input
from mapping.journal import Journal, StoredBand
from mapping.map_files import MapFiles
from mapping.preview import thumbnail_step
from mapping.reading import Slab
from mapping.scene import map_scene
from mapping.segmentation import Predictor, predict_bands, stride_of
from mapping.settings import MapSettings, ModelFacts
from raster.scale import Scale
from raster.source import describe
from raster.windows import WindowGrid
from runtime.device import Compute

CPU = Compute(device=torch.device("cpu"))


def pointwise_network():
    """Two classes from two bands, each pixel by itself: windows, overlap and blending must not change its answer."""
    model = torch.nn.Conv2d(2, 2, 1)
    with torch.no_grad():
        model.weight[:] = torch.tensor([[-9.0, 4.0], [9.0, -4.0]]).view(2, 2, 1, 1)
        model.bias[:] = torch.tensor([2.0, -2.0])
    return model


def whole_image(model, image):
    """(H, W) float64: the burned probability of every pixel."""
    with torch.no_grad():
        return model(torch.from_numpy(image)[None].double().float()).double().softmax(1)[0, 1].numpy()


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    height=st.integers(1, 150), width=st.integers(1, 60), window=st.integers(2, 40), overlap=st.sampled_from([0.0, 0.25, 0.5, 0.9]),
    step=st.integers(1, 60), slab_rows=st.integers(1, 64), start=st.integers(0, 200),
)
@example(height=100, width=7, window=8, overlap=0.9, step=50, slab_rows=9, start=3)  # bands of one row, between those of the preview
def test_bands_of_any_size_make_up_the_whole_image_and_its_thumbnail(height, width, window, overlap, step, slab_rows, start):
    image = np.random.default_rng(height * width).random((2, height, width)).astype(np.float32)
    valid = image[0] < 0.9
    model = pointwise_network()
    predictor = Predictor(model, 2, Scale((1.0, 1.0), (0.0, 0.0)), CPU)
    grid = WindowGrid(height, width, window, stride_of(window, overlap))
    slabs = [Slab(row, image[:, row : row + slab_rows], valid[row : row + slab_rows], []) for row in range(0, height, slab_rows)]
    bands = list(predict_bands(predictor, slabs, grid, thumbnail_step=step))
    assert [b.row for b in bands] == [0, *np.cumsum([len(b.classes) for b in bands])[:-1]]  # they follow each other without a gap
    burned, classes = (np.concatenate([getattr(b, name) for b in bands]) for name in ("probability", "classes"))
    expected = whole_image(model, np.where(valid, image, 0))
    assert burned.shape == (height, width) and np.abs(burned - expected)[valid].max(initial=0) < 2e-6
    certain = valid & (np.abs(expected - 0.5) > 1e-5)
    assert np.array_equal(classes[certain], expected[certain] > 0.5) and (classes[~valid] == 255).all()
    thumbnail = np.concatenate([b.thumbnail for b in bands], axis=1)
    assert np.array_equal(thumbnail, np.where(valid, image, 0)[:, ::step, ::step].astype(np.float16))
    # And a run that continues at any band has the same ones from there on.
    later = bands[start % len(bands) :]
    again = predict_bands(predictor, slabs, grid, start_row=later[0].row, thumbnail_step=step)
    for one, two in zip(later, again, strict=True):
        assert one.row == two.row and np.array_equal(one.classes, two.classes) and np.array_equal(one.thumbnail, two.thumbnail)


def test_a_band_without_a_row_of_the_preview_is_mapped(make_raster, tmp_path):
    """4162 rows, windows of 128: the last two begin at rows 4032 and 4034. That band lies between rows 4030 and 4035 of the preview."""
    stored = np.random.default_rng(0).integers(1, 200, (2, 4162, 30)).astype(np.uint8)
    data = {"bands": ["a", "b"], "divide_by": [200.0] * 2, "offset": [0.0] * 2, "nodata": None, "classes": ["background", "fire"]}
    plan = plan_input(describe(make_raster("scene.tif", stored, descriptions=["a", "b"])), data, mean=[0.5, 0.5])
    model = pointwise_network()
    assert WindowGrid(4162, 30, 128, 96).rows[-2:] == [4032, 4034] and thumbnail_step(4162, 30) == 5
    facts = ModelFacts(bands=("a", "b"), classes=("background", "fire"), weights="pointwise")
    map_scene(Predictor(model, 2, plan.scale, CPU), plan, MapFiles(tmp_path, "scene"), facts, MapSettings(window=128))
    with rasterio.open(tmp_path / "scene_classes.tif") as dataset:
        classes = dataset.read(1)
    expected = whole_image(model, (stored / 200).astype(np.float32))
    certain = np.abs(expected - 0.5) > 1e-5
    assert np.array_equal(classes[certain], expected[certain] > 0.5)


@pytest.mark.parametrize("rows", [0, 3])
def test_the_journal_keeps_bands_without_rows_of_the_preview(tmp_path, rows):
    band = StoredBand(0, np.ones((2, 8), np.uint8), np.zeros((2, 8), np.uint8), np.ones((3, rows, 4), np.float16), 1, 0.5, [])
    journal = Journal(tmp_path / "j", {})
    journal.append(band)
    journal.close()
    (found,) = Journal(tmp_path / "j", {}).bands()
    assert found.thumbnail.shape == (3, rows, 4) and np.array_equal(found.classes, band.classes)
