"""Who goes where: names, shares, and that no two splits see the same ground."""

import numpy as np
import pytest
from rasterio.crs import CRS
from rasterio.transform import Affine, from_origin

from chipping.splits import assign, describe_leaks, event_of, leaks, matches, parse_share_or_names, select
from runtime.errors import UserError
from vectors.footprint import Ground, footprint, outline, overlapping_pairs, pixel_corners, shared_grounds, window_transform

UTM = CRS.from_epsg(32633)


def square(x, y=4_600_000, side=100, crs=UTM, pixel=10):
    """Outline of side × side pixels whose top left corner is x, y."""
    return outline(crs, from_origin(x, y, pixel, pixel), side, side)


def pairs(outlines, groups=None):
    return [tuple(pair) for pair in overlapping_pairs(outlines, groups).tolist()]


def far_apart(names):
    return {name: square(500_000 + 5_000 * i) for i, name in enumerate(names)}


# --- names ---


def test_a_name_stands_for_the_stem_or_its_leading_parts():
    assert matches("DOVE_20241019", "DOVE") and matches("DOVE_20241019", "DOVE_20241019") and matches("DOVE", "DOVE")
    assert not matches("DOVER_20241019", "DOVE") and not matches("DOVE_20241019", "DOVE_2024") and not matches("X_DOVE", "DOVE")
    assert event_of("EMSR382_AOI01_02") == "EMSR382" and event_of("lonely") == "lonely"


def test_a_name_that_stands_for_nothing_is_an_error_with_the_near_one():
    with pytest.raises(UserError, match="Did you mean 'DOVE'"):
        select({"DOVE_1", "CANAL_1"}, ["DOWE"], "--val")


def test_shares_and_names_are_told_apart():
    assert parse_share_or_names("0.2", "--val") == 0.2
    assert parse_share_or_names("DOVE,CANAL", "--val") == ["DOVE", "CANAL"]
    assert parse_share_or_names(None, "--val") == []
    for wrong in ("1.5", "0", "-0.2", "A,,B", "nan"):
        with pytest.raises(UserError, match="--val"):
            parse_share_or_names(wrong, "--val")


def test_named_scenes_are_held_out_and_the_rest_trains():
    names = ["DOVE_1", "DOVE_2", "CANAL_1", "OAK_1"]
    split = assign(names, far_apart(names), ["DOVE"], ["CANAL_1"])
    assert split == {"DOVE_1": "val", "DOVE_2": "val", "CANAL_1": "test", "OAK_1": "train"}


def test_a_scene_in_both_is_an_error_and_so_is_nothing_left():
    names = ["DOVE_1", "OAK_1"]
    with pytest.raises(UserError, match="both"):
        assign(names, far_apart(names), ["DOVE"], ["DOVE_1"])
    with pytest.raises(UserError, match="left for training"):
        assign(names, far_apart(names), ["DOVE"], ["OAK"])


# --- shares ---


def test_a_share_takes_whole_events_and_depends_only_on_the_seed():
    names = [f"E{e:02}_{tile}" for e in range(20) for tile in range(3)]
    places = far_apart(names)
    split = assign(names, places, 0.2, 0.1, seed=7)
    assert split == assign(names[::-1], places, 0.2, 0.1, seed=7)
    assert split != assign(names, places, 0.2, 0.1, seed=8)
    for event in {event_of(n) for n in names}:
        assert len({split[n] for n in names if event_of(n) == event}) == 1
    counts = {s: list(split.values()).count(s) for s in ("train", "val", "test")}
    assert counts == {"train": 42, "val": 12, "test": 6}


def test_a_share_by_scene_may_divide_an_event():
    names = [f"E1_{tile}" for tile in range(10)]
    split = assign(names, far_apart(names), 0.3, split_by="scene")
    assert list(split.values()).count("val") == 3


