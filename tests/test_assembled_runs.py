"""Assembled models in train.py: flags, weights, checkpoints, a user's own network. Run: pytest tests/test_assembled_runs.py"""

import dataclasses
import hashlib
import json

import pytest
import torch
from patch_factory import write_patch_set

import inference
import train
from model import FireSegmentationModel, SegmentationConfig, assemble, model_from_checkpoint
from nets.encoder_weights import fill_encoder
from nets.encoders import build_encoder
from nets.installed_weights import installed_weights
from nets.model_config import AuxiliaryHead, ModelConfig, Neck
from nets.optimiser_groups import in_words, optimiser_groups
from nets.part_flags import PART_FLAGS, PartChoice, parts_of, require_possible
from nets.smp_network import build_encoder as smp_encoder
from nets.user_model import load_user_model
from runtime.checkpoint import load_checkpoint, save_checkpoint
from runtime.errors import UserError
from runtime.flags import parse_with_config
from runtime.settings import group_of
from runtime.values import settings_in

RGB = ("red", "green", "blue")
PARTS = ("--encoder", "small", "--decoder", "fcn", "--decoder-args", "channels=8", "--encoder-weights", "none")


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    return write_patch_set(tmp_path_factory.mktemp("set") / "patches", {"train": 2, "val": 1}, size=32, grid=(1, 1))


def run(patches, output, *flags):
    base = ["--patches-dir", str(patches), "--output-dir", str(output), "--num-workers", "0", "--device", "cpu", "--quiet"]
    return train.main([*base, "--batch-size", "2", "--epochs", "1", *map(str, flags)])


def parsed(*flags):
    args, given = parse_with_config(train.build_parser(), list(flags))
    return group_of(PartChoice, args), given


def config_of(*flags):
    choice, given = parsed(*flags)
    require_possible(choice, given)
    return parts_of(choice, task="segmentation", outputs=2, encoder="small", image_size=(32, 32))


# ------------------------------------------------------------------------------------------------ flags


def test_arguments_reach_their_parts_and_those_of_an_auxiliary_head_only_that():
    made = config_of("--decoder", "upernet", "--neck", "select,pyramid", "--neck-args", "select.indices=1,", "pyramid.learned=true",
                     "--aux-head", "aux1=fcn:0.3", "b=mlp", "--decoder-args", "channels=64", "aux1.channels=8", "--head-args",
                     "dropout=0.1", "b.channels=4,5")
    assert made.necks == (Neck("select", {"indices": (1,)}), Neck("pyramid", {"learned": True}))
    assert (made.decoder, made.decoder_args, made.head_args) == ("upernet", {"channels": 64}, {"dropout": 0.1})
    aux1, b = made.auxiliary
    assert (aux1.name, aux1.decoder, aux1.weight, aux1.decoder_args, aux1.head_args) == ("aux1", "fcn", 0.3, {"channels": 8}, {})
    assert (b.decoder, b.weight, b.decoder_args, b.head_args) == ("mlp", 0.4, {}, {"channels": (4, 5)})


def test_a_file_with_nested_keys_says_the_same_as_the_flags(tmp_path):
    file = tmp_path / "parts.yaml"
    file.write_text("model:\n  decoder: upernet\n  neck: [select, pyramid]\n"
                    "  neck-args: {select: {indices: [1]}, pyramid: {learned: true}}\n"
                    "  aux-head: [aux1=fcn:0.3]\n  head-args: {dropout: 0.1}\n"
                    "  decoder-args:\n    channels: 64\n    aux1: {channels: [8, 9]}\n")
    from_flags = config_of("--decoder", "upernet", "--neck", "select,pyramid", "--neck-args", "select.indices=1,", "pyramid.learned=true",
                           "--aux-head", "aux1=fcn:0.3", "--decoder-args", "channels=64", "aux1.channels=8,9", "--head-args", "dropout=0.1")
    assert config_of("--config", str(file)) == from_flags
    assert config_of("--config", str(file), "--decoder-args", "channels=32").decoder_args == {"channels": 32}  # flags win
    (tmp_path / "bad.yaml").write_text("model: {decoder: unet, decoder-args: {channels: }}\n")
    with pytest.raises(UserError, match="bad.yaml, line 1: 'decoder-args' needs a value for 'channels', found no value"):
        config_of("--config", str(tmp_path / "bad.yaml"))


