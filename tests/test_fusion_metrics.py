"""Scores of sharpened images against numbers that can be worked out on paper, and against the published table of the real pairs."""

import math

import numpy as np
import pytest
import torch

from pansharpening import classical as cf
from pansharpening import metrics as m
from raster import resampling
from raster.source import open_raster


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    return rng.random((8, 64, 64)) + 0.1


def test_a_perfect_image_has_perfect_scores(pictures):
    scores = m.reduced_resolution_scores(pictures, pictures)
    assert scores["ergas"] == 0 and scores["sam"] == pytest.approx(0, abs=1e-5) and scores["psnr"] == math.inf
    assert scores["q2n"] == pytest.approx(1) and scores["ssim"] == pytest.approx(1)
    assert m.delta_e(pictures[:3], pictures[:3]) == 0


def test_psnr_of_a_uniform_error_of_a_tenth_is_20_db():
    assert m.psnr(np.zeros((3, 4, 4)), np.full((3, 4, 4), 0.1)) == pytest.approx(20)
    assert m.psnr(np.zeros((3, 4, 4)), np.full((3, 4, 4), 25.5), peak=255) == pytest.approx(20)


def test_ergas_of_ten_percent_off_at_ratio_4_is_2_5():
    truth = np.full((2, 4, 4), 10.0)
    truth[1] = 200.0  # each band counts by its own mean
    assert m.ergas(truth, truth * 1.1, ratio=4) == pytest.approx(2.5)
    assert m.ergas(truth, truth * 1.1, ratio=2) == pytest.approx(5.0)


def test_sam_is_the_angle_and_ignores_brightness():
    truth = np.zeros((2, 1, 2))
    truth[0] = 1
    image = truth.copy()
    image[:, 0, 1] = 3, 3  # 45 degrees and much brighter
    assert m.sam(truth, image) == pytest.approx(22.5)
    assert m.sam(truth, 7 * truth) == pytest.approx(0)
    assert math.isnan(m.sam(np.zeros((2, 2, 2)), truth[:, :, :1]))


def test_delta_e_is_fifty_times_the_weighted_distance():
    a, b = np.zeros((3, 1, 1)), np.zeros((3, 1, 1))
    b[0] = 0.02
    assert m.delta_e(a, b) == pytest.approx(1.0)
    b[:, 0, 0] = 0, 0.01, 0
    assert m.delta_e(a, b) == pytest.approx(1.0)


def test_masked_scores_do_not_see_what_is_masked(pictures):
    valid = np.ones((64, 64), bool)
    valid[:, :32] = False
    broken = pictures.copy()
    broken[:, :, :32] = 99
    scores = m.reduced_resolution_scores(pictures, broken, peak=1, valid=valid)
    assert scores["ergas"] == 0 and scores["q2n"] == pytest.approx(1) and scores["psnr"] == math.inf


def test_q_of_two_hand_made_blocks():
    a, b = np.array([[1.0, 3.0]]), np.array([[2.0, 4.0]])
    # covariance 1, variances 1 and 1, means 2 and 3: 2/2 * 12/13
    assert m.q(a, b) == pytest.approx(12 / 13)
    assert m.q(a, b[:, ::-1]) == pytest.approx(-12 / 13)


def test_q2n_of_one_band_is_the_absolute_q():
    a, b = np.array([[[1.0, 3.0]]]), np.array([[[4.0, 2.0]]])
    assert m.q2n(a, b) == pytest.approx(12 / 13)


def test_quaternions_and_octonions_multiply_as_they_should():
    i, j, k = (np.eye(4)[n] for n in (1, 2, 3))

    def times(x, y):
        return np.einsum("kij,i,j->k", m.hypercomplex_table(len(x)), x, y)

    assert np.array_equal(times(i, j), k) and np.array_equal(times(j, i), -k) and np.array_equal(times(i, i), [-1, 0, 0, 0])
    rng = np.random.default_rng(0)
    for size in (2, 4, 8):  # |x y| = |x| |y| holds for exactly these
        x, y = rng.standard_normal((2, size))
        assert np.linalg.norm(times(x, y)) == pytest.approx(np.linalg.norm(x) * np.linalg.norm(y))


