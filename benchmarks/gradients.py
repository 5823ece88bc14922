"""The gradient of our training loss on one small model: ours, plain autograd's, and along a line by differences."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import comfy_extras.nodes_model_advanced
import torch
from torch import Tensor

from harness.core_latents import to_core
from harness.double import in_double, no_float32
from harness.models import small_model, small_side, small_text, with_padding
from harness.small import small_models
from harness.small_unknown import UNKNOWN
from masklora.adapters import AdapterSet
from masklora.autograd.compiled import Compiler
from masklora.dataset.geometry import Geometry
from masklora.host.model.conditioning import joined
from masklora.host.model.patches import training_kernels
from masklora.host.model.sampling_schedule import core_sigma
from masklora.host.model.trainable import TrainableModel
from masklora.host.references.conditions import with_references
from masklora.loss.losses import masked_objective, preservation_term
from masklora.loss.noise import add_noise, target
from masklora.loss.prior import Prior, prior_factors, prior_weights
from masklora.loss.tokens import Passage, TokenPlan, token_cells, visible_tokens
from masklora.settings import AdapterSettings, LossSettings

MODES = ("off", "per block", "whole model")
# Eighth-order central differences: with steps of 1e-2 of a unit direction the truncation error is far below 1e-12.
_STENCIL = ((1, 4 / 5), (2, -1 / 5), (3, 4 / 105), (4, -1 / 280))


class Problem:
    """One batch of two unlike samples with unlike masks, on a small model of `family`, or of none.

    With `prior` the masks are soft and the loss holds their outside to the base model; with `predicts_v` ComfyUI's
    sampling patch makes an ε model one of v. With `preservation` the first sample's caption without its trigger word
    is held to the base model too. With `frames` the samples are clips whose latents have so many, with `references`
    they have a reference picture of each of these latent sizes. `adapter` are settings of the adapters. After
    `plan_tokens` some tokens skip blocks, and some are not looked at.
    """

    def __init__(
        self,
        family: str,
        *,
        dtype: torch.dtype,
        prior: bool = False,
        predicts_v: bool = False,
        preservation: bool = False,
        frames: int = 0,
        references: Sequence[tuple[int, int]] = (),
        **adapter: Any,
    ) -> None:
        patcher = small_model(family)
        if predicts_v:
            node = comfy_extras.nodes_model_advanced.ModelSamplingDiscrete()
            (patcher,) = node.patch(patcher, "v_prediction", zsnr=False)
        self.settings = LossSettings(prior_weight=0.7 if prior else 0.0, outside_share=0.1 if prior else 0.0)
        self.triggered = torch.tensor([0.6, 0.0]) if preservation else None
        self.trainable = TrainableModel(patcher, dtype=dtype, guidance=1.0, unknown=family in UNKNOWN)
        self.network = self.trainable.network
        if dtype == torch.float64:
            in_double(self.network)
        widest = adapter.get("targets") == "all"
        settings = AdapterSettings(rank=4, alpha=4.0, convolutions=widest, **adapter)
        self.adapters: AdapterSet = self.trainable.make_adapters(settings, seed=0)
        generator = torch.Generator().manual_seed(1)
        for p in self.adapters.parameters().values():
            p.data = p.data.to(dtype)
            # B, and whatever else makes the change zero at first.
            if not p.any():
                p.data.normal_(0.0, 0.02, generator=generator)
        channels = self.trainable.channels
        grid = [*([frames] if frames else []), *[small_side(self.trainable.family)] * 2]
        self.latent = torch.randn(2, channels, *grid, generator=generator, dtype=dtype)
        self.noise = torch.randn(2, channels, *grid, generator=generator, dtype=dtype)
        self.references = [torch.randn(2, channels, *sides, generator=generator, dtype=dtype) for sides in references]
        # u and u/(1−u) without rounding: ComfyUI's sampler may count in either.
        self.u = torch.tensor([0.5, 0.75])
        drawn = torch.rand(2, 1, *grid, generator=generator)
        self.w = (1.6 * drawn - 0.6).clamp(min=0.0).to(dtype) if prior else (drawn > 0.6).to(dtype)
        self.texts = [small_text(family, tokens=77, seed=s) for s in (0, 1)]
        self.plain_texts = [small_text(family, tokens=77, seed=2), self.texts[1]]
        self.geometries = [Geometry(source=(64, 64), resized=(64, 64), crop=(0, 0, 64, 64))] * 2
        self.plan: TokenPlan | None = None
        self._plain = False

    def plan_tokens(self) -> None:
        """Six of sixteen tokens pass two of the blocks; half of the weights, and of the texts' tokens, are hidden."""
        blocks = len(self.trainable.token_blocks)
        seen = torch.rand(2, 16, generator=torch.Generator().manual_seed(6)) > 0.5
        self.w = self.w * token_cells(seen, patch=2, shape=self.w.shape)
        kept = torch.tensor([[0, 3, 5, 6, 11, 15], [1, 2, 3, 8, 12, 13]])
        # In Flux one double and one single block, in SD 3 both joint ones.
        passage = Passage(blocks // 2 - 1, blocks // 2, kept)
        self.plan = TokenPlan(16, (passage,), visible_tokens(self.w, patch=2), text_padding=True)
        self.texts = [with_padding(text, real=30 + 9 * i) for i, text in enumerate(self.texts)]

    def _precisely(self) -> contextlib.AbstractContextManager:
        return no_float32() if self.latent.dtype == torch.float64 else contextlib.nullcontext()

    def predict(self, texts: list[dict[str, Any]] | None = None) -> Tensor:
        """What the model predicts for the noisy latents; within a session the adapters have a part in it."""
        t = self.trainable
        noisy = add_noise(self.latent, self.noise, self.u.to(self.latent.dtype), schedule=t.schedule)
        conditioning = t.collate(texts or self.texts, self.geometries, self.latent.shape[1:])
        if self.references:
            conditioning = with_references(t, conditioning, self.references)
        if self._plain:
            together = [range(2)] if not t.family.alone else [range(1), range(1, 2)]
            return torch.cat([self._ask_network(noisy, conditioning, rows) for rows in together])
        return t.denoise(noisy, self.u, conditioning, tokens=self.plan)

    def _ask_network(self, noisy: Tensor, conditioning: list[dict[str, Any]], rows: range) -> Tensor:
        """What ComfyUI's network answers where its sampler stands at these noise levels: called by ComfyUI alone."""
        t, model = self.trainable, self.trainable.model
        noisy, u = noisy[rows.start : rows.stop], self.u[rows.start : rows.stop]
        conds = joined([conditioning[i] for i in rows])
        sigma = core_sigma(u, model.model_sampling, t.schedule)
        # ComfyUI scales what its sampler has to what its network is shown.
        x, _ = to_core(noisy / model.model_sampling.calculate_input(sigma, torch.ones_like(noisy)), t)
        raw: list[Any] = []
        hook = self.network.register_forward_hook(lambda module, given, out: raw.append(out))
        before, model.manual_cast_dtype = model.manual_cast_dtype, t.dtype
        try:
            model._apply_model(x, sigma, transformer_options={}, **conds)
        finally:
            hook.remove()
            model.manual_cast_dtype = before
        out = raw[0][0] if t.family.sound else raw[0]
        return out[:, :, 0] if t.has_frames and noisy.ndim == 4 else out

    def _base(self, texts: list[dict[str, Any]]) -> Tensor:
        with torch.no_grad(), self.adapters.disabled():
            return self.predict(texts)

    def terms(self) -> list[Callable[[], Tensor]]:
        """The parts of the loss through our own path, each to be made in a scope of its own; base models asked once."""
        goal = target(self.latent, self.noise, self.u.to(self.latent.dtype), schedule=self.trainable.schedule)
        prior = None
        if self.settings.prior_weight > 0:
            factor = prior_factors(self.u, self.settings, progress=0.5)
            v = prior_weights(self.w, self.w, self.settings)
            if self.plan is not None:
                v = v * ~token_cells(self.plan.skipped(), patch=2, shape=v.shape)
            prior = Prior(self._base(self.texts), v, factor)
        parts = [lambda: masked_objective(self.predict(), goal, self.w, self.settings, prior=prior)[0]]
        if self.triggered is not None:
            base = self._base(self.plain_texts)
            parts.append(lambda: preservation_term(self.predict(self.plain_texts), base, self.triggered, self.settings))
        return parts

    def gradients(self, mode: str, compiler: Compiler | None = None) -> dict[str, Tensor]:
        """Gradient of every adapter tensor with checkpointing `mode`."""
        with self.trainable.session(self.adapters, checkpointing=mode, compiler=compiler):
            return self._gradients(self.trainable.autograd_scope)

    def plain_gradients(self) -> dict[str, Tensor]:
        """The same by torch alone: the adapters in ComfyUI's network, no session, nothing repeated; float64 only.

        torch keeps its own copies of what the network then writes over, and no kernel runs that has no backward.
        """
        with training_kernels(), self.adapters.injected():
            self._plain = True
            try:
                return self._gradients(torch.autograd.graph.allow_mutation_on_saved_tensors)
            finally:
                self._plain = False

    def _gradients(self, scope: Callable[[], contextlib.AbstractContextManager]) -> dict[str, Tensor]:
        parameters = self.adapters.parameters()
        found: list[tuple[Tensor, ...]] = []
        torch.manual_seed(5)
        with self._precisely():
            for term in self.terms():
                with scope():
                    # The last block of Qwen-Image makes text tokens that nothing reads.
                    found.append(torch.autograd.grad(term(), list(parameters.values()), materialize_grads=True))
        return {name: sum(parts) for name, parts in zip(parameters, zip(*found, strict=True), strict=True)}

    def direction(self, gradients: dict[str, Tensor]) -> dict[str, Tensor]:
        """A unit direction over all adapter tensors: half random, half along `gradients` so that it is steep."""
        generator = torch.Generator().manual_seed(9)
        random = {n: torch.randn(g.shape, generator=generator, dtype=g.dtype) for n, g in gradients.items()}
        raw = {n: random[n] / _norm(random) + g / _norm(gradients) for n, g in gradients.items()}
        return {n: r / _norm(raw) for n, r in raw.items()}

    def finite_difference(self, direction: dict[str, Tensor], *, step: float = 1e-2) -> float:
        """The derivative along `direction` from forward passes only."""
        parameters = self.adapters.parameters()
        start = {n: p.detach().clone() for n, p in parameters.items()}

        def at(offset: float) -> float:
            for n, p in parameters.items():
                p.data = start[n] + offset * direction[n]
            return sum(float(term()) for term in terms)

        with self.trainable.session(self.adapters, checkpointing="off"), torch.no_grad(), self._precisely():
            terms = self.terms()
            total = sum(c * (at(k * step) - at(-k * step)) for k, c in _STENCIL)
        for n, p in parameters.items():
            p.data = start[n]
        return total / step


def measure(
    family: str, *, dtype: torch.dtype, planned: bool = False, differences: bool = True, **options: Any
) -> dict[str, Any]:
    """Relative errors of each checkpointing mode: against each other, plain autograd and finite differences.

    The last two in float64 only. With `planned`, tokens are routed and hidden, which plain autograd's network does
    not know; without `differences` these are left out; `options` are those of `Problem`.
    """
    problem = Problem(family, dtype=dtype, **options)
    if planned:
        problem.plan_tokens()
    exact = dtype == torch.float64
    found = {mode: problem.gradients(mode) for mode in MODES}
    plain = problem.plain_gradients() if exact and not planned else None
    direction = problem.direction(found["off"])
    truth = problem.finite_difference(direction) if exact and differences and not small_models()[family].jumps else None
    targets = options.get("targets", "default")
    rows: dict[str, Any] = {"family": family, "targets": targets, "dtype": str(dtype).removeprefix("torch.")}
    for mode in MODES:
        rows[f"{mode}: against off"] = _apart(found[mode], found["off"])
        if plain is not None:
            rows[f"{mode}: against plain autograd"] = _apart(found[mode], plain)
        if truth is not None:
            rows[f"{mode}: against finite differences"] = abs(_dot(found[mode], direction) - truth) / abs(truth)
    return rows


def _apart(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    return _norm({n: found[n] - wanted[n] for n in wanted}) / _norm(wanted)


def _dot(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    return float(sum((a[n] * b[n]).sum() for n in a))


def _norm(a: dict[str, Tensor]) -> float:
    return _dot(a, a) ** 0.5
