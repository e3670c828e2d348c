"""
Synthetic scenes as files, in the layouts that chip.py reads.

    write_cems_folder("scenes", seeds=range(10))        # the CEMS wildfire layout, EMSR900/AOI01/EMSR900_AOI01_01/…
    write_plain_folder("scenes", seeds=range(10))       # post_fire/*.tif beside masks/*.tif
"""

from pathlib import Path

import numpy as np
import rasterio

from constants import SENTINEL2_DIVISOR, SENTINEL2_OFFSET
from synthetic.materials import BANDS
from synthetic.scenes import generate_scene


def to_digital_numbers(image):
    """Reflectance (12, H, W) -> uint16 as processing baseline 04.00 stores it: reflectance · 10 000 + 1 000; nodata is 0."""
    numbers = np.clip(np.rint(image * SENTINEL2_DIVISOR - SENTINEL2_OFFSET), 1, 65535).astype(np.uint16)
    numbers[:, (image == 0).all(axis=0)] = 0
    return numbers


def write_image(path, image, crs, transform, encoding="dn", tags=None):
    """
    Write (12, H, W) reflectance as a GeoTIFF with band names.

    encoding: "dn" (uint16, offset -1000, nodata 0) or "reflectance" (float32 without nodata and scale tags, as in the CEMS data set).
    """
    if encoding not in ("dn", "reflectance"):
        raise ValueError(f"encoding is 'dn' or 'reflectance', got {encoding!r}")
    data = to_digital_numbers(image) if encoding == "dn" else image.astype(np.float32)
    profile = {"driver": "GTiff", "count": len(data), "height": data.shape[1], "width": data.shape[2]}
    profile["dtype"] = data.dtype
    if min(data.shape[1:]) >= 16:  # a tiled GeoTIFF cannot have smaller blocks
        profile |= {"tiled": True, "blockxsize": 256, "blockysize": 256}
    if encoding == "dn":
        profile |= {"nodata": 0, "compress": "deflate", "zlevel": 1, "predictor": 2}
    with rasterio.open(path, "w", crs=crs, transform=rasterio.Affine(*transform[:6]), **profile) as target:
        target.write(data)
        target.descriptions = BANDS
        target.update_tags(SYNTHETIC="yes", **(tags or {}))
        if encoding == "dn":  # GDAL's sense: value = stored · scale + offset
            target.scales = (1 / SENTINEL2_DIVISOR,) * len(BANDS)
            target.offsets = (SENTINEL2_OFFSET / SENTINEL2_DIVISOR,) * len(BANDS)


def write_label(path, label, crs, transform):
    """Write (H, W) uint8 classes as a GeoTIFF without a nodata tag, as in the CEMS data set; 255 means nodata."""
    profile = {"driver": "GTiff", "count": 1, "height": label.shape[0], "width": label.shape[1], "dtype": "uint8"}
    profile |= {"crs": crs, "transform": rasterio.Affine(*transform[:6]), "compress": "deflate"}
    with rasterio.open(path, "w", **profile) as target:
        target.write(label, 1)


def acquisition_tags(place):
    """Tags of the file as a producer would set them."""
    return {
        "ACQUISITION_DATE": place.date.isoformat(),
        "SUN_ELEVATION": f"{place.sun_elevation:.2f}",
        "SUN_AZIMUTH": f"{place.sun_azimuth:.2f}",
        "PROCESSING_BASELINE": "04.00",
        "SCENE_SEED": str(place.seed),
    }


def write_cems_folder(folder, seeds, height=768, width=768, encoding="dn", first=900, **changes):
    """One activation a seed in the CEMS layout: `EMSR900/AOI01/EMSR900_AOI01_01/EMSR900_AOI01_01_{S2L2A,DEL,GRA,CM}.tif`.

    Returns the image paths in the order of the seeds. The activation numbers count up from `first`, to 999 at most.
    """
    seeds = list(seeds)
    if len(seeds) > 1000 - first:
        raise ValueError(f"an activation number has three digits: at most {1000 - first} scenes from {first}, got {len(seeds)}")
    paths = []
    for position, seed in enumerate(seeds):
        scene = generate_scene(seed, height, width, **changes)
        event = f"EMSR{first + position}"
        tile = f"{event}_AOI01_01"
        place = Path(folder) / event / "AOI01" / tile
        place.mkdir(parents=True, exist_ok=True)
        for layer, label in (("DEL", scene.delineation), ("GRA", scene.severity), ("CM", scene.cloud_mask)):
            write_label(place / f"{tile}_{layer}.tif", label, scene.crs, scene.transform)
        paths.append(place / f"{tile}_S2L2A.tif")
        write_image(paths[-1], scene.image, scene.crs, scene.transform, encoding, acquisition_tags(scene.place))
    return paths


def write_plain_folder(folder, seeds, height=768, width=768, encoding="dn", **changes):
    """`post_fire/<name>.tif` beside `masks/<name>.tif` (0/1/255). Returns the image paths in the order of the seeds."""
    images, masks = Path(folder) / "post_fire", Path(folder) / "masks"
    images.mkdir(parents=True, exist_ok=True)
    masks.mkdir(parents=True, exist_ok=True)
    paths = []
    for seed in seeds:
        scene = generate_scene(seed, height, width, **changes)
        write_label(masks / f"{scene.name}.tif", scene.delineation, scene.crs, scene.transform)
        paths.append(images / f"{scene.name}.tif")
        write_image(paths[-1], scene.image, scene.crs, scene.transform, encoding, acquisition_tags(scene.place))
    return paths
