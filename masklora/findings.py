"""What a person should know about their pictures, masks, settings and files: sentences, and how much each matters."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Level = Literal["note", "warning"]
_FORMS = re.compile(r"\[([^|\]]*)\|([^\]]*)\]")
_UNPRINTABLE = re.compile("[\ud800-\udfff\x00-\x08\x0b-\x1f\x7f]")


@dataclass(frozen=True)
class Finding:
    """One sentence for a person.

    Attributes:
        text: The sentence; it names the file or the widget, and says what to do.
        level: `note`, good to know; `warning`, the LoRA will be worse or something was left out: shown in red and
            repeated by every node further on, down to the run's own list.
    """

    text: str
    level: Level = "note"


def note(text: str) -> Finding:
    """A finding that is good to know."""
    return Finding(printable(text))


def warning(text: str) -> Finding:
    """A finding that must not be overlooked."""
    return Finding(printable(text), "warning")


def warnings_of(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The warnings among `findings`, each once, in order: what later nodes repeat."""
    return tuple(dict.fromkeys(finding for finding in findings if finding.level == "warning"))


def worded(number: int, text: str) -> str:
    """`text` for `number` things: of every `[one|several]` in it the part that fits.

    For our own words alone: names of files may hold brackets of their own.
    """
    return _FORMS.sub(lambda forms: forms[1] if number == 1 else forms[2], text)


def counted(number: int, text: str) -> str:
    """`number` and the text for it: "1 mask is black" of 1 and "[mask is|masks are] black"."""
    return f"{number} {worded(number, text)}"


def of_kinds(number: int, clips: int) -> str:
    """How many pictures and clips there are, in words: "3 pictures", "1 clip", "4 pictures and clips".

    Args:
        number: Of both together.
        clips: Of clips among them.
    """
    if not clips:
        return counted(number, "[picture|pictures]")
    return counted(number, "[clip|clips]") if clips == number else f"{number} pictures and clips"


def printable(text: str) -> str:
    r"""`text` as any terminal, log and browser takes it: what is no character is spelt out.

    File names of another encoding hold lone surrogates, which no UTF-8 stream can carry (`caf\udce9` for a Latin-1
    `café`); control letters could move a terminal's cursor. Line breaks and tabs stay.
    """
    return _UNPRINTABLE.sub(lambda found: _spelt(ord(found.group())), text)


def _spelt(code: int) -> str:
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return f"\\u{code:04x}" if code > 0xFF else f"\\x{code:02x}"
