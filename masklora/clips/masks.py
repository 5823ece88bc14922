"""What the frames of a mask clip mean: judged once for the whole clip, then applied to each frame alike.

A frame by itself misleads: in one from which the object is gone an alpha has no shape, and a dark one looks like
classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import MaskError
from ..pictures.mask_values import band_of, grey_of, understand
from ..pictures.reading import Bands

# About how many pixels of a frame are looked at.
_PIXELS = 1 << 19
# Distance from black and white, of 255, that lossy codecs of video leave in flat areas and around edges.
SNAP = 10


@dataclass(frozen=True)
class MaskMeaning:
    """What the numbers of a mask clip mean.

    Attributes:
        channel: The one of `settings.MASK_CHANNELS` that is read.
        lossy: Whether the clip's codec loses detail.
        scale: What full scale is stored as, 255 or 65535.
        peak: The largest number that was seen in what is read, of one colour in a lossy clip the usual one.
        read: As in `MaskValues`, of the whole clip.
        doubt: As in `MaskValues`, of the whole clip.
    """

    channel: str
    lossy: bool
    scale: int
    peak: int
    read: str = ""
    doubt: str = ""

    def weights(self, bands: Bands) -> np.ndarray:
        """A frame as float32 (H, W) in 0..1, 1 = learn."""
        values, full = self._chosen(bands)
        weights = np.minimum(values.astype(np.float32) / np.float32(full), 1)
        if self.lossy:
            weights[weights <= SNAP / 255] = 0
            weights[weights >= 1 - SNAP / 255] = 1
        return weights

    def _chosen(self, bands: Bands) -> tuple[np.ndarray, float]:
        """(H, W) integers and what is white among them."""
        colours, white = bands.colours, self._white(bands.scale)
        if self.channel == "alpha":
            alpha = bands.alpha
            return (np.ones(colours.shape[:2], np.uint8), 1.0) if alpha is None else (alpha, white)
        if self.channel == "rgb average":
            return band_of(colours, self.channel), 3 * white
        if self.channel != "luminance":
            return band_of(colours, self.channel), white
        if self.read == "one colour":
            return colours.max(axis=2), self.peak
        return grey_of(colours), white * (1000 if colours.shape[2] == 3 else 1)

    def _white(self, scale: int) -> float:
        """What was stored for white where the numbers are of another scale than their file; see `mask_values`."""
        if self.peak == 1:
            return 1.0
        return 255.0 if scale == 65535 and self.scale == 65535 and 0 < self.peak <= 255 else float(scale)


def meaning(frames: Sequence[Bands], channel: str, *, lossy: bool, name: str) -> MaskMeaning:
    """What a clip's numbers mean, by some of its frames.

    Raises:
        MaskError: `channel` is "alpha" and the clip `name` has none.
    """
    if channel == "alpha" and all(frame.alpha is None for frame in frames):
        raise MaskError(
            f"{name}: mask_channel is alpha, but the clip has no alpha channel. Choose luminance, or save the "
            "mask with alpha."
        )
    colours, alpha, scale = _stacked(frames)
    if lossy:
        colours, alpha = _snapped(colours, scale), None if alpha is None else _snapped(alpha, scale)
    values = understand(colours, alpha, scale, channel)
    by_alpha = channel == "alpha" or values.read == "alpha"
    judged = alpha if by_alpha and alpha is not None else colours
    peak = int(judged.max(initial=0))
    if lossy and values.read == "one colour":
        # Around edges there are brighter ones than the colour itself.
        brightest = colours.max(axis=2)
        peak = int(np.median(brightest[brightest > peak / 2]))
    return MaskMeaning("alpha" if by_alpha else channel, lossy, scale, peak, values.read, values.doubt)


def _stacked(frames: Sequence[Bands]) -> tuple[np.ndarray, np.ndarray | None, int]:
    """Colours (H, W, 1 or 3), alpha (H, W) or None and scale of several frames below one another."""
    scale = max(frame.scale for frame in frames)
    width = max(frame.colours.shape[2] for frame in frames)
    colours, alphas = [], []
    for frame in frames:
        step = max(1, int((frame.values.shape[0] * frame.values.shape[1] / _PIXELS) ** 0.5))
        seen = frame.values[::step, ::step].astype(np.uint16 if scale == 65535 else np.uint8) * (scale // frame.scale)
        part = Bands(seen, scale)
        colours.append(np.broadcast_to(part.colours, (*part.colours.shape[:2], width)))
        alphas.append(np.full(seen.shape[:2], scale, seen.dtype) if part.alpha is None else part.alpha)
    has_alpha = any(frame.alpha is not None for frame in frames)
    return np.concatenate(colours), np.concatenate(alphas) if has_alpha else None, scale


def _snapped(values: np.ndarray, scale: int) -> np.ndarray:
    near = SNAP * (scale // 255)
    return np.where(values <= near, 0, np.where(values >= scale - near, scale, values)).astype(values.dtype)
