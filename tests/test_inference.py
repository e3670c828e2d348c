"""From a checkpoint and a scene to maps, polygons and numbers: pytest tests/test_inference.py"""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
import torch
from map_factory import BANDS, data, numbers, run, tiny_model, write_checkpoint
from PIL import Image
from rasterio.crs import CRS
from rasterio.features import rasterize
from rasterio.transform import Affine, from_origin
from rasterio.warp import transform

import mapping.scene
import mapping.summary
from mapping.inputs import plan_input
from mapping.reading import read_slabs
from mapping.segmentation import predict_array
from raster.source import describe
from runtime.errors import UserError

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def maps(tmp_path):
    return tmp_path / "maps"


def read(path):
    with rasterio.open(path) as dataset:
        return dataset.read(1)


def summary(maps):
    return json.loads((maps / "summary.json").read_text())


def test_the_map_is_what_the_network_says_about_the_array(checkpoint, maps, make_raster):
    stored = numbers(75, 90)
    scene = make_raster("scene.tif", stored, descriptions=BANDS)
    assert run(scene, "--checkpoint", checkpoint, "--output-dir", maps, "--probabilities", "float32", "--device", "cpu") == 0
    classes, probabilities = predict_array(tiny_model(), stored, divide_by=10_000, window=32, device="cpu")
    assert np.array_equal(read(maps / "scene_classes.tif"), classes)
    assert np.abs(read(maps / "scene_probability.tif") - probabilities[1]).max() < 1e-6
    assert 0.05 < (classes == 1).mean() < 0.95  # or the test would show nothing


def test_a_scene_becomes_files_that_fit_together(checkpoint, maps, make_raster):
    scene = make_raster("scene.tif", numbers(300, 200), descriptions=BANDS)
    run(scene, "--checkpoint", checkpoint, "--output-dir", maps, "--probabilities", "--min-area", 0, "--device", "cpu")
    assert sorted(p.name for p in maps.iterdir() if p.name[0] != ".") == [
        "scene_burned.geojson", "scene_classes.qml", "scene_classes.tif", "scene_preview.png", "scene_probability.tif", "summary.csv",
        "summary.json",
    ]
    with rasterio.open(scene) as source, rasterio.open(maps / "scene_classes.tif") as classes:
        assert (classes.crs, classes.transform, classes.shape) == (source.crs, source.transform, source.shape)
        assert classes.dtypes == ("uint8",) and classes.nodata == 255 and classes.descriptions == ("class",)
        assert classes.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert classes.colormap(1)[1] == (230, 74, 25, 255)
        assert json.loads(classes.tags(1)["CLASS_NAMES"]) == {"0": "background", "1": "fire"}
        pixels = classes.read(1)
    with rasterio.open(maps / "scene_probability.tif") as probability:
        assert probability.dtypes == ("uint8",) and probability.nodata == 255 and probability.scales == (1 / 254,)
        share = probability.read(1)
        assert share[pixels == 1].min() >= 127 and share[pixels == 0].max() <= 127  # 127 / 254 is a half
    (record,) = summary(maps)["scenes"]
    burned = int((pixels == 1).sum())
    assert record["classes"]["fire"] == {"pixels": burned, "hectares": burned / 100}  # 10 m pixels are a hundredth of a hectare
    assert record["fire_fraction"] == burned / pixels.size and record["has_fire"] and record["valid_fraction"] == 1
    features = json.loads((maps / "scene_burned.geojson").read_text())["features"]
    assert sum(f["properties"]["area_ha"] for f in features) == pytest.approx(burned / 100)
    assert len(features) == record["polygons"]
    assert Image.open(maps / "scene_preview.png").size[1] >= 200
    (row,) = csv.DictReader((maps / "summary.csv").open())
    assert row["scene"] == "scene" and float(row["hectares_fire"]) == burned / 100


