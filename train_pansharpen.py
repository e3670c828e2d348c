"""
Train the network that sharpens multispectral images with a panchromatic one.

    python train_pansharpen.py --session demo --chips chips/mixed --test-chips chips/test --epoch-length 1024 --epochs 10 --lr 1e-4
    python train_pansharpen.py --session demo --chips chips/mixed --test-chips chips/test --epoch-length 1024 --epochs 20   # ten more
    python train_pansharpen.py --session demo --load-epoch 63 --chips chips/mixed --epochs 100        # on from a certain epoch
    python train_pansharpen.py --session second --load-from demo/63 --chips chips/other --epochs 10   # a new session with these weights
    torchrun --nproc_per_node 4 train_pansharpen.py --session demo --chips chips/mixed …              # the same batches, four processes

Chips come from `chip.py make-chips`, `fake-chips` or `link-chips`. A session is the folder sessions/NAME: config.json, metrics.csv (one row
an epoch), baselines.json (what classical methods score on the test chips), samples/epoch_N.png (what the best epochs make of four chips)
and checkpoints/ with checkpoint_epoch_N.pt (N from zero), last.pt, best_model.pt (lowest test loss) and final_model.pt (of the last epoch
that was asked for). sessions/latest.pt links the newest. The same command again goes on where the session stopped.
"""

import copy
import math
import os
import sys

from runtime.errors import RunError, UserError, run_program
from runtime.flags import Parser, add_common_flags, add_config_flag, parse_with_config, require_finite

KIND = "pansharpen"
# What a run is asked to do, not how it trains: no part of the settings in a checkpoint.
RUN_FLAGS = ("load_epoch", "load_from", "sessions_dir", "weight_link", "device", "config", "quiet", "debug", "workers", "wandb", "project",
             "strict")
# What decides the network's shape: taken from the checkpoint, and refused when asked for differently.
MODEL_FLAGS = ("target", "width", "depth")
# Where a run is, in a checkpoint's "state" beside the weights and the optimiser.
POSITION = ("epoch", "step_in_epoch", "step", "best_score", "best_epoch", "loss_sum", "chips_seen", "bad", "wandb_id")


def build_parser():
    parser = Parser(prog="train_pansharpen.py", description=__doc__)

    group = parser.add_argument_group("session")
    group.add_argument("--session", default="pansharpen", help="name of the run; its folder is made in --sessions-dir")
    group.add_argument("--sessions-dir", "--checkpoints", default="sessions", metavar="DIR", help="where sessions live")
    group.add_argument("--load-epoch", type=int, metavar="N", help="go on from this epoch of the session (default: its latest)")
    group.add_argument("--load-from", metavar="S[/N]", help="begin with the weights of another session, or of a .pt file")
    group.add_argument("--weight-link", metavar="FILE", help="link to the newest checkpoint (default: latest.pt in --sessions-dir)")

    group = parser.add_argument_group("data")
    group.add_argument("--chips", default="chips", metavar="DIR", help="chips to learn from")
    group.add_argument("--test-chips", metavar="DIR", help="chips to judge by, never augmented; other ones than --chips")
    group.add_argument("--epoch-length", "--train-length", type=int, metavar="N", help="chips an epoch, the first N (default: up to 4096)")
    group.add_argument("--test-length", type=int, metavar="N", help="test chips, the first N (default: up to 256)")
    group.add_argument("--augment", choices=("full", "turns", "none"), default="full",
                       help="full: turned and mirrored, crisper or softer edges, misaligned bands; turns: turned and mirrored only")
    group.add_argument("--workers", type=int, default=2, help="processes that read chips; 0: none")
    group.add_argument("--strict", action="store_true", help="a chip that can't be used ends the run (else it is left out and named)")

    group = parser.add_argument_group("model")
    group.add_argument("--target", choices=("bands", "oklab"), default="bands", help="all ms bands, or a picture in Oklab")
    group.add_argument("--width", type=int, default=48, help="feature channels, a multiple of 16")
    group.add_argument("--depth", type=int, default=3, help="blocks at the resolution of ms")

    group = parser.add_argument_group("training")
    group.add_argument("--epochs", type=int, metavar="N", help="epochs the session is to have in all, those before included (default: 1)")
    group.add_argument("--up-to-epoch", type=int, metavar="N", help="the same, as the number of the last epoch (from zero)")
    group.add_argument("--lr", type=float, default=5e-4, help="learning rate of AdamW")
    group.add_argument("--weight-decay", type=float, default=2e-3)
    group.add_argument("--schedule", choices=("constant", "cosine"), default="constant", help="of the learning rate over all epochs")
    group.add_argument("--warmup", type=int, default=0, metavar="STEPS", help="steps over which the learning rate rises; 0: none")
    group.add_argument("--grad-clip", type=float, default=1.0, help="largest norm of the gradient; 0: no limit")
    group.add_argument("--pbs", type=int, default=8, help="physical batch: chips in memory at a time, in each process")
    group.add_argument("--lbs", type=int, default=64, help="logical batch: chips an optimiser step, over all processes; a multiple of pbs")
    group.add_argument("--seed", type=int, default=0)

    group = parser.add_argument_group("machine")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    group.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32", help="of the network's layers; losses are fp32")
    group.add_argument("--save-minutes", type=float, default=10.0, help="last.pt at least this often, also inside an epoch")
    group.add_argument("--wandb", action="store_true", help="log to Weights & Biases (WANDB_MODE=offline without network)")
    group.add_argument("--project", default="pansharpening", help="W&B project")
    add_config_flag(parser)
    add_common_flags(parser)
    return parser


