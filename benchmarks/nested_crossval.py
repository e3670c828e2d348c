"""
Nested cross-validation over the Californian fires: every choice is made inside the outer fold, on fires that are not scored.

    python -m benchmarks.nested_crossval work                   # 40 trainings of 40 CPU seconds, then maps; what is finished is kept
    python -m benchmarks.nested_crossval work --seeds 0

The folds are those of wildfire_crossval.py. For the choices of fold i, networks are trained without the fires of i and of a neighbouring
fold j, and judged on those of j: with neighbours in a ring each network serves two outer folds. Chosen, by the highest pooled IoU there:
CutMix, sizes and overlap of the windows, and the share of --index-check. Then networks of several seeds, trained without fold i, are scored
on its fires, one by one and as an ensemble; how many seeds are averaged is not chosen. Scored is what inference.py maps: last epoch, most
likely class, whole scenes. "Before" is a map of one network without CutMix, windows of 128 that share a quarter. False alarms are those of
false_alarms.py, over the same networks.
"""

import argparse
import itertools
import os
from pathlib import Path

from benchmarks.false_alarms import Way, alarms, burned, burned_probability, unburned_ground
from benchmarks.wildfire_crossval import CHIPPING, EXCLUDED, RECIPE, ROOT, fire_iou, partition, pooled_iou, run, score_nbr

FOLDS = 5
CUTMIX = (0.0, 0.5)
WINDOWS = ((128,), (192,), (128, 192), (96, 128, 192))
OVERLAPS = (0.25, 0.5)
SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)  # of --index-check; 0: off
BEFORE = (0.0, (128,), 0.25, 0.0)  # cutmix, windows, overlap, share


def networks_of(folds, seeds):
    """[(fires that are left out, cutmix, seed), …]: first those of the choices, then those that are scored, seed by seed."""
    inner = [(left_out(folds, i, (i + 1) % len(folds)), cutmix, 0) for i in range(len(folds)) for cutmix in CUTMIX]
    return inner + [(tuple(fires), cutmix, seed) for seed in seeds for fires in folds for cutmix in CUTMIX]


def left_out(folds, *numbers):
    return tuple(sorted(fire for number in numbers for fire in folds[number]))


def folder_of(work, out, cutmix, seed):
    return work / "-".join(out) / f"cutmix{cutmix:g}-seed{seed}"


def train_network(data, work, out, cutmix, seed):
    """Trains the network that sees all fires but `out`, unless it is there."""
    patches, output = work / "-".join(out) / "patches", folder_of(work, out, cutmix, seed)
    if (output / "checkpoints" / "final_model.pt").exists():
        return
    if not (patches / "chipset.json").exists():
        run(1, "chip.py", "make-patches", "--images", data / "post_fire", "--masks", data / "masks", *CHIPPING,
            "--val", ",".join(out), "--patches-dir", patches, "--quiet")
    seconds = run(1, "train.py", "--patches-dir", patches, "--output-dir", output, *RECIPE, "--cutmix", cutmix, "--seed", seed,
                  "--num-workers", "0", "--device", "cpu", "--save-every", "0", "--overwrite", "--quiet")
    print(f"without {','.join(out)}, cutmix {cutmix:g}, seed {seed}: {seconds:.0f} CPU s", flush=True)


