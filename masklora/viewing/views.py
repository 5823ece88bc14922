"""Pictures that show a mask to the eye: overlay, cut-out, latent grid, sheet of many; numpy uint8 RGB."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from ..errors import MaskError

CHECKER = 16
GAP = 4
BACKGROUND = 32
TEXT_CELL = 26
TINT = (220, 30, 60)
OPACITY = 0.6


def overlay(
    rgb: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int] = TINT, opacity: float = OPACITY
) -> np.ndarray:
    """The picture with everything that is ignored under a tint; what is learned keeps its own colours.

    Args:
        rgb: uint8 (H, W, 3).
        mask: float32 (H, W) in 0..1, 1 = learn; grey is tinted in proportion.
        colour: RGB of the tint.
        opacity: of the tint where the mask is 0, in 0..1.

    Raises:
        MaskError: the sizes differ.
    """
    _check_size(rgb, mask)
    tint = np.broadcast_to(np.asarray(colour, np.float32), rgb.shape)
    return _mix(rgb, tint, 1 - (1 - mask) * np.float32(opacity))


def cutout(rgb: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """What is learned, uint8 (H, W, 3), on a chequerboard; grey weights show through in proportion.

    Raises:
        MaskError: the sizes differ.
    """
    _check_size(rgb, mask)
    rows, columns = np.indices(mask.shape) // CHECKER
    board = np.where((rows + columns) % 2 == 0, 200, 150)[..., None]
    return _mix(rgb, board, mask)


def latent_grid(rgb: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The picture as the loss weighs it: each latent cell darkened by its weight, and ruled.

    Cells of at least 26 px carry their weight as a number.

    Args:
        rgb: uint8 (H, W, 3).
        weights: float32 (h, w) in 0..1, one per latent cell, stretched over the whole picture.
    """
    height, width = rgb.shape[:2]
    rows = np.linspace(0, height, weights.shape[0] + 1).round().astype(int)
    columns = np.linspace(0, width, weights.shape[1] + 1).round().astype(int)
    per_row = np.repeat(weights, np.diff(rows), axis=0)
    per_pixel = np.repeat(per_row, np.diff(columns), axis=1)
    out = _mix(rgb, np.zeros(1, np.float32), 0.15 + 0.85 * per_pixel)
    out[rows[1:-1]] = 96
    out[:, columns[1:-1]] = 96
    if min(height / weights.shape[0], width / weights.shape[1]) >= TEXT_CELL:
        for (i, j), weight in np.ndenumerate(weights):
            _write_number(out, float(weight), (int(columns[j]), int(rows[i + 1])))
    return out


def contact_sheet(images: Sequence[np.ndarray], columns: int = 4, *, side: int = 256) -> np.ndarray:
    """One picture of many, row by row, each shrunk to fit a square of `side` px; rows are as tall as need be.

    Args:
        images: uint8 (H, W, 3), of any sizes; smaller ones are not enlarged.
        columns: pictures per row; fewer pictures make fewer columns.
        side: of a cell, px.

    Returns:
        uint8 (H, W, 3); for no pictures one empty cell.
    """
    columns = max(1, min(columns, len(images)))
    fitted = [_fit(image, side) for image in images] or [np.full((side, side, 3), BACKGROUND, np.uint8)]
    rows = [fitted[i : i + columns] for i in range(0, len(fitted), columns)]
    heights = [max(image.shape[0] for image in row) for row in rows]
    size = sum(heights) + GAP * (len(rows) + 1), columns * (side + GAP) + GAP
    sheet = np.full((*size, 3), BACKGROUND, np.uint8)
    top = GAP
    for row, height in zip(rows, heights, strict=True):
        for column, image in enumerate(row):
            y = top + (height - image.shape[0]) // 2
            x = GAP + column * (side + GAP) + (side - image.shape[1]) // 2
            sheet[y : y + image.shape[0], x : x + image.shape[1]] = image
        top += height + GAP
    return sheet


def _fit(image: np.ndarray, side: int) -> np.ndarray:
    scale = min(1.0, side / max(image.shape[:2]))
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    return image if scale == 1 else cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _mix(rgb: np.ndarray, other: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Picture and other by the picture's share (H, W) in 0..1."""
    weight = share[..., None].astype(np.float32)
    return np.rint(rgb * weight + other * (1 - weight)).clip(0, 255).astype(np.uint8)


def _write_number(image: np.ndarray, weight: float, corner: tuple[int, int]) -> None:
    text = f"{weight:.1f}" if 0 < weight < 1 else f"{weight:.0f}"
    at = corner[0] + 2, corner[1] - 3
    cv2.putText(image, text, at, cv2.FONT_HERSHEY_PLAIN, 0.8, (0, 0, 0), 3, cv2.LINE_AA)
    cv2.putText(image, text, at, cv2.FONT_HERSHEY_PLAIN, 0.8, (255, 255, 255), 1, cv2.LINE_AA)


def _check_size(rgb: np.ndarray, mask: np.ndarray) -> None:
    if mask.shape != rgb.shape[:2]:
        raise MaskError(
            f"preview: the mask is {mask.shape[1]}×{mask.shape[0]}, the picture "
            f"{rgb.shape[1]}×{rgb.shape[0]}; bring the mask to the picture's size first."
        )
