"""
What a published encoder costs beside the bare vision transformer of timm of its size: CPU seconds of a forward pass, in turn.

    python benchmarks/foundation_speed.py
    python benchmarks/foundation_speed.py --width 1024 --depth 24 --heads 16 --runs 5

Goal: a ratio of at most 1.02.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

BANDS = ("B02", "B03", "B04", "B8A", "B11", "B12")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--runs", type=int, default=15)
    args = parser.parse_args()

    import torch
    from timm.models.vision_transformer import VisionTransformer

    from nets.encoders import build_encoder
    from nets.foundation import FOUNDATIONS, V2, prithvi
    from runtime.memory import keep_freed_memory

    keep_freed_memory()  # as the programs do
    FOUNDATIONS["prithvi:measured"] = prithvi((args.width, args.depth, args.heads), *V2, hub=("", ""))
    ours = build_encoder("prithvi:measured", BANDS).eval()
    theirs = VisionTransformer(img_size=args.size, in_chans=len(BANDS), embed_dim=args.width, depth=args.depth, num_heads=args.heads,
                               num_classes=0).eval()
    levels = list(ours.inner.layers)
    x = torch.randn(args.batch_size, len(BANDS), args.size, args.size)

    def seconds_of(forward):
        begin = time.process_time()
        with torch.no_grad():
            forward(x)
        return time.process_time() - begin

    def bare(x):
        return theirs.forward_intermediates(x, indices=levels, output_fmt="NLC", norm=False)

    found = []
    for run in range(args.runs + 1):
        pair = [seconds_of(forward) for forward in ((ours, bare) if run % 2 else (bare, ours))]
        found.append(pair if run % 2 else pair[::-1])
    found = found[1:]  # the first warms up
    mine, bare_seconds = (min(seconds[i] for seconds in found) for i in (0, 1))
    middle = statistics.median(one / other for one, other in found)
    print(f"{args.depth} blocks of {args.width}, {args.batch_size} x {args.size}²: {mine:.3f} s against {bare_seconds:.3f} s, fastest "
          f"{mine / bare_seconds:.3f} x, median of pairs {middle:.3f} x (goal 1.02: {'met' if middle <= 1.02 else 'MISSED'})")


if __name__ == "__main__":
    main()
