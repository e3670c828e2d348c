"""Detectors, their targets and their augmentation. Run: pytest tests/test_detectors.py"""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import generalized_box_iou
from torchvision.transforms.v2.functional import adjust_brightness, adjust_contrast

import augment
from detection import augment as box_augment
from detection.anchors import fit_anchors, fitting_stride, narrow_side, usual_size
from detection.centre import STRIDE, CentreDetector, above, boxes_around, heat_loss, make_targets
from detection.detections import DOUBLE, averaged_boxes, box_giou, doubles
from detection.detectors import ALL_FRAMEWORKS, DetectorConfig, build_detector, detector_from_checkpoint
from detection.encoders import count_weights
from detection.scale import to_input
from detection.torchvision_detectors import fill_ignored
from nets.turns import VIEWS, boxes_turned_back, turned, turned_back
from runtime.errors import UserError

NONE = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "ignore": torch.zeros(0, 4)}


def target(boxes, labels=None, ignore=()):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    labels = torch.ones(len(boxes), dtype=torch.int64) if labels is None else torch.tensor(labels)
    return {"boxes": boxes, "labels": labels, "ignore": torch.tensor(ignore, dtype=torch.float32).reshape(-1, 4)}


def random_boxes(random, count, size, least=1.0):
    corner = random.uniform(0, size - least, (count, 2))
    return torch.tensor(np.concatenate([corner, np.minimum(size, corner + random.uniform(least, size / 2, (count, 2)))], axis=1)).float()


# ------------------------------------------------------------------------------------------------------------- overlaps


@given(st.integers(0, 10**6))
def test_the_generalised_iou_is_torchvisions(seed):
    random = np.random.default_rng(seed)
    one, other = random_boxes(random, 5, 100), random_boxes(random, 5, 100)
    assert torch.allclose(box_giou(one, other), generalized_box_iou(one, other).diagonal(), atol=1e-5)
    assert torch.allclose(box_giou(one.T, other.T, dim=0), box_giou(one, other))


@given(st.integers(0, 10**6), st.integers(0, 12), st.sampled_from([20, 60]))
def test_a_double_is_a_box_mostly_in_a_better_one_of_its_class_or_around_it_and_much_smaller_or_larger(seed, count, size):
    boxes = random_boxes(np.random.default_rng(seed), count, size)
    labels = torch.from_numpy(np.random.default_rng(seed).integers(1, 3, count))
    expected = [False] * count
    for i in range(count):
        for j in range(i):
            (a, b, c, d), (e, f, g, h) = boxes[i].tolist(), boxes[j].tolist()
            common = max(0.0, min(c, g) - max(a, e)) * max(0.0, min(d, h) - max(b, f))
            small, large = sorted([(c - a) * (d - b), (g - e) * (h - f)])
            expected[i] |= bool(labels[i] == labels[j]) and common > DOUBLE * small and small < large / 2
    assert doubles(boxes, labels).tolist() == expected


def test_the_narrow_second_box_of_an_object_is_no_detection_and_its_neighbour_is_one():
    boxes = torch.tensor([[10.0, 10, 30, 30], [12, 14, 18, 28], [31, 10, 50, 30], [12, 14, 18, 28], [60, 60, 70, 70]])
    scores, labels = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.2]), torch.tensor([1, 1, 1, 2, 1])
    found = above(boxes, scores, labels, 0.3, 4)
    assert found.scores.tolist() == pytest.approx([0.9, 0.7, 0.6]) and found.labels.tolist() == [1, 1, 2] and not found.full
    assert above(boxes, scores, labels, 0.3, 3).full and len(above(boxes, scores, labels, 0.3, 3).boxes) == 2


# ------------------------------------------------------------------------------------------------------- flips and turns


