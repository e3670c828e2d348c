"""Inputs brought to the values of a network's training, and its output brought back: pytest tests/test_matching.py"""

import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import given
from hypothesis import strategies as st
from rasterio.transform import from_origin
from test_fuse import BANDS, network_checkpoint

import inference
from pansharpening.matching import FLAT, UNLIKE, Statistics, match, pair_statistics, statistics_of, training_statistics
from pansharpening.sharpeners import network_sharpener
from raster.pair import match_pair
from runtime.checkpoint import save_checkpoint
from runtime.errors import UserError

NUMBERS = st.lists(st.floats(0.02, 1), min_size=3, max_size=3)


def trained(mean=0.3, std=0.1, target="bands"):
    """A checkpoint whose network was trained on pan and bands of such reflectance."""
    checkpoint = network_checkpoint(target)
    weights = checkpoint["state"]["model"]
    for name in ("pan", "ms"):
        weights[f"{name}_mean"].fill_(mean)
        weights[f"{name}_std"].fill_(std)
    return checkpoint


@pytest.fixture
def pair(make_raster):
    """A pair of 64 x 64 ms pixels around 0.1, a contrast of about 0.04, as numbers x 10 000; its first row is nodata."""
    rng = np.random.default_rng(0)
    fine = (1000 + 400 * np.kron(rng.standard_normal((4, 16, 16)).clip(-2, 2), np.ones((16, 16)))).astype(np.uint16)
    ms, pan = fine[:, ::4, ::4].copy(), fine.mean(axis=0, keepdims=True).astype(np.uint16)
    ms[:, 0], pan[:, :4] = 0, 0
    make_raster("a-pan.tif", pan, crs="EPSG:32633", transform=from_origin(500_000, 4_600_000, 2.5, 2.5), nodata=0)
    path = make_raster("a-ms.tif", ms, crs="EPSG:32633", transform=from_origin(500_000, 4_600_000, 10, 10), nodata=0)
    return match_pair(path.with_name("a-pan.tif"), path)


@given(NUMBERS, NUMBERS, NUMBERS, NUMBERS, st.integers(0, 99))
def test_a_matched_scene_has_the_mean_of_the_training_and_its_contrast_but_in_the_dark(means, stds, its_means, its_stds, seed):
    """Against NumPy on the matched values themselves."""
    rng = np.random.default_rng(seed)
    values = np.array(its_means)[:, None] + np.array(its_stds)[:, None] * rng.standard_normal((3, 500))
    scene, training = statistics_of(values[0], values[1:]), Statistics(np.array(means), np.array(stds))
    found = match(scene, training)
    pan, ms = torch.from_numpy(values[0])[None, None, None], torch.from_numpy(values[1:])[None, :, None]
    ms_in, pan_in = found.inputs(ms, pan)
    matched = np.concatenate([pan_in[0, 0].numpy(), ms_in[0, :, 0].numpy()])
    assert matched.mean(axis=1) == pytest.approx(means, rel=1e-6)
    for band, mean, std in zip(matched, means, stds, strict=True):
        dark = np.quantile(band, 0.01)
        assert dark >= 0.1 * mean - 1e-9 and band.std() <= std * (1 + 1e-6)
        assert band.std() == pytest.approx(std, rel=1e-6) or dark == pytest.approx(0.1 * mean, rel=1e-6)
    assert found.output(ms_in).numpy() == pytest.approx(ms.numpy(), abs=1e-9)
    same = match(scene, Statistics(scene.mean, scene.std)) if (scene.mean > 0).all() else None
    assert same is None or not same.is_foreign


def test_what_is_foreign_is_counted_in_times():
    def found(brightness, contrast):
        training = Statistics(np.full(3, 0.3), np.full(3, 0.1))
        scene = Statistics(training.mean * brightness, training.std * contrast, np.zeros(3))
        return match(scene, training)

    assert not found(UNLIKE * 0.99, 1).is_needed and found(UNLIKE * 1.01, 1).is_needed
    assert found(1 / (UNLIKE * 1.01), 1).is_foreign and found(1, UNLIKE * 1.01).is_needed
    flat = found(1, 1 / (FLAT * 1.01))
    assert flat.is_foreign and not flat.is_needed and found(1, 1 / (FLAT * 0.99)).is_needed


def test_a_checkpoint_says_what_it_was_trained_on_in_its_data_or_its_weights_or_not_at_all():
    own = training_statistics(trained())
    assert own.mean == pytest.approx([0.3] * 5) and own.std == pytest.approx([0.1] * 5)
    assert training_statistics(network_checkpoint()) is None  # no chips were seen: mean 0
    told = network_checkpoint()
    told["data"]["statistics"], told["state"]["model"] = {"pan": [[0.2], [0.1]], "ms": [[0.1, 0.2, 0.3, 0.4], [0.1] * 4]}, {}
    assert list(training_statistics(told).mean) == [0.2, 0.1, 0.2, 0.3, 0.4]
    for wrong in ({"pan": [[0.2], [0.1]], "ms": [[0.1], [0.1]]}, {"pan": 1}, [], {"pan": [[float("nan")], [1]], "ms": [[1] * 4, [1] * 4]}):
        told["data"]["statistics"] = wrong
        assert training_statistics(told) is None


