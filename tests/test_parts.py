"""Models that are put together: each part, whether parts fit, names and arguments of parts. Run: pytest tests/test_parts.py"""

import hypothesis
import hypothesis.strategies as st
import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

from nets.assembled import ALL_DECODERS, PixelWiseModel, build_model
from nets.encoders import build_encoder
from nets.factory import EncoderDecoderFactory
from nets.heads import HEADS, RegressionHead
from nets.layout import MAPS, TOKENS, Layout, Misfit
from nets.model_config import AuxiliaryHead, ModelConfig, Neck
from nets.necks import NECKS
from nets.parts import make_part
from nets.smp_network import import_smp
from runtime.errors import UserError

BANDS = ("B02", "B03", "B04", "B08")
TO_PYRAMID = (Neck("tokens-to-maps"), Neck("pyramid"))
# Small networks of each kind: maps of ours, of segmentation-models-pytorch and of timm, tokens of timm.
ENCODERS = {"small": {}, "mobilenet_v2": {}, "tu-test_convnext": {}, "tu-test_vit": {}}
SMALL_ARGS = {**{name: {"channels": 8} for name in ("fcn", "unet", "upernet", "aspp", "mlp")},
              "smp-fpn": {"segmentation_channels": 32, "pyramid_channels": 32}, "smp-pan": {"decoder_channels": 8},
              "smp-upernet": {"decoder_channels": 8}, "smp-segformer": {"segmentation_channels": 8},
              "smp-linknet": {"prefinal_channels": 8},
              **{f"smp-{name}": {"out_channels": 16} for name in ("pspnet", "deeplabv3", "deeplabv3plus")},
              "smp-unet": {"decoder_channels": (16, 8, 8, 8, 8)}, "smp-unetplusplus": {"decoder_channels": (16, 8, 8, 8, 8)},
              "smp-manet": {"decoder_channels": (16, 16, 16, 16, 16)},
              "smp-dpt": {"intermediate_channels": (8, 8, 8, 8), "fusion_channels": 8}}


def config(**changes):
    return ModelConfig(**{"encoder": "small", "decoder": "unet", "outputs": 3, "bands": BANDS, **changes})


def necks_for(encoder):
    return TO_PYRAMID if encoder == "tu-test_vit" else ()


def left_by_a_step(model, x, target):
    """Names of weights that no gradient of the loss reaches; a small step along the gradients lowers the loss of that batch."""
    model.train()
    drawn = [m for m in model.modules() if isinstance(m, nn.Dropout | nn.Dropout2d)]
    for module in drawn:
        module.p = 0.0  # the same function before and after the step
    loss = F.cross_entropy(model(x).output, target)
    loss.backward()
    without = [name for name, value in model.named_parameters() if value.grad is None]
    length = sum(value.grad.square().sum() for value in model.parameters() if value.grad is not None).sqrt()
    with torch.no_grad():
        for value in model.parameters():
            value -= 0 if value.grad is None else 1e-4 * value.grad / length
        after = F.cross_entropy(model(x).output, target)
    assert after < loss
    return without


# ------------------------------------------------------------------------------------------------ each part


PAIRS = [(encoder, decoder) for encoder in ENCODERS for decoder in ("unet", "linear")] + [
    ("small", decoder) for decoder in ALL_DECODERS if decoder not in ("identity", "unet", "linear", "smp-deeplabv3plus")] + [
    ("tu-test_vit", "upernet"), ("tu-test_vit", "smp-fpn"), ("mobilenet_v2", "smp-deeplabv3plus")]


@pytest.mark.parametrize(("encoder", "decoder"), PAIRS)
def test_each_decoder_trains_a_step_on_each_kind_of_encoder(encoder, decoder):
    torch.manual_seed(0)
    args = {"output_stride": 16} if decoder == "smp-deeplabv3plus" else {}
    given = SMALL_ARGS.get(decoder, {})
    side = 256 if decoder == "smp-pan" else 64  # it halves the last level three times
    model = build_model(config(encoder=encoder, encoder_args=args, necks=necks_for(encoder), decoder=decoder, decoder_args=given))
    x = torch.rand(2, 4, side, side)
    assert model.train()(x).output.shape == (2, 3, side, side)
    left = left_by_a_step(model, x, torch.randint(0, 3, (2, side, side)))
    assert not left or decoder == "smp-pspnet" and all(name.startswith("encoder.stages.") for name in left)  # it reads down to stride 8


