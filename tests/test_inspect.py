"""chip.py inspect: words that can be counted, a picture that shows the classes' colours."""

import json

import numpy as np
import pytest
from rasterio.transform import from_origin

import chip
from chipping.patch_inspection import band_statistics
from constants import CLASS_COLOURS
from pictures.overlays import NODATA_COLOUR
from pictures.stretch import choose_composites
from runtime.errors import RunError, UserError
from runtime.words import in_bytes, plural

MAKE = ["make-patches", "--images", "images", "--masks", "masks", "--divide-by", "10000", "--patch-size", "8", "--val", "DOVE", "--quiet"]


@pytest.fixture
def patches(make_raster, tmp_path, monkeypatch):
    """A set of 2 + 1 patches of 8 × 8: the left half of every mask burns, one row is ignored."""
    monkeypatch.chdir(tmp_path)
    mask = np.zeros((8, 8), np.uint8)
    mask[:, :4], mask[7] = 1, 255
    for i, name in enumerate(("DOVE_1", "OAK_1", "OAK_2")):
        image = np.stack([np.full((8, 8), 1000 * (band + 1), np.uint16) for band in range(4)])
        where = from_origin(500_000 + 10_000 * i, 4_600_000, 10, 10)
        make_raster(f"images/{name}.tif", image, descriptions=("B04", "B03", "B02", "B12"), transform=where)
        make_raster(f"masks/{name}.tif", mask, transform=where)
    chip.main(MAKE)
    return tmp_path / "patches"


def test_the_words_can_be_counted_by_hand(patches, capsys):
    capsys.readouterr()
    chip.main(["inspect", str(patches), "--no-pictures"])
    said = capsys.readouterr().out
    assert "3 patches of 8×8 pixels, 4 bands (3 patches uint16)" in said
    assert "bands: B04, B03, B02, B12" in said and "offset 0, divisor 10000" in said
    assert "train: 2 patches from 2 scenes of 1 event (OAK), 100.0% of the pixels valid" in said
    assert "val: 1 patch from 1 scene of 1 event (DOVE)" in said
    assert "mask: background 50.00%, fire 50.00%; 2 patches with more than background" in said
    assert "B04 0.1 ± 0, B03 0.2 ± 0, B02 0.3 ± 0, B12 0.4 ± 0" in said
    assert not (patches / "contact_sheet.png").exists()


def test_the_contact_sheet_shows_image_and_classes(patches):
    from PIL import Image

    chip.main(["inspect", str(patches)])
    with Image.open(patches / "contact_sheet.png") as sheet:
        colours = {tuple(c) for c in np.asarray(sheet.convert("RGB")).reshape(-1, 3)[::7]}
    assert CLASS_COLOURS[2][1] in colours and NODATA_COLOUR in colours
    chip.main(["inspect", str(patches)])  # the sheet in the folder is ours to replace


def test_a_named_sheet_is_not_replaced_unless_asked(patches, tmp_path):
    (tmp_path / "mine.png").write_bytes(b"x")
    with pytest.raises(UserError, match="--overwrite"):
        chip.main(["inspect", str(patches), "--output", str(tmp_path / "mine.png")])
    assert (tmp_path / "mine.png").read_bytes() == b"x"
    chip.main(["inspect", str(patches), "--output", str(tmp_path / "mine.png"), "--overwrite"])
    assert (tmp_path / "mine.png").read_bytes().startswith(b"\x89PNG")


def test_statistics_are_those_of_the_reflectances():
    values = np.array([[1100, 1200, 1900], [0, 300, 30]])
    line = {"valid_pixels": 3, "band_sum": values.sum(1).tolist(), "band_sum_squares": (values**2).sum(1).tolist()}
    found = band_statistics([line, line], {"divide_by": [10_000, 255], "offset": [-1000, 0]})
    reflectance = (values + [[-1000], [0]]) / [[10_000], [255]]
    assert np.allclose(found, np.stack([reflectance.mean(1), reflectance.std(1)], axis=1))


