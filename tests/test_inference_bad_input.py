"""Bad input gets one line that says what to do, before any work: pytest tests/test_inference_bad_input.py"""

import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from map_factory import BANDS, numbers, run, write_checkpoint
from rasterio.transform import Affine, from_origin

from runtime.errors import RunError, UserError, explain

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def scene(make_raster):
    return make_raster("scene.tif", numbers(60, 60), descriptions=BANDS)


@pytest.fixture
def mapped(checkpoint, tmp_path):
    """mapped(scenes, *flags): run inference.py on them."""
    return lambda *words: run(*words, "--checkpoint", checkpoint, "--output-dir", tmp_path / "maps", "--device", "cpu")


def read(path):
    with rasterio.open(path) as dataset:
        return dataset.read(1)


def damage(path, block):
    """Overwrite the compressed bytes of a tile or strip, so that it can't be decoded."""
    with rasterio.open(path) as dataset:
        offset, size = (int(dataset.get_tag_item(f"BLOCK_{what}_{block[0]}_{block[1]}", "TIFF", bidx=1)) for what in ("OFFSET", "SIZE"))
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * size)


# ------------------------------------------------------------------------------------------------------------ flags


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--checkpoint", "x.pt", "--treshold", "0.4"], "Did you mean '--threshold'?"),
        (["--precision", "fp64"], "expected one of fp32, bf16, fp16"),
        ([], "--checkpoint"),
        (["--checkpoint", "x.pt", "--threshold", "3"], "from 0 to 1, got '3'"),
        (["--checkpoint", "x.pt", "--overlap", "0.95"], "from 0 to 0.9, got '0.95'"),
        (["--checkpoint", "x.pt", "--min-area", "-1"], "at least 0, got '-1'"),
        (["--checkpoint", "x.pt", "--window", "4"], "from 8 to 8192, got '4'"),
        (["--checkpoint", "x.pt", "--batch-size", "0"], "from 1 to 4096, got '0'"),
        (["--checkpoint", "x.pt", "--bands", "B04,,B08"], "names separated by commas, got 'B04,,B08'"),
        (["--checkpoint", "x.pt", "--output-dir", "s3://bucket/maps"], "local folder"),
    ],
)
def test_wrong_flags_are_told_before_anything_is_loaded(words, said):
    """How long that takes is how many modules are imported: none of the heavy ones."""
    code = (
        "import atexit, sys, inference; from runtime.errors import run_program\n"
        "atexit.register(lambda: print(*{'torch', 'rasterio', 'numpy'} & set(sys.modules)))\n"
        f"sys.argv = ['inference.py', *{words!r}]; run_program(inference.main)"
    )
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 2 and said in answer.stderr and answer.stderr.count("\n") == 1
    assert answer.stdout.strip() == ""


# ------------------------------------------------------------------------------------------------------- checkpoint


def test_a_checkpoint_that_is_not_there_or_not_whole_is_refused(scene, checkpoint, tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        run(scene, "--checkpoint", tmp_path / "none.pt")
    cut = tmp_path / "cut.pt"
    cut.write_bytes(checkpoint.read_bytes()[:2000])
    with pytest.raises(UserError, match="cut short"):
        run(scene, "--checkpoint", cut)


def test_a_checkpoint_of_another_kind_is_refused(scene, tmp_path):
    with pytest.raises(UserError, match="knows segmentation"):
        run(scene, "--checkpoint", write_checkpoint(tmp_path / "other.pt", kind="weather"))


# ----------------------------------------------------------------------------------------------------------- scenes


def test_scenes_that_are_not_there_are_told(mapped, tmp_path):
    with pytest.raises(UserError, match="matches no raster"):
        mapped(tmp_path / "none.tif")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="matches no raster"):
        mapped(tmp_path / "empty")


def test_without_scenes_the_patch_set_must_name_some(mapped):
    with pytest.raises(UserError, match="no scene was given"):
        mapped()


def test_two_scenes_of_one_name_are_refused(mapped, make_raster, tmp_path):
    for folder in "ab":
        make_raster(f"{folder}/scene.tif", numbers(20, 20), descriptions=BANDS)
    with pytest.raises(UserError, match="would both become scene_classes.tif"):
        mapped(tmp_path / "a", tmp_path / "b")


