"""The captions of a sample as they are trained, and the keys of their embeddings."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch

from ..dataset.sample import Sample
from ..folder.captions import caption_variants, split_captions, without_trigger
from ..settings import CacheSettings
from .keys import digest, text_key


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


def captions_of(
    sample: Sample,
    settings: CacheSettings,
    *,
    triggers: Collection[str],
    encoder: str | None,
    pictures: tuple[str, ...],
) -> tuple[Caption, ...]:
    """The texts of a sample to choose from.

    Args:
        sample: With its caption.
        settings: How many orders of tags are kept, and the seed that draws them.
        triggers: Trigger words of all data sets.
        encoder: Identity of the text encoder, None without one.
        pictures: Where it sees the references too: in which way, and their digests.
    """

    def keyed(text: str | None) -> str:
        return "" if text is None or encoder is None else text_key(text, encoder=encoder, pictures=pictures)

    texts, options = texts_of(sample, settings), sample.settings.caption
    pairs = [(text, without_trigger(text, options, others=triggers)) for text in texts]
    return tuple(Caption(text, keyed(text), plain, keyed(plain)) for text, plain in pairs)


def texts_of(sample: Sample, settings: CacheSettings) -> tuple[str, ...]:
    """The texts that a sample is trained with, each once: its captions, their tags in as many orders as variants."""
    generator = torch.Generator().manual_seed(int(digest("caption", settings.seed, sample.name)[:15], 16))
    options = sample.settings.caption
    # Another node's text is one caption, whatever its lines are.
    texts = [sample.caption] if sample.image is not None else split_captions(sample.caption)
    drawn = (caption_variants(text, options, count=settings.variants, generator=generator) for text in texts)
    return tuple(dict.fromkeys(caption for captions in drawn for caption in captions))
