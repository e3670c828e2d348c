"""inference.py with TinyDet or BigDet: boxes, pictures and the page. Run: pytest tests/test_frame_maps.py"""

import html.parser
import json
import os
import re

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from test_report import chromium

import inference
from detection import frame_maps, small_detectors
from detection.small_detectors import SmallConfig, build_small_detector
from detection.small_finder import SmallFinder
from pictures.frame_view import Frame, begin_page, end_page, frame_html
from runtime.checkpoint import save_checkpoint
from runtime.device import Compute
from runtime.errors import RunError, UserError


class Brightest(torch.nn.Module):
    """Stands for a detector: the box of what is bright with a score of 0.8, and around its left part one of 0.2 and an IoU of 0.4."""

    def __init__(self, size, mode="letterbox", classes=("lamp",)):
        super().__init__()
        self.config = SmallConfig(target_size=size, resize_mode=mode, classes=classes)

    def forward(self, frames):
        wide, tall = self.config.target_size
        boxes = torch.zeros(len(frames), 2, 4)
        for k, frame in enumerate(frames):
            bright = frame.mean(dim=0) > 0.5
            if bright.any():
                rows, columns = torch.nonzero(bright.any(dim=1))[:, 0], torch.nonzero(bright.any(dim=0))[:, 0]
                x0, y0, x1, y1 = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
                left = x0 + 0.4 * (x1 - x0)
                boxes[k] = torch.tensor([[x0 / wide, y0 / tall, x1 / wide, y1 / tall], [x0 / wide, y0 / tall, left / wide, y1 / tall]])
        return boxes, torch.tensor([0.8, 0.2]).logit().repeat(len(frames), 1), torch.ones(len(frames), 2, dtype=torch.int64)


def frame_of(width, height, box, path=None):
    pixels = np.full((height, width, 3), 20, np.uint8)
    pixels[box[1] : box[3], box[0] : box[2]] = (250, 240, 230)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return pixels


BOXES = [(60, 10, 90, 40), (5, 30, 35, 44), (20, 2, 70, 20), (40, 20, 60, 44)]


