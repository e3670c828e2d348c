"""
Any checkpoint on any raster, of any size: scenes in, maps, polygons, hectares and pictures out.

    python inference.py --checkpoint output/checkpoints/best_model.pt scene.tif --output-dir maps
    python inference.py --checkpoint best_model.pt scenes/ 's3://bucket/run/*.tif' https://example.org/scene.tif --output-dir maps
    python inference.py --checkpoint best_model.pt scene.tif --aoi area.geojson --tta --probabilities
    python inference.py --checkpoint best_model.pt                # the test scenes of the patches that the checkpoint was trained on
    torchrun --nproc-per-node 2 inference.py --checkpoint best_model.pt scenes/ --output-dir maps
    python inference.py --checkpoint sessions/latest.pt --pan PAN.tif --ms MS.tif --output-dir maps     # sharpen, docs/pansharpening.md
    python inference.py --method gsa --pan 'pan/*.tif' --ms 'ms/*.tif' --output-dir maps --rgb --divide-by 10000

For each scene, in the output folder (docs/maps.md tells how to read them):

    <scene>_classes.tif      the class of each pixel, 255 where nothing is known; Cloud Optimized GeoTIFF on the scene's own grid
    <scene>_probability.tif  how likely a pixel burns, with --probabilities
    <scene>_burned.geojson   outlines in lon/lat with class, hectares and mean probability
    <scene>_preview.png      the scene beside its map
    summary.json, .csv       hectares a class, valid share, fire or not, for all scenes of the folder
    <scene>_sharpened.tif    from --pan and --ms: the bands of ms at the resolution of pan, or an sRGB picture with --rgb

A run that was killed goes on where it was when the same command is started again, and ends with the same bytes.
"""

import dataclasses
import os
import sys

from runtime.errors import Advice, RunError, UserError, run_program
from runtime.flags import Parser, add_common_flags, add_config_flag, parse_with_config


def build_parser():
    parser = Parser(prog="inference.py", description=__doc__)
    parser.add_argument("scenes", nargs="*", metavar="SCENE", help="rasters, folders, globs, s3:// or https:// addresses")
    parser.add_argument("-w", "--checkpoint", metavar="FILE", help="what a training program wrote: output/checkpoints/best_model.pt")
    parser.add_argument("--output-dir", default="maps", metavar="FOLDER", help="where the maps go")
    parser.add_argument("-o", "--overwrite", action="store_true", help="replace maps that exist")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and how long it would take; write nothing")
    parser.add_argument("--strict", action="store_true", help="stop at the first scene that fails or has unreadable blocks")
    add_config_flag(parser)

    group = parser.add_argument_group("input (by default as the checkpoint and the file's tags say)")
    group.add_argument("--bands", metavar="LIST", help="bands in the order of the model's: names or numbers from 1, as B02,B03 or 2,3")
    group.add_argument("--divide-by", metavar="LIST", help="reflectance = (value + offset) / divisor: one number, or one a band")
    group.add_argument("--offset", metavar="LIST", help="one number, or one a band")
    group.add_argument("--nodata", metavar="VALUE", help="value that means no data, or none")
    group.add_argument("--aoi", metavar="FILE", help="GeoJSON with polygons: map only what they cover")

    group = parser.add_argument_group("map")
    group.add_argument("--threshold", type=float, metavar="P", help="a pixel burns from this probability on, 0..1 (default: the "
                       "checkpoint's, chosen on validation; without one the most likely class)")
    group.add_argument("--probabilities", nargs="?", const="uint8", choices=("uint8", "float32"), help="also write the burned probability")
    group.add_argument("--min-area", type=float, default=0.5, metavar="HA", help="leave out smaller polygons, in hectares (0: none)")
    group.add_argument("--tta", action="store_true", help="mean over the eight flips and turns: eight times the work, a little better")

    group = parser.add_argument_group("sharpening: pan and ms in place of scenes")
    group.add_argument("--pan", nargs="+", metavar="PATTERN", help="panchromatic rasters")
    group.add_argument("--ms", nargs="+", metavar="PATTERN", help="multispectral rasters whose names differ only in pan and ms")
    group.add_argument("--method", choices=("bicubic", "brovey", "gsa", "mtf-glp-hpm"), help="a classical method in place of --checkpoint")
    group.add_argument("--rgb", action="store_true", help="16-bit sRGB in place of the bands")
    group.add_argument("--shift", default="0,0", metavar="X,Y", help="pan pixels from where the files say ms begins to where it does")
    group.add_argument("-a", "--apron", type=int, metavar="PIXELS", help="pan pixels around a block that are read with it, rounded up to "
                       "whole ms pixels (default: as far as the network or method sees)")

    group = parser.add_argument_group("speed")
    group.add_argument("-b", "--window", "--block-side", type=int, metavar="PIXELS", help="side of the windows (default: the patches of "
                       "the training); in sharpening pan pixels of a block without its apron (default: 512)")
    group.add_argument("--overlap", type=float, default=0.25, help="share of a window that it has in common with the next, 0..0.9")
    group.add_argument("--batch-size", type=int, default=8, help="windows at once; more need more memory")
    group.add_argument("-d", "--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    group.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32")
    group.add_argument("--threads", "--workers", type=int, default=0, metavar="N", help="CPU threads for the network (0: PyTorch's own "
                       "choice)")
    group.add_argument("--channels-last", action="store_true", help="memory layout that suits convolutions on GPUs")
    group.add_argument("--compile", action="store_true", help="torch.compile: slow to start, faster for many windows")
    add_common_flags(parser)
    return parser