def check_flags(args):
    """UserError for values and pairings that can't be right, before any work."""
    at_least = {"pbs": 1, "lbs": 1, "workers": 0, "width": 16, "depth": 1, "warmup": 0, "seed": 0, "grad_clip": 0, "weight_decay": 0,
                "epoch_length": 1, "test_length": 1, "epochs": 1, "up_to_epoch": 0, "load_epoch": 0, "save_minutes": 0}
    for name, low in at_least.items():
        value = getattr(args, name)
        if value is not None and not value >= low:
            raise UserError(f"--{name.replace('_', '-')} must be at least {low}, got {value}")
    if not 0 < args.lr < 10:
        raise UserError(f"--lr must be between 0 and 10, got {args.lr}")
    require_finite(args, "weight_decay", "grad_clip", "seed")
    if args.lbs % args.pbs:
        raise UserError(f"--lbs {args.lbs} must be a multiple of --pbs {args.pbs}")
    if args.width % 16:
        raise UserError(f"--width must be a multiple of 16, got {args.width}")
    if args.epochs and args.up_to_epoch is not None:
        raise UserError("--epochs and --up-to-epoch say the same in two ways; pass one of them")
    if args.session in ("", ".", "..") or "/" in args.session:
        raise UserError(f"--session is a name, not a path, got {args.session!r}; --sessions-dir says where sessions live")
    if args.load_from and args.load_epoch is not None:
        raise UserError("--load-epoch goes on with this session, --load-from begins with another's weights; pass one (--load-from S/N)")


def main(argv=None):
    args, given = parse_with_config(build_parser(), sys.argv[1:] if argv is None else argv)
    check_flags(args)

    # torch takes seconds to import: only now, when the flags are known to be right.
    from runtime import distributed
    from runtime.logs import Console, SilentConsole

    with distributed.start(args.device) as processes:
        console = Console(args.quiet) if processes.is_first else SilentConsole()
        return train(args, given, processes, console)


# ------------------------------------------------------------------------------------------------------------------ the past


def epoch_path(folder, epoch):
    return os.path.join(folder, "checkpoints", f"checkpoint_epoch_{epoch}.pt")


def saved_epochs(folder):
    """Numbers of the epochs that a session has checkpoints of, sorted."""
    place = os.path.join(folder, "checkpoints")
    names = os.listdir(place) if os.path.isdir(place) else []
    stems = [n.removeprefix("checkpoint_epoch_").removesuffix(".pt") for n in names if n.startswith("checkpoint_epoch_")]
    return sorted(int(stem) for stem in stems if stem.isdecimal())


def epoch_of(path):
    """(epochs, steps of the next one) that a checkpoint has behind it; None for one that is missing or damaged, and may be replaced."""
    from runtime.checkpoint import load_checkpoint

    try:
        state = load_checkpoint(path, KIND)["state"]
    except UserError:
        return None
    return (state.get("epoch"), state.get("step_in_epoch")) if isinstance(state, dict) else None


