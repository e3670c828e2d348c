"""
Augmentation of boxes and images together, batched on the training device: random crops at random sizes, turns, flips, and the changes of
brightness that patches get (augment.py), for any number of bands.

What happens to a batch is drawn on the CPU from (seed, epoch, step) for the whole global batch, so that it does not depend on workers,
processes or a resume.
"""

import dataclasses

import numpy as np
import torch
from torch.nn import functional as F

import augment
from chipping.tile_plan import boxes_of_tile, regions_of_tile
from runtime.device import derived_seed


@dataclasses.dataclass(frozen=True)
class CropPolicy:
    """
    size: side of the crops in pixels. zoom: objects appear up to this factor larger or smaller. at_object: share of the crops that are laid
    around an object, where there is one; the others lie anywhere. min_visibility: boxes of which less is left become ignore regions.
    tone: contrast and saturation change by a factor of 1 ± tone at most, brightness by one of 1 + 2 tone, up or down. copies: objects of a
    tile that are pasted into its crop again at most.
    """

    size: int = 256
    zoom: float = 1.25
    at_object: float = 0.7
    min_visibility: float = 0.2
    tone: float = 0.0
    copies: int = 0


@dataclasses.dataclass(frozen=True)
class Draws:
    """What happens to each image of a batch. disturbing: augment.Draws."""

    zoom: np.ndarray  # (B,) factors
    at_object: np.ndarray  # (B,) bool
    which: np.ndarray  # (B,) 0..1: which object
    place: np.ndarray  # (B, 2) 0..1: where the crop lies, x and y
    tone: np.ndarray  # (B, 3) factors: brightness, contrast, saturation
    copies: np.ndarray  # (B, policy.copies, 6) 0..1, see with_copies
    disturbing: augment.Draws

    def rows(self, part):
        fields = {f.name: getattr(self, f.name)[part] for f in dataclasses.fields(self) if f.name != "disturbing"}
        return Draws(**fields, disturbing=self.disturbing.rows(part))


def draw(count, bands, seed, epoch, step, policy, strength=augment.STRONG):
    """Draws for a batch of `count` images."""
    random = np.random.default_rng(derived_seed(seed, epoch, step, 2))
    zoom = np.exp(random.uniform(-1.0, 1.0, count) * np.log(policy.zoom))
    at_object = random.random(count) < policy.at_object
    which, place = random.random(count), random.random((count, 2))
    # Contrast and saturation as in the single-shot detector of Liu et al. (2016) with tone 0.5. Brightness varies more out of doors:
    # the same animal stands on dark soil and on snow.
    much = (random.random((count, 3)) < 0.5) * random.uniform(-1.0, 1.0, (count, 3))
    tone = np.stack([np.exp(much[:, 0] * np.log1p(2 * policy.tone)), *(1.0 + much[:, 1:] * policy.tone).T], axis=1)
    disturbing = augment.draw([strength] * count, bands, policy.size, policy.size, seed, epoch, step, policy.size)
    copies = random.random((count, policy.copies, 6))
    return Draws(zoom, at_object, which, place, tone, copies, disturbing)


def crops(images, targets, draws, policy):
    """
    images (B, C, H, W) float32, targets [{"boxes", "labels", "ignore"}] in their pixels
    → (images (B, C, size, size), targets of the crops).

    Where an image is smaller than the crop, the rest is 0.
    """
    size = policy.size
    cropped = images.new_zeros(len(images), images.shape[1], size, size)
    found = []
    for i, target in enumerate(targets):
        height, width = images.shape[-2:]
        side = max(1, round(size / float(draws.zoom[i])))
        left, top = place_window(target["boxes"], width, height, side, i, draws)
        image, target = with_copies(images[i], target, (left, top, min(left + side, width), min(top + side, height)), draws.copies[i])
        paste(cropped[i], image[:, top : top + side, left : left + side], side, bilinear=True)
        found.append(turned(crop_target(target, left, top, side, size, policy.min_visibility), size, draws.disturbing, i))
    cropped = torch.stack([turned_image(image, draws.disturbing, i) for i, image in enumerate(cropped)])
    return augment.disturb(change_tone(cropped, draws.tone), draws.disturbing), found


