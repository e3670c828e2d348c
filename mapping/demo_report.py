"""The demo's report: reads what its stages made, compares the map with the truth, and fills in the story."""

import csv
import datetime
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
import torch

from constants import CEMS_BANDS, CLASS_COLOURS, IGNORE, SENTINEL2_DIVISOR, SENTINEL2_L2A_BANDS, SENTINEL2_OFFSET, VERSION
from mapping.false_alarm import find_false_alarm
from nets.input_step import index_values
from pictures.encoding import jpeg_bytes
from pictures.false_alarm import with_alarm
from pictures.overlays import judge
from pictures.scene_views import scene_views
from pictures.sheets import fit_within
from pictures.story import Scores, Story, build_report, headline
from raster.scale import to_reflectance
from runtime.checkpoint import load_checkpoint
from runtime.fields import NUMBER, TRUTH, or_none, read_checked
from runtime.files import write_text
from runtime.words import duration, thousands
from spectral_indices import index_positions

SCORES = {"nbr_threshold": or_none(NUMBER), "nbr_fire_is_above": or_none(TRUTH)}  # what is read of scores_test.json
HECTARE = 100  # pixels of 10 m
SAVED = 640  # pixels of the longer side of pictures that are saved as files


@dataclass(frozen=True)
class MappedScene:
    """A generated scene and its map on one grid. All (H, W) but reflectance."""

    name: str
    date: datetime.date
    reflectance: np.ndarray  # (12, H, W) float32; 0 in all bands where nodata
    truth: np.ndarray  # classes 0, 1; 255 nodata
    prediction: np.ndarray  # likewise
    probability: np.ndarray  # 0..1; NaN where nodata

    @property
    def nodata(self):
        return (self.reflectance == 0).all(axis=0)


def read_band(path):
    """The first band of a raster and its scale."""
    with rasterio.open(path) as dataset:
        return dataset.read(1), dataset.scales[0]


def read_mapped_scene(scene_path, maps):
    """The MappedScene of a `<tile>_S2L2A.tif` with its labels beside it and its map in the folder `maps`."""
    scene_path, maps = Path(scene_path), Path(maps)
    with rasterio.open(scene_path) as dataset:
        stored = dataset.read()
        day = datetime.date.fromisoformat(dataset.tags()["ACQUISITION_DATE"])
    reflectance = to_reflectance(stored.astype(np.float64), SENTINEL2_DIVISOR, SENTINEL2_OFFSET).astype(np.float32)
    reflectance[:, (stored == 0).all(axis=0)] = 0.0
    name = scene_path.stem.removesuffix("_S2L2A")
    truth, _ = read_band(scene_path.with_name(f"{name}_DEL.tif"))
    prediction, _ = read_band(maps / f"{scene_path.stem}_classes.tif")
    probability, scale = read_band(maps / f"{scene_path.stem}_probability.tif")
    probability = np.where(prediction == IGNORE, np.nan, probability * np.float32(scale))
    return MappedScene(name, day, reflectance, truth, prediction, probability)


def burn_index(scene):
    """(H, W) NBR of a MappedScene."""
    pair = [SENTINEL2_L2A_BANDS.index(CEMS_BANDS[i]) for i in index_positions("nbr", CEMS_BANDS)]
    return index_values("nbr", *torch.from_numpy(scene.reflectance)[pair]).numpy()


def map_by_index(scene, threshold, above):
    """The baseline's map (H, W): burnt where NBR is below the threshold, or from it on; 255 where nodata."""
    index = burn_index(scene)
    return np.where(scene.nodata, IGNORE, index >= threshold if above else index < threshold).astype(np.uint8)


def compare(name, truth, prediction):
    """Scores of a map over the pixels that both know. truth, prediction: (H, W) classes, 255 = nodata"""
    _, burned, mapped = judge(truth, prediction)
    hit, missed, false = (int(m.sum()) for m in (burned & mapped, burned & ~mapped, mapped & ~burned))

    def share(of):
        return hit / of if of else None

    shares = share(hit + missed), share(hit + false), share(hit + missed + false)
    return Scores(name, *shares, (hit + false) / HECTARE, missed / HECTARE, false / HECTARE)