class Study:
    """Images, labels and networks, and the probabilities of maps, which are kept beside the networks. data: with wildfire/."""

    def __init__(self, data, work, fires):
        self.data, self.work, self.fires = data, work, fires
        self.images, self.labels, self.models, self.thresholds, self.kept = {}, {}, {}, {}, {}

    def scene(self, fire):
        """((5, H, W) float32 in the training's units, NaN where unknown; (H, W) label 0 and 1)."""
        import numpy as np
        import rasterio

        if fire not in self.images:
            (image,), (mask,) = ((self.data / "wildfire").glob(f"{folder}/{fire}_*.tif") for folder in ("post_fire", "masks"))
            with rasterio.open(image) as source, rasterio.open(mask) as labels:
                scale = np.array([255, 255, 255, 1e4, 1e4])[:, None, None]
                self.images[fire], self.labels[fire] = (source.read() / scale).astype(np.float32), labels.read(1) == 1
        return self.images[fire], self.labels[fire]

    def model(self, out, cutmix, seed):
        from model import model_from_checkpoint
        from runtime.checkpoint import load_checkpoint

        key = out, cutmix, seed
        if key not in self.models:
            path = folder_of(self.work, *key) / "checkpoints" / "final_model.pt"
            self.models[key] = model_from_checkpoint(load_checkpoint(path)).eval()
        return self.models[key]

    def check(self, out, share):
        """The IndexCheck whose threshold is that of the fires that are not left out; None for no share."""
        from mapping.index_check import IndexCheck

        if out not in self.thresholds:
            self.thresholds[out] = score_nbr(self.data / "wildfire", self.fires, out)[1]
        return IndexCheck("nbr", self.thresholds[out], False, share) if share else None

    def probability(self, network, fire, windows, overlap):
        """(H, W) float32 of one network, the mean over sizes."""
        import numpy as np

        maps = []
        for side in windows:
            path = folder_of(self.work, *network) / "maps" / f"{fire}-{side}-{overlap:g}.npy"
            if path not in self.kept:
                if not path.exists():
                    path.parent.mkdir(exist_ok=True)
                    np.save(path, burned_probability([self.model(*network)], self.scene(fire)[0], Way(side, overlap)))
                self.kept[path] = np.load(path)
            maps.append(self.kept[path])
        return sum(maps) / len(maps)

    def matrix(self, networks, fire, windows, overlap, share):
        """[[true negative, false positive], [false negative, true positive]] of the mean of some networks."""
        import numpy as np

        (image, label), bands = self.scene(fire), self.model(*networks[0]).config.bands
        probability = sum(self.probability(network, fire, windows, overlap) for network in networks) / len(networks)
        found = burned(probability, np.nan_to_num(image), self.check(networks[0][0], share), bands)
        valid = np.isfinite(image).all(axis=0)
        return [[int((valid & (label == t) & (found == p)).sum()) for p in (False, True)] for t in (False, True)]


def choose(study, folds, number):
    """((cutmix, windows, overlap, share), pooled IoU of the inner fires, that of BEFORE) of an outer fold."""
    pairs = [(left_out(folds, number, other), folds[other]) for other in ((number + 1) % len(folds), (number - 1) % len(folds))]

    def score(way):
        cutmix, *how = way
        return pooled_iou([study.matrix([(out, cutmix, 0)], fire, *how) for out, fires in pairs for fire in fires])

    scores = {way: score(way) for way in itertools.product(CUTMIX, WINDOWS, OVERLAPS, SHARES)}
    best = max(scores, key=scores.get)
    return best, scores[best], scores[BEFORE]


def words(way):
    cutmix, windows, overlap, share = way
    check = f"index check {share:g}" if share else "no index check"
    return f"CutMix {cutmix:g}, windows {', '.join(map(str, windows))}, overlap {overlap:g}, {check}"


def ways_of(chosen):
    """{name: function outer fold → way}: the two ends, and each choice alone in place of what was before."""
    singles = {"CutMix 0.5": (0, 0.5), "overlap 0.5": (2, 0.5), "windows 128, 192": (1, (128, 192)), "index check 0.1": (3, 0.1)}
    ways = {"before": lambda k: BEFORE}
    for name, (place, value) in singles.items():
        ways[name] = lambda k, place=place, value=value: (*BEFORE[:place], value, *BEFORE[place + 1 :])
    ways["overlap 0.5, index check 0.1"] = lambda k: (0.0, (128,), 0.5, 0.1)
    ways["CutMix 0.5, overlap 0.5"] = lambda k: (0.5, (128,), 0.5, 0.0)
    ways["CutMix 0.5, overlap 0.5, index check 0.1"] = lambda k: (0.5, (128,), 0.5, 0.1)
    return {**ways, "chosen in each fold": lambda k: chosen[k]}


