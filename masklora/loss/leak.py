"""Whether a LoRA has learned its pictures' backgrounds: how far it pulls what it is shown towards them.

A training picture is shown with its background blurred: of what stood there only the broad colours are left, and no
word asks for more. The base model paints something of its own into it; where the LoRA moves that towards what is
blurred away, it has learned it. Everything is pure; the trainer runs the models.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

# Below so much of a background there is nothing to measure against.
_NOTHING = 1e-12
# σ of the blur as a share of the shorter side.
BLUR_SHARE = 1 / 12


class Pull(NamedTuple):
    """What a LoRA does to the pictures of a batch outside of their masks, (B,) each on the CPU; NaN for unknown.

    Attributes:
        way: How much of the way from the shown background to the picture's own it goes: 0 none, 1 all, below 0 away.
        straight: The cosine of where it goes and where the own background is, −1 to 1.
    """

    way: Tensor
    straight: Tensor


def blurred_outside(latents: Tensor, outside: Tensor, *, share: float = BLUR_SHARE) -> Tensor:
    """The latents with what is outside blurred, same shape; of what is inside nothing runs into it, nor does it change.

    Each frame by itself. A cell that is partly outside is blurred in that proportion.

    Args:
        latents: (B, C, [F,] h, w) float.
        outside: how much of each cell is ignored, (B, 1, [F,] h, w) in [0, 1].
        share: σ of the Gaussian as a share of the shorter side.
    """
    height, width = latents.shape[-2:]
    down, across = (_gaussian(size, share * min(height, width), like=latents) for size in (height, width))
    total = down @ (latents * outside) @ across
    weight = down @ outside @ across
    blurred = total / weight.clamp(min=_NOTHING)
    return torch.where(outside > 0, torch.lerp(latents, blurred, outside), latents)


def _gaussian(size: int, sigma: float, *, like: Tensor) -> Tensor:
    """How much each of `size` cells in a row counts for each other, (size, size)."""
    places = torch.arange(size, device=like.device, dtype=like.dtype)
    return torch.exp(-0.5 * ((places[:, None] - places) / sigma).square())


def pull(moved: Tensor, towards: Tensor, outside: Tensor) -> Pull:
    """The projection ⟨m, t⟩ / |t|² of each picture's change m on t, and its cosine ⟨m, t⟩ / |m||t|.

    Products and lengths are weighted by `outside`, so that what lies inside of a mask counts for nothing.

    Args:
        moved: how the picture that the model has in mind changes by the LoRA, (B, C, [F,] h, w).
        towards: the picture's own latent less the shown one, likewise.
        outside: how much of each cell is ignored, (B, 1, [F,] h, w) in [0, 1].

    Returns:
        NaN for a picture that has no outside or whose background is no other; 0 and 0 where nothing moves.
    """
    # In float64, which not every accelerator has.
    m, t, v = (one.to("cpu").double() for one in (moved, towards, outside))

    def product(a: Tensor, b: Tensor) -> Tensor:
        return (a * b * v).flatten(1).sum(dim=1)

    along, length, change = product(m, t), product(t, t), product(m, m)
    apart = length > _NOTHING
    way = torch.where(apart, along / length.clamp(min=_NOTHING), math.nan)
    straight = along / (length * change).sqrt().clamp(min=_NOTHING)
    return Pull(way, torch.where(apart, straight.clamp(-1, 1), math.nan))


# What is told of a run, in the order of the fields of `Leak`.
MEASURES = ("leak", "leak_mean", "leak_spread", "leak_cosine", "drift_plain")


@dataclass(frozen=True)
class Leak:
    """What was measured of a LoRA at one step.

    Attributes:
        leak: Mean of `Pull.way` over that half of the showings in which it is larger: a LoRA that knows a background
            brings it back where it recognises it, not always. None where no picture could be measured.
        mean: Mean of `Pull.way` over all of them.
        spread: Their standard deviation, over pictures and noise; 0 of one.
        straight: Mean of `Pull.straight`.
        drift: Mean square change of the prediction on captions without their trigger word, over the base model's own
            mean square error there; None where no caption has one.
        pictures: Mean of `Pull.way` by picture.
    """

    leak: float | None = None
    mean: float | None = None
    spread: float | None = None
    straight: float | None = None
    drift: float | None = None
    pictures: dict[str, float] | None = None

    @property
    def row(self) -> dict[str, float]:
        """What of it is known, by the names of the curves."""
        named = dict(zip(MEASURES, (self.leak, self.mean, self.spread, self.straight, self.drift), strict=True))
        return {name: value for name, value in named.items() if value is not None and math.isfinite(value)}


def mean_leak(found: Sequence[Leak]) -> Leak:
    """That of models which take turns, the mean of each number and picture; of one as it is."""
    if len(found) == 1:
        return found[0]

    def mean(values: Iterable[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known else None

    numbers = {
        name: mean(getattr(one, name) for one in found) for name in ("leak", "mean", "spread", "straight", "drift")
    }
    names = dict.fromkeys(name for one in found for name in one.pictures or {})
    each = {name: mean((one.pictures or {}).get(name) for one in found) for name in names}
    return Leak(**numbers, pictures={name: value for name, value in each.items() if value is not None} or None)


def gather(names: Sequence[str], pulls: Pull, *, changed: float = 0.0, error: float = 0.0) -> Leak:
    """What was measured, from single showings.

    Args:
        names: Of the picture of each showing.
        pulls: (N,) each.
        changed: Sum of the squared changes of the prediction on captions without trigger words.
        error: Sum of the base model's squared errors there; 0 where no caption has one.
    """
    drift = changed / error if error > 0 else None
    showings = zip(names, pulls.way.tolist(), pulls.straight.tolist(), strict=True)
    known = [one for one in showings if math.isfinite(one[1]) and math.isfinite(one[2])]
    if not known:
        return Leak(drift=drift)
    ways = sorted(way for _, way, _ in known)
    mean, count = sum(ways) / len(ways), len(ways)
    upper = ways[count // 2 :]
    spread = math.sqrt(sum((way - mean) ** 2 for way in ways) / max(1, count - 1))
    straight = sum(one for _, _, one in known) / count
    shown: dict[str, list[float]] = {}
    for name, way, _ in known:
        shown.setdefault(name, []).append(way)
    pictures = {name: sum(each) / len(each) for name, each in shown.items()}
    return Leak(sum(upper) / len(upper), mean, spread, straight, drift, pictures)
