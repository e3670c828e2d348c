"""What hides a pixel: which bands are data, and whether patches, maps and pairs leave out what alpha or a mask hides."""

import itertools

import numpy as np
import pytest
import rasterio
from map_factory import run, tiny_model, write_checkpoint
from rasterio.enums import ColorInterp

import chip
from chipping.chipset import read_chipset, read_manifest
from mapping.inputs import InputFlags, plan_input
from mapping.reading import read_slabs
from raster.hidden import data_bands, hidden_pixels
from raster.pair import PairReader, match_pair
from raster.source import describe, open_raster
from runtime.errors import UserError

SIDE = 24
HOLE = np.zeros((SIDE, SIDE), bool)
HOLE[3:9, 5:20] = True
KINDS = tuple(itertools.product((3, 4, 5, 9), ("uint8", "uint16", "float32"), ("alpha", "near infrared", "named")))


def write(make_raster, name, count, dtype, last, **how):
    """
    A raster whose last band is 0 in HOLE: alpha otherwise opaque, or near infrared; "named" is alpha by its flag, near infrared by its
    values. Near infrared of other files than four bands of 8 bits has no such flag.
    """
    rng = np.random.default_rng(count)
    stored = rng.integers(20, 200, (count, SIDE, SIDE)).astype(dtype)
    stored[-1] = np.where(HOLE, 0, {"uint8": 255, "uint16": 65535, "float32": 1}[dtype] if last == "alpha" else stored[-1])
    path = make_raster(name, stored, **how)
    with rasterio.open(path, "r+") as dataset:
        if last != "near infrared":
            dataset.colorinterp = [*[ColorInterp.gray] * (count - 1), ColorInterp.alpha]
        elif (count, dtype) == (4, "uint8"):
            assert dataset.colorinterp[3] == ColorInterp.alpha  # GDAL's guess
    return path, stored


@pytest.mark.parametrize(("count", "dtype", "last"), KINDS)
def test_data_bands_and_what_hides_them_whatever_gdal_makes_of_the_file(make_raster, count, dtype, last):
    path, _ = write(make_raster, "a.tif", count, dtype, last)
    found = data_bands(describe(path), named=(1, count) if last == "named" else ())
    everything = tuple(range(1, count + 1))
    with open_raster(path) as dataset:
        hidden = hidden_pixels(dataset, found.masked)
    if last == "alpha":
        assert found.bands == everything[:-1] and (hidden == HOLE).all()
        assert f"band {count} of {path} counts as alpha" in found.remark
    else:
        assert found.bands == everything and hidden is None and found.remark is None


@pytest.mark.parametrize(("count", "dtype", "last"), KINDS)
def test_patches_and_maps_leave_out_what_alpha_hides_and_keep_what_is_data(make_raster, tmp_path, monkeypatch, capsys, count, dtype, last):
    monkeypatch.chdir(tmp_path)
    write(make_raster, "images/a.tif", count, dtype, last)
    make_raster("masks/a.tif", np.ones((SIDE, SIDE), np.uint8))
    bands = ["--bands", ",".join(map(str, range(1, count + 1)))] if last == "named" else []
    chip.main(["make-patches", "--images", "images", "--masks", "masks", "--patches-dir", "p", "--patch-size", str(SIDE),
               "--divide-by", "255", *bands])
    (line,) = read_manifest("p")
    labels, hidden = np.load(f"p/{line['mask']}"), HOLE & (last == "alpha")
    assert ((labels == 255) == hidden).all() and line["valid_pixels"] == SIDE**2 - hidden.sum()
    names = read_chipset("p")["bands"]
    assert len(names) == count - (last == "alpha")
    assert ("counts as alpha" in capsys.readouterr().err) == (last == "alpha")
    data = {"bands": names, "divide_by": [255.0] * len(names), "offset": [0.0] * len(names), "nodata": None}
    flags = InputFlags(bands=tuple(range(1, count + 1)), divide_by=(255.0,) * count) if last == "named" else InputFlags()
    plan = plan_input(describe("images/a.tif"), data, flags=flags)
    (slab,) = read_slabs(plan)
    assert (slab.valid == ~hidden).all() and len(slab.pixels) == len(names)
    if last == "alpha":
        assert plan.sample[0].min() > 0 and "counts as alpha" in plan.alpha


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("count", [3, 4, 5, 9])
def test_pairs_leave_out_what_alpha_hides(make_raster, count, dtype):
    pan = make_raster("pan.tif", np.ones((4 * SIDE, 4 * SIDE), dtype), crs=None)
    ms, stored = write(make_raster, "ms.tif", count, dtype, "alpha", crs=None)
    with PairReader(match_pair(pan, ms)) as reader:
        assert (reader.read_ms(0, 0, SIDE, SIDE) == np.where(HOLE, 0, stored[:-1])).all()


