"""What a cache must hold for a data set: every sample's bucket, geometries, captions and keys.

Planning reads files only to hash them; pictures are decoded only where the geometry follows the mask or
where an alpha channel may turn out to be opaque, and what is learnt of a mask is remembered.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from ..config import CROPS, CacheSettings, check_choice, check_range
from ..errors import ConfigError, DataError
from .buckets import assign
from .captions import caption_variants
from .dataset import Dataset, Sample, load_mask, source_path
from .geometry import Geometry, mask_focus, plan_geometry
from .keys import Memo, array_digest, digest, latent_key, mask_identity, mask_key, text_key
from .mask_bytes import PackedMask

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Entry:
    """One sample in the cache; variant i has `geometries[i]`, `latent_keys[i]` and `mask_keys[i]`.

    Attributes:
        index: Position of the sample in the data set.
        name: The sample's name; a number makes it unique where data sets share names.
        bucket: Training width and height.
        geometries: One per variant: random crops, each also flipped if flip is on.
        latent_keys: Key of each variant's latent.
        mask_keys: Key of each variant's mask.
        captions: Caption texts to choose from.
        text_keys: Key of each caption; empty if the cache was built without a text encoder.
        weight: How often the sample counts in an epoch.
        multiplier: Factor on the sample's loss.
        regularisation: Whether it is a regularisation (class) picture.
        caption_dropout: Probability that a step uses the empty caption instead.
        has_mask: Whether the picture has a mask at all; without one its mask is all ones.
    """

    index: int
    name: str
    bucket: tuple[int, int]
    geometries: tuple[Geometry, ...]
    latent_keys: tuple[str, ...]
    mask_keys: tuple[str, ...]
    captions: tuple[str, ...]
    text_keys: tuple[str, ...]
    weight: float = 1.0
    multiplier: float = 1.0
    regularisation: bool = False
    caption_dropout: float = 0.0
    has_mask: bool = True

    @property
    def variants(self) -> int:
        """How many latents there are to choose from."""
        return len(self.latent_keys)

    @property
    def geometry(self) -> Geometry:
        """The geometry of the first variant."""
        return self.geometries[0]

    @property
    def mask_key(self) -> str:
        """The key of the first variant's mask."""
        return self.mask_keys[0]


@dataclass(frozen=True)
class _Facts:
    """What a sample is before geometry: digest of its picture, identity and focus of its mask."""

    image: str
    identity: str | None
    focus: tuple[float, float] | None


def check_settings(settings: CacheSettings) -> None:
    """Nothing if the settings can be used.

    Raises:
        ConfigError: A widget is out of range; names it.
    """
    check_choice("crop", settings.crop, CROPS)
    check_choice("resize", settings.resize, ("lanczos", "area"))
    check_choice("storage", settings.storage, ("disk", "memory"))
    check_range("resolution", settings.resolution, 16, 8192)
    check_range("bucket step", settings.bucket_step, 1, 1024)
    check_range("variants", settings.variants, 1, 1000)
    check_range("batch size", settings.batch_size, 1, 1024)
    check_range("max gigabytes", settings.max_gigabytes, 0.0, 1e6)
    if settings.bucket_step > settings.resolution:
        raise ConfigError(
            f"bucket step: expected at most the resolution {settings.resolution}, got {settings.bucket_step}."
        )


def plan_entries(
    dataset: Dataset,
    settings: CacheSettings,
    *,
    memo: Memo,
    encoder: str,
    text: str | None,
    multiple: int,
    progress: Progress,
    check_cancel: Callable[[], None],
) -> list[Entry]:
    """One entry per sample, in the data set's order.

    Args:
        dataset: The samples.
        settings: Geometry and variants.
        memo: Digests and mask facts of earlier builds; what is new is noted in it.
        encoder: Identity of the VAE.
        text: Identity of the text encoder, None without one.
        multiple: What bucket sides must divide by.
        progress: Called with (done, total, text).
        check_cancel: Called per sample; raises to cancel.

    Raises:
        DataError: There are no samples, or a picture cannot be read or is too small.
        ConfigError: The bucket step does not fit `multiple`.
    """
    samples = dataset.samples
    if not samples:
        raise DataError("The data set has no pictures. Check its folder and its filters.")
    buckets = assign([s.size for s in samples], settings, multiple=multiple, names=[s.name for s in samples])
    entries = []
    names: Counter[str] = Counter()
    for index, (sample, bucket) in enumerate(zip(samples, buckets, strict=True)):
        check_cancel()
        progress(index, len(samples), f"looking at {sample.name}")
        entry = _plan(index, sample, bucket, settings=settings, memo=memo, encoder=encoder, text=text)
        names[sample.name] += 1
        if names[sample.name] > 1:
            entry = dataclasses.replace(entry, name=f"{sample.name} ({names[sample.name]})")
        entries.append(entry)
    return entries


