"""Scenes on s3:// and http://, and servers that fail: pytest tests/test_remote.py"""

import functools
import http.server
import os
import threading
import time

import numpy as np
import pytest
import rasterio
from map_factory import BANDS, numbers, run

from mapping.many_scenes import MapRun
from raster import source
from raster.source import describe, list_rasters, open_raster
from runtime.errors import RunError, UserError

CHIP = numbers(300, 200)


@pytest.fixture
def scene(make_raster):
    return make_raster("served/scene.tif", CHIP, descriptions=BANDS, tiled=True, blockxsize=64, blockysize=64, compress="deflate")


class Ranges(http.server.BaseHTTPRequestHandler):
    """Serves one folder with byte ranges, as object stores do. stalled: an Event; while it is set, requests for pixels get no answer."""

    folder, stalled, unanswered = None, None, 0

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        path = self.folder / self.path.split("?")[0].lstrip("/")
        if not path.is_file():
            self.send_error(404)
            return
        data, asked = path.read_bytes(), self.headers.get("Range")
        first, last = 0, len(data) - 1
        if asked:
            words = asked.removeprefix("bytes=").split("-")
            first, last = int(words[0]), min(int(words[1] or last), last)
        if self.stalled.is_set() and first > 0:
            type(self).unanswered += 1
            while self.stalled.is_set():
                time.sleep(0.02)
            return
        self.send_response(206 if asked else 200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(last - first + 1))
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.end_headers()
        if body:
            self.wfile.write(data[first : last + 1])


@pytest.fixture
def server(scene):
    handler = type("Handler", (Ranges,), {"folder": scene.parent, "stalled": threading.Event()})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        running.daemon_threads = True
        threading.Thread(target=running.serve_forever, daemon=True).start()
        running.handler, running.address = handler, f"http://127.0.0.1:{running.server_port}"
        yield running
        running.shutdown()


@pytest.fixture
def impatient(monkeypatch):
    """Give up on a server after a second, once."""
    quick = {"GDAL_HTTP_CONNECTTIMEOUT": 1, "GDAL_HTTP_LOW_SPEED_TIME": 1, "GDAL_HTTP_MAX_RETRY": 0, "GDAL_HTTP_TIMEOUT": 2}
    monkeypatch.setattr(source, "REMOTE_OPTIONS", {**source.REMOTE_OPTIONS, **quick})


@pytest.fixture
def bucket(scene, monkeypatch):
    """An S3 service on this machine with the scene in it, twice; the address of its folder."""
    server_module = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    import boto3

    service = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    service.start()
    host, port = service.get_host_and_port()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1", "AWS_HTTPS": "NO",
        "AWS_S3_ENDPOINT": f"{host}:{port}", "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_VIRTUAL_HOSTING": "FALSE",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    source.has_credentials.cache_clear()
    client = boto3.client("s3")
    name = f"imagery-{os.getpid()}-{port}"
    client.create_bucket(Bucket=name)
    for key in ("run/a.tif", "run/b.tif", "run/deeper/c.tif", "run/notes.txt"):
        client.upload_file(str(scene), name, key)
    yield f"s3://{name}"
    service.stop()
    source.has_credentials.cache_clear()


def read(path):
    with rasterio.open(path) as dataset:
        return dataset.read(1)


def test_a_scene_on_a_web_server_has_the_map_of_the_local_file(checkpoint, scene, server, tmp_path):
    run(scene, "--checkpoint", checkpoint, "--output-dir", tmp_path / "local", "--device", "cpu")
    assert run(f"{server.address}/scene.tif", "--checkpoint", checkpoint, "--output-dir", tmp_path / "remote", "--device", "cpu") == 0
    for name in ("scene_classes.tif", "scene_burned.geojson", "scene_preview.png"):
        assert (tmp_path / "local" / name).read_bytes() == (tmp_path / "remote" / name).read_bytes()


