"""
An exported network in ONNX Runtime beside the same network in PyTorch, on the same windows.

    python benchmarks/onnx_speed.py
    python benchmarks/onnx_speed.py --networks unet contrastunet --size 256 --batch-size 8 --runs 10
    python benchmarks/onnx_speed.py --networks prithvi-600 --size 224 --batch-size 1 --runs 0      # above 2 GB: how long, how much memory

Each network is exported with random weights, then both are timed in turn, on as many threads as PyTorch takes. Prints medians of CPU
seconds and of seconds by the clock: torch / ONNX Runtime, so that above 1 the .onnx is faster. Goal: 1.0. Of the export it prints the
seconds and the most memory that the program had until then.
"""

import argparse
import dataclasses
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

BANDS = ("B02", "B03", "B04", "B08", "B8A", "B11", "B12")


def networks():
    """{name: function(side) → model}"""
    from model import assemble, create_segmentation_model
    from nets.model_config import ModelConfig, Neck

    tokens = (Neck("tokens-to-maps"), Neck("pyramid"))
    large = ModelConfig(encoder="prithvi:eo-v2-600", decoder="fcn", necks=tokens)
    return {
        "prithvi-600": lambda side: assemble(dataclasses.replace(large, image_size=(side, side)), BANDS),
        "unet": lambda side: create_segmentation_model(2, "resnet34", "unet", bands=BANDS, encoder_weights=None),
        "contrastunet": lambda side: create_segmentation_model(2, architecture="contrastunet", bands=BANDS, indices=("pairs",)),
        "deeplabv3plus": lambda side: create_segmentation_model(2, "resnet34", "deeplabv3plus", bands=BANDS, encoder_weights=None),
        "vit": lambda side: assemble(ModelConfig(encoder="tu-vit_small_patch16_224", decoder="unet", necks=tokens, image_size=(side, side)),
                                     BANDS),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["unet", "contrastunet", "deeplabv3plus", "vit"])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--runs", type=int, default=7)
    args = parser.parse_args()

    import torch

    from exporting.exportable import exportable_of
    from exporting.onnx_reader import load_onnx
    from exporting.to_onnx import write_onnx
    from runtime.memory import keep_freed_memory

    keep_freed_memory()  # as the programs do
    for name in args.networks:
        torch.manual_seed(0)
        model = networks()[name](args.size).eval()
        data = {"bands": list(BANDS), "divide_by": [10_000.0] * 7, "offset": [0.0] * 7, "classes": ["background", "fire"],
                "chip_size": args.size}
        checkpoint = {"kind": "segmentation", "model": model.config.to_dict(), "state": {"model": model.state_dict()}, "data": data,
                      "path": f"{name}.pt"}
        with tempfile.TemporaryDirectory() as folder, torch.no_grad():
            start = time.perf_counter()
            parity = write_onnx(exportable_of(checkpoint), Path(folder) / f"{name}.onnx")
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # of kB on Linux
            print(f"{name}: exported in {time.perf_counter() - start:.0f} s, at most {memory:.1f} GB of memory; {parity}", flush=True)
            if not args.runs:
                continue
            exported = load_onnx(Path(folder) / f"{name}.onnx", "cpu")["network"]
            x = torch.rand(args.batch_size, len(BANDS), args.size, args.size)
            timed(model, x), timed(exported, x)
            pairs = [(timed(model, x), timed(exported, x)) for _ in range(args.runs)]
        cpu, clock = (statistics.median(torch_time[i] / onnx_time[i] for torch_time, onnx_time in pairs) for i in (0, 1))
        seconds = statistics.median(onnx_time[1] for _, onnx_time in pairs)
        verdict = f"goal 1.0: {'met' if cpu >= 1 else 'MISSED'}"
        print(f"{name}, {args.batch_size} x {args.size}², {torch.get_num_threads()} threads: {cpu:.2f} x CPU, {clock:.2f} x by the clock, "
              f"{args.batch_size / seconds:.1f} windows/s in ONNX Runtime ({verdict})", flush=True)


def timed(network, x):
    """(CPU seconds, seconds) of one forward pass."""
    cpu, clock = time.process_time(), time.perf_counter()
    network(x)
    return time.process_time() - cpu, time.perf_counter() - clock


if __name__ == "__main__":
    main()