def test_the_same_run_gives_the_same_bytes_and_the_batch_size_changes_nothing_that_counts(checkpoint, tmp_path, make_raster):
    scene = make_raster("scene.tif", numbers(100, 120), descriptions=BANDS)
    for name, batch in (("a", 8), ("b", 8), ("c", 3)):
        run(scene, "--checkpoint", checkpoint, "--output-dir", tmp_path / name, "--batch-size", batch, "--device", "cpu")
    for file in ("scene_classes.tif", "scene_burned.geojson", "scene_preview.png", "scene_classes.qml", "summary.json", "summary.csv"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert (read(tmp_path / "a" / "scene_classes.tif") != read(tmp_path / "c" / "scene_classes.tif")).mean() < 1e-3


def test_nodata_of_any_kind_has_no_class(checkpoint, maps, make_raster):
    stored = numbers(60, 60).astype(np.float32)
    stored[:, :20, :20] = -9999
    stored[1, 30:35, 30:35] = np.nan
    stored[2, 50, 50] = np.inf
    scene = make_raster("scene.tif", stored, descriptions=BANDS, nodata=-9999)
    run(scene, "--checkpoint", checkpoint, "--output-dir", maps, "--device", "cpu")
    empty = np.zeros((60, 60), dtype=bool)
    empty[:20, :20] = empty[30:35, 30:35] = empty[50, 50] = True
    assert np.array_equal(read(maps / "scene_classes.tif") == 255, empty)
    assert summary(maps)["scenes"][0]["valid_fraction"] == 1 - empty.mean()


@pytest.mark.parametrize("kind", ["alpha", "mask"])
def test_what_an_alpha_band_or_a_mask_hides_has_no_class(checkpoint, maps, make_raster, kind):
    """The three bands have no names: the alpha band is none of them."""
    stored, shown = numbers(60, 60), np.full((60, 60), 255, dtype=np.uint8)
    shown[:20, :30] = 0
    if kind == "alpha":
        scene = make_raster("scene.tif", np.concatenate([stored, shown[None]]), photometric="RGB", alpha="YES")
    else:
        scene = make_raster("scene.tif", stored)
        with rasterio.open(scene, "r+") as dataset:
            dataset.write_mask(shown)
    run(scene, "--checkpoint", checkpoint, "--output-dir", maps, "--device", "cpu")
    assert np.array_equal(read(maps / "scene_classes.tif") == 255, shown == 0)


def test_a_mask_that_changed_makes_another_map(checkpoint, maps, make_raster):
    scene, flags = make_raster("scene.tif", numbers(60, 60)), ("--checkpoint", checkpoint, "--output-dir", maps, "--device", "cpu")
    for hidden in (3, 5):
        shown = np.full((60, 60), 255, np.uint8)
        shown[:hidden] = 0
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(scene, "r+") as dataset:
            dataset.write_mask(shown)
        os.utime(f"{scene}.msk", (hidden, hidden))
        if hidden == 5:
            with pytest.raises(UserError, match="made with other settings .*scene.mask_mtime: 3.0 → 5.0"):
                run(scene, *flags)
        run(scene, *flags, "--overwrite")
        assert (read(maps / "scene_classes.tif") == 255).all(axis=1).sum() == hidden


def test_digital_numbers_with_and_without_offset_and_reflectance_give_one_map(checkpoint, tmp_path, make_raster):
    """The same ground as Sentinel-2 before and after baseline 04.00, as floats, and with GDAL's scale in the tags."""
    stored = numbers(64, 64)
    forms = {
        "before": (make_raster("before.tif", stored, descriptions=BANDS), []),
        "after": (make_raster("after.tif", stored + 1000, descriptions=BANDS), ["--divide-by", "10000", "--offset", "-1000"]),
        "tags": (make_raster("tags.tif", stored + 1000, descriptions=BANDS, scales=[1e-4] * 3, offsets=[-0.1] * 3), []),
        "float": (make_raster("float.tif", stored / np.float32(10_000), descriptions=BANDS), ["--divide-by", "1"]),
    }
    found = {}
    for name, (scene, flags) in forms.items():
        run(scene, "--checkpoint", checkpoint, "--output-dir", tmp_path / "maps", "--device", "cpu", *flags)
        found[name] = read(tmp_path / "maps" / f"{name}_classes.tif")
    for name in ("after", "tags", "float"):
        assert (found[name] != found["before"]).mean() < 2e-3, name


@pytest.mark.parametrize(
    ("names", "flags"),
    [
        (["B12", "B08", "B04"], []),
        (["swir22", "nir", "red"], []),
        ([None, None, None], ["--bands", "3,2,1"]),
        (["x", "y", "z"], ["--bands", "z,y,x"]),
    ],
)
def test_bands_are_found_by_name_or_as_told(checkpoint, maps, make_raster, names, flags):
    stored = numbers(40, 40)
    run(make_raster("a.tif", stored, descriptions=BANDS), "--checkpoint", checkpoint, "--output-dir", maps, "--device", "cpu")
    descriptions = names if names[0] else None
    scene = make_raster("b.tif", stored[::-1], descriptions=descriptions)
    run(scene, "--checkpoint", checkpoint, "--output-dir", maps, "--device", "cpu", *flags)
    assert np.array_equal(read(maps / "a_classes.tif"), read(maps / "b_classes.tif"))


def test_only_the_area_of_interest_is_mapped(checkpoint, tmp_path, maps, make_raster):
    scene = make_raster("scene.tif", numbers(100, 100), descriptions=BANDS)
    west, north = 500_000, 4_600_000
    x, y = [west + 200, west + 600, west + 600, west + 200, west + 200], [north - 300, north - 300, north - 800, north - 800, north - 300]
    lon, lat = transform("EPSG:32633", "EPSG:4326", x, y)
    area = tmp_path / "area.geojson"
    area.write_text(json.dumps({"type": "Polygon", "coordinates": [list(zip(lon, lat, strict=True))]}))
    run(scene, "--checkpoint", checkpoint, "--output-dir", maps, "--aoi", area, "--device", "cpu")
    wanted = np.zeros((100, 100), dtype=bool)
    wanted[30:80, 20:60] = True
    assert np.array_equal(read(maps / "scene_classes.tif") != 255, wanted)


def test_a_threshold_burns_more_or_less(checkpoint, tmp_path, make_raster):
    scene = make_raster("scene.tif", numbers(64, 64), descriptions=BANDS)
    burned = []
    for threshold in (0.0, 0.3, 0.7, 1.0):
        run(scene, "--checkpoint", checkpoint, "--output-dir", tmp_path / str(threshold), "--threshold", threshold, "--device", "cpu")
        burned.append((read(tmp_path / str(threshold) / "scene_classes.tif") == 1).mean())
    assert burned[0] == 1 and burned == sorted(burned, reverse=True) and burned[3] < burned[1]


def test_the_threshold_of_the_checkpoint_is_the_default(tmp_path, maps, make_raster):
    checkpoint = write_checkpoint(tmp_path / "t.pt", threshold=0.3)
    scene = make_raster("scene.tif", numbers(64, 64), descriptions=BANDS)
    run(scene, "--checkpoint", checkpoint, "--output-dir", maps, "--device", "cpu")
    run(scene, "--checkpoint", checkpoint, "--output-dir", tmp_path / "same", "--threshold", 0.3, "--device", "cpu")
    assert (maps / "scene_classes.tif").read_bytes() == (tmp_path / "same" / "scene_classes.tif").read_bytes()


def test_severity_has_five_classes_in_map_and_summary(tmp_path, maps, make_raster):
    checkpoint = write_checkpoint(tmp_path / "five.pt", tiny_model(5))
    run(make_raster("scene.tif", numbers(64, 64), descriptions=BANDS), "--checkpoint", checkpoint, "--output-dir", maps, "--device", "cpu")
    found = read(maps / "scene_classes.tif")
    assert len(np.unique(found)) >= 3
    classes = summary(maps)["scenes"][0]["classes"]
    assert [classes[f"class_{i}"]["pixels"] for i in range(5)] == np.bincount(found.ravel(), minlength=5).tolist()


@pytest.mark.parametrize("flags", [["--tta"], ["--precision", "bf16"], ["--channels-last"], ["--overlap", "0"], ["--window", "64"]])
def test_every_way_to_run_gives_nearly_the_same_map(checkpoint, tmp_path, make_raster, flags):
    scene = make_raster("scene.tif", numbers(80, 80), descriptions=BANDS)
    run(scene, "--checkpoint", checkpoint, "--output-dir", tmp_path / "plain", "--device", "cpu")
    run(scene, "--checkpoint", checkpoint, "--output-dir", tmp_path / "other", "--device", "cpu", *flags)
    same = read(tmp_path / "plain" / "scene_classes.tif") == read(tmp_path / "other" / "scene_classes.tif")
    assert same.mean() > (0.6 if flags == ["--tta"] else 0.9)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 70), (70, 1), (31, 33)])
