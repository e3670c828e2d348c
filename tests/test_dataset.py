"""Patch sets, class balance, order, augmentation. Run: pytest tests/test_dataset.py"""

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from patch_factory import read_lines, write_manifest, write_patch_set

import augment
from chipping.cutting import compact
from chipping.patch_statistics import band_statistics, class_weights_of, compute_class_weights, is_fire_patch
from dataset import Labels, Sampling, WildfireDataModule, patch_order, read_patch_set
from runtime.distributed import Processes
from runtime.epoch_batches import EpochBatches, batches_in_order
from runtime.errors import UserError


@pytest.fixture
def patches(tmp_path):
    return write_patch_set(tmp_path / "patches", {"train": 3, "val": 1, "test": 1}, size=32)


def module(folder, num_classes=2, layer=None, **settings):
    data = WildfireDataModule(folder, batch_size=4, num_workers=0, labels=Labels(num_classes=num_classes, layer=layer), **settings)
    data.setup()
    return data


def older_set(folder, count=3, size=16, value=0.2):
    """A set of the older form: (H, W, C) float32 reflectance and (H, W) masks, no description."""
    for split in ("train", "val"):
        (folder / split).mkdir(parents=True)
        for i in range(count):
            image = np.full((size, size, 7), value, np.float32)
            image[..., 3] = np.arange(size)[None, :] / size
            mask = np.zeros((size, size), np.uint8)
            mask[:4] = 1
            np.save(folder / split / f"EMSR100_AOI01_01_r0_c{i * size}_image.npy", image)
            np.save(folder / split / f"EMSR100_AOI01_01_r0_c{i * size}_mask.npy", mask)
    return folder


def test_a_patch_is_what_is_in_its_file(patches):
    data = module(patches)
    image, mask, index = data.train[1]
    assert image.dtype == torch.uint16 and mask.dtype == torch.uint8 and index == 1
    assert np.array_equal(image.numpy(), np.load(data.train.patches[1].image))
    assert np.array_equal(mask.numpy(), np.load(data.train.patches[1].mask)[0])


def test_the_number_of_classes_chooses_the_layer(tmp_path):
    folder = write_patch_set(tmp_path / "p", {"train": 1, "val": 1}, size=32, layers={"DEL": 2, "GRA": 5})
    two, five = module(folder, num_classes=2), module(folder, num_classes=5)
    assert (two.patch_set.layer, five.patch_set.layer) == ("DEL", "GRA")
    assert int(two.train[0][1][two.train[0][1] != 255].max()) == 1
    assert int(five.train[0][1][five.train[0][1] != 255].max()) > 1
    assert five.patch_set.classes[4] == "destroyed"
    with pytest.raises(UserError, match="pass --num-classes 5"):
        module(folder, num_classes=2, layer="GRA")
    with pytest.raises(UserError, match="pass --layer"):
        module(folder, num_classes=3)
    with pytest.raises(UserError, match="layers are DEL, GRA"):
        module(folder, layer="CM")


def test_patches_without_the_layer_are_counted_out(tmp_path):
    folder = write_patch_set(tmp_path / "p", {"train": 2, "val": 1}, size=32, layers={"DEL": 2, "GRA": 5})
    lines = read_lines(folder)
    lines[0]["layers"] = ["DEL"]
    write_manifest(folder, lines)
    assert module(folder, num_classes=5).patch_set.without_layer == 1
    assert len(module(folder, num_classes=5).train) == 3 and len(module(folder, num_classes=2).train) == 4
    for line in lines:
        line["layers"] = ["DEL"] if line["split"] == "val" else line["layers"]
    write_manifest(folder, lines)
    with pytest.raises(UserError, match="no val patches .*; 3 have no labels of layer GRA and are left out"):
        module(folder, num_classes=5)


def test_floats_and_integers_of_one_set_meet_in_float32(patches):
    lines = read_lines(patches)
    image = np.load(patches / lines[0]["file"]).astype(np.float32) + 0.25
    np.save(patches / lines[0]["file"], image)
    lines[0]["dtype"] = "float32"
    write_manifest(patches, lines)
    batch = module(patches).train.__getitems__([0, 1])
    assert batch.images.dtype == torch.float32
    assert np.array_equal(batch.images[0].numpy(), image)
    assert np.array_equal(batch.images[1].numpy(), np.load(patches / lines[1]["file"]).astype(np.float32))


