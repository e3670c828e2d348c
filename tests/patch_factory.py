"""Small patch sets for tests, written straight in the format that chip.py make-patches writes, with burns that can be learned."""

import json

import numpy as np

from constants import CEMS_BANDS, get_class_names


def burn_image(random, bands, size, mask):
    """Reflectance (C, H, W): near infrared high where it lives, short-wave infrared high where it burned."""
    image = np.full((len(bands), size, size), 0.10)
    for i, band in enumerate(bands):
        if band in ("B08", "B8", "B8A"):
            image[i] = np.where(mask > 0, 0.12, 0.35)
        if band in ("B11", "B12"):
            image[i] = np.where(mask > 0, 0.30, 0.15)
    return image + random.normal(0, 0.01, image.shape)


def write_patch_set(folder, counts=None, size=64, bands=CEMS_BANDS, num_classes=2, layers=None, divide_by=10_000.0, offset=0.0,
                    dtype="uint16", seed=0, grid=(2, 1), overlap=0):
    """
    A patch set of scenes of `grid` = (columns, rows) patches. counts: {split: scenes}. → folder.

    layers: {name: number of classes}; the default is one layer called mask with num_classes. Ten rows of every patch are ignored.
    """
    counts = counts or {"train": 4, "val": 2, "test": 2}
    layers = layers or {"mask": num_classes}
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for split, scenes in counts.items():
        (folder / split).mkdir(exist_ok=True)
        for s in range(scenes):
            scene = f"{split.upper()}{s}"
            columns, rows = grid
            step = size - overlap
            wide, high = (columns - 1) * step + size, (rows - 1) * step + size
            y, x = np.mgrid[:high, :wide]
            centre = random.uniform(0.3, 0.7, 2)
            distance = np.hypot(y / high - centre[0], x / wide - centre[1])
            burned = distance < 0.33
            masks = []
            for count in layers.values():
                severity = np.clip(count - 1 - (distance / 0.33 * (count - 1)).astype(int), 1, count - 1)
                mask = np.where(burned, severity, 0).astype(np.uint8)
                mask[:10] = 255
                masks.append(mask)
            masks = np.stack(masks)
            reflectance = np.stack([burn_image(random, bands, max(high, wide), np.zeros(1))])[0][:, :high, :wide]
            for i, band in enumerate(bands):
                if band in ("B08", "B8", "B8A"):
                    reflectance[i] -= 0.23 * burned
                if band in ("B11", "B12"):
                    reflectance[i] += 0.15 * burned
            stored = reflectance * divide_by - offset
            stored = np.clip(np.rint(stored), 1, 65535).astype(dtype) if np.dtype(dtype).kind in "iu" else stored.astype(dtype)
            for r in range(rows):
                for c in range(columns):
                    row, column = r * step, c * step
                    part = (slice(None), slice(row, row + size), slice(column, column + size))
                    image, mask = np.ascontiguousarray(stored[part]), np.ascontiguousarray(masks[part])
                    stem = f"{split}/{scene}_r{row}_c{column}"
                    np.save(folder / f"{stem}_image.npy", image)
                    np.save(folder / f"{stem}_mask.npy", mask)
                    valid = mask[0] != 255
                    values = image[:, valid].astype(np.float64)
                    pixels = {n: np.bincount(m[m != 255], minlength=k).tolist() for (n, k), m in zip(layers.items(), mask, strict=True)}
                    lines.append({
                        "file": f"{stem}_image.npy", "mask": f"{stem}_mask.npy", "split": split, "scene": scene, "event": scene,
                        "source": {"path": f"{scene}.tif", "size": 1, "mtime": 0}, "window": [column, row, size, size],
                        "scene_size": [wide, high], "crs": "EPSG:32633", "transform": [10, 0, 0, 0, -10, 0], "footprint": None,
                        "valid_fraction": float(valid.mean()), "layers": list(layers),
                        "class_pixels": pixels,
                        "cloud_cover": None, "dtype": str(image.dtype), "band_sum": values.sum(1).tolist(),
                        "band_sum_squares": (values**2).sum(1).tolist(), "valid_pixels": int(valid.sum()),
                    })
    description = {
        "format": "chipmill-chipset-1", "kind": "patches", "version": "0.1.0", "settings": {}, "settings_hash": "0" * 16, "chip_size": size,
        "bands": list(bands), "divide_by": [divide_by] * len(bands), "offset": [offset] * len(bands), "nodata": 0, "layers": list(layers),
        "classes": {name: list(get_class_names(count)) for name, count in layers.items()}, "ignore": 255, "sampler": "grid", "seed": seed,
    }
    (folder / "chipset.json").write_text(json.dumps(description))
    write_manifest(folder, lines)
    return folder


def write_manifest(folder, lines):
    (folder / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def read_lines(folder):
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def of_values(folder, name="biomass"):
    """Turn a patch set of this file into one of a regression: the values follow the near infrared; ten rows are NaN. → folder."""
    lines = read_lines(folder)
    for line in lines:
        image = np.load(folder / line["file"]).astype(np.float32)
        values = image[3:4] / 100 + 20
        values[:, :10] = np.nan
        np.save(folder / line["mask"], values)
        known = values[np.isfinite(values)].astype(np.float64)
        line["class_pixels"] = {"mask": [known.size]}
        line["target_sums"] = {"mask": [known.sum(), (known**2).sum(), known.min(), known.max()]}
    return rewrite(folder, lines, task="regression", classes={"mask": [name]})


def of_labels(folder, task="classification", names=("forest", "water")):
    """
    Turn a patch set of this file into one of labels: every second scene is darker in the near infrared, and is water; of several labels all
    patches are forest too. → folder.
    """
    lines = read_lines(folder)
    for line in lines:
        wet = int(line["scene"][-1]) % 2
        image = np.load(folder / line["file"])
        if wet:
            image[3] //= 4
            np.save(folder / line["file"], image)
        (folder / line.pop("mask")).unlink()
        line["layers"], line["class_pixels"] = ["label"], {"label": [1 if task == "multilabel" else 1 - wet, wet]}
    return rewrite(folder, lines, task=task, layers=["label"], classes={"label": list(names)})


def rewrite(folder, lines, **changes):
    description = json.loads((folder / "chipset.json").read_text())
    (folder / "chipset.json").write_text(json.dumps(description | changes))
    write_manifest(folder, lines)
    return folder
