"""
Samples of several dates: grouped, cut and mapped as a raster that was stacked by hand; dates and places of patches and windows.

Run: pytest tests/test_dates.py
"""

import datetime
import json
import os
import shutil
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
import rasterio.warp
import torch
from map_factory import run, tiny_model, write_checkpoint
from product_factory import CRS, S2_NAME, make_safe, write_raster
from test_foundation import BANDS, random_prithvi, reference, saved, small_rows  # noqa: F401  (a fixture)

import chip
import export
import train
from chipping.patch_set import read_patch_set
from constants import last_date
from dataset import PatchDataset
from mapping.coordinates import scene_coordinates
from mapping.inputs import describe_for, plan_of_header
from mapping.predict_file import predict_file
from model import FireSegmentationModel, SegmentationConfig, assemble, model_from_checkpoint
from nets.model_config import ModelConfig
from nets.user_model import load_user_model
from raster.dated import DatedRasters, match_stack, undated
from raster.places import dated_scenes
from raster.products import list_scenes
from raster.scale import Scale, scale_from_tags
from raster.source import describe, open_raster
from runtime.checkpoint import load_checkpoint, save_checkpoint
from runtime.errors import UserError
from runtime.files import read_json, read_lines
from runtime.values import number_and_dates, number_or_dates