@pytest.mark.parametrize("how", ["cut short", "missing", "no numpy", "other shape", "other dtype", "mask cut short"])
def test_an_unreadable_patch_is_all_ignore_and_is_named(patches, how):
    data = module(patches)
    path = data.train.patches[1].mask if "mask" in how else data.train.patches[1].image
    if how == "missing":
        path.unlink()
    elif how == "no numpy":
        path.write_bytes(b"x" * 4000)
    elif how == "other shape":
        np.save(path, np.zeros((7, 16, 16), np.uint16))
    elif how == "other dtype":
        np.save(path, np.zeros((7, 32, 32), np.float64))
    else:
        path.write_bytes(path.read_bytes()[:-10])
    batch = data.train.__getitems__([0, 1, 2])
    assert (batch.masks[1] == 255).all() and not (batch.masks[0] == 255).all()
    assert [(p.index, p.fatal) for p in batch.problems] == [(1, False)]
    assert data.train.patches[1].image.name in str(batch.problems[0])
    with pytest.raises(OSError):
        data.train[1]


def test_a_label_outside_the_classes_is_fatal_and_names_the_file(patches):
    data = module(patches)
    mask = np.load(data.train.patches[0].mask)
    mask[0, 20, 20] = 7
    np.save(data.train.patches[0].mask, mask)
    (problem,) = data.train.__getitems__([0]).problems
    assert problem.fatal and "holds label 7" in str(problem) and data.train.patches[0].mask.name in str(problem)


def test_files_with_unusual_headers_are_read_too(patches):
    data = module(patches)
    path = data.train.patches[0].image
    image = np.load(path)
    np.save(path, np.asfortranarray(image))
    assert np.array_equal(data.train[0][0].numpy(), image)


@pytest.mark.parametrize(
    ("change", "words"),
    [("no folder", "does not exist"), ("empty folder", "holds no patches"), ("empty manifest", "lists no patches"),
     ("no val", "has no val patches"), ("other kind", "holds tiles, expected patches"), ("broken json", "not valid JSON")],
)
def test_sets_that_can_not_be_trained_on_are_one_line(patches, tmp_path, change, words):
    folder = patches
    if change == "no folder":
        folder = tmp_path / "nowhere"
    elif change == "empty folder":
        folder = tmp_path / "empty"
        folder.mkdir()
    elif change == "empty manifest":
        write_manifest(folder, [])
    elif change == "no val":
        write_manifest(folder, [line for line in read_lines(folder) if line["split"] == "train"])
    elif change == "other kind":
        (folder / "chipset.json").write_text((folder / "chipset.json").read_text().replace('"kind": "patches"', '"kind": "tiles"'))
    else:
        (folder / "chipset.json").write_text("{")
    with pytest.raises(UserError, match=words):
        module(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [({"window": None}, "lacks 'window'"), ({"class_pixels": None}, "lacks 'class_pixels'"), ({"mask": None}, "lacks 'mask'"),
     ({"class_pixels": {"other": [1]}}, "lacks 'mask'"), ({"window": [0, 0]}, r"has window \[0, 0\], expected 4 numbers"),
     (5, "is 5, expected an object")],
)
def test_a_manifest_line_that_does_not_describe_a_patch_is_named_with_its_number(patches, change, words):
    lines = read_lines(patches)
    if isinstance(change, dict):
        lines[2] = {key: value for key, value in (lines[2] | change).items() if value is not None}
    else:
        lines[2] = change
    write_manifest(patches, lines)
    with pytest.raises(UserError, match=f"manifest.jsonl, line 3 {words}"):
        module(patches)


