"""From a pair of rasters to chips, a network trained on them, and the pair sharpened by it: at other ratios, and on real imagery."""

import math
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

import chip
import inference
import train_pansharpen
from runtime.checkpoint import load_checkpoint

TINY = ["--width", "16", "--depth", "1", "--workers", "0", "--device", "cpu", "--quiet"]


def go_the_road(pan, ms, folder, chip_words, fuse_words=(), count=8):
    """make-chips, train_pansharpen.py for a few steps, inference.py. → path of the sharpened raster."""
    words = ["--pan", pan, "--ms", ms, *chip_words]
    assert not chip.main(["make-chips", *map(str, words), "--chip-dir", f"{folder}/chips", "-n", str(count)])
    sessions = ["--session", "s", "--sessions-dir", f"{folder}/sessions"]
    train_pansharpen.main([*sessions, "--chips", f"{folder}/chips", "--epochs", "2", "--lbs", "4", "--pbs", "4", *TINY])
    words = ["--checkpoint", f"{folder}/sessions/latest.pt", "--pan", pan, "--ms", ms, *fuse_words, "--output-dir", folder / "maps"]
    assert inference.main([*map(str, words), "--device", "cpu", "--quiet"]) == 0
    return next(Path(folder / "maps").glob("*_sharpened.tif"))


def block_means(image, side):
    """(C, h, w) means of (C, side * h, side * w)."""
    bands, height, width = image.shape
    return image.reshape(bands, height // side, side, width // side, side).mean((2, 4))


def correlations(one, other, valid):
    return [np.corrcoef(a[valid], b[valid])[0, 1] for a, b in zip(one, other, strict=True)]


@pytest.mark.parametrize("ratio", [2, 8])
def test_pan_that_is_twice_or_eight_times_as_fine_goes_the_whole_road(make_raster, tmp_path, ratio):
    rng = np.random.default_rng(0)
    side, north_west = 384, (500_000, 4_600_000)
    fields = rng.uniform(0.2, 0.8, (4, 12, 12)).repeat(32, 1).repeat(32, 2)
    fine = 1000 * fields * rng.uniform(0.6, 1.2, (side, side))  # light and shadow in all bands alike: what pan can tell
    pan = make_raster("a-pan.tif", fine.mean(0).astype(np.uint16), transform=from_origin(*north_west, 2, 2))
    ms = make_raster("a-ms.tif", block_means(fine, ratio).astype(np.uint16), transform=from_origin(*north_west, 2 * ratio, 2 * ratio),
                     descriptions=["blue", "green", "red", "nir"])
    path = go_the_road(pan, ms, tmp_path, ["--divide-by", "1000", "--chip-size", "16", "--extra-downsample", "1"],
                       ["--divide-by", "1000"])
    checkpoint = load_checkpoint(tmp_path / "sessions" / "latest.pt")
    assert checkpoint["model"]["ratio"] == ratio and checkpoint["data"]["reach"] % ratio == 0
    with rasterio.open(path) as out, rasterio.open(pan) as like:
        assert (out.crs, out.transform, out.shape) == (like.crs, like.transform, like.shape)
        assert out.count == 4 and out.descriptions == ("blue", "green", "red", "nir") and out.dtypes[0] == "uint16"
        found = out.read().astype(float)
    wide = block_means(fine, ratio).repeat(ratio, 1).repeat(ratio, 2)
    assert np.abs(found - fine).mean() < 0.5 * np.abs(wide - fine).mean()  # pan has told it something
    assert min(correlations(found, fine, np.ones((side, side), bool))) > 0.95


@pytest.mark.parametrize(
    ("name", "divisor", "shift", "names", "doubled"),
    [
        pytest.param("worldview2", 2047, (0, 0), "coastal,blue,green,yellow,red,rededge,nir1,nir2", 1, marks=pytest.mark.slow),
        pytest.param("geoeye1", 255, (0.5, -0.5), "blue,green,red,nir", 1, marks=pytest.mark.slow),
        ("spacenet6", 2047, (1.5, -1), "blue,green,red,nir", 2),  # every pixel of its ms is stored twice, both ways
    ],
)
def test_the_real_pairs_train_a_network_that_sharpens_them(real_data, tmp_path, name, divisor, shift, names, doubled):
    pan, ms = (real_data / "pansharpen" / f"{name}-{kind}.tif" for kind in ("pan", "ms"))
    place = [f"--shift={shift[0]},{shift[1]}", "--divide-by", divisor, "--bands", names]
    path = go_the_road(pan, ms, tmp_path, [*place, "--chip-size", "32", "--extra-downsample", "1", "--reduction", "mtf"], place)
    with rasterio.open(path) as out, rasterio.open(pan) as pan_file, rasterio.open(ms) as ms_file:
        # The map has the pan pixels under which a whole ms pixel lies, and lies where pan says they are.
        left, top = (s if s > -1 else s + 4 for s in shift)  # a fraction of a pan pixel loses no ms pixel
        width, height = (math.ceil(size - start) // 4 * 4 for size, start in ((pan_file.width, left), (pan_file.height, top)))
        assert (out.count, out.width, out.height) == (ms_file.count, width, height)
        assert out.crs == pan_file.crs and ~pan_file.transform * out.transform * (0, 0) == pytest.approx((left, top))
        assert out.dtypes == ms_file.dtypes and out.descriptions == tuple(names.split(","))
        found, sharp = out.read().astype(float), pan_file.read().astype(float)
        truth = ms_file.read()[:, ::doubled, ::doubled].astype(float)
    row, column = int(shift[1] <= -1), int(shift[0] <= -1)
    truth = truth[:, row : row + height // 4, column : column + width // 4]
    valid = (found != 0).any(0)
    whole = block_means(valid[None].astype(float), 4)[0] == 1
    assert (name == "spacenet6") == (valid.mean() < 1) and valid.mean() > 0.6  # a third of that one is black
    low, high = np.quantile(found[:, valid], (0.001, 0.999))  # beside glints and in them the smooth enlargement overshoots
    assert -0.02 * truth.max() < low < high < truth.max()
    assert min(correlations(block_means(found, 4), truth, whole)) > 0.95  # every 4 x 4 pixels are one of ms
    mean_of_bands = [block_means(found, 4)[:, whole].mean(1), truth[:, whole].mean(1)]
    assert mean_of_bands[0] == pytest.approx(mean_of_bands[1], rel=0.03)
    cut = sharp[:, round(top) : round(top) + height, round(left) : round(left) + width]
    detail = [image - block_means(image, 4).repeat(4, 1).repeat(4, 2) for image in (found.mean(0, keepdims=True), cut)]
    assert correlations(*detail, whole.repeat(4, 0).repeat(4, 1))[0] > 0.5  # and what is within them is that of pan