def find_past(args):
    """(checkpoint or None, whether it is this session's own past). UserError where what was asked for isn't there."""
    from runtime.checkpoint import load_checkpoint

    folder = os.path.join(args.sessions_dir, args.session)
    epochs = saved_epochs(folder)
    if args.load_epoch is not None:
        if args.load_epoch not in epochs:
            known = f"has epochs {epochs[0]} to {epochs[-1]}" if epochs else "has no checkpoints"
            raise UserError(f"--load-epoch {args.load_epoch}: session {args.session} in {args.sessions_dir} {known}")
        return load_checkpoint(epoch_path(folder, args.load_epoch), KIND), True
    last = os.path.join(folder, "checkpoints", "last.pt")
    if epochs and not os.path.exists(last):
        last = epoch_path(folder, epochs[-1])
    if os.path.exists(last):
        return load_checkpoint(last, KIND), True
    if args.load_from:
        return load_checkpoint(path_of(args.load_from, args.sessions_dir), KIND), False
    return None, False


def path_of(text, sessions_dir):
    """`demo`, `demo/63` or a path to a .pt file -> path."""
    if text.endswith(".pt"):
        return text
    session, _, number = text.partition("/")
    epochs = saved_epochs(os.path.join(sessions_dir, session))
    if not epochs or (number and (not number.isdecimal() or int(number) not in epochs)):
        known = f"it has epochs {epochs[0]} to {epochs[-1]}" if epochs else f"{sessions_dir} has no session {session} with checkpoints"
        raise UserError(f"--load-from {text}: {known}; expected SESSION, SESSION/EPOCH or a .pt file")
    return epoch_path(os.path.join(sessions_dir, session), int(number) if number else epochs[-1])


def take_settings(args, given, checkpoint, own):
    """Settings of the past for every flag that was not given; the network's shape always. An explicit flag such as --lr wins."""
    for name, value in checkpoint["settings"].items():
        if name in RUN_FLAGS or not hasattr(args, name) or name in ("session", "epochs", "up_to_epoch"):
            continue
        if name in MODEL_FLAGS and name in given and getattr(args, name) != value:
            raise UserError(f"--{name} {getattr(args, name)} disagrees with the checkpoint, which has {value}; leave it out")
        if name in MODEL_FLAGS or (own and name not in given):
            setattr(args, name, value)


def check_link(link):
    """UserError where no link of this name can be made. Its folder is made."""
    from runtime.files import require_writable

    require_writable(os.path.dirname(link) or ".")
    if os.path.isdir(link) and not os.path.islink(link):
        raise UserError(f"{link} is a folder, expected the name of a link; pass --weight-link {os.path.join(link, 'latest.pt')}")


def link_newest(link, path, console):
    """Point a symbolic link at the newest checkpoint; a real file of that name is left alone."""
    if os.path.lexists(link) and not os.path.islink(link):
        console.warn(f"{link} is a file, not a link: it stays as it is")
        return
    # one name in every run of a session, which is locked: what a killed one leaves is what the next one replaces
    temporary = os.path.join(os.path.dirname(link), f".{os.path.basename(link)}.{path.parent.parent.name}.part")
    try:
        if os.path.lexists(temporary):
            os.unlink(temporary)
        # real paths: seen from a folder that is itself a link, ".." is elsewhere
        os.symlink(os.path.relpath(os.path.realpath(path), os.path.realpath(os.path.dirname(link))), temporary)
        os.replace(temporary, link)
    except OSError as error:  # a disk that knows no links: no reason to lose an epoch
        console.warn(f"{link} can't be made a link to {path} ({error.strerror})")


# ------------------------------------------------------------------------------------------------------------------ training


