"""
What an exported network is, for catalogues: a STAC item (1.1) with the Machine Learning Model extension, version 1.4.0.

https://github.com/stac-extensions/mlm says what the fields mean; tests hold an item of each kind against its schema.
"""

import re

import torch

from classes import ClassSet, class_objects
from detection.detections import score_of
from exporting.onnx_file import multihash, weights_beside

MLM = "https://stac-extensions.github.io/mlm/v1.4.0/schema.json"
FILE = "https://stac-extensions.github.io/file/v2.1.0/schema.json"
# What a model is for no certain place and time of is said to be for all, as in the extension's examples.
WHOLE_EARTH = [-180.0, -90.0, 180.0, 90.0]
ALWAYS = {"datetime": None, "start_datetime": "1900-01-01T00:00:00Z", "end_datetime": "9999-12-31T23:59:59Z"}


def stac_item(exportable, path):
    """The item of an .onnx that lies at `path`, beside its weights if these have a file of their own. → a dict."""
    left, bottom, right, top = WHOLE_EARTH
    assets = {"model": {
        "href": f"./{path.name}", "title": f"{exportable.title}, ONNX", "type": "application/octet-stream; application=onnx",
        "roles": ["mlm:model", "mlm:weights"], "mlm:artifact_type": "onnx", **file_facts(path),
    }}
    if (beside := weights_beside(path)).exists():
        assets["weights"] = {"href": f"./{beside.name}", "title": "weights, which the .onnx reads from here", "roles": ["mlm:weights"],
                             "type": "application/octet-stream", **file_facts(beside)}
    return {
        "type": "Feature", "stac_version": "1.1.0", "stac_extensions": [MLM, FILE], "id": path.stem,
        "geometry": {"type": "Polygon", "coordinates": [[[left, bottom], [right, bottom], [right, top], [left, top], [left, bottom]]]},
        "bbox": WHOLE_EARTH, "properties": {**ALWAYS, **properties(exportable)}, "links": [], "assets": assets,
    }


def file_facts(path):
    """Fields of STAC's file extension."""
    return {"file:size": path.stat().st_size, "file:checksum": multihash(path)}


def properties(exportable):
    """The fields of the MLM extension."""
    data = exportable.facts["data"]
    told = {name: data[name] for name in ("threshold", "iou_threshold", "ground_resolution") if data.get(name) is not None}
    if exportable.task == "object-detection":
        told["threshold"] = score_of(data)
    return {
        "description": f"{exportable.title}, exported by Chipmill",
        "mlm:name": model_name(exportable.title), "mlm:architecture": exportable.title, "mlm:tasks": [exportable.task],
        "mlm:framework": "PyTorch", "mlm:framework_version": str(torch.__version__), "mlm:total_parameters": exportable.count,
        "mlm:accelerator": None, "mlm:accelerator_constrained": False,
        "bands": [{"name": name} for port in exportable.inputs for name in port.bands],
        "mlm:input": [model_input(port, exportable.scale) for port in exportable.inputs],
        "mlm:output": [model_output(port, exportable) for port in exportable.outputs],
        **({"mlm:hyperparameters": told} if told else {}),
    }


def model_name(title):
    """A title in the characters that the extension allows."""
    return "Chipmill " + (re.sub(r"[^a-zA-Z0-9_.\-\s]+", " ", title).strip(" ._-") or "network")


def model_input(port, scale):
    return {"name": port.name, "bands": list(port.bands), "input": structure(port),
            "description": port.meaning, "value_scaling": value_scaling(port.bands, scale), "resize_type": None}


def value_scaling(bands, scale):
    """
    How stored values become what the network takes, one a band or one for all: reflectance = (value + offset) / divide_by, in the words of
    the extension (value - minimum) / (maximum - minimum). scale: (divide_by, offset), or None for bytes.
    """
    divide_by, offset = scale or (255.0, 0.0)
    divide_by, offset = (list(part) if isinstance(part, list | tuple) else [part] for part in (divide_by, offset))
    count = len(bands) if max(len(divide_by), len(offset)) > 1 else 1
    divide_by, offset = (part * count if len(part) == 1 else part for part in (divide_by, offset))
    found = [{"type": "min-max", "minimum": 0.0 - o, "maximum": d - o} for d, o in zip(divide_by, offset, strict=True)]
    return found if any(one != found[0] for one in found) else found[:1]


def model_output(port, exportable):
    classes = []
    if port.name == "labels" or port.name == "logits" and "class" in port.dims:
        colours = exportable.facts["data"].get("class_colours") or {}
        first = 1 if port.name == "labels" else 0  # 0 is no class of a detector
        classes = [{**one, "value": one["value"] + first, "description": one["title"] or one["name"]}
                   for one in class_objects(ClassSet(tuple(exportable.words)).with_colours(colours))]
    return {"name": port.name, "tasks": [exportable.task], "result": structure(port), "description": port.meaning,
            "classification:classes": classes}


def structure(port):
    """Free axes are -1."""
    return {"shape": [side if isinstance(side, int) else -1 for side in port.shape], "dim_order": list(port.dims), "data_type": port.dtype}
