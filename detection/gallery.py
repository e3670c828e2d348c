"""What a detector does, in pictures: its best, median and worst pieces of images, and the images as a whole."""

import json
from dataclasses import dataclass

import numpy as np
from rasterio.windows import Window

from chipping.image_files import boxes_as_stored
from detection.image_files import ImageFiles, read_record
from detection.image_plan import plan_of_image
from detection.image_preview import brightness_of, pixel_side, shown
from detection.metrics import match_image, score_images
from mapping.inputs import SceneInput
from mapping.reading import read_stored
from pictures.box_map import with_scale_bar
from pictures.box_overlays import box_colours, draw_boxes
from pictures.gallery_page import Sheet, best_median_worst
from pictures.overlays import FALSE_ALARM, FOUND, MISSED, NODATA_COLOUR, grey_background
from pictures.sheets import contact_sheet, fit_cell
from raster.area import pixel_areas
from raster.nodata import valid_pixels
from raster.scale import to_reflectance
from raster.source import open_raster, scene_name
from runtime.words import plural

SIDE, WHOLE_SIDE = 384, 640  # pixels of the picture of a piece, and of an image
PIECE, LEAST_PIECE, MOST_PIECE = 8, 256, 512  # a piece's side: objects across, and pixels of the image at least and at most
WHOLE = 1280  # pixels of the longer side of an image that is read for its picture
DOT = 5  # pixels a side at least of a box in the picture of an image
JUDGED = ((FOUND, "found"), (MISSED, "missed"), (FALSE_ALARM, "marked in error"), (NODATA_COLOUR, "not judged"))
HIT, MISS, ERROR, EXCUSED = 1, 2, 3, 4  # labels of the colours of JUDGED


@dataclass(frozen=True, eq=False)
class FoundImage:
    """
    An image with its detections, and what is known of it.

    name: of the image. plan: SceneInput. found: {"boxes" (D, 4), "labels", "scores"} in pixels as stored. threshold: the lowest score.
    truth: {"boxes" (N, 4), "labels", "ignore" (M, 4)}, or None. hit, excused: (D,) bool, seen: (N,) bool of metrics.match_image, or None.
    """

    name: str
    plan: SceneInput
    found: dict
    threshold: float
    truth: dict | None = None
    hit: np.ndarray | None = None
    excused: np.ndarray | None = None
    seen: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Piece:
    """
    A part of a FoundImage. place: (x0, y0, x1, y1) in its pixels. objects, seen, detections, hits: how many have their centre there;
    objects is None without truth. score: F1, None where there is nothing to find and nothing found, or no truth.
    """

    image: FoundImage
    place: tuple
    objects: int | None
    seen: int
    detections: int
    hits: int

    @property
    def score(self):
        both = self.detections + (self.objects or 0)
        return None if self.objects is None or not both else (self.seen + self.hits) / both

    @property
    def wrong(self):
        return self.detections - self.hits + self.objects - self.seen


# ---------------------------------------------------------------------------------------------------------- what was found


def read_found(folder, path, truth, data):
    """
    The FoundImage of an image that inference.py has looked at without flags for its input.

    folder: its --output-dir. truth: LabelledImage or None. data: of the checkpoint.
    """
    plan, files = plan_of_image(path, data), ImageFiles(folder, scene_name(path))
    with open(files.results, encoding="utf-8") as lines:
        results = [json.loads(line) for line in lines]
    boxes = np.array([result["bbox"] for result in results], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    found = {"boxes": boxes, "labels": np.array([result["category_id"] for result in results], np.int64),
             "scores": np.array([result["score"] for result in results], np.float64)}
    threshold = read_record(files.record)["settings"]["score_threshold"]
    name = plan.info.path.rsplit("/", 1)[-1]
    if truth is None:
        return FoundImage(name, plan, found, threshold)
    size = truth.width, truth.height
    known = {"boxes": boxes_as_stored(truth.boxes, size, truth.orientation), "labels": truth.labels,
             "ignore": boxes_as_stored(truth.ignore, size, truth.orientation)}
    return FoundImage(name, plan, found, threshold, known, *match_image(known, found))


def summary(images, classes):
    """`2 images: 192 objects, 180 found from score 0.31 on; F1 0.86 (precision 0.89, recall 0.83), by centres 0.90, count error 6.0`."""
    threshold, detections = images[0].threshold, sum(len(image.found["boxes"]) for image in images)
    found = f"{plural(detections, 'detection')} from score {threshold:.2f} on"
    known = [image for image in images if image.truth is not None]
    if not known:
        return f"{plural(len(images), 'image')}: {found}"
    scores = score_images([image.truth for image in known], [image.found for image in known], classes, threshold=0.0)
    words = f"{plural(len(images), 'image')}, {len(known)} with annotations: {plural(scores['objects'], 'object')}, {found}"
    if not scores["objects"]:
        return f"{words}; F1 n/a"
    return (f"{words}; F1 {scores['f1']:.2f} (precision {scores['precision']:.2f}, recall {scores['recall']:.2f}), by centres "
            f"{scores['f1_centre']:.2f}, count error {scores['count_mae']:.1f} an image")


# ------------------------------------------------------------------------------------------------------------------ pieces


def piece_side(images):
    """Pixels, about: so that a piece is PIECE usual objects wide."""
    boxes = np.concatenate([np.zeros((0, 4)), *((image.truth or image.found)["boxes"] for image in images)])
    sides = np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))
    return int(np.clip(PIECE * np.median(sides), LEAST_PIECE, MOST_PIECE)) if len(boxes) else MOST_PIECE


