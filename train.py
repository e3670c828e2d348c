"""
Train a network that says for each pixel what it is: burned or not, how badly, or any other classes that a patch set has. With --task
a value of each pixel (biomass, height …), or the class or the labels of each patch.

    python train.py --config few-scenes --patches-dir patches               # the settings of recipes/few-scenes.yaml
    python train.py --patches-dir patches --num-classes 2
    python train.py --patches-dir patches --num-classes 5 --encoder resnet50 --architecture unetplusplus --precision bf16
    python train.py --patches-dir biomass --task regression --loss huber
    python train.py --patches-dir scenes --task classification
    python train.py --resume output/checkpoints/last.pt                     # continue, with the settings it had
    python train.py --test-only --resume output/checkpoints/final_model.pt --test-split val
    torchrun --nproc_per_node 4 train.py --patches-dir patches              # the same global batch, on four processes

Patches come from `chip.py make-patches`. The output folder gets config.json, metrics.csv (one row an epoch), samples/ and checkpoints/:
best_model.pt (best validation score), last.pt (for --resume), checkpoint_epoch_N.pt (N from zero) and final_model.pt.
"""

if __name__ == "__main__":
    from runtime.stop_signals import catch_stop_signals

    catch_stop_signals()  # before the imports, which take a moment

import dataclasses
import os
import sys

from classes import parse_colours
from nets.model_config import TASKS as TASK_NAMES
from nets.model_config import answers_classes, answers_labels, answers_pixels, answers_values
from nets.part_flags import (
    PART_FLAGS,
    PartChoice,
    add_freezing_flags,
    add_part_flags,
    is_frozen,
    parts_of,
    require_adaptable,
    require_possible,
)
from runtime.errors import Advice, RunError, UserError, run_program
from runtime.flags import Parser, add_common_flags, add_config_flag, parse_with_config
from runtime.logs import print_result
from runtime.settings import group_of
from runtime.values import number, weighted_names, whole
from spectral_indices import SPECTRAL_INDICES

FIRE_PROJECT = "fire-detection"  # of W&B, where the classes are fire; else the task's name
# What a run is asked to do, not how it trains: never taken from a checkpoint.
RUN_FLAGS = ("resume", "output_dir", "overwrite", "test_only", "test_split", "strict", "accept_scale", "device", "config", "quiet", "debug",
             "model")
# What decides the network's shape: taken from the checkpoint, and refused when asked for differently.
MODEL_FLAGS = ("task", "architecture", "encoder", "num_classes", "indices", "layer", "lr_encoder", *PART_FLAGS)
# Whoever passes one of these means pan and multispectral pairs: train_pansharpen.py takes over.
PANSHARPENING_FLAGS = ("--session", "--chips", "--load-epoch")
# What --help shows.
FIRST_FLAGS = ("--config", "--patches-dir", "--output-dir", "--task", "--num-classes", "--encoder-weights", "--epochs", "--batch-size",
               "--lr", "--resume", "--test-only", "--overwrite")


def build_parser():
    parser = Parser(prog="train.py", description=__doc__, first=FIRST_FLAGS)

    group = parser.add_argument_group("data")
    group.add_argument("--patches-dir", default="./patches", help="folder made by chip.py make-patches")
    group.add_argument("--output-dir", default="./output", help="the run's folder")
    group.add_argument("--task", choices=TASK_NAMES, default="segmentation",
                       help="a class or a value of each pixel, a class or several labels of each patch, as the patches were made for")
    group.add_argument("--num-classes", type=whole(1, 254), default=2, help="2: burned or not (DEL), 5: severity (GRA), or as in the set; "
                       "other tasks take the set's")
    group.add_argument("--layer", help="label layer, where the number of classes does not say it")
    group.add_argument("--num-workers", type=whole(), default=4, help="processes that read patches, at most one a core; 0: none")
    group.add_argument("--weighted-sampling", action="store_true", help="draw fire patches (over a hundredth above class 0) more often")
    group.add_argument("--fire-weight", type=number(above=0), default=5.0, help="how many times more often, with --weighted-sampling")
    group.add_argument("--no-augment", action="store_true", help="patches as they are: no flips, turns, gain, offset or noise")
    group.add_argument("--no-fire-augment", action="store_true", help="augment fire patches (see --fire-weight) like all others")
    group.add_argument("--crop", type=whole(), default=0, metavar="PIXELS", help="train on random squares of this side; 0: whole patches")
    group.add_argument("--cutmix", type=number(0, 1), default=0.0, metavar="P", help="with this probability a rectangle of a patch is "
                       "another's, with its labels; 0: never")
    group.add_argument("--steps-per-epoch", type=whole(), default=0, help="optimiser steps between validations; 0: one pass over them")

    group = parser.add_argument_group("model")
    group.add_argument("--architecture", default="unet", help="unet, unetplusplus, deeplabv3plus …; smallunet, contrastunet (no encoder)")
    group.add_argument("--encoder", default="resnet34",
                       help="resnet18, resnet50, efficientnet-b0, tu-<timm name>, prithvi:eo-v2-300, dofa:base …")
    group.add_argument("--encoder-weights", default="imagenet",
                       help="imagenet or hub (what is published), none, or a .pt or .safetensors file")
    group.add_argument("--indices", nargs="*", default=[],
                       help=f"further inputs: {' '.join(SPECTRAL_INDICES)}; or pairs: all normalised differences in place of the bands")

    add_part_flags(group)

    group = parser.add_argument_group("training")
    group.add_argument("--epochs", type=whole(1), default=50, help="passes over the training patches (see --steps-per-epoch)")
    group.add_argument("--batch-size", type=whole(1), default=16, help="patches of one optimiser step, over all processes and pieces")
    group.add_argument("--accumulate", type=whole(1), default=1, help="compute each batch in this many pieces, for less memory")
    group.add_argument("--lr", type=number(above=0, high=10), default=1e-4, help="learning rate of AdamW")
    group.add_argument("--weight-decay", type=number(0), default=1e-4, help="of AdamW")
    add_freezing_flags(group)
    group.add_argument("--scheduler", choices=("plateau", "cosine", "linear", "constant"), default="plateau",
                       help="learning rate: halved when val IoU stalls for 5 epochs; or falling over the run; or constant")
    group.add_argument("--warmup", type=whole(), default=0, metavar="STEPS", help="steps over which the learning rate rises; 0: none")
    group.add_argument("--grad-clip", type=number(0), default=0.0, help="largest norm of the gradient; 0: no limit")
    group.add_argument("--patience", type=whole(), default=10, help="stop after this many epochs without a better val IoU; 0: never")
    group.add_argument("--max-steps", type=whole(), default=0, help="stop after this many steps, validate and save; 0: no limit")
    group.add_argument("--seed", type=whole(), default=0, help="of weights, order and augmentation")

    group = parser.add_argument_group("loss: 0.5 cross-entropy + 0.5 Dice")
    group.add_argument("--loss", type=weighted_names, metavar="NAME:WEIGHT,…",
                       help="ce, focal, dice, jaccard, tversky, lovasz; of values mse, rmse, mae, huber; of labels bce, focal (default: "
                       "ce:0.5,dice:0.5; mse; ce of patches; bce)")
    group.add_argument("--no-class-weights", action="store_true", help="all classes count the same in ce, focal and bce")
    group.add_argument("--focal-loss", action="store_true", help="focal loss in place of the cross-entropy (see --loss)")
    group.add_argument("--focal-gamma", type=number(0), default=2.0, help="how strongly easy pixels are down-weighted")

    group = parser.add_argument_group("machine")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    group.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32", help="of the network's layers; losses are fp32")
    group.add_argument("--compile", action="store_true", help="torch.compile: a slow start, faster steps")
    group.add_argument("--channels-last", action="store_true", help="memory layout that suits convolutions on GPUs")

    group = parser.add_argument_group("run")
    group.add_argument("--resume", metavar="FILE", help="checkpoint to continue from; flags not given are those of its run")
    group.add_argument("--detection-min-pixels", type=whole(1), default=1, metavar="PIXELS",
                       help="burned (water …) pixels from which a patch counts as detected in the scores of each epoch")
    group.add_argument("--save-every", type=whole(), default=5, help="checkpoint_epoch_N.pt every this many epochs; 0: never")
    group.add_argument("--save-minutes", type=number(0), default=10.0, help="last.pt at least this often within an epoch; 0: every step")
    group.add_argument("--overwrite", action="store_true", help="replace an earlier run in the output folder")
    group.add_argument("--strict", action="store_true", help="a patch that cannot be read ends the run (else it is left out and named)")
    group.add_argument("--accept-scale", action="store_true", help="patches whose reflectance is not that of the checkpoint's training")
    group.add_argument("--test-only", action="store_true", help="score a split with the checkpoint of --resume, on whole scenes")
    group.add_argument("--test-split", choices=("train", "val", "test"), default="test", help="split to score")
    group.add_argument("--wandb", action="store_true", help="log to Weights & Biases (WANDB_MODE=offline without network)")
    group.add_argument("--project", help="W&B project (default: fire-detection, or segmentation where the classes are no fire)")
    group.add_argument("--run-name", help="W&B run name")
    group.add_argument("--class-colours", type=parse_colours, metavar="LIST",
                       help="colours of classes in pictures and maps: water=#1f77b4,forest=#006400 (default: by their names)")
    group.add_argument("--tensorboard", action="store_true", help="log to tensorboard/ in the output folder")
    add_config_flag(parser, "train")
    add_common_flags(parser)
    return parser


