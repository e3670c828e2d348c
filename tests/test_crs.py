"""Points and boxes between CRSs, against formulas and against GDAL: pytest tests/test_crs.py"""

import math

import numpy as np
import pytest
from rasterio.crs import CRS
from rasterio.warp import transform

from raster.crs import LONLAT, NoTransform, as_crs, name_of, transform_box, transform_points, turn_of

LOCAL = CRS.from_wkt('LOCAL_CS["site",UNIT["metre",1]]')


@pytest.mark.parametrize(("crs", "x", "y"), [
    ("EPSG:32633", 5e5, 46e5), ("EPSG:2263", 1e6, 2e5), ("EPSG:4807", 2, 50), ("EPSG:3413", 1e5, -1e6), ("EPSG:5972", 5e5, 65e5),
    ("ESRI:102003", 1e5, 2e5), ("EPSG:31467", 35e5, 54e5),
])
def test_points_are_where_gdal_has_them_east_before_north(crs, x, y):
    crs = CRS.from_user_input(crs)
    steps = np.linspace(0, 1, 7) * (1 if crs.is_geographic else 1e4)
    found = transform_points(crs, LONLAT, x + steps, y - steps)
    assert np.allclose(found, transform(crs, LONLAT, x + steps, y - steps), rtol=0, atol=1e-8)
    back = transform_points(LONLAT, crs, *found)
    assert np.allclose(back, (x + steps, y - steps), rtol=0, atol=1e-3)


def test_web_mercator_is_its_formula():
    x, y = transform_points("EPSG:3857", LONLAT, [1e6], [8e6])
    latitude = 2 * math.atan(math.exp(8e6 / 6378137)) - math.pi / 2
    assert (x[0], y[0]) == pytest.approx((math.degrees(1e6 / 6378137), math.degrees(latitude)))


def test_a_point_without_a_place_is_infinity_however_often_it_is_asked_for():
    for _ in range(30):
        x, y = transform_points("EPSG:32633", LONLAT, [5e5, 5e9, np.nan], [46e5, 5e9, 0])
        assert np.isfinite(x[0]) and x[1] == y[1] == x[2] == y[2] == np.inf
    assert transform_points("EPSG:32633", LONLAT, [], [])[0].shape == (0,)


@pytest.mark.parametrize("pair", [(LOCAL, LONLAT), (LONLAT, LOCAL)])
def test_a_crs_that_leads_nowhere_is_one_clear_error(pair):
    with pytest.raises(NoTransform, match="no transform leads from .*site.* expected a CRS of the globe|from EPSG:4326 to site"):
        transform_points(*pair, [1], [1])
    with pytest.raises(NoTransform):
        transform_box(*pair, (0, 0, 1, 1))


def test_a_crs_that_is_unknown_is_named():
    with pytest.raises(NoTransform, match="the CRS 'EPSG:99' is not known"):
        as_crs("EPSG:99")


def test_one_turn_is_360_in_degrees_and_nothing_in_metres():
    assert turn_of("EPSG:4326") == turn_of("EPSG:4979") == 360 and turn_of("EPSG:32633") == turn_of(CRS.from_epsg(3857)) == 0


def test_a_compound_crs_is_its_horizontal_part():
    assert name_of("EPSG:5972") == "EPSG:25832" and as_crs(CRS.from_epsg(5972)) == as_crs("EPSG:25832")


def test_a_box_across_the_antimeridian_ends_west_of_where_it_begins():
    west, south, east, north = transform_box("EPSG:32760", LONLAT, (810_000, 8_098_000, 830_000, 8_118_000))
    assert 179 < west <= 180 and -180 <= east < -179 and south < north
    assert transform_box("EPSG:32633", LONLAT, (4e5, 46e5, 5e5, 47e5))[0] < 15
