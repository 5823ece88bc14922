"""Sample pictures of models for inpainting: they fill in pictures that are learned, as the training shows them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...cache.builder import cut_out
from ...dataset.geometry import apply_image, apply_mask, box_centre, mask_box, plan_geometry
from ...dataset.sample import LoadedSample, load_sample
from ...findings import Finding, note

if TYPE_CHECKING:
    from ...cache.cache import Cache
    from ..sampling import SampleRequest

_FILLED = (
    "samples: each fills in what the mask covers of a picture that is learned: the first prompt the first picture that "
    "has a mask, and so on."
)


class Filling:
    """Gives each prompt a picture to fill in: the first prompt the first picture, and so on, over again."""

    of_clips = False

    def __init__(self, pictures: list[Callable[[], LoadedSample]], vae: Any) -> None:
        """Give these; nothing is read or encoded yet.

        Args:
            pictures: What reads each; at least one.
            vae: ComfyUI's VAE.
        """
        self.pictures, self.vae = pictures, vae
        self._made: dict[tuple[int, tuple[int, int]], tuple[Tensor, Tensor]] = {}

    def given(
        self, number: int, positive: Any, negative: Any, latent: Tensor, *, size: tuple[int, int], frames: int
    ) -> tuple[Any, Any, Tensor, None]:
        """Conditions of a sampling that sees the picture of a prompt without what its mask covers, and that mask.

        All of the picture is drawn, also what it sees: so does the training.

        Args:
            number: Of the prompt.
            positive: ComfyUI's CONDITIONING.
            negative: Likewise.
            latent: What the sampling begins with.
            size: (height, width) in pixels.
            frames: 1.

        Raises:
            DataError: The picture or its mask cannot be read.
        """
        shown, mask = self._cut_out(number, size)
        told = {"concat_latent_image": shown, "concat_mask": mask}
        positive, negative = ([[cond, {**extra, **told}] for cond, extra in one] for one in (positive, negative))
        return positive, negative, latent, None

    def _cut_out(self, number: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """The latent of a cut out picture (1, C, h, w), and its mask (1, 1, H, W) in 0..1."""
        slot = number % len(self.pictures), size
        if slot not in self._made:
            loaded, (height, width) = self.pictures[slot[0]](), size
            focus = box_centre(mask_box(loaded.mask))
            source = loaded.rgb.shape[1], loaded.rgb.shape[0]
            geometry = plan_geometry(source, (width, height), crop="mask-centred", focus=focus, upscale=True)
            mask = apply_mask(loaded.mask, geometry)
            pixels = cut_out(apply_image(loaded.rgb, geometry), mask) / 255
            shown = self.vae.encode(torch.from_numpy(pixels)[None]).float().cpu()
            self._made[slot] = shown, torch.from_numpy(mask)[None, None]
        return self._made[slot]


def filling(cache: Cache, request: SampleRequest | None) -> tuple[Filling | None, list[Finding]]:
    """What gives sample pictures of a model for inpainting their picture to fill in, and what one should know of it.

    Args:
        cache: Of the training; None comes back where no picture has a mask, as then all of each is filled in.
        request: For samples; None for none.
    """
    # Crops and subjects of one picture are entries of their own.
    masked = dict.fromkeys(entry.index for entry in cache.entries if entry.has_mask)
    if request is None or not masked or not cache.samples:
        return None, []
    chosen = list(masked)[: len(request.positive)]
    pictures = [functools.partial(load_sample, cache.samples[index]) for index in chosen]
    return Filling(pictures, request.vae), [note(_FILLED)]