@pytest.mark.parametrize(("text", "value"), [
    ("8", 8), ("1e-3", 0.001), ("true", True), ("none", None), ("fcn", "fcn"), ("1,2", (1, 2)), ("[1, 2]", (1, 2)), ("8,", (8,)),
])
def test_values_of_arguments_are_what_they_spell(text, value):
    assert settings_in([f"a.b={text}"]) == {"a": {"b": value}}


@pytest.mark.parametrize(("flags", "words"), [
    (["--architecture", "unet", "--decoder", "fcn"], "--architecture is a whole network and --decoder fcn puts one together"),
    (["--neck", "pyramid"], "--neck is for models that are put together; pass --decoder too"),
    (["--aux-head", "a=fcn"], "--aux-head is for models that are put together"),
    (["--decoder", "fcn", "--decoder-args", "aux1.channels=8"], "--decoder-args aux1.channels is for an auxiliary head aux1, which"),
    (["--decoder", "fcn", "--aux-head", "aux1=fcn", "--head-args", "aux2.channels=8"], "Did you mean 'aux1'"),
    (["--decoder", "fcn", "--neck", "pyramid", "--neck-args", "pyramide.x=1"], "--neck-args pyramide.… names no .* Did you mean 'pyramid'"),
    (["--decoder", "fcn", "--decoder-args", "channels=1", "channels=2"], "channels is set twice"),
    (["--decoder", "fcn", "--decoder-args", "channels"], "expected NAME=VALUE, such as channels=128"),
    (["--decoder", "fcn", "--aux-head", "aux1=fcn:0"], "expected NAME=DECODER or NAME=DECODER:WEIGHT"),
    (["--decoder", "fcn", "--freeze-encoder", "some"], "expected a whole number of epochs, or all"),
    (["--model", "a.py:f", "--decoder", "fcn"], "--model a.py:f brings its whole network; leave --decoder out"),
    (["--model", "a.py:f", "--encoder", "small"], "--model a.py:f brings its whole network; leave --encoder out"),
])
def test_flags_that_cannot_be_right_are_refused(flags, words):
    with pytest.raises(UserError, match=words):
        config_of(*flags)


def settled(*flags):
    args, given = parse_with_config(train.build_parser(), list(flags))
    given = train.let_the_line_win(args, given, {word.split("=")[0] for word in flags})
    require_possible(group_of(PartChoice, args), given)
    return args


def test_a_network_of_the_command_line_takes_the_place_of_the_files(tmp_path):
    (tmp_path / "whole.yaml").write_text("model: {architecture: smallunet}\n")
    (tmp_path / "parts.yaml").write_text("model: {decoder: fcn, neck: [pyramid], decoder-args: {channels: 8}, encoder: small}\n")
    (tmp_path / "both.yaml").write_text("model: {decoder: fcn, architecture: unet}\n")
    args = settled("--config", str(tmp_path / "whole.yaml"), "--decoder", "unet")
    assert (args.architecture, args.decoder) == ("unet", "unet")  # the first is the default, which nobody reads beside a decoder
    args = settled("--config", str(tmp_path / "parts.yaml"), "--architecture", "smallunet")
    assert (args.architecture, args.decoder, args.neck, args.decoder_args, args.encoder) == ("smallunet", None, [], [], "small")
    args = settled("--config", str(tmp_path / "parts.yaml"), "--model=a.py:f")
    assert (args.model, args.decoder, args.encoder) == ("a.py:f", None, "resnet34")
    args = settled("--config", str(tmp_path / "parts.yaml"), "--decoder", "mlp")
    assert (args.decoder, args.neck) == ("mlp", ("pyramid",))
    with pytest.raises(UserError, match="--architecture is a whole network and --decoder fcn puts one together"):
        settled("--config", str(tmp_path / "both.yaml"))


# ------------------------------------------------------------------------------------------------ runs


@pytest.fixture(scope="module")
def finished(patches, tmp_path_factory):
    output = tmp_path_factory.mktemp("run") / "output"
    assert run(patches, output, *PARTS, "--lr-encoder", 0.1, "--freeze-encoder", "all") == 0
    return output


