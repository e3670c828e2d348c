"""Freed memory that is kept: what the system counts of it, in a process of its own."""

import ctypes
import os
import subprocess
import sys

import pytest

from runtime.memory import CHOSEN

PAGES = """
import resource, sys
import numpy as np
from runtime.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.full(256 << 20, 1, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

kept = keep_freed_memory() if sys.argv[1] == "keep" else False
print(kept, *(faults() for _ in range(3)))
"""


def with_glibc():
    try:
        return hasattr(ctypes.CDLL(None), "gnu_get_libc_version")
    except TypeError:
        return False


def count(how, **chosen):
    """(whether memory is kept, [pages that the system had to hand out for each of three arrays of 256 MB])."""
    environment = {name: value for name, value in os.environ.items() if name not in CHOSEN} | chosen
    run = subprocess.run([sys.executable, "-c", PAGES, how], capture_output=True, text=True, check=True, env=environment)
    kept, *pages = run.stdout.split()
    return kept == "True", [int(number) for number in pages]


@pytest.mark.skipif(not with_glibc(), reason="the C library is not glibc")
def test_the_second_large_array_takes_the_pages_of_the_first():
    kept, (first, *further) = count("keep")
    assert kept and first > 100 and max(further) < first / 20


@pytest.mark.skipif(not with_glibc(), reason="the C library is not glibc")
def test_without_it_each_large_array_gets_new_pages():
    kept, (first, *further) = count("leave")
    assert not kept and min(further) > first / 2


@pytest.mark.parametrize("name", CHOSEN)
def test_what_the_environment_has_chosen_stays(name):
    value = "glibc.malloc.mmap_threshold=131072" if name == "GLIBC_TUNABLES" else "131072"
    kept, (first, *further) = count("keep", **{name: value})
    assert not kept and (name == "MALLOC_TRIM_THRESHOLD_" or min(further) > first / 2)
