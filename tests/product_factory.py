"""Small products in the layout in which they are delivered: names, metadata, one file a band."""

import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin

CRS, CORNER = "EPSG:32632", (600_000, 4_900_020)
METRES = {"B01": 60, "B02": 10, "B03": 10, "B04": 10, "B05": 20, "B06": 20, "B07": 20, "B08": 10, "B8A": 20, "B09": 60, "B10": 60,
          "B11": 20, "B12": 20}
BAND_IDS = list(METRES)
S2_NAME = "S2B_MSI{level}_20220205T101211_N{baseline}_R022_T32TQM_20220205T120000"


def numbers(height, width, seed, low=200, high=6000):
    """(H, W) uint16, smooth with some noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(low, high, (height // 6 + 2, width // 6 + 2))
    return np.clip(np.kron(coarse, np.ones((6, 6)))[:height, :width] + rng.integers(-90, 90, (height, width)), low, high).astype(np.uint16)


def write_raster(path, array, metres, crs=CRS, corner=CORNER, driver=None, tags=None, nodata=None, **profile):
    """A raster whose upper left corner is the product's. array: (H, W) or (C, H, W)."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.asarray(array)
    array = array[None] if array.ndim == 2 else array
    driver = driver or ("JP2OpenJPEG" if path.suffix == ".jp2" else "GTiff")
    how = {"QUALITY": "100", "REVERSIBLE": "YES"} if driver == "JP2OpenJPEG" else {}
    with rasterio.open(
        path, "w", driver=driver, count=len(array), height=array.shape[1], width=array.shape[2], dtype=array.dtype, crs=crs, nodata=nodata,
        transform=from_origin(*corner, metres, metres), **how, **profile,
    ) as file:
        file.write(array)
        if tags:
            file.update_tags(**tags)
    path.with_name(f"{path.name}.aux.xml").unlink(missing_ok=True)
    return path