def test_the_older_form_is_read_as_reflectance(tmp_path):
    data = module(older_set(tmp_path / "old"))
    image, mask, _ = data.train[0]
    assert image.shape == (7, 16, 16) and float(image[0, 0, 0]) == pytest.approx(0.2)
    assert data.train.patches[0].class_pixels == [192, 64] and data.train.patches[0].event == "EMSR100"
    mean, std = band_statistics(data.patch_set, data.train.patches)
    assert mean[0] == pytest.approx(0.2) and mean[3] == pytest.approx(7.5 / 16)
    assert std[0] == 1e-3 and std[3] == pytest.approx(np.std(np.arange(16) / 16))


def test_the_older_form_with_labels_outside_the_classes_or_without_masks_is_one_line(tmp_path):
    folder = older_set(tmp_path / "old")
    np.save(folder / "train" / "EMSR100_AOI01_01_r0_c0_mask.npy", np.full((16, 16), 3, np.uint8))
    with pytest.raises(UserError, match="c0_mask.npy holds label 3, but --num-classes 2"):
        module(folder)
    (folder / "train" / "EMSR100_AOI01_01_r0_c0_mask.npy").unlink()
    with pytest.raises(UserError, match="has no mask"):
        module(folder)


@pytest.mark.parametrize("dtype", [np.bool_, np.int8, np.int16, np.int64, np.uint16, np.float32, np.float64])
def test_masks_of_the_older_form_may_have_any_type_of_number(tmp_path, dtype):
    folder = older_set(tmp_path / "old")
    labels = np.zeros((16, 16), np.int64)
    labels[:4] = 1
    if np.dtype(dtype).itemsize > 1:
        labels[9] = 255
    for path in folder.glob("*/*_mask.npy"):
        np.save(path, labels.astype(dtype))
    data = module(folder)
    assert data.train.patches[0].class_pixels == [(labels == 0).sum(), 64]
    assert np.array_equal(data.train[0][1].numpy(), labels) and data.train[0][1].dtype == torch.uint8


@pytest.mark.parametrize(
    ("label", "dtype", "said"),
    [(-1, np.int64, "-1"), (256, np.int64, "256"), (300, np.int64, "300"), (511, np.uint16, "511"), (-1, np.int8, "-1"),
     (0.5, np.float32, "0.5"), (-1.0, np.float32, "-1.0"), (np.nan, np.float64, "nan"), (np.inf, np.float32, "inf")],
)
def test_a_label_that_uint8_would_turn_into_another_is_named_and_fatal(tmp_path, label, dtype, said):
    folder = older_set(tmp_path / "old")
    data = module(folder)
    mask = np.zeros((16, 16), dtype)
    mask[5, 6] = label
    path = data.train.patches[1].mask
    np.save(path, mask)
    batch = data.train.__getitems__([0, 1])
    (problem,) = batch.problems
    index, text, fatal = problem.index, str(problem), problem.fatal
    assert fatal and index == 1 and f"{path} holds label {said}, but --num-classes 2 allows 0..1 and 255" in text
    assert (batch.masks[1] == 255).all()
    with pytest.raises(UserError, match=f"{path.name} holds label {said},"):
        module(folder)


def test_masks_of_the_older_form_that_are_no_numbers_are_unreadable(tmp_path):
    folder = older_set(tmp_path / "old")
    np.save(folder / "train" / "EMSR100_AOI01_01_r0_c0_mask.npy", np.full((16, 16), "fire"))
    (problem,) = module(folder).train.__getitems__([0]).problems
    text, fatal = str(problem), problem.fatal
    assert not fatal and "expected numbers" in text


def test_mean_and_deviation_from_the_manifest_are_those_of_the_valid_pixels(patches):
    data = module(patches)
    mean, std = band_statistics(data.patch_set, data.train.patches)
    pixels = []
    for patch in data.train.patches:
        pixels.append(np.load(patch.image)[:, np.load(patch.mask)[0] != 255] / 10_000.0)
    pixels = np.concatenate(pixels, axis=1)
    assert mean == pytest.approx(pixels.mean(1)) and std == pytest.approx(pixels.std(1))