def test_scenes_smaller_than_a_window_are_mapped_whole(checkpoint, maps, make_raster, height, width):
    scene = make_raster("s.tif", numbers(height, width), descriptions=BANDS)
    run(scene, "--checkpoint", checkpoint, "--output-dir", maps, "--device", "cpu")
    found = read(maps / "s_classes.tif")
    assert found.shape == (height, width) and (found != 255).all()


@pytest.mark.parametrize(("height", "width", "times"), [(30, 40, 13), (300, 320, 2), (20, 512, 1)])
def test_previews_of_small_scenes_are_large_enough_to_see(checkpoint, maps, make_raster, height, width, times):
    scene = make_raster("s.tif", numbers(height, width), descriptions=BANDS)
    run(scene, "--checkpoint", checkpoint, "--output-dir", maps, "--device", "cpu")
    # A line with title and legend, then burn colours and the map over them, below each other in a wide scene, with a line between them.
    assert Image.open(maps / "s_preview.png").size == (width * times, 24 + 2 * height * times + 6)


def test_a_preview_tells_sensor_date_and_what_its_colours_mean(checkpoint, tmp_path, make_raster):
    tags = {"SATELLITEID": "Sentinel-2B", "ACQUISITION_DATE": "2022-02-05T10:12:11Z"}
    pictures = []
    for name, said in (("a", tags), ("b", None)):
        scene = make_raster(f"{name}/s.tif", numbers(60, 50), descriptions=BANDS, tags=said)
        run(scene, "--checkpoint", checkpoint, "--output-dir", tmp_path / f"maps-{name}", "--device", "cpu")
        pictures.append(np.asarray(Image.open(tmp_path / f"maps-{name}" / "s_preview.png").convert("RGB")))
    told, silent = (picture[:24] for picture in pictures)
    assert told.shape == silent.shape and (told != silent).any() and (pictures[0][24:] == pictures[1][24:]).all()
    assert all((head == (230, 74, 25)).all(axis=2).sum() >= 100 for head in (told, silent))  # the swatch of what burned
    bar = pictures[0][-12:-8, :450]  # 100 of the scene's 500 metres are the largest round length below a third of its 50 · 9 pixels
    assert (bar == (250, 250, 248)).all(axis=2).sum(axis=1).tolist() == [90] * 4


