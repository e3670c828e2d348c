"""A .npy is read as numpy reads it; whatever is wrong with one is a BadArray, before anything of its size is allocated."""

import io
import re
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from patch_factory import write_patch_set

from chipping.inspection import inspect_folder
from chipping.patch_set import read_patch_set
from chipping.patch_statistics import band_statistics, count_class_pixels
from dataset import PatchDataset
from runtime.npy import BadArray, read_array, read_array_into, shape_of

KINDS = ["u1", "<u2", ">u2", "<i2", "<f4", "<f8", "<f2", "?"]
SHAPES = arrays.array_shapes(min_dims=1, max_dims=5, min_side=0, max_side=9)


def as_bytes(array, version=None):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version)
    return file.getvalue()


def with_header(text, pixels=bytes(100), version=1):
    """A .npy with any text as its header."""
    text = text.encode() if isinstance(text, str) else text
    text = text + b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY" + bytes([version, 0]) + len(text).to_bytes(2 if version == 1 else 4, "little") + text + pixels


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(KINDS), SHAPES, st.booleans(), st.sampled_from([(1, 0), (2, 0), (3, 0)]), st.booleans())
def test_every_array_of_numbers_comes_back(tmp_path_factory, kind, shape, fortran, version, mapped):
    path = tmp_path_factory.mktemp("npy") / "a.npy"
    array = np.random.default_rng(1).integers(0, 2, shape).astype(kind)
    path.write_bytes(as_bytes(np.asfortranarray(array) if fortran else array, version))
    found = read_array(path, mapped)
    assert found.dtype == array.dtype and found.shape == array.shape == shape_of(path) and (found == array).all()
    out = np.empty(shape, kind)
    read_array_into(path, out)
    assert (out == array).all()
    if shape and shape[0]:
        out = np.empty(shape[1:], kind)
        read_array_into(path, out, plane=shape[0] - 1)
        assert (out == array[-1]).all()


GOOD = "{'descr': '<u2', 'fortran_order': False, 'shape': (2, 5, 5)}"
DAMAGED = {
    "brackets": with_header("{'descr': '<u2', (((((("),
    "deep": with_header("(" * 5000),
    "deep unary": with_header("-" * 9000 + "1"),
    "no shape": with_header("{'descr': '<u2', 'fortran_order': False}"),
    "a list": with_header("[1, 2]"),
    "a number for a type": with_header("{'descr': 7, 'fortran_order': False, 'shape': (2, 5, 5)}"),
    "no such type": with_header("{'descr': '<q9', 'fortran_order': False, 'shape': (2, 5, 5)}"),
    "objects": with_header("{'descr': '|O', 'fortran_order': False, 'shape': (2, 5, 5)}"),
    "text": with_header("{'descr': '<U9', 'fortran_order': False, 'shape': (1,)}"),
    "a record": with_header("{'descr': [('a', '<u2')], 'fortran_order': False, 'shape': (2, 5, 5)}"),
    "7 PiB": with_header("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000, 1000)}"),
    "more than 64 bits": with_header("{'descr': '<f8', 'fortran_order': False, 'shape': (%s,)}" % ("9" * 40)),
    "negative": with_header("{'descr': '<u2', 'fortran_order': False, 'shape': (-2, -5, 5)}"),
    "a shape of text": with_header("{'descr': '<u2', 'fortran_order': False, 'shape': ('2', 5, 5)}"),
    "a shape that is a number": with_header("{'descr': '<u2', 'fortran_order': False, 'shape': 50}"),
    "order of text": with_header("{'descr': '<u2', 'fortran_order': 'no', 'shape': (2, 5, 5)}"),
    "a byte of null": with_header("{'descr': '<u2\0', 'fortran_order': False, 'shape': (2, 5, 5)}"),
    "version 9": with_header(GOOD, version=9),
    "4 GB of header": b"\x93NUMPY\x02\0\xff\xff\xff\xff" + bytes(200),
    "cut in the header": with_header(GOOD)[:40],
    "cut in the pixels": with_header(GOOD, bytes(99)),
    "empty": b"",
    "a magic alone": b"\x93NUMPY\x01\0",
    "zip": b"PK\x03\x04" + bytes(300),
    "pickle": b"\x80\x04N." + bytes(300),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_what_is_damaged_is_a_bad_array_and_allocates_nothing(tmp_path, what):
    path = tmp_path / "a.npy"
    path.write_bytes(DAMAGED[what])
    tracemalloc.start()
    try:
        for read in (read_array, shape_of, lambda p: read_array(p, mapped=True), lambda p: read_array_into(p, np.empty((2, 5, 5), "<u2"))):
            with pytest.raises(BadArray) as refusal:
                read(path)
            assert len(str(refusal.value)) < 120 and "\n" not in str(refusal.value)
        assert tracemalloc.get_traced_memory()[1] < 5e6
    finally:
        tracemalloc.stop()


def test_a_missing_file_and_a_folder_are_bad_arrays(tmp_path):
    for path in (tmp_path, tmp_path / "none.npy"):
        with pytest.raises(BadArray, match=re.escape(str(path))):
            read_array(path)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_file_with_some_bytes_changed_is_an_array_or_a_bad_array(tmp_path_factory, data):
    content = bytearray(as_bytes(np.arange(50, dtype="<u2").reshape(2, 5, 5)))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, 127))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("npy") / "a.npy"
    path.write_bytes(content)
    try:
        found = read_array(path)
    except BadArray:
        return
    assert found.nbytes <= len(content)


