"""Pictures: stretches that can be compared, colours that mean something, sheets that hold every case with its words."""

import io

import numpy as np
import pytest
from PIL import Image, ImageFont

from classes import class_set
from constants import IGNORE, SENTINEL2_L2A_BANDS
from mapping.preview import preview
from pictures.brightness import OKLAB, PAN, gain_for, middle, show_light
from pictures.chip_sheets import label_sheet, pair_sheet, sample_sheet
from pictures.encoding import png_bytes, save_png
from pictures.overlays import FALSE_ALARM, FOUND, MISSED, NODATA_COLOUR, class_overlay, class_picture, error_picture, probability_picture
from pictures.sheets import contact_sheet, cut_text, fit_within, place_header
from pictures.stretch import any_picture, burn_colour, natural_colour
from raster.colour import bands_to_oklab

FIRE = class_set(("background", "fire"))
BGR = ("blue", "green", "red")


def cell(sheet, case, column, side=192, columns=3, across=1, top=24, pitch=224):
    """The picture of a case in a sheet, by the layout that contact_sheet describes. pitch: pixels from row to row"""
    left = 8 + case % across * (columns * (side + 8) - 8 + 24) + column * (side + 8)
    row = top + case // across * pitch
    return sheet[row : row + side, left : left + side]


# --- stretches -----------------------------------------------------------------------------------------------------------------


def test_the_stretch_is_fixed_so_that_neighbouring_tiles_fit():
    image = np.random.default_rng(0).uniform(0.01, 0.2, (12, 8, 8)).astype(np.float32)
    whole = natural_colour(image, SENTINEL2_L2A_BANDS)
    assert np.array_equal(whole[:, :4], natural_colour(image[:, :, :4], SENTINEL2_L2A_BANDS))


def test_natural_colour_shows_red_as_red_and_full_brightness_at_its_top():
    image = np.zeros((12, 1, 3), np.float32)
    image[3, 0, 0] = 0.21  # B04
    image[:, 0, 1] = 0.9
    assert natural_colour(image, SENTINEL2_L2A_BANDS)[0].tolist() == [[255, 0, 0], [255] * 3, list(NODATA_COLOUR)]


def test_bands_are_found_by_role_and_missing_ones_give_no_picture():
    image = np.full((5, 2, 2), 0.1, np.float32)
    names = ("TCI_R", "TCI_G", "TCI_B", "B8", "B12")
    assert natural_colour(image, names)[0, 0].tolist() == [26, 26, 26]  # a finished picture is shown as it is
    assert burn_colour(image, names) is not None
    assert burn_colour(image[:3], names[:3]) is None
    assert natural_colour(image[3:], names[3:]) is None
    assert any_picture(image[3:], names[3:]).shape == (2, 2, 3)


def test_nan_is_no_data_and_not_black():
    image = np.full((12, 1, 2), 0.1, np.float32)
    image[3, 0, 1] = np.nan
    assert natural_colour(image, SENTINEL2_L2A_BANDS)[0, 1].tolist() == list(NODATA_COLOUR)


def test_the_error_picture_counts_by_colour():
    truth = np.array([[0, 1, 1, 0, 255, 1]], np.uint8)
    prediction = np.array([[0, 1, 0, 1, 1, 255]], np.uint8)
    got = [tuple(c) for c in error_picture(truth, prediction)[0].tolist()]
    assert got[1:] == [FOUND, MISSED, FALSE_ALARM, NODATA_COLOUR, NODATA_COLOUR]


def test_severity_counts_as_burned_in_the_error_picture():
    got = error_picture(np.array([[4]]), np.array([[2]]))
    assert tuple(got[0, 0].tolist()) == FOUND


def test_no_background_of_an_error_picture_is_taken_for_nodata():
    white = np.full((1, 2, 3), 255, np.uint8)
    picture = error_picture(np.array([[0, IGNORE]]), np.array([[0, 0]]), white)
    assert picture[0, 0].max() < 0.85 * min(NODATA_COLOUR) and tuple(picture[0, 1].tolist()) == NODATA_COLOUR


def test_an_overlay_leaves_background_and_no_data_alone():
    ground = np.full((1, 3, 3), 100, np.uint8)
    shown = class_overlay(ground, np.array([[0, 1, 255]], np.uint8), ((0, 0, 0), (200, 0, 100)), opacity=0.5)
    assert shown[0].tolist() == [[100] * 3, [150, 50, 100], [100] * 3]


