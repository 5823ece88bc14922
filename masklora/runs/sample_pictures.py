"""Sample pictures of a training: when they are drawn, and the folder in which they are kept.

    <run folder>/samples/
        samples.json          the settings, prompts among them
        step_000100_0.png     after step 100, of the first prompt; step 0 is the base model

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
_PICTURE = re.compile(r"step_([0-9]{6,9})_([0-9]{1,2})\.png")


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


class Sampler(Protocol):
    """What draws: the host's."""

    @property
    def every(self) -> int:
        """Steps between pictures, 0 for none in between."""
        ...

    def start(self, folder: Path, *, step: int) -> None:
        """Get the run's folder ready to go on after `step`, and draw the base model's pictures that are missing."""
        ...

    def draw(self, step: int) -> None:
        """Draw the pictures of a step that are missing, with the adapter as it is."""
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

    def draw(self, step: int) -> None:
        """Draw the pictures after `step`; the model wears the weights to show."""
        self._drawn = step
        self._guard(lambda sampler: sampler.draw(step))

    def _guard(self, act: Callable[[Sampler], None]) -> None:
        assert self.sampler is not None
        self._set_training(False)
        try:
            act(self.sampler)
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

    def begin(self, settings: SampleSettings, *, step: int) -> None:
        """Keep what fits: pictures of later steps are dropped, those of other prompts or sizes put aside.

        Raises:
            RunError: the folder cannot be written.
        """
        document = _document(settings)
        known = self.settings()
        if known and _look(known) != _look(document):
            self._put_aside()
        self.path.mkdir(parents=True, exist_ok=True)
        write_text_atomically(self.path / "samples.json", json.dumps(document, indent=1))
        for later in [s for s in self.pictures() if s > step]:
            self._drop(later)

    def shows(self, settings: SampleSettings) -> bool:
        """Whether there are pictures, and drawn as `settings` ask for."""
        return bool(self.pictures()) and _look(self.settings()) == _look(_document(settings))

    def copy_to(self, run_folder: Path, *, until: int) -> None:
        """Give another run the pictures up to a step; what cannot be copied would only be drawn again."""
        other = SampleFolder(run_folder)
        with contextlib.suppress(OSError):
            other.path.mkdir(exist_ok=True)
            for step, numbers in self.pictures().items():
                for number in numbers if step <= until else ():
                    shutil.copyfile(self.file(step, number), other.file(step, number))
            shutil.copyfile(self.path / "samples.json", other.path / "samples.json")

    def settings(self) -> dict[str, Any]:
        """What samples.json says; empty where there is none."""
        kinds = {"prompts": list, "width": int, "height": int, "seed": int}
        return read_document(self.path / "samples.json", optional=kinds) or {}

    def pictures(self) -> dict[int, list[int]]:
        """Step to the numbers of the prompts that have a picture, both in rising order."""
        if not self.path.is_dir() or self.path.resolve().parent != self.path.parent.resolve():
            return {}
        found: dict[int, list[int]] = {}
        for match in filter(None, (_PICTURE.fullmatch(p.name) for p in self.path.iterdir())):
            found.setdefault(int(match[1]), []).append(int(match[2]))
        return {step: sorted(found[step]) for step in sorted(found)}

    def mark(self) -> str:
        """A short text that changes with every picture that is added; empty where there is none."""
        found = self.pictures()
        # Where the oldest make room, only the newest step tells.
        return f"{max(found)}-{sum(map(len, found.values()))}" if found else ""

    def read(self, step: int, number: int) -> bytes | None:
        """The PNG file of a picture; None where there is none."""
        path = self.file(step, number)
        # A link could lead anywhere.
        if path.is_symlink() or self.path.resolve().parent != self.path.parent.resolve():
            return None
        try:
            return path.read_bytes()
        except OSError:
            return None

    def write(self, step: int, number: int, png: bytes) -> None:
        """Keep a picture; where there are too many steps, the most crowded one goes.

        Raises:
            RunError: the folder cannot be written.
        """
        write_bytes_atomically(self.file(step, number), png)
        steps = list(self.pictures())
        if len(steps) > MOST_STEPS:
            # The base model's stay for comparison, the newest because they are news.
            gaps = {steps[i]: steps[i + 1] - steps[i - 1] for i in range(1, len(steps) - 1)}
            self._drop(min(gaps, key=lambda one: gaps[one]))

    def file(self, step: int, number: int) -> Path:
        """Where a picture is kept."""
        return self.path / f"step_{step:06d}_{number}.png"

    def _drop(self, step: int) -> None:
        for number in self.pictures().get(step, []):
            patiently(functools.partial(self.file(step, number).unlink, missing_ok=True))

    def _put_aside(self) -> None:
        number = 1
        while (aside := self.path.with_name(f"samples-{number}")).exists():
            number += 1
        patiently(lambda: self.path.rename(aside))


def _document(settings: SampleSettings) -> dict[str, Any]:
    # As JSON gives it back.
    return json.loads(json.dumps(dataclasses.asdict(settings)))


def look_of(settings: dict[str, Any]) -> str:
    """A short text that changes with what decides how the pictures look, by what samples.json says."""
    return hashlib.sha256(json.dumps(_look(settings), sort_keys=True).encode("utf-8")).hexdigest()[:12]


def _look(document: dict[str, Any]) -> dict[str, Any]:
    """What decides how the pictures look."""
    return {key: value for key, value in document.items() if key != "every"}
