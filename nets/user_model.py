"""A user's own network: `FILE.py:build_model`, a function that takes a ModelConfig and returns a module."""

import dataclasses
import hashlib
import importlib.util
import sys
from pathlib import Path

from torch import nn

from runtime.errors import UserError, did_you_mean, one_line


@dataclasses.dataclass(frozen=True)
class UserModel:
    """The function of a file that was loaded. name: `my_model.py:build_model`, without folders; sha256: of the file's bytes."""

    build: object
    name: str
    sha256: str

    def facts(self):
        """What a checkpoint keeps of it: no code."""
        return {"name": self.name, "sha256": self.sha256}

    def network(self, config):
        """The module of a config, with a `stride` (1 where it states none). UserError where the function fails or returns no module."""
        try:
            network = self.build(config)
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"--model {self.name} failed with {type(error).__name__}: {one_line(error)[:120]}; call it by hand"
                            ) from error
        if not isinstance(network, nn.Module):
            raise UserError(f"--model {self.name} returned {type(network).__name__}, expected a torch.nn.Module")
        if not hasattr(network, "stride"):
            network.stride = 1
        return network


def load_user_model(text):
    """`FILE.py:FUNCTION` → UserModel. The file is run: this is for files that the user names, never for those that a checkpoint names."""
    file, _, function = text.rpartition(":")
    path = Path(file)
    if path.suffix != ".py" or not function.isidentifier():
        raise UserError(f"--model {text} is not FILE.py:FUNCTION, such as my_model.py:build_model")
    try:
        code = path.read_bytes()
    except OSError as error:
        raise UserError(f"--model {text} cannot be read ({error.strerror}); pass an existing file") from error
    spec = importlib.util.spec_from_file_location(f"user_model_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # as an import does: dataclasses look their module up there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        sys.modules.pop(spec.name)
        raise UserError(f"--model {path} cannot be imported ({type(error).__name__}: {one_line(error)[:120]}); run it by itself"
                        ) from error
    if not callable(getattr(module, function, None)):
        functions = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise UserError(f"--model {path} has no function {function}; it has {', '.join(functions) or 'none'}."
                        f"{did_you_mean(function, functions)}")
    return UserModel(getattr(module, function), f"{path.name}:{function}", hashlib.sha256(code).hexdigest())


def require_same(facts, user_model, name):
    """
    UserError where a checkpoint's network needs a user's file that was not given or is another by now, or needs none. facts: what the
    checkpoint keeps of it, or None. name: of the checkpoint.
    """
    if facts is None:
        if user_model is not None:
            raise UserError(f"{name} has a network of its own; leave --model out")
        return
    if not isinstance(facts, dict) or not isinstance(facts.get("name"), str) or not isinstance(facts.get("sha256"), str):
        raise UserError(f"{name} is damaged: it does not say which file its network is from; take another checkpoint")
    if user_model is None:
        raise UserError(f"{name} has the network of {facts['name']}, which is not in it; pass --model FILE.py:FUNCTION")
    if user_model.sha256 != facts["sha256"]:
        hashes = f"hash {facts['sha256'][:8]}, the file has {user_model.sha256[:8]}"
        raise UserError(f"{name} was made with another {facts['name']} ({hashes}); pass the file of that run")
    if user_model.name.rpartition(":")[2] != facts["name"].rpartition(":")[2]:
        raise UserError(f"{name} has the network of {facts['name']}, got {user_model.name}; pass the function of that run")
