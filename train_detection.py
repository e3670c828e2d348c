"""
Train a detector: boxes around the objects of images of any size, which are cut into tiles first.

    python train_detection.py --train-images images --train-annotations train.json --val 0.2
    python train_detection.py --train-images images --train-annotations train.json --val-images more --val-annotations val.json …
    python train_detection.py --train-images images --train-annotations labels/ --val 0.2 --framework faster-rcnn --encoder resnet50
    python train_detection.py --config examples/aed_elephants.yaml
    python train_detection.py --resume output/checkpoints/last.pt              # continue, with the settings it had
    python train_detection.py --test-only --resume output --test-images … --test-annotations …
    torchrun --nproc_per_node 4 train_detection.py …                           # the same global batch, on four processes
    python train_detection.py --manifest artifacts/tensor_warehouse/latest …   # TinyDet and BigDet: see train_small_detection.py

Annotations: a COCO JSON, a folder of Pascal VOC files, a CSV, or a GeoJSON or GeoPackage over georeferenced images. Tiles are cut once,
into tile_cache_train, tile_cache_val and tile_cache_test of the output folder (or --cache-dir), and found again by the next run. The output
folder gets config.json, metrics.csv (one row an epoch), samples/ and checkpoints/: best_model.pt (highest AP50 on the validation images, as
whole images after merging), last.pt (for --resume), checkpoint_epoch_N.pt (N from zero) and final_model.pt.
"""

if __name__ == "__main__":
    from runtime.stop_signals import catch_stop_signals

    catch_stop_signals()  # before the imports, which take a moment

import argparse
import dataclasses
import os
import sys
from pathlib import Path

from chipping.commands.shared_flags import add_label_flags, add_picture_flags, add_tile_flags
from nets.part_flags import add_encoder_args, add_lora_flag, parsed, require_adaptable
from runtime.config import find_config, read_tree, sections, sets_flag
from runtime.errors import Advice, RunError, UserError, run_program
from runtime.flags import Parser, add_common_flags, add_config_flag, parse_with_config
from runtime.logs import print_result
from runtime.network import add_network_flag, permit
from runtime.values import auto_or, number, whole

KIND = "detection"
# What a run is asked to do, not how it trains: never taken from a checkpoint.
RUN_FLAGS = ("resume", "output_dir", "overwrite", "test_only", "test_images", "test_annotations", "strict", "device", "config", "quiet",
             "debug", "num_workers", "allow_network")
# What decides the network's shape: taken from the checkpoint, and refused when asked for differently.
MODEL_FLAGS = ("framework", "encoder", "encoder_args", "anchors", "proposals", "lora", "stride")
# What --help shows.
FIRST_FLAGS = ("--config", "--train-images", "--train-annotations", "--val", "--label-map", "--tile-size", "--output-dir", "--framework",
               "--encoder", "--epochs", "--resume", "--test-only", "--overwrite")
# Flags that only train_small_detection.py has: main() hands a command line with one of them over to it, see is_small().
WAREHOUSE_FLAGS = ("--manifest", "--warehouse-manifest", "--tensor-warehouse")
SMALL_FLAGS = (*WAREHOUSE_FLAGS, "--model", "--max-boxes", "--checkpoint-out", "--backend")
FRAMEWORKS = ("centre", "faster-rcnn", "mask-rcnn", "retinanet", "fcos")


