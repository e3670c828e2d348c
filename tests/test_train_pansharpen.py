"""train_pansharpen.py: formulas of losses and augmentation, batches, and sessions that continue exactly."""

import csv
import dataclasses
import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from training_programs import at_step, ruin
from training_programs import same as identical

import train_pansharpen
from chipping.fake_chips import OUR_REFLECTANCES, FakeRecipe, make_fake_chips
from chipping.pan_chips import read_chip
from constants import WORLDVIEW_BANDS
from pansharpening import augment, losses, scoring
from pansharpening import dataset as dataset_pansharpen
from pansharpening.dataset import PanChips, collate, epoch_order, logical_batches
from pansharpening.network import Pansharpener, PansharpenerConfig, measure_reach
from pansharpening.sample_sheet import pan_sheet
from pictures.overlays import NODATA_COLOUR, PROBABILITY_STOPS
from raster.resampling import MS_GAIN, expand, reduce_mtf
from runtime.checkpoint import load_checkpoint
from runtime.distributed import Processes
from runtime.epoch_batches import EpochBatches
from runtime.errors import RunError, UserError
from runtime.interrupts import INTERRUPT, NOTHING, StopRequest
from runtime.run_state import Position

ROOT = Path(train_pansharpen.__file__).parent


@pytest.fixture(scope="module")
def chips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chips")
    make_fake_chips(OUR_REFLECTANCES, folder / "train", 12, FakeRecipe(side=32))
    make_fake_chips(OUR_REFLECTANCES, folder / "test", 4, FakeRecipe(side=32, seed=1))
    return folder


def arguments(folder, chips, **changes):
    flags = {"session": "s", "sessions-dir": folder, "chips": chips / "train", "test-chips": chips / "test", "epochs": 2, "pbs": 4,
             "lbs": 8, "width": 16, "depth": 1, "workers": 0, "lr": 1e-3, "device": "cpu"} | changes
    words = [w for name, value in flags.items() if value is not None for w in (f"--{name}", str(value))]
    return [*words, "--quiet"]


def train(folder, chips, **changes):
    return train_pansharpen.main(arguments(folder, chips, **{k.replace("_", "-"): v for k, v in changes.items()}))


def weights(folder, epoch, session="s"):
    return load_checkpoint(folder / session / "checkpoints" / f"checkpoint_epoch_{epoch}.pt")["state"]["model"]


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def same_files(folder, other):
    """Whether two sessions have checkpoints and samples of the same names with the same bytes."""
    one, two = ({p.name: p.read_bytes() for p in (place / "s").glob("*/*")} for place in (folder, other))
    return one == two


def rows(folder, session="s"):
    with open(folder / session / "metrics.csv", newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def three_epochs(chips, tmp_path_factory):
    folder = tmp_path_factory.mktemp("three")
    train(folder, chips, epochs=3, augment="full")
    return folder


# ------------------------------------------------------------------------------------------------ losses


def test_delta_e_is_one_jnd_for_a_step_of_0_02_in_lightness_and_0_01_in_colour():
    target = torch.zeros(2, 3, 4, 4)
    for channel, step in ((0, 0.02), (1, 0.01), (2, 0.01)):
        prediction = target.clone()
        prediction[:, channel] = step
        assert losses.delta_e(prediction, target).tolist() == pytest.approx([1.0, 1.0], abs=6e-3)


@pytest.mark.parametrize("name", losses.LOSSES)
def test_losses_and_their_gradients_are_zero_or_finite_at_equality(name):
    target = torch.rand(1, 3, 8, 8)
    prediction = target.clone().requires_grad_()
    value = losses.LOSSES[name](prediction, target, None, torch.ones(1, 3, 1, 1))
    value.sum().backward()
    assert value.item() == pytest.approx(0, abs=1e-5) and torch.isfinite(prediction.grad).all()


def test_delta_e_refuses_images_without_batch():
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\)"):
        losses.delta_e(torch.zeros(3, 8, 8), torch.zeros(3, 8, 8))


def test_angle_of_perpendicular_spectra_is_the_chord_root_two():
    a, b = torch.zeros(1, 2, 1, 1), torch.zeros(1, 2, 1, 1)
    a[0, 0], b[0, 1] = 0.3, 2.0
    assert losses.angle(a, b).item() == pytest.approx(2**0.5, abs=1e-3)


def test_masked_pixels_do_not_count():
    target, prediction, valid = torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4), torch.ones(1, 1, 4, 4, dtype=torch.bool)
    prediction[:, :, 0] = 9
    valid[:, :, 0] = False
    assert losses.l1(prediction, target, valid, 1.0).item() == 0
    assert losses.l1(prediction, target, None, 1.0).item() == pytest.approx(9 / 4)


def test_scales_are_added_with_equal_weight_and_box_mean_targets():
    target = torch.rand(1, 4, 8, 8)
    predictions = [torch.nn.functional.avg_pool2d(target, s) + 0.1 for s in (4, 2, 1)]
    found = losses.weighted_losses(predictions, target, None, {"l1": 1.0}, torch.ones(1, 4, 1, 1))
    assert found["l1"].item() == pytest.approx(0.3, abs=1e-5)


