"""What Save Masks may replace: files of this data set and of this pack, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..clips.reading import CLIP_EXTENSIONS, is_animated
from ..dataset.sample import Sample, check_aspect, load_sample
from ..errors import DataError
from ..pictures.png_chunks import is_signed
from ..pictures.reading import read_bands, read_image
from .mask_clips import holds_masks, may_be_replaced
from .targets import SaveSettings, Target

# Distance from black or white up to which a pixel is one, and the share of them that makes a grey picture a mask.
NEARLY, MOSTLY = 8 / 255, 0.6


def refusal(target: Target, settings: SaveSettings) -> str:
    """Why the files in a target's way must stay, as a sentence that names one; empty if they may be replaced.

    A mask may be replaced by a mask, a copy of a picture by a copy of the same picture, and a caption that lies beside
    its own picture by a caption; whatever a person or another program put there under that name stays.
    """
    if target.mask.is_dir() and not holds_masks(target.mask, target.sample, lambda: None):
        return f"{target.sample.name}: {target.mask} is a folder, which is never replaced. Move it away."
    if target.mask.is_file() and not _is_ours(target, settings):
        what = "a copy of this picture" if settings.layout == "alpha png" else "a mask"
        return (
            f"{target.sample.name}: {target.mask} does not look like {what} and is not of this dataset; it is never "
            "replaced. Move it away, or name another destination."
        )
    for former in target.former:
        if not _is_former(former, target.sample):
            return (
                f"{target.sample.name}: {former} would be taken for its mask beside {target.mask.name}, and does not "
                "look like a mask of it; it is never replaced. Move it away, or name another destination."
            )
    caption = target.caption
    if settings.layout == "alpha png" and caption is not None and caption.is_file() and not target.mask.is_file():
        return (
            f"{target.sample.name}: {caption} belongs to no picture of this dataset there; it is never replaced. Move "
            "it away, or name another destination."
        )
    return ""


def _is_ours(target: Target, settings: SaveSettings) -> bool:
    source = target.sample.mask_path
    if is_signed(target.mask) or (source is not None and source.exists() and target.mask.samefile(source)):
        return True
    if target.sample.moves:
        return may_be_replaced(target.mask, target.sample)
    try:
        if settings.layout == "alpha png":
            return np.array_equal(read_image(target.mask).rgb, load_sample(target.sample).rgb)
        return _looks_like_a_mask(target.mask, target.sample.size)
    except DataError:
        return False


def _is_former(path: Path, sample: Sample) -> bool:
    """Whether a file of the mask's name and of another kind is the mask so far, or looks like one for this sample."""
    source = sample.mask_path
    if is_signed(path) or (source is not None and source.exists() and path.samefile(source)):
        return True
    try:
        if path.suffix.lower() in CLIP_EXTENSIONS or is_animated(path):
            return sample.moving is not None and may_be_replaced(path, sample)
        return _looks_like_a_mask(path, sample.size)
    except DataError:
        return False


def _looks_like_a_mask(path: Path, size: tuple[int, int]) -> bool:
    bands = read_bands(path)
    check_aspect(path.name, (bands.values.shape[1], bands.values.shape[0]), size)
    values = bands.colours.astype(np.float32) / np.float32(bands.scale)
    if float(np.ptp(values, axis=2).max()) > NEARLY:
        return False
    return bool(((values < NEARLY) | (values > 1 - NEARLY)).mean() >= MOSTLY)
