"""Changes of a layer that are no product of two factors, as files hold them: LoKr, LoHa, and the difference itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import AdapterError

LOKR, LOHA, FULL = "lokr", "loha", "full"

# What a file may hold of a layer, by kind; in ComfyUI's names, which are LyCORIS'.
PARTS = {
    LOKR: ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b"),
    LOHA: ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"),
    FULL: ("diff", "diff_b"),
}
KINDS = {part: kind for kind, parts in PARTS.items() for part in parts}
_NEEDED = {LOHA: PARTS[LOHA], FULL: ("diff",)}


@dataclass(frozen=True)
class Change:
    """What is added to one layer's weight, and with a full difference to its bias.

    Attributes:
        kind: `LOKR`: scale · w1 ⊗ w2, each whole or of two factors; `LOHA`: scale · (w1_a·w1_b) ∘ (w2_a·w2_b); or
            `FULL`: scale · `diff`, with scale · `diff_b` for the bias.
        parts: By their names in files, float32.
        scale: Of all.
    """

    kind: str
    parts: Mapping[str, Tensor]
    scale: float = 1.0

    def delta(self) -> Tensor:
        """Change of the weight, (out, in) or what a convolution's weight is when all but its rows are one axis."""
        p = self.parts
        if self.kind == FULL:
            return p["diff"].flatten(1) * self.scale
        if self.kind == LOHA:
            return (p["hada_w1_a"] @ p["hada_w1_b"]) * (p["hada_w2_a"] @ p["hada_w2_b"]) * self.scale
        return torch.kron(self._whole("lokr_w1"), self._whole("lokr_w2").flatten(1)) * self.scale

    def _whole(self, name: str) -> Tensor:
        return self.parts[name] if name in self.parts else self.parts[f"{name}_a"] @ self.parts[f"{name}_b"]

    def with_whole(self, *names: str) -> Change:
        """The same with these factors of a LoKr, `lokr_w1` or `lokr_w2`, multiplied out where they are of two."""
        parts = dict(self.parts)
        for name in names:
            parts[name] = self._whole(name)
            for half in (f"{name}_a", f"{name}_b"):
                parts.pop(half, None)
        return replace(self, parts=parts)


def parts_in_file(change: Change) -> dict[str, Tensor]:
    """The tensors of a change as a file has them, with its `alpha` where it has one.

    ComfyUI reads the scale as alpha / rank. A LoKr whose factors are whole has no rank, and it ignores its alpha: there
    the scale is a part of the first factor, as it is a part of a full difference.
    """
    parts = dict(change.parts)
    if change.kind == FULL:
        return {name: tensor * change.scale for name, tensor in parts.items()}
    rank = next((parts[name].shape[0] for name in ("lokr_w2_b", "lokr_w1_b", "hada_w1_b") if name in parts), 0)
    if not rank:
        parts["lokr_w1"] = parts["lokr_w1"] * change.scale
    return {**parts, "alpha": torch.tensor(change.scale * rank if rank else 1.0)}


def from_parts(parts: Mapping[str, Tensor], *, alpha: float | None, name: str) -> Change:
    """The change that a file's tensors of one layer make.

    Args:
        parts: By their names in the file, all of one kind.
        alpha: As the file has it.
        name: Of the file and the layer, for messages.

    Raises:
        AdapterError: They are of two kinds, or one is missing.
    """
    kinds = list(dict.fromkeys(KINDS[part] for part in parts))
    kind = kinds[0]
    halves = [part for part in parts if part.startswith("lokr") and part.endswith(("_a", "_b"))]
    whole = all(part[:-1] + other in parts for part in halves for other in "ab")
    made = all(any(factor in part for part in parts) for factor in ("lokr_w1", "lokr_w2")) if kind == LOKR else True
    if len(kinds) > 1 or not whole or not made or any(part not in parts for part in _NEEDED.get(kind, ())):
        raise AdapterError(f"{name} lacks a part of its {kind}, or has parts of others. Choose another file.")
    ranks = [parts[part].shape[0] for part in ("lokr_w2_b", "lokr_w1_b", "hada_w1_b") if part in parts]
    scale = 1.0 if alpha is None or not ranks or kind == FULL else alpha / ranks[0]
    return Change(kind, {part: tensor.float() for part, tensor in parts.items()}, scale)
