"""train.py from its flags to its files. Run: pytest tests/test_train.py"""

import contextlib
import csv
import json
import sys
import types

import numpy as np
import pytest
import torch
from patch_factory import read_lines, write_manifest, write_patch_set
from torch.utils._python_dispatch import TorchDispatchMode

import train
from dataset import WildfireDataModule
from losses import CombinedLoss
from model import model_from_checkpoint
from runtime.checkpoint import load_checkpoint
from runtime.device import Compute, gradient_scaler
from runtime.distributed import Processes
from runtime.errors import RunError, UserError
from runtime.settings import group_of
from runtime.unreadable import Unreadable


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    return write_patch_set(tmp_path_factory.mktemp("set") / "patches", {"train": 3, "val": 2, "test": 1}, size=32)


def run(patches, output, *flags):
    base = ["--patches-dir", str(patches), "--output-dir", str(output), "--architecture", "smallunet", "--num-workers", "0"]
    return train.main([*base, "--batch-size", "3", "--quiet", "--device", "cpu", "--lr", "0.003", *map(str, flags)])


@pytest.fixture(scope="module")
def finished(patches, tmp_path_factory):
    """The folder of a run of two epochs."""
    output = tmp_path_factory.mktemp("run") / "output"
    assert run(patches, output, "--epochs", 2, "--save-every", 1) == 0
    return output


