"""
A checkpoint as two files that other programs read: model.safetensors, its weights alone, and config.json, what they are of.

    write_tensors(exportable, "best_model")         # a folder
    checkpoint = load_tensors_folder("best_model/model.safetensors")
"""

import os
from pathlib import Path

from constants import VERSION
from runtime.errors import UserError, one_line
from runtime.fields import OBJECT, TEXT, read_checked
from runtime.files import atomic_path, read_json, refuse_existing, require_writable, write_json

WEIGHTS, CONFIG = "model.safetensors", "config.json"
FORMAT = "chipmill-tensors-1"


def write_tensors(exportable, folder, overwrite=False):
    """Write the two files into a folder; config.json comes last."""
    from safetensors.torch import save_file

    weights, config = (Path(folder) / name for name in (WEIGHTS, CONFIG))
    refuse_existing([weights, config], overwrite)
    if config.exists() and read_json(config).get("format") != FORMAT:
        raise UserError(f"{config} is of something else, a training perhaps; choose another folder for --safetensors")
    require_writable(folder)
    config.unlink(missing_ok=True)
    with atomic_path(weights) as temporary:
        mode = temporary.stat().st_mode
        # clones: weights of one storage, as those that are tied, cannot be written
        save_file({name: tensor.detach().cpu().clone().contiguous() for name, tensor in exportable.weights.items()}, temporary,
                  metadata={"format": "pt"})
        os.chmod(temporary, mode)  # save_file makes a file that its owner alone may read
    facts = {name: exportable.facts[name] for name in ("kind", "model", "data")}
    write_json(config, {"format": FORMAT, "version": VERSION, **facts, "parameters": exportable.count})


def load_tensors_folder(path):
    """The dict that a loaded checkpoint is, of a model.safetensors with its config.json. UserError in one line for other files."""
    from safetensors.torch import load_file

    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} does not exist; expected a {WEIGHTS} that export.py wrote")
    facts = read_checked(path.parent / CONFIG, {"format": TEXT, "kind": TEXT, "model": OBJECT, "data": OBJECT},
                         f"expected the {CONFIG} that export.py writes beside {WEIGHTS}")
    if facts["format"] != FORMAT:
        raise UserError(f"{path.parent / CONFIG} has format {facts['format']!r:.40}, expected {FORMAT!r}; export it again")
    try:
        weights = load_file(path, device="cpu")
    except Exception as error:
        raise UserError(f"{path} cannot be read as safetensors ({one_line(error)[:100]}); export it again") from error
    return {"kind": facts["kind"], "model": facts["model"], "settings": {}, "state": {"model": weights}, "data": facts["data"],
            "path": str(path)}
