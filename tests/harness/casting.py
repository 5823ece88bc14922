"""A Flux whose weights are stored in one type and used in another."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from masklora.dataset.geometry import Geometry
from masklora.host.model.trainable import TrainableModel
from masklora.settings import AdapterSettings

from .models import small_model, small_text


def cast_run(
    dtype: torch.dtype, mode: str, change: Callable[[nn.Module], object] | None = None
) -> tuple[Tensor, tuple[Tensor, ...], nn.Module]:
    """Prediction, gradients of the adapters and the network, stored in `dtype` and used in float32.

    `change` is given the network before the session.
    """
    trainable = TrainableModel(small_model("flux", dtype=dtype), dtype=torch.float32)
    adapters = trainable.make_adapters(AdapterSettings(rank=4, alpha=4.0, targets="default"), seed=0)
    generator = torch.Generator().manual_seed(2)
    for name, p in adapters.parameters().items():
        if name.endswith("lora_B"):
            p.data.normal_(0.0, 0.02, generator=generator)
    if change is not None:
        change(trainable.network)
    noisy = torch.randn(1, 16, 8, 8, generator=generator)
    square = Geometry(source=(64, 64), resized=(64, 64), crop=(0, 0, 64, 64))
    with trainable.session(adapters, checkpointing=mode), trainable.autograd_scope():
        text = trainable.collate([small_text("flux", tokens=77)], [square], noisy.shape[1:])
        out = trainable.denoise(noisy, torch.tensor([0.4]), text)
        grads = torch.autograd.grad(out.square().mean(), list(adapters.parameters().values()))
    return out.detach(), grads, trainable.network
