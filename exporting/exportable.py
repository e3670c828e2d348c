"""
Checkpoint → Exportable: a network with its weights, as a function of tensors, and what has to be known to use it elsewhere.

    exportable = exportable_of(checkpoint, size=(256, 256))
    exportable.module(*exportable.draw(3))        # tuples of tensors in, a tuple of tensors out

To add a kind of checkpoint: a function like `of_task`, and a line in KINDS.
"""

import dataclasses
from collections.abc import Callable

import torch
from torch import nn

from detection.detections import CENTRE
from detection.detectors import detector_from_checkpoint
from detection.encoders import count_weights
from detection.small_detectors import BANDS, NAMES, small_detector_from_checkpoint
from exporting.parity import compare_dense, compare_ranked
from model import model_from_checkpoint
from nets.layout import TOKENS
from nets.lora import merge_lora
from nets.model_config import PATCH_CLASS, PATCH_LABELS, PIXEL_CLASSES, PIXEL_VALUES, TASKS, answers_pixels
from pansharpening.network import pansharpener_from_checkpoint
from runtime.errors import UserError

LOCAL = ("patches_dir", "chips_dir")  # what a checkpoint's "data" says of folders of the machine that it was trained on
USUAL_SIDE = 256


@dataclasses.dataclass(frozen=True)
class Port:
    """
    An input or output. shape: numbers, and words for what is free: "batch", "height" … of an input, "4*height" of another that is four
    times as high. dims: a word for each. meaning: for people. bands: of an input, in their order.
    """

    name: str
    shape: tuple
    dims: tuple
    meaning: str
    dtype: str = "float32"
    bands: tuple = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exportable:
    """
    module: forward(*tensors) → a tuple of tensors, in eval mode on the CPU. weights: the state dict that a checkpoint of its kind has.
    facts: what inference.py needs of the checkpoint: kind, model, data, and "window": (width, height) that it takes, or None where sides
    are free, whole multiples of "multiple". draw(batch, (height, width), generator): inputs as they come. compare(expected, found): see
    exporting/parity.py. words: names of the classes, or of what comes out. task: of the MLM extension. sizes: (height, width) to try.
    scale: (divide_by, offset), numbers a band, of the stored values; None for bytes / 255.
    """

    title: str
    module: nn.Module
    weights: dict
    inputs: tuple
    outputs: tuple
    facts: dict
    draw: Callable
    compare: Callable
    words: tuple
    task: str
    sizes: tuple
    scale: tuple | None = None

    @property
    def count(self):
        """How many numbers the network has learned."""
        return count_weights(self.module)


class AsTuple(nn.Module):
    """A network whose forward gives a tensor, or a tuple of some, as one that gives a tuple; without gradients."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, *inputs):
        found = self.network(*inputs)
        return (found,) if isinstance(found, torch.Tensor) else tuple(found)


def exportable_of(checkpoint, *, size=None, free=False, limit=None, user_model=None):
    """
    The Exportable of a loaded checkpoint. size: (height, width) of the windows, by default those of the training. free: any height and
    width. limit: boxes of an image. user_model: see nets/user_model.py. UserError for what cannot be exported.
    """
    kind = checkpoint["kind"]
    kinds = {**dict.fromkeys(TASKS, of_task), **KINDS}
    if kind not in kinds:
        raise UserError(f"{checkpoint['path']} is a {kind} checkpoint; export.py knows {', '.join(kinds)}")
    return kinds[kind](checkpoint, size=size, free=free, limit=limit, user_model=user_model)


def facts_of(checkpoint, model, size, multiple=1, **more):
    """Exportable.facts. model: the network's description. size: (height, width) or None."""
    data = {key: value for key, value in checkpoint["data"].items() if key not in LOCAL}
    return {"kind": checkpoint["kind"], "model": model, "data": data, "window": size and [size[1], size[0]],
            "multiple": multiple, **more}


def windows(channels, size, free, multiple):
    """(shape, dims) of an input of images."""
    sides = free_sides(multiple) if free else size
    return ("batch", channels, *sides), ("batch", "channel", "height", "width")


def free_sides(multiple):
    return tuple(f"{multiple}*{side}" if multiple > 1 else side for side in ("height", "width"))


def drawn(mean, std, batch, size, generator, channels=None):
    """(batch, C, H, W) reflectance about as in the training. mean, std: a number a band, or None."""
    channels = channels or len(mean)
    mean, std = (torch.tensor(usual if numbers is None else numbers, dtype=torch.float32).reshape(-1, 1, 1)
                 for numbers, usual in ((mean, [0.2] * channels), (std, [0.1] * channels)))
    return (mean + std * torch.randn(batch, channels, *size, generator=generator)).clamp(min=0.0)


# ------------------------------------------------------------------------------------------------------------ tasks of patches


