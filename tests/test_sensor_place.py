"""Rasters with ground control points or RPCs: what a user is told, and that outputs on the same grid carry them."""

import json
import shlex
import shutil
import subprocess

import numpy as np
import pytest
import rasterio
from map_factory import BANDS, numbers, run
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.rpc import RPC
from rasterio.transform import GCPTransformer, RPCTransformer
from rasterio.warp import reproject

import chip
import inference
from raster.sensor_place import SensorPlace, utm_of
from raster.source import describe
from raster.stack import stack_bands
from runtime.errors import UserError

WEST, NORTH, STEP = 15.0, 40.62, 1e-4
LONLAT = CRS.from_epsg(4326)


def points(height, width, step=STEP):
    return [GroundControlPoint(row=r, col=c, x=WEST + step * c, y=NORTH - step * r, id=str(n), info="")
            for n, (r, c) in enumerate((r, c) for r in (0, height / 2, height) for c in (0, width / 2, width))]


def rpcs(height, width, step=STEP):
    """RPCs of a grid in lon/lat: line and sample are linear in latitude and longitude."""
    one, lon, lat = ([1.0 if i == n else 0.0 for i in range(20)] for n in range(3))
    return RPC(
        height_off=0.0, height_scale=100.0, lat_off=NORTH - step * height / 2, lat_scale=step * height / 2,
        long_off=WEST + step * width / 2, long_scale=step * width / 2, line_off=height / 2 - 0.5, line_scale=height / 2,
        samp_off=width / 2 - 0.5, samp_scale=width / 2, line_num_coeff=[-v for v in lat], line_den_coeff=one, samp_num_coeff=lon,
        samp_den_coeff=one, err_bias=None, err_rand=None,
    )


@pytest.fixture
def make(tmp_path):
    def make(name, pixels, kind, names=(), step=STEP):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        count, height, width = pixels.shape
        with rasterio.open(path, "w", driver="GTiff", count=count, height=height, width=width, dtype=pixels.dtype) as dataset:
            if kind == "points":
                dataset.gcps = points(height, width, step), LONLAT
            else:
                dataset.rpcs = rpcs(height, width, step)
            dataset.write(pixels)
            for n, text in enumerate(names, start=1):
                dataset.set_band_description(n, text)
        return path

    return make


def where(path, row, col):
    """(lon, lat) of a corner in pixels, by the file's own points or RPCs."""
    with rasterio.open(path) as dataset:
        assert dataset.crs is None and dataset.transform.is_identity
        if dataset.gcps[0]:
            assert dataset.gcps[1] == LONLAT
            return GCPTransformer(dataset.gcps[0]).xy(row, col, offset="ul")
        return RPCTransformer(dataset.rpcs).xy(row, col, offset="ul")


@pytest.mark.parametrize("kind", ["points", "rpcs"])
def test_a_map_lies_where_its_scene_does(make, checkpoint, tmp_path, kind):
    scene = make("a.tif", numbers(80, 60), kind, BANDS)
    assert run(scene, "--checkpoint", checkpoint, "--output-dir", tmp_path / "maps", "--probabilities", "--quiet") == 0
    for name in ("a_classes.tif", "a_probability.tif"):
        for row, col in ((0, 0), (80, 0), (33, 47)):
            assert where(tmp_path / "maps" / name, row, col) == pytest.approx(where(scene, row, col), abs=1e-9)
    remark, = json.loads((tmp_path / "maps/summary.json").read_text())["scenes"][0]["remarks"]
    assert "and no grid; warp it first (gdalwarp" in remark


@pytest.fixture
def square(tmp_path):
    ring = [[WEST + STEP * c, NORTH - STEP * r] for r, c in ((20, 10), (20, 40), (60, 40), (60, 10), (20, 10))]
    path = tmp_path / "l.geojson"
    path.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    return path


@pytest.mark.parametrize(("kind", "way"), [("points", "-tps"), ("rpcs", "-rpc")])
def test_the_gdalwarp_line_leads_to_patches(make, checkpoint, square, tmp_path, monkeypatch, kind, way):
    scene = make("a b.tif", numbers(80, 60), kind, BANDS)
    monkeypatch.chdir(tmp_path)

    def cut(image):
        words = f"make-patches --labels l.geojson --patch-size 32 --patches-dir p --divide-by 10000 --overwrite --quiet --images '{image}'"
        return chip.main(shlex.split(words))

    with pytest.raises(UserError) as labels:
        cut(scene)
    with pytest.raises(UserError) as area:
        inference.main(["--checkpoint", str(checkpoint), str(scene), "--aoi", "l.geojson", "--output-dir", "m", "--quiet"])
    line = str(labels.value).partition("warp it first (")[2].removesuffix(")")
    assert line in str(area.value) and line.startswith(f"gdalwarp {way} -t_srs EPSG:32633 -dstnodata 0 '")
    words = shlex.split(line)
    if shutil.which("gdalwarp"):
        subprocess.run(words, check=True, capture_output=True)
    else:
        warp(*words[-2:])
    assert not cut(words[-1])
    lines = [json.loads(text) for text in (tmp_path / "p/manifest.jsonl").read_text().splitlines()]
    assert any(patch["class_pixels"]["mask"][1] for patch in lines)


