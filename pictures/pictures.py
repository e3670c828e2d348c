"""From rasters to pictures a person can look at: fixed stretches, class colours, error maps, contact sheets.

A stretch is a range of reflectance, the same for every scene: a dark picture *is* a dark scene, and two pictures can be compared.
All pictures are (H, W, 3) uint8. Pixels without data are NO_DATA_COLOUR.
"""

import base64
import io

import numpy as np

from constants import IGNORE, band_role

NO_DATA_COLOUR = (128, 128, 128)

# What is shown as red, green and blue, with the reflectance that becomes full brightness and the exponent of the tone curve.
NATURAL = (("red", 0.21), ("green", 0.21), ("blue", 0.21))
NATURAL_GAMMA = 1 / 1.5
# Short-wave infrared, near infrared, red: leaves come out green, char brownish red, whatever haze or smoke hides from the eye.
BURN = (("swir2", 0.36), ("nir", 0.42), ("red", 0.22))
BURN_GAMMA = 1 / 1.2

# Told apart with any kind of colour vision (Okabe and Ito, 2008), on a grey picture.
FOUND = (250, 250, 245)
MISSED = (226, 98, 0)
FALSE_ALARM = (0, 132, 208)

# A dark-to-bright scale whose lightness rises evenly, so that it also reads in grey print.
PROBABILITY_STOPS = ((0, 0, 4), (60, 15, 110), (140, 41, 129), (222, 73, 104), (254, 159, 109), (252, 253, 191))


def find_bands(bands, roles):
    """Positions of what `roles` name ("red", "nir" …) in the band names `bands`; None where one is missing.

    Where both near infrared bands exist, the narrow one is taken: it shares its pixels with the short-wave infrared.
    """
    present = {band_role(name): i for i, name in reversed(list(enumerate(bands)))}
    if "narrow_nir" in present:
        present["nir"] = present["narrow_nir"]
    positions = [present.get(role) for role in roles]
    return None if None in positions else positions


def show_bands(reflectance, positions, tops, gamma, names):
    """Three bands of `reflectance` (C, H, W) as a picture; `tops` is the reflectance of full brightness for each."""
    picture = np.empty((*reflectance.shape[1:], 3), np.uint8)
    chosen = reflectance[positions]
    valid = np.isfinite(chosen).all(axis=0) & (chosen != 0).any(axis=0)
    for channel, (band, top) in enumerate(zip(chosen, tops, strict=True)):
        # A "true colour image" band is a finished picture already: 0..1 is its full range.
        finished = names[positions[channel]].upper().startswith("TCI")
        shade = np.clip(np.nan_to_num(band) / (1.0 if finished else top), 0, 1)
        picture[..., channel] = np.rint(255 * (shade if finished else shade**gamma))
    picture[~valid] = NO_DATA_COLOUR
    return picture


def natural_colour(reflectance, bands):
    """What an eye would see: red, green, blue. reflectance: (C, H, W), 0..1; bands: C names. None without those three bands."""
    positions = find_bands(bands, [role for role, _ in NATURAL])
    if positions is None:
        return None
    return show_bands(reflectance, positions, [top for _, top in NATURAL], NATURAL_GAMMA, bands)


def burn_colour(reflectance, bands):
    """Short-wave infrared, near infrared, red: burns stand out. As `natural_colour`; None without those bands."""
    positions = find_bands(bands, [role for role, _ in BURN])
    if positions is None:
        return None
    return show_bands(reflectance, positions, [top for _, top in BURN], BURN_GAMMA, bands)


def any_picture(reflectance, bands):
    """Natural colour if the bands allow it, else burn colour, else the first band in grey, stretched to its own 2nd..98th percentile."""
    picture = natural_colour(reflectance, bands)
    picture = burn_colour(reflectance, bands) if picture is None else picture
    if picture is not None:
        return picture
    band = reflectance[0]
    valid = np.isfinite(band) & (band != 0)
    low, high = np.percentile(band[valid], (2, 98)) if valid.any() else (0.0, 1.0)
    grey = np.clip((np.nan_to_num(band) - low) / max(high - low, 1e-9), 0, 1)
    picture = np.repeat(np.rint(255 * grey).astype(np.uint8)[..., None], 3, axis=2)
    picture[~valid] = NO_DATA_COLOUR
    return picture


def class_picture(classes, colours):
    """(H, W) integers -> picture. colours: one (r, g, b) for each class; 255 and unknown values are NO_DATA_COLOUR."""
    table = np.full((256, 3), NO_DATA_COLOUR, np.uint8)
    table[: len(colours)] = colours
    return table[np.where((classes >= 0) & (classes < len(colours)), classes, IGNORE).astype(np.uint8)]


