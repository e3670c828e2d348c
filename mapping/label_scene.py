"""
The labels of a scene's tiles, and of the whole scene: predicted row by row of tiles, streamed, and resumed after a kill.

A tile is judged by a window of the training's size. Where the last window is aligned to the scene's edge it overlaps its neighbour; the
ground that a tile stands for ends where the next one begins, so each pixel belongs to one tile.
"""

import contextlib
from dataclasses import dataclass

import numpy as np

from constants import IGNORE
from label_metrics import DECIDED
from mapping.area_of_interest import require_area
from mapping.background import ReadAhead
from mapping.journal import RowJournal, deflate, inflate
from mapping.map_files import add_item, begin_record, end_record
from mapping.map_writer import delivered_as, place_on_globe
from mapping.polygons import Area
from mapping.preview import Preview, heading_of, thumbnail_step
from mapping.reading import read_slabs
from mapping.segmentation import Strip, stride_of
from mapping.settings import band_settings, full_settings
from mapping.summary import hectares
from mapping.unreadable import in_record, remarks_on, require_some
from nets.model_config import answers_labels
from raster.area import pixel_areas
from raster.windows import WindowGrid
from vectors.writing import STRAIGHT, WRITERS


@dataclass
class TileRow:
    """
    A row of tiles. row, rows: of the ground that they stand for. probability: (tiles, classes) float32. pixels: (tiles,) int64 valid ones.
    metres: (tiles,) float64 square metres of these. thumbnail: as of mapping.journal.StoredBand. unreadable: see Slab.
    """

    row: int
    rows: int
    probability: np.ndarray
    pixels: np.ndarray
    metres: np.ndarray
    thumbnail: np.ndarray
    unreadable: list


class TileJournal(RowJournal):
    """Its bands are TileRows."""

    def pack(self, band):
        line = {"rows": band.rows, "shape": list(band.probability.shape), "thumbnail": list(band.thumbnail.shape),
                "unreadable": band.unreadable}
        return line, [deflate(part) for part in (band.probability, band.pixels, band.metres, band.thumbnail)]

    def unpack(self, line, parts):
        tiles, kinds = line["shape"][:1], (np.float32, np.int64, np.float64, np.float16)
        shapes = (line["shape"], tiles, tiles, line["thumbnail"])
        arrays = [inflate(data, shape, kind) for data, shape, kind in zip(parts, shapes, kinds, strict=True)]
        return TileRow(line["row"], line["rows"], *arrays, line["unreadable"])

    def rows_of(self, line):
        return line["rows"]

    def fits(self, line):
        (tiles, classes), (bands, high, wide) = line["shape"], line["thumbnail"]
        return (all(type(n) is int and n >= 0 for n in (tiles, classes, bands, high, wide, line["rows"])) and len(line["bytes"]) == 4
                and isinstance(line["unreadable"], list))


def label_scene(predictor, plan, files, model, settings, *, overwrite=False, progress=None):
    """As mapping.scene.map_scene: the labels of a scene's tiles, <scene>_tiles.geojson (or .gpkg) and <scene>_preview.png."""
    info = plan.info
    areas = pixel_areas(info.crs, info.transform, info.height, info.width)
    aoi = require_area(info, settings.aoi)
    grid = WindowGrid(info.height, info.width, settings.window, stride_of(settings.window, settings.overlap))
    with TileJournal(files.scratch, band_settings(plan, model, settings), overwrite) as journal:
        expected = begin_record(files, settings, model.class_set, overwrite)
        if journal.next_row < info.height:
            bar = progress(grid.count, grid.count_above(journal.next_row)) if progress else None
            with ReadAhead(read_slabs(plan, aoi, journal.next_row, settings.strict, settings.window)) as slabs:
                for row in predict_rows(predictor, slabs, grid, areas, journal.next_row, thumbnail_step(info.height, info.width), bar):
                    journal.append(row)
        record = finish_tiles(journal.bands(), grid, plan, files, model, settings, areas)
        add_item(files, record, plan, model, settings)
        return end_record(files, record, full_settings(plan, model, settings), expected)


def predict_rows(predictor, slabs, grid, areas, start_row, step, progress=None):
    """TileRows from the one that begins at `start_row` on. step: of the thumbnail. progress: called with the number of windows."""
    strip = Strip(slabs, grid.size, grid.width, predictor.device)
    rows, columns = grid.rows, grid.columns
    stops = [*rows[1:], grid.height]
    for k in range(rows.index(start_row), len(rows)):
        strip.move_to(rows[k])
        own = strip.mapped[: stops[k] - rows[k], : grid.width]
        pixels = np.add.reduceat(own.sum(axis=0, dtype=np.int64), columns)
        metres = own * areas.of_rows(rows[k], stops[k]) if areas else own.astype(np.float64)
        metres = np.add.reduceat(metres.sum(axis=0), columns)
        probability = np.zeros((len(columns), predictor.num_classes), np.float32)
        wanted = np.flatnonzero(pixels).tolist()
        for n in range(0, len(wanted), predictor.batch_size):
            chosen = wanted[n : n + predictor.batch_size]
            stored, valid = strip.crops([columns[i] for i in chosen])
            probability[chosen] = predictor.probabilities(
                predictor.reflectance(stored, valid, strip.unsigned), rows[k], [columns[i] for i in chosen]).cpu().numpy()
        if progress:
            progress(len(columns))
        thumbnail = strip.thumbnail(predictor, (rows[k], stops[k]), (0, strip.width), step)
        yield TileRow(rows[k], stops[k] - rows[k], probability, pixels, metres, thumbnail, strip.unreadable_above(stops[k]))