@pytest.fixture
def frames(tmp_path):
    for number, box in enumerate(BOXES):
        frame_of(100, 45, box, tmp_path / "frames" / f"f{number}.png")
    return tmp_path / "frames"


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A checkpoint of TinyDet, in whose place Brightest looks at the frames."""
    network = build_small_detector(SmallConfig(target_size=(96, 64)))
    path = tmp_path / "tinydet.bin"
    save_checkpoint(path, {"kind": "small-detection", "model": network.config.to_dict(), "settings": {},
                           "state": {"model": network.state_dict()}, "data": {"classes": ["lamp"], "target_size": [96, 64]}})
    monkeypatch.setattr(small_detectors, "small_detector_from_checkpoint", lambda checkpoint: Brightest((96, 64)))
    return path


@pytest.fixture
def run(weights, frames, tmp_path):
    def run(*more, output="seen"):
        words = ["--checkpoint", weights, frames, "--output-dir", tmp_path / output, "--device", "cpu", "--batch-size", 2, "--quiet", *more]
        return inference.main([str(word) for word in words])

    return run


def tree(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 10**6), st.integers(37, 200), st.integers(37, 200), st.sampled_from(["letterbox", "force"]))
def test_boxes_are_mapped_back_to_frames_of_any_size(seed, width, height, mode):
    random = np.random.default_rng(seed)
    left, top = int(random.integers(0, width - 20)), int(random.integers(0, height - 20))
    box = (left, top, left + int(random.integers(12, 20)), top + int(random.integers(12, 20)))
    finder = SmallFinder(detector=Brightest((96, 64), mode), compute=Compute(device=torch.device("cpu")), lowest=0.5)
    letterbox, inside = finder.prepare(frame_of(width, height, box))
    (found,) = finder.find([letterbox], [inside])
    sx, sy, _, _ = letterbox.affine
    assert np.abs(found["boxes"][0] - box).max() <= 1.01 / min(sx, sy) + 1e-6  # a pixel of the input


def test_each_frame_gets_a_picture_and_its_boxes_and_all_of_them_a_page(run, tmp_path, capsys):
    assert run() == 0
    seen = tmp_path / "seen"
    assert {path.name for path in seen.iterdir()} == {f"f{k}_boxes.{end}" for k in range(4) for end in ("png", "json")} | {"view.html"}
    for number, box in enumerate(BOXES):
        record = json.loads((seen / f"f{number}_boxes.json").read_text())
        assert (record["image"], record["width"], record["height"]) == (f"f{number}.png", 100, 45)
        (found,), (below,) = record["boxes"], record["below"]
        assert np.abs(np.array(found["bbox_px"]) - box).max() < 1.1
        assert (found["score"], found["class"], found["class_id"]) == (0.8, "lamp", 0)
        assert found["bbox_norm"] == pytest.approx([v / s for v, s in zip(found["bbox_px"], (100, 45) * 2, strict=True)], abs=1e-3)
        assert below["score"] == 0.2
        picture, plain = (np.asarray(Image.open(path)) for path in (seen / f"f{number}_boxes.png", tmp_path / "frames" / f"f{number}.png"))
        assert picture.shape == plain.shape and (picture != plain).any(axis=2).sum() > 2 * (box[2] - box[0])
    assert capsys.readouterr().out == f"4 lamp in 4 of 4 frames, in {seen / 'view.html'}\n"


def test_the_old_name_of_the_checkpoint_and_one_frame_and_a_run_folder(weights, frames, tmp_path, capsys):
    words = ["--detector-weights", str(weights), "--device", "cpu", "--quiet", "--output-dir"]
    assert inference.main([*words, str(tmp_path / "one"), str(frames / "f0.png")]) == 0
    assert (tmp_path / "one" / "f0_boxes.json").exists()
    for name in ("run_1", "run_2"):
        frame_of(50, 50, (10, 10, 40, 30), tmp_path / "captures" / name / "images" / "frame_00000.png")
    runs = [str(tmp_path / "captures" / name) for name in ("run_1", "run_2")]
    assert inference.main([*words, str(tmp_path / "two"), *runs]) == 0
    assert sorted(path.name for path in (tmp_path / "two").glob("*.json")) == [f"run_{k}_frame_00000_boxes.json" for k in (1, 2)]
    assert inference.main([*words, str(tmp_path / "all"), str(tmp_path / "captures")]) == 0
    assert len(list((tmp_path / "all").glob("*.json"))) == 2
    assert inference.main([*words, str(tmp_path / "three"), str(frames), "--dry-run"]) == 0 and not (tmp_path / "three").exists()
    assert "4 of 4 frames would be looked at" in capsys.readouterr().out


def test_frames_in_the_own_folder_of_a_run_are_found_beside_runs_with_images_and_runs_without_frames(weights, tmp_path):
    words = ["--checkpoint", str(weights), "--device", "cpu", "--quiet", "--output-dir"]
    captures = tmp_path / "captures"
    for name, folder in (("run_1", captures / "run_1" / "images"), ("run_2", captures / "run_2"), ("run_3", captures / "run_3")):
        frame_of(50, 50, (10, 10, 40, 30), folder / "frame_00000.png")
        (captures / name / "labels").mkdir()
    (captures / "run_3" / "labels").rmdir()
    (captures / "run_3" / "run_manifest.json").write_text("{}")
    (captures / "run_4" / "labels").mkdir(parents=True)
    frame_of(50, 50, (10, 10, 40, 30), captures / "drafts" / "frame_00000.png")  # no run
    assert inference.main([*words, str(tmp_path / "all"), str(captures)]) == 0
    assert sorted(path.name for path in (tmp_path / "all").glob("*.json")) == [f"run_{k}_frame_00000_boxes.json" for k in (1, 2, 3)]
    assert inference.main([*words, str(tmp_path / "one"), str(captures / "run_2")]) == 0
    assert [path.name for path in (tmp_path / "one").glob("*.json")] == ["frame_00000_boxes.json"]


def test_frames_may_lie_in_the_output_folder(weights, tmp_path, capsys):
    """The pictures of a first run are no frames of the second."""
    words = ["--checkpoint", str(weights), "--device", "cpu", "--quiet"]
    captures = tmp_path / "captures"
    for number in (1, 2):
        frame_of(50, 50, (10, 10, 40, 30), captures / f"run_{number}" / "images" / "frame_00000.png")
    frame_of(50, 50, (10, 10, 40, 30), tmp_path / "flat" / "f.png")
    for folder, count in ((captures, 2), (tmp_path / "flat", 1), (captures / "run_1" / "images", 1)):
        for _ in range(2):
            assert inference.main([*words, str(folder), "--output-dir", str(folder)]) == 0
            assert f" in {count} of {count} frame" in capsys.readouterr().out
            assert len(list(folder.glob("*_boxes.json"))) == count
    with pytest.raises(UserError, match="only pictures with boxes"):
        inference.main([*words, str(captures / "run_1_frame_00000_boxes.png"), "--output-dir", str(captures)])


def test_killed_before_any_file_gets_its_name_and_run_again_the_files_are_the_same(run, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    assert run(output="whole") == 0
    replace, number, killed_at = os.replace, 0, set()

    def kill(source, target):
        nonlocal left
        left -= 1
        if left < 0:
            killed_at.add(os.path.basename(target))
            raise Killed
        replace(source, target)

    while True:
        number, left, output = number + 1, number, f"part{number}"
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", kill)
            try:
                assert run(output=output) == 0
                break
            except Killed:
                pass
        assert run(output=output) == 0
        assert tree(tmp_path / output) == tree(tmp_path / "whole")
    assert killed_at == set(tree(tmp_path / "whole"))


def test_what_is_finished_stays_and_other_settings_are_refused(run, tmp_path, capsys):
    assert run() == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "seen").glob("f*")}
    assert run() == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "seen").glob("f*")} == before
    with pytest.raises(UserError, match="score_threshold.*--overwrite"):
        run("--score-threshold", 0.1)
    assert run("--score-threshold", 0.1, "--overwrite") == 0
    assert len(json.loads((tmp_path / "seen" / "f0_boxes.json").read_text())["boxes"]) == 2
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "f1_boxes.png").write_bytes(b"somebody's")
    with pytest.raises(UserError, match="f1_boxes.png exists already"):
        run(output="other")
    assert list(tree(tmp_path / "other")) == ["f1_boxes.png"]


def test_the_suppression_is_that_of_the_flag(run, tmp_path):
    """The box of the left part has an IoU of 0.4 with the whole one."""
    assert run("--iou-threshold", 0.3, "--score-threshold", 0.1) == 0
    assert all(len(json.loads(path.read_text())["boxes"]) == 1 for path in (tmp_path / "seen").glob("*.json"))


def test_a_frame_that_cannot_be_read_is_left_out_and_fatal_when_strict(run, frames, tmp_path, capsys):
    (frames / "f9.png").write_bytes(b"\x89PNG\r\n\x1a\nno picture")
    assert run() == 1
    said = capsys.readouterr()
    assert "f9.png" in said.err and said.out.endswith("; failed: f9\n") and "4 of 5 frames" in said.out
    with pytest.raises((UserError, RunError), match="f9.png"):
        run("--strict", output="strict")
    assert run() == 1  # the others are finished


def test_flags_of_other_maps_are_refused(run):
    for words in (("--aoi", "a.geojson"), ("--tta",), ("--max-detections", 3), ("--bands", "1,2,3"), ("--pan", "a.tif")):
        with pytest.raises(UserError, match=words[0]):
            run(*words)


def test_a_picture_of_boxes_is_never_written_over_a_frame(weights, tmp_path):
    for name in ("a.png", "a_boxes.png"):
        frame_of(30, 30, (5, 5, 20, 20), tmp_path / "frames" / name)
    with pytest.raises(UserError, match="choose another --output-dir"):
        inference.main(["-w", str(weights), str(tmp_path / "frames"), "--output-dir", str(tmp_path / "frames"), "--quiet"])


# ------------------------------------------------------------------------------------------------------------- the page


class Reader(html.parser.HTMLParser):
    """Collects elements and what attributes ask for."""

    def __init__(self):
        super().__init__()
        self.tags, self.asked = [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.asked += [value for key, value in attributes if key in ("src", "href")]


def build_page(threshold=0.3):
    frame = Frame("<b>a&b.png", (40, 30), [[1, 2, 20, 28], [5, 5, 10, 9]], [1, 2], ['"><script>alert(1)</script>', "lamp"], [0.9, 0.2])
    return begin_page("2 frames", threshold) + 2 * frame_html(frame, np.full((30, 40, 3), 90, np.uint8)) + end_page()


def test_the_page_needs_no_other_file_and_names_are_text():
    page, reader = build_page(), Reader()
    reader.feed(page)
    assert reader.tags.count("img") == 2 and reader.tags.count("rect") == 4 and reader.tags.count("script") == 1
    assert all(value.startswith("data:") for value in reader.asked) and "default-src 'none'" in page
    assert not re.search(r"https?://|@import|fetch\(", page) and "<b>" not in page


def test_a_page_of_very_many_frames_shows_some_of_them_and_says_so(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(frame_maps, "MOST_SHOWN", 2)
    assert run() == 0
    page = (tmp_path / "seen" / "view.html").read_text()
    assert page.count("<figure>") == 2 and "2 of 4 frames" in page and "f0.png" in page and "f2.png" in page


@pytest.mark.slow
def test_the_slider_shows_the_boxes_from_its_score_on_in_a_browser(tmp_path):
    """One box of each frame has a score of 0.9, the other of 0.2."""
    for threshold, count in ((0.0, 4), (0.3, 2), (0.95, 0)):
        script = (f'<pre id="o"></pre><script>slider.value = {threshold}; slider.dispatchEvent(new Event("input")); o.textContent = '
                  '[total.textContent, document.querySelectorAll("g:not(.hidden)").length, '
                  '[...document.images].filter(i => i.naturalWidth).length].join(" ")</script></body>')
        (tmp_path / "view.html").write_text(build_page().replace("</body>", script), encoding="utf-8")
        found = chromium(tmp_path, "--virtual-time-budget=3000", "--dump-dom", (tmp_path / "view.html").as_uri())
        assert re.search(r'<pre id="o">([\d ]+)</pre>', found).group(1) == f"{count} {count} 2"
