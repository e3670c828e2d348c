"""Where a training step's time goes: reading, augmentation, network; and its memory.

    python -m benchmarks.pansharpening_training WORK_FOLDER [--side 512] [--batch 8]

Chips are fake ones of the full size. Everything in one process and one thread, so that the shares are those of the work.
"""

import argparse
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch  # noqa: E402

from chipping.fake_chips import OUR_REFLECTANCES, FakeRecipe, make_fake_chips  # noqa: E402
from pansharpening.augment import augment_pair  # noqa: E402
from pansharpening.dataset import PanChips, collate, statistics  # noqa: E402
from pansharpening.losses import WEIGHTS, weighted_losses  # noqa: E402
from pansharpening.network import Pansharpener, PansharpenerConfig  # noqa: E402
from runtime.memory import keep_freed_memory  # noqa: E402


def main(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=3)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    keep_freed_memory()  # as the programs do
    folder = args.folder / f"fake{args.side}"
    make_fake_chips(OUR_REFLECTANCES, folder, args.batch, FakeRecipe(side=args.side))
    chips = PanChips(folder, turned=True)
    model = Pansharpener(PansharpenerConfig(chips.bands, chips.ratio))
    model.set_statistics(statistics(chips))
    idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
    seconds = {"reading and turning": 0.0, "augmentation": 0.0, "network": 0.0}
    for step in range(args.steps + 1):
        chips.epoch = step
        marks = [time.process_time()]
        batch = collate([chips[i] for i in range(args.batch)])
        marks.append(time.process_time())
        pan, mul = augment_pair(batch.pan, batch.mul, [step * args.batch + n for n in batch.numbers], chips.bands)
        marks.append(time.process_time())
        losses = weighted_losses(model(mul, pan, all_scales=True), batch.truth, None, WEIGHTS["bands"], model.out_std)
        sum(term.mean() for term in losses.values()).backward()
        optimizer.step()
        optimizer.zero_grad()
        marks.append(time.process_time())
        if step:  # the first one warms up
            for i, name in enumerate(seconds):
                seconds[name] += (marks[i + 1] - marks[i]) / args.steps
    total = sum(seconds.values())
    for name, value in seconds.items():
        print(f"{name:20s} {value:7.2f} CPU s a step of {args.batch} chips of {args.side}, {100 * value / total:5.1f} %")
    print(f"reading and augmentation: {100 * (1 - seconds['network'] / total):.1f} % (promised: at most 10)")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB, before the first step {idle:.0f} MB")


if __name__ == "__main__":
    main(sys.argv[1:])