@pytest.mark.parametrize(("neck", "args"), [
    ("select", {"indices": (0, 2)}), ("tokens-to-maps", {}), ("pyramid", {}), ("pyramid", {"learned": True}),
    ("pyramid", {"finest": 1}), ("feature-pyramid", {"channels": 8}), ("pool", {}), ("pool", {"how": "max"}), ("pool", {"how": "class"}),
])
def test_each_neck_gives_the_layout_that_it_states_on_a_grid_that_is_no_square(neck, args):
    form = MAPS if neck in ("pyramid", "feature-pyramid") else TOKENS
    layout = Layout(form, (8, 12, 8), (16, 16, 16), class_tokens=2 if form == TOKENS else 0)
    grid = (4, 6)
    features = [torch.rand(2, c, *grid) if form == MAPS else torch.rand(2, 26, c) for c in layout.channels]
    part = make_part("neck", NECKS, neck, args, layout)
    found = part(features, grid)
    assert [x.shape[1 if x.ndim != 3 else 2] for x in found] == list(part.layout.channels)
    if part.layout.form == MAPS:
        sizes = [(int(4 * 16 / s), int(6 * 16 / s)) for s in part.layout.strides]
        assert [tuple(x.shape[2:]) for x in found] == sizes


def test_tokens_become_maps_row_by_row():
    neck = make_part("neck", NECKS, "tokens-to-maps", {}, Layout(TOKENS, (1,), (16,), class_tokens=1))
    tokens = torch.tensor([-1.0, 0, 1, 2, 3, 4, 5]).reshape(1, 7, 1)  # a class token, then two rows of three
    assert neck([tokens], (2, 3))[0].tolist() == [[[[0, 1, 2], [3, 4, 5]]]]


def test_an_interpolated_pyramid_keeps_what_is_constant_and_doubles_its_strides():
    neck = make_part("neck", NECKS, "pyramid", {}, Layout(MAPS, (2,) * 4, (16,) * 4))
    maps = neck([torch.full((1, 2, 6, 4), float(i)) for i in range(4)], (6, 4))
    assert neck.layout.strides == (4, 8, 16, 32)
    assert [tuple(m.shape[2:]) for m in maps] == [(24, 16), (12, 8), (6, 4), (3, 2)]
    assert all(torch.equal(m, torch.full_like(m, float(i))) for i, m in enumerate(maps))


def test_one_level_becomes_a_pyramid_of_as_many_as_are_asked_for():
    neck = make_part("neck", NECKS, "pyramid", {"levels": 3, "learned": True}, Layout(MAPS, (8,), (16,)))
    assert neck.layout.channels == (4, 8, 8) and neck.layout.strides == (8, 16, 32)
    assert [tuple(m.shape[1:]) for m in neck([torch.rand(1, 8, 4, 4)], (4, 4))] == [(4, 8, 8), (8, 4, 4), (8, 2, 2)]


@pytest.mark.parametrize("encoder", ["small", "resnet18", "tu-test_resnet", "tu-test_vit", "tu-test_vit2", "tu-test_efficientnet"])
def test_encoders_state_what_they_give_for_images_that_are_no_squares(encoder):
    network = build_encoder(encoder, BANDS).eval()
    layout, height, width = network.layout, 2 * network.multiple, 3 * network.multiple
    with torch.no_grad():
        found = network(torch.rand(1, 4, height, width))
    for level, channels, stride in zip(found, layout.channels, layout.strides, strict=True):
        rows, columns = height // stride, width // stride
        expected = (1, layout.class_tokens + rows * columns, channels) if layout.form == TOKENS else (1, channels, rows, columns)
        assert tuple(level.shape) == expected


@pytest.mark.slow
@pytest.mark.parametrize("encoder", [
    "mit_b0", "vgg11", "densenet121", "tu-eva02_tiny_patch14_224", "tu-vit_small_patch16_dinov3", "tu-swin_tiny_patch4_window7_224",
    "tu-convnext_atto", "tu-pvt_v2_b0", "tu-deit_tiny_distilled_patch16_224", "tu-hrnet_w18_small", "tu-tresnet_m", "tu-dla34",
    "tu-regnety_002", "tu-mobilevit_xs", "tu-mambaout_femto",
])
def test_encoders_of_many_families_state_what_they_give(encoder):
    test_encoders_state_what_they_give_for_images_that_are_no_squares(encoder)


