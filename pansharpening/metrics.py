"""How good a sharpened image is: against a known truth at reduced resolution, or without one at full resolution.

All functions take numpy arrays of shape (C, H, W) in any one unit and compute in float64. The published definitions:
ERGAS (Wald 2000), SAM (Kruse et al. 1993), Q (Wang and Bovik 2002), Q4 and Q8 as Q2n (Alparone et al. 2004, Garzelli
and Nencini 2009), SSIM (Wang et al. 2004), D_lambda, D_s and QNR (Alparone et al. 2008).

What the papers leave open is settled here, so that figures can be compared:
- Q and Q2n are means over side-by-side blocks of 32 x 32 pixels; a last block that is cut by the border is left out
  (an image smaller than one block is one block). Q2n takes the bands as they are, not normalised per block.
- SAM leaves out pixels where one of the two spectra is zero: they have no direction.
- `valid` (H, W), where it is accepted, limits the score to true pixels; Q drops blocks that contain a false one.
"""

import math
from functools import lru_cache

import numpy as np

BLOCK = 32  # pixels, the usual block of Q, Q2n and the QNR family


def mean_squared_error(truth, image, valid=None):
    """Per band: (C,)."""
    difference = truth.astype(np.float64) - image
    if valid is None:
        return (difference**2).mean(axis=(1, 2))
    return (difference[:, valid] ** 2).mean(axis=1)


def psnr(truth, image, peak=1.0, valid=None):
    """10 log10(peak^2 / MSE) over all bands, dB. An error of 0.1 everywhere at peak 1 is 20 dB."""
    error = float(mean_squared_error(truth, image, valid).mean())
    return math.inf if error == 0 else 10 * math.log10(peak**2 / error)


def ergas(truth, image, ratio=4, valid=None):
    """100 / ratio * root of the mean over bands of MSE / mean^2. 0 is perfect."""
    means = truth.mean(axis=(1, 2), dtype=np.float64) if valid is None else truth[:, valid].mean(1, dtype=np.float64)
    if not np.all(means):
        return math.nan
    return float(100 / ratio * np.sqrt((mean_squared_error(truth, image, valid) / means**2).mean()))


def sam(truth, image, valid=None):
    """Mean angle between the two spectra of a pixel, degrees, 0..180. Insensitive to brightness."""
    truth, image = truth.astype(np.float64), image.astype(np.float64)
    lengths = np.sqrt((truth**2).sum(0) * (image**2).sum(0))
    counted = lengths > 0 if valid is None else (lengths > 0) & valid
    if not counted.any():
        return math.nan
    cosine = (truth * image).sum(0)[counted] / lengths[counted]
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))).mean())


