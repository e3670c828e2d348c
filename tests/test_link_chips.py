"""link-chips: a proportional order, all or nothing, no chip opened."""

import json
import os
import signal
import socket
import tempfile
from pathlib import Path

import numpy as np
import pytest
from rasterio.transform import from_origin
from rasterio.warp import transform

import chip
from chipping.chipset import FORMAT, find_chips, read_chipset, read_manifest
from chipping.link_chips import link_chips, proportional_order
from runtime.errors import UserError
from vectors.footprint import outline


@pytest.fixture
def folder_of_chips(tmp_path):
    """folder_of_chips("a", 5, bands=…) -> a folder with 0.pt … 4.pt; with a manifest where bands are given, more: of chipset.json."""

    def make(name, count, bands=None, **more):
        folder = tmp_path / name
        folder.mkdir()
        for n in range(count):
            (folder / f"{n}.pt").write_text(f"{name} {n}")
        if bands:
            description = {"format": FORMAT, "kind": "pansharpen", "settings": {}, "settings_hash": "", "chip_size": 8, "bands": bands,
                           "ratio": 4, **more}
            (folder / "chipset.json").write_text(json.dumps(description))
            lines = [json.dumps({"file": f"{n}.pt", "tile": name, "i": n}, separators=(", ", ": ")) for n in range(count)]
            (folder / "manifest.jsonl").write_text("\n".join(lines) + "\n")
        return folder

    return make


def contents(folder):
    return [(folder / f"{n}.pt").read_text() for n in range(len(list(folder.glob("*.pt"))))]


def everything(folder):
    """{path: where a link leads, or what a file holds} of a folder, hidden names too."""
    files = [Path(place) / name for place, _, names in os.walk(folder) for name in names]
    return {str(p.relative_to(folder)): os.readlink(p) if p.is_symlink() else p.read_text() for p in files}


def fail_at(monkeypatch, number):
    """The number-th link from now on finds the disk full."""
    original, calls = os.symlink, []

    def symlink(target, path):
        calls.append(path)
        if len(calls) == number:
            raise OSError(28, "No space left on device")
        original(target, path)

    monkeypatch.setattr(os, "symlink", symlink)


def in_child(work):
    """Begin work() in a process of its own, which never comes back here. → its number"""
    child = os.fork()
    if not child:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return child


def exit_code(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_twelve_items_come_in_the_known_order():
    assert proportional_order(12).tolist() == [0, 5, 10, 2, 7, 4, 9, 1, 6, 11, 3, 8]


@pytest.mark.parametrize("share", [2, 10, 32])
def test_every_prefix_mixes_the_sources_proportionally(share):
    count = 20_000
    from_source = proportional_order(count) < count // share
    excess = np.cumsum(from_source) - np.arange(1, count + 1) / share
    assert np.abs(excess).max() <= 2.5


def test_links_point_at_the_chips_in_that_order(folder_of_chips, tmp_path):
    a, b = folder_of_chips("a", 8), folder_of_chips("b", 4)
    report = link_chips([a, b], tmp_path / "mixed" / "deep")
    items = [f"a {n}" for n in range(8)] + [f"b {n}" for n in range(4)]
    assert contents(tmp_path / "mixed" / "deep") == [items[i] for i in (0, 5, 10, 2, 7, 4, 9, 1, 6, 11, 3, 8)]
    assert report == {str(a): {"linked": 8, "broken": 0, "foreign": 0, "unlisted": 0},
                      str(b): {"linked": 4, "broken": 0, "foreign": 0, "unlisted": 0}}


def test_numbers_are_sorted_as_numbers_whatever_the_directory_order(folder_of_chips, tmp_path):
    link_chips([folder_of_chips("a", 12)], tmp_path / "mixed")
    assert contents(tmp_path / "mixed")[:3] == ["a 0", "a 5", "a 10"]


def test_broken_links_and_foreign_names_are_counted_and_left_out(folder_of_chips, tmp_path):
    a = folder_of_chips("a", 2)
    os.symlink("/nowhere/at/all", a / "2.pt")
    for name in ("x.pt", "03.pt", "1.5.pt", ".4.pt", "٣.pt", "notes.txt"):
        (a / name).touch()
    assert find_chips(a) == ([0, 1], 1, 4)
    assert link_chips([a], tmp_path / "mixed")[str(a)] == {"linked": 2, "broken": 1, "foreign": 4, "unlisted": 0}


def test_links_to_links_lead_to_the_file_itself(folder_of_chips, tmp_path):
    a = folder_of_chips("a", 3)
    link_chips([a], tmp_path / "middle")
    link_chips([tmp_path / "middle"], tmp_path / "end")
    assert {os.readlink(p) for p in (tmp_path / "end").glob("*.pt")} == {str(a / f"{n}.pt") for n in range(3)}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["2.pt", "700.pt"])
