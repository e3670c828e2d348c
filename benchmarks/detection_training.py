"""
What of a detector's training step is waiting for its tiles, and the CPU time of a step's parts.

    python benchmarks/detection_training.py [--framework centre] [--encoder small] [--crop 256] [--batch-size 8] [--steps 10] [--workers 2]

Tiles of 512 pixels, cut beforehand; the step is that of train_detection.py. Waiting is wall time of next(), with workers that read
ahead; the CPU time is that of one process that does everything, reading each tile from its file. The goal is 5 % of a step.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]


def main(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--framework", default="centre")
    parser.add_argument("--encoder", default="small")
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args(argv)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import train_detection
    from runtime.memory import keep_freed_memory

    keep_freed_memory()  # as the programs do
    train_detection.import_libraries()
    with tempfile.TemporaryDirectory() as folder:
        tile_set, classes = make_tile_set(Path(folder))
        learner = make_learner(train_detection, args, tile_set, classes)
        for workers in (0, args.workers):
            waiting, step = measure(train_detection, args, tile_set, learner, workers)
            words = f"{workers} workers, seconds waited" if workers else "CPU seconds of one process, reading"
            print(f"{words} {waiting:.3f} a step of {waiting + step:.3f}: {100 * waiting / (waiting + step):.1f} %")


def make_tile_set(folder, count=1):
    """(TileSet of JPEGs of 5472 × 3648, classes)."""
    import contextlib

    from benchmarks.make_tiles import generate
    from chipping.box_labels import read_labels
    from chipping.tiles import make_tiles

    with contextlib.redirect_stdout(sys.stderr):
        generate(folder, count)
    classes, images, _ = read_labels(folder / "images", folder / "boxes.json")
    return make_tiles(folder / "tiles", folder / "images", classes, images)[0], classes


def make_learner(program, args, tile_set, classes):
    """train_detection.py's Learner with random weights."""
    import torch

    from detection.anchors import fit_anchors, usual_size
    from detection.detectors import DetectorConfig, build_detector
    from runtime.device import Compute, gradient_scaler
    from runtime.distributed import Processes

    torch.manual_seed(0)
    boxes = [box for image in tile_set.images for box in image.boxes]
    sizes, ratios = fit_anchors(boxes)
    config = DetectorConfig(framework=args.framework, encoder=args.encoder, bands=tuple(tile_set.bands), classes=tuple(classes),
                            usual=usual_size(boxes), anchor_sizes=sizes, anchor_ratios=ratios)
    compute, model = Compute(device=torch.device("cpu")), build_detector(config)
    return program.Learner(model=model.train(), average=None, optimizer=torch.optim.AdamW(model.parameters(), lr=1e-4),
                           scaler=gradient_scaler(compute.device, compute.precision), compute=compute, processes=Processes())


def measure(program, args, tile_set, learner, workers):
    """(seconds of waiting for a batch, of the rest of a step), means: CPU time without workers, else wall time."""
    from types import SimpleNamespace

    from detection.augment import CropPolicy
    from detection.training_data import Sampling, TrainingData

    sampling = Sampling(crop=CropPolicy(size=args.crop), batch_size=args.batch_size, steps_per_epoch=args.steps + 2)
    data = TrainingData({"train": tile_set}, sampling, learner.processes, workers=workers, masks=args.framework == "mask-rcnn")
    data.train.kept = None  # from the files each time
    options, clock = SimpleNamespace(seed=0, grad_clip=10.0), time.perf_counter if workers else time.process_time
    batches, waited, stepped = data.training_batches(0), [], []
    for step in range(args.steps + 2):
        marks = [clock()]
        batch, draws = next(batches)
        marks.append(clock())
        program.train_step(learner, batch, draws, step, data, options)
        marks.append(clock())
        waited.append(marks[1] - marks[0])
        stepped.append(marks[2] - marks[1])
    return (sum(times[2:]) / args.steps for times in (waited, stepped))  # the first two start workers and warm up


if __name__ == "__main__":
    main(sys.argv[1:])