def main(argv=None):
    args, given = parse_with_config(build_parser(), sys.argv[1:] if argv is None else argv)
    check_flags(args)
    if args.method:
        return sharpen(args, given, None)

    from runtime.checkpoint import load_checkpoint, require_parts

    checkpoint = load_checkpoint(args.checkpoint)
    if checkpoint["kind"] not in KINDS:
        raise UserError(f"{args.checkpoint} is a {checkpoint['kind']} checkpoint; inference.py knows {', '.join(KINDS)}")
    if checkpoint["kind"] != "pansharpen" and given & {"pan", "ms", "rgb", "shift", "apron"}:
        raise UserError(
            f"--pan, --ms, --rgb, --shift and --apron are for sharpening; {args.checkpoint} is a {checkpoint['kind']} checkpoint"
        )
    make_maps, needed = KINDS[checkpoint["kind"]]
    require_parts(checkpoint, {"model": (), "state": ("model",), "data": needed})
    return make_maps(args, given, checkpoint)


def check_flags(args):
    """Numbers that can't be right are errors before anything heavy is imported."""
    for flag, value, low, high in (
        ("--threshold", args.threshold, 0, 1), ("--overlap", args.overlap, 0, 0.9), ("--min-area", args.min_area, 0, float("inf")),
        ("--window", args.window, 8, 8192), ("--apron", args.apron, 0, 4096), ("--batch-size", args.batch_size, 1, 4096),
        ("--threads", args.threads, 0, 1024),
    ):
        if value is not None and not low <= value <= high:
            raise UserError(f"{flag} expects {'a number from 0' if high == float('inf') else f'{low:g} to {high:g}'}, got {value:g}")
    if args.checkpoint and args.method:
        raise UserError(f"--checkpoint and --method {args.method} are two ways to sharpen; pass one of them")
    if not args.checkpoint and not args.method:
        raise UserError("--checkpoint FILE says what to map with; pass it (or, with --pan and --ms, --method)")
    if "://" in args.output_dir:
        raise UserError(f"--output-dir {args.output_dir}: maps are written to a local folder; copy them afterwards (aws s3 cp --recursive)")


