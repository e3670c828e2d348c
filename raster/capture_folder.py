"""The folder of a capture run, a camera's frames with a JSON file of labels for each: by what it is known, and where its frames lie."""

from pathlib import Path

RUN_MANIFEST, LABELS, IMAGES = "run_manifest.json", "labels", "images"


def is_run(folder):
    return (folder / LABELS).is_dir() or (folder / RUN_MANIFEST).is_file()


def frames_folder(folder):
    """Where the frames of a run lie: in images/, or in its own folder. None where `folder` is no run."""
    folder = Path(folder)
    return folder / IMAGES if (folder / IMAGES).is_dir() else folder if is_run(folder) else None
