"""The products that are scenes as they are delivered: a table, a row each, and how scenes are found among files, folders and addresses."""

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlparse

from raster import ard, hls, landsat, planetscope, sentinel2, stac
from raster.package import ARCHIVES, COMPRESSED_TARS, Package, Place
from raster.product import Band, Product, broken
from raster.product_scene import ProductScene
from raster.source import RASTER_SUFFIXES, expand, is_remote, list_rasters, scene_name
from runtime.errors import UserError
from runtime.names import require_text
from runtime.network import without_signature


@dataclass(frozen=True)
class Row:
    """
    A product. title: in words. find(names) → [(name of a scene, the file that tells it)] among the names of a package's files.
    read(package, file, name) → Product.
    """

    title: str
    find: callable
    read: callable


ROWS = (
    Row("Sentinel-2 L2A and L1C", sentinel2.scenes_in, sentinel2.read),
    Row("Landsat 8/9 C2 L2SP", landsat.scenes_in, landsat.read),
    Row("HLS S30 and L30", hls.scenes_in, hls.read),
    Row("PlanetScope SR", planetscope.scenes_in, planetscope.read),
)
EXPECTED = ", ".join(row.title for row in ROWS)
SENTINEL2 = ROWS[0]
TEXTS = (".json", ".geojson")
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
    """Scenes of one pattern, None where it names rasters of one folder, of an address or none at all. UserError."""
    if isinstance(pattern, ProductScene):
        return [pattern]
    if is_remote(pattern):
        return scenes_of_address(pattern)
    if os.path.isdir(pattern):
        return scenes_of_folder(pattern, suffixes, deeper=True)
    if os.path.exists(pattern):
        return scenes_of_path(pattern, suffixes)
    if named := item_in(pattern):
        file, wanted = named
        return [one_item(scenes_of_path(file, suffixes) or [], file, wanted)]
    matches = expand(pattern)
    found = [match for match in matches if match.lower().endswith(suffixes)]
    others = [match for match in matches if not match.lower().endswith(suffixes)]
    found += [scene for match in others for scene in scenes_of_path(match, suffixes, named=False) or ()]
    if not found:
        for match in others:
            scenes_of_path(match, suffixes)  # what is wrong with the first of them
    return found or None


def item_in(pattern):
    """(file, name) of `FILE#NAME`, where that file, folder or archive exists; None of others, such as a glob in a folder with a #."""
    for place in (n for n, sign in enumerate(pattern) if sign == "#"):
        file, name = pattern[:place], pattern[place + 1 :]
        if os.path.isfile(file) or os.path.isdir(file) and re.fullmatch(r"[\w.-]+", name):
            return file, name
    return None


def names_in(folder):
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        raise UserError(f"{folder} cannot be read ({error.strerror})") from error


def scenes_of_path(path, suffixes=(), named=True):
    """
    Scenes of a local folder, archive or .json file, None where it is none of them, or a folder that is no product. UserError.

    named: by itself. What a glob or a folder names along with others is passed over where it is no product: polygons in a .geojson, any
    .json, .zip or .tar.
    """
    low = path.lower()
    if os.path.basename(path) in METADATA_FILES:
        return scenes_of_path(os.path.dirname(path) or ".", suffixes)
    if low.endswith(TEXTS) and os.path.isfile(path):
        try:
            return scenes_of_json(path)
        except stac.NoItem:
            if named:
                raise
            return None
    if low.endswith(COMPRESSED_TARS):
        if named:
            raise UserError(f"{path} is a compressed archive, in which no window can be read; unpack it first")
        return None
    if os.path.isdir(path):
        return scenes_of_folder(path, suffixes) if named or os.access(path, os.R_OK | os.X_OK) else None
    if low.endswith(ARCHIVES) and os.path.isfile(path):
        scenes = [ProductScene(product) for _, product in read_products(path)]
        if not scenes and named:
            raise UserError(f"{path} {what_archive_holds(path)}")
        return scenes or None
    return None


def scenes_of_folder(folder, suffixes, deeper=False):
    """
    Scenes of a folder that is a product, an ARD, or holds the files of products: these, with what else it holds. None for other folders.

    deeper: products in a folder that has no files of any, and its rasters, are scenes too.
    """
    if ard.is_ard(folder):
        return ard_scenes(folder)
    names = names_in(folder)
    found = find_products(names)
    if is_safe(folder) or any(row is SENTINEL2 for row, _, _ in found):  # all that is in it is its own
        return [ProductScene(product) for _, product in read_products(folder, found)]
    if not found and not deeper:
        return None
    own = read_products(folder, found) if found else []
    known = {name for name, _ in own}  # an archive may lie beside its files
    scenes = [scene for scene in products_in(folder, names, suffixes) if scene_name(scene) not in known]
    if not own and not scenes:
        return None
    scenes += rasters_beside(folder, names, own, suffixes)
    alone = len(own) == 1 and not scenes
    return [ProductScene(product if alone else called(product, folder, name)) for name, product in own] + scenes