def test_a_chip_that_is_a_file_stops_everything_before_anything_is_made(folder_of_chips, tmp_path, name, overwrite):
    a, out = folder_of_chips("a", 3), tmp_path / "out"
    out.mkdir()
    (out / name).write_text("mine")
    with pytest.raises(UserError, match="is a file, not a link"):
        link_chips([a], out, overwrite)
    assert everything(out) == {name: "mine"}


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_chip_set_that_link_chips_did_not_make_is_never_touched(folder_of_chips, tmp_path, overwrite):
    real, other = folder_of_chips("real", 12, ["red"]), folder_of_chips("other", 4, ["red"])
    for number in range(6):
        (real / f"{number}.pt").unlink()  # as make-chips -s 6 leaves it: no name is taken
    before = everything(real)
    with pytest.raises(UserError, match="is a file, not a link"):
        link_chips([other], real, overwrite)
    for path in real.glob("*.pt"):
        path.unlink()
    with pytest.raises(UserError, match="link-chips did not make"):
        link_chips([other], real, overwrite)
    assert everything(real) == {name: text for name, text in before.items() if not name.endswith(".pt")}


def test_other_links_and_another_description_are_in_the_way_without_overwrite(folder_of_chips, tmp_path):
    a, b, out = folder_of_chips("a", 6, ["red"]), folder_of_chips("b", 2, ["red"]), tmp_path / "out"
    link_chips([a], out)
    before = everything(out)
    with pytest.raises(UserError, match="pass --overwrite"):
        link_chips([b], out)
    for path in out.glob("*.pt"):
        path.unlink()
    with pytest.raises(UserError, match="chipset.json exists already"):
        link_chips([b], out)
    assert everything(out) == {name: text for name, text in before.items() if not name.endswith(".pt")}


def test_the_same_command_again_changes_nothing(folder_of_chips, tmp_path):
    a, out = folder_of_chips("a", 6, ["red"]), tmp_path / "out"
    first = link_chips([a], out)
    before = {p: p.lstat().st_mtime_ns for p in out.iterdir()}
    assert link_chips([a], out) == first
    assert {p: p.lstat().st_mtime_ns for p in out.iterdir()} == before


def test_other_files_in_the_destination_stay(folder_of_chips, tmp_path):
    a, b, out = folder_of_chips("a", 3), folder_of_chips("b", 2), tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    os.symlink("/nowhere", out / "x.pt")
    for source in (a, b):
        link_chips([source], out, overwrite=True)
    assert everything(out) == {"notes.txt": "mine", "x.pt": "/nowhere", "0.pt": str(b / "0.pt"), "1.pt": str(b / "1.pt")}


def test_overwrite_replaces_links_and_leaves_no_stale_ones(folder_of_chips, tmp_path):
    a, b = folder_of_chips("a", 6), folder_of_chips("b", 2)
    link_chips([a], tmp_path / "out")
    link_chips([b], tmp_path / "out", overwrite=True)
    assert contents(tmp_path / "out") == ["b 0", "b 1"]
    assert len(list(a.glob("*.pt"))) == 6


def test_overwrite_takes_the_description_away_where_there_is_none_to_write(folder_of_chips, tmp_path):
    a, b, out = folder_of_chips("a", 3, ["red"]), folder_of_chips("b", 2), tmp_path / "out"
    link_chips([a], out)
    link_chips([a, b], out, overwrite=True)
    assert sorted(everything(out)) == [f"{n}.pt" for n in range(5)]


def test_a_failure_half_way_leaves_nothing(folder_of_chips, tmp_path, monkeypatch):
    a = folder_of_chips("a", 5)
    before = everything(tmp_path)
    fail_at(monkeypatch, 4)
    with pytest.raises(OSError, match="No space"):
        link_chips([a], tmp_path / "out")
    assert everything(tmp_path) == before and sorted(os.listdir(tmp_path)) == ["a"]


