"""inference.py on an .onnx whose answers are counted by hand, and on files that are not what export.py left."""

import re
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import given
from hypothesis import strategies as st
from map_factory import BANDS, numbers, run
from onnx_factory import SIDE, describe, write_onnx

from exporting import sessions
from exporting.onnx_file import item_beside, weights_beside
from exporting.onnx_reader import load_onnx
from runtime.errors import RunError, UserError

PAGE = Path(__file__).resolve().parent.parent / "docs" / "export.md"


@pytest.fixture
def scene(make_raster):
    return make_raster("scene.tif", numbers(70, 83), descriptions=BANDS)


@pytest.fixture
def maps(tmp_path):
    return tmp_path / "maps"


def read(path):
    with rasterio.open(path) as dataset:
        return dataset.read(1)


@pytest.mark.parametrize("beside", [False, True])
def test_the_map_is_what_the_file_says_of_each_pixel(tmp_path, maps, scene, beside):
    network = write_onnx(tmp_path / "n.onnx", beside=beside)
    assert run(scene, "--checkpoint", network, "--output-dir", maps, "--probabilities", "float32", "--device", "cpu", "--threads", 1) == 0
    first, second, _ = numbers(70, 83).astype(np.float64) / 10_000
    assert np.array_equal(read(maps / "scene_classes.tif"), (second > first).astype(np.uint8))
    expected = 1 / (1 + np.exp(-10 * (second - first)))
    assert np.abs(read(maps / "scene_probability.tif") - expected).max() < 1e-6


def test_a_map_made_with_another_file_is_not_taken_for_this_ones(tmp_path, maps, scene):
    network, other = write_onnx(tmp_path / "n.onnx"), write_onnx(tmp_path / "o.onnx", describe(version="0.0.9"))
    words = ("--output-dir", maps, "--device", "cpu")
    assert run(scene, "--checkpoint", network, *words) == run(scene, "--checkpoint", network, *words) == 0
    with pytest.raises(UserError, match="other settings|--overwrite"):
        run(scene, "--checkpoint", other, *words)


def test_any_window_of_a_file_that_takes_any_and_its_own_of_one_that_does_not(tmp_path, maps, scene):
    free = write_onnx(tmp_path / "free.onnx", describe(window=None, multiple=8))
    run(scene, "--checkpoint", free, "--output-dir", maps, "--device", "cpu", "--window", 40)
    first, second, _ = numbers(70, 83)
    assert np.array_equal(read(maps / "scene_classes.tif"), second > first)
    for network, window, takes in ((free, 44, "multiples of 8"), (write_onnx(tmp_path / "n.onnx"), 40, "32 x 32")):
        with pytest.raises(UserError, match=f"takes windows of {takes} pixels, got {window} x {window}"):
            run(scene, "--checkpoint", network, "--output-dir", maps, "--device", "cpu", "--window", window)


def spoil(path, change):
    content = bytearray(path.read_bytes())
    change(content)
    path.write_bytes(content)


