"""
Train TinyDet or BigDet: small detectors for the frames of a camera, from a tensor warehouse, in minutes on a CPU.

    python train_detection.py --manifest artifacts/tensor_warehouse/latest                            # TinyDet, one epoch
    python train_detection.py --manifest artifacts/tensor_warehouse/latest --config bigdet            # recipes/bigdet.yaml
    python train_detection.py --manifest artifacts/tensor_warehouse/latest --model big --max-boxes 16 --batch-size 16 --epochs 20
    python train_detection.py --resume checkpoints/bigdet.last.pt --epochs 30                         # continue, with the settings it had
    torchrun --nproc_per_node 4 train_detection.py --manifest …                                       # the same global batch

train_detection.py hands over to this program where a flag or the file of --config has a manifest. `chip.py make-warehouse` makes it.
TinyDet finds the largest object of a frame, BigDet up to --max-boxes of them (docs/small-detectors.md). --checkpoint-out NAME.bin gets the
best weights (highest AP50 on the validation frames); beside it lie NAME.last.pt (for --resume) and NAME.run/ with config.json, metrics.csv
(one row an epoch) and samples/.
"""

if __name__ == "__main__":
    from runtime.stop_signals import catch_stop_signals

    catch_stop_signals()  # before the imports, which take a moment

import dataclasses
import os
import sys
import time

from runtime.errors import Advice, UserError, run_program
from runtime.flags import Parser, add_common_flags, add_config_flag, parse_with_config
from runtime.logs import print_result
from runtime.values import number, whole

KIND = "small-detection"
# What a run is asked to do, not how it trains: never taken from a checkpoint.
RUN_FLAGS = ("resume", "checkpoint_out", "overwrite", "no_verify", "device", "backend", "config", "quiet", "debug", "num_workers",
             "log_interval", "max_boxes")
# What decides the network's shape: taken from the checkpoint, and refused when asked for differently.
MODEL_FLAGS = ("model", "encoder")
# What --help shows.
FIRST_FLAGS = ("--config", "--manifest", "--model", "--max-boxes", "--checkpoint-out", "--batch-size", "--epochs", "--lr-start",
               "--lr-end", "--device", "--resume", "--overwrite")
CPU_BACKENDS, GPU_BACKENDS = ("ndarray", "nd-array", "cpu"), ("wgpu", "gpu")