def rows_of(output):
    with open(output / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_leaves_everything_that_the_document_names(finished):
    names = {p.name for p in (finished / "checkpoints").iterdir()}
    assert names == {"best_model.pt", "last.pt", "final_model.pt", "checkpoint_epoch_0.pt", "checkpoint_epoch_1.pt"}
    assert (finished / "samples" / "epoch_0.png").stat().st_size > 1000
    config = json.loads((finished / "config.json").read_text())
    assert config["settings"]["lr"] == 0.003 and config["model"]["architecture"] == "smallunet" and "torch" in config["versions"]
    rows = rows_of(finished)
    assert [r["epoch"] for r in rows] == ["0", "1"] and [r["step"] for r in rows] == ["2", "4"]
    assert {"train_loss", "train_fire_iou", "val_loss", "val_fire_iou", "val_fire_recall", "val_detection_f1"} <= set(rows[0])


def test_the_checkpoint_tells_inference_all_it_needs(finished, patches):
    checkpoint = load_checkpoint(finished / "checkpoints" / "best_model.pt", "segmentation")
    data = checkpoint["data"]
    assert data["bands"][0] == "B02" and data["divide_by"] == [10_000.0] * 7 and data["classes"] == ["background", "fire"]
    assert data["chip_size"] == 32 and data["ground_resolution"] == 10 and data["layer"] == "mask" and 0 < data["threshold"] < 1
    model = model_from_checkpoint(checkpoint)
    assert not model.training and model.input_step.mean.flatten()[0] == pytest.approx(0.1, abs=0.01)
    assert model.predict_probabilities(torch.rand(1, 7, 40, 33)).shape == (1, 2, 40, 33)


def test_a_second_run_in_the_same_folder_is_refused(finished, patches):
    with pytest.raises(UserError, match="holds an earlier run; continue it with --resume"):
        run(patches, finished)


def test_overwrite_starts_anew_and_the_same_seed_gives_the_same_weights(patches, finished, tmp_path):
    run(patches, tmp_path, "--epochs", 1, "--seed", 7)
    run(patches, tmp_path, "--epochs", 2, "--overwrite")
    one, other = (load_checkpoint(f / "checkpoints" / "final_model.pt")["state"]["model"] for f in (tmp_path, finished))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_it_learns_to_find_burns(patches, tmp_path, capsys):
    run(patches, tmp_path, "--max-steps", 40, "--epochs", 100, "--lr", "0.01", "--patience", 0, "--steps-per-epoch", 20)
    assert float(rows_of(tmp_path)[-1]["val_fire_iou"]) > 0.9
    assert rows_of(tmp_path)[-1]["step"] == "40"
    assert "best validation fire IoU" in capsys.readouterr().out

    # and the scores of the test split are those of whole scenes, beside the index that paints these burns
    assert train.main(["--test-only", "--resume", str(tmp_path / "checkpoints" / "best_model.pt"), "--quiet", "--device", "cpu"]) == 0
    scores = json.loads((tmp_path / "scores_test.json").read_text())
    ways = scores["scores"]
    assert set(ways) == {"network", "network_at_threshold", "nbr"} and ways["nbr"]["pooled"]["fire_iou"] > 0.95
    assert ways["network"]["pooled"]["fire_iou"] > 0.9 and list(ways["network"]["scenes"]) == ["TEST0"]
    judged = np.array(scores["results"][0]["matrix"]).sum()
    assert judged == 22 * 64  # two patches side by side, ten rows ignored
    with pytest.raises(UserError, match="scores_test.json and 1 more exists already"):
        train.main(["--test-only", "--resume", str(tmp_path / "checkpoints" / "best_model.pt"), "--quiet"])


def test_overlapping_patches_are_stitched_and_each_pixel_counts_once(finished, tmp_path, capsys):
    folder = write_patch_set(tmp_path / "patches", {"train": 1, "val": 2}, size=32, grid=(2, 3), overlap=8)
    train.main(["--test-only", "--resume", str(finished / "checkpoints" / "best_model.pt"), "--patches-dir", str(folder),
                "--test-split", "val", "--output-dir", str(tmp_path / "scores"), "--quiet"])
    results = json.loads((tmp_path / "scores" / "scores_val.json").read_text())["results"]
    assert [np.array(r["matrix"]).sum() for r in results] == [56 * 70] * 2  # 56 x 80 pixels, ten rows ignored
    assert [r["covered"] for r in results] == [1.0, 1.0]
    table = list(csv.DictReader(open(tmp_path / "scores" / "scores_val.csv")))
    assert [r["name"] for r in table if r["way"] == "nbr"] == ["all", "VAL0", "VAL1", "VAL0", "VAL1"]
    assert "mean over events" in capsys.readouterr().out


def test_severity_classes_train_and_score_by_extent(tmp_path):
    folder = write_patch_set(tmp_path / "patches", {"train": 2, "val": 1, "test": 1}, size=32, layers={"DEL": 2, "GRA": 5})
    run(folder, tmp_path / "out", "--num-classes", 5, "--epochs", 1, "--indices", "ndvi", "nbr", "--focal-loss", "--scheduler", "cosine",
        "--warmup", 1, "--grad-clip", 1.0, "--weighted-sampling", "--crop", 24)
    row = rows_of(tmp_path / "out")[0]
    assert row["val_pooled_fire_iou"] and row["val_severity_mean_iou"] and row["val_iou_destroyed"]
    checkpoint = load_checkpoint(tmp_path / "out" / "checkpoints" / "best_model.pt")
    assert checkpoint["model"]["indices"] == ["ndvi", "nbr"] and checkpoint["data"]["layer"] == "GRA"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--epochs", "0"], "--epochs: expected a whole number of at least 1"),
        (["--lr", "-1"], "--lr: expected a number above 0"),
        (["--test-only"], "--test-only needs a checkpoint"),
        (["--accumulate", "9"], "--accumulate 9 pieces"),
        (["--accumulate", "3", "--batch-size", "100", "--resume", "nowhere.pt"], "nowhere.pt does not exist"),
        (["--resume", "/tmp"], "/tmp is a folder, expected a checkpoint"),
        (["--encoder", "resnet43", "--architecture", "unet"], "Did you mean 'resnet34'"),
        (["--architecture", "unett"], "Did you mean 'unet'"),
        (["--num-classes", "5"], "pass --num-classes 2"),
        (["--device", "cuda:77"], "pass --device cpu|pass a lower number"),
        (["--crop", "500"], "larger than the patches"),
        (["--architecture", "deeplabv3plus", "--encoder", "mobilenet_v2", "--encoder-weights", "none", "--batch-size", "1"],
         "cannot be trained on one patch at a time"),
        (["--patches-dir", "/nowhere"], "does not exist"),
        (["--indices", "nvdi"], "unknown spectral index"),
        (["--encoder-weights", "mine.pt"], "smallunet has no encoder"),
        (["--encoder-weights", "/nowhere.pt", "--architecture", "unet", "--encoder", "resnet18"], "expected imagenet, none"),
    ],
)
def test_what_can_not_be_right_is_one_line_before_any_work(patches, tmp_path, flags, words):
    with pytest.raises(UserError, match=words):
        run(patches, tmp_path / "out", *flags)
    assert not (tmp_path / "out" / "checkpoints").exists()


