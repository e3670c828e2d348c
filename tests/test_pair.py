"""How a pan and an ms raster lie on each other: by georeference, by shape, doubled, shifted, or not at all."""

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp
from rasterio.transform import Affine, from_origin

from raster.pair import PairReader, keys_weights, match_pair
from raster.source import describe
from raster.stack import stack_xml
from runtime.errors import UserError


def write_pair(
    make_raster, pan_shape=(32, 32), ms_shape=(8, 8), bands=4, pan_origin=(0, 0), pan_pixel=10, ms_pixel=40, crs="EPSG:32633", ms=None
):
    x, y = np.meshgrid(np.arange(pan_shape[1]), np.arange(pan_shape[0]))
    pan = (1 + x + 100 * y).astype(np.uint16)
    rng = np.random.default_rng(0)
    ms = rng.integers(1, 999, (bands, *ms_shape)).astype(np.uint16) if ms is None else ms
    at = from_origin(500_000 + pan_origin[0] * pan_pixel, 4_600_000 - pan_origin[1] * pan_pixel, pan_pixel, pan_pixel)
    return (
        make_raster("a-pan.tif", pan, crs=crs, transform=at),
        make_raster("a-ms.tif", ms, crs=crs, transform=from_origin(500_000, 4_600_000, ms_pixel, ms_pixel)),
    )


def test_nested_grids_are_related_by_their_georeference(make_raster):
    pair = match_pair(*write_pair(make_raster))
    assert (pair.ratio, pair.shift, pair.area, pair.step, pair.remarks) == (4, (0, 0), (0, 0, 8, 8), 1, ())
    with PairReader(pair) as reader:
        assert reader.read_pan(2, 1, 1, 1)[0].tolist() == [[1 + x + 100 * y for x in range(8, 12)] for y in range(4, 8)]


def test_a_pan_that_begins_elsewhere_is_read_at_the_right_place_and_limits_the_area(make_raster):
    pair = match_pair(*write_pair(make_raster, pan_shape=(24, 24), pan_origin=(6, 4)))
    assert pair.shift == (-6, -4) and pair.area == (2, 1, 5, 6)
    with PairReader(pair) as reader:
        assert reader.read_pan(2, 1, 1, 1)[0, 0, 0] == 1 + 2 + 0  # ms pixel 2 begins at pan pixel 4 * 2 - 6


def test_a_fraction_of_a_pixel_is_resampled_and_said(make_raster):
    pair = match_pair(*write_pair(make_raster, pan_origin=(-0.5, -0.25)))
    assert pair.shift == (0.5, 0.25) and "(0.500, 0.250)" in pair.remarks[0]
    with PairReader(pair) as reader:
        values = reader.read_pan(2, 2, 2, 2)[0]
    y, x = np.mgrid[8:16, 8:16]
    assert values == pytest.approx(1 + (x + 0.5) + 100 * (y + 0.25), abs=1e-2)  # cubic convolution keeps a ramp


def write_vrt(path, make_raster, *bands):
    """Bands ((dtype, nodata), …) of 8 × 8 pixels that are 1000 times their number, 100 in 8 bits, as one VRT."""
    at = from_origin(500_000, 4_600_000, 40, 40)
    infos = []
    for number, (dtype, nodata) in enumerate(bands, start=1):
        values = np.full((1, 8, 8), number * (100 if dtype == "uint8" else 1000), dtype) + np.arange(8, dtype=dtype)
        infos.append(describe(make_raster(f"{path.stem}{number}.tif", values, transform=at, nodata=nodata)))
    path.write_text(stack_xml(infos, [f"band_{number}" for number in range(1, len(bands) + 1)]))
    return path


def test_bands_of_different_types_are_read_as_the_type_that_holds_all(make_raster, tmp_path):
    pair = match_pair(write_pair(make_raster)[0], write_vrt(tmp_path / "mixed.vrt", make_raster, ("uint8", None), ("uint16", 0)))
    assert pair.dtypes == ("uint16", "uint16")
    with PairReader(pair) as reader:
        assert reader.read_ms(0, 0, 2, 1).tolist() == [[[100, 101]], [[2000, 2001]]]


