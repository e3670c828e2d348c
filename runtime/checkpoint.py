"""
Checkpoints: one .pt of plain dicts, tensors, numbers and strings, read with weights_only=True and written whole or not at all.

    format    "chipmill-checkpoint-1"
    kind      the task that it is for
    version   of Chipmill
    model     the network's configuration: forced on resume
    settings  the run's flags: free to change on resume
    state     model (weights), optimizer, scheduler, scaler, position in the run, running sums
    data      what the network was trained on: bands, scale, offset, nodata, classes, chip size …
"""

import dataclasses
import os
import pickle
import sys
import warnings
import zipfile
from pathlib import Path

import torch

from constants import VERSION
from runtime.errors import UserError
from runtime.files import atomic_path, require_regular
from runtime.words import in_bytes

FORMAT = "chipmill-checkpoint-1"


def save_checkpoint(path, checkpoint):
    """
    Write `checkpoint` (kind, model, settings, state, data; format and version are added): whole, or the old file stays.

    Equal content gives equal bytes, also where parts of it come from a checkpoint that was loaded before.
    """
    content = {key: value for key, value in checkpoint.items() if key != "path"}  # where a loaded one lay is no part of it
    whole = canonical({"format": FORMAT, "version": VERSION, **content})
    with atomic_path(path) as temporary:
        try:
            with open(temporary, "wb") as file:
                torch.save(whole, file)
        except (OSError, RuntimeError) as error:
            # torch's own message is about positions in its archive; the cause, such as a full disk, is its context
            cause = error if isinstance(error, OSError) else error.__context__
            if isinstance(cause, OSError):
                raise OSError(cause.errno, cause.strerror, str(path)) from error
            raise


def canonical(value):
    """
    `value` with its dicts, lists and tuples rebuilt as these plain types, and equal strings as one object.

    Pickle writes an object that occurs twice as a reference, so the bytes would depend on which equal strings happen to be one object.
    Tensors stay.
    """
    if isinstance(value, dict):
        return {canonical(key): canonical(item) for key, item in value.items()}
    if isinstance(value, list):
        return [canonical(item) for item in value]
    if isinstance(value, tuple):
        return tuple(canonical(item) for item in value)
    return sys.intern(value) if type(value) is str else value


class OversizedRecords(Exception):
    """A .pt file would need more memory than its size. The message says why."""


