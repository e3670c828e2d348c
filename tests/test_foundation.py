"""
Published encoders: names of weights, positions, dates, coordinates and bands, beside forwards that are written out here.

Run: pytest tests/test_foundation.py
"""

import dataclasses
import re
import sys
import types
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import timm
import torch
import torchvision
from patch_factory import write_patch_set
from torch import nn
from torch.nn import functional as F

import train
from detection.detectors import DetectorConfig, build_detector
from detection.small_detectors import SmallConfig, build_small_detector
from model import assemble, model_from_checkpoint
from nets.encoder_weights import fill_encoder
from nets.encoders import build_encoder
from nets.foundation import FOUNDATIONS, HLS, V2, Foundation, dofa, prithvi
from nets.lora import has_lora, merge_lora
from nets.model_config import ModelConfig, Neck
from nets.user_model import load_user_model
from runtime.checkpoint import load_checkpoint
from runtime.errors import UserError
from runtime.flags import parse_with_config
from runtime.settings import group_of
from runtime.values import settings_in

DOCS = Path(__file__).resolve().parent.parent / "docs"
WIDTH, DEPTH, HEADS = 32, 4, 2
BANDS = ("B02", "B03", "B04", "B8A", "B11", "B12")  # of Sentinel-2, those that Prithvi knows in its order


@pytest.fixture(autouse=True)
def small_rows(monkeypatch):
    """Rows of networks that are built in no time: the published ones have a hundred million weights."""
    size, nowhere = (WIDTH, DEPTH, HEADS), ("nobody/nothing", "none.pt")
    monkeypatch.setitem(FOUNDATIONS, "prithvi:test", prithvi(size, *V2, hub=nowhere))
    monkeypatch.setitem(FOUNDATIONS, "prithvi:test-tl", prithvi(size, *V2, True, hub=nowhere))
    monkeypatch.setitem(FOUNDATIONS, "dofa:test", dofa(size, "none.pth"))


def random_prithvi(seed=0, coordinates=False, bands=6):
    """A state dict in the names of Prithvi's encoder."""
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=draw) * 0.2

    state = {"cls_token": normal(1, 1, WIDTH), "pos_embed": normal(1, 1 + 4 * 196, WIDTH),  # fixed: never read
             "patch_embed.proj.weight": normal(WIDTH, bands, 1, 16, 16) * 0.1, "patch_embed.proj.bias": normal(WIDTH),
             "norm.weight": 1 + normal(WIDTH), "norm.bias": normal(WIDTH)}
    for i in range(DEPTH):
        shapes = {"norm1": (WIDTH,), "attn.qkv": (3 * WIDTH, WIDTH), "attn.proj": (WIDTH, WIDTH), "norm2": (WIDTH,),
                  "mlp.fc1": (4 * WIDTH, WIDTH), "mlp.fc2": (WIDTH, 4 * WIDTH)}
        for name, shape in shapes.items():
            state[f"blocks.{i}.{name}.weight"] = normal(*shape) + (1 if len(shape) == 1 else 0)
            state[f"blocks.{i}.{name}.bias"] = normal(shape[0])
    if coordinates:
        state |= {"temporal_embed_enc.scale": torch.tensor([0.37]), "location_embed_enc.scale": torch.tensor([0.21])}
    return state


LAYOUTS = {
    "v1": lambda state: state | {"mask_token": torch.zeros(1, 1, 8), "decoder_embed.weight": torch.zeros(8, WIDTH),
                                 "decoder_pos_embed": torch.zeros(1, 197, 8), "decoder_blocks.0.norm1.weight": torch.ones(8)},
    "v2": lambda state: {f"encoder.{key}": value for key, value in state.items()} | {
        "decoder.mask_token": torch.zeros(1, 1, 8), "decoder.decoder_pos_embed": torch.zeros(1, 197, 8),
        "decoder.decoder_blocks.0.norm1.weight": torch.ones(8)},
    "model_state": lambda state: {"model_state": LAYOUTS["v1"](state), "epoch": 3},
    "state_dict": lambda state: {"state_dict": {f"module.{key}": value for key, value in LAYOUTS["v2"](state).items()}},
    "fine-tuned": lambda state: {"state_dict": {f"model.encoder.{key}": value for key, value in state.items()} | {
        "model.decoder.psp_modules.0.conv.weight": torch.zeros(3), "model.head.head.1.weight": torch.zeros(2),
        "model.neck.2.fpn2.0.bias": torch.zeros(2), "model.aux_heads.0.decoder.convs.0.weight": torch.zeros(2)}},
}


def sine_codes(position, width):
    """One number → sines and cosines, as numbers of a list."""
    half = width // 2
    angles = [position / 10000 ** (i / half) for i in range(half)]
    return [np.sin(a) for a in angles] + [np.cos(a) for a in angles]