def build_parser():
    parser = Parser(prog="train_detection.py", description=__doc__, first=FIRST_FLAGS)

    group = parser.add_argument_group("data")
    group.add_argument("--train-images", metavar="DIR", help="folder of the images to train on")
    group.add_argument("--train-annotations", metavar="FILE", help="their boxes: COCO JSON, VOC folder, CSV, GeoJSON or GeoPackage")
    group.add_argument("--val-images", metavar="DIR", help="folder of the images that validate")
    group.add_argument("--val-annotations", metavar="FILE", help="their boxes")
    group.add_argument("--test-images", metavar="DIR", help="folder of the images to score with --test-only")
    group.add_argument("--test-annotations", metavar="FILE", help="their boxes")
    group.add_argument("--val", metavar="SHARE", help="share (0.2) or names of the training images that validate, without --val-images")
    add_label_flags(group)
    add_picture_flags(group)
    group.add_argument("--allow-overlap", action="store_true", help="only warn when images of different splits share ground")
    group.add_argument("--output-dir", default="./output", help="the run's folder")
    group.add_argument("--num-workers", type=whole(), default=2, help="processes that cut and read tiles, at most one a core; 0: none")

    group = parser.add_argument_group("tiles")
    add_tile_flags(group)
    group.add_argument("--cache-dir", metavar="DIR", help="of the tile caches, or tiles by make-tiles (default: the output folder)")

    group = parser.add_argument_group("model")
    group.add_argument("--framework", choices=FRAMEWORKS, default="centre", help="centre: small and fast; the others are torchvision's")
    group.add_argument("--encoder", help="small (centre's default), resnet50 (of the others), tu-<timm name>, prithvi:eo-v2-300 …")
    group.add_argument("--encoder-weights", help="imagenet (default, where there are any), none, or a .pt or .safetensors file")
    add_encoder_args(group, "of a published encoder, such as bands=B02,B03,B04,B8A,B11,B12 or layers=2,5,8,11")
    add_lora_flag(group)
    group.add_argument("--stride", choices=("auto", "4", "2", "1"), default="auto",
                       help="pixels across a cell of centre's heat map; below 4 the encoder sees images enlarged (auto: 2 where every "
                       "tenth object is narrower than 20 pixels)")
    group.add_argument("--anchors", default="auto", metavar="SIZES", help="four sizes in pixels; auto: fitted to the training boxes")
    group.add_argument("--proposals", type=whole(1), default=1000, help="regions that Faster and Mask R-CNN look at in a tile")

    group = parser.add_argument_group("training")
    group.add_argument("--epochs", type=whole(1), default=20, help="see --steps-per-epoch")
    group.add_argument("--steps-per-epoch", type=whole(), help="optimiser steps; 0: one pass over the tiles (default: that, at least 50)")
    group.add_argument("--batch-size", type=whole(1), default=8, help="crops of one optimiser step, over all processes")
    group.add_argument("--crop", type=whole(), default=0, metavar="PIXELS", help="side of the random crops; 0: 256 for centre, else a tile")
    group.add_argument("--zoom", type=number(1, 4), default=1.25, help="crops show objects up to this factor larger or smaller")
    group.add_argument("--tone", type=number(0, 0.9), default=0.5, metavar="SHARE",
                       help="contrast and saturation of crops change by up to this share, brightness by a factor of up to 1 + 2 SHARE")
    group.add_argument("--copies", type=auto_or(whole(0, 20)), default="auto", metavar="N",
                       help="half of the crops get up to N objects of their tile pasted in again, turned, on other ground and beside "
                       "others; 0: none (auto: 8 where objects cover less than a twentieth of the images, for centre)")
    group.add_argument("--no-augment", action="store_true", help="leave brightness and colour as they are, and --copies out; crops, turns "
                       "and flips stay")
    group.add_argument("--optimizer", choices=("adamw", "sgd"), default="adamw", help="sgd: with momentum 0.9")
    group.add_argument("--lr", type=number(above=0, high=10), help="learning rate (default: 2e-3 for centre, else 2e-4; sgd 1e-2)")
    group.add_argument("--weight-decay", type=number(0), default=1e-2, help="of the optimiser")
    group.add_argument("--scheduler", choices=("cosine", "plateau", "linear", "constant"), default="cosine",
                       help="learning rate: falling over the run; or halved when val AP50 stalls for 5 validations; or constant")
    group.add_argument("--warmup", type=whole(), default=20, metavar="STEPS", help="steps over which the learning rate rises; 0: none")
    group.add_argument("--grad-clip", type=number(0), default=10.0, help="largest norm of the gradient; 0: no limit")
    group.add_argument("--ema", type=number(0, 0.99999), default=0.99, metavar="DECAY",
                       help="the detector is the moving average of the weights, over about 1 / (1 - DECAY) steps; 0: the last weights")
    group.add_argument("--freeze-encoder", type=whole(), default=0, metavar="EPOCHS", help="epochs in which the encoder stays as it is")
    group.add_argument("--val-every", type=whole(1), default=1, metavar="EPOCHS", help="validate after every so many epochs, and the last")
    group.add_argument("--patience", type=whole(), default=0, help="stop after this many validations without a better AP50; 0: never")
    group.add_argument("--max-steps", type=whole(), default=0, help="stop after this many steps, validate and save; 0: no limit")
    group.add_argument("--seed", type=whole(), default=0, help="of weights, order, crops and the draw of --val")

    group = parser.add_argument_group("detections")
    group.add_argument("--threshold", metavar="S", help="score of a detection where no images validate: a number, or an earlier run, whose "
                       "threshold is taken (default 0.3); with validation it is chosen there")
    group.add_argument("--score-threshold", type=number(0, 1), default=0.05, help="detections below take no part in the scores")
    group.add_argument("--iou-threshold", type=number(0, 1), default=0.5, help="boxes of one class above it are the same object")
    group.add_argument("--max-detections", type=whole(1), default=300, help="in a tile; a tile that reaches it is counted and told")
    group.add_argument("--tta", action=argparse.BooleanOptionalAction, default=False, help="validation, scores and maps take the mean over "
                       "the eight flips and turns, in eight times their work; for centre")

    group = parser.add_argument_group("machine")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    group.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32", help="of the network's layers; losses are fp32")

    group = parser.add_argument_group("run")
    group.add_argument("--resume", metavar="FILE", help="checkpoint to continue from; flags not given are those of its run")
    group.add_argument("--save-every", type=whole(), default=5, help="checkpoint_epoch_N.pt every this many epochs; 0: never")
    group.add_argument("--save-minutes", type=number(0), default=10.0, help="last.pt at least this often within an epoch; 0: every step")
    group.add_argument("--overwrite", action="store_true", help="replace an earlier run in the output folder")
    group.add_argument("--strict", action="store_true", help="an image that cannot be read ends the run (else it is left out and named)")
    group.add_argument("--test-only", action="store_true", help="score --test-images with the checkpoint of --resume")
    group.add_argument("--wandb", action="store_true", help="log to Weights & Biases (WANDB_MODE=offline without network)")
    group.add_argument("--project", default="detection", help="W&B project")
    group.add_argument("--run-name", help="W&B run name")
    group.add_argument("--tensorboard", action="store_true", help="log to tensorboard/ in the output folder")
    add_config_flag(parser, "train-detection")
    add_network_flag(parser)
    add_common_flags(parser)
    return parser


