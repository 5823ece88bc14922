"""Captions written by hand: what there is to edit, where it is written, and saving it so that nothing is lost."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..cache.keys import file_digest
from ..dataset.sample import Sample
from ..errors import CaptionConflictError, DataError, RunError
from ..files import write_text_atomically
from ..folder.captions import as_loaded, caption_extension, read_text, text_fault
from ..folder.subjects import TOGETHER
from ..folder.tree import Allowed, readable_extensions
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


def caption_target(sample: Sample, *, allowed: Allowed) -> Path:
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
    path = sample.caption_path or _new_file(sample)
    real = Path(allowed(path.parent)) / path.name
    if real.is_symlink():
        raise DataError(f"{sample.name}: {real} is a link, which is not replaced. Put the caption itself there.")
    return real


def _new_file(sample: Sample) -> Path:
    assert sample.image_path is not None
    picture, extension = sample.image_path, caption_extension(sample.settings.caption)
    twins = [
        other
        for other in picture.parent.iterdir()
        if other.stem.casefold() == picture.stem.casefold() and other.suffix.lower() in readable_extensions()
    ]
    # Where cat.png lies beside cat.jpg, cat.txt would be the caption of both.
    stem = picture.name if len(twins) > 1 else picture.stem
    subject = f".{sample.subject}" if sample.subject not in ("", TOGETHER) else ""
    return picture.with_name(f"{stem}{subject}{extension}")


def raw_caption(sample: Sample, *, allowed: Allowed) -> RawCaption:
    """What there is to edit; a file that others have written meanwhile comes before what the sample knows.

    Raises:
        DataError, PathError: As `caption_target`, or the file cannot be read.
    """
    target = caption_target(sample, allowed=allowed)
    if not target.is_file():
        return RawCaption(sample.caption or "", NO_FILE, target.name)
    # The token first: a text that is newer than its token can only be told too often to be in conflict.
    token = file_digest(target)
    return RawCaption(read_text(target).removeprefix("\ufeff").replace("\r\n", "\n"), token, target.name)


def save_caption(sample: Sample, text: str, token: str, *, allowed: Allowed, versions: Versions) -> Sample:
    """The sample with its edited caption, which is in its file by then; the file's former content is kept.

    Args:
        sample: Whose caption was edited.
        text: As it was typed; blanks around it are left out. An empty one is written, too: it is a caption of no words.
        token: Of the `RawCaption` that was edited.
        allowed: As in `caption_target`.
        versions: Where the former content goes.

    Raises:
        CaptionConflictError: The file has changed since.
        DataError: The text cannot be trained on, or cannot be written; everything is as it was.
        PathError: As `caption_target`.
    """
    text = text.strip()
    if fault := text_fault(text):
        raise DataError(f"{sample.name}: {fault}")
    with _SAVING:
        target, old = caption_target(sample, allowed=allowed), raw_caption(sample, allowed=allowed)
        if old.token != token:
            raise CaptionConflictError(
                f"{sample.name}: its caption was changed elsewhere since it was opened here. Load that caption, or "
                "save yours over it."
            )
        if text != old.text.strip() or old.token == NO_FILE:
            _write(sample, target, text, versions)
    return replace(sample, caption=as_loaded(text, sample.settings.caption), caption_path=target)


def _write(sample: Sample, target: Path, text: str, versions: Versions) -> None:
    try:
        if target.is_file():
            versions.keep(target, of=target)
        write_text_atomically(target, f"{text}\n" if text else "")
    except (OSError, RunError) as error:
        raise DataError(
            f"{sample.name}: {target} could not be written ({error}). The caption that was there is untouched. Make "
            "room or check the folder's rights, then save again."
        ) from error


def same_caption(samples: Sequence[Sample], before: Sample, after: Sample) -> dict[int, Sample]:
    """By index the samples that an edit changes, in their new form: those whose caption is in the written file.

    Args:
        samples: Of a data set.
        before: The sample that was edited.
        after: What `save_caption` gave for it.
    """
    found = {}
    for index, sample in enumerate(samples):
        if sample.image is not None or sample.image_path is None:
            continue
        twin = (sample.image_path, sample.subject) == (before.image_path, before.subject)
        if twin or (sample.caption_path is not None and sample.caption_path == after.caption_path):
            caption = as_loaded(_text_of(after), sample.settings.caption)
            found[index] = replace(sample, caption=caption, caption_path=after.caption_path)
    return found


def _text_of(sample: Sample) -> str:
    assert sample.caption_path is not None
    return read_text(sample.caption_path)
