"""
Any checkpoint on any raster, of any size: scenes in, maps, polygons, objects, hectares and pictures out.

    python inference.py --checkpoint output/checkpoints/final_model.pt scene.tif --output-dir maps
    python inference.py --checkpoint final_model.pt scenes/ 's3://bucket/run/*.tif' https://example.org/scene.tif --output-dir maps
    python inference.py --checkpoint seed0.pt seed1.pt seed2.pt scene.tif --output-dir maps --report
    python inference.py --checkpoint final_model.pt scene.tif --aoi area.geojson --tta --probabilities
    python inference.py --checkpoint final_model.pt                # the test scenes of the patches that the checkpoint was trained on
    python inference.py --checkpoint final_model.pt safe/S2B_MSIL2A_20220205T101211_N0400_R022_T32TQM_20220205T120000.SAFE
    python inference.py --checkpoint final_model.pt items.json --allow-network     # scenes of a STAC search, on the servers it names
    torchrun --nproc-per-node 2 inference.py --checkpoint final_model.pt scenes/ --output-dir maps
    python inference.py --checkpoint sessions/latest.pt --pan PAN.tif --ms MS.tif --output-dir maps --divide-by 10000   # sharpen
    python inference.py --method gsa --pan 'pan/*.tif' --ms 'ms/*.tif' --output-dir maps --rgb --divide-by 10000
    python inference.py --checkpoint best_model.pt survey/*.tif --output-dir found                      # objects, docs/detection.md
    python inference.py --checkpoint checkpoints/bigdet.bin frames/ --output-dir seen                   # frames, docs/small-detectors.md
    python inference.py --checkpoint best_model.onnx scene.tif --output-dir maps                        # in ONNX Runtime, docs/export.md

For each scene, in the output folder (docs/maps.md tells how to read them):

    <scene>_classes.tif      the class of each pixel, 255 where nothing is known; Cloud Optimized GeoTIFF on the scene's own grid
    <scene>_probability.tif  how likely a pixel burns (is water …), with --probabilities
    <scene>_uncertainty.tif  of several --checkpoint: how far their networks are apart
    <scene>_burned.geojson   outlines in lon/lat with class, hectares and mean probability (_water, of several classes _outlines); or .gpkg
    <scene>_classes.qml      its style in QGIS: names and colours of the classes, what is not mapped transparent
    <scene>_preview.png      the scene beside its map
    report.html              with --report: scenes, maps, probabilities and hectares on one page that can be sent to anyone
    summary.json, .csv       hectares a class, valid share, burned (water …) share, for all scenes of the folder
    <scene>.stac.json        with --stac: a STAC item of the map, with its files, classes and the scene that it was made from
    <scene>_values.tif       from a regression: its values, float32, NaN where nothing is known
    <scene>_tiles.geojson    from a classification: the labels of tiles; those of the whole scene are in summary.json
    <scene>_sharpened.tif    from --pan and --ms: the bands of ms at the resolution of pan, or an sRGB picture with --rgb
    <scene>_sharpened_pair.png      a piece of it beside pan and ms; with --stac <scene>_sharpened.stac.json

    <image>_boxes.geojson    from a detector: objects in lon/lat with class and score; _boxes.gpkg with --vectors gpkg
    <image>_boxes.png        the image with their boxes; with --stac <image>_boxes.stac.json
    results.json, counts.csv COCO results in pixels, and how many of each class in each image of the folder

    <frame>_boxes.png, .json from TinyDet or BigDet: the frame with its objects, and their boxes in pixels
    view.html                all frames with their boxes, and a slider for the score (docs/small-detectors.md)

A run that was killed resumes when the same command is started again, and ends with the same bytes.
"""

if __name__ == "__main__":
    from runtime.stop_signals import catch_stop_signals

    catch_stop_signals("What is finished is safe; run the same command again to continue")  # before the imports, which take a moment

import argparse
import os
import sys
from types import SimpleNamespace

from classes import classes_of_checkpoint, parse_colours
from nets.model_config import PATCH_CLASS, PATCH_LABELS, PIXEL_CLASSES, PIXEL_VALUES, TASKS, answers_labels, answers_pixels
from runtime.errors import Advice, UserError, run_program
from runtime.flags import Parser, add_common_flags, add_config_flag, parse_with_config
from runtime.network import add_network_flag, permit
from runtime.values import auto_or, dates, listed, names, number, numbers, sides_or_size, whole

