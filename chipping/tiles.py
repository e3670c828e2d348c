"""
Makes the tiles of labelled images, or finds that they are there already.

A folder of tiles is a cache: where settings, labels or images have changed it is made again as far as they concern it, with one line that
says why. What a tile's pixels show is written beside it, so a killed run loses nothing that it has finished.
"""

import dataclasses
import os
import re
from pathlib import Path

from chipping.chipset import DESCRIPTION, SKIPPED, complete, read_chipset, to_line
from chipping.tile_set import IMAGES, read_tile_set, sizes_on_disk
from chipping.tile_set_plan import TileOptions, identity, pixel_identity, plan_tiles
from chipping.tile_worker import Source, cut_tiles
from constants import MANIFEST
from runtime.errors import RunError, UserError
from runtime.files import (
    describe_difference,
    folder_to_itself,
    parse_object,
    plain,
    read_lines,
    remove_leftovers,
    require_writable,
    write_json,
    write_text,
)
from runtime.stop_signals import told_on_stop
from runtime.words import plural

FORMAT = "chipmill-tile-1"  # in the .json of a tile
NAME = re.compile(r"tile_\d+_\d+_\d+\.(png|npy|json)")
MARK = {DESCRIPTION, MANIFEST, IMAGES, SKIPPED, "contact_sheet.png"}


def make_tiles(folder, images_folder, classes, images, options=None, *, workers=1, strict=False, note=lambda text: None,
               progress=lambda count: None, starting=lambda count: None):
    """
    (TileSet, {image's name: why} of images that cannot be read) of labelled images in `folder`.

    images: LabelledImage each (of box_labels.read_labels); classes: names of their labels. workers: processes, which do not change the
    result. strict: an image that cannot be read is a RunError. note(text): why tiles are made again. starting(count): called with the
    number of tiles to cut, progress(count) with each that is done.
    """
    folder, options = Path(folder), options or TileOptions()
    if not images:
        raise UserError(f"no image is there to make tiles of in {images_folder}; expected one at least")
    plan = plan_tiles(images_folder, classes, images, options, note)
    if (found := whole_set(folder, plan)) is not None:
        return found
    refuse_foreign(folder)
    require_writable(folder)
    with folder_to_itself(folder, lambda: note(f"another program makes tiles in {folder}; waiting for it")):
        if (found := whole_set(folder, plan)) is not None:
            return found
        build(folder, plan, options, workers, strict, note, progress, starting)
    found = whole_set(folder, plan)
    if found is None:
        raise RunError(f"{folder} changed while its tiles were made; run the same command again")
    return found


def covers(folder, images_folder, classes, images, options):
    """
    (TileSet of a finished folder restricted to `images`, {image's name: why} of those that cannot be read), or None where the folder is not
    one of these settings with all of them, as they are.

    A folder with more images, or a larger share of tiles without objects, will do.
    """
    plan = plan_tiles(images_folder, classes, images, options, lambda text: None)
    old = read_whole(Path(folder))
    if old is None:
        return None
    tile_set, description, lines, _ = old
    wanted, there = (without(d["settings"], "negatives", "images", "seed") for d in (plan.description, description))
    negatives = description["settings"].get("negatives", 0)
    own = {line["name"]: identity(line) for line in lines}
    broken = unreadable_images(Path(folder))
    fits = all(own.get(line["name"]) == identity(line) for line in plan.images if line["name"] not in broken)
    if wanted != there or not fits or negatives < options.negatives or negatives < 1 and tile_set.seed != options.seed:
        return None
    scale = {key: tuple(plan.description[key]) for key in ("divide_by", "offset")}
    found = dataclasses.replace(tile_set, seed=options.seed, **scale)
    names = {image.name: image for image in images}
    found = found.of_images(names).with_negatives(options.negatives)
    found = dataclasses.replace(found, images=[names[image.name] for image in found.images])  # which may lie elsewhere by now
    return found, {name: broken[name] for name in names if name in broken}


def without(settings, *names):
    return {key: value for key, value in settings.items() if key not in names}


# --- what is there -------------------------------------------------------------------------------------------------------------


def read_whole(folder):
    """(TileSet, chipset.json, lines of images.jsonl, {name: bytes}) of a finished folder of which no file is missing or cut, else None."""
    if not (folder / DESCRIPTION).is_file() or not (folder / MANIFEST).is_file():
        return None
    try:
        description = read_chipset(folder)
        found = read_tile_set(folder)
        lines = read_image_lines(folder)
    except UserError:
        return None
    there = sizes_on_disk(folder)
    whole = all(tile.file is None or there.get(tile.file) == tile.size and f"{Path(tile.file).stem}.json" in there for tile in found.tiles)
    return (found, description, lines, there) if whole else None


def read_image_lines(folder):
    return read_lines(folder / IMAGES)


