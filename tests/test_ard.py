"""Reading an ARD delivery: what is used, what is left out, and the reason for each."""

import json

import numpy as np
import pytest

from benchmarks.fake_ard import make_fake_ard, write_tile
from chipping import ard
from runtime import network
from runtime.errors import UserError

SIDE = 64  # ms pixels


@pytest.fixture
def delivery(tmp_path):
    make_fake_ard(tmp_path / "ard", tiles=3, ms_side=SIDE, null_share=0, blocksize=64)
    return tmp_path / "ard"


def item_files(folder):
    return sorted(folder.glob("37/*/*/*.json"))


def open_all(folder, allowed=None, smallest=SIDE):
    items, unread = ard.read_items(folder)
    tiles, unfit, unmatched = ard.open_tiles(items, allowed, smallest)
    return tiles, dict(unread + unfit), unmatched


def test_tiles_are_found_with_name_cid_and_bands_sorted_by_name(delivery):
    tiles, skipped, _ = open_all(delivery)
    assert [t.name for t in tiles] == [
        "37/211111023300/2023-11-30/1040010000000000",
        "37/211111023301/2023-11-30/1040010000000001",
        "37/211111023302/2023-11-30/1040010000000000",
    ]
    assert skipped == {} and tiles[0].cid == "1040010000000000" and tiles[0].pair.bands[4] == "red" and tiles[0].pair.ratio == 4


def test_a_folder_that_is_no_ard_is_an_error(tmp_path):
    with pytest.raises(UserError, match="acquisition_collections"):
        ard.read_items(tmp_path)
    assert not ard.is_ard(tmp_path)


@pytest.mark.parametrize("href", ["http://127.0.0.1:9/a/37/1/2/A.json", "s3://bucket/37/1/2/A.json"])
def test_a_collection_leads_to_no_server(delivery, monkeypatch, href):
    read = ard.read_text
    monkeypatch.setattr(ard, "read_text", lambda path: pytest.fail("it asked") if "://" in str(path) else read(path))
    text = json.dumps({"links": [{"rel": "item", "href": href}]})
    (delivery / "acquisition_collections" / "stranger.json").write_text(text)
    tiles, skipped, _ = open_all(delivery)
    assert len(tiles) == 3 and skipped == {href: "on another server than its collection"}

def test_a_collection_leads_to_a_server_where_that_is_allowed(delivery, monkeypatch):
    asked = []
    read = ard.read_text
    monkeypatch.setattr(ard, "read_text", lambda path: asked.append(str(path)) or read(path))
    monkeypatch.setattr("urllib.request.urlopen", lambda address, timeout: (_ for _ in ()).throw(OSError(address)))
    monkeypatch.setitem(network.allowed, "everywhere", True)
    href = "http://127.0.0.1:9/a/37/1/2/A.json"
    (delivery / "acquisition_collections" / "stranger.json").write_text(json.dumps({"links": [{"rel": "item", "href": href}]}))
    _, skipped, _ = open_all(delivery)
    assert href in asked and skipped == {"37/1/2/A": "missing item JSON"}


@pytest.mark.parametrize("text", [
    "{", "[]", '{"type": "Collection"}', '{"links": 3}', '{"links": ["x"]}', '{"links": [{"rel": "item", "href": 3}]}',
])
def test_a_broken_collection_is_left_out_with_a_reason(delivery, text):
    (delivery / "acquisition_collections" / "broken.json").write_text(text)
    tiles, skipped, _ = open_all(delivery)
    assert len(tiles) == 3 and "unreadable collection" in str(skipped)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda path: path.write_text("{"), "unreadable item"),
        (lambda path: path.write_text("{}"), "unreadable item"),
        (lambda path: path.unlink(), "missing item"),
        (lambda path: path.write_text('{"properties": {}}'), "no platform"),
        (lambda path: path.write_text('{"properties": {"platform": "worldview-01"}}'), "unsupported satellite"),
        (lambda path: path.with_name(path.stem + "-ms.tif").unlink(), "does not exist"),
        (lambda path: path.with_name(path.stem + "-pan.tif").write_bytes(b"II*"), "can't be opened"),
    ],
)
def test_a_bad_tile_is_left_out_with_a_reason_and_the_others_stay(delivery, change, reason):
    path = item_files(delivery)[0]
    change(path)
    tiles, skipped, _ = open_all(delivery)
    assert len(tiles) == 2
    assert [why for name, why in skipped.items() if reason in why], skipped


@pytest.mark.parametrize(
    ("pan", "ms", "reason"),
    [
        ((1, 256, 256, "uint16"), (4, 64, 64, "uint16"), "4 bands"),
        ((1, 128, 128, "uint16"), (8, 64, 64, "uint16"), "ratio 2"),
        ((1, 250, 250, "uint16"), (8, 64, 64, "uint16"), "don't nest"),
        ((1, 256, 128, "uint16"), (8, 64, 32, "uint16"), "not square"),
        ((1, 256, 256, "uint8"), (8, 64, 64, "uint8"), "expected uint16"),
        ((1, 128, 128, "uint16"), (8, 32, 32, "uint16"), "a window needs 64"),
        ((3, 256, 256, "uint16"), (8, 64, 64, "uint16"), "expected 1"),
    ],
)
def test_shapes_and_types_that_do_not_fit_are_left_out_with_a_reason(delivery, pan, ms, reason):
    path = item_files(delivery)[0]
    arrays = [np.ones(shape[:3], shape[3]) for shape in (pan, ms)]
    write_tile(path.parent, path.stem, *arrays, (400_000, 6_000_000), 64)
    tiles, skipped, _ = open_all(delivery)
    assert len(tiles) == 2 and reason in str(skipped)


def test_platform_names_are_compared_without_case_and_dates_are_never_parsed(delivery):
    for path, platform in zip(item_files(delivery), ("WV02", "WorldView-03", "WORLDVIEW-02"), strict=True):
        path.write_text(json.dumps({"properties": {"platform": platform, "datetime": "yesterday"}}))
    assert len(open_all(delivery)[0]) == 3


def test_the_allow_list_is_stripped_upper_cased_and_unmatched_cids_are_told(delivery, tmp_path):
    good = tmp_path / "good.txt"
    good.write_text("  1040010000000001 \n\n10400100deadbeef\n")
    tiles, _, unmatched = open_all(delivery, ard.read_allow_list(good))
    assert [t.cid for t in tiles] == ["1040010000000001"] and unmatched == ["10400100DEADBEEF"]


@pytest.mark.parametrize("content", [b"", b" \n\n", b"\xff\xfe\x00"])
def test_an_empty_or_unreadable_allow_list_is_an_error_and_not_everything(tmp_path, content):
    path = tmp_path / "list.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match="allow-list"):
        ard.read_allow_list(path)


def test_the_summary_has_one_row_a_strip(delivery):
    rows = ard.summarise(ard.read_items(delivery)[0])
    assert [(r["cid"], r["tiles"], r["date"], r["clouds"]) for r in rows] == [
        ("1040010000000000", 2, "2023-11-30", 3), ("1040010000000001", 1, "2023-11-30", 3)]
    assert rows[0]["area_km2"] == pytest.approx(2 * 28.2)


def test_relative_links_are_joined_in_buckets_too():
    base = "s3://bucket/events/x/ard/acquisition_collections"
    assert ard.join(base, "../37/2111/2023-11-30/A.json") == "s3://bucket/events/x/ard/37/2111/2023-11-30/A.json"
