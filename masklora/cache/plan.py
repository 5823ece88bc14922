"""What a cache must hold for a data set: every sample's bucket, geometries, captions and keys.

Planning reads files only to hash them; pictures are decoded only where the geometry follows the mask or
where an alpha channel may turn out to be opaque, and what is learnt of a mask is remembered.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np

from ..dataset.geometry import Geometry
from ..dataset.sample import Dataset, Sample
from ..errors import ConfigError, DataError
from ..settings import OWN_SIZE, CacheSettings, about, check, check_range
from .buckets import assign, resolutions
from .captions import Caption, captions_of
from .crops import BOXED, plan_crop
from .donors import Donors
from .facts import MaskFacts, SampleFacts, facts_of
from .fill import STILL_FILLS
from .infill import OTHER, STILL_INFILLS, Infill, plan_set
from .keys import Memo, cut_out_key, digest, infill_key, latent_key, mask_key, shrunk_key, start_key, text_key
from .references import check_shared, infills_references, reference_geometries, reference_keys
from .shots import ClipRule, Shot, shots_of

Progress = Callable[[int, int, str], None]

# The number of a variant's own picture among its backgrounds.
ORIGINAL = -1
# What is cached of an entry.
KINDS = ("latent", "mask", "text", "reference")


@dataclass(frozen=True)
class Encoders:
    """What planning must know of the encoders.

    Attributes:
        vae: Identity of the VAE.
        text: Identity of the text encoder, None without one.
        stride: Pixels per latent cell, by which bucket sides must divide.
        rule: What the VAE makes of clips.
        pictures: In which way the text encoder sees the references; "" where it does not.
    """

    vae: str
    text: str | None
    stride: int
    rule: ClipRule
    pictures: str = ""


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
        start: Key of the latent of a clip's first frame followed by grey frames, or of a picture whose masked part is
            grey; "" where none is kept.
        infill_starts: The same of each replaced background.
        reference_geometries: Where the pixels of each reference go.
        references: Key of the latent of each reference.
        infill_references: These keys for each replaced background, where it is put behind the references too; else
            none.
    """

    geometry: Geometry
    shrink: Shrink | None
    latent: str
    mask: str
    infills: tuple[str, ...] = ()
    start: str = ""
    infill_starts: tuple[str, ...] = ()
    reference_geometries: tuple[Geometry, ...] = ()
    references: tuple[str, ...] = ()
    infill_references: tuple[tuple[str, ...], ...] = ()

    def references_behind(self, infill: int = ORIGINAL) -> tuple[str, ...]:
        """Keys of the latents of the references that go with this background."""
        replaced = infill != ORIGINAL and self.infill_references
        return self.infill_references[infill] if replaced else self.references

    @property
    def starts(self) -> dict[str, str]:
        """Keys of the latents of first frames by those of the clips."""
        latents, starts = (self.latent, *self.infills), (self.start, *self.infill_starts)
        return dict(zip(latents, starts, strict=True)) if self.start else {}


