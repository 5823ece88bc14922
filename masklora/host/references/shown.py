"""Prompts with reference pictures, for sample pictures: as ComfyUI's own nodes make them of CLIP, VAE and pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import comfy.utils
import torch
from torch import Tensor

from ...dataset.references import load_reference
from ...dataset.sample import Dataset, Sample
from ...errors import ConfigError
from .conditions import LATENTS
from .ways import AS_TARGET, UNSEEN_BY_NEGATIVE, encoded_with, way_of

_STEP = 16


def references_for(prompts: int, *, given: Tensor | None, dataset: Dataset | None, name: str) -> list[list[Tensor]]:
    """The reference pictures of each prompt, float32 (1, H, W, 3) in 0..1; none at all where nothing is connected.

    Args:
        prompts: How many there are.
        given: Pictures (N, H, W, 3|4), all of which are references of every prompt.
        dataset: Whose references are taken instead.
        name: Of the picture whose references every prompt gets; empty for one picture after the other.

    Raises:
        ConfigError: Both are connected, or the data set has no such picture, or no references.
        DataError: A reference cannot be read.
    """
    if given is not None and dataset is not None:
        raise ConfigError("references, dataset: expected one of the two. Disconnect the other from Sample Pictures.")
    if given is not None:
        return [[picture[None, ..., :3] for picture in given]] * prompts
    return [] if dataset is None else _of_dataset(dataset, prompts, name.strip())


def _of_dataset(dataset: Dataset, prompts: int, name: str) -> list[list[Tensor]]:
    paired = [sample for sample in dataset.samples if sample.references]
    if not paired:
        raise ConfigError(
            "dataset: none of its pictures has a reference. Name their folder in reference_folders of Load Dataset, or "
            "disconnect it from Sample Pictures."
        )
    wanted = [sample for sample in paired if name in ("", sample.name)]
    if not wanted:
        raise ConfigError(
            f"reference_of: no picture with a reference has the name {name!r}. Choose one such as {paired[0].name}, or "
            "empty it."
        )
    return [_pixels(wanted[number % len(wanted)]) for number in range(prompts)]


def _pixels(sample: Sample) -> list[Tensor]:
    return [torch.from_numpy(load_reference(one).rgb).float()[None] / 255 for one in sample.references]


def prompt_with(clip: Any, text: str, pictures: Sequence[Tensor], *, negative: bool = False) -> list[Any]:
    """ComfyUI's CONDITIONING of a prompt with reference pictures, without their latents.

    Args:
        clip: ComfyUI's CLIP; the one of models whose text encoder sees no pictures gives the text's alone.
        text: The prompt.
        pictures: float32 (1, H, W, 3) in 0..1 each.
        negative: Whether it is the negative prompt, which some models show no picture.
    """
    way = way_of(clip)
    if not way or not pictures or (negative and way in UNSEEN_BY_NEGATIVE):
        return clip.encode_from_tokens_scheduled(clip.tokenize(text), show_pbar=False)
    return encoded_with(clip, text, pictures, way)


def reference_latents(clip: Any, vae: Any, pictures: Sequence[Tensor], *, width: int, height: int) -> dict[str, Any]:
    """What a CONDITIONING says of reference pictures beside a picture of this size; {} without any."""
    sized = [_sized(picture, width, height, exactly=way_of(clip) in AS_TARGET) for picture in pictures]
    with torch.no_grad():
        return {LATENTS: [vae.encode(picture) for picture in sized]} if sized else {}


def _sized(picture: Tensor, width: int, height: int, *, exactly: bool) -> Tensor:
    """At the size itself, or in its own aspect with about as many pixels, in whole steps."""
    own = picture.shape[2], picture.shape[1]
    if not exactly:
        factor = math.sqrt(width * height / (own[0] * own[1]))
        width, height = (max(1, round(side * factor / _STEP)) * _STEP for side in own)
    shown = picture[..., :3].movedim(-1, 1)
    return comfy.utils.common_upscale(shown, width, height, "area", "disabled").movedim(1, -1)
