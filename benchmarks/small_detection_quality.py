"""
AP50 of TinyDet and BigDet on frames that they were not trained on, beside that of the mean box of the training frames.

    python benchmarks/small_detection_quality.py shapes --config bigdet --objects 0-5                  # moving shapes, unseen runs
    python benchmarks/small_detection_quality.py shapes --config tinydet --objects 1
    python benchmarks/small_detection_quality.py masks --images images --masks masks --config bigdet   # folds of your own frames
    python benchmarks/small_detection_quality.py masks --images images --masks masks --config bigdet --encoder tu-tf_efficientnet_lite0

shapes: runs of which a fifth validates, and a quarter as many made with another seed that are scored. masks: every frame is scored once, by
a detector that was trained on the other folds for all of its epochs, and that no score was looked at for. --output-dir keeps trainings and
pictures of the last run: shapes_quality/ or masks_quality/ in it is emptied first, since frames of an earlier one would take part.
"""

import argparse
import shutil
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

import chip  # noqa: E402
import train_small_detection  # noqa: E402
from chipping.warehouse import open_warehouse  # noqa: E402
from detection.small_detectors import small_detector_from_checkpoint  # noqa: E402
from detection.small_finder import SmallFinder  # noqa: E402
from detection.small_samples import write_small_samples  # noqa: E402
from detection.small_scores import mean_box, score_frames, truths_in  # noqa: E402
from raster.letterbox import Letterbox  # noqa: E402
from runtime.checkpoint import load_checkpoint  # noqa: E402
from runtime.device import Compute, choose_device  # noqa: E402


def warehouse(source, folder, size, ratio):
    words = [*source, "--output-root", folder, "--target-size", size, "--val-ratio", ratio, "--quiet"]
    chip.main(["make-warehouse", *map(str, words)])
    return open_warehouse(folder)


def train(folder, name, more):
    """Path of the best weights, CPU seconds of the training."""
    begun, best = time.process_time(), folder / f"{name}.bin"
    words = ["--manifest", folder / "train", "--checkpoint-out", best, "--device", "cpu", "--overwrite", "--log-interval", "0", *more]
    train_small_detection.main([str(word) for word in words])
    return best, time.process_time() - begun


def score(best, train_set, test_set):
    """(truths, found, the mean box of the training frames as found) of all frames of test_set, in pixels of the input."""
    compute = Compute(device=choose_device("cpu"), channels_last=True)
    detector = compute.place(small_detector_from_checkpoint(load_checkpoint(best)))
    finder, size = SmallFinder(detector=detector, compute=compute), test_set.target_size
    batch = test_set.read(range(len(test_set)))
    found = [finder.find([Letterbox(size, size)], [image])[0] for image in batch["images"]]
    truths = truths_in(batch["boxes"], batch["mask"], batch["labels"], size)
    names = [sample.id for sample in test_set.samples]
    return truths, found, [mean_box(train_set)] * len(truths), (batch["images"], names)


def tell(what, truths, found, same, seconds, classes):
    scores, base = (score_frames(truths, boxes, classes, threshold=0.3) for boxes in (found, same))
    objects = sum(len(truth["boxes"]) for truth in truths)
    print(f"{what}: {len(truths)} frames, {objects} objects, AP50 {scores['ap50']:.3f}, precision {scores['precision']:.3f}, recall "
          f"{scores['recall']:.3f} at 0.3; mean box {base['ap50']:.3f}; training {seconds:.0f} CPU s", flush=True)


def shapes(folder, options, more):
    for name, runs, seed in (("train", options.runs, 1), ("test", max(2, options.runs // 4), 1001)):
        words = ["--runs", runs, "--frames", options.frames, "--size", options.size, "--objects", options.objects, "--seed", seed]
        chip.main(["fake-captures", "-o", str(folder / f"{name}_captures"), *map(str, words), "--quiet"])
    train_set = warehouse(["--runs", folder / "train_captures"], folder / "train", options.size, 0.2)
    test_set = warehouse(["--runs", folder / "test_captures"], folder / "test", options.size, 0)
    best, seconds = train(folder, "shapes", more)
    truths, found, same, (images, names) = score(best, train_set, test_set)
    tell(f"{options.config}, {options.objects} shapes", truths, found, same, seconds, test_set.classes)
    some = list(range(0, len(truths), max(1, len(truths) // 6)))[:6]
    parts = ([part[k] for k in some] for part in (truths, found, names))
    write_small_samples(folder / "found.png", images[some], *parts, test_set.classes, 0.3)


def masks(folder, options, more):
    files = sorted(path.name for path in Path(options.images).iterdir() if path.name[0] != ".")
    together, total = [[], [], []], 0.0
    pictures = []
    for fold in range(options.folds):
        here = folder / f"fold{fold}"
        held_out = files[fold :: options.folds]
        for name, chosen in (("train", [file for file in files if file not in held_out]), ("test", held_out)):
            for kind, source in (("images", options.images), ("masks", options.masks)):
                (here / f"{name}_{kind}").mkdir(parents=True, exist_ok=True)
                for file in chosen:
                    shutil.copy(Path(source) / file, here / f"{name}_{kind}" / file)
        sets = [warehouse(["--images", here / f"{name}_images", "--annotations", here / f"{name}_masks"], here / name, options.size, 0)
                for name in ("train", "test")]
        best, seconds = train(here, "masks", more)
        last = best.with_name("masks.last.pt")  # of all epochs; the best one would be that of the lowest training loss
        *parts, (images, names) = score(last, *sets)
        for whole, part in zip(together, parts, strict=True):
            whole += part
        total += seconds
        pictures += zip(images, names, strict=True)
        tell(f"fold {fold}", *parts, seconds, sets[0].classes)
    tell(f"{options.config}, all folds, {' '.join(more)}", *together, total, sets[0].classes)
    images, names = np.stack([image for image, _ in pictures]), [name for _, name in pictures]
    write_small_samples(folder / "found.png", images, *together[:2], names, sets[0].classes, 0.3)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=("shapes", "masks"))
    parser.add_argument("--config", default="bigdet")
    parser.add_argument("--objects", default="0-5")
    parser.add_argument("--runs", type=int, default=40, help="of the captures; each has its own ground")
    parser.add_argument("--frames", type=int, default=8, help="of each run")
    parser.add_argument("--size", default="384x384", help="of the captures and of the warehouse")
    parser.add_argument("--images")
    parser.add_argument("--masks")
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--output-dir", default="small_detection_quality")
    options, more = parser.parse_known_args()
    folder = Path(options.output_dir) / f"{options.data}_quality"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    {"shapes": shapes, "masks": masks}[options.data](folder, options, ["--config", options.config, *more])


if __name__ == "__main__":
    main()