@pytest.mark.parametrize("number", [1, 3, 6])
def test_a_failure_half_way_through_overwriting_leaves_the_earlier_mix(folder_of_chips, tmp_path, monkeypatch, number):
    a, b, out = folder_of_chips("a", 4, ["red"]), folder_of_chips("b", 6, ["red"]), tmp_path / "out"
    link_chips([a], out)
    before = everything(out)
    fail_at(monkeypatch, number)
    with pytest.raises(OSError, match="No space"):
        link_chips([b], out, overwrite=True)
    assert everything(out) == before


@pytest.mark.parametrize("there", ["nothing", "an empty folder", "an earlier mix"])
def test_a_run_that_was_killed_can_be_run_again(folder_of_chips, tmp_path, there):
    """Killed for good after 30 links: no handler runs. Then the same command, beside one that was left alone."""
    a, b, out = folder_of_chips("a", 90, ["red"]), folder_of_chips("b", 30, ["red"]), tmp_path / "out"
    words = ["link-chips", str(a), str(b), str(out)]
    if there == "an empty folder":
        out.mkdir()
    if there == "an earlier mix":
        link_chips([b], out)
        words.append("--overwrite")
    before = everything(out)

    def killed_at_the_thirtieth_link():
        original, made = os.symlink, []

        def symlink(target, path):
            original(target, path)
            made.append(path)
            if len(made) == 30:
                os.kill(os.getpid(), signal.SIGKILL)

        os.symlink = symlink
        chip.main(words)

    assert exit_code(in_child(killed_at_the_thirtieth_link)) == -signal.SIGKILL
    assert out.exists() == (there != "nothing") and everything(out) == before
    assert not chip.main(words)
    link_chips([a, b], tmp_path / "undisturbed")
    assert everything(out) == everything(tmp_path / "undisturbed") and len(contents(out)) == 120
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "out", "undisturbed"]


def test_killed_at_any_moment_the_folder_is_the_earlier_one_or_the_new_one(folder_of_chips, tmp_path):
    """Killed at each call that changes a folder, one after the other; then the same command completes it."""
    a, b = folder_of_chips("a", 2, ["red"]), folder_of_chips("b", 3, ["red"])
    link_chips([a, b], tmp_path / "whole")
    new = {**everything(tmp_path / "whole"), "notes.txt": "mine"}
    for moment in range(1, 100):
        out = tmp_path / f"out{moment}"
        link_chips([a], out)
        (out / "notes.txt").write_text("mine")
        old = everything(out)

        def killed_at_that_call(out=out, moment=moment):
            calls = []

            def counted(original):
                def call(*args, **more):
                    calls.append(original)
                    if len(calls) == moment:
                        os._exit(9)
                    return original(*args, **more)

                return call

            for name in ("symlink", "link", "rename", "replace", "unlink", "mkdir", "rmdir"):
                setattr(os, name, counted(getattr(os, name)))
            link_chips([a, b], out, overwrite=True)

        killed = exit_code(in_child(killed_at_that_call)) == 9
        if out.exists():
            assert everything(out) in (old, new)
        else:
            assert everything(tmp_path / f".out{moment}.old.part") == old, "between two renames"
        link_chips([a, b], out, overwrite=True)
        assert everything(out) == new and not [p for p in tmp_path.iterdir() if p.name.startswith(".out")]
        if not killed:
            break
    assert not killed and moment > 10


def test_two_at_once_into_one_folder_are_refused(folder_of_chips, tmp_path):
    a = folder_of_chips("a", 3)
    (started, starts), (going, goes) = os.pipe(), os.pipe()

    def waits_after_the_last_link():
        original = os.symlink

        def symlink(target, path):
            original(target, path)
            if path.endswith("/2.pt"):
                os.write(starts, b"x")
                os.read(going, 1)

        os.symlink = symlink
        link_chips([a], tmp_path / "out")

    first = in_child(waits_after_the_last_link)
    os.read(started, 1)
    with pytest.raises(UserError, match="another program"):
        link_chips([a], tmp_path / "out")
    os.write(goes, b"x")
    assert exit_code(first) == 0 and contents(tmp_path / "out") == ["a 0", "a 2", "a 1"]