def check_flags(args):
    """UserError for pairings that cannot be right, before any work."""
    if args.test_only and not args.resume:
        raise UserError("--test-only needs a checkpoint to score: pass --resume output")
    if args.overwrite and args.resume and not args.test_only:
        raise UserError("--resume continues a run and --overwrite deletes one: pass one of the two")
    if not args.resume and not args.train_images:
        raise UserError("no images to train on: pass --train-images DIR and --train-annotations FILE")
    if args.val and args.val_images:
        raise UserError("--val draws validation images from those for training, --val-images names others: pass one of the two")
    side = min(args.tile_size)
    if args.overlap >= side:
        raise UserError(f"--overlap {args.overlap} does not fit tiles of {side} pixels; pass one below --tile-size")
    if args.crop > side:
        raise UserError(f"--crop {args.crop} is larger than the tiles, {side} pixels; pass a smaller one")
    if args.anchors != "auto":
        sizes = args.anchors.split(",")
        if len(sizes) != 4 or not all(word.replace(".", "", 1).isdigit() and float(word) > 0 for word in sizes):
            raise UserError(f"--anchors expects auto or four sizes in pixels like 16,32,64,128, got {args.anchors!r}")


def refuse_unread(args, given):
    """UserError for flags that were given and that this training does not read."""
    for name, value in (("stride", args.stride), ("copies", args.copies), ("tta", args.tta)):
        if name in given and value not in ("auto", 0, False) and args.framework != "centre":
            raise UserError(f"--{name} is for --framework centre, and {args.framework} does not read it: leave it out")
    if "copies" in given and args.copies not in ("auto", 0) and args.no_augment:
        raise UserError("--no-augment leaves copies out, and --copies asks for them: pass one of the two")


def import_libraries():
    """What the functions below use. torch takes seconds to import, so this waits until the flags are known to be right."""
    global torch, augment_boxes, fit_anchors, usual_size, band_statistics, truths_of, detect_images, on_cpu, Rules, score_of, tta_of
    global DetectorConfig, build_detector, detector_from_checkpoint, metrics, write_samples, to_input, Labelled, Reading, TileOptions
    global open_tiles, read_sets, Sampling, TrainingData, DetectionTiles, baseline, write_scores, printed_table, count_weights, Caches
    global Compute, choose_device, gradient_scaler, seed_everything, seed_step, usable_cores, share_batch_statistics, optimiser_step
    global follow_changed_data, require_finite_loss, require_finite_weights, claim_scores, Schedule
    global Position, RunState, RunFolder, output_dir_of_run, RunLog, RunningSums, Saver, BEST, FINAL, LAST, Unreadable, Problem
    global fitting_stride, narrow_side, share_covered, STRIDE, SPARSE, COPIES
    global final_reaches, adopt_settings, group_of, settings_of, load_checkpoint, require_parts, result_of, find_result
    global AveragedWeights, Learner, ended_as_planned, scale_on, are_pictures, path_length, warn_of_short_path, name_base, save_adapters
    import torch

    from augment import scale_on
    from chipping.tile_set_plan import TileOptions
    from detection import augment as augment_boxes
    from detection import baseline, metrics
    from detection.anchors import COPIES, SPARSE, fit_anchors, fitting_stride, narrow_side, share_covered, usual_size
    from detection.centre import STRIDE
    from detection.dataset import DetectionTiles, band_statistics
    from detection.dataset import truths as truths_of
    from detection.detect import Rules, detect_images, on_cpu
    from detection.detections import score_of, tta_of
    from detection.detectors import DetectorConfig, build_detector, detector_from_checkpoint
    from detection.encoders import count_weights
    from detection.learner import Learner
    from detection.sample_sheet import write_samples
    from detection.scale import to_input
    from detection.score_files import printed_table, write_scores
    from detection.tile_caches import Caches
    from detection.tile_sets import Labelled, Reading, open_tiles, read_sets
    from detection.training_data import Sampling, TrainingData
    from nets.adapter_file import name_base, save_adapters
    from raster.scale import are_pictures
    from runtime.averaged_weights import AveragedWeights
    from runtime.changed_data import follow_changed_data
    from runtime.checkpoint import load_checkpoint, require_parts
    from runtime.device import Compute, choose_device, gradient_scaler, seed_everything, seed_step, usable_cores
    from runtime.distributed import share_batch_statistics
    from runtime.finite import require_finite_loss, require_finite_weights
    from runtime.optimiser_step import optimiser_step
    from runtime.outlook import path_length, warn_of_short_path
    from runtime.run_folder import BEST, FINAL, LAST, RunFolder, claim_scores, find_result, output_dir_of_run, result_of
    from runtime.run_log import RunLog
    from runtime.run_state import Position, RunState
    from runtime.running_sums import RunningSums
    from runtime.saver import Saver, final_reaches
    from runtime.schedule import Schedule, ended_as_planned
    from runtime.settings import adopt_settings, group_of, settings_of
    from runtime.unreadable import Problem, Unreadable


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    if is_small(argv):
        import train_small_detection

        return train_small_detection.main(argv)
    args, given = parse_with_config(build_parser(), argv)
    check_flags(args)
    import_libraries()
    permit(vars(args).values(), args.allow_network)
    from runtime.program import program

    with program(args.device, args.quiet) as (processes, console):
        if "threshold" in given and args.test_only:
            raise UserError("--threshold is for trainings, --test-only scores at the threshold of its checkpoint: leave it out")
        checkpoint = open_checkpoint(args, given) if args.resume else None
        if "threshold" in given and (args.val or args.val_images):
            raise UserError("--threshold is for trainings without validation, which would choose it: pass one of the two")
        refuse_unread(args, given)
        args.lr = args.lr or usual_rate(args)
        args.threshold = read_threshold(args.threshold)
        compute = Compute(device=choose_device(args.device, processes.local_rank), precision=args.precision)
        options = group_of(Options, args)
        sources = {"train": Labelled(images=args.train_images, annotations=args.train_annotations),
                   "val": Labelled(images=args.val_images, annotations=args.val_annotations),
                   "test": Labelled(images=args.test_images, annotations=args.test_annotations)}
        if args.test_only:
            return test(options, sources, checkpoint, compute, processes, console)
        return train(options, sources, settings_of(args, RUN_FLAGS), checkpoint, compute, processes, console)


