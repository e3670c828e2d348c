"""Annotations of boxes in every form become the same labels; what cannot be right is an error of one line before any pixel is read."""

import json

import numpy as np
import pytest
import shapely
from box_factory import picture, save_picture, write_coco, write_voc
from hypothesis import given
from hypothesis import strategies as st
from rasterio.transform import from_origin

from chipping.box_labels import read_labels
from chipping.box_splits import refuse_leaks, split_images
from chipping.coco_runs import rings_of_runs
from chipping.image_files import ImageReader
from chipping.label_names import parse_label_map
from raster.crs import transform_points
from runtime.errors import RunError, UserError


@pytest.fixture
def folder(tmp_path):
    """Two pictures of 100 × 80, a.jpg and b.png."""
    save_picture(tmp_path / "images/a.jpg", picture(100, 80))
    save_picture(tmp_path / "images/b.png", picture(100, 80))
    return tmp_path / "images"


def coco(folder, a=(), b=(), **more):
    return write_coco(folder.parent / "boxes.json", {"a.jpg": (100, 80, a), "b.png": (100, 80, b)}, **more)


def edited(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return path


# ------------------------------------------------------------------------------------------------ the forms


def test_the_same_boxes_in_coco_voc_and_csv_are_the_same_labels(folder):
    write_voc(folder.parent / "voc", "a", (100, 80), [("goat", 10, 20, 30, 50), ("sheep", 1, 2, 9, 8)])
    write_voc(folder.parent / "voc", "b", (100, 80), [])
    table = folder.parent / "boxes.csv"
    table.write_text("image_path,xmin,ymin,xmax,ymax,label\na.jpg,10,20,30,50,goat\na.jpg,1,2,9,8,sheep\nb.png,0,0,0,0,goat\n")
    as_coco = coco(folder, a=[(1, 10, 20, 20, 30), (2, 1, 2, 8, 6)], categories=((1, "goat"), (2, "sheep")))
    found = [read_labels(folder, annotations) for annotations in (as_coco, folder.parent / "voc", table)]
    for classes, images, counts in found:
        assert classes == ("goat", "sheep") and [image.name for image in images] == ["a.jpg", "b.png"]
        assert images[0].boxes.tolist() == [[10, 20, 30, 50], [1, 2, 9, 8]] and images[0].labels.tolist() == [1, 2]
        assert images[1].boxes.shape == (0, 4) and images[1].labels.shape == (0,) and images[1].labels.dtype == np.int64
        assert (counts.boxes, counts.empty_images, counts.by_class) == (2, 1, {"goat": 1, "sheep": 1})


def test_points_and_polygons_of_a_map_become_boxes_in_pixels(make_raster, tmp_path):
    """A point in lon/lat is a square around its pixel; a polygon is its extent; both are placed by pyproj, not by the code under test."""
    make_raster("images/a.tif", np.zeros((3, 60, 90), np.uint8), transform=from_origin(500_000, 4_600_000, 0.5, 0.5))
    make_raster("images/b.tif", np.zeros((3, 60, 90), np.uint8), transform=from_origin(510_000, 4_600_000, 0.5, 0.5))
    x, y = 500_000 + 0.5 * np.array([20.0, 50, 70]), 4_600_000 - 0.5 * np.array([30.0, 10, 25])
    lon, lat = transform_points("EPSG:32633", "EPSG:4326", x, y)
    square = [[lon[1], lat[1]], [lon[2], lat[1]], [lon[2], lat[2]], [lon[1], lat[2]], [lon[1], lat[1]]]
    features = [
        {"type": "Feature", "properties": {"label": "cow"}, "geometry": {"type": "Point", "coordinates": [lon[0], lat[0]]}},
        {"type": "Feature", "properties": {"label": "barn"}, "geometry": {"type": "Polygon", "coordinates": [square]}},
        {"type": "Feature", "properties": {"label": "cow"}, "geometry": {"type": "Point", "coordinates": [lon[0] + 0.05, lat[0]]}},
    ]
    path = tmp_path / "objects.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    said = []
    classes, images, _ = read_labels(tmp_path / "images", path, point_size="5m", note=said.append)
    assert classes == ("barn", "cow") and "1 of 3 features" in said[0]
    boxes = images[0].boxes[np.argsort(images[0].labels)]
    assert np.allclose(boxes, [[50, 10, 70, 25], [15, 25, 25, 35]], atol=0.02)  # 5 m are 10 pixels
    assert not len(images[1].boxes)
    in_pixels = read_labels(tmp_path / "images", path, point_size="4", note=said.append)[1]
    assert np.allclose(in_pixels[0].boxes[in_pixels[0].labels == 2], [[18, 28, 22, 32]], atol=0.02)


def test_a_geopackage_of_points_is_read_as_geojson_is(make_raster, tmp_path):
    import pyogrio

    make_raster("images/a.tif", np.zeros((3, 60, 90), np.uint8), transform=from_origin(500_000, 4_600_000, 1, 1))
    points = shapely.to_wkb(shapely.points([[500_010.0, 4_599_980.0], [500_040.0, 4_599_950.0]]))
    pyogrio.raw.write(tmp_path / "p.gpkg", points, [np.array(["oak", "fir"], object)], ["species"], geometry_type="Point", crs="EPSG:32633",
                      layer="trees", driver="GPKG")
    classes, images, _ = read_labels(tmp_path / "images", tmp_path / "p.gpkg", point_size="10px")
    assert classes == ("fir", "oak") and sorted(images[0].boxes.tolist()) == [[5, 15, 15, 25], [35, 45, 45, 55]]
    with pytest.raises(UserError, match="--point-size"):
        read_labels(tmp_path / "images", tmp_path / "p.gpkg")
    with pytest.raises(UserError, match="has no property 'specie'.*Did you mean 'species'"):
        read_labels(tmp_path / "images", tmp_path / "p.gpkg", point_size="10px", class_field="specie")
    with pytest.raises(UserError, match="no CRS"):
        save_picture(tmp_path / "flat/a.png", picture(20, 20))
        read_labels(tmp_path / "flat", tmp_path / "p.gpkg", point_size="10px")


def test_voc_files_belong_to_images_by_their_own_name(folder):
    """`filename` inside is often an older name, and without its prefix: livestock's 10020.jpg is part1_2_10020.jpg."""
    write_voc(folder, "a", (100, 80), [("x", 1, 1, 5, 5)], filename="b.png")
    assert read_labels(folder, folder)[1][0].name == "a.jpg"


def test_outlines_and_crowds_of_coco(folder):
    ring = [10, 10, 30, 10, 30, 40]
    crowd = {"category_id": 1, "bbox": [50, 50, 20, 20], "iscrowd": 1, "segmentation": {"counts": [1], "size": [80, 100]}}
    path = coco(folder, a=[{"category_id": 1, "bbox": [10, 10, 20, 30], "segmentation": [ring]}, crowd, (1, 60, 10, 9, 9)])
    image = read_labels(folder, path)[1][0]
    assert image.boxes.tolist() == [[10, 10, 30, 40], [60, 10, 69, 19]] and image.ignore.tolist() == [[50, 50, 70, 70]]
    assert image.masks[0][0].tolist() == [[10, 10], [30, 10], [30, 40]] and image.masks[1] is None
    assert read_labels(folder, path)[1][1].masks is None


@given(st.data())
def test_run_length_masks_are_the_pixels_that_pycocotools_sees(data):
    """Drawn pictures, packed by pycocotools and as plain lists; holes are filled, which they are in none of ours."""
    from pycocotools import mask as theirs
    from rasterio.features import rasterize

    height, width = data.draw(st.integers(2, 30)), data.draw(st.integers(2, 30))
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    w, h = data.draw(st.integers(1, width - x)), data.draw(st.integers(1, height - y))
    marked = np.zeros((height, width), np.uint8)
    rows, columns = np.mgrid[:height, :width]
    kind = data.draw(st.sampled_from(["box", "triangle", "two"]))
    marked[(rows >= y) & (rows < y + h) & (columns >= x) & (columns < x + w)] = 1
    if kind == "triangle":
        marked[(rows - y) * w + (columns - x) * h > w * h] = 0
    if kind == "two":
        marked[:, x + w // 2] = 0
    packed = theirs.encode(np.asfortranarray(marked))
    flat = marked.T.ravel()
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [1 - flat[-1]]])))
    plain = np.diff(np.concatenate([[0], edges]))
    for counts in (packed["counts"].decode(), plain.tolist()):
        rings = rings_of_runs({"size": [height, width], "counts": counts}, (x, y, w, h), "it")
        shapes = [{"type": "Polygon", "coordinates": [[*ring.tolist(), ring[0].tolist()]]} for ring in rings or ()]
        drawn = rasterize(shapes, (height, width), dtype=np.uint8) if shapes else np.zeros_like(marked)
        assert (drawn == marked).all()


