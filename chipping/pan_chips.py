"""
Writes and reads the file of one pan/ms chip.

A dict of contiguous tensors, loadable with weights_only=True. S is the chip size, r the ratio of pan to ms:

    format  "chipmill-pan-1"
    pan     (1, S, S)          uint16, reflectance x 10 000; or float32 reflectance
    mul     (C, S / r, S / r)  likewise
    bands   (C, S, S)          likewise: the truth at the resolution of pan
    oklab   (3, S, S)          int16, Oklab x 16 384; or float32 Oklab: the truth as a picture, where bands are not kept
    valid   (1, S, S)          bool: false where a nodata pixel took part; absent where there is none
    meta    dict of str, int, float: tile, cid, i, left, top, lat, lon, bands (names, comma-separated); may be absent

A chip has `bands`, `oklab` or both; Oklab can be computed from bands, not the other way round.
"""

import io
import os
import pickle

import numpy as np
import torch

from raster.colour import bands_to_oklab
from runtime.checkpoint import OversizedRecords, load_tensors
from runtime.errors import UserError
from runtime.files import atomic_path

FORMAT = "chipmill-pan-1"
SCALE = 10_000.0  # stored integer = reflectance x SCALE
OKLAB_SCALE = 16_384.0
STORES = ("bands", "oklab", "both")


class BadChip(Exception):
    """A chip that cannot be used; the message says why."""


def encode_chip(pan, mul, bands, valid, meta, band_names, store="bands", dtype="uint16"):
    """
    The dict of a chip. pan (1, S, S), mul (C, s, s), bands (C, S, S): float32 reflectance, numpy. valid: bool (1, S, S) or None.

    Integers: error at most half a step, 5e-5 of reflectance; below 0 and above 6.5535 is cut off.
    """
    chip = {"format": FORMAT, "pan": pan, "mul": mul}
    if store in ("bands", "both"):
        chip["bands"] = bands
    if store in ("oklab", "both"):
        chip["oklab"] = bands_to_oklab(bands.astype(np.float32, copy=False), band_names)
    for key in ("pan", "mul", "bands", "oklab"):
        if key in chip:
            chip[key] = torch.from_numpy(np.ascontiguousarray(to_stored(chip[key], key, dtype)))
    if valid is not None and not valid.all():
        chip["valid"] = torch.from_numpy(np.ascontiguousarray(valid))
    chip["meta"] = {**meta, "bands": ",".join(band_names)}
    return chip


def to_stored(values, key, dtype):
    if dtype == "float32":
        return values.astype(np.float32, copy=False)
    if key == "oklab":
        return np.rint(values * OKLAB_SCALE).clip(-32768, 32767).astype(np.int16)
    return np.rint(values * np.float32(SCALE)).clip(0, 65535).astype(np.uint16)


def write_chip(path, chip):
    """Save atomically, through memory, since torch.save to a path would put the file's name into the bytes."""
    buffer = io.BytesIO()
    torch.save(chip, buffer)
    with atomic_path(path, sync=False) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def read_chip(path):
    """The dict of a chip with tensors as stored, checked. BadChip where it is missing, broken, hostile or in another format."""
    try:
        chip = load_tensors(path)
    except FileNotFoundError as error:
        target = os.path.realpath(path)
        raise BadChip("missing" if target == str(path) else f"missing (broken link to {target})") from error
    except OversizedRecords as error:
        raise BadChip(f"refused: {error}") from error
    except pickle.UnpicklingError as error:  # torch's own text begins with a paragraph on what PyTorch 2.6 changed
        raise BadChip("unreadable (a pickle of something else than tensors, or damaged; nothing in it was run)") from error
    except Exception as error:  # torch.load raises half a dozen kinds for a broken or foreign file
        raise BadChip(f"unreadable ({type(error).__name__}: {' '.join(str(error).split())[:80]})") from error
    problem = find_problem(chip)
    if problem:
        raise BadChip(problem)
    return chip