# Names of further checkpoints end like this, or they are folders of a run; what else stands behind the first is a scene.
FORMS = (".pt", ".onnx", ".safetensors")
RESULTS = ("best_model.pt", "final_model.pt")

# What --help shows.
FIRST_FLAGS = ("--checkpoint", "--output-dir", "--config", "--overwrite", "--divide-by", "--offset", "--bands", "--threshold",
               "--report", "--aoi", "--pan", "--ms", "--dry-run")


def build_parser():
    parser = Parser(prog="inference.py", description=__doc__, first=FIRST_FLAGS)
    parser.add_argument("scenes", nargs="*", metavar="SCENE", help="rasters, delivered products (.SAFE, .tar, STAC items …), folders, "
                        "globs, s3:// or https:// addresses")
    parser.add_argument("-w", "--checkpoint", "--detector-weights", metavar="FILE", nargs="+",
                        help="the file that the end of a training names, the run's folder, or an .onnx or .safetensors of export.py; "
                        "of several files that map classes of pixels, the mean")
    parser.add_argument("--encoder-weights", metavar="FILE", help="published weights that the adapters of --checkpoint adapters.pt are for")
    parser.add_argument("--model", metavar="FILE.py:FUNCTION", help="where the network of a checkpoint comes from that a --model trained")
    parser.add_argument("--output-dir", default="maps", metavar="FOLDER", help="where the maps go")
    parser.add_argument("-o", "--overwrite", action="store_true", help="replace maps that exist")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and how long it would take; write nothing")
    parser.add_argument("--strict", action="store_true", help="stop at the first scene that fails or has unreadable blocks")
    add_config_flag(parser, "inference")

    group = parser.add_argument_group("input (by default as the checkpoint and the file's tags say)")
    group.add_argument("--bands", type=names, metavar="LIST", help="bands in the order of the model's: names or numbers from 1 (B02,B03; "
                       "default: those with the names of the model's)")
    group.add_argument("--divide-by", type=listed, metavar="LIST", help="reflectance = (value + offset) / divisor: one number, or one a "
                       "band (default: as the file's tags or else the checkpoint state it)")
    group.add_argument("--offset", type=listed, metavar="LIST", help="one number, or one a band (default: see --divide-by)")
    group.add_argument("--accept-scale", action="store_true", help="map a scene although its reflectance is not that of the training")
    group.add_argument("--nodata", metavar="VALUE", help="value of pixels without data, or none (default: the file's tag)")
    group.add_argument("--no-clouds", action="store_true", help="map also what a product's own cloud layer calls cloud")
    group.add_argument("--dates", type=dates, metavar="FIRST/LAST", help="only scenes taken on these days (2022-06-01/2022-08-31, "
                       "2022-06-01/..), by their metadata, tags or names; with a checkpoint of several dates the last of each place")
    group.add_argument("--aoi", metavar="FILE", help="polygons (GeoJSON, GeoPackage …): map only what they cover")

    group = parser.add_argument_group("map")
    group.add_argument("--threshold", type=number(0, 1), metavar="P", help="a pixel is burned (water …) from this probability on, 0..1 "
                       "(default: the checkpoint's, chosen on validation; without one the most likely class)")
    group.add_argument("--probabilities", nargs="?", const="uint8", choices=("uint8", "float32"), help="also write probabilities")
    group.add_argument("--report", action="store_true", help="also write report.html: pictures, map, probability and hectares of all "
                       "scenes of the run on one page")
    group.add_argument("--min-area", type=number(0), default=0.5, metavar="HA", help="leave out smaller polygons, in hectares (0: none)")
    group.add_argument("--vectors", choices=("geojson", "gpkg"), default="geojson", help="outlines or boxes as GeoJSON in lon/lat, "
                       "or as a GeoPackage in the scene's CRS")
    group.add_argument("--stac", action="store_true", help="also write a STAC item that names scene, place, date, classes and files")
    group.add_argument("--index-check", nargs="?", const=0.1, type=auto_or(number(0, 1)), metavar="SHARE", help="leave out areas of which "
                       "fewer pixels than this share (default: 0.1; 0: off) are beyond the training scenes' threshold on NBR (MNDWI of "
                       "water …); auto: where the checkpoint has one")
    group.add_argument("--simplify", type=number(0), default=0.0, metavar="METRES", help="outlines with fewer corners: borders move by "
                       "about so much, and neighbours keep theirs in common (0: along the pixels)")
    group.add_argument("--class-colours", type=parse_colours, metavar="LIST",
                       help="colours of the classes: water=#1f77b4,forest=#006400 (default: the checkpoint's, or by their names)")
    group.add_argument("--tta", action=argparse.BooleanOptionalAction, help="mean over the eight flips and turns: eight times the work, a "
                       "little better (default: off; of objects, as the checkpoint says)")

    group = parser.add_argument_group("objects (by default as the checkpoint says)")
    group.add_argument("--score-threshold", type=number(0, 1), metavar="S", help="lowest score of a detection (default: the one chosen on "
                       "validation, or that of the training's --threshold)")
    group.add_argument("--iou-threshold", type=number(0, 1), metavar="IOU", help="boxes of one class that overlap more are one object")
    group.add_argument("--max-detections", type=whole(1), metavar="N", help="in a tile; tiles that reach it are counted and told")

    group = parser.add_argument_group("sharpening: pan and ms in place of scenes")
    group.add_argument("--pan", nargs="+", metavar="PATTERN", help="panchromatic rasters")
    group.add_argument("--ms", nargs="+", metavar="PATTERN", help="multispectral rasters whose names differ only in pan and ms")
    group.add_argument("--method", choices=("bicubic", "brovey", "gsa", "mtf-glp-hpm"), help="a classical method in place of --checkpoint")
    group.add_argument("--rgb", action="store_true", help="16-bit sRGB in place of the bands")
    group.add_argument("--no-back-projection", action="store_true", help="leave out the last step, which adds what the sharpened bands, "
                       "reduced to the grid of ms, lack of ms")
    group.add_argument("--match-inputs", choices=("auto", "yes", "no"), default="auto", help="bring pan and ms to the mean and contrast of "
                       "the network's training, and its bands back; auto: where they are unlike")
    group.add_argument("--shift", type=numbers(2, "0.5,0.5"), default="0,0", metavar="X,Y", help="pan pixels from where the files say ms "
                       "begins to where it does")
    group.add_argument("-a", "--apron", type=whole(0, 4096), metavar="PIXELS", help="pan pixels around a block that are read with it, "
                       "rounded up to whole ms pixels (default: as far as the network or method looks)")

    group = parser.add_argument_group("speed")
    group.add_argument("-b", "--window", "--block-side", "--tile-size", type=sides_or_size, metavar="PIXELS",
                       help="side of the windows, of a detector also WIDTHxHEIGHT (default: the patches or tiles of the training), or "
                       "128,192: the mean over several sizes; in sharpening pan pixels of a block without its apron (default: 512)")
    group.add_argument("--overlap", type=number(0, 0.9), help="share of a window that the next one covers too, 0..0.9 (default: 0.25; "
                       "of a detector as its training tiles)")
    group.add_argument("--batch-size", type=whole(1, 4096), default=8, help="windows at once; more need more memory")
    group.add_argument("-d", "--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    group.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32", help="of the network's layers")
    group.add_argument("--threads", "--workers", type=whole(0, 1024), default=0, metavar="N", help="CPU threads for the network "
                       "(0: PyTorch's own choice)")
    group.add_argument("--channels-last", action="store_true", help="memory layout that suits convolutions on GPUs")
    group.add_argument("--compile", action="store_true", help="torch.compile: slow to start, faster for many windows")
    add_network_flag(parser)
    add_common_flags(parser)
    return parser