@pytest.mark.filterwarnings("ignore:invalid value")
def test_damaged_patches_are_named_by_the_dataset_the_statistics_and_inspect(tmp_path):
    folder = write_patch_set(tmp_path / "set", {"train": len(DAMAGED) + 1, "val": 1}, size=16, grid=(2, 1))
    files = sorted((folder / "train").glob("*_image.npy"))
    for content, image in zip(DAMAGED.values(), files, strict=False):
        image.write_bytes(content)
    for content, image in zip(DAMAGED.values(), reversed(files[len(DAMAGED) :]), strict=False):
        image.with_name(image.name.replace("_image", "_mask")).write_bytes(content)
    found = read_patch_set(folder, 2)
    train = found.of_split("train")
    batch = PatchDataset(found, train).__getitems__(range(len(train)))
    assert len(batch.problems) == 2 * len(DAMAGED)
    assert all(not problem.fatal and problem.name.endswith("_image.npy") for problem in batch.problems)
    said = []
    inspect_folder(folder, say=said.append)
    assert any("can't be read" in text for text in said)
    for patch in train:
        patch.band_sum = None
    mean, _ = band_statistics(found, train)
    assert len(mean) == len(found.bands) and np.isfinite(mean).all()


def test_damaged_patches_of_the_older_form_are_counted_and_left_out(tmp_path):
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        for n in range(len(DAMAGED) + 1):
            np.save(tmp_path / split / f"S_r0_c{n}_image.npy", np.full((8, 8, 3), 0.25, np.float32))
            np.save(tmp_path / split / f"S_r0_c{n}_mask.npy", np.eye(8, dtype=np.uint8))
    for n, content in enumerate(DAMAGED.values()):
        (tmp_path / "train" / f"S_r0_c{n}_image.npy").write_bytes(content)
        (tmp_path / "val" / f"S_r0_c{n}_mask.npy").write_bytes(content)
    found = read_patch_set(tmp_path, 2)
    for split in ("train", "val"):
        patches = found.of_split(split)
        count_class_pixels(patches, 2)
        batch = PatchDataset(found, patches).__getitems__(range(len(patches)))
        assert len(batch.problems) == len(DAMAGED)
        assert (batch.images != 0).any((1, 2, 3)).sum() == (batch.masks != 255).any((1, 2)).sum() == 1
    assert band_statistics(found, found.of_split("train"))[0] == (0.25,) * 3
    said = []
    inspect_folder(tmp_path, say=said.append)
    assert [text.count(f"{len(DAMAGED)} can't be read") for text in said] == [1, 1, 0]
