"""export.py: real networks to ONNX and back, compared through inference.py: pytest tests/test_export.py"""

import collections
import dataclasses
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import rasterio
import torch
from map_factory import BANDS, MEAN, STD, numbers, run, tiny_model, write_checkpoint
from onnx import load as load_graph
from onnx_factory import write_onnx
from PIL import Image
from rasterio.transform import from_origin
from safetensors.torch import load_file

import export
from detection.detectors import Detector, DetectorConfig
from detection.small_detectors import SmallConfig, SmallDetector
from exporting import to_onnx
from exporting.exportable import exportable_of
from exporting.onnx_reader import load_onnx
from exporting.parity import LARGEST, Parity, compare_dense, compare_ranked
from exporting.sessions import begin_session
from exporting.tensors import load_tensors_folder
from model import assemble, create_segmentation_model
from nets.model_config import ModelConfig, Neck
from pansharpening.network import Pansharpener, PansharpenerConfig, architecture_reach
from runtime.checkpoint import load_checkpoint, save_checkpoint
from runtime.errors import RunError, UserError

ROOT = Path(__file__).resolve().parent.parent
OTHER = {"classes": ["background", "fire"], "chip_size": 32, "divide_by": [10_000.0] * 3, "offset": [0.0] * 3}


def as_trained(network, seed=0):
    """Statistics and weights of batch normalisation as after a training: those of a new network hide what an exporter loses."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part in network.modules():
            if isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
                part.running_mean.normal_(0, 0.3, generator=generator)
                part.running_var.uniform_(0.5, 2.0, generator=generator)
                if part.affine:
                    part.weight.uniform_(0.5, 1.5, generator=generator)
                    part.bias.normal_(0, 0.3, generator=generator)
    return network.eval()


def undecided(model, reflectance=None):
    """The model, with a last layer that finds both classes in reflectance (bands, H, W), by default that of scenes of numbers()."""
    reflectance = numbers(64, 64) / 10_000 if reflectance is None else reflectance
    x = torch.from_numpy(reflectance.astype(np.float32))[None]
    with torch.no_grad():
        last = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)][-1]
        last.bias.sub_(model(x).flatten(2).median(dim=2).values[0])
    return model


def save(path, kind, network, **data):
    config = network.config
    model = config.to_dict() if hasattr(config, "to_dict") else {**vars(config), "bands": list(config.bands)}
    save_checkpoint(path, {"kind": kind, "model": model, "settings": {}, "state": {"model": network.state_dict()}, "data": {
        "bands": list(config.bands) if hasattr(config, "bands") else None, "nodata": None, "ground_resolution": 10.0, "threshold": None,
        **OTHER, **data}})
    return path


def exported(path, *words):
    """The .onnx of a checkpoint, beside it."""
    onnx = path.with_suffix(".onnx")
    assert export.main([str(path), "--onnx", str(onnx), "--quiet", *map(str, words)]) == 0
    return onnx


def read(path):
    with rasterio.open(path) as dataset:
        return dataset.read()


# ---------------------------------------------------------------------------------------------------------------- without exporting


@hypothesis.given(st.integers(1, 3), st.integers(2, 4), st.integers(0, 2**16), st.sampled_from([0.0, 0.3, 3.0]))
def test_parity_is_in_proportion_to_the_largest_logit(batch, classes, seed, factor):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 300, (batch, classes, 5, 6)).astype(np.float32)
    other = logits.copy()
    other.flat[rng.integers(logits.size)] += factor * LARGEST * np.abs(logits).max()
    parity = compare_dense([logits], [other], classes=True)
    assert parity.holds == (factor < 1) and parity.of == batch * 30
    assert parity.differing == (logits.argmax(1) != other.argmax(1)).sum()


def test_nan_and_other_shapes_hold_nothing():
    ones = np.ones((1, 2, 3, 3), np.float32)
    assert not compare_dense([ones], [ones * np.nan]).holds and not (Parity() + compare_dense([ones], [ones * np.nan])).holds
    assert not compare_dense([ones], [ones[:, :1]]).holds and (Parity() + compare_dense([ones], [ones])).holds


def test_boxes_of_equal_scores_may_change_places_and_no_others():
    boxes = np.array([[[0, 0, 4, 4], [1, 1, 5, 5], [2, 2, 6, 6], [3, 3, 7, 7]]], np.float32)
    labels = np.array([[1, 2, 1, 2]])
    close, apart = np.array([[0.9, 0.5, 0.5, 0.1]], np.float32), np.array([[0.9, 0.6, 0.5, 0.1]], np.float32)
    swapped = [0, 2, 1, 3]
    assert compare_ranked((boxes, close, labels), (boxes[:, swapped], close, labels[:, swapped]), (8, 8)) == Parity(0.0, 0, 1)
    wrong = compare_ranked((boxes, apart, labels), (boxes[:, swapped], apart, labels[:, swapped]), (8, 8))
    assert not wrong.holds and (wrong.differing, wrong.of) == (2, 3)


def test_another_label_and_another_sole_box_hold_nothing():
    boxes, scores = np.array([[[0, 0, 4, 4], [1, 1, 5, 5]]], np.float32), np.array([[0.9, 0.1]], np.float32)
    labels = np.array([[1, 2]])
    assert compare_ranked((boxes, scores, labels), (boxes, scores, labels), (8, 8)).holds
    assert not compare_ranked((boxes, scores, labels), (boxes, scores, labels + 1), (8, 8)).holds
    one = boxes[:, :1], scores[:, :1], labels[:, :1]
    assert compare_ranked(one, one, (8, 8)).holds
    assert not compare_ranked(one, (one[0] + 1, *one[1:]), (8, 8)).holds and not compare_ranked(one, (*one[:2], one[2] + 1), (8, 8)).holds


@pytest.mark.parametrize(("words", "text"), [
    ([], "nothing to write"), (["--onnx", "a.pb"], "ends with .onnx"), (["--onnx", "a.onnx", "--any-size", "--window", "64"], "contradict"),
    (["--safetensors", "a", "--any-size"], "are for --onnx"), (["--onnx", "a.onnx", "--model", "nothing.py:f"], "cannot be read"),
    (["--onnx", "a.onnx", "--max-detections", "9"], "is for detectors"),
])
def test_flags_that_make_no_sense_are_one_line(checkpoint, words, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=text):
        export.main([str(checkpoint), *words])
    assert list(tmp_path.iterdir()) == []


def test_without_the_extra_one_line_says_what_to_install(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UserError, match="needs onnxscript, which is not installed; pip install onnx onnxscript onnxruntime"):
        export.main([str(checkpoint), "--onnx", str(tmp_path / "a.onnx")])
    assert list(tmp_path.iterdir()) == []


def test_safetensors_and_config_are_the_checkpoint_for_inference(checkpoint, tmp_path, make_raster):
    assert export.main([str(checkpoint), "--safetensors", str(tmp_path / "out")]) == 0
    weights, config = load_file(tmp_path / "out/model.safetensors"), json.loads((tmp_path / "out/config.json").read_text())
    expected = load_checkpoint(checkpoint)
    assert weights.keys() == expected["state"]["model"].keys() and config["kind"] == "segmentation"
    assert all(torch.equal(weights[name], tensor) for name, tensor in expected["state"]["model"].items())
    assert config["data"]["bands"] == BANDS and "patches_dir" not in config["data"]
    scene = make_raster("scene.tif", numbers(40, 50), descriptions=BANDS)
    for path, name in ((checkpoint, "a"), (tmp_path / "out/model.safetensors", "b")):
        run(scene, "--checkpoint", path, "--output-dir", tmp_path / name, "--device", "cpu")
    assert np.array_equal(read(tmp_path / "a/scene_classes.tif"), read(tmp_path / "b/scene_classes.tif"))
    with pytest.raises(UserError, match="exists already"):
        export.main([str(checkpoint), "--safetensors", str(tmp_path / "out")])


def test_files_of_something_else_are_not_replaced(checkpoint, tmp_path):
    (tmp_path / "config.json").write_text('{"settings": {}}')
    for words in (["--onnx", str(tmp_path / "config.onnx")], ["--safetensors", str(tmp_path)]):
        with pytest.raises(UserError, match="another name|another folder"):
            export.main([str(checkpoint), *words, "--overwrite", "--quiet"])
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("config.json", '{"settings": {}}')]


@pytest.mark.parametrize(("spoil", "text"), [
    (lambda f: (f / "config.json").unlink(), "does not exist"),
    (lambda f: (f / "config.json").write_text('{"format": "x"}'), "lacks 'kind'"),
    (lambda f: (f / "model.safetensors").write_bytes(b"\x08" + b"\0" * 30), "cannot be read as safetensors"),
    (lambda f: (f / "model.safetensors").unlink(), "expected a model.safetensors"),
])
def test_damaged_safetensors_are_one_line(checkpoint, tmp_path, spoil, text):
    export.main([str(checkpoint), "--safetensors", str(tmp_path), "--quiet"])
    spoil(tmp_path)
    with pytest.raises(UserError, match=text):
        load_tensors_folder(tmp_path / "model.safetensors")


def test_networks_that_would_be_wrong_at_other_sizes_are_refused(tmp_path):
    vit = assemble(ModelConfig(encoder="tu-vit_tiny_patch16_224", encoder_args={"depth": 1}, decoder="linear", necks=(
        Neck("tokens-to-maps"),), image_size=(32, 32)), BANDS)
    upernet = assemble(ModelConfig(encoder="small", decoder="upernet"), BANDS)
    scalar = create_segmentation_model(3, architecture="smallunet", bands=BANDS, task="classification")
    for network, kind, text in ((vit, "segmentation", "transformer"), (upernet, "segmentation", "pools into grids"),
                                (scalar, "classification", "whole windows")):
        checkpoint = load_checkpoint(save(tmp_path / "last.pt", kind, network, classes=["a", "b", "c"][: network.config.num_classes]))
        with pytest.raises(UserError, match=f"--any-size: .*{text}"):
            exportable_of(checkpoint, free=True)


def test_adapters_leave_as_plain_layers(tmp_path):
    config = ModelConfig(encoder="tu-vit_tiny_patch16_224", encoder_args={"depth": 1}, decoder="linear", necks=(Neck("tokens-to-maps"),),
                         image_size=(32, 32), lora=3)
    model = with_trained_adapters(assemble(config, BANDS)).eval()
    exportable = exportable_of(load_checkpoint(save(tmp_path / "last.pt", "segmentation", model)))
    assert not [name for name in exportable.weights if "lora" in name] and "lora" not in json.dumps(exportable.facts)
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected, (found,) = model(x), exportable.module(x)
        plain = assemble(dataclasses.replace(config, lora=0), BANDS).eval()
        plain.load_state_dict({name: tensor for name, tensor in model.state_dict().items() if "lora" not in name})
        assert (found - expected).abs().max() <= 1e-5 * expected.abs().max() < (plain(x) - expected).abs().max()


def test_torchvisions_detectors_say_why_not(tmp_path):
    model = {**DetectorConfig(framework="fcos").to_dict()}
    checkpoint = {"kind": "detection", "model": model, "state": {"model": {}}, "data": {"chip_size": [64, 64]}, "path": "last.pt"}
    with pytest.raises(UserError, match="fcos is one of torchvision's detectors.*--framework centre"):
        exportable_of(checkpoint)


# -------------------------------------------------------------------------------------------------------------- real networks, through both


def unet():
    return create_segmentation_model(2, "resnet18", "unet", bands=BANDS, encoder_weights=None, mean=MEAN, std=STD, indices=("ndvi", "nbr"))


def contrast():
    return create_segmentation_model(2, architecture="contrastunet", bands=BANDS, encoder_weights=None, indices=("pairs",))


def deeplab():
    return create_segmentation_model(2, "resnet18", "deeplabv3plus", bands=BANDS, encoder_weights=None, mean=MEAN, std=STD)


def transformer():
    config = ModelConfig(encoder="tu-vit_tiny_patch16_224", encoder_args={"depth": 4}, decoder="upernet", decoder_args={"channels": 32},
                         necks=(Neck("tokens-to-maps"), Neck("pyramid")), image_size=(48, 48), lora=2)
    return with_trained_adapters(assemble(config, BANDS, mean=MEAN, std=STD))


def with_trained_adapters(model):
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(0, 0.1)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("make", [unet, contrast, deeplab, transformer])
def test_the_map_of_the_onnx_is_that_of_the_checkpoint(tmp_path, make_raster, make):
    torch.manual_seed(0)
    path = save(tmp_path / "best_model.pt", "segmentation", undecided(as_trained(make())), chip_size=48)
    onnx = exported(path)
    if make is transformer:  # its linear layers are one product each; queries by keys and shares by values are the others
        count = collections.Counter(node.op_type for node in load_graph(onnx).graph.node)
        assert count["MatMul"] == 2 * 4 and count["Gemm"] >= 4 * 4
    require_the_same_maps(path, onnx, make_raster("scene.tif", numbers(130, 110), descriptions=BANDS), tmp_path)


def require_the_same_maps(path, onnx, scene, folder, *words):
    maps = []
    for source in (path, onnx):
        out = folder / source.suffix
        run(scene, "--checkpoint", source, "--output-dir", out, "--device", "cpu", "--probabilities", "float32", "--batch-size", 5, *words)
        maps.append([read(out / f"{scene.stem}_{name}.tif")[0] for name in ("classes", "probability")])
    (classes, probability), (other_classes, other_probability) = maps
    assert 0.05 < (classes == 1).mean() < 0.95  # or the test would show nothing
    assert (classes != other_classes).mean() <= 1e-4 and np.abs(probability - other_probability).max() < 1e-4


@pytest.mark.nightly
@pytest.mark.parametrize("make", [unet, contrast, deeplab, transformer])
def test_the_map_of_a_real_fire_is_that_of_the_checkpoint(tmp_path, real_data, make):
    scene, divide_by = real_data / "wildfire" / "post_fire" / "DOVE_20241019.tif", [255.0, 10_000.0, 10_000.0]
    with rasterio.open(scene) as dataset:
        reflectance = dataset.read([1, 4, 5], window=((80, 128), (80, 128))) / np.reshape(divide_by, (3, 1, 1))
    torch.manual_seed(0)
    network = undecided(as_trained(make()), reflectance)
    path = save(tmp_path / "best_model.pt", "segmentation", network, chip_size=48, divide_by=divide_by)
    require_the_same_maps(path, exported(path), scene, tmp_path, "--bands", "1,4,5", "--accept-scale")


@pytest.mark.slow
def test_sharpening_is_within_one_step_of_uint16(tmp_path, make_raster):
    torch.manual_seed(0)
    network = Pansharpener(PansharpenerConfig(bands=tuple(BANDS), width=16, depth=1))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, 0.1)
    reach = architecture_reach(network.config)
    path = save(tmp_path / "n.pt", "pansharpen", network, ratio=4, target="bands", reach=reach, divide_by=10_000.0, offset=0.0)
    onnx, coarse = exported(path), numbers(50, 70)
    fine = np.kron(coarse.mean(axis=0), np.ones((4, 4))) + np.random.default_rng(1).integers(-200, 200, (200, 280))
    make_raster("MS.tif", coarse, descriptions=BANDS, transform=from_origin(500_000, 4_600_000, 8, 8))
    make_raster("PAN.tif", fine.clip(1).astype(np.uint16), transform=from_origin(500_000, 4_600_000, 2, 2))
    found = []
    for source in (path, onnx):
        run("--checkpoint", source, "--pan", tmp_path / "PAN.tif", "--ms", tmp_path / "MS.tif", "--output-dir", tmp_path / source.suffix,
            "--divide-by", "10000", "-b", 128, "--device", "cpu")
        found.append(read(next((tmp_path / source.suffix).glob("*_sharpened.tif"))).astype(int))
    assert found[0].shape == (3, 200, 280) and found[0].std() > 100
    assert np.abs(found[0] - found[1]).max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("stride", [4, 2])
def test_centre_finds_the_same_boxes_and_no_more_than_it_was_exported_for(tmp_path, make_raster, stride):
    torch.manual_seed(0)
    detector = as_trained(Detector(DetectorConfig(bands=("red", "green", "blue"), classes=("a", "b"), stride=stride)))
    with torch.no_grad():
        detector.network.heat[-1].weight.mul_(30)
        detector.network.box[-1].weight.normal_(0, 0.05)
        logits, _ = detector.network(detector.input_step(torch.rand(1, 3, 48, 64)))
        detector.network.heat[-1].bias.sub_(logits.mean(dim=(0, 2, 3)))  # both classes are found
    path = save(tmp_path / "n.pt", "detection", detector, chip_size=[64, 48], overlap=16, divide_by=[255.0] * 3, classes=["a", "b"],
                max_detections=40, iou_threshold=0.5)
    onnx, found = exported(path), []
    image = np.random.default_rng(0).integers(0, 255, (3, 90, 120)).astype(np.uint8)
    scene = make_raster("image.tif", image, descriptions=["red", "green", "blue"])
    for source in (path, onnx):
        run(scene, "--checkpoint", source, "--output-dir", tmp_path / source.suffix, "--score-threshold", 0.2, "--device", "cpu")
        found.append(json.loads((tmp_path / source.suffix / "results.json").read_text()))
    assert len(found[0]) == len(found[1]) > 10 and {one["category_id"] for one in found[0]} == {1, 2}
    for one, other in zip(*found, strict=True):
        assert one["category_id"] == other["category_id"] and one["score"] == pytest.approx(other["score"], abs=1e-3)
        assert one["bbox"] == pytest.approx(other["bbox"], abs=0.02)
    with pytest.raises(UserError, match="was exported for 40"):
        run(scene, "--checkpoint", onnx, "--output-dir", tmp_path / "more", "--max-detections", 41, "--device", "cpu")


@pytest.mark.nightly
@pytest.mark.parametrize("model", ["tiny", "big"])
def test_small_detectors_find_the_same_boxes_in_frames(tmp_path, model):
    torch.manual_seed(0)
    config = SmallConfig(model=model, max_boxes=6, target_size=(96, 64), classes=("a", "b"))
    detector = as_trained(SmallDetector(config))
    with torch.no_grad():
        detector.score[-1].weight.mul_(30)
    path = save(tmp_path / "n.pt", "small-detection", detector, target_size=[96, 64], classes=["a", "b"])
    onnx, found = exported(path), []
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 255, (70 + 9 * number, 100, 3)).astype(np.uint8)
        (tmp_path / "frames").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "frames" / f"{number}.png")
    for source in (path, onnx):
        folder = tmp_path / source.suffix
        run(tmp_path / "frames", "--checkpoint", source, "--output-dir", folder, "--score-threshold", 0, "--device", "cpu")
        found.append([box for name in range(3) for box in
                      json.loads((folder / f"{name}_boxes.json").read_text())["boxes"]])
    assert len(found[0]) == len(found[1]) >= 3
    for one, other in zip(*found, strict=True):
        assert one["class"] == other["class"] and one["bbox_px"] == pytest.approx(other["bbox_px"], abs=0.02)


@pytest.mark.nightly
@pytest.mark.parametrize(("task", "outputs"), [("regression", 1), ("multilabel", 3)])
def test_other_tasks_answer_the_same(tmp_path, make_raster, task, outputs):
    torch.manual_seed(0)
    network = as_trained(create_segmentation_model(outputs, architecture="smallunet", bands=BANDS, mean=MEAN, std=STD, task=task,
                                                   target=(50.0, 20.0)))
    path = save(tmp_path / "n.pt", task, network, classes=["a", "b", "c"][:outputs])
    onnx, scene = exported(path), make_raster("scene.tif", numbers(70, 83), descriptions=BANDS)
    for source in (path, onnx):
        run(scene, "--checkpoint", source, "--output-dir", tmp_path / source.suffix, "--device", "cpu")
    if task == "regression":
        one, other = (read(tmp_path / suffix / "scene_values.tif") for suffix in (".pt", ".onnx"))
        assert one.std() > 0.1 and np.abs(one - other).max() <= 1e-4 * np.abs(one).max()
    else:
        one, other = (json.loads((tmp_path / suffix / "scene_tiles.geojson").read_text())["features"] for suffix in (".pt", ".onnx"))
        assert len(one) == len(other) > 5 and [f["properties"].keys() for f in one] == [f["properties"].keys() for f in other]


@pytest.mark.slow
def test_any_size_is_right_at_sizes_that_were_not_tried_and_weights_may_lie_beside(tmp_path, monkeypatch):
    monkeypatch.setattr(to_onnx, "ONE_FILE", 100_000)
    model = as_trained(tiny_model())
    onnx = exported(write_checkpoint(tmp_path / "n.pt", model), "--any-size")
    beside = tmp_path / "n.onnx.data"
    assert beside.stat().st_size > 1_000_000 > onnx.stat().st_size and sorted(p.name for p in tmp_path.iterdir()) == [
        "n.json", "n.onnx", "n.onnx.data", "n.pt"]
    assert json.loads((tmp_path / "n.json").read_text())["assets"]["weights"]["file:size"] == beside.stat().st_size
    loaded = load_onnx(onnx, "cpu")
    assert loaded["window"] is None and loaded["multiple"] == 8
    for size in ((8, 16), (88, 24), (136, 200)):
        x = torch.rand(2, 3, *size)
        with torch.no_grad():
            expected = model(x)
        assert (loaded["network"](x) - expected).abs().max() <= LARGEST * expected.abs().max()


class OneConvolution(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv2d(3, 2, 1)

    def forward(self, *inputs):
        return (self.layer(*inputs),)


@pytest.mark.parametrize("overwrite", [pytest.param(False, marks=pytest.mark.nightly), pytest.param(True, marks=pytest.mark.slow)])
def test_a_network_whose_export_is_wrong_leaves_no_file_and_an_older_one_as_it_is(checkpoint, tmp_path, monkeypatch, overwrite):
    module = OneConvolution()
    exportable = dataclasses.replace(exportable_of(load_checkpoint(checkpoint)), module=module)
    before = {}
    if overwrite:
        write_onnx(tmp_path / "n.onnx")
        before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    monkeypatch.setattr(to_onnx, "begin_session", lambda path: (module.layer.bias.data.add_(1e-3), begin_session(path))[1])
    with pytest.raises(RunError, match="gives other answers .*--safetensors"):
        to_onnx.write_onnx(exportable, tmp_path / "n.onnx", overwrite)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


@pytest.mark.nightly
def test_grids_pooled_from_one_size_are_noticed_by_comparing_where_no_name_refuses_them(tmp_path, monkeypatch):
    monkeypatch.setattr("exporting.exportable.refuse_free", lambda *_: None)
    path = save(tmp_path / "n.pt", "segmentation", as_trained(assemble(ModelConfig(encoder="small", decoder="upernet", decoder_args={
        "channels": 16}), BANDS)), chip_size=64)
    with pytest.raises(RunError, match="gives other answers|cannot be exported|cannot be run"):
        exported(path, "--any-size")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["n.pt"]


@pytest.mark.parametrize(("number", "wait"), [
    pytest.param(signal.SIGTERM, 0.5, marks=pytest.mark.slow),
    *(pytest.param(number, wait, marks=pytest.mark.nightly) for wait in (0, 1, 2, 3, 4) for number in (signal.SIGTERM, signal.SIGKILL))])
def test_a_kill_leaves_an_older_file_whole_and_at_most_a_folder_that_the_next_run_clears(checkpoint, tmp_path, number, wait):
    onnx = write_onnx(tmp_path / "n.onnx")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    words = [sys.executable, str(ROOT / "export.py"), str(checkpoint), "--onnx", str(onnx), "--quiet", "--overwrite"]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (tmp_path / ".n.onnx.part").is_dir():
        time.sleep(0.02)
    time.sleep(wait)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    there = {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}
    assert there.keys() == before.keys() and load_onnx(onnx, "cpu")["window"] == (32, 32)
    if there == before:  # else it was faster than the signal, and the new files are whole
        assert process.returncode == (143 if number == signal.SIGTERM else -9)
        assert (tmp_path / ".n.onnx.part").exists() == (number == signal.SIGKILL)
        if number == signal.SIGTERM:
            assert errors.count("\n") == 1 and "stopped by SIGTERM. No file was left half written" in errors
    assert wait > 1 or there == before
