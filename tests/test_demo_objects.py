"""demo.py with a detector: pieces of images with truth, detections and errors, which are counted by hand."""

import html
import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from spot_detector import CLASSES, UTM, SpotDetector, data, field_of, stand_in, write_image

import demo
from chipping.image_files import TURNS, boxes_as_stored, turned
from detection import gallery
from pictures.overlays import FALSE_ALARM, FOUND, MISSED
from runtime.checkpoint import save_checkpoint
from runtime.errors import UserError


@pytest.fixture
def show(tmp_path, monkeypatch):
    """show(*words, **settings of the run): demo.main with a checkpoint of the stand-in, into tmp_path / "p"."""

    def run(*words, **settings):
        stand_in(monkeypatch, SpotDetector())
        monkeypatch.setattr(gallery, "LEAST_PIECE", 128)  # several parts of small images
        path = tmp_path / "checkpoint.pt"
        save_checkpoint(path, {"kind": "detection", "model": {}, "settings": settings, "state": {"model": {}}, "data": data()})
        return demo.main(["--checkpoint", str(path), "--device", "cpu", "--output-dir", str(tmp_path / "p"), "--quiet", *map(str, words)])

    return run


def write_coco(path, boxes_of, labels_of, size, more=()):
    """COCO annotations of images {name: (N, 4)}, {name: (N,)}."""
    images = [{"id": k, "file_name": name, "width": size[0], "height": size[1]} for k, name in enumerate(boxes_of)]
    content = [{"id": 100 * k + n, "image_id": k, "category_id": int(label), "bbox": [x0, y0, x1 - x0, y1 - y0]}
               for k, name in enumerate(boxes_of)
               for n, ((x0, y0, x1, y1), label) in enumerate(zip(boxes_of[name].tolist(), labels_of[name], strict=True))]
    categories = [{"id": k, "name": name} for k, name in enumerate([*CLASSES, *more], start=1)]
    path.write_text(json.dumps({"images": images, "annotations": content, "categories": categories}))
    return path


@pytest.fixture
def survey(tmp_path):
    """(folder, annotations): two images in which truth has an object that is not there, and lacks the first two."""
    folder, rng, boxes, labels = tmp_path / "survey", np.random.default_rng(0), {}, {}
    folder.mkdir()
    for name, place in (("a.tif", UTM), ("b.png", {})):
        picture, found, kinds, _ = field_of(rng, 300, 180)
        picture[:, 144:, 264:] = 60  # a cell of the field
        keep = ~((found[:, 0] >= 264) & (found[:, 1] >= 144))
        write_image(folder / name, picture, **place)
        boxes[name] = np.concatenate([found[keep][2:], [[270.0, 150, 286, 166]]])
        labels[name] = [*kinds[keep][2:], 1]
    return folder, write_coco(tmp_path / "survey.json", boxes, labels, (300, 180))


def test_truth_detections_and_errors_of_images_are_shown_and_counted(survey, show, tmp_path, capsys):
    folder, annotations = survey
    assert show("--images", folder, "--annotations", annotations, "--cases", 1) == 0
    assert {p.name for p in (tmp_path / "p").glob("*.png")} == {"best.png", "median.png", "worst.png", "images.png"}
    told = capsys.readouterr().out
    content = json.loads(annotations.read_text())
    found = json.loads((tmp_path / "p" / "found" / "results.json").read_text())
    objects, hits = len(content["annotations"]), len(content["annotations"]) - 2
    assert len(found) == hits + 4
    f1, precision, recall = 2 * hits / (objects + len(found)), hits / len(found), hits / objects
    assert f"2 images, 2 with annotations: {objects} objects, {len(found)} detections from score 0.60 on; " in told
    assert f"F1 {f1:.2f} (precision {precision:.2f}, recall {recall:.2f})" in told and "count error 1.0 an image" in told
    page = html.unescape((tmp_path / "p" / "index.html").read_text())
    captions = re.findall(r"errors: \S+, \d+ \d+: (\d+) objects, (\d+) found, (\d+) marked in error, F1 ([\d.]+)", page)
    assert len(captions) == 3
    for objects, seen, wrong, f1 in ((*map(int, numbers), f1) for *numbers, f1 in captions):
        assert f1 == f"{2 * seen / (objects + seen + wrong):.2f}"
    with pytest.raises(UserError, match="exists already"):
        show("--images", folder)