# What a task answers → the task of the MLM extension, and what is done with the output.
ANSWERS = {
    PIXEL_CLASSES: ("semantic-segmentation", "softmax over the second axis gives probabilities"),
    PIXEL_VALUES: ("regression", "in the target's units"),
    PATCH_CLASS: ("scene-classification", "softmax over the second axis gives probabilities"),
    PATCH_LABELS: ("scene-classification", "sigmoid gives the probability of each label"),
}


def of_task(checkpoint, *, size, free, limit, user_model):
    """A network of train.py: reflectance → logits of classes, or values."""
    refuse_limit(limit, "maps")
    model = merge_lora(model_from_checkpoint(checkpoint, user_model))
    config, data = model.config, checkpoint["data"]
    multiple = model.network.stride if isinstance(model.network.stride, int) else 1
    fixed = None if isinstance(model.network.stride, int) else model.network.stride
    if free:
        refuse_free(model, config)
    side = data.get("chip_size") or USUAL_SIDE
    size = size or fixed or (side, side)
    if fixed and tuple(size) != tuple(fixed):
        raise UserError(f"{config.title} takes windows of {fixed[1]} x {fixed[0]} alone; leave --window out")
    shape, dims = windows(len(config.bands), size, free, multiple)
    answers, of_each = TASKS[config.task], answers_pixels(config.task)
    task, meaning = ANSWERS[answers]
    output = Port("values" if answers == PIXEL_VALUES else "logits",
                  ("batch", config.num_classes, *shape[2:]) if of_each else ("batch", config.num_classes),
                  ("batch", "class", "height", "width") if of_each else ("batch", "class"), meaning)
    meaning = "reflectance, 0 where there is no data; its mean, standard deviation and spectral indices are in the network"
    return Exportable(
        title=config.title, module=AsTuple(model).eval(), weights=model.state_dict(),
        inputs=(Port("reflectance", shape, dims, meaning, bands=config.bands),), outputs=(output,),
        facts=facts_of(checkpoint, config.to_dict(), None if free else size, multiple if free else 1),
        draw=lambda batch, sides, generator: (drawn(config.mean, config.std, batch, sides, generator, len(config.bands)),),
        compare=lambda expected, found: compare_dense(expected, found, classes=answers in (PIXEL_CLASSES, PATCH_CLASS)),
        words=tuple(data["classes"]), task=task, scale=(data["divide_by"], data["offset"]),
        sizes=three_sizes(size, multiple) if free else (tuple(size),),
    )