def test_a_coarse_pixel_counts_only_where_all_its_pixels_are_valid():
    target, valid = torch.zeros(2, 3, 4, 4), torch.ones(2, 1, 4, 4, dtype=torch.bool)
    valid[0, 0, 0, 1] = False  # of the first chip: one of the four pixels under the coarse one at the upper left
    coarse, fine = torch.ones(2, 3, 2, 2), torch.full((2, 3, 4, 4), 2.0)
    coarse[:, :, 0, 0], fine[:, :, 0, 1] = 9.0, 50.0
    found = losses.weighted_losses([coarse, fine], target, valid, {"l1": 1.0}, torch.ones(1, 3, 1, 1))
    # (1 + 1 + 1) / 3 and 15 · 2 / 15; the second chip counts all: (9 + 3) / 4 and (50 + 15 · 2) / 16
    assert found["l1"].tolist() == pytest.approx([1 + 2, 3 + 5])


# ------------------------------------------------------------------------------------------------ augmentation


def test_a_halo_of_strength_0_changes_nothing_and_positive_strength_sharpens():
    x = torch.zeros(1, 1, 7, 7)
    x[..., 3, 3] = 1
    assert torch.equal(augment.halo(x, torch.zeros(1)), x)
    sharper = augment.halo(x, torch.tensor([1.0]))
    assert sharper[0, 0, 3, 3] == 2 - 4 / 16 and sharper[0, 0, 3, 4] == -2 / 16 and sharper[0, 0, 4, 4] == -1 / 16


def test_a_halo_is_the_image_plus_its_difference_from_a_121_blur_with_mirrored_borders():
    x = np.random.default_rng(0).random((2, 3, 6, 5))
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="reflect")
    blurred = sum(
        (2 - abs(dy)) * (2 - abs(dx)) / 16 * padded[:, :, 1 + dy : 7 + dy, 1 + dx : 6 + dx] for dy in (-1, 0, 1) for dx in (-1, 0, 1)
    )
    strength = np.array([0.75, -0.4])
    found = augment.halo(torch.from_numpy(x), torch.from_numpy(strength))
    assert np.abs(found.numpy() - (x + strength[:, None, None, None] * (x - blurred))).max() < 1e-12
    ramp = torch.arange(4.0).expand(1, 1, 4, 4)  # left of its 0 comes a 1, as on its right: the blur there is (1 + 0 + 1) / 4
    assert augment.halo(ramp, torch.ones(1))[0, 0, 2].tolist() == [-0.5, 1.0, 2.0, 3.5]


@pytest.mark.parametrize("bands", [WORLDVIEW_BANDS, ("blue", "green", "red", "nir")])
def test_halos_have_the_documented_strength(bands, monkeypatch):
    monkeypatch.setattr(augment, "MISALIGNMENT", 0.0)
    count = 2000
    pan, mul = torch.zeros(count, 1, 8, 8), torch.zeros(count, len(bands), 8, 8)
    pan[:, :, 4, 4] = mul[:, :, 4, 4] = 1
    pan, mul = augment.augment_pair(pan, mul, list(range(count)), bands)
    # A lone 1 becomes 1 + r (1 - 4 / 16). It is above 1 for most r: what clips to 0..1, misalignment, comes before.
    on_pan, on_mul = ((image[:, :, 4, 4] - 1) / 0.75 for image in (pan, mul))
    assert (on_mul - on_mul[:, :1]).abs().max() < 1e-4  # one strength for all bands of a chip
    # The mean of 2000 draws strays by 0.002 and 0.011 (one standard deviation), their spread by 1.6 %.
    assert on_pan.mean().item() == pytest.approx(0.1, abs=0.01) and on_pan.std().item() == pytest.approx(0.1, rel=0.08)
    assert on_mul[:, 0].mean().item() == pytest.approx(0.75, abs=0.05) and on_mul[:, 0].std().item() == pytest.approx(0.5, rel=0.08)
    assert abs(torch.corrcoef(torch.stack([on_pan[:, 0], on_mul[:, 0]]))[0, 1].item()) < 0.1


@pytest.mark.parametrize("power", [1, 2])
def test_noise_has_mean_0_spread_1_and_falls_with_frequency_as_asked(power):
    fields = [augment.noise(torch.Generator().manual_seed(n), 64, power) for n in range(200)]
    assert all(abs(f.mean().item()) < 1e-5 and f.std().item() == pytest.approx(1, abs=1e-4) for f in fields)
    energy = sum(np.abs(np.fft.fft2(f.numpy())) ** 2 for f in fields)
    octaves = [energy[k, 1:k].mean() / energy[2 * k, 2 : 2 * k : 2].mean() for k in (8, 16)]  # the same directions, twice the frequency
    assert octaves == pytest.approx([4.0**power] * 2, rel=0.15)


def test_offsets_point_everywhere():
    means = torch.stack([augment.offsets(torch.Generator().manual_seed(n), 16).mean((1, 2)) for n in range(400)])
    assert means.mean(0).norm() < 0.2 * means.norm(dim=1).mean()


def test_offsets_have_the_documented_size():
    sizes = torch.cat([augment.offsets(torch.Generator().manual_seed(n), 128).norm(dim=0)[None] for n in range(40)])
    assert sizes.mean().item() == pytest.approx(0.26, rel=0.15)
    assert sizes[:, 60:68, 60:68].mean().item() == pytest.approx(0.94, rel=0.3)
    assert np.quantile(sizes.numpy(), 0.99) == pytest.approx(2.7, rel=0.15)
    assert sizes[:, 0].mean() < 0.01  # next to nothing at the border


