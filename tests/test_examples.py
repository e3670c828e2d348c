"""The files of examples/ about tasks are followed from rasters to a map, with one step of training."""

import json
from pathlib import Path

import numpy as np
import pytest
from rasterio.transform import from_origin

import chip
import inference
import train

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
SMALL = "--encoder resnet18 --epochs 1 --max-steps 1 --batch-size 2 --num-workers 0 --device cpu --quiet".split()


def place(number):
    return from_origin(500_000 + 9_000 * number, 4_600_000, 10, 10)


def scenes(make_raster, names):
    random = np.random.default_rng(0)
    for number, name in enumerate(names):
        image = random.integers(300, 3000, (3, 64, 64)).astype(np.uint16)
        make_raster(name, image, transform=place(number), descriptions=("B02", "B03", "B04"))


def follow(name, *cut):
    """All that a file has to say, in the current folder. → the record of the map."""
    config = ["--config", str(EXAMPLES / f"{name}.yaml")]
    chip.main(["make-patches", *config, "--accept-scale", "--workers", "1", "--quiet", *cut])
    assert train.main([*config, *SMALL]) == 0
    assert inference.main([*config, "scene.tif", "--accept-scale", "--device", "cpu", "--quiet"]) == 0
    (folder,) = Path("maps").iterdir()
    return json.loads((folder / "summary.json").read_text())["scenes"][0]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["biomass", "land_cover", "scenes"])
def test_an_example_is_followed_from_rasters_to_a_map(name, make_raster, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(1)
    if name == "scenes":
        scenes(make_raster, [f"scenes/{kind}/{kind}{number}.tif" for number in range(3) for kind in ("forest", "water")])
    else:
        scenes(make_raster, [f"scenes/s{number}.tif" for number in range(4)])
        for number in range(4):
            of_classes = name == "land_cover"
            labels = random.integers(0, 4, (64, 64)).astype(np.uint8) if of_classes else random.normal(90, 30, (64, 64)).astype(np.float32)
            make_raster(f"{'land-cover' if of_classes else 'biomass'}/s{number}.tif", labels, transform=place(number))
    scenes(make_raster, ["scene.tif"])
    record = follow(name, "--patch-size", "64")
    assert record["valid_fraction"] == 1.0
    assert (record["mean"] if name == "biomass" else record["classes"]) is not None
