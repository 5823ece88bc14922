"""Captions written by hand: what there is to edit, where it is written, and saving it so that nothing is lost."""

from __future__ import annotations

import stat
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..cache.keys import content_digest, file_digest
from ..dataset.sample import Sample
from ..errors import CaptionConflictError, DataError, RunError
from ..files import write_bytes_atomically
from ..folder.captions import as_loaded, caption_extension, read_text, text_fault
from ..folder.subjects import TOGETHER
from ..folder.tree import Allowed, listed_extensions
from .versions import Versions

NO_FILE = "none"
# Comparing and replacing are one step for everybody in this process.
_SAVING = threading.Lock()


@dataclass(frozen=True)
class RawCaption:
    """A caption as its file has it, lines and all.

    `token` changes whenever anybody changes the file; `file` is its name, that of a new one where there is none.
    """

    text: str
    token: str
    file: str


@dataclass(frozen=True)
class Edit:
    """What became of one sample's caption; where `after` has a file, that is what its caption is now.

    `token` stands for what the file holds now, `kept` is the copy of what it held; both absent without a file.
    `created` says that there was none before.
    """

    before: Sample
    after: Sample
    token: str = NO_FILE
    kept: Path | None = None
    created: bool = False


class Beside:
    """How many pictures of one stem lie in a folder, each folder read once: for many captions in one go."""

    def __init__(self) -> None:
        """No folder is read yet."""
        self._stems: dict[Path, Counter[str]] = {}

    def count(self, picture: Path) -> int:
        """How many pictures share the stem of `picture`, itself among them."""
        folder = picture.parent
        if folder not in self._stems:
            listed = listed_extensions()
            pictures = (other for other in folder.iterdir() if other.suffix.lower() in listed)
            self._stems[folder] = Counter(other.stem.casefold() for other in pictures)
        return self._stems[folder][picture.stem.casefold()]


def caption_target(sample: Sample, *, allowed: Allowed, beside: Beside | None = None) -> Path:
    """The file that a sample's caption is written to: its own, or a new one beside the picture that the loader finds.

    Raises:
        DataError: The sample comes from another node, or its caption is found through a link.
        PathError: The file lies outside the allowed folders.
    """
    if sample.image is not None or sample.image_path is None:
        raise DataError(
            f"{sample.name} comes from another node and has no file. Save pictures and captions with Save Masks, load "
            "that folder, and write the captions there."
        )
    path = sample.caption_path or _new_file(sample, beside or Beside())
    real = Path(allowed(path.parent)) / path.name
    if real.is_symlink():
        raise DataError(f"{sample.name}: {real} is a link, which is not replaced. Put the caption itself there.")
    return real


def _new_file(sample: Sample, beside: Beside) -> Path:
    assert sample.image_path is not None
    picture, extension = sample.image_path, caption_extension(sample.settings.caption)
    # Where cat.png lies beside cat.jpg, cat.txt would be the caption of both.
    stem = picture.name if beside.count(picture) > 1 else picture.stem
    subject = f".{sample.subject}" if sample.subject not in ("", TOGETHER) else ""
    return picture.with_name(f"{stem}{subject}{extension}")


def raw_caption(sample: Sample, *, allowed: Allowed, beside: Beside | None = None) -> RawCaption:
    """What there is to edit; a file that others have written meanwhile comes before what the sample knows.

    Raises:
        DataError, PathError: As `caption_target`, or the file cannot be read.
    """
    target = caption_target(sample, allowed=allowed, beside=beside)
    if not target.is_file():
        return RawCaption(sample.caption or "", NO_FILE, target.name)
    # The token first: a text that is newer than its token can only be told too often to be in conflict.
    token = file_digest(target)
    return RawCaption(read_text(target).removeprefix("\ufeff").replace("\r\n", "\n"), token, target.name)


