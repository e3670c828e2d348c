"""Reading an ARD delivery: what is used, what is left out, and the reason for each."""

import contextlib
import http.server
import json
import threading
import time

import numpy as np
import pytest

from benchmarks.fake_ard import make_fake_ard, write_tile
from raster import ard, remote_text, source
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
    assert href in asked and skipped == {"37/1/2/A": f"unreadable item JSON (OSError: {href})"}


@pytest.mark.parametrize("text", [
    "{", "[]", '{"type": "Collection"}', '{"links": 3}', '{"links": ["x"]}', '{"links": [{"rel": "item", "href": 3}]}',
])
def test_a_broken_collection_is_left_out_with_a_reason(delivery, text):
    (delivery / "acquisition_collections" / "broken.json").write_text(text)
    tiles, skipped, _ = open_all(delivery)
    assert len(tiles) == 3 and "unreadable collection" in str(skipped)


@pytest.mark.parametrize(("link", "reason"), [
    ({"rel": "item", "href": 7}, "its href is 7, expected text"), ({"rel": "item"}, "KeyError"), ("x", "AttributeError"),
    ({"rel": "item", "href": "../../outside/37/1/2/A.json"}, "outside of"), ({"rel": "item", "href": "/etc/hostname"}, "outside of"),
    ({"rel": "item", "href": "a" * 100_000 + "\0"}, "as a file"),
])
def test_a_broken_link_is_left_out_and_the_other_links_of_its_collection_are_not(delivery, link, reason):
    path = next((delivery / "acquisition_collections").glob("*.json"))
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "links": [link, *content["links"]]}))
    tiles, unread, _ = open_all(delivery)
    assert len(tiles) == 3 and list(unread) == [str(path)] and reason in unread[str(path)]


def test_a_space_in_a_link_leads_to_the_file_of_that_name(delivery):
    old = item_files(delivery)[0].parent
    new = old.with_name("2023 11 30")
    old.rename(new)
    for path in (delivery / "acquisition_collections").glob("*.json"):
        path.write_text(path.read_text().replace(f"{old.parent.name}/2023-11-30", f"{old.parent.name}/2023 11 30"))
    tiles, skipped, _ = open_all(delivery)
    assert len(tiles) == 3 and skipped == {} and any("/2023 11 30/" in tile.name for tile in tiles)


@pytest.fixture
def answers():
    """{path: function of a request handler}, and the address of a server on this machine that answers so."""
    found = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            found[self.path](self)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads, server.block_on_close = True, False
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield found, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def answer(text, length=None):
    def give(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(text) if length is None else length))
        handler.end_headers()
        handler.wfile.write(text)

    return give


def drip(headers):
    def give(handler):
        with contextlib.suppress(OSError):
            handler.wfile.write(b"HTTP/1.0 200 OK\r\n" + (b"X: " if headers else b"\r\n"))
            for _ in range(200):
                handler.wfile.write(b" ")
                handler.wfile.flush()
                time.sleep(0.05)

    return give


def test_what_a_server_answers_wrongly_is_named_and_left_out(answers, monkeypatch):
    found, address = answers
    monkeypatch.setattr(source, "REQUEST_SECONDS", 0.5)
    monkeypatch.setattr(remote_text, "MOST_BYTES", 1000)
    item = b'{"properties": {"platform": "worldview-03"}}'
    found |= {
        "/37/1/2/good%20one.json": answer(item), "/37/1/2/cut.json": answer(item, 900), "/37/1/2/body.json": drip(headers=False),
        "/37/1/2/head.json": drip(headers=True), "/37/1/2/gone.json": lambda handler: handler.send_error(404),
        "/37/1/2/no.json": lambda handler: handler.send_error(500), "/37/1/2/long.json": answer(item + b" " * 2000),
        "/37/1/2/noise.json": lambda handler: handler.wfile.write(b"\0\1 nothing\r\n\r\n"),
    }
    begun = time.monotonic()
    assert ard.read_item(f"{address}/37/1/2/good one.json").cid == "GOOD ONE"
    said = {name: ard.read_item(f"{address}/37/1/2/{name}.json")[1] for name in ("cut", "body", "head", "gone", "no", "long", "noise")}
    assert time.monotonic() - begun < 5  # and not the ten seconds that a dripping server takes
    words = {"cut": "cut off", "body": "no whole answer in 0.5 s", "head": "no whole answer in 0.5 s", "gone": "missing item JSON",
             "no": "500", "long": "longer than 1000 bytes", "noise": "BadStatusLine"}
    assert all(words[name] in text for name, text in said.items()), said


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda path: path.write_text("{"), "unreadable item"),
        (lambda path: path.write_text("{}"), "unreadable item"),
        (lambda path: path.unlink(), "missing item"),
        (lambda path: path.write_text('{"properties": ' * 100_000), "RecursionError"),
        (lambda path: path.write_text('{"properties": {"a": ' + "[" * 100_000 + "]" * 100_000 + "}}"), "RecursionError"),
        (lambda path: path.write_bytes(b"\xff\xfe"), "unreadable item"),
        (lambda path: path.unlink() or path.mkdir(), "unreadable item"),
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
