"""
Train a network that says for each pixel what it is: burned or not, how badly, or any other classes that a patch set has.

    python train.py --patches-dir patches --num-classes 2
    python train.py --patches-dir patches --num-classes 5 --encoder resnet50 --architecture unetplusplus --precision bf16
    python train.py --resume output/checkpoints/last.pt                     # go on where it was, with the settings it had
    python train.py --test-only --resume output/checkpoints/best_model.pt --test-split val
    torchrun --nproc_per_node 4 train.py --patches-dir patches              # the same global batch, on four processes

Patches come from `chip.py make-patches`. The output folder gets config.json, metrics.csv (one row an epoch), samples/ and checkpoints/:
best_model.pt (highest validation fire IoU), last.pt (where --resume goes on), checkpoint_epoch_N.pt (N from zero) and final_model.pt.
"""

import copy
import functools
import os
import sys

from runtime.errors import RunError, UserError, one_line, run_program
from runtime.flags import Parser, add_common_flags, add_config_flag, parse_with_config, require_finite

KIND = "segmentation"
# What a run is asked to do, not how it trains: never taken from a checkpoint.
RUN_FLAGS = ("resume", "output_dir", "overwrite", "test_only", "test_split", "strict", "device", "config", "quiet", "debug")
# What decides the network's shape: taken from the checkpoint, and refused when asked for differently.
MODEL_FLAGS = ("architecture", "encoder", "num_classes", "indices", "layer")

# What the "state" of a checkpoint holds, so that a run can go on.
STATE = ("epoch", "step_in_epoch", "step", "best_score", "best_epoch", "epochs_without_gain", "threshold", "unreadable", "wandb_id",
         "model", "optimizer", "schedule", "scaler", "running_loss", "running_counts")

# Whoever passes one of these means pan and multispectral pairs: the document writes `train.py --session … --chips …`, and
# train_pansharpen.py takes over.
PANSHARPENING_FLAGS = ("--session", "--chips", "--load-epoch")


def build_parser():
    parser = Parser(prog="train.py", description=__doc__)

    group = parser.add_argument_group("data")
    group.add_argument("--patches-dir", default="./patches", help="folder made by chip.py make-patches")
    group.add_argument("--output-dir", default="./output", help="the run's folder")
    group.add_argument("--num-classes", type=int, default=2, help="2: burned or not (DEL), 5: severity (GRA), or what the set has")
    group.add_argument("--layer", help="label layer, where the number of classes does not say it")
    group.add_argument("--num-workers", type=int, default=4, help="processes that read patches, at most one a core; 0: none")
    group.add_argument("--weighted-sampling", action="store_true", help="draw fire patches more often")
    group.add_argument("--fire-weight", type=float, default=5.0, help="how many times more often, with --weighted-sampling")
    group.add_argument("--no-augment", action="store_true", help="patches as they are: no flips, turns, gain, offset or noise")
    group.add_argument("--no-fire-augment", action="store_true", help="augment fire patches like all others")
    group.add_argument("--crop", type=int, default=0, metavar="PIXELS", help="train on random squares of this side; 0: on whole patches")
    group.add_argument("--steps-per-epoch", type=int, default=0, help="optimiser steps between validations; 0: one pass over the patches")

    group = parser.add_argument_group("model")
    group.add_argument("--architecture", default="unet", help="unet, unetplusplus, deeplabv3plus …; smallunet, contrastunet (no encoder)")
    group.add_argument("--encoder", default="resnet34", help="resnet18, resnet50, efficientnet-b0, mobilenet_v2, tu-<timm name> …")
    group.add_argument("--encoder-weights", default="imagenet", help="imagenet, none, or a .pt or .safetensors file")
    group.add_argument("--indices", nargs="*", default=[],
                       help="further inputs: ndvi nbr ndwi ndmi; or pairs: all normalised differences in place of the bands")

    group = parser.add_argument_group("training")
    group.add_argument("--epochs", type=int, default=50)
    group.add_argument("--batch-size", type=int, default=16, help="patches of one optimiser step, over all processes and pieces")
    group.add_argument("--accumulate", type=int, default=1, help="compute each batch in this many pieces, for less memory")
    group.add_argument("--lr", type=float, default=1e-4, help="learning rate of AdamW")
    group.add_argument("--weight-decay", type=float, default=1e-4)
    group.add_argument("--scheduler", choices=("plateau", "cosine"), default="plateau",
                       help="learning rate: halved when val fire IoU stalls for 5 epochs, or half a cosine over the run")
    group.add_argument("--warmup", type=int, default=0, metavar="STEPS", help="steps over which the learning rate rises; 0: none")
    group.add_argument("--grad-clip", type=float, default=0.0, help="largest norm of the gradient; 0: no limit")
    group.add_argument("--patience", type=int, default=10, help="stop after this many epochs without a better val fire IoU; 0: never")
    group.add_argument("--max-steps", type=int, default=0, help="stop after this many steps, validate and save; 0: no limit")
    group.add_argument("--seed", type=int, default=0)

    group = parser.add_argument_group("loss: 0.5 cross-entropy + 0.5 Dice")
    group.add_argument("--no-class-weights", action="store_true", help="all classes count the same in the cross-entropy")
    group.add_argument("--focal-loss", action="store_true", help="focal loss in place of the cross-entropy")
    group.add_argument("--focal-gamma", type=float, default=2.0, help="how much easy pixels are played down")

    group = parser.add_argument_group("machine")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    group.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32", help="of the network's layers; losses are fp32")
    group.add_argument("--compile", action="store_true", help="torch.compile: a slow start, faster steps")
    group.add_argument("--channels-last", action="store_true", help="memory layout that tensor cores like")

    group = parser.add_argument_group("run")
    group.add_argument("--resume", metavar="FILE", help="checkpoint to go on from; flags not given are those of its run")
    group.add_argument("--detection-min-pixels", type=int, default=1, metavar="PIXELS",
                       help="burned pixels from which a patch counts as detected in the scores of each epoch")
    group.add_argument("--save-every", type=int, default=5, help="checkpoint_epoch_N.pt every this many epochs; 0: never")
    group.add_argument("--save-minutes", type=float, default=10.0, help="last.pt at least this often, also inside an epoch; 0: every step")
    group.add_argument("--overwrite", action="store_true", help="replace an earlier run in the output folder")
    group.add_argument("--strict", action="store_true", help="a patch that can't be read ends the run (else it is left out and named)")
    group.add_argument("--test-only", action="store_true", help="score a split with the checkpoint of --resume, on whole scenes")
    group.add_argument("--test-split", choices=("train", "val", "test"), default="test", help="split to score")
    group.add_argument("--wandb", action="store_true", help="log to Weights & Biases (WANDB_MODE=offline without network)")
    group.add_argument("--project", default="fire-detection", help="W&B project")
    group.add_argument("--run-name", help="W&B run name")
    group.add_argument("--tensorboard", action="store_true", help="log to tensorboard/ in the output folder")
    add_config_flag(parser)
    add_common_flags(parser)
    return parser


