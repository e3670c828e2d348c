"""
Train the network that sharpens multispectral images with a panchromatic one.

    python train_pansharpen.py --config pansharpen --session demo --chips chips/mixed --test-chips chips/test  # recipes/pansharpen.yaml
    python train_pansharpen.py --session demo --chips chips/mixed --test-chips chips/test --epoch-length 1024 --epochs 20   # ten more
    python train_pansharpen.py --session demo --load-epoch 63 --chips chips/mixed --epochs 100        # continue from an epoch
    python train_pansharpen.py --session second --load-from demo/63 --chips chips/other --epochs 10   # a new session with these weights
    torchrun --nproc_per_node 4 train_pansharpen.py --session demo --chips chips/mixed …              # the same batches, four processes

Chips come from `chip.py make-chips`, `fake-chips` or `link-chips`. A session is the folder sessions/NAME: config.json, metrics.csv (one row
an epoch), baselines.json (what classical methods score on the test chips), samples/epoch_N.png (what the best epochs make of four chips)
and checkpoints/ with checkpoint_epoch_N.pt (N from zero), last.pt, best_model.pt (lowest test loss) and final_model.pt (of the last epoch
that was asked for). sessions/latest.pt links the newest. The same command again continues where the session stopped.
"""

if __name__ == "__main__":
    from runtime.stop_signals import catch_stop_signals

    catch_stop_signals()  # before the imports, which take a moment

import dataclasses
import os
import sys

from runtime.errors import Advice, RunError, UserError, run_program
from runtime.flags import Parser, add_common_flags, add_config_flag, parse_with_config
from runtime.logs import print_result
from runtime.values import number, whole

KIND = "pansharpen"
# What a run is asked to do, not how it trains: no part of the settings in a checkpoint.
RUN_FLAGS = ("load_epoch", "load_from", "sessions_dir", "weight_link", "device", "config", "quiet", "debug", "workers", "wandb", "project",
             "tensorboard", "strict")
# What decides the network's shape: taken from the checkpoint, and refused when asked for differently.
MODEL_FLAGS = ("target", "width", "depth")
# What --help shows.
FIRST_FLAGS = ("--config", "--session", "--chips", "--test-chips", "--epoch-length", "--epochs", "--lr", "--pbs", "--lbs", "--load-from",
               "--target")


def build_parser():
    parser = Parser(prog="train_pansharpen.py", description=__doc__, first=FIRST_FLAGS)

    group = parser.add_argument_group("session")
    group.add_argument("--session", default="pansharpen", help="name of the run; its folder is made in --sessions-dir")
    group.add_argument("--sessions-dir", "--checkpoints", default="sessions", metavar="DIR", help="folder of all sessions")
    group.add_argument("--load-epoch", type=whole(), metavar="N", help="continue from this epoch of the session (default: its latest)")
    group.add_argument("--load-from", metavar="S[/N]", help="begin with the weights of another session, or of a .pt file")
    group.add_argument("--weight-link", metavar="FILE", help="link to the newest checkpoint (default: latest.pt in --sessions-dir)")

    group = parser.add_argument_group("data")
    group.add_argument("--chips", default="chips", metavar="DIR", help="chips to learn from")
    group.add_argument("--test-chips", metavar="DIR", help="chips to judge by, never augmented; other ones than --chips")
    group.add_argument("--epoch-length", "--train-length", type=whole(1), metavar="N",
                       help="chips an epoch, the first N (default: up to 4096)")
    group.add_argument("--test-length", type=whole(1), metavar="N", help="test chips, the first N (default: up to 256)")
    group.add_argument("--augment", choices=("full", "turns", "none"), default="full",
                       help="full: turned and mirrored, crisper or softer edges, misaligned bands; turns: turned and mirrored only")
    group.add_argument("--workers", type=whole(), default=2, help="processes that read chips; 0: none")
    group.add_argument("--strict", action="store_true", help="a chip that cannot be read ends the run (else it is left out and named)")

    group = parser.add_argument_group("model")
    group.add_argument("--target", choices=("bands", "oklab"), default="bands", help="all ms bands, or a picture in Oklab")
    group.add_argument("--width", type=whole(16), default=48, help="feature channels, a multiple of 16")
    group.add_argument("--depth", type=whole(1), default=3, help="blocks at the resolution of ms")

    group = parser.add_argument_group("training")
    group.add_argument("--epochs", type=whole(1), metavar="N",
                       help="epochs the session is to have in all, those before included (default: 1)")
    group.add_argument("--up-to-epoch", type=whole(), metavar="N", help="the same, as the number of the last epoch (from zero)")
    group.add_argument("--lr", type=number(above=0, high=10), default=5e-4, help="learning rate of AdamW")
    group.add_argument("--weight-decay", type=number(0), default=2e-3, help="of AdamW")
    group.add_argument("--schedule", choices=("constant", "cosine", "linear"), default="constant", help="learning rate over all epochs")
    group.add_argument("--warmup", type=whole(), default=0, metavar="STEPS", help="steps over which the learning rate rises; 0: none")
    group.add_argument("--grad-clip", type=number(0), default=1.0, help="largest norm of the gradient; 0: no limit")
    group.add_argument("--pbs", type=whole(1), default=8, help="physical batch: chips in memory at a time, in each process")
    group.add_argument("--lbs", type=whole(1), default=64, help="logical batch: chips a step, over all processes; a multiple of pbs")
    group.add_argument("--seed", type=whole(), default=0, help="of weights, order and augmentation")

    group = parser.add_argument_group("machine")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    group.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32", help="of the network's layers; losses are fp32")
    group.add_argument("--save-minutes", type=number(0), default=10.0, help="last.pt at least this often, also inside an epoch")
    group.add_argument("--wandb", action="store_true", help="log to Weights & Biases (WANDB_MODE=offline without network)")
    group.add_argument("--project", default="pansharpening", help="W&B project")
    group.add_argument("--tensorboard", action="store_true", help="log to tensorboard/ in the session's folder")
    add_config_flag(parser, "train-pansharpen")
    add_common_flags(parser)
    return parser


