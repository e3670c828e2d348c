"""torchvision's Swin transformers, version 2, as maps: weights of SatlasPretrain, which TorchGeo publishes, have its names."""

from torch import nn

from nets.layout import MAPS, Layout


class SwinEncoder(nn.Module):
    """(B, channels, H, W), sides multiples of 32 → maps at strides 4, 8, 16 and 32, the last one normalised. name: swin_v2_t …"""

    def __init__(self, name, channels):
        super().__init__()
        import torchvision

        self.model = getattr(torchvision.models, name)(weights=None)
        self.model.head = nn.Identity()
        first = self.model.features[0][0]
        self.model.features[0][0] = nn.Conv2d(channels, first.out_channels, first.kernel_size, first.stride)
        widths = tuple(first.out_channels * 2**level for level in range(4))
        self.unread = ()
        self.layout, self.multiple = Layout(MAPS, widths, (4, 8, 16, 32), made_by=f"encoder {name}"), 32

    def forward(self, x):
        levels = []
        for index, stage in enumerate(self.model.features):  # the first convolution, a stage, a merging of patches, a stage …
            x = stage(x)
            if index % 2:
                levels.append(x)
        levels[-1] = self.model.norm(levels[-1])
        return [level.permute(0, 3, 1, 2) for level in levels]
