"""
What train.py costs beyond the network: seconds a step of the training program against the bare step on the same batches in memory.

    python benchmarks/training_step.py --architecture unet --encoder resnet34 --size 256 --batch-size 8 --steps 6

Bare: forward, loss, backward, AdamW, on reflectance that is already there. Program: reading patches, reflectance, augmentation,
the step, streaming metrics, learning rate and the checks after each step, as train.py's loop has them. Both are timed in turn,
step by step, so that a machine that is busy with something else slows both. The goal is a ratio of 1.05.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent.parent / "tests")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", default="unet")
    parser.add_argument("--encoder", default="resnet34")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--num-workers", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    args = parser.parse_args()

    import torch
    from patch_factory import write_patch_set

    import train
    from dataset import WildfireDataModule, band_statistics
    from losses import CombinedLoss
    from metrics import CombinedMetrics
    from model import create_segmentation_model
    from runtime.device import Compute, autocast, choose_device, gradient_scaler
    from runtime.distributed import Processes
    from runtime.memory import keep_freed_memory
    from runtime.running_sums import RunningSums
    from runtime.schedule import Schedule
    from runtime.settings import group_of
    from runtime.unreadable import Unreadable

    keep_freed_memory()  # as the programs do
    train.import_libraries()

    device, processes = choose_device(args.device), Processes()

    def make():
        torch.manual_seed(0)
        model = create_segmentation_model(2, args.encoder, args.architecture, encoder_weights=None, bands=data.patch_set.bands,
                                          mean=mean, std=std)
        model.to(device).train()
        return model, torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=1e-4), CombinedLoss([1.0, 3.0]).to(device)

    def wait():
        if device.type == "cuda":
            torch.cuda.synchronize()

    with tempfile.TemporaryDirectory() as folder:
        counts = {"train": args.batch_size * (args.steps + 1), "val": 1}
        write_patch_set(Path(folder) / "p", counts, size=args.size, grid=(1, 1))
        data = WildfireDataModule(Path(folder) / "p", args.batch_size, args.num_workers, pin_memory=device.type == "cuda")
        data.setup()
        mean, std = band_statistics(data.patch_set, data.train.patches)
        bare_model, bare_optimizer, bare_loss = make()
        model, optimizer, criterion = make()
        compute, schedule = Compute(device=device, precision=args.precision), Schedule("plateau", 1e-4, 1000)
        learner = train.Learner(model=model, network=model, criterion=criterion, optimizer=optimizer,
                                scaler=gradient_scaler(device, args.precision), train=data.train, compute=compute, processes=processes)
        options = group_of(train.Options, train.build_parser().parse_args([]))
        unreadable = Unreadable("patches", folder, len(data.train), processes)
        metrics = CombinedMetrics(2, device=device)
        running = RunningSums(("loss", "ce_loss", "dice_loss"), device, processes, shared=True, counts=metrics)
        program, bare = [], []
        batches = data.training_batches(0)
        for step in range(args.steps + 1):
            wait()
            begin = time.perf_counter()
            batch, draws = next(batches)
            unreadable.note(batch.problems)
            schedule.set_rate(optimizer, step)
            losses, prediction, target = train.train_step(learner, batch, draws, step, options, data.patch_set)
            running.add(losses, 1)
            metrics.update(prediction, target)
            processes.highest(0)
            wait()
            program.append(time.perf_counter() - begin)

            x, y = train.to_device(batch, data.patch_set, compute, draws)
            wait()
            begin = time.perf_counter()
            bare_optimizer.zero_grad(set_to_none=True)
            with autocast(device, args.precision):
                logits = bare_model(x)
            bare_loss(logits, y)[0].backward()
            bare_optimizer.step()
            wait()
            bare.append(time.perf_counter() - begin)
    # The first step of each warms up; the median of the pairs' ratios is deaf to single disturbances.
    ratio = statistics.median(p / b for p, b in zip(program[1:], bare[1:], strict=True))
    print(f"{args.architecture} {args.encoder}, {args.batch_size} x {args.size}², {device}, {torch.get_num_threads()} threads")
    print(f"bare {statistics.median(bare[1:]):.3f} s, program {statistics.median(program[1:]):.3f} s a step; ratio {ratio:.3f} "
          f"(goal 1.05: {'met' if ratio <= 1.05 else 'MISSED'})")


if __name__ == "__main__":
    main()
