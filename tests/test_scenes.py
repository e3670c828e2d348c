"""The scene generator: the same bytes from the same seed, values a sensor could deliver, labels that fit, files in the right form."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.warp import transform_bounds

from constants import SENTINEL2_L2A_BANDS
from synthetic import folders, relief
from synthetic.fields import enlarge, fractal_noise, smooth, spreading_time
from synthetic.imaging import make_clouds
from synthetic.painting import paint_image
from synthetic.place import choose_place
from synthetic.scenes import generate_scene

DATA = Path(os.environ.get("CHIPMILL_DATA", Path(__file__).parents[2] / "shared" / "data"))
B04, B8A, B12 = (SENTINEL2_L2A_BANDS.index(name) for name in ("B04", "B8A", "B12"))


@pytest.fixture(scope="module")
def several_scenes():
    return [generate_scene(seed, 256, 256, cloud_share=0.02, swath_edge=False) for seed in (3, 4, 11, 12)]


def nbr(image):
    return (image[B8A] - image[B12]) / (image[B8A] + image[B12] + 1e-9)


def iou(prediction, truth):
    return (prediction & truth).sum() / max((prediction | truth).sum(), 1)


# --------------------------------------------------------------------------------------------------------------- relief


def test_noise_has_the_promised_mean_and_spread_for_odd_and_tiny_shapes():
    for shape in ((1, 1), (1, 40), (37, 64), (129, 131)):
        noise = fractal_noise(np.random.default_rng(0), shape, 1.5)
        assert noise.shape == shape and noise.dtype == np.float32 and np.isfinite(noise).all()
    assert abs(float(noise.std()) - 1) < 0.35


def test_smoothing_a_constant_gives_that_constant_up_to_the_border():
    assert np.allclose(smooth(np.full((9, 13), 4.0), 2.0), 4.0, atol=1e-5)


def test_enlarging_keeps_constants_and_straight_slopes():
    assert np.allclose(enlarge(np.full((6, 7), 2.5), (24, 28), 4), 2.5, atol=1e-5)
    ramp = enlarge(np.arange(20.0)[:, None] * np.ones((1, 5)), (40, 8), 4, margin=5)
    assert np.allclose(np.diff(ramp[:, 0]), 0.25, atol=1e-4)


def test_water_runs_down_a_ramp_and_gathers_on_the_way():
    height = np.arange(4, dtype=float)[:, None] * np.ones((1, 3))  # falls towards row 0
    receiver = relief.downstream(height).reshape(4, 3)
    assert receiver[1:].tolist() == (np.arange(12).reshape(4, 3)[:-1]).tolist() and receiver[0].tolist() == [0, 1, 2]
    levels = relief.levels_upstream(receiver.ravel())
    assert [len(level) for level in levels] == [3, 3, 3, 3]
    assert relief.drainage_area(receiver.ravel(), levels).reshape(4, 3)[:, 0].tolist() == [4, 3, 2, 1]


def test_spreading_takes_the_distance_at_unit_cost_and_never_passes_a_wall():
    start = np.zeros((3, 5), bool)
    start[1, 0] = True
    cost = np.ones((8, 3, 5), np.float32)
    assert np.allclose(spreading_time(cost, start)[1], [0, 1, 2, 3, 4])
    cost[:, :, 2] = np.inf
    assert np.isinf(spreading_time(cost, start)[:, 2:]).all()


def test_carved_land_has_no_pits():
    floor = np.zeros((40, 50), bool)
    floor[[0, -1]] = True
    height, receiver, levels, area = relief.carve(floor, np.random.default_rng(1), rounding=0.0)
    assert height[~floor].min() > 0
    outlets = np.flatnonzero(receiver == np.arange(receiver.size))
    assert floor.ravel()[outlets].all()
    assert area[outlets].sum() == height.size  # every cell's water leaves over the floor


# --------------------------------------------------------------------------------------------------------------- scenes


def test_the_same_seed_gives_the_same_scene_and_another_seed_another():
    a, b, c = (generate_scene(seed, 96, 80) for seed in (5, 5, 6))
    for field in ("image", "severity", "delineation", "cloud_mask"):
        assert np.array_equal(getattr(a, field), getattr(b, field))
    assert a.place == b.place and a.place != c.place
    assert not np.array_equal(a.image, c.image)


def test_a_seed_keeps_its_place_and_pixels_from_version_to_version():
    """Figures of the first version. A step drawn in another order, or a draw more, makes another country of every seed."""
    scene = generate_scene(5, 96, 80)
    assert scene.name == "PLACE0005" and scene.crs == "EPSG:32629" and scene.transform[2::3] == (536_000, 5_152_000)
    assert (scene.delineation == 1).sum() == 1601
    assert scene.image.mean(axis=(1, 2))[[0, 7, 11]].tolist() == pytest.approx([0.0588, 0.2204, 0.1702], abs=2e-4)


@pytest.mark.parametrize("shape", [(1, 1), (1, 70), (70, 1), (7, 13), (33, 200)])
def test_any_size_works(shape):
    scene = generate_scene(2, *shape)
    assert scene.image.shape == (12, *shape) and scene.image.dtype == np.float32
    assert np.isfinite(scene.image).all()
    assert scene.severity.shape == scene.delineation.shape == scene.cloud_mask.shape == shape


def test_sizes_that_would_make_places_overlap_are_refused():
    with pytest.raises(ValueError, match="2400"):
        generate_scene(0, 2401, 10)


def test_values_and_labels_are_in_their_ranges(several_scenes):
    for scene in several_scenes:
        assert 0 < scene.image.min() and scene.image.max() < 1.2
        assert set(np.unique(scene.severity)) <= {0, 1, 2, 3, 4}
        assert set(np.unique(scene.cloud_mask)) <= {0, 1, 2, 3}
        assert np.array_equal(scene.delineation, (scene.severity > 0).astype(np.uint8))
        burnt = scene.delineation.mean()
        assert 0.6 * scene.place.fire_share < burnt + 0.04 and burnt < 1.3 * scene.place.fire_share + 0.02


def test_no_data_is_zero_in_all_bands_and_255_in_the_labels_and_nowhere_else():
    scene = generate_scene(3, 128, 128, swath_edge=True)
    empty = (scene.image == 0).all(axis=0)
    assert 0.02 < empty.mean() < 0.5
    assert np.array_equal(empty, scene.severity == 255) and np.array_equal(empty, scene.delineation == 255)
    assert (scene.image[:, ~empty] > 0).all()


def test_a_place_without_fire_has_no_label():
    assert generate_scene(3, 96, 96, fire_share=0.0, swath_edge=False).severity.max() == 0


def test_healthy_forest_and_char_have_the_burn_index_of_nature(several_scenes):
    for scene in several_scenes:
        clear = scene.cloud_mask == 0
        index = nbr(scene.image)
        assert np.median(index[clear & (scene.severity == 0)]) > 0.15
        assert np.median(index[clear & (scene.severity == 4)]) < 0.05
        means = [index[clear & (scene.severity == level)].mean() for level in (0, 2, 3, 4)]
        assert means == sorted(means, reverse=True)


def test_the_best_burn_index_threshold_is_useful_but_far_from_perfect(several_scenes):
    """Chosen on the truth of each scene, so no honest threshold does better. Below 0.25 the fire would be invisible; above 0.92 there would
    be nothing for a network to learn."""
    best = [max(iou(nbr(s.image) < t, s.delineation == 1) for t in np.arange(-0.3, 0.5, 0.02)) for s in several_scenes]
    assert all(0.25 < value < 0.92 for value in best), best
    assert np.mean(best) < 0.8


def test_shadows_lie_away_from_the_sun_by_the_height_of_the_cloud():
    place = replace(choose_place(3), cloud_share=0.1, sun_elevation=45.0, sun_azimuth=150.0)
    cover, shadow = make_clouds(np.random.default_rng(0), (300, 300), place)
    base = np.random.default_rng(0).uniform(700, 1800)  # the first draw; at 45 degrees the shadow is as far as the cloud is high
    north, west = round(base / 10 * np.cos(np.pi / 6)), round(base / 10 * np.sin(np.pi / 6))
    assert shadow.any() and np.array_equal(shadow[: 300 - north, : 300 - west], cover[north:, west:])


def test_clouds_are_bright_and_shadows_dark_in_the_infrared():
    scene = generate_scene(3, 256, 256, cloud_share=0.05, swath_edge=False, smoke=False, steepness=0.01)
    cloud, shadow, clear = (scene.cloud_mask == value for value in (1, 3, 0))
    assert np.median(scene.image[B04][cloud]) > 0.3 > np.median(scene.image[B04][clear])
    assert np.median(scene.image[B8A][shadow]) < 0.75 * np.median(scene.image[B8A][clear])


def test_coarse_bands_have_coarse_pixels():
    image = generate_scene(1, 60, 60, swath_edge=False).image
    swir = image[B12].reshape(30, 2, 30, 2)
    assert np.ptp(swir, axis=(1, 3)).max() == 0
    assert np.ptp(image[0].reshape(10, 6, 10, 6), axis=(1, 3)).max() == 0
    assert np.ptp(image[B04].reshape(30, 2, 30, 2), axis=(1, 3)).min() > 0


def test_places_never_overlap():
    places = [choose_place(seed) for seed in range(5250)]
    corners = {(p.epsg, p.left, p.top) for p in places}
    assert len(corners) == 5250
    assert np.diff(sorted({p.left for p in places})).min() >= 24_000
    assert np.diff(sorted({p.top for p in places})).min() >= 24_000
    # The outermost columns of neighbouring zones stay apart at the northern end, where zones are narrowest.
    top = max(p.top for p in places)
    east = transform_bounds("EPSG:32630", "EPSG:4326", 656_000, top - 24_000, 680_000, top)
    west = transform_bounds("EPSG:32631", "EPSG:4326", 320_000, top - 24_000, 344_000, top)
    assert east[2] < west[0]


# ------------------------------------------------------------------------------------------------- painting over labels


def test_painting_over_labels_burns_where_they_say_and_leaves_no_data_empty():
    severity = np.zeros((120, 140), np.uint8)
    severity[30:80, 40:100] = 4
    severity[:, :10] = 255
    image = paint_image(severity, seed=1)
    assert image.shape == (12, 120, 140) and (image[:, :, :10] == 0).all() and (image[:, :, 10:] > 0).all()
    index = nbr(image)
    assert np.median(index[35:75, 45:95]) < 0 < np.median(index[90:, 20:])
    assert np.array_equal(image, paint_image(severity, seed=1))


def test_painting_refuses_labels_it_does_not_know():
    with pytest.raises(ValueError, match="found 9"):
        paint_image(np.full((4, 4), 9), seed=1)


@pytest.mark.skipif(not (DATA / "cems").is_dir(), reason=f"no real CEMS labels under {DATA}")
def test_an_image_can_be_painted_over_real_labels_on_their_own_grid(tmp_path):
    folder = DATA / "cems" / "EMSR382" / "AOI01" / "EMSR382_AOI01_01"
    with rasterio.open(folder / "EMSR382_AOI01_01_GRA.tif") as source:
        severity, crs, transform = source.read(1)[:400, :500], source.crs, source.transform
    image = paint_image(severity, seed=4)
    folders.write_image(tmp_path / "x.tif", image, crs, transform, encoding="reflectance")
    with rasterio.open(tmp_path / "x.tif") as written:
        assert written.crs == crs and written.transform == transform and written.nodata is None
        assert written.dtypes == ("float32",) * 12 and written.shape == severity.shape
        assert np.array_equal(written.read(), image)
    if (severity >= 3).any():
        assert np.median(nbr(image)[severity >= 3]) < np.median(nbr(image)[severity == 0])


# ---------------------------------------------------------------------------------------------------------------- files


def test_the_cems_layout_can_be_read_back(tmp_path):
    (path,) = folders.write_cems_folder(tmp_path, [7], 64, 48, swath_edge=True)
    assert path == tmp_path / "EMSR900/AOI01/EMSR900_AOI01_01/EMSR900_AOI01_01_S2L2A.tif"
    scene = generate_scene(7, 64, 48, swath_edge=True)
    with rasterio.open(path) as image:
        assert image.descriptions == SENTINEL2_L2A_BANDS and image.nodata == 0 and image.dtypes == ("uint16",) * 12
        assert image.crs.to_string() == scene.crs and image.transform[:6] == scene.transform and image.res == (10, 10)
        stored = image.read()
        valid = stored[0] != 0
        assert np.array_equal(valid, scene.severity != 255)
        reflectance = stored * image.scales[0] + image.offsets[0]
        assert np.abs(reflectance - scene.image)[:, valid].max() < 0.5 / 10_000 + 1e-6
        assert np.array_equal(reflectance[:, valid], ((stored - 1000.0) / 10_000)[:, valid].round(6)) or np.allclose(
            reflectance[:, valid], ((stored - 1000.0) / 10_000)[:, valid]
        )
    for layer, expected in (("DEL", scene.delineation), ("GRA", scene.severity), ("CM", scene.cloud_mask)):
        with rasterio.open(path.with_name(f"EMSR900_AOI01_01_{layer}.tif")) as label:
            assert label.transform[:6] == scene.transform and label.nodata is None
            assert np.array_equal(label.read(1), expected)


def test_the_plain_layout_pairs_images_and_masks_by_name(tmp_path):
    paths = folders.write_plain_folder(tmp_path, [1, 2], 40, 40, encoding="reflectance")
    names = [p.name for p in paths]
    assert sorted(p.name for p in (tmp_path / "masks").iterdir()) == sorted(names) == ["PLACE0001.tif", "PLACE0002.tif"]
    with rasterio.open(paths[0]) as image:
        assert image.dtypes[0] == "float32" and image.scales == (1.0,) * 12


def test_the_same_seed_writes_the_same_bytes(tmp_path):
    first = folders.write_plain_folder(tmp_path / "a", [9], 64, 64)[0].read_bytes()
    assert first == folders.write_plain_folder(tmp_path / "b", [9], 64, 64)[0].read_bytes()


def test_an_unknown_encoding_is_named(tmp_path):
    with pytest.raises(ValueError, match="'uint8'"):
        folders.write_image(tmp_path / "x.tif", np.zeros((12, 4, 4), np.float32), "EPSG:32631", (10, 0, 0, 0, -10, 0), "uint8")
