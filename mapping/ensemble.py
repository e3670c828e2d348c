"""Several networks that map together: the mean of their probabilities, how far they are apart, and what all or any of them map."""

import torch

from mapping.summary import hectares
from runtime.errors import UserError

LIKE = ("bands", "classes")  # what the data of all checkpoints of an ensemble have to say alike


class EnsemblePredictor:
    """
    Predictors of several networks that are run as one; their probabilities, (B, members · classes, H, W), are blended side by side and put
    together by mapping.blending.together when a row is finished.
    """

    def __init__(self, predictors):
        self.predictors, self.members = predictors, len(predictors)
        first = predictors[0]
        self.device, self.batch_size, self.task, self.reflectance = first.device, first.batch_size, first.task, first.reflectance
        self.num_classes = self.members * first.num_classes

    def probabilities(self, x, row=None, columns=()):
        return torch.cat([predictor.probabilities(x, row, columns) for predictor in self.predictors], dim=1)


class Range:
    """Square metres that all networks of an ensemble map, and that any of them does, while rows stream by. areas: PixelAreas or None."""

    def __init__(self, members, areas):
        self.members, self.areas, self.least, self.most = members, areas, 0.0, 0.0

    def add(self, row, votes, valid):
        """votes: of mapping.blending.together; valid: bool; both (rows, W) from `row` on."""
        if self.areas is not None:
            metres = self.areas.of_rows(row, row + len(votes))
            self.least += float(((valid & (votes == self.members)) * metres).sum())
            self.most += float(((valid & (votes > 0)) * metres).sum())

    def summary(self, classes):
        """{least_burned_hectares, most_burned_hectares} (…_water_hectares …); {} of several classes, or where areas are not known."""
        if not classes.key or self.areas is None:
            return {}
        return {f"least_{classes.area_key}": hectares(self.least), f"most_{classes.area_key}": hectares(self.most)}


def require_alike(first, other):
    """UserError where checkpoints (dicts) cannot be an ensemble."""
    if other["kind"] != "segmentation" or first["kind"] != "segmentation":
        raise UserError(f"{first['path']} is a {first['kind']} checkpoint, {other['path']} a {other['kind']} one; only networks that map "
                        "classes of pixels make an ensemble")
    for checkpoint in (first, other):
        if "network" in checkpoint:
            raise UserError(f"{checkpoint['path']} can't be part of an ensemble; pass the checkpoint that it was exported from")
    for name in LIKE:
        one, two = (", ".join(checkpoint["data"][name]) for checkpoint in (first, other))
        if one != two:
            raise UserError(f"{first['path']} has the {name} {one}, {other['path']} {two}; the networks of an ensemble need the same")


def common_data(members):
    """
    The data of the first checkpoint. Where others were trained on images of another scale, "scales_differ" says that none of them is the
    scale of a raster that states none.
    """
    data = members[0]["data"]
    scales = {(tuple(one["data"]["divide_by"]), tuple(one["data"]["offset"])) for one in members}
    return {**data, "scales_differ": True} if len(scales) > 1 else data


def windows_words(members):
    """A line where networks were trained on patches of several sizes, else None: all of them get the windows of the first."""
    sides = [member["data"]["chip_size"] for member in members]
    if len(set(sides)) == 1:
        return None
    trained = ", ".join("an unknown size" if side is None else f"{side} pixels" for side in dict.fromkeys(sides))
    return f"the networks were trained on patches of {trained}; all map windows of {sides[0] or 256}, or those of --window"


def common_threshold(thresholds):
    """The mean of the thresholds that validation chose for each network, None where none has one. UserError where only some have."""
    if all(value is None for value in thresholds):
        return None
    if any(value is None for value in thresholds):
        raise UserError("some networks of the ensemble have a threshold, others take the likeliest class; pass --threshold")
    return sum(thresholds) / len(thresholds)
