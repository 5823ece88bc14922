"""What is known of one network of diffusers, and the batch that it and ours are given."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from masklora.dataset.geometry import Geometry
from masklora.host.families import FAMILY_GUIDANCE
from masklora.host.model.trainable import TrainableModel
from masklora.loss.noise import add_noise, target
from masklora.settings import AdapterSettings

from ..double import in_double
from ..models import small_model, small_text

# Sides, crops and sizes are all unlike, so that nothing can be taken for another.
GEOMETRY = Geometry(source=(200, 150), resized=(128, 96), crop=(24, 16, 96, 64))
# Exact in float32 when multiplied by 1000 and divided again.
LEVELS = (0.25, 0.875)
GUIDANCE = 2.5

State = dict[str, Tensor]
Config = dict[str, Any]


class Outcome(NamedTuple):
    """What a network was given, what it answered and what it should have."""

    noisy: Tensor
    pred: Tensor
    target: Tensor


@dataclass(frozen=True)
class Theirs:
    """One network of diffusers.

    Attributes:
        network: Makes it, from ComfyUI's configuration of the network.
        state: Its weights from ComfyUI's: names, and rows that are split or swapped; nothing is computed.
        predict: Calls it as its pipeline does, with noisy latents and targets of its own; None where that needs what
            our models are not given.
        pipeline: The class whose `load_lora_weights` reads LoRA files for it; "" where none does.
        guidance: What ours is told.
        sides: Rows and columns of the latents.
        wide: What ComfyUI's network is built with for loading LoRAs, where diffusers' loader knows the rows of a real
            model's layers alone; else the small model's.
        lacks: Paths of ComfyUI's layers that it has not, where it is smaller than what ComfyUI's is built with.
    """

    network: Callable[[Config], nn.Module]
    state: Callable[[State, Config], State]
    predict: Callable[[Batch], Outcome] | None
    pipeline: str = ""
    guidance: float = GUIDANCE
    sides: tuple[int, int] = (8, 12)
    wide: dict[str, Any] = field(default_factory=dict)
    lacks: str = ""

    def filled(self, model: Any, dtype: torch.dtype = torch.float32) -> nn.Module:
        """The network with the weights of ComfyUI's BaseModel `model`, computing in `dtype`."""
        config, state = model.model_config.unet_config, model.diffusion_model.state_dict()
        network = self.network(config)
        made = self.state(dict(state), config)
        needed = network.state_dict().keys()
        network.load_state_dict({name: made[name].clone() for name in needed if name in made})
        # Its own `to` leaves parts in float32 by name.
        return nn.Module.to(network, dtype).eval().requires_grad_(False)


class Batch:
    """Two samples with unlike texts, levels and masks, for the small model `name` in both programs."""

    def __init__(self, name: str, theirs: Theirs, dtype: torch.dtype = torch.float32):
        patcher = small_model(name)
        self.theirs = theirs.filled(patcher.model, dtype)
        if dtype == torch.float64:
            in_double(patcher.model.diffusion_model)
        self.trainable = TrainableModel(patcher, dtype=dtype, guidance=theirs.guidance)
        g = torch.Generator().manual_seed(1)
        shape = (2, self.trainable.channels, *theirs.sides)
        self.latent, self.noise = (torch.randn(shape, generator=g, dtype=dtype) for _ in range(2))
        self.w = torch.rand(2, 1, *theirs.sides, generator=g)
        self.u = torch.tensor(LEVELS)
        self.texts = [small_text(name, tokens=40, seed=s) for s in (0, 1)]
        self.cond = self.joined("cond").to(dtype)

    def joined(self, part: str) -> Tensor:
        """What the text encoder gave under this name, of both samples."""
        return torch.cat([text[part] for text in self.texts])

    @property
    def pooled(self) -> Tensor:
        """The pooled texts (2, features)."""
        return self.joined("pooled_output").to(self.latent.dtype)

    @property
    def beside(self) -> Tensor:
        """What ComfyUI puts beside the noise where a network is shown a picture as well: that there is none."""
        conds = self.trainable.collate(self.texts, [GEOMETRY] * 2, self.latent.shape[1:])
        return torch.cat([cond["c_concat"] for cond in conds]).to(self.latent.dtype)

    def ours(self) -> Outcome:
        """Our raw prediction in a session, whose adapters change nothing yet."""
        t = self.trainable
        noisy = add_noise(self.latent, self.noise, self.u.to(self.latent.dtype), schedule=t.schedule)
        with t.session(t.make_adapters(AdapterSettings(rank=1, alpha=1.0), seed=0)), torch.no_grad():
            pred = t.denoise(noisy, self.u, t.collate(self.texts, [GEOMETRY] * 2, noisy.shape[1:]))
        return Outcome(noisy, pred, target(self.latent, self.noise, self.u, schedule=t.schedule))


def off_by(found: Tensor, wanted: Tensor) -> float:
    """Their relative distance."""
    return float((found - wanted).norm() / wanted.norm())


def by_flow(predict: Callable[[Batch, Tensor], Tensor]) -> Callable[[Batch], Outcome]:
    """Straight paths from latent to noise, and noise less latent as the target."""

    @functools.wraps(predict)
    def both(batch: Batch) -> Outcome:
        u = batch.u.to(batch.latent.dtype).view(-1, 1, 1, 1)
        noisy = (1 - u) * batch.latent + u * batch.noise
        return Outcome(noisy, predict(batch, noisy), batch.noise - batch.latent)

    return both


def packed(latents: Tensor, patch: int = 2) -> Tensor:
    """(B, C, h, w) as tokens (B, N, C · patch²), channels first in each."""
    b, c, h, w = latents.shape
    cells = latents.view(b, c, h // patch, patch, w // patch, patch).permute(0, 2, 4, 1, 3, 5)
    return cells.reshape(b, -1, c * patch * patch)


def unpacked(tokens: Tensor, like: Tensor, patch: int = 2) -> Tensor:
    """The inverse of `packed`, in the shape of `like`."""
    b, c, h, w = like.shape
    cells = tokens.view(b, h // patch, w // patch, c, patch, patch).permute(0, 3, 1, 4, 2, 5)
    return cells.reshape(like.shape)


def places(rows: int, columns: int) -> Tensor:
    """Row and column of every token, (rows · columns, 2), in float32."""
    return torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).float()


__all__ = [
    "FAMILY_GUIDANCE",
    "Batch",
    "Config",
    "Outcome",
    "State",
    "Theirs",
    "by_flow",
    "packed",
    "places",
    "unpacked",
]