def test_an_earlier_run_is_refused_before_the_patches_are_looked_at(finished):
    with pytest.raises(UserError, match="holds an earlier run"):
        run("/nowhere", finished)


def test_one_patch_at_a_time_is_refused_only_where_the_network_needs_more(patches, tmp_path):
    assert run(patches, tmp_path, "--batch-size", 1, "--max-steps", 1) == 0


def test_a_checkpoint_of_other_bands_is_refused_and_the_networks_shape_is_kept(finished, tmp_path, patches):
    folder = write_patch_set(tmp_path / "patches", size=32, bands=("B8", "B12"))
    best = str(finished / "checkpoints" / "best_model.pt")
    with pytest.raises(UserError, match="trained on the bands B02.*has B8, B12"):
        train.main(["--test-only", "--resume", best, "--patches-dir", str(folder), "--overwrite"])
    with pytest.raises(UserError, match="--architecture unet disagrees with the checkpoint, which has smallunet"):
        train.main(["--resume", best, "--architecture", "unet"])
    with pytest.raises(UserError, match="leave --output-dir out"):
        train.main(["--resume", best, "--output-dir", str(tmp_path)])


def test_a_set_of_which_no_training_patch_can_be_read_is_one_line(tmp_path):
    """Four patches in batches of three: the one that is not drawn does not count as read."""
    folder = write_patch_set(tmp_path / "patches", {"train": 2, "val": 1}, size=32)
    for line in read_lines(folder):
        if line["split"] == "train":
            (folder / line["file"]).unlink()
    with pytest.raises(RunError, match="not one training patch"):
        run(folder, tmp_path / "out", "--epochs", 1)


def test_labels_outside_the_classes_stop_the_run_and_name_the_file(tmp_path):
    folder = write_patch_set(tmp_path / "patches", {"train": 2, "val": 1}, size=32)
    np.save(folder / read_lines(folder)[0]["mask"], np.full((1, 32, 32), 9, np.uint8))
    with pytest.raises(UserError, match="TRAIN0_r0_c0_mask.npy holds label 9"):
        run(folder, tmp_path / "out", "--epochs", 1)


def test_all_labels_ignored_is_one_line(tmp_path):
    folder = write_patch_set(tmp_path / "patches", {"train": 2, "val": 1}, size=32)
    lines = read_lines(folder)
    for line in lines:
        line["class_pixels"] = {"mask": [0, 0]}
    write_manifest(folder, lines)
    with pytest.raises(UserError, match="no valid pixel"):
        run(folder, tmp_path / "out", "--epochs", 1)


def test_a_validation_without_fire_still_has_a_best_model(tmp_path):
    folder = write_patch_set(tmp_path / "patches", {"train": 2, "val": 1}, size=32)
    for line in read_lines(folder):
        if line["split"] == "val":
            np.save(folder / line["mask"], np.full((1, 32, 32), 255, np.uint8))
    run(folder, tmp_path / "out", "--epochs", 2)
    assert load_checkpoint(tmp_path / "out" / "checkpoints" / "best_model.pt")["state"]["best_epoch"] == 0
    assert rows_of(tmp_path / "out")[1]["val_fire_iou"] == ""


