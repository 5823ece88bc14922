"""Sample pictures of a run's checkpoints at several strengths, drawn after the training into the run's own folder."""

from __future__ import annotations

import contextlib
import io
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageSequence
from torch import Tensor

from ..adapters.text_encoders import is_of_texts
from ..documents import read_document
from ..errors import AdapterError, ConfigError, RunError
from ..findings import Finding, counted, note, warning
from ..generators.apply import Watch
from ..runs.record import KeptLora, kept_lora
from ..runs.run import checkpoint_steps, trained_elsewhere
from ..runs.sample_pictures import FULL, SampleFolder, look_of, split_steps, split_strengths
from ..training.seeds import own_global_random
from .exporting import apply_lora, apply_texts, find_chosen
from .finders.borrowed import silent_progress
from .model.fitting import check_samples_fit
from .model.trainable import TrainableModel
from .references.conditions import is_inpainting
from .sampling import Painter, SampleRequest, png_of
from .texts.word import spelled

MOST_PICTURES = 512

# (step, strength, number of the prompt); the base model's have step 0.
_Place = tuple[int, float, int]
_OTHER_MODEL = (
    "model: it has none of the layers that this run's LoRA is for. Connect the model that the run was trained on."
)
_BARE = (
    "samples: these clips are drawn as from text alone. Only during the training does a model that continues a picture "
    "get the first frame of a clip."
)
_UNFILLED = (
    "samples: these pictures are drawn whole. Only during the training does a model for inpainting get pictures to "
    "fill in."
)


@dataclass(frozen=True)
class Wanted:
    """What a person typed: which run, which of its checkpoints, and the strengths; see `split_steps`."""

    run: str
    steps: str
    strengths: str


def draw_run(
    model: Any, request: SampleRequest, wanted: Wanted, watch: Watch, *, model_low: Any = None
) -> tuple[Tensor, list[Finding]]:
    """Pictures of a run's checkpoints, those that its folder lacks drawn now; and what a person should know.

    Args:
        model: ComfyUI's MODEL that the run was trained on.
        request: the prompts, and how they are drawn.
        wanted: of which run, at which steps and strengths.
        watch: told of each picture; what its `check_cancel` raises ends the drawing, and what is drawn stays.
        model_low: of a run that trained two models the one for low noise, `model` being the other.

    Returns:
        (N, H, W, 3) in 0..1, by steps, then strengths, then prompts; of clips all frames, one after the other.

    Raises:
        RunError: there is no such run or checkpoint, it is being trained, or its folder cannot be written.
        ConfigError: steps or strengths are none, or make more than `MOST_PICTURES`; or the size is not the model's.
        FamilyError: the VAE is another model's.
        AdapterError: the LoRA is another model's.
    """
    folder = find_chosen(wanted.run)
    if trained_elsewhere(folder):
        raise RunError(f"run: {folder.name} is being trained by another ComfyUI, or by another job. Wait for its end.")
    steps, strengths = _checkpoints(folder, wanted.steps), split_strengths(wanted.strengths)
    count = len(steps) * len(strengths) * len(request.positive)
    if count > MOST_PICTURES:
        raise ConfigError(
            f"steps, strengths: they ask for {count} pictures ({len(steps)} steps × {len(strengths)} strengths × "
            f"{len(request.positive)} prompts), and {MOST_PICTURES} are the most. Name fewer steps or strengths."
        )
    switch = _switch(folder, steps[0], model_low)
    models = [model, model_low] if switch else [model]
    trainables = [TrainableModel(one, unknown=True) for one in models]
    for one in trainables:
        check_samples_fit(request, one)
    drawing = _Drawing(
        [one.drawing for one in trainables], Painter(trainables[0], request, switch=switch), folder, watch
    )
    _check_clip(request, kept_lora(folder, steps[0]))
    # Before anything in the folder is changed.
    drawing.dressed(steps[0], strengths[0])
    with _noted(folder):
        aside = drawing.samples.begin(request.settings, step=None)
        pictures, drawn = drawing.all(steps, strengths)
    found = _said(folder, aside, drawn=drawn, count=count)
    if drawn and request.settings.frames > 1 and _begins(folder):
        found.append(warning(_BARE))
    if drawn and is_inpainting(trainables[0]):
        found.append(warning(_UNFILLED))
    return pictures, found


