"""Pixel areas against formulas and places where the answer is known: pytest tests/test_area.py"""

import math

import numpy as np
import pytest
from rasterio.crs import CRS
from rasterio.transform import Affine, from_origin

from raster.area import pixel_areas
from runtime.errors import UserError

EARTH = 510_065_621_724_089  # m², surface of the WGS84 ellipsoid (4π·R² with the authalic radius 6 371 007.1809 m)


def areas(crs, transform, height=4, width=4):
    found = pixel_areas(CRS.from_user_input(crs), transform, height, width)
    return np.broadcast_to(found.of_rows(0, height), (height, width))


def metres_a_degree_squared(latitude):
    """m² of a square degree at a latitude: M(φ)·N(φ)·cos φ·(π/180)², the radii of curvature of WGS84."""
    phi, a, square = math.radians(latitude), 6378137.0, 0.0066943799901413
    n = a / math.sqrt(1 - square * math.sin(phi) ** 2)
    m = a * (1 - square) / (1 - square * math.sin(phi) ** 2) ** 1.5
    return m * n * math.cos(phi) * math.radians(1) ** 2


def test_a_ten_metre_pixel_in_utm_is_a_hundred_square_metres():
    assert np.all(areas("EPSG:32633", from_origin(5e5, 5e6, 10, 10)) == 100)


def test_a_south_up_raster_has_positive_areas():
    assert np.all(areas("EPSG:32633", Affine(10, 0, 5e5, 0, 10, 5e6)) == 100)


def test_a_rotated_grid_in_utm_counts_the_parallelogram():
    turned = Affine.translation(5e5, 5e6) * Affine.rotation(30) * Affine.scale(10, -20)
    assert areas("EPSG:32633", turned) == pytest.approx(200)


def test_us_survey_feet_become_metres():
    # New York state plane, EPSG:2263: one US survey foot is 1200/3937 m.
    assert areas("EPSG:2263", from_origin(1e6, 2e5, 10, 10)) == pytest.approx(100 * (1200 / 3937) ** 2, rel=1e-9)


def test_international_feet_become_metres():
    # Oregon Lambert, EPSG:2992: one foot is 0.3048 m.
    assert areas("EPSG:2992", from_origin(1e6, 1e6, 10, 10)) == pytest.approx(100 * 0.3048**2, rel=1e-9)


@pytest.mark.parametrize("latitude", [-67.0, -0.5, 0.5, 28.0, 39.9, 60.0, 89.0])
def test_degrees_become_metres_by_the_ellipsoid(latitude):
    size = 1e-4
    found = areas("EPSG:4326", from_origin(15, latitude + size / 2, size, size), 1, 1)
    assert found[0, 0] == pytest.approx(metres_a_degree_squared(latitude) * size**2, rel=1e-6)


def test_rows_shrink_towards_the_pole_and_are_equal_along_a_parallel():
    found = areas("EPSG:4326", from_origin(15, 60, 0.01, 0.01), 50, 3)
    assert np.all(np.diff(found[:, 0]) > 0) and np.all(found == found[:, :1])


def test_the_whole_earth_has_its_area():
    assert areas("EPSG:4326", from_origin(-180, 90, 1, 1), 180, 360).sum() == pytest.approx(EARTH, rel=1e-9)


def test_a_grid_whose_centres_lie_on_the_poles_is_cut_there():
    # 181 rows of which the first and last are centred on ±90: half of them is not on earth.
    assert areas("EPSG:4326", from_origin(-180, 90.5, 1, 1), 181, 360).sum() == pytest.approx(EARTH, rel=1e-9)


def test_a_raster_across_the_antimeridian_has_the_same_areas_as_elsewhere():
    here, there = (areas("EPSG:4326", from_origin(lon, -17, 0.01, 0.01), 4, 200) for lon in (179, 20))
    assert np.allclose(here, there, rtol=1e-12)


