"""One change to the captions of many pictures: what it would write, writing it file by file, taking it back."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..dataset.sample import Sample
from ..errors import ConfigError, MaskLoraError
from ..folder.captions import is_prose, reading_of, tag_mark, tags_of, text_fault
from ..folder.tree import Allowed
from ..settings import CaptionSettings
from .captions import Beside, Edit, caption_target, raw_caption, save_caption, undo_edit
from .versions import Versions

ACTIONS = ("add at start", "add at end", "remove tag", "replace tag", "replace text")
_ENDINGS = (".", "!", "?", ":", ";")

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Change:
    """What is done to every caption: `action` is one of `ACTIONS`, `text` what is added or looked for, `by` the new."""

    action: str
    text: str
    by: str = ""


@dataclass(frozen=True)
class Planned:
    """One caption to write: its file's text before and after, and the token of the file that the plan has read."""

    sample: Sample
    before: str
    after: str
    token: str


@dataclass(frozen=True)
class Plan:
    """What a change would do to `total` captions; `problems` tell which of them cannot be changed, and why."""

    total: int
    changes: tuple[Planned, ...]
    problems: tuple[str, ...]


@dataclass
class Outcome:
    """What was done so far: the edits, and what stood in the way of others. Whole after each file."""

    edits: list[Edit] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def check_change(change: Change) -> Change:
    """`change` if it can be made.

    Raises:
        ConfigError: An unknown action, nothing to add or to look for, or several lines.
    """
    if change.action not in ACTIONS:
        raise ConfigError(f"action: expected one of {', '.join(ACTIONS)}, got {change.action!r}.")
    for text in (change.text, change.by):
        if fault := text_fault(text):
            raise ConfigError(f"The text {fault}")
        if "\n" in text or "\r" in text:
            raise ConfigError("The text has several lines, which would be captions of their own. Write one line.")
    if not (change.text if change.action == "replace text" else change.text.strip()):
        raise ConfigError("There is no text to add or to look for. Write one.")
    if change.action == "replace text" and change.text == change.by:
        raise ConfigError("Both texts are the same: nothing would change.")
    return change


def changed_text(text: str, change: Change, settings: CaptionSettings) -> str:
    """A caption file's text after a change, which is `text` where nothing changes.

    Lines that are captions of their own are each changed, and those that a removal empties are dropped; a list of tags
    with a line for each gets a new line. What is added is not added twice.
    """
    if change.action == "replace text":
        return text.replace(change.text, change.by)
    reading = reading_of(text, settings)
    if change.action.startswith("add"):
        return _added(text, change, settings, reading)
    new = "" if change.action == "remove tag" else change.by.strip()
    rows = text.split("\n") if reading in ("captions", "tags") else [text]
    changed = [_without(row, change.text.strip(), new, tag_mark(settings)) for row in rows]
    if changed == rows:
        return text
    return "\n".join(row for row, before in zip(changed, rows, strict=True) if row or not before.strip())


def _added(text: str, change: Change, settings: CaptionSettings, reading: str) -> str:
    added, at_start = change.text.strip(), change.action == "add at start"
    if reading == "captions":
        rows = text.split("\n")
        return "\n".join(_joined(row, added, settings, at_start=at_start) if row.strip() else row for row in rows)
    if reading == "tags":
        return text if _has(text, added, settings) else f"{added}\n{text}" if at_start else f"{text.rstrip()}\n{added}"
    return _joined(text, added, settings, at_start=at_start)


def _joined(text: str, added: str, settings: CaptionSettings, *, at_start: bool) -> str:
    body = text.strip()
    if _has(body, added, settings):
        return text
    mark = tag_mark(settings)
    first, second = (added, body) if at_start else (body, added)
    if not first or not second:
        return first or second
    glue = " " if first.endswith((*_ENDINGS, mark)) or not mark.strip() else f"{mark} "
    return f"{first}{glue}{second}"