def warp(source, target):
    """What the line does, with rasterio, where GDAL's programs are not installed."""
    with rasterio.open(source) as dataset:
        pixels = dataset.read()
        place = {"gcps": dataset.gcps[0]} if dataset.gcps[0] else {"rpcs": dataset.rpcs}
        found, transform = reproject(pixels, src_crs=LONLAT, dst_crs="EPSG:32633", **place)
        profile = {"count": len(found), "height": found.shape[1], "width": found.shape[2], "dtype": found.dtype}
        with rasterio.open(target, "w", driver="GTiff", crs="EPSG:32633", transform=transform, nodata=0, **profile) as written:
            written.write(found)
            written.descriptions = dataset.descriptions


@pytest.mark.parametrize("kind", ["points", "rpcs"])
@pytest.mark.parametrize("of_pan", [True, False])
def test_a_sharpened_raster_lies_where_its_pan_does(make, tmp_path, kind, of_pan):
    fine, coarse = numbers(160, 128, bands=1), numbers(40, 32, bands=4)
    pan = make("x-pan.tif", fine, kind)
    ms = make("x-ms.tif", coarse, kind, step=4 * STEP)
    if not of_pan:
        with rasterio.open(pan, "w", driver="GTiff", count=1, height=160, width=128, dtype="uint16") as dataset:
            dataset.write(fine)
    words = ["--method", "brovey", "--pan", pan, "--ms", ms, "--output-dir", tmp_path / "m", "--divide-by", 10000, "--quiet"]
    assert run(*words, "--shift", "8,4") == 0  # so that the first ms pixels lie at pan's column 8 and row 4
    out, = (tmp_path / "m").glob("*_sharpened.tif")
    for row, col in ((0, 0), (100, 60)):
        expected = (WEST + STEP * (col + 8 * of_pan), NORTH - STEP * (row + 4 * of_pan))
        assert where(out, row, col) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("kind", ["points", "rpcs"])
def test_a_stack_lies_where_its_bands_do(make, tmp_path, kind):
    paths = [make(f"T1_{band}.tif", numbers(40, 30, bands=1), kind) for band in ("B02", "B03")]
    stacks, _ = stack_bands(sorted(map(str, paths)), ["B02", "B03"], tmp_path)
    assert where(stacks["T1"], 7, 5) == pytest.approx(where(paths[0], 7, 5), abs=1e-9)
    assert describe(stacks["T1"]).count == 2


def test_a_grid_of_its_own_keeps_the_rpcs_beside_it(make_raster, checkpoint, tmp_path):
    scene = make_raster("a.tif", numbers(64, 64), descriptions=BANDS)
    with rasterio.open(scene, "r+") as dataset:
        dataset.rpcs = rpcs(64, 64)
    assert run(scene, "--checkpoint", checkpoint, "--output-dir", tmp_path / "maps", "--quiet") == 0
    with rasterio.open(tmp_path / "maps/a_classes.tif") as made, rasterio.open(scene) as given:
        assert made.transform == given.transform and made.crs == given.crs
        assert made.rpcs.to_gdal() == given.rpcs.to_gdal()


def test_moving_a_place_there_and_back_changes_nothing():
    place = SensorPlace(tuple(points(40, 30)), LONLAT, rpcs(40, 30))
    back = place.moved(4, 6, 2).moved(-8, -12, 0.5)
    assert np.allclose([(p.row, p.col, p.x, p.y) for p in back.gcps], [(p.row, p.col, p.x, p.y) for p in place.gcps])
    assert (back.rpcs.line_off, back.rpcs.samp_scale) == pytest.approx((place.rpcs.line_off, place.rpcs.samp_scale))


def test_the_utm_zone_of_a_place():
    places = ((15, 40), (-180, -1), (180, 1), (-69.3, -33.4))
    assert [utm_of(*place) for place in places] == ["EPSG:32633", "EPSG:32701", "EPSG:32601", "EPSG:32719"]
    assert utm_of(0, 88) == "EPSG:4326"