def main(argv=None):
    args, given = parse_with_config(build_parser(), sys.argv[1:] if argv is None else argv)
    given -= {"index_check"} if args.index_check == "auto" else set()  # it asks for nothing where there is no such check
    further = take_checkpoints(args)
    check_combinations(args)
    permit(vars(args).values(), args.allow_network)
    if args.method:
        if "match_inputs" in given:
            raise UserError("--match-inputs is for networks: a classical method fits pan to the bands by itself; leave it out")
        refuse_oblong(args.window)
        refuse_several(args.window)
        return sharpen(args, given, None)

    from runtime.checkpoint import require_parts

    checkpoint = load(args.checkpoint, args, given)
    kinds = {**dict.fromkeys(TASKS, OF_TASKS), **KINDS}
    if checkpoint["kind"] not in kinds:
        raise UserError(f"{args.checkpoint} is a {checkpoint['kind']} checkpoint; inference.py knows {', '.join(kinds)}")
    for of_kinds, (flags, words) in ONLY_FOR.items():
        if checkpoint["kind"] not in of_kinds and given & flags:
            raise UserError(f"{words}; {args.checkpoint} is a {checkpoint['kind']} checkpoint")
    make_maps, needed = kinds[checkpoint["kind"]]
    require_parts(checkpoint, {"model": (), "state": ("model",), "data": needed})
    if checkpoint["kind"] != "detection":
        refuse_oblong(args.window)
    if checkpoint["kind"] not in TASKS or not answers_pixels(checkpoint["kind"]):
        refuse_several(args.window)
    if further:
        from mapping.ensemble import require_alike

        checkpoint["further"] = [load(path, args, given) for path in further]
        for other in checkpoint["further"]:
            require_parts(other, {"model": (), "state": ("model",), "data": needed if other["kind"] == checkpoint["kind"] else ()})
            require_alike(checkpoint, other)
    if args.encoder_weights:
        from nets.adapter_file import name_base

        members = [checkpoint, *checkpoint.get("further", ())]
        for member in [one for one in members if "base" in one] or members[:1]:
            name_base(member, args.encoder_weights)
    return make_maps(args, given, checkpoint)


