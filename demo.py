"""
The whole story in five minutes; pictures of what a checkpoint does.

    python demo.py                                                     # scenes → patches → training → a map → demo/report.html
    python demo.py --checkpoint output/checkpoints/final_model.pt --patches-dir patches
    python demo.py --checkpoint final_model.pt --scenes 'post_fire/*.tif' --masks 'masks/*.tif'
    python demo.py --checkpoint sessions/latest.pt --chips chips/test           # low resolution, baseline, ours, truth
    python demo.py --checkpoint best_model.pt --images survey/ --annotations survey.json          # objects: truth, found, errors

Without a checkpoint: burnt country is generated (synthetic/), and chip.py, train.py and inference.py are run on it as you would run them
on your own data; each command is printed before it runs. demo/report.html is one page that can be sent to anyone. Stages that are
finished are not repeated when the same command is started again.

With a checkpoint: scene, truth, map and errors of the best, median and worst cases, as PNG sheets and a page, in --output-dir. Of a
detector these are pieces of images; without --images the validation images of its run are shown.
"""

if __name__ == "__main__":
    from runtime.stop_signals import catch_stop_signals

    catch_stop_signals("Run the same command again to continue")  # before the imports, which take a moment

import dataclasses
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

from classes import classes_of_checkpoint, parse_colours
from constants import SENTINEL2_DIVISOR, SENTINEL2_OFFSET, VERSION
from runtime.errors import RunError, UserError, run_program
from runtime.fields import NUMBER, read_checked
from runtime.files import describe_difference, read_json, refuse_existing, refuse_link, remove_tree, require_writable, write_json
from runtime.flags import Parser, add_common_flags, add_config_flag, parse_with_config
from runtime.logs import Console, print_result
from runtime.network import add_network_flag, permit
from runtime.stop_signals import SILENT, STOP_SIGNALS, kept_back, leave, taken_over
from runtime.values import whole

ROOT = Path(__file__).resolve().parent
# The mapped scene has everything in it: fields, an old scar, a few clouds.
MAPPED = {"cloud_share": 0.012, "old_fire": True, "swath_edge": False, "fire_share": 0.2}
GENERATED = 946_684_800  # modification time of every scene: the start of 2000
FIRST_EVENT = 900  # activation number of the first generated scene


@dataclasses.dataclass(frozen=True)
class DemoSize:
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
FULL = DemoSize()
# For tests: everything happens, nothing is learned.
FAST = DemoSize(
    train_scenes=2, val_scenes=1, scene_size=96, mapped_size=128, patch_size=64, crop=0, epochs=2, steps=3, batch_size=4, workers=1
)

# What --help shows.
FIRST_FLAGS = ("--output-dir", "--overwrite", "--seed", "--fast", "--config", "--checkpoint", "--patches-dir", "--split", "--scenes",
               "--masks", "--chips", "--images", "--annotations")


def build_parser():
    parser = Parser(prog="demo.py", description=__doc__, first=FIRST_FLAGS)
    parser.add_argument("--output-dir", metavar="DIR", help="where everything goes (default: demo, or pictures with --checkpoint)")
    parser.add_argument("-o", "--overwrite", action="store_true", help="start anew, replacing what an earlier demo made")
    parser.add_argument("-d", "--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")

    group = parser.add_argument_group("the story (without --checkpoint)")
    group.add_argument("--seed", type=whole(0), default=0, help="other seeds, other places")
    group.add_argument("--fast", action="store_true", help="tiny sizes, to see that everything works; the map is worth nothing")
    group.add_argument("--save-pictures", metavar="DIR", help="also write the report's pictures as files, 640 pixels wide at most")

    group = parser.add_argument_group("pictures of a checkpoint")
    group.add_argument("-w", "--checkpoint", metavar="FILE", help="the file that the end of a training names, or the run's folder")
    group.add_argument("--patches-dir", metavar="DIR", help="patches with truth; those the checkpoint was trained on by default")
    group.add_argument("--split", choices=("train", "val", "test"), help="of the patches; test, or else val, by default")
    group.add_argument("--scenes", nargs="+", metavar="SCENE", help="rasters, folders or globs in place of patches")
    group.add_argument("--masks", nargs="+", metavar="PATTERN", help="labels with the scenes' names; masks/ beside them by default")
    group.add_argument("--chips", metavar="DIR", help="pan/ms chips for a sharpening checkpoint; those it was trained on by default")
    group.add_argument("--images", nargs="+", metavar="IMAGE", help="images, folders or globs for a detector; by default those that "
                       "validated it")
    group.add_argument("--annotations", metavar="FILE", help="boxes of --images, in any form that train_detection.py reads")
    group.add_argument("--label-map", metavar="NAME=CLASS,…", help="of these annotations: unknown=drop (default: as in the training)")
    group.add_argument("--class-colours", type=parse_colours, metavar="LIST", help="colours of classes: water=#1f77b4,forest=#006400")
    group.add_argument("--cases", type=whole(1), default=6, help="how many of the best, median and worst each")
    add_network_flag(group)
    add_config_flag(parser, "demo")
    add_common_flags(parser)
    return parser


