"""Windows become one map without seams: pytest tests/test_blending.py"""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mapping.blending import Blender, decide_classes, most_likely, profiles
from mapping.segmentation import predict_array


class Pixelwise(nn.Module):
    """A 1 × 1 convolution: what it says about a pixel depends on nothing but that pixel."""

    def __init__(self, bands=3, classes=2, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(classes, bands, 1, 1, generator=generator))

    def forward(self, x):
        return nn.functional.conv2d(x, self.weight)


class Seeing(nn.Module):
    """A convolution with a 7 × 7 view: its answers differ near the border of a window."""

    def __init__(self, bands=3, classes=2):
        super().__init__()
        torch.manual_seed(1)
        self.convolution = nn.Conv2d(bands, classes, 7, padding=3)

    def forward(self, x):
        return self.convolution(x)


class Always(nn.Module):
    """The same logits for every pixel of everything."""

    def __init__(self, *logits):
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, x):
        return self.logits.view(1, -1, 1, 1).expand(len(x), -1, *x.shape[-2:]).clone()


def image(height, width, bands=3, seed=0):
    return np.random.default_rng(seed).random((bands, height, width), dtype=np.float32)


@pytest.mark.parametrize(
    ("length", "size", "stride"), [(1, 16, 12), (16, 16, 12), (17, 16, 12), (97, 16, 12), (53, 16, 16), (101, 16, 3), (50, 7, 1)]
)
def test_weights_are_positive_and_add_up_to_one_at_every_pixel(length, size, stride):
    firsts, weights = profiles(length, size, stride)
    total = np.zeros(max(length, size))
    for first, weight in zip(firsts, weights, strict=True):
        total[first : first + size] += weight
    assert weights.min() > 0
    assert np.abs(total - 1).max() < 1e-6


def test_weights_do_not_fall_towards_the_border_of_the_raster():
    _, weights = profiles(40, 16, 12)
    assert weights[0][0] == weights[-1][-1] == 1
    # Two windows cross where they share pixels: 12 … 15 belong to the first two, the outer ones more to their own.
    assert np.all(np.diff(weights[0][12:]) < 0)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 61), (5, 3), (16, 16), (37, 41), (64, 23)])
def test_a_constant_answer_gives_a_constant_map_whatever_the_size(height, width):
    _, probabilities = predict_array(Always(0.3, -0.4), image(height, width), window=16, num_classes=2, device="cpu")
    assert np.ptp(probabilities[0]) == 0 and np.ptp(probabilities[1]) == 0
    assert probabilities[1, 0, 0] == pytest.approx(1 / (1 + np.exp(0.7)), abs=2e-6)


def test_a_tie_is_a_tie_everywhere():
    for logits in ((1.0, 1.0), (0.7, 0.7, 0.7), (0.1, 0.1, 0.1, 0.1, 0.1)):
        classes, _ = predict_array(Always(*logits), image(37, 41), window=16, num_classes=len(logits), device="cpu")
        assert set(np.unique(classes)) == {0}
    classes, _ = predict_array(Always(1.0, 1.0), image(37, 41), window=16, num_classes=2, threshold=0.5, device="cpu")
    assert set(np.unique(classes)) == {1}


@pytest.mark.parametrize("tta", [False, True])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 50), (16, 16), (47, 53)])
def test_a_pixelwise_model_maps_windows_as_it_maps_the_whole_image(height, width, tta):
    pixels, model = image(height, width), Pixelwise(classes=3)
    classes, probabilities = predict_array(model, pixels, window=16, num_classes=3, tta=tta, device="cpu")
    with torch.no_grad():
        whole = model(torch.from_numpy(pixels)[None]).softmax(1)[0].numpy()
    assert np.abs(probabilities - whole).max() < 2e-6
    assert (classes == whole.argmax(0)).mean() > 0.999


def test_the_map_does_not_depend_on_the_batch_size():
    maps = [predict_array(Seeing(), image(75, 90), window=32, num_classes=2, batch_size=b, device="cpu")[1] for b in (1, 4, 7)]
    assert np.abs(maps[0] - maps[1]).max() < 1e-5
    assert np.abs(maps[0] - maps[2]).max() < 1e-5


