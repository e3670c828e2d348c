"""A hash of a network's weights, by which maps know what they were made with."""

import hashlib

import numpy as np


def weights_hash(weights):
    """
    16 hexadecimal digits of a state dict: the same for the same network, whichever file it came from. Weights are hashed as float32.

    Names count: those of parts that were renamed have to be given as they were, or maps made before would seem to be another network's.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(np.ascontiguousarray(tensor.detach().cpu().reshape(-1).float().numpy()))
    return digest.hexdigest()[:16]


def hash_of_all(hashes):
    """One hash of the networks of an ensemble; that of a single network is its own."""
    return hashes[0] if len(hashes) == 1 else hashlib.sha256(" ".join(hashes).encode()).hexdigest()[:16]
