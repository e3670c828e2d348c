"""
A training step of the small detectors beside the bare step, and finding boxes beside the bare forward pass; frames per second of both.

    python benchmarks/small_detectors.py --model big --steps 8

The step of the program reads and augments frames of a warehouse; the bare one is forward, losses, backward and AdamW on a batch
that is there. Boxes are found in decoded frames: fitted into the input, suppressed, mapped back. CPU seconds, medians; the two alternate.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402

import chip  # noqa: E402
import train_small_detection as program  # noqa: E402
from chipping.warehouse import open_warehouse  # noqa: E402
from detection.frame_maps import LEAST_SCORE  # noqa: E402
from detection.small_data import Sampling, WarehouseData  # noqa: E402
from detection.small_finder import SmallFinder  # noqa: E402
from detection.small_losses import NAMES  # noqa: E402
from raster.frames import read_frame  # noqa: E402
from runtime.device import Compute  # noqa: E402
from runtime.distributed import Processes  # noqa: E402
from runtime.memory import keep_freed_memory  # noqa: E402
from runtime.running_sums import RunningSums  # noqa: E402
from runtime.settings import group_of  # noqa: E402


def timed(action):
    begun = time.process_time()
    action()
    return time.process_time() - begun


def tell(what, own, bare, frames):
    one, other = statistics.median(own), statistics.median(bare)
    print(f"{what}: {one / other:.2f} x the bare one; {frames / one:.1f} and {frames / other:.1f} frames per CPU second", flush=True)


def training(options, words, folder):
    args = program.build_parser().parse_args(words)
    args.checkpoint_out = str(folder / "unused.bin")
    settings, compute, processes = group_of(program.Options, args), Compute(device=torch.device("cpu"), channels_last=True), Processes()
    warehouse = open_warehouse(args.manifest)
    learner = program.make_learner(settings, warehouse, None, compute, processes)
    data = WarehouseData(warehouse, Sampling(batch_size=args.batch_size), processes)
    running, batches = RunningSums(NAMES, compute.device, processes), data.training_batches(0)
    learner.model.train()
    ready = program.to_device(next(batches), compute.device)

    def own():
        running.add(program.train_step(learner, next(batches), 0, settings), 1)
        learner.average.update(0)

    def bare():
        frames, boxes, mask, labels = ready
        learner.optimizer.zero_grad(set_to_none=True)
        losses = program.weighted_losses(learner.model.proposals(frames), boxes, mask, labels, settings)
        sum(losses.values()).backward()
        torch.nn.utils.clip_grad_norm_(learner.model.parameters(), settings.grad_clip)
        learner.optimizer.step()

    own(), bare()
    pairs = [(timed(own), timed(bare)) for _ in range(options.steps)]
    tell(f"{options.model}: a training step", *zip(*pairs, strict=True), args.batch_size)
    return learner.model.eval(), compute


def finding(options, model, compute, files):
    finder = SmallFinder(detector=model, compute=compute, lowest=LEAST_SCORE)
    frames = [read_frame(path) for path in files[: options.batch_size]]
    inputs = torch.from_numpy(np.stack([finder.prepare(frame)[1] for frame in frames])).float() / 255

    def own():
        finder.find(*zip(*map(finder.prepare, frames), strict=True))

    def bare():
        with torch.no_grad():
            model(inputs)

    own(), bare()
    pairs = [(timed(own), timed(bare)) for _ in range(options.steps)]
    tell(f"{options.model}: finding boxes", *zip(*pairs, strict=True), len(frames))
    decoding = timed(lambda: [read_frame(path) for path in files[: options.batch_size]])
    print(f"decoding alone: {len(frames) / decoding:.0f} frames per CPU second")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("tiny", "big"), default="big")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=8)
    options = parser.parse_args()
    program.import_libraries()
    keep_freed_memory()  # as the programs do
    with tempfile.TemporaryDirectory() as folder:
        folder, count = Path(folder), options.batch_size * (options.steps + 2)
        chip.main(["fake-captures", "-o", str(folder / "captures"), "--runs", "2", "--frames", str(count), "--quiet"])
        chip.main(["make-warehouse", "--runs", str(folder / "captures"), "--output-root", str(folder / "warehouse"), "--quiet"])
        words = ["--manifest", str(folder / "warehouse"), "--model", options.model, "--batch-size", str(options.batch_size)]
        model, compute = training(options, words, folder)
        finding(options, model, compute, sorted(folder.glob("captures/*/images/*.png")))


if __name__ == "__main__":
    main()