def test_early_stopping_counts_epochs_without_a_strictly_better_score(tmp_path):
    folder = write_patch_set(tmp_path / "patches", {"train": 2, "val": 1}, size=32)
    for line in read_lines(folder):
        if line["split"] == "val":
            np.save(folder / line["mask"], np.full((1, 32, 32), 255, np.uint8))
    run(folder, tmp_path / "out", "--epochs", 9, "--patience", 2)
    assert len(rows_of(tmp_path / "out")) == 3


def test_a_checkpoint_that_gives_no_numbers_gets_no_scores(finished, tmp_path, capsys):
    checkpoint = torch.load(finished / "checkpoints" / "best_model.pt", weights_only=True)
    next(iter(checkpoint["state"]["model"].values())).fill_(float("nan"))
    torch.save(checkpoint, tmp_path / "nan.pt")
    with pytest.raises(RunError, match="probabilities in scene VAL0 are not numbers"):
        train.main(["--test-only", "--resume", str(tmp_path / "nan.pt"), "--test-split", "val", "--output-dir", str(tmp_path / "scores"),
                    "--quiet", "--device", "cpu"])
    assert capsys.readouterr().out == "" and list((tmp_path / "scores").glob("scores*")) == []


def test_settings_come_from_a_file_and_flags_win(patches, tmp_path):
    (tmp_path / "run.yaml").write_text("epochs: 1\nlr: 0.5\nseed: 3\nno-augment: true\n")
    run(patches, tmp_path / "out", "--config", tmp_path / "run.yaml")
    settings = json.loads((tmp_path / "out" / "config.json").read_text())["settings"]
    assert (settings["epochs"], settings["lr"], settings["seed"], settings["no_augment"]) == (1, 0.003, 3, True)


def test_wandb_gets_the_documents_keys_once_an_epoch(patches, tmp_path, monkeypatch):
    logged = []

    class Run:
        def log(self, values, step):
            logged.append((step, set(values)))

        def finish(self):
            logged.append("finished")

    stand_in = types.ModuleType("wandb")
    stand_in.init = lambda **settings: logged.append((settings["project"], settings["name"])) or Run()
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    run(patches, tmp_path, "--epochs", 1, "--wandb", "--run-name", "first")
    keys = {"epoch", "lr", "train/loss", "train/fire_iou", "train/detection_f1"}
    keys |= {"val/loss", "val/fire_iou", "val/fire_recall", "val/detection_f1"}
    project, (step, logged_keys), last = logged
    assert (project, step, last) == (("fire-detection", "first"), 0, "finished") and keys <= logged_keys
    assert not any(key.startswith(("train_", "val_")) for key in logged_keys)


# ------------------------------------------------------------------------------------------------ one step, one validation


def options_of(*flags):
    """The options of a command line."""
    train.import_libraries()
    return group_of(train.Options, train.build_parser().parse_args([*map(str, flags)]))


def learner_of(model, optimizer=None, criterion=None, precision="fp32"):
    train.import_libraries()
    cpu = torch.device("cpu")
    pixels_alone = types.SimpleNamespace(coordinates_for=lambda model, indices, device: {})
    return train.Learner(model=model, network=model, train=pixels_alone, criterion=criterion or CombinedLoss(), optimizer=optimizer,
                         scaler=gradient_scaler(cpu, precision), compute=Compute(device=cpu, precision=precision), processes=Processes())


