"""The one mapping between adapted layers and the key names of LoRA files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import AdapterError
from .changes import KINDS, Change, from_parts, parts_in_file

Slice = tuple[str, int, int]
"""Name of a diffusers layer, first row and row count inside ours (count 0: all rows)."""

ADAPTER = "default"
"""PEFT's name of the one adapter that a layer of ours carries; it is part of PEFT's key names."""

_TEXT_STEMS = ("lora_te", "text_encoder", "lora_prior_te", "clip_")
_DOWN = (
    ".lora_down.weight",
    ".lora_A.weight",
    ".lora.down.weight",
    "_lora.down.weight",
    ".lora_A.default.weight",
)
_UP = (".lora_up.weight", ".lora_B.weight", ".lora.up.weight", "_lora.up.weight", ".lora_B.default.weight")


@dataclass(frozen=True)
class Factors:
    """Low-rank change of one layer: (alpha / rank) · up · down.

    Attributes:
        down: (rank, in) or (rank, in, kh, kw), float32.
        up: (out, rank) or (out, rank, 1, 1), float32.
        alpha: Scale numerator; rank is `down.shape[0]`.
        dora_scale: DoRA magnitudes (out, 1[, 1, 1]) as ComfyUI applies them: (W + ΔW) · scale / ‖W‖; or None.
    """

    down: Tensor
    up: Tensor
    alpha: float
    dora_scale: Tensor | None = None

    def delta(self) -> Tensor:
        """Change of the weight, in the weight's shape; without DoRA's normalisation."""
        change = (self.up.flatten(1) @ self.down.flatten(1)) * (self.alpha / self.down.shape[0])
        return change.reshape(self.up.shape[0], *self.down.shape[1:])


Learned = Factors | Change
"""What was learned of one layer."""


def from_weights(weights: Mapping[str, Tensor], scalings: Mapping[str, float]) -> dict[str, Learned]:
    """What was learned of each layer, from tensors named as in `AdapterSet.parameters`; without DoRA's magnitudes.

    Args:
        weights: Of all layers.
        scalings: Of each, by module path.

    Raises:
        KeyError: A layer lacks a tensor.
    """
    out: dict[str, Learned] = {}
    of_layers: dict[str, dict[str, Tensor]] = {}
    for name, tensor in weights.items():
        path, _, part = name.rpartition(".")
        of_layers.setdefault(path, {})[part] = tensor
    for path, scaling in scalings.items():
        parts = of_layers[path]
        kind = next((KINDS[part] for part in parts if part in KINDS), None)
        if kind is not None:
            out[path] = Change(kind, parts, scaling)
        else:
            out[path] = Factors(parts["lora_A"], parts["lora_B"], scaling * parts["lora_A"].shape[0])
    return out


def to_comfyui(
    factors: Mapping[str, Learned], *, names: Mapping[str, str] | None = None, prefix: str = "lora_unet_"
) -> dict[str, Tensor]:
    """Tensors under kohya's key names, which ComfyUI and most other tools load.

    Args:
        factors: By module path.
        names: Path → kohya stem, where kohya's tools use another name than the path (SD 1.5).
        prefix: Before each stem.

    Returns:
        `<prefix><stem>.lora_down.weight`, `.lora_up.weight`, `.alpha` (0-d) and, with DoRA, `.dora_scale`; of another
        `Change` what `parts_in_file` gives.
    """
    out: dict[str, Tensor] = {}
    for path, f in factors.items():
        stem = prefix + (names or {}).get(path, path).replace(".", "_")
        if isinstance(f, Change):
            out |= {f"{stem}.{part}": tensor.contiguous() for part, tensor in parts_in_file(f).items()}
            continue
        out[f"{stem}.lora_down.weight"] = f.down.contiguous()
        out[f"{stem}.lora_up.weight"] = f.up.contiguous()
        out[f"{stem}.alpha"] = torch.tensor(float(f.alpha))
        if f.dora_scale is not None:
            out[f"{stem}.dora_scale"] = f.dora_scale.contiguous()
    return out


def to_diffusers(factors: Mapping[str, Learned], *, names: Mapping[str, list[Slice]], prefix: str) -> dict[str, Tensor]:
    """Tensors under PEFT's key names as diffusers writes them; the scale is folded into B.

    Args:
        factors: By module path.
        names: Path → diffusers layers that our layer holds (fused q, k, v give three).
        prefix: What stands before a name: "transformer", or "diffusion_model" before names of ComfyUI.

    Raises:
        AdapterError: If diffusers takes no LoRA of a layer, a change is of another kind, or DoRA magnitudes cannot be
            split.
    """
    out: dict[str, Tensor] = {}
    for path, f in factors.items():
        if path not in names:
            raise AdapterError(f"format: diffusers takes no LoRA of {path}. Export in the comfyui format.")
        if isinstance(f, Change):
            raise AdapterError(f"format: diffusers reads no {f.kind} weights, which {path} has. Choose comfyui.")
        if f.dora_scale is not None:
            raise AdapterError("format: DoRA is exported in the comfyui format only. Choose comfyui.")
        scaled = f.up * (f.alpha / f.down.shape[0])
        for name, first, count in names[path]:
            rows = scaled[first : first + count] if count else scaled
            out[f"{prefix}.{name}.lora_A.weight"] = f.down.clone(memory_format=torch.contiguous_format)
            out[f"{prefix}.{name}.lora_B.weight"] = rows.clone(memory_format=torch.contiguous_format)
    return out


def from_file(tensors: Mapping[str, Tensor], *, aliases: Mapping[str, str], file: str) -> dict[str, Learned]:
    """What a file changes, by module path, in any key style that names whole layers: ours, kohya's, ComfyUI's, PEFT's.

    Args:
        tensors: The file's tensors.
        aliases: File stem → module path (see `stem_aliases`).
        file: The file's name, for messages.

    Raises:
        AdapterError: If a layer of the file is not in this model, or a factor is missing. Text-encoder keys
            are an error too: they would be lost silently.
    """
    stems: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        stem, part = _split(key, file)
        stems.setdefault(stem, {})[part] = value
    out: dict[str, Learned] = {}
    for stem, parts in stems.items():
        if stem.startswith(_TEXT_STEMS) and stem not in aliases:
            raise AdapterError(
                f"{file}: it changes the text encoder too ({stem}), which is not trained here. Connect Train Text "
                "Encoder with those encoders, choose a LoRA file that changes the model only, or put it on the MODEL "
                "with Load LoRA and start anew."
            )
        if stem not in aliases:
            raise AdapterError(
                f"{file}: {stem} is not a layer of this model that can be continued. "
                "Choose a LoRA file that was made for this model (kohya, ComfyUI or Masked LoRA keys)."
            )
        out[aliases[stem]] = _learned(parts, f"{file}: {stem}")
    return out


def _learned(parts: Mapping[str, Tensor], name: str) -> Learned:
    others = {part: tensor for part, tensor in parts.items() if part in KINDS}
    if others and any(part not in (*KINDS, "alpha") for part in parts):
        raise AdapterError(f"{name} has weights of two kinds, which cannot be continued. Choose another LoRA file.")
    if not others and ("down" not in parts or "up" not in parts):
        raise AdapterError(f"{name} lacks its down or up factor. The file is damaged; choose another.")
    _check_numbers(parts, name)
    alpha = float(parts["alpha"]) if "alpha" in parts else None
    if others:
        return from_parts(others, alpha=alpha, name=name)
    down, up = parts["down"].float(), parts["up"].float()
    dora = parts["dora"].float() if "dora" in parts else None
    return Factors(down, up, float(down.shape[0]) if alpha is None else alpha, dora)


def _check_numbers(parts: Mapping[str, Tensor], name: str) -> None:
    alpha = parts.get("alpha")
    if alpha is not None and alpha.numel() != 1:
        raise AdapterError(
            f"{name} has an alpha of {alpha.numel()} values, expected one. The file is damaged; choose another."
        )
    for tensor in parts.values():
        if not bool(torch.isfinite(tensor.float()).all()):
            raise AdapterError(
                f"{name} holds numbers that are not finite (NaN or infinite), so every step would fail. "
                "Choose another LoRA file."
            )


def stem_aliases(paths: list[str], *, diffusers: Mapping[str, str] | None = None) -> dict[str, str]:
    """Every stem under which a file may name one of our layers → its module path.

    Args:
        paths: Module paths of all layers that could be adapted.
        diffusers: Diffusers layer name → module path, for layers that are not fused.
    """
    out: dict[str, str] = {}
    for path in paths:
        out["lora_unet_" + path.replace(".", "_")] = path
        out[f"diffusion_model.{path}"] = path
    for name, path in (diffusers or {}).items():
        out["lora_unet_" + name.replace(".", "_")] = path
        for prefix in ("unet.", "transformer.", ""):
            out[prefix + name] = path
    return out


def _split(key: str, file: str) -> tuple[str, str]:
    for part, endings in (("down", _DOWN), ("up", _UP), ("alpha", (".alpha",)), ("dora", (".dora_scale",))):
        for ending in endings:
            if key.endswith(ending):
                return key[: -len(ending)], part
    stem, _, last = key.rpartition(".")
    if last in KINDS:
        return stem, last
    raise AdapterError(
        f"{file}: {key} is not a LoRA key that can be continued. Choose a LoRA, DoRA, LoKr or LoHa file."
    )