def test_pictures_take_the_bands_by_what_they_see():
    assert choose_composites(["TCI_R", "TCI_G", "TCI_B", "B8", "B12"]) == [("natural", [0, 1, 2]), ("burn-sensitive", [4, 3, 0])]
    assert choose_composites(["B04", "B08", "B8A", "B12"]) == [("burn-sensitive", [3, 2, 0])]  # the narrow band, as in previews
    assert choose_composites(["a", "b", "c", "d"]) == [("bands", [2, 1, 0])] and choose_composites(["a"]) == [("bands", [0, 0, 0])]


def test_sets_of_the_predecessor_are_described(tmp_path, capsys):
    (tmp_path / "old" / "train").mkdir(parents=True)
    np.save(tmp_path / "old" / "train" / "x_r0_c0_image.npy", np.zeros((4, 4, 7), np.float32))
    np.save(tmp_path / "old" / "train" / "x_r0_c0_mask.npy", np.array([[0, 1, 255, 0]] * 4, np.uint8))
    chip.main(["inspect", str(tmp_path / "old")])
    said = capsys.readouterr().out
    assert "train: 1 patch (1 of 4×4×7 float32); class 0 66.67%, class 1 33.33%" in said


def test_what_is_no_chip_set_is_said(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        chip.main(["inspect", str(tmp_path / "nowhere")])
    with pytest.raises(UserError, match="no chipset.json"):
        chip.main(["inspect", str(tmp_path)])
    (tmp_path / "chipset.json").write_text('{"format": "chipmill-chipset-1", "kind": "pachtes"}')
    with pytest.raises(UserError, match="kind 'pachtes'.*Did you mean 'patches'"):
        chip.main(["inspect", str(tmp_path)])


def test_a_patch_that_can_not_be_read_is_named_and_the_others_are_shown(patches, capsys):
    next(patches.glob("train/OAK_1*_mask.npy")).unlink()
    chip.main(["inspect", str(patches)])
    assert "1 patch of those chosen for the sheet can't be read, first train/OAK_1_r0_c0_image.npy" in capsys.readouterr().out
    for path in patches.glob("*/*_image.npy"):
        path.write_bytes(b"")
    with pytest.raises(RunError, match="no patch of .* can be read.* --overwrite"):
        chip.main(["inspect", str(patches)])
    chip.main([*MAKE, "--overwrite"])
    chip.main(["inspect", str(patches)])


def test_a_sheet_that_can_not_be_written_is_one_line_and_the_words_are_there(patches, capsys):
    (patches / "wall").touch()
    capsys.readouterr()
    with pytest.raises(UserError, match="cannot write to .*wall"):
        chip.main(["inspect", str(patches), "--output", str(patches / "wall" / "sheet.png")])
    assert "3 patches of 8×8 pixels" in capsys.readouterr().out


def test_a_description_that_lacks_something_is_said(patches):
    description = json.loads((patches / "chipset.json").read_text())
    del description["bands"], description["layers"]
    (patches / "chipset.json").write_text(json.dumps(description))
    with pytest.raises(UserError, match="chipset.json lacks bands, layers; make the chips again"):
        chip.main(["inspect", str(patches)])


def test_a_cut_file_of_the_predecessor_is_counted(tmp_path, capsys):
    (tmp_path / "val").mkdir()
    for name in "ab":
        np.save(tmp_path / f"val/{name}_image.npy", np.zeros((4, 4, 2), np.float32))
        np.save(tmp_path / f"val/{name}_mask.npy", np.zeros((4, 4), np.uint8))
    (tmp_path / "val/b_mask.npy").write_bytes(b"\x93NUMPY")
    chip.main(["inspect", str(tmp_path)])
    assert "class 0 100.00%; 1 can't be read" in capsys.readouterr().out


def test_bytes_in_words():
    assert [in_bytes(n) for n in (0, 999, 1000, 1_234_567, 999_600, 5e9, 123e6)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "1.2 MB",
        "1.0 MB",
        "5.0 GB",
        "123 MB",
    ]
    assert [plural(*n) for n in ((1, "patch"), (2, "patch"), (0, "scene"))] == ["1 patch", "2 patches", "0 scenes"]
