"""What a cache must hold for a data set: every sample's bucket, geometries, captions and keys.

Planning reads files only to hash them; pictures are decoded only where the geometry follows the mask or
where an alpha channel may turn out to be opaque, and what is learnt of a mask is remembered.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from ..dataset.geometry import Geometry, mask_box
from ..dataset.sample import Dataset, ExaminedMask, Sample, examine_mask, source_path
from ..errors import ConfigError, DataError
from ..folder.captions import caption_variants, split_captions, without_trigger
from ..pictures.packed_mask import PackedMask
from ..settings import CacheSettings, about, check, check_range
from .buckets import assign, resolutions
from .crops import BOXED, plan_crop
from .donors import Donors
from .infill import OTHER, Infill, plan_set
from .keys import Memo, array_digest, digest, infill_key, latent_key, mask_identity, mask_key, shrunk_key, text_key

Progress = Callable[[int, int, str], None]
# Raise it when what is noted of a mask changes its meaning.
FACTS = 1
_NOTED = ("has", "box", "mark", "mean", "peak", "lowest", "raw_peak", "border", "middle", "read", "doubts")

# The number of a variant's own picture among its backgrounds.
ORIGINAL = -1
# What is cached of an entry.
KINDS = ("latent", "mask", "text")


@dataclass(frozen=True)
class Shrink:
    """How a variant's mask is reduced to a disc around one of its points; see `masks.shrink_to_circle`."""

    factor: float
    seed: int


@dataclass(frozen=True)
class Variant:
    """One way to show a sample.

    Attributes:
        geometry: Where its pixels go: a random crop and turn, flipped too if flip is on.
        shrink: How its mask is shrunk at random, None where it is whole.
        latent: Key of its latent.
        mask: Key of its mask.
        infills: Key of the latent before each of the entry's replaced backgrounds.
    """

    geometry: Geometry
    shrink: Shrink | None
    latent: str
    mask: str
    infills: tuple[str, ...] = ()


@dataclass(frozen=True)
class Caption:
    """One text to choose from.

    Attributes:
        text: As it is trained.
        key: Of its conditioning; empty if the cache was built without a text encoder.
        plain: The text without its trigger word and those of the other data sets, None where it has none of its own.
        plain_key: Key of that, empty where there is none.
    """

    text: str
    key: str = ""
    plain: str | None = None
    plain_key: str = ""


@dataclass(frozen=True)
class MaskFacts:
    """What a mask weighs before the geometry, transforms applied, and what was made of its files.

    Attributes:
        mean: Of its weights, in 0..1.
        peak, lowest: The largest and the smallest of them.
        raw_peak: The largest before the transforms.
        border: Median over the four sides of the mean weight along the side, an eighth of the picture wide; a
            subject that one side cuts does not count, as it does not for a person's eye.
        middle: Mean weight inside of these.
        read, doubts: As in `ExaminedMask`.
    """

    mean: float
    peak: float
    lowest: float
    raw_peak: float
    border: float
    middle: float
    read: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Entry:
    """One sample in the cache.

    Attributes:
        index: Position of the sample in the data set.
        name: The sample's name; a number makes it unique where data sets share names.
        bucket: Training width and height.
        variants: Ways to show it, to choose from, at least one.
        captions: Texts to choose from.
        weight: How often the sample counts in an epoch.
        multiplier: Factor on the sample's loss.
        regularisation: Whether it is a regularisation (class) picture.
        caption_dropout: Probability that a step uses the empty caption instead.
        has_mask: Whether the picture has a mask at all; without one its mask is all ones.
        infills: What replaces the background, the same for all variants; none without a mask.
        picture: Digest of the picture, which several entries may show.
        facts: Of its mask before the geometry; None without one.
        resolution: Side of the square whose area it has at most.
    """

    index: int
    name: str
    bucket: tuple[int, int]
    variants: tuple[Variant, ...]
    captions: tuple[Caption, ...]
    weight: float = 1.0
    multiplier: float = 1.0
    regularisation: bool = False
    caption_dropout: float = 0.0
    has_mask: bool = True
    infills: tuple[Infill, ...] = ()
    picture: str = ""
    facts: MaskFacts | None = None
    resolution: int = 0

    @property
    def geometry(self) -> Geometry:
        """The geometry of the first variant."""
        return self.variants[0].geometry

    @property
    def cached(self) -> set[tuple[str, str]]:
        """Kind (`KINDS`) and key of everything that is cached of it."""
        found = {("latent", key) for variant in self.variants for key in (variant.latent, *variant.infills)}
        found |= {("mask", variant.mask) for variant in self.variants}
        return found | {("text", key) for caption in self.captions for key in (caption.key, caption.plain_key) if key}


