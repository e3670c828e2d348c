"""Classes of an image's pixels, from mask rasters or polygons; 255 where the class is not known."""

import functools

import numpy as np
from affine import Affine
from rasterio.warp import Resampling, reproject, transform_bounds
from rasterio.windows import Window

from constants import IGNORE
from raster.hidden import hidden_pixels
from runtime.errors import UserError, did_you_mean
from runtime.words import shortened
from vectors import reading
from vectors.placing import raster_bounds

UNKNOWN = 254  # marks a value that is not a class while labels are translated; never leaves this file
MOST_CLASSES = 254
LOWEST, HIGHEST = -32768, 65535  # values that the translation table holds; others are looked up one by one


# --- values to classes ---------------------------------------------------------------------------------------------------------


def parse_label_map(text):
    """`-1=ignore,2=1` → {-1: 255, 2: 1}. None → {}."""
    mapping = {}
    for word in (text or "").split(",") if text else ():
        left, equals, right = word.strip().partition("=")
        try:
            value, label = int(left), IGNORE if right == "ignore" else int(right)
        except ValueError:
            equals = ""
        if not equals or not (0 <= label < MOST_CLASSES or label == IGNORE):
            raise UserError(f"--label-map expects VALUE=CLASS or VALUE=ignore separated by commas, such as -1=ignore,2=1, got {word!r}")
        if value in mapping:
            raise UserError(f"--label-map names the value {value} twice")
        mapping[value] = label
    return mapping


@functools.lru_cache(maxsize=16)
def translation_table(num_classes, nodata, mapping):
    """uint8 class of every value LOWEST..HIGHEST, UNKNOWN where it has none. mapping: a tuple of (value, class); it wins over nodata."""
    table = np.full(HIGHEST - LOWEST + 1, UNKNOWN, np.uint8)
    table[-LOWEST : -LOWEST + num_classes] = np.arange(num_classes)
    table[IGNORE - LOWEST] = IGNORE
    if nodata is not None and nodata == nodata and LOWEST <= nodata <= HIGHEST and nodata == int(nodata):
        table[int(nodata) - LOWEST] = IGNORE
    for value, label in mapping:
        if LOWEST <= value <= HIGHEST:
            table[value - LOWEST] = label
    return table


def to_classes(values, num_classes, nodata=None, mapping=(), path="the mask"):
    """
    uint8 classes 0..num_classes−1 and 255 from an array of label values of any type.

    nodata, NaN, infinity and 255 become 255; `mapping` ((value, class), …) wins over that. Any other value outside the classes is a
    UserError that names it.
    """
    table = translation_table(num_classes, nodata, tuple(mapping))
    if values.dtype == np.uint8:
        bytes_ = table[-LOWEST : -LOWEST + 256]
        highest = int(values.max(initial=0))
        if highest < num_classes and (bytes_[: highest + 1] == np.arange(highest + 1)).all():
            return values  # classes already, as most masks are: looking up every pixel would cost more than reading them
        classes = bytes_[values]
    else:
        classes = translate(values, table, nodata, dict(mapping), path)
    if (classes == UNKNOWN).any():
        value = int(values[classes == UNKNOWN][0])
        listed = ", ".join(f"{v}={'ignore' if c == IGNORE else c}" for v, c in mapping)
        listed = f", with {listed}" if listed else ""
        raise UserError(
            f"{path} holds the value {value}; expected classes 0..{num_classes - 1}, or 255 to ignore{listed}. "
            f"Pass --label-map={value}=ignore (or {value}=CLASS)"
        )
    return classes


def to_values(values, nodata=None, mapping=(), path="the mask"):
    """float32 of an array of values of any real type; NaN where they are nodata, infinite, or in `mapping` ((value, 255), …)."""
    if values.dtype.kind not in "iuf":
        raise UserError(f"{path} has the type {values.dtype}; expected real numbers")
    kept = values.astype(np.float32)
    kept[~np.isfinite(kept)] = np.nan
    for value in ([] if nodata is None else [nodata]) + [value for value, _ in mapping]:
        kept[values == value] = np.nan
    return kept


def translate(values, table, nodata, mapping, path):
    """As to_classes, for types other than uint8; UNKNOWN where a value is no class."""
    outside = np.zeros(values.shape, bool)
    if values.dtype.kind == "f":
        outside = ~np.isfinite(values)
        if nodata is not None and nodata != np.rint(nodata):
            outside |= values == nodata
        whole = np.where(outside, 0, values)
        broken = whole != np.rint(whole)
        if broken.any():
            raise UserError(f"{path} holds the value {whole[broken][0]:g}; labels must be whole numbers")
    elif values.dtype.kind in "iu":
        whole = values
    else:
        raise UserError(f"{path} has the type {values.dtype}; labels must be whole numbers")
    far = (whole < LOWEST) | (whole > HIGHEST)
    classes = table[np.where(far, 0, whole).astype(np.int64) - LOWEST]
    if far.any():
        classes[far] = UNKNOWN
        if nodata is not None:
            classes[far & (whole == nodata)] = IGNORE
        for value, label in mapping.items():
            classes[far & (whole == value)] = label
    classes[outside] = IGNORE
    return classes


