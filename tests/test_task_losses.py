"""Losses of values, labels and further ones of classes, against formulas written a second way. Run: pytest tests/test_task_losses.py"""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from losses import TERMS, CombinedLoss, Criterion, LossFacts, make_loss, require_terms
from nets.model_output import ModelOutput
from runtime.errors import UserError

NAN = float("nan")


def values(seed=0, shape=(2, 5, 7)):
    generator = torch.Generator().manual_seed(seed)
    output, target = (torch.randn(shape, generator=generator) * 3 for _ in range(2))
    target[0, :2] = NAN
    return output[:, None].requires_grad_(), target


def classes(seed=0, count=3):
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(count, (2, 5, 7), generator=generator).to(torch.uint8)
    target[0, :2] = 255
    return torch.randn(2, count, 5, 7, generator=generator).requires_grad_(), target


def labels(seed=0):
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(2, (6, 4), generator=generator).to(torch.uint8)
    target[0, 1] = target[3] = 255
    return torch.randn(6, 4, generator=generator).requires_grad_(), target


def whole_patches():
    return (torch.randn(6, 4, generator=torch.Generator().manual_seed(1)).requires_grad_(),
            torch.tensor([0, 3, 255, 1, 1, 2], dtype=torch.uint8))


def one(task, name, **facts):
    return make_loss(task, {name: 1.0}, LossFacts(**facts))


def everything():
    """Every loss of every task with data for it."""
    for task, make in (("segmentation", classes), ("regression", values), ("multilabel", labels)):
        yield from ((task, name, make) for name in TERMS[task])
    yield from (("classification", name, whole_patches) for name in TERMS["classification"])


CASES = [pytest.param(*case, id=f"{case[0]}-{case[1]}") for case in everything()]


def test_losses_of_values_are_pytorchs_over_what_is_valid_in_units_of_the_scale():
    output, target = values()
    valid = torch.isfinite(target)
    a, b = output.detach()[:, 0][valid] / 2, target[valid] / 2
    expected = {"mse": F.mse_loss(a, b), "mae": F.l1_loss(a, b), "huber": F.huber_loss(a, b), "rmse": F.mse_loss(a, b).sqrt()}
    for name, number in expected.items():
        assert one("regression", name, scale=2.0)(output, target)[0].item() == pytest.approx(number.item(), rel=1e-5), name


def test_losses_of_labels_are_pytorchs_over_what_is_known():
    logits, target = labels()
    known, weight = target != 255, torch.tensor([1.0, 2.0, 0.5, 3.0])
    costs = F.binary_cross_entropy_with_logits(logits, target.clamp(max=1).float(), pos_weight=weight, reduction="none")
    assert one("multilabel", "bce", class_weights=weight)(logits, target)[0].item() == pytest.approx(costs[known].mean().item(), rel=1e-5)
    p = torch.where(target == 1, logits.sigmoid(), 1 - logits.sigmoid())[known]
    expected = (-(1 - p) ** 2 * p.log()).mean()
    assert one("multilabel", "focal")(logits, target)[0].item() == pytest.approx(expected.item(), rel=1e-4)


def test_a_class_a_patch_is_pytorchs_cross_entropy():
    logits, target = torch.randn(5, 3), torch.tensor([0, 2, 255, 1, 1])
    expected = F.cross_entropy(logits, target, ignore_index=255)
    assert one("classification", "ce")(logits, target)[0].item() == pytest.approx(expected.item(), rel=1e-5)


def test_overlaps_are_the_formulas_over_all_valid_pixels():
    logits, target = classes()
    valid, p = (target != 255).numpy(), logits.detach().softmax(dim=1).numpy()
    jaccard, tversky = [], []
    for c in range(3):
        probability, truth = p[:, c][valid].astype(float), target.numpy()[valid] == c
        hits, alarms, misses = probability[truth].sum(), probability[~truth].sum(), (1 - probability[truth]).sum()
        jaccard.append(hits / (hits + alarms + misses))
        tversky.append(hits / (hits + 0.3 * alarms + 0.7 * misses))
    assert one("segmentation", "jaccard")(logits, target)[0].item() == pytest.approx(1 - np.mean(jaccard), rel=1e-5)
    assert one("segmentation", "tversky")(logits, target)[0].item() == pytest.approx(1 - np.mean(tversky), rel=1e-5)


def lovasz_by_definition(probability, truth):
    """The Lovász extension as a sum over sorted errors of what the Jaccard loss rises by when one more pixel is wrong."""
    errors = np.abs(truth - probability)
    order, total, wrong, before = np.argsort(-errors, kind="stable"), 0.0, set(), 0.0
    for place in order:
        wrong.add(int(place))
        predicted = {i for i in range(len(truth)) if (truth[i] == 1) != (i in wrong)}
        real = set(np.flatnonzero(truth).tolist())
        loss = 1 - len(predicted & real) / len(predicted | real)
        total, before = total + errors[place] * (loss - before), loss
    return total