def _has(text: str, added: str, settings: CaptionSettings) -> bool:
    """Whether a caption has a text already: among its tags, at either end, or as words of its sentences."""
    if added.endswith((*_ENDINGS, tag_mark(settings))) and (text.startswith(added) or text.endswith(added)):
        return True
    if set(tags_of(added, settings)) <= set(tags_of(text, settings)):
        return True
    whole = re.compile(rf"(?<!\w){re.escape(added)}(?!\w)", re.IGNORECASE)
    return is_prose(text.replace("\n", " "), settings) and bool(whole.search(text))


def _without(text: str, tag: str, new: str, mark: str) -> str:
    """A row in which `tag` is `new`, or gone where that is empty or there already; blanks around others stay."""
    parts = text.split(mark)
    if not any(part.strip() == tag for part in parts):
        return text
    held, kept = {part.strip() for part in parts} - {tag}, []
    for part in parts:
        if part.strip() != tag:
            kept.append(part)
        elif new and new not in held:
            kept.append(part.replace(tag, new, 1))
            held.add(new)
    return mark.join(kept).strip()


def plan_changes(
    samples: Iterable[Sample],
    change: Change,
    *,
    allowed: Allowed,
    check_cancel: Callable[[], None] = lambda: None,
) -> Plan:
    """What `change` would write for `samples`; nothing is written. A file that several share counts once.

    Raises:
        ConfigError: As `check_change`.
    """
    check_change(change)
    beside, seen, changes, problems = Beside(), set[Path](), [], []
    for sample in samples:
        check_cancel()
        try:
            target = caption_target(sample, allowed=allowed, beside=beside)
            if target in seen:
                continue
            seen.add(target)
            raw = raw_caption(sample, allowed=allowed, beside=beside)
            text = changed_text(raw.text, change, sample.settings.caption)
            if text.strip() != raw.text.strip():
                _check_reading(sample, raw.text, text)
                changes.append(Planned(sample, raw.text.strip(), text.strip(), raw.token))
        except (MaskLoraError, OSError) as error:
            problems.append(str(error))
    return Plan(len(seen), tuple(changes), tuple(problems))


def _check_reading(sample: Sample, before: str, after: str) -> None:
    readings = [reading_of(text, sample.settings.caption) for text in (before, after)]
    if all(readings) and readings[0] != readings[1]:
        raise ConfigError(
            f"{sample.name}: after this change its lines would be read as {readings[1]}, no longer as {readings[0]}. "
            "Set lines of Load Dataset, or change it by hand."
        )


def apply_changes(
    changes: Sequence[Planned],
    outcome: Outcome,
    *,
    allowed: Allowed,
    versions: Versions,
    progress: Progress,
    check_cancel: Callable[[], None],
) -> None:
    """Writes what was planned, each caption as one edited by hand; what cannot be written is told, the others go on.

    Args:
        changes: Of a plan.
        outcome: Gets the edits and problems, so that it is known where a cancel came between.
        allowed: As in `save_caption`.
        versions: As in `save_caption`.
        progress: Called with (done, total).
        check_cancel: Called between files; raises to stop.
    """
    beside = Beside()
    for done, one in enumerate(changes):
        check_cancel()
        progress(done, len(changes))
        try:
            edit = save_caption(one.sample, one.after, one.token, allowed=allowed, versions=versions, beside=beside)
            outcome.edits.append(edit)
        except (MaskLoraError, OSError) as error:
            outcome.problems.append(str(error))


def undo_changes(
    edits: Sequence[Edit],
    outcome: Outcome,
    *,
    allowed: Allowed,
    versions: Versions,
    progress: Progress,
    check_cancel: Callable[[], None],
) -> None:
    """Takes edits back, the last first; those whose file was changed since stay as they are and are told.

    Arguments as `apply_changes`.
    """
    for done, edit in enumerate(reversed(edits)):
        check_cancel()
        progress(done, len(edits))
        try:
            outcome.edits.append(undo_edit(edit, allowed=allowed, versions=versions))
        except (MaskLoraError, OSError) as error:
            outcome.problems.append(str(error))