def check_flags(args):
    """UserError for values and pairings that can't be right, before any work."""
    at_least = {"epochs": 1, "batch_size": 1, "accumulate": 1, "num_classes": 2, "num_workers": 0, "warmup": 0, "patience": 0,
                "max_steps": 0, "save_every": 0, "crop": 0, "steps_per_epoch": 0, "save_minutes": 0, "grad_clip": 0, "weight_decay": 0,
                "focal_gamma": 0, "seed": 0, "detection_min_pixels": 1}
    for name, low in at_least.items():
        if not getattr(args, name) >= low:
            raise UserError(f"--{name.replace('_', '-')} must be at least {low}, got {getattr(args, name)}")
    if not 0 < args.lr < 10 or not args.fire_weight > 0:
        raise UserError(f"--lr must be between 0 and 10 and --fire-weight above 0, got {args.lr} and {args.fire_weight}")
    require_finite(args, "fire_weight", "weight_decay", "focal_gamma", "grad_clip", "seed")
    if args.num_classes > 254:
        raise UserError(f"--num-classes must be at most 254, got {args.num_classes}; 255 means ignore")
    if args.test_only and not args.resume:
        raise UserError("--test-only needs a checkpoint to score: pass --resume output/checkpoints/best_model.pt")
    if args.overwrite and args.resume and not args.test_only:
        raise UserError("--resume goes on with a run and --overwrite deletes one: pass one of the two")
    if args.accumulate > args.batch_size:
        raise UserError(f"--accumulate {args.accumulate} pieces are more than the {args.batch_size} patches of a batch; pass fewer")


