"""
Maps one scene, in a way that streams, can be killed at any moment and resumes.

Two stages. Bands of rows are predicted and kept in a journal (mapping/journal.py). When it holds all of them, one pass over them writes
<scene>_classes.tif, _probability.tif, the outlines (_burned.geojson, _water.geojson …) and _preview.png. The scene's record, written last,
says that it is finished.
"""

from mapping.area_of_interest import require_area
from mapping.background import ReadAhead, WriteBehind
from mapping.index_check import Dropped, without_unlike
from mapping.journal import Journal, StoredBand
from mapping.label_scene import label_scene
from mapping.map_files import add_item, begin_record, end_record
from mapping.map_writer import finish_map
from mapping.preview import thumbnail_step
from mapping.reading import read_slabs
from mapping.segmentation import grids_of, predict_bands
from mapping.settings import band_settings, full_settings
from mapping.value_writer import finish_values
from nets.model_config import answers_pixels, answers_values
from raster.area import pixel_areas


def map_scene(predictor, plan, files, model, settings, *, overwrite=False, progress=None):
    """
    Map one scene; returns its record (a dict for summary.json).

    predictor: mapping.segmentation.Predictor whose scale is the plan's. plan: SceneInput. files: MapFiles. model: ModelFacts.
    settings: MapSettings. progress: a function (total windows, windows already done) → function(n) called after n windows; or None.
    """
    if not answers_pixels(settings.task):
        return label_scene(predictor, plan, files, model, settings, overwrite=overwrite, progress=progress)
    info = plan.info
    areas = pixel_areas(info.crs, info.transform, info.height, info.width)  # refuses impossible geotransforms before any work
    aoi = require_area(info, settings.aoi)
    with Journal(files.scratch, band_settings(plan, model, settings), overwrite) as journal:
        # From here on the files of an earlier map may be replaced one by one.
        expected = begin_record(files, settings, model.class_set, overwrite)
        if journal.next_row < info.height:
            predict_into(journal, predictor, plan, aoi, settings, progress, model)
        finish = finish_values if answers_values(settings.task) else finish_map
        bands, dropped = journal.bands(), None
        if settings.index_check:
            dropped = Dropped(settings.index_check, areas)
            bands = without_unlike(journal.bands, settings.index_check, dropped, files.scratch)
        record = finish(bands, plan, files, model, settings, areas)
        if dropped:
            record |= {**dropped.record(), "remarks": [*record["remarks"], *dropped.remarks()]}
        add_item(files, record, plan, model, settings)
        return end_record(files, record, full_settings(plan, model, settings), expected)


def predict_into(journal, predictor, plan, aoi, settings, progress, model):
    """Predict what the journal lacks; one thread reads ahead, another writes behind."""
    info, start, kind = plan.info, journal.next_row, settings.kept_as
    grids, check = window_grids(info, settings), settings.index_check
    bar = progress(sum(grid.count for grid in grids), sum(grid.count_above(start) for grid in grids)) if progress else None
    slabs = read_slabs(plan, aoi, min(grid.first_row_for(start) for grid in grids), settings.strict, max(settings.windows))
    with ReadAhead(slabs) as slabs, WriteBehind(journal.append) as writer:
        bands = predict_bands(
            predictor, slabs, grids, threshold=settings.threshold, each=not model.class_set.has_background, start_row=start,
            thumbnail_step=thumbnail_step(info.height, info.width), progress=bar, beyond=check and check.beyond(model.bands),
        )
        for band in bands:
            writer.put(StoredBand.of(band, kind))


def window_grids(info, settings):
    """The WindowGrids that cover a scene (RasterInfo), one a size of the windows."""
    return grids_of(info.height, info.width, settings.windows, settings.overlap)
