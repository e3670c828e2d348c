"""The products that are scenes as they are delivered: a table, a row each, and how scenes are found among files, folders and addresses."""

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

from raster import ard, hls, landsat, planetscope, sentinel2, stac
from raster.package import ARCHIVES, COMPRESSED_TARS, Package, Place
from raster.product import Band, Product, broken
from raster.product_scene import ProductScene
from raster.source import RASTER_SUFFIXES, expand, is_remote, list_rasters
from runtime.errors import UserError
from runtime.names import require_text


@dataclass(frozen=True)
class Row:
    """
    A product. title: in words. find(names) → what tells it among the names of a package's files, or None. read(package, name) → Product.
    example: what a scene of it is called on the command line.
    """

    title: str
    find: callable
    read: callable
    example: str


ROWS = (
    Row("Sentinel-2 L2A and L1C", sentinel2.metadata_in, sentinel2.read, "S2B_MSIL2A_….SAFE, or its .zip"),
    Row("Landsat 8/9 C2 L2SP", landsat.metadata_in, landsat.read, "LC09_L2SP_….tar, or its folder"),
    Row("HLS S30 and L30", hls.metadata_in, hls.read, "HLS.S30.T32TQM.…/"),
    Row("PlanetScope SR", planetscope.metadata_in, planetscope.read, "a folder with …_AnalyticMS_SR.tif, …_udm2.tif, …_metadata.xml"),
)
EXPECTED = "; ".join(f"{row.title} ({row.example})" for row in ROWS)
METADATA_FILES = ("MTD_MSIL2A.xml", "MTD_MSIL1C.xml")
# WorldView-2 and -3 as an ARD delivers them: (name, common name, nm)
WORLDVIEW = (("coastal", "coastal", 427), ("blue", "blue", 478), ("green", "green", 546), ("yellow", "yellow", 608), ("red", "red", 659),
             ("rededge", "rededge071", 724), ("nir1", "nir", 831), ("nir2", "nir09", 908))


def list_scenes(patterns, suffixes=RASTER_SUFFIXES):
    """
    Every scene that the patterns name, sorted, each once: paths of rasters, and ProductScenes. UserError for a pattern without any.

    A pattern is what list_rasters takes, or a product: a folder, .zip or .tar, a STAC item or item collection (a .json file or address, of
    which `#ID` is one item), an ARD; or a glob of them. A folder may hold products.
    """
    found = {}
    for pattern in [patterns] if isinstance(patterns, (str, Path)) else patterns:
        scenes = scenes_of_pattern(pattern if isinstance(pattern, ProductScene) else str(pattern), suffixes)
        for scene in list_rasters([pattern], suffixes) if scenes is None else scenes:
            require_text(scene, "the name of the scene")
            found[str(scene)] = scene
    return [found[path] for path in sorted(found)]


def scenes_of_pattern(pattern, suffixes):
    """Scenes of one pattern, None where it names rasters alone. UserError."""
    if isinstance(pattern, ProductScene):
        return [pattern]
    if is_remote(pattern):
        return scenes_of_address(pattern)
    if os.path.exists(pattern.partition("#")[0]) and not os.path.exists(pattern):
        file, _, wanted = pattern.partition("#")
        return [one_item(scenes_of_json(file) or [], file, wanted)]
    if os.path.exists(pattern):
        scenes = scenes_of_path(pattern)
        if scenes is None and os.path.isdir(pattern) and (inside := products_in(pattern)):
            return inside + rasters_in(pattern, suffixes)
        return scenes
    matches = [match for match in expand(pattern) if not match.lower().endswith(suffixes)]
    products = [scene for match in matches for scene in scenes_of_path(match) or ()]
    if not products:
        return None
    return products + [match for match in expand(pattern) if match.lower().endswith(suffixes)]


def products_in(folder):
    """Scenes of the products directly in a folder: folders and archives, no item collections."""
    names = [name for name in sorted(os.listdir(folder)) if name[0] != "." and not name.lower().endswith(".json")]
    return [scene for name in names for scene in scenes_of_path(os.path.join(folder, name), only_products=True) or ()]


def rasters_in(folder, suffixes):
    try:
        return list_rasters([folder], suffixes)
    except UserError:
        return []


def scenes_of_path(path, only_products=False):
    """
    ProductScenes of a local folder, archive or .json file, None where it is none of them, or a folder that is no product.

    only_products: an archive that is none is passed over, too.
    """
    low = path.lower()
    if os.path.basename(path) in METADATA_FILES:
        return scenes_of_path(os.path.dirname(path) or ".")
    if low.endswith((".json", ".geojson")) and os.path.isfile(path):
        return scenes_of_json(path)
    if low.endswith(COMPRESSED_TARS) and not only_products:
        raise UserError(f"{path} is a compressed archive, in which no window can be read; unpack it first")
    if os.path.isdir(path):
        return ard_scenes(path) if ard.is_ard(path) else scenes_of_package(path, os.listdir(path))
    if low.endswith(ARCHIVES) and os.path.isfile(path):
        scenes = scenes_of_package(path)
        if scenes is None and not only_products:
            raise UserError(f"{path} {what_archive_holds(path)}; expected {EXPECTED}")
        return scenes
    return None


