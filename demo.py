"""
The whole story in five minutes; and pictures of what a checkpoint does.

    python demo.py                                                     # scenes → patches → training → a map → demo/report.html
    python demo.py --checkpoint output/checkpoints/best_model.pt --patches-dir patches
    python demo.py --checkpoint best_model.pt --scenes 'post_fire/*.tif' --masks 'masks/*.tif'
    python demo.py --checkpoint sessions/latest.pt --chips chips/test           # low resolution, baseline, ours, truth

Without a checkpoint: burnt country is generated (synthetic/), and chip.py, train.py and inference.py are run on it as you would
run them on your own data; each command is printed before it runs. demo/report.html is one page that can be sent to anyone. Stages that
are finished are not repeated when the same command is started again.

With a checkpoint: scene, truth, map and errors of the best, median and worst cases, as PNG sheets and a page, in --output-dir.
"""

import dataclasses
import os
import sys
import time

from constants import VERSION
from runtime.errors import RunError, Terminated, UserError, run_program
from runtime.flags import Parser, add_common_flags, parse_with_config

ROOT = os.path.dirname(os.path.abspath(__file__))


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How much of everything the demo makes. Sizes in pixels of 10 m; the mapped scene belongs to no other split."""

    train_scenes: int = 12
    val_scenes: int = 3
    scene_size: int = 512
    mapped_size: int = 768
    patch_size: int = 256
    crop: int = 128
    epochs: int = 10
    steps: int = 24
    batch_size: int = 8
    workers: int = 2


# About two minutes of training on two cores.
FULL = Recipe()
# For tests: everything happens, nothing is learned.
FAST = Recipe(
    train_scenes=2, val_scenes=1, scene_size=96, mapped_size=128, patch_size=64, crop=0, epochs=2, steps=3, batch_size=4, workers=1
)


def build_parser():
    parser = Parser(prog="demo.py", description=__doc__)
    parser.add_argument("--output-dir", metavar="DIR", help="where everything goes; demo, or pictures with --checkpoint")
    parser.add_argument("-o", "--overwrite", action="store_true", help="start anew, replacing what an earlier demo made")
    parser.add_argument("-d", "--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")

    group = parser.add_argument_group("the story (without --checkpoint)")
    group.add_argument("--seed", type=int, default=0, help="other seeds, other places")
    group.add_argument("--fast", action="store_true", help="tiny sizes, to see that everything works; the map is worth nothing")
    group.add_argument("--save-pictures", metavar="DIR", help="also write the report's pictures as files, 640 pixels wide at most")

    group = parser.add_argument_group("pictures of a checkpoint")
    group.add_argument("-w", "--checkpoint", metavar="FILE", help="what a training program wrote: output/checkpoints/best_model.pt")
    group.add_argument("--patches-dir", metavar="DIR", help="patches with truth; those the checkpoint was trained on by default")
    group.add_argument("--split", choices=("train", "val", "test"), help="of the patches; test, or else val, by default")
    group.add_argument("--scenes", nargs="+", metavar="SCENE", help="rasters, folders or globs in place of patches")
    group.add_argument("--masks", nargs="+", metavar="PATTERN", help="labels with the scenes' names; masks/ beside them by default")
    group.add_argument("--chips", metavar="DIR", help="pan/ms chips for a sharpening checkpoint; those it was trained on by default")
    group.add_argument("--cases", type=int, default=6, help="how many of the best, median and worst each")
    add_common_flags(parser)
    return parser


def main(argv=None):
    args, given = parse_with_config(build_parser(), sys.argv[1:] if argv is None else argv)
    check_flags(args, given)
    if not args.checkpoint:
        return tell_story(args.output_dir or "demo", args.seed, args.fast, args.overwrite, args.device, args.save_pictures, args.quiet)

    from runtime.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(args.checkpoint)
    if checkpoint["kind"] not in SHOW:
        raise UserError(f"{args.checkpoint} is a {checkpoint['kind']} checkpoint; demo.py can show {', '.join(SHOW)}")
    return SHOW[checkpoint["kind"]](args, checkpoint)


def check_flags(args, given):
    """Pairings that can't be meant are errors before anything is imported."""
    if args.seed < 0:
        raise UserError(f"--seed expects 0 or more, got {args.seed}")
    if args.cases < 1:
        raise UserError(f"--cases expects at least 1, got {args.cases}")
    pictures = ("patches_dir", "split", "scenes", "masks", "chips", "cases")
    story = ("seed", "fast", "save_pictures")
    for name in given:
        flag = "--" + name.replace("_", "-")
        if name in pictures and not args.checkpoint:
            raise UserError(f"{flag} needs --checkpoint: the demo without one makes its own data")
        if name in story and args.checkpoint:
            raise UserError(f"{flag} belongs to the demo without --checkpoint; leave one of them out")
    if args.scenes and (args.patches_dir or args.split):
        raise UserError("pass --scenes, or --patches-dir with --split; not both")
    if args.masks and not args.scenes:
        raise UserError("--masks needs --scenes")
    if args.chips and (args.scenes or args.patches_dir):
        raise UserError("--chips is for sharpening checkpoints, --scenes and --patches-dir for others; pass one of them")