def test_blending_softens_what_windows_disagree_about():
    """A network that pads with zeros errs at the border of its windows. Side by side that shows as a jump; blended, it is spread out."""
    rows, columns = np.mgrid[:150, :150] / 150
    smooth = np.stack([rows, columns, rows * columns]).astype(np.float32)

    def highest_step(overlap):
        _, probabilities = predict_array(Seeing(), smooth, window=32, overlap=overlap, num_classes=2, device="cpu")
        return np.abs(np.diff(probabilities[1, 8:-8, 8:-8], axis=1)).max()

    assert highest_step(0.5) < highest_step(0.25) < highest_step(0.0) / 2


def test_flips_and_turns_make_the_map_turn_with_the_image():
    pixels = image(32, 32)
    _, straight = predict_array(Seeing(), pixels, window=32, num_classes=2, tta=True, device="cpu")
    _, turned = predict_array(Seeing(), np.rot90(pixels, axes=(1, 2)).copy(), window=32, num_classes=2, tta=True, device="cpu")
    assert np.abs(np.rot90(straight, axes=(1, 2)) - turned).max() < 2e-6


def test_what_lies_under_invalid_pixels_changes_nothing():
    pixels, valid = image(40, 40), np.ones((40, 40), dtype=bool)
    valid[10:20, 5:30] = False
    other = pixels.copy()
    other[:, ~valid] = np.nan
    first = predict_array(Seeing(), pixels, valid, window=16, num_classes=2, device="cpu")
    second = predict_array(Seeing(), other, valid, window=16, num_classes=2, device="cpu")
    assert np.array_equal(first[0], second[0]) and np.array_equal(first[1], second[1])
    assert (first[0][~valid] == 255).all() and (first[0][valid] != 255).all()


def test_windows_without_a_valid_pixel_are_not_run():
    seen = []

    class Counting(Pixelwise):
        def forward(self, x):
            seen.append(len(x))
            return super().forward(x)

    valid = np.zeros((64, 64), dtype=bool)
    valid[0, 0] = True
    predict_array(Counting(), image(64, 64), valid, window=16, overlap=0, num_classes=2, device="cpu")
    assert sum(seen) == 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32, np.float64])
def test_stored_values_of_any_type_become_the_same_reflectance(dtype):
    stored = np.random.default_rng(0).integers(0, 250, (3, 20, 20)).astype(dtype)
    if dtype is np.uint16:
        stored[0, 0, 0] = 65535
    got = predict_array(Pixelwise(), stored, divide_by=(200, 100, 50), offset=-10, window=16, num_classes=2, device="cpu")[1]
    reflectance = ((stored.astype(np.float64) - 10) / np.array([200, 100, 50])[:, None, None]).astype(np.float32)
    want = predict_array(Pixelwise(), reflectance, window=16, num_classes=2, device="cpu")[1]
    assert np.abs(got - want).max() < 2e-5


def test_a_threshold_decides_what_burns_and_the_likeliest_of_the_rest_how_badly():
    probability = torch.tensor([[0.6, 0.4], [0.1, 0.25], [0.3, 0.35]])[:, None]  # three classes, two pixels
    assert decide_classes(probability, None)[0].tolist() == [[0, 0]]
    assert decide_classes(probability, 0.5)[0].tolist() == [[0, 2]]
    assert decide_classes(probability, 0.39)[0].tolist() == [[2, 2]]
    assert decide_classes(probability, 0.39)[1].tolist() == [pytest.approx([0.4, 0.6])]


@given(st.integers(1, 9), st.integers(0, 10**6), st.integers(1, 6))
def test_the_most_likely_class_is_the_first_of_the_highest(classes, seed, levels):
    """Few levels, so that many classes are equally likely."""
    probability = torch.from_numpy(np.random.default_rng(seed).integers(0, levels, (classes, 5, 7)) / levels)
    found, highest = most_likely(probability)
    assert found.dtype == torch.uint8 and np.array_equal(found.numpy(), probability.numpy().argmax(axis=0))
    assert np.array_equal(highest.numpy(), probability.numpy().max(axis=0))


def test_rows_of_windows_come_in_order():
    blender = Blender(40, 40, 2, 16, 12, "cpu")
    with pytest.raises(ValueError, match="in order"):
        blender.add(1, [0], torch.zeros(1, 2, 16, 16))