def _plan(
    index: int,
    sample: Sample,
    bucket: tuple[int, int],
    *,
    settings: CacheSettings,
    memo: Memo,
    encoder: str,
    text: str | None,
) -> Entry:
    facts = _facts_of(sample, memo=memo, focus=settings.crop == "mask-centred")
    geometries = _geometries(sample, bucket, settings, focus=facts.focus)
    captions = _captions(sample, settings)
    options = sample.settings
    return Entry(
        index=index,
        name=sample.name,
        bucket=bucket,
        geometries=geometries,
        latent_keys=tuple(
            latent_key(
                facts.image,
                geometry,
                resize=settings.resize,
                fill=options.fill,
                fill_mask=facts.identity,
                encoder=encoder,
            )
            for geometry in geometries
        ),
        mask_keys=tuple(mask_key(facts.identity, g, hard=is_hard(sample)) for g in geometries),
        captions=captions,
        text_keys=() if text is None else tuple(text_key(c, encoder=text) for c in captions),
        weight=sample.repeats,
        multiplier=options.loss_multiplier,
        regularisation=options.regularisation,
        caption_dropout=options.caption.dropout,
        has_mask=facts.identity is not None,
    )


def is_hard(sample: Sample) -> bool:
    """Whether the sample's mask consists of 0 and 1 before geometry, so that growing must copy, not blend."""
    return sample.transform.binarize and sample.transform.feather <= 0


def _facts_of(sample: Sample, *, memo: Memo, focus: bool) -> _Facts:
    image = _image_digest(sample, memo)
    source, channel = _mask_source(sample, image, memo)
    if source is None:
        return _Facts(image, None, None)
    identity = mask_identity(source, channel=channel, transform=sample.transform)
    known = memo.facts(identity)
    if known is None and not source.startswith("alpha") and not focus:
        return _Facts(image, identity, None)
    if known is None or (focus and known["has"] and "focus" not in known):
        mask = load_mask(sample)
        centre = None if mask is None else mask_focus(mask)
        known = memo.note(identity, has=mask is not None, focus=centre and [float(c) for c in centre])
    if not known["has"]:
        return _Facts(image, None, None)
    centre = known.get("focus") if focus else None
    return _Facts(image, identity, (centre[0], centre[1]) if centre else None)


def _image_digest(sample: Sample, memo: Memo) -> str:
    if sample.image is not None:
        return array_digest(sample.image)
    return memo.file(source_path(sample))


def _mask_source(sample: Sample, image: str, memo: Memo) -> tuple[str | None, str]:
    """Where the mask's values come from, and the channel that is read; None if there is surely no mask."""
    if sample.mask is not None:
        packed = isinstance(sample.mask, PackedMask)
        return f"array {sample.mask.digest if packed else array_digest(sample.mask)}", ""
    if sample.mask_path is not None:
        return f"file {memo.file(sample.mask_path)}", sample.settings.mask_channel
    return (f"alpha {image}", "") if sample.alpha and sample.image is None else (None, "")


def _geometries(
    sample: Sample, bucket: tuple[int, int], settings: CacheSettings, *, focus: tuple[float, float] | None
) -> tuple[Geometry, ...]:
    crops = settings.variants if settings.crop == "random" else 1
    found: dict[Geometry, None] = {}
    for number in range(crops):
        seed = int(digest("crop", settings.seed, sample.name, number)[:16], 16)
        plain = plan_geometry(
            sample.size,
            bucket,
            crop=settings.crop,
            focus=focus,
            generator=np.random.default_rng(seed),
            upscale=settings.upscale,
        )
        found[plain] = None
        if settings.flip:
            found[dataclasses.replace(plain, flip=True)] = None
    return tuple(found)


def _captions(sample: Sample, settings: CacheSettings) -> tuple[str, ...]:
    generator = torch.Generator().manual_seed(int(digest("caption", settings.seed, sample.name)[:15], 16))
    options = sample.settings.caption
    return tuple(caption_variants(sample.caption, options, count=settings.variants, generator=generator))