def test_the_tokens_of_a_vision_transformer_are_those_of_timm():
    torch.manual_seed(0)
    ours = build_encoder("tu-test_vit", ("red", "green", "blue")).eval()
    theirs = timm.create_model("test_vit", num_classes=0, dynamic_img_size=True).eval()
    theirs.load_state_dict(ours.model.state_dict())
    x = torch.rand(1, 3, 160, 96)
    with torch.no_grad():
        assert torch.allclose(ours(x)[-1], theirs.forward_features(x), atol=1e-6)


def test_a_decoder_of_the_library_behind_our_encoder_is_the_librarys_network():
    torch.manual_seed(0)
    theirs = import_smp().Unet("mobilenet_v2", encoder_weights=None, in_channels=4).eval()
    ours = build_model(config(encoder="mobilenet_v2", decoder="smp-unet")).eval()
    ours.encoder.model.load_state_dict(theirs.encoder.state_dict())
    ours.decoder.decoder.decoder.load_state_dict(theirs.decoder.state_dict())
    x = torch.rand(1, 4, 64, 96)
    with torch.no_grad():
        assert torch.equal(ours.decoder.decoder(ours.features(x)[0]), theirs.decoder(theirs.encoder(x)))


@pytest.mark.slow
def test_an_encoder_of_one_size_is_built_for_the_patches_and_takes_no_other():
    encoder = build_encoder("tu-hiera_tiny_224", BANDS, {"embed_dim": 16, "num_heads": 1}, image_size=(100, 64)).eval()
    assert encoder.fixed_size == (128, 64)
    with pytest.raises(UserError, match="takes images of 128 x 64 pixels alone, got 64 x 64; use windows of that size"):
        encoder(torch.rand(1, 4, 64, 64))
    model = build_model(config(encoder="tu-hiera_tiny_224", encoder_args={"embed_dim": 16, "num_heads": 1}, image_size=(100, 64))).eval()
    with torch.no_grad():
        assert model(torch.rand(1, 4, 100, 50)).output.shape == (1, 3, 100, 50)


def test_levels_of_a_transformer_are_chosen_by_their_number():
    every = build_encoder("tu-test_vit", BANDS, {"layers": "all", "depth": 6}).layout
    assert len(every.channels) == 6
    network = build_encoder("tu-test_vit", BANDS, {"layers": (0, 2), "depth": 6})
    assert len(network.layout.channels) == 2 and len(network.model.blocks) == 3  # what is behind is cut off
    with pytest.raises(UserError, match="layers of this network are 0 to 5"):
        build_encoder("tu-test_vit", BANDS, {"layers": (6,), "depth": 6})


# ------------------------------------------------------------------------------------------------ whole models


@hypothesis.settings(max_examples=8, deadline=None)
@hypothesis.given(height=st.integers(1, 70), width=st.integers(1, 70), vit=st.booleans())
def test_outputs_have_the_size_of_any_input(height, width, vit):
    model = size_model(vit)
    with torch.no_grad():
        assert model(torch.rand(1, 4, height, width)).output.shape == (1, 3, height, width)


def size_model(vit, cache={}):  # noqa: B006  (built once for all examples)
    if vit not in cache:
        torch.manual_seed(0)
        encoder = "tu-test_vit" if vit else "small"
        cache[vit] = build_model(config(encoder=encoder, necks=necks_for(encoder), decoder_args={"channels": 8})).eval()
    return cache[vit]


def test_padding_does_not_move_the_answer():
    """The answer of an image that was continued by hand is the same in the part that the image covers."""
    model, x = size_model(False), torch.rand(1, 4, 50, 40)
    by_hand = F.pad(x, (0, 24, 0, 14), mode="replicate")
    with torch.no_grad():
        assert torch.equal(model(x).output, model(by_hand).output[..., :50, :40])


@pytest.mark.parametrize("encoder", ["small", "tu-test_vit"])
@pytest.mark.parametrize("task", ["classification", "multilabel"])
def test_a_scalar_task_answers_once_a_patch(encoder, task):
    model = build_model(config(encoder=encoder, task=task, decoder="identity", head_args={"channels": 8, "dropout": 0.1}))
    assert model.train()(torch.rand(3, 4, 50, 40)).output.shape == (3, 3)
    pooled = build_model(config(encoder="tu-test_vit", task=task, necks=(Neck("pool", {"how": "class"}),), decoder="identity"))
    assert pooled(torch.rand(2, 4, 32, 32)).output.shape == (2, 3)