# ------------------------------------------------------------------------------------------------ classes


@pytest.mark.parametrize("first", [0, 1, 7])
def test_category_ids_may_begin_anywhere_and_have_gaps(folder, first):
    path = coco(folder, a=[(first, 1, 1, 5, 5), (first + 90, 20, 1, 5, 5)], categories=((first + 90, "goat"), (first, "sheep")))
    classes, images, _ = read_labels(folder, path)
    assert classes == ("sheep", "goat") and images[0].labels.tolist() == [1, 2]


def test_ids_of_mixed_type_find_each_other(folder):
    path = coco(folder, a=[(1, 1, 1, 5, 5)], b=[(1, 1, 1, 6, 6)])

    def mix(content):
        content["annotations"][0].update(image_id="1", category_id="1")
        content["images"][1]["id"] = "2"

    images = read_labels(folder, edited(path, mix))[1]
    assert [len(image.boxes) for image in images] == [1, 1]


def test_a_label_map_renames_drops_and_ignores(folder):
    boxes = [(1, 1, 1, 5, 5), (2, 20, 1, 5, 5), (3, 40, 1, 5, 5), (4, 60, 1, 5, 5)]
    path = coco(folder, a=boxes, categories=((1, "Dead"), (2, "Alive"), (3, "unknown"), (4, "shrub")))
    classes, images, counts = read_labels(folder, path, label_map="unknown=drop,Dead=Tree,Alive=Tree,shrub=ignore")
    assert classes == ("Tree",) and images[0].labels.tolist() == [1, 1] and images[0].ignore.tolist() == [[60, 1, 65, 6]]
    assert counts.dropped == 1 and "1 dropped by --label-map" in counts.in_words()
    with pytest.raises(UserError, match="no class 'unknow'. Did you mean 'unknown'"):
        read_labels(folder, path, label_map="unknow=drop")


