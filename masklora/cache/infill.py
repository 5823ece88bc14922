"""Random background infill: variants of a picture whose background was replaced before the VAE sees it.

The loss mask hides the background from the loss, not from the network: it still sees it, and learns to paint
the subject only where that background is. With variants to choose from at each step, the background tells
nothing. Never always, never one constant: always erasing hurts as well.

Source: C. Ma et al., "MagicTailor", 2024 (always erased backgrounds hurt); our own benchmark of remedies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ..dataset.geometry import apply_image, apply_mask, plan_geometry
from ..dataset.sample import LoadedSample
from ..errors import MaskError
from ..loss.masks import grow_mask
from ..settings import INFILLS
from .donors import Donors, chance
from .fill import still_plate

MIXED, FLAT, BLUR, OTHER, INPAINT = INFILLS
KINDS = (FLAT, OTHER, BLUR, INPAINT)
# Those that are made of the clip itself.
STILL_INFILLS = (BLUR, INPAINT)
SOFT_EDGE_SHARE = 1 / 128
BLUR_SHARE = 1 / 6
# Telea fills a large hole in seconds at full size; a background needs no more detail than this.
INPAINT_SIDE = 256
INPAINT_RADIUS = 3
EMPTY = 1e-3


@dataclass(frozen=True)
class Infill:
    """One replaced background: its kind, for a flat colour the seed, for another picture whose it is.

    `donor` is the index of a sample of the data set, None for the other kinds.
    """

    kind: str
    seed: int = 0
    donor: int | None = None


def infill_kinds(key: str, *, kind: str, count: int, seed: int) -> list[str]:
    """The kinds of a sample's infills, in order.

    Args:
        key: The sample's unique key.
        kind: "mixed" takes the kinds in turn, a flat colour first, because it alone tells nothing of the set's
            backgrounds, then the others in an order of the sample's own; else one kind for all.
        count: How many.
        seed: Of the cache.
    """
    random = np.random.default_rng(chance("infill", seed, key))
    others = [KINDS[1:][i] for i in random.permutation(len(KINDS) - 1)]
    order = [FLAT, *others] if kind == MIXED else [kind]
    return [order[number % len(order)] for number in range(count)]


def plan_set(
    keys: Sequence[str], counts: Sequence[int], *, kind: str, seed: int, donors: Donors, as_before: bool = False
) -> list[tuple[Infill, ...]]:
    """The infills of all samples of a data set.

    Args:
        keys: The samples' unique keys.
        counts: How many each gets at most; 0 for one without a mask.
        kind: As for `infill_kinds`.
        seed: Of the cache.
        donors: Of the same samples.
        as_before: Lend as earlier versions of the pack did; see `Donors.lend_as_before`.
    """
    kinds = [infill_kinds(key, kind=kind, count=count, seed=seed) for key, count in zip(keys, counts, strict=True)]
    wanted = [those.count(OTHER) for those in kinds]
    if as_before:
        places = [
            [chance("infill", seed, key, number) for number, one in enumerate(those) if one == OTHER]
            for key, those in zip(keys, kinds, strict=True)
        ]
        lent = donors.lend_as_before(wanted, places)
    else:
        lent = donors.lend(wanted, seed=seed)
    return [plan_infills(*one[:2], seed=seed, lent=one[2]) for one in zip(keys, kinds, lent, strict=True)]


def plan_infills(key: str, kinds: Sequence[str], *, seed: int, lent: Sequence[int]) -> tuple[Infill, ...]:
    """The infills of one sample, decided by seed and key so that an entry is made alike every time.

    Args:
        key: The sample's unique key.
        kinds: From `infill_kinds`.
        seed: Of the cache.
        lent: The samples that lend it their backgrounds, see `donors`. Where none does, a flat colour stands in.

    Returns:
        At most one for each kind, no two alike: there is but one blur and one inpainting of a picture, and each
        other picture lends its background once.
    """
    found: dict[Infill, None] = {}
    donors = iter(lent)
    for number, chosen in enumerate(kinds):
        donor = next(donors, None) if chosen == OTHER else None
        if donor is not None:
            found[Infill(OTHER, donor=donor)] = None
        elif chosen == FLAT or (chosen == OTHER and not lent):
            found[Infill(FLAT, chance("infill", seed, key, number))] = None
        elif chosen != OTHER:
            found[Infill(chosen)] = None
    return tuple(found)


def apply_infill(rgb: np.ndarray, mask: np.ndarray, infill: Infill, *, donor: LoadedSample | None = None) -> np.ndarray:
    """The picture with its background replaced; where the mask is 1 every pixel stays as it was.

    A soft edge of σ = 1/128 of the short side outside the mask hides the seam; a grey mask mixes in proportion.

    Args:
        rgb: uint8 (H, W, 3) at the training size; not changed.
        mask: float32 (H, W) in 0..1, 1 = learn, of the same size.
        infill: What to put there.
        donor: The decoded sample that `infill.donor` names.

    Returns:
        uint8 (H, W, 3), deterministic. Blur and inpainting of a picture without background, or without
        foreground, give a flat colour.

    Raises:
        MaskError: The sizes differ, or an infill from another picture lacks its donor.
    """
    _check_sizes(rgb, mask, infill, donor)
    return _behind(rgb, mask, _background(rgb, mask, infill, donor))


def _check_sizes(rgb: np.ndarray, mask: np.ndarray, infill: Infill, donor: LoadedSample | None) -> None:
    if mask.shape != rgb.shape[:2] or (infill.kind == OTHER and donor is None):
        raise MaskError(
            f"infill: expected a mask of the picture's size {rgb.shape[1]}×{rgb.shape[0]}"
            f"{' and the other picture' if infill.kind == OTHER else ''}, got {mask.shape[1]}×{mask.shape[0]}."
        )


def infill_clip(
    frames: np.ndarray, masks: np.ndarray, infill: Infill, *, donor: LoadedSample | None = None
) -> np.ndarray:
    """A clip with its background replaced as `apply_infill` does, by one still that lies behind all its frames.

    Args:
        frames: uint8 (F, H, W, 3) at the training size; not changed.
        masks: float32 (F, H, W) in 0..1, 1 = learn, of the same size.
        infill: What to put there.
        donor: The decoded sample that `infill.donor` names.

    Returns:
        uint8 (F, H, W, 3), deterministic. A blur is of what is background over time, an inpainting of the frame of
        which most is foreground.

    Raises:
        MaskError: The sizes differ, or an infill from another picture lacks its donor.
        ValueError: The numbers of frames differ.
    """
    _check_sizes(frames[0], masks[0], infill, donor)
    background = _still_background(frames, masks, infill, donor)
    return np.stack([_behind(frame, mask, background) for frame, mask in zip(frames, masks, strict=True)])


def _behind(rgb: np.ndarray, mask: np.ndarray, background: np.ndarray) -> np.ndarray:
    weight = soft_edge(mask)[..., None]
    mixed = rgb.astype(np.float32) * weight + background.astype(np.float32) * (1 - weight)
    return np.rint(mixed).clip(0, 255).astype(np.uint8)


def _still_background(frames: np.ndarray, masks: np.ndarray, infill: Infill, donor: LoadedSample | None) -> np.ndarray:
    if infill.kind == BLUR and 1 - float(masks.mean()) > EMPTY:
        return _blurred(*_background_over_time(frames, masks))
    if infill.kind == INPAINT:
        plate = still_plate(frames, masks > 0.5, _inpaint)
        if plate is not None:
            return plate
    # What is left hangs on no frame; white stands for a mask that neither blur nor inpainting begins with.
    return _background(frames[0], np.ones_like(masks[0]), infill, donor)


def _background_over_time(frames: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean of what is background, float32 (H, W, 3), and how much each pixel is so in some frame, (H, W)."""
    colours = np.zeros(frames.shape[1:], np.float32)
    times, most = np.zeros(masks.shape[1:], np.float32), np.zeros(masks.shape[1:], np.float32)
    for frame, mask in zip(frames, masks, strict=True):
        outside = 1 - mask
        colours += frame * outside[..., None]
        times += outside
        most = np.maximum(most, outside)
    return colours / np.maximum(times, EMPTY)[..., None], most


