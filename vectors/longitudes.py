"""Shapes whose longitudes are counted another way."""

import shapely


def moved_east(geometries, degrees):
    """Shapes in degrees, `degrees` further east: 360 for the same places with other longitudes."""
    return shapely.transform(geometries, lambda points: points + (degrees, 0.0)) if degrees else geometries
