"""Losses against PyTorch's own and against formulas written out a second way. Run: pytest tests/test_losses.py"""

import pytest
import torch
from torch.nn import functional as F

from losses import CombinedLoss, CrossEntropyLoss, DiceLoss, FocalLoss


def scene(classes=3, seed=0, ignore=True):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, classes, 5, 7, generator=generator, dtype=torch.float64).float().requires_grad_()
    target = torch.randint(classes, (2, 5, 7), generator=generator).to(torch.uint8)
    if ignore:
        target[0, :2] = 255
    return logits, target


def test_cross_entropy_is_pytorchs_with_weights_and_ignore():
    logits, target = scene()
    weights = torch.tensor([1.0, 4.0, 2.5])
    expected = F.cross_entropy(logits, target.long(), weight=weights, ignore_index=255)
    assert torch.allclose(CrossEntropyLoss(weights)(logits, target), expected, atol=1e-6)


def test_focal_loss_is_the_formula_and_with_gamma_zero_the_unweighted_cross_entropy():
    logits, target = scene()
    weights = torch.tensor([1.0, 4.0, 2.5])
    total, count = 0.0, 0
    p = logits.detach().softmax(dim=1)
    for b in range(2):
        for r in range(5):
            for c in range(7):
                t = int(target[b, r, c])
                if t != 255:
                    p_t = float(p[b, t, r, c])
                    total += (1 - p_t) ** 2 * float(weights[t]) * -torch.log(torch.tensor(p_t)).item()
                    count += 1
    assert FocalLoss(weights, gamma=2.0)(logits, target).item() == pytest.approx(total / count, rel=1e-5)
    assert FocalLoss(gamma=0.0)(logits, target).item() == pytest.approx(CrossEntropyLoss()(logits, target).item(), rel=1e-6)


def test_dice_of_a_certain_and_right_answer_is_zero_and_of_a_certain_wrong_one_is_one():
    target = torch.tensor([[[0, 1], [1, 255]]])
    right = torch.full((1, 2, 2, 2), -50.0)
    right[0, 0, 0, 0] = right[0, 1, 0, 1] = right[0, 1, 1, 0] = 50.0
    assert DiceLoss()(right, target).item() == pytest.approx(0.0, abs=1e-6)
    assert DiceLoss()(-right, target).item() == pytest.approx(1.0, abs=1e-5)


def test_a_class_that_is_absent_adds_no_constant_to_dice():
    target = torch.zeros(1, 4, 4, dtype=torch.uint8)
    certain = torch.zeros(1, 3, 4, 4)
    certain[:, 0] = 50.0
    assert DiceLoss()(certain, target).item() == pytest.approx(0.0, abs=1e-6)


def test_dice_is_half_by_hand():
    # one pixel of each class, probability 0.5 everywhere: (2 * 0.5) / (1 + 1) = 0.5 for both classes
    assert DiceLoss()(torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 1]]])).item() == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize("focal", [False, True])
def test_ignored_pixels_change_neither_loss_nor_gradient(focal):
    logits, target = scene()
    loss = CombinedLoss(torch.tensor([1.0, 2.0, 3.0]), use_focal=focal)
    total, _ = loss(logits, target)
    (gradient,) = torch.autograd.grad(total, logits)
    assert gradient[0, :, :2].abs().max() == 0

    other = logits.detach().clone()
    other[0, :, :2] += 13.0
    again, _ = loss(other, target)
    assert again.item() == total.item()


def test_the_combination_is_half_and_half_with_named_parts():
    logits, target = scene()
    total, parts = CombinedLoss()(logits, target)
    assert set(parts) == {"ce_loss", "dice_loss"}
    ce, dice = CrossEntropyLoss()(logits, target).item(), DiceLoss()(logits, target).item()
    assert total.item() == pytest.approx(0.5 * ce + 0.5 * dice, rel=1e-6)


def test_a_batch_without_a_valid_pixel_has_loss_zero_and_a_gradient_of_zeros():
    logits, target = scene()
    total, _ = CombinedLoss(torch.ones(3))(logits, torch.full_like(target, 255))
    (gradient,) = torch.autograd.grad(total, logits)
    assert total.item() == 0.0
    assert gradient.abs().max() == 0 and torch.isfinite(gradient).all()


def test_added_sums_of_two_halves_are_the_loss_of_the_whole():
    logits, target = scene()
    loss = CombinedLoss(torch.tensor([1.0, 2.0, 3.0]))
    whole, _ = loss(logits, target)
    halves, _ = loss.from_sums(loss.sums(logits[:1], target[:1]) + loss.sums(logits[1:], target[1:]))
    assert halves.item() == pytest.approx(whole.item(), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_summed_in_float32(dtype):
    # 200 000 pixels: a float16 sum would overflow at 65 504 and a bfloat16 sum would stop growing at 256
    logits = torch.zeros(1, 2, 400, 500, dtype=dtype)
    total, parts = CombinedLoss()(logits, torch.zeros(1, 400, 500, dtype=torch.uint8))
    assert total.dtype == torch.float32
    assert parts["ce_loss"].item() == pytest.approx(0.693147, rel=1e-4)


def test_weight_zero_takes_a_class_out_of_the_cross_entropy():
    logits = torch.tensor([[[[3.0, -2.0]], [[0.0, 0.0]]]])
    target = torch.tensor([[[0, 1]]])
    expected = F.cross_entropy(logits[..., :1], target[..., :1])
    assert CrossEntropyLoss(torch.tensor([1.0, 0.0]))(logits, target).item() == pytest.approx(expected.item())
