"""What a person sees of one picture of a data set: small views of it, and the weights that the loss will use.

Everything goes the way of the cache and of training: the same reading, geometry, mask and reduction.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from ..cache.buckets import assign
from ..cache.builder import shrink_mask
from ..cache.crops import plan_crop
from ..cache.infill import Infill, apply_infill
from ..cache.plan import KINDS, Entry, Shrink, is_hard
from ..cache.shots import ClipRule
from ..dataset.geometry import Geometry, apply_image, apply_mask
from ..dataset.sample import Dataset, Sample, fit_mask, load_mask, load_sample
from ..loss.masks import effective_weights
from ..pictures.packed_mask import decode_mask, encode_mask
from ..settings import CacheSettings, LossSettings, check_choice
from .pairs import draw_pair
from .sheet import draw_view, small
from .tint import standing_out
from .views import OPACITY, latent_grid

VIEWS = ("overlay", "mask", "cut-out", "latent grid", "picture", "pair")
THUMBNAIL = 192


@dataclass(frozen=True)
class Lens:
    """How the loss will look at a picture.

    Attributes:
        loss: Its settings; what chance decides in each step is left out.
        stride: Pixels of the training picture per latent cell.
        rule: What the VAE makes of clips; that of one for pictures where none is known.
    """

    loss: LossSettings
    stride: int
    rule: ClipRule = field(default_factory=ClipRule)


def plan_looks(dataset: Dataset, settings: CacheSettings, *, stride: int) -> list[Geometry]:
    """Each picture's geometry in a cache of `settings`, without reading a file; for crops that follow no mask.

    Raises:
        ConfigError, DataError: as `assign`.
    """
    sizes, names = [s.size for s in dataset.samples], [s.name for s in dataset.samples]
    buckets = assign(sizes, settings, multiple=stride, names=names)
    return [
        plan_crop(size, bucket, settings, box=None, random=None) for size, bucket in zip(sizes, buckets, strict=True)
    ]


def picture_weights(sample: Sample, geometry: Geometry, lens: Lens, *, shrink: Shrink | None = None) -> np.ndarray:
    """The weight of every latent cell in the loss: float32 (h, w) in 0..1.

    Mask probability, edge jitter and noise blur are drawn anew in each step; here they are off.

    Args:
        sample: Its mask is read; without one all cells weigh 1 before the loss's own settings.
        geometry: Where its pixels go in the training picture.
        lens: See `Lens`.
        shrink: How the variant's mask is shrunk.

    Raises:
        DataError, MaskError: The mask cannot be read.
    """
    mask = load_mask(sample)
    if mask is None:
        mask = np.ones(sample.size[::-1], np.float32)
    fitted = shrink_mask(apply_mask(mask, geometry, hard=is_hard(sample)), shrink)
    # Through the cache's own steps of 1/65535.
    stored = decode_mask(*encode_mask(fitted))
    width, height = geometry.size
    settled = dataclasses.replace(lens.loss, mask_probability=1.0, edge_jitter=0.0, noise_blur=0.0)
    with torch.inference_mode(False), torch.no_grad():
        weights = effective_weights(stored[None], settled, grid=(height // lens.stride, width // lens.stride))
    return weights[0, 0].numpy()


def crop_corners(geometry: Geometry) -> list[tuple[float, float]]:
    """The corners of what the training picture shows, (x, y) in pixels of the source, around the box.

    Whole numbers are the edges of pixels.
    """
    _, _, width, height = geometry.crop
    matrix = geometry.turn()
    corners = []
    for x, y in ((0, 0), (width, 0), (width, height), (0, height)):
        across, down = matrix @ [x - 0.5, y - 0.5, 1]
        scale_x, scale_y = geometry.source[0] / geometry.resized[0], geometry.source[1] / geometry.resized[1]
        corners.append((float((across + 0.5) * scale_x), float((down + 0.5) * scale_y)))
    return corners


def draw_thumbnail(
    sample: Sample,
    geometry: Geometry,
    lens: Lens,
    *,
    view: str,
    side: int,
    colour: tuple[int, int, int] | None = None,
    opacity: float = OPACITY,
) -> np.ndarray:
    """A small picture of one sample in one of `VIEWS`: uint8 (H, W, 3), its longer side `side` px.

    The latent grid shows the training picture, a pair the references too, everything else the whole picture. A `colour`
    of None is the tint that stands out from the picture.

    Raises:
        ConfigError: An unknown view.
        DataError, MaskError: The picture or mask cannot be read.
    """
    check_choice("view", view, VIEWS)
    if view == "pair":
        return draw_pair(sample, side=side)
    loaded = load_sample(sample)
    if view == "latent grid":
        weights = picture_weights(sample, geometry, lens)
        return latent_grid(small(apply_image(loaded.rgb, geometry, resize="area"), side), weights)
    rgb = small(loaded.rgb, side)
    if view == "picture":
        return rgb
    return draw_view(rgb, fit_mask(loaded.mask, (rgb.shape[1], rgb.shape[0])), view, colour=colour, opacity=opacity)


def standing_tints(sample: Sample) -> dict[str, str]:
    """The tint that stands out from a picture, as "#rrggbb", by what it lies on: "ignored" and "learned".

    Raises:
        DataError, MaskError: The picture or mask cannot be read.
    """
    loaded = load_sample(sample)
    # As large as a thumbnail, whose tint is then the same.
    rgb = small(loaded.rgb, THUMBNAIL)
    mask = fit_mask(loaded.mask, (rgb.shape[1], rgb.shape[0]))
    return {on: "#" + bytes(standing_out(rgb, mask, on=on)).hex() for on in ("ignored", "learned")}


def learned_levels(sample: Sample) -> np.ndarray:
    """The mask after its transforms, uint8 (H, W) at the picture's size; white where there is none."""
    mask = load_mask(sample)
    if mask is None:
        return np.full(sample.size[::-1], 255, np.uint8)
    return np.rint(fit_mask(mask, sample.size) * 255).astype(np.uint8)


def draw_infill(
    samples: Sequence[Sample], index: int, geometry: Geometry, infill: Infill, *, resize: str
) -> np.ndarray:
    """Sample `index` at the training size with its background replaced, as the cache encodes it: uint8 (H, W, 3).

    Raises:
        DataError, MaskError: A picture or mask cannot be read.
    """
    sample = samples[index]
    loaded = load_sample(sample)
    shown = apply_mask(loaded.shown, geometry, hard=is_hard(sample))
    donor = None if infill.donor is None else load_sample(samples[infill.donor])
    return apply_infill(apply_image(loaded.rgb, geometry, resize=resize), shown, infill, donor=donor)


def stale_kinds(before: Entry, now: Entry) -> list[str]:
    """Which of an entry's kinds (latent, mask, text, reference) a cache that holds `before` lacks for `now`."""
    lacking = {kind for kind, _ in now.cached - before.cached}
    return [kind for kind in KINDS if kind in lacking]
