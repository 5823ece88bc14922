"""Several masks of one picture, a subject each: their names, their weights, and the samples they become."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError
from ..findings import counted
from .captions import text_fault

# What the sample of all subjects is called, where one subject's is called by its name.
TOGETHER = "together"
NAMES_SHOWN = 8
# What follows a dot in the names of versions, copies and dates, seldom in those of persons and things.
_VERSION = re.compile(
    r"v\.?\d.*|\d{3,}|\d+[-_. ]\d.*|\(\d+\)|"
    r"(?:final|bak|backup|copy|kopie|copie|old|new|orig|original|edit|edited|tmp|temp|draft|wip|rev|version|ver)"
    r"(?:[-_. ()]*\d*[-_. ()]*)?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Rule:
    """What the widget `subjects` says of one subject: its weight, and its caption where no file gives one."""

    weight: float = 1.0
    caption: str | None = None


@dataclass(frozen=True)
class MaskPart:
    """One subject's mask in a union: the values of the file count times `weight`, above 0 and at most 1.

    `moving` says that the mask is a clip.
    """

    subject: str
    path: Path
    weight: float = 1.0
    moving: bool = False


@dataclass(frozen=True)
class Found:
    """One subject of a picture: name, mask file, the text of its caption file if any, whether the mask is a clip."""

    name: str
    mask: Path
    text: str | None = None
    moving: bool = False


@dataclass(frozen=True)
class View:
    """One sample that a picture with subjects becomes.

    Attributes:
        subject: The subject's name, or `TOGETHER`.
        parts: The mask's file, or the files of all subjects.
        share: Of the picture's repeats, above 0; the shares of a picture add up to 1.
        caption: Its text; None where there is none.
    """

    subject: str
    parts: tuple[MaskPart, ...]
    share: float
    caption: str | None


def parse_subjects(text: str) -> dict[str, Rule]:
    """The rule of each subject by its name (NFC), from lines `name: weight` or `name: weight: caption`.

    Empty lines count for nothing; a caption may hold further colons.

    Raises:
        ConfigError: A line of another form, a weight that is not above 0, or a name that occurs twice; gives
            the line.
    """
    broken = text_fault(text)
    if broken:
        raise ConfigError(f"subjects: {broken}")
    rules: dict[str, Rule] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        name, *rest = (part.strip() for part in line.split(":", 2))
        name = unicodedata.normalize("NFC", name)
        fault = _fault(name, rest, rules)
        if fault:
            raise ConfigError(
                f"subjects: {fault.format(line=number)}, got {line.strip()!r}. Write for example anna: 2 or "
                "anna: 2: a photo of anna."
            )
        rules[name] = Rule(float(rest[0]), rest[1] if len(rest) > 1 and rest[1] else None)
    return rules


def split_stem(stem: str, is_picture: Callable[[str], bool]) -> tuple[str, str] | None:
    """The picture's stem and the subject's name in a mask's stem `<picture>.<name>`; None without such a picture.

    Of several pictures that fit, the one with the longest stem is meant.
    """
    base, dot, name = stem.rpartition(".")
    while dot:
        if name.strip() and is_picture(base):
            return base, name.strip()
        base, dot, more = base.rpartition(".")
        name = f"{more}.{name}"
    return None


def is_doubtful(name: str, pictures: int) -> bool:
    """Whether a name that follows the picture's is rather that of a version, a copy or a date than of a subject.

    Args:
        name: the subject's.
        pictures: in how many pictures it occurs; a small number in a single one says nothing.
    """
    return _VERSION.fullmatch(name) is not None or (pictures == 1 and name.isdigit())


def check_known(rules: dict[str, Rule], found: Sequence[str]) -> None:
    """Nothing if every subject that has a rule has a mask somewhere.

    Raises:
        ConfigError: Names the others, and those that there are.
    """
    unknown = [name for name in rules if name not in found]
    if unknown:
        there = f"There are {', '.join(found[:NAMES_SHOWN])}" if found else "There are no masks named <picture>.<name>"
        raise ConfigError(f"subjects: no mask is named <picture>.{', <picture>.'.join(unknown)}. {there}.")


def make_views(
    subjects: Sequence[Found], rules: dict[str, Rule], *, together: float, caption: str | None
) -> list[View]:
    """The samples of one picture: one per subject, and one of all of them together.

    Args:
        subjects: Of this picture, at least one, in the order that the samples get.
        rules: By name; a subject without one has weight 1 and no caption of its own.
        together: Share of the picture's repeats, in [0, 1], that shows all subjects at once. The rest is
            theirs in proportion to their weights.
        caption: Of the picture's own caption file.

    Returns:
        A single view of share 1 where there is one subject only. A view of share 0 is left out. A subject's
        caption is its own file's, else its rule's, else the picture's. All together have the picture's, else
        those of the subjects, joined by commas.
    """
    told = [rules.get(one.name, Rule()) for one in subjects]
    texts = [_caption(one, rule, caption) for one, rule in zip(subjects, told, strict=True)]
    total, most = sum(rule.weight for rule in told), max(rule.weight for rule in told)
    alone = 1.0 if len(subjects) == 1 else 1.0 - together
    views = [
        View(one.name, (MaskPart(one.name, one.mask, moving=one.moving),), alone * rule.weight / total, text)
        for one, rule, text in zip(subjects, told, texts, strict=True)
    ]
    if len(subjects) > 1:
        pairs = zip(subjects, told, strict=True)
        parts = tuple(MaskPart(s.name, s.mask, rule.weight / most, s.moving) for s, rule in pairs)
        known = list(dict.fromkeys(text for text in texts if text))
        joined = caption if caption is not None else _joined(known) if known else None
        views.append(View(TOGETHER, parts, together, joined))
    return [view for view in views if view.share > 0]


def subject_notes(found: dict[str, list[str]]) -> list[str]:
    """What a person should know: how many pictures show each subject, and in which it is missing.

    Args:
        found: By picture the names of its subjects.
    """
    if not found:
        return []
    names = list(dict.fromkeys(name for subjects in found.values() for name in subjects))
    places = ", ".join(f"{name} ({sum(name in s for s in found.values())})" for name in names[:NAMES_SHOWN])
    several = sum(len(subjects) > 1 for subjects in found.values())
    pictures = counted(len(found), "[picture|pictures]")
    notes = [f"subjects in {pictures}, {several} of them with several: {places}{_more(names)}."]
    for name in names[:NAMES_SHOWN]:
        lacking = [picture for picture, subjects in found.items() if name not in subjects]
        if lacking:
            notes.append(f"no mask of {name} in {', '.join(lacking[:NAMES_SHOWN])}{_more(lacking)}.")
    return notes


def _joined(texts: list[str]) -> str:
    """The captions of several subjects as one; where some have several to choose from, as many of the whole."""
    choices = [text.split("\n") for text in texts]
    most = max(len(choice) for choice in choices)
    return "\n".join(", ".join(choice[i % len(choice)] for choice in choices) for i in range(most))


def _fault(name: str, rest: list[str], rules: dict[str, Rule]) -> str:
    """What is wrong with a line, with its number as {line}; empty if nothing is."""
    try:
        weight = float(rest[0]) if rest else math.nan
    except ValueError:
        weight = math.nan
    if not name or not rest:
        return "line {line} should read name: weight or name: weight: caption"
    if not (math.isfinite(weight) and weight > 0):
        return "line {line} should give a weight above 0"
    return "line {line} names a subject a second time" if name in rules else ""


def _caption(subject: Found, rule: Rule, picture: str | None) -> str | None:
    if subject.text is not None:
        return subject.text
    return rule.caption if rule.caption is not None else picture


def _more(names: Sequence[str]) -> str:
    return f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
