"""Prithvi: a vision transformer of timm with fixed positions in time and space, and where asked for the date and the place of an image."""

import functools
import math

import torch
from torch import nn
from torch.nn import functional as F

from nets.layout import TOKENS, Layout
from nets.timm_encoder import unread_blocks
from runtime.errors import UserError

EPS = 1e-5  # of layer normalisation; timm's own is 1e-6
SIDE = 224  # pixels that positions were trained on; for other sizes they are resized from there


class PrithviEncoder(nn.Module):
    """
    x: (B, dates · channels, H, W), all channels of the first date, then of the second …, sides multiples of `patch` → a level for each of
    `layers`: (B, 1 + h · w, width · dates) tokens, class token first, the dates of one place side by side; the last level normalised.

    times: year and day of the year (from 1) of each date, one after another; place: latitude and longitude in degrees. Both hold for all
    images, and are for models that were trained with them (coordinates=True).
    """

    def __init__(self, channels, *, width, depth, heads, layers, patch=16, dates=1, coordinates=False, times=None, place=None,
                 name="prithvi"):
        super().__init__()
        from timm.models.vision_transformer import VisionTransformer

        self.model = VisionTransformer(
            SIDE, patch, channels, num_classes=0, embed_dim=width, depth=max(layers) + 1, num_heads=heads, pos_embed="none",
            global_pool="", norm_layer=functools.partial(nn.LayerNorm, eps=EPS), final_norm=max(layers) == depth - 1)
        self.layers, self.dates, self.patch = tuple(layers), dates, patch
        self.register_buffer("positions", space_and_time(width, SIDE // patch, dates), persistent=False)
        self.time_scale = nn.Parameter(torch.full((1,), 0.1)) if coordinates else None
        self.place_scale = nn.Parameter(torch.full((1,), 0.1)) if coordinates else None
        known = coordinates_of(times, place, dates, coordinates, name)
        for key, numbers in zip(("times", "place"), known, strict=True):
            self.register_buffer(key, None if numbers is None else torch.tensor(numbers, dtype=torch.float32), persistent=False)
        self.unread = unread_blocks(layers, depth)
        self.layout = Layout(TOKENS, (width * dates,) * len(layers), (patch,) * len(layers), 1, made_by=f"encoder {name}")
        self.multiple = patch

    def forward(self, x, times=None, place=None):
        """times: (B, dates, 2), place: (B, 2) of each image, in place of those that hold for all."""
        batch, grid = x.shape[0], (x.shape[-2] // self.patch, x.shape[-1] // self.patch)
        dated = x.unflatten(1, (self.dates, -1)).flatten(0, 1) if self.dates > 1 else x
        tokens = self.model.patch_embed.proj(dated).flatten(2).transpose(1, 2)  # (B · dates, h · w, width)
        tokens = tokens.reshape(batch, -1, tokens.shape[-1]) + self.positions_of(grid)
        tokens = self.with_coordinates(tokens, self.times if times is None else times, self.place if place is None else place)
        tokens = torch.cat([self.model.cls_token.expand(batch, -1, -1), tokens], dim=1)
        levels = []
        for index, block in enumerate(self.model.blocks):
            tokens = block(tokens)
            if index in self.layers:
                levels.append(tokens)
        levels[-1] = self.model.norm(levels[-1])
        return [side_by_side(level, self.dates) for level in levels] if self.dates > 1 else levels

    def positions_of(self, grid):
        """(1, dates · h · w, width): those of the base grid, resized."""
        positions = self.positions
        if tuple(positions.shape[-2:]) != grid:
            positions = F.interpolate(positions, size=grid, mode="bicubic", align_corners=True)
        return positions.flatten(2).transpose(1, 2).reshape(1, -1, positions.shape[1])

    def with_coordinates(self, tokens, times, place):
        width = tokens.shape[-1]
        if times is not None:
            times = times if times.ndim == 3 else times[None]
            added = self.time_scale * pair_of_codes(times, width)  # (B or 1, dates, width)
            tokens = tokens + added.repeat_interleave(tokens.shape[1] // self.dates, dim=1)
        if place is not None:
            place = place if place.ndim == 2 else place[None]
            tokens = tokens + self.place_scale * pair_of_codes(place, width)[:, None]
        return tokens


def side_by_side(tokens, dates):
    """(B, 1 + dates · n, C) → (B, 1 + n, dates · C): the class token is repeated."""
    first, rest = tokens[:, :1], tokens[:, 1:]
    rest = rest.unflatten(1, (dates, -1)).transpose(1, 2).flatten(2)
    return torch.cat([first.repeat(1, 1, dates), rest], dim=1)


def space_and_time(width, side, dates):
    """(dates, width, side, side): of each place 6 / 16 of the width for its column, 6 / 16 for its row, 4 / 16 for its date."""
    if width % 16:
        raise ValueError(f"a width that is a multiple of 16 is needed for positions, got {width}")
    of_space, of_time = (sines(torch.arange(count, dtype=torch.float64), width // 16 * share) for count, share in ((side, 6), (dates, 4)))
    across = of_space[None, None].expand(dates, side, -1, -1)
    down = of_space[None, :, None].expand(dates, -1, side, -1)
    dated = of_time[:, None, None].expand(-1, side, side, -1)
    return torch.cat([across, down, dated], dim=-1).permute(0, 3, 1, 2).float().contiguous()


def sines(values, width):
    """(…) → (…, width): sines, then cosines of the values at frequencies from 1 down to about 1 / 10000."""
    rates = 1.0 / 10000.0 ** (torch.arange(width // 2, dtype=values.dtype, device=values.device) / (width / 2))
    angles = values[..., None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def pair_of_codes(numbers, width):
    """(…, 2) → (…, width): half of it for each of two numbers."""
    return torch.cat([sines(numbers[..., 0], width // 2), sines(numbers[..., 1], width - width // 2)], dim=-1)


def coordinates_of(times, place, dates, has_coordinates, name):
    """(times as [[year, day], …] or None, place as [latitude, longitude] or None). UserError for what cannot be right."""
    if not has_coordinates and (times is not None or place is not None):
        asked = "times" if times is not None else "place"
        raise UserError(f"encoder {name} was trained without coordinates; leave {asked} out, or take one of the -tl encoders")
    if times is not None:
        times = numbers_in(times)
        pairs = list(zip(times[::2], times[1::2], strict=False))
        if len(times) != 2 * dates or not all(1900 <= year <= 2200 and 1 <= day <= 366 for year, day in pairs):
            raise UserError(f"encoder {name} expects times=YEAR,DAY for each of {dates} dates, such as times=2023,180; got {times}")
        times = [list(pair) for pair in pairs]
    if place is not None:
        place = numbers_in(place)
        if len(place) != 2 or not (abs(place[0]) <= 90 and abs(place[1]) <= 180):
            raise UserError(f"encoder {name} expects place=LATITUDE,LONGITUDE in degrees, such as place=38.7,-9.1; got {place}")
    return times, place


def numbers_in(value):
    values = list(value) if isinstance(value, list | tuple) else [value]
    return [v if isinstance(v, int | float) and not isinstance(v, bool) else math.nan for v in values]