def test_bands_of_the_two_arrays_move_in_opposite_directions():
    ramp = torch.arange(32.0).expand(1, 8, 32, 32) / 64
    shifts = torch.zeros(1, 2, 32, 32)
    shifts[:, 0] = 0.5  # half a pixel to the right
    moved = augment.misalign(ramp, shifts, WORLDVIEW_BANDS) - ramp
    inner = moved[0, :, 8:24, 8:24].mean((1, 2)) * 64
    expected = [0.5 if band in ("nir1", "red", "green", "blue") else -0.5 for band in WORLDVIEW_BANDS]
    assert inner.tolist() == pytest.approx(expected, abs=1e-3)


def test_augmentation_depends_on_the_seed_of_each_chip_and_leaves_its_input_alone():
    pan, mul = torch.rand(2, 1, 64, 64), torch.rand(2, 8, 16, 16)
    before = pan.clone(), mul.clone()
    both = augment.augment_pair(pan, mul, [5, 6], WORLDVIEW_BANDS)
    alone = augment.augment_pair(pan[1:], mul[1:], [6], WORLDVIEW_BANDS)
    assert torch.equal(pan, before[0]) and torch.equal(mul, before[1])
    for batched, single in zip(both, alone, strict=True):
        assert torch.allclose(batched[1:], single, atol=1e-6) and not torch.equal(batched[1:], mul[1:])


def test_all_eight_turns_are_the_same_for_all_tensors_of_a_chip():
    seen = set()
    for quarter in range(4):
        for mirror in (0, 1):
            x = torch.arange(4.0).view(1, 2, 2)
            a, b, none = augment.turn([x, x, None], quarter, mirror)
            assert torch.equal(a, b) and none is None
            seen.add(tuple(a.flatten().tolist()))
    assert len(seen) == 8


# ------------------------------------------------------------------------------------------------ network


@pytest.mark.parametrize("target", ["bands", "oklab"])
@pytest.mark.parametrize("ratio", [2, 4])
def test_a_new_network_is_the_classical_injection(target, ratio):
    model = Pansharpener(PansharpenerConfig(("blue", "green", "red", "nir"), ratio, target, 16, 1))
    ms = torch.rand(2, 4, 8, 8) * 0.4 + 0.1
    pan = torch.rand(2, 1, 8 * ratio, 8 * ratio) * 0.4 + 0.1
    out = model(ms, pan)
    assert out.shape == (2, 4 if target == "bands" else 3, 8 * ratio, 8 * ratio)
    if target == "bands":
        expected = expand(ms, ratio) * pan / expand(reduce_mtf(pan, ratio, MS_GAIN), ratio)
        assert (out - expected).abs().max() < 1e-5
    scales = model(ms, pan, all_scales=True)
    assert [s.shape[-1] for s in scales] == [8 * 2**i for i in range(len(scales))] and torch.equal(scales[-1], out)


@pytest.mark.parametrize(("ratio", "target"), [(3, "bands"), (16, "bands"), (4, "rgb")])
def test_networks_that_cannot_be_are_refused(ratio, target):
    with pytest.raises(ValueError, match="must be"):
        Pansharpener(PansharpenerConfig(("a", "b"), ratio, target))