def _begins(folder: Path) -> bool:
    """Whether the run was given the first frames of clips, with which its own sample clips begin then."""
    identity = read_document(folder / "settings.json", optional={"first_frame": str}) or {}
    return bool(identity.get("first_frame"))


def drawn_state(chosen: str) -> list[int]:
    """Changes with the checkpoints of a run, and when its pictures are others than a drawing left there."""
    try:
        folder = find_chosen(chosen)
    except RunError:
        return []
    left = _LEFT.get(folder)
    return [*checkpoint_steps(folder), left.changes + (left.mark != _mark(folder)) if left else 0]


@dataclass(frozen=True)
class _Left:
    """A run's pictures as a drawing left them, and how often they were found otherwise."""

    mark: tuple[str, str]
    changes: int


# ComfyUI remembers what its nodes gave out for as long as this process lives, and so does this.
_LEFT: dict[Path, _Left] = {}


def _mark(folder: Path) -> tuple[str, str]:
    samples = SampleFolder(folder)
    return samples.mark(), look_of(samples.settings())


@contextlib.contextmanager
def _noted(folder: Path) -> Iterator[None]:
    """Notes how the pictures are when the context ends, unless it fails."""
    before, last = _mark(folder), _LEFT.get(folder)
    yield
    _LEFT[folder] = _Left(_mark(folder), last.changes + (last.mark != before) if last else 0)


def _checkpoints(folder: Path, text: str) -> tuple[int, ...]:
    known, asked = checkpoint_steps(folder), split_steps(text)
    if not known:
        raise RunError(f"run: {folder.name} has no checkpoint yet. Choose another, or train it further.")
    gone = [step for step in asked if step not in known]
    if gone:
        raise RunError(
            f"steps: {folder.name} has no checkpoint of step {', '.join(map(str, gone))}, but of "
            f"{', '.join(map(str, known))}. Choose among these, or empty it for all."
        )
    return asked or tuple(known)


def _switch(folder: Path, step: int, model_low: Any) -> float:
    """The noise level at which the second model of a run goes on; 0 of a run of one.

    Raises:
        ConfigError: there is a second model and the run trained one, or the other way round.
    """
    kept = kept_lora(folder, step)
    if (kept.low is None) != (model_low is None):
        raise ConfigError(
            f"model_low: {folder.name} trained one model, which is to be connected to model. Disconnect it."
            if kept.low is None
            else f"model_low: {folder.name} trained two models. Connect the one for low noise here, the other to model."
        )
    return kept.record.train.expert_switch if kept.low else 0.0