def test_events_that_share_ground_stay_together():
    names = [f"E{e}" for e in range(12)]
    places = {name: square(500_000 + 990 * i) for i, name in enumerate(names[:6])}  # a chain: each overlaps the next by one pixel
    places |= {name: square(700_000 + 5_000 * i) for i, name in enumerate(names[6:])}
    for seed in range(10):
        split = assign(names, places, 0.3, seed=seed)
        assert len({split[n] for n in names[:6]}) == 1
        assert not leaks(split, places)


def test_a_share_of_too_few_events_is_an_error():
    with pytest.raises(UserError, match="at least 2 events apart"):
        assign(["E1_1", "E1_2"], far_apart(["E1_1", "E1_2"]), 0.5)


# --- ground ---


def test_overlapping_scenes_leak_and_touching_ones_do_not():
    places = {"a": square(500_000), "b": square(501_000), "c": square(501_990)}  # a touches b, b and c share one pixel's width
    assert leaks({"a": "train", "b": "val", "c": "train"}, places).first(9) == [("b", "val", "c", "train")]
    assert not leaks({"a": "train", "b": "train", "c": "train"}, places)


def test_abutting_scenes_with_rounded_coordinates_pass():
    assert pairs([square(500_000), square(500_999.9999)]) == []


def test_scenes_in_different_coordinate_systems_are_compared_on_the_globe():
    here = square(500_000)
    lon, lat = here.lonlat.mean(axis=0)
    degrees = outline(CRS.from_epsg(4326), from_origin(lon - 1e-3, lat + 1e-3, 1e-5, 1e-5), 200, 200)
    away = outline(CRS.from_epsg(4326), from_origin(lon + 1, lat, 1e-5, 1e-5), 200, 200)
    assert pairs([here, degrees, away]) == [(0, 1)]


def test_scenes_meet_across_the_antimeridian():
    degrees = CRS.from_epsg(4326)
    east = outline(degrees, from_origin(179.9, 0.1, 0.001, 0.001), 200, 200)  # 179.9 … 180.1
    west = outline(degrees, from_origin(-180.0, 0.1, 0.001, 0.001), 200, 200)  # −180 … −179.8
    here = outline(degrees, from_origin(-179.0, 0.1, 0.001, 0.001), 200, 200)  # −179 … −178.8
    utm = outline(CRS.from_epsg(32601), from_origin(160_000, 10_000, 100, 100), 200, 200)  # 179.95 … −179.87
    assert pairs([east, west, here, utm]) == [(0, 1), (0, 3), (1, 3)]


def test_turned_squares_are_told_from_their_boxes():
    """Two squares turned by 45 degrees whose bounding boxes overlap in a corner, but which don't meet."""
    turn = Affine.rotation(45)
    one = outline(UTM, Affine.translation(500_000, 4_600_000) * turn * Affine.scale(10, -10), 100, 100)
    other = outline(UTM, Affine.translation(501_200, 4_601_200) * turn * Affine.scale(10, -10), 100, 100)
    assert pairs([one, other]) == []
    assert pairs([one, outline(UTM, Affine.translation(500_300, 4_600_000) * turn * Affine.scale(10, -10), 100, 100)]) == [
        (0, 1)
    ]


def test_only_pairs_of_different_groups_are_found_where_groups_are_given():
    row = [square(500_000 + 500 * i) for i in range(5)]  # each overlaps the next by half, and touches the one after it
    assert pairs(row) == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert pairs(row, ["a", "a", "b", "b", "a"]) == [(1, 2), (3, 4)]
    same = [square(500_000)] * 4 + [square(500_500)]
    assert pairs(same, ["a", "b", "a", "a", "b"]) == [(0, 1), (0, 4), (1, 2), (1, 3), (2, 4), (3, 4)]


def test_grounds_are_joined_through_others():
    chain = [square(500_000 + 990 * i) for i in (0, 2, 1, 7, 4, 3)] + [None, square(900_000), None]
    assert shared_grounds(chain).tolist() == [0, 0, 0, 3, 0, 0, 6, 7, 8]


