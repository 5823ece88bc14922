"""Sample pictures of a training: when they are drawn, and the folder in which they are kept.

    <run folder>/samples/
        samples.json                the settings, prompts among them
        step_000100_0.png           after step 100, of the first prompt; step 0 is the base model
        step_000100_0_x0.60.png     the same with the LoRA at strength 0.60

A clip is an animated PNG under the same name.

Pictures of one prompt share seed and size, so they differ only by the weights. How one is drawn is the host's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..documents import read_document
from ..errors import ConfigError
from ..files import patiently, write_bytes_atomically, write_text_atomically
from ..settings import ranged, seeded

if TYPE_CHECKING:
    from ..training.job import Hooks

MOST_PROMPTS = 16
MOST_LETTERS = 4000
SIDES = (64, 2048)
# Pictures of more steps than this are thinned out, so that a run's folder stays bounded.
MOST_STEPS = 100
# At which a training shows what it learns; the names of these pictures do not tell it.
FULL = 1.0
STRENGTHS = (-4.0, 4.0)
MOST_STRENGTHS = 8
_PICTURE = re.compile(r"step_([0-9]{6,9})_([0-9]{1,2})(?:_x(-?[0-9]\.[0-9]{2}))?\.png")
_STRENGTH = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]{0,2})?|\.[0-9]{1,2})")
_STEP = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True)
class SampleSettings:
    """What is drawn, and when.

    Attributes:
        prompts: one picture each.
        width: of the pictures, px.
        height: of the pictures, px.
        seed: of every picture.
        every: steps between pictures; 0 for only the base model's and those at the end.
        negative: prompt to stay away from; without effect at cfg 1.
        steps: of the sampler.
        cfg: classifier-free guidance; 1 is none.
        sampler: ComfyUI's name.
        scheduler: ComfyUI's name.
        guidance: told to guidance-distilled models (FLUX.1 dev); -1 for what ComfyUI tells each where nothing is said.
        frames: of a clip, rounded down to what the VAE takes; 1 for pictures.
        references: digest of the reference pictures of all prompts; empty without any.
    """

    prompts: tuple[str, ...] = ()
    width: int = ranged(512, *SIDES)
    height: int = ranged(512, *SIDES)
    seed: int = seeded(2**64 - 1)
    every: int = ranged(100, 0, 1_000_000)
    negative: str = ""
    steps: int = ranged(20, 1, 1000)
    cfg: float = ranged(7.0, 0.0, 100.0)
    sampler: str = "euler"
    scheduler: str = "normal"
    guidance: float = ranged(-1.0, -1.0, 100.0)
    frames: int = ranged(1, 1, 257)
    references: str = ""


def split_prompts(text: str) -> tuple[str, ...]:
    """The prompts of a text, one a line; empty lines are none.

    Raises:
        ConfigError: there is no prompt, there are more than `MOST_PROMPTS`, or one is too long.
    """
    prompts = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not 1 <= len(prompts) <= MOST_PROMPTS:
        raise ConfigError(f"prompts: expected 1 to {MOST_PROMPTS} lines with a prompt, got {len(prompts)}.")
    if any(len(prompt) > MOST_LETTERS for prompt in prompts):
        raise ConfigError(f"prompts: expected at most {MOST_LETTERS} letters a line. Shorten the long one.")
    return prompts


def split_strengths(text: str) -> tuple[float, ...]:
    """The strengths of a text such as "0.6, 0.8, 1", each once, in its order; all have two decimals at most.

    Raises:
        ConfigError: one is no such number or out of `STRENGTHS`, or there are none or more than `MOST_STRENGTHS`.
    """
    low, high = STRENGTHS
    wanted = f"expected 1 to {MOST_STRENGTHS} numbers from {low:g} to {high:g} with commas between them, as 0.6, 0.8, 1"
    parts = _parts(text)
    for part in parts:
        if not _STRENGTH.fullmatch(part) or not low <= float(part) <= high:
            raise ConfigError(f"strengths: {wanted}, got {part[:40]!r}. Two decimals are the most, after a point.")
    # There is one zero only.
    found = tuple(dict.fromkeys(float(part) + 0.0 for part in parts))
    if not 1 <= len(found) <= MOST_STRENGTHS:
        raise ConfigError(f"strengths: {wanted}, got {len(found)} of them.")
    return found


def split_steps(text: str) -> tuple[int, ...]:
    """The steps of a text such as "250, 500", each once, in its order; none where it is empty.

    Raises:
        ConfigError: one is no whole number of nine digits at most.
    """
    parts = _parts(text)
    for part in parts:
        if not _STEP.fullmatch(part):
            raise ConfigError(
                f"steps: expected whole numbers with commas between them, as 250, 500, got {part[:40]!r}. Empty: all "
                "kept checkpoints."
            )
    return tuple(dict.fromkeys(map(int, parts)))


def _parts(text: str) -> list[str]:
    return [part for part in re.split(r"[\s,;]+", text) if part]


class Sampler(Protocol):
    """What draws: the host's."""

    @property
    def every(self) -> int:
        """Steps between pictures, 0 for none in between."""
        ...

    def start(self, folder: Path, *, step: int) -> None:
        """Get the run's folder ready to go on after `step`, and draw the base model's pictures that are missing."""
        ...

    def draw(self, step: int) -> dict[str, float] | None:
        """Draw the pictures of a step that are missing, with the adapter as it is; what was measured of them."""
        ...

    def has(self, step: int) -> bool:
        """Whether every picture of a step is there."""
        ...


