"""Embedded colour profiles: pictures as viewers show them, in sRGB, whatever space their numbers are stored in."""

from __future__ import annotations

import functools
import hashlib
import io

import numpy as np
from PIL import Image, ImageCms

# Profiles of sRGB itself differ by rounding; to convert would only blur the numbers.
NEARLY_SRGB = 2
_SPACES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}


def profile_mark(profile: bytes | None, mode: str) -> str:
    """A short text that stands for the conversion of a picture of Pillow's `mode`; empty where there is none.

    It is part of the keys of cached latents: without a conversion they stay what they were.
    """
    if not profile or not _space(profile) or _space(profile) != _space_of(mode):
        return ""
    if _space(profile) == "RGB" and _is_srgb(profile):
        return ""
    return f"profile {hashlib.blake2b(profile, digest_size=8).hexdigest()}"


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """The picture of mode RGB, L or CMYK in sRGB, of mode RGB; as it is (in RGB) where the profile is unusable."""
    try:
        made = _transform(profile, image.mode)
        out = None if made is None else ImageCms.applyTransform(image, made)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        out = None
    return image.convert("RGB") if out is None else out


def array_to_srgb(colours: np.ndarray, profile: bytes) -> np.ndarray:
    """uint8 (H, W, 1) grey or (H, W, 3) colours in sRGB: uint8 (H, W, 3)."""
    image = Image.fromarray(colours[..., 0] if colours.shape[2] == 1 else np.ascontiguousarray(colours))
    return np.asarray(to_srgb(image, profile))


def _space_of(mode: str) -> str:
    """The colour space that Pillow's mode is decoded to; a palette's colours count as RGB."""
    if mode in ("L", "LA", "La", "1", "I;16", "I;16B", "I;16L", "I;16N", "I", "F"):
        return "L"
    return "CMYK" if mode == "CMYK" else "" if mode == "LAB" else "RGB"


@functools.lru_cache(maxsize=64)
def _space(profile: bytes) -> str:
    """Pillow's mode of the profile's colours; empty for a damaged profile or a space that Pillow does not convert."""
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return _SPACES.get(opened.profile.xcolor_space.strip(), "")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return ""


@functools.lru_cache(maxsize=64)
def _is_srgb(profile: bytes) -> bool:
    steps = np.linspace(0, 255, 6).round().astype(np.uint8)
    cube = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(6, 36, 3)
    shown = array_to_srgb(cube, profile).astype(int)
    return bool(np.abs(shown - cube.astype(int)).max() <= NEARLY_SRGB)


@functools.lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    if _space(profile) != mode:
        return None
    target = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    # As browsers do: what sRGB can hold keeps its colour, and black stays black.
    flags = ImageCms.Flags.BLACKPOINTCOMPENSATION
    return ImageCms.buildTransform(opened, target, mode, "RGB", ImageCms.Intent.RELATIVE_COLORIMETRIC, flags)
