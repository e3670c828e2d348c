"""The metadata beside an .onnx, against the schema of the STAC extension and the values that it has to state: tests/stac_schemas."""

import json
from pathlib import Path

import jsonschema
import pytest
import torch
from map_factory import BANDS, tiny_model, write_checkpoint
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT7

from classes import ClassSet, class_objects
from detection.detectors import Detector, DetectorConfig
from detection.small_detectors import SmallConfig, SmallDetector
from exporting.exportable import exportable_of
from exporting.mlm_item import model_name, stac_item, value_scaling
from model import create_segmentation_model
from pansharpening.network import Pansharpener, PansharpenerConfig

SCHEMAS = Path(__file__).resolve().parent / "stac_schemas"
CLASSIFICATION_1 = "https://stac-extensions.github.io/classification/v1.1.0/schema.json"  # what the MLM schema refers to


def schema(name):
    return json.loads((SCHEMAS / f"{name}.json").read_text(encoding="utf-8"))


def validator_with(classification):
    """The MLM schema's validator, with what stands for the version of classification that it refers to."""
    found = [schema(name) for name in ("processing-v1.1.0", "raster-v1.1.0")]
    registry = Registry().with_resources([
        *((one["$id"].rstrip("#"), Resource.from_contents(one, DRAFT7)) for one in found),
        (CLASSIFICATION_1, Resource.from_contents({**classification, "$id": CLASSIFICATION_1}, DRAFT7))])
    return jsonschema.Draft7Validator(schema("mlm-v1.4.0"), registry=registry)


# What 1.1.0 asks of classes, of which this folder has no copy: a value and a description; a name is left to who writes it.
ASKED_BY_1_1 = {"definitions": {"fields": {"properties": {"classification:classes": {
    "type": "array", "uniqueItems": True, "minItems": 1, "items": {"type": "object", "required": ["value", "description"], "properties": {
        "value": {"type": "integer"}, "description": {"type": "string"}, "name": {"type": "string"},
        "color_hint": {"type": "string", "pattern": "^([0-9A-Fa-f]{6})$"}}}}}}}}


@pytest.fixture(scope="module", params=["1.1.0", "2.0.0"])
def validator(request):
    return validator_with(ASKED_BY_1_1 if request.param == "1.1.0" else schema("classification-v2.0.0"))


def as_loaded(kind, network, **data):
    """What load_checkpoint gives, of a network with random weights."""
    config = network.config
    model = config.to_dict() if hasattr(config, "to_dict") else {**vars(config), "bands": list(config.bands)}
    return {"kind": kind, "model": model, "state": {"model": network.state_dict()}, "path": "last.pt", "data": {
        "bands": BANDS, "divide_by": [10_000.0] * 3, "offset": [0.0] * 3, "classes": ["background", "fire"], "chip_size": 32, **data}}


def of_task(task, outputs, classes, **more):
    torch.manual_seed(0)
    network = create_segmentation_model(outputs, architecture="smallunet", bands=BANDS, task=task, **more)
    return as_loaded(task, network, classes=classes, threshold=0.4 if task == "segmentation" else None)


def centre():
    return as_loaded("detection", Detector(DetectorConfig(classes=("elephant", "grey seal"))), chip_size=[64, 48], divide_by=255.0,
                     offset=0.0, classes=["elephant", "grey seal"], max_detections=20, iou_threshold=0.5)


CASES = {
    "segmentation": lambda: of_task("segmentation", 2, ["background", "open water"]),
    "regression": lambda: of_task("regression", 1, ["biomass"]),
    "multilabel": lambda: of_task("multilabel", 3, ["a", "b", "c"]),
    "sharpening": lambda: as_loaded("pansharpen", Pansharpener(PansharpenerConfig(bands=("blue", "green", "red"))), classes=[],
                                    divide_by=2047.0, offset=0.0),
    "centre": centre,
    "tiny": lambda: as_loaded("small-detection", SmallDetector(SmallConfig(model="tiny", target_size=(96, 64))), classes=["object"]),
}


@pytest.fixture(params=CASES)
def exportable(request):
    return exportable_of(CASES[request.param]())


@pytest.fixture
def item(exportable, tmp_path):
    (tmp_path / "best_model.onnx").write_bytes(b"as if")
    return json.loads(json.dumps(stac_item(exportable, tmp_path / "best_model.onnx")))


def test_the_item_is_what_the_extension_demands(item, validator):
    validator.validate(item)
    for field in ("mlm:name", "mlm:input", "mlm:tasks"):  # the schema notices what is missing
        lacking = {**item, "properties": {k: v for k, v in item["properties"].items() if k != field}}
        assert not validator.is_valid(lacking), field
    (model,) = item["assets"].values()
    assert not validator.is_valid({**item, "assets": {"model": {k: v for k, v in model.items() if k != "mlm:artifact_type"}}})
    # sha256sum of the five bytes, in STAC's file extension
    assert model["file:size"] == 5 and model["file:checksum"] == (
        "1220" + "f6595ed4e298322c81a54361ef32256c9c847c910b3061496112946d73d08939")


