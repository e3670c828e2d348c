"""The files of one image's detections, whether an earlier run has finished them, and the tables of all images of a folder."""

import contextlib
import csv
import io
from dataclasses import dataclass
from pathlib import Path

from detection.boxes_out import BOX_WRITERS, write_results
from mapping.map_files import MapFiles, record_of_settings
from runtime.errors import UserError
from runtime.files import make_own_folder, open_own, plain, read_json, write_json, write_text

try:
    import fcntl
except ImportError:  # Windows: two processes that finish at the same moment are not kept apart
    fcntl = None

HIDDEN = Path(".chipmill") / "detections"  # in the output folder: unfinished images, records and results of the finished ones
COUNTS, RESULTS = "counts.csv", "results.json"
ITEM = "_boxes.stac.json"
ENDINGS = ("_boxes.png", ITEM, *(f"_boxes{writer.ending}" for writer in BOX_WRITERS.values()))
NEEDED = {"image", "width", "height", "counts", "tiles", "full_tiles", "valid_fraction", "unreadable_blocks"}


@dataclass(frozen=True)
class ImageFiles:
    """Where an image's detections go. folder: of the output. name: stem of its files."""

    folder: Path
    name: str

    def outputs(self, settings):
        """{kind: path} of what there may be. settings: detection.image_map.FindSettings."""
        item = {"stac": Path(self.folder) / f"{self.name}{ITEM}"} if settings.stac else {}
        return self.content(settings.vectors) | item

    def content(self, vectors):
        """`outputs` without the STAC item that describes them. vectors: "geojson" or "gpkg"."""
        endings = {"boxes": f"_boxes{BOX_WRITERS[vectors].ending}", "preview": "_boxes.png"}
        return {kind: Path(self.folder) / f"{self.name}{ending}" for kind, ending in endings.items()}

    @property
    def hidden(self):
        return Path(self.folder) / HIDDEN

    @property
    def record(self):
        return self.hidden / f"{self.name}.json"

    @property
    def results(self):
        """Its COCO results, a line each."""
        return self.hidden / f"{self.name}.jsonl"

    @property
    def scratch(self):
        """The folder of the journal, while the image is being looked at."""
        return self.hidden / self.name

    def make_folders(self):
        make_own_folder(self.hidden.parent)
        make_own_folder(self.hidden)

    def is_unfinished(self):
        """Whether an earlier run began this image and did not finish it."""
        return (self.scratch / "journal.jsonl").exists()

    def remove(self, names):
        """Delete files of the output folder, by their names, with what a run that was killed while writing them left."""
        MapFiles(self.folder, self.name).remove(names)


def finished_record(files, known, settings):
    """
    The record of an image that these settings have been through already, None if there is work to do.

    known: of detection.image_map.all_settings. settings: FindSettings. UserError where there are files that may not be replaced.
    """
    return record_of_settings(files, files.outputs(settings).values(), lambda: plain(known), read_record, whole=files.results.exists())


def begin_record(files, settings):
    """
    Deletes outputs of an earlier run of the image that the new one will not replace. → {names of the files it may have}.

    Before that the record names all of them, without settings until the image is finished.
    """
    expected = {path.name for path in files.outputs(settings).values()}
    earlier = set(read_record(files.record)["files"]) if files.record.exists() else set()
    write_json(files.record, {"settings": None, "files": sorted(earlier | expected)})
    files.remove(earlier - expected)
    return expected


def read_record(path):
    """
    The record of an image, <folder>/.chipmill/detections/<image>.json. UserError where it is none, or names files that are not that
    image's: what it names may be deleted.
    """
    record, names = read_json(path), {f"{path.stem}{ending}" for ending in ENDINGS}
    if not isinstance(record.get("files"), list) or "settings" not in record:
        raise UserError(f"{path} is not the record of an image; remove it, and pass --overwrite to look at the image again")
    if missing := NEEDED - record.keys() if record["settings"] is not None else ():
        raise UserError(f"{path} lacks {min(missing)}; remove it, and pass --overwrite to look at the image again")
    if foreign := [name for name in record["files"] if not isinstance(name, str) or name not in names]:
        raise UserError(f"{path} names {foreign[0]!r}, which is no file of {path.stem}; remove it")
    return record


def update_tables(output_dir):
    """
    counts.csv and results.json over all images that are finished in a folder, by whatever run and process.

    Under a lock: the process that finishes last reads the records of all others, and writes the tables that stay.
    """
    folder = Path(output_dir) / HIDDEN
    with open_own(folder / "tables.lock", "a") as lock:
        if fcntl:
            with contextlib.suppress(OSError):  # a disk without locks
                fcntl.flock(lock, fcntl.LOCK_EX)
        paths = [path for path in sorted(folder.glob("*.json")) if path.with_suffix(".jsonl").exists()]
        records = [(path, record) for path in paths if (record := read_record(path))["settings"] is not None]
        records = [(path, record) for path, record in records if (Path(output_dir) / record["files"][0]).exists()]
        write_counts(Path(output_dir) / COUNTS, [record for _, record in records])
        parts = [(number, path.with_suffix(".jsonl")) for number, (path, _) in enumerate(records, start=1)]
        write_results(Path(output_dir) / RESULTS, parts)


def write_counts(path, records):
    """A line an image: image_id as in results.json, how many of each class, tiles that reached the limit of detections, share of data."""
    classes = list(dict.fromkeys(name for record in records for name in record["counts"]))
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    ends = ("tiles", "full_tiles", "valid_fraction", "unreadable_blocks")
    table.writerow(["image_id", "image", "width", "height", "objects", *classes, *ends])
    for number, record in enumerate(records, start=1):
        counts = [record["counts"].get(name, 0) for name in classes]
        size = record["width"], record["height"]
        table.writerow([number, record["image"], *size, sum(record["counts"].values()), *counts, *(record[name] for name in ends)])
    write_text(path, text.getvalue())