def test_an_address_without_a_file_is_one_line(checkpoint, server, tmp_path):
    with pytest.raises(UserError, match=r"none.tif can't be opened as a raster .*404"):
        run(f"{server.address}/none.tif", "--checkpoint", checkpoint, "--output-dir", tmp_path / "maps", "--device", "cpu")


def test_a_server_that_sends_no_parts_of_files_is_one_line_with_advice(make_raster):
    """As python -m http.server is one; GDAL then reads files whose header lies in the first bytes, and no others."""
    path = make_raster("plain/scene.tif", numbers(600, 600), tags={"NOTE": "x" * 5000})
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=path.parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        with pytest.raises(UserError, match="download it first"):
            describe(f"http://127.0.0.1:{running.server_port}/scene.tif")
        running.shutdown()


def test_nobody_at_an_address_is_one_line(checkpoint, impatient, tmp_path):
    with pytest.raises(UserError, match="can't be opened"):
        run("http://127.0.0.1:9/scene.tif", "--checkpoint", checkpoint, "--output-dir", tmp_path / "maps", "--device", "cpu")


@pytest.mark.slow
def test_a_server_that_stalls_is_given_up_and_the_map_goes_on_later(checkpoint, scene, server, impatient, tmp_path, monkeypatch):
    header = MapRun.plan_of_header

    def header_then_stall(self, path):
        plan = header(self, path)
        server.handler.stalled.set()
        return plan

    address = f"{server.address}/scene.tif?try=1"  # another address than in other tests: GDAL remembers what it has read
    with monkeypatch.context() as patch:
        patch.setattr(MapRun, "plan_of_header", header_then_stall)
        with pytest.raises((RunError, UserError), match="stopped answering|can't be opened"):
            run(address, "--checkpoint", checkpoint, "--output-dir", tmp_path / "maps", "--device", "cpu")
    assert 1 <= server.handler.unanswered < 20  # not asked for each of the 20 blocks
    assert not (tmp_path / "maps" / "scene_classes.tif").exists()
    server.handler.stalled.clear()
    assert run(address, "--checkpoint", checkpoint, "--output-dir", tmp_path / "maps", "--device", "cpu") == 0
    assert (tmp_path / "maps" / "scene_classes.tif").exists()


def test_headers_and_windows_are_read_from_a_bucket(bucket):
    info = describe(f"{bucket}/run/a.tif")
    assert (info.height, info.width, info.descriptions) == (300, 200, tuple(BANDS))
    with open_raster(f"{bucket}/run/a.tif") as dataset:
        assert np.array_equal(dataset.read(), CHIP)


def test_a_bucket_is_listed_by_prefix_and_by_glob(bucket):
    assert list_rasters(f"{bucket}/run/*.tif") == [f"{bucket}/run/a.tif", f"{bucket}/run/b.tif"]
    assert len(list_rasters(f"{bucket}/run")) == len(list_rasters(f"{bucket}/run/**/*.tif")) == 3
    with pytest.raises(UserError, match="matches no raster"):
        list_rasters(f"{bucket}/other/*.tif")
    with pytest.raises(UserError, match="can't be listed"):
        list_rasters("s3://no-such-bucket-anywhere/x/*.tif")


def test_scenes_of_a_bucket_are_mapped(checkpoint, scene, bucket, tmp_path):
    run(scene, "--checkpoint", checkpoint, "--output-dir", tmp_path / "local", "--device", "cpu")
    assert run(f"{bucket}/run/*.tif", "--checkpoint", checkpoint, "--output-dir", tmp_path / "maps", "--device", "cpu") == 0
    assert np.array_equal(read(tmp_path / "maps" / "b_classes.tif"), read(tmp_path / "local" / "scene_classes.tif"))


def test_a_key_that_is_not_there_is_one_line(checkpoint, bucket, tmp_path):
    with pytest.raises(UserError, match="can't be opened"):
        run(f"{bucket}/run/none.tif", "--checkpoint", checkpoint, "--output-dir", tmp_path / "maps", "--device", "cpu")
