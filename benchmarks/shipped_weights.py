"""How the networks in weights/ came about: fake chips, one training session, and its best checkpoint without the optimiser.

    python -m benchmarks.shipped_weights WORK_FOLDER [--output weights/pansharpen-fake.pt]
    python -m benchmarks.shipped_weights WORK_FOLDER --bands blue,green,red,nir     # weights/pansharpen-fake-bgrn.pt

Not a pixel of imagery takes part: reflectances are formulas (synthetic/spectra.py), shapes are noise. The same command gives the
same chips and, on the same kind of machine, the same weights. About six minutes on one core.
"""

import argparse
import sys
from pathlib import Path

from benchmarks.programs import ROOT, run


def main(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--bands", help="in place of WorldView's eight")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--epochs", type=int, default=12)
    args = parser.parse_args(argv)
    args.output = args.output or ROOT / "weights" / f"pansharpen-fake{'-bgrn' if args.bands else ''}.pt"
    bands = ["--bands", args.bands] if args.bands else []
    train, test, sessions = (args.folder.resolve() / name for name in ("train", "test", "sessions"))
    run("chip.py", "fake-chips", "-o", train, "-c", 512, "-s", 96, "-r", 0, "--reduction", "mtf", *bands)
    run("chip.py", "fake-chips", "-o", test, "-c", 32, "-s", 96, "-r", 1, "--reduction", "mtf", *bands)
    run(
        "train_pansharpen.py", "--config", "pansharpen", "--session", "fake", "--sessions-dir", sessions, "--chips", train,
        "--test-chips", test, "--epochs", args.epochs, "--weight-decay", 2e-3, "--device", "cpu", "--workers", 0,
    )

    from runtime.checkpoint import load_checkpoint, save_checkpoint

    checkpoint = load_checkpoint(sessions / "fake" / "checkpoints" / "best_model.pt")
    checkpoint["state"] = {"model": checkpoint["state"]["model"], "epoch": checkpoint["state"]["epoch"]}
    checkpoint["settings"] = {k: v for k, v in checkpoint["settings"].items() if k not in ("chips", "test_chips")}
    checkpoint["data"]["chips_dir"] = "fake"
    args.output.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(args.output, checkpoint)
    print(f"{args.output}: {args.output.stat().st_size} bytes")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main(sys.argv[1:])
