"""
Published encoders of satellite images, a row each: how the network is built, which bands it knows and in which scale, what its file calls
the weights.

    encoder = build_encoder("prithvi:eo-v2-300", ("B02", "B03", "B04", "B8A"))      # nets/encoders.py
    fill_encoder(encoder, "prithvi:eo-v2-300", "Prithvi_EO_V2_300M.pt", bands)      # nets/encoder_weights.py

To add one: a row in FOUNDATIONS; where no network of timm, torchvision or this folder is the same, a line in NETWORKS too.
"""

import dataclasses

import torch
from torch import nn

from nets.dofa import DofaEncoder, folded
from nets.foundation_bands import WAVELENGTHS, Choice, choose
from nets.parts import MISTAKES, described, look_up
from nets.prithvi import PrithviEncoder
from nets.satlas_swin import SwinEncoder
from nets.timm_encoder import TimmEncoder, chosen_layers
from runtime.errors import UserError, did_you_mean, one_line

HLS = ("blue", "green", "red", "narrow_nir", "swir1", "swir2")
SENTINEL2 = ("B01", "blue", "green", "red", "B05", "B06", "B07", "nir", "narrow_nir", "B09", "B10", "swir1", "swir2")
RGB = ("red", "green", "blue")
# What may stand before the names of an encoder's weights: of wrapped models, of fine-tuned ones, of ours.
PREFIXES = ("module.", "model.", "network.", "encoder.", "backbone.", "_timm_module.", "inner.")
# What names of weights begin with that are no encoder's: decoders and heads of a pretraining, of fine-tuned models, of ours.
DROPPED = ("decoder", "mask_token", "head.", "fc.", "fc_norm.", "neck.", "necks.", "aux", "auxiliary.", "criterion.", "projector.",
           "input_step.", "output_step.", "gain", "shift", "heat.", "box.", "usual", "pyramid.", "rpn.", "roi_heads.")

