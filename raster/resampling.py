"""Images on a coarser or finer grid: filters that imitate a sensor, exact means of blocks, cubic convolution.

The low-pass filters are Gaussians whose gain at the Nyquist frequency of the coarse grid is that of typical optics (0.3 for ms bands, 0.15
for pan), centred on pixel blocks, so that no sub-pixel shift creeps in. The same filters make the reduced-resolution pairs of Wald's
protocol, where the original ms is the truth.
"""

import math

import torch
import torch.nn.functional as F

MS_GAIN = 0.3
PAN_GAIN = 0.15
FILTER_BLOCKS = 3  # the filter reaches this many coarse pixels to either side; beyond it lies < 1e-5 of its weight


def mtf_kernel(ratio, gain):
    """(2 * ratio * FILTER_BLOCKS or one more,): Gaussian with response `gain` at 1 / (2 * ratio) cycles per pixel.

    Even in length for even ratios, odd for odd ones: either way its centre is the centre of a block.
    """
    sigma = ratio * math.sqrt(-2 * math.log(gain)) / math.pi
    length = 2 * ratio * FILTER_BLOCKS + ratio % 2
    position = torch.arange(length, dtype=torch.float64) - (length - 1) / 2
    kernel = torch.exp(-(position**2) / (2 * sigma**2))
    return kernel / kernel.sum()


def reduce_mtf(x, ratio, gain):
    """(B, C, ratio * h, ratio * w) -> (B, C, h, w): the image as a sensor `ratio` times coarser would see it."""
    if ratio == 1:
        return x
    channels = x.shape[1]
    kernel = mtf_kernel(ratio, gain).to(x)
    margin = (len(kernel) - ratio) // 2
    x = F.pad(x, (margin, margin, margin, margin), mode="replicate")
    x = F.conv2d(x, kernel.view(1, 1, 1, -1).expand(channels, 1, 1, -1), stride=(1, ratio), groups=channels)
    return F.conv2d(x, kernel.view(1, 1, -1, 1).expand(channels, 1, -1, 1), stride=(ratio, 1), groups=channels)


def reduce_box(x, ratio):
    """(B, C, ratio * h, ratio * w) -> (B, C, h, w): exact means of blocks."""
    return F.avg_pool2d(x, ratio) if ratio > 1 else x


def cubic_phases(ratio):
    """(ratio, 5): for each of the `ratio` fine pixels in a coarse one, weights of the coarse pixels -2..2 around it.

    Keys' cubic with a = -0.5, which reproduces parabolas.
    """
    weights = torch.zeros(ratio, 5, dtype=torch.float64)
    for phase in range(ratio):
        centre = (phase + 0.5) / ratio - 0.5
        for tap in range(5):
            d = abs(tap - 2 - centre)
            if d <= 1:
                weights[phase, tap] = 1.5 * d**3 - 2.5 * d**2 + 1
            elif d < 2:
                weights[phase, tap] = -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
    return weights


def expand(x, ratio):
    """(B, C, h, w) -> (B, C, ratio * h, ratio * w): cubic convolution, blocks stay where they are.

    Written as a convolution per phase rather than F.interpolate: torch's bicubic is Keys' with a = -0.75, which
    overshoots more and is not what the published baseline figures were computed with.
    """
    if ratio == 1:
        return x
    batch, channels, height, width = x.shape
    phases = cubic_phases(ratio).to(x)
    x = F.pad(x, (2, 2, 2, 2), mode="replicate")
    x = F.conv2d(x, phases.view(ratio, 1, 1, 5).repeat(channels, 1, 1, 1), groups=channels)
    x = x.view(batch, channels, ratio, height + 4, width).permute(0, 1, 3, 4, 2)
    x = x.reshape(batch, channels, height + 4, width * ratio)
    x = F.conv2d(x, phases.view(ratio, 1, 5, 1).repeat(channels, 1, 1, 1), groups=channels)
    x = x.view(batch, channels, ratio, height, width * ratio).permute(0, 1, 3, 2, 4)
    return x.reshape(batch, channels, height * ratio, width * ratio)
