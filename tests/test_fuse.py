"""Sharpening whole rasters: blocks that don't show, nodata, types, and what is refused before anything is written."""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from rasterio.enums import ColorInterp
from rasterio.transform import from_origin

import inference
from pansharpening.classical import METHODS, fuse_whole
from pansharpening.fuse import FuseSettings
from pansharpening.fuse import fuse as fuse_with
from pansharpening.network import Pansharpener, PansharpenerConfig, measure_reach
from pansharpening.pair_bands import check_ratio, select_bands
from pansharpening.sharpeners import Sharpener, classical_sharpener, network_sharpener
from raster.pair import PairReader, match_pair
from runtime.checkpoint import load_checkpoint, save_checkpoint
from runtime.errors import RunError, UserError

ROOT = Path(__file__).resolve().parent.parent
BANDS = ("blue", "green", "red", "nir")
SCALE = (1000.0, 0.0)
WRITTEN = ["a_sharpened.tif", "a_sharpened_pair.png"]


@pytest.fixture
def make_pair(make_raster):
    """make_pair("a", side, dtype, …) -> Pair of a random scene; 10 m ms pixels."""

    def make(name="a", side=24, dtype=np.uint16, top=900, change=None, **options):
        rng = np.random.default_rng(0)
        fine = rng.random((4, 4 * side, 4 * side)).cumsum(1).cumsum(2)
        fine = (fine / fine.max() * 0.5 + rng.random(fine.shape) * 0.5) * (top - 10) + 5
        ms = fine.reshape(4, side, 4, side, 4).mean((2, 4))
        pan = fine.mean(0, keepdims=True)
        if change:
            change(pan, ms)
        at = {"crs": options.pop("crs", "EPSG:32633")}
        make_raster(f"{name}-pan.tif", pan.astype(dtype), transform=from_origin(500_000, 4_600_000, 2.5, 2.5), **at, **options)
        make_raster(f"{name}-ms.tif", ms.astype(dtype), transform=from_origin(500_000, 4_600_000, 10, 10), **at, **options)
        folder = make_raster(f"{name}-extra.tif", np.zeros((2, 2), np.uint8)).parent
        return match_pair(folder / f"{name}-pan.tif", folder / f"{name}-ms.tif")

    return make


def network_checkpoint(target="bands", bands=BANDS, ratio=4):
    torch.manual_seed(0)
    model = Pansharpener(PansharpenerConfig(bands, ratio, target, 16, 1))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    config = {"bands": list(bands), "ratio": ratio, "target": target, "width": 16, "depth": 1}
    data = {"bands": list(bands), "ratio": ratio, "target": target, "divide_by": SCALE[0], "offset": 0.0, "nodata": 0,
            "reach": measure_reach(model)}
    return {"kind": "pansharpen", "model": config, "settings": {}, "state": {"model": model.state_dict()}, "data": data}


@pytest.mark.parametrize(("part", "key", "words"), [
    ("data", "reach", "its data lacks reach;"), ("state", "model", "its state lacks model;"),
    ("model", "bands", "does not hold a network's description"),
])
def test_a_checkpoint_that_is_not_whole_is_one_line_that_names_it(make_pair, tmp_path, part, key, words):
    pair, checkpoint = make_pair(), network_checkpoint()
    del checkpoint[part][key]
    save_checkpoint(tmp_path / "c.pt", checkpoint)
    with pytest.raises(UserError, match=f"c.pt .*{words}"):
        run("--checkpoint", tmp_path / "c.pt", "--pan", pair.pan, "--ms", pair.ms, "--output-dir", tmp_path / "out", "--divide-by", 1000)
    assert not list((tmp_path / "out").glob("*"))


def read(path):
    with rasterio.open(path) as file:
        return file.read()


def network(target="bands"):
    return network_sharpener(network_checkpoint(target))


def fuse(pair, path, sharpener, scale, overwrite=False, **settings):
    return fuse_with(pair, path, sharpener, FuseSettings(scale=scale, **settings), overwrite=overwrite)


@pytest.mark.parametrize("target", ["bands", "oklab"])
def test_blocks_of_any_size_give_the_same_image(make_pair, tmp_path, target):
    pair, maps = make_pair(side=40, dtype=np.float32, top=1), []
    for block in (1000, 64, 36):
        fuse(pair, tmp_path / f"{block}.tif", network(target), (1.0, 0.0), block=block)
        maps.append(read(tmp_path / f"{block}.tif").astype(np.float64))
    assert maps[0].shape == (4 if target == "bands" else 3, 160, 160)
    for other in maps[1:]:
        assert np.abs(other - maps[0]).max() <= (1e-5 if target == "bands" else 1)


