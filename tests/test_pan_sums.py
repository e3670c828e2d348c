"""Pan added up once for all windows, and guessing from block sizes what is empty."""

import numpy as np
import pytest
import rasterio

from chipping.nodata_blocks import expected_share, filled_blocks
from chipping.pan_sums import PanSums
from raster.pair import PairReader, match_pair


def make_pair(make_raster, pan, ratio=4, **options):
    ms = np.ones((4, pan.shape[1] // ratio, pan.shape[2] // ratio), np.uint16)
    make_raster("ms.tif", ms, crs=None)
    return make_raster("pan.tif", pan, crs=None, **options), make_raster("ms.tif", ms, crs=None)


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
def test_any_window_in_any_order_has_the_sums_and_nulls_that_a_look_at_it_alone_would_give(make_raster, dtype):
    rng = np.random.default_rng(0)
    pan = rng.integers(1, 9999, (1, 400, 720)).astype(dtype)
    pan[0, 100:140, 300:310] = np.nan if dtype == "float32" else 0
    pan[0, 7, 5] = 0
    pair = match_pair(*make_pair(make_raster, pan))
    with PairReader(pair) as reader:
        sums = PanSums(reader)
        for column, row, side in [(0, 0, 40), (60, 0, 30), (130, 10, 50), (1, 20, 40), (70, 25, 64), (140, 60, 40), (0, 0, 100), (3, 2, 1)]:
            part = pan[0, 4 * row : 4 * (row + side), 4 * column : 4 * (column + side)].astype(float)
            null = ~(part > 0)
            cells = np.where(null, 0, part).reshape(side, 4, side, 4).sum((1, 3))
            bad = null.reshape(side, 4, side, 4).any((1, 3))
            share, found, nulls = sums.window(column, row, side)
            assert (found[0] == cells).all() and share == pytest.approx(1 - null.mean(), abs=1e-12)
            assert (nulls is None and not bad.any()) or (nulls[0] == bad).all()


def test_what_windows_share_is_read_once_and_what_lies_above_is_forgotten(make_raster):
    pan = np.ones((1, 2048, 2048), np.uint16)
    pair = match_pair(*make_pair(make_raster, pan))
    with PairReader(pair) as reader:
        read, pixels = reader.read_pan, []
        reader.read_pan = lambda *window: pixels.append(window) or read(*window)
        sums = PanSums(reader)
        for row in range(0, 513 - 256, 8):
            for column in (0, 100, 256):
                sums.window(column, row, 256)
        assert sum(width * height for _, _, width, height in pixels) == 512 * 512
        assert {key[0] for key in sums.pieces} == {row for row in range(256 // sums.side, 512 // sums.side)}


def test_pieces_end_at_the_area_that_was_asked_for(make_raster):
    pan = np.ones((1, 800, 800), np.uint16)
    pan[0, :, :40] = 0
    pair = match_pair(*make_pair(make_raster, pan)).inside((10, 3, 150, 170))
    with PairReader(pair) as reader:
        share, sums, nulls = PanSums(reader).window(10, 3, 150)
        assert share == 1 and nulls is None and (sums == 16).all()


def test_blocks_that_hold_one_value_are_told_from_others_without_decoding(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.integers(1, 9999, (8, 384, 640)).astype(np.uint16)
    values[:, 256:, :256] = 0
    for codec in ("deflate", "lzw", "zstd", "lerc"):
        options = {"tiled": True, "blockxsize": 128, "blockysize": 128, "compress": codec, "interleave": "pixel"}
        with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", count=8, width=640, height=384, dtype="uint16", **options) as file:
            file.write(values)
        filled, block = filled_blocks(tmp_path / "a.tif")
        assert block == (128, 128) and filled.tolist() == [[1] * 5, [0.5, 0.5, 1, 1, 1], [0, 0, 0.5, 1, 1]]
    assert expected_share((filled, block), 128, 128, 256) == (0.5 + 1 + 0 + 0.5) / 4
    assert expected_share((filled, block), 0, 256, 128) == 0
    assert expected_share(None, 0, 64, 36) == 1


def test_blocks_that_were_never_written_are_empty_and_uncompressed_ones_tell_nothing(tmp_path):
    options = {"driver": "GTiff", "count": 1, "width": 64, "height": 64, "dtype": "uint16", "tiled": True}
    options |= {"blockxsize": 32, "blockysize": 32}
    with rasterio.open(tmp_path / "a.tif", "w", compress="deflate", sparse_ok=True, **options) as file:
        file.write(np.random.default_rng(0).integers(1, 999, (1, 32, 32)).astype(np.uint16), window=((0, 32), (32, 64)))
    assert filled_blocks(tmp_path / "a.tif")[0].tolist() == [[0, 0.5], [0, 0]]
    with rasterio.open(tmp_path / "b.tif", "w", **options) as file:
        file.write(np.ones((1, 64, 64), np.uint16))
    assert filled_blocks(tmp_path / "b.tif") is None