def train(args, given, processes, console):
    """The whole run, from the chips to the last epoch's checkpoint."""
    import torch

    from pansharpening.dataset import MOST_BAD, epoch_batches, epoch_order, make_loader, scale_of, shared_chips, statistics
    from pansharpening.losses import WEIGHTS
    from pansharpening.network import Pansharpener, PansharpenerConfig, measure_reach, pansharpener_from_checkpoint
    from runtime.checkpoint import require_numbers, require_parts, save_checkpoint
    from runtime.clock import Clock
    from runtime.device import choose_device, gradient_scaler, seed_everything
    from runtime.files import write_json
    from runtime.interrupts import NOTHING, SAVE, STOP, StopRequest
    from runtime.logs import MetricsFile, start_wandb
    from runtime.run_folder import BEST, FINAL, LAST, RunFolder
    from runtime.schedule import cosine_factor, warmup_factor

    checkpoint, own = find_past(args)
    if checkpoint:
        state = ("model", "optimizer", "scaler", *POSITION) if own else ("model",)
        require_parts(checkpoint, {"model": (), "settings": (), "state": state, "data": ()}, "begun with (--load-from)")
    processes.wait_for_all()  # nobody writes before everybody has looked
    if checkpoint:
        take_settings(args, given, checkpoint, own)
        check_flags(args)
    device = choose_device(args.device, processes.local_rank)
    seed_everything(args.seed)
    end = args.epochs or (args.up_to_epoch + 1 if args.up_to_epoch is not None else 1)

    # Data
    chips = open_chips(args.chips, args.epoch_length, 4096, args, console, turned=args.augment != "none", seed=args.seed)
    tests = open_chips(args.test_chips, args.test_length, 256, args, console, like=chips) if args.test_chips else None
    if tests is None:
        console.say("no --test-chips: the best epoch will be the one with the lowest training loss, which is not the same")
    elif shared := shared_chips(chips, tests):
        console.warn(f"{shared} of the {len(tests)} test chips in {args.test_chips} are training chips too: their scores mean little")
    if not args.epochs and args.up_to_epoch is None:
        console.say("neither --epochs nor --up-to-epoch was given: training one epoch")
    if args.lbs > len(chips):
        console.warn(f"an epoch of {len(chips)} chips is shorter than the logical batch of {args.lbs}: each epoch is one step")
    steps = -(-len(chips) // args.lbs)
    trained_on = chips.fingerprint()
    scored_on = tests.fingerprint() if tests else f"training {trained_on}"  # which chips the best epoch is chosen by

    # Model, optimiser
    if checkpoint:
        model = pansharpener_from_checkpoint(checkpoint)
        if (model.config.bands, model.config.ratio) != (chips.bands, chips.ratio):
            raise UserError(f"the checkpoint sharpens {', '.join(model.config.bands)} by {model.config.ratio}, {args.chips} has "
                            f"{', '.join(chips.bands)} and ratio {chips.ratio}; pass the chips that go with it")
    else:
        model = Pansharpener(PansharpenerConfig(chips.bands, chips.ratio, args.target, args.width, args.depth))
        model.set_statistics(statistics(chips))
    model = model.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=args.weight_decay)
    scaler = gradient_scaler(device, args.precision)

    # Where the run is. Everything here goes into the checkpoint and comes back when the session goes on.
    position = {"epoch": 0, "step_in_epoch": 0, "step": 0, "best_score": None, "best_epoch": None, "loss_sum": {}, "chips_seen": 0,
                "bad": {}, "wandb_id": os.urandom(4).hex() if args.wandb else None}
    if own:
        position |= {key: checkpoint["state"][key] for key in POSITION}
        try:
            optimizer.load_state_dict(checkpoint["state"]["optimizer"])
            for settings_group in optimizer.param_groups:  # the flag wins over what the optimiser remembers, as --lr does at every step
                settings_group["weight_decay"] = args.weight_decay
            if checkpoint["state"]["scaler"]:  # empty from fp32 or bf16: a session that goes on in fp16 begins with a new one
                scaler.load_state_dict(checkpoint["state"]["scaler"])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{checkpoint['path']} can't be gone on with: its state is not that of such a session "
                            f"({str(error).splitlines()[0][:150]}); begin another with --load-from SESSION/EPOCH") from error
        if checkpoint["data"].get("trained_on", trained_on) != trained_on:
            console.say(f"other chips are trained on than before{': the epoch begins anew' if position['step_in_epoch'] else ''}")
            position |= {"step": position["epoch"] * steps, "step_in_epoch": 0, "loss_sum": {}, "chips_seen": 0, "bad": {}}
        scored_before = checkpoint["data"].get("scored_on", scored_on)
        if scored_before is None and not tests:  # training chips, unknown which: no fingerprint of them was kept at first
            scored_before = scored_on
        if scored_before != scored_on:  # losses on different chips can't be compared
            console.say("other chips are scored than before: what was best so far counts no more")
            position |= {"best_score": None, "best_epoch": None}
    if own and args.load_epoch is not None:
        later = [e for e in saved_epochs(os.path.join(args.sessions_dir, args.session)) if e > args.load_epoch]
        if later:
            raise UserError(f"session {args.session} has epochs up to {later[-1]} already, which would be overwritten; begin another one: "
                            f"--session NAME --load-from {args.session}/{args.load_epoch}")

    settings = {key: value for key, value in vars(args).items() if key not in RUN_FLAGS}
    model_config = {"bands": list(model.config.bands), **{k: getattr(model.config, k) for k in ("ratio", "target", "width", "depth")}}
    divide_by, offset, nodata = scale_of(args.chips)
    description = {"bands": list(chips.bands), "ratio": chips.ratio, "target": args.target, "divide_by": divide_by, "offset": offset,
                   "nodata": nodata, "classes": [], "chip_size": chips.chip_size, "ground_resolution": None,
                   "chips_dir": os.path.abspath(args.chips), "scored_on": scored_on,
                   "trained_on": trained_on}
    spread = model.out_std.clone()
    weights = WEIGHTS[args.target]
    link = args.weight_link or os.path.join(args.sessions_dir, "latest.pt")
    if processes.is_first:
        check_link(link)

    def rate(step):
        cosine = cosine_factor(step, end * steps, args.warmup) if args.schedule == "cosine" else 1.0
        return args.lr * warmup_factor(step, args.warmup) * cosine

    def save(*names):
        if processes.is_first:
            reach = measure_reach(model)
            state = {**position, "model": model.state_dict(), "optimizer": optimizer.state_dict(), "scaler": scaler.state_dict()}
            whole = {"kind": KIND, "model": model_config, "settings": settings, "state": state, "data": {**description, "reach": reach}}
            for name in names:
                save_checkpoint(folder.checkpoints / name, whole)

    run_folder = RunFolder(os.path.join(args.sessions_dir, args.session), own, False, processes.is_first, "--session")
    with run_folder as folder, StopRequest() as stop:
        if position["epoch"] >= end:
            console.say(f"session {args.session} has {position['epoch']} epochs already; raise --epochs to train on")
            # Stopped after this epoch when more were asked for, or a session of a version that did not write it.
            if processes.is_first and (position["epoch"], position["step_in_epoch"]) == (end, 0) != epoch_of(folder.checkpoints / FINAL):
                save_checkpoint(folder.checkpoints / FINAL, checkpoint)
            return 0
        folder.write_config(settings=settings, model=model_config, data=description, device=str(device), processes=processes.size)
        table = MetricsFile(folder.path / "metrics.csv", from_epoch=position["epoch"], active=processes.is_first)
        wandb = start_wandb(args.wandb and processes.is_first, args.project, args.session, settings, folder.path, console,
                            position["wandb_id"])
        if not own:
            save(LAST)
        parameters = sum(p.numel() for p in model.parameters())
        console.say(f"{parameters} weights, {args.target}, {len(chips.bands)} bands, ratio {chips.ratio}, {device}; {len(chips)} chips "
                    f"an epoch in {steps} steps of {args.lbs}{f'; {len(tests)} test chips' if tests else ''}")
        place = folder.path / "baselines.json"
        # The first process looks for all: a file that others see too late, or not at all, must not leave one alone with the sums.
        if processes.highest(int(processes.is_first and tests is not None and not has_baselines(place, scored_on))):
            baselines = score_baselines(tests, args, processes)
            if processes.is_first:
                write_json(place, {"scored_on": scored_on, **baselines})
                for name, scores in baselines.items():
                    console.say(f"  {name:12s} {in_words(scores)}")

        clock = Clock(args.save_minutes)
        while position["epoch"] < end:
            epoch = position["epoch"]
            chips.epoch = epoch
            order = epoch_order(len(chips), args.seed, epoch)
            logical = epoch_batches(len(chips), args.lbs, args.pbs, processes.rank, processes.size, order)[position["step_in_epoch"] :]
            loader = iter(make_loader(chips, [b for group in logical for b in group], args.workers, device.type == "cuda"))
            model.train()
            bar = console.progress(steps, f"epoch {epoch}", position["step_in_epoch"])
            for group in logical:
                # One logical batch: gradients of the sum over its chips, divided by their true number before the step.
                optimizer.zero_grad(set_to_none=False)
                sums = torch.zeros(1 + len(weights), device=device)  # chips, then each loss term
                for _ in group:
                    batch = next(loader)
                    note_bad(batch, position["bad"], args.chips, args.strict)
                    if len(position["bad"]) > MOST_BAD * len(chips):  # at once: nobody waits an epoch to hear it
                        report_bad(position["bad"], len(chips), MOST_BAD, args.chips, console)
                    if not len(batch):
                        continue
                    terms = forward_losses(model, batch, chips.bands, args, device, epoch, weights, spread)
                    scaler.scale(sum(term.sum() for term in terms.values())).backward()
                    sums += torch.stack([sums.new_tensor(len(batch)), *(terms[name].detach().sum() for name in weights)])
                counted = processes.sum(sums).tolist()
                total = int(counted[0])
                if total:
                    for p in model.parameters():
                        if p.grad is None:  # a process whose share of this batch is empty still takes part in the sum
                            p.grad = torch.zeros_like(p)
                    processes.add_gradients(model.parameters())
                    scaler.unscale_(optimizer)
                    for p in model.parameters():
                        p.grad /= total
                    if args.grad_clip:
                        torch.nn.utils.clip_grad_norm_(model.parameters(), args.grad_clip)
                    for settings_group in optimizer.param_groups:
                        settings_group["lr"] = rate(position["step"])
                    scaler.step(optimizer)
                    scaler.update()
                for name, value in zip(weights, counted[1:], strict=True):
                    position["loss_sum"][name] = position["loss_sum"].get(name, 0.0) + value
                position["chips_seen"] += total
                position["step"] += 1
                position["step_in_epoch"] += 1
                bar.update()
                wanted = processes.highest(STOP if stop.requested else SAVE if clock.rings() else NOTHING)
                if wanted:
                    position["bad"] = merge_bad(position["bad"], processes)
                    require_numbers(model, position["step"])
                    save(LAST)
                if wanted == STOP:
                    stop.leave(f"Saved in epoch {epoch} after step {position['step']}; run the same command again to go on")
            bar.close()

            # The epoch's numbers
            position["bad"] = merge_bad(position["bad"], processes)
            report_bad(position["bad"], len(chips), MOST_BAD, args.chips, console)
            losses = {name: value / max(1, position["chips_seen"]) for name, value in position["loss_sum"].items()}
            row = {"epoch": epoch, "step": position["step"], "lr": rate(position["step"] - 1), "chips": position["chips_seen"],
                   "train_loss": sum(losses.values()), **{f"train_{name}": value for name, value in losses.items()}}
            if row["train_loss"] != row["train_loss"]:
                raise RunError(f"the loss is not a number after epoch {epoch}; lower --lr, or use --precision bf16 or fp32")
            require_numbers(model, position["step"])  # the loss is that of the weights before the last step, which may have ruined them
            scores, left_out = {}, len(position["bad"]) + chips.broken
            if tests:
                scores, bad_tests = score_model(model, tests, args, device, processes, weights, spread, console)
                row |= {f"test_{name}": value for name, value in scores.items()}
                left_out += bad_tests + tests.broken
            score = scores["loss"] if tests else row["train_loss"]
            if not math.isfinite(score):
                what = "test" if tests else "training"
                raise RunError(f"the {what} loss is not a finite number after epoch {epoch}; lower --lr, or use --precision bf16 or fp32")
            is_best = position["best_score"] is None or score < position["best_score"]
            if is_best:
                position |= {"best_score": score, "best_epoch": epoch}
            position |= {"epoch": epoch + 1, "step_in_epoch": 0, "loss_sum": {}, "chips_seen": 0, "bad": {}}

            # Tell and save. last.pt goes last: whatever is killed before it is done again, with the same result.
            table.add({**row, "best": int(is_best), "seconds": clock.epoch_seconds()})
            wandb.log({key.replace("_", "/", 1) if key.startswith(("train_", "test_")) else key: v for key, v in row.items()}, step=epoch)
            told = f"; test: {in_words(scores)}" if tests else ""
            console.say(f"epoch {epoch}: train loss {row['train_loss']:.4f}{told}{', best' * is_best}")
            if is_best and processes.is_first:
                write_samples(folder.path / "samples" / f"epoch_{epoch}.png", model, tests or chips, args, device, spread)
            save(f"checkpoint_epoch_{epoch}.pt", *([BEST] if is_best else []), *([FINAL] if position["epoch"] == end else []))
            if processes.is_first:
                link_newest(link, folder.checkpoints / f"checkpoint_epoch_{epoch}.pt", console)
            save(LAST)
            if processes.highest(STOP if stop.requested else NOTHING) and position["epoch"] < end:
                stop.leave(f"Saved after epoch {epoch}; run the same command again to go on")
        wandb.finish()

    if processes.is_first:
        what = "test" if tests else "training"
        without = f"; {left_out} chips that can't be used left out" if left_out else ""
        print(f"lowest {what} loss {position['best_score']:.4f} in epoch {position['best_epoch']}: {folder.checkpoints / BEST}{without}")
    return 0


