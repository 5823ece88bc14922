"""Sample clips that continue a picture: the first frames of the clips that are learned, given as ComfyUI's nodes do."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import comfy.utils
import numpy as np
import torch
from torch import Tensor

from ..dataset.moving import load_frames
from ..findings import Finding, note
from .families.family import BEFORE_GREY, BY_NETWORK, IN_PLACE
from .model.first_frame import REPLACED, beside_noise, given_mask

if TYPE_CHECKING:
    from ..cache.cache import Cache
    from ..dataset.sample import Sample
    from .sampling import SampleRequest


_SINGLE = (
    "samples: single frames are drawn as from text alone. Set frames in Sample Pictures to more, so that the model "
    "continues the first frame of a clip, as it is trained to."
)
_BEGUN = (
    "samples: each clip begins with the first frame of one that is learned: the first prompt with that of the first "
    "clip, and so on."
)


class Continuing:
    """Gives each prompt the first frame of a clip: the first prompt that of the first clip, and so on, over again."""

    of_clips = True

    def __init__(
        self, kind: str, pictures: list[Callable[[], np.ndarray]], vae: Any, *, latent_out: Callable[[Tensor], Tensor]
    ) -> None:
        """Give these to models that take them as `kind` says; nothing is read or encoded yet.

        Args:
            kind: As in `Family.first_frame`.
            pictures: What reads each, uint8 (H, W, 3); at least one.
            vae: ComfyUI's VAE.
            latent_out: what becomes of the model's latents on their way to the VAE.
        """
        self.kind, self.pictures, self.vae, self.latent_out = kind, pictures, vae, latent_out
        self._latents: dict[tuple[int, tuple[int, ...]], Tensor] = {}

    def given(
        self, number: int, positive: Any, negative: Any, latent: Tensor, *, size: tuple[int, int], frames: int
    ) -> tuple[Any, Any, Tensor, Tensor | None]:
        """Conditions, latent and noise mask of a sampling that begins with the picture of a prompt.

        Args:
            number: Of the prompt.
            positive: ComfyUI's CONDITIONING.
            negative: Likewise.
            latent: What the sampling would begin with, (1, C, F, h, w).
            size: (height, width) in pixels.
            frames: Of the clip, in pixels.

        Raises:
            DataError: The clip whose first frame it is cannot be read.
        """
        start, mask = self._encoded(number, size, frames), given_mask(latent.shape[2:])
        if self.kind in (IN_PLACE, BY_NETWORK):
            # ComfyUI scales a latent that is not empty, and what is drawn begins with nothing.
            latent = self.latent_out(torch.zeros_like(latent))
            latent[:, :, :1] = start[:, :, :1].to(latent)
            if self.kind == BY_NETWORK:
                told = {REPLACED: start[:, :, :1], "concat_mask": mask}
                positive, negative = (_with(one, told) for one in (positive, negative))
            return positive, negative, latent, mask
        if start.shape[2] < latent.shape[2]:
            start = torch.cat([start, torch.zeros_like(latent[:, :, start.shape[2] :]).to(start)], dim=2)
        told = {"concat_latent_image": beside_noise(self.kind, start), "concat_mask": mask}
        return _with(positive, told), _with(negative, told), latent, None

    def _encoded(self, number: int, size: tuple[int, int], frames: int) -> Tensor:
        """The latent of a first frame (1, C, F, h, w); F is 1 where no grey frames follow."""
        slot = number % len(self.pictures), (*size, frames)
        if slot not in self._latents:
            picture = torch.from_numpy(self.pictures[slot[0]]()).float()[None] / 255
            height, width = size
            first = comfy.utils.common_upscale(picture.movedim(-1, 1), width, height, "bilinear", "center")
            shown = first.movedim(1, -1)
            if self.kind == BEFORE_GREY:
                shown = torch.cat([shown, torch.full((frames - 1, height, width, 3), 0.5)])
            self._latents[slot] = self.vae.encode(shown).float().cpu()
        return self._latents[slot]


def _with(conditioning: Any, told: dict[str, Any]) -> Any:
    return [[cond, {**extra, **told}] for cond, extra in conditioning]


def continuing(
    kind: str, cache: Cache, request: SampleRequest | None, *, latent_out: Callable[[Tensor], Tensor]
) -> tuple[Continuing | None, list[Finding]]:
    """What gives sample clips their first frame, and what a person should know of it; None where they have none.

    Args:
        kind: As in `Family.first_frame`; "" where the training gives none.
        cache: Of the training.
        request: For samples; None for none.
        latent_out: See `Continuing`.
    """
    clips = [entry for entry in cache.entries if entry.latent_frames]
    if not kind or request is None or not clips or not cache.samples:
        return None, []
    if request.settings.frames == 1:
        return None, [note(_SINGLE)]
    chosen = clips[: len(request.positive)]
    pictures = [functools.partial(_first_frame, cache.samples[entry.index], entry.frames[0]) for entry in chosen]
    return Continuing(kind, pictures, request.vae, latent_out=latent_out), [note(_BEGUN)]


def _first_frame(sample: Sample, number: int) -> np.ndarray:
    (loaded,) = load_frames(sample, (number,))
    return loaded.rgb
