"""Turns the finished bands of a map of values into its files: a GeoTIFF, a preview, numbers."""

import contextlib

import numpy as np

from constants import IGNORE
from mapping.map_writer import delivered_as, making_tags
from mapping.preview import ValuePreview, heading_of
from mapping.qgis_style import keep_or_write, write_value_style
from mapping.summary import Counter
from mapping.unreadable import in_record, remarks_on, require_some
from raster.writer import write_cog


def finish_values(bands, plan, files, model, settings, areas):
    """As mapping.map_writer.finish_map, of values: <scene>_values.tif, float32 with NaN for nodata, and <scene>_preview.png."""
    info, paths, name = plan.info, files.content(settings, model.class_set), model.classes[0]
    counter, figures, unreadable = Counter(1, areas), Figures(), []
    preview = ValuePreview(info, model.bands, name, heading_of(plan, files.name))
    with contextlib.ExitStack() as stack:  # exits in reverse: the values get their name last
        file = stack.enter_context(write_cog(
            paths["values"], height=info.height, width=info.width, crs=info.crs, transform=info.transform, sensor_place=info.sensor_place,
            dtype="float32", nodata=float("nan"), descriptions=[name], tags=making_tags(plan, model, settings), overviews="values",
        ))
        for band in bands:
            valid = band.classes != IGNORE
            values = np.where(valid, band.probability, np.float32(np.nan))
            file.write(values)
            counter.add(band.row, band.classes, 0.0)
            figures.add(band.probability[valid])
            preview.add(band, values)
            unreadable += band.unreadable
        summary = counter.summary(model.class_set)
        require_some(info, unreadable, summary["valid_fraction"])
        shown = preview.save(paths["preview"])
        remarks = keep_or_write(paths, lambda path: write_value_style(path, *shown))
    return {
        "scene": files.name, "source": info.path, "task": settings.task, "width": info.width, "height": info.height,
        "crs": info.crs.to_string() if info.crs else None,
        **figures.summary(), "shown": list(shown), **summary, "polygons": None, **in_record(unreadable),
        "remarks": remarks + remarks_on(unreadable, summary["valid_fraction"]), **delivered_as(plan),
        "files": [path.name for path in paths.values()],
    }


class Figures:
    """Mean, least and most of the values of a map while its rows stream by."""

    def __init__(self):
        self.count, self.sum, self.least, self.most = 0, 0.0, None, None

    def add(self, values):
        """values: (N,) valid ones."""
        if values.size:
            self.count += values.size
            self.sum += float(values.sum(dtype=np.float64))
            low, high = float(values.min()), float(values.max())
            self.least, self.most = (low, high) if self.least is None else (min(low, self.least), max(high, self.most))

    def summary(self):
        return {"mean": self.sum / self.count if self.count else None, "least": self.least, "most": self.most}
