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
from torch.nn import functional as F

from constants import CEMS_BANDS
from losses import CombinedLoss, DiceLoss, FocalLoss  # noqa: F401  (`from model import CombinedLoss` is part of the interface)
from nets.contrast_unet import ContrastUNet
from nets.input_step import PAIRS, InputStep, count_inputs
from nets.model_config import ModelConfig
from nets.model_output import ModelOutput, as_model_output
from nets.output_step import OutputStep, answers_of
from nets.small_unet import SmallUNet
from nets.smp_network import build_smp, check_names, load_encoder_weights
from runtime.checkpoint import load_weights
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

    num_classes: of regression the number of values a pixel. parts: of a model that is put together (see nets/model_config.py).
    target_mean, target_std: of a regression, in the target's units.
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

    @property
    def auxiliary_weights(self):
        """{name: weight} of the losses of auxiliary heads; {} without any."""
        return self.parts.auxiliary_weights if self.parts else {}

    @classmethod
    def from_dict(cls, values):
        """From a checkpoint's "model". Unknown keys are a UserError: they come from a newer version."""
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := set(values) - known:
            names = ", ".join(sorted(unknown))
            raise UserError(f"the checkpoint's model has settings that this version does not know: {names}; update Chipmill")
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
        return cls(**{**values, "parts": ModelConfig.from_dict(values["parts"])} if "parts" in values else values)

    def to_dict(self):
        """Strings, numbers, lists and dicts only, keys of assembled models in those alone."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        added = {"task": self.task} if self.task != "segmentation" else {}
        added |= {"parts": self.parts.to_dict()} if self.parts else {}
        added |= {"target_mean": self.target_mean, "target_std": self.target_std} if self.task == "regression" else {}
        values = {key: value for key, value in values.items() if key not in ("task", "parts", "target_mean", "target_std")} | added
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def build_network(config):
    """The network of a config, with random weights: (B, inputs, H, W) → (B, num_classes, H, W), sides multiples of `.stride`."""
    in_channels = count_inputs(config.bands, config.indices)
    if config.architecture in OWN_ARCHITECTURES:  # first: importing segmentation-models-pytorch takes seconds
        return OWN_ARCHITECTURES[config.architecture](in_channels, config.num_classes)
    check_names(config.architecture, config.encoder, others=OWN_ARCHITECTURES)
    return build_smp(config.architecture, config.encoder, in_channels, config.num_classes)


def create_segmentation_model(num_classes=2, encoder_name="resnet34", architecture="unet", in_channels=None, encoder_weights="imagenet",
                              bands=None, indices=(), mean=None, std=None, task="segmentation", target=(0.0, 1.0)):
    """
    A FireSegmentationModel.

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


def model_from_checkpoint(checkpoint):
    """
    The model of a loaded segmentation checkpoint (see runtime/checkpoint.py), with its weights, in eval mode.

    UserError where the weights are not those of the network that it describes; it names the file where checkpoint["path"] does.
    """
    name = checkpoint.get("path", "the checkpoint")
    config, state = checkpoint["model"], checkpoint["state"]
    weights = state.get("model") if isinstance(state, dict) else None
    if not isinstance(config, dict) or not isinstance(weights, dict):
        raise UserError(f"{name} is damaged: it does not hold a network's description and weights; take another checkpoint")
    model = FireSegmentationModel(SegmentationConfig.from_dict(config))
    load_weights(model, weights, name, model.config.architecture)
    return model.eval()


def require_fitting_size(model, size, piece):
    """
    UserError where the network cannot take patches of size x size pixels (windows, pyramids of deep encoders), or not one at a time.

    piece: patches of a forward pass. Where a network makes one value of a patch (a pooled branch, a deep encoder on a small crop), batch
    normalisation needs a second one. Costs a forward pass or two on a copy: the running statistics of `model` stay as they are.
    """
    network, name = copy.deepcopy(model), f"{model.config.architecture} on {model.config.encoder}"
    one = torch.zeros(1, len(model.config.bands), size, size)
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

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.input_step = InputStep(config.bands, config.indices, config.mean, config.std)
        self.network = build_network(config)
        self.output_step = OutputStep(config.task, config.target_mean, config.target_std)

    def forward(self, x):
        """→ logits (B, num_classes, H, W), of a task that answers for whole patches (B, num_classes); any H and W."""
        return self.outputs(x).output

    def outputs(self, x):
        """
        → ModelOutput: what forward() returns beside the values of the auxiliary heads, which training needs.

        Sides that don't suit the network are continued by their last pixel, and cut from answers for each pixel.
        """
        height, width = x.shape[-2:]
        x = self.input_step(x)
        stride = self.network.stride
        bottom, right = -height % stride, -width % stride
        if bottom or right:
            x = F.pad(x, (0, right, 0, bottom), mode="replicate")
        output, auxiliary = as_model_output(self.network(x))
        auxiliary = {name: self.output_step(cut(values, height, width)) for name, values in auxiliary.items()}
        return ModelOutput(self.output_step(cut(output, height, width)), auxiliary)

    def predict_segmentation(self, x):
        """→ class of each pixel, (B, H, W) int64."""
        with predicting(self):
            return self(x).argmax(dim=1)

    def predict_probabilities(self, x):
        """→ (B, num_classes, H, W) in 0..1, summing to 1 over the classes; (B, num_classes) of whole patches, of labels each in 0..1."""
        with predicting(self):
            return answers_of(self.config.task, self(x))

    def predict_values(self, x):
        """→ (B, H, W) of a regression, in the target's units."""
        with predicting(self):
            return self(x)[:, 0]

    def predict_fire_detection(self, x):
        """→ is any pixel of a class above 0? (B,) bool."""
        return (self.predict_segmentation(x) > 0).flatten(1).any(dim=1)

    def predict_fire_confidence(self, x):
        """→ the highest probability of that, (B,) in [0, 1]. 1 - p_0, clamped: a sum of rounded parts can exceed 1."""
        return (1.0 - self.predict_probabilities(x)[:, 0]).clamp(0.0, 1.0).flatten(1).amax(dim=1)

    def predict_fire_fraction(self, x):
        """→ the share of such pixels, (B,) in [0, 1]."""
        return (self.predict_segmentation(x) > 0).float().flatten(1).mean(dim=1)


def cut(values, height, width):
    """The first rows and columns of answers for each pixel, (B, outputs, H, W); answers for a whole patch as they are."""
    return values[..., :height, :width] if values.ndim == 4 else values


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
