"""CutMix: a rectangle of another patch of the batch, with its labels."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from patch_factory import write_patch_set
from training_programs import Killed, at_step, kill

import augment
import train
from dataset import PatchDataModule, Sampling
from runtime.checkpoint import load_checkpoint
from runtime.distributed import Processes
from runtime.errors import UserError

ONE = torch.ones(2), torch.zeros(2)


def numbered(count, height, width):
    """Patch i is i + 1 in all pixels, its labels too; the first row is ignored."""
    images = torch.arange(1, count + 1, dtype=torch.int16)[:, None, None, None].repeat(1, 2, height, width)
    masks = images[:, 0].to(torch.uint8)
    masks[:, 0] = 255
    return images, masks


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 12), st.integers(1, 12), st.integers(0, 10), st.sampled_from([0.0, 0.5, 1.0]))
def test_pixels_and_labels_come_from_one_other_patch_in_one_rectangle(count, height, width, seed, chance):
    images, masks = numbered(count, height, width)
    draws = augment.draw([augment.NOTHING] * count, 2, height, width, seed, 0, 0, cutmix=chance)
    values, labels = augment.prepare(images, masks, *ONE, draws)
    for i in range(count):
        other = values[i] == (i + count // 2) % count + 1
        assert (other | (values[i] == i + 1)).all()
        if count > 1:
            top, left, high, wide = draws.pasted[i]
            inside = torch.zeros(height, width, dtype=torch.bool)
            inside[top : top + high, left : left + wide] = True
            assert top + high <= height and left + wide <= width and torch.equal(other[0], inside)
    assert torch.equal(labels, torch.where(masks == 255, 255, values[:, 0].to(torch.uint8)))  # what is ignored there is ignored here


def test_how_often_and_how_much_is_as_stated_and_other_draws_stay():
    plain = augment.draw([augment.STRONG] * 4000, 2, 64, 32, 3, 0, 0)
    mixed = augment.draw([augment.STRONG] * 4000, 2, 64, 32, 3, 0, 0, cutmix=0.3)
    share = mixed.pasted[:, 2] * mixed.pasted[:, 3] / (64 * 32)
    assert not plain.pasted[:, 2:].any() and (share > 0).mean() == pytest.approx(0.3, abs=0.03)
    assert share[share > 0].mean() == pytest.approx(0.5, abs=0.03)  # even over 0..1
    for name in ("flip", "turns", "gain", "offset", "noise", "noise_seed", "corner"):
        assert np.array_equal(getattr(plain, name), getattr(mixed, name))


def test_ignored_values_move_like_ignored_classes():
    images, masks = numbered(2, 4, 4)
    values = masks.float().masked_fill(masks == 255, float("nan"))
    draws = augment.draw([augment.NOTHING] * 2, 2, 4, 4, 0, 0, 0, cutmix=1.0)
    found, labels = augment.prepare(images, values, *ONE, draws)
    assert torch.equal(labels.isnan(), masks == 255) and torch.equal(labels[:, 1:], found[:, 0, 1:])


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(0, 5))
def test_any_number_of_processes_makes_the_same_batch(size, pairs, seed):
    count = 2 * size * pairs
    images, masks = numbered(count, 6, 5)
    draws = augment.draw([augment.STANDARD] * count, 2, 6, 5, seed, 0, 0, cutmix=1.0)
    whole, _ = augment.prepare(images, masks, *ONE, draws)
    for rank in range(size):
        part = slice(rank, None, size)
        mine, _ = augment.prepare(images[part], masks[part], *ONE, draws.rows(part))
        assert torch.equal(mine, whole[part])


def test_batches_that_cannot_be_paired_are_refused(tmp_path):
    patches = write_patch_set(tmp_path / "patches", {"train": 6, "val": 1}, size=32)
    data = PatchDataModule(patches, 6, 0, sampling=Sampling(cutmix=0.5), processes=Processes(0, 2))
    with pytest.raises(UserError, match="multiple of 4"):
        data.setup(("train",))


@pytest.mark.parametrize("task", ["classification", "multilabel"])
def test_tasks_of_whole_patches_refuse_it(task):
    with pytest.raises(UserError, match="--cutmix mixes labels of pixels"):
        train.check_flags(train.build_parser().parse_args(["--task", task, "--cutmix", "0.5"]))


@pytest.mark.slow
def test_a_run_that_is_killed_inside_an_epoch_ends_with_the_same_weights_and_others_than_without(tmp_path):
    patches = write_patch_set(tmp_path / "patches", {"train": 6, "val": 1}, size=32)

    def train_into(name, *more):
        train.main(["--patches-dir", str(patches), "--output-dir", str(tmp_path / name), "--architecture", "smallunet", "--batch-size", "2",
                    "--num-workers", "0", "--epochs", "2", "--quiet", "--device", "cpu", "--save-minutes", "0", *more])

    def weights(name):
        return load_checkpoint(tmp_path / name / "checkpoints" / "final_model.pt")["state"]["model"]

    train_into("plain")
    train_into("mixed", "--cutmix", "0.8")
    with at_step(4, kill), pytest.raises(Killed):
        train_into("killed", "--cutmix", "0.8")
    train.main(["--resume", str(tmp_path / "killed" / "checkpoints" / "last.pt"), "--quiet"])
    assert all(torch.equal(value, weights("killed")[key]) for key, value in weights("mixed").items())
    assert any(not torch.equal(value, weights("plain")[key]) for key, value in weights("mixed").items())


def test_a_batch_of_one_patch_has_no_pair(tmp_path):
    patches = write_patch_set(tmp_path / "patches", {"train": 6, "val": 1}, size=32)
    with pytest.raises(UserError, match="--batch-size 2 or more"):
        PatchDataModule(patches, 1, 0, sampling=Sampling(cutmix=0.5)).setup(("train",))