def change_tone(images, factors):
    """
    images (B, C, H, W) from 0; factors (B, 3): brightness; contrast, about the image's mean over bands and pixels; saturation, the distance
    of each band from the mean of the bands. Nothing falls below 0. Pixels that are 0 in all bands are nodata and stay so.
    """
    changed = np.flatnonzero((factors != 1.0).any(axis=1))
    for i in changed.tolist():
        brightness, contrast, saturation = map(float, factors[i])
        image = images[i]
        valid = (image != 0).any(dim=0)
        grey = image.mean(dim=0)
        mean = (grey * valid).sum() / valid.sum().clamp(min=1)
        image = grey + saturation * (image - grey)
        images[i] = (brightness * (mean + contrast * (image - mean))).clamp(min=0.0) * valid
    return images


def paste(target, piece, side, bilinear):
    """Lay a piece (C, h, w) of a window of `side` pixels into the target (C, size, size), scaled so that the window fills it."""
    size = target.shape[-1]
    if side != size:
        shape = tuple(max(1, round(length * size / side)) for length in piece.shape[-2:])
        how = {"mode": "bilinear", "antialias": side > size, "align_corners": False} if bilinear else {"mode": "nearest-exact"}
        piece = F.interpolate(piece[None], size=shape, **how)[0]
    high, wide = min(size, piece.shape[-2]), min(size, piece.shape[-1])
    target[:, :high, :wide] = piece[:, :high, :wide]


def with_copies(image, target, window, draws):
    """
    (image, target) with objects of the image pasted into the window again, after Dwibedi et al., Cut, Paste and Learn (2017): a few dozen
    objects are seen on other ground and beside each other. A half of the windows gets copies.

    image: (C, H, W), left as it is. draws: (N, 6) in 0..1: whether, which object, beside which other one or anywhere, x, y, turned how.
    An object is copied with an ellipse of soft edge, since corners of its box are ground. It is left out where it would cover others.
    """
    boxes, labels = target["boxes"], target["labels"]
    if not len(boxes) or not len(draws) or draws[0, 0] < 0.5 or "masks" in target:
        return image, target
    image, known = image.clone(), [*boxes.tolist(), *target["ignore"].tolist()]
    added, kinds = [], []
    for _, which, beside, x, y, how in draws:
        k = int(which * len(boxes))
        x0, y0, x1, y1 = (round(value) for value in boxes[k].tolist())
        piece = image[:, max(0, y0) : y1, max(0, x0) : x1]
        piece = torch.rot90(piece.flip(-1) if how >= 0.5 else piece, int(how * 8) % 4, (-2, -1)).clone()
        high, wide = piece.shape[-2:]
        left, top = copy_place(boxes, window, wide, high, beside, x, y)
        box = [left, top, left + wide, top + high]
        if not (wide and high and inside(box, window)) or any(covers(box, other) for other in known):
            continue
        spot = image[:, top : top + high, left : left + wide]
        if (spot == 0).all(dim=0).any():  # padding, or nodata
            continue
        alpha = soft_ellipse(high, wide, image.device)
        image[:, top : top + high, left : left + wide] = spot + alpha * (piece - spot)
        known.append(box)
        added.append(box)
        kinds.append(int(labels[k]))
    if not added:
        return image, target
    return image, {**target, "boxes": torch.cat([boxes, boxes.new_tensor(added)]), "labels": torch.cat([labels, labels.new_tensor(kinds)])}


def copy_place(boxes, window, wide, high, beside, x, y):
    """(left, top) of a copy: for `beside` below a half so that it touches an object of the image, else anywhere in the window."""
    if beside < 0.5:
        x0, y0, x1, y1 = boxes[int(beside * 2 * len(boxes))].tolist()
        angle = 2 * np.pi * x
        reach = 0.75 + 0.35 * y  # of half the sides of both: boxes overlap a little, or there is a little ground between
        return (round((x0 + x1 - wide) / 2 + np.cos(angle) * reach * (x1 - x0 + wide) / 2),
                round((y0 + y1 - high) / 2 + np.sin(angle) * reach * (y1 - y0 + high) / 2))
    left, top, right, bottom = window
    return round(left + x * (right - left - wide)), round(top + y * (bottom - top - high))