def products_in(folder, names, suffixes):
    """Scenes of the products directly in a folder: folders and archives, no item collections."""
    paths = [os.path.join(folder, name) for name in names if name[0] != "." and not name.lower().endswith(TEXTS)]
    return [scene for path in paths for scene in scenes_of_path(path, suffixes, named=False) or ()]


def rasters_beside(folder, names, own, suffixes):
    """Paths of the rasters in a folder that belong to none of its products. own: of read_products."""
    layers = [layer for _, product in own for layer in (*product.bands, product.clouds) if layer]
    places = {layer.place.path for layer in layers}
    starts = tuple(f"{name}{sign}" for name, _ in own for sign in "._")
    paths = [os.path.join(folder, name) for name in names if name.lower().endswith(suffixes) and not name.startswith((".", *starts))]
    return [path for path in paths if path not in places]


def what_archive_holds(path):
    inner = next((name for name in Package(path).names if name.lower().endswith((*ARCHIVES, *COMPRESSED_TARS))), None)
    return f"holds the archive {inner}: unpack it once" if inner else f"is no product that is read as delivered; expected {EXPECTED}"


def product_name(path):
    """The scene's name by that of a folder or archive: without .SAFE, .zip or .tar."""
    name = os.path.basename(os.path.normpath(path))
    for ending in (*ARCHIVES, ".SAFE"):
        if name.lower().endswith(ending.lower()):
            name = name[: -len(ending)]
    return name


def is_safe(path):
    return path.rstrip("/").lower().endswith((".safe", ".safe.zip"))


def find_products(names):
    """[(Row, name of the scene, file that tells it)] among the names of a package's files."""
    return [(row, *scene) for row in ROWS for scene in row.find(names)]


def called(product, path, name):
    """A Product of a package that holds more than it: its path is `PATH#NAME`."""
    return replace(product, path=f"{path}#{name}")


def read_products(path, found=None):
    """
    [(name of the scene, Product)] of a folder or archive; several have paths of their own. found: of find_products, by default among all
    that is in it. One that cannot be used says so where it is opened.
    """
    name = product_name(path)
    try:
        package = Package(path)
        found = found or find_products(package.names)
        if not found and is_safe(path):
            raise UserError(f"{path} has no {' or '.join(METADATA_FILES)}; download it again")
    except UserError as error:
        return [(name, broken(path, name, error))]
    files = {}  # {scene: [(row, file)]}
    for row, scene, file in found:
        files.setdefault(scene or name, []).append((row, file))
    products = []
    for scene, rows in files.items():
        own = name if len(files) == 1 else scene
        try:
            if len(rows) > 1:
                raise UserError(f"{path} holds {len(rows)} of {scene} ({rows[0][1]}, {rows[1][1]} …); leave one in it")
            ((row, file),) = rows
            product = row.read(package, file, own)
        except UserError as error:
            product = broken(path, own, error)
        products.append((scene, product if len(files) == 1 else called(product, path, scene)))
    return products


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
    """The scene of an item collection's item, or of a package's product."""
    for scene in scenes:
        if str(scene) == f"{file}#{wanted}" or scene_name(scene) == wanted:
            return scene
    names = [scene_name(scene) for scene in scenes[:5]]
    raise UserError(f"{without_signature(file)} holds no item {wanted!r}; it has {', '.join(names) or 'none'}")


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
    clouds = sentinel2.number_of(properties.get("tile:clouds_percent"))
    return ProductScene(Product(
        path=path, name=name, kind="Maxar ARD", sensor="WorldView", level="surface",
        time=str(properties.get("datetime", "")).replace(" ", "T"), tile="-".join(item.name.split("/")[:2]), bands=bands,
        no_clouds="an ARD states its clouds as polygons",
        facts=(("satellite", platform), *((("clouds", f"{clouds:g} %"),) if clouds is not None else ())),
    ))


def product_scene(path, scenes=None):
    """The one ProductScene of a path or address; the path itself where it is a raster. scenes: of scenes_of_path, where they are known."""
    if isinstance(path, ProductScene):
        return path
    scenes = list_scenes(scenes or [path]) if scenes or is_product_path(path) else [path]
    if len(scenes) > 1:
        raise UserError(f"{path} holds {len(scenes)} scenes; name one of them, such as {scenes[0]}")
    return scenes[0]


def is_product_path(path):
    """Whether a path may be that of a product, by its form."""
    text = urlparse(str(path)).path if is_remote(path) else str(path)
    return not text.partition("#")[0].lower().endswith(RASTER_SUFFIXES)