def random_model():
    torch.manual_seed(0)
    model = Pansharpener(PansharpenerConfig(("a", "b", "c"), 4, "bands", 16, 2)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def test_a_block_with_the_measured_reach_as_apron_equals_the_whole_image():
    model = random_model()
    reach = measure_reach(model)
    ms, pan = torch.rand(1, 3, 48, 48) + 0.1, torch.rand(1, 1, 192, 192) + 0.1
    a = reach // 4
    with torch.no_grad():
        whole = model(ms, pan)
        part = model(ms[:, :, 20 - a : 28 + a, 20 - a : 28 + a], pan[:, :, 80 - reach : 112 + reach, 80 - reach : 112 + reach])
    assert reach % 4 == 0 and (part[:, :, reach:-reach, reach:-reach] - whole[:, :, 80:112, 80:112]).abs().max() < 1e-5


def test_dark_black_and_flat_images_give_finite_values_and_gradients():
    model = random_model()
    for value in (0.0, 1e-6, 0.5):
        out = model(torch.full((1, 3, 8, 8), value), torch.full((1, 1, 32, 32), value))
        assert torch.isfinite(out).all()
        out.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


# ------------------------------------------------------------------------------------------------ batches


def test_an_epoch_visits_every_chip_once_whatever_the_number_of_processes():
    order = epoch_order(21, seed=3)
    assert sorted(order(5)) == list(range(21)) and order(5) != order(6)
    for size in (1, 2, 3):
        dealt = [EpochBatches(order, 8, Processes(rank, size)).of_process(5) for rank in range(size)]
        for step in range(3):
            assert sorted(i for rank in dealt for i in rank[step]) == sorted(order(5)[8 * step : 8 * step + 8])


def test_a_logical_batch_comes_in_physical_ones_from_the_step_on_that_a_run_continues_with(chips):
    data = PanChips(chips / "train")
    batches = EpochBatches(epoch_order(len(data), seed=3), 8)
    steps = [[batch.numbers for batch in group] for group in logical_batches(data, batches, 5, 0, 3)]
    assert [[len(numbers) for numbers in group] for group in steps] == [[3, 3, 2], [3, 1]]
    assert [number for group in steps for numbers in group for number in numbers] == batches.order(5)
    assert [[batch.numbers for batch in group] for group in logical_batches(data, batches, 5, 1, 3)] == steps[1:]


def test_test_chips_are_never_turned_and_training_chips_are_by_epoch(chips):
    tests = PanChips(chips / "test")
    plain = [tests[i][1][0] for i in range(4)]
    tests.epoch = 7
    assert all(torch.equal(a, tests[i][1][0]) for i, a in enumerate(plain))
    turned = PanChips(chips / "test", turned=True)
    turned.epoch = 1
    first = turned[0][1]
    turned.epoch = 2
    again = [turned[0][1]]
    for turned.epoch in range(3, 12):
        again.append(turned[0][1])
    assert any(not torch.equal(first[0], other[0]) for other in again)


def test_chips_of_another_size_or_broken_ones_are_left_out_by_name(chips, tmp_path):
    folder = tmp_path / "mixed"
    shutil.copytree(chips / "train", folder)
    make_fake_chips(OUR_REFLECTANCES, tmp_path / "small", 1, FakeRecipe(side=16))
    shutil.copy(tmp_path / "small" / "0.pt", folder / "3.pt")
    (folder / "5.pt").write_bytes(b"broken")
    data = PanChips(folder)
    batch = collate([data[i] for i in range(2, 6)])
    assert batch.numbers == [2, 4] and [p.name for p in batch.problems] == ["3.pt", "5.pt"]
    assert "pan 16" in batch.problems[0].reason and "unreadable" in batch.problems[1].reason
    assert collate([data[3]]).pan is None


def test_asking_for_more_chips_than_there_are_names_both_numbers(chips):
    with pytest.raises(UserError, match="has 12 chips, but 13 were asked for"):
        PanChips(chips / "train", 13)


# ------------------------------------------------------------------------------------------------ sessions


def test_a_session_has_its_files_and_the_newest_is_linked(three_epochs):
    folder = three_epochs / "s"
    names = {p.name for p in (folder / "checkpoints").iterdir()}
    assert names == {*(f"checkpoint_epoch_{n}.pt" for n in range(3)), "best_model.pt", "last.pt", "final_model.pt"}
    assert os.readlink(three_epochs / "latest.pt") == "s/checkpoints/checkpoint_epoch_2.pt"
    assert [row["epoch"] for row in rows(three_epochs)] == ["0", "1", "2"]
    baselines = json.loads((folder / "baselines.json").read_text())
    assert len(baselines.pop("scored_on").removesuffix(", back-projected")) == 16
    assert set(baselines) == {"bicubic", "brovey", "gsa", "mtf-glp-hpm"} and set(baselines["gsa"]) == {"ergas", "sam", "q2n", "psnr"}
    checkpoint = load_checkpoint(folder / "checkpoints" / "last.pt", "pansharpen")
    assert checkpoint["data"]["reach"] % 4 == 0 and checkpoint["data"]["bands"] == list(WORLDVIEW_BANDS)
    assert [row["chips"] for row in rows(three_epochs)] == ["12"] * 3  # the sums of an epoch begin at nothing


def test_it_learns(chips, tmp_path):
    train(tmp_path, chips, epochs=12, augment="turns", pbs=2, lbs=2, lr=3e-3, schedule="cosine", weight_decay=0)
    assert float(rows(tmp_path)[-1]["test_loss"]) < 0.97 * float(rows(tmp_path)[0]["test_loss"])


def test_physical_batches_add_up_to_the_same_gradient(chips, tmp_path, three_epochs):
    for pbs in (1, 8):
        train(tmp_path / str(pbs), chips, epochs=1, augment="full", pbs=pbs)
    for key, value in weights(tmp_path / "8", 0).items():
        assert torch.allclose(value, weights(tmp_path / "1", 0)[key], atol=1e-4), key


def test_loading_an_earlier_epoch_never_overwrites_later_ones(chips, tmp_path, three_epochs):
    shutil.copytree(three_epochs / "s", tmp_path / "s")
    with pytest.raises(UserError, match="epochs up to 2, which"):
        train(tmp_path, chips, load_epoch=0, epochs=3)
    with pytest.raises(UserError, match="has epochs 0 to 2"):
        train(tmp_path, chips, load_epoch=9, epochs=12)
    train(tmp_path, chips, session="t", load_from="s/0", epochs=1)
    assert load_checkpoint(tmp_path / "t" / "checkpoints" / "last.pt")["state"]["epoch"] == 1
    with pytest.raises(UserError, match="no session nothing"):
        train(tmp_path, chips, session="u", load_from="nothing", epochs=1)


def test_a_real_file_called_latest_is_left_alone(chips, tmp_path):
    (tmp_path / "latest.pt").write_text("mine")
    train(tmp_path, chips, epochs=1)
    assert (tmp_path / "latest.pt").read_text() == "mine"


def test_a_disk_that_knows_no_links_costs_no_epoch(chips, tmp_path, monkeypatch, capsys):
    def no_links(*args):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "symlink", no_links)
    train(tmp_path, chips, epochs=2)
    assert load_checkpoint(tmp_path / "s" / "checkpoints" / "last.pt")["state"]["epoch"] == 2
    assert "latest.pt cannot be made a link" in capsys.readouterr().err