def take_settings(args, given, checkpoint, path):
    """Settings of the checkpoint's run for every flag that was not given; UserError where the network would have to change its shape."""
    from runtime.run_folder import run_folder_of

    for name, value in checkpoint["settings"].items():
        if name in RUN_FLAGS or not hasattr(args, name):
            continue
        if name in MODEL_FLAGS and name in given and getattr(args, name) != value:
            flag = name.replace("_", "-")
            raise UserError(f"--{flag} {getattr(args, name)} disagrees with the checkpoint, which has {value}; leave it out")
        if name not in given or name in MODEL_FLAGS:
            setattr(args, name, value)
    folder = run_folder_of(path)
    if not args.test_only and "output_dir" in given and os.path.realpath(args.output_dir) != os.path.realpath(folder):
        raise UserError(f"--resume goes on in the run's own folder {folder}; leave --output-dir out")
    if "output_dir" not in given:
        args.output_dir = str(folder)


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    if any(word.split("=")[0] in PANSHARPENING_FLAGS for word in argv):
        import train_pansharpen

        return train_pansharpen.main(argv)
    args, given = parse_with_config(build_parser(), argv)
    check_flags(args)

    # torch takes seconds to import: only now, when the flags are known to be right.
    import logging
    import warnings

    from runtime import distributed
    from runtime.checkpoint import load_checkpoint, require_parts
    from runtime.logs import Console, SilentConsole

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    with distributed.start(args.device) as processes:
        console = Console(args.quiet) if processes.is_first else SilentConsole()
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: console.warn(message)
            checkpoint = None
            if args.resume:
                checkpoint = load_checkpoint(args.resume, KIND)
                scored = {"model": (), "settings": (), "data": ("bands", "classes", "threshold"), "state": ("model",)}
                require_parts(checkpoint, scored if args.test_only else {**scored, "state": STATE}, "scored (--test-only)")
                take_settings(args, given, checkpoint, args.resume)
            if args.test_only:
                return test(args, checkpoint, processes, console)
            return train(args, checkpoint, processes, console)


# ---------------------------------------------------------------------------------------------------------------- training