def class_overlay(picture, classes, colours, opacity=0.6):
    """`picture` with every class above 0 laid over it in its colour. classes: (H, W); 0, 255 and unknown values stay as they are."""
    shown = (classes > 0) & (classes < len(colours))
    painted = picture.astype(np.float32)
    painted[shown] += opacity * (class_picture(classes, colours)[shown] - painted[shown])
    return np.rint(painted).astype(np.uint8)


def grey_background(picture, lightness=0.55):
    """`picture` in quiet grey, as a ground for coloured findings."""
    grey = picture.astype(np.float32) @ np.array([0.30, 0.59, 0.11], np.float32)
    return np.repeat(np.rint(28 + lightness * 0.8 * grey).astype(np.uint8)[..., None], 3, axis=2)


def error_picture(truth, prediction, background=None):
    """Where a map is right and wrong about class > 0: FOUND, MISSED, FALSE_ALARM; the rest is the background in grey, or dark.

    truth, prediction: (H, W) classes; where either is 255 nothing is judged. background: (H, W, 3) or None
    """
    dark = np.full((*truth.shape, 3), 40, np.uint8)
    picture = dark if background is None else grey_background(background)
    judged = (truth != IGNORE) & (prediction != IGNORE)
    burned, mapped = judged & (truth > 0), judged & (prediction > 0)
    picture[burned & mapped] = FOUND
    picture[burned & ~mapped] = MISSED
    picture[mapped & ~burned] = FALSE_ALARM
    picture[~judged] = NO_DATA_COLOUR
    return picture


def probability_picture(probability, valid=None):
    """(H, W) 0..1 -> dark (0) to bright (1). NaN, and pixels that are not `valid`, have no data."""
    stops = np.array(PROBABILITY_STOPS, np.float32)
    known = np.isfinite(probability) if valid is None else valid & np.isfinite(probability)
    place = np.clip(np.nan_to_num(probability), 0, 1) * (len(stops) - 1)
    picture = np.stack([np.interp(place, np.arange(len(stops)), stops[:, c]) for c in range(3)], axis=-1)
    picture = np.rint(picture).astype(np.uint8)
    picture[~known] = NO_DATA_COLOUR
    return picture


def fit_within(picture, longest):
    """`picture` made smaller by averaging so that neither side exceeds `longest` pixels; never larger."""
    from PIL import Image

    height, width = picture.shape[:2]
    if max(height, width) <= longest:
        return picture
    share = longest / max(height, width)
    size = max(1, round(width * share)), max(1, round(height * share))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX))


def contact_sheet(rows, titles, captions=(), side=224):
    """A table of pictures as one picture: a line per case, a column per kind of view.

    rows: list of lists of (H, W, 3); titles: one per column; captions: one per row, written under it. side: pixels of a cell
    """
    from PIL import Image, ImageDraw, ImageFont

    gap, head, foot = 8, 24, 24 if captions else 0
    font = ImageFont.load_default(size=14)
    width = gap + len(titles) * (side + gap)
    sheet = Image.new("RGB", (width, head + len(rows) * (side + gap + foot)), (250, 250, 248))
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        draw.text((gap + column * (side + gap), 4), title, fill=(40, 40, 40), font=font)
    for line, row in enumerate(rows):
        top = head + line * (side + gap + foot)
        for column, picture in enumerate(row):
            height, wide = picture.shape[:2]
            share = side / max(height, wide)
            size = max(1, round(wide * share)), max(1, round(height * share))
            tile = Image.fromarray(picture).resize(
                size, Image.Resampling.BOX if share < 1 else Image.Resampling.NEAREST
            )
            sheet.paste(tile, (gap + column * (side + gap), top))
        if captions:
            draw.text((gap, top + side + 3), captions[line], fill=(40, 40, 40), font=font)
    return np.asarray(sheet)


def png_bytes(picture):
    """A picture as PNG: exact. Little effort goes into the packing: a tenth larger than could be, in a twentieth of the time."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def jpeg_bytes(picture, quality=86):
    """A picture as JPEG: a tenth of the size of a PNG. Colour is kept at full resolution, so that the rims of coloured maps stay sharp."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality, subsampling=0, optimize=True, progressive=True)
    return buffer.getvalue()


def data_uri(content, kind):
    """Bytes as a `data:` address, to put a picture into a page. kind: "image/png", "image/jpeg" …"""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def save_png(path, picture):
    """Write a picture as PNG, whole or not at all."""
    from runtime.files import atomic_path

    with atomic_path(path) as temporary:
        temporary.write_bytes(png_bytes(picture))