def inside(box, window):
    return box[0] >= window[0] and box[1] >= window[1] and box[2] <= window[2] and box[3] <= window[3]


def covers(box, other, most=0.25):
    """Whether two boxes share more than `most` of the smaller one."""
    wide, high = min(box[2], other[2]) - max(box[0], other[0]), min(box[3], other[3]) - max(box[1], other[1])
    smaller = min((b[2] - b[0]) * (b[3] - b[1]) for b in (box, other))
    return wide > 0 and high > 0 and wide * high > most * smaller


def soft_ellipse(high, wide, device):
    """(high, wide): 1 within, 0 from the edge of the ellipse that fills the box, linear between 0.8 and 1.1 of its radius."""
    y = (torch.arange(high, device=device) + 0.5) / high * 2 - 1
    x = (torch.arange(wide, device=device) + 0.5) / wide * 2 - 1
    return ((1.1 - torch.hypot(y[:, None], x[None])) / 0.3).clamp(0, 1)


def place_window(boxes, width, height, side, i, draws):
    """(left, top) of the crop in its image, as far inside as it fits."""
    room = [max(0, width - side), max(0, height - side)]
    if len(boxes) and draws.at_object[i]:
        box = boxes[int(draws.which[i] * len(boxes))].tolist()
        corner = []
        for axis in (0, 1):
            low, high = box[axis + 2] - side, box[axis]  # corners with which the object is whole in the crop
            if low > high:
                low, high = high, low
            corner.append(min(room[axis], max(0, round(low + float(draws.place[i, axis]) * (high - low)))))
        return corner[0], corner[1]
    return tuple(int(float(draws.place[i, axis]) * (room[axis] + 1)) for axis in (0, 1))


def crop_target(target, left, top, side, size, min_visibility):
    """The target of the window, in pixels of the crop. Masks (N, H, W), where there are any, are cut and scaled with it."""
    window = (left, top, left + side, top + side)
    seen = boxes_of_tile(target["boxes"].numpy(), window, min_visibility)
    ignore = np.concatenate([regions_of_tile(target["ignore"].numpy(), window), seen.ignore])
    boxes, ignore = (torch.from_numpy(values * (size / side)).float() for values in (seen.clipped, ignore))
    kept = torch.from_numpy(seen.kept)
    found = {"boxes": boxes, "labels": target["labels"][kept], "ignore": ignore}
    if "masks" in target:
        masks = target["masks"][kept].float()
        found["masks"] = masks.new_zeros(len(masks), size, size)
        paste(found["masks"], masks[:, top : top + side, left : left + side], side, bilinear=False)
    return found


def turned_image(image, draws, i):
    """Quarter turns, then flips, as augment.move does them."""
    image = torch.rot90(image, int(draws.turns[i]), (-2, -1))
    axes = [axis for axis, wanted in zip((-1, -2), draws.flip[i], strict=True) if wanted]
    return image.flip(axes) if axes else image


def turned(target, size, draws, i):
    """What belongs to a square image of `size` pixels, after turned_image."""
    boxes = {name: turn_boxes(target[name], size, int(draws.turns[i]), draws.flip[i]) for name in ("boxes", "ignore")}
    masks = {"masks": turned_image(target["masks"], draws, i).to(torch.uint8)} if "masks" in target else {}
    return {**target, **boxes, **masks}


def turn_boxes(boxes, size, turns, flip):
    left, top, right, bottom = boxes.unbind(1)
    for _ in range(turns % 4):  # counter-clockwise, as torch.rot90: x becomes y from below
        left, top, right, bottom = top, size - right, bottom, size - left
    if flip[0]:
        left, right = size - right, size - left
    if flip[1]:
        top, bottom = size - bottom, size - top
    return torch.stack([left, top, right, bottom], dim=1)