def find_problem(chip):
    """What is wrong with a loaded chip, or None."""
    if not isinstance(chip, dict) or chip.get("format") != FORMAT:
        return f"not a {FORMAT} chip"
    if not isinstance(chip.get("meta", {}), dict):
        return f"meta is of type {type(chip['meta']).__name__}, expected a dict"
    for key, tensor in chip.items():
        if isinstance(tensor, torch.Tensor) and not is_plain(tensor):
            gradient = ", with a gradient" * tensor.requires_grad
            return f"{key} is a tensor of {tensor.layout} on {tensor.device}{gradient}; expected plain numbers in memory"
        if isinstance(tensor, torch.Tensor) and tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            return f"{key} repeats fewer numbers than its shape {tuple(tensor.shape)} has; expected all of them in the file"
    for key in ("pan", "mul"):
        if not isinstance(chip.get(key), torch.Tensor) or chip[key].ndim != 3:
            return f"{key} is missing or not (C, H, W)"
    side, small = chip["pan"].shape[-1], chip["mul"].shape[-1]
    if chip["pan"].shape != (1, side, side) or side == 0 or small == 0 or side % small:
        return f"pan is {tuple(chip['pan'].shape)}, mul {tuple(chip['mul'].shape)}: they don't fit together"
    bands = chip["mul"].shape[0]
    if bands == 0 or chip["mul"].shape != (bands, small, small):
        return f"mul is {tuple(chip['mul'].shape)}, not square or without bands"
    expected = {"bands": (bands, side, side), "oklab": (3, side, side), "valid": (1, side, side)}
    for key, shape in expected.items():
        if key in chip and (not isinstance(chip[key], torch.Tensor) or tuple(chip[key].shape) != shape):
            return f"{key} is {tuple(getattr(chip[key], 'shape', ()))}, expected {shape}"
    if "bands" not in chip and "oklab" not in chip:
        return "neither bands nor oklab: no truth to learn from"
    for key in ("pan", "mul", "bands"):
        if key in chip and chip[key].dtype not in (torch.uint16, torch.float32):
            return f"{key} is {chip[key].dtype}, expected uint16 or float32"
    if "oklab" in chip and chip["oklab"].dtype not in (torch.int16, torch.float32):
        return f"oklab is {chip['oklab'].dtype}, expected int16 or float32"
    if "valid" in chip and chip["valid"].dtype != torch.bool:
        return f"valid is {chip['valid'].dtype}, expected bool"
    return None


def is_plain(tensor):
    """Whether numpy can read a tensor: not sparse, nested, on device meta, or with a gradient."""
    return tensor.layout == torch.strided and not tensor.is_nested and tensor.device.type == "cpu" and not tensor.requires_grad


def to_float(tensor, scale=SCALE):
    """Stored integers or floats -> float32 reflectance (or Oklab, with its scale)."""
    if tensor.dtype == torch.float32:
        return tensor
    return torch.from_numpy(tensor.numpy().astype(np.float32)) / scale


def band_names(chip):
    """Names of the bands; numbered where the chip doesn't say."""
    names = str(chip.get("meta", {}).get("bands", "")).split(",")
    count = chip["mul"].shape[0]
    return tuple(names) if len(names) == count and all(names) else tuple(f"band_{i + 1}" for i in range(count))


def decode_chip(chip, target):
    """(pan, mul, truth, valid or None) in float32; truth is (C, S, S) reflectance or (3, S, S) Oklab as `target` says."""
    pan, mul = to_float(chip["pan"]), to_float(chip["mul"])
    if target == "bands":
        if "bands" not in chip:
            raise BadChip("holds only oklab; make chips with --store bands, or train with --target oklab")
        truth = to_float(chip["bands"])
    elif "oklab" in chip:
        truth = to_float(chip["oklab"], OKLAB_SCALE)
    else:
        try:
            truth = torch.from_numpy(bands_to_oklab(to_float(chip["bands"]).numpy(), band_names(chip)))
        except UserError as error:
            raise BadChip(str(error)) from error
    return pan, mul, truth, chip.get("valid")