def take_checkpoints(args):
    """Leaves one path in args.checkpoint, and scenes that were written after it among the scenes. → paths of further checkpoints."""
    if not args.checkpoint:
        return []
    first, *rest = args.checkpoint
    further = [path for path in rest if path.lower().endswith(FORMS) or is_run(path)]
    args.checkpoint, args.scenes = first, [*(path for path in rest if path not in further), *args.scenes]
    return further


def is_run(path):
    """Whether a path is the folder of a run, which runtime.run_folder.find_result takes; that is not imported yet."""
    return any(os.path.isfile(os.path.join(path, *place, name)) for place in ((), ("checkpoints",)) for name in RESULTS)


def load(path, args, given):
    """The dict of a --checkpoint; of an .onnx with its "network"."""
    from runtime.checkpoint import load_checkpoint
    from runtime.run_folder import find_result

    path = find_result(path)
    if path.suffix == ".safetensors":
        from exporting.tensors import load_tensors_folder

        return load_tensors_folder(path)
    if path.suffix != ".onnx":
        return load_checkpoint(path)
    if foreign := sorted(given & NOT_FOR_ONNX):
        raise UserError(f"--{foreign[0].replace('_', '-')} is for networks in PyTorch, not for an .onnx; leave it out")

    from exporting.onnx_reader import load_onnx

    take_threads(args)
    return load_onnx(path, args.device)


def window_of(args, checkpoint, usual):
    """
    The side of windows, or a list of several: --window, or `usual`. Of an .onnx (width, height), those that it takes, unless it takes any.

    UserError where --window asks for others than an .onnx takes.
    """
    if "network" not in checkpoint:
        return args.window or usual
    fixed, multiple = checkpoint["window"], checkpoint["multiple"]
    if isinstance(args.window, list):
        return [square(window_of(SimpleNamespace(window=side), checkpoint, usual), checkpoint) for side in args.window]
    asked = args.window or fixed or usual
    sides = tuple(asked) if isinstance(asked, (tuple, list)) else (asked, asked)
    wrong = sides != tuple(fixed) if fixed else any(side % multiple for side in sides)
    if wrong:
        takes = " x ".join(map(str, fixed)) if fixed else f"multiples of {multiple}"
        raise UserError(f"{checkpoint['path']} takes windows of {takes} pixels, got {' x '.join(map(str, sides))}; pass another --window")
    return sides


def take_threads(args):
    """Set the number of CPU threads, of PyTorch and of ONNX Runtime."""
    import torch

    if args.threads:
        torch.set_num_threads(args.threads)


def check_combinations(args):
    """Flags that can't go together are errors before anything heavy is imported."""
    if args.checkpoint and args.method:
        raise UserError(f"--checkpoint and --method {args.method} are two ways to sharpen; pass one of them")
    if not args.checkpoint and not args.method:
        raise UserError("--checkpoint FILE says what to map with; pass it (or, with --pan and --ms, --method)")
    if "://" in args.output_dir:
        raise UserError(f"--output-dir {args.output_dir}: maps are written to a local folder; copy them afterwards")