def check_flags(args):
    """UserError for pairings that cannot be right, before any work."""
    if args.test_only and not args.resume:
        raise UserError("--test-only needs a checkpoint to score: pass --resume with the file that the end of the training names")
    if args.overwrite and args.resume and not args.test_only:
        raise UserError("--resume continues a run and --overwrite deletes one: pass one of the two")
    if args.loss and args.focal_loss:
        raise UserError("--focal-loss is short for --loss focal:0.5,dice:0.5; pass one of the two")
    if not answers_classes(args.task):
        for flag in ("weighted_sampling", "no_fire_augment", "focal_loss", "class_colours", "layer"):
            if getattr(args, flag):
                raise UserError(f"--{flag.replace('_', '-')} is for classes of pixels, not for --task {args.task}; leave it out")
    elif args.num_classes < 2:
        raise UserError("--num-classes 1: a pixel needs two classes to tell apart; pass 2 or more, or --task regression for values")
    if args.cutmix and not answers_pixels(args.task):
        raise UserError(f"--cutmix mixes labels of pixels, and --task {args.task} has labels of whole patches; leave it out")
    if args.accumulate > args.batch_size:
        raise UserError(f"--accumulate {args.accumulate} pieces are more than the {args.batch_size} patches of a batch; pass fewer")


def refuse_unread(args, given):
    """UserError for flags of the user that nothing would read. given: their names."""
    if args.model and "encoder_weights" in given and args.encoder_weights != "none":
        raise UserError(f"--model {args.model} loads its own weights; leave --encoder-weights out")
    if answers_values(args.task) and "no_class_weights" in given:
        raise UserError(f"--no-class-weights is for classes, not for --task {args.task}; leave it out")


