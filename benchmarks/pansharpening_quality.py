"""Train on the upper (or left) part of one pan/ms pair, judge on the lower (right) part: the table of docs/pansharpening.md.

    python -m benchmarks.pansharpening_quality PAN.tif MS.tif --divide-by 2047 WORK_FOLDER

Each method is scored as it is, and with the step of back-projection that inference.py takes unless it gets --no-back-projection;
networks whose training was unlike the pair also with matched inputs, by --match-inputs auto or, where that leaves them, yes.

Wald's protocol: pan and ms are reduced by their ratio with filters that imitate the sensors, so that the original ms is the truth. The
lower half is reduced by itself, nothing of it takes part in training. Classical methods get the same inputs. The commands that make
the chips and train are printed, and are what a user would type.
"""

import argparse
import sys
import time
from pathlib import Path

import torch

from benchmarks.programs import run
from pansharpening.classical import METHODS, fuse_whole
from pansharpening.consistency import finished
from pansharpening.matching import match, statistics_of, training_statistics
from pansharpening.metrics import full_resolution_scores, reduced_resolution_scores, sam
from pansharpening.sharpeners import network_sharpener
from raster.pair import PairReader, match_pair
from raster.resampling import MS_GAIN, PAN_GAIN, reduce_mtf
from runtime.checkpoint import load_checkpoint

SCORES = ("ergas", "sam", "q2n", "psnr", "ssim")


def read_part(pair, divide_by):
    """(ms (1, C, h, w), pan (1, 1, H, W)) of a pair's area, reflectance."""
    with PairReader(pair) as reader:
        return tuple(torch.from_numpy(read(*pair.area).astype("float32"))[None] / divide_by for read in (reader.read_ms, reader.read_pan))


def matched_runs(checkpoint, small_ms, small_pan):
    """[(words, run)] of a network with its inputs matched by what they are when reduced; [] where they are like its training."""
    training = training_statistics(checkpoint)
    found = training and match(statistics_of(small_pan.flatten().numpy(), small_ms[0].flatten(1).numpy()), training)
    if not found or not found.is_foreign:
        return []
    how = "matched" if found.is_needed else "matched by yes"
    return [(how, network_sharpener(checkpoint, matching=found).run)]


def main(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pan")
    parser.add_argument("ms")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--divide-by", type=float, required=True)
    parser.add_argument("--shift", default="0,0")
    parser.add_argument("--area", help="column,row,width,height in ms pixels, where not all of the pair is valid")
    parser.add_argument("--share", type=float, default=0.5, help="of the rows to train on")
    parser.add_argument("--left-right", action="store_true", help="of the columns in place of the rows: where upper and lower part are as "
                        "different as water and a town")
    parser.add_argument("--gain", type=float, default=MS_GAIN, help="of the simulated sensor at Nyquist; methods take 0.3")
    parser.add_argument("--epochs", type=int, help="in place of the recipe's")
    parser.add_argument("--weights", nargs="*", default=[], metavar="FILE", help="other checkpoints to judge, such as the shipped one")
    args = parser.parse_args(argv)
    pan, ms, folder = Path(args.pan).resolve(), Path(args.ms).resolve(), args.folder.resolve()
    pair = match_pair(pan, ms, tuple(map(float, args.shift.split(","))))
    pair = pair.inside(tuple(map(int, args.area.split(",")))) if args.area else pair
    column, row, width, height = pair.area
    split = int((width if args.left_right else height) * args.share)
    rest = (width - split, height) if args.left_right else (width, height - split)
    whole = [side // pair.ratio * pair.ratio for side in rest]  # of coarse pixels
    upper, lower = (column, row, width, split), (column, row + split, *whole)
    if args.left_right:
        upper, lower = (column, row, split, height), (column + split, row, *whole)

    def words(area):
        return ["--pan", pan, "--ms", ms, f"--shift={args.shift}", "--divide-by", args.divide_by, "--area", ",".join(map(str, area))]

    side = min(64, min(upper[2:]) // 8 * 8)
    test_side = min(lower[2:]) // 8 * 8
    started = time.perf_counter()
    run("chip.py", "make-chips", "--config", "pansharpen", *words(upper), "-c", folder / "train", "--chip-size", side)
    run("chip.py", "make-chips", "--config", "pansharpen", *words(lower), "-c", folder / "test", "--chip-size", test_side,
        "--sampler", "grid", "-n", (lower[2] // test_side) * (lower[3] // test_side))
    run("train_pansharpen.py", "--config", "pansharpen", "--session", "quality", "--sessions-dir", folder / "sessions", "--chips",
        folder / "train", "--test-chips", folder / "test", *(["--epochs", args.epochs] if args.epochs else []), "--device", "cpu",
        "--workers", 0)
    seconds = time.perf_counter() - started

    truth, full_pan = read_part(pair.inside(lower), args.divide_by)
    small_ms, small_pan = reduce_mtf(truth, pair.ratio, args.gain), reduce_mtf(full_pan, pair.ratio, PAN_GAIN)
    sharpeners = {name: lambda m, p, name=name: fuse_whole(name, m, p, pair.ratio) for name in METHODS}
    # the last epoch, not the one that was best on the test chips: those are the very pixels that are judged here
    network = folder / "sessions" / "quality" / "checkpoints" / "final_model.pt"
    files = {"network": network, **{Path(f).stem: f for f in args.weights}}
    for name, file in files.items():
        checkpoint = load_checkpoint(file, "pansharpen")
        sharpeners[name] = network_sharpener(checkpoint).run
        sharpeners |= {f"{name}, {how}": matched for how, matched in matched_runs(checkpoint, small_ms, small_pan)}
    place = f"columns {lower[0]} to {lower[0] + lower[2] - 1}, rows {lower[1]} to {lower[1] + lower[3] - 1}"
    print(f"\nscored on {place} of ms; chips and training took {seconds:.0f} s on this machine\n")
    print(f"| method | {' | '.join(SCORES)} | SAM but in the darkest fifth | D_lambda | D_s | QNR |")
    print("|---|" + "---|" * (len(SCORES) + 4))
    brightness = truth[0].norm(dim=0)
    lit = (brightness > brightness.quantile(0.2)).numpy()
    for name, sharpen in sharpeners.items():
        small, full = sharpen(small_ms, small_pan), sharpen(truth, full_pan)
        for words, back_projection in ((name, False), (f"{name}, back-projected", True)):
            image = finished(small, small_ms, "bands", pair.ratio, back_projection)[0].numpy()
            scores = reduced_resolution_scores(truth[0].numpy(), image, pair.ratio, peak=1.0)
            fused = finished(full, truth, "bands", pair.ratio, back_projection)[0].numpy()
            whole = full_resolution_scores(fused, truth[0].numpy(), full_pan[0].numpy(), small_pan[0].numpy(), pair.ratio)
            numbers = [f"{scores[s]:.3f}" for s in SCORES] + [f"{sam(truth[0].numpy(), image, lit):.3f}"]
            numbers += [f"{whole[s]:.3f}" for s in ("d_lambda", "d_s", "qnr")]
            print(f"| {words} | {' | '.join(numbers)} |")


if __name__ == "__main__":
    main(sys.argv[1:])