class Sampling:
    """When a training draws its pictures; one that fails is told, and does not end the training."""

    def __init__(self, sampler: Sampler | None, *, hooks: Hooks, set_training: Callable[[bool], None]) -> None:
        """Draw with `sampler`; `set_training` switches dropout off and on again."""
        self.sampler, self.hooks, self._set_training = sampler, hooks, set_training
        self._drawn = 0

    def start(self, folder: Path, *, step: int) -> None:
        """The run in `folder` begins or goes on after `step`."""
        if self.sampler is None:
            return
        self._drawn = step
        self._guard(lambda sampler: sampler.start(folder, step=step))
        if step and not self.sampler.has(step):
            self._drawn = -1

    def owed(self, step: int) -> bool:
        """Whether the process before ended while it drew the pictures of the step from which the run goes on."""
        if self.sampler is None or step == self._drawn:
            return False
        return self.sampler.every > 0 and step % self.sampler.every == 0

    def due(self, step: int, *, ended: bool = False) -> bool:
        """Whether to draw now: by the number of the step, at the end, or because a person wished it."""
        if self.sampler is None:
            return False
        wished, every = self.hooks.should_sample(), self.sampler.every
        if wished and step == self._drawn:
            self.hooks.on_message(f"The sample pictures of step {step} are there already.")
        return step != self._drawn and (wished or ended or (every > 0 and step % every == 0))

    def draw(self, step: int) -> dict[str, float]:
        """Draw the pictures after `step`; the model wears the weights to show. What was measured of them, by curve."""
        self._drawn = step
        return self._guard(lambda sampler: sampler.draw(step)) or {}

    def _guard(self, act: Callable[[Sampler], dict[str, float] | None]) -> dict[str, float] | None:
        assert self.sampler is not None
        self._set_training(False)
        try:
            return act(self.sampler)
        except Exception as error:
            reason = str(error).strip().split("\n")[0] or type(error).__name__
            self.hooks.on_message(
                f"The sample pictures could not be drawn ({reason}). The training goes on without them. If memory ran "
                "out, draw smaller or fewer pictures."
            )
        finally:
            self._set_training(True)


