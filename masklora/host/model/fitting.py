"""Whether a VAE, captions and sizes are a model's: asked before pictures are encoded, and before training."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError, FamilyError
from ...settings import ALWAYS
from ..references.checks import ReferenceRule, check_captions, check_references, check_shown, rule_of
from ..references.conditions import is_inpainting
from ..references.inpainting import check_cut_outs
from .first_frame import check_first_frame, needs_starts, refuse_other_given
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


def size_fault(trainable: TrainableModel, width: int, height: int) -> str | None:
    """Why pictures of this size cannot be taken, None where they can.

    Some models take only sides that their patches divide, others know a square of places only, or no small ones.
    """
    family = trainable.family
    _, rows, columns = family.patch
    step = trainable.stride * columns, trainable.stride * rows
    if family.divides and (width % step[0] or height % step[1]):
        return f"{width}×{height} is no size for {family.title}, whose sides are multiples of {max(step)} px"
    if (width + height) // (2 * trainable.stride) < family.least:
        known = family.least * trainable.stride
        return f"{width}×{height} is too small for {family.title}, whose sides are {known} px or more on average"
    places = getattr(trainable.network, family.places, None) if family.places else None
    if not isinstance(places, int):
        return None
    if max(-(-width // step[0]), -(-height // step[1])) <= places:
        return None
    known = places * max(step)
    return f"{width}×{height} is too large for this {family.title} model, which knows {known} px a side"


def check_sizes(buckets: Iterable[tuple[int, int]], trainable: TrainableModel) -> None:
    """Nothing if the model takes training pictures of these sizes.

    Args:
        buckets: (width, height) in pixels.
        trainable: The model.

    Raises:
        ConfigError: It does not take one of them; names it and the widgets.
    """
    for bucket in sorted(set(buckets)):
        fault = size_fault(trainable, *bucket)
        if fault:
            raise ConfigError(
                f"resolution: a training picture of {fault}. Change resolution and bucket_step in Cache Dataset."
            )


def clip_rate(trainable: TrainableModel) -> float | None:
    """Frames per second of the clips that a model was made for, 0 where nobody tells; None for one of pictures."""
    rates = trainable.family.rates if trainable.has_frames else {}
    return rates.get(type(trainable.model.model_config).__name__)


def wants_starts(model: ModelPatcher | None, *, first_frame: str, clips: bool) -> bool:
    """Whether a cache holds for each clip the latent of its first frame followed by grey frames.

    Args:
        model: That is to be trained; None where it is not known.
        first_frame: The cache's setting.
        clips: Whether the VAE is one for clips.

    Raises:
        FamilyError: The model cannot be trained.
    """
    if model is None:
        return clips and first_frame == ALWAYS
    return clips and needs_starts(TrainableModel(model, unknown=True), first_frame)


def wants_cut_outs(model: ModelPatcher | None) -> bool:
    """Whether a cache holds each picture without what its mask covers; not for a model that is not known.

    Raises:
        FamilyError: The model cannot be trained.
    """
    return model is not None and is_inpainting(TrainableModel(model, unknown=True))


def reference_rule(model: ModelPatcher | None) -> ReferenceRule:
    """What a cache does with reference pictures where it is left to the model; None for one that is not known.

    Raises:
        FamilyError: The model cannot be trained.
    """
    return ReferenceRule() if model is None else rule_of(TrainableModel(model, unknown=True))


def own_rate(model: ModelPatcher) -> tuple[float, str]:
    """Frames per second of the clips that a model was made for, 0 where nobody tells, and the family's title.

    Raises:
        FamilyError: The model cannot be trained.
    """
    trainable = TrainableModel(model, unknown=True)
    return clip_rate(trainable) or 0.0, trainable.family.title


def check_clips(entries: Iterable[Entry], trainable: TrainableModel) -> None:
    """Nothing if the model takes the clips among these; raises `ConfigError`, with the first one's name, if not."""
    clip = next((entry for entry in entries if entry.latent_frames), None)
    if clip is not None and clip_rate(trainable) is None:
        raise ConfigError(
            f"clip_frames: {clip.name} would be learned as {len(clip.frames)} frames, but {trainable.family.title} "
            "makes pictures. Set clip_frames in Cache Dataset to 1 to learn the first frame of each clip."
        )


def check_before_encoding(
    model: ModelPatcher,
    encoder: VaeEncoder,
    text: ClipTextEncoder | None,
    entries: Sequence[Entry],
    *,
    first_frame: str = "auto",
) -> None:
    """Nothing if what is about to be encoded can be trained with `model`; of its captions the empty one is tried.

    `first_frame` is the cache's setting.

    Raises:
        FamilyError: The VAE or the CLIP is another model's, or the model cannot be trained.
        ConfigError: The model does not take a size, or a first frame.
    """
    trainable = TrainableModel(model, unknown=True)
    refuse_other_given(trainable)
    check_latents(encoder, trainable)
    check_sizes((entry.bucket for entry in entries), trainable)
    check_clips(entries, trainable)
    check_first_frame(trainable, first_frame, entries)
    check_references(trainable, entries)
    if text is not None:
        check_text(text.encode([""])[0], trainable)


def check_cache_fits(cache: Cache, trainable: TrainableModel) -> None:
    """Nothing if the cache was made for models of this family.

    Raises:
        FamilyError: The VAE has other channels or another stride than the model, the texts are another model's, or the
            model reads a picture beside the noise.
        ConfigError: The cache holds no captions, or pictures of a size that the model does not take.
    """
    refuse_other_given(trainable)
    check_latents(cache, trainable)
    if cache.empty_key is None:
        raise ConfigError(f"cache: it holds no captions. {_CLIP}")
    check_text(cache.empty_text(), trainable)
    check_sizes((entry.bucket for entry in cache.entries), trainable)
    check_clips(cache.entries, trainable)
    check_references(trainable, cache.entries)
    check_cut_outs(trainable, cache.entries)
    check_captions(trainable, cache.entries)


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
        FamilyError: The VAE is not the model's, or the model takes no reference pictures.
        ConfigError: The model cannot draw pictures of this size, takes fewer reference pictures, or
            makes nothing without one.
    """
    check_shown(trainable, request.references)
    vae = request.vae
    fault = _vae_fault((vae.latent_channels, vae.spacial_compression_decode(), vae.latent_dim == 3), trainable)
    if fault:
        raise FamilyError(
            f"samples: they would be drawn with {fault}. Connect the VAE that belongs to the MODEL to Sample Pictures."
        )
    fault = size_fault(trainable, request.settings.width, request.settings.height)
    if request.settings.frames > 1 and clip_rate(trainable) is None:
        raise ConfigError(f"frames: {trainable.family.title} draws pictures. Set frames in Sample Pictures to 1.")
    if fault:
        raise ConfigError(f"samples: {fault}. Lower width and height in Sample Pictures.")
