"""Prints and stores the gradient table: `python dev.py run benchmarks/gradient_table.py`."""

import itertools
import json
import sys
from pathlib import Path

import torch

from benchmarks.gradients import measure
from harness.small import small_models

TARGETS = ("default", "all")


def main() -> None:
    """Measure every family, its usual layers and all of them, in float64 and float32."""
    names = list(small_models())
    dtypes = (torch.float64, torch.float32)
    rows = []
    for name, target, dtype in itertools.product(names, TARGETS, dtypes):
        rows.append(measure(name, dtype=dtype, targets=target))
        sys.stdout.write(json.dumps(rows[-1]) + "\n")
        sys.stdout.flush()
    Path(__file__).with_name("gradient_table.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