@pytest.mark.parametrize(
    "layout", [{"tiled": True, "blockxsize": 64, "blockysize": 64}, {"blockysize": 1}, {"interleave": "band"}, {"blockysize": 200}]
)
def test_the_layout_of_the_file_does_not_matter(checkpoint, tmp_path, make_raster, layout):
    stored = numbers(200, 150)
    run(make_raster("scene.tif", stored, descriptions=BANDS), "--checkpoint", checkpoint, "--output-dir", tmp_path / "a", "--device", "cpu")
    scene = make_raster("other/scene.tif", stored, descriptions=BANDS, compress="deflate", **layout)
    run(scene, "--checkpoint", checkpoint, "--output-dir", tmp_path / "b", "--device", "cpu")
    assert np.array_equal(read(tmp_path / "a" / "scene_classes.tif"), read(tmp_path / "b" / "scene_classes.tif"))


def test_degrees_rotation_and_feet_have_right_hectares(checkpoint, maps, make_raster):
    """Against pixel corners in an equal-area projection."""
    places = {
        "degrees": ("EPSG:4326", from_origin(-118.5, 34.1, 2e-4, 2e-4)),
        "turned": ("EPSG:4326", Affine.translation(15, 40) * Affine.rotation(30) * Affine.scale(2e-4, -2e-4)),
        "feet": ("EPSG:2225", from_origin(6e6, 2e6, 60, 60)),
        "mercator": ("EPSG:3857", from_origin(1e6, 8e6, 30, 30)),
    }
    for name, (crs, place) in places.items():
        run(make_raster(f"{name}.tif", numbers(70, 60), descriptions=BANDS, crs=crs, transform=place),
            "--checkpoint", checkpoint, "--output-dir", maps, "--device", "cpu", "--min-area", 0)
        burned = read(maps / f"{name}_classes.tif") == 1
        lon, lat = transform(crs, "EPSG:4326", *[[v] for v in place * (30, 35)])
        local = CRS.from_proj4(f"+proj=laea +lat_0={lat[0]} +lon_0={lon[0]} +datum=WGS84")
        total = 0.0
        for row, column in zip(*np.nonzero(burned), strict=True):
            corners = [place * (column + i, row + j) for i, j in ((0, 0), (1, 0), (1, 1), (0, 1))]
            total += abs(shoelace(*transform(crs, local, *zip(*corners, strict=True))))
        record = next(r for r in summary(maps)["scenes"] if r["scene"] == name)
        assert record["burned_hectares"] == pytest.approx(total / 1e4, rel=1e-3)
        outlines = json.loads((maps / f"{name}_burned.geojson").read_text())["features"]
        assert sum(f["properties"]["area_ha"] for f in outlines) == pytest.approx(record["burned_hectares"], rel=1e-3)


