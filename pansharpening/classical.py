"""Pansharpening without learning: bicubic, Brovey, Gram-Schmidt adaptive and MTF-GLP-HPM.

    ms:  (B, C, h, w)  multispectral, any linear unit
    pan: (B, 1, ratio * h, ratio * w)  panchromatic in the same unit; its pixel blocks lie exactly on those of ms

GSA, Brovey and HPM adjust pan to the bands by statistics of a whole image. They take them as `Moments`, which add up over
pieces: an image that is streamed in blocks gives the map of one that is fused at once.
"""

from dataclasses import dataclass

import torch

from pansharpening.consistency import finished
from raster.resampling import MS_GAIN, expand, reduce_mtf

SHADOW = 0.1  # of the usual brightness; in ground that is darker the detail fades


@dataclass
class Moments:
    """Sums over valid pan pixels of (expanded ms bands…, expanded low-pass pan, pan) and of their products, float64."""

    count: float
    total: torch.Tensor  # (C + 2,)
    products: torch.Tensor  # (C + 2, C + 2)

    def __add__(self, other):
        return Moments(self.count + other.count, self.total + other.total, self.products + other.products)

    def mean(self):
        return self.total / max(self.count, 1)

    def covariance(self):
        return self.products / max(self.count, 1) - torch.outer(self.mean(), self.mean())


def gather_moments(ms, pan, ratio, gain=MS_GAIN, valid=None):
    """The moments of one image or block. valid: (B, 1, ratio * h, ratio * w) bool, or None for all."""
    low = expand(reduce_mtf(pan, ratio, gain), ratio)
    values = torch.cat([expand(ms, ratio), low, pan], dim=1).transpose(0, 1).flatten(1).double()
    if valid is not None:
        values = values[:, valid.flatten()]
    return Moments(values.shape[1], values.sum(1), values @ values.T)


def bicubic(ms, pan, ratio, moments):
    """No sharpening at all: the baseline of every comparison."""
    return expand(ms, ratio)


def brovey(ms, pan, ratio, moments):
    """ms x pan / intensity: intensity is the bands' mean, pan first brought to its mean and standard deviation."""
    up = expand(ms, ratio)
    mean, covariance = moments.mean(), moments.covariance()
    channels = ms.shape[1]
    slope = contrast_of(covariance[:channels, :channels].mean(), covariance[channels, channels])
    adjusted = (pan - float(mean[-1])) * float(slope) + float(mean[:channels].mean())
    return up * ratio_of(adjusted, up.mean(dim=1, keepdim=True), mean[:channels].mean())


def gsa(ms, pan, ratio, moments):
    """Gram-Schmidt adaptive: the detail pan - intensity, where intensity is the blend of bands nearest to low-pass pan."""
    up = expand(ms, ratio)
    channels = ms.shape[1]
    bands = slice(0, channels)
    # a trace of ridge, so that equal bands (a grey image) have a solution instead of a singular matrix
    gram = moments.products[bands, bands]
    ridge = torch.eye(channels, dtype=gram.dtype) * (gram.diagonal().mean() * 1e-9 + 1e-30)
    weights = torch.linalg.solve(gram + ridge, moments.products[bands, channels])
    covariance = moments.covariance()[bands, bands]
    variance = weights @ covariance @ weights
    gains = covariance @ weights / variance if variance > 0 else torch.ones_like(weights)
    intensity = (up * weights.to(up).view(1, -1, 1, 1)).sum(1, keepdim=True)
    offset = float(moments.mean()[-1] - weights @ moments.mean()[bands])
    return up + gains.to(up).view(1, -1, 1, 1) * (pan - intensity - offset)


def mtf_glp_hpm(ms, pan, ratio, moments, gain=MS_GAIN):
    """ms x pan / low-pass pan, pan first brought to each band's mean and standard deviation over the image."""
    up = expand(ms, ratio)
    low = expand(reduce_mtf(pan, ratio, gain), ratio)
    mean, variance = moments.mean(), moments.covariance().diagonal()
    slope = contrast_of(variance[:-2], variance[-2]).to(up).view(1, -1, 1, 1)
    shift = mean[:-2].to(up).view(1, -1, 1, 1)
    return up * ratio_of((pan - float(mean[-1])) * slope + shift, (low - float(mean[-1])) * slope + shift, shift)


def contrast_of(variance, low_pan_variance):
    """Ratio of standard deviations; 1 where low-pass pan is flat. Low-pass pan, because the bands are as blurred as it."""
    if low_pan_variance <= 0:
        return torch.ones_like(variance)
    return (variance.clamp(min=0) / low_pan_variance).sqrt()


def ratio_of(numerator, denominator, usual):
    """
    numerator / denominator kept within 0..10.

    Where the denominator is less than SHADOW of what is `usual` (a tensor) the ratio goes to 1 with it, and is 1 where it isn't positive:
    no detail rather than a spark.
    """
    least = SHADOW * usual.to(denominator).clamp(min=0)
    lit = (denominator >= least) & (denominator > 0)
    fading = (denominator / least.where(least > 0, 1)).clamp(0, 1)
    in_shadow = 1 + fading * (numerator - denominator) / least.where(least > 0, 1)
    return torch.where(lit, numerator / denominator.where(lit, 1), in_shadow).clamp(0, 10)


METHODS = {"bicubic": bicubic, "brovey": brovey, "gsa": gsa, "mtf-glp-hpm": mtf_glp_hpm}


def fuse_with(method, ms, pan, ratio, moments, back_projection=False):
    """One named method on a block, given the moments of the whole image; see pansharpening/consistency.py for what comes after it."""
    return finished(METHODS[method](ms, pan, ratio, moments), ms, "bands", ratio, back_projection)


def fuse_whole(method, ms, pan, ratio, back_projection=False):
    """One named method on one image held in memory: (1, C, h, w) and (1, 1, ratio * h, ratio * w) -> (1, C, …)."""
    return fuse_with(method, ms, pan, ratio, gather_moments(ms, pan, ratio), back_projection)