def sentinel2_pixels(side=60, seed=0, bands=METRES):
    """{band: (H, W) uint16} on a ground of side x side pixels of 10 m; side: a multiple of 6."""
    return {band: numbers(side * 10 // METRES[band], side * 10 // METRES[band], seed + number) for number, band in enumerate(bands)}


def make_safe(folder, level="L2A", baseline="04.00", side=60, seed=0, pixels=None, scl=None, classi=None, offsets="own",
              quantification=10_000, name=None, clouds=None):
    """
    A .SAFE folder; returns (its path, {band: stored values}). offsets: "own" as the baseline has them, {band_id: offset}, or None.
    scl: (H, W) at 20 m. classi: (3, H, W) at 60 m, of L1C. clouds: of L1C before baseline 04.00, see cloud_polygons.
    """
    name = name or S2_NAME.format(level=level, baseline=baseline.replace(".", ""))
    safe, granule = Path(folder) / f"{name}.SAFE", "GRANULE/L2A_T32TQM_A025687_20220205T101206"
    pixels = sentinel2_pixels(side, seed) if pixels is None else pixels
    day = name.split("_")[2][:8]
    images = []
    for band, array in pixels.items():
        metres = METRES[band]
        if level == "L2A" and band == "B10":
            continue
        image = (f"{granule}/IMG_DATA/R{metres}m/T32TQM_20220205T101211_{band}_{metres}m" if level == "L2A"
                 else f"{granule}/IMG_DATA/T32TQM_20220205T101211_{band}")
        images.append(image)
        write_raster(safe / f"{image}.jp2", array, metres)
    if level == "L2A":
        for band in {"B02", "B03", "B04"} & pixels.keys():  # the same bands in 20 m, as products have them: not to be taken
            images.append(f"{granule}/IMG_DATA/R20m/T32TQM_20220205T101211_{band}_20m")
            write_raster(safe / f"{images[-1]}.jp2", np.full((side // 2, side // 2), 7, np.uint16), 20)
        images.append(f"{granule}/IMG_DATA/R20m/T32TQM_20220205T101211_SCL_20m")
        write_raster(safe / f"{images[-1]}.jp2", np.full((side // 2, side // 2), 4, np.uint8) if scl is None else scl, 20)
    if classi is not None:
        write_raster(safe / f"{granule}/QI_DATA/MSK_CLASSI_B00.jp2", classi, 60)
    if clouds is not None:
        path = safe / f"{granule}/QI_DATA/MSK_CLOUDS_B00.gml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(cloud_polygons(clouds), encoding="utf-8")
    new = float(baseline) >= 4 if baseline.replace(".", "").isdigit() else False
    own = {number: -1000 for number in range(13)} if new else {}
    offsets = own if offsets == "own" else offsets or {}
    tag, parent, divisor = (("BOA_ADD_OFFSET", "BOA_ADD_OFFSET_VALUES_LIST", "BOA_QUANTIFICATION_VALUE") if level == "L2A" else
                            ("RADIO_ADD_OFFSET", "Radiometric_Offset_List", "QUANTIFICATION_VALUE"))
    listed = "".join(f'<{tag} band_id="{number}">{value}</{tag}>' for number, value in offsets.items())
    spectral = "".join(
        f'<Spectral_Information bandId="{number}" physicalBand="B{band[1:].lstrip("0")}"><Wavelength><CENTRAL unit="nm">{nm}</CENTRAL>'
        "</Wavelength></Spectral_Information>"
        for number, (band, nm) in enumerate(zip(BAND_IDS, (442.3, 492.1, 559.0, 665.0, 703.8, 739.1, 779.7, 833.0, 864.0, 943.2, 1376.9,
                                                           1610.4, 2185.7), strict=True))
    )
    (safe / f"MTD_MSI{level}.xml").write_text(f"""<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<n1:Level-{level[1:]}_User_Product xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/User_Product_Level-{level[1:]}.xsd">
<n1:General_Info><Product_Info><PRODUCT_START_TIME>{day[:4]}-{day[4:6]}-{day[6:]}T10:12:11.024Z</PRODUCT_START_TIME>
<PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE><Datatake><SPACECRAFT_NAME>Sentinel-2B</SPACECRAFT_NAME></Datatake>
<Product_Organisation><Granule_List><Granule>{"".join(f"<IMAGE_FILE>{image}</IMAGE_FILE>" for image in images)}</Granule></Granule_List>
</Product_Organisation></Product_Info><Product_Image_Characteristics>
<Special_Values><SPECIAL_VALUE_TEXT>NODATA</SPECIAL_VALUE_TEXT><SPECIAL_VALUE_INDEX>0</SPECIAL_VALUE_INDEX></Special_Values>
<Special_Values><SPECIAL_VALUE_TEXT>SATURATED</SPECIAL_VALUE_TEXT><SPECIAL_VALUE_INDEX>65535</SPECIAL_VALUE_INDEX></Special_Values>
<{divisor} unit="none">{quantification}</{divisor}>{f"<{parent}>{listed}</{parent}>" if listed else ""}
<Spectral_Information_List>{spectral}</Spectral_Information_List></Product_Image_Characteristics></n1:General_Info>
<n1:Quality_Indicators_Info><Cloud_Coverage_Assessment>12.5</Cloud_Coverage_Assessment></n1:Quality_Indicators_Info>
</n1:Level-{level[1:]}_User_Product>""", encoding="utf-8")
    return safe, pixels


def cloud_polygons(clouds, epsg=32632):
    """The text of a MSK_CLOUDS_B00.gml. clouds: [(OPAQUE or CIRRUS, [ring of (x, y), …])], the outer ring first."""
    members = []
    for number, (kind, rings) in enumerate(clouds):
        parts = [f'<gml:{"interior" if place else "exterior"}><gml:LinearRing><gml:posList srsDimension="2">'
                 f'{" ".join(f"{x:g} {y:.10g}" for x, y in [*ring, ring[0]])}</gml:posList></gml:LinearRing>'
                 f'</gml:{"interior" if place else "exterior"}>' for place, ring in enumerate(rings)]
        members.append(
            f'<eop:MaskFeature gml:id="{kind}.{number}"><eop:maskType codeSpace="urn:gs2:S2PDGS:maskType">{kind}</eop:maskType>'
            f'<eop:extentOf><gml:Polygon gml:id="{kind}.{number}_Polygon" srsName="urn:ogc:def:crs:EPSG:8.7.1:{epsg}">{"".join(parts)}'
            "</gml:Polygon></eop:extentOf></eop:MaskFeature>")
    inner = f"<eop:maskMembers>{''.join(members)}</eop:maskMembers>" if members else "<eop:maskMembers/>"
    return ('<?xml version="1.0" encoding="UTF-8"?>\n<eop:Mask xmlns:eop="http://www.opengis.net/eop/2.0" '
            f'xmlns:gml="http://www.opengis.net/gml/3.2" gml:id="S2A_OPER_MSK_CLOUDS_B00_MSIL1C">{inner}</eop:Mask>')


def zipped(folder, keep_root=True):
    """A .zip of a folder, beside it, as products are downloaded."""
    folder = Path(folder)
    path = folder.with_name(f"{folder.name}.zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder.parent if keep_root else folder))
    return path


def tarred(folder, prefix=""):
    """A .tar of the files of a folder, without the folder, as Landsat comes. prefix: of their names, `./` as of `tar cf x.tar .`."""
    folder = Path(folder)
    path = folder.with_name(f"{folder.name}.tar")
    with tarfile.open(path, "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.add(file, f"{prefix}{file.name}")
    return path


LANDSAT = "LC09_L2SP_193028_20220206_20220208_02_T1"


def make_landsat(folder, side=24, seed=0, qa=None, form="txt", factors=True, satellite="LANDSAT_9", level="L2SP"):
    """A folder of a Landsat product; returns (its path, {"B1": stored values, …})."""
    place = Path(folder) / LANDSAT
    pixels = {f"B{number}": numbers(side, side, seed + number, 7500, 30_000) for number in range(1, 8)}
    contents = {"PROCESSING_LEVEL": level, "COLLECTION_NUMBER": "02"}
    for band, array in pixels.items():
        file = f"{LANDSAT}_SR_{band}.TIF"
        write_raster(place / file, array, 30, nodata=0)
        contents[f"FILE_NAME_BAND_{band[1:]}"] = file
    contents["FILE_NAME_QUALITY_L1_PIXEL"] = f"{LANDSAT}_QA_PIXEL.TIF"
    qa = np.full((side, side), 21824, np.uint16) if qa is None else qa  # clear
    write_raster(place / contents["FILE_NAME_QUALITY_L1_PIXEL"], qa, 30, nodata=1)
    reflectance = {}
    for number in range(1, 8) if factors else ():
        reflectance |= {f"REFLECTANCE_MULT_BAND_{number}": "2.75e-05", f"REFLECTANCE_ADD_BAND_{number}": "-0.2"}
    groups = {
        "PRODUCT_CONTENTS": contents,
        "IMAGE_ATTRIBUTES": {"SPACECRAFT_ID": satellite, "WRS_PATH": "193", "WRS_ROW": "28", "DATE_ACQUIRED": "2022-02-06",
                             "SCENE_CENTER_TIME": "10:10:10.0000000Z", "CLOUD_COVER": "3.21"},
        "LEVEL2_SURFACE_REFLECTANCE_PARAMETERS": reflectance,
        # of Level 1: not to be taken
        "LEVEL1_RADIOMETRIC_RESCALING": {
            f"REFLECTANCE_{what}_BAND_{n}": value for n in range(1, 8) for what, value in (("MULT", "2e-05"), ("ADD", "-0.1"))
        },
    }
    if form == "json":
        text = json.dumps({"LANDSAT_METADATA_FILE": groups})
    elif form == "xml":
        inner = "".join(f"<{g}>{''.join(f'<{k}>{v}</{k}>' for k, v in facts.items())}</{g}>" for g, facts in groups.items())
        text = f"<?xml version='1.0'?><LANDSAT_METADATA_FILE>{inner}</LANDSAT_METADATA_FILE>"
    else:
        lines = ["GROUP = LANDSAT_METADATA_FILE"]
        for group, facts in groups.items():
            quoted = [f"    {key} = {value}" if value[0] in "-0123456789." and not key.startswith(("FILE", "DATE", "COLL")) else
                      f'    {key} = "{value}"' for key, value in facts.items()]
            lines += [f"  GROUP = {group}", *quoted, f"  END_GROUP = {group}"]
        text = "\n".join([*lines, "END_GROUP = LANDSAT_METADATA_FILE", "END", ""])
    (place / f"{LANDSAT}_MTL.{form}").write_text(text, encoding="utf-8")
    return place, pixels


def make_hls(folder, kind="S30", side=24, seed=0, fmask=None, day="2022036"):
    """A folder of an HLS granule; returns (its path, {band of its file names: stored values})."""
    name = f"HLS.{kind}.T32TQM.{day}T101211.v2.0"
    place = Path(folder) / name
    bands = [band for band in METRES if band != "B10"] if kind == "S30" else [f"B{n:02d}" for n in range(1, 8)]
    pixels = {}
    for number, band in enumerate(bands):
        pixels[band] = numbers(side, side, seed + number, 100, 5000).astype(np.int16)
        write_raster(place / f"{name}.{band}.tif", pixels[band], 30, nodata=-9999, tags={"scale_factor": "0.0001", "add_offset": "0.0"})
    write_raster(place / f"{name}.Fmask.tif", np.full((side, side), 64, np.uint8) if fmask is None else fmask, 30, nodata=255)
    return place, pixels


def make_planet(folder, eight=True, side=24, seed=0, udm2=None, name="20220205_101211_34_2416"):
    """A folder of a PlanetScope scene; returns (its path, (C, H, W) stored values)."""
    place, count = Path(folder) / f"planet_{name}", 8 if eight else 4
    pixels = np.stack([numbers(side, side, seed + number) for number in range(count)])
    write_raster(place / f"{name}_3B_AnalyticMS_SR{'_8b' * eight}.tif", pixels, 3, nodata=0)
    mask = np.zeros((8, side, side), np.uint8)
    mask[0] = 1
    write_raster(place / f"{name}_3B_udm2.tif", mask if udm2 is None else udm2, 3)
    (place / f"{name}_3B_AnalyticMS{'_8b' * eight}_metadata.xml").write_text(
        '<ps:EarthObservation xmlns:ps="p" xmlns:eop="e"><eop:Instrument><eop:shortName>PSB.SD</eop:shortName></eop:Instrument>'
        "<ps:acquisitionDateTime>2022-02-05T10:12:11+00:00</ps:acquisitionDateTime><ps:columnSpacing>3.0</ps:columnSpacing>"
        "</ps:EarthObservation>", encoding="utf-8")
    return place, pixels


def stac_item(assets, name="S2B_32TQM_20220205_0_L2A", **properties):
    """A STAC item. assets: {key: asset}."""
    return {
        "type": "Feature", "stac_version": "1.0.0", "id": name, "collection": "sentinel-2-l2a", "geometry": None, "links": [],
        "properties": {"datetime": "2022-02-05T10:12:11Z", "platform": "sentinel-2b", "eo:cloud_cover": 12.5, **properties},
        "assets": assets,
    }


def stac_asset(href, common, micrometres=None, name=None, scale=0.0001, offset=-0.1, **more):
    """An asset with one band in the form of STAC 1.0."""
    return {
        "href": str(href), "type": "image/tiff; application=geotiff; profile=cloud-optimized", "roles": ["data"],
        "eo:bands": [{"name": name or common, "common_name": common, **({"center_wavelength": micrometres} if micrometres else {})}],
        "raster:bands": [{"nodata": 0, "data_type": "uint16", "scale": scale, "offset": offset}] if scale else [{"nodata": 0}], **more,
    }


STAC_BANDS = {"blue": ("B02", 0.49), "green": ("B03", 0.56), "red": ("B04", 0.665), "nir": ("B08", 0.842), "nir08": ("B8A", 0.865),
              "swir16": ("B11", 1.61), "swir22": ("B12", 2.19)}


def make_item(folder, side=60, seed=0, name="S2B_32TQM_20220205_0_L2A", prefix="", file="item.json", scl=None, **properties):
    """A folder with COGs and an item that names them; returns (path of the item, {band: stored values}). prefix: of the hrefs."""
    folder, pixels, assets = Path(folder), {}, {}
    for number, (common, (band, micrometres)) in enumerate(STAC_BANDS.items()):
        metres = METRES[band]
        pixels[band] = numbers(side * 10 // metres, side * 10 // metres, seed + number)
        write_raster(folder / f"{common}.tif", pixels[band], metres, nodata=0, tiled=True, blockxsize=16, blockysize=16, compress="deflate")
        assets[common] = stac_asset(f"{prefix}{common}.tif", common, micrometres)
    write_raster(folder / "scl.tif", np.full((side // 2, side // 2), 4, np.uint8) if scl is None else scl, 20, nodata=0)
    assets["scl"] = {"href": f"{prefix}scl.tif", "type": "image/tiff", "roles": ["data"]}
    assets["visual"] = {"href": f"{prefix}visual.tif", "type": "image/tiff", "roles": ["visual"], "eo:bands": [{"common_name": "red"}]}
    path = folder / file
    path.write_text(json.dumps(stac_item(assets, name, **properties)), encoding="utf-8")
    return path, pixels
