"""Colours of multispectral pixels: published landmarks, round trips, and our own fit repeated."""

import numpy as np
import pytest
import torch

from constants import BGRN_BANDS, WORLDVIEW_BANDS
from raster import colour
from runtime.errors import UserError
from synthetic.spectra import fit_bands_to_xyz, make_spectra, matching_functions, through_bands


def image(*channels):
    return np.array(channels, np.float64)[:, None, None]


# The way back and the way from XYZ, written from the published formulas: what the product's own conversions are held to.


def mix(matrix, x):
    return np.einsum("ij,...jhw->...ihw", matrix, x)


def xyz_to_oklab(xyz):
    return mix(colour.LMS_TO_LAB, np.cbrt(mix(colour.XYZ_TO_LMS, xyz)))


def srgb_to_oklab(srgb):
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((np.maximum(srgb, 0.04045) + 0.055) / 1.055) ** 2.4)
    return mix(np.linalg.inv(colour.LAB_TO_LMS), np.cbrt(mix(np.linalg.inv(colour.LMS_TO_LINEAR_SRGB), linear)))


def test_a_white_surface_is_white_in_oklab():
    for bands in (WORLDVIEW_BANDS, BGRN_BANDS):
        lab = colour.bands_to_oklab(np.ones((len(bands), 2, 2)), bands)
        assert np.abs(lab[0] - 1).max() < 2e-3 and np.abs(lab[1:]).max() < 2e-3


def test_black_stays_black_and_grey_keeps_its_neutral_axis():
    lab = colour.bands_to_oklab(np.concatenate([np.zeros((8, 1, 1)), np.full((8, 1, 1), 0.125)], axis=2), WORLDVIEW_BANDS)
    assert lab[:, 0, 0].tolist() == [0, 0, 0]
    assert lab[0, 0, 1] == pytest.approx(0.5, abs=1e-3)  # the cube root of an eighth


@pytest.mark.parametrize(
    ("srgb", "lab"),
    [  # as Oklab's author and the CSS Color specification give them
        ((1, 1, 1), (1.0, 0.0, 0.0)),
        ((1, 0, 0), (0.62796, 0.22486, 0.12585)),
        ((0, 1, 0), (0.86644, -0.23389, 0.17950)),
        ((0, 0, 1), (0.45201, -0.03246, -0.31153)),
    ],
)
def test_the_primaries_have_their_published_oklab_values(srgb, lab):
    assert np.abs(srgb_to_oklab(image(*srgb))[:, 0, 0] - lab).max() < 2e-4
    assert np.abs(colour.oklab_to_srgb(image(*lab))[:, 0, 0] - srgb).max() < 2e-3


def test_xyz_of_d65_white_is_oklab_white():
    assert np.abs(xyz_to_oklab(image(0.95047, 1.0, 1.08883))[:, 0, 0] - (1, 0, 0)).max() < 5e-4


def test_a_colour_goes_to_oklab_and_comes_back_the_same():
    srgb = np.random.default_rng(0).random((3, 16, 16))
    assert np.abs(colour.oklab_to_srgb(srgb_to_oklab(srgb)) - srgb).max() < 1e-5


def test_torch_and_numpy_agree_in_single_and_in_batch():
    reflectance = np.random.default_rng(0).random((2, 8, 4, 4)).astype(np.float32)
    ours = colour.bands_to_oklab(reflectance, WORLDVIEW_BANDS)
    theirs = colour.bands_to_oklab(torch.from_numpy(reflectance), WORLDVIEW_BANDS)
    assert ours.dtype == np.float32 and np.abs(ours - theirs.numpy()).max() < 1e-6
    assert np.array_equal(ours[1], colour.bands_to_oklab(reflectance[1], WORLDVIEW_BANDS))
    assert np.abs(colour.oklab_to_srgb(ours) - colour.oklab_to_srgb(theirs).numpy()).max() < 1e-5


def test_colours_outside_the_gamut_are_cut_off_not_wrapped():
    srgb = colour.oklab_to_srgb(image(0.9, 0.5, 0.5))
    assert srgb.min() >= 0 and srgb.max() <= 1


def test_the_matrices_in_the_file_are_what_the_fit_gives():
    for known, rows in colour.BANDS_TO_XYZ.items():
        bands = WORLDVIEW_BANDS if "yellow" in known else BGRN_BANDS
        fitted = fit_bands_to_xyz(bands)
        ours = colour.bands_to_xyz_matrix(bands)
        assert np.abs(fitted - ours).max() < 6e-5
        assert np.abs(np.array(rows).sum(0) - (0.95047, 1, 1.08883)).max() < 1e-3


def test_the_fit_is_a_colour_closer_than_a_few_jnd_on_spectra_it_has_not_seen():
    spectra = np.stack([s for _, s in make_spectra(700, seed=99)])
    truth = xyz_to_oklab((spectra @ matching_functions().T).T[:, :, None])
    seen = np.stack([through_bands(s, WORLDVIEW_BANDS) for s in spectra]).T[:, :, None]
    difference = colour.bands_to_oklab(seen, WORLDVIEW_BANDS) - truth
    assert np.median(50 * np.sqrt((difference**2).sum(0))) < 1.0  # 1 is one just noticeable difference


def test_bands_may_come_in_any_order_and_infrared_has_no_colour():
    matrix = colour.bands_to_xyz_matrix(("nir", "red", "green", "blue"))
    assert matrix[0].tolist() == [0, 0, 0]
    assert np.array_equal(matrix[::-1], colour.bands_to_xyz_matrix(BGRN_BANDS))


def test_bands_without_colour_are_refused_by_name():
    assert not colour.has_colour(("nir", "swir1"))
    with pytest.raises(UserError, match="nir, swir1"):
        colour.bands_to_xyz_matrix(("nir", "swir1"))