def test_nothing_to_link_a_missing_source_itself_and_twice_the_same_are_errors(folder_of_chips, tmp_path):
    a = folder_of_chips("a", 2)
    (tmp_path / "empty").mkdir()
    for sources, target, message in (
        ([tmp_path / "empty"], "out", "no chips"),
        ([tmp_path / "missing"], "out", "not a folder"),
        ([a], "a", "both source and destination"),
        ([a, a], "out", "given twice"),
    ):
        with pytest.raises(UserError, match=message):
            link_chips(sources, tmp_path / target)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("place", ["/proc/foo", "FILE", "FILE/out", "DANGLING"])
def test_a_destination_that_cannot_be_made_is_one_line(folder_of_chips, tmp_path, place):
    (tmp_path / "file").touch()
    os.symlink(tmp_path / "nowhere", tmp_path / "dangling")
    place = place.replace("FILE", str(tmp_path / "file")).replace("DANGLING", str(tmp_path / "dangling"))
    with pytest.raises(UserError, match="cannot write to"):
        link_chips([folder_of_chips("a", 2)], place)


def test_links_lead_across_file_systems(folder_of_chips, tmp_path):
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK) or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system to write to")
    with tempfile.TemporaryDirectory(dir=memory) as other:
        link_chips([folder_of_chips("a", 3), folder_of_chips("b", 2)], Path(other) / "out")
        assert sorted(contents(Path(other) / "out")) == ["a 0", "a 1", "a 2", "b 0", "b 1"]


def test_manifests_are_joined_in_the_order_of_the_links(folder_of_chips, tmp_path):
    a, b = folder_of_chips("a", 3, ["red"]), folder_of_chips("b", 2, ["red"])
    link_chips([a, b], tmp_path / "out")
    lines = read_manifest(tmp_path / "out")
    assert [line["file"] for line in lines] == [f"{n}.pt" for n in range(5)]
    assert [f"{line['tile']} {line['i']}" for line in lines] == contents(tmp_path / "out")
    description = read_chipset(tmp_path / "out")
    assert description["bands"] == ["red"] and [s["chips"] for s in description["settings"]["linked"]] == [3, 2]


def test_a_chip_that_a_manifest_does_not_list_is_not_linked(folder_of_chips, tmp_path, capsys):
    a, b = folder_of_chips("a", 3, bands=["x"]), folder_of_chips("b", 2, bands=["x"])
    (a / "3.pt").write_text("of another run")
    chip.main(["link-chips", str(a), str(b), str(tmp_path / "mixed")])
    assert "of another run" not in contents(tmp_path / "mixed") and len(read_manifest(tmp_path / "mixed")) == 5
    assert f"3 from {a}, 1 not in its manifest" in capsys.readouterr().out


def test_a_source_without_manifest_gives_links_without_one(folder_of_chips, tmp_path):
    link_chips([folder_of_chips("a", 3, ["red"]), folder_of_chips("b", 2)], tmp_path / "out")
    assert len(list((tmp_path / "out").glob("*.pt"))) == 5 and not (tmp_path / "out" / "manifest.jsonl").exists()


def test_sets_that_differ_in_bands_are_not_mixed(folder_of_chips, tmp_path):
    with pytest.raises(UserError, match="bands"):
        link_chips([folder_of_chips("a", 3, ["red"]), folder_of_chips("b", 2, ["red", "nir"])], tmp_path / "out")


@pytest.mark.parametrize(
    ("stores", "store", "said"),
    [
        (("bands", "bands"), "bands", False),
        (("both", "bands"), "bands", False),
        (("oklab", "oklab"), "oklab", False),
        (("bands", "oklab"), "oklab", True),
        (("oklab", "both"), "oklab", True),
        (("bands", None), None, False),
    ],
)
def test_a_mix_keeps_what_every_chip_offers_and_says_what_is_lost(folder_of_chips, tmp_path, stores, store, said):
    sources = [
        folder_of_chips(name, 2, ["red"], **({"store": kept, "dtype": "uint16"} if kept else {}))
        for name, kept in zip("ab", stores, strict=True)
    ]
    words = []
    link_chips(sources, tmp_path / "out", say=words.append)
    assert read_chipset(tmp_path / "out").get("store") == store
    assert ["not for --target bands" in text for text in words] == [True] * said


