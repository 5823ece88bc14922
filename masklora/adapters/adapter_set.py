"""The adapters of one training: created by PEFT, put into a model and taken out again without a trace."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Collection, Iterator

import torch
from torch import Tensor, nn

from ..autograd.forwards import replaced_forwards
from ..errors import AdapterError, ConfigError
from ..findings import counted
from ..settings import AdapterSettings, check
from .layers import is_linear
from .lora_keys import ADAPTER, Factors
from .shared_input import SharedInput, alike, calling


def select_targets(model: nn.Module, settings: AdapterSettings, *, pattern: str) -> list[str]:
    """Module paths that get an adapter, in model order.

    Args:
        model: The diffusion network.
        settings: `include` adds and `exclude` removes paths by regular expression (search, not full match);
            `convolutions` admits 2-D convolutions.
        pattern: The preset's regular expression, full match on the path.

    Raises:
        AdapterError: If a pattern is no regular expression or nothing matches.
    """
    try:
        wanted, include, exclude = re.compile(pattern), settings.include, settings.exclude
        added = re.compile(include) if include else None
        removed = re.compile(exclude) if exclude else None
    except re.error as error:
        raise AdapterError(f"include/exclude: {error} in pattern {error.pattern!r}. Correct the pattern.") from None
    names = []
    for name, module in model.named_modules():
        one_by_one = isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and wanted.pattern != ".*"
        convolves = settings.convolutions and isinstance(module, nn.Conv2d)
        if not is_linear(module) and not convolves and not one_by_one:
            continue
        chosen = wanted.fullmatch(name) or (added and added.search(name))
        if chosen and not (removed and removed.search(name)):
            names.append(name)
    if not names:
        raise AdapterError(
            f"targets: no layer matches {settings.targets!r} with include {include!r} and exclude {exclude!r}. "
            "Widen include or narrow exclude."
        )
    return names


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
        targets: list[str],
        seed: int,
        device: torch.device,
        cross: Collection[str] = (),
    ) -> None:
        """Adapters of `model`.

        Args:
            model: The diffusion network.
            settings: Of the adapters.
            targets: Paths of the layers.
            seed: Of their values.
            device: Where these are.
            cross: Paths of attention that looks at another sequence than its queries come from.
        """
        check(settings)
        for widget in ("rank", "alpha"):
            if getattr(settings, widget) <= 0:
                raise ConfigError(f"{widget}: expected a value above 0, got {getattr(settings, widget):g}.")
        self._model = model
        self._originals = {name: model.get_submodule(name) for name in targets}
        if settings.algorithm == "dora":
            for name, module in self._originals.items():
                _refuse_without_plain_weight(name, module)
        # PEFT takes a second to import, which ComfyUI's start must not wait for.
        from peft import LoraConfig
        from peft.mapping import inject_adapter_in_model

        from .thin import Cast, thin_layers

        config = LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,  # type: ignore[arg-type]
            lora_dropout=settings.dropout,
            target_modules="|".join(re.escape(n) for n in targets),
            use_rslora=settings.algorithm == "rslora",
            use_dora=settings.algorithm == "dora",
            init_lora_weights="gaussian" if settings.init == "gaussian" else True,
        )
        config._register_custom_module(thin_layers(self._originals.values()))
        before = set(model.__dict__)
        try:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(seed)
                inject_adapter_in_model(config, model, adapter_name=ADAPTER)
        except BaseException:
            self._place(self._originals)
            raise
        finally:
            for extra in set(model.__dict__) - before:
                del model.__dict__[extra]
        self._wrappers = {name: model.get_submodule(name) for name in targets}
        self._shared = self._join_layers(cross) if settings.algorithm != "dora" else {}
        self._cast = Cast(self._wrappers.values(), (group for groups in self._shared.values() for group in groups))
        self.dropout = settings.dropout > 0
        self.set_training(True)
        for parameter in self.parameters().values():
            parameter.data = parameter.data.to(device=device, dtype=torch.float32)
        self.eject()

    @property
    def targets(self) -> tuple[str, ...]:
        """Paths of the adapted layers."""
        return tuple(self._wrappers)

    def _join_layers(self, cross: Collection[str]) -> dict[str, list[SharedInput]]:
        """Layers that may be given one tensor, by the path of the module that has them."""
        linear = {n: int(module.in_features) for n, module in self._originals.items() if is_linear(module)}
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

    def set_training(self, training: bool) -> None:
        """Whether dropout is drawn; off for validation and sampling."""
        for wrapper in self._wrappers.values():
            wrapper.train(training and self.dropout)

    def parameters(self) -> dict[str, nn.Parameter]:
        """Trainable tensors by name: `<path>.lora_A`, `.lora_B` and, with DoRA, `.magnitude`; float32."""
        found: dict[str, nn.Parameter] = {}
        for name, wrapper in self._wrappers.items():
            found[f"{name}.lora_A"] = wrapper.lora_A[ADAPTER].weight  # type: ignore[index,union-attr,assignment]
            found[f"{name}.lora_B"] = wrapper.lora_B[ADAPTER].weight  # type: ignore[index,union-attr,assignment]
            if ADAPTER in wrapper.lora_magnitude_vector:  # type: ignore[operator]
                vector = wrapper.lora_magnitude_vector[ADAPTER]  # type: ignore[index]
                found[f"{name}.magnitude"] = vector.weight
        return found

    def scaling(self, name: str) -> float:
        """The factor before B·A of layer `name`: alpha/rank, or alpha/√rank with rsLoRA."""
        return float(self._wrappers[name].scaling[ADAPTER])  # type: ignore[index]

    def factors(self, values: dict[str, Tensor] | None = None) -> dict[str, Factors]:
        """Low-rank factors by layer, on the CPU, detached; alpha is such that alpha/rank is the true scaling.

        Args:
            values: Tensors named as in `parameters` to use instead of the present ones (EMA, a checkpoint).
        """
        source = values if values is not None else self.parameters()
        out = {}
        for name in self._wrappers:
            down = source[f"{name}.lora_A"].detach().to("cpu", torch.float32, copy=True)
            up = source[f"{name}.lora_B"].detach().to("cpu", torch.float32, copy=True)
            factors = Factors(down, up, self.scaling(name) * down.shape[0])
            magnitude = source.get(f"{name}.magnitude")
            if magnitude is not None:
                plain = magnitude.detach().to("cpu", torch.float32).reshape(-1, *[1] * (down.ndim - 1))
                scale = plain * self._norm_ratio(name, factors)
                factors = dataclasses.replace(factors, dora_scale=scale)
            out[name] = factors
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

    def load(self, factors: dict[str, Factors]) -> None:
        """Continue from `factors`; the layer's scaling is folded in, so the applied change is the same.

        Raises:
            AdapterError: If a layer of the file is not adapted here, rank or shape differ, or magnitudes would be lost.
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