def test_a_link_that_cannot_be_made_is_told_before_any_work(chips, tmp_path, monkeypatch):
    monkeypatch.setattr(train_pansharpen, "forward_losses", lambda *args: pytest.fail("it trains"))
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write to .*file"):
        train(tmp_path, chips, epochs=1, weight_link=tmp_path / "file" / "latest.pt")
    with pytest.raises(UserError, match="is a folder, expected the name of a link; pass --weight-link .*/latest.pt"):
        train(tmp_path, chips, epochs=1, weight_link=tmp_path)
    assert not (tmp_path / "s").exists()


def test_the_folder_of_a_link_is_made_and_may_be_a_link_itself(chips, tmp_path):
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    (tmp_path / "links").symlink_to(tmp_path / "elsewhere" / "deep")
    for folder in ("new", "links"):
        train(tmp_path / folder[0], chips, epochs=1, weight_link=tmp_path / folder / "newest.pt")
        assert (tmp_path / folder / "newest.pt").is_symlink() and load_checkpoint(tmp_path / folder / "newest.pt")["state"]["epoch"] == 1


def test_a_session_without_last_goes_on_from_its_highest_epoch(chips, tmp_path, three_epochs):
    shutil.copytree(three_epochs / "s", tmp_path / "s")
    for name in ("last.pt", "checkpoint_epoch_2.pt"):
        (tmp_path / "s" / "checkpoints" / name).unlink()
    train(tmp_path, chips, epochs=3)
    assert same(weights(tmp_path, 2), weights(three_epochs, 2)) and rows(tmp_path) == rows(three_epochs)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["state"].pop("optimizer"), "can be begun with .--load-from., but not resumed: its state lacks optimizer;"),
        (lambda c: c["model"].pop("ratio"), "does not hold a network's description"),
    ],
)
def test_a_checkpoint_that_is_not_whole_is_one_line_that_names_it(chips, tmp_path, three_epochs, change, words):
    shutil.copytree(three_epochs / "s", tmp_path / "s")
    path = tmp_path / "s" / "checkpoints" / "last.pt"
    checkpoint = torch.load(path, weights_only=True)
    change(checkpoint)
    torch.save(checkpoint, path)
    before = path.read_bytes()
    with pytest.raises(UserError, match=f"{path}.*{words}"):
        train(tmp_path, chips, epochs=4)
    assert path.read_bytes() == before and len(list(path.parent.iterdir())) == 6


def test_without_test_chips_weights_that_the_last_step_of_an_epoch_ruins_are_never_saved(chips, tmp_path, three_epochs):
    """The loss of that step is still a number: it is that of the weights before."""
    shutil.copytree(three_epochs / "s", tmp_path / "s")
    before = {p.name: p.read_bytes() for p in (tmp_path / "s" / "checkpoints").iterdir()}
    with at_step(1, ruin, after=True), pytest.raises(RunError, match="after step 8; lower --lr"):
        train(tmp_path, chips, epochs=4, test_chips=None)
    assert {p.name: p.read_bytes() for p in (tmp_path / "s" / "checkpoints").iterdir()} == before


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_test_loss_that_is_no_finite_number_ends_the_session(chips, tmp_path, monkeypatch, value):
    """One chip is enough; a PSNR may be infinite, as that of bicubic would be on flat ground."""
    weighted_losses = losses.weighted_losses

    def spoil_the_third(predictions, target, *args):
        found = weighted_losses(predictions, target, *args)
        return found if predictions[0].requires_grad else {k: v + v.new_tensor([0, 0, value, 0]) for k, v in found.items()}

    monkeypatch.setattr(losses, "weighted_losses", spoil_the_third)
    with pytest.raises(RunError, match="the test loss is NaN or infinite after epoch 0; lower --lr"):
        train(tmp_path, chips, epochs=1)
    assert not (tmp_path / "s" / "checkpoints" / "best_model.pt").exists()


def test_the_reach_of_a_network_that_gives_no_numbers_is_an_error_and_not_a_search_without_end():
    model = random_model()
    with torch.no_grad():
        model.heads[-1].bias.fill_(float("nan"))
    with pytest.raises(RunError, match="NaN or infinite values"):
        measure_reach(model)


def test_a_network_that_seems_to_see_everything_is_an_error_and_not_a_search_without_end():
    model, calls = random_model(), []
    forward = model.forward

    def restless(ms, pan):
        calls.append(ms.shape[-1])
        return forward(ms, pan) + len(calls)

    model.forward = restless
    with pytest.raises(RunError, match="further than 30 ms pixels"):  # 24, and two blocks at each of three scales
        measure_reach(model)
    assert max(calls) < 100


def test_nobody_begins_with_weights_that_are_no_numbers(chips, tmp_path, three_epochs):
    checkpoint = torch.load(three_epochs / "latest.pt", weights_only=True)
    checkpoint["state"]["model"]["heads.2.bias"][0] = float("nan")
    torch.save(checkpoint, tmp_path / "ruined.pt")
    with pytest.raises(UserError, match="ruined.pt holds weights that are NaN or infinite; take another"):
        train(tmp_path, chips, load_from=tmp_path / "ruined.pt", epochs=1)


def test_the_picture_target_trains_on_the_same_chips(chips, tmp_path):
    train(tmp_path, chips, epochs=1, target="oklab")
    row = rows(tmp_path)[0]
    assert {"test_delta_e", "test_psnr", "train_delta_e"} <= set(row)
    assert load_checkpoint(tmp_path / "latest.pt")["model"]["target"] == "oklab"


