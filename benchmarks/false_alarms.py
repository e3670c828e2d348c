"""
False alarms of networks of the Californian fires on ground that did not burn, and how much a map depends on where its windows lie.

    python -m benchmarks.false_alarms seed0/checkpoints/final_model.pt [seed1/… seed2/…] [--window 128,192] [--overlap 0.5] [--index-check]

The ground: synthetic country without a fire, and the flood and HLS chips of the shared data. The five bands are made of reflectance r by
stated formulas: the true-colour picture is 255 · min(1, r / 0.2) of B04, B03, B02 (ESA's TCI of level 2A; Landsat's B4, B3, B2 of HLS), the
infrared ones are r of B8 and B12 (HLS: B5 and B7). Images of 10 m are averaged over 2 x 2 pixels, since the fires have 20 m.

Burned: the share of pixels whose class is burned. Moved: how the map changes where all windows are moved by half a step, as the mean
difference of probabilities and as the share of pixels of another class. A network that says the same in every window has 0.
"""

import argparse
import dataclasses
import os
from pathlib import Path

from benchmarks.wildfire_crossval import ROOT
from runtime.values import number, sides_or_size

SEEDS = range(9000, 9006)  # of the synthetic scenes
SIDE = 448  # their pixels of 10 m
WHITE = 0.2  # reflectance that is 255 in a true-colour picture


def as_fires(red, green, blue, near_infrared, short_wave):
    """(5, H, W) float32 in the units of the fires' training (the picture's 0..255 as 0..1) from five bands of reflectance."""
    import numpy as np

    picture = np.rint(255 * np.clip(np.stack([red, green, blue]) / WHITE, 0, 1)) / 255
    return np.concatenate([picture, np.stack([near_infrared, short_wave])]).astype(np.float32)


def halved(bands):
    """(C, H, W) averaged over 2 x 2 pixels."""
    count, height, width = bands.shape
    return bands[:, : height // 2 * 2, : width // 2 * 2].reshape(count, height // 2, 2, width // 2, 2).mean(axis=(2, 4))


def unburned_ground(data):
    """{name: [(5, H, W) image, …]} of ground that did not burn. data: the folder with floods/ and hls/."""
    import numpy as np
    import rasterio

    from constants import SENTINEL2_L2A_BANDS
    from synthetic.scenes import generate_scene

    places = [SENTINEL2_L2A_BANDS.index(name) for name in ("B04", "B03", "B02", "B08", "B12")]
    quiet = {"fire_share": 0.0, "old_fire": False, "cloud_share": 0.0, "smoke": False, "swath_edge": False}
    found = {"synthetic": [as_fires(*halved(generate_scene(seed, SIDE, SIDE, **quiet).image[places])) for seed in SEEDS]}
    for path in sorted(data.glob("floods/*_S2Hand.tif")):
        with rasterio.open(path) as source:
            found.setdefault("flood chip", []).append(as_fires(*halved(source.read([4, 3, 2, 8, 13]).astype(np.float32) / 1e4)))
    for path in sorted(data.glob("hls/*.tif")):
        with rasterio.open(path) as source:
            found.setdefault("HLS chip", []).append(as_fires(*source.read([4, 3, 2, 5, 7]).clip(0) / 1e4))
    return found


@dataclasses.dataclass(frozen=True)
class Way:
    """How maps are made. window: pixels a side, or several. overlap: share of each. check: mapping.index_check.IndexCheck or None."""

    window: object = 128
    overlap: float = 0.25
    check: object = None


def burned_probability(models, image, way, kept=None, name=None):
    """
    (H, W): the mean over networks and sizes of windows of the probability of burned. image: (5, H, W) in the training's units.
    name: of the image. kept: a dict of maps that were made before, or None.
    """
    from mapping.segmentation import predict_array

    kept, maps = {} if kept is None else kept, []
    for model in models:
        for side in way.window if isinstance(way.window, list) else [way.window]:
            key = id(model), name, side, way.overlap
            if key not in kept:
                kept[key] = predict_array(model, image, window=side, overlap=way.overlap, device="cpu", accept_scale=True)[1][1]
            maps.append(kept[key])
    return sum(maps) / len(maps)


def burned(probability, image, check, bands):
    """(H, W) bool: where a map of the likeliest class is burned, without what the IndexCheck drops. bands: names."""
    import numpy as np
    import torch

    from mapping.index_check import Dropped, without_unlike
    from mapping.journal import StoredBand

    classes = (probability > 0.5).astype(np.uint8)
    if check is None:
        return classes > 0
    beyond = check.beyond(bands)(torch.from_numpy(image)[None])[0].numpy()
    band = StoredBand(0, classes, classes, None, 0, 0.0, [], beyond=beyond)
    (band,) = without_unlike(lambda: [dataclasses.replace(band)], check, Dropped(check, None), None)
    return band.classes > 0


def alarms(models, images, way, kept=None, ground=""):
    """
    (share of pixels that are called burned, mean difference of probabilities where windows are moved, share of classes that change) of the
    images of a ground. kept: see burned_probability.
    """
    import numpy as np

    bands, sums, pixels = models[0].config.bands, np.zeros(3), np.zeros(3)
    first = way.window[0] if isinstance(way.window, list) else way.window
    step = max(1, round(first * (1 - way.overlap)) // 2)
    for place, image in enumerate(images):
        there = burned_probability(models, image, way, kept, (ground, place, 0))
        moved = burned_probability(models, np.ascontiguousarray(image[:, step:, step:]), way, kept, (ground, place, step))
        one, two = burned(there, image, way.check, bands), burned(moved, image[:, step:, step:], way.check, bands)
        sums += one.sum(), np.abs(there[step:, step:] - moved).sum(), (one[step:, step:] != two).sum()
        pixels += one.size, two.size, two.size
    return tuple((sums / pixels).tolist())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = os.environ.get("CHIPMILL_DATA", ROOT.parent / "shared" / "data")
    parser.add_argument("checkpoint", nargs="+", help="of networks that map together")
    parser.add_argument("--data", type=Path, default=Path(data), help="folder with floods/ and hls/")
    parser.add_argument("--window", type=sides_or_size, default=128, help="side of the windows, or several: 128,192")
    parser.add_argument("--overlap", type=number(0, 0.9), default=0.25)
    parser.add_argument("--index-check", nargs="?", const=0.1, type=number(0, 1), metavar="SHARE", help="as of inference.py")
    args = parser.parse_args()

    from mapping.index_check import check_of
    from model import model_from_checkpoint
    from runtime.checkpoint import load_checkpoint

    members = [load_checkpoint(path) for path in args.checkpoint]
    check = check_of(members, args.index_check)
    models, way = [model_from_checkpoint(member).eval() for member in members], Way(args.window, args.overlap, check)
    print("| ground | burned | moved: probability | moved: class |", "|---|---|---|---|", sep="\n")
    for name, images in unburned_ground(args.data).items():
        share, difference, changed = alarms(models, images, way)
        print(f"| {name} | {share:.2%} | {difference:.4f} | {changed:.2%} |", flush=True)


if __name__ == "__main__":
    main()
