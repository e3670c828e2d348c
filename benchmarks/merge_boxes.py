"""
Merging 100 000 overlapping boxes against torchvision's batched_nms: seconds, memory, and whether the same boxes stay.

    python benchmarks/merge_boxes.py [--boxes 100000] [--classes 3] [--without-torchvision]

Five boxes an object, moved and stretched a little. The goal is 0.6 s and 150 MB. torchvision takes 6 to 35 s on a CPU.
"""

import argparse
import resource
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]

EACH = 5  # boxes an object


def draw(count, classes):
    """(boxes (N, 4), scores, labels, side of the image)."""
    import numpy as np

    rng, side = np.random.default_rng(0), 45 * count**0.5
    centres, sides = rng.random((count // EACH, 2)) * side, rng.uniform(20, 60, (count // EACH, 2))
    centres, labels = np.repeat(centres, EACH, axis=0), np.repeat(rng.integers(1, classes + 1, count // EACH), EACH)
    centres = centres + rng.normal(0, 3, centres.shape)
    sides = np.repeat(sides, EACH, axis=0) * rng.uniform(0.9, 1.1, centres.shape)
    return np.concatenate([centres - sides / 2, centres + sides / 2], axis=1), rng.random(len(centres)), labels, side


def peak():
    """Highest memory of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boxes", type=int, default=100_000)
    parser.add_argument("--classes", type=int, default=3)
    parser.add_argument("--without-torchvision", action="store_true")
    args = parser.parse_args(argv)
    import numpy as np

    from detection.merge import merge_tiles

    boxes, scores, labels, side = draw(args.boxes, args.classes)
    where, tiles = np.zeros(len(boxes), np.int64), [(0, 0, side, side)]
    merge_tiles(boxes[:100], scores[:100], labels[:100], where[:100], tiles, (side, side))
    before, started = peak(), (time.perf_counter(), time.process_time())
    kept = merge_tiles(boxes, scores, labels, where, tiles, (side, side))
    wall, cpu = time.perf_counter() - started[0], time.process_time() - started[1]
    print(f"{len(boxes)} boxes of {args.classes} classes: {wall:.2f} s (CPU {cpu:.2f}), {peak() - before:.0f} MB; {len(kept)} stay")
    if not args.without_torchvision:
        import torch
        from torchvision.ops import batched_nms

        started = time.perf_counter(), time.process_time()
        theirs = batched_nms(torch.from_numpy(boxes), torch.from_numpy(scores), torch.from_numpy(labels), 0.5).numpy()
        wall, cpu = time.perf_counter() - started[0], time.process_time() - started[1]
        print(f"batched_nms: {wall:.2f} s (CPU {cpu:.2f}); the same boxes in the same order: {np.array_equal(kept, theirs)}")


if __name__ == "__main__":
    main(sys.argv[1:])