def test_training_chips_as_test_chips_are_told(chips, tmp_path, capsys):
    train(tmp_path, chips, epochs=1, test_chips=chips / "train")
    assert "12 of the 12 test chips" in capsys.readouterr().err


def test_too_many_bad_chips_end_the_run_and_are_named(chips, tmp_path):
    shutil.copytree(chips / "train", tmp_path / "c" / "train")
    shutil.copytree(chips / "test", tmp_path / "c" / "test")
    (tmp_path / "c" / "train" / "7.pt").write_bytes(b"")
    with pytest.raises(RunError, match="1 of 12 chips.*7.pt: unreadable"):
        train(tmp_path / "run", tmp_path / "c", epochs=1)


def test_too_many_bad_chips_end_the_run_at_once_and_not_after_the_epoch(chips, tmp_path, monkeypatch):
    for name in ("train", "test"):
        shutil.copytree(chips / name, tmp_path / "c" / name)
    make_fake_chips(OUR_REFLECTANCES, tmp_path / "larger", 11, FakeRecipe(side=64))
    for number in range(1, 12):
        shutil.copy(tmp_path / "larger" / f"{number - 1}.pt", tmp_path / "c" / "train" / f"{number}.pt")
    with pytest.raises(RunError, match="^[1-4] of 12 chips.*pan 64, mul 16 pixels, 8 bands; the first chip has 32, 8, 8"):
        train(tmp_path / "run", tmp_path / "c", epochs=1)


@pytest.fixture
def flawed(chips, tmp_path, monkeypatch):
    """One chip in twelve and one in four that cannot be read: as few as may be left out."""
    for module in (dataset_pansharpen, scoring):
        monkeypatch.setattr(module, "MOST_UNREADABLE", 0.3)
    for name, number in (("train", 7), ("test", 2)):
        shutil.copytree(chips / name, tmp_path / "c" / name)
        (tmp_path / "c" / name / f"{number}.pt").write_bytes(b"")
    return tmp_path / "c"


def test_a_few_bad_chips_are_left_out_named_and_counted_in_the_last_line(flawed, tmp_path, capsys):
    train(tmp_path, flawed, epochs=1)
    said = capsys.readouterr()
    assert f"1 of 12 chips in {flawed}/train cannot be read (7.pt: unreadable" in said.err
    assert said.err.count(f"1 of 4 chips in {flawed}/test cannot be read (2.pt: unreadable") == 1
    assert said.out.strip().endswith("; 2 unreadable chips left out") and rows(tmp_path)[0]["chips"] == "11"


@pytest.mark.parametrize("workers", [0, 1])
def test_with_strict_the_first_bad_chip_ends_the_run_and_is_named(flawed, chips, tmp_path, workers):
    words = arguments(tmp_path / "run", flawed, epochs=1, workers=workers)
    with pytest.raises(RunError, match=f"^2.pt in {flawed}/test cannot be read: unreadable .*--strict.$"):
        train_pansharpen.main([*words, "--strict"])
    shutil.copy(chips / "test" / "2.pt", flawed / "test" / "2.pt")
    with pytest.raises(RunError, match=f"^7.pt in {flawed}/train cannot be read: unreadable .*--strict.$"):
        train_pansharpen.main([*words, "--strict"])
    assert train_pansharpen.main(words) == 0  # nobody asks for it any more
    assert "strict" not in load_checkpoint(tmp_path / "run" / "latest.pt")["settings"]


def test_a_link_that_leads_nowhere_is_such_a_chip(chips, tmp_path, capsys):
    for name in ("train", "test"):
        shutil.copytree(chips / name, tmp_path / "c" / name)
    (tmp_path / "c" / "test" / "9.pt").symlink_to(tmp_path / "gone.pt")
    train(tmp_path / "run", tmp_path / "c", epochs=1)
    said = capsys.readouterr()
    assert "c/test: 1 links lead nowhere and are left out" in said.err and "; 1 unreadable chips left out" in said.out
    with pytest.raises(RunError, match=f"^{tmp_path}/c/test/9.pt cannot be read: it is a link that leads nowhere"):
        train_pansharpen.main([*arguments(tmp_path / "run", tmp_path / "c", epochs=2), "--strict"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lbs": 6}, "multiple of --pbs"),
        ({"width": 20}, "multiple of 16"),
        ({"epochs": 1, "up_to_epoch": 1}, "pass one of them"),
        ({"session": "a/b"}, "not a path"),
        ({"lr": 0}, "--lr"),
        ({"test_chips": "nowhere"}, "is no folder"),
        ({"device": "cuda"}, "--device cpu"),
        ({"epoch_length": 99}, "12 chips, but 99"),
    ],
)
def test_wrong_usage_is_one_line(chips, tmp_path, changes, message):
    if changes.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(UserError, match=message):
        train(tmp_path, chips, **changes)


def test_the_first_chip_decides_and_a_folder_of_other_things_is_refused(tmp_path, chips):
    (tmp_path / "0.pt").write_bytes(b"")
    with pytest.raises(UserError, match="none of the first chips"):
        PanChips(tmp_path)
    assert read_chip(chips / "train" / "0.pt")["mul"].shape == (8, 8, 8)