def test_the_reach_of_a_deep_network_is_measured_to_its_end():
    torch.manual_seed(0)
    model = Pansharpener(PansharpenerConfig(("a", "b"), 4, "bands", 16, 30))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    reach = measure_reach(model)
    assert 24 * 4 < reach < 48 * 4  # 24 ms pixels are what it looks at first
    ms, pan, a = torch.rand(1, 2, 96, 96) + 0.1, torch.rand(1, 1, 384, 384) + 0.1, reach // 4
    with torch.no_grad():
        whole = model(ms, pan)
        part = model(ms[:, :, 44 - a : 52 + a, 44 - a : 52 + a], pan[:, :, 176 - reach : 208 + reach, 176 - reach : 208 + reach])
    inner = part[:, :, reach:-reach, reach:-reach] - whole[:, :, 176:208, 176:208]
    assert inner.abs().max() < 2e-6 * whole.std()  # with 96 pixels it is ten times that


@pytest.mark.parametrize("method", METHODS)
def test_streamed_classical_methods_equal_those_on_the_whole_image(make_pair, tmp_path, method):
    pair = make_pair(side=40, dtype=np.float32, top=1)
    fuse(pair, tmp_path / "out.tif", classical_sharpener(method, pair, (1.0, 0.0), 52), (1.0, 0.0), block=52)
    ms, pan = (torch.from_numpy(read(path))[None] for path in (pair.ms, pair.pan))
    assert np.abs(read(tmp_path / "out.tif") - fuse_whole(method, ms, pan, 4)[0].numpy()).max() < 1e-4


def test_the_map_lies_on_pans_grid_with_names_and_nodata(make_pair, tmp_path):
    pair = make_pair()
    fuse(pair, tmp_path / "out.tif", network(), SCALE)
    with rasterio.open(tmp_path / "out.tif") as out, rasterio.open(pair.pan) as pan:
        assert (out.crs, out.transform, out.shape) == (pan.crs, pan.transform, pan.shape)
        assert out.dtypes == ("uint16",) * 4 and out.descriptions == BANDS and out.nodata == 0
        assert out.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"


@pytest.mark.parametrize("shift", [(0, 0), (6, -3), (-2, 5)])
def test_with_a_shift_the_map_lies_where_pan_says_its_pixels_are(make_pair, tmp_path, shift):
    made = make_pair()
    pair = match_pair(made.pan, made.ms, shift)
    fuse(pair, tmp_path / "out.tif", Sharpener(lambda ms, pan: pan.expand(1, 4, -1, -1), 0, "bands", "pan itself"), SCALE)
    with rasterio.open(tmp_path / "out.tif") as out, rasterio.open(pair.pan) as pan:
        there = pan.read(1, window=pan.window(*out.bounds).round_offsets().round_lengths())
        assert out.crs == pan.crs and np.array_equal(out.read(2), there)


def test_a_fraction_of_a_pixel_moves_the_map_by_it(make_pair, tmp_path):
    made = make_pair()
    pair = match_pair(made.pan, made.ms, (1.5, -1))
    fuse(pair, tmp_path / "out.tif", network(), SCALE)
    with rasterio.open(tmp_path / "out.tif") as out, rasterio.open(pair.pan) as pan:
        assert ~pan.transform * out.transform * (0, 0) == pytest.approx((1.5, 3)) and out.res == pan.res


def test_nodata_of_pan_and_of_all_ms_bands_is_nodata_and_nothing_else_is(make_pair, tmp_path):
    def change(pan, ms):
        pan[0, 5, 7] = 0
        ms[:, 10, 10] = 0
        ms[1, 20, 20] = 0  # one band only: the pixel stays

    found = fuse(make_pair(change=change), tmp_path / "out.tif", network(), SCALE)
    expected = np.zeros((96, 96), bool)
    expected[5, 7] = expected[40:44, 40:44] = True
    assert np.array_equal((read(tmp_path / "out.tif") == 0).all(0), expected)
    assert found["valid_fraction"] == pytest.approx(1 - 17 / 96**2)


def punch(pan, ms):
    """A wide rim, a hole, dead pixels of pan: what is read from them is 0."""
    ms[:, :, :9], pan[:, :, :36] = 0, 0
    ms[:, 20:26, 20:30] = 0
    pan[:, 100:103, 80:140] = 0
    pan[0, 7, 150] = 0


@pytest.mark.parametrize("method", ["network", "mtf-glp-hpm"])
def test_blocks_of_any_size_give_the_same_image_around_nodata_too(make_pair, tmp_path, method):
    pair, maps = make_pair(side=40, dtype=np.float32, top=1, change=punch), []
    for block in (160, 48, 20):
        sharpener = network() if method == "network" else classical_sharpener(method, pair, (1.0, 0.0), block)
        fuse(pair, tmp_path / f"{block}.tif", sharpener, (1.0, 0.0), block=block)
        maps.append(read(tmp_path / f"{block}.tif"))
    assert (maps[0] == 0).any() and all(np.abs(other - maps[0]).max() < 1e-4 for other in maps[1:])