def open_chips(folder, length, most, args, console, **options):
    """PanChips; without a length the first `most`. Links that lead nowhere are left out and counted, with --strict a RunError."""
    from pansharpening.dataset import PanChips

    chips = PanChips(folder, length, args.target, **options)
    if chips.broken and args.strict:
        broken = next(path for path in sorted(chips.folder.glob("*.pt")) if path.stem.isdecimal() and not path.exists())
        raise RunError(f"{broken} can't be used: it is a link that leads nowhere (--strict)")
    if length is None and len(chips) > most:
        chips.numbers = chips.numbers[:most]
    if chips.broken:
        console.warn(f"{folder}: {chips.broken} links lead nowhere and are left out")
    return chips


def forward_losses(model, batch, bands, args, device, epoch, weights, spread):
    """{term: (B,)} of a training batch."""
    from pansharpening.augment import augment_pair
    from pansharpening.losses import weighted_losses
    from runtime.device import autocast, derived_seed

    pan, mul, truth = (t.to(device, non_blocking=True) for t in (batch.pan, batch.mul, batch.truth))
    valid = None if batch.valid is None else batch.valid.to(device, non_blocking=True)
    if args.augment == "full":
        pan, mul = augment_pair(pan, mul, [derived_seed(args.seed, epoch, number, 1) for number in batch.numbers], bands)
    with autocast(device, args.precision):
        predictions = model(mul, pan, all_scales=True)
    return weighted_losses(predictions, truth, valid, weights, spread)