def test_bands_with_different_nodata_are_refused(make_raster, tmp_path):
    ms = write_vrt(tmp_path / "empty.vrt", make_raster, ("uint16", None), ("uint16", 65535))
    with pytest.raises(UserError, match=r"different nodata values \(None, 65535.0\); give all of them one"):
        match_pair(write_pair(make_raster)[0], ms)


def test_what_touches_a_null_pixel_is_null_after_resampling(make_raster):
    pan, ms = write_pair(make_raster)
    with rasterio.open(pan, "r+") as file:
        values = file.read()
        values[0, 16, 16] = 0
        file.write(values)
    pair = match_pair(pan, ms, shift=(0.5, 0.5))
    with PairReader(pair) as reader:
        null = reader.read_pan(0, 0, 7, 7)[0] == 0
    assert null.sum() == 16 and null[14:18, 14:18].all()


def test_without_georeference_the_shapes_decide_and_it_is_said(make_raster):
    pair = match_pair(*write_pair(make_raster, crs=None))
    assert pair.ratio == 4 and "not both georeferenced" in pair.remarks[0]
    assert pair.fine_transform().is_identity


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pan_shape": (30, 32), "crs": None}, "whole number"),
        ({"pan_pixel": 11}, "don't nest"),
        ({"pan_origin": (500, 0)}, "share no ground"),
        ({"bands": 1}, "multispectral"),
    ],
)
def test_what_does_not_belong_together_is_refused_with_figures(make_raster, options, message):
    with pytest.raises(UserError, match=message):
        match_pair(*write_pair(make_raster, **options))


def test_doubled_pixels_are_noticed_told_and_undone(make_raster):
    small = np.random.default_rng(0).integers(1, 999, (4, 8, 8)).astype(np.float64)
    pair = match_pair(*write_pair(make_raster, ms=small.repeat(2, 1).repeat(2, 2), ms_pixel=20))
    assert (pair.step, pair.ratio, pair.area) == (2, 4, (0, 0, 8, 8)) and "doubled" in pair.remarks[0]
    with PairReader(pair) as reader:
        assert np.array_equal(reader.read_ms(1, 2, 3, 4), small[:, 2:6, 1:4])


def test_a_constant_image_is_not_called_doubled(make_raster):
    assert match_pair(*write_pair(make_raster, ms=np.ones((4, 8, 8), np.uint16))).step == 1


def test_the_fine_grid_of_an_area_begins_where_the_area_does(make_raster):
    pair = match_pair(*write_pair(make_raster)).inside((2, 3, 4, 4))
    assert pair.fine_transform() == Affine(10, 0, 500_080, 0, -10, 4_599_880)
    with pytest.raises(UserError, match="outside"):
        pair.inside((8, 0, 4, 4))


@pytest.mark.parametrize(("georeferenced", "corner"), [("pan", (500_060, 4_599_880)), ("ms", (500_080, 4_599_880)), ("", (6, 12))])
def test_the_fine_grid_is_pans_where_pan_has_one_else_that_of_ms(make_raster, georeferenced, corner):
    pan, ms = write_pair(make_raster, crs=None)
    places = {"pan": (pan, 10), "ms": (ms, 40)}
    if georeferenced:
        path, pixel = places[georeferenced]
        with rasterio.open(path, "r+") as file:
            file.crs, file.transform = "EPSG:32633", from_origin(500_000, 4_600_000, pixel, pixel)
    pair = match_pair(pan, ms, shift=(-2, 0)).inside((2, 3, 4, 4))
    assert pair.fine_transform() * (0, 0) == corner and (pair.fine_crs() is not None) == bool(georeferenced)


def test_cubic_weights_are_one_pixel_at_0_and_symmetric_at_half():
    assert keys_weights(0.0).tolist() == [0, 1, 0, 0]
    assert keys_weights(0.5).tolist() == [-0.0625, 0.5625, 0.5625, -0.0625]


def test_the_real_pairs_are_related_as_their_readme_says(real_data):
    folder = real_data / "pansharpen"
    views = {name: match_pair(folder / f"{name}-pan.tif", folder / f"{name}-ms.tif") for name in ("worldview2", "geoeye1", "spacenet6")}
    assert {n: (p.ratio, p.step, len(p.bands)) for n, p in views.items()} == {
        "worldview2": (4, 1, 8), "geoeye1": (4, 1, 4), "spacenet6": (4, 2, 4)}
    assert any("doubled" in remark for remark in views["spacenet6"].remarks)