def test_a_class_map_survives_as_png_with_its_exact_colours():
    classes = np.random.default_rng(1).integers(0, 3, (40, 50)).astype(np.uint8)
    picture = class_picture(classes, ((0, 0, 0), (230, 74, 25), (1, 2, 3)))
    again = np.asarray(Image.open(io.BytesIO(png_bytes(picture))).convert("RGB"))
    assert np.array_equal(again, picture)


def test_probability_runs_from_dark_to_bright_and_nan_is_no_data():
    picture = probability_picture(np.array([[0.0, 0.25, 0.5, 0.75, 1.0, np.nan]]))
    lightness = picture[0, :5].astype(int).sum(axis=1)
    assert (np.diff(lightness) > 0).all() and tuple(picture[0, 5].tolist()) == NODATA_COLOUR


def test_a_contact_sheet_holds_every_case(tmp_path):
    tile = np.full((10, 20, 3), 7, np.uint8)
    sheet = contact_sheet([[tile, tile], [tile, tile], [tile, tile]], ["scene", "map"], ["a", "b", "c"], side=40)
    assert sheet.shape[1] == 8 + 2 * 48 and (sheet == 7).all(axis=2).sum() == 6 * 40 * 20
    save_png(tmp_path / "sheet.png", sheet)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "sheet.png")), sheet)
    assert [p.name for p in tmp_path.iterdir()] == ["sheet.png"]


def test_cases_side_by_side_fill_line_after_line():
    tiles = [np.full((4, 4, 3), 10 + i, np.uint8) for i in range(5)]
    sheet = contact_sheet([[tile, tile] for tile in tiles], ["a", "b"], list("abcde"), side=20, across=2, title="title")
    for i in range(5):
        for column in range(2):
            assert (cell(sheet, i, column, side=20, columns=2, across=2, top=48, pitch=52) == 10 + i).all()
    assert sheet.shape == (48 + 3 * 52, 8 + 48 + 24 + 48 + 8, 3)


def test_a_legend_shows_its_colours_and_wraps_in_a_narrow_sheet():
    tile = np.zeros((8, 8, 3), np.uint8)
    legend = ((FIRE.colours[1], "burned area"), ((1, 2, 3), "something quite different"), ((4, 5, 6), "ignore"))
    sheet = contact_sheet([[tile]], ["x"], side=200, title="classes", legend=legend)
    for colour, _ in legend:
        assert (sheet == colour).all(axis=2).sum() >= 100
    font = ImageFont.load_default(size=14)
    lines = [line for line, *_ in place_header("classes", legend, font, 216)]
    assert lines == sorted(lines) and lines[-1] == 2
    assert [line for line, *_ in place_header("classes", legend, font, 2000)] == [0] * 4


def test_a_caption_longer_than_its_case_is_cut():
    font = ImageFont.load_default(size=14)
    text = cut_text("a very long name of a scene, of a tile, of a strip", font, 120)
    assert text.endswith("…") and 90 < font.getlength(text) <= 120 and cut_text("short", font, 120) == "short"
    tile = np.full((8, 8, 3), 250, np.uint8)
    sheet = contact_sheet([[tile], [tile]], [""], ["W" * 99, ""], side=60, across=2)
    assert (sheet[:, 8 + 60 : 8 + 60 + 24] == (250, 250, 248)).all()  # the gap between the two


def test_a_picture_is_reduced_by_averaging_and_never_enlarged():
    picture = np.zeros((4, 8, 3), np.uint8)
    picture[:, ::2] = 200
    assert fit_within(picture, 4).tolist() == np.full((2, 4, 3), 100).tolist() and fit_within(picture, 8) is picture


# --- sheets of chips -----------------------------------------------------------------------------------------------------------


def test_a_sheet_of_patches_shows_classes_nodata_and_brightness_as_they_are():
    image = np.stack([np.full((8, 8), level, float) for level in (0.1, 0.1, 0.1)])
    dark, bright, label = image, 3 * image, np.zeros((8, 8), np.uint8)
    label[:, :4], label[7] = 1, 255
    dark[:, 7] = 0
    sheet = label_sheet([(dark, label), (bright, label)], BGR, "mask", FIRE, ["a", "b"], "chips")
    shown = [cell(sheet, i, 0, columns=2, across=2, top=48)[80, 80] for i in (0, 1)]
    assert (shown[0] < 20).all() and (shown[1] > 235).all()  # one stretch for both
    assert tuple(cell(sheet, 0, 0, columns=2, across=2, top=48)[-5, 5]) == NODATA_COLOUR
    classes = cell(sheet, 0, 1, columns=2, across=2, top=48)
    assert tuple(classes[80, 40]) == FIRE.colours[1] and tuple(classes[80, 150]) == (0, 0, 0)
    assert tuple(classes[-5, 5]) == NODATA_COLOUR


