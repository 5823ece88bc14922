"""Whether a VAE, captions and sizes are a model's: asked before pictures are encoded, and before training."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError, FamilyError
from .trainable import TrainableModel

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

    from ...cache.cache import Cache
    from ...cache.plan import Entry
    from ..sampling import SampleRequest
    from .encoders import ClipTextEncoder, VaeEncoder

# How many captions are read to learn whether they differ in length.
_CAPTIONS_READ = 16
_CLIP = "Connect the CLIP that belongs to the MODEL to the cache node."


def check_latents(made: VaeEncoder | Cache, trainable: TrainableModel) -> None:
    """Nothing if the VAE, or the one that a cache was made with, may be the model's.

    Raises:
        FamilyError: It is another model's.
    """
    fault = _vae_fault((made.channels, made.stride, made.clips), trainable)
    if fault:
        raise FamilyError(
            f"cache: it was made with {fault}. Connect the VAE that belongs to the MODEL to the cache node."
        )


def _vae_fault(given: tuple[int, int, bool], trainable: TrainableModel) -> str | None:
    """Why a VAE of these channels, this stride, and for clips or not, is another model's; None where it may be its."""
    wanted = trainable.channels, trainable.stride, trainable.has_frames
    if given == wanted:
        return None
    if given[:2] == wanted[:2]:
        # Latents of such VAEs look alike, and mean something else.
        return f"a VAE for {_shown(given[2])}, but {trainable.family.title} takes one for {_shown(wanted[2])}"
    return (
        f"a VAE of {given[0]} channels and stride {given[1]}, but {trainable.family.title} takes {wanted[0]} channels "
        f"and stride {wanted[1]}"
    )


def _shown(clips: bool) -> str:
    return "clips" if clips else "pictures"


def check_text(text: dict[str, Any], trainable: TrainableModel) -> None:
    """Nothing if a caption's conditioning may be for the model.

    Raises:
        FamilyError: It lacks something that the network reads, or has another width.
    """
    try:
        fault = trainable.text_fault(text)
    except KeyError as missing:
        reads = f"which {trainable.family.title} reads"
        raise FamilyError(f"cache: its captions lack {missing}, {reads}. {_CLIP}") from missing
    if fault:
        raise FamilyError(f"cache: its captions have {fault}. {_CLIP}")


def check_sizes(buckets: Iterable[tuple[int, int]], trainable: TrainableModel) -> None:
    """Nothing if the model takes training pictures of these sizes.

    Args:
        buckets: (width, height) in pixels.
        trainable: The model.

    Raises:
        ConfigError: It does not take one of them; names it and the widgets.
    """
    for bucket in sorted(set(buckets)):
        fault = trainable.size_fault(*bucket)
        if fault:
            raise ConfigError(
                f"resolution: a training picture of {fault}. Change resolution and bucket_step in Cache Dataset."
            )


def check_before_encoding(
    model: ModelPatcher, encoder: VaeEncoder, text: ClipTextEncoder | None, entries: Sequence[Entry]
) -> None:
    """Nothing if what is about to be encoded can be trained with `model`; of its captions the empty one is tried.

    Raises:
        FamilyError: The VAE or the CLIP is another model's, or the model cannot be trained.
        ConfigError: The model does not take a size.
    """
    trainable = TrainableModel(model, unknown=True)
    check_latents(encoder, trainable)
    check_sizes((entry.bucket for entry in entries), trainable)
    if text is not None:
        check_text(text.encode([""])[0], trainable)


def check_cache_fits(cache: Cache, trainable: TrainableModel) -> None:
    """Nothing if the cache was made for models of this family.

    Raises:
        FamilyError: The VAE has other channels or another stride than the model, or the texts are another model's.
        ConfigError: The cache holds no captions, or pictures of a size that the model does not take.
    """
    check_latents(cache, trainable)
    if cache.empty_key is None:
        raise ConfigError(f"cache: it holds no captions. {_CLIP}")
    check_text(cache.empty_text(), trainable)
    check_sizes((entry.bucket for entry in cache.entries), trainable)


def batch_notes(trainable: TrainableModel, cache: Cache, *, batch_size: int, targets: Iterable[str]) -> list[str]:
    """A line where samples cannot share a pass; a few captions stand for all, since reading them takes time.

    Args:
        trainable: The model.
        cache: With the captions.
        batch_size: How many samples a batch has.
        targets: Paths of the layers with an adapter: of some models they decide.
    """
    if batch_size == 1:
        return []
    title = trainable.family.title
    slow = f"run one after another: {batch_size} take as long as {batch_size} steps of one."
    if trainable.family.alone:
        return [f"batch_size: {title} takes one sample at a time, so the samples of a batch {slow}"]
    keys = dict.fromkeys(caption.key for entry in cache.entries for caption in entry.captions)
    texts = [cache.text(key) for key in itertools.islice(keys, _CAPTIONS_READ)]
    if any(entry.caption_dropout for entry in cache.entries):
        texts.append(cache.empty_text())
    if not trainable.runs_apart(texts, targets=targets):
        return []
    return [f"batch_size: in {title} captions of unequal length cannot share a pass; samples with such {slow}"]


def check_samples_fit(request: SampleRequest, trainable: TrainableModel) -> None:
    """Nothing if sample pictures can be drawn with the model.

    Raises:
        FamilyError: The VAE is not the model's.
        ConfigError: The model cannot draw pictures of this size.
    """
    vae = request.vae
    fault = _vae_fault((vae.latent_channels, vae.spacial_compression_decode(), vae.latent_dim == 3), trainable)
    if fault:
        raise FamilyError(
            f"samples: they would be drawn with {fault}. Connect the VAE that belongs to the MODEL to Sample Pictures."
        )
    fault = trainable.size_fault(request.settings.width, request.settings.height)
    if fault:
        raise ConfigError(f"samples: {fault}. Lower width and height in Sample Pictures.")