def whole_set(folder, plan):
    """(TileSet, {image's name: why it cannot be read}) where a folder holds what a plan asks for, else None. No image is opened."""
    old = read_whole(folder)
    if old is None or old[1].get("settings_hash") != complete(plan.description)["settings_hash"]:
        return None
    found, description, _, _ = old
    counts = {key: description[key] for key in ("count", "image_count")}
    if without(description, "settings_hash", "version", "format") != plain({**plan.description, **counts}):
        write_json(folder / DESCRIPTION, complete({**plan.description, **counts}))  # the scale, or the place of the images: no pixel
        found = read_tile_set(folder)
    return found, unreadable_images(folder)


def unreadable_images(folder):
    return {str(line.get("name")): str(line.get("detail")) for line in read_lines(folder / SKIPPED)}


def refuse_foreign(folder):
    """UserError for a folder with other things in it than tiles. Before anything is written there."""
    if not folder.is_dir():
        return
    names = [name for name in os.listdir(folder) if not name.startswith(".")]
    if (folder / DESCRIPTION).is_file():
        if (kind := kind_of(folder)) not in (None, "tiles"):
            raise UserError(f"{folder} holds {kind}, no tiles; choose another folder")
        return
    strangers = [name for name in sorted(names) if name not in MARK and not NAME.fullmatch(name)]
    sidecars = [name for name in names if NAME.fullmatch(name) and name.endswith(".json")]
    if strangers or any(read_sidecar(folder / name) is None for name in sidecars[:1]):
        raise UserError(f"{folder} is not empty and holds no tiles of ours ({', '.join((strangers or sidecars)[:3])} …); "
                        "choose another folder")


def kind_of(folder):
    try:
        return read_chipset(folder).get("kind")
    except UserError:
        return None  # torn, or of a run that was killed: it is made again


def read_sidecar(path):
    """The .json of a tile as a dict, None where it is not ours."""
    try:
        content = parse_object(path.read_bytes())
    except (OSError, ValueError):
        return None
    return content if content.get("format") == FORMAT else None


def why_again(folder, plan):
    """What has changed since a folder was made, in words; None where it is new or was not finished."""
    if not (folder / DESCRIPTION).is_file():
        return None
    try:
        old = read_chipset(folder)
        lines = {line["name"]: line for line in read_image_lines(folder)}
    except (UserError, KeyError):
        return "it is damaged"
    before, now = (without(d.get("settings", {}), "images") for d in (old, plan.description))
    words = [describe_difference(before, now)] if before != now else []
    if not (folder / MANIFEST).is_file() and not lines:
        return words[0] if words else None
    wanted = {row["name"]: row for row in plan.images}
    both = [name for name in wanted if name in lines]
    for count, what in (
        (len(wanted.keys() - lines.keys()), "new"), (len(lines.keys() - wanted.keys()), "gone"),
        (sum(not same(pixel_identity, lines[n], wanted[n]) for n in both), "changed"),
        (sum(lines[n].get("fingerprint") != wanted[n]["fingerprint"] for n in both), "labelled otherwise"),
    ):
        words += [f"{plural(count, 'image')} {what}"] if count else []
    if not words and lines:
        words = ["files are missing or cut short"] if (folder / MANIFEST).is_file() else []
    return ", ".join(words) or None


def same(function, old, new):
    try:
        return function(old) == function(new)
    except (KeyError, TypeError):
        return False


# --- building ------------------------------------------------------------------------------------------------------------------


def build(folder, plan, options, workers, strict, note, progress, starting):
    """Make `folder` hold what a plan asks for. Tiles whose pixels are there already stay."""
    why = why_again(folder, plan)
    (folder / MANIFEST).unlink(missing_ok=True)  # from here on the set is not finished
    remove_leftovers(folder)
    kept = keep_tiles(folder, plan)
    if why:
        note(f"the tiles in {folder} are made again: {why}; {len(kept)} of {len(plan.jobs)} stay" if kept else
             f"the tiles in {folder} are made again: {why}")
    write_json(folder / DESCRIPTION, complete(plan.description))
    results = dict(kept)
    unreadable = {}
    if plan.description["store"] != "none":
        missing = [n for n in range(len(plan.jobs)) if n not in kept]
        starting(len(missing))
        with told_on_stop(lambda: f"{len(results)} tiles are safe; run the same command again to continue"):
            for number, result in cut_tiles(folder, sources_of(plan), plan.jobs, missing, workers):
                if isinstance(result, str):
                    name = plan.images[plan.jobs[number].image]["name"]
                    unreadable.setdefault(name, result)
                    if strict:
                        raise RunError(f"{name} cannot be read ({result}); --strict stops here")
                else:
                    results[number] = result
                    write_sidecar(folder, plan, number, result)
                progress(1)
    finish(folder, plan, results, unreadable)


def sources_of(plan):
    """Source of each image, for the workers."""
    wide, tall = plan.description["tile_size"]
    return [
        Source(image.path, image.header, image.orientation, (image.width, image.height), tuple(row["bands"]), plan.description["dtype"],
               (wide, tall), plan.description["store"])
        for image, row in zip(plan.labelled, plan.images, strict=True)
    ]