def test_class_weights_by_hand(patches):
    data = module(patches)
    patch = data.train.patches[0]
    patch.class_pixels = [90, 10]
    assert class_weights_of([patch], 2).tolist() == [1.0, 9.0]
    patch.class_pixels = [9999, 1]
    assert class_weights_of([patch], 2).tolist() == [1.0, 50.0]  # capped
    patch.class_pixels = [50, 50, 0]
    with pytest.warns(UserWarning, match="class 2"):
        assert class_weights_of([patch], 3).tolist() == [1.0, 1.0, 0.0]
    patch.class_pixels = [0, 0]
    with pytest.raises(UserError, match="no valid pixel"):
        class_weights_of([patch], 2)


def test_class_weights_of_a_folder_come_from_the_manifest_without_reading_masks(patches):
    for path in (patches / "train").glob("*_mask.npy"):
        path.unlink()
    counts = np.sum([line["class_pixels"]["mask"] for line in read_lines(patches) if line["split"] == "train"], axis=0)
    assert compute_class_weights(patches, 2)[1] == pytest.approx(counts[0] / counts[1])
    assert compute_class_weights(patches / "train", 2)[1] == pytest.approx(counts[0] / counts[1])


def batches_of(count, batch_size, processes=None, **how):
    return EpochBatches(*patch_order(count, batch_size, **how), processes)


def test_every_patch_comes_once_an_epoch_in_an_order_that_seed_and_epoch_decide():
    batches = batches_of(12, 4, seed=3)
    first = batches.of_epoch(0)
    assert sorted(sum(first, [])) == list(range(12)) and [len(b) for b in first] == [4, 4, 4]
    assert batches.of_epoch(1) != first and batches_of(12, 4, seed=4).of_epoch(0) != first
    assert batches_of(12, 4, seed=3).of_process(0, 1) == first[1:]
    assert len(batches_of(3, 16, seed=0).of_epoch(0)[0]) == 3  # fewer patches than a batch: all of them
    repeated = batches_of(3, 8, seed=0, steps=5)
    assert repeated.steps == 5 and [len(batch) for batch in repeated.of_epoch(2)] == [8] * 5


def test_two_processes_share_each_batch_between_them():
    whole = batches_of(10, 4, seed=0).of_epoch(0)
    parts = [batches_of(10, 4, Processes(rank, 2), seed=0).of_process(0) for rank in (0, 1)]
    for batch, a, b in zip(whole, *parts, strict=True):
        assert sorted(a + b) == sorted(batch) and len(a) == len(b) == 2


def test_weighted_sampling_draws_fire_patches_more_often():
    weights = np.array([5.0] + [1.0] * 5)
    drawn = [i for seed in range(200) for batch in batches_of(6, 6, seed=seed, weights=weights).of_epoch(0) for i in batch]
    assert np.mean(np.array(drawn) == 0) == pytest.approx(0.5, abs=0.05)


def test_batches_are_the_same_with_and_without_workers(patches):
    def images(workers):
        data = WildfireDataModule(patches, batch_size=2, num_workers=workers, sampling=Sampling(seed=5))
        data.setup()
        passes = [data.training_batches(2, 1), data.training_batches(3, 0, 1)]  # the loader's workers serve both
        return torch.cat([batch.images.to(torch.int32) for batches in passes for batch, _ in batches])

    assert torch.equal(images(0), images(2))


@hypothesis.given(count=st.integers(1, 30), batch_size=st.integers(1, 9), size=st.integers(1, 4))
def test_validation_is_in_order_whole_and_dealt_out_without_doubles(count, batch_size, size):
    dealt = [batches_in_order(count, batch_size, Processes(rank, size)) for rank in range(size)]
    assert sorted(i for batches in dealt for batch in batches for i in batch) == list(range(count))
    assert all(batch == list(range(batch[0], batch[-1] + 1)) and len(batch) <= batch_size for batches in dealt for batch in batches)


# ---------------------------------------------------------------------------------------------------------- augmentation


def flat(count=64, bands=3, size=32, value=2000):
    return torch.full((count, bands, size, size), value, dtype=torch.int16), torch.zeros(count, size, size, dtype=torch.uint8)


SCALE = torch.tensor([10_000.0] * 3), torch.tensor([-1000.0] * 3)