@pytest.mark.parametrize("method", ["network", "bicubic", "mtf-glp-hpm"])
def test_flat_ground_stays_flat_up_to_the_edge_of_nodata(make_pair, tmp_path, method):
    def flatten(pan, ms):
        pan[:], ms[:] = 600, np.array([200, 300, 400, 500])[:, None, None]

    def flatten_and_punch(pan, ms):
        flatten(pan, ms)
        punch(pan, ms)

    whole, pair = make_pair("whole", side=40, change=flatten), make_pair(side=40, change=flatten_and_punch)
    sharpener = network() if method == "network" else classical_sharpener(method, whole, SCALE, 512)
    fuse(whole, tmp_path / "whole.tif", sharpener, SCALE)
    fuse(pair, tmp_path / "out.tif", sharpener, SCALE, block=64)
    expected, found = (read(tmp_path / name).astype(int) for name in ("whole.tif", "out.tif"))
    valid = (found != 0).any(0)
    assert 0 < valid.mean() < 1 and np.abs(found - expected)[:, valid].max() <= 1


def test_a_single_0_in_one_band_is_a_dark_pixel_unless_the_file_says_nodata(make_pair, tmp_path):
    def darken(value):
        def change(pan, ms):
            ms[3, 10:14, 10:14] = value

        return change

    dark, missing = make_pair("a", change=darken(0)), make_pair("b", change=darken(7), nodata=7)
    for pair, expected in ((dark, (0, 1)), (missing, (100, 900))):
        fuse(pair, tmp_path / "out.tif", classical_sharpener("bicubic", pair, SCALE, 512), SCALE, overwrite=True)
        assert expected[0] <= read(tmp_path / "out.tif")[3, 46:50, 46:50].mean() <= expected[1]


@pytest.mark.slow
def test_the_edge_of_a_real_image_is_that_of_the_image_without_nodata(real_data, tmp_path):
    pairs, maps = {}, {}
    for name in ("whole", "cut"):
        for kind, columns in (("pan", 400), ("ms", 100)):
            with rasterio.open(real_data / "pansharpen" / f"worldview2-{kind}.tif") as file:
                values, profile = file.read(), file.profile
            values = values[:, : 480 if kind == "pan" else 120]
            values[:, :, :columns] *= name == "whole"
            with rasterio.open(tmp_path / f"{name}-{kind}.tif", "w", **{**profile, "height": values.shape[1]}) as file:
                file.write(values)
        pairs[name] = match_pair(tmp_path / f"{name}-pan.tif", tmp_path / f"{name}-ms.tif")
    for method in ("bicubic", "mtf-glp-hpm"):
        sharpener = classical_sharpener(method, pairs["whole"], (2047.0, 0.0), 512)
        for name, pair in pairs.items():
            fuse(pair, tmp_path / f"{name}.tif", sharpener, (2047.0, 0.0), overwrite=True)
            maps[name] = read(tmp_path / f"{name}.tif")[:, :, 400].astype(float)
        assert maps["cut"].mean() == pytest.approx(maps["whole"].mean(), rel=0.03)
        assert np.abs(maps["cut"] - maps["whole"]).mean() < 0.1 * maps["whole"].mean()  # zeros instead of filled nodata: 0.34 and 0.41


def test_a_raster_of_nodata_is_written_as_such_and_has_no_statistics(make_pair, tmp_path):
    def change(pan, ms):
        pan[:], ms[:] = 0, 0

    pair = make_pair(change=change)
    assert fuse(pair, tmp_path / "out.tif", network(), SCALE)["valid_fraction"] == 0
    assert not read(tmp_path / "out.tif").any()
    with pytest.raises(UserError, match="no valid pixel"):
        fuse(pair, tmp_path / "gsa.tif", classical_sharpener("gsa", pair, SCALE, 512), SCALE)
    assert not (tmp_path / "gsa.tif").exists()


@pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 250), (np.uint16, 60_000), (np.int16, 30_000), (np.float32, 1), (np.float64, 1)])
def test_bands_come_in_the_type_and_scale_of_ms(make_pair, tmp_path, dtype, top):
    pair = make_pair(dtype=dtype, top=top)
    fuse(pair, tmp_path / "out.tif", classical_sharpener("bicubic", pair, (float(top), 0.0), 512), (float(top), 0.0))
    out, ms = read(tmp_path / "out.tif"), read(pair.ms)
    assert out.dtype == dtype and out.astype(float).mean() == pytest.approx(ms.astype(float).mean(), rel=0.02)


