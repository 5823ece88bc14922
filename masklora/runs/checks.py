"""What can be known before the first step: numbers that are none, words that are missing, room, where files go."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from ..cache.captions import Caption
from ..errors import RunError
from ..files import cannot_write, drop, existing_parent, free_bytes, temporary_beside
from ..findings import Finding, counted, of_kinds, warning
from ..settings import OptimizerSettings

_TOLD = 3


class CaptionedEntry(Protocol):
    """What is read of a cache's entry."""

    @property
    def name(self) -> str:
        """Of its picture."""
        ...

    @property
    def captions(self) -> Sequence[Caption]:
        """As trained."""
        ...

    @property
    def regularisation(self) -> bool:
        """Whether it belongs to a regularisation set."""
        ...


def warmup_notes(optim: OptimizerSettings, total: int) -> list[Finding]:
    """A warning where the run ends before the learning rate has reached its value."""
    if optim.warmup_steps <= total:
        return []
    share = total / optim.warmup_steps
    return [
        warning(
            f"warmup_steps: {optim.warmup_steps} are more than the {counted(total, '[step|steps]')} of the run, so "
            f"the learning rate rises to {share:.0%} of its value only. Lower warmup_steps in Optimizer, to a tenth of "
            "the steps or so."
        )
    ]


def trigger_notes(entries: Iterable[CaptionedEntry], triggers: Iterable[str]) -> list[Finding]:
    """A warning on captions that hold none of the trigger words, where there are any words.

    Pictures without a caption are told with their data set.
    """
    words = [re.escape(word.strip()) for word in triggers if word.strip()]
    if not words:
        return []
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(words)})(?!\w)", re.IGNORECASE)
    learned = [entry for entry in entries if not entry.regularisation]
    trained = [(entry.name, [c.text for c in entry.captions]) for entry in learned]
    bare = [name for name, texts in trained if any(texts) and not all(map(pattern.search, texts))]
    if not bare:
        return []
    named = ", ".join(bare[:_TOLD]) + (", …" if len(bare) > _TOLD else "")
    return [
        warning(
            f"trigger_word: of {of_kinds(len(trained), sum(bool(entry.frames) for entry in learned))}, "
            f"{counted(len(bare), '[has|have]')} a caption without it ({named}): the word will not call for what is "
            "shown there. Write it into these captions."
        )
    ]


def check_takes_files(path: Path) -> None:
    """Nothing if the folder in which `path` will lie, or the nearest that exists above it, takes a new file.

    Raises:
        RunError: It does not, or a file is in the way.
    """
    above = existing_parent(path)
    if not above.is_dir():
        raise RunError(f"name: {above} is a file, so {path.name} cannot lie in it. Choose another name.")
    trial = temporary_beside(above / "x")
    try:
        trial.open("xb").close()
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        drop(trial)


@dataclasses.dataclass(frozen=True)
class Room:
    """What a run will write, in bytes: its LoRA file, and each of its checkpoints, of which `kept` stay.

    `lasting` are all those together that stay for good, with their weights alone.
    """

    lora: int
    checkpoint: int
    kept: int
    lasting: int = 0


def room_notes(room: Room, *, lora: Path, run: Path) -> list[Finding]:
    """A warning where the disk will be full before the run has kept all that it shall.

    Args:
        room: See `Room`.
        lora: Where the LoRA file will lie.
        run: Where the checkpoints will lie.

    Raises:
        RunError: There is not even room for the LoRA file, or for one checkpoint.
    """
    # While one is written, those that are kept still lie there.
    wanted = {run: room.checkpoint * (room.kept + 1) + room.lasting, lora: room.lora}
    for path, need, what in ((run, room.checkpoint, "a checkpoint"), (lora, room.lora, "the LoRA file")):
        free = _free(path)
        if free is not None and free < need:
            raise RunError(
                f"{path.parent}: {_mib(free)} are free there, but {what} of this run needs about {_mib(need)}. "
                "Make room, then queue again."
            )
    free = _free(run)
    if free is None or free >= sum(wanted.values()):
        return []
    remedy = "raise keep_every" if room.lasting else "lower keep_last"
    return [
        warning(
            f"{run.parent}: {_mib(free)} are free there, but this run's checkpoints and LoRA file may need "
            f"{_mib(sum(wanted.values()))}. Make room, or {remedy}."
        )
    ]


def _free(path: Path) -> int | None:
    try:
        return free_bytes(path)
    except OSError:
        return None


def _mib(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"
