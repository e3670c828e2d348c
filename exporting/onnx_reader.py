"""
.onnx → what a loaded checkpoint is: a dict with kind, model, data, and in place of weights the "network", which ONNX Runtime runs.

    checkpoint = load_onnx("best_model.onnx", device="cpu")
    checkpoint["network"](reflectance)                        # as the network that was exported

Everything comes from the file's metadata, JSON; no pickle is read.
"""

import os
from pathlib import Path

from exporting.onnx_file import FORMAT, PROPERTY, item_beside, multihash, weights_beside
from exporting.onnx_networks import NETWORKS, OF_TASKS
from exporting.sessions import begin_session, choose_provider, import_runtime
from nets.model_config import TASKS
from runtime.errors import UserError
from runtime.fields import OBJECT, SIZE, TEXT, Field, find_problem, is_number, list_of, or_none
from runtime.files import parse_object, read_json

SIDES = Field("a width and a height", lambda value: list_of(is_number, 2)(value) and all(SIZE.fits(side) for side in value))
FIELDS = {"kind": TEXT, "version": TEXT, "model": OBJECT, "data": OBJECT, "window": or_none(SIDES), "multiple": SIZE}
AGAIN = "copy them together, or export again"


def load_onnx(path, device="auto"):
    """
    The dict of an .onnx: kind, model, settings, state, data, "path", "window" ((width, height), or None), "multiple", "network".

    UserError in one line for a file that is missing, not ours, or not as export.py left it.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} does not exist; expected an .onnx that export.py wrote")
    import_runtime()
    provider = choose_provider(device, int(os.environ.get("LOCAL_RANK", 0)))
    hashes = require_unaltered(path)
    session = begin_session(path, provider)
    facts = read_description(path, session)
    kinds = {**dict.fromkeys(TASKS, OF_TASKS), **NETWORKS}
    if facts["kind"] not in kinds:
        raise UserError(f"{path} is a {facts['kind']} network; this version knows {', '.join(kinds)}")
    network = kinds[facts["kind"]](path, session, facts, hashes)
    return {"kind": facts["kind"], "model": facts["model"], "settings": {}, "state": {"model": {}}, "data": facts["data"],
            "path": str(path), "window": facts["window"] and tuple(facts["window"]), "multiple": facts["multiple"], "network": network}


def require_unaltered(path):
    """The hashes of an .onnx and of its weights. UserError where they are not those in the STAC item beside it."""
    item = item_beside(path)
    if not item.is_file():
        read_description(path, begin_session(path))  # says whether it is one of ours at all
        raise UserError(f"{path} lacks its metadata {item.name}, which export.py writes beside it; {AGAIN}")
    assets = read_json(item).get("assets")
    assets = assets if isinstance(assets, dict) else {}
    files, hashes = [("model", path)] + ([("weights", weights_beside(path))] if "weights" in assets else []), []
    for name, file in files:
        stated = assets[name].get("file:checksum") if isinstance(assets.get(name), dict) else None
        if not isinstance(stated, str):
            raise UserError(f"{item} does not say which {path.name} it is of (no file:checksum of its {name}); {AGAIN}")
        if not file.is_file():
            raise UserError(f"{path} needs its weights, {file.name}, beside it; {AGAIN}")
        hashes.append(multihash(file))
        if hashes[-1] != stated:
            raise UserError(f"{file} is not the file that {item.name} describes: it was altered, or belongs to another export; {AGAIN}")
    return hashes


def read_description(path, session):
    """The checked description in an .onnx. UserError where there is none, or it does not fit this version."""
    text = session.get_modelmeta().custom_metadata_map.get(PROPERTY)
    if text is None:
        raise UserError(f"{path} is no network of Chipmill (no property {PROPERTY!r} in it); pass one that export.py wrote")
    try:
        facts = parse_object(text.encode())
    except ValueError as error:
        raise UserError(f"{path} is damaged: its description {error}; export it again") from error
    if facts.get("format") != FORMAT:
        raise UserError(f"{path} has format {facts.get('format')!r:.40}, expected {FORMAT!r}; export it again")
    if problem := find_problem(facts, FIELDS, FIELDS):
        raise UserError(f"{path} {problem}; export it again")
    return facts
