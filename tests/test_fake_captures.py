"""Capture runs of moving shapes: boxes are those of what is visible, frames are a camera's, the same seed gives the same bytes."""

import hashlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import chip
from runtime.errors import UserError
from synthetic import captures
from synthetic.captures import CaptureRecipe, make_run, move_shapes, paint


def run(*words):
    return chip.main(["fake-captures", *[str(word) for word in words], "--quiet"]) or 0


def tree(folder):
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()}


def labels_of(folder):
    """[(picture, boxes (N, 4))] of a run's frames."""
    found = []
    for path in sorted((folder / "labels").iterdir()):
        label = json.loads(path.read_text())
        pixels = np.asarray(Image.open(folder / label["image"]))
        found.append((pixels, np.array([entry["bbox_px"] for entry in label["labels"]]).reshape(-1, 4), label))
    return found


@settings(max_examples=15, deadline=None)
@given(st.integers(120, 500), st.integers(120, 500), st.integers(0, 3), st.integers(0, 2), st.integers(0, 999))
def test_shapes_stay_apart_large_enough_and_as_many_as_asked_for(width, height, low, more, seed):
    recipe = CaptureRecipe(size=(width, height), objects=(low, low + more), frames=12)
    for shapes in move_shapes(np.random.default_rng(seed), recipe):
        assert low <= len(shapes) <= low + more
        pixels = np.zeros((height, width, 3), np.uint8)
        boxes = np.array([paint(pixels, shape) for shape in shapes]).reshape(-1, 4)
        assert (boxes[:, 2:] - boxes[:, :2] >= 16).all()
        assert (boxes >= 0).all() and (boxes <= [width, height, width, height]).all()
        for k, one in enumerate(boxes):
            assert not any((one[:2] < other[2:]).all() and (one[2:] > other[:2]).all() for other in boxes[k + 1 :])


def test_a_box_is_that_of_the_pixels_that_a_shape_has_changed():
    recipe = CaptureRecipe(size=(200, 130), objects=(1, 3), frames=8)
    for shapes in move_shapes(np.random.default_rng(3), recipe):
        for shape in shapes:
            pixels = np.zeros((130, 200, 3), np.uint8)
            box = paint(pixels, shape)
            rows, columns = np.nonzero(pixels.any(axis=2))
            assert box == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_shapes_differ_from_the_ground_and_frames_from_their_mirror_images(tmp_path):
    run("-o", tmp_path, "--runs", 2, "--frames", 8, "--size", "200x120", "--objects", "1-3")
    one, two = sorted(tmp_path.iterdir())
    moved = 0
    for folder in (one, two):
        frames = labels_of(folder)
        assert len(frames) == 8 and all(pixels.shape == (120, 200, 3) for pixels, _, _ in frames)
        for pixels, boxes, label in frames:
            outside = np.ones(pixels.shape[:2], bool)
            for x0, y0, x1, y1 in boxes:
                outside[y0:y1, x0:x1] = False
            spread = pixels.astype(int).max(axis=2) - pixels.min(axis=2)
            for x0, y0, x1, y1 in boxes:  # colours are strong in the box, and nowhere else
                assert spread[y0:y1, x0:x1].max() > spread[outside].max()
            scale = np.array([200, 120, 200, 120])
            assert np.allclose([entry["bbox_norm"] for entry in label["labels"]], boxes / scale)
            green = pixels[..., 1].astype(int) - pixels[..., 0]
            assert green[60:][outside[60:]].mean() > green[:60][outside[:60]].mean() + 5
        moved += sum(not np.array_equal(a[1], b[1]) for a, b in zip(frames, frames[1:], strict=False))
    assert moved > 8
    assert not np.array_equal(labels_of(one)[0][0], labels_of(two)[0][0])


def test_the_same_seed_gives_the_same_bytes_and_a_stopped_run_continues(tmp_path):
    words = ["--runs", 2, "--frames", 6, "--size", "96x64"]
    run("-o", tmp_path / "a", *words)
    run("-o", tmp_path / "b", *words)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    folder = sorted((tmp_path / "b").iterdir())[0]
    (folder / "labels" / "frame_00003.json").unlink()  # killed between a frame and its label
    recipe = CaptureRecipe(size=(96, 64), frames=6)
    assert [count is None for count in make_run(folder, 0, recipe)] == [True] * 3 + [False] + [True] * 2
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    run("-o", tmp_path / "c", *words, "--seed", 1)
    assert not set(tree(tmp_path / "a")) & set(tree(tmp_path / "c"))  # runs of two seeds may lie in one folder


class Killed(BaseException):
    pass


def kill_before(patch, number):
    """Raise Killed in place of the number-th file or folder that is made or removed."""
    calls = iter(range(number + 1))

    def watched(whole):
        def function(*args, **kwargs):
            if next(calls) == number:
                raise Killed
            return whole(*args, **kwargs)

        return function

    for name in ("make_own_folder", "write_json", "remove_tree", "write_text"):
        patch.setattr(captures, name, watched(getattr(captures, name)))


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_killed_between_any_two_files_a_run_is_not_taken_for_a_strangers(tmp_path, monkeypatch, overwrite):
    words = ["--runs", 1, "--frames", 1, "--size", "96x64"]
    run("-o", tmp_path / "whole", *words)
    for number in range(len(overwrite) * 3 + 5):  # three folders are removed, three made, two files written
        folder = tmp_path / f"killed{number}"
        if overwrite:
            run("-o", folder, *words, "--objects", "1")
        with monkeypatch.context() as patch, pytest.raises(Killed):
            kill_before(patch, number)
            run("-o", folder, *words, *overwrite)
        for place in folder.glob("run_*"):
            (place / ".run_manifest.part.json").write_text("{")  # of a kill while it was written
        run("-o", folder, *words, *overwrite)
        assert {name: content for name, content in tree(folder).items() if "/." not in name} == tree(tmp_path / "whole")


def test_other_settings_and_real_runs_are_not_overwritten(tmp_path):
    run("-o", tmp_path, "--runs", 1, "--frames", 2, "--size", "96x64")
    with pytest.raises(UserError, match=r"was made otherwise \(frames: 2 → 3\); pass --overwrite"):
        run("-o", tmp_path, "--runs", 1, "--frames", 3, "--size", "96x64")
    run("-o", tmp_path, "--runs", 1, "--frames", 3, "--size", "96x64", "--overwrite")
    (folder,) = tmp_path.iterdir()
    assert len(list((folder / "images").iterdir())) == 3
    (folder / "run_manifest.json").write_text('{"schema_version": 1}')
    before = tree(tmp_path)
    for words in ([], ["--overwrite"]):
        with pytest.raises(UserError, match="holds a real run"):
            run("-o", tmp_path, "--runs", 1, "--frames", 3, "--size", "96x64", *words)
    (folder / "run_manifest.json").unlink()
    with pytest.raises(UserError, match="is not empty and was not made by fake-captures"):
        run("-o", tmp_path, "--runs", 1, "--frames", 3, "--size", "96x64", "--overwrite")
    assert {**tree(tmp_path), f"{folder.name}/run_manifest.json": before[f"{folder.name}/run_manifest.json"]} == before


@pytest.mark.parametrize("words, message", [
    (["--objects", "5-3"], "expected a number of objects up to 20"), (["--objects", "many"], "expected a number of objects"),
    (["--size", "30x30"], "--size 30x30 is too small; expected 64"), (["--objects", "20", "--size", "64x64"], "no place for so many"),
])
def test_what_cannot_be_made_is_told(tmp_path, words, message):
    with pytest.raises(UserError, match=message):
        run("-o", tmp_path, *words)