def save_caption(
    sample: Sample, text: str, token: str, *, allowed: Allowed, versions: Versions, beside: Beside | None = None
) -> Edit:
    """Writes an edited caption into its file, whose former content is kept; `after` is the sample with it.

    Args:
        sample: Whose caption was edited.
        text: As it was typed; blanks around it are left out. An empty one is written, too: it is a caption of no words.
        token: Of the `RawCaption` that was edited.
        allowed: As in `caption_target`.
        versions: Where the former content goes.
        beside: Of many captions in one go, the same for all.

    Raises:
        CaptionConflictError: The file has changed since.
        DataError: The text cannot be trained on, or cannot be written; everything is as it was.
        PathError: As `caption_target`.
    """
    text = text.strip()
    if fault := text_fault(text):
        raise DataError(f"{sample.name}: {fault}")
    with _SAVING:
        target = caption_target(sample, allowed=allowed, beside=beside)
        old = raw_caption(sample, allowed=allowed, beside=beside)
        if old.token != token:
            raise CaptionConflictError(
                f"{sample.name}: its caption was changed elsewhere since it was opened here. Load that caption, or "
                "save yours over it."
            )
        created, kept, now = old.token == NO_FILE, None, old.token
        if text != old.text.strip() or created:
            content = f"{text}\n".encode() if text else b""
            kept, now = _replace(sample, target, content, versions), content_digest(content)
    after = replace(sample, caption=as_loaded(text, sample.settings.caption), caption_path=target)
    return Edit(sample, after, now, kept, created)


def undo_edit(edit: Edit, *, allowed: Allowed, versions: Versions) -> Edit:
    """Gives a caption's file what it held before an edit, to the byte, or removes it where there was none.

    What the edit wrote is kept as a former version.

    Raises:
        CaptionConflictError: The file has changed since the edit.
        DataError: What it held is no longer kept, or it cannot be written; everything is as it was.
        PathError: It lies outside the allowed folders by now.
    """
    sample = edit.before
    with _SAVING:
        target = caption_target(edit.after, allowed=allowed)
        if not target.is_file() or file_digest(target) != edit.token:
            raise CaptionConflictError(
                f"{sample.name}: its caption was changed since. It stays as it is now; the former text is kept among "
                "the former captions."
            )
        if edit.created:
            _withdraw(sample, target, versions)
            return Edit(edit.after, sample)
        if edit.kept is None:
            return Edit(edit.after, sample, edit.token)
        try:
            content = edit.kept.read_bytes()
        except OSError as error:
            raise DataError(f"{sample.name}: its former caption is not kept ({error}). It stays.") from error
        kept = _replace(sample, target, content, versions)
    return Edit(edit.after, sample, content_digest(content), kept)


def _replace(sample: Sample, target: Path, content: bytes, versions: Versions) -> Path | None:
    """Writes a file whole; gives the copy of what it held, None where it is new."""

    def write() -> Path | None:
        kept = None
        if target.is_file():
            # Elsewhere than on Windows another file would take its place all the same.
            if not target.stat().st_mode & stat.S_IWUSR:
                raise PermissionError("it is read-only")
            kept = versions.keep(target, of=target)
        write_bytes_atomically(target, content)
        return kept

    return _told(sample, target, write)


def _withdraw(sample: Sample, target: Path, versions: Versions) -> None:
    def remove() -> None:
        versions.keep(target, of=target)
        target.unlink()

    _told(sample, target, remove)


def _told(sample: Sample, target: Path, act: Callable[[], Any]) -> Any:
    try:
        return act()
    except (OSError, RunError) as error:
        raise DataError(
            f"{sample.name}: {target} could not be written ({error}). The caption that was there is untouched. Make "
            "room or check the folder's rights, then save again."
        ) from error


def same_captions(samples: Sequence[Sample], edits: Iterable[Edit]) -> dict[int, Sample]:
    """By index the samples that edits change, in their new form: those whose caption is in a written file.

    Args:
        samples: Of a data set.
        edits: What `save_caption` and `undo_edit` gave.
    """
    by_picture, by_file = {}, {}
    for edit in edits:
        by_picture[edit.before.image_path, edit.before.subject] = edit
        if path := edit.after.caption_path or edit.before.caption_path:
            by_file[path] = edit
    found = {}
    for index, sample in enumerate(samples):
        if sample.image is not None or sample.image_path is None:
            continue
        edit = by_picture.get((sample.image_path, sample.subject)) or by_file.get(sample.caption_path)
        if edit is not None:
            path, caption = edit.after.caption_path, edit.after.caption
            if path is not None:
                caption = as_loaded(read_text(path), sample.settings.caption)
            found[index] = replace(sample, caption=caption, caption_path=path)
    return found
