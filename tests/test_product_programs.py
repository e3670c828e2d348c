"""Delivered products in chip.py and inference.py, as the stacked rasters of the same pixels: pytest tests/test_product_programs.py"""

import datetime
import functools
import http.server
import ipaddress
import json
import os
import ssl
import threading

import numpy as np
import pytest
import rasterio
from map_factory import run, write_checkpoint
from product_factory import make_hls, make_item, make_landsat, make_safe, numbers, sentinel2_pixels, tarred, write_raster

import chip
import demo
from chipping.box_labels import read_labels
from chipping.tile_set import read_tile_set
from mapping.predict_file import predict_file
from raster import products, source
from raster.products import list_scenes
from raster.source import open_raster
from runtime import network
from runtime.checkpoint import save_checkpoint
from runtime.errors import RunError, UserError
from runtime.files import read_json, read_lines

BANDS = ("B02", "B03", "B04", "B8A", "B11", "B12")
MODEL = ("B04", "B8A", "B12")
OLD = "S2A_MSIL2A_20210205T101211_N0214_R022_T32TQM_20210205T120000"
OTHER = "S2A_MSIL2A_20220208T101211_N0400_R022_T33TQM_20220208T120000"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("model") / "best_model.pt", bands=list(MODEL))


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def cut(*words, folder="patches"):
    """chip.py make-patches with small windows; its manifest lines."""
    chip.main(["make-patches", *map(str, words), "--patches-dir", folder, "--patch-size", "32", "--stride", "32"])
    return read_lines(f"{folder}/manifest.jsonl")


def stacked(path, scene, bands):
    """A GeoTIFF with bands of a product's scene on its grid, as a person would stack them."""
    with open_raster(list_scenes([str(scene)])[0].with_bands(bands)) as dataset:
        pixels, transform = dataset.read(), dataset.transform
        path.parent.mkdir(exist_ok=True)
        with rasterio.open(
            path, "w", driver="GTiff", count=len(bands), height=dataset.height, width=dataset.width, dtype=pixels.dtype, crs=dataset.crs,
            transform=transform, nodata=dataset.nodata,
        ) as file:
            file.write(pixels)
            file.descriptions, file.scales, file.offsets = bands, dataset.scales, dataset.offsets
    return path


def write_mask(path, side=96, metres=10, seed=0, corner=(600_000, 4_900_020)):
    return write_raster(path, np.random.default_rng(seed).integers(0, 2, (side, side)).astype(np.uint8), metres, corner=corner)


def read(path):
    with rasterio.open(path) as dataset:
        return dataset.read(1)