def test_values_beyond_the_type_are_cut_off_and_no_valid_pixel_becomes_nodata(make_pair, tmp_path):
    for value, expected in ((9.0, 255), (-9.0, 1)):
        sharpener = Sharpener(lambda ms, pan, v=value: torch.full((1, 4, *pan.shape[2:]), v), 0, "bands", "constant")
        fuse(make_pair(dtype=np.uint8, top=250), tmp_path / f"{value}.tif", sharpener, (250.0, 0.0))
        assert (read(tmp_path / f"{value}.tif") == expected).all()


def test_pictures_are_16_bit_srgb_of_bands_and_of_oklab(make_pair, tmp_path):
    pair = make_pair(dtype=np.float32, top=1)
    white = Sharpener(lambda ms, pan: torch.ones(1, 4, *pan.shape[2:]), 0, "bands", "white")
    fuse(pair, tmp_path / "white.tif", white, (1.0, 0.0), rgb=True)
    assert read(tmp_path / "white.tif").shape == (3, 96, 96) and read(tmp_path / "white.tif").min() > 65_000
    black = Sharpener(lambda ms, pan: torch.zeros(1, 3, *pan.shape[2:]), 0, "oklab", "black")
    fuse(pair, tmp_path / "black.tif", black, (1.0, 0.0))
    assert (read(tmp_path / "black.tif") == 1).all()  # black, but not nodata


@pytest.mark.parametrize(("apron", "block"), [(18, 1000), (1, 1), (0, 50)])
def test_odd_aprons_and_blocks_are_rounded_to_whole_ms_pixels(make_pair, tmp_path, apron, block):
    pair = make_pair(side=6)
    fuse(pair, tmp_path / "out.tif", network(), SCALE, apron=apron, block=block)
    assert read(tmp_path / "out.tif").shape == (4, 24, 24)


def test_an_image_of_one_ms_pixel_is_sharpened(make_pair, tmp_path):
    fuse(make_pair(side=1), tmp_path / "out.tif", network(), SCALE)
    assert read(tmp_path / "out.tif").shape == (4, 4, 4)


def test_inputs_and_existing_files_are_never_replaced(make_pair, tmp_path):
    pair = make_pair()
    before = open(pair.pan, "rb").read()
    os.link(pair.pan, tmp_path / "other-name.tif")
    for path in (pair.pan, pair.ms, tmp_path / "other-name.tif"):
        with pytest.raises(UserError, match="one of the inputs"):
            fuse(pair, path, network(), SCALE, overwrite=True)
    (tmp_path / "there.tif").write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        fuse(pair, tmp_path / "there.tif", network(), SCALE)
    assert (tmp_path / "there.tif").read_text() == "mine" and open(pair.pan, "rb").read() == before


