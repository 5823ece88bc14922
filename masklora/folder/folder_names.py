"""Folders as people write and paste them into a widget."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ..errors import ConfigError
from ..settings import DatasetSettings

# What a name in any usual file system may have, in bytes.
LONGEST_NAME = 255
_QUOTES = (('"', '"'), ("'", "'"), ("\u201c", "\u201d"))


def tidy(text: str) -> str:
    """A path without the blanks and quotes around it that *Copy as path* and the like give."""
    text = text.strip()
    for before, after in _QUOTES:
        if len(text) > 1 and text.startswith(before) and text.endswith(after):
            return text[1:-1].strip()
    return text


def tidied(settings: DatasetSettings) -> DatasetSettings:
    """`settings` with all folders as they are meant; those of references one a line.

    Raises:
        ConfigError: a folder's name holds what no file system can; names the widget.
    """
    references = split_folders(settings.reference_folders)
    named = [("folder", settings.folder), ("mask_folder", settings.mask_folder)]
    for widget, text in (*named, *(("reference_folders", text) for text in references)):
        if any("\ud800" <= letter <= "\udfff" for letter in text) and not _is_there(text):
            raise ConfigError(f"{widget}: {text!r} holds half a character, which no name can. Write it again.")
        if "\0" in text:
            raise ConfigError(f"{widget}: {text!r} holds a zero byte, which no name can. Write it again.")
        if any(len(os.fsencode(part)) > LONGEST_NAME for part in text.replace("\\", "/").split("/")):
            raise ConfigError(
                f"{widget}: {text[:40]}… is no folder: a name has at most {LONGEST_NAME} bytes. Correct it."
            )
    return replace(
        settings,
        folder=tidy(settings.folder),
        mask_folder=tidy(settings.mask_folder),
        reference_folders="\n".join(references),
    )


def split_folders(text: str) -> list[str]:
    """The folders in a widget for several: one a line, or parted by semicolons."""
    return [name for name in (tidy(part) for line in text.splitlines() for part in line.split(";")) if name]


def turned(text: str, exists: Callable[[str], bool]) -> str:
    r"""`text`, or where only that exists the same with `/` for each `\`, as a workflow made on Windows needs it."""
    if os.sep == "\\" or "\\" not in text or exists(text):
        return text
    other = text.replace("\\", "/")
    return other if exists(other) else text


def is_folder(path: Path) -> bool:
    """Whether there is such a folder; a path that no system takes is none."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _is_there(text: str) -> bool:
    try:
        return Path(text).is_absolute() and Path(text).exists()
    except (OSError, ValueError):
        return False