def shoelace(x, y):
    return sum(x[i - 1] * y[i] - x[i] * y[i - 1] for i in range(len(x))) / 2


def test_the_scenes_of_the_test_split_are_mapped_when_none_is_given(tmp_path, maps, make_raster):
    lines = [
        {"split": split, "source": {"path": str(make_raster(f"{name}.tif", numbers(40, 40), descriptions=BANDS))}}
        for split, name in (("train", "a"), ("test", "b"), ("test", "c"), ("test", "c"))
    ]
    (tmp_path / "patches").mkdir()
    (tmp_path / "patches" / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    checkpoint = write_checkpoint(tmp_path / "c.pt", patches_dir=str(tmp_path / "patches"))
    assert run("--checkpoint", checkpoint, "--output-dir", maps, "--device", "cpu") == 0
    assert [r["scene"] for r in summary(maps)["scenes"]] == ["b", "c"]


def test_the_summary_grows_with_the_folder_and_a_finished_scene_is_not_done_again(checkpoint, maps, make_raster, capsys):
    first, second = (make_raster(f"{n}.tif", numbers(40, 40, i), descriptions=BANDS) for i, n in enumerate("ab"))
    run(first, "--checkpoint", checkpoint, "--output-dir", maps, "--device", "cpu")
    stamp = (maps / "a_classes.tif").stat().st_mtime_ns
    assert run(first, second, "--checkpoint", checkpoint, "--output-dir", maps, "--device", "cpu") == 0
    assert (maps / "a_classes.tif").stat().st_mtime_ns == stamp
    assert "a is mapped already" in capsys.readouterr().err
    found = summary(maps)
    assert [r["scene"] for r in found["scenes"]] == ["a", "b"]
    assert found["total"]["burned_hectares"] == pytest.approx(sum(r["burned_hectares"] for r in found["scenes"]))


def test_a_dry_run_says_what_it_would_do_and_writes_nothing(checkpoint, maps, make_raster, capsys):
    scene = make_raster("scene.tif", numbers(100, 100), descriptions=BANDS)
    assert run(scene, "--checkpoint", checkpoint, "--output-dir", maps, "--dry-run", "--device", "cpu") == 0
    said = capsys.readouterr().out
    assert "16 windows of 32" in said and "1 of 1 scenes would be mapped" in said  # starts 0, 24, 48, 68
    assert not maps.exists()


@pytest.mark.slow
def test_two_processes_share_the_scenes_and_agree_on_the_summary(checkpoint, tmp_path, make_raster):
    scenes = [make_raster(f"{n}.tif", numbers(40, 40, i), descriptions=BANDS) for i, n in enumerate("abc")]
    broken = tmp_path / "broken.tif"
    broken.write_bytes(b"not a raster")
    alone, two = tmp_path / "alone", tmp_path / "two"
    assert run(*scenes, "--checkpoint", checkpoint, "--output-dir", alone, "--device", "cpu") == 0
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "inference.py"]
    words = [*scenes, broken, "--checkpoint", checkpoint, "--output-dir", two, "--device", "cpu"]
    answer = subprocess.run([*command, *map(str, words)], cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode != 0 and "mapped 3 of 4" in answer.stdout and "failed: broken" in answer.stdout, answer.stderr
    for file in sorted(p.name for p in alone.iterdir() if p.is_file()):
        assert (two / file).read_bytes() == (alone / file).read_bytes(), file


def test_the_lines_for_notebooks_give_the_map_of_the_program(tmp_path, maps, make_raster, monkeypatch):
    """The blocks of docs/maps.md as written, on a scene and on its reflectance."""
    page = (ROOT / "docs" / "maps.md").read_text(encoding="utf-8")
    blocks = [part.split("```")[0] for part in page.split("```python\n")[1:]]
    monkeypatch.setattr("sys.path", sys.path[:])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "output" / "checkpoints").mkdir(parents=True)
    checkpoint = write_checkpoint(tmp_path / "output" / "checkpoints" / "final_model.pt", threshold=0.7)
    stored = numbers(75, 90)
    run(make_raster("scene.tif", stored, descriptions=BANDS), "--checkpoint", checkpoint, "--output-dir", maps, "--device", "cpu")
    names = {"reflectance": (stored / 10_000).astype(np.float32)}
    for lines in blocks:
        exec(lines, names)
    assert np.array_equal(names["classes"], read(maps / "scene_classes.tif")) and len(blocks) == 2
    assert np.array_equal(names["scene"].classes, names["classes"]) and "/home/me/chipmill" in sys.path