# ----------------------------------------------------------------------------------------------------------------- the story


class Stages:
    """
    Runs stages once. A stage that is done leaves .stages/<name>.json with the time it took, and is not repeated.

    All stages belong to one set of settings: a folder made with others is refused, or emptied with overwrite.
    """

    MADE = ("scenes", "patches", "run", "maps", ".stages", "scenes.part")

    def __init__(self, folder, settings, overwrite, console):
        import shutil
        from pathlib import Path

        from runtime.files import describe_difference, read_json, require_writable, write_json

        self.folder, self.console, self.seconds = Path(folder), console, []
        stamp = self.folder / "demo.json"
        old = read_json(stamp) if stamp.exists() else None
        if old is None and self.folder.is_dir() and any(self.folder.iterdir()):
            raise UserError(f"{folder} is not empty and was not made by demo.py; choose another --output-dir")
        if old is not None and old != settings and not overwrite:
            difference = describe_difference(old, settings)
            raise UserError(f"{folder} holds a demo with other settings ({difference}); pass --overwrite or another --output-dir")
        if old is not None and overwrite:
            for name in self.MADE:
                shutil.rmtree(self.folder / name, ignore_errors=True)
            (self.folder / "report.html").unlink(missing_ok=True)
        require_writable(self.folder)
        write_json(stamp, settings)

    def run(self, name, work):
        """work() unless it is done; notes the seconds it takes."""
        from runtime.files import read_json, write_json

        stamp = self.folder / ".stages" / f"{name}.json"
        if stamp.exists():
            self.seconds.append((name, read_json(stamp)["seconds"]))
            self.console.say(f"{name}: done earlier")
            return
        start = time.perf_counter()
        work()
        self.seconds.append((name, round(time.perf_counter() - start, 1)))
        stamp.parent.mkdir(exist_ok=True)
        write_json(stamp, {"seconds": self.seconds[-1][1]})


def run_command(console, *words):
    """Run one of our programs as a user would, and say how. RunError when it fails: its own words stand above."""
    import shlex
    import subprocess

    words = [str(w) for w in words]
    console.say(f"\n$ python {shlex.join(words)}")
    quiet = ["--quiet"] if console.quiet else []
    child = subprocess.Popen([sys.executable, os.path.join(ROOT, words[0]), *words[1:], *quiet])
    try:
        try:
            code = child.wait()
        except KeyboardInterrupt:  # the child has it too, and makes its work safe first
            child.wait()
            raise
    except BaseException:  # SIGTERM, or a second Ctrl-C
        child.terminate()
        child.wait()
        raise
    if code in (130, -2):
        raise KeyboardInterrupt
    if code:
        raise RunError(f"{words[0]} ended with exit code {code}; start the demo again to go on from here")


