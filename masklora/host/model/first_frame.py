"""The first frame of each clip given to a network that continues it, as ComfyUI's own nodes and samplers give it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...errors import ConfigError, FamilyError
from ...findings import Finding, counted, note, warning
from ...settings import ALWAYS, NEVER
from ..families.family import ALONE, BEFORE_GREY, BY_NETWORK, IN_PLACE
from ..references.conditions import is_inpainting
from .conditioning import mapped

if TYPE_CHECKING:
    from ...cache.cache import Cache
    from ...cache.plan import Entry
    from ...settings import LossSettings
    from .trainable import TrainableModel

# Where the conditions of a sample hold what lies in place of its noise, (1, C, 1, h, w) in the network's space.
_START = "masked_lora_start"
# ComfyUI's name for the frames, (1, C, f, h, w), that a network puts in place of its first ones.
REPLACED = "time_dim_replace"
# Channels in which Wan is told which frames it is given, beside those of the picture.
_MARKS = 4


def first_frame_of(trainable: TrainableModel) -> str:
    """How a model is given the first frame of a clip that it continues, `Family.first_frame`; "" for none."""
    kind = trainable.family.first_frame.get(type(trainable.model.model_config).__name__, "")
    if kind not in (BEFORE_GREY, ALONE):
        return kind
    beside = trainable.model.concat_cond(noise=torch.zeros(1, trainable.channels, 1, 2, 2), device=torch.device("cpu"))
    if beside is None or (kind == BEFORE_GREY and beside.shape[1] != trainable.channels + _MARKS):
        return ""
    return kind


def is_read_from_cache(kind: str) -> bool:
    """Whether a cache must hold a latent more for each clip; else the first frame is taken from the clip's own."""
    return kind == BEFORE_GREY


def only_continues(trainable: TrainableModel) -> bool:
    """Whether a model that is given first frames makes no clips from text alone."""
    return first_frame_of(trainable) == BEFORE_GREY or bool(trainable.model.concat_keys)


def read_from(kind: str) -> str:
    """Where a training reads the first frames that are given as `kind` says; see `training.job.TrainJob`."""
    return ("cache" if is_read_from_cache(kind) else "clip") if kind else ""


def with_first_frames(
    trainable: TrainableModel, conditioning: list[dict[str, Any]], starts: Tensor
) -> list[dict[str, Any]]:
    """The conditions of clips, from `TrainableModel.collate`, with each one's first frame.

    Args:
        trainable: A model that is given first frames.
        conditioning: One entry a sample.
        starts: Latents (B, C, F, h, w) in the VAE's space: of the first frames followed by grey frames, or of the
            clips themselves, whose first frame alone counts, as the model wants it.
    """
    kind, mask = first_frame_of(trainable), given_mask(starts.shape[2:], device=starts.device)
    return [
        {**conds, **_first_frame(trainable, kind, start[None], mask)}
        for conds, start in zip(conditioning, starts, strict=True)
    ]


def _first_frame(trainable: TrainableModel, kind: str, start: Tensor, mask: Tensor) -> dict[str, Any]:
    first = trainable.latent_in(start[:, :, :1])
    # ComfyUI's samplers put the latent back before each call, and the model tells its first frame of no noise.
    own = {IN_PLACE: {_START: first, "denoise_mask": mask}, BY_NETWORK: {REPLACED: first}}
    found = own.get(kind, {})
    shown = beside_noise(kind, start)
    beside = trainable.model.concat_cond(
        noise=torch.zeros_like(start), concat_latent_image=shown, concat_mask=mask, device=start.device
    )
    if beside is not None:
        found["c_concat"] = beside
    return mapped(found, lambda v: v.to(trainable.device, trainable.dtype, copy=True))


def beside_noise(kind: str, start: Tensor) -> Tensor:
    """What a network is shown beside the noise, (1, C, F, h, w), of the latent of a clip or of a frame before grey."""
    if kind == BEFORE_GREY:
        return start.clone()
    shown = torch.zeros_like(start)
    shown[:, :, :1] = start[:, :, :1]
    return shown


def given_mask(grid: Sequence[int], *, device: torch.device | None = None) -> Tensor:
    """(1, 1, F, h, w), 0 in the first latent frame, which is given, and 1 in what is to be made."""
    mask = torch.ones(1, 1, *grid, device=device)
    mask[:, :, :1] = 0
    return mask


def in_place(noisy: Tensor, conditioning: list[dict[str, Any]]) -> tuple[Tensor, list[dict[str, Any]]]:
    """Noisy latents (B, C, F, h, w) with the first frames that `conditioning` gives, and what is left of that."""
    if not conditioning or _START not in conditioning[0]:
        return noisy, conditioning
    starts = torch.cat([conds[_START] for conds in conditioning]).to(noisy)
    rest = [{name: value for name, value in conds.items() if name != _START} for conds in conditioning]
    return torch.cat([starts, noisy[:, :, 1:]], dim=2), rest


