"""A raster whose handle is not used again after a read has failed."""

from rasterio.errors import RasterioError, RasterioIOError

from runtime.network import without_signature


class Reopened:
    """
    A rasterio dataset, read as one; after a failed read the next one begins with a new handle.

    GDAL answers a second read from where the first one stopped: of a JPEG that is cut off, with grey pixels and no error.
    """

    def __init__(self, opener):
        """opener() → an open rasterio dataset."""
        self.opener, self.dataset = opener, opener()

    def __getattr__(self, name):
        return getattr(self.opened(), name)

    def opened(self):
        if self.dataset is None:
            self.dataset = self.opener()
        return self.dataset

    def read(self, *words, **how):
        return self.attempt("read", words, how)

    def read_masks(self, *words, **how):
        return self.attempt("read_masks", words, how)

    def dataset_mask(self, *words, **how):
        return self.attempt("dataset_mask", words, how)

    def attempt(self, method, words, how):
        try:
            return getattr(self.opened(), method)(*words, **how)
        except RasterioError as error:
            self.close()
            words = str(error.__cause__ or error)  # GDAL's own may name an address with its signature
            if (plain := without_signature(words)) != words:
                raise RasterioIOError(plain) from None
            raise

    def close(self):
        dataset, self.dataset = self.dataset, None
        if dataset is not None:
            dataset.close()
