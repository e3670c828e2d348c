"""ONNX Runtime: a network of an .onnx on numpy arrays, on as many threads as torch would take."""

import torch

from runtime.errors import UserError, one_line

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


def import_runtime():
    """The module onnxruntime. UserError where it is not installed."""
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError("an .onnx is run by onnxruntime, which is not installed; pip install onnxruntime") from error
    return onnxruntime


def choose_provider(device="auto", local_rank=0):
    """What runs a network for a --device: a provider of ONNX Runtime. UserError for one that is not there."""
    available = import_runtime().get_available_providers()
    kind, _, number = device.partition(":")
    if kind == "cpu" or kind == "auto" and not (CUDA in available and torch.cuda.is_available()):
        return CPU
    if kind not in ("cuda", "auto") or number and not number.isdigit():
        raise UserError(f"--device {device}: an .onnx runs on cpu, cuda or cuda:N; pass one of them")
    if CUDA not in available:
        raise UserError(f"--device {device}: this onnxruntime runs on the CPU alone; pip install onnxruntime-gpu, or pass --device cpu")
    return CUDA, {"device_id": int(number) if number else local_rank}


def begin_session(path, provider=CPU):
    """An InferenceSession. UserError for a file that is no .onnx, or lacks the weights beside it. provider: of choose_provider."""
    runtime = import_runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # what is wrong comes as an exception
    try:
        session = runtime.InferenceSession(str(path), options, providers=[provider] if provider == CPU else [provider, CPU])
    except Exception as error:
        raise UserError(f"{path} cannot be run by ONNX Runtime ({one_line(error)[:120]}); export it again") from error
    if provider != CPU and session.get_providers()[0] == CPU:
        raise UserError("--device cuda: ONNX Runtime found no libraries of CUDA that fit it; pass --device cpu")
    return session


def run_session(session, arrays):
    """[array] of a session for arrays, in the order of its outputs and inputs."""
    return session.run(None, {port.name: array for port, array in zip(session.get_inputs(), arrays, strict=True)})