def score_model(model, tests, args, device, processes, weights, spread, console):
    """(scores of the test chips as they are: {"loss", …}, number of chips that were left out)."""
    import torch

    from pansharpening.losses import weighted_losses
    from runtime.device import autocast

    def predict(batch):
        pan, mul, truth = (t.to(device) for t in (batch.pan, batch.mul, batch.truth))
        valid = None if batch.valid is None else batch.valid.to(device)
        with torch.no_grad(), autocast(device, args.precision):
            predictions = model(mul, pan, all_scales=True)
        losses = weighted_losses(predictions, truth, valid, weights, spread)
        return predictions[-1].float().cpu(), sum(losses.values()).cpu()

    model.eval()
    return score_chips(tests, args, predict, processes, args.workers, console)


def score_baselines(tests, args, processes):
    """{method: scores} of the classical methods on the same chips."""
    import torch

    from pansharpening.classical import METHODS, fuse_whole
    from raster.colour import bands_to_oklab

    found = {}
    for method in METHODS:

        def predict(batch, method=method):
            images = [fuse_whole(method, mul[None], pan[None], tests.ratio) for mul, pan in zip(batch.mul, batch.pan, strict=True)]
            images = torch.cat(images)
            return (bands_to_oklab(images, tests.bands) if args.target == "oklab" else images), None

        found[method], _ = score_chips(tests, args, predict, processes)
    return found