def test_a_run_keeps_its_parts_and_a_frozen_encoder_its_weights(finished, patches):
    checkpoint = load_checkpoint(finished / "checkpoints" / "last.pt")
    assert checkpoint["model"]["parts"]["decoder"] == "fcn" and checkpoint["model"]["parts"]["decoder_args"] == {"channels": 8}
    model = model_from_checkpoint(checkpoint)
    assert model.config.title == "fcn on small" and not model.training
    torch.manual_seed(0)
    fresh = assemble(model.config.parts, model.config.bands)  # the seed's weights
    stored = {name: value for name, value in checkpoint["state"]["model"].items() if name.startswith("network.encoder.")}
    assert stored and all(torch.equal(value, fresh.state_dict()[name]) for name, value in stored.items())
    head = "network.decoder.head.steps.1.weight"
    assert not torch.equal(checkpoint["state"]["model"][head], fresh.state_dict()[head])
    slow, usual = checkpoint["state"]["optimizer"]["param_groups"]
    assert slow["lr"] == pytest.approx(0.1 * usual["lr"]) and usual["lr"] == pytest.approx(1e-4)


def test_a_run_goes_on_with_the_parts_that_it_had_and_refuses_others(finished, patches, tmp_path):
    last = str(finished / "checkpoints" / "last.pt")
    with pytest.raises(UserError, match="--decoder unet disagrees with the checkpoint, which has fcn; leave --decoder out"):
        run(patches, finished, "--resume", last, "--decoder", "unet")
    assert run(patches, finished, "--resume", last, "--epochs", 2) == 0
    assert load_checkpoint(last)["state"]["epoch"] == 2


def test_a_whole_network_has_no_new_keys_in_its_checkpoint():
    old = {"architecture": "smallunet", "encoder": "none", "bands": ["B08", "B12"], "num_classes": 3, "indices": ["nbr"],
           "mean": [0.1, 0.2], "std": [0.3, 0.4]}
    assert SegmentationConfig.from_dict(old).to_dict() == old


def test_a_description_that_contradicts_itself_is_refused():
    model = assemble(ModelConfig(encoder="small", decoder="fcn", decoder_args={"channels": 4}), RGB)
    with pytest.raises(UserError, match="the parts of the model have other bands, outputs or another task"):
        SegmentationConfig.from_dict({**model.config.to_dict(), "num_classes": 5})


def test_indices_become_inputs_of_an_assembled_model():
    parts = ModelConfig(encoder="small", decoder="fcn", decoder_args={"channels": 4})
    assert assemble(parts, ("B08", "B12"), indices=("nbr",)).config.parts.bands == ("B08", "B12", "nbr")
    assert assemble(parts, ("B04", "B08", "B12"), indices=("pairs",)).eval()(torch.rand(1, 3, 20, 30)).shape == (1, 2, 20, 30)


# ------------------------------------------------------------------------------------------------ weights


def test_the_installed_weights_go_into_an_encoder_of_timm():
    name = "tu-tf_efficientnet_lite0"
    encoder, published = build_encoder(name, ("B04", "B08", "B03")), installed_weights(name)
    assert fill_encoder(encoder, name, "imagenet", ("B04", "B08", "B03")) == ""
    assert torch.equal(encoder.model.blocks[5][0].conv_pw.weight, published["blocks.5.0.conv_pw.weight"])
    stem = published["conv_stem.weight"]
    assert torch.allclose(encoder.model.conv_stem.weight[:, 1], stem.mean(dim=1))  # near infrared: the mean of the colours
    assert torch.equal(encoder.model.conv_stem.weight[:, 2], stem[:, 1])  # green


def test_three_bands_in_another_order_get_the_weights_of_their_colours(monkeypatch):
    state = {"stem.0.weight": torch.arange(3.0).reshape(1, 3, 1, 1).expand(24, 3, 4, 4).clone()}
    encoder = build_encoder("tu-test_convnext", ("B02", "B03", "B04"))
    full = {**{key.removeprefix("model."): value for key, value in encoder.state_dict().items()}, **state}
    monkeypatch.setattr("nets.encoder_weights.published_weights", lambda *given: full)
    assert next(iter(encoder.state_dict())) == "model.stem.0.weight"
    full["stem.0.weight"] = torch.arange(3.0).reshape(1, 3, 1, 1).expand_as(encoder.model.stem[0].weight).clone()
    fill_encoder(encoder, "tu-test_convnext", "imagenet", ("B02", "B03", "B04"))
    assert encoder.model.stem[0].weight[0, :, 0, 0].tolist() == [2, 1, 0]  # blue, green, red


