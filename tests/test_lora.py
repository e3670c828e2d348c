"""Adapters of low rank: what they change, what stays, merging, files of adapters alone, runs. Run: pytest tests/test_lora.py"""

import json

import hypothesis
import hypothesis.strategies as st
import pytest
import rasterio
import torch
from map_factory import numbers
from map_factory import run as map_with
from patch_factory import write_patch_set
from safetensors.torch import load_file
from torch.nn import functional as F
from torchvision.models.swin_transformer import SwinTransformer
from training_programs import make_images

import export
import train
import train_detection
from constants import CEMS_BANDS
from detection.detectors import DetectorConfig, build_detector, detector_from_checkpoint
from model import assemble, model_from_checkpoint
from nets.adapter_file import alone
from nets.encoder_weights import fill_encoder
from nets.encoders import build_encoder
from nets.factory import EncoderDecoderFactory
from nets.foundation import FOUNDATIONS, V2, prithvi
from nets.lora import AdaptedQKV, add_lora, has_lora, is_adapter, merge_lora, merged_state
from nets.model_config import ModelConfig
from nets.optimiser_groups import optimiser_groups
from runtime.checkpoint import load_checkpoint
from runtime.errors import UserError
from runtime.run_folder import find_result

BANDS = ("B02", "B03", "B04", "B8A", "B11", "B12")
WIDTH = 32


@pytest.fixture(autouse=True)
def small_row(monkeypatch):
    monkeypatch.setitem(FOUNDATIONS, "prithvi:test", prithvi((WIDTH, 4, 2), *V2, hub=("nobody/nothing", "none.pt")))


def small(lora=0, encoder="prithvi:test", bands=BANDS, seed=0):
    torch.manual_seed(seed)
    return assemble(ModelConfig(encoder=encoder, decoder="fcn", decoder_args={"channels": 8}, lora=lora), bands)


def with_random_b(model, seed=0):
    draw = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if is_adapter(name):
            parameter.data = torch.randn(parameter.shape, generator=draw) * 0.2
    return model


def test_the_first_output_is_the_plain_models_and_its_keys_are_there():
    plain, adapted = small().eval(), small(lora=4).eval()
    missing, unknown = adapted.load_state_dict(plain.state_dict(), strict=False)
    assert unknown == [] and len(missing) == 4 * 4 and all(is_adapter(key) for key in missing)
    x = torch.rand(2, 6, 48, 32)
    with torch.no_grad():
        assert torch.equal(plain(x), adapted(x))


@hypothesis.settings(max_examples=15, deadline=None)
@hypothesis.given(st.integers(1, 8), st.integers(1, 8), st.integers(0, 1000))
def test_rows_of_q_and_v_change_by_the_product_of_their_own_matrices(width, rank, seed):
    torch.manual_seed(seed)
    rank = min(rank, width)
    layer = AdaptedQKV(torch.nn.Linear(width, 3 * width), rank)
    with_random_b(layer, seed)
    x = torch.randn(3, 5, width)
    weight = layer.weight.clone()
    for row in range(width):
        for column in range(width):
            weight[row, column] += sum(layer.lora_q_b[row, r] * layer.lora_q_a[r, column] for r in range(rank))
            weight[2 * width + row, column] += sum(layer.lora_v_b[row, r] * layer.lora_v_a[r, column] for r in range(rank))
    assert torch.allclose(layer(x), F.linear(x, weight, layer.bias), atol=1e-5)


def test_merging_keeps_the_output_and_gives_back_the_plain_keys_and_config():
    plain, adapted = small().eval(), with_random_b(small(lora=4, seed=1)).eval()
    x = torch.rand(2, 6, 64, 32)
    with torch.no_grad():
        before = adapted(x)
        state = merged_state(adapted.state_dict())
        merged = merge_lora(adapted)
        assert (merged(x) - before).abs().max() <= 1e-5 and (plain(x) - before).abs().max() > 1e-3
    assert list(merged.state_dict()) == list(plain.state_dict()) and not has_lora(merged)
    assert merged.config.parts.lora == 0 and merged.config.to_dict() == plain.config.to_dict()
    assert all(torch.equal(value, merged.state_dict()[key]) for key, value in state.items())
    again = model_from_checkpoint({"model": merged.config.to_dict(), "state": {"model": merged.state_dict()}})
    with torch.no_grad():
        assert torch.equal(again(x), merged(x))


