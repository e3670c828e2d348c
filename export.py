"""
A checkpoint that leaves: ONNX for any runtime, safetensors for other programs, and what it is for catalogues.

    python export.py output/checkpoints/best_model.pt --onnx best_model.onnx
    python export.py output --onnx best_model.onnx --any-size                     # height and width free, where that is right
    python export.py output/checkpoints/final_model.pt --safetensors final_model
    python inference.py --checkpoint best_model.onnx scene.tif --output-dir maps  # the same map, the network in ONNX Runtime

The .onnx is compared with the checkpoint, and left only where both give the same; its metadata, a STAC item, lies beside it. Normalisation
and spectral indices are inside (docs/export.md).
"""

if __name__ == "__main__":
    from runtime.stop_signals import catch_stop_signals

    catch_stop_signals("No file was left half written; run the same command again")  # before the imports, which take a moment

import sys

from runtime.errors import Advice, UserError, run_program
from runtime.flags import Parser, add_common_flags, add_config_flag, parse_with_config
from runtime.values import side_or_size, whole

# What --help shows.
FIRST_FLAGS = ("--onnx", "--safetensors", "--window", "--any-size", "--overwrite", "--config")


def build_parser():
    parser = Parser(prog="export.py", description=__doc__, first=FIRST_FLAGS)
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="the file that the end of a training names, or the run's folder")
    parser.add_argument("--onnx", metavar="FILE.onnx", help="write this file, and its STAC item FILE.json")
    parser.add_argument("--safetensors", metavar="FOLDER", help="write model.safetensors and config.json into this folder")
    parser.add_argument("-b", "--window", type=side_or_size, metavar="PIXELS", help="side of the windows that the .onnx takes, or "
                        "WIDTHxHEIGHT (default: the patches or tiles of the training)")
    parser.add_argument("--any-size", action="store_true", help="the .onnx takes windows of any height and width; for convolutional "
                        "networks without pooled grids")
    parser.add_argument("--max-detections", type=whole(1, 100_000), metavar="N", help="boxes of a window that the .onnx of a detector "
                        "gives (default: as the checkpoint says)")
    parser.add_argument("--encoder-weights", metavar="FILE", help="published weights that the adapters of an adapters.pt are for")
    parser.add_argument("--model", metavar="FILE.py:FUNCTION", help="where the network of a checkpoint comes from that a --model trained")
    parser.add_argument("-o", "--overwrite", action="store_true", help="replace files that exist")
    add_config_flag(parser, "export")
    add_common_flags(parser)
    return parser


def main(argv=None):
    args, _ = parse_with_config(build_parser(), sys.argv[1:] if argv is None else argv)
    check_combinations(args)

    from exporting.exportable import exportable_of
    from exporting.onnx_file import item_beside, weights_beside
    from exporting.tensors import write_tensors
    from exporting.to_onnx import require_onnx, write_onnx
    from nets.adapter_file import name_base
    from nets.user_model import load_user_model
    from runtime.checkpoint import load_checkpoint, require_parts
    from runtime.logs import print_result
    from runtime.program import program
    from runtime.run_folder import find_result

    with program("cpu", args.quiet) as (processes, console):
        if not processes.is_first:
            return 0
        if args.onnx:
            require_onnx()
        checkpoint = load_checkpoint(find_result(args.checkpoint))
        require_parts(checkpoint, {"model": (), "state": ("model",), "data": ()})
        if args.encoder_weights:
            name_base(checkpoint, args.encoder_weights)
        width, height = args.window if isinstance(args.window, tuple) else (args.window, args.window)
        exportable = exportable_of(
            checkpoint, size=args.window and (height, width), free=args.any_size, limit=args.max_detections,
            user_model=args.model and load_user_model(args.model))
        console.say(f"{checkpoint['path']}: {exportable.title}, {exportable.count:,} weights")
        if args.onnx and (beside := getattr(exportable.module, "network", None)) and getattr(beside, "coordinates", ()):
            console.warn(f"an .onnx takes no {' and '.join(beside.coordinates)}, with which the network was trained: its maps are others")
        if args.safetensors:
            write_tensors(exportable, args.safetensors, args.overwrite)
            print_result(f"wrote {args.safetensors}: model.safetensors and config.json")
        if args.onnx:
            console.say("exporting, which takes from ten seconds to minutes")
            parity = write_onnx(exportable, args.onnx, args.overwrite)
            beside = weights_beside(args.onnx)
            more = f", {beside}" if beside.exists() else ""
            print_result(f"{args.onnx}: {parity}", f"wrote {args.onnx}{more} and {item_beside(args.onnx)}")
    return 0


def check_combinations(args):
    """Flags that can't go together are errors before anything heavy is imported."""
    if not args.onnx and not args.safetensors:
        raise UserError("nothing to write; pass --onnx FILE.onnx or --safetensors FOLDER")
    if args.onnx and not args.onnx.lower().endswith(".onnx"):
        raise UserError(f"--onnx {args.onnx}: expected a name that ends with .onnx")
    if args.any_size and args.window:
        raise UserError("--any-size and --window contradict each other; pass one of them")
    if not args.onnx and (args.any_size or args.window or args.max_detections):
        raise UserError("--window, --any-size and --max-detections are for --onnx; pass it too, or leave them out")


if __name__ == "__main__":
    run_program(main, Advice(memory="export on a machine with more memory"))