def ssim(truth, image, peak=1.0):
    """Structural similarity, mean over bands and positions; Gaussian window of 11 pixels (sigma 1.5), no padding.

    An image smaller than the window is scored with one window over all of it.
    """
    window = min(11, *truth.shape[1:])
    offsets = np.arange(window) - (window - 1) / 2
    weights = np.exp(-(offsets**2) / (2 * 1.5**2))
    weights /= weights.sum()

    def blur(x):
        height, width = x.shape[1] - window + 1, x.shape[2] - window + 1
        x = sum(w * x[:, i : i + height] for i, w in enumerate(weights))
        return sum(w * x[:, :, i : i + width] for i, w in enumerate(weights))

    a, b = truth.astype(np.float64), image.astype(np.float64)
    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b, covariance = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2, blur(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return float((luminance * (2 * covariance + c2) / (var_a + var_b + c2)).mean())


def delta_e(truth, image, valid=None):
    """Mean colour difference of two Oklab images (3, H, W) in just noticeable differences: 50 |dL, 2 da, 2 db|."""
    difference = truth.astype(np.float64) - image
    difference[1:] *= 2
    distance = 50 * np.sqrt((difference**2).sum(0))
    return float(distance.mean() if valid is None else distance[valid].mean())


# ---------------------------------------------------------------------------------------------- Q and its relatives


@lru_cache
def hypercomplex_table(size):
    """(size, size, size) T with (x * y)_k = sum_ij T[k, i, j] x_i y_j, by Cayley and Dickson's doubling.

    size is a power of two: 1 real, 2 complex, 4 quaternions, 8 octonions, …
    """
    if size == 1:
        return np.ones((1, 1, 1))
    half = size // 2
    table, conjugate = hypercomplex_table(half), np.where(np.arange(half) == 0, 1.0, -1.0)
    doubled = np.zeros((size, size, size))
    # (a, b)(c, d) = (a c - d* b, d a + b c*), where * is the conjugate
    doubled[:half, :half, :half] = table
    doubled[:half, half:, half:] = -(table * conjugate[None, :, None]).transpose(0, 2, 1)
    doubled[half:, :half, half:] = table.transpose(0, 2, 1)
    doubled[half:, half:, :half] = table * conjugate[None, None, :]
    return doubled


def blocks_of(image, block):
    """(C, H, W) -> (blocks, C, block * block or less): side by side, those cut by the border left out."""
    channels, height, width = image.shape
    tall, wide = min(block, height), min(block, width)
    rows, columns = height // tall, width // wide
    cut = image[:, : rows * tall, : columns * wide].astype(np.float64).reshape(channels, rows, tall, columns, wide)
    return cut.transpose(1, 3, 0, 2, 4).reshape(rows * columns, channels, tall * wide)


def q2n(truth, image, block=BLOCK, valid=None):
    """Q4 for 3 and 4 bands, Q8 for 5 to 8, …: a pixel's bands are one hypercomplex number. 1 is perfect.

    Correlation x contrast x luminance in one formula:
    2 |cov(z, w)| / (var z + var w) * 2 |mean z| |mean w| / (|mean z|^2 + |mean w|^2).
    """
    channels = len(truth)
    size = 1 << (channels - 1).bit_length()
    # z times the conjugate of w; zero components of z and w beyond `channels` add nothing, so they are cut off
    table = hypercomplex_table(size) * np.where(np.arange(size) == 0, 1.0, -1.0)
    table = table[:, :channels, :channels]
    z, w = blocks_of(truth, block), blocks_of(image, block)
    if valid is not None:
        whole = blocks_of(valid[None], block).all(axis=(1, 2))
        z, w = z[whole], w[whole]
    if len(z) == 0:
        return math.nan
    mean_z, mean_w = z.mean(2), w.mean(2)
    z, w = z - mean_z[:, :, None], w - mean_w[:, :, None]
    covariance = np.einsum("kij,bij->bk", table, z @ w.transpose(0, 2, 1) / z.shape[2])
    strength = np.sqrt((covariance**2).sum(1))
    spread = (z**2).mean(2).sum(1) + (w**2).mean(2).sum(1)
    length_z, length_w = np.sqrt((mean_z**2).sum(1)), np.sqrt((mean_w**2).sum(1))
    # two flat blocks have no contrast to disagree about; two black ones no luminance
    with np.errstate(divide="ignore", invalid="ignore"):
        contrast = np.where(spread > 0, 2 * strength / spread, 1.0)
        level = length_z**2 + length_w**2
        luminance = np.where(level > 0, 2 * length_z * length_w / level, 1.0)
    return float((contrast * luminance).mean())


def q(a, b, block=BLOCK):
    """The universal image quality index of two single bands (H, W), -1..1, 1 for equal ones: signed, unlike Q2n."""
    x, y = blocks_of(a[None], block)[:, 0], blocks_of(b[None], block)[:, 0]
    mean_x, mean_y = x.mean(1), y.mean(1)
    covariance = ((x - mean_x[:, None]) * (y - mean_y[:, None])).mean(1)
    spread, level = x.var(1) + y.var(1), mean_x**2 + mean_y**2
    with np.errstate(divide="ignore", invalid="ignore"):
        contrast = np.where(spread > 0, 2 * covariance / spread, 1.0)
        luminance = np.where(level > 0, 2 * mean_x * mean_y / level, 1.0)
    return float((contrast * luminance).mean())


def d_lambda(sharpened, ms, ratio=4, block=BLOCK):
    """How much the bands' likeness to each other changed: mean |Q(F_i, F_j) - Q(M_i, M_j)| over pairs. 0 is best.

    sharpened: (C, ratio * h, ratio * w), ms: (C, h, w). Blocks cover the same ground in both.
    """
    pairs = [(i, j) for i in range(len(ms)) for j in range(i)]
    if not pairs:
        return 0.0
    small = max(1, block // ratio)
    changes = [abs(q(sharpened[i], sharpened[j], small * ratio) - q(ms[i], ms[j], small)) for i, j in pairs]
    return float(np.mean(changes))


def d_s(sharpened, ms, pan, pan_low, ratio=4, block=BLOCK):
    """How much the bands' likeness to pan changed: mean |Q(F_i, P) - Q(M_i, P_low)|. 0 is best.

    pan: (1, ratio * h, ratio * w); pan_low: (1, h, w), pan filtered to the resolution of ms.
    """
    small = max(1, block // ratio)
    changes = [
        abs(q(sharpened[i], pan[0], small * ratio) - q(ms[i], pan_low[0], small)) for i in range(len(ms))
    ]
    return float(np.mean(changes))


def full_resolution_scores(sharpened, ms, pan, pan_low, ratio=4, block=BLOCK):
    """{"d_lambda", "d_s", "qnr"}: no truth needed. qnr = (1 - d_lambda)(1 - d_s), 1 is best."""
    spectral = d_lambda(sharpened, ms, ratio, block)
    spatial = d_s(sharpened, ms, pan, pan_low, ratio, block)
    return {"d_lambda": spectral, "d_s": spatial, "qnr": (1 - spectral) * (1 - spatial)}


def reduced_resolution_scores(truth, image, ratio=4, peak=None, valid=None):
    """{"ergas", "sam", "q2n", "psnr", "ssim"} of an image against the truth. peak: its default is the truth's maximum."""
    if peak is None:
        peak = float(truth.max()) or 1.0
    return {
        "ergas": ergas(truth, image, ratio, valid),
        "sam": sam(truth, image, valid),
        "q2n": q2n(truth, image, valid=valid),
        "psnr": psnr(truth, image, peak, valid),
        "ssim": ssim(truth, image, peak),
    }


def error_of_chip(truth, image, target, ratio, valid=None):
    """delta E for the target "oklab", ERGAS for bands: 0 is perfect."""
    return delta_e(truth, image, valid) if target == "oklab" else ergas(truth, image, ratio, valid)


def scores_of_chip(truth, image, target, ratio, valid=None):
    """What is told of a test chip: {"ergas", "sam", "q2n", "psnr"}, or {"delta_e", "psnr"} for the target "oklab"."""
    peak = psnr(truth, image, 1.0, valid)
    if target == "oklab":
        return {"delta_e": delta_e(truth, image, valid), "psnr": peak}
    index = q2n(truth, image, valid=valid)
    return {"ergas": ergas(truth, image, ratio, valid), "sam": sam(truth, image, valid), "q2n": index, "psnr": peak}
