"""
Capture runs of coloured shapes that move over textured ground, with the exact boxes of what is visible.

    make_captures("captures", 6, CaptureRecipe(size=(640, 360), objects=(0, 5), frames=50, seed=0))

Frames are not square, the ground gets brighter to the right and greener downwards, and shapes have no symmetry: whoever mixes up rows and
columns, or maps boxes wrongly, gets a bad score. Some shapes are cut by the border; none hides another. The same seed gives the same bytes.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from runtime.errors import UserError
from runtime.files import (
    atomic_path,
    describe_difference,
    make_own_folder,
    read_json,
    remove_tree,
    require_writable,
    write_json,
    write_text,
)

BEGIN = 1767225600  # seconds since 1970: of the first run
STEP = 0.33  # seconds from frame to frame
LEAST = 18  # pixels of a shape's side, and of what the border leaves of it
CUT = 0.3  # most of a side that the border cuts off
LARGEST = 0.32  # of the frame's shorter side
GAP = 3  # pixels between shapes
SMALLEST_FRAME = 64
# Corners from 0 to 1 of a shape's own box.
SHAPES = (
    ((0, 0.1), (0.55, 0), (1, 0.35), (0.8, 1), (0.2, 0.85)),
    ((0, 0), (0.4, 0), (0.4, 0.6), (1, 0.6), (1, 1), (0, 1)),
    ((0, 0.35), (0.6, 0.35), (0.6, 0), (1, 0.5), (0.6, 1), (0.6, 0.65), (0, 0.65)),
    ((0.1, 0), (1, 0.2), (0.85, 1), (0, 0.75)),
)
COLOURS = ((214, 48, 62), (38, 92, 214), (236, 196, 40), (180, 60, 190), (30, 190, 190), (240, 120, 30))


@dataclass(frozen=True)
class CaptureRecipe:
    """size: (width, height) of a frame. objects: (fewest, most) in a frame. frames: of each run. seed: of everything."""

    size: tuple = (640, 360)
    objects: tuple = (0, 5)
    frames: int = 50
    seed: int = 0


@dataclass
class Shape:
    """corners: (P, 2) from the shape's own left top, in pixels. place: [x, y] of that, speed: [x, y] a frame. colour: (3,)."""

    corners: np.ndarray
    place: np.ndarray
    speed: np.ndarray
    colour: np.ndarray

    @property
    def extent(self):
        return self.corners.max(axis=0)


def make_captures(folder, runs, recipe, overwrite=False, progress=lambda count: None):
    """(frames made, boxes in them) in `folder`. Frames that are there stay. progress(count): called with each frame."""
    if min(recipe.size) < SMALLEST_FRAME:
        raise UserError(f"--size {recipe.size[0]}x{recipe.size[1]} is too small; expected {SMALLEST_FRAME} pixels a side at least")
    folder, made, boxes = Path(folder), 0, 0
    require_writable(folder)
    names = [f"run_{(BEGIN + 100_000 * recipe.seed + number) * 1000}" for number in range(runs)]
    manifests = [manifest_of(folder, name, recipe) for name in names]
    for name, manifest in zip(names, manifests, strict=True):
        refuse_other(folder / name, manifest, overwrite)
    for number, (name, manifest) in enumerate(zip(names, manifests, strict=True)):
        place = folder / name
        if (place / "run_manifest.json").is_file() and read_json(place / "run_manifest.json") != manifest:
            for part in (place / "images", place / "labels", place):  # the manifest goes last and comes first: it says whose folder this is
                remove_tree(part)
        make_own_folder(place)
        write_json(place / "run_manifest.json", manifest, sync=False)
        for part in ("images", "labels"):
            make_own_folder(place / part)
        for count in make_run(place, number, recipe):
            made, boxes = made + (count is not None), boxes + (count or 0)
            progress(1)
    return made, boxes


def manifest_of(folder, name, recipe):
    generator = {"name": "chip.py fake-captures", "size": list(recipe.size), "objects": list(recipe.objects), "frames": recipe.frames,
                 "seed": recipe.seed}
    return {"schema_version": 1, "seed": recipe.seed, "output_root": ".", "run_dir": name, "started_at_unix": int(name[4:]) / 1000,
            "max_frames": recipe.frames, "generator": generator}