def check_flags(args):
    """UserError for pairings that cannot be right, before any work."""
    if args.lbs % args.pbs:
        raise UserError(f"--lbs {args.lbs} must be a multiple of --pbs {args.pbs}")
    if args.width % 16:
        raise UserError(f"--width must be a multiple of 16, got {args.width}")
    if args.epochs and args.up_to_epoch is not None:
        raise UserError("--epochs and --up-to-epoch say the same in two ways; pass one of them")
    if args.session in ("", ".", "..") or "/" in args.session:
        raise UserError(f"--session is a name, not a path, got {args.session!r}; --sessions-dir says where sessions live")
    if args.load_from and args.load_epoch is not None:
        raise UserError("--load-epoch continues this session, --load-from begins with another's weights; pass one (--load-from S/N)")


def import_libraries():
    """What the functions below use. torch takes seconds to import, so this waits until the flags are known to be right."""
    global torch, augment_pair, MOST_UNREADABLE, PanChips, epoch_order, logical_batches, scale_of, shared_chips, statistics, WEIGHTS
    global weighted_losses, Pansharpener, PansharpenerConfig, architecture_reach, pansharpener_from_checkpoint, score_chips, in_words
    global score_baselines, sessions, write_chip_samples, follow_changed_data, Compute, choose_device, derived_seed, gradient_scaler
    global seed_everything, EpochBatches, require_finite_loss, require_finite_weights, optimiser_step, BEST, FINAL, LAST, RunFolder
    global RunLog, Position, RunState, RunningSums, Saver, Schedule, adopt_settings, group_of, settings_of, Unreadable, require_parts
    global save_checkpoint, final_reaches, result_of, ended_as_planned, path_length, warn_of_short_path, worse_than_classical, finished
    import torch

    from pansharpening import sessions
    from pansharpening.augment import augment_pair
    from pansharpening.chip_samples import write_chip_samples
    from pansharpening.consistency import finished
    from pansharpening.dataset import MOST_UNREADABLE, PanChips, epoch_order, logical_batches, scale_of, shared_chips, statistics
    from pansharpening.losses import WEIGHTS, weighted_losses
    from pansharpening.network import Pansharpener, PansharpenerConfig, architecture_reach, pansharpener_from_checkpoint
    from pansharpening.scoring import in_words, score_baselines, score_chips, worse_than_classical
    from runtime.changed_data import follow_changed_data
    from runtime.checkpoint import require_parts, save_checkpoint
    from runtime.device import Compute, choose_device, derived_seed, gradient_scaler, seed_everything
    from runtime.epoch_batches import EpochBatches
    from runtime.finite import require_finite_loss, require_finite_weights
    from runtime.optimiser_step import optimiser_step
    from runtime.outlook import path_length, warn_of_short_path
    from runtime.run_folder import BEST, FINAL, LAST, RunFolder, result_of
    from runtime.run_log import RunLog
    from runtime.run_state import Position, RunState
    from runtime.running_sums import RunningSums
    from runtime.saver import Saver, final_reaches
    from runtime.schedule import Schedule, ended_as_planned
    from runtime.settings import adopt_settings, group_of, settings_of
    from runtime.unreadable import Unreadable