def sidecar(plan, number, result):
    """The content of a tile's .json. result: {"bytes", "valid_pixels", "band_sum", "band_sum_squares"}."""
    job, line, row = plan.jobs[number], plan.lines[number], plan.images[plan.jobs[number].image]
    wide, tall = plan.description["tile_size"]
    shown = [min(wide, row["width"] - job.x0), min(tall, row["height"] - job.y0)]
    return {
        "format": FORMAT, "boxes": line["boxes"], "labels": line["labels"], "ignore": line["ignore"], "visible": line["visible"],
        "truncated": [share < 1 for share in line["visible"]], "objects": line["objects"], "image_id": row["image_id"],
        "image_index": job.image, "file_name": row["name"], "x0": job.x0, "y0": job.y0, "tile_size": [wide, tall], "shown_size": shown,
        "image_size": [row["width"], row["height"]], "valid_share": result["valid_pixels"] / (wide * tall), "pixels": job.key, **result,
    }


def write_sidecar(folder, plan, number, result):
    write_text(folder / f"{plan.jobs[number].stem}.json", to_line(sidecar(plan, number, result)), sync=False)


def keep_tiles(folder, plan):
    """
    {number of a job: what its pixels say} of tiles that are in a folder already, renamed where their names have changed.

    A tile is known by its .json, which says what its pixels show. What no job asks for is deleted.
    """
    there = sizes_on_disk(folder)
    known = {}
    for name in sorted(there):
        if NAME.fullmatch(name) and name.endswith(".json"):
            content = read_sidecar(folder / name)
            file = f"{name.removesuffix('.json')}.{plan.description['store']}"
            if content and isinstance(content.get("pixels"), str) and content.get("bytes") == there.get(file, -1):
                known[content["pixels"]] = (file, content)
    kept, moving = {}, []
    for number, job in enumerate(plan.jobs):
        if job.key in known:
            file, content = known.pop(job.key)
            kept[number] = {key: content[key] for key in ("bytes", "valid_pixels", "band_sum", "band_sum_squares") if key in content}
            if Path(file).stem == job.stem:
                if content != sidecar(plan, number, kept[number]):
                    write_sidecar(folder, plan, number, kept[number])
            else:
                moving.append((number, file))
    names = {f"{plan.jobs[number].stem}.{end}" for number in kept for end in (plan.description["store"], "json")}
    move_tiles(folder, plan, moving, kept)
    for name in there:
        if NAME.fullmatch(name) and name not in names:
            (folder / name).unlink(missing_ok=True)
    return kept


def move_tiles(folder, plan, moving, kept):
    """
    Give tiles the names of their new places. moving: [(number of a job, file)].

    Each goes by way of a temporary name, since the new one may still be another's. A tile without its .json counts for nothing, so a kill
    in between costs some tiles and mixes none up.
    """
    for number, file in moving:
        (folder / f"{Path(file).stem}.json").unlink(missing_ok=True)
        os.replace(folder / file, folder / f".{number}.part.{plan.description['store']}")
    for number, _ in moving:
        stem = plan.jobs[number].stem
        (folder / f"{stem}.json").unlink(missing_ok=True)
        os.replace(folder / f".{number}.part.{plan.description['store']}", folder / f"{stem}.{plan.description['store']}")
        write_sidecar(folder, plan, number, kept[number])


def finish(folder, plan, results, unreadable):
    """Write the index of a set whose tiles are there. Images that cannot be read are left out of it, with all their tiles."""
    left_out = {row["index"] for row in plan.images if row["name"] in unreadable}
    with_files = plan.description["store"] != "none"
    lines = []
    for number, (job, line) in enumerate(zip(plan.jobs, plan.lines, strict=True)):
        if job.image in left_out:
            for end in (plan.description["store"], "json"):
                (folder / f"{job.stem}.{end}").unlink(missing_ok=True)
        else:
            lines.append({**line, **results[number]} if with_files else line)
    if not lines:
        if unreadable:
            name, why = next(iter(unreadable.items()))
            raise RunError(f"none of the images can be read, the first is {name} ({why}); copy them again")
        raise UserError("no tile is left: no box is in an image, and --negatives 0 drops tiles without objects; pass --negatives 1")
    kept = [row for row in plan.images if row["index"] not in left_out]
    write_text(folder / IMAGES, "".join(to_line(row) for row in kept))
    if unreadable:
        skipped = [{"name": name, "reason": "unreadable", "detail": why} for name, why in sorted(unreadable.items())]
        write_text(folder / SKIPPED, "".join(map(to_line, skipped)))
    else:
        (folder / SKIPPED).unlink(missing_ok=True)
    write_json(folder / DESCRIPTION, complete({**plan.description, "count": len(lines), "image_count": len(kept)}))
    write_text(folder / MANIFEST, "".join(to_line(line) for line in lines))
