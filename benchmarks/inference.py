"""
inference.py against the bare forward passes of the same windows: unet on resnet34, 7 bands, CPU.

    python benchmarks/inference.py

One scene on disk (uint16, tiled, deflate) is mapped whole: reading, predicting, blending, writing, polygons, preview. The bare passes run
the same network on as many ready-made batches. The goal is a ratio of at most 1.10.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]


def main(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=2048, help="pixels of the scene")
    parser.add_argument("--window", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=1)
    args = parser.parse_args(argv)

    import torch

    from constants import CEMS_BANDS
    from mapping.inputs import plan_input
    from mapping.map_files import MapFiles
    from mapping.scene import map_scene, window_grids
    from mapping.segmentation import Predictor
    from mapping.settings import MapSettings, ModelFacts
    from model import create_segmentation_model
    from raster.source import describe
    from runtime.device import Compute
    from runtime.memory import keep_freed_memory

    keep_freed_memory()  # as the programs do
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = create_segmentation_model(2, encoder_weights=None, mean=[0.15] * 7, std=[0.1] * 7).eval()
    data = {"bands": list(CEMS_BANDS), "divide_by": [1e4] * 7, "offset": [0.0] * 7, "nodata": None, "classes": ["background", "fire"]}
    facts = ModelFacts(bands=tuple(data["bands"]), classes=tuple(data["classes"]), weights="benchmark")
    settings = MapSettings(window=args.window, probabilities="uint8")

    with tempfile.TemporaryDirectory() as folder:
        scene = write_scene(Path(folder) / "scene.tif", args.side)
        plan = plan_input(describe(scene), data, mean=model.config.mean)
        predictor = Predictor(model, 2, plan.scale, Compute(device=torch.device("cpu")), batch_size=args.batch_size)
        (grid,) = window_grids(plan.info, settings)
        # The windows of one row make up batches; so do those of the bare passes.
        in_row = len(grid.columns)
        batches = [min(args.batch_size, in_row - n) for n in range(0, in_row, args.batch_size)] * len(grid.rows)

        def mapped(number):
            map_scene(predictor, plan, MapFiles(Path(folder) / str(number), "scene"), facts, settings)

        def bare():
            ready = torch.rand(args.batch_size, 7, args.window, args.window)
            with torch.inference_mode():
                for size in batches:
                    model(ready[:size])

        Path(folder, "warm").mkdir()
        bare()
        results = {"bare": [], "map": []}
        for number in range(args.rounds):
            Path(folder, str(number)).mkdir()
            for what, work in (("bare", bare), ("map", lambda number=number: mapped(number))):
                start, cpu = time.perf_counter(), time.process_time()
                work()
                results[what].append((time.perf_counter() - start, time.process_time() - cpu))
    print(f"{args.side} x {args.side}, {grid.count} windows of {args.window}, {torch.get_num_threads()} threads")
    best = {what: tuple(min(values) for values in zip(*times, strict=True)) for what, times in results.items()}
    for what, (wall, cpu) in best.items():
        print(f"  {what:5} {wall:7.2f} s wall {cpu:7.2f} s CPU   {args.side**2 / wall / 1e6:.3f} Mpx/s")
    print(f"  ratio {best['map'][0] / best['bare'][0]:7.3f}        {best['map'][1] / best['bare'][1]:7.3f}")


def write_scene(path, side):
    import numpy as np
    import rasterio
    from rasterio.transform import from_origin

    rng = np.random.default_rng(0)
    with rasterio.open(
        path, "w", driver="GTiff", width=side, height=side, count=7, dtype="uint16", crs="EPSG:32633", tiled=True, compress="deflate",
        transform=from_origin(5e5, 5e6, 10, 10), blockxsize=512, blockysize=512, predictor=2,
    ) as dataset:
        coarse = rng.integers(300, 4000, (7, side // 16 + 1, side // 16 + 1))
        pixels = np.kron(coarse, np.ones((16, 16)))[:, :side, :side] + rng.integers(-100, 100, (7, side, side))
        dataset.write(pixels.clip(1, 10_000).astype(np.uint16))
    return str(path)


if __name__ == "__main__":
    main(sys.argv[1:])