def refuse_other_given(trainable: TrainableModel) -> None:
    """Nothing if the model is given nothing beside the noise that ComfyUI's samplers alone have.

    Raises:
        FamilyError: It is: HunyuanVideo's for image to video, and those for inpainting.
    """
    if trainable.model.concat_keys and not is_inpainting(trainable) and not first_frame_of(trainable):
        raise FamilyError(
            f"model: this {trainable.family.title} model reads a picture beside the noise, for image to video or for "
            "inpainting, which no training here gives it. Train the model of the family that makes pictures or clips "
            "from text."
        )


def needs_starts(trainable: TrainableModel, first_frame: str) -> bool:
    """Whether a cache for the model, built with this setting, holds the latents that it is given clips with."""
    return first_frame != NEVER and is_read_from_cache(first_frame_of(trainable))


def settle_first_frame(trainable: TrainableModel, cache: Cache, loss: LossSettings) -> str:
    """How clips are given their first frame in a training, `Family.first_frame`; "" where they are not.

    A model that can only continue a picture is given it unless the cache's `first_frame` is "never", one that makes
    clips from text too where it is "always".

    Raises:
        ConfigError: The model takes none, the cache lacks what it takes, or a setting does not go with it.
    """
    setting, kind = cache.settings.first_frame, first_frame_of(trainable)
    clips = [entry for entry in cache.entries if entry.latent_frames]
    check_first_frame(trainable, setting, cache.entries)
    if not clips or not kind or setting == NEVER or (setting != ALWAYS and not only_continues(trainable)):
        return ""
    if is_read_from_cache(kind) and not all(variant.start for entry in clips for variant in entry.variants):
        raise ConfigError(
            f"first_frame: this {trainable.family.title} model continues a picture, and the cache was made without the "
            "first frames. Connect the MODEL to Cache Dataset, or set first_frame there to always."
        )
    if kind == IN_PLACE and loss.routes.strip():
        raise ConfigError(
            f"routes: {trainable.family.title} tells its blocks the noise of each frame apart where the first is "
            "given, so that no token can skip them. Empty it, or set first_frame in Cache Dataset to never."
        )
    return kind


def check_first_frame(trainable: TrainableModel, setting: str, entries: Sequence[Entry]) -> None:
    """Nothing if the first frame of all that is learned can be given to the model where that is asked for.

    Raises:
        ConfigError: The model takes none, or a picture is among the clips; names it.
    """
    if setting != ALWAYS:
        return
    kind, title = first_frame_of(trainable), trainable.family.title
    if not kind:
        raise ConfigError(
            f"first_frame: this {title} model is given no first frame here. Set first_frame in Cache Dataset to auto."
        )
    still = next((entry for entry in entries if not entry.latent_frames), None)
    if still is not None and kind == BEFORE_GREY:
        raise ConfigError(
            f"first_frame: {still.name} is one frame, which this {title} model would be given: nothing is left to "
            "learn. Take it out of the data set, give it more frames by clip_frames, or set first_frame to auto."
        )


def first_frame_notes(trainable: TrainableModel, cache: Cache, kind: str) -> list[Finding]:
    """What a person should know of first frames before the first step; `kind` is `settle_first_frame`'s."""
    title = trainable.family.title
    clips = [entry for entry in cache.entries if entry.latent_frames]
    stills = len(cache.entries) - len(clips)
    own = first_frame_of(trainable)
    found = [*_given(trainable, kind), *_not_given(trainable, cache, clips=bool(clips), kind=kind)]
    if own and only_continues(trainable) and stills and cache.settings.first_frame != NEVER:
        found.append(
            warning(
                f"first_frame: {counted(stills, '[picture is|pictures are]')} learned as from text alone, since this "
                f"{title} model continues a first frame, beside which a picture has nothing. Use clips, or train the "
                "model for text."
            )
        )
    return found


def _given(trainable: TrainableModel, kind: str) -> list[Finding]:
    if not kind:
        return []
    told = [
        note(
            f"first_frame: {trainable.family.title} is given the first frame of each clip, which is neither learned "
            "nor held to the base model, nor counted in the loss and its coverage."
        )
    ]
    if getattr(trainable.network, "img_emb", None) is not None:
        told.append(
            note("first_frame: the frame is given as a latent alone, without what a CLIP vision model sees in it.")
        )
    return told


def _not_given(trainable: TrainableModel, cache: Cache, *, clips: bool, kind: str) -> list[Finding]:
    title, own = trainable.family.title, first_frame_of(trainable)
    if not clips or kind:
        return []
    if own and not only_continues(trainable):
        if cache.settings.first_frame == NEVER:
            return []
        return [
            note(
                f"first_frame: clips are learned as from text alone. If {title} shall continue pictures, set "
                "first_frame in Cache Dataset to always."
            )
        ]
    if not trainable.reads("c_concat", cache.empty_text()):
        return []
    return [
        warning(
            f"This {title} model makes clips from a first frame, which this training does not show it: it learns them "
            "as from text alone. Look at sample clips early."
        )
    ]