@pytest.mark.parametrize("text", ["a", "=b", "a=", "a=b,a=c", ","])
def test_a_label_map_that_says_nothing_is_an_error(text):
    with pytest.raises(UserError, match="--label-map"):
        parse_label_map(text)


def test_a_class_only_in_validation_is_an_error_whose_remedy_works(folder):
    path = coco(folder, a=[(1, 1, 1, 5, 5)], b=[(2, 1, 1, 6, 6)], categories=((1, "sheep"), (2, "goat")))
    with pytest.raises(UserError, match="class 'goat', which is none of sheep; pass --label-map goat=drop"):
        read_labels(folder, path, classes=("sheep",))
    assert read_labels(folder, path, classes=("sheep",), label_map="goat=drop")[2].boxes == 1
    assert read_labels(folder, path, classes=("goat", "sheep", "cow"))[1][0].labels.tolist() == [2]


# ------------------------------------------------------------------------------------------------ what is wrong in files


def test_boxes_are_clipped_and_left_out_and_counted(folder):
    boxes = [(1, -5, 70, 20, 30), (1, 10, 10, 0, 5), (1, 10, 10, -3, 5), (1, 200, 10, 5, 5), (1, 40, 40, 9, 9), (1, 40, 40, 9, 9)]
    _, images, counts = read_labels(folder, coco(folder, a=boxes))
    assert images[0].boxes.tolist() == [[0, 70, 15, 80], [40, 40, 49, 49]]
    assert (counts.clipped, counts.without_area, counts.outside, counts.duplicates) == (1, 2, 1, 1)
    assert counts.in_words() == ("2 images (1 without boxes), 2 boxes (sheep 2); 1 clipped at the border; 1 outside of their image "
                                 "left out; 2 without area left out; 1 there twice left out")


def test_two_classes_at_one_place_both_stay(folder):
    path = coco(folder, a=[(1, 40, 40, 9, 9), (2, 40, 40, 9, 9)], categories=((1, "sheep"), (2, "goat")))
    assert read_labels(folder, path)[2].boxes == 2


@given(st.lists(st.tuples(*[st.floats(-300, 300, width=32)] * 4), max_size=12))
def test_whatever_boxes_are_stated_those_that_stay_lie_in_the_image_and_all_are_counted(tmp_path_factory, boxes):
    folder = tmp_path_factory.mktemp("any")
    save_picture(folder / "images/a.png", picture(100, 80))
    path = write_coco(folder / "boxes.json", {"a.png": (100, 80, [(1, 10, 10, 5, 5), *((1, *box) for box in boxes)])})
    _, (image,), counts = read_labels(folder / "images", path)
    assert ((image.boxes >= 0) & (image.boxes <= (100, 80, 100, 80))).all() and (image.boxes[:, 2:] > image.boxes[:, :2]).all()
    assert counts.boxes + counts.outside + counts.without_area + counts.duplicates == len(boxes) + 1


