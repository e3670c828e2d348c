"""What GDAL may open of a stranger's file: no driver of texts, no byte of other files, no code, no server."""

import json
import socket
import threading

import numpy as np
import pyproj
import pytest
import rasterio
from rasterio.errors import RasterioError
from rasterio.windows import Window

import chip
from mapping.inputs import InputFlags, plan_input
from mapping.many_scenes import scenes_of_checkpoint
from mapping.reading import read_slabs
from raster.crs import NoTransform, as_crs
from raster.rules import NotAllowed, check_vrt
from raster.source import describe, open_raster
from raster.stack import stack_bands
from runtime import network
from runtime.errors import RunError, UserError
from runtime.logs import Console

SIMPLE = '<SimpleSource><SourceFilename relativeToVRT="1">{source}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>'


@pytest.fixture(autouse=True)
def no_permission(monkeypatch):
    before = dict(network.allowed)
    network.take_over({"everywhere": False, "servers": frozenset()})
    yield
    network.take_over(before)


@pytest.fixture
def server():
    """A port of this machine; `calls` are the connections to it, which get no answer."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.05)
        ended, calls = threading.Event(), []

        def answer():
            while not ended.is_set():
                try:
                    connection, _ = listening.accept()
                except TimeoutError:
                    continue
                calls.append(connection.recv(64))
                connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", calls
        ended.set()
        thread.join()


def vrt(path, content=SIMPLE, band="", dataset="", around="", source="good.tif"):
    path.write_text(
        f'<VRTDataset rasterXSize="64" rasterYSize="64" {dataset}>{around}<VRTRasterBand dataType="Byte" band="1" {band}>'
        f"{content.format(source=source)}</VRTRasterBand></VRTDataset>"
    )
    return path


@pytest.fixture
def good(make_raster):
    return make_raster("good.tif", np.arange(64 * 64).reshape(64, 64) % 251 + 1, dtype="uint8")


RAW = '<SourceFilename relativeToVRT="0">/etc/passwd</SourceFilename><{0}>0</{0}><PixelOffset>1</PixelOffset><LineOffset>8</LineOffset>'


@pytest.mark.parametrize(("words", "how"), [
    ("raw band", {"band": 'subClass="VRTRawRasterBand"', "content": RAW.format("ImageOffset")}),
    ("raw band", {"content": "<SUBCLASS>vrtrawRasterBand</SUBCLASS>" + RAW.format("ImageOffset")}),
    ("raw band", {"content": RAW.format("IMAGEOFFSET").replace("/etc/passwd", "good.tif").replace('"0"', '"1"')}),
    ("pixel function|derived", {"content": "<PixelFunctionType>f</PixelFunctionType>" + SIMPLE, "band": 'subClass="VRTDerivedRasterBand"'}),
    ("VRTProcessedDataset", {"dataset": 'subClass="VRTProcessedDataset"'}),
    ("options", {"content": SIMPLE.replace("<SourceBand>", '<OpenOptions><OOI key="ROOT_PATH">/</OOI></OpenOptions><SourceBand>')}),
    ("no raster", {"source": "/etc/passwd"}),
    ("source", {"source": "vrt:///etc/passwd"}),
    ("source", {"source": "/vsizip/a.zip/b.tif"}),
    ("source", {"content": SIMPLE.replace("{source}", "good<!-- -->.tif")}),
    ("hidden source", {"content": '<SimpleSource SourceFilename="/etc/passwd"><SourceBand>1</SourceBand></SimpleSource>'}),
    ("overviews elsewhere", {"around": '<Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">/etc/passwd</MDI></Metadata>'}),
    ("CRS", {"around": "<SRS>http://127.0.0.1:9/x</SRS>"}),
    ("CRS", {"around": "<SRS>/etc/passwd</SRS>"}),
])
def test_a_vrt_that_leaves_the_rules_is_refused_in_one_line(good, tmp_path, words, how):
    for name in ("a.vrt", "a.tif"):
        with pytest.raises(NotAllowed, match=words) as caught:
            describe(vrt(tmp_path / name, **how))
        assert "\n" not in str(caught.value)


def test_a_plain_vrt_and_a_vrt_of_it_are_read(good, tmp_path):
    vrt(tmp_path / "inner.vrt")
    outer = vrt(tmp_path / "outer.vrt", source="inner.vrt")
    with open_raster(outer) as dataset, open_raster(good) as same:
        assert (dataset.read() == same.read()).all()
    with pytest.raises(NotAllowed, match="raw band"):
        vrt(tmp_path / "inner.vrt", band='subClass="VRTRawRasterBand"', content=RAW.format("ImageOffset"))
        describe(outer)
    vrt(tmp_path / "self.vrt", source="self.vrt")
    with pytest.raises(NotAllowed, match="VRTs of VRTs"):
        describe(tmp_path / "self.vrt")


def test_a_jpeg_that_is_a_vrt_too_is_no_source(good, tmp_path):
    text = vrt(tmp_path / "raw.vrt", band='subClass="VRTRawRasterBand"', content=RAW.format("ImageOffset")).read_bytes()
    (tmp_path / "both.jpg").write_bytes(b"\xff\xd8\xff" + text)
    with pytest.raises(NotAllowed, match="no raster"):
        describe(vrt(tmp_path / "a.vrt", source="both.jpg"))


@pytest.mark.parametrize("suffix", [".msk", ".ovr"])
def test_a_text_beside_a_raster_is_not_its_mask_or_overview(good, tmp_path, suffix):
    vrt(tmp_path / f"good.tif{suffix}")
    with pytest.raises(NotAllowed, match=f"good.tif{suffix} is no GeoTIFF"):
        describe(good)


def test_a_raster_names_no_other_file_for_its_overviews(good):
    with rasterio.open(good, "r+") as dataset:
        dataset.update_tags(ns="OVERVIEWS", OVERVIEW_FILE="/etc/passwd")
    with pytest.raises(NotAllowed, match="names another file for its overviews"):
        describe(good)


def test_overviews_beside_a_raster_are_fine(good):
    with rasterio.Env(TIFF_USE_OVR="YES"), rasterio.open(good, "r+") as dataset:
        dataset.build_overviews([2])
    assert good.with_name("good.tif.ovr").exists() and describe(good).width == 64


@pytest.mark.parametrize("text", [
    "<GDAL_WMS><Service name='TMS'><ServerUrl>{0}/${{z}}</ServerUrl></Service>"
    "<DataWindow><SizeX>64</SizeX><SizeY>64</SizeY></DataWindow></GDAL_WMS>",
    "<WMS_Capabilities><Capability><Request><GetMap/></Request></Capability></WMS_Capabilities>{0}",
    '<GDAL_WMTS><GetCapabilitiesUrl>{0}/x</GetCapabilitiesUrl></GDAL_WMTS>',
    "<WCS_GDAL><ServiceURL>{0}/x</ServiceURL><CoverageName>x</CoverageName></WCS_GDAL>",
])
def test_no_text_named_tif_leads_to_a_server(tmp_path, server, text):
    address, calls = server
    (tmp_path / "a.tif").write_text(text.format(address))
    with pytest.raises(UserError, match="can't be opened"):
        describe(tmp_path / "a.tif")
    assert calls == []


def test_a_vrt_leads_to_no_server_unless_it_is_allowed(tmp_path, server):
    address, calls = server
    path = vrt(tmp_path / "a.tif", source=f"/vsicurl/{address}/x.tif")
    with pytest.raises(NotAllowed, match="leads to http://.* pass --allow-network"):
        describe(path)
    words = ["make-patches", "--images", str(path), "--masks", str(path), "--patches-dir", str(tmp_path / "p"), "--divide-by", "1"]
    with pytest.raises(NotAllowed, match="--allow-network"):
        chip.main(words)
    assert calls == []
    with pytest.raises((UserError, RunError)):
        chip.main([*words, "--allow-network"])
    assert calls  # the check sees a connection where there is one


def test_gdal_itself_asks_no_server_where_none_is_allowed(server):
    """Whatever leads there: here rasterio, without our door."""
    address, calls = server
    for name in (f"/vsicurl/{address}/x.tif", f"/vsicurl_streaming/{address}/x.tif", f"/vsizip//vsicurl/{address}/x.zip/x.tif"):
        with pytest.raises(RasterioError):
            rasterio.open(name)
    assert calls == []


def test_a_stack_of_addresses_needs_no_flag_for_the_server_on_the_command_line(good, tmp_path, monkeypatch):
    asked = []
    read = rasterio.DatasetReader
    monkeypatch.setattr(rasterio, "DatasetReader", lambda name, **how: asked.append(name) or read(good))
    path = vrt(tmp_path / "a.vrt", source="/vsis3/bucket/x.tif")
    network.permit([None, 3, ["s3://bucket/*.tif"]], everywhere=False)
    check_vrt(path)
    assert asked == ["/vsis3/bucket/x.tif"]
    with pytest.raises(NotAllowed, match="leads to s3://other/x.tif"):
        check_vrt(vrt(tmp_path / "a.vrt", source="/vsis3/other/x.tif"))


def test_a_stack_of_local_files_is_read(make_raster, tmp_path):
    for band, value in (("B02", 7), ("B03", 9)):
        make_raster(f"s/T1_{band}.tif", np.full((32, 32), value, "uint8"))
    stacks, _ = stack_bands(sorted(map(str, (tmp_path / "s").glob("*.tif"))), ["B02", "B03"], tmp_path / "out")
    with open_raster(stacks["T1"]) as dataset:
        assert dataset.read().mean(axis=(1, 2)).tolist() == [7, 9]


@pytest.fixture
def cut_off(tmp_path):
    """A JPEG whose end is missing: GDAL's second read of it gives grey, and no error."""
    path = tmp_path / "a.jpg"
    noise = np.random.default_rng(0).integers(1, 255, (1, 256, 256)).astype("uint8")
    with rasterio.open(path, "w", driver="JPEG", width=256, height=256, count=1, dtype="uint8") as dataset:
        dataset.write(noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


@pytest.mark.parametrize("size", [
    "", '<SourceProperties RasterXSize="256" RasterYSize="256" DataType="Byte" BlockXSize="256" BlockYSize="1"/>',
])
def test_a_block_that_failed_stays_failed_behind_a_vrt(cut_off, tmp_path, size):
    content = SIMPLE.replace("</SimpleSource>", size + '<SrcRect xOff="0" yOff="0" xSize="256" ySize="256"/>'
                             '<DstRect xOff="0" yOff="0" xSize="256" ySize="256"/></SimpleSource>')
    path = vrt(tmp_path / "a.vrt", source="a.jpg", content=content)
    path.write_text(path.read_text().replace('"64"', '"256"', 2))
    with open_raster(path) as dataset:
        for window in (Window(0, 0, 256, 256), Window(0, 192, 64, 64), Window(0, 0, 256, 256), Window(0, 192, 64, 64)):
            with pytest.raises(RasterioError):
                dataset.read(1, window=window)
            assert dataset.read(1, window=Window(0, 0, 64, 64)).any()


def test_a_block_that_failed_stays_failed(cut_off):
    whole, low, high = Window(0, 0, 256, 256), Window(0, 192, 64, 64), Window(0, 0, 64, 64)
    with rasterio.open(cut_off) as dataset:
        with pytest.raises(RasterioError):
            dataset.read(1, window=whole)
        dataset.read(1, window=low)  # what GDAL does, and what must not happen below
    with open_raster(cut_off) as dataset:
        for window in (whole, low, whole, low):
            with pytest.raises(RasterioError):
                dataset.read(1, window=window)
            assert dataset.read(1, window=high).any()


def test_a_map_holds_no_block_that_failed(cut_off):
    plan = plan_input(describe(cut_off), {
        "bands": ["B04"], "divide_by": [1.0], "offset": [0.0], "nodata": None, "classes": ["a", "b"], "chip_size": 32,
        "ground_resolution": None, "layer": "mask", "threshold": None, "patches_dir": "",
    }, [0.1], InputFlags.of_text(1, ["1"], "1", None, None, accept_scale=True))
    slabs = list(read_slabs(plan))
    valid = np.concatenate([slab.valid for slab in slabs])
    lost = [block for slab in slabs for block in slab.unreadable]
    assert valid[:64].all() and not valid[192:].any() and len(lost) == (~valid.all(axis=1)).sum()


@pytest.mark.parametrize("name", ["http://127.0.0.1:9/x", "/a", "+init=/etc/passwd:1", "+proj=longlat +nadgrids=/a", "x.prj"])
def test_a_crs_is_a_code_an_urn_or_wkt(name):
    with pytest.raises(NoTransform, match="is not known; expected an EPSG code or WKT"):
        as_crs(name)


def test_codes_urns_and_wkt_are_a_crs():
    for text in ("EPSG:32633", "urn:ogc:def:crs:EPSG::32633", pyproj.CRS("EPSG:32633").to_wkt()):
        assert as_crs(text).to_epsg() == 32633


def test_a_patch_set_sends_nobody_to_a_server(tmp_path):
    (tmp_path / "manifest.jsonl").write_text(json.dumps({"split": "test", "source": {"path": "https://example.org/a.tif"}}) + "\n")
    data = {"patches_dir": str(tmp_path)}
    with pytest.raises(UserError, match="leads to https://example.org/a.tif; pass --allow-network"):
        scenes_of_checkpoint(data, Console(quiet=True))
    network.permit([], everywhere=True)
    assert scenes_of_checkpoint(data, Console(quiet=True)) == ["https://example.org/a.tif"]
