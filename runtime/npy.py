"""Arrays of .npy files read straight into memory that is there already, without a copy."""

import ast
import functools

import numpy as np


@functools.lru_cache(maxsize=64)
def parse_header(head):
    """(dtype, shape) of a .npy header of 128 bytes, or None for one of another length or in Fortran order. Sets repeat few headers."""
    if head[:6] != b"\x93NUMPY" or len(head) < 128:
        raise ValueError("not a .npy file, or cut short")
    if head[6] != 1 or int.from_bytes(head[8:10], "little") + 10 != 128:
        return None
    fields = ast.literal_eval(head[10:].decode("latin1"))
    return None if fields["fortran_order"] else (np.dtype(fields["descr"]), fields["shape"])


def read_array_into(path, out, plane=None):
    """Read a .npy of out's type and shape straight into `out`; plane: only this one of a file with one axis more."""
    with open(path, "rb", buffering=0) as file:
        header = parse_header(file.read(128))
        if header is None:  # an unusual header: let numpy sort it out
            array = np.load(path)
            header = array.dtype, array.shape
        else:
            array = None
        dtype, shape = header
        if dtype != out.dtype or (shape if plane is None else shape[1:]) != out.shape or (plane is not None and plane >= shape[0]):
            raise ValueError(f"expected {out.dtype} {out.shape}, found {dtype} {shape}")
        if array is not None:
            out[...] = array if plane is None else array[plane]
            return
        if plane:
            file.seek(128 + plane * out.nbytes)
        got = file.readinto(memoryview(out).cast("B"))
        if got != out.nbytes:
            raise ValueError(f"cut short: expected {out.nbytes} bytes of pixels, found {got}")
