"""
A synthetic ARD delivery: the folders, JSON files and TIFFs that make-chips reads, with pixels from formulas.

    python -m benchmarks.fake_ard FOLDER                       # 5 tiles, ms 2418, pan 9672, one tile 40 % nodata: about 1 GB
    python -m benchmarks.fake_ard FOLDER --ms-side 1100        # small ones

Ground is a mix of material spectra (synthetic/spectra.py) in fractal noise, averaged over the bands of pan and ms, so that ms is exactly
the box mean of what pan shows: good for measuring speed and for tests, not for judging quality.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin

from constants import WORLDVIEW_BANDS
from synthetic.spectra import make_spectra, through_bands

GROUND = 5312.5  # metres a side
PERIOD = 512  # ms pixels after which the ground repeats


def periodic_noise(rng, side, power):
    """(side, side) periodic noise with amplitude f^-power, mean 0, standard deviation 1."""
    f = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    f[0, 0] = 1 / side
    spectrum = np.fft.rfft2(rng.standard_normal((side, side), dtype=np.float32)) * f**-power
    noise = np.fft.irfft2(spectrum, s=(side, side)).astype(np.float32)
    return (noise - noise.mean()) / noise.std()


def make_ground(seed, period=PERIOD, materials=7):
    """(pan (1, 4 p, 4 p), ms (8, p, p)) uint16 reflectance x 10 000, periodic, never 0."""
    rng = np.random.default_rng(seed)
    spectra = np.stack([through_bands(s, ("pan", *WORLDVIEW_BANDS)) for _, s in make_spectra(materials, seed)])
    side = 4 * period
    shares = np.exp(np.stack([2.5 * periodic_noise(rng, side, 1.2) for _ in range(materials)]))
    shares /= shares.sum(0)
    brightness = 1 + 0.1 * periodic_noise(rng, side, 0.6)
    ground = np.einsum("mb,mhw->bhw", spectra.astype(np.float32), shares, optimize=True) * np.clip(brightness, 0.3, 2)
    ms = ground[1:].reshape(8, period, 4, period, 4).mean((2, 4))
    return (np.clip(x * 10_000, 1, 65_535).astype(np.uint16) for x in (ground[:1], ms))


def write_tile(folder, cid, pan, ms, corner, blocksize, extra=None):
    """<CID>-pan.tif, <CID>-ms.tif and <CID>.json in a tile's folder. corner: (easting, northing)."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind, values in (("pan", pan), ("ms", ms)):
        gsd = GROUND / values.shape[-1]
        with rasterio.open(
            folder / f"{cid}-{kind}.tif", "w", driver="GTiff", count=len(values), width=values.shape[2], height=values.shape[1],
            dtype=values.dtype, crs="EPSG:32637", transform=from_origin(*corner, gsd, gsd), tiled=True, blockxsize=blocksize,
            blockysize=blocksize, compress="deflate", predictor=2, interleave="pixel", BIGTIFF="IF_SAFER",
        ) as file:
            file.write(values)
    properties = {"platform": "worldview-03", "datetime": "2023-11-30 08:01:02Z", "gsd": GROUND / pan.shape[-1],
                  "tile:clouds_percent": 3, "tile:data_area": 28.2, "view:off_nadir": 21.5, **(extra or {})}
    (folder / f"{cid}.json").write_text(json.dumps({"type": "Feature", "properties": properties}))


def make_fake_ard(folder, tiles=5, ms_side=2418, null_share=0.4, seed=0, blocksize=512, cids=2):
    """Write an ARD into `folder`; its last tile is nodata in the lowest `null_share` of its rows. Returns the tiles' names."""
    folder = Path(folder)
    names, links = [], {}
    ground = [*make_ground(seed, min(PERIOD, ms_side))]
    for number in range(tiles):
        cid = f"1040010000{number % cids:06X}"
        name = f"37/{211111023300 + number}/2023-11-30"
        copies = -(-ms_side // ground[1].shape[-1])
        turned = [np.roll(np.rot90(g, number, (1, 2)), 32 * number * s, axis=2) for g, s in zip(ground, (4, 1), strict=True)]
        pan, ms = (np.tile(g, (1, copies, copies))[:, : s * ms_side, : s * ms_side] for g, s in zip(turned, (4, 1), strict=True))
        if number == tiles - 1 and null_share:
            row = round(ms_side * (1 - null_share))
            pan[:, 4 * row :], ms[:, row:] = 0, 0
        write_tile(folder / name, cid, pan, ms, (400_000 + 5000 * number, 6_000_000), blocksize)
        links.setdefault(cid, []).append({"rel": "item", "href": f"../{name}/{cid}.json"})
        names.append(f"{name}/{cid}")
    for cid, items in links.items():
        place = folder / "acquisition_collections"
        place.mkdir(parents=True, exist_ok=True)
        links_ = [{"rel": "root", "href": "../../collection.json"}, *items]
        (place / f"{cid}_collection.json").write_text(json.dumps({"type": "Collection", "links": links_}))
    return names


def main(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--tiles", type=int, default=5)
    parser.add_argument("--ms-side", type=int, default=2418, help="pixels; pan has four times as many")
    parser.add_argument("--null-share", type=float, default=0.4, help="of the last tile's rows; 0 for none")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    for name in make_fake_ard(args.folder, args.tiles, args.ms_side, args.null_share, args.seed):
        print(name)


if __name__ == "__main__":
    main(sys.argv[1:])
