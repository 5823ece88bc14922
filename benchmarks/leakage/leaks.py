"""Does the leak that a training tells of itself say what its pictures show?

`python dev.py run benchmarks/leakage/leaks.py` trains a graded series, weights outside the mask from 0 to 1, and prior,
replaced backgrounds, both, and masks a square too large, in the pixel world at 15 %. Of each LoRA it takes the pack's
own measure, with exact masks, and Leak0: how often the training background appears in drawn pictures, prompted by
trigger and class alone. It writes leaks.json after every run (an interrupted benchmark goes on) and prints a table,
what is promised of the measure, and the same figures of what was tried and left.

How the measure was chosen, on seeds 200 to 203: a picture is shown with something else behind its figure, and what the
LoRA changes of the picture in mind is projected on the way back. Before flat colours the mask alone, which leaves the
outside to chance, moves half as far as no mask at all. Before another picture's background, here the same wall lying
otherwise, the LoRA moves on to what it is shown. Inpainted backgrounds separate at some noise levels only. A blurred
one separates, in pixels before the VAE and in the latent, which needs nothing cached. On seeds 200, 202 and 203 a σ of
1/12 of the side was better than 1/6, 1/3 and the mean colour (rank correlation .88 against .76, .74, .74 at .6 and .8),
levels from .4 to .8 were much alike, the cosine too. The mean of the half that is pulled most ranked better than
the mean of all (.93 against .88), the upper quartile alike (.93); with one noise for each picture instead of two the
mean fell to .79.

Another measure was chosen on seeds 200 to 204 and 310 to 314 and reported on 320 to 324, on which it was no better
(docs/evidence.md). On these fifteen seeds together the limit of the verdict was set: 0.03, where .04 had missed three
LoRAs that leak often. Seeds 330 to 339, which are reported, were used for nothing before; measure and limit were fixed.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.leakage.compared import Compared
from benchmarks.leakage.conditions import BOTH, CUSTOM, INFILL, PRIOR, Condition, bare
from benchmarks.leakage.measure import Effort, measure
from benchmarks.leakage.world import Recipe, World
from masklora.cache.cache import Cache
from masklora.cache.infill import KINDS
from masklora.loss.leak import MEASURES, pull
from masklora.loss.noise import add_noise, picture_change
from masklora.settings import LossSettings
from masklora.training.batches import Draw
from masklora.training.microbatch import Feed
from masklora.training.validation import LEAK_LEVELS, background_leak, leak_draws

HERE = Path(__file__).resolve().parent
STORED = HERE / "leaks.json"
COVERAGE = 15
SEEDS = tuple(range(330, 340))
WEIGHTS = (0.0, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
GRADED, GROWN = "weight outside", "mask, a square too large"
# What is promised of the measure.
LEAST_AUC, LEAST_RANK = 0.97, 0.88
LEAKS_OFTEN = 0.5
# Kinds of replaced backgrounds are shown in so many noises.
TRIES = 2


def plan() -> list[Condition]:
    """What is trained with every seed."""
    graded = [Condition(f"{GRADED} {w:g}", widgets=bare(floor=w, floor_mode="max"), group=GRADED) for w in WEIGHTS]
    prior, infill = {"prior_weight": 1.0}, {"infill_probability": 0.5}
    return [
        *graded,
        Condition(PRIOR, widgets=bare(**prior)),
        Condition(INFILL, widgets=bare(**infill)),
        Condition(BOTH, widgets=bare(**prior, **infill)),
        Condition(GROWN, preset=CUSTOM, widgets=bare(), masks="grown"),
    ]


def leak_of(world: World, adapted: Any, cache: Cache, *, seed: int) -> dict[str, float]:
    """The pack's own measure of a MODEL with a LoRA, and what was tried and left, by name."""
    model = Compared(world.model, adapted)
    feed = Feed(cache, LossSettings(), model=model)
    draws = leak_draws(cache.entries, range(len(cache.entries)), seed=seed)
    found = background_leak(model, feed, draws, batch_size=len(draws), seed=seed)
    tried = {f"before {kind}": _before(model, feed, kind) for kind in KINDS}
    return {**found.row, **{name: value for name, value in tried.items() if value is not None}}


def _before(model: Compared, feed: Feed, kind: str) -> float | None:
    """The mean projection of pictures shown before cached backgrounds of a kind; None where there are none."""
    entries = feed.cache.entries
    draws = [Draw(i, 0, 0, n) for i, e in enumerate(entries) for n, one in enumerate(e.infills) if one.kind == kind]
    if not draws:
        return None
    shown, own = feed.make(draws), feed.make([draw._replace(infill=-1) for draw in draws]).latents
    generator, ways = torch.Generator().manual_seed(0), []
    for level in LEAK_LEVELS * TRIES:
        u = torch.full((len(draws),), level)
        noisy = add_noise(shown.latents, torch.randn(own.shape, generator=generator), u, schedule=model.schedule)
        with model.without_adapter():
            base = model.denoise(noisy, u, shown.conditioning)
        moved = picture_change(model.denoise(noisy, u, shown.conditioning) - base, u, schedule=model.schedule)
        ways.append(pull(moved, own - shown.latents, 1 - shown.masks).way)
    return float(torch.stack(ways).nanmean())


