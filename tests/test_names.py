"""Names in files from somebody else lead nowhere but below their folder, and links at the names of temporary files are not followed."""

import json
import os
import shutil

import numpy as np
import pytest
import rasterio
from map_factory import BANDS, numbers, write_checkpoint
from map_factory import run as run_inference
from rasterio.transform import from_origin

import chip
from chipping.chipset import DESCRIPTION, MANIFEST, ChipSetWriter, SkipLog
from chipping.link_chips import link_chips
from chipping.patches import remove_strays
from classes import class_set
from demo import Stages
from mapping.journal import Journal
from mapping.map_files import MapFiles, begin_record
from mapping.settings import MapSettings
from mapping.summary import read_record
from raster.source import list_rasters
from runtime.errors import UserError
from runtime.files import atomic_path, clear_scratch, open_own, remove_tree, scratch_folder, write_json
from runtime.flags import Parser
from runtime.logs import Console
from runtime.names import path_inside, require_real_folder, require_short_names
from runtime.run_folder import RunFolder


@pytest.fixture
def victim(tmp_path):
    """A file outside of the folder `ours`, which must stay as it is."""
    (tmp_path / "ours").mkdir()
    path = tmp_path / "victim.txt"
    path.write_text("precious")
    yield path
    assert path.read_text() == "precious"


@pytest.mark.parametrize("name", ["/etc/passwd", "../victim.txt", "train/../../victim.txt", "..", "a\0b", "", None, 7, ["a"]])
def test_what_leaves_a_folder_or_is_no_name_is_refused(tmp_path, name):
    with pytest.raises(UserError, match="^manifest.jsonl names .*expected"):
        path_inside(tmp_path, name, "manifest.jsonl")


@pytest.mark.parametrize("name", ["a.npy", "train/a.npy", "a..b.npy", "train/..a", "…/ä ö.npy"])
def test_names_below_a_folder_are_resolved(tmp_path, name):
    assert path_inside(tmp_path, name, "manifest.jsonl") == tmp_path / name


def test_a_folder_that_leads_out_by_a_link_is_told_from_one_that_stays_inside(tmp_path):
    folder = tmp_path / "set"
    (folder / "there").mkdir(parents=True)
    (folder / "inside").symlink_to("there")
    (folder / "outside").symlink_to(tmp_path)
    (tmp_path / "set2").mkdir()  # its name begins like the folder's
    (folder / "beside").symlink_to(tmp_path / "set2")
    (tmp_path / "link").symlink_to(folder)  # the folder itself may be a link
    for place in ("there", "inside", "gone", "."):
        require_real_folder(folder / place, folder)
        require_real_folder(tmp_path / "link" / place, tmp_path / "link")
    for place in ("outside", "beside", "outside/deeper"):
        with pytest.raises(UserError, match="outside of .* remove the link"):
            require_real_folder(folder / place, folder)


# ----------------------------------------------------------------------------------------------------- chip sets


def make_set(folder, *lines):
    with ChipSetWriter(folder, {"kind": "pansharpen", "settings": {}}) as chipset:
        for line in lines:
            chipset.add(line)


@pytest.mark.parametrize("key", ["file", "mask"])
@pytest.mark.parametrize("how", ["relative", "absolute", "link"])
def test_overwriting_a_set_deletes_nothing_outside_of_it_and_nothing_at_all(tmp_path, victim, how, key):
    folder = tmp_path / "ours"
    name = {"relative": "../victim.txt", "absolute": str(victim), "link": "train/victim.txt"}[how]
    if how == "link":
        (folder / "train").symlink_to(tmp_path)
    make_lines = [{"file": "0.pt"}, {"file": "1.pt", key: name}]
    (folder / MANIFEST).write_text("".join(json.dumps(line) + "\n" for line in make_lines))
    write_json(folder / DESCRIPTION, {"format": "chipmill-chipset-1", "kind": "pansharpen"})
    (folder / "0.pt").write_text("a chip")
    with pytest.raises(UserError, match="outside of"), ChipSetWriter(folder, {"kind": "pansharpen", "settings": {}}, overwrite=True):
        pass
    assert (folder / "0.pt").exists() and json.loads((folder / DESCRIPTION).read_text())["kind"] == "pansharpen"