def test_arrays_are_mapped_without_any_file():
    stored = numbers(50, 45)
    classes, probabilities = predict_array(tiny_model(), stored, divide_by=10_000, window=32, device="cpu")
    assert classes.shape == (50, 45) and probabilities.shape == (2, 50, 45)
    assert np.allclose(probabilities.sum(axis=0), 1, atol=1e-5)
    with pytest.raises(UserError, match="shape"):
        predict_array(tiny_model(), stored[0], device="cpu")
    with pytest.raises(UserError, match="num_classes"):
        predict_array(torch.nn.Conv2d(3, 2, 1), stored, device="cpu")


@pytest.mark.slow
def test_compiled_networks_give_the_same_map(checkpoint, tmp_path, make_raster):
    scene = make_raster("scene.tif", numbers(80, 80), descriptions=BANDS)
    run(scene, "--checkpoint", checkpoint, "--output-dir", tmp_path / "plain", "--device", "cpu")
    run(scene, "--checkpoint", checkpoint, "--output-dir", tmp_path / "other", "--device", "cpu", "--compile")
    same = read(tmp_path / "plain" / "scene_classes.tif") == read(tmp_path / "other" / "scene_classes.tif")
    assert same.mean() > 0.99


@pytest.mark.parametrize("corner", [(30, 20), (60, 0)])
def test_a_map_of_an_area_is_that_part_of_the_map_of_the_scene(checkpoint, tmp_path, make_raster, corner):
    """The network sees what lies around the area: its outline is no edge of the country."""
    scene = make_raster("scene.tif", numbers(300, 300), descriptions=BANDS)
    top, left = corner
    x, y = [[origin + sign * 10 * (at + side) for side in sides] for origin, sign, at, sides in (
        (500_000, 1, left, (0, 40, 40, 0, 0)), (4_600_000, -1, top, (0, 0, 50, 50, 0)))]
    lon, lat = transform("EPSG:32633", "EPSG:4326", x, y)
    area = tmp_path / "area.geojson"
    area.write_text(json.dumps({"type": "Polygon", "coordinates": [list(zip(lon, lat, strict=True))]}))
    flags = ("--checkpoint", checkpoint, "--device", "cpu", "--probabilities", "float32")
    run(scene, *flags, "--output-dir", tmp_path / "whole")
    run(scene, *flags, "--output-dir", tmp_path / "part", "--aoi", area)
    whole, part = (read(tmp_path / name / "scene_probability.tif") for name in ("whole", "part"))
    wanted = np.zeros((300, 300), dtype=bool)
    wanted[top : top + 50, left : left + 40] = True
    assert np.array_equal(np.isfinite(part), wanted)
    assert np.abs(part[wanted] - whole[wanted]).max() < 1e-5


def test_the_reflectance_of_a_scene_is_told_beside_that_of_the_training(checkpoint, maps, make_raster, capsys):
    stored = np.full((3, 40, 40), 1000, np.uint16)
    stored[0, :10], stored[1, 5, 5], stored[2] = 200, 4000, 0
    stored[2, 0, 0] = 1
    scene = make_raster("scene.tif", stored, descriptions=BANDS)
    run(scene, "--checkpoint", checkpoint, "--output-dir", maps, "--device", "cpu")
    said = [line.split() for line in capsys.readouterr().err.splitlines()]
    start = said.index(["reflectance", "least", "median", "most", "training"])
    assert said[start + 1 : start + 4] == [
        ["B04", "0.0200", "0.1000", "0.1000", "0.1000"], ["B08", "0.1000", "0.1000", "0.4000", "0.2500"],
        ["B12", "0.0000", "0.0000", "0.0001", "0.1500"],
    ]


def test_a_map_made_again_has_no_files_of_the_old_one_beside_it(checkpoint, tmp_path, maps, make_raster):
    scene = make_raster("scene.tif", numbers(64, 64), descriptions=BANDS)
    run(scene, "--checkpoint", checkpoint, "--output-dir", maps, "--probabilities", "--device", "cpu")
    other = write_checkpoint(tmp_path / "other.pt", tiny_model(seed=3))
    run(scene, "--checkpoint", other, "--output-dir", maps, "--overwrite", "--device", "cpu")
    assert not (maps / "scene_probability.tif").exists() and (maps / "scene_classes.tif").exists()