@given(st.sampled_from(VIEWS), st.integers(2, 12), st.integers(2, 12), st.data())
def test_boxes_of_a_turned_image_go_back_to_their_pixels(view, height, width, data):
    x0, y0 = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    x1, y1 = data.draw(st.integers(x0 + 1, width)), data.draw(st.integers(y0 + 1, height))
    image = torch.zeros(1, height, width)
    image[:, y0:y1, x0:x1] = 1
    seen = turned(image, view)
    assert torch.equal(turned_back(seen, view), image)
    _, rows, columns = torch.nonzero(seen, as_tuple=True)
    box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert boxes_turned_back(box, view, (height, width)) == (x0, y0, x1, y1)


def test_the_eight_views_differ():
    image = torch.arange(6.0).reshape(1, 2, 3)
    assert len({tuple(map(tuple, turned(image, view)[0].tolist())) for view in VIEWS}) == 8


@settings(max_examples=12)
@given(st.integers(0, 10**6), st.sampled_from(VIEWS), st.sampled_from([(64, 64), (32, 96), (64, 32)]), st.sampled_from([4, 2]))
def test_with_flips_and_turns_the_detections_of_a_turned_image_are_the_turned_detections(seed, view, size, stride):
    torch.manual_seed(seed)
    network = CentreDetector("small", 2, 2, (20.0, 14.0), width=8, stride=stride).eval()
    torch.nn.init.normal_(network.box[-1].weight, std=0.3)  # boxes that differ from cell to cell, and from view to view
    image = torch.rand(1, 2, *size)
    with torch.no_grad():
        (heat, boxes), (seen, found) = network.maps(image, tta=True), network.maps(turned(image, view), tta=True)
    assert torch.allclose(turned_back(seen, view), heat, atol=1e-4)
    back = torch.stack(boxes_turned_back(turned_back(found, view).unbind(1), view, size), dim=1)
    assert torch.allclose(back, boxes, atol=2e-2)


