"""Moving averages of weights, against torch's own and against the sum written out."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim.swa_utils import AveragedModel

from runtime.averaged_weights import RISE, AveragedWeights


def small_net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3))


def change(net, seed):
    """As a training step would: other weights, other running statistics, one more batch."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter))
        net.train()(torch.randn(2, 2, 8, 8))


@given(decay=st.floats(0, 0.9999), steps=st.integers(1, 25))
def test_a_weight_is_the_sum_of_its_history_with_falling_shares(decay, steps):
    net, history = nn.Linear(1, 1), []
    average = AveragedWeights(net, decay)
    expected = net.weight.item()
    for step in range(steps):
        with torch.no_grad():
            net.weight.fill_(np.sin(step))
        average.update(step)
        history.append(np.sin(step))
    shares = [1 - min(decay, (1 + step) / (RISE + step)) for step in range(steps)]
    expected = expected * np.prod([1 - share for share in shares])
    for step, value in enumerate(history):
        expected += value * shares[step] * np.prod([1 - share for share in shares[step + 1 :]])
    assert average.model.weight.item() == pytest.approx(expected, abs=1e-5)


def test_weights_and_running_statistics_are_what_torchs_own_average_gives():
    net, decay = small_net(), 0.3
    ours = AveragedWeights(net, decay)

    def average(old, new, count):
        keep = min(decay, count / (RISE + count - 1))  # count: steps so far, the first weights among them
        return old * keep + new * (1 - keep) if old.is_floating_point() else new

    theirs = AveragedModel(net, avg_fn=average, use_buffers=True)
    theirs.update_parameters(net)  # its first update copies
    for step in range(12):
        change(net, step)
        ours.update(step)
        theirs.update_parameters(net)
    for (name, own), other in zip(ours.model.state_dict().items(), theirs.module.state_dict().values(), strict=True):
        assert torch.allclose(own.double(), other.double(), atol=1e-6), name


def test_without_decay_the_average_is_the_last_weights_and_the_trained_model_is_untouched():
    net = small_net()
    average = AveragedWeights(net, 0.0)
    change(net, 1)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    average.update(0)
    for name, value in average.model.state_dict().items():
        assert torch.equal(value, before[name]) and torch.equal(net.state_dict()[name], before[name])
    assert net.training and not average.model.training and not any(p.requires_grad for p in average.model.parameters())


def test_an_average_that_is_saved_and_loaded_goes_on_as_if_it_had_not_been():
    net, other = small_net(), small_net(5)
    straight, resumed = AveragedWeights(net, 0.9), AveragedWeights(other, 0.9)
    change(net, 1)
    straight.update(0)
    resumed.load_state_dict({name: value.clone() for name, value in straight.state_dict().items()})
    other.load_state_dict(net.state_dict())
    change(net, 2)
    change(other, 2)
    straight.update(1)
    resumed.update(1)
    for own, again in zip(straight.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(own, again)
