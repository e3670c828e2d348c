"""Every command of docs/data.md runs as written."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import shapely
from product_factory import make_safe, write_raster
from rasterio.transform import from_origin
from rasterio.warp import transform_geom

import chip
from chipping.chipset import read_manifest
from constants import SENTINEL2_L2A_BANDS

ROOT = Path(__file__).resolve().parent.parent


def commands():
    text = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        yield from block.replace("\\\n", " ").strip().splitlines()


def place(number):
    return from_origin(500_000 + 5_000 * number, 4_600_000, 10, 10)


@pytest.fixture
def world(here, make_raster):
    """All the folders that the page speaks of, as scenes of 16 × 16 pixels."""
    rng = np.random.default_rng(0)
    mask = np.tri(16, dtype=np.uint8)
    for number, name in enumerate(("DOVE", "CANAL", "LIDIA", "KENNETH", "OAK")):
        make_raster(f"post_fire/{name}_2024.tif", rng.integers(1, 255, (5, 16, 16)).astype(float), transform=place(number))
        make_raster(f"masks/{name}_2024.tif", mask, transform=place(number))
        make_raster(f"s2/{name}_2024.tif", rng.integers(1, 9999, (4, 16, 16)).astype(np.uint16), transform=place(number))
        make_raster(f"biomass/{name}_2024.tif", rng.normal(90, 30, (16, 16)).astype(np.float32), transform=place(number))
        kind = ("forest", "water")[number % 2]
        make_raster(f"scenes/{kind}/{kind}_{number}.tif", rng.integers(1, 9999, (4, 16, 16)).astype(np.uint16), transform=place(number))
    kinds = enumerate(("forest", "water", "forest", "water", "forest"))
    Path("labels.csv").write_text("image,label\n" + "".join(f"{kind}_{number},{kind}\n" for number, kind in kinds))
    features = []
    for number, severity in enumerate(("low", "high", "low", "high", "low")):
        x, y = 500_000 + 5_000 * number, 4_600_000
        ring = [(x, y), (x + 80, y), (x + 80, y - 160), (x, y - 160), (x, y)]
        shape = transform_geom("EPSG:32633", "EPSG:4326", {"type": "Polygon", "coordinates": [ring]})
        features.append({"type": "Feature", "properties": {"severity": severity}, "geometry": shape})
    Path("perimeters.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    west, east = shapely.box(499_000, 4_599_000, 512_000, 4_601_000), shapely.box(512_000, 4_599_000, 521_000, 4_601_000)
    both = west.union(east)
    for file, layer, shape in (("perimeters.gpkg", "others", east), ("perimeters.gpkg", "burned", west), ("area.fgb", "area", both)):
        pyogrio.raw.write(file, geometry=shapely.to_wkb([shape]), field_data=[], fields=[], layer=layer, geometry_type="Polygon",
                          crs="EPSG:32633", append=Path(file).exists())
    make_raster("floods/Spain_1_S2Hand.tif", rng.integers(1, 9999, (13, 16, 16)).astype(np.int16))
    make_raster("floods/Spain_1_LabelHand.tif", mask.astype(np.int16) - np.eye(16, dtype=np.int16) * 2)
    for number, tile in enumerate(("EMSR001_AOI01_01", "EMSR002_AOI01_01")):
        split, where = ("train", "val")[number], f"EMSR00{number + 1}/AOI01"
        for kind, array in {
            "S2L2A": rng.random((len(SENTINEL2_L2A_BANDS), 16, 16)).astype("float32"),
            "DEL": mask,
            "GRA": mask * 4,
        }.items():
            make_raster(f"wildfires-cems/{split}/{split}/{where}/{tile}/{tile}_{kind}.tif", array, transform=place(number))
    for band in ("B02", "B03", "B04"):
        make_raster(f"safe/T33_2024_{band}_10m.tif", rng.integers(1, 9999, (16, 16)).astype(np.uint16))
    for band in ("B8A", "B11", "B12"):
        coarse = from_origin(500_000, 4_600_000, 20, 20)
        make_raster(f"safe/T33_2024_{band}_20m.tif", rng.integers(1, 9999, (8, 8)).astype(np.uint16), transform=coarse)
    make_raster("safe-masks/T33_2024.tif", mask)
    make_safe("products", side=24)
    for day in ("20240101", "20240611"):
        make_raster(f"series/lake_{day}.tif", rng.integers(1, 9999, (2, 16, 16)).astype(np.uint16), descriptions=("B04", "B8A"))
    make_raster("series-masks/lake.tif", mask)
    write_raster("product-masks/32TQM_20220205.tif", np.tri(24, dtype=np.uint8), 10)


def test_the_commands_of_the_page_run_in_order(tmp_path, monkeypatch, world, capsys):
    found = [shlex.split(line) for line in commands()]
    assert len(found) >= 7
    for words in found:
        assert words[:2] == ["python", "chip.py"]
        assert not chip.main(words[2:]), words
    assert {line["split"] for line in read_manifest("patches")} == {"train", "val"}
    assert [line["class_pixels"]["mask"] for line in read_manifest("patches-severity")][0] == [128, 0, 128]  # CANAL is the second: high
    in_layer = {line["scene"]: line["class_pixels"]["mask"] for line in read_manifest("patches-gpkg")}
    assert len(in_layer) == 5 and {scene for scene, (_, burned) in in_layer.items() if burned} == {"CANAL_2024", "DOVE_2024", "LIDIA_2024"}
    assert (Path("patches") / "contact_sheet.png").exists() and not Path("more-patches").exists()


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