def test_other_ellipsoids_and_grads_are_respected():
    # NAD27 uses Clarke 1866: a little flatter and larger than WGS84.
    nad27, wgs84 = (areas(crs, from_origin(-100, 40, 0.01, 0.01))[0, 0] for crs in ("EPSG:4267", "EPSG:4326"))
    assert 1e-6 < abs(nad27 / wgs84 - 1) < 1e-3
    # NTF (Paris), EPSG:4807, counts in grads: 100 of them are 90 degrees.
    assert areas("EPSG:4807", from_origin(2, 50, 1e-3, 1e-3))[0, 0] == pytest.approx(metres_a_degree_squared(45) * 0.9e-3**2, rel=1e-3)


def test_a_rotated_geographic_raster_has_the_area_of_its_tilted_pixels():
    turned = Affine.translation(15, 40) * Affine.rotation(30) * Affine.scale(1e-4, -1e-4)
    assert areas("EPSG:4326", turned, 100, 100).mean() == pytest.approx(metres_a_degree_squared(39.997) * 1e-8, rel=1e-4)


def test_web_mercator_is_not_believed():
    """At 60° a metre of Web Mercator is half a metre of ground, so a pixel of 100 m² covers about 25."""
    y = 6378137 * math.log(math.tan(math.radians(75)))
    found = areas("EPSG:3857", from_origin(1e6, y, 10, 10), 300, 300)
    # Spherical Mercator on the ellipsoid: N·cos φ / a in one direction, M / a · cos φ in the other.
    exact = 100 * metres_a_degree_squared(60) / math.radians(1) ** 2 / 6378137**2 * math.cos(math.radians(60))
    assert found[0, 0] == pytest.approx(exact, rel=1e-4)


def test_interpolated_areas_are_the_exact_ones_within_a_ten_thousandth():
    found = pixel_areas(CRS.from_epsg(3857), from_origin(1e6, 8e6, 50, 50), 8000, 500)
    assert found.how == "nodes"
    for row in (0, 1234, 5678, 7999):
        y = 8e6 - 50 * (row + 0.5)
        phi = math.degrees(2 * math.atan(math.exp(y / 6378137)) - math.pi / 2)
        exact = 2500 * metres_a_degree_squared(phi) / math.radians(1) ** 2 / 6378137**2 * math.cos(math.radians(phi))
        assert found.of_rows(row, row + 1)[0, 250] == pytest.approx(exact, rel=1e-4)


def test_a_pole_inside_a_polar_map_is_nothing_special():
    # EPSG:3031 has scale 0.9727 at the pole: 10 m on the map are 10.28 m of ice.
    found = areas("EPSG:3031", from_origin(-50, 50, 10, 10), 10, 10)
    assert found.min() > 105 and found.max() < 106


def test_a_vertical_datum_on_top_changes_nothing():
    assert np.all(areas("EPSG:5972", from_origin(5e5, 6.5e6, 10, 10)) == 100)  # ETRS89 / UTM 32N + NN2000 height


@pytest.mark.parametrize(
    ("transform", "height", "width", "words"),
    [(from_origin(0, 95, 1, 1), 10, 10, "beyond the pole"), (from_origin(-180, 40, 1, 1), 10, 400, "more than once around")],
)
def test_degrees_that_are_not_on_earth_are_refused(transform, height, width, words):
    with pytest.raises(UserError, match=words):
        pixel_areas(CRS.from_epsg(4326), transform, height, width)


def test_without_a_crs_that_leads_to_the_globe_there_are_no_areas():
    assert pixel_areas(None, from_origin(0, 0, 1, 1), 4, 4) is None
    assert pixel_areas(CRS.from_wkt('LOCAL_CS["site",UNIT["metre",1]]'), from_origin(0, 0, 1, 1), 4, 4) is None


def test_a_transform_that_leads_off_the_globe_has_no_areas():
    assert pixel_areas(CRS.from_epsg(32633), from_origin(5e9, 5e9, 10, 10), 60, 60) is None


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (9, 1)])
def test_one_pixel_and_one_row_work_in_every_case(height, width):
    for crs, transform in (
        ("EPSG:32633", from_origin(5e5, 5e6, 10, 10)), ("EPSG:4326", from_origin(15, 40, 1e-4, 1e-4)),
        ("EPSG:3857", from_origin(1e6, 6e6, 10, 10)),
    ):
        assert pixel_areas(CRS.from_user_input(crs), transform, height, width).of_rows(0, height).min() > 0
