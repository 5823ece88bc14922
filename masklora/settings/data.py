"""Settings of a data set: what is read, how masks are transformed, what the cache holds."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from .fields import being, chosen, named, other_than, ranged, seeded

CAPTION_LINES = ("auto", "captions", "tags", "text")
CAPTION_POLICIES = ("auto", "empty caption", "use trigger word", "error")
MASK_SOURCES = ("auto", "folder", "sidecar", "alpha", "none")
MASK_CHANNELS = ("luminance", "red", "green", "blue", "rgb average", "alpha")
MISSING_REFERENCE = ("error", "skip image", "train without")
MISSING_MASK = ("train whole image", "skip image", "error")
FILLS = ("keep", "grey", "mean colour", "blur", "noise", "inpaint")
CROPS = ("centre", "mask-centred", "random", "around mask", "masked crop")
RESIZES = ("lanczos", "area")
STORAGES = ("disk", "memory")
REFERENCE_SIZES = ("by model", "as the target", "own size")
BY_MODEL, AS_TARGET, OWN_SIZE = REFERENCE_SIZES
INFILL_REFERENCES = ("target and reference", "target only")
INFILLS = ("mixed", "flat colour", "blur", "other picture", "inpaint")
CHUNKINGS = ("head", "uniform", "slide", "whole")
FIRST_FRAMES = ("auto", "always", "never")
_, ALWAYS, NEVER = FIRST_FRAMES
# What a LoRA is meant to learn; with the first each setting is a person's own or the usual one.
GOALS = ("own", "person", "object", "clothing", "style")
OWN_GOAL = GOALS[0]
# What a widget that the goal decides shows.
BY_GOAL = "by goal"


@dataclass(frozen=True)
class CaptionSettings:
    """How a caption text is read and varied."""

    extension: str = named(".txt", "caption_extension")
    trigger: str = named("", "trigger_word")
    prefix: str = named("", "caption_prefix")
    suffix: str = named("", "caption_suffix")
    separator: str = named(",", "caption_separator")
    shuffle: bool = named(False, "shuffle_tags")
    keep_first: int = ranged(1, 0, 10_000, "keep_first_tags", used=[{"shuffle_tags": being(True)}])
    dropout: float = ranged(0.0, 0.0, 1.0, "caption_dropout")
    missing: str = chosen("auto", CAPTION_POLICIES, "missing_captions")
    lines: str = chosen("auto", CAPTION_LINES)


@dataclass(frozen=True)
class DatasetSettings:
    """What is read from a folder and how its samples count."""

    folder: str = ""
    subfolders: bool = True
    mask_source: str = chosen("auto", MASK_SOURCES)
    mask_folder: str = ""
    mask_channel: str = chosen("luminance", MASK_CHANNELS)
    missing_mask: str = chosen("train whole image", MISSING_MASK)
    fill: str = chosen("keep", FILLS)
    repeats: int = ranged(1, 1, 10_000)
    loss_multiplier: float = ranged(1.0, 0.0, 1000.0)
    regularisation: bool = False
    caption: CaptionSettings = field(default_factory=CaptionSettings)
    together: float = ranged(0.5, 0.0, 1.0)
    subjects: str = ""
    folder_repeats: bool = True
    goal: str = chosen(OWN_GOAL, GOALS)
    reference_folders: str = ""
    missing_reference: str = chosen("error", MISSING_REFERENCE)


@dataclass(frozen=True)
class MaskTransform:
    """Pixel-grid mask transforms, applied in the order of the fields."""

    invert: bool = False
    binarize: bool = False
    threshold: float = ranged(0.5, 0.0, 1.0, used=[{"binarize": being(True)}])
    fill_holes: bool = False
    min_area: int = ranged(0, 0, 100_000_000)
    grow: int = ranged(0, -512, 512)
    feather: float = ranged(0.0, 0.0, 256.0)
    frame_union: int = ranged(0, 0, 64)
    frame_feather: float = ranged(0.0, 0.0, 32.0)

    def lasting(self) -> dict[str, Any]:
        """The values by name that masks are known by: those along time, which came later, where they do something."""
        values = dataclasses.asdict(self)
        return {k: v for k, v in values.items() if v or k not in ("frame_union", "frame_feather")}


@dataclass(frozen=True)
class CacheSettings:
    """Training geometry and what the cache holds."""

    resolution: int = ranged(512, 16, 8192)
    bucketing: bool = True
    bucket_step: int = ranged(64, 1, 1024)
    upscale: bool = False
    crop: str = chosen("centre", CROPS)
    flip: bool = False
    resize: str = chosen("lanczos", RESIZES)
    variants: int = ranged(4, 1, 1000)
    batch_size: int = ranged(4, 1, 1024)
    storage: str = chosen("disk", STORAGES)
    max_gigabytes: float = ranged(50.0, 0.0, 1_000_000.0, used=[{"storage": being("disk")}])
    seed: int = seeded()
    infill: str = chosen("mixed", INFILLS, used=[{"infill_variants": other_than(0)}])
    infill_variants: int = ranged(0, 0, 100)
    crop_margin: float = ranged(0.2, 0.0, 10.0, used=[{"crop": being(BY_GOAL, "around mask", "masked crop")}])
    crop_margin_max: float = ranged(0.2, 0.0, 10.0, used=[{"crop": being(BY_GOAL, "around mask")}])
    rotate: float = ranged(0.0, 0.0, 180.0)
    mask_shrink: float = ranged(1.0, 0.01, 1.0)
    more_resolutions: str = ""
    clip_frames: int = ranged(33, 1, 1025)
    clip_rate: float = ranged(0.0, 0.0, 240.0)
    clip_chunking: str = chosen("head", CHUNKINGS)
    clip_chunks: int = ranged(4, 1, 1000, used=[{"clip_chunking": being("uniform")}])
    clip_start: float = ranged(0.0, 0.0, 86400.0)
    clip_end: float = ranged(0.0, 0.0, 86400.0)
    first_frame: str = chosen("auto", FIRST_FRAMES)
    reference_size: str = chosen(BY_MODEL, REFERENCE_SIZES)
    infill_reference: str = chosen("target and reference", INFILL_REFERENCES, used=[{"infill_variants": other_than(0)}])
