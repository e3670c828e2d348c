"""The network for a handful of scenes, and its inputs. Run: pytest tests/test_contrast_unet.py"""

import pytest
import torch

from model import create_segmentation_model
from nets.contrast_unet import ContrastUNet
from nets.input_step import InputStep, count_inputs
from runtime.errors import UserError

BANDS = ("TCI_R", "TCI_G", "TCI_B", "B8", "B12")


def make(seed=0):
    torch.manual_seed(seed)
    settings = {"architecture": "contrastunet", "encoder_weights": None, "bands": BANDS, "indices": ("pairs",)}
    return create_segmentation_model(2, **settings).eval()


def test_pairs_are_normalised_differences_in_place_of_the_bands():
    step = InputStep(("B04", "B08", "B12"), ("pairs",))
    out = step(torch.tensor([0.1, 0.4, 0.2]).reshape(1, 3, 1, 1)).flatten()
    # (0.1 - 0.4) / 0.52, (0.1 - 0.2) / 0.32, (0.4 - 0.2) / 0.62
    assert torch.allclose(out, torch.tensor([-0.3 / 0.52, -0.1 / 0.32, 0.2 / 0.62]))
    assert [count_inputs(*args) for args in ((BANDS[:3], ("pairs",)), (BANDS, ("pairs",)), (BANDS, ("nbr",)))] == [3, 10, 6]


def test_pairs_stay_within_one_whatever_the_reflectance():
    out = InputStep(BANDS, ("pairs",))(torch.tensor([-0.5, 0.0, 3.0, -1e-6, 1e-9]).reshape(1, 5, 1, 1))
    assert out.abs().max() <= 1.0 and torch.isfinite(out).all()


@pytest.mark.parametrize(("bands", "indices"), [(BANDS, ("pairs", "nbr")), (("B04",), ("pairs",))])
def test_pairs_with_other_indices_or_one_band_are_refused(bands, indices):
    with pytest.raises(UserError, match="pairs"):
        create_segmentation_model(2, architecture="contrastunet", encoder_weights=None, bands=bands, indices=indices)


@pytest.mark.parametrize(("height", "width"), [(128, 128), (33, 50), (1, 1)])
def test_every_size_is_answered(height, width):
    assert make()(torch.rand(1, 5, height, width)).shape == (1, 2, height, width)


def test_an_offset_of_all_inputs_leaves_the_contrast_alone():
    """With the weights of the inputs as they are at zero, only differences to the window's mean are seen."""
    torch.manual_seed(0)
    network = ContrastUNet(3, 2).eval()
    with torch.no_grad():
        network.stem.weight[:, : 3 * 4] = 0.0
    x = torch.rand(1, 3, 32, 32) + 0.1
    with torch.no_grad():
        assert torch.allclose(network(x), network(x + 0.25), atol=1e-4)


def test_pixels_without_data_do_not_shift_the_windows_mean():
    torch.manual_seed(0)
    network, seen = ContrastUNet(3, 2).eval(), []
    network.stem.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    x = torch.rand(1, 3, 32, 32) + 0.1
    half = x.clone()
    half[..., 16:] = 0.0
    with torch.no_grad():
        network(half), network(x[..., :16])
    assert torch.allclose(seen[0][..., :8], seen[1], atol=1e-6)


def test_it_learns_a_square_that_is_only_a_little_darker_than_its_surroundings():
    torch.manual_seed(0)
    network = ContrastUNet(2, 2)
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3)
    target = torch.zeros(4, 32, 32, dtype=torch.long)
    target[:, 8:24, 8:24] = 1
    for _ in range(30):
        level = torch.rand(4, 2, 1, 1)  # each scene has a level of its own, far larger than the difference
        loss = torch.nn.functional.cross_entropy(network(level + 1.0 - 0.1 * target[:, None]), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()
    with torch.no_grad():
        found = network(torch.full((1, 2, 32, 32), 1.5) - 0.1 * target[:1, None]).argmax(1)
    assert (found == target[:1]).float().mean() > 0.95
