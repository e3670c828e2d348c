"""Smooth fields on a grid: fractal noise, Gaussian blur, spline enlargement. Row axis south, column axis east, lengths in cells."""

import numpy as np


def logistic(x):
    """0..1, rising through 0.5 at x = 0."""
    return 1 / (1 + np.exp(-np.clip(x, -30, 30)))


def even_size(length):
    """The smallest even size >= length with only the prime factors 2, 3 and 5, which a Fourier transform handles quickly."""
    size = length + length % 2
    while True:
        rest = size
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return size
        size += 2


def fractal_noise(rng, shape, exponent=1.5, longest=None, shortest=1.0):
    """(H, W) float32 noise with mean about 0 and standard deviation 1.

    exponent: how fast amplitude falls with frequency; 0 is white noise, 1.5 clouds, 2 rolling hills
    longest, shortest: wavelengths in cells beyond which nothing is added; `longest` defaults to the longer side
    """
    # A tenth more than needed is made, because the transform joins opposite borders.
    height, width = (even_size(n + n // 10 + 4) for n in shape)
    longest = longest or max(shape)
    rows = np.fft.fftfreq(height).astype(np.float32)[:, None]
    columns = np.fft.rfftfreq(width).astype(np.float32)[None, :]
    frequency = np.hypot(rows, columns)
    amplitude = np.maximum(frequency, 1.0 / longest) ** np.float32(-exponent) * np.exp(-((frequency * shortest) ** 2))
    amplitude[0, 0] = 0.0
    white = rng.standard_normal((height, width), dtype=np.float32)
    noise = np.fft.irfft2(np.fft.rfft2(white) * amplitude.astype(np.float32), s=(height, width)).astype(np.float32)
    return noise[: shape[0], : shape[1]] / max(float(noise.std()), 1e-12)


def smooth(field, sigma):
    """`field` (H, W) blurred by a Gaussian of `sigma` cells; borders are mirrored. float32."""
    if sigma <= 0:
        return np.asarray(field, dtype=np.float32)
    margin = int(np.ceil(3 * sigma))
    height, width = field.shape
    below = even_size(height + 2 * margin) - height - margin
    right = even_size(width + 2 * margin) - width - margin
    padded = np.pad(np.asarray(field, dtype=np.float32), ((margin, below), (margin, right)), mode="symmetric")
    rows = np.fft.fftfreq(padded.shape[0]).astype(np.float32)[:, None]
    columns = np.fft.rfftfreq(padded.shape[1]).astype(np.float32)[None, :]
    gauss = np.exp(np.float32(-2 * np.pi**2 * sigma**2) * (rows**2 + columns**2))
    blurred = np.fft.irfft2(np.fft.rfft2(padded) * gauss, s=padded.shape).astype(np.float32)
    return blurred[margin : margin + height, margin : margin + width]


def enlarge(coarse, shape, factor, margin=0):
    """`coarse` magnified `factor` times as a smooth surface, cropped to `shape` after dropping `margin` coarse cells at the top left.

    A cubic B-spline: smooth in slope and curvature, without overshoot; peaks come out slightly lower than in `coarse`.
    """

    def weights(length, count):
        position = (np.arange(length, dtype=np.float64) + 0.5) / factor - 0.5 + margin
        base = np.floor(position).astype(int)
        t = position - base
        table = np.zeros((length, count), np.float32)
        spline = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
        for shift, weight in zip((-1, 0, 1, 2), spline, strict=True):
            np.add.at(table, (np.arange(length), np.clip(base + shift, 0, count - 1)), weight / 6)
        return table

    return weights(shape[0], coarse.shape[0]) @ coarse.astype(np.float32) @ weights(shape[1], coarse.shape[1]).T