def build_parser():
    parser = Parser(prog="train_small_detection.py", description=__doc__, first=FIRST_FLAGS)

    group = parser.add_argument_group("data")
    group.add_argument("--manifest", "--warehouse-manifest", "--tensor-warehouse", metavar="PATH",
                       default="artifacts/tensor_warehouse/latest/manifest.json", help="a warehouse: its manifest.json, folder or `latest`")
    group.add_argument("--no-verify", action="store_true", help="do not compare the warehouse's files with their checksums")
    group.add_argument("--num-workers", type=whole(), default=0, help="processes that read frames; 0: none, which is enough on a CPU")

    group = parser.add_argument_group("model")
    group.add_argument("--model", choices=("tiny", "big"), default="tiny", help="tiny: the largest object of a frame; big: many objects")
    group.add_argument("--max-boxes", type=whole(1), help="boxes that BigDet gives for a frame (default: those of the warehouse)")
    group.add_argument("--encoder", help="of BigDet: small (default), tu-tf_efficientnet_lite0, resnet18, tu-<timm name> …")
    group.add_argument("--encoder-weights", help="imagenet (default, where there are any), none, or a .pt or .safetensors file")

    group = parser.add_argument_group("training")
    group.add_argument("--batch-size", type=whole(1), default=2, help="frames of one optimiser step, over all processes")
    group.add_argument("--epochs", type=whole(1), default=1, help="passes over the training frames")
    group.add_argument("--max-steps", type=whole(), default=0, help="stop after this many steps, validate and save; 0: no limit")
    group.add_argument("--lr-start", "--lr", dest="lr", type=number(above=0, high=10), default=1e-3, help="learning rate of AdamW at first")
    group.add_argument("--lr-end", type=number(above=0, high=10), help="and at the last step (default: a tenth of it, 1e-4)")
    group.add_argument("--scheduler", choices=("linear", "cosine", "constant"), default="linear", help="how the learning rate falls")
    group.add_argument("--warmup", type=whole(), default=0, metavar="STEPS", help="steps over which the learning rate rises; 0: none")
    group.add_argument("--weight-decay", type=number(0), default=1e-4, help="of AdamW")
    group.add_argument("--grad-clip", type=number(0), default=10.0, help="largest norm of the gradient; 0: no limit")
    group.add_argument("--ema", type=number(0, 0.99999), default=0.99, metavar="DECAY",
                       help="the detector is the moving average of the weights, over about 1 / (1 - DECAY) steps; 0: the last weights")
    group.add_argument("--no-augment", action="store_true", help="frames as they are: no flips, zooms and changes of light")
    group.add_argument("--patience", type=whole(), default=0, help="stop after this many epochs without a better AP50; 0: never")
    group.add_argument("--seed", type=whole(), default=0, help="of weights, order and augmentation")

    group = parser.add_argument_group("loss: a weighted sum")
    group.add_argument("--lambda-box", type=number(0), default=5.0, help="weight of L1 between matched boxes and objects")
    group.add_argument("--lambda-obj", type=number(0), default=1.0, help="weight of the cross-entropy of `object or not`")
    group.add_argument("--lambda-iou", type=number(0), default=2.0, help="weight of 1 − generalised IoU of matched boxes; 0: left out")

    group = parser.add_argument_group("validation")
    group.add_argument("--score-threshold", "--infer-obj-thresh", type=number(0, 1), default=0.3,
                       help="score from which precision and recall count")
    group.add_argument("--iou-threshold", "--infer-iou-thresh", type=number(0, 1), default=0.5,
                       help="boxes of one class above it are the same object")

    group = parser.add_argument_group("machine")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    group.add_argument("--backend", choices=(*CPU_BACKENDS, *GPU_BACKENDS),
                       help="for old command lines: ndarray is --device cpu, wgpu a GPU")
    group.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32", help="of the network's layers; losses are fp32")

    group = parser.add_argument_group("run")
    group.add_argument("--checkpoint-out", metavar="FILE", help="the best weights (default: checkpoints/tinydet.bin or bigdet.bin)")
    group.add_argument("--resume", metavar="FILE", help="NAME.last.pt to continue from; flags not given are those of its run")
    group.add_argument("--overwrite", action="store_true", help="replace an earlier run of this name")
    group.add_argument("--log-interval", type=whole(), default=50, metavar="STEPS", help="steps between lines; 0: one an epoch only")
    group.add_argument("--save-minutes", type=number(0), default=10.0, help="last.pt at least this often within an epoch; 0: every step")
    group.add_argument("--wandb", action="store_true", help="log to Weights & Biases (WANDB_MODE=offline without network)")
    group.add_argument("--project", default="small-detection", help="W&B project")
    group.add_argument("--run-name", help="W&B run name")
    group.add_argument("--tensorboard", action="store_true", help="log to tensorboard/ in NAME.run")
    add_config_flag(parser, "train-small-detection")
    add_common_flags(parser)
    return parser


def check_flags(args):
    """UserError for pairings that cannot be right, before any work."""
    if args.overwrite and args.resume:
        raise UserError("--resume continues a run and --overwrite deletes one: pass one of the two")
    if args.backend in CPU_BACKENDS and args.device not in ("auto", "cpu") or args.backend in GPU_BACKENDS and args.device == "cpu":
        raise UserError(f"--backend {args.backend} and --device {args.device} contradict each other; pass --device alone")
    if args.model == "tiny" and (args.encoder or args.encoder_weights):
        raise UserError("--encoder and --encoder-weights are for BigDet, TinyDet has its own layers; pass --model big, or leave them out")
    if args.lr_end and args.lr_end > args.lr:
        raise UserError(f"--lr-end {args.lr_end:g} is above --lr-start {args.lr:g}; pass one that is not")


def refuse_framework(argv):
    """--framework is a flag of train_detection.py, which hands its command line over."""
    if any(word.split("=")[0] == "--framework" for word in argv):
        raise UserError("--framework chooses among the detectors of tiles, --manifest trains the small ones; pass --model tiny or big")


