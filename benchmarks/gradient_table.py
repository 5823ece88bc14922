"""Prints and stores the gradient table: `python dev.py run benchmarks/gradient_table.py`."""

import json
import sys
from pathlib import Path

import torch

from benchmarks.gradients import measure

FAMILIES = ("sd15", "sdxl", "sd3", "flux")


def main() -> None:
    """Measure every family in float64 and float32."""
    rows = [measure(f, dtype=d) for f in FAMILIES for d in (torch.float64, torch.float32)]
    for row in rows:
        sys.stdout.write(json.dumps(row) + "\n")
    Path(__file__).with_name("gradient_table.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
