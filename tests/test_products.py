"""Delivered products read as rasters: reflectance, grids, clouds, what is wrong with them: pytest tests/test_products.py"""

import contextlib
import json
import os
import pickle
import shutil
import tarfile
import zipfile

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from product_factory import (
    CORNER,
    CRS,
    LANDSAT,
    STAC_BANDS,
    make_hls,
    make_item,
    make_landsat,
    make_planet,
    make_safe,
    numbers,
    stac_asset,
    stac_item,
    tarred,
    write_raster,
    zipped,
)
from rasterio.crs import CRS as Crs
from rasterio.errors import RasterioIOError
from rasterio.windows import Window

from benchmarks.fake_ard import write_tile
from raster import product_scene as product_scene_module
from raster.package import Place
from raster.product import names_scene
from raster.product_clouds import FORMS
from raster.product_grid import Grid, Placed
from raster.products import list_scenes, product_scene
from raster.reopened import Reopened
from raster.scale import scale_from_tags, to_reflectance
from raster.sensor_bands import scene_for_model
from raster.sentinel2 import number_of
from raster.source import describe, expand, open_raster, scene_name
from runtime import network
from runtime.errors import UserError

BANDS = ("B02", "B03", "B04", "B8A", "B11", "B12")


def reflectance_of(scene):
    """(C, H, W) float64 as everything downstream computes it: stored values, and the scale of the header."""
    info = describe(scene)
    scale = scale_from_tags(info, range(info.count))
    with open_raster(scene) as dataset:
        return to_reflectance(dataset.read().astype(float), scale.divide_by, scale.offset)


def only(path, *bands):
    (scene,) = list_scenes([str(path)])
    return scene.with_bands(bands) if bands else scene


# ------------------------------------------------------------------------------------------------ reflectance


@pytest.mark.parametrize(("level", "baseline", "subtracted"), [
    ("L2A", "03.01", 0), ("L2A", "04.00", 1000), ("L2A", "05.11", 1000), ("L1C", "03.01", 0), ("L1C", "05.10", 1000),
])
def test_sentinel2_is_the_offset_of_its_baseline_away(tmp_path, level, baseline, subtracted):
    safe, pixels = make_safe(tmp_path, level, baseline)
    scene = only(safe, "B02", "B04", "B08")
    found = reflectance_of(scene)
    for band, values in zip(("B02", "B04", "B08"), found, strict=True):
        assert np.allclose(values, (pixels[band].astype(float) - subtracted) / 10_000, atol=1e-9)
    product = scene.product
    assert (product.kind, product.date, product.tile) == (f"Sentinel-2 {level}", "2022-02-05", "T32TQM")
    assert product.level == ("surface" if level == "L2A" else "top of atmosphere") and scene.name == safe.stem == scene_name(scene)


def test_each_band_has_the_offset_and_divisor_that_its_metadata_state(tmp_path):
    safe, pixels = make_safe(tmp_path, offsets={n: -1000 - n for n in range(13)}, quantification=20_000)
    found = reflectance_of(only(safe, "B02", "B8A", "B12"))
    assert np.allclose(found[0], (pixels["B02"].astype(float) - 1001) / 20_000)
    scale = scale_from_tags(describe(only(safe, "B8A", "B12")), (0, 1))
    assert scale.offset == pytest.approx((-1008, -1012)) and scale.divide_by == (20_000, 20_000)


def test_an_archive_reads_as_its_folder(tmp_path):
    safe, _ = make_safe(tmp_path)
    flat = shutil.copytree(safe, tmp_path / "flat" / safe.name)
    for archive in (zipped(safe), zipped(flat, keep_root=False)):
        assert (reflectance_of(only(archive, *BANDS)) == reflectance_of(only(safe, *BANDS))).all()
        assert only(archive).name == safe.stem
    landsat, _ = make_landsat(tmp_path)
    assert (reflectance_of(only(tarred(landsat))) == reflectance_of(only(landsat))).all()


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_archives_as_other_programs_write_them(tmp_path, compression):
    folder, _ = make_landsat(tmp_path)
    archive = tmp_path / f"{LANDSAT}.zip"
    with zipfile.ZipFile(archive, "w", compression) as file:
        for path in sorted(folder.iterdir()):
            file.write(path, f"{LANDSAT}/{path.name}")
    expected = reflectance_of(only(folder))
    assert (reflectance_of(only(archive)) == expected).all()
    assert (reflectance_of(only(tarred(folder, prefix="./"))) == expected).all()  # tar cf x.tar .


def test_an_archive_is_indexed_once_for_all_its_bands(tmp_path, monkeypatch):
    archive, opened = tarred(make_landsat(tmp_path)[0]), []
    monkeypatch.setattr("raster.package.tarfile.open", lambda *words, open=tarfile.open: opened.append(words) or open(*words))
    assert describe(only(archive)).count == 7 and len(opened) == 1


@pytest.mark.parametrize("form", ["txt", "json", "xml"])
def test_landsat_has_the_factors_of_level_2(tmp_path, form):
    folder, pixels = make_landsat(tmp_path, form=form)
    scene = only(folder)
    assert scene.name == LANDSAT and [band.name for band in scene.bands][3:6] == ["red", "nir08", "swir16"]
    found = reflectance_of(scene.with_bands(("B4", "nir08")))
    for band, values in zip(("B4", "B5"), found, strict=True):
        assert np.allclose(values, 0.0000275 * pixels[band] - 0.2, atol=1e-9)
    assert scene.product.tile == "193028" and describe(scene).nodata == 0


@pytest.mark.parametrize(("kind", "names"), [("S30", ("B04", "B8A")), ("L30", ("B04", "B05"))])
def test_hls_has_the_scale_of_its_tags(tmp_path, kind, names):
    folder, pixels = make_hls(tmp_path, kind)
    scene = only(folder)
    found = reflectance_of(scene.with_bands(names))
    for name, values in zip(names, found, strict=True):
        assert np.allclose(values, pixels[name] * 0.0001, atol=1e-9)
    assert scene.product.date == "2022-02-05" and describe(scene).nodata == -9999
    assert scene.name == f"HLS.{kind}.T32TQM.2022036T101211.v2.0"


def test_hls_has_the_scale_of_gdal_too(tmp_path):
    folder, pixels = make_hls(tmp_path)
    with rasterio.open(folder / f"{folder.name}.B04.tif", "r+") as file:
        file.update_tags(scale_factor="7")
        file.scales, file.offsets = (0.0002,), (0.01,)
    assert np.allclose(reflectance_of(only(folder, "B04"))[0], pixels["B04"] * 0.0002 + 0.01, atol=1e-9)


