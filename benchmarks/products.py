"""
What delivered products cost beside what nobody can do without: the blocks of their files, decoded once.

    python benchmarks/products.py                        # a generated SAFE of 4392 x 4392 pixels of 10 m: six bands, JPEG 2000 in tiles
    python benchmarks/products.py --side 10980 --memory        # peak memory of cutting and of a map, beside idle processes
    python benchmarks/products.py --side 10980 --bands B02,B03 --cpu-only --repeat 1      # a whole tile on two workers

Prints CPU seconds of cutting (after the imports) and of decoding all blocks of the bands once, and their ratio; wall seconds of one and two
workers; milliseconds to open a product; requests and bytes of a window of a remote COG beside the header and its own blocks.
"""

import argparse
import contextlib
import http.server
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]


def land(side, seed):
    """(side, side) uint16 like land: smooth fields, fine noise."""
    rng = np.random.default_rng(seed)
    coarse = np.kron(rng.integers(1300, 4000, (side // 32 + 1, side // 32 + 1), np.uint16), np.ones((32, 32), np.uint16))[:side, :side]
    return coarse + rng.integers(0, 60, (side, side), np.uint16)


def generate(folder, side, bands):
    """(SAFE folder, mask) as make-patches takes them."""
    from product_factory import METRES, make_safe, write_raster

    pixels = {band: land(side * 10 // METRES[band], number) for number, band in enumerate(bands)}
    safe, _ = make_safe(folder, side=side, pixels=pixels)
    mask = write_raster(folder / f"masks/{safe.stem}.tif", (pixels["B02"] > 2600).astype(np.uint8), 10, compress="deflate", tiled=True)
    return safe, mask


def cpu(work):
    """(CPU seconds, wall seconds) of work() in this process."""
    before, begin = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    work()
    after = resource.getrusage(resource.RUSAGE_SELF)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, time.perf_counter() - begin


def decode_once(safe, bands):
    import rasterio

    for band in bands:
        metres = "10m" if band in ("B02", "B03", "B04") else "20m"
        with rasterio.open(next(safe.glob(f"GRANULE/*/IMG_DATA/R{metres}/*_{band}_{metres}.jp2"))) as dataset:
            for _, window in dataset.block_windows(1):
                dataset.read(1, window=window)


def cut(safe, out, bands):
    import chip

    with contextlib.redirect_stdout(io.StringIO()):
        chip.main(words_of(safe, out, bands, 1))


def words_of(safe, out, bands, workers):
    """Words of chip.py that cut a SAFE."""
    return ["make-patches", "--images", str(safe), "--masks", str(safe.parent / "masks"), "--bands", ",".join(bands), "--no-clouds",
            "--patches-dir", str(out), "--workers", str(workers), "--quiet"]


def command(*what):
    return [sys.executable, str(ROOT / "chip.py"), *words_of(*what)]


def cut_alone(*what):
    """Wall seconds of a process of its own."""
    begin = time.perf_counter()
    subprocess.run(command(*what), check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def cpu_of_each(*what):
    """CPU seconds of the processes of a run, imports included, the most first: what holds of a busy machine too. Linux alone."""
    process, seconds = subprocess.Popen(command(*what), stdout=subprocess.DEVNULL), {}
    while process.poll() is None:
        waiting = [process.pid]
        for pid in waiting:
            with contextlib.suppress(OSError):  # it has ended
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                seconds[pid] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
                waiting += [int(word) for path in Path(f"/proc/{pid}/task").glob("*/children") for word in path.read_text().split()]
        time.sleep(0.03)
    return sorted(seconds.values(), reverse=True)


def time_cutting(folder, side, bands, repeat, cpu_only):
    safe, _ = generate(folder, side, bands)
    cut(safe, folder / "warm", bands)  # imports
    pairs = [(cpu(lambda: decode_once(safe, bands))[0], cpu(lambda n=n: cut(safe, folder / f"out{n}", bands))[0]) for n in range(repeat)]
    bound, ours = (min(values) for values in zip(*pairs, strict=True))
    print(f"decoding the blocks of {len(bands)} bands once: {bound:.2f} s of CPU; cutting patches of them: {ours:.2f} s, "
          f"{ours / bound:.2f} times as much")
    if cpu_only:
        (alone, *_), each = (cpu_of_each(safe, folder / f"c{workers}", bands, workers) for workers in (1, 2))
        print(f"CPU of one worker: {alone:.1f} s; of each process with two: {', '.join(f'{value:.1f}' for value in each)} s, "
              f"{alone / each[0]:.2f} times less in the busiest")
        return safe
    one, two = (min(cut_alone(safe, folder / f"w{workers}-{n}", bands, workers) for n in range(repeat)) for workers in (1, 2))
    print(f"one worker: {one:.1f} s; two: {two:.1f} s, {one / two:.2f} times as fast ({os.cpu_count()} cores)")
    return safe


def peak_of(*words):
    """Highest memory in MB of a process of its own; the system counts what this one had before, which is why it stays small."""
    process = subprocess.Popen([sys.executable, *map(str, words)], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(map(str, words))} ended with status {status}")
    return usage.ru_maxrss / 1024


def map_with_three_bands(scene, folder):
    """Map a scene with a 1 x 1 convolution, so that its memory is that of the reading and writing; without a scene only import for it."""
    import torch

    from mapping.inputs import NO_FLAGS, describe_for, plan_input
    from mapping.map_files import MapFiles
    from mapping.scene import map_scene
    from mapping.segmentation import Predictor
    from mapping.settings import MapSettings, ModelFacts
    from raster.products import product_scene
    from runtime.device import Compute

    if scene == "none":
        return
    model = torch.nn.Conv2d(3, 2, 1)
    data = {"bands": ["B04", "B8A", "B12"], "divide_by": [1e4] * 3, "offset": [-1e3] * 3, "nodata": None, "classes": ["background", "fire"]}
    plan = plan_input(describe_for(product_scene(scene), data, NO_FLAGS), data)
    predictor = Predictor(model, 2, plan.scale, Compute(device=torch.device("cpu")))
    facts = ModelFacts(bands=tuple(data["bands"]), classes=tuple(data["classes"]), weights="benchmark")
    map_scene(predictor, plan, MapFiles(folder, "scene"), facts, MapSettings())


def measure_memory(folder, side, bands):
    subprocess.run([sys.executable, __file__, "--make", str(folder), "--side", str(side), "--bands", ",".join(bands)], check=True)
    safe, mask = next(folder.glob("*.SAFE")), next(folder.glob("masks/*"))
    words = (ROOT / "chip.py", "make-patches", "--images", safe, "--masks", mask, "--bands", ",".join(bands), "--no-clouds", "--quiet")
    idle, ours = peak_of(*words, "--patches-dir", folder / "no", "--dry-run"), peak_of(*words, "--patches-dir", folder / "out")
    print(f"cutting a tile of {side}², {len(bands)} bands: {ours:.0f} MB at most; a dry run of it {idle:.0f} MB", flush=True)
    idle, ours = (peak_of(__file__, "--map", scene, folder / "maps") for scene in ("none", safe))
    print(f"mapping it with 3 bands: {ours:.0f} MB at most; a process with the same imports {idle:.0f} MB")


def time_opening(safe, bands, repeat):
    from raster.products import list_scenes
    from raster.source import describe

    times = []
    for _ in range(5 * repeat):
        begin = time.process_time()
        (scene,) = list_scenes([str(safe)])
        describe(scene.with_bands(bands))
        times.append(1000 * (time.process_time() - begin))
    print(f"opening a SAFE with {len(bands)} bands: {min(times):.1f} ms of CPU")


class Ranges(http.server.BaseHTTPRequestHandler):
    """A folder with byte ranges. asked: [(first byte, bytes)] of GET requests for rasters."""

    folder, asked = None, []

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.answer(False)

    def do_GET(self):
        self.answer(True)

    def answer(self, body):
        path = self.folder / self.path.lstrip("/")
        data, wanted = path.read_bytes(), self.headers.get("Range")
        first, last = 0, len(data) - 1
        if wanted:
            words = wanted.removeprefix("bytes=").split("-")
            first, last = int(words[0]), min(int(words[1] or last), last)
        if body and path.suffix == ".tif":
            self.asked.append((first, last - first + 1))
        self.send_response(206 if wanted else 200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(last - first + 1))
        if wanted:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.end_headers()
        if body:
            self.wfile.write(data[first : last + 1])


def count_requests(folder):
    import rasterio
    from product_factory import make_item, write_raster
    from rasterio.windows import Window

    from raster.products import list_scenes
    from raster.source import open_raster
    from runtime import network

    item, _ = make_item(folder / "cog")
    cog = write_raster(folder / "cog/red.tif", land(4096, 0), 10, driver="COG", nodata=0, compress="deflate", blocksize=512)
    known = json.loads(item.read_text())
    handler = type("Handler", (Ranges,), {"folder": folder / "cog", "asked": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        known["assets"] = {"red": {**known["assets"]["red"], "href": f"http://127.0.0.1:{server.server_port}/red.tif"}}
        item.write_text(json.dumps(known))
        network.permit([], True)
        (scene,) = list_scenes([str(item)])
        with open_raster(scene) as dataset:
            header = list(handler.asked)
            dataset.read(1, window=Window(1100, 1100, 900, 900))  # four blocks, two beside each other in two rows
        server.shutdown()
    with rasterio.open(cog) as dataset:
        blocks = [int(dataset.get_tag_item(f"BLOCK_SIZE_{x}_{y}", "TIFF", bidx=1)) for x in (2, 3) for y in (2, 3)]
    fetched = handler.asked[len(header) :]
    print(f"a window of 4 blocks of a remote COG: {len(header)} requests and {sum(s for _, s in header) / 1024:.0f} kB for the header, "
          f"{len(fetched)} requests and {sum(s for _, s in fetched) / 1024:.0f} kB for blocks of {sum(blocks) / 1024:.0f} kB")


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=4392, help="pixels of 10 m, a multiple of 6")
    parser.add_argument("--bands", default="B02,B03,B04,B8A,B11,B12", help="B02 among them; --memory maps B04, B8A and B12")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--cpu-only", action="store_true", help="CPU seconds of workers: wall seconds need a quiet machine")
    parser.add_argument("--memory", action="store_true", help="only the peak memory of cutting and mapping")
    parser.add_argument("--make", help=argparse.SUPPRESS)  # folder: what a process does
    parser.add_argument("--map", nargs=2, help=argparse.SUPPRESS)  # scene and folder: what a process does
    args = parser.parse_args(argv)
    bands = tuple(args.bands.split(","))
    if args.make:
        return generate(Path(args.make), args.side, bands)
    if args.map:
        return map_with_three_bands(*args.map)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as scratch:
        if args.memory:
            return measure_memory(Path(scratch), args.side, bands)
        count_requests(Path(scratch))
        safe = time_cutting(Path(scratch), args.side, bands, args.repeat, args.cpu_only)
        time_opening(safe, bands, args.repeat)


if __name__ == "__main__":
    main()
