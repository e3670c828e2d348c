"""How an image is read in which objects are looked for."""

from dataclasses import replace

from mapping.inputs import NO_FLAGS, describe_for, plan_of_header
from raster.palette import read_colours


def plan_of_image(path, data, flags=NO_FLAGS):
    """
    SceneInput of an image by its header. data: of the detector's checkpoint. flags: InputFlags.

    Training tiles hold 0 in all bands where there is no data, and so do these; a palette stands for its colours in both.
    """
    info, colours = read_colours(describe_for(path, data, flags))
    plan = plan_of_header(info, {**data, "nodata": None}, flags)
    zero = flags.nodata is None and data.get("nodata") == 0
    return replace(plan, zero_is_nodata=plan.zero_is_nodata or zero, colours=colours)