def soft_edge(mask: np.ndarray) -> np.ndarray:
    """The mask with a Gaussian slope added outside of it: float32 (H, W), nowhere below the mask."""
    sigma = max(1.0, min(mask.shape) * SOFT_EDGE_SHARE)
    return np.maximum(mask, cv2.GaussianBlur(mask, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)).clip(0, 1)


def donor_background(donor: LoadedSample, size: tuple[int, int]) -> np.ndarray:
    """Another picture at `size` (width, height) with its own subject inpainted away: uint8 (H, W, 3).

    A picture without a mask is taken as it is: nothing says where its subject is.
    """
    source = donor.rgb.shape[1], donor.rgb.shape[0]
    geometry = plan_geometry(source, size, upscale=True)
    rgb = apply_image(donor.rgb, geometry, resize="area")
    if not donor.has_mask:
        return rgb
    mask = apply_mask(donor.shown, geometry)
    # Resizing has mixed the subject into the pixels around it.
    share = soft_edge(grow_mask(mask, radius=2 + min(mask.shape) * SOFT_EDGE_SHARE))
    patched = rgb * (1 - share[..., None]) + _inpaint(rgb, share > EMPTY).astype(np.float32) * share[..., None]
    return np.rint(patched).clip(0, 255).astype(np.uint8)


