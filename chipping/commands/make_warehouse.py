"""chip.py make-warehouse: frames with boxes → memory-mapped arrays of one size, for the small detectors."""

import argparse
import shlex

from chipping.commands.shared_flags import count_workers
from runtime.errors import UserError
from runtime.values import names, number, refused, size, whole

# What --help shows.
FIRST_FLAGS = ("--runs", "--images", "--annotations", "--output-root", "--target-size", "--resize-mode", "--max-boxes", "--skip-empty",
               "--val-ratio", "--workers", "--config")


def limit(text):
    """`12` as a number of frames, `5%` as a share."""
    share = text.endswith("%")
    try:
        value = float(text[:-1]) / 100 if share else int(text)
    except ValueError:
        value = -1
    if not 0 <= value or share and value > 1:
        raise refused(text, "a number of frames such as 12, or a share such as 5%")
    return value


def add_arguments(parser):
    source = parser.add_argument_group("frames and their boxes: capture runs, or images with annotations")
    source.add_argument("--runs", "--input-root", nargs="+", metavar="DIR", help="capture runs: folders that hold run_…/, or runs")
    source.add_argument("--images", metavar="DIR", help="folder of images: PNG, JPEG …")
    source.add_argument("--annotations", metavar="FILE", help="COCO JSON, folder of VOC, CSV, or folder of masks named alike")
    source.add_argument("--classes", type=names, metavar="NAMES", help="names of the classes: for class_id 0, 1 … of runs, or those wanted")
    source.add_argument("--label-map", metavar="NAME=CLASS,…", help="rename classes, or NAME=drop: unknown=drop,Dead=Tree")
    tensors = parser.add_argument_group("samples")
    tensors.add_argument("--target-size", type=size, default="384x384", metavar="WxH", help="of the network's input, width first")
    tensors.add_argument("--resize-mode", choices=("letterbox", "force"), default="letterbox",
                         help="letterbox: the shape is kept, black bars around; force: stretched")
    tensors.add_argument("--max-boxes", type=whole(1, 1024), default=16, metavar="N",
                         help="slots for boxes; of more the largest are kept, the rest is counted")
    tensors.add_argument("--skip-empty", action=argparse.BooleanOptionalAction, default=False,
                         help="leave out frames without boxes; kept by default, since a detector learns the background from them")
    tensors.add_argument("--shard-samples", type=whole(1, 1 << 20), default=1024, metavar="N", help="samples of a file")
    split = parser.add_argument_group("validation")
    split.add_argument("--val-ratio", type=number(0, 0.9), default=0.2, metavar="SHARE",
                       help="of the samples, in whole runs; of a single run its last part")
    split.add_argument("--split-seed", type=whole(0), default=42, help="of the choice of runs")
    limits = parser.add_argument_group("limits: more than this, a number or a share such as 5%, is an error, and nothing is written")
    limits.add_argument("--max-invalid", type=limit, metavar="N", help="frames with wrong labels or unreadable images")
    limits.add_argument("--max-missing", type=limit, metavar="N", help="frames without their image")
    limits.add_argument("--max-empty", type=limit, metavar="N", help="frames without boxes")
    run = parser.add_argument_group("the run")
    run.add_argument("--output-root", default="artifacts/tensor_warehouse", metavar="DIR", help="where versions go")
    run.add_argument("--workers", "--num-workers", type=whole(1), default=1, metavar="N",
                     help="processes; the result is the same for any number")
    run.add_argument("--strict", action="store_true", help="stop where a frame cannot be used, instead of counting it")


def run(args, console):
    if bool(args.runs) == bool(args.images) or bool(args.images) != bool(args.annotations):
        raise UserError("make-warehouse needs --runs (capture runs), or --images and --annotations (their boxes)")
    if args.runs and args.label_map:
        raise UserError("--label-map is about annotations with names; for capture runs pass --classes")
    from runtime.workers import prepare_workers

    workers = count_workers(args.workers)
    prepare_workers(["chipping.warehouse_worker"], workers)  # they import while this process does
    from chipping.frame_sources import from_images, from_runs
    from chipping.make_warehouse import WarehouseOptions, make_warehouse

    limits = {"invalid": args.max_invalid, "missing": args.max_missing, "empty": args.max_empty}
    limits |= {"invalid": 0, "missing": 0} if args.strict else {}
    options = WarehouseOptions(
        target_size=args.target_size, resize_mode=args.resize_mode, max_boxes=args.max_boxes, shard_samples=args.shard_samples,
        skip_empty=args.skip_empty, val_ratio=args.val_ratio, split_seed=args.split_seed, limits=limits,
    )
    if args.runs:
        source = from_runs(args.runs, args.classes, console.warn, console.note)
    else:
        source = from_images(args.images, args.annotations, classes=args.classes, label_map=args.label_map, strict=args.strict,
                             note=console.note)
    with console.progress(0, "frames") as bar:
        warehouse, there = make_warehouse(
            args.output_root, source, options, workers=workers, note=console.note, warn=console.warn, progress=bar.update,
            starting=bar.reset,
        )
    say_summary(warehouse, there, console)


def say_summary(warehouse, there, console):
    """What was made and left out, and the command that comes next."""
    from chipping.warehouse_counts import in_words
    from runtime.words import plural

    manifest = warehouse.manifest
    split, totals = manifest["split"], manifest["summary"]["totals"]
    wide, tall = warehouse.target_size
    if split["unit"] == "last part":
        console.warn("there is one run only: its last part is for validation, and neighbouring frames are much alike; add a run for an "
                     "honest score")
    if not split["samples"]["train"] or not split["samples"]["val"]:
        console.warn("no sample is for validation: a training will have no score; add runs, or pass --val-ratio")
    sizes = {}
    for sample in warehouse.samples:
        sizes.setdefault(sample.run, set()).add(sample.src_size)
    if mixed := [run for run, found in sizes.items() if len(found) > 1]:
        named = ", ".join(f"{w}×{h}" for w, h in sorted(sizes[mixed[0]])[:3])
        console.note(f"{plural(len(mixed), 'run')} with frames of several sizes, first {mixed[0]} ({named}); each is mapped by its own")
    for entry in manifest["skipped"][:3]:
        console.note(f"{entry['id']} is left out, {entry['reason']}: {entry['detail']}")
    if len(manifest["skipped"]) > 3:
        console.note(f"{len(manifest['skipped']) - 3} more are left out; manifest.json lists them")
    console.result(in_words(totals))
    console.result(f"{plural(len(warehouse), 'sample')} of {wide}×{tall}, {totals['boxes']} boxes ({', '.join(warehouse.classes)}), "
                   f"{totals['stored_empty']} without; {split['samples']['train']} for training, {split['samples']['val']} for validation")
    console.result(f"{'there already' if there else 'made'}: {warehouse.folder}")
    console.result(f"next: python train_detection.py --manifest {shlex.quote(str(warehouse.folder / 'manifest.json'))}")