def three_sizes(size, multiple):
    """Heights and widths, one square, one wide, one high, to try a network that takes any."""
    height, width = (max(multiple, -(-side // multiple) * multiple) for side in size)
    return (height, width), (height + multiple, max(multiple, width // 2 // multiple * multiple)), (height, width + 2 * multiple)


def refuse_free(model, config):
    """UserError for networks that would be exported without an error and be wrong at other sizes: see docs/export.md."""
    encoder = getattr(model.network, "encoder", None)
    layout = getattr(encoder, "layout", None)
    parts = list(model.modules())
    if not answers_pixels(config.task):
        why = "answers for whole windows"
    elif getattr(encoder, "fixed_size", None) or not isinstance(model.network.stride, int):
        why = "has an encoder of one size"
    elif getattr(layout, "form", None) == TOKENS or any(hasattr(part, "num_heads") for part in parts):
        why = "has a transformer, whose positions belong to one size"
    elif any(isinstance(part, nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d) and part.output_size not in (1, (1, 1)) for part in parts):
        why = "pools into grids, which become wrong at other sizes"
    else:
        return
    raise UserError(f"--any-size: {config.title} {why}; leave it out, or pass --window PIXELS")


# --------------------------------------------------------------------------------------------------------------------- sharpening


def of_sharpening(checkpoint, *, size, free, limit, user_model):
    """The sharpening network: ms and pan → bands, or Oklab. Blocks at the edge of a scene are smaller, so its size is always free."""
    refuse_limit(limit, "sharpening")
    if size:
        raise UserError("--window: the sharpening network takes blocks of any size; leave it out")
    model = pansharpener_from_checkpoint(checkpoint)
    config, data = model.config, checkpoint["data"]
    bands, ratio, side = len(config.bands), config.ratio, 24
    fine = (f"{ratio}*height", f"{ratio}*width")

    def draw(batch, sides, generator):
        ms = drawn(None, None, batch, sides, generator, bands)
        return ms, drawn(None, None, batch, tuple(ratio * s for s in sides), generator, 1)

    dims = ("batch", "channel", "height", "width")
    outputs = bands if config.target == "bands" else 3
    meaning = "reflectance of the bands at pan's resolution" if config.target == "bands" else "Oklab: lightness, a, b"
    return Exportable(
        title=f"sharpening network of ratio {ratio}", module=AsTuple(model).eval(), weights=model.state_dict(),
        inputs=(Port("ms", ("batch", bands, "height", "width"), dims, "reflectance of the multispectral bands", bands=config.bands),
                Port("pan", ("batch", 1, *fine), dims, "reflectance of the panchromatic band", bands=("pan",))),
        outputs=(Port("sharpened", ("batch", outputs, *fine), dims, meaning),),
        facts=facts_of(checkpoint, checkpoint["model"], None), draw=draw, compare=compare_dense, words=(), task="super-resolution",
        scale=(data["divide_by"], data["offset"]), sizes=((side, side), (side + 9, side - 7), (side - 3, side + 20)),
    )


# ----------------------------------------------------------------------------------------------------------------------- detectors


class CentreBoxes(nn.Module):
    """A `centre` detector: images → (boxes (B, N, 4), scores (B, N), labels (B, N)), the best first. count: N."""

    def __init__(self, detector, count):
        super().__init__()
        self.detector, self.count = detector, count

    def forward(self, images):
        return self.detector.network.best(self.detector.input_step(images), self.count)


def of_boxes(checkpoint, *, size, free, limit, user_model):
    """A `centre` detector of train_detection.py. One box more than `limit` comes out: it tells that there are more."""
    refuse_user_model(user_model)
    framework = checkpoint["model"].get("framework") if isinstance(checkpoint["model"], dict) else None
    if framework != CENTRE:
        raise UserError(f"{checkpoint['path']}: {framework} is one of torchvision's detectors, whose proposals and NMS have no fixed shape "
                        "for ONNX; train with --framework centre, or pass --safetensors")
    refuse_any_size(free)
    detector, data = merge_lora(detector_from_checkpoint(checkpoint)), checkpoint["data"]
    config = detector.config
    wide, tall = data["chip_size"]
    height, width = size or (tall, wide)
    limit = limit or data.get("max_detections") or 300
    count = min(limit + 1, -(-height // config.stride) * -(-width // config.stride) * len(config.classes))
    shape, dims = windows(len(config.bands), (height, width), False, 1)
    return Exportable(
        title=f"centre detector on {config.encoder}", module=AsTuple(CentreBoxes(detector, count)).eval(), weights=detector.state_dict(),
        inputs=(Port("image", shape, dims, "reflectance, or a picture's values / 255; 0 where there is no data", bands=config.bands),),
        outputs=box_ports(count, "x0, y0, x1, y1 in pixels of the window, the best first"),
        facts=facts_of(checkpoint, config.to_dict(), (height, width), limit=limit),
        draw=lambda batch, sides, generator: (drawn(config.mean, config.std, batch, sides, generator, len(config.bands)),),
        compare=lambda expected, found: compare_ranked(expected, found, (width, height)), words=tuple(config.classes),
        task="object-detection", scale=(data["divide_by"], data["offset"]), sizes=((height, width),),
    )


def box_ports(count, meaning, scores=("scores", "0 … 1")):
    return (Port("boxes", ("batch", count, 4), ("batch", "box", "corner"), meaning),
            Port(scores[0], ("batch", count), ("batch", "box"), scores[1]),
            Port("labels", ("batch", count), ("batch", "box"), "classes, from 1 on", dtype="int64"))


def of_frames(checkpoint, *, size, free, limit, user_model):
    """TinyDet or BigDet of train_small_detection.py."""
    refuse_user_model(user_model)
    refuse_limit(limit, "frames")
    refuse_any_size(free)
    detector = small_detector_from_checkpoint(checkpoint)
    config = detector.config
    wide, tall = config.target_size
    if size and tuple(size) != (tall, wide):
        raise UserError(f"--window: {NAMES[config.model]} was trained on frames of {wide} x {tall}, and takes those alone; leave it out")
    shape, dims = windows(3, (tall, wide), False, 1)
    return Exportable(
        title=NAMES[config.model], module=AsTuple(detector).eval(), weights=detector.state_dict(),
        inputs=(Port("frame", shape, dims, f"red, green and blue / 255, fitted into the size by {config.resize_mode}", bands=BANDS),),
        outputs=box_ports(detector.kept, "x0, y0, x1, y1 as shares of width and height, the best first",
                          ("logits", "sigmoid gives scores")),
        facts=facts_of(checkpoint, config.to_dict(), (tall, wide)),
        draw=lambda batch, sides, generator: (torch.rand(batch, 3, *sides, generator=generator),),
        compare=lambda expected, found: compare_ranked(expected, found, (1, 1)), words=tuple(config.classes), task="object-detection",
        sizes=((tall, wide),),
    )


def refuse_limit(limit, what):
    if limit is not None:
        raise UserError(f"--max-detections is for detectors, not for {what}; leave it out")


def refuse_any_size(free):
    if free:
        raise UserError("--any-size is for maps of pixels; a detector's boxes belong to one size: leave it out, or pass --window")


def refuse_user_model(user_model):
    if user_model is not None:
        raise UserError("--model is for networks of train.py; leave it out")


KINDS = {
    "pansharpen": of_sharpening,
    "detection": of_boxes,
    "small-detection": of_frames,
}