def train(args, checkpoint, processes, console):
    """The whole run, from the patches to final_model.pt."""
    import torch

    from losses import CombinedLoss
    from metrics import CombinedMetrics, ThresholdHistogram
    from runtime.checkpoint import require_numbers, save_checkpoint
    from runtime.clock import Clock
    from runtime.device import choose_device, gradient_scaler, seed_everything
    from runtime.distributed import share_batch_statistics
    from runtime.files import require_writable
    from runtime.interrupts import NOTHING, SAVE, STOP, StopRequest
    from runtime.logs import MetricsFile, start_tensorboard, start_wandb
    from runtime.run_folder import BEST, FINAL, LAST, RunFolder
    from runtime.schedule import Schedule

    run_folder = RunFolder(args.output_dir, bool(checkpoint), args.overwrite, processes.is_first)
    run_folder.refuse_earlier_run()  # before masks are counted and weights downloaded; the folder itself is made when the rest is right
    device = choose_device(args.device, processes.local_rank)
    seed_everything(args.seed)

    # Data
    data = open_data(args, processes, device, checkpoint)
    patch_set = data.patch_set
    if patch_set.without_layer:
        console.say(f"{patch_set.without_layer} patches have no labels of layer {patch_set.layer} and are left out")
    if min(args.batch_size, len(data.train)) // processes.size < args.accumulate:
        raise UserError(f"--accumulate {args.accumulate} needs as many patches a step and process; there are {len(data.train)} in train")
    steps = data.batches.steps
    total_steps = min(args.epochs * steps, args.max_steps or args.epochs * steps)

    if processes.is_first:
        require_writable(args.output_dir)  # before weights are downloaded

    # Model, loss, optimiser
    model, config = make_model(args, data, checkpoint)
    require_fitting_size(model, patch_set, args.crop)
    smallest = data.batches.batch_size // args.accumulate
    if smallest == 1 and not can_train_on_one(model, len(patch_set.bands), args.crop or patch_set.chip_size):
        raise UserError(f"{config.architecture} on {config.encoder} can't be trained on one patch at a time: its batch normalisation "
                        "needs two values a channel; pass --batch-size of at least 2 a piece (--accumulate)")
    model = share_batch_statistics(model, processes).to(device)
    if args.channels_last:
        model = model.to(memory_format=torch.channels_last)
    network = torch.compile(model) if args.compile else model  # weights are shared; `model` keeps the names without _orig_mod
    criterion = make_loss(CombinedLoss, data, args.no_class_weights, args.focal_loss, args.focal_gamma, processes, console).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=args.weight_decay)
    schedule = Schedule(args.scheduler, args.lr, total_steps, args.warmup)
    scaler = gradient_scaler(device, args.precision)
    classes = patch_set.classes
    new_metrics = functools.partial(CombinedMetrics, len(classes), classes, args.detection_min_pixels)
    running = {"loss": torch.zeros(3, device=device), "metrics": new_metrics(device)}
    held_out = {"metrics": new_metrics(device), "threshold": ThresholdHistogram(device=device)}

    # Where the run is. Everything here goes into the checkpoint and comes back on resume.
    position = {"epoch": 0, "step_in_epoch": 0, "step": 0, "best_score": None, "best_epoch": None, "epochs_without_gain": 0,
                "threshold": None, "unreadable": [], "wandb_id": os.urandom(4).hex() if args.wandb else None}
    if checkpoint:
        state = checkpoint["state"]
        position |= {key: state[key] for key in position}
        try:
            optimizer.load_state_dict(state["optimizer"])
            for group in optimizer.param_groups:  # the flag wins over what the optimiser remembers, as --lr does at every step
                group["weight_decay"] = args.weight_decay
            schedule.load_state_dict(state["schedule"])
            if state["scaler"]:  # empty from a run in fp32 or bf16: one that goes on in fp16 begins with a new one
                scaler.load_state_dict(state["scaler"])
            running["loss"].copy_(state["running_loss"])
            if processes.is_first:  # the counts of all processes; the others begin with nothing
                running["metrics"].add(state["running_counts"])
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{args.resume} can't be gone on with: its state is not that of such a run "
                            f"({one_line(error)[:150]}); take another checkpoint") from error
    scored_on, trained_on = data.val.fingerprint(), data.train.fingerprint()
    if checkpoint and checkpoint["data"].get("trained_on", trained_on) != trained_on:
        again = ": the epoch begins anew" if position["step_in_epoch"] else ""
        console.say(f"other patches are trained on than before{again}")
        position |= {"step": position["epoch"] * steps, "step_in_epoch": 0}  # steps of these patches: they decide when the run ends
        running["loss"].zero_()
        running["metrics"].reset()
    if checkpoint and checkpoint["data"].get("scored_on", scored_on) != scored_on:  # scores on different patches can't be compared
        console.say("other patches are scored than before: what was best so far counts no more")
        position |= {"best_score": None, "best_epoch": None, "epochs_without_gain": 0}
        schedule.forget_scores()

    settings = {key: value for key, value in vars(args).items() if key not in RUN_FLAGS}
    description = {
        "bands": list(patch_set.bands), "divide_by": list(patch_set.divide_by), "offset": list(patch_set.offset),
        "nodata": patch_set.nodata, "classes": list(classes), "chip_size": patch_set.chip_size,
        "ground_resolution": patch_set.ground_resolution, "layer": patch_set.layer, "patches_dir": args.patches_dir,
        "scored_on": scored_on, "trained_on": trained_on,
    }

    def save(*names):
        """The whole state under some names in checkpoints/. All processes call it; the first writes."""
        counts = {name: processes.sum(tensor).cpu() for name, tensor in running["metrics"].tensors().items()}
        if processes.is_first:
            state = {**position, "model": model.state_dict(), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict(),
                     "scaler": scaler.state_dict(), "running_loss": running["loss"].cpu(), "running_counts": counts}
            whole = {"kind": KIND, "model": config.to_dict(), "settings": settings, "state": state,
                     "data": {**description, "threshold": position["threshold"]}}
            for name in names:
                save_checkpoint(folder.checkpoints / name, whole)

    def is_finished():
        stalled = args.patience and position["epochs_without_gain"] >= args.patience
        return position["epoch"] >= args.epochs or position["step"] >= total_steps and not position["step_in_epoch"] or stalled

    with run_folder as folder, StopRequest() as stop:
        if checkpoint and is_finished() and (folder.checkpoints / FINAL).exists():
            console.say(f"the run in {folder.path} is finished after {position['epoch']} epochs; "
                        "raise --epochs (or --max-steps, --patience) to train on")
            return 0
        folder.write_config(settings={**settings, "output_dir": args.output_dir}, model=config.to_dict(), data=description,
                            device=str(device), processes=processes.size)
        table = MetricsFile(folder.path / "metrics.csv", from_epoch=position["epoch"], active=processes.is_first)
        wandb = start_wandb(args.wandb and processes.is_first, args.project, args.run_name, settings, folder.path, console,
                            position["wandb_id"])
        board = start_tensorboard(args.tensorboard and processes.is_first, folder.path, console)
        kept_score, fault = None, None
        if checkpoint and processes.is_first and ((folder.checkpoints / BEST).exists() or position["best_score"] is not None):
            try:
                kept_score = score_of(folder.checkpoints / BEST, scored_on)
            except UserError as error:  # damaged or gone: that keeps nobody from going on
                fault = str(error)
        kept_score, fault = processes.gather((kept_score, fault))[0]  # what the first process found, for all
        if fault:
            console.warn(f"{fault}; the next epoch takes its place")
            position |= {"best_score": None, "best_epoch": None}
        if not checkpoint:
            save(LAST)  # from here on the run can be resumed, whenever it is killed
        parameters = sum(p.numel() for p in model.parameters())
        on_encoder = f" on {config.encoder}" if hasattr(model.network, "encoder") else ""
        console.say(f"{config.architecture}{on_encoder}, {parameters / 1e6:.2f} M weights, {device}; "
                    f"{len(data.train)} patches for training, {len(data.val)} for validation; {steps} steps an epoch")

        train_loader, val_loader = data.train_dataloader(), data.val_dataloader()
        clock = Clock(args.save_minutes)
        while not is_finished():
            epoch = position["epoch"]
            data.set_position(epoch, position["step_in_epoch"])
            model.train()
            bar = console.progress(steps, f"epoch {epoch}", position["step_in_epoch"])
            if position["step_in_epoch"] < steps and position["step"] < total_steps:
                for batch in train_loader:
                    note_problems(batch, data.train, position["unreadable"], args.strict)
                    schedule.set_rate(optimizer, position["step"])
                    draws = data.draws(position["step_in_epoch"])
                    loss, prediction, target = train_step(
                        network, model, criterion, optimizer, scaler, batch, draws, patch_set, processes, device, seed=args.seed,
                        step=position["step"], precision=args.precision, accumulate=args.accumulate, grad_clip=args.grad_clip,
                        channels_last=args.channels_last)
                    running["loss"] += loss
                    running["metrics"].update(prediction, target)
                    position["step"] += 1
                    position["step_in_epoch"] += 1
                    bar.update()

                    wanted = processes.highest(STOP if stop.requested else SAVE if clock.rings() else NOTHING)
                    if wanted:
                        require_numbers(model, position["step"])
                        save(LAST)
                    if wanted == STOP:
                        stop.leave(f"Saved in epoch {epoch} after step {position['step']}; go on with --resume {folder.checkpoints / LAST}")
                    if position["step"] >= total_steps:
                        break
            bar.close()

            # The epoch's numbers
            row = {"epoch": epoch, "step": position["step"], "lr": schedule.rate(position["step"] - 1)}
            counted = new_metrics()
            counted.add({name: processes.sum(tensor) for name, tensor in running["metrics"].tensors().items()})
            train_loss, ce_loss, dice_loss = (running["loss"] / position["step_in_epoch"]).tolist()
            row |= {"train_loss": train_loss, "train_ce_loss": ce_loss, "train_dice_loss": dice_loss}
            row |= {f"train_{key}": value for key, value in counted.compute().items() if key in ("fire_iou", "detection_f1")}
            if train_loss != train_loss:
                raise RunError(f"the loss is not a number after epoch {epoch}; lower --lr, or use --precision bf16 or fp32")
            require_numbers(model, position["step"])
            val, position["threshold"] = validate(
                network, model, criterion, held_out, val_loader, data.val, patch_set, processes, device, batch_size=args.batch_size,
                precision=args.precision, channels_last=args.channels_last, unreadable=position["unreadable"], strict=args.strict)
            if val["loss"] != val["loss"]:  # one pixel with a logit that is not a number is enough, an ignored one too
                raise RunError(f"the validation loss is not a number after epoch {epoch}; lower --lr, or use --precision bf16 or fp32")
            row |= {f"val_{key}": value for key, value in val.items()}
            report_unreadable(position["unreadable"], data, processes, console)

            # What follows from them: best so far? lower rate? enough?
            score = val["fire_iou"] if val["fire_iou"] == val["fire_iou"] else float("-inf")
            is_best = position["best_score"] is None or score > position["best_score"]
            if is_best:
                position |= {"best_score": score, "best_epoch": epoch, "epochs_without_gain": 0}
            else:
                position["epochs_without_gain"] += 1
            schedule.step_epoch(score)
            position |= {"epoch": epoch + 1, "step_in_epoch": 0}
            running["loss"].zero_()
            running["metrics"].reset()

            # Tell and save. last.pt goes last: whatever is killed before it is done again, with the same result.
            table.add({**row, "best": int(is_best), "seconds": clock.epoch_seconds()})
            named = {"epoch": epoch, "train/loss": train_loss, "train/fire_iou": row["train_fire_iou"],
                     "train/detection_f1": row["train_detection_f1"], "lr": row["lr"],
                     **{f"val/{key}": val[key] for key in ("loss", "fire_iou", "fire_recall", "detection_f1")}}
            wandb.log(named, step=epoch)
            board.log(named, step=epoch)
            console.say(f"epoch {epoch}: train loss {train_loss:.4f}, val loss {val['loss']:.4f}, val fire IoU {val['fire_iou']:.4f}, "
                        f"recall {val['fire_recall']:.4f}, detection F1 {val['detection_f1']:.4f}, lr {row['lr']:.2e}{', best' * is_best}")
            if is_best and processes.is_first:
                write_samples(folder.path / "samples" / f"epoch_{epoch}.png", model, data, patch_set, device)
            if is_best and (kept_score is None or score >= kept_score):
                save(BEST)
            if args.save_every and (epoch + 1) % args.save_every == 0:
                save(f"checkpoint_epoch_{epoch}.pt")
            save(LAST)
            if processes.highest(STOP if stop.requested else NOTHING) and not is_finished():
                stop.leave(f"Saved after epoch {epoch}; go on with --resume {folder.checkpoints / LAST}")
        save(FINAL)
        wandb.finish()
        board.finish()

    if position["best_score"] is None:
        console.say(f"after {position['epoch']} epochs none is left to train on these patches; raise --epochs (or --max-steps)")
    elif processes.is_first:
        left_out = f"; {len(position['unreadable'])} unreadable patches left out" if position["unreadable"] else ""
        found = position["best_score"] > float("-inf")
        score = f"{position['best_score']:.4f}" if found else "undefined (no fire in validation, none predicted)"
        best = f"best validation fire IoU {score} in epoch {position['best_epoch']}"
        if kept_score is not None and kept_score > position["best_score"]:  # of epochs that this run, begun from an earlier one, has left
            best = f"{best}, but {kept_score:.4f} was reached before and is kept"
        print(f"{best}: {folder.checkpoints / BEST}{left_out}")
    return 0