def import_libraries():
    """What the functions below use. torch takes seconds to import, so this waits until the flags are known to be right."""
    global torch, np, augment, scoring, model_from_checkpoint, create_segmentation_model, require_fitting_size, CombinedLoss
    global Criterion, LossFacts, make_loss, require_terms, TASKS, as_model_output, patch_scores
    global PatchDataModule, Labels, Sampling, band_statistics, class_weights_of, label_weights_of, target_statistics
    global reflectance_doubt, scale_doubt, are_pictures, FOUNDATIONS
    global Compute, choose_device, gradient_scaler, seed_everything, seed_step, usable_cores, share_batch_statistics, optimiser_step
    global follow_changed_data, require_finite_loss, require_finite_weights, claim_scores, Schedule
    global Position, RunState, RunFolder, output_dir_of_run, RunLog, RunningSums, Saver, BEST, FINAL, LAST, Unreadable
    global final_reaches, adopt_settings, settings_of, write_scores, load_checkpoint, require_parts, result_of
    global facts_of, require_coordinates, assemble, in_words, optimiser_groups, load_user_model, name_base, save_adapters
    global find_result, ended_as_planned, path_length, warn_of_short_path, spread_patches
    import numpy as np
    import torch

    import augment
    from chipping.patch_statistics import (
        band_statistics,
        class_weights_of,
        label_weights_of,
        reflectance_doubt,
        scale_doubt,
        target_statistics,
    )
    from dataset import Labels, PatchDataModule, Sampling, require_coordinates
    from losses import CombinedLoss, Criterion, LossFacts, make_loss, require_terms
    from mapping import patch_scores, scoring
    from mapping.index_check import facts_of
    from mapping.score_files import write_scores
    from mapping.validation_baseline import spread_patches
    from model import assemble, create_segmentation_model, model_from_checkpoint, require_fitting_size
    from nets.adapter_file import name_base, save_adapters
    from nets.foundation import FOUNDATIONS
    from nets.model_output import as_model_output
    from nets.optimiser_groups import in_words, optimiser_groups
    from nets.user_model import load_user_model
    from raster.scale import are_pictures
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
    from runtime.settings import adopt_settings, settings_of
    from runtime.unreadable import Unreadable
    from tasks import TASKS


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    if any(word.split("=")[0] in PANSHARPENING_FLAGS for word in argv):
        import train_pansharpen

        return train_pansharpen.main(argv)
    args, given = parse_with_config(build_parser(), argv)
    check_flags(args)
    given = let_the_line_win(args, given, {word.split("=")[0] for word in argv})
    if not answers_pixels(args.task) and not args.model and not args.resume and "architecture" not in given:
        args.decoder = args.decoder or "identity"  # the encoder's last level is pooled: nothing is gained by a decoder for pixels
    require_possible(group_of(PartChoice, args), given, "" if args.resume else args.encoder)
    refuse_unread(args, given)
    import_libraries()
    from runtime.program import program

    with program(args.device, args.quiet) as (processes, console):
        checkpoint = open_checkpoint(args, given) if args.resume else None
        args.patches_dir = os.path.abspath(args.patches_dir)
        compute = Compute(device=choose_device(args.device, processes.local_rank), precision=args.precision,
                          channels_last=args.channels_last, compile=args.compile)
        options, choice = group_of(Options, args), group_of(ModelChoice, args)
        require_terms(options.task, options.loss or ())
        num_classes = args.num_classes if answers_classes(options.task) or "num_classes" in given else None  # else as the set has
        data = PatchDataModule(
            args.patches_dir, args.batch_size, min(args.num_workers, usable_cores()), args.weighted_sampling, args.fire_weight,
            not args.no_fire_augment, labels=Labels(num_classes=num_classes, layer=args.layer, task=options.task),
            sampling=Sampling(augment=not args.no_augment, crop=args.crop, steps_per_epoch=args.steps_per_epoch, seed=args.seed,
                              cutmix=args.cutmix),
            processes=processes, pin_memory=compute.device.type == "cuda")
        if args.test_only:
            score = test if answers_classes(options.task) else test_patches
            return score(options, data, choice, checkpoint, args.test_split, compute, processes, console)
        return train(options, data, choice, settings_of(args, RUN_FLAGS), checkpoint, compute, processes, console)