def test_a_linked_chip_is_removed_as_a_link(tmp_path, victim):
    make_set(tmp_path / "set", {"file": "0.pt"})
    (tmp_path / "set" / "0.pt").symlink_to(victim)
    with ChipSetWriter(tmp_path / "set", {"kind": "pansharpen", "settings": {}}, overwrite=True):
        assert not os.path.lexists(tmp_path / "set" / "0.pt")


@pytest.mark.parametrize("name", [MANIFEST, "skipped.jsonl"])
def test_a_list_that_is_a_link_is_not_written_through(tmp_path, victim, name):
    (tmp_path / "ours" / name).symlink_to(victim)
    with pytest.raises(UserError, match="symbolic link"):
        if name == MANIFEST:
            ChipSetWriter(tmp_path / "ours", {"kind": "pansharpen", "settings": {}}, overwrite=True).__enter__()
        else:
            SkipLog(tmp_path / "ours" / name)


def test_companions_and_strays_of_a_linked_folder_stay(tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    np.save(other / "a_r0_c0_image.npy", np.zeros(1))
    make_set(tmp_path / "set")
    (tmp_path / "set" / ".considered").symlink_to(other)
    with ChipSetWriter(tmp_path / "set", {"kind": "pansharpen", "settings": {}}, overwrite=True, companions=(".considered",)):
        assert not os.path.lexists(tmp_path / "set" / ".considered")
    (tmp_path / "set" / "train").symlink_to(other)
    with pytest.raises(UserError, match="outside of"):
        remove_strays(tmp_path / "set")
    assert os.listdir(other) == ["a_r0_c0_image.npy"]


def test_link_chips_takes_no_name_from_outside_and_follows_no_link_of_its_own_names(tmp_path, victim):
    make_set(tmp_path / "a", {"file": "0.pt"})
    (tmp_path / "a" / "0.pt").touch()
    for name in (".mix.part", ".mix.old.part"):
        (tmp_path / name).symlink_to(tmp_path / "ours")
    link_chips([tmp_path / "a"], tmp_path / "mix")
    assert os.listdir(tmp_path / "ours") == [] and not (tmp_path / "mix").is_symlink() and (tmp_path / "mix" / "0.pt").is_symlink()
    (tmp_path / ".mix2.lock").symlink_to(tmp_path / "new")
    with pytest.raises(UserError, match="symbolic link"):
        link_chips([tmp_path / "a"], tmp_path / "mix2")
    assert not (tmp_path / "new").exists()


# ---------------------------------------------------------------------------------------------------------- maps


@pytest.mark.parametrize("name", [
    "../victim.txt", "ABSOLUTE", "other_classes.tif", "scene_classes.tif/../../victim.txt", "scene.tif", 3, "scene_two_water.geojson",
    "scene_../x.geojson", "scene_water.tif", "scene_.geojson", "scene_water.geojson\n",
])
def test_the_record_of_a_map_names_that_scenes_outputs_only(tmp_path, victim, name):
    files = MapFiles(tmp_path / "ours", "scene")
    files.record.parent.mkdir()
    (tmp_path / "ours" / "other_classes.tif").touch()
    (tmp_path / "ours" / "scene.tif").touch()
    write_json(files.record, {"settings": None, "files": [str(victim) if name == "ABSOLUTE" else name]})
    how = MapSettings(window=32, precision="fp32"), class_set(("background", "fire"))
    with pytest.raises(UserError, match="no file of the map of scene; pass --overwrite"):
        begin_record(files, *how)
    begin_record(files, *how, overwrite=True)  # replaces the record, and trusts nothing in it
    assert (tmp_path / "ours" / "other_classes.tif").exists() and (tmp_path / "ours" / "scene.tif").exists()


@pytest.mark.parametrize("text", [
    "[]", "3", '{"settings": null}', '{"files": []}', '{"settings": null, "files": "a"}', '{"settings": 1, "files": []}',
])
def test_a_record_that_is_none_is_one_line(tmp_path, text):
    (tmp_path / "scene.json").write_text(text)
    with pytest.raises(UserError, match="scene.json .*(pass --overwrite|remove it)"):
        read_record(tmp_path / "scene.json")


def test_an_own_record_still_clears_what_the_new_map_will_not_have(tmp_path):
    files = MapFiles(tmp_path, "a.b")
    files.record.parent.mkdir()
    for ending in ("_classes.tif", "_burned.gpkg", "_burned.geojson", "_probability.tif", "_preview.png"):
        (tmp_path / f"a.b{ending}").touch()
    names = sorted(p.name for p in tmp_path.glob("a.b_*"))
    write_json(files.record, {"settings": None, "files": names})
    begin_record(files, MapSettings(window=32, precision="fp32"), class_set(("background", "fire")))
    assert sorted(p.name for p in tmp_path.glob("a.b_*")) == ["a.b_burned.geojson", "a.b_classes.tif", "a.b_preview.png"]


@pytest.fixture(scope="module")
def mapped(tmp_path_factory):
    """(folder, words of the command) of two maps."""
    folder = tmp_path_factory.mktemp("maps")
    scenes = []
    for name in ("scene", "other"):
        scenes.append(folder / f"{name}.tif")
        with rasterio.open(scenes[-1], "w", driver="GTiff", count=3, height=40, width=40, dtype="uint16", crs="EPSG:32633",
                           transform=from_origin(500_000, 4_600_000, 10, 10)) as file:
            file.write(numbers(40, 40))
            file.descriptions = BANDS
    words = [*scenes, "--checkpoint", write_checkpoint(folder / "a.pt"), "--device", "cpu"]
    assert run_inference(*words, "--output-dir", folder / "maps", "--vectors", "gpkg") == 0
    return folder / "maps", words


def with_change(change):
    """A damaged record: what a function of the whole one leaves of it."""
    def damage(text):
        record = json.loads(text)
        change(record)
        return json.dumps(record)
    return damage


DAMAGED_RECORDS = {
    "torn": lambda text: text[: len(text) // 2], "zeros": lambda text: "\0" * 40, "list": lambda text: "[]", "none": lambda text: "",
    "deep": lambda text: "[" * 100_000,
    **{f"{key}={value}": with_change(lambda record, key=key, value=value: record.update({key: value})) for key, value in (
        ("scene", 7), ("width", "wide"), ("height", -1), ("classes", {"a": 3}), ("classes", []), ("has_fire", "yes"),
        ("fire_fraction", "half"), ("valid_hectares", [1]), ("unreadable", [{"row": 1}]), ("unreadable", 3), ("remarks", "none"),
        ("polygons", 1.5), ("settings", 3), ("files", [3]), ("valid_fraction", None), ("unreadable_blocks", "many"),
    )},
    "lacks source": with_change(lambda record: record.pop("source")),
}


@pytest.mark.parametrize("damaged", DAMAGED_RECORDS)
def test_a_damaged_record_is_one_line_and_does_not_stop_overwrite(mapped, tmp_path, damaged, capsys):
    folder, words = mapped
    shutil.copytree(folder, tmp_path / "maps")
    path = tmp_path / "maps" / ".chipmill" / "scene.json"
    whole = path.read_text()
    path.write_text(DAMAGED_RECORDS[damaged](whole))
    command = [*words, "--output-dir", tmp_path / "maps"]
    with pytest.raises(UserError, match=r"scene.json .*(pass --overwrite|remove it)"):
        run_inference(*command, "--vectors", "gpkg")
    assert run_inference(*command[1:], "--overwrite") == 0  # the other scene alone
    assert "scene.json " in (said := capsys.readouterr().err) and "; summary.json is without this scene" in said
    assert [s["scene"] for s in json.loads((tmp_path / "maps" / "summary.json").read_text())["scenes"]] == ["other"]
    assert run_inference(*command, "--overwrite") == 0
    assert [s["scene"] for s in json.loads((tmp_path / "maps" / "summary.json").read_text())["scenes"]] == ["other", "scene"]
    assert json.loads(path.read_text())["classes"] == json.loads(whole)["classes"]
    assert sorted(p.name for p in (tmp_path / "maps").glob("scene_*")) == [
        "scene_burned.geojson", "scene_classes.qml", "scene_classes.tif", "scene_preview.png"]


@pytest.mark.parametrize("linked", [".chipmill", ".chipmill/scene", ".chipmill/scene/journal.jsonl", ".chipmill/scene/bands.bin"])
def test_an_unfinished_map_is_not_written_through_a_link(tmp_path, victim, linked):
    path = tmp_path / "ours" / linked
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(victim if path.suffix else tmp_path)
    with pytest.raises(UserError, match="symbolic link"):
        Journal(tmp_path / "ours" / ".chipmill" / "scene", {"a": 1}, overwrite=True)


# ------------------------------------------------------------------------------------------- folders of a fixed name


@pytest.mark.parametrize("name", ["checkpoints", "samples", "tensorboard"])
@pytest.mark.parametrize("how", [{}, {"overwrite": True}, {"resume": True}])
def test_a_run_does_not_write_or_clear_through_a_link(tmp_path, victim, name, how):
    (tmp_path / "precious").mkdir()
    for file in ("best_model.pt", "epoch_1.png", "events.out.tfevents.1"):
        (tmp_path / "precious" / file).touch()
    (tmp_path / "ours" / name).symlink_to(tmp_path / "precious")
    with pytest.raises(UserError, match=f"{name} is a symbolic link, .*remove it"), RunFolder(tmp_path / "ours", **how):
        pass
    assert len(list((tmp_path / "precious").iterdir())) == 3
    (tmp_path / "ours" / name).unlink()
    with RunFolder(tmp_path / "ours", **how):
        pass


@pytest.mark.parametrize("name", ["scenes", "patches", "run", "maps", ".stages"])
def test_the_demo_does_not_write_through_a_link(tmp_path, victim, name):
    Stages(tmp_path / "ours" / "demo", {"a": 1}, False, Console(quiet=True))
    (tmp_path / "ours" / "demo" / name).symlink_to(tmp_path)
    with pytest.raises(UserError, match=f"{name} is a symbolic link"):
        Stages(tmp_path / "ours" / "demo", {"a": 1}, False, Console(quiet=True))
    Stages(tmp_path / "ours" / "demo", {"a": 1}, True, Console(quiet=True))  # --overwrite removes the link, and not what it leads to
    assert not (tmp_path / "ours" / "demo" / name).is_symlink()


def test_patches_are_not_cut_through_a_link(tmp_path, victim, make_raster, monkeypatch):
    make_raster("i/a.tif", np.ones((2, 64, 64), np.uint16))
    make_raster("m/a.tif", np.ones((64, 64), np.uint8))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ours" / "train").symlink_to(tmp_path)
    words = ["make-patches", "--images", "i", "--masks", "m", "--divide-by", "1", "--patch-size", "64", "--quiet", "--overwrite"]
    with pytest.raises(UserError, match="train is a symbolic link"):
        chip.main([*words, "--patches-dir", "ours"])
    assert not list(tmp_path.glob("*.npy"))


# --------------------------------------------------------------------------------------- names of temporary files


def test_a_link_at_the_name_of_a_temporary_file_is_replaced(tmp_path, victim):
    (tmp_path / ".a.part.json").symlink_to(victim)
    write_json(tmp_path / "a.json", {"a": 1})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1} and not (tmp_path / "a.json").is_symlink()
    (tmp_path / ".b.part.txt").symlink_to(tmp_path / "not there")
    with atomic_path(tmp_path / "b.txt") as temporary:
        temporary.write_text("b")
    assert not (tmp_path / "not there").exists() and not os.path.lexists(tmp_path / ".b.part.txt")


def test_a_temporary_file_that_appears_meanwhile_is_not_opened(tmp_path, monkeypatch, victim):
    unlink = os.unlink

    def unlink_and_plant(path, **options):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "unlink", unlink)
            if os.path.lexists(path):
                unlink(path)
        os.symlink(victim, path)

    monkeypatch.setattr(os, "unlink", unlink_and_plant)
    with pytest.raises(FileExistsError), atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("harm")