def main(argv=None):
    args, given = parse_with_config(build_parser(), sys.argv[1:] if argv is None else argv)
    check_flags(args, given)
    permit(vars(args).values(), args.allow_network)
    console = Console(args.quiet)
    if not args.checkpoint:
        demo = Demo(Path(args.output_dir or "demo"), args.seed, FAST if args.fast else FULL, args.device)
        return tell_story(demo, args.overwrite, args.save_pictures, console)

    from runtime.checkpoint import load_checkpoint
    from runtime.run_folder import find_result

    checkpoint = load_checkpoint(find_result(args.checkpoint))
    if checkpoint["kind"] not in SHOW:
        raise UserError(f"{args.checkpoint} is a {checkpoint['kind']} checkpoint; demo.py shows {', '.join(SHOW)}: pass one of those")
    request = PictureRequest(
        path=args.checkpoint, folder=Path(args.output_dir or "pictures"), overwrite=args.overwrite, device=args.device, cases=args.cases,
        patches_dir=args.patches_dir, split=args.split, scenes=args.scenes, masks=args.masks, chips=args.chips,
        images=args.images, annotations=args.annotations, label_map=args.label_map, allow_network=args.allow_network,
        class_colours=args.class_colours,
    )
    return SHOW[checkpoint["kind"]](checkpoint, request, console)


def check_flags(args, given):
    """Refuses combinations of flags that contradict each other, before anything is imported."""
    pictures = ("patches_dir", "split", "scenes", "masks", "chips", "images", "annotations", "label_map", "cases", "allow_network",
                "class_colours")
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
        raise UserError("--masks needs --scenes, whose labels they are")
    if args.chips and (args.scenes or args.patches_dir):
        raise UserError("--chips is for sharpening checkpoints, --scenes and --patches-dir for others; pass one of them")
    if args.images and (args.scenes or args.patches_dir or args.chips or args.split):
        raise UserError("--images is for detectors, --scenes, --patches-dir, --split and --chips are for others; pass one of them")
    if (args.annotations or args.label_map) and not args.images:
        raise UserError("--annotations and --label-map need --images, whose boxes they are about")


# ----------------------------------------------------------------------------------------------------------------- the story


@dataclasses.dataclass(frozen=True)
class Demo:
    """What a demo is made of, and where its parts lie in its folder."""

    folder: Path
    seed: int
    size: DemoSize
    device: str  # as --device of train.py and inference.py

    @property
    def settings(self):
        """What decides the content of the folder."""
        return {"version": VERSION, "seed": self.seed, **dataclasses.asdict(self.size)}

    @property
    def scene(self):
        """The scene that is mapped: the one after those for training and validation."""
        event = f"EMSR{FIRST_EVENT + self.size.train_scenes + self.size.val_scenes}"
        return self.folder / "scenes" / "test" / event / "AOI01" / f"{event}_AOI01_01" / f"{event}_AOI01_01_S2L2A.tif"

    @property
    def patches(self):
        return self.folder / "patches"

    @property
    def run(self):
        return self.folder / "run"

    @property
    def trained(self):
        return self.run / "checkpoints" / "final_model.pt"  # its learning rate falls as planned, see docs/training.md

    @property
    def maps(self):
        return self.folder / "maps"

    @property
    def device_flags(self):
        return [] if self.device == "auto" else ["--device", self.device]


def tell_story(demo, overwrite, save_pictures, console):
    """Scenes, patches, training, scores, map, report. Returns the exit code."""
    stages = Stages(demo.folder, demo.settings, overwrite, console)
    stages.run("scenes", lambda: generate_scenes(demo, console))
    stages.run("patches", lambda: make_patches(demo, console))
    stages.run("training", lambda: train(demo, console))
    stages.run("scores", lambda: score(demo, console))
    stages.run("map", lambda: draw_map(demo, console))

    from mapping.demo_report import gather_story, read_mapped_scene, write_report

    story = gather_story(
        read_mapped_scene(demo.scene, demo.maps), demo.run, scar=scar_of(demo), size=demo.size, seed=demo.seed, stages=stages.seconds,
        commands=own_data_commands(),
    )
    headline = write_report(demo.folder / "report.html", story, save_pictures)
    print_result(headline, demo.folder / "report.html")
    return 0