def test_regression_values_stay_in_the_range_of_their_activation():
    model = build_model(config(task="regression", outputs=1, head_args={"activation": "softplus", "upscale": 1, "channels": (8,)}))
    assert isinstance(model.decoder.head, RegressionHead)
    output = model.eval()(torch.rand(1, 4, 64, 64)).output
    assert output.shape == (1, 1, 64, 64) and output.min() >= 0


def test_auxiliary_heads_have_their_own_decoder_and_head_and_work_in_training_alone():
    aux = (AuxiliaryHead("a", "fcn", {"channels": 4}, {"channels": (5,)}, 0.3), AuxiliaryHead("b", "linear"))
    made = config(auxiliary=aux, head_args={"dropout": 0.25}, decoder_args={"channels": 8})
    model, x = build_model(made), torch.rand(2, 4, 40, 40)
    main, first = model.decoder.head, model.auxiliary["a"].head
    assert [m.p for m in main.modules() if isinstance(m, nn.Dropout2d)] == [0.25]
    assert [m.p for m in first.modules() if isinstance(m, nn.Dropout2d)] == [0.0]
    assert [m.out_channels for m in first.modules() if isinstance(m, nn.Conv2d)] == [5, 3]
    assert [m.out_channels for m in main.modules() if isinstance(m, nn.Conv2d)] == [3]
    found = model.train()(x)
    assert {name: tuple(v.shape) for name, v in found.auxiliary_heads.items()} == {"a": (2, 3, 40, 40), "b": (2, 3, 40, 40)}
    assert model.eval()(x).auxiliary_heads == {} and made.auxiliary_weights == {"a": 0.3, "b": 0.4}


def test_a_frozen_encoder_keeps_its_weights_and_its_statistics():
    torch.manual_seed(0)
    model, x = build_model(config(decoder_args={"channels": 8})), torch.rand(2, 4, 64, 64)
    model.freeze_encoder()
    before = {name: value.clone() for name, value in model.encoder.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    model.train()(x).output.mean().backward()
    optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in model.encoder.state_dict().items())
    assert not model.encoder.training and model.decoder.training
    model.freeze_encoder(False)
    model.train()(x).output.mean().backward()
    assert model.encoder.training and all(p.grad is not None for p in model.encoder.parameters())


def test_a_frozen_decoder_leaves_encoder_and_head_to_train():
    model = build_model(config(decoder_args={"channels": 8}))
    model.freeze_decoder()
    model.train()(torch.rand(2, 4, 32, 32)).output.mean().backward()
    assert {name.split(".")[0] if "head" not in name else "head" for name, p in model.named_parameters() if p.grad is not None} == {
        "encoder", "head"}


@pytest.mark.parametrize("encoder", ["small", "tu-test_vit"])
def test_eight_patches_are_learned_by_heart(encoder):
    torch.manual_seed(0)
    land = F.avg_pool2d(torch.rand(8, 4, 64, 64), 17, 1, 8)
    target = (land[:, 0] > land[:, 1]).long()
    x = (land - 0.5) * 20 + torch.randn(8, 4, 64, 64)
    model = build_model(config(encoder=encoder, necks=necks_for(encoder), outputs=2, decoder_args={"channels": 24})).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(30):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x).output, target)
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        right = (model(x).output.argmax(1) == target).float().mean()
    chance = max(target.float().mean(), 1 - target.float().mean())
    assert right > chance + 0.5 * (1 - chance)


# ------------------------------------------------------------------------------------------------ what does not fit


