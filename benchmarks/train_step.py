"""Our training step against ComfyUI's Train LoRA node: `python dev.py run benchmarks/train_step.py`.

Prints the table of docs/evidence.md and writes train_step.json beside this file. One process, one thread, CPU time
of the process; the sides take turns (A B … B A). Peak memory comes from a process of its own for each side.
"""

import argparse
import json
import logging
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import torch

from benchmarks.memory import peak_above_start
from benchmarks.sides import LATENT, NETWORKS, PICTURES, RANK, WARM_UP, Stage, Variant
from devtools.running import script_command

# The depth at which core's checkpointing wraps the blocks, which is where it saves memory; 1, its default,
# wraps the whole model and saves none.
BLOCK_DEPTH = "2"
VARIANTS = {
    "ours, per block": Variant("ours"),
    "core, default": Variant("core", checkpointing="1"),
    "ours, off": Variant("ours", checkpointing="off"),
    "core, per block": Variant("core", checkpointing=BLOCK_DEPTH),
    "ours, default targets, per block": Variant("ours", targets="default"),
}
BATCH_VARIANTS = {
    "ours, batch 4": Variant("ours", batch=4),
    "core, batch 4": Variant("core", batch=4, checkpointing="1"),
}
# Title, numerator, denominator, bar (None: shown for comparison).
RATIOS = (
    ("no checkpointing / core's default", "ours, off", "core, default", 0.5),
    ("per block / core's default", "ours, per block", "core, default", None),
    ("per block / core per block", "ours, per block", "core, per block", 0.75),
    ("our default targets, per block / core's default", "ours, default targets, per block", "core, default", None),
    ("batch 4, per block / core's default (it runs 16 samples)", "ours, batch 4", "core, batch 4", 0.25),
)
MEMORY_RATIOS = (
    ("peak memory, per block / core's default", "ours, per block", "core, default", 0.4),
    ("peak memory, no checkpointing / core's default", "ours, off", "core, default", 0.4),
    ("peak memory, per block / core per block", "ours, per block", "core, per block", None),
)


def measure(stage, variants, *, rounds, steps, warm_up=WARM_UP):
    """Seconds of every measured step by variant and round, and what each variant trained.

    The order turns round from round to round, so that a machine that slows down slows all alike.
    """
    found = {name: [] for name in variants}
    counts = {}
    for number in range(rounds):
        for name in list(variants)[:: -1 if number % 2 else 1]:
            trial = stage.train(variants[name], steps=steps, warm_up=warm_up)
            found[name].append(trial.seconds)
            counts[name] = trial.counts
            median = statistics.median(trial.seconds)
            sys.stderr.write(f"{stage.network}, round {number + 1}: {name}: {median:.3f} s a step\n")
    return found, counts


def ratio(found, above, below, of=statistics.median):
    """The median over the rounds of the ratio of `of` the step times."""
    return statistics.median(of(a) / of(b) for a, b in zip(found[above], found[below], strict=True))


def ratios(seconds, memory):
    """Every line of the table with the figure of this network and its bar."""
    lines = []
    for title, above, below, bar in RATIOS:
        lines.append(
            {
                "title": title,
                "ratio of medians": ratio(seconds, above, below),
                "ratio of minima": ratio(seconds, above, below, min),
                "bar": bar,
            }
        )
    for title, above, below, bar in MEMORY_RATIOS:
        if memory[above] and memory[below]:
            lines.append({"title": title, "ratio of medians": memory[above] / memory[below], "bar": bar})
    return lines


def memory_of(network, name):
    """Peak bytes above the start of training, measured in a fresh process; None where it cannot be."""
    command = script_command(sys.executable, Path(__file__), "--memory", network, name)
    environment = dict(os.environ, OMP_NUM_THREADS="1", MALLOC_TRIM_THRESHOLD_="0", MALLOC_MMAP_THRESHOLD_="65536")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{network}, {name}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def print_memory(network, name):
    """The child process: one side trains for three steps."""
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(network, Path(folder))
        _ = stage.model
        variant = {**VARIANTS, **BATCH_VARIANTS}[name]
        peak = peak_above_start(lambda: stage.train(variant, steps=1, warm_up=2))
    sys.stdout.write(json.dumps(peak) + "\n")


def run_network(network, options):
    """Everything measured on one network, as JSON-able values."""
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(network, Path(folder))
        seconds, counts = measure(stage, VARIANTS, rounds=options.rounds, steps=options.steps)
        at_four, _ = measure(stage, BATCH_VARIANTS, rounds=options.batch_rounds, steps=3, warm_up=1)
        seconds |= at_four
        parameters = stage.parameters
    memory = {name: memory_of(network, name) for name in VARIANTS}
    return {
        "network": network,
        "parameters": parameters,
        "trained": {"ours": counts["ours, per block"], "core": counts["core, default"]},
        "trained, our default targets": counts["ours, default targets, per block"],
        "seconds": seconds,
        "peak bytes above the start": memory,
        "ratios": ratios(seconds, memory),
    }


def table(results):
    """The results as Markdown."""
    rows = [f"| ours / ComfyUI's Train LoRA | {' | '.join(r['network'] for r in results)} | bar |"]
    rows.append("|---|" + "---|" * (len(results) + 1))
    for lines in zip(*(r["ratios"] for r in results), strict=True):
        figures = " | ".join(f"{line['ratio of medians']:.2f}" for line in lines)
        bar = lines[0]["bar"]
        rows.append(f"| {lines[0]['title']} | {figures} | {'' if bar is None else f'≤ {bar}'} |")
    for name in VARIANTS:
        medians = [statistics.median(statistics.median(s) for s in r["seconds"][name]) for r in results]
        peaks = [r["peak bytes above the start"][name] for r in results]
        cells = [f"{m:.2f} s" + (f", {p / 2**20:.0f} MiB" if p else "") for m, p in zip(medians, peaks, strict=True)]
        rows.append(f"| {name}: a step, peak | {' | '.join(cells)} | |")
    return "\n".join(rows)


def main():
    """Measure, store, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--network", action="append", choices=list(NETWORKS), help="only this one; may be repeated")
    parser.add_argument("--memory", nargs=2, metavar=("NETWORK", "VARIANT"), help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if options.memory:
        print_memory(*options.memory)
        return
    for network in options.network or NETWORKS:
        store(options.output, run_network(network, options), options)
    sys.stdout.write(table(json.loads(options.output.read_text(encoding="utf-8"))["results"]) + "\n")


def store(path, result, options):
    """Write the result of one network beside those of the others."""
    facts = {
        "latent": LATENT,
        "rank": RANK,
        "pictures": PICTURES,
        "dtype": "float32",
        "threads": 1,
        "torch": torch.__version__,
        "machine": platform.machine(),
        "rounds": options.rounds,
        "rounds at batch 4": options.batch_rounds,
        "steps a round": options.steps,
    }
    known = json.loads(path.read_text(encoding="utf-8"))["results"] if path.is_file() else []
    by_name = {r["network"]: r for r in known} | {result["network"]: result}
    results = [by_name[network] for network in NETWORKS if network in by_name]
    path.write_text(json.dumps({"setting": facts, "results": results}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
