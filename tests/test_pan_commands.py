"""The pansharpening road by its commands: an ARD, chips, links, training, a sharpened raster; what each refuses, with exit codes."""

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio

import chip
import inference
import train_pansharpen
from benchmarks.fake_ard import make_fake_ard
from raster import source
from runtime.errors import RunError, UserError, explain

ROOT = Path(chip.__file__).parent
SMALL = ["--chip-size", "16"]


@pytest.fixture(scope="module")
def delivery(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ards") / "italy23"
    make_fake_ard(folder, tiles=3, ms_side=64, null_share=0.4, blocksize=64)
    return folder


def run(*words):
    return chip.main([str(w) for w in words]) or 0


def bytes_of(folder):
    return {p.name: p.read_bytes() for p in folder.glob("*.pt")}


def test_the_whole_road_by_its_commands(delivery, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(delivery, "ards/italy23")
    run("make-chips", "--ard-dir", "ards/italy23", "--chip-dir", "chips/italy23", "--log", "italy23.log", "-n", 6, *SMALL)
    run("make-chips", "--ard-dir", "ards/italy23", "--chip-dir", "chips/italy23", "--starting-from", 6, "-n", 2, *SMALL)
    run("--log", "more.log", "make-chips", "-a", "ards/italy23", "-c", "chips/test", "-n", 2, "-s", 8, *SMALL)
    run("inspect", "ards/italy23")
    (tmp_path / "good-cids.txt").write_text("1040010000000001\n")
    run("make-chips", "--ard-dir", "ards/italy23", "--chip-dir", "chips/best", "--allow-list", "good-cids.txt", "-n", 2, *SMALL)
    for alias in ("-y", "--allow-cids", "--accept-cids"):
        run("make-chips", "--ard-dir", "ards/italy23", "--chip-dir", "chips/best", alias, "good-cids.txt", "-n", 2, *SMALL)
    run("fake-chips", "-o", "chips/fake", "-c", 4, "-s", 16)
    run("link-chips", "chips/italy23", "chips/fake", "chips/mixed")
    run("inspect", "chips/mixed")
    train_pansharpen.main(["--session", "demo", "--chips", "chips/mixed", "--test-chips", "chips/test", "--epoch-length", "12",
                           "--epochs", "1", "--lr", "1e-4", "--width", "16", "--workers", "0", "--quiet"])
    tile = sorted(Path("ards/italy23").glob("37/*/*/*-pan.tif"))[0]
    words = ["--checkpoint", "sessions/latest.pt", "--pan", str(tile), "--ms", str(tile).replace("-pan", "-ms"), "--output-dir", "maps"]
    words += ["--divide-by", "10000"]
    assert inference.main([*words, "--quiet", "--device", "cpu"]) == 0
    with rasterio.open(next(Path("maps").glob("*_sharpened.tif"))) as sharpened, rasterio.open(tile) as pan:
        assert sharpened.count == 8 and sharpened.transform == pan.transform and sharpened.shape == pan.shape
    said = capsys.readouterr().out
    assert "1040010000000000" in said and "worldview-03" in said and "12 links in chips/mixed" in said
    assert (tmp_path / "chips" / "mixed" / "contact_sheet.png").stat().st_size > 1000
    assert "7.pt" not in Path("italy23.log").read_text() and "5.pt from 37/" in Path("italy23.log").read_text()
    assert "9.pt" in Path("more.log").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "either --ard-dir, or --pan and --ms"),
        (["-a", "ARD", "--pan", "x.tif", "--ms", "y.tif"], "either --ard-dir"),
        (["-a", "nowhere"], "acquisition_collections"),
        (["-a", "ARD", "-y", "EMPTY"], "is empty"),
        (["-a", "ARD", "-y", "OTHER"], "none of the allow-list's CIDs"),
        (["-a", "ARD", "--chip-size", "512"], "no tile that can be used"),
        (["-a", "ARD", "--area", "0,0,9,9"], "--area, --bands and --shift are for"),
        (["--pan", "x.tif"], "belong together"),
        (["--pan", "nothing.tif", "--ms", "nothing.tif"], "matches no raster"),
        (["-a", "ARD", "--chip-size", "18"], "multiple of the ratio"),
        (["-a", "ARD", "--divide-by", "0"], "--divide-by expects numbers above 0"),
        (["-a", "ARD", "--divide-by", "abc"], "--divide-by expects numbers"),
        (["-a", "ARD", "--divide-by", "1,2"], "2 numbers for 1 bands"),
        (["-a", "ARD", "--offset", "nan"], "--offset expects finite"),
    ],
)
def test_wrong_usage_and_input_is_one_line(delivery, tmp_path, words, message):
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "other.txt").write_text("10300100FFFFFFFF\n")
    names = {"ARD": str(delivery), "EMPTY": str(tmp_path / "empty.txt"), "OTHER": str(tmp_path / "other.txt")}
    size = [] if "--chip-size" in words else SMALL
    with pytest.raises(UserError, match=message):
        run("make-chips", "-c", tmp_path / "chips", "-n", 2, *size, *(names.get(w, w) for w in words))