def tell_story(folder, seed, fast, overwrite, device, save_pictures, quiet):
    """Scenes, patches, training, scores, map, report. Returns the exit code."""
    import signal

    from runtime.logs import Console

    def stop(number, frame):
        raise Terminated("Start the same command again to go on.")

    signal.signal(signal.SIGTERM, stop)
    console = Console(quiet)
    recipe = FAST if fast else FULL
    stages = Stages(folder, {"version": VERSION, "seed": seed, **dataclasses.asdict(recipe)}, overwrite, console)
    folder = stages.folder
    patches, run, maps = folder / "patches", folder / "run", folder / "maps"
    best = run / "checkpoints" / "best_model.pt"
    on = [] if device == "auto" else ["--device", device]

    def train():
        last = run / "checkpoints" / "last.pt"
        if last.exists():  # an earlier demo was stopped in the middle
            run_command(console, "train.py", "--resume", last, "--output-dir", run, *on)
            return
        run_command(
            console, "train.py", "--patches-dir", patches, "--output-dir", run, "--architecture", "smallunet", "--epochs", recipe.epochs,
            "--steps-per-epoch", recipe.steps, "--batch-size", recipe.batch_size, "--crop", recipe.crop, "--lr", 0.003,
            "--scheduler", "cosine", "--warmup", recipe.steps, "--no-class-weights", "--channels-last", "--num-workers", 0,
            "--patience", 0, "--seed", seed, *on, *(["--overwrite"] if run.exists() else []),
        )

    scene = f"{mapped_tile(recipe)}_S2L2A"
    scene_path = folder / "scenes" / "test" / mapped_tile(recipe)[:7] / "AOI01" / mapped_tile(recipe) / f"{scene}.tif"
    stages.run("scenes", lambda: generate_scenes(folder, recipe, seed, console))
    stages.run("patches", lambda: run_command(
        console, "chip.py", "make-patches", "--dataset-dir", folder / "scenes", "--patches-dir", patches, "--divide-by", 10000,
        "--offset", -1000, "--patch-size", recipe.patch_size, "--workers", recipe.workers,
    ))
    stages.run("training", train)
    stages.run("scores", lambda: run_command(
        console, "train.py", "--test-only", "--resume", best, "--output-dir", run, "--overwrite", *on,
    ))
    stages.run("map", lambda: run_command(
        console, "inference.py", scene_path, "--checkpoint", best, "--output-dir", maps, "--probabilities", *on,
    ))
    headline = write_story(stages, recipe, seed, scene_path, maps, run, save_pictures)
    print(f"{headline}\n{folder / 'report.html'}")
    return 0


def mapped_tile(recipe):
    return f"EMSR{900 + recipe.train_scenes + recipe.val_scenes}_AOI01_01"


def generate_scenes(folder, recipe, seed, console):
    """scenes/{train,val,test} in the CEMS layout: complete under that name, or not there."""
    import shutil
    import signal
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    from synthetic.folders import write_cems_folder

    part, total = folder / "scenes.part", recipe.train_scenes + recipe.val_scenes + 1
    console.say(f"generating {total} scenes of burnt country")
    shutil.rmtree(part, ignore_errors=True)
    splits = ["train"] * recipe.train_scenes + ["val"] * recipe.val_scenes + ["test"]
    bar = console.progress(total, "scenes")
    quietly = {"initializer": signal.signal, "initargs": (signal.SIGINT, signal.SIG_IGN)}  # Ctrl-C is told by this process alone
    pool = ProcessPoolExecutor(recipe.workers, mp_context=get_context("spawn"), **quietly)
    try:
        jobs = []
        for number, split in enumerate(splits):
            size = recipe.mapped_size if split == "test" else recipe.scene_size
            # The mapped scene is one with everything in it: fields, an old scar, a few clouds.
            changes = {"cloud_share": 0.012, "old_fire": True, "swath_edge": False, "fire_share": 0.2} if split == "test" else {}
            jobs.append(pool.submit(write_cems_folder, part / split, [100 * seed + number], size, size, first=900 + number, **changes))
        for job in jobs:
            job.result()
            bar.update()
    finally:
        pool.shutdown(cancel_futures=True)
    bar.close()
    shutil.rmtree(folder / "scenes", ignore_errors=True)
    os.replace(part, folder / "scenes")


