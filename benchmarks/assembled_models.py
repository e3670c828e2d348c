"""
What putting a model together costs: seconds to build the largest networks, and a training step against the bare one of the same modules.

    python benchmarks/assembled_models.py
    python benchmarks/assembled_models.py --encoder tu-vit_small_patch16_224 --size 224 --steps 10

Bare: encoder, decoder, head and resizing called one after another, with loss, backward and AdamW. Assembled: the same modules in the model
that train.py calls. Both are timed in turn, step by step. Goals: 2 s to build without weights, a ratio of 1.05.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

LARGE = ("resnet152", "efficientnet-b7", "tu-convnext_large", "tu-resnetv2_152x2_bit", "tu-vit_large_patch16_224")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="resnet34")
    parser.add_argument("--decoder", default="unet")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--build", nargs="*", default=LARGE, help="encoders to build")
    args = parser.parse_args()

    import torch
    from torch.nn import functional as F

    from model import assemble
    from nets.assembled import build_model
    from nets.encoders import build_encoder
    from nets.layout import TOKENS
    from nets.model_config import ModelConfig, Neck
    from runtime.memory import keep_freed_memory

    keep_freed_memory()  # as the programs do
    bands = ("B02", "B03", "B04", "B08", "B11", "B12")

    def parts(encoder):
        is_tokens = build_encoder(encoder, bands).layout.form == TOKENS  # imports the libraries, too, before anything is timed
        necks = (Neck("tokens-to-maps"), Neck("pyramid")) if is_tokens else ()
        return ModelConfig(encoder=encoder, decoder=args.decoder, necks=necks, bands=bands)

    for encoder in args.build:
        config = parts(encoder)
        begin = time.process_time()
        model = build_model(config)
        seconds = time.process_time() - begin
        weights = sum(p.numel() for p in model.parameters()) / 1e6
        print(f"{encoder} with {args.decoder}: {weights:.0f} M weights in {seconds:.2f} s (goal 2: {'met' if seconds <= 2 else 'MISSED'})")

    torch.manual_seed(0)
    model = assemble(parts(args.encoder), bands).train()
    inner = model.network
    x, target = torch.rand(args.batch_size, len(bands), args.size, args.size), torch.randint(0, 2, (args.batch_size, args.size, args.size))

    def bare(x):
        features = inner.encoder(model.input_step(x))
        grid = tuple(int(side // inner.encoder.layout.strides[-1]) for side in x.shape[-2:])
        for neck in inner.necks:
            features = neck(features, grid)
        return F.interpolate(inner.decoder.head(inner.decoder.decoder(features)), size=x.shape[-2:], mode="bilinear", align_corners=False)

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def seconds_of(forward):
        begin = time.process_time()
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(forward(x), target).backward()
        optimizer.step()
        return time.process_time() - begin

    def pair(step):
        """CPU seconds of (assembled, bare), each first in every other step."""
        forwards = (lambda x: model.outputs(x).output, bare)
        found = [seconds_of(forward) for forward in (forwards if step % 2 else forwards[::-1])]
        return found if step % 2 else found[::-1]

    times = [pair(step) for step in range(args.steps + 1)][1:]
    ratio = statistics.median(ours / theirs for ours, theirs in times)
    ours, theirs = (statistics.median(column) for column in zip(*times, strict=True))
    print(f"{args.decoder} on {args.encoder}, {args.batch_size} x {args.size}²: bare {theirs:.3f} s, assembled {ours:.3f} s of CPU a step; "
          f"ratio {ratio:.3f} (goal 1.05: {'met' if ratio <= 1.05 else 'MISSED'})")


if __name__ == "__main__":
    main()