def reference(state, x, times=None, place=None):
    """
    Prithvi written out in formulas: x (B, 6, T, H, W) → tokens (B, 1 + T · h · w, WIDTH) behind each block, the last ones normalised.

    The table of positions is built number by number at 14 x 14 and resized as images are.
    """
    batch, _, dates, height, width = x.shape
    h, w = height // 16, width // 16
    patches = F.conv3d(x, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=(1, 16, 16))
    tokens = patches.permute(0, 2, 3, 4, 1)  # B, T, h, w, C
    of_space, of_time = WIDTH * 6 // 16, WIDTH * 4 // 16
    table = [[[sine_codes(column, of_space) + sine_codes(row, of_space) + sine_codes(date, of_time) for column in range(14)]
              for row in range(14)] for date in range(dates)]
    table = torch.tensor(np.array(table), dtype=torch.float32)
    if (h, w) != (14, 14):
        table = F.interpolate(table.permute(0, 3, 1, 2), (h, w), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    tokens = tokens + table
    if times is not None:
        for date, (year, day) in enumerate(times):
            code = torch.tensor(sine_codes(year, WIDTH // 2) + sine_codes(day, WIDTH // 2), dtype=torch.float32)
            tokens[:, date] = tokens[:, date] + state["temporal_embed_enc.scale"] * code
    if place is not None:
        code = torch.tensor(sine_codes(place[0], WIDTH // 2) + sine_codes(place[1], WIDTH // 2), dtype=torch.float32)
        tokens = tokens + state["location_embed_enc.scale"] * code
    tokens = torch.cat([state["cls_token"].expand(batch, 1, WIDTH), tokens.reshape(batch, -1, WIDTH)], dim=1)
    return blocks_by_hand(state, tokens, 1e-5)


def blocks_by_hand(state, tokens, eps):
    levels = []
    for i in range(DEPTH):
        own = {key.removeprefix(f"blocks.{i}."): value for key, value in state.items() if key.startswith(f"blocks.{i}.")}
        y = F.layer_norm(tokens, (WIDTH,), own["norm1.weight"], own["norm1.bias"], eps)
        parts = []
        q, k, v = (F.linear(y, own["attn.qkv.weight"][j * WIDTH : (j + 1) * WIDTH], own["attn.qkv.bias"][j * WIDTH : (j + 1) * WIDTH])
                   for j in range(3))
        size = WIDTH // HEADS
        for head in range(HEADS):
            a, b, c = (t[..., head * size : (head + 1) * size] for t in (q, k, v))
            parts.append((a @ b.transpose(1, 2) / size**0.5).softmax(dim=-1) @ c)
        tokens = tokens + F.linear(torch.cat(parts, dim=-1), own["attn.proj.weight"], own["attn.proj.bias"])
        y = F.layer_norm(tokens, (WIDTH,), own["norm2.weight"], own["norm2.bias"], eps)
        y = F.gelu(F.linear(y, own["mlp.fc1.weight"], own["mlp.fc1.bias"]))
        tokens = tokens + F.linear(y, own["mlp.fc2.weight"], own["mlp.fc2.bias"])
        levels.append(tokens)
    levels[-1] = F.layer_norm(tokens, (WIDTH,), state["norm.weight"], state["norm.bias"], eps)
    return levels


def saved(tmp_path, content, name="weights.pt"):
    torch.save(content, tmp_path / name)
    return tmp_path / name


def loaded(tmp_path, content, name="prithvi:test", bands=BANDS, **args):
    encoder = build_encoder(name, bands, {"layers": "all", **args}).eval()
    assert fill_encoder(encoder, name, saved(tmp_path, content), bands) == ""  # every tensor was found
    return encoder


def close(found, wanted, by=2e-5):
    return all(torch.allclose(a, b, atol=by, rtol=by) for a, b in zip(found, wanted, strict=True))


# ------------------------------------------------------------------------------------------------ Prithvi


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_published_layout_of_names_loads_whole_and_answers_as_the_formulas_do(layout, tmp_path):
    state = random_prithvi()
    encoder = loaded(tmp_path, LAYOUTS[layout](state))
    x = torch.randn(2, 6, 64, 32)
    with torch.no_grad():
        assert close(encoder(x), reference(state, x[:, :, None]))


@pytest.mark.parametrize(("size", "dates"), [((224, 224), 1), ((160, 256), 1), ((160, 256), 3), ((32, 48), 3)])
def test_positions_are_those_of_224_pixels_resized_and_dates_lie_side_by_side(size, dates, tmp_path):
    state = random_prithvi(1)
    encoder = loaded(tmp_path, LAYOUTS["v2"](state), bands=BANDS * dates, dates=dates)
    x = torch.randn(1, 6, dates, *size)
    with torch.no_grad():
        found, wanted = encoder(x.transpose(1, 2).flatten(1, 2)), reference(state, x)
    assert encoder.layout.channels == (WIDTH * dates,) * DEPTH
    for level, tokens in zip(found, wanted, strict=True):
        apart = torch.stack([level[:, 1:, date * WIDTH : (date + 1) * WIDTH] for date in range(dates)], dim=1).flatten(1, 2)
        assert torch.allclose(apart, tokens[:, 1:], atol=1e-4, rtol=1e-4)
        assert torch.allclose(level[:, 0, :WIDTH], tokens[:, 0], atol=1e-4, rtol=1e-4)


def test_times_and_places_are_added_to_patches_alone(tmp_path):
    state = random_prithvi(2, coordinates=True)
    times, place = ((2019, 40), (2020, 41), (2021, 366)), (-33.25, 151.5)
    flat = [number for pair in times for number in pair]
    encoder = loaded(tmp_path, LAYOUTS["v2"](state), "prithvi:test-tl", BANDS * 3, dates=3, times=tuple(flat), place=place)
    plain = loaded(tmp_path, LAYOUTS["v2"](state), "prithvi:test-tl", BANDS * 3, dates=3)
    x = torch.randn(1, 6, 3, 32, 32)
    stacked = x.transpose(1, 2).flatten(1, 2)
    with torch.no_grad():
        for each, args in ((encoder, (times, place)), (plain, (None, None))):
            for level, tokens in zip(each(stacked), reference(state, x, *args), strict=True):
                assert torch.allclose(level[:, 1:, WIDTH : 2 * WIDTH], tokens[:, 5:9], atol=1e-3, rtol=1e-3)
        each_own = plain(stacked, times=torch.tensor([times], dtype=torch.float32), place=torch.tensor([place]))
        assert close(each_own, encoder(stacked))


@hypothesis.settings(max_examples=6, deadline=None)
@hypothesis.given(st.permutations(range(6)), st.integers(1, 6))
def test_columns_of_the_first_convolution_follow_the_names_of_the_bands(order, count):
    state = random_prithvi(3)
    bands = tuple(BANDS[i] for i in order[:count])
    encoder = build_encoder("prithvi:test", bands, {"layers": "all"}).eval()
    own = encoder.in_own_names(LAYOUTS["v2"](state))
    encoder.load_state_dict(own, strict=False)
    part = state | {"patch_embed.proj.weight": state["patch_embed.proj.weight"][:, list(order[:count])]}
    x = torch.randn(1, count, 32, 32)
    with torch.no_grad():
        assert close(encoder(x), reference(part, x[:, :, None]))


def test_bands_that_it_does_not_know_are_left_out_and_a_broad_infrared_stands_in(tmp_path):
    state = random_prithvi(4)
    encoder = loaded(tmp_path, state, bands=("B08", "ndvi", "red", "B05", "blue"))
    assert encoder.told == "prithvi:test reads narrow_nir, red, blue; ndvi, B05 left out; B08 for narrow_nir"
    part = state | {"patch_embed.proj.weight": state["patch_embed.proj.weight"][:, [3, 2, 0]]}
    x = torch.randn(1, 5, 32, 32)
    with torch.no_grad():
        assert close(encoder(x), reference(part, x[:, [0, 2, 4], None]))
    assert build_encoder("prithvi:test", ("B08", "B8A"), {}).choice.keys == ("narrow_nir",)
    assert build_encoder("prithvi:test", ("a", "b"), {"bands": ("SWIR_2", "NIR_NARROW")}).choice.columns == (5, 3)


def test_inputs_are_brought_to_the_statistics_of_the_pretraining():
    mean, std = (0.05, 0.2), (0.1, 0.3)
    parts = ModelConfig(encoder="prithvi:test", decoder="linear", necks=(Neck("tokens-to-maps"),))
    model = assemble(parts, ("B04", "B02"), mean=mean, std=std)
    seen = []
    model.network.encoder.inner.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    reflectance = torch.rand(1, 2, 32, 32)
    model.eval()(reflectance)
    for channel, column in enumerate((2, 0)):
        wanted = (reflectance[:, channel] * 10_000 - V2[0][column]) / V2[1][column]
        assert torch.allclose(seen[0][:, channel], wanted, atol=1e-4)
    model = assemble(parts, ("red", "blue"), mean=mean, std=std, pictures=True)  # brightness: as the training images are
    assert torch.equal(model.network.encoder.gain, torch.ones(1, 2, 1, 1)) and not model.network.encoder.shift.any()


@pytest.mark.parametrize(("name", "bands", "args", "words"), [
    ("prithvi:eo-v3-300", BANDS, {}, "unknown encoder 'prithvi:eo-v3-300'.* Did you mean 'prithvi:eo-v2-300'"),
    ("clay:v1", BANDS, {}, "unknown encoder 'clay:v1'; of published ones there are dinov3-sat:…, dofa:…, prithvi:…"),
    ("prithvi:test", BANDS, {"place": (1.0, 2.0)}, "was trained without coordinates and does not read the argument 'place'"),
    ("prithvi:test", BANDS, {"depth": 3}, "does not read the argument 'depth'; it takes layers, bands, dates"),
    ("prithvi:test", BANDS, {"dates": 4}, "6 channels, which are not those of dates=4"),
    ("prithvi:test", BANDS, {"dates": 2}, "expects the same bands of each date, found B02, B03, B04 and B8A, B11, B12"),
    ("prithvi:test", ("band_1", "band_2"), {}, "knows blue, green, red, .* and none of band_1, band_2; name them by --encoder-args bands="),
    ("prithvi:test", BANDS, {"bands": ("B02",)}, "bands= names 1 bands of dates=1, and the images have 6 channels"),
    ("prithvi:test", BANDS, {"layers": 4}, "layers of this network are 0 to 3"),
    ("prithvi:test-tl", BANDS, {"times": (2020,)}, "expects times=YEAR,DAY for each of 1 dates"),
    ("prithvi:test-tl", BANDS, {"times": (2020, 367)}, "expects times=YEAR,DAY"),
    ("prithvi:test-tl", BANDS, {"place": (91, 0)}, "expects place=LATITUDE,LONGITUDE in degrees"),
    ("prithvi:test-tl", BANDS, {"place": "here"}, "expects place=LATITUDE,LONGITUDE"),
    ("dofa:test", BANDS, {"wavelengths": 490}, "expects wavelengths= in nm, one for each of B02, B03"),
])
def test_what_cannot_be_built_is_refused_in_a_line(name, bands, args, words):
    with pytest.raises(UserError, match=words) as caught:
        build_encoder(name, bands, args)
    assert len(str(caught.value)) < 180 and "\n" not in str(caught.value)


def without(state, key):
    return {name: value for name, value in state.items() if name != key}


@pytest.mark.parametrize(("change", "words"), [
    (lambda s: without(s, "blocks.1.mlp.fc1.bias"), "1 missing .blocks.1.mlp.fc1.bias"),
    (lambda s: s | {"blocks.4.norm1.weight": torch.ones(WIDTH)}, "1 unknown .blocks.4.norm1.weight"),
    (lambda s: s | {"temporal_embed_enc.scale": torch.ones(1)}, "1 unknown .time_scale"),
    (lambda s: s | {"blocks.0.attn.proj.weight": torch.ones(8, 8)}, "1 of another shape"),
    (lambda s: random_prithvi(bands=13), "1 of another shape .patch_embed.proj.weight"),
    (lambda s: {"classes": torch.ones(3)}, "0 of 53 tensors match, 53 missing .* pass other weights$"),
])
def test_weights_of_another_model_or_size_are_refused_with_counts(change, words, tmp_path):
    encoder = build_encoder("prithvi:test", BANDS, {})
    with pytest.raises(UserError, match=words):
        fill_encoder(encoder, "prithvi:test", saved(tmp_path, change(random_prithvi())), BANDS)


def test_weights_without_coordinates_do_not_fill_a_model_with_them_unless_asked(tmp_path):
    file = saved(tmp_path, LAYOUTS["v2"](random_prithvi()))
    encoder = build_encoder("prithvi:test-tl", BANDS, {})
    with pytest.raises(UserError, match="2 missing .time_scale"):
        fill_encoder(encoder, "prithvi:test-tl", file, BANDS)
    assert "2 missing" in fill_encoder(encoder, "prithvi:test-tl", file, BANDS, partial=True)


def test_blocks_behind_the_last_level_are_cut_off(tmp_path):
    state = random_prithvi(5)
    encoder = loaded(tmp_path, LAYOUTS["v2"](state), layers=(0,))
    assert len(encoder.inner.model.blocks) == 1
    x = torch.randn(1, 6, 32, 32)
    with torch.no_grad():
        assert close(encoder(x), reference(state, x[:, :, None])[:1])


def test_one_of_our_own_checkpoints_is_an_encoders_file_too(tmp_path):
    bands = ("B04", "B02")
    parts = ModelConfig(encoder="prithvi:test", decoder="fcn", decoder_args={"channels": 8})
    model = assemble(parts, bands, mean=(0.1, 0.2), std=(0.1, 0.1))
    file = saved(tmp_path, {"format": "chipmill-checkpoint-1", "state": {"model": model.state_dict(), "epoch": 1}})
    again = assemble(parts, bands, mean=(0.3, 0.3), std=(0.2, 0.2), encoder_weights=file)
    own = model.network.encoder.own_weights()
    assert all(torch.equal(value, own[key]) for key, value in again.network.encoder.own_weights().items())
    assert not torch.equal(again.network.encoder.shift, model.network.encoder.shift)  # of its own images


@pytest.mark.parametrize("decoder", ["fcn", "unet", "upernet", "smp-fpn"])
def test_decoders_need_no_neck_to_be_named(decoder):
    parts = ModelConfig(encoder="prithvi:test", decoder=decoder, outputs=3)
    model = assemble(parts, BANDS, encoder_weights="none")
    assert model.eval()(torch.rand(1, 6, 70, 90)).shape == (1, 3, 70, 90)


@pytest.mark.slow
@pytest.mark.parametrize("args", [{}, {"dates": 2, "place": (1.0, 2.0), "times": (2020, 1, 2021, 1)}])
def test_the_number_of_images_is_not_fixed_by_an_export(args):
    bands = BANDS * args.get("dates", 1)
    encoder = build_encoder("prithvi:test-tl", bands, args).eval()
    exported = torch.export.export(encoder, (torch.randn(2, len(bands), 32, 48),), dynamic_shapes={"x": {0: torch.export.Dim("images")}})
    x = torch.randn(3, len(bands), 32, 48)
    with torch.no_grad():
        assert close(exported.module()(x), encoder(x))


def test_a_fine_tuned_encoder_of_timm_is_read_from_terratorchs_names(tmp_path):
    encoder = build_encoder("tu-test_vit", BANDS)
    state = {f"model.encoder._timm_module.{key.removeprefix('model.')}": value + 1 for key, value in encoder.state_dict().items()}
    file = saved(tmp_path, {"state_dict": state | {"model.decoder.conv.weight": torch.zeros(2)}})
    assert fill_encoder(encoder, "tu-test_vit", file, BANDS) == ""
    assert all(torch.equal(value, state[f"model.encoder._timm_module.{key.removeprefix('model.')}"]) for key, value in
               encoder.state_dict().items())


@pytest.mark.slow
def test_a_run_on_stacked_dates_with_times_is_scored_again(tmp_path):
    bands = tuple(f"{date}_{band}" for date in ("20200101", "20210101") for band in ("B02", "B8A", "B12"))
    patches = write_patch_set(tmp_path / "patches", {"train": 2, "val": 1, "test": 1}, size=32, grid=(1, 1), bands=bands)
    shared = ["--patches-dir", str(patches), "--num-workers", "0", "--device", "cpu", "--quiet"]
    parts = ["--encoder", "prithvi:test-tl", "--decoder", "unet", "--encoder-weights", str(saved(tmp_path, random_prithvi(1, True))),
             "--encoder-args", "dates=2", "times=2020,1,2021,1", "place=-1.5,38"]
    assert train.main([*shared, *parts, "--output-dir", str(tmp_path / "run"), "--epochs", "1", "--batch-size", "2"]) == 0
    last = tmp_path / "run" / "checkpoints" / "last.pt"
    model = model_from_checkpoint(load_checkpoint(last))
    encoder = model.network.encoder
    assert encoder.inner.times.tolist() == [[2020, 1], [2021, 1]] and encoder.layout.channels == (2 * WIDTH,) * 4
    assert train.main([*shared, "--test-only", "--resume", str(last), "--test-split", "val", "--output-dir", str(tmp_path / "scores")]) == 0


@pytest.mark.parametrize("necks", [(), (Neck("pool", {"how": "class"}),)])
def test_whole_patches_are_judged_without_a_neck_too(necks):
    parts = ModelConfig(task="classification", encoder="prithvi:test", decoder="identity", outputs=5, necks=necks)
    assert assemble(parts, BANDS).eval()(torch.rand(2, 6, 40, 32)).shape == (2, 5)


def test_without_network_one_line_says_which_file_to_get(monkeypatch):
    import huggingface_hub

    def refuse(*args):
        raise OSError("no route")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    monkeypatch.setattr("nets.encoder_weights.network_answers", lambda: True)
    encoder = build_encoder("prithvi:eo-v2-tiny-tl", BANDS, {"layers": (0,)})
    with pytest.raises(UserError, match="cannot be downloaded .OSError.; get Prithvi_EO_V2_tiny_TL.pt from huggingface.co/ibm-nasa"):
        fill_encoder(encoder, "prithvi:eo-v2-tiny-tl", "hub", BANDS)


def test_facts_of_the_rows():
    """Sizes as published: widths, depths, heads, patches and bands."""
    sizes = {"prithvi:eo-v1-100": (768, 12, 12, 16), "prithvi:eo-v2-300": (1024, 24, 16, 16), "prithvi:eo-v2-600-tl": (1280, 32, 16, 14),
             "prithvi:eo-v2-tiny-tl": (192, 12, 3, 16)}
    for name, size in sizes.items():
        args = FOUNDATIONS[name].args
        assert (args["width"], args["depth"], args["heads"], args["patch"]) == size and FOUNDATIONS[name].bands == HLS
    assert FOUNDATIONS["prithvi:eo-v1-100"].mean[0] == pytest.approx(0.0775)
    for row in FOUNDATIONS.values():
        assert isinstance(row, Foundation) and len(row.mean) == len(row.std) and len(row.std) in (0, len(row.bands or ()))


# ------------------------------------------------------------------------------------------------ DOFA, TorchGeo, DINOv3


class Generator(nn.Module):
    """DOFA's maker of a convolution, as its authors lay it out: modules of PyTorch with their names."""

    def __init__(self):
        super().__init__()
        self.weight_generator = nn.Module()
        layer = nn.TransformerEncoderLayer(128, 4, activation="gelu", dropout=0.0)
        self.weight_generator.transformer_encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.weight_generator.fc_weight = nn.Linear(128, 16 * 16 * WIDTH)
        self.weight_generator.fc_bias = nn.Linear(128, WIDTH)
        self.weight_generator.weight_tokens = nn.Parameter(torch.randn(128, 128) * 0.02)
        self.weight_generator.bias_token = nn.Parameter(torch.randn(1, 128) * 0.02)
        self.fclayer = nn.Module()
        self.fclayer.w1, self.fclayer.w2 = nn.Linear(128, 128), nn.Linear(128, 128)

    def forward(self, x, micrometres):
        """x: (B, bands, H, W) → tokens (B, h · w, WIDTH), a convolution made for these wavelengths."""
        codes = torch.tensor([sine_codes(1000 * w, 128) for w in micrometres], dtype=torch.float32)
        codes = codes + self.fclayer.w2(self.fclayer.w1(codes).relu()).relu()
        made = self.weight_generator
        found = made.transformer_encoder(torch.cat([made.weight_tokens, codes, made.bias_token], dim=0))
        kernels = made.fc_weight(found[128:-1] + codes).view(len(micrometres), 16, 16, WIDTH)
        maps = F.conv2d(x, kernels.permute(3, 0, 1, 2) * 0.01, made.fc_bias(found[-1]) * 0.01, stride=16, padding=1)
        return maps.flatten(2).transpose(1, 2)


@pytest.mark.parametrize("with_norm", [True, False])
def test_dofa_folds_wavelengths_into_a_convolution(with_norm, tmp_path):
    torch.manual_seed(0)
    generator = Generator()
    state = random_prithvi(6)
    state = {key: value for key, value in state.items() if not key.startswith(("patch_embed", "pos_embed"))}
    state |= {f"patch_embed.{key}": value for key, value in generator.state_dict().items()}
    state |= {"pos_embed": torch.randn(1, 197, WIDTH), "mask_token": torch.zeros(1, 1, 8), "projector.weight": torch.zeros(2)}
    content = state if with_norm else {key: value for key, value in state.items() if not key.startswith("norm.")}
    encoder = loaded(tmp_path, content, "dofa:test", ("B04", "B08", "VV"), wavelengths=(665, 842, 5405))
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        tokens = generator(x, (0.665, 0.842, 5.405)) + state["pos_embed"][:, 1:]
        tokens = torch.cat([state["cls_token"] + state["pos_embed"][:, :1], tokens], dim=1)
        if not with_norm:
            state |= {"norm.weight": torch.ones(WIDTH), "norm.bias": torch.zeros(WIDTH)}
        assert close(encoder(x), blocks_by_hand(state, tokens, 1e-6), 5e-4)  # codes of wavelengths are of angles up to 5405
        assert [level.shape for level in encoder(torch.randn(1, 3, 160, 256))] == [(1, 161, WIDTH)] * DEPTH


@pytest.mark.parametrize(("encoder", "known", "given", "indices", "wanted"), [
    ("dofa:test", [482.0, 561.5], ["layers=1"], [], ["layers=1", "wavelengths=482,561.5,"]),
    ("dofa:test", [865.0], [], [], ["wavelengths=865,"]),
    ("dofa:test", [482.0, 561.5], ["wavelengths=1,2"], [], ["wavelengths=1,2"]),
    ("dofa:test", [482.0, None], [], [], []),
    ("dofa:test", None, [], [], []),
    ("dofa:test", [482.0, 561.5], [], ["ndvi"], []),  # an index has no wavelength
    ("prithvi:test", [482.0, 561.5], [], [], []),
])
def test_wavelengths_of_products_reach_the_encoder_that_reads_them(encoder, known, given, indices, wanted):
    train.import_libraries()
    args, _ = parse_with_config(train.build_parser(), ["--encoder", encoder, "--decoder", "unet"])
    choice = dataclasses.replace(group_of(train.ModelChoice, args), encoder_args=given, indices=indices)
    patch_set = types.SimpleNamespace(sensing={} if known is None else {"wavelengths": known})
    found = train.with_wavelengths(choice, patch_set).encoder_args
    assert found == wanted
    if len(wanted) == 1 and known and None not in known and not given:
        assert build_encoder("dofa:test", ("any",) * len(known), settings_in(found)).inner.wavelengths == (0.865,)


def test_dofa_takes_the_wavelengths_of_named_bands_and_refuses_half_a_generator(tmp_path):
    encoder = build_encoder("dofa:test", ("B04", "swir22", "what"), {})
    assert encoder.inner.wavelengths == (0.6646, 2.2024) and encoder.choice.left == ("what",)
    with pytest.raises(UserError, match="the weights are not those of dofa:test: what makes its convolution is incomplete"):
        fill_encoder(encoder, "dofa:test", saved(tmp_path, {"patch_embed.weight_generator.bias_token": torch.ones(1, 128)}), ("B04",))


@pytest.mark.parametrize(("name", "make"), [
    ("torchgeo:resnet18:sentinel2-all", lambda: timm.create_model("resnet18", in_chans=13)),
    pytest.param("torchgeo:swin_v2_t:rgb", lambda: torchvision.models.swin_v2_t(weights=None), marks=pytest.mark.slow),
    pytest.param("torchgeo:vit_small_patch16_224:sentinel2-all", lambda: timm.create_model("vit_small_patch16_224", in_chans=13),
                 marks=pytest.mark.slow),
])
def test_torchgeos_files_have_the_names_of_the_networks_that_they_are_of(name, make, tmp_path):
    network = make().eval()
    state = {key: value for key, value in network.state_dict().items() if not key.startswith(("fc.", "head."))}
    encoder = build_encoder(name, ("B08", "B04", "B02"), {}).eval()
    assert fill_encoder(encoder, name, saved(tmp_path, state), ("B08", "B04", "B02")) == ""
    columns = {"rgb": (0, 2), "sentinel2-all": (7, 3, 1)}[name.rsplit(":", 1)[1]]
    x = torch.randn(1, 3, 64, 64)
    full = torch.zeros(1, 3 if len(columns) == 2 else 13, 64, 64)
    full[:, columns] = x[:, -len(columns) :]
    with torch.no_grad():
        found = encoder(x)[-1]
        if "swin" in name:
            assert torch.allclose(found, network.norm(network.features(full)).permute(0, 3, 1, 2), atol=1e-4)
        elif "resnet" in name:
            assert torch.allclose(found, network.forward_features(full), atol=1e-4)
        else:
            network = timm.create_model("vit_small_patch16_224", in_chans=13, dynamic_img_size=True).eval()
            network.load_state_dict(state, strict=False)
            assert torch.allclose(found, network.forward_features(full), atol=1e-4)


# ------------------------------------------------------------------------------------------------ detectors


@pytest.mark.parametrize("framework", ["centre", *(pytest.param(name, marks=pytest.mark.slow) for name in ("faster-rcnn", "fcos"))])
def test_detectors_find_and_learn_on_a_published_encoder(framework, tmp_path):
    state = random_prithvi(7)
    file = saved(tmp_path, LAYOUTS["v2"](state))
    config = DetectorConfig(framework=framework, encoder="prithvi:test", bands=("B04", "B02", "B01"), classes=("x",), mean=(0.1, 0.2, 0.1),
                            std=(0.1, 0.1, 0.1), lora=2, proposals=20)
    detector = build_detector(config, file, pictures=False)
    encoder = detector.network.encoder
    assert encoder.told == "prithvi:test reads red, blue; B01 left out" and not torch.equal(encoder.encoder.gain, torch.ones(1, 2, 1, 1))
    assert DetectorConfig.from_dict(detector.config.to_dict()) == config and "lora" not in DetectorConfig().to_dict()
    stored = encoder.encoder.inner.model.patch_embed.proj.weight
    assert torch.equal(stored, state["patch_embed.proj.weight"][:, [2, 0], 0])
    for frozen, trained in ((True, 0), (False, 4 * DEPTH)):
        detector.freeze_encoder(frozen)
        assert sum(parameter.requires_grad for parameter in encoder.parameters()) == trained
    target = {"boxes": torch.tensor([[8.0, 8, 40, 40]]), "labels": torch.tensor([1]), "ignore": torch.zeros(0, 4)}
    images = torch.rand(2, 3, 64, 96)
    assert [tuple(level.shape[-2:]) for level in encoder(images)] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    sum(detector.train().losses(images, [target, target]).values()).backward()
    found = [parameter.grad is not None for name, parameter in encoder.named_parameters() if name.endswith("lora_v_b")]
    assert found == [True] * DEPTH and stored.grad is None
    assert len(detector.eval().predict(images)) == 2
    assert merge_lora(detector).config.lora == 0 and not has_lora(detector)


def test_detectors_refuse_patches_that_make_no_pyramid_from_stride_4():
    with pytest.raises(UserError, match="encoder prithvi:odd has maps at strides 3.5, 7, 14, 28, and detectors need 4 to 32"):
        FOUNDATIONS["prithvi:odd"] = prithvi((WIDTH, DEPTH, HEADS), *V2, patch=14, hub=("nobody/nothing", "none.pt"))
        try:
            build_detector(DetectorConfig(encoder="prithvi:odd", bands=("red",)))
        finally:
            del FOUNDATIONS["prithvi:odd"]


# ------------------------------------------------------------------------------------------------ pages


def test_the_page_names_every_published_encoder():
    page = (DOCS / "foundation-encoders.md").read_text(encoding="utf-8")
    names = [name for name in FOUNDATIONS if "test" not in name]
    words = {part for name in names for part in (name.split(":")[1:] if name.startswith("torchgeo:") else [name])}
    assert [word for word in words if f"`{word}`" not in page] == []
    for name, reads in ((name, row.reads) for name, row in FOUNDATIONS.items()):
        assert set(reads) <= {"layers", "bands", "dates", "times", "place", "wavelengths"}, name


def test_the_pages_encoder_of_another_package_is_put_together(monkeypatch, tmp_path):
    """The block as it stands, with a stand-in for the package that gives what the block says."""
    class Inner(nn.Module):
        def __init__(self, bands):
            super().__init__()
            self.embed = nn.Conv2d(len(bands), 768, 16, 16)

        def forward(self, images):
            tokens = self.embed(images["S2L2A"]).flatten(2).transpose(1, 2)
            return [tokens * (layer + 1) for layer in range(12)]

    def build(name, *, pretrained, modalities, bands):
        assert (name, modalities, bands) == ("terramind_v1_base", ["S2L2A"], {"S2L2A": ["RED", "NIR_BROAD"]})
        return Inner(bands["S2L2A"])

    monkeypatch.setitem(sys.modules, "terratorch", types.ModuleType("terratorch"))
    registry = types.ModuleType("terratorch.registry")
    registry.BACKBONE_REGISTRY = types.SimpleNamespace(build=build)
    monkeypatch.setitem(sys.modules, "terratorch.registry", registry)
    page = (DOCS / "models.md").read_text(encoding="utf-8")
    (tmp_path / "terramind.py").write_text(re.search(r"```python\n(# terramind.py\n.*?)```", page, re.DOTALL)[1])
    user_model = load_user_model(f"{tmp_path / 'terramind.py'}:build_model")
    model = assemble(ModelConfig(outputs=3), ("B04", "B08"), user_model=user_model).eval()
    assert model(torch.rand(1, 2, 50, 70)).shape == (1, 3, 50, 70)
    model.freeze_encoder()
    assert not any(p.requires_grad for p in model.network.encoder.parameters())


def test_bigdet_sees_frames_in_the_scale_of_a_pretraining_on_pictures(monkeypatch):
    row = dataclasses.replace(FOUNDATIONS["prithvi:test"], pictures=True, mean=(0.4, 0.5, 0.6, 0, 0, 0), std=(0.1, 0.2, 0.5, 1, 1, 1))
    monkeypatch.setitem(FOUNDATIONS, "prithvi:pictures", row)
    encoder = build_small_detector(SmallConfig(model="big", encoder="prithvi:pictures", target_size=(64, 64))).trunk.encoder.encoder
    frames = torch.rand(1, 3, 2, 2)  # red, green, blue
    own_mean, own_std = (torch.tensor(values).reshape(3, 1, 1) for values in ((0.6, 0.5, 0.4), (0.5, 0.2, 0.1)))
    seen = (frames - 0.5) / 0.25 * encoder.gain + encoder.shift
    assert close(seen, (frames - own_mean) / own_std, 1e-5)
