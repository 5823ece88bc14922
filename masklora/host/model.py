"""ComfyUI's MODEL as something that can be trained, in sessions that leave no trace."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import comfy.model_management
import comfy.patcher_extension
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ..adapters import AdapterSet, select_targets
from ..archs import find_family
from ..checkpoint import checkpoint_blocks, checkpointed
from ..config import CHECKPOINTING, AdapterSettings, check_choice
from ..errors import ConfigError, FamilyError
from ..findings import counted
from ..flow import Schedule, rescale_zero_terminal_snr
from ..objective_view import false_colours
from ..saved_tensors import saved_tensor_scope
from ..tokens import TokenModel, TokenPlan
from .encode import TEXT_MASK
from .patches import autograd_parameters, hollow_tails, recast_layers, training_kernels
from .token_attention import pinned_attention
from .token_routing import PlannedNetwork, token_blocks

if TYPE_CHECKING:
    from ..data.geometry import Geometry

# By ComfyUI's class of the sampling parameterisation; the nearest ancestor decides, and None cannot be trained.
_PREDICTIONS = {"CONST": "flow", "V_PREDICTION": "v", "EPS": "epsilon"}
_PREDICTIONS |= dict.fromkeys(("EDM", "X0", "LCM", "IMG_TO_IMG", "IMG_TO_IMG_FLOW"))
_KEPT_CONDITIONINGS = 64
NO_TEXT_MASK = (
    "text_padding_mask: the cached captions do not tell which of their tokens are padding. Connect a CLIP for FLUX.1 "
    "or Stable Diffusion 3 to Cache Dataset, or switch text_padding_mask off."
)


class TrainableModel:
    """A private clone of a MODEL, with what training needs to know about it.

    Nothing of the user's MODEL changes: the clone shares its weights, and everything that `session` does to
    the shared network is undone when the session ends.

    Raises:
        FamilyError: If the model cannot be trained; the message lists what can.
    """

    def __init__(self, patcher: ModelPatcher, *, guidance: float = 1.0, dtype: torch.dtype | None = None) -> None:
        self.patcher = patcher.clone()
        self.model = self.patcher.model
        self.network = self.model.diffusion_model
        self.family = find_family(type(self.model.model_config).__name__)
        self.device = torch.device(self.patcher.load_device)
        self.dtype = dtype or _compute_dtype(self.model, self.device)
        self.guidance = guidance
        self.schedule = self._make_schedule()
        self._adapters: AdapterSet | None = None
        self._whole = False
        self._checkpointing = ""
        self._opened = contextlib.ExitStack()
        self._kept: OrderedDict[Any, tuple[dict, dict]] = OrderedDict()

    def _make_schedule(self) -> Schedule:
        sampling = self.patcher.get_model_object("model_sampling")
        ancestors = [c.__name__ for c in type(sampling).__mro__]
        prediction = next((_PREDICTIONS[name] for name in ancestors if name in _PREDICTIONS), None)
        if prediction not in self.family.predictions:
            raise FamilyError(
                f"model: {self.family.title} with {ancestors[1]} sampling and {self.model.model_type.name} prediction "
                f"cannot be trained. Use a model that predicts {' or '.join(self.family.predictions)}."
            )
        with torch.inference_mode(False):
            if prediction == "flow":
                shift = torch.tensor(float(getattr(sampling, "shift", 1.0)))
                return Schedule("flow", shift=float(shift.exp() if "ModelSamplingFlux" in ancestors else shift))
            sigmas = sampling.sigmas.detach().to("cpu", torch.float32, copy=True)
            return Schedule(prediction, alphas_cumprod=1.0 / (1.0 + sigmas.square()))

    def incoming_notes(self) -> list[str]:
        """Lines on what the MODEL already carries: it is trained on top of that, or without it."""
        notes = []
        if self.patcher.patches:
            weights = counted(len(self.patcher.patches), "[weight|weights]")
            notes.append(f"The MODEL carries patches (LoRAs) on {weights}: trained on top.")
        ignored = [k for k in self.patcher.model_options if k.endswith(("_function", "_wrapper"))]
        if ignored or self.patcher.wrappers.get(comfy.patcher_extension.WrappersMP.APPLY_MODEL):
            notes.append("The MODEL carries sampling patches that act outside the network: trained without them.")
        return notes

    def size_fault(self, width: int, height: int) -> str | None:
        """Why pictures of this size cannot be taken, None where they can: some models know a square of places only."""
        places = getattr(self.network, "pos_embed_max_size", None)
        if not isinstance(places, int):
            return None
        cell = self.family.latent_stride * self.family.patch
        if max(-(-width // cell), -(-height // cell)) <= places:
            return None
        known = places * cell
        return f"{width}×{height} is too large for this {self.family.title} model, which knows {known} px a side"

    def use_zero_terminal_snr(self) -> None:
        """Train on the schedule whose last step is pure noise (v models; has no meaning for flow models).

        Raises:
            ConfigError: The model does not predict v: at pure noise ε tells nothing.
        """
        table = self.schedule.alphas_cumprod
        if table is None or self.schedule.prediction != "v":
            raise ConfigError(
                f"zero_terminal_snr: it needs a model that predicts v, this one predicts {self.schedule.prediction}. "
                "Switch it off."
            )
        self.schedule = dataclasses.replace(self.schedule, alphas_cumprod=rescale_zero_terminal_snr(table))

    @functools.cached_property
    def token_blocks(self) -> list[torch.nn.Module]:
        """The blocks that image tokens pass, in that order; none on U-Nets."""
        return [] if self.family.tokens is None else token_blocks(self.network, self.family.tokens)

    def token_model(self) -> TokenModel:
        """What planning with the model's tokens must know of it."""
        return TokenModel(self.family.patch, len(self.token_blocks), f"this {self.family.title} model")

    def load(self, *, activation_bytes: int) -> None:
        """Bring the weights to the compute device, and every other model (VAE, text encoder) off it."""
        if self.device.type != "cpu":
            comfy.model_management.unload_all_models()
        comfy.model_management.load_models_gpu([self.patcher], memory_required=activation_bytes)

    def make_adapters(self, settings: AdapterSettings, *, seed: int) -> AdapterSet:
        """Adapters for this network, ejected; see `AdapterSet`."""
        targets = select_targets(self.network, settings, pattern=self.family.targets[settings.targets])
        with torch.inference_mode(False), autograd_parameters(self.network):
            return AdapterSet(self.network, settings, targets=targets, seed=seed, device=self.device)

    @contextlib.contextmanager
    def session(self, adapters: AdapterSet, *, checkpointing: str = "per block") -> Iterator[None]:
        """While it lasts the network is differentiable and carries `adapters`; afterwards it is as before."""
        check_choice("checkpointing", checkpointing, CHECKPOINTING)
        with torch.inference_mode(False), torch.enable_grad():
            self._open(adapters, checkpointing)
            try:
                yield
            finally:
                self._opened.close()

    @contextlib.contextmanager
    def suspended(self, *, activation_bytes: int) -> Iterator[None]:
        """Within a session: the network is ComfyUI's own again while the context lasts, in inference mode.

        The adapters are out and keep their weights. Whatever pushed the model out of memory meanwhile, it is loaded
        again when the session goes on.

        Args:
            activation_bytes: Room that the training needs beside the weights.
        """
        adapters, checkpointing = self._adapters, self._checkpointing
        assert adapters is not None
        self._opened.close()
        try:
            with torch.inference_mode():
                try:
                    yield
                finally:
                    comfy.model_management.load_models_gpu([self.patcher], memory_required=activation_bytes)
        finally:
            self._open(adapters, checkpointing)

    def _open(self, adapters: AdapterSet, checkpointing: str) -> None:
        with contextlib.ExitStack() as stack:
            stack.enter_context(training_kernels())
            stack.enter_context(autograd_parameters(self.network))
            stack.enter_context(recast_layers(self.network, dtype=self.dtype, device=self.device))
            self._adapters, self._checkpointing = adapters, checkpointing
            self._whole = checkpointing == "whole model"
            stack.callback(self._forget)
            stack.enter_context(adapters.injected())
            if checkpointing == "per block":
                blocks = [m for m in self.network.modules() if type(m).__name__ in self.family.blocks]
                repeating = functools.partial(hollow_tails, family=self.family)
                stack.enter_context(checkpoint_blocks(blocks, mutates=self.family.mutates, repeating=repeating))
            self._scope_mutates = self.family.mutates and checkpointing == "off"
            self._opened = stack.pop_all()

    def _forget(self) -> None:
        self._adapters, self._whole = None, False
        self._kept.clear()

    def autograd_scope(self) -> contextlib.AbstractContextManager:
        """The context in which one forward and its backward must run."""
        return saved_tensor_scope(mutates=self._scope_mutates)

    def latent_in(self, latent: Tensor) -> Tensor:
        """A VAE latent (B, C, …) scaled and shifted as the network sees it."""
        return self.model.process_latent_in(latent)

    def preview(self, latent: Tensor) -> Tensor:
        """About the colours of a latent (C, [F,] h, w) of the network's space: (h, w, 3) in 0..1, as previews do it."""
        latent_format = self.model.latent_format
        factors = latent_format.latent_rgb_factors
        if factors is None:
            return false_colours(latent)
        if latent_format.latent_rgb_factors_reshape is not None:
            latent = latent_format.latent_rgb_factors_reshape(latent[None])[0]
        flat = latent if latent.ndim == 3 else latent[:, 0]
        rgb = flat.movedim(0, -1).float() @ torch.tensor(factors)
        bias = latent_format.latent_rgb_factors_bias
        return ((rgb if bias is None else rgb + torch.tensor(bias)) * 0.5 + 0.5).clamp(0, 1)

    def collate(self, texts: Sequence[dict[str, Any]], geometries: Sequence[Geometry]) -> list[dict[str, Any]]:
        """Conditioning of a batch, one entry a sample, processed once per text and geometry.

        Args:
            texts: Flat conditioning dicts, `cond` (1, T, D) and whatever else the text encoder gave. The same
                object is processed once.
            geometries: Of each sample; families with size conditioning read them.
        """
        return [self._process(t, g) for t, g in zip(texts, geometries, strict=True)]

    def _process(self, text: dict[str, Any], geometry: Geometry) -> dict[str, Any]:
        sizes = _size_conditioning(geometry) if self.family.size_conditioning else {}
        slot = (id(text), tuple(sizes.values()))
        if slot in self._kept:
            self._kept.move_to_end(slot)
            return self._kept[slot][1]
        extras = {k: v for k, v in text.items() if k not in ("cond", TEXT_MASK)}
        probe = torch.zeros(1, self.family.latent_channels, 8, 8, device=self.device)
        made = self.model.extra_conds(
            **{**extras, **sizes, "guidance": self.guidance},
            cross_attn=text["cond"],
            noise=probe,
            device=self.device,
            prompt_type="positive",
        )
        out = {k: self._to_device(c.process_cond(batch_size=1, area=None).cond) for k, c in made.items()}
        if self.family.tokens is not None and TEXT_MASK in text:
            out[TEXT_MASK] = self._to_device(text[TEXT_MASK])
        # The text is kept too, so that its id cannot pass to another one.
        self._kept[slot] = (text, out)
        if len(self._kept) > _KEPT_CONDITIONINGS:
            self._kept.popitem(last=False)
        return out

    def _to_device(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        dtype = self.dtype if value.is_floating_point() else value.dtype
        return value.to(self.device, dtype, copy=True)

    def denoise(
        self, noisy: Tensor, u: Tensor, conditioning: list[dict[str, Any]], *, tokens: TokenPlan | None = None
    ) -> Tensor:
        """The network's own prediction (ε, v or velocity), (B, C, H, W), in float32 or wider.

        Args:
            noisy: As `flow.add_noise` makes it, (B, C, H, W).
            u: Noise level of each sample (B,), in [0, 1].
            conditioning: From `collate`, one entry a sample.
            tokens: Which tokens skip blocks and which are seen; None for all pass and are seen.
        """
        groups = _groups(conditioning, repeats=self.family.text_repeats)
        if len(groups) == 1:
            return self._run(noisy, u, conditioning, tokens)
        parts = [
            self._run(noisy[rows], u[rows], [conditioning[i] for i in rows], tokens and tokens.rows(rows))
            for rows in groups
        ]
        order = [i for rows in groups for i in rows]
        back = torch.tensor(order, device=noisy.device).argsort()
        return torch.cat(parts)[back]

    def _run(self, noisy: Tensor, u: Tensor, conditioning: list[dict[str, Any]], tokens: TokenPlan | None) -> Tensor:
        t = self._timestep(u)
        conds = {k: _join([c[k] for c in conditioning]) for k in conditioning[0]}
        context = conds.pop("c_crossattn", None)
        network = self._following(tokens, conds.pop(TEXT_MASK, None))
        t = self.model.process_timestep(t, x=noisy, **conds)
        options = self._transformer_options()
        if self._whole and self._adapters is not None and torch.is_grad_enabled():
            out = checkpointed(
                network,
                (noisy.to(self.dtype), t),
                {**conds, "context": context, "transformer_options": options},
                parameters=list(self._adapters.parameters().values()),
                mutates=self.family.mutates,
            )
        else:
            out = network(noisy.to(self.dtype), t, context=context, transformer_options=options, **conds)
        return out if out.dtype == torch.float64 else out.float()

    def _following(self, plan: TokenPlan | None, text_mask: Tensor | None) -> Any:
        """The network, or one whose tokens follow `plan`."""
        if plan is None:
            return self.network
        if plan.text_padding and text_mask is None:
            raise ConfigError(NO_TEXT_MASK)
        assert self.family.tokens is not None
        text = text_mask if plan.text_padding else None
        return PlannedNetwork(self.network, self.token_blocks, layout=self.family.tokens, plan=plan, text=text)

    def _timestep(self, u: Tensor) -> Tensor:
        """What the network is told of noise level u; a table's position, so that rescaling it changes nothing."""
        table = self.schedule.alphas_cumprod
        if table is not None:
            return (u * len(table)).long().clamp(max=len(table) - 1).float()
        return self.patcher.get_model_object("model_sampling").timestep(u).float()

    def _transformer_options(self) -> dict[str, Any]:
        options = comfy.patcher_extension.copy_nested_dicts(self.patcher.model_options["transformer_options"])
        options["optimized_attention_override"] = pinned_attention
        options["wrappers"] = comfy.patcher_extension.copy_nested_dicts(self.patcher.wrappers)
        options["callbacks"] = comfy.patcher_extension.copy_nested_dicts(self.patcher.callbacks)
        return options


def _compute_dtype(model: Any, device: torch.device) -> torch.dtype:
    dtype = model.get_dtype_inference()
    if dtype == torch.float16 and comfy.model_management.should_use_bf16(device):
        return torch.bfloat16
    return dtype


def _size_conditioning(geometry: Geometry) -> dict[str, int]:
    (width, height), (x, y, w, h) = geometry.source, geometry.crop
    if geometry.flip:
        # The crop of the mirrored picture, which is what the network is shown.
        x = geometry.resized[0] - x - w
    # A turned crop may begin beyond the picture, which no network was shown.
    x, y = max(0, x), max(0, y)
    return {
        "width": width,
        "height": height,
        "crop_w": x,
        "crop_h": y,
        "target_width": w,
        "target_height": h,
    }


def _groups(conditioning: list[dict[str, Any]], *, repeats: bool) -> list[list[int]]:
    """Rows that can run together: equal shapes, except a text length that may be repeated."""
    by_shape: dict[Any, list[int]] = {}
    for i, c in enumerate(conditioning):
        shapes = tuple(
            (k, v.shape if not (repeats and k == "c_crossattn") else v.shape[2:]) if isinstance(v, Tensor) else (k, v)
            for k, v in c.items()
        )
        by_shape.setdefault(shapes, []).append(i)
    return list(by_shape.values())


def _join(values: list[Any]) -> Any:
    if not isinstance(values[0], Tensor):
        return values[0]
    lengths = {v.shape[1] for v in values if v.ndim == 3}
    if len(lengths) > 1:
        common = math.lcm(*lengths)
        values = [v.repeat(1, common // v.shape[1], 1) for v in values]
    return torch.cat(values)