def train_step(network, model, criterion, optimizer, scaler, batch, draws, patch_set, processes, device, *, seed, step, precision,
               accumulate, grad_clip, channels_last):
    """One optimiser step. → (losses (3,): total, CE, Dice; prediction (B, H, W); target (B, H, W)), all still on the device."""
    import numpy as np
    import torch

    from metrics import as_classes
    from runtime.device import autocast, seed_step

    seed_step(seed, step, processes.rank)
    images, target = to_device(batch, patch_set, device, channels_last, draws)
    optimizer.zero_grad(set_to_none=True)
    # Each piece counts by its share of the valid pixels. (The cross-entropy is then nearly that of the whole batch, Dice only roughly.)
    valid = processes.sum((target != 255).sum()).clamp(min=1) if accumulate > 1 else None
    losses, predictions = 0.0, []
    for part in np.array_split(np.arange(len(images)), accumulate):
        x, y = images[part[0] : part[-1] + 1], target[part[0] : part[-1] + 1]
        with autocast(device, precision):
            logits = network(x)
        loss, parts = criterion(logits, y)
        share = 1.0 if accumulate == 1 else processes.sum((y != 255).sum()) / valid
        scaler.scale(loss * share).backward()
        losses = losses + torch.stack([loss, parts["ce_loss"], parts["dice_loss"]]).detach() * share
        predictions.append(as_classes(logits.detach()))
    processes.add_gradients(model.parameters())
    if grad_clip:
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), grad_clip)
    scaler.step(optimizer)
    scaler.update()
    return losses, torch.cat(predictions), target