class Stages:
    """
    Runs stages once. A finished stage leaves .stages/<name>.json with the seconds it took, and is not repeated.

    All stages belong to one set of settings: a folder made with others is refused, or emptied with overwrite.
    """

    MADE = ("scenes", "patches", "run", "maps", ".stages", "scenes.part")

    def __init__(self, folder, settings, overwrite, console):
        self.folder, self.console, self.seconds = Path(folder), console, []
        stamp = self.folder / "demo.json"
        old = ({} if overwrite else read_json(stamp)) if stamp.exists() else None  # what is replaced need not be whole
        if old is None and self.folder.is_dir() and any(self.folder.iterdir()):
            raise UserError(f"{folder} is not empty and was not made by demo.py; choose another --output-dir")
        if old is not None and old != settings and not overwrite:
            difference = describe_difference(old, settings)
            raise UserError(f"{folder} holds a demo with other settings ({difference}); pass --overwrite or another --output-dir")
        if old is not None and overwrite:
            for name in self.MADE:
                remove_tree(self.folder / name)
            (self.folder / "report.html").unlink(missing_ok=True)
        for name in self.MADE:
            refuse_link(self.folder / name)
        require_writable(self.folder)
        write_json(stamp, settings)

    def run(self, name, work):
        """work() unless it is done; notes the seconds it takes."""
        stamp = self.folder / ".stages" / f"{name}.json"
        if stamp.exists():
            self.seconds.append((name, read_checked(stamp, {"seconds": NUMBER}, "remove it to do this again")["seconds"]))
            self.console.say(f"{name}: done earlier")
            return
        start = time.perf_counter()
        work()
        self.seconds.append((name, round(time.perf_counter() - start, 1)))
        stamp.parent.mkdir(exist_ok=True)
        write_json(stamp, {"seconds": self.seconds[-1][1]})


def generate_scenes(demo, console):
    """scenes/{train,val,test} in the CEMS layout: complete under that name, or not there."""
    from runtime.workers import worker_pool
    from synthetic.folders import write_cems_folder

    size, part = demo.size, demo.folder / "scenes.part"
    splits = ["train"] * size.train_scenes + ["val"] * size.val_scenes + ["test"]
    console.say(f"generating {len(splits)} scenes of burnt country")
    remove_tree(part)
    bar = console.progress(len(splits), "scenes")
    with worker_pool(size.workers, ("synthetic.folders",)) as pool:
        jobs = []
        for number, split in enumerate(splits):
            side = size.mapped_size if split == "test" else size.scene_size
            changes = MAPPED if split == "test" else {}
            seeds, first = [100 * demo.seed + number], FIRST_EVENT + number
            jobs.append(pool.submit(write_cems_folder, part / split, seeds, side, side, first=first, **changes))
        for job in jobs:
            job.result()
            bar.update()
    bar.close()
    for path in part.rglob("*.tif"):
        os.utime(path, (GENERATED, GENERATED))  # manifests and records state it: two demos of one seed are the same bytes
    remove_tree(demo.folder / "scenes")
    os.replace(part, demo.folder / "scenes")


def scar_of(demo):
    """(H, W) bool: where in the mapped scene a fire of earlier years burned. No file tells: the scene is generated again."""
    from synthetic.scenes import generate_scene

    size = demo.size
    return generate_scene(100 * demo.seed + size.train_scenes + size.val_scenes, size.mapped_size, size.mapped_size, **MAPPED).scar


def make_patches(demo, console):
    run_command(
        console, "chip.py", "make-patches", "--dataset-dir", demo.folder / "scenes", "--patches-dir", demo.patches,
        "--divide-by", f"{SENTINEL2_DIVISOR:.0f}", "--offset", f"{SENTINEL2_OFFSET:.0f}", "--patch-size", demo.size.patch_size,
        "--workers", demo.size.workers,
    )


def train(demo, console):
    """Train, or resume where an earlier demo was stopped."""
    last = demo.run / "checkpoints" / "last.pt"
    if last.exists():
        run_command(console, "train.py", "--resume", last, "--output-dir", demo.run, *demo.device_flags)
        return
    size = demo.size
    run_command(
        console, "train.py", "--patches-dir", demo.patches, "--output-dir", demo.run, "--architecture", "smallunet",
        "--epochs", size.epochs, "--steps-per-epoch", size.steps, "--batch-size", size.batch_size, "--crop", size.crop, "--lr", 0.003,
        "--scheduler", "cosine", "--warmup", size.steps, "--no-class-weights", "--channels-last", "--num-workers", 0, "--patience", 0,
        "--seed", demo.seed, *demo.device_flags, *(["--overwrite"] if demo.run.exists() else []),
    )