def test_q2n_does_not_care_which_bands_are_padded(pictures):
    three, four = pictures[:3], np.concatenate([pictures[:3], np.zeros((1, 64, 64))])
    noisy = pictures + np.random.default_rng(1).normal(0, 0.2, pictures.shape)
    assert m.q2n(three, noisy[:3]) == pytest.approx(m.q2n(four, np.concatenate([noisy[:3], np.zeros((1, 64, 64))])))


def test_small_flat_and_black_images_have_scores_too():
    flat = np.full((4, 8, 8), 0.5)
    assert m.q2n(flat, flat) == 1 and m.q(flat[0], flat[0]) == 1
    assert m.q2n(flat, 3 * flat) == pytest.approx(2 * 3 / 10)  # no contrast to compare: luminance alone
    assert m.q2n(0 * flat, 0 * flat) == 1 and math.isnan(m.ergas(0 * flat, flat))
    assert m.ssim(flat[:, :1, :1], flat[:, :1, :1]) == pytest.approx(1)


def test_full_resolution_scores_are_perfect_for_an_image_that_is_equally_related_everywhere():
    rng = np.random.default_rng(0)
    ms = rng.random((3, 32, 32)) + 0.5
    up = ms.repeat(4, 1).repeat(4, 2)  # every statistic of a block of 32 is that of its 8 x 8 ms pixels
    pan = up.mean(0, keepdims=True)
    scores = m.full_resolution_scores(up, ms, pan, pan[:, ::4, ::4])
    assert scores["d_lambda"] == pytest.approx(0, abs=1e-9) and scores["d_s"] == pytest.approx(0, abs=1e-9)
    assert scores["qnr"] == pytest.approx(1)


def test_d_s_sees_that_bands_lost_pans_detail():
    rng = np.random.default_rng(0)
    ms = rng.random((3, 32, 32)) + 0.5
    up = ms.repeat(4, 1).repeat(4, 2)
    pan = up.mean(0, keepdims=True) + rng.normal(0, 0.3, up.shape[1:])
    assert m.d_s(up, ms, pan, ms.mean(0, keepdims=True)) > 0.1


# ------------------------------------------------------------------------------------------------ the filters and methods


def test_the_filter_has_the_gain_it_is_named_for_at_the_coarse_nyquist_frequency():
    for gain in (resampling.MS_GAIN, resampling.PAN_GAIN):
        for ratio in (2, 3, 4):
            kernel = resampling.mtf_kernel(ratio, gain).numpy()
            position = np.arange(len(kernel)) - (len(kernel) - 1) / 2
            assert kernel.sum() == pytest.approx(1)
            assert (kernel * np.cos(2 * np.pi * position / (2 * ratio))).sum() == pytest.approx(gain, abs=2e-3)


def test_reducing_and_enlarging_keep_a_ramp_in_its_place():
    ramp = torch.arange(64.0).expand(1, 1, 64, 64)
    for ratio in (2, 4):
        small = resampling.reduce_mtf(ramp, ratio, 0.3)
        blocks = resampling.reduce_box(ramp, ratio)
        assert (small - blocks)[..., 4:-4, 4:-4].abs().max() < 1e-4  # centred on the blocks, no sub-pixel shift
        back = resampling.expand(blocks, ratio)
        assert back.shape == ramp.shape and (back - ramp)[..., 16:-16, 16:-16].abs().max() < 1e-4


def test_enlarging_equals_the_formula_of_keys_at_one_place():
    x = torch.tensor([[[[0.0, 0.0, 1.0, 0.0, 0.0]]]])
    # the first fine pixel of the third coarse one lies 3/8 before its centre
    d = 3 / 8
    assert resampling.expand(x, 4)[0, 0, 0, 8].item() == pytest.approx(1.5 * d**3 - 2.5 * d**2 + 1, abs=1e-6)


