"""Digests of one short training per family: run before and after a change that must move no number, and compare.

`python dev.py run benchmarks/recorded_trainings.py` prints a line for each family. A digest belongs to the machine
that it was made on: another processor may round otherwise.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from pathlib import Path

import torch

from harness.training import make_cache, make_request
from masklora.host.training import train_lora
from masklora.training.job import Hooks

FAMILIES = ("sd15", "sdxl", "sd3", "flux")


def digest_of(family: str) -> str:
    """The digest of a LoRA of three steps, trained from made-up pictures with the prior and half its masks."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        request = make_request(family, make_cache(family))
        trained = train_lora(request, runs=Path(folder), hooks=Hooks(), report=lambda finding: None)
    hasher = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(trained.tensors.items()):
        hasher.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return hasher.hexdigest()


def main() -> None:
    """Prints the digests."""
    torch.set_num_threads(1)
    for family in FAMILIES:
        sys.stdout.write(f"{family} {digest_of(family)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