@pytest.mark.parametrize("kind", ["mask", "msk", "alpha"])
@pytest.mark.parametrize("shift", [(0, 0), (0.5, 0.5)])
def test_masks_of_the_files_hide_pixels_of_both_images_and_an_alpha_band_is_none_of_the_bands(make_raster, kind, shift):
    pan, ms = np.full((1, 32, 32), 7, np.uint16), np.full((3, 8, 8), 9, np.uint16)
    holes = np.zeros((32, 32), bool), np.zeros((8, 8), bool)
    holes[0][5, 6], holes[1][2, 1:3] = True, True
    for name, values, hole in (("a-pan.tif", pan, holes[0]), ("a-ms.tif", ms, holes[1])):
        shown = np.where(hole, 0, 255)
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=kind == "mask"):
            path = make_raster(name, np.concatenate([values, shown[None].astype(np.uint16)]) if kind == "alpha" else values, crs=None)
            with rasterio.open(path, "r+") as file:
                if kind == "alpha":
                    file.colorinterp = [*[ColorInterp.gray] * len(values), ColorInterp.alpha]
                else:
                    file.write_mask(shown.astype(np.uint8))
    pair = match_pair(path.with_name("a-pan.tif"), path, shift)
    assert len(pair.bands) == 3 and any("alpha" in remark for remark in pair.remarks) == (kind == "alpha")
    with PairReader(pair) as reader:
        read_ms, read_pan = reader.read_ms(*pair.area), reader.read_pan(*pair.area)
    assert (read_ms == np.where(holes[1][: pair.area[3], : pair.area[2]], 0, ms[:, : pair.area[3], : pair.area[2]])).all()
    assert int((read_pan == 0).sum()) == (1 if shift == (0, 0) else 16)


def test_a_mask_writes_the_nodata_of_its_file(make_raster):
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        pan = make_raster("a-pan.tif", np.ones((32, 32), np.int16), crs=None)
        ms = make_raster("a-ms.tif", np.ones((3, 8, 8), np.int16), crs=None, nodata=-9)
        with rasterio.open(ms, "r+") as file:
            file.write_mask(np.eye(8, dtype=np.uint8) * 255)
    with PairReader(match_pair(pan, ms)) as reader:
        assert (reader.read_ms(0, 0, 8, 8) == np.where(np.eye(8) > 0, 1, -9)).all()


def test_near_infrared_that_gdal_calls_alpha_is_a_band_and_hides_nothing(make_raster):
    """GDAL's default for the fourth of four 8-bit bands: what is in it decides, or names for all four."""
    pan = make_raster("a-pan.tif", np.ones((128, 128), np.uint8), crs=None)
    colours = np.random.default_rng(0).integers(1, 250, (4, 32, 32)).astype(np.uint8)
    colours[3, 5:9] = 0
    ms = make_raster("a-ms.tif", colours, crs=None)
    with rasterio.open(ms) as file:
        assert file.colorinterp[3] == ColorInterp.alpha
    pair = match_pair(pan, ms)
    assert pair.bands == ("blue", "green", "red", "nir") and pair.indexes is None and pair.masked == (None, None)
    with PairReader(pair) as reader:
        assert (reader.read_ms(0, 0, 32, 32) == colours).all()
    colours[3] = np.where(colours[3] > 0, 255, 0)
    ms = make_raster("b-ms.tif", colours, crs=None)
    assert match_pair(pan, ms).indexes == (1, 2, 3) and match_pair(pan, ms).masked == (None, 0)
    named = match_pair(pan, ms, bands=("red", "green", "blue", "nir"))
    assert named.indexes is None and named.masked == (None, None)


def test_grey_with_alpha_is_a_pan_and_no_ms(make_raster):
    grey = make_raster("grey.tif", np.full((2, 32, 32), 255, np.uint8), crs=None, photometric="MINISBLACK", alpha="YES")
    ms = make_raster("ms.tif", np.ones((3, 8, 8), np.uint8), crs=None)
    assert match_pair(grey, ms).pan_band == 1
    with pytest.raises(UserError, match="has 1 band besides its alpha band"):
        match_pair(make_raster("pan.tif", np.ones((128, 128), np.uint8), crs=None), grey)