def some_pair(seed=0, bands=4, side=16):
    generator = torch.Generator().manual_seed(seed)
    fine = torch.rand(1, bands, 4 * side, 4 * side, generator=generator) + 0.2
    return resampling.reduce_mtf(fine, 4, 0.3), fine.mean(1, keepdim=True)


@pytest.mark.parametrize("method", cf.METHODS)
def test_methods_are_linear_in_the_unit_and_shape_is_pans(method):
    ms, pan = some_pair()
    small, large = cf.fuse_whole(method, ms, pan, 4), cf.fuse_whole(method, 1000 * ms, 1000 * pan, 4)
    assert small.shape == (1, 4, 64, 64) and (large / 1000 - small).abs().max() < 1e-4


@pytest.mark.parametrize("method", cf.METHODS)
def test_methods_give_finite_values_on_flat_black_and_grey_images(method):
    for ms, pan in ((torch.zeros(1, 3, 8, 8), torch.zeros(1, 1, 32, 32)), (torch.full((1, 3, 8, 8), 0.3), torch.full((1, 1, 32, 32), 0.3))):
        fused = cf.fuse_whole(method, ms, pan, 4)
        assert torch.isfinite(fused).all() and (fused - ms[0, 0, 0, 0]).abs().max() < 1e-3


def test_moments_of_pieces_add_up_to_those_of_the_whole():
    ms, pan = some_pair()
    upper = torch.zeros(1, 1, 64, 64, dtype=torch.bool)
    upper[:, :, :20] = True
    whole = cf.gather_moments(ms, pan, 4)
    total = cf.gather_moments(ms, pan, 4, valid=upper) + cf.gather_moments(ms, pan, 4, valid=~upper)
    assert total.count == whole.count and torch.allclose(total.products, whole.products)


TABLE = {  # WorldView-2, lower half, reduced resolution: ERGAS, SAM, Q8
    "bicubic": (7.55, 7.90, 0.681),
    "brovey": (5.81, 7.90, 0.798),
    "gsa": (5.23, 8.16, 0.821),
    "mtf-glp-hpm": (4.69, 7.70, 0.871),
}


def read(path):
    with open_raster(path) as dataset:
        return torch.from_numpy(dataset.read().astype(np.float32))[None]


@pytest.mark.parametrize("method", TABLE)
def test_baselines_reproduce_the_published_table_on_the_real_worldview2_pair(method, real_data):
    pan = read(real_data / "pansharpen" / "worldview2-pan.tif")[:, :, 640:]
    truth = read(real_data / "pansharpen" / "worldview2-ms.tif")[:, :, 160:]
    pan, ms = resampling.reduce_mtf(pan, 4, resampling.PAN_GAIN), resampling.reduce_mtf(truth, 4, resampling.MS_GAIN)
    fused, truth = cf.fuse_whole(method, ms, pan, 4)[0].numpy(), truth[0].numpy()
    ergas, sam, q8 = TABLE[method]
    assert m.ergas(truth, fused) == pytest.approx(ergas, abs=0.011)
    assert m.sam(truth, fused) == pytest.approx(sam, abs=0.011)
    assert m.q2n(truth, fused) == pytest.approx(q8, abs=0.0011)


def test_gsa_is_the_best_baseline_on_the_real_geoeye_pair(real_data):
    pan, truth = (read(real_data / "pansharpen" / f"geoeye1-{kind}.tif") for kind in ("pan", "ms"))
    pan, ms = resampling.reduce_mtf(pan, 4, resampling.PAN_GAIN), resampling.reduce_mtf(truth, 4, resampling.MS_GAIN)
    scores = {name: m.reduced_resolution_scores(truth[0].numpy(), cf.fuse_whole(name, ms, pan, 4)[0].numpy()) for name in cf.METHODS}
    assert min(scores, key=lambda n: scores[n]["ergas"]) == "gsa"
    # the table's figures treat the half-pixel offset of this pair in a way of their own: within 2 %
    assert scores["gsa"]["ergas"] == pytest.approx(1.28, rel=0.02) and scores["gsa"]["sam"] == pytest.approx(2.13, rel=0.02)
    assert scores["gsa"]["q2n"] == pytest.approx(0.897, abs=0.002)
