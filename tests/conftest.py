"""Fixtures that several test files share: rasters small enough to count by hand, and the real data where it is there."""

import os
import signal
from pathlib import Path

# Before torch and GDAL look, here and in every program that a test starts: tiny tensors on several threads only get into each other's
# way, workers of pytest-xdist share the cores, and rounding depends on the number of threads.
os.environ["OMP_NUM_THREADS"] = "1"
# A shell that runs the tests in the background has SIGINT ignored, and so would every program that a test starts and interrupts.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import hypothesis  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import rasterio  # noqa: E402
from rasterio.transform import from_origin  # noqa: E402

# The same examples in every run, and none that fails because a machine was busy.
hypothesis.settings.register_profile("quick", max_examples=50, derandomize=True, deadline=None, database=None)
hypothesis.settings.register_profile("nightly", max_examples=5000, deadline=None, database=None)
hypothesis.settings.load_profile("quick")

ROOT = Path(__file__).resolve().parent.parent
UTM_33N = "EPSG:32633"


@pytest.fixture
def make_raster(tmp_path):
    """make_raster("a.tif", array, …) → path. Array (H, W) or (C, H, W); 10 m pixels in UTM 33N unless told otherwise."""

    def make(name, array, crs=UTM_33N, transform=None, nodata=None, descriptions=None, dtype=None, tags=None, scales=None,
             offsets=None, **profile):
        array = np.asarray(array)
        array = array[None] if array.ndim == 2 else array
        path = Path(name) if Path(name).is_absolute() else tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        transform = transform or from_origin(500_000, 4_600_000, 10, 10)
        with rasterio.open(
            path, "w", driver="GTiff", count=array.shape[0], height=array.shape[1], width=array.shape[2],
            dtype=dtype or array.dtype, crs=crs, transform=transform if crs else None, nodata=nodata, **profile,
        ) as dataset:
            dataset.write(array.astype(dtype or array.dtype))
            if descriptions:
                dataset.descriptions = descriptions
            if tags:
                dataset.update_tags(**tags)
            if scales:
                dataset.scales = scales
            if offsets:
                dataset.offsets = offsets
        return path

    return make


@pytest.fixture(scope="session")
def real_data():
    """The folder of real imagery, or a skip that says where it would be looked for."""
    folder = Path(os.environ.get("CHIPMILL_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real imagery at {folder} (set CHIPMILL_DATA)")
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A segmentation checkpoint of random weights for inference.py; see map_factory."""
    from map_factory import write_checkpoint

    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "best_model.pt")
