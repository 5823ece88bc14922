"""Latents that ComfyUI's own sampler draws with a small model, for the benchmarks of what a LoRA leaks."""

from typing import Any

import comfy.sample
import torch
from torch import Tensor


def drawn(model: Any, noise: Tensor, cond: list, *, steps: int, sampler: str, scheduler: str, seed: int) -> Tensor:
    """Latents of the shape of `noise` in the model's own space, drawn without guidance.

    Args:
        model: ComfyUI's MODEL.
        noise: (B, C, [F,] h, w).
        cond: As nodes pass it, of B prompts.
        steps: Of the sampler.
        sampler: Its name in ComfyUI.
        scheduler: That of its noise levels.
        seed: For samplers that draw noise themselves.
    """
    with torch.inference_mode():
        latents = comfy.sample.sample(
            model,
            noise,
            steps,
            1.0,
            sampler,
            scheduler,
            *[cond] * 2,
            torch.zeros_like(noise),
            seed=seed,
            disable_pbar=True,
        )
        seen = model.model.process_latent_in(latents)
    return seen.clone()
