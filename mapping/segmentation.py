"""
Pixel-wise maps of anything from one pixel to a hundred thousand rows: windows, network, blending, row bands out.

    classes, probabilities = predict_array(model, reflectance)             # arrays, for notebooks
    for band in predict_bands(predictor, slabs, grid): …                    # what inference.py streams

A band is the rows that no later window touches. Only one row of windows is in memory at any time.
"""

import collections
import warnings
from dataclasses import dataclass

import numpy as np
import torch

from constants import IGNORE
from mapping.blending import Blender, decide_classes, together
from mapping.reading import Slab
from nets.model_config import answers_pixels, answers_values
from nets.output_step import answers_of
from nets.turns import VIEWS, turned, turned_back
from raster.plausible import band_figures, judge
from raster.scale import Scale, become_reflectance, to_reflectance
from raster.windows import WindowGrid
from runtime.device import Compute, choose_device
from runtime.errors import UserError

SAMPLE = 100_000  # pixels of an array that are looked at to judge its scale


@dataclass
class Band:
    """
    Finished rows of a map.

    row: of the first. classes: (rows, W) uint8, 255 where not valid. probability: (rows, W) float32, 1 − p_0 or that of the class (see
    decide_classes), 0 where not valid; of a regression the value, beside class 0. valid: (rows, W) bool. probabilities: (classes, rows, W)
    float32, only if asked for. highest: the highest probability of a valid pixel, 0 without one. windows: how many were run. unreadable:
    see Slab; those whose first row is in the band. thumbnail: (C, n, m) float16 reflectance of every so many-th row and column of the
    scene, n may be 0; None if not asked for. spread, votes: see mapping.blending.together, 0 where not valid; None of one network.
    beyond: (rows, W) bool, see mapping.index_check; None if not asked for.
    """

    row: int
    classes: np.ndarray
    probability: np.ndarray
    valid: np.ndarray
    highest: float
    unreadable: list
    windows: int = 0
    probabilities: np.ndarray | None = None
    thumbnail: np.ndarray | None = None
    spread: np.ndarray | None = None
    votes: np.ndarray | None = None
    beyond: np.ndarray | None = None


class Predictor:
    """
    A model and how it is run: stored pixels in, class probabilities out.

    scale: raster.scale.Scale of the stored values. compute: runtime.device.Compute; compiled (the first window takes a minute), all batches
    have one size. tta: the mean over the eight flips and turns. batch_size: windows at once. task: what the model was trained for; of a
    regression "probabilities" are its values, and where whole windows are judged they are (B, classes). coordinates: SceneCoordinates of a
    model that takes some, else None.
    """

    members = 1  # networks, see mapping.ensemble

    def __init__(self, model, num_classes, scale, compute, *, tta=False, batch_size=8, task="segmentation", coordinates=None):
        self.task, self.coordinates = task, coordinates
        self.compute, self.device = compute, compute.device
        self.memory_format = torch.channels_last if compute.channels_last else torch.contiguous_format
        self.model = compute.compiled(model.to(self.device, memory_format=self.memory_format).eval())
        self.num_classes, self.tta, self.batch_size = num_classes, tta, batch_size
        self.reflectance = ToReflectance(scale, self.device, self.memory_format)

    @torch.inference_mode()
    def probabilities(self, x, row=None, columns=()):
        """(B, C, H, W) reflectance → (B, classes, H, W) float32. row, columns: of the scene that the windows begin with."""
        count = len(x)
        known = self.coordinates.of_windows(row, columns, x.shape[-1]) if self.coordinates and row is not None else {}
        if self.compute.compile and count < self.batch_size:
            x = torch.cat([x, x.new_zeros(self.batch_size - count, *x.shape[1:])])
            known = {name: torch.cat([values, values[:1].expand(len(x) - count, *values.shape[1:])]) for name, values in known.items()}
        known = {name: values.to(self.device) for name, values in known.items()}
        if not self.tta:
            return self.answers(x, known)[:count]
        total = 0
        for view in VIEWS:
            answer = self.answers(turned(x, view).contiguous(memory_format=self.memory_format), known)
            total = total + (turned_back(answer, view) if answers_pixels(self.task) else answer)
        return total[:count] / len(VIEWS)

    def answers(self, x, coordinates):
        with self.compute.autocast():
            logits = self.model(x, **coordinates)
        sides = tuple(x.shape[-2:]) if answers_pixels(self.task) else ()
        if logits.shape != (len(x), self.num_classes, *sides):
            expected = f"({', '.join(map(str, ('B', self.num_classes, *sides)))})"
            raise UserError(f"the model's output has shape {tuple(logits.shape)}, expected {expected}; pass a {self.task} model")
        return answers_of(self.task, logits)


