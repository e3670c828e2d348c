"""Modules that stand in for the networks of checkpoints: what they say comes from ONNX Runtime, what they are from the description."""

import numpy as np
import torch
from torch import nn

from detection.centre import above
from detection.detectors import DetectorConfig
from detection.small_detectors import SmallConfig
from exporting.sessions import CPU, run_session
from model import SegmentationConfig
from pansharpening.network import PansharpenerConfig
from runtime.checkpoint import config_from_dict
from runtime.errors import RunError, UserError, one_line

PIECE = 2  # windows a thread: more of them leave the processor's caches between two layers, an eighth of a vision transformer's time


class OnnxNetwork(nn.Module):
    """
    forward(*tensors) → a tensor, or a tuple of several, on the CPU. config: as that of the network that was exported. hashes: of its files;
    they are the module's state, by which maps know what they were made with.
    """

    def __init__(self, path, session, config, hashes):
        super().__init__()
        self.path, self.session, self.config = path, session, config
        self.register_buffer("onnx", torch.tensor(list(bytes.fromhex("".join(hashes))), dtype=torch.uint8))

    def forward(self, *inputs):
        arrays = [tensor.detach().float().contiguous().cpu().numpy() for tensor in inputs]
        count = max(1, len(arrays[0]))
        piece = PIECE * torch.get_num_threads() if self.session.get_providers()[0] == CPU else count
        try:
            pieces = [run_session(self.session, [array[first : first + piece] for array in arrays]) for first in range(0, count, piece)]
        except Exception as error:
            raise RunError(f"{self.path} cannot be run on inputs of {', '.join(str(tuple(i.shape)) for i in inputs)} "
                           f"({one_line(error)[:160]})") from error
        found = tuple(torch.from_numpy(np.concatenate(parts) if len(parts) > 1 else parts[0]) for parts in zip(*pieces, strict=True))
        return found[0] if len(found) == 1 else found


class OnnxDetector(OnnxNetwork):
    """A `centre` detector; see detection.detectors.Detector.predict, without tta. limit: boxes of an image that it was exported for."""

    def __init__(self, path, session, config, hashes, limit):
        super().__init__(path, session, config, hashes)
        self.limit = limit

    def predict(self, images, score_threshold=0.05, limit=300):
        if limit > self.limit:
            raise UserError(f"--max-detections {limit}: {self.path} was exported for {self.limit}; pass at most that, or export with "
                            f"--max-detections {limit}")
        return [above(*one, score_threshold, limit) for one in zip(*self(images), strict=True)]


def of_task(path, session, facts, hashes):
    return OnnxNetwork(path, session, SegmentationConfig.from_dict(facts["model"]), hashes)


def of_sharpening(path, session, facts, hashes):
    return OnnxNetwork(path, session, config_from_dict(PansharpenerConfig, facts["model"]), hashes)


def of_boxes(path, session, facts, hashes):
    if not isinstance(limit := facts.get("limit"), int):
        raise UserError(f"{path} does not say how many boxes of an image it gives; export it again")
    return OnnxDetector(path, session, DetectorConfig.from_dict(facts["model"]), hashes, limit)


def of_frames(path, session, facts, hashes):
    return OnnxNetwork(path, session, SmallConfig.from_dict(facts["model"]), hashes)


def checked(make):
    """make(path, session, facts, hashes), with a UserError where the description is of another network."""

    def build(path, session, facts, hashes):
        try:
            return make(path, session, facts, hashes)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path} is damaged: it does not describe a network of its kind; export it again") from error

    return build


OF_TASKS = checked(of_task)  # of all tasks of nets.model_config
NETWORKS = {
    "pansharpen": checked(of_sharpening),
    "detection": checked(of_boxes),
    "small-detection": checked(of_frames),
}
