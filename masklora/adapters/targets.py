"""Which layers of a network are trained, in which way and of which rank."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from torch import nn

from ..errors import AdapterError
from ..settings import AdapterSettings, about
from .by_layer import Values, values_by_layer
from .layers import is_linear

RANKS: Values[int] = Values(
    "rank_by_layer",
    int,
    1,
    int(about(AdapterSettings, "rank").metadata["range"][1]),
    '"blocks 10-19: 32", "double_blocks 3: 16", "attn: 8" or "others 4"',
    "To leave layers out, name them in exclude.",
)


@dataclass(frozen=True)
class Layers:
    """Paths of the layers that are trained, and how, where that is not as the settings have it for all.

    Attributes:
        paths: Of all.
        full: Of those whose whole weight is learned.
        ranks: Of others, where theirs is not the usual one.
    """

    paths: Sequence[str]
    full: Collection[str] = ()
    ranks: Mapping[str, int] = field(default_factory=dict)


def choose_layers(model: nn.Module, settings: AdapterSettings, *, pattern: str, blocks: Sequence[str] = ()) -> Layers:
    """The layers that these settings train.

    Args:
        model: The diffusion network.
        settings: Of the adapters, with a rank.
        pattern: As in `select_targets`.
        blocks: As in `ranks_by_layer`.

    Raises:
        AdapterError: A setting is none, or finds no layer; names the widget.
    """
    targets, full = select_targets(model, settings, pattern=pattern), select_full(model, settings)
    others = [path for path in targets if path not in set(full)]
    ranks = ranks_by_layer(settings.rank_by_layer, others, usual=settings.rank, blocks=blocks)
    return Layers([*others, *full], frozenset(full), ranks)


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
    include, exclude = settings.include, settings.exclude
    wanted, added, removed = _compiled(pattern), _compiled(include), _compiled(exclude)
    assert wanted is not None
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


def select_full(model: nn.Module, settings: AdapterSettings) -> list[str]:
    """Module paths of the layers whose whole weight is learned, in model order, targets or not.

    Raises:
        AdapterError: `full_layers` is no regular expression, or no linear layer and no 2-D convolution matches.
    """
    if not settings.full_layers.strip():
        return []
    wanted, removed = _compiled(settings.full_layers.strip(), "full_layers"), _compiled(settings.exclude)
    assert wanted is not None
    names = [
        name
        for name, module in model.named_modules()
        if (is_linear(module) or isinstance(module, nn.Conv2d))
        and wanted.search(name)
        and not (removed and removed.search(name))
    ]
    if not names:
        raise AdapterError(
            f"full_layers: {settings.full_layers!r} finds no linear layer and no 2-D convolution of this model that is "
            "not excluded. Correct it, or empty it."
        )
    return names


def _compiled(pattern: str, widget: str = "include/exclude") -> re.Pattern[str] | None:
    try:
        return re.compile(pattern) if pattern else None
    except re.error as error:
        raise AdapterError(f"{widget}: {error} in pattern {error.pattern!r}. Correct the pattern.") from None


def ranks_by_layer(text: str, targets: Sequence[str], *, usual: int, blocks: Sequence[str] = ()) -> dict[str, int]:
    """The rank of each of `targets`, by path, from text such as "blocks 10-19: 32, attn: 16, others 8".

    Args:
        text: As a person typed it, see `values_by_layer`; empty for the usual rank everywhere.
        targets: Paths of layers.
        usual: Rank of those that no part names.
        blocks: Paths of the model's blocks in their order.

    Raises:
        AdapterError: A part is none, or names no layer that no part before it names; names the part.
    """
    return values_by_layer(text, targets, values=RANKS, usual=usual, blocks=blocks)
