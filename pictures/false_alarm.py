"""What the demo's page says of the largest patch that its map marks in error, and where it is in the picture."""

from dataclasses import dataclass, replace

from pictures.box_overlays import draw_boxes
from runtime.words import percent, thousands

FRAME = (255, 214, 0)
SCAR = 0.5  # share of a patch from which on it lies on the scar of an earlier fire


@dataclass(frozen=True)
class FalseAlarm:
    """
    hectares: of all that is marked in error; edge: of these within a few pixels of the fire; patch: of the largest connected one. box: x0,
    y0, x1, y1 of it in pixels of the scene. scar: share of it on the scar of an earlier fire. index, sure: mean NBR and probability (there,
    where it burned, elsewhere).
    """

    hectares: float
    edge: float
    patch: float
    box: tuple
    scar: float
    index: tuple
    sure: tuple


def alarm_words(alarm):
    """Sentences: where the errors are, and why the largest one is made."""
    index, sure = alarm.index, alarm.sure
    whole = f"{thousands(alarm.patch)} of the {thousands(alarm.hectares)} hectares marked in error are one patch, framed in yellow"
    if alarm.scar >= SCAR:
        what = (": the scar of an earlier fire, which shrubs have begun to cover. In a single picture it looks like a fire of today that "
                "burned lightly; one from before the fire would tell them apart.")
    else:
        what = ": ground that is as bare as a light burn, such as a harvested field, a clear-cut or shadow."
    low, high = sorted((index[1], index[2]))
    place = "lies between" if low <= index[0] <= high else "is beside"
    return (f"{whole}{what} Its burn index NBR, {index[0]:.2f} on average, {place} that of what burned ({index[1]:.2f}) and that of "
            f"the other ground ({index[2]:.2f}). The network's probability there is {percent(sure[0])} on average, and {percent(sure[1])} "
            f"where it burned. Along the edge of the fire, where pixels hold some of both, are another {thousands(alarm.edge)} hectares.")


def with_alarm(view, alarm, width):
    """The View of errors with a frame around the patch and what is to be said of it. width: of the scene in pixels. alarm: or None."""
    if alarm is None:
        return view
    scale = view.picture.shape[1] / width
    # three lines: a browser shows the picture at half its size
    boxes = [[edge * scale + shift * side for edge, side in zip(alarm.box, (-1, -1, 1, 1), strict=True)] for shift in (2, 3, 4)]
    picture = draw_boxes(view.picture, boxes, [1] * len(boxes), colours=[FRAME])
    return replace(view, picture=picture, note=f"{view.note} {alarm_words(alarm)}".strip(), legend=(*view.legend, (FRAME, "largest error")))