def test_a_step_moves_adapters_and_the_rest_and_nothing_else_of_the_encoder():
    model = small(lora=4)
    groups, counts = optimiser_groups(model, 0.5)
    own = 4 * 4 * 4 * WIDTH  # layers, matrices, rank, channels
    assert counts["adapters"] == own and groups[0]["lr_factor"] == 0.5
    trained = sum(parameter.numel() for group in groups for parameter in group["params"])
    base = sum(p.numel() for n, p in model.network.encoder.named_parameters() if not is_adapter(n))
    assert trained == sum(p.numel() for p in model.parameters()) - base
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.AdamW(groups, lr=1e-2)
    for _ in range(2):  # A has no gradient while B is 0
        optimizer.zero_grad()
        F.cross_entropy(model.train()(torch.rand(2, 6, 32, 32)), torch.randint(0, 2, (2, 32, 32))).backward()
        optimizer.step()
    for name, parameter in model.named_parameters():
        stays = name.startswith("network.encoder.") and not is_adapter(name)
        assert torch.equal(parameter, before[name]) == stays, name


def test_freezing_for_some_epochs_stops_adapters_and_lets_them_alone_go_on():
    model = small(lora=4)
    for frozen in (True, False):
        model.freeze_encoder(frozen)
        trained = [name for name, parameter in model.network.encoder.named_parameters() if parameter.requires_grad]
        assert len(trained) == (0 if frozen else 4 * 4) and all(map(is_adapter, trained))


@pytest.mark.parametrize(("encoder", "rank", "words"), [
    ("small", 4, "encoder small has no layers called qkv that --lora could adapt"),
    ("prithvi:test", 33, "--lora 33 is more than the 32 channels of encoder prithvi:test"),
])
def test_encoders_that_cannot_be_adapted_are_refused(encoder, rank, words):
    with pytest.raises(UserError, match=words):
        add_lora(build_encoder(encoder, BANDS), rank, f"encoder {encoder}")


def test_attention_that_reads_its_weights_past_the_layer_is_refused():
    network = SwinTransformer(patch_size=[4, 4], embed_dim=12, depths=[2], num_heads=[2], window_size=[4, 4])
    with pytest.raises(UserError, match="encoder swin uses its qkv weights past the layer, so --lora would do nothing"):
        add_lora(network, 4, "encoder swin")


def test_the_factory_of_notebooks_takes_a_rank():
    model = EncoderDecoderFactory().build_model("segmentation", "prithvi:test", "fcn", backbone_bands=BANDS, num_classes=2, lora=2)
    assert has_lora(model.encoder) and not has_lora(merge_lora(model))


def test_encoders_of_timm_are_adapted_too():
    encoder = build_encoder("tu-test_vit", BANDS)
    add_lora(encoder, 2)
    assert has_lora(encoder) and sum(p.requires_grad for p in encoder.parameters()) == 4 * len(encoder.model.blocks)


# ------------------------------------------------------------------------------------------------ runs


def run(patches, output, *flags):
    base = ["--patches-dir", str(patches), "--output-dir", str(output), "--num-workers", "0", "--device", "cpu", "--quiet"]
    return train.main([*base, "--batch-size", "2", *map(str, flags)])


PARTS = ("--encoder", "prithvi:test", "--decoder", "fcn", "--decoder-args", "channels=8", "--lora", 2, "--lr", 1e-2)


@pytest.fixture
def published(tmp_path):
    """A file of weights as Prithvi's is."""
    torch.manual_seed(5)
    encoder = build_encoder("prithvi:test", BANDS)
    state = {f"encoder.{key.removeprefix('inner.model.')}": value for key, value in encoder.own_weights().items()}
    state["encoder.patch_embed.proj.weight"] = state["encoder.patch_embed.proj.weight"][:, :, None]
    torch.save(state, tmp_path / "Published.pt")
    return tmp_path / "Published.pt"