class ToReflectance:
    """
    Stored pixels as a network gets them: (B, C, H, W) stored values → float32 reflectance, 0 where (B, H, W) valid is False. unsigned:
    int16 stands for uint16.
    """

    def __init__(self, scale, device, memory_format):
        self.memory_format = memory_format
        self.divide_by = torch.tensor(scale.divide_by, dtype=torch.float32, device=device)
        self.offset = torch.tensor(scale.offset, dtype=torch.float32, device=device) if any(scale.offset) else 0.0

    def __call__(self, stored, valid, unsigned):
        x = stored.to(torch.float32, copy=True)  # what is stored may be a part of the strip
        if unsigned:
            x = torch.where(x < 0, x + 65536, x)
        become_reflectance(x, self.divide_by, self.offset)
        if x.device.type != "cpu" or not valid.all():  # a look at another device would wait for it
            x.masked_fill_(~valid[:, None], 0.0)
        return x.contiguous(memory_format=self.memory_format)


class Strip:
    """
    The rows of a scene that one row of windows covers, on the device; slabs of any height go in, and each is copied there once.

    pixels: (C, size, W) stored values (uint16 as int16 of the same bits: not every device computes with uint16). valid: (size, W) bool.
    mapped: (size, W) bool in host memory, the valid pixels that are wanted.
    W is at least `across`, the windows' width (None: `size`): a narrower scene is padded with invalid pixels.
    """

    def __init__(self, slabs, size, width, device, across=None):
        self.slabs, self.size, self.width, self.device, self.across = iter(slabs), size, width, device, across or size
        self.row = None  # first row of the scene that is in the strip
        self.pixels = self.slab = None
        self.unsigned = False
        self.unreadable = []

    def restart(self, slabs):
        """Begin anew, in the same memory, with other slabs of the same type and width."""
        self.slabs, self.row, self.slab, self.unreadable = iter(slabs), None, None, []

    def move_to(self, row):
        """Let the strip begin with a row of the scene; rows below its end stay invalid."""
        if self.row is None:
            self.take(row)
        keep = 0 if self.row is None else max(0, self.row + self.size - row)
        if 0 < keep < self.size:
            self.pixels[:, :keep] = self.pixels[:, self.size - keep :].clone()
            self.valid[:keep] = self.valid[self.size - keep :].clone()
            self.mapped[:keep] = self.mapped[self.size - keep :].copy()
        self.mapped[keep:] = False
        fresh = np.zeros((self.size - keep, self.mapped.shape[1]), dtype=bool)
        self.row, first = row, row + keep
        while first < row + self.size and self.slab is not None:
            end = self.slab.row + self.slab.pixels.shape[1]
            if end <= first:
                self.take(first)
                continue
            count = min(end, row + self.size) - first
            there, here = slice(first - self.slab.row, first - self.slab.row + count), slice(first - row, first - row + count)
            pixels = self.slab.pixels[:, there]
            self.pixels[:, here, : self.width] = torch.from_numpy(pixels.view(np.int16) if self.unsigned else pixels)
            fresh[here.start - keep : here.stop - keep, : self.width] = valid = self.slab.valid[there]
            self.mapped[here, : self.width] = valid if self.slab.wanted is None else valid & self.slab.wanted[there]
            first += count
        self.valid[keep:] = torch.from_numpy(fresh)

    def take(self, row):
        """The next slab that reaches `row` or below; the first one also decides the strip's type."""
        self.slab = next((s for s in self.slabs if s.row + s.pixels.shape[1] > row), None)
        if self.slab is None:
            return
        self.unreadable += self.slab.unreadable
        if self.pixels is None:
            self.unsigned = self.slab.pixels.dtype == np.uint16
            kind = torch.int16 if self.unsigned else torch.from_numpy(self.slab.pixels[:0]).dtype
            across = max(self.width, self.across)
            self.pixels = torch.zeros(len(self.slab.pixels), self.size, across, dtype=kind, device=self.device)
            self.mapped = np.zeros((self.size, across), dtype=bool)
            self.valid = torch.zeros(self.size, across, dtype=torch.bool, device=self.device)

    def crops(self, columns):
        """(B, C, size, across) stored values and (B, size, across) validity of the windows that begin at some columns."""
        stored = torch.stack([self.pixels[:, :, c : c + self.across] for c in columns])
        return stored, torch.stack([self.valid[:, c : c + self.across] for c in columns])

    def reflectance(self, predictor, first, stop):
        """(1, C, rows, W) float32 of the rows first … stop of the scene, which lie in the strip."""
        here = slice(first - self.row, stop - self.row)
        return predictor.reflectance(self.pixels[None, :, here, : self.width], self.valid[None, here, : self.width], self.unsigned)

    @torch.inference_mode()
    def thumbnail(self, predictor, rows, columns, step, left=0):
        """
        (C, n, m) float16 reflectance of every `step`-th row and column of the scene that lies in rows (first, stop) and columns (first,
        stop); 0 where not mapped; n and m may be 0. left: column of the scene that the strip begins with.
        """
        down, across = (slice(-(-first // step) * step - start, max(first, stop) - start, step)
                        for (first, stop), start in ((rows, self.row), (columns, left)))
        mapped = torch.from_numpy(self.mapped[down, across]).to(self.device)
        values = predictor.reflectance(self.pixels[None, :, down, across], mapped[None], self.unsigned)
        return values[0].clamp(-9, 9).to(torch.float16).cpu().numpy()

    def unreadable_above(self, row):
        """Unreadable blocks that begin above `row`; each is returned once."""
        above = [u for u in self.unreadable if u[0] < row]
        self.unreadable = [u for u in self.unreadable if u[0] >= row]
        return above


def predict_bands(predictor, slabs, grids, *, threshold=None, each=False, start_row=0, keep_probabilities=False, thumbnail_step=None,
                  progress=None, beyond=None):
    """
    Bands of a scene's map from row `start_row` on, in order.

    slabs: Slabs that cover rows `first_row_for(start_row)` of every grid … to the end. grids: a WindowGrid, or several, whose probabilities
    are averaged. threshold, each: see decide_classes. start_row: a band's first row; what is above is finished already, and windows that
    reach below it are run again. thumbnail_step: keep every so many-th row and column of the reflectance in the bands. progress: called
    with the number of windows that are done. beyond: of mapping.index_check.IndexCheck, for the bands to hold, or None.
    """
    grids = (grids,) if isinstance(grids, WindowGrid) else tuple(grids)
    # Grids advance in turn, so that a slab waits for no more than the largest window.
    sizes = [WindowSize(predictor, part, grid, start_row, progress) for part, grid in zip(shared(slabs, len(grids)), grids, strict=True)]
    row = start_row
    while row < grids[0].height:
        last = min(sizes, key=lambda size: size.stop)
        last.advance()
        stop = min(size.stop for size in sizes)
        if stop <= row:
            continue
        parts = [size.take(row, stop) for size in sizes]
        probability = parts[0] if len(parts) == 1 else sum(parts) / len(parts)
        spread = votes = None
        if predictor.members > 1:
            probability, spread, votes = together(probability, predictor.members, threshold, each)
        decided = values_only(probability) if answers_values(predictor.task) else decide_classes(probability, threshold, each)
        band = make_band(last.strip, row, stop, *decided)
        if spread is not None:
            band.spread, band.votes = (np.where(band.valid, values.cpu().numpy(), 0).astype(kind)
                                       for values, kind in ((spread, np.float32), (votes, np.uint8)))
        band.windows = sum(size.count_above(stop) for size in sizes)
        band.probabilities = probability.cpu().numpy() if keep_probabilities else None
        if thumbnail_step:
            band.thumbnail = last.strip.thumbnail(predictor, (row, stop), (0, last.strip.width), thumbnail_step)
        if beyond:
            band.beyond = beyond(last.strip.reflectance(predictor, row, stop))[0].cpu().numpy() & band.valid
        yield band
        row = stop


class WindowSize:
    """
    The windows of one WindowGrid over a scene, row of windows by row of windows: advance() runs the next, take() hands out finished rows.

    stop: rows above it are finished. strip: the rows under the windows that were run last.
    """

    def __init__(self, predictor, slabs, grid, start_row, progress=None):
        self.predictor, self.grid, self.start_row, self.progress = predictor, grid, start_row, progress
        self.blender = Blender(grid.height, grid.width, predictor.num_classes, grid.size, grid.stride, predictor.device,
                               shares=not answers_values(predictor.task))
        self.strip = Strip(slabs, grid.size, grid.width, predictor.device)
        self.k = self.blender.first_needed(start_row)
        self.blender.skip_to(self.k)
        self.finished, self.stop, self.counts = None, start_row, []  # (classes, rows, W) that end at `stop`; [(stop, windows), …]

    def advance(self):
        blender, strip, grid, predictor, k = self.blender, self.strip, self.grid, self.predictor, self.k
        strip.move_to(blender.rows[k])
        # One pass over the strip tells which windows have a pixel to be mapped.
        before = np.concatenate([[0], np.cumsum(strip.mapped.any(axis=0))])
        wanted = [i for i, c in enumerate(blender.columns) if before[min(c + grid.size, len(before) - 1)] > before[c]]
        for n in range(0, len(wanted), predictor.batch_size):
            indices = wanted[n : n + predictor.batch_size]
            columns = [blender.columns[i] for i in indices]
            stored, valid = strip.crops(columns)
            blender.add(k, indices, predictor.probabilities(predictor.reflectance(stored, valid, strip.unsigned), blender.rows[k], columns))
        if self.progress:
            self.progress(len(blender.columns))
        first, stop, probability = blender.finish(k)
        self.k += 1
        if stop <= self.start_row:
            return
        probability = probability[:, max(0, self.start_row - first) :]
        self.finished = probability if self.finished is None else torch.cat([self.finished, probability], dim=1)
        self.stop = stop
        self.counts.append((stop, len(wanted)))

    def take(self, row, stop):
        """(classes, rows, W) of the finished rows row … stop, which are forgotten; row: the first that was not taken."""
        taken, self.finished = self.finished[:, : stop - row], self.finished[:, stop - row :]
        return taken

    def count_above(self, stop):
        """How many windows were run for rows that end at `stop` or above; each is counted once, also in a run that is continued."""
        above = [count for end, count in self.counts if end <= stop]
        self.counts = self.counts[len(above) :]
        return sum(above)


def shared(slabs, readers):
    """As many iterators over all slabs; one is kept until the last of them has it."""
    slabs, waiting = iter(slabs), [collections.deque() for _ in range(readers)]

    def read(mine):
        while True:
            if not mine:
                slab = next(slabs, None)
                if slab is None:
                    return
                for queue in waiting:
                    queue.append(slab)
            yield mine.popleft()

    return [read(mine) for mine in waiting]


def values_only(values):
    """decide_classes of (1, rows, width) values: class 0 everywhere, and the values themselves."""
    return torch.zeros(values.shape[1:], dtype=torch.uint8, device=values.device), values[0]


def make_band(strip, first, stop, classes, probability):
    """The Band of the rows first … stop, which lie in the strip. classes, probability: (rows, W) tensors of decide_classes."""
    here = slice(first - strip.row, stop - strip.row)
    valid = strip.mapped[here, : strip.width].copy()
    classes, probability = classes.cpu().numpy(), probability.cpu().numpy()
    classes[~valid] = IGNORE
    probability[~valid] = 0
    unreadable = [u for u in strip.unreadable_above(stop) if u[0] >= first]  # of several strips, another one told of those above
    return Band(first, classes, probability, valid, highest=float(probability.max(initial=0)), unreadable=unreadable)


def predict_array(model, image, valid=None, *, divide_by=1.0, offset=0.0, window=256, overlap=0.25, threshold=None, batch_size=8,
                  device="auto", precision="fp32", tta=False, num_classes=None, accept_scale=False):
    """
    (classes (H, W) uint8 with 255 where invalid, probabilities (classes, H, W) float32) of an image in memory.

    image: (C, H, W) reflectance, or stored values with divide_by and offset (numbers, or one a band). valid: (H, W) bool or None; NaN and
    infinite pixels are never valid. threshold: None for the most likely class, else see decide_classes. num_classes: that of the model's
    config where not given. window: pixels a side, or several, over which the mean is taken. The model is left on the device and in
    eval mode.

    UserError for a shape that is not that of an image with the model's bands, and for reflectance that is not that of its training; a
    warning where that is only unusual. accept_scale: neither is said of the reflectance.
    """
    image, valid, scale = as_image(model, image, valid, divide_by, offset)
    if not accept_scale:
        judge_image(model, image, valid, scale)
    if getattr(model, "coordinates", ()):
        warnings.warn(f"the model was trained with {' and '.join(model.coordinates)}, of which an array says nothing: it is mapped without",
                      stacklevel=2)
    compute = Compute(device=device if isinstance(device, torch.device) else choose_device(device), precision=precision)
    predictor = Predictor(model, num_classes or classes_of(model), scale, compute, tta=tta, batch_size=batch_size)
    slabs = [Slab(0, np.ascontiguousarray(image), valid, [])]
    return whole_map(predictor, slabs, grids_of(*valid.shape, window, overlap), threshold)


def grids_of(height, width, window, overlap):
    """WindowGrids of a raster. window: pixels a side, or several. overlap: share of each."""
    sides = window if isinstance(window, (tuple, list)) else (window,)
    return [WindowGrid(height, width, side, stride_of(side, overlap)) for side in sides]


def whole_map(predictor, slabs, grids, threshold, each=False):
    """(classes (H, W) uint8, probabilities (classes, H, W) float32) of slabs that cover grids. grids, each: see predict_bands."""
    bands = list(predict_bands(predictor, slabs, grids, threshold=threshold, each=each, keep_probabilities=True))
    return np.concatenate([b.classes for b in bands]), np.concatenate([b.probabilities for b in bands], axis=1)


def as_image(model, image, valid, divide_by, offset):
    """(image in a type that slabs have, valid (H, W) bool, Scale) of predict_array's arguments. UserError for shapes that do not fit."""
    image, wanted = np.asarray(image), getattr(getattr(model, "config", None), "bands", None)
    bands = "bands" if wanted is None else f"{len(wanted)} bands: {', '.join(wanted)}"
    if image.ndim != 3 or 0 in image.shape:
        raise UserError(f"expected an image of shape ({bands}; rows, columns), none of them 0, got {image.shape}")
    if wanted is not None and len(image) != len(wanted):
        turned = "; pass np.moveaxis(image, -1, 0)" if image.shape[2] == len(wanted) else ""
        raise UserError(f"expected an image of shape ({bands}; rows, columns), got {image.shape}{turned}")
    if image.dtype.kind not in "biuf":
        raise UserError(f"expected an image of integers or floats, got {image.dtype}")
    if image.dtype not in (np.uint8, np.int16, np.uint16, np.float32):
        image = image.astype(np.float32)
    if valid is not None and np.shape(valid) != image.shape[1:]:
        raise UserError(f"valid has the shape {np.shape(valid)}, the image {image.shape[1:]} pixels; expected the same")
    finite = np.isfinite(image).all(axis=0) if image.dtype.kind == "f" else np.ones(image.shape[1:], dtype=bool)
    try:
        scale = Scale(*(tuple(np.broadcast_to(np.asarray(v, dtype=np.float64), len(image)).tolist()) for v in (divide_by, offset)))
    except ValueError as error:
        raise UserError(f"divide_by and offset are one number or {len(image)}, got {divide_by} and {offset}") from error
    return image, finite if valid is None else finite & np.asarray(valid, dtype=bool), scale


def judge_image(model, image, valid, scale):
    """UserError or a warning where a sample of the image's reflectance is not that of the model's training; nothing without its mean."""
    config = getattr(model, "config", None)
    mean, names = getattr(config, "mean", None), getattr(config, "bands", None)
    if mean is None or names is None:
        return
    places = np.flatnonzero(valid)
    places = places[:: max(1, len(places) // SAMPLE)]
    if not len(places):
        return
    stored = np.median(image.reshape(len(image), -1)[:, places].astype(np.float64), axis=1)
    medians = to_reflectance(stored[:, None, None], scale.divide_by, scale.offset).ravel()
    wrong, odd = judge(names, medians, mean, [list(zip(scale.divide_by, scale.offset, strict=True))])
    if wrong:
        raise UserError(f"the image is no reflectance as in the training: median {band_figures(names, medians, mean, wrong)}. Pass "
                        "divide_by and offset, or accept_scale=True")
    if odd:
        warnings.warn(f"median reflectance {band_figures(names, medians, mean, odd)}: unlike the training", stacklevel=3)


def classes_of(model):
    """Number of classes in the config of one of our models."""
    count = getattr(getattr(model, "config", None), "num_classes", None)
    if count is None:
        raise UserError("the model does not say how many classes it has; pass num_classes")
    return count


def stride_of(window, overlap):
    """Pixels from one window to the next for an overlap given as a share of the window."""
    if not 0 <= overlap <= 0.9:
        raise UserError(f"--overlap expects a share from 0 to 0.9, got {overlap:g}")
    return max(1, round(window * (1 - overlap)))