def test_the_type_of_a_mix_of_two_types_is_both(folder_of_chips, tmp_path):
    sources = [folder_of_chips(name, 2, ["red"], store="bands", dtype=dtype) for name, dtype in (("a", "uint16"), ("b", "float32"))]
    link_chips(sources, tmp_path / "out")
    assert read_chipset(tmp_path / "out")["dtype"] == "float32 and uint16"


@pytest.mark.parametrize("divisor", [1.0, 255.0])
def test_patch_sets_keep_their_splits_and_pairs_and_are_not_mixed_across_scales(tmp_path, divisor):
    for name, count in (("a", 3), ("b", 2)):
        lines = []
        for n in range(count):
            split = "train" if n else "val"
            (tmp_path / name / split).mkdir(parents=True, exist_ok=True)
            line = {"file": f"{split}/s_r0_c{n}_image.npy", "mask": f"{split}/s_r0_c{n}_mask.npy", "split": split, "scene": f"{name}{n}"}
            for key in ("file", "mask"):
                (tmp_path / name / line[key]).write_text(f"{name}{n} {key}")
            lines.append(json.dumps(line))
        description = {"format": FORMAT, "kind": "patches", "settings": {}, "settings_hash": "", "chip_size": 8, "bands": ["red"],
                       "divide_by": [1.0 if name == "a" else divisor], "offset": [0.0], "layers": ["mask"],
                       "classes": {"mask": ["a", "b"]}}
        (tmp_path / name / "chipset.json").write_text(json.dumps(description))
        (tmp_path / name / "manifest.jsonl").write_text("\n".join(lines) + "\n")
    if divisor != 1:
        with pytest.raises(UserError, match="divide_by"):
            link_chips([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
        return
    link_chips([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    lines = read_manifest(tmp_path / "out")
    assert len(lines) == 5 and read_chipset(tmp_path / "out")["layers"] == ["mask"]
    for line in lines:
        for key in ("file", "mask"):
            assert line[key].startswith(line["split"]) and (tmp_path / "out" / line[key]).read_text() == f"{line['scene']} {key}"


@pytest.fixture
def patch_set(make_raster, tmp_path):
    """patch_set("pb1", val="s1", …) -> a set that make-patches cut from scenes s1, s2 (beside each other) and s3, without a CRS."""
    for number, crs in ((1, "EPSG:32633"), (2, "EPSG:32633"), (3, None)):
        pixels = np.random.default_rng(number).integers(1, 9999, (2, 16, 16)).astype(np.uint16)
        at = from_origin(500_000 + 160 * number, 4_600_000, 10, 10)
        make_raster(f"images/s{number}.tif", pixels, crs=crs, transform=at)
        make_raster(f"masks/s{number}.tif", np.ones((16, 16), np.uint8), crs=crs, transform=at)

    def make(name, val, *more, images="images"):
        words = ["make-patches", "--images", images, "--masks", "masks", "--patches-dir", name, "--patch-size", "8", "--divide-by", "10000"]
        assert not chip.main([*(str(tmp_path / w) if w in ("images", "masks", name) else w for w in words), "--val", val, "--quiet", *more])
        return tmp_path / name

    return make


def test_ground_that_would_be_in_two_splits_is_refused_by_the_names_of_the_scenes(patch_set, tmp_path):
    first, second = patch_set("pb1", "s1"), patch_set("pb4", "s2")
    with pytest.raises(UserError, match="s1 of .*pb1, val and s1 of .*pb4, train.*s2 of .*pb1, train and s2 of .*pb4, val"):
        link_chips([first, second], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    words = []
    link_chips([first, second], tmp_path / "out", say=words.append, allow_overlap=True)
    assert len(read_manifest(tmp_path / "out")) == 2 * 27 and "scores will flatter" in words[0]


def test_a_scene_without_a_place_is_known_by_its_file(patch_set, tmp_path):
    with pytest.raises(UserError, match="s3 of .*pb1, train and s3 of .*pb2, val"):
        link_chips([patch_set("pb1", "s1", "--exclude", "s2"), patch_set("pb2", "s3", "--exclude", "s1")], tmp_path / "out")


def test_sets_with_the_same_splits_or_ground_side_by_side_can_be_linked(patch_set, tmp_path):
    link_chips([patch_set("a", "s1"), patch_set("b", "s1")], tmp_path / "out")
    link_chips([patch_set("c", "s1", "--exclude", "s3"), patch_set("d", "s1", "--exclude", "s2")], tmp_path / "other")
    assert {line["split"] for line in read_manifest(tmp_path / "other")} == {"train", "val"}


def write_patches(folder, split, *places, crs="EPSG:32633", grid=(10, 500_000, 4_600_000)):
    """A set of patches of 8 × 8 pixels of one scene, at places (col, row) of a grid: (pixel, west, north)."""
    pixel, west, north = grid
    lines = []
    for col, row in places:
        line = {"file": f"{split}/r{row}_c{col}_image.npy", "mask": f"{split}/r{row}_c{col}_mask.npy", "split": split, "scene": folder.name,
                "window": [col, row, 8, 8], "crs": crs,
                "transform": [pixel, 0, west + pixel * col, 0, -pixel, north - pixel * row]}
        for key in ("file", "mask"):
            (folder / line[key]).parent.mkdir(parents=True, exist_ok=True)
            (folder / line[key]).touch()
        lines.append(json.dumps(line) + "\n")
    description = {"format": FORMAT, "kind": "patches", "settings": {}, "settings_hash": "", "chip_size": 8, "bands": ["red"],
                   "divide_by": [1.0], "offset": [0.0], "layers": ["mask"], "classes": {"mask": ["a", "b"]}}
    (folder / "chipset.json").write_text(json.dumps(description))
    (folder / "manifest.jsonl").write_text("".join(lines))
    return folder


@pytest.mark.parametrize("crs", ["http://127.0.0.1:{}/crs", "/vsicurl/http://127.0.0.1:{}/crs"])
def test_the_crs_of_a_strangers_manifest_asks_no_server(tmp_path, crs):
    with socket.create_server(("127.0.0.1", 0)) as server:
        write_patches(tmp_path / "a", "train", (0, 0), crs=crs.format(server.getsockname()[1]))
        with pytest.raises(UserError, match="is not known; expected an EPSG code or WKT"):
            link_chips([tmp_path / "a"], tmp_path / "out")
        server.settimeout(0.2)
        with pytest.raises(TimeoutError):
            server.accept()


def test_patches_on_other_grids_are_compared_on_the_globe(tmp_path):
    """10 m in UTM and 1e-4 degrees: at 15° E, 500 000 m are the zone's middle, so that both grids are parallel there."""
    (x,), (y,) = transform("EPSG:32633", "EPSG:4326", [500_000], [4_600_000])
    place = {"crs": "EPSG:4326", "grid": (1e-4, x, y)}
    utm = write_patches(tmp_path / "utm", "train", (0, 0), (16, 16))  # to 80 m, and from 160 to 240 m in both directions
    degrees = write_patches(tmp_path / "degrees", "val", (12, 0), (0, 12), **place)  # beside: 12 are 100 m of longitude, 133 m of latitude
    link_chips([utm, degrees], tmp_path / "out")
    both = write_patches(tmp_path / "both", "val", (12, 0), (20, 20), **place)
    with pytest.raises(UserError, match="both of .*, val and utm of .*, train"):
        link_chips([utm, both], tmp_path / "other")


def test_of_hundreds_of_patches_of_two_scenes_only_the_scenes_get_an_outline(tmp_path, monkeypatch):
    """An outline takes milliseconds: one for each patch would make minutes of a few dates of one place."""
    made = []
    monkeypatch.setattr("chipping.link_chips.outline", lambda *place: (made.append(place), outline(*place))[1])

    def chessboard(colour):
        return [(8 * c, 8 * r) for r in range(20) for c in range(20) if (r + c) % 2 == colour]

    sets = [write_patches(tmp_path / str(colour), split, *chessboard(colour)) for colour, split in enumerate(("train", "val"))]
    link_chips(sets, tmp_path / "out")
    assert len(made) == 2 and len(read_manifest(tmp_path / "out")) == 400


def test_ground_between_the_patches_of_a_scene_is_in_no_split(tmp_path):
    corners = write_patches(tmp_path / "corners", "train", (0, 0), (16, 16))
    link_chips([corners, write_patches(tmp_path / "third", "val", (16, 0), (8, 8))], tmp_path / "out")
    with pytest.raises(UserError, match="corners of .*, train and half of .*, val"):
        link_chips([corners, write_patches(tmp_path / "half", "val", (16, 0), (9, 9))], tmp_path / "other")