def score(demo, console):
    run_command(
        console, "train.py", "--test-only", "--resume", demo.trained, "--output-dir", demo.run, "--overwrite", *demo.device_flags,
    )


def draw_map(demo, console):
    run_command(
        console, "inference.py", demo.scene, "--checkpoint", demo.trained, "--output-dir", demo.maps, "--probabilities", *demo.device_flags,
    )


def run_command(console, *words):
    """Run one of our programs as a user would, and say how. RunError when it fails: its own message is already on stderr."""
    words = [str(w) for w in words]
    console.say(f"\n$ python {shlex.join(words)}")
    quiet = ["--quiet"] if console.quiet else []
    code, number = run_to_end([sys.executable, str(ROOT / words[0]), *words[1:], *quiet])
    if number:
        leave(number)
    if code:
        raise RunError(f"{words[0]} ended with exit code {code}; start the demo again to continue from here")


def run_to_end(command):
    """
    → (exit code of one of our programs, the signal that stops this one or None).

    Signals are passed on to the program, which may have to save its work first; this one ends after it, and tells of the stop.
    """
    child, received = None, []

    def pass_on(number, frame):
        received.append(number)
        if child is not None:
            child.send_signal(number)

    with taken_over(pass_on):
        with kept_back(*STOP_SIGNALS):  # until the child catches them
            child = subprocess.Popen(command, env={**os.environ, SILENT: "1"})
        for number in received:  # perhaps twice, which counts as once
            child.send_signal(number)
        code = child.wait()
    stopped = [number for number in STOP_SIGNALS if code in (128 + number, -number)]  # it alone may have got one
    return code, next(iter(received + stopped), None)


def own_data_commands():
    """The five commands of the report's last section: (what it does, command)."""
    return [
        (
            "Cut your scenes and their masks (same names in both folders) into patches; one fire in five is "
            "held back for validation, another one for the test.",
            "python chip.py make-patches --config few-scenes --images 'scenes/*.tif' --masks 'masks/*.tif' \\\n"
            "    --divide-by 10000 --offset -1000 --val 0.2 --test 0.2 --patches-dir patches",
        ),
        ("Look at them before you spend time on them.", "python chip.py inspect patches"),
        (
            "Train, with the settings for a dozen scenes (recipes/). An interrupted run continues with --resume.",
            "python train.py --config few-scenes --patches-dir patches --output-dir output",
        ),
        (
            "Score it on whole scenes it has not seen, beside the NBR threshold.",
            "python train.py --test-only --resume output/checkpoints/final_model.pt",
        ),
        (
            "Map new scenes: GeoTIFF, outlines, hectares, pictures.",
            "python inference.py --checkpoint output/checkpoints/final_model.pt new/*.tif --output-dir maps",
        ),
    ]


# --------------------------------------------------------------------------------------------------- pictures of a checkpoint


@dataclasses.dataclass(frozen=True)
class PictureRequest:
    """Which checkpoint is to be shown, on what, and where the pictures go. None: as the checkpoint says."""

    path: str
    folder: Path
    overwrite: bool
    device: str
    cases: int  # how many of the best, median and worst each
    patches_dir: str | None
    split: str | None
    scenes: list | None
    masks: list | None
    chips: str | None
    images: list | None = None
    annotations: str | None = None
    label_map: str | None = None
    allow_network: bool = False
    class_colours: dict | None = None


def show_segmentation(checkpoint, request, console):
    """Sheets of the best, median and worst patches or scenes, and a page with them. Returns the exit code."""
    from mapping import gallery
    from runtime.device import choose_device

    if request.chips or request.images:
        flag, kind = ("--chips", "sharpening") if request.chips else ("--images", "detection")
        raise UserError(f"{flag} is for {kind} checkpoints; a segmentation checkpoint is shown on --scenes or --patches-dir")
    class_set = classes_of_checkpoint(checkpoint["data"], request.class_colours)
    refuse_existing([request.folder / "index.html"], request.overwrite)
    require_writable(request.folder)
    if request.scenes:
        cases, words = gallery.group_cases(map_scenes(checkpoint, class_set, request, console), request.cases, class_set)
    else:
        patches_dir = request.patches_dir or checkpoint["data"]["patches_dir"]
        bar = console.progress(0, "patches")
        cases, words = gallery.patch_cases(
            checkpoint, class_set, patches_dir, request.split, request.cases, choose_device(request.device), bar.update)
        bar.close()
    if not cases:
        raise RunError(f"nothing to show: {words}")
    return write_gallery(request, words, gallery.draw_sheets(cases, class_set))