def some_scl(side=96):
    scl = np.full((side // 2, side // 2), 4, np.uint8)
    scl[: side // 8, : side // 6] = 9
    return scl


# ------------------------------------------------------------------------------------------------ maps


@pytest.mark.parametrize("products", ["safe and landsat", pytest.param("all of them", marks=pytest.mark.slow)])
def test_a_product_has_the_map_of_the_stacked_raster_of_its_pixels(model, tmp_path, products):
    safe, _ = make_safe(tmp_path, side=96)
    landsat, _ = make_landsat(tmp_path, side=40)
    made = [(safe, MODEL), (tarred(landsat), ("red", "nir08", "swir22"))]
    if products == "all of them":
        made += [(make_hls(tmp_path, side=40)[0], MODEL), (make_item(tmp_path / "item", side=60)[0], MODEL)]
    words = ("--checkpoint", model, "--device", "cpu", "--probabilities")
    assert run(*(product for product, _ in made), *words, "--no-clouds", "--output-dir", "maps") == 0
    for product, bands in made:
        name = list_scenes([str(product)])[0].name
        plain = stacked(tmp_path / "plain" / f"{name}.tif", product, bands)
        named = ("--bands", ",".join(bands)) if bands != MODEL else ()
        assert run(plain, *words, *named, "--output-dir", "again") == 0
        for kind in ("classes.tif", "probability.tif"):
            assert (read(f"maps/{name}_{kind}") == read(f"again/{name}_{kind}")).all()
        assert open(f"maps/{name}_burned.geojson").read() == open(f"again/{name}_burned.geojson").read()
        assert (predict_file(str(product), str(model), clouds=False, device="cpu").classes == read(f"maps/{name}_classes.tif")).all()
    scenes = {record["scene"]: record for record in read_json("maps/summary.json")["scenes"]}
    assert scenes[safe.stem]["product"] == "Sentinel-2 L2A" and scenes[safe.stem]["datetime"].startswith("2022-02-05")
    with rasterio.open(f"maps/{safe.stem}_classes.tif") as file:
        assert file.tags()["SENSOR"] == "Sentinel-2 L2A" and file.tags()["SOURCE"] == safe.name


def test_clouds_are_not_mapped_and_the_rest_stays_as_it_is(model, tmp_path, capsys):
    safe, _ = make_safe(tmp_path, side=96, scl=some_scl())
    for words, folder in (((), "maps"), (("--no-clouds",), "all")):
        assert run(safe, "--checkpoint", model, "--output-dir", folder, "--device", "cpu", *words) == 0
    said = "".join(capsys.readouterr())
    assert "clouds by its scl layer are not mapped" in said and "clouds are mapped too" in said
    clear = np.ones((96, 96), bool)
    clear[:24, :32] = False
    found, everything = read(f"maps/{safe.stem}_classes.tif"), read(f"all/{safe.stem}_classes.tif")
    assert (found[~clear] == 255).all() and (found[clear] == everything[clear]).all() and (everything != 255).all()
    with pytest.raises(UserError, match="made with other settings"):
        run(safe, "--checkpoint", model, "--output-dir", "maps", "--device", "cpu", "--no-clouds")


def test_a_product_without_a_scale_does_not_take_that_of_the_training(model, tmp_path):
    item, _ = make_item(tmp_path, platform="drone")
    text = item.read_text().replace('"scale": 0.0001, "offset": -0.1', '"unit": "1"')
    item.write_text(text)
    with pytest.raises(UserError, match="states no scale of its bands; pass --divide-by and --offset"):
        run(item, "--checkpoint", model, "--output-dir", "maps", "--device", "cpu")
    words = ("--checkpoint", model, "--output-dir", "maps", "--device", "cpu", "--divide-by=10000", "--offset=-1000")
    assert run(item, *words) == 0


def test_scenes_that_cannot_be_mapped_are_named_and_the_others_are_mapped(model, tmp_path, capsys):
    good, _ = make_safe(tmp_path, side=96)
    bad, _ = make_safe(tmp_path, side=96, name=OLD, baseline="02.14")
    os.remove(next(bad.rglob("*B12_20m.jp2")))
    assert run(tmp_path / "*.SAFE", "--checkpoint", model, "--output-dir", "maps", "--device", "cpu") == 1
    out, err = capsys.readouterr()
    assert "B12_20m.jp2 is missing" in out + err and f"failed: {OLD}" in out + err and os.path.exists(f"maps/{good.stem}_classes.tif")


def test_the_scenes_of_a_training_are_found_again_in_their_products(model, tmp_path):
    make_safe(tmp_path, side=96)
    write_mask(tmp_path / "masks/32TQM_2022-02-05.tif")
    lines = cut("--images", "*.SAFE", "--masks", "masks/*.tif", "--bands", ",".join(MODEL))
    path = lines[0]["source"]["path"]
    changed = write_checkpoint(tmp_path / "trained.pt", bands=list(MODEL), patches_dir=str(tmp_path / "patches"))
    text = (tmp_path / "patches/manifest.jsonl").read_text().replace('"split": "train"', '"split": "val"')
    (tmp_path / "patches/manifest.jsonl").write_text(text)
    assert path.endswith(".SAFE") and run("--checkpoint", changed, "--output-dir", "maps", "--device", "cpu") == 0


def test_objects_are_found_in_products_too(tmp_path, monkeypatch):
    from spot_detector import SpotDetector, data, stand_in

    item, pixels = make_item(tmp_path / "a", side=60)
    pixels["B04"][10:20, 12:24] = 8000  # reflectance 0.7; what is around is below the stand-in's threshold
    write_raster(tmp_path / "a/red.tif", pixels["B04"], 10, nodata=0)
    stand_in(monkeypatch, SpotDetector())
    known = data(divide_by=[10_000.0] * 3, offset=[-1000.0] * 3)
    save_checkpoint(tmp_path / "c.pt", {"kind": "detection", "model": {}, "settings": {}, "state": {"model": {}}, "data": known})
    assert run(item, "--checkpoint", tmp_path / "c.pt", "--output-dir", "found", "--device", "cpu") == 0
    assert [entry["bbox"] for entry in json.loads((tmp_path / "found/results.json").read_text())] == [[12, 10, 12, 10]]


@pytest.mark.slow
def test_the_demo_shows_a_product_beside_a_mask_that_names_its_tile_and_date(model, tmp_path, capsys):
    make_safe(tmp_path, side=96)
    hls, _ = make_hls(tmp_path, side=32)
    write_mask(tmp_path / "masks/burned_32TQM_2022-02-05.tif")
    write_mask(tmp_path / f"own/{hls.name}.tif", 32, 30)
    for product, masks in (("*.SAFE", "masks"), (hls, "own")):
        assert demo.main(["--checkpoint", str(model), "--device", "cpu", "--quiet", "--scenes", str(product), "--masks", masks,
                          "--output-dir", f"demo-{masks}"]) == 0
        assert "1 scenes, 1 of them with" in capsys.readouterr().out


@pytest.mark.slow
def test_a_detector_is_shown_on_products_with_their_annotations(tmp_path, monkeypatch, capsys):
    from spot_detector import SpotDetector, data, stand_in

    pixels = {band: np.full_like(array, 2000) for band, array in sentinel2_pixels(60).items()}
    pixels["B04"][10:20, 12:24] = 8000
    safe, _ = make_safe(tmp_path / "images", pixels=pixels)
    write_boxes(tmp_path / "boxes.geojson", [(12, 10, 24, 20)], "cow")
    stand_in(monkeypatch, SpotDetector())
    known = data(divide_by=[10_000.0] * 3, offset=[-1000.0] * 3, classes=["cow", "sheep"])
    save_checkpoint(tmp_path / "c.pt", {"kind": "detection", "model": {}, "settings": {}, "state": {"model": {}}, "data": known})
    words = ["--checkpoint", str(tmp_path / "c.pt"), "--device", "cpu", "--quiet", "--images", "images"]
    for more, folder in (([], "p"), (["--annotations", "boxes.geojson"], "q")):
        assert demo.main([*words, *more, "--output-dir", folder]) == 0
    assert "1 with annotations: 1 object, 1 detection" in capsys.readouterr().out
    assert os.path.exists(f"q/found/{safe.stem}_boxes.geojson")


def test_sharpening_refuses_products(tmp_path):
    safe, _ = make_safe(tmp_path)
    write_raster("pan.tif", numbers(60, 60, 0), 10)
    with pytest.raises(UserError, match=r"--ms \S+SAFE is a delivered product; of those that are read only Maxar ARD has a pan band"):
        run("--method", "gsa", "--pan", "pan.tif", "--ms", safe)


# ------------------------------------------------------------------------------------------------ tiles, labels


def write_boxes(path, boxes, label):
    """Polygons around pixels of 10 m (left, top, right, bottom) in the product's CRS, as GeoJSON."""
    x, y = 600_000, 4_900_020
    rings = [[(x + 10 * c, y - 10 * r) for c, r in ((a, b), (c, b), (c, d), (a, d), (a, b))] for a, b, c, d in boxes]
    features = [{"type": "Feature", "properties": {"label": label}, "geometry": {"type": "Polygon", "coordinates": [r]}} for r in rings]
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32632"}}
    path.write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": features}))


def test_products_in_a_folder_are_images_of_tiles(tmp_path):
    safe, pixels = make_safe(tmp_path / "images", side=96)
    os.remove(next(safe.rglob("*B09_60m.jp2")))  # a band that no tile has
    write_boxes(tmp_path / "boxes.geojson", [(10, 20, 20, 30), (70, 40, 80, 50)], "house")
    size, annotations = {"width": 96, "height": 96}, [{"id": 1, "image_id": 7, "category_id": 1, "bbox": [10, 20, 10, 10]}]
    (tmp_path / "coco.json").write_text(json.dumps({
        "images": [{"id": 7, "file_name": safe.name, **size}], "categories": [{"id": 1, "name": "house"}], "annotations": annotations}))
    words = ("--images", "images", "--bands", "B04,B11", "--tile-size", "64", "--overlap", "32")
    for file, count in (("boxes.geojson", 2), ("coco.json", 1)):
        chip.main(["make-tiles", *words, "--annotations", file, "--output-dir", f"tiles-{count}"])
        lines, known = read_lines(f"tiles-{count}/manifest.jsonl"), read_json(f"tiles-{count}/chipset.json")
        assert known["divide_by"] == [10_000] * 2 and known["offset"] == [-1000] * 2 and known["bands"] == ["B04", "B11"]
        (first,) = [line for line in lines if (line["x0"], line["y0"]) == (0, 0)]
        assert [10, 20, 20, 30] in first["boxes"]
        tile = np.load(f"tiles-{count}/{first['file']}")
        assert (tile[0] == pixels["B04"][:64, :64]).all() and tile.shape == (2, 64, 64)
    chip.main(["make-tiles", *words, "--annotations", "boxes.geojson", "--output-dir", "windows", "--tile-format", "none"])
    tiles = read_tile_set("windows")
    with tiles.reader(0) as image:
        assert (tiles.window(image, 0, 0, 0, 64, 64)[0] == tile).all()


def test_a_products_metadata_is_read_once_for_its_labels(tmp_path, monkeypatch):
    made = [make_safe(tmp_path / "images", side=48)[0], make_safe(tmp_path / "images", side=48, name=OLD, baseline="02.14")[0]]
    boxes = [{"id": k, "image_id": k, "category_id": 1, "bbox": [10, 20, 10, 10]} for k in range(2)]
    images = [{"id": k, "file_name": safe.name, "width": 48, "height": 48} for k, safe in enumerate(made)]
    (tmp_path / "coco.json").write_text(json.dumps({"images": images, "categories": [{"id": 1, "name": "house"}], "annotations": boxes}))
    read, seen = products.read_products, []
    monkeypatch.setattr(products, "read_products", lambda path, *more: seen.append(os.path.basename(path)) or read(path, *more))
    _, found, _ = read_labels("images", "coco.json")
    assert sorted(seen) == sorted(image.path.name for image in found) and len(seen) == 2
    known = {image.name: image.header for image in found}
    again = read_labels("images", "coco.json", known=known)[1]
    assert [image.header for image in again] == [image.header for image in found] and len(seen) == 4
    assert all(image.header is known[image.name] for image in again)  # size and time are those of all files of the product


def test_products_are_images_with_labels_of_their_own(tmp_path):
    make_safe(tmp_path / "in", side=48)
    make_safe(tmp_path / "in", side=48, name=OLD, baseline="02.14")
    (tmp_path / "labels.csv").write_text(f"image,label\n{OLD},old\nS2B_MSIL2A_20220205T101211_N0400_R022_T32TQM_20220205T120000,new\n")
    lines = cut("--task", "classification", "--images", "in/*.SAFE", "--scene-labels", "labels.csv", "--bands", "B04,B8A")
    assert len(lines) == 8 and {line["scene"][:3] for line in lines} == {"S2A", "S2B"}
    assert read_json("patches/chipset.json")["offset"] == [-1000, -1000]


# ------------------------------------------------------------------------------------------------ patches


def test_a_product_has_the_patches_of_the_stacked_raster_of_its_pixels(tmp_path):
    pixels = sentinel2_pixels(96)
    for band in pixels.values():
        band[: len(band) // 4, : len(band) // 4] = 0
    safe, _ = make_safe(tmp_path, side=96, pixels=pixels)
    write_mask(tmp_path / f"masks/{safe.stem}.tif")
    stacked(tmp_path / f"plain/{safe.stem}.tif", safe, BANDS)
    shared = ("--masks", "masks", "--bands", ",".join(BANDS))
    ours = cut("--images", safe, *shared, "--no-clouds")
    plain = cut("--images", "plain", *shared, folder="plain-patches")
    assert len(ours) == 9 and ours[0]["valid_fraction"] < 0.5
    for one, other in zip(ours, plain, strict=True):
        assert [one[key] for key in one if key not in ("source", "event")] == [other[key] for key in one if key not in ("source", "event")]
        for key in ("file", "mask"):
            assert open(f"patches/{one[key]}", "rb").read() == open(f"plain-patches/{other[key]}", "rb").read()
    sets = [read_json(f"{folder}/chipset.json") for folder in ("patches", "plain-patches")]
    assert sets[0]["offset"] == sets[1]["offset"] == [-1000.0] * 6 and sets[0]["sensor"] == "Sentinel-2 MSI"
    assert sets[0]["wavelengths"][:2] == [492.1, 559.0] and "wavelengths" not in sets[1]


@pytest.mark.slow
def test_workers_cut_the_same_patches_and_a_set_is_continued_only_with_the_same_files(tmp_path):
    safe, _ = make_safe(tmp_path, side=96)
    write_mask(tmp_path / f"masks/{safe.stem}.tif")
    words = ("--images", safe, "--masks", "masks", "--bands", "B04,B11")
    cut(*words)
    cut(*words, "--workers", 2, folder="two")
    for file in sorted((tmp_path / "patches").rglob("*.npy")):
        assert file.read_bytes() == (tmp_path / "two" / file.relative_to(tmp_path / "patches")).read_bytes()
    cut(*words)
    band = next(safe.rglob("*B11_20m.jp2"))
    os.utime(band, (1, 1))
    with pytest.raises(UserError, match="has changed since chips were cut"):
        cut(*words)


def test_clouds_and_masks_of_a_product_are_found_by_themselves(tmp_path):
    make_safe(tmp_path, side=96, scl=some_scl())
    write_mask(tmp_path / "masks/burn_32TQM_20220205.tif")
    words = ("--images", "*.SAFE", "--masks", "masks", "--bands", "B04,B11")
    lines = cut(*words, "--max-cloud-cover", "0.5")
    assert len(lines) == 8 and lines[0]["event"] == "T32TQM" and lines[0]["source"]["sensor"] == "Sentinel-2 MSI"
    assert read_lines("patches/skipped.jsonl")[0]["reason"] == "clouds" and all(line["cloud_cover"] == 0 for line in lines)
    assert len(cut(*words, "--no-clouds", folder="all")) == 9
    kept = cut(*words, "--max-cloud-cover", "1", "--ignore-clouds", folder="ignored")
    assert kept[0]["cloud_cover"] == 0.75 and (np.load(f"ignored/{kept[0]['mask']}")[0, :24] == 255).all()
    with pytest.raises(UserError, match="--cloud-values and --cloud-bits are for --clouds"):
        cut(*words, "--cloud-values", "scl", folder="values")
    write_mask(tmp_path / "masks/T32TQM_2022-02-05.tif")
    with pytest.raises(UserError, match="has two masks by tile and date"):
        cut(*words, folder="twice")


def test_two_dates_of_a_tile_share_one_offset_and_one_split(tmp_path):
    make_safe(tmp_path, side=96)
    make_safe(tmp_path, side=96, name=OLD, baseline="02.14")
    write_mask(tmp_path / "masks/32TQM_20220205.tif")
    write_mask(tmp_path / "masks/32TQM_20210205.tif")
    words = ("--images", "*.SAFE", "--masks", "masks", "--bands", "B04,B11")
    lines = cut(*words)
    assert {line["event"] for line in lines} == {"T32TQM"} and read_json("patches/chipset.json")["offset"] == [-1000, -1000]
    first = {line["scene"][:3]: np.load(f"patches/{line['file']}") for line in reversed(lines)}
    assert (first["S2A"] == first["S2B"].astype(int) + 1000).all()  # the same pixels, of which one is without offset
    with pytest.raises(UserError, match="share ground"):
        cut(*words, "--val", "S2A", folder="leaking")
    with pytest.raises(UserError, match="at least 2 events apart, found 1"):
        cut(*words, "--val", "0.5", folder="share")


def test_products_that_are_half_downloaded_are_skipped_and_named(tmp_path, capsys):
    make_safe(tmp_path, side=96)
    bad, _ = make_safe(tmp_path, side=96, name=OLD, baseline="02.14")
    broken, _ = make_safe(tmp_path, side=96, name=OTHER)
    (broken / "MTD_MSIL2A.xml").write_text("<cut")
    for name in ("32TQM_20220205", "32TQM_20210205", OTHER):
        write_mask(tmp_path / f"masks/{name}.tif")
    band = next(bad.rglob("*B11_20m.jp2"))
    band.write_bytes(band.read_bytes()[:-40])
    words = ("--images", "*.SAFE", "--masks", "masks", "--bands", "B04,B11")
    assert {line["scene"][:3] for line in cut(*words)} == {"S2B"}
    said = "".join(capsys.readouterr())
    assert "B11_20m.jp2 is cut short" in said and "MTD_MSIL2A.xml is not whole" in said
    with pytest.raises(RunError, match="--strict"):
        cut(*words, "--strict", folder="strict")


def test_sensors_with_other_bands_or_factors_make_no_common_set(tmp_path):
    make_hls(tmp_path / "a", "S30", side=32)
    make_hls(tmp_path / "a", "L30", side=32)
    for name in ("HLS.S30.T32TQM.2022036T101211.v2.0", "HLS.L30.T32TQM.2022036T101211.v2.0"):
        write_mask(tmp_path / f"masks/{name}.tif", 32, 30)
    words = ("--images", "a/*", "--masks", "masks/*.tif")
    assert len(cut(*words, "--bands", "red,nir08,swir22")) == 2  # within the tolerance
    with pytest.raises(UserError, match="more than 25 nm apart"):
        cut(*words, "--bands", "B04,B05", folder="apart")  # red edge of the one, near infrared of the other
    with pytest.raises(UserError, match="has no band 'B8A'"):
        cut(*words, "--bands", "B04,B8A", folder="lacking")


# ------------------------------------------------------------------------------------------------ inspect


def test_inspect_says_what_a_product_holds_and_draws_it(tmp_path, capsys):
    safe, _ = make_safe(tmp_path / "a", side=96, scl=some_scl())
    os.remove(next(safe.rglob("*B09_60m.jp2")))
    chip.main(["inspect", str(safe)])
    said = capsys.readouterr().out
    for words in ("Sentinel-2 L2A, 2022-02-05, T32TQM, surface reflectance", "processing baseline 04.00", "B8A", "(value -1000) / 10000",
                  "B09_60m.jp2 is missing", "cloud 8.3 %", f"picture: {safe.stem}.png"):
        assert words in said
    assert (tmp_path / f"{safe.stem}.png").stat().st_size > 500
    item, _ = make_item(tmp_path / "b")
    chip.main(["inspect", str(item), "--no-pictures"])
    assert "STAC item of sentinel-2-l2a" in capsys.readouterr().out
    with pytest.raises(UserError, match="has no MTD"):
        (tmp_path / "x.SAFE").mkdir()
        chip.main(["inspect", "x.SAFE"])


# ------------------------------------------------------------------------------------------------ over https


class Ranges(http.server.BaseHTTPRequestHandler):
    """Serves a folder with byte ranges, and 403 for what has no signature where one is asked for. asked: [(path, first byte, bytes)]."""

    folder, signature, asked = None, "", []

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.answer(False)

    def do_GET(self):
        self.answer(True)

    def answer(self, body):
        name, _, query = self.path.partition("?")
        path = self.folder / name.lstrip("/")
        if self.signature and name.endswith(".tif") and query != self.signature:
            self.send_error(403)
            return
        if not path.is_file():
            self.send_error(404)
            return
        data, wanted = path.read_bytes(), self.headers.get("Range")
        first, last = 0, len(data) - 1
        if wanted:
            words = wanted.removeprefix("bytes=").split("-")
            first, last = int(words[0]), min(int(words[1] or last), last)
        if body:
            self.asked.append((name, first, last - first + 1))
        self.send_response(206 if wanted else 200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(last - first + 1))
        if wanted:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.end_headers()
        if body:
            self.wfile.write(data[first : last + 1])


@functools.cache
def certificate():
    """(certificate, key) in PEM of 127.0.0.1, signed by itself."""
    x509 = pytest.importorskip("cryptography.x509", reason="cryptography is not installed")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).sign(key, hashes.SHA256())
    )
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return signed.public_bytes(serialization.Encoding.PEM), private


@pytest.fixture
def server(tmp_path, monkeypatch):
    """An https server of tmp_path/served whose certificate is trusted; with `address`, `handler`."""
    for name, text in zip(("cert.pem", "key.pem"), certificate(), strict=True):
        (tmp_path / name).write_bytes(text)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    monkeypatch.setattr(source, "REMOTE_OPTIONS", {**source.REMOTE_OPTIONS, "GDAL_CURL_CA_BUNDLE": str(tmp_path / "cert.pem"),
                                                   "GDAL_HTTP_MAX_RETRY": 0})
    monkeypatch.setattr("raster.product_scene.REMOTE_OPTIONS", source.REMOTE_OPTIONS)
    monkeypatch.setattr(network, "allowed", dict(network.allowed))
    (tmp_path / "served").mkdir()
    handler = type("Handler", (Ranges,), {"folder": tmp_path / "served", "asked": []})
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        running.socket = context.wrap_socket(running.socket, server_side=True)
        running.daemon_threads, running.handler, running.address = True, handler, f"https://127.0.0.1:{running.server_port}"
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def test_an_item_on_a_server_has_the_map_of_the_local_one(model, server, tmp_path):
    item, _ = make_item(tmp_path / "served/items")
    words = ("--checkpoint", model, "--device", "cpu", "--probabilities")
    assert run(item, *words, "--output-dir", "local") == 0
    assert run(f"{server.address}/items/item.json", *words, "--output-dir", "remote") == 0
    for name in sorted(p.name for p in (tmp_path / "local").glob("S2B*")):
        one, other = ((tmp_path / folder / name).read_bytes() for folder in ("local", "remote"))
        assert one == other, name
    assert {name for name, _, _ in server.handler.asked} == {f"/items/{n}" for n in ("item.json", "red.tif", "nir08.tif", "swir22.tif",
                                                                                     "scl.tif")}


def test_a_saved_collection_leads_to_its_servers_where_that_is_allowed(model, server, tmp_path):
    make_item(tmp_path / "served", prefix=f"{server.address}/")
    item = read_json(tmp_path / "served/item.json")
    (tmp_path / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": [item]}))
    words = (tmp_path / "items.json", "--checkpoint", model, "--device", "cpu", "--output-dir", "maps")
    with pytest.raises(UserError, match=f"leads to {server.address}; pass --allow-network"):
        run(*words)
    assert not server.handler.asked
    assert run(*words, "--allow-network") == 0 and os.path.exists("maps/S2B_32TQM_20220205_0_L2A_classes.tif")


def test_an_expired_signature_is_one_line(model, server, tmp_path):
    make_item(tmp_path / "served", prefix=f"{server.address}/")
    item = read_json(tmp_path / "served/item.json")
    for asset in item["assets"].values():
        asset["href"] += "?sig=old"
    (tmp_path / "item.json").write_text(json.dumps(item))
    server.handler.signature = "sig=new"
    words = ("--checkpoint", model, "--device", "cpu", "--output-dir", "maps", "--allow-network")
    with pytest.raises(UserError, match=r"is refused \(403\); its signature has expired or is wrong: sign the items again") as caught:
        run(tmp_path / "item.json", *words)
    assert "sig=" not in str(caught.value)
    text = (tmp_path / "item.json").read_text().replace("sig=old", "sig=new")
    (tmp_path / "item.json").write_text(text.replace("red.tif", "gone.tif"))
    with pytest.raises(UserError, match="gone.tif can't be opened") as caught:
        run(tmp_path / "item.json", *words)
    assert "sig=" not in str(caught.value)
    (tmp_path / "item.json").write_text(text)
    assert run(tmp_path / "item.json", *words) == 0


def test_a_window_of_a_remote_product_costs_headers_and_its_own_blocks(server, tmp_path):
    pixels = numbers(512, 512, 0)
    write_raster(tmp_path / "served/red.tif", np.random.default_rng(0).integers(1, 5000, pixels.shape).astype(np.uint16), 10, nodata=0,
                 tiled=True, blockxsize=128, blockysize=128)
    make = read_json(make_item(tmp_path / "x")[0])
    make["assets"] = {"red": {**make["assets"]["red"], "href": f"{server.address}/red.tif"}}
    (tmp_path / "item.json").write_text(json.dumps(make))
    network.permit([], True)
    scene = list_scenes(["item.json"])[0]
    with open_raster(scene) as dataset:
        dataset.read(1, window=rasterio.windows.Window(130, 130, 100, 100))
    fetched = sum(size for _, _, size in server.handler.asked)
    assert len(server.handler.asked) <= 2 and fetched <= 2 * 32768 + 128 * 128 * 2 + 32768, server.handler.asked