@pytest.mark.slow
def test_a_run_with_adapters_is_resumed_scored_and_shared_without_the_encoders_weights(tmp_path, published, capsys, make_raster):
    patches = write_patch_set(tmp_path / "patches", {"train": 2, "val": 1, "test": 1}, size=32, grid=(1, 1))
    whole, halved = tmp_path / "whole", tmp_path / "halved"
    assert run(patches, whole, *PARTS, "--encoder-weights", published, "--epochs", 2) == 0
    assert "what was trained, without the encoder's own weights" in capsys.readouterr().out
    assert run(patches, halved, *PARTS, "--encoder-weights", published, "--epochs", 2, "--max-steps", 1) == 0
    assert run(patches, halved, "--resume", halved / "checkpoints" / "last.pt", "--max-steps", 0) == 0
    last, other = (load_checkpoint(folder / "checkpoints" / "last.pt")["state"]["model"] for folder in (whole, halved))
    assert all(torch.equal(value, other[key]) for key, value in last.items())
    base = torch.load(published)["encoder.blocks.0.attn.qkv.weight"]
    assert torch.equal(last["network.encoder.inner.model.blocks.0.attn.qkv.weight"], base)
    assert last["network.encoder.inner.model.blocks.0.attn.qkv.lora_v_b"].abs().max() > 0

    file, full = whole / "checkpoints" / "adapters.pt", whole / "checkpoints" / "best_model.pt"
    assert file.stat().st_size < full.stat().st_size / 4
    with pytest.raises(UserError, match="adapters.pt holds adapters alone, for the weights of Published.pt; pass --encoder-weights FILE"):
        model_from_checkpoint(load_checkpoint(file))
    checkpoint = load_checkpoint(file)
    checkpoint["base_file"] = published
    found, wanted = model_from_checkpoint(checkpoint), model_from_checkpoint(load_checkpoint(full))
    assert all(torch.equal(value, found.state_dict()[key]) for key, value in wanted.state_dict().items())

    other = torch.load(published)
    other["encoder.norm.bias"] += 1
    torch.save(other, tmp_path / "Other.pt")
    checkpoint["base_file"] = tmp_path / "Other.pt"
    with pytest.raises(UserError, match="Other.pt does not hold the weights that the adapters of .* are for"):
        model_from_checkpoint(checkpoint)
    assert run(patches, tmp_path / "scores", "--test-only", "--resume", file, "--encoder-weights", published, "--test-split", "val") == 0
    scene = make_raster("scene.tif", numbers(70, 90, bands=7), descriptions=CEMS_BANDS)
    for checkpoint, more in ((full, ()), (file, ("--encoder-weights", published))):
        assert map_with(scene, "--checkpoint", checkpoint, "--output-dir", tmp_path / checkpoint.stem, "--device", "cpu", "--quiet",
                        "--window", 32, "--threshold", 0.5, *more) == 0
    one, other = ((tmp_path / name / "scene_classes.tif").read_bytes() for name in ("best_model", "adapters"))
    assert one == other
    with pytest.raises(UserError, match="best_model.pt has its encoder's weights; leave --encoder-weights out"):
        map_with(scene, "--checkpoint", full, "--encoder-weights", published, "--output-dir", tmp_path / "none")
    plain = tmp_path / "plain"
    assert export.main([str(file), "--encoder-weights", str(published), "--safetensors", str(plain), "--quiet"]) == 0
    assert map_with(scene, "--checkpoint", plain / "model.safetensors", "--output-dir", tmp_path / "merged", "--device", "cpu", "--quiet",
                    "--window", 32, "--threshold", 0.5) == 0
    assert not any(is_adapter(key) for key in load_file(plain / "model.safetensors"))
    one, other = (rasterio.open(tmp_path / name / "scene_classes.tif").read() for name in ("best_model", "merged"))
    assert (one != other).mean() <= 1e-3  # sums are rounded in another order
    with pytest.raises(UserError, match="can be scored .--test-only., but not resumed"):
        train.main(["--resume", str(file), "--encoder-weights", str(published), "--quiet"])
    with pytest.raises(UserError, match="--lora 3 disagrees with the checkpoint, which has 2"):
        train.main(["--resume", str(whole / "checkpoints" / "last.pt"), "--decoder", "fcn", "--lora", "3", "--quiet"])


@pytest.mark.parametrize(("flags", "words"), [
    (["--lora", "4"], "--lora is for models that are put together; pass --decoder too"),
    (["--lora", "4", "--model", "a.py:f"], "--model a.py:f brings its whole network; leave --lora out"),
    (["--lora", "-1"], "expected a whole number"),
    (["--encoder", "prithvi:eo-v2-300"], "--encoder prithvi:eo-v2-300 is for models that are put together; pass --decoder too"),
])
def test_flags_that_cannot_be_right_are_refused(flags, words, tmp_path):
    with pytest.raises(UserError, match=words):
        run(tmp_path, tmp_path / "output", *flags)


