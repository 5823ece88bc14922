"""Which folders of this ComfyUI may be read: a workflow from a stranger names paths too."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import folder_paths

from ..errors import PathError
from ..folder.folder_names import tidy, turned
from ..folder.mask_names import is_mask_folder
from ..folder.tree import is_folder_of_frames

OWN_FOLDER = "masked_lora"
CONFIG_NAME = "allowed_folders.json"
EXAMPLE = '{"folders": ["D:/pictures"]}'


def own_folder() -> Path:
    """The pack's folder in ComfyUI's user folder: out of reach of ComfyUI's own user data routes."""
    return Path(folder_paths.get_user_directory()) / OWN_FOLDER


def config_path() -> Path:
    """The file in which an administrator allows further folders."""
    return own_folder() / CONFIG_NAME


def cache_folder() -> Path:
    """Where caches on disk are kept; no folder that ComfyUI lists as data sets."""
    return own_folder() / "cache"


def allowed_roots() -> list[Path]:
    """Resolved folders below which reading is allowed, ComfyUI's own first, then the administrator's.

    Raises:
        PathError: The administrator's file is not of the expected form.
    """
    own = [
        folder_paths.get_input_directory(),
        folder_paths.get_output_directory(),
        folder_paths.get_user_directory(),
        *folder_paths.get_folder_paths("datasets"),
    ]
    return [Path(folder).resolve() for folder in [*own, *added_folders()]]


def allow(path: Path | str, *, widget: str = "") -> Path:
    r"""The real path, links and `..` resolved, if it may be read.

    A relative path is looked for in the input folder, then in the `datasets` folders; what exists nowhere is
    taken to be in the input folder. Blanks and quotes around it count for nothing, and where only a path with `/` for
    each `\` exists, that one is meant.

    Args:
        path: As a person or a workflow wrote it.
        widget: Begins the message.

    Raises:
        PathError: The real path lies outside every allowed folder.
    """
    roots = allowed_roots()
    path = tidy(path) if isinstance(path, str) else path
    try:
        # Resolving a share of another machine would already reach for the network.
        share = str(path).startswith(("//", "\\\\")) and not any(Path(path).is_relative_to(root) for root in roots)
        located = None if share else _locate(Path(turned(str(path), lambda text: _locate(Path(text)).exists())))
        real = None if located is None else located.resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise PathError(f"{_head(widget)}{str(path)!r} is no usable path ({error}). Check it.") from error
    if real is None or not any(real.is_relative_to(root) for root in roots):
        listed = ", ".join(str(root) for root in dict.fromkeys(roots))
        what = "it into one of them, or add its folder"
        if real is not None and located is not None and _lies_in(located, roots):
            what = f"what it leads to, {real}, into one of them, or add {real if real.is_dir() else real.parent}"
            listed += ". It is a link in one of them that leads out"
        raise PathError(
            f"{_head(widget)}{path} lies outside the folders that may be read: {listed}. Move {what} to the file "
            f"{config_path()}, for example: {EXAMPLE}"
        )
    return real


def fingerprint(folder: Path, *, subfolders: bool, allowed: Callable[[Path], Path] = allow) -> str:
    """A text that changes with the name, size or times of any file in a folder; nothing is opened.

    What was put in a file's place counts as changed too, whatever its size and the time that it bears.
    A folder that is missing or unreadable has a text of its own, and so have links that lead outside.
    """
    lines: list[str] = []
    pending, seen = [folder], set()
    while pending:
        current = pending.pop()
        try:
            real = allowed(current)
            entries = [] if real in seen else list(os.scandir(real))
        except (OSError, ValueError, PathError) as error:
            lines.append(f"{current}|{type(error).__name__}")
            continue
        seen.add(real)
        for entry in entries:
            if not _is_folder(entry):
                lines.append(_file_state(entry))
            elif subfolders or is_folder_of_frames(entry.name) or (current == folder and is_mask_folder(entry.name)):
                pending.append(Path(entry.path))
    text = "\n".join(sorted(lines))
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).hexdigest()


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        # A link in a circle is no folder.
        return False


def _file_state(entry: os.DirEntry[str]) -> str:
    try:
        state = entry.stat()
    except OSError as error:
        return f"{entry.path}|{type(error).__name__}"
    return f"{entry.path}|{state.st_size}|{state.st_mtime_ns}|{state.st_ctime_ns}|{state.st_ino}"


def _locate(path: Path) -> Path:
    """Where a path stands, its links not followed: a relative one in the first of our folders that has it."""
    if path.is_absolute():
        return path
    bases = [folder_paths.get_input_directory(), *folder_paths.get_folder_paths("datasets")]
    candidates = [Path(base) / path for base in bases]
    return next((found for found in candidates if found.resolve().exists()), candidates[0])


def _lies_in(path: Path, roots: list[Path]) -> bool:
    """Whether a path is inside a root before its own links are followed; `..` leads nowhere near."""
    own = [Path(folder_paths.get_input_directory()), Path(folder_paths.get_output_directory()), *roots]
    return ".." not in path.parts and any(path.is_relative_to(root) for root in own)


def added_folders() -> list[str]:
    """What the administrator has added, absolute; raises `PathError` as `allowed_roots`."""
    path = config_path()
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise PathError(f"{path} cannot be read ({error}). Save it as UTF-8, like {EXAMPLE}") from error
    try:
        content: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PathError(
            f"{path}: expected JSON like {EXAMPLE}, got an error ({error}). On Windows write / or \\\\ in paths."
        ) from error
    folders = content.get("folders") if isinstance(content, dict) else None
    if not isinstance(folders, list) or not all(isinstance(f, str) and Path(f).is_absolute() for f in folders):
        raise PathError(f"{path}: expected a list of absolute folders, like {EXAMPLE}. Correct it.")
    return folders


def _head(widget: str) -> str:
    return f"{widget}: " if widget else ""
