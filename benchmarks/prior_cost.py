"""What the inverted mask prior costs a training step: `python dev.py run benchmarks/prior_cost.py`.

Prints a table and writes prior_cost.json beside this file. Our own trainer, checkpointing per block, the family's
default targets. One process, one thread, CPU time of the process; the variants take turns (A B C C B A …).
"""

import argparse
import json
import logging
import platform
import statistics
import sys
import tempfile
import warnings
from pathlib import Path

import torch

from benchmarks.sides import LATENT, NETWORKS, RANK, WARM_UP, Stage, Variant
from masklora.settings import LossSettings

PROBABILITY = 0.25
BAR = 1.12
SHARES = {"p = 1": 1.0, "p = 0.25": PROBABILITY}
VARIANTS = {
    "without": Variant("ours", targets="default"),
    "p = 1": Variant("ours", targets="default", loss=LossSettings(prior_weight=1.0)),
    "p = 0.25": Variant("ours", targets="default", loss=LossSettings(prior_weight=1.0, prior_probability=PROBABILITY)),
}


def measure(stage, variants, *, rounds, steps, warm_up=WARM_UP):
    """By variant, one entry a round: the seconds of its steps, and whether the base model was asked in each."""
    found = {name: [] for name in variants}
    for number in range(rounds):
        for name in list(variants)[:: -1 if number % 2 else 1]:
            trial = stage.train(variants[name], steps=steps, warm_up=warm_up)
            found[name].append({"seconds": trial.seconds, "asked": trial.asked})
            sys.stderr.write(f"{stage.network}, round {number + 1}: {name}: {mean_step(trial):.3f} s a step\n")
    return found


def mean_step(trial):
    """Mean seconds of a step."""
    return statistics.mean(trial.seconds)


def expected_step(round_, share, of=statistics.median):
    """Seconds of a step of which `share` asks the base model: `of` both kinds of step, weighed.

    A short run asks more or less often than its probability says, and a median of all steps would leave the dear
    ones out.
    """
    pairs = list(zip(round_["seconds"], round_["asked"], strict=True))
    plain, asking = ([seconds for seconds, asked in pairs if asked == kind] for kind in (False, True))
    return sum(weight * of(kind) for weight, kind in ((1 - share, plain), (share, asking)) if weight)


def ratios(found, of=statistics.median):
    """Median over the rounds of each variant's step time over the one without a prior."""
    pairs = {name: zip(found[name], found["without"], strict=True) for name in SHARES}
    return {
        name: statistics.median(expected_step(r, SHARES[name], of) / expected_step(plain, 0.0, of) for r, plain in pair)
        for name, pair in pairs.items()
    }


def run_network(network, options):
    """Everything measured on one network, as JSON-able values."""
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(network, Path(folder))
        found = measure(stage, VARIANTS, rounds=options.rounds, steps=options.steps)
        return {"network": network, "parameters": stage.parameters, "rounds": found, **both_ratios(found)}


def both_ratios(found):
    """The two figures of each variant; processes beside this one raise a median, hardly a minimum."""
    return {"ratios of medians": ratios(found), "ratios of minima": ratios(found, min)}


def table(results):
    """The results as Markdown."""
    rows = [f"| a step with the prior / without | {' | '.join(r['network'] for r in results)} | bar |"]
    rows.append("|---|" + "---|" * (len(results) + 1))
    for name, bar in (("p = 1", ""), ("p = 0.25", f"≤ {BAR}")):
        cells = [f"{r['ratios of medians'][name]:.2f} ({r['ratios of minima'][name]:.2f})" for r in results]
        rows.append(f"| {name}: medians (minima) | {' | '.join(cells)} | {bar} |")
    return "\n".join(rows)


def main():
    """Measure, store, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--network", action="append", choices=list(NETWORKS), help="only this one; may be repeated")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    known = json.loads(options.output.read_text(encoding="utf-8"))["results"] if options.output.is_file() else []
    by_name = {r["network"]: r for r in known}
    by_name |= {network: run_network(network, options) for network in options.network or NETWORKS}
    results = [by_name[network] for network in NETWORKS if network in by_name]
    setting = {
        "latent": LATENT,
        "rank": RANK,
        "batch": 1,
        "checkpointing": "per block",
        "dtype": "float32",
        "threads": 1,
        "torch": torch.__version__,
        "machine": platform.machine(),
        "steps a round": options.steps,
    }
    text = json.dumps({"setting": setting, "results": results}, indent=1)
    options.output.write_text(text + "\n", encoding="utf-8")
    sys.stdout.write(table(results) + "\n")


if __name__ == "__main__":
    main()