def is_small(argv):
    """
    Whether a command line is for the small detectors: by a flag, by the state of one of their runs, NAME.last.pt, to resume, or by a
    warehouse in the file of --config, unless flags or a section of that file are for the detectors of tiles.
    """
    words = [part for word in argv for part in word.split("=", 1)]
    if set(SMALL_FLAGS) & set(words):
        return True
    values = {name: [after for word, after in zip(words, words[1:], strict=False) if word == name] for name in ("--resume", "--config")}
    if any(name.endswith(".last.pt") for name in values["--resume"]):
        return True
    if not values["--config"] or {"--resume", "--train-images", "--test-only", "-h", "--help", "--help-all"} & set(words):
        return False
    return chooses_small(find_config(values["--config"][-1]))


def chooses_small(path):
    """Whether a settings file names a warehouse, at the top or for train-small-detection, and has no section of this program."""
    tree = read_tree(path)
    return sets_flag(tree, "train-small-detection", WAREHOUSE_FLAGS) and "train-detection" not in sections(tree)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Flags that the loop and its parts read; what each means is said in build_parser."""

    val: str | None
    label_map: str | None
    point_size: str | None
    class_field: str | None
    bands: tuple | None
    divide_by: str | None
    offset: str | None
    allow_overlap: bool
    output_dir: str
    num_workers: int
    tile_size: tuple
    overlap: int
    min_visibility: float
    negatives: float
    tile_format: str
    cache_dir: str | None
    framework: str
    encoder: str | None
    encoder_weights: str | None
    encoder_args: list
    lora: int
    stride: str
    anchors: str
    proposals: int
    epochs: int
    steps_per_epoch: int | None
    batch_size: int
    crop: int
    zoom: float
    tone: float
    copies: int | str
    no_augment: bool
    optimizer: str
    lr: float
    weight_decay: float
    scheduler: str
    warmup: int
    grad_clip: float
    ema: float
    freeze_encoder: int
    val_every: int
    patience: int
    max_steps: int
    seed: int
    threshold: float | None
    score_threshold: float
    iou_threshold: float
    max_detections: int
    tta: bool
    save_every: int
    save_minutes: float
    overwrite: bool
    strict: bool
    wandb: bool
    tensorboard: bool
    project: str
    run_name: str | None


def read_threshold(wanted):
    """What --threshold means, None without: a number in 0..1, or the threshold that the validation of a run has chosen."""
    if wanted is None or isinstance(wanted, float):
        return wanted
    try:
        value = float(wanted)
    except ValueError:
        path = find_result(wanted)
        value = load_checkpoint(path, KIND)["data"].get("threshold")
        if not isinstance(value, float):
            raise UserError(f"{path} has no threshold: no images validated its training; pass a number such as --threshold 0.3") from None
    if not 0 <= value <= 1:
        raise UserError(f"--threshold expects a score between 0 and 1, or a run's folder, got {wanted}")
    return value


def open_checkpoint(args, given):
    """The checkpoint of --resume; flags that were not given become those of its run."""
    args.resume = str(find_result(args.resume)) if args.test_only else args.resume
    checkpoint = load_checkpoint(args.resume, KIND)
    require_parts(checkpoint, {"model": (), "settings": (), "state": ("model",), "data": ("bands", "classes", "threshold")})
    if "base" in checkpoint and "encoder_weights" in given:
        name_base(checkpoint, args.encoder_weights)
    # what runs had from before these flags
    settings = {"tone": 0.0, "copies": 0, "stride": "4", "encoder_args": [], "lora": 0, "tta": False, **checkpoint["settings"]}
    stride = str(checkpoint["model"].get("stride", STRIDE))  # what an "auto" has become
    same = args.stride in ("auto", stride)
    if "stride" in given and not same:
        settings["stride"] = stride
    adopt_settings(args, set(given) - {"stride"} if same else given, settings, run_flags=RUN_FLAGS, shape_flags=MODEL_FLAGS)
    if args.test_only and "train_images" not in given and not os.path.exists(args.train_images or ""):
        args.train_images = args.train_annotations = None  # gone since the training: scored without a baseline
    check_flags(args)
    args.output_dir = output_dir_of_run(args.resume, args.output_dir if "output_dir" in given else None, elsewhere=args.test_only)
    return checkpoint


# ---------------------------------------------------------------------------------------------------------------- training


def train(options, sources, settings, checkpoint, compute, processes, console):
    """The whole run, from the images to final_model.pt."""
    run_folder = RunFolder(options.output_dir, bool(checkpoint), options.overwrite, processes.is_first)
    run_folder.refuse_earlier_run()  # before tiles are cut
    seed_everything(options.seed)
    tile_sets, classes, unopened = open_data(options, sources, ("train", "val"), checkpoint, processes, console)
    options = fitted(options, tile_sets["train"], checkpoint, console)
    data = TrainingData(tile_sets, sampling_of(options), processes, workers=min(options.num_workers, usable_cores()),
                        pin_memory=compute.device.type == "cuda", masks=options.framework == "mask-rcnn")
    steps = data.batches.steps
    total_steps = min(options.epochs * steps, options.max_steps or options.epochs * steps)
    run_folder.make()

    # Model, optimiser
    learner = make_learner(options, tile_sets["train"], classes, checkpoint, compute, processes)
    if told := getattr(learner.model.network.encoder, "told", ""):
        console.say(told)
    model, optimizer = learner.model, learner.optimizer
    schedule = Schedule(options.scheduler, options.lr, total_steps, options.warmup)
    running = RunningSums(model.network.loss_names, compute.device, processes)
    total = sum(len(tile_set.tiles) for tile_set in tile_sets.values()) + len(unopened)
    unreadable = Unreadable("tiles and images", tile_sets["train"].folder, total, processes, strict=options.strict)
    unreadable.note([Problem(name, why) for name, why in unopened.items()])

    # Where the run is. Everything in `state` goes into the checkpoint and comes back on resume.
    position = Position(wandb_id=os.urandom(4).hex() if options.wandb else None)
    state = RunState(position, model=model, average=learner.average, optimizer=optimizer, schedule=schedule, scaler=learner.scaler,
                     running=running, unreadable=unreadable)
    header = {"kind": KIND, "model": model.config.to_dict(), "settings": settings, "data": describe_data(data, classes, options)}
    if checkpoint:
        resume(checkpoint, state, header["data"], steps, console)

    def finished():
        stalled = options.patience and position.epochs_without_gain >= options.patience
        return position.epoch >= options.epochs or position.step >= total_steps and not position.step_in_epoch or stalled

    if checkpoint and finished() and final_reaches(position, run_folder, KIND, processes):
        console.say(f"the run in {run_folder.path} is finished after {position.epoch} epochs; "
                    "raise --epochs (or --max-steps, --patience) to train on")
        return 0
    resume_with = f"continue with --resume {run_folder.checkpoints / LAST}"
    with (
        run_folder as folder,
        Saver(folder, state, header, processes, minutes=options.save_minutes, resume_with=resume_with) as saver,
        RunLog(folder, position, console, active=processes.is_first, wandb=options.wandb, tensorboard=options.tensorboard,
               project=options.project, name=options.run_name, config=settings) as log,
    ):
        folder.write_config(settings={**settings, "output_dir": options.output_dir}, model=header["model"],
                            data={**header["data"], "threshold": None}, device=str(compute.device), processes=processes.size)
        saver.keep_best(console, bool(checkpoint), header["data"]["scored_on"])
        if not checkpoint:
            saver.save(LAST)  # from here on the run can be resumed, whenever it is killed
        console.say(f"{model.config.framework} on {model.config.encoder}, {count_weights(model) / 1e6:.2f} M weights, {compute.device}; "
                    f"{len(data.train)} tiles for training, {steps} steps an epoch; "
                    f"{len(tile_sets['val'].images) if data.val else 'no'} images for validation")
        if not checkpoint:
            path = path_length(options.scheduler, options.lr, total_steps, options.warmup)
            warn_of_short_path(console, path, total_steps, "take --config detection, or more --epochs")

        saver.clock.restart()
        while not finished():
            epoch = position.epoch
            model.freeze_encoder(epoch < options.freeze_encoder)
            model.train()
            with console.progress(steps, f"epoch {epoch}", position.step_in_epoch) as bar:
                last = max(0, position.step_in_epoch + total_steps - position.step)
                for batch, draws in data.training_batches(epoch, position.step_in_epoch, last):
                    unreadable.note(batch["problems"])
                    schedule.set_rate(optimizer, position.step)
                    running.add(train_step(learner, batch, draws, position.step, data, options), int(processes.is_first))
                    learner.average.update(position.step)
                    position.after_step()
                    bar.update()
                    saver.after_step()

            # The epoch's numbers
            losses, _ = running.means()
            row = {"epoch": epoch, "step": position.step, "lr": schedule.rate(position.step - 1), "train_loss": sum(losses.values()),
                   **{f"train_{name}": value for name, value in losses.items()}}
            require_finite_loss(row["train_loss"], "training", epoch)
            require_finite_weights(model, position.step)
            due = data.val and ((epoch + 1) % options.val_every == 0 or epoch + 1 == options.epochs or position.step >= total_steps)
            val = validate(learner, data, classes, options, unreadable, console) if due else {}
            row |= {f"val_{key}": value for key, value in val.items()}
            unreadable.report(console)

            # What follows from them: best so far? lower rate? enough?
            is_best = False
            if due or not data.val:
                score = val["map_50"] if data.val else -row["train_loss"]
                score = score if score == score else float("-inf")
                is_best = position.best_score is None or score >= position.best_score  # of equal ones the later: its rate is lower
                position.judge(score, is_best)
                header["data"]["threshold"] = val.get("threshold")
                schedule.step_epoch(score)
            position.after_epoch()
            running.reset()

            # Tell and save
            log.epoch(row, best=int(is_best), seconds=saver.clock.epoch_seconds())
            console.say(f"epoch {epoch}: train loss {row['train_loss']:.4f}{in_words(val)}, lr {row['lr']:.2e}{', best' * is_best}")
            if is_best and processes.is_first:
                tiles = data.val or data.train
                predict = predictor(learner.average.model, tiles.tile_set, compute, options)
                write_samples(folder.path / "samples" / f"epoch_{epoch}.png", predict, tiles, score_of(header["data"]))
            numbered = [f"checkpoint_epoch_{epoch}.pt"] if options.save_every and (epoch + 1) % options.save_every == 0 else []
            saver.save(*saver.best(is_best), *numbered)
            saver.after_epoch(finished())
        result = result_of(ended_as_planned(options.scheduler, position.step, total_steps))
        saver.save(FINAL, result=result)
        if options.lora and processes.is_first and position.best_score is not None:
            save_adapters(folder, result, model, weights_of(options))
        if processes.is_first or position.best_score is None:
            conclude(position, saver, folder, data, result, unreadable, console)
    return 0


def train_step(learner, batch, draws, step, data, options):
    """One optimiser step. → {name: loss}, this process's part of the global batch's, still on the device."""
    seed_step(options.seed, step, learner.processes.rank)
    images, targets = to_device(batch, data.train.tile_set, learner.compute)
    images, targets = augment_boxes.crops(images, targets, draws, data.sampling.crop)
    learner.optimizer.zero_grad(set_to_none=True)
    with learner.compute.autocast():
        losses = learner.model.losses(images, targets, learner.processes.sum)
    learner.scaler.scale(sum(losses.values())).backward()
    optimiser_step(learner.model, learner.optimizer, learner.scaler, learner.processes, grad_clip=options.grad_clip)
    return {name: loss.detach() for name, loss in losses.items()}


def validate(learner, data, classes, options, unreadable, console):
    """Scores of the validation images: tiles are predicted, merged, and whole images scored."""
    predict = predictor(learner.average.model, data.val.tile_set, learner.compute, options)
    found, problems = detect_images(predict, data.val, rules_of(options), learner.processes, batch_size=options.batch_size)
    unreadable.note(problems)
    tell_full(found, options, console)
    truths = truths_of(data.val.tile_set)
    threshold, _ = metrics.choose_threshold(truths, found)
    return metrics.score_images(truths, found, classes, threshold=threshold)


# ------------------------------------------------------------------------------------------------------------------- parts


def open_data(options, sources, splits, checkpoint, processes, console):
    """({split: TileSet}, classes, {image's name: why it cannot be read}). The classes of the checkpoint, where there is one."""
    tiles = TileOptions(size=tuple(options.tile_size), overlap=options.overlap, min_visibility=options.min_visibility,
                        negatives=options.negatives, seed=options.seed, form=options.tile_format,
                        bands=options.bands and tuple(options.bands), divide_by=options.divide_by, offset=options.offset)
    caches = Caches(output_dir=Path(options.output_dir), cache_dir=options.cache_dir and Path(options.cache_dir), options=tiles,
                    workers=max(1, min(options.num_workers, usable_cores())), strict=options.strict)
    reading = Reading(val=options.val, label_map=options.label_map, point_size=options.point_size, class_field=options.class_field,
                      allow_overlap=options.allow_overlap, strict=options.strict, seed=options.seed)
    wanted = tuple(checkpoint["data"]["classes"]) if checkpoint else None
    sets, classes, unopened = read_sets(sources, reading, wanted, caches.headers(), console.say, splits)
    missing = [split for split in splits if split not in sets and split != "val"]
    if missing:
        raise UserError(f"no {missing[0]} images were given; pass --{missing[0]}-images DIR and --{missing[0]}-annotations FILE")
    if "val" in splits and "val" not in sets:
        console.warn(f"no validation images: nothing chooses an epoch, and detections count from a score of "
                     f"{score_of({'stated_threshold': options.threshold}):.2f} on (--threshold); pass --val 0.2")
    found, unreadable = open_tiles(sets, sources, classes, caches, processes, console)
    for split, tile_set in found.items():
        if checkpoint and list(checkpoint["data"]["bands"]) != list(tile_set.bands):
            raise UserError(f"the checkpoint was trained on the bands {', '.join(checkpoint['data']['bands'])}, the {split} images have "
                            f"{', '.join(tile_set.bands)}; pass --bands, or the images that go with it")
    return found, tuple(classes), {**unopened, **unreadable}


def boxes_of(tile_set):
    """[(x0, y0, x1, y1)] of all images in pixels. UserError where there are none."""
    boxes = [box for image in tile_set.images for box in image.boxes]
    if not boxes:
        raise UserError("the training images have no boxes at all; nothing can be learned from them")
    return boxes


def fitted(options, tile_set, checkpoint, console):
    """The options with what is "auto" decided by the training boxes, and said; the stride of a checkpoint is that of its network."""
    boxes = boxes_of(tile_set)
    centre = options.framework == "centre"
    stride, copies = options.stride, options.copies
    if checkpoint:
        stride = str(checkpoint["model"].get("stride", STRIDE))
    elif stride == "auto":
        narrow = narrow_side(boxes)
        stride = str(fitting_stride(narrow) if centre else STRIDE)
        if stride != str(STRIDE):
            console.say(f"every tenth object is narrower than {narrow:.0f} pixels: --stride {stride}, whose maps take four times as long")
    if copies == "auto":
        covered = share_covered(boxes, sum(image.width * image.height for image in tile_set.images))
        copies = COPIES if centre and covered < SPARSE and not options.no_augment else 0
        if copies:
            console.say(f"objects cover {covered:.1%} of the training images: --copies {copies}")
    return dataclasses.replace(options, stride=stride, copies=copies)


def sampling_of(options):
    tile = min(options.tile_size)
    # 256 pixels of what the encoder sees
    side = options.crop or (min(256 * int(options.stride) // STRIDE, tile) if options.framework == "centre" else tile)
    crop = augment_boxes.CropPolicy(size=side, zoom=options.zoom, min_visibility=options.min_visibility,
                                    tone=0.0 if options.no_augment else options.tone,
                                    copies=0 if options.no_augment else options.copies)
    return Sampling(crop=crop, batch_size=options.batch_size, steps_per_epoch=options.steps_per_epoch, augment=not options.no_augment,
                    seed=options.seed)


def usual_rate(args):
    """The learning rate where none is given."""
    return 1e-2 if args.optimizer == "sgd" else 2e-3 if args.framework == "centre" else 2e-4


def make_learner(options, tile_set, classes, checkpoint, compute, processes):
    """The detector of the checkpoint, or a new one fitted to the training boxes; its optimiser."""
    model = detector_from_checkpoint(checkpoint, averaged=False) if checkpoint else new_detector(options, tile_set, classes)
    model = compute.place(share_batch_statistics(model, processes))
    parameters, rate = model.parameters(), options.lr
    if options.optimizer == "sgd":
        optimizer = torch.optim.SGD(parameters, lr=rate, momentum=0.9, weight_decay=options.weight_decay)
    else:
        optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=options.weight_decay)
    return Learner(model=model, average=AveragedWeights(model, options.ema), optimizer=optimizer,
                   scaler=gradient_scaler(compute.device, compute.precision), compute=compute, processes=processes)


def new_detector(options, tile_set, classes):
    boxes = boxes_of(tile_set)
    mean, std = band_statistics(tile_set, options.seed)
    sizes, ratios = fit_anchors(boxes)
    if options.anchors != "auto":
        sizes = tuple(map(float, options.anchors.split(",")))
    weights = weights_of(options)
    require_adaptable(options.lora, weights)
    config = DetectorConfig(framework=options.framework, encoder=encoder_of(options), bands=tuple(tile_set.bands), classes=classes,
                            mean=mean, std=std, usual=usual_size(boxes), anchor_sizes=sizes, anchor_ratios=ratios,
                            proposals=options.proposals, encoder_args=parsed(options.encoder_args, "--encoder-args"), lora=options.lora,
                            stride=int(options.stride))
    return build_detector(config, weights, pictures=are_pictures(tile_set.divide_by))


def encoder_of(options):
    """The encoder that --encoder names, or the framework's usual one."""
    return options.encoder or ("small" if options.framework == "centre" else "resnet50")


def weights_of(options):
    """What its encoder begins with: a file, "imagenet" or "none"."""
    return options.encoder_weights or ("none" if encoder_of(options) == "small" else "imagenet")


def rules_of(options):
    return Rules(score_threshold=options.score_threshold, iou=options.iou_threshold, limit=options.max_detections)


def predictor(model, tile_set, compute, options):
    """batch → [Detections] on the CPU."""

    def predict(batch):
        images, _ = to_device(batch, tile_set, compute)
        with compute.autocast():
            found = model.predict(images, options.score_threshold, options.max_detections, options.tta)
        return [on_cpu(detections) for detections in found]

    return predict


def to_device(batch, tile_set, compute):
    """(images (B, C, H, W) float32 on the device, targets: a list of dicts on the CPU)."""
    scale = scale_on(compute.device, tuple(tile_set.divide_by), tuple(tile_set.offset))
    images = to_input(batch["image"].to(compute.device, non_blocking=True), *scale)
    keys = [key for key in ("boxes", "labels", "ignore", "masks") if key in batch]
    return images, [{key: batch[key][i] for key in keys} for i in range(len(images))]


def tell_full(found, options, console):
    full = sum(image["full"] for image in found)
    if full:
        console.warn(f"{full} tiles reached the limit of {options.max_detections} detections, and may lack some; raise --max-detections")


def describe_data(data, classes, options):
    """The checkpoint's "data": what the detector is trained on. The threshold comes with the first validation; see detections.score_of."""
    train = data.train.tile_set
    trained_on = data.train.fingerprint()
    return {
        "bands": list(train.bands), "divide_by": list(train.divide_by), "offset": list(train.offset), "nodata": 0,
        "classes": list(classes), "chip_size": list(train.tile_size), "overlap": train.overlap, "ground_resolution": None,
        "trained_on": trained_on, "scored_on": data.val.fingerprint() if data.val else f"training {trained_on}",
        "threshold": None, "stated_threshold": options.threshold, "iou_threshold": options.iou_threshold,
        "max_detections": options.max_detections, "tta": options.tta,
    }


def resume(checkpoint, state, data_now, steps_per_epoch, console):
    """Restore the state, and follow data that changed."""
    require_parts(checkpoint, {"state": state.names()}, "scored (--test-only)")
    state.restore(checkpoint["state"], checkpoint["path"])
    data_now["threshold"] = checkpoint["data"]["threshold"]
    follow_changed_data(console, "tiles", checkpoint["data"], data_now, position=state.position, steps_per_epoch=steps_per_epoch,
                        **{name: state.parts[name] for name in ("running", "schedule", "unreadable")})


def in_words(val):
    """`, val AP50 0.62, F1 0.58 at 0.35` of an epoch that was validated."""
    if not val:
        return ""
    return f", val AP50 {val['map_50']:.4f}, F1 {val['f1']:.4f} at score {val['threshold']:.2f}, F1 by centres {val['f1_centre']:.4f}"


def conclude(position, saver, folder, data, result, unreadable, console):
    """The last lines: the best score, where its model is, and what to find objects with."""
    if position.best_score is None:
        console.say(f"after {position.epoch} epochs none is left to train on these tiles; raise --epochs (or --max-steps)")
        return
    found = position.best_score > float("-inf")
    name, score = ("validation AP50", position.best_score) if data.val else ("training loss", -position.best_score)
    best = f"best {name} {f'{score:.4f}' if found else 'undefined (no objects in validation)'} in epoch {position.best_epoch}"
    print_result(f"{best}{saver.kept_words(1 if data.val else -1)}: {folder.checkpoints / BEST}")
    print_result(f"find objects with {folder.checkpoints / result}{unreadable.left_out()}")


# ----------------------------------------------------------------------------------------------------------------- scoring


def test(options, sources, checkpoint, compute, processes, console):
    """--test-only: scores_test.json and .csv in the output folder, and a table; beside them the baseline. Whole images are scored."""
    split = "test" if sources["test"].images else "val"
    outputs = claim_scores(options.output_dir, split, options.overwrite, processes.is_first)
    splits = ("train", split) if sources["train"].images else (split,)
    tile_sets, classes, unopened = open_data(options, sources, splits, checkpoint, processes, console)
    if split not in tile_sets:
        raise UserError("no images to score: pass --test-images DIR and --test-annotations FILE")
    tiles, threshold = DetectionTiles(tile_sets[split]), score_of(checkpoint["data"])
    _, doubt = tta_of(checkpoint["data"], options.tta, able=True)
    if doubt:
        console.warn(doubt)
    model = compute.place(detector_from_checkpoint(checkpoint))
    with console.progress(len(tile_sets[split].images), f"scoring {split}") as bar:
        found, problems = detect_images(predictor(model, tiles.tile_set, compute, options), tiles, rules_of(options), processes,
                                        batch_size=options.batch_size, advance=bar.update)
    if problems and options.strict:
        raise RunError(f"{problems[0]} (--strict)")
    if not processes.is_first:
        return 0
    problems = [*map(str, problems), *(f"{name}: {why}" for name, why in unopened.items())]
    if problems:
        console.warn(f"{len(problems)} tiles or images cannot be read and are not judged: {'; '.join(problems[:3])}")
    tell_full(found, options, console)
    truths = truths_of(tile_sets[split])
    scores = metrics.score_images(truths, found, classes, threshold=threshold)
    reference = score_baseline(tile_sets, split, classes, console)
    names = [image.name for image in tile_sets[split].images]
    told = {"split": split, "checkpoint": os.path.abspath(checkpoint["path"]), **scores, "baseline": reference}
    write_scores(*outputs, told, truths, found, names)
    print_result(*printed_table(scores, classes).split("\n"))
    if reference:
        print_result(f"baseline, bright or dark spots of a chosen size: AP50 {reference['map_50']:.3f}, F1 {reference['f1']:.3f}, "
                     f"by centres {reference['f1_centre']:.3f}")
    print_result(f"{len(names)} images: {outputs[0]}")
    return 0


def score_baseline(tile_sets, split, classes, console):
    """Scores of Laplacian-of-Gaussian maxima on the same images, with what was chosen on the training images; None without them."""
    if "train" not in tile_sets or not tile_sets["train"].images:
        console.say("no --train-images, so there is no baseline beside the scores")
        return None
    chosen = baseline.fit(tile_sets["train"])
    found = baseline.detect(tile_sets[split], chosen)
    return metrics.score_images(truths_of(tile_sets[split]), found, classes, threshold=chosen.threshold)


if __name__ == "__main__":
    run_program(main, Advice(memory="pass a smaller --batch-size or --crop", again="continue with --resume"))
