"""Sensors, bands, classes, colours and scales: what every program agrees on. No torch, no numpy, nothing to compute."""

import re

VERSION = "0.1.0"
# The programs, and the commands of chip.py: the sections that a file of --config may have.
PROGRAMS = ("make-patches", "make-chips", "make-tiles", "make-warehouse", "fake-captures", "fake-chips", "get-reflectance", "link-chips",
            "inspect", "train", "train-pansharpen", "train-detection", "train-small-detection", "inference", "export", "demo")
MANIFEST = "manifest.jsonl"  # of a chip set: one line a chip

# Labels. 255 means "do not look here": in chips, loss, metrics, sampling and maps alike.
IGNORE = 255

# Sentinel-2 bands in the order of a CEMS `_S2L2A.tif` (12 bands; B10 carries no surface signal and is left out by the producers).
SENTINEL2_L2A_BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")

# The seven that see a burn: visible, near infrared twice, short-wave infrared twice. Zero-based positions in SENTINEL2_L2A_BANDS.
CEMS_BAND_INDICES = (1, 2, 3, 7, 8, 10, 11)
CEMS_BANDS = tuple(SENTINEL2_L2A_BANDS[i] for i in CEMS_BAND_INDICES)
NUM_INPUT_CHANNELS = len(CEMS_BANDS)

# Ground sampling distance of the Sentinel-2 bands in metres, as delivered in a .SAFE product.
SENTINEL2_RESOLUTION = {
    "B01": 60, "B02": 10, "B03": 10, "B04": 10, "B05": 20, "B06": 20, "B07": 20,
    "B08": 10, "B8A": 20, "B09": 60, "B11": 20, "B12": 20,
}

# reflectance = (digital number + offset) / divisor
SENTINEL2_DIVISOR = 10_000.0
SENTINEL2_OFFSET = -1_000.0  # processing baseline 04.00 and later (from 2022-01-25); 0 before

# Label layers of the CEMS wildfire data: delineation (burned or not) and grading (how badly).
LAYER_OF_NUM_CLASSES = {2: "DEL", 5: "GRA"}
CLASS_NAMES = {
    2: ("background", "fire"),
    5: ("no_damage", "negligible", "moderate", "high", "destroyed"),
}
CLASS_COLOURS = {
    2: ((0, 0, 0), (230, 74, 25)),
    5: ((0, 0, 0), (255, 236, 139), (255, 167, 38), (230, 74, 25), (127, 0, 0)),
}
# For classes whose names say nothing (see classes.py): told apart by most people with colour-blindness (Okabe and Ito, 2008).
OTHER_COLOURS = (
    (0, 0, 0), (0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167),
    (86, 180, 233), (213, 94, 0), (240, 228, 66), (153, 153, 153),
)

# Cloud mask of the CEMS data (CloudSEN12 classes).
CLOUD_CLASSES = ("clear", "cloud", "thin_cloud", "cloud_shadow")

# Multispectral bands of the sensors that come with a panchromatic one: WorldView-2 and -3 (eight), GeoEye-1, Pléiades and others (four).
WORLDVIEW_BANDS = ("coastal", "blue", "green", "yellow", "red", "rededge", "nir1", "nir2")
BGRN_BANDS = ("blue", "green", "red", "nir")

# Different products call one band by different names. Used to match what a model wants with what a file has.
BAND_ALIASES = {
    "blue": ("B02", "B2", "blue", "TCI_B"),
    "green": ("B03", "B3", "green", "TCI_G"),
    "red": ("B04", "B4", "red", "TCI_R"),
    "nir": ("B08", "B8", "nir", "nir08"),
    "narrow_nir": ("B8A", "B08A", "nir_narrow"),
    "swir1": ("B11", "swir16", "swir_16", "swir1"),
    "swir2": ("B12", "swir22", "swir_22", "swir2"),
}
# What stacked rasters write around a band's name: 20240711_B3, 0_B3, 20240711T100031_20240711T100501_T33TWN_B3, B3_2024-07-11.
ACQUISITION = r"(?:\d{8}|\d{4}-\d{2}-\d{2})(?:t\d{6})?|t\d{2}[a-z]{3}|s2[a-d]"
BEFORE_BAND, AFTER_BAND = re.compile(rf"(?:(?:{ACQUISITION}|\d+)[_ ])+"), re.compile(rf"(?:[_ ](?:{ACQUISITION}))+$")


def get_class_names(num_classes, names=None):
    """Names of the classes: `names` if given (its length must fit), the wildfire names for 2 and 5, else class_0, class_1 …"""
    if names is not None:
        if len(names) != num_classes:
            raise ValueError(f"{num_classes} classes need {num_classes} names, but {len(names)} were given: {', '.join(names)}")
        return tuple(names)
    return CLASS_NAMES.get(num_classes) or tuple(f"class_{i}" for i in range(num_classes))


def plain_band(name):
    """A band's name in lower case without the date or tile that stacked rasters write around it."""
    plain = (name or "").strip().lower()
    return AFTER_BAND.sub("", plain[found.end():] if (found := BEFORE_BAND.match(plain)) else plain)


def last_date(bands):
    """Position from which on the names are of the last date, where those of several are numbered from 1 (1_B02, 2_B02); else 0."""
    numbers = [int(found[1]) if (found := re.match(r"(\d{1,3})_\D", name or "")) else 0 for name in bands]
    count = max(numbers, default=0)
    each = len(numbers) // count if count else 0
    return each * (count - 1) if numbers == [1 + i // each for i in range(len(numbers)) if each] and each else 0


def is_picture_band(name):
    """Whether a band is one of a picture, by its name: Sentinel-2's TCI_R is red as B04 is, but brightness 0..255 and not reflectance."""
    return plain_band(name).startswith("tci_")


def band_role(name):
    """What a band sees ("red", "nir", "swir2" …) by its name in any of the usual spellings, beside a date or tile too, or None."""
    plain = plain_band(name)
    for role, spellings in BAND_ALIASES.items():
        if plain == role or plain in (s.lower() for s in spellings):
            return role
    return None


def get_device(name="auto"):
    """
    The torch.device for `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.

    `auto` takes CUDA, then Apple's MPS, then the CPU. A device that is asked for by name and is not there is a ValueError:
    nobody wants to find out tomorrow morning that the night ran on the CPU.
    """
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"expected auto, cpu, cuda, cuda:N or mps as device, got {name!r}") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {name!r} was asked for but PyTorch sees no CUDA GPU; pass --device cpu (or auto)")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {name!r} was asked for but there are {torch.cuda.device_count()} CUDA GPUs; pass a lower number")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError("device 'mps' was asked for but this machine has none; pass --device cpu (or auto)")
    return device