def has_baselines(path, scored_on):
    """Whether baselines.json has the scores of the classical methods on these chips. One that is damaged has not: it is made anew."""
    from pansharpening.classical import METHODS
    from runtime.files import read_json

    try:
        found = read_json(path)
    except UserError:
        return False
    return isinstance(found, dict) and found.get("scored_on") == scored_on and all(isinstance(found.get(m), dict) for m in METHODS)


def score_chips(tests, args, predict, processes, workers=0, console=None):
    """
    (mean scores over the test chips, number of chips left out). predict(batch) -> (images (B, …) on the CPU, losses (B,) or None).

    Whole batches are dealt out, since a chip's values may depend on its company in the last digit, and each chip's scores keep their place
    in one list: the mean is the same whatever the number of processes.
    """
    from pansharpening import metrics
    from pansharpening.dataset import MOST_BAD, epoch_batches, make_loader

    (batches,) = epoch_batches(len(tests), len(tests), args.pbs)
    results, bad = {}, {}
    for batch in make_loader(tests, batches[processes.rank :: processes.size], workers):
        note_bad(batch, bad, args.test_chips, args.strict)
        if not len(batch):
            continue
        images, losses = predict(batch)
        for i, number in enumerate(batch.numbers):
            truth, image = batch.truth[i].numpy(), images[i].numpy()
            valid = None if batch.valid is None else batch.valid[i, 0].numpy()
            scores = {} if losses is None else {"loss": float(losses[i])}
            if args.target == "oklab":
                scores["delta_e"] = metrics.delta_e(truth, image, valid)
            else:
                scores["ergas"] = metrics.ergas(truth, image, tests.ratio, valid)
                scores["sam"] = metrics.sam(truth, image, valid)
                scores["q2n"] = metrics.q2n(truth, image, valid=valid)
            scores["psnr"] = metrics.psnr(truth, image, 1.0, valid)
            results[number] = scores
    results = {n: s for part in processes.gather(results) for n, s in part.items()}
    bad = merge_bad(bad, processes)
    report_bad(bad, len(tests), MOST_BAD, tests.folder, console)
    ordered = [results[n] for n in sorted(results)]
    means = {}
    for name in ordered[0]:
        # A score may have no value for a chip, such as the PSNR of an image without error. A loss always has one.
        values = [s[name] for s in ordered if name == "loss" or math.isfinite(s[name])]
        means[name] = sum(values) / len(values) if values else float("nan")
    return means, len(bad)