def file_of(folder, state):
    torch.save(state, folder / "encoder.pt")
    return folder / "encoder.pt"


@pytest.mark.parametrize("encoder", ["tu-test_vit", "resnet18"])
def test_a_file_with_every_weight_loads_its_classifier_is_left_out(encoder, tmp_path):
    torch.manual_seed(1)
    donor = build_encoder(encoder, RGB)
    state = {key.removeprefix("model."): value for key, value in donor.state_dict().items()}
    head = {"head.weight": torch.zeros(10, 4), "fc.bias": torch.zeros(10)}
    torch.manual_seed(2)
    ours = build_encoder(encoder, RGB)
    assert fill_encoder(ours, encoder, file_of(tmp_path, {**state, **head}), RGB) == ""
    assert all(torch.equal(value, donor.state_dict()[key]) for key, value in ours.state_dict().items())


def test_weights_that_do_not_all_match_are_refused_with_counts_unless_some_are_enough(tmp_path):
    donor = {key.removeprefix("model."): value for key, value in build_encoder("tu-test_vit", RGB).state_dict().items()}
    names = [key for key in donor if key.startswith("blocks.0")]
    changed = {key: value for key, value in donor.items() if key not in names[:3]} | {"gate": torch.zeros(1), "norm.weight": torch.zeros(5)}
    file, encoder = file_of(tmp_path, changed), build_encoder("tu-test_vit", RGB)
    total = len(donor)
    words = (rf"{total - 4} of {total} tensors match, 3 missing \(model.{names[0]} …\), 1 unknown \(model.gate\), "
             r"1 of another shape \(model.norm.weight\); pass other weights, or --partial-weights")
    with pytest.raises(UserError, match=words):
        fill_encoder(encoder, "tu-test_vit", file, RGB)
    assert "3 missing" in fill_encoder(encoder, "tu-test_vit", file, RGB, partial=True)
    assert torch.equal(encoder.model.patch_embed.proj.weight, donor["patch_embed.proj.weight"])
    with pytest.raises(UserError, match="0 of .* tensors match"):
        fill_encoder(encoder, "tu-test_vit", file_of(tmp_path, {"a": torch.zeros(1)}), RGB, partial=True)


def test_the_encoder_of_an_earlier_run_is_weights_for_the_next(finished):
    checkpoint = load_checkpoint(finished / "checkpoints" / "last.pt")
    encoder = build_encoder("small", checkpoint["data"]["bands"])
    assert fill_encoder(encoder, "small", finished / "checkpoints" / "last.pt", checkpoint["data"]["bands"]) == ""
    assert torch.equal(encoder.stem[0].weight, checkpoint["state"]["model"]["network.encoder.stem.0.weight"])


def test_an_encoder_without_published_weights_says_so():
    with pytest.raises(UserError, match="encoder small has no pretrained weights; pass --encoder-weights none"):
        fill_encoder(build_encoder("small", RGB), "small", "imagenet", RGB)
    with pytest.raises(UserError, match="encoder tu-test_vit4 has no ImageNet weights|cannot be downloaded|unknown encoder"):
        fill_encoder(build_encoder("tu-vit_nano_patch16_224", RGB), "tu-vit_nano_patch16_224", "imagenet", RGB)


def test_every_parameter_of_the_librarys_encoder_is_in_ours():
    ours = build_encoder("resnet18", RGB).model
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in smp_encoder("resnet18", 3).state_dict().items()}


# ------------------------------------------------------------------------------------------------ a user's own network

MY_MODEL = '''
import torch
from nets.model_output import ModelOutput

class Mine(torch.nn.Module):
    stride = 2

    def __init__(self, config):
        super().__init__()
        self.body = torch.nn.Conv2d(len(config.bands), 4, 3, padding=1)
        self.head = torch.nn.Conv2d(4, config.outputs, 1)

    def forward(self, x):
        return ModelOutput(self.head(self.body(x).relu()), {})

    def freeze_encoder(self):
        self.body.requires_grad_(False)

    def freeze_decoder(self):
        pass

def build_model(config):
    return Mine(config)

def not_a_model(config):
    return 3
'''


