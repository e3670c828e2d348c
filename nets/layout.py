"""What one part of a model hands to the next: maps, tokens or vectors, in how many levels, with how many channels."""

import dataclasses

MAPS, TOKENS, VECTORS = "maps", "tokens", "vectors"


@dataclasses.dataclass(frozen=True)
class Layout:
    """
    form: MAPS are tensors (B, C, h, w); TOKENS are (B, class_tokens + h · w, C), rows of the grid one after another; VECTORS are (B, C).
    channels, strides: one number a level; a stride is the side of the square of input pixels that one position stands for (0 of vectors).
    made_by: the part that hands this over, in words, for errors.
    """

    form: str
    channels: tuple[int, ...]
    strides: tuple[float, ...]
    class_tokens: int = 0
    made_by: str = "the encoder"

    def __str__(self):
        levels = f"{len(self.channels)} level{'s' * (len(self.channels) != 1)}"
        strides = "" if self.form == VECTORS else f" at strides {', '.join(f'{s:g}' for s in self.strides)}"
        return f"{levels} of {self.form}{strides} with {', '.join(map(str, self.channels))} channels"

    def level(self, index):
        """(channels, stride) of one level. Misfit where there is no such level."""
        if not isinstance(index, int) or not -len(self.channels) <= index < len(self.channels):
            raise Misfit(f"asks for level {index}", self, "indices count from 0, or from -1 for the last")
        return self.channels[index], self.strides[index]

    def require(self, form, remedy=None):
        """Misfit where the form is another."""
        if self.form != form:
            raise Misfit(f"needs {form}", self, remedy or REMEDIES.get((form, self.form)))

    def require_one_stride(self):
        if len(set(self.strides)) > 1:
            raise Misfit("needs levels of one stride", self, "leave it out, or put --neck select in front")


REMEDIES = {
    (MAPS, TOKENS): "add --neck tokens-to-maps",
    (TOKENS, MAPS): "leave it out",
    (MAPS, VECTORS): "leave --neck pool out",
    (TOKENS, VECTORS): "leave --neck pool out",
}


class Misfit(Exception):
    """A part cannot take what the part before it gives. needs: what it takes, as the rest of a sentence; found: a Layout."""

    def __init__(self, needs, found, remedy=None):
        super().__init__(f"{needs}, but {found.made_by} gives {found}{f'; {remedy}' if remedy else ''}")
