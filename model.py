"""
Config → network: one table of architectures, and FireSegmentationModel, which every other program talks to.

    model = create_segmentation_model(num_classes=2, encoder_name="resnet34", architecture="unet", encoder_weights=None)
    logits = model(reflectance)                       # (B, bands, H, W) float32 reflectance → (B, classes, H, W); any H, W ≥ 1
    burned = model.predict_fire_fraction(reflectance) # (B,)

To add an architecture: a class in nets/ that takes (in_channels, classes) and has a `stride`, and one line in OWN_ARCHITECTURES.
"""

import contextlib
import copy
import dataclasses

import torch
from torch import nn

from constants import CEMS_BANDS
from losses import CombinedLoss, DiceLoss, FocalLoss  # noqa: F401  (`from model import CombinedLoss` is part of the interface)
from nets.adapter_file import with_base
from nets.assembled import AssembledModel, answers_by_itself, build_model, padded
from nets.contrast_unet import ContrastUNet
from nets.encoder_weights import fill_encoder
from nets.foundation import FoundationEncoder
from nets.freezing import freeze, rest_in_eval
from nets.input_step import PAIRS, InputStep, count_inputs, input_names
from nets.model_config import ModelConfig, answers_values
from nets.model_output import ModelOutput, as_model_output
from nets.output_step import OutputStep, answers_of
from nets.small_unet import SmallUNet
from nets.smp_network import build_smp, check_names, load_encoder_weights
from nets.user_model import require_same
from runtime.checkpoint import config_from_dict, config_to_dict, load_weights
from runtime.errors import UserError, one_line

# Trained from scratch, without an encoder. Every other name is looked up in segmentation-models-pytorch: unet, unetplusplus,
# deeplabv3plus …
OWN_ARCHITECTURES = {
    "smallunet": SmallUNet,
    "contrastunet": ContrastUNet,  # for a handful of scenes; with the indices ("pairs",)
}