@pytest.mark.parametrize(("version", "field"), [("1.1.0", "description"), ("2.0.0", "name")])
def test_classes_have_what_either_version_of_classification_asks_for(version, field, tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"as if")
    item = json.loads(json.dumps(stac_item(exportable_of(of_task("segmentation", 2, ["background", "open water"])), tmp_path / "a.onnx")))
    validator = validator_with(ASKED_BY_1_1 if version == "1.1.0" else schema("classification-v2.0.0"))
    validator.validate(item)
    for one in item["properties"]["mlm:output"][0]["classification:classes"]:
        one.pop(field)
    assert not validator.is_valid(item)
    # As in the extension's own examples, classification is not named beside it: the MLM schema itself asks for its classes.
    assert not any("classification" in address for address in item["stac_extensions"])


def test_shapes_bands_and_classes_are_those_of_the_network(exportable, item):
    described = item["properties"]
    batch = 2
    inputs = exportable.draw(batch, exportable.sizes[0], torch.Generator())
    with torch.no_grad():
        outputs = exportable.module(*inputs)
    for tensors, ports, key in ((inputs, described["mlm:input"], "input"), (outputs, described["mlm:output"], "result")):
        assert len(tensors) == len(ports)
        for tensor, port in zip(tensors, ports, strict=True):
            shape = port[key]["shape"]
            assert shape[0] == -1 and len(port[key]["dim_order"]) == len(shape) == tensor.ndim
            free = ("batch", "height", "width") if exportable.task == "super-resolution" else ("batch",)
            assert shape == [-1 if name in free else there for name, there in zip(port[key]["dim_order"], tensor.shape, strict=True)]
            assert port[key]["data_type"] == str(tensor.dtype).removeprefix("torch.")
        if key == "input":
            assert [len(port["bands"]) for port in ports] == [tensor.shape[1] for tensor in tensors]
    named = [name for port in described["mlm:input"] for name in port["bands"]]
    assert [band["name"] for band in described["bands"]] == named
    classes = [c for output in described["mlm:output"] for c in output["classification:classes"]]
    assert all(c["description"] and c["name"] for c in classes)
    if exportable.task == "object-detection":
        assert [c["value"] for c in classes] == list(range(1, len(exportable.words) + 1))
    elif exportable.task in ("semantic-segmentation", "scene-classification"):
        assert [c["description"] for c in classes] == exportable.facts["data"]["classes"]


def test_stored_values_become_reflectance_by_what_the_item_says():
    for scale, count in (((10_000.0, -1000.0), 1), (([255.0, 10_000.0], [0.0, -1000.0]), 2), (([255.0] * 2, [0.0] * 2), 1), (None, 1)):
        found = value_scaling(("a", "b"), scale)
        assert len(found) == count
        divide_by, offset = scale or (255.0, 0.0)
        for i, one in enumerate(found):
            d, o = (part[i] if isinstance(part, list) else part for part in (divide_by, offset))
            value = 1234.0
            assert (value - one["minimum"]) / (one["maximum"] - one["minimum"]) == pytest.approx((value + o) / d)


def test_names_are_made_fit_for_the_extension():
    assert model_name("my_model.py:build_model") == "Chipmill my_model.py build_model" and model_name("…") == "Chipmill network"
    assert [c["name"] for c in class_objects(ClassSet(("Open water", "Mühle", "", "Open_water")))] == [
        "Open_water", "M_hle", "class_2", "Open_water_3"]


def test_classes_have_the_colours_of_their_run_and_detectors_the_score_from_which_they_count(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"as if")
    own = of_task("segmentation", 2, ["background", "fire"])
    own["data"]["class_colours"] = {"fire": "#1f77b4"}
    (output,) = stac_item(exportable_of(own), tmp_path / "a.onnx")["properties"]["mlm:output"]
    assert [c["color_hint"] for c in output["classification:classes"]][1] == "1F77B4"
    for told, expected in (({}, 0.3), ({"stated_threshold": 0.6}, 0.6), ({"threshold": 0.7, "stated_threshold": 0.6}, 0.7)):
        detector = centre()
        detector["data"] |= told
        item = stac_item(exportable_of(detector), tmp_path / "a.onnx")
        assert item["properties"]["mlm:hyperparameters"]["threshold"] == expected


def test_no_folder_of_the_training_machine_leaves(tmp_path):
    path = write_checkpoint(tmp_path / "last.pt", tiny_model(), patches_dir="/home/somebody/patches")
    from runtime.checkpoint import load_checkpoint

    facts = json.dumps(exportable_of(load_checkpoint(path)).facts)
    assert "somebody" not in facts and str(tmp_path) not in facts
