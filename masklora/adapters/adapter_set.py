"""The adapters of one training: created by PEFT, put into a model and taken out again without a trace."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from ..autograd.forwards import replaced_forwards
from ..errors import AdapterError, ConfigError
from ..findings import counted
from ..settings import AdapterSettings, check
from .changes import FULL, LOHA, LOKR, Change
from .layers import is_linear
from .lora_keys import ADAPTER, Factors, Learned, from_weights
from .opening import Opening, least_rank, opening_at, parted
from .shared_input import SharedInput, alike, calling
from .targets import Layers


class AdapterSet:
    """Adapters for the chosen layers of one network.

    Created ejected: the network is as it was before. `inject` and `eject` are idempotent and keep the same
    adapter objects, so an optimizer may hold their parameters across any number of them.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: AdapterSettings,
        *,
        targets: Layers | list[str],
        seed: int,
        device: torch.device,
        cross: Collection[str] = (),
    ) -> None:
        """Adapters of `model`.

        Args:
            model: The diffusion network.
            settings: Of the adapters.
            targets: The layers, or their paths alone.
            seed: Of their values.
            device: Where these are.
            cross: Paths of attention that looks at another sequence than its queries come from.
        """
        layers = targets if isinstance(targets, Layers) else Layers(targets)
        check(settings)
        for widget in ("rank", "alpha"):
            if getattr(settings, widget) <= 0:
                raise ConfigError(f"{widget}: expected a value above 0, got {getattr(settings, widget):g}.")
        self._model = model
        self._originals = {name: model.get_submodule(name) for name in layers.paths}
        kinds = {name: FULL if name in layers.full else settings.algorithm for name in layers.paths}
        for name, kind in kinds.items():
            if kind == "dora":
                _refuse_without_plain_weight(name, self._originals[name])
        # PEFT takes a second to import, which ComfyUI's start must not wait for.
        from .thin import Cast

        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self._wrappers = self._wrapped(settings, kinds, layers.ranks)
        self._shared = self._join_layers(cross) if settings.algorithm != "dora" else {}
        self._cast = Cast(self._wrappers.values(), (group for groups in self._shared.values() for group in groups))
        self.dropout = settings.dropout > 0
        self._least = least_rank(settings)
        self._ranks = (
            sorted({one.rank for one in self._wrappers.values() if hasattr(one, "lora_A")}) if self._least else []
        )
        self.set_training(True)
        for parameter in self.parameters().values():
            parameter.data = parameter.data.to(device=device, dtype=torch.float32)
        self.eject()

    def _wrapped(
        self, settings: AdapterSettings, kinds: dict[str, str], ranks: Mapping[str, int]
    ) -> dict[str, nn.Module]:
        """The layers with their adapters, by path in the given order; the random numbers are drawn in that order."""
        from .whole import whole_layer

        factored = [name for name, kind in kinds.items() if kind not in (LOKR, LOHA, FULL)]
        made: dict[str, nn.Module] = dict(self._through_peft(settings, factored, ranks)) if factored else {}
        for name, kind in kinds.items():
            if name not in made:
                rank = ranks.get(name, settings.rank)
                made[name] = whole_layer(
                    self._originals[name],
                    kind,
                    rank=rank,
                    alpha=settings.alpha * rank / settings.rank,
                    factor=settings.lokr_factor,
                    dropout=settings.dropout,
                )
        return {name: made[name] for name in kinds}

    def _through_peft(
        self, settings: AdapterSettings, paths: list[str], ranks: Mapping[str, int]
    ) -> dict[str, nn.Module]:
        """Layers with two factors, as PEFT makes them, by path; the network is as it was before."""
        from peft import LoraConfig
        from peft.mapping import inject_adapter_in_model

        from .thin import thin_layers

        model, originals = self._model, {name: self._originals[name] for name in paths}
        patterns = _patterns(
            {name: rank for name in paths if (rank := ranks.get(name, settings.rank)) != settings.rank}
        )
        config = LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,  # type: ignore[arg-type]
            lora_dropout=settings.dropout,
            target_modules="|".join(re.escape(n) for n in paths),
            use_rslora=settings.algorithm == "rslora",
            use_dora=settings.algorithm == "dora",
            init_lora_weights="gaussian" if settings.init == "gaussian" else True,
            rank_pattern=patterns,
            # Every layer's alpha / rank is that of the settings.
            alpha_pattern={pattern: settings.alpha * rank / settings.rank for pattern, rank in patterns.items()},
        )
        config._register_custom_module(thin_layers(originals.values()))
        before = set(model.__dict__)
        try:
            inject_adapter_in_model(config, model, adapter_name=ADAPTER)
            return {name: model.get_submodule(name) for name in paths}
        finally:
            self._place(originals)
            for extra in set(model.__dict__) - before:
                del model.__dict__[extra]

    @property
    def targets(self) -> tuple[str, ...]:
        """Paths of the adapted layers."""
        return tuple(self._wrappers)

    def _join_layers(self, cross: Collection[str]) -> dict[str, list[SharedInput]]:
        """Layers that may be given one tensor, by the path of the module that has them."""
        thin = {n for n, wrapper in self._wrappers.items() if hasattr(wrapper, "lora_A")}
        linear = {n: int(m.in_features) for n, m in self._originals.items() if n in thin and is_linear(m)}
        found: dict[str, list[SharedInput]] = {}
        for paths in alike(linear, cross=cross):
            group = SharedInput([self._wrappers[path].lora_A[ADAPTER] for path in paths])
            for number, path in enumerate(paths):
                self._wrappers[path].shared, self._wrappers[path].number = group, number
            found.setdefault(paths[0].rpartition(".")[0], []).append(group)
        return found

    @property
    def wrappers(self) -> tuple[nn.Module, ...]:
        """The adapters of these layers, in the same order."""
        return tuple(self._wrappers.values())

    def inject(self) -> None:
        """Put the adapters in front of the layers that are there now: the host may have exchanged some since.

        Raises:
            AdapterError: One is of another shape than the layer for which its adapter was made.
        """
        for name, wrapper in self._wrappers.items():
            layer = self._model.get_submodule(name)
            if layer in (wrapper, self._originals[name]):
                continue
            if not _is_like(layer, self._originals[name]):
                raise AdapterError(
                    f"targets: {name} was exchanged for a {type(layer).__name__} of another kind. Take away the node "
                    "that patches this layer, or exclude it."
                )
            self._originals[name] = wrapper.base_layer = layer
        self._place(self._wrappers)

    def eject(self) -> None:
        """Give the network its own layers back."""
        self._place(self._originals)

    def _place(self, modules: dict[str, nn.Module]) -> None:
        for name, module in modules.items():
            parent, _, child = name.rpartition(".")
            self._model.get_submodule(parent)._modules[child] = module

    @contextlib.contextmanager
    def injected(self) -> Iterator[None]:
        """Injected while the context lasts, ejected after it, also after an error."""
        self.inject()
        groups = {self._model.get_submodule(path): groups for path, groups in self._shared.items()}
        try:
            with replaced_forwards(groups, calling(groups)):
                yield
        finally:
            self.eject()

    @property
    def enabled(self) -> bool:
        """Whether the network, while they are injected, runs with its adapters."""
        return not all(wrapper._disable_adapters for wrapper in self._wrappers.values())

    def set_enabled(self, enabled: bool) -> None:
        """Let the network run with or without its adapters, without rebuilding anything."""
        for wrapper in self._wrappers.values():
            wrapper._disable_adapters = not enabled  # type: ignore[assignment]

    @contextlib.contextmanager
    def disabled(self) -> Iterator[None]:
        """The network is the base model's while the context lasts; nothing is rebuilt."""
        self.set_enabled(False)
        try:
            yield
        finally:
            self.set_enabled(True)

    def cast(self, dtype: torch.dtype) -> None:
        """What is computed next is computed with A and B in `dtype`, cast once for all layers as long as they stay.

        Where nothing has changed since, the same copies are used on, so that terms of one step share them.
        """
        self._cast.make(dtype)

    def drop_cast(self) -> None:
        """Let go of the copies that `cast` made."""
        self._cast.drop()

    @property
    def least(self) -> int:
        """How many ranks are open at the highest noise level; 0 where levels open none."""
        return self._least

    def passes(self, groups: Iterable[list[int]], u: Tensor) -> Iterator[list[int]]:
        """The rows of a batch that go through the network together; as each is given, the ranks of its pass are open.

        By level in training only: a LoRA file has all its ranks open, and validation and pictures show what it does.
        `cast` comes first.

        Args:
            groups: Rows that could go together.
            u: Noise levels (B,).
        """
        if not self._ranks:
            yield from groups
            return
        openings: list[Opening | None] = [None] * len(u)
        if self._training:
            # Where a step is counted there are no values.
            levels = [1.0] * len(u) if u.is_meta else u.tolist()
            openings = [opening_at(level, ranks=self._ranks, least=self._least) for level in levels]
        self._cast.keep(openings)
        for rows in groups:
            for part in parted(rows, openings):
                self._cast.open(openings[part[0]])
                yield part

    def recall(self) -> Callable[[], None]:
        """What opens again the ranks that are open now, before something is repeated in backward."""
        return self._cast.recall()

    def set_training(self, training: bool) -> None:
        """Whether dropout is drawn and ranks are opened by noise level; off for validation and sampling."""
        self._training = training
        for wrapper in self._wrappers.values():
            wrapper.train(training and self.dropout)

    def parameters(self) -> dict[str, nn.Parameter]:
        """Trainable tensors by name: `<path>.lora_A`, `.lora_B` and, with DoRA, `.magnitude`; float32.

        Of layers with another `Change` the names of its parts stand after the path.
        """
        found: dict[str, nn.Parameter] = {}
        for name, wrapper in self._wrappers.items():
            if not hasattr(wrapper, "lora_A"):
                found |= {f"{name}.{part}": parameter for part, parameter in wrapper.trained().items()}  # type: ignore
                continue
            found[f"{name}.lora_A"] = wrapper.lora_A[ADAPTER].weight  # type: ignore[index,union-attr,assignment]
            found[f"{name}.lora_B"] = wrapper.lora_B[ADAPTER].weight  # type: ignore[index,union-attr,assignment]
            if ADAPTER in wrapper.lora_magnitude_vector:  # type: ignore[operator]
                vector = wrapper.lora_magnitude_vector[ADAPTER]  # type: ignore[index]
                found[f"{name}.magnitude"] = vector.weight
        return found

    def scaling(self, name: str) -> float:
        """The factor before B·A of layer `name`: alpha/rank, or alpha/√rank with rsLoRA; before any other `Change`."""
        return float(self._wrappers[name].scaling[ADAPTER])  # type: ignore[index]

    def factors(self, values: dict[str, Tensor] | None = None) -> dict[str, Learned]:
        """What was learned by layer, on the CPU, detached; alpha is such that alpha/rank is the true scaling.

        Args:
            values: Tensors named as in `parameters` to use instead of the present ones (EMA, a checkpoint).
        """
        source = values if values is not None else self.parameters()
        copies = {name: tensor.detach().to("cpu", torch.float32, copy=True) for name, tensor in source.items()}
        out = from_weights(copies, {name: self.scaling(name) for name in self._wrappers})
        for name, learned in out.items():
            magnitude = copies.get(f"{name}.magnitude")
            if magnitude is not None and isinstance(learned, Factors):
                plain = magnitude.reshape(-1, *[1] * (learned.down.ndim - 1))
                scale = plain * self._norm_ratio(name, learned)
                out[name] = dataclasses.replace(learned, dora_scale=scale)
        return out

    def _norm_ratio(self, name: str, factors: Factors) -> Tensor:
        """‖W‖/‖W + ΔW‖ by output row: ComfyUI divides DoRA's magnitude by the first, PEFT by the second."""
        weight = self._originals[name].weight.detach().to("cpu", torch.float32)
        ratio = weight.flatten(1).norm(dim=1) / (weight + factors.delta()).flatten(1).norm(dim=1)
        return ratio.reshape(-1, *[1] * (weight.ndim - 1))

    def _plain_magnitude(self, name: str, factors: Factors) -> Tensor:
        """PEFT's magnitude for a file's factors; those of a plain LoRA keep the length that W + ΔW has."""
        if factors.dora_scale is not None:
            return factors.dora_scale / self._norm_ratio(name, factors)
        weight = self._originals[name].weight.detach().to("cpu", torch.float32)
        return (weight + factors.delta()).flatten(1).norm(dim=1)

    def load(self, factors: dict[str, Learned]) -> None:
        """Continue from `factors`; the layer's scaling is folded in, so the applied change is the same.

        Raises:
            AdapterError: If a layer of the file is not adapted here or in another way, rank or shape differ, or
                magnitudes would be lost.
        """
        own = self.parameters()
        foreign = sorted(set(factors) - set(self._wrappers))
        if foreign:
            raise AdapterError(
                "start_from: the LoRA file changes "
                f"{counted(len(foreign), '[layer that is no target|layers that are no targets]')} here, such as "
                f"{foreign[0]}. Choose targets that include them."
            )
        with torch.no_grad():
            for name, f in factors.items():
                if not hasattr(self._wrappers[name], "lora_A"):
                    self._wrappers[name].load(f, name)  # type: ignore[operator]
                    continue
                if isinstance(f, Change):
                    raise AdapterError(
                        f"start_from: {name} has {f.kind} weights in the file. "
                        + ("Name it in full_layers." if f.kind == FULL else f"Set algorithm to {f.kind}.")
                    )
                a, b = own[f"{name}.lora_A"], own[f"{name}.lora_B"]
                if f.down.shape != a.shape or f.up.shape != b.shape:
                    raise AdapterError(
                        f"start_from: {name} has factors {tuple(f.down.shape)} and {tuple(f.up.shape)} in the file, "
                        f"expected {tuple(a.shape)} and {tuple(b.shape)}. Set rank to the file's rank, "
                        f"{f.down.shape[0]}, and use a LoRA of this model."
                    )
                a.copy_(f.down)
                b.copy_(f.up * (f.alpha / f.down.shape[0] / self.scaling(name)))
                magnitude = own.get(f"{name}.magnitude")
                if magnitude is None and f.dora_scale is not None:
                    raise AdapterError(
                        f"start_from: {name} has DoRA magnitudes in the file, which would be lost. "
                        "Set algorithm to dora."
                    )
                if magnitude is not None:
                    plain = self._plain_magnitude(name, f)
                    magnitude.copy_(plain.reshape(magnitude.shape))


def _patterns(ranks: Mapping[str, int]) -> dict[str, int]:
    """Of these paths with their ranks, the patterns by which PEFT gives them: one for each rank, since it tries all."""
    paths: defaultdict[int, list[str]] = defaultdict(list)
    for path, rank in ranks.items():
        paths[rank].append(f"^{re.escape(path)}")
    return {"|".join(found): rank for rank, found in paths.items()}


def _is_like(layer: nn.Module, other: nn.Module) -> bool:
    names = ("in_features", "out_features", "in_channels", "out_channels", "kernel_size", "stride", "padding", "groups")
    return all(getattr(layer, name, None) == getattr(other, name, None) for name in names)


def _refuse_without_plain_weight(name: str, module: nn.Module) -> None:
    weight = module.weight
    if weight is None or hasattr(module, "_v") or type(weight.data) is not Tensor or weight.dtype.itemsize < 2:
        raise AdapterError(
            f"algorithm: DoRA reads the base weights, and {name} is quantised or streamed. "
            "Choose lora or rslora, or load the model in 16 bits without dynamic VRAM."
        )