def test_strict_makes_a_bad_tile_fatal(delivery, tmp_path):
    shutil.copytree(delivery, tmp_path / "ard")
    sorted((tmp_path / "ard").glob("37/*/*/*-ms.tif"))[0].unlink()
    run("make-chips", "-a", tmp_path / "ard", "-c", tmp_path / "chips", "-n", 2, *SMALL)
    with pytest.raises(RunError, match="1 tile cannot be used.*does not exist"):
        run("make-chips", "-a", tmp_path / "ard", "-c", tmp_path / "other", "-n", 2, "--strict", *SMALL)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["make-chips", "-n", "0", "-a", "x"], 2, "at least 1"),
        (["make-chips", "-m", "1.5", "-a", "x"], 2, "from 0 to 1"),
        (["make-chips", "--minimum-vald", "1"], 2, "--minimum-valid"),
        (["make-chips", "-a", "x", "--shift", "1"], 2, "2 numbers such as 0.5,0.5"),
        (["make-chips", "-a", "x", "--shift", "nan,0"], 2, "2 numbers such as 0.5,0.5"),
        (["get-reflectance", "--pan", "x", "--ms", "y", "-o", "/proc/nowhere/x.csv"], 2, "cannot write to /proc/nowhere"),
        (["link-chips", "a"], 2, "at least one source"),
        (["fake-chips", "-i", "missing.csv", "-o", "OUT"], 2, "cannot be read"),
        (["make-chips", "-a", "ARD", "-c", "OUT", "-n", "5", "-m", "1", "--chip-size", "32", "-y", "NULL"], 1, "made 0 of 5"),
    ],
)
def test_exit_codes_and_one_line(tmp_path, words, code, message):
    if "ARD" in words:
        make_fake_ard(tmp_path / "ard", tiles=1, ms_side=64, null_share=0.5, blocksize=64)
        (tmp_path / "null.txt").write_text("1040010000000000\n")
    names = {"OUT": tmp_path / "out", "ARD": tmp_path / "ard", "NULL": tmp_path / "null.txt"}
    with pytest.raises((UserError, RunError)) as ending:
        run(*(names.get(w, w) for w in words))
    found, line = explain(ending.value)
    assert found == code and message in line and len(line.splitlines()) == 1, line


def test_what_masks_hide_is_nodata_in_the_sharpened_raster_and_alpha_no_band_of_it(make_raster, tmp_path):
    rng = np.random.default_rng(0)
    pan, ms = rng.integers(100, 200, (1, 128, 128)).astype(np.uint8), rng.integers(100, 200, (4, 32, 32)).astype(np.uint8)
    ms[3] = 255
    ms[3, 20:24, 8:12] = 0
    shown = np.full((128, 128), 255, np.uint8)
    shown[40:44, 60:72] = 0
    make_raster("a-ms.tif", ms, crs=None, photometric="RGB", alpha="YES")
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(make_raster("a-pan.tif", pan, crs=None), "r+") as file:
        file.write_mask(shown)
    words = ["--method", "gsa", "--pan", tmp_path / "a-pan.tif", "--ms", tmp_path / "a-ms.tif", "--output-dir", tmp_path / "maps"]
    assert inference.main([*map(str, words), "--quiet"]) == 0
    with rasterio.open(tmp_path / "maps" / "a_sharpened.tif") as file:
        null = (file.read() == file.nodata).all(0)
    expected = shown == 0
    expected[80:96, 32:48] = True
    assert file.count == 3 and (null == expected).all()


def test_inspect_says_which_chips_do_not_go_together(tmp_path, capsys):
    for name, side in (("a", 16), ("b", 32)):
        run("fake-chips", "-o", tmp_path / name, "-c", 2, "-s", side)
    (tmp_path / "both").mkdir()
    for number, source_path in enumerate([*sorted((tmp_path / "a").glob("*.pt")), tmp_path / "b" / "0.pt"]):
        shutil.copy(source_path, tmp_path / "both" / f"{number}.pt")
    capsys.readouterr()
    run("inspect", tmp_path / "both")
    assert "2 of pan 16, ms 4 pixels, 8 bands; 1 of pan 32, ms 8 pixels, 8 bands" in capsys.readouterr().out
    assert (tmp_path / "both" / "contact_sheet.png").exists()


