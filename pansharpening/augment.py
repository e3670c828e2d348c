"""Training pairs made harder on the device: crisper or softer edges, bands that are slightly out of register.

pan (B, 1, S, S), mul (B, C, s, s), reflectance. Every sample draws from its own seed, so what happens to a chip depends on neither its
batch nor the number of processes. Inputs are never changed in place; targets not at all: the network learns to undo this.
"""

import torch
import torch.nn.functional as F

from constants import WORLDVIEW_BANDS

# The two detector arrays of WorldView-2 and -3, which see the ground a fraction of a second apart.
FIRST_ARRAY = ("nir1", "red", "green", "blue")
MISALIGNMENT = 1.0  # general size of the offsets near the centre, in mul pixels


def noise(generator, side, power):
    """(side, side) noise with spectrum amplitude f^-power (f in cycles per pixel, 1 / side at 0), mean 0, standard deviation 1."""
    f = torch.hypot(torch.fft.fftfreq(side)[:, None], torch.fft.rfftfreq(side)[None])
    f[0, 0] = 1 / side
    spectrum = torch.fft.rfft2(torch.randn(side, side, generator=generator)) * f**-power
    field = torch.fft.irfft2(spectrum, s=(side, side))
    field = field - field.mean()
    return field / field.std()


def halo(x, strength):
    """x + strength * (x - blurred x), strength (B,): positive sharpens, negative blurs. The blur is [1 2 1] both ways."""
    weights = x.new_tensor([1.0, 2.0, 1.0]) / 4
    kernel = torch.outer(weights, weights).view(1, 1, 3, 3).expand(x.shape[1], 1, 3, 3)
    blurred = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), kernel, groups=x.shape[1])
    return x + strength.view(-1, 1, 1, 1).to(x) * (x - blurred)


def offsets(generator, side):
    """(2, side, side) x and y in pixels: largest in the middle, nothing at the border."""
    radius = noise(generator, side, 1) ** 2
    angle = noise(generator, side, 2) + torch.rand(1, generator=generator) * 2 * torch.pi
    place = (torch.arange(side) + 0.5) / side * 2 - 1
    window = (1 - torch.hypot(place[:, None], place[None])).clamp(min=0)
    return MISALIGNMENT * window * radius * torch.stack([angle.cos(), angle.sin()])


def misalign(mul, shifts, bands):
    """Bands of the first array sampled at +shifts (B, 2, s, s) pixels, the others at -shifts; bicubic, clipped to 0..1."""
    side = mul.shape[-1]
    place = (torch.arange(side, device=mul.device) + 0.5) / side * 2 - 1
    grid = torch.stack(torch.meshgrid(place, place, indexing="xy"), dim=-1)
    moves = shifts.permute(0, 2, 3, 1).to(mul) / (side / 2)
    first = [i for i, band in enumerate(bands) if band in FIRST_ARRAY]
    second = [i for i, band in enumerate(bands) if band not in FIRST_ARRAY]
    result = torch.empty_like(mul)
    for group, sign in ((first, 1), (second, -1)):
        moved = F.grid_sample(mul[:, group], grid + sign * moves, mode="bicubic", padding_mode="reflection", align_corners=False)
        result[:, group] = moved.clamp(0, 1)
    return result


def augment_pair(pan, mul, seeds, bands):
    """(pan, mul) as a worse sensor would have delivered them. seeds: one integer a sample.

    Misalignment is only for the eight bands whose arrays are known.
    """
    shifts, on_pan, on_mul = [], [], []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        on_pan.append(0.1 + 0.1 * torch.randn(1, generator=generator))
        on_mul.append(0.75 + 0.5 * torch.randn(1, generator=generator))
        if tuple(bands) == WORLDVIEW_BANDS:
            shifts.append(offsets(generator, mul.shape[-1]))
    pan = halo(pan, torch.cat(on_pan))
    if shifts:
        mul = misalign(mul, torch.stack(shifts), bands)
    return pan, halo(mul, torch.cat(on_mul))


def turn(tensors, quarter_turns, mirror):
    """The same quarter turns and horizontal mirroring for every (C, H, W) tensor of a chip; None stays None."""
    turned = []
    for tensor in tensors:
        if tensor is not None:
            tensor = torch.rot90(tensor, quarter_turns, (1, 2))
            tensor = (tensor.flip(2) if mirror else tensor).contiguous()
        turned.append(tensor)
    return turned