def compare(name, truth, prediction):
    """pictures.report.Scores of a map, over the pixels that have both. Pixels are 10 m, a hundredth of a hectare."""
    from pictures.report import Scores

    judged = (truth != 255) & (prediction != 255)
    burned, mapped = judged & (truth > 0), judged & (prediction > 0)
    hit, missed, false = (int(m.sum()) for m in (burned & mapped, burned & ~mapped, mapped & ~burned))

    def share(of):
        return hit / of if of else None

    shares = share(hit + missed), share(hit + false), share(hit + missed + false)
    return Scores(name, *shares, (hit + false) / 100, missed / 100, false / 100)


def write_story(stages, recipe, seed, scene_path, maps, run, save_pictures):
    """Reads what the stages made and writes report.html. Returns the headline."""
    import csv
    import datetime

    import numpy as np
    import rasterio

    from constants import CEMS_BANDS, CLASS_COLOURS, SENTINEL2_DIVISOR, SENTINEL2_L2A_BANDS, SENTINEL2_OFFSET
    from mapping.scoring import burn_index
    from pictures import report
    from pictures.pictures import fit_within, jpeg_bytes
    from runtime.checkpoint import load_checkpoint
    from runtime.files import read_json, write_text

    with rasterio.open(scene_path) as dataset:
        stored = dataset.read()
        day = datetime.date.fromisoformat(dataset.tags()["ACQUISITION_DATE"])
    empty = (stored == 0).all(axis=0)
    reflectance = ((stored + SENTINEL2_OFFSET) / SENTINEL2_DIVISOR).astype(np.float32)
    reflectance[:, empty] = 0.0

    def read(path):
        with rasterio.open(path) as dataset:
            return dataset.read(1), dataset.scales[0]

    truth, _ = read(str(scene_path).replace("_S2L2A", "_DEL"))
    prediction, _ = read(maps / f"{scene_path.stem}_classes.tif")
    probability, scale = read(maps / f"{scene_path.stem}_probability.tif")
    probability = np.where(prediction == 255, np.nan, probability * np.float32(scale))

    scores = read_json(run / "scores_test.json")
    nir, swir = (reflectance[SENTINEL2_L2A_BANDS.index(CEMS_BANDS[i])] for i in burn_index(CEMS_BANDS))
    index = (nir - swir) / np.maximum(nir + swir, 1e-4)
    threshold, above = scores["nbr_threshold"], scores["nbr_fire_is_above"]
    if threshold is None:  # nothing burns in the training scenes
        threshold, above = -1.0, False
    baseline = np.where(empty, 255, index >= threshold if above else index < threshold).astype(np.uint8)

    checkpoint = load_checkpoint(run / "checkpoints" / "best_model.pt", "segmentation")
    weights = sum(v.numel() for v in checkpoint["state"]["model"].values() if v.is_floating_point())
    with open(run / "metrics.csv", encoding="utf-8", newline="") as file:
        rows = [{k: float(v) if v else None for k, v in row.items()} for row in csv.DictReader(file)]
    curves = [{**row, "epoch": int(row["epoch"]) + 1} for row in rows]

    height, width = truth.shape
    colour = CLASS_COLOURS[2][1]
    views = report.scene_views(reflectance, SENTINEL2_L2A_BANDS, truth, prediction, probability, baseline, colour)
    seconds = dict(stages.seconds)
    side = recipe.scene_size / 100
    facts = [
        ("Scenes", f"{recipe.train_scenes} for training and {recipe.val_scenes} held back, {side:.1f} km a side; one to be mapped"),
        ("Network", f"U-Net of {report.whole(weights)} weights, trained from nothing"),
        ("Sees", f"{len(CEMS_BANDS)} of the 12 bands: {', '.join(CEMS_BANDS)}"),
        ("Training", f"{recipe.epochs} epochs of {recipe.steps} steps of {recipe.batch_size} crops"),
        ("Burned from", f"probability {checkpoint['data'].get('threshold') or 0.5:.2f} on, chosen on the scenes held back"),
        ("NBR threshold", f"{threshold:.2f}, chosen on the training scenes"),
        ("Seed", str(seed)),
        ("Clouds", "judged like everything else: what burned beneath them counts"),
    ]
    story = report.Story(
        scene=scene_path.stem.removesuffix("_S2L2A"), date=f"{day.day} {day:%B %Y}", kilometres=(width / 100, height / 100),
        hectares=float((truth == 1).sum()) / 100, network=compare("Network", truth, prediction),
        baseline=compare("NBR threshold", truth, baseline), views=views, curves=curves, training=report.in_words(seconds["training"]),
        facts=facts, stages=stages.seconds, commands=own_data_commands(), version=VERSION,
    )
    write_text(stages.folder / "report.html", report.build_report(story))
    if save_pictures:
        os.makedirs(save_pictures, exist_ok=True)
        for name, view in views.items():
            with open(os.path.join(save_pictures, f"demo-{name.replace('_', '-')}.jpg"), "wb") as file:
                file.write(jpeg_bytes(fit_within(view.picture, 640)))
    return " ".join(report.headline(story))


