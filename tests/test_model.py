"""The network's interface, its input step, its pretrained weights. Run: pytest tests/test_model.py"""

import pytest
import torch

from constants import CEMS_BANDS
from model import FireSegmentationModel, SegmentationConfig, create_segmentation_model, model_from_checkpoint
from nets import smp_network
from nets.input_step import InputStep
from nets.smp_network import load_encoder_weights, spread_rgb
from runtime.errors import UserError


def small(**settings):
    torch.manual_seed(0)
    return create_segmentation_model(architecture="smallunet", encoder_weights=None, **settings)


def test_the_names_of_the_document_can_be_imported_from_model():
    from model import CombinedLoss, DiceLoss, FocalLoss

    assert CombinedLoss and DiceLoss and FocalLoss


@pytest.mark.parametrize(
    ("architecture", "encoder"),
    [("unet", "resnet18"), ("unetplusplus", "mobilenet_v2"), ("deeplabv3plus", "efficientnet-b0"), ("fpn", "resnet18")],
)
def test_architectures_answer_at_every_size(architecture, encoder):
    model = create_segmentation_model(5, encoder, architecture, in_channels=7, encoder_weights=None).eval()
    with torch.no_grad():
        for height, width in ((64, 64), (33, 50), (1, 1)):
            assert model(torch.rand(1, 7, height, width)).shape == (1, 5, height, width)


def test_padding_does_not_reach_the_answer_of_a_size_that_needs_none():
    model = small().eval()
    x = torch.rand(1, 7, 40, 40)
    with torch.no_grad():
        assert torch.equal(model(x), model.network(model.input_step(x)))


def test_predictions_agree_with_the_logits():
    model = small(num_classes=5)
    x = torch.rand(3, 7, 24, 24)
    classes, p = model.predict_segmentation(x), model.predict_probabilities(x)
    assert classes.shape == (3, 24, 24) and p.shape == (3, 5, 24, 24)
    assert torch.equal(p.argmax(1), classes)
    assert torch.equal(model.predict_fire_detection(x), (classes > 0).flatten(1).any(1))
    assert torch.allclose(model.predict_fire_fraction(x), (classes > 0).float().mean((1, 2)))
    confidence = model.predict_fire_confidence(x)
    assert torch.allclose(confidence, (1 - p[:, 0]).flatten(1).amax(1)) and confidence.max() <= 1.0


def test_confidence_never_leaves_0_to_1():
    model = small(num_classes=5)
    with torch.no_grad():
        model.network.head.weight.zero_()
        model.network.head.bias.copy_(torch.tensor([-80.0, 1.0, 1.1, 1.2, 1.3]))
    assert model.predict_fire_confidence(torch.rand(4, 7, 16, 16)).tolist() == [1.0] * 4


def test_predicting_uses_eval_mode_and_leaves_every_part_in_its_own_mode():
    model = small().train()
    model.network.down[0].eval()
    before = [m.training for m in model.modules()]
    statistics = model.network.down[1][1].running_mean.clone()
    result = model.predict_probabilities(torch.rand(2, 7, 16, 16))
    assert not result.requires_grad
    assert [m.training for m in model.modules()] == before
    assert torch.equal(model.network.down[1][1].running_mean, statistics)


def test_normalisation_and_indices_by_hand():
    step = InputStep(("B04", "B08", "B12"), ("ndvi", "nbr"), mean=(0.1, 0.2, 0.3), std=(0.1, 0.2, 0.5))
    out = step(torch.tensor([0.1, 0.3, 0.8]).reshape(1, 3, 1, 1)).flatten()
    assert out.tolist() == pytest.approx([0.0, 0.5, 1.0, 0.2 / 0.4, -0.5 / 1.1], abs=1e-6)
    assert torch.isfinite(step(torch.zeros(1, 3, 2, 2))).all()  # no data: 0 / 0 is 0


def test_an_index_without_its_band_is_refused_and_a_misspelt_one_gets_its_name():
    with pytest.raises(UserError, match="nbr needs a band that sees swir2"):
        InputStep(("B04", "B08"), ("nbr",))
    with pytest.raises(UserError, match="Did you mean 'ndvi'"):
        InputStep(("B04", "B08"), ("ndvii",))


@pytest.mark.parametrize(("settings", "near"), [({"encoder_name": "resnet43"}, "resnet34"), ({"architecture": "unnet"}, "unet")])
def test_misspelt_names_suggest_the_near_one(settings, near):
    with pytest.raises(UserError, match=f"Did you mean '{near}'"):
        create_segmentation_model(encoder_weights=None, **settings)