def test_adapters_over_random_weights_or_kept_still_are_refused(tmp_path):
    patches = write_patch_set(tmp_path / "patches", {"train": 1, "val": 1}, size=32, grid=(1, 1))
    with pytest.raises(UserError, match="--freeze-encoder all would keep the adapters of --lora 2 still too"):
        run(patches, tmp_path / "output", *PARTS, "--freeze-encoder", "all")
    with pytest.raises(UserError, match="--lora 2 adapts weights that are there already, and --encoder-weights none has none"):
        run(patches, tmp_path / "output", *PARTS, "--encoder-weights", "none")


@pytest.mark.slow
def test_a_detector_with_adapters_trains_them_alone_is_resumed_and_shared_without_the_encoders_weights(tmp_path, published, capsys):
    make_images(folder := tmp_path / "data")
    words = ["--train-images", folder / "train", "--train-annotations", folder / "train.json", "--output-dir", tmp_path / "run",
             "--val", "0.5", "--cache-dir", tmp_path / "cache", "--tile-size", 64, "--overlap", 16, "--crop", 32, "--batch-size", 2,
             "--num-workers", 0, "--device", "cpu", "--quiet", "--encoder", "prithvi:test", "--encoder-weights", published, "--lora", 2,
             "--lr", 1e-2, "--epochs", 2, "--steps-per-epoch", 2]
    assert train_detection.main([str(word) for word in (*words, "--max-steps", 2)]) == 0
    last = tmp_path / "run" / "checkpoints" / "last.pt"
    assert train_detection.main(["--resume", str(last), "--max-steps", "0", "--quiet", "--device", "cpu", "--num-workers", "0"]) == 0
    checkpoint = load_checkpoint(last)
    weights, base = checkpoint["state"]["model"], torch.load(published)
    layer = "encoder.encoder.inner.model.blocks.3.attn.qkv."
    assert checkpoint["model"]["lora"] == 2 and checkpoint["state"]["step"] == 4
    assert torch.equal(weights[f"network.{layer}weight"], base["encoder.blocks.3.attn.qkv.weight"])
    assert weights[f"network.{layer}lora_v_b"].abs().max() > 0
    average = checkpoint["state"]["average"]
    assert torch.equal(average[f"network.{layer}weight"], base["encoder.blocks.3.attn.qkv.weight"])

    checkpoints = tmp_path / "run" / "checkpoints"
    file, full = checkpoints / "adapters.pt", checkpoints / find_result(tmp_path / "run").name
    assert f"the encoder's own weights: {file}" in capsys.readouterr().out and file.stat().st_size < full.stat().st_size / 4
    common = ["--allow-overlap", "--quiet", "--device", "cpu"]
    for name, checkpoint, more in (("full", full, []), ("alone", file, ["--encoder-weights", str(published)])):
        test = ["--test-images", folder / "train", "--test-annotations", folder / "train.json", "--output-dir", tmp_path / name]
        assert train_detection.main([str(w) for w in ("--test-only", "--resume", checkpoint, *test, *more, *common)]) == 0
        maps = ["--checkpoint", checkpoint, "--output-dir", tmp_path / name / "maps", "--score-threshold", 0.0, "--quiet"]
        assert map_with(sorted((folder / "train").iterdir())[0], *maps, "--device", "cpu", *more) == 0
    scores = [json.loads((tmp_path / name / "scores_test.json").read_text()) for name in ("full", "alone")]
    assert {**scores[0], "checkpoint": ""} == {**scores[1], "checkpoint": ""}
    boxes = [json.loads((tmp_path / name / "maps" / "results.json").read_text()) for name in ("full", "alone")]
    assert boxes[0] and boxes[0] == boxes[1]
    plain = tmp_path / "plain"
    assert export.main([str(file), "--encoder-weights", str(published), "--safetensors", str(plain), "--quiet"]) == 0
    weights = load_file(plain / "model.safetensors")
    assert not any(is_adapter(key) for key in weights) and weights.keys() == {key for key in average if not is_adapter(key)}
    with pytest.raises(UserError, match="can be scored .--test-only., but not resumed"):
        train_detection.main(["--resume", str(file), "--encoder-weights", str(published), "--quiet"])