def _background(rgb: np.ndarray, mask: np.ndarray, infill: Infill, donor: LoadedSample | None) -> np.ndarray:
    if infill.kind == OTHER and donor is not None:
        return donor_background(donor, (rgb.shape[1], rgb.shape[0]))
    outside = 1 - mask
    if infill.kind == BLUR and float(outside.mean()) > EMPTY:
        return _blurred(rgb, outside)
    if infill.kind == INPAINT and bool((mask > 0.5).any()) and not bool((mask > 0.5).all()):
        return _inpaint(rgb, mask <= 0.5)
    colour = np.random.default_rng(infill.seed).integers(0, 256, 3, dtype=np.uint8)
    return np.broadcast_to(colour, rgb.shape)


def _blurred(rgb: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """The background alone, blurred strongly: the subject's colours do not run into it."""
    height, width = outside.shape
    scale = min(1.0, INPAINT_SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(outside, size, interpolation=cv2.INTER_AREA)
    weighted = cv2.resize(rgb * outside[..., None], size, interpolation=cv2.INTER_AREA)
    sigma = max(1.0, min(size) * BLUR_SHARE)
    total = cv2.GaussianBlur(small, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101)
    colours = cv2.GaussianBlur(weighted, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101)
    mean = weighted.sum(axis=(0, 1)) / max(float(small.sum()), EMPTY)
    far = (total < EMPTY)[..., None]
    colours = np.where(far, mean, colours / np.maximum(total, EMPTY)[..., None]).astype(np.float32)
    return cv2.resize(colours, (width, height), interpolation=cv2.INTER_LINEAR)


def _inpaint(rgb: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """The picture with a hole (H, W), bool, filled from around it by Telea's method, at a modest resolution."""
    height, width = hole.shape
    if bool(hole.all()):
        return np.broadcast_to(np.rint(rgb.mean(axis=(0, 1))).astype(np.uint8), rgb.shape)
    scale = min(1.0, INPAINT_SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(np.ascontiguousarray(rgb), size, interpolation=cv2.INTER_AREA)
    gap = (cv2.resize(hole.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0).astype(np.uint8)
    if bool(gap.all()):
        return np.broadcast_to(np.rint(rgb[~hole].mean(axis=0)).astype(np.uint8), rgb.shape)
    filled = cv2.inpaint(small, gap, INPAINT_RADIUS, cv2.INPAINT_TELEA)
    return cv2.resize(filled, (width, height), interpolation=cv2.INTER_LINEAR)
