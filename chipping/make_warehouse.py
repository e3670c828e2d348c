"""
Makes a tensor warehouse of frames with boxes, or finds that it is there already. See chipping/warehouse.py for what it holds.

A version is built in a hidden folder beside the others and gets its name, the hash of settings and content, when it is whole. What is
finished is written down in a journal, so a killed run continues; each row that it kept is compared with its checksum then.
"""

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from chipping.frame_boxes import RULES
from chipping.frame_sources import require_pictures
from chipping.warehouse import (
    FORMAT,
    HEADER,
    LATEST,
    MANIFEST,
    PARTS,
    SAMPLES,
    VERSION_FOLDER,
    is_unread,
    open_warehouse,
    row_digest,
    shapes_of,
    shard_file,
    version_of,
)
from chipping.warehouse_counts import REASONS, check_limits, in_words, left_out, run_rows, totals
from chipping.warehouse_split import split_runs
from chipping.warehouse_worker import Cut, Task, cut_tasks, row_bytes
from runtime.errors import RunError, UserError
from runtime.files import (
    create_new,
    folder_to_itself,
    free_bytes,
    make_own_folder,
    open_own,
    plain,
    refuse_link,
    remove_leftovers,
    remove_tree,
    require_writable,
    scan_lines,
    settings_hash,
    write_json,
    write_text,
)
from runtime.names import require_text
from runtime.stop_signals import held, told_on_stop
from runtime.words import in_bytes

FRAMES_A_TASK = 32
MADE, JOURNAL, DATA = ".made", "journal.jsonl", "data"


@dataclass(frozen=True, kw_only=True)
class WarehouseOptions:
    """
    target_size: (W, H) of the input. resize_mode: of raster.letterbox. max_boxes: slots of a sample. shard_samples: rows of a shard.
    skip_empty: frames without boxes are left out. val_ratio, split_seed: see chipping.warehouse_split. limits: {"invalid", "missing",
    "empty": most frames of this kind, a whole number or a share below 1, or None}.
    """

    target_size: tuple = (384, 384)
    resize_mode: str = "letterbox"
    max_boxes: int = 16
    shard_samples: int = 1024
    skip_empty: bool = False
    val_ratio: float = 0.2
    split_seed: int = 42
    limits: dict = field(default_factory=dict)

    def settings(self, classes):
        """What a version is made with; equal for equal bytes."""
        transform = {"target_size": list(self.target_size), "resize_mode": self.resize_mode, "pad_value": 0, "max_boxes": self.max_boxes}
        return {
            "format": FORMAT, "transform": transform, "dtype": "u8", "classes": list(classes), "boxes": RULES,
            "skip_empty": self.skip_empty, "shard_samples": self.shard_samples,
            "split": {"seed": self.split_seed, "val_ratio": self.val_ratio},
        }


def make_warehouse(root, source, options, *, workers=1, note=lambda text: None, warn=lambda text: None, progress=lambda count: None,
                   starting=lambda count: None):
    """
    (Warehouse, whether it was there already) in `root` of a chipping.frame_sources.Source.

    workers: processes, which do not change the result. starting(count): called with the number of frames to cut, progress(count) with
    those that are done.
    """
    root = Path(root)
    check_limits(totals(source, []), options.limits)
    if not source.frames:
        raise UserError(f"no frame is left to store: {in_words(totals(source, []))}; expected frames with labels")
    require_pictures(source.frames)
    refuse_names(source)
    refuse_link(root)
    require_writable(root)
    with folder_to_itself(root, lambda: note(f"another program makes a warehouse in {root}; waiting for it")):
        key = plan_key(source, options)
        warehouse = made_before(root, key, warn)
        if warehouse is not None:
            check_limits(warehouse.manifest["summary"]["totals"], options.limits)
            point_to(root, warehouse.version)
            remove_tree(root / building_name(key))
            return warehouse, True
        return build(root, key, source, options, workers, note, warn, progress, starting)


def building_name(key):
    return f".{key}.building"


