"""Videos brighter or more colourful than an sRGB screen, as phones take them, brought to sRGB as players show them."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

# FFmpeg's AVColorTransferCharacteristic and AVColorPrimaries; ITU-T H.273, tables 2 and 3.
PQ, HLG = 16, 18
_BT2020, _P3 = 9, 12
# Linear light of these primaries to that of sRGB's, all with D65 as white.
_TO_SRGB = {
    _BT2020: ((1.6605, -0.5876, -0.0729), (-0.1246, 1.1329, -0.0083), (-0.0182, -0.1006, 1.1188)),
    _P3: ((1.2249, -0.2249, 0.0), (-0.0420, 1.0420, 0.0), (-0.0196, -0.0786, 1.0982)),
}
_LUMA_2020 = (0.2627, 0.6780, 0.0593)
# Candela per square metre of white paper, and of the brightest that is told apart; ITU-R BT.2408.
_WHITE, _BRIGHTEST = 203.0, 1000.0
# Up to here light stays as it is, above it is pressed together to reach 1 at the brightest.
_KNEE = 0.8


@dataclass(frozen=True)
class WideColours:
    """What the colours of a stream are: `transfer` and `primaries` by FFmpeg's numbers."""

    transfer: int
    primaries: int

    @property
    def mark(self) -> str:
        """`hdr`, `wide-gamut`, or nothing for colours that are sRGB's or nearly so."""
        if self.transfer in (PQ, HLG):
            return "hdr"
        return "wide-gamut" if self.primaries in _TO_SRGB else ""

    def to_srgb(self, colours: np.ndarray) -> np.ndarray:
        """Colours (H, W, 3), uint8 or uint16 of full scale, as sRGB of the same kind."""
        if not self.mark:
            return colours
        scale = np.iinfo(colours.dtype).max
        light = _light_of(self.transfer, scale)[colours]
        if self.transfer == HLG:
            # The picture's own brightness sets how much contrast a screen adds; ITU-R BT.2100, table 5.
            light = light * np.maximum(light @ np.float32(_LUMA_2020), 1e-6)[..., None] ** np.float32(0.2)
            light *= np.float32(_BRIGHTEST / _WHITE)
        if self.primaries in _TO_SRGB:
            light = light @ np.array(_TO_SRGB[self.primaries], np.float32).T
        np.maximum(light, 0, out=light)
        if self.transfer in (PQ, HLG):
            light = _pressed(light)
        return np.rint(_srgb_of(np.minimum(light, 1)) * scale).astype(colours.dtype)


def wide_colours_of(context: Any) -> WideColours:
    """By the tags of PyAV's codec context."""
    return WideColours(int(context.color_trc), int(context.color_primaries))


@functools.lru_cache(maxsize=6)
def _light_of(transfer: int, scale: int) -> np.ndarray:
    """Light of each stored number, float32 (scale + 1,): of PQ in whites, of HLG that of the scene, else in 0..1."""
    value = np.arange(scale + 1) / scale
    if transfer == PQ:
        # SMPTE ST 2084.
        root = value ** (32 / 2523)
        light = (np.maximum(root - 107 / 128, 0) / (2413 / 128 - 2392 / 128 * root)) ** (8192 / 1305) * 10_000 / _WHITE
    elif transfer == HLG:
        # ARIB STD-B67.
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        light = np.where(value <= 0.5, value**2 / 3, (np.exp((value - c) / a) + b) / 12)
    else:
        light = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    return light.astype(np.float32)


def _pressed(light: np.ndarray) -> np.ndarray:
    """Light of which the brightest band, and with it the others, is brought below 1."""
    top = np.minimum(light.max(axis=2, keepdims=True), _BRIGHTEST / _WHITE)
    over = np.maximum(top - _KNEE, 0) / (1 - _KNEE)
    most = (_BRIGHTEST / _WHITE - _KNEE) / (1 - _KNEE)
    new = np.minimum(top, _KNEE) + (1 - _KNEE) * over * (1 + over / most**2) / (1 + over)
    return light * (new / np.maximum(light.max(axis=2, keepdims=True), 1e-6))


def _srgb_of(light: np.ndarray) -> np.ndarray:
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * np.maximum(light, 1e-9) ** (1 / 2.4) - 0.055)
