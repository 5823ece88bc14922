"""Whether a VAE, captions and sizes are a model's: asked before pictures are encoded, and before training."""

from __future__ import annotations

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

_CLIP = "Connect the CLIP that belongs to the MODEL to the cache node."


def check_latents(channels: int, stride: int, trainable: TrainableModel) -> None:
    """Nothing if a VAE of so many channels and pixels a cell is the model's.

    Raises:
        FamilyError: It is another model's.
    """
    if (channels, stride) != (trainable.channels, trainable.stride):
        raise FamilyError(
            f"cache: it was made with a VAE of {channels} channels and stride {stride}, but "
            f"{trainable.family.title} takes {trainable.channels} channels and stride {trainable.stride}. "
            "Connect the VAE that belongs to the MODEL to the cache node."
        )


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
    check_latents(encoder.channels, encoder.stride, trainable)
    check_sizes((entry.bucket for entry in entries), trainable)
    if text is not None:
        check_text(text.encode([""])[0], trainable)


def check_cache_fits(cache: Cache, trainable: TrainableModel) -> None:
    """Nothing if the cache was made for models of this family.

    Raises:
        FamilyError: The VAE has other channels or another stride than the model, or the texts are another model's.
        ConfigError: The cache holds no captions, or pictures of a size that the model does not take.
    """
    check_latents(cache.channels, cache.stride, trainable)
    if cache.empty_key is None:
        raise ConfigError(f"cache: it holds no captions. {_CLIP}")
    check_text(cache.empty_text(), trainable)
    check_sizes((entry.bucket for entry in cache.entries), trainable)


def check_samples_fit(request: SampleRequest, trainable: TrainableModel) -> None:
    """Nothing if sample pictures can be drawn with the model.

    Raises:
        FamilyError: The VAE is not the model's.
        ConfigError: The model cannot draw pictures of this size.
    """
    vae = request.vae
    fits = (vae.latent_channels, vae.spacial_compression_decode())
    if fits != (trainable.channels, trainable.stride):
        raise FamilyError(
            f"samples: the VAE has {fits[0]} channels and stride {fits[1]}, but {trainable.family.title} gives "
            f"{trainable.channels} channels and stride {trainable.stride}. Connect the VAE that belongs "
            "to the MODEL to Sample Pictures."
        )
    fault = trainable.size_fault(request.settings.width, request.settings.height)
    if fault:
        raise ConfigError(f"samples: {fault}. Lower width and height in Sample Pictures.")
