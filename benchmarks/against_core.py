"""Our raw output and our schedule against what ComfyUI samples with: its own `apply_model`, on small models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from unittest import mock

import comfy.model_management
import comfy.sampler_helpers
import comfy.samplers
import torch
from comfy_extras.nodes_edit_model import ReferenceLatent
from comfy_extras.nodes_flux import FluxKontextMultiReferenceLatentMethod
from torch import Tensor

from harness.core_latents import answer_of, from_core, to_core
from harness.models import small_model, small_side, small_text
from masklora.dataset.geometry import Geometry
from masklora.host.model.conditioning import size_conditioning
from masklora.host.model.sampling_schedule import core_sigma
from masklora.host.model.trainable import TrainableModel
from masklora.host.references.conditions import with_references
from masklora.loss.noise import Schedule, add_noise, snr_of, target

SQUARE = Geometry(source=(64, 64), resized=(64, 64), crop=(0, 0, 64, 64))
LEVELS = (0.05, 0.3, 0.5, 0.75, 0.95)
# Core samples Flux with 3.5 where nothing is said; a person's own guidance reaches the network in both.
_GUIDANCE = 2.5


class AtLevel:
    """One noisy sample of a small model at noise level u, and what both programs make of it."""

    def __init__(self, name: str, level: float, *, references: Sequence[tuple[int, int]] = ()) -> None:
        """With a reference picture of each of these latent sizes, (rows, columns)."""
        self.patcher = small_model(name)
        self.trainable = TrainableModel(self.patcher)
        self.trainable.guidance = _GUIDANCE
        self.schedule = self.trainable.schedule
        self.text = {**small_text(name, tokens=77), "guidance": _GUIDANCE}
        self.u = torch.tensor([level])
        generator = torch.Generator().manual_seed(1)
        shape = (1, self.trainable.channels, *[small_side(self.trainable.family)] * 2)
        self.latent, self.noise = (torch.randn(shape, generator=generator) for _ in range(2))
        self.noisy = add_noise(self.latent, self.noise, self.u, schedule=self.schedule)
        self.references = [torch.randn(1, shape[1], *sides, generator=generator) for sides in references]

    @torch.no_grad()
    def prediction_apart(self) -> float:
        """How far the clean latent of our raw output lies from core's, relative."""
        conditioning = self.trainable.collate([self.text], [SQUARE], self.noisy.shape[1:])
        if self.references:
            conditioning = with_references(self.trainable, conditioning, self.references)
        raw = self.trainable.denoise(self.noisy, self.u, conditioning)
        ours, theirs = _clean_by_schedule(raw, self.noisy, self.u, self.schedule), self._clean_by_core()
        return float((ours - theirs).norm() / theirs.norm())

    @torch.no_grad()
    def target_apart(self) -> float:
        """How far from the clean latent core ends where the network answers with our target, relative.

        Where the noise is many times stronger, to a tenth of it: core takes it away in float32.
        """
        goal = target(self.latent, self.noise, self.u, schedule=self.schedule)
        network = self.patcher.model.diffusion_model
        with mock.patch.object(network, "forward", lambda *args, **kwargs: answer_of(goal.clone(), self.trainable)):
            found = self._clean_by_core()
        sampling = self.patcher.get_model_object("model_sampling")
        strength = float(core_sigma(self.u, sampling, self.schedule)) / 10
        scale = max(float(self.latent.norm()), strength * float(self.noise.norm()))
        return float((found - self.latent).norm()) / scale

    def _clean_by_core(self) -> Tensor:
        """The clean latent that ComfyUI's sampler gets at the sigma of u, with its own conditioning of the text."""
        sampling = self.patcher.get_model_object("model_sampling")
        sigma = core_sigma(self.u, sampling, self.schedule)
        x, shapes = to_core(sampling.noise_scaling(sigma, self.noise.clone(), self.latent), self.trainable)
        extras: dict[str, Any] = {k: v for k, v in self.text.items() if k != "cond"} | size_conditioning(SQUARE)
        positive = self._with_references([[self.text["cond"], extras]])
        conds: Any = {"positive": comfy.sampler_helpers.convert_cond(positive)}
        comfy.model_management.load_models_gpu([self.patcher])
        self.patcher.pre_run()
        model, options = self.patcher.model, self.patcher.model_options
        conds = comfy.samplers.process_conds(model, x, conds, x.device, x, None, 0, latent_shapes=shapes)
        out = comfy.samplers.calc_cond_batch(model, [conds["positive"]], x, sigma, options)[0]
        return from_core(out, shapes)

    def _with_references(self, conditioning: Any) -> Any:
        """By ComfyUI's own nodes: one after the other, and the method that its template of such models names."""
        for latent in self.references:
            shown = {"samples": latent[:, :, None] if self.trainable.has_frames else latent}
            conditioning = ReferenceLatent.execute(conditioning, shown)[0]
        method = self.references and self.trainable.family.references.method
        return FluxKontextMultiReferenceLatentMethod.execute(conditioning, method)[0] if method else conditioning


def _clean_by_schedule(raw: Tensor, noisy: Tensor, u: Tensor, schedule: Schedule) -> Tensor:
    """The clean latent that a raw output stands for, from the definition of each prediction."""
    u = u.view(-1, 1, 1, 1)
    if schedule.prediction == "flow":
        return noisy - u * raw
    snr = snr_of(u, schedule=schedule)
    signal, noise = (snr / (1 + snr)).sqrt(), (1 / (1 + snr)).sqrt()
    return (noisy - noise * raw) / signal if schedule.prediction == "epsilon" else signal * noisy - noise * raw