def test_train_py_hands_a_session_over(chips, tmp_path):
    import train as train_program

    assert train_program.main(arguments(tmp_path, chips, epochs=1)) == 0
    assert (tmp_path / "s" / "checkpoints" / "checkpoint_epoch_0.pt").exists()


def test_demo_shows_a_sessions_chips_beside_the_best_baseline(chips, three_epochs, tmp_path, capsys):
    import demo

    words = ["--checkpoint", str(three_epochs / "latest.pt"), "--chips", str(chips / "test"), "--output-dir", str(tmp_path), "--cases", "1"]
    assert demo.main([*words, "--quiet", "--device", "cpu"]) == 0
    assert {"best.png", "median.png", "worst.png", "index.html"} <= {p.name for p in tmp_path.iterdir()}
    assert "mean ERGAS over 4 chips" in capsys.readouterr().out
    with pytest.raises(UserError, match="exists already"):
        demo.main(words)
    with pytest.raises(UserError, match="pass --chips"):
        demo.main([*words[:2], "--split", "val"])


def test_the_state_of_a_checkpoint_is_what_a_session_asks_for_when_it_goes_on(three_epochs):
    state = load_checkpoint(three_epochs / "s" / "checkpoints" / "last.pt")["state"]
    parts = {"model", "optimizer", "schedule", "scaler", "running", "unreadable"}
    assert set(state) == parts | {field.name for field in dataclasses.fields(Position)}


def test_losses_on_other_test_chips_are_never_compared(chips, tmp_path, three_epochs, capsys):
    """Neither is what was best on the chips before kept, nor what classical methods score on them."""
    shutil.copytree(three_epochs / "s", tmp_path / "s")
    last = tmp_path / "s" / "checkpoints" / "last.pt"
    checkpoint = torch.load(last, weights_only=True)
    checkpoint["state"]["best_score"] = -1.0  # no epoch is better
    torch.save(checkpoint, last)
    before = json.loads((tmp_path / "s" / "baselines.json").read_text())
    train(tmp_path, chips, epochs=4)
    assert [row["best"] for row in rows(tmp_path)][-1] == "0"
    assert json.loads((tmp_path / "s" / "baselines.json").read_text()) == before
    shutil.copytree(chips / "test", tmp_path / "moved")
    train(tmp_path, chips, epochs=5, test_chips=tmp_path / "moved")  # the same chips
    assert [row["best"] for row in rows(tmp_path)][-1] == "0"
    train(tmp_path, chips, epochs=6, test_chips=chips / "train")
    assert [row["best"] for row in rows(tmp_path)][-1] == "1"
    assert load_checkpoint(tmp_path / "s" / "checkpoints" / "best_model.pt")["state"]["best_epoch"] == 5
    assert json.loads((tmp_path / "s" / "baselines.json").read_text()) != before


@pytest.mark.slow
def test_training_losses_on_other_chips_are_never_compared_either(chips, tmp_path):
    """Without test chips the best epoch is that of the lowest training loss: of the same chips, as many of them."""
    train(tmp_path, chips, epochs=1, test_chips=None)
    last = tmp_path / "s" / "checkpoints" / "last.pt"
    shutil.copytree(chips / "train", tmp_path / "moved" / "train")

    def is_new_best(epochs, chips, scored_on="as it is", **changes):
        checkpoint = torch.load(last, weights_only=True)
        checkpoint["state"]["best_score"] = -1.0  # no epoch is better
        if scored_on != "as it is":
            checkpoint["data"]["scored_on"] = scored_on
        torch.save(checkpoint, last)
        train(tmp_path, chips, epochs=epochs, test_chips=None, **changes)
        return rows(tmp_path)[-1]["best"] == "1"

    assert not is_new_best(2, tmp_path / "moved")  # the same chips
    assert is_new_best(3, chips, epoch_length=11)
    assert not is_new_best(4, chips)  # the length is that of the session
    make_fake_chips(OUR_REFLECTANCES, tmp_path / "other" / "train", 11, FakeRecipe(side=32, seed=5))
    assert is_new_best(5, tmp_path / "other")
    assert not is_new_best(6, chips, scored_on=None)  # of a version that did not keep it
    train(tmp_path, chips, epochs=7)
    assert rows(tmp_path)[-1]["best"] == "1"  # a test loss is no training loss


@pytest.mark.parametrize("content", ["", "[]", "7", '{"scored_on"', "{}", '{"scored_on": "KNOWN", "gsa": 3}', b"\xff\xfe"])
def test_baselines_that_are_damaged_are_made_anew(chips, tmp_path, three_epochs, content):
    shutil.copytree(three_epochs / "s", tmp_path / "s")
    path = tmp_path / "s" / "baselines.json"
    before = path.read_bytes()
    known = json.loads(before)["scored_on"]
    path.write_bytes(content if isinstance(content, bytes) else content.replace("KNOWN", known).encode())
    train(tmp_path, chips, epochs=4)
    assert path.read_bytes() == before