def map_segmentation(args, given, checkpoint):
    """Class maps from a segmentation checkpoint. Returns the exit code."""
    import datetime

    from runtime.distributed import start

    # Processes only meet at the end, when the slowest has mapped its last scene: days of patience, and no GPU for the meeting.
    with start("cpu", patience=datetime.timedelta(days=30)) as processes:
        return map_scenes(args, checkpoint, processes)


def map_scenes(args, checkpoint, processes):
    import torch

    from mapping.scene import MapSettings, fingerprint
    from mapping.summary import update_summaries
    from model import model_from_checkpoint
    from runtime.device import choose_device
    from runtime.files import require_writable
    from runtime.logs import Console, SilentConsole
    from vectors.reading import read_polygons

    console = Console(args.quiet)
    first = console if processes.is_first else SilentConsole()
    data = checkpoint["data"]
    scenes = name_scenes(args.scenes or scenes_of_checkpoint(data, first))
    settings = MapSettings(
        window=args.window or data["chip_size"] or 256, overlap=args.overlap, tta=args.tta, precision=args.precision,
        threshold=args.threshold if args.threshold is not None else data.get("threshold"), probabilities=args.probabilities,
        min_area=args.min_area, aoi=args.aoi, strict=args.strict,
    )
    refuse_inputs_as_outputs(scenes, args.output_dir, settings)
    if args.aoi:
        for remark in read_polygons([args.aoi]).remarks:
            first.warn(remark)
    if not args.dry_run:
        require_writable(args.output_dir)
    if args.threads:
        torch.set_num_threads(args.threads)
    device = choose_device(args.device, processes.local_rank)
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high" if args.precision != "fp32" else "highest")
    model = model_from_checkpoint(checkpoint)
    work = Work(args, settings, model, fingerprint(model), data, device, console)
    if args.dry_run:
        return dry_run(work, scenes) if processes.is_first else 0
    refuse_finished(work, scenes)
    records, failures = {}, {}
    for part in processes.gather(map_share(work, dict(list(scenes.items())[processes.rank :: processes.size]), len(scenes))):
        records |= part[0]
        failures |= part[1]
    if records and processes.is_first:
        update_summaries(args.output_dir)
    return conclude(records, failures, args.output_dir, processes.is_first)


# --------------------------------------------------------------------------------------------------------------- sharpening


NOT_FOR_SHARPENING = {"aoi", "threshold", "probabilities", "min_area", "tta", "overlap", "nodata", "compile", "batch_size"}


def sharpen(args, given, checkpoint):
    """Sharpened rasters from --pan and --ms, with a checkpoint or, where it is None, with --method. Returns the exit code."""
    if not args.pan or not args.ms or args.scenes:
        raise UserError("sharpening takes its rasters as --pan and --ms, and no others")
    if foreign := sorted(given & NOT_FOR_SHARPENING):
        raise UserError(f"--{foreign[0].replace('_', '-')} is for other maps, not for sharpening; leave it out")

    from runtime.distributed import start
    from runtime.files import require_writable
    from runtime.logs import Console, SilentConsole

    with start("cpu") as processes:
        console = Console(args.quiet)
        work = plan_sharpening(args, checkpoint, console if processes.is_first else SilentConsole())
        if args.dry_run:
            return 0
        require_writable(args.output_dir)
        failed = []
        for path, pair, scale in work[processes.rank :: processes.size]:
            try:
                sharpen_pair(args, checkpoint, path, pair, scale, processes.local_rank, console)
            except (UserError, RunError) as error:
                if len(work) == 1 or args.strict:
                    raise
                failed.append(path)
                console.warn(f"{pair.ms} was not sharpened: {error}")
        failed = [path for part in processes.gather(failed) for path in part]
    if processes.is_first:
        missing = f"; failed: {', '.join(failed)}" if failed else ""
        print(f"sharpened {len(work) - len(failed)} of {len(work)} into {args.output_dir}{missing}")
    return 1 if failed else 0