class SampleFolder:
    """The pictures of one run."""

    def __init__(self, run_folder: Path) -> None:
        """Of the run in `run_folder`; nothing is made or read yet."""
        self.path = run_folder / "samples"

    def begin(self, settings: SampleSettings, *, step: int | None) -> Path | None:
        """Keep what fits: pictures of steps after `step` are dropped, None for none of them.

        Returns:
            Where pictures of other prompts or sizes were put aside; None where there were none.

        Raises:
            RunError: the folder cannot be written.
        """
        document = _document(settings)
        known = self.settings()
        aside = self._put_aside() if known and _look(known) != _look(document) else None
        self.path.mkdir(parents=True, exist_ok=True)
        write_text_atomically(self.path / "samples.json", json.dumps(document, indent=1))
        for later in [s for s in self._steps() if step is not None and s > step]:
            self._drop(later)
        return aside

    def shows(self, settings: SampleSettings) -> bool:
        """Whether there are pictures, and drawn as `settings` ask for."""
        return bool(self.pictures()) and _look(self.settings()) == _look(_document(settings))

    def copy_to(self, run_folder: Path, *, until: int) -> None:
        """Give another run the pictures up to a step; what cannot be copied would only be drawn again."""
        other = SampleFolder(run_folder)
        with contextlib.suppress(OSError):
            other.path.mkdir(exist_ok=True)
            for place in self._all():
                if place[0] <= until:
                    shutil.copyfile(self.file(*place), other.file(*place))
            shutil.copyfile(self.path / "samples.json", other.path / "samples.json")

    def settings(self) -> dict[str, Any]:
        """What samples.json says; empty where there is none."""
        kinds = {"prompts": list, "width": int, "height": int, "seed": int}
        return read_document(self.path / "samples.json", optional=kinds) or {}

    def pictures(self, strength: float = FULL) -> dict[int, list[int]]:
        """Step to the numbers of the prompts that have a picture at a strength, both in rising order."""
        found: dict[int, list[int]] = {}
        for step, number, at in self._all():
            if at == strength:
                found.setdefault(step, []).append(number)
        return found

    def strengths(self) -> list[float]:
        """Those at which there are pictures of the LoRA, in rising order; the base model's have none."""
        return sorted({strength for step, _, strength in self._all() if step})

    def mark(self) -> str:
        """A short text that changes with every picture that is added; empty where there is none."""
        found = self._all()
        # Where the oldest make room, only the newest step tells.
        return f"{found[-1][0]}-{len(found)}" if found else ""

    def read(self, step: int, number: int, strength: float = FULL) -> bytes | None:
        """The PNG file of a picture; None where there is none."""
        path = self.file(step, number, strength)
        # A link could lead anywhere.
        if path.is_symlink() or not self._is_own():
            return None
        try:
            return path.read_bytes()
        except OSError:
            return None

    def write(self, step: int, number: int, png: bytes, strength: float = FULL) -> None:
        """Keep a picture.

        Raises:
            RunError: the folder cannot be written.
        """
        write_bytes_atomically(self.file(step, number, strength), png)

    def thin(self) -> None:
        """Where there are too many steps, let the most crowded one go."""
        steps = self._steps()
        if len(steps) > MOST_STEPS:
            # The base model's stay for comparison, the newest because they are news.
            gaps = {steps[i]: steps[i + 1] - steps[i - 1] for i in range(1, len(steps) - 1)}
            self._drop(min(gaps, key=lambda one: gaps[one]))

    def file(self, step: int, number: int, strength: float = FULL) -> Path:
        """Where a picture is kept."""
        tail = "" if strength == FULL else f"_x{strength + 0.0:.2f}"
        return self.path / f"step_{step:06d}_{number}{tail}.png"

    def _all(self) -> list[tuple[int, int, float]]:
        """(step, number of the prompt, strength) of every picture, in rising order."""
        if not self.path.is_dir() or not self._is_own():
            return []
        found = []
        for match in filter(None, (_PICTURE.fullmatch(p.name) for p in self.path.iterdir())):
            place = int(match[1]), int(match[2]), float(match[3] or FULL)
            known = STRENGTHS[0] <= place[2] <= STRENGTHS[1] if place[0] else place[2] == FULL
            # What `file` does not call so could not be read.
            if known and self.file(*place).name == match[0]:
                found.append(place)
        return sorted(found)

    def _steps(self) -> list[int]:
        return sorted({step for step, _, _ in self._all()})

    def _is_own(self) -> bool:
        return self.path.resolve().parent == self.path.parent.resolve()

    def _drop(self, step: int) -> None:
        for place in self._all():
            if place[0] == step:
                patiently(functools.partial(self.file(*place).unlink, missing_ok=True))

    def _put_aside(self) -> Path:
        number = 1
        while (aside := self.path.with_name(f"samples-{number}")).exists():
            number += 1
        patiently(lambda: self.path.rename(aside))
        return aside


def _document(settings: SampleSettings) -> dict[str, Any]:
    # As JSON gives it back.
    return json.loads(json.dumps(dataclasses.asdict(settings)))


def look_of(settings: dict[str, Any]) -> str:
    """A short text that changes with what decides how the pictures look, by what samples.json says."""
    return hashlib.sha256(json.dumps(_look(settings), sort_keys=True).encode("utf-8")).hexdigest()[:12]


def _look(document: dict[str, Any]) -> dict[str, Any]:
    """What decides how the pictures look; those of before there were clips, or references, tell nothing of them."""
    usual = ("frames", 1), ("references", "")
    return {key: value for key, value in document.items() if key != "every" and (key, value) not in usual}
