"""ComfyUI's MODEL as something that can be trained, in sessions that leave no trace."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import comfy.model_management
import comfy.patcher_extension
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...adapters import AdapterSet, choose_layers
from ...autograd.compiled import Compiler
from ...autograd.recompute import checkpointed, recalled, trained_parameters
from ...autograd.saved_tensors import saved_tensor_scope
from ...errors import ConfigError, FamilyError
from ...loss.noise import rescale_zero_terminal_snr
from ...loss.tokens import TokenModel, TokenPlan
from ...settings import CHECKPOINTING, OFFLOADED, PER_BLOCK, AdapterSettings, check_choice
from ...viewing.training_sample import about_colours
from ..families import FAMILY_GUIDANCE, Blocks, find_family
from ..references.conditions import beside, gathered, reference_tokens
from ..swap.block_swap import BlockSwap, unload_models
from ..swap.copies import is_main_memory
from ..swap.kept_inputs import KeptInputs
from .assistant import with_assistant
from .blocks import counted_paths, cross_paths, features_of, find_blocks, refuse_foreign_layers
from .conditioning import FROM_TEXT, filled, joined, mapped, refuse_trained, rows_alike, size_conditioning
from .core_call import CoreCall, compute_dtype
from .encoders import NO_TEXT_MASK, TEXT_MASK
from .patches import (
    autograd_parameters,
    given_weights,
    recast_layers,
    recomputed,
    training_kernels,
    uncompiled_because,
)
from .sampling_schedule import read_schedule, scaled, told_level
from .token_attention import pinned_attention
from .token_routing import PlannedNetwork, masks_for_texts

if TYPE_CHECKING:
    from ...dataset.geometry import Geometry

KEPT_CONDITIONINGS = 64


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
        self.drawing = scaled(patcher.clone())
        self.patcher = with_assistant(self.drawing, assistant) if assistant else self.drawing
        self.assistant = assistant.name if assistant else ""
        self.swap, self.quantised = BlockSwap(), False
        # What else is on the device while this is trained.
        self.companions: list[ModelPatcher] = []
        self.model = self.patcher.model
        self.network = self.model.diffusion_model
        self.family = find_family(type(self.model.model_config).__name__, self.network, unknown=unknown)
        self._refuse_distilled()
        refuse_foreign_layers(self.network)
        self.device = torch.device(self.patcher.load_device)
        self.inputs, self.dtype = KeptInputs(self.device), dtype or compute_dtype(self.model, self.device)
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
        self._given: tuple[AdapterSet, str] | None = None
        self._opened = contextlib.ExitStack()
        self._kept: OrderedDict[Any, dict[str, Any]] = OrderedDict()

    def _refuse_distilled(self) -> None:
        if self.family.distilled and getattr(self.network, self.family.distilled, None) is not None:
            raise FamilyError(
                f"model: this {self.family.title} is distilled for few steps and reads which of a sampler's steps it "
                "is at, which training has none of. Train the base model; its LoRA can be used with the distilled one."
            )

    @property
    def channels(self) -> int:
        """Channels of the latents."""
        return self.family.channels or int(self.model.latent_format.latent_channels)

    @property
    def stride(self) -> int:
        """Pixels per latent cell and side."""
        return int(self.model.latent_format.spacial_downscale_ratio)

    @property
    def has_frames(self) -> bool:
        """Whether the network takes clips, (B, C, F, h, w): a picture is one of a single frame."""
        return self.model.latent_format.latent_dimensions == 3

    def text_fault(self, text: dict[str, Any]) -> str | None:
        """Why this text's conditioning is not for this model, None where it may be; most networks tell by a layer.

        Raises:
            KeyError: It lacks something that the network reads.
        """
        for name in self.family.text_extras:
            if text.get(name) is None:
                raise KeyError(name)
        # Before ComfyUI makes conditions of it, for which some networks already put it through their first layers.
        given = text["cond"].shape[-1]
        wanted, pooled_wanted = self.text_widths()
        if wanted and given != wanted:
            return f"{given} features, but {self.family.title} reads {wanted}"
        wanted = pooled_wanted
        pooled = self._conditions(text).get("y") if wanted else None
        if wanted and pooled is None:
            # ComfyUI would show the network zeros instead.
            return f"no pooled features, but {self.family.title} reads {wanted}"
        if isinstance(pooled, Tensor) and pooled.shape[-1] != wanted:
            return f"{pooled.shape[-1]} pooled features, but {self.family.title} reads {wanted}"
        return None

    def runs_apart(self, texts: Sequence[dict[str, Any]], *, targets: Iterable[str]) -> bool:
        """Whether samples whose texts are as unlike in length as these cannot share a pass.

        Args:
            texts: Of which the smallest and the largest are looked at, since some networks do much with them.
            targets: Paths of the layers with an adapter.
        """
        sizes = [sum(v.numel() for v in text.values() if isinstance(v, Tensor)) for text in texts]
        if len(set(sizes)) < 2:
            return False
        unlike = (texts[sizes.index(end)] for end in (min(sizes), max(sizes)))
        return len(self._groups([self._conditions(text, targets) for text in unlike])) > 1

    def text_widths(self) -> tuple[int, int]:
        """Features of a token of the texts, and of a pooled text with the sizes; 0 where no layer tells."""
        names = self.family.text_layer, self.family.text_taps, self.family.pooled_layer
        width, taps, pooled = (features_of(self.network, name) for name in names)
        return width * (taps or 1), pooled

    def reads(self, name: str, text: dict[str, Any]) -> bool:
        """Whether the network is given a condition, by ComfyUI's name, beside this text: "guidance", "c_concat"."""
        return name in self._conditions(text)

    def _conditions(self, text: dict[str, Any], targets: Iterable[str] = ()) -> dict[str, Any]:
        """ComfyUI's of one text, before a session for adapters of `targets`."""
        return self._made(text, {}, (self.channels, 8, 8), targets)

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
        if not is_main_memory(self.device):
            unload_models()
        self._load(activation_bytes)

    def _load(self, activation_bytes: int) -> None:
        room = activation_bytes + self.swap.slot_bytes
        comfy.model_management.load_models_gpu([self.patcher, *self.companions], memory_required=room)

    def make_adapters(self, settings: AdapterSettings, *, seed: int) -> AdapterSet:
        """Adapters for this network, ejected; see `AdapterSet`."""
        pattern, blocks = self.family.targets[settings.targets], counted_paths(self.network, self.blocks)
        layers = choose_layers(self.network, settings, pattern=pattern, blocks=blocks)
        with torch.inference_mode(False), autograd_parameters(self.network):
            cross = cross_paths(self.network, self.blocks)
            return AdapterSet(self.network, settings, targets=layers, seed=seed, device=self.device, cross=cross)

    @contextlib.contextmanager
    def session(
        self,
        adapters: AdapterSet,
        *,
        checkpointing: str = "per block",
        compiler: Compiler | None = None,
        resting: bool = False,
    ) -> Iterator[None]:
        """While it lasts the network is differentiable and carries `adapters`; afterwards it is as before.

        Args:
            adapters: Of this network.
            checkpointing: What is repeated in backward.
            compiler: Of this network's blocks, where these are compiled; needs checkpointing per block.
            resting: Whether it begins as after `rest`.
        """
        check_choice("checkpointing", checkpointing, CHECKPOINTING)
        self._compiler, self._given = compiler, (adapters, checkpointing)
        with torch.inference_mode(False), torch.enable_grad():
            if not resting:
                self._open()
            try:
                yield
            finally:
                self.rest()
                self.swap.release()
                self.inputs.release()

    def rest(self) -> None:
        """Within a session: the network is ComfyUI's own again until `wake`; the adapters are out and keep theirs."""
        self._opened.close()

    def wake(self, *, activation_bytes: int) -> None:
        """The session goes on, with the weights on the device and so much room beside them."""
        with torch.inference_mode():
            self._load(activation_bytes)
        self._open()

    @contextlib.contextmanager
    def suspended(self, *, activation_bytes: int) -> Iterator[None]:
        """Within a session: it rests while the context lasts, in inference mode, and wakes whatever took its place."""
        self.rest()
        try:
            with torch.inference_mode():
                try:
                    yield
                finally:
                    self._load(activation_bytes)
        finally:
            self._open()

    def _open(self) -> None:
        assert self._given is not None
        adapters, checkpointing = self._given
        # Patches of others may have exchanged blocks when the model was loaded.
        self.__dict__.pop("blocks", None)
        with contextlib.ExitStack() as stack:
            stack.enter_context(training_kernels())
            stack.enter_context(self.swap.opened(self.network))
            stack.enter_context(autograd_parameters(self.network))
            with self.swap.shown():
                how = {"dtype": self.dtype, "device": self.device, "quantised": self.quantised}
                stack.enter_context(recast_layers(self.network, **how, recalling=adapters.recall))
            self._adapters, self._checkpointing = adapters, checkpointing
            stack.callback(self._forget)
            stack.enter_context(adapters.injected())
            stack.enter_context(masks_for_texts(self.blocks))
            if checkpointing == OFFLOADED:
                stack.enter_context(self.inputs.opened())
            if checkpointing in PER_BLOCK:
                keep, hold, mutates = self.inputs.keeping, self.swap.holding, self.family.mutates
                given = {"keeping": keep, "recalling": adapters.recall}
                stack.enter_context(recomputed(self.blocks, mutates=mutates, holding=hold, **given))
                if self._compiler is not None:
                    blocks, reason = [block for block, _ in self.blocks], uncompiled_because
                    stack.enter_context(
                        self._compiler.compiled(blocks, at_hand=self._at_hand, hindrance=reason, **given)
                    )
            self._opened = stack.pop_all()

    @contextlib.contextmanager
    def _at_hand(self, block: torch.nn.Module, again: bool) -> Iterator[None]:
        with self.swap.holding(block, again), given_weights(block, dtype=self.dtype, device=self.device):
            yield

    def _forget(self) -> None:
        assert self._adapters is not None
        self._adapters.drop_cast()
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
        return about_colours(latent, self.model.latent_format)

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
        if len(self._kept) > KEPT_CONDITIONINGS:
            self._kept.popitem(last=False)
        return out

    def text_conditions(self, text: dict[str, Any], geometry: Geometry, shape: tuple[int, ...]) -> dict[str, Any]:
        """Of what `collate` makes of a sample that which its text decides, to be derived by what made the text."""
        made = self._derived(text, size_conditioning(geometry), shape)
        return {name: made[name] for name in FROM_TEXT if name in made}

    def _made(
        self, text: dict[str, Any], sizes: dict[str, int], shape: tuple[int, ...], targets: Iterable[str] = ()
    ) -> dict[str, Any]:
        """What is kept of a sample, in which no adapter has a part."""
        out = self._derived(text, sizes, shape, targets)
        if self._adapters is not None:
            refuse_trained(out, self._adapters.parameters(), title=self.family.title)
        return out

    def _derived(
        self, text: dict[str, Any], sizes: dict[str, int], shape: tuple[int, ...], targets: Iterable[str] = ()
    ) -> dict[str, Any]:
        """ComfyUI's conditions of one sample in the dtype of the training: on its device, or before it on the weights'.

        Some networks put texts through their first layers for it.
        """
        device = torch.device(self.patcher.current_loaded_device())
        if self._adapters is not None:
            device, targets = self.device, self._adapters.targets
        extras = gathered({k: v for k, v in text.items() if k not in ("cond", TEXT_MASK)})
        probe = torch.zeros(1, *shape, device=device)
        probe = probe[:, :, None] if self.has_frames and probe.ndim == 4 else probe
        sound = [torch.Size((1, *self.family.sound))] if self.family.sound else []
        # In inference mode ComfyUI also does what lies outside of its training.
        with torch.inference_mode(self.family.reads_texts_once(targets)):
            made = self.model.extra_conds(
                **{**extras, **sizes, "guidance": self.guidance},
                cross_attn=text["cond"],
                noise=probe,
                **beside(self, probe),
                # Networks of several parts, as of pictures and sound, are given those that there are.
                latent_shapes=[probe.shape, *sound],
                device=device,
                prompt_type="positive",
            )
        out = {k: c.process_cond(batch_size=1, area=None).cond for k, c in made.items()}
        if self.family.has_tokens and TEXT_MASK in text:
            out[TEXT_MASK] = text[TEXT_MASK]
        return mapped(out, lambda v: v.to(device, self.dtype if v.is_floating_point() else v.dtype, copy=True))

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
        groups: Iterable[list[int]] = self._groups(conditioning)
        if self._adapters is not None and self._adapters.enabled:
            self._adapters.cast(self.dtype)
            groups = self._adapters.passes(groups, u)
        parts, order = [], []
        for rows in groups:
            if len(rows) == len(u):
                return self._run(noisy, u, conditioning, tokens)
            order += rows
            each = [conditioning[i] for i in rows]
            parts.append(self._run(noisy[rows], u[rows], each, tokens and tokens.rows(rows)))
        back = torch.tensor(order, device=noisy.device).argsort()
        return torch.cat(parts)[back]

    def _groups(self, conditioning: list[dict[str, Any]]) -> list[list[int]]:
        if self.family.alone:
            return [[i] for i in range(len(conditioning))]
        return rows_alike(conditioning, unequal=self.family.text_repeats or self.family.text_fills)

    def _run(self, noisy: Tensor, u: Tensor, conditioning: list[dict[str, Any]], tokens: TokenPlan | None) -> Tensor:
        conditioning, seen = filled(conditioning) if self.family.text_fills else (conditioning, None)
        conds = joined(conditioning)
        plan, shown = tokens or TokenPlan(self.tokens_of(noisy.shape[2:])), reference_tokens(self, conds)
        network = self._following(plan, conds.pop(TEXT_MASK, None), seen, references=shown)
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
            parameters=trained_parameters(self.network),
            mutates=self.family.mutates,
            again=recalled(self._adapters.recall(), network),
        )

    def _following(
        self, plan: TokenPlan, padding: Tensor | None, seen: Tensor | None, *, references: int = 0
    ) -> Callable[..., Tensor]:
        """The network, or one whose tokens follow `plan` and of the texts see what `seen` has as True."""
        network = CoreCall(self.model, self.dtype)
        if plan.text_padding and padding is None:
            raise ConfigError(NO_TEXT_MASK)
        if not (plan.text_padding or plan.passages) and plan.visible is None and seen is None:
            return network
        padding = padding if plan.text_padding else None
        return PlannedNetwork(network, self.blocks, plan=plan, padding=padding, filled=seen, references=references)

    def tokens_of(self, sides: Sequence[int]) -> int:
        """How many image tokens a sample has whose latent has these sides, ([F,] h, w)."""
        patch = self.family.patch[-len(sides) :]
        return math.prod(-(-side // size) for side, size in zip(sides, patch, strict=True))

    def _transformer_options(self) -> dict[str, Any]:
        options = comfy.patcher_extension.copy_nested_dicts(self.patcher.model_options["transformer_options"])
        options["optimized_attention_override"] = pinned_attention
        options["wrappers"] = comfy.patcher_extension.copy_nested_dicts(self.patcher.wrappers)
        options["callbacks"] = comfy.patcher_extension.copy_nested_dicts(self.patcher.callbacks)
        return options