@pytest.mark.parametrize(("changes", "words"), [
    ({"encoder": "tu-test_vit"}, "decoder unet needs maps, but encoder tu-test_vit gives .* tokens .*; add --neck tokens-to-maps"),
    ({"necks": (Neck("tokens-to-maps"),)}, "neck tokens-to-maps needs tokens, but encoder small gives 4 levels of maps .*; leave it out"),
    ({"encoder": "tu-test_vit", "necks": (Neck("tokens-to-maps"),)}, "decoder unet needs levels from fine to coarse, but neck tokens-to"),
    ({"necks": (Neck("pyramid"),)}, "neck pyramid needs levels of one stride, but encoder small gives"),
    ({"necks": (Neck("select", {"indices": (0, 4)}),)}, "neck select asks for level 4, but encoder small gives 4 levels"),
    ({"necks": (Neck("pool", {"how": "class"}),)}, "neck pool with how=class needs class tokens, but encoder small"),
    ({"necks": (Neck("pool"),)}, "decoder unet needs maps, but neck pool gives 1 level of vectors .*; leave --neck pool out"),
    ({"decoder_args": {"channels": (8, 8)}}, "decoder unet with channels of 2 numbers needs as many levels, but encoder small gives 4"),
    ({"decoder": "smp-deeplabv3plus"}, "decoder smp-deeplabv3plus needs a last level at stride 8 or 16, but encoder small"),
    ({"decoder": "identity", "encoder": "tu-test_vit"}, "head pixel needs maps, but encoder tu-test_vit and decoder identity gives"),
    ({"decoder": "unnet"}, "unknown decoder 'unnet'; .* Did you mean 'unet'"),
    ({"necks": (Neck("pyramide"),)}, "unknown neck 'pyramide'; .* Did you mean 'pyramid'"),
    ({"head": "pixels"}, "unknown head 'pixels'; .* Did you mean 'pixel'"),
    ({"encoder": "resnet43"}, "unknown encoder 'resnet43'.* Did you mean 'resnet34'"),
    ({"encoder": "tu-convnext_tony"}, "unknown encoder 'tu-convnext_tony'.* Did you mean 'tu-convnext_tiny'"),
    ({"encoder": "convnext_tiny"}, "unknown encoder 'convnext_tiny'.* Did you mean 'tu-convnext_tiny'"),
    ({"decoder_args": {"chanels": 8}}, "decoder unet does not read the argument 'chanels'; it takes channels. Did you mean 'channels'"),
    ({"head_args": {"drop": 0.1}}, "head pixel does not read the argument 'drop'"),
    ({"encoder_args": {"width": 3}}, "encoder small does not read the argument 'width'; it takes none"),
    ({"encoder": "tu-test_vit", "encoder_args": {"widht": 3}}, "encoder tu-test_vit does not read the argument 'widht'"),
    ({"encoder": "tu-test_vit", "encoder_args": {"checkpoint_path": "x.pt"}}, "does not read the argument 'checkpoint_path'"),
    ({"encoder_args": ["layers"]}, "a model's encoder needs a name and arguments by name"),
    ({"outputs": 0}, "outputs are a whole number of at least 1"),
    ({"auxiliary": (AuxiliaryHead("a.b", "fcn"),)}, "an auxiliary head cannot be called 'a.b'"),
    ({"decoder": "smp-fpn", "decoder_args": {"pyramid": 3}}, "decoder smp-fpn does not read the argument 'pyramid'.* 'pyramid_channels'"),
    ({"decoder": "linear", "head_args": {"dropout": 0.1}}, "decoder linear answers by itself and has no head"),
    ({"decoder": "fcn", "decoder_args": {"num_convs": 6}}, "decoder fcn cannot be built with num_convs=6: .* num_convs can be 0 to 5"),
    ({"decoder": "fcn", "decoder_args": {"channels": "many"}}, "decoder fcn cannot be built with channels=many"),
    ({"task": "classification"}, None),
    ({"task": "classification", "decoder": "identity", "necks": (Neck("pool"),)}, None),
    ({"head": "regression"}, None),
    ({"head": "regression", "head_args": {"activation": "sigmoid"}}, "head regression bounds values .* segmentation .* pass --head pixel"),
    ({"head": "pixel", "auxiliary": (AuxiliaryHead("a", "linear"),)}, None),
    ({"auxiliary": (AuxiliaryHead("a", "linear", {}, {"dropout": 0.1}),)}, "decoder linear answers by itself and has no head"),
    *(({"encoder": "resnet18", "encoder_args": {"output_stride": 16}, "decoder": f"smp-{name}"},
       f"decoder smp-{name} needs levels whose strides double, but encoder resnet18 gives 5 levels of maps at strides 2, 4, 8, 16, 16")
      for name in ("unet", "unetplusplus", "manet", "linknet", "fpn")),
    *(({"encoder": "resnet18", "encoder_args": {"output_stride": 16}, "decoder": f"smp-{name}"}, None) for name in ("upernet", "pan")),
    ({"encoder": "resnet18", "encoder_args": {"depth": 3}, "decoder": "smp-fpn"}, "decoder smp-fpn needs levels down to stride 16"),
    ({"task": "classification", "decoder": "linear"}, "decoder linear answers for each pixel, and classification asks for one answer"),
    ({"task": "segmentation", "head": "classification"}, "head classification does not answer what segmentation asks; pass --head pixel"),
    ({"task": "regresion"}, "unknown task 'regresion'; .* Did you mean 'regression'"),
    ({"auxiliary": (AuxiliaryHead("a", "fcn"), AuxiliaryHead("a", "mlp"))}, "two auxiliary heads are called a"),
])
def test_parts_that_do_not_fit_are_refused_in_one_line_that_names_both(changes, words):
    if words is None:
        build_model(config(**changes))
        return
    with pytest.raises(UserError, match=words) as refused:
        build_model(config(**changes))
    assert len(str(refused.value)) < 420


