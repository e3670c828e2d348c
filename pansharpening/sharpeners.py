"""What sharpens a block: a trained network, or a classical method with the statistics of the whole image."""

import functools
from dataclasses import dataclass, replace

import torch

from mapping.weights_hash import weights_hash
from pansharpening.blocks import blocks_of, read_block, reading_errors, with_apron
from pansharpening.classical import fuse_with, gather_moments
from pansharpening.consistency import BACK_PROJECTION_REACH, finished
from pansharpening.network import pansharpener_from_checkpoint, with_old_names
from raster.pair import PairReader
from runtime.device import Compute
from runtime.errors import UserError

CLASSICAL_REACH = 6  # ms pixels that the classical methods look beyond a pixel, one to spare
ON_CPU = Compute(device=torch.device("cpu"))


@dataclass
class Sharpener:
    """
    run(ms (1, C, h, w), pan (1, 1, H, W)) -> (1, C, H, W) reflectance, or (1, 3, H, W) Oklab where target is "oklab".

    reach: pan pixels that it looks beyond a pixel. name: for tags. prepare(): reads what run needs of the whole image, once; else the first
    run does.
    """

    run: object
    reach: int
    target: str
    name: str
    prepare: object = lambda: None

    def back_projected_if(self, is_so, ratio):
        """This sharpener, whose `run` does that already, with the name and the reach that go with it."""
        if not is_so:
            return self
        return replace(self, reach=self.reach + BACK_PROJECTION_REACH * ratio, name=f"{self.name}, back-projected")


def network_of(checkpoint, compute=ON_CPU):
    """The network of a pansharpening checkpoint (a dict as loaded; its "network" in place of weights), where it is to run."""
    return compute.place(checkpoint.get("network") or pansharpener_from_checkpoint(checkpoint)).eval()


def network_sharpener(checkpoint, compute=ON_CPU, back_projection=False, matching=None, model=None):
    """
    Sharpener of a pansharpening checkpoint. compute: runtime.device.Compute. matching: of pansharpening.matching, or None. model: its
    network_of, where it is at hand.
    """
    model = model or network_of(checkpoint, compute)
    target, ratio = checkpoint["data"]["target"], checkpoint["data"]["ratio"]
    back_projection = back_projection and target == "bands"

    @torch.no_grad()
    def run(ms, pan):
        ms, pan = ms.to(compute.device), pan.to(compute.device)
        inputs = matching.inputs(ms, pan) if matching else (ms, pan)
        with compute.autocast():
            image = model(*inputs).float()
        image = matching.output(image) if matching else image
        return finished(image, ms.to(image.device), target, ratio, back_projection).cpu()

    name = f"network {weights_hash(with_old_names(model.state_dict()))}{', matched' if matching else ''}"
    return Sharpener(run, checkpoint["data"]["reach"], target, name).back_projected_if(back_projection, ratio)


def classical_sharpener(method, pair, scale, block, back_projection=False):
    """Sharpener of a named method; those that need statistics of the whole image make a first pass over it. block: pan pixels."""
    moments = functools.cache(lambda: None if method == "bicubic" else image_moments(pair, scale, block))

    def run(ms, pan):
        return fuse_with(method, ms, pan, pair.ratio, moments(), back_projection)

    return Sharpener(run, CLASSICAL_REACH * pair.ratio, "bands", method, moments).back_projected_if(back_projection, pair.ratio)


def image_moments(pair, scale, block):
    """Moments of the whole image, streamed. Nodata takes no part."""
    total, apron = None, CLASSICAL_REACH
    with PairReader(pair) as reader, reading_errors(pair):
        for core in blocks_of(pair.area, max(1, block // pair.ratio)):
            window, cut = with_apron(core, pair, apron)
            ms, pan, nodata = read_block(reader, window, scale, apron)
            inside = torch.zeros_like(nodata)
            inside[:, :, cut[0], cut[1]] = True
            part = gather_moments(ms, pan, pair.ratio, valid=inside & ~nodata)
            total = part if total is None else total + part
    if not total.count:
        raise UserError(f"{pair.ms} and {pair.pan} have no valid pixel in common")
    return total