BROKEN = [
    (lambda c: c["annotations"][0].update(image_id="DJI_7.jpg"), "name 1 image ids that no image has .DJI_7.jpg.; images have 1, 2"),
    (lambda c: c["annotations"][0].update(category_id=9), "has the category 9, which no category has; expected 1"),
    (lambda c: c["annotations"][0].update(bbox=[1, 2, 3]), r"has the bbox \[1, 2, 3\]; expected \[x, y, width, height\]"),
    (lambda c: c["annotations"][0].update(bbox=[1, 2, 3, "x"]), "has the bbox"),
    (lambda c: c["annotations"][0].update(bbox=[1, 2, 3, 1e300]), "has the bbox"),
    (lambda c: c["images"][0].update(file_name="../secret.jpg"), "outside of"),
    (lambda c: c["images"][0].update(file_name="/etc/passwd"), "outside of"),
    (lambda c: c["images"][0].update(file_name="c.jpg"), "1 of the 2 images .* not in .*c.jpg"),
    (lambda c: [row.update(file_name=f"x{row['id']}.jpg") for row in c["images"]], "none of the 2 images"),
    (lambda c: c["images"][1].update(file_name="a.jpg"), "twice"),
    (lambda c: c["images"][1].update(id=1), "the image id 1 twice"),
    (lambda c: c["images"][0].update(width=50, height=40), "states 50×40 pixels for a.jpg, which has 100×80"),
    (lambda c: c["images"][0].pop("id"), "lacks file_name or id"),
    (lambda c: c.update(categories=[]), "has the category 1"),
    (lambda c: c.pop("categories"), "lacks 'categories'"),
    (lambda c: c.update(images=[]), "lists no images"),
    (lambda c: c.update(annotations={"id": 1}), "annotations that are no list"),
    (lambda c: c.update(annotations=[]), "has no box of a class"),
    (lambda c: c["categories"].append({"id": 2, "name": "sheep"}), "twice"),
    (lambda c: c["categories"][0].update(name=" "), "has no class"),
    (lambda c: (c.clear(), c.update(a=1)), "expected a COCO JSON"),
    (lambda c: c["annotations"][0].update(segmentation=[[1, 2, 3]]), "segmentation"),
    (lambda c: c["annotations"][0].update(segmentation={"size": [80, 100], "counts": [5, 7]}), "run-length"),
    (lambda c: c["annotations"][0].update(segmentation={"size": [80, 100], "counts": "\x7f~"}), "run-length"),
    (lambda c: c["annotations"][0].update(segmentation={"counts": "1"}), "run-length"),
    (lambda c: c["annotations"].extend([{**c["annotations"][0], "bbox": [0.1, 0.1, 0.5, 0.4]}]) or c["annotations"].pop(0) and
     c["annotations"].append({**c["annotations"][0], "bbox": [0.2, 0.1, 0.5, 0.4]}), "go from 0 to 1"),
]


@pytest.mark.parametrize(("change", "words"), BROKEN)
def test_a_coco_file_that_cannot_be_right_is_an_error_of_one_line(folder, change, words):
    path = edited(coco(folder, a=[(1, 1, 1, 5, 5)]), change)
    with pytest.raises(UserError, match=words) as error:
        read_labels(folder, path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("content", "words"), [
    (b"", "not valid JSON"), (b"[1, 2]", "expected an object"), (b"{", "not valid JSON"), (b"[" * 100_000, "nested too deeply"),
    (b"\xff{}", "not valid"),
])
def test_a_json_file_that_is_broken_is_an_error(folder, content, words):
    path = folder.parent / "boxes.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=words):
        read_labels(folder, path)


def test_missing_files_are_errors(folder, tmp_path):
    for images, annotations, words in (
        (folder, tmp_path / "no.json", "do not exist|does not exist"), (tmp_path / "no", coco(folder), "does not exist"),
        (tmp_path, coco(folder), "none of the 2 images"), (folder, folder, "holds no .xml"), (folder, folder / "a.jpg", "in no form"),
    ):
        with pytest.raises(UserError, match=words):
            read_labels(images, annotations)


