"""The tags of all captions of a data set and which pictures have them; the words where captions are sentences."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ..dataset.sample import Sample
from ..folder.captions import is_prose, tags_of

KINDS = ("tags", "words")
# More than anybody scrolls through; the most frequent are shown.
MOST_SHOWN = 5000
# Shorter words hardly ever tell what is seen, except where one sign is a word.
_WORD = re.compile(r"[\u3040-\u9fff]|[^\W\d_][\w'\u2019-]+\w")


@dataclass(frozen=True)
class TagTable:
    """What captions hold.

    Attributes:
        kind: One of `KINDS`.
        names: The tags or words, the most frequent first.
        counts: In how many pictures each is.
        pictures: For each picture the positions in `names` of what its caption holds.
        left_out: How many rarer ones are not among them.
    """

    kind: str
    names: list[str]
    counts: list[int]
    pictures: list[list[int]]
    left_out: int


def tag_table(samples: Sequence[Sample], kind: str | None = None) -> TagTable:
    """The table of a data set; no file is read.

    Args:
        samples: Of a data set, with their captions as they were loaded.
        kind: `tags`, `words` (of three letters and more, in small ones), or None for what most captions consist of.
    """
    kind = kind or usual_kind(samples)
    held = [_held(sample, kind) for sample in samples]
    counts = Counter(name for names in held for name in names)
    shown = sorted(counts, key=lambda name: (-counts[name], name))[:MOST_SHOWN]
    place = {name: at for at, name in enumerate(shown)}
    pictures = [[place[name] for name in names if name in place] for names in held]
    return TagTable(kind, shown, [counts[name] for name in shown], pictures, len(counts) - len(shown))


def usual_kind(samples: Sequence[Sample]) -> str:
    """`words` where most captions are sentences, else `tags`."""
    captions = [(line, s.settings.caption) for s in samples if s.caption for line in s.caption.split("\n")]
    sentences = sum(is_prose(line, settings) for line, settings in captions)
    return "words" if sentences * 2 > len(captions) else "tags"


def _held(sample: Sample, kind: str) -> list[str]:
    text = sample.caption or ""
    if kind == "tags":
        return tags_of(text, sample.settings.caption)
    return list(dict.fromkeys(_WORD.findall(text.lower())))