def validate(network, model, criterion, held_out, loader, dataset, patch_set, processes, device, *, batch_size, precision,
             channels_last, unreadable, strict):
    """
    → (scores of the whole split, fire-probability threshold with the highest extent IoU).

    Loss sums are kept per batch and added in the batches' order, so that the number of processes does not show in the last digit.
    """
    import torch

    from runtime.device import autocast

    metrics, histogram = held_out["metrics"], held_out["threshold"]
    metrics.reset()
    histogram.reset()
    model.eval()
    batches = -(-len(dataset) // batch_size)
    sums = torch.zeros(batches, 2 + 3 * len(patch_set.classes), device=device)
    with torch.no_grad():
        for number, batch in enumerate(loader):
            note_problems(batch, dataset, unreadable, strict)
            images, target = to_device(batch, patch_set, device, channels_last)
            with autocast(device, precision):
                logits = network(images)
            sums[number * processes.size + processes.rank] = criterion.sums(logits, target)
            metrics.update(logits, target)
            histogram.update(1.0 - logits.float().softmax(dim=1)[:, 0], target)
    for counts in (metrics, histogram):
        for tensor in counts.tensors().values():
            tensor.copy_(processes.sum(tensor))
    total, parts = criterion.from_sums(processes.sum(sums).cpu().double().sum(dim=0))
    threshold, iou = histogram.best()
    scores = {"loss": float(total), **{name: float(part) for name, part in parts.items()}, **metrics.compute()}
    return {**scores, "threshold": threshold, "fire_iou_at_threshold": iou}, threshold


# ------------------------------------------------------------------------------------------------------------------- parts


def open_data(args, processes, device, checkpoint):
    """The data module of --patches-dir, set up. UserError where it does not fit the checkpoint."""
    from dataset import WildfireDataModule
    from runtime.device import usable_cores

    args.patches_dir = os.path.abspath(args.patches_dir)
    data = WildfireDataModule(
        args.patches_dir, args.batch_size, min(args.num_workers, usable_cores()), args.weighted_sampling, args.fire_weight,
        not args.no_fire_augment, args.num_classes, args.layer, not args.no_augment, args.seed, args.steps_per_epoch, args.crop,
        processes.rank, processes.size, pin_memory=device.type == "cuda",
    )
    data.setup(needs=[args.test_split] if args.test_only else ["train", "val"])
    if checkpoint:
        for name, found in (("bands", data.patch_set.bands), ("classes", data.patch_set.classes)):
            if list(checkpoint["data"][name]) != list(found):
                raise UserError(f"the checkpoint was trained on the {name} {', '.join(checkpoint['data'][name])}, but "
                                f"{args.patches_dir} has {', '.join(found)}; pass the --patches-dir that goes with it")
    return data


def make_model(args, data, checkpoint):
    """(model, its config): of the checkpoint, or new, with pretrained weights where asked for."""
    from dataset import band_statistics
    from model import create_segmentation_model, model_from_checkpoint

    if checkpoint:
        model = model_from_checkpoint(checkpoint)
    else:
        mean, std = band_statistics(data.patch_set, data.train.patches, args.seed)
        model = create_segmentation_model(args.num_classes, args.encoder, args.architecture, encoder_weights=args.encoder_weights,
                                          bands=data.patch_set.bands, indices=args.indices, mean=mean, std=std)
    return model, model.config


def require_fitting_size(model, patch_set, crop):
    """UserError where the architecture can't take patches so small (pan's windows, pyramids of deep encoders). Costs a forward pass."""
    import torch

    network, size = copy.deepcopy(model).eval(), crop or patch_set.chip_size
    try:
        with torch.no_grad():
            network(torch.zeros(1, len(patch_set.bands), size, size))
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{model.config.architecture} on {model.config.encoder} can't take patches of {size} x {size} pixels "
                        f"({one_line(error)[:120]}); use larger ones or another --architecture") from error


