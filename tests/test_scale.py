"""Where reflectance comes from: flags, tags, or an error that shows the values; never a guess."""

import numpy as np
import pytest

from raster.scale import Scale, decide_scale, parse_numbers, scale_from_tags
from raster.source import describe
from runtime.errors import UserError


def info(make_raster, **how):
    return describe(make_raster("a.tif", np.full((2, 4, 4), 1200, np.uint16), **how))


def test_numbers_for_all_bands_or_one_a_band():
    assert parse_numbers("10000", "--divide-by", 3) == (10000.0,) * 3
    assert parse_numbers("255,255,10000", "--divide-by", 3) == (255.0, 255.0, 10000.0)
    assert parse_numbers(None, "--offset", 3) is None
    for wrong in ("1,2", "ten", "nan", "1e999", ""):
        with pytest.raises(UserError, match="--divide-by"):
            parse_numbers(wrong, "--divide-by", 3)


def test_flags_give_the_scale(make_raster):
    assert decide_scale(info(make_raster), (0, 1), "ab", (1e4, 255.0), (-1e3, 0.0)) == Scale((1e4, 255.0), (-1e3, 0.0))
    assert decide_scale(info(make_raster), (0, 1), "ab", (1e4, 1e4)) == Scale((1e4, 1e4), (0.0, 0.0))


def test_gdals_band_scale_and_offset_become_divisor_and_offset(make_raster):
    """GDAL: value = stored · scale + offset. Sentinel-2: 0.0001 · stored − 0.1 = (stored − 1000) / 10000."""
    tagged = info(make_raster, scales=(0.0001, 0.0001), offsets=(-0.1, -0.1))
    assert decide_scale(tagged, (0, 1), "ab") == Scale((10_000.0, 10_000.0), (-1000.0, -1000.0))
    assert (1200 + -1000) / 10_000 == pytest.approx(1200 * 0.0001 - 0.1)
    assert decide_scale(tagged, (0,), "a", None, (5.0,)) == Scale((10_000.0,), (5.0,)), "an offset flag wins over the tag"


def test_whole_numbers_without_a_scale_beside_others_with_one_are_refused(make_raster):
    """The silent band would otherwise be reflectances of 1200."""
    half = info(make_raster, scales=(1e-4, 1.0), descriptions=("B04", "B11"))
    for bands in ((0, 1), (1, 0)):
        with pytest.raises(UserError, match=r"none for band 2 \(B11\);.*--divide-by"):
            decide_scale(half, bands, "ab")
    assert decide_scale(half, (0, 1), "ab", (1e4, 1e3)) == Scale((1e4, 1e3), (0.0, 0.0))
    assert decide_scale(half, (0,), "a") == Scale((10_000.0,), (0.0,)), "bands that are not read don't matter"
    with pytest.raises(UserError, match="none for band 1;"):
        scale_from_tags(info(make_raster, offsets=(0, -0.1)), (0, 1))


def test_reflectances_beside_scaled_whole_numbers_are_what_they_are(make_raster):
    from dataclasses import replace

    mixed = replace(info(make_raster, scales=(1e-4, 1.0)), dtypes=("uint16", "float32"))
    assert decide_scale(mixed, (0, 1), "ab") == Scale((10_000.0, 1.0), (0.0, 0.0))


def test_a_divisor_of_the_command_line_mends_tags_that_make_no_sense(make_raster):
    assert decide_scale(info(make_raster, scales=(0.0, 1.0)), (0, 1), "ab", (1e4, 1e4)) == Scale((1e4, 1e4), (0.0, 0.0))


def test_the_tags_of_nasas_products_count_too(make_raster):
    assert scale_from_tags(info(make_raster, tags={"scale_factor": "0.0001", "add_offset": "0"}), (1,)) == Scale((10_000.0,), (0.0,))


def test_flags_win_over_tags(make_raster):
    tagged = info(make_raster, scales=(0.0001, 0.0001), offsets=(-0.1, -0.1))
    assert decide_scale(tagged, (0, 1), "ab", (255.0, 255.0)) == Scale((255.0, 255.0), (0.0, 0.0))


def test_an_unknown_scale_is_refused_with_what_was_found(make_raster):
    path = make_raster("a.tif", np.array([[[0, 0, 10], [20, 4000, 0]]], np.uint16), nodata=0)
    with pytest.raises(UserError, match=r"--divide-by.*--offset.*B8 10/20/4000"):
        decide_scale(describe(path), (0,), ["B8"])


def test_only_an_offset_is_not_enough(make_raster):
    with pytest.raises(UserError, match="--divide-by"):
        decide_scale(info(make_raster), (0,), "a", None, (-1000.0,))


def test_a_scale_of_zero_is_refused(make_raster):
    with pytest.raises(UserError, match="0"):
        decide_scale(info(make_raster), (0,), "a", (0.0,))


@pytest.mark.parametrize("factor", [1, 0.01, 100])
def test_the_scale_never_depends_on_the_values(make_raster, factor):
    values = (np.linspace(0, 200, 16).reshape(1, 4, 4) * factor).astype(np.float32)
    path = make_raster("a.tif", values)
    with pytest.raises(UserError, match="scale"):
        decide_scale(describe(path), (0,), "a")
    assert decide_scale(describe(path), (0,), "a", (1e4,)) == Scale((1e4,), (0.0,))
