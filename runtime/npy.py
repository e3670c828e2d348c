"""
Arrays of .npy files, read with every size checked against the file's length.

A damaged or hostile file is a BadArray, whatever is wrong with it: nothing is allocated for pixels that the file does not hold.
"""

import ast
import functools
import math
import os
from typing import NamedTuple

import numpy as np

from runtime.files import require_regular

MAGIC = b"\x93NUMPY"
USUAL = 128  # bytes of the header that numpy writes for a few dimensions
LONGEST = 10_000  # bytes of a header that is parsed: numpy's own limit


class BadArray(Exception):
    """A file that cannot be read as an array of numbers. The message says why."""


class Header(NamedTuple):
    """dtype: of real numbers. shape: in the array's sense. fortran: the first axis varies fastest. offset: of the pixels, in bytes."""

    dtype: np.dtype
    shape: tuple
    fortran: bool
    offset: int

    @property
    def nbytes(self):
        return math.prod(self.shape) * self.dtype.itemsize


@functools.lru_cache(maxsize=64)
def parse_header(head):
    """Header of the bytes before the pixels. Sets repeat few of them."""
    try:
        fields = ast.literal_eval(head[10 if head[6] == 1 else 12 :].decode("latin1").strip())
        descr, fortran, shape = fields["descr"], fields["fortran_order"], fields["shape"]
        dtype = np.dtype(descr) if isinstance(descr, str) else None
    except (ValueError, SyntaxError, KeyError, TypeError, MemoryError, RecursionError) as error:
        raise BadArray("its header is damaged") from error
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape) or not isinstance(fortran, bool):
        raise BadArray("its header is damaged")
    if dtype is None or dtype.kind not in "buif":
        raise BadArray(f"expected numbers, found {str(descr)[:40]}")
    return Header(dtype, shape, fortran, len(head))


def read_header(file):
    """Header of a .npy that is open for reading bytes, of which the file holds every pixel."""
    head = file.read(USUAL)
    if head[:6] != MAGIC or len(head) < 12:
        raise BadArray("not a .npy file, or cut short")
    if head[6] not in (1, 2, 3):
        raise BadArray(f"expected a .npy of version 1, 2 or 3, found {head[6]}")
    length = 10 + int.from_bytes(head[8:10], "little") if head[6] == 1 else 12 + int.from_bytes(head[8:12], "little")
    if length > LONGEST:
        raise BadArray(f"its header is damaged: {length} bytes long")
    head = head[:length] if length <= len(head) else head + file.read(length - len(head))
    if len(head) < length:
        raise BadArray("cut short within its header")
    header = parse_header(head)
    there = os.fstat(file.fileno()).st_size - length
    if header.nbytes > there:
        raise BadArray(f"cut short: expected {header.nbytes} bytes of pixels, found {there}")
    return header


def opened(function):
    """Let a function of (open file, …) take a path, and turn what the system says of it into a BadArray."""

    @functools.wraps(function)
    def wrapper(path, *args, **kwargs):
        try:
            require_regular(path)
            with open(path, "rb", buffering=0) as file:
                return function(file, *args, **kwargs)
        except OSError as error:
            raise BadArray(str(error)) from error

    return wrapper


@opened
def shape_of(file):
    """The shape of a .npy, whose pixels stay on the disk."""
    return read_header(file).shape


@opened
def read_array(file, mapped=False):
    """The array of a .npy. mapped: its pixels are read from the disk when they are looked at."""
    header = read_header(file)
    order = "F" if header.fortran else "C"
    if mapped and header.nbytes:
        return np.memmap(file, header.dtype, "r", header.offset, header.shape, order)
    file.seek(header.offset)
    return np.fromfile(file, header.dtype, math.prod(header.shape)).reshape(header.shape, order=order)


@opened
def read_array_into(file, out, plane=None):
    """Read a .npy of out's type and shape straight into `out`; plane: only this one of a file with one axis more."""
    header = read_header(file)
    dtype, shape = header.dtype, header.shape
    if dtype != out.dtype or (shape if plane is None else shape[1:]) != out.shape or (plane is not None and plane >= shape[0]):
        raise BadArray(f"expected {out.dtype} {out.shape}, found {dtype} {shape}")
    file.seek(header.offset + (0 if header.fortran else (plane or 0) * out.nbytes))
    if header.fortran:
        array = np.fromfile(file, dtype, math.prod(shape)).reshape(shape, order="F")
        out[...] = array if plane is None else array[plane]
        return
    got = file.readinto(memoryview(out).cast("B")) if out.size else 0
    if got != out.nbytes:
        raise BadArray(f"cut short: expected {out.nbytes} bytes of pixels, found {got}")