def what_archive_holds(path):
    with Package(path) as package:
        inner = next((name for name in package.names if name.lower().endswith((*ARCHIVES, *COMPRESSED_TARS))), None)
    return f"holds the archive {inner}: unpack it once" if inner else "is no product that is read as delivered"


def product_name(path):
    """The scene's name by that of a folder or archive: without .SAFE, .zip or .tar."""
    name = os.path.basename(os.path.normpath(path))
    for ending in (*ARCHIVES, ".SAFE"):
        if name.lower().endswith(ending.lower()):
            name = name[: -len(ending)]
    return name


def scenes_of_package(path, names=None):
    """
    [ProductScene] of a folder or archive, None where it is no product. names: of what is directly in a folder, looked at first.

    A product that cannot be used becomes a scene that says so where it is opened.
    """
    is_safe = path.rstrip("/").lower().endswith((".safe", ".safe.zip"))
    if names is not None and not is_safe and not any(row.find(names) for row in ROWS):
        return None
    name = product_name(path)
    try:
        with Package(path) as package:
            row = next((row for row in ROWS if row.find(package.names)), None)
            if row is None and not is_safe:
                return None
            if row is None:
                raise UserError(f"{path} has no {' or '.join(METADATA_FILES)}; download it again")
            product = row.read(package, name)
    except UserError as error:
        product = broken(path, name, error)
    return [ProductScene(product)]


def scenes_of_json(path):
    """ProductScenes of a JSON file or address, None where it is no JSON object."""
    value = stac.read_json(path)
    if value is None:
        return None
    item = str(path).removesuffix(".json")
    if not is_remote(path) and os.path.exists(f"{item}-ms.tif"):
        found = ard.read_item(os.path.abspath(path))
        if isinstance(found, ard.Item):
            return [ard_scene(found)]
    return [ProductScene(product) for product in stac.products_of(path, value)]


def scenes_of_address(address):
    """Scenes of an address: those of a STAC item or collection, None for a raster or an s3 prefix."""
    plain = urlparse(address)
    suffix = os.path.splitext(plain.path)[1].lower()
    is_text = suffix in (".json", ".geojson") or plain.scheme != "s3" and not suffix.startswith(tuple(RASTER_SUFFIXES)) and (
        "/items/" in plain.path or plain.path.rstrip("/").endswith("/search"))
    if not is_text:
        return None
    if plain.fragment:
        file, _, wanted = address.partition("#")
        return [one_item(scenes_of_json(file) or [], file, wanted)]
    return scenes_of_json(address)


def one_item(scenes, file, wanted):
    """The scene of an item collection's item."""
    for scene in scenes:
        if str(scene) == f"{file}#{wanted}" or scene.name == wanted:
            return scene
    raise UserError(f"{file} holds no item {wanted!r}; it has {', '.join(scene.name for scene in scenes[:5]) or 'none'}")


def ard_scenes(folder):
    """A ProductScene for the ms raster of each tile of an ARD."""
    items, _ = ard.read_items(folder)
    if not items:
        raise UserError(f"{folder} holds no tile that can be read; see chip.py inspect {folder}")
    return [ard_scene(item) for item in items]


def ard_scene(item):
    """ProductScene of an ARD's tile: multispectral reflectance x 10 000, 0 = nodata."""
    path, name, properties = f"{item.folder}/{item.cid}.json", item.name.replace("/", "_"), item.properties
    platform = ard.PLATFORMS.get(str(properties.get("platform")).strip().lower())
    if platform is None:
        found = properties.get("platform") or "an unknown satellite"
        return ProductScene(broken(path, name, f"{path} is of {found}; expected WorldView-2 or -3"))
    place = Place(f"{item.folder}/{item.cid}-ms.tif")
    bands = tuple(
        Band(own, common, float(nm), None, place, number, own, 1e-4, 0.0, 0.0)
        for number, (own, common, nm) in enumerate(WORLDVIEW, start=1)
    )
    clouds = properties.get("tile:clouds_percent")
    return ProductScene(Product(
        path=path, name=name, kind="Maxar ARD", sensor="WorldView", level="surface",
        time=str(properties.get("datetime", "")).replace(" ", "T"), tile="-".join(item.name.split("/")[:2]), bands=bands,
        no_clouds="an ARD states its clouds as polygons",
        facts=(("satellite", platform), *((("clouds", f"{clouds:g} %"),) if isinstance(clouds, (int, float)) else ())),
    ))


def product_scene(path):
    """The one ProductScene of a path or address; the path itself where it is a raster."""
    if isinstance(path, ProductScene):
        return path
    scenes = list_scenes([path]) if is_product_path(path) else [path]
    if len(scenes) > 1:
        raise UserError(f"{path} holds {len(scenes)} scenes; name one of them, such as {scenes[0]}")
    return scenes[0]


def is_product_path(path):
    """Whether a path may be that of a product, by its form."""
    text = urlparse(str(path)).path if is_remote(path) else str(path)
    return not text.partition("#")[0].lower().endswith(RASTER_SUFFIXES)