def test_the_statistics_of_a_pair_are_those_of_its_valid_pixels_reduced_as_for_training(pair):
    found = pair_statistics(pair, (10_000.0, 0.0))
    with rasterio.open(pair.ms) as ms, rasterio.open(pair.pan) as pan:
        values = [pan.read(1)[4:].reshape(63, 4, 64, 4).mean((1, 3)), *ms.read()[:, 4:].reshape(4, 15, 4, 16, 4).mean((2, 4))]
    assert found.mean == pytest.approx([v.mean() / 10_000 for v in values], rel=0.05)  # windows overlap
    assert found.std == pytest.approx([v.std() / 10_000 for v in values], rel=0.1)


def run(pair, checkpoint, folder, *words):
    save_checkpoint(folder / "model.pt", checkpoint)
    return inference.main([str(word) for word in ("--checkpoint", folder / "model.pt", "--pan", pair.pan, "--ms", pair.ms, "--divide-by",
                                                  10_000, "--device", "cpu", "--output-dir", folder / "maps", *words)])


def read(folder):
    with rasterio.open(folder / "maps" / "a_sharpened.tif") as file:
        return file.read().astype(float), file.tags()["SHARPENED_WITH"]


def test_a_foreign_pair_is_matched_told_and_the_same_in_blocks_of_any_size(pair, tmp_path, capsys):
    checkpoint = trained(0.3, 0.1)  # the pair has a third of both
    images = []
    for block in (512, 100):
        run(pair, checkpoint, tmp_path, "--overwrite", "--window", block)
        image, name = read(tmp_path)
        images.append(image)
        assert name.endswith(", matched, back-projected")
    assert "0.33 times as bright as the training" in capsys.readouterr().err
    assert all(np.abs(other - images[0]).max() <= 1 for other in images[1:])
    run(pair, checkpoint, tmp_path)
    assert "is sharpened already" in capsys.readouterr().err
    with pytest.raises(UserError, match="exists already"):
        run(pair, checkpoint, tmp_path, "--match-inputs", "no")
    run(pair, checkpoint, tmp_path, "--match-inputs", "no", "--overwrite")
    plain, name = read(tmp_path)
    assert "matched" not in name and np.abs(plain - images[0]).max() > 1
    run(pair, trained(0.1, 0.04), tmp_path, "--overwrite")  # of the pair's own kind
    assert "matched" not in read(tmp_path)[1]
    run(pair, trained(0.1, 0.04), tmp_path, "--overwrite", "--match-inputs", "yes")
    assert "matched" in read(tmp_path)[1]


def test_a_network_without_what_it_was_trained_on_takes_values_as_they_are_and_says_so(pair, tmp_path, capsys):
    run(pair, network_checkpoint(), tmp_path)
    assert "does not say which values it was trained on" in capsys.readouterr().err and "matched" not in read(tmp_path)[1]
    with pytest.raises(UserError, match="does not say which values"):
        run(pair, network_checkpoint(), tmp_path, "--match-inputs", "yes")
    with pytest.raises(UserError, match="makes pictures"):
        run(pair, trained(target="oklab"), tmp_path, "--match-inputs", "yes")
    with pytest.raises(UserError, match="--match-inputs is for networks"):
        inference.main(["--method", "gsa", "--pan", str(pair.pan), "--ms", str(pair.ms), "--match-inputs", "yes"])


def test_a_scene_and_its_contrast_stretched_are_sharpened_alike():
    """What matching is for: with twice the gain and another offset the same image comes out, with twice the gain and that offset."""
    checkpoint, rng = trained(0.3, 0.02), torch.Generator().manual_seed(0)
    pan, ms = 0.1 + 0.05 * torch.rand(1, 1, 64, 64, generator=rng), 0.1 + 0.05 * torch.rand(1, len(BANDS), 16, 16, generator=rng)
    images = []
    for gain, offset in ((1, 0), (2, 0.05)):
        a, b = gain * ms + offset, gain * pan + offset
        found = match(statistics_of(b.flatten().numpy(), a[0].flatten(1).numpy()), training_statistics(checkpoint))
        images.append((network_sharpener(checkpoint, matching=found).run(a, b) - offset) / gain)
    assert torch.allclose(*images, atol=1e-4)


def test_a_pair_that_cannot_be_read_does_not_stop_the_others(pair, tmp_path, capsys):
    folder = Path(pair.ms).parent
    for name in ("pan", "ms"):
        shutil.copy(folder / f"a-{name}.tif", folder / f"b-{name}.tif")
    with open(folder / "b-pan.tif", "r+b") as file:
        file.truncate((folder / "b-pan.tif").stat().st_size - 8000)
    save_checkpoint(tmp_path / "model.pt", trained(0.3, 0.1))
    words = ["--checkpoint", tmp_path / "model.pt", "--pan", folder / "*-pan.tif", "--ms", folder / "*-ms.tif",
             "--divide-by", 10_000, "--device", "cpu", "--output-dir", tmp_path / "maps"]
    assert inference.main([str(word) for word in words]) == 1
    assert "sharpened 1 of 2" in "".join(capsys.readouterr())
    assert (tmp_path / "maps" / "a_sharpened.tif").exists() and not (tmp_path / "maps" / "b_sharpened.tif").exists()