@dataclasses.dataclass(frozen=True)
class SegmentationConfig:
    """
    Everything that decides a network's shape: the checkpoint's "model", forced on resume. mean and std in reflectance.

    num_classes: of regression the number of values a pixel. parts: of a model that is put together (nets/model_config.py), or what a
    user's function was given. user_model: {"name", "sha256"} of that function and its file (nets/user_model.py). target_mean, target_std:
    of a regression, in the target's units. coordinates: what it is given of each image beside its pixels, of "times" and "place".
    """

    architecture: str = "unet"
    encoder: str = "resnet34"
    bands: tuple[str, ...] = CEMS_BANDS
    num_classes: int = 2
    indices: tuple[str, ...] = ()
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    task: str = "segmentation"
    parts: ModelConfig | None = None
    target_mean: float = 0.0
    target_std: float = 1.0
    user_model: dict | None = None
    coordinates: tuple[str, ...] = ()

    def __post_init__(self):
        if not set(self.coordinates) <= {"times", "place"}:
            raise UserError("the model's coordinates are others than times and place; take another checkpoint")
        if self.parts and (self.parts.outputs, self.parts.task, self.parts.bands) != (
                self.num_classes, self.task, input_names(self.bands, self.indices)):
            raise UserError("the parts of the model have other bands, outputs or another task than the model; take another checkpoint")

    @property
    def title(self):
        """The network in a few words."""
        if self.user_model:
            return self.user_model["name"]
        if self.architecture in OWN_ARCHITECTURES:
            return self.architecture
        return f"{self.parts.decoder if self.parts else self.architecture} on {self.encoder}"

    @property
    def auxiliary_weights(self):
        """{name: weight} of the losses of auxiliary heads; {} without any."""
        return self.parts.auxiliary_weights if self.parts else {}

    @classmethod
    def from_dict(cls, values):
        parts = {"parts": ModelConfig.from_dict(values["parts"])} if values.get("parts") else {}
        return config_from_dict(cls, {**values, **parts})

    def to_dict(self):
        """Strings, numbers, lists and dicts only, keys of assembled models in those alone."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        of_regression = answers_values(self.task)
        added = {"task": self.task if self.task != "segmentation" else None, "parts": self.parts and self.parts.to_dict(),
                 "target_mean": self.target_mean if of_regression else None, "target_std": self.target_std if of_regression else None,
                 "user_model": self.user_model, "coordinates": self.coordinates or None}
        values = {key: value for key, value in values.items() if key not in added}
        values |= {key: value for key, value in added.items() if value is not None}
        return config_to_dict(values)


def build_network(config, user_model=None):
    """
    The network of a config, with random weights: (B, inputs, H, W) → (B, num_classes, H, W), sides multiples of `.stride`.

    user_model: the UserModel of a config that has one.
    """
    in_channels = count_inputs(config.bands, config.indices)
    if config.user_model:
        return user_model.network(config.parts)
    if config.parts:
        return build_model(config.parts)
    if config.architecture in OWN_ARCHITECTURES:  # first: importing segmentation-models-pytorch takes seconds
        return OWN_ARCHITECTURES[config.architecture](in_channels, config.num_classes)
    check_names(config.architecture, config.encoder, others=OWN_ARCHITECTURES)
    return build_smp(config.architecture, config.encoder, in_channels, config.num_classes)


def create_segmentation_model(num_classes=2, encoder_name="resnet34", architecture="unet", in_channels=None, encoder_weights="imagenet",
                              bands=None, indices=(), mean=None, std=None, task="segmentation", target=(0.0, 1.0)):
    """
    A FireSegmentationModel on a network of its own or of segmentation-models-pytorch. assemble() makes one from parts.

    task: see nets.model_config.TASKS. target: of a regression the mean and standard deviation of its values.

    bands: names of the input bands; without them the seven of the wildfire data, or band_1 … for another `in_channels`.
    encoder_weights: "imagenet", None or "none", or a file with a state dict. mean, std: per band, in reflectance.
    """
    if bands is None:
        count = len(CEMS_BANDS) if in_channels is None else in_channels
        bands = CEMS_BANDS if count == len(CEMS_BANDS) else tuple(f"band_{i + 1}" for i in range(count))
    elif in_channels not in (None, len(bands)):
        raise UserError(f"{in_channels} input channels were asked for, but {len(bands)} bands are named: {', '.join(bands)}")
    if architecture in OWN_ARCHITECTURES and encoder_weights not in (None, "none", "imagenet"):  # imagenet is everybody's default
        raise UserError(f"{architecture} has no encoder that --encoder-weights {encoder_weights} could go into; leave it out")
    config = SegmentationConfig(architecture, encoder_name, tuple(bands), num_classes, tuple(indices), mean, std, task,
                                target_mean=float(target[0]), target_std=float(target[1]))
    model = FireSegmentationModel(config)
    if encoder_weights not in (None, "none") and architecture not in OWN_ARCHITECTURES:
        seen = () if PAIRS in config.indices else config.bands  # bands that keep their own channel
        others = count_inputs(config.bands, config.indices) - len(seen)
        load_encoder_weights(model.network, encoder_name, encoder_weights, seen, others)
    return model


def assemble(parts, bands, *, indices=(), mean=None, std=None, target=(0.0, 1.0), encoder_weights=None,
             partial_weights=False, user_model=None, say=print, pictures=False):
    """
    A FireSegmentationModel around a model that is put together, or a user's. pictures: mean and std are of brightness, not reflectance.

    parts: a ModelConfig, whose `bands` are filled in here from bands and indices. target: of a regression the mean and standard deviation
    of its values. encoder_weights: "imagenet", None or "none", or a file;
    partial_weights allows that some do not match, which say(line) then tells. user_model: a UserModel in place of the parts' names.
    """
    parts = dataclasses.replace(parts, bands=input_names(bands, indices))
    if answers_values(parts.task):
        require_one_activation(parts)
        target = target_of_activation(parts.head_args.get("activation"), target)
    config = SegmentationConfig("assembled", parts.encoder, tuple(bands), parts.outputs, tuple(indices), mean, std, task=parts.task,
                                parts=parts, target_mean=float(target[0]), target_std=float(target[1]),
                                user_model=user_model and user_model.facts())
    model = FireSegmentationModel(config, user_model)
    if isinstance(encoder := getattr(model.network, "encoder", None), FoundationEncoder):
        encoder.expect(mean, std, pictures)
        if encoder.told:
            say(encoder.told)
    if encoder_weights not in (None, "none") and user_model is None:
        if left := fill_encoder(model.network.encoder, parts.encoder, encoder_weights, parts.bands, partial_weights):
            say(left)
    return model


def require_one_activation(parts):
    """UserError where the values of an auxiliary head pass another activation than the main ones: all are scaled alike."""
    main = parts.head_args.get("activation") or "none"
    for aux in parts.auxiliary:
        own = aux.head_args.get("activation") or "none"
        if own != main and not answers_by_itself(aux.decoder):
            raise UserError(f"auxiliary head {aux.name} has the activation {own}, the main head {main}, and both learn the same values; "
                            f"pass --head-args {aux.name}.activation={main}")


def target_of_activation(activation, target):
    """
    (mean, standard deviation) that values of a head are scaled with. An activation that says where values lie (from 0 on, in 0..1) has to
    say so in the target's units: without the mean, and without the standard deviation where it bounds them on both sides.
    """
    if activation in (None, "none"):
        return target
    return (0.0, target[1] if activation in ("relu", "softplus") else 1.0)


def model_from_checkpoint(checkpoint, user_model=None):
    """
    The model of a loaded segmentation checkpoint (see runtime/checkpoint.py), with its weights, in eval mode.

    user_model: the UserModel of the file that the user named, for checkpoints of such a network.

    UserError where the weights are not those of the network that it describes; it names the file where checkpoint["path"] does.
    """
    name = checkpoint.get("path", "the checkpoint")
    config, state = checkpoint["model"], checkpoint["state"]
    weights = state.get("model") if isinstance(state, dict) else None
    if not isinstance(config, dict) or not isinstance(weights, dict):
        raise UserError(f"{name} is damaged: it does not hold a network's description and weights; take another checkpoint")
    config = SegmentationConfig.from_dict(config)
    require_same(config.user_model, user_model, name)
    model = FireSegmentationModel(config, user_model)
    if "base" in checkpoint:
        weights = with_base(model, checkpoint, weights, fill_encoder)
    load_weights(model, weights, name, model.config.title if config.parts else config.architecture)
    return model.eval()


def require_fitting_size(model, size, piece, whole=None):
    """
    UserError where the network cannot take patches of size x size pixels (windows, pyramids of deep encoders), or not one at a time.

    whole: side of the patches that validation takes, where training takes squares of `size` out of them. piece: patches of a forward
    pass. Where a network makes one value of a patch (a pooled branch, a deep encoder on a small crop), batch
    normalisation needs a second one. Costs a forward pass or two on a copy: the running statistics of `model` stay as they are.
    """
    network, name = copy.deepcopy(model), model.config.title
    one = torch.zeros(1, len(model.config.bands), size, size)
    if whole not in (None, size):
        try:
            with torch.no_grad():
                network.eval()(torch.zeros(1, len(model.config.bands), whole, whole))
        except (UserError, RuntimeError, ValueError) as error:
            raise UserError(f"{name} is built for squares of {size} pixels (--crop), and validation takes whole patches of {whole}; leave "
                            "--crop out") from error
    try:
        with torch.no_grad():
            network.eval()(one)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{name} cannot take patches of {size} x {size} pixels ({one_line(error)[:60]}); use larger ones or another "
                        "--architecture") from error
    try:
        with torch.no_grad():
            piece > 1 or network.train()(one)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise UserError(f"{name} cannot be trained on one patch at a time (batch normalisation); pass --batch-size of at least 2 a piece"
                        ) from error


class FireSegmentationModel(nn.Module):
    """
    Reflectance in, class logits out; the answers about whole patches are derived from the pixels. With another task in its config it
    answers what that asks for, see nets.output_step.OutputStep.

    x: (B, bands, H, W) float32 reflectance, bands in the order of config.bands. predict_fire_* take class 0 for the background and every
    other class for fire (water …: what is mapped).
    The predict_* methods switch to eval mode and no-grad, and leave the model in the mode it was in.
    """

    def __init__(self, config, user_model=None):
        super().__init__()
        self.config = config
        self.input_step = InputStep(config.bands, config.indices, config.mean, config.std)
        self.network = build_network(config, user_model)
        self.output_step = OutputStep(config.task, config.target_mean, config.target_std)
        if not set(config.coordinates) <= set(self.coordinates_read):
            raise UserError(f"{config.title} takes no {' and '.join(config.coordinates)} of each image; take another checkpoint")

    @property
    def coordinates_read(self):
        """What its encoder could take beside pixels."""
        return getattr(self.network.encoder, "coordinates_read", ()) if isinstance(self.network, AssembledModel) else ()

    @property
    def coordinates(self):
        """What forward() takes beside pixels, of "times" (B, dates, 2) and "place" (B, 2), see nets.prithvi.PrithviEncoder.forward."""
        return self.config.coordinates

    @property
    def dates(self):
        """How many dates its encoder tells apart."""
        return getattr(getattr(getattr(self.network, "encoder", None), "inner", None), "dates", 1)

    def take_coordinates(self, known):
        """Be given of each image what the encoder reads and is in `known`. → what it reads and is not, "times" and "place"."""
        read = self.coordinates_read
        self.config = dataclasses.replace(self.config, coordinates=tuple(name for name in read if name in known))
        return [name for name in read if name not in known]

    def forward(self, x, **coordinates):
        """→ logits (B, num_classes, H, W), of a task that answers for whole patches (B, num_classes); any H and W."""
        return self.outputs(x, **coordinates).output

    def outputs(self, x, **coordinates):
        """
        → ModelOutput: what forward() returns beside the values of the auxiliary heads, which training needs.

        Sides that don't suit the network are continued by their last pixel, and cut from answers for each pixel.
        """
        height, width = x.shape[-2:]
        x = self.input_step(x)
        output, auxiliary = as_model_output(self.network(padded(x, self.network.stride), **coordinates))
        auxiliary = {name: self.output_step(cut(values, height, width)) for name, values in auxiliary.items()}
        return ModelOutput(self.output_step(cut(output, height, width)), auxiliary)

    def freeze_encoder(self, frozen=True):
        """Stop, or allow again, the training of the encoder: its weights, and statistics of batch normalisation."""
        if hasattr(self.network, "encoder"):
            freeze(self.network.encoder, frozen)
        elif hasattr(self.network, "freeze_encoder"):  # a user's network, which knows what its encoder is
            before = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
            if frozen:
                self.network.freeze_encoder()
                self.stopped = [parameter for parameter in before if not parameter.requires_grad] or getattr(self, "stopped", [])
            else:
                for parameter in getattr(self, "stopped", []):
                    parameter.requires_grad_(True)
        else:
            raise UserError(f"{self.config.title} has no encoder that could be frozen; leave --freeze-encoder out")

    def train(self, mode=True):
        super().train(mode)
        rest_in_eval(self)
        return self

    def predict_segmentation(self, x, **coordinates):
        """→ class of each pixel, (B, H, W) int64."""
        with predicting(self):
            return self(x, **coordinates).argmax(dim=1)

    def predict_probabilities(self, x, **coordinates):
        """→ (B, num_classes, H, W) in 0..1, summing to 1 over the classes; (B, num_classes) of whole patches, of labels each in 0..1."""
        with predicting(self):
            return answers_of(self.config.task, self(x, **coordinates))

    def predict_values(self, x, **coordinates):
        """→ (B, H, W) of a regression, in the target's units."""
        with predicting(self):
            return self(x, **coordinates)[:, 0]

    def predict_fire_detection(self, x, **coordinates):
        """→ is any pixel of a class above 0? (B,) bool."""
        return (self.predict_segmentation(x, **coordinates) > 0).flatten(1).any(dim=1)

    def predict_fire_confidence(self, x, **coordinates):
        """→ the highest probability of that, (B,) in [0, 1]. 1 - p_0, clamped: a sum of rounded parts can exceed 1."""
        return (1.0 - self.predict_probabilities(x, **coordinates)[:, 0]).clamp(0.0, 1.0).flatten(1).amax(dim=1)

    def predict_fire_fraction(self, x, **coordinates):
        """→ the share of such pixels, (B,) in [0, 1]."""
        return (self.predict_segmentation(x, **coordinates) > 0).float().flatten(1).mean(dim=1)


def cut(values, height, width):
    """The first rows and columns of answers for each pixel, (B, outputs, H, W); answers for a whole patch as they are."""
    if values.ndim != 4 or values.shape[-2:] == (height, width):
        return values
    return values[..., :height, :width]


@contextlib.contextmanager
def predicting(model):
    """Eval mode without gradients; afterwards every part is back in its own mode (a frozen encoder stays frozen)."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
