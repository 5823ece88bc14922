"""What preservation without the trigger costs a training step: `python dev.py run benchmarks/preservation_cost.py`.

Measured as `prior_cost` measures the prior. Prints a table and writes preservation_cost.json beside this file; what
preservation costs on a share of the steps follows from what it costs on all of them.
"""

import argparse
import json
import logging
import statistics
import sys
import tempfile
import warnings
from pathlib import Path

import torch

from benchmarks.prior_cost import measure
from benchmarks.sides import NETWORKS, TRIGGER, Stage, Variant
from masklora.settings import LossSettings

SHARES = (1.0, 0.25, 0.1)
WITH = "with preservation"
VARIANTS = {
    "without": Variant("ours", targets="default"),
    WITH: Variant("ours", targets="default", loss=LossSettings(prior_weight=0.0, preservation_weight=1.0)),
}


def ratio(rounds):
    """Median over the rounds of a step's median time with preservation over that without."""
    pairs = zip(rounds[WITH], rounds["without"], strict=True)
    return statistics.median(statistics.median(a["seconds"]) / statistics.median(b["seconds"]) for a, b in pairs)


def table(results):
    """The results as Markdown."""
    rows = [f"| a step with preservation / without | {' | '.join(r['network'] for r in results)} |"]
    rows.append("|---|" + "---|" * len(results))
    for share in SHARES:
        cells = (f"{1 + share * (ratio(r['rounds']) - 1):.2f}" for r in results)
        rows.append(f"| on {share:.0%} of the steps | {' | '.join(cells)} |")
    return "\n".join(rows)


def main():
    """Measure, store, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    results = []
    for network in NETWORKS:
        with tempfile.TemporaryDirectory() as folder:
            rounds = measure(Stage(network, Path(folder)), VARIANTS, rounds=options.rounds, steps=options.steps)
        results.append({"network": network, "rounds": rounds})
    setting = {"trigger": TRIGGER, "checkpointing": "per block", "threads": 1, "torch": torch.__version__}
    text = json.dumps({"setting": setting, "results": results}, indent=1)
    Path(__file__).with_suffix(".json").write_text(text + "\n", encoding="utf-8")
    sys.stdout.write(table(results) + "\n")


if __name__ == "__main__":
    main()
