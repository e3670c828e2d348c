"""Says how a pan and an ms raster lie on each other, and where ms really lies."""

from raster.pair import match_pair
from raster.pair_shift import estimate_shift
from raster.source import describe
from runtime.words import plural

NOTICED = 0.375  # pan pixels from which on a shift is told; the estimate is about a quarter of a pixel off
STEP = 0.25  # pan pixels to which it is told
DISAGREEMENT = 1.0  # pan pixels that windows may differ typically before there is no one shift


def inspect_pair(pan, ms, say):
    """Say the sizes, the bands and the shift of two paths, a line each."""
    pair = match_pair(pan, ms)
    for path, bands in ((pair.pan, 1), (pair.ms, len(pair.bands))):
        info = describe(path)
        say(f"{path}: {info.width} x {info.height} pixels, {info.dtypes[0]}, {plural(bands, 'band')}")
    say(f"bands of ms: {', '.join(pair.bands)}")
    for remark in pair.remarks:
        say(remark)
    covered = " x ".join(str(side * pair.ratio) for side in pair.area[2:])
    say(f"{pair.ratio} pan pixels to an ms pixel; whole ms pixels lie under {covered} pixels of pan")
    say(shift_words(estimate_shift(pair)))


def shift_words(shift):
    """A sentence about a raster.pair_shift.Shift, or None."""
    if shift is None:
        return "where ms really lies can't be told: there are too few valid pixels, or pan and ms look too different"
    windows = plural(shift.windows, 'window')
    if shift.spread > DISAGREEMENT:
        return (f"where ms really lies can't be told: {windows} disagree by {shift.spread:.1f} pan pixels, as where relief or clouds "
                "move between the two")
    if max(abs(shift.x), abs(shift.y)) < NOTICED:
        return f"ms lies where its file says, to about a quarter of a pan pixel ({windows})"
    x, y = (f"{round(value / STEP) * STEP + 0.0:g}" for value in (shift.x, shift.y))
    return f"ms lies {x} columns, {y} rows of pan from where its file says ({windows}); pass --shift={x},{y}"
