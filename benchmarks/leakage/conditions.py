"""What is compared: no mask, every trainer's preset, ours, and each remedy alone and together."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from masked_lora_pack.nodes.loss import MaskedLoss
from masklora.loss.presets import CUSTOM, PRESET_NAMES
from masklora.settings import LossSettings

from .scenes import PERTURBATIONS

NO_MASK, MASK, PRIOR, INFILL, BOTH = "no mask", "mask", "mask + prior", "mask + infill", "mask + prior + infill"
KEEP = "mask + preservation"
PRESERVATION = (0.1, 0.25, 0.5, 1.0)
OURS = LossSettings().preset
ANCHORS = tuple(name for name in PRESET_NAMES if name not in (OURS, CUSTOM))
# What every option of `custom` is off at, so that a remedy is alone when it says so.
_BARE = {"infill_probability": 0.0, "prior_weight": 0.0, "preservation_weight": 0.0}
_PRIOR, _INFILL = {"prior_weight": 1.0}, {"infill_probability": 0.5}


def bare(**widgets: Any) -> dict[str, Any]:
    """These widgets of the Masked Loss node, everything that helps beside the mask being off."""
    return {**_BARE, **widgets}


@dataclass(frozen=True)
class Condition:
    """One row of the table.

    Attributes:
        name: of the row.
        preset: of the Masked Loss node.
        widgets: of that node, where they differ from its defaults.
        masks: "none", "exact", or how they are perturbed.
        group: which part of the table.
        adapter: widgets of the Adapter node, where they differ from those of all conditions.
    """

    name: str
    preset: str = CUSTOM
    widgets: dict[str, Any] = field(default_factory=dict)
    masks: str = "exact"
    group: str = "remedies"
    adapter: dict[str, Any] = field(default_factory=dict)

    @property
    def loss(self) -> LossSettings:
        """What the Masked Loss node makes of it."""
        return MaskedLoss.execute(preset=self.preset, **self.widgets).args[0]

    @property
    def told(self) -> dict[str, Any]:
        """What of its masks and loss is not the pack's default, JSON-able."""
        default = dataclasses.asdict(LossSettings())
        loss = {k: v for k, v in dataclasses.asdict(self.loss).items() if v != default[k] and k != "preset"}
        return {"masks": self.masks, **loss, **self.adapter}

    @property
    def key(self) -> str:
        """Equal for conditions that train alike: neither the preset's name nor the channel of a mask file counts."""
        loss = dataclasses.asdict(dataclasses.replace(self.loss, preset=CUSTOM, mask_channel=""))
        alike = {"masks": self.masks, "loss": loss} | ({"adapter": self.adapter} if self.adapter else {})
        text = json.dumps(alike, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def remedies() -> list[Condition]:
    """No mask, the mask alone, each remedy with it, all of them, and what they cost less for."""

    def row(name: str, **widgets: Any) -> Condition:
        return Condition(name, widgets={**_BARE, **widgets})

    return [
        Condition(NO_MASK, widgets=_BARE, masks="none"),
        row(MASK),
        row(PRIOR, **_PRIOR),
        row(INFILL, **_INFILL),
        row(BOTH, **_PRIOR, **_INFILL),
    ]


def studies() -> list[Condition]:
    """What the defaults were chosen from, beyond `remedies`; preservation on half of the steps where none is said."""

    def row(name: str, **widgets: Any) -> Condition:
        return Condition(name, widgets={**_BARE, **widgets}, group="studies")

    both, rarely = {**_PRIOR, **_INFILL}, ((0.25, 0.25), (0.5, 0.25), (0.5, 0.1))
    return [
        row(KEEP, **_kept(0.5)),
        *[row(f"{BOTH} + preservation {weight:g}", **both, **_kept(weight)) for weight in PRESERVATION],
        *[
            row(f"{BOTH} + preservation {weight:g} on {p:.0%} of the steps", **both, **_kept(weight, probability=p))
            for weight, p in rarely
        ],
        *[row(f"{BOTH}, prior on {p:.0%} of the steps", **both, prior_probability=p) for p in (0.5, 0.25)],
        row(f"{BOTH}, infill on every step", **_PRIOR, infill_probability=1.0),
    ]


def _kept(weight: float, *, probability: float = 0.5) -> dict[str, float]:
    return {"preservation_weight": weight, "preservation_probability": probability}


def presets() -> list[Condition]:
    """Ours, and every other trainer's."""
    return [Condition(name, preset=name, group="presets") for name in (OURS, *ANCHORS)]


def by_level(least: int = 2) -> list[Condition]:
    """No mask, the mask alone and all remedies, each with ranks that open by noise level."""
    rows = (NO_MASK, MASK, BOTH)
    return [
        dataclasses.replace(c, name=f"{c.name}, T-LoRA", group="adapters", adapter=_t_lora(least))
        for c in remedies()
        if c.name in rows
    ]


def _t_lora(least: int) -> dict[str, Any]:
    return {"algorithm": "tlora", "least_rank": least}


def careless() -> list[Condition]:
    """The mask alone and our preset with masks that a careless hand drew."""
    return [
        Condition(f"{name}, masks {how}", preset=preset, widgets=widgets, masks=how, group="perturbed masks")
        for how in PERTURBATIONS
        for name, preset, widgets in ((MASK, CUSTOM, _BARE), (OURS, OURS, {}))
    ]
