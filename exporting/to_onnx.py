"""
Exportable → .onnx with its STAC item, compared with the network that it was made of before it gets its name.

    parity = write_onnx(exportable, "best_model.onnx")
"""

import contextlib
import io
import json
import logging
import os
import warnings
from pathlib import Path

import numpy as np
import torch
from torch.export import Dim

from constants import VERSION
from exporting.mlm_item import stac_item
from exporting.onnx_file import FORMAT, PROPERTY, item_beside, weights_beside
from exporting.parity import LARGEST, Parity
from exporting.sessions import begin_session, run_session
from runtime.errors import RunError, UserError, one_line
from runtime.files import plain, read_json, refuse_existing, require_writable, scratch_folder, sync_file, write_json
from runtime.stop_signals import held

ONE_FILE = 2**31 - 2**24  # bytes of weights that one .onnx holds: protobuf allows 2 GiB, and the graph needs some of it
OPSET = 20
BATCHES = (1, 3)  # that are compared: another than the one that is traced


def write_onnx(exportable, path, overwrite=False):
    """
    Write the .onnx, its weights beside it where they are too many, and its STAC item. → the Parity.

    RunError, and no file, where it does not give what the network gives. A kill leaves no file of these names that is not whole; the .onnx
    comes last.
    """
    require_onnx()
    path = Path(path)
    beside, item = weights_beside(path), item_beside(path)
    refuse_existing([path, beside, item], overwrite)
    if item.exists() and "stac_version" not in read_json(item):
        raise UserError(f"{item} is no STAC item, and would be replaced by that of {path.name}; give --onnx another name")
    require_writable(path.parent)
    with scratch_folder(path.parent / f".{path.name}.part") as scratch:
        new = scratch / path.name
        save(traced(exportable), new, exportable)
        parity = compare(exportable, new)
        if not parity.holds:
            raise RunError(f"the exported network gives other answers ({parity}, at most {LARGEST:.0e} expected), so no file is left; "
                           "pass --safetensors")
        write_json(scratch / item.name, stac_item(exportable, new), sync=False)
        there = [name for name in (beside.name, item.name, path.name) if (scratch / name).exists()]
        for name in there:
            sync_file(scratch / name)
        with held():  # the old .onnx goes first and the new one comes last: whenever there is one, all that it needs is there
            for old in (path, beside, item):
                old.unlink(missing_ok=True)
            for name in there:
                os.replace(scratch / name, path.parent / name)
    return parity


def require_onnx():
    """UserError where what writes and runs .onnx is not installed."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"--onnx needs {error.name}, which is not installed; pip install onnx onnxscript onnxruntime") from error


def traced(exportable):
    """torch.onnx.ONNXProgram of the network. RunError where an operator of it cannot be exported."""
    generator = torch.Generator().manual_seed(0)
    examples = exportable.draw(2, exportable.sizes[0], generator)
    with torch.no_grad(), quiet():
        try:
            program = torch.onnx.export(
                exportable.module, examples, dynamo=True, opset_version=OPSET, verbose=False,
                dynamic_shapes=(tuple(free_dims(port, exportable.facts["multiple"]) for port in exportable.inputs),),
                input_names=[port.name for port in exportable.inputs], output_names=[port.name for port in exportable.outputs],
                custom_translation_table={torch.ops.aten.linear.default: linear_of_rows},
            )
        except Exception as error:
            cause = error.__cause__ or error
            raise RunError(f"{exportable.title} cannot be exported to ONNX ({type(cause).__name__}: {one_line(cause)[:160]}); "
                           "pass --safetensors") from error
    return program


def linear_of_rows(x, weight, bias=None):
    """
    aten::linear in ONNX: one Gemm over all rows (…, C) → (…, D). The exporter's own is MatMul and Add for tokens, which ONNX Runtime runs
    one after the other: 7 % of a vision transformer's time.
    """
    from onnxscript import opset20 as op

    *leading, _ = x.shape
    rows = x if len(x.shape) == 2 else op.Flatten(x, axis=-1)
    found = op.Gemm(rows, weight, bias, transB=1)
    if len(x.shape) == 2:
        return found
    if sum(not isinstance(side, int) for side in leading) <= 1:
        shape = [side if isinstance(side, int) else -1 for side in (*leading, weight.shape[0])]
    else:
        shape = op.Concat(op.Shape(x, end=-1), [weight.shape[0]], axis=0)
    return op.Reshape(found, shape)


def free_dims(port, multiple):
    """{axis: Dim} of an input's free axes."""
    units = {name: Dim(name) for name in ("batch", "height", "width")}
    found = {}
    for axis, side in enumerate(port.shape):
        if isinstance(side, str):
            factor, _, name = side.rpartition("*")
            found[axis] = units[name] * int(factor) if factor else units[name]
    return found


@contextlib.contextmanager
def quiet():
    """The exporter prints its steps, and warns of what it does by itself."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def save(program, path, exportable):
    """Write the .onnx with its description, and the weights beside it where they are too many for one file."""
    model = program.model
    model.producer_name, model.producer_version = "chipmill", VERSION
    model.metadata_props.clear()
    model.metadata_props[PROPERTY] = json.dumps(description(exportable), ensure_ascii=False, allow_nan=False, sort_keys=True)
    for part in (model.graph, *model.graph, *model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values(),
                 *(value for node in model.graph for value in node.outputs)):
        part.metadata_props.clear()  # which line of which file each node comes from
    for node in model.graph:
        node.doc_string = None
    size = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None)
    with quiet():
        program.save(str(path), external_data=size > ONE_FILE)


def description(exportable):
    """What inference.py, and anybody else, has to know: the .onnx's property "chipmill"."""
    ports = [{"name": port.name, "shape": list(port.shape), "meaning": port.meaning} for port in (*exportable.inputs, *exportable.outputs)]
    return plain({"format": FORMAT, "version": VERSION, **exportable.facts, "ports": ports})


def compare(exportable, path):
    """Parity of an .onnx, over batches and sizes other than the traced one."""
    session, total = begin_session(path), Parity()
    generator = torch.Generator().manual_seed(1)
    for batch in BATCHES:
        for size in exportable.sizes:
            inputs = exportable.draw(batch, size, generator)
            with torch.no_grad():
                expected = [part.numpy() for part in exportable.module(*inputs)]
            found = run_session(session, [part.numpy() for part in inputs])
            if not all(np.isfinite(part).all() for part in expected):
                raise RunError(f"{exportable.title} gives NaN or infinite values; take another checkpoint")
            total = total + exportable.compare(expected, found)
    return total