@pytest.mark.parametrize(("text", "words"), [
    ("a,b\n1,2\n", "without image, xmin"), ("image_path,xmin,ymin,xmax,ymax,label\n", "no row"),
    ("image_path,xmin,ymin,xmax,ymax,label\na.jpg,1,2,x,4,t\n", "line 2 has the corners"),
    ("image_path,xmin,ymin,xmax,ymax,label\na.jpg,1,2\n", "line 2 has 3 columns"),
    ("image_path,xmin,ymin,xmax,ymax,label\na.jpg,1,2,3,4,\n", "has no class"),
    ("image_path,xmin,ymin,xmax,ymax,label\n../a.jpg,1,2,3,4,t\n", "outside of"),
    ("image_path,xmin,ymin,xmax,ymax,label\na.jpg,1,2,nan,4,t\n", "corners"),
])
def test_a_table_that_cannot_be_right_is_an_error(folder, text, words):
    path = folder.parent / "boxes.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=words):
        read_labels(folder, path)


@pytest.mark.parametrize(("text", "words"), [
    ("<annotation>", "not XML"), ("<a/>", "no Pascal VOC"), ("<!DOCTYPE a [<!ENTITY x 'y'>]><annotation/>", "entities"),
    ("<annotation><object><name>t</name></object></annotation>", "object 1 lacks a number"),
    ("<annotation><object><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></object></annotation>", "has no class"),
])
def test_a_voc_file_that_cannot_be_right_is_an_error(folder, text, words):
    (folder / "a.xml").write_text(text)
    with pytest.raises(UserError, match=words):
        read_labels(folder, folder)


def test_an_image_that_cannot_be_opened_among_good_ones_is_left_out_and_named(folder):
    (folder / "b.png").write_bytes(b"")
    path, said = coco(folder, a=[(1, 1, 1, 5, 5)], b=[(1, 1, 1, 6, 6)]), []
    _, images, counts = read_labels(folder, path, note=said.append)
    assert [image.name for image in images] == ["a.jpg"] and list(counts.unreadable) == ["b.png"] and "b.png" in said[0]
    with pytest.raises(RunError, match="b.png .*--strict"):
        read_labels(folder, path, strict=True)
    (folder / "a.jpg").write_bytes(b"GIF89a")
    with pytest.raises(RunError, match="none of the images"):
        read_labels(folder, path)


def test_entities_do_not_hide_in_another_encoding(folder):
    (folder / "a.xml").write_bytes("<!DOCTYPE a [<!ENTITY x 'y'>]><annotation><filename>&x;</filename></annotation>".encode("utf-16"))
    with pytest.raises(UserError, match="entities"):
        read_labels(folder, folder)


def test_images_in_folders_of_one_name_are_told_apart(tmp_path):
    for place in ("north/a.png", "south/a.png"):
        save_picture(tmp_path / "images" / place, picture(30, 20, seed=len(place)))
    path = write_coco(tmp_path / "boxes.json", {"south/a.png": (30, 20, [(1, 1, 1, 5, 5)]), "north/./a.png": (30, 20, [])})
    found = [(image.name, len(image.boxes)) for image in read_labels(tmp_path / "images", path)[1]]
    assert found == [("north/a.png", 0), ("south/a.png", 1)]


def test_swapped_sizes_and_images_without_annotation_are_told(folder):
    write_voc(folder, "a", (80, 100), [("t", 90, 10, 99, 20)])
    said = []
    _, images, _ = read_labels(folder, folder, note=said.append)
    assert images[0].boxes.tolist() == [[90, 10, 99, 20]] and len(images) == 1
    assert any("swapped" in text for text in said) and any("1 image of" in text and "b.png" in text for text in said)


# ------------------------------------------------------------------------------------------------ EXIF


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_as_pillow_turns_it(tmp_path, orientation):
    from PIL import Image, ImageOps

    pixels = picture(64, 48, [(5, 5, 20, 10)])
    path = save_picture(tmp_path / "images/a.jpg", pixels, orientation, quality=95, subsampling=0)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    height, width = expected.shape[:2]
    coco = write_coco(tmp_path / "boxes.json", {"a.jpg": (width, height, [(1, 1, 1, 9, 9)])})
    image = read_labels(tmp_path / "images", coco)[1][0]
    assert (image.width, image.height, image.orientation) == (width, height, orientation)
    with ImageReader(image.path, image.header, None, image.orientation) as reader:
        found = reader.read(0, 0, width, height)
        part = reader.read(3, 7, 30, 40)
    assert np.abs(found.transpose(1, 2, 0).astype(int) - expected).max() <= 16  # two JPEG decoders
    assert (part == found[:, 7:40, 3:30]).all()


