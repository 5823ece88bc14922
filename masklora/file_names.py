"""File names that people choose: whether every system takes them, and the longest that a file of ours may get."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from .files import existing_parent

SUFFIX = ".safetensors"
# What a file is called whose name is taken.
LONGEST_TAIL = f"_00001_{SUFFIX}"
NAME_BYTES = 255
# Without its switch for long paths Windows takes no more.
WINDOWS_PATH = 259
_FORBIDDEN = re.compile('[<>:"|?*\x00-\x1f\x7f\ud800-\udfff]')
_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?", re.IGNORECASE)


def safe_name(name: str) -> str:
    """The name of one file or folder as every system takes it: `_` for what it cannot hold, no dots or blanks last.

    Empty where nothing is left; `name_fault` tells what else is wrong with it.
    """
    return _FORBIDDEN.sub("_", name).rstrip(". ")


def name_fault(name: str, *, folder: Path, tail: str = LONGEST_TAIL) -> str | None:
    """Why a file below `folder` cannot be called `name`, with what to do; None where it can.

    What one system refuses is refused everywhere: a workflow, and a LoRA file, travels.

    Args:
        name: Without suffix, with `/` between folders.
        folder: In which it lies; need not exist.
        tail: What is put behind the name.
    """
    parts = [part for part in name.split("/") if part not in ("", ".", "..")]
    return next(_faults(parts, _longest(folder), folder, tail), None)


def name_too_long(path: Path) -> str:
    """Why no file system takes a path's last name, as a sentence that ends a message; empty where one may."""
    used, room = len(os.fsencode(path.name)), _longest(path.parent)
    return f"its name would be {used} bytes long, expected at most {room}" if used > room else ""


def _faults(parts: list[str], longest: int, folder: Path, tail: str) -> Iterator[str]:
    for number, part in enumerate(parts):
        found = _FORBIDDEN.search(part)
        if found:
            letter = ascii(found.group())
            yield f"{part!r} holds {letter}, which file names cannot hold on every system. Leave it out."
        if _RESERVED.fullmatch(part):
            yield f"{part!r} is a name that Windows keeps for a device. Choose another."
        if part != part.rstrip(". "):
            yield f"{part!r} ends with a dot or a blank, which Windows drops. Leave it out."
        last = number == len(parts) - 1
        size = len((part + (tail if last else "")).encode("utf-8", "surrogatepass"))
        if size > longest:
            room = longest - len(tail) if last else longest
            used = len(part.encode("utf-8", "surrogatepass"))
            yield f"{part[:20]!r}… is {used} bytes long in UTF-8, expected at most {room}. Choose a shorter one."
    if os.name == "nt" and len(str(folder.joinpath(*parts))) + len(tail) > WINDOWS_PATH:
        yield f"with its folder {folder} it is longer than {WINDOWS_PATH} letters. Choose a shorter one."


def _longest(folder: Path) -> int:
    """The most bytes that a name may have in `folder`; some encrypted disks take fewer than others."""
    with contextlib.suppress(OSError, AttributeError, ValueError):
        return min(NAME_BYTES, os.pathconf(existing_parent(folder / "x"), "PC_NAME_MAX"))
    return NAME_BYTES


def natural_key(relative: str) -> tuple[object, ...]:
    """Sort key under which img2 precedes img10, folder by folder; the exact text breaks ties."""
    parts = []
    for part in PurePosixPath(relative).parts:
        pieces = re.split(r"([0-9]+)", part.casefold())
        parts.append(tuple((0, int(p), "") if i % 2 else (1, 0, p) for i, p in enumerate(pieces)))
    return (*parts, ((2, 0, relative),))