@pytest.mark.parametrize("eight", [True, False])
def test_planetscope_is_ten_thousandths(tmp_path, eight):
    folder, pixels = make_planet(tmp_path, eight)
    found = reflectance_of(only(folder, "blue", "red", "nir"))
    numbers_of = (1, 5, 7) if eight else (0, 2, 3)
    assert np.allclose(found, pixels[list(numbers_of)] / 10_000, atol=1e-9)


def test_an_ard_is_a_scene_a_tile(tmp_path):
    pan, ms = numbers(64, 64, 0)[None], np.stack([numbers(16, 16, n) for n in range(8)])
    write_tile(tmp_path / "ard/37/211111023311/2023-11-30", "104001008E063C00", pan, ms, (400_000, 3_000_000), 16)
    collections = tmp_path / "ard/acquisition_collections"
    collections.mkdir()
    item = "../37/211111023311/2023-11-30/104001008E063C00.json"
    (collections / "a.json").write_text(json.dumps({"links": [{"rel": "item", "href": item}]}))
    scene = only(tmp_path / "ard")
    assert scene.name == "37_211111023311_2023-11-30_104001008E063C00" and scene.product.date == "2023-11-30"
    assert np.allclose(reflectance_of(scene.with_bands(("red", "nir"))), ms[[4, 6]] / 10_000, atol=1e-9)
    assert str(only(tmp_path / "ard/37/211111023311/2023-11-30/104001008E063C00.json")) == str(scene)


# ------------------------------------------------------------------------------------------------ STAC


def test_a_stac_item_has_the_scale_that_it_states(tmp_path):
    path, pixels = make_item(tmp_path)
    scene = only(path, "B04", "B08")
    assert np.allclose(reflectance_of(scene), (np.stack([pixels["B04"], pixels["B08"]]).astype(float) - 1000) / 10_000, atol=1e-9)
    assert [band.name for band in only(path).bands] == [band for band, _ in STAC_BANDS.values()]
    assert scene.name == "S2B_32TQM_20220205_0_L2A" and scene.product.tile == "T32TQM"


def test_the_bands_of_stac_1_1_and_of_one_file_for_all(tmp_path):
    pixels = np.stack([numbers(20, 20, n) for n in range(3)])
    write_raster(tmp_path / "all.tif", pixels, 3, nodata=0)
    bands = [{"name": f"b{n}", "eo:common_name": common, "eo:center_wavelength": nm, "raster:scale": scale, "nodata": 0}
             for n, (common, nm, scale) in enumerate((("green", 0.56, 0.0001), ("red", 0.66, 0.0002), ("nir", 0.84, 0.0001)))]
    item = stac_item({"analytic": {"href": "./all.tif", "type": "image/tiff", "bands": bands}}, "tile one", platform="drone")
    (tmp_path / "item.json").write_text(json.dumps(item))
    scene = only(tmp_path / "item.json", "nir", "red")
    assert np.allclose(reflectance_of(scene), pixels[[2, 1]] * np.array([0.0001, 0.0002])[:, None, None], atol=1e-9)
    assert scene.name == "tile_one"


def test_an_offset_that_is_out_of_the_pixels_already_is_not_subtracted_again(tmp_path):
    path, pixels = make_item(tmp_path, **{"earthsearch:boa_offset_applied": True})
    scene = only(path, "red")
    assert np.allclose(reflectance_of(scene)[0], pixels["B04"] / 10_000, atol=1e-9) and "out of the pixels" in scene.product.remarks[0]


@pytest.mark.parametrize(("baseline", "subtracted"), [("02.14", 0), ("04.00", 1000)])
def test_a_catalogue_that_states_the_baseline_alone(tmp_path, baseline, subtracted):
    values = numbers(20, 20, 0)
    write_raster(tmp_path / "B04.tif", values, 10)
    item = stac_item({"B04": stac_asset("B04.tif", "red", 0.665, "B04", scale=None)}, **{"s2:processing_baseline": baseline})
    (tmp_path / "item.json").write_text(json.dumps(item))
    assert np.allclose(reflectance_of(only(tmp_path / "item.json"))[0], (values.astype(float) - subtracted) / 10_000, atol=1e-9)


@pytest.mark.parametrize(("collection", "names", "expected"), [
    ("HLSS30_2.0", ("B04", "B8A"), ["B04", "B8A"]), ("HLSL30_2.0", ("B04", "B05"), ["red", "nir08"]),
])
def test_assets_whose_keys_alone_name_their_bands(tmp_path, collection, names, expected):
    values = numbers(20, 20, 0).astype(np.int16)
    for name in names:
        write_raster(tmp_path / f"{name}.tif", values, 30, nodata=-9999, tags={"scale_factor": "0.0001", "add_offset": "0"})
    item = stac_item({name: {"href": f"{name}.tif", "type": "image/tiff"} for name in names}) | {"collection": collection}
    item["properties"] = {"datetime": "2022-02-05T10:12:11Z"}
    (tmp_path / "item.json").write_text(json.dumps(item))
    scene = only(tmp_path / "item.json")
    assert [band.name for band in scene.bands] == expected and scene.product.sensor.endswith("(HLS)")
    assert np.allclose(reflectance_of(scene)[1], values / 10_000, atol=1e-9)


def test_hls_of_a_catalogue_with_baselines_keeps_the_scale_and_nodata_of_its_files(tmp_path):
    values = numbers(20, 20, 0).astype(np.int16)
    write_raster(tmp_path / "B04.tif", values, 30, nodata=-9999, tags={"scale_factor": "0.0001", "add_offset": "0"})
    item = stac_item({"B04": {"href": "B04.tif", "type": "image/tiff"}}, **{"s2:processing_baseline": "04.00"})
    (tmp_path / "item.json").write_text(json.dumps(item | {"collection": "HLSS30_2.0"}))
    scene = only(tmp_path / "item.json")
    assert np.allclose(reflectance_of(scene)[0], values / 10_000, atol=1e-9) and describe(scene).nodata == -9999


@pytest.mark.parametrize("baseline", [{"s2:processing_baseline": "05.11"}, {}])
def test_an_offset_that_is_out_of_the_pixels_is_0_without_raster_bands(tmp_path, baseline):
    values = numbers(20, 20, 0)
    write_raster(tmp_path / "B04.tif", values, 10)
    asset = stac_asset("B04.tif", "red", 0.665, "B04", scale=None)
    (tmp_path / "item.json").write_text(json.dumps(stac_item({"red": asset}, **baseline, **{"earthsearch:boa_offset_applied": True})))
    assert np.allclose(reflectance_of(only(tmp_path / "item.json"))[0], values / 10_000, atol=1e-9)


