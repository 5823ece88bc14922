"""Reference pictures in the conditions of ComfyUI's networks, made by ComfyUI itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from ..model.trainable import TrainableModel

# ComfyUI's names: in a CONDITIONING, and in what a network is called with.
LATENTS, METHOD, TEXTS = "reference_latents", "reference_latents_method", "reference_latents_text_embeds"
_CONDITION = "ref_latents"


def with_references(
    trainable: TrainableModel, conditioning: list[dict[str, Any]], references: Sequence[Tensor]
) -> list[dict[str, Any]]:
    """The conditions of samples, from `TrainableModel.collate`, with each one's reference pictures.

    Args:
        trainable: A model that takes them.
        conditioning: One entry a sample.
        references: Latents (B, C, h, w) in the VAE's space, one tensor for each picture of a sample, in order; they
            may differ in size.
    """
    return [
        {**conds, **_of_one(trainable, [latents[number : number + 1] for latents in references])}
        for number, conds in enumerate(conditioning)
    ]


def _of_one(trainable: TrainableModel, latents: list[Tensor]) -> dict[str, Any]:
    """ComfyUI's conditions of one sample's references, (1, C, h, w) each, in the dtype of the training."""
    probe = torch.zeros_like(latents[0])
    probe = probe[:, :, None] if trainable.has_frames else probe
    made = trainable.model.extra_conds(**told(trainable, latents), noise=probe, device=latents[0].device)
    # Of what it makes of no text at all nothing is taken.
    found = {name: c.process_cond(batch_size=1, area=None).cond for name, c in made.items() if _CONDITION in name}
    return {name: [_placed(trainable, v) for v in c] if name == _CONDITION else c for name, c in found.items()}


def _placed(trainable: TrainableModel, latent: Tensor) -> Tensor:
    return latent.to(trainable.device, trainable.dtype, copy=True)


def told(trainable: TrainableModel, latents: Sequence[Tensor]) -> dict[str, Any]:
    """What a CONDITIONING says of reference pictures, by ComfyUI's names.

    Args:
        trainable: A model that takes them.
        latents: (1, C, h, w) each, in the VAE's space.
    """
    references = trainable.family.references
    shown = [latent[:, :, None] if trainable.has_frames and latent.ndim == 4 else latent for latent in latents]
    method = {METHOD: references.method} if references is not None and references.method else {}
    return {LATENTS: shown, **method}


def with_method(trainable: TrainableModel, conditioning: list[Any]) -> list[Any]:
    """A CONDITIONING that says how its reference pictures are placed, as ComfyUI's template of such models says it."""
    method = told(trainable, ()).get(METHOD)
    if not method:
        return conditioning
    return [[cond, {**extra, METHOD: method} if LATENTS in extra else extra] for cond, extra in conditioning]


def is_inpainting(trainable: TrainableModel) -> bool:
    """Whether the network has channels for a mask and for the picture without what that covers."""
    if type(trainable.model.model_config).__name__ not in trainable.family.inpainting:
        return False
    noise = torch.zeros(1, trainable.channels, 2, 2)
    return trainable.model.concat_cond(noise=noise, device=noise.device, **beside(trainable, noise)) is not None


def beside(trainable: TrainableModel, noise: Tensor) -> dict[str, Any]:
    """What ComfyUI's samplers tell a network for inpainting of the latent that they begin with, (1, C, …)."""
    return {"latent_image": torch.zeros_like(noise)} if trainable.model.concat_keys else {}


def reference_tokens(trainable: TrainableModel, conds: dict[str, Any]) -> int:
    """How many tokens the reference pictures in the conditions of a batch have, with what fills each of them up."""
    multiple = max(blocks.pad for blocks in trainable.family.blocks)
    counts = [trainable.tokens_of(latent.shape[2:]) for latent in conds.get(_CONDITION, ())]
    return sum(-(-count // multiple) * multiple for count in counts)


def flattened(values: dict[str, Any]) -> dict[str, Any]:
    """A text's conditioning with each tensor of `TEXTS` under a name of its own, as files hold tensors."""
    texts = values.get(TEXTS, ())
    return {
        **{name: value for name, value in values.items() if name != TEXTS},
        **{f"{TEXTS}.{number}": text for number, text in enumerate(texts)},
    }


def gathered(values: dict[str, Any]) -> dict[str, Any]:
    """What `flattened` was given."""
    names = sorted((n for n in values if n.startswith(f"{TEXTS}.")), key=lambda n: int(n.rpartition(".")[2]))
    if not names:
        return values
    rest = {name: value for name, value in values.items() if name not in names}
    return {**rest, TEXTS: [values[name] for name in names]}