class _Drawing:
    """Draws what a run's folder lacks, and gives all that is asked for."""

    def __init__(self, models: list[Any], painter: Painter, folder: Path, watch: Watch) -> None:
        self.models, self.painter, self.folder, self.watch = models, painter, folder, watch
        self.samples = SampleFolder(folder)

    def all(self, steps: tuple[int, ...], strengths: tuple[float, ...]) -> tuple[Tensor, int]:
        """The pictures (N, H, W, 3) in 0..1, and how many were drawn, those of the base model among them.

        Of clips they are all frames, one clip after the other.
        """
        numbers = range(len(self.painter.request.positive))
        wanted: list[_Place] = list(itertools.product(steps, strengths, numbers))
        found = {place: self._kept(place) for place in [*itertools.product([0], [FULL], numbers), *wanted]}
        missing = [place for place, pixels in found.items() if pixels is None]
        with own_global_random(self.painter.trainable.device), silent_progress():
            for place, pixels in self._drawn(missing):
                found[place] = pixels
        size = self.painter.size
        shown = [np.reshape(found[place], (-1, *size, 3)) for place in wanted]
        return torch.from_numpy(np.concatenate(shown)).float().div_(255), len(missing)

    def _drawn(self, missing: list[_Place]) -> Iterator[tuple[_Place, np.ndarray]]:
        """Each missing picture, which is kept as soon as it is drawn."""
        done = 0
        for (step, strength), places in itertools.groupby(missing, key=lambda place: place[:2]):
            model, low = (*self.dressed(step, strength), None)[:2]
            painter = self._reading(step, strength)
            for place in places:
                self.watch.check_cancel()
                self.watch.progress(done, len(missing), _called(step, strength))
                pixels = painter.pixels(model, place[2], go_on=self.watch.check_cancel, low=low)
                self.samples.write(step, place[2], png_of(pixels, rate=self.painter.rate), strength)
                self.watch.show(pixels if pixels.ndim == 3 else pixels[0])
                done += 1
                yield place, pixels
        self.watch.progress(done, len(missing), "")

    def dressed(self, step: int, strength: float) -> list[Any]:
        """Each MODEL with its LoRA of a checkpoint at a strength; as it is for step 0."""
        if not step:
            return self.models
        kept = kept_lora(self.folder, step)
        found = []
        for bare, lora in zip(self.models, (kept, kept.low), strict=False):
            model = apply_lora(bare, lora.tensors, strength=strength)
            if all(len(patches) == len(bare.patches.get(key, ())) for key, patches in model.patches.items()):
                raise AdapterError(_OTHER_MODEL)
            found.append(model)
        return found

    def _reading(self, step: int, strength: float) -> Painter:
        """The painter of pictures whose prompts are read by the text encoders as they were trained, if they were."""
        kept, request = kept_lora(self.folder, step) if step else None, self.painter.request
        if kept is None or not _has_texts(kept):
            return self.painter
        clip = apply_texts(request.clip, kept.tensors, kept.word, strength=strength)

        def read(prompt: str, known: dict[str, Any]) -> dict[str, Any]:
            tokens = clip.tokenize(spelled(prompt, kept.word) if kept.word else prompt)
            ((cond, options),) = clip.encode_from_tokens_scheduled(tokens, show_pbar=False)
            return {**known, **options, "cond": cond}

        return Painter(self.painter.trainable, request.read_by(read), switch=self.painter.switch)

    def _kept(self, place: _Place) -> np.ndarray | None:
        """A picture that is there, uint8 (H, W, 3), or a clip (F, H, W, 3); None where it is not, or is damaged."""
        step, strength, number = place
        png = self.samples.read(step, number, strength)
        height, width = self.painter.size
        try:
            with Image.open(io.BytesIO(png or b""), formats=["PNG"]) as image:
                return _pixels(image, self.painter.rate) if image.size == (width, height) else None
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            return None


def _pixels(image: Image.Image, rate: float) -> np.ndarray:
    """What `png_of` was given, uint8 (H, W, 3), or of an animated file (F, H, W, 3)."""
    if getattr(image, "n_frames", 1) == 1:
        return np.asarray(image.convert("RGB"))
    frames = []
    for frame in ImageSequence.Iterator(image):
        # Frames that are alike are written as one that stays longer.
        frames += [np.asarray(frame.convert("RGB"))] * max(1, round(frame.info.get("duration", 0) * rate / 1000))
    return np.stack(frames)


def _has_texts(kept: KeptLora) -> bool:
    return kept.word is not None or any(map(is_of_texts, kept.tensors))


def _check_clip(request: SampleRequest, kept: KeptLora) -> None:
    if _has_texts(kept) and request.clip is None:
        raise ConfigError(
            "samples: this run trained text encoders too, and it is not known with which CLIP the prompts were made. "
            "Queue Sample Pictures again."
        )


def _called(step: int, strength: float) -> str:
    return f"step {step} at strength {strength:.2f}" if step else "base model"


def _said(folder: Path, aside: Path | None, *, drawn: int, count: int) -> list[Finding]:
    said = []
    if aside is not None:
        said.append(
            warning(
                f"samples: other prompts, sizes or settings than those of {folder.name}'s pictures. A new set was "
                f"begun, and the old one put aside as {aside.name} in the run's folder."
            )
        )
    news = f"{counted(drawn, '[picture was|pictures were]')} drawn" if drawn else "all were there, and none was drawn"
    return [
        *said,
        note(f"{folder.name}: {counted(count, '[picture|pictures]')}; {news}."),
        note("All pictures, above the run's in the sidebar, shows them in a grid."),
    ]
