"""
What a cache of tiles costs, beside what it can't do without: decoding the images and encoding their tiles as PNG at level 1.

    python benchmarks/make_tiles.py                       # 8 JPEGs of 5472×3648, tiles of 512 with an overlap of 128, all of them kept
    python benchmarks/make_tiles.py --images 2 --repeat 1

Prints CPU seconds of both in one process and wall seconds with two workers, with their ratios, then the seconds of a second run, in the
process that trains, and of reading a tile. CPU seconds hardly change when others use the machine too; wall seconds do.
"""

import argparse
import io
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
WIDTH, HEIGHT, BOXES = 5472, 3648, 10


def generate(folder, count):
    """Pictures like dry grass with darker animals of 45 to 110 pixels, and their boxes as COCO."""
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(count):
        coarse = rng.normal(140, 25, (HEIGHT // 16, WIDTH // 16, 3)).clip(0, 255).astype(np.uint8)
        pixels = np.asarray(Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)).astype(np.int16)
        pixels += rng.integers(-8, 9, (HEIGHT, WIDTH, 1), dtype=np.int16)
        for _ in range(BOXES):
            w, h = rng.integers(45, 110, 2).tolist()
            x, y = int(rng.integers(0, WIDTH - w)), int(rng.integers(0, HEIGHT - h))
            pixels[y : y + h, x : x + w] -= 60
            annotations.append({"id": len(annotations) + 1, "image_id": number, "category_id": 1, "bbox": [x, y, w, h]})
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / "images" / f"{number}.jpg", quality=92)
        images.append({"id": number, "file_name": f"{number}.jpg", "width": WIDTH, "height": HEIGHT})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "elephant"}]}
    (folder / "boxes.json").write_text(json.dumps(content))


def bare(path):
    """Decode an image and encode its tiles: what nobody can avoid. The bytes go nowhere. → their number."""
    from chipping.tile_plan import tiles_of

    with Image.open(path) as image:
        pixels = np.asarray(image)
    size = 0
    for x0, y0, x1, y1 in tiles_of(WIDTH, HEIGHT, (512, 512), 128):
        buffer = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(pixels[y0:y1, x0:x1])).save(buffer, "PNG", compress_level=1)
        size += buffer.tell()
    return size


def seconds_of(work):
    """(CPU seconds of this process, wall seconds) of work()."""
    before, start = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - before, time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from chipping.box_labels import read_labels
    from chipping.tile_set import known_headers
    from chipping.tiles import make_tiles
    from detection.dataset import DetectionTiles

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        generate(folder, args.images)
        paths = sorted((folder / "images").iterdir())

        def bound(workers):
            if workers == 1:
                assert sum(map(bare, paths))
                return
            with ProcessPoolExecutor(workers) as pool:
                assert sum(pool.map(bare, paths))

        def build(workers):
            shutil.rmtree(folder / "tiles", ignore_errors=True)
            classes, images, _ = read_labels(folder / "images", folder / "boxes.json")
            make_tiles(folder / "tiles", folder / "images", classes, images, workers=workers)

        def again():
            classes, images, _ = read_labels(folder / "images", folder / "boxes.json", known=known_headers(folder / "tiles"))
            found.append(make_tiles(folder / "tiles", folder / "images", classes, images)[0])

        found = []
        for number, kind, workers in ((0, "CPU", 1), (1, "wall", args.workers)):
            times = [[seconds_of(lambda work=work, n=workers: work(n))[number] for work in (bound, build)] for _ in range(args.repeat)]
            one, other = map(min, zip(*times, strict=True))
            print(f"{kind} seconds, {workers} processes: decode + PNG {one:.2f}, make-tiles {other:.2f}, ratio {other / one:.2f}")
        print(f"a second run: {min(seconds_of(again)[1] for _ in range(5)):.3f} s for {len(found[0].tiles)} tiles")
        data = DetectionTiles(found[0])
        data.__getitems__([0])
        reads = [seconds_of(lambda n=n: data.__getitems__([n])) for n in range(0, len(data), max(1, len(data) // 50))]
        for number, kind in enumerate(("CPU", "wall")):
            print(f"a tile is read in {1000 * statistics.median(r[number] for r in reads):.1f} ms ({kind})")


if __name__ == "__main__":
    main()
