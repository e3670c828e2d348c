"""How the C library hands out memory: freed blocks are kept for the next tensors instead of going back to the system."""

import ctypes
import os

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # mallopt's names of them, in glibc's malloc.h
LARGE, LARGE_OF_OLD = 1 << 30, 32 << 20  # bytes; an older glibc takes no more than the second
CHOSEN = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory():
    """
    Let blocks below 1 GB come from a heap that never shrinks. → whether that is so now.

    Otherwise glibc maps each block of more than 32 MB anew, and the system fills all its pages with zeros first, for every layer of every
    step: a third of the time of a training step on a CPU. Memory grows to the highest that was needed at once, and stays there. Nothing
    happens where another C library is used, or where the environment has chosen (CHOSEN).
    """
    if any(name in os.environ for name in CHOSEN):
        return False
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018 - others have functions of these names that mean something else
    except (AttributeError, OSError, TypeError):
        return False
    large = library.mallopt(MMAP_THRESHOLD, LARGE) or library.mallopt(MMAP_THRESHOLD, LARGE_OF_OLD)
    return bool(large and library.mallopt(TRIM_THRESHOLD, -1))