@dataclass(frozen=True)
class _Facts:
    """What a sample is before geometry: digest of its picture, identity, bounding box and weights of its mask."""

    image: str
    identity: str | None
    box: tuple[float, float, float, float] | None
    mask: MaskFacts | None = None


def check_settings(settings: CacheSettings) -> None:
    """Nothing if the settings can be used.

    Raises:
        ConfigError: A widget is out of range; names it.
    """
    check(settings)
    if settings.crop == "around mask":
        _, most = about(settings, "crop_margin_max").metadata["range"]
        check_range("crop_margin_max", settings.crop_margin_max, settings.crop_margin, most)
    smallest = min(resolutions(settings))
    if settings.bucket_step > smallest:
        raise ConfigError(f"bucket step: expected at most the resolution {smallest}, got {settings.bucket_step}.")


def plan_entries(
    dataset: Dataset,
    settings: CacheSettings,
    *,
    memo: Memo,
    identities: tuple[str, str | None],
    multiple: int,
    progress: Progress,
    check_cancel: Callable[[], None],
    is_cached: Callable[[str], bool] = lambda key: False,
) -> list[Entry]:
    """One entry per sample in the data set's order, then those of further resolutions.

    What a further resolution would show just as before, because the picture is small, counts there once more instead.

    Args:
        dataset: The samples.
        settings: Geometry and variants.
        memo: Digests and mask facts of earlier builds; what is new is noted in it.
        identities: Of the VAE and of the text encoder, None without one.
        multiple: What bucket sides must divide by.
        progress: Called with (done, total, text).
        check_cancel: Called per sample; raises to cancel.
        is_cached: Whether the latent of a key is there already.

    Raises:
        DataError: There are no samples, or a picture cannot be read or is too small.
        ConfigError: The bucket step does not fit `multiple`.
    """
    samples = dataset.samples
    if not samples:
        raise DataError("The data set has no pictures. Check its folder and its filters.")
    sizes, names = [s.size for s in samples], [s.name for s in samples]
    levels = [dataclasses.replace(settings, resolution=side, more_resolutions="") for side in resolutions(settings)]
    buckets = [assign(sizes, level, multiple=multiple, names=names) for level in levels]
    boxed = settings.crop in BOXED
    facts = []
    for index, sample in enumerate(samples):
        check_cancel()
        progress(index, len(samples), f"looking at {sample.name}")
        facts.append(_facts_of(sample, memo=memo, boxed=boxed))
    triggers = {s.settings.caption.trigger.strip() for s in samples if not s.settings.regularisation}
    planned = []
    for level, wanted in zip(levels, buckets, strict=True):
        plain = [
            _plan(i, sample, bucket, settings=level, facts=facts, identities=identities, triggers=triggers)
            for i, (sample, bucket) in enumerate(zip(samples, wanted, strict=True))
        ]
        planned.append(_with_infills(plain, samples, level, facts, encoder=identities[0], is_cached=is_cached))
    return _uniquely_named(_together(planned))


def _together(levels: Sequence[Sequence[Entry]]) -> list[Entry]:
    """The entries of all resolutions; what is shown alike at two of them is one that counts twice."""
    out = list(levels[0])
    places = {(entry.index, entry.variants): i for i, entry in enumerate(out)}
    for entry in itertools.chain.from_iterable(levels[1:]):
        place = places.setdefault((entry.index, entry.variants), len(out))
        if place == len(out):
            out.append(dataclasses.replace(entry, name=f"{entry.name} at {entry.resolution}"))
        else:
            out[place] = dataclasses.replace(out[place], weight=out[place].weight + entry.weight)
    return out


def _uniquely_named(entries: list[Entry]) -> list[Entry]:
    names: Counter[str] = Counter()
    out = []
    for entry in entries:
        names[entry.name] += 1
        count = names[entry.name]
        out.append(entry if count == 1 else dataclasses.replace(entry, name=f"{entry.name} ({count})"))
    return out