@dataclass(frozen=True)
class Entry:
    """One sample in the cache, or a part of one that is a clip.

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
        picture: Digest of the picture or clip, which several entries may show.
        facts: Of its mask before the geometry; None without one.
        resolution: Side of the square whose area it has at most.
        frames: Numbers of the clip's frames that are shown; () for a picture.
        moving: Whether each of them has a mask of its own.
        latent_frames: How many frames its latent has; 0 where it has no frame axis, as a picture's.
        empty_key: Key of the empty caption seen with its references; "" where the text encoder sees none.
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
    frames: tuple[int, ...] = ()
    moving: bool = False
    latent_frames: int = 0
    empty_key: str = ""

    @property
    def references(self) -> tuple[str, ...]:
        """Keys of the latents of the first variant's references."""
        return self.variants[0].references

    @property
    def reference_sizes(self) -> tuple[tuple[int, int], ...]:
        """Width and height of each reference, in pixels; alike for all variants."""
        return tuple(geometry.size for geometry in self.variants[0].reference_geometries)

    @property
    def geometry(self) -> Geometry:
        """The geometry of the first variant."""
        return self.variants[0].geometry

    @property
    def cached(self) -> set[tuple[str, str]]:
        """Kind (`KINDS`) and key of everything that is cached of it."""
        found = {("latent", key) for variant in self.variants for key in (variant.latent, *variant.infills)}
        found |= {("latent", key) for variant in self.variants for key in variant.starts.values()}
        found |= {("mask", variant.mask) for variant in self.variants}
        for variant in self.variants:
            found |= {("reference", key) for keys in (variant.references, *variant.infill_references) for key in keys}
        texts = [self.empty_key, *(key for caption in self.captions for key in (caption.key, caption.plain_key))]
        return found | {("text", key) for key in texts if key}


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
    encoders: Encoders,
    progress: Progress,
    check_cancel: Callable[[], None],
    is_cached: Callable[[str], bool] = lambda key: False,
) -> list[Entry]:
    """One entry per picture and per part of a clip in the data set's order, then those of further resolutions.

    What a further resolution would show just as before, because the picture is small, counts there once more instead.

    Args:
        dataset: The samples.
        settings: Geometry and variants.
        memo: Digests and mask facts of earlier builds; what is new is noted in it.
        encoders: The VAE and the text encoder.
        progress: Called with (done, total, text).
        check_cancel: Called per sample; raises to cancel.
        is_cached: Whether the latent of a key is there already.

    Raises:
        DataError: There are no samples, or a picture cannot be read or is too small.
        ConfigError: The bucket step does not fit the VAE's stride.
    """
    samples = dataset.samples
    if not samples:
        raise DataError("The data set has no pictures. Check its folder and its filters.")
    if settings.reference_size != OWN_SIZE:
        check_shared(samples)
    shots = shots_of(samples, settings, rule=encoders.rule, check_cancel=check_cancel)
    sizes, names = [shot.sample.size for shot in shots], [shot.name for shot in shots]
    levels = [dataclasses.replace(settings, resolution=side, more_resolutions="") for side in resolutions(settings)]
    buckets = [assign(sizes, level, multiple=encoders.stride, names=names) for level in levels]
    boxed = settings.crop in BOXED
    facts = []
    for done, shot in enumerate(shots):
        check_cancel()
        progress(done, len(shots), f"looking at {shot.name}")
        facts.append(facts_of(shot.sample, shot.frames, memo=memo, boxed=boxed, check_cancel=check_cancel))
    triggers = {s.settings.caption.trigger.strip() for s in samples if not s.settings.regularisation}
    planned = []
    for level, wanted in zip(levels, buckets, strict=True):
        plain = [
            _plan(shot, bucket, own=own, settings=level, encoders=encoders, triggers=triggers)
            for shot, own, bucket in zip(shots, facts, wanted, strict=True)
        ]
        planned.append(_with_infills(plain, shots, level, facts, encoder=encoders.vae, is_cached=is_cached))
    entries = _uniquely_named(_together(planned))
    return [_with_starts(entry, encoders.rule) for entry in entries]


def _with_starts(entry: Entry, rule: ClipRule) -> Entry:
    """The entry with the keys of its first frames' latents, if it is a clip, or of its cut-outs, if it is a picture."""
    if not entry.latent_frames and rule.cut_outs:
        variants = []
        for v in entry.variants:
            infills = tuple(cut_out_key(latent, v.mask) for latent in v.infills)
            variants.append(dataclasses.replace(v, start=cut_out_key(v.latent, v.mask), infill_starts=infills))
        return dataclasses.replace(entry, variants=tuple(variants))
    if not entry.latent_frames or not rule.starts:
        return entry
    return dataclasses.replace(
        entry,
        variants=tuple(
            dataclasses.replace(v, start=start_key(v.latent), infill_starts=tuple(map(start_key, v.infills)))
            for v in entry.variants
        ),
    )


