"""Folders whose names say how often their pictures are shown, and of what class they are: `10_zib dog`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from ..findings import Finding, counted, note, warning, worded
from .leftovers import shown

_NAME = re.compile(r"(\d+)_(.*)", re.DOTALL)
MOST_REPEATS = 999


class FolderRule(NamedTuple):
    """What a folder's name asks for: repeats, at least 1, and the words that stand for a missing caption."""

    folder: str
    repeats: int
    words: str


def folder_rule(name: str) -> FolderRule | None:
    """The rule in one folder's name; None for other names, for `01_cats` and for `2024_holiday`.

    A number with a leading zero orders folders, and one above 999 is a year or a date.
    """
    match = _NAME.fullmatch(name)
    if match is None or match[1].startswith("0") or int(match[1][:9]) > MOST_REPEATS:
        return None
    return FolderRule(name, int(match[1]), match[2].strip())


def rule_of(place: str, root: str) -> FolderRule | None:
    """The rule of the innermost folder of a picture's that has one; `root`, the name of the whole, comes last."""
    for part in (*reversed(place.split("/")), root):
        rule = folder_rule(part)
        if rule is not None:
            return rule
    return None


def repeat_findings(rules: Iterable[FolderRule | None], places: Iterable[str]) -> list[Finding]:
    """What was taken from the folders' names, and which names with a number were not.

    Args:
        rules: for each picture, the one that counts for it.
        places: the folders of the pictures.
    """
    pictures: dict[FolderRule, int] = {}
    for rule in rules:
        if rule is not None:
            pictures[rule] = pictures.get(rule, 0) + 1
    found = []
    if pictures:
        told = [
            f"{rule.folder} ({counted(count, '[picture|pictures, each]')} {counted(rule.repeats, '[time|times]')} an "
            + (f"epoch, caption {rule.words} where there is none)" if rule.words else "epoch)")
            for rule, count in pictures.items()
        ]
        found.append(
            warning(
                f"the {worded(len(told), '[name|names]')} of {counted(len(told), '[folder gives|folders give]')} "
                f"repeats and words: {shown(told)}. Turn folder_repeats off if these numbers mean something else."
            )
        )
    parts = dict.fromkeys(part for place in places for part in place.split("/"))
    others = [part for part in parts if _NAME.fullmatch(part) and folder_rule(part) is None]
    if others:
        found.append(note(f"the numbers in the names of these folders are not taken for repeats: {shown(others)}."))
    return found