def test_files_of_the_old_map_go_even_when_the_run_that_began_to_replace_it_was_killed(checkpoint, maps, make_raster, monkeypatch):
    scene, flags = make_raster("scene.tif", numbers(64, 64), descriptions=BANDS), ("--checkpoint", checkpoint, "--device", "cpu")
    run(scene, *flags, "--output-dir", maps, "--probabilities")

    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(mapping.scene, "predict_into", killed)
        with pytest.raises(KeyboardInterrupt):
            run(scene, *flags, "--output-dir", maps, "--probabilities", "--threshold", 0.7, "--overwrite")
    mapping.summary.update_summaries(maps)  # as another process may that maps another scene
    assert summary(maps)["scenes"] == []
    run(scene, *flags, "--output-dir", maps, "--threshold", 0.3, "--overwrite")
    assert not (maps / "scene_probability.tif").exists() and (maps / "scene_classes.tif").exists()


def test_polygons_of_an_old_map_go_when_the_new_one_can_have_none(checkpoint, maps, make_raster):
    flags = ("--checkpoint", checkpoint, "--device", "cpu", "--output-dir", maps)
    run(make_raster("scene.tif", numbers(64, 64), descriptions=BANDS), *flags)
    assert (maps / "scene_burned.geojson").exists()
    scene = make_raster("scene.tif", numbers(64, 64), descriptions=BANDS, crs=None)
    run(scene, *flags, "--overwrite")
    assert not (maps / "scene_burned.geojson").exists()
    assert run(scene, *flags) == 0  # and it is mapped already


def outlines(path):
    """([Polygon], [properties], CRS) of a file of outlines."""
    meta, _, shapes, columns = pyogrio.raw.read(path)
    rows = [dict(zip(meta["fields"], row, strict=True)) for row in zip(*(c.tolist() for c in columns), strict=True)]
    return shapely.from_wkb(shapes), rows, meta["crs"]


def test_a_geopackage_has_the_features_of_the_geojson_in_the_scenes_crs(checkpoint, tmp_path, make_raster):
    scene = make_raster("scene.tif", numbers(150, 120), descriptions=BANDS, crs="EPSG:32719")
    flags = (scene, "--checkpoint", checkpoint, "--min-area", 0.05, "--device", "cpu", "--output-dir")
    run(*flags, tmp_path / "geojson")
    run(*flags, tmp_path / "gpkg", "--vectors", "gpkg")
    of_geojson, of_gpkg = ({p.name for p in (tmp_path / kind).glob("scene*")} for kind in ("geojson", "gpkg"))
    assert of_geojson - of_gpkg == {"scene_burned.geojson"} and of_gpkg - of_geojson == {"scene_burned.gpkg"}
    for name in of_gpkg & of_geojson | {"summary.csv"}:
        assert (tmp_path / "gpkg" / name).read_bytes() == (tmp_path / "geojson" / name).read_bytes(), name
    shapes, properties, crs = outlines(tmp_path / "gpkg" / "scene_burned.gpkg")
    features = json.loads((tmp_path / "geojson" / "scene_burned.geojson").read_text())["features"]
    assert crs == "EPSG:32719" and len(shapes) == len(features) == summary(tmp_path / "gpkg")["scenes"][0]["polygons"] > 5
    assert [{k: v for k, v in row.items() if k != "continues"} for row in properties] == [f["properties"] for f in features]
    assert [shape.area / 1e4 for shape in shapes] == pytest.approx([row["area_ha"] for row in properties], rel=2e-3)  # UTM's own scale
    with rasterio.open(tmp_path / "gpkg" / "scene_classes.tif") as classes:
        pixels, place = classes.read(1), classes.transform
    burned = rasterize([(shape, 1) for shape in shapes], out_shape=pixels.shape, transform=place)
    small = (pixels == 1) & (burned == 0)  # what --min-area leaves out
    assert (pixels[burned == 1] == 1).all() and 0 < small.sum() < 0.03 * burned.sum()