def import_libraries():
    """What the functions below use. torch takes seconds to import, so this waits until the flags are known to be right."""
    global torch, open_warehouse, usual_size, count_weights, SmallConfig, build_small_detector, small_detector_from_checkpoint, NAMES
    global Sampling, WarehouseData, boxes_of_split, LOSSES, only_largest, small_losses, found_in, mean_box, score_frames, truths_in
    global write_small_samples, follow_changed_data, load_checkpoint, require_parts, Compute, choose_device, gradient_scaler
    global seed_everything, seed_step, usable_cores, share_batch_statistics, require_finite_loss, require_finite_weights, optimiser_step
    global path_length, warn_of_short_path, RunBeside, best_of_run, LAST, RunLog, Position, RunState, RunningSums, Saver, Schedule
    global adopt_settings, group_of, settings_of, AveragedWeights, Learner
    import torch

    from chipping.warehouse import open_warehouse
    from detection.anchors import usual_size
    from detection.encoders import count_weights
    from detection.learner import Learner
    from detection.small_data import Sampling, WarehouseData, boxes_of_split
    from detection.small_detectors import NAMES, SmallConfig, build_small_detector, small_detector_from_checkpoint
    from detection.small_losses import NAMES as LOSSES
    from detection.small_losses import only_largest, small_losses
    from detection.small_samples import write_small_samples
    from detection.small_scores import found_in, mean_box, score_frames, truths_in
    from runtime.averaged_weights import AveragedWeights
    from runtime.changed_data import follow_changed_data
    from runtime.checkpoint import load_checkpoint, require_parts
    from runtime.device import Compute, choose_device, gradient_scaler, seed_everything, seed_step, usable_cores
    from runtime.distributed import share_batch_statistics
    from runtime.finite import require_finite_loss, require_finite_weights
    from runtime.optimiser_step import optimiser_step
    from runtime.outlook import path_length, warn_of_short_path
    from runtime.run_beside import RunBeside, best_of_run
    from runtime.run_folder import LAST
    from runtime.run_log import RunLog
    from runtime.run_state import Position, RunState
    from runtime.running_sums import RunningSums
    from runtime.saver import Saver
    from runtime.schedule import Schedule
    from runtime.settings import adopt_settings, group_of, settings_of


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    refuse_framework(argv)
    args, given = parse_with_config(build_parser(), argv)
    check_flags(args)
    import_libraries()
    from runtime.program import program

    with program(args.device, args.quiet) as (processes, console):
        checkpoint = open_checkpoint(args, given) if args.resume else None
        args.manifest = os.path.abspath(args.manifest)
        args.checkpoint_out = args.checkpoint_out or f"checkpoints/{args.model}det.bin"
        device = choose_device(device_of(args.device, args.backend), processes.local_rank)
        compute = Compute(device=device, precision=args.precision, channels_last=True)  # a third faster on CPUs
        return train(group_of(Options, args), settings_of(args, RUN_FLAGS), checkpoint, compute, processes, console)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Flags that the loop and its parts read; what each means is said in build_parser."""

    manifest: str
    no_verify: bool
    num_workers: int
    model: str
    max_boxes: int | None
    encoder: str | None
    encoder_weights: str | None
    batch_size: int
    epochs: int
    max_steps: int
    lr: float
    lr_end: float | None
    scheduler: str
    warmup: int
    weight_decay: float
    grad_clip: float
    ema: float
    no_augment: bool
    patience: int
    seed: int
    lambda_box: float
    lambda_obj: float
    lambda_iou: float
    score_threshold: float
    iou_threshold: float
    checkpoint_out: str
    overwrite: bool
    log_interval: int
    save_minutes: float
    wandb: bool
    project: str
    run_name: str | None
    tensorboard: bool


def open_checkpoint(args, given):
    """The checkpoint of --resume; flags that were not given become those of its run."""
    checkpoint = load_checkpoint(args.resume, KIND)
    require_parts(checkpoint, {"model": ("model", "max_boxes", "target_size", "classes"), "settings": (), "state": ("model",),
                               "data": ("file", "trained_on")})
    adopt_settings(args, given, checkpoint["settings"], run_flags=RUN_FLAGS, shape_flags=MODEL_FLAGS)
    check_flags(args)
    own = best_of_run(args.resume, str(checkpoint["data"]["file"]))
    if args.checkpoint_out and os.path.realpath(args.checkpoint_out) != os.path.realpath(own):
        raise UserError(f"--resume continues the run of {own}; leave --checkpoint-out out")
    args.checkpoint_out = str(own)
    return checkpoint


def device_of(device, backend):
    """The value of --device, where an old --backend stands in its place."""
    if backend in CPU_BACKENDS:
        return "cpu"
    if backend in GPU_BACKENDS and device == "auto":
        found = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else None
        if found is None:
            raise UserError(f"--backend {backend} asks for a GPU and PyTorch sees none; pass --device cpu")
        return found
    return device


# ---------------------------------------------------------------------------------------------------------------- training


def train(options, settings, checkpoint, compute, processes, console):
    """The whole run, from the warehouse to the best weights."""
    run_folder = RunBeside(options.checkpoint_out, bool(checkpoint), options.overwrite, processes.is_first)
    run_folder.refuse_earlier_run()  # before checksums are computed
    seed_everything(options.seed)
    data = open_data(options, checkpoint, compute, processes, console)
    steps = data.batches.steps
    total_steps = min(options.epochs * steps, options.max_steps or options.epochs * steps)
    run_folder.make()

    # Model, optimiser
    learner = make_learner(options, data.warehouse, checkpoint, compute, processes)
    model, optimizer = learner.model, learner.optimizer
    floor = min(1.0, options.lr_end / options.lr) if options.lr_end else 0.1
    schedule = Schedule(options.scheduler, options.lr, total_steps, options.warmup, floor=floor)
    running = RunningSums(LOSSES, compute.device, processes)

    # Where the run is. Everything in `state` goes into the checkpoint and comes back on resume.
    position = Position(wandb_id=os.urandom(4).hex() if options.wandb else None)
    state = RunState(position, model=model, average=learner.average, optimizer=optimizer, schedule=schedule, scaler=learner.scaler,
                     running=running)
    header = {"kind": KIND, "model": model.config.to_dict(), "settings": settings, "data": describe_data(data, options)}
    if checkpoint:
        resume(checkpoint, state, header["data"], steps, console)

    def finished():
        stalled = options.patience and position.epochs_without_gain >= options.patience
        return position.epoch >= options.epochs or position.step >= total_steps and not position.step_in_epoch or stalled

    if checkpoint and finished():
        console.say(f"the run of {run_folder.best} is finished after {position.epoch} epochs; "
                    "raise --epochs (or --max-steps, --patience) to train on")
        return 0
    with (
        run_folder as folder,
        Saver(folder, state, header, processes, minutes=options.save_minutes, resume_with=f"continue with --resume {folder.last}") as saver,
        RunLog(folder, position, console, active=processes.is_first, wandb=options.wandb, tensorboard=options.tensorboard,
               project=options.project, name=options.run_name, config=settings) as log,
    ):
        folder.write_config(settings=settings, model=header["model"], data=header["data"], device=str(compute.device),
                            processes=processes.size)
        saver.keep_best(console, bool(checkpoint), header["data"]["scored_on"])
        if not checkpoint:
            saver.save(LAST)  # from here on the run can be resumed, whenever it is killed
        say_beginning(learner, data, steps, console)
        if not checkpoint:
            path = path_length(options.scheduler, options.lr, total_steps, options.warmup)
            warn_of_short_path(console, path, total_steps, f"take --config {options.model}det, or more --epochs")

        saver.clock.restart()
        while not finished():
            epoch = position.epoch
            model.train()
            with console.progress(steps, f"epoch {epoch}", position.step_in_epoch) as bar:
                pace = Pace()
                last = max(0, position.step_in_epoch + total_steps - position.step)
                for batch in data.training_batches(epoch, position.step_in_epoch, last):
                    schedule.set_rate(optimizer, position.step)
                    running.add(train_step(learner, batch, position.step, options), int(processes.is_first))
                    learner.average.update(position.step)
                    position.after_step()
                    pace.add(options.batch_size)
                    if options.log_interval and position.step_in_epoch % options.log_interval == 0:
                        console.say(step_words(running, schedule, position, steps, pace))
                    bar.update()
                    saver.after_step()

            # The epoch's numbers
            losses, _ = running.means()
            row = {"epoch": epoch, "step": position.step, "lr": schedule.rate(position.step - 1), "train_loss": sum(losses.values()),
                   **{f"train_{name}": value for name, value in losses.items()}}
            require_finite_loss(row["train_loss"], "training", epoch)
            require_finite_weights(model, position.step)
            speed = pace.frames_per_second()
            val, samples = validate(learner, data, epoch, options)
            row |= {f"val_{key}": value for key, value in val.items()}

            # What follows from them: best so far? enough?
            score = val["ap50"] if val else -row["train_loss"]
            score = score if score == score else float("-inf")
            is_best = position.best_score is None or score >= position.best_score  # of equal ones the later: its rate is lower
            position.judge(score, is_best)
            position.after_epoch()
            running.reset()

            # Tell and save
            log.epoch(row, best=int(is_best), seconds=saver.clock.epoch_seconds())
            console.say(f"epoch {epoch}: train loss {loss_words(losses)}{in_words(val)}, lr {row['lr']:.2e}, {speed:.1f} frames/s"
                        f"{', best' * is_best}")
            if is_best and processes.is_first:
                write_small_samples(folder.path / "samples" / f"epoch_{epoch}.png", *samples, model.config.classes, options.score_threshold)
            saver.save(*saver.best(is_best))
            saver.after_epoch(finished())
        if processes.is_first or position.best_score is None:
            conclude(position, saver, folder, data, options, console)
    return 0


def train_step(learner, batch, step, options):
    """One optimiser step. → {name: weighted loss}, this process's part of the global batch's, still on the device."""
    seed_step(options.seed, step, learner.processes.rank)
    frames, boxes, mask, labels = to_device(batch, learner.compute.device)
    learner.optimizer.zero_grad(set_to_none=True)
    with learner.compute.autocast():
        found = learner.model.proposals(frames)
    losses = weighted_losses(found, boxes, mask, labels, options, learner.processes.sum)
    learner.scaler.scale(sum(losses.values())).backward()
    optimiser_step(learner.model, learner.optimizer, learner.scaler, learner.processes, grad_clip=options.grad_clip)
    return {name: loss.detach() for name, loss in losses.items()}


def weighted_losses(found, boxes, mask, labels, options, total=lambda number: number):
    """{name: loss times its lambda}. TinyDet learns the largest object alone."""
    mask = only_largest(boxes, mask) if options.model == "tiny" else mask
    weights = {"box": options.lambda_box, "obj": options.lambda_obj, "iou": options.lambda_iou, "class": 1.0}
    return {name: weights[name] * loss for name, loss in small_losses(found, boxes, mask, labels, total=total).items()}


def validate(learner, data, epoch, options):
    """
    ({"loss", "ap50", "precision", "recall", "f1"} of the validation frames, {} without any; (images, truths, found, names) of a few).

    Batches are dealt out to the processes and put together in their order, so the number of processes does not show in any digit.
    """
    model, warehouse, processes = learner.average.model, data.warehouse, learner.processes
    if not len(data.val):
        return {}, few_frames(learner, data, data.train[:3], options)
    parts = {}
    with torch.no_grad():
        for number, batch in data.val_batches():
            frames, boxes, mask, labels = to_device(batch, learner.compute.device)
            with learner.compute.autocast():
                proposals = model.proposals(frames)
            loss = float(sum(weighted_losses(proposals, boxes, mask, labels, options).values()))
            best = [part.cpu() for part in model.best(proposals)]
            found = found_in(*best, warehouse.target_size, options.iou_threshold)
            parts[number] = loss * len(frames), found, truths_in(batch["boxes"], batch["mask"], batch["labels"], warehouse.target_size)
    for part in processes.gather(parts):
        parts |= part
    losses, found, truths = zip(*(parts[number] for number in sorted(parts)), strict=True)
    found, truths = sum(found, []), sum(truths, [])
    loss = sum(losses) / len(data.val)
    require_finite_loss(loss, "validation", epoch)
    scores = score_frames(truths, found, model.config.classes, threshold=options.score_threshold)
    most = sorted(range(len(truths)), key=lambda k: -len(truths[k]["boxes"]))[:3]
    images = warehouse.read(data.val[most])["images"]
    names = [warehouse.samples[data.val[k]].id for k in most]
    return {"loss": loss, **scores}, (images, [truths[k] for k in most], [found[k] for k in most], names)


def few_frames(learner, data, chosen, options):
    """(images, truths, found, names) of some samples."""
    batch, size = data.warehouse.read(chosen), data.warehouse.target_size
    with torch.no_grad(), learner.compute.autocast():
        frames = torch.from_numpy(batch["images"]).to(learner.compute.device).float().div_(255)
        best = [part.cpu() for part in learner.average.model(frames)]
    names = [data.warehouse.samples[k].id for k in chosen]
    return (batch["images"], truths_in(batch["boxes"], batch["mask"], batch["labels"], size),
            found_in(*best, size, options.iou_threshold), names)


# ------------------------------------------------------------------------------------------------------------------- parts


class Pace:
    """Frames per second since the epoch began, or since it was resumed."""

    def __init__(self):
        self.begun, self.frames = time.monotonic(), 0

    def add(self, frames):
        self.frames += frames

    def frames_per_second(self):
        return self.frames / max(1e-9, time.monotonic() - self.begun)


def open_data(options, checkpoint, compute, processes, console):
    """The WarehouseData of --manifest. UserError where it does not fit the flags or the checkpoint, or nothing can be learned from it."""
    warehouse = open_warehouse(options.manifest, verify=processes.is_first and not options.no_verify)  # by one process, for all
    processes.wait_for_all()
    for whose, wanted in (("--max-boxes is", options.max_boxes), ("the checkpoint has", checkpoint and checkpoint["model"]["max_boxes"])):
        if wanted not in (None, warehouse.max_boxes):
            raise UserError(f"{whose} {wanted}, but the warehouse was made with --max-boxes {warehouse.max_boxes}; "
                            f"make it again with {wanted}, or leave the flag out")
    for name, found in (("target_size", warehouse.target_size), ("classes", warehouse.classes)) if checkpoint else ():
        if list(checkpoint["model"][name]) != list(found):
            known, found = (" ".join(map(str, values)) for values in (checkpoint["model"][name], found))
            raise UserError(f"the checkpoint was trained with {name.replace('_', ' ')} {known}, the warehouse has {found}; pass its own")
    sampling = Sampling(batch_size=options.batch_size, augment=not options.no_augment, seed=options.seed)
    data = WarehouseData(warehouse, sampling, processes, workers=min(options.num_workers, usable_cores()),
                         pin_memory=compute.device.type == "cuda")
    if not len(data.train) or not boxes_of_split(warehouse, "train")["mask"].any():
        raise UserError(f"the {len(data.train)} training frames of {warehouse.folder} have no box; check the labels, and make it again")
    if not len(data.val):
        console.warn("the warehouse has no validation frames: the best epoch will be the one with the lowest training loss")
    return data


def make_learner(options, warehouse, checkpoint, compute, processes):
    """The detector of the checkpoint, or a new one fitted to the training boxes; its optimiser."""
    model = small_detector_from_checkpoint(checkpoint, averaged=False) if checkpoint else new_detector(options, warehouse)
    model = compute.place(share_batch_statistics(model, processes))
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr, weight_decay=options.weight_decay)
    return Learner(model=model, average=AveragedWeights(model, options.ema), optimizer=optimizer,
                   scaler=gradient_scaler(compute.device, compute.precision), compute=compute, processes=processes)


def new_detector(options, warehouse):
    known, encoder = boxes_of_split(warehouse, "train"), options.encoder or "small"
    if options.model == "tiny":
        known["mask"] = only_largest(torch.from_numpy(known["boxes"]), torch.from_numpy(known["mask"])).numpy()
    usual = usual_size(known["boxes"][known["mask"]] * (*warehouse.target_size, *warehouse.target_size))
    config = SmallConfig(model=options.model, max_boxes=warehouse.max_boxes, target_size=warehouse.target_size,
                         resize_mode=warehouse.resize_mode, classes=warehouse.classes, encoder=encoder, usual=usual)
    return build_small_detector(config, options.encoder_weights or ("none" if encoder == "small" else "imagenet"))


def to_device(batch, device):
    """(frames (B, 3, H, W) float32 in 0..1, boxes, mask, labels) on the device."""
    frames, *rest = (batch[name].to(device, non_blocking=True) for name in ("images", "boxes", "mask", "labels"))
    return frames.float().div_(255), *rest


def describe_data(data, options):
    """The checkpoint's "data": what the detector is trained on."""
    warehouse = data.warehouse
    return {
        "classes": list(warehouse.classes), "target_size": list(warehouse.target_size), "resize_mode": warehouse.resize_mode,
        "max_boxes": warehouse.max_boxes, "warehouse": warehouse.version, "trained_on": f"train of {warehouse.version}",
        "scored_on": f"{'val' if len(data.val) else 'train'} of {warehouse.version}", "file": os.path.basename(options.checkpoint_out),
    }


