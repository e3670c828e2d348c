"""What a file of annotations states of one image, before anything is checked against the image itself."""

from dataclasses import dataclass, field

import numpy as np

from runtime.errors import UserError


@dataclass
class StatedImage:
    """
    name: of the image file as stated, or found by. image_id: of the annotations, int or text. size: (width, height) stated, or None.
    boxes: rows [x0, y0, x1, y1] in pixels. names: the class of each. ignored: whether each is to be left out of loss and scores (crowds,
    difficult objects). rings: for each a list of rings (P, 2), or None where it has no outline.
    """

    name: str
    image_id: int | str
    size: tuple | None = None
    boxes: list = field(default_factory=list)
    names: list = field(default_factory=list)
    ignored: list = field(default_factory=list)
    rings: list = field(default_factory=list)

    def add(self, box, name, ignored=False, rings=None):
        self.boxes.append(box)
        self.names.append(name)
        self.ignored.append(ignored)
        self.rings.append(rings)

    @property
    def corners(self):
        """(N, 4) float64."""
        return np.array(self.boxes, np.float64).reshape(-1, 4)


def stated_size(width, height):
    """(width, height), or None where a file leaves them out or has 0, as some tools write."""
    sides = (width, height)
    return tuple(int(side) for side in sides) if all(is_finite(side) and side > 0 for side in sides) else None


def is_finite(value):
    return type(value) in (int, float) and abs(value) < 1e15


def few(values, most=3):
    """The first few of some values, and … where there are more."""
    shown = ", ".join(str(value)[:60] for value in list(values)[:most])
    return shown + (" …" if len(values) > most else "")


def require_class(value, where):
    """The name of a class as text without spaces around it. UserError where there is none."""
    name = str(value).strip() if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
    if not name:
        raise UserError(f"{where} has no class; expected a name")
    return name