def test_temporary_files_have_the_rights_that_the_umask_gives(tmp_path):
    before = os.umask(0o027)
    try:
        write_json(tmp_path / "a.json", {})
    finally:
        os.umask(before)
    assert os.stat(tmp_path / "a.json").st_mode & 0o777 == 0o640


@pytest.mark.parametrize("work", [scratch_folder, clear_scratch])
def test_a_scratch_folder_that_is_a_link_is_not_emptied(tmp_path, victim, work):
    (tmp_path / "scratch").symlink_to(tmp_path)
    if work is scratch_folder:
        with scratch_folder(tmp_path / "scratch") as folder:
            (folder / "victim.txt").write_text("harm")
    else:
        clear_scratch(tmp_path / "scratch")
    assert not os.path.lexists(tmp_path / "scratch")


def test_a_link_in_a_scratch_folder_is_removed_as_a_link(tmp_path, victim):
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch" / "link").symlink_to(tmp_path)
    with scratch_folder(tmp_path / "scratch") as folder:
        assert os.listdir(folder) == []


def test_removing_a_tree_removes_of_a_link_the_link(tmp_path, victim):
    (tmp_path / "link").symlink_to(tmp_path / "ours")
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    for name in ("link", "tree", "gone"):
        remove_tree(tmp_path / name)
    assert sorted(os.listdir(tmp_path)) == ["ours", "victim.txt"]


