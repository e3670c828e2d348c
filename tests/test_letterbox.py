"""Frames in a fixed input: boxes there and back, pixels where the boxes say; files of frames whatever they hold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from raster.frames import BadFrame, read_frame
from raster.letterbox import Letterbox

SIDE = st.integers(1, 5000)
MODE = st.sampled_from(("letterbox", "force"))


@settings(max_examples=300, deadline=None)
@given(SIDE, SIDE, SIDE, SIDE, MODE, st.lists(st.tuples(*[st.floats(0, 1)] * 4), max_size=8))
def test_boxes_come_back_to_a_ten_thousandth_of_a_pixel(w, h, wide, tall, mode, shares):
    boxes = np.sort(np.array(shares, np.float64).reshape(-1, 2, 2), axis=1).reshape(-1, 4) * (w, h, w, h)
    letterbox = Letterbox((w, h), (wide, tall), mode)
    inside = letterbox.forward(boxes)
    assert np.abs(letterbox.inverse(inside) - boxes).max(initial=0) < 1e-4
    assert (inside >= -1e-9).all() and (inside <= np.array((wide, tall, wide, tall)) + 1e-9).all()
    left, top, width, height = letterbox.content
    assert 0 <= left and left + width <= wide and 0 <= top and top + height <= tall
    if mode == "letterbox":
        assert (width == wide or height == tall) and abs(2 * left + width - wide) <= 1 and abs(2 * top + height - tall) <= 1
        scale = min(wide / w, tall / h)
        assert abs(width - max(1, w * scale)) <= 0.5 + 1e-6 and abs(height - max(1, h * scale)) <= 0.5 + 1e-6


@pytest.mark.parametrize("w, h", [(641, 361), (37, 500)])
def test_boxes_of_odd_sizes_stored_as_float32_come_back(w, h):
    boxes = np.array([[0, 0, w, h], [1.25, 2.5, w - 3.125, h - 0.5], [w / 3, h / 7, w / 2, h / 3]])
    letterbox = Letterbox((w, h), (384, 384))
    stored = (letterbox.forward(boxes) / 384).astype(np.float32)
    assert np.abs(letterbox.inverse(stored.astype(np.float64) * 384) - boxes).max() < 1e-4


def test_the_numbers_of_640_by_360_in_384_by_384():
    letterbox = Letterbox((640, 360), (384, 384))
    assert letterbox.content == (0, 84, 384, 216) and letterbox.affine == (0.6, 0.6, 0.0, 84.0)
    assert np.allclose(letterbox.forward([[400, 60, 480, 120]]), [[240, 120, 288, 156]])
    assert np.allclose(letterbox.forward([[400, 60, 480, 120]]) / 384, [[0.625, 0.3125, 0.75, 0.40625]])


def test_what_lies_in_the_bars_comes_back_to_the_frames_edge():
    assert Letterbox((640, 360), (384, 384)).inverse([[-10, 0, 500, 384]]).tolist() == [[0, 0, 640, 360]]


@pytest.mark.parametrize("mode", ["letterbox", "force"])
@pytest.mark.parametrize("size, target", [((641, 361), (384, 384)), ((90, 200), (160, 96)), ((37, 50), (128, 64)), ((120, 31), (64, 96))])
def test_a_coloured_blob_lies_where_its_box_says(size, target, mode):
    w, h = size
    box = [w * 5 // 8, h // 8, w * 7 // 8, h // 3]  # in the upper right: neither a transposition nor a flip leaves it there
    frame = np.full((h, w, 3), 40, np.uint8)
    frame[box[1] : box[3], box[0] : box[2]] = (250, 90, 10)
    letterbox = Letterbox(size, target, mode)
    pixels = letterbox.resize(frame)
    assert pixels.shape == (3, target[1], target[0]) and pixels.dtype == np.uint8
    assert pixels[0].max() > 180 and pixels[2].max() <= 40  # channels are red, green, blue
    rows, columns = np.nonzero(pixels[0] > 145)
    found = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    assert np.abs(found - letterbox.forward([box])[0]).max() <= 1
    left, top, width, height = letterbox.content
    bars = np.ones(pixels.shape[1:], bool)
    bars[top : top + height, left : left + width] = False
    assert (pixels[:, bars] == 0).all() and (pixels[0, ~bars] > 30).all()


def test_a_constant_frame_stays_constant_and_a_frame_of_the_targets_size_stays_as_it_is():
    assert (Letterbox((100, 50), (30, 20), "force").resize(np.full((50, 100, 3), 77, np.uint8)) == 77).all()
    frame = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    assert (Letterbox((30, 20), (30, 20)).resize(frame) == frame.transpose(2, 0, 1)).all()


def test_shrinking_averages():
    """A checkerboard of single pixels becomes grey, where sampling without antialiasing would leave black or white."""
    frame = np.repeat((np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)[..., None], 3, axis=2)
    inner = Letterbox((64, 64), (16, 16)).resize(frame)[:, 1:-1, 1:-1]
    assert inner.min() > 115 and inner.max() < 140


@pytest.mark.parametrize("wrong", [{"source": (0, 4)}, {"target": (4, -1)}, {"mode": "crop"}, {"source": (4.5, 4)}])
def test_sizes_and_modes_that_are_none_are_refused(wrong):
    with pytest.raises(ValueError):
        Letterbox(**{"source": (4, 4), "target": (4, 4), **wrong})


def test_a_frame_of_another_size_is_refused():
    with pytest.raises(ValueError, match="expected a frame"):
        Letterbox((30, 20), (32, 32)).resize(np.zeros((30, 20, 3), np.uint8))


def frames():
    """{kind: (Pillow image, what it shows)}: one pixel in the upper left is brighter."""
    grey = np.full((6, 9), 100, np.uint8)
    grey[0, 0] = 200
    colours = np.stack([grey, grey // 2, grey // 4], axis=2)
    alpha = np.dstack([colours, np.full_like(grey, 7)])
    return {
        "RGB": (Image.fromarray(colours), colours), "grey": (Image.fromarray(grey), np.stack([grey] * 3, axis=2)),
        "RGBA": (Image.fromarray(alpha), colours), "palette": (Image.fromarray(colours).quantize(), colours),
        "16 bits": (Image.fromarray(grey.astype(np.uint16) * 256 + 13), np.stack([grey] * 3, axis=2)),
        "two levels": (Image.fromarray(grey > 150), np.stack([(grey > 150) * np.uint8(255)] * 3, axis=2)),
    }


@pytest.mark.parametrize("kind", frames())
def test_frames_of_any_kind_are_rgb_of_8_bits(tmp_path, kind):
    image, expected = frames()[kind]
    image.save(tmp_path / "f.png")
    found = read_frame(tmp_path / "f.png")
    assert found.dtype == np.uint8 and found.shape == (6, 9, 3) and np.abs(found.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_frame_is_upright_as_its_exif_tag_asks(tmp_path, orientation):
    image, upright = frames()["RGB"]
    turns = {1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.swapaxes(0, 1),
             6: upright.swapaxes(0, 1)[::-1], 7: upright[::-1, ::-1].swapaxes(0, 1), 8: upright.swapaxes(0, 1)[:, ::-1]}
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(turns[orientation])).save(tmp_path / "f.png", exif=exif)
    assert (read_frame(tmp_path / "f.png") == upright).all()
    assert (read_frame(tmp_path / "f.png", turn=False) == turns[orientation]).all()


def test_a_damaged_frame_is_told_as_such_wherever_it_ends(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    for name in ("f.png", "f.jpg"):
        Image.fromarray(noise).save(tmp_path / name)
        whole = (tmp_path / name).read_bytes()
        for share in (0, 0.01, 0.3, 0.9):
            (tmp_path / name).write_bytes(whole[: int(len(whole) * share)])
            with pytest.raises(BadFrame, match=f"{name} cannot be read as a picture .*expected PNG, JPEG or TIFF"):
                read_frame(tmp_path / name)
    with pytest.raises(BadFrame, match="cannot be read"):
        read_frame(tmp_path / "none.png")
    (tmp_path / "f.png").write_text("<svg/>")
    with pytest.raises(BadFrame):
        read_frame(tmp_path / "f.png")
