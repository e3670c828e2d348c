"""
What detections of an image are written as: features on the map, results in pixels.

    with BOX_WRITERS["geojson"](path, globe, class_names) as file:
        file.add_boxes(found)            # Found; as often as needed

GeoJSON is in lon/lat (RFC 7946), a GeoPackage in the CRS of the image. Results are COCO's, a line of JSON each.
"""

import json
from dataclasses import dataclass

import numpy as np
import shapely

from runtime.files import atomic_path
from vectors.longitudes import moved_east
from vectors.writing import GeoJSONOutlines, GeoPackageOutlines

COLUMNS = {"class": (np.int32, 0), "name": (object, ""), "score": (np.float64, 0.0)}  # of a GeoPackage, see vectors.writing
EAST, WORLD = shapely.box(180, -90, 540, 90), shapely.box(-180, -90, 180, 90)


@dataclass(frozen=True)
class Found:
    """
    Detections of an image that are settled.

    boxes: (N, 4) float64 x0, y0, x1, y1 in pixels. scores: (N,). labels: (N,) 1 … K. outlines: for each an (M, 2) array of corners x, y in
    pixels, or None.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    outlines: list

    def rings(self):
        """[(M, 2)] corners of the outlines, or of the boxes where there is none."""
        x0, y0, x1, y1 = self.boxes.T
        boxes = np.stack([x0, y0, x1, y0, x1, y1, x0, y1], axis=1).reshape(-1, 4, 2)
        return [box if ring is None else ring.astype(np.float64) for box, ring in zip(boxes, self.outlines, strict=True)]

    def properties(self, class_names):
        """[{"class", "name", "score"}]."""
        return [{"class": int(label), "name": class_names[label - 1], "score": round(float(score), 4)}
                for label, score in zip(self.labels, self.scores, strict=True)]


class GeoJSONBoxes(GeoJSONOutlines):
    """Boxes as polygons in lon/lat; one across the antimeridian is a polygon on either side."""

    def add_boxes(self, found):
        rings = found.rings()
        if not rings:
            return
        lon, lat = self.globe.lonlat(*np.concatenate(rings).T)
        places = np.split(np.stack([lon, lat], axis=1), np.cumsum([len(ring) for ring in rings])[:-1])
        for ring, properties in zip(places, found.properties(self.class_names), strict=True):
            feature = {"type": "Feature", "properties": properties, "geometry": lonlat_geometry(ring)}
            self.file.write((",\n" if self.count else "\n") + json.dumps(feature, ensure_ascii=False))
            self.count += 1


class GeoPackageBoxes(GeoPackageOutlines):
    """Boxes as the layer `boxes` of a GeoPackage."""

    layer = "boxes"
    columns = COLUMNS

    def add_boxes(self, found):
        a, b, c, d, e, f = tuple(self.globe.transform)[:6]
        for ring, properties in zip(found.rings(), found.properties(self.class_names), strict=True):
            x, y = ring.T
            place = np.stack([a * x + b * y + c, d * x + e * y + f], axis=1)
            self.put(shapely.to_wkb(shapely.orient_polygons(shapely.Polygon(place))), properties)


BOX_WRITERS = {"geojson": GeoJSONBoxes, "gpkg": GeoPackageBoxes}


def lonlat_geometry(ring):
    """The GeoJSON geometry of a ring (M, 2) lon, lat that is smaller than half the globe."""
    ring = ring.copy()
    ring[:, 0] -= 360 * np.round((ring[:, 0] - ring[0, 0]) / 360)
    if ring[:, 0].min() < -180:
        ring[:, 0] += 360
    if ring[:, 0].max() <= 180:
        return {"type": "Polygon", "coordinates": [closed(ring)]}
    shape = shapely.make_valid(shapely.Polygon(ring))
    parts = [part for side in (shape & WORLD, moved_east(shape & EAST, -360.0)) for part in shapely.get_parts(side)]
    rings = [shapely.get_coordinates(part.exterior) for part in parts if part.geom_type == "Polygon"]
    return {"type": "MultiPolygon", "coordinates": [[closed(one)] for one in rings]}


def closed(ring):
    """[[lon, lat]] of an outer ring by the right-hand rule of RFC 7946, the first point repeated."""
    return np.round(shapely.get_coordinates(shapely.orient_polygons(shapely.Polygon(ring)).exterior), 7).tolist()


class ResultLines:
    """
    Detections of an image as COCO results, a line of JSON each: file_name, category_id, bbox [x, y, width, height] in pixels, score; with
    an outline also segmentation. image_id is left to who puts the images together (see write_results).
    """

    def __init__(self, path, name):
        self.path, self.name = path, name

    def __enter__(self):
        self.temporary = atomic_path(self.path)
        self.file = open(self.temporary.__enter__(), "w", encoding="utf-8", newline="\n")
        return self

    def add_boxes(self, found):
        sides = np.concatenate([found.boxes[:, :2], found.boxes[:, 2:] - found.boxes[:, :2]], axis=1).round(2).tolist()
        for box, score, label, ring in zip(sides, found.scores.tolist(), found.labels.tolist(), found.outlines, strict=True):
            line = {"file_name": self.name, "category_id": label, "bbox": box, "score": round(score, 5)}
            if ring is not None:
                line["segmentation"] = [ring.ravel().tolist()]
            self.file.write(json.dumps(line, ensure_ascii=False) + "\n")

    def __exit__(self, *error):
        self.file.close()
        return self.temporary.__exit__(*error)


def write_results(path, parts):
    """One list of COCO results of all images. parts: [(image_id, path of its ResultLines)]; a line at a time is in memory."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as file:
        separator = "["
        for image_id, part in parts:
            with open(part, encoding="utf-8") as lines:
                for line in lines:
                    file.write(f'{separator}\n{{"image_id": {image_id}, {line.rstrip()[1:]}')
                    separator = ","
        file.write("[]\n" if separator == "[" else "\n]\n")