def test_a_scene_whose_name_is_too_long_for_its_map_is_refused_before_any_work(mapped, make_raster, tmp_path):
    make_raster(f"{'a' * 240}.tif", numbers(20, 20), descriptions=BANDS)
    with pytest.raises(UserError, match="_burned.geojson would be a file name of 255 bytes, .* to be 14 shorter"):
        mapped(tmp_path)
    assert not (tmp_path / "maps").exists()


def test_a_map_never_replaces_a_scene(checkpoint, make_raster, tmp_path):
    for name in ("a.tif", "a_classes.tif"):
        make_raster(name, numbers(20, 20), descriptions=BANDS)
    with pytest.raises(UserError, match="is one of the scenes"):
        run(tmp_path / "a.tif", tmp_path / "a_classes.tif", "--checkpoint", checkpoint, "--output-dir", tmp_path, "--overwrite")


def test_maps_that_exist_are_not_replaced(mapped, scene, tmp_path):
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "scene_classes.tif").write_text("mine")
    with pytest.raises(UserError, match="exists already; pass --overwrite"):
        mapped(scene)
    assert (tmp_path / "maps" / "scene_classes.tif").read_text() == "mine"
    assert mapped(scene, "--overwrite") == 0
    assert read(tmp_path / "maps" / "scene_classes.tif").shape == (60, 60)


def test_a_map_made_with_other_settings_is_not_replaced(mapped, scene):
    mapped(scene)
    with pytest.raises(UserError, match="other settings .*min_area: 0.5 → 3"):
        mapped(scene, "--min-area", 3)
    assert mapped(scene, "--min-area", 3, "--overwrite") == 0


def test_an_output_folder_that_can_not_be_written_is_told_at_once(checkpoint, scene, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="can.t write to|cannot write to"):
        run(scene, "--checkpoint", checkpoint, "--output-dir", tmp_path / "file" / "maps")


# ------------------------------------------------------------------------------------------------------------ bands


@pytest.mark.parametrize(
    ("count", "names", "flags", "said"),
    [
        (2, None, [], "2 bands without names; the checkpoint wants 3: B04, B08, B12"),
        (5, None, [], "Pass --bands with 3 names or numbers"),
        (3, ["B02", "B03", "B04"], [], "B12 .no B08, B12.. Pass --bands"),
        (3, BANDS, ["--bands", "1,2"], "names 2 bands, but the checkpoint wants 3"),
        (3, BANDS, ["--bands", "1,2,9"], "has bands 1 to 3"),
        (3, BANDS, ["--bands", "B04,B08,B21"], "has no band 'B21'"),
    ],
)
def test_bands_that_do_not_fit_are_refused(mapped, make_raster, count, names, flags, said):
    with pytest.raises(UserError, match=said):
        mapped(make_raster("scene.tif", numbers(40, 40, bands=count), descriptions=names), *flags)


# ------------------------------------------------------------------------------------------------------------ scale


def test_reflectances_for_a_network_of_digital_numbers_are_refused(mapped, make_raster):
    scene = make_raster("scene.tif", numbers(40, 40) / np.float32(10_000), descriptions=BANDS)
    with pytest.raises(UserError, match="doesn't fit the scale from the checkpoint .*Pass --divide-by"):
        mapped(scene)
    assert mapped(scene, "--divide-by", 1) == 0


def test_digital_numbers_for_a_network_of_reflectances_are_refused(scene, tmp_path):
    checkpoint = write_checkpoint(tmp_path / "r.pt", divide_by=[1.0] * 3)
    with pytest.raises(UserError, match=r"divide by 1\).*B04 \d+ .training 0.1., B08 \d+ .training 0.25.*--accept-scale"):
        run(scene, "--checkpoint", checkpoint, "--output-dir", tmp_path / "maps")


def test_digital_numbers_in_a_float_file_are_what_they_were_in_the_training(mapped, make_raster):
    """Some producers deliver digital numbers as float64: the type of a file says nothing about its scale."""
    assert mapped(make_raster("scene.tif", numbers(40, 40).astype(np.float64), descriptions=BANDS)) == 0


@pytest.mark.parametrize("value", ["0", "1,2", "ten"])
def test_divisors_that_can_not_be_right_are_refused(mapped, scene, value):
    with pytest.raises(UserError, match="--divide-by"):
        mapped(scene, "--divide-by", value)


