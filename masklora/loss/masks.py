"""From a mask's pixels to the weight of every latent cell: `effective_weights` is the whole path.

Polarity: 1 learns, 0 ignores, grey is weight. Pixel-grid transforms work on numpy arrays and belong to
the cache; everything on the latent grid works on tensors and never makes a cache stale.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ConfigError

if TYPE_CHECKING:
    from ..settings import MaskSettings, MaskTransform

HARD_THRESHOLD = 0.5
# Up to here a disc of bytes is faster than the exact distance, which costs the same at every radius.
DISC_RADIUS = 20


def effective_weights(
    mask: Tensor,
    settings: MaskSettings,
    *,
    grid: tuple[int, ...],
    generator: torch.Generator | None = None,
    thresholded: Tensor | None = None,
    u: Tensor | None = None,
    strict: Tensor | None = None,
) -> Tensor:
    """The weight (B, 1, [f,] h, w) in [0, 1] that the loss gives every latent cell.

    The single path from pixels to weights: `mask_cells`, then `cell_weights`. Training keeps what lies between.

    Args:
        mask: (B, 1, [F,] H, W) float in [0, 1] at the training geometry; F counts the clip's frames.
        settings: what becomes of the mask.
        grid: ([f,] h, w) of the latent.
        generator: the run's own, on the device of `mask`; used by edge jitter and mask probability.
        thresholded: as for `latent_weights`.
        u: noise level of each sample (B,), 0 clean to 1 noise, for the noise blur; None blurs nothing.
        strict: (B,) bool, samples whose outside never gets weight from blurs, floor or mask probability, because it
            is not the picture's own; None for none.
    """
    m = mask_cells(mask, settings, grid=grid, kind=settings.reduction)
    return cell_weights(m, settings, generator=generator, thresholded=thresholded, u=u, strict=strict)


def mask_cells(mask: Tensor, settings: MaskSettings, *, grid: tuple[int, ...], kind: str) -> Tensor:
    """The mask on the latent grid before the latent transforms, (B, 1, [f,] h, w).

    A hard mask is cut at 0.5 before the reduction; a cell on its edge then weighs by the share it covers, so that
    what is cut must not be cut again. Frames are reduced before rows and columns. A still mask of a clip counts in
    each of its latent frames.

    Args:
        mask: (B, 1, [F,] H, W) float in [0, 1] at the training geometry.
        settings: fields `mask_type`, `frame_reduction` and `reduction_binarize`.
        grid: ([f,] h, w) of the latent.
        kind: as for `reduce_mask`.

    Raises:
        ValueError: as `reduce_frames`, or the mask has frames and the latent has none.
    """
    *frames, h, w = grid
    if settings.mask_type == "hard":
        mask = (mask > HARD_THRESHOLD).to(mask.dtype)
    if mask.ndim == 5:
        if not frames:
            raise ValueError(f"a mask of {mask.shape[2]} frames for a latent that has no frame axis")
        mask = reduce_frames(mask, frames=frames[0], kind=settings.frame_reduction)
    cells = reduce_mask(mask, grid=(h, w), kind=kind, binarize=settings.reduction_binarize)
    if frames and cells.ndim == 4:
        return cells[:, :, None].expand(-1, -1, *frames, -1, -1).contiguous()
    return cells


def cell_weights(
    m: Tensor,
    settings: MaskSettings,
    *,
    generator: torch.Generator | None = None,
    thresholded: Tensor | None = None,
    u: Tensor | None = None,
    strict: Tensor | None = None,
) -> Tensor:
    """The weight (B, 1, [F,] h, w) in [0, 1] that the loss gives every cell this time, from `mask_cells`."""
    w = latent_weights(m, settings, generator=generator, thresholded=thresholded, u=u, strict=strict)
    return apply_mask_probability(
        w,
        p=settings.mask_probability,
        generator=generator,
        scope=settings.mask_probability_scope,
        strict=strict,
    )


def transform_mask(mask: np.ndarray, settings: MaskTransform, *, scale: float = 1.0) -> np.ndarray:
    """The mask after the pixel-grid transforms.

    Always in this order: invert, binarize, fill holes, min area, grow or shrink, feather.

    Args:
        mask: (H, W) float32 in [0, 1].
        settings: what to do; lengths in pixels of the picture.
        scale: pixels of the mask per pixel of the picture, when the two differ in size.

    Returns:
        (H, W) float32 in [0, 1]; `mask` is not changed.
    """
    out = np.asarray(mask, dtype=np.float32)
    if settings.invert:
        out = 1.0 - out
    if settings.binarize:
        out = (out > settings.threshold).astype(np.float32)
    if settings.fill_holes:
        out = fill_holes(out)
    if settings.min_area > 0:
        out = drop_small(out, min_area=settings.min_area * scale * scale)
    if settings.grow:
        out = grow_mask(out, radius=settings.grow * scale)
    if settings.feather > 0:
        out = feather_mask(out, sigma=settings.feather * scale)
    return np.ascontiguousarray(out) if out is not mask else out.copy()


def fill_holes(mask: np.ndarray) -> np.ndarray:
    """The mask with black areas that do not touch the border set to 1; (H, W) float32.

    Black is exactly 0 and connected over edges, not corners. A flood fill from a padded border finds the
    outside in one pass; a loop over contours takes thousands of times longer on a noisy mask.
    """
    black = np.pad((mask == 0).astype(np.uint8), 1, constant_values=1)
    cv2.floodFill(black, None, (0, 0), 2, flags=4)
    return np.where(black[1:-1, 1:-1] == 1, np.float32(1), mask)


def drop_small(mask: np.ndarray, *, min_area: float) -> np.ndarray:
    """The mask without islands of fewer than `min_area` pixels above 0; (H, W) float32.

    An island is connected over edges and corners.
    """
    _, labels, stats, _ = cv2.connectedComponentsWithStats((mask > 0).astype(np.uint8), connectivity=8)
    keep = stats[:, cv2.CC_STAT_AREA] >= min_area
    keep[0] = True
    return np.where(keep[labels], mask, np.float32(0))


def grow_mask(mask: np.ndarray, *, radius: float) -> np.ndarray:
    """The mask grown by a disc of `radius` pixels, or shrunk by it where negative; (H, W) float32.

    What lies beyond the border neither grows in nor eats away. Grey masks take the disc's maximum
    (minimum); black-and-white ones the same, or the exact distance where the disc is large.
    """
    r = abs(radius)
    if r < 1:
        return mask
    if bool(((mask == 0) | (mask == 1)).all()):
        return _grow_binary(mask, r) if radius > 0 else 1 - _grow_binary(1 - mask, r)
    return cv2.dilate(mask, _disc(r)) if radius > 0 else cv2.erode(mask, _disc(r))


def feather_mask(mask: np.ndarray, *, sigma: float) -> np.ndarray:
    """The mask blurred by a Gaussian of `sigma` pixels, its border repeated outwards; (H, W) float32."""
    reach = math.ceil(4 * sigma)
    size = (2 * reach + 1, 2 * reach + 1)
    return cv2.GaussianBlur(mask, size, sigma, borderType=cv2.BORDER_REPLICATE).clip(0.0, 1.0)


def shrink_to_circle(mask: np.ndarray, *, factor: float, seed: int) -> np.ndarray:
    """The mask inside a disc about a random point of it, and 0 outside; (H, W) float32.

    As an augmentation it shows a different part of the subject each time. The point is drawn with the mask's
    weights as probabilities; the disc reaches `factor` of the way to the farthest pixel above 0.

    Args:
        mask: (H, W) float32 in [0, 1].
        factor: in (0, 1]; 1 keeps everything.
        seed: the same seed gives the same point.

    Returns:
        A new array, never empty where `mask` is not, because the point itself stays; an empty mask stays empty.
    """
    if not mask.any():
        return np.zeros_like(mask, np.float32)
    rng = np.random.default_rng(seed)
    row = _draw(mask.sum(axis=1, dtype=np.float64), rng)
    column = _draw(mask[row].astype(np.float64), rng)
    y, x = (axis.astype(np.int32) for axis in np.ogrid[: mask.shape[0], : mask.shape[1]])
    squared = (y - row) ** 2 + (x - column) ** 2
    reach = factor**2 * int(squared[mask > 0].max())
    return np.where(squared <= reach, mask, np.float32(0)).astype(np.float32)


def reduce_frames(mask: Tensor, *, frames: int, kind: str = "mean") -> Tensor:
    """The mask of a clip's latent frames, rows and columns as they are: (B, 1, f, H, W).

    A VAE for clips encodes the first frame alone and then r frames as one, so that F = r·(f − 1) + 1: latent frame 0
    takes the mask of frame 0, latent frame k those of frames r(k − 1) + 1 to rk.

    Args:
        mask: (B, 1, F, H, W) float in [0, 1].
        frames: f, of the latent.
        kind: what becomes of the r masks of a latent frame: `mean`, `max` or `min`.

    Raises:
        ConfigError: `kind` is unknown.
        ValueError: F frames are none of f latent frames.
    """
    count = mask.shape[2]
    if frames < 1 or count < frames or (count > 1 and (frames == 1 or (count - 1) % (frames - 1))):
        raise ValueError(f"a mask of {count} frames cannot be that of {frames} latent frames")
    if kind not in ("mean", "max", "min"):
        raise ConfigError(f"frame_reduction: expected mean, max or min, got {kind!r}.")
    if count == frames:
        return mask
    groups = mask[:, :, 1:].unflatten(2, (frames - 1, -1))
    rest = groups.mean(dim=3) if kind == "mean" else (groups.amax(dim=3) if kind == "max" else groups.amin(dim=3))
    return torch.cat([mask[:, :, :1], rest], dim=2)


def reduce_mask(mask: Tensor, *, grid: tuple[int, int], kind: str = "area", binarize: bool = False) -> Tensor:
    """The mask on the latent grid, its frames as they are: (B, 1, [F,] h, w).

    A cell covers the pixels from floor(i·H/h) to ceil((i+1)·H/h), which overlap by a pixel where H is no
    multiple of h.

    Args:
        mask: (B, 1, [F,] H, W) float in [0, 1].
        grid: (h, w) of the latent, at most (H, W).
        kind: `area` mean, `any` maximum, `all` minimum, `nearest` the top-left pixel,
            `bilinear antialiased` a triangle of two cells' width, `bicubic (ai-toolkit)` four by four pixels at the
            cell's centre, which overshoots 0 and 1, for parity only.
        binarize: 1 wherever the reduced value is above 0.

    Raises:
        ConfigError: `kind` is unknown.
    """
    flat = mask.reshape(-1, 1, *mask.shape[-2:])
    if kind == "area":
        out = F.adaptive_avg_pool2d(flat, grid)
    elif kind == "any":
        out = F.adaptive_max_pool2d(flat, grid)
    elif kind == "all":
        out = -F.adaptive_max_pool2d(-flat, grid)
    elif kind == "nearest":
        out = F.interpolate(flat, size=grid, mode="nearest")
    elif kind == "bilinear antialiased":
        out = F.interpolate(flat, size=grid, mode="bilinear", align_corners=False, antialias=True)
    elif kind == "bicubic (ai-toolkit)":
        out = F.interpolate(flat, size=grid, mode="bicubic", align_corners=False)
    else:
        raise ConfigError(f"reduction: unknown choice {kind!r}. Choose one that the widget lists.")
    out = out.reshape(*mask.shape[:-2], *grid)
    return (out > 0).to(out.dtype) if binarize else out


def latent_weights(
    m: Tensor,
    settings: MaskSettings,
    *,
    generator: torch.Generator | None = None,
    thresholded: Tensor | None = None,
    u: Tensor | None = None,
    strict: Tensor | None = None,
) -> Tensor:
    """The weights (B, 1, [F,] h, w) in [0, 1] from a mask on the latent grid.

    In this order: noise blur, blur, edge jitter, gamma, floor, ceiling, clamp, and nothing at all
    where the mask as it came was below the weight threshold. The affine floor commutes with an area
    reduction; gamma and the max floor do not, so on soft edges they differ from the same value applied to
    the pixels.

    Args:
        m: (B, 1, [F,] h, w) float.
        settings: fields `noise_blur`, `latent_blur`, `edge_jitter`, `gamma`, `floor_mode`, `floor`, `ceiling`,
            `weight_threshold`.
        generator: the run's own, on the device of `m`.
        thresholded: (B,) bool, samples to which the weight threshold applies; None for all.
        u: as for `effective_weights`.
        strict: (B,) bool, samples whose cells get no weight from floor or blurs beyond the mask's; None for none.

    Raises:
        ConfigError: unknown floor mode.
    """
    w = m
    if settings.noise_blur > 0 and u is not None:
        w = blur_by_noise(w, u, amount=settings.noise_blur)
    if settings.latent_blur > 1:
        w = blur_cells(w, size=settings.latent_blur)
    if settings.edge_jitter > 0:
        w = jitter_edges(w, amount=settings.edge_jitter, generator=generator)
    if strict is not None:
        w = torch.where(_per_sample(strict, w), torch.minimum(w, m), w)
    if settings.gamma != 1:
        w = w.clamp(0, 1).pow(settings.gamma)
    w = _raise_floor(w, settings, strict)
    w = w.clamp(max=settings.ceiling).clamp(0, 1)
    if settings.weight_threshold > 0:
        keep = m >= settings.weight_threshold
        if thresholded is not None:
            keep = keep | ~_per_sample(thresholded, m)
        w = w * keep
    return w


def blur_by_noise(w: Tensor, u: Tensor, *, amount: float) -> Tensor:
    """The weights blurred the more the noisier their sample is, same shape; experimental.

    Much noise hides where things are, and a sharp outline then claims more than can be seen.

    Args:
        w: (B, 1, [F,] h, w) float.
        u: noise level of each sample (B,); at 0 nothing changes.
        amount: σ at u = 1 as a share of the grid's shorter side.
    """
    largest = amount * min(w.shape[-2:])
    return _gaussian(w, largest * u.to(w.dtype), reach=max(1, math.ceil(4 * largest)))


def blur_cells(w: Tensor, *, size: int) -> Tensor:
    """The weights blurred by a fixed Gaussian, same shape, the border repeated outwards.

    Args:
        w: (B, 1, [F,] h, w) float.
        size: side of the kernel in cells, odd; σ = 0.3·((size−1)/2 − 1) + 0.8.
    """
    sigma = torch.full((w.shape[0],), 0.3 * ((size - 1) / 2 - 1) + 0.8, device=w.device, dtype=w.dtype)
    return _gaussian(w, sigma, reach=size // 2)


def jitter_edges(w: Tensor, *, amount: float, generator: torch.Generator | None = None) -> Tensor:
    """The weights with each sample's edges blurred by a Gaussian of random width, same shape.

    σ is drawn per sample from U(0, `amount`) times the grid's shorter side, so the same setting blurs the
    same part of the picture at every resolution. Edges that move keep the model from learning one outline.

    Args:
        w: (B, 1, [F,] h, w) float.
        amount: largest σ as a share of the shorter side; 0.005 is subtle.
        generator: the run's own, on the device of `w`.
    """
    batch, largest = w.shape[0], amount * min(w.shape[-2:])
    sigma = largest * torch.rand(batch, generator=generator, device=w.device, dtype=w.dtype)
    return _gaussian(w, sigma, reach=max(1, math.ceil(4 * largest)))


def apply_mask_probability(
    w: Tensor,
    *,
    p: float,
    generator: torch.Generator | None = None,
    scope: str = "sample",
    strict: Tensor | None = None,
) -> Tensor:
    """The weights, replaced by ones where the mask does not apply this time; same shape.

    Args:
        w: (B, 1, [F,] h, w) float.
        p: probability that the mask applies; 1 returns `w` itself and draws nothing.
        generator: the run's own, on the device of `w`.
        scope: `sample` draws for each sample, `batch` once for all.
        strict: (B,) bool, samples to which the mask applies in any case; None for none.
    """
    if p >= 1:
        return w
    count = 1 if scope == "batch" else w.shape[0]
    applies = torch.rand(count, generator=generator, device=w.device) < p
    if strict is not None:
        applies = applies | strict
    return torch.where(_per_sample(applies, w), w, torch.ones_like(w))


def _per_sample(values: Tensor, w: Tensor) -> Tensor:
    """Values (B,) shaped to broadcast with weights (B, 1, [F,] h, w)."""
    return values.view(-1, *([1] * (w.ndim - 1)))


def _raise_floor(w: Tensor, settings: MaskSettings, strict: Tensor | None) -> Tensor:
    if settings.floor_mode == "affine":
        raised = settings.floor + (1 - settings.floor) * w if settings.floor > 0 else w
    elif settings.floor_mode == "max":
        raised = w.clamp(min=settings.floor)
    else:
        raise ConfigError(f"floor mode: expected affine or max, got {settings.floor_mode!r}.")
    return raised if strict is None else torch.where(_per_sample(strict, w), w, raised)


def _grow_binary(mask: np.ndarray, radius: float) -> np.ndarray:
    if not mask.any():
        return mask
    if radius <= DISC_RADIUS:
        return cv2.dilate(mask.astype(np.uint8), _disc(radius)).astype(np.float32)
    distance = cv2.distanceTransform((mask == 0).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return (distance <= radius + 1e-3).astype(np.float32)


def _disc(radius: float) -> np.ndarray:
    reach = math.floor(radius)
    y, x = np.ogrid[-reach : reach + 1, -reach : reach + 1]
    return (x * x + y * y <= radius * radius).astype(np.uint8)


def _draw(weights: np.ndarray, rng: np.random.Generator) -> int:
    """An index drawn with `weights` (n,) as probabilities; never one of weight 0."""
    heights = weights.cumsum()
    index = int(np.searchsorted(heights, rng.random() * heights[-1], side="right"))
    return min(index, int(np.flatnonzero(weights)[-1]))


def _gaussian(w: Tensor, sigma: Tensor, *, reach: int) -> Tensor:
    batch = w.shape[0]
    x = torch.arange(-reach, reach + 1, device=w.device, dtype=w.dtype)
    kernel = torch.exp(-0.5 * (x / sigma.clamp(min=1e-4)[:, None]) ** 2)
    kernel = kernel / kernel.sum(dim=1, keepdim=True)
    flat = w.reshape(batch, -1, *w.shape[-2:]).transpose(0, 1)
    flat = F.pad(flat, (reach, reach, reach, reach), mode="replicate")
    flat = F.conv2d(flat, kernel[:, None, :, None], groups=batch)
    flat = F.conv2d(flat, kernel[:, None, None, :], groups=batch)
    out = flat.transpose(0, 1).reshape(w.shape).clamp(0, 1)
    # A kernel adds up to one but for rounding, of which no outside must come that a prior is then divided by.
    white = (w >= 1).flatten(1).all(dim=1)
    return torch.where(_per_sample(white, w), w.clamp(max=1), out)