def refuse_other(place, manifest, overwrite):
    """UserError where a run's folder is there and holds another run, before anything is written."""
    path = place / "run_manifest.json"
    if not place.exists():
        return
    if not path.is_file():
        if any(path.name[0] != "." for path in place.iterdir()):  # a manifest that was half written has a hidden name
            raise UserError(f"{place} is not empty and was not made by fake-captures; choose another --output-dir")
        return
    there = read_json(path).get("generator")
    if not isinstance(there, dict) or there.get("name") != manifest["generator"]["name"]:
        raise UserError(f"{place} holds a real run; choose another --output-dir")
    if there != manifest["generator"] and not overwrite:
        raise UserError(f"{place} was made otherwise ({describe_difference(there, manifest['generator'])}); pass --overwrite to replace it")


def make_run(place, number, recipe):
    """Yields the number of boxes of each frame that is made, None for one that is there."""
    rng = np.random.default_rng([recipe.seed, number])
    reach = 2 * 24
    ground = make_ground(rng, recipe.size[0] + reach, recipe.size[1] + reach)
    drift = rng.uniform(0, 2 * math.pi, 2)
    begin = BEGIN + 100_000 * recipe.seed + number
    for frame, shapes in enumerate(move_shapes(rng, recipe)):
        name = f"frame_{frame:05d}"
        image, label = place / "images" / f"{name}.png", place / "labels" / f"{name}.json"
        if image.is_file() and label.is_file():
            yield None
            continue
        left, top = (int(round(reach / 2 * (1 + math.sin(phase + frame / pace)))) for phase, pace in zip(drift, (23, 31), strict=True))
        pixels = ground[top : top + recipe.size[1], left : left + recipe.size[0]].copy()
        boxes = [paint(pixels, shape) for shape in shapes]
        with atomic_path(image, sync=False) as temporary:
            Image.fromarray(pixels).save(temporary, compress_level=1)
        write_text(label, json.dumps(label_of(frame, name, boxes, recipe, begin)) + "\n", sync=False)
        yield len(boxes)


def label_of(frame, name, boxes, recipe, begin):
    """What the label file of a frame holds. boxes: rows of whole pixels."""
    width, height = recipe.size
    labels = [
        {"center_world": None, "bbox_px": box, "bbox_norm": [box[0] / width, box[1] / height, box[2] / width, box[3] / height],
         "source": "sim_auto", "source_confidence": None}
        for box in boxes
    ]
    return {"frame_id": frame, "sim_time": round(STEP * frame, 2), "unix_time": round(begin + STEP * frame, 2),
            "image": f"images/{name}.png", "image_present": True, "camera_active": True, "label_seed": recipe.seed, "labels": labels}


# --- ground --------------------------------------------------------------------------------------------------------------------


