"""
What runtime/memory.py brings on a CPU: a training step and a forward pass, with freed memory kept and without.

    python benchmarks/kept_memory.py --network detector     # the detector of the recipe `detection`, 8 crops of 256², 8 tiles of 512²
    python benchmarks/kept_memory.py --network unet         # unet on resnet34, 8 patches of 256², 8 windows of 512²

Each is measured in processes of its own, in turn, since what a process has chosen it keeps; medians of five. How much is gained depends on
how fast the system hands out pages, and on the number of threads that wait for it.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]
AS_BEFORE = {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=7"}  # what glibc has anyway; a choice, so that the program makes none


def networks(name):
    """(losses of a batch: a function of images, forward pass: a function of images, parameters, bands)."""
    import torch

    if name == "unet":
        from model import create_segmentation_model

        model = create_segmentation_model(2, "resnet34", "unet", encoder_weights=None)
        return lambda images: model(images).square().mean(), model, 7
    from detection.detectors import DetectorConfig, build_detector

    model = build_detector(DetectorConfig(encoder="tu-tf_efficientnet_lite0"))
    boxes = torch.tensor([[10.0, 10, 40, 40], [60, 60, 80, 90]])
    target = {"boxes": boxes, "labels": torch.tensor([1, 1]), "ignore": torch.zeros(0, 4)}
    return lambda images: sum(model.losses(images, [target] * len(images)).values()), model, 3


def measure(name, steps=12, passes=4):
    """{"step", "pass": seconds, "peak": MB} of this process."""
    import torch

    from runtime.memory import keep_freed_memory

    keep_freed_memory()
    torch.manual_seed(0)
    losses, model, bands = networks(name)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    crops, tiles = torch.rand(8, bands, 256, 256), torch.rand(8, bands, 512, 512)

    def step():
        optimizer.zero_grad(set_to_none=True)
        losses(crops).backward()
        optimizer.step()

    @torch.inference_mode()
    def look():
        model.predict(tiles) if name == "detector" else model(tiles)

    seconds = {"step": timed(step, steps)}
    model.eval()
    seconds["pass"] = timed(look, passes)
    return seconds | {"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def timed(work, times):
    """Median seconds, after two that warm up."""
    found = []
    for _ in range(times + 2):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return statistics.median(found[2:])


def main(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=("detector", "unet"), default="detector")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)  # what the processes do
    args = parser.parse_args(argv)
    if args.one:
        print(json.dumps(measure(args.network)))
        return
    found = {"kept": [], "as before": []}
    for _ in range(5):
        for how, results in found.items():
            environment = {**os.environ, **(AS_BEFORE if how == "as before" else {})}
            done = subprocess.run([sys.executable, __file__, "--one", "--network", args.network], check=True, capture_output=True,
                                  text=True, env=environment)
            results.append(json.loads(done.stdout.split("\n")[-2]))
    kept, before = ({key: statistics.median(one[key] for one in results) for key in results[0]} for results in found.values())
    for key, words in (("step", "a training step"), ("pass", "a forward pass")):
        print(f"{words}: {before[key]:.3f} s, {kept[key]:.3f} s with freed memory kept: {before[key] / kept[key]:.2f} x as fast")
    print(f"highest memory: {before['peak']:.0f} MB, {kept['peak']:.0f} MB")


if __name__ == "__main__":
    main(sys.argv[1:])
