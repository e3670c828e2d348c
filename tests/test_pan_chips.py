"""Chips that nobody wrote like that: each is left out, counted and named, and none stops training or inspect."""

import numpy as np
import pytest
import torch

import chip as program
from chipping.pan_chips import BadChip, encode_chip, read_chip
from constants import WORLDVIEW_BANDS
from pansharpening.dataset import PanChips, collate
from runtime.errors import UserError


def make_chip(store="bands", dtype="uint16"):
    rng = np.random.default_rng(0)
    pan, mul, bands = (rng.random(shape, dtype=np.float32) for shape in ((1, 16, 16), (8, 4, 4), (8, 16, 16)))
    return encode_chip(pan, mul, bands, None, {"tile": "t"}, WORLDVIEW_BANDS, store, dtype)


def float_chip(**other):
    return {**make_chip(dtype="float32"), **other}


BAD = {
    "meta is text": (lambda: {**make_chip(), "meta": "none"}, "meta is of type str"),
    "meta is nothing": (lambda: {**make_chip(), "meta": None}, "meta is of type NoneType"),
    "meta is a tensor": (lambda: {**make_chip(), "meta": torch.zeros(2)}, "meta is of type Tensor"),
    "sparse pan": (lambda: float_chip(pan=torch.ones(1, 16, 16).to_sparse()), "pan is a tensor of torch.sparse_coo"),
    "sparse mul": (lambda: float_chip(mul=torch.ones(8, 4, 4).to_sparse()), "mul is a tensor of torch.sparse_coo"),
    "sparse bands": (lambda: float_chip(bands=torch.ones(8, 16, 16).to_sparse()), "bands is a tensor of torch.sparse_coo"),
    "sparse oklab": (lambda: float_chip(oklab=torch.ones(3, 16, 16).to_sparse()), "oklab is a tensor of torch.sparse_coo"),
    "sparse valid": (lambda: {**make_chip(), "valid": torch.ones(1, 16, 16).bool().to_sparse()}, "valid is a tensor of torch.sparse_coo"),
    "no data": (lambda: float_chip(bands=torch.ones(8, 16, 16, device="meta")), "bands is a tensor of torch.strided on meta"),
    "with gradient": (lambda: float_chip(bands=torch.ones(8, 16, 16, requires_grad=True)), "with a gradient"),
    "no bands": (lambda: float_chip(mul=torch.ones(0, 4, 4), bands=torch.ones(0, 16, 16)), "without bands"),
    "few numbers": (lambda: float_chip(bands=torch.ones(1).expand(8, 16, 16)), "bands repeats fewer"),
    "a list": (lambda: [make_chip()], "not a chipmill-pan-1 chip"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_chip_is_refused_with_its_reason(tmp_path, name):
    make, reason = BAD[name]
    torch.save(make(), tmp_path / "0.pt")
    with pytest.raises(BadChip, match=reason):
        read_chip(tmp_path / "0.pt")


def test_bad_chips_are_skipped_counted_and_listed_by_inspect_and_left_out_of_batches(tmp_path, capsys):
    for number, (make, _) in enumerate(list(BAD.values())[:10]):
        torch.save(make(), tmp_path / f"{number + 1}.pt")
    torch.save(make_chip(), tmp_path / "0.pt")
    assert not program.main(["inspect", str(tmp_path)])
    said = capsys.readouterr().out
    assert all(f"{number}.pt can't be used: " in said for number in range(1, 11)) and "10 of the 11 chips looked at" in said
    assert (tmp_path / "contact_sheet.png").exists()
    chips = PanChips(tmp_path)
    batch = collate([chips[i] for i in range(len(chips))])
    assert batch.numbers == [0] and [problem.name for problem in batch.problems] == [f"{number}.pt" for number in range(1, 11)]


@pytest.mark.parametrize("store", ["bands", "oklab", "both"])
def test_a_chip_without_meta_can_be_used_and_drawn(tmp_path, store, capsys):
    chip = make_chip(store)
    del chip["meta"]
    torch.save(chip, tmp_path / "0.pt")
    assert not program.main(["inspect", str(tmp_path)])
    assert "can't be used" not in capsys.readouterr().out and (tmp_path / "contact_sheet.png").exists()
    number, tensors = PanChips(tmp_path, target="oklab" if store == "oklab" else "bands")[0]
    assert number == 0 and tensors[2].shape == ((3 if store == "oklab" else 8), 16, 16)


def test_inspect_draws_a_chip_whose_ms_is_one_pixel(tmp_path):
    rng = np.random.default_rng(0)
    pan, mul, bands = (rng.random(shape, dtype=np.float32) for shape in ((1, 256, 256), (8, 1, 1), (8, 256, 256)))
    torch.save(encode_chip(pan, mul, bands, None, {}, WORLDVIEW_BANDS), tmp_path / "0.pt")
    assert not program.main(["inspect", str(tmp_path)])


def test_a_set_that_keeps_only_pictures_is_refused_for_bands_before_a_chip_is_read(tmp_path):
    for store in ("bands", "oklab"):
        program.main(["fake-chips", "-o", str(tmp_path / store), "-c", "2", "-s", "16", "--store", store])
    program.main(["link-chips", str(tmp_path / "bands"), str(tmp_path / "oklab"), str(tmp_path / "mix")])
    assert len(PanChips(tmp_path / "bands")) == 2 and len(PanChips(tmp_path / "mix", target="oklab")) == 4
    for folder in ("oklab", "mix"):
        with pytest.raises(UserError, match="keeps only the picture .*pass --target oklab"):
            PanChips(tmp_path / folder, target="bands")
