"""Several processes against one: the same LoRA, and what a step sends.

    python dev.py run benchmarks/peers.py --processes 1 2 4 --out benchmarks/peers.json

Each case is trained by N processes with accumulation a, and by one with accumulation N · a, 20 steps each, on the small
denoiser of the tests. Told is the largest difference of a weight as a share of the largest weight, the largest
difference of a loss as a share of it, and bytes and messages a step.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from devtools.running import script_command
from harness.toy import ToyCache, ToyNet, open_run, toy_entries, toy_job
from masklora import peers
from masklora.settings import NORMALIZE, LossSettings, OptimizerSettings
from masklora.training.job import Hooks, TrainJob
from masklora.training.trainer import train

STEPS, PAIR = 20, 2
_PLAIN = LossSettings(prior_weight=0.0)


class Hollow(ToyCache):
    """The toy's pictures, of which every third has a mask of zero weight."""

    def mask(self, entry: Any, variant: int) -> torch.Tensor:
        """As the toy's."""
        mask = super().mask(entry, variant)
        return torch.zeros_like(mask) if int(entry.name.split()[1].partition(".")[0]) % 3 == 0 else mask


@dataclasses.dataclass(frozen=True)
class Case:
    """A training that several processes share."""

    loss: LossSettings = _PLAIN
    accumulation: int = 1
    hollow: bool = False
    train: dict[str, Any] = dataclasses.field(default_factory=dict)
    optim: dict[str, Any] = dataclasses.field(default_factory=dict)

    def job(self, micros: int) -> TrainJob:
        """Of this process, `micros` batches a step."""
        entries = toy_entries(7)
        settings = {"steps": STEPS, "batch_size": PAIR, "gradient_accumulation": micros, **self.train}
        job = toy_job(entries=entries, loss=self.loss, net=ToyNet(), **settings)
        optim = OptimizerSettings(**{"learning_rate": 1e-2, **self.optim})
        return dataclasses.replace(job, cache=Hollow(entries) if self.hollow else job.cache, optim=optim)


_KEPT = dataclasses.replace(_PLAIN, prior_weight=1.0, prior_probability=0.5)
CASES: dict[str, Case] = {
    **{f"normalised by {one}": Case(dataclasses.replace(_PLAIN, normalize=one)) for one in NORMALIZE},
    "two batches each": Case(accumulation=2),
    "masks of zero weight": Case(hollow=True, accumulation=2),
    "prior half of the time": Case(_KEPT, accumulation=2),
    "mask half of the time, soft edges": Case(dataclasses.replace(_PLAIN, mask_probability=0.5, edge_jitter=0.3)),
    "held to the base without trigger": Case(
        dataclasses.replace(_PLAIN, preservation_weight=1.0, preservation_probability=0.5)
    ),
    "epochs, clipped, averaged": Case(
        train={"steps": 0, "epochs": 9}, optim={"clip_norm": 0.01, "ema_decay": 0.9, "weight_decay": 0.1}
    ),
}


def trained(case: Case, micros: int, folder: Path, hooks: Hooks | None = None) -> dict[str, Any]:
    """What a training of this process, alone or among others, leaves."""
    with open_run(folder) as run:
        done = train(case.job(micros), run=run, hooks=hooks)
    return {"adapter": done.adapter, "losses": done.losses, "steps": done.steps}


def compared(together: dict[str, Any], alone: dict[str, Any]) -> dict[str, float]:
    """How far two trainings are apart."""
    largest = max(float(one.abs().max()) for one in alone["adapter"].values())
    apart = max(float((one - together["adapter"][name]).abs().max()) for name, one in alone["adapter"].items())
    losses = zip(together["losses"], alone["losses"], strict=True)
    return {
        "weights apart": apart / largest,
        "losses apart": max(abs(one - other) / abs(other) if other else abs(one) for one, other in losses),
        "steps": alone["steps"],
    }


def work(folder: Path) -> None:
    """All cases, as one of the processes that torchrun has started; the first one writes what came out."""
    with peers.joined(torch.device("cpu")) as group:
        for number, case in enumerate(CASES.values()):
            before = group.messages, group.sent_bytes
            result = trained(case, case.accumulation, folder / f"process {group.number}" / str(number))
            messages, sent = group.messages - before[0], group.sent_bytes - before[1]
            if group.first:
                save_file(result.pop("adapter"), folder / f"{number}.safetensors")
                text = json.dumps({**result, "messages": messages, "bytes": sent})
                (folder / f"{number}.json").write_text(text, encoding="utf-8")


def together(folder: Path, processes: int) -> list[dict[str, Any]]:
    """What so many processes make of each case."""
    done = subprocess.run(torchrun(processes, Path(__file__), "--work", folder), env=lean(), check=False)
    if done.returncode:
        raise SystemExit(done.returncode)
    found = [json.loads((folder / f"{number}.json").read_text(encoding="utf-8")) for number in range(len(CASES))]
    return [{**one, "adapter": load_file(folder / f"{number}.safetensors")} for number, one in enumerate(found)]


def torchrun(processes: int, script: Path, *arguments: object) -> list[str]:
    """The command line that starts a script of ours so often, on this machine."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [*start, "--no-python", *script_command(Path(sys.executable), script, *map(str, arguments))]


def lean() -> dict[str, str]:
    """This process's environment for processes that share the machine's cores, and need no ComfyUI."""
    kept = {name: value for name, value in os.environ.items() if name != "COMFYUI_PATH"}
    return {**kept, "OMP_NUM_THREADS": "1"}


def rows_of(processes: int) -> dict[str, dict[str, float]]:
    """A row of figures for each case."""
    rows = {}
    with tempfile.TemporaryDirectory() as scratch:
        shared = together(Path(scratch), processes)
        for number, ((name, case), one) in enumerate(zip(CASES.items(), shared, strict=True)):
            single = trained(case, case.accumulation * processes, Path(scratch) / f"alone {number}")
            steps = one["steps"]
            rows[name] = compared(one, single) | {
                "messages a step": one["messages"] / steps,
                "bytes a step": one["bytes"] / steps,
                "bytes of the gradients": sum(4 * tensor.numel() for tensor in one["adapter"].values()),
            }
    return rows


def main() -> None:
    """Compare, show and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.work:
        work(options.work)
        return
    figures = {str(count): rows_of(count) for count in options.processes}
    for count, rows in figures.items():
        for name, row in rows.items():
            numbers = "  ".join(f"{key} {value:.3g}" for key, value in row.items())
            sys.stdout.write(f"{count} processes, {name}: {numbers}\n")
    if options.out:
        options.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
