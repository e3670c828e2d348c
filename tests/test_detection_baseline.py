"""Blobs by the Laplacian of Gaussian: where they are put, what training images decide, and that blocks do not show."""

import contextlib
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detection import baseline
from detection.baseline import detect, find, fit, maxima
from detection.metrics import score_images
from runtime.errors import UserError


@dataclass
class Pictures:
    """What baseline.py asks of a TileSet, from arrays (C, H, W) uint8 and their boxes."""

    arrays: list
    images: list = field(default_factory=list)
    folder: str = "pictures"
    divide_by: tuple = (255.0,)
    offset: tuple = (0.0,)

    def reader(self, index):
        return contextlib.nullcontext(index)

    def window(self, reader, index, x0, y0, width, height):
        pixels = self.arrays[index][:, y0 : y0 + height, x0 : x0 + width]
        assert pixels.shape[1:] == (height, width), "windows have to lie within the image"
        return pixels, np.ones(pixels.shape[1:], bool)


def labelled(boxes, width, height, labels=None):
    boxes = np.array(boxes, float).reshape(-1, 4)
    return SimpleNamespace(boxes=boxes, labels=np.array(labels if labels is not None else [1] * len(boxes), int),
                           ignore=np.zeros((0, 4)), width=width, height=height, image_id=7)


def discs(rng, width, height, count, radius, inside=200, ground=60, noise=6):
    """A picture with `count` discs of one size on noisy ground, and their boxes."""
    y, x = np.mgrid[:height, :width] + 0.5
    grey, boxes = rng.normal(ground, noise, (height, width)), []
    while len(boxes) < count:
        cx, cy = rng.uniform(radius, width - radius), rng.uniform(radius, height - radius)
        if all(np.hypot(cx - (b[0] + b[2]) / 2, cy - (b[1] + b[3]) / 2) > 3 * radius for b in boxes):
            grey[np.hypot(x - cx, y - cy) <= radius] = inside
            boxes.append((cx - radius, cy - radius, cx + radius, cy + radius))
    return np.clip(grey, 0, 255).astype(np.uint8)[None], labelled(boxes, width, height)


@pytest.mark.parametrize(("inside", "ground", "sign"), [(200, 60, 1), (20, 150, -1)])
@pytest.mark.parametrize("radius", [3, 12, 24])
def test_discs_are_found_where_they_are_bright_or_dark(radius, inside, ground, sign):
    rng = np.random.default_rng(0)
    drawn = [discs(rng, 20 * radius, 16 * radius, 8, radius, inside, ground) for _ in range(2)]
    chosen = fit(Pictures([drawn[0][0]], [drawn[0][1]]))
    assert chosen.sign == sign and chosen.box == pytest.approx((2 * radius, 2 * radius), rel=1e-6)
    test = Pictures([drawn[1][0]], [drawn[1][1]])
    image = drawn[1][1]
    truths = [{"boxes": image.boxes, "labels": image.labels, "ignore": image.ignore}]
    scores = score_images(truths, detect(test, chosen), ("disc",), threshold=chosen.threshold)
    assert scores["f1"] == 1 and scores["f1_centre"] == 1 and scores["count_mae"] == 0


def test_the_response_to_a_disc_is_highest_at_its_own_size_and_does_not_change_with_the_scale():
    def response(radius, sigma):
        y, x = np.mgrid[: 10 * radius, : 10 * radius] + 0.5
        grey = (np.hypot(x - 5 * radius, y - 5 * radius) <= radius).astype(np.float32)
        return maxima(grey, sigma, 1)[1].max()

    at = {factor: response(20, factor * 20 / np.sqrt(2)) for factor in (0.5, 1.0, 2.0)}
    assert max(at, key=at.get) == 1.0
    assert at[1.0] == pytest.approx(2 / np.e, rel=0.03)  # ∫ over the disc of σ²ΔG at σ² = r² / 2
    assert response(40, 40 / np.sqrt(2)) == pytest.approx(at[1.0], rel=0.03)


@given(seed=st.integers(0, 2**32 - 1), width=st.integers(40, 200), height=st.integers(40, 200), block=st.integers(30, 90),
       sigma=st.floats(2, 10))
@settings(max_examples=20)
def test_blocks_of_any_size_give_the_detections_of_the_whole_image(seed, width, height, block, sigma):
    picture, image = discs(np.random.default_rng(seed), width, height, 3, 5)
    pictures, chosen = Pictures([picture], [image]), baseline.Chosen((10.0, 10.0), sigma, 1, 1)
    whole = find(pictures, 0, chosen)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(baseline, "BLOCK", block)
        parts = find(pictures, 0, chosen)
    strong = whole["scores"] > 0.1
    np.testing.assert_allclose(parts["boxes"][: strong.sum()], whole["boxes"][strong])
    np.testing.assert_allclose(parts["scores"][: strong.sum()], whole["scores"][strong], rtol=1e-4)


def test_ground_without_anything_has_no_detections_and_the_most_frequent_class_is_the_label():
    plain = np.full((1, 50, 60), 90, np.uint8)
    assert len(find(Pictures([plain], [labelled([], 60, 50)]), 0, baseline.Chosen((8.0, 8.0), 3.0, 1, 1))["boxes"]) == 0
    picture, image = discs(np.random.default_rng(1), 120, 100, 5, 6)
    image.labels = np.array([1, 2, 2, 2, 1])
    assert fit(Pictures([picture], [image])).label == 2


def test_training_images_without_objects_are_refused():
    with pytest.raises(UserError, match="have no objects"):
        fit(Pictures([np.zeros((1, 9, 9), np.uint8)], [labelled([], 9, 9)]))