def refuse_oblong(window):
    """UserError for a --window of width and height, which only detectors take."""
    if isinstance(window, tuple):
        raise UserError(f"--window {window[0]}x{window[1]}: only the windows of detectors may be oblong; pass one number")


def refuse_several(window):
    """UserError for a --window of several sizes, which only maps of pixels are the mean of."""
    if isinstance(window, list):
        raise UserError(f"--window {','.join(map(str, window))}: only a map of pixels is the mean over several sizes; pass one number")


def map_scenes(args, given, checkpoint):
    """Maps of classes, values or labels of tiles, as the checkpoint's task has it. Returns the exit code."""
    task = checkpoint["kind"]
    if foreign := sorted(given & NOT_FOR_ANSWERS.get(TASKS[task], set())):
        raise UserError(f"--{foreign[0].replace('_', '-')} is for other maps, not for those of a {task}; leave it out")

    import datetime

    from mapping.ensemble import common_data, common_threshold, windows_words
    from mapping.index_check import check_of
    from mapping.inputs import InputFlags
    from mapping.many_scenes import MapRun, map_all
    from mapping.messages import decision_words
    from mapping.settings import MapSettings
    from model import model_from_checkpoint
    from nets.user_model import load_user_model
    from runtime.program import program

    members = [checkpoint, *checkpoint.get("further", ())]
    data = common_data(members)
    classes = classes_of_checkpoint(data, args.class_colours)
    if args.threshold is not None and not classes.has_background and not answers_labels(task):
        raise UserError(f"--threshold tells one class from the rest, but the checkpoint maps {', '.join(classes.names)}; leave it out")
    thresholds = [classes.threshold(member["data"].get("threshold")) for member in members]
    chosen = {PIXEL_CLASSES: thresholds[0], PATCH_LABELS: 0.5}.get(TASKS[task])
    if len(members) > 1 and args.threshold is None:
        chosen = common_threshold(thresholds)
    shown_only = args.report and TASKS[task] == PIXEL_CLASSES and not args.probabilities
    overlap = (0.25 if answers_pixels(task) else 0.0) if args.overlap is None else args.overlap
    asked = window_of(args, checkpoint, data["chip_size"] or 256)
    window, *further = asked if isinstance(asked, list) else [square(asked, checkpoint)]
    check = check_of(members, args.index_check)
    settings = MapSettings(
        window=window, further_windows=tuple(further), overlap=overlap, tta=bool(args.tta),
        precision=args.precision, task=task,
        threshold=args.threshold if args.threshold is not None else chosen,
        probabilities=args.probabilities or ("uint8" if shown_only else None), min_area=args.min_area, aoi=args.aoi,
        strict=args.strict, vectors=args.vectors, simplify=args.simplify, stac=args.stac,
        networks=len(members), index_check=check,
    )
    flags = InputFlags.of_text(len(data["bands"]), args.bands, args.divide_by, args.offset, args.nodata, args.accept_scale,
                               not args.no_clouds)
    # Processes only meet at the end, when the slowest has mapped its last scene: days of patience, and no GPU for the meeting.
    with program("cpu", args.quiet, patience=datetime.timedelta(days=30)) as (processes, console):
        own = args.model and load_user_model(args.model)
        users = [member for member in members if member["model"].get("user_model")] or members[:1]
        networks = [member.get("network") or model_from_checkpoint(member, own if member in users else None) for member in members]
        run = MapRun(
            network=networks[0], further=tuple(networks[1:]), data=data, flags=flags, settings=settings,
            compute=choose_compute(args, processes.local_rank, checkpoint), batch_size=args.batch_size, output_dir=args.output_dir,
            colours=classes.given, dates=args.dates, overwrite=args.overwrite, dry_run=args.dry_run, quiet=args.quiet,
            report=args.report, shown_only=shown_only, threshold_given=args.threshold is not None,
        )
        paths = ", ".join(str(member["path"]) for member in members)
        if (words := windows_words(members)) and not args.window:
            console.warn(words)
        if args.index_check == "auto" and TASKS[task] == PIXEL_CLASSES and check is None:
            console.say(f"{paths}: no threshold on an index is known, so areas are not checked by one")
        console.say(f"{paths}: {decision_words(settings.threshold, args.threshold is not None, data['classes'], task)}")
        return map_all(run, args.scenes, processes, console)


