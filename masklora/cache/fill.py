"""What the VAE sees where nothing is learned: the outside of a mask replaced before encoding."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from ..errors import MaskError
from ..settings import FILLS, check_choice

GREY = 128
INPAINT_RADIUS = 3
BLUR_SHARE = 1 / 32
# Fillings that are made of the inside, and would flicker as it moves were they made anew for each frame of a clip.
STILL_FILLS = ("mean colour", "inpaint")


def apply_fill(rgb: np.ndarray, mask: np.ndarray, kind: str, *, seed: int = 0) -> np.ndarray:
    """The picture with what its mask ignores replaced; where the mask is 1 every pixel stays as it was.

    The VAE's receptive field carries outside pixels into the cells of a mask's edge, so what lies there
    matters although it has no weight. A grey mask mixes picture and filling in proportion, so soft edges stay
    soft.

    Args:
        rgb: uint8 (H, W, 3); not changed.
        mask: float32 (H, W) in 0..1, 1 = learn, of the same size.
        kind: "keep", "grey" (128), "mean colour" (of the inside, weighted by the mask), "blur" (Gaussian, σ
            of 1/32 of the short side), "noise" (uniform, from `seed`) or "inpaint" (Telea, from the inside).
        seed: decides the noise.

    Returns:
        uint8 (H, W, 3), deterministic. Where the inside is empty, mean colour and inpainting give grey.

    Raises:
        MaskError: the sizes differ.
        ConfigError: `kind` is unknown.

    Source: A. Telea, "An image inpainting technique based on the fast marching method", 2004 (OpenCV's).
    """
    check_choice("fill", kind, FILLS)
    _check_sizes(rgb, mask)
    if kind == "keep" or bool((mask >= 1).all()):
        return rgb.copy()
    return _mixed(rgb, mask, _filling(rgb, mask, kind, seed))


def fill_clip(frames: np.ndarray, masks: np.ndarray, kind: str, *, seed: int = 0) -> np.ndarray:
    """A clip with what its masks ignore replaced, as `apply_fill` does; what is put there belongs to the clip.

    The mean colour is that of all frames. An inpainting is one still, made of the frame of which most is inside, and
    stays as it is while the subject moves. Noise and grey are the same in all frames, a blur is each frame's own.

    Args:
        frames: uint8 (F, H, W, 3); not changed.
        masks: float32 (F, H, W) in 0..1, of the same size.
        kind: As for `apply_fill`.
        seed: Decides the noise.

    Returns:
        uint8 (F, H, W, 3).

    Raises:
        MaskError: The sizes differ.
        ConfigError: `kind` is unknown.
        ValueError: The numbers of frames differ.
    """
    _check_sizes(frames[0], masks[0])
    if kind not in STILL_FILLS:
        each = zip(frames, masks, strict=True)
        return np.stack([apply_fill(frame, mask, kind, seed=seed) for frame, mask in each])
    filling = _mean_colour(frames, masks) if kind == "mean colour" else still_plate(frames, _inside(masks), _telea)
    still = np.full_like(frames[0], GREY) if filling is None else filling
    each = zip(frames, masks, strict=True)
    return np.stack([frame.copy() if bool((m >= 1).all()) else _mixed(frame, m, still) for frame, m in each])


def _check_sizes(rgb: np.ndarray, mask: np.ndarray) -> None:
    if mask.shape != rgb.shape[:2]:
        raise MaskError(
            f"fill: the mask is {mask.shape[1]}×{mask.shape[0]}, the picture {rgb.shape[1]}×{rgb.shape[0]}; "
            "bring both to one size first."
        )


def still_plate(
    frames: np.ndarray, insides: np.ndarray, inpaint: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> np.ndarray | None:
    """A picture uint8 (H, W, 3) that lies behind what is learned of a clip; None where no frame has an in- and outside.

    It is inpainted from the inside of the frame of which most is inside. Where another frame's inside leaves free what
    is inside there, that is painted over in turn: the subject is not seen twice.

    Args:
        frames: uint8 (F, H, W, 3).
        insides: bool (F, H, W).
        inpaint: A picture with a hole, bool (H, W), filled from around it.
    """
    shares = insides.reshape(len(insides), -1).mean(axis=1)
    shares[shares >= 1] = 0
    best = int(shares.argmax())
    if shares[best] <= 0:
        return None
    inside = insides[best]
    plate = inpaint(frames[best], ~inside)
    left = inside & ~insides.all(axis=0)
    return inpaint(plate, inside) if bool(left.any()) else plate


def _mixed(rgb: np.ndarray, mask: np.ndarray, filling: np.ndarray) -> np.ndarray:
    weight = mask[..., None].astype(np.float32)
    mixed = rgb.astype(np.float32) * weight + filling.astype(np.float32) * (1 - weight)
    return np.rint(mixed).clip(0, 255).astype(np.uint8)


def _filling(rgb: np.ndarray, mask: np.ndarray, kind: str, seed: int) -> np.ndarray:
    if kind == "blur":
        sigma = max(2.0, min(mask.shape) * BLUR_SHARE)
        return cv2.GaussianBlur(rgb, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101)
    if kind == "noise":
        return np.random.default_rng(seed).integers(0, 256, rgb.shape, dtype=np.uint8)
    if kind == "mean colour" and float(mask.sum()) > 0:
        total = (rgb * mask[..., None].astype(np.float64)).sum(axis=(0, 1))
        return np.broadcast_to(total / float(mask.sum(dtype=np.float64)), rgb.shape)
    inside = _inside(mask)
    if kind == "inpaint" and float(mask.max()) > 0 and not inside.all():
        return _telea(rgb, ~inside)
    return np.full_like(rgb, GREY)


def _inside(mask: np.ndarray) -> np.ndarray:
    """Where a mask, or those of a clip, weigh most, bool; nowhere where all is black.

    Relative to the largest weight: a mask that is grey throughout, or came through JPEG, still has an inside.
    """
    most = float(mask.max())
    return mask >= 0.98 * most if most > 0 else np.zeros(mask.shape, bool)


def _telea(rgb: np.ndarray, hole: np.ndarray) -> np.ndarray:
    return cv2.inpaint(np.ascontiguousarray(rgb), hole.astype(np.uint8), INPAINT_RADIUS, cv2.INPAINT_TELEA)


def _mean_colour(frames: np.ndarray, masks: np.ndarray) -> np.ndarray | None:
    """The colour of the insides of all frames, float64 (3,) spread over a picture; None where all is black."""
    weight = float(masks.sum(dtype=np.float64))
    if weight <= 0:
        return None
    total = sum(
        (frame * mask[..., None].astype(np.float64)).sum(axis=(0, 1)) for frame, mask in zip(frames, masks, strict=True)
    )
    return np.broadcast_to(total / weight, frames.shape[1:])
