"""Weights drawn from one seed, of sizes with which a signal neither vanishes nor explodes."""

from __future__ import annotations

import torch


def random_state(network: torch.nn.Module, *, gain: float = 1.0) -> dict[str, torch.Tensor]:
    """A state of `network`'s shapes: matrices that keep variance, gains of about one, which some store as zero."""
    generator = torch.Generator().manual_seed(17)
    state = {}
    for name, value in network.state_dict().items():
        scale = 0.02 if value.ndim < 2 else 1.0 / max(1, value[0].numel()) ** 0.5
        noise = torch.randn(value.shape, generator=generator) * scale
        is_gain = value.ndim == 1 and ("norm" in name or "ln_" in name or name.endswith("scale"))
        state[name] = noise + gain if is_gain and not name.endswith("bias") else noise
    return state
