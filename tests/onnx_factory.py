"""A network of one 1 x 1 convolution as an .onnx of ours, written node by node: what it answers can be counted by hand."""

import json

import numpy as np
import onnx
from map_factory import BANDS, data
from onnx import TensorProto, helper, numpy_helper

from exporting.onnx_file import FORMAT, PROPERTY, item_beside, multihash, weights_beside

SIDE = 32


def describe(kind="segmentation", **changes):
    """The description in an .onnx that export.py writes of a network on three bands."""
    config = {"architecture": "smallunet", "encoder": "resnet34", "bands": BANDS, "num_classes": 2, "indices": [], "mean": [0.2] * 3,
              "std": [0.1] * 3}
    return {"format": FORMAT, "version": "0.1.0", "kind": kind, "model": config, "data": data(chip_size=SIDE), "window": [SIDE, SIDE],
            "multiple": 1, **changes}


def write_onnx(path, facts=None, beside=False, item=True):
    """
    Logits (0, 10 · (second band − first band)): a pixel is of class 1 where the second band is brighter. facts: the description, None
    for that of describe(), False for none. beside: the weights in a file of their own. item: the STAC item, as far as it is read.
    """
    weights = np.zeros((2, 3, 1, 1), np.float32)
    weights[1, :2, 0, 0] = -10, 10
    side = (facts or describe()).get("window") if facts is not False else [SIDE, SIDE]
    height, width = side[::-1] if side else ("height", "width")
    model = helper.make_model(helper.make_graph(
        [helper.make_node("Conv", ["reflectance", "weight"], ["logits"], kernel_shape=[1, 1])], "one convolution",
        [helper.make_tensor_value_info("reflectance", TensorProto.FLOAT, ["batch", 3, height, width])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2, height, width])],
        [numpy_helper.from_array(weights, "weight")]), opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    if facts is not False:
        helper.set_model_props(model, {PROPERTY: json.dumps(describe() if facts is None else facts)})
    onnx.save(model, path, save_as_external_data=beside, location=weights_beside(path).name, size_threshold=0)
    if item:
        assets = {"model": {"file:checksum": multihash(path)}}
        if beside:
            assets["weights"] = {"file:checksum": multihash(weights_beside(path))}
        item_beside(path).write_text(json.dumps({"stac_version": "1.1.0", "assets": assets}))
    return path
