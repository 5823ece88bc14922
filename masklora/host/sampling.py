"""Sample pictures during a training, by ComfyUI's own sampling, with the model that is being trained."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.nested_tensor
import comfy.sample
import comfy.samplers
import numpy as np
import torch
from comfy.patcher_extension import PatcherInjection
from PIL import Image

from ..adapters import AdapterSet
from ..errors import FamilyError
from ..runs.sample_pictures import SampleFolder, SampleSettings
from ..settings import check, check_choice
from ..training.job import Hooks
from ..training.seeds import own_global_random
from .finders.borrowed import silent_progress, unload
from .memory.plan import MemoryPlan
from .model.patches import adapted_layers_asked
from .model.trainable import TrainableModel
from .swap.copies import is_main_memory

_KEY = "masked_lora"


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
    """

    settings: SampleSettings
    positive: list[Any]
    negative: Any
    vae: Any


def encode_prompts(clip: Any, vae: Any, settings: SampleSettings) -> SampleRequest:
    """A request whose prompts are encoded now, so that no text encoder is needed during the training.

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

    def encode(text: str) -> Any:
        found = clip.encode_from_tokens_scheduled(clip.tokenize(text), show_pbar=False)
        told = {} if settings.guidance < 0 else {"guidance": settings.guidance}
        return [[cond, {**extra, **told}] for cond, extra in found]

    return SampleRequest(settings, [encode(one) for one in settings.prompts], encode(settings.negative), vae)


class Painter:
    """Draws single pictures of a request, with any model that takes latents as `trainable` does."""

    def __init__(self, trainable: TrainableModel, request: SampleRequest) -> None:
        """Pictures of `request`."""
        self.trainable, self.request = trainable, request

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the pictures in px: whole cells of the latent."""
        stride, settings = self.trainable.stride, self.request.settings
        return settings.height // stride * stride, settings.width // stride * stride

    def pixels(self, patcher: Any, number: int, *, go_on: Callable[[], None]) -> np.ndarray:
        """The picture of a prompt as ComfyUI draws it with the MODEL `patcher`.

        Args:
            patcher: wears whatever is to be shown.
            number: of the prompt, from 0.
            go_on: called before each step of the sampler; what it raises ends the drawing.

        Returns:
            uint8 (H, W, 3), see `size`.
        """
        settings, family = self.request.settings, self.trainable.family
        latent = self._empty()
        drawn = comfy.sample.sample(
            patcher,
            comfy.sample.prepare_noise(latent, settings.seed),
            settings.steps,
            settings.cfg,
            settings.sampler,
            settings.scheduler,
            self.request.positive[number],
            self.request.negative,
            latent,
            callback=lambda *_: go_on(),
            disable_pbar=True,
            seed=settings.seed,
        )
        # A picture that has a frame axis may need to be several frames to be decoded.
        pictures = drawn.unbind()[0] if drawn.is_nested else drawn
        frames = torch.cat([pictures] * family.decoded, dim=2) if family.decoded > 1 else pictures
        image = self.request.vae.decode(frames).reshape(-1, *self.size, 3)[0]
        return np.rint(image.float().clamp(0, 1).cpu().numpy() * 255).astype(np.uint8)

    def _empty(self) -> Any:
        """What ComfyUI's sampler begins with; nested where the network takes sound beside the picture."""
        height, width = (side // self.trainable.stride for side in self.size)
        sound = self.trainable.family.sound
        shape = (1, self.trainable.channels, height, width)
        empty = torch.zeros(shape, device=comfy.model_management.intermediate_device())
        if sound:
            return comfy.nested_tensor.NestedTensor([empty[:, :, None], empty.new_zeros(1, *sound)])
        return comfy.sample.fix_empty_latent_channels(self.trainable.drawing, empty)


class PictureSampler:
    """Draws a request's pictures with a model in the middle of its training session."""

    def __init__(
        self, trainable: TrainableModel, adapters: AdapterSet, request: SampleRequest, *, hooks: Hooks, plan: MemoryPlan
    ) -> None:
        """Draw with `trainable` and `adapters`; `plan` tells what room the training needs beside the weights."""
        self.trainable, self.adapters, self.request = trainable, adapters, request
        self.hooks, self.plan = hooks, plan
        self._painter = Painter(trainable, request)
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
        self._draw(0, self._missing(0), contextlib.nullcontext, room=room)

    def draw(self, step: int) -> None:
        """Draw every prompt that has no picture of this step yet, with the adapter as it is."""
        self._draw(step, self._missing(step), self._injected, room=self.plan.activations)

    def has(self, step: int) -> bool:
        """Whether every prompt has a picture of this step."""
        return not self._missing(step)

    def _missing(self, step: int) -> list[int]:
        there = self.folder.pictures().get(step, []) if self.folder else []
        return [i for i in range(len(self.request.positive)) if i not in there]

    def _draw(
        self, step: int, numbers: list[int], wearing: Callable[[], contextlib.AbstractContextManager], *, room: int
    ) -> None:
        if not numbers or self.folder is None:
            return
        # Those at the end of a stopped training are drawn after that wish.
        go_on = self.hooks.check_cancel if self.hooks.should_stop() else self._refuse_to_wait
        try:
            with contextlib.ExitStack() as stack:
                stack.enter_context(own_global_random(self.trainable.device))
                stack.enter_context(self.trainable.suspended(activation_bytes=room))
                stack.enter_context(silent_progress())
                stack.callback(self._make_room)
                stack.enter_context(wearing())
                # Also where one fails: no more are coming.
                stack.callback(self.hooks.on_drawing, step, done=len(numbers), count=len(numbers))
                for done, number in enumerate(numbers):
                    self.hooks.on_drawing(step, done=done, count=len(numbers))
                    pixels = self._painter.pixels(self.trainable.drawing, number, go_on=go_on)
                    self.folder.write(step, number, png_of(pixels))
                    self.folder.thin()
        except _GivenUpError:
            self.hooks.on_message(f"Stopping: not all sample pictures of step {step} were drawn.")

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
        patcher = self.trainable.drawing
        injection = PatcherInjection(inject=lambda _: self.adapters.inject(), eject=lambda _: self.adapters.eject())
        patcher.set_injections(_KEY, [injection])
        try:
            with adapted_layers_asked():
                yield
        finally:
            patcher.eject_model()
            patcher.remove_injections(_KEY)
            self.adapters.eject()


def png_of(pixels: np.ndarray) -> bytes:
    """A PNG file of a picture, uint8 (H, W, 3)."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