def make_ground(rng, width, height):
    """(height, width, 3) uint8: soil with patches of several sizes and grain, brighter to the right, greener downwards."""
    texture = np.zeros((height, width), np.float32)
    for cell, strength in ((96, 16.0), (32, 11.0), (11, 8.0), (4, 6.0)):
        coarse = rng.standard_normal((height // cell + 3, width // cell + 3), dtype=np.float32)
        fine = np.asarray(Image.fromarray(coarse).resize((coarse.shape[1] * cell, coarse.shape[0] * cell), Image.Resampling.BICUBIC))
        texture += strength * fine[cell : cell + height, cell : cell + width]
    texture += rng.standard_normal((height, width), dtype=np.float32) * 4
    base = np.array(rng.uniform((85, 80, 60), (140, 125, 95)), np.float32)
    ground = base + texture[..., None] * np.array((1.0, 0.95, 0.8), np.float32)
    ground += np.linspace(-18, 18, width, dtype=np.float32)[None, :, None]
    ground[..., 1] += np.linspace(-12, 12, height, dtype=np.float32)[:, None]
    return ground.clip(0, 255).astype(np.uint8)


# --- shapes --------------------------------------------------------------------------------------------------------------------


def move_shapes(rng, recipe):
    """Yields the shapes of each frame, which none but the next call changes."""
    low, high = recipe.objects
    shapes, wanted, until = [], int(rng.integers(low, high + 1)), 0
    for frame in range(recipe.frames):
        if frame >= until:
            wanted, until = int(rng.integers(low, high + 1)), frame + int(rng.integers(4, 13))
        while len(shapes) > wanted:
            shapes.pop(int(rng.integers(len(shapes))))
        for shape in shapes:
            move(rng, shape, [other for other in shapes if other is not shape], recipe.size)
        while len(shapes) < wanted and (shape := new_shape(rng, shapes, recipe.size)) is not None:
            shapes.append(shape)
        if len(shapes) < low:
            raise UserError(f"--objects {low}: no place for so many in {recipe.size[0]}x{recipe.size[1]} pixels; pass a larger --size")
        yield shapes


def new_shape(rng, others, size):
    """A Shape where there is room for it, smaller ones after many tries; None where there is none."""
    most = max(LEAST + 2, LARGEST * min(size))
    corners = np.array(SHAPES[rng.integers(len(SHAPES))], np.float64)
    corners = corners[:, ::-1] if rng.random() < 0.5 else corners
    extent = np.exp(rng.uniform(math.log(LEAST + 1), math.log(most), 2))
    colour = np.array(COLOURS[rng.integers(len(COLOURS))], np.float64) + rng.uniform(-18, 18, 3)
    angle, pace = rng.uniform(0, 2 * math.pi), rng.uniform(2, 9)
    speed = pace * np.array([math.cos(angle), math.sin(angle)])
    for attempt in range(400):
        if attempt % 50 == 49:
            extent = np.maximum(LEAST, 0.8 * extent)
        shape = Shape(corners * extent, np.zeros(2), speed, colour)
        low, high = range_of(shape, size)
        shape.place = rng.uniform(low, high)
        if is_free(shape, others):
            return shape
    return None


def range_of(shape, size):
    """(lowest, highest) place of a shape, at which the border cuts off a part of it."""
    cut = np.minimum(CUT * shape.extent, shape.extent - LEAST)
    return -cut, np.asarray(size) - shape.extent + cut


def is_free(shape, others):
    """Whether the box of a shape is apart from those of others."""
    near, far = shape.place - GAP, shape.place + shape.extent + GAP
    return not any((other.place < far).all() and (other.place + other.extent > near).all() for other in others)


def move(rng, shape, others, size):
    """One step on; back from the border; elsewhere where another shape is in the way, or nowhere."""
    low, high = range_of(shape, size)
    before = shape.place
    for _ in range(8):
        after = before + shape.speed
        outside = (after < low) | (after > high)
        shape.speed = np.where(outside, -shape.speed, shape.speed)
        shape.place = np.clip(after, low, high)
        if is_free(shape, others):
            return
        angle = rng.uniform(0, 2 * math.pi)
        shape.speed = np.hypot(*shape.speed) * np.array([math.cos(angle), math.sin(angle)])
    shape.place = before


def paint(pixels, shape):
    """Paint a shape into (H, W, 3) uint8 pixels. → [x0, y0, x1, y1] of what is visible of it, whole pixels."""
    height, width = pixels.shape[:2]
    canvas = Image.new("1", (width, height))
    ImageDraw.Draw(canvas).polygon([tuple(corner) for corner in shape.corners + shape.place], fill=1)
    mask = np.asarray(canvas)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]
    part = np.s_[box[1] : box[3], box[0] : box[2]]
    light = np.linspace(0.8, 1.15, box[2] - box[0])[None, :, None]  # from the right
    grain = 1 + (pixels[part].mean(axis=2, keepdims=True) - 110) / 900
    colour = np.clip(shape.colour * light * grain, 0, 255).astype(np.uint8)
    pixels[part] = np.where(mask[part][..., None], colour, pixels[part])
    return box