@pytest.mark.slow
@pytest.mark.parametrize("words", [
    ["fake-chips", "-o", "OUT", "-c", 3, "-s", 64], ["make-chips", "-a", "ARD", "-c", "OUT", "-n", 3, *SMALL],
])
def test_a_limit_that_a_chip_does_not_fit_in_is_one_line_that_names_it_and_the_next_run_ends_as_ever(delivery, tmp_path, words):
    def command(out):
        named = [{"OUT": tmp_path / out, "ARD": delivery}.get(w, w) for w in words]
        return [sys.executable, str(ROOT / "chip.py"), *map(str, named)]

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))

    done = subprocess.run(command("tight"), capture_output=True, text=True, cwd=ROOT, preexec_fn=limit)
    (line,) = done.stderr.strip().splitlines()
    assert done.returncode == 1 and "ulimit" in line and ".pt" in line and "run the same command again" in line, line
    assert not list((tmp_path / "tight").rglob("*.pt"))
    for out in ("tight", "wide"):
        assert subprocess.run(command(out), capture_output=True, cwd=ROOT).returncode == 0
    assert len(bytes_of(tmp_path / "wide")) == 3 and bytes_of(tmp_path / "tight") == bytes_of(tmp_path / "wide")


@pytest.mark.slow
def test_eight_workers_and_files_in_another_order_on_the_disk_give_the_same_bytes(delivery, tmp_path):
    for path in sorted((p for p in delivery.rglob("*") if p.is_file()), reverse=True):
        place = tmp_path / "turned" / path.relative_to(delivery)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, place)
    run("make-chips", "-a", delivery, "-c", tmp_path / "one", "-n", 12, *SMALL)
    words = ["make-chips", "-a", tmp_path / "turned", "-c", tmp_path / "eight", "-n", 12, "--workers", 8, *SMALL]
    done = subprocess.run([sys.executable, ROOT / "chip.py", *map(str, words)], capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stderr
    assert len(bytes_of(tmp_path / "one")) == 12 and bytes_of(tmp_path / "eight") == bytes_of(tmp_path / "one")


@pytest.mark.slow
def test_two_workers_started_early_make_the_same_chips_and_no_process_stays(delivery, tmp_path):
    run("make-chips", "-a", delivery, "-c", tmp_path / "one", "-n", 3, *SMALL)
    words = ["make-chips", "-a", delivery, "-c", tmp_path / "two", "-n", 3, "--workers", 2, *SMALL]
    done = subprocess.run([sys.executable, ROOT / "chip.py", *map(str, words)], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 0, done.stderr  # output that is captured ends only when the last process has
    assert bytes_of(tmp_path / "two") == bytes_of(tmp_path / "one")


def test_under_torchrun_one_process_does_the_work(delivery, tmp_path, monkeypatch):
    run("make-chips", "-a", delivery, "-c", tmp_path / "one", "-n", 3, *SMALL)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    run("make-chips", "-a", delivery, "-c", tmp_path / "two", "-n", 3, *SMALL)
    assert not (tmp_path / "two").exists()


def test_reflectance_lines_go_to_the_screen_or_are_added_to_a_file(delivery, tmp_path, capsys):
    tile = sorted(delivery.glob("37/*/*/*-pan.tif"))[0]
    words = ["get-reflectance", "--pan", tile, "--ms", str(tile).replace("-pan", "-ms"), "--divide-by", "10000", "-n", "4"]
    run(*words)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.count(",") >= 9]
    assert len(lines) == 4
    for _ in range(2):
        run(*words, "-o", tmp_path / "r.csv")
    assert len((tmp_path / "r.csv").read_text().splitlines()) == 8
    run("fake-chips", "-i", tmp_path / "r.csv", "-o", tmp_path / "fake", "-c", 1, "-s", 16)


def test_a_delivery_in_a_bucket_makes_the_same_chips(delivery, tmp_path, monkeypatch):
    server_module = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    import boto3

    service = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    service.start()
    try:
        host, port = service.get_host_and_port()
        for name, value in {
            "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1", "AWS_HTTPS": "NO",
            "AWS_S3_ENDPOINT": f"{host}:{port}", "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_VIRTUAL_HOSTING": "FALSE",
            "AWS_EC2_METADATA_DISABLED": "true",
        }.items():
            monkeypatch.setenv(name, value)
        source.has_credentials.cache_clear()
        bucket = f"ards-{os.getpid()}-{port}"
        client = boto3.client("s3")
        client.create_bucket(Bucket=bucket)
        for path in delivery.rglob("*.*"):
            client.upload_file(str(path), bucket, f"events/x/ard/{path.relative_to(delivery)}")
        run("make-chips", "-a", delivery, "-c", tmp_path / "local", "-n", 4, *SMALL)
        run("make-chips", "-a", f"s3://{bucket}/events/x/ard/", "-c", tmp_path / "remote", "-n", 4, *SMALL)
        assert bytes_of(tmp_path / "remote") == bytes_of(tmp_path / "local")
    finally:
        service.stop()
        source.has_credentials.cache_clear()