def can_train_on_one(model, bands, size):
    """
    Does a training step of one patch of size x size pixels work? Where a network makes one value of a patch (the pooled branch of
    deeplabv3plus, a deep encoder on a small crop), batch normalisation has nothing to compare it with. Costs a forward pass.
    """
    import torch

    network = copy.deepcopy(model).train()  # the running statistics of `model` stay as they are
    try:
        with torch.no_grad():
            network(torch.zeros(1, bands, size, size))
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        return False
    return True


def make_loss(loss_class, data, no_class_weights, focal_loss, focal_gamma, processes, console):
    """The criterion, with class weights from the manifest's counts (as drawn, where sampling is weighted)."""
    from dataset import class_weights_of

    weights = None
    if not no_class_weights:
        weights = class_weights_of(data.train.patches, len(data.patch_set.classes), data.sample_weights)
        drawn = " of the patches as they are drawn" if data.sample_weights is not None else ""
        named = ", ".join(f"{name} {w:.2f}" for name, w in zip(data.patch_set.classes, weights.tolist(), strict=True))
        console.say(f"class weights{drawn}: {named}")
    return loss_class(weights, focal_loss, focal_gamma, reduce=processes.sum_with_gradient if processes.size > 1 else None)


def to_device(batch, patch_set, device, channels_last=False, draws=None):
    """A batch as stored → (reflectance (B, C, h, w) float32, labels (B, h, w)) on the device."""
    import torch

    import augment

    images = batch.images.float() if device.type == "mps" else batch.images  # MPS knows no uint16
    images, masks = images.to(device, non_blocking=True), batch.masks.to(device, non_blocking=True)
    divide_by, offset = (constant(values, device) for values in (patch_set.divide_by, patch_set.offset))
    no_data = augment.no_data_values(patch_set.offset, batch.images.dtype)
    images, masks = augment.prepare(images, masks, divide_by, offset, draws, no_data)
    return (images.to(memory_format=torch.channels_last) if channels_last else images), masks


@functools.lru_cache
def constant(values, device):
    """A tuple of numbers as a float32 tensor on the device, sent there once."""
    import torch

    return torch.tensor(values, dtype=torch.float32, device=device)


def note_problems(batch, dataset, unreadable, strict):
    """Remember the names of patches that could not be read. Labels that can't be right are a UserError, with --strict so is the rest."""
    for index, text, fatal in batch.problems:
        if fatal:
            raise UserError(text)
        if strict:
            raise RunError(f"{text} (--strict)")
        if dataset.patches[index].image.name not in unreadable:
            unreadable.append(dataset.patches[index].image.name)


def report_unreadable(unreadable, data, processes, console):
    """Make `unreadable` the same list in all processes; say what is in it."""
    unreadable[:] = sorted({name for names in processes.gather(unreadable) for name in names})
    if unreadable:
        names = ", ".join(unreadable[:5]) + (f" and {len(unreadable) - 5} more" if len(unreadable) > 5 else "")
        console.warn(f"{len(unreadable)} of {len(data.train) + len(data.val)} patches can't be read and are left out: {names}")
    if {patch.image.name for patch in data.train.patches} <= set(unreadable):
        raise RunError(f"not one training patch of {data.patch_set.folder} can be read; make the patches again")


def score_of(path, scored_on):
    """
    Validation score that a best_model.pt was kept for, or None where it was reached on other patches (scored_on: their fingerprint).
    UserError where the file is damaged or gone.
    """
    from runtime.checkpoint import load_checkpoint

    kept = load_checkpoint(path, KIND)
    return kept["state"].get("best_score") if kept["data"].get("scored_on", scored_on) == scored_on else None


