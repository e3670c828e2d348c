"""A pipe among files, whose opening may never return, is refused with a line or left out as a damaged file is."""

import os
import shutil
import signal

import numpy as np
import pytest

import chip
from chipping.link_chips import lines_by_file
from chipping.pan_chips import BadChip, read_chip
from raster.ard import read_item
from raster.source import open_raster
from runtime.checkpoint import load_checkpoint
from runtime.errors import UserError
from runtime.files import read_json, read_lines
from runtime.npy import BadArray, read_array
from vectors.reading import read_vectors

WHY = "a pipe, socket or device, not a regular file"


@pytest.fixture(autouse=True)
def no_waiting():
    """A reader that waits for a writer is interrupted."""
    def interrupt(*_):
        raise TimeoutError("waited for a writer")

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def open_and_close(path):
    with open_raster(path):
        pass


@pytest.mark.parametrize("name, read, error, why", [
    ("scene.tif", open_and_close, UserError, WHY), ("scene.vrt", open_and_close, UserError, WHY),
    ("labels.geojson", read_vectors, UserError, "not a file"), ("labels.gpkg", read_vectors, UserError, "not a file"),
    ("patch.npy", read_array, BadArray, WHY), ("0.pt", read_chip, BadChip, WHY),
    ("model.pt", load_checkpoint, UserError, "no regular file"),
    ("chipset.json", read_json, UserError, WHY), ("manifest.jsonl", read_lines, UserError, WHY),
    ("manifest.jsonl", lambda path: lines_by_file(path.parent), UserError, WHY),
])
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/null")],
                         ids=["pipe", "device"])
def test_what_is_no_regular_file_is_refused(tmp_path, name, read, error, why, make):
    make(tmp_path / name)
    with pytest.raises(error, match=why):
        read(tmp_path / name)


def test_an_item_that_is_a_pipe_is_named_as_unreadable(tmp_path):
    os.mkfifo(tmp_path / "item.json")
    assert WHY in read_item(str(tmp_path / "item.json"))[1]


@pytest.mark.parametrize("suffix", [".ovr", ".msk", ".msk.ovr", ".aux.xml"])
def test_a_pipe_beside_a_raster_which_gdal_would_open_is_refused(make_raster, suffix):
    path = make_raster("scene.tif", np.ones((20, 20), np.uint8))
    os.mkfifo(f"{path}{suffix}")
    with pytest.raises(UserError, match=WHY):
        open_and_close(path)


def test_a_pipe_among_images_is_left_out_with_a_line(tmp_path, make_raster, capsys):
    rng = np.random.default_rng(0)
    for number in range(2):
        image = make_raster(f"images/s{number}.tif", rng.integers(1, 4000, (2, 64, 64)).astype(np.uint16))
        make_raster(f"masks/s{number}.tif", (rng.random((64, 64)) > 0.5).astype(np.uint8))
    shutil.copy(image, tmp_path / "images" / "s2.tif")
    shutil.copy(tmp_path / "masks" / "s1.tif", tmp_path / "masks" / "s2.tif")
    os.remove(image)
    os.mkfifo(image)
    words = ["make-patches", "--images", f"{tmp_path}/images", "--masks", f"{tmp_path}/masks", "--divide-by", "10000", "--patch-size", "32",
             "--patches-dir", f"{tmp_path}/patches"]
    assert not chip.main(words)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if WHY in line]
    assert str(image) in line and "skipped" in line
