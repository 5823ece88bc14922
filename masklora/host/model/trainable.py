"""ComfyUI's MODEL as something that can be trained, in sessions that leave no trace."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import comfy.model_management
import comfy.patcher_extension
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...adapters import AdapterSet, select_targets
from ...autograd.recompute import checkpoint_blocks, checkpointed
from ...autograd.saved_tensors import saved_tensor_scope
from ...errors import ConfigError, FamilyError
from ...findings import counted
from ...loss.noise import rescale_zero_terminal_snr
from ...loss.tokens import TokenModel, TokenPlan
from ...settings import CHECKPOINTING, AdapterSettings, check_choice
from ...viewing.training_sample import false_colours
from ..families import FAMILY_GUIDANCE, Blocks, find_family
from .assistant import with_assistant
from .blocks import find_blocks
from .conditioning import TEXT, joined, mapped, rows_alike, size_conditioning
from .core_call import CoreCall
from .encoders import TEXT_MASK
from .patches import autograd_parameters, hollow_tails, recast_layers, training_kernels
from .sampling_schedule import read_schedule, told_level
from .token_attention import pinned_attention
from .token_routing import PlannedNetwork

if TYPE_CHECKING:
    from ...dataset.geometry import Geometry

_KEPT_CONDITIONINGS = 64
NO_TEXT_MASK = (
    "text_padding_mask: the cached captions do not tell which of their tokens are padding; only those of a CLIP for "
    "FLUX.1 or Stable Diffusion 3 do. Connect one to Cache Dataset if the model is of these, else switch "
    "text_padding_mask off."
)


class TrainableModel:
    """A private clone of a MODEL, with what training needs to know about it.

    Nothing of the user's MODEL changes: the clone shares its weights, and everything that `session` does to
    the shared network is undone when the session ends.

    Args:
        patcher: ComfyUI's MODEL.
        guidance: What a guidance-distilled network is told; `FAMILY_GUIDANCE` for what its family usually is.
        dtype: What the network computes in; None for ComfyUI's choice.
        unknown: Whether a model of no known family is taken with what can be read from its modules.
        assistant: File of a LoRA that it is trained on top of; pictures are drawn without it.

    Raises:
        FamilyError: If the model cannot be trained; the message lists what can.
        AdapterError: The assistant is not for this model.
    """

    def __init__(
        self,
        patcher: ModelPatcher,
        *,
        guidance: float = FAMILY_GUIDANCE,
        dtype: torch.dtype | None = None,
        unknown: bool = False,
        assistant: Path | None = None,
    ) -> None:
        self.drawing = patcher.clone()
        self.patcher = with_assistant(self.drawing, assistant) if assistant else self.drawing
        self._assistant = assistant.name if assistant else ""
        self.model = self.patcher.model
        self.network = self.model.diffusion_model
        self.family = find_family(type(self.model.model_config).__name__, self.network, unknown=unknown)
        self._refuse_distilled()
        self.device = torch.device(self.patcher.load_device)
        self.dtype = dtype or _compute_dtype(self.model, self.device)
        self.guidance = self.family.defaults.guidance if guidance == FAMILY_GUIDANCE else guidance
        self._sampling = self.patcher.get_model_object("model_sampling")
        self.schedule = read_schedule(
            self._sampling,
            title=self.family.title,
            kind=self.model.model_type.name,
            predictions=self.family.predictions,
        )
        self._adapters: AdapterSet | None = None
        self._checkpointing = ""
        self._opened = contextlib.ExitStack()
        self._kept: OrderedDict[Any, dict[str, Any]] = OrderedDict()

    def _refuse_distilled(self) -> None:
        if self.family.distilled and getattr(self.network, self.family.distilled, None) is not None:
            raise FamilyError(
                f"model: this {self.family.title} is distilled for few steps and reads which of a sampler's steps it "
                "is at, which training has none of. Train the base model; its LoRA can be used with the distilled one."
            )

    def incoming_notes(self) -> list[str]:
        """Lines on what the MODEL already carries: it is trained on top of that, or without it."""
        notes = []
        if self._assistant:
            notes.append(
                f"assistant_lora: trained on top of {self._assistant}; sample pictures, model_with_lora and the file "
                "are without it."
            )
        if self.drawing.patches:
            weights = counted(len(self.drawing.patches), "[weight|weights]")
            notes.append(f"The MODEL carries patches (LoRAs) on {weights}: trained on top.")
        ignored = [k for k in self.patcher.model_options if k.endswith(("_function", "_wrapper"))]
        kinds = comfy.patcher_extension.WrappersMP
        wrapped = [
            k for k, wrappers in self.patcher.wrappers.items() if k != kinds.DIFFUSION_MODEL and any(wrappers.values())
        ]
        if ignored or wrapped:
            notes.append("The MODEL carries sampling patches that act outside the network: trained without them.")
        if "optimized_attention_override" in self.patcher.model_options["transformer_options"]:
            notes.append("The MODEL carries an attention function of its own: trained with PyTorch's instead.")
        return notes

    @property
    def channels(self) -> int:
        """Channels of the latents."""
        return int(self.model.latent_format.latent_channels)

    @property
    def stride(self) -> int:
        """Pixels per latent cell and side."""
        return int(self.model.latent_format.spacial_downscale_ratio)

    @property
    def has_frames(self) -> bool:
        """Whether the network takes clips, (B, C, F, h, w): a picture is one of a single frame."""
        return self.model.latent_format.latent_dimensions == 3

    def size_fault(self, width: int, height: int) -> str | None:
        """Why pictures of this size cannot be taken, None where they can.

        Some models take only sides that their patches divide, others know a square of places only, or no small ones.
        """
        _, rows, columns = self.family.patch
        step = self.stride * columns, self.stride * rows
        if self.family.divides and (width % step[0] or height % step[1]):
            return f"{width}×{height} is no size for {self.family.title}, whose sides are multiples of {max(step)} px"
        if (width + height) // (2 * self.stride) < self.family.least:
            known = self.family.least * self.stride
            return (
                f"{width}×{height} is too small for {self.family.title}, whose sides are {known} px or more on average"
            )
        places = getattr(self.network, self.family.places, None) if self.family.places else None
        if not isinstance(places, int):
            return None
        if max(-(-width // step[0]), -(-height // step[1])) <= places:
            return None
        known = places * max(step)
        return f"{width}×{height} is too large for this {self.family.title} model, which knows {known} px a side"

    def text_fault(self, text: dict[str, Any]) -> str | None:
        """Why this text's conditioning is not for this model, None where it may be; most networks tell by a layer.

        Raises:
            KeyError: It lacks something that the network reads.
        """
        for name in self.family.text_extras:
            if text.get(name) is None:
                raise KeyError(name)
        conds = self._made(text, {}, (self.channels, 8, 8))
        taps = self._features_of(self.family.text_taps) or 1
        for name, wanted, kind in (
            (TEXT, taps * self._features_of(self.family.text_layer), "features"),
            ("y", self._features_of(self.family.pooled_layer), "pooled features"),
        ):
            given = conds.get(name)
            if wanted and given is None:
                # ComfyUI would show the network zeros instead.
                return f"no {kind}, but {self.family.title} reads {wanted}"
            if wanted and isinstance(given, Tensor) and given.shape[-1] != wanted:
                return f"{given.shape[-1]} {kind}, but {self.family.title} reads {wanted}"
        return None

    def reads_guidance(self, text: dict[str, Any]) -> bool:
        """Whether the network is told a guidance beside this text."""
        return "guidance" in self._made(text, {}, (self.channels, 8, 8))

    def _features_of(self, pattern: str) -> int:
        """What the first layer takes whose path `pattern` matches; 0 where none does."""
        for path, module in self.network.named_modules():
            if pattern and re.fullmatch(pattern, path) and isinstance(module, torch.nn.Linear):
                return module.in_features
        return 0

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
    def blocks(self) -> list[tuple[torch.nn.Module, Blocks]]:
        """The blocks that the network repeats, each with what the family says of it."""
        return find_blocks(self.network, self.family)

    @property
    def token_blocks(self) -> list[tuple[torch.nn.Module, Blocks]]:
        """The blocks that image tokens pass, in that order; none on U-Nets."""
        return [(block, kind) for block, kind in self.blocks if kind.image is not None]

    def token_model(self) -> TokenModel:
        """What planning with the model's tokens must know of it."""
        return TokenModel(self.family.patch[1], len(self.token_blocks), f"this {self.family.title} model")

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
        # Patches of others may have exchanged blocks when the model was loaded.
        self.__dict__.pop("blocks", None)
        with contextlib.ExitStack() as stack:
            stack.enter_context(training_kernels())
            stack.enter_context(autograd_parameters(self.network))
            stack.enter_context(recast_layers(self.network, dtype=self.dtype, device=self.device))
            self._adapters, self._checkpointing = adapters, checkpointing
            stack.callback(self._forget)
            stack.enter_context(adapters.injected())
            if checkpointing == "per block":
                kinds = {id(block): kind for block, kind in self.blocks}
                repeating = functools.partial(hollow_tails, kinds=kinds)
                blocks = [block for block, _ in self.blocks]
                stack.enter_context(checkpoint_blocks(blocks, mutates=self.family.mutates, repeating=repeating))
            self._opened = stack.pop_all()

    def _forget(self) -> None:
        self._adapters = None
        self._kept.clear()

    def autograd_scope(self) -> contextlib.AbstractContextManager:
        """The context in which one forward and its backward must run."""
        return saved_tensor_scope(mutates=self.family.mutates and self._checkpointing == "off")

    def latent_in(self, latent: Tensor) -> Tensor:
        """VAE latents (B, C, [F,] h, w) scaled and shifted as the network sees them."""
        return self._framed(self.model.process_latent_in, latent)

    def _framed(self, function: Callable[[Tensor], Tensor], pictures: Tensor) -> Tensor:
        """`function` of latents; where the network takes clips, a picture goes in as one of a single frame."""
        if self.has_frames and pictures.ndim == 4:
            return function(pictures[:, :, None])[:, :, 0]
        return function(pictures)

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

    def collate(
        self,
        texts: Sequence[dict[str, Any]],
        geometries: Sequence[Geometry],
        shape: Sequence[int],
        *,
        keys: Sequence[str] | None = None,
    ) -> list[dict[str, Any]]:
        """Conditioning of a batch, one entry a sample.

        Args:
            texts: Flat conditioning dicts, `cond` (1, T, D) and whatever else the text encoder gave.
            geometries: Of each sample; networks with size conditioning read them.
            shape: Of one sample's latent, (C, [F,] h, w); what is concatenated to the input has it too.
            keys: Of the texts, equal only for equal ones: within a session each is then processed once for a geometry
                and a shape. None processes each of them.
        """
        sizes = [size_conditioning(geometry) for geometry in geometries]
        shape = tuple(shape)
        if keys is None:
            return [self._made(text, size, shape) for text, size in zip(texts, sizes, strict=True)]
        return [self._kept_or_made(k, t, s, shape) for k, t, s in zip(keys, texts, sizes, strict=True)]

    def _kept_or_made(
        self, key: str, text: dict[str, Any], sizes: dict[str, int], shape: tuple[int, ...]
    ) -> dict[str, Any]:
        slot = (key, tuple(sizes.values()), shape)
        if slot in self._kept:
            self._kept.move_to_end(slot)
            return self._kept[slot]
        out = self._kept[slot] = self._made(text, sizes, shape)
        if len(self._kept) > _KEPT_CONDITIONINGS:
            self._kept.popitem(last=False)
        return out

    def _made(self, text: dict[str, Any], sizes: dict[str, int], shape: tuple[int, ...]) -> dict[str, Any]:
        """ComfyUI's conditions of one sample, on the device and in the dtype of the training."""
        extras = {k: v for k, v in text.items() if k not in ("cond", TEXT_MASK)}
        probe = torch.zeros(1, *shape, device=self.device)
        probe = probe[:, :, None] if self.has_frames and probe.ndim == 4 else probe
        # In inference mode ComfyUI also does what lies outside of its training.
        with torch.inference_mode(self._text_is_adapted()):
            made = self.model.extra_conds(
                **{**extras, **sizes, "guidance": self.guidance},
                cross_attn=text["cond"],
                noise=probe,
                # Networks of several parts, as of pictures and sound, are given those that there are.
                latent_shapes=[probe.shape],
                device=self.device,
                prompt_type="positive",
            )
        out = {k: mapped(c.process_cond(batch_size=1, area=None).cond, self._to_device) for k, c in made.items()}
        if self.family.has_tokens and TEXT_MASK in text:
            out[TEXT_MASK] = self._to_device(text[TEXT_MASK])
        return out

    def _text_is_adapted(self) -> bool:
        """Whether the session's texts pass the network's layers for texts once, before the training."""
        if self._adapters is None or not self.family.text_adapter:
            return False
        return not any(re.fullmatch(self.family.text_adapter, path) for path in self._adapters.targets)

    def _to_device(self, value: Tensor) -> Tensor:
        dtype = self.dtype if value.is_floating_point() else value.dtype
        return value.to(self.device, dtype, copy=True)

    def denoise(
        self, noisy: Tensor, u: Tensor, conditioning: list[dict[str, Any]], *, tokens: TokenPlan | None = None
    ) -> Tensor:
        """The network's own prediction (ε, v or velocity), (B, C, [F,] h, w), in float32 or wider.

        Args:
            noisy: As `flow.add_noise` makes it, (B, C, [F,] h, w).
            u: Noise level of each sample (B,), in [0, 1].
            conditioning: From `collate`, one entry a sample.
            tokens: Which tokens skip blocks and which are seen; None for all pass and are seen.
        """
        groups = rows_alike(conditioning, repeats=self.family.text_repeats)
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
        conds = joined(conditioning)
        network = self._following(tokens, conds.pop(TEXT_MASK, None))
        t, options = told_level(u, self._sampling, self.schedule), self._transformer_options()
        return self._framed(lambda x: self._predict(network, x, t, {**conds, "transformer_options": options}), noisy)

    def _predict(self, network: Callable[..., Tensor], noisy: Tensor, t: Tensor, given: dict[str, Any]) -> Tensor:
        x = noisy.to(self.dtype)
        whole = self._checkpointing == "whole model"
        if not whole or self._adapters is None or not torch.is_grad_enabled():
            return network(x, t, **given)
        return checkpointed(
            network,
            (x, t),
            given,
            parameters=list(self._adapters.parameters().values()),
            mutates=self.family.mutates,
        )

    def _following(self, plan: TokenPlan | None, text_mask: Tensor | None) -> Callable[..., Tensor]:
        """The network, or one whose tokens follow `plan`."""
        network = CoreCall(self.model, self.dtype)
        if plan is None:
            return network
        if plan.text_padding and text_mask is None:
            raise ConfigError(NO_TEXT_MASK)
        return PlannedNetwork(network, self.blocks, plan=plan, text=text_mask if plan.text_padding else None)

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