@pytest.mark.parametrize("named", [True, False])
def test_the_finest_of_a_band_at_several_resolutions_is_taken(tmp_path, named):
    assets = {}
    for metres in (60, 10, 20):
        write_raster(tmp_path / f"B02_{metres}m.tif", np.full((120 // metres, 120 // metres), metres * 100, np.uint16), metres)
        write_raster(tmp_path / f"SCL_{metres}m.tif", np.full((120 // metres, 120 // metres), 4, np.uint8), metres)
        assets[f"B02_{metres}m"] = stac_asset(f"B02_{metres}m.tif", "blue", 0.49, "B02" if named else f"B02_{metres}m", gsd=metres)
        assets[f"SCL_{metres}m"] = {"href": f"SCL_{metres}m.tif", "type": "image/tiff"}
    (tmp_path / "item.json").write_text(json.dumps(stac_item(assets)))
    scene = only(tmp_path / "item.json")
    assert [(band.name, band.resolution) for band in scene.bands] == [("B02", 10)] and describe(scene).width == 12
    assert scene.product.clouds.place.path.endswith("SCL_10m.tif")
    assets["again"] = assets["B02_10m"]
    (tmp_path / "item.json").write_text(json.dumps(stac_item(assets)))
    with pytest.raises(UserError, match="two assets for band B02 .B02_10m and again"):
        describe(only(tmp_path / "item.json"))


def test_bands_that_are_called_by_digits_are_taken_by_name(tmp_path):
    pixels = np.stack([numbers(20, 20, n) for n in range(3)])
    write_raster(tmp_path / "all.tif", pixels, 3, nodata=0)
    bands = [{"name": name, "eo:center_wavelength": nm, "raster:scale": 1e-4} for name, nm in (("3", 0.56), ("2", 0.66), ("1", 0.84))]
    item = stac_item({"all": {"href": "all.tif", "type": "image/tiff", "bands": bands}}, platform="drone")
    (tmp_path / "item.json").write_text(json.dumps(item))
    scene = only(tmp_path / "item.json")
    assert [band.name for band in scene.bands] == ["3", "2", "1"]
    for words in (["3", "1"], [3, 1]):
        with open_raster(scene.with_bands(words)) as dataset:
            assert (dataset.read() == pixels[[0, 2]]).all()
    with open_raster(scene_for_model(scene, ["3", "2", "1"])) as dataset:
        assert (dataset.read() == pixels).all()


def test_a_collection_is_a_scene_an_item_and_one_of_them_is_named_by_its_id(tmp_path):
    path, _ = make_item(tmp_path)
    item = json.loads(path.read_text())
    items = [{**item, "id": name} for name in ("b", "a")] + [{**item, "id": "c", "assets": {}}]
    (tmp_path / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    scenes = list_scenes([str(tmp_path / "items.json")])
    assert [scene.name for scene in scenes] == ["a", "b", "c"] and "names no bands" in scenes[2].product.problem
    assert only(f"{tmp_path / 'items.json'}#b").name == "b" and str(scenes[1]) == f"{tmp_path / 'items.json'}#b"
    with pytest.raises(UserError, match="holds 3 scenes"):
        product_scene(str(tmp_path / "items.json"))
    with pytest.raises(UserError, match="no item 'z'; it has b, a, c"):
        list_scenes([f"{tmp_path / 'items.json'}#z"])


def test_a_geotiff_is_taken_where_the_same_band_is_there_as_jpeg_2000(tmp_path):
    path, pixels = make_item(tmp_path)
    item = json.loads(path.read_text())
    item["assets"]["red-jp2"] = {**item["assets"]["red"], "href": "red.jp2", "type": "image/jp2"}
    path.write_text(json.dumps(item))
    assert (reflectance_of(only(path, "red"))[0] > -1).all() and only(path, "red").bands[0].place.path.endswith("red.tif")


# ------------------------------------------------------------------------------------------------ one grid


def slow_bilinear(part, rows, columns, nodata):
    """Bilinear interpolation pixel by pixel, as a textbook has it."""
    height, width = part.shape
    found = np.zeros((len(rows), len(columns)))
    for i, y in enumerate(rows):
        for j, x in enumerate(columns):
            y0, x0 = (min(max(v - 0.5, 0), n - 1) for v, n in ((y, height), (x, width)))
            total = weight = 0.0
            for a in (int(y0), min(int(y0) + 1, height - 1)):
                for b in (int(x0), min(int(x0) + 1, width - 1)):
                    share = max(0.0, 1 - abs(a - y0)) * max(0.0, 1 - abs(b - x0)) / (
                        (1 + (int(y0) == height - 1)) * (1 + (int(x0) == width - 1)))
                    if part[a, b] != nodata:
                        total, weight = total + share * int(part[a, b]), weight + share
            inside = part[min(int(y), height - 1), min(int(x), width - 1)]
            found[i, j] = nodata if inside == nodata else total / weight
    return found


class Held:
    """An array that is read as an open raster of one band."""

    def __init__(self, values, transform):
        self.values, self.transform, self.crs = values, transform, Crs.from_string(CRS)
        self.height, self.width = values.shape
        self.dtypes, self.block_shapes = (values.dtype.name,), [(4, 4)]

    def read(self, index, window):
        rows, columns = window.toslices()
        return self.values[rows, columns]


@settings(max_examples=30)
@given(st.data())
def test_coarser_pixels_are_interpolated_and_nodata_takes_no_part(data):
    height, width, ratio = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6)), data.draw(st.sampled_from((2, 3, 6)))
    values = data.draw(st.lists(st.integers(0, 4000), min_size=height * width, max_size=height * width))
    part = np.array(values, np.uint16).reshape(height, width)
    part[part < 700] = 0
    grid = Grid(width * ratio, height * ratio, Crs.from_string(CRS), Affine(10, 0, 0, 0, -10, 0))
    placed = Placed(Held(part, Affine(10 * ratio, 0, 0, 0, -10 * ratio, 0)), 1, grid, 0)
    whole = placed.read(Window(0, 0, grid.width, grid.height))
    positions = [(np.arange(n * ratio) + 0.5) / ratio for n in (height, width)]
    expected = slow_bilinear(part, *positions, 0)
    assert np.abs(whole - expected).max() <= 0.5 + 1e-3 and ((whole == 0) == (expected == 0)).all()
    column, row = data.draw(st.integers(0, grid.width - 1)), data.draw(st.integers(0, grid.height - 1))
    window = Window(column, row, data.draw(st.integers(1, grid.width - column)), data.draw(st.integers(1, grid.height - row)))
    assert (placed.read(window) == whole[window.toslices()]).all()
    near = Placed(Held(part, Affine(10 * ratio, 0, 0, 0, -10 * ratio, 0)), 1, grid, smooth=False)
    assert (near.read(window) == np.kron(part, np.ones((ratio, ratio), np.uint16))[window.toslices()]).all()


def test_the_grid_is_that_of_the_finest_band_asked_for(tmp_path):
    safe, pixels = make_safe(tmp_path)
    for bands, metres in ((("B01", "B09"), 60), (("B8A", "B11"), 20), (("B11", "B02"), 10)):
        info = describe(only(safe, *bands))
        assert info.transform.a == metres and info.width == 600 // metres and info.descriptions == bands
        assert info.transform.c == CORNER[0] and info.crs.to_string() == CRS
    with open_raster(only(safe, "B02", "B11")) as dataset:
        fine, coarse = dataset.read()
    assert (fine == pixels["B02"]).all() and coarse[0, 0] == pixels["B11"][0, 0]
    corner = pixels["B11"][:2, :2].astype(float)  # a quarter of a coarse pixel from its centre, towards the next ones
    assert abs(coarse[1, 1] - (9 * corner[0, 0] + 3 * corner[0, 1] + 3 * corner[1, 0] + corner[1, 1]) / 16) <= 0.5


def test_ten_metres_that_are_no_whole_number_of_coarse_pixels(tmp_path):
    for name, values, metres in (("B02", numbers(25, 25, 0), 10), ("B11", numbers(12, 12, 1), 20)):
        write_raster(tmp_path / f"{name}.tif", values, metres, nodata=0)
    item = stac_item({b: stac_asset(f"{b}.tif", c, name=b) for b, c in (("B02", "blue"), ("B11", "swir16"))})
    (tmp_path / "item.json").write_text(json.dumps(item))
    with open_raster(only(tmp_path / "item.json")) as dataset:
        assert dataset.read().shape == (2, 25, 25) and (dataset.read(2)[24] == dataset.read(2)[23]).all()


@pytest.mark.parametrize(("change", "words"), [
    ({"crs": "EPSG:32633"}, "warp them to one"), ({"corner": (690_000, CORNER[1])}, "does not cover the ground"),
])
def test_assets_on_other_grids_or_coordinates_are_refused(tmp_path, change, words):
    path, pixels = make_item(tmp_path)
    write_raster(tmp_path / "swir16.tif", pixels["B11"], 20, nodata=0, **change)
    describe(only(path, "red", "nir08"))  # one that is not asked for does no harm
    with pytest.raises(UserError, match=words):
        describe(only(path, "red", "swir16"))


def test_a_mask_inside_a_file_hides_its_pixels(tmp_path):
    path, pixels = make_item(tmp_path)
    shown = np.full(pixels["B11"].shape, 255, np.uint8)
    shown[:3, :5] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(
        tmp_path / "swir16.tif", "w", driver="GTiff", count=1, height=30, width=30, dtype="uint16", crs=CRS,
        transform=Affine(20, 0, CORNER[0], 0, -20, CORNER[1]),
    ) as file:
        file.write(pixels["B11"], 1)
        file.write_mask(shown)
    scene = only(path, "red", "swir16")
    with open_raster(scene) as dataset:
        assert (dataset.dataset_mask(out_shape=(30, 30)) == shown).all()
        assert describe(scene).has_mask and (dataset.dataset_mask() == np.kron(shown, np.ones((2, 2)))).all()


def test_a_scene_goes_to_other_processes_and_stays_what_it_is(tmp_path):
    safe, _ = make_safe(tmp_path)
    scene = only(safe, "B8A", "B04")
    copy = pickle.loads(pickle.dumps(scene))
    assert copy == scene and copy.bands == scene.bands and type(str(copy)) is str
    assert (reflectance_of(copy) == reflectance_of(scene)).all() and pickle.loads(pickle.dumps(scene.clouds())).name == scene.name


def test_a_thinned_reading_takes_every_so_many_th_pixel(tmp_path):
    safe, pixels = make_safe(tmp_path, side=120)
    with open_raster(only(safe, "B04", "B11")) as dataset:
        thin = dataset.read(out_shape=(2, 60, 60))
    assert (thin[1] == pixels["B11"]).all() and thin.shape == (2, 60, 60)


# ------------------------------------------------------------------------------------------------ clouds


@pytest.mark.parametrize(("form", "values", "expected"), [
    ("scl", range(12), [255, 0, 0, 3, 0, 0, 0, 0, 1, 1, 2, 0]),
    ("qa_pixel", [21824, 1, 1 << 1, 1 << 2, 1 << 3, 1 << 4, 1 << 3 | 1 << 4, 1 << 5], [0, 255, 1, 2, 1, 3, 1, 0]),
    ("fmask", [64, 1, 2, 4, 8, 16, 32, 2 | 8, 255], [0, 0, 1, 1, 3, 0, 0, 1, 255]),
])
def test_what_a_cloud_layer_says(form, values, expected):
    assert FORMS[form][1](np.array([list(values)], np.uint16)[None])[0].tolist() == expected


def test_what_layers_of_several_bands_say():
    classi = np.array([[[0, 1, 0, 1]], [[0, 0, 1, 1]]], np.uint8)
    assert FORMS["msk_classi"][1](classi)[0].tolist() == [0, 1, 2, 1]
    udm2 = np.zeros((6, 1, 7), np.uint8)  # clear, snow, shadow, light haze, heavy haze, cloud, nothing
    udm2[np.arange(6), 0, np.arange(6)] = 1
    assert FORMS["udm2"][1](udm2)[0].tolist() == [0, 0, 3, 2, 1, 1, 255]


def test_clouds_lie_on_the_grid_of_the_bands(tmp_path):
    scl = np.random.default_rng(0).integers(0, 12, (30, 30)).astype(np.uint8)
    safe, _ = make_safe(tmp_path, scl=scl)
    meanings = np.array([255, 0, 0, 3, 0, 0, 0, 0, 1, 1, 2, 0])
    for bands, expected in (("B02", np.kron(meanings[scl], np.ones((2, 2)))), ("B8A", meanings[scl]), ("B01", meanings[scl][1::3, 1::3])):
        with open_raster(only(safe, bands).clouds()) as dataset:
            assert (dataset.read(1) == expected).all() and dataset.read(1, window=Window(3, 2, 4, 5)).shape == (5, 4)
    classi = np.zeros((3, 10, 10), np.uint8)
    classi[0, :2], classi[1, 5:] = 1, 1
    with open_raster(only(make_safe(tmp_path / "c", "L1C", classi=classi)[0], "B02").clouds()) as dataset:
        assert np.unique(dataset.read(1)[:12]).tolist() == [1] and np.unique(dataset.read(1)[30:]).tolist() == [2]
    assert only(make_safe(tmp_path / "d", "L1C", "03.01")[0]).clouds() is None


def box_of(left, top, right, bottom):
    """The corners of pixels of 10 m, as a ring on the ground."""
    x, y = CORNER
    return [(x + 10 * column, y - 10 * row) for column, row in ((left, top), (left, bottom), (right, bottom), (right, top))]


def test_polygons_of_clouds_are_burned_where_they_are_read(tmp_path):
    cirrus = [("CIRRUS", [box_of(0, 0, 10, 10)]), ("CIRRUS", [box_of(50, 50, 90, 90)])]
    clouds = [("OPAQUE", [box_of(6, 3, 30, 21), box_of(9, 6, 12, 9)]), *cirrus]
    expected = np.zeros((60, 60), np.uint8)
    expected[:10, :10], expected[50:, 50:], expected[3:21, 6:30] = 2, 2, 1
    expected[6:9, 9], expected[6:9, 10:12] = 2, 0  # the hole
    safe, _ = make_safe(tmp_path, "L1C", "02.09", clouds=clouds)
    for path in (safe, zipped(safe)):
        with open_raster(only(path, "B02").clouds()) as dataset:
            whole = dataset.read(1)
            assert (whole == expected).all() and (dataset.read(1, out_shape=(20, 20)) == expected[1::3, 1::3]).all()
            for window in (Window(5, 2, 9, 8), Window(0, 0, 1, 1), Window(40, 20, 20, 40)):
                rows, columns = window.toslices()
                assert (dataset.read(1, window=window) == expected[rows, columns]).all()
        with open_raster(only(path, "B11").clouds()) as dataset:
            coarse = dataset.read(1)
            assert coarse.shape == (30, 30) and (coarse[25:, 25:] == 2).all() and (coarse[5:10, 7:15] == 1).all()
    with open_raster(only(make_safe(tmp_path / "none", "L1C", "02.09", clouds=[])[0], "B02").clouds()) as dataset:
        assert not dataset.read(1).any()
    file = next(safe.rglob("*.gml"))
    for before, after, words in (("EPSG:8.7.1:32632", "EPSG:8.7.1:32633", "is in EPSG:32633, the bands in EPSG:32632"),
                                 (">OPAQUE<", ">SMOKE<", "clouds of the kind 'SMOKE'"), ("600060 ", "600060 x", "has an outline of"),
                                 ("</eop:Mask>", "", "is not whole")):
        text = file.read_text()
        assert before in text
        file.write_text(text.replace(before, after, 1))
        with pytest.raises(UserError, match=words):
            describe(only(safe, "B02").clouds())
        file.write_text(text)


def test_the_grid_of_clouds_costs_no_bands_once_it_is_known(tmp_path, monkeypatch):
    scene = only(make_safe(tmp_path)[0], "B02", "B11")
    info, asked = describe(scene), []
    monkeypatch.setattr("raster.product_scene.open_place", lambda *words, open=product_scene_module.open_place: (
        asked.append(words[0]) or open(*words)))
    for clouds in (scene.clouds(), pickle.loads(pickle.dumps(scene.clouds()))):
        assert (describe(clouds).width, describe(clouds).transform) == (info.width, info.transform)
    assert set(asked) == {scene.product.clouds.place}


# ------------------------------------------------------------------------------------------------ another sensor's bands


def test_a_model_of_sentinel2_finds_its_bands_in_other_sensors(tmp_path):
    landsat = only(make_landsat(tmp_path)[0])
    found = scene_for_model(landsat, BANDS)
    assert [band.own_name for band in found.bands] == ["B2", "B3", "B4", "B5", "B6", "B7"]
    assert "B02 → blue (-11 nm)" in found.matched and "B8A → nir08 (+0 nm)" in found.matched and "Landsat OLI" in found.matched
    hls = scene_for_model(only(make_hls(tmp_path, "L30")[0]), ["B8A", "B12"])
    assert [band.own_name for band in hls.bands] == ["B05", "B07"]
    assert scene_for_model(only(make_hls(tmp_path)[0]), BANDS).matched == "by name"


@pytest.mark.parametrize("name", ["B08", "B05", "B07", "B09"])
def test_bands_whose_wavelengths_are_apart_are_refused(tmp_path, name):
    landsat, _ = make_landsat(tmp_path)
    with pytest.raises(UserError, match=f"no band within 25 nm of {name}"):
        scene_for_model(only(landsat), ["B04", name])


def test_a_model_of_landsat_finds_its_bands_in_sentinel2(tmp_path):
    scene = only(make_safe(tmp_path)[0])
    nm = [654.6, 864.7, 2200.7]
    found = scene_for_model(scene, ["red", "nir08", "swir22"], "Landsat OLI", nm, "surface")
    assert [band.name for band in found.bands] == ["B04", "B8A", "B12"] and "red → B04 (+10 nm)" in found.matched
    assert [band.name for band in scene_for_model(scene, ["red", "nir08"]).bands] == ["B04", "B8A"]  # names alone, of unknown sensors
    with pytest.raises(UserError, match="no band within 25 nm of red"):
        scene_for_model(scene, ["red"], "Odd", [700.0])
    with pytest.raises(UserError, match="names 1 bands, but the checkpoint wants 2"):
        scene_for_model(scene, ["red", "nir"], given=["B04"])


def test_that_the_training_saw_another_level_is_said(tmp_path):
    scene = only(make_safe(tmp_path, "L1C")[0])
    assert "trained on surface" in scene_for_model(scene, ["B04"], "Sentinel-2 MSI", [664.6], "surface").matched


def test_words_for_bands(tmp_path):
    scene = only(make_safe(tmp_path)[0])
    assert [b.name for b in scene.with_bands(["b4", "nir", "nir08", "coastal", "11"]).bands] == ["B04", "B08", "B8A", "B01", "B11"]
    with pytest.raises(UserError, match="no band 'B10'; it has B01, B02"):
        scene.with_bands(["B10"])
    with pytest.raises(UserError, match="several bands 'rededge'"):
        scene.with_bands(["rededge"])
    with pytest.raises(UserError, match="names a band .* twice"):
        scene.with_bands(["red", "B04"])


# ------------------------------------------------------------------------------------------------ which scenes


def test_products_are_found_by_folders_and_globs(tmp_path):
    for name in ("S2A_MSIL2A_20220101T101211", "S2B_MSIL2A_20220205T101211"):
        make_safe(tmp_path / "safe", name=f"{name}_N0400_R022_T32TQM_20220205T120000")
    write_raster(tmp_path / "safe/other.tif", numbers(6, 6, 0), 10)
    assert len(list_scenes([str(tmp_path / "safe/*.SAFE")])) == 2
    assert [scene_name(scene)[:3] for scene in list_scenes([str(tmp_path / "safe")])] == ["S2A", "S2B", "oth"]
    one = list_scenes([str(tmp_path / "safe/S2A*")])[0]
    assert list_scenes([f"{one}/MTD_MSIL2A.xml"]) == [one] and list_scenes([one]) == [one] and product_scene(str(one)) == one
    with pytest.raises(UserError, match="matches no raster"):
        list_scenes([str(tmp_path / "*.SAFE")])


def together(folder, *products):
    """The files of product folders in one folder."""
    folder.mkdir()
    for product in products:
        for path in product.iterdir():
            shutil.move(path, folder / path.name)
    return str(folder)


def two_landsats(tmp_path):
    first, _ = make_landsat(tmp_path / "1")
    second, _ = make_landsat(tmp_path / "2", seed=50)
    for path in second.iterdir():
        path.rename(path.with_name(path.name.replace("193028", "194028")))
    spoil(second / f"{LANDSAT.replace('193028', '194028')}_MTL.txt", "193028", "194028")
    return first, second


@pytest.mark.parametrize(("make", "band"), [
    (lambda t: [make_hls(t / day, day=day)[0] for day in ("2022036", "2022041")], "B04"),
    (lambda t: [make_planet(t / name, name=name)[0] for name in ("20220205_101211_34_2416", "20220206_101211_34_2416")], "red"),
    (two_landsats, "red"),
])
def test_a_folder_with_the_files_of_several_scenes_has_them_all(tmp_path, make, band):
    products = make(tmp_path)
    expected = [reflectance_of(only(product, band)) for product in products]
    ids = [only(product).name for product in products]
    ids[1] = ids[1].replace("193028", "194028") if band == "red" else ids[1]
    folder = together(tmp_path / "flat", *products)
    write_raster(tmp_path / "flat/other.tif", numbers(6, 6, 0), 10)
    scenes = list_scenes([folder])
    ids = [scene.name for scene in scenes[:2]]
    assert len(set(ids)) == 2 and scenes == [*(f"{folder}#{name}" for name in ids), f"{folder}/other.tif"]
    for scene, values in zip(scenes, expected, strict=False):
        assert (reflectance_of(scene.with_bands([band])) == values).all()
        assert list_scenes([str(scene)]) == [scene] and product_scene(str(scene)).name == scene.name
    with pytest.raises(UserError, match="holds 3 scenes; name one of them"):
        product_scene(folder)
    archive = zipped(folder, keep_root=False)
    assert [scene.name for scene in list_scenes([str(archive)])] == ids
    assert (reflectance_of(only(f"{archive}#{ids[1]}", band)) == expected[1]).all()


def test_rasters_beside_the_files_of_one_scene_are_scenes_too(tmp_path):
    folder, _ = make_hls(tmp_path)
    assert list_scenes([str(folder)]) == [str(folder)]
    write_raster(folder / "ndvi.tif", numbers(6, 6, 0), 10)
    assert list_scenes([str(folder)]) == [f"{folder}#{folder.name}", f"{folder}/ndvi.tif"]
    assert list_scenes([f"{tmp_path}/H*"]) == list_scenes([str(folder)])
    landsat, _ = make_landsat(tmp_path)
    shutil.move(tarred(landsat), landsat)  # unpacked where it was downloaded
    assert list_scenes([str(landsat)]) == [str(landsat)]


def test_one_scene_twice_is_refused(tmp_path):
    folder, _ = make_planet(tmp_path)
    image = next(folder.glob("*_SR_8b.tif"))
    shutil.copy(image, folder / image.name.replace("_8b", "_8b_clip"))
    with pytest.raises(UserError, match="holds 2 of 20220205_101211_34_2416"):
        describe(only(folder))
    hls, _ = make_hls(tmp_path)
    archive = tmp_path / "twice.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for place in "ab":
            for path in hls.iterdir():
                file.write(path, f"{place}/{path.name}")
    with pytest.raises(UserError, match="holds 2 of HLS.S30.T32TQM"):
        describe(only(archive))


def test_what_is_no_product_beside_rasters_is_passed_over_unless_it_is_named(tmp_path):
    rasters = [str(write_raster(tmp_path / "in" / name, numbers(6, 6, 0), 10)) for name in ("a.tif", "b.tif")]
    contents = {"labels.geojson": '{"type": "FeatureCollection", "features": [{"type": "Feature", "geometry": null}]}', "half.json": '{"a"',
                "catalogue.json": '{"type": "Catalog"}', "latin.json": b"{\xe9}", "notes.txt": "x", "old.tar.gz": "x"}
    for name, content in contents.items():
        (tmp_path / "in" / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with zipfile.ZipFile(tmp_path / "in/notes.zip", "w") as archive:
        archive.writestr("notes.txt", "x")
    for pattern in (tmp_path / "in", tmp_path / "in/*", tmp_path / "i*/*"):
        assert list_scenes([str(pattern)]) == rasters
    for name, words in {"labels.geojson": "is no STAC item", "half.json": "is not whole JSON", "catalogue.json": "is a STAC Catalog",
                        "latin.json": "can't be read", "old.tar.gz": "is a compressed archive", "notes.zip": "is no product"}.items():
        for pattern in (name, f"{name[:3]}*{name[-3:]}"):  # by itself, and by a glob of nothing else
            with pytest.raises(UserError, match=words):
                list_scenes([str(tmp_path / "in" / pattern)])
    safe, _ = make_safe(tmp_path / "in")
    item, _ = make_item(tmp_path / "item")
    shutil.copy(item, tmp_path / "in/item.json")
    assert list_scenes([str(tmp_path / "in")]) == [str(safe), *rasters]
    assert list_scenes([str(tmp_path / "in/*")]) == sorted([str(safe), str(tmp_path / "in/item.json"), *rasters])
    (tmp_path / "in/item.json").write_text(item.read_text()[:-5])  # half an item is told
    with pytest.raises(UserError, match="is not whole JSON"):
        list_scenes([str(tmp_path / "in/*")])


def test_a_glob_is_expanded_once(tmp_path, monkeypatch):
    write_raster(tmp_path / "a.tif", numbers(6, 6, 0), 10)
    asked = []
    for module in ("products", "source"):
        monkeypatch.setattr(f"raster.{module}.expand", lambda pattern, expand=expand: asked.append(pattern) or expand(pattern))
    assert len(list_scenes([f"{tmp_path}/*"])) == 1 and len(asked) == 1


def test_a_sign_of_an_item_in_a_folders_name(tmp_path):
    (tmp_path / "q").mkdir()
    raster = str(write_raster(tmp_path / "q#1/a.tif", numbers(6, 6, 0), 10))
    item, _ = make_item(tmp_path / "q#1", prefix="./")
    for pattern in ("q#1/a*.tif", "q#1/a.tif"):
        assert list_scenes([str(tmp_path / pattern)]) == [raster]
    name = json.loads(item.read_text())["id"]
    assert only(f"{item}#{name}").name == name


# ------------------------------------------------------------------------------------------------ what is wrong


def spoil(path, old, new):
    path.write_text(path.read_text().replace(old, new))


@pytest.mark.parametrize(("how", "words"), [
    ({"baseline": "04.00", "offsets": None}, "baseline 04.00 and states no BOA_ADD_OFFSET; pass --divide-by"),
    ({"baseline": "unknown", "offsets": None}, "neither a processing baseline nor BOA_ADD_OFFSET"),
    ({"offsets": {0: -1000}}, "states no BOA_ADD_OFFSET for B02"),
    ({"offsets": {n: "x" for n in range(13)}}, "that is no number"),
    ({"quantification": "many"}, "states no BOA_QUANTIFICATION_VALUE"),
])
def test_a_scale_that_is_not_stated_is_not_guessed(tmp_path, how, words):
    safe, _ = make_safe(tmp_path, **how)
    info = describe(only(safe, "B04"))
    with pytest.raises(UserError, match=words):
        scale_from_tags(info, [0])


def test_products_that_are_damaged_say_so_where_they_are_opened(tmp_path):
    safe, _ = make_safe(tmp_path)
    place = only(safe, "B11").bands[0].place.path
    whole = open(place, "rb").read()
    for content in (whole[: len(whole) // 2], whole[:-1]):
        open(place, "wb").write(content)
        with pytest.raises(UserError, match="B11_20m.jp2 is cut short"):
            describe(only(safe, "B11"))
    describe(only(safe, "B04"))
    os.remove(place)
    with pytest.raises(UserError, match="B11_20m.jp2 is missing; download the product again"):
        describe(only(safe, "B04", "B11"))
    metadata = safe / "MTD_MSIL2A.xml"
    text = metadata.read_text()
    for content, words in ((text[:900], "is not whole"), (f"<!DOCTYPE x>{text}", "declares entities"),
                           (text.replace("GRANULE/", "../GRANULE/"), "outside of")):
        metadata.write_text(content)
        with pytest.raises(UserError, match=words):
            describe(only(safe))
    metadata.unlink()
    with pytest.raises(UserError, match="has no MTD_MSIL2A.xml or MTD_MSIL1C.xml"):
        describe(only(safe))


def test_a_band_that_an_archive_lacks_is_missing_as_in_a_folder(tmp_path):
    safe, _ = make_safe(tmp_path)
    image = "GRANULE/L2A_T32TQM_A025687_20220205T101206/IMG_DATA/R20m/T32TQM_20220205T101211_B11_20m.jp2"
    os.remove(safe / image)
    archive = zipped(safe)
    describe(only(archive, "B04"))
    with pytest.raises(UserError) as caught:
        describe(only(archive, "B04", "B11"))
    assert str(caught.value) == f"{archive} has no {safe.name}/{image}; download it again"
    assert isinstance(caught.value.__cause__, RasterioIOError)  # by which cutting leaves a scene out, and goes on
    with zipfile.ZipFile(archive, "r") as file:
        place = file.getinfo(f"{safe.name}/MTD_MSIL2A.xml").header_offset
    content = bytearray(archive.read_bytes())
    content[place + 200] ^= 1
    archive.write_bytes(content)
    with pytest.raises(UserError, match="its checksum is another one.; download it again"):
        describe(only(archive))


def test_entities_in_another_encoding_are_found(tmp_path):
    safe, _ = make_safe(tmp_path)
    text = (safe / "MTD_MSIL2A.xml").read_text().partition("?>")[2]
    entity = f'<!DOCTYPE x [<!ENTITY y "z">]>{text.replace("Sentinel-2B", "&y;")}'
    for encoding in ("utf-16", "utf-16-le"):
        (safe / "MTD_MSIL2A.xml").write_bytes(f'<?xml version="1.0" encoding="UTF-16"?>{entity}'.encode(encoding))
        with pytest.raises(UserError, match="is not whole"):
            describe(only(safe))
    (safe / "MTD_MSIL2A.xml").write_bytes(f"\ufeff{text.strip()}".encode())
    describe(only(safe, "B04"))


def test_numbers_and_dates_of_a_stranger_are_no_tracebacks(tmp_path):
    hls, _ = make_hls(tmp_path / "in", day="2022400")
    good, _ = make_hls(tmp_path / "in")
    assert list_scenes([str(tmp_path / "in")]) == [str(good), str(hls)]
    with pytest.raises(UserError, match="names no day of a year .2022400, 101211."):
        describe(only(hls))
    assert number_of(10**400) is None and number_of("9" * 400) is None and number_of("12.5") == 12.5
    item, _ = make_item(tmp_path / "item", **{"eo:cloud_cover": 10**400, "datetime": "5 Feb 2022"})
    scene = only(item)
    assert describe(scene).count == 7 and not names_scene("32TQM_20220205", scene.product)
    safe, _ = make_safe(tmp_path)
    spoil(safe / "MTD_MSIL2A.xml", 'band_id="3"', 'band_id="\u00b2"')
    assert "is no number" in only(safe).product.scale_unknown


def test_no_signature_of_an_address_is_printed(tmp_path, monkeypatch):
    address = "https://example.org/red.tif"
    assert str(Place(f"{address}?sig=secret")) == address
    assert network.without_signature(f"{address}?sig=secret#a, s3://b/c?x=1) a?b") == f"{address}#a, s3://b/c a?b"
    values = write_raster(tmp_path / "red.tif", numbers(20, 20, 0), 10)
    other = write_raster(tmp_path / "other.tif", numbers(20, 20, 0), 10, crs="EPSG:32633")
    files = {"red": values, "blue": other, "gone": tmp_path / "gone.tif"}

    def opened(place):
        key = place.path.partition("?")[0].rpartition("/")[2].removesuffix(".tif")
        if key == "gone":
            raise UserError(f"{place.path} can't be opened as a raster ({place.path[:-2]})")
        return Reopened(lambda: rasterio.open(files[key]))

    monkeypatch.setattr(Place, "opened", opened)
    signed = {key: stac_asset(f"https://example.org/{key}.tif?sig=secret", common, name=common)
              for key, common in (("red", "red"), ("blue", "blue"), ("gone", "green"))}
    signed["nir"] = {**stac_asset("https://example.org/red.tif?sig=secret", "nir"), "bands": [{}, {"name": "B08", "eo:common_name": "nir"}]}
    scene = only(write_item(tmp_path, signed))
    for bands, words in ((["red", "blue"], "blue.tif is in EPSG:32633"), (["nir"], "red.tif has 1 bands"), (["green"], "can't be opened")):
        with pytest.raises(UserError, match=words) as caught:
            describe(scene.with_bands(bands))
        assert "secret" not in str(caught.value)


def test_no_signature_of_an_address_is_in_the_error_of_a_read():
    class Failing:
        def read(self):
            raise RasterioIOError("Read failed") from RuntimeError("/vsicurl/https://a.org/b.tif?sig=secret: 403")

        def close(self):
            pass

    with pytest.raises(RasterioIOError) as caught:
        Reopened(Failing).read()
    assert str(caught.value) == "/vsicurl/https://a.org/b.tif 403" and caught.value.__cause__ is None


def test_landsat_products_that_cannot_be_used(tmp_path):
    for number, (how, words) in enumerate((
        ({"satellite": "LANDSAT_5"}, "is of LANDSAT_5 L2SP 02; expected Landsat 8 or 9"), ({"level": "L1TP"}, "is of LANDSAT_9 L1TP"),
    )):
        with pytest.raises(UserError, match=words):
            describe(only(make_landsat(tmp_path / str(number), **how)[0]))
    folder, _ = make_landsat(tmp_path / "factors", factors=False)
    with pytest.raises(UserError, match="has no REFLECTANCE_MULT_BAND_1"):
        scale_from_tags(describe(only(folder)), [0])
    folder, _ = make_landsat(tmp_path / "cut")
    spoil(folder / f"{LANDSAT}_MTL.txt", "END_GROUP = LANDSAT_METADATA_FILE\nEND\n", "")
    with pytest.raises(UserError, match="no END"):
        describe(only(folder))


def test_archives_that_cannot_be_used(tmp_path):
    landsat, _ = make_landsat(tmp_path)
    inner = tarred(landsat)
    with tarfile.open(tmp_path / "outer.tar", "w") as outer:
        outer.add(inner, inner.name)
    with pytest.raises(UserError, match=f"holds the archive {inner.name}: unpack it once"):
        list_scenes([str(tmp_path / "outer.tar")])
    (tmp_path / "a.tar.gz").write_bytes(b"x")
    with pytest.raises(UserError, match="is a compressed archive"):
        list_scenes([str(tmp_path / "a.tar.gz")])
    with zipfile.ZipFile(tmp_path / "notes.zip", "w") as archive:
        archive.writestr("notes.txt", "x")
    with pytest.raises(UserError, match="is no product that is read as delivered; expected Sentinel-2"):
        list_scenes([str(tmp_path / "notes.zip")])
    safe, _ = make_safe(tmp_path)
    cut = zipped(safe)
    cut.write_bytes(cut.read_bytes()[:-3000])
    with pytest.raises(UserError, match="cannot be read as an archive"):
        describe(only(cut))


def test_no_member_of_an_archive_leads_elsewhere(tmp_path):
    safe, _ = make_safe(tmp_path)
    secret = write_raster(tmp_path / "secret.tif", numbers(60, 60, 0), 10)
    image = safe / "GRANULE/L2A_T32TQM_A025687_20220205T101206/IMG_DATA/R10m/T32TQM_20220205T101211_B04_10m.jp2"
    image.write_text(f'<VRTDataset rasterXSize="60" rasterYSize="60"><VRTRasterBand dataType="UInt16" band="1"><SimpleSource>'
                     f"<SourceFilename>{secret}</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>")
    with pytest.raises(UserError, match="can't be opened as a raster"):
        describe(only(zipped(safe), "B04"))


def write_item(folder, assets, **more):
    path = folder / "item.json"
    path.write_text(json.dumps({**stac_item(assets), **more}))
    return path


@pytest.mark.parametrize(("assets", "words"), [
    ({"data": {"href": "a.tif", "type": "image/tiff"}}, "names no bands"),
    ({"a": stac_asset("a.tif", "red"), "b": stac_asset("b.tif", "red")}, "two assets for band B04"),
    ({"red": stac_asset("../a.tif", "red")}, "outside of"),
    ({"red": stac_asset("/etc/passwd.tif", "red")}, "outside of"),
    ({"red": stac_asset("file:///a.tif", "red")}, "leads to 'file:///a.tif'; expected https://"),
    ({"red": {**stac_asset("a.tif", "red"), "raster:bands": "x"}}, "no STAC item that can be read"),
])
def test_items_that_cannot_be_used(tmp_path, assets, words):
    scene = only(write_item(tmp_path, assets))
    with pytest.raises(UserError, match=words):
        scene.with_bands(["red"])


def test_json_that_is_no_item(tmp_path):
    for content, words in (('{"type": "Collection"}', "is a STAC Collection; expected an item"), ('{"a"', "is not whole JSON"),
                           ('{"type": "FeatureCollection", "features": [{"type": "Feature"}]}', "is no STAC item")):
        (tmp_path / "a.json").write_text(content)
        with pytest.raises(UserError, match=words):
            list_scenes([str(tmp_path / "a.json")])
    twice = json.loads(make_item(tmp_path)[0].read_text())
    (tmp_path / "a.json").write_text(json.dumps({"type": "FeatureCollection", "features": [twice, twice]}))
    with pytest.raises(UserError, match="holds two items"):
        list_scenes([str(tmp_path / "a.json")])


def test_a_local_item_leads_to_no_server_unless_that_is_allowed(tmp_path, monkeypatch):
    monkeypatch.setattr("raster.source.open_allowed", lambda path: pytest.fail(f"it asked for {path}"))
    scene = only(write_item(tmp_path, {"red": stac_asset("http://127.0.0.1:9/red.tif", "red")}), "red")
    with pytest.raises(UserError, match="leads to http://127.0.0.1:9; pass --allow-network"):
        describe(scene)
    monkeypatch.setitem(network.allowed, "everywhere", True)
    with pytest.raises(BaseException, match="it asked for http"), contextlib.suppress(UserError):
        describe(scene)