def test_nodata_that_the_type_can_not_hold_is_refused(mapped, scene):
    with pytest.raises(UserError, match="uint16 can't hold"):
        mapped(scene, "--nodata", "-1")


# ----------------------------------------------------------------------------------------------------- hard rasters


def test_an_unreadable_block_becomes_nodata_and_is_named(mapped, make_raster, tmp_path, capsys):
    scene = make_raster("scene.tif", numbers(192, 192), descriptions=BANDS, tiled=True, blockxsize=64, blockysize=64, compress="deflate")
    damage(scene, (1, 2))  # second tile of the third row of tiles
    assert mapped(scene) == 0
    lost = np.zeros((192, 192), dtype=bool)
    lost[128:192, 64:128] = True
    assert np.array_equal(read(tmp_path / "maps" / "scene_classes.tif") == 255, lost)
    said = capsys.readouterr()
    assert "with unreadable blocks: scene" in said.out and "row 128, column 64 (64 × 64 pixels)" in said.err


def test_strict_stops_at_an_unreadable_block(mapped, make_raster, tmp_path):
    scene = make_raster("scene.tif", numbers(192, 192), descriptions=BANDS, tiled=True, blockxsize=64, blockysize=64, compress="deflate")
    damage(scene, (1, 1))
    with pytest.raises(RunError, match="can't be read at row 64"):
        mapped(scene, "--strict")
    assert not (tmp_path / "maps" / "scene_classes.tif").exists()


