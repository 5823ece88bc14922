"""diffusers' own networks at the sizes of our small models: their weights, how they are called, who loads their LoRAs.

Read at diffusers 0.42: the pipelines tell what a network is called with, `examples/dreambooth` what it is trained on.
"""

import functools
import importlib
import pkgutil

import torch

from .theirs import Batch, Outcome, Theirs, off_by


@functools.cache
def diffusers_models() -> dict[str, Theirs]:
    """By the name of the small model, in the order of their files."""
    found: dict[str, Theirs] = {}
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda module: module.name):
        found |= getattr(importlib.import_module(f"{__name__}.{module.name}"), "THEIRS", {})
    return found


def outcomes(name: str) -> tuple[Outcome, Outcome, torch.Tensor]:
    """Ours, theirs and the weights of one batch, each from its own noisy latents, timesteps and targets."""
    theirs = diffusers_models()[name]
    batch = Batch(name, theirs)
    assert theirs.predict
    with torch.no_grad():
        return batch.ours(), theirs.predict(batch), batch.w


__all__ = ["Batch", "Outcome", "Theirs", "diffusers_models", "off_by", "outcomes"]
