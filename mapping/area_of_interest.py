"""The area of interest of --aoi on a scene's grid."""

from raster.sensor_place import why_without_grid
from runtime.errors import UserError
from vectors.placing import burn, place_polygons
from vectors.reading import read_polygons


class OutsideArea(UserError):
    """A scene that the area of interest does not touch: bad input if it is the only one, one to leave out if there are many."""


def require_area(info, path):
    """
    The area of interest as a function (row, height) → (height, W) bool. OutsideArea where it misses the scene.

    info: RasterInfo. path: of the polygons, or None, which gives None.
    """
    if path is None:
        return None
    if info.crs is None or (info.sensor_place and info.transform.is_identity):
        raise UserError(f"--aoi cannot be placed: {info.path} {why_without_grid(info)}")
    shapes = place_polygons(read_polygons([path]), info.crs, info.transform, info.width, info.height)
    if not shapes:
        raise OutsideArea(f"{path} does not touch {info.path}")
    return lambda row, height: burn(shapes, info.transform, (0, row, info.width, height), value=1).astype(bool)
