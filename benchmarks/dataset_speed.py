"""
Patches a second on one core, up to the tensor: 256 x 256, 7 bands, uint16, from the page cache. The goal is 1000.

    python benchmarks/dataset_speed.py

Prints the rate of batches of 16, of single patches, and that of np.load + torch.stack for comparison.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent.parent / "tests")]


def rate(read, count, seconds=3.0):
    """Patches a second, the best of what fits into the time. read(): reads `count` patches."""
    read()
    best, start = 0.0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        begin = time.perf_counter()
        read()
        best = max(best, count / (time.perf_counter() - begin))
    return best


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patches", type=int, default=128, help="patches in the set")
    args = parser.parse_args()

    import numpy as np
    import torch
    from patch_factory import write_patch_set

    from dataset import WildfireDataModule

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        write_patch_set(Path(folder) / "p", {"train": args.patches, "val": 1}, size=256, grid=(1, 1))
        data = WildfireDataModule(Path(folder) / "p", num_workers=0)
        data.setup()
        dataset, count = data.train, len(data.train)
        paths = [(patch.image, patch.mask) for patch in dataset.patches]

        def batches():
            for start in range(0, count, 16):
                dataset.__getitems__(list(range(start, min(start + 16, count))))

        def singles():
            for i in range(count):
                dataset[i]

        def plainly():
            for start in range(0, count, 16):
                part = paths[start : start + 16]
                torch.stack([torch.from_numpy(np.load(image)) for image, _ in part])
                torch.stack([torch.from_numpy(np.load(mask)[0]) for _, mask in part])

        ours, single, plain = rate(batches, count), rate(singles, count), rate(plainly, count)
    print(f"batches of 16        {ours:8.0f} patches/s   (goal 1000: {'met' if ours >= 1000 else 'MISSED'})")
    print(f"one by one           {single:8.0f} patches/s")
    print(f"np.load + stack      {plain:8.0f} patches/s   ours is {ours / plain:.2f} x")


if __name__ == "__main__":
    main()