@settings(max_examples=12)
@given(st.integers(0, 10**6), st.integers(20, 80), st.integers(20, 80), st.sampled_from([4, 2]))
def test_flips_and_turns_of_images_of_any_size_are_the_mean_of_what_their_views_say(seed, height, width, stride):
    torch.manual_seed(seed)
    network = CentreDetector("small", 2, 2, (20.0, 14.0), width=8, stride=stride).eval()
    image = torch.rand(1, 2, height, width)
    whole = torch.nn.functional.pad(image, (0, -width % 32, 0, -height % 32))
    with torch.no_grad():
        heat, boxes = network.maps(image, tta=True)
        expected = sum(turned_back(network(turned(whole, view))[0].sigmoid(), view) for view in VIEWS) / 8
    rows, columns = -(-height // stride), -(-width // stride)
    assert torch.allclose(heat, expected[..., :rows, :columns], atol=1e-5) and boxes.shape == (1, 4, rows, columns)


def test_flips_and_turns_are_refused_where_there_is_no_heat_map():
    detector = build_detector(DetectorConfig(framework="fcos", encoder="small")).eval()
    with pytest.raises(ValueError, match="heat maps, which fcos does not have"):
        detector.predict(torch.rand(1, 3, 32, 32), tta=True)


# ---------------------------------------------------------------------------------------------------------- augmentation


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.integers(40, 120), st.integers(40, 120), st.sampled_from([32, 48, 64]), st.floats(1.0, 2.0))
def test_boxes_follow_the_pixels_of_their_objects(seed, height, width, size, zoom):
    """An object of ones on ground of a tenth: its box in the crop is where its ones are."""
    random = np.random.default_rng(seed)
    left, top = int(random.integers(0, width - 12)), int(random.integers(0, height - 12))
    right, bottom = left + int(random.integers(6, 13)), top + int(random.integers(6, 13))
    image = torch.full((1, 2, height, width), 0.1)
    image[..., top:bottom, left:right] = 1.0
    policy = box_augment.CropPolicy(size=size, zoom=zoom)
    draws = box_augment.draw(1, 2, seed, 0, 0, policy, augment.Policy(0.5, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0))
    (crop,), (found,) = box_augment.crops(image, [target([[left, top, right, bottom]])], draws, policy)
    assert crop.shape == (2, size, size)
    rows, columns = torch.nonzero(crop[0] > 0.55, as_tuple=True)
    if not len(found["boxes"]):
        assert len(rows) == 0 or len(found["ignore"])
        return
    seen = torch.tensor([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()
    assert (found["boxes"][0] - seen).abs().max() <= 1.0  # the interpolated border


def test_a_box_of_which_too_little_is_left_becomes_an_ignore_region_and_masks_are_cut_with_their_boxes():
    masks = torch.zeros(2, 40, 40, dtype=torch.bool)
    masks[0, 2:10, 2:10], masks[1, 10:20, 30:40] = True, True
    found = box_augment.crop_target({**target([[2, 2, 10, 10], [30, 10, 40, 20]], [1, 2]), "masks": masks}, 0, 0, 31, 62, 0.2)
    assert found["boxes"].tolist() == [[4, 4, 20, 20]] and found["labels"].tolist() == [1]
    assert found["ignore"].tolist() == [[60, 20, 62, 40]]
    assert found["masks"].shape == (1, 62, 62) and found["masks"].sum() == 16 * 16


def test_crops_without_objects_and_images_smaller_than_a_crop_have_real_empty_targets():
    policy = box_augment.CropPolicy(size=64)
    draws = box_augment.draw(3, 1, 0, 0, 0, policy)
    images, found = box_augment.crops(torch.rand(3, 1, 20, 30), [NONE] * 3, draws, policy)
    assert images.shape == (3, 1, 64, 64) and all(t["boxes"].shape == (0, 4) and t["labels"].shape == (0,) for t in found)


def test_the_rows_of_a_draw_are_what_each_process_takes():
    policy = box_augment.CropPolicy(size=32)
    draws = box_augment.draw(4, 3, 1, 2, 3, policy)
    part = draws.rows(slice(1, None, 2))
    assert part.zoom.tolist() == draws.zoom[1::2].tolist() and part.disturbing.turns.tolist() == draws.disturbing.turns[1::2].tolist()


@given(st.integers(0, 10**6), st.integers(2, 30), st.integers(2, 30), st.floats(0.5, 1.5), st.floats(0.875, 1.125))
def test_contrast_and_brightness_are_torchvisions_and_nodata_takes_no_part(seed, height, width, contrast, brightness):
    image = torch.rand(1, 1, height, width, generator=torch.Generator().manual_seed(seed)) * 0.2 + 0.4
    oracle = adjust_brightness(adjust_contrast(image, contrast), brightness)
    factors = np.array([[brightness, contrast, 1.0]])
    assert torch.allclose(box_augment.change_tone(image.clone(), factors), oracle, atol=1e-6)
    padded = torch.cat([image, torch.zeros(1, 1, height, 5)], dim=3)
    changed = box_augment.change_tone(padded, factors)
    assert torch.allclose(changed[..., :width], oracle, atol=1e-6) and not changed[..., width:].any()


@given(st.integers(0, 10**6), st.integers(1, 7), st.floats(0.1, 1.0))
def test_saturation_leaves_the_mean_of_the_bands_and_scales_their_distances_from_it(seed, bands, saturation):
    images = torch.rand(2, bands, 4, 5, generator=torch.Generator().manual_seed(seed)) + 0.01
    changed = box_augment.change_tone(images.clone(), np.array([[1.0, 1.0, 1.0], [1.0, 1.0, saturation]]))
    assert torch.equal(changed[0], images[0])
    mean = images[1].mean(dim=0)
    assert torch.allclose(changed[1].mean(dim=0), mean, atol=1e-5)
    assert torch.allclose(changed[1] - mean, saturation * (images[1] - mean), atol=1e-5)


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 8), st.integers(24, 90), st.integers(24, 90))
def test_copies_lie_in_the_window_hide_no_object_and_leave_all_else_as_it_was(seed, copies, height, width):
    random = np.random.default_rng(seed)
    image = torch.full((2, height, width), 0.1)
    corner = random.integers(0, [width - 12, height - 12])
    boxes = torch.tensor([[*corner, *(corner + random.integers(4, 13, 2))], [2, 3, 9, 8]]).float()
    for k, (x0, y0, x1, y1) in enumerate(boxes.int().tolist()):
        image[:, y0:y1, x0:x1] = 0.5 + 0.25 * k
    known = {"boxes": boxes, "labels": torch.tensor([2, 1]), "ignore": torch.tensor([[0.0, height - 5, width, height]])}
    x0, y0 = (int(random.integers(0, side - 20)) for side in (width, height))
    window = (x0, y0, int(random.integers(x0 + 18, width + 1)), int(random.integers(y0 + 18, height + 1)))
    before, draws = image.clone(), random.random((copies, 6))
    draws[0, 0] = 0.9
    after, found = box_augment.with_copies(image, known, window, draws)
    assert torch.equal(image, before) and torch.equal(found["boxes"][:2], boxes)
    changed = (after != before).any(dim=0)
    covered = torch.zeros_like(changed)
    everything = [*boxes.tolist(), *known["ignore"].tolist()]
    for box, label in zip(found["boxes"][2:].int().tolist(), found["labels"][2:].tolist(), strict=True):
        left, top, right, bottom = box
        assert window[0] <= left and window[1] <= top and right <= window[2] and bottom <= window[3]
        (first, second), sides = (boxes[2 - label, 2:] - boxes[2 - label, :2]).int().tolist(), [right - left, bottom - top]
        assert sides in ([first, second], [second, first])
        assert after[0, (top + bottom) // 2, (left + right) // 2] != before[0, 0, 0] or len(found["boxes"]) > 3  # later ones touch it
        for other in everything:
            shared = [min(box[2 + a], other[2 + a]) - max(box[a], other[a]) for a in (0, 1)]
            least = min((b[2] - b[0]) * (b[3] - b[1]) for b in (box, other))
            assert min(shared) <= 0 or shared[0] * shared[1] <= 0.25 * least
        everything.append(box)
        covered[top:bottom, left:right] = True
    assert not (changed & ~covered).any()


def test_no_copy_lies_where_there_is_no_data():
    image = torch.zeros(2, 60, 60)
    image[:, :30, :30] = 0.3
    known = target([[4, 4, 12, 12]])
    for seed in range(40):
        draws = np.random.default_rng(seed).random((6, 6))
        draws[0, 0] = 0.9
        after, found = box_augment.with_copies(image, known, (0, 0, 60, 60), draws)
        assert (found["boxes"] <= 30).all() and not after[:, 30:].any() and not after[:, :, 30:].any()


def test_half_of_the_crops_get_copies_and_a_policy_of_none_draws_none():
    several = box_augment.draw(400, 3, 0, 0, 0, box_augment.CropPolicy(size=8, copies=3)).copies
    assert several.shape == (400, 3, 6) and (several[:, 0, 0] >= 0.5).mean() == pytest.approx(0.5, abs=0.08)
    assert box_augment.draw(4, 3, 0, 0, 0, box_augment.CropPolicy(size=8)).copies.size == 0


def test_a_policy_without_tone_changes_none_and_one_with_it_stays_within_its_share():
    factors = [box_augment.draw(500, 3, 0, 0, 0, box_augment.CropPolicy(size=8, tone=tone)).tone for tone in (0.0, 0.5)]
    assert (factors[0] == 1.0).all()
    least, most = factors[1].min(axis=0), factors[1].max(axis=0)
    assert (least >= 0.5).all() and (least <= 0.55).all()
    assert (most <= [2.0, 1.5, 1.5]).all() and (most >= [1.9, 1.45, 1.45]).all()
    assert (factors[1] != 1.0).mean(axis=0) == pytest.approx([0.5] * 3, abs=0.08)


def test_padding_stays_nothing_whatever_the_offset():
    images = torch.tensor([[[[0, 5]], [[0, 0]]]], dtype=torch.uint8)
    values = to_input(images, torch.tensor([10.0, 10.0]), torch.tensor([-1.0, -1.0]))
    assert values[0, :, 0, 0].tolist() == [0, 0] and values[0, :, 0, 1].tolist() == pytest.approx([0.4, -0.1])


# ----------------------------------------------------------------------------------------------------------------- centre


def test_the_peak_of_an_object_is_one_in_the_cell_of_its_centre_and_its_box_is_the_cells_truth():
    heat, weight, truth, share = make_targets([target([[8, 4, 40, 20]], [2], [[48, 0, 64, 16]])], (1, 2, 8, 16))
    assert torch.nonzero(heat == 1).tolist() == [[0, 1, 3, 6]]  # centre 24, 12: column 6, row 3
    assert heat[0, 0].sum() == 0
    assert truth[0, :, 3, 6].tolist() == [8, 4, 40, 20]
    assert float(share.sum()) == pytest.approx(math.log1p(8 * 4), rel=1e-5)  # the area in cells
    assert weight[0, 0, 0:4, 12:16].sum() == 0 and weight[0, 0, :, :11].min() == 1


def test_of_two_boxes_in_one_cell_the_smaller_one_has_it():
    _, _, truth, _ = make_targets([target([[0, 0, 60, 60], [26, 26, 34, 34]])], (1, 1, 16, 16))
    assert truth[0, :, 7, 7].tolist() == [26, 26, 34, 34]


@given(st.sampled_from([4, 2, 1]), st.integers(9, 40), st.integers(9, 40))
@settings(max_examples=12)
def test_a_network_that_says_nothing_has_boxes_of_the_usual_size_around_each_cell(stride, height, width):
    detector = CentreDetector("small", 3, 1, (24.0, 12.0), stride=stride).eval()
    with torch.no_grad():
        heat, boxes = detector(torch.rand(1, 3, height, width))
    assert heat.shape[-2:] == boxes.shape[-2:] == (math.ceil(height / stride), math.ceil(width / stride))
    x, y = 1.5 * stride, 0.5 * stride  # centre of the cell in the first row, second column
    assert boxes[0, :, 0, 1].tolist() == pytest.approx([x - 12, y - 6, x + 12, y + 6])


@pytest.mark.parametrize("stride", [4, 2, 1])
def test_cells_lie_where_their_pixels_are(stride):
    """A white pixel changes the heat most around its own cell, whatever the enlargement."""
    torch.manual_seed(0)
    detector = CentreDetector("small", 1, 1, (8.0, 8.0), stride=stride).eval()
    black, white = torch.zeros(1, 1, 64, 64), torch.zeros(1, 1, 64, 64)
    white[..., 40:44, 20:24] = 50.0
    with torch.no_grad():
        change = (detector(white)[0] - detector(black)[0]).abs()[0, 0]
    change = change / change.sum()
    places = (torch.arange(len(change)) + 0.5) * stride
    rows, columns = (change.sum(dim=1 - axis) @ places for axis in (0, 1))
    assert (float(rows), float(columns)) == pytest.approx((42, 22), abs=6)


@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 12), st.integers(1, 12))
@settings(max_examples=20)
def test_a_peak_has_the_mean_box_of_the_cells_around_it_that_agree_weighted_by_their_heat(seed, classes, h, w):
    random = np.random.default_rng(seed)
    heat = random.random((2, classes, h, w)) * (random.random((2, classes, h, w)) > 0.2)
    corner = random.uniform(0, 6, (2, 2, h, w))
    boxes = np.concatenate([corner, corner + random.uniform(8, 14, (2, 2, h, w))], axis=1)
    index = random.integers(0, classes * h * w, (2, 5))
    around, weights = boxes_around(*map(torch.tensor, (heat, boxes, index)))
    averaged = averaged_boxes(around[:, :, 24], around, weights)
    for image, peak in np.ndindex(2, 5):
        label, row, column = np.unravel_index(index[image, peak], (classes, h, w))
        own, total, weight = boxes[image, :, row, column], np.zeros(4), 0.0
        for y in range(max(0, row - 3), min(h, row + 4)):
            for x in range(max(0, column - 3), min(w, column + 4)):
                other = boxes[image, :, y, x]
                if generalized_box_iou(torch.tensor(own[None]), torch.tensor(other[None])).item() >= 0.4:
                    total, weight = total + heat[image, label, y, x] * other, weight + heat[image, label, y, x]
        assert averaged[image, peak].tolist() == pytest.approx((total / weight if weight else own).tolist(), rel=1e-6)