def test_a_sheet_of_pan_and_ms_shows_all_under_one_gain():
    grey = np.full((3, 48, 48), 0.2, np.float32)
    chips = [(f * grey[:1], f * grey[:, :12, :12], BGR, f * grey, BGR) for f in (1, 0.5)]
    sheet = pair_sheet(chips, ["0.pt", "1.pt"], "chips")
    levels = np.array([[cell(sheet, i, c, across=2, top=48)[96, 96].mean() for c in range(3)] for i in (0, 1)])
    assert (levels[0] > levels[1] + 40).all() and (levels[0] > 200).all()
    assert np.ptp(levels, axis=1).max() < 12  # grey ground is as bright in pan as in ms and truth
    oklab = bands_to_oklab(grey, BGR)
    kept = pair_sheet([(grey[:1], grey[:, :12, :12], BGR, oklab, OKLAB)], ["0.pt"], "chips")
    assert np.abs(cell(kept, 0, 2, top=48).astype(int) - cell(sheet, 0, 2, across=2, top=48)).max() <= 1


def test_bands_without_a_colour_are_shown_as_the_first_three_and_pan_as_grey():
    image = np.zeros((4, 2, 2), np.float32)
    image[0], image[1] = 0.5, 0.25
    assert show_light(image, ("a", "b", "c", "d"), 2.0)[0, 0].tolist() == [255, round(255 * 0.5 ** (1 / 2.2)), 0]
    assert show_light(image[:1], PAN, 1.0)[0, 0].tolist() == [round(255 * 0.5 ** (1 / 2.2))] * 3


@pytest.mark.parametrize("bands", [BGR, OKLAB, ("a", "b", "c")], ids=str)
def test_the_gain_of_an_image_makes_its_bright_pixels_nearly_white(bands):
    image = np.random.default_rng(0).uniform(0.01, 0.08, (3, 40, 40)).astype(np.float32)
    image = bands_to_oklab(image, BGR) if bands == OKLAB else image
    picture = show_light(image, bands, gain_for(image, bands))
    assert 190 < np.percentile(picture.max(axis=2), 98) <= 255


def test_the_middle_of_an_image_is_in_its_middle():
    image = np.arange(7 * 9).reshape(1, 7, 9)
    assert middle(image, 3)[0].tolist() == [[21, 22, 23], [30, 31, 32], [39, 40, 41]]
    assert middle(image, 100).shape == (1, 7, 9)


def test_samples_stand_beside_truth_prediction_and_errors():
    images = np.full((2, 3, 8, 8), 0.1, np.float32)
    truth, prediction = np.zeros((2, 8, 8), np.uint8), np.zeros((2, 8, 8), np.uint8)
    truth[0], prediction[1] = 1, 1
    sheet = sample_sheet(images, truth, prediction, BGR, FIRE, ["one", "two"])
    errors = [cell(sheet, i, 3, side=224, columns=4, top=48, pitch=256) for i in (0, 1)]
    assert (errors[0] == MISSED).all() and (errors[1] == FALSE_ALARM).all()
    assert all((sheet[:24] == colour).all(axis=2).sum() >= 100 for colour in (FOUND, MISSED, FALSE_ALARM, NODATA_COLOUR))


# --- previews ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "size"), [((4, 10), (3 * 20 + 12, 50)), ((10, 4), (50, 3 * 20 + 12))])
def test_a_preview_lies_the_way_that_suits_the_scene_and_shows_the_map_last(shape, size):
    classes = np.zeros(shape, np.uint8)
    classes[0, 0] = 1
    picture = preview(np.full((12, *shape), 0.1, np.float32), classes, SENTINEL2_L2A_BANDS, FIRE, 50)
    assert picture.shape == (*size, 3)
    rows, columns = shape
    map_ = picture[-5 * rows :, -5 * columns :]
    assert (map_[:5, :5] != map_[-1, -1]).any(axis=2).all() and (map_[5:, 5:] == map_[-1, -1]).all()