def plan_sharpening(args, checkpoint, console):
    """[(output path, Pair, (divide_by, offset))], all that can be known from headers checked."""
    from chipping.plain_pairs import match_paths, place_of
    from pansharpening.fuse import check_ratio, choose_form, refuse_inputs, select_bands
    from raster.pair import match_pair

    shift = tuple(parse_two(args.shift))
    given = [b.strip() for b in args.bands.split(",")] if args.bands else None
    work = {}
    for pan, ms in match_paths(args.pan, args.ms):
        pair = match_pair(pan, ms, shift)
        if checkpoint:
            check_ratio(checkpoint, pair)
        pair, how = select_bands(pair, checkpoint and checkpoint["data"]["bands"], given)
        scale, why = scale_for_sharpening(args, checkpoint, pair)
        path = os.path.join(args.output_dir, f"{place_of(ms)}_sharpened.tif")
        if path in work:
            raise UserError(f"{work[path][0].ms} and {ms} would both become {path}; sharpen them into different --output-dir")
        refuse_inputs(pair, path)
        target = checkpoint["data"]["target"] if checkpoint else "bands"
        form = choose_form(pair, target, args.rgb, scale)
        for remark in pair.remarks:
            console.say(remark)
        size, of_pan = (" × ".join(map(str, sides)) for sides in sizes(pair))
        formula = f"reflectance = (value + {scale[1]:g}) / {scale[0]:g} {why}"
        console.say(f"{path}: {size}, {len(form.descriptions)} {form.dtype} bands; {formula}")
        console.say(f"{path}: bands of ms {how}: {', '.join(numbered(pair))}")
        if size != of_pan:
            console.say(f"{path}: {size} of pan's {of_pan} pixels; there is no whole ms pixel under the others")
        work[path] = pair, scale
    return [(path, *pair_and_scale) for path, pair_and_scale in work.items()]


def numbered(pair):
    """`1 blue`, `2 green`, …: the bands of ms that are read, with their numbers in the file."""
    return [f"{i} {name}" for i, name in zip(pair.indexes or range(1, len(pair.bands) + 1), pair.bands, strict=True)]


def sizes(pair):
    """((width, height) of the map, (width, height) of pan)."""
    from raster.source import describe

    pan = describe(pair.pan)
    return [side * pair.ratio for side in pair.area[2:]], [pan.width, pan.height]


def parse_two(text):
    try:
        x, y = (float(word) for word in text.split(","))
    except ValueError:
        x = y = float("nan")
    if x - x != 0 or y - y != 0:  # NaN or infinite
        raise UserError(f"--shift expects two finite numbers such as 0.5,0.5, got {text!r}")
    return x, y


def scale_for_sharpening(args, checkpoint, pair):
    """((divide_by, offset), where it comes from): flags, the file's tags, the checkpoint; for classical methods values as they are."""
    from chipping.plain_pairs import bands_of, compare_tags, scale_of_pair
    from raster.scale import scale_from_tags

    if not args.divide_by:
        compare_tags(pair, args.offset is not None)
    if args.divide_by or scale_from_tags(*bands_of(pair)):
        return scale_of_pair(pair, args.divide_by, args.offset), "as the flags say" if args.divide_by else "as the file's tags say"
    if checkpoint:
        data = checkpoint["data"]
        offset = data["offset"] if args.offset is None else args.offset
        return scale_of_pair(pair, data["divide_by"], offset), "as for the checkpoint's chips"
    if args.rgb or args.offset is not None:  # neither can do without a divisor: an error that says so
        return scale_of_pair(pair, None, args.offset), ""
    return (1.0, 0.0), "since classical methods don't mind"