def finish_tiles(tile_rows, grid, plan, files, model, settings, areas):
    """One pass over all TileRows writes the scene's files. Returns the record, without its settings."""
    info, paths, several = plan.info, files.content(settings, model.class_set), answers_labels(settings.task)
    limit = settings.threshold if settings.threshold is not None else DECIDED
    globe, remarks = place_on_globe(info, areas, WRITERS[settings.vectors])
    if globe is None:
        paths.pop("tiles")
    whole, unreadable = WholeScene(len(model.classes), several, limit), []
    preview = Preview(info, model.bands, model.class_set, heading_of(plan, files.name))
    edges = [*grid.columns, info.width]
    with contextlib.ExitStack() as stack:
        out = stack.enter_context(WRITERS[settings.vectors](paths["tiles"], globe, model.classes)) if globe else None
        for tiles in tile_rows:
            there = whole.add(tiles)
            preview.add(painted(tiles, there, edges))
            unreadable += tiles.unreadable
            if out:
                out.add([tile_area(tiles, place, c, edges, areas) for place, c in zip(*np.nonzero(there), strict=True)])
        summary = whole.summary(model.classes, info, areas)
        require_some(info, unreadable, summary["valid_fraction"])
        preview.save(paths["preview"])
    remarks += remarks_on(unreadable, summary["valid_fraction"])
    return {
        "scene": files.name, "source": info.path, "task": settings.task, "width": info.width, "height": info.height,
        "crs": info.crs.to_string() if info.crs else None, **summary, "polygons": out.count if out else None,
        **in_record(unreadable), "remarks": remarks, **delivered_as(plan), "files": [path.name for path in paths.values()],
    }


class WholeScene:
    """
    What all tiles of a scene say together. Of one class a tile, the scene's probability is the mean over its valid pixels; of several
    labels the highest of any tile. limit: probability from which a label is there.
    """

    def __init__(self, classes, several, limit):
        self.several, self.limit = several, limit
        self.pixels, self.metres = np.zeros(classes, np.int64), np.zeros(classes)
        self.sums, self.highest, self.total, self.area = np.zeros(classes), np.zeros(classes), 0, 0.0

    def add(self, tiles):
        """→ (tiles, classes) bool: which labels each tile has; none where no pixel is valid."""
        valid = tiles.pixels > 0
        there = tiles.probability >= self.limit if self.several else np.eye(len(self.sums), dtype=bool)[tiles.probability.argmax(axis=1)]
        there = there & valid[:, None]
        self.pixels += tiles.pixels @ there
        self.metres += tiles.metres @ there
        self.sums += tiles.pixels @ tiles.probability.astype(np.float64)
        self.highest = np.maximum(self.highest, np.where(valid[:, None], tiles.probability, 0).max(axis=0))
        self.total, self.area = self.total + int(tiles.pixels.sum()), self.area + float(tiles.metres.sum())
        return there

    def summary(self, names, info, areas):
        """label and probability of the scene, the probability of each label, and pixels, hectares and share of the tiles that have it."""
        known, total = areas is not None, self.total
        chances = self.highest if self.several else self.sums / max(1, total)
        found = [c for c in range(len(names)) if chances[c] >= self.limit] if self.several else [int(chances.argmax())]
        return {
            "label": "; ".join(names[c] for c in found) if total else "",
            "probability": float(max((chances[c] for c in found), default=0.0)) if total else None,
            "labels": {name: float(chance) if total else None for name, chance in zip(names, chances, strict=True)},
            "valid_fraction": total / (info.height * info.width), "valid_hectares": hectares(self.area) if known else None,
            "classes": {
                name: {"pixels": int(n), "hectares": hectares(m) if known else None, "fraction": float(n / total) if total else None}
                for name, n, m in zip(names, self.pixels, self.metres, strict=True)
            },
        }


@dataclass
class Painted:
    """What Preview takes of a row of tiles."""

    row: int
    classes: np.ndarray
    thumbnail: np.ndarray


def painted(tiles, there, edges):
    """The row of tiles as a map (rows, W): each tile's likeliest label, 255 where it has none."""
    best = np.where(there.any(axis=1), np.where(there, tiles.probability, -1).argmax(axis=1), IGNORE).astype(np.uint8)
    line = np.repeat(best, np.diff(edges))
    return Painted(tiles.row, np.broadcast_to(line, (tiles.rows, len(line))), tiles.thumbnail)


def tile_area(tiles, place, label, edges, areas):
    """The vectors.writing area of a tile's ground with one of its labels."""
    left, right, top, bottom = edges[place], edges[place + 1], tiles.row, tiles.row + tiles.rows
    across, down = steps(left, right), steps(top, bottom)
    ring = [*((x, top) for x in across[:-1]), *((right, y) for y in down[:-1]), *((x, bottom) for x in across[:0:-1]),
            *((left, y) for y in down[:0:-1])]
    metres = float(tiles.metres[place]) if areas else None
    return Area(int(label), int(tiles.pixels[place]), metres, float(tiles.probability[place, label]), np.array(ring, np.int64),
                np.array([len(ring)]), int(left), int(top), False)


def steps(first, last):
    """Corners along a side, at most STRAIGHT pixels apart."""
    return [*range(int(first), int(last), STRAIGHT), int(last)]