def write_samples(path, model, data, patch_set, device, count=4):
    """A sheet of validation patches: image, truth, prediction, errors. Burned ones first, since empty ones show little."""
    from pictures.pictures import save_png
    from pictures.sample_sheet import sample_sheet

    patches = data.val.patches
    burned = [i for i, patch in enumerate(patches) if patch.class_pixels and sum(patch.class_pixels[1:])] or list(range(len(patches)))
    chosen = sorted({burned[k * (len(burned) - 1) // max(1, count - 1)] for k in range(count)})
    images, target = to_device(data.val.__getitems__(chosen), patch_set, device)
    predicted = model.predict_segmentation(images)
    arrays = [tensor.cpu().numpy() for tensor in (images, target, predicted)]
    path.parent.mkdir(exist_ok=True)
    save_png(path, sample_sheet(*arrays, patch_set.bands, len(patch_set.classes), [patches[i].image.stem for i in chosen]))


# ----------------------------------------------------------------------------------------------------------------- scoring


def test(args, checkpoint, processes, console):
    """--test-only: scores_<split>.json and .csv in the output folder, and a table."""
    import csv

    import torch

    from mapping import scoring
    from model import model_from_checkpoint
    from runtime.device import autocast, choose_device
    from runtime.files import atomic_path, refuse_existing, require_writable, write_json

    outputs = [os.path.join(args.output_dir, f"scores_{args.test_split}.{suffix}") for suffix in ("json", "csv")]
    if processes.is_first:
        refuse_existing(outputs, args.overwrite)
        require_writable(args.output_dir)
    device = choose_device(args.device, processes.local_rank)
    data = open_data(args, processes, device, checkpoint)
    patch_set, dataset = data.patch_set, getattr(data, args.test_split)
    model = model_from_checkpoint(checkpoint).to(device)
    network = torch.compile(model) if args.compile else model

    def predict(batch):
        images, target = to_device(batch, patch_set, device, args.channels_last)
        with torch.no_grad(), autocast(device, args.precision):
            probabilities = network(images).float().softmax(dim=1)
        return probabilities.cpu(), images.cpu(), target.cpu()

    # The baseline: one threshold on NBR, chosen on the training split. Every process looks at its part of the patches.
    pair, index_threshold, index_iou = scoring.burn_index(patch_set.bands), None, None
    if pair and len(data.train):
        parts = data.train_indices_of_process()
        batches = (data.train.__getitems__(parts[i : i + args.batch_size]) for i in range(0, len(parts), args.batch_size))
        prepared = (to_device(batch, patch_set, torch.device("cpu")) for batch in batches)
        index_threshold, index_iou = scoring.choose_index_threshold(prepared, pair, processes)
    pair = pair if index_threshold else None

    results, scenes = [], list(scoring.scenes_of(dataset.patches).items())
    own = scenes[processes.rank :: processes.size]
    bar = console.progress(len(own), f"scoring {args.test_split}")
    for scene, indices in own:
        result = scoring.score_scene(predict, dataset.__getitems__, dataset.patches, indices, len(patch_set.classes),
                                     checkpoint["data"]["threshold"], pair, index_threshold, args.batch_size,
                                     args.detection_min_pixels)
        if result["problems"] and args.strict:
            raise RunError(f"{result['problems'][0]} (--strict)")
        results.append({"scene": scene, "event": dataset.patches[indices[0]].event, **result})
        bar.update()
    bar.close()
    results = sorted((r for part in processes.gather(results) for r in part), key=lambda r: r["scene"])
    if not processes.is_first:
        return 0

    summary = scoring.summarise(results, patch_set.classes, args.seed)
    problems = [text for result in results for text in result["problems"]]
    if problems:
        console.warn(f"{len(problems)} patches can't be read and are not judged: {'; '.join(problems[:5])}")
    write_json(outputs[0], {
        "split": args.test_split, "checkpoint": os.path.abspath(args.resume), "patches_dir": args.patches_dir, "scores": summary,
        "threshold": checkpoint["data"]["threshold"], "unreadable": problems,
        "nbr_threshold": index_threshold[0] if pair else None, "nbr_fire_is_above": index_threshold[1] if pair else None,
        "nbr_train_fire_iou": index_iou, "results": results,
    })
    rows = scoring.table_rows(summary)
    with atomic_path(outputs[1]) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)), restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: "" if value != value else value for key, value in row.items()} for row in rows)
    print(scoring.printed_table(summary))
    covered = sum(r["covered"] for r in results) / len(results)
    print(f"{len(results)} scenes, {covered:.1%} of their pixels covered by patches: {outputs[0]}")
    return 0


if __name__ == "__main__":
    run_program(main)