def write_samples(path, model, chips, args, device, spread, count=4):
    """A sheet of up to `count` chips, as they are: pan, ms, sharpened, truth, error. Chips that can't be read are left out."""
    import torch

    from pansharpening.gallery import error_of
    from pansharpening.sample_sheet import pan_sheet
    from pictures.pictures import save_png
    from runtime.device import autocast

    plain = copy.copy(chips)
    plain.turned = False
    rows, names = [], []
    model.eval()
    for index in sorted({k * (len(plain) - 1) // max(1, count - 1) for k in range(count)}):
        number, parts = plain[index]
        if isinstance(parts, str):
            continue
        pan, mul, truth, valid = parts
        with torch.no_grad(), autocast(device, args.precision):
            image = model(mul[None].to(device), pan[None].to(device))[0].float().cpu()
        rows.append((pan, mul, image, truth, valid))
        error = error_of(truth.numpy(), image.numpy(), args.target, plain.ratio, valid)
        names.append(f"{number}.pt, {'delta E' if args.target == 'oklab' else 'ERGAS'} {error:.3g}")
    if rows:
        path.parent.mkdir(exist_ok=True)
        save_png(path, pan_sheet(rows, args.target, plain.bands, spread[0].cpu().numpy(), names))


def in_words(scores):
    return ", ".join(f"{name} {value:.4g}" for name, value in scores.items())


def note_bad(batch, bad, folder, strict):
    """Remember why chips of a batch were left out, as {number: reason}; with --strict the first is a RunError."""
    if batch.problems and strict:
        number, reason = batch.problems[0]
        raise RunError(f"{os.path.join(folder, f'{number}.pt')} can't be used: {reason} (--strict)")
    bad |= {str(number): reason for number, reason in batch.problems}


def merge_bad(bad, processes):
    """{number: reason} of all processes."""
    merged = {}
    for part in processes.gather(bad):
        merged |= part
    return merged


def report_bad(bad, count, most, folder, console):
    """Name chips that were left out; RunError where they are too many to be an accident."""
    if not bad:
        return
    named = "; ".join(f"{number}.pt: {reason}" for number, reason in list(bad.items())[:3])
    if len(bad) > most * count:
        raise RunError(f"{len(bad)} of {count} chips in {folder} can't be used ({named}); make them again")
    if console:
        console.warn(f"{len(bad)} of {count} chips in {folder} can't be used and are left out ({named})")


if __name__ == "__main__":
    run_program(main)