def test_without_draws_stored_values_become_reflectance_and_nothing_else():
    images, masks = flat(2)
    reflectance, labels = augment.prepare(images, masks, *SCALE)
    assert reflectance.dtype == torch.float32 and reflectance.unique().tolist() == pytest.approx([0.1])
    assert torch.equal(labels, masks) and images.unique().tolist() == [2000]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int16, torch.float32])
def test_every_stored_type_is_turned_and_scaled_alike(dtype):
    images = torch.randint(1, 200, (6, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    masks = (images[:, 0] > 100).to(torch.uint8)
    draws = augment.draw([augment.STRONG] * 6, 3, 8, 8, seed=0, epoch=0, step=0)
    expected, _ = augment.prepare(images.to(torch.int16), masks, *SCALE, draws)
    got, labels = augment.prepare(images.to(dtype), masks, *SCALE, draws)
    assert torch.equal(got, expected)


@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
def test_nodata_is_0_in_training_as_in_a_map_whatever_the_scale(dtype):
    """make-patches stores the number nearest to reflectance 0; Landsat's 7272.73 is none, and an offset above 0 has none."""
    empty = np.zeros((16, 16), dtype=bool)
    empty[:8] = True
    masks = torch.from_numpy(np.where(empty, 255, 0).astype(np.uint8))[None]
    policy = augment.Policy(0, 0, 1, gain=0.15, offset=0.02, noise_chance=1, noise=0.02)
    draws = augment.draw([policy], 3, 16, 16, seed=0, epoch=0, step=0)
    for offset, divisor in ((-0.2 / 2.75e-5, 1 / 2.75e-5), (-1000.0, 1e4), (1000.0, 1e4)):
        stored = compact(np.full((3, 16, 16), 12_000, dtype), empty, [offset] * 3)
        assert stored.dtype == dtype
        for drawn in (None, draws):
            scale = torch.full((3,), divisor), torch.full((3,), offset)
            images = torch.from_numpy(stored)[None]
            nodata = augment.nodata_values((offset,) * 3, images.dtype)
            assert (nodata is None) == (offset == -1000 or (offset, dtype) == (1000, np.int16))  # which become 0 by themselves
            reflectance, _ = augment.prepare(images, masks, *scale, drawn, nodata)
            assert not reflectance[0, :, :8].any() and (reflectance[0, :, 8:] != 0).all()


def test_image_and_mask_move_together_and_all_eight_positions_occur():
    images = torch.arange(16, dtype=torch.int16).reshape(1, 1, 4, 4).repeat(200, 1, 1, 1)
    masks = images[:, 0].to(torch.uint8)
    policy = augment.Policy(spectral_chance=0.0, noise_chance=0.0)
    draws = augment.draw([policy] * 200, 1, 4, 4, seed=1, epoch=0, step=0)
    moved, labels = augment.prepare(images, masks, torch.ones(1), torch.zeros(1), draws)
    assert torch.equal(moved[:, 0].to(torch.uint8), labels)
    assert len({tuple(m.flatten().tolist()) for m in labels}) == 8


def test_gain_offset_and_noise_are_as_strong_as_stated():
    images, masks = flat(400, value=3000)  # reflectance 0.2
    policy = augment.Policy(0.0, 0.0, 1.0, gain=0.10, offset=0.01, noise_chance=0.0, noise=0.0)
    draws = augment.draw([policy] * 400, 3, 32, 32, seed=0, epoch=0, step=0)
    values, _ = augment.prepare(images, masks, *SCALE, draws)
    level = values[:, :, 0, 0]
    assert level.min() >= 0.2 * 0.9 - 0.01 - 1e-6 and level.max() <= 0.2 * 1.1 + 0.01 + 1e-6
    # two independent uniforms, ± 0.02 and ± 0.01: variance (0.02² + 0.01²) / 3
    assert level.std().item() == pytest.approx(((0.02**2 + 0.01**2) / 3) ** 0.5, rel=0.1)
    assert (level[:, 0] - level[:, 1]).abs().mean() > 0.005  # each band its own

    noisy = augment.Policy(0.0, 0.0, 0.0, 0.0, 0.0, noise_chance=1.0, noise=0.02)
    draws = augment.draw([noisy] * 400, 3, 32, 32, seed=0, epoch=0, step=0)
    values, _ = augment.prepare(images, masks, *SCALE, draws)
    assert values.std(dim=(1, 2, 3)).numpy() == pytest.approx(draws.noise, abs=0.001)
    assert draws.noise.max() <= 0.02 and draws.noise.mean() == pytest.approx(0.01, rel=0.1)


def test_how_often_things_happen_is_as_stated_and_fire_patches_get_more():
    draws = augment.draw([augment.STANDARD] * 2000 + [augment.STRONG] * 2000, 1, 8, 8, seed=0, epoch=0, step=0)
    for part, p, spectral in ((slice(0, 2000), 0.5, 0.3), (slice(2000, 4000), 0.7, 0.5)):
        assert draws.flip[part].mean() == pytest.approx(p, abs=0.04)
        assert (draws.turns[part] > 0).mean() == pytest.approx(p, abs=0.04)
        assert (draws.noise[part] > 0).mean() == pytest.approx(spectral, abs=0.04)
        assert (draws.gain[part] != 1).mean() == pytest.approx(spectral, abs=0.04)


def test_nan_becomes_zero_and_ignore_and_masks_hold_nothing_new():
    images = torch.full((2, 3, 8, 8), 0.3)
    images[0, 1, 2, 3] = float("nan")
    images[1, 0, 0, 0] = float("inf")
    masks = torch.ones(2, 8, 8, dtype=torch.uint8)
    one = torch.ones(3), torch.zeros(3)
    for draws in (None, augment.draw([augment.STRONG] * 2, 3, 8, 8, 0, 0, 0)):
        values, labels = augment.prepare(images, masks, *one, draws)
        assert torch.isfinite(values).all() and (labels == 255).sum() == 2 and set(labels.unique().tolist()) == {1, 255}
    assert torch.isnan(images[0, 1, 2, 3])  # the batch itself is untouched


def test_nodata_stays_nodata_whatever_is_done_to_the_rest():
    """In a map it is exactly 0, and a network may ask which pixels are."""
    images, masks = flat(8, value=3000)
    images[:, :, :, :16], masks[:, :, :16] = 1000, 255  # reflectance 0
    policy = augment.Policy(0.0, 0.0, 1.0, gain=0.10, offset=0.01, noise_chance=1.0, noise=0.02)
    draws = augment.draw([policy] * 8, 3, 32, 32, seed=0, epoch=0, step=0)
    values, _ = augment.prepare(images, masks, *SCALE, draws)
    assert (values[..., :16] == 0).all() and (values[..., 16:] != 0).all() and values[..., 16:].std() > 0.005


def test_a_crop_is_a_piece_of_the_patch():
    images = torch.arange(64, dtype=torch.int16).reshape(1, 1, 8, 8).repeat(50, 1, 1, 1)
    draws = augment.draw([augment.NOTHING] * 50, 1, 8, 8, seed=0, epoch=0, step=0, crop=3)
    values, labels = augment.prepare(images, images[:, 0].to(torch.uint8), torch.ones(1), torch.zeros(1), draws)
    assert values.shape == (50, 1, 3, 3) and torch.equal(values[:, 0].to(torch.uint8), labels)
    assert len(set(labels[:, 0, 0].tolist())) > 15 and int(labels[:, 0, 0].max()) <= 45
    assert torch.equal(values[0, 0] - values[0, 0, 0, 0], torch.tensor([[0.0, 1, 2], [8, 9, 10], [16, 17, 18]]))


def test_the_draws_of_a_step_depend_on_seed_epoch_and_step_only():
    def of(*position):
        return augment.draw([augment.STRONG] * 8, 3, 8, 8, *position).gain

    assert np.array_equal(of(0, 1, 2), of(0, 1, 2))
    assert not np.array_equal(of(0, 1, 2), of(0, 1, 3)) and not np.array_equal(of(0, 1, 2), of(0, 2, 2))


def test_fire_patches_are_those_with_more_than_a_hundredth_burned(patches):
    patch = read_patch_set(patches).patches[0]
    patch.class_pixels = [99, 1]
    assert not is_fire_patch(patch)
    patch.class_pixels = [98, 2]
    assert is_fire_patch(patch)