def test_an_unreadable_block_leaves_nothing_behind(make_pair, tmp_path):
    pair = make_pair(side=64, tiled=True, blockxsize=64, blockysize=64, compress="deflate")
    with open(pair.pan, "r+b") as file:
        file.truncate(os.path.getsize(pair.pan) * 7 // 10)
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises((RunError, UserError), match="can't be"):
        fuse(match_pair(pair.pan, pair.ms), out / "a.tif", network(), SCALE)
    assert list(out.iterdir()) == []


def test_a_checkpoint_for_other_bands_or_ratios_is_refused(make_pair):
    pair = make_pair()
    with pytest.raises(UserError, match="has 4"):
        select_bands(pair, (*BANDS, "extra"))
    with pytest.raises(UserError, match="4 times"):
        check_ratio(network_checkpoint(ratio=2), pair)


def describe_ms(pair, *names):
    with rasterio.open(pair.ms, "r+") as file:
        file.descriptions = names


@pytest.mark.parametrize(
    ("described", "given", "indexes"),
    [
        (None, None, (1, 2, 3, 4)),  # in the order of the checkpoint's
        (("Red", "Green", "Blue", "NIR"), None, (3, 2, 1, 4)),
        (("B04", "B03", "B02", "B08"), None, (3, 2, 1, 4)),
        (("red", "green", "blue", "nir"), "1,2,3,4", (1, 2, 3, 4)),  # who gives numbers knows better than the file
        (None, "3,2,1,4", (3, 2, 1, 4)),
        (("red", "green", "blue", "nir"), "blue,green,red,nir", (3, 2, 1, 4)),
        (None, "red,green,blue,nir", (3, 2, 1, 4)),  # names for a file without any, in its order
        (("one", "two", "three", "four"), None, (1, 2, 3, 4)),
    ],
)
def test_the_model_gets_its_bands_in_its_order(make_pair, described, given, indexes):
    pair = make_pair()
    if described:
        describe_ms(pair, *described)
    selected, _ = select_bands(pair, BANDS, given and given.split(","))
    assert (selected.indexes, selected.bands) == (indexes, BANDS)


@pytest.mark.parametrize(
    ("described", "given", "message"),
    [
        (("red", "green", "blue", "swir1"), None, "red, green, blue, swir1.*wants 4: blue, green, red, nir.*no nir.*--bands.*--method gsa"),
        (("red", "green", "blue", "nir"), ["red", "green", "azure", "nir"], "no band 'azure'"),
        (None, ["1", "2", "3", "5"], "bands 1 to 4"),
        (None, ["1", "2", "3"], "names 3 bands"),
        (None, ["a", "b"], "--bands has 2 names"),
        (None, ["a", "b", "c", "d"], "a, b, c, d; the checkpoint wants"),
        (("coastal", "yellow", "rededge", "nir2"), None, "coastal, yellow, rededge, nir2; the checkpoint wants blue.*--method gsa"),
    ],
)
def test_bands_that_are_not_certain_are_refused_with_both_lists(make_pair, described, given, message):
    pair = make_pair()
    if described:
        describe_ms(pair, *described)
    with pytest.raises(UserError, match=message):
        select_bands(pair, BANDS, given)


def test_classical_methods_take_the_bands_that_are_asked_for(make_pair):
    pair = make_pair()
    assert select_bands(pair)[0] == pair
    assert select_bands(pair, given=["4", "1"])[0].bands == ("nir", "blue") and select_bands(pair, given=["4", "1"])[0].indexes == (4, 1)
    assert select_bands(pair, given=["a", "b", "c", "d"])[0].bands == ("a", "b", "c", "d")


@pytest.mark.parametrize("given", ["blue,green,red,nir", "1,2,3,4", "4,1"])
@pytest.mark.parametrize("described", [True, False])
def test_who_names_the_band_that_is_called_alpha_means_data_and_it_hides_nothing(make_pair, given, described):
    def no_near_infrared(_, ms):
        ms[3, 5:9] = 0

    pair = make_pair(change=no_near_infrared)
    if described:
        describe_ms(pair, *BANDS)
    with rasterio.open(pair.ms, "r+") as file:
        file.colorinterp = [ColorInterp.blue, ColorInterp.green, ColorInterp.red, ColorInterp.alpha]
    pair = match_pair(pair.pan, pair.ms)
    assert pair.masked == (None, 0) and len(pair.remarks) == 1 and select_bands(pair)[0] == pair
    pair, _ = select_bands(pair, given=given.split(","))
    assert pair.masked == (None, None) and pair.remarks == ()
    with PairReader(pair) as reader:
        assert reader.read_ms(0, 0, 24, 24)[(pair.indexes or (1, 2, 3, 4)).index(1)].all()


# ------------------------------------------------------------------------------------------------ the program


def test_short_flags_are_the_long_ones_and_a_narrow_apron_is_told(make_pair, checkpoint, tmp_path, capsys):
    pair = make_pair(side=40)
    inputs = ["--pan", pair.pan, "--ms", pair.ms, "--output-dir", tmp_path / "maps", "--divide-by", 1000]
    assert run("-w", checkpoint, "-d", "cpu", "-b", "48", "-a", "2", "--workers", "1", *inputs) == 0
    assert "an apron of 4 pixels is less" in capsys.readouterr().err
    narrow = read(tmp_path / "maps" / "a_sharpened.tif")
    with pytest.raises(UserError, match="exists already"):  # a narrow apron is not the same map
        run("--checkpoint", checkpoint, "--device", "cpu", *inputs)
    assert run("-w", checkpoint, "-d", "cpu", "-o", "-b", "48", *inputs) == 0 and "may show" not in capsys.readouterr().err
    assert (read(tmp_path / "maps" / "a_sharpened.tif") != narrow).any()
    assert run("-w", checkpoint, "-d", "cpu", "--apron", "200", *inputs) == 0 and "sharpened already" in capsys.readouterr().err


def test_the_shipped_network_is_known_by_the_hash_that_rasters_of_version_0_1_0_carry():
    shipped = load_checkpoint(ROOT / "weights" / "pansharpen-fake.pt", "pansharpen")
    assert network_sharpener(shipped).name == "network 5ecf17e8387dd3ac"


def test_rows_of_pan_that_are_left_out_are_told(make_pair, checkpoint, tmp_path, capsys):
    pair = make_pair()
    words = ["--checkpoint", checkpoint, "--pan", pair.pan, "--ms", pair.ms, "--output-dir", tmp_path / "maps", "--dry-run"]
    words += ["--divide-by", 1000]
    assert run(*words) == 0 and "of pan's" not in capsys.readouterr().err
    assert run(*words, "--shift", "1.5,-1") == 0 and "92 × 92 of pan's 96 × 96 pixels" in capsys.readouterr().err


@pytest.fixture
def checkpoint(tmp_path):
    save_checkpoint(tmp_path / "model.pt", network_checkpoint())
    return tmp_path / "model.pt"


def run(*words):
    return inference.main([str(w) for w in words])


def test_inference_sharpens_and_the_same_command_again_does_nothing(make_pair, checkpoint, tmp_path, capsys):
    pair = make_pair()
    command = ["--checkpoint", checkpoint, "--pan", pair.pan, "--ms", pair.ms, "--output-dir", tmp_path / "maps", "--divide-by", 1000]
    assert run(*command, "--dry-run") == 0 and not (tmp_path / "maps").exists()
    assert run(*command) == 0
    written = (tmp_path / "maps" / "a_sharpened.tif").stat().st_mtime_ns
    assert run(*command) == 0 and (tmp_path / "maps" / "a_sharpened.tif").stat().st_mtime_ns == written
    assert "sharpened already" in capsys.readouterr().err
    with pytest.raises(UserError, match="exists already"):
        run(*command, "--rgb")
    assert run(*command, "--rgb", "--overwrite") == 0 and read(tmp_path / "maps" / "a_sharpened.tif").shape[0] == 3


def test_a_mask_that_changed_makes_another_raster(make_pair, checkpoint, tmp_path):
    pair = make_pair()
    command = ["--checkpoint", checkpoint, "--pan", pair.pan, "--ms", pair.ms, "--output-dir", tmp_path / "maps", "--divide-by", 1000]
    for hidden in (3, 5):
        shown = np.full((24, 24), 255, np.uint8)
        shown[:hidden] = 0
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(pair.ms, "r+") as dataset:
            dataset.write_mask(shown)
        os.utime(f"{pair.ms}.msk", (hidden, hidden))
        if hidden == 5:
            with pytest.raises(UserError, match="exists already"):
                run(*command)
        run(*command, "--overwrite")
        assert (read(tmp_path / "maps" / "a_sharpened.tif")[0] == 0).all(axis=1).sum() == 4 * hidden


def test_an_image_in_another_order_becomes_the_same_map(make_pair, checkpoint, tmp_path, capsys):
    def turn(pan, ms):
        ms[:] = ms[[2, 1, 0, 3]]

    straight, turned = make_pair("a"), make_pair("b", change=turn)
    words = ["--checkpoint", checkpoint, "--output-dir", tmp_path / "maps", "--device", "cpu", "--divide-by", 1000]
    run(*words, "--pan", straight.pan, "--ms", straight.ms)
    assert "by order: 1 blue, 2 green, 3 red, 4 nir" in capsys.readouterr().err
    run(*words, "--pan", turned.pan, "--ms", turned.ms, "--bands", "3,2,1,4")
    expected = read(tmp_path / "maps" / "a_sharpened.tif")
    assert np.array_equal(read(tmp_path / "maps" / "b_sharpened.tif"), expected)
    with pytest.raises(UserError, match="exists already"):  # other bands are another map
        run(*words, "--pan", turned.pan, "--ms", turned.ms, "--bands", "1,2,3,4")
    describe_ms(turned, "red", "green", "blue", "nir")
    run(*words, "--pan", turned.pan, "--ms", turned.ms, "--overwrite")
    assert "by name: 3 blue, 2 green, 1 red, 4 nir" in capsys.readouterr().err
    with rasterio.open(tmp_path / "maps" / "b_sharpened.tif") as out:
        assert np.array_equal(out.read(), expected) and out.descriptions == BANDS


@pytest.mark.filterwarnings("error::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("rgb", [[], ["--rgb", "--divide-by", "1000"]])
def test_rasters_without_a_place_are_sharpened_without_rasterios_warning(make_pair, tmp_path, rgb):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pair = make_pair(crs=None)
    assert run("--method", "gsa", "--pan", pair.pan, "--ms", pair.ms, "--output-dir", tmp_path / "maps", *rgb) == 0


def test_one_bad_pair_of_two_is_named_and_the_other_is_sharpened(make_pair, checkpoint, tmp_path, capsys):
    a, b = make_pair("a"), make_pair("b", side=64, tiled=True, blockxsize=64, blockysize=64, compress="deflate")
    with open(b.pan, "r+b") as file:
        file.truncate(os.path.getsize(b.pan) * 7 // 10)
    words = ["--method", "gsa", "--pan", a.pan, b.pan, "--ms", a.ms, b.ms, "--output-dir", tmp_path / "maps"]
    assert run(*words) == 1
    assert sorted(p.name for p in (tmp_path / "maps").iterdir()) == WRITTEN and "b-pan.tif" in capsys.readouterr().err
    with pytest.raises(RunError):
        run(*words, "--strict")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--pan", "P"], "takes its rasters as --pan and --ms"),
        (["--pan", "P", "--ms", "M", "--tta"], "--tta is for other maps"),
        (["--pan", "P", "--ms", "M", "--shift", "1"], "--shift: expected 2 numbers such as 0.5,0.5, got '1'"),
        (["--pan", "P", "--ms", "M", "--shift", "nan,0"], "--shift: expected 2 numbers"),
        (["--pan", "P", "--ms", "M", "--shift=0,-inf"], "--shift: expected 2 numbers"),
        (["--pan", "P", "--ms", "M", "--block-side", "4"], "expected a whole number from 8 to 8192, got '4'"),
        (["--pan", "P", "--ms", "M", "--apron", "-4"], "expected a whole number from 0 to 4096, got '-4'"),
        (["--pan", "P", "--ms", "M", "--bands", "a,b"], "--bands has 2 names"),
        (["--pan", "M", "--ms", "M"], "expected 1"),
        (["--pan", "P", "--ms", "M", "--device", "cuda"], "--device cpu"),
        (["--pan", "P", "--ms", "M", "--method", "gsa"], "pass one of them"),
    ],
)
def test_wrong_usage_is_one_line_before_anything_is_written(make_pair, checkpoint, tmp_path, words, message):
    if "cuda" in words and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    pair = make_pair()
    words = [{"P": pair.pan, "M": pair.ms}.get(w, w) for w in words]
    with pytest.raises(UserError, match=message):
        run("--checkpoint", checkpoint, "--output-dir", tmp_path / "maps", *words)
    assert not (tmp_path / "maps").exists() or not list((tmp_path / "maps").iterdir())


@pytest.mark.parametrize("more", [[], ["--offset", "0"], ["--rgb"], ["--accept-scale"]])
def test_a_network_asks_for_a_scale_that_neither_flag_nor_tag_states(make_pair, checkpoint, tmp_path, more):
    """That of its training would be a guess."""
    pair = make_pair(top=2048)
    with rasterio.open(pair.ms, "r+") as file:
        file.write(np.full((1, 1), 2047, np.uint16), 1, window=((0, 1), (0, 1)))
    words = ["--pan", pair.pan, "--ms", pair.ms, "--output-dir", tmp_path / "maps"]
    with pytest.raises(UserError, match="a-ms.tif is not known; pass --divide-by .*values end at 2047: 11 bit, --divide-by 2047"):
        run("--checkpoint", checkpoint, *words, *more)
    assert not (tmp_path / "maps").exists()
    assert run("--checkpoint", checkpoint, *words, "--divide-by", 2047) == 0


@pytest.mark.parametrize("how", ["flag", "tags"])
@pytest.mark.parametrize("divisor", [100, 1e7])
def test_a_scale_that_makes_no_reflectance_is_refused_until_it_is_insisted_on(make_pair, checkpoint, tmp_path, how, divisor):
    pair = make_pair()
    if how == "tags":
        for path in (pair.pan, pair.ms):
            with rasterio.open(path, "r+") as file:
                file.scales = [1 / divisor] * file.count
    words = ["--checkpoint", checkpoint, "--pan", pair.pan, "--ms", pair.ms, "--output-dir", tmp_path / "maps", "--dry-run"]
    words += ["--divide-by", divisor] if how == "flag" else []
    with pytest.raises(UserError, match="a-ms.tif doesn't fit its scale .divide by 1.*: median reflectance blue .*--accept-scale"):
        run(*words)
    assert run(*words, "--accept-scale") == 0


@pytest.mark.parametrize("words", [["--rgb"], ["--offset", "-1000"]])
def test_what_needs_a_scale_asks_for_it_where_none_is_known(make_pair, tmp_path, words):
    pair = make_pair()
    with pytest.raises(UserError, match="--divide-by"):
        run("--method", "gsa", "--pan", pair.pan, "--ms", pair.ms, *words, "--output-dir", tmp_path / "maps")


def test_an_offset_is_used_with_the_divisor_of_the_tags(make_pair, tmp_path, capsys):
    pair = make_pair()
    words = ["--pan", pair.pan, "--ms", pair.ms, "--output-dir", tmp_path / "maps", "--dry-run", "--offset", "-1000", "--accept-scale"]
    with rasterio.open(pair.ms, "r+") as file:
        file.scales = [0.0001] * 4
    assert run("--method", "gsa", *words) == 0 and "(value + -1000) / 10000 " in capsys.readouterr().err


def test_a_scale_that_differs_from_band_to_band_is_refused_not_passed_over(make_pair, checkpoint, tmp_path):
    pair = make_pair()
    with rasterio.open(pair.ms, "r+") as file:
        file.scales = [0.0001, 0.0001, 0.0001, 0.0002]
    with pytest.raises(UserError, match="a scale for each band"):
        run("--checkpoint", checkpoint, "--pan", pair.pan, "--ms", pair.ms, "--output-dir", tmp_path / "maps", "--dry-run")


def test_only_the_bands_that_are_read_are_asked_for_their_scale(make_pair, tmp_path, capsys):
    pair = make_pair()
    with rasterio.open(pair.pan, "r+") as file:
        file.scales = [1e-4]
    words = ["--method", "gsa", "--pan", pair.pan, "--ms", pair.ms, "--output-dir", tmp_path / "maps", "--dry-run"]
    with rasterio.open(pair.ms, "r+") as file:
        file.scales = [1e-4, 1e-4, 1e-4, 1]
    with pytest.raises(UserError, match="none for band 4"):
        run(*words)
    assert run(*words, "--bands", "1,2,3") == 0 and "(value + 0) / 10000 as the file's tags say" in capsys.readouterr().err
    with rasterio.open(pair.ms, "r+") as file:
        file.colorinterp = [ColorInterp.blue, ColorInterp.green, ColorInterp.red, ColorInterp.alpha]
    assert run(*words) == 0 and "(value + 0) / 10000 as the file's tags say" in capsys.readouterr().err


@pytest.mark.parametrize("how", ["network", "classical"])
@pytest.mark.parametrize("tagged", ["pan", "ms"])
def test_a_scale_that_only_one_of_the_two_states_is_refused(make_pair, checkpoint, tmp_path, tagged, how):
    pair = make_pair()
    with rasterio.open(getattr(pair, tagged), "r+") as file:
        file.scales = [1e-4] * file.count
    which = ["--checkpoint", checkpoint] if how == "network" else ["--method", "gsa"]
    words = [*which, "--pan", pair.pan, "--ms", pair.ms, "--output-dir", tmp_path / "maps", "--dry-run"]
    with pytest.raises(UserError, match="a-pan.tif say .*nothing of a scale.*pass one scale with --divide-by"):
        run(*words)
    assert run(*words, "--divide-by", "10000") == 0


def test_scale_and_offset_of_ms_are_those_of_the_sharpened_raster(make_pair, tmp_path):
    pair = make_pair()
    with rasterio.open(pair.ms, "r+") as file:
        file.scales, file.offsets = (1e-4,) * 4, (-0.1, -0.1, -0.1, -0.2)
    fuse(pair, tmp_path / "out.tif", classical_sharpener("bicubic", pair, SCALE, 64), SCALE)
    with rasterio.open(tmp_path / "out.tif") as file:
        assert file.scales == (1e-4,) * 4 and file.offsets == (-0.1, -0.1, -0.1, -0.2)
    some, _ = select_bands(pair, given=["4", "1"])
    fuse(some, tmp_path / "some.tif", classical_sharpener("bicubic", some, SCALE, 64), SCALE)
    with rasterio.open(tmp_path / "some.tif") as file:
        assert file.offsets == (-0.2, -0.1)


@pytest.mark.parametrize(("nodata", "most"), [(0, 1e-40), (-9999, 0.011), (1e20, 1.1e14)])
def test_a_valid_float_is_never_nodata(make_pair, tmp_path, nodata, most):
    pair = make_pair(dtype=np.float32, top=1, **({"nodata": nodata} if nodata else {}))
    for name, value in (("exact", nodata), ("near", float(np.nextafter(np.float32(nodata), np.float32(1))))):
        sharpener = Sharpener(lambda ms, pan, value=value: torch.full((1, 4, *pan.shape[-2:]), value), 4, "bands", "constant")
        fuse(pair, tmp_path / f"{name}.tif", sharpener, (1.0, 0.0))
        with rasterio.open(tmp_path / f"{name}.tif") as file:
            assert file.nodata == pytest.approx(nodata) and file.dataset_mask().all() and np.abs(file.read() - nodata).max() < most


def test_a_run_killed_when_the_raster_had_just_got_its_name_leaves_nothing_behind(make_pair, tmp_path, monkeypatch):
    pair = make_pair()
    command = ["--pan", pair.pan, "--ms", pair.ms, "--output-dir", tmp_path / "maps", "--method", "bicubic", "--device", "cpu"]
    with monkeypatch.context() as patch:
        patch.setattr("runtime.files.shutil.rmtree", lambda *args, **options: None)
        run(*command)
    assert (tmp_path / "maps" / ".a_sharpened.part" / "rows.tif").exists()
    run(*command)
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == WRITTEN
