"""The description of a model that is put together from parts: plain values only, so that a checkpoint holds it."""

import dataclasses

from runtime.errors import UserError, did_you_mean

# What a model answers, for each pixel or for the whole patch.
PIXEL_CLASSES, PIXEL_VALUES, PATCH_CLASS, PATCH_LABELS = "a class a pixel", "a value a pixel", "a class a patch", "labels of a patch"
# {task: what it answers}: by this alone programs tell tasks apart, so that a row added here is a task in all of them.
TASKS = {"segmentation": PIXEL_CLASSES, "regression": PIXEL_VALUES, "classification": PATCH_CLASS, "multilabel": PATCH_LABELS}
AUXILIARY_WEIGHT = 0.4  # of an auxiliary loss beside the main one, where no other is given


@dataclasses.dataclass(frozen=True)
class Neck:
    """One step between encoder and decoder. name: of a row in nets/necks.py; args: its arguments."""

    name: str
    args: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class AuxiliaryHead:
    """A second decoder and head on the same features, for training alone. name: of its output and its loss; weight: of that loss."""

    name: str
    decoder: str
    decoder_args: dict = dataclasses.field(default_factory=dict)
    head_args: dict = dataclasses.field(default_factory=dict)
    weight: float = AUXILIARY_WEIGHT


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """
    Everything that decides an assembled model's shape.

    outputs: classes, or values a pixel. bands: names of the encoder's input channels. image_size: (height, width) of the patches that it is
    trained on, for encoders that are built for one size; others ignore it. head: None for the usual one of the task. rescale: the output
    has the size of the input. lora: rank of the encoder's adapters (nets/lora.py), 0 without any.
    """

    task: str = "segmentation"
    outputs: int = 2
    bands: tuple[str, ...] = ("red", "green", "blue")
    encoder: str = "resnet34"
    encoder_args: dict = dataclasses.field(default_factory=dict)
    necks: tuple[Neck, ...] = ()
    decoder: str = "unet"
    decoder_args: dict = dataclasses.field(default_factory=dict)
    head: str | None = None
    head_args: dict = dataclasses.field(default_factory=dict)
    auxiliary: tuple[AuxiliaryHead, ...] = ()
    image_size: tuple[int, int] | None = None
    rescale: bool = True
    lora: int = 0

    def __post_init__(self):
        if self.task not in TASKS:
            raise UserError(f"unknown task {self.task!r}; expected one of {', '.join(TASKS)}.{did_you_mean(self.task, TASKS)}")
        self.require_kinds()
        names = [head.name for head in self.auxiliary]
        if wrong := [name for name in names if not name.isidentifier() or hasattr(dict, name)]:
            raise UserError(f"an auxiliary head cannot be called {wrong[0]!r}; take a word such as aux1")
        if twice := {name for name in names if names.count(name) > 1}:
            raise UserError(f"two auxiliary heads are called {min(twice)}; give each a name of its own")

    def require_kinds(self):
        """UserError where names are no text or arguments no dict: a config may come from a stranger's checkpoint."""
        parts = [("encoder", self.encoder, self.encoder_args), ("decoder", self.decoder, self.decoder_args),
                 ("head", self.head or "", self.head_args), *(("neck", neck.name, neck.args) for neck in self.necks),
                 *(("auxiliary head", head.name, head.decoder_args) for head in self.auxiliary),
                 *(("auxiliary decoder", head.decoder, head.head_args) for head in self.auxiliary)]
        for kind, name, args in parts:
            if not isinstance(name, str) or not isinstance(args, dict) or not all(isinstance(key, str) for key in args):
                raise UserError(f"a model's {kind} needs a name and arguments by name, found {name!r} and {args!r:.60}")
        if not isinstance(self.outputs, int) or self.outputs < 1:
            raise UserError(f"a model's outputs are a whole number of at least 1, found {self.outputs!r:.60}")
        if not isinstance(self.lora, int) or self.lora < 0:
            raise UserError(f"a model's lora is a rank, a whole number from 0 on, found {self.lora!r:.60}")

    @property
    def auxiliary_weights(self):
        """{name: weight} of the auxiliary losses."""
        return {head.name: head.weight for head in self.auxiliary}

    @classmethod
    def from_dict(cls, values):
        """From a checkpoint. UserError where keys are unknown or of the wrong kind."""
        try:
            values = dict(values)
            values["necks"] = tuple(Neck(**neck) for neck in values.get("necks", ()))
            values["auxiliary"] = tuple(AuxiliaryHead(**head) for head in values.get("auxiliary", ()))
            values = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise UserError(f"the checkpoint's parts are not those of this version ({str(error)[:80]}); update Chipmill") from error

    def to_dict(self):
        """Strings, numbers, lists and dicts only; adapters where there are any, so that other checkpoints are as they were."""
        values = plain(dataclasses.asdict(self))
        return values if self.lora else {key: value for key, value in values.items() if key != "lora"}


def answers_pixels(task):
    """Whether a task asks for one answer a pixel, not one a patch. Patch sets and checkpoints that name no task are of segmentation."""
    return TASKS.get(task, PIXEL_CLASSES) in (PIXEL_CLASSES, PIXEL_VALUES)


def answers_classes(task):
    """Whether a task asks for a class of each pixel."""
    return TASKS.get(task, PIXEL_CLASSES) == PIXEL_CLASSES


def answers_values(task):
    """Whether a task asks for a value of each pixel."""
    return TASKS.get(task) == PIXEL_VALUES


def answers_labels(task):
    """Whether a task asks for any number of labels of each patch."""
    return TASKS.get(task) == PATCH_LABELS


def plain(value):
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, list | tuple) else value
