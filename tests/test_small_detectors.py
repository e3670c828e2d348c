"""TinyDet and BigDet: networks, matching, losses, augmentation, scores. Run: pytest tests/test_small_detectors.py"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou, generalized_box_iou

from detection.encoders import count_weights
from detection.small_data import augment_frame
from detection.small_detectors import Proposals, SmallConfig, build_small_detector, small_detector_from_checkpoint
from detection.small_losses import match, only_largest, pair_ious, small_losses
from detection.small_scores import found_in, score_frames, truths_in
from runtime.errors import UserError

BOTH = pytest.mark.parametrize("model", ["tiny", "big"])


def random_boxes(random, count):
    low, side = random.uniform(0, 0.7, (count, 2)), random.uniform(0.02, 0.3, (count, 2))
    return torch.tensor(np.concatenate([low, low + side], axis=1), dtype=torch.float32)


def detector(model="big", size=(64, 64), **more):
    torch.manual_seed(0)
    return build_small_detector(SmallConfig(model=model, target_size=size, max_boxes=more.pop("max_boxes", 4), usual=(16.0, 16.0), **more))


# -------------------------------------------------------------------------------------------------------------- networks


def test_the_networks_are_small():
    assert count_weights(detector("tiny")) <= 100_000 and count_weights(detector("big")) <= 2_000_000


@BOTH
@pytest.mark.parametrize("size", [(64, 96), (33, 70)])
def test_the_output_is_the_best_boxes_of_the_frame_whatever_its_size(model, size):
    wide, tall = size
    boxes, logits, labels = detector(model, size, classes=("a", "b", "c")).eval()(torch.rand(2, 3, tall, wide))
    count = 1 if model == "tiny" else 4
    assert boxes.shape == (2, count, 4) and logits.shape == labels.shape == (2, count)
    assert ((boxes >= 0) & (boxes <= 1)).all() and (boxes[..., 2:] >= boxes[..., :2]).all()
    assert (logits.diff(dim=1) <= 0).all() and ((labels >= 1) & (labels <= 3)).all()


@BOTH
def test_an_untrained_network_proposes_the_usual_box_around_each_cell(model):
    """Rows from the top, in each from the left: in frames that are no squares a transposition would show."""
    stride, (wide, tall) = {"tiny": 16, "big": 8}[model], (96, 64)
    found = detector(model, (wide, tall)).proposals(torch.rand(1, 3, tall, wide)).boxes[0]
    centres = [(x + stride / 2, y + stride / 2) for y in range(0, tall, stride) for x in range(0, wide, stride)]
    expected = torch.tensor([[(x - 8) / wide, (y - 8) / tall, (x + 8) / wide, (y + 8) / tall] for x, y in centres])
    assert torch.allclose(found, expected, atol=1e-6)


@given(st.integers(0, 10**6), st.integers(1, 30))
@settings(max_examples=20)
def test_the_best_boxes_are_averaged_with_those_of_their_class_that_agree(seed, count):
    random = np.random.default_rng(seed)
    boxes, logits, kinds = random_boxes(random, count), torch.tensor(random.normal(0, 3, count)).float(), random.integers(0, 2, count)
    found = Proposals(boxes[None], logits[None], torch.nn.functional.one_hot(torch.tensor(kinds), 2)[None].float())
    averaged, _, labels = detector(classes=("a", "b")).best(found)
    for place, k in enumerate(logits.argsort(descending=True)[:4].tolist()):
        agree = [m for m in range(count) if kinds[m] == kinds[k] and generalized_box_iou(boxes[k : k + 1], boxes[m : m + 1]) >= 0.4]
        mean = np.average(boxes[agree], axis=0, weights=logits[agree].sigmoid())
        assert averaged[0, place].tolist() == pytest.approx(mean.tolist(), abs=1e-5) and labels[0, place] == kinds[k] + 1


@pytest.mark.slow
@BOTH
def test_torch_export_takes_the_networks(model):
    network, frames = detector(model).eval(), torch.rand(1, 3, 64, 64)
    exported = torch.export.export(network, (frames,)).module()
    assert all(torch.allclose(one, two) for one, two in zip(network(frames), exported(frames), strict=True))


def test_a_checkpoint_gives_back_its_network():
    network = detector("tiny", (48, 64), classes=("a", "b")).eval()
    checkpoint = {"model": network.config.to_dict(), "state": {"model": network.state_dict()}}
    again, frames = small_detector_from_checkpoint(checkpoint), torch.rand(1, 3, 64, 48)
    assert again.config == network.config and all(map(torch.equal, again(frames), network(frames)))
    with pytest.raises(UserError, match="1 missing"):
        checkpoint["state"]["model"].popitem()
        small_detector_from_checkpoint(checkpoint)
    with pytest.raises(UserError, match="damaged"):
        small_detector_from_checkpoint({"model": {"model": "huge"}, "state": {"model": {}}})


# -------------------------------------------------------------------------------------------------------------- matching


def test_two_objects_that_one_proposal_fits_best_take_different_ones():
    proposals = torch.tensor([[[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]]])
    objects = torch.tensor([[[0, 0, 0.4, 0.4], [0.1, 0.1, 0.4, 0.4]]])  # IoU with the first 0.64 and 0.36
    assert match(proposals, objects, torch.ones(1, 2, dtype=torch.bool)).tolist() == [[0, 1]]
    assert match(proposals, objects.flip(1), torch.ones(1, 2, dtype=torch.bool)).tolist() == [[1, 0]]


def test_an_object_that_nothing_overlaps_takes_the_nearest_proposal():
    proposals = torch.tensor([[[0, 0, 0.1, 0.1], [0.5, 0.5, 0.6, 0.6], [0.9, 0.9, 1, 1]]])
    assert match(proposals, torch.tensor([[[0.65, 0.65, 0.7, 0.7]]]), torch.ones(1, 1, dtype=torch.bool)).tolist() == [[1]]


@given(st.integers(0, 10**6), st.integers(1, 9), st.integers(0, 5))
def test_matching_is_that_of_a_sorted_list_of_all_pairs(seed, count, objects):
    random = np.random.default_rng(seed)
    proposals, truth = random_boxes(random, count), random_boxes(random, 5)
    mask = torch.arange(5) < objects
    ious = box_iou(proposals, truth)
    pairs = sorted((-float(ious[p, g]), float((proposals[p] - truth[g]).abs().sum()), p, g) for p in range(count) for g in range(objects))
    expected, taken = [-1] * 5, set()
    for _, _, p, g in pairs:
        if p not in taken and expected[g] < 0:
            expected[g] = p
            taken.add(p)
    assert match(proposals[None], truth[None], mask[None]).tolist() == [expected]


@given(st.integers(0, 10**6))
def test_overlaps_of_pairs_are_torchvisions(seed):
    random = np.random.default_rng(seed)
    one, other = random_boxes(random, 4), random_boxes(random, 3)
    assert torch.allclose(pair_ious(one[None], other[None])[0], box_iou(one, other), atol=1e-5)


def test_tinydet_learns_the_largest_object():
    boxes = torch.tensor([[[0, 0, 0.2, 0.2], [0.3, 0.3, 0.9, 0.8], [0, 0, 1, 1]], [[0, 0, 1, 1]] * 3])
    mask = torch.tensor([[True, True, False], [False] * 3])
    assert only_largest(boxes, mask).tolist() == [[False, True, False], [False] * 3]


# ---------------------------------------------------------------------------------------------------------------- losses


def test_the_losses_of_two_proposals_by_hand():
    """The first overlaps the only object, so it is matched; the second is background."""
    boxes = torch.tensor([[[0.1, 0.1, 0.5, 0.5], [0.6, 0.6, 0.9, 0.9]]])
    truth = torch.tensor([[[0.1, 0.1, 0.5, 0.4], [0.0, 0.0, 0.0, 0.0]]])
    mask, labels = torch.tensor([[True, False]]), torch.tensor([[2, 0]])
    found = Proposals(boxes, torch.tensor([[1.0, -2.0]]), torch.tensor([[[0.0, 0.0], [5.0, -5.0]]]))
    losses = small_losses(found, truth, mask, labels)
    assert losses["box"] == pytest.approx(0.1, abs=1e-6)
    assert losses["obj"] == pytest.approx(np.log1p(np.exp(-1.0)) + np.log1p(np.exp(-2.0)), rel=1e-6)
    assert losses["iou"] == pytest.approx(1 - float(generalized_box_iou(boxes[0, :1], truth[0, :1])), abs=1e-6)
    assert losses["class"] == pytest.approx(np.log(2.0), rel=1e-6)


@given(st.integers(0, 10**6))
def test_padded_slots_take_no_part(seed):
    random = np.random.default_rng(seed)
    found = Proposals(random_boxes(random, 6)[None], torch.randn(1, 6), torch.zeros(1, 6, 1))
    truth, mask, labels = random_boxes(random, 4)[None], torch.tensor([[True, True, False, False]]), torch.ones(1, 4, dtype=torch.int64)
    other = truth.clone()
    other[:, 2:] = random_boxes(random, 2)
    one, two = small_losses(found, truth, mask, labels), small_losses(found, other, mask, labels)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_frame_without_objects_teaches_that_there_are_none():
    found = detector().proposals(torch.rand(2, 3, 64, 64))
    losses = small_losses(found, torch.zeros(2, 4, 4), torch.zeros(2, 4, dtype=torch.bool), torch.zeros(2, 4, dtype=torch.int64))
    assert losses["obj"].item() > 0 and not any(losses[name].item() for name in ("box", "iou", "class"))
    sum(losses.values()).backward()


def test_a_proposal_beside_the_matched_one_that_fits_is_neither_right_nor_wrong():
    boxes = torch.tensor([[[0.1, 0.1, 0.5, 0.5], [0.1, 0.1, 0.5, 0.48], [0.7, 0.7, 0.9, 0.9]]])
    logits = torch.zeros(1, 3, requires_grad=True)
    losses = small_losses(Proposals(boxes, logits, torch.zeros(1, 3, 1)), boxes[:, :1], torch.ones(1, 1, dtype=torch.bool),
                          torch.ones(1, 1, dtype=torch.int64))
    losses["obj"].backward()
    assert logits.grad[0].tolist() == pytest.approx([-0.5, 0.0, 0.5])


# ---------------------------------------------------------------------------------------------------------- augmentation


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.integers(40, 90), st.integers(40, 90))
def test_boxes_follow_the_pixels_of_their_objects(seed, height, width):
    """A bright object on dark ground: after augmentation its box is where it is bright."""
    random = np.random.default_rng(seed)
    left, top = int(random.integers(0, width - 20)), int(random.integers(0, height - 20))
    right, bottom = left + int(random.integers(12, 20)), top + int(random.integers(12, 20))
    image = torch.full((1, 3, height, width), 20, dtype=torch.uint8)
    image[..., top:bottom, left:right] = 230
    box = torch.tensor([[[left / width, top / height, right / width, bottom / height], [0, 0, 0, 0]]])
    batch = {"images": image, "boxes": box.clone(), "mask": torch.tensor([[True, False]]), "labels": torch.tensor([[1, 0]])}
    augment_frame(batch, 0, np.random.default_rng(seed))
    assert batch["images"].dtype == torch.uint8 and batch["images"].shape == image.shape
    bright = batch["images"][0].float().mean(dim=0) > 125
    if not batch["mask"][0, 0]:
        assert not batch["boxes"].any() and bright.float().mean() < 0.5
        return
    rows, columns = torch.nonzero(bright.any(dim=1))[:, 0], torch.nonzero(bright.any(dim=0))[:, 0]
    seen = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], float)
    assert np.abs(seen - batch["boxes"][0, 0].numpy() * [width, height, width, height]).max() < 1.6
    assert not batch["boxes"][0, 1].any() and not batch["mask"][0, 1]


# ---------------------------------------------------------------------------------------------------------------- scores


def test_found_boxes_are_in_pixels_without_second_ones_of_the_same_object():
    boxes = torch.tensor([[[0.1, 0.2, 0.5, 0.6], [0.1, 0.2, 0.5, 0.62], [0.7, 0.7, 0.9, 0.9], [0.3, 0.3, 0.3, 0.4]]])
    (found,) = found_in(boxes, torch.tensor([[2.0, 1.0, 0.0, -1.0]]), torch.ones(1, 4, dtype=torch.int64), (200, 100), 0.5)
    assert found["boxes"].tolist() == [pytest.approx([20, 20, 100, 60], abs=1e-4), pytest.approx([140, 70, 180, 90], abs=1e-4)]
    assert found["scores"].tolist() == pytest.approx([1 / (1 + np.exp(-2.0)), 0.5])
    truths = truths_in(boxes[:, :2], torch.tensor([[True, False]]), torch.ones(1, 2, dtype=torch.int64), (200, 100))
    scores = score_frames(truths, [found], ("object",), threshold=0.3)
    assert (scores["ap50"], scores["precision"], scores["recall"]) == (1.0, 0.5, 1.0)


@pytest.mark.slow
@BOTH
def test_each_learns_eight_frames_by_heart(model):
    random = np.random.default_rng(1)
    frames = torch.tensor(random.uniform(0, 0.4, (8, 3, 48, 64)), dtype=torch.float32)
    boxes, mask = torch.zeros(8, 4, 4), torch.zeros(8, 4, dtype=torch.bool)
    for k in range(8):
        for slot in range(1 if model == "tiny" else 2):
            side, x, y = int(random.integers(12, 20)), int(random.integers(0, 12)) + 32 * slot, int(random.integers(0, 28))
            frames[k, :, y : y + side, x : x + side] = torch.tensor(random.uniform(0.6, 1.0, (3, 1, 1)), dtype=torch.float32)
            boxes[k, slot] = torch.tensor([x / 64, y / 48, (x + side) / 64, (y + side) / 48])
            mask[k, slot] = True
    network = detector(model, (64, 48))
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    labels = mask.long()
    for step in range(120):
        optimizer.param_groups[0]["lr"] = 3e-3 * (1 - step / 120)
        losses = small_losses(network.proposals(frames), boxes, mask, labels)
        optimizer.zero_grad()
        (5 * losses["box"] + losses["obj"] + 2 * losses["iou"]).backward()
        optimizer.step()
    with torch.no_grad():
        found = found_in(*network.eval()(frames), (64, 48), 0.5)
    assert score_frames(truths_in(boxes, mask, labels, (64, 48)), found, ("object",), threshold=0.3)["ap50"] >= 0.95
