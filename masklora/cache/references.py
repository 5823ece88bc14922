"""References in the cache: where their pixels go, and the keys of their latents."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from ..dataset.geometry import Geometry, apply_image, apply_mask, plan_geometry
from ..dataset.references import aspect_faults, load_reference
from ..dataset.sample import Reference, Sample
from ..errors import DataError
from ..folder.leftovers import NAMES_SHOWN
from ..settings import OWN_SIZE, CacheSettings
from .fill import apply_fill
from .keys import reference_key

# Every model takes references whose sides divide by this, and by the VAE's stride.
STEP = 16


def check_shared(samples: Iterable[Sample]) -> None:
    """Nothing if the references of these can share their pictures' geometry.

    Raises:
        DataError: Some are of another aspect; names the first ones.
    """
    faults = [fault for sample in samples for fault in aspect_faults(sample)]
    if faults:
        more = f"; and {len(faults) - NAMES_SHOWN} more" if len(faults) > NAMES_SHOWN else ""
        raise DataError(
            f"{'; '.join(faults[:NAMES_SHOWN])}{more}. Save the reference at the picture's aspect, or set "
            "reference_size in Cache Dataset to own size."
        )


def infills_references(settings: CacheSettings) -> bool:
    """Whether replaced backgrounds are put behind references too, which needs the pictures' own geometry."""
    return settings.infill_reference == "target and reference" and settings.reference_size != OWN_SIZE


def reference_geometries(
    sample: Sample, geometry: Geometry, settings: CacheSettings, *, stride: int
) -> tuple[Geometry, ...]:
    """Where the pixels of a sample's references go, in order, where its own go by `geometry`.

    As the target: by the very same resize, crop, turn and flip, whatever the reference's scale. At their own size: the
    whole reference but for the rest of a division, about as many pixels as the target has, not enlarged unless
    `upscale` says so; flipped as the target is.

    Args:
        sample: With its references.
        geometry: Of one of its variants.
        settings: Of the cache.
        stride: Pixels per latent cell.

    Raises:
        DataError: A reference is smaller than one step.
    """
    if settings.reference_size != OWN_SIZE:
        return tuple(replace(geometry, source=one.size) for one in sample.references)
    return tuple(_own(sample, one, geometry, settings, step=math.lcm(STEP, stride)) for one in sample.references)


def own_size(size: tuple[int, int], pixels: int, *, step: int, upscale: bool) -> tuple[int, int]:
    """The (width, height) nearest to a picture's own aspect at about `pixels`, both divided by `step`.

    Args:
        size: Width and height of the picture.
        pixels: Wanted, of width times height.
        step: What both sides divide by; none is smaller.
        upscale: Whether it may become larger than it is.
    """
    width, height = size
    scale = math.sqrt(pixels / (width * height))
    if not upscale:
        scale = min(scale, 1.0)
    sides = [max(step, round(side * scale / step) * step) for side in size]
    if not upscale:
        sides = [min(side, max(step, length // step * step)) for side, length in zip(sides, size, strict=True)]
    return sides[0], sides[1]


def _own(sample: Sample, one: Reference, geometry: Geometry, settings: CacheSettings, *, step: int) -> Geometry:
    if min(one.size) < step and not settings.upscale:
        raise DataError(
            f"{sample.name}: its reference {one.name} is {one.size[0]}×{one.size[1]}, smaller than {step} pixels. "
            "Save a larger one, or allow upscaling."
        )
    pixels = geometry.size[0] * geometry.size[1]
    size = own_size(one.size, pixels, step=step, upscale=settings.upscale)
    return replace(plan_geometry(one.size, size, upscale=settings.upscale), flip=geometry.flip)


def reference_keys(
    sample: Sample, digests: Sequence[str], geometries: Sequence[Geometry], *, resize: str, encoder: str
) -> tuple[str, ...]:
    """Keys of the latents of a sample's references.

    Args:
        sample: With its references.
        digests: Of their bytes.
        geometries: From `reference_geometries`.
        resize: Kernel of the resize.
        encoder: Identity of the VAE.
    """
    fill = sample.settings.fill
    return tuple(
        reference_key(
            image,
            geometry,
            resize=resize,
            fill=fill if one.alpha and fill != "keep" else None,
            encoder=encoder,
        )
        for one, image, geometry in zip(sample.references, digests, geometries, strict=True)
    )


def reference_pixels(reference: Reference, geometry: Geometry, *, resize: str, fill: str, seed: int) -> np.ndarray:
    """A reference as the VAE sees it, before any infill: uint8 (H, W, 3) of `geometry.size`.

    What its own alpha leaves out is filled as that of pictures is.

    Raises:
        DataError: It cannot be read, or changed its size since.
    """
    data = load_reference(reference)
    rgb = apply_image(data.rgb, geometry, resize=resize)
    if fill == "keep" or data.alpha is None:
        return rgb
    return apply_fill(rgb, apply_mask(data.alpha, geometry), fill, seed=seed)