@pytest.mark.parametrize("side, weight", [(0.0, 1.0), (1e-4, 1.0), (0.5, 0.0)])
def test_a_box_that_nothing_agrees_with_stays_as_it_is(side, weight):
    own = torch.tensor([[0.2, 0.3, 0.2 + side, 0.3 + side]])
    assert torch.equal(averaged_boxes(own, torch.stack([own, own + 0.4], dim=1), torch.full((1, 2), weight)), own)


def test_a_box_is_not_averaged_with_those_of_the_object_beside_it():
    heat, boxes = torch.zeros(1, 1, 8, 8), torch.zeros(1, 4, 8, 8)
    heat[0, 0, 4, 2], heat[0, 0, 4, 4] = 0.4, 0.9
    boxes[0, :, 4, 2], boxes[0, :, 4, 4] = torch.tensor([6.0, 6, 12, 30]), torch.tensor([13.0, 6, 20, 30])
    around, weights = boxes_around(heat, boxes, torch.tensor([[4 * 8 + 2]]))
    assert averaged_boxes(around[:, :, 24], around, weights)[0, 0].tolist() == [6, 6, 12, 30]


def test_two_narrow_objects_side_by_side_have_two_peaks_in_cells_of_two_pixels_and_one_in_cells_of_four():
    beside = [target([[10, 8, 15, 32], [15, 8, 20, 32]])]
    for stride, peaks in ((4, 1), (2, 2)):
        heat = make_targets(beside, (1, 1, 40 // stride, 40 // stride), stride)[0]
        _, columns = torch.nonzero(heat[0, 0] == 1, as_tuple=True)
        assert len(columns) == 2 and int((columns.diff() > 1).sum()) + 1 == peaks  # of neighbouring cells only one is a peak


@given(st.integers(0, 10**6))
@settings(max_examples=20)
def test_the_focal_loss_is_that_of_the_paper(seed):
    random = np.random.default_rng(seed)
    logits, heat = torch.tensor(random.normal(0, 3, 20)), torch.tensor(random.random(20))
    heat[:4] = 1.0
    p = logits.sigmoid().clamp(1e-12, 1 - 1e-12)
    expected = torch.where(heat == 1, -((1 - p) ** 2) * p.log(), -((1 - heat) ** 4) * p**2 * (1 - p).log())
    assert torch.allclose(heat_loss(logits, heat), expected, rtol=1e-4, atol=1e-7)


def test_the_small_network_has_less_than_a_million_weights():
    assert count_weights(build_detector(DetectorConfig(bands=tuple("abcdefgh"), classes=tuple("abcde")))) < 1_000_000


# ---------------------------------------------------------------------------------------------------------- all frameworks


@pytest.fixture(scope="module", params=ALL_FRAMEWORKS)
def detector(request):
    torch.manual_seed(0)
    return build_detector(DetectorConfig(framework=request.param, encoder="small", bands=tuple("abcde"), classes=("x", "y")))


def test_losses_are_finite_and_named_for_any_bands_also_without_objects(detector):
    images = torch.rand(2, 5, 64, 96)
    targets = [target([[8, 8, 40, 30]], [2]), NONE]
    for some in (targets, [NONE, NONE]):
        if detector.config.framework == "mask-rcnn":
            some = [{**t, "masks": torch.ones(len(t["boxes"]), 64, 96, dtype=torch.uint8)} for t in some]
        losses = detector.train().losses(images, some)
        assert tuple(losses) == tuple(detector.network.loss_names) or set(losses) == set(detector.network.loss_names)
        assert all(torch.isfinite(loss) for loss in losses.values())


def test_detections_lie_in_the_tile_as_it_is_and_a_full_list_is_told(detector):
    """torchvision would enlarge a tile of 96 x 64 pixels to 1333 x 889 before it looks at it."""
    found = detector.eval().predict(torch.rand(2, 5, 64, 96), score_threshold=0.0, limit=7)
    for image in found:
        assert image.boxes.dtype == torch.float32 and len(image.boxes) <= 7 and image.full
        assert (image.boxes >= 0).all() and (image.boxes[:, 2] <= 96).all() and (image.boxes[:, 3] <= 64).all()
        assert (image.scores.diff() <= 0).all() and set(image.labels.tolist()) <= {1, 2}
    assert not any(image.full for image in detector.predict(torch.rand(1, 5, 64, 96), score_threshold=0.999, limit=7))


def test_the_encoder_sees_a_tile_at_its_own_size_in_training_and_after(detector):
    """The setting of torchvision that spares training the enlarging does not spare maps."""
    seen, some = [], [{**target([[8, 8, 40, 30]], [2]), "masks": torch.ones(1, 64, 96, dtype=torch.uint8)}]
    hook = detector.network.encoder.register_forward_pre_hook(lambda module, given: seen.append(tuple(given[0].shape)))
    try:
        detector.eval().predict(torch.rand(1, 5, 64, 96), score_threshold=0.5, limit=7)
        detector.train().losses(torch.rand(2, 5, 64, 96), some * 2)
    finally:
        hook.remove()
    assert seen == [(1, 5, 64, 96), (2, 5, 64, 96)]


def test_what_would_be_misread_is_refused(detector):
    images = torch.rand(1, 5, 64, 64)
    for wrong in ({**NONE, "boxes": torch.zeros(0)}, {**NONE, "boxes": torch.tensor([[1, 2, 3, 4]])}, target([[1, 2, 3, 4]], [3])):
        with pytest.raises(ValueError, match="expected"):
            detector.train().losses(images, [wrong])
    with pytest.raises(ValueError, match="float images"):
        detector.eval().predict((255 * images).byte())


def test_a_checkpoint_gives_the_same_detector_again(detector):
    checkpoint = {"path": "x.pt", "model": detector.config.to_dict(), "state": {"model": detector.state_dict()}}
    again = detector_from_checkpoint(checkpoint)
    images = torch.rand(1, 5, 64, 64)
    one, other = (d.eval().predict(images, 0.0, 5)[0] for d in (detector, again))
    assert torch.equal(one.boxes, other.boxes) and torch.equal(one.scores, other.scores)
    with pytest.raises(UserError, match="does not know: attention"):
        detector_from_checkpoint({**checkpoint, "model": {**checkpoint["model"], "attention": 1}})


def test_a_checkpoint_with_an_average_of_its_weights_is_used_with_it_and_trained_on_without(detector):
    last = {key: value + 1 if value.is_floating_point() else value for key, value in detector.state_dict().items()}
    checkpoint = {"path": "x.pt", "model": detector.config.to_dict(), "state": {"model": last, "average": detector.state_dict()}}
    for averaged, weights in ((True, detector.state_dict()), (False, last)):
        found = detector_from_checkpoint(checkpoint, averaged=averaged).state_dict()
        assert all(torch.equal(found[key], value) for key, value in weights.items())


def test_a_frozen_encoder_keeps_weights_and_statistics(detector):
    detector = copy.deepcopy(detector)
    detector.freeze_encoder(True)
    before = {key: value.clone() for key, value in detector.network.encoder.state_dict().items()}
    some = [{**target([[8, 8, 40, 40]]), "masks": torch.ones(1, 64, 64, dtype=torch.uint8)}] * 2
    optimizer = torch.optim.SGD([p for p in detector.parameters() if p.requires_grad], lr=0.1)
    sum(detector.train().losses(torch.rand(2, 5, 64, 64), some).values()).backward()
    optimizer.step()
    assert all(torch.equal(before[key], value) for key, value in detector.network.encoder.state_dict().items())
    detector.freeze_encoder(False)
    assert all(p.requires_grad for p in detector.network.encoder.parameters())


def test_an_unknown_framework_names_the_near_one():
    with pytest.raises(UserError, match="Did you mean 'faster-rcnn'"):
        build_detector(DetectorConfig(framework="fasterrcnn"))


def test_two_halves_of_a_batch_have_together_the_losses_of_the_whole():
    torch.manual_seed(1)
    detector = build_detector(DetectorConfig(bands=("a",), classes=("x",))).eval()  # batch normalisation sees no batch
    images = torch.rand(4, 1, 64, 64)
    targets = [target([[8, 8, 30, 30]]), NONE, target([[1, 1, 20, 60], [30, 30, 50, 50]]), target([[5, 5, 9, 9]])]
    whole = detector.losses(images, targets)
    sums = {}

    def record(number):
        sums.setdefault("all", []).append(number)
        return number

    for part in (slice(0, 2), slice(2, 4)):
        detector.losses(images[part], targets[part], record)
    objects, shares = sums["all"][0] + sums["all"][2], sums["all"][1] + sums["all"][3]
    halves = []
    for part in (slice(0, 2), slice(2, 4)):
        totals = iter((objects, shares))
        halves.append(detector.losses(images[part], targets[part], lambda number, totals=totals: next(totals)))
    for name, value in whole.items():
        assert float(halves[0][name] + halves[1][name]) == pytest.approx(float(value), rel=1e-5)


def test_ignored_ground_is_filled_except_under_known_objects():
    images = torch.ones(1, 2, 10, 10)
    filled = fill_ignored(images, [target([[4, 4, 6, 6]], ignore=[[2, 2, 8, 8]])])
    assert float(filled[0, 0].sum()) == 100 - 36 + 4 and float(images.sum()) == 200


# ---------------------------------------------------------------------------------------------------------------- anchors


def test_anchors_span_the_sizes_that_there_are():
    boxes = [[0, 0, side, side * ratio] for side in (10, 20, 40, 80) for ratio in (1, 2)]
    sizes, ratios = fit_anchors(boxes)
    assert len(sizes) == 4 and sizes[0] == pytest.approx(10, abs=5) and sizes[-1] == pytest.approx(107, abs=15)
    assert ratios == (1.0, 1.5, 2.0) or ratios == (1.0, 2.0)
    same, _ = fit_anchors([[0, 0, 30, 30]] * 5)
    assert same[0] < 30 < same[-1] and same[0] == pytest.approx(20, abs=0.1)
    assert usual_size([[0, 0, 10, 4], [0, 0, 20, 6], [0, 0, 30, 8]]) == (20, 6)


def test_the_stride_is_what_the_docs_say():
    assert STRIDE == 4
    wide = [[0, 0, 30, 40]] * 19
    assert narrow_side([*wide, [0, 0, 4, 90]]) == 30 and fitting_stride(30) == 4  # one narrow object in twenty is none in ten
    assert narrow_side([[0, 0, 18, 60]] * 20) == 18 and fitting_stride(18) == 2 and fitting_stride(20) == 4


def test_checkpoints_of_the_usual_stride_are_those_of_before():
    assert "stride" not in DetectorConfig().to_dict() and DetectorConfig.from_dict(DetectorConfig().to_dict()).stride == 4
    assert DetectorConfig.from_dict(DetectorConfig(stride=2).to_dict()).stride == 2