def test_a_new_best_epoch_leaves_a_picture_of_four_chips(chips, tmp_path, three_epochs):
    best = [row["epoch"] for row in rows(three_epochs) if row["best"] == "1"]
    samples = three_epochs / "s" / "samples"
    assert best and {p.name for p in samples.iterdir()} == {f"epoch_{epoch}.png" for epoch in best}
    picture = np.asarray(Image.open(samples / f"epoch_{best[0]}.png")).astype(int)
    assert picture.shape == (24 + 4 * (256 + 8 + 24), 8 + 5 * (256 + 8), 3)
    pan, ms, sharpened, truth, error = (picture[24:280, 8 + 264 * k : 264 + 264 * k] for k in range(5))
    assert (pan[..., 0] == pan[..., 2]).all() and np.ptp(pan) > 50
    pixel = 256 // 32 * 4  # a pixel of ms, four times as wide as one of pan
    assert (ms.reshape(8, pixel, 8, pixel, 3) == ms[::pixel, ::pixel][:, None, :, None]).all()
    assert np.abs(sharpened - truth).mean() < np.abs(ms - truth).mean()  # bright where it is wrong
    wrong = np.abs(sharpened - truth).sum(-1)
    assert error[wrong > np.quantile(wrong, 0.95)].mean() > 2 * error[wrong < np.quantile(wrong, 0.05)].mean()


@pytest.mark.parametrize("target", ["bands", "oklab"])
def test_without_test_chips_training_chips_are_pictured_as_they_are(chips, tmp_path, target):
    train(tmp_path, chips, epochs=1, test_chips=None, target=target, epoch_length=3)
    picture = np.asarray(Image.open(tmp_path / "s" / "samples" / "epoch_0.png"))
    assert picture.shape == (24 + 3 * (256 + 8 + 24), 8 + 5 * (256 + 8), 3)
    pan = read_chip(chips / "train" / "2.pt")["pan"][0].numpy().astype(float)
    shown = picture[24 + 2 * 288 : 24 + 2 * 288 + 256 : 8, 8:264:8, 0]
    assert np.corrcoef(pan.ravel(), shown.ravel())[0, 1] > 0.9


def test_nulls_are_grey_in_the_picture_of_errors():
    rng = np.random.default_rng(0)
    pan, mul, truth = (torch.from_numpy(rng.random(shape, dtype=np.float32)) for shape in ((1, 16, 16), (2, 4, 4), (2, 16, 16)))
    valid = torch.ones(1, 16, 16, dtype=torch.bool)
    valid[:, :8] = False
    picture = pan_sheet([(pan, mul, truth + 0.5, truth, valid)], "bands", ("a", "b"), np.full((2, 1, 1), 2.0, np.float32), ["0.pt"])
    error = picture[24:280, 8 + 264 * 4 : 264 + 264 * 4]
    quarter = 0.75 * np.array(PROBABILITY_STOPS[1]) + 0.25 * np.array(PROBABILITY_STOPS[2])  # of a deviation, on a scale of five steps
    assert (error[:128] == NODATA_COLOUR).all() and np.abs(error[128:] - quarter).max() <= 1


def test_the_final_model_is_that_of_the_last_epoch_asked_for(chips, tmp_path, three_epochs):
    shutil.copytree(three_epochs / "s", tmp_path / "s")
    checkpoints = tmp_path / "s" / "checkpoints"
    final, last = checkpoints / "final_model.pt", checkpoints / "last.pt"

    def is_last():
        one, other = (torch.load(path, weights_only=True) for path in (final, last))
        return one.pop("result") == "best_model.pt" and list(one) == list(other) and identical(one, other)

    assert is_last() and last.read_bytes() == (checkpoints / "checkpoint_epoch_2.pt").read_bytes()
    train(tmp_path, chips, epochs=4)
    assert load_checkpoint(final)["state"]["epoch"] == 4 and is_last()

    def stop_after_one_epoch(self):
        return INTERRUPT if len(rows(tmp_path)) == 5 else NOTHING

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StopRequest, "wanted", property(stop_after_one_epoch))
        with pytest.raises(KeyboardInterrupt, match="after epoch 4"):
            train(tmp_path, chips, epochs=6)
    assert load_checkpoint(final)["state"]["epoch"] == 4 and load_checkpoint(last)["state"]["epoch"] == 5
    train(tmp_path, chips, epochs=5)  # enough, then
    assert is_last()
    uninterrupted = None
    for content in (None, b"damaged"):  # none: a session of before
        final.unlink() if content is None else final.write_bytes(content)
        train(tmp_path, chips, epochs=5)
        assert is_last() and final.read_bytes() == (uninterrupted := uninterrupted or final.read_bytes())
    final.unlink()
    train(tmp_path, chips, epochs=3)
    assert not final.exists()  # fewer were asked for than there are


@pytest.mark.parametrize(("schedule", "name", "epoch"), [("cosine", "final_model.pt", "last"), ("constant", "best_model.pt", "best")])
def test_the_last_line_names_the_checkpoint_to_sharpen_with(chips, tmp_path, capsys, schedule, name, epoch):
    words = arguments(tmp_path, chips, schedule=schedule, lr=1e-6)[:-1]
    assert train_pansharpen.main(words) == 0
    said = capsys.readouterr()
    assert "; 4 steps in all" in said.err and "too little training: 4 steps" in said.err and "take --config pansharpen" in said.err
    *_, below, last = said.out.splitlines()
    assert last == f"sharpen with {tmp_path / 's' / 'checkpoints' / name} ({epoch} epoch)"
    baselines = json.loads((tmp_path / "s" / "baselines.json").read_text())
    best = min(scores["ergas"] for method, scores in baselines.items() if method != "scored_on")
    assert below.startswith("worse than ") == (float(rows(tmp_path)[-1]["test_ergas"]) > best)