@pytest.mark.parametrize(("kind", "other"), [("gpkg", "geojson"), ("geojson", "gpkg")])
def test_outlines_in_another_format_replace_the_old_ones_only_with_overwrite(checkpoint, maps, make_raster, kind, other):
    scene = make_raster("scene.tif", numbers(64, 64), descriptions=BANDS)
    flags = (scene, "--checkpoint", checkpoint, "--output-dir", maps, "--device", "cpu", "--vectors")
    run(*flags, kind)
    with pytest.raises(UserError, match=r"made with other settings \(vectors: "):
        run(*flags, other)
    assert (maps / f"scene_burned.{kind}").exists() and not (maps / f"scene_burned.{other}").exists()
    run(*flags, other, "--overwrite")
    assert not (maps / f"scene_burned.{kind}").exists() and (maps / f"scene_burned.{other}").exists()
    changed = (maps / f"scene_burned.{other}").stat().st_mtime_ns
    assert run(*flags, other) == 0 and (maps / f"scene_burned.{other}").stat().st_mtime_ns == changed  # mapped already


def test_a_scene_with_a_pole_inside_has_outlines_as_a_geopackage_alone(checkpoint, tmp_path, make_raster):
    scene = make_raster("scene.tif", numbers(64, 64), descriptions=BANDS, crs="EPSG:3413", transform=from_origin(-320, 320, 10, 10))
    flags = (scene, "--checkpoint", checkpoint, "--device", "cpu", "--min-area", 0, "--output-dir")
    for kind in ("geojson", "gpkg"):
        run(*flags, tmp_path / kind, "--vectors", kind)
    (record,) = summary(tmp_path / "geojson")["scenes"]
    assert record["remarks"] == ["a pole is inside: no polygons"] and not (tmp_path / "geojson" / "scene_burned.geojson").exists()
    (record,) = summary(tmp_path / "gpkg")["scenes"]
    shapes, properties, crs = outlines(tmp_path / "gpkg" / "scene_burned.gpkg")
    assert (record["remarks"], crs, len(shapes)) == ([], "EPSG:3413", record["polygons"])
    assert sum(row["area_ha"] for row in properties) == pytest.approx(record["burned_hectares"], abs=1e-3 * len(shapes))


def test_each_slab_knows_the_area_that_its_windows_see(make_raster):
    """Against one look at the whole area; windows reach over several slabs, and slabs begin anywhere."""
    path = make_raster("scene.tif", numbers(1000, 300), descriptions=BANDS, tiled=True, blockxsize=64, blockysize=64)
    plan, area = plan_input(describe(path), data()), np.zeros((1000, 300), dtype=bool)
    area[420:500, 70:90] = True
    asked = []

    def aoi(row, height):
        asked.append((row, height))
        return area[row : row + height]

    for margin, start in ((0, 0), (64, 0), (200, 0), (200, 384)):
        asked.clear()
        for slab in read_slabs(plan, aoi, start, margin=margin):
            rows = slice(slab.row, slab.row + slab.pixels.shape[1])
            assert np.array_equal(slab.wanted, area[rows])
            near = area[max(0, rows.start - margin) : rows.stop + margin].any()
            assert slab.valid.any() == near
        first = max(0, start - margin) // 128 * 128
        assert asked == [(row, min(128, 1000 - row)) for row in range(first, 1000, 128)]  # whole slabs, each once, wherever it begins


def test_bands_of_different_types_are_mapped_like_bands_of_one(checkpoint, tmp_path, make_raster):
    stored = numbers(60, 60)
    one, mixed = make_raster("one.tif", stored.astype(np.float32), descriptions=BANDS), tmp_path / "mixed.vrt"
    parts = [make_raster(f"b{i}.tif", stored[i], dtype=kind) for i, kind in enumerate(("uint16", "float32", "uint16"))]
    bands = "".join(
        f'<VRTRasterBand dataType="{kind}" band="{i + 1}"><Description>{BANDS[i]}</Description><SimpleSource>'
        f'<SourceFilename>{parts[i]}</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>'
        for i, kind in enumerate(("UInt16", "Float32", "UInt16"))
    )
    mixed.write_text(f'<VRTDataset rasterXSize="60" rasterYSize="60"><SRS>EPSG:32633</SRS><GeoTransform>500000,10,0,4600000,0,-10'
                     f"</GeoTransform>{bands}</VRTDataset>")
    run(one, mixed, "--checkpoint", checkpoint, "--output-dir", tmp_path / "maps", "--device", "cpu")
    assert np.array_equal(read(tmp_path / "maps" / "one_classes.tif"), read(tmp_path / "maps" / "mixed_classes.tif"))