def refuse_names(source):
    """UserError where two frames have one name, or a name is none that a file of text can hold."""
    seen = {}
    for name in source.classes:
        require_text(name, "the class")
    for frame in source.frames:
        require_text(frame.id, "the frame")
        if frame.id in seen:
            raise UserError(f"{frame.path} and {seen[frame.id]} are both {frame.id}; rename one of them")
        seen[frame.id] = frame.path


def plan_key(source, options):
    """A hash of the settings, and of the names, sizes and times of all files: the same as long as nothing was touched."""
    digest = hashlib.sha256(settings_hash(options.settings(source.classes)).encode())
    for frame in source.frames:
        try:
            status = os.stat(frame.path)
            stamp = status.st_size, status.st_mtime_ns
        except OSError:
            stamp = None
        stated = frame.label_sha256, frame.labels.tolist(), frame.size, frame.turn
        digest.update(repr((frame.id, os.path.abspath(frame.path), stamp, stated)).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:24]


def made_before(root, key, warn):
    """The Warehouse that an earlier run has made of the same files, whole and unaltered, else None."""
    try:
        name = (root / MADE / key).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None
    return whole_version(root, name, warn)


def whole_version(root, name, warn):
    """The Warehouse of a version's folder, None where it is not there. A damaged one is removed, an unreadable one stays."""
    folder = root / name
    if not VERSION_FOLDER.fullmatch(name) or folder.is_symlink() or not folder.is_dir():
        return None
    try:
        return open_warehouse(folder)
    except UserError as error:
        if is_unread(error):
            raise
        warn(f"{error.args[0].split(';')[0]}: this version is made again")
        remove_tree(folder)
        return None


def point_to(root, version):
    """Let `latest` name a version."""
    text = f"v{version}\n"
    path = root / LATEST
    if path.is_dir() and not path.is_symlink():
        raise UserError(f"{path} is a folder where a file has to name the latest version; remove it")
    if path.is_symlink() or not path.is_file() or path.read_bytes() != text.encode():
        write_text(path, text)


# --- building ------------------------------------------------------------------------------------------------------------------


def build(root, key, source, options, workers, note, warn, progress, starting):
    """Cut what is missing and give the version its name. See make_warehouse."""
    place = root / building_name(key)
    for other in sorted(root.glob(".*.building")):
        if other != place:
            note(f"{other.name} was left by a run on other data or settings, and is removed")
            remove_tree(other)
    make_own_folder(place)
    remove_leftovers(place)
    cut = Cut(place / DATA, tuple(options.target_size), options.resize_mode, options.max_boxes, options.skip_empty)
    shapes, tasks = shapes_of(cut.target, cut.max_boxes), tasks_of(source.frames, options.shard_samples)
    require_space(root, len(source.frames), shapes)
    results = continue_journal(place, cut, tasks, options.shard_samples, len(source.frames))
    missing = [task for task in tasks if task.number not in results]
    starting(sum(len(task.frames) for task in missing))
    done = sum(map(len, results.values()))
    told = told_on_stop(lambda: f"{done} frames are safe; run the same command again to continue")
    with told, open_own(place / JOURNAL, "ab", buffering=0) as journal:
        for number, found in cut_tasks(missing, cut, workers):
            with held():
                journal.write(json.dumps({"task": number, "results": found}, separators=(",", ":")).encode() + b"\n")
            results[number] = found
            done += len(found)
            progress(len(found))
    ordered = [result for task in tasks for result in results[task.number]]
    return finish(root, place, key, source, options, ordered, warn), False


