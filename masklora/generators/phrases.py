"""Phrases as a person types them into a widget: one a line, otherwise as typed, checked for what no model can read."""

from __future__ import annotations

import unicodedata

from ..errors import ConfigError

_SHOWN = 40
_UNSEEN = {"Cc", "Cf", "Zs"}


def split_phrases(text: str, *, widget: str) -> tuple[str, ...]:
    """The phrases of a text, one a line, in order; of those that differ in case only, the first.

    Runs of spaces become one space. Commas, colons, brackets, quotes and emoji belong to their phrase. A line in
    which nothing can be seen, such as the mark that some editors put before a text, is no phrase.

    Raises:
        ConfigError: A phrase holds a control character or half an emoji; names the widget.
    """
    phrases: dict[str, str] = {}
    for line in text.removeprefix("\ufeff").splitlines():
        phrase = " ".join(line.split())
        _check_signs(phrase, widget)
        if any(unicodedata.category(sign) not in _UNSEEN for sign in phrase):
            phrases.setdefault(phrase.casefold(), phrase)
    return tuple(phrases.values())


def check_phrases(phrases: tuple[str, ...], exclude: tuple[str, ...]) -> None:
    """Nothing if there is a phrase and none of them is excluded, else a `ConfigError` that names the widget."""
    if not phrases:
        raise ConfigError("phrases: expected at least one phrase, got none. Write what to learn, for example: cat")
    excluded = {phrase.casefold() for phrase in exclude}
    both = [phrase for phrase in phrases if phrase.casefold() in excluded]
    if both:
        raise ConfigError(f"exclude: {', '.join(both)} is in phrases too. Leave it out of one of the two.")


def short(phrase: str) -> str:
    """A phrase in quotes for a message, its end left out where it is long."""
    return repr(phrase) if len(phrase) <= _SHOWN else f"{phrase[:_SHOWN]!r}…"


def _check_signs(phrase: str, widget: str) -> None:
    for sign in phrase:
        if "\ud800" <= sign <= "\udfff":
            raise ConfigError(f"{widget}: {short(phrase)} holds half of a sign, perhaps of an emoji. Write it anew.")
        if unicodedata.category(sign) == "Cc":
            raise ConfigError(
                f"{widget}: {short(phrase)} holds a control character (U+{ord(sign):04X}), which cannot be seen. "
                "Write it anew."
            )