def test_a_rotation_that_the_annotations_do_not_follow_is_told(tmp_path):
    save_picture(tmp_path / "images/a.jpg", picture(64, 48), 6)
    said = []
    coco = write_coco(tmp_path / "boxes.json", {"a.jpg": (64, 48, [(1, 1, 1, 9, 9)])})
    image = read_labels(tmp_path / "images", coco, note=said.append)[1][0]
    assert (image.width, image.height, image.orientation) == (64, 48, 1) and "read as stored" in said[0]


# ------------------------------------------------------------------------------------------------ splits


def test_images_are_split_whole_by_the_seed(folder):
    for name in "cdefgh":
        save_picture(folder / f"{name}.jpg", picture(30, 30, seed=ord(name)))
    sizes = {"a.jpg": (100, 80), **{f"{n}.jpg": (30, 30) for n in "cdefgh"}}
    path = write_coco(folder.parent / "boxes.json", {name: (*size, [(1, 1, 1, 5, 5)]) for name, size in sizes.items()})
    images = read_labels(folder, path)[1]
    splits = [split_images(images, val="0.3", seed=seed) for seed in range(4)]
    parts = [tuple(image.name for image in split["val"]) for split in splits]
    assert all(len(part) == 2 for part in parts) and len(set(parts)) > 1
    assert parts[0] == tuple(image.name for image in split_images(images[::-1], val="0.3", seed=0)["val"][::-1])
    assert [image.name for image in split_images(images, val="c,d")["val"]] == ["c.jpg", "d.jpg"]
    with pytest.raises(UserError, match="--val 'cc' matches no scene"):
        split_images(images, val="cc")


def test_one_file_under_two_names_stays_in_one_split_and_is_refused_in_two(folder):
    import shutil

    for name in ("c.jpg", "d.jpg"):
        save_picture(folder / name, picture(30, 30, seed=ord(name[0])))
    shutil.copy(folder / "c.jpg", folder / "z.jpg")
    path = write_coco(folder.parent / "boxes.json", {n: (30, 30, [(1, 1, 1, 5, 5)]) for n in ("c.jpg", "d.jpg", "z.jpg")})
    images = read_labels(folder, path)[1]
    for seed in range(5):
        split = split_images(images, val="0.4", seed=seed)
        assert {"c.jpg", "z.jpg"} in ({image.name for image in part} & {"c.jpg", "z.jpg"} for part in split.values())
    with pytest.raises(UserError, match="c.jpg .train. and z.jpg .val. are one file.*--allow-overlap"):
        refuse_leaks({"train": images[:2], "val": images[2:]})
    said = []
    refuse_leaks({"train": images[:2], "val": images[2:]}, allow=True, note=said.append)
    assert "will flatter" in said[0]


def test_images_that_share_ground_are_refused_in_two_sets(make_raster, tmp_path):
    rng = np.random.default_rng(0)
    for name, east in (("a", 500_000), ("b", 500_040), ("c", 500_100)):
        make_raster(f"images/{name}.tif", rng.integers(0, 255, (3, 50, 50), dtype=np.uint8), transform=from_origin(east, 4_600_000, 1, 1))
    path = write_coco(tmp_path / "boxes.json", {f"{n}.tif": (50, 50, [(1, 1, 1, 5, 5)]) for n in "abc"})
    a, b, c = read_labels(tmp_path / "images", path)[1]
    refuse_leaks({"train": [a], "val": [c]})
    with pytest.raises(UserError, match="share ground"):
        refuse_leaks({"train": [a, c], "val": [b]})
    assert [i.name for i in split_images([a, b, c], val="0.3")["val"]] == ["c.tif"]


def test_the_real_trees_and_livestock_are_read(real_data):
    classes, images, counts = read_labels(real_data / "trees", real_data / "trees", label_map="Dead=Tree,Alive=Tree")
    assert classes == ("Tree",) and [len(image.boxes) for image in images] == [279, 61, 37]
    classes, images, counts = read_labels(real_data / "livestock", real_data / "livestock", label_map="unknown=drop")
    assert counts.by_class == {"sheep": 48, "yak": 144} and counts.dropped == 520