def test_a_users_network_trains_and_its_checkpoint_asks_for_the_file(patches, tmp_path):
    file = tmp_path / "my_model.py"
    file.write_text(MY_MODEL)
    assert run(patches, tmp_path / "out", "--model", f"{file}:build_model", "--freeze-encoder", "1") == 0
    last = tmp_path / "out" / "checkpoints" / "last.pt"
    checkpoint = load_checkpoint(last)
    assert checkpoint["model"]["user_model"] == {"name": "my_model.py:build_model", "sha256": hashlib.sha256(MY_MODEL.encode()).hexdigest()}
    assert str(tmp_path) not in json.dumps([checkpoint["model"], {k: str(v) for k, v in checkpoint["settings"].items() if k == "model"}])
    with pytest.raises(UserError, match="last.pt has the network of my_model.py:build_model, which is not in it; pass --model FILE.py"):
        model_from_checkpoint(checkpoint)
    user_model = load_user_model(f"{file}:build_model")
    assert model_from_checkpoint(checkpoint, user_model)(torch.rand(1, 7, 31, 20)).shape == (1, 2, 31, 20)
    assert run(patches, tmp_path / "out", "--resume", last, "--model", f"{file}:build_model", "--epochs", 2) == 0
    with pytest.raises(UserError, match="last.pt has the network of my_model.py:build_model, got my_model.py:not_a_model"):
        model_from_checkpoint(checkpoint, load_user_model(f"{file}:not_a_model"))
    file.write_text(MY_MODEL + "\n# changed\n")
    with pytest.raises(UserError, match="last.pt was made with another my_model.py:build_model .*; pass the file of that run"):
        model_from_checkpoint(checkpoint, load_user_model(f"{file}:build_model"))


@pytest.mark.parametrize(("text", "words"), [
    ("my_model.py", "is not FILE.py:FUNCTION"),
    ("none.py:build_model", "cannot be read"),
    ("{file}:build_modle", "has no function build_modle; it has .* Did you mean 'build_model'"),
    ("{broken}:build_model", "cannot be imported .SyntaxError"),
])
def test_a_users_file_that_cannot_be_used_is_one_line(text, words, tmp_path):
    file, broken = tmp_path / "my_model.py", tmp_path / "broken.py"
    file.write_text(MY_MODEL)
    broken.write_text("def build_model(")
    with pytest.raises(UserError, match=words):
        load_user_model(text.format(file=file, broken=broken))


def test_a_users_function_that_returns_no_module_is_one_line(tmp_path):
    (tmp_path / "m.py").write_text(MY_MODEL + "\ndef fails(config):\n    return 1 / 0\n")
    with pytest.raises(UserError, match="--model m.py:not_a_model returned int, expected a torch.nn.Module"):
        assemble(ModelConfig(), RGB, user_model=load_user_model(f"{tmp_path / 'm.py'}:not_a_model"))
    with pytest.raises(UserError, match="--model m.py:fails failed with ZeroDivisionError"):
        assemble(ModelConfig(), RGB, user_model=load_user_model(f"{tmp_path / 'm.py'}:fails"))


def test_a_network_of_its_own_takes_no_users_file(tmp_path):
    (tmp_path / "m.py").write_text(MY_MODEL)
    model = assemble(ModelConfig(encoder="small", decoder="fcn", decoder_args={"channels": 4}), RGB)
    checkpoint = {"model": model.config.to_dict(), "state": {"model": model.state_dict()}, "path": "last.pt"}
    with pytest.raises(UserError, match="last.pt has a network of its own; leave --model out"):
        model_from_checkpoint(checkpoint, load_user_model(f"{tmp_path / 'm.py'}:build_model"))


def test_a_network_without_an_encoder_cannot_freeze_it():
    with pytest.raises(UserError, match="smallunet has no encoder that could be frozen"):
        FireSegmentationModel(SegmentationConfig("smallunet", bands=RGB)).freeze_encoder()