def square(window, checkpoint):
    """The side of a square window of window_of. UserError for an .onnx with others."""
    sides = set(window) if isinstance(window, tuple) else {window}
    if len(sides) > 1:
        raise UserError(f"{checkpoint['path']} takes windows of {' x '.join(map(str, window))}, and maps are made of square ones; "
                        "export it again")
    return sides.pop()


# Flags of some kinds of checkpoints alone.
ONLY_FOR = {
    ("pansharpen",): ({"pan", "ms", "rgb", "shift", "apron", "no_back_projection", "match_inputs"},
                      "--pan, --ms, --rgb, --shift, --apron, --match-inputs and --no-back-projection are for sharpening"),
    ("detection", "small-detection"): ({"score_threshold", "iou_threshold", "max_detections"},
                                       "--score-threshold, --iou-threshold and --max-detections are for detectors"),
}
# Of maps that are not of classes of pixels.
NOT_FOR_ANSWERS = {
    PIXEL_VALUES: {"threshold", "index_check", "probabilities", "min_area", "simplify", "vectors", "class_colours"},
    PATCH_CLASS: {"threshold", "index_check", "probabilities", "min_area", "simplify", "report"},
    PATCH_LABELS: {"index_check", "probabilities", "min_area", "simplify", "report"},
}
NOT_FOR_SHARPENING = {"report", "aoi", "no_clouds", "threshold", "probabilities", "min_area", "simplify", "tta", "overlap", "nodata",
                      "compile", "batch_size", "vectors", "class_colours", "score_threshold", "iou_threshold", "max_detections", "model",
                      "encoder_weights", "dates", "index_check"}
NOT_FOR_ONNX = {"precision", "compile", "channels_last", "model"}
NOT_FOR_DETECTION = {"report", "no_clouds", "threshold", "probabilities", "min_area", "simplify", "compile", "model", "index_check"}
NOT_FOR_FRAMES = NOT_FOR_DETECTION | {"bands", "divide_by", "offset", "accept_scale", "nodata", "aoi", "vectors", "window", "overlap",
                                      "max_detections", "class_colours", "dates", "stac", "tta"}


def find_objects(args, given, checkpoint):
    """Boxes around objects from a detection checkpoint. Returns the exit code."""
    if foreign := sorted(given & NOT_FOR_DETECTION):
        raise UserError(f"--{foreign[0].replace('_', '-')} is for maps of classes, not for detectors; leave it out")

    import datetime

    from detection import detectors
    from detection.detections import CENTRE, score_of, tta_of
    from detection.image_map import FindSettings
    from detection.maps import FindRun, find_all
    from mapping.inputs import InputFlags
    from runtime.program import program

    def told(flag, name, usual):
        return next(value for value in (flag, checkpoint["data"].get(name), usual) if value is not None)

    data = checkpoint["data"]
    trained = tuple(data["chip_size"])
    window = window_of(args, checkpoint, trained)
    window = window if isinstance(window, tuple) else (window, window)
    shares = [args.overlap] * 2 if args.overlap is not None else [data.get("overlap", 0.25 * min(trained)) / side for side in trained]
    stride = tuple(max(1, round(side * (1 - share))) for side, share in zip(window, shares, strict=True))
    detector = checkpoint.get("network") or detectors.detector_from_checkpoint(checkpoint)
    able = detector.config.framework == CENTRE and "network" not in checkpoint
    tta, doubt = tta_of(data, args.tta, able, stated=args.score_threshold is not None)
    settings = FindSettings(
        window=window, stride=stride, score_threshold=score_of(data) if args.score_threshold is None else args.score_threshold,
        iou=told(args.iou_threshold, "iou_threshold", 0.5), limit=told(args.max_detections, "max_detections", 300), aoi=args.aoi,
        strict=args.strict, vectors=args.vectors, precision=args.precision, stac=args.stac, tta=tta,
    )
    flags = InputFlags.of_text(len(data["bands"]), args.bands, args.divide_by, args.offset, args.nodata, args.accept_scale,
                               clouds=False)
    with program("cpu", args.quiet, patience=datetime.timedelta(days=30)) as (processes, console):
        if doubt:
            console.warn(doubt)
        if tta and args.tta is None:
            console.say("eight flips and turns of each tile, as in the training's validation; --no-tta leaves them out")
        run = FindRun(
            detector=detector, data=data, flags=flags, settings=settings,
            compute=choose_compute(args, processes.local_rank, checkpoint), batch_size=args.batch_size, output_dir=args.output_dir,
            colours=classes_of_checkpoint(data, args.class_colours).given, dates=args.dates, overwrite=args.overwrite,
            dry_run=args.dry_run, quiet=args.quiet,
        )
        return find_all(run, args.scenes, processes, console)


