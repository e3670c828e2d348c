"""Several checkpoints as one map: their mean, their spread, least and most hectares: pytest tests/test_ensemble.py"""

import json
import shutil

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import given
from hypothesis import strategies as st
from map_factory import BANDS, numbers, run, tiny_model, write_checkpoint

import mapping.scene
from mapping.blending import together
from mapping.ensemble import Range, common_threshold
from mapping.segmentation import predict_array
from raster.area import PixelAreas
from runtime.errors import UserError


@pytest.fixture(scope="module")
def members(tmp_path_factory):
    """Three checkpoints whose networks differ in their weights."""
    folder = tmp_path_factory.mktemp("members")
    return [write_checkpoint(folder / f"{seed}.pt", tiny_model(seed=seed)) for seed in range(3)]


def read(path):
    with rasterio.open(path) as dataset:
        return dataset.read(1)


def record_of(folder):
    return json.loads((folder / "summary.json").read_text())["scenes"][0]


def test_the_map_of_an_ensemble_is_that_of_the_mean_with_spread_and_range(members, tmp_path, make_raster):
    """Against the networks one by one, put together by NumPy."""
    stored = numbers(75, 90)
    stored[:, :5] = 0
    scene, maps = make_raster("s.tif", stored, descriptions=BANDS, nodata=0), tmp_path / "maps"
    run("--checkpoint", *members, scene, "--output-dir", maps, "--device", "cpu", "--probabilities", "float32", "--report", "--stac")
    valid = np.arange(75)[:, None] >= 5 + np.zeros((1, 90))
    how = {"divide_by": 10_000, "window": 32, "device": "cpu"}
    each = np.stack([predict_array(tiny_model(seed=seed), stored, valid, **how)[1][1] for seed in range(3)])
    classes, inside = read(maps / "s_classes.tif"), valid
    clear = inside & (np.abs(each.mean(axis=0) - 0.5) > 1e-5)
    assert (classes[clear] == (each.mean(axis=0) > 0.5)[clear]).all() and (classes[~inside] == 255).all()
    assert np.abs(read(maps / "s_probability.tif") - each.mean(axis=0))[inside].max() < 1e-5
    assert np.abs(read(maps / "s_uncertainty.tif") - each.std(axis=0))[inside].max() < 1e-5
    record = record_of(maps)
    least, most = ((each > 0.5).all(axis=0) & inside).sum() / 100, ((each > 0.5).any(axis=0) & inside).sum() / 100
    assert (record["least_burned_hectares"], record["most_burned_hectares"]) == pytest.approx((least, most), abs=0.02)
    assert 0 < least < record["burned_hectares"] < most
    total = json.loads((maps / "summary.json").read_text())["total"]
    assert total["least_burned_hectares"] == record["least_burned_hectares"]
    assert "most_burned_hectares" in (maps / "summary.csv").read_text()
    page = (maps / "report.html").read_text()
    assert "Where the networks disagree" in page and "any network" in page and "Mean of 3 networks" in page
    assert f"all networks {record['least_burned_hectares']:,.1f}" in page


def test_equal_networks_are_one_network(members, tmp_path, make_raster):
    scene = make_raster("s.tif", numbers(40, 40), descriptions=BANDS)
    for name, paths in (("one", members[:1]), ("three", members[:1] * 3)):
        run(scene, "--checkpoint", *paths, "--output-dir", tmp_path / name, "--device", "cpu")
    assert np.array_equal(read(tmp_path / "one" / "s_classes.tif"), read(tmp_path / "three" / "s_classes.tif"))
    assert not (tmp_path / "one" / "s_uncertainty.tif").exists() and "least_burned_hectares" not in record_of(tmp_path / "one")
    spread, record = read(tmp_path / "three" / "s_uncertainty.tif"), record_of(tmp_path / "three")
    assert spread.max() == 0 and record["least_burned_hectares"] == record["most_burned_hectares"] == record["burned_hectares"]


def test_an_ensemble_killed_after_a_band_ends_with_the_bytes_of_one_made_at_a_stretch(members, tmp_path, make_raster, monkeypatch):
    scene = make_raster("s.tif", numbers(120, 40), descriptions=BANDS)
    words = (scene, "--checkpoint", *members[:2], "--device", "cpu", "--output-dir")
    run(*words, tmp_path / "whole")

    def killed(*args, **kwargs):
        for number, band in enumerate(predict(*args, **kwargs)):
            if number == 2:
                raise KeyboardInterrupt
            yield band

    predict = mapping.scene.predict_bands
    monkeypatch.setattr(mapping.scene, "predict_bands", killed)
    with pytest.raises(KeyboardInterrupt):
        run(*words, tmp_path / "maps")
    monkeypatch.setattr(mapping.scene, "predict_bands", predict)
    with pytest.raises(UserError, match="made with other settings"):
        run(scene, "--checkpoint", members[0], "--device", "cpu", "--output-dir", tmp_path / "maps")
    run(*words, tmp_path / "maps")
    names = {path.name for path in (tmp_path / "whole").iterdir() if path.is_file()}
    assert "s_uncertainty.tif" in names
    for name in names:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "maps" / name).read_bytes(), name


