"""
Scores of detections against faster-coco-eval alone, on 500 images of 100 detections and on one image of 6 000.

    python benchmarks/score_boxes.py

"alone" is loading, evaluate() and accumulate() of what is there as COCO dicts. The goal is 1.2 times that for the average precision of what
a detector gives, and 6 s for one image with 6 000 × 6 000 boxes. The time of all scores is told too.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]


def draw(images, count, spread):
    """(truths, detections) of images: each object found, a little beside where it is."""
    import numpy as np

    rng, truths, detections = np.random.default_rng(0), [], []
    for _ in range(images):
        centres, sides = rng.random((count, 2)) * spread, rng.uniform(10, 60, (count, 2))
        boxes = np.concatenate([centres - sides / 2, centres + sides / 2], axis=1)
        truths.append({"boxes": boxes, "labels": np.ones(count, np.int64), "ignore": np.zeros((0, 4))})
        moved = boxes + rng.normal(0, 2, boxes.shape)
        detections.append({"boxes": moved, "scores": rng.random(count), "labels": np.ones(count, np.int64)})
    return truths, detections


def alone(truths, detections):
    """(average precision, seconds of CPU) of faster-coco-eval."""
    from faster_coco_eval import COCO, COCOeval_faster

    def each(parts):
        for image, part in enumerate(parts):
            for number, (x0, y0, x1, y1) in enumerate(part["boxes"].tolist()):
                yield image, number, part, {"image_id": image, "category_id": 1, "bbox": [x0, y0, x1 - x0, y1 - y0]}

    known = [{**a, "id": i, "area": a["bbox"][2] * a["bbox"][3], "iscrowd": 0} for i, (*_, a) in enumerate(each(truths), start=1)]
    results = [{**a, "score": float(part["scores"][number])} for _, number, part, a in each(detections)]
    content = {"images": [{"id": i} for i in range(len(truths))], "categories": [{"id": 1, "name": "object"}], "annotations": known}
    start = time.process_time()
    truth = COCO(content)
    evaluation = COCOeval_faster(truth, truth.loadRes(results), "bbox")
    evaluation.params.maxDets = [len(known)]
    evaluation.evaluate()
    evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, 0, 0, 0]
    return float(precision[precision > -1].mean()), time.process_time() - start


def main(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args(argv)

    from detection.metrics import average_precision, gather, pairs_with, score_images

    def precision_only(truths, detections):
        objects, regions, found = gather(truths, detections)
        return average_precision(objects, regions, found, pairs_with(found, objects, regions), ("object",))["map"]

    score_images(*draw(1, 5, 100), ("object",))
    for images, count, spread in ((500, 100, 1000), (1, 6000, 5000)):
        truths, detections = draw(images, count, spread)
        start = time.process_time()
        ours = precision_only(truths, detections)
        seconds, start = time.process_time() - start, time.process_time()
        score_images(truths, detections, ("object",))
        whole = time.process_time() - start
        theirs, bare = alone(truths, detections)
        print(f"{images} images × {count} detections: {seconds:.2f} s of CPU, faster-coco-eval alone {bare:.2f} s: {seconds / bare:.2f} ×; "
              f"all scores {whole:.2f} s; mAP {ours:.6f} and {theirs:.6f}")


if __name__ == "__main__":
    main(sys.argv[1:])