ROOT = Path(__file__).resolve().parent.parent
DAYS = ("20240101", "20240311", "20240611")
TWO = ("B04", "B8A")


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write_series(name="lake", days=DAYS, shape=(2, 70, 90), seed=0, dtype=np.uint16, nodata=0, bands=("B02", "B03"), **how):
    """images/NAME_DAY.tif of each day; (days, C, H, W), some of them nodata."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(1, 5000, (len(days), *shape)).astype(dtype)
    for number, day in enumerate(days):
        pixels[number, :, 3 * number : 3 * number + 2, :20] = 0
        path = write_raster(f"images/{name}_{day}.tif", pixels[number], 10, nodata=nodata, **how)
        name_bands(path, bands)
    return pixels


def name_bands(path, names):
    with rasterio.open(path, "r+") as file:
        file.descriptions = names


def write_stack(path, pixels, names, nodata=0, **how):
    """A raster as a person stacks it: all bands of the first date, then of the second …"""
    path = write_raster(path, pixels.reshape(-1, *pixels.shape[-2:]), 10, nodata=nodata, **how)
    name_bands(path, names)
    return path


def write_mask(path, shape=(70, 90), seed=9):
    return write_raster(path, np.random.default_rng(seed).integers(0, 2, shape).astype(np.uint8), 10)


def cut(*words, folder="patches", size=32):
    chip.main(["make-patches", *map(str, words), "--patches-dir", str(folder), "--patch-size", str(size), "--divide-by", "10000"])
    return read_lines(f"{folder}/manifest.jsonl")


def arrays(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(Path(folder).rglob("*.npy"))}


# --------------------------------------------------------------------------------------------------- which scenes


@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(
    st.dictionaries(st.sampled_from(("lake", "lake_a", "north_lake", "x-1")),
                    st.sets(st.integers(0, 900), min_size=3, max_size=5), min_size=1, max_size=3),
    st.integers(1, 3), st.sampled_from(("{place}_{day:%Y%m%d}", "{day:%Y-%m-%d}_{place}", "S2_{day:%Y%m%dT%H%M%S}_{place}_v1")),
    st.randoms())
def test_samples_are_the_last_dates_of_each_place_in_order(places, count, form, random):
    start, names, wanted = datetime.datetime(2021, 1, 1, 10, 11, 12), [], {}
    for place, offsets in places.items():
        days = [start + datetime.timedelta(days=number) for number in sorted(offsets)]
        named = [form.format(place=place, day=day) for day in days]
        names += named
        wanted[named[-1]] = [f"{name}.tif" for name in named[-count:]], [str(day.date()) for day in days[-count:]]
    random.shuffle(names)
    found = dated_scenes({name: f"{name}.tif" for name in names}, count)
    assert {name: (list(scene.members), list(scene.days)) for name, scene in found.items()} == wanted
    second = {name: f"{name}.tif" for name in names}
    ends = [sorted(name for name in names if name.replace("lake", "") and name in second)[0]]
    if count == 1:
        assert list(dated_scenes(second, 1, ends)) == ends


def test_labels_of_earlier_dates_end_samples_of_their_own_and_too_early_ones_are_told():
    names = [f"lake_{day}" for day in ("20240101", "20240102", "20240103", "20240104")]
    said = []
    found = dated_scenes({name: f"{name}.tif" for name in names}, 2, [names[0], names[1], names[3]], said.append)
    assert {name: scene.days for name, scene in found.items()} == {
        names[1]: ("2024-01-01", "2024-01-02"), names[3]: ("2024-01-03", "2024-01-04")}
    assert said == ["no sample ends with lake_20240101: fewer than 1 date of its place before it"]


@pytest.mark.parametrize(("names", "count", "words"), [
    (("lake_20240101", "lake_20240611"), 3, r"lake_\* has 2 dates \(2024-01-01, 2024-06-11\), expected 3"),
    (("lake_20240101", "lake_20240101T101010"), 2, "are both of .* on 2024-01-01; leave one of them out"),
    (("lake_a", "lake_b"), 2, "lake_a.tif cannot be opened, and its name has no date"),
])
def test_what_makes_no_sample_is_refused_in_a_line(names, count, words):
    with pytest.raises(UserError, match=words) as caught:
        dated_scenes({name: f"{name}.tif" for name in names}, count)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 180


def test_a_date_may_be_in_the_tags_and_then_the_name_is_the_place():
    write_raster("images/lake.tif", np.ones((1, 8, 8), np.uint8), 10, tags={"ACQUISITION_DATE": "2024-01-01"})
    write_raster("images/lake_20240611.tif", np.ones((1, 8, 8), np.uint8), 10)
    with pytest.raises(UserError, match="lake has 1 date"):  # another name, another place: nothing is guessed
        dated_scenes({name: f"images/{name}.tif" for name in ("lake", "lake_20240611")}, 2)
    write_raster("images/plain.tif", np.ones((1, 8, 8), np.uint8), 10)
    with pytest.raises(UserError, match="neither metadata, tags nor name of images/plain.tif"):
        dated_scenes({"plain": "images/plain.tif"}, 1)


def test_the_flag_takes_a_number_days_or_both():
    days = (datetime.date(2022, 6, 1), None)
    assert number_and_dates([number_or_dates(word) for word in ("2022-06-01/..", "3")]) == (3, days)
    assert number_and_dates(None) == (None, None) and number_and_dates([number_or_dates("12")]) == (12, None)
    for words in (("2", "3"), ("2022-06-01", "2022-06-02")):
        with pytest.raises(ValueError, match="a number of dates, days, or one of each"):
            number_and_dates([number_or_dates(word) for word in words])
    assert last_date(["1_B02", "1_B03", "2_B02", "2_B03"]) == 2
    assert last_date(["20240101_B02", "20250101_B02"]) == last_date(["0_B3", "1_B3"]) == last_date(["B2", "B3"]) == last_date([]) == 0


# --------------------------------------------------------------------------------------------------- patches


@hypothesis.settings(max_examples=4, deadline=None)
@hypothesis.given(st.integers(34, 70), st.integers(34, 80), st.sampled_from((np.uint16, np.float32)), st.integers(2, 3), st.integers(0, 99))
def test_patches_of_dates_have_the_bytes_of_a_raster_stacked_by_hand(height, width, dtype, count, seed):
    for path in Path().rglob("*.*"):
        path.unlink() if path.is_file() else None
    days = DAYS[-count:]
    pixels = write_series(days=days, shape=(2, height, width), seed=seed, dtype=dtype)
    names = [f"{day}_{band}" for day in days for band in ("B02", "B03")]
    write_stack(f"stacked/lake_{days[-1]}.tif", pixels, names)
    write_mask(f"masks/lake_{days[-1]}.tif", (height, width), seed)
    lines = cut("--images", "images", "--masks", "masks", "--dates", count, "--overwrite")
    other = cut("--images", "stacked", "--masks", "masks", "--overwrite", folder="by-hand")
    assert arrays("patches") == arrays("by-hand") and lines
    same = ("file", "window", "valid_fraction", "class_pixels", "band_sum", "band_sum_squares", "footprint", "dtype")
    assert [[line[key] for key in same] for line in lines] == [[line[key] for key in same] for line in other]
    assert read_json("patches/chipset.json")["bands"] == [f"{n}_{band}" for n in range(1, count + 1) for band in ("B02", "B03")]
    assert all(line["dates"] == [f"{day[:4]}-{day[4:6]}-{day[6:]}" for day in days] and "dates" not in one
               for line, one in zip(lines, other, strict=True))
    col, row, wide, high = lines[-1]["window"]
    (lon,), (lat,) = rasterio.warp.transform(CRS, "EPSG:4326", [600_000 + 10 * (col + wide / 2)], [4_900_020 - 10 * (row + high / 2)])
    assert lines[-1]["place"] == pytest.approx([lon, lat], abs=1e-6)
    assert len(lines[-1]["source"]["paths"]) == len(lines[-1]["source"]["size"]) == count


def test_clouds_of_any_date_count_and_masks_of_a_place_are_of_its_last_date():
    write_series()
    write_mask("masks/lake.tif")
    for number, day in enumerate(DAYS):
        clouds = np.zeros((70, 90), np.uint8)
        clouds[10 * number : 10 * number + 10, :10] = 1
        write_raster(f"clouds/lake_{day}.tif", clouds, 10)
    lines = cut("--images", "images", "--masks", "masks", "--clouds", "clouds", "--dates", 3, "--ignore-clouds", "--bands", "B03")
    first = lines[0]
    assert first["scene"] == "lake_20240611" and first["window"] == [0, 0, 32, 32]
    assert first["cloud_cover"] == pytest.approx(300 / 1024, abs=1e-6)
    mask = np.load(f"patches/{first['mask']}")[0]
    assert (mask[:30, :10] == 255).all() and (mask[9:30, 20:] != 255).all()
    assert read_json("patches/chipset.json")["bands"] == ["1_B03", "2_B03", "3_B03"]


def test_bands_in_files_of_their_own_and_labels_of_whole_images_have_dates_too():
    rng = np.random.default_rng(3)
    pixels = rng.integers(1, 5000, (2, 2, 40, 40)).astype(np.uint16)
    for day, date in zip(DAYS, pixels, strict=False):
        for band, values in zip(TWO, date, strict=True):
            write_raster(f"files/lake_{day}_{band}.tif", values, 10)
    write_mask(f"masks/lake_{DAYS[1]}.tif", (40, 40))
    write_stack(f"stacked/lake_{DAYS[1]}.tif", pixels, (None,) * 4, nodata=None)
    lines = cut("--images", "files", "--stack", ",".join(TWO), "--masks", "masks", "--dates", 2)
    cut("--images", "stacked", "--masks", "masks", folder="by-hand")
    assert arrays("patches") == arrays("by-hand")
    assert [len(sizes) for sizes in lines[0]["source"]["size"]] == [2, 2] and len(lines[0]["source"]["paths"]) == 2
    for number, place in enumerate(("lake", "hill")):
        for day, date in zip(DAYS, pixels, strict=False):
            write_raster(f"labelled/{place}/{place}_{day}.tif", date + number, 10)
    found = cut("--images", "labelled/*/*.tif", "--task", "classification", "--dates", 2, folder="whole")
    assert {line["scene"]: line["class_pixels"]["label"] for line in found} == {
        f"hill_{DAYS[1]}": [1, 0], f"lake_{DAYS[1]}": [0, 1]}
    assert np.array_equal(np.load(f"whole/{found[-1]['file']}"), pixels.reshape(4, 40, 40)[:, -32:, -32:])


def test_zero_in_all_bands_of_one_date_is_nodata_where_an_offset_would_make_it_a_value():
    pixels = write_series(nodata=None)
    write_mask("masks/lake_20240611.tif")
    line = cut("--images", "images", "--masks", "masks", "--dates", 3, "--offset", "-1000")[0]
    hidden = (pixels == 0).all(axis=1).any(axis=0)[:32, :32]
    assert line["valid_pixels"] == 1024 - hidden.sum() < 1024


def test_a_mask_of_its_own_hides_pixels_of_the_sample():
    write_series(nodata=None, days=DAYS[:2])
    shown = np.full((70, 90), 255, np.uint8)
    shown[:4] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(f"images/lake_{DAYS[0]}.tif", "r+") as file:
        file.write_mask(shown)
    write_mask(f"masks/lake_{DAYS[1]}.tif")
    assert cut("--images", "images", "--masks", "masks", "--dates", 2)[0]["valid_pixels"] == 1024 - 4 * 32


def test_dates_on_other_grids_or_with_other_bands_end_the_run():
    write_series(days=DAYS[:2])
    write_mask(f"masks/lake_{DAYS[2]}.tif")
    path = write_raster(f"images/lake_{DAYS[2]}.tif", np.ones((2, 70, 91), np.uint16), 10)
    name_bands(path, ("B02", "B03"))
    with pytest.raises(UserError, match=r"lake_20240101.tif is 90×70, images/lake_20240611.tif 91×70 pixels; dates of one place need one"):
        cut("--images", "images", "--masks", "masks", "--dates", 3)
    path = write_raster(f"images/lake_{DAYS[2]}.tif", np.ones((2, 70, 90), np.uint16), 10, corner=(600_100, 4_900_020))
    name_bands(path, ("B02", "B03"))
    with pytest.raises(UserError, match="lie apart"):
        cut("--images", "images", "--masks", "masks", "--dates", 3)
    path = write_raster(f"images/lake_{DAYS[2]}.tif", np.ones((2, 70, 90), np.uint16), 10)
    name_bands(path, ("B02", "B04"))
    with pytest.raises(UserError, match="has the bands B02, B03, .* has B02, B04; pass --bands"):
        cut("--images", "images", "--masks", "masks", "--dates", 3)
    assert not Path("patches").exists()


def test_inspect_tells_the_dates_and_a_changed_date_is_noticed(capsys):
    write_series()
    write_mask("masks/lake_20240611.tif")
    words = ("--images", "images", "--masks", "masks", "--dates", "3", "2024-01-01/..")
    cut(*words)
    chip.main(["inspect", "patches"])
    assert "3 dates of one place a sample, from 2024-01-01 to 2024-06-11" in "".join(capsys.readouterr())
    os.utime("images/lake_20240101.tif", (1, 1))
    with pytest.raises(UserError, match="has changed since chips were cut"):
        cut(*words)
    line, *rest = Path("patches/manifest.jsonl").read_text().splitlines()
    Path("patches/manifest.jsonl").write_text("\n".join([json.dumps(json.loads(line) | {"dates": ["2024-13-01"] * 3}), *rest]) + "\n")
    with pytest.raises(UserError, match="days such as 2022-06-15"):
        read_patch_set("patches")


def test_a_date_that_is_damaged_is_the_one_that_is_named():
    for place, corner in (("lake", 600_000), ("hill", 605_000)):
        write_series(place, DAYS[:2], (2, 64, 64), corner=(corner, 4_900_020), tiled=True, blockxsize=16, blockysize=16, compress="deflate")
        write_raster(f"masks/{place}_{DAYS[1]}.tif", np.eye(64, dtype=np.uint8), 10, corner=(corner, 4_900_020))
    path = Path(f"images/lake_{DAYS[0]}.tif")
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000] = b"\xff" * 2000  # more than a block, with its checksum
    path.write_bytes(bytes(content))
    lines = cut("--images", "images", "--masks", "masks", "--dates", 2)
    left = read_lines("patches/skipped.jsonl")
    assert {(line["reason"], line["source"]) for line in left} == {("unreadable", str(path))} and 0 < len(left) < 9
    assert sum(line["scene"] == f"hill_{DAYS[1]}" for line in lines) == 9
    path.write_bytes(bytes(content)[:5000])  # half of it: the sample is left out, the other place is cut
    lines = cut("--images", "images", "--masks", "masks", "--dates", 2, folder="others")
    assert {line["scene"] for line in lines} == {f"hill_{DAYS[1]}"}


# --------------------------------------------------------------------------------------------------- maps


def numbered_checkpoint(path="model.pt", dates=2, bands=TWO, **more):
    names = [f"{number}_{band}" for number in range(1, dates + 1) for band in bands]
    count = len(names)
    model = tiny_model(bands=names)
    facts = {"divide_by": [10_000.0] * count, "offset": [0.0] * count, "dates": dates, **more}
    return write_checkpoint(path, model, bands=names, **facts)


@pytest.fixture
def flat_statistics(monkeypatch):
    monkeypatch.setattr("map_factory.MEAN", [0.2] * 4)
    monkeypatch.setattr("map_factory.STD", [0.1] * 4)


def read(path):
    with rasterio.open(path) as file:
        return file.read()


def test_maps_of_dates_are_those_of_a_raster_stacked_by_hand(flat_statistics, capsys):
    model = numbered_checkpoint()
    pixels = write_series(bands=TWO)
    names = [f"{day}_{band}" for day in DAYS[1:] for band in TWO]
    write_stack("stacked/lake_20240611.tif", pixels[1:], names)
    write_stack("plain/lake_20240611.tif", pixels[1:], (None,) * 4)
    for folder in ("images", "stacked", "plain"):
        assert run(folder, "--checkpoint", model, "--output-dir", f"of-{folder}", "--stac", "--accept-scale", "--device", "cpu") == 0
    assert "1 of 3 scenes are in no sample of 2 dates" in "".join(capsys.readouterr())
    wanted = read("of-plain/lake_20240611_classes.tif")
    assert set(np.unique(wanted)) == {0, 1, 255}
    for folder in ("images", "stacked"):
        assert np.array_equal(read(f"of-{folder}/lake_20240611_classes.tif"), wanted)
    paths = [f"images/lake_{day}.tif" for day in DAYS]
    assert np.array_equal(predict_file(paths, model, accept_scale=True).classes, wanted[0])
    item = read_json("of-images/lake_20240611.stac.json")
    assert [link["href"] for link in item["links"] if link["rel"] == "derived_from"] == [f"../images/lake_{day}.tif" for day in DAYS[1:]]
    assert item["properties"]["start_datetime"].startswith("2024-03-11") and item["properties"]["end_datetime"].startswith("2024-06-11")
    words = ("images", "--checkpoint", model, "--output-dir", "of-images", "--accept-scale", "--stac", "--device", "cpu")
    assert run(*words) == 0 and "mapped already" in "".join(capsys.readouterr())
    os.utime("images/lake_20240311.tif", (1, 1))
    with pytest.raises(UserError, match="overwrite"):
        run(*words)
    with pytest.raises(UserError, match=r"lake_\* has 1 date \(2024-06-11\), expected 2"):
        run("images/lake_20240611.tif", "--checkpoint", model, "--output-dir", "none")


def test_products_of_a_tile_are_cut_and_mapped_as_their_stack(flat_statistics, capsys):
    days, scl = ("20220205", "20220301"), np.full((24, 24), 4, np.uint8)
    scl[:5, :5] = 9
    for number, day in enumerate(days):
        make_safe("safe", side=48, seed=20 * number, name=S2_NAME.format(level="L2A", baseline="0400").replace("20220205", day),
                  scl=scl if number == 0 else None)
    scenes = list_scenes(["safe"])
    parts = []
    for scene in scenes:
        with open_raster(scene.with_bands(TWO)) as dataset:
            parts.append(dataset.read())
    write_stack(f"stacked/T32TQM_{days[1]}.tif", np.stack(parts), [f"{day}_{band}" for day in days for band in TWO])
    for mask in ("masks/32TQM_20220301.tif", "masks-of-stack/T32TQM_20220301.tif"):
        write_mask(mask, (48, 48))
    shared = ("make-patches", "--patch-size", "32", "--stride", "32")
    chip.main([*shared, "--images", "safe", "--masks", "masks", "--dates", "2", "--bands", ",".join(TWO), "--patches-dir", "patches"])
    chip.main([*shared, "--images", "stacked", "--masks", "masks-of-stack", "--divide-by", "10000", "--offset", "-1000",
               "--patches-dir", "by-hand"])
    assert list(arrays("patches").values()) == list(arrays("by-hand").values())
    line, description = read_lines("patches/manifest.jsonl")[0], read_json("patches/chipset.json")
    assert line["dates"] == ["2022-02-05", "2022-03-01"] and line["event"] == "T32TQM"
    assert line["cloud_cover"] == pytest.approx(100 / 1024, abs=1e-6)  # of the first date alone, 5 x 5 pixels of 20 m
    assert description["dates"] == 2 and description["wavelengths"][:2] == description["wavelengths"][2:]
    model = numbered_checkpoint(sensor="Sentinel-2 MSI", offset=[-1000.0] * 4)
    shared = ("--checkpoint", model, "--accept-scale", "--device", "cpu")
    assert run("safe", *shared, "--output-dir", "maps", "--stac", "--report") == 0
    assert run("safe", *shared, "--output-dir", "cloudy", "--no-clouds") == 0
    assert run("stacked", *shared, "--output-dir", "by-hand") == 0
    name = Path(scenes[1]).stem
    found, wanted = read(f"maps/{name}_classes.tif"), read(f"by-hand/T32TQM_{days[1]}_classes.tif")
    assert np.array_equal(read(f"cloudy/{name}_classes.tif"), wanted)
    assert (found[0, :10, :10] == 255).all() and (wanted[0, :10, :10] != 255).any()
    assert np.array_equal(found[0, 10:], wanted[0, 10:])
    assert len([link for link in read_json(f"maps/{name}.stac.json")["links"] if link["rel"] == "derived_from"]) == 2
    assert next(iter(read_json("maps/summary.json")["scenes"]))["dates"] == ["2022-02-05", "2022-03-01"]


def test_without_scenes_the_samples_of_the_patches_are_mapped_each_date_that_has_a_mask(flat_statistics, capsys):
    write_series(bands=TWO)
    write_series("hill", DAYS, bands=TWO, corner=(609_000, 4_900_020))
    for day in DAYS[1:]:
        write_raster(f"masks/hill_{day}.tif", np.eye(70, 90, dtype=np.uint8), 10, corner=(609_000, 4_900_020))
    write_mask(f"masks/lake_{DAYS[2]}.tif")
    cut("--images", "images", "--masks", "masks", "--dates", 2, "--val", "hill")
    model = numbered_checkpoint(patches_dir="patches")
    assert run("--checkpoint", model, "--accept-scale", "--dry-run", "--device", "cpu") == 0
    said = "".join(capsys.readouterr())
    assert f"hill_{DAYS[1]}: 90 × 70, dates 2024-01-01, 2024-03-11;" in said and "2 of 2 scenes would be mapped" in said
    assert f"hill_{DAYS[2]}: 90 × 70, dates 2024-03-11, 2024-06-11;" in said


@pytest.mark.parametrize("dates", ["2", 3, -1])
def test_a_checkpoint_with_an_impossible_number_of_dates_is_damaged(flat_statistics, dates):
    write_series(bands=TWO)
    model = numbered_checkpoint()
    content = load_checkpoint(model)
    save_checkpoint(model, {**content, "data": {**content["data"], "dates": dates}})
    with pytest.raises(UserError, match="its 4 bands are not those of .* dates"):
        run("images", "--checkpoint", model, "--output-dir", "maps")


def test_bands_of_a_stack_are_found_date_by_date_or_not_at_all():
    write_stack("a.tif", np.ones((2, 3, 8, 8), np.uint8), ("20240101_B04", "20240101_B8A", "x", "20240611_B04", "20240611_B8A", "y"))
    wanted = ("1_B8A", "1_B04", "2_B8A", "2_B04")
    assert undated(wanted, 2) == ("B8A", "B04") and match_stack(describe("a.tif"), wanted, 2) == [2, 1, 5, 4]
    name_bands("a.tif", ("20240101_B04", "20240611_B04", "x", "20240101_B8A", "20240611_B8A", "y"))
    assert match_stack(describe("a.tif"), wanted, 2) is None  # not one date after the other
    name_bands("a.tif", ("20240611_B04", "20240611_B8A", "x", "20240101_B04", "20240101_B8A", "y"))
    assert match_stack(describe("a.tif"), wanted, 2) is None  # the later one first


def test_rasters_without_names_that_may_hold_one_date_or_all_are_not_guessed(flat_statistics):
    model, pixels = numbered_checkpoint(), write_series(shape=(4, 40, 40), bands=(None,) * 4)
    words = ("images", "--checkpoint", model, "--accept-scale", "--device", "cpu", "--output-dir")
    with pytest.raises(UserError, match="lake_20240101.tif may hold one date or 2: its bands have no names, and others are of its place"):
        run(*words, "maps")
    assert run(*words, "maps", "--bands", "1,3") == 0
    write_stack("stacked/lake_20240611.tif", pixels[1:, [0, 2]], (None,) * 4)
    assert run("stacked", *words[1:], "by-hand") == 0
    assert np.array_equal(read("maps/lake_20240611_classes.tif"), read("by-hand/lake_20240611_classes.tif"))
    assert run(*words, "each", "--bands", "1,2,3,4") == 0 and len(list(Path("each").glob("*_classes.tif"))) == 3


# --------------------------------------------------------------------------------------------------- dates and places


def tl_patches(dates=2):
    for number, place in enumerate(("lake", "hill")):
        write_series(place, DAYS[:dates], (6, 40, 70), seed=number, bands=BANDS, corner=(600_000 + 9_000 * number, 4_900_020))
        write_raster(f"masks/{place}_{DAYS[dates - 1]}.tif", np.random.default_rng(number).integers(0, 2, (40, 70)).astype(np.uint8), 10,
                     corner=(600_000 + 9_000 * number, 4_900_020))
    cut("--images", "images", "--masks", "masks", "--dates", dates, "--val", "hill")
    return read_patch_set("patches")


def tl_model(bands, dates=2, **args):
    parts = ModelConfig(encoder="prithvi:test-tl", encoder_args={"dates": dates, **args}, decoder="upernet", bands=tuple(bands))
    return assemble(parts, tuple(bands), encoder_weights=saved(Path(), random_prithvi(2, True)), say=lambda line: None).eval()


def test_patches_know_their_dates_and_places_and_the_encoder_is_given_them(small_rows):  # noqa: F811
    patch_set = tl_patches()
    dataset, model = PatchDataset(patch_set, patch_set.patches), tl_model(patch_set.bands)
    assert model.take_coordinates(patch_set.known_coordinates(model.dates)) == [] and model.coordinates == ("times", "place")
    assert model_from_checkpoint({"model": model.config.to_dict(), "state": {"model": model.state_dict()}}).coordinates == model.coordinates
    found = dataset.coordinates([0, 5], model.coordinates, 2)
    assert found["times"].tolist() == [[[2024, 1], [2024, 71]]] * 2  # 11 March of a leap year: 31 + 29 + 11
    for index, place in zip((0, 5), found["place"].tolist(), strict=True):
        patch = patch_set.patches[index]
        col, row, wide, high = patch.window
        x = (600_000 if patch.scene.startswith("lake") else 609_000) + 10 * (col + wide / 2)
        (lon,), (lat,) = rasterio.warp.transform(CRS, "EPSG:4326", [x], [4_900_020 - 10 * (row + high / 2)])
        assert place == pytest.approx([lat, lon], abs=1e-5)
    x = torch.rand(2, 12, 32, 32)
    state, encoder = random_prithvi(2, True), model.network.encoder
    seen = encoder(x, **found)
    with torch.no_grad():
        for number in range(2):
            kept = (x[number] * encoder.gain[0] + encoder.shift[0]).unflatten(0, (2, 6)).transpose(0, 1)[None]
            levels = reference(state, kept, found["times"][number].tolist(), found["place"][number].tolist())
            last = levels[-1]
            tokens = torch.cat([last[:, :1].repeat(1, 1, 2), last[:, 1:].unflatten(1, (2, -1)).transpose(1, 2).flatten(2)], dim=1)
            assert torch.allclose(seen[-1][number], tokens[0], atol=2e-5)
        assert not torch.allclose(model(x, **found), model(x))
    with pytest.raises(UserError, match="smallunet takes no place of each image"):
        FireSegmentationModel(SegmentationConfig("smallunet", "none", ("a",), coordinates=("place",)))
    whole_run = tl_model(patch_set.bands, times=(2020, 1, 2021, 1))
    whole_run.take_coordinates(("times", "place"))
    assert whole_run.coordinates == ("place",)  # what holds for the run is not taken of patches


def test_windows_of_a_map_have_their_own_dates_and_places_and_what_is_missing_is_told(small_rows):  # noqa: F811
    patch_set = tl_patches()
    model = tl_model(patch_set.bands)
    model.take_coordinates(("times", "place"))
    data = {"bands": list(patch_set.bands), "divide_by": [10_000.0] * 12, "offset": [0.0] * 12, "dates": 2}
    scenes = dated_scenes({f"lake_{day}": f"images/lake_{day}.tif" for day in DAYS[:2]}, 2)

    def found(path):
        from mapping.inputs import NO_FLAGS

        return scene_coordinates(plan_of_header(describe_for(path, data, NO_FLAGS), data), model)

    known, missing = found(scenes["lake_20240311"])
    of = known.of_windows(8, [0, 38], 32)
    assert missing == [] and of["times"].tolist() == [[[2024, 1], [2024, 71]]] * 2
    lons, lats = rasterio.warp.transform(CRS, "EPSG:4326", [600_160, 600_540], [4_900_020 - 240] * 2)
    assert of["place"].numpy() == pytest.approx(np.array([lats, lons]).T, abs=1e-5)
    for patch in patch_set.patches:  # as in the training
        if patch.scene == "lake_20240311":
            col, row, *_ = patch.window
            same = PatchDataset(patch_set, [patch]).coordinates([0], model.coordinates, 2)
            assert all(torch.allclose(same[name], values, atol=1e-5) for name, values in known.of_windows(row, [col], 32).items())
    pixels = np.ones((2, 6, 40, 70), np.uint16)
    write_stack("named.tif", pixels, [f"{day}_{band}" for day in DAYS[:2] for band in BANDS])
    assert found("named.tif")[0].days == ("2024-01-01", "2024-03-11")
    write_stack("plain.tif", pixels, (None,) * 12, crs=None)
    known, missing = found("plain.tif")
    assert known.names == () and ["without date" in missing[0], "without place" in missing[1]] == [True, True]


def test_single_scenes_tell_their_dates_by_their_names_and_places_by_their_corners():
    write_series(days=DAYS[:1])
    write_mask(f"masks/lake_{DAYS[0]}.tif")
    line = cut("--images", "images", "--masks", "masks")[0]
    patch_set = read_patch_set("patches")
    assert "dates" not in line and patch_set.known_coordinates(1) == ("times", "place") and patch_set.patches[0].days == ("2024-01-01",)
    middle = np.mean(line["footprint"], axis=0)
    assert patch_set.patches[0].place == pytest.approx(tuple(middle), abs=1e-9)
    assert patch_set.known_coordinates(3) == ("place",)


@pytest.mark.parametrize(("stated", "encoder", "words"), [
    (["dates=3"], "prithvi:test-tl", r"--encoder-args dates=3, but the patches of \S+ have 2 dates; leave it out"),
    ([], "dofa:test", "encoder dofa:test reads one date, the patches of .* have 2; pass a Prithvi"),
    (["dates=2"], "prithvi:test-tl", None),
    ([], "prithvi:test-tl", None),
])
def test_the_number_of_dates_comes_from_the_patches(small_rows, stated, encoder, words):  # noqa: F811
    train.import_libraries()
    from runtime.flags import parse_with_config
    from runtime.settings import group_of

    patch_set = tl_patches()
    args, _ = parse_with_config(train.build_parser(), ["--encoder", encoder, *(["--encoder-args", *stated] if stated else [])])
    choice = group_of(train.ModelChoice, args)
    if words is None:
        assert train.with_dates(choice, patch_set).encoder_args == ["dates=2"]
    else:
        with pytest.raises(UserError, match=words):
            train.with_dates(choice, patch_set)


# --------------------------------------------------------------------------------------------------- programs


@pytest.mark.slow
def test_bytes_do_not_depend_on_workers_or_a_kill():
    for number in range(3):
        write_series(f"place{number}", shape=(2, 200, 300), seed=number)
        write_mask(f"masks/place{number}.tif", (200, 300), number)
    words = [sys.executable, str(ROOT / "chip.py"), "make-patches", "--images", "images", "--masks", "masks", "--dates", "2",
             "--patch-size", "32", "--stride", "16", "--divide-by", "10000", "--val", "place0", "--allow-overlap", "--patches-dir"]
    subprocess.run([*words, "one", "--workers", "1"], check=True, capture_output=True)
    process = subprocess.Popen([*words, "two", "--workers", "2"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    manifest, deadline = Path("two/manifest.jsonl"), time.monotonic() + 60
    while (not manifest.exists() or manifest.stat().st_size < 4_000) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.005)
    assert process.poll() is None, "it ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(read_lines("two/manifest.jsonl")) < len(read_lines("one/manifest.jsonl"))
    subprocess.run([*words, "two", "--workers", "2"], check=True, capture_output=True)
    assert arrays("one") == arrays("two") and Path("one/manifest.jsonl").read_bytes() == Path("two/manifest.jsonl").read_bytes()


@pytest.mark.slow
def test_an_encoder_with_coordinates_is_trained_scored_and_mapped(small_rows, capsys):  # noqa: F811
    tl_patches()
    shared = ["--patches-dir", "patches", "--num-workers", "0", "--device", "cpu", "--accept-scale"]
    parts = ["--encoder", "prithvi:test-tl", "--decoder", "unet", "--encoder-weights", str(saved(Path(), random_prithvi(1, True)))]
    assert train.main([*shared, *parts, "--output-dir", "run", "--epochs", "1", "--batch-size", "4"]) == 0
    last = Path("run/checkpoints/last.pt")
    checkpoint = load_checkpoint(last)
    assert checkpoint["model"]["coordinates"] == ["times", "place"] and checkpoint["data"]["dates"] == 2
    assert checkpoint["model"]["parts"]["encoder_args"]["dates"] == 2
    assert train.main([*shared, "--test-only", "--resume", str(last), "--test-split", "val", "--output-dir", "scores"]) == 0
    capsys.readouterr()
    words = ("images", "--checkpoint", last, "--probabilities", "float32", "--accept-scale", "--device", "cpu", "--output-dir")
    assert run(*words, "maps") == 0
    assert "without" not in "".join(capsys.readouterr())
    Path("plain").mkdir()
    Path("plain-masks").mkdir()
    for place in ("lake", "hill"):  # names without a day: single scenes of which nothing tells it
        shutil.copy(f"images/{place}_{DAYS[0]}.tif", f"plain/{place}.tif")
        shutil.copy(f"masks/{place}_{DAYS[1]}.tif", f"plain-masks/{place}.tif")
    cut("--images", "plain", "--masks", "plain-masks", "--val", "hill", folder="undated")
    assert train.main(["--patches-dir", "undated", *shared[2:], *parts, "--output-dir", "undated-run", "--max-steps", "1"]) == 0
    assert "prithvi:test-tl runs without dates, which some patches do not state" in "".join(capsys.readouterr())
    assert load_checkpoint("undated-run/checkpoints/last.pt")["model"]["coordinates"] == ["place"]
    for day in DAYS[:2]:  # the same pixels elsewhere are another map
        with rasterio.open(f"images/lake_{day}.tif", "r+") as file:
            file.crs = "EPSG:32601"
    assert run(*words, "away") == 0
    one, other = (read(f"{folder}/lake_{DAYS[1]}_probability.tif") for folder in ("maps", "away"))
    assert np.isfinite(one).any() and not np.allclose(one, other, equal_nan=True)
    assert np.array_equal(read(f"maps/hill_{DAYS[1]}_probability.tif"), read(f"away/hill_{DAYS[1]}_probability.tif"), equal_nan=True)
    for path in Path("images").iterdir():
        path.unlink()
    write_series("bare", DAYS[:2], (6, 40, 70), bands=BANDS, crs=None)
    assert run(*words, "bare") == 0
    assert f"images/bare_{DAYS[1]}.tif: it has no CRS that leads to the globe: it is mapped without place" in "".join(capsys.readouterr())


@pytest.mark.slow
def test_an_onnx_maps_dates_without_coordinates_and_says_so(small_rows, capsys):  # noqa: F811
    patch_set = tl_patches()
    model = tl_model(patch_set.bands)
    model.take_coordinates(("times", "place"))
    facts = {"bands": list(patch_set.bands), "divide_by": [10_000.0] * 12, "offset": [0.0] * 12, "dates": 2, "nodata": None,
             "classes": ["background", "fire"], "chip_size": 32, "threshold": None, "ground_resolution": 10.0, "layer": "mask"}
    content = {"kind": "segmentation", "settings": {}, "state": {"model": model.state_dict()}, "data": facts}
    save_checkpoint("with.pt", {**content, "model": model.config.to_dict()})
    model.take_coordinates(())
    save_checkpoint("without.pt", {**content, "model": model.config.to_dict()})
    assert export.main(["with.pt", "--onnx", "with.onnx"]) == 0
    assert "an .onnx takes no times and place, with which the network was trained" in "".join(capsys.readouterr())
    for source in ("without.pt", "with.onnx"):
        assert run("images", "--checkpoint", source, "--output-dir", source[:-3], "--probabilities", "float32", "--accept-scale",
                   "--device", "cpu") == 0
    assert "with.onnx takes no times and place, with which it was trained" in "".join(capsys.readouterr())
    one, other = (read(f"{folder}/lake_{DAYS[1]}_probability.tif") for folder in ("without", "with.o"))
    assert np.allclose(one, other, atol=1e-4, equal_nan=True) and np.isfinite(one).any()


@pytest.mark.parametrize("silent", [False, True])
def test_scales_in_the_tags_of_files_are_those_of_their_dates(silent):
    write_series(days=DAYS[:2], bands=TWO)
    for day, offset in zip(DAYS[: 1 if silent else 2], ("-0.1", "0.05"), strict=False):
        with rasterio.open(f"images/lake_{day}.tif", "r+") as file:
            file.update_tags(scale_factor="0.0001", add_offset=offset)
    scene = DatedRasters([f"images/lake_{day}.tif" for day in DAYS[:2]], ["2024-01-01", "2024-03-11"], ["a", "b"])
    info = describe(scene.with_bands(None))
    if silent:
        with pytest.raises(UserError, match="states a scale for some bands and none for band 3"):
            scale_from_tags(info, range(4))
    else:
        assert scale_from_tags(info, range(4)) == Scale((10_000,) * 4, (-1000, -1000, 500, 500))


def test_rasters_stacked_by_hand_with_other_days_have_no_days_that_are_known(small_rows):  # noqa: F811
    pixels = np.random.default_rng(0).integers(1, 5000, (4, 40, 70)).astype(np.uint16)
    for name, days, corner in (("lake", DAYS[:2], (600_000, 4_900_020)), ("hill", ("20190701", "20200815"), (609_000, 4_900_020))):
        write_stack(f"images/{name}.tif", pixels, [f"{day}_{band}" for day in days for band in TWO], corner=corner)
        write_raster(f"masks/{name}.tif", np.eye(40, 70, dtype=np.uint8), 10, corner=corner)
    cut("--images", "images", "--masks", "masks")
    assert read_patch_set("patches").known_coordinates(2) == ("place",)


def test_a_raster_of_one_date_is_not_mapped_as_all(flat_statistics):
    names = ("VV", "VH", "DEM", "ANG")
    write_series(days=DAYS[:1], shape=(4, 70, 90), bands=names)
    model = numbered_checkpoint(bands=("VV", "VH"))
    with pytest.raises(UserError, match="1 date"):
        run(f"images/lake_{DAYS[0]}.tif", "--checkpoint", model, "--accept-scale", "--device", "cpu")


def test_one_date_of_a_stack_keeps_the_names_that_tell_its_bands_apart():
    pixels = np.random.default_rng(0).integers(1, 5000, (4, 40, 70)).astype(np.uint16)
    write_stack("images/lake_20240311.tif", pixels, [f"{day}_{band}" for day in DAYS[:2] for band in TWO])
    write_raster("masks/lake_20240311.tif", np.eye(40, 70, dtype=np.uint8), 10)
    cut("--images", "images", "--masks", "masks", "--dates", 1)
    assert read_json("patches/chipset.json")["bands"] == [f"{day}_{band}" for day in DAYS[:2] for band in TWO]


def test_a_users_network_around_an_encoder_that_reads_dates_takes_pixels_alone():
    Path("my.py").write_text("""
from torch import nn
class Reader(nn.Identity):
    coordinates_read = ("times", "place")
class Net(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.encoder, self.head = Reader(), nn.Conv2d(len(config.bands), config.outputs, 1)
    def forward(self, x):
        return self.head(self.encoder(x))
def build_model(config):
    return Net(config)
""")
    model = assemble(ModelConfig(outputs=2), BANDS, user_model=load_user_model("my.py:build_model"))
    assert model.coordinates_read == () and model(torch.rand(1, len(BANDS), 32, 32)).shape == (1, 2, 32, 32)