def _with_infills(
    entries: list[Entry],
    samples: Sequence[Sample],
    settings: CacheSettings,
    facts: list[_Facts],
    *,
    encoder: str,
    is_cached: Callable[[str], bool],
) -> list[Entry]:
    """The entries with their replaced backgrounds."""
    donors, keys = Donors.of(samples), [sample.key for sample in samples]
    counts = [settings.infill_variants if entry.has_mask else 0 for entry in entries]

    def planned(*, as_before: bool) -> list[Entry]:
        found = plan_set(keys, counts, kind=settings.infill, seed=settings.seed, donors=donors, as_before=as_before)
        return [
            _with_keys(entry, infills, settings, facts, encoder=encoder) if infills else entry
            for entry, infills in zip(entries, found, strict=True)
        ]

    # What an earlier version has cached is used on, so that its runs go on, although it lent unevenly.
    before = planned(as_before=True)
    lent = [
        key
        for entry in before
        for variant in entry.variants
        for key, infill in zip(variant.infills, entry.infills, strict=True)
        if infill.kind == OTHER
    ]
    return before if lent and all(map(is_cached, lent)) else planned(as_before=False)


def _with_keys(
    entry: Entry, infills: tuple[Infill, ...], settings: CacheSettings, facts: list[_Facts], *, encoder: str
) -> Entry:
    own = facts[entry.index]
    donors = [None if i.donor is None else (facts[i.donor].image, facts[i.donor].identity) for i in infills]
    pairs = list(zip(infills, donors, strict=True))

    def keyed(variant: Variant) -> Variant:
        bare = latent_key(
            own.image,
            variant.geometry,
            resize=settings.resize,
            fill="keep",
            fill_mask=own.identity,
            encoder=encoder,
        )
        keys = tuple(infill_key(bare, infill, mask=own.identity, donor=donor) for infill, donor in pairs)
        return dataclasses.replace(variant, infills=keys)

    return dataclasses.replace(entry, infills=infills, variants=tuple(map(keyed, entry.variants)))


def _plan(
    index: int,
    sample: Sample,
    bucket: tuple[int, int],
    *,
    settings: CacheSettings,
    facts: list[_Facts],
    identities: tuple[str, str | None],
    triggers: Collection[str],
) -> Entry:
    """One entry, without replaced backgrounds."""
    own, options = facts[index], sample.settings
    variants = _variants(sample, bucket, settings, own=own, encoder=identities[0])
    return Entry(
        index=index,
        name=sample.name,
        bucket=variants[0].geometry.size,
        variants=variants,
        captions=_captions(sample, settings, triggers=triggers, encoder=identities[1]),
        weight=sample.repeats,
        multiplier=options.loss_multiplier,
        regularisation=options.regularisation,
        caption_dropout=options.caption.dropout,
        has_mask=own.identity is not None,
        picture=own.image,
        facts=own.mask,
        resolution=settings.resolution,
    )


def is_hard(sample: Sample) -> bool:
    """Whether the sample's mask consists of 0 and 1 before geometry, so that growing must copy, not blend."""
    return sample.transform.binarize and sample.transform.feather <= 0


def _facts_of(sample: Sample, *, memo: Memo, boxed: bool) -> _Facts:
    image = _image_digest(sample, memo)
    source, channel = _mask_source(sample, image, memo)
    if source is None:
        return _Facts(image, None, None)
    # Transforms count in pixels of the picture, so what they leave hangs on its size as well.
    about = digest("mask facts", FACTS, source, channel, dataclasses.asdict(sample.transform), sample.size)
    known = memo.facts(about)
    if known is None or not set(_NOTED) <= set(known):
        known = memo.note(about, **_examined(sample, examine_mask(sample)))
    if not known["has"]:
        return _Facts(image, None, None)
    mark = known["mark"]
    identity = mask_identity(f"{source} as {mark}" if mark else source, channel=channel, transform=sample.transform)
    box = known["box"] if boxed else None
    weights = (known[name] for name in ("mean", "peak", "lowest", "raw_peak", "border", "middle"))
    facts = MaskFacts(*weights, tuple(known["read"]), tuple(known["doubts"]))
    return _Facts(image, identity, (box[0], box[1], box[2], box[3]) if box else None, facts)


def _examined(sample: Sample, found: ExaminedMask) -> dict[str, object]:
    """What the memo keeps of a mask: `_NOTED`."""
    mask = found.mask
    if mask is None:
        return dict.fromkeys(_NOTED) | {"has": False}
    fields = cv2.resize(mask, (8, 8), interpolation=cv2.INTER_AREA)
    sides = [fields[0], fields[-1], fields[:, 0], fields[:, -1]]
    return {
        "has": True,
        "box": mask_box(mask, least=_least(sample)),
        "mark": found.mark,
        "mean": float(mask.mean(dtype=np.float64)),
        "peak": float(mask.max(initial=0)),
        "lowest": float(mask.min(initial=1)),
        "raw_peak": found.peak,
        "border": float(np.median([side.mean() for side in sides])),
        "middle": float(fields[1:-1, 1:-1].mean()),
        "read": list(found.read),
        "doubts": list(found.doubts),
    }