def test_a_mask_and_an_alpha_band_of_one_file_both_hide(make_raster):
    path, _ = write(make_raster, "a.tif", 4, "uint16", "alpha")
    shown = np.full((SIDE, SIDE), 255, np.uint8)
    shown[:, 0] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as dataset:
        dataset.write_mask(shown)
    info = describe(path)
    with open_raster(path) as dataset:
        assert (hidden_pixels(dataset, data_bands(info).masked) == (HOLE | (shown == 0))).all()
        assert (hidden_pixels(dataset, data_bands(info, (4,)).masked) == (shown == 0)).all()


def test_an_alpha_band_beside_a_nodata_tag_hides_too(make_raster):
    """GDAL makes the file's mask of the tag alone."""
    path, _ = write(make_raster, "a.tif", 4, "uint8", "alpha", nodata=7)
    with open_raster(path) as dataset:
        assert (hidden_pixels(dataset, data_bands(describe(path)).masked) == HOLE).all()


def test_a_map_by_order_takes_no_alpha_band_for_a_band_until_bands_names_it(make_raster, tmp_path):
    path, _ = write(make_raster, "a.tif", 4, "uint8", "alpha")
    names = [f"band_{i}" for i in range(1, 5)]
    data = {"bands": names, "divide_by": [255.0] * 4, "offset": [0.0] * 4, "nodata": None}
    with pytest.raises(UserError, match=r"4 bands without names \(band 4 counts as alpha\); the checkpoint wants 4.*Pass --bands"):
        plan_input(describe(path), data)
    plan = plan_input(describe(path), data, flags=InputFlags(bands=("1", "2", "3", "4"), divide_by=(255.0,) * 4))
    assert plan.indexes == (1, 2, 3, 4) and plan.masked is None and plan.alpha is None


def test_a_map_of_five_bands_with_alpha_has_no_class_under_it(make_raster, tmp_path):
    path, _ = write(make_raster, "a.tif", 5, "uint16", "alpha")
    bands = ["B03", "B04", "B08", "B12"]
    model = tiny_model(bands=["B04", "B08", "B12"])
    checkpoint = write_checkpoint(tmp_path / "c.pt", model, divide_by=[500.0] * 3)
    with rasterio.open(path, "r+") as dataset:
        dataset.descriptions = (*bands, None)
    run(path, "--checkpoint", checkpoint, "--output-dir", tmp_path / "maps", "--device", "cpu")
    with rasterio.open(tmp_path / "maps/a_classes.tif") as classes:
        assert ((classes.read(1) == 255) == HOLE).all()


def test_stack_refuses_a_band_with_alpha_it_would_lose(make_raster, tmp_path):
    from raster.stack import stack_bands

    paths = [str(make_raster("T_B02.tif", np.ones((8, 8), np.uint16))), str(write(make_raster, "T_B03.tif", 2, "float32", "alpha")[0])]
    with pytest.raises(UserError, match="T_B03.tif has an alpha band, which --stack would lose"):
        stack_bands(paths, ["B02", "B03"], tmp_path / "stacks")
