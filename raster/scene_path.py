"""The path of a scene that is not one raster file but stands for several, opened by what it knows of them."""


class ScenePath(str):
    """
    A path or address, equal to its text, that raster.source opens as a raster through these methods (raster/product_scene.py has them).

    It can be pickled, and goes wherever the path of a raster goes. Text that is made of it, such as str(path), is a plain string again.
    """

    name = ""  # of the scene in chips, maps and tables
    leads_to_servers = False  # some of its pixels come from there

    def gdal_options(self):
        """Options of rasterio.Env for reading it."""
        raise NotImplementedError

    def opened(self):
        """What reads as a rasterio dataset, within those options. UserError."""
        raise NotImplementedError

    def described(self):
        """RasterInfo. UserError."""
        raise NotImplementedError