def own_data_commands():
    """The five commands of the report's last section: (what it does, command)."""
    return [
        (
            "Cut your scenes and their masks (same names in both folders) into patches; one fire in five is "
            "held back for validation, another one for the test.",
            "python chip.py make-patches --images 'scenes/*.tif' --masks 'masks/*.tif' \\\n"
            "    --divide-by 10000 --offset -1000 --val 0.2 --test 0.2 --patches-dir patches",
        ),
        ("Look at them before you spend time on them.", "python chip.py inspect patches"),
        (
            "Train. It goes on where it was if it is interrupted and started with --resume.",
            "python train.py --patches-dir patches --num-classes 2 --output-dir output",
        ),
        (
            "Score it on whole scenes it has not seen, beside the NBR threshold.",
            "python train.py --test-only --resume output/checkpoints/best_model.pt",
        ),
        (
            "Map new scenes: GeoTIFF, outlines, hectares, pictures.",
            "python inference.py --checkpoint output/checkpoints/best_model.pt new/*.tif --output-dir maps",
        ),
    ]


# --------------------------------------------------------------------------------------------------- pictures of a checkpoint


def show_segmentation(args, checkpoint):
    """Sheets of the best, median and worst patches or scenes, and a page with them. Returns the exit code."""
    from pathlib import Path

    from mapping import gallery
    from pictures import report
    from pictures.pictures import contact_sheet, save_png
    from runtime.files import refuse_existing, require_writable, write_text
    from runtime.logs import Console

    if args.chips:
        raise UserError("--chips is for sharpening checkpoints; a segmentation checkpoint is shown on --scenes or --patches-dir")
    console = Console(args.quiet)
    folder = Path(args.output_dir or "pictures")
    refuse_existing([folder / "index.html"], args.overwrite)
    require_writable(folder)
    if args.scenes:
        cases, words = scene_cases(args, checkpoint, folder, console)
    else:
        patches_dir = args.patches_dir or checkpoint["data"]["patches_dir"]
        bar = console.progress(0, "patches")
        cases, words = gallery.patch_cases(checkpoint, patches_dir, args.split, args.cases, args.device, bar.update)
        bar.close()
    if not cases:
        raise RunError(f"nothing to show: {words}")
    sections = []
    for kind, chosen in cases.items():
        captions = [c.name if c.score is None else f"{c.name}: fire IoU {c.score:.2f}" for c in chosen]
        sheet = contact_sheet([c.views for c in chosen], gallery.TITLES, captions)
        save_png(folder / f"{kind}.png", sheet)
        alt = f"{len(chosen)} {kind} cases, each as {', '.join(gallery.TITLES)}: {'; '.join(captions)}"
        sections.append((kind.capitalize(), "White: found. Orange: missed. Blue: marked in error. Grey: not judged.", sheet, alt))
        print(folder / f"{kind}.png")
    write_text(folder / "index.html", report.build_gallery(f"What {Path(args.checkpoint).name} does", words, sections))
    print(f"{words}\n{folder / 'index.html'}")
    return 0