def resume(checkpoint, state, data_now, steps_per_epoch, console):
    """Restore the state, and follow data that changed."""
    require_parts(checkpoint, {"state": state.names()}, "used for inference")
    state.restore(checkpoint["state"], checkpoint["path"])
    follow_changed_data(console, "frames", checkpoint["data"], data_now, position=state.position, steps_per_epoch=steps_per_epoch,
                        running=state.parts["running"], schedule=state.parts["schedule"])


def say_beginning(learner, data, steps, console):
    config, wide, tall = learner.model.config, *data.warehouse.target_size
    encoder = f" on {config.encoder}" if config.model == "big" else ""
    console.say(f"{NAMES[config.model]}{encoder}, {count_weights(learner.model) / 1e6:.2f} M weights, {learner.compute.device}; "
                f"{len(data.train)} frames of {wide}x{tall} for training, {steps} steps an epoch; {len(data.val) or 'no'} for validation")


def step_words(running, schedule, position, steps, pace):
    losses, _ = running.means()
    return (f"epoch {position.epoch}, step {position.step_in_epoch} of {steps}: loss {loss_words(losses)}, "
            f"lr {schedule.rate(position.step - 1):.2e}, {pace.frames_per_second():.1f} frames/s")


def loss_words(losses):
    """`1.2345 (box 0.21, obj 0.61, iou 0.41)`."""
    parts = ", ".join(f"{name} {value:.3f}" for name, value in losses.items() if value)
    return f"{sum(losses.values()):.4f} ({parts})"


