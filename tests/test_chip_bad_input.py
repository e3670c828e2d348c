"""Bad input to chip.py: one line that names the file and says what to do, the right exit code, and nothing half-made."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rasterio.transform import from_origin

import chip
from chipping.chipset import ChipSetWriter, read_manifest
from runtime.errors import explain

ROOT = Path(__file__).resolve().parent.parent
IMAGE = (np.arange(2 * 64).reshape(2, 8, 8) + 100).astype(np.uint16)
MASK = np.eye(8, dtype=np.uint8)


@pytest.fixture
def say(tmp_path, monkeypatch, capsys):
    """say("--flag", …) runs make-patches in tmp_path on images/ and masks/ → (exit code, its line)."""
    monkeypatch.chdir(tmp_path)

    def run(*words, images="images", masks="masks", divide_by=("--divide-by", "1000")):
        try:
            code = chip.main(["make-patches", "--images", images, "--masks", masks, *divide_by, "--patch-size", "8", *words])
        except (Exception, KeyboardInterrupt) as error:
            code, line = explain(error)
            assert "unexpectedly" not in line and len(line.splitlines()) == 1, line
            return code, line
        return code or 0, capsys.readouterr().out.strip()

    return run


@pytest.fixture
def good(make_raster):
    """Two scenes side by side that are as they should be."""
    for i, name in enumerate(("a_1", "b_1")):
        where = from_origin(500_000 + 1000 * i, 4_600_000, 10, 10)
        make_raster(f"images/{name}.tif", IMAGE, transform=where)
        make_raster(f"masks/{name}.tif", MASK, transform=where)


# (what is done to the good scenes, words on the command line, what the line says); all are exit code 2
CASES = {
    "missing folder": (None, dict(images="nowhere"), (), "nowhere matches no raster"),
    "pattern that matches nothing": (None, dict(images="images/*.jp2"), (), "matches no raster"),
    "image without mask": (lambda make: Path("masks/b_1.tif").unlink(), {}, (), "images/b_1.tif has no mask"),
    "mask without image": (lambda make: Path("images/b_1.tif").unlink(), {}, (), "masks/b_1.tif has no image"),
    "two images of one name": (lambda make: make("more/a_1.tif", IMAGE), dict(images="*/a_1.tif"), (), "share the name 'a_1'"),
    "mask of another size": (lambda make: make("masks/a_1.tif", MASK[:7]), {}, (), "a_1.tif is 8×7, its image 8×8 pixels; pass --align"),
    "mask in another CRS": (lambda make: make("masks/a_1.tif", MASK, crs="EPSG:32634"), {}, (), "EPSG:32634, its image in EPSG:32633"),
    "mask elsewhere": (lambda make: make("masks/a_1.tif", MASK, transform=from_origin(0, 0, 10, 10)), {}, (), "lies elsewhere"),
    "mask with a value that is no class": (lambda make: make("masks/a_1.tif", MASK * 7), {}, (), "masks/a_1.tif holds the value 7"),
    "mask with a negative value": (lambda make: make("masks/a_1.tif", -MASK.astype("int16")), {}, (), "--label-map=-1=ignore"),
    "mask with fractions": (lambda make: make("masks/a_1.tif", MASK / 2), {}, (), "must be whole numbers"),
    "mask with two bands": (lambda make: make("masks/a_1.tif", np.stack([MASK, MASK])), {}, (), "has 2 bands; expected one"),
    "more bands in one scene": (lambda make: make("images/b_1.tif", np.zeros((3, 8, 8), "uint8")), {}, (), "3 bands, images/a_1.tif has 2"),
    "other bands in one scene": (
        lambda make: (make("images/a_1.tif", IMAGE, descriptions=("B2", "B3")), make("images/b_1.tif", IMAGE, descriptions=("B2", "B4"))),
        {}, (), "has band 'B4' where images/a_1.tif has 'B3'"),
    "a band that is not there": (None, {}, ("--bands", "1,3"), "has bands 1..2"),
    "a band name that is not there": (
        lambda make: [make(f"images/{n}.tif", IMAGE, descriptions=("B08", "B12")) for n in ("a_1", "b_1")],
        {}, ("--bands", "B13"), "Did you mean 'B12'"),
    "a band twice": (None, {}, ("--bands", "1,1"), "names a band twice"),
    "complex numbers": (lambda make: make("images/a_1.tif", IMAGE.astype("complex64")), {}, (), "has the type complex64"),
    "nodata outside the type": (None, {}, ("--nodata", "-1"), "--nodata is -1, which uint16 can't hold"),
    "nodata that is no number": (None, {}, ("--nodata", "white"), "--nodata expects a number or none"),
    "ambiguous scale": (None, dict(divide_by=()), (), "is not known; pass --divide-by"),
    "scales that differ": (
        lambda make: (make("images/a_1.tif", IMAGE, scales=(1e-4, 1e-4)), make("images/b_1.tif", IMAGE, scales=(1e-3, 1e-3))),
        dict(divide_by=()), (), "make one patch set for each"),
    "too many divisors": (None, {}, ("--divide-by", "1,2,3"), "--divide-by has 3 numbers for 2 bands"),
    "stride beyond the size": (None, {}, ("--stride", "9"), "--stride 9 is larger than --patch-size 8"),
    "patch size of nothing": (None, {}, ("--patch-size", "0"), "expected a whole number of at least 1"),
    "a share of two": (None, {}, ("--min-valid", "2"), "expected a number from 0 to 1"),
    "a scene that is not there": (None, {}, ("--val", "c_1"), "--val 'c_1' matches no scene"),
    "shares that leave nothing": (None, {}, ("--val", "0.6", "--test", "0.4"), "leave nothing for training"),
    "everything held out": (None, {}, ("--val", "a", "--test", "b"), "no scene is left for training"),
    "everything excluded": (None, {}, ("--exclude", "a,b"), "leaves no scene"),
    "a class too many in the map": (None, {}, ("--label-map", "1=2"), "there are classes 0..1"),
    "one class": (None, {}, ("--classes", "fire"), "at least two different names"),
    "clouds to ignore without cloud masks": (None, {}, ("--ignore-clouds",), "needs cloud masks"),
    "an area that is not there": (None, {}, ("--aoi", "no.geojson"), "no.geojson does not exist"),
    "masks and polygons at once": (None, {}, ("--labels", "x.geojson"), "one of the two"),
    "a property of masks": (None, {}, ("--class-field", "x"), "is a property of --labels"),
    "a suffix that files lack": (None, {}, ("--mask-suffix", "_label"), "does not end in '_label'"),
    "bands of a stack that no name has": (None, {}, ("--stack", "B02,B03"), "no file name has one of"),
    "a folder that is no patch set": (
        lambda make: Path("patches").mkdir() or Path("patches/mine.txt").touch(), {}, (), "is not empty and not a chip set"),
    "a file where the folder should be": (lambda make: Path("patches").touch(), {}, (), "cannot write to patches"),
    "a log that can't be written": (None, {}, ("--log", "no/such/folder.log"), "--log no/such/folder.log cannot be written"),
    "a misspelt flag": (None, {}, ("--patchsize", "8"), "Did you mean '--patch-size'"),
}


@pytest.mark.parametrize("case", CASES, ids=lambda name: name.replace(" ", "-"))
def test_one_line_and_exit_code_2(good, say, make_raster, case):
    spoil, where, words, expected = CASES[case]
    if spoil:
        spoil(make_raster)
    code, line = say(*words, **where)
    assert code == 2 and expected in line, line
    assert not list(Path().glob("patches/**/*.npy"))


def test_the_program_itself_prints_one_line_and_leaves_with_2(good, tmp_path):
    command = [sys.executable, str(ROOT / "chip.py"), "make-patches", "--images", "images", "--masks", "nowhere", "--divide-by", "1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.strip() == "chip.py: error: nowhere matches no raster; expected .tif, .tiff, .vrt, .jp2, .img files"


def test_an_empty_folder_is_an_error(say, tmp_path):
    (tmp_path / "images").mkdir()
    assert say()[0] == 2


def test_only_nodata_is_bad_input_and_the_line_says_why(say, make_raster):
    make_raster("images/a.tif", np.zeros((2, 8, 20), np.uint16), nodata=0)
    make_raster("masks/a.tif", np.ones((8, 20), np.uint8))
    code, line = say()
    assert code == 2 and "no patch could be cut" in line and "3 no valid pixel; all pixels count as nodata" in line


def test_only_nan_and_infinity_is_bad_input_too(say, make_raster):
    image = np.full((2, 8, 8), np.nan, np.float32)
    image[1] = np.inf
    make_raster("images/a.tif", image)
    make_raster("masks/a.tif", MASK)
    assert say()[0] == 2


def test_only_ignored_labels_is_bad_input_too(say, make_raster):
    make_raster("images/a.tif", IMAGE)
    make_raster("masks/a.tif", np.full((8, 8), 255, np.uint8))
    code, line = say()
    assert code == 2 and "nothing labelled" in line


@pytest.mark.parametrize("part", ["images", "masks"])
@pytest.mark.parametrize("kept", [0, 60, 0.6], ids=["empty", "half-a-header", "half-the-pixels"])
def test_a_truncated_file_among_good_ones_is_skipped_and_named(good, say, make_raster, part, kept):
    rng = np.random.default_rng(0)
    where = from_origin(700_000, 4_600_000, 10, 10)
    make_raster("images/c_1.tif", rng.integers(0, 999, (2, 40, 8)).astype(np.uint16), transform=where, blockysize=8)
    make_raster("masks/c_1.tif", rng.integers(0, 2, (40, 8)).astype(np.uint8), transform=where, blockysize=8)
    path = Path(f"{part}/c_1.tif")
    data = path.read_bytes()
    path.write_bytes(data[: kept if isinstance(kept, int) else int(len(data) * kept)])
    code, said = say()
    assert code == 0 and "1 file could not be read" in said and "c_1.tif" in said
    assert {line["scene"] for line in read_manifest("patches")} >= {"a_1", "b_1"}
    code, line = say("--strict", "--patches-dir", "strict")
    assert code == 1 and "c_1.tif" in line and "--strict" in line


def test_when_no_file_can_be_read_it_is_a_failure(good, say):
    for name in ("a_1", "b_1"):
        Path(f"images/{name}.tif").write_bytes(b"II*\0nothing")
    code, line = say()
    assert code == 1 and "none of 2 images can be opened" in line


def test_a_full_disk_half_way_is_one_line_and_the_run_goes_on_afterwards(good, say, monkeypatch):
    from chipping import cutting

    write, count = cutting.write_npy, iter(range(100))

    def fill(path, array):
        if next(count) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write(path, array)

    monkeypatch.setattr(cutting, "write_npy", fill)
    code, line = say()
    assert code == 1 and "no space left on the disk" in line and len(read_manifest("patches")) == 1
    monkeypatch.setattr(cutting, "write_npy", write)
    assert say()[0] == 0 and len(read_manifest("patches")) == 2


def test_two_runs_into_one_folder_are_refused(good, say):
    with ChipSetWriter("patches", {"kind": "patches", "settings": {}}):
        code, line = say()
    assert code == 2 and "another program is writing" in line


def test_strips_and_tiles_give_the_same_patches(say, make_raster):
    image = np.random.default_rng(0).integers(0, 900, (2, 48, 40)).astype(np.uint16)
    make_raster("masks/a.tif", np.ones((48, 40), np.uint8))
    kinds = {"strips": dict(blockysize=1), "tiles": dict(tiled=True, blockxsize=16, blockysize=16), "band by band": dict(interleave="band")}
    found = []
    for number, kind in enumerate(kinds.values()):
        make_raster("images/a.tif", image, compress="deflate", **kind)
        assert say("--patches-dir", f"p{number}")[0] == 0
        found.append({p.name: p.read_bytes() for p in Path(f"p{number}").rglob("*.npy")})
    assert found[0] == found[1] == found[2]
