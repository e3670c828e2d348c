"""A raster that was cut off is refused or an error where it is read, in every format; it is never read as something else."""

import struct
import zlib

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from hypothesis import given
from hypothesis import strategies as st
from rasterio.errors import RasterioError

import chip
from raster.cut_short import is_png_without_end
from raster.source import open_raster
from runtime.errors import UserError

FORMATS = {
    "a.png": ("PNG", {}), "a.jpg": ("JPEG", {}), "progressive.jpg": ("JPEG", {"PROGRESSIVE": "ON"}), "a.jp2": ("JP2OpenJPEG", {}),
    "a.img": ("HFA", {}), "compressed.img": ("HFA", {"COMPRESSED": "YES"}), "a.dat": ("ENVI", {}), "raw.tif": ("GTiff", {}),
    "deflate.tif": ("GTiff", {"compress": "DEFLATE"}),
    "lzw.tif": ("GTiff", {"compress": "LZW"}), "zstd.tif": ("GTiff", {"compress": "ZSTD"}),
}


def read(path):
    with open_raster(path) as dataset:
        return dataset.read()


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("kind", ["uint8", "uint16"])
def test_what_is_cut_off_is_never_read_as_other_pixels(make_raster, tmp_path, name, kind):
    driver, options = FORMATS[name]
    if driver == "JPEG" and kind == "uint16":
        pytest.skip("a JPEG has 8 bits")
    pixels = np.random.default_rng(0).integers(1, 255, (1, 120, 150)).astype(kind)
    path = tmp_path / name
    rasterio.shutil.copy(make_raster("source.tif", pixels), path, driver=driver, **options)
    whole, expected = path.read_bytes(), read(path)
    for share in (0.02, 0.3, 0.7, 0.95, 1 - 20 / len(whole)):
        path.write_bytes(whole[: int(len(whole) * share)])
        try:
            found = read(path)
        except (UserError, RasterioError):
            continue
        assert np.array_equal(found, expected), share  # what was cut off is no pixel
    path.write_bytes(whole)
    assert np.array_equal(read(path), expected)


def png(*lengths):
    """Bytes of chunks such as a PNG has, IEND last."""
    chunks = [(b"IDAT", bytes(length)) for length in lengths] + [(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks)


@given(st.lists(st.integers(0, 300), max_size=5), st.binary(max_size=30), st.data())
def test_the_end_of_a_png_is_found_behind_its_chunks_and_before_what_follows(tmp_path_factory, lengths, after, data):
    whole = png(*lengths)
    path = tmp_path_factory.getbasetemp() / "drawn.png"
    cut = data.draw(st.integers(8, len(whole) - 1))
    for number, (content, ends) in enumerate(((whole, True), (whole + after, True), (whole[:cut], False))):
        path.write_bytes(content)
        assert is_png_without_end.__wrapped__(str(path), len(content), number) == (not ends)


def test_an_envi_file_with_a_header_of_its_own_in_front_is_measured_with_it(make_raster, tmp_path):
    path = tmp_path / "a.dat"
    rasterio.shutil.copy(make_raster("source.tif", np.ones((2, 30, 40), np.float32)), path, driver="ENVI")
    header = tmp_path / "a.hdr"
    text = header.read_text()
    (tmp_path / "a.dat.aux.xml").unlink()
    assert "\nheader offset = 0\n" in text
    header.write_text(text.replace("\nheader offset = 0\n", "\nheader offset = 100\n"))
    with pytest.raises(UserError, match="a.dat is cut short: expected 9700 bytes, as its .hdr says, found 9600"):
        read(path)
    path.write_bytes(bytes(100) + path.read_bytes())
    assert (read(path) == 1).all()


def test_a_scene_or_mask_that_is_cut_off_is_named_and_left_out(make_raster, tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):  # GDAL looks at the bytes, not at the name
        pixels = rng.integers(1, 250, (3, 64, 64), np.uint8)
        for folder, content in (("i", pixels), ("m", (pixels[0] > 120).astype(np.uint8))):
            (tmp_path / folder).mkdir(exist_ok=True)
            rasterio.shutil.copy(make_raster("source.tif", content), tmp_path / folder / f"{name}.tif", driver="PNG")
    for path in (tmp_path / "i" / "a.tif", tmp_path / "m" / "b.tif"):
        path.write_bytes(path.read_bytes()[:-40])
    monkeypatch.chdir(tmp_path)
    words = ["make-patches", "--images", "i", "--masks", "m", "--patches-dir", "p", "--divide-by", "255", "--patch-size", "32"]
    assert not chip.main(words)
    said = capsys.readouterr()
    assert "a.tif is cut short" in said.err + said.out and "b.tif is cut short" in said.err + said.out
    assert {line.split('"scene": "')[1][0] for line in (tmp_path / "p" / "manifest.jsonl").read_text().splitlines()} == {"c"}


def test_a_vrt_of_a_png_that_is_cut_off_is_refused(make_raster, tmp_path):
    path = tmp_path / "a.png"
    rasterio.shutil.copy(make_raster("s.tif", np.full((1, 40, 40), 7, np.uint8)), path, driver="PNG")
    rasterio.shutil.copy(path, tmp_path / "a.vrt", driver="VRT")
    assert (read(tmp_path / "a.vrt") == 7).all()
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(UserError, match="a.png is cut short"):
        read(tmp_path / "a.vrt")