def in_words(val):
    """`, val loss 1.2, AP50 0.62, precision 0.70, recall 0.58` of an epoch, or nothing."""
    if not val:
        return ""
    scores = ", ".join(f"{name} {'none' if val[name] != val[name] else f'{val[name]:.3f}'}" for name in ("precision", "recall"))
    return f", val loss {val['loss']:.4f}, AP50 {val['ap50']:.4f}, {scores}"


def conclude(position, saver, folder, data, options, console):
    """The last lines: the best score beside that of the mean box, and the file to find objects with."""
    if position.best_score is None:
        console.say(f"after {position.epoch} epochs none is left to train on this warehouse; raise --epochs (or --max-steps)")
        return
    warehouse, found = data.warehouse, position.best_score > float("-inf")
    name, score = ("validation AP50", position.best_score) if len(data.val) else ("training loss", -position.best_score)
    best = f"best {name} {f'{score:.4f}' if found else 'undefined (no objects in validation)'} in epoch {position.best_epoch}"
    print_result(f"{best}{saver.kept_words(1 if len(data.val) else -1)}")
    if len(data.val) and found:
        known = boxes_of_split(warehouse, "val")
        truths = truths_in(known["boxes"], known["mask"], known["labels"], warehouse.target_size)
        same = score_frames(truths, [mean_box(warehouse)] * len(truths), warehouse.classes, threshold=options.score_threshold)
        print_result(f"baseline, the mean box of the training frames in every frame: AP50 {same['ap50']:.4f}")
    print_result(f"find objects with {folder.best}")


if __name__ == "__main__":
    run_program(main, Advice(memory="pass a smaller --batch-size", again="continue with --resume"))