def test_the_aux_heads_arguments_are_refused_by_the_aux_head_alone():
    with pytest.raises(UserError, match="decoder fcn does not read the argument 'pool_scales'"):
        build_model(config(auxiliary=(AuxiliaryHead("a", "fcn", {"pool_scales": (1,)}),), decoder="upernet",
                           decoder_args={"pool_scales": (1, 2), "channels": 8}))


def test_a_config_survives_its_dictionary():
    made = config(necks=(Neck("pyramid", {"learned": True}),), auxiliary=(AuxiliaryHead("a", "fcn", {"channels": 4}, {}, 0.2),),
                  image_size=(64, 48), decoder_args={"channels": (8, 8)})
    again = ModelConfig.from_dict(made.to_dict())
    assert again.to_dict() == made.to_dict() and again.necks == made.necks and again.auxiliary == made.auxiliary
    with pytest.raises(UserError, match="not those of this version"):
        ModelConfig.from_dict({**made.to_dict(), "attention": 3})


def test_a_misfit_says_what_was_needed_and_what_was_given():
    layout = Layout(MAPS, (8,), (4,), made_by="encoder mine")
    assert str(Misfit("needs two levels", layout, "add one")) == (
        "needs two levels, but encoder mine gives 1 level of maps at strides 4 with 8 channels; add one")


# ------------------------------------------------------------------------------------------------ the factory


def test_the_factory_builds_what_the_config_builds():
    torch.manual_seed(0)
    ours = build_model(config(encoder="tu-test_vit", necks=TO_PYRAMID, decoder_args={"channels": 8}, head_args={"dropout": 0.1},
                              auxiliary=(AuxiliaryHead("aux", "fcn", {"channels": 4}, {"channels": 5}),)))
    torch.manual_seed(0)
    theirs = EncoderDecoderFactory().build_model(
        "segmentation", "tu-test_vit", "unet", backbone_bands=BANDS, decoder_kwargs={"channels": 8}, head_dropout=0.1, num_classes=3,
        necks=[{"name": "tokens-to-maps"}, {"name": "pyramid"}],
        aux_decoders=[AuxiliaryHead("aux", "fcn", {"decoder_channels": 4, "head_channels": 5})])
    assert isinstance(theirs, PixelWiseModel)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}
    x = torch.rand(1, 4, 32, 32)
    with torch.no_grad():
        assert torch.equal(ours.eval()(x).output, theirs.eval()(x).output)


def test_the_factory_takes_a_users_backbone_that_says_what_it_gives():
    backbone = nn.Module()
    backbone.convolution = nn.Conv2d(3, 6, 4, 4)
    backbone.forward = lambda x: [backbone.convolution(x)]
    build = EncoderDecoderFactory().build_model
    with pytest.raises(UserError, match="needs `layout` .* or `out_channels` and `strides`"):
        build("regression", backbone, "fcn", rescale=True)
    backbone.out_channels, backbone.strides = [6], [4]
    model = build("regression", backbone, "fcn", decoder_channels=4)
    assert model(torch.rand(1, 3, 30, 30)).output.shape == (1, 1, 30, 30)


@pytest.mark.parametrize(("changes", "words"), [
    ({"decode_channels": 8}, "does not read the argument 'decode_channels'. Did you mean 'decoder"),
    ({"num_outputs": 2}, "num_outputs is not read by task segmentation; pass num_classes"),
    ({"task": "regression"}, "num_classes is not read by task regression; pass num_outputs"),
    ({"num_classes": None}, "task segmentation needs num_classes"),
    ({"peft_config": {}}, "peft_config is not supported"),
    ({"backbone_depht": 3}, "does not read the argument 'depht'"),
])
def test_the_factory_refuses_what_nobody_reads(changes, words):
    with pytest.raises(UserError, match=words):
        EncoderDecoderFactory().build_model(**{"task": "segmentation", "backbone": "small", "decoder": "unet", "num_classes": 2, **changes})


def test_all_heads_have_a_task_that_takes_them():
    assert set(HEADS) >= {"pixel", "regression", "classification"}
