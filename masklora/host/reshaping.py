"""A LoRA as it is to be written: of another rank, of own strengths in some blocks, and what that changes."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ..adapters import Learned, to_comfyui
from ..adapters.by_layer import values_by_layer
from ..adapters.changes import FULL, Change
from ..adapters.reshaping import STRENGTHS, Error, resized, strengthened, together
from ..adapters.text_encoders import is_of_texts
from ..errors import AdapterError, ConfigError
from ..findings import Finding, counted, note
from ..runs.lora_file import LoraRecord
from ..settings import ExportSettings, check
from .exporting import KeptTensors, LoraTensors

# So many layers of those that lost most are told by name; the file's metadata have all.
_TOLD = 3
_COUNTS_BLOCKS = re.compile(r"(?:^|[,;\n])\s*blocks?\s+\d")


def reshaped(lora: dict[str, Tensor], settings: ExportSettings) -> tuple[dict[str, Tensor], list[Finding]]:
    """What is to be written instead of `lora`, of two models both; and what a person should know of it.

    Args:
        lora: From a LORA_MODEL socket.
        settings: `new_rank`, `keep_energy` and `block_strengths`; with none of them `lora` is given back.

    Raises:
        ConfigError: A setting is out of range, or the LoRA is none of ours.
        AdapterError: A part of the strengths is none or names no layer, nothing is left, or a layer is of a kind that
            cannot be changed so exactly.
    """
    check(settings)
    asked = [name for name in ("new_rank", "keep_energy") if getattr(settings, name)]
    asked += ["block_strengths"] if settings.block_strengths.strip() else []
    if not asked:
        return lora, []
    if not isinstance(lora, LoraTensors | KeptTensors):
        raise ConfigError(
            f"{', '.join(asked)}: only a LoRA from Train Masked LoRA or Load Run tells its layers. Leave these off."
        )
    found: list[Finding] = []
    made: LoraTensors | KeptTensors
    if isinstance(lora, KeptTensors):
        made = KeptTensors(_changed(lora.kept, lora.kept.kohya, settings, found))
    else:
        made = LoraTensors(_changed(lora.trained, lora.trained.names.kohya, settings, found))
    if any(map(is_of_texts, lora)):
        found.append(note(f"{', '.join(asked)}: what was learned of the text encoder is written as it was trained."))
    return made, found


def _changed(one: Any, kohya: Mapping[str, str], settings: ExportSettings, found: list[Finding], of: str = "") -> Any:
    """A `TrainedLora` or `KeptLora` with other factors, and its low one with others of its own."""
    factors, errors = one.factors, {}
    if settings.block_strengths.strip():
        factors = _strengthened(factors, one.blocks, settings.block_strengths, found, of)
    if settings.new_rank or settings.keep_energy:
        factors, errors = _resized(factors, settings, found, of)
    low = one.low and _changed(one.low, kohya, settings, found, "model_low: ")
    record = _told(one.record, one.factors, factors, errors, settings)
    texts = {key: tensor for key, tensor in one.tensors.items() if is_of_texts(key)}
    tensors = to_comfyui(factors, names=kohya) | texts
    return dataclasses.replace(one, factors=factors, tensors=tensors, record=record, low=low)


def _strengthened(
    factors: Mapping[str, Learned], blocks: Sequence[str], text: str, found: list[Finding], of: str
) -> dict[str, Learned]:
    if not blocks and _COUNTS_BLOCKS.search(text):
        raise AdapterError(
            "block_strengths: this run did not keep the order of its model's blocks. Name them by their list, as "
            "double_blocks 0-9: 0.5, or queue the run's graph again and export from there."
        )
    strengths = values_by_layer(text, list(factors), values=STRENGTHS, usual=1.0, blocks=blocks)
    made = {path: strengthened(one, strengths[path], name=path) for path, one in factors.items()}
    left = {path: one for path, one in made.items() if one is not None}
    if not left:
        raise AdapterError("block_strengths: it leaves no layer of the LoRA. Give some a strength other than 0.")
    each = Counter(strengths.values())
    listed = ", ".join(f"{counted(each[value], '[layer|layers]')} at {value:g}" for value in sorted(each, reverse=True))
    found.append(note(f"{of}block_strengths: {listed}. They are part of the file."))
    return left


def _resized(
    factors: Mapping[str, Learned], settings: ExportSettings, found: list[Finding], of: str
) -> tuple[dict[str, Learned], dict[str, Error]]:
    """Layers that are learned whole have no rank and stay."""
    whole = [path for path, one in factors.items() if isinstance(one, Change) and one.kind == FULL]
    before = {path: one for path, one in factors.items() if path not in whole}
    if not before:
        raise AdapterError(
            f"{of}new_rank, keep_energy: all layers are learned whole, so none has a rank. Set both to 0."
        )
    made, errors = {}, {}
    for path, one in before.items():
        made[path], errors[path] = resized(one, rank=settings.new_rank, energy=settings.keep_energy, name=path)
    old, new = (_ranks(each) for each in (before, made))
    most = sorted(errors, key=lambda path: errors[path].share, reverse=True)[:_TOLD]
    layers = ", ".join(f"{path} {errors[path].share:.2%}" for path in most)
    found.append(
        note(
            f"{of}new_rank, keep_energy: from rank {old} to {new}. The change of the weights is "
            f"{together(errors).share:.2%} off in all, most in {layers}. The file's metadata tell it of every layer."
        )
    )
    if whole:
        kept = counted(
            len(whole), "[layer is learned whole and stays as it is|layers are learned whole and stay as they are]"
        )
        found.append(note(f"{of}new_rank, keep_energy: {kept}, such as {whole[0]}."))
    return {path: made.get(path, one) for path, one in factors.items()}, errors


def _ranks(factors: Mapping[str, Any]) -> str:
    ranks = sorted({len(one.down) for one in factors.values()})
    return f"{ranks[0]}" if len(ranks) == 1 else f"{ranks[0]} to {ranks[-1]}"


def _told(
    record: LoraRecord,
    before: Mapping[str, Any],
    factors: Mapping[str, Any],
    errors: Mapping[str, Error],
    settings: ExportSettings,
) -> LoraRecord:
    reshaped: dict[str, Any] = {"block_strengths": settings.block_strengths.strip()}
    changes: dict[str, Any] = {}
    if errors:
        # Where no rank became lower each layer keeps its alpha.
        if any(len(factors[path].down) < len(before[path].down) for path in errors):
            rank = max(len(factors[path].down) for path in errors)
            changes = {"rank": rank, "alpha": float(rank)}
        off = {path: round(error.share, 6) for path, error in errors.items()}
        limits = {"new_rank": settings.new_rank, "keep_energy": settings.keep_energy}
        reshaped |= {**limits, "error": round(together(errors).share, 6), "errors": off}
    return dataclasses.replace(record, **changes, extra={**record.extra, "reshaped": reshaped})