def test_rates_of_an_encoder_are_refused_where_there_is_none_before_anything_is_saved(patches, tmp_path):
    for flags, words in ((("--lr-encoder", 0.1), "no encoder that --lr-encoder"), (("--freeze-encoder", 1), "could be frozen")):
        with pytest.raises(UserError, match=words):
            run(patches, tmp_path / "out", "--architecture", "smallunet", *flags)
        assert not (tmp_path / "out" / "checkpoints" / "last.pt").exists()


@pytest.mark.slow
def test_the_example_of_burn_scars_runs_a_step(patches, tmp_path):
    assert run(patches, tmp_path / "out", "--config", "examples/burn_scars.yaml", "--encoder-weights", "none", "--max-steps", 1,
               "--encoder-args", "layers=0,1,2,3", "depth=4") == 0


def test_a_users_file_may_hold_dataclasses_of_annotations_that_are_text(tmp_path):
    (tmp_path / "m.py").write_text("from __future__ import annotations\nimport dataclasses\n\n@dataclasses.dataclass\nclass Facts:\n"
                                   "    width: int = 3\n\ndef build_model(config):\n    return Facts().width\n")
    assert load_user_model(f"{tmp_path / 'm.py'}:build_model").build(None) == 3


def test_a_users_network_with_heads_that_have_no_losses_is_refused(patches, tmp_path):
    (tmp_path / "m.py").write_text(MY_MODEL.replace("relu()), {})", "relu()), {'deep': self.head(self.body(x))})"))
    with pytest.raises(UserError, match="the network's auxiliary heads are deep, their losses none"):
        run(patches, tmp_path / "out", "--model", f"{tmp_path / 'm.py'}:build_model")


# ------------------------------------------------------------------------------------------------ what nobody would read


@pytest.mark.parametrize(("flags", "words"), [
    (["--partial-weights"], "--partial-weights is for the encoder of a model that is put together"),
    (["--model", "m.py:f", "--partial-weights"], "--partial-weights is for the encoder of a model that is put together"),
    (["--model", "m.py:f", "--encoder-weights", "w.pt"], "--model m.py:f loads its own weights; leave --encoder-weights out"),
    (["--task", "regression", "--no-class-weights"], "--no-class-weights is for classes, not for --task regression"),
])
def test_flags_that_nothing_reads_are_refused(patches, tmp_path, flags, words):
    with pytest.raises(UserError, match=words):
        run(patches, tmp_path / "out", *flags)


def test_the_weights_that_a_config_file_names_do_not_hinder_a_network_of_the_line(tmp_path):
    (tmp_path / "parts.yaml").write_text("model: {decoder: fcn, encoder: small, encoder-weights: w.pt, partial-weights: true}\n")
    args = settled("--config", str(tmp_path / "parts.yaml"), "--model", "a.py:f")
    assert (args.encoder_weights, args.partial_weights) == ("imagenet", False)


@pytest.mark.parametrize("kind", ["detection", "small-detection", "pansharpen"])
def test_a_users_network_is_only_for_checkpoints_that_train_py_made(kind, tmp_path):
    data = dict.fromkeys(inference.KINDS[kind][1], 1)
    save_checkpoint(tmp_path / "c.pt", {"kind": kind, "model": {}, "settings": {}, "state": {"model": {}}, "data": data})
    scenes = ["--pan", "p.tif", "--ms", "m.tif"] if kind == "pansharpen" else ["a.tif"]
    with pytest.raises(UserError, match="--model is for .*; leave it out"):
        inference.main(["--checkpoint", str(tmp_path / "c.pt"), *scenes, "--model", "m.py:f"])


# ------------------------------------------------------------------------------------------------ auxiliary heads and crops


def test_auxiliary_heads_are_trained_by_their_losses_and_resumed(patches, tmp_path):
    assert run(patches, tmp_path / "out", *PARTS, "--aux-head", "deep=linear:0.3", "--head", "pixel") == 0
    last = load_checkpoint(tmp_path / "out" / "checkpoints" / "last.pt")
    weights = last["state"]["model"]
    torch.manual_seed(0)
    fresh = assemble(SegmentationConfig.from_dict(last["model"]).parts, last["model"]["bands"]).state_dict()
    name = "network.auxiliary.deep.decoder.enlarge.weight"
    assert not torch.equal(weights[name], fresh[name])
    header = (tmp_path / "out" / "metrics.csv").read_text().splitlines()[0]
    assert "train_aux deep" in header
    assert run(patches, tmp_path / "out", "--resume", tmp_path / "out" / "checkpoints" / "last.pt", "--epochs", 2) == 0


