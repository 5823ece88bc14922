"""Compiled and larger steps against ComfyUI's Train LoRA node: `python dev.py run benchmarks/compiled_beside_core.py`.

As train_step.py measures, in fewer rounds, on more networks and at larger latents. Blocks are compiled in the warm-up,
with C++; on a card it would be Triton. Numbers of columns measure these alone.
"""

import json
import logging
import sys
import tempfile
import warnings
from pathlib import Path

import torch

from benchmarks.sides import LATENT, Stage, Variant
from benchmarks.train_step import VARIANTS, measure, ratio

RESULTS = Path(__file__).with_suffix(".json")
# Network and side of the latent.
COLUMNS = (("Flux", 32), ("Z-Image", LATENT), ("Wan", LATENT), ("Flux", LATENT))
OFF, RECOMPUTED, CORE, COMPILED = "ours, off", "ours, per block", "core, default", "ours, compiled"
CHOSEN = {name: VARIANTS[name] for name in (OFF, RECOMPUTED, CORE)} | {COMPILED: Variant("ours", compile=True)}
RATIOS = ((OFF, CORE), (RECOMPUTED, CORE), (COMPILED, CORE), (COMPILED, RECOMPUTED))
ROUNDS, STEPS, BEFORE = 2, 4, 2


def line_of(seconds, name):
    """Of the table in docs/evidence.md: of the ratios the median over the rounds, each of the quickest steps."""
    cells = [f"{ratio(seconds, above, below, min):.2f}" for above, below in RATIOS]
    return f"| {name} | {' | '.join(cells)} |"


def main():
    """Measure all; those that were measured before keep their figures where columns are named."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    for column in map(int, sys.argv[1:] or range(len(COLUMNS))):
        network, latent = COLUMNS[column]
        with tempfile.TemporaryDirectory() as folder:
            stage = Stage(network, Path(folder), latent=latent)
            known[f"{network}, {latent}"], _ = measure(stage, CHOSEN, rounds=ROUNDS, steps=STEPS, warm_up=BEFORE)
        RESULTS.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
        sys.stdout.write(line_of(known[f"{network}, {latent}"], f"{network}, {latent}") + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