# --- polygons ------------------------------------------------------------------------------------------------------------------


def read_polygons(paths, class_field=None, classes=("background", "fire"), mapping=()):
    """
    vectors.reading.Polygons of vector files. class_field: the property that holds a class, as index, name, or a value of `mapping`
    ((value, class), …); without it all are class 1.
    """
    if class_field is None:
        return reading.read_polygons(paths)
    return reading.read_polygons(paths, functools.partial(class_of, class_field=class_field, classes=list(classes), mapping=dict(mapping)))


def class_of(feature, path, class_field, classes, mapping):
    """Class of a vectors.reading.Feature. UserError where the property is missing or names no class."""
    if class_field not in feature.properties:
        raise UserError(
            f"{path}: feature {feature.number} has no property {class_field!r}.{did_you_mean(class_field, feature.properties)} "
            f"It has {shortened(', '.join(feature.properties), 200) or 'none'}"
        )
    value = feature.properties[class_field]
    if value in classes:
        return classes.index(value)
    try:
        label = mapping.get(int(value), int(value)) if float(value) == int(value) else None
    except (TypeError, ValueError, OverflowError):
        label = None
    if label is None or not (0 <= label < len(classes) or label == IGNORE):
        raise UserError(
            f"{path}: feature {feature.number} has {class_field} = {shortened(repr(value), 60)}; expected 0..{len(classes) - 1} "
            f"or one of {', '.join(classes)}"
        )
    return label


# --- masks on another grid -----------------------------------------------------------------------------------------------------


def same_grid(one, other, tolerance=0.01):
    """Do two RasterInfo describe the same pixels, to `tolerance` of one? A mask without georeference goes by its size."""
    if (one.width, one.height) != (other.width, other.height):
        return False
    if other.crs is None and other.transform == Affine.identity():
        return True
    if (one.crs is None) != (other.crs is None) or (one.crs is not None and one.crs != other.crs):
        return False
    apart = ~one.transform * other.transform
    corners = ((0, 0), (one.width, 0), (0, one.height), (one.width, one.height))
    return all(abs(x - col) <= tolerance and abs(y - row) <= tolerance for (col, row), (x, y) in ((c, apart * c) for c in corners))


def read_labels(dataset, window=None, hides=False, shape=None):
    """
    (values (height, width), hidden (height, width) bool or None) of a mask: 0 where its own mask (with `hides`) says nodata.

    shape: (height, width) of a thinned-out reading.
    """
    values = dataset.read(1, window=window, out_shape=shape)
    if not hides:
        return values, None
    hidden = hidden_pixels(dataset, 0, window, shape)
    values[hidden] = 0
    return values, hidden


def read_aligned(dataset, crs, transform, window, hides=False):
    """
    A mask's values by nearest neighbour on a window of another grid.

    Returns (values (height, width), outside (height, width) bool: where the mask does not reach, or its own mask (with `hides`) says
    nodata; values are 0 there).
    """
    col, row, width, height = window
    target = Affine(*transform[:6]) * Affine.translation(col, row)
    bounds = transform_bounds(crs, dataset.crs, *raster_bounds(transform, col, row, width, height), densify_pts=21)
    corners = [
        ~dataset.transform * p for p in ((bounds[0], bounds[1]), (bounds[0], bounds[3]), (bounds[2], bounds[1]), (bounds[2], bounds[3]))
    ]
    xs, ys = zip(*corners, strict=True)
    left, top = max(0, int(min(xs)) - 2), max(0, int(min(ys)) - 2)
    right, bottom = min(dataset.width, int(max(xs)) + 3), min(dataset.height, int(max(ys)) + 3)
    if right <= left or bottom <= top:
        return np.zeros((height, width), dataset.dtypes[0]), np.ones((height, width), bool)
    values, hidden = read_labels(dataset, Window(left, top, right - left, bottom - top), hides)
    source = Affine(*dataset.transform[:6]) * Affine.translation(left, top)
    # Positions instead of values are warped, plus one: 0 is then what no pixel of the mask reaches, whatever its values and nodata are.
    index = np.arange(1, values.size + 1, dtype=np.int32).reshape(values.shape)
    found = np.zeros((height, width), np.int32)
    reproject(index, found, src_transform=source, src_crs=dataset.crs, dst_transform=target, dst_crs=crs, resampling=Resampling.nearest)
    outside, found = found == 0, np.maximum(found, 1) - 1
    if hidden is not None:
        outside |= hidden.ravel()[found]
    return np.where(outside, 0, values.ravel()[found]).astype(values.dtype, copy=False), outside