def find_in_frames(args, given, checkpoint):
    """Boxes around the objects of frames, from a checkpoint of TinyDet or BigDet. Returns the exit code."""
    if foreign := sorted(given & NOT_FOR_FRAMES):
        raise UserError(f"--{foreign[0].replace('_', '-')} is for other maps, not for the frames of small detectors; leave it out")

    import dataclasses
    import datetime

    from detection import frame_maps
    from detection.small_detectors import small_detector_from_checkpoint
    from runtime.program import program

    with program("cpu", args.quiet, patience=datetime.timedelta(days=30)) as (processes, console):
        run = frame_maps.FrameRun(
            detector=checkpoint.get("network") or small_detector_from_checkpoint(checkpoint), data=checkpoint["data"],
            score_threshold=0.3 if args.score_threshold is None else args.score_threshold,
            iou=0.5 if args.iou_threshold is None else args.iou_threshold,
            compute=dataclasses.replace(choose_compute(args, processes.local_rank, checkpoint), channels_last=True),
            batch_size=args.batch_size, output_dir=args.output_dir, overwrite=args.overwrite, strict=args.strict, dry_run=args.dry_run,
        )
        return frame_maps.find_in_frames(run, args.scenes, processes, console)


def sharpen(args, given, checkpoint):
    """Sharpened rasters from --pan and --ms, with a checkpoint or, where it is None, with --method. Returns the exit code."""
    if not args.pan or not args.ms or args.scenes:
        raise UserError("sharpening takes its rasters as --pan and --ms, and no others")
    if foreign := sorted(given & NOT_FOR_SHARPENING):
        raise UserError(f"--{foreign[0].replace('_', '-')} is for other maps, not for sharpening; leave it out")

    from pansharpening.sharpen import SharpenRun, sharpen_all
    from runtime.program import program

    with program("cpu", args.quiet) as (processes, console):
        run = SharpenRun(
            checkpoint=checkpoint, method=args.method, compute=choose_compute(args, processes.local_rank, checkpoint),
            output_dir=args.output_dir, bands=args.bands, divide_by=args.divide_by, offset=args.offset, accept_scale=args.accept_scale,
            shift=args.shift, rgb=args.rgb, back_projection=not args.no_back_projection, match_inputs=args.match_inputs,
            block=args.window or 512, apron=args.apron, stac=args.stac, overwrite=args.overwrite, strict=args.strict,
            dry_run=args.dry_run, quiet=args.quiet,
        )
        return sharpen_all(run, args.pan, args.ms, processes, console)


def choose_compute(args, local_rank, checkpoint):
    """runtime.device.Compute as the flags say; also sets the number of CPU threads. Around an .onnx all is on the CPU."""
    import torch

    from runtime.device import Compute, choose_device

    take_threads(args)
    device = torch.device("cpu") if checkpoint and "network" in checkpoint else choose_device(args.device, local_rank)
    return Compute(device=device, precision=args.precision, channels_last=args.channels_last, compile=args.compile)


# One line a kind of checkpoint: what makes its maps from (args, the flags that were given, checkpoint), and what its "data" has to say.
OF_TASKS = (map_scenes, ("bands", "divide_by", "offset", "classes", "chip_size"))
KINDS = {
    "pansharpen": (sharpen, ("bands", "divide_by", "offset", "ratio", "target", "reach")),
    "detection": (find_objects, ("bands", "divide_by", "offset", "classes", "chip_size")),
    "small-detection": (find_in_frames, ("classes", "target_size")),
}


if __name__ == "__main__":
    run_program(main, Advice(memory="pass a smaller --batch-size or --window"))