SCALES = {"temporal_embed_enc.scale": "time_scale", "location_embed_enc.scale": "place_scale"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Foundation:
    """
    network: a key of NETWORKS; args: of it. bands: keys (nets/foundation_bands.py) in the order of the first convolution `first`, None
    where that is made from wavelengths. mean, std: a number a band, () where the images of a training have their own; of reflectance, or
    with pictures=True of brightness, both 0..1. hub: (repository, file). dropped: further beginnings of names that are not read. optional:
    beginnings of names that a file may lack. reads: names of --encoder-args.
    """

    network: str
    args: dict
    bands: tuple[str, ...] | None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    pictures: bool = False
    hub: tuple[str, str]
    dropped: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    first: str = "patch_embed.proj"
    reads: tuple[str, ...] = ("layers", "bands")


def prithvi(size, mean, std, coordinates=False, patch=16, *, hub):
    width, depth, heads = size
    reads = ("layers", "bands", "dates", *(("times", "place") if coordinates else ()))
    return Foundation(network="prithvi", args={"width": width, "depth": depth, "heads": heads, "patch": patch, "coordinates": coordinates},
                      bands=HLS, mean=tuple(m / 10_000 for m in mean), std=tuple(s / 10_000 for s in std), hub=hub, reads=reads,
                      dropped=("pos_embed",))


V1 = (775, 1081, 1229, 2497, 2204, 1611), (1282, 1270, 1399, 1368, 1292, 1155)
V2 = (1087, 1342, 1433, 2734, 1958, 1363), (2248, 2179, 2178, 1850, 1242, 1049)
NASA = "ibm-nasa-geospatial/Prithvi-EO"


def dofa(size, file):
    width, depth, heads = size
    return Foundation(network="dofa", args={"width": width, "depth": depth, "heads": heads}, bands=None, hub=("earthflow/DOFA", file),
                      optional=("norm.",), reads=("layers", "bands", "wavelengths"))


def dinov3(name):
    return Foundation(network="timm", args={"name": name}, bands=RGB, mean=(0.430, 0.411, 0.296), std=(0.213, 0.156, 0.143), pictures=True,
                      hub=(f"timm/{name}.sat493m", "model.safetensors"))


# TorchGeo's weight files: name → (keys of their bands, standard deviation in reflectance where the mean is 0)
TORCHGEO_BANDS = {
    "sentinel2-all": (SENTINEL2, (1.0,) * 13),
    "sentinel2-rgb": (RGB, (1.0,) * 3),
    "sentinel2-ms-satlas": (("red", "green", "blue", "B05", "B06", "B07", "nir", "swir1", "swir2"), (0.3558,) * 3 + (0.816,) * 6),
    "sentinel2-rgb-satlas": (RGB, (0.3558,) * 3),
    "sentinel1": (("vv", "vh"), ()),
    "landsat-oli-sr": (("B01", "blue", "green", "red", "nir", "swir1", "swir2"), ()),
    "landsat-etm-sr": (("blue", "green", "red", "nir", "swir1", "swir2"), ()),
    "rgb": (RGB, ()),
}
TORCHGEO_NETWORKS = {
    "resnet18": ("timm", "conv1"), "resnet50": ("timm", "conv1"), "resnet152": ("timm", "conv1"),
    "vit_small_patch16_224": ("timm", "patch_embed.proj"), "swin_v2_t": ("swin", "features.0.0"), "swin_v2_b": ("swin", "features.0.0"),
}


def torchgeo_rows():
    """{`torchgeo:resnet50:sentinel2-all`: row}."""
    return {
        f"torchgeo:{name}:{kind}": Foundation(
            network=network, args={"name": name}, bands=bands, mean=(0.0,) * len(std), std=std, first=first, hub=("torchgeo", ""),
            reads=("layers", "bands") if network == "timm" else ("bands",))
        for name, (network, first) in TORCHGEO_NETWORKS.items() for kind, (bands, std) in TORCHGEO_BANDS.items()}


BASE, LARGE, HUGE, TINY = (768, 12, 12), (1024, 24, 16), (1280, 32, 16), (192, 12, 3)
FOUNDATIONS = {
    "prithvi:eo-v1-100": prithvi(BASE, *V1, hub=(f"{NASA}-1.0-100M", "Prithvi_EO_V1_100M.pt")),
    "prithvi:eo-v2-tiny-tl": prithvi(TINY, *V2, True, hub=(f"{NASA}-2.0-tiny-TL", "Prithvi_EO_V2_tiny_TL.pt")),
    "prithvi:eo-v2-100-tl": prithvi(BASE, *V2, True, hub=(f"{NASA}-2.0-100M-TL", "Prithvi_EO_V2_100M_TL.pt")),
    "prithvi:eo-v2-300": prithvi(LARGE, *V2, hub=(f"{NASA}-2.0-300M", "Prithvi_EO_V2_300M.pt")),
    "prithvi:eo-v2-300-tl": prithvi(LARGE, *V2, True, hub=(f"{NASA}-2.0-300M-TL", "Prithvi_EO_V2_300M_TL.pt")),
    "prithvi:eo-v2-600": prithvi(HUGE, *V2, patch=14, hub=(f"{NASA}-2.0-600M", "Prithvi_EO_V2_600M.pt")),
    "prithvi:eo-v2-600-tl": prithvi(HUGE, *V2, True, patch=14, hub=(f"{NASA}-2.0-600M-TL", "Prithvi_EO_V2_600M_TL.pt")),
    "dofa:base": dofa(BASE, "DOFA_ViT_base_e100.pth"),
    "dofa:large": dofa(LARGE, "DOFA_ViT_large_e100.pth"),
    "dinov3-sat:large": dinov3("vit_large_patch16_dinov3"),
    "dinov3-sat:7b": dinov3("vit_7b_patch16_dinov3"),
    **torchgeo_rows(),
}


def build_foundation(name, bands, arguments):
    """A FoundationEncoder with random weights. UserError for an unknown name, unread arguments, and bands that it knows none of."""
    row = look_up("encoder", FOUNDATIONS, name) if name in FOUNDATIONS else refuse_unknown(name)
    if unread := [key for key in arguments if key not in row.reads]:
        hint = " was trained without coordinates and" if unread[0] in ("times", "place") and row.network == "prithvi" else ""
        raise UserError(f"encoder {name}{hint} does not read the argument {unread[0]!r}; it takes {', '.join(row.reads)}."
                        f"{did_you_mean(unread[0], row.reads)}")
    dates = arguments.get("dates", 1)
    names = given_bands(name, arguments.get("bands"), bands, dates)
    if "wavelengths" in arguments:
        choice = Choice(tuple(range(len(names))), None, names, ())
    else:
        choice = choose(name, row.bands, names, dates)
    try:
        return FoundationEncoder(name, row, choice, NETWORKS[row.network](name, row.args, choice, arguments), len(bands))
    except MISTAKES as error:
        raise UserError(f"encoder {name} cannot be built{described(arguments)}: {one_line(error)[:120]}") from error


def refuse_unknown(name):
    families = sorted({known.split(":")[0] for known in FOUNDATIONS})
    raise UserError(f"unknown encoder {name!r}; of published ones there are {', '.join(f'{family}:…' for family in families)}."
                    f"{did_you_mean(name, FOUNDATIONS)}")


def given_bands(name, stated, bands, dates):
    """Names of the channels: those of --encoder-args bands=, which are of one date, or the image's own."""
    if stated is None:
        return tuple(bands)
    stated = (stated,) if isinstance(stated, str) else tuple(map(str, stated))
    if not isinstance(dates, int) or len(stated) * dates != len(bands):
        raise UserError(f"encoder {name}: bands= names {len(stated)} bands of dates={dates}, and the images have {len(bands)} channels")
    return stated * dates


def make_prithvi(name, facts, choice, arguments):
    known = {key: value for key, value in arguments.items() if key in ("dates", "times", "place")}
    layers = chosen_layers(arguments.get("layers"), facts["depth"], True)
    return PrithviEncoder(len(choice.columns), **{**facts, **known, "layers": layers, "name": name})


def make_dofa(name, facts, choice, arguments):
    wavelengths = arguments.get("wavelengths")  # nm
    if wavelengths is None:
        wavelengths = [WAVELENGTHS[key] for key in choice.keys]
    else:
        wavelengths = [w / 1000 for w in (wavelengths if isinstance(wavelengths, list | tuple) else [wavelengths])]
        if len(wavelengths) != len(choice.keys) or not all(0.2 < w < 100 for w in wavelengths):
            raise UserError(f"encoder {name} expects wavelengths= in nm, one for each of {', '.join(choice.keys)}")
    return DofaEncoder(wavelengths, **facts, layers=chosen_layers(arguments.get("layers"), facts["depth"], True), name=name)


def make_timm(name, facts, choice, arguments):
    return TimmEncoder(facts["name"], len(choice.columns), (224, 224), layers=arguments.get("layers"))


def make_swin(name, facts, choice, arguments):
    return SwinEncoder(facts["name"], len(choice.columns))


# name → function(encoder's name, arguments of the row, Choice, --encoder-args) → encoder; its own weights are called model.…
NETWORKS = {"prithvi": make_prithvi, "dofa": make_dofa, "timm": make_timm, "swin": make_swin}


class FoundationEncoder(nn.Module):
    """
    Channels of x that an encoder knows, in the scale of its training → that encoder. kept, columns …: see Choice. channels: of x.

    told: a line about channels that are not read or are taken for a neighbour, "" without any.
    """

    def __init__(self, name, row, choice, inner, channels):
        super().__init__()
        self.name, self.row, self.choice, self.inner = name, row, choice, inner
        self.layout = dataclasses.replace(inner.layout, made_by=f"encoder {name}")
        self.multiple, self.fixed_size = inner.multiple, getattr(inner, "fixed_size", None)
        self.register_buffer("gain", torch.ones(1, len(choice.kept), 1, 1))
        self.register_buffer("shift", torch.zeros(1, len(choice.kept), 1, 1))
        self.register_buffer("kept", torch.tensor(choice.kept), persistent=False)
        self.reads_all = choice.kept == tuple(range(channels))
        remarks = [*([f"{', '.join(choice.left)} left out"] if choice.left else []), *choice.stand_ins]
        self.told = "; ".join([f"{name} reads {', '.join(choice.keys)}", *remarks]) if remarks else ""

    @property
    def coordinates_read(self):
        """("times", "place"): what it takes of each image beside pixels, unless the whole run has it."""
        if getattr(self.inner, "time_scale", None) is None:
            return ()
        return tuple(name for name in ("times", "place") if getattr(self.inner, name) is None)

    def forward(self, x, **coordinates):
        if not self.reads_all:
            x = x.index_select(1, self.kept)
        return self.inner(x * self.gain + self.shift, **coordinates)

    def expect(self, mean, std, pictures):
        """
        Prepare for inputs that were normalised with mean and std, a number for each channel that is a band: they are brought to the
        statistics of the pretraining, where those are of such images. pictures: brightness in 0..1, not reflectance.
        """
        if not self.row.std or pictures != self.row.pictures or mean is None:
            return
        mean, std = (torch.as_tensor(values, dtype=torch.float32)[list(self.choice.kept)] for values in (mean, std))
        dates = len(self.choice.kept) // len(self.choice.columns)
        own_mean, own_std = (torch.tensor([values[c] for c in self.choice.columns] * dates) for values in (self.row.mean, self.row.std))
        self.gain.copy_((std / own_std).reshape(self.gain.shape))
        self.shift.copy_(((mean - own_mean) / own_std).reshape(self.shift.shape))

    def own_weights(self):
        """{name: tensor} of what a file has to hold."""
        return {key: value for key, value in self.state_dict().items() if key not in ("gain", "shift")}

    def in_own_names(self, state):
        """
        A state dict of a published or fine-tuned file under the names of this one: prefixes are stripped, decoders and heads left out, the
        first convolution has the channels of this encoder's bands.
        """
        is_ours = any("inner.model." in key for key in state)  # its first convolution has the channels of that run
        dropped = (*DROPPED, *self.row.dropped, *self.inner.unread)
        state = {short: value for key, value in state.items() if not (short := stripped(key)).startswith(dropped)}
        state = READERS.get(self.row.network, as_it_is)(self, state)
        first = f"{self.row.first}.weight"
        if self.row.bands and not is_ours and first in state and state[first].shape[1:2] == (len(self.row.bands),):
            state[first] = state[first][:, list(self.choice.columns)]
        state = {f"inner.{'' if key in SCALES.values() else 'model.'}{key}": value for key, value in state.items()}
        optional = tuple(f"inner.model.{word}" for word in self.row.optional)
        return {**{key: value for key, value in self.own_weights().items() if key.startswith(optional)}, **state}


def stripped(key):
    """A weight's name without what may stand before it."""
    while found := next((prefix for prefix in PREFIXES if key.startswith(prefix)), None):
        key = key.removeprefix(found)
    return key


def as_it_is(encoder, state):
    return state


def read_prithvi(encoder, state):
    """The convolution over one date of patches loses that axis, and coordinates' scales get our names."""
    state = {SCALES.get(key, key): value for key, value in state.items()}
    weight = state.get("patch_embed.proj.weight")
    if weight is not None and weight.ndim == 5 and weight.shape[2] == 1:
        state["patch_embed.proj.weight"] = weight[:, :, 0]
    return state


def read_dofa(encoder, state):
    try:
        return folded(state, encoder.inner.wavelengths)
    except (KeyError, RuntimeError) as error:
        raise UserError(f"the weights are not those of {encoder.name}: what makes its convolution is incomplete "
                        f"({one_line(error)[:60]}); pass others") from error


def read_timm(encoder, state):
    """Files of DINOv3's own publisher have other names, which timm translates."""
    if not encoder.name.startswith("dinov3-sat:"):
        return state
    from timm.models.eva import checkpoint_filter_fn

    return checkpoint_filter_fn(state, encoder.inner.model)


READERS = {"prithvi": read_prithvi, "dofa": read_dofa, "timm": read_timm}