def table(study, folds, seeds, chosen):
    """Markdown: pooled IoU and mean of fires, by seed and of the ensemble of all seeds."""
    names = [*(f"seed {seed}" for seed in seeds), "mean, range", f"mean of {len(seeds)} networks"]
    lines = [f"| maps | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for name, way_of in ways_of(chosen).items():
        scores = []
        for members in [*([seed] for seed in seeds), list(seeds)]:
            matrices = []
            for k, fires in enumerate(folds):
                cutmix, *how = way_of(k)
                matrices += [study.matrix([(tuple(fires), cutmix, seed) for seed in members], fire, *how) for fire in fires]
            scores.append((pooled_iou(matrices), sum(map(fire_iou, matrices)) / len(matrices)))
        single = [pooled for pooled, _ in scores[:-1]]
        texts = [f"{pooled:.3f} ({mean:.3f})" for pooled, mean in scores]
        spread = f"{sum(single) / len(single):.3f}, {max(single) - min(single):.3f}"
        lines.append(f"| {' | '.join([name, *texts[:-1], spread, texts[-1]])} |")
    return "\n".join(lines)


def alarm_table(study, folds, seeds, chosen):
    """Markdown: false_alarms.py over the networks of all outer folds."""
    grounds, kept = unburned_ground(study.data), {}
    lines = [f"| maps | {' | '.join(f'{name}: burned; moved' for name in grounds)} |", "|---" * (len(grounds) + 1) + "|"]
    ways = ways_of(chosen)
    rows = [(f"{name}, one network", name, True) for name in ways]
    rows += [(f"{name}, mean of networks", name, False) for name in ("before", *list(ways)[-4:])]
    for label, name, alone in rows:
        cells = []
        for ground, images in grounds.items():
            found = []
            for k, fires in enumerate(folds):
                cutmix, windows, overlap, share = ways[name](k)
                models = [study.model(tuple(fires), cutmix, seed) for seed in seeds]
                way = Way(list(windows) if len(windows) > 1 else windows[0], overlap, study.check(tuple(fires), share))
                found += [alarms(some, images, way, kept, ground) for some in ([[m] for m in models] if alone else [models])]
            share, difference, changed = (sum(column) / len(found) for column in zip(*found, strict=True))
            cells.append(f"{share:.2%}; {difference:.3f}, {changed:.2%}")
        lines.append(f"| {label} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = os.environ.get("CHIPMILL_DATA", ROOT.parent / "shared" / "data")
    parser.add_argument("work", type=Path, help="folder for patches, networks and maps")
    parser.add_argument("--data", type=Path, default=Path(data), help="folder with wildfire/, floods/ and hls/")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the networks that are scored")
    parser.add_argument("--train-only", action="store_true", help="make no maps yet")
    args = parser.parse_args()

    fires, work = sorted({path.stem.split("_")[0] for path in (args.data / "wildfire" / "post_fire").glob("*.tif")} - {EXCLUDED}), args.work
    folds = partition(fires, FOLDS)
    for network in networks_of(folds, args.seeds):
        train_network(args.data / "wildfire", work.resolve(), *network)
    if args.train_only:
        return
    study, chosen = Study(args.data, work.resolve(), fires), []
    for number in range(FOLDS):
        way, score, before = choose(study, folds, number)
        chosen.append(way)
        print(f"fold {number}: {words(way)}; pooled IoU of its inner fires {score:.3f}, before {before:.3f}", flush=True)
    print(table(study, folds, args.seeds, chosen), flush=True)
    print(alarm_table(study, folds, args.seeds, chosen))


if __name__ == "__main__":
    main()
