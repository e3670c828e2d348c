"""The pansharpening network: a fixed detail injection, and a small convolutional network that corrects it.

    ms:  (B, C, h, w) reflectance, pan: (B, 1, ratio * h, ratio * w) reflectance
    out: (B, C, ratio * h, ratio * w) reflectance (target "bands") or (B, 3, …) Oklab (target "oklab")

The fixed part needs no learning: every band, enlarged by cubic convolution, times pan / low-pass pan. The network starts as exactly
that (its last layer is zero) and learns two numbers per output channel and pixel: how much of pan's detail to add or take back, and
what else to add. It works from coarse to fine: most of it at the resolution of ms, where a pixel costs a sixteenth, then at each
doubling with the shuffled pan of that scale.

Nothing looks at the whole image, so blocks with a margin of `measure_reach` give the map of one big forward pass.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from pansharpening.classical import ratio_of
from raster.colour import bands_to_oklab
from raster.resampling import MS_GAIN, expand, reduce_box, reduce_mtf
from runtime.checkpoint import load_weights
from runtime.errors import RunError, UserError

TARGETS = ("bands", "oklab")
FIXED_REACH = 24  # ms pixels, more than what a new network sees


@dataclass(frozen=True)
class PansharpenerConfig:
    bands: tuple  # names, in the order of ms
    ratio: int = 4  # pan pixels along one ms pixel: 2, 4 or 8
    target: str = "bands"
    width: int = 48  # feature channels; half as many at full resolution
    depth: int = 3  # blocks at the coarsest scale; two at each finer one


class Block(nn.Module):
    """x + pointwise(gelu(grouped 3 x 3 of x)); exactly x before training."""

    def __init__(self, channels):
        super().__init__()
        self.spatial = nn.Conv2d(channels, channels, 3, padding=1, groups=max(1, channels // 8), padding_mode="replicate")
        self.pointwise = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.pointwise.weight)
        nn.init.zeros_(self.pointwise.bias)

    def forward(self, x):
        return x + self.pointwise(F.gelu(self.spatial(x)))


class Pansharpener(nn.Module):
    def __init__(self, config):
        super().__init__()
        scales = int(math.log2(config.ratio))  # doublings between ms and pan
        if 2**scales != config.ratio or not 1 <= scales <= 3:
            raise ValueError(f"ratio must be 2, 4 or 8, got {config.ratio}")
        if config.target not in TARGETS:
            raise ValueError(f"target must be one of {', '.join(TARGETS)}, got {config.target!r}")
        self.config = config
        channels = len(config.bands)
        outputs = channels if config.target == "bands" else 3
        # normalisation of the inputs; set from the chips before training
        self.register_buffer("ms_mean", torch.zeros(1, channels, 1, 1))
        self.register_buffer("ms_std", torch.ones(1, channels, 1, 1))
        self.register_buffer("pan_mean", torch.zeros(1))
        self.register_buffer("pan_std", torch.ones(1))
        self.register_buffer("out_mean", torch.zeros(1, outputs, 1, 1))
        self.register_buffer("out_std", torch.ones(1, outputs, 1, 1))

        widths = [config.width] * scales + [config.width // 2]
        self.stems, self.upsample, self.blocks, self.heads = (nn.ModuleList() for _ in range(4))
        for level, width in enumerate(widths):  # level 0 is the scale of ms, the last one that of pan
            side = 2 ** (scales - level)
            images = channels if level == 0 else outputs if level == scales else 0
            self.stems.append(nn.Conv2d(images + 2 * side * side, width, 1))
            # features of the coarser scale are reduced before they are enlarged: a quarter of the work and memory
            self.upsample.append(nn.Conv2d(widths[level - 1], width, 1, bias=False) if level else nn.Identity())
            self.blocks.append(nn.Sequential(*[Block(width) for _ in range(config.depth if level == 0 else 2)]))
            head = nn.Conv2d(width, 2 * outputs, 1)
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)
            self.heads.append(head)

    def set_statistics(self, statistics):
        """statistics: {"ms": (mean, std), "pan": …, "out": …} as lists of floats a channel."""
        for name, (mean, std) in statistics.items():
            getattr(self, f"{name}_mean").copy_(torch.tensor(mean).view_as(getattr(self, f"{name}_mean")))
            getattr(self, f"{name}_std").copy_(torch.tensor(std).clamp(min=1e-4).view_as(getattr(self, f"{name}_std")))

    def inject(self, ms, pan):
        """The fixed part: (image (B, outputs, H, W), detail (B, 1, H, W)), both in the unit of the target."""
        ratio = self.config.ratio
        low = expand(reduce_mtf(pan, ratio, MS_GAIN), ratio)
        image = expand(ms, ratio) * ratio_of(pan, low, self.pan_mean)
        if self.config.target == "bands":
            return image, pan - low
        detail = pan.clamp(min=0) ** (1 / 3) - low.clamp(min=0) ** (1 / 3)
        return bands_to_oklab(image, self.config.bands), detail

    def forward(self, ms, pan, all_scales=False):
        """The sharpened image; with all_scales a list from the coarsest (that of ms) to the full one, for the loss."""
        with torch.no_grad():
            image, detail = self.inject(ms, pan)
        plain_pan = (pan - self.pan_mean) / self.pan_std
        # detail is several times weaker than pan itself
        strong_detail = detail * (3 / self.out_std.mean())
        results, x = [], None
        last = len(self.stems) - 1
        for level in range(last + 1):
            side = 2 ** (last - level)
            parts = [F.pixel_unshuffle(plain_pan, side), F.pixel_unshuffle(strong_detail, side)]
            if level == 0:
                parts.append((ms - self.ms_mean) / self.ms_std)
            if level == last:
                parts.append((image - self.out_mean) / self.out_std)
            fresh = self.stems[level](torch.cat(parts, 1))
            x = fresh if x is None else fresh + F.interpolate(self.upsample[level](x), scale_factor=2, mode="nearest")
            x = self.blocks[level](x)
            if level == last or all_scales:
                share, rest = self.heads[level](x).chunk(2, 1)
                results.append(reduce_box(image, side) + share * reduce_box(detail, side) + 0.25 * self.out_std * rest)
        return results if all_scales else results[-1]


def architecture_reach(config):
    """
    How many pan pixels around a pixel can change it in networks of this shape, whatever their weights; whole ms pixels.

    Measured on random weights in float64: float32 rounds the influence of the furthest pixels away, so trained weights seem to see less.
    """
    generator = torch.Generator().manual_seed(0)
    model = Pansharpener(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return measure_reach(model)


def measure_reach(model, side=FIXED_REACH):
    """How many pan pixels around a pixel can change it: measured on noise, rounded up to whole ms pixels.

    side: ms pixels to look at first, in each direction; it grows until the reach ends within it. RunError where it does not end.
    """
    # Each block looks one pixel of its scale further, at most one of ms; enlarging and blurring are far within FIXED_REACH.
    most = FIXED_REACH + sum(len(blocks) for blocks in model.blocks)
    reach = reach_within(model, side)
    while reach >= side * model.config.ratio:
        if side > most:
            raise RunError(f"the network seems to see further than {most} ms pixels: its weights are damaged; take another checkpoint")
        side *= 2
        reach = reach_within(model, side)
    return reach


@torch.no_grad()
def reach_within(model, side):
    """Exact support up to `side` ms pixels: disturbs one ms pixel and its pan pixels and looks how far the output notices."""
    ratio, bands = model.config.ratio, len(model.config.bands)
    parameter = next(model.parameters())
    generator = torch.Generator().manual_seed(0)
    ms = torch.rand(1, bands, 2 * side + 1, 2 * side + 1, generator=generator).to(parameter) * 0.5 + 0.1
    pan = torch.rand(1, 1, (2 * side + 1) * ratio, (2 * side + 1) * ratio, generator=generator).to(parameter) * 0.5 + 0.1
    before = model(ms, pan)
    if not before.isfinite().all():  # no such value equals itself: every pixel would seem to have changed, however far away
        raise RunError("the network gives NaN or infinite values; lower --lr, or use --precision bf16 or fp32")
    middle = slice(side * ratio, (side + 1) * ratio)
    ms[:, :, side, side] += 0.3
    pan[:, :, middle, middle] += 0.3
    changed = (model(ms, pan) != before).any(1)[0].nonzero()
    first, last = changed.min(), changed.max()
    reach = int(max(side * ratio - first, last - ((side + 1) * ratio - 1)))
    return -(-reach // ratio) * ratio


# Names of parts in checkpoints of version 0.1.0.
OLD_NAMES = {"enter": "stems", "carry": "upsample", "think": "blocks", "leave": "heads", "look": "spatial", "mix": "pointwise"}


def with_todays_names(weights):
    """A state dict with parts under the names that they have today."""
    return {".".join(OLD_NAMES.get(word, word) for word in name.split(".")): tensor for name, tensor in weights.items()}


def with_old_names(weights):
    """A state dict with parts under the names of version 0.1.0, by which sharpened rasters know their network."""
    names = {new: old for old, new in OLD_NAMES.items()}
    return {".".join(names.get(word, word) for word in name.split(".")): tensor for name, tensor in weights.items()}


def pansharpener_from_checkpoint(checkpoint):
    """
    The network of a loaded pansharpening checkpoint (see runtime/checkpoint.py), with its weights.

    UserError where it does not describe one, or the weights are another's; it names the file where checkpoint["path"] does.
    """
    name, config, state = checkpoint.get("path", "the checkpoint"), checkpoint["model"], checkpoint["state"]
    weights = state.get("model") if isinstance(state, dict) else None
    try:
        known = {k: config[k] for k in ("bands", "ratio", "target", "width", "depth")}
        model = Pansharpener(PansharpenerConfig(**known | {"bands": tuple(known["bands"])}))
        load_weights(model, with_todays_names(weights), name, "network")
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{name} is damaged: it does not hold a network's description and weights; take another checkpoint") from error
    if not all(tensor.isfinite().all() for tensor in model.state_dict().values()):
        raise UserError(f"{name} holds weights that are NaN or infinite; take another checkpoint")
    return model
