"""
What lies beside each other when a network has become an .onnx: names, the description inside, the hash that the STAC item keeps of it.

    best_model.onnx        the network; its metadata property "chipmill" is the description, JSON
    best_model.onnx.data   the weights, where they are more than a file of 2 GB holds
    best_model.json        STAC item with the MLM extension (exporting/mlm_item.py)
"""

import hashlib
from pathlib import Path

FORMAT = "chipmill-onnx-1"
PROPERTY = "chipmill"  # of the .onnx's metadata
SHA256 = "1220"  # what a multihash of 32 bytes of SHA-256 begins with


def weights_beside(path):
    """Where the weights of an .onnx lie that are too many for it."""
    return Path(f"{path}.data")


def item_beside(path):
    """Where the STAC item of an .onnx lies."""
    return Path(path).with_suffix(".json")


def multihash(path):
    """The SHA-256 of a file of any size as STAC's file extension writes it."""
    with open(path, "rb") as file:
        return SHA256 + hashlib.file_digest(file, "sha256").hexdigest()
