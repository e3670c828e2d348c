"""Colours of multispectral pixels: bands -> XYZ -> Oklab -> sRGB, for numpy arrays and torch tensors alike.

Channels are the third axis from the end: (C, H, W) or (B, C, H, W). Reflectance 1 in all bands is white.
Oklab is Björn Ottosson's: L 0..1, a and b about -0.4..0.4; 0.02 is about one just noticeable difference (JND).
The bands -> XYZ numbers are our own fit (`python -m synthetic.spectra --matrix` repeats it, a test holds them to it);
the Oklab and sRGB matrices are the published ones.
"""

import numpy as np

from runtime.errors import UserError

# reflectance row vector @ matrix = XYZ (D65). Bands that are absent here, such as near infrared, have no colour.
BANDS_TO_XYZ = {
    ("coastal", "blue", "green", "yellow", "red"): (
        (0.1131, 0.0003, 0.5117),
        (0.0376, 0.0772, 0.5772),
        (0.2567, 0.6610, 0.0000),
        (0.4801, 0.2369, 0.0000),
        (0.0629, 0.0246, 0.0000),
    ),
    ("blue", "green", "red"): ((0.1360, 0.0456, 1.0888), (0.5069, 0.8117, 0.0000), (0.3075, 0.1427, 0.0000)),
}

XYZ_TO_LMS = np.array([
    (0.8189330101, 0.3618667424, -0.1288597137),
    (0.0329845436, 0.9293118715, 0.0361456387),
    (0.0482003018, 0.2643662691, 0.6338517070),
])
LMS_TO_LAB = np.array([
    (0.2104542553, 0.7936177850, -0.0040720468),
    (1.9779984951, -2.4285922050, 0.4505937099),
    (0.0259040371, 0.7827717662, -0.8086757660),
])
LAB_TO_LMS = np.array([
    (1.0, 0.3963377774, 0.2158037573),
    (1.0, -0.1055613458, -0.0638541728),
    (1.0, -0.0894841775, -1.2914855480),
])
LMS_TO_LINEAR_SRGB = np.array([
    (4.0767416621, -3.3077115913, 0.2309699292),
    (-1.2684380046, 2.6097574011, -0.3413193965),
    (-0.0041960863, -0.7034186147, 1.7076147010),
])


def has_colour(bands):
    """Whether `bands` (names) hold what a colour needs."""
    return any(set(known) <= set(bands) for known in BANDS_TO_XYZ)


def bands_to_xyz_matrix(bands):
    """(C, 3) for band names in any order: five visible bands where they are all there, else blue, green and red."""
    for known, rows in BANDS_TO_XYZ.items():
        if set(known) <= set(bands):
            matrix = np.zeros((len(bands), 3))
            for name, row in zip(known, rows, strict=True):
                matrix[list(bands).index(name)] = row
            return matrix
    raise UserError(f"no colour can be made from {', '.join(bands)}; expected at least bands blue, green and red (name them with --bands)")


def mix(matrix, x):
    """matrix (n, C) times the channels of x."""
    if hasattr(x, "new_tensor"):
        import torch

        return torch.einsum("ij,...jhw->...ihw", x.new_tensor(matrix), x)
    return np.einsum("ij,...jhw->...ihw", np.asarray(matrix, x.dtype), x, optimize=True)


def signed_cube_root(x):
    """Of float32 numpy arrays to 3e-7 of the root above 1e-4: exp and log take a third of the time of cbrt, most of what a colour costs."""
    if hasattr(x, "new_tensor"):
        return x.sign() * x.abs() ** (1 / 3)
    if x.dtype != np.float32:
        return np.cbrt(x)
    with np.errstate(divide="ignore"):  # the logarithm of 0 is -inf, and its exponential 0 again
        root = np.log(np.abs(x))
    root *= np.float32(1 / 3)
    return np.copysign(np.exp(root, out=root), x, out=root)


def bands_to_oklab(reflectance, bands):
    """(…, C, H, W) reflectance of the named bands -> (…, 3, H, W)."""
    return mix(LMS_TO_LAB, signed_cube_root(mix(XYZ_TO_LMS @ bands_to_xyz_matrix(bands).T, reflectance)))


def oklab_to_srgb(oklab):
    """(…, 3, H, W) Oklab -> sRGB with gamma, 0..1; colours outside the gamut are cut off."""
    linear = mix(LMS_TO_LINEAR_SRGB, mix(LAB_TO_LMS, oklab) ** 3)
    linear = linear.clamp(0, 1) if hasattr(linear, "new_tensor") else np.clip(linear, 0, 1)
    return encode_gamma(linear)


def encode_gamma(linear):
    """Linear light 0..1 -> sRGB 0..1."""
    if hasattr(linear, "new_tensor"):
        import torch

        return torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear.clamp(min=0.0031308) ** (1 / 2.4) - 0.055)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055)
