"""The seven pictures of a mapped scene in the demo's report, with captions and alternative texts."""

from constants import IGNORE
from pictures import overlays
from pictures.overlays import class_overlay, error_picture, grey_background, probability_picture
from pictures.page import View
from pictures.sheets import fit_within
from pictures.stretch import burn_colour, natural_colour
from runtime.words import percent


def scene_views(reflectance, bands, truth, prediction, probability, baseline, colour, longest=900):
    """
    {natural, map, burn, truth, probability, errors, baseline_errors: View} of a mapped scene.

    reflectance: (C, H, W) 0..1; bands: C names. truth, prediction, baseline: (H, W) classes, 255 = nodata. probability: (H, W) 0..1.
    colour: (r, g, b) of burned ground. longest: pixels of the longer side on the page
    """
    natural = natural_colour(reflectance, bands)
    burn = burn_colour(reflectance, bands)
    colours = ((0, 0, 0), colour)
    ground = grey_background(natural)
    judged = ((overlays.FOUND, "found"), (overlays.MISSED, "burned, but missed"), (overlays.FALSE_ALARM, "marked in error"))
    stops = overlays.PROBABILITY_STOPS
    nodata = ((overlays.NODATA_COLOUR, "no data"),) if (truth == IGNORE).any() else ()

    def small(picture):
        return fit_within(picture, longest)

    def share(mask):
        return percent(float(mask.sum()) / max(float((truth != IGNORE).sum()), 1.0))

    return {
        "natural": View(
            "The scene, as the eye would see it", small(natural),
            "Satellite picture in natural colours: hills, a valley with fields, and a burn that is hard to tell from bare ground.",
            "Red, green and blue light.", nodata,
        ),
        "map": View(
            "The map", small(class_overlay(ground, prediction, colours, 0.85)),
            f"The same scene in grey with the mapped burned area in colour: {share(prediction == 1)} of the scene.",
            "Burned area as the network draws it, on the scene in grey.", ((colour, "burned, says the network"), *nodata),
        ),
        "burn": View(
            "The scene in burn-sensitive colours", small(burn),
            "The same scene in short-wave infrared, near infrared and red: vegetation is green, the burn stands out reddish brown.",
            "Short-wave infrared shown as red, near infrared as green, red light as blue (bands B12, B8A, B04).", nodata,
        ),
        "truth": View(
            "The truth", small(class_overlay(ground, truth, colours, 0.85)),
            f"The same scene in grey with the truly burned area in colour: {share(truth == 1)} of the scene.",
            "What really burned. The network never saw this.", ((colour, "burned"), *nodata),
        ),
        "probability": View(
            "How sure the network is", small(probability_picture(probability, truth != IGNORE)),
            "Map of the burn probability: bright inside the burn, dark outside, in between along its edge.",
            "Probability that a pixel burned.",
            ((stops[0], "0 %"), (stops[2], "40 %"), (stops[3], "60 %"), (stops[-1], "100 %"), *nodata),
        ),
        "errors": View(
            "Where the map is right and wrong", small(error_picture(truth, prediction, natural)),
            f"Map of errors: {share((truth == 1) & (prediction == 0))} of the scene is burned but missed, "
            f"{share((truth == 0) & (prediction == 1))} is marked in error.",
            "Truth and map compared, pixel by pixel.", (*judged, *nodata),
        ),
        "baseline_errors": View(
            "The same comparison for the NBR threshold", small(error_picture(truth, baseline, natural)),
            f"Map of errors of the burn index: {share((truth == 1) & (baseline == 0))} of the scene is burned but missed, "
            f"{share((truth == 0) & (baseline == 1))} is marked in error, scattered over fields, shadows and old scars.",
            "", (*judged, *nodata),
        ),
    }