@pytest.mark.parametrize("framework", ["centre", "retinanet"])
def test_a_detectors_adapters_alone_find_their_weights_by_name_and_refuse_others(framework, tmp_path, published):
    config = DetectorConfig(framework=framework, encoder="prithvi:test", bands=BANDS, lora=2, encoder_args={"layers": (0, 1, 2, 3)})
    torch.manual_seed(3)
    detector = with_random_b(build_detector(config, str(published)))
    average = {key: value * (1.5 if is_adapter(key) else 1) for key, value in detector.state_dict().items()}
    whole = {"kind": "detection", "model": detector.config.to_dict(), "path": tmp_path / "adapters.pt", "data": {},
             "state": {"model": detector.state_dict(), "average": average}}
    file = alone(whole, detector, str(published))  # which lies beside it
    own = {key.rsplit(".", 1)[0] for key in file["state"]["model"] if is_adapter(key)}
    assert len(own) == 4 and not any(f"{layer}.weight" in file["state"]["model"] for layer in own)
    found = detector_from_checkpoint({**file, "path": tmp_path / "adapters.pt"})
    assert all(torch.equal(value, found.state_dict()[key]) for key, value in average.items())
    with pytest.raises(UserError, match="adapters.pt holds adapters alone, for the weights of Published.pt; pass --encoder-weights FILE"):
        detector_from_checkpoint({**file, "path": tmp_path / "elsewhere" / "adapters.pt"})
    other = torch.load(published)
    other["encoder.blocks.0.norm1.bias"] += 1
    torch.save(other, tmp_path / "Other.pt")
    with pytest.raises(UserError, match="Other.pt does not hold the weights that the adapters of .* are for"):
        detector_from_checkpoint({**file, "path": tmp_path / "adapters.pt", "base_file": tmp_path / "Other.pt"})


def test_the_encoder_of_a_detector_of_ours_is_taken_from_its_checkpoint(tmp_path, published):
    for framework in ("centre", "faster-rcnn"):
        config = DetectorConfig(framework=framework, encoder="prithvi:test", bands=BANDS, lora=2)
        detector = with_random_b(build_detector(config, str(published)))
        torch.save({"state": {"model": detector.state_dict()}}, tmp_path / "detector.pt")
        encoder = build_encoder("prithvi:test", BANDS)
        assert fill_encoder(encoder, "prithvi:test", str(tmp_path / "detector.pt"), BANDS) == ""
        merged = merge_lora(detector).network.encoder.encoder.state_dict()
        assert all(torch.equal(value, merged[key]) for key, value in encoder.own_weights().items())


@pytest.mark.parametrize(("encoder", "arguments", "words"), [
    ("prithvi:test", {"layers": (1, 2, 3)}, "has maps at strides 8, 16, 32, and detectors need 4 to 32; pass four layers="),
    ("prithvi:test", {"times": (2023, 1)}, "was trained without coordinates and does not read the argument 'times'"),
    ("prithvi:test", {"dates": 2}, None),
    ("small", {"layers": 2}, "encoder small of a detector does not read the argument 'layers'; it takes none"),
    ("resnet18", {"output_stride": 16}, "encoder resnet18 of a detector does not read the argument 'output_stride'"),
])
def test_arguments_of_a_detectors_encoder(encoder, arguments, words):
    config = DetectorConfig(encoder=encoder, bands=BANDS[:3] * 2 if "dates" in arguments else BANDS, encoder_args=arguments)
    if words:
        with pytest.raises(UserError, match=words):
            build_detector(config)
        return
    detector = build_detector(config).eval()
    assert detector.network.encoder.channels == (2 * WIDTH,) * 4 and len(detector.predict(torch.rand(1, 6, 64, 64))) == 1
    again = DetectorConfig.from_dict(json.loads(json.dumps(detector.config.to_dict())))
    assert again == config and "encoder_args" not in DetectorConfig().to_dict()


def test_flags_of_a_detectors_encoder_are_those_of_train_py():
    ours, theirs = (parser.build_parser() for parser in (train_detection, train))
    words = ["--encoder-args", "layers=2,5,8,11", "wavelengths=490,", "--lora", "4"]
    assert [getattr(parser.parse_args(words), name) for parser in (ours, theirs) for name in ("encoder_args", "lora")] == [
        ["layers=2,5,8,11", "wavelengths=490,"], 4] * 2
    with pytest.raises(UserError, match="NAME=VALUE"):
        train_detection.main(["--encoder-args", "layers"])
