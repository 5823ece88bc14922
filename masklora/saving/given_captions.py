"""Captions that other nodes give, such as those of a model that describes pictures, written beside the pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ..dataset.sample import Dataset, Sample
from ..errors import ConfigError, DataError, MaskLoraError
from ..findings import counted
from ..folder.tree import Allowed
from .captions import Beside, Edit, raw_caption, same_captions, save_caption
from .versions import Versions

NAMES_SHOWN = 20


@dataclass(frozen=True, eq=False)
class GivenSaved:
    """The data set with its captions as they are now, the edits, and what was done, in lines for a person.

    `problems` begin with the name of a picture whose caption could not be written.
    """

    dataset: Dataset
    edits: tuple[Edit, ...]
    text: str
    problems: tuple[str, ...]


def save_given_captions(
    dataset: Dataset,
    captions: Sequence[str],
    *,
    replace_existing: bool,
    allowed: Allowed,
    versions: Versions,
    progress: Callable[[int, int, str], None] = lambda done, total, name: None,
    check_cancel: Callable[[], None] = lambda: None,
) -> GivenSaved:
    """Writes a text for each picture as one line into its caption file, each file whole or not at all.

    Args:
        dataset: Is not changed.
        captions: One for each picture, in order. One without words is not written.
        replace_existing: Whether a caption that is there by now is replaced; its text is kept as a former version.
        allowed: As in `save_caption`.
        versions: As in `save_caption`.
        progress: Called with (done, total, name).
        check_cancel: Called between files; raises to stop. What is written stays.

    Raises:
        ConfigError: A count that does not fit.
        DataError: There was something to write, and nothing could be; names the first picture.
    """
    if len(captions) != len(dataset):
        raise ConfigError(
            f"captions: expected {len(dataset)} (one per picture of dataset), got {len(captions)}. Connect the dataset "
            "that these pictures were taken from."
        )
    beside, edits, problems = Beside(), list[Edit](), list[str]()
    kept, empty = list[str](), list[str]()
    for done, (sample, text) in enumerate(zip(dataset.samples, captions, strict=True)):
        check_cancel()
        progress(done, len(dataset), sample.name)
        # Lines would be captions of their own.
        words = " ".join(text.split())
        try:
            raw = raw_caption(sample, allowed=allowed, beside=beside)
            if not words:
                empty.append(sample.name)
            elif raw.text.strip() and not replace_existing:
                kept.append(sample.name)
            else:
                edits.append(save_caption(sample, words, raw.token, allowed=allowed, versions=versions, beside=beside))
        except (MaskLoraError, OSError) as error:
            problems.append(_named(sample, error))
    if problems and not edits and not kept:
        raise DataError(f"No caption was written. {problems[0]}")
    changed = same_captions(dataset.samples, edits)
    samples = tuple(changed.get(index, sample) for index, sample in enumerate(dataset.samples))
    bare = tuple(name for name in dataset.report.no_caption if name not in {one.before.name for one in edits})
    report = replace(dataset.report, no_caption=bare)
    return GivenSaved(Dataset(samples, report), tuple(edits), _told(edits, kept, empty), tuple(problems))


def _named(sample: Sample, error: Exception) -> str:
    text = str(error)
    return text if text.startswith(sample.name) else f"{sample.name}: {text}"


def _told(edits: list[Edit], kept: list[str], empty: list[str]) -> str:
    lines = [f"{counted(len(edits), '[caption|captions]')} written."]
    if kept:
        lines.append(
            f"{counted(len(kept), '[caption was|captions were] there already, and [stays|stay]')}: {_list(kept)}"
        )
    if empty:
        lines.append(f"{counted(len(empty), '[text was|texts were]')} empty and not written: {_list(empty)}")
    return "\n".join(lines)


def _list(names: list[str]) -> str:
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return f"{', '.join(names[:NAMES_SHOWN])}{more}."