def first_entries(entries: Sequence[Entry]) -> list[Entry]:
    """The first entry of each sample, in the data set's order."""
    found: dict[int, Entry] = {}
    for entry in entries:
        found.setdefault(entry.index, entry)
    return [found[index] for index in sorted(found)]


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
    shots: Sequence[Shot],
    settings: CacheSettings,
    facts: list[SampleFacts],
    *,
    encoder: str,
    is_cached: Callable[[str], bool],
) -> list[Entry]:
    """The entries with their replaced backgrounds."""
    donors, keys = Donors.of([shot.sample for shot in shots]), [shot.key for shot in shots]
    counts = [settings.infill_variants if entry.has_mask else 0 for entry in entries]

    def planned(*, as_before: bool) -> list[Entry]:
        found = plan_set(keys, counts, kind=settings.infill, seed=settings.seed, donors=donors, as_before=as_before)
        return [
            _with_keys(entry, own, infills, settings, shots, facts, encoder=encoder) if infills else entry
            for entry, own, infills in zip(entries, facts, found, strict=True)
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
    entry: Entry,
    own: SampleFacts,
    infills: tuple[Infill, ...],
    settings: CacheSettings,
    shots: Sequence[Shot],
    facts: list[SampleFacts],
    *,
    encoder: str,
) -> Entry:
    donors = [None if i.donor is None else (facts[i.donor].image, facts[i.donor].identity) for i in infills]
    pairs, clip = list(zip(infills, donors, strict=True)), bool(entry.latent_frames)

    def keyed(variant: Variant) -> Variant:
        bare = latent_key(
            own.image,
            variant.geometry,
            resize=settings.resize,
            fill="keep",
            fill_mask=own.identity,
            encoder=encoder,
        )
        keys = tuple(
            infill_key(bare, i, mask=own.identity, donor=donor, still=clip and i.kind in STILL_INFILLS)
            for i, donor in pairs
        )
        beside = tuple(
            tuple(infill_key(key, i, mask=own.identity, donor=donor) for key in variant.references)
            for i, donor in (pairs if variant.references and infills_references(settings) else ())
        )
        return dataclasses.replace(variant, infills=keys, infill_references=beside)

    # Shots lend their backgrounds; what is made of one is read from its sample.
    lent = tuple(i if i.donor is None else dataclasses.replace(i, donor=shots[i.donor].index) for i in infills)
    return dataclasses.replace(entry, infills=lent, variants=tuple(map(keyed, entry.variants)))


def _plan(
    shot: Shot,
    bucket: tuple[int, int],
    *,
    own: SampleFacts,
    settings: CacheSettings,
    encoders: Encoders,
    triggers: Collection[str],
) -> Entry:
    """One entry, without replaced backgrounds."""
    sample, options = shot.sample, shot.sample.settings
    latent_frames = encoders.rule.latent_frames(shot.frames)
    still = bool(latent_frames) and options.fill in STILL_FILLS
    variants = _variants(sample, bucket, settings, own=own, encoders=encoders, still=still)
    seen = (encoders.pictures, *own.references) if encoders.pictures and own.references else ()
    return Entry(
        index=shot.index,
        name=shot.name,
        bucket=variants[0].geometry.size,
        variants=variants,
        captions=captions_of(sample, settings, triggers=triggers, encoder=encoders.text, pictures=seen),
        weight=sample.repeats,
        multiplier=options.loss_multiplier,
        regularisation=options.regularisation,
        caption_dropout=options.caption.dropout,
        has_mask=own.identity is not None,
        picture=own.source,
        facts=own.mask,
        resolution=settings.resolution,
        frames=shot.frames,
        moving=own.moving and len(shot.frames) > 1,
        latent_frames=latent_frames,
        empty_key=text_key("", encoder=encoders.text, pictures=seen) if encoders.text and seen else "",
    )


def is_hard(sample: Sample) -> bool:
    """Whether the sample's mask consists of 0 and 1 before geometry, so that growing must copy, not blend."""
    return sample.transform.binarize and sample.transform.feather <= 0


def _variants(
    sample: Sample,
    bucket: tuple[int, int],
    settings: CacheSettings,
    *,
    own: SampleFacts,
    encoders: Encoders,
    still: bool,
) -> tuple[Variant, ...]:
    """Without replaced backgrounds; `still` says whether the fill is made once for a clip."""
    hard = is_hard(sample)
    keyed = functools.partial(
        latent_key,
        own.image,
        resize=settings.resize,
        fill=sample.settings.fill,
        fill_mask=own.identity,
        encoder=encoders.vae,
        still=still,
    )
    variants = []
    for geometry, shrink in _ways(
        sample, bucket, settings, box=own.box, shrinks=own.identity is not None and not own.moving
    ):
        beside = reference_geometries(sample, geometry, settings, stride=encoders.stride)
        variants.append(
            Variant(
                geometry,
                shrink,
                keyed(geometry),
                shrunk_key(mask_key(own.identity, geometry, hard=hard), shrink),
                reference_geometries=beside,
                references=reference_keys(sample, own.references, beside, resize=settings.resize, encoder=encoders.vae),
            )
        )
    return tuple(variants)


def _ways(
    sample: Sample,
    bucket: tuple[int, int],
    settings: CacheSettings,
    *,
    box: tuple[float, float, float, float] | None,
    shrinks: bool,
) -> tuple[tuple[Geometry, Shrink | None], ...]:
    """Geometries and shrinks as chance gives them, each pair once.

    Of a mask that moves each frame would be shrunk around another point, so that it stays as it is.
    """
    shrinks = shrinks and settings.mask_shrink < 1
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
