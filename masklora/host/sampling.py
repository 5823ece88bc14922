"""Sample pictures during a training, by ComfyUI's own sampling, with the model that is being trained."""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import comfy.model_management
import comfy.nested_tensor
import comfy.sample
import comfy.samplers
import numpy as np
import torch
from comfy.patcher_extension import PatcherInjection
from PIL import Image

from ..adapters import AdapterSet
from ..cache.keys import content_digest, digest
from ..errors import FamilyError
from ..runs.sample_pictures import SampleFolder, SampleSettings
from ..settings import check, check_choice
from ..training.job import Hooks
from ..training.seeds import own_global_random
from .finders.borrowed import silent_progress, unload
from .likeness.measuring import SampleLikeness
from .memory.plan import MemoryPlan
from .model.fitting import clip_rate
from .model.patches import adapted_layers_asked
from .model.trainable import TrainableModel
from .references.conditions import LATENTS, with_method
from .references.shown import prompt_with, reference_latents
from .swap.copies import is_main_memory
from .texts.trained import TrainedTexts

_KEY = "masked_lora"
# Frames per second of clips where nobody tells the model's own.
USUAL_RATE = 16.0


class _GivenUpError(Exception):
    """A person wishes to stop and save while pictures are drawn: the others are not waited for."""


@dataclass(frozen=True)
class SampleRequest:
    """What the node Sample Pictures gives: settings, the encoded prompts, and the VAE that decodes.

    Attributes:
        settings: what is drawn, and when.
        positive: ComfyUI's CONDITIONING of each prompt.
        negative: of the negative prompt.
        vae: ComfyUI's VAE.
        negatives: of each prompt the negative one with its reference pictures; none where there are none.
        clip: ComfyUI's CLIP that encoded them; None where it is not known.
        likeness: folder of the DINOv2 model by which a training's pictures are measured; None for none.
    """

    settings: SampleSettings
    positive: list[Any]
    negative: Any
    vae: Any
    negatives: tuple[Any, ...] = ()
    clip: Any = None
    likeness: Path | None = None

    @property
    def references(self) -> int:
        """How many reference pictures go with a prompt, of all prompts the most."""
        return max((len(extra.get(LATENTS, ())) for one in self.positive for _, extra in one), default=0)

    def read_by(self, read: Callable[[str, dict[str, Any]], dict[str, Any]]) -> SampleRequest:
        """The same with the prompts as other text encoders read them, given what these are now."""

        def read_again(prompt: str, conditioning: Any) -> Any:
            ((cond, options),) = conditioning
            found = read(prompt, {**options, "cond": cond})
            return [[found.pop("cond"), found]]

        prompts = zip(self.settings.prompts, self.positive, strict=True)
        negative = self.settings.negative
        return dataclasses.replace(
            self,
            positive=[read_again(prompt, given) for prompt, given in prompts],
            negative=read_again(negative, self.negative),
            negatives=tuple(read_again(negative, given) for given in self.negatives),
        )


def encode_prompts(
    clip: Any,
    vae: Any,
    settings: SampleSettings,
    *,
    references: Sequence[Sequence[torch.Tensor]] = (),
    likeness: Path | None = None,
) -> SampleRequest:
    """A request whose prompts are encoded now, so that no text encoder is needed during the training.

    Args:
        clip: ComfyUI's CLIP.
        vae: ComfyUI's VAE.
        settings: What is drawn.
        references: Of each prompt the reference pictures, float32 (1, H, W, 3) in 0..1; none at all for pictures from
            text alone.
        likeness: See `SampleRequest`.

    Raises:
        FamilyError: a socket is empty.
        ConfigError: a number is out of range, or ComfyUI has no such sampler.
    """
    if clip is None:
        raise FamilyError("clip: the checkpoint holds no text encoder. Connect a Load CLIP node instead.")
    if vae is None or getattr(vae, "first_stage_model", None) is None:
        raise FamilyError("vae: this one is empty; the checkpoint holds none. Connect a Load VAE node instead.")
    check(settings)
    check_choice("sampler", settings.sampler, comfy.samplers.KSampler.SAMPLERS)
    check_choice("scheduler", settings.scheduler, comfy.samplers.KSampler.SCHEDULERS)

    guidance = {} if settings.guidance < 0 else {"guidance": settings.guidance}
    beside = list(references) or [()] * len(settings.prompts)

    def encode(text: str, pictures: Sequence[torch.Tensor], *, negative: bool = False) -> Any:
        found = prompt_with(clip, text, pictures, negative=negative)
        shown = reference_latents(clip, vae, pictures, width=settings.width, height=settings.height)
        return [[cond, {**extra, **guidance, **shown}] for cond, extra in found]

    if references:
        told = [[content_digest(one.cpu().numpy().tobytes()) for one in pictures] for pictures in references]
        settings = dataclasses.replace(settings, references=digest("references", told))
    positive = [encode(*one) for one in zip(settings.prompts, beside, strict=True)]
    negatives = tuple(encode(settings.negative, pictures, negative=True) for pictures in references)
    return SampleRequest(settings, positive, encode(settings.negative, ()), vae, negatives, clip, likeness)


