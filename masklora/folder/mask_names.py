"""Names of masks: which picture a file's name says that it is the mask of, and which folders are named for masks."""

from __future__ import annotations

import itertools
import re
import unicodedata
from typing import NamedTuple

# A name may hold line breaks.
_ANY = re.IGNORECASE | re.DOTALL
_WORDS = ("masklabel", "condlabel", "wmask", "masked", "mask", "alpha", "matte", "label")
_WORD = rf"(?:{'|'.join(_WORDS)})s?"
# Hyphens, full-width and non-breaking forms among them: names come from every keyboard and tool.
_GAP = r"[-_.,+~ \u00a0\u2010-\u2015\u3000\uff0d\uff3f\uff0e]"
_OPEN, _CLOSE = r"[(\[{\uff08\u3010]", r"[)\]}\uff09\u3011]"
_NUMBER = rf"(?:{_GAP}*{_OPEN}?(?P<number>\d{{1,4}}){_CLOSE}?)?"
_AFTER = re.compile(
    rf"(?P<base>.+?)(?P<after>{_GAP}*)(?:{_GAP}(?:{_WORD})|{_OPEN}(?:{_WORD}){_CLOSE}){_NUMBER}",
    _ANY,
)
_BEFORE = re.compile(
    rf"(?:{_OPEN}(?:{_WORD}){_CLOSE}{_GAP}*|(?:{_WORD}){_GAP}+)(?P<base>.+)",
    _ANY,
)
_GLUED = re.compile(rf"(?P<base>.+?)(?:masklabel|condlabel|masked|mask)s?{_NUMBER}", _ANY)
# A counter behind the word, as ComfyUI writes it: `cat_mask_00001_` is of `cat_00001_`.
_COUNTED = re.compile(rf"(?P<base>.+?){_GAP}(?:{_WORD})(?P<counter>{_GAP}\d+{_GAP}?)", _ANY)
_BARE = re.compile(rf"{_OPEN}?(?!masked)(?:{_WORD}){_NUMBER}{_CLOSE}?", re.IGNORECASE)
_EXTENSION = re.compile(r"(?P<base>.+)\.(?:png|jpe?g|webp|bmp|tiff?|gif|mp4|m4v|webm|mov|mkv|avi|frames)", _ANY)
_GAPS = re.compile(rf"{_GAP}|{_OPEN}|{_CLOSE}")
# What other languages and tools call a mask; not enough to use a file as one.
_HINTS = frozenset({"seg", "segm", "segmentation", "segmented", "trimap", "matting", "silhouette", "binary"})
_HINTS |= {"maske", "masken", "masque", "masques", "mascara", "mascaras", "maschera", "maschere", "maska", "maski"}
_HINTS |= {"masker", "maskers", "naamio", "\u043c\u0430\u0441\u043a\u0430", "\u043c\u0430\u0441\u043a\u0438"}
_HINTS |= {"\u906e\u7f69", "\u8499\u7248", "\u906e\u7247", "\u30de\u30b9\u30af", "\ub9c8\uc2a4\ud06c"}
_FOLDER = re.compile(
    rf"{_GAP}*(?:(?:images?|imgs?|pictures?|pics?|photos?|train(?:ing)?|png){_GAP}*)?"
    rf"(?:{_WORD})s?"
    rf"(?:{_GAP}*(?:images?|imgs?|pictures?|pics?|files?|folder|dir|directory|data|dataset|channels?|maps?|out|output"
    rf"|final|new|png|v?\d+))?{_GAP}*",
    re.IGNORECASE,
)
_FOLDER_OF = re.compile(rf"(?P<base>.+?){_GAP}+(?:{_WORD})s?", _ANY)
MASK_EXTENSION = ".mask"


def has_mask_word(stem: str) -> bool:
    """Whether a name holds a word for masks at all: a cheap question, put to every file."""
    folded = stem.casefold()
    return "mask" in folded or "label" in folded or "alpha" in folded or "matte" in folded


class Base(NamedTuple):
    """The picture's stem that a mask's name holds, the number of one of several masks, and whether that is sure.

    Without a gap before the word (`catmask`), the name alone does not say it.
    """

    stem: str
    number: str = ""
    sure: bool = True