@given(st.integers(2, 4), st.integers(2, 4), st.integers(1, 5), st.booleans(), st.sampled_from([None, 0.3, 0.7]), st.integers(0, 99))
def test_mean_spread_and_votes_are_those_of_the_definition(members, classes, width, each, threshold, seed):
    each, threshold = each and threshold is None, threshold
    apart = torch.rand(members, classes, 3, width, generator=torch.Generator().manual_seed(seed)).softmax(dim=1).double()
    mean, spread, votes = together(apart.reshape(-1, 3, width), members, threshold, each)
    apart = apart.numpy()
    for row in range(3):
        for column in range(width):
            one = apart[:, :, row, column]
            chosen = one.mean(axis=0).argmax()
            values = one[:, chosen] if each else 1 - one[:, 0]
            mapped = one.argmax(axis=1) == chosen if each else one.argmax(axis=1) > 0 if threshold is None else 1 - one[:, 0] >= threshold
            assert mean[:, row, column].numpy() == pytest.approx(one.mean(axis=0))
            assert spread[row, column].item() == pytest.approx(values.std()) and votes[row, column].item() == mapped.sum()


def test_what_any_and_all_map_is_measured_in_the_area_of_each_row():
    span = Range(2, PixelAreas("rows", 2, 3, by_row=np.array([1e4, 2e4])))
    votes = np.array([[0, 1, 2], [2, 2, 1]], np.uint8)
    span.add(0, votes, np.array([[True, True, True], [False, True, True]]))
    assert (span.least, span.most) == (1e4 + 2e4, 2e4 + 4e4)


def test_networks_that_do_not_fit_together_are_refused(members, tmp_path, make_raster):
    scene = make_raster("s.tif", numbers(30, 30), descriptions=BANDS)
    water = write_checkpoint(tmp_path / "water.pt", classes=["land", "water"])
    with pytest.raises(UserError, match="need the same"):
        run(scene, "--checkpoint", members[0], water, "--output-dir", tmp_path / "maps")
    tiles = write_checkpoint(tmp_path / "tiles.pt", kind="classification")
    with pytest.raises(UserError, match="only networks that map classes of pixels"):
        run(scene, "--checkpoint", members[0], tiles, "--output-dir", tmp_path / "maps")
    other = write_checkpoint(tmp_path / "other.pt", divide_by=[255.0] * len(BANDS), offset=[0.0] * len(BANDS))
    words = (scene, "--checkpoint", members[0], other, "--output-dir", tmp_path / "maps", "--threshold", "0.5", "--device", "cpu")
    with pytest.raises(UserError, match="states no scale, and the networks were trained on images of different ones"):
        run(*words)
    run(*words, "--divide-by", "10000")
    assert common_threshold([None, None]) is None and common_threshold([0.2, 0.4]) == pytest.approx(0.3)
    with pytest.raises(UserError, match="pass --threshold"):
        common_threshold([None, 0.3])


def test_folders_of_runs_are_members_wherever_they_stand_and_other_folders_are_scenes(members, tmp_path, make_raster):
    """As files: the run's best epoch. A folder of scenes behind the first checkpoint stays one."""
    scenes = make_raster("scenes/s.tif", numbers(40, 40), descriptions=BANDS).parent
    for number, (place, name) in enumerate((("a/checkpoints", "best_model.pt"), ("b", "best_model.pt"))):
        (tmp_path / place).mkdir(parents=True)
        shutil.copy(members[number], tmp_path / place / name)
    run("--checkpoint", tmp_path / "a", scenes, tmp_path / "b", "--output-dir", tmp_path / "folders", "--device", "cpu")
    run("--checkpoint", *members[:2], scenes, "--output-dir", tmp_path / "files", "--device", "cpu")
    assert np.array_equal(read(tmp_path / "folders" / "s_uncertainty.tif"), read(tmp_path / "files" / "s_uncertainty.tif"))


def test_networks_of_other_patches_map_the_windows_of_the_first_and_it_is_told(members, tmp_path, make_raster, capsys):
    scene = make_raster("s.tif", numbers(30, 30), descriptions=BANDS)
    wide = write_checkpoint(tmp_path / "wide.pt", chip_size=64)
    words = ("--checkpoint", members[0], wide, scene, "--device", "cpu", "--output-dir")
    told = "trained on patches of 32 pixels, 64 pixels; all map windows of 32"
    run(*words, tmp_path / "a")
    assert told in "".join(capsys.readouterr())
    run(*words, tmp_path / "b", "--window", "32")
    assert told not in "".join(capsys.readouterr())