def one_step(patches, *, accumulate=1, precision="fp32", grad_clip=0.0, batch_norm=True, watch=None):
    """Gradients after one step on the first batch, and the weights that it leaves. watch: a context around the step alone."""
    from model import create_segmentation_model

    torch.manual_seed(0)
    model = create_segmentation_model(architecture="smallunet", encoder_weights=None)
    model.train()
    if not batch_norm:
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
    data = WildfireDataModule(patches, batch_size=4, num_workers=0)
    data.setup()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = [p.detach().clone() for p in model.parameters()]
    learner = learner_of(model, optimizer, CombinedLoss(ce_weight=1.0, dice_weight=0.0), precision)
    batch, draws = next(data.training_batches(0))
    with watch or contextlib.nullcontext():
        train.train_step(learner, batch, draws, 0, options_of("--accumulate", accumulate, "--grad-clip", grad_clip), data.patch_set)
    return [p.grad for p in model.parameters()], [b - p.detach() for b, p in zip(before, model.parameters(), strict=True)]


def test_pieces_add_up_to_the_gradient_of_the_whole_batch(patches):
    whole, _ = one_step(patches, batch_norm=False)
    pieces, _ = one_step(patches, accumulate=4, batch_norm=False)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(whole, pieces, strict=True))


def test_gradients_are_clipped_after_the_loss_scale_is_taken_out(patches):
    _, moved = one_step(patches, precision="fp16", grad_clip=0.01)
    norm = torch.sqrt(sum((m**2).sum() for m in moved)).item()
    assert norm == pytest.approx(0.1 * 0.01, rel=1e-3)  # learning rate times the limit, whatever the scale


def test_half_precision_steps_are_near_the_full_ones(patches):
    full, _ = one_step(patches)
    half, _ = one_step(patches, precision="bf16")
    a, b = (torch.cat([g.flatten() for g in gradients]) for gradients in (full, half))
    assert torch.nn.functional.cosine_similarity(a, b, dim=0) > 0.9  # random weights and batch statistics of 4 patches amplify it


class Reads(TorchDispatchMode):
    """Counts how often a tensor is asked for its number (item, float, bool …): on a GPU each time waits for all that is under way."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


def test_a_training_step_asks_no_tensor_for_its_number(patches):
    reads = Reads()
    one_step(patches, accumulate=2, grad_clip=1.0, watch=reads)
    assert reads.count == 0
    with reads:
        torch.ones(1).item()
    assert reads.count == 1  # it would have been seen


class Logits(torch.nn.Module):
    """A network that answers 0 for both classes everywhere but in one pixel."""

    def __init__(self, pixel=(0, 0), value=0.0):
        super().__init__()
        self.pixel, self.value = pixel, value

    def forward(self, x):
        logits = torch.zeros(len(x), 2, *x.shape[2:])
        logits[0, 1, self.pixel[0], self.pixel[1]] = self.value
        return logits


def one_validation(patches, model, batch_size=4):
    data = WildfireDataModule(patches, batch_size=batch_size, num_workers=0)
    data.setup()
    unreadable = Unreadable("patches", patches, len(data.val), Processes(), strict=True)
    scores, _ = train.validate(learner_of(model), data, options_of(), unreadable)
    return scores


def test_a_validation_asks_for_numbers_at_its_end_and_not_each_batch(patches):
    counts = []
    for batch_size in (4, 1):
        with Reads() as reads:
            one_validation(patches, Logits(), batch_size)
        counts.append(reads.count)
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("pixel", [(20, 3), (2, 3)], ids=["judged", "ignored"])
def test_a_single_logit_that_is_not_a_number_shows_in_the_validation_loss(patches, pixel, value):
    assert np.isfinite(one_validation(patches, Logits())["loss"])
    assert np.isnan(one_validation(patches, Logits(pixel, value))["loss"])


def test_a_validation_loss_that_is_not_finite_ends_the_run_before_its_model_is_called_the_best(patches, tmp_path, monkeypatch):
    whole = train.validate

    def spoilt(*given):
        scores, threshold = whole(*given)
        return {**scores, "loss": float("nan")}, threshold

    monkeypatch.setattr(train, "validate", spoilt)
    with pytest.raises(RunError, match="validation loss is NaN or infinite after epoch 0; lower --lr"):
        run(patches, tmp_path, "--epochs", 1)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["last.pt"] and not (tmp_path / "metrics.csv").exists()