def test_the_counts_of_all_pieces_are_those_of_the_images_and_colours_say_what_is_right(survey, show, tmp_path, monkeypatch):
    folder, annotations = survey
    shown = []
    monkeypatch.setattr(gallery, "draw_sheets", lambda images, artist, cases: shown.append((images, artist)) or [])
    assert show("--images", folder, "--annotations", annotations) == 0
    (images, artist), = shown
    for image in images:
        pieces = gallery.pieces_of(image, 97)
        assert sum(p.objects for p in pieces) == len(image.truth["boxes"])
        assert sum(p.detections for p in pieces) == len(image.found["boxes"])
        assert sum(p.seen for p in pieces) == sum(p.hits for p in pieces) == len(image.truth["boxes"]) - 1
        area = sum((p.place[2] - p.place[0]) * (p.place[3] - p.place[1]) for p in pieces)
        assert area == 300 * 180
    whole = gallery.pieces_of(images[0], 1000)[0]
    *_, errors = artist.views_of_piece(whole)
    scale = errors.shape[1] / 300

    def colour(box):
        return tuple(errors[round(box[1] * scale), round((box[0] + box[2]) / 2 * scale)].tolist())

    found, hit = images[0].found["boxes"], images[0].hit
    assert {colour(box) for box in found[hit]} == {FOUND} and {colour(box) for box in found[~hit]} == {FALSE_ALARM}
    assert colour(np.array([270.0, 150, 286, 166])) == MISSED


def test_images_without_annotations_are_shown_where_most_is_found(survey, show, tmp_path, capsys):
    assert show("--images", survey[0] / "a.tif", "--class-colours", "cow=#0a141e") == 0
    assert {p.name for p in (tmp_path / "p").glob("*.png")} == {"unlabelled.png", "more-images.png"}
    assert "1 image: " in capsys.readouterr().out
    assert (np.asarray(Image.open(tmp_path / "p" / "unlabelled.png")) == (10, 20, 30)).all(axis=2).any()


def test_by_default_the_validation_images_of_the_run_are_shown(survey, show, tmp_path, capsys):
    folder, annotations = survey
    assert show(val_images=str(folder), val_annotations=str(annotations), train_images="gone") == 0
    assert "2 with annotations" in capsys.readouterr().out
    assert show("--overwrite", train_images=str(folder), train_annotations=str(annotations), val="b") == 0
    assert "1 image, 1 with annotations" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"images of the checkpoint's run are not here \(gone\); pass --images"):
        show("--overwrite", train_images="gone", train_annotations="gone.json")


def test_annotations_of_some_of_the_images_and_a_class_that_is_mapped(survey, show, tmp_path, capsys):
    folder, _ = survey
    annotations = write_coco(tmp_path / "some.json", {"b.png": np.array([[1.0, 1, 9, 9], [30, 30, 40, 44]])}, {"b.png": [1, 3]}, (300, 180),
                             ["deer"])
    with pytest.raises(UserError, match="deer"):
        show("--images", folder, "--annotations", annotations)
    assert show("--images", folder, "--annotations", annotations, "--label-map", "deer=drop") == 0
    assert "2 images, 1 with annotations: 1 object" in capsys.readouterr().out
    assert {p.stem for p in (tmp_path / "p").glob("*.png")} >= {"unlabelled", "images", "more-images"}


@pytest.mark.parametrize(("words", "message"), [
    (["--annotations", "a.json"], "need --images"), (["--images", "a", "--scenes", "b"], "--images is for detectors"),
    (["--chips", "a"], "a detector is shown on images"),
])
def test_flags_that_do_not_belong_together_are_refused(show, words, message):
    with pytest.raises(UserError, match=message):
        show(*words)


def test_annotations_of_several_folders_or_of_none_of_the_images_are_refused(survey, show, tmp_path):
    folder, annotations = survey
    other = tmp_path / "other"
    other.mkdir()
    write_image(other / "c.png", field_of(np.random.default_rng(1), 100, 90)[0])
    with pytest.raises(UserError, match="of one folder"):
        show("--images", folder, other, "--annotations", annotations)
    write_image(folder / "c.png", field_of(np.random.default_rng(1), 100, 90)[0])
    with pytest.raises(UserError, match="none of the images that were given"):
        show("--images", folder / "c.png", "--annotations", annotations)


@given(orientation=st.sampled_from(sorted(TURNS)), width=st.integers(3, 12), height=st.integers(3, 12), data=st.data())
def test_a_box_of_an_upright_image_marks_the_same_pixels_of_the_stored_one(orientation, width, height, data):
    stored = np.arange(width * height).reshape(1, height, width)
    upright = turned(stored, orientation)
    _, tall, wide = upright.shape
    x0, y0 = data.draw(st.integers(0, wide - 1)), data.draw(st.integers(0, tall - 1))
    x1, y1 = data.draw(st.integers(x0 + 1, wide)), data.draw(st.integers(y0 + 1, tall))
    (a, b, c, d), = boxes_as_stored([[x0, y0, x1, y1]], (wide, tall), orientation).astype(int).tolist()
    assert set(stored[0, b:d, a:c].ravel()) == set(upright[0, y0:y1, x0:x1].ravel())