def mask_bases(stem: str) -> list[Base]:
    """What a mask's stem may call its picture, the longest first; empty where it is no name of a mask.

    `cat_mask`, `cat-MASK`, `cat.alpha`, `cat (mask)`, `mask_cat`, `cat_mask_0`, `cat_alpha_matte` and `cat_mask.jpg`
    are names of masks of `cat`, and `cat_mask_00001_` is one of `cat_00001_`. Whether there is such a picture is for
    the caller to see: `portrait_mask` alone is a picture.
    """
    found: dict[str, Base] = {}
    for base in _bases(stem):
        found.setdefault(base.stem, base)
        for inner in mask_bases(base.stem) if base.sure and has_mask_word(base.stem) else ():
            found.setdefault(inner.stem, inner._replace(number=base.number or inner.number))
    bases = sorted(found.values(), key=lambda base: -len(base.stem))
    counted = _COUNTED.fullmatch(stem)
    # Last: where there is a `cat`, the number is that of one of its masks.
    return bases if counted is None else [*bases, Base(counted["base"] + counted["counter"])]


def hinted_bases(stem: str) -> list[str]:
    """What the stem of a file that is perhaps a mask may call its picture, in names that `mask_bases` does not know.

    Such are `cat_mask_final`, `cat_person_mask`, `cat_seg` and `cat.jpg`: `cat` stands at one end, and the rest has a
    word for masks, or is an extension. In `small_mask_cat` the word stands in the midst of `small_cat`.
    """
    twice = _EXTENSION.fullmatch(stem)
    found = [] if twice is None else [twice["base"]]
    if not _hints(stem):
        return found
    found += [base for base, rest in _split(stem) if _hints(rest)]
    inner = [(one.end(), other.start()) for one, other in itertools.pairwise(_GAPS.finditer(stem))]
    found += [stem[: start - 1] + stem[end:] for start, end in inner if _hints(stem[start:end])]
    return list(dict.fromkeys(sorted(found, key=len, reverse=True)))


def stem_ends(stem: str) -> list[str]:
    """What lies before and behind each gap of a stem, the longest first."""
    return list(dict.fromkeys(sorted((base for base, _ in _split(stem)), key=len, reverse=True)))


def is_bare_mask_name(stem: str) -> bool:
    """Whether a stem is a word for masks and nothing else but a number: `mask`, `Alpha 2`; `masked` is a cut-out."""
    return has_mask_word(stem) and _BARE.fullmatch(stem) is not None


def _split(stem: str) -> list[tuple[str, str]]:
    """Each end of a stem that a gap parts from the rest, with that rest."""
    found = []
    for gap in _GAPS.finditer(stem):
        before, behind = stem[: gap.start()], stem[gap.end() :]
        found += [(base.strip(), rest) for base, rest in ((before, behind), (behind, before)) if base.strip()]
    return found


def _hints(text: str) -> bool:
    if has_mask_word(text):
        return True
    # Without their accents: names are typed with and without them.
    letters = (c for c in unicodedata.normalize("NFD", text.casefold()) if not unicodedata.combining(c))
    return not _HINTS.isdisjoint(_GAPS.split(unicodedata.normalize("NFC", "".join(letters))))


def _bases(stem: str) -> list[Base]:
    if not has_mask_word(stem):
        return []
    twice = _EXTENSION.fullmatch(stem)
    found: dict[str, Base] = {}
    for pattern, sure in ((_AFTER, True), (_BEFORE, True), (_GLUED, False)):
        match = pattern.fullmatch(stem)
        if match is None:
            continue
        groups = match.groupdict()
        # A picture's own name may end in what else stands between name and word: «cat .png», «cat .mask.png».
        bare, after = match["base"], groups.get("after") or ""
        for base in (bare.strip(), *(bare + after[:length] for length in range(len(after) + 1))):
            if base.strip():
                found.setdefault(base, Base(base, groups.get("number") or "", sure))
    return [*found.values(), *(_bases(twice["base"]) if twice is not None else ())]


def is_mask_folder(name: str) -> bool:
    """Whether a folder of this name may hold masks: `masks`, `mask_images`, `Alpha`, `photos_mask`."""
    return has_mask_word(name) and (_FOLDER.fullmatch(name) is not None or _FOLDER_OF.fullmatch(name) is not None)


def folder_base(name: str) -> str:
    """The one folder whose masks `photos_masks` holds; empty for `masks`, those of any folder beside it."""
    match = None if _FOLDER.fullmatch(name) else _FOLDER_OF.fullmatch(name)
    return match["base"] if match is not None else ""