def test_a_truncated_file_is_mapped_as_far_as_it_goes_and_one_of_rubble_is_not(mapped, make_raster, tmp_path):
    scene = make_raster("scene.tif", numbers(200, 100), descriptions=BANDS, blockysize=10, compress="deflate")
    scene.write_bytes(scene.read_bytes()[: scene.stat().st_size * 6 // 10])
    try:
        assert mapped(scene) == 0
    except UserError as error:  # where the header lies behind the pixels, the file can't even be opened
        assert "can't be opened" in str(error)
    else:
        found = read(tmp_path / "maps" / "scene_classes.tif")
        assert (found[:50] != 255).all() and (found[-20:] == 255).all()
    whole = make_raster("rubble.tif", numbers(64, 64), descriptions=BANDS, tiled=True, blockxsize=64, blockysize=64, compress="deflate")
    damage(whole, (0, 0))
    with pytest.raises(RunError, match="none of its blocks can be read"):
        mapped(whole)


def test_one_failure_does_not_stop_the_rest(mapped, make_raster, tmp_path, capsys):
    for i, name in enumerate("ac"):
        make_raster(f"in/{name}.tif", numbers(40, 40, i), descriptions=BANDS)
    (tmp_path / "in" / "b.tif").write_bytes(b"II*\0 and nothing more")
    assert mapped(tmp_path / "in") == 1
    said = capsys.readouterr()
    assert "mapped 2 of 3" in said.out and said.out.strip().endswith("failed: b")
    assert (tmp_path / "maps" / "c_classes.tif").exists()
    with pytest.raises(UserError, match="b.tif can't be opened"):
        mapped(tmp_path / "in", "--strict")


def test_a_raster_without_crs_has_a_map_but_no_polygons_and_no_hectares(mapped, make_raster, tmp_path, capsys):
    scenes = [make_raster(f"{n}.tif", numbers(50, 50, i), descriptions=BANDS, crs=None) for i, n in enumerate("ab")]
    assert mapped(*scenes) == 0
    assert (tmp_path / "maps" / "a_classes.tif").exists() and not (tmp_path / "maps" / "a_burned.geojson").exists()
    assert '"burned_hectares": null' in (tmp_path / "maps" / "summary.json").read_text()
    assert capsys.readouterr().err.count("no polygons, no hectares") == 1


def test_a_raster_placed_off_the_globe_has_a_map_but_no_polygons_and_no_hectares(mapped, make_raster, tmp_path, capsys):
    assert mapped(make_raster("scene.tif", numbers(50, 50), descriptions=BANDS, transform=from_origin(5e9, 5e9, 10, 10))) == 0
    assert (tmp_path / "maps" / "scene_classes.tif").exists() and not (tmp_path / "maps" / "scene_burned.geojson").exists()
    assert capsys.readouterr().err.count("does not lead to the globe: no polygons, no hectares") == 1


def test_an_aoi_needs_a_crs_and_must_touch_the_scene(mapped, make_raster, scene, tmp_path):
    area = tmp_path / "area.geojson"
    area.write_text('{"type": "Polygon", "coordinates": [[[100, 0], [101, 0], [101, 1], [100, 0]]]}')
    with pytest.raises(UserError, match="does not touch"):
        mapped(scene, "--aoi", area)
    with pytest.raises(UserError, match="has no CRS"):
        mapped(make_raster("plain.tif", numbers(50, 50), descriptions=BANDS, crs=None), "--aoi", area)
    with pytest.raises(UserError, match="none.geojson does not exist"):
        mapped(scene, "--aoi", tmp_path / "none.geojson")


def test_of_many_scenes_those_outside_the_aoi_are_left_out(mapped, make_raster, tmp_path, capsys):
    near, far = (make_raster(f"{n}.tif", numbers(50, 50), descriptions=BANDS, crs="EPSG:4326", transform=from_origin(x, 1, 1e-4, 1e-4))
                 for n, x in (("near", 100), ("far", 50)))
    area = tmp_path / "area.geojson"
    area.write_text('{"type": "Polygon", "coordinates": [[[100, 0], [101, 0], [101, 1], [100, 1], [100, 0]]]}')
    assert mapped(near, far, "--aoi", area) == 0
    assert "mapped 1 of 2" in (said := capsys.readouterr().out) and "outside the area: far" in said


@pytest.mark.parametrize(
    ("crs", "place", "outlines"),
    [
        ("EPSG:4326", from_origin(179.999, -17, 1e-4, 1e-4), True),  # across the antimeridian
        ("EPSG:3031", from_origin(-300, 300, 10, 10), False),  # a pole inside
        ("EPSG:4326", Affine.translation(15, 40) * Affine.rotation(30) * Affine.scale(1e-4, -1e-4), True),
        ("EPSG:2225", from_origin(6e6, 2e6, 60, 60), True),  # feet
    ],
)
def test_places_that_are_special_have_maps_and_hectares(mapped, make_raster, tmp_path, crs, place, outlines):
    assert mapped(make_raster("scene.tif", numbers(60, 60), descriptions=BANDS, crs=crs, transform=place)) == 0
    assert (tmp_path / "maps" / "scene_burned.geojson").exists() == outlines
    assert '"burned_hectares": null' not in (tmp_path / "maps" / "summary.json").read_text()


def test_degrees_beyond_the_pole_are_refused_before_any_work(mapped, make_raster, tmp_path):
    with pytest.raises(UserError, match="beyond the pole"):
        mapped(make_raster("scene.tif", numbers(60, 60), descriptions=BANDS, crs="EPSG:4326", transform=from_origin(0, 95, 0.1, 0.1)))
    assert not (tmp_path / "maps" / "scene_classes.tif").exists()


def test_a_scene_of_nodata_has_an_empty_map(mapped, make_raster, tmp_path, capsys):
    assert mapped(make_raster("scene.tif", np.full((3, 50, 50), 7, dtype=np.uint16), descriptions=BANDS, nodata=7)) == 0
    assert (read(tmp_path / "maps" / "scene_classes.tif") == 255).all()
    assert "no valid pixel" in capsys.readouterr().err


def test_complex_numbers_are_refused(mapped, make_raster):
    with pytest.raises(UserError, match="complex"):
        mapped(make_raster("scene.tif", numbers(20, 20).astype(np.complex64), descriptions=BANDS))


def test_a_full_disk_leaves_no_half_map(checkpoint, make_raster, tmp_path):
    """A limit on the size of files stands for the disk."""
    scene = make_raster("scene.tif", numbers(220, 220), descriptions=BANDS)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, hard))
    try:
        with pytest.raises((RunError, OSError)) as failure:
            run(scene, "--checkpoint", checkpoint, "--output-dir", tmp_path / "maps", "--device", "cpu")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    code, line = explain(failure.value)
    assert code == 1 and line.startswith("failed: ")
    assert [p.name for p in (tmp_path / "maps").iterdir() if p.is_file()] == []
    assert run(scene, "--checkpoint", checkpoint, "--output-dir", tmp_path / "maps", "--device", "cpu") == 0