def auc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """How likely one of `positive` is larger than one of `negative`, equals count half; NaN without any of either."""
    if not len(positive) or not len(negative):
        return float("nan")
    above = np.subtract.outer(np.asarray(positive), np.asarray(negative))
    return float(np.mean((above > 0) + 0.5 * (above == 0)))


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> float:
    """Spearman's, equals sharing the mean of their ranks."""
    return float(np.corrcoef(_ranks(one), _ranks(other))[0, 1])


def _ranks(values: Sequence[float]) -> np.ndarray:
    found = np.asarray(values, dtype=np.float64)
    return np.array([np.mean(np.flatnonzero(np.sort(found) == value)) for value in found])


def figures(runs: Sequence[dict[str, Any]], name: str) -> tuple[float, float]:
    """AUC of leaking often against never, and rank correlation with Leak0 over the graded series, of a measure."""
    known = [run for run in runs if name in run]
    often = [run[name] for run in known if run["Leak0"] > LEAKS_OFTEN]
    never = [run[name] for run in known if run["Leak0"] == 0]
    graded = [run for run in known if run["group"] == GRADED]
    return auc(often, never), rank_correlation([run[name] for run in graded], [run["Leak0"] for run in graded])


def by_seeds(runs: Sequence[dict[str, Any]], *, draws: int = 1000) -> tuple[float, float, float]:
    """Of the leak's rank correlation the mean within a seed, and its 5 % and 95 % where the seeds are drawn again."""
    graded: dict[int, list[dict[str, Any]]] = {}
    for run in runs:
        if run["group"] == GRADED:
            graded.setdefault(run["seed"], []).append(run)
    drawn = np.random.default_rng(0).choice(list(graded), (draws, len(graded)))
    again = [figures([run for seed in seeds for run in graded[seed]], "leak")[1] for seeds in drawn]
    within = np.mean([figures(one, "leak")[1] for one in graded.values()])
    return float(within), *(float(end) for end in np.percentile(again, (5, 95)))


def failures(runs: Sequence[dict[str, Any]]) -> list[str]:
    """The promises that are broken, as sentences."""
    separates, ranks = figures(runs, "leak")
    found = []
    if not separates >= LEAST_AUC:
        found.append(f"AUC of the leak is {separates:.3f}, below {LEAST_AUC}")
    if not ranks >= LEAST_RANK:
        found.append(f"its rank correlation with Leak0 is {ranks:.3f}, below {LEAST_RANK}")
    return found


def table(runs: Sequence[dict[str, Any]]) -> str:
    """A row for each condition, mean ± standard deviation over the seeds, then a row for each measure, as Markdown."""
    names = list(dict.fromkeys(run["name"] for run in runs))
    lines = ["| | Leak0 | leak | lowest to highest |", "|---|---|---|---|"]
    for name in names:
        painted, leaks = ([run[key] for run in runs if run["name"] == name] for key in ("Leak0", "leak"))
        lines.append(f"| {name} | {_spread(painted, 2)} | {_spread(leaks, 3)} | {min(leaks):.3f} to {max(leaks):.3f} |")
    lines += ["", "| measure | AUC | rank correlation |", "|---|---|---|"]
    measures = [*MEASURES[:4], *(f"before {kind}" for kind in KINDS)]
    lines += [f"| {name} | {a:.3f} | {r:.3f} |" for name in measures for a, r in [figures(runs, name)]]
    return "\n".join(lines)


def _spread(values: Sequence[float], digits: int) -> str:
    return f"{np.mean(values):.{digits}f} ± {np.std(values, ddof=1) if len(values) > 1 else 0:.{digits}f}"


def train_all(path: Path, seeds: Sequence[int], tell: Callable[[str], None]) -> list[dict[str, Any]]:
    """Every run, those that `path` holds as they are."""
    runs = read(path)
    world, there = World("pixel"), {(run["seed"], run["name"]) for run in runs}
    for seed in seeds:
        caches: dict[str, Cache] = {}
        for condition in plan():
            if (seed, condition.name) in there:
                continue
            for masks in ("exact", condition.masks):
                if masks not in caches:
                    caches[masks] = world.make_cache(COVERAGE, seed, masks=masks)
            adapted = world.train(caches[condition.masks], condition.loss, Recipe(), seed=seed)
            painted = measure(world, adapted, coverage=COVERAGE, effort=Effort())["Leak0"]
            found = {"Leak0": painted, **leak_of(world, adapted, caches["exact"], seed=seed)}
            run = {"seed": seed, "name": condition.name, "group": condition.group}
            runs.append(run | {name: round(value, 5) for name, value in found.items()})
            path.write_text(json.dumps({"runs": runs}, indent=1) + "\n", encoding="utf-8")
            tell(f"seed {seed}, {condition.name}: Leak0 {painted:.2f}, leak {runs[-1]['leak']:.3f}\n")
    return runs


def read(path: Path) -> list[dict[str, Any]]:
    """The stored runs; none where there is no file."""
    return json.loads(path.read_text(encoding="utf-8"))["runs"] if path.is_file() else []


def main() -> int:
    """Measure, store, print; 1 if a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--report", action="store_true", help="print what is stored, train nothing")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    runs = read(STORED) if options.report else train_all(STORED, SEEDS, sys.stderr.write)
    broken = failures(runs)
    within, low, high = by_seeds(runs)
    seeds = (
        f"rank correlation within a seed {within:.2f}; where seeds are drawn again, 5 to 95 %: {low:.2f} to {high:.2f}"
    )
    sys.stdout.write("\n".join([table(runs), "", seeds, *(broken or ["Every promise holds."])]) + "\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