def main(argv=None):
    args, given = parse_with_config(build_parser(), sys.argv[1:] if argv is None else argv)
    check_flags(args)
    import_libraries()
    from runtime.program import program

    with program(args.device, args.quiet) as (processes, console):
        checkpoint, own = sessions.find_past(args.sessions_dir, args.session, args.load_epoch, args.load_from, KIND)
        processes.wait_for_all()  # all processes look before the first one writes
        if checkpoint:
            require_parts(checkpoint, {"model": (), "settings": (), "state": ("model",), "data": ()})
            adopt_settings(args, given, checkpoint["settings"], run_flags=(*RUN_FLAGS, "session", "epochs", "up_to_epoch"),
                           shape_flags=MODEL_FLAGS, shape_only=not own)
            check_flags(args)
        if own and args.load_epoch is not None:
            sessions.refuse_later_epochs(args.sessions_dir, args.session, args.load_epoch)
        if not args.epochs and args.up_to_epoch is None:
            console.say("neither --epochs nor --up-to-epoch was given: training one epoch")
        end = args.epochs or (args.up_to_epoch + 1 if args.up_to_epoch is not None else 1)
        compute = Compute(device=choose_device(args.device, processes.local_rank), precision=args.precision)
        options = group_of(Options, args)
        return train(options, end, settings_of(args, RUN_FLAGS), checkpoint, own, compute, processes, console)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Flags that the loop and its parts read; what each means is said in build_parser."""

    session: str
    sessions_dir: str
    weight_link: str | None
    chips: str
    test_chips: str | None
    epoch_length: int | None
    test_length: int | None
    augment: str
    workers: int
    strict: bool
    target: str
    width: int
    depth: int
    lr: float
    weight_decay: float
    schedule: str
    warmup: int
    grad_clip: float
    pbs: int
    lbs: int
    seed: int
    save_minutes: float
    wandb: bool
    tensorboard: bool
    project: str


# ---------------------------------------------------------------------------------------------------------------- training


def train(options, end, settings, checkpoint, own, compute, processes, console):
    """The whole run, from the chips to the checkpoint of epoch `end` - 1. own: the checkpoint is of this session, which continues."""
    seed_everything(options.seed)
    chips, tests = open_data(options, console)
    batches = EpochBatches(epoch_order(len(chips), options.seed), options.lbs, processes)
    steps = batches.steps

    # Model, optimiser
    model = make_model(options, chips, checkpoint).to(compute.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr, weight_decay=options.weight_decay)
    schedule = Schedule(options.schedule, options.lr, end * steps, options.warmup)
    scaler = gradient_scaler(compute.device, compute.precision)
    learner = Learner(model=model, optimizer=optimizer, scaler=scaler, spread=model.out_std.clone(), weights=WEIGHTS[options.target],
                      compute=compute, processes=processes)
    running = RunningSums(learner.weights, compute.device, processes)
    unreadable = Unreadable("chips", options.chips, len(chips), processes, strict=options.strict, most=MOST_UNREADABLE)

    # Where the run is. Everything in `state` goes into the checkpoint and comes back when the session continues.
    position = Position(wandb_id=os.urandom(4).hex() if options.wandb else None)
    state = RunState(position, model=model, optimizer=optimizer, schedule=schedule, scaler=scaler, running=running, unreadable=unreadable)
    header = {"kind": KIND, "model": config_of(model), "settings": settings, "data": describe_data(options, chips, tests, model)}
    if own:
        resume(checkpoint, state, header["data"], tests, steps, console)
    link = sessions.checked_link(options.weight_link, options.sessions_dir, processes)

    run_folder = RunFolder(os.path.join(options.sessions_dir, options.session), own, False, processes.is_first, "--session",
                           "holds an earlier session without its checkpoints; remove it, or choose another --session")
    if position.epoch >= end:
        console.say(f"session {options.session} has {position.epoch} epochs already; raise --epochs to train on")
        result = result_of(ended_as_planned(options.schedule, position.step, end * steps))
        return conclude_again(checkpoint, position, end, result, run_folder, processes)
    with (
        run_folder as folder,
        Saver(folder, state, header, processes, minutes=options.save_minutes,
              resume_with="run the same command again to continue") as saver,
        RunLog(folder, position, console, active=processes.is_first, wandb=options.wandb, tensorboard=options.tensorboard,
               project=options.project, name=options.session, config=settings) as log,
    ):
        folder.write_config(settings=settings, model=header["model"], data=header["data"], device=str(compute.device),
                            processes=processes.size)
        saver.keep_best(console, own, header["data"]["scored_on"])
        if not own:
            saver.save(LAST)
        console.say(f"{describe_network(model)}, {compute.device}; {len(chips)} chips an epoch in {steps} steps of {options.lbs}"
                    f"{f'; {len(tests)} test chips' if tests else ''}; {end * steps} steps in all")
        if not checkpoint:
            path = path_length(options.schedule, options.lr, end * steps, options.warmup)
            warn_of_short_path(console, path, end * steps, "take --config pansharpen")
        if tests:
            score_baselines(folder.path / "baselines.json", header["data"]["scored_on"], tests, options.target, options.pbs, processes,
                            console, strict=options.strict)

        saver.clock.restart()
        best_scores = {}
        while position.epoch < end:
            epoch = position.epoch
            model.train()
            with console.progress(steps, f"epoch {epoch}", position.step_in_epoch) as bar:
                for batch in logical_batches(chips, batches, epoch, position.step_in_epoch, options.pbs, workers=options.workers,
                                             pin_memory=compute.device.type == "cuda"):
                    schedule.set_rate(optimizer, position.step)
                    running.add(*train_step(learner, batch, chips.bands, epoch, options, unreadable))
                    position.after_step()
                    bar.update()
                    saver.after_step()

            # The epoch's numbers
            losses, seen = running.means()
            row = {"epoch": epoch, "step": position.step, "lr": schedule.rate(position.step - 1), "chips": seen,
                   "train_loss": sum(losses.values()), **{f"train_{name}": value for name, value in losses.items()}}
            unreadable.report(console)
            require_finite_loss(row["train_loss"], "training", epoch)
            require_finite_weights(model, position.step)  # the loss is that of the weights before the last step, which may have ruined them
            scores, left_out = {}, len(unreadable) + chips.broken
            if tests:
                scores, unreadable_tests = score_model(learner, tests, options, console)
                row |= {f"test_{name}": value for name, value in scores.items()}
                left_out += unreadable_tests + tests.broken
            score = scores["loss"] if tests else row["train_loss"]
            require_finite_loss(score, "test" if tests else "training", epoch)

            # What follows from them: best so far?
            is_best = position.best_score is None or score < position.best_score
            position.judge(score, is_best)
            position.after_epoch()
            running.reset()

            # Tell and save
            log.epoch(row, best=int(is_best), seconds=saver.clock.epoch_seconds())
            told = f"; test: {in_words(scores)}" if tests else ""
            console.say(f"epoch {epoch}: train loss {row['train_loss']:.4f}{told}{', best' * is_best}")
            if is_best and processes.is_first:
                write_samples(folder.path / "samples" / f"epoch_{epoch}.png", learner, tests or chips)
            best_scores = scores if is_best else best_scores
            saver.save(f"checkpoint_epoch_{epoch}.pt", *saver.best(is_best, falls=True))
            if position.epoch == end:
                result = result_of(ended_as_planned(options.schedule, position.step, end * steps))
                saver.save(FINAL, result=result)
            if processes.is_first:
                sessions.link_newest(link, folder.checkpoints / f"checkpoint_epoch_{epoch}.pt", console)
            saver.after_epoch(finished=position.epoch >= end)

    if processes.is_first:
        what = "test" if tests else "training"
        without = f"; {left_out} unreadable chips left out" if left_out else ""
        print_result(f"lowest {what} loss {position.best_score:.4f} in epoch {position.best_epoch}: {folder.checkpoints / BEST}")
        if worse := worse_than_classical(folder.path / "baselines.json", scores if result == FINAL else best_scores):
            print_result(worse)
        print_result(f"sharpen with {folder.checkpoints / result} ({'last' if result == FINAL else 'best'} epoch){without}")
    return 0


def train_step(learner, batch, bands, epoch, options, unreadable):
    """
    One optimiser step. → ({term: sum over this process's chips}, their number); the sums are still on the device.

    batch: iterator of physical batches. Gradients are those of the sum over all chips, divided by their true number before the step.
    """
    learner.optimizer.zero_grad(set_to_none=True)
    sums, count = {name: torch.zeros((), device=learner.compute.device) for name in learner.weights}, 0
    for piece in batch:
        unreadable.note(piece.problems)
        if not len(piece):
            continue
        terms = forward_losses(learner, piece, bands, epoch, options)
        learner.scaler.scale(sum(term.sum() for term in terms.values())).backward()
        sums = {name: sums[name] + terms[name].detach().sum() for name in sums}
        count += len(piece)
    if total := learner.processes.total(count):
        optimiser_step(learner.model, learner.optimizer, learner.scaler, learner.processes, samples=total, grad_clip=options.grad_clip,
                       took_part=count > 0)
    return sums, count


def forward_losses(learner, batch, bands, epoch, options):
    """{term: (B,)} of a training batch."""
    pan, mul, truth, valid = to_device(batch, learner.compute.device)
    if options.augment == "full":
        pan, mul = augment_pair(pan, mul, [derived_seed(options.seed, epoch, number, 1) for number in batch.numbers], bands)
    with learner.compute.autocast():
        predictions = learner.model(mul, pan, all_scales=True)
    return weighted_losses(predictions, truth, valid, learner.weights, learner.spread)


def to_device(batch, device):
    """(pan, mul, truth, valid or None) of a batch."""
    return tuple(None if t is None else t.to(device, non_blocking=True) for t in (batch.pan, batch.mul, batch.truth, batch.valid))


# ------------------------------------------------------------------------------------------------------------------- parts


@dataclasses.dataclass(frozen=True, kw_only=True)
class Learner:
    """The network with what trains it. weights: of the loss terms; spread: (1, C, 1, 1), each band's standard deviation."""

    model: object
    optimizer: object
    scaler: object
    spread: object
    weights: dict
    compute: object
    processes: object


def open_data(options, console):
    """(training chips, test chips or None)."""
    chips = open_chips(options.chips, options.epoch_length, 4096, options, console, turned=options.augment != "none", seed=options.seed)
    tests = open_chips(options.test_chips, options.test_length, 256, options, console, like=chips) if options.test_chips else None
    if tests is None:
        console.say("no --test-chips: the best epoch will be the one with the lowest training loss, which is not the same")
    elif shared := shared_chips(chips, tests):
        console.warn(f"{shared} of the {len(tests)} test chips in {options.test_chips} are training chips too: their scores mean little")
    if options.lbs > len(chips):
        console.warn(f"an epoch of {len(chips)} chips is shorter than the logical batch of {options.lbs}: each epoch is one step")
    return chips, tests


def open_chips(folder, length, most, options, console, **how):
    """PanChips; without a length the first `most`. Links that lead nowhere are left out and counted, with --strict a RunError."""
    chips = PanChips(folder, length, options.target, **how)
    if chips.broken and options.strict:
        broken = next(path for path in sorted(chips.folder.glob("*.pt")) if path.stem.isdecimal() and not path.exists())
        raise RunError(f"{broken} cannot be read: it is a link that leads nowhere (--strict)")
    if length is None and len(chips) > most:
        chips.numbers = chips.numbers[:most]
    if chips.unfinished:
        console.warn(chips.unfinished)
    if chips.broken:
        console.warn(f"{folder}: {chips.broken} links lead nowhere and are left out")
    return chips


def make_model(options, chips, checkpoint):
    """The network of the checkpoint, or a new one that knows the chips' statistics."""
    if not checkpoint:
        model = Pansharpener(PansharpenerConfig(chips.bands, chips.ratio, options.target, options.width, options.depth))
        model.set_statistics(statistics(chips))
        return model
    model = pansharpener_from_checkpoint(checkpoint)
    if (model.config.bands, model.config.ratio) != (chips.bands, chips.ratio):
        raise UserError(f"the checkpoint sharpens {', '.join(model.config.bands)} by {model.config.ratio}, {options.chips} has "
                        f"{', '.join(chips.bands)} and ratio {chips.ratio}; pass the chips that go with it")
    return model


def conclude_again(checkpoint, position, end, result, run_folder, processes):
    """A session that is at its end already gets its final_model.pt, where it was stopped here when more epochs were asked for."""
    if (position.epoch, position.step_in_epoch) == (end, 0) and not final_reaches(position, run_folder, KIND, processes):
        with run_folder:
            if processes.is_first:
                state = checkpoint.pop("state")  # the last entry, as in every checkpoint
                save_checkpoint(run_folder.checkpoints / FINAL, {**checkpoint, "result": result, "state": state})
    return 0


def describe_network(model):
    config, weights = model.config, sum(p.numel() for p in model.parameters())
    return f"{weights} weights, {config.target}, {len(config.bands)} bands, ratio {config.ratio}"


def config_of(model):
    return {"bands": list(model.config.bands), **{name: getattr(model.config, name) for name in ("ratio", "target", "width", "depth")}}


def describe_data(options, chips, tests, model):
    """The checkpoint's "data": what the network is trained on, and how far it sees."""
    divide_by, offset, nodata = scale_of(options.chips)
    trained_on = chips.fingerprint()
    return {
        "bands": list(chips.bands), "ratio": chips.ratio, "target": options.target, "divide_by": divide_by, "offset": offset,
        "nodata": nodata, "classes": [], "chip_size": chips.chip_size, "ground_resolution": None,
        "chips_dir": os.path.abspath(options.chips),
        "scored_on": tests.fingerprint() if tests else f"training {trained_on}",  # which chips the best epoch is chosen by
        "trained_on": trained_on, "reach": architecture_reach(model.config),
        "statistics": {name: [getattr(model, f"{name}_{what}").flatten().tolist() for what in ("mean", "std")] for name in ("pan", "ms")},
    }


def resume(checkpoint, state, data_now, tests, steps_per_epoch, console):
    """Restore the state, and follow data that changed. Checkpoints of version 0.1.0 before the shared running sums are read too."""
    saved, before, parts = dict(checkpoint["state"]), dict(checkpoint["data"]), state.parts
    if isinstance(saved.get("loss_sum"), dict):
        sums = [saved.get("chips_seen", 0), *(saved["loss_sum"].get(name, 0.0) for name in parts["running"].names)]
        saved |= {"running": {"sums": torch.tensor(sums, dtype=torch.float64), "counts": {}}, "epochs_without_gain": 0,
                  "schedule": parts["schedule"].state_dict(), "unreadable": {f"{n}.pt": why for n, why in saved.get("bad", {}).items()}}
    if not tests and before.get("scored_on") is None:  # version 0.1.0 at first: training chips were scored, whichever they were
        before.pop("scored_on", None)
    require_parts({**checkpoint, "state": saved}, {"state": state.names()}, "begun with (--load-from)")
    state.restore(saved, checkpoint["path"])
    follow_changed_data(console, "chips", before, data_now, position=state.position, steps_per_epoch=steps_per_epoch,
                        **{name: parts[name] for name in ("running", "schedule", "unreadable")})


def score_model(learner, tests, options, console):
    """(scores of the test chips as they are: {"loss", …}, number of chips that were left out)."""

    def predict(batch):
        pan, mul, truth, valid = to_device(batch, learner.compute.device)
        with torch.no_grad(), learner.compute.autocast():
            predictions = learner.model(mul, pan, all_scales=True)
        losses = weighted_losses(predictions, truth, valid, learner.weights, learner.spread)
        image = finished(predictions[-1].float(), mul, tests.target, tests.ratio, back_projection=True)  # scores are those of inference.py
        return image.cpu(), sum(losses.values()).cpu()

    learner.model.eval()
    return score_chips(tests, predict, options.pbs, learner.processes, console, strict=options.strict, workers=options.workers)


def write_samples(path, learner, chips):
    """A sheet of a few chips: pan, ms, sharpened, truth, error."""

    def sharpen(mul, pan):
        with torch.no_grad(), learner.compute.autocast():
            return learner.model(mul.to(learner.compute.device), pan.to(learner.compute.device)).float().cpu()

    learner.model.eval()
    write_chip_samples(path, sharpen, chips, learner.model.config.target, learner.spread[0].cpu().numpy())


if __name__ == "__main__":
    run_program(main, Advice(memory="pass a smaller --pbs"))