def test_an_encoder_of_one_size_is_not_trained_on_crops_of_larger_patches(tmp_path):
    folder = write_patch_set(tmp_path / "patches", {"train": 1, "val": 1}, size=128, grid=(1, 1))
    with pytest.raises(UserError, match="is built for squares of 64 pixels .--crop., and validation takes whole patches of 128"):
        run(folder, tmp_path / "out", "--encoder", "tu-hiera_tiny_224", "--encoder-weights", "none", "--encoder-args", "embed_dim=16",
            "num_heads=1", "--decoder", "fcn", "--crop", 64)
    assert not (tmp_path / "out" / "checkpoints" / "last.pt").exists()


def test_a_checkpoint_from_before_parts_refuses_a_decoder(patches, tmp_path):
    assert run(patches, tmp_path / "out", "--architecture", "smallunet") == 0
    last = tmp_path / "out" / "checkpoints" / "last.pt"
    old = torch.load(last, weights_only=True)
    for name in (*PART_FLAGS, "lr_encoder", "partial_weights"):
        del old["settings"][name]
    torch.save(old, last)
    with pytest.raises(UserError, match="--decoder fcn disagrees with the checkpoint, which has none; leave --decoder out"):
        run(patches, tmp_path / "out", "--resume", last, "--decoder", "fcn")
    assert run(patches, tmp_path / "out", "--resume", last, "--epochs", 2) == 0


@pytest.mark.parametrize(("flags", "told"), [((), True), (("--loss", "dice"), False), (("--loss", "lovasz,focal"), True)])
def test_class_weights_are_told_where_a_loss_takes_them(patches, tmp_path, flags, told, capsys):
    assert ("class weights: " in printed(patches, tmp_path, capsys, "--architecture", "smallunet", *flags)) is told


def printed(patches, folder, capsys, *flags):
    """What a training of one step says."""
    train.main(["--patches-dir", str(patches), "--output-dir", str(folder / "out"), "--num-workers", "0", "--device", "cpu",
                "--batch-size", "2", "--max-steps", "1", *flags])
    return "".join(capsys.readouterr())


def test_a_training_says_how_long_its_encoder_is_frozen(patches, tmp_path, capsys):
    assert "M weights at 0.0001 (frozen for 2 epochs), the rest" in printed(patches, tmp_path, capsys, *PARTS, "--freeze-encoder", "2")


def test_encoder_and_rest_are_counted_apart_also_at_one_rate():
    model = assemble(ModelConfig(encoder="small", decoder="fcn", decoder_args={"channels": 4}), RGB)
    groups, counts = optimiser_groups(model, 1)
    assert [id(p) for p in groups] == [id(p) for p in model.parameters()]
    encoder = sum(p.numel() for p in model.network.encoder.parameters())
    assert counts == {"encoder": encoder, "the rest": sum(p.numel() for p in model.parameters()) - encoder}
    assert "M weights at 0.001 (frozen for 5 epochs), the rest" in in_words(counts, 1e-3, 1, 5)
    assert list(optimiser_groups(FireSegmentationModel(SegmentationConfig("smallunet", bands=RGB)), 1)[1]) == ["all"]


def test_heads_of_one_target_share_their_activation():
    aux = AuxiliaryHead("a", "fcn", {"channels": 4}, {"activation": "softplus"})
    parts = ModelConfig(task="regression", outputs=1, encoder="small", decoder="fcn", decoder_args={"channels": 4}, auxiliary=(aux,))
    with pytest.raises(UserError, match="a has the activation softplus, the main head none, .*; pass --head-args a.activation=none"):
        assemble(parts, RGB, target=(100.0, 10.0))
    both = assemble(dataclasses.replace(parts, head_args={"activation": "softplus"}), RGB, target=(100.0, 10.0)).train()
    found = both.outputs(torch.rand(2, 3, 32, 32))
    assert min(found.output.min(), found.auxiliary_heads["a"].min()) >= 0 and found.auxiliary_heads["a"].min() < 90  # not mean + …