def read_curves(path):
    """The rows of metrics.csv as numbers, epochs counted from 1."""
    with open(path, encoding="utf-8", newline="") as file:
        rows = [{k: float(v) if v else None for k, v in row.items()} for row in csv.DictReader(file)]
    return [{**row, "epoch": int(row["epoch"]) + 1} for row in rows]


def list_facts(size, seed, checkpoint, threshold):
    """[(name, text)] of how the page was made. size: the demo's DemoSize; threshold: of the burn index"""
    weights = sum(v.numel() for v in checkpoint["state"]["model"].values() if v.is_floating_point())
    side = size.scene_size / 100
    return [
        ("Scenes", f"{size.train_scenes} for training and {size.val_scenes} held back, {side:.1f} km a side; one to be mapped"),
        ("Network", f"U-Net of {thousands(weights)} weights, trained from nothing"),
        ("Sees", f"{len(CEMS_BANDS)} of the 12 bands: {', '.join(CEMS_BANDS)}"),
        ("Training", f"{size.epochs} epochs of {size.steps} steps of {size.batch_size} crops"),
        ("Checkpoint", "that of the last epoch; each pixel gets its most likely class, nothing is chosen on the scenes held back"),
        ("NBR threshold", f"{threshold:.2f}, chosen on the training scenes"),
        ("Seed", str(seed)),
        ("Clouds", "judged like everything else: what burned beneath them counts"),
    ]


def gather_story(scene, run, *, scar, size, seed, stages, commands):
    """
    The Story of a MappedScene and the training run (folder) behind its map.

    scar: (H, W) bool, where a fire of earlier years burned. size: how much was generated and trained, see list_facts; stages: [(name,
    seconds)]; commands: [(comment, command)]
    """
    scores = read_checked(run / "scores_test.json", SCORES, "remove .stages/scores.json to score again")
    threshold, above = scores["nbr_threshold"], scores["nbr_fire_is_above"]
    if threshold is None:  # nothing burns in the training scenes
        threshold, above = -1.0, False
    baseline = map_by_index(scene, threshold, above)
    checkpoint = load_checkpoint(run / "checkpoints" / "final_model.pt", "segmentation")
    height, width = scene.truth.shape
    colour = CLASS_COLOURS[2][1]
    views = scene_views(scene.reflectance, SENTINEL2_L2A_BANDS, scene.truth, scene.prediction, scene.probability, baseline, colour)
    alarm = find_false_alarm(scene.truth, scene.prediction, scene.probability, burn_index(scene), scar)
    views["errors"] = with_alarm(views["errors"], alarm, width)
    return Story(
        scene=scene.name, date=f"{scene.date.day} {scene.date:%B %Y}", kilometres=(width / 100, height / 100),
        hectares=float((scene.truth == 1).sum()) / HECTARE, network=compare("Network", scene.truth, scene.prediction),
        baseline=compare("NBR threshold", scene.truth, baseline), views=views, curves=read_curves(run / "metrics.csv"),
        training=duration(dict(stages)["training"]), facts=list_facts(size, seed, checkpoint, threshold), stages=stages,
        commands=commands, version=VERSION,
    )


def write_report(path, story, save_pictures=None):
    """Write the report to `path`, and its pictures into the folder `save_pictures` if given. Returns the headline."""
    write_text(path, build_report(story))
    if save_pictures:
        Path(save_pictures).mkdir(parents=True, exist_ok=True)
        for name, view in story.views.items():
            (Path(save_pictures) / f"demo-{name.replace('_', '-')}.jpg").write_bytes(jpeg_bytes(fit_within(view.picture, SAVED)))
    return " ".join(headline(story))