def one_byte(content):
    content[len(content) // 2] ^= 1


@pytest.mark.parametrize(("make", "words"), [
    (lambda p: None, "does not exist"),
    (lambda p: write_onnx(p, facts=False, item=False), "no network of Chipmill"),
    (lambda p: write_onnx(p, facts=False), "no network of Chipmill"),
    (lambda p: p.write_bytes(b"no protobuf at all"), "cannot be run by ONNX Runtime"),
    (lambda p: write_onnx(p, item=False), "lacks its metadata n.json"),
    (lambda p: spoil(write_onnx(p), one_byte), "altered, or belongs to another export"),
    (lambda p: spoil(weights_beside(write_onnx(p, beside=True)), one_byte), "n.onnx.data is not the file"),
    (lambda p: weights_beside(write_onnx(p, beside=True)).unlink(), "needs its weights, n.onnx.data"),
    (lambda p: item_beside(write_onnx(p)).write_text("{}"), "no file:checksum of its model"),
    (lambda p: item_beside(write_onnx(p)).write_text('{"assets": {"model": 3}}'), "no file:checksum"),
    (lambda p: item_beside(write_onnx(p)).write_text("["), "not valid JSON"),
    (lambda p: write_onnx(p, describe(format="chipmill-onnx-9")), "format 'chipmill-onnx-9'"),
    (lambda p: write_onnx(p, describe(kind="poetry")), "is a poetry network"),
    (lambda p: write_onnx(p, {**describe(), "multiple": -1}), "has multiple -1"),
    (lambda p: write_onnx(p, {k: v for k, v in describe().items() if k != "data"}), "lacks 'data'"),
    (lambda p: write_onnx(p, describe(model={"bands": 5, "surprise": 1})), "surprise"),
    (lambda p: write_onnx(p, describe("pansharpen")), "settings that this version does not know: architecture"),
], ids=range(17))
def test_what_export_py_did_not_leave_is_refused_in_one_line(tmp_path, maps, scene, make, words):
    make(tmp_path / "n.onnx")
    with pytest.raises(UserError, match=words) as caught:
        run(scene, "--checkpoint", tmp_path / "n.onnx", "--output-dir", maps, "--device", "cpu")
    assert "\n" not in str(caught.value) and str(tmp_path / "n") in str(caught.value)
    assert not maps.exists()


@pytest.mark.parametrize("flags", [["--precision", "bf16"], ["--compile"], ["--channels-last"], ["--model", "a.py:f"]])
def test_flags_of_pytorch_are_refused(tmp_path, maps, scene, flags):
    with pytest.raises(UserError, match="is for networks in PyTorch"):
        run(scene, "--checkpoint", write_onnx(tmp_path / "n.onnx"), "--output-dir", maps, *flags)


def test_without_onnxruntime_one_line_says_what_to_install(tmp_path, maps, scene, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match="pip install onnxruntime"):
        run(scene, "--checkpoint", write_onnx(tmp_path / "n.onnx"), "--output-dir", maps)


@pytest.mark.parametrize(("device", "available", "expected"), [
    ("cpu", ["CUDAExecutionProvider"], sessions.CPU), ("auto", [], sessions.CPU),
    ("cuda:1", ["CUDAExecutionProvider"], ("CUDAExecutionProvider", {"device_id": 1})),
    ("cuda", ["CUDAExecutionProvider"], ("CUDAExecutionProvider", {"device_id": 3})),
    ("cuda", [], "runs on the CPU alone"), ("mps", ["CUDAExecutionProvider"], "cpu, cuda or cuda:N"),
    ("cuda:x", ["CUDAExecutionProvider"], "cpu, cuda or cuda:N"),
])
def test_the_device_is_a_provider_of_onnx_runtime(monkeypatch, device, available, expected):
    monkeypatch.setattr(sessions.import_runtime(), "get_available_providers", lambda: available)
    if expected in (sessions.CPU,) or isinstance(expected, tuple):
        assert sessions.choose_provider(device, local_rank=3) == expected
    else:
        with pytest.raises(UserError, match=expected):
            sessions.choose_provider(device)


@given(st.integers(1, 20), st.integers(1, 4))
def test_windows_are_run_a_few_at_a_time_and_answers_keep_their_order(pieces_network, count, threads):
    network, seen = pieces_network
    seen.clear()
    x = torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(count))
    with mock.patch("torch.get_num_threads", lambda: threads):
        found = network(x)
    assert seen == [min(2 * threads, count - first) for first in range(0, count, 2 * threads)]
    assert torch.allclose(found[:, 1], 10 * (x[:, 1] - x[:, 0]), atol=1e-5) and not found[:, 0].any()


@pytest.fixture(scope="module")
def pieces_network(tmp_path_factory):
    """(a network of onnx_factory, how many windows each run of its session had)."""
    network, seen = load_onnx(write_onnx(tmp_path_factory.mktemp("pieces") / "n.onnx"), "cpu")["network"], []

    class Session:
        get_providers, get_inputs = network.session.get_providers, network.session.get_inputs

        @staticmethod
        def run(names, feeds, run=network.session.run):
            seen.append(len(feeds["reflectance"]))
            return run(names, feeds)

    network.session = Session
    return network, seen


def test_inputs_that_the_file_does_not_take_are_one_line(tmp_path):
    network = load_onnx(write_onnx(tmp_path / "n.onnx"), "cpu")["network"]
    assert network(torch.zeros(2, 3, SIDE, SIDE)).shape == (2, 2, SIDE, SIDE)
    with pytest.raises(RunError, match="cannot be run on inputs"):
        network(torch.zeros(2, 3, SIDE, SIDE + 1))


def test_the_block_of_the_page_needs_onnxruntime_alone(tmp_path, monkeypatch):
    write_onnx(tmp_path / "best_model.onnx", beside=True)
    monkeypatch.chdir(tmp_path)
    block = re.search(r"## From Python, with onnxruntime alone.*?```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[1]
    assert set(re.findall(r"^(?:import|from) (\w+)", block, re.MULTILINE)) == {"json", "numpy", "onnxruntime"}
    names = {}
    exec(block, names)
    first, second, _ = names["stored"][0]
    assert np.array_equal(names["classes"], second > first)
    assert names["shares"]["fire"] == pytest.approx((second > first).mean()) and 0.4 < names["shares"]["fire"] < 0.6
