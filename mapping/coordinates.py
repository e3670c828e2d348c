"""When a scene was taken and where its windows lie, as numbers for a network that takes them beside the pixels."""

from dataclasses import dataclass

import numpy as np
import torch

from raster.acquired import time_of_scene, year_and_day
from raster.dated import days_of_bands
from raster.source import RasterInfo
from runtime.errors import UserError
from vectors.footprint import footprint

WITHOUT = {"times": "neither metadata, tags nor name tell when it was taken: it is mapped without date",
           "place": "it has no CRS that leads to the globe: it is mapped without place"}


@dataclass(frozen=True)
class SceneCoordinates:
    """names: of "times" and "place", those that the network takes and are known. days: ISO, of each date. info: of the scene."""

    names: tuple
    days: tuple
    info: RasterInfo

    def of_windows(self, row, columns, size):
        """{"times": (B, dates, 2) year and day, "place": (B, 2) latitude and longitude}, float32, of windows that begin at a row."""
        found = {}
        if "times" in self.names:
            found["times"] = torch.tensor([[year_and_day(day) for day in self.days]] * len(columns))
        if "place" in self.names:
            found["place"] = torch.tensor([[lat, lon] for lon, lat in self.middles(row, columns, size)], dtype=torch.float32)
        return found

    def middles(self, row, columns, size):
        """[[lon, lat], …] of the middle of what windows cover of the scene."""
        info = self.info
        y = row + min(size, info.height - row) / 2
        places = np.array([info.transform * (column + min(size, info.width - column) / 2, y) for column in columns])
        found = footprint(info.crs, places)
        if found is None:
            raise UserError(f"{info.path}: windows at row {row} have no place on the globe; cut that part off")
        return found


def scene_coordinates(plan, network):
    """(SceneCoordinates or None of a SceneInput for a network, [sentence about what it takes and nothing tells])."""
    wanted = getattr(network, "coordinates", ())
    if not wanted:
        beside = getattr(getattr(network, "config", None), "coordinates", ())
        return None, [f"{network.path} takes no {' and '.join(beside)}, with which it was trained"] if beside else []
    days = days_of(plan, network.dates)
    known = {"times": len(days) == network.dates, "place": has_place(plan.info)}
    missing = [f"{plan.info.path}: {WITHOUT[name]}" for name in wanted if not known[name]]
    return SceneCoordinates(tuple(name for name in wanted if known[name]), days, plan.info), missing


def days_of(plan, dates):
    """ISO days of a scene; of a raster that holds several dates by the names of its bands. () where nothing tells."""
    if plan.days:
        return plan.days
    if dates > 1:
        return days_of_bands([plan.info.descriptions[index - 1] for index in plan.indexes], dates)
    time = time_of_scene(plan.info)
    return (time[0].date().isoformat(),) if time else ()


def has_place(info):
    """Whether the corners of a scene (RasterInfo) lie on the globe."""
    corners = [(0, 0), (info.width, 0), (0, info.height), (info.width, info.height)]
    return info.crs is not None and footprint(info.crs, np.array([info.transform * corner for corner in corners])) is not None