def pieces_of(image, side):
    """[Piece] of about `side` pixels a side that part an image, row by row."""
    info, truth = image.plan.info, image.truth
    columns, rows = (edges(length, side) for length in (info.width, info.height))
    counted = slice(None) if image.excused is None else ~image.excused
    numbers = {"detections": count(image.found["boxes"][counted], columns, rows)}
    if truth is None:
        numbers |= {"objects": None, "seen": np.zeros_like(numbers["detections"]), "hits": np.zeros_like(numbers["detections"])}
    else:
        numbers |= {"objects": count(truth["boxes"], columns, rows), "seen": count(truth["boxes"][image.seen], columns, rows),
                    "hits": count(image.found["boxes"][image.hit], columns, rows)}
    return [
        Piece(image, (columns[i], rows[j], columns[i + 1], rows[j + 1]),
              **{name: None if table is None else int(table[j, i]) for name, table in numbers.items()})
        for j in range(len(rows) - 1) for i in range(len(columns) - 1)
    ]


def edges(length, side):
    """[0, …, length]: where pieces of about `side` pixels, as long as each other, begin and end."""
    count = max(1, round(length / side))
    return [length * k // count for k in range(count + 1)]


def count(boxes, columns, rows):
    """(rows, columns) how many boxes have their centre in each piece. columns, rows: edges."""
    x, y = ((boxes[:, :2] + boxes[:, 2:]) / 2).T
    return np.histogram2d(y, x, bins=(rows, columns))[0].astype(np.int64)


def choose_pieces(images, number):
    """{"best": [Piece], "median": …, "worst": …} by F1, of images without truth "unlabelled": those with most detections."""
    side = piece_side(images)
    pieces = [piece for image in images for piece in pieces_of(image, side)]
    judged = [piece for piece in pieces if piece.score is not None]
    chosen = best_median_worst(sorted(judged, key=lambda piece: (-piece.score, piece.wrong, -piece.objects)), number)
    others = sorted((p for p in pieces if p.objects is None and p.detections), key=lambda piece: -piece.detections)
    return {**chosen, **({"unlabelled": others[:number]} if others else {})}


# ---------------------------------------------------------------------------------------------------------------- pictures


def read_reflectance(plan, window=None, longest=None):
    """(C, h, w) float32 of a window of an image (None: all of it), thinned out to `longest` pixels a side; nodata is 0."""
    info, how = plan.info, {}
    if longest and max(info.height, info.width) > longest:
        share = longest / max(info.height, info.width)
        how["out_shape"] = (len(plan.indexes), max(1, round(info.height * share)), max(1, round(info.width * share)))
    with open_raster(info.path) as dataset:
        stored = read_stored(dataset, plan, window, **how)
    valid = valid_pixels(stored, plan.nodata, plan.zero_is_nodata)
    reflectance = np.nan_to_num(to_reflectance(stored.astype(np.float32), plan.scale.divide_by, plan.scale.offset), posinf=0.0, neginf=0.0)
    return np.where(valid, reflectance, np.float32(0))


class Artist:
    """Draws pieces and images. bands, classes: names. given: colours of classes in place of the usual ones, see box_colours."""

    def __init__(self, bands, classes, given=()):
        self.bands, self.classes, self.colours = bands, classes, box_colours(classes, given)
        self.whole = {}  # {name of an image: (picture of all of it, brightness)}

    def overview(self, image):
        """((H, W, 3) of an image, not longer than WHOLE; its brightness)."""
        if image.name not in self.whole:
            reflectance = read_reflectance(image.plan, longest=WHOLE)
            brightness = brightness_of(image.plan, self.bands, reflectance)
            self.whole[image.name] = shown(reflectance, brightness), brightness
        return self.whole[image.name]

    def views_of_piece(self, piece):
        """[the piece, with its truth, with what was found, right and wrong]; of one without truth the first and third."""
        image, (x0, y0, x1, y1) = piece.image, piece.place
        ground = shown(read_reflectance(image.plan, Window(x0, y0, x1 - x0, y1 - y0)), self.overview(image)[1])
        found, place = image.found, piece.place
        scores = [f"{score:.2f}" for score in found["scores"]]
        views = [scaled(ground, SIDE, image.plan.info), self.boxes(ground, place, found["boxes"], found["labels"], words=scores)]
        if image.truth is None:
            return views
        truth = image.truth
        views.insert(1, self.boxes(ground, place, truth["boxes"], truth["labels"], truth["ignore"]))
        boxes, kinds = judged_boxes(image)
        colours = tuple(colour for colour, _ in JUDGED)
        return [*views, self.boxes(grey_background(ground), place, boxes, kinds, truth["ignore"], colours=colours)]

    def boxes(self, ground, place, boxes, labels, ignore=(), words=(), colours=None):
        """A picture of a piece with the boxes that reach into it."""
        shift, size = np.array(place[:2] * 2), (place[2] - place[0], place[3] - place[1])
        boxes, ignore = (np.asarray(some, np.float64).reshape(-1, 4) - shift for some in (boxes, ignore))
        inside = (boxes[:, 2:] > 0).all(axis=1) & (boxes[:, :2] < size).all(axis=1)
        return draw_boxes(ground, boxes[inside], np.asarray(labels)[inside], ignore, SIDE, colours or self.colours,
                          [text for text, is_in in zip(words, inside, strict=False) if is_in])

    def views_of_image(self, image):
        """[with its truth, where that is known, with what was found]."""
        ground, _ = self.overview(image)
        scale = ground.shape[1] / image.plan.info.width
        views = []
        for what in filter(None, (image.truth, image.found)):
            boxes = as_dots(what["boxes"] * scale, WHOLE_SIDE / max(ground.shape))
            views.append(with_bar(draw_boxes(ground, boxes, what["labels"], (), WHOLE_SIDE, self.colours), image.plan.info))
        return views

    def legend(self, with_truth):
        return [*zip(self.colours, self.classes, strict=True), *(JUDGED if with_truth else ())]


def scaled(ground, side, info):
    """A piece's picture of `side` pixels with a scale bar."""
    share = side / max(ground.shape)
    return with_bar(np.asarray(fit_cell(ground, side)), info, 1 / share)


def with_bar(picture, info, step=None):
    """A picture with a scale bar. step: pixels of the image in one of the picture, None for the whole image."""
    step = step or info.width / picture.shape[1]
    pixel = pixel_side(pixel_areas(info.crs, info.transform, info.height, info.width), info.height)
    return with_scale_bar(picture, step, "px") if pixel is None else with_scale_bar(picture, step * pixel, "m")


def as_dots(boxes, share):
    """Boxes enlarged to what is seen in a picture of which a pixel is `share` pixels."""
    middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    half = np.maximum(half, DOT / 2 / share)
    return np.concatenate([middle - half, middle + half], axis=1)


def judged_boxes(image):
    """(boxes, kinds 1 … of JUDGED): detections that are right, wrong or not judged, objects that were missed."""
    kinds = np.where(image.hit, HIT, np.where(image.excused, EXCUSED, ERROR))
    missed = image.truth["boxes"][~image.seen]
    return np.concatenate([image.found["boxes"], missed]), np.concatenate([kinds, np.full(len(missed), MISS)])


def caption_of_piece(piece):
    where = f"{piece.image.name}, {piece.place[0]} {piece.place[1]}"
    if piece.objects is None:
        return f"{where}: {plural(piece.detections, 'detection')}"
    wrong = piece.detections - piece.hits
    return f"{where}: {plural(piece.objects, 'object')}, {piece.seen} found, {wrong} marked in error, F1 {piece.score:.2f}"


def caption_of_image(image, classes):
    counts = np.bincount(image.found["labels"], minlength=len(classes) + 1)[1:]
    found = ", ".join(f"{number} {name}" for name, number in zip(classes, counts.tolist(), strict=True) if number) or "nothing"
    truth = "" if image.truth is None else f"{plural(len(image.truth['boxes']), 'object')}; "
    return f"{image.name}: {truth}found {found}"


def draw_sheets(images, artist, number):
    """Sheets of the best, median and worst pieces of FoundImages, `number` each, and of as many whole images."""
    sheets, title = [], f"with a score of at least {images[0].threshold:.2f}"
    for kind, pieces in choose_pieces(images, number).items():
        with_truth = kind != "unlabelled"
        titles = ["image", "truth", "found", "errors"] if with_truth else ["image", "found"]
        captions = [caption_of_piece(piece) for piece in pieces]
        picture = contact_sheet([artist.views_of_piece(piece) for piece in pieces], titles, captions, side=SIDE,
                                across=1 if with_truth else 2, title=f"{kind} parts, {title}", legend=artist.legend(with_truth))
        words = "White: found. Orange: missed. Blue: marked in error. Grey: not judged." if with_truth else "Parts with most detections."
        sheets.append(Sheet(kind, words, picture, f"{plural(len(pieces), 'piece')}, each as {', '.join(titles)}: {'; '.join(captions)}"))
    for kind, some in (("images", [i for i in images if i.truth is not None]), ("more-images", [i for i in images if i.truth is None])):
        some = sorted(some, key=lambda image: -len(image.found["boxes"]))[:number]
        if some:
            titles = ["truth", "found"] if kind == "images" else ["found"]
            captions = [caption_of_image(image, artist.classes) for image in some]
            picture = contact_sheet([artist.views_of_image(image) for image in some], titles, captions, side=WHOLE_SIDE,
                                    across=1 if kind == "images" else 2, title=f"images, {title}", legend=artist.legend(False))
            sheets.append(Sheet(kind, "Small objects are drawn larger than they are.", picture, "; ".join(captions)))
    return sheets