def test_lovasz_is_its_definition_in_each_image():
    logits, target = classes()
    p, means = logits.detach().softmax(dim=1).numpy().astype(float), []
    for image in range(2):
        valid = (target[image] != 255).numpy()
        truth = target[image].numpy()[valid]
        means.append(np.mean([lovasz_by_definition(p[image, c][valid], (truth == c).astype(float)) for c in np.unique(truth)]))
    assert one("segmentation", "lovasz")(logits, target)[0].item() == pytest.approx(np.mean(means), rel=1e-4)


@pytest.mark.parametrize(("task", "name", "make"), CASES)
def test_what_is_ignored_changes_neither_loss_nor_gradient_and_nothing_valid_is_zero(task, name, make):
    output, target = make()
    ignored = target.isnan() if target.is_floating_point() else target == 255
    loss = one(task, name)
    total = loss(output, target)[0]
    (gradient,) = torch.autograd.grad(total, output)
    where = ignored if gradient.shape == ignored.shape else ignored[:, None].expand(gradient.shape)
    assert torch.isfinite(gradient).all() and gradient[where].abs().sum() == 0 and gradient.abs().sum() > 0
    other = torch.where(where, output.detach() + 13.0, output.detach())
    assert loss(other, target)[0].item() == pytest.approx(total.item(), rel=1e-6)
    nothing = loss(output, torch.full_like(target, NAN if target.is_floating_point() else 255))[0]
    (gradient,) = torch.autograd.grad(nothing, output)
    assert nothing.item() == pytest.approx(0.0, abs=2e-6) and torch.isfinite(gradient).all()


@pytest.mark.parametrize(("task", "name", "make"), CASES)
def test_added_sums_of_two_parts_are_the_loss_of_the_whole(task, name, make):
    output, target = make()
    loss = one(task, name)
    parts = [loss.sums(output[part], target[part]) for part in (slice(0, 1), slice(1, None))]
    assert len(parts[0]) == loss.size(output.shape[1])
    assert loss.from_sums(parts[0] + parts[1])[0].item() == pytest.approx(loss(output, target)[0].item(), rel=1e-5)


def test_the_usual_loss_by_its_name_is_the_usual_loss():
    logits, target = classes()
    weights = torch.tensor([1.0, 4.0, 2.5])
    named = make_loss("segmentation", {"ce": 0.5, "dice": 0.5}, LossFacts(class_weights=weights))
    assert named(logits, target)[0].item() == CombinedLoss(weights)(logits, target)[0].item()
    assert named.names == ("ce_loss", "dice_loss")


def test_the_loss_of_all_heads_is_the_main_one_and_each_other_times_its_weight():
    logits, target = classes()
    other, _ = classes(seed=1)
    auxiliary = {"deep.4": (make_loss("segmentation", {"jaccard": 2.0}, LossFacts()), 0.4)}
    criterion = Criterion(CombinedLoss(), auxiliary)
    total, parts = criterion(ModelOutput(logits, {"deep.4": other}), target)
    aside = 2.0 * one("segmentation", "jaccard")(other, target)[0]
    assert total.item() == pytest.approx((CombinedLoss()(logits, target)[0] + 0.4 * aside).item(), rel=1e-6)
    assert set(parts) == set(criterion.names) == {"ce_loss", "dice_loss", "aux deep.4"}
    assert parts["aux deep.4"].item() == pytest.approx(aside.item(), rel=1e-6)
    assert criterion.from_sums(criterion.sums(logits, target))[0].item() == pytest.approx(CombinedLoss()(logits, target)[0].item())


def test_heads_and_losses_of_other_names_are_refused_with_both():
    logits, target = classes()
    criterion = Criterion(CombinedLoss(), {"one": (CombinedLoss(), 0.4)})
    with pytest.raises(UserError, match="heads are two, their losses one"):
        criterion(ModelOutput(logits, {"two": logits}), target)
    with pytest.raises(UserError, match="heads are none, their losses one"):
        criterion(logits, target)


def test_a_loss_of_another_task_is_refused_with_those_that_there_are():
    with pytest.raises(UserError, match=r"--loss dice: the losses of regression are mse, rmse, mae, huber"):
        require_terms("regression", {"dice": 1.0})
    with pytest.raises(UserError, match="Did you mean 'jaccard'"):
        require_terms("segmentation", {"jacard": 1.0})
