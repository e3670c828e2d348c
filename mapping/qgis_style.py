"""
The `.qml` beside a map, which QGIS loads with it: classes in their colours under their names, what is not mapped transparent.

The colour table of a TIFF has no transparency (of GDAL's alpha only that of the nodata value is kept), so class 0 is black to programs that
know the table alone.
"""

from xml.sax.saxutils import quoteattr

from pictures.overlays import PROBABILITY_STOPS
from runtime.files import write_text
from runtime.words import for_terminal

# QGIS writes its own version, and its attributes in other places: a style that begins so is one of ours.
BEGINNING = """<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>
<qgis version="3.16.0" styleCategories="Symbology" hasScaleBasedVisibilityFlag="0">
 <pipe>
"""
QML = BEGINNING + """{renderer}
  <brightnesscontrast brightness="0" contrast="0" gamma="1"/>
  <huesaturation saturation="0" grayscaleMode="0" colorizeOn="0"/>
  <rasterresampler maxOversampling="2"/>
 </pipe>
 <blendMode>0</blendMode>
</qgis>
"""


def is_of_the_user(path):
    """Whether a file is a style that somebody saved in QGIS, or wrote; ours is replaced, and deleted, with its map."""
    if path.suffix != ".qml" or not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(len(BEGINNING)) != BEGINNING.encode()


def keep_or_write(paths, write):
    """
    Write the style of a map by write(path), unless there is one of the user's, which stays and does not count as the map's.

    paths: {kind: path} of the map's files, from which "style" is then taken. → remarks.
    """
    if not is_of_the_user(paths["style"]):
        write(paths["style"])
        return []
    return [f"{paths.pop('style').name} was saved in QGIS: it stays as it is"]


def write_class_style(path, class_set):
    """Write the style of a map of classes. class_set: classes.ClassSet; classes below its first one are transparent."""
    entries = "\n".join(
        f'    <paletteEntry value="{value}" color="{hexadecimal(colour)}" alpha="{255 if value >= class_set.first else 0}" '
        f"label={quoteattr(for_terminal(name))}/>"
        for value, (name, colour) in enumerate(zip(class_set.names, class_set.colours, strict=True))
    )
    write_text(path, QML.format(renderer=(
        '  <rasterrenderer type="paletted" band="1" opacity="1" alphaBand="-1" nodataColor="">\n   <rasterTransparency/>\n'
        f"   <colorPalette>\n{entries}\n   </colorPalette>\n  </rasterrenderer>"
    )))


def write_value_style(path, low, high):
    """Write the style of a map of values: from dark at `low` to bright at `high`, in the colours of the preview."""
    last = len(PROBABILITY_STOPS) - 1
    values = [low + (high - low) * i / last for i in range(last + 1)]
    items = "\n".join(
        f'      <item value="{value!r}" color="{hexadecimal(colour)}" alpha="255" label="{value:.4g}"/>'
        for value, colour in zip(values, PROBABILITY_STOPS, strict=True)
    )
    write_text(path, QML.format(renderer=(
        '  <rasterrenderer type="singlebandpseudocolor" band="1" opacity="1" alphaBand="-1" nodataColor="" '
        f'classificationMin="{low!r}" classificationMax="{high!r}">\n   <rasterTransparency/>\n   <rastershader>\n'
        f'    <colorrampshader colorRampType="INTERPOLATED" classificationMode="1" clip="0" minimumValue="{low!r}" '
        f'maximumValue="{high!r}">\n{items}\n    </colorrampshader>\n   </rastershader>\n  </rasterrenderer>'
    )))


def hexadecimal(colour):
    return f"#{bytes(colour).hex()}"