def test_red_meets_the_weights_that_were_trained_on_red():
    rgb = torch.arange(3.0).reshape(1, 3, 1, 1) + 1  # red 1, green 2, blue 3, grey 2
    spread = spread_rgb(rgb, CEMS_BANDS, num_indices=1).flatten() * 8 / 3
    #                          B02  B03  B04  the rest
    assert spread.tolist() == pytest.approx([3, 2, 1, 2, 2, 2, 2, 2])
    assert spread_rgb(rgb, ("TCI_R", "TCI_G", "TCI_B")).flatten().tolist() == [1, 2, 3]


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_encoder_weights_from_a_file_with_three_input_bands(tmp_path, suffix):
    torch.manual_seed(1)
    donor = create_segmentation_model(2, "resnet18", in_channels=3, encoder_weights=None).network.encoder.state_dict()
    path = tmp_path / f"encoder{suffix}"
    if suffix == ".pt":
        torch.save(donor, path)
    else:
        from safetensors.torch import save_file

        save_file(donor, path)
    model = create_segmentation_model(2, "resnet18", encoder_weights=path)
    got = model.network.encoder.state_dict()
    assert torch.equal(got["layer4.1.conv2.weight"], donor["layer4.1.conv2.weight"])
    assert torch.allclose(got["conv1.weight"][:, 2], donor["conv1.weight"][:, 0] * 3 / 7)


def test_a_weights_file_that_does_not_fit_or_is_no_weights_file_is_one_line(tmp_path):
    model = create_segmentation_model(2, "resnet18", encoder_weights=None)
    torch.save({"layer1.0.conv1.weight": torch.zeros(64, 64, 3, 3)}, tmp_path / "part.pt")
    with pytest.raises(UserError, match="does not fit encoder resnet18"):
        load_encoder_weights(model.network, "resnet18", tmp_path / "part.pt", CEMS_BANDS)
    (tmp_path / "noise.pt").write_bytes(b"not a zip")
    with pytest.raises(UserError, match="cannot be read"):
        load_encoder_weights(model.network, "resnet18", tmp_path / "noise.pt", CEMS_BANDS)
    with pytest.raises(UserError, match="does not exist; expected imagenet, none"):
        load_encoder_weights(model.network, "resnet18", tmp_path / "none.pt", CEMS_BANDS)


def test_without_network_one_line_says_what_to_pass(monkeypatch, tmp_path):
    import huggingface_hub

    monkeypatch.setattr(smp_network, "network_answers", lambda: False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="pass --encoder-weights none"):
        create_segmentation_model(2, "resnet18", encoder_weights="imagenet")


def test_a_config_survives_its_dictionary_and_unknown_keys_are_refused():
    config = SegmentationConfig("smallunet", "none", ("B08", "B12"), 3, ("nbr",), (0.1, 0.2), (0.3, 0.4))
    assert SegmentationConfig.from_dict(config.to_dict()) == config
    model = FireSegmentationModel(config)
    assert model.input_step.mean.flatten().tolist() == pytest.approx([0.1, 0.2])
    with pytest.raises(UserError, match="does not know: attention"):
        SegmentationConfig.from_dict({**config.to_dict(), "attention": True})


def checkpoint_of(model, changes=()):
    return {"model": model.config.to_dict(), "state": {"model": model.state_dict()}} | dict(changes)


def test_a_model_comes_back_from_its_checkpoint():
    model = small(num_classes=3)
    again = model_from_checkpoint(checkpoint_of(model))
    x = torch.rand(1, 7, 24, 24)
    assert not again.training and torch.equal(again.predict_probabilities(x), model.predict_probabilities(x))


def test_weights_that_are_not_those_of_the_network_are_one_line_with_the_first_of_them():
    model = small()
    weights = dict(model.state_dict())
    names = list(weights)
    part = {name: weights[name] for name in names[5:]}
    with pytest.raises(UserError, match=rf"weights of last.pt do not fit its smallunet: 5 missing \({names[0]} …\); take another"):
        model_from_checkpoint(checkpoint_of(model, {"state": {"model": part}, "path": "last.pt"}))
    more = {**weights, "network.gate": torch.zeros(1)}
    with pytest.raises(UserError, match=r"the checkpoint do not fit its smallunet: 1 unknown \(network.gate\);"):
        model_from_checkpoint(checkpoint_of(model, {"state": {"model": more}}))
    with pytest.raises(UserError, match=r"1 of another shape \(network.head.bias\);"):
        model_from_checkpoint(checkpoint_of(model, {"state": {"model": {**weights, "network.head.bias": torch.zeros(9)}}}))


@pytest.mark.parametrize("changes", [{"state": 5}, {"state": {}}, {"state": {"model": [1]}}, {"model": "unet"}])
def test_a_checkpoint_without_a_network_is_one_line(changes):
    with pytest.raises(UserError, match="does not hold a network's description and weights"):
        model_from_checkpoint(checkpoint_of(small(), changes))