def load_tensors(path):
    """
    What a .pt file of tensors, plain containers and text holds, on the CPU. It runs no code, and needs about the file's size of memory.

    OversizedRecords before anything is read where a record is compressed or larger than the file; torch.load's errors otherwise.
    """
    require_regular(path)
    refuse_oversized_records(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of files that it then refuses; one line is enough
        return torch.load(path, map_location="cpu", weights_only=True)


def refuse_oversized_records(path):
    """
    OversizedRecords unless the records of a .pt file, a zip, are stored as they are and fit into it side by side.

    torch.save writes them so. torch.load would also inflate compressed ones: 31 MB became 6.7 GB.
    """
    with open(path, "rb") as file:
        if file.read(4) != b"PK\x03\x04":  # torch takes it for its older format, whose sizes the reading itself compares with the file
            return
        size, records = os.fstat(file.fileno()).st_size, zipfile.ZipFile(file).infolist()
    if packed := [record for record in records if record.compress_type != zipfile.ZIP_STORED]:
        largest = max(packed, key=lambda record: record.file_size)
        raise OversizedRecords(f"its record {largest.filename} is compressed, {in_bytes(largest.file_size)} when unpacked; "
                               "expected what torch.save writes")
    if (total := sum(record.file_size for record in records)) > size:
        raise OversizedRecords(f"its records claim {in_bytes(total)} in a file of {in_bytes(size)}; expected what torch.save writes")


def load_checkpoint(path, kind=None):
    """
    The dict, on the CPU, with the file's "path" for what is said about it.

    UserError in one line for a file that is missing, cut short, hostile, not ours, or of another kind.
    """
    path = Path(path)
    if path.is_dir():
        last = next((p for p in (path / "checkpoints" / "last.pt", path / "last.pt") if p.exists()), path / "….pt")
        raise UserError(f"{path} is a folder, expected a checkpoint such as {last}")
    if not path.is_file():
        raise UserError(f"checkpoint {path} is no regular file" if path.exists() else f"checkpoint {path} does not exist{nearby(path)}")
    try:
        checkpoint = load_tensors(path)
    except OversizedRecords as error:
        raise UserError(f"{path} was refused: {error}; take another") from error
    except pickle.UnpicklingError as error:
        if zipfile.is_zipfile(path):  # torch's format, with other objects in it
            raise UserError(f"{path} was refused: it holds more than tensors and text, which could run code; take another") from error
        raise UserError(f"{path} is not a checkpoint of Chipmill, or is damaged; take another one") from error
    except PermissionError as error:
        raise UserError(f"no permission to read {path}") from error
    except Exception as error:
        raise UserError(f"{path} is cut short, damaged or not a checkpoint ({first_line(error)}); take an earlier one") from error
    if not isinstance(checkpoint, dict) or not str(checkpoint.get("format", "")).startswith("chipmill-checkpoint"):
        raise UserError(f"{path} is not a checkpoint of Chipmill (no format {FORMAT!r} in it); take another one")
    if checkpoint["format"] != FORMAT:
        raise UserError(f"{path} has format {checkpoint['format']!r}, expected {FORMAT!r}; update Chipmill")
    if missing := [key for key in ("kind", "model", "settings", "state", "data") if key not in checkpoint]:
        raise UserError(f"{path} is incomplete: it lacks {', '.join(missing)}; take another checkpoint")
    if kind is not None and checkpoint["kind"] != kind:
        raise UserError(f"{path} is a {checkpoint['kind']} checkpoint, expected {kind}; use the program for {checkpoint['kind']}")
    return {**checkpoint, "path": str(path)}


def require_parts(checkpoint, needed, with_weights_alone="used"):
    """
    UserError where a loaded checkpoint lacks what a program will look up in it. needed: {"state": names, "data": names …}.

    with_weights_alone: what can still be done with one whose state lacks something else, such as "scored (--test-only)".
    """
    path = checkpoint["path"]
    for part, keys in needed.items():
        found = checkpoint[part]
        if not isinstance(found, dict):
            raise UserError(f"{path} is damaged: expected its {part} to be a dict, found {type(found).__name__}; take another checkpoint")
        if missing := [key for key in keys if key not in found]:
            can = f"can be {with_weights_alone}, but not resumed" if part == "state" and "model" in found else "cannot be used"
            raise UserError(f"{path} {can}: its {part} lacks {', '.join(missing)}; take another checkpoint")


def config_from_dict(kind, values):
    """The dataclass `kind` from a checkpoint's "model", with tuples for lists. UserError for unknown keys: they are of a newer version."""
    if unknown := set(values) - {field.name for field in dataclasses.fields(kind)}:
        names = ", ".join(sorted(map(str, unknown)))
        raise UserError(f"the checkpoint's model has settings that this version does not know: {names}; update Chipmill")
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})


def config_to_dict(values):
    """A dataclass's fields as a checkpoint holds them: strings, numbers, dicts and lists only."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def load_weights(model, weights, path, what):
    """load_state_dict, with a UserError in one line where the weights are not those of `model`. path, what: a file and a network's name."""
    if difference := describe_misfit(model.state_dict(), weights):
        raise UserError(f"the weights of {path} do not fit its {what}: {difference}; take another checkpoint")
    model.load_state_dict(weights)


def describe_misfit(own, found):
    """What keeps the weights `found` from being loaded in place of `own`, both {name: tensor}, in words; "" where nothing does."""
    missing, unknown = [key for key in own if key not in found], [key for key in found if key not in own]
    reshaped = [key for key in own if key in found and getattr(found[key], "shape", None) != own[key].shape]
    counted = (("missing", missing), ("unknown", unknown), ("of another shape", reshaped))
    return ", ".join(f"{len(names)} {how} ({names[0]}{' …' * (len(names) > 1)})" for how, names in counted if names)


def first_line(error):
    text = str(error).strip().splitlines()
    return text[0].split(". ")[0][:120] if text else type(error).__name__


def nearby(path):
    """`; in its folder are: last.pt, best_model.pt` for a missing file."""
    names = sorted(p.name for p in path.parent.glob("*.pt") if not p.name.startswith(".")) if path.parent.is_dir() else []
    return f"; in its folder are: {', '.join(names[:5])}" if names else ""