def sharpen_pair(args, checkpoint, path, pair, scale, local_rank, console):
    import torch

    from pansharpening.fuse import classical_sharpener, fuse, is_done, network_sharpener
    from raster.writer import scratch_of
    from runtime.device import choose_device
    from runtime.files import clear_scratch

    if args.threads:
        torch.set_num_threads(args.threads)
    block = args.window or 512
    apron = None if args.apron is None else -(-args.apron // pair.ratio) * pair.ratio
    if checkpoint:
        sharpener = network_sharpener(checkpoint, choose_device(args.device, local_rank), args.precision, args.channels_last)
    else:
        sharpener = classical_sharpener(args.method, pair, scale, block)
    if not args.overwrite and is_done(path, pair, sharpener, scale, args.rgb, apron):
        clear_scratch(scratch_of(path))  # of a run that was killed when the raster had just got its name
        console.say(f"{path} is sharpened already")
        return
    if apron is not None and apron < sharpener.reach:
        console.say(f"{path}: an apron of {apron} pixels is less than the {sharpener.reach} that {sharpener.name} sees; blocks may show")
    across, down = (-(-side * pair.ratio // block) for side in pair.area[2:])
    bar = console.progress(across * down, os.path.basename(path))
    found = fuse(pair, path, sharpener, scale, rgb=args.rgb, block=block, apron=apron, overwrite=args.overwrite, progress=bar.update)
    bar.close()
    console.say(f"  {path}: {100 * found['valid_fraction']:.1f} % valid")


# One line a kind of checkpoint: what makes its maps from (args, the flags that were given, checkpoint), and what its "data" has to say.
KINDS = {
    "segmentation": (map_segmentation, ("bands", "divide_by", "offset", "classes", "chip_size")),
    "pansharpen": (sharpen, ("bands", "divide_by", "offset", "ratio", "target", "reach")),
}


@dataclasses.dataclass
class Work:
    """What all scenes of a run share."""

    args: object
    settings: object
    model: object
    fingerprint: str
    data: dict
    device: object
    console: object

    @property
    def training_mean(self):
        """Reflectance of the training images, one a band, or None."""
        return getattr(getattr(self.model, "config", None), "mean", None)

    def plan(self, path):
        """mapping.inputs.SceneInput of a scene: reads its header and a few small windows."""
        from mapping.inputs import plan_input
        from raster.scale import parse_numbers
        from raster.source import describe

        count = len(self.data["bands"])
        return plan_input(
            describe(path), self.data, mean=self.training_mean,
            bands=[b.strip() for b in self.args.bands.split(",")] if self.args.bands else None,
            divide_by=parse_numbers(self.args.divide_by, "--divide-by", count),
            offset=parse_numbers(self.args.offset, "--offset", count), nodata=self.args.nodata,
        )

    def predictor(self, plan):
        from mapping.segmentation import Predictor

        args = self.args
        return Predictor(
            self.model, len(self.data["classes"]), plan.scale.divide_by, plan.scale.offset, self.device, args.precision, args.tta,
            args.batch_size, args.channels_last, args.compile,
        )


# ------------------------------------------------------------------------------------------------------------- the scenes


def name_scenes(patterns):
    """{name: path} of all scenes, in the order of their paths. UserError where two would get the same output files."""
    from raster.source import list_rasters, scene_name

    scenes = {}
    for path in list_rasters(patterns):
        name = scene_name(path)
        if name in scenes:
            raise UserError(f"{scenes[name]} and {path} would both become {name}_classes.tif; map them into different --output-dir")
        scenes[name] = path
    return scenes


def scenes_of_checkpoint(data, console):
    """The scenes of the test split of the patches that a checkpoint was trained on; of the validation split where there are none."""
    from chipping.chipset import read_manifest

    folder = data.get("patches_dir")
    lines = read_manifest(folder) if folder else []
    by_split = {split: list(dict.fromkeys(line["source"]["path"] for line in lines if line["split"] == split)) for split in ("test", "val")}
    split = "test" if by_split["test"] else "val"
    if not by_split[split]:
        raise UserError(f"no scene was given, and the checkpoint's patch set ({folder or 'not named'}) names none; pass the scenes to map")
    why = "" if split == "test" else ", since there is no test split"
    console.say(f"no scene was given: mapping the {len(by_split[split])} of the {split} split of {folder}{why}")
    return by_split[split]


def refuse_inputs_as_outputs(scenes, output_dir, settings):
    """UserError where a map would replace a scene."""
    from mapping.scene import output_paths

    inputs = {os.path.realpath(path) for path in scenes.values() if "://" not in path}
    for name in scenes:
        for path in output_paths(output_dir, name, settings).values():
            if os.path.realpath(path) in inputs:
                raise UserError(f"{path} is one of the scenes, and would be the map of {scenes[name]}; choose another --output-dir")


def map_share(work, mine, count):
    """
    Map this process's share of the `count` scenes; one that fails does not stop the rest.

    Returns ({name: record}, {name: (kind of error, text)}). With --strict, or where there is only one scene, its error ends the run.
    """
    from mapping.scene import OutsideArea, finished_record, is_unfinished, map_scene

    args, console = work.args, work.console
    records, failures, said = {}, {}, set()
    for number, (name, path) in enumerate(mine.items(), start=1):
        place = f"[{number}/{len(mine)}] {name}"
        try:
            plan = work.plan(path)
            record = finished_record(args.output_dir, name, plan, work.settings, work.fingerprint, args.overwrite)
            if record is None:
                again = ", going on where an earlier run stopped" if is_unfinished(args.output_dir, name) else ""
                console.say(f"{place}: {describe_plan(plan, work)}{again}")
                record = map_scene(
                    work.predictor(plan), plan, args.output_dir, name, work.data["classes"], work.data["bands"], work.settings,
                    work.fingerprint, args.overwrite, tags_of(work, plan), progress_bar(console, name),
                )
            else:
                console.say(f"{place} is mapped already")
            records[name] = record
            tell(console, record, said)
        except KeyboardInterrupt as error:
            raise KeyboardInterrupt("What is finished is safe; run the same command again to go on") from error
        except (UserError, RunError) as error:
            outside = isinstance(error, OutsideArea)
            if count == 1 or args.strict and not outside:
                raise
            failures[name] = type(error).__name__, str(error)
            (console.say if outside else console.warn)(f"{path} was not mapped: {error}")
    return records, failures


def refuse_finished(work, scenes):
    """UserError for maps that exist and may not be replaced, before any scene is mapped. What can't be opened is not asked here."""
    from mapping.scene import finished_record, output_paths

    for name, path in scenes.items():
        if any(p.exists() for p in output_paths(work.args.output_dir, name, work.settings).values()):
            finished_record(work.args.output_dir, name, work.plan(path), work.settings, work.fingerprint, work.args.overwrite)


def conclude(records, failures, output_dir, is_first):
    """The last line, and the exit code: 0; 1 where some scenes failed; 2 where all of them did, for what the user can change."""
    outside = [name for name, (kind, _) in failures.items() if kind == "OutsideArea"]
    failed = [name for name in failures if name not in outside]
    damaged = [name for name, record in records.items() if record["unreadable_blocks"]]
    line = f"mapped {len(records)} of {len(records) + len(failures)} into {output_dir}"
    for words, names in (("with unreadable blocks", damaged), ("outside the area", outside), ("failed", failed)):
        line += f"; {words}: {', '.join(names)}" if names else ""
    if is_first:
        print(line)
    if not failed:
        return 0
    return 2 if not records and all(failures[name][0] == "UserError" for name in failed) else 1


def describe_plan(plan, work):
    from mapping.inputs import looks

    info, seen = plan.info, looks(plan, work.data["bands"], work.training_mean)
    divisors, offsets = (", ".join(f"{v:g}" for v in dict.fromkeys(values)) for values in (plan.scale.divide_by, plan.scale.offset))
    scale = f"(value + {offsets}) / {divisors}" if any(plan.scale.offset) else f"value / {divisors}"
    found = f"bands {plan.matched} ({', '.join(map(str, plan.indexes))}), {scale} {plan.scaled}"
    return f"{info.width} × {info.height}, {found}{f'; {seen}' if seen else ''}"


def tags_of(work, plan):
    """What the GeoTIFFs say about their making."""
    threshold = work.settings.threshold
    return {
        "MODEL": work.fingerprint, "MODEL_BANDS": ",".join(work.data["bands"]), "SOURCE": os.path.basename(plan.info.path),
        "THRESHOLD": "likeliest class" if threshold is None else f"{threshold:g}",
    }


def progress_bar(console, name):
    """For map_scene: a function that makes a bar of windows, of which some are done already."""

    def make(info, window, stride, start_row):
        from raster.windows import starts

        columns, rows = len(starts(info.width, window, stride)), starts(info.height, window, stride)
        done = sum(r + window <= start_row for r in rows)
        return console.progress(columns * len(rows), name, initial=columns * done).update

    return make


def tell(console, record, said):
    """A line about a finished scene; what is the same in many scenes (no CRS) only once."""
    if record["valid_fraction"] == 0:
        console.say(f"  {record['scene']}: no valid pixel")
    elif not record["has_fire"]:
        console.say(f"  {record['scene']}: no fire; highest probability {record['fire_confidence']:.2f}")
    else:
        burned = record["burned_hectares"]
        area = f", {burned:,.1f} ha" if burned is not None else ""
        outlines = f", {record['polygons']} polygon{'s' if record['polygons'] != 1 else ''}" if record["polygons"] is not None else ""
        console.say(f"  {record['scene']}: {100 * record['fire_fraction']:.1f} % burned{area}{outlines}")
    for block in record["unreadable"]:
        where = f"row {block['row']}, column {block['column']} ({block['height']} × {block['width']} pixels)"
        console.warn(f"{record['source']}: can't be read at {where}, left out ({block['reason']})")
    for remark in record["remarks"]:
        if remark not in said:
            said.add(remark)
            console.say(f"  {record['scene']}: {remark}")


# ---------------------------------------------------------------------------------------------------------------- dry run


def dry_run(work, scenes):
    """Say what would be done for each scene: windows, memory, disk, and the time by a few windows of nothing."""
    import time

    import torch

    from mapping.segmentation import stride_of
    from raster.windows import starts

    window, stride = work.settings.window, stride_of(work.settings.window, work.settings.overlap)
    seconds, bad = None, 0
    for name, path in scenes.items():
        try:
            plan = work.plan(path)
        except UserError as error:
            print(f"{name}: can't be mapped: {error}")
            bad += 1
            continue
        info = plan.info
        if seconds is None:
            predictor = work.predictor(plan)
            batch = torch.zeros(work.args.batch_size, len(plan.indexes), window, window, device=work.device)
            predictor.probabilities(batch)
            start = time.perf_counter()
            predictor.probabilities(batch).cpu()
            seconds = (time.perf_counter() - start) / work.args.batch_size
        count = len(starts(info.width, window, stride)) * len(starts(info.height, window, stride))
        across, deep = max(info.width, window), max(info.block_shapes[0][0], 128)
        memory = across * (window * (len(work.data["classes"]) * 8 + len(plan.indexes) * 4) + 3 * deep * len(plan.indexes) * 4)
        disk = info.width * info.height * (2 if work.settings.probabilities != "float32" else 5)
        print(
            f"{name}: {describe_plan(plan, work)}; {count} windows of {window}, about {count * seconds:.0f} s, "
            f"{memory / 2**20:.0f} MB of memory beside the network, at most {disk / 2**20:.0f} MB of disk on the way"
        )
    print(f"{len(scenes) - bad} of {len(scenes)} scenes would be mapped into {work.args.output_dir}")
    return 2 if bad else 0


if __name__ == "__main__":
    run_program(main, Advice(memory="pass a smaller --batch-size or --window"))