def _least(sample: Sample) -> float:
    """The smallest relative weight of the subjects in a sample's mask, which its box must not miss."""
    return min((part.weight for part in sample.parts), default=1.0)


def _image_digest(sample: Sample, memo: Memo) -> str:
    if sample.image is not None:
        return array_digest(sample.image)
    stored = memo.file(source_path(sample))
    return digest("read", sample.reading, stored) if sample.reading else stored


def _mask_source(sample: Sample, image: str, memo: Memo) -> tuple[str | None, str]:
    """Where the mask's values come from, and the channel that is read; None if there is surely no mask."""
    if sample.mask is not None:
        packed = isinstance(sample.mask, PackedMask)
        return f"array {sample.mask.digest if packed else array_digest(sample.mask)}", ""
    if sample.parts:
        files = sorted([memo.file(part.path), part.weight] for part in sample.parts)
        return f"union {digest(files)}", sample.settings.mask_channel
    if sample.mask_path is not None:
        return f"file {memo.file(sample.mask_path)}", sample.settings.mask_channel
    return (f"alpha {image}", "") if sample.alpha and sample.image is None else (None, "")


def _variants(
    sample: Sample, bucket: tuple[int, int], settings: CacheSettings, *, own: _Facts, encoder: str
) -> tuple[Variant, ...]:
    """Without replaced backgrounds."""
    fill, hard = sample.settings.fill, is_hard(sample)
    return tuple(
        Variant(
            geometry,
            shrink,
            latent_key(own.image, geometry, resize=settings.resize, fill=fill, fill_mask=own.identity, encoder=encoder),
            shrunk_key(mask_key(own.identity, geometry, hard=hard), shrink),
        )
        for geometry, shrink in _ways(sample, bucket, settings, box=own.box, masked=own.identity is not None)
    )


def _ways(
    sample: Sample,
    bucket: tuple[int, int],
    settings: CacheSettings,
    *,
    box: tuple[float, float, float, float] | None,
    masked: bool,
) -> tuple[tuple[Geometry, Shrink | None], ...]:
    """Geometries and shrinks as chance gives them, each pair once."""
    shrinks = masked and settings.mask_shrink < 1
    zooms = settings.crop == "around mask" and settings.crop_margin_max > settings.crop_margin
    chance = settings.crop == "random" or settings.rotate > 0 or shrinks or (zooms and box is not None)
    found: dict[tuple[Geometry, Shrink | None], None] = {}
    for number in range(settings.variants if chance else 1):
        # Held-out losses use the first variant: where there are others, it is as plain as can be.
        plain = number == 0 and settings.variants > 1
        # Of the picture: its subjects are cropped alike, so that they share its latents.
        random = np.random.default_rng(int(digest("crop", settings.seed, sample.picture, number)[:16], 16))
        geometry = plan_crop(sample.size, bucket, settings, box=box, random=None if plain else random)
        shrink = None
        if shrinks and not plain:
            shrink = Shrink(float(random.uniform(settings.mask_shrink, 1.0)), int(random.integers(2**53)))
        found[geometry, shrink] = None
        if settings.flip:
            found[dataclasses.replace(geometry, flip=True), shrink] = None
    return tuple(found)


def _captions(
    sample: Sample, settings: CacheSettings, *, triggers: Collection[str], encoder: str | None
) -> tuple[Caption, ...]:
    def keyed(text: str | None) -> str:
        return "" if text is None or encoder is None else text_key(text, encoder=encoder)

    texts, options = _texts(sample, settings), sample.settings.caption
    pairs = [(text, without_trigger(text, options, others=triggers)) for text in texts]
    return tuple(Caption(text, keyed(text), plain, keyed(plain)) for text, plain in pairs)


def _texts(sample: Sample, settings: CacheSettings) -> tuple[str, ...]:
    generator = torch.Generator().manual_seed(int(digest("caption", settings.seed, sample.name)[:15], 16))
    options = sample.settings.caption
    # Another node's text is one caption, whatever its lines are.
    texts = [sample.caption] if sample.image is not None else split_captions(sample.caption)
    drawn = (caption_variants(text, options, count=settings.variants, generator=generator) for text in texts)
    return tuple(dict.fromkeys(caption for captions in drawn for caption in captions))