def map_scenes(checkpoint, class_set, request, console):
    """[mapping.gallery.Case] of --scenes, mapped by inference.py."""
    from mapping import gallery
    from mapping.inputs import NO_FLAGS, describe_for, plan_of_header
    from raster.products import list_scenes
    from raster.source import list_rasters, scene_name

    data = checkpoint["data"]
    if data.get("dates", 1) > 1:
        raise UserError(f"the checkpoint maps samples of {data['dates']} dates, of which demo.py shows none; pass them to inference.py "
                        "--report")
    scenes = list_scenes(request.scenes)
    masks = list_rasters(request.masks) if request.masks else []
    maps = request.folder / "maps"
    run_inference(scenes, maps, class_set.given, request, console)
    cases = []
    for scene in scenes:
        name = scene_name(scene)
        plan = plan_of_header(describe_for(scene, data, NO_FLAGS), data)
        mask = gallery.find_mask(scene, masks)
        cases.append(gallery.scene_case(name, plan, data["bands"], maps / f"{name}_classes.tif", mask, class_set))
    return cases


def run_inference(scenes, folder, colours, request, console):
    """inference.py on scenes or images, into a folder. colours: ((class, "#rrggbb"), …) in place of the usual ones."""
    import inference

    flags = ["--quiet"] * console.quiet + ["--overwrite"] * request.overwrite + ["--allow-network"] * request.allow_network
    flags += [f"--class-colours={','.join(f'{name}={colour}' for name, colour in colours)}"] * bool(colours)
    refuse_link(folder)
    code = inference.main([*scenes, "--checkpoint", request.path, "--output-dir", str(folder), "--device", request.device, *flags])
    if code:
        raise RunError(f"inference.py ended with exit code {code}")


def show_detection(checkpoint, request, console):
    """Sheets of the best, median and worst pieces of images and of the images, with truth where it is known; a page. → the exit code."""
    from detection import gallery
    from detection.shown_images import choose_images

    if request.scenes or request.patches_dir or request.chips or request.split:
        raise UserError("a detector is shown on images with objects: pass --images, and --annotations where there are some")
    data = checkpoint["data"]
    colours = classes_of_checkpoint(data, request.class_colours).given
    refuse_existing([request.folder / "index.html"], request.overwrite)
    require_writable(request.folder)
    images = choose_images(checkpoint, request.images, request.annotations, request.label_map, console.say)
    found = request.folder / "found"
    run_inference([path for path, _ in images], found, colours, request, console)
    shown = [gallery.read_found(found, path, truth, data) for path, truth in images]
    words = f"{gallery.summary(shown, data['classes'])}. Each image with its boxes: {found}"
    return write_gallery(request, words, gallery.draw_sheets(shown, gallery.Artist(data["bands"], data["classes"], colours), request.cases))


def show_pansharpening(checkpoint, request, console):
    """Sheets of chips as they came, by the best classical method, by the network, and the truth; and a page. Returns the exit code."""
    from pansharpening import gallery
    from runtime.device import choose_device

    if request.scenes or request.patches_dir or request.split or request.class_colours or request.images:
        raise UserError("a sharpening checkpoint is shown on pan/ms chips, which have no classes: pass --chips")
    refuse_existing([request.folder / "index.html"], request.overwrite)
    require_writable(request.folder)
    bar = console.progress(0, "chips")
    shown = gallery.show_chips(checkpoint, request.chips or checkpoint["data"]["chips_dir"], choose_device(request.device), bar.update)
    bar.close()
    return write_gallery(request, gallery.summary(shown), gallery.draw_sheets(shown, request.cases))


def write_gallery(request, words, sheets):
    """Write sheets (pictures.gallery_page.Sheet) and their page; print their paths and `words`. Returns the exit code."""
    from pictures.gallery_page import save_gallery

    *pictures, page = save_gallery(request.folder, f"What {Path(request.path).name} does", words, sheets)
    print_result(*pictures, words, page)
    return 0


# What shows a checkpoint of each kind: (checkpoint, PictureRequest, console) -> exit code.
SHOW = {
    "segmentation": show_segmentation,
    "pansharpen": show_pansharpening,
    "detection": show_detection,
}


if __name__ == "__main__":
    run_program(main)