def test_pairs_and_grounds_are_those_of_a_pixel_by_pixel_count():
    """Against areas painted into one array, for squares on one grid of pixels."""
    rng = np.random.default_rng(0)
    places = rng.integers(0, 300, (60, 2))
    sides = rng.integers(1, 40, 60)
    outlines = [square(500_000 + 10 * int(x), 4_600_000 - 10 * int(y), int(side)) for (x, y), side in zip(places, sides, strict=True)]
    painted = np.zeros((60, 340, 340), bool)
    for canvas, (x, y), side in zip(painted, places, sides, strict=True):
        canvas[y : y + side, x : x + side] = True
    shared = np.einsum("iyx,jyx->ij", painted.astype(np.int32), painted.astype(np.int32)) > 0
    assert pairs(outlines) == [tuple(p) for p in np.argwhere(np.triu(shared, 1)).tolist()]
    while not (shared @ shared <= shared).all():
        shared = shared @ shared
    assert (shared == np.equal.outer(*[shared_grounds(outlines)] * 2)).all()


def test_hundreds_of_scenes_of_one_ground_are_compared_by_place_and_across_splits(monkeypatch):
    compared = []
    original = Ground.overlap
    monkeypatch.setattr(Ground, "overlap", lambda self, i, j: compared.append(len(i)) or original(self, i, j))
    here, beside = square(500_000), square(500_010)
    names = [f"S{k:04}" for k in range(900)]
    split = {name: "val" if k % 3 == 0 else "train" for k, name in enumerate(names)}
    found = leaks(split, {name: here if k % 2 else beside for k, name in enumerate(names)})
    assert len(found) == 300 * 600 and found.first(1) == [("S0000", "val", "S0001", "train")]
    assert describe_leaks(found, 1) == "S0000 (val) and S0001 (train) and 179999 more pairs"
    assert shared_grounds([here, beside] * 450).max() == 0
    assert sum(compared) < 2000


@pytest.mark.parametrize("val", [0, 1, 20])
def test_scenes_of_one_ground_are_looked_up_for_the_smaller_splits_alone(monkeypatch, val):
    looked_up = []
    original = Ground.near
    monkeypatch.setattr(Ground, "near", lambda self, i: looked_up.append(len(i)) or original(self, i))
    outlines = {f"S{k:04}": square(500_000 + k / 10) for k in range(300)}  # no two at the same place
    split = {name: "val" if k < val else "train" for k, name in enumerate(outlines)}
    found = leaks(split, outlines)
    assert len(found) == val * (300 - val) and sum(looked_up) == val
    assert {tuple(sorted((split[found.names[i]], split[found.names[j]]))) for i, j in found.pairs} <= {("train", "val")}


def test_a_raster_without_crs_has_no_outline_and_leaks_nowhere():
    assert outline(None, from_origin(0, 0, 1, 1), 10, 10) is None
    assert pairs([None, square(500_000), None]) == []
    assert footprint(None, np.zeros((4, 2))) is None


def test_the_transform_of_a_window_is_the_rasters_own_moved():
    turned = Affine.translation(500_000, 4_600_000) * Affine.rotation(30) * Affine.scale(10, -10)
    moved = Affine(*window_transform(turned, 7, 3))
    assert np.allclose(moved * (0, 0), turned * (7, 3)) and np.allclose(moved * (5, 9), turned * (12, 12))
    corners = pixel_corners(turned, (7, 3, 5, 9))
    assert np.allclose(corners[0], turned * (7, 3)) and np.allclose(corners[2], turned * (12, 12))


def test_a_number_that_names_a_scene_is_a_name():
    scenes = ["1", "3", "10_2024", "0.5_x"]
    for text in ("3", "10", "0.5"):
        assert parse_share_or_names(text, "--val", scenes) == [text]
    assert parse_share_or_names("0.2", "--val", scenes) == 0.2
    with pytest.raises(UserError, match="--val expects a share between 0 and 1 or names separated by commas, got 2"):
        parse_share_or_names("2", "--val", scenes)