def let_the_line_win(args, given, words):
    """A network of the command line takes the place of the one that a file of --config describes. → the flags that count as given."""
    on_line = [flag for flag in ("--architecture", "--decoder", "--model") if flag in words]
    if len(on_line) != 1:
        return given
    replaced = {"--architecture": ("partial_weights", *PART_FLAGS), "--decoder": ("architecture",),
                "--model": ("architecture", "encoder", "encoder_weights", "partial_weights", *PART_FLAGS)}
    parser = build_parser()
    for name in replaced[on_line[0]]:
        if f"--{name.replace('_', '-')}" not in words:
            setattr(args, name, parser.get_default(name))
            given = given - {name}
    return given


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelChoice(PartChoice):
    """The network of a new run, and how its encoder is trained."""

    encoder: str
    architecture: str
    encoder_weights: str
    indices: list
    freeze_encoder: int | str
    lr_encoder: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Flags that the loop and its parts read; what each means is said in build_parser."""

    task: str
    output_dir: str
    patches_dir: str
    epochs: int
    max_steps: int
    batch_size: int
    accumulate: int
    crop: int
    lr: float
    weight_decay: float
    scheduler: str
    warmup: int
    grad_clip: float
    patience: int
    seed: int
    loss: dict | None
    no_class_weights: bool
    focal_loss: bool
    focal_gamma: float
    detection_min_pixels: int
    save_every: int
    save_minutes: float
    overwrite: bool
    strict: bool
    accept_scale: bool
    wandb: bool
    tensorboard: bool
    project: str | None
    run_name: str | None
    class_colours: dict | None


def open_checkpoint(args, given):
    """The checkpoint of --resume; flags that were not given become those of its run."""
    args.resume = str(find_result(args.resume)) if args.test_only else args.resume
    checkpoint = load_checkpoint(args.resume)
    if checkpoint["kind"] not in TASK_NAMES:
        checkpoint = load_checkpoint(args.resume, "segmentation")  # which says what it is
    require_parts(checkpoint, {"model": (), "settings": (), "state": ("model",), "data": ("bands", "classes", "threshold")})
    if "base" in checkpoint and "encoder_weights" in given:
        name_base(checkpoint, args.encoder_weights)
    parser = build_parser()
    before_parts = {name: parser.get_default(name) for name in (*PART_FLAGS, "lr_encoder")}  # of runs that knew no such flags
    saved = {**before_parts, **checkpoint["settings"], "task": checkpoint["kind"]}
    adopt_settings(args, given, saved, run_flags=RUN_FLAGS, shape_flags=MODEL_FLAGS)
    check_flags(args)
    refuse_unread(args, given)
    args.output_dir = output_dir_of_run(args.resume, args.output_dir if "output_dir" in given else None, elsewhere=args.test_only)
    return checkpoint


# ---------------------------------------------------------------------------------------------------------------- training


def train(options, data, choice, settings, checkpoint, compute, processes, console):
    """The whole run, from the patches to final_model.pt."""
    run_folder = RunFolder(options.output_dir, bool(checkpoint), options.overwrite, processes.is_first)
    run_folder.refuse_earlier_run()  # before masks are counted and weights downloaded; the folder itself is made when the rest is right
    seed_everything(options.seed)
    set_up(data, ("train", "val"), checkpoint, options.accept_scale, console)
    task, steps, patch_set = TASKS[options.task], data.batches.steps, data.patch_set
    classes = patch_set.class_set.with_colours(options.class_colours)
    total_steps = min(options.epochs * steps, options.max_steps or options.epochs * steps)
    run_folder.make()  # before weights are downloaded

    # Model, loss, optimiser
    learner = make_learner(options, data, choice, checkpoint, compute, processes, console)
    model, optimizer = learner.model, learner.optimizer
    schedule = Schedule(options.scheduler, options.lr, total_steps, options.warmup)
    counts = task.counts(patch_set, options.detection_min_pixels, compute.device)
    running = RunningSums(("loss", *learner.criterion.names), compute.device, processes, shared=True, counts=counts)
    unreadable = Unreadable("patches", patch_set.folder, len(data.train) + len(data.val), processes, strict=options.strict)

    # Where the run is. Everything in `state` goes into the checkpoint and comes back on resume.
    position = Position(wandb_id=os.urandom(4).hex() if options.wandb else None)
    state = RunState(position, model=model, optimizer=optimizer, schedule=schedule, scaler=learner.scaler, running=running,
                     unreadable=unreadable)
    header = {"kind": options.task, "model": model.config.to_dict(), "settings": settings, "data": describe_data(data, options)}
    if answers_classes(options.task):
        known = checkpoint["data"].get("index_check") if checkpoint else None
        header["data"]["index_check"] = known or facts_of(threshold_on_index(data, options, processes))
    if checkpoint:
        resume(checkpoint, state, header["data"], steps, console)

    def finished():
        stalled = options.patience and position.epochs_without_gain >= options.patience
        return position.epoch >= options.epochs or position.step >= total_steps and not position.step_in_epoch or stalled

    if checkpoint and finished() and final_reaches(position, run_folder, options.task, processes):
        console.say(f"the run in {run_folder.path} is finished after {position.epoch} epochs; "
                    "raise --epochs (or --max-steps, --patience) to train on")
        return 0
    resume_with = f"continue with --resume {run_folder.checkpoints / LAST}"
    with (
        run_folder as folder,
        Saver(folder, state, header, processes, minutes=options.save_minutes, resume_with=resume_with) as saver,
        RunLog(folder, position, console, active=processes.is_first, wandb=options.wandb, tensorboard=options.tensorboard,
               project=options.project or project_of(options.task, classes), name=options.run_name, config=settings) as log,
    ):
        folder.write_config(settings={**settings, "output_dir": options.output_dir}, model=header["model"],
                            data={**header["data"], "threshold": None}, device=str(compute.device), processes=processes.size)
        saver.keep_best(console, bool(checkpoint), header["data"]["scored_on"])
        if not checkpoint:
            saver.save(LAST)  # from here on the run can be resumed, whenever it is killed
        console.say(f"{describe_network(model)}, {compute.device}; {len(data.train)} patches for training, {len(data.val)} for "
                    f"validation; {steps} steps an epoch")
        say_outlook(options, data, total_steps, position.step, console)

        saver.clock.restart()
        last_score = None
        while not finished():
            epoch = position.epoch
            if choice.freeze_encoder:
                model.freeze_encoder(is_frozen(choice.freeze_encoder, epoch))
            model.train()
            with console.progress(steps, f"epoch {epoch}", position.step_in_epoch) as bar:
                last = max(0, position.step_in_epoch + total_steps - position.step)
                for batch, draws in data.training_batches(epoch, position.step_in_epoch, last):
                    unreadable.note(batch.problems)
                    schedule.set_rate(optimizer, position.step)
                    losses, prediction, target = train_step(learner, batch, draws, position.step, options, patch_set)
                    running.add(losses, 1)
                    counts.update(prediction, target)
                    position.after_step()
                    bar.update()
                    saver.after_step()

            # The epoch's numbers
            row = {"epoch": epoch, "step": position.step, "lr": schedule.rate(position.step - 1)}
            row |= training_numbers(running, patch_set, options)
            require_finite_loss(row["train_loss"], "training", epoch)
            require_finite_weights(model, position.step)
            val, threshold = validate(learner, data, options, unreadable)
            require_finite_loss(val["loss"], "validation", epoch)  # one pixel whose logit is NaN is enough, an ignored one too
            row |= {f"val_{key}": value for key, value in val.items()}
            unreadable.report(console)
            refuse_all_unreadable(unreadable, data, epoch)

            # What follows from them: best so far? lower rate? enough?
            last_score = score = signed(val[task.best(classes)[0]], task)
            is_best = position.best_score is None or score > position.best_score
            position.judge(score, is_best)
            header["data"]["threshold"] = threshold
            schedule.step_epoch(score)
            position.after_epoch()
            running.reset()

            # Tell and save
            log.epoch(row, best=int(is_best), seconds=saver.clock.epoch_seconds())
            console.say(f"epoch {epoch}: train loss {row['train_loss']:.4f}, val loss {val['loss']:.4f}, {task.line(val, classes)}, lr "
                        f"{row['lr']:.2e}{', best' * is_best}")
            if is_best and processes.is_first:
                task.samples(folder.path / "samples" / f"epoch_{epoch}.png", model, data.val, patch_set, classes, to_device, compute)
            numbered = [f"checkpoint_epoch_{epoch}.pt"] if options.save_every and (epoch + 1) % options.save_every == 0 else []
            saver.save(*saver.best(is_best), *numbered)
            saver.after_epoch(finished())
        # What maps are made with: the last epoch and the most likely class, or the best epoch and its threshold, never a mixture.
        result = result_of(ended_as_planned(options.scheduler, position.step, total_steps))
        saver.save(FINAL, data={**header["data"], "threshold": None}, result=result)
        baselines = baselines_of_validation(data, task, options, processes) if position.best_score is not None else {}
        if choice.lora and processes.is_first and position.best_score is not None:
            save_adapters(folder, result, model, choice.encoder_weights)
        if processes.is_first or position.best_score is None:
            conclude(position, saver, folder, task, classes, console)
        if processes.is_first and position.best_score is not None:
            say_baselines(baselines, last_score if result == FINAL else position.best_score, task, classes)
            print_result(f"map with {folder.checkpoints / result} ({how_to_map(result, header)}){unreadable.left_out()}")
    return 0


def train_step(learner, batch, draws, step, options, patch_set):
    """One optimiser step. → (losses {name: scalar}, prediction, target, as the task's counts take them), all still on the device."""
    processes, task = learner.processes, TASKS[options.task]
    seed_step(options.seed, step, processes.rank)
    images, target = to_device(batch, patch_set, learner.compute, draws)
    coordinates = learner.train.coordinates_for(learner.model, batch.indices, images.device)
    learner.optimizer.zero_grad(set_to_none=True)
    # Each piece counts by its share of the valid pixels. (The cross-entropy is then nearly that of the whole batch, Dice only roughly.)
    valid = processes.sum(augment.known(target).sum()).clamp(min=1) if options.accumulate > 1 else None
    losses, predictions = {}, []
    for part in np.array_split(np.arange(len(images)), options.accumulate):
        x, y = images[part[0] : part[-1] + 1], target[part[0] : part[-1] + 1]
        with learner.compute.autocast():
            output = as_model_output((learner.outputs or learner.network)(x, **{name: c[part] for name, c in coordinates.items()}))
        loss, parts = learner.criterion(output, y)
        share = 1.0 if options.accumulate == 1 else processes.sum(augment.known(y).sum()) / valid
        learner.scaler.scale(loss * share).backward()
        for name, value in (("loss", loss), *parts.items()):
            losses[name] = losses.get(name, 0.0) + value.detach() * share
        predictions.append(task.prediction(output.output.detach()))
    optimiser_step(learner.model, learner.optimizer, learner.scaler, processes, grad_clip=options.grad_clip)
    return losses, torch.cat(predictions), target


def validate(learner, data, options, unreadable):
    """
    → (scores of the whole validation split, threshold that maps best or None where there is none). The loss is that of the main head.

    Loss sums are kept per batch and added in the batches' order, so that the number of processes does not show in the last digit.
    """
    processes, device, patch_set = learner.processes, learner.compute.device, data.patch_set
    metrics = TASKS[options.task].scores(patch_set, data.val, options.detection_min_pixels, device)
    learner.model.eval()
    batches = -(-len(data.val) // data.batch_size)
    sums = torch.zeros(batches, learner.criterion.size(len(patch_set.classes)), device=device)
    with torch.no_grad():
        for index, batch in enumerate(data.val_batches()):
            unreadable.note(batch.problems)
            images, target = to_device(batch, patch_set, learner.compute)
            with learner.compute.autocast():
                output = learner.network(images, **data.val.coordinates_for(learner.model, batch.indices, images.device))
            sums[index * processes.size + processes.rank] = learner.criterion.sums(output, target)
            metrics.update(output, target, batch.indices)
    for tensor in metrics.tensors().values():
        tensor.copy_(processes.sum(tensor))
    total, parts = learner.criterion.from_sums(processes.sum(sums).cpu().double().sum(dim=0))
    scores, threshold = metrics.compute()
    return {"loss": float(total), **{name: float(part) for name, part in parts.items()}, **scores}, threshold


def signed(score, task):
    """A score as one that rises: its negative where lower is better, minus infinity where it is not known."""
    return float("-inf") if score != score else -score if task.falls else score


# ------------------------------------------------------------------------------------------------------------------- parts


@dataclasses.dataclass(frozen=True, kw_only=True)
class Learner:
    """
    The network with what trains it. network: model, compiled where asked for; the two share their weights. outputs: the same for a
    training step, which needs the auxiliary heads too (→ ModelOutput); None of whole networks, which have none. train: the
    PatchDataset whose patches a step takes.
    """

    model: object
    network: object
    outputs: object = None
    criterion: object
    optimizer: object
    scaler: object
    train: object
    compute: object
    processes: object


def set_up(data, needs, checkpoint, accept_scale, console):
    """data.setup(needs), and a UserError where its patches do not fit the checkpoint; a warning where their reflectance is unlike it."""
    data.setup(needs)
    for name, found in (("bands", data.patch_set.bands), ("classes", data.patch_set.classes)) if checkpoint else ():
        if list(checkpoint["data"][name]) != list(found):
            raise UserError(f"the checkpoint was trained on the {name} {', '.join(checkpoint['data'][name])}, {data.root} has "
                            f"{', '.join(found)}; pass the --patches-dir that goes with it")
    if checkpoint:
        require_coordinates(checkpoint, data.patch_set)
    if checkpoint and not accept_scale:
        patches = getattr(data, needs[0]).patches
        doubt, is_wrong = scale_doubt(data.patch_set, patches, checkpoint["data"], checkpoint["model"].get("mean"))
        if is_wrong:
            raise UserError(f"{doubt}; pass the --patches-dir that goes with the checkpoint, or --accept-scale")
        if doubt:
            console.warn(f"{doubt}, unlike the checkpoint's training; is their scale right?")


def make_learner(options, data, choice, checkpoint, compute, processes, console):
    """The model of the checkpoint, or a new one with pretrained weights where asked for; its loss and its optimiser."""
    patch_set = data.patch_set
    if patch_set.unfinished:
        console.warn(patch_set.unfinished)
    if patch_set.without_layer:
        console.say(f"{patch_set.without_layer} patches have no labels of layer {patch_set.layer} and are left out")
    if min(options.batch_size, len(data.train)) // processes.size < options.accumulate:
        raise UserError(f"--accumulate {options.accumulate} needs as many patches a step and process; train has {len(data.train)}")
    if checkpoint:
        model = model_from_checkpoint(checkpoint, choice.model and load_user_model(choice.model))
    else:
        mean, std = band_statistics(patch_set, data.train.patches, options.seed)
        if doubt := reflectance_doubt(patch_set, mean):
            console.warn(doubt)
        target = target_statistics(data.train.patches) if answers_values(options.task) else (0.0, 1.0)
        model = make_model(with_dates(with_wavelengths(choice, patch_set), patch_set), options.task, len(patch_set.classes),
                           options.crop or patch_set.chip_size, console, bands=patch_set.bands, indices=choice.indices, mean=mean,
                           std=std, target=target, pictures=are_pictures(patch_set.divide_by))
        if model.coordinates_read and (missing := model.take_coordinates(patch_set.known_coordinates(model.dates))):
            console.warn(f"{choice.encoder} runs without {' and without '.join(WITHOUT[name] for name in missing)}")
    require_fitting_size(model, options.crop or patch_set.chip_size, data.batches.batch_size // options.accumulate,
                         whole=patch_set.chip_size)
    model = compute.place(share_batch_statistics(model, processes))
    criterion = make_criterion(options, data, model, processes, console).to(compute.device)
    network = compute.compiled(model)
    if choice.freeze_encoder:
        model.freeze_encoder()  # the loop lets it go on
    groups, counts = optimiser_groups(model, choice.lr_encoder)
    if choice.lr_encoder != 1 or choice.freeze_encoder:
        console.say(in_words(counts, options.lr, choice.lr_encoder, choice.freeze_encoder))
    optimizer = torch.optim.AdamW(groups, lr=options.lr, weight_decay=options.weight_decay)
    outputs = compute.compiled(model.outputs) if model.config.parts else None
    return Learner(model=model, network=network, outputs=outputs, criterion=criterion, optimizer=optimizer,
                   scaler=gradient_scaler(compute.device, compute.precision), train=data.train, compute=compute, processes=processes)


def with_wavelengths(choice, patch_set):
    """The choice, with the wavelengths of the scenes' bands for an encoder that reads them, where they are known and none are given."""
    known = patch_set.sensing.get("wavelengths") or [None]
    is_given = any(word.partition("=")[0] in ("wavelengths", "bands") for word in choice.encoder_args)
    row = FOUNDATIONS.get(choice.encoder)
    if row is None or "wavelengths" not in row.reads or is_given or choice.indices or None in known:
        return choice
    stated = f"wavelengths={','.join(f'{number:g}' for number in known)},"
    return dataclasses.replace(choice, encoder_args=[*choice.encoder_args, stated])


WITHOUT = {"times": "dates, which some patches do not state (make-patches --dates writes them)",
           "place": "places, since some patches have no CRS"}


def with_dates(choice, patch_set):
    """The choice, with the number of dates of the patches for a published encoder. UserError where it reads another number."""
    count, row = patch_set.sensing.get("dates", 1), FOUNDATIONS.get(choice.encoder)
    if row is None or "dates" not in patch_set.sensing or choice.model:
        return choice
    stated = [word.partition("=")[2] for word in choice.encoder_args if word.partition("=")[0] == "dates"]
    if stated and count > 1 and stated[0] != str(count):
        raise UserError(f"--encoder-args dates={stated[0]}, but the patches of {patch_set.folder} have {count} dates; leave it out")
    if count > 1 and "dates" not in row.reads:
        raise UserError(f"encoder {choice.encoder} reads one date, the patches of {patch_set.folder} have {count}; pass a Prithvi, or cut "
                        "patches with --dates 1")
    return choice if stated or count == 1 else dataclasses.replace(choice, encoder_args=[*choice.encoder_args, f"dates={count}"])


def make_model(choice, task, outputs, size, console, pictures, **inputs):
    """A new FireSegmentationModel: put together from parts, a user's, or a whole network of a library. size: of the patches' sides."""
    if not choice.decoder and not choice.model:
        return create_segmentation_model(outputs, choice.encoder, choice.architecture, encoder_weights=choice.encoder_weights, task=task,
                                         **inputs)
    require_adaptable(choice.lora, choice.encoder_weights)
    if choice.lora and choice.freeze_encoder == "all":
        raise UserError(f"--freeze-encoder all would keep the adapters of --lora {choice.lora} still too; leave one of the two out")
    parts = parts_of(choice, task=task, outputs=outputs, encoder=choice.encoder, image_size=(size, size))
    return assemble(parts, encoder_weights=choice.encoder_weights, partial_weights=choice.partial_weights,
                    user_model=choice.model and load_user_model(choice.model), say=console.say, pictures=pictures, **inputs)


def make_criterion(options, data, model, processes, console):
    """The criterion of all heads, with class weights from the manifest's counts (as drawn, where sampling is weighted)."""
    weights = None
    if not answers_values(options.task) and not options.no_class_weights:
        count = len(data.patch_set.classes)
        weights = (label_weights_of(data.train.patches, count) if answers_labels(options.task)
                   else class_weights_of(data.train.patches, count, data.sample_weights))
    facts = LossFacts(class_weights=weights, gamma=options.focal_gamma, scale=model.config.target_std)

    def loss_of_head():
        if answers_classes(options.task) and not options.loss:
            return CombinedLoss(weights, options.focal_loss, options.focal_gamma)
        return make_loss(options.task, options.loss or TASKS[options.task].usual_loss, facts)

    main = loss_of_head()
    if any(getattr(term, "class_weights", None) is not None for term in main.terms.values()):
        drawn = " of the patches as they are drawn" if data.sample_weights is not None else ""
        named = ", ".join(f"{name} {w:.2f}" for name, w in zip(data.patch_set.classes, weights.tolist(), strict=True))
        console.say(f"class weights{drawn}: {named}")
    auxiliary = {name: (loss_of_head(), weight) for name, weight in model.config.auxiliary_weights.items()}
    return Criterion(main, auxiliary, processes.sum_with_gradient if processes.size > 1 else None)


def describe_data(data, options):
    """The checkpoint's "data": what the network is trained on. The threshold comes with the first validation."""
    patch_set = data.patch_set
    colours = {"class_colours": options.class_colours} if options.class_colours else {}
    # Scores of several classes were an IoU of all above 0 in earlier runs: not to be compared with a mean.
    of_pixels = answers_classes(options.task)
    judged = f"{data.val.fingerprint()} by mean IoU" if of_pixels and patch_set.class_set.is_several else data.val.fingerprint()
    return {
        "bands": list(patch_set.bands), "divide_by": list(patch_set.divide_by), "offset": list(patch_set.offset),
        "nodata": patch_set.nodata, "classes": list(patch_set.classes), "chip_size": patch_set.chip_size,
        "ground_resolution": patch_set.ground_resolution, "layer": patch_set.layer, "patches_dir": options.patches_dir,
        "scored_on": judged, "trained_on": data.train.fingerprint(), "threshold": None, **colours, **patch_set.sensing,
    }


def resume(checkpoint, state, data_now, steps_per_epoch, console):
    """Restore the state, and follow data that changed. Checkpoints of version 0.1.0 before the shared running sums are read too."""
    saved = dict(checkpoint["state"])
    if "running_loss" in saved:
        losses = [float(saved.get("step_in_epoch", 0)), *torch.as_tensor(saved["running_loss"]).tolist()]
        saved["running"] = {"sums": torch.tensor(losses), "counts": saved.get("running_counts")}
        saved["unreadable"] = dict.fromkeys(saved.get("unreadable", ()), "")
    require_parts({**checkpoint, "state": saved}, {"state": state.names()}, "scored (--test-only)")
    state.restore(saved, checkpoint["path"])
    data_now["threshold"] = checkpoint["data"]["threshold"]
    follow_changed_data(console, "patches", checkpoint["data"], data_now, position=state.position, steps_per_epoch=steps_per_epoch,
                        **{name: state.parts[name] for name in ("running", "schedule", "unreadable")})


def describe_network(model):
    return f"{model.config.title}, {sum(p.numel() for p in model.parameters()) / 1e6:.2f} M weights"


FEW_PATCHES = 300  # for training; what pretrained networks need


def how_to_map(result, header):
    """What decides a map beside the weights, with the checkpoint that result_of names."""
    if not answers_classes(header["kind"]):
        return "last epoch" if result == FINAL else "best epoch"
    if result == FINAL:
        return "last epoch, most likely class"
    return f"best epoch, {'most likely class' if header['data']['threshold'] is None else 'threshold chosen on validation'}"


def recipe_for(patches):
    """The recipe that suits a number of training patches."""
    return "few-scenes" if patches < FEW_PATCHES else "pretrained"


def say_outlook(options, data, total_steps, done, console):
    """A line about how much training there will be, and one where that is too little. done: steps of a run that is resumed."""
    scenes = [len(scoring.scenes_of(part.patches)) for part in (data.train, data.val)]
    console.say(f"{total_steps} steps in all, on {scenes[0]} scenes, {scenes[1]} others for validation")
    if not done:
        path = path_length(options.scheduler, options.lr, total_steps, options.warmup)
        of_pixels = answers_classes(options.task)
        warn_of_short_path(console, path, total_steps, f"take --config {recipe_for(len(data.train))}, for chip.py make-patches too"
                           if of_pixels else "raise --epochs or --lr, or cut overlapping patches")


def project_of(task, classes):
    """The usual W&B project."""
    return FIRE_PROJECT if answers_classes(task) and classes.is_fire else task


def baselines_of_validation(data, task, options, processes, scored=None):
    """{name: scores} of what the network has to beat, over the validation patches or those of the dataset `scored`; {} if there is none."""
    train, val = (spread_batches(dataset, data.patch_set, options, processes) for dataset in (data.train, scored or data.val))
    return task.baselines(data, scored or data.val, train, val, processes)


def spread_batches(dataset, patch_set, options, processes):
    """(reflectance, labels) on the CPU of this process's part of patches that are evenly spread over a dataset."""
    cpu, indices = Compute(device=torch.device("cpu")), spread_patches(len(dataset), processes)
    for start in range(0, len(indices), options.batch_size):
        yield to_device(dataset.__getitems__(indices[start : start + options.batch_size]), patch_set, cpu)


def threshold_on_index(data, options, processes):
    """The Baseline whose threshold separates what is mapped best on the training patches; None where the bands have no index for it."""
    baseline = scoring.baseline_of(data.patch_set.class_set, data.patch_set.bands)
    return baseline and scoring.choose_threshold(spread_batches(data.train, data.patch_set, options, processes), baseline, processes)


def say_baselines(baselines, score, task, classes):
    """Lines about the baselines of other tasks, and one where the network's signed score is below that of a baseline."""
    key, words = task.best(classes)
    if task.baselines is TASKS["segmentation"].baselines:
        for name, scores in baselines.items():
            say_below((name.removesuffix(" threshold"), scores[key]), score, "validation patches")
        return
    for name, scores in baselines.items():
        print_result(f"without a network, {name}: {task.line(scores, classes).removeprefix('val ')}")
        if score is not None and score < signed(scores[key], task):
            print_result(f"not better than {name} (validation {words}); docs/training.md says what helps")


def say_below(baseline, score, of):
    """A line where the network's score is below that of the baseline: (name, score) or None. of: what was scored."""
    if baseline and score is not None and score < baseline[1]:
        print_result(f"below the {baseline[0]} threshold ({score:.3f} against {baseline[1]:.3f}, {of}); docs/training.md says what helps")


def training_numbers(running, patch_set, options):
    """The row's train_ columns: mean losses of the epoch, and scores of the patches as they were augmented."""
    losses, _ = running.means()
    task = TASKS[options.task]
    counted = task.counts(patch_set, options.detection_min_pixels)
    counted.add(running.summed_counts())
    scores = {key: value for key, value in counted.compute().items() if key in task.told(patch_set.class_set)}
    return {f"train_{key}": value for key, value in {**losses, **scores}.items()}


def to_device(batch, patch_set, compute, draws=None):
    """A batch as stored → (reflectance (B, C, h, w) float32, labels (B, h, w), of whole patches (B,) or (B, classes)) on the device."""
    device = compute.device
    images = batch.images.float() if device.type == "mps" else batch.images  # MPS knows no uint16
    images, labels = images.to(device, non_blocking=True), batch.masks.to(device, non_blocking=True)
    of_patches = not answers_pixels(patch_set.task)
    masks = torch.full((len(images), *images.shape[2:]), 255, dtype=torch.uint8, device=device) if of_patches else labels
    nodata = augment.nodata_values(patch_set.offset, batch.images.dtype)
    images, masks = augment.prepare(images, masks, *augment.scale_on(device, patch_set.divide_by, patch_set.offset), draws, nodata)
    return (images.to(memory_format=torch.channels_last) if compute.channels_last else images), (labels if of_patches else masks)


def refuse_all_unreadable(unreadable, data, epoch):
    """RunError where the epoch had nothing to learn from: not one of the patches that it drew can be read."""
    drawn = {index for batch in data.batches.of_epoch(epoch) for index in batch}
    if all(data.train.patches[index].image.name in unreadable for index in drawn):
        raise RunError(f"not one training patch of {data.patch_set.folder} can be read; make the patches again")


def conclude(position, saver, folder, task, classes, console):
    """A line about the best score, and where its model is."""
    if position.best_score is None:
        console.say(f"after {position.epoch} epochs none is left to train on these patches; raise --epochs (or --max-steps)")
        return
    words, sign = task.best(classes)[1], -1 if task.falls else 1
    found = position.best_score > float("-inf")
    score = f"{sign * position.best_score:.4f}" if found else f"undefined (no {classes.word or 'class'} in validation, none predicted)"
    best = f"best validation {words} {score} in epoch {position.best_epoch}{saver.kept_words(sign)}"
    print_result(f"{best}: {folder.checkpoints / BEST}")


# ----------------------------------------------------------------------------------------------------------------- scoring


def test(options, data, choice, checkpoint, split, compute, processes, console):
    """--test-only: scores_<split>.json and .csv in the output folder, and a table. Whole scenes are scored, dealt out to the processes."""
    outputs = claim_scores(options.output_dir, split, options.overwrite, processes.is_first)
    set_up(data, [split], checkpoint, options.accept_scale, console)
    patch_set, dataset, classes = data.patch_set, getattr(data, split), data.patch_set.class_set
    threshold = classes.threshold(checkpoint["data"]["threshold"])
    user_model = choice.model and load_user_model(choice.model)
    model = model_from_checkpoint(checkpoint, user_model).to(compute.device)
    network = compute.compiled(model)

    def predict(batch):
        images, target = to_device(batch, patch_set, compute)
        with torch.no_grad(), compute.autocast():
            coordinates = dataset.coordinates_for(model, batch.indices, images.device)
            probabilities = network(images, **coordinates).float().softmax(dim=1)
        return probabilities.cpu(), images.cpu(), target.cpu()

    # The baseline: one threshold on NBR (MNDWI for water …), chosen on the training split. Every process looks at its part of the patches.
    baseline = scoring.baseline_of(classes, patch_set.bands) if len(data.train) else None
    if baseline:
        parts, cpu = data.train_indices_of_process(), Compute(device=torch.device("cpu"))
        batches = (data.train.__getitems__(parts[i : i + options.batch_size]) for i in range(0, len(parts), options.batch_size))
        baseline = scoring.choose_threshold((to_device(b, patch_set, cpu) for b in batches), baseline, processes)

    results, scenes = [], list(scoring.scenes_of(dataset.patches).items())
    own = scenes[processes.rank :: processes.size]
    rules = scoring.ScoreRules(num_classes=len(classes.names), class_names=classes.names, threshold=threshold, baseline=baseline,
                               batch_size=options.batch_size, min_pixels=options.detection_min_pixels)
    with console.progress(len(own), f"scoring {split}") as bar:
        for scene, indices in own:
            result = scoring.score_scene(predict, dataset.__getitems__, dataset.patches, indices, rules)
            if result["problems"] and options.strict:
                raise RunError(f"{result['problems'][0]} (--strict)")
            results.append({"scene": scene, "event": dataset.patches[indices[0]].event, **result})
            bar.update()
    results = sorted((r for part in processes.gather(results) for r in part), key=lambda r: r["scene"])
    if not processes.is_first:
        return 0
    summary = scoring.summarise(results, classes.names, options.seed, baseline.index if baseline else "nbr")
    problems = [text for result in results for text in result["problems"]]
    if problems:
        console.warn(f"{len(problems)} patches cannot be read and are not judged: {'; '.join(problems[:5])}")
    write_scores(*outputs, summary, classes, {
        "split": split, "checkpoint": os.path.abspath(checkpoint["path"]), "patches_dir": options.patches_dir, "scores": summary,
        "threshold": threshold, "unreadable": problems, **scoring.scores_of_baseline(baseline, classes), "results": results,
    })
    print_result(*scoring.printed_table(summary, classes).split("\n"))
    covered = sum(r["covered"] for r in results) / len(results)
    print_result(f"{len(results)} scenes, {covered:.1%} of their pixels covered by patches: {outputs[0]}")
    if baseline and baseline.index in summary:
        way = "network" if threshold is None else "network_at_threshold"  # as in a map
        index, ours = (summary[name]["pooled"][classes.score] for name in (baseline.index, way))
        say_below((baseline.index.upper(), index), ours, "pooled")
    return 0


def test_patches(options, data, choice, checkpoint, split, compute, processes, console):
    """--test-only of values and of labels of patches: scores_<split>.json and .csv. Every patch of the split is scored once."""
    outputs = claim_scores(options.output_dir, split, options.overwrite, processes.is_first)
    set_up(data, [split], checkpoint, options.accept_scale, console)
    task, patch_set, dataset = TASKS[options.task], data.patch_set, getattr(data, split)
    user_model = choice.model and load_user_model(choice.model)
    model = model_from_checkpoint(checkpoint, user_model).to(compute.device)
    network = compute.compiled(model)
    metrics = task.scores(patch_set, dataset, options.detection_min_pixels, compute.device)
    unreadable = Unreadable("patches", patch_set.folder, len(dataset), processes, strict=options.strict)
    loader = data.loader_of(dataset)
    with console.progress(len(loader), f"scoring {split}") as bar, torch.no_grad():
        for batch in loader:
            unreadable.note(batch.problems)
            images, target = to_device(batch, patch_set, compute)
            with compute.autocast():
                output = network(images, **dataset.coordinates_for(model, batch.indices, images.device))
            metrics.update(output, target, batch.indices)
            bar.update()
    for tensor in metrics.tensors().values():
        tensor.copy_(processes.sum(tensor))
    scores, _ = metrics.compute()
    unreadable.report(console)
    baselines = baselines_of_validation(data, task, options, processes, dataset) if len(data.train) else {}
    if not processes.is_first:
        return 0
    patch_scores.write(*outputs, {"network": scores, **baselines}, {
        "split": split, "checkpoint": os.path.abspath(checkpoint["path"]), "patches_dir": options.patches_dir,
        "patches": len(dataset), "unreadable": sorted(unreadable.files),
    })
    print_result(*patch_scores.table({"network": scores, **baselines}).split("\n"))
    print_result(f"{len(dataset)} patches{unreadable.left_out()}: {outputs[0]}")
    return 0


if __name__ == "__main__":
    run_program(main, Advice(memory="pass a smaller --batch-size, or --accumulate 2", again="continue with --resume"))