class _Given(NamedTuple):
    """What a sampler is given beside its noise; `mask` says where the latent is drawn, None for everywhere."""

    positive: Any
    negative: Any
    latent: Any
    mask: Any = None


class Beginning(Protocol):
    """What drawings begin with beside noise.

    Attributes:
        of_clips: Whether single pictures of a model for clips begin with noise alone.
    """

    of_clips: bool

    def given(
        self, number: int, positive: Any, negative: Any, latent: Any, *, size: tuple[int, int], frames: int
    ) -> tuple[Any, Any, Any, Any]:
        """Conditions, latent and noise mask of a sampling, in place of those of a prompt."""
        ...


class Painter:
    """Draws single pictures, or clips, of a request, with any model that takes latents as `trainable` does."""

    def __init__(
        self,
        trainable: TrainableModel,
        request: SampleRequest,
        *,
        switch: float = 0.0,
        beginning: Beginning | None = None,
    ) -> None:
        """Pictures of `request`; `switch` is the noise level at which a second model goes on.

        They begin with what `beginning` gives.
        """
        self.trainable, self.request = trainable, request
        self.switch, self.beginning = switch, beginning

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the pictures in px: whole cells of the latent."""
        stride, settings = self.trainable.stride, self.request.settings
        return settings.height // stride * stride, settings.width // stride * stride

    @property
    def rate(self) -> float:
        """Frames per second at which clips are shown."""
        return clip_rate(self.trainable) or USUAL_RATE

    def pixels(self, patcher: Any, number: int, *, go_on: Callable[[], None], low: Any = None) -> np.ndarray:
        """The picture of a prompt as ComfyUI draws it with the MODEL `patcher`.

        Args:
            patcher: wears whatever is to be shown.
            number: of the prompt, from 0.
            go_on: called before each step of the sampler; what it raises ends the drawing.
            low: the MODEL that goes on below the noise level `switch`, None for the same.

        Returns:
            uint8 (H, W, 3), see `size`; of a clip (F, H, W, 3).
        """
        given = self._given(number)
        noise = comfy.sample.prepare_noise(given.latent, self.request.settings.seed)
        if low is None:
            drawn = self._sampled(patcher, given, noise, go_on)
        else:
            drawn = self._by_both(patcher, low, given, noise, go_on)
        family, clip = self.trainable.family, self._latent_frames > 1
        latents = drawn.unbind()[0] if drawn.is_nested else drawn
        # A picture that has a frame axis may need to be several frames to be decoded.
        frames = torch.cat([latents] * family.decoded, dim=2) if family.decoded > 1 and not clip else latents
        images = self.request.vae.decode(frames).reshape(-1, *self.size, 3)
        levels = np.rint(images.float().clamp(0, 1).cpu().numpy() * 255).astype(np.uint8)
        return levels if clip else levels[0]

    def _given(self, number: int) -> _Given:
        negative = self.request.negatives[number] if self.request.negatives else self.request.negative
        told = (with_method(self.trainable, one) for one in (self.request.positive[number], negative))
        given = _Given(*told, self._empty())
        if self.beginning is None or (self.beginning.of_clips and self._latent_frames == 1):
            return given
        frames = 1 + (self._latent_frames - 1) * self._frames_at_once
        begun = self.beginning.given(
            number, given.positive, given.negative, given.latent, size=self.size, frames=frames
        )
        return _Given(*begun)

    def _sampled(self, patcher: Any, given: _Given, noise: Any, go_on: Callable[[], None], **part: Any) -> Any:
        """ComfyUI's sampler on what is given; `part` says which of its steps, all where nothing is said."""
        settings = self.request.settings
        return comfy.sample.sample(
            patcher,
            noise,
            settings.steps,
            settings.cfg,
            settings.sampler,
            settings.scheduler,
            given.positive,
            given.negative,
            given.latent,
            noise_mask=given.mask,
            callback=lambda *_: go_on(),
            disable_pbar=True,
            seed=settings.seed,
            **part,
        )

    def _by_both(self, high: Any, low: Any, given: _Given, noise: Any, go_on: Callable[[], None]) -> Any:
        """As by two KSampler (Advanced): one takes the steps from the switch up and leaves its noise to the other."""
        settings = self.request.settings
        sampler = comfy.samplers.KSampler(
            high, settings.steps, high.load_device, settings.sampler, settings.scheduler, model_options={}
        )
        at = int((sampler.sigmas[:-1] >= self.switch).sum())
        if at > 0:
            latent = self._sampled(high, given, noise, go_on, last_step=at, force_full_denoise=False)
            given, noise = given._replace(latent=latent), torch.zeros_like(latent)
        if at < settings.steps:
            return self._sampled(low, given, noise, go_on, start_step=at, force_full_denoise=True)
        return given.latent

    @property
    def _latent_frames(self) -> int:
        return 1 + (self.request.settings.frames - 1) // self._frames_at_once if self.trainable.has_frames else 1

    @property
    def _frames_at_once(self) -> int:
        return self.request.vae.temporal_compression_decode() or 1

    def _empty(self) -> Any:
        """What ComfyUI's sampler begins with; nested where the network takes sound beside the picture."""
        height, width = (side // self.trainable.stride for side in self.size)
        sound = self.trainable.family.sound
        shape = (1, self.trainable.channels, height, width)
        empty = torch.zeros(shape, device=comfy.model_management.intermediate_device())
        clip = empty[:, :, None].repeat(1, 1, self._latent_frames, 1, 1)
        if sound:
            return comfy.nested_tensor.NestedTensor([clip, empty.new_zeros(1, *sound)])
        latent = clip if self._latent_frames > 1 else empty
        return comfy.sample.fix_empty_latent_channels(self.trainable.drawing, latent)


class Trained(Protocol):
    """The models of a run in its session: one, or two of which the first is for high noise."""

    @property
    def trainables(self) -> Sequence[TrainableModel]:
        """The models."""
        ...

    @property
    def adapters(self) -> Sequence[AdapterSet]:
        """Of each."""
        ...

    @property
    def switch(self) -> float:
        """The noise level at which the second goes on."""
        ...

    @property
    def texts(self) -> TrainedTexts | None:
        """Text encoders that are trained with it."""
        ...

    def suspended(self, *, activation_bytes: int) -> contextlib.AbstractContextManager:
        """The context in which ComfyUI can draw with them; room for the training beside the weights afterwards."""
        ...


class PictureSampler:
    """Draws a request's pictures with a model in the middle of its training session."""

    def __init__(
        self,
        models: Trained,
        request: SampleRequest,
        *,
        hooks: Hooks,
        plan: MemoryPlan,
        beginning: Beginning | None = None,
        likeness: SampleLikeness | None = None,
    ) -> None:
        """Draw with `models`; `plan` tells what room the training needs beside the weights.

        They begin with what `beginning` gives, and are measured by `likeness`.
        """
        self.models, self.trainable, self.request = models, models.trainables[0], request
        self.hooks, self.plan = hooks, plan
        self._beginning, self._likeness = beginning, likeness
        self._figures: dict[str, float] = {}
        self.folder: SampleFolder | None = None

    @property
    def every(self) -> int:
        """Steps between pictures."""
        return self.request.settings.every

    def start(self, folder: Path, *, step: int) -> None:
        """Draw those of the base model's pictures that the run's folder lacks."""
        self.folder = SampleFolder(folder)
        self.folder.begin(self.request.settings, step=step)
        # Before the first step gradients and the optimizer's state are still to come.
        room = self.plan.activations + (0 if step else self.plan.trained)
        self._draw(0, self._missing(0), contextlib.nullcontext, self.request, room=room)

    def draw(self, step: int) -> dict[str, float]:
        """Draw every prompt that has no picture of this step yet, with the adapter as it is; what was measured."""
        missing, texts, request = self._missing(step), self.models.texts, self.request
        self._figures = {}
        if missing and texts is not None:
            request = request.read_by(texts.prompt)
        self._draw(step, missing, self._injected, request, room=self.plan.activations)
        return self._figures

    def has(self, step: int) -> bool:
        """Whether every prompt has a picture of this step."""
        return not self._missing(step)

    def _missing(self, step: int) -> list[int]:
        there = self.folder.pictures().get(step, []) if self.folder else []
        return [i for i in range(len(self.request.positive)) if i not in there]

    def _draw(
        self,
        step: int,
        numbers: list[int],
        wearing: Callable[[], contextlib.AbstractContextManager],
        request: SampleRequest,
        *,
        room: int,
    ) -> None:
        if not numbers or self.folder is None:
            return
        painter = Painter(self.trainable, request, switch=self.models.switch, beginning=self._beginning)
        # Those at the end of a stopped training are drawn after that wish.
        go_on = self.hooks.check_cancel if self.hooks.should_stop() else self._refuse_to_wait
        try:
            with contextlib.ExitStack() as stack:
                stack.enter_context(own_global_random(self.trainable.device))
                stack.enter_context(self.models.suspended(activation_bytes=room))
                stack.enter_context(silent_progress())
                stack.callback(self._make_room)
                # While the model rests, and what drew has given its adapters back.
                stack.callback(self._measure, step)
                stack.enter_context(wearing())
                # Also where one fails: no more are coming.
                stack.callback(self.hooks.on_drawing, step, done=len(numbers), count=len(numbers))
                for done, number in enumerate(numbers):
                    self.hooks.on_drawing(step, done=done, count=len(numbers))
                    drawing, low = ([one.drawing for one in self.models.trainables] + [None])[:2]
                    pixels = painter.pixels(drawing, number, go_on=go_on, low=low)
                    self.folder.write(step, number, png_of(pixels, rate=painter.rate))
                    self.folder.thin()
        except _GivenUpError:
            self.hooks.on_message(f"Stopping: not all sample pictures of step {step} were drawn.")

    def _measure(self, step: int) -> None:
        if self._likeness is not None and self.folder is not None and self.has(step):
            self._figures = self._likeness.measure(self.folder, step)

    def _refuse_to_wait(self) -> None:
        self.hooks.check_cancel()
        if self.hooks.should_stop():
            raise _GivenUpError

    def _make_room(self) -> None:
        # Where everything fits beside each other, moving the VAE to and fro would only cost time.
        if not is_main_memory(self.trainable.device):
            unload(self.request.vae.patcher)

    @contextlib.contextmanager
    def _injected(self) -> Iterator[None]:
        """ComfyUI puts the adapters in and out where it loads and samples; afterwards it knows nothing of them."""
        with contextlib.ExitStack() as stack:
            for trainable, adapters in zip(self.models.trainables, self.models.adapters, strict=True):
                stack.enter_context(_injected(trainable.drawing, adapters))
            stack.enter_context(adapted_layers_asked())
            yield


@contextlib.contextmanager
def _injected(patcher: Any, adapters: AdapterSet) -> Iterator[None]:
    injection = PatcherInjection(inject=lambda _: adapters.inject(), eject=lambda _: adapters.eject())
    patcher.set_injections(_KEY, [injection])
    try:
        yield
    finally:
        patcher.eject_model()
        patcher.remove_injections(_KEY)
        adapters.eject()


def png_of(pixels: np.ndarray, *, rate: float = USUAL_RATE) -> bytes:
    """A PNG file of a picture, uint8 (H, W, 3), or an animated one of a clip, (F, H, W, 3), at frames per second."""
    file = io.BytesIO()
    first, *others = map(Image.fromarray, pixels if pixels.ndim == 4 else pixels[None])
    moving = {"save_all": True, "append_images": others, "duration": 1000 / rate, "loop": 0} if others else {}
    first.save(file, "PNG", **moving)
    return file.getvalue()