def test_locks_are_not_made_through_links(tmp_path, victim):
    (tmp_path / "ours" / ".lock").symlink_to(tmp_path / "new")
    with pytest.raises(UserError, match="symbolic link"), RunFolder(tmp_path / "ours"):
        pass
    assert not (tmp_path / "new").exists()
    with pytest.raises(FileNotFoundError):
        open_own(tmp_path / "none" / "a", "a")


# ------------------------------------------------------------------------------------- names that cannot be written


def test_a_name_that_is_too_long_with_its_ending_is_told_by_how_much(tmp_path):
    fits = "a" * (255 - len(".") - len(".part") - len("-journal") - len("_burned.gpkg"))
    require_short_names([tmp_path / f"{fits}_burned.gpkg"])
    with atomic_path(tmp_path / f"{fits}_burned.gpkg") as temporary:
        temporary.with_name(f"{temporary.name}-journal").touch()  # as SQLite does
    with pytest.raises(UserError, match="2 shorter"):
        require_short_names([tmp_path / f"{fits}ab_burned.gpkg"])
    with pytest.raises(UserError, match="1 shorter"):  # bytes count, not letters
        require_short_names([tmp_path / f"{fits[:-1]}ä_burned.gpkg"])


def test_rasters_whose_name_is_not_utf_8_are_refused(tmp_path):
    path = os.path.join(os.fsencode(tmp_path), b"sc\xff.tif")
    open(path, "wb").close()
    for pattern in (tmp_path, tmp_path / "*.tif", os.fsdecode(path)):
        with pytest.raises(UserError, match=r"sc\\udcff.tif' is not UTF-8; rename it"):
            list_rasters([pattern])
    with pytest.raises(UserError, match="the argument 'a.udcff' is not UTF-8"):
        Parser(prog="chip.py").parse_args(["a\udcff"])
