"""DOFA: a vision transformer whose first convolution follows from the wavelengths of the bands."""

import functools

import torch
from torch import nn
from torch.nn import functional as F

from nets.layout import TOKENS, Layout
from nets.prithvi import sines
from nets.timm_encoder import unread_blocks

CODE = 128  # numbers that stand for a wavelength
HEADS, INNER = 4, 2048  # of the small transformer that makes the convolution
TOKENS_BEFORE = 128
SHRINK = 0.01
KERNEL = 16
GENERATOR = "patch_embed."


class DofaEncoder(nn.Module):
    """
    x: (B, channels, H, W), sides multiples of 16 → a level for each of `layers`: (B, 1 + h · w, width) tokens, the last one normalised.

    wavelengths: micrometres of the channels. They matter when weights are loaded: folded() then makes an ordinary convolution of them.
    """

    def __init__(self, wavelengths, *, width, depth, heads, layers, name="dofa"):
        super().__init__()
        from timm.models.vision_transformer import VisionTransformer

        self.model = VisionTransformer(
            224, KERNEL, len(wavelengths), num_classes=0, embed_dim=width, depth=max(layers) + 1, num_heads=heads, global_pool="",
            norm_layer=functools.partial(nn.LayerNorm, eps=1e-6), final_norm=max(layers) == depth - 1, dynamic_img_size=True)
        self.model.patch_embed.proj = nn.Conv2d(len(wavelengths), width, KERNEL, KERNEL, padding=1)  # as it was trained
        self.wavelengths, self.layers = tuple(wavelengths), tuple(layers)
        self.unread = unread_blocks(layers, depth)
        self.layout = Layout(TOKENS, (width,) * len(layers), (KERNEL,) * len(layers), 1, made_by=f"encoder {name}")
        self.multiple = KERNEL

    def forward(self, x):
        levels = self.model.forward_intermediates(x, indices=list(self.layers), output_fmt="NLC", intermediates_only=True,
                                                  return_prefix_tokens=True)
        levels = [torch.cat([first, tokens], dim=1) for tokens, first in levels]
        levels[-1] = self.model.norm(levels[-1])
        return levels


def folded(state, wavelengths):
    """
    A state dict with `patch_embed.proj` in place of what makes it of wavelengths in micrometres: weights (width, bands, 16, 16) and bias.

    State dicts that have it already, of encoders that were trained on, are returned as they are. KeyError and RuntimeError where the
    generator's tensors are missing or of another shape.
    """
    if not any(key.startswith(f"{GENERATOR}weight_generator.") for key in state):
        return state
    own = {key.removeprefix(GENERATOR): value.float() for key, value in state.items() if key.startswith(GENERATOR)}
    codes = sines(torch.tensor(wavelengths, dtype=torch.float32) * 1000, CODE)
    step = F.relu(F.linear(codes, own["fclayer.w1.weight"], own["fclayer.w1.bias"]))
    codes = codes + F.relu(F.linear(step, own["fclayer.w2.weight"], own["fclayer.w2.bias"]))
    transformer = nn.TransformerEncoder(nn.TransformerEncoderLayer(CODE, HEADS, INNER, dropout=0.0, activation="gelu"), 1,
                                        enable_nested_tensor=False)
    begin = "weight_generator.transformer_encoder."
    transformer.load_state_dict({key.removeprefix(begin): value for key, value in own.items() if key.startswith(begin)})
    generator = {key.removeprefix("weight_generator."): value for key, value in own.items()}
    with torch.no_grad():
        found = transformer(torch.cat([generator["weight_tokens"], codes, generator["bias_token"]]))
        weight = F.linear(found[TOKENS_BEFORE:-1] + codes, generator["fc_weight.weight"], generator["fc_weight.bias"])
        bias = F.linear(found[-1], generator["fc_bias.weight"], generator["fc_bias.bias"])
    weight = weight.reshape(len(wavelengths), KERNEL, KERNEL, -1).permute(3, 0, 1, 2) * SHRINK
    rest = {key: value for key, value in state.items() if not key.startswith(GENERATOR)}
    return {**rest, f"{GENERATOR}proj.weight": weight.contiguous(), f"{GENERATOR}proj.bias": bias * SHRINK}