def scene_cases(args, checkpoint, folder, console):
    """Maps of --scenes as cases, by inference.py; scenes without labels come under "unlabelled"."""
    import inference
    from mapping import gallery
    from mapping.inputs import plan_input
    from raster.source import describe, list_rasters, scene_name

    data, classes = checkpoint["data"], len(checkpoint["data"]["classes"])
    scenes = list_rasters(args.scenes)
    masks = list_rasters(args.masks) if args.masks else []
    quiet = ["--quiet"] if console.quiet else []
    overwrite = ["--overwrite"] if args.overwrite else []
    words = [*scenes, "--checkpoint", args.checkpoint, "--output-dir", str(folder / "maps"), "--device", args.device]
    code = inference.main([*words, *quiet, *overwrite])
    if code:
        raise RunError(f"inference.py ended with exit code {code}")
    cases = []
    for scene in scenes:
        name = scene_name(scene)
        plan = plan_input(describe(scene), data, checkpoint["model"].get("mean"))
        classes_path = folder / "maps" / f"{name}_classes.tif"
        cases.append(gallery.scene_case(name, plan, data["bands"], classes_path, gallery.find_mask(scene, masks), classes))
    chosen = gallery.choose([(case.score, case.wrong) for case in cases], args.cases)
    shown = {kind: [cases[i] for i in indices] for kind, indices in chosen.items()}
    if rest := [case for case in cases if case.score is None]:
        shown["unlabelled"] = rest[: args.cases]
    return shown, f"{len(cases)} scenes, {len(cases) - len(rest)} of them with fire in truth or map."


def show_pansharpening(args, checkpoint):
    """Sheets of chips as they came, by the best classical method, by the network, and the truth; and a page. Returns the exit code."""
    from pathlib import Path

    from pansharpening import gallery
    from pictures import report
    from pictures.pictures import contact_sheet, save_png
    from runtime.device import choose_device
    from runtime.files import refuse_existing, require_writable, write_text
    from runtime.logs import Console

    if args.scenes or args.patches_dir or args.split:
        raise UserError("a sharpening checkpoint is shown on pan/ms chips: pass --chips")
    folder = Path(args.output_dir or "pictures")
    refuse_existing([folder / "index.html"], args.overwrite)
    require_writable(folder)
    bar = Console(args.quiet).progress(0, "chips")
    chips = args.chips or checkpoint["data"]["chips_dir"]
    cases, measure = gallery.pan_cases(checkpoint, chips, choose_device(args.device), bar.update)
    bar.close()
    titles, sections = gallery.titles(cases[0].method), []
    for kind, chosen in gallery.choose(cases, args.cases).items():
        captions = [f"{c.name}: {measure} {c.ours:.2f}, {c.method} {c.baseline:.2f}" for c in chosen]
        sheet = contact_sheet([c.views for c in chosen], titles, captions, side=256)
        save_png(folder / f"{kind}.png", sheet)
        sections.append((kind.capitalize(), "All pictures of a row share one brightness.", sheet, "; ".join(captions)))
        print(folder / f"{kind}.png")
    ours, baseline = (sum(getattr(c, name) for c in cases) / len(cases) for name in ("ours", "baseline"))
    words = f"mean {measure} over {len(cases)} chips: network {ours:.3f}, {cases[0].method} {baseline:.3f} (less is better)"
    write_text(folder / "index.html", report.build_gallery(f"What {Path(args.checkpoint).name} does", words, sections))
    print(f"{words}\n{folder / 'index.html'}")
    return 0


# What shows a checkpoint of each kind: (args, checkpoint) -> exit code.
SHOW = {
    "segmentation": show_segmentation,
    "pansharpen": show_pansharpening,
}


if __name__ == "__main__":
    run_program(main)
