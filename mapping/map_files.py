"""The files of one scene's map: their paths, and whether an earlier run has finished them."""

import glob
from dataclasses import dataclass
from pathlib import Path

from mapping.qgis_style import is_of_the_user
from mapping.settings import full_settings
from mapping.stac_item import WITHOUT_DATE, stac_item
from mapping.summary import HIDDEN, earlier_files, read_record
from nets.model_config import answers_pixels, answers_values
from raster.writer import scratch_of
from runtime.errors import UserError
from runtime.files import clear_scratch, describe_difference, plain, write_json
from vectors.writing import WRITERS


@dataclass(frozen=True)
class MapFiles:
    """Where a scene's map goes. folder: of the output. name: stem of its files."""

    folder: Path
    name: str

    def outputs(self, settings, class_set):
        """{kind: path} of what the map may consist of. class_set: classes.ClassSet."""
        item = {"stac": Path(self.folder) / f"{self.name}.stac.json"} if settings.stac else {}
        return self.content(settings, class_set) | item

    def content(self, settings, class_set):
        """`outputs` without the STAC item that describes them."""
        if answers_values(settings.task):
            files = {"values": "_values.tif", "style": "_values.qml", "preview": "_preview.png"}
            return {kind: Path(self.folder) / f"{self.name}{ending}" for kind, ending in files.items()}
        if not answers_pixels(settings.task):
            tiles, preview = (f"{self.name}{ending}" for ending in (f"_tiles{WRITERS[settings.vectors].ending}", "_preview.png"))
            return {"tiles": Path(self.folder) / tiles, "preview": Path(self.folder) / preview}
        outlines = f"_{class_set.ending}{WRITERS[settings.vectors].ending}"
        files = {"classes": "_classes.tif", "style": "_classes.qml", "outlines": outlines, "preview": "_preview.png"}
        if settings.probabilities:
            files["probability"] = "_probability.tif"
        if settings.networks > 1:
            files["uncertainty"] = "_uncertainty.tif"
        return {kind: Path(self.folder) / f"{self.name}{ending}" for kind, ending in files.items()}

    @property
    def record(self):
        return Path(self.folder) / HIDDEN / f"{self.name}.json"

    @property
    def scratch(self):
        """The folder of the journal, while the map is being made."""
        return Path(self.folder) / HIDDEN / self.name

    def is_unfinished(self):
        """Whether an earlier run began this map and did not finish it."""
        return (self.scratch / "journal.jsonl").exists()

    def journal_size(self):
        """Bytes that an earlier run has written of this map."""
        path = self.scratch / "bands.bin"
        return path.stat().st_size if path.is_file() else 0

    def remove(self, names):
        """
        Delete files of the output folder, by their names, with what a run that was killed while writing them left. Styles of the user's
        stay.
        """
        for path in (Path(self.folder) / name for name in names):
            if is_of_the_user(path):
                continue
            for leftover in path.parent.glob(f".{glob.escape(path.stem)}.part{path.suffix}*"):  # see atomic_path; SQLite adds a journal
                leftover.unlink()
            clear_scratch(scratch_of(path))
            path.unlink(missing_ok=True)


def finished_record(files, plan, model, settings):
    """
    The record of a scene that these settings have mapped already, None if there is work to do.

    UserError where there are files that may not be replaced: made with other settings, or by something else.
    """
    outputs = files.outputs(settings, model.class_set).values()
    return record_of_settings(files, outputs, lambda: plain(full_settings(plan, model, settings)), read_record)


def record_of_settings(files, outputs, settings, read, whole=True):
    """
    The record of a scene or an image whose outputs are all there and made with settings(), None if there is work to do.

    files: MapFiles or alike. outputs: paths that it may have. read(path): the record. whole: whether what else belongs to it is there.
    UserError: see finished_record.
    """
    existing = [path for path in outputs if path.exists() and not is_of_the_user(path)]
    if not existing:
        return None
    if files.record.exists():
        earlier, now = read(files.record), settings()
        named = {name for name in earlier["files"] if not is_of_the_user(Path(files.folder) / name)}
        if earlier["settings"] == now and named == {path.name for path in existing} and whole:
            return earlier
        if earlier["settings"] not in (now, None):  # None: of one that was not finished
            difference = describe_difference(earlier["settings"], now)
            raise UserError(f"{existing[0]} exists, made with other settings ({difference}); pass --overwrite or another --output-dir")
    if files.is_unfinished():
        return None  # killed while the files were being written: they are ours
    raise UserError(f"{existing[0]} exists already; pass --overwrite to replace it, or another --output-dir")


def add_item(files, record, plan, model, settings):
    """Writes the STAC item of a map whose other files are there, where settings ask for one, and names it in the record (or why not)."""
    if settings.stac:
        keep_item(stac_item(record, plan, files, model, settings), files.outputs(settings, model.class_set)["stac"], record)


def keep_item(item, path, record):
    """Writes a STAC item beside the files of a record, which then names it; says there why there is none, where it is None."""
    if item is None:
        record["remarks"].append(WITHOUT_DATE)
    else:
        write_json(path, item)
        record["files"].append(path.name)


def end_record(files, record, settings, expected):
    """
    The map is finished: keeps its record, which it returns with its settings. files: MapFiles or alike. expected: of begin_record; those
    that the map has not (polygons, where it can have none) are of an earlier one, and deleted.
    """
    record["settings"] = settings
    files.remove(expected - set(record["files"]))
    write_json(files.record, record)
    return record


def begin_record(files, settings, class_set, overwrite=False):
    """
    Deletes stale outputs of an earlier map of the scene, those that the new one will not replace. → {names of the files it may have}.

    Before that the record names all of them, without settings until the map is finished: a run that is killed, and followed by one with
    other outputs, leaves no stale file either.
    """
    expected = {path.name for path in files.outputs(settings, class_set).values()}
    earlier = earlier_files(files.record, overwrite)
    write_json(files.record, {"settings": None, "files": sorted(earlier | expected)})
    files.remove(earlier - expected)
    return expected
