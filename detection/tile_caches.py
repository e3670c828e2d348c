"""
Finds or makes the tiles of a run's splits.

They are in a folder that chip.py make-tiles wrote, or in tile_cache_train, tile_cache_val and tile_cache_test.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from chipping.tile_set import is_tile_set, known_headers
from chipping.tile_set_plan import TileOptions
from chipping.tiles import covers, make_tiles


@dataclass(frozen=True, kw_only=True)
class Caches:
    """
    Where tiles go, and how they are made. output_dir: of the run. cache_dir: of --cache-dir, or None. workers: processes. strict: see
    make_tiles.

    All processes of torchrun may ask for the same tiles: one makes them, the others wait.
    """

    output_dir: Path
    cache_dir: Path | None = None
    options: TileOptions = TileOptions()
    workers: int = 1
    strict: bool = False

    def folder(self, split):
        return Path(self.cache_dir or self.output_dir) / f"tile_cache_{split}"

    def headers(self):
        """{image's name: ImageHeader} of what earlier runs have opened, for box_labels.read_labels."""
        folders = [self.folder(split) for split in ("train", "val", "test")]
        return known_headers(*folders, *([self.cache_dir] if self.cache_dir else []))

    def tiles(self, split, images_folder, classes, images, *, note=lambda text: None, progress=lambda count: None,
              starting=lambda count: None):
        """
        (TileSet, {image's name: why it cannot be read}) of a split. Only the training leaves out tiles without objects (`negatives`).

        images: LabelledImage each. Other words: see chipping.tiles.make_tiles.
        """
        options = self.options if split == "train" else dataclasses.replace(self.options, negatives=1.0)
        if self.cache_dir is not None and is_tile_set(self.cache_dir):
            if (found := covers(self.cache_dir, images_folder, classes, images, options)) is not None:
                return found
            note(f"{self.cache_dir} does not hold these tiles of the {split} images; they are made in {self.folder(split)}")
        return make_tiles(self.folder(split), images_folder, classes, images, options, workers=self.workers, strict=self.strict, note=note,
                          progress=progress, starting=starting)