def tasks_of(frames, shard_samples):
    """[Task]: some successive frames of a shard each, in rows as if all frames could be stored."""
    tasks = []
    for first in range(0, len(frames), shard_samples):
        shard = frames[first : first + shard_samples]
        for row in range(0, len(shard), FRAMES_A_TASK):
            tasks.append(Task(len(tasks), first // shard_samples, row, tuple(shard[row : row + FRAMES_A_TASK])))
    return tasks


def require_space(root, samples, shapes):
    """RunError where the disk cannot hold all samples. What a killed run has left is counted as if it were not there."""
    needed = samples * sum(map(row_bytes, shapes.values()))
    there = sum(p.stat().st_blocks * 512 for p in root.glob(f".*.building/{DATA}/*.npy"))
    if needed > free_bytes(root) + there:
        raise RunError(f"{samples} samples need {in_bytes(needed)}, {root} has {in_bytes(free_bytes(root))} left; "
                       "free some, or choose a smaller --target-size")


def header_of(count, shape, dtype):
    """The bytes before the pixels of a .npy of `count` rows."""
    fields = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (count, *shape)}
    text = repr(fields).encode()
    head = b"\x93NUMPY\x01\x00" + (HEADER - 10).to_bytes(2, "little") + text
    return head + b" " * (HEADER - 1 - len(head)) + b"\n"


def set_rows(path, count, shape, dtype):
    """Let a .npy have so many rows: its header is written, its file cut or lengthened with zeros."""
    with open_own(path, "r+b") as file:
        file.write(header_of(count, shape, dtype))
        file.truncate(HEADER + count * row_bytes((shape, dtype)))


def continue_journal(place, cut, tasks, shard_samples, count):
    """
    {task's number: results} that a killed run has finished and whose rows are as they were. Afterwards the journal holds these alone, and
    all files of the shards are there.
    """
    shapes = shapes_of(cut.target, cut.max_boxes)
    make_own_folder(cut.folder)
    lines, _, _ = scan_lines(place / JOURNAL)
    shards = {(shard, part) for shard in range(-(-count // shard_samples)) for part in PARTS}
    names = {shard_file(*entry) for entry in shards}
    for path in cut.folder.iterdir():
        if path.name not in names or path.is_symlink():
            remove_tree(path) if path.is_dir() else path.unlink()
    for shard, part in sorted(shards):
        path, rows = cut.folder / shard_file(shard, part), min(shard_samples, count - shard * shard_samples)
        if not path.exists():
            create_new(path)
        set_rows(path, rows, *shapes[part])
    kept = {}
    for line in lines:
        number, results = line.get("task"), line.get("results")
        if type(number) is int and 0 <= number < len(tasks) and is_intact(tasks[number], results, cut, shapes):
            kept[number] = results
    content = b"".join(json.dumps({"task": n, "results": r}, separators=(",", ":")).encode() + b"\n" for n, r in kept.items())
    write_text(place / JOURNAL, content.decode())
    return kept


def is_intact(task, results, cut, shapes):
    """Whether a journal's results are those of a task whose rows have the bytes that they had."""
    try:
        if len(results) != len(task.frames):
            return False
        with_rows = [(row, result) for row, result in enumerate(results, start=task.row) if "problem" not in result]
        if any(result["problem"] not in REASONS for result in results if "problem" in result):
            return False
        for part in PARTS:
            shape, dtype = shapes[part]
            size = row_bytes(shapes[part])
            with open(cut.folder / shard_file(task.shard, part), "rb") as file:
                for row, result in with_rows:
                    file.seek(HEADER + row * size)
                    if row_digest(np.frombuffer(file.read(size), np.uint8)).hex() != result["rows"][part]:
                        return False
    except (TypeError, KeyError, ValueError, AttributeError):
        return False
    return True


def finish(root, place, key, source, options, results, warn):
    """The Warehouse of a version whose rows are all there: gaps closed, index and manifest written, named by its hash."""
    counts = totals(source, results)
    check_limits(counts, options.limits)
    both = zip(source.frames, results, strict=True)
    stored = [(frame, result, place) for place, (frame, result) in enumerate(both) if "problem" not in result]
    if not stored or not counts["boxes"]:
        what = "no frame is left to store" if not stored else "no frame has a box that can be kept"
        remove_tree(place)
        raise UserError(f"{what}: {in_words(counts)}; expected frames with labels")
    settings = options.settings(source.classes)
    version = version_of(settings, [(frame.id, result["image_sha256"], frame.label_sha256) for frame, result, _ in stored])
    warehouse = whole_version(root, f"v{version}", warn)
    if warehouse is None:
        shapes = shapes_of(options.target_size, options.max_boxes)
        close_gaps(place / DATA, [old for _, _, old in stored], options.shard_samples, len(source.frames), shapes)
        write_index(place / DATA, version, settings, source, options, stored, results, counts)
        make_own_folder(root / MADE)
        write_text(root / MADE / key, f"v{version}\n")
        os.replace(place / DATA, root / f"v{version}")
        warehouse = open_warehouse(root / f"v{version}", verify=False)
    else:
        make_own_folder(root / MADE)
        write_text(root / MADE / key, f"v{version}\n")
    point_to(root, version)
    remove_tree(place)
    return warehouse


def close_gaps(folder, places, shard_samples, planned, shapes):
    """Move rows forward over those of frames that are left out, then cut the files to their length. places: of the rows, ascending."""
    for part in PARTS:
        size, files = row_bytes(shapes[part]), {}
        try:
            for new, old in enumerate(places):
                if new == old:
                    continue
                (to, row), (of, old_row) = divmod(new, shard_samples), divmod(old, shard_samples)
                for shard in (to, of):
                    if shard not in files:
                        files[shard] = open_own(folder / shard_file(shard, part), "r+b")
                files[of].seek(HEADER + old_row * size)
                content = files[of].read(size)
                files[to].seek(HEADER + row * size)
                files[to].write(content)
        finally:
            for file in files.values():
                file.close()
        for shard in range(-(-planned // shard_samples)):
            path, rows = folder / shard_file(shard, part), min(shard_samples, len(places) - shard * shard_samples)
            if rows > 0:
                set_rows(path, rows, *shapes[part])
            else:
                path.unlink()


def write_index(folder, version, settings, source, options, stored, results, counts):
    """Write samples.jsonl and manifest.json of a folder whose shards are complete."""
    splits, unit = split_runs([frame.run for frame, _, _ in stored], options.val_ratio, options.split_seed)
    lines = []
    for number, ((frame, result, _), split) in enumerate(zip(stored, splits, strict=True)):
        shard, row = divmod(number, options.shard_samples)
        lines.append({
            "id": frame.id, "run": frame.run, "frame_id": frame.frame_id, "shard": shard, "row": row, "src_size": result["size"],
            "affine": result["affine"], "n_boxes": len(result["classes"]), "split": split, "classes": result["classes"],
            "image_sha256": result["image_sha256"], "label_sha256": frame.label_sha256,
        })
    text = "".join(json.dumps(plain(line), ensure_ascii=False, separators=(",", ":")) + "\n" for line in lines)
    write_text(folder / SAMPLES, text)
    shapes, shards = shapes_of(options.target_size, options.max_boxes), []
    for first in range(0, len(stored), options.shard_samples):
        rows = [result["rows"] for _, result, _ in stored[first : first + options.shard_samples]]
        files = {
            part: {"file": shard_file(len(shards), part), "bytes": HEADER + len(rows) * row_bytes(shapes[part]),
                   "sha256": hashlib.sha256(b"".join(bytes.fromhex(row[part]) for row in rows)).hexdigest()}
            for part in PARTS
        }
        shards.append({"id": f"{len(shards):05d}", "samples": len(rows), "files": files})
    of_runs = {name: sorted({frame.run for (frame, _, _), split in zip(stored, splits, strict=True) if split == name})
               for name in ("train", "val")}
    write_json(folder / MANIFEST, {
        "format": FORMAT, "version": version, "transform": settings["transform"], "dtype": "u8", "classes": list(source.classes),
        "settings": settings, "samples": len(stored), "samples_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "split": {"unit": unit, **settings["split"], **of_runs, "samples": {name: splits.count(name) for name in ("train", "val")}},
        "shards": shards, "summary": {"totals": counts, "runs": run_rows(source, results)}, "skipped": left_out(source, results),
    })
